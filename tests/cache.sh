# cache.sh - what the cache keeps, how long, and what goes when it is full.
# Alone: ./test.sh cache stale

# kept N NAME...: of each name, asked twice, u1 sees N queries: over TCP, where none is sent again on a busy machine
kept() {
    kept_n=$1
    shift
    for kept_q; do
        asks "$kept_q" "$kept_q"
        same "$kept_n" "$(grep -cF " $kept_q. " "$T/u1.q")" "queries for $kept_q"
    done
}

leg_cache() {
    up u1 '. count'
    up u2
    proxy p "$u1 1 tcp" 'timeout 1500'
    ask hit.test >/dev/null
    replies <<'END'
the second question is answered from the cache ; A 10\.0\.0\.1$ ; hit.test
 ; saw 1 ' hit\.test' u1
the key is the name without case, the type, the class, DO and CD: six questions are six entries
 ; each 'ask key.test $it >/dev/null && ask KEY.test $it >/dev/null' '' AAAA 'A +class=3' +do +cd '+do +cd'
 ; saw 6 ' [kK][eE][yY]\.test' u1
 ; shows 4 '^entry key\.test\. A IN '
a record that came beside an answer does not answer a question of its own ; 6\.6\.6\.6 ; extra=.beside.test
 ; !6\.6\.6\.6 ; victim.test
 ; #1 ; victim.test
nothing with TTL 0 ; kept 2 ttl=0.zero.test ttl=300,0.n=2.zero.test
a huge TTL is capped, also one with the top bit set (RFC 8767) ; kept 1 ttl=2147483647.big.test ttl=2147483648.big.test ttl=4294967295.big.test
 ; @. ttl:86390-86400 ; ttl=2147483648.big.test | ttl=4294967295.big.test
only successes: not SERVFAIL, REFUSED, FORMERR, NOTIMP, NXDOMAIN, NODATA
 ; kept 2 servfail=.bad.test refused=.bad.test notimp=.bad.test nxdomain=.soa=60,60.bad.test nodata=.soa=60,60.bad.test
 ; kept 2 cname=1.nodata=.bad.test
 ; kept 4 formerr=.bad.test
ANY is relayed, and not kept ; ^NOERROR .*an=1 ; some.test ANY
 ; #2 ; some.test ANY
names are octets with lengths: a.b.test, the label a\.b, and a\000b.test are three
 ; kept 1 a.b.test 'a\.b.test' 'a\000b.test' a.test
the whole answer is kept: all records of all sections, as they were ;  an=8 ns=1 ar=1 ; extra=.cname=3.n=5.whole.test
 ; one=$(ask extra=.cname=3.n=5.fresh.test) two=$(ask extra=.cname=3.n=5.fresh.test)
 ; same "${one#*ms=* }" "${two#*ms=* }"
it lives for the lowest TTL of the message ; asks ttl=900,2,400.n=3.low.test ttl=300.soa=1,60.low.test ttl=1.one.test
 ; . ; ttl=4,300.n=2.aged.test +do
 ; sleep 2.2            # time is what is tested
 ; asks ttl=900,2,400.n=3.low.test ttl=300.soa=1,60.low.test ttl=1.one.test
 ; each 'saw 2 "$it" u1' 'ttl=900.*low' 'ttl=300.*low' 'ttl=1\.one'
every TTL is lowered by the time spent in the cache, OPT is not aged
 ; edns=[0-9]+ do ms=[^|]*\| ttl=4,300\.n=2\.aged\.test\. [12] A .*\| ttl=4,300\.n=2\.aged\.test\. 29[78] A ; ttl=4,300.n=2.aged.test +do
 ; saw 1 aged u1
cache-size 0 is no cache ; proxy p "$u1 1 tcp" 'cache-size 0'
 ; kept 2 off.test
cache-min-ttl and cache-max-ttl clamp what is kept, TTL 0 is not kept for all that
 ; proxy p "$u1 1 tcp" 'cache-min-ttl 60' 'cache-max-ttl 100'
 ; asks ttl=5.c.test ttl=500.c.test
 ; each 'says . ttl:$it.c.test' '50-60 ttl=5' '90-100 ttl=500'
 ; each 'left $it' '50-60 ttl=5[.]' '90-100 ttl=500'
 ; kept 2 ttl=0.c.test
cache-negative: NXDOMAIN and NODATA are kept for the least of SOA TTL, MINIMUM and the cap ; rules u1
 ; proxy p "$u1 1 tcp" 'cache-negative 60'
 ; each leaves nxdomain= nodata=
several addresses take turns to be first, from hit to hit ; asks n=3.turn.test
 ; each 'says "ms=[0-9]* . [^ ]* [0-9]* A 192\.0\.2\.$it" n=3.turn.test' 2 3 1 2
without an SOA they are not kept, nor are other failures ; kept 2 nxdomain=.nosoa.test nodata=.nosoa.test servfail=.soa=60,60.f.test
NODATA is for one type, and a positive answer of another type serves ; . ; nodata=.soa=60,60.t.test AAAA
 ; #2 ; nodata=.soa=60,60.t.test
a kept NXDOMAIN is for its own type, and comes with the client's letters and ID
 ; each 'says "^NXDOMAIN .* id=99 .*/$it qd=1 an=0 ns=1 " NXdomain=.soa=60,60.Gone.TEST $it +id=99' A AAAA A AAAA
 ; saw 2 '[nN][xX]domain=.soa=60,60\.[gG]one' u1
a name below one that does not exist is asked for itself ; . ; nxdomain=.soa=60,60.top.test
 ; ^NXDOMAIN ; 1=.nxdomain=.soa=60,60.top.test
a 'no' that was sent while an upstream was silent is not kept: that one may know better
 ; proxy p "$u1 1" "$u2 2" 'cache-negative 60' 'timeout 600'
 ; ^NXDOMAIN ; 1nxdomain=.1soa=60,60.2silent=.half.test
 ; shows 0 '^entry .*half'
END
}

