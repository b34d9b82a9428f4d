# logs.sh - what is logged, and what is not.
# Alone: ./test.sh logs

leg_logs() {
    ups u1 u2
    proxy p "$u1 1" "$u2 2" 'timeout 1500' 'patience 300'
    replies <<'END'
at log info nothing is said of single queries ; n=$(seen p .)
 ; good 50 name=quiet%d.test
 ; . ; quiet0.test
 ; saw "$n" . p
-d logs every query with client, name, type and ID, and miss or hit ; proxy p -d "$u1 1" "$u2 2" 'timeout 1500' 'patience 300'
 ; . ; seen.test MX +id=4660 +src=127.0.0.5
 ; out=$(grep seen "$T/p.log")
 ; each 'like "$it" "$out"' 'seen\.test\.? MX' '127\.0\.0\.5' '4660|1234' miss
 ; unlike hit "$out"
 ; . ; seen.test MX
 ; like hit "$(grep 'seen\.test' "$T/p.log" | tail -n 1)"
and each upstream's answer with RCODE and ms, and who won and why ; . ; 1servfail=.why.test
 ; comes p "$u2"
 ; each 'like "$it" "$(grep why "$T/p.log")"' "$u1.* id [1-9].*SERVFAIL.* ms" "$u2.*NOERROR|NOERROR.*$u2" 'won|wins|chosen'
names are escaped in the log ; . ; 'bad\010dnsproxy\027[0m.test'
 ; comes p 'bad\\010dnsproxy\\027'
 ; same 0 "$(tr '\t' ' ' <"$T/p.log" | grep -c '[^ -~]')" "lines with other than printable ASCII"
log error says nothing of the start ; proxy p "$u1 1" 'log error'
 ; same '' "$(cat "$T/p.log")"
SIGUSR1 logs the status ; proxy p "$u1 1"
 ; . ; usr1.test
 ; kill -USR1 "$(pid p)"
 ; each 'comes p "$it"' 'queries 1 .*misses 1' "upstream $u1 udp priority 1"
a burst of the same warning, or of an upstream that comes and goes, is limited ; proxy p "$u1 1" 'timeout 1500'
 ; n=$(seen p .)
 ; many n=300 window=100 name=bad=loop.burst%d.test timeout=2500 >/dev/null
 ; many n=300 window=100 name=servfail=.burst%d.test >/dev/null
 ; each 'asks bad=header.servfail=.f$it.test bad=header.servfail=.g$it.test bad=header.servfail=.h$it.test up$it.test' $(seq 40)
 ; within 0 40 "$(($(seen p .) - n))" "lines after 720 failures"
 ; stop p
END
    mkfifo "$T/fifo"
    exec 9<>"$T/fifo"           # blocked: nobody reads there
    begin screen script -qc "tty >$T/tty; exec sleep 1000" /dev/null        # stopped: a terminal that shows nothing any more
    ! await 5 test -s "$T/tty" || kill -STOP "$(pid screen)"
    mkfifo "$T/left"
    : <"$T/left" &
    exec 8>"$T/left"            # broken: who read there has left
    wait $!
    for how in 'closed <&- >&- 2>&-' 'broken 2>&8' 'full 2>/dev/full' "blocked 2>$T/fifo 9>&-" "stopped 2>$(cat "$T/tty" 2>/dev/null)"; do
        promise "a standard error that is ${how%% *} never blocks the service: 20,000 queries at log debug"
        [ "$how" != 'stopped 2>' ] || { skip 'not here: script(1) has no terminal'; continue; }
        after "exec ${how#* }" p "$u1 1" 'log debug'
        good 200 window=50 "name=${how%% *}%d.test"
        [ -s "$why" ] || good 20000 window=50 "name=${how%% *}%d.test"
        shows '^dnsproxy '
    done
    exec 8>&- 9>&-
    promise "log LEVEL syslog goes to /dev/log, with severities"
    shim SYSLOG || return
    listener syslogd "$T/shim.log"         # where the shim sends what is for /dev/log
    shimmed p "$u1 1" 'log debug syslog'
    asks syslogged.test
    comes syslogd '^<31>dnsproxy\[[0-9]*\]: .*syslogged\.test'
    comes syslogd '^<30>dnsproxy\['
    saw 0 syslogged p
    promise "a syslogd that does not read, or is gone, holds nothing up; a new one is found"
    kill -STOP "$(pid syslogd)"
    good 300 window=20 name=unread%d.test
    kill_pid syslogd
    good 100 window=20 name=gone%d.test
    listener syslogd "$T/shim.log"
    asks again.test
    comes syslogd 'again\.test'
}
