#!/bin/sh
# smartdns 40: with a plain `server` behind it, an answer that is too long for UDP comes back as TC=1 without a record, over TCP
# as well: it does not ask its upstream over TCP, and hands the upstream's TC on to a client that has nowhere else to go (RFC
# 7766 5).
export packages='smartdns=40+dfsg-1 nsd=4.6.1-1 bind9-dnsutils=1:9.18.49-1~deb12u3'
. "$(dirname "$0")/lab.sh"

for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do printf 'long TXT "%s %0200d"\n' $i $i; done | zone example.com 127.0.0.2
printf '%s\n' 'bind 127.0.0.3:53' 'bind-tcp 127.0.0.3:53' 'server 127.0.0.2' 'speed-check-mode none' 'log-level error' "log-file $LAB/log" \
    'cache-persist no' >"$LAB/smartdns.conf"
smartdns -f -x -c "$LAB/smartdns.conf" -p - >"$LAB/out" 2>&1 &
answers 127.0.0.3 ns.example.com A
says() { dig "@$1" +tcp long.example.com TXT | sed -n 's/;; flags: \([a-z ]*\);.*ANSWER: \([0-9]*\),.*/\1, \2 records/p'; }
seen 'nsd over TCP' 'qr aa rd, 25 records' "$(says 127.0.0.2)"
seen 'smartdns over TCP' 'qr aa tc rd, 0 records' "$(says 127.0.0.3)"
