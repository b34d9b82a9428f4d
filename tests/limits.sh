# limits.sh - hostile clients and upstreams, fixed memory, confinement, crowds, limits of single clients.
# Alone: ./test.sh hostile

spent() { within 0 "$1" "$(($(cpu_ms p) - $2))" "ms of CPU"; }
# copies N TEXT: so many of it
copies() { awk -v n="$1" -v t="$2" 'BEGIN { while (n--) printf "%s", t }'; }

leg_hostile() {
    ups u1 u2
    set -- p "$u1 1" "$u2 2 tcp" 'patience 100' 'timeout 300' 'cache-size 256k' 'queries 2048'
    if shim COUNT; then shimmed "$@"; else proxy "$@"; fi
    asks warm.test
    fds=$(fd_count p) calls=$([ ! -e "$T/shim" ] || shim_count)
    replies flood <<'END'
1,000 packets with QR=1: silence, and nothing goes to an upstream
 ; await 10 is 0 count inflight || fail "queries are still open: $(count inflight)"     # they may be sent again
 ; got 0( |$) ; n=1000 name=flood%d.test +qr
 ; costs 0 flood u1 flood n=200 name=flood%d.test +qr tcp
20,000 mutated messages, 3,000 over TCP, and as many answers: no FORMERR has more than header, question and OPT, all is answered once
 ; odd 0( |$) ; n=20000 kind=mutate seed=2 | n=3000 kind=mutate seed=6 tcp
 ; each 'rules u$it ". bad=1$it"' 1 2
 ; like ' answered 20000 .* dup 0 bad 0 ' "$(many n=20000 window=1000 name=m%d.mutated.test)"
 ; like ' answered 500 ' "$(many n=500 window=100 name=t%d.mutated.test tcp=5)"
 ; each 'rules $it' u1 u2
descriptors are as before all this ; await 35 fds_within p $((fds + 8)) || fail "descriptors: $fds before, $(fd_count p) now"
a UDP datagram of 4,096 or 60,000 bytes is FORMERR ; each 'says ^FORMERR huge.test +trail="$(copies $it 41)"' 512 513 4096 60000
a query with 16,000 empty options over TCP costs little ; a=$(cpu_ms p)
 ; ask +tcp +raw="00070100000100000000000101610000010001000029040000000000fa00$(copies 16000 00630000)" +timeout=1000 >/dev/null
 ; spent 100 "$a"
100 answers with 4,000 records relayed cost less than 2 s of CPU ; a=$(cpu_ms p)
 ; good 100 window=5 tcp=1 name=big=64000.r%d.test
 ; [ -n "$WRAP" ] || spent 2000 "$a"
a query from source port 0 is dropped: nothing goes to an upstream ; n=$(metric dropped)
 ; ! ask zero.test +zero +timeout=1 | grep -q permitted || skip "not here: no raw sockets"
 ; await 2 is $((n + 1)) metric dropped || fail "it is not counted as dropped"
 ; saw 0 ' zero\.test\.' u1
nothing that clients, upstreams or admin lines send makes it allocate memory
 ; [ -n "$calls" ] || skip "not here: nothing can come between this program and its C library"
 ; rules u1 '. delay=300 reset'
 ; rules u2 '. close'
 ; many n=200 window=50 name=c%d.test >/dev/null
 ; each 'adm "$it" >/dev/null' help status top 'query a.test' 'clear a.test' clear 'log info' nonsense
 ; each 'scrape "$it" >/dev/null' localhost 127.0.0.1 '[::1]' evil.example
 ; each 'rules $it' u1 u2
 ; lives p
 ; within 1 100000 "$calls" "calls at the start"
 ; same "$calls" "$(shim_count)" "calls of malloc, calloc and realloc"
END
    replies <<'END'
allow: others are REFUSED, with no more bytes than they sent, and nothing goes to an upstream, TCP likewise
 ; proxy p "$u1 1" 'allow 127.0.0.1' 'allow 127.0.0.64/26 ::1'
 ; ^REFUSED qr .* an=0 ns=0 ar=0 size=26 ; out.test +src=127.0.0.2 | out.test +src=127.0.0.63
 ; ^REFUSED qr .* size=37 ; out.test +src=127.0.0.2 +edns
 ; ^(REFUSED qr|CLOSED) ; out.test +src=127.0.0.2 +tcp | out.test +src=127.0.0.2 +tcp +trail="$(printf '%06000d' 0)"
 ; saw 0 ' out\.test\.' u1
 ; within 3 5 "$(count refused)" "refused in status"
allow: what is listed is served ; ^NOERROR ; in.test | in.test +src=127.0.0.64 | in.test +src=127.0.0.127
allow: a refused client does not learn what the cache holds ; ^REFUSED .* an=0 ; in.test +src=127.0.0.2
a build without the filter says so, one with it has it ; [ "$(uname)" = Linux ] && plain || skip "not here: not a plain program on Linux"
 ; proxy p "$u1 1"
 ; await 5 filter_known || fail "neither: $(grep Seccomp "/proc/$(pid p)/status")"
a system call that the loop does not need kills it: what breaks in cannot start another program ; shim BREAK_IN
 ; shimmed p "$u1 1"
 ; filtered || skip "not here: $(grep -E 'no (filter|pledge)' "$T/p.log" || echo no filter and not a word about it)"
 ; asks x.test
 ; adm status >/dev/null               # tells the time of the entry
 ; await 5 gone "$(pid p)" || fail "it goes on"
 ; wait "$(pid p)" && fail "it ends well" || same 159 $? "exit status: 128 and SIGSYS"
 ; kill_pid p
the wall clock may jump from 1970 to today and back: entries keep the time they have left, queries and patience too ; shim CLOCK
 ; clock 100
 ; shimmed p "$u1 1" "$u2 2" 'patience 500' 'timeout 2000'
 ; asks ttl=300.jump.test
 ; shows '^entry ttl=300\.jump\.test\. A IN expires 1970-01-01T00:0[56]:'
 ; each jumps 1900000000 50 1800000000
 ; saw 1 jump u1
 ; shows '^entry ttl=300\.jump\.test\. A IN expires 2027-01-15T'
1,000 idle TCP clients, 200 more in the middle of a message and 50 silent admin clients: UDP as without them
 ; rules u1 'warm.test ttl=900'
 ; proxy p "$u1 1" 'tcp-clients 1000' 'timeout 2000'
 ; asks warm.test
 ; before=$(val p50_us "$(many n=2000 window=1 name=warm.test)")
 ; hold hold1 "$port" 800
 ; hold hold2 "$port" 200 +raw=00200007
 ; hold hold3 "$admin" 50
 ; good 2000 window=1 name=warm.test
 ; within 0 $((before * 4 + 300)) "$(val p50_us "$out")" "median in us, without them $before"
 ; ^NOERROR ; warm.test +tcp
 ; shows '^dnsproxy '
 ; each 'kill_pid $it' hold1 hold2 hold3
with nothing in flight the process makes no system call ; proc_here && [ -z "$WRAP" ] || skip "not here: it does not run by itself"
 ; await 8 is 0 count tcp || fail "clients: $(count tcp)"
 ; sleep 2              # until the last timer of the clients that left
 ; a=$(grep ctxt "/proc/$(pid p)/status")
 ; sleep 3
 ; same "$a" "$(grep ctxt "/proc/$(pid p)/status")" "context switches in 3 s"
a client that half-closes and stays costs no CPU ; a=$(cpu_ms p)
 ; meanwhile half1 talk bytes fin pause=2500
 ; meanwhile half2 ask delay=1500.half.test +tcp +timeout=3000
 ; meanwhile half3 talk q=delay=1500.half2.test send fin replies=1
 ; each 'ended $it' half1 half2 half3
 ; spent 250 "$a"
a client that never reads: beside 2,000 pipelined queries for 60,000 bytes each others are served
 ; proxy p "$u1 1" "$u2 2 domain=others.test" 'tcp-clients 1000' 'timeout 2000'         # u1 has enough to do
 ; meanwhile noread talk rcvbuf=4096 q=2000:big=60000.flood%d.test/TXT send pause=4000
 ; good 200 rate=100 window=10 name=%d.others.test src=127.0.0.3
 ; within 0 500 "$(($(val p50_us "$out") / 1000))" "ms, the median of others"
 ; ended noread
 ; lives p
10,000 cached questions in one write with a stack of 256 KB are all answered ; limited '-s 256' p "$u1 1"
 ; asks warm.test
 ; like '^replies 10000 noerror 10000 ' "$(talk q=10000:warm.test send count=10000,15000)"
with 32 descriptors and 250 silent clients 100 of 100 UDP queries are answered, without a spin, and TCP again when they left
 ; limited '-n 32' p "$u1 1"
 ; hold hold "$port" 200
 ; hold hold2 "$admin" 50
 ; good 100 in:1000 window=10 name=few%d.test
 ; a=$(cpu_ms p)
 ; sleep 1.5
 ; spent 200 "$a"
 ; shows '^dnsproxy '
 ; each 'kill_pid $it' hold hold2
 ; await 6 hears '^NOERROR' tcpback.test +tcp +timeout=500 || fail "TCP does not come back"
 ; saw 1 descriptors p          # it is said once
a client that asks 5,000 unanswerable names a second does not cost another its 50
 ; rules u1 'nobody.test silent' 'quiet.test delay=50'
 ; proxy p "$u1 1" 'queries 200' 'timeout 3000'
 ; underway flood u1 nobody many n=15000 rate=5000 window=60000 src=127.0.0.2 name=n%d.nobody.test timeout=200
 ; out=$(many n=125 rate=50 window=200 src=127.0.0.3 name=n%d.quiet.test timeout=3000)
 ; within 124 125 "$(val noerror "$out")" "of 125 answered ($out)"
 ; within 0 700 "$(($(val p99_us "$out") / 1000))" "99th percentile, ms"
 ; ended flood 'dup 0'
the oldest query of the client that holds the most is answered SERVFAIL
 ; within 10000 15000 "$(val servfail "$out")" "SERVFAIL to the flooding one"
who joins a question when all places are taken costs one other, not two ; proxy p "$u1 1" 'queries 2'
 ; each 'underway $it u1 " delay=900\.$it" ask "delay=900.$it.test"' one two
 ; ^NOERROR ; delay=900.one.test +src=127.0.0.2
 ; ended two '^NOERROR'
rate: who asks ten times too much gets what is due, of the rest half nothing, half an empty TC=1 ; rules u1 'warm.test ttl=900'
 ; proxy p "$u1 1" 'rate 20'
 ; ask warm.test +tcp >/dev/null
 ; out=$(many n=600 rate=200 window=1000 name=warm.test src=127.0.0.2 timeout=500)
 ; within 200 290 "$(val tc "$out")" "empty ones with TC=1"
 ; within 300 390 "$(val answered "$out")" "answered at all, full ones at 20 a second and a burst of 20 ($out)"
 ; like ' wrong 0 ' "$out"
rate: TCP still serves it, and other clients do not notice ; ^NOERROR qr rd ra  ; warm.test +src=127.0.0.2 +tcp
 ; like ' noerror 15 .* tc 0 ' "$(many n=15 window=15 name=warm.test src=127.0.0.3)"
rate: status counts what was limited ; within 490 540 "$(count limited)"
a listening socket that somebody else ends costs no CPU ; ss -KHl "sport = :$port" 2>/dev/null | grep -q tcp || skip 'not here: ss -K ends nothing'
 ; a=$(cpu_ms p)
 ; sleep 1
 ; spent 100 "$a"
 ; ^NOERROR ; warm.test +src=127.0.0.3
END
}

# for each time: the clock shows it while a query waits
jumps() {
    underway wait u1 "x$it" ask 1delay=200.2silent=.x$it.test
    clock "$it"
    ended wait '^NOERROR.* 192\.0\.2\.1$'
    says 1 ttl:290-300 ttl=300.jump.test
}
filtered() { grep -q '^Seccomp:	2$' "/proc/$(pid p)/status" 2>/dev/null; }
filter_known() { filtered || sees p 'no filter of system calls'; }
