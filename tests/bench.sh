# shellcheck shell=sh disable=SC2034,SC2154
# bench.sh - speed and size beside other forwarders.
# Alone: ./test.sh bench [quick|counts]
#
# Cost is CPU time (user and system, threads and children included, from /proc) divided by good answers, on loopback. A row's
# servers all run at once and are loaded in turn for a fraction of a second, many times over, so that what disturbs the machine
# disturbs them alike. A ratio is the median of the rounds' ratios.

# bench_say TEXT: what is going on, to standard error
bench_say() { echo "# bench: $*" >&2; }

# bench_lack WORD WHY: remembers why something could not be measured;  bench_doubts: what went wrong up to here, which is forgotten then
bench_lack() { echo "$1: $2" >>"$BENCH/lacks"; bench_say "$1: $2"; }
bench_doubts() {
    [ ! -s "$why" ] || bench_lack "$row" "$(tr '\n' ' ' <"$why")"
    : >"$why"
}

# ---- bench: servers ----

# bench_upstreams: name servers that answer every name: nsd at the ports $plain1 to $plain3; $tls is unbound, since nsd 4.6 answers only the
# first of the queries in a TLS record, and its key $pin; $hasty is one that soon closes what is idle
bench_upstreams() {
    tls_ready
    # as long as those of public CAs: key and end are more than 256 bytes apart, which is how BearSSL hands them on
    crt int384 by=root384 key=P-384 cn='Test intermediate P-384' ca san="dns:$(printf '%060d.%060d.%060d.%060d' 0 0 0 0)"
    crt below by=int384 cn=dns.test san=dns:dns.test
    crt bench by=root cn=dns.test san=dns:dns.test
    dot below below
    printf '%s\n' '$TTL 86400' '@ SOA ns host 1 3600 600 86400 300' '@ NS ns' 'ns A 192.0.2.53' '* A 192.0.2.1' >"$T/sixty-byte.example.zone"
    real_zones=sixty-byte.example pin=$(cat "$T/pki/bench.pin")
    plain1=$(freeport) plain2=$(freeport) plain3=$(freeport) tls=$(freeport) hasty=$(freeport)
    bench_upstream nsd1 nsd "$plain1" 'rrl-ratelimit: 0'
    bench_upstream nsd2 nsd "$plain2" 'rrl-ratelimit: 0'
    bench_upstream nsd3 nsd "$plain3" 'rrl-ratelimit: 0'
    real_cert=bench
    bench_upstream dot unbound "$tls" 'tcp-idle-timeout: 30000' 'incoming-num-tcp: 200'
    bench_upstream hasty unbound "$hasty" 'tcp-idle-timeout: 500' 'incoming-num-tcp: 200'
}

# bench_upstream NAME KIND PORT [LINE...]: a real server, over TLS if there is a $real_cert, which answers every name
bench_upstream() {
    real_back=127.0.0.1@$plain1
    case $2 in
    unbound) set -- "$@" 'local-zone: sixty-byte.example. redirect' 'local-data: "sixty-byte.example. 86400 A 192.0.2.1"' ;;
    nsd) set -- "$@" 'minimal-responses: yes' ;;
    bind9) set -- "$@" "zone sixty-byte.example { type primary; file \"$T/sixty-byte.example.zone\"; };" ;;
    esac
    real "$@"
}

# bench_in NAME: the server of that name, at $port, takes part in the row, if it serves. $warm names are in its cache then; $words are
# more words for the load of this one.
bench_in() {
    if await 10 hears '^NOERROR' n1.sixty-byte.example +timeout=100; then
        [ "$warm" = 0 ] || sixty n="$warm" window=50 >/dev/null
        echo "$1 $(pid "$1") $port $words" >>"$BENCH/in"
    else
        bench_lack "$1" "does not serve in the row $row: $(tail -n 2 "$T/$1.log" | tr '\n' ' ')"
    fi
}

# bench_proxy NAME LINE...: dnsproxy
bench_proxy() {
    proxy "$@"
    bench_in "$1"
}

# bench_peers MODE KIND[=NAME]...: other forwarders at their best: one thread, no logs; MODE hit has a cache, miss has none, both ask
# the ports $bench_ups; dot asks $tls
bench_peers() {
    bench_m=$1
    shift
    for bench_k; do
        have "${bench_k%=*}" || { bench_lack "$bench_k" 'not installed'; continue; }
        bench_forwarder "${bench_k#*=}" "${bench_k%=*}"
        bench_in "${bench_k#*=}"
    done
}
# bench_forwarder NAME KIND [COMMAND]: one of them, started by that command
bench_forwarder() {
    port=$(freeport)
    real_a=127.0.0.1 real_p=$port real_s=$(freeport) real_h=$(freeport) real_d=$(freeport) real_back=''
    NS=${3:-}
    real_start "$1" "$2" "$(bench_lines "$2")"
    NS=''
}

# bench_lines KIND: what stands in its configuration in the mode $bench_m beside what it has as an upstream (see real.sh); a line with
# PORT stands there for each upstream
bench_lines() {
    bench_x=$bench_ups
    [ "$bench_m" != dot ] || bench_x=$tls
    awk -v kind="$1" -v mode="$bench_m" -v ports="$bench_x" '
        BEGIN { n = split(ports, port, " ") }
        $1 != kind || ($2 != "any" && index($2, mode) == 0) { next }
        { sub(/^[^ ]+ +[^ ]+ +/, "") }
        !/PORT/ { print }
        /PORT/ { for (i = 1; i <= n; i++) { line = $0; sub(/PORT/, port[i], line); print line } }' <<'END'
dnsmasq   any       dns-forward-max=2000
dnsmasq   hit       cache-size=10000
dnsmasq   miss      cache-size=0
dnsmasq   any       server=127.0.0.1#PORT
unbound   any       outgoing-range: 4096
unbound   any       num-queries-per-thread: 2048
unbound   any       incoming-num-tcp: 100
unbound   miss,dot  msg-cache-size: 0
unbound   miss,dot  rrset-cache-size: 0
unbound   any       forward-zone:
unbound   any       name: .
unbound   dot       forward-tls-upstream: yes
unbound   any       forward-addr: 127.0.0.1@PORT
dnsdist   any       setMaxTCPClientThreads(1)
dnsdist   any       setMaxUDPOutstanding(65535)
dnsdist   hit,miss  newServer({ address = "127.0.0.1:PORT" }):setUp()
dnsdist   dot       newServer({ address = "127.0.0.1:PORT", tls = "openssl", validateCertificates = false, maxInFlight = 1000 }):setUp()
dnsdist   hit       getPool(""):setCache(newPacketCache(20000, { numberOfShards = 1 }))
smartdns  hit       cache-size 20000
smartdns  miss,dot  cache-size 0
smartdns  any       cache-persist no
smartdns  any       prefetch-domain no
smartdns  any       serve-expired no
smartdns  any       rr-ttl-min 0
smartdns  hit,miss  server 127.0.0.1:PORT
smartdns  dot       server-tls 127.0.0.1:PORT -no-check-certificate
stubby    dot       { address_data: 127.0.0.1, tls_port: PORT, tls_auth_name: "dns.test" }
END
}

