# tls_life.sh - DNS over TLS: the life of a connection, faults, resumption, reload, cost.
# Alone: ./test.sh tls_faults tls_life tls_idle tls_busy

# span PEER FROM TO: the ms from its last event like FROM to the first like TO
span() { awk -v from="$2" -v to="$3" '$0 ~ from { t = $4 } $0 ~ to { print $4 - t; exit }' "$T/$1.q"; }
# served ['RULE...' [LINE...]]: as single, and the server has answered
served() {
    single "$@"
    answered 10 1
}
# kicked WORD...: the server one goes by these rules, which end its connections; there is another, and it answers
kicked() {
    kicked_k=$(seen one '^up')
    turn one "$@"
    comes one '^up' $((kicked_k + 1))
    answered 10 1
}
# heals: the server one does what it should from now on, and is used again
heals() {
    turn one
    await 6 healed || fail "the server is not used again"
}
healed() { case "$(load n=1)" in *'from 10:1') ;; *) return 1 ;; esac; }

leg_tls_faults() {
    later="'f_garbage at=up:garbage' 'f_zeros at=up:zeros' 'f_fin at=up:fin' 'f_rst at=up:rst' 'f_plain at=up:plain'"
    later="$later 'f_alert at=up:alert80' 'f_drop full=1' 'f_droprst full=1 how=rst' 'f_half cut how=fin'"
    # in a row, so that all fail side by side
    replies <<'END'
a stall at any stage of the handshake costs patience, not more: the next priority answers
 ; row 'f_accept at=accept:stall' 'f_hello at=hello:stall' 'f_mid at=mid:stall' 'f_up at=up:stall' 'f_mute silent' -- 'patience 500'
 ; answered 11 5 in:900 window=5
after three unanswered queries nobody waits for an upstream that stalls ; answered 11 10
 ; answered 11 5 in:300
 ; each 'becomes 0 "$(at $it)" down' f_accept f_hello f_mid f_up f_mute
a handshake is given up after 4 s, and the log says so ; each 'comes $it "^end .*by client"' f_accept f_hello f_mid
 ; each 'within 3000 5000 "$(span $it "^open 1 " "^end 1 ")" "$it, ms"' f_accept f_hello f_mid
 ; blamed f_hello 'handshake|4 s|timed? ?out'
a handshake that ends because we stop is no failure of its server ; asks again.3.test
 ; each 'comes $it ^open 2' f_accept f_hello f_mid
 ; stop px
 ; unlike 'cut short|closed in the handshake' "$(cat "$T/px.log")"
a handshake that is closed once proves nothing of TLS 1.3 ; single 'at=hello:fin times=1'
 ; answered 10 1
 ; blamed one 'closed in the handshake$'
a failure after the handshake lets the next priority answer at once
 ; eval "row $later -- '127.0.0.1@$(freeport) 10 tls=dns.test' 'patience 3000'"
 ; answered 11 20 in:1500
half a message before the end of a connection is not used ; shows "^upstream $f_half .* answered 0 "
a server that does not know EDNS is asked again without it ; single noedns=formerr
 ; answered 10 20
 ; saw 1 '^open' one
a server that heals is used again within a few seconds, without a restart ; row 'one at=hello:alert80'
 ; answered 11 3
 ; heals
failures back off when nobody asks: at most 4 tries in 5 s ; turn one at=hello:alert80 kick=1
 ; costs 1-4 '^open' one sleep 5
END
    for fault in at=accept:fin at=accept:rst at=hello:fin at=up:fin full=1; do
        promise "under 500 queries a second a server that ends connections ($fault) sees at most 10 a second, and the others answer"
        row "one $fault"
        answered 11 1000 in:1500 rate=500
        within 1 10 "$(crowded one)" "connections in the worst second"
    done
    promise "while handshakes fail, queries may try once a second, and the others answer at once"
    row 'one at=hello:alert80' two:other 'f_40 at=hello:alert40' -- 'patience 3000'
    comes one '^strike'
    answered 11 300 in:1500 rate=100
    saw 2-5 '^open' one
    each 'within 1 2 "$(crowded $it)" "tries in the worst second, $it"' one two
    within 1 3 "$(crowded f_40)" "tries in the worst second, no common cipher"
}
# crowded NAME: the most connections that came within one second
crowded() {
    awk '$1 == "open" { t[n++] = $4 } END { for (i = j = 0; i < n; i++) { while (t[i] - t[j] >= 1000) j++; if (i - j + 1 > max) max = i - j + 1 } print max + 0 }' "$T/$1.q"
}

