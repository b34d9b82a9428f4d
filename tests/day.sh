# day.sh - a day of browsing in a minute, over lossy links.
# Alone: ./test.sh day

# far N DELAY JITTER LOSS KIND [LINE...]: the real server farN at 10.55.N.2, in a namespace of its own. The peer carries the packets
# from there to here and back, late, and loses some (milliseconds, packets of 1000); where that cannot be there is neither delay nor loss.
far() {
    netns_new "net$1"
    far_n=far$1 far_k=$5 far_a=10.55.$1.2 far_us=$NS
    if [ -e /dev/net/tun ]; then
        begin "wire$1" "$ROOT/peer" link "$(pid netns)" "v$1" "$(pid "net$1")" e0 "$2" "$3" "$4"
        await 5 sees "wire$1" ready || { skip "not here: $(cat "$T/wire$1.log")"; return 1; }
    else
        ns ip link add "v$1" type veth peer name e0 netns "$(pid "net$1")"
    fi
    ns ip address add "10.55.$1.1/24" dev "v$1"
    ns ip link set "v$1" up
    NS="nsenter -t $(pid "net$1") -n"
    ns ip address add "$far_a/24" dev e0
    ns ip link set e0 up
    shift 5
    real "$far_n" "$far_k" "$far_a" "$@"
    NS=$far_us
}

leg_day() {
    promise 'a day of browsing: most from the cache, none fails though one DoT server falls silent and then dies'
    needs unbound dnsmasq && netns || return
    [ -e /dev/net/tun ] || echo '# no /dev/net/tun here: no delay and no loss'
    tls_ready
    crt far by=root cn=far.test san=dns:far.test
    far 1 1 0 0 dnsmasq local=/lan/ address=/lan/192.168.55.5 local-ttl=30 || return     # a router in the house
    real_cert=far
    set -- unbound 'access-control: 0.0.0.0/0 allow' 'local-zone: example. redirect' 'local-data: "example. 30 A 192.0.2.10"' \
        'local-data: "example. 30 AAAA 2001:db8::10"'
    far 2 10 3 10 "$@"
    far 3 17 5 20 "$@"
    proxy front "$ca" '10.55.1.2 1 final domain=lan' '10.55.2.2 2 tls=far.test' '10.55.3.2 3 tls=far.test'
    await 10 hears ' A 192\.0\.2\.10' www.example || fail 'the proxy does not answer'
    # A browser asks for A, AAAA and HTTPS at once, and for what belongs to a page, the popular ones more often
    loads 1 '' <<'END'
280 right rate=14 popular names=400 seed=1 full name=www%d.example
280 right rate=14 popular names=400 seed=1 full name=www%d.example type=AAAA
280 right rate=14 popular names=400 seed=1 name=www%d.example type=HTTPS
800 right rate=40 burst=4 popular names=400 seed=1 full name=cdn%d.example
800 right rate=40 burst=4 popular names=400 seed=1 full name=cdn%d.example type=AAAA
60 right rate=3 popular names=5 seed=1 full name=host%d.lan
60 right rate=3 popular names=5 seed=1 name=host%d.lan type=AAAA
END
    sleep 10
    kill -STOP "$(pid far2)"
    sleep 5
    kill_pid far2
    loads_end
    within 0 4000 "$loads_slow" 'slowest answer, ms'
    within 30 100 $(($(count hits) * 100 / $(count queries))) 'per cent from the cache'
    echo "# $(count hits) of $(count queries) answered from the cache"
    within 1 99999 "$(upstream 10.55.1.2@53 won)" 'answers of the router'
    within 1 99999 "$(upstream 10.55.3.2@853 won)" 'answers of the far server'
}