# ---- bench: loads and rounds ----

# sixty [WORD...]: as many, with names of 20 bytes, from n100000 on, whose answers have 60
sixty() { many name=n%d.sixty-byte.example from=100000 n=1000000 "$@"; }

# bench_dnsperf STEP FLIGHT NAMES [NAMES], bench_many WORD...: load the server at $port for a fraction of a second, from name number
# $bench_at on, and print how many queries were answered and how many not. dnsperf asks for the names (I * STEP) % NAMES, FLIGHT of
# them in flight; the last NAMES counts.
bench_dnsperf() {
    awk -v at="$bench_at" -v step="$1" -v names="${4:-$3}" 'BEGIN {
        for (i = 0; i < 20000; i++) printf "n%d.sixty-byte.example A\n", 100000 + (at + i * step) % names
    }' >"$BENCH/names"
    bench_perf -p "$port" -d "$BENCH/names" -l 0.2 -q "$2" -t 1
}
bench_perf() {
    dnsperf -s 127.0.0.1 "$@" 2>/dev/null | awk '
        /Queries sent:/ { sent = $3 }
        /Response codes:/ { for (i = 3; i < NF; i++) if ($i == "NOERROR") good = $(i + 1) }
        END { print good + 0, sent - good }'
}
bench_many() { sixty from=$((100000 + bench_at)) "$@" | awk '{ print $6, $2 - $6 }'; }

# bench_cpu PID: microseconds of user and system time that it, its threads and its children have had, by the scheduler's account
bench_cpu() {
    for bench_c in "$1" $(cat "/proc/$1/task"/*/children); do cat "/proc/$bench_c/task"/*/schedstat; done |
        awk '{ us += $1 / 1000 } END { printf "%.0f\n", us }'
}

# bench_rounds LOAD [WORD...]: loads the servers of the row in turn; results go to $BENCH/raw as ROW NAME ROUND CPU ANSWERED LOST
bench_rounds() {
    bench_say "$row: $(sed 's/ .*//' "$BENCH/in" | paste -s -d ' ')"
    bench_at=0
    for bench_r in $(seq "$ROUNDS"); do
        for _ in $(seq "$SLICES"); do
            while read -r bench_n bench_q port words; do
                bench_a=$(bench_cpu "$bench_q")
                bench_d=$("$@" $words)
                bench_b=$(bench_cpu "$bench_q")
                echo "$row $bench_n $bench_r $((bench_b - bench_a)) $bench_d"
            done <"$BENCH/in" >>"$BENCH/raw"
            bench_at=$((bench_at + 25000))
        done
    done
}

# bench_end: what has been started since the name servers ends
bench_end() {
    for bench_n in $(cd "$T" && ls -- *.pid); do
        case " $bench_stay " in *" $bench_n "*) ;; *) kill_pid "${bench_n%.pid}" ;; esac
    done
    : >"$BENCH/in"
}

# bench_middle: median, least and most of the numbers that begin the lines, if there are any, and what follows the last
bench_middle() { sort -n | awk '{ v[NR] = $1; rest = $2 } END { if (NR) print v[int((NR + 1) / 2)], v[1], v[NR], rest }'; }

# bench_cost ROW NAME [OTHER]: microseconds an answer, or that as a multiple of OTHER's: median, least, most of the rounds, share of queries
# that failed in percent; nothing when nothing was answered
bench_cost() {
    awk -v row="$1" -v a="$2" -v b="${3:-}" '
        $1 == row { cpu[$2, $3] += $4; good[$2, $3] += $5; all[$2] += $5 + $6; bad[$2] += $6; rounds[$3] }
        function cost(name, r) { return name == "" ? 1 : good[name, r] ? cpu[name, r] / good[name, r] : 0 }
        END { for (r in rounds) if (cost(a, r) && cost(b, r)) printf "%.3f %.2f\n", cost(a, r) / cost(b, r), 100 * bad[a] / all[a] }' "$BENCH/raw" | bench_middle
}

# bench_best: the cheapest of the row's peers that failed less than one query in twenty
bench_best() {
    sed 's/ .*//' "$BENCH/in" | grep -Ev '^(dnsproxy|echo)' | while read -r bench_n; do echo "$(bench_cost "$row" "$bench_n") $bench_n"; done |
        awk 'NF == 5 && $4 < 5 && (best == "" || $1 < least) { least = $1; best = $5 } END { print best }'
}

# bench_speed NAME: answers a second in the slices of dnsperf
bench_speed() { awk -v row="$row" -v n="$1" '$1 == row && $2 == n { good += $5; s += 0.2 } END { if (s) printf "%.0f", good / s }' "$BENCH/raw"; }

# by A B [FORMAT]: A / B, if there are both
by() { [ -z "$1" ] || awk -v a="$1" -v b="${2:-0}" -v f="${3:-%.2f}" 'BEGIN { if (b) printf f, a / b }'; }

