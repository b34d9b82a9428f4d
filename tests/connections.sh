# connections.sh - connections that never take innocent queries with them, before scripted servers and before real ones.
# Alone: ./test.sh connections connections_real connections_slow

leg_connections() {
    replies <<'END'
a server that sees only the first query of a TLS record answers A and AAAA at once from the first pair on ; single skip
 ; answered 10 40 in:300 window=2
an answer that takes more than a second and a half is asked for elsewhere too, and the first is still taken ; single
 ; answered 10 1 in:2700 name=delay=2500.n%x.test
a server that answers one at a time, in order: a slow name holds up no other ; single inorder
 ; answered 10 1
 ; beside delay=2500 n=1 ' right 1 ' answered 10 60 in:900 rate=40
it gets more connections, at most eight, while queries wait, and 12 names of 500 ms are answered in 3 s ; one_at_a_time 0 3000
the same far away, in 4.5 s ; one_at_a_time 300 4800
and when they are idle all but one are closed
 ; comes one '^end .*by client' $(($(seen one '^open') - 1))
a server that closes after 10 answers: of 500 names with 100 in flight none fails ; single after=10
 ; answered 10 500 in:1500 window=100
 ; within 500 900 "$(seen one)" "queries that it saw: no more in flight than it will answer"
beside three a second that a server which answers one at a time drops, closing after 2 s, 30 others are answered, and few of them wait
 ; single inorder
 ; meanwhile dropped load n=12 name=close=.delay=2000.n%x.test rate=3
 ; answered 10 120 rate=30
 ; within 0 500 $(($(val p50_us "$out") / 1000)) "half of them, ms"
 ; saw 0 ' is down' px
beside three a second that end their connection 120 others are answered within 900 ms, and half of them do not wait ; single
 ; meanwhile dropped load n=12 name=close=.n%x.test rate=3
 ; answered 10 120 in:900 rate=30
 ; within 0 20 $(($(val p50_us "$out") / 1000)) "half of them, ms"
 ; saw 0 ' is down' px
an upstream that comes back 50 ms after it has gone costs no query, also with 100 a second ; single
 ; answered 10 1
 ; meanwhile load load n=100 rate=100
 ; comes one '^query' 30
 ; kill_pid one
 ; sleep 0.05                  # what is promised
 ; dot one good "on=${one#*@}"
 ; ended load 'wrong 0 dup 0 bad 0 right 100 failed 0 lost 0'
a server that is silent while several wait, though it takes what is sent: the others are answered within 1.2 s ; single muted=1
 ; answered 10 4 in:2200 window=4
 ; within 0 1200 "$(span one '^query 1 ' '^query 2 ')" "until they are asked elsewhere, ms"
a server that closes after 2 s: at most three handshakes in the two minutes after one question ; shim FAST
 ; dot one good : idle=100
 ; shimmed px "$ca" "$one 1 tls=dns.test"
 ; answered 10 1
 ; printf '\24' 1<>"$T/shim"       # a second is 50 ms
 ; await 30 old 122 || fail "two minutes are not over"
 ; saw 2-3 '^open' one
END
}
old() { [ "$(count uptime)" -ge "$1" ]; }
# one_at_a_time FAR MS: a server that is so many ms away in a handshake answers twelve slow names within MS
one_at_a_time() {
    single "inorder pause=$1"
    answered 10 12 in:"$2" window=12 name=delay=500.n%x.test
    saw 3-8 '^open' one
}

# ---- Before real servers

patient='infra-cache-min-rtt: 4000 unknown-server-time-limit: 4000'             # of unbound: it asks back only once

# before KIND [LINE...]: px before a real server of that kind over TLS, with these lines, and the scripted upstream back behind it
before() {
    before_k=$1 real_cert=good real_at=$(freeport)
    shift
    needs openssl && real_here "$before_k" || return 1
    up back '. net=10'
    real_back=$back
    real server "$before_k" "$real_at" "$@"
    real_has_12 127.0.0.1 "$real_at" || { skip "not here: this $before_k speaks TLS 1.3 only"; return 1; }
    proxy px "$ca" "127.0.0.1@$real_at 1 tls=dns.test"
}
now_ms() { date +%s%3N; }
# handshakes LEAST MOST: so many were there with that server;  busy: it is asked
handshakes() { within "$1" "$2" "$(upstream "127.0.0.1@$real_at" connects)" "handshakes"; }
busy() { [ "$(upstream "127.0.0.1@$real_at" answered)" -gt 100 ]; }

