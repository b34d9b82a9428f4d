# shellcheck shell=sh disable=SC2034,SC2154
# bench.sh - speed and size beside other forwarders.
# Alone: ./test.sh bench [quick|counts]

# ---- bench: speed and size beside other forwarders ------------------------
#
# Cost is CPU time (user and system, threads and children included, from /proc) divided by good answers, on loopback. A row's
# servers all run at once and are loaded in turn for a fraction of a second, many times over, so that what disturbs the machine
# disturbs them alike. A ratio is the median of the rounds' ratios. The reference and the loads (tests/gauge.h) are $BENCH/gauge.

# ---- bench: servers ----

# bench_say TEXT: what is going on, to standard error
bench_say() { echo "# bench: $*" >&2; }

# bench_run NAME CMD...: starts CMD as NAME, not measured, until the row ends
bench_run() {
    bench_also="$bench_also $1"
    begin "$@"
}

# bench_upstreams: $plain1 to $plain3 and $tls are ports of name servers that answer every name; $pin belongs to the last, which
# is unbound, since nsd 4.6 answers only the first of the queries in a TLS record; $hasty is one that soon closes what is idle
bench_upstreams() {
    tls_ready
    # as long as those of public CAs: key and end are more than 256 bytes apart, which is how BearSSL hands them on
    crt int384 by=root384 key=P-384 cn='Test intermediate P-384' ca san="dns:$(printf '%060d.%060d.%060d.%060d' 0 0 0 0)"
    crt below by=int384 cn=other.test san=dns:other.test
    chmod 644 "$T"/pki/*.key
    dot below below
    cat >"$T/test.zone" <<'END'
$TTL 86400
@ SOA ns host 1 3600 600 86400 300
@ NS ns
ns A 192.0.2.53
* A 192.0.2.1
END
    plain1=$(freeport) plain2=$(freeport) plain3=$(freeport) tls=$(freeport) hasty=$(freeport)
    bench_i=0 real_cert=''
    for bench_p in "$plain1" "$plain2" "$plain3"; do
        bench_i=$((bench_i + 1))
        bench_real "nsd$bench_i" nsd "$bench_p" 'minimal-responses: yes' 'rrl-ratelimit: 0' || return 1
    done
    real_cert=other pin=$(cat "$T/pki/other.pin")
    bench_real dot unbound "$tls" 'tcp-idle-timeout: 30000' 'incoming-num-tcp: 200' &&
        bench_real hasty unbound "$hasty" 'tcp-idle-timeout: 500' 'incoming-num-tcp: 200' || tls=''
}

# bench_real NAME KIND PORT [LINE...]: a real server, over TLS if there is a $real_cert, which answers every name
bench_real() {
    real_back='' bench_k=$2
    : >"$why"
    case $2 in
    unbound) set -- "$@" 'local-zone: sixty-byte.example. redirect' 'local-data: "sixty-byte.example. 86400 A 192.0.2.1"' ;;
    nsd) set -- "$@" zone: 'name: sixty-byte.example' 'zonefile: test.zone' ;;
    *) real_back=127.0.0.1@$plain1 ;;
    esac
    real "$@"
    [ ! -s "$why" ] || { bench_lack "$bench_k" "$(tr '\n' ' ' <"$why")"; return 1; }
}

# bench_lack WORD WHY: remembers why something could not be measured
bench_lack() { echo "$1: $2" >>"$BENCH/lacks"; bench_say "$1: $2"; }

# bench_in NAME PORT: the server takes part in the row, if it serves. Caches are warmed with $warm names.
bench_in() {
    if "$BENCH/gauge" answers "$2" 10 && { [ "$warm" = 0 ] || "$BENCH/gauge" load "$2" count="$warm" window=50 >/dev/null; }; then
        echo "$1 $(pid "$1") $2" >>"$BENCH/in"
    else
        bench_lack "$1" "does not serve in the row $row: $(tail -n 2 "$T/$1.log" | tr '\n' ' ')"
    fi
}

# bench_slow NAME MS: an upstream that answers after so long; its port is $bench_x
bench_slow() {
    bench_x=$(freeport)
    bench_run "$1" $bench_one "$BENCH/gauge" road 0 $(($2 / 2)) 0 0 "$bench_x"
}

# bench_proxy NAME LINE...: dnsproxy
bench_proxy() {
    proxy "$@"
    bench_in "$1" "$port"
}

# bench_peer KIND MODE [NAME]: another forwarder at its best: one thread, no logs; MODE hit has a cache, miss has none and asks
# $bench_ups or $plain1, dot asks $tls
bench_peer() {
    have "$1" || { bench_lack "$1" 'not installed'; return; }
    bench_p=$(freeport)
    bench_c=$BENCH/${3:-$1}.$2.yml
    size=0
    [ "$2" != hit ] || size=20000
    "bench_$1" "$2" >"$bench_c"
    # shellcheck disable=SC2046
    begin "${3:-$1}" $(real_command "$1") "$bench_c"
    bench_in "${3:-$1}" "$bench_p"
}

# bench_each FORMAT: a line for each upstream
# shellcheck disable=SC2059,SC2086
bench_each() { printf "$1\n" ${bench_ups:-$plain1}; }

# bench_peers MODE KIND...
bench_peers() {
    bench_y=$1
    shift
    for bench_k; do bench_peer "$bench_k" "$bench_y"; done
}

# Each of these prints the configuration for a mode.

bench_dnsmasq() {
    printf '%s\n' "port=$bench_p" listen-address=127.0.0.1 bind-interfaces no-resolv no-hosts "pid-file=$BENCH/dnsmasq.pid" "user=$(id -un)" \
        "cache-size=$((size / 2))" dns-forward-max=2000
    bench_each server=127.0.0.1#%s
}

bench_unbound() {
    printf '%s\n' server: "interface: 127.0.0.1@$bench_p" 'num-threads: 1' 'username: ""' 'chroot: ""' "directory: \"$BENCH\"" 'pidfile: ""' \
        'use-syslog: no' 'verbosity: 0' 'module-config: "iterator"' 'do-not-query-localhost: no' 'so-reuseport: no' 'outgoing-range: 4096' \
        'num-queries-per-thread: 2048' 'incoming-num-tcp: 100' 'minimal-responses: yes' 'qname-minimisation: no' 'aggressive-nsec: no' \
        'unblock-lan-zones: yes' 'msg-cache-slabs: 1' 'rrset-cache-slabs: 1' 'infra-cache-slabs: 1' 'key-cache-slabs: 1'
    [ "$size" != 0 ] || printf '%s\n' 'msg-cache-size: 0' 'rrset-cache-size: 0'
    printf '%s\n' remote-control: 'control-enable: no' forward-zone: 'name: .'
    case $1 in
    dot) printf '%s\n' 'forward-tls-upstream: yes' "forward-addr: 127.0.0.1@$tls" ;;
    *) bench_each 'forward-addr: 127.0.0.1@%s' ;;
    esac
}

bench_dnsdist() {
    printf '%s\n' 'setSecurityPollSuffix("")' "setLocal('127.0.0.1:$bench_p')" 'setMaxTCPClientThreads(1)' 'setMaxUDPOutstanding(65535)' \
        'setVerboseHealthChecks(false)'
    case $1 in
    dot) echo "newServer({address='127.0.0.1:$tls', tls='openssl', validateCertificates=false, maxInFlight=1000}):setUp()" ;;
    *) bench_each "newServer({address='127.0.0.1:%s'}):setUp()" ;;
    esac
    [ "$size" = 0 ] || echo "getPool(''):setCache(newPacketCache($size, {numberOfShards=1}))"
}

bench_smartdns() {
    printf '%s\n' "bind 127.0.0.1:$bench_p" "cache-size $size" 'cache-persist no' 'speed-check-mode none' \
        'dualstack-ip-selection no' 'prefetch-domain no' 'serve-expired no' 'rr-ttl-min 0' 'log-level fatal' "log-file $BENCH/smartdns.log"
    case $1 in
    dot) echo "server-tls 127.0.0.1:$tls -no-check-certificate" ;;
    *) bench_each 'server 127.0.0.1:%s' ;;
    esac
}

bench_stubby() {
    printf '%s\n' 'resolution_type: GETDNS_RESOLUTION_STUB' 'dns_transport_list: [GETDNS_TRANSPORT_TLS]' \
        'tls_authentication: GETDNS_AUTHENTICATION_NONE' 'idle_timeout: 60000' 'round_robin_upstreams: 0' \
        "listen_addresses: [127.0.0.1@$bench_p]" 'upstream_recursive_servers:' '  - address_data: 127.0.0.1' "    tls_port: $tls"
}

# ---- bench: loads and rounds ----

# Each takes a port and the server's name, and prints how many queries were answered and how many not.

# The names (at + I * STEP) % MOD, FLIGHT of them in flight; a server whose name says so is asked for 100,000 names
bench_dnsperf() {       # ... STEP MOD [FLIGHT]
    case $2 in *-100000-*) set -- "$1" "$2" "$3" 100000 ;; esac
    awk -v at="$bench_at" -v step="$3" -v mod="$4" 'BEGIN {
        for (i = 0; i < 20000; i++) printf "n%06d.sixty-byte.example A\n", (at + i * step) % mod
    }' >"$BENCH/names"
    bench_perf -p "$1" -d "$BENCH/names" -l 0.2 -q "${5:-100}" -t 1
}
bench_perf() {
    dnsperf -s 127.0.0.1 "$@" 2>/dev/null | awk '
        /Queries sent:/ { sent = $3 }
        /Response codes:/ { for (i = 3; i < NF; i++) if ($i == "NOERROR") good = $(i + 1) }
        END { print good + 0, sent - good }'
}

bench_stream() { "$BENCH/gauge" load "$1" tcp ms=200 window=100 names=1000; }

# 25 queries a millisecond both times: 5,000 at an upstream that takes 200 ms, 100 at one that takes 4
bench_flight() {
    bench_y=100
    case $2 in *5000*) bench_y=5000 ;; esac
    "$BENCH/gauge" load "$1" ms=1000 window="$bench_y" first="$bench_at" names=100000 every=40
}

# bench_cpu PID: microseconds of user and system time that it, its threads and its children have had, by the scheduler's account
bench_cpu() {
    for bench_c in "$1" $(cat "/proc/$1/task"/*/children); do cat "/proc/$bench_c/task"/*/schedstat; done |
        awk '{ us += $1 / 1000 } END { printf "%.0f\n", us }'
}

# bench_rounds LOAD [WORD...]: loads the servers of the row in turn; results go to $BENCH/raw as ROW NAME ROUND CPU ANSWERED LOST
bench_rounds() {
    bench_say "$row: $(sed 's/ .*//' "$BENCH/in" | paste -s -d ' ')"
    bench_at=0 bench_l=$1
    shift
    for bench_r in $(seq "$ROUNDS"); do
        for _ in $(seq "$SLICES"); do
            while read -r bench_n bench_q bench_p; do
                bench_a=$(bench_cpu "$bench_q")
                bench_d=$("$bench_l" "$bench_p" "$bench_n" "$@")
                bench_b=$(bench_cpu "$bench_q")
                echo "$row $bench_n $bench_r $((bench_b - bench_a)) $bench_d"
            done <"$BENCH/in" >>"$BENCH/raw"
            bench_at=$((bench_at + 20000))
        done
    done
}

