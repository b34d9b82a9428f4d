# shellcheck shell=sh disable=SC2034,SC2154
# works.sh - what works with dnsproxy: real servers as its upstreams, real clients and validators before it
#
#   ./test.sh works                 every cell of the matrix (wants root, a network namespace, servers and clients of Debian)
#   ./test.sh works unbound node    these rows only
#   ./test.sh works common          the rows of what most houses have
#
# A small signed world stands in a namespace: a root, a zone with NSEC, one with NSEC3, an insecure and a bogus one, at two nsd.
# What a server or client says through dnsproxy must be what it says when asked directly. A cell is a promise.

# cmd_works [NAME...]: the matrix, or some of its rows
cmd_works() {
    WORKS="$*"
    [ "$WORKS" != common ] || WORKS='nsd unbound bind9 dnsmasq dnsdist glibc musl dig kdig'
    export WORKS
    mkdir -p "$ROOT/resolved"           # systemd-resolved is run out of its package; the legs have no way to fetch it
    (cd "$ROOT/resolved" && { apt-get download systemd-resolved || cp /var/cache/apt/archives/systemd-resolved_*.deb .; } &&
        dpkg -x systemd-resolved_*.deb . && { [ -d lib ] || ln -s usr/lib lib; }) >/dev/null 2>&1
    run_legs works_servers works_clients works_validators
}

w_dead=127.7.9.9@9999
w_zones='signed hashed plain bogus'

# w_real NAME KIND ADDRESS [LINE...]: a server of the world; waits until it answers
w_real() {
    w_n=$1 w_kind=$2 real_a=$3
    shift 3
    ns ip address add "$real_a/32" dev lo 2>/dev/null        # named serves only addresses that it finds
    real_start "$w_n" "$w_kind" "$@"
    await 10 w_answers "$real_a" || fail "$w_n does not answer: $(tail -n 3 "$T/$w_n.log")"
}
w_answers() { ns kdig "@$1" +retry=0 +timeout=2 www.signed A +notcp www.signed A +tls 2>/dev/null | grep -q 'status: NOERROR'; }

# w_world TEXT: certificates, zones, the servers root and auth, and the resolver, which is asked by all that start later. False when
# this machine cannot have it, and then the promise TEXT is skipped.
w_world() {
    promise "$1"
    needs nsd kdig ldns-signzone ldns-keygen openssl unbound && netns || return
    promise_text=''
    tls_ready
    real_cert=good real_p=53 real_s=853 real_h=443 real_d=8053
    zone signed
    zone hashed -n
    zone bogus
    zone plain
    sed -i 's/203\.0\.113\.10$/203.0.113.66/' "$T/bogus.zone"
    {
        printf '%s\n' '$ORIGIN .' '$TTL 3600' '@ SOA a.root. hostmaster.root. 1 3600 600 86400 300' '@ NS a.root.' 'a.root. A 127.7.0.1'
        for w_z in $w_zones; do printf '%s\n' "$w_z. NS ns.$w_z." "ns.$w_z. A $real_auth"; done
        cat "$T/signed.ds" "$T/hashed.ds" "$T/bogus.ds"
    } >"$T/root.zone"
    zone_sign root
    real_ds=$(awk '{ for (i = 1; i <= NF; i++) if ($i == "DS") print $(i + 1), $(i + 2), $(i + 3), $(i + 4) }' "$T/root.ds")
    printf '%s\n' '. 3600 NS a.root.' 'a.root. 3600 A 127.7.0.1' >"$T/hints"
    real_zones=root
    w_real root nsd 127.7.0.1
    real_zones=$w_zones
    w_real auth nsd "$real_auth"
    w_real resolver unbound 127.7.1.1 "root-hints: \"$T/hints\"" 'ede: yes' 'incoming-num-tcp: 200' 'do-ip6: no' \
        'outgoing-tcp-mss: 1220'
    real_back=127.7.1.1@53
}

w_picked() { case " ${WORKS:-$1} " in *" $1 "*) ;; *) return 1 ;; esac; }

# ---- The servers: name, address, the program, and its protocols (those without udp have nothing at port 53)

