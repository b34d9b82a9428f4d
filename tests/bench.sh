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
    bench_upstream nsd1 nsd "$plain1"
    bench_upstream nsd2 nsd "$plain2"
    bench_upstream nsd3 nsd "$plain3"
    real_cert=bench
    bench_upstream dot unbound "$tls" 'tcp-idle-timeout: 30000'
    bench_upstream hasty unbound "$hasty" 'tcp-idle-timeout: 500'
}

# bench_upstream NAME KIND PORT [LINE...]: a real server, over TLS if there is a $real_cert, which answers every name
bench_upstream() {
    real_back=127.0.0.1@$plain1 mode=zone bench_ups=''
    real "$@" "$(bench_lines "$2")"
}

# bench_serve NAME...: these servers take part in the row, if they serve. A NAME begins with the kind of the server; all ask the ports
# $bench_ups. $warm names are in its cache then; $words are more words for the load of this one.
bench_serve() {
    for bench_n; do
        words=''
        case $bench_n in
        *-3-upstreams) bench_ups="$plain1 $plain2 $plain3" ;;
        *-100000-entries) warm=100000 words=100000 ;;
        *-100-in-flight) up near '. delay=4'; bench_ups=${near#*@} ;;
        *-5000-in-flight) up far '. delay=200'; bench_ups=${far#*@} words=window=5000 ;;
        esac
        bench_start "$bench_n" "${bench_n%%[-.]*}" || { bench_lack "$bench_n" "$skipwhy"; continue; }
        if await 10 hears '^NOERROR' n1.sixty-byte.example +timeout=100; then
            [ "$warm" = 0 ] || sixty n="$warm" window=50 >/dev/null
            echo "$bench_n $(pid "$bench_n") $port $words" >>"$BENCH/in"
        else
            bench_lack "$bench_n" "does not serve in the row $row: $(tail -n 2 "$T/$bench_n.log" | tr '\n' ' ')"
        fi
        case $bench_n in
        *-3-upstreams) bench_ups=$plain1 ;;
        *-1000-idle) hold hold "$port" 1000 again ;;
        esac
    done
}

# bench_start NAME KIND: starts one of them, at its best: one thread, no logs
bench_start() {
    bench_lines "$2" >"$BENCH/lines"
    case $2 in
    echo) port=$(freeport) && begin "$1" "$ROOT/peer" echo "$port" ;;
    dnsproxy) proxy "$1" -c "$BENCH/lines" ${WRAP:+"user $(id -un)"} ;;         # nobody could not write the counts
    *)
        real_here "$2" || return
        port=$(freeport) real_cert='' real_back=''
        real "$1" "$2" "$port" "$(cat "$BENCH/lines")"
        real_cert=bench
        ;;
    esac
}

