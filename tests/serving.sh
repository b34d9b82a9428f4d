# serving.sh - who is served: addresses, UDP and TCP.
# Alone: ./test.sh serving tcp

leg_serving() {
    up u1
    port=$(freeport)
    proxy p "$u1 1" "listen 127.0.0.1@$port" "listen ::1@$port" "listen 127.0.0.3@$port"
    replies <<'END'
a query over UDP is answered with what the upstream says ; ^NOERROR qr rd ra .* an=1 .*\| a\.test\. 300 A 192\.0\.2\.1$ ; a.test
a query over TCP is answered likewise ; ^NOERROR qr rd ra .* an=1 .*\| b\.test\. 300 A 192\.0\.2\.1$ ; b.test +tcp
an address that is not listed does not serve ; ^(REFUSEDPORT|TIMEOUT) ; a.test +server=127.0.0.4 +timeout=300
END
    promise "every listen address serves, IPv4 and IPv6, UDP and TCP"
    for s in 127.0.0.3 ::1; do for o in '' +tcp; do says '^NOERROR' "c$s$o.test" +server=$s $o; done; done
    promise "SIGTERM ends it, exit status 0"
    stop p
    promise "listen * is every IPv4 and IPv6 address"
    port=$(freeport)
    proxy p "$u1 1" "listen *@$port"
    for s in 127.0.0.1 127.0.0.77 ::1; do for o in '' +tcp; do says '^NOERROR' "e$s$o.test" +server=$s $o; done; done
    promise "a reply leaves from the address that was asked, on a wildcard socket too"
    for s in 127.0.0.1 127.0.0.1 127.0.0.77 127.0.0.77 ::1 ::1; do says " from=$s@$port " "g$s.test" +server=$s +unconn; done
    promise "SIGINT ends it, exit status 0"
    kill -INT "$(pid p)"
    wait "$(pid p)"
    same 0 $? "exit status"
    rm -f "$T/p.pid"
    promise "without a listen line it serves *, at the port of -p"
    port=$(freeport) admin=$(freeport)
    launch p $WRAP "$BIN" -p "$port" "$u1 1" "admin 127.0.0.1@$admin"
    says '^NOERROR' h.test +server=::1
    says '^NOERROR' i.test +server=127.0.0.9
    promise "two ports of one address serve side by side"
    port=$(freeport) second=$(freeport)
    proxy p "$u1 1" "listen 127.0.0.1@$port" "listen 127.0.0.1@$second"
    says '^NOERROR' j.test
    port=$second
    says '^NOERROR' k.test
    promise "a host without IPv6 serves IPv4"
    if shim NO_IPV6; then
        port=$(freeport)
        shimmed p "$u1 1" "listen *@$port"
        says '^NOERROR' l.test
    fi
    promise "replies to one socket leave together, each from the address that was asked; where the way out refuses that, one by one"
    proxy p "$u1 1" "listen *@$port"
    meanwhile other many n=900 window=200 name=one%03d.test
    like ' right 900 failed 0 lost 0 ' "$(many n=900 window=200 +server=127.0.0.77 name=one%03d.test)"
    ended other ' right 900 failed 0 lost 0 '
    if shim NO_SEGMENTS; then
        shimmed p "$u1 1" "listen *@$port"
        like ' right 900 failed 0 lost 0 ' "$(many n=900 window=200 +server=127.0.0.77 name=one%03d.test)"
        within 1 8 "$(od -An -tu8 -N8 "$T/shim" | tr -d ' ')" 'messages refused'
    fi
    promise "SIGTERM under load: it ends within a second, and started again it binds at once"
    port=$(freeport)
    proxy p "$u1 1" "listen 127.0.0.1@$port"
    meanwhile load many n=4000 window=200 rate=2000 name=delay=50.load%d.test timeout=300
    hold hold "$port" 20
    await 3 sees u1 load400 || fail "no load"
    kill -TERM "$(pid p)"
    peer gone "$(pid p)" $((1000 * SLOW)) || fail "still there after a second"
    proxy p "$u1 1" "listen 127.0.0.1@$port"
    says '^NOERROR' again.test
    says '^NOERROR' again.test +tcp
    ended load
    promise "the limit on descriptors is raised to what is allowed, and the log says what that gives"
    if proc_here && limited '-Sn 100 && ulimit -Hn 900' p "$u1 1"; then
        like '^Max open files +900 +900 ' "$(cat "/proc/$(pid p)/limits")"
        like '^900 descriptors: [1-9][0-9]* for upstream ports, [1-9][0-9]* for TCP clients$' "$(cat "$T/p.log")"
    fi
}

