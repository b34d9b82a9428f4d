# real.sh - real servers and real clients.
# Alone: ./test.sh real_upstreams real_clients real_failover netcats tls_real

# ---- Servers, each a process of its own

real_cert='' real_back=''       # a certificate in $T/pki, and ADDRESS@PORT of what is asked by the servers that forward
real_ds='' real_zones=test      # the DS of a root, which resolvers believe then; the zones of nsd and knotd

# real NAME KIND PORT [LINE...]: a server at 127.0.0.1@PORT, over TLS if there is a $real_cert, with these lines in its configuration
# (dnsdist: words of addTLSLocal)
real() {
    real_a=127.0.0.1 real_p=$3 real_s=$(freeport) real_h=$(freeport) real_d=$(freeport) real_o=$3
    [ -z "$real_cert" ] || real_p=$real_s real_s=$3
    real_w=$1 real_k=$2
    shift 3
    real_start "$real_w" "$real_k" "$@"
    listens "$(pid "$real_n")" "$real_o" 10 || fail "$real_k does not serve: $(tail -n 3 "$T/$real_n.log")"
}

# real_start NAME KIND [LINE...]: a server at the address $real_a, with plain DNS at the port $real_p, TLS at $real_s, HTTPS at
# $real_h and without TLS at $real_d, as far as it has them. One of that name is ended before with SIGTERM, for some have children.
real_start() {
    real_n=$1 real_k=$2 real_c=$T/pki/$real_cert
    shift 2
    kill_pid "$real_n" TERM
    rm -rf "$T/$real_n.d"
    mkdir "$T/$real_n.d"
    (cd "$T/$real_n.d" && "real_$real_k" "$@") >"$T/$real_n.conf"
    # shellcheck disable=SC2046
    (cd "$T/$real_n.d" && exec $NS $(real_command "$real_k") "$T/$real_n.conf") </dev/null >"$T/$real_n.log" 2>&1 &
    started "$real_n" $!
}
# the words before the file's name, of which the first is the program
real_command() {
    case $1 in
    bind9 | named) echo named -f -g -4 -c ;;
    dnsdist) echo dnsdist --supervised --disable-syslog -C ;;
    dnsmasq) echo dnsmasq -k -C ;;
    haproxy) echo haproxy -db -f ;;
    knotd) echo knotd -c ;;
    kresd) echo kresd -n -c ;;
    nginx) echo nginx -p . -c ;;
    pdns_recursor | resolved) echo sh ;;
    smartdns) echo smartdns -f -p - -c ;;
    stubby) echo stubby -v 0 -C ;;
    stunnel) echo stunnel ;;
    *) echo "$1" -d -c ;;
    esac
}

