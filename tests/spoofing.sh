# spoofing.sh - what a blind attacker must guess; replies that are not ours; questions sent again.
# Alone: ./test.sh spoofing

# strays ADDR: how many replies of this upstream matched no query
strays() { metric "upstream_strays_total{upstream=\"$1\".*}"; }

# sent UPSTREAM PATTERN WHAT: of the queries that match, in order: their ports, their IDs, their questions and IDs
sent() { sed -n "s/.* udp from=[^@]*@\([0-9]*\) id=\([0-9]*\) \($2[^ ]*\).*/$3/p" "$T/$1.q"; }

# busiest UPSTREAM PATTERN: how many of these queries came from one port at most
busiest() { sent "$1" "$2" '\1' | sort | uniq -c | sort -rn | awk 'NR == 1 { print $1 }'; }
# ids UPSTREAM: its spaced questions with their IDs, sorted
ids() { sent "$1" 'port.*spaced' '\3 \2' | sort; }

leg_spoofing() {
    ups u1 u2
    proxy p "$u1 1" "$u2 2" 'cache-size 0' 'patience 400' 'timeout 2000'
    promise "2,000 names one after another leave from 1,800 or more distinct ports, none more than 5 times, neighbours at most 1 %"
    good 2000 window=1 name=port%d.spaced.test
    sent u1 'port.*spaced' '\1' >"$T/ports"
    within 1800 2000 "$(sort -u "$T/ports" | wc -l)" "distinct ports"
    within 1 5 "$(busiest u1 'port.*spaced')" "uses of one port"
    within 0 20 "$(awk 'NR > 1 && $1 - l <= 2 && l - $1 <= 2 { n++ } { l = $1 } END { print n + 0 }' "$T/ports")" "neighbours"
    promise "their IDs: 1,940 or more distinct, every bit set in 45 to 55 %"
    sent u1 'port.*spaced' '\2' >"$T/ids"
    within 1940 2000 "$(sort -u "$T/ids" | wc -l)" "distinct IDs"
    awk '{ v = $1; for (b = 0; b < 16; b++) { if (v % 2) n[b]++; v = int(v / 2) } } END { for (b = 0; b < 16; b++) print b, int(n[b] * 1000 / NR) }' "$T/ids" |
        while read -r b n; do within 450 550 "$n" "thousandths with bit $b"; done
    for k in addr:"another address" port:"another port" id:"a wrong ID" qname:"another name" qtype:"another type" qclass:"another class" qr:"QR=0" \
        zero:"0 bytes" eleven:"11 bytes" header:"a header alone" opcode:"opcode 4" qd2:"QDCOUNT 2" cutq:"the question cut off" noq:"no question"; do
        promise "a reply with ${k#*:} is ignored, the right one is taken"
        says ' replies=1 .* A 192\.0\.2\.1$' "1first=${k%%:*}.f.test" +wait=250
        says ' AAAA 2001:db8::1$' "1first=${k%%:*}.g.test" AAAA
    done
    replies <<'END'
the IDs towards u1 and u2 differ, and those of a restart too ; saw 2000 'port.*spaced' u2
 ; each 'ids $it >"$T/$it.ids"' u1 u2
 ; within 0 3 "$(comm -12 "$T/u1.ids" "$T/u2.ids" | wc -l)" "equal towards both"
 ; proxy p "$u1 1" "$u2 2" 'cache-size 0' 'patience 400' 'timeout 2000'
 ; forget u1
 ; good 50 window=1 name=port%d.spaced.test
 ; within 0 2 "$(ids u1 | comm -12 "$T/u1.ids" - | wc -l)" "as before the restart"
the client's ID is not the upstream's ; costs 0-1 ' id=4711 ' u1 each 'ask same$it.test +id=4711' 1 2 3 4
a burst shares sockets: no port sees more than 32 queries ; good 500 window=500 name=delay=300.burst%d.test
 ; within 1 32 "$(busiest u1 .*burst)" "queries of one port"
a first answer that is broken, with the right ID and question, gives way to the right one, or to the next upstream, never to the broken one
 ;  replies=1 .* A 192\.0\.2\.[12]$ ; 1first=loop.f.test +wait=250
ignored replies are counted: a wrong ID, name, type or class ; n=$(strays "$u1")
 ; each 'ask 1first=$it.count.test >/dev/null' id qname qtype qclass
 ; n=$((n + $(seen u1 '\.count\.test')))
 ; within $n $((n + 1)) "$(strays "$u1")" "replies, one to each question, and of the two right ones after a wrong ID one comes late"
over TCP likewise: the other queries of the connection still succeed
 ; proxy p "$u1 1 tcp" "$u2 2" 'cache-size 0' 'patience 500' 'timeout 2000'
 ; @1 ; 1first=id.h.test | 1first=qname.h.test | 1first=qtype.h.test | 1first=qr.h.test
 ; meanwhile beside many n=20 window=20 name=1delay=200.beside%d.test
 ; @1 ; 1first=id.i.test
 ; ended beside 'noerror 20 '
a flood of 20,000 wrong IDs neither wins nor fails the query: TCP decides
 ; proxy p "$u1 1" "$u2 2" 'cache-size 0' 'patience 1000' 'timeout 3000'
 ; @1 ; 1flood=20000.1delay=600.flood.test
 ; within 1 $((20000 * $(seen u1 ' udp .*1flood'))) "$(strays "$u1")" "of them counted"
after the first wrong ID the same question goes to that upstream over TCP ; saw 1-2 ' tcp .* 1flood' u1
 ; costs 1-2 ' tcp .* 1first=id\.1gap' u1 says 1 1first=id.1gap=700.tcp.test
an open port answers a stranger's datagram as a closed one does, and is closed soon after the answer
 ; meanwhile probe ask delay=500.probe.test
 ; comes u1 'probe\.test'
 ; port=$(sent u1 .*probe '\1')
 ; says '^REFUSEDPORT' x.test +src=127.0.0.9 +timeout=300
 ; ended probe
 ; says '^REFUSEDPORT' x.test +src=127.0.0.1 +timeout=300
8: of 50 queries at once whose first datagrams are lost all are answered, well inside a second
 ; proxy p "$u1 1" 'cache-size 0' 'timeout 3000'
 ; good 50 window=50 name=drop=.many%d.test
 ; within 0 900 "$(($(val p50_us "$out") / 1000))" "ms, the median"
8: before the first answer a question is sent again after 350 ms, later whenever the wait has doubled, and last at two thirds of its life
 ; proxy p "$u1 1" 'cache-size 0' 'timeout 3000'
 ; ^SERVFAIL ; silent=.first.test
 ; sent_at u1 silent=.first 0 350 700 1400 2000
8: then as the round trips say, at most 6 times, always from another port
 ; asks good1.test good2.test good3.test silent=.then.test
 ; sent_at u1 silent=.then 0 20 40 80 160 320 2000
 ; same 7 "$(sent u1 silent=.then '\1' | sort -u | wc -l)" "ports"
8: a back-off is kept until a question that was sent once is answered ; asks silent=.kept.test
 ; sent_at u1 silent=.kept 0 640 1280 2000
 ; asks good4.test delay=500.over.test
 ; saw 2-6 delay=500.over u1
8: the first of all answers counts, though it be the one to the first datagram ; behind '. delay=600 count'
 ; @' A 10\.0\.0\.1$' ; old.test
 ; saw 2 ' id=' u3
ten questions at once behind a firewall that ends a UDP session with its first reply are all answered ; behind '. once'
 ; good 10 window=10 name=wall%d.test
 ; saw 10-69 ' id=' u3
after a flood of wrong IDs the right datagram still counts, whatever TCP does ; behind notcp '. flood=20000 delay=600'
 ; up u4 on="${u3#*@}" noudp '. silent'
 ; @3 ; doubt.test
 ; saw 1 ' id=' u4          # over TCP, and not answered
8: it is sent again to upstreams that have not answered, not to those that have
 ; proxy p "$u1 1" "$u2 2" 'cache-size 0' 'patience 2000' 'timeout 3000'
 ; @1 ; 1drop=.part.test
 ; saw 2 1drop=.part u1
 ; saw 1 1drop=.part u2
answers that come twice, or after the question was sent again, harm no other query, and nothing goes to TCP
 ; each 'behind notcp ". $it" && good 300 rate=200 window=300 name=late%d.test && becomes 0 "$u3" up' 'twice delay=20' delay=600 'twice delay=600'
16: an upstream that cannot do EDNS is asked again without, and for ten minutes not with
 ; each no_edns noedns=formerr noedns=notimp noedns=servfail
16: one that says the same to both is asked twice, and with EDNS the next time, and clients get SERVFAIL
 ; each refuses_both formerr 'formerr bad=header'
END
}

