// Client.java NAME TYPE...: what Java's own JNDI client says
import java.util.*;
import javax.naming.directory.*;

class Client {
    public static void main(String[] words) throws Exception {
        System.setProperty("java.naming.factory.initial", "com.sun.jndi.dns.DnsContextFactory");
        DirContext dns = new InitialDirContext();
        for (int i = 0; i < words.length; i += 2) {
            Object said;
            try {
                said = new TreeSet<Object>(Collections.list(dns.getAttributes(words[i], new String[] { words[i + 1] }).get(words[i + 1]).getAll()));
            } catch (Exception e) {
                said = e.getClass().getSimpleName();
            }
            System.out.println(words[i] + " " + words[i + 1] + " " + said);
        }
    }
}
