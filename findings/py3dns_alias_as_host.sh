#!/bin/sh
# py3dns 3.2.1: its convenience calls hand out the data of every record of the answer, that of aliases too. The way back from an address
# of a small network is an alias by design (RFC 2317), and of alias and host revlookup returns whichever is shorter: "who is 192.0.2.5" gets
# the name of a piece of in-addr.arpa. mxlookup, "a sorted list of (preference, mail exchanger)", begins with a bare name after an
# alias, and is in the order of the wire.
export packages='python3-dns=3.2.1-2 nsd=4.6.1-1 bind9-dnsutils=1:9.18.49-1~deb12u3'
. "$(dirname "$0")/lab.sh"

printf '%s\n' '5 CNAME 5.0-63' '5.0-63 PTR mail-out-5.customers.example.' '6 CNAME 6.0-63' '6.0-63 PTR a.example.' | zone 2.0.192.in-addr.arpa 127.0.0.2
printf '%s\n' 'lists CNAME mx' 'mx MX 20 b' 'mx MX 10 a' | zone example.com 127.0.0.3
says() { PYTHONPATH=$LAB/root/usr/lib/python3/dist-packages /usr/bin/python3 -c "import DNS; DNS.defaults['server'] = ['$1']; print(DNS.$2)"; }
seen 'the reverse of 192.0.2.5, by dig' '5.0-63.2.0.192.in-addr.arpa.
mail-out-5.customers.example.' "$(dig @127.0.0.2 +short -x 192.0.2.5)"
seen 'revlookup of it' 5.0-63.2.0.192.in-addr.arpa "$(says 127.0.0.2 "revlookup('192.0.2.5')")"
seen 'revlookup of one with a short name' a.example "$(says 127.0.0.2 "revlookup('192.0.2.6')")"
seen 'mxlookup of the name itself' "[(20, 'b.example.com'), (10, 'a.example.com')]" "$(says 127.0.0.3 "mxlookup('mx.example.com')")"
seen 'mxlookup of its alias' "['mx.example.com', (20, 'b.example.com'), (10, 'a.example.com')]" "$(says 127.0.0.3 "mxlookup('lists.example.com')")"