leg_tcp() {
    up u1
    proxy s "$u1 1" 'cache-size 16m' 'timeout 25000'
    # The slow ones run beside everything else, at a program of their own: nobody there needs their place.
    meanwhile idle talk bytes pause=1 end=35000
    meanwhile stall talk len=30 send pause=1000 hex=00 send pause=1000 hex=00 send pause=1000 hex=00 send end=35000
    meanwhile drip talk q=drip-drip-drip-drip.test bytes=1000 end=35000
    meanwhile deaf talk rcvbuf=4096 qs=500:big=60000.deaf%d.test/TXT send pause=28000 end=7000
    meanwhile longwait ask delay=18000.longwait.test +tcp +timeout=30000
    full=$(printf '%060d' 0)            # a status of over 4 MB, more than the kernel keeps
    many n=20000 window=100 "name=%d.$full.$full.$full.test" >/dev/null
    full=$(adm status | wc -c)
    meanwhile reader peer talk 127.0.0.1 "$admin" rcvbuf=2048 'text=status\n' pause=47000 end=12000
    proxy p "$u1 1" 'cache-size 0' 'tcp-clients 20'
    replies talk <<'END'
TCP: several queries in one segment are all answered ; ^replies 20 noerror 20 ; qs=20:one%d.test send count=20
TCP: a query that comes byte by byte is answered     ; ^NOERROR.* 300 A 192\.0\.2\.1$ ; q=byte.test bytes=2 replies=1
TCP: one segment may hold the end of one query and the beginning of the next ; ^replies 2 noerror 2 ; q=over1.test send hex=001c00 send pause=30 hex=0701000001000000000000 send hex=0573706c69740474657374 send hex=0000010001 count=2,2000
TCP: a reply leaves in one segment with its length   ; ^segment 4[0-9]$ ; q=segment.test send segment
                                                     ; ^segment [1-9][0-9]{4}$ ; q=big=30000.segment.test/TXT send segment
TCP: a client that half-closes with nothing asked is closed ; ^EOF ms=[0-9]{1,3} ; bytes fin end=5000
TCP: 20 answers of 60,000 bytes to a client that reads slowly are all delivered ; ^replies 20 noerror 20 ; rcvbuf=4096 qs=20:big=60000.s%d.test/TXT send pause=300 count=20
TCP: 200 questions at once, with answers of 4,000 bytes, to a client that reads late, are all answered ; ^replies 200 noerror 200 ; rcvbuf=4096 qs=200:delay=50.big=4000.p%d.test/TXT send pause=700 count=200
TCP: a message of 0 to 11 bytes closes the connection or is skipped, and never misaligns the next ; ^(NOERROR .* q=after|CLOSED) ; len=0 fill=0 q=after.test send replies=1,1000
                                                     ; ^(NOERROR .* q=after|CLOSED) ; len=1 fill=1 q=after.test send replies=1,1000
                                                     ; ^(NOERROR .* q=after|CLOSED) ; len=11 fill=11 q=after.test send replies=1,1000
END
    promise "TCP: 100 pipelined queries on one connection are all answered"
    like 'answered 100 noerror 100 .* wrong 0 dup 0 bad 0' "$(many n=100 tcp=1 window=100 name=pipe%d.test)"
    promise "TCP: the length may come in two segments, and the message split anywhere"
    like '^NOERROR.* 300 A 192\.0\.2\.1$' "$(talk hex=00 send pause=30 hex=1c send pause=30 hex=0007 send pause=30 hex=01000001000000000000 \
        send pause=30 hex=0573706c send pause=30 hex=6974047465737400 send pause=30 hex=0001 send pause=30 hex=0001 replies=1,2000)" "split"
    promise "TCP: answers come as they are ready, the fast before the slow"
    like '^NOERROR.* q=fast\.test\./A .*NOERROR.* q=delay=400\.slow\.test\./A' "$(talk q=delay=400.slow.test q=fast.test send replies=2 | tr '\n' ' ')"
    promise "TCP: a client that half-closes after its query is still answered, then sees the end"
    like '^NOERROR.* A 192.* EOF' "$(talk q=delay=200.half.test send fin replies=1 end=3000 | tr '\n' ' ')"
    promise "TCP: an answer of 60,000 bytes comes whole, without TC"
    says '^NOERROR qr rd ra .* an=1 .* size=(60000|599[89][0-9]) ' big=60000.tcp.test TXT +tcp
    promise "a full table of TCP clients never disturbs UDP, and a new client is served: the longest idle one goes"
    hold hold "$port" 40
    says '^NOERROR' full.test
    says '^NOERROR' full.test +tcp
    within 20 100 "$(metric full)" "times that a table made room, in the metrics"
    await 3 logged hold 'open (1?[0-9]|20)$' || fail "more than 20 are open: $(tail -n 1 "$T/hold.log")"
    within 0 20 "$(count tcp)" "clients in status"
    kill_pid hold
    promise "who waits for an answer is not closed for those who never asked"
    meanwhile waits talk q=delay=1500.waits.test send replies=1
    await 3 sees u1 ' delay=1500\.waits' || fail "not asked"
    hold hold "$port" 40
    ended waits '^NOERROR .*waits'
    kill_pid hold
    promise "600 clients whose answers are due in one turn all get them"
    proxy q "$u1 1" 'tcp-clients 700'
    like 'sent 600 answered 600 noerror 600 ' "$(many n=600 window=600 tcp=600 name=delay=700.burst.test same timeout=9000)"
    use p
    promise "the sum of TCP clients in status returns to nothing when they leave"
    await 35 is 0 count tcp || fail "tcp $(count tcp)"
    while IFS=';' read -r name what; do
        promise "TCP: a client $what"
        ended "$name" '^(EOF|RESET) '
        within 2000 31000 "$(ms_of "$out")" ms
    done <<'END'
idle;that is idle is kept for 2 s or more and closed within 30 s
stall;that stops in the middle of a message is closed within 30 s, and nothing of it is forwarded
drip;that sends a byte a second is closed within 30 s, and nothing of it is forwarded
deaf;that asks and does not read is closed within 30 s
END
    saw 0 garbage u1
    saw 0 drip u1
    promise "TCP: a client that waits for a slow answer is not idle: after 18 s it has it"
    ended longwait '^NOERROR .* 192\.0\.2\.1$'
    promise "an admin client that does not read a long status is cut off within 60 s"
    ended reader '^(EOF|RESET) '
    within 0 $((full - 500000)) "$(val bytes "$out")" "bytes of $full were read"
}