# bench_lines KIND: what stands in its configuration in the way of $mode beside what it has in real.sh: it has a cache (hit) or none (miss),
# asks over TLS (dot), or is asked by all of these (zone). A line with PORT stands there for each of $bench_ups, a port and perhaps a priority.
bench_lines() {
    awk -v kind="$1" -v mode="$mode" -v ports="$bench_ups" -v pin="$pin" -v zone="$T/sixty-byte.example.zone" '
        BEGIN { n = split(ports, port, " "); gsub(",", "|", mode); if (mode != "zone") mode = mode "|any" }
        $1 != kind || ("," $2 ",") !~ (",(" mode "),") { next }
        { sub(/^[^ ]+ +[^ ]+ +/, ""); sub(/PIN/, pin); sub(/ZONE/, zone) }
        !/PORT/ { print }
        /PORT/ { for (i = 1; i <= n; i++) { line = $0; split(port[i] ",1", p, ","); sub(/PORT/, p[1], line); sub(/RANK/, p[2], line); print line } }' <<'END'
nsd       zone      rrl-ratelimit: 0
nsd       zone      minimal-responses: yes
unbound   zone      incoming-num-tcp: 200
unbound   zone      local-zone: sixty-byte.example. redirect
unbound   zone      local-data: "sixty-byte.example. 86400 A 192.0.2.1"
bind9     zone      zone sixty-byte.example { type primary; file "ZONE"; };
dnsproxy  hit,miss  127.0.0.1@PORT RANK
dnsproxy  dot       127.0.0.1@PORT 1 tls pin=PIN
dnsproxy  entries   cache-size 16m
dnsproxy  idle      tcp-clients 1200
dnsproxy  flight    queries 8192
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

# bench_middle: median, least and most of the numbers that begin the lines, if there are any, and what follows the median
bench_middle() {
    sort -n | awk '{ v[NR] = $1; sub(/^[^ ]+ ?/, ""); rest[NR] = $0 }
        END { m = int((NR + 1) / 2); if (NR) print v[m], v[1], v[NR], rest[m] }'
}

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

# bench_ratio NAME OTHER: the cost of one as a multiple of the other's; OTHER may be "best"
bench_ratio() {
    [ "$2" != best ] || set -- "$1" "$(bench_best)"
    # shellcheck disable=SC2046
    set -- "$1" "$2" $(bench_cost "$row" "$1" "${2:-none}")
    case ${6:-none} in
    none) echo " $1 or ${2:-every peer} did not answer" ;;
    [0-4].*) echo "$3 against $2; rounds $4 to $5" ;;
    *) echo " $6% of the queries of $1 failed" ;;
    esac
}

# bench_faster: answers a second of dnsproxy by those of the better of unbound and stubby
bench_faster() {
    awk -v row="$row" '
        $1 == row { good[$2] += $5; slices[$2]++ }
        END {
            for (k in good) v[k] = good[k] / slices[k] / 0.2
            best = v["unbound"] > v["stubby"] ? v["unbound"] : v["stubby"]
            if (best) printf "%.2f %.0f a second, unbound %.0f, stubby %.0f\n", v["dnsproxy"] / best, v["dnsproxy"], v["unbound"], v["stubby"]
        }' "$BENCH/raw"
}

# by A B [FORMAT]: A / B, if there are both
by() { [ -z "$1" ] || awk -v a="$1" -v b="${2:-0}" -v f="${3:-%.2f}" 'BEGIN { if (b) printf f, a / b }'; }

# bench_paced WORD...: all of the row at once, with these words of load; what the peer says of each goes to $BENCH/paced behind its name
bench_paced() {
    bench_w=''
    while read -r bench_n _ port _; do
        echo "$bench_n $(sixty window=60000 "$@")" >>"$BENCH/paced" &
        bench_w="$bench_w $!"
    done <"$BENCH/in"
    # shellcheck disable=SC2086
    wait $bench_w
}

# bench_pace NAME KEY [WHICH]: the median of its rounds, or the least (2) or most (3), of what KEY is there, in milliseconds, or of the queries
# without an answer (none);  bench_paces NAME OTHER KEY: that of one by that of the other
bench_pace() {
    awk -v name="$1" -v key="$2" '$1 == name {
        for (i = 2; i < NF; i += 2) v[$i] = $(i + 1)
        print key == "none" ? v["sent"] - v["noerror"] : sprintf("%.1f", v[key "_us"] / 1000)
    }' "$BENCH/paced" | bench_middle | cut -d ' ' -f "${3:-1}"
}
bench_paces() {
    set -- "$(bench_pace "$1" "$3")" "$(bench_pace "$2" "$3")"
    echo "$(by "$1" "$2") $1 against ${2:-none} ms"
}

# ---- bench: the table ----

# bench_verdict WHAT TARGET FIGURE: a line of the table; TARGET is 'most 5 ms' or 'least 0.9'. What follows the FIGURE is a note, or tells
# why there is none.
bench_verdict() {
    [ ! -s "$why" ] || set -- "$1" "$2" " $(tr '\n' ' ' <"$why")"
    awk -v what="$1" -v target="$2" -v figure="${3:- no figure}" 'BEGIN {
        note = figure; sub(/^[^ ]* ?/, "", note); sub(/ .*/, "", figure)
        split(target, t, " "); unit = t[3] ? " " t[3] : ""
        if (figure == "") verdict = "not measured: " note
        else verdict = (t[1] == "most" ? figure + 0 <= t[2] + 0 : figure + 0 >= t[2] + 0) ? "met" : "missed"
        if (figure != "") figure = figure unit (note == "" ? "" : " (" note ")")
        print what "|at " target "|" figure "|" verdict
    }' >>"$BENCH/table"
}

