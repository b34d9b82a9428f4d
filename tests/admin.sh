# admin.sh - the admin port: commands, status, metrics; the supervisor; query and top.
# Alone: ./test.sh admin metrics supervisor seeing

# to_admin ERE WORD...: a scripted connection to the admin port; what comes of it, then in $out, matches
to_admin() {
    to_admin_e=$1
    shift
    out=$(peer talk 127.0.0.1 "$admin" "$@")
    like "$to_admin_e" "$out" "$*"
}

leg_admin() {
    ups u1 u2
    proxy p "$u2 7 tcp" "$u1 3" 'cache-size 200k'
    promise "status: the records, the fields and their order are those of the contract"
    asks st.test st.test
    out=$(adm status)
    n='[0-9]+'
    while IFS= read -r x; do like "^$x\$" "$(printf '%s\n' "$out" | head -n 1)"; out=$(printf '%s\n' "$out" | sed 1d); done <<END
dnsproxy [^ ]+ uptime $n queries $n hits $n misses $n stale $n refused $n limited $n failed $n inflight $n tcp $n
upstream $u1 udp priority 3 state (up|down) rtt_ms [0-9.]+ sent $n answered $n won $n failed $n( connects $n resumed $n)?
upstream $u2 tcp priority 7 state (up|down) rtt_ms [0-9.]+ sent $n answered $n won $n failed $n connects $n resumed $n
cache entries 1 bytes $n size $n inserted $n evicted $n
entry st\.test\. A IN expires 20[0-9-]{8}T[0-9:]{8}Z remaining (300|29[0-9]) upstream $u1
END
    same '' "$out" 'what follows'
    promise "status: queries are hits, misses and others; upstreams count sent, answered, won"
    same '2 1 1' "$(count queries) $(count hits) $(count misses)" 'queries, hits, misses'
    same '1 1 1' "$(upstream "$u1" sent) $(upstream "$u1" answered) $(upstream "$u1" won)" 'sent, answered, won'
    same 0 "$(upstream "$u2" won)" "won by the other"
    promise "a line may end with LF or CRLF, and the server closes"
    to_admin '^dnsproxy ' 'text=status\r\n' slurp=3000
    to_admin EOF 'text=status\r\n' end=3000
    promise "names in status are absolute and lower case, with \\. and \\DDD; hostile ones are escaped"
    asks 'MiX\.ed.TeSt' '\027[31m.test'
    ask 'new\010line\032x\255\000\".test' TYPE4711 >/dev/null
    out=$(adm status)
    for x in 'mix\\\.ed\.test\. A' 'new\\010line\\032x\\255\\000(\\")?"?\.test\. TYPE4711' '\\027(\[|\\091)31m\.test\. A'; do like "^entry $x IN " "$out"; done
    same 0 "$(printf '%s\n' "$out" | grep -c '[^ -~]')" "lines with other than printable ASCII"
    promise "clear NAME drops every type of NAME, without case, and nothing else"
    for x in A AAAA 'A +do'; do ask one.test $x >/dev/null; done
    same 'Cache cleared (3 entries)' "$(adm 'clear ONE.test')"
    same 'Cache cleared (0 entries)' "$(adm 'clear one.test.')"
    same 'Cache cleared (1 entries)' "$(adm 'clear mix\.ed.test')"
    like '^entry st\.test' "$(adm status)"
    promise "clear empties the cache"
    n=$(adm status | grep -c '^entry ')
    same "Cache cleared ($n entries)" "$(adm clear)"
    same 0 "$(cached entries)" entries
    promise "log LEVEL changes what is logged"
    same 'Log level debug' "$(adm 'log debug')"
    ask debugged.test >/dev/null
    await 2 logged p 'debugged\.test' || fail "nothing in the log"
    same 'Log level error' "$(adm 'log error')"
    same 'Log level info' "$(adm 'log info')"
    promise "only the first line of a connection is read"
    ask keep.test >/dev/null
    to_admin ^clear 'text=help\nclear\nclear\n' slurp=3000
    like '^entry keep\.test' "$(adm status)"
    promise "a line longer than 512 bytes ends the connection, at whatever pace it comes"
    to_admin '(EOF|RESET) ms=[0-9]{1,3} ' fill=600 send end=4000
    to_admin '(EOF|RESET) ms=[0-9]{1,4} ' fill=400 send pause=50 fill=200 send end=4000
    promise "10 MB without a newline, a TLS ClientHello, bytes that are 0: the connection ends, nothing runs, memory stays"
    a=$(rss_kb p)
    to_admin '(EOF|RESET) ms=[0-9]+ ' fill=10000000 send end=4000
    to_admin '(EOF|RESET) ms=[0-9]+ ' hex=160301020001 fill=600 send end=7000
    to_admin '(EOF|RESET) ms=[0-9]+ ' hex=0000000000636c6561720a send end=7000
    like '^entry keep\.test' "$(adm status)"
    ! plain || within -2000 100 "$(($(rss_kb p) - a))" "kB more"
    promise "an HTTP request other than GET /metrics is refused and runs nothing"
    for r in 'POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 7\r\n\r\nclear\r\n' 'GET /clear HTTP/1.0\r\n\r\n' 'POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\nclear\r\n' \
        'OPTIONS * HTTP/1.1\r\n\r\n' 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\nclear\r\n' 'PUT clear HTTP/1.1\r\n\r\n' 'GET clear\r\n'; do
        to_admin '' "text=$r" slurp=3000
        unlike 'Cache cleared|^dnsproxy |200 OK' "$out" "$r"
    done
    like '^entry keep\.test' "$(adm status)" "still in the cache"
    promise "/metrics wants a Host that is an IP address or localhost"
    for h in localhost 127.0.0.1 "127.0.0.1:$admin" '[::1]:5353' "localhost:$admin"; do
        to_admin '^HTTP/1\.[01] 200' "text=GET /metrics HTTP/1.1\r\nHost: $h\r\n\r\n" slurp=3000
    done
    for h in evil.example "127.0.0.1.evil.example" "localhost.evil.example:$admin" 'a' '1.2.3.4x'; do
        to_admin '^(HTTP/1\.[01] [345]|$)' "text=GET /metrics HTTP/1.1\r\nHost: $h\r\n\r\n" slurp=3000
    done
    promise "admin clients that stay silent are closed after 5 s, and do not keep others out"
    hold hold "$admin" 300
    like '^dnsproxy ' "$(adm status)" "status beside 300 silent ones"
    within 200 310 "$(metric full)" "times that a table made room, in the metrics"
    says '^NOERROR' beside.test
    await 9 logged hold 'open 0$' || fail "still $(tail -n 1 "$T/hold.log")"
    promise "a slow reader of a long status does not stop the service"
    many n=2000 window=100 name=long%d.test >/dev/null
    meanwhile slow peer talk 127.0.0.1 "$admin" rcvbuf=2048 'text=status\n' pause=1500 end=5000
    out=$(many n=200 window=10 name=meanwhile%d.test)
    like 'noerror 200 ' "$out"
    within 0 500 "$(val slowest_ms "$out")" "slowest ms"
    like '^dnsproxy ' "$(adm status)" "another admin client"
    ended slow
    promise "-a COMMAND is a client: reply to standard output, exit 0; 1 on error or without connection"
    exits 0 '^dnsproxy ' -a status "$u1 1" "admin 127.0.0.1@$admin"
    exits 1 'error: ' --admin nonsense "$u1 1" "admin 127.0.0.1@$admin"
    stop p
    exits 1 . -a status "$u1 1" "admin 127.0.0.1@$admin"
    promise "hostile bytes at the admin port harm nothing"
    proxy p "$u1 1"
    for s in 1 2 3; do peer flood 127.0.0.1 "$admin" tcp n=300 kind=random seed=$s >/dev/null; done
    for x in hex=00000a hex=737461747573000a 'text=clear \\300.test\n'; do peer talk 127.0.0.1 "$admin" "$x" send slurp=1000 >/dev/null; done
    like '^dnsproxy ' "$(adm status)"
    lives p "hostile bytes"
    promise "admin off: there is no admin port"
    proxy p "$u1 1" 'admin off'
    says '^NOERROR' off.test
}