# bench_end: the row's servers end
bench_end() {
    for bench_n in $(sed 's/ .*//' "$BENCH/in") $bench_also; do kill_pid "$bench_n"; done
    : >"$BENCH/in"
    bench_also=''
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
    awk -v row="$row" '$1 == row && $2 !~ /^(dnsproxy|echo)/ && !seen[$2]++ { print $2 }' "$BENCH/raw" |
        while read -r bench_n; do echo "$(bench_cost "$row" "$bench_n") $bench_n"; done |
        awk 'NF == 5 && $4 < 5 && (best == "" || $1 < least) { least = $1; best = $5 } END { print best }'
}

# by A B [FORMAT]: A / B, if there are both
by() { [ -z "$1" ] || awk -v a="$1" -v b="${2:-0}" -v f="${3:-%.2f}" 'BEGIN { if (b) printf f, a / b }'; }

# ---- bench: the table ----

# bench_verdict WHAT SENSE LIMIT UNIT FIGURE [NOTE]: a line of the table; SENSE is 'most' or 'least', no FIGURE means not measured
bench_verdict() {
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

# A row is a set of servers, a load and what is compared. warm is how many names the caches hold before the load; $row is the row.

bench_row_hit() {
    warm=1000
    bench_p=$(freeport)
    bench_run echo "$BENCH/gauge" echo "$bench_p"
    bench_in echo "$bench_p"
    bench_proxy dnsproxy "127.0.0.1@$plain1 1"
    bench_peers hit dnsdist unbound smartdns dnsmasq
    bench_rounds bench_dnsperf 7919 1000
    bench_compare 'cached answer over UDP, CPU a query, against the batch echo' 1.10 dnsproxy echo
    bench_compare 'the same against the best peer' 0.75 dnsproxy best
}

bench_row_miss() {
    bench_proxy dnsproxy "127.0.0.1@$plain1 1"
    bench_proxy dnsproxy-3-upstreams "127.0.0.1@$plain1 1" "127.0.0.1@$plain2 1" "127.0.0.1@$plain3 1"
    bench_peers miss dnsdist unbound smartdns dnsmasq
    bench_rounds bench_dnsperf 1 1000000
    bench_missed dnsproxy
    bench_compare 'miss over one UDP upstream, against the best peer' 0.70 dnsproxy best
    bench_compare 'miss over three UDP upstreams in parallel, against one' 2.2 dnsproxy-3-upstreams dnsproxy
}

bench_row_dot() {
    bench_proxy dnsproxy "127.0.0.1@$tls 1 tls pin=$pin"
    bench_peers dot unbound smartdns stubby dnsdist
    bench_rounds bench_dnsperf 1 1000000
    bench_missed dnsproxy
    bench_compare 'miss over DoT, 100 in flight, unbound upstream (an answer a record), against the best peer' 0.23 dnsproxy best
}

bench_row_twenty() {
    bench_proxy dnsproxy "127.0.0.1@$tls 1 tls pin=$pin"
    bench_peers dot unbound stubby
    bench_rounds bench_dnsperf 1 1000000 20
    # shellcheck disable=SC2046
    set -- $(awk -v s="$(awk "BEGIN { print $ROUNDS * $SLICES * 0.2 }")" '
        $1 == "twenty" { good[$2] += $5 / s }
        END {
            b = good["unbound"] > good["stubby"] ? good["unbound"] : good["stubby"]
            if (b) printf "%.2f %.0f %.0f %.0f", good["dnsproxy"] / b, good["dnsproxy"], good["unbound"], good["stubby"]
        }' "$BENCH/raw")
    bench_verdict 'DoT before unbound, 20 in flight: queries a second, against the better of unbound and stubby' least 1.2 '' "${1:-}" \
        "${2:-no} a second, unbound ${3:-none}, stubby ${4:-none}"
}

# A browser: three names every 20 ms, each server's own. And A and AAAA of one every 0.8 s.
bench_row_browser() {
    web_dot=$tls real_cert=good
    while IFS='|' read -r web_k web_c web_x web_n; do
        have $web_c || { bench_lack browser "$web_c is not installed"; continue; }
        tls=$(freeport)
        bench_real server "$web_k" "$tls" || continue
        for web_r in 1 2 $([ "${1:-}" = quick ] || seq 3 6); do            # in turn, for before unbound both are slow when both ask
            case $((web_r % 2))$web_n in
            1*) bench_proxy "dnsproxy.$web_k.$web_n" "$ca" "127.0.0.1@$tls 1 tls=dns.test" ;;
            03) bench_peer stubby dot "stubby.$web_k.3" ;;
            *) continue ;;
            esac
            bench_paced "$web_r" burst="$web_n" $web_x
            bench_end
        done
        web_m=$(bench_pace "dnsproxy.$web_k.$web_n" 4) web_y=$(bench_pace "dnsproxy.$web_k.$web_n" 5)
        if [ "$web_n" = 2 ]; then
            bench_verdict "DoT to $web_k, A and AAAA every 0.8 s: the slowest of all" most 5 ' ms' \
                "$(awk -v n="dnsproxy.$web_k.2" '$1 == n && NF == 7 && $7 > most { most = $7 } END { print most }' "$BENCH/paced")" "median $web_m"
        else
            web_z=$(bench_pace "stubby.$web_k.3" 5)
            bench_verdict "DoT to $web_k, three names every 20 ms: median" most 1 ' ms' "$web_m" "stubby $(bench_pace "stubby.$web_k.3" 4)"
            bench_verdict 'the same: 99 %' most 2 ' ms' "$web_y" "stubby ${web_z:-no answer}"
            bench_verdict "the same: 99 %, against stubby's" most 0.5 '' "$(by "$web_y" "$web_z")"
        fi
        kill_pid server TERM
    done <<'END'