# bench_verdicts: those of the row, if a command prints the figure
bench_verdicts() {
    while IFS='|' read -r bench_r bench_t bench_m bench_f; do
        case " $row ${BEFORE:+before-$row} " in *" $bench_r "*) bench_verdict "$bench_t" "$bench_m" "$(eval "$bench_f")" ;; esac
    done <<'END'
hit|cached answer over UDP, CPU a query, against the batch echo|most 1.10|bench_ratio dnsproxy echo
hit|the same against the best peer|most 0.75|bench_ratio dnsproxy best
miss|miss over one UDP upstream, against the best peer|most 0.70|bench_ratio dnsproxy best
miss|miss over three UDP upstreams in parallel, against one|most 2.2|bench_ratio dnsproxy-3-upstreams dnsproxy
road|3 % lost each way, 20 +- 5 ms, one upstream: 99 % answered within, against unbound|most 0.90|bench_paces dnsproxy-1.lossy unbound-1.lossy p99
road|the same: 99.9 %, against unbound|most 0.90|bench_paces dnsproxy-1.lossy unbound-1.lossy p999
road|the same: all, against unbound|most 1.0|bench_paces dnsproxy-1.lossy unbound-1.lossy worst
road|three upstreams of priorities 1, 2, 3: 99 %, against unbound|most 0.90|bench_paces dnsproxy-3.lossy unbound-3.lossy p99
road|the same: 99.9 %, against unbound|most 0.80|bench_paces dnsproxy-3.lossy unbound-3.lossy p999
road|the same: all, against unbound|most 0.8|bench_paces dnsproxy-3.lossy unbound-3.lossy worst
road|three upstreams of one priority: 99 %, against unbound|most 0.45|bench_paces dnsproxy-alike.lossy unbound-3.lossy p99
road|10 % lost each way, one upstream: 99 %, against unbound|most 0.9|bench_paces dnsproxy-1.bad unbound-1.bad p99
road|3 % lost, one upstream: queries without an answer|most 0|bench_pace dnsproxy-1.lossy none
road|datagrams a query, 3 % lost each way|most 1.12|bench_sent dnsproxy_1_lossy_1
road|10 % lost, one upstream: queries of 6,000 without an answer|most 2|bench_pace dnsproxy-1.bad none
road|datagrams a query, nothing lost|most 1.02|bench_sent dnsproxy_1_clear_1
road|datagrams a query 5 s after the delay went from 10 to 150 ms|most 1.05|bench_sent dnsproxy_1_jump_1
road|a name that takes its resolver 3.5 s, which drops what is older than 1.9 s|most 4000 ms|by "$bench_late" 1000 %.1f
dot|miss over DoT, 100 in flight, unbound upstream (an answer a record), against the best peer|most 0.23|bench_ratio dnsproxy best
twenty|DoT before unbound, 20 in flight: queries a second, against the better of unbound and stubby|least 1.2|bench_faster
tcp|cached answer over a TCP connection with pipelined queries, against unbound|most 0.6|bench_ratio dnsproxy best
entries|cached, with 100,000 entries in the cache against 1,000|most 1.15|bench_ratio dnsproxy-100000-entries dnsproxy-1000-entries
idle|cached, with 1,000 idle TCP clients against none|most 1.10|bench_ratio dnsproxy-1000-idle dnsproxy
flight|misses with 5,000 in flight (`queries 8192`) against 100|most 1.3|bench_ratio dnsproxy-5000-in-flight dnsproxy-100-in-flight
latency|latency added to a miss at low load (one query at a time), median|most 60 us|cat "$BENCH/latency"
ratio|hit ratio, Zipf(1.0) stream of 1,000,000 names, memory for 10,000, share of that of an exact LRU|least 0.95|echo "$bench_v"
start|start to first answer, plain upstream|most 5 ms|bench_starts
instructions|i386, hit, in bursts of 64: instructions against dnsmasq|most 0.5|bench_count hit i386 5 now dnsmasq
before-instructions|i386, hit, one at a time: instructions against before|most 0.40|bench_count hit i386 4 now before
before-instructions|i386, hit, in bursts of 64: instructions against before|most 0.35|bench_count hit i386 5 now before
before-instructions|i386, miss, one at a time: instructions against before|most 0.50|bench_count miss i386 4 now before
before-instructions|i386, miss, in bursts of 64: instructions against before|most 0.45|bench_count miss i386 5 now before
before-instructions|i386, DoT-miss, one at a time: instructions against before|most 0.8|bench_count DoT-miss i386 4 now before
before-instructions|native, hit, one at a time: instructions against before|most 0.95|bench_count hit native 4 now before
before-instructions|native, hit, in bursts of 64: instructions against before|most 0.95|bench_count hit native 5 now before
before-instructions|native, miss, one at a time: instructions against before|most 0.95|bench_count miss native 4 now before
before-instructions|native, miss, in bursts of 64: instructions against before|most 0.95|bench_count miss native 5 now before
END
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