# ---- GET /metrics

# metric NAME: the value of a counter without labels
metric() { metrics | sed -n "s/^dnsproxy_$1_total //p"; }
metrics() { peer talk 127.0.0.1 "$admin" 'text=GET /metrics HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\n\r\n' slurp=5000; }

# numbers LINE PREFIX LABEL KEY...: what differs between a line of status and the metrics dnsproxy_PREFIXKEY..., of LABEL if not empty
numbers() {
    numbers_l=$(grep "^$1 " "$T/status") numbers_p=$2 numbers_e=${3:+"{upstream=\"$3\".*}"}
    shift 3
    for numbers_k; do
        numbers_s=$(val "$numbers_k" "$numbers_l") numbers_m=$(sed -n "s/^dnsproxy_$numbers_p${numbers_k}[a-z_]*$numbers_e //p" "$T/metrics")
        [ "${numbers_s:-0}" = "$numbers_m" ] || echo "$numbers_p$numbers_k $numbers_e: $numbers_s in status, [$numbers_m] in metrics"
    done
}

# numbers_agree: status and /metrics, read one after the other, say the same; $T/differ tells what differs
numbers_agree() {
    metrics | tr -d '\r' | sed '1,/^$/d' >"$T/metrics"
    adm status >"$T/status"
    {
        numbers dnsproxy '' '' queries hits misses stale refused limited failed
        numbers cache cache_ '' entries bytes size inserted evicted
        for numbers_u in "$u1" "$u2"; do numbers "upstream $numbers_u" upstream_ "$numbers_u" sent answered won failed connects; done
    } >"$T/differ"
    [ ! -s "$T/differ" ]
}