# bench_paced WORD...: all of the row at once, with these words of load; for each a line: name, how many without an answer, and median,
# 99 %, 99.9 % and worst of the others in milliseconds
bench_paced() {
    bench_w=''
    while read -r bench_n _ port _; do
        sixty window=60000 "$@" | awk -v name="$bench_n" '{
            for (i = 1; i < NF; i += 2) v[$i] = $(i + 1)
            printf "%s %d %.1f %.1f %.1f %.1f\n", name, v["sent"] - v["noerror"], v["p50_us"] / 1000, v["p99_us"] / 1000,
                v["p999_us"] / 1000, v["worst_us"] / 1000
        }' >>"$BENCH/paced" &
        bench_w="$bench_w $!"
    done <"$BENCH/in"
    # shellcheck disable=SC2086
    wait $bench_w
}

# bench_pace NAME COLUMN: the median of its rounds: 2 without an answer, 3 median, 4 99 %, 5 99.9 %, 6 worst
bench_pace() { awk -v n="$1" -v c="$2" '$1 == n { print $c }' "$BENCH/paced" | bench_middle | sed 's/ .*//'; }

# ---- bench: the table ----

# bench_verdict WHAT SENSE LIMIT UNIT FIGURE [NOTE]: a line of the table; SENSE is 'most' or 'least', no FIGURE means not measured
bench_verdict() {
    [ ! -s "$why" ] || set -- "$1" "$2" "$3" "$4" '' "$(tr '\n' ' ' <"$why")"
    if [ -z "$5" ]; then
        bench_v="not measured: ${6:-no figure}"
    else
        bench_v=$(awk -v f="$5" -v l="$3" -v s="$2" 'BEGIN { print (s == "most" ? f <= l : f >= l) ? "met" : "missed" }')
    fi
    echo "$1|at $2 $3$4|${5:+$5$4${6:+ ($6)}}|$bench_v" >>"$BENCH/table"
}

# bench_compare WHAT LIMIT NAME OTHER: a line of the table that is a ratio of two servers of the row; OTHER may be "best"
bench_compare() {
    [ "$4" != best ] || set -- "$1" "$2" "$3" "$(bench_best)"
    # shellcheck disable=SC2046
    set -- "$@" $(bench_cost "$row" "$3" "${4:-none}")
    case ${8:-none} in
    none) bench_verdict "$1" most "$2" '' '' "$3 or ${4:-every peer} did not answer" ;;
    [0-4].*) bench_verdict "$1" most "$2" '' "$5" "against $4; rounds $6 to $7" ;;
    *) bench_verdict "$1" most "$2" '' '' "$8% of the queries of $3 failed" ;;
    esac
}

# bench_print NAME [HEAD]: lines a|b|c of $BENCH/NAME, below HEAD, become a table, if there are any
bench_print() {
    [ -s "$BENCH/$1" ] || return 0
    echo
    { [ $# = 1 ] || echo "$2"; cat "$BENCH/$1"; } | sed 's/|/ | /g; s/.*/| & |/; 1 { h; s/ [^|]* / --- /g; H; x; }'
}

# bench_machine: where this was measured
bench_machine() {
    bench_m=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
    bench_v=$(dpkg-query -W -f '${Package} ${Version}\n' libbearssl-dev dnsperf nsd dnsmasq-base unbound bind9 dnsdist smartdns stubby 2>/dev/null |
        sort -u | paste -s -d , | sed 's/,/, /g')
    echo "$(date +%Y-%m-%d): ${bench_m:-unknown processor}, $(uname -m), $(nproc) processors, Linux $(uname -r), $("$CC" --version | head -n 1)," \
        "$(ldd --version 2>&1 | head -n 1), $bench_v. Load average at the start $load_before, at the end $(cut -d ' ' -f 1 /proc/loadavg)."
}

# ---- bench: the rows ----

# A row is a set of servers, a load and what is compared. $row is its name.

bench_row_hit() {
    warm=1000 port=$(freeport)
    begin echo "$ROOT/peer" echo "$port"
    bench_in echo
    bench_proxy dnsproxy "127.0.0.1@$plain1 1"
    bench_peers hit dnsdist unbound smartdns dnsmasq
    bench_rounds bench_dnsperf 7919 100 1000
    bench_compare 'cached answer over UDP, CPU a query, against the batch echo' 1.10 dnsproxy echo
    bench_compare 'the same against the best peer' 0.75 dnsproxy best
}

bench_row_miss() {
    bench_proxy dnsproxy "127.0.0.1@$plain1 1"
    bench_proxy dnsproxy-3-upstreams "127.0.0.1@$plain1 1" "127.0.0.1@$plain2 1" "127.0.0.1@$plain3 1"
    bench_peers miss dnsdist unbound smartdns dnsmasq
    bench_rounds bench_dnsperf 1 100 900000
    bench_missed
    bench_compare 'miss over one UDP upstream, against the best peer' 0.70 dnsproxy best
    bench_compare 'miss over three UDP upstreams in parallel, against one' 2.2 dnsproxy-3-upstreams dnsproxy
}

# bench_missed: there were no hits in a row of misses
bench_missed() {
    use dnsproxy
    within 0 100 "$(count hits)" 'hits in a row of misses'
}

bench_row_dot() {
    bench_proxy dnsproxy "127.0.0.1@$tls 1 tls pin=$pin"
    bench_peers dot unbound smartdns stubby dnsdist
    bench_rounds bench_dnsperf 1 100 900000
    bench_missed
    bench_compare 'miss over DoT, 100 in flight, unbound upstream (an answer a record), against the best peer' 0.23 dnsproxy best
}

bench_row_twenty() {
    bench_proxy dnsproxy "127.0.0.1@$tls 1 tls pin=$pin"
    bench_peers dot unbound stubby
    bench_rounds bench_dnsperf 1 20 900000
    bench_x=$(bench_speed dnsproxy) bench_y=$(bench_speed unbound) bench_z=$(bench_speed stubby)
    bench_verdict 'DoT before unbound, 20 in flight: queries a second, against the better of unbound and stubby' least 1.2 '' \
        "$(by "$bench_x" "$(printf '%s\n' "$bench_y" "$bench_z" | sort -n | tail -n 1)")" \
        "$bench_x a second, unbound ${bench_y:-none}, stubby ${bench_z:-none}"
}

# A browser: three names every 20 ms, each server's own. And A and AAAA of one every 0.8 s.
bench_row_browser() {
    bench_dot=$tls
    while read -r web_k web_c web_n web_x; do
        have "$web_c" || { bench_lack browser "$web_c is not installed"; continue; }
        tls=$(freeport) bench_at=100000
        bench_upstream server "$web_k" "$tls"
        for bench_r in $(seq "$TURNS"); do              # in turn, for before unbound both are slow when both ask
            for web_p in dnsproxy stubby; do
                case $web_p$web_n in
                dnsproxy*) bench_proxy "dnsproxy.$web_k.$web_n" "$ca" "127.0.0.1@$tls 1 tls=dns.test" ;;
                stubby3) bench_peers dot "stubby=stubby.$web_k.3" ;;
                *) continue ;;
                esac
                # shellcheck disable=SC2086
                bench_paced from=$bench_at $web_x
                kill_pid "$web_p.$web_k.$web_n"
                : >"$BENCH/in"
                bench_at=$((bench_at + 1000))
            done
        done
        web_m=$(bench_pace "dnsproxy.$web_k.$web_n" 3) web_y=$(bench_pace "dnsproxy.$web_k.$web_n" 4) web_z=$(bench_pace "stubby.$web_k.3" 4)
        if [ "$web_n" = 2 ]; then
            bench_verdict "DoT to $web_k, A and AAAA every 0.8 s: the slowest of all" most 5 ' ms' \
                "$(awk -v n="dnsproxy.$web_k.2" '$1 == n && $6 > most { most = $6 } END { print most }' "$BENCH/paced")" "median $web_m"
        else
            bench_verdict "DoT to $web_k, three names every 20 ms: median" most 1 ' ms' "$web_m" "stubby $(bench_pace "stubby.$web_k.3" 3)"
            bench_verdict 'the same: 99 %' most 2 ' ms' "$web_y" "stubby ${web_z:-no answer}"
            bench_verdict "the same: 99 %, against stubby's" most 0.5 '' "$(by "$web_y" "$web_z")"
        fi
        kill_pid server TERM
        bench_doubts
    done <<'END'
