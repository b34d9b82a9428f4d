# shellcheck shell=sh disable=SC2034,SC2154
# messages.sh - what of a message goes where: questions, EDNS, TTLs, malformed messages.
# Alone: ./test.sh messages edns

LEGS="$LEGS messages edns"

# ---- Messages

leg_messages() {
    up u1
    proxy p "$u1 1"
    promise "a datagram of less than 12 bytes is dropped"
    for n in 00 0007 00070100000100000000000a; do like '^TIMEOUT' "$(ask +raw="${n%00000a}" +timeout=150)" "$n"; done
    promise "a message with QR=1 is dropped"
    like '^TIMEOUT' "$(ask a.test +qr +timeout=200)"
    like '^(TIMEOUT|CLOSED)' "$(ask a.test +qr +tcp +timeout=200)" "TCP"
    promise "QDCOUNT 0 or 2 is FORMERR"
    like '^FORMERR qr ' "$(ask a.test +qd=0)" "QDCOUNT 0"
    like '^FORMERR qr ' "$(ask a.test +qd=2)" "QDCOUNT 2"
    promise "what cannot be parsed is FORMERR"
    like '^FORMERR qr ' "$(ask +raw=000701000001000000000000016100ff)" "question cut off"
    like '^FORMERR qr ' "$(ask +raw=000701000001000000000000c00c00010001)" "a pointer to itself"
    like '^FORMERR qr ' "$(ask +raw=000701000001000000000000c00200010001)" "a pointer into the header"
    like '^FORMERR qr ' "$(ask +raw=000701000001000000000000c0ff00010001)" "a pointer past the end"
    like '^FORMERR qr ' "$(ask +raw=000701000001000000000000c01200010001000161)" "a pointer forwards"
    like '^FORMERR qr ' "$(ask +raw=000701000001000100000000016100010001c015c0130001000100000000000401020304)" "two pointers at each other"
    like '^FORMERR qr ' "$(ask +raw="0007010000010000000000010161000001000116$(awk 'BEGIN { printf "%022d", 0; for (i = 0; i < 200; i++) printf "c0%02x", 20 + 2 * i }')")" "a chain of pointers"
    like '^FORMERR qr ' "$(ask +raw=0007010000010001000000000161000001000100002904d000000000000000)" "OPT in the answer section"
    like '^FORMERR qr |^TIMEOUT' "$(ask a.test +tc +timeout=300)" "TC=1 in a query"
    like '^FORMERR qr ' "$(ask +raw=00070100000100000000000041610000010001)" "label type 0x40"
    like '^FORMERR qr ' "$(ask +raw=00070100000100000000000081610000010001)" "label type 0x80"
    like '^FORMERR qr ' "$(ask a.test +edns +ar=1)" "ARCOUNT 2 with one record"
    like '^FORMERR qr ' "$(ask a.test +an=65535)" "ANCOUNT 65535 with none"
    promise "a name of 255 octets works, one of 256 is FORMERR, a label of 63 octets works"
    l=$(printf '%063d' 0)
    like '^NOERROR' "$(ask "$l.$l.$l.$(printf '%061d' 0)")" "255"
    like '^FORMERR' "$(ask "$l.$l.$l.$(printf '%062d' 0)")" "256"
    promise "an unknown opcode is NOTIMP with that opcode, and goes nowhere"
    forget u1
    for o in 1 2 4 5 6 15; do like "^NOTIMP qr .*opcode=$o id=77 " "$(ask op.test +opcode=$o +id=77)" "opcode $o"; done
    same 0 "$(asked u1)" "seen by the upstream"
    promise "NOTIFY and UPDATE leave the cache as it is"
    ask kept.test >/dev/null
    for o in 4 5; do ask kept.test SOA +opcode=$o >/dev/null; done
    like '^entry kept\.test\. A ' "$(adm status)"
    forget u1
    promise "AXFR and IXFR are NOTIMP, and go nowhere"
    for t in AXFR IXFR; do
        like '^NOTIMP qr ' "$(ask xfr.test $t)" "$t"
        like '^NOTIMP qr ' "$(ask xfr.test $t +tcp)" "$t, TCP"
    done
    same 0 "$(asked u1)" "seen by the upstream"
    promise "RD=0 is REFUSED, also for what the cache holds"
    ask seen.test >/dev/null
    like '^REFUSED qr' "$(ask seen.test +nord)"
    unlike ' rd ' "$(ask seen.test +nord)"
    like '^REFUSED qr' "$(ask seen.test +nord +tcp)" TCP
    promise "a reply has QR=1, RA=1, RD and question as asked, Z clear, AA clear from the cache"
    rules u1 '. aa'
    like '^NOERROR qr (aa )?rd ra id=4242 q=FlAgS\.test\./A qd=1 ' "$(ask FlAgS.test +id=4242)"
    unlike '(WRONG|MALFORMED)' "$(ask FlAgS.test +z)"
    like '^NOERROR qr rd ra id=' "$(ask FlAgS.test)" "from the cache"
    rules u1
    promise "flags Z, AD, CD and unknown EDNS flags in a query do not matter"
    like '^NOERROR qr rd ra( cd)? ' "$(ask z1.test +z +cd)"
    like '^NOERROR qr rd ra ' "$(ask z2.test +ad)"
    promise "unknown types are carried bytewise, from the cache too"
    for t in TYPE65280 TYPE12345 HTTPS SVCB; do
        one=$(ask rdlen=300.b.test $t) two=$(ask rdlen=300.b.test $t)
        like "^NOERROR .*$t \\\\# 300 [0-9a-f]{80}\+260 hash=[0-9a-f]{8}\$" "$one" "$t"
        same "${one##*|}" "${two##*|}" "$t from the cache"
    done
    promise "the names in MX, SOA, NS, SRV and CNAME data survive"
    like ' MX 10 mx\.n\.test\.$' "$(ask n.test MX)"
    like ' NS ns\.n\.test\.$' "$(ask n.test NS)"
    like ' SRV 1 2 443 srv\.target\.test\.$' "$(ask n.test SRV)"
    like ' SOA n\.test\. host\.n\.test\. 1 2 3 4 60$' "$(ask n.test SOA)"
    like ' CNAME c0\.cname=2\.n\.test\. .* c1\.cname=2\.n\.test\. 300 A 192\.0\.2\.1$' "$(ask cname=2.n.test)"
    promise "all sections of an answer are passed on"
    like ' an=1 ns=1 .*\| au: test\. 300 NS ns\.evil\. \| ad: victim\.test\. 300 A 6\.6\.6\.6$' "$(ask extra=.all.test)"
    promise "a name of 256 octets by way of a pointer is malformed, an OPT in the answer section never reaches a client"
    l=$(printf '%063d' 0)
    like '^SERVFAIL' "$(ask "bad=name256.$l.$l.$l.test" +timeout=7000)" "name"
    like '^(SERVFAIL .* ar=1 |NOERROR .* an=1 .* ar=1 )' "$(ask bad=optan.o.test +edns +timeout=7000)" "OPT"
    promise "the reply to a name in mixed letters has the client's letters, hit or miss"
    unlike WRONG "$(ask MiXeD.test)"
    unlike WRONG "$(ask mIxEd.TEST)"
    like ' \| mIxEd\.TEST\. ' "$(ask mIxEd.TEST)" "owner names that point at the question"
    promise "an upstream that lower-cases the question is understood, the client gets its own letters"
    like '^NOERROR.* q=LowEr=\.UP\.test\.' "$(ask LowEr=.UP.test)"
    out=$(ask lower=.UP.test)
    like '^NOERROR' "$out"
    unlike WRONG "$out"
    promise "a name may hold any octet"
    like '^NOERROR.* q=a\\\.b\.o\.test\./A' "$(ask 'a\.b.o.test')"
    like '^NOERROR.* q=a\\000b\.o\.test\./A' "$(ask 'a\000b.o.test')"
    like '^NOERROR.* q=\\255\\007"\.o\.test\./A' "$(ask '\255\007\".o.test')"
    promise "bytes behind the message are not passed on"
    forget u1
    ask trail.test +trail=4141414141414141414141414141414141414141 >/dev/null
    same 0 "$(asked u1 'odd=')" "odd messages at the upstream"
    promise "class CH is a question of its own"
    like '^NOERROR.* q=version\.bind\./TXT/CH' "$(ask version.bind TXT +class=CH)"
    stop p
}

