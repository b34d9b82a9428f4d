// Client.java NAME...: what Java says, by getaddrinfo and by its own JNDI client
import java.net.InetAddress;
import java.util.*;
import java.util.concurrent.Callable;
import javax.naming.directory.*;

class Client {
    static void say(String what, Callable<List<?>> ask) {
        try {
            System.out.println(what + " " + new TreeSet<>(ask.call()));
        } catch (Exception e) {
            System.out.println(what + " " + e.getClass().getSimpleName());
        }
    }

    public static void main(String[] names) throws Exception {
        System.setProperty("java.naming.factory.initial", "com.sun.jndi.dns.DnsContextFactory");
        DirContext dns = new InitialDirContext();
        List<String> records = new ArrayList<>(List.of("signed MX", "_sip._tcp.signed SRV", "naptr.signed NAPTR", "big.signed TXT"));
        for (String name : names) {
            say(name, () -> Arrays.stream(InetAddress.getAllByName(name)).map(InetAddress::getHostAddress).toList());
            records.addAll(List.of(name + " A", name + " AAAA"));
        }
        for (String x : records) {
            String[] word = x.split(" ");
            say(x, () -> Collections.list(dns.getAttributes(word[0], new String[] { word[1] }).get(word[1]).getAll()));
        }
    }
}