leg_metrics() {
    ups u1 u2
    proxy p "$u1 1" "$u2 2 tcp"
    many n=40 window=4 name=m%d.test >/dev/null
    many n=40 window=4 name=m%d.test >/dev/null
    ask 1silent=.2silent=.t.test +timeout=300 >/dev/null
    promise "GET /metrics is an HTTP response with the type of the text format"
    metrics | tr -d '\r' >"$T/answer"
    like '^HTTP/1\.[01] 200 ' "$(sed -n 1p "$T/answer")"
    like '^[Cc]ontent-[Tt]ype: text/plain; version=0\.0\.4' "$(sed -n '1,/^$/p' "$T/answer")"
    sed '1,/^$/d' "$T/answer" >"$T/metrics"
    x=$(sed -n 's/^[Cc]ontent-[Ll]ength: //p' "$T/answer")
    [ -z "$x" ] || same "$x" "$(wc -c <"$T/metrics" | tr -d ' ')" "Content-Length"
    promise "every metric has HELP and TYPE, and a value that is a number"
    grep -v '^#' "$T/metrics" | sed 's/[{ ].*//; s/_\(bucket\|sum\|count\)$//' | sort -u >"$T/names"
    while read -r m; do
        grep -q "^# HELP $m\(_total\|_sum\|_count\)\{0,1\} ." "$T/metrics" || fail "$m has no HELP"
        grep -q "^# TYPE $m\(_total\|_sum\|_count\)\{0,1\} " "$T/metrics" || fail "$m has no TYPE"
    done <"$T/names"
    same 0 "$(grep -v '^#' "$T/metrics" | grep -Evc '^[a-z_]+(\{[^}]*\})? [0-9.e+-]+$')" "lines of another shape"
    promise "every counter of status is there, with its value: queries and their kinds, the cache's and each upstream's"
    await 5 numbers_agree || fail "$(cat "$T/differ")"
    same "1 1" "$(sed -n 's/^dnsproxy_upstream_up{.*} //p' "$T/metrics" | tr '\n' ' ' | sed 's/ $//')" "up"
    promise "a histogram counts what it should: clients' queries, an upstream's answers"
    same "$(val answered "$(grep "^upstream $u1 " "$T/status")")" "$(sed -n "s/^dnsproxy_upstream_seconds_count{upstream=\"$u1\".*} //p" "$T/metrics")" "of u1"
    within 80 81 "$(sed -n 's/^dnsproxy_query_seconds_count //p' "$T/metrics")" "of clients"
    promise "upstreams have labels, and histograms of their milliseconds, as clients have"
    for x in "$u1" "$u2"; do like "\"$x\"" "$(grep '{' "$T/metrics")"; done
    within 2 9 "$(sed -n 's/^# TYPE \([^ ]*\) histogram$/\1/p' "$T/metrics" | wc -l)" histograms
    like 'le="\+Inf"' "$(cat "$T/metrics")"
    promise "promtool finds nothing wrong"
    if command -v promtool >/dev/null; then         # its package is another in each Debian
        out=$(promtool check metrics <"$T/metrics" 2>&1)
        same 0 $? "exit status"
        same '' "$out" "what it says"
    else
        skip "not here: no promtool"
    fi
}

# ---- sd_notify

