# shellcheck shell=sh disable=SC2034,SC2154
# choosing.sh - how an answer is chosen: priorities, patience, dead and slow upstreams, domains, private names.
# Alone: ./test.sh choosing failing sharing private domains

LEGS="$LEGS choosing failing sharing private domains"

# ---- How an answer is chosen. The numbers are those of the contract's paragraphs. A label of a name says what an upstream does:
# 1delay=200 makes u1 wait. u1 answers 192.0.2.1, u2 192.0.2.2, u3 192.0.2.3.

leg_choosing() {
    ups u1 u2 u3
    dead=127.0.0.1@$(freeport)
    proxy p "$u1 1" "$u2 2" "$u3 3" 'patience 1500' 'timeout 3000'
    promise "1: a query goes to all upstreams at once"
    ask 1delay=200.all.test >/dev/null
    for u in u1 u2 u3; do
        same 1 "$(asked $u ' 1delay=200\.all\.test\. A ')" "$u"
        sed -n 's/ .* 1delay=200\.all.*//p' "$T/$u.q"
    done >"$T/times"
    within 0 150 "$(sort -n "$T/times" | sed -n '1h;$!d;G;s/\n/ /p' | awk '{ print $1 - $2 }')" "ms from the first to the last"
    promise "2: a priority-1 success is sent at once"
    out=$(ask 2silent=.3silent=.at-once.test)
    same 192.0.2.1 "$(addresses "$out")"
    within 0 900 "$(ms_of "$out")" ms
    promise "2: the success of the best priority wins, though it comes later"
    same 192.0.2.1 "$(addresses "$(ask 1delay=300.best.test)")"
    same 192.0.2.2 "$(addresses "$(ask 1servfail=.2delay=300.best.test)")"
    promise "2: NOERROR with a record of the asked type is a success, with none it is not"
    same 192.0.2.2 "$(addresses "$(ask 1nodata=.s.test)")" "nodata at 1"
    same 192.0.2.2 "$(addresses "$(ask 1type=TXT.s.test)")" "a record of another type at 1"
    same 192.0.2.2 "$(addresses "$(ask 1cname=1.1cnameonly=.s.test)")" "a CNAME to nothing at 1"
    same 192.0.2.1 "$(addresses "$(ask 1cname=2.s.test)")" "a CNAME with its address at 1"
    promise "2: for ANY a record of any type is a success"
    like '^NOERROR .*an=1 .* TXT ' "$(ask 1type=TXT.any.test ANY)"
    promise "2: NXDOMAIN, SERVFAIL, REFUSED, FORMERR, NOTIMP are no success"
    for r in nxdomain= servfail= refused= formerr= notimp= rcode=9; do same 192.0.2.2 "$(addresses "$(ask "1$r.r.test")")" $r; done
    promise "2: it is sent the moment every better upstream has answered without success"
    out=$(ask 1delay=300.1nxdomain=.moment.test)
    same 192.0.2.2 "$(addresses "$out")"
    within 290 1300 "$(ms_of "$out")" ms
    out=$(ask 1nxdomain=.2servfail=.moment.test)
    same 192.0.2.3 "$(addresses "$out")"
    within 0 900 "$(ms_of "$out")" ms
    promise "2: any answer with Extended DNS Error 15, 16 or 17 is a success"
    for e in 15 16 17; do
        like "^NXDOMAIN .* ede=$e" "$(ask 1nxdomain=.1ede=$e.e$e.test +edns)" "NXDOMAIN with $e"
        same "NOERROR " "$(ask 1nodata=.1ede=$e.e$e.test | sed 's/qr.*//')" "NODATA with $e"
        unlike 192.0.2 "$(ask 1nodata=.1ede=$e.e$e.test)" "NODATA with $e"
    done
    promise "2: with another Extended DNS Error it is not"
    for e in 14 18 3; do same 192.0.2.2 "$(addresses "$(ask 1nxdomain=.1ede=$e.e$e.test)")" $e; done
    promise "3: with no success NODATA comes before NXDOMAIN"
    like '^NOERROR .* an=0 ns=1 ' "$(ask 1nxdomain=.2nodata=.2soa=9,9.3nxdomain=.no.test)"
    promise "3: NXDOMAIN comes before any other answer"
    like '^NXDOMAIN ' "$(ask 1servfail=.2refused=.3nxdomain=.no.test)"
    promise "3: the best priority comes first within each"
    like ' 101 SOA ' "$(ask 1nodata=.1soa=101,5.2nodata=.2soa=102,5.3nodata=.3soa=103,5.no.test)" NODATA
    like ' 102 SOA ' "$(ask 1servfail=.2nxdomain=.2soa=102,5.3nxdomain=.3soa=103,5.no.test)" NXDOMAIN
    like '^REFUSED ' "$(ask 1refused=.2servfail=.3notimp=.no.test)" "REFUSED first"
    like '^NOTIMP ' "$(ask 1notimp=.2servfail=.3refused=.no.test)" "NOTIMP first"
    promise "3: it is sent when every upstream has answered or failed"
    out=$(ask 1nxdomain=.2nxdomain=.3delay=400.3nxdomain=.when.test)
    like '^NXDOMAIN' "$out"
    within 390 2500 "$(ms_of "$out")" ms
    promise "3: a wrong 'no' is worse than a late one: it waits for a success beyond patience"
    same 192.0.2.3 "$(addresses "$(ask 1nxdomain=.2nxdomain=.3delay=1900.late.test)")"
    promise "3: it is sent at timeout if someone stays silent"
    out=$(ask 1nxdomain=.2nxdomain=.3silent=.silent.test)
    like '^NXDOMAIN' "$out"
    within 2900 5000 "$(ms_of "$out")" ms
    promise "4: a success in hand waits for a better upstream no longer than patience"
    out=$(ask 1silent=.patience.test)
    same 192.0.2.2 "$(addresses "$out")"
    within 1400 2700 "$(ms_of "$out")" ms
    promise "4: and takes the better answer that comes within patience"
    same 192.0.2.1 "$(addresses "$(ask 1delay=900.patience.test)")"
    promise "4: patience counts from the success in hand, not from the query"
    out=$(ask 1silent=.2silent=.3delay=600.patience.test)
    same 192.0.2.3 "$(addresses "$out")"
    within 1900 2999 "$(ms_of "$out")" ms
    promise "13: RD=0 is REFUSED, AXFR and IXFR are NOTIMP"
    like '^REFUSED' "$(ask rd.test +nord)"
    like '^NOTIMP' "$(ask x.test AXFR +tcp)"
    like '^NOTIMP' "$(ask x.test IXFR +tcp)"
    stop p
    promise "2: a final upstream's NXDOMAIN and NODATA are successes"
    proxy p "$u1 1 final" "$u2 2" 'patience 1500' 'timeout 3000'
    like '^NXDOMAIN ' "$(ask 1nxdomain=.f.test)" NXDOMAIN
    like '^NOERROR .* an=0 ' "$(ask 1nodata=.f.test)" NODATA
    same 192.0.2.2 "$(addresses "$(ask 1servfail=.f.test)")" SERVFAIL
    out=$(ask 1nxdomain=.2silent=.f.test)
    like '^NXDOMAIN' "$out"
    within 0 1000 "$(ms_of "$out")" "ms, at once"
    stop p
    promise "2: among upstreams that share a priority the first success is sent"
    proxy p "$u1 5" "$u2 5" "$u3 6" 'patience 1500' 'timeout 3000'
    out=$(ask 1silent=.shared.test)
    same 192.0.2.2 "$(addresses "$out")"
    within 0 900 "$(ms_of "$out")" ms
    out=$(ask 2silent=.shared.test)
    same 192.0.2.1 "$(addresses "$out")"
    within 0 900 "$(ms_of "$out")" ms
    stop p
    promise "7: a refused port is a failure at once, no timeout"
    proxy p "$dead 1" "$u2 2" 'patience 1500' 'timeout 3000'
    for i in 1 2 3; do
        out=$(ask refused$i.test)
        same 192.0.2.2 "$(addresses "$out")"
        within 0 700 "$(ms_of "$out")" ms
    done
    stop p
    promise "5: with nothing at all it is SERVFAIL with an Extended DNS Error, at once when all have failed"
    proxy p "$dead 1" 'timeout 3000'
    out=$(ask nothing.test +edns)
    like '^SERVFAIL qr rd ra .* ede=(22|23)( |$)' "$out"
    within 0 1500 "$(ms_of "$out")" ms
    promise "5: without OPT there is no Extended DNS Error"
    unlike ' ede=|edns=' "$(ask nothing2.test)"
    stop p
    promise "5: with nothing at all it is SERVFAIL at timeout when they are silent"
    proxy p "$u1 1" "$u2 2" 'timeout 700'
    out=$(ask silent=.n.test +edns)
    like '^SERVFAIL qr rd ra .* ede=(22|23)( |$)' "$out"
    within 650 2000 "$(ms_of "$out")" ms
    stop p
}