# bench_costs: the rows that ask what an answer costs: name|mode|names in the caches|servers|load|what must have been so
bench_costs() {
    while IFS='|' read -r bench_r mode warm bench_s bench_l bench_c; do
        [ "$bench_r" = "$row" ] || continue
        [ "$mode" != dot ] || bench_ups=$tls
        bench_serve $bench_s
        bench_rounds $bench_l
        eval "$bench_c"
    done <<'END'
hit|hit|1000|echo dnsproxy dnsdist unbound smartdns dnsmasq|bench_dnsperf 7919 100 1000|
miss|miss|0|dnsproxy dnsproxy-3-upstreams dnsdist unbound smartdns dnsmasq|bench_dnsperf 1 100 900000|within 0 100 "$(count hits)" hits
dot|dot|0|dnsproxy unbound smartdns stubby dnsdist|bench_dnsperf 1 100 900000|within 0 100 "$(count hits)" hits
twenty|dot|0|dnsproxy unbound stubby|bench_dnsperf 1 20 900000|
tcp|hit|1000|dnsproxy unbound|bench_many tcp=1 ms=200 from=100000 names=1000|
entries|hit,entries|1000|dnsproxy-1000-entries dnsproxy-100000-entries|bench_dnsperf 7919 100 1000|within 99000 100010 "$(count entries cache)" entries
idle|hit,idle|1000|dnsproxy dnsproxy-1000-idle|bench_dnsperf 7919 100 1000|within 990 1001 "$(count tcp)" 'idle clients'
flight|miss,flight|0|dnsproxy-100-in-flight dnsproxy-5000-in-flight|bench_many ms=1000 every=40|
END
}

