# choosing.sh - how an answer is chosen: priorities, patience, dead and slow upstreams, domains, private names and addresses, late networks.
# Alone: ./test.sh choosing failing network

# How an answer is chosen. The numbers are those of the contract's paragraphs. A label of a name says what an upstream does:
# 1delay=200 makes u1 wait. u1 answers 192.0.2.1, u2 192.0.2.2, u3 192.0.2.3.
leg_choosing() {
    ups u1 u2 u3 u4
    dead=127.0.0.1@$(freeport)
    proxy p "$u1 1" "$u2 2" "$u3 3" 'patience 1500' 'timeout 3000'
    replies <<'END'
1: a query goes to all upstreams at once ; costs 1 ' 1delay=200\.all\.test\. A ' 'u1 u2 u3' asks 1delay=200.all.test
 ; within 0 150 "$(sed -n 's/.* ms \([0-9]*\) .* 1delay=200\.all.*/\1/p' "$T"/u[123].q | sort -n | awk 'NR == 1 { a = $1 } END { print $1 - a }')" "ms from the first to the last"
2: a priority-1 success is sent at once ; @1 ms:0-900 ; 2silent=.3silent=.at-once.test
2: NOERROR with a record of the asked type is a success, with none it is not ; @2 ; 1nodata=.s.test | 1type=TXT.s.test
2: it is sent the moment every better upstream has answered without success ; @2 ms:290-1300 ; 1delay=300.1nxdomain=.moment.test
 ; @3 ms:0-900 ; 1nxdomain=.2servfail=.moment.test
3: with no success NODATA comes before NXDOMAIN ; ^NOERROR .* an=0 ns=1 ; 1nxdomain=.2nodata=.2soa=9,9.3nxdomain=.no.test
3: the best priority comes first within each ; 101 SOA ; 1nodata=.1soa=101,5.2nodata=.2soa=102,5.3nodata=.3soa=103,5.no.test
 ; 12 SOA ; 1servfail=.2nxdomain=.2soa=12,5.3nxdomain=.3soa=13,5.no.test
 ; ^REFUSED ; 1refused=.2servfail=.3notimp=.no.test
3: FORMERR, NOTIMP, BADVERS, BADCOOKIE and what nobody knows become SERVFAIL ; ^SERVFAIL .*ede=22 ; 1notimp=.2servfail=.3refused=.no.test +edns
 ; ^SERVFAIL .*ede=22 ; 1formerr=.2nodata=.2extra=.3refused=.no.test +edns | 1rcode=9.2refused=.3refused=.no.test +edns
 ; ^SERVFAIL .*ede=4 ; 1formerr=.1ede=4.2refused=.3refused=.no.test +edns
 ; ^RCODE6|^YXDOMAIN ; 1rcode=6.2servfail=.3refused=.no.test
3: NXDOMAIN comes before any other answer, and a referral is such ; ^NXDOMAIN ; 1nodata=.1extra=.2refused=.3nxdomain=.no.test
 ; ^NOERROR .*an=0 ns=1 ; 1nodata=.1extra=.2servfail=.3servfail=.no.test | 1nodata=.1extra=.1aa=.2nxdomain=.3servfail=.no.test
3: it is sent when every upstream has answered or failed ; @^NXDOMAIN ms:390-2500 ; 1nxdomain=.2nxdomain=.3delay=400.3nxdomain=.when.test
3: a wrong 'no' is worse than a late one: it waits for a success beyond patience ; @3 ; 1nxdomain=.2nxdomain=.3delay=1900.late.test
3: it is sent at timeout if someone stays silent ; @^NXDOMAIN ms:2900-5000 ; 1nxdomain=.2nxdomain=.3silent=.silent.test
4: a success in hand waits for a better upstream no longer than patience ; @2 ms:1400-2700 ; 1silent=.patience.test
4: and takes the better answer that comes within patience ; @1 ; 1delay=900.patience.test
4: patience counts from the success in hand, not from the query ; @3 ms:1900-2999 ; 1silent=.2silent=.3delay=600.patience.test
2: SERVFAIL with a DNSSEC error of an upstream whose AD is believed is a success ; ^SERVFAIL .*ede=6 ; 1servfail=.1ede=6.bogus.test +edns
 ; ^SERVFAIL .*ede=12 ; 1servfail=.1ede=12.bogus.test +edns
 ; ^NOERROR .*2$ ; 1servfail=.1ede=13.bogus.test +edns | 1refused=.1ede=6.bogus.test +edns
10: it is marked too when the better one refused or failed ; @2 ttl:10-30 ; 1servfail=.marked.test | 1refused=.marked.test | 1nodata=.1extra=.marked.test
10: an answer that won because the better one said no is not marked ; @2 ttl:300-300 ; 1nxdomain=.marked.test | 1nodata=.marked.test
14: localhost is this host ; ^NOERROR qr aa .* 60 A 127[.]0[.]0[.]1$ ; localhost
 ; ^NOERROR .* AAAA (::1|0:0:0:0:0:0:0:1)$ ; a.b.localhost AAAA
14: invalid and onion do not exist, resolver.arpa has nothing ; ^NXDOMAIN .*an=0 ; x.invalid | abcdef.onion AAAA +edns
 ; ^NOERROR .*an=0 ns=0 ; _dns.resolver.arpa SVCB | localhost TXT
 ; ^NOERROR .*1$ ; onion.test
 ; saw 0 ' (localhost|a\.b\.localhost|x\.invalid|abcdef\.onion|_dns\.resolver\.arpa)\. ' u1 u2 u3
2: NXDOMAIN, SERVFAIL, REFUSED, FORMERR, NOTIMP are no success
 ; each 'says 2 1$it.r.test' nxdomain= servfail= refused= formerr= notimp= rcode=9
2: any answer with Extended DNS Error 15, 16 or 17 is a success
 ; each 'says "^NXDOMAIN .* ede=$it" 1nxdomain=.1ede=$it.e.test +edns' 15 16 17
 ; each 'says "^NOERROR qr[^|]*$" 1nodata=.1ede=$it.e.test' 15 16 17
2: with another Extended DNS Error it is not ; each 'says 2 1nxdomain=.1ede=$it.e.test' 14 18 3
2: a final upstream's NXDOMAIN and NODATA are successes ; proxy p "$u1 1 final" "$u2 2" 'patience 1500' 'timeout 3000'
 ; ^NXDOMAIN ; 1nxdomain=.f.test
 ; ^NOERROR .* an=0 ; 1nodata=.f.test
 ; @2 ; 1servfail=.f.test
 ; @^NXDOMAIN ms:0-1000 ; 1nxdomain=.2silent=.f.test
2: among upstreams that share a priority the first success is sent ; proxy p "$u1 5" "$u2 5" "$u3 6" 'patience 1500' 'timeout 3000'
 ; @2 ms:0-900 ; 1silent=.shared.test
 ; @1 ms:0-900 ; 2silent=.shared.test
5: with nothing at all it is SERVFAIL with an Extended DNS Error, at once when all have failed ; proxy p "$dead 1" 'timeout 3000'
 ; @'^SERVFAIL qr rd ra .* ede=(22|23)( |$)' ms:0-1500 ; nothing.test +edns
5: with nothing at all it is SERVFAIL at timeout when they are silent ; proxy p "$u1 1" "$u2 2" 'timeout 700'
 ; @'^SERVFAIL qr rd ra .* ede=(22|23)( |$)' ms:650-2000 ; silent=.n.test +edns
9: identical questions in flight, over UDP and TCP, share one upstream query ; proxy p "$u1 1" 'timeout 3000'
 ; asks delay=300.learnt.test          # it will be patient
 ; meanwhile tcp many n=20 window=20 name=delay=500.shared.test tcp=4
 ; good 200 window=200 name=delay=500.shared.test vary
 ; ended tcp 'noerror 20 .* wrong 0'
 ; same 1 "$(pairs u1 ' delay=500\.shared')" "queries at the upstream"
domain: names at or below the suffix are asked of its upstreams alone
 ; proxy p "$u1 1" "$u2 2 domain=corp.test domain=168.192.in-addr.arpa" "$u3 3 domain=Deep.Corp.TEST." "$u4 4 domain=corp.test" 'timeout 1500' 'patience 300'
 ; forget u1 u2 u3 u4
 ; each 'says ^NOERROR $it' corp.test a.corp.test A.b.CORP.test 1.1.168.192.in-addr.arpa
 ; @2 ; www.corp.test
 ; saw 0 ' id=' u1
 ; saw 4-99 corp u2 u4
 ; saw 0 '168\.192' u4
domain: the longest suffix wins ; @3 ; x.deep.corp.test | deep.corp.test
 ; saw 0 deep u2 u4
domain: other names are asked of the others alone, and a suffix ends at a dot
 ; costs 0 ' id=' u2 each 'says 1 $it' test www.test notcorp.test corp.test.example 1.169.192.in-addr.arpa
domain: nothing leaks when its upstreams fail ; ^NXDOMAIN ; nxdomain=.corp.test
 ; ^SERVFAIL ; silent=.corp.test | bad=loop.corp.test
 ; saw 0 '=[a-z]*\.corp\.test\.' u1
domain: a name that no upstream applies to is answered at once, with an error ; proxy p "$u2 2 domain=corp.test" 'timeout 1500'
 ; @'^(SERVFAIL|REFUSED) ' ms:0-1000 ; other.test +edns
 ; ^NOERROR ; x.corp.test
END
}

