# shellcheck shell=sh disable=SC2034,SC2154
# connections.sh - connections that never take innocent queries with them, before scripted servers and before real ones.
# Alone: ./test.sh connections connections_real

leg_connections() {
    tls_ready
    promise "a server that sees only the first query of a TLS record answers A and AAAA at once from the first pair on"
    single skip
    answered 10 40 in:300 window=2
    promise "a name that takes 1.3 s is asked once, on the connection that there is"
    single
    answered 10 1
    forget one
    answered 10 1 in:1450 name=delay=1300.n%x.test
    saw 1 ' delay=1300' one
    saw 0 '^open' one
    promise "an answer that takes more than a second and a half is asked for elsewhere too, and the first is still taken"
    answered 10 1 in:2700 name=delay=2500.n%x.test
    promise "a server that answers one at a time, in order: a slow name holds up no other"
    single inorder
    answered 10 1
    loading 1 name=delay=2500.n%x.test
    answered 10 60 in:900 rate=40
    loaded 5
    like ' right 1 ' "$got"
    promise "it gets more connections, at most eight, while queries wait, and 12 names of 500 ms are answered in 3 s"
    single inorder
    answered 10 12 in:3000 window=12 name=delay=500.n%x.test
    saw 3-8 '^open' one
    promise "and when they are idle all but one are closed"
    await 6 one_is_left || fail "$(grep -c '^end .*by client' "$T/one.q") of $(asked one '^open') are closed"
    promise "a server that closes after 10 answers: of 500 names with 100 in flight none fails"
    single after=10
    answered 10 500 in:1500 window=100
    within 500 900 "$(asked one)" "queries that it saw: no more in flight than it will answer"
    promise "three names a second that end their connection take no other with them, and mark nobody down"
    single
    loading 12 name=close=.n%x.test rate=3
    answered 10 60 in:900 rate=15
    loaded 12
    unlike ' is down' "$(cat "$T/px.log")"
    promise "an upstream that comes back 50 ms after it has gone costs no query, also with 100 a second"
    single
    answered 10 1
    loading 100 rate=100
    await 3 sees one '^query' 30 || fail "not asked"
    kill_pid one
    sleep 0.05                  # what is promised
    dot one good "on=${one#*@}"
    loaded 8
    like 'wrong 0 dup 0 bad 0 right 100 failed 0 lost 0' "$got"
    promise "a server that is silent while several wait, though it takes what is sent: the others are answered within 1.2 s"
    single muted=1
    answered 10 4 in:2200 window=4
    within 0 1200 "$(awk '$1 == "query" && $2 == 2 { print $4 - t; exit } $1 == "query" && !t { t = $4 }' "$T/one.q")" "until they are asked elsewhere, ms"
}
one_is_left() { [ "$(grep -c '^end .*by client' "$T/one.q")" -ge $(($(asked one '^open') - 1)) ]; }

leg_connections_real() {
    if ! have nsd unbound kdig; then
        promise "connections to nsd and unbound"
        skip "nsd, unbound or kdig is missing"
        return
    fi
    tls_ready
    chmod 644 "$T"/pki/*.key
    real_zone
    printf '%s\n' '*.n A 192.0.2.9' '*.n AAAA 2001:db8::9' >>"$T/test.zone"
    real_pp=$(freeport) real_pt=$(freeport)
    cat >"$T/tls.conf" <<END
server:
    ip-address: 127.0.0.1@$real_pp
    ip-address: 127.0.0.1@$real_pt
    tls-port: $real_pt
    tls-service-key: "$T/pki/good.key"
    tls-service-pem: "$T/pki/good.pem"
    tcp-query-count: 10
    username: ""
    pidfile: ""
    database: ""
    zonesdir: "$T"
    xfrdfile: "$T/tls.xfrd"
    xfrdir: "$T"
    zonelistfile: "$T/tls.list"
    server-count: 1
remote-control:
    control-enable: no
zone:
    name: test
    zonefile: test.zone
END
    promise "nsd with tcp-query-count: 10: of 1,000 names with 100 in flight none fails"
    nsd -d -c "$T/tls.conf" </dev/null >"$T/nsd.log" 2>&1 &
    started nsd $!
    real_wait nsd 127.0.0.1 "$real_pp" www.test
    proxy px "$ca" "127.0.0.1@$real_pt 1 tls=dns.test"
    like 'answered 1000 noerror 1000 ' "$(many n=1000 window=100 name=a%x.n.test)"
    promise "nsd answers A and AAAA that are asked together in less than 500 ms, from the first pair on"
    out=$(many n=20 window=2 name=b%x.n.test)
    like 'answered 20 noerror 20 ' "$out"
    within 0 500 "$(val slowest_ms "$out")" "slowest, ms"
    stop px
    kill_pid nsd TERM
    promise "unbound that starts again under load: no query is lost"
    real_unbound_tls() {
        real_unbound u "$real_pt" "tls-port: $real_pt" "tls-service-key: $T/pki/good.key" "tls-service-pem: $T/pki/good.pem" \
            'local-zone: test. redirect' 'local-data: "test. A 192.0.2.1"'
    }
    real_unbound_tls
    proxy px "$ca" "127.0.0.1@$real_pt 1 tls=dns.test"
    await 10 real_px || fail "not answered: $(tail -n 3 "$T/u.log" "$T/px.log")"
    many n=200 rate=100 name=c%x.test >"$T/got" &
    started loader $!
    await 5 real_under_load || fail "not under load: $(upstream "127.0.0.1@$real_pt" answered) answered"
    kill_pid u TERM
    real_unbound_tls
    await 10 test -s "$T/got"
    like 'answered 200 noerror 200 ' "$(cat "$T/got")"
}
real_px() { kdig @127.0.0.1 -p "$port" +retry=0 +timeout=1 www.test A 2>/dev/null | grep -q 'status: NOERROR'; }
real_under_load() { [ "$(upstream "127.0.0.1@$real_pt" answered)" -gt 20 ] && [ ! -s "$T/got" ]; }
