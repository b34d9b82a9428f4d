#!/bin/sh
# smartdns 40, and 48 still: an answer of more than 4 kB never arrives, though its server is asked over TCP (`server-tcp`) and the client
# asks over TCP as well. It asks four times, throws each away, and says SERVFAIL after two seconds. TXT records of a large domain are that
# long; RFC 7766 (8) allows 64 kB.
export packages='smartdns=40+dfsg-1 nsd=4.6.1-1 bind9-dnsutils=1:9.18.49-1~deb12u3'
. "$(dirname "$0")/lab.sh"

for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18; do
    printf 'long TXT "%s %0200d"\n' $i $i
    printf 'longer TXT "%s %0200d"\nlonger TXT "other %s %0200d"\n' $i $i $i $i
done | zone example.com 127.0.0.2
printf '%s\n' 'bind 127.0.0.3:53' 'bind-tcp 127.0.0.3:53' 'server-tcp 127.0.0.2' 'speed-check-mode none' 'log-level debug' "log-file $LAB/log" \
    'cache-persist no' >"$LAB/smartdns.conf"
smartdns -f -x -c "$LAB/smartdns.conf" -p - >"$LAB/out" 2>&1 &
answers 127.0.0.3 ns.example.com A
says() { dig "@$1" +tcp +tries=1 "$2.example.com" TXT | sed -n 's/.*status: \([A-Z]*\),.*/\1/p; s/.*ANSWER: \([0-9]*\),.*/\1 records/p; s/.*rcvd: /octets /p' | tr '\n' ' '; }
seen 'nsd over TCP, long' 'NOERROR 18 records octets 3957 ' "$(says 127.0.0.2 long)"
seen 'smartdns over TCP, long' 'NOERROR 18 records octets 3957 ' "$(says 127.0.0.3 long)"
seen 'nsd over TCP, longer' 'NOERROR 36 records octets 7946 ' "$(says 127.0.0.2 longer)"
seen 'smartdns over TCP, longer' 'SERVFAIL 0 records octets 36 ' "$(says 127.0.0.3 longer)"
seen 'smartdns gave up' 'retry query longer.example.com, type: 16, failed' "$(sed -n 's/.*\(retry query .*16,\) id: [0-9]* failed/\1 failed/p' "$LAB/log" | head -n 1)"