unbound|unbound|every=20000 count=450|3
nsd|nsd|every=20000 count=450|3
bind9|named|every=20000 count=450|3
nsd|nsd|every=800000 count=16|2
dnsdist|dnsdist|every=800000 count=16|2
END
    tls=$web_dot
}

# A connection whose packets are all dropped from now on, while nobody closes it; the scripted server answers after 40 ms
bench_row_silent() {
    have iptables && netns || { bench_lack silent "root, iptables or network namespaces are missing"; return; }
    up other net=11
    for silent_k in one two; do
        dot quiet good : net=10 delay=40
        : >"$why"
        set -- "$ca" "$quiet 1 tls=dns.test"
        [ "$silent_k" = one ] || set -- "$@" "$other 2"
        proxy dnsproxy "$@"
        meanwhile asked many n=150 rate=50 window=60000 name=n%x.sixty-byte.example
        await 5 sees quiet '^query' 50
        silent_p=$(sed -n 's/^open .*@//p' "$T/quiet.q" | tail -n 1)
        for silent_x in "--sport $silent_p" "--dport $silent_p"; do ns iptables -A INPUT -p tcp $silent_x -j DROP || fail 'iptables does not drop'; done
        ended asked
        silent_x=$(val slowest_ms "$out")
        [ "$(val noerror "$out")" = 150 ] && [ "$(seen quiet '^open')" -gt 1 ] && [ ! -s "$why" ] || silent_x=''
        bench_verdict "everything on a connection is dropped, answers in 40 ms, $silent_k upstream$([ "$silent_k" = one ] || echo s): the slowest of 50 a second" most 600 ' ms' "$silent_x" \
            "$([ -n "$silent_x" ] || echo "$out")"
        kill_pid dnsproxy
        kill_pid quiet
    done
    NS=''
    kill_pid netns
}