leg_supervisor() {
    up u1
    : >"$T/sd.log"
    "$ROOT/peer" notify "$T/notify" >>"$T/sd.log" 2>&1 &
    started sd $!
    await 3 logged sd ready || fail "no socket"
    conf "$u1 1"
    promise "READY=1 once the ports answer"
    wrapped "env NOTIFY_SOCKET=$T/notify WATCHDOG_USEC=1000000" r -c "$T/r.conf"
    await 5 logged sd 'READY=1' || fail "not ready: $(cat "$T/sd.log" "$T/r.log")"
    says '^NOERROR' ready.test
    promise "WATCHDOG=1 at half of WATCHDOG_USEC"
    sleep 2.2
    within 3 6 "$(logs sd 'WATCHDOG=1')" "in about 2 s, at 1 s"
    promise "RELOADING=1 and READY=1 around a reload"
    adm reload >/dev/null
    await 3 logged sd 'RELOADING=1' || fail "no RELOADING"
    await 3 is 2 logs sd '(^|[ ])READY=1' || fail "no READY after it"
    promise "RELOADING=1 carries MONOTONIC_USEC, which Type=notify-reload wants"
    like 'RELOADING=1.*MONOTONIC_USEC=[0-9]+' "$(cat "$T/sd.log")"
    promise "STOPPING=1 at the end"
    stop r
    await 3 logged sd 'STOPPING=1' || fail "no STOPPING"
    promise "a watchdog of two hours is one too; one that is meant for another process is not"
    : >"$T/sd.log"
    wrapped "env NOTIFY_SOCKET=$T/notify WATCHDOG_USEC=7200000000" r -c "$T/r.conf"
    await 3 logged sd 'WATCHDOG=1' || fail "no WATCHDOG: $(cat "$T/sd.log")"
    stop r
    : >"$T/sd.log"
    wrapped "env NOTIFY_SOCKET=$T/notify WATCHDOG_USEC=200000 WATCHDOG_PID=1" r -c "$T/r.conf"
    await 3 logged sd 'READY=1' || fail "not ready"
    ask other.test >/dev/null
    stop r
    same 0 "$(logs sd 'WATCHDOG=1')" "WATCHDOG=1 for another process"
    promise "a NOTIFY_SOCKET that is not there harms nothing"
    wrapped "env NOTIFY_SOCKET=$T/nosuch" r -c "$T/r.conf"
    says '^NOERROR' nosocket.test
}

# ---- query and top

leg_seeing() {
    ups u1 u2
    dead=127.0.0.1@$(freeport)
    proxy p "$u1 1" "$u2 2 tcp" "$dead 3" 'patience 300' 'timeout 1000'
    promise "query asks every upstream that applies, past the cache: a line each, and who won"
    ask 1nxdomain=.q.test >/dev/null
    forget u1
    out=$(adm 'query 1nxdomain=.q.test A')
    like "^upstream $u1 udp priority 1 NXDOMAIN answers 0 ms [0-9.]+\$" "$out"
    like "^upstream $u2 tcp priority 2 NOERROR answers 1 ms [0-9.]+ won\$" "$out"
    like "^upstream $dead udp priority 3 no answer.*[a-z]" "$out"
    same 4 "$(printf '%s\n' "$out" | wc -l | tr -d ' ')" 'lines, with one record'
    same 1 "$(printf '%s\n' "$out" | grep -c ' won$')" winners
    saw 1 ' id=' u1
    promise "query without a type asks for A"
    like "^upstream $u1 udp priority 1 NOERROR answers 2 ms [0-9.]+ won\$" "$(adm 'query n=2.q2.test')"
    promise "query says why an upstream has no answer"
    like "^upstream $u1 udp priority 1 no answer.*(time|silent|no reply)" "$(adm 'query 1silent=.q3.test AAAA')"
    like "^upstream $u1 udp priority 1 no answer.*malformed|^upstream $u1 udp priority 1 malformed" "$(adm 'query 1bad=loop.q4.test')"
    promise "query with a name of 300 octets is an error"
    like '^error: ' "$(adm "query $(printf '%0300d' 0)")"
    promise "top tells the most asked names and the clients that ask most"
    many n=300 window=20 same name=popular.test >/dev/null
    many n=100 window=20 same name=second.test src=127.0.0.7 >/dev/null
    many n=300 window=20 name=rare%d.test src=127.0.0.8 >/dev/null
    out=$(adm top)
    for x in 'popular\.test\.? 300' 'second\.test\.? 100' '127\.0\.0\.8 300' '127\.0\.0\.7 100'; do like "${x% *}.* ${x#* }|${x#* }.*${x% *}" "$out"; done
    within 2 24 "$(printf '%s\n' "$out" | wc -l)" "lines, ten of each at most"
    promise "hostile names are escaped there"
    many n=500 window=20 same 'name=evil\010top\027.test' >/dev/null
    like 'evil\\010top\\027' "$(adm top)"
    same 0 "$(adm top | LC_ALL=C grep -c '[^ -~]')" "lines with other than printable ASCII"
}