# When upstreams fail: paragraphs 6, 7 and 10. What else befalls connections: tls_life.sh.
leg_failing() {
    ups u1 u2 u3
    proxy p "$u1 1" "$u2 2" 'patience 400' 'timeout 1000'
    replies <<'END'
6: an upstream that left fewer than 3 queries in a row unanswered is not down ; rules u1 '. silent'
 ; many n=2 window=2 name=two%d.test >/dev/null
 ; sleep 1.2            # the life of these queries: nothing tells the end of it but the clock
 ; same up "$(upstream "$u1" state)"
6: one that left 3 in a row unanswered is down, and nobody waits for it (2: a success is sent at once) ; asks three.test
 ; becomes 4 "$u1" down
 ; each 'says 2 ms:0-350 nowait$it.test' 1 2 3 4 5
3: with no success a 'no' is sent when all that are not down have answered: not at timeout
 ; @^NXDOMAIN ms:0-700 ; 2nxdomain=.no.test
6: one that is down is asked at most once a second, here 2.5 s, each query up to 3 times
 ; costs 1-8 ' id=' u1 many n=250 rate=100 name=once%d.test window=50
 ; within 1 4 "$(pairs u1 ' id=')" "queries in 2.5 s"
6: the log says once that it is down ; saw 1 "$u1.*down" p
6: its first valid answer brings it back ; revive u1
 ; @1 ; isback.test
6: the log says once that it is back ; same 1 "$(grep -v down "$T/p.log" | grep -c "$u1.*\(up\|back\|again\)")" lines
6: one that answers A and drops AAAA is down for AAAA alone, until it answers one
 ; proxy p "$u1 1" "$u2 2" 'patience 300' 'timeout 700' 'cache-size 0'
 ; each 'ask 1silent=.six$it.test AAAA >/dev/null && says 1 four$it.test' 1 2 3
 ; comes p "$u1 udp is down for AAAA: "
 ; @'^NOERROR .*AAAA' ms:0-250 ; 1silent=.six4.test AAAA
 ; @1 ; four4.test
 ; same up "$(upstream "$u1" state)" state
 ; each 'sleep 1.1 && ask six5$it.test AAAA >/dev/null' 1 2      # asked once a second
 ; comes p "$u1 udp is up again for AAAA"
6: one that is silent is down after 3 queries for the same name too
 ; proxy p "$u1 1" "$u2 2" 'patience 400' 'timeout 1500' 'cache-size 0'
 ; rules u1 '. silent'
 ; asks samename.test samename.test samename.test samename.test
 ; becomes 3 "$u1" down
 ; @2 ms:0-380 ; samename.test
 ; rules u1
6: when all are down, all are asked ; rules u2 '. silent'
 ; down u1
 ; becomes 4 "$u2" down
 ; costs 5-15 ' id=' 'u1 u2' many n=5 window=5 name=allasked%d.test timeout=3000
 ; rules u2
 ; @2 ; comesback.test
 ; rules u1
6: an answer after the reply but within timeout still counts: a slow upstream is not down
 ; proxy p "$u1 1" "$u2 2" 'patience 100' 'timeout 2000'
 ; many n=6 window=6 name=1delay=600.slow%d.test >/dev/null
 ; await 3 is 6 upstream "$u1" answered || fail "u1 answered $(upstream "$u1" answered), wanted 6"
 ; same up "$(upstream "$u1" state)"
6: a better answer that comes late replaces what the cache kept ; @2 ; 1delay=500.late.test
 ; await 3 hears '192\.0\.2\.1$' 1delay=500.late.test
 ; @1 ttl:31-300 ; 1delay=500.late.test
 ; saw 1 'late\.test' u1
6: a late answer that is not better replaces nothing ; asks 2delay=300.1=.notbetter.test 1delay=400.1nxdomain=.notbetter.test
 ; sleep 0.5            # u1's late answer comes in this time
 ; @1 ; 2delay=300.1=.notbetter.test
 ; @2 ; 1delay=400.1nxdomain=.notbetter.test
6: a query that no client waits for is the first to make room ; proxy p "$u1 1" "$u2 2" 'patience 50' 'timeout 2500' 'queries 16'
 ; underway first u2 first0 many n=1 name=1delay=1200.2delay=1200.first%d.test          # the oldest, and someone waits for it
 ; good 48 window=1 name=2delay=1500.room%d.test            # u1 answers each at once, u2 keeps it open
 ; within 30 100 "$(metric full)" "times that one made room"
 ; ended first 'noerror 1 '
10: an answer that won while a better upstream was silent is sent with TTLs of at most 30 s
 ; proxy p "$u1 1" "$u2 2" 'patience 200' 'timeout 1000'
 ; rules u1 '. silent'
 ; @2 ttl:1-30 ; mark.test | mark.test
 ; saw 1 mark u2 && left 1-30 mark
10: and the cache drops it as soon as that upstream answers anything again ; sleep 1.1    # what is asked now is new
 ; rules u1
 ; @1 ; other.test | mark.test
10: likewise while it is down ; down u1
 ; @2 ttl:1-30 ; mark2.test
 ; revive u1
 ; @1 ; mark2.test
10: a 'no' that won while a better one is down has TTLs of at most 30 s too ; down u1
 ; ^NXDOMAIN .* ([12]?[0-9]|30) SOA ; 2nxdomain=.2soa=300,300.marked.test
7: one refused datagram of an upstream that comes back at once marks nobody down
 ; rules u1
 ; proxy p "$u3 1" "$u2 2" 'patience 300' 'timeout 1000'
 ; @3 ; well.test
 ; kill_pid u3
 ; ^NOERROR ; refusedonce.test
 ; up u3 on="${u3#*@}"
 ; @3 ; wellagain.test
 ; same up "$(upstream "$u3" state)"
7: a reset or closed TCP connection is a failure at once ; proxy p "$u1 1 tcp" "$u2 2" 'patience 2000' 'timeout 3000'
 ; each 'says 2 ms:0-1000 1$it=.c.test' reset close
7: tcp upstreams are asked over TCP only, on a connection that is kept ; await 5 answers_with 192.0.2.1
 ; costs 50-99 ' tcp .* id=' u1 many n=50 window=10 name=kept%d.test
 ; saw 0 ' udp ' u1
 ; saw 0-2 '^open' u1
a tcp upstream that sends a byte every 1000 or 300 ms delays others by no more than patience, and is dropped within timeout
 ; proxy p "$u1 1 tcp" "$u2 2" 'patience 300' 'timeout 1500'
 ; forget u1
 ; each 'says 2 ms:0-1400 "1dribble=${it#*:}.slow.test" && comes u1 ^end "${it%:*}"' 1:1000 2:300
7: a truncated answer never wins, and is never kept ; proxy p "$u1 1" "$u2 2" 'patience 400' 'timeout 1500'
 ; @2 ; 1tcrec=.1muted=99.t.test | 1tcrec=.1reset=.t.test
 ; each 'says ^SERVFAIL 1tcrec=.1reset=.2servfail=.t$it.test' 1 2 3
6: that leaves an upstream up, for what fits a datagram ; becomes 0 "$u1" up
 ; @2 ms:0-390 ; 1tcrec=.1muted=99.1delay=50.u.test
7: TC=1 is asked again over TCP at once, and that answer taken ; @1 ms:0-390 ; 1tcrec=.2silent=.u.test
 ; saw 1 ' tcp .* 1tcrec=\.2silent=\.u\.test\.' u1
7: a malformed answer never wins, and is never kept ; each 'says 2 1bad=$it.m.test' loop rdlen ancount cutrr label40
 ; each 'says ^SERVFAIL 1bad=$it.2bad=$it.m.test' loop rdlen ancount cutrr label40
 ; ^SERVFAIL ; 1tcrec=2.2bad=loop.m.test
 ; shows 0 'entry.*2bad'
kill -9 of any upstream at any time leaves no query unanswered when another has the answer, over UDP and TCP
 ; proxy q "$u3 1 tcp" "$u2 2 tcp" 'patience 300' 'timeout 2000' 'cache-size 0'
 ; meanwhile tcp many n=4400 rate=400 window=2000 name=delay=20.kill%d.tcp.test
 ; proxy p "$u3 1" "$u2 2" 'patience 300' 'timeout 2000' 'cache-size 0'
 ; underway udp u3 'kill50\.udp' many n=4400 rate=400 window=2000 name=delay=20.kill%d.udp.test
 ; each away u3:.13 u2:.13 u3:.57 u2:.57
 ; each 'ended $it "sent 4400 answered 4400 noerror 4400 .* wrong 0 dup 0 "' udp tcp
an upstream that is down when the question comes and back before a 'no' is sent is asked, and has the answer ; stop q
 ; proxy p "$u3 1" "$u2 2" 'timeout 9000'
 ; kill_pid u3
 ; asks dead1.test dead2.test dead3.test dead4.test
 ; becomes 5 "$u3" down
 ; asks due.test
 ; underway back u2 ' 2delay=4000' ask 2delay=4000.2nxdomain=.back.test +timeout=9500
 ; saw 0 ' 2delay=4000' u3
 ; up u3 on="${u3#*@}"
 ; await 3 returns "$u3" || fail "it does not come back"
 ; ended back '^NOERROR .*192[.]0[.]2[.]3$'
END
}
# for each upstream: it is killed, and away for so long
away() {
    away_u=${it%:*} away_a=$(at "${it%:*}")
    kill_pid "$away_u"
    sleep "${it#*:}"
    up "$away_u" on="${away_a#*@}"
    for away_p in p q; do use $away_p; becomes 5 "$away_a" up; done
}