bench_row_tcp() {
    warm=1000
    bench_proxy dnsproxy "127.0.0.1@$plain1 1"
    bench_peer unbound hit
    bench_rounds bench_stream
    bench_compare 'cached answer over a TCP connection with pipelined queries, against unbound' 0.6 dnsproxy best
}

bench_row_entries() {
    warm=1000
    bench_proxy dnsproxy-1000-entries "127.0.0.1@$plain1 1" 'cache-size 16m'
    warm=100000
    bench_proxy dnsproxy-100000-entries "127.0.0.1@$plain1 1" 'cache-size 16m'
    bench_x=$(cached entries)
    [ "${bench_x:-0}" -ge 99000 ] || bench_lack entries "of 100,000 names the cache holds ${bench_x:-none}"
    bench_rounds bench_dnsperf 7919 1000
    bench_compare 'cached, with 100,000 entries in the cache against 1,000' 1.15 dnsproxy-100000-entries dnsproxy-1000-entries
}

bench_row_idle() {
    warm=1000
    bench_proxy dnsproxy "127.0.0.1@$plain1 1" 'tcp-clients 1200'
    bench_proxy dnsproxy-1000-idle "127.0.0.1@$plain1 1" 'tcp-clients 1200'
    hold hold "$port" 1000 again
    bench_rounds bench_dnsperf 7919 1000
    bench_x=$(count tcp)
    [ "${bench_x:-0}" -ge 990 ] || bench_lack idle "of 1,000 idle clients ${bench_x:-none} were there at the end"
    bench_compare 'cached, with 1,000 idle TCP clients against none' 1.10 dnsproxy-1000-idle dnsproxy
    kill_pid hold
}

bench_row_flight() {
    bench_slow near 4
    bench_proxy dnsproxy-100-in-flight "127.0.0.1@$bench_x 1" 'queries 8192'
    bench_slow far 200
    bench_proxy dnsproxy-5000-in-flight "127.0.0.1@$bench_x 1" 'queries 8192'
    bench_rounds bench_flight
    bench_compare 'misses with 5,000 in flight (`queries 8192`) against 100' 1.3 dnsproxy-5000-in-flight dnsproxy-100-in-flight
}

# bench_road NAME LOSS MS JITTER THEN [KIND UPSTREAMS]...: servers at the end of a road of their own (see gauge), called KIND-UPSTREAMS.NAME,
# of three doors each; dnsproxy's three have priorities 1 to 3, or with "alike" one
bench_road() {
    road_n=$1 road_d=''
    for bench_i in $(seq 15); do road_d="$road_d $(freeport)"; done
    # shellcheck disable=SC2086
    bench_run "road-$1" "$BENCH/gauge" road "$2" "$3" "$4" "$5" $road_d
    shift 5
    while [ $# -gt 1 ]; do
        read -r road_a road_b road_c road_d <<END
$road_d
END
        case $1-$2 in
        dnsproxy-1) bench_proxy "$1-$2.$road_n" "127.0.0.1@$road_a 1" ;;
        dnsproxy-3) bench_proxy "$1-$2.$road_n" "127.0.0.1@$road_a 1" "127.0.0.1@$road_b 2" "127.0.0.1@$road_c 3" ;;
        dnsproxy-*) bench_proxy "$1-$2.$road_n" "127.0.0.1@$road_a 1" "127.0.0.1@$road_b 1" "127.0.0.1@$road_c 1" ;;
        *-1) bench_ups=$road_a; bench_peer "$1" miss "$1-$2.$road_n" ;;
        *) bench_ups="$road_a $road_b $road_c"; bench_peer "$1" miss "$1-$2.$road_n" ;;
        esac
        shift 2
    done
    bench_ups=''
}

