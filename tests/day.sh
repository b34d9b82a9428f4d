# day.sh - a day of browsing in a minute, over lossy links.
# Alone: ./test.sh day

# real_far NAME KIND N [LINE...]: a real server in the namespace N
real_far() {
    far_n=$1 far_k=$2 NS="ip netns exec $real_ns-$3"
    real_a=10.55.$3.2 real_p=53 real_s=853 real_h=443
    shift 3
    real_start "$far_n" "$far_k" "$@"
    NS=''
}

# The namespaces of the day are named after this run; the first is the proxy's and the browser's.
real_ns="dp$$"

# real_link N DELAY JITTER LOSS: device vN of the first namespace leads to e0 of namespace N; milliseconds, packets of 1000. The peer
# carries the packets from one to the other, late, and loses some; where that cannot be there is neither delay nor loss.
real_link() {
    if [ -e /dev/net/tun ]; then
        begin "wire$1" "$ROOT/peer" link "$real_ns-0" "v$1" "$real_ns-$1" e0 "$2" "$3" "$4"
        await 5 sees "wire$1" ready || return 1
    else
        ip -n "$real_ns-0" link add "v$1" type veth peer name e0 netns "$real_ns-$1" || return 1
    fi
    ip -n "$real_ns-0" address add "10.55.$1.1/24" dev "v$1" &&
        ip -n "$real_ns-$1" address add "10.55.$1.2/24" dev e0 &&
        ip -n "$real_ns-0" link set "v$1" up &&
        ip -n "$real_ns-$1" link set e0 up
}

# real_net_up: namespaces 0 to 3 with links like those to a router in the house, a near and a far resolver
real_net_up() {
    for real_i in 0 1 2 3; do
        ip netns add "$real_ns-$real_i" && ip -n "$real_ns-$real_i" link set lo up || return 1
    done
    real_link 1 1 0 0 && real_link 2 10 3 10 && real_link 3 17 5 20
}

real_net_down() {
    for real_i in 0 1 2 3; do ip netns del "$real_ns-$real_i"; done 2>/dev/null
}

leg_day() {
    day=${DAY:-20}
    promise 'a day of browsing: most from the cache, none fails though one DoT server falls silent and then dies'
    needs ip unbound dnsmasq kdig || return
    trap 'real_x=$?; reap; real_net_down; finish $real_x' EXIT         # the leg has this process to itself
    real_net_up 2>"$T/net.log" || { skip "not here: $(tail -n 1 "$T/net.log")"; return; }
    # pages come at random times; each asks for a handful of names at once, A and AAAA (and HTTPS for the first)
    [ -e /dev/net/tun ] || echo '# no /dev/net/tun here: no delay and no loss'
    tls_ready
    real_far lan dnsmasq 1 local=/lan/ address=/lan/192.168.55.5 local-ttl=30
    for real_i in 2 3; do
        real_cert=dot$real_i.test
        crt "$real_cert" by=root cn="$real_cert" san="dns:$real_cert"
        real_far "$real_cert" unbound "$real_i" 'access-control: 0.0.0.0/0 allow' 'local-zone: example. redirect' \
            'local-data: "example. 30 A 192.0.2.10"' 'local-data: "example. 30 AAAA 2001:db8::10"'
    done
    begin front ip netns exec "$real_ns-0" $WRAP "$BIN" -d 'listen 127.0.0.1' 'admin 127.0.0.1@5353' "$ca" '10.55.1.2 1 final domain=lan' \
        '10.55.2.2 2 tls=dot2.test' '10.55.3.2 3 tls=dot3.test'
    await 10 real_day_answers || fail 'the proxy does not answer'
    meanwhile browser ip netns exec "$real_ns-0" "$ROOT/peer" browse 127.0.0.1 53 "$day"
    sleep $((day / 2))
    kill -STOP "$(pid dot2.test)"
    sleep $((day / 4))
    kill_pid dot2.test KILL
    ended browser
    set -- $out
    real_s=$(ip netns exec "$real_ns-0" "$BIN" 'admin 127.0.0.1@5353' "$ca" '10.55.2.2 1' -a status)
    printf '%s\n' "$real_s" >"$T/front.status"
    real_h=$(val hits "$real_s") real_q=$(val queries "$real_s")
    echo "# browser: ${1:-0} answered, ${2:-?} not (or SERVFAIL, NXDOMAIN, no record for A); median ${3:-?}, slowest ${6:-?} ms"
    echo "# $real_h of $real_q answered from the cache: $((${real_h:-0} * 100 / ${real_q:-1})) %"
    same 0 "${2:-none}" 'not answered'
    [ "${1:-0}" -gt 200 ] || fail "only ${1:-0} queries"
    within 30 100 $((${real_h:-0} * 100 / ${real_q:-1})) 'per cent from the cache'
    within 0 4000 "${6%.*}" 'slowest answer, ms'
    like '^upstream 10.55.1.2@53 udp .* won [1-9]' "$real_s"
    like '^upstream 10.55.3.2@853 tls .* won [1-9]' "$real_s"
}
real_day_answers() { ip netns exec "$real_ns-0" kdig @127.0.0.1 +retry=0 +timeout=2 www1.example A 2>/dev/null | grep -q 192.0.2.10; }