# remaining NAME: the time that status gives the entry whose name begins so;  left RANGE NAME: it is so
remaining() { adm status | sed -n "s/^entry $1.* remaining \\([0-9]*\\) .*/\\1/p"; }
left() { within "${1%-*}" "${1#*-}" "$(remaining "$2")" "seconds that $2 has left"; }

# for each kind of 'no': the time that it is kept
leaves() {
    asks "$it.soa=50,20.n.test" "$it.soa=15,50.n.test" "$it.soa=900,900.n.test"
    says ' an=0 ns=1 .* au: [^ ]* (5[0-9]|60) SOA ' "$it.soa=900,900.n.test"
    left 15-20 "$it.soa=50"
    left 10-15 "$it.soa=15"
    left 55-60 "$it.soa=900"
}

leg_stale() {
    ups u1 u2
    proxy p "$u1 1" 'serve-stale 60' 'timeout 3000'
    expire ttl=1.old.test ttl=1,500.n=2.old.test
    replies <<'END'
an expired entry has nothing remaining ; left 0-0 ttl=1.old
serve-stale: when no upstream answers, the expired answer comes with TTL 30 or less, within 1.8 s, with Extended DNS Error 3
 ; rules u1 '. silent'
 ; meanwhile bare ask ttl=1.old.test
 ; @'^NOERROR .* ede=3 .* A 192\.0\.2\.1$' ms:0-2300 ttl:1-30 ; ttl=1.old.test +edns
 ; ended bare '^NOERROR .* size=[0-9]+ ms='     # nothing of EDNS
status counts it ; same 2 "$(count stale)"
at once while all upstreams are down, and all TTLs are 30 or less ; down u1
 ; @'^NOERROR .* ede=3 .*\| [^ ]* ([12]?[0-9]|30) A [^|]*\| [^ ]* ([12]?[0-9]|30) A ' ms:0-700 ; ttl=1,500.n=2.old.test +edns
never while an upstream answers, and refreshed as soon as one returns ; rules u1 '. a=192.0.2.99'
 ; await 4 hears '192\.0\.2\.99$' ttl=1.old.test || fail "still $(ask ttl=1.old.test)"
serve-stale 0: never ; rules u1
 ; proxy p "$u1 1" 'timeout 700'
 ; expire ttl=1.old.test
 ; rules u1 '. silent'
 ; ^SERVFAIL ; ttl=1.old.test
serve-stale: SERVFAIL and REFUSED are no answers, NXDOMAIN is, and with it a 'no' is kept, and stale as any answer ; up u3 number=1
 ; proxy q "$u3 1" 'serve-stale 60'
 ; expire ttl=1.fails.test nodata=.soa=1,1.fails.test
 ; each 'rules u3 ". $it" && says 1 ms:0-900 ttl:1-30 ttl=1.fails.test' servfail refused
 ; ^NOERROR .*an=0 ns=1 ; nodata=.soa=1,1.fails.test
 ; rules u3 '. nxdomain'
 ; ^NXDOMAIN ; ttl=1.fails.test
an upstream that fails at once: stale at once ; kill_pid u3
 ; @'^NOERROR .*an=0 ns=1 ' ms:0-2500 ; nodata=.soa=1,1.fails.test
an entry hit twice before, with less than a tenth of its TTL left, no earlier, is refreshed when it is hit again, and the client answered at once
 ; rules u1 '. count delay=300'
 ; proxy p "$u1 1 tcp"
 ; one=$(addresses "$(ask ttl=20.pre.test)")
 ; asks ttl=20.pre.test ttl=20.pre.test ttl=20.unused.test ttl=20.middle.test ttl=20.middle.test ttl=20.middle.test
 ; await 20 last 5 ttl=20.middle
 ; asks ttl=20.middle.test ttl=20.middle.test
 ; await 5 last 2 ttl=20.unused
 ; asks ttl=20.unused.test
 ; same "$one" "$(addresses "$(ask ttl=20.pre.test)")" "the answer"
 ; good 20 window=1 name=ttl=20.pre.test
 ; within 0 280 "$(($(val p50_us "$out") / 1000))" "ms, the median of 20 more"
by one query at a time, and then the new answer serves ; await 2 prefetched "$one" || fail "still the old one"
 ; @. ttl:17-20 ; ttl=20.pre.test
 ; saw 2 '\.pre\.test' u1
one that was not hit twice, or that has more left, is not refreshed ; each 'saw 1 $it u1' unused middle
what lives for three seconds is refreshed in its last one, a worse answer of the moment replaces nothing
 ; proxy q "$u1 1 tcp" "$u2 2 tcp" 'patience 2000'
 ; each 'asks ttl=3.short.test 1nodata=.ttl=3.split.test' 1 2 3
 ; await 5 last 1 1nodata=
 ; asks ttl=3.short.test 1nodata=.ttl=3.split.test
 ; each 'comes $it "(short|split)" 4' u1 u2
 ; sleep 0.5            # until both have answered, the better one last
 ; shows '^entry 1nodata=\.ttl=3\.split\.test\. A IN .* remaining [23] '
200,000 names with 200,000 addresses through a cache of 1 MB: the last 100 are hits, no reply carries another name's address
 ; rules u1 '. net=10 ttl=3000'
 ; proxy p "$u1 1"
 ; many n=3000 window=60 name=few%d.test byname >/dev/null
 ; few=$(val p50_us "$(many n=3000 window=1 from=0 name=few%d.test byname)") a=$(rss_kb p)
 ; good 200000 window=60 byname
 ; costs 0-10 ' id=' u1 good 100 from=199900 window=20 byname
it never grows: bytes is at most size, size is what was asked for ; each 'within 1 1048576 "$(count $it cache)" $it' bytes size
 ; within 4000 40000 "$(count entries cache)" entries
 ; within 160000 200000 "$(count evicted cache)" evicted
a small answer costs at most its bytes and 60 ; within 1 140 "$(($(count bytes cache) / $(count entries cache)))" "bytes an entry"
and memory grows by no more than what was set aside ; ! plain || grew 1300 "$a" p
and a hit costs what it cost before ; good 3000 from=197000 window=1 byname
 ; within 1 $((few * 3 + 300)) "$(val p50_us "$out")" "us, $few before"
END
}
# expire NAME...: they are asked, and have expired
expire() {
    asks "$@"
    sleep 1.3
}
last() { sleep 0.1; [ "$(remaining "$2")" = "$1" ]; }
prefetched() { x=$(addresses "$(ask ttl=20.pre.test)"); [ -n "$x" ] && [ "$x" != "$1" ]; }