# bench_paced ROUND WORD...: all of the row at once, with these words of load
bench_paced() {
    bench_w='' bench_f=$(($1 * 20000))
    shift
    while read -r bench_n bench_q bench_p; do
        echo "$bench_n $("$BENCH/gauge" load "$bench_p" first="$bench_f" "$@")" >>"$BENCH/paced" &
        bench_w="$bench_w $!"
    done <"$BENCH/in"
    # shellcheck disable=SC2086
    wait $bench_w
}

# bench_pace NAME COLUMN: the median of its rounds: 3 without an answer, 4 median, 5 99 %, 6 99.9 %, 7 worst
bench_pace() { awk -v n="$1" -v c="$2" '$1 == n && NF == 7 { print $c }' "$BENCH/paced" | bench_middle | sed 's/ .*//'; }

# bench_sent NAME: datagrams a name that its road has counted at the first door
bench_sent() { awk 'NR == 1 && $3 { printf "%.3f", $2 / $3 }' "$T/road-$1.log"; }

bench_row_road() {
    : >"$BENCH/paced"
    if [ "${1:-}" = quick ]; then
        bench_road lossy 3 20 5 20 dnsproxy 1 unbound 1
        bench_paced 1 every=5000 count=1600
    else
        bench_road lossy 3 20 5 20 dnsproxy 1 dnsproxy 3 dnsproxy alike unbound 1 unbound 3
        bench_road beside 3 20 5 20 dnsmasq 1 dnsdist 1 smartdns 3
        bench_road bad 10 20 5 20 dnsproxy 1 unbound 1
        bench_road clear 0 20 5 20 dnsproxy 1
        for bench_r in 1 2 3; do bench_paced "$bench_r" every=5000 count=6000; done
        bench_road jump 0 5 1 75 dnsproxy 1
        bench_p=$(sed -n 's/.*jump.* //p' "$BENCH/in")
        "$BENCH/gauge" load "$bench_p" every=5000 count=3000 >/dev/null &
        for bench_x in 3 5; do
            sleep $bench_x
            kill -USR1 "$(pid road-jump)"
        done
        wait $!
        read -r bench_n bench_q bench_p <"$BENCH/in"
        bench_x=$("$BENCH/gauge" load "$bench_p" count=1 first=900001)
    fi
    for bench_w in lossy beside bad clear jump; do
        [ ! -e "$T/road-$bench_w.log" ] || { kill -TERM "$(pid "road-$bench_w")"; await 5 gone "$(pid "road-$bench_w")"; }
    done
    while IFS='|' read -r bench_t bench_m bench_n bench_o bench_c; do
        bench_y=$(bench_pace "$bench_n" "$bench_c") bench_z=$(bench_pace "$bench_o" "$bench_c")
        [ -z "$bench_y" ] || { [ "${1:-}" = quick ] && [ "$bench_c" != 5 ]; } || bench_verdict "$bench_t, against unbound" most "$bench_m" '' "$(by "$bench_y" "$bench_z")" \
            "$bench_y against ${bench_z:-none} ms"
    done <<'END'
3 % lost each way, 20 +- 5 ms, one upstream: 99 % answered within|0.90|dnsproxy-1.lossy|unbound-1.lossy|5
the same: 99.9 %|0.90|dnsproxy-1.lossy|unbound-1.lossy|6
the same: all|1.0|dnsproxy-1.lossy|unbound-1.lossy|7
three upstreams of priorities 1, 2, 3: 99 %|0.90|dnsproxy-3.lossy|unbound-3.lossy|5
the same: 99.9 %|0.80|dnsproxy-3.lossy|unbound-3.lossy|6
the same: all|0.8|dnsproxy-3.lossy|unbound-3.lossy|7
three upstreams of one priority: 99 %|0.45|dnsproxy-alike.lossy|unbound-3.lossy|5
10 % lost each way, one upstream: 99 %|0.9|dnsproxy-1.bad|unbound-1.bad|5
END
    if [ "${1:-}" != quick ]; then
        bench_verdict '3 % lost, one upstream: queries without an answer' most 0 '' "$(bench_pace dnsproxy-1.lossy 3)"
        bench_verdict 'datagrams a query, 3 % lost each way' most 1.12 '' "$(bench_sent lossy)"
        bench_verdict '10 % lost, one upstream: queries of 6,000 without an answer' most 2 '' "$(bench_pace dnsproxy-1.bad 3)"
        bench_verdict 'datagrams a query, nothing lost' most 1.02 '' "$(bench_sent clear)"
        bench_verdict 'datagrams a query 5 s after the delay went from 10 to 150 ms' most 1.05 '' "$(bench_sent jump)"
        bench_verdict 'a name that takes its resolver 3.5 s, which drops what is older than 1.9 s' most 4000 ' ms' "$(echo "$bench_x" | cut -d ' ' -f 3)"
    fi
    cut -d ' ' -f 1 "$BENCH/paced" | sort -u | while read -r bench_n; do
        echo "$bench_n|$(for bench_c in 4 5 6 7 3; do bench_pace "$bench_n" $bench_c; done | paste -s -d '|')"
    done >"$BENCH/roads"
}