w_servers='
nsd            127.7.1.2   nsd            udp,tcp,tls
unbound        127.7.1.3   unbound        udp,tcp,tls,https
bind9          127.7.1.4   named          udp,tcp,tls,https
knotd          127.7.1.5   knotd          udp,tcp
kresd          127.7.1.6   kresd          udp,tcp,tls,https
pdns_recursor  127.7.1.7   pdns_recursor  udp,tcp
dnsdist        127.7.1.8   dnsdist        udp,tcp,tls,https
dnsmasq        127.7.1.9   dnsmasq        udp,tcp
smartdns       127.7.1.10  smartdns       udp,tcp
stubby         127.7.1.11  stubby         udp,tcp
haproxy        127.7.1.12  haproxy        tls
stunnel        127.7.1.13  stunnel        tls
nginx          127.7.1.14  nginx          tls,https'

leg_works_servers() {
    w_world 'real servers as upstreams' || return
    questions=$(questions signed && printf '%s\n' 'far.signed A' 'x.wild.hashed A' 'www.plain A' 'many.plain A')
    echo "$w_servers" >"$T/servers"
    while read -r w_name w_addr w_program w_protos; do
        [ -n "$w_name" ] && w_picked "$w_name" || continue
        promise "$w_name starts and answers"
        if ! have "$w_program"; then skip "$w_program is missing"; continue; fi
        # a nginx speaks HTTPS for a dnsdist
        [ "$w_name" != nginx ] || { w_real behind dnsdist 127.7.1.99; real_back=127.7.1.99@53; }
        w_real server "$w_name" "$w_addr"
        case $w_protos in udp*) w_how=+tcp w_p=53 ;; *) w_how=+tls w_p=853 ;; esac
        all_directly 23 "$w_addr" $w_p $w_how        # smartdns has no answer of more than 4,000 bytes
        [ ! -s "$why" ] || continue
        for w_p in $(echo "$w_protos" | tr , ' '); do w_cell "$w_name" "$w_p"; done
    done <"$T/servers"
    judge
}

# w_cell NAME PROTO: asked first, from the cache, and beside a better one that is dead
w_cell() {
    promise "$1 as $2 upstream: 25 kinds of answers, cold, from the cache, and with the best upstream dead"
    case $2 in udp) w_words='' ;; tcp) w_words=' tcp' ;; *) w_words=" $2=dns.test" ;; esac
    if [ "$2" = tls ] && ! real_has_12 "$w_addr" 853; then skip "not here: this $1 speaks TLS 1.3 only"; return; fi
    if [ "$2" = https ] && grep -q 'http_version 1.1' "$T/server.conf" && ! ns kdig "@$w_addr" +https +retry=0 www.signed A >/dev/null; then
        skip 'not here: this nginx cannot ask this dnsdist, whose plain DoH is HTTP/2 only'
        return
    fi
    w_proxy "$w_addr 1$w_words"
    all_same 'when asked first' 127.0.0.1 53
    all_same 'from the cache' 127.0.0.1 53
    [ "$(count hits)" -ge 22 ] || fail "only $(count hits) came from the cache"       # a no without SOA is not kept
    w_proxy 'timeout 4000' 'patience 300' "$w_dead 1" "$w_addr 2$w_words"
    all_same 'with the best upstream dead' 127.0.0.1 53
    stop front
}

# w_proxy LINE...: dnsproxy at 127.0.0.1 with these lines
w_proxy() { proxy front 'listen 127.0.0.1@53' "ca-file $T/pki/ca.pem" 'cache-negative 30' "$@"; }

# ---- The clients. tests/clients/ has those that are programs; each asks for the same names as far as it can.

# name, the program, what it needs built first (- for nothing), and what runs; $1 is the server's address, resolv.conf names it too
w_clients='
glibc    getent    -     for n in $w_names; do getent ahosts $n; done | cut -c 1-22
musl     musl-gcc  gai   for n in $w_names; do ./gai $n; done
busybox  busybox   -     for n in $w_names; do busybox nslookup $n $1 | grep -v :53; done
dig      dig       -     dig @$1 +noall +answer +nottlid $w_words
kdig     kdig      -     kdig @$1 +noall +answer +nottl $w_words
drill    drill     -     for n in $w_names; do drill @$1 $n A; drill @$1 $n AAAA; done | grep -v "^;;" | cut -f 1,3-
host     host      -     for n in $w_names; do host $n $1; done
delv     delv      -     for n in $w_names; do delv @$1 -a bind.keys +root=. $n A; done | sed "s/[0-9]*.IN/IN/"
node     node      -     node $C/node.js $w_names
go       go        go    ./go-client $w_names
ruby     ruby      -     ruby $C/ruby.rb $w_names
php      php       -     php $C/php.php $w_names
perl     perl      -     perl $C/perl.pl $w_names
python   /usr/bin/python3 - /usr/bin/python3 $C/python.py $w_names
java     java      -     java $C/Client.java $w_names
erlang   escript   -     ERL_INETRC=$T/inetrc escript $C/erlang.escript $w_names'
export w_names='www.signed alias.signed far.signed x.wild.hashed many.signed www.plain nothing.signed' C="$SRC/tests/clients"
w_words=$(for n in $w_names; do printf '%s A %s AAAA ' "$n" "$n"; done)'-q signed -t MX -q big.signed -t TXT -q svc.signed -t HTTPS -q huge.signed -t TXT'

