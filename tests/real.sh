# real.sh - real servers and real clients.
# Alone: ./test.sh real_upstreams real_clients real_failover netcats tls_real

# ---- Servers, each a process of its own

real_cert='' real_back=''       # a certificate in $T/pki, and ADDRESS@PORT of what is asked by the servers that forward

# real NAME KIND PORT [LINE...]: a server at 127.0.0.1@PORT, over TLS if there is a $real_cert, with these lines in its configuration
# (dnsdist: words of addTLSLocal). nsd has the zone test, the others ask $real_back. Ended with SIGTERM, for some have children.
real() {
    real_n=$1 real_k=$2 real_p=$3 real_c=$T/pki/$real_cert
    shift 3
    kill_pid "$real_n" TERM
    mkdir -p "$T/$real_n.d"
    "real_$real_k" "$@" >"$T/$real_n.conf"
    (cd "$T/$real_n.d" && exec $NS $(real_command "$real_k") "$T/$real_n.conf") </dev/null >"$T/$real_n.log" 2>&1 &
    started "$real_n" $!
    peer serves $! "$real_p" $((10000 * SLOW)) || fail "$real_k does not serve: $(tail -n 3 "$T/$real_n.log")"
}
# the words before the file's name, of which the first is the program
real_command() {
    case $1 in
    bind9) echo named -f -g -4 -c ;;
    dnsdist) echo dnsdist --supervised --disable-syslog -C ;;
    dnsmasq) echo dnsmasq -k -C ;;
    haproxy) echo haproxy -db -f ;;
    kresd) echo kresd -n -c ;;
    smartdns) echo smartdns -f -p - -c ;;
    stubby) echo stubby -v 0 -C ;;
    stunnel) echo stunnel ;;
    *) echo "$1" -d -c ;;
    esac
}