# bench_missed NAME: says so when the server of a row of misses had hits
bench_missed() {
    use "$1"
    bench_x=$(count hits)
    [ "${bench_x:-0}" -lt 100 ] || bench_lack "$row" "$1 had $bench_x hits"
}

# All on one processor: else the time it takes to wake another one is what is measured.
bench_row_latency() {
    ! have taskset || bench_one='taskset -c 0'
    bench_slow near 0
    bench_y=$(freeport)
    # shellcheck disable=SC2086
    bench_run relay $bench_one "$BENCH/gauge" relay "$bench_y" "$bench_x"
    : >"$why"
    wrapped "$bench_one" dnsproxy "127.0.0.1@$bench_x 1"
    for bench_r in $(seq "$ROUNDS"); do
        for bench_p in "$bench_x" "$port" "$bench_y"; do
            # shellcheck disable=SC2086
            val p50_us "$($bench_one "$ROOT/peer" many 127.0.0.1 "$bench_p" n=4000 window=1 from=$((bench_r * 4000)) name=n%d.sixty-byte.example)"
        done | paste -s -d ' '
    done | awk '{ print $1, $2, $2 - $1, $3 - $1 }' | sort -n -k 3 >"$BENCH/latency"
    # shellcheck disable=SC2046
    set -- $(awk '{ v[NR] = $0; a[NR] = $3 } END { print v[int((NR + 1) / 2)], a[1], a[NR] }' "$BENCH/latency")
    bench_verdict 'latency added to a miss at low load (one query at a time), median' most 60 ' us' "${3:-}" \
        "${2:-} us instead of ${1:-}; rounds ${5:-} to ${6:-}; a bare relay adds ${4:-}"
    kill_pid dnsproxy
    bench_one=''
}

# bench_made: the program as "make" makes it, and the static musl build, if there can be one; their paths are $made and $static
bench_made() {
    made=$BENCH/made/dnsproxy static=$BENCH/made/dnsproxy-static
    mkdir -p "$BENCH/made"
    cp "$SRC/Makefile" "$SRC/dnsproxy.c" "$BENCH/made/"
    make -k -C "$BENCH/made" BEARSSL="$BEARSSL" dnsproxy dnsproxy-static >"$BENCH/made/log" 2>&1
    [ -x "$made" ] || made=''
    [ -x "$static" ] || { static=''; bench_lack static "make static fails: $(tail -n 2 "$BENCH/made/log" | tr '\n' ' ')"; }
}

# bench_connected: have all upstreams over TLS a connection?
bench_connected() { ! adm status | grep -q 'connects 0'; }

# bench_filled PROGRAM LINE...: $rss is the KiB that PROGRAM has resident once its cache is full; $cache is the line of its status
bench_filled() {
    rss='' bench_bin=$BIN
    [ -n "$1" ] || return 0
    BIN=$1
    shift
    : >"$why"
    proxy filled "$@"
    BIN=$bench_bin
    await 10 bench_connected || fail 'no connection to the DoT server'
    "$BENCH/gauge" load "$port" count=15000 window=50 every=$((1000 / FILL)) >/dev/null
    cache=$(adm status | grep '^cache ')
    [ -s "$why" ] || rss=$(bench_rss filled)
    kill_pid filled
}
bench_rss() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$(pid "$1")/status"; }

# bench_resident PROGRAM WHAT MOST MORE [NOTE]: two lines of the table: what it has resident, and MORE: what a pinned upstream adds
bench_resident() {
    bench_filled "$1" "127.0.0.1@$plain1 1"
    bench_m=$rss bench_cache=$cache
    bench_verdict "$2" most "$3" ' MiB' "$(by "$rss" 1024)" "${rss:+filled at $FILL,000 answers a second${5:+; $5}}"
    [ -z "$tls" ] || bench_filled "$1" "127.0.0.1@$tls 1 tls pin=$pin"
    bench_verdict "$4" most 0.1 ' MiB' "${tls:+$(by "${rss:+$((rss - bench_m))}" 1024)}" "${rss:+the same, but all answers from it}"
}

bench_row_memory() {
    bench_made
    bench_x=$(freeport)
    bench_run reference "$BENCH/gauge" echo "$bench_x"
    "$BENCH/gauge" load "$bench_x" count=64 window=64 burst=64 >/dev/null
    bench_echo_kib=$(bench_rss reference)
    bench_resident "$static" 'resident memory, default config, cache full, plain upstream: static musl' 1.85 'one pinned DoT upstream more: static musl'
    bench_resident "$made" 'resident memory, default config, cache full, plain upstream: dynamic glibc' 3.0 'one pinned DoT upstream more: dynamic glibc' \
        "the echo: $(by "$bench_echo_kib" 1024)"
    bench_entries=$(val entries "$bench_cache")
    bench_size=$(val size "$bench_cache")
    bench_verdict 'bytes of cache memory for an answer of 60 bytes' most 100 '' "$(by "$bench_size" "$bench_entries" %.1f)" \
        "$bench_size bytes hold $bench_entries answers"
    bench_x=${static:+$(wc -c <"$static")}
    bench_verdict 'static musl binary, stripped, -Os' most 205 ' KiB' "$(by "$bench_x" 1024 %.1f)" "$bench_x bytes"
}