leg_connections_real() {
    printf '%s\n' '$ORIGIN test.' '$TTL 3600' '@ SOA ns host 1 3600 600 86400 60' '@ NS ns' 'ns A 192.0.2.1' '* A 192.0.2.9' >"$T/test.zone"
    for kind in nsd unbound dnsdist bind9 kresd haproxy stunnel; do
        promise "$kind: of two questions that are asked together none waits for a third, from the first pair on"
        before $kind || continue
        for i in 1 2 3; do like ' right 2 failed 0 lost 0 ' "$(many n=2 window=2 timeout=$((350 * SLOW)) name=n%x.test)"; done
        promise "$kind starts again under 400 questions a second: at most 6 of 600 are lost"
        meanwhile load many n=600 rate=400 window=60000 name=n%x.test
        await 5 busy || fail "not under load"
        away=$(now_ms)
        real server $kind "$real_at"
        away=$(($(now_ms) - away))
        ended load
        [ $away -gt 500 ] || away=0             # a busy machine takes long to start it; then all may be lost that were asked meanwhile
        within $((594 - away * 2 / 5)) 600 "$(val noerror "$out")" "answered of 600"
        handshakes 2 4
    done
    for kind in 'dnsdist inFlight=1000' stunnel "unbound $patient"; do
        promise "${kind%% *}: a name of 1.3 s is asked once, on the connection that there is"
        before $kind || continue
        answered 10 5 name=n%x.test
        answered 10 1 in:1600 name=delay=1300.n%x.test
        saw 1 ' delay=1300' back
        handshakes 1 1
        promise "${kind%% *}, many at a time: a name of 2.5 s is answered then, and none of 300 others waits for it"
        meanwhile slow many n=1 byname name=delay=2500.n%x.test
        answered 10 300 rate=100 name=n%x.test
        within 0 500 $(($(val p99_us "$out") / 1000)) "99 of 100, ms"
        ended slow ' right 1 '
        within 2500 3200 "$(val slowest_ms "$out")" "the slow one, ms"
        handshakes 1 3
    done
}

leg_connections_slow() {
    replies <<'END'
dnsdist as it comes: 19 good names beside three a second that it drops, and 200 beside one in ten are all answered, and it stays up
 ; before dnsdist
 ; dropped 19 5 3
 ; dropped 200 50 5
a name a second that a server drops, for 18 s: never more than five connections ; single
 ; load n=18 rate=1 name=silent=.n%x.test >/dev/null
 ; within 2 5 "$(awk '/^open/ { n++ } /^end/ { n-- } n > m { m = n } END { print m }' "$T/one.q")" "connections"
a busy unbound that closes after 200 ms: 10 names of 400 and 10 of 900 ms are all answered ; before unbound $patient
 ; stop px                 # unbound gives idle connections that little when more than half of its ten places are taken
 ; hold crowd "$real_at" 9
 ; comes crowd '^open 5'
 ; proxy px "$ca" "127.0.0.1@$real_at 1 tls=dns.test"
 ; each 'answered 10 10 window=4 name=delay=$it.n%x.test' 400 900
 ; handshakes 3 60
dnsdist as it comes before a server that takes 500 ms: 12 names at once are all answered, of 100 at least 60 ; before dnsdist
 ; answered 10 12 window=12 name=delay=500.n%x.test
 ; within 60 100 "$(val right "$(many n=100 window=100 name=delay=500.n%x.test)")" "answered of 100"
 ; handshakes 2 20
END
}
# dropped COUNT RATE DROPPED: so many good names, that many a second, beside so many dropped ones a second, which stays up
dropped() {
    meanwhile bad many n=$(($3 * 4)) rate="$3" window=60000 timeout=100 name=silent=.n%x.test
    answered 10 "$1" rate="$2" name=n%x.test
    saw 0 ' is down' px
    same up "$(upstream "127.0.0.1@$real_at" state)" "state"
    ended bad
}