# When upstreams fail: paragraphs 6, 7 and 10, and the last of 6 about late answers
leg_failing() {
    ups u1 u2
    proxy p "$u1 1" "$u2 2" 'patience 400' 'timeout 1000'
    promise "6: an upstream that left fewer than 3 queries in a row unanswered is not down"
    rules u1 '. silent'
    many n=2 window=2 name=two%d.test >/dev/null
    sleep 1.2               # the life of these queries; nothing tells the end of it but the clock
    same up "$(upstream "$u1" state)"
    promise "6: one that left 3 in a row unanswered is down, and nobody waits for it"
    ask three.test >/dev/null
    await 4 state_is "$u1" down || fail "state $(upstream "$u1" state)"
    slow=0
    for i in 1 2 3 4 5; do
        out=$(ask nowait$i.test)
        same 192.0.2.2 "$(addresses "$out")"
        [ "$(ms_of "$out")" -lt 350 ] || slow=$((slow + 1))
    done
    same 0 $slow "queries that waited"
    promise "3: with no success a 'no' is sent when all that are not down have answered: not at timeout"
    out=$(ask 2nxdomain=.no.test)
    like '^NXDOMAIN' "$out"
    within 0 700 "$(ms_of "$out")" ms
    promise "2: a success is sent at once when all better ones are down"
    out=$(ask downisnotwaitedfor.test)
    same 192.0.2.2 "$(addresses "$out")"
    within 0 350 "$(ms_of "$out")" ms
    promise "6: one that is down is asked at most once a second"
    forget u1
    many n=250 rate=100 name=once%d.test window=50 >/dev/null
    within 1 8 "$(asked u1)" "datagrams in 2.5 s, each query sent up to 3 times at most"
    within 1 4 "$(awk '{ print $5 }' "$T/u1.q" | sort -u | grep -c .)" "queries in 2.5 s"
    promise "6: the log says once that it is down"
    same 1 "$(grep -c "$u1.*down" "$T/p.log")" "lines: $(grep "$u1" "$T/p.log")"
    promise "6: its first valid answer brings it back"
    rules u1
    n=0
    until state_is "$u1" up || [ $n = 40 ]; do
        ask back$n.test >/dev/null
        n=$((n + 1))
        sleep 0.1
    done
    same up "$(upstream "$u1" state)"
    same 192.0.2.1 "$(addresses "$(ask isback.test)")"
    promise "6: the log says once that it is back"
    same 1 "$(grep -v 'down' "$T/p.log" | grep -c "$u1.*\(up\|back\|again\)")" "lines: $(grep "$u1" "$T/p.log")"
    promise "6: one that is silent is down after 3 queries for the same name too"
    proxy q "$u1 1" "$u2 2" 'patience 400' 'timeout 1500' 'cache-size 0'
    rules u1 '. silent'
    for i in 1 2 3 4; do ask samename.test >/dev/null; done
    await 3 state_is "$u1" down || fail "state $(upstream "$u1" state)"
    out=$(ask samename.test)
    same 192.0.2.2 "$(addresses "$out")"
    within 0 380 "$(ms_of "$out")" ms
    promise "6: and is asked at most once a second for it"
    forget u1
    many n=125 rate=50 window=10 same name=samename.test >/dev/null
    within 1 8 "$(asked u1)" "datagrams in 2.5 s, each query sent up to 3 times at most"
    rules u1
    stop q
    use p
    promise "6: when all are down, all are asked"
    rules u1 '. silent'
    rules u2 '. silent'
    many n=4 window=4 name=alldown%d.test timeout=3000 >/dev/null
    await 4 state_is "$u1" down || fail "u1 $(upstream "$u1" state)"
    await 4 state_is "$u2" down || fail "u2 $(upstream "$u2" state)"
    forget u1 u2
    many n=5 window=5 name=allasked%d.test timeout=3000 >/dev/null
    within 5 15 "$(asked u1)" "datagrams at u1"
    within 5 15 "$(asked u2)" "datagrams at u2"
    rules u2
    same 192.0.2.2 "$(addresses "$(ask comesback.test)")" "one that comes back is used at once"
    rules u1
    stop p
    promise "6: an answer after the reply but within timeout still counts: a slow upstream is not down"
    proxy p "$u1 1" "$u2 2" 'patience 100' 'timeout 2000'
    many n=6 window=6 name=1delay=600.slow%d.test >/dev/null
    sleep 0.7               # u1's answers come in this time
    same up "$(upstream "$u1" state)"
    same 6 "$(upstream "$u1" answered)" "answered"
    promise "6: a better answer that comes late replaces what the cache kept"
    out=$(ask 1delay=500.late.test)
    same 192.0.2.2 "$(addresses "$out")" "at first"
    await 3 has_answer 192.0.2.1 1delay=500.late.test || fail "still $(ask 1delay=500.late.test)"
    within 31 300 "$(ttl_of "$(ask 1delay=500.late.test)")" "its TTL, not that of a marked one"
    same 1 "$(asked u1 'late\.test')" "queries to u1"
    promise "6: a late answer that is not better replaces nothing"
    ask 2delay=300.1=.notbetter.test >/dev/null
    ask 1delay=400.1nxdomain=.notbetter.test >/dev/null
    sleep 0.5               # u1's late answer comes in this time
    same 192.0.2.1 "$(addresses "$(ask 2delay=300.1=.notbetter.test)")"
    same 192.0.2.2 "$(addresses "$(ask 1delay=400.1nxdomain=.notbetter.test)")"
    stop p
    promise "6: a query that no client waits for is the first to make room"
    proxy p "$u1 1" "$u2 2" 'patience 50' 'timeout 2500' 'queries 16'
    many n=1 name=1delay=1200.2delay=1200.first%d.test >"$T/first" &    # the oldest, and someone waits for it
    n=$!
    await 3 logged_q u2 first0 || fail "not asked"
    out=$(many n=48 window=1 name=2delay=1500.room%d.test)     # u1 answers each at once, u2 keeps it open
    like 'answered 48 noerror 48 ' "$out"
    within 30 100 "$(metric full)" "times that one made room"
    wait $n
    like 'noerror 1 ' "$(cat "$T/first")" "the oldest query, which a client waits for"
    stop p
    promise "7: one refused datagram of an upstream that comes back at once marks nobody down"
    up u3
    proxy p "$u3 1" "$u2 2" 'patience 300' 'timeout 1000'
    same 192.0.2.3 "$(addresses "$(ask well.test)")"
    kill_pid u3
    like '^NOERROR' "$(ask refusedonce.test)"
    up u3 -p "${u3#*@}"
    same 192.0.2.3 "$(addresses "$(ask wellagain.test)")"
    same up "$(upstream "$u3" state)"
    kill_pid u3
    stop p
    promise "7: a reset or closed TCP connection is a failure at once"
    proxy p "$u1 1 tcp" "$u2 2" 'patience 2000' 'timeout 3000'
    for how in reset close; do
        out=$(ask 1$how=.c.test)
        same 192.0.2.2 "$(addresses "$out")" "$how"
        within 0 1000 "$(ms_of "$out")" "$how, ms"
    done
    promise "7: tcp upstreams are asked over TCP only, on a connection that is kept"
    sleep 1.1               # after a failure it is tried once a second
    same 192.0.2.1 "$(addresses "$(ask 2delay=300.again.test)")"
    forget u1
    many n=50 window=10 name=kept%d.test >/dev/null
    same 50 "$(asked u1 ' tcp .* id=')" "queries over TCP"
    same 0 "$(asked u1 ' udp ')" "queries over UDP"
    within 0 2 "$(asked u1 ' connect ')" "connections"
    promise "queries to a tcp upstream are pipelined, answers taken in any order"
    out=$(many n=20 window=20 name=1delay=300.pipe%d.test)
    like 'noerror 20 ' "$out"
    within 0 1500 "$(val slowest_ms "$out")" "ms for 20 that wait 300 ms each"
    like '^NOERROR.*192\.0\.2\.1$' "$(ask 1dribble=2.pipe.test)" "an answer byte by byte"
    promise "a tcp upstream that closes after each answer costs no query"
    out=$(many n=30 window=1 name=1closeafter=.n%d.test)
    like 'noerror 30 ' "$out"
    within 0 1500 "$(val slowest_ms "$out")" "slowest ms"
    promise "a tcp upstream that accepts and closes at once is not stormed, and the others answer"
    rules u1 '. close'
    forget u1
    out=$(many n=400 rate=200 window=100 name=storm%d.test)
    like 'noerror 400 ' "$out"
    within 0 30 "$(asked u1 ' connect ')" "connects in 2 s"
    rules u1
    stop p
    for n in 1000 300; do
        promise "a tcp upstream that sends one byte every $n ms delays others by no more than patience, and is dropped within timeout"
        forget u1
        proxy p "$u1 1 tcp" "$u2 2" 'patience 300' 'timeout 1500'
        out=$(ask 1dribble=$n.slow.test)
        same 192.0.2.2 "$(addresses "$out")"
        within 0 1400 "$(ms_of "$out")" ms
        await 4 logged_q u1 'tcp close' || fail "the connection is still there"
        stop p
    done
    promise "7: a truncated answer never wins"
    proxy p "$u1 1" "$u2 2" 'patience 400' 'timeout 1500'
    same 192.0.2.2 "$(addresses "$(ask 1tcrec=.1tcpsilent=.t.test)")" "TC=1 with records, TCP silent"
    same 192.0.2.2 "$(addresses "$(ask 1tcrec=.1reset=.t.test)")" "TC=1 with records, TCP reset"
    promise "7: TC=1 is asked again over TCP at once, and that answer taken"
    out=$(ask 1tcrec=.2silent=.u.test)
    same 192.0.2.1 "$(addresses "$out")"
    within 0 390 "$(ms_of "$out")" ms
    like ' tcp .* 1tcrec=\.2silent=\.u\.test\.' "$(cat "$T/u1.q")"
    promise "7: a malformed answer never wins, and is never kept"
    for k in loop rdlen ancount cutrr label40 a3 cname; do
        same 192.0.2.2 "$(addresses "$(ask 1bad=$k.m.test)")" "$k"
        like '^SERVFAIL' "$(ask 1bad=$k.2bad=$k.m.test)" "$k from both"
    done
    same 0 "$(adm status | grep -c 'entry.*2bad')" "entries"
    stop p
    promise "10: an answer that won while a better upstream was silent is sent with TTLs of at most 30 s"
    proxy p "$u1 1" "$u2 2" 'patience 200' 'timeout 1000'
    rules u1 '. silent'
    out=$(ask mark.test)
    same 192.0.2.2 "$(addresses "$out")"
    within 1 30 "$(ttl_of "$out")" TTL
    out=$(ask mark.test)
    within 1 30 "$(ttl_of "$out")" "TTL from the cache"
    same 1 "$(asked u2 mark)" "queries to u2"
    promise "10: and the cache drops it as soon as that upstream answers anything again"
    sleep 1.1               # the life of that query: what is asked now is a new one
    rules u1
    same 192.0.2.1 "$(addresses "$(ask other.test)")"
    same 192.0.2.1 "$(addresses "$(ask mark.test)")"
    promise "10: likewise while it is down"
    rules u1 '. silent'
    down "$u1" d1
    out=$(ask mark2.test)
    within 1 30 "$(ttl_of "$out")" TTL
    rules u1
    n=0
    until state_is "$u1" up || [ $n = 40 ]; do
        ask wake$n.test >/dev/null
        n=$((n + 1))
        sleep 0.1
    done
    same 192.0.2.1 "$(addresses "$(ask mark2.test)")"
    promise "10: a 'no' that won while a better one is down has TTLs of at most 30 s too"
    rules u1 '. silent'
    down "$u1" d2
    out=$(ask 2nxdomain=.2soa=300,300.marked.test)
    like '^NXDOMAIN' "$out"
    within 1 30 "$(printf '%s\n' "$out" | sed -n 's/.* \([0-9]*\) SOA .*/\1/p')" TTL
    rules u1
    await 5 returns "$u1" || fail "u1 does not come back"
    promise "10: an answer that won because the better one said no is not marked"
    same 300 "$(ttl_of "$(ask 1nodata=.plain.test)")" TTL
    stop p
    promise "answers go on when an upstream falls silent or dies, and it comes back by itself"
    up u3
    proxy p "$u3 1" "$u2 2" 'patience 300' 'timeout 1000'
    same 192.0.2.3 "$(addresses "$(ask k1.test)")"
    kill -STOP "$(pid u3)"
    like 'noerror 8 ' "$(many n=8 window=8 name=stopped%d.test)" stopped
    kill -CONT "$(pid u3)"
    kill_pid u3
    like 'noerror 8 ' "$(many n=8 window=1 name=killed%d.test)" killed
    up u3 -p "${u3#*@}"
    n=0
    until [ "$(addresses "$(ask return$n.test)")" = 192.0.2.3 ] || [ $n = 40 ]; do
        n=$((n + 1))
        sleep 0.1
    done
    within 0 39 $n "tries until it is used again"
    stop p
    promise "when all others have failed, one that counts as down is asked after all, before a SERVFAIL is sent"
    for how in '' ' tcp'; do
        proxy p "$u3 1$how" "$u2 2$how" 'patience 300' 'timeout 2000'
        same 192.0.2.3 "$(addresses "$(ask well.test)")" "at first"
        x=$u3
        kill_pid u3
        many n=20 window=4 name=refuses%d.test >/dev/null
        await 3 state_is "$x" down || fail "state of u3 $(upstream "$x" state)"
        up u3 -p "${x#*@}"
        x=$u2
        sleep 0.15              # one that refuses connections is tried ten times a second at most
        kill_pid u2
        same 192.0.2.3 "$(addresses "$(ask resort.test)")" "over${how:- udp}"
        up u2 -p "${x#*@}"
        stop p
    done
    promise "kill -9 of any upstream at any time leaves no query unanswered when another has the answer, over UDP and TCP"
    proxy q "$u3 1 tcp" "$u2 2 tcp" 'patience 300' 'timeout 2000' 'cache-size 0'
    many n=4400 rate=400 window=2000 name=delay=20.kill%d.tcp.test >"$T/kill.tcp" &
    m=$!
    proxy p "$u3 1" "$u2 2" 'patience 300' 'timeout 2000' 'cache-size 0'
    many n=4400 rate=400 window=2000 name=delay=20.kill%d.udp.test >"$T/kill.udp" &
    n=$!
    await 5 logged_q u3 'kill50\.udp' || fail "no load"
    for i in 13 57; do                  # each upstream twice, at moments of their own, never both at once
        for u in u3 u2; do
            eval "x=\$$u"
            kill_pid $u
            sleep 0.$i
            up $u -p "${x#*@}"
            for k in p q; do
                use $k
                await 5 state_is "$x" up || fail "$u is not up again at $k"
            done
        done
    done
    wait $m $n
    for k in udp tcp; do like 'sent 4400 answered 4400 noerror 4400 .* wrong 0 dup 0 ' "$(cat "$T/kill.$k")" $k; done
    stop p
    stop q
}
# returns ADDR: asks once; true when the upstream is up
returns() { ask "returns$(date +%N).test" >/dev/null; state_is "$1" up; }
has_answer() { [ "$(addresses "$(ask "$2")")" = "$1" ]; }
logged_q() { grep -Eq -e "$2" "$T/$1.q"; }