# Paragraphs 11 and 12, rebind-protect, networks that come later. Public addresses are in a network namespace of the test's own.
leg_network() {
    promise "AD, private names, networks that come and go: a network of its own for public addresses"
    netns || return
    for x in 203.0.113.53 203.0.113.54 10.9.8.7 172.16.0.1 172.31.255.254 192.168.7.7 169.254.1.1 100.64.0.1 172.32.0.1 11.0.0.1; do ns ip addr add $x/32 dev lo; done
    for x in 2001:db8::53 fd12::1 fd12::2 fe80::7; do ns ip addr add $x/128 dev lo nodad; done
    up u1 addr=203.0.113.53
    up u2 addr=10.9.8.7
    port=$(freeport) z='0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0'
    replies <<'END'
allow: by default loopback, private and link-local clients are served, others are REFUSED
 ; proxy p "$u1 1" "listen *@$port" 'timeout 1500'
 ; each 'says ^NOERROR allowed.test +src=$it' 127.0.0.9 10.9.8.7 172.16.0.1 172.31.255.254 192.168.7.7 169.254.1.1
 ; each 'says ^NOERROR allowed.test +server=::1 +src=$it' fd12::1 ::1
 ; each 'says ^REFUSED allowed.test +src=$it' 203.0.113.53 100.64.0.1 172.32.0.1 11.0.0.1
 ; ^REFUSED ; allowed.test +server=::1 +src=2001:db8::53
a reply leaves from the address that was asked, on a host with several addresses of both families, a hit too
 ; await 5 hears '^NOERROR' ready.test +server=fd12::2 +timeout=300 || fail "nothing from fd12::2"
 ; each 'leaves_from && leaves_from' fd12::2,fd12::1 fd12::1,fd12::2 ::1,fd12::2 10.9.8.7,192.168.7.7 192.168.7.7,127.0.0.1
11: AD of a plain upstream that is not loopback is not passed on ; !^NOERROR[a-z ]* ad ; ad=.one.test +ad | ad=.two.test +do
12: private names go to a public upstream when there is no private one ; @1 ; printer.lan
12: one label, .local, .internal, .lan, .test and home.arpa are asked of private upstreams only
 ; proxy p "$u1 1" "$u2 2" 'timeout 1500'
 ; costs 0 ' id=' u1 each 'says 2 $it' printer nas.local NAS.Local a.b.internal internal x.lan x.test router.home.arpa home.arpa
12: and so are the reverse zones of RFC 6303 and 7793 ; each ptr 64.100 1.2.64.100 1.127.100 1.0.0.10 16.172 4.3.16.172 4.3.31.172
 ; each ptr 1.1.168.192 1.1.254.169 1.0.0.127 1.2.0.192 1.100.51.198 1.113.0.203 255.255.255.255 0.0.0
 ; each 'ptr ip6' 1.0.$z 0.0.$z 1.0.${z%.0.0}.d.f a.b.c.8.e.f 1.9.e.f a.e.f b.e.f 1.8.b.d.0.1.0.0.2
 ; saw 0 ' id=' u1
12: names beside these zones are asked of all
 ; costs 5-40 ' id=' u1 each 'ask $it.in-addr.arpa PTR' 4.3.15.172 4.3.32.172 172 63.100 128.100
 ; costs 4-40 ' id=' u1 each 'ask $it.arpa PTR' 1.016x.172.in-addr 1.1.1.1.in-addr 1.167.192.in-addr 1.9.0.0.2.ip6
 ; costs 4-40 ' id=' u1 each 'ask $it.example' local mylocal lan homearpa
12: DS, DNSKEY, NS and SOA of one label, and DS of a private zone, are no private questions
 ; costs 8-60 ' id=' u1 each 'ask $it' 'com DS' 'com DNSKEY' 'com NS' 'com SOA' 'lan DS' 'home.arpa DS' '10.in-addr.arpa DS' '16.172.in-addr.arpa DS'
 ; costs 0 ' id=' u1 each 'ask $it' 'com A' 'x.lan DS' 'x.lan SOA' 'home.arpa SOA' '1.16.172.in-addr.arpa DS'
12: the private upstream alone decides: its no is the answer ; ^NXDOMAIN ; 2nxdomain=.lan
12: a matching domain= comes before this ; proxy p "$u1 1 domain=lan" "$u2 2" 'timeout 1500'
 ; @1 ; x.lan
 ; @2 ; x.local
rebind-protect: an answer of a public upstream with a private address fails, over TCP and after aliases too: SERVFAIL, EDE 17
 ; up u3 addr=203.0.113.54
 ; proxy p "$u1 1" 'rebind-protect on' 'timeout 1500' "$u3 2 domain=inside.test"
 ; each 'rules u1 ". $it" && says "^SERVFAIL .*ede=17" "r$(date +%N).test" +edns' a=10.0.0.1 'cname=2 a=10.0.0.1' 'tc a=10.0.0.1'
rebind-protect: public addresses pass
 ; each 'rules u1 ". a=$it" && says "^NOERROR .* A $it" "r$it.test"' 11.0.0.1 172.32.0.1 192.169.0.1 9.9.9.9 100.64.0.1
 ; ^NOERROR .*2001:db8::1 ; six.test AAAA
rebind-protect: the upstream is not down for it, and the log tells the name ; becomes 0 "$u1" up
 ; comes p 'upstream 203\.0\.113\.53.* r[0-9]*\.test\. has a private address'
rebind-protect: an upstream with a domain= that matches is believed ; rules u3 '. a=10.0.0.9'
 ; ^NOERROR .* A 10\.0\.0\.9 ; a.inside.test
rebind-protect: a better answer of another upstream is taken, and a private upstream is believed ; rules u1 '. a=10.0.0.1'
 ; rules u3
 ; proxy p "$u1 1" "$u3 2" 'rebind-protect on'
 ; @3 ; other.test
 ; rules u2 '. a=10.0.0.3'
 ; proxy p "$u2 1" 'rebind-protect on'
 ; ^NOERROR .* A 10\.0\.0\.3 ; private.test
IPv6 upstreams work as IPv4 ones do ; up u4 addr=2001:db8::53
 ; proxy p "$u4 1" 'timeout 1500'
 ; @4 ; six.test
 ; shows '^upstream \[?2001:db8::53\]?@'
with no route to an upstream, and an interface that does not exist, the others answer without a wait
 ; up u3
 ; proxy p "10.77.0.2@5300 1" "fe80::5%later0 2" "$u3 3" "listen 127.0.0.1@$port" "listen 10.77.0.1@$port" 'patience 300' 'timeout 1500'
 ; @3 ; first.test
 ; @3 ms:0-280 ; noroute1.test | noroute2.test | noroute3.test | noroute4.test | noroute5.test
the log does not repeat it ; saw 0-6 '10\.77\.0\.2|later0' p
an address to listen on that comes later is served within two seconds, with one log line or none before ; saw 0-2 '10\.77\.0\.1' p
 ; ns ip addr add 10.77.0.1/32 dev lo
 ; await 3 hears '^NOERROR' late.test +server=10.77.0.1 +timeout=300 || fail "UDP: $(ask late.test +server=10.77.0.1 +timeout=300)"
 ; ^NOERROR ; late.test +server=10.77.0.1 +tcp
an interface to listen on may come late, and go and come again under another number, at a port of root's too
 ; proxy q "$u3 1" 'listen 127.0.0.1@5301' 'listen fe80::1%new0@99'
 ; each anew 1 2
 ; use p
an upstream that comes later is used ; ns ip addr add 10.77.0.2/32 dev lo
 ; up u2 addr=10.77.0.2 on=5300
 ; await 5 answers_with 192.0.2.2 || fail "it is not used"
an address that goes away and a network that goes down are no reason to exit ; each 'ns ip addr del 10.77.0.$it/32 dev lo' 1 2
 ; @3 ; away.test
 ; ns ip link set lo down
 ; sleep 0.5
 ; ns ip link set lo up
 ; await 3 hears '^NOERROR' back.test +timeout=400 || fail "no answer after the network came back"
 ; lives p
7: a question on a connection that nothing acknowledges fails as soon as no other is to be had ; ns ip addr add 10.77.0.2/32 dev lo
 ; proxy p "$u2 1 tcp"
 ; @2 ; before.test
 ; ns ip addr del 10.77.0.2/32 dev lo
 ; @^SERVFAIL ms:0-3500 ; behind.test
with no network at all a query is answered SERVFAIL, soon, and the program stays
 ; proxy p '192.0.2.53 1' '2001:db8::99 2' 'timeout 1500'
 ; @'^SERVFAIL .* ede=2[23]' ms:0-1400 ; nonet.test +edns
END
}
anew() {
    ns ip link add new0 type veth peer name new1
    for x in new0 new1; do ns ip link set $x up; done
    ns ip addr add fe80::1/64 dev new0 nodad
    port=99
    await 5 hears '^NOERROR' "anew$it.test" +server=fe80::1%new0 +timeout=300 || fail "UDP, $it: $(ask "anew$it.test" +server=fe80::1%new0 +timeout=300)"
    says '^NOERROR' "anew$it.test" +server=fe80::1%new0 +tcp
    ns ip link del new0
}
# for each: the reverse name is answered;  the reply to a client is from the address that it asked
ptr() { says '^NOERROR.* PTR ' "$it.${1:-in-addr}.arpa" PTR; }
leaves_from() { says '^NOERROR' "from$it.test" +server="${it%,*}" +src="${it#*,}"; }     # whose socket hears only that address
