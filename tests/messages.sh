# messages.sh - what of a message goes where: questions, EDNS, TTLs, malformed messages.
# Alone: ./test.sh messages

# What is FORMERR is promised in full in unit.c, and what gets no answer in limits.sh
leg_messages() {
    up u1 'flags.test aa'
    proxy p "$u1 1"
    l=$(printf '%063d' 0)
    replies <<'END'
FORMERR: TC=1 in a query, if it is not dropped ; ^FORMERR qr |^TIMEOUT ; a.test +tc +timeout=300
a name of 255 octets works, one of 256 is FORMERR, a label of 63 octets works ; ^NOERROR ; $l.$l.$l.$(printf '%061d' 0)
 ; ^FORMERR ; $l.$l.$l.$(printf '%062d' 0)
an unknown opcode is NOTIMP with that opcode, goes nowhere, and leaves the cache as it is, NOTIFY and UPDATE too ; . ; op.test
 ; costs 0 ' id=' u1 each 'says "^NOTIMP qr .*opcode=$it id=77 " op.test +opcode=$it +id=77' $(seq 15)
 ; shows '^entry op\.test\. A '
AXFR and IXFR are NOTIMP, and go nowhere
 ; costs 0 ' id=' u1 each 'says "^NOTIMP qr " xfr.test $it' AXFR IXFR 'AXFR +tcp' 'IXFR +tcp'
RD=0 is REFUSED, also for what the cache holds ; . ; seen.test
 ; ^REFUSED qr (ra )?id= ; seen.test +nord | seen.test +nord +tcp
a reply has QR=1, RA=1, RD and question as asked, Z clear, AA clear from the cache ; ^NOERROR qr (aa )?rd ra id=4242 q=FlAgS\.test\./A qd=1 ; FlAgS.test +id=4242
 ; ^NOERROR qr rd ra id= ; FlAgS.test +z | z.test +z
all sections of an answer are passed on ;  an=1 ns=1 .*\| au: test\. 300 NS ns\.evil\. \| ad: victim\.test\. 300 A 6\.6\.6\.6$ ; extra=.all.test
an upstream that changes letters of the question is understood, the client gets its own ; ^NOERROR.* q=BaD=letters\.UP\.test\. ; BaD=letters.UP.test
 ; ^NOERROR ; bad=letters.UP.test | bad=letters.letters.test
an upstream is sent an OPT of size 1232 always, and no option of the client ; proxy p "$u1 1"
 ; . ; plain.test | opts.test +edns=4096 +opt=8:000118007f0000 +opt=10:0011223344556677 +opt=12:0000 +opt=3: +opt=11: +opt=65001:aabb
 ; saw 2-9 '(plain|opts)\.test\. .* edns=1232$' u1
DO and CD are passed on, and are in the reply if they were in the query ; ^NOERROR qr rd ra cd ; cd.test +cd
 ;  edns=[0-9]+ do ; o3.test +do
 ; ! do ; o3.test +edns
 ; each 'saw 1-9 "$it" u1' ' o3\.test\. A rd .* edns=1232 do$' ' cd\.test\. A rd cd .* edns=1232$'
options of the upstream never reach the client ; !opts= ; opt=10:0011223344556677.o5.test +edns +opt=10:0011223344556677
 ; !opts=12 ; opt=12:0000.o6.test +edns
Extended DNS Errors do reach it, if it sent an OPT ;  ede=22( |$) ; ede=22.nodata=.o7.test +edns
 ; ! ede= ; ede=22.nodata=.o8.test
edns-tcp-keepalive of a client is harmless: over UDP it is ignored, over TCP too or answered in kind ; !opts= ; ka.test +opt=11:
 ; ^NOERROR .* edns=1232( opts=11:[0-9a-f]{4})? ms= ; ka.test +opt=11: +tcp
 ; ^(FORMERR|NOERROR) ; ka.test +opt=11:001122 +tcp
EDNS version 1 is BADVERS, and goes nowhere ; ^BADVERS qr .* ar=1 .* edns=[0-9]+ ms= ; v.test +ver=1
 ; saw 0 ' v\.test' u1
two OPTs are FORMERR ; ^FORMERR ; v.test +edns +twoopt=1
without OPT a UDP reply has at most 512 bytes: TC=1 with the question only ; ^NOERROR qr tc rd ra .* qd=1 an=0 ns=0 ar=0 ; big=524.s.test TXT
 ; ^NOERROR qr rd ra .* an=1 .* size=(50[0-9]|51[0-2]) ; big=512.s.test TXT
with OPT at most the client's size, which counts as 512 below that, and at most 1232
 ; ^NOERROR qr tc .* an=0 ns=0 ar=1 ; big=600.s.test TXT +edns=100 | big=800.s.test TXT +edns=700 | big=1300.s.test TXT +edns=4096
 ; ^NOERROR qr rd ra .* an=1 ; big=600.s.test TXT +edns=700 | big=400.s.test TXT +edns=100
 ; ^NOERROR qr rd ra .* an=1 .* size=12[0-3][0-9] ; big=1232.s.test TXT +edns=4096
what does not fit loses its additional records, then those of the authority, and is whole for all that ; ^NOERROR qr rd ra .* an=1 ns=1 ar=0 ; extra=.big=480.s.test TXT
 ; ^NOERROR qr rd ra .* an=1 ns=0 ar=0 ; extra=.big=500.s.test TXT
 ; ^NOERROR qr tc rd ra .* an=1 ns=0 ar=1 ; extra=.big=500.s.test TXT +edns=512 +do
TC=1 has the whole records that fit ; ^NOERROR qr tc rd ra .* an=2[0-9] ns=0 ar=0 size=(49|50|51) ; n=40.whole.test
 ; ^NOERROR qr rd ra .* an=40 ns=0 ar=1 ; n=40.whole.test +edns
a reply to a query with OPT has one, whatever is wrong with the query ; ^NOTIMP .*ar=1 .* edns= ; a.test +opcode=5 +edns
 ; ^FORMERR .*qd=1 .*ar=1 .* edns= ; a.test +edns +trail=00
 ; ^FORMERR .*qd=0 .*ar=1 .* edns= ; +raw=0007010000000000000000010000290400000000000000
QTYPE 0 is forwarded ; ^NOERROR .*/TYPE0 ; nodata=.zero.test TYPE0
a message of 65,535 bytes from the upstream is delivered over TCP, or SERVFAIL if it cannot be, never more than fits ; ^(NOERROR|SERVFAIL) qr rd ra ; big=65535.s.test TXT +tcp +edns
AD reaches only who set AD or DO, and is never set by the proxy itself ; ^NOERROR[a-z ]* ad ; ad=.a2.test +ad | ad=.a3.test +do
 ; !^NOERROR[a-z ]* ad ; ad=.a1.test | ad=.a2.test | a4.test +ad
 ; ^NOERROR[a-z ]* ad ; ad=.a1.test +ad
END
}