leg_tls_life() {
    replies <<'END'
queries in flight when the connection ends, in whatever way, are asked again on a new one and answered ; served
 ; each 'turn one full=10 times=1 how=$it && costs 1 ^open one answered 10 10 in:1500 window=10 name=delay=100.n%x.test' notify fin rst half
a server that closes after each answer answers 50 queries of 50 ; each 'ruled "after=1 how=$it" 50 in:1000' notify fin rst
a query that ends every connection is asked again alone, at most five times a second, and takes no other with it
 ; ruled '' 1
 ; costs 3-12 'close=' one beside close= 'n=1 timeout=2000' . answered 10 40 in:400 rate=40
a server that closes each connection after 1 s answers 99 % at 200 queries a second ; turn one life=1000
 ; within 990 1000 "$(val right "$(load n=1000 rate=200)")" "right answers"
 ; ruled '' 5
a connection that went silent is replaced: nobody waits more than 2 s, and no restart is needed ; served
 ; turn one muted=1
 ; costs 1 '^open' one answered 10 5 window=5 timeout=4500
 ; within 500 2000 "$(val slowest_ms "$out")" "slowest, ms"
 ; comes one '^end 1 .*by client'
 ; answered 10 20 in:300
a slow answer on a connection that is alive costs no new connection, and holds up no other
 ; costs 0 '^open' one beside delay=1800 n=1 'right 1 ' answered 10 40 in:700 rate=20
a large answer that takes 2 s to come over a slow line costs no new connection ; turn one dribble=100 record=3000
 ; costs 0 '^open' one says 'NOERROR qr .* size=(59|60)[0-9]{3} ' big=60000.slow.test TYPE65400 +tcp +timeout=5000
 ; turn one
edns-tcp-keepalive of the server is obeyed: we close when its timeout has passed ; ruled opt=11:0005 1
 ; forget one
 ; answered 10 1
 ; comes one '^end .*by client'
 ; within 200 1500 "$(span one '^query' '^end')" "ms from the last query to the end"
 ; answered 10 5
a keepalive of 0 ends the connection when nothing is in flight, and no query is lost ; ruled opt=11:0000 1
 ; comes one '^end .*by client' 2
 ; answered 10 30
sessions are resumed where the server offers it, and status counts them ; served
 ; each 'kicked kick=$it' 1 2 3 4 5
 ; saw 4-5 '^up .* resumed 1' one
 ; shows "^upstream $one .* connects $(seen one '^up') resumed $(seen one '^up .* resumed 1')\$"
a server that has forgotten its sessions gets a full handshake ; costs 0 '^up .* resumed 1' one kicked kick=6 cache=new
a server without sessions works ; costs 0 '^up .* resumed 1' one each 'kicked kick=$it cache=off' 7 8
after a failed handshake no session is offered: a server without a valid certificate cannot resume its way in
 ; row 'one:alone cache=zero'
 ; answered 11 30 rate=10
 ; comes one '^hello' 2
 ; saw 0 '^hello .* sid [1-9]|^(up|data)' one
a stranger in the place of a known server is offered its session once, cannot resume it, and gets nothing ; row one
 ; answered 10 2
 ; kill_pid one
 ; answered 11 3
 ; dot two alone on="${one#*@}" : cache=zero
 ; answered 11 30 rate=10
 ; comes two '^hello' 2
 ; saw 1 '^hello .* sid [1-9]' two
 ; saw 0 '^(up|data)' two
 ; kill_pid two
 ; dot one good on="${one#*@}"
 ; heals
a session belongs to an upstream and its rule: another name at the same address is not resumed, and gets no query
 ; dot one good
 ; proxy px "$ca" "$one 1 tls=other.test" "$one 2 tls=dns.test"
 ; comes one '^hello .* sni other\.test'
 ; answered 10 2
 ; each 'kicked kick=$it' 1 2 3
 ; comes one '^up .* resumed 1' 2
 ; saw 0 '^hello .* sni other\.test .* sid [1-9]' one
 ; each 'saw 0 "^(up|data|query) $it " one' $(sed -n 's/^hello \([0-9]*\) .* sni other\.test .*/\1/p' "$T/one.q")
a reload that leaves an upstream's line as it is leaves its connection too, under load ; dot one good
 ; dot two good : net=11
 ; conf "$ca" "$one 1 tls=dns.test" "$two 2 tls=dns.test"
 ; proxy px -c "$T/r.conf"
 ; answered 10 2
 ; beside some 'n=500 rate=250' 'wrong 0 dup 0 bad 0 right 500 failed 0 lost 0' each 'like Reloaded "$(adm reload)"' 1 2 3 4 5 6 7 8 9 10
 ; saw 1 '^open' one
a session does not outlive the rule that it was made under: after a reload with another pin nothing is resumed ; forget one
 ; reload "$ca" "$one 1 tls=dns.test pin=$(cat "$T/pki/other.pin")" "$two 2 tls=dns.test"
 ; answered 11 10
 ; comes one '^hello'
 ; saw 0 '^(up|data|query)|^hello .* sid [1-9]' one
a reload opens the connection of a new line at once, and ends that of a line that is gone with close_notify
 ; reload "$ca" "$one 1 tls=dns.test"
 ; comes one '^up'
 ; saw 0 '^query' one
 ; comes two '^end .*by client why notify'
 ; answered 10 5
a reload with a changed ca-file ends the connections that the old one vouched for ; cp "$T/pki/ca.pem" "$T/px.pem"
 ; reload "ca-file $T/px.pem" "$one 1 tls=dns.test"
 ; answered 10 2
 ; forget one
 ; cat "$T/pki/stranger.crt" >"$T/px.pem"
 ; like Reloaded "$(adm reload)"
 ; comes one '^end .*by client why notify'
 ; like 'right 0' "$(load n=1)"
 ; saw 0 '^query' one
a reload takes the ca-file anew: a server of a CA that is gone from it is refused, one of a new CA accepted
 ; crt strange by=stranger cn=dns.test san=dns:dns.test
 ; dot new strange : net=12
 ; forget two
 ; reload "ca-file $T/px.pem" "$two 1 tls=dns.test" "$(at new) 2 tls=dns.test"
 ; answered 12 10
 ; saw 0 '^(up|data|query)' two
 ; blamed two 'unknown CA'
a ca-file that is written over where it lies is read again when a certificate needs it
 ; printf '%099d\n' 0 | cat - "$T/pki/stranger.crt" >"$T/px.pem"
 ; rules new '. net=12 cache=off kick=1'
 ; comes new '^end'
 ; await 5 hears '^NOERROR' moved.test || fail "$(ask moved.test)"
a reload with a ca-file that cannot be read changes nothing ; conf "ca-file $T/none.pem" "$one 1 tls=dns.test"
 ; like 'error|none\.pem' "$(adm reload)"
 ; answered 12 10
the debug log has version, suite, certificate name, pin and the milliseconds of the handshake ; row one two:alone -- 'log debug'
 ; answered 10 3
 ; pin=$(ere "$(cat "$T/pki/good.pin")") suite=$(sed -n 's/^up 1 .* suite \([0-9a-f]*\) .*/\1/p' "$T/one.q")
 ; blamed one "TLS 1\.2 suite $suite, certificate .*dns\.test.*, pin $pin, full handshake in [0-9]+ ms"
query tells the TLS error of an upstream
 ; like "^upstream $two tls priority 2 no answer.*(unknown CA|self-signed|certificate)" "$(adm 'query www.test A')"
 ; like "^upstream $one tls priority 1 NOERROR answers 1 ms [0-9.]+ won" "$(adm 'query www2.test A')"
AD of an authenticated TLS upstream reaches the clients that set AD or DO, and no others, with noverify none
 ; netns && ns ip addr add 192.0.2.7/32 dev lo
 ; crt ip by=int san=ip:192.0.2.7
 ; dot one ip addr=192.0.2.7 : ad
 ; proxy px "$ca" "$one 1 tls"
 ; !^NOERROR[a-z ]* ad ; plain.test
 ; ^NOERROR[a-z ]* ad ; ad.test +ad | ad.test +ad | do.test +do | do.test +do
 ; proxy px "$ca" "$one 1 tls pin=$(cat "$T/pki/ip.pin")"
 ; !^NOERROR[a-z ]* ad ; plain.test
 ; ^NOERROR[a-z ]* ad ; ad.test +ad | ad.test +ad | do.test +do | do.test +do
 ; proxy px "$ca" "$one 1 tls noverify"
 ; !^NOERROR[a-z ]* ad ; plain.test | ad.test +ad | ad.test +ad | do.test +do | do.test +do
END
}