# A browser: three names every 20 ms, each server's own. And A and AAAA of one every 0.8 s.
bench_row_browser() {
    while read -r web_k web_n web_x; do
        mode=dot bench_at=100000 web_d=dnsproxy.$web_k.$web_n web_s=stubby.$web_k.$web_n
        real_here "$web_k" || { bench_lack browser "$skipwhy"; continue; }
        web_p=$(freeport)
        bench_upstream server "$web_k" "$web_p"
        mode=dot bench_ups=$web_p
        for bench_r in $(seq "$TURNS"); do              # in turn, for before unbound both are slow when both ask
            for web_p in "$web_d" "$web_s"; do
                [ "$web_p" != "stubby.$web_k.2" ] || continue
                bench_serve "$web_p"
                # shellcheck disable=SC2086
                bench_paced from=$bench_at $web_x
                kill_pid "$web_p"
                : >"$BENCH/in"
                bench_at=$((bench_at + 1000))
            done
        done
        web_m=$(bench_pace "$web_d" p50) web_y=$(bench_pace "$web_d" p99) web_z=$(bench_pace "$web_s" p99)
        if [ "$web_n" = 2 ]; then
            bench_verdict "DoT to $web_k, A and AAAA every 0.8 s: the slowest of all" 'most 5 ms' "$(bench_pace "$web_d" worst 3) median $web_m"
        else
            bench_verdict "DoT to $web_k, three names every 20 ms: median" 'most 1 ms' "$web_m stubby $(bench_pace "$web_s" p50)"
            bench_verdict 'the same: 99 %' 'most 2 ms' "$web_y stubby ${web_z:-no answer}"
            bench_verdict "the same: 99 %, against stubby's" 'most 0.5' "$(by "$web_y" "$web_z")"
        fi
        kill_pid server TERM
        bench_doubts
    done <<'END'
unbound 3 every=20000 burst=3 n=450
nsd     3 every=20000 burst=3 n=450
bind9   3 every=20000 burst=3 n=450
nsd     2 every=800000 burst=2 pairs n=16
dnsdist 2 every=800000 burst=2 pairs n=16
END
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
        bench_verdict "everything on a connection is dropped, answers in 40 ms, $silent_k: the slowest of 50 a second" 'most 600 ms' \
            "$(val slowest_ms "$out")"
    done
}

# bench_road NAME RULE...: that server at the end of roads of its own, an upstream NAME_N for each; a NAME with 3 has three of priorities 1
# to 3, with alike of one priority
bench_road() {
    bench_ups='' bench_i=0
    case $1 in *-3.*) bench_p='1 2 3' ;; *-alike.*) bench_p='1 1 1' ;; *) bench_p=1 ;; esac
    for bench_p in $bench_p; do
        bench_i=$((bench_i + 1)) road_u=$(echo "$1" | tr -c 'a-z0-9\n' _)_$bench_i
        up "$road_u" ". ttl=86400 $2"
        bench_ups="$bench_ups $(at "$road_u" | sed 's/.*@//'),$bench_p"
    done
    bench_serve "$1"
}

# bench_sent ROAD: datagrams a name that have come there
bench_sent() { awk '$1 == "query" { n++; names += !seen[$8]++ } END { if (names) printf "%.3f", n / names }' "$T/$1.q"; }

bench_row_road() {
    for road_n in dnsproxy-1.lossy dnsproxy-3.lossy dnsproxy-alike.lossy unbound-1.lossy unbound-3.lossy dnsmasq-1.beside dnsdist-1.beside \
        smartdns-3.beside dnsproxy-1.bad unbound-1.bad dnsproxy-1.clear; do
        case $road_n in *.bad) road_l=lose=10 ;; *.clear) road_l='' ;; *) road_l=lose=3 ;; esac
        bench_road "$road_n" "delay=30 jitter=10 $road_l"
    done
    for bench_r in $(seq "$TURNS"); do bench_paced from=$((90000 + bench_r * 10000)) rate=200 n="$ROAD"; done
    cut -d ' ' -f 1 "$BENCH/paced" | sort -u | while read -r bench_n; do
        echo "$bench_n|$(for bench_c in p50 p99 p999 worst none; do bench_pace "$bench_n" $bench_c; done | paste -s -d '|')"
    done >"$BENCH/roads"
    bench_road dnsproxy-1.jump 'delay=8 jitter=2'
    meanwhile jump sixty rate=200 n=3000 window=60000
    sleep 3
    rules dnsproxy_1_jump_1 '. delay=148 jitter=2'
    sleep 5
    forget dnsproxy_1_jump_1
    ended jump
    up late '. delay=3500'
    real_cert='' real_back=$late bench_x=$(freeport)
    real resolver unbound "$bench_x" 'unknown-server-time-limit: 5000'
    real_cert=bench
    proxy dnsproxy "127.0.0.1@$bench_x 1"
    bench_late=$(val worst_us "$(sixty n=1)")
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
    done | awk '{ print $2 - $1, $2, $1, $3 - $1 }' | bench_middle |
        awk '{ print $1, $4, "us instead of", $5 "; rounds", $2, "to", $3 "; a bare relay adds", $6 }' >"$BENCH/latency"
}