leg_edns() {
    up u1
    proxy p "$u1 1"
    promise "an upstream is sent an OPT of size 1232 always, and no option of the client"
    ask plain.test >/dev/null
    ask opts.test +edns=4096 +opt=8:000118007f0000 +opt=10:0011223344556677 +opt=12:0000 +opt=3: +opt=11: +opt=65001:aabb >/dev/null
    same 2 "$(asked u1 'edns=1232$')" "queries with OPT 1232 and nothing else: $(cat "$T/u1.q")"
    promise "DO is passed on, and CD"
    ask do.test +do >/dev/null
    ask cd.test +cd >/dev/null
    like ' do\.test\. A rd .* edns=1232 do$' "$(cat "$T/u1.q")"
    like ' cd\.test\. A rd cd .* edns=1232$' "$(cat "$T/u1.q")"
    like '^NOERROR qr rd ra cd ' "$(ask cd2.test +cd)" "CD in the reply"
    promise "a reply has an OPT only if the query had one, and then exactly one"
    unlike ' edns=' "$(ask o1.test)"
    like ' ar=1 .* edns=[0-9]+ ' "$(ask o1.test +edns)" "from the cache"
    like ' ar=1 .* edns=[0-9]+ ' "$(ask o2.test +edns)"
    unlike ' edns=' "$(ask o2.test)" "from the cache"
    like ' edns=[0-9]+ do ' "$(ask o3.test +do)" "DO in the reply"
    unlike ' do ' "$(ask o3.test +edns)" "no DO without being asked"
    like ' edns=' "$(ask noopt=.o4.test +edns)" "when the upstream sends none"
    promise "options of the upstream never reach the client"
    unlike 'opts=' "$(ask opt=10:0011223344556677.o5.test +edns +opt=10:0011223344556677)"
    unlike 'opts=12' "$(ask opt=12:0000.o6.test +edns)"
    promise "Extended DNS Errors do reach it, if it sent an OPT"
    like ' ede=22( |$)' "$(ask ede=22.nodata=.o7.test +edns)"
    unlike ' ede=' "$(ask ede=22.nodata=.o8.test)"
    promise "an OPT in the middle of the additional section is replaced like any other"
    out=$(ask optmid=.o9.test)
    like '\| ad: glue\.test\. 300 A 1\.2\.3\.4' "$out"
    unlike ' edns=' "$out"
    out=$(ask optmid=.oa.test +edns)
    like ' ar=2 .* edns=[0-9]+ .*\| ad: glue\.test\. 300 A 1\.2\.3\.4' "$out"
    unlike 'MALFORMED|too-many' "$out"
    promise "edns-tcp-keepalive of a client is harmless: over UDP it is ignored, over TCP too or answered in kind"
    unlike 'opts=' "$(ask ka.test +opt=11:)" UDP
    like '^NOERROR .* edns=1232( opts=11:[0-9a-f]{4})? ms=' "$(ask ka.test +opt=11: +tcp)" TCP
    like '^(FORMERR|NOERROR) ' "$(ask ka.test +opt=11:001122 +tcp)" "of a wrong length"
    promise "an RCODE above 15 of an upstream reaches clients with OPT; without one it is SERVFAIL, not its low bits"
    like '^RCODE23 ' "$(ask rcode=23.x1.test +edns)"
    like '^SERVFAIL ' "$(ask rcode=23.x2.test)"
    like '^SERVFAIL ' "$(ask rcode=16.x3.test)"
    promise "EDNS version 1 is BADVERS, and goes nowhere"
    forget u1
    like '^BADVERS qr .* ar=1 .* edns=[0-9]+' "$(ask v.test +ver=1)"
    unlike ' ver=' "$(ask v.test +ver=1)"
    same 0 "$(asked u1)" "seen by the upstream"
    promise "two OPTs are FORMERR"
    like '^FORMERR' "$(ask v.test +edns +twoopt=1)"
    promise "options past their RDLENGTH, an OPT with a name: FORMERR or dropped"
    like '^(FORMERR|TIMEOUT)' "$(ask +raw=000701000001000000000001016100000100010000290400000000000004000a00ff +timeout=300)" "option past the end"
    like '^(FORMERR|TIMEOUT)' "$(ask +raw=0007010000010000000000010161000001000101620000290400000000000000 +timeout=300)" "OPT with a name"
    promise "without OPT a UDP reply has at most 512 bytes: TC=1 with the question only"
    like '^NOERROR qr tc rd ra .* qd=1 an=0 ns=0 ar=0 ' "$(ask big=524.s.test TXT)"
    like '^NOERROR qr rd ra .* an=1 .* size=(50[0-9]|51[0-2]) ' "$(ask big=512.s.test TXT)"
    promise "with OPT at most the client's size, which counts as 512 below that, and at most 1232"
    like '^NOERROR qr tc .* an=0 ns=0 ar=1 ' "$(ask big=600.s.test TXT +edns=100)" "size 100"
    like '^NOERROR qr rd ra .* an=1 ' "$(ask big=600.s.test TXT +edns=700)" "600 bytes, size 700"
    like '^NOERROR qr tc .* an=0 ns=0 ar=1 ' "$(ask big=800.s.test TXT +edns=700)" "800 bytes, size 700"
    like '^NOERROR qr rd ra .* an=1 .* size=12[0-3][0-9] ' "$(ask big=1232.s.test TXT +edns=4096)" "1232 bytes, size 4096"
    like '^NOERROR qr tc .* an=0 ns=0 ar=1 ' "$(ask big=1300.s.test TXT +edns=4096)" "1300 bytes, size 4096"
    promise "TC=1 is asked again over TCP, and the client gets the whole there"
    like '^NOERROR qr rd ra .* an=1 .* size=(12[89][0-9]|1300) ' "$(ask big=1300.s.test TXT +tcp)"
    promise "a message of 65,535 bytes from the upstream is delivered over TCP, or SERVFAIL if it cannot be, never more than fits"
    out=$(ask big=65535.s.test TXT +tcp +edns)
    like '^(NOERROR|SERVFAIL) qr rd ra ' "$out"
    unlike 'MALFORMED|TIMEOUT' "$out"
    promise "AD reaches only a client that set AD or DO"
    unlike '^NOERROR.* ad ' "$(ask ad=.a1.test)"
    like '^NOERROR.* ad ' "$(ask ad=.a2.test +ad)"
    like '^NOERROR.* ad ' "$(ask ad=.a3.test +do)"
    unlike '^NOERROR.* ad ' "$(ask ad=.a2.test)" "from the cache, not asked"
    like '^NOERROR.* ad ' "$(ask ad=.a1.test +ad)" "from the cache, asked"
    promise "AD is never set by the proxy itself"
    unlike '^NOERROR.* ad ' "$(ask a4.test +ad)"
    stop p
}