# Their configuration:
real_nsd() {
    printf '%s\n' server: "ip-address: 127.0.0.1@$real_p" 'database: ""' "zonesdir: \"$T\"" "xfrdfile: \"$T/$real_n.d/xfrd\"" "xfrdir: \"$T\"" \
        "zonelistfile: \"$T/$real_n.d/list\"" 'server-count: 1'
    real_nlnet "$@"
    printf '%s\n' zone: 'name: test' 'zonefile: test.zone'
}
real_unbound() {
    printf '%s\n' server: "interface: 127.0.0.1@$real_p" 'do-daemonize: no' 'chroot: ""' 'use-syslog: no' 'num-threads: 1' 'directory: ""' \
        'do-not-query-localhost: no' 'module-config: "iterator"' 'local-zone: test. nodefault'
    real_nlnet "$@"
    [ -z "$real_back" ] || printf '%s\n' forward-zone: 'name: .' "forward-addr: $real_back"
}
real_nlnet() {
    printf '%s\n' 'username: ""' 'pidfile: ""'
    [ -z "$real_cert" ] || printf '%s\n' "tls-port: $real_p" "tls-service-key: $real_c.key" "tls-service-pem: $real_c.pem"
    printf '%s\n' "$@" remote-control: 'control-enable: no'
}
real_bind9() {
    cat <<END
options { listen-on port $real_p tls here { 127.0.0.1; }; listen-on-v6 { none; }; pid-file none; session-keyfile none; dnssec-validation no;
    empty-zones-enable no; forward only; forwarders { ${real_back%@*} port ${real_back#*@}; }; };
tls here { key-file "$real_c.key"; cert-file "$real_c.pem"; };
controls { };
END
}
real_kresd() {
    cat <<END
net.listen('127.0.0.1', $real_p, { kind = 'tls' })
net.tls('$real_c.pem', '$real_c.key')
trust_anchors.remove('.')
policy.add(policy.all(policy.STUB('$real_back')))
cache.size = 10 * MB
END
}
real_dnsdist() {
    cat <<END
setLocal("127.0.0.1:$(freeport)")
addTLSLocal("127.0.0.1:$real_p", "$real_c.pem", "$real_c.key", { minTLSVersion = "tls1.2", $* })
newServer({ address = "${real_back%@*}:${real_back#*@}", healthCheckMode = "up" })
setSecurityPollSuffix("")
END
}
real_haproxy() {
    cat "$real_c.pem" "$real_c.key" >"$T/$real_n.pem"
    printf '%s\n' defaults 'mode tcp' 'timeout connect 5s' 'timeout client 60s' 'timeout server 60s' "$@" 'listen dot' \
        "bind 127.0.0.1:$real_p ssl crt $T/$real_n.pem" "server back ${real_back%@*}:${real_back#*@}"
}
real_stunnel() {
    printf '%s\n' foreground=yes pid= debug=4 '[dot]' "accept = 127.0.0.1:$real_p" "connect = ${real_back%@*}:${real_back#*@}" "cert = $real_c.pem" \
        "key = $real_c.key" "$@"
}
real_dnsmasq() {
    printf '%s\n' "port=$real_p" listen-address=127.0.0.1 bind-interfaces no-resolv no-hosts user=root log-facility=- "pid-file=$T/$real_n.d/pid" "$@"
}

# real_zone: a zone with the types that are asked below, signed when ldns-signzone is there
real_zone() {
    cat >"$T/test.zone" <<'END'
$ORIGIN test.
$TTL 3600
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
@ MX 10 mail
@ MX 20 mail2
ns A 192.0.2.1
mail A 192.0.2.2
mail2 A 192.0.2.3
www A 192.0.2.10
www A 192.0.2.11
www AAAA 2001:db8::10
www TXT "plain" "with \"quotes\" and \; and \255"
www TYPE65 \# 10 00010000010003026832
www TYPE65280 \# 16 00010203040506070809fffefdfcfbfa
srv SRV 1 2 853 www
alias CNAME www
*.wild A 192.0.2.12
END
    have ldns-keygen ldns-signzone || return 0
    (
        cd "$T" || exit
        real_k=$(ldns-keygen -a ECDSAP256SHA256 -k test 2>/dev/null) &&
            ldns-signzone -e 20380101000000 -i 20200101000000 -f test.signed test.zone "$real_k" 2>"$T/zone.log" && mv test.signed test.zone
    )
}

# real_reply ADDRESS PORT NAME TYPE [KDIG OPTION...]: RCODE and answer as kdig tells them, without TTLs, in order of text
real_reply() {
    real_a=$1 real_o=$2 real_q=$3 real_t=$4
    shift 4
    kdig "@$real_a" -p "$real_o" +noall +header +answer +nottl +retry=1 +timeout=5 "$@" "$real_q" "$real_t" 2>&1 |
        sed -n 's/.*status: \([A-Z]*\).*/\1/p; /^[^;]/p' | tr 'A-Z' 'a-z' | sort
}

# real_compare PORT WORDS [KDIG OPTION...]: what the server at PORT, an upstream with these words, says when asked so, the program says too:
# when asked first and from the cache, over UDP, TCP and IPv6
real_compare() {
    real_l=$(freeport) real_s=$1
    proxy front "ca-file $T/pki/ca.pem" "listen 127.0.0.1@$real_l" "listen ::1@$real_l" "127.0.0.1@$1 1 $2"
    shift 2
    while read -r real_x real_y real_z; do
        real_w=$(real_reply 127.0.0.1 "$real_s" "$real_x" "$real_y" "$real_z" "$@")
        like '^n(oerror|xdomain)' "$real_w" "$real_x $real_y of the upstream"
        for real_v in '127.0.0.1 +notcp' '127.0.0.1 +tcp' '::1 +notcp'; do
            same "$real_w" "$(real_reply "${real_v% *}" "$port" "$real_x" "$real_y" "$real_z" "${real_v#* }")" "$real_x $real_y ($real_v)"
        done
    done <<'END'
www.test A +nodnssec
WwW.tEsT AAAA +nodnssec
test MX +nodnssec
test NS +nodnssec
test SOA +nodnssec
www.test TXT +nodnssec
www.test TYPE65 +nodnssec
www.test TYPE65280 +nodnssec
srv.test SRV +nodnssec
alias.test A +nodnssec
a.wild.test A +nodnssec
alias.test MX +nodnssec
nothing.test A +nodnssec
test DNSKEY +dnssec
END
}

leg_real_upstreams() {
    promise 'what nsd says is what clients get: A, AAAA, MX, TXT, HTTPS, DNSKEY, TYPE65280 over UDP, TCP and IPv6'
    needs kdig nsd || return
    real_zone
    real_pn=$(freeport) real_pu=$(freeport)
    real nsd nsd "$real_pn"
    real_compare "$real_pn" ''
    promise 'the same through unbound, over TCP'
    if needs unbound; then
        real server unbound "$real_pu" 'domain-insecure: test.' stub-zone: 'name: test.' "stub-addr: 127.0.0.1@$real_pn"
        real_compare "$real_pu" tcp +tcp
    fi
    promise 'the same through dnsmasq'
    if needs dnsmasq; then
        real server dnsmasq "$real_pu" "server=/test/127.0.0.1#$real_pn"
        real_compare "$real_pu" ''
    fi
}

# client COMMAND [ADDRESS]: runs it where resolv.conf names this server and port 53 can be had; prints what it says in order of text
client() {
    printf 'nameserver %s\n' "${2:-127.0.0.1}" >"$T/resolv.conf"
    echo 'hosts: files dns' >"$T/nsswitch.conf"
    # shellcheck disable=SC2016
    ns env T="$T" unshare -m sh -c 'mount --bind "$T/resolv.conf" /etc/resolv.conf && mount --bind "$T/nsswitch.conf" /etc/nsswitch.conf && cd "$T" || exit
        command=$1; shift; eval "$command"' sh "$1" "${2:-}" </dev/null 2>&1 | sort
}
# client_gai CC: getaddrinfo(3) as programs use it, of that compiler's C library, is $T/gai
client_gai() { "$1" -O -o "$T/gai" "$SRC/tests/gai.c" >>"$T/gai.log" 2>&1 || fail "$(tail -n 3 "$T/gai.log")"; }

leg_real_clients() {
    promise 'a namespace of its own, with port 53 and resolv.conf'
    needs dnsmasq && netns || return
    real back dnsmasq 5300 local=/test/ host-record=www.test,192.0.2.10,2001:db8::10
    proxy front 'listen 127.0.0.1@53' 'listen ::1@53' '127.0.0.1@5300 1'
    for real_c in 'kdig +short' 'dig +short' 'drill -Q'; do
        promise "${real_c% *} gets A over IPv4 and AAAA over IPv6"
        needs "${real_c% *}" || continue
        same 192.0.2.10 "$(client "$real_c @127.0.0.1 www.test A")"
        same 2001:db8::10 "$(client "$real_c @::1 www.test AAAA")"
    done
    promise 'nslookup of busybox finds the address'
    ! needs busybox || like '^Address[ 0-9:]* 192\.0\.2\.10' "$(client 'busybox nslookup www.test 127.0.0.1')"
    promise 'getaddrinfo of the C library gets both addresses, and an error for a name that does not exist'
    client_gai "$CC"
    same '192.0.2.10 2001:db8::10' "$(client './gai www.test' | paste -s -d ' ')"
    like '[Nn]ot known' "$(client './gai nobody.test')"
    promise 'getaddrinfo of musl gets both addresses'
    ! needs musl-gcc || { client_gai musl-gcc; same '192.0.2.10 2001:db8::10' "$(client './gai www.test' | paste -s -d ' ')"; }
    judge
    stop front
}

# five ADDRESS NAME [ms:RANGE]: five fresh names of that kind have this address
five() { for five_i in 1 2 3 4 5; do gets "^NOERROR .* A $(ere "$1")\$" ${3:-} "$2$five_i.test"; done; }
first_wins() { answers_with 192.0.2.1; }

leg_real_failover() {
    promise 'with both well, priority 1 wins'
    needs unbound dnsmasq || return
    real_p1=$(freeport) real_p2=$(freeport)
    real_first() { real first unbound "$real_p1" 'local-zone: test. redirect' 'local-data: "test. A 192.0.2.1"'; }
    real_first
    real second dnsmasq "$real_p2" address=/test/192.0.2.2 local-ttl=60
    proxy front "127.0.0.1@$real_p1 1" "127.0.0.1@$real_p2 2" 'patience 1000'
    five 192.0.2.1 a
    promise 'priority 1 silent (SIGSTOP): every query is answered'
    kill -STOP "$(pid first)"
    five 192.0.2.2 b
    promise 'after three slow answers they are immediate'
    five 192.0.2.2 c ms:0-500
    same down "$(upstream "127.0.0.1@$real_p1" state)"
    promise 'it comes back by itself (SIGCONT)'
    kill -CONT "$(pid first)"
    await 10 first_wins || fail 'priority 1 does not win again'
    promise 'priority 1 killed (SIGKILL): every query is answered, at once'
    kill_pid first KILL
    five 192.0.2.2 d ms:0-500
    promise 'it comes back by itself (started again)'
    real_first
    await 15 first_wins || fail 'priority 1 does not win again'
    judge
    stop front
}

leg_netcats() {
    proxy front '127.0.0.1@9 1'
    for real_c in nc.openbsd nc.traditional ncat 'busybox nc'; do
        promise "'echo status | $real_c' ends by itself"
        if have "${real_c% nc}"; then
            # shellcheck disable=SC2086
            real_x=$(echo status | timeout 10 $real_c 127.0.0.1 "$admin")
            same 0 $? 'exit status'
            like '^dnsproxy .* uptime [0-9]+ queries' "$real_x"
            like '^cache entries 0 ' "$real_x"
        else
            skip "${real_c% nc} is missing"
        fi
    done
    stop front
}

# only_13 ADDRESS: a server there with TLS 1.3 only (nsd from 4.13 on) costs its clients nothing, and the log names TLS 1.3, once
only_13() {
    dot last good : net=11
    proxy px "$ca" "$1 1 tls=dns.test" "$last 2 tls=dns.test" 'patience 3000'
    answered 11 15 rate=10
    within 0 $((1500 * SLOW)) "$worst" "slowest, ms"
    same 1 "$(said px "$1" 'tls: .*(TLS 1\.2|version)')" "lines in the log"
    stop px last
}

leg_tls_real() {
    tls_ready
    crt realec by=int cn=dns.test san=dns:dns.test eku=serverAuth
    crt realrsa by=intrsa key=rsa cn=dns.test san=dns:dns.test eku=serverAuth
    chmod 644 "$T"/pki/*.key
    promise "a server with TLS 1.3 only is a clean failure, named once"
    needs kdig nsd openssl || return
    real_pt=$(freeport) real_pn=$(freeport)
    real_back=127.0.0.1@$real_pn
    real_zone
    openssl s_server -accept "127.0.0.1:$real_pt" -tls1_3 -quiet -cert "$T/pki/realec.crt" -key "$T/pki/realec.key" </dev/zero >"$T/s_server.log" 2>&1 &
    started s_server $!
    only_13 "127.0.0.1@$real_pt"
    kill_pid s_server
    real nsd nsd "$real_pn"
    while read -r real_k real_cert; do
        promise "what $real_k says over TLS is what clients get ($real_cert)"
        real_x=$(real_command "$real_k")
        needs "${real_x%% *}" || continue
        real server "$real_k" "$real_pt"
        if real_has_12 "$real_pt"; then
            real_compare "$real_pt" tls=dns.test +tls-ca="$T/pki/ca.pem" +tls-hostname=dns.test
            like 'noerror 50 ' "$(many n=50 window=10 name=n%x.wild.test)"
            within 1 2 "$(upstream "127.0.0.1@$real_pt" connects)" "connections"
        else
            promise_text="$real_k with TLS 1.3 only is a clean failure, named once ($real_cert)"
            only_13 "127.0.0.1@$real_pt"
        fi
    done <<'END'
nsd realec
nsd realrsa
unbound realec
dnsdist realrsa
bind9 realec
kresd realrsa
haproxy realec
stunnel realrsa
END
}
# real_has_12 PORT: the server there speaks TLS 1.2
real_has_12() { echo | openssl s_client -connect "127.0.0.1:$1" -tls1_2 >"$T/tls12.log" 2>&1; }