unbound unbound 3 every=20000 burst=3 n=450
nsd     nsd     3 every=20000 burst=3 n=450
bind9   named   3 every=20000 burst=3 n=450
nsd     nsd     2 every=800000 burst=2 pairs n=16
dnsdist dnsdist 2 every=800000 burst=2 pairs n=16
END
    tls=$bench_dot
}

# A connection whose packets are all dropped from now on, while nobody closes it; the scripted server answers after 40 ms
bench_row_silent() {
    have iptables && netns || { bench_lack silent "root, iptables or network namespaces are missing"; return; }
    up other '. net=11'
    for silent_k in 'one upstream' 'two upstreams'; do
        dot quiet good : delay=40
        set -- "$ca" "$quiet 1 tls=dns.test"
        [ "$silent_k" = 'one upstream' ] || set -- "$@" "$other 2"
        proxy dnsproxy "$@"
        meanwhile asked many n=150 rate=50 window=60000 name=n%x.sixty-byte.example
        comes quiet '^query' 50
        silent_p=$(sed -n 's/^open .*@//p' "$T/quiet.q" | tail -n 1)
        for silent_x in "--sport $silent_p" "--dport $silent_p"; do ns iptables -A INPUT -p tcp $silent_x -j DROP || fail 'iptables does not drop'; done
        ended asked ' noerror 150 '
        saw 2-99 '^open' quiet
        bench_verdict "everything on a connection is dropped, answers in 40 ms, $silent_k: the slowest of 50 a second" most 600 ' ms' \
            "$(val slowest_ms "$out")"
    done
    NS=''
}

bench_row_tcp() {
    warm=1000
    bench_proxy dnsproxy "127.0.0.1@$plain1 1"
    bench_peers hit unbound
    bench_rounds bench_many tcp=1 ms=200 from=100000 names=1000
    bench_compare 'cached answer over a TCP connection with pipelined queries, against unbound' 0.6 dnsproxy best
}

bench_row_entries() {
    warm=1000
    bench_proxy dnsproxy-1000-entries "127.0.0.1@$plain1 1" 'cache-size 16m'
    warm=100000 words=100000
    bench_proxy dnsproxy-100000-entries "127.0.0.1@$plain1 1" 'cache-size 16m'
    within 99000 100010 "$(count entries cache)" 'entries in the cache'
    bench_rounds bench_dnsperf 7919 100 1000
    bench_compare 'cached, with 100,000 entries in the cache against 1,000' 1.15 dnsproxy-100000-entries dnsproxy-1000-entries
}

bench_row_idle() {
    warm=1000
    bench_proxy dnsproxy "127.0.0.1@$plain1 1" 'tcp-clients 1200'
    bench_proxy dnsproxy-1000-idle "127.0.0.1@$plain1 1" 'tcp-clients 1200'
    hold hold "$port" 1000 again
    bench_rounds bench_dnsperf 7919 100 1000
    within 990 1001 "$(count tcp)" 'idle clients at the end'
    bench_compare 'cached, with 1,000 idle TCP clients against none' 1.10 dnsproxy-1000-idle dnsproxy
}

# 25 queries a millisecond both times: 5,000 at an upstream that takes 200 ms, 100 at one that takes 4
bench_row_flight() {
    up near '. delay=4'
    up far '. delay=200'
    bench_proxy dnsproxy-100-in-flight "$near 1" 'queries 8192'
    words=window=5000
    bench_proxy dnsproxy-5000-in-flight "$far 1" 'queries 8192'
    bench_rounds bench_many ms=1000 every=40
    bench_compare 'misses with 5,000 in flight (`queries 8192`) against 100' 1.3 dnsproxy-5000-in-flight dnsproxy-100-in-flight
}