leg_tls_idle() {
    for k in notify:900:0 fin:900:0 rst:1200:0.5 half:2000:1; do
        how=${k%%:*} idle=${k#*:}
        promise "after an idle close ($how) the connection is reopened at once, and the next query, ${k##*:} s later, finds it open"
        served "idle=${idle%:*} how=$how"
        for i in 2 3 4; do
            comes one '^up' $i
            sleep "${k##*:}"    # what is promised
            answered 10 1 in:500
        done
        none_waited one
        unlike 'warning|error|failed' "$(grep -F "$one" "$T/px.log")" "an idle close is no failure"
        same 0 "$(upstream "$one" failed)" "failures"
    done
    replies <<'END'
a server that closes idle connections gets no more than two when nobody asks ; served idle=200
 ; costs 1-2 '^open' one sleep 4
a server that closes after 100 ms without a query answers all queries, none later than 1 s ; single idle=100
 ; answered 10 30 in:1000 rate=6
a connection is reopened too after one beside it was closed that is needed no more ; single idle=0
 ; good 2 window=2 name=delay=1300.n%x.beside.test
 ; comes one '^end .*by client'
 ; costs 1 '^open' one kicked kick=1
a connection that was not used is not reopened when the server closes it, but at the next query ; single idle=200
 ; comes one '^end'
 ; costs 0 '^open' one sleep 1
 ; answered 10 1 in:1000
END
}

leg_tls_busy() {
    promise "at most one step of a handshake is done between two looks at the clients: 10 servers with P-384 chains hold nobody up"
    shim TURNS || return
    WRAP="env SHIM=$T/shim LD_PRELOAD=$T/shim.so"
    crt int384 by=root384 key=P-384 cn='Test intermediate P-384' ca
    crt p384 by=int384 key=P-384 cn=dns.test san=dns:dns.test
    ten=$(seq 10)
    eval "row $(printf "'b_%s:p384 cache=off' " $ten)"
    each 'comes "b_$it" "^up 1 "' $ten
    answered 10 5
    load n=1 name=busy.test >/dev/null
    # all connections end; the servers answer the new ClientHellos at the same time, while the program is stopped
    each 'rules "b_$it" ". net=10 cache=off kick=1 pause=1500"' $ten
    each 'comes "b_$it" "^hello 2 "' $ten
    kill -STOP "$(pid px)"
    within 0 3 "$(cat "$T"/b_*.q | grep -c '^flight 2 ')" "servers that had answered before the program was stopped"
    each 'comes "b_$it" "^flight 2 "' $ten
    meanwhile load load n=400 rate=400 name=busy.test
    all=$(cpu_ms px)
    head -c 8 /dev/zero | dd of="$T/shim" conv=notrunc 2>/dev/null
    kill -CONT "$(pid px)"
    ended load 'right 400 '
    each 'comes "b_$it" "^up 2 "' $ten
    # in CPU time of the program, so that a busy machine does not count
    within 1 $((($(cpu_ms px) - all) * 250)) "$(shim_count)" "us of work in one turn of the loop, a quarter of all"
}