# Paragraph 9
leg_sharing() {
    up u1
    proxy p "$u1 1" 'timeout 3000'
    promise "9: identical questions in flight share one upstream query; each client gets its own reply, ID and spelling"
    out=$(many n=200 window=200 name=delay=500.shared%d.test same vary)
    like 'answered 200 noerror 200 .* wrong 0 dup 0 bad 0' "$out"
    same 1 "$(pairs u1 ' delay=500\.shared')" "queries at the upstream"
    promise "9: over TCP too, and mixed"
    many n=20 window=20 name=delay=500.mixed.test tcp=4 >"$T/tcp.out" &
    out=$(many n=20 window=20 name=delay=500.mixed.test)
    wait $!
    like 'noerror 20 .* wrong 0' "$out"
    like 'noerror 20 .* wrong 0' "$(cat "$T/tcp.out")"
    same 1 "$(pairs u1 ' delay=500\.mixed')" "queries at the upstream"
    promise "9: type, class, DO and CD make questions of their own, EDNS options and letters do not"
    jobs=''
    for o in '' +do +cd '+do +cd' +class=CH +edns=4096 +opt=8:0001180001020300 +opt=10:0011223344556677 +ad; do
        # shellcheck disable=SC2086
        ask delay=400.four.test $o >/dev/null &
        jobs="$jobs $!"
    done
    ask delay=400.FOUR.test AAAA >/dev/null
    # shellcheck disable=SC2086
    wait $jobs
    same 6 "$(pairs u1 ' delay=400\.(four|FOUR)')" "queries at the upstream: $(grep -i four "$T/u1.q")"
    stop p
}