# bench_road NAME PRIORITIES RULE...: that server at the end of roads of its own, an upstream NAME_N for each of these priorities
bench_road() {
    road_n=$1 road_p=$2
    shift 2
    road_r="ttl=86400 $*" road_v=$(echo "$road_n" | tr -c 'a-z0-9\n' _) bench_ups=''
    set --
    for bench_i in $road_p; do
        up "${road_v}_$(($# + 1))" ". $road_r"
        road_a=$(at "${road_v}_$(($# + 1))")
        bench_ups="$bench_ups ${road_a#*@}"
        set -- "$@" "$road_a $bench_i"
    done
    case $road_n in
    dnsproxy*) bench_proxy "$road_n" "$@" ;;
    *) bench_peers miss "${road_n%%-*}=$road_n" ;;
    esac
    bench_ups=$plain1
}

# bench_sent ROAD: datagrams a name that have come there
bench_sent() { awk '$1 == "query" { n++; names += !seen[$8]++ } END { if (names) printf "%.3f", n / names }' "$T/$1.q"; }

bench_row_road() {
    while IFS='|' read -r bench_n bench_p bench_w; do bench_road "$bench_n" "$bench_p" "$bench_w"; done <<'END'
dnsproxy-1.lossy|1|delay=30 jitter=10 lose=3
dnsproxy-3.lossy|1 2 3|delay=30 jitter=10 lose=3
dnsproxy-alike.lossy|1 1 1|delay=30 jitter=10 lose=3
unbound-1.lossy|1|delay=30 jitter=10 lose=3
unbound-3.lossy|1 1 1|delay=30 jitter=10 lose=3
dnsmasq-1.beside|1|delay=30 jitter=10 lose=3
dnsdist-1.beside|1|delay=30 jitter=10 lose=3
smartdns-3.beside|1 1 1|delay=30 jitter=10 lose=3
dnsproxy-1.bad|1|delay=30 jitter=10 lose=10
unbound-1.bad|1|delay=30 jitter=10 lose=10
dnsproxy-1.clear|1|delay=30 jitter=10
END
    for bench_r in $(seq "$TURNS"); do bench_paced from=$((90000 + bench_r * 10000)) rate=200 n="$ROAD"; done
    cut -d ' ' -f 1 "$BENCH/paced" | sort -u | while read -r bench_n; do
        echo "$bench_n|$(for bench_c in 3 4 5 6 2; do bench_pace "$bench_n" $bench_c; done | paste -s -d '|')"
    done >"$BENCH/roads"
    while IFS='|' read -r bench_t bench_m bench_n bench_o bench_c; do
        bench_y=$(bench_pace "$bench_n" "$bench_c") bench_z=$(bench_pace "$bench_o" "$bench_c")
        bench_verdict "$bench_t, against unbound" most "$bench_m" '' "$(by "$bench_y" "$bench_z")" "$bench_y against ${bench_z:-none} ms"
    done <<'END'
3 % lost each way, 20 +- 5 ms, one upstream: 99 % answered within|0.90|dnsproxy-1.lossy|unbound-1.lossy|4
the same: 99.9 %|0.90|dnsproxy-1.lossy|unbound-1.lossy|5
the same: all|1.0|dnsproxy-1.lossy|unbound-1.lossy|6
three upstreams of priorities 1, 2, 3: 99 %|0.90|dnsproxy-3.lossy|unbound-3.lossy|4
the same: 99.9 %|0.80|dnsproxy-3.lossy|unbound-3.lossy|5
the same: all|0.8|dnsproxy-3.lossy|unbound-3.lossy|6
three upstreams of one priority: 99 %|0.45|dnsproxy-alike.lossy|unbound-3.lossy|4
10 % lost each way, one upstream: 99 %|0.9|dnsproxy-1.bad|unbound-1.bad|4
END
    bench_verdict '3 % lost, one upstream: queries without an answer' most 0 '' "$(bench_pace dnsproxy-1.lossy 2)"
    bench_verdict 'datagrams a query, 3 % lost each way' most 1.12 '' "$(bench_sent dnsproxy_1_lossy_1)"
    bench_verdict '10 % lost, one upstream: queries of 6,000 without an answer' most 2 '' "$(bench_pace dnsproxy-1.bad 2)"
    bench_verdict 'datagrams a query, nothing lost' most 1.02 '' "$(bench_sent dnsproxy_1_clear_1)"
    bench_road dnsproxy-1.jump 1 delay=8 jitter=2
    meanwhile jump sixty rate=200 n=3000 window=60000
    sleep 3
    rules dnsproxy_1_jump_1 '. delay=148 jitter=2'
    sleep 5
    forget dnsproxy_1_jump_1
    ended jump
    bench_verdict 'datagrams a query 5 s after the delay went from 10 to 150 ms' most 1.05 '' "$(bench_sent dnsproxy_1_jump_1)"
    up late '. delay=3500'
    real_cert='' real_back=$late bench_x=$(freeport)
    real resolver unbound "$bench_x" 'unknown-server-time-limit: 5000'
    real_cert=bench
    proxy dnsproxy "127.0.0.1@$bench_x 1"
    bench_verdict 'a name that takes its resolver 3.5 s, which drops what is older than 1.9 s' most 4000 ' ms' \
        "$(by "$(val worst_us "$(sixty n=1)")" 1000 %.1f)"
}