# What is in the cache when the second half of the stream comes. Rank K has probability 1/K, which log() makes but for some that are rejected.
bench_row_ratio() {
    [ "${bench_entries:-0}" != 0 ] || { bench_lack ratio 'wants the row memory before it'; return; }
    : >"$why"
    proxy dnsproxy "127.0.0.1@$plain1 1" "cache-size $((bench_size * 100 / bench_entries * 100))"
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
    bench_m=$(cached entries)
    kill_pid dnsproxy
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
        bench_x=$(freeport)
        "$BENCH/gauge" answers "$bench_x" 5 "$BIN" "listen 127.0.0.1@$bench_x" "admin 127.0.0.1@$(freeport)" "127.0.0.1@$plain1 1" 2>/dev/null
    done | bench_middle | awk '{ printf "%s %.1f %.1f %.1f\n", $3 < 5000000, $1 / 1000, $2 / 1000, $3 / 1000 }' >"$BENCH/start"
    read -r bench_x bench_m bench_y bench_z <"$BENCH/start"
    [ "$bench_x" = 1 ] || bench_m=''
    bench_verdict 'start to first answer, plain upstream' most 5 ' ms' "$bench_m" "11 starts, $bench_y to $bench_z"
}

# bench_compile MACHINE TREE OUT: dnsproxy of that tree; MACHINE is native, or i386, which stands for 32 bits
bench_compile() (
    SRC=$2 CFLAGS='-O2 -g'
    [ "$1" != i386 ] || CC=i686-linux-gnu-gcc BEARSSL='' LDLIBS='-L/usr/lib/i386-linux-gnu -static'
    build "$3" -DNO_SECCOMP 2>"$3.log"
)

# bench_under [OPTION...]: programs that start from now on run under callgrind; its counts go to $BENCH/callgrind
bench_under() { WRAP="valgrind -q --tool=callgrind --callgrind-out-file=$BENCH/callgrind $*" SLOW=6; }

# bench_stop: the program "counted" ends, and with it the counting
bench_stop() {
    WRAP='' SLOW=$bench_slow
    kill -TERM "$(pid counted)"
    await 30 gone "$(pid counted)" || fail 'does not stop'
    kill_pid counted
    [ ! -s "$why" ] || bench_lack instructions "$(cat "$why")"
}

# bench_counted KIND MACHINE SERVER NAMES COMMAND...: instructions of a query, one at a time and in bursts of 64, with NAMES names;
# COMMAND starts the server. What the start, the first connection and the first answers cost is in two runs, and so not in their difference.
bench_counted() {
    bench_k="$1 $2 $3" bench_names=$4
    shift 4
    bench_say "instructions: $bench_k"
    for bench_x in '1000 0' '3000 0' '1000 3200'; do
        : >"$why"
        rm -f "$BENCH/callgrind"*
        bench_under
        "$@"
        "$BENCH/gauge" load "$port" count="${bench_x% *}" window=1 names="$bench_names"
        "$BENCH/gauge" load "$port" count="${bench_x#* }" window=64 burst=64 first=$((500000 % bench_names)) names="$bench_names"
        bench_stop
        sed -n 's/^totals: /total /p' "$BENCH/callgrind"
    done | awk -v key="$bench_k" '
        $1 == "total" { t[++n] = $2 }
        $1 != "total" { lost += $2 }
        END { if (n == 3 && !lost) printf "%s %.0f %.0f\n", key, (t[2] - t[1]) / 2000, (t[3] - t[1]) / 3200 }' >>"$BENCH/counts"
}

# bench_counted_proxy PROGRAM LINE..., bench_counted_dnsmasq PROGRAM MODE
bench_counted_proxy() {
    BIN=$1
    shift
    proxy counted "user $(id -un)" "$@"         # nobody could not write the counts
    BIN=$bench_bin
}
bench_counted_dnsmasq() {
    bench_p=$(freeport)
    port=$bench_p size=0
    [ "$2" != hit ] || size=20000
    bench_dnsmasq "$2" >"$BENCH/dnsmasq.conf"
    # shellcheck disable=SC2086
    begin counted env "LD_LIBRARY_PATH=$BENCH/i386/lib/i386-linux-gnu:$BENCH/i386/usr/lib/i386-linux-gnu" $WRAP "$1" -k -C "$BENCH/dnsmasq.conf"
    "$BENCH/gauge" answers "$port" 30 || fail "dnsmasq does not serve: $(tail -n 2 "$T/counted.log")"
}

# bench_handshake MACHINE PROGRAM: instructions of a full TLS handshake with a chain of P-256, of one resumed, of one with P-256 below
# P-384, and of the longest turn of the loop in a full one. The counts are cut where poll() begins; $hasty closes what is idle, and the
# connection is made again.
bench_handshake() {
    bench_say "instructions: handshake $1"
    for bench_x in full resumed below; do
        : >"$why"
        rm -f "$BENCH/callgrind"*
        bench_under --dump-before=poll
        bench_y=127.0.0.1@$tls
        [ "$bench_x" != resumed ] || bench_y=127.0.0.1@$hasty
        [ "$bench_x" != below ] || bench_y=$(at below)
        bench_counted_proxy "$2" 'log debug' "$ca" "$bench_y 1 tls=other.test"
        await 30 sees counted 'full handshake' || fail 'no handshake'
        [ "$bench_x" != resumed ] || { "$BENCH/gauge" answers "$port" 30 && await 30 sees counted 'resumed handshake'; } || fail 'no resumed handshake'
        bench_stop
        cat "$BENCH/callgrind".* | sed -n 's/^totals: //p' | awk -v full="$(seen counted 'full handshake')" -v resumed="$(seen counted 'resumed handshake')" '
            $1 > 20000 && NR > 1 { sum += $1; if ($1 > most) most = $1 } END { print sum, most, full, resumed }'
    done >"$BENCH/handshake"
    [ -s "$why" ] || awk -v m="$1" '
        NR == 2 { printf "%s|%.1f|%.1f|%.1f (%.0f %%)", m, full / 1e6, ($1 - full * $3) / $4 / 1e6, most / 1e6, 100 * most / full }
        { full = $1 / $3; most = $2 }
        NR == 3 { printf "|%.1f|%.1f (%.0f %%)\n", full / 1e6, most / 1e6, 100 * most / full }' "$BENCH/handshake" >>"$BENCH/handshakes"
}

