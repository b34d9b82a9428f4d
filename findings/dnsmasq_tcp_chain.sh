#!/bin/sh
# dnsmasq 2.90: a chain of two CNAMEs that was first asked for over TCP loses its middle in the cache. The first answer is whole;
# the next ones, over UDP and TCP, say that the first name is an alias of the last. (RFC 1034 3.6.2: the chain is data of three
# owners.) What compares names of the answer, or has cached the middle one, sees another world than before.
export packages='dnsmasq-base=2.90-4~deb12u2 nsd=4.6.1-1 bind9-dnsutils=1:9.18.49-1~deb12u3'
. "$(dirname "$0")/lab.sh"

zone example.com 127.0.0.2 <<END
first CNAME second
second CNAME third
third A 192.0.2.1
END
dnsmasq -k -C /dev/null -R -h --pid-file= --user=root --log-facility="$LAB/dnsmasq.log" --listen-address=127.0.0.3 --bind-interfaces --server=127.0.0.2 &
answers 127.0.0.3 example.com SOA
whole='first.example.com. IN CNAME second.example.com.
second.example.com. IN CNAME third.example.com.
third.example.com. IN A 192.0.2.1'
seen 'first, over TCP' "$whole" "$(records 127.0.0.3 first.example.com A +tcp)"
seen 'from its cache' 'first.example.com. IN CNAME third.example.com.
third.example.com. IN A 192.0.2.1' "$(records 127.0.0.3 first.example.com A)"
