# logs.sh - what is logged, and what is not.
# Alone: ./test.sh logs

leg_logs() {
    ups u1 u2
    proxy p "$u1 1" "$u2 2" 'timeout 1500' 'patience 300'
    promise "at log info nothing is said of single queries"
    n=$(wc -l <"$T/p.log")
    many n=50 name=quiet%d.test >/dev/null
    ask quiet0.test >/dev/null
    same "$n" "$(wc -l <"$T/p.log")" "lines"
    unlike 'quiet' "$(cat "$T/p.log")"
    promise "-d logs every query with client, name, type and ID, and miss or hit"
    proxy p -d "$u1 1" "$u2 2" 'timeout 1500' 'patience 300'
    ask seen.test MX +id=4660 +src=127.0.0.5 >/dev/null
    out=$(grep seen "$T/p.log")
    for x in 'seen\.test\.? MX' '127\.0\.0\.5' '4660|1234' miss; do like "$x" "$out"; done
    unlike 'hit' "$out"
    ask seen.test MX >/dev/null
    like 'hit' "$(grep 'seen\.test' "$T/p.log" | tail -n 1)"
    promise "and each upstream's answer with RCODE and ms, and who won and why"
    ask 1servfail=.why.test >/dev/null
    await 2 logged p "$u2" || fail "nothing of $u2"
    for x in "$u1.*SERVFAIL.* ms|SERVFAIL.*$u1" "$u2.*NOERROR|NOERROR.*$u2" 'won|wins|chosen'; do like "$x" "$(grep why "$T/p.log")"; done
    promise "names are escaped in the log"
    ask 'bad\010dnsproxy\027[0m.test' >/dev/null
    like 'bad\\010dnsproxy\\027' "$(cat "$T/p.log")"
    same 0 "$(LC_ALL=C tr '\t' ' ' <"$T/p.log" | LC_ALL=C grep -c '[^ -~]')" "lines with other than printable ASCII"
    promise "log error says nothing of the start"
    proxy p "$u1 1" 'log error'
    same '' "$(cat "$T/p.log")"
    promise "SIGUSR1 logs the status"
    proxy p "$u1 1"
    ask usr1.test >/dev/null
    kill -USR1 "$(pid p)"
    await 3 logged p 'queries 1 .*misses 1' || fail "no status"
    await 3 logged p "upstream $u1 udp priority 1" || fail "no upstream line"
    promise "a burst of the same warning is limited"
    proxy p "$u1 1" 'timeout 1500'
    n=$(wc -l <"$T/p.log")
    many n=300 window=100 name=bad=loop.burst%d.test timeout=2500 >/dev/null
    many n=300 window=100 name=servfail=.burst%d.test >/dev/null
    within 0 40 "$(($(wc -l <"$T/p.log") - n))" "lines after 600 failures"
    stop p
    for how in closed full blocked; do
        promise "a standard error that is $how never blocks the service: 20,000 queries at log debug"
        port=$(freeport) admin=$(freeport)
        set -- "$u1 1" 'log debug' "listen 127.0.0.1@$port" "admin 127.0.0.1@$admin"
        case $how in
        closed) $WRAP "$BIN" "$@" <&- >&- 2>&- & ;;
        full) $WRAP "$BIN" "$@" </dev/null >/dev/null 2>/dev/full & ;;
        blocked)
            mkfifo "$T/fifo"
            exec 9<>"$T/fifo"
            $WRAP "$BIN" "$@" </dev/null >/dev/null 2>&9 9>&- &
            ;;
        esac
        : >"$T/p.log"
        ready p $!
        like 'noerror 20000 .* wrong 0' "$(many n=20000 window=50 "name=$how%d.test")"
        like '^dnsproxy ' "$(adm status)"
        stop p
        [ $how != blocked ] || exec 9>&-
    done
    promise "log LEVEL syslog goes to /dev/log, with severities"
    if shim SYSLOG; then
        syslogd
        shimmed p "$u1 1" 'log debug syslog'
        ask syslogged.test >/dev/null
        await 3 logged syslogd ' <31>dnsproxy\[[0-9]*\]: .*syslogged\.test' || fail "debug: $(cat "$T/syslogd.log")"
        like ' <30>dnsproxy\[' "$(cat "$T/syslogd.log")" "info"
        unlike 'syslogged' "$(cat "$T/p.log")" "standard error"
        promise "a syslogd that does not read, or is gone, holds nothing up; a new one is found"
        kill -STOP "$(pid syslogd)"
        like 'noerror 300 ' "$(many n=300 window=20 name=unread%d.test)"
        kill_pid syslogd
        like 'noerror 100 ' "$(many n=100 window=20 name=gone%d.test)"
        syslogd
        ask again.test >/dev/null
        await 3 logged syslogd 'again\.test' || fail "not found again"
    fi
}
# syslogd: listens where the shim sends what is for /dev/log
syslogd() {
    rm -f "$T/shim.log"
    "$ROOT/peer" notify "$T/shim.log" >"$T/syslogd.log" 2>&1 &
    started syslogd $!
    await 5 logged syslogd ready || fail "no socket"
}