# w_client ADDRESS: what this client says with that server
w_client() {
    client "$w_command" "$1" | sed '/^;; *WARNING: truncated/d; /^;; Truncated/d; s/127\.[0-9.]*[#:]53/server/' |
        grep -v "^Address: $1\$\|^Server:\|^Name: $1$"
}

# w_build WHAT: makes it in $T
w_build() {
    case $1 in
    gai) client_gai musl-gcc ;;
    go) (cd "$T" && GO111MODULE=off GOCACHE="$T/go" GOFLAGS=-p=1 CGO_ENABLED=0 go build -o go-client "$C/go.go") >"$T/go.log" 2>&1 ||
        fail "it cannot be built: $(tail -n 2 "$T/go.log")" ;;
    esac
}

leg_works_clients() {
    w_world 'real clients' || return
    w_resolver='127.7.1.1 2 tls=dns.test'
    export w_words
    real_anchor >"$T/bind.keys"
    printf '{resolv_conf, "/etc/resolv.conf"}.\n{lookup, [dns]}.\n' >"$T/inetrc"
    echo "$w_clients" >"$T/clients"
    while read -r w_name w_program w_needs w_command; do
        [ -n "$w_name" ] && w_picked "$w_name" || continue
        promise "$w_name hears through dnsproxy what it hears from its upstream: cold, from the cache, and with the best upstream dead"
        if ! have "$w_program"; then skip "$w_program is missing"; continue; fi
        w_build "$w_needs"
        w_client 127.7.1.1 >"$T/want"
        if grep -Eq "^Can't locate|^ModuleNotFound" "$T/want"; then skip "its library is missing: $(grep -E "^Can't|^Module" "$T/want")"; continue; fi
        like '203[.,]0[.,]113[.,]10' "$(cat "$T/want")" 'asked directly'
        w_proxy "$w_resolver"
        w_hears 'when asked first'
        w_hears 'from the cache'
        w_proxy "$w_dead 1" "$w_resolver"
        w_hears 'with the best upstream dead'
        stop front
    done <"$T/clients"
    judge
}

# w_hears WHAT: the client says the same through the proxy; those that do not ask over TCP hear as
# many lines or more, for what is cut holds records, other ones each time
w_hears() {
    w_client 127.0.0.1 >"$T/got"
    case $w_name in
    musl | busybox | drill) [ "$(grep -c . "$T/got")" -ge "$(grep -c . "$T/want")" ] && like '203[.]0[.]113[.]10' "$(cat "$T/got")" && return ;;
    esac
    got_same "$1"
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
    real_back='' real_a=127.7.1.20
    real_start router dnsmasq local=/lan/ address=/printer.lan/192.168.1.9
    w_shape 'a router that knows the house only, beside a validating resolver over TLS' '127.7.1.20 1' "$w_resolver"
    w_shape 'a dead server first, and a spare that does not validate last' "$w_dead 1" "$w_resolver" "$real_auth 3"
    for w_x in plain house home filter tls; do
        set -f
        IFS='
'
        # shellcheck disable=SC2046
        set -- $(w_example "$w_x")
        unset IFS
        set +f
        w_shape "the example '$w_x' of README.md" "$@"
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
    for w_v in unbound named kresd dnsmasq resolved; do
        w_picked "$w_v" || continue
        promise "$w_v proves and refuses through $w_text as it should"
        if [ "$w_v" = resolved ]; then [ -x "$ROOT/resolved/lib/systemd/systemd-resolved" ]; else have "$w_v"; fi || { skip "$w_v is missing"; continue; }
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