# Paragraphs 11 and 12. Public addresses exist only in a network namespace of the test's own.
leg_private() {
    promise "AD and private names: a network of its own for public addresses"
    if ! netns; then
        skip "not here: no network namespace allowed"
        return
    fi
    ns ip addr add 203.0.113.53/32 dev lo
    ns ip addr add 10.9.8.7/32 dev lo
    ns ip addr add 2001:db8::53/128 dev lo nodad
    up u1 -a 203.0.113.53
    up u2 -a 10.9.8.7
    up u3
    proxy p "$u1 1" 'timeout 1500'
    promise "allow: by default loopback, private and link-local clients are served, others are REFUSED"
    port=$(freeport)
    proxy q "$u1 1" "listen *@$port"
    for x in 172.16.0.1 172.31.255.254 192.168.7.7 169.254.1.1 100.64.0.1 172.32.0.1 11.0.0.1; do ns ip addr add $x/32 dev lo; done
    for x in fd12::1 fe80::7; do ns ip addr add $x/128 dev lo nodad; done
    for x in 127.0.0.9 10.9.8.7 172.16.0.1 172.31.255.254 192.168.7.7 169.254.1.1; do like '^NOERROR' "$(ask allowed.test +src=$x)" $x; done
    like '^NOERROR' "$(ask allowed.test +server=::1 +src=fd12::1)" fd12::1
    like '^NOERROR' "$(ask allowed.test +server=::1 +src=::1)" ::1
    for x in 203.0.113.53 100.64.0.1 172.32.0.1 11.0.0.1; do like '^REFUSED' "$(ask allowed.test +src=$x)" $x; done
    like '^REFUSED' "$(ask allowed.test +server=::1 +src=2001:db8::53)" 2001:db8::53
    promise "a reply leaves from the address that was asked, on a host with several addresses of both families"
    ns ip addr add fd12::2/128 dev lo nodad
    await 5 served_at fd12::2 || fail "nothing from fd12::2"
    for x in fd12::2,fd12::1 fd12::1,fd12::2 ::1,fd12::2 10.9.8.7,192.168.7.7 192.168.7.7,127.0.0.1; do
        like " from=${x%,*}@$port " "$(ask from$x.test +server=${x%,*} +src=${x#*,} +unconn)" "$x, miss"
        like " from=${x%,*}@$port " "$(ask from$x.test +server=${x%,*} +src=${x#*,} +unconn)" "$x, hit"
    done
    stop q
    use p
    promise "11: AD of a plain upstream that is not loopback is not passed on"
    unlike ' ad ' "$(ask ad=.one.test +ad)"
    unlike ' ad ' "$(ask ad=.two.test +do)"
    promise "12: private names go to a public upstream when there is no private one"
    same 192.0.2.1 "$(addresses "$(ask printer.lan)")"
    stop p
    proxy p "$u3 1" 'timeout 1500'
    promise "11: AD of a loopback upstream is, to clients that set AD or DO"
    like ' ad ' "$(ask ad=.one.test +ad)"
    like ' ad ' "$(ask ad=.two.test +do)"
    unlike ' ad ' "$(ask ad=.three.test)"
    stop p
    proxy p "$u1 1" "$u2 2" 'timeout 1500'
    forget u1
    promise "12: one label, .local, .internal, .lan and home.arpa are asked of private upstreams only"
    for n in printer nas.local NAS.Local a.b.internal internal x.lan router.home.arpa home.arpa; do
        same 192.0.2.2 "$(addresses "$(ask $n)")" $n
    done
    same 0 "$(asked u1)" "seen by the public upstream: $(cat "$T/u1.q")"
    promise "12: and so are the reverse zones of RFC 6303"
    for n in 1.0.0.10 4.3.16.172 4.3.31.172 1.1.168.192 1.1.254.169 1.0.0.127 1.2.0.192 1.100.51.198 1.113.0.203 255.255.255.255 0.0.0; do
        like '^NOERROR.* PTR ' "$(ask $n.in-addr.arpa PTR)" "$n"
    done
    z='0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0'
    for n in 1.0.$z 0.0.$z 1.0.${z%.0.0}.d.f a.b.c.8.e.f 1.9.e.f a.e.f b.e.f 1.8.b.d.0.1.0.0.2; do
        like '^NOERROR.* PTR ' "$(ask $n.ip6.arpa PTR)" "$n"
    done
    same 0 "$(asked u1)" "seen by the public upstream: $(cat "$T/u1.q")"
    promise "12: names beside these zones are asked of all"
    forget u1
    n=0
    for q in 4.3.15.172.in-addr.arpa 4.3.32.172.in-addr.arpa 1.1.1.1.in-addr.arpa 1.167.192.in-addr.arpa 1.9.0.0.2.ip6.arpa local.test notlan mylocal.test lan.example homearpa.example; do
        [ $q != notlan ] || continue
        ask $q PTR >/dev/null
        n=$((n + 1))
        same $n "$(asked u1)" "$q at the public upstream"
    done
    stop p
    promise "12: a matching domain= comes before this"
    proxy p "$u1 1 domain=lan" "$u2 2" 'timeout 1500'
    same 192.0.2.1 "$(addresses "$(ask x.lan)")"
    same 192.0.2.2 "$(addresses "$(ask x.local)")"
    stop p
    promise "12: the private upstream alone decides: its no is the answer"
    proxy p "$u1 1" "$u2 2" 'timeout 1500'
    like '^NXDOMAIN' "$(ask 2nxdomain=.lan)"
    stop p
    promise "IPv6 upstreams work as IPv4 ones do"
    up u4 -a 2001:db8::53
    proxy p "$u4 1" 'timeout 1500'
    same 192.0.2.4 "$(addresses "$(ask six.test)")"
    like "^upstream \[?2001:db8::53\]?@" "$(adm status)"
    stop p
}