# All on one processor: else the time it takes to wake another one is what is measured.
bench_row_latency() {
    ! have taskset || NS='taskset -c 0'
    up near
    bench_x=${near#*@} bench_y=$(freeport)
    begin relay "$ROOT/peer" relay "$bench_y" "$bench_x"
    proxy dnsproxy "$near 1"
    bench_z=$port
    for bench_r in $(seq "$ROUNDS"); do
        for port in "$bench_x" "$bench_z" "$bench_y"; do val p50_us "$(sixty n=4000 window=1 from=$((100000 + bench_r * 4000)))"; done | paste -s -d ' '
    done | awk '{ print $1, $2, $2 - $1, $3 - $1 }' | sort -n -k 3 >"$BENCH/latency"
    # shellcheck disable=SC2046
    set -- $(awk '{ v[NR] = $0; a[NR] = $3 } END { print v[int((NR + 1) / 2)], a[1], a[NR] }' "$BENCH/latency")
    bench_verdict 'latency added to a miss at low load (one query at a time), median' most 60 ' us' "${3:-}" \
        "${2:-} us instead of ${1:-}; rounds ${5:-} to ${6:-}; a bare relay adds ${4:-}"
    NS=''
}

# bench_filled PROGRAM LINE...: $rss is the KiB that PROGRAM has resident once its cache is full; $cache is the line of its status
bench_filled() {
    bench_bin=$BIN BIN=$1
    shift
    proxy filled "$@"
    BIN=$bench_bin
    await 10 is 0 bench_unconnected || fail 'no connection to the DoT server'
    sixty n=15000 window=10 every=$((1000 / FILL)) >/dev/null
    cache=$(adm status | grep '^cache ')
    rss=$(bench_rss filled)
}
bench_unconnected() { adm status | grep -c 'connects 0'; }
bench_rss() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$(pid "$1")/status"; }

# bench_resident PROGRAM KIND MOST [NOTE]: two lines of the table: what it has resident, and what a pinned upstream adds
bench_resident() {
    bench_filled "$1" "127.0.0.1@$plain1 1"
    bench_m=$rss bench_cache=$cache
    bench_verdict "resident memory, default config, cache full, plain upstream: $2" most "$3" ' MiB' "$(by "$rss" 1024)" \
        "filled at $FILL,000 answers a second${4:+; $4}"
    bench_filled "$1" "127.0.0.1@$tls 1 tls pin=$pin"
    bench_verdict "one pinned DoT upstream more: $2" most 0.1 ' MiB' "$(by "$((rss - bench_m))" 1024)" 'the same, but all answers from it'
}

bench_row_memory() {
    mkdir -p "$BENCH/made"
    cp "$SRC/Makefile" "$SRC/dnsproxy.c" "$BENCH/made/"
    bench_o=$(make -C "$BENCH/made" BEARSSL="$BEARSSL" dnsproxy dnsproxy-static 2>&1) || fail "make: $(echo "$bench_o" | tail -n 2)"
    port=$(freeport)
    begin reference "$ROOT/peer" echo "$port"
    sixty n=64 window=64 burst=64 >/dev/null
    bench_resident "$BENCH/made/dnsproxy-static" 'static musl' 1.85
    bench_resident "$BENCH/made/dnsproxy" 'dynamic glibc' 3.0 "the echo: $(by "$(bench_rss reference)" 1024)"
    bench_entries=$(val entries "$bench_cache") bench_size=$(val size "$bench_cache")
    bench_verdict 'bytes of cache memory for an answer of 60 bytes' most 100 '' "$(by "$bench_size" "$bench_entries" %.1f)" \
        "$bench_size bytes hold $bench_entries answers"
    bench_x=$(wc -c <"$BENCH/made/dnsproxy-static")
    bench_verdict 'static musl binary, stripped, -Os' most 205 ' KiB' "$(by "$bench_x" 1024 %.1f)" "$bench_x bytes"
}

# What is in the cache when the second half of the stream comes. Rank K has probability 1/K, which log() makes but for some that are rejected.
bench_row_ratio() {
    proxy dnsproxy "127.0.0.1@$plain1 1" "cache-size $((93 * 10000))"
    awk -v n="$ZIPF" 'BEGIN {
        for (srand(7); n > 0; ) {
            k = int(exp(rand() * log(1000001)))
            if (rand() < log(2) / (k * log(1 + 1 / k)) && n--) printf "n%06d.sixty-byte.example A\n", k - 1
        }
    }' | split -l $((ZIPF / 2)) - "$BENCH/zipf."
    set -- "$BENCH/zipf.aa" "$BENCH/zipf.ab"
    bench_x=$(bench_perf -p "$port" -d "$1" -n 1 -q 32)
    bench_a=$(upstream "127.0.0.1@$plain1" sent)
    bench_x="${bench_x#* } $(bench_perf -p "$port" -d "$2" -n 1 -q 32)"
    bench_a=$((ZIPF / 2 + bench_a - $(upstream "127.0.0.1@$plain1" sent)))
    bench_m=$(count entries cache)
    bench_g=$(awk -v room="${bench_m:-1}" '
        { known = $1 in at; at[$1] = NR; name[NR] = $1; held += !known; hits += known && FILENAME ~ /ab$/ }
        held > room { while (at[name[++oldest]] != oldest) delete name[oldest]; delete at[name[oldest]]; held-- }
        END { print hits }' "$@")
    bench_v=''
    [ "${bench_x%% *}-${bench_x##* }" != 0-0 ] || bench_v=$(by "$bench_a" "$bench_g" %.3f)
    bench_verdict 'hit ratio, Zipf(1.0) stream of 1,000,000 names, memory for 10,000, share of that of an exact LRU' least 0.95 '' "$bench_v" \
        "$(by $((2 * bench_a)) "$ZIPF" %.4f) against $(by $((2 * bench_g)) "$ZIPF" %.4f), $bench_m entries, $((${bench_x%% *} + ${bench_x##* })) queries lost"
}

bench_row_start() {
    for bench_r in 1 2 3 4 5 6 7 8 9 10 11; do
        port=$(freeport)
        peer start "$port" n1.sixty-byte.example "$BIN" "listen 127.0.0.1@$port" "admin 127.0.0.1@$(freeport)" "127.0.0.1@$plain1 1" 2>/dev/null
    done | bench_middle | awk '$3 < 5000000 { printf "%.1f %.1f %.1f\n", $1 / 1000, $2 / 1000, $3 / 1000 }' >"$BENCH/start"
    read -r bench_m bench_y bench_z <"$BENCH/start"
    bench_verdict 'start to first answer, plain upstream' most 5 ' ms' "$bench_m" "11 starts, $bench_y to $bench_z"
}

# ---- bench: instructions ----

# bench_compile MACHINE TREE OUT: dnsproxy of that tree; MACHINE is native, or i386, which stands for 32 bits
bench_compile() (
    SRC=$2 CFLAGS='-O2 -g'
    [ "$1" != i386 ] || CC=i686-linux-gnu-gcc BEARSSL='' LDLIBS='-L/usr/lib/i386-linux-gnu -static'
    build "$3" -DNO_SECCOMP 2>"$3.log" || { bench_lack "$1" "$2 does not compile: $(tail -n 2 "$3.log" | tr '\n' ' ')"; return 1; }
)

# bench_under [OPTION...]: programs that start from now on run under callgrind; its counts go to $BENCH/callgrind
bench_under() {
    rm -f "$BENCH/callgrind"*
    WRAP="valgrind -q --tool=callgrind --callgrind-out-file=$BENCH/callgrind $*" SLOW=6
}

# bench_stop: the program "counted" ends, and with it the counting
bench_stop() {
    WRAP='' SLOW=$bench_slow
    kill -TERM "$(pid counted)"
    await 30 gone "$(pid counted)" || fail 'does not stop'
    kill_pid counted
}

# bench_counted KIND MACHINE SERVER NAMES COMMAND...: instructions of a query, one at a time and in bursts of 64, with NAMES names;
# COMMAND starts the server. What the start, the first connection and the first answers cost is in two runs, and so not in their difference.
bench_counted() {
    bench_k="$1 $2 $3" bench_names=$4
    shift 4
    bench_say "instructions: $bench_k"
    for bench_x in '1000 0' '3000 0' '1000 3200'; do
        bench_under
        "$@"
        good "${bench_x% *}" from=100000 window=1 names="$bench_names" name=n%d.sixty-byte.example
        good "${bench_x#* }" from=$((100000 + 500000 % bench_names)) window=64 burst=64 names="$bench_names" name=n%d.sixty-byte.example
        bench_stop
        sed -n 's/^totals: //p' "$BENCH/callgrind"
    done | awk -v key="$bench_k" '{ t[NR] = $1 } END { printf "%s %.0f %.0f\n", key, (t[2] - t[1]) / 2000, (t[3] - t[1]) / 3200 }' >"$BENCH/counted"
    [ -s "$why" ] || cat "$BENCH/counted" >>"$BENCH/counts"
    bench_doubts
}

# bench_counted_proxy PROGRAM LINE..., bench_counted_dnsmasq MODE: the servers that are counted
bench_counted_proxy() {
    BIN=$1
    shift
    proxy counted "user $(id -un)" "$@"         # nobody could not write the counts
    BIN=$bench_bin
}
bench_counted_dnsmasq() {
    bench_m=$1 bench_l=$BENCH/i386/lib/i386-linux-gnu:$BENCH/i386/usr/lib/i386-linux-gnu
    bench_forwarder counted dnsmasq "env LD_LIBRARY_PATH=$bench_l PATH=$BENCH/i386/usr/sbin:$PATH $WRAP"
    await 30 hears '^NOERROR' n1.sixty-byte.example || fail "dnsmasq does not serve: $(tail -n 2 "$T/counted.log")"
}

# bench_handshake MACHINE PROGRAM: instructions of a full TLS handshake with a chain of P-256, of one resumed, of one with P-256 below
# P-384, and of the longest turn of the loop in a full one. The counts are cut where poll() begins; $hasty closes what is idle, and the
# connection is made again.
bench_handshake() {
    bench_say "instructions: handshake $1"
    for bench_x in "full 127.0.0.1@$tls" "resumed 127.0.0.1@$hasty" "full $below"; do
        bench_under --dump-before=poll
        bench_counted_proxy "$2" 'log debug' "$ca" "${bench_x#* } 1 tls=dns.test"
        comes counted 'full handshake'
        [ "${bench_x% *}" != resumed ] || hears '^NOERROR' n1.sixty-byte.example || fail 'no answer'
        comes counted "${bench_x% *} handshake"
        bench_stop
        cat "$BENCH/callgrind".* | sed -n 's/^totals: //p' | awk -v full="$(seen counted 'full handshake')" -v resumed="$(seen counted 'resumed handshake')" '
            $1 > 20000 && NR > 1 { sum += $1; if ($1 > most) most = $1 } END { print sum, most, full, resumed }'
    done >"$BENCH/handshake"
    [ -s "$why" ] || awk -v m="$1" '
        NR == 2 { printf "%s|%.1f|%.1f|%.1f (%.0f %%)", m, full / 1e6, ($1 - full * $3) / $4 / 1e6, most / 1e6, 100 * most / full }
        { full = $1 / $3; most = $2 }
        NR == 3 { printf "|%.1f|%.1f (%.0f %%)\n", full / 1e6, most / 1e6, 100 * most / full }' "$BENCH/handshake" >>"$BENCH/handshakes"
    bench_doubts
}

bench_row_instructions() {
    bench_bin=$BIN bench_slow=$SLOW
    have valgrind || { bench_lack instructions 'valgrind is not installed'; return; }
    for bench_w in native i386; do
        if [ "$bench_w" = i386 ] && { ! have i686-linux-gnu-gcc || [ ! -e /usr/lib/i386-linux-gnu/libbearssl.a ]; }; then
            bench_lack i386 'gcc-i686-linux-gnu, libc6-dev-i386-cross or libbearssl-dev:i386 is not installed (after dpkg --add-architecture i386)'
            continue
        fi
        for bench_v in now ${BEFORE:+before}; do
            bench_d=$SRC bench_o=$BENCH/counted.$bench_w.$bench_v
            [ "$bench_v" = now ] || bench_d=$BEFORE
            bench_compile "$bench_w" "$bench_d" "$bench_o" || continue
            bench_counted hit "$bench_w" "$bench_v" 100 bench_counted_proxy "$bench_o" "127.0.0.1@$plain1 1"
            bench_counted miss "$bench_w" "$bench_v" 900000 bench_counted_proxy "$bench_o" "127.0.0.1@$plain1 1"
            bench_counted DoT-miss "$bench_w" "$bench_v" 900000 bench_counted_proxy "$bench_o" "127.0.0.1@$tls 1 tls pin=$pin"
            [ "$bench_v" = before ] || bench_handshake "$bench_w" "$bench_o"
        done
    done
    if bench_i386_dnsmasq; then
        bench_counted hit i386 dnsmasq 100 bench_counted_dnsmasq hit
        bench_counted miss i386 dnsmasq 900000 bench_counted_dnsmasq miss
    fi
    bench_instructions
}

# bench_i386_dnsmasq: Debian's dnsmasq for i386 with its libraries in $BENCH/i386, for it cannot be installed beside the native one
bench_i386_dnsmasq() {
    dpkg-query -W libc6:i386 libc6-dbg:i386 >/dev/null 2>&1 || { bench_lack dnsmasq:i386 'libc6:i386 or libc6-dbg:i386 is not installed'; return 1; }
    bench_x=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
        dnsmasq-base:i386 2>/dev/null | grep -E '^lib[^ ]*:i386$' | grep -v '^libc6:' | sort -u)
    mkdir -p "$BENCH/i386/debs"
    # shellcheck disable=SC2086
    (cd "$BENCH/i386/debs" && apt-get download dnsmasq-base:i386 $bench_x && for bench_x in *.deb; do dpkg -x "$bench_x" ..; done) >"$BENCH/i386.log" 2>&1
    [ -x "$BENCH/i386/usr/sbin/dnsmasq" ] || { bench_lack dnsmasq:i386 "apt-get download dnsmasq-base:i386: $(tail -n 1 "$BENCH/i386.log")"; return 1; }
}