# Their configuration:
real_nsd() {
    real_nlnet 'database: ""' "zonesdir: \"$T\"" 'xfrdfile: "xfrd"' 'xfrdir: "."' 'zonelistfile: "list"' 'server-count: 1' \
        'tcp-count: 500' "$@"
    for real_z in $real_zones; do printf '%s\n' zone: "name: \"${real_z#root}.\"" "zonefile: $real_z.zone"; done
}
real_unbound() {
    real_nlnet 'do-daemonize: no' 'chroot: ""' 'use-syslog: no' 'num-threads: 1' 'directory: ""' 'do-not-query-localhost: no' \
        "module-config: \"${real_ds:+validator }iterator\"" "${real_ds:+trust-anchor: \". DS $real_ds\"}" 'local-zone: test. nodefault' \
        "${real_cert:+https-port: $real_h}" "$@"
    [ -z "$real_back" ] || printf '%s\n' forward-zone: 'name: .' "forward-addr: $real_back"
}
real_nlnet() {
    echo server:
    for real_x in $real_p ${real_cert:+$real_s $real_h}; do echo "interface: $real_a@$real_x"; done
    [ -z "$real_cert" ] || printf '%s\n' "tls-port: $real_s" "tls-service-key: $real_c.key" "tls-service-pem: $real_c.pem"
    printf '%s\n' 'username: ""' 'pidfile: ""' "$@" remote-control: 'control-enable: no'
}
real_bind9() {
    cat <<END
options { directory "."; managed-keys-directory "."; pid-file none; session-keyfile none; listen-on-v6 { none; }; empty-zones-enable no;
    max-udp-size 1232; forward only; forwarders { ${real_back%@*} port ${real_back#*@}; }; dnssec-validation $(real_if yes no);
    listen-on port $real_p { $real_a; }; listen-on port $real_s tls here { $real_a; };
    listen-on port $real_h tls here http here { $real_a; }; };
tls here { key-file "$real_c.key"; cert-file "$real_c.pem"; };
http here { endpoints { "/dns-query"; }; };
controls { };
END
    [ -z "$real_ds" ] || real_anchor
}
real_anchor() { echo "trust-anchors { . static-ds ${real_ds% *} \"${real_ds##* }\"; };"; }
real_named() { real_bind9; }
real_if() { if [ -n "$real_ds" ]; then echo "$1"; else echo "$2"; fi; }
real_kresd() {
    cat <<END
net.listen('$real_a', $real_p, { kind = 'dns' })
net.listen('$real_a', $real_s, { kind = 'tls' })
net.listen('$real_a', $real_h, { kind = 'doh2' })
net.tls('$real_c.pem', '$real_c.key')
net.ipv6 = false
trust_anchors.remove('.')
${real_ds:+trust_anchors.add('. IN DS $real_ds')}
policy.add(policy.all(policy.$(real_if FORWARD STUB)('$real_back')))
cache.size = 10 * MB
END
}
real_knotd() {
    printf '%s\n' server: "    listen: $real_a@$real_p" '    rundir: .' database: '    storage: .' 'log:' '  - target: stderr' \
        '    any: info' template: '  - id: default' "    storage: $T" '    file: "%s.zone"' zone:
    for real_z in $real_zones; do echo "  - domain: $real_z"; done
}
real_pdns_recursor() {
    printf 'clearTA()\naddTA(".", "%s")\n' "$real_ds" >ds.lua
    echo exec pdns_recursor --config-dir=none --local-address="$real_a" --local-port="$real_p" --forward-zones-recurse=".=$(real_colon)" \
        --dont-query= --daemon=no --socket-dir=. --dnssec=process --allow-from=127.0.0.0/8 --disable-syslog=yes --threads=1 --write-pid=no \
        --lua-config-file=ds.lua --query-local-address=127.0.0.1 --security-poll-suffix=
}
real_colon() { echo "${real_back%@*}:${real_back#*@}"; }
real_dnsdist() {
    cat <<END
setLocal("$real_a:$real_p")
addTLSLocal("$real_a:$real_s", "$real_c.pem", "$real_c.key", { minTLSVersion = "tls1.2", $* })
addDOHLocal("$real_a:$real_h", "$real_c.pem", "$real_c.key", "/dns-query")
addDOHLocal("$real_a:$real_d", nil, nil, "/dns-query", { reusePort = false })
newServer({ address = "$(real_colon)", healthCheckMode = "up" })
setSecurityPollSuffix("")
END
}
real_dnsmasq() {
    printf '%s\n' "port=$real_p" "listen-address=$real_a" bind-interfaces no-resolv no-hosts user=root log-facility=- pid-file=pid \
        edns-packet-max=1232 "${real_back:+server=${real_back%@*}#${real_back#*@}}" "$@"
}
real_smartdns() {
    printf '%s\n' "bind $real_a:$real_p" "bind-tcp $real_a:$real_p" "server-tcp $(real_colon)" 'speed-check-mode none' \
        'dualstack-ip-selection no' 'log-level error' 'log-file out' 'cache-file cache' 'force-qtype-SOA -' 'server-name smartdns'
}
real_stubby() {
    cat <<END
{ resolution_type: GETDNS_RESOLUTION_STUB, dns_transport_list: [ GETDNS_TRANSPORT_TLS ], idle_timeout: 10000, appdata_dir: ".",
  tls_authentication: GETDNS_AUTHENTICATION_REQUIRED, tls_ca_file: "$T/pki/ca.pem", listen_addresses: [ $real_a@$real_p ],
  upstream_recursive_servers: [ { address_data: ${real_back%@*}, tls_auth_name: "dns.test" } ] }
END
}
real_haproxy() {
    cat "$real_c.pem" "$real_c.key" >both.pem
    printf '%s\n' defaults 'mode tcp' 'timeout connect 5s' 'timeout client 60s' 'timeout server 60s' "$@" 'listen dot' \
        "bind $real_a:$real_s ssl crt both.pem" "server back $(real_colon)"
}
real_stunnel() {
    printf '%s\n' foreground=yes pid= debug=4 '[dot]' "accept = $real_a:$real_s" "connect = $(real_colon)" "cert = $real_c.pem" \
        "key = $real_c.key" "$@"
}
# Before a dnsdist, which from 2.1 on speaks HTTP/2 only without TLS; a nginx that cannot stands before an older one
real_nginx() {
    echo 'daemon off; error_log stderr; events { } http { proxy_http_version 2; }' >http2
    real_x=2
    $NS nginx -t -q -p . -c "$PWD/http2" 2>http2.log || real_x=1.1
    cat <<END
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; pid pid; error_log stderr; worker_processes 1; user root;
events { worker_connections 500; }
stream { server { listen $real_a:$real_s ssl; ssl_certificate $real_c.pem; ssl_certificate_key $real_c.key; proxy_pass $(real_colon); } }
http { access_log off; server { listen $real_a:$real_h ssl http2; ssl_certificate $real_c.pem; ssl_certificate_key $real_c.key;
    location /dns-query { proxy_pass http://${real_back%@*}:$real_d; proxy_http_version $real_x; proxy_set_header Connection ""; } } }
END
}
# systemd-resolved wants a network that is up, and a user
real_resolved() {
    ns ip link add w0 type veth peer name w1 2>/dev/null && ns ip address add 10.99.0.1/24 dev w0
    ns ip link set w0 up
    ns ip link set w1 up
    mkdir -p run/systemd/resolve etc anchors /etc/dnssec-trust-anchors.d
    chown 65534:65534 run/systemd/resolve
    { cat /etc/passwd; echo 'systemd-resolve:x:65534:65534::/:/bin/false'; } >passwd
    echo ". IN DS $real_ds" >anchors/root.positive
    printf '%s\n' '[Resolve]' "DNS=${real_back%@*}" FallbackDNS= Domains=~. DNSSEC=yes LLMNR=no MulticastDNS=no DNSStubListener=no \
        "DNSStubListenerExtra=$real_a" Cache=no >etc/resolved.conf
    cat <<END
exec unshare -m sh -c 'mount --bind passwd /etc/passwd && mount --bind etc /etc/systemd && mount --bind anchors /etc/dnssec-trust-anchors.d &&
    mount --bind run /run && exec $ROOT/resolved/lib/systemd/systemd-resolved'
END
}

# ---- What they say

real_auth=127.7.0.2             # what the zones say of their server

# zone ORIGIN [OPTION...]: $T/ORIGIN.zone, with a record of each type that is asked below, signed (when ldns-signzone is there, with its
# options), and its DS in $T/ORIGIN.ds
zone() {
    real_o=$1
    shift
    {
        cat <<END
\$ORIGIN $real_o.
\$TTL 3600
@ SOA ns hostmaster 1 3600 600 86400 300
@ NS ns
@ MX 10 mail
@ MX 20 www
ns A $real_auth
mail A 203.0.113.25
www A 203.0.113.10
www AAAA 2001:db8::10
www CAA 0 issue "ca.example"
www TXT "plain" "with \"quotes\" and \; and \255"
alias CNAME www
far CNAME alias.hashed.
old DNAME new
deep.new A 203.0.113.11
*.wild A 203.0.113.12
_sip._tcp SRV 1 2 5060 www
naptr NAPTR 100 10 "u" "E2U+sip" "!^.*\$!sip:info@example.org!" .
svc HTTPS 1 . alpn=h2 ipv4hint=203.0.113.10
raw TYPE65280 \# 16 00010203040506070809fffefdfcfbfa
END
        awk 'BEGIN { for (i = 1; i <= 60; i++) print "many A 198.51.100." i
            x = sprintf("%200s", ""); gsub(/ /, "x", x)
            for (i = 0; i < 22; i++) print "big TXT \"" i x "\""
            for (i = 0; i < 97; i++) print "huge TXT \"" i x "\"" }'
    } >"$T/$real_o.zone"
    zone_sign "$real_o" "$@"
}
zone_sign() {
    have ldns-keygen ldns-signzone || return 0
    (
        cd "$T" || exit
        zone_o=$1
        shift
        zone_k=$(ldns-keygen -a ECDSAP256SHA256 -k "${zone_o#root}." 2>/dev/null) &&
            ldns-signzone -e 20380101000000 -i 20200101000000 "$@" -f out "$zone_o.zone" "$zone_k" &&
            mv out "$zone_o.zone" && mv "$zone_k.ds" "$zone_o.ds"
    ) >>"$T/sign.log" 2>&1
}

# questions ORIGIN: names and types of that zone, one of each kind
questions() {
    sed "s/@/$1/" <<'END'
www.@ A
WwW.@ AAAA
www.@ CAA
www.@ TXT
www.@ MX
alias.@ A
alias.@ MX
x.wild.@ A
deep.old.@ A
@ MX
@ NS
@ SOA
@ DNSKEY +dnssec
_sip._tcp.@ SRV
naptr.@ NAPTR
svc.@ HTTPS
raw.@ TYPE65280
many.@ A
big.@ TXT
huge.@ TXT
nothing.@ A
END
}

# answers_all ADDRESS PORT [KDIG OPTION...]: what a server says to all $questions, without TTLs and in order of text
answers_all() {
    all_a=$1 all_p=$2
    shift 2
    # shellcheck disable=SC2086
    ns kdig "@$all_a" -p "$all_p" "$@" +retry=2 +timeout=9 +nottl +noall +header +question +answer $questions 2>&1 |
        awk '/status:/ { s = $0; sub(/.*status: /, "", s); sub(/;.*/, "", s) } /^;;[^ ]/ { q = substr($1, 3) " " $3; print q, s }
            /^[^;]/ { print q, tolower($1) substr($0, length($1) + 1) } /^;; (WARNING|ERROR)/ && !/truncated reply/ { print }' | sort
}

# all_same WHAT ADDRESS PORT [KDIG OPTION...]: that server says what is in $T/want;  got_same WHAT: $T/got has what is there
all_same() {
    all_w=$1
    shift
    answers_all "$@" >"$T/got"
    got_same "$all_w"
}
got_same() { cmp -s "$T/want" "$T/got" || fail "$1:" "$(diff "$T/want" "$T/got" | grep '^[<>]' | cut -c 1-160 | head -n 6)"; }

# all_directly LEAST ADDRESS PORT [KDIG OPTION...]: what that server says goes to $T/want, when asked twice, for some say it in other
# words when it comes from their cache. So many questions have an answer there, or it is known that they have none.
all_directly() {
    all_n=$1
    shift
    answers_all "$@" >/dev/null
    answers_all "$@" >"$T/want"
    within "$all_n" 99 "$(grep -Ec ' (NOERROR|NXDOMAIN)$' "$T/want")" \
        "answers when asked directly: $(grep ' SERVFAIL\|REFUSED\|ERROR:' "$T/want")"
}

# real_compare PORT WORDS [KDIG OPTION...]: what the server at PORT, an upstream with these words, says when asked so, the program says
# too: when asked first and from the cache, over UDP, TCP and IPv6
real_compare() {
    real_l=$(freeport) real_o=$1
    proxy front "ca-file $T/pki/ca.pem" 'cache-negative 30' "listen 127.0.0.1@$real_l" "listen ::1@$real_l" "127.0.0.1@$1 1 $2"
    shift 2
    questions=$(questions test)
    all_directly 21 127.0.0.1 "$real_o" "$@"
    all_same "over UDP" 127.0.0.1 "$port"
    all_same "over TCP" 127.0.0.1 "$port" +tcp
    all_same "over IPv6" ::1 "$port"
}

leg_real_upstreams() {
    promise 'what nsd says is what clients get: A, AAAA, MX, TXT, HTTPS, DNSKEY, TYPE65280 over UDP, TCP and IPv6'
    needs kdig nsd || return
    zone test
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
    ns env T="$T" unshare -m sh -c 'cd "$T" && mount --bind resolv.conf /etc/resolv.conf && mount --bind nsswitch.conf /etc/nsswitch.conf || exit
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
five() { for five_i in 1 2 3 4 5; do says "^NOERROR .* A $(ere "$1")\$" ${3:-} "$2$five_i.test"; done; }
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
        needs "${real_c% nc}" || continue
        # shellcheck disable=SC2086
        real_x=$(echo status | timeout 10 $real_c 127.0.0.1 "$admin")
        same 0 $? 'exit status'
        like '^dnsproxy .* uptime [0-9]+ queries' "$real_x"
        like '^cache entries 0 ' "$real_x"
    done
    stop front
}

# only_13 ADDRESS: a server there with TLS 1.3 only (nsd from 4.13 on) costs its clients nothing, and the log names TLS 1.3, once
only_13() {
    dot last good : net=11
    proxy px "$ca" "$1 1 tls=dns.test" "$last 2 tls=dns.test" 'patience 3000'
    answered 11 15 rate=10
    within 0 $((1500 * SLOW)) "$(val slowest_ms "$out")" "slowest, ms"
    blamed "$1" 'tls: .*(TLS 1\.2|version)' 1
    stop px last
}

leg_tls_real() {
    tls_ready
    crt goodrsa by=intrsa key=rsa cn=dns.test san=dns:dns.test eku=serverAuth
    promise "a server with TLS 1.3 only is a clean failure, named once"
    needs kdig nsd openssl || return
    real_pt=$(freeport) real_pn=$(freeport)
    real_back=127.0.0.1@$real_pn
    zone test
    openssl s_server -accept "127.0.0.1:$real_pt" -tls1_3 -quiet -cert "$T/pki/good.crt" -key "$T/pki/good.key" </dev/zero \
        >"$T/s_server.log" 2>&1 &
    started s_server $!
    only_13 "127.0.0.1@$real_pt"
    kill_pid s_server
    real nsd nsd "$real_pn"
    while read -r tls_k real_cert; do
        promise "what $tls_k says over TLS is what clients get ($real_cert)"
        real_x=$(real_command "$tls_k")
        needs "${real_x%% *}" || continue
        real server "$tls_k" "$real_pt"
        if real_has_12 127.0.0.1 "$real_pt"; then
            real_compare "$real_pt" tls=dns.test +tls-ca="$T/pki/ca.pem" +tls-hostname=dns.test
            like 'noerror 50 ' "$(many n=50 window=10 name=n%x.wild.test)"
            within 1 2 "$(upstream "127.0.0.1@$real_pt" connects)" "connections"
        else
            promise_text="$tls_k with TLS 1.3 only is a clean failure, named once ($real_cert)"
            only_13 "127.0.0.1@$real_pt"
        fi
    done <<'END'
nsd good
nsd goodrsa
unbound good
dnsdist goodrsa
bind9 good
kresd goodrsa
haproxy good
stunnel goodrsa
END
}
# real_has_12 ADDRESS PORT: the server there speaks TLS 1.2
real_has_12() { ns openssl s_client -connect "$1:$2" -tls1_2 </dev/null >"$T/tls12.log" 2>&1; }