served_at() { ask ready.test "+server=$1" +unconn +timeout=300 | grep -q '^NOERROR'; }

# ---- domain=

leg_domains() {
    ups u1 u2 u3 u4
    proxy p "$u1 1" "$u2 2 domain=corp.test domain=168.192.in-addr.arpa" "$u3 3 domain=Deep.Corp.TEST." "$u4 4 domain=corp.test" 'timeout 1500' 'patience 300'
    promise "domain: names at or below the suffix are asked of its upstreams alone"
    for n in corp.test a.corp.test A.b.CORP.test 1.1.168.192.in-addr.arpa; do like '^NOERROR' "$(ask $n)" "$n"; done
    same 192.0.2.2 "$(addresses "$(ask www.corp.test)")"
    same 0 "$(asked u1)" "seen by the general one: $(cat "$T/u1.q")"
    same 5 "$(asked u2)" "seen by its own"
    same 4 "$(asked u4)" "seen by the other with this suffix"
    promise "domain: the longest suffix wins"
    same 192.0.2.3 "$(addresses "$(ask x.deep.corp.test)")"
    same 192.0.2.3 "$(addresses "$(ask deep.corp.test)")"
    same 0 "$(asked u2 deep)" "seen by the shorter one"
    same 0 "$(asked u4 deep)" "seen by the shorter one that comes later"
    promise "domain: other names are asked of the others alone, and a suffix ends at a dot"
    forget u2
    for n in test www.test notcorp.test corp.test.example 1.169.192.in-addr.arpa; do same 192.0.2.1 "$(addresses "$(ask $n)")" $n; done
    same 0 "$(asked u2)" "seen by u2"
    promise "domain: nothing leaks when its upstreams fail"
    forget u1
    like '^NXDOMAIN' "$(ask nxdomain=.corp.test)"
    like '^SERVFAIL' "$(ask silent=.corp.test)"
    like '^SERVFAIL' "$(ask bad=loop.corp.test)"
    same 0 "$(asked u1)" "seen by the general one"
    stop p
    promise "domain: a name that no upstream applies to is answered at once, with an error"
    proxy p "$u2 2 domain=corp.test" 'timeout 1500'
    out=$(ask other.test +edns)
    like '^(SERVFAIL|REFUSED) ' "$out"
    within 0 1000 "$(ms_of "$out")" ms
    like '^NOERROR' "$(ask x.corp.test)"
    stop p
}
