# reload.sh - SIGHUP and reload, and what a supervisor is told.
# Alone: ./test.sh reload

# conf LINE...: writes the configuration file of the proxy r
conf() {
    printf '%s\n' "$@" >"$T/.conf"
    chmod 644 "$T/.conf"
    mv "$T/.conf" "$T/r.conf"
}

# reload LINE...: the same, and the program takes it
reload() {
    conf "$@"
    same Reloaded "$(adm reload)"
}

leg_reload() {
    ups u1 u2
    conf "$u1 1" 'timeout 2000'
    proxy r -c "$T/r.conf"
    replies <<'END'
SIGHUP reads the configuration again: upstreams ; @1 ; before.test
 ; many n=9 name=nine%d.test >/dev/null
 ; conf "$u1 2" "$u2 1" 'timeout 2000'
 ; kill -HUP "$(pid r)"
 ; await 3 is 2 upstream "$u1" priority || fail "no sign of u2: $(adm status)"
 ; @2 ; after.test
the cache survives ; @1 ; before.test
reload does the same and says Reloaded, and statistics of unchanged lines are kept ; n=$(upstream "$u2" answered)
 ; reload "$u2 1" 'timeout 2000'
 ; shows "^upstream $u2 .* answered $n "
 ; shows 0 "^upstream $u1 "
 ; @2 ; gone.test
queries in flight survive, and TCP connections ; underway fly u2 fly29 many n=30 window=30 name=delay=600.fly%d.test
 ; underway tcp u2 ' t1\.test' talk q=t1.test send replies=1 pause=700 q=t2.test send replies=1
 ; reload "$u2 1" "$u1 2" 'timeout 2000'
 ; ended fly 'noerror 30 '
 ; ended tcp
 ; same 2 "$(grep -c '^NOERROR' "$T/tcp.out")" replies
and those whose upstream went are answered by others
 ; underway fly u1 went9 many n=10 window=10 name=2silent=.2=.1delay=800.went%d.test
 ; reload "$u1 2" 'timeout 2000'
 ; ended fly 'noerror 10 '
allow, rate, times and the log level change ; reload "$u1 2" 'timeout 700' 'allow 127.0.0.1' 'rate 1000' 'log debug'
 ; ^REFUSED ; r.test +src=127.0.0.2
 ; @. ms:500-1700 ; silent=.r.test
 ; comes r 'silent=\.r\.test'
a bad file changes nothing, and every error is logged, and sent back to reload ; conf "$u2 1" nonsense 'timeout soon'
 ; out=$(adm reload)
 ; each 'like "r\.conf:$it: " "$out"' 2 3
 ; unlike Reloaded "$out"
 ; each 'comes r "r\.conf:$it: "' 2 3
 ; seq -f 'wrong%g nonsense' 2000 >"$T/r.conf"
 ; same 2000 "$(adm reload | grep -c 'is unknown')" "of 2,000 errors"
 ; saw 2000 'wrong.*is unknown' r
 ; rm "$T/r.conf"
 ; like '^error: |r\.conf' "$(adm reload)" "a file that is gone"
 ; @1 ; still.test
reload names what only a restart changes, and nothing when nothing changed
 ; conf "$u1 1" 'queries 99' 'tcp-clients 9' 'cache-size 2m' 'user root' 'timeout 1000'
 ; like '^Reloaded.* cache-size queries tcp-clients user$' "$(adm reload)"
 ; reload "$u1 1" 'timeout 2000'
an answer that another upstream gave is asked for again when the line of the best one goes, and waited for ; up u3
 ; reload "$u1 1" "$u2 2" "$u3 3" 'timeout 3000' 'patience 2000'
 ; underway again u3 again ask 1silent=.3delay=700.again.test
 ; reload "$u1 1" "$u3 3" 'timeout 3000' 'patience 200'
 ; ended again ' A 192\.0\.2\.3$'
 ; within 0 1500 "$(ms_of "$out")" "ms under the new patience"
reloads under 500 queries a second, the upstreams changing each time, lose nothing ; reload "$u1 1" 'timeout 2000'
 ; meanwhile load many n=2500 rate=500 window=2500 name=delay=15.load%d.test
 ; each another_reload $(seq 50)
 ; ended load 'sent 2500 answered 2500 .* wrong 0 dup 0 '
 ; within 2498 2500 "$(val noerror "$out")" "answered NOERROR"
200 more leave memory and descriptors as they were ; kb=$(rss_kb r) fds=$(fd_count r)
 ; each 'like ^Reloaded "$(adm reload)"' $(seq 200)
 ; ! plain || grew 300 "$kb" r
 ; within -9 2 "$(($(fd_count r) - fds))" "descriptors more"
 ; lives r
signals that come faster than they can be obeyed are one ; conf "$u1 1" "$(seq -f '# %g' 200000)"
 ; n=$(seen r reloaded) x=$(pid r)
 ; each 'env kill -HUP "$x"' $(seq 300)
 ; same Reloaded "$(adm reload)"
 ; within 2 120 $(($(seen r reloaded) - n)) reloads
one that comes during the start is obeyed behind it, and a pipe is read at the start only ; mkfifo "$T/pipe"
 ; begin h $WRAP "$BIN" -c "$T/pipe"
 ; signalled "$u1 1" "listen 127.0.0.1@$(freeport)" 'admin off' >"$T/pipe"
 ; comes h '^serving on'
 ; comes h 'pipe: cannot be read: not a file'
READY=1 once the ports answer, and nothing before it ; conf "$u1 1"
 ; notified "$T/notify" WATCHDOG_USEC=1000000
 ; comes sd READY=1
 ; like READY=1 "$(sed -n 2p "$T/sd.log")"
 ; ^NOERROR ; ready.test
WATCHDOG=1 at half of WATCHDOG_USEC ; sleep 2.2
 ; saw 3-6 'WATCHDOG=1' sd
RELOADING=1, with the MONOTONIC_USEC that Type=notify-reload wants, and READY=1 around a reload ; adm reload >/dev/null
 ; await 3 is 2 seen sd '(^|[ ])READY=1' || fail "no READY after it"
 ; comes sd 'RELOADING=1.*MONOTONIC_USEC=[0-9]+'
STOPPING=1 at the end ; stop r
 ; comes sd STOPPING=1
a watchdog of two hours is one too, one that is meant for another process is not ; notified "$T/notify" WATCHDOG_USEC=7200000000
 ; comes sd WATCHDOG=1
 ; notified "$T/notify" WATCHDOG_USEC=200000 WATCHDOG_PID=1
 ; comes sd READY=1
 ; asks other.test
 ; stop r
 ; saw 0 'WATCHDOG=1' sd
a NOTIFY_SOCKET that is not there harms nothing ; notified "$T/nosuch"
 ; ^NOERROR ; nosocket.test
END
}
signalled() { kill -HUP "$(pid h)" && printf '%s\n' "$@"; }      # to who reads a pipe
another_reload() {
    case $((it % 4)) in 0) conf "$u1 1" 'timeout 2000' ;; 2) conf "$u2 3" 'timeout 2000' ;; *) conf "$u2 1" "$u1 2" 'timeout 2000' ;; esac
    like '^Reloaded' "$(adm reload)"
    sleep 0.09
}
# listener NAME SOCKET: logs the datagrams that come there
listener() {
    rm -f "$2"
    begin "$1" "$ROOT/peer" notify "$2"
    comes "$1" ready
}
# notified SOCKET [VARIABLE...]: the program r, which tells its supervisor there how it is; that starts to listen anew
notified() {
    [ ! -s "$T/r.pid" ] || stop r
    listener sd "$T/notify"
    after "export NOTIFY_SOCKET=$*" r -c "$T/r.conf"
}
