# serving.sh - who is served: addresses, UDP and TCP.
# Alone: ./test.sh serving tcp

leg_serving() {
    up u1
    port=$(freeport) second=$(freeport)
    replies <<'END'
a query over UDP is answered with what the upstream says, over TCP likewise
 ; proxy p "$u1 1" "listen 127.0.0.1@$port" "listen ::1@$port" "listen 127.0.0.3@$port"
 ; ^NOERROR qr rd ra .* an=1 .*\| a\.test\. 300 A 192\.0\.2\.1$ ; a.test | a.test +tcp
an address that is not listed does not serve ; ^(REFUSEDPORT|TIMEOUT) ; a.test +server=127.0.0.4 +timeout=300
every listen address serves, IPv4 and IPv6, UDP and TCP ; each serves 127.0.0.3 ::1
listen * is every IPv4 and IPv6 address ; proxy p "$u1 1" "listen *@$port"
 ; each serves 127.0.0.1 127.0.0.77 ::1
SIGINT ends it, exit status 0 ; kill -INT "$(pid p)"
 ; wait "$(pid p)" || fail "exit status $?"
 ; rm -f "$T/p.pid"
without a listen line it serves *, at the port of -p ; launch p $WRAP "$BIN" -p "$port" "$u1 1" "admin 127.0.0.1@$admin"
 ; ^NOERROR ; h.test +server=::1 | i.test +server=127.0.0.9
two ports of one address serve side by side ; proxy p "$u1 1" "listen 127.0.0.1@$port" "listen 127.0.0.1@$second"
 ; each 'port=$it && says ^NOERROR "at$it.test"' "$port" "$second"
a host without IPv6 serves IPv4, and has no use for an upstream with an IPv6 address
 ; ! shim NO_IPV6 || shimmed p "$u1 2" '2001:db8::1 1' '2001:db8::2 1 tcp' "listen *@$port"
 ; ^NOERROR ; l.example | ll.example
 ; saw 0 'out of descriptors' p
replies to one socket leave together, each from the address that was asked, where the way out refuses that, one by one
 ; proxy p "$u1 1" "listen *@$port"
 ; meanwhile other many n=900 window=200 name=one%03d.test
 ; like ' right 900 failed 0 lost 0 ' "$(many n=900 window=200 +server=127.0.0.77 name=one%03d.test)"
 ; ended other ' right 900 failed 0 lost 0 '
 ; ! shim NO_SEGMENTS || shimmed p "$u1 1" "listen *@$port"
 ; like ' right 900 failed 0 lost 0 ' "$(many n=900 window=200 +server=127.0.0.77 name=one%03d.test)"
 ; [ ! -e "$T/shim" ] || within 1 8 "$(shim_count)" 'messages refused'
SIGTERM under load: it ends within a second, and started again it binds at once ; proxy p "$u1 1" "listen 127.0.0.1@$port"
 ; hold hold "$port" 20
 ; underway load u1 load400 many n=4000 window=200 rate=2000 name=delay=50.load%d.test timeout=300
 ; kill -TERM "$(pid p)"
 ; await 1 gone "$(pid p)" || fail "still there after a second"
 ; proxy p "$u1 1" "listen 127.0.0.1@$port"
 ; each serves 127.0.0.1
 ; ended load
the limit on descriptors is raised to what is allowed, and the log says what that gives
 ; limited '-Sn 100 && ulimit -Hn 900' p "$u1 1"
 ; comes p '^900 descriptors: [1-9][0-9]* for upstream ports, [1-9][0-9]* for TCP clients$'
END
}
# for each address: it serves over UDP and TCP
serves() {
    says '^NOERROR' "udp$it.test" +server="$it"
    says '^NOERROR' "tcp$it.test" +server="$it" +tcp
}

