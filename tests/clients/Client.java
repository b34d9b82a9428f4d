// Client.java NAME...: what Java says, by getaddrinfo and by its own JNDI client
import java.net.InetAddress;
import java.util.*;
import javax.naming.NamingException;
import javax.naming.directory.*;

class Client {
    static void say(DirContext dns, String name, String type) throws NamingException {
        List<String> list = new ArrayList<>();
        try {
            Attribute a = dns.getAttributes(name, new String[] { type }).get(type);
            for (int i = 0; a != null && i < a.size(); i++)
                list.add(a.get(i) instanceof byte[] ? Arrays.toString((byte[]) a.get(i)) : a.get(i).toString());
        } catch (NamingException e) {
            list.add(e.getClass().getSimpleName());
        }
        Collections.sort(list);
        System.out.println(name + " " + type + " " + list);
    }

    public static void main(String[] names) throws Exception {
        Hashtable<String, String> env = new Hashtable<>();
        env.put("java.naming.factory.initial", "com.sun.jndi.dns.DnsContextFactory");
        DirContext dns = new InitialDirContext(env);
        for (String name : names) {
            List<String> list = new ArrayList<>();
            try {
                for (InetAddress a : InetAddress.getAllByName(name)) list.add(a.getHostAddress());
            } catch (java.net.UnknownHostException e) {
                list.add("unknown");
            }
            Collections.sort(list);
            System.out.println(name + " " + list);
            say(dns, name, "A");
            say(dns, name, "AAAA");
        }
        for (String[] x : new String[][] { { "signed", "MX" }, { "_sip._tcp.signed", "SRV" }, { "naptr.signed", "NAPTR" }, { "big.signed", "TXT" } })
            say(dns, x[0], x[1]);
    }
}