# bench_count KIND MACHINE COLUMN SERVER [OTHER]: instructions of a query, or that as a share of OTHER's; COLUMN 4 is one at a time, 5 in bursts
bench_count() {
    awk -v k="$1" -v m="$2" -v c="$3" -v a="$4" -v b="${5:-}" '
        $1 == k && $2 == m { v[$3] = $c }
        END { if (v[a] && b == "") print v[a]; else if (v[a] && v[b]) printf "%.3f\n", v[a] / v[b] }' "$BENCH/counts"
}

# bench_instructions: the table of the counts, and the lines with targets
bench_instructions() {
    echo "instructions a query|$(uname -m): one at a time|in bursts of 64|i386: one at a time|in bursts of 64" >"$BENCH/instructions"
    for bench_k in hit miss DoT-miss; do
        for bench_v in now ${BEFORE:+'now before'} dnsmasq; do
            bench_x="$bench_k, $(echo "$bench_v" | tr ' ' /)"
            for bench_w in 'native 4' 'native 5' 'i386 4' 'i386 5'; do
                # shellcheck disable=SC2086
                bench_y=$(bench_count "$bench_k" $bench_w $bench_v)
                bench_x="$bench_x|${bench_y:--}"
            done
            echo "$bench_x"
        done
    done >>"$BENCH/instructions"
    while read -r bench_k bench_w bench_v bench_c bench_t bench_x; do
        [ -n "$BEFORE" ] || [ "$bench_v" = dnsmasq ] || continue
        bench_verdict "$bench_w, $bench_k, $bench_x: instructions against $bench_v" most "$bench_t" '' \
            "$(bench_count "$bench_k" "$bench_w" "$bench_c" now "$bench_v")"
    done <<'END'
hit i386 dnsmasq 5 0.5 in bursts of 64
hit i386 before 4 0.40 one at a time
hit i386 before 5 0.35 in bursts of 64
miss i386 before 4 0.50 one at a time
miss i386 before 5 0.45 in bursts of 64
DoT-miss i386 before 4 0.8 one at a time
hit native before 4 0.95 one at a time
hit native before 5 0.95 in bursts of 64
miss native before 4 0.95 one at a time
miss native before 5 0.95 in bursts of 64
END
}