# sent_at NAME PATTERN MS...: the upstream NAME has seen these at about such times after the first of them
sent_at() {
    sent_q=$(sed -n "s/^query [0-9]* ms \([0-9]*\) .*udp .* id=[0-9]* $2.*/\1/p" "$T/$1.q" | awk 'NR == 1 { t = $1 } { print $1 - t }' | tr '\n' ' ')
    shift 2
    echo "$sent_q" | awk -v want="$*" -v slow="$SLOW" '{ n = split(want, w); ok = n == NF
        for (i = 1; i <= n; i++) ok = ok && $i >= w[i] - 60 * slow && $i <= w[i] + 400 * slow } END { exit !ok }' ||
        fail "sent at: wanted about $*, got $sent_q"
}

# behind WORD...: u3 is started so, and p has only it
behind() {
    up u3 "$@"
    proxy p "$u3 1" 'cache-size 0' 'timeout 3000'
}
no_edns() {
    behind ". $it"
    says '^NOERROR .* edns=' ms:0-900 a.test +edns
    costs 0 ' edns=' u3 says '^NOERROR' b.test
    saw 1 ' b\.test' u3
}
refuses_both() {
    behind ". $it"
    for n in c d; do
        costs 1 " $n\\.test.* edns=" u3 says '^SERVFAIL .* edns=' ms:0-900 $n.test +edns
        saw 2 " $n\\.test" u3
    done
}