# bench_resident PROGRAM KIND MOST [NOTE]: two lines of the table: what it has resident when its cache is full, the line of whose status
# is then $cache, and what a pinned upstream adds
bench_resident() {
    bench_bin=$BIN BIN=$1 bench_m=''
    for bench_x in "$plain1 1" "$tls 1 tls pin=$pin"; do
        proxy filled "127.0.0.1@$bench_x"
        await 10 is 0 bench_unconnected || fail 'no connection to the DoT server'
        sixty n=15000 window=10 every=$((1000 / FILL)) >/dev/null
        bench_m="$bench_m $(bench_rss filled)"
        [ "${bench_x#* }" != 1 ] || cache=$(adm status | grep '^cache ')
    done
    BIN=$bench_bin
    # shellcheck disable=SC2086
    set -- "$2" "$3" "${4:-}" $bench_m
    bench_verdict "resident memory, default config, cache full, plain upstream: $1" "most $2 MiB" \
        "$(by "$4" 1024) filled at $FILL,000 answers a second${3:+; $3}"
    bench_verdict "one pinned DoT upstream more: $1" 'most 0.1 MiB' "$(by "$(($5 - $4))" 1024) the same, but all answers from it"
}
bench_unconnected() { adm status | grep -c 'connects 0'; }
bench_rss() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$(pid "$1")/status"; }