leg_tcp() {
    up u1
    proxy s "$u1 1" 'cache-size 16m' 'timeout 25000'
    # The slow ones run beside everything else, at a program of their own: nobody there needs their place.
    meanwhile idle talk bytes pause=1 end=35000
    meanwhile stall talk hex=001e send pause=1000 hex=00 send pause=1000 hex=00 send pause=1000 hex=00 send end=35000
    meanwhile drip talk q=drip-drip-drip-drip.test bytes=1000 end=35000
    meanwhile deaf talk rcvbuf=4096 q=500:big=60000.deaf%d.test/TXT send pause=28000 end=7000
    meanwhile longwait ask delay=18000.longwait.test +tcp +timeout=30000
    full=$(printf '%060d' 0)            # a status of over 4 MB, more than the kernel keeps
    many n=20000 window=100 "name=%d.$full.$full.$full.test" >/dev/null
    full=$(adm status | wc -c)
    meanwhile reader peer talk 127.0.0.1 "$admin" rcvbuf=2048 'text=status\n' pause=47000 end=12000
    proxy p "$u1 1" 'cache-size 0' 'tcp-clients 20'
    replies talk <<'END'
TCP: a query that comes byte by byte, the length too, is answered ; ^NOERROR.* 300 A 192\.0\.2\.1$ ; q=byte.test bytes=2 replies=1
TCP: a reply leaves in one segment with its length ; ^OPEN .* bytes=4[0-9] segments=1$ ; q=segment.test send end=300
 ; ^OPEN .* bytes=(29|30)[0-9]{3} segments=[1-3]$ ; q=big=30000.segment.test/TXT send end=300
TCP: a client that half-closes with nothing asked is closed ; ^EOF ms=[0-9]{1,3} ; bytes fin end=5000
TCP: 20 answers of 60,000 bytes to a client that reads slowly are all delivered ; ^replies 20 noerror 20 ; rcvbuf=4096 q=20:big=60000.s%d.test/TXT send pause=300 count=20
TCP: 200 questions at once, with answers of 4,000 bytes, to a client that reads late, are all answered ; ^replies 200 noerror 200 ; rcvbuf=4096 q=200:delay=50.big=4000.p%d.test/TXT send pause=700 count=200
TCP: a message of 0 to 11 bytes closes the connection or is skipped, and never misaligns the next
 ; ^(NOERROR .* q=after|CLOSED) ; hex=0000 q=after.test send replies=1,1000 | hex=000178 q=after.test send replies=1,1000
 ; ^(NOERROR .* q=after|CLOSED) ; hex=000b fill=11 q=after.test send replies=1,1000
TCP: answers come as they are ready, the fast before the slow
 ; like '^NOERROR.* q=fast\..*NOERROR.* q=delay=400\.slow\.' "$(talk q=delay=400.slow.test q=fast.test send replies=2 | tr '\n' ' ')"
TCP: a client that half-closes after its query is still answered, then sees the end
 ; like '^NOERROR.* A 192.* EOF' "$(talk q=delay=200.half.test send fin replies=1 end=3000 | tr '\n' ' ')"
a full table of TCP clients never disturbs UDP, and a new client is served: the longest idle one goes ; hold hold "$port" 40
 ; each 'says ^NOERROR full.test $it' '' +tcp
 ; within 20 100 "$(metric full)" "times that a table made room, in the metrics"
 ; await 3 sees hold 'open (1?[0-9]|20)$' || fail "more than 20 are open: $(tail -n 1 "$T/hold.log")"
 ; within 0 20 "$(count tcp)" "clients in status"
who waits for an answer is not closed for those who never asked ; kill_pid hold
 ; underway waits u1 ' delay=1500\.waits' talk q=delay=1500.waits.test send replies=1
 ; hold hold "$port" 40
 ; ended waits '^NOERROR .*waits'
600 clients whose answers are due in one turn all get them ; proxy p "$u1 1" 'tcp-clients 700'
 ; good 600 window=600 tcp=600 name=delay=700.burst.test timeout=9000
TCP: a client that is idle, stops within a message, sends a byte a second, or does not read is closed within 30 s, not in 2
 ; each 'ended $it "^(EOF|RESET) " && within 2000 31000 "$(ms_of "$out")" "$it, ms"' idle stall drip deaf
 ; saw 0 drip u1
TCP: a client that waits for a slow answer is not idle: after 18 s it has it ; ended longwait '^NOERROR .* 192\.0\.2\.1$'
an admin client that does not read a long status is cut off within 60 s ; ended reader '^(EOF|RESET) '
 ; within 0 $((full - 500000)) "$(val bytes "$out")" "bytes of $full were read"
END
}