# cmd_bench [quick|counts]: everything, or that less exactly in three minutes, or instructions only. The tables are Markdown.
# BEFORE=TREE names the sources of another commit, with whose build the counts are compared; ROWS='hit miss' is these rows only.
cmd_bench() {
    ROUNDS=5 SLICES=6 TURNS=3 ROAD=6000 ZIPF=1000000 FILL=5
    rows=${ROWS:-hit miss road dot twenty browser silent tcp entries idle flight latency memory ratio start instructions}
    case ${1:-} in
    '') ;;
    quick) ROUNDS=3 SLICES=1 TURNS=1 ROAD=1600 ZIPF=200000 FILL=15 rows=${rows% instructions} ;;
    counts) rows=instructions ;;
    *) echo "usage: [BEFORE=TREE] ./test.sh bench [quick|counts]" >&2; return 2 ;;
    esac
    { have dnsperf nsd unbound && proc_here; } || { echo 'bench needs Linux and the Debian packages dnsperf, nsd and unbound' >&2; return 1; }
    BENCH=$T/bench BEFORE=${BEFORE:-}
    mkdir -p "$BENCH"
    for bench_x in lacks in raw table instructions counts handshakes; do : >"$BENCH/$bench_x"; done
    load_before=$(cut -d ' ' -f 1 /proc/loadavg) bench_start=$(date +%s)
    bench_upstreams
    [ ! -s "$why" ] || { cat "$why" >&2; return 1; }
    bench_ups=$plain1 bench_stay=$(cd "$T" && echo *.pid)
    for row in $rows; do
        warm=0 words=''
        : >"$BENCH/paced"
        bench_say "$row"
        "bench_row_$row"
        bench_doubts
        bench_end
    done
    bench_machine
    awk '!seen[$1, $2]++ { print $1, $2 }' "$BENCH/raw" | while read -r bench_w bench_n; do
        bench_x=$(bench_cost "$bench_w" "$bench_n" | awk '{ printf "%.2f|%.2f|%.2f|%.2f", $1, $2, $3, $4 }')
        echo "$bench_w|$bench_n|${bench_x:-not measured|||}"
    done >"$BENCH/costs"
    bench_print table 'what|target|figure|verdict'
    bench_print costs 'row|server|us a query|least round|most round|failed %'
    bench_print roads 'on the road|median ms|99 %|99.9 %|worst|without an answer'
    bench_print instructions
    bench_print handshakes 'millions of instructions of a TLS handshake, P-256|full|resumed|longest turn of the loop in the first|P-256 below P-384|longest turn'
    if [ -s "$BENCH/lacks" ]; then
        echo
        echo 'Missing or doubtful:'
        sort -u "$BENCH/lacks" | sed 's/^/- /'
    fi
    bench_say "$(($(date +%s) - bench_start)) s"
}
