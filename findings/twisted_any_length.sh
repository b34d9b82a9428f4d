#!/bin/sh
# Twisted Names 22.4 as forwarder with a cache (twistd dns -r -c): a datagram is as long as the answer, 4.7 kB here, whatever the client has
# allowed; TC is never set (RFC 6891 6.2.3, RFC 1035 4.2.1). The question's RD does not come back, and "no such name" comes without
# the SOA that its own upstream sent, so nobody behind it can keep that no (RFC 2308 3); "no such type" has one.
export packages='python3-twisted=22.4.0-4+deb12u1 nsd=4.6.1-1 bind9-dnsutils=1:9.18.49-1~deb12u3'
. "$(dirname "$0")/lab.sh"

for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do printf 'long TXT "%s %0220d"\n' $i $i; done | zone example.com 127.0.0.2
echo 'nameserver 127.0.0.2' >"$LAB/resolv.conf"
(cd "$LAB" && PYTHONPATH=$LAB/root/usr/lib/python3/dist-packages exec twistd3 -n --pidfile= dns -p 53 -i 127.0.0.3 -c -r --resolv-conf="$LAB/resolv.conf") \
    >"$LAB/out" 2>&1 &
answers 127.0.0.3 ns.example.com A
says() { dig "$@" +notcp +ignore | sed -n 's/.*status: \([A-Z]*\),.*/\1/p; s/;; flags: \([a-z ]*\);.*/\1/p; s/.*IN[[:space:]]*SOA.*/SOA/p; s/.*rcvd: /octets /p' | tr '\n' ' '; }
seen 'nsd, 512 octets allowed' 'NOERROR qr aa tc rd octets 45 ' "$(says @127.0.0.2 +bufsize=512 long.example.com TXT)"
seen 'twisted, 512 octets allowed' 'NOERROR qr aa ra octets 4778 ' "$(says @127.0.0.3 +bufsize=512 long.example.com TXT)"
seen 'nsd, no such name' 'NXDOMAIN qr aa rd SOA octets 84 ' "$(says @127.0.0.2 no.example.com A)"
seen 'twisted, no such name' 'NXDOMAIN qr ra octets 32 ' "$(says @127.0.0.3 no.example.com A)"
seen 'twisted, no such type' 'NOERROR qr ra SOA octets 70 ' "$(says @127.0.0.3 ns.example.com MX)"
