# shellcheck shell=sh disable=SC2034,SC2154
# works.sh - what works with dnsproxy: real servers as its upstreams, real clients and validators before it
#
#   ./test.sh works                 every cell of the matrix (wants root, a network namespace, servers and clients of Debian)
#   ./test.sh works unbound node    these rows only
#   ./test.sh works common          the rows of what most houses have
#
# Servers and clients, and the small signed world in which they stand, are those of tests/real.sh. What a server or client says through dnsproxy must be what it
# says when asked directly. A cell is a promise.

# cmd_works [NAME...]: the matrix, or some of its rows
cmd_works() {
    WORKS="$*"
    [ "$WORKS" != common ] || WORKS='nsd unbound bind9 dnsmasq dnsdist glibc musl dig kdig'
    export WORKS
    mkdir -p "$ROOT/resolved"           # systemd-resolved is run out of its package; the legs have no way to fetch it
    (cd "$ROOT/resolved" && { apt-get download systemd-resolved || cp /var/cache/apt/archives/systemd-resolved_*.deb .; } &&
        dpkg -x systemd-resolved_*.deb . && { [ -d lib ] || ln -s usr/lib lib; }) >/dev/null 2>&1
    run_legs real_servers real_clients works_validators
}

# ---- The validators: each forwards to dnsproxy and believes nothing that it has not proved itself.

# w_proves KIND SERVER: for each name the RCODE, and whether it was proved, by such a validator as a forwarder to that server
w_proves() {
    real_back=$2@53
    case $1 in dnsmasq) set -- "$@" dnssec dnssec-check-unsigned "trust-anchor=.,$(echo "$real_ds" | tr ' ' ,)" ;; esac
    w_kind=$1
    shift 2
    w_real validator "$w_kind" 127.7.2.1 "$@"
    for w_q in 'www.signed A' 'www.hashed AAAA' 'x.wild.hashed A' 'deep.old.signed A' 'nothing.signed A' 'www.signed MX' 'signed DNSKEY' 'www.plain A' 'www.bogus A'; do
        # shellcheck disable=SC2086
        ns kdig @127.7.2.1 +dnssec +retry=2 +timeout=4 $w_q | awk -v q="$w_q" '
            /status:/ { sub(/.*status: /, ""); s = $1 } /^;; Flags:/ { a = / ad[ ;]/ ? "proved" : "-" } END { print q, s, a }'
    done
    kill_pid validator TERM
}

leg_works_validators() {
    w_world 'validators behind dnsproxy' || return
    w_resolver='127.7.1.1 2 tls=dns.test'
    real_back=''
    real router dnsmasq 127.7.1.20 local=/lan/ address=/printer.lan/192.168.1.9
    w_shape 'a router that knows the house only, beside a validating resolver over TLS' '127.7.1.20 1' "$w_resolver"
    w_shape 'a dead server first, and a spare that does not validate last' "$w_dead 1" "$w_resolver" "$real_auth 3"
    for w_x in plain house home filter tls; do
        w_example "$w_x" >"$T/example"
        w_shape "the example '$w_x' of README.md" -c "$T/example"
    done
}

# w_example NAME: a configuration of README.md in this world: one server of it is the resolver, over TLS too, a filter is one in plain DNS,
# the router knows the house only, the spare in plain DNS does not validate, all others are dead
w_example() {
    readme "config $1" | sed "/^#/d; /:/d; /^listen/d; /^allow/d; s/^block .*/block \/dev\/null/; s/tls=[^ ]*/tls=dns.test/
        s/^192.168.1.1 /127.7.1.20 /; s/^198.51.100.1 /$real_auth /; s/^9.9.9.9 /127.7.1.1 /; s/^192.168.1.3 /127.7.1.1 /; s/^203.0.113.1 /127.7.1.1 /
        /^127/!s/^[0-9]*[.][0-9]*[.][0-9]*[.]\([0-9]*\) /127.7.9.\1@9999 /"
}

# w_shape TEXT LINE...: each validator behind a dnsproxy with these upstreams proves what it proves with the resolver itself behind it
w_shape() {
    w_text=$1
    shift
    w_proxy 'patience 300' "$@"
    for w_v in unbound bind9 kresd dnsmasq resolved; do
        w_picked "$w_v" || continue
        promise "$w_v proves and refuses through $w_text as it should"
        real_here "$w_v" || continue
        [ -s "$T/$w_v.proof" ] || w_proves "$w_v" 127.7.1.1 >"$T/$w_v.proof"
        for w_q in 'www.signed A NOERROR; proved' 'nothing.signed A NXDOMAIN; proved' 'www.plain A NOERROR; -' 'www.bogus A SERVFAIL; -'; do
            like "^$w_q" "$(cat "$T/$w_v.proof")" "without dnsproxy"
        done
        w_k=$(count queries)
        w_proves "$w_v" 127.0.0.1 >"$T/got"
        same "$(cat "$T/$w_v.proof")" "$(cat "$T/got")"
        within $((w_k + 9)) 999999 "$(count queries)" 'queries, for it has asked for all that it says'
    done
    judge
    stop front
}