bench_row_memory() {
    mkdir -p "$BENCH/made"
    cp "$SRC/Makefile" "$SRC/dnsproxy.c" "$BENCH/made/"
    bench_o=$(make -C "$BENCH/made" BEARSSL="$BEARSSL" dnsproxy dnsproxy-static 2>&1) || fail "make: $(echo "$bench_o" | tail -n 2)"
    port=$(freeport)
    begin reference "$ROOT/peer" echo "$port"
    sixty n=64 window=64 burst=64 >/dev/null
    bench_resident "$BENCH/made/dnsproxy-static" 'static musl' 1.85
    bench_resident "$BENCH/made/dnsproxy" 'dynamic glibc' 3.0 "the echo: $(by "$(bench_rss reference)" 1024)"
    bench_entries=$(val entries "$cache") bench_size=$(val size "$cache")
    bench_verdict 'bytes of cache memory for an answer of 60 bytes' 'most 100' \
        "$(by "$bench_size" "$bench_entries" %.1f) $bench_size bytes hold $bench_entries answers"
    bench_x=$(wc -c <"$BENCH/made/dnsproxy-static")
    bench_verdict 'static musl binary, stripped, -Os' 'most 205 KiB' "$(by "$bench_x" 1024 %.1f) $bench_x bytes"
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
    bench_y=$(bench_perf -p "$port" -d "$2" -n 1 -q 32)
    bench_a=$((ZIPF / 2 + bench_a - $(upstream "127.0.0.1@$plain1" sent))) bench_l=$((${bench_x#* } + ${bench_y#* }))
    bench_m=$(count entries cache)
    bench_g=$(awk -v room="${bench_m:-1}" '
        { known = $1 in at; at[$1] = NR; name[NR] = $1; held += !known; hits += known && FILENAME ~ /ab$/ }
        held > room { while (at[name[++oldest]] != oldest) delete name[oldest]; delete at[name[oldest]]; held-- }
        END { print hits }' "$@")
    bench_v=" $(by $((2 * bench_a)) "$ZIPF" %.4f) against $(by $((2 * bench_g)) "$ZIPF" %.4f), $bench_m entries, $bench_l queries lost"
    [ "$bench_l" != 0 ] || bench_v=$(by "$bench_a" "$bench_g" %.3f)$bench_v
}

# bench_starts: how long it takes to the first answer
bench_starts() {
    for bench_r in 1 2 3 4 5 6 7 8 9 10 11; do
        port=$(freeport)
        peer start "$port" n1.sixty-byte.example "$BIN" "listen 127.0.0.1@$port" "admin 127.0.0.1@$(freeport)" "127.0.0.1@$plain1 1" 2>/dev/null
    done | bench_middle | awk '$3 < 5000000 { printf "%.1f 11 starts, %.1f to %.1f\n", $1 / 1000, $2 / 1000, $3 / 1000 }'
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

# bench_counted KIND MACHINE SERVER WHAT [WORD...]: instructions of a query to a server of the kind WHAT, one at a time and in bursts of 64,
# of $bench_names names; the WORDs stand before its command. What the start, the first connection and the first answers cost is in two runs,
# and so not in their difference.
bench_counted() {
    bench_say "instructions: $1 $2 $3"
    case $1 in hit) bench_names=100 ;; *) bench_names=900000 ;; esac
    case $1 in DoT-miss) mode=dot bench_ups=$tls ;; *) mode=$1 bench_ups=$plain1 ;; esac
    for bench_x in '1000 0' '3000 0' '1000 3200'; do
        bench_under
        real_by="${5:-} $WRAP"
        bench_start counted "$4" || fail "$skipwhy"
        await 30 hears '^NOERROR' n1.sixty-byte.example || fail "does not serve: $(tail -n 2 "$T/counted.log")"
        good "${bench_x% *}" from=100000 window=1 names="$bench_names" name=n%d.sixty-byte.example
        good "${bench_x#* }" from=$((100000 + 500000 % bench_names)) window=64 burst=64 names="$bench_names" name=n%d.sixty-byte.example
        bench_stop
        sed -n 's/^totals: //p' "$BENCH/callgrind"
    done | awk -v key="$1 $2 $3" '{ t[NR] = $1 } END { printf "%s %.0f %.0f\n", key, (t[2] - t[1]) / 2000, (t[3] - t[1]) / 3200 }' >"$BENCH/counted"
    real_by=''
    [ -s "$why" ] || cat "$BENCH/counted" >>"$BENCH/counts"
    bench_doubts
}

# bench_handshake MACHINE: instructions of a full TLS handshake with a chain of P-256, of one resumed, of one with P-256 below
# P-384, and of the longest turn of the loop in a full one. The counts are cut where poll() begins; $hasty closes what is idle, and the
# connection is made again.
bench_handshake() {
    bench_say "instructions: handshake $1"
    for bench_x in "full 127.0.0.1@$tls" "resumed 127.0.0.1@$hasty" "full $below"; do
        bench_under --dump-before=poll
        proxy counted "user $(id -un)" 'log debug' "$ca" "${bench_x#* } 1 tls=dns.test"
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
            BIN=$BENCH/counted.$bench_w.$bench_v bench_d=$SRC
            [ "$bench_v" = now ] || bench_d=$BEFORE
            bench_compile "$bench_w" "$bench_d" "$BIN" || continue
            for bench_k in hit miss DoT-miss; do bench_counted $bench_k "$bench_w" "$bench_v" dnsproxy; done
            [ "$bench_v" = before ] || bench_handshake "$bench_w"
        done
    done
    BIN=$bench_bin
    if bench_i386_dnsmasq; then
        bench_l=$BENCH/i386/lib/i386-linux-gnu:$BENCH/i386/usr/lib/i386-linux-gnu
        for bench_k in hit miss; do bench_counted $bench_k i386 dnsmasq dnsmasq "env LD_LIBRARY_PATH=$bench_l PATH=$BENCH/i386/usr/sbin:$PATH"; done
    fi
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
    bench_stay=$(basename -s .pid "$T"/*.pid)
    for row in $rows; do
        warm=0 mode=miss bench_ups=$plain1
        : >"$BENCH/paced"
        bench_say "$row"
        if command -v "bench_row_$row" >/dev/null; then "bench_row_$row"; else bench_costs; fi
        bench_verdicts
        reap $bench_stay
        bench_doubts
        : >"$BENCH/in"
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