bench_row_instructions() {
    bench_bin=$BIN bench_slow=$SLOW
    have valgrind || { bench_lack instructions 'valgrind is not installed'; return; }
    for bench_m in native i386; do
        if [ "$bench_m" = i386 ] && { ! have i686-linux-gnu-gcc || [ ! -e /usr/lib/i386-linux-gnu/libbearssl.a ]; }; then
            bench_lack i386 'gcc-i686-linux-gnu, libc6-dev-i386-cross or libbearssl-dev:i386 is not installed (after dpkg --add-architecture i386)'
            continue
        fi
        for bench_v in now ${BEFORE:+before}; do
            bench_d=$SRC
            [ "$bench_v" = now ] || bench_d=$BEFORE
            bench_o=$BENCH/counted.$bench_m.$bench_v
            bench_compile "$bench_m" "$bench_d" "$bench_o" || { bench_lack "$bench_m" "$bench_d does not compile: $(tail -n 2 "$bench_o.log" | tr '\n' ' ')"; continue; }
            bench_counted hit "$bench_m" "$bench_v" 100 bench_counted_proxy "$bench_o" "127.0.0.1@$plain1 1"
            bench_counted miss "$bench_m" "$bench_v" 1000000 bench_counted_proxy "$bench_o" "127.0.0.1@$plain1 1"
            [ -n "$tls" ] || continue
            bench_counted DoT-miss "$bench_m" "$bench_v" 1000000 bench_counted_proxy "$bench_o" "127.0.0.1@$tls 1 tls pin=$pin"
            [ "$bench_v" = before ] || bench_handshake "$bench_m" "$bench_o"
        done
    done
    bench_i386_dnsmasq && bench_counted hit i386 dnsmasq 100 bench_counted_dnsmasq "$BENCH/i386/usr/sbin/dnsmasq" hit &&
        bench_counted miss i386 dnsmasq 1000000 bench_counted_dnsmasq "$BENCH/i386/usr/sbin/dnsmasq" miss
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
            for bench_m in 'native 4' 'native 5' 'i386 4' 'i386 5'; do
                # shellcheck disable=SC2086
                bench_y=$(bench_count "$bench_k" $bench_m $bench_v)
                bench_x="$bench_x|${bench_y:--}"
            done
            echo "$bench_x"
        done
    done >>"$BENCH/instructions"
    while read -r bench_k bench_m bench_v bench_o bench_t; do
        [ -n "$BEFORE" ] || [ "$bench_v" = dnsmasq ] || continue
        [ "$bench_o" = - ] || bench_verdict "$bench_m, $bench_k, one at a time: instructions against $bench_v" most "$bench_o" '' \
            "$(bench_count "$bench_k" "$bench_m" 4 now "$bench_v")"
        [ "$bench_t" = - ] || bench_verdict "$bench_m, $bench_k, in bursts of 64: instructions against $bench_v" most "$bench_t" '' \
            "$(bench_count "$bench_k" "$bench_m" 5 now "$bench_v")"
    done <<'END'
hit i386 dnsmasq - 0.5
hit i386 before 0.40 0.35
miss i386 before 0.50 0.45
DoT-miss i386 before 0.8 -
hit native before 0.95 0.95
miss native before 0.95 0.95
END
}

# cmd_bench [quick|counts]: everything, or most of it, less exactly, in three minutes, or instructions only. The tables are Markdown.
# BEFORE=TREE names the sources of another commit, with whose build the counts are compared; ROWS='hit miss' is these rows only.
cmd_bench() {
    case ${1:-full} in
    full | counts) ROUNDS=5 SLICES=6 ZIPF=1000000 FILL=5 ;;
    quick) ROUNDS=3 SLICES=1 ZIPF=200000 FILL=15 ;;
    *)
        echo "usage: [BEFORE=TREE] ./test.sh bench [quick|counts]" >&2
        return 2
        ;;
    esac
    { have dnsperf nsd && proc_here; } || { echo 'bench needs Linux and the Debian packages dnsperf and nsd' >&2; return 1; }
    BENCH=$T/bench BEFORE=${BEFORE:-} bench_also='' bench_one=''
    mkdir -p "$BENCH"
    for bench_x in lacks in raw table instructions counts handshakes; do : >"$BENCH/$bench_x"; done
    load_before=$(cut -d ' ' -f 1 /proc/loadavg)
    compile "$BENCH/gauge" tests/peer.c -O2 && bench_upstreams || return 1
    bench_start=$(date +%s)
    if [ "${1:-}" != counts ]; then
        for row in ${ROWS:-hit miss road dot twenty browser silent tcp entries idle flight latency memory ratio start}; do
            case $row-$tls in dot- | twenty- | browser-) bench_lack "$row" 'no server over TLS'; continue ;; esac
            warm=0
            bench_say "$row"
            "bench_row_$row" "${1:-}"
            bench_end
        done
    fi
    [ "${1:-}" = quick ] || [ -n "${ROWS:-}" ] || bench_row_instructions
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
