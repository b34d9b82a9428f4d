# real.sh - real servers and real clients.
# Alone: ./test.sh real_servers real_clients netcats

# ---- Servers, each a process of its own

real_cert='' real_back=''       # a certificate in $T/pki, and ADDRESS@PORT of what is asked by the servers that forward
real_ds='' real_zones=test      # the DS of a root, which resolvers believe then; the zones of nsd and knotd

real_by=''                      # words before the command of a server

# real NAME KIND WHERE [LINE...]: a server at the port WHERE of 127.0.0.1, over TLS if there is a $real_cert, when it serves; or at the
# address WHERE: plain DNS at port 53, TLS at 853, HTTPS at 443 and without TLS at 8053, as far as it has them. The lines stand in its
# configuration (stubby: its upstreams instead). One of that name is ended before with SIGTERM, for some have children.
real() {
    real_n=$1 real_k=$2 real_c=$T/pki/$real_cert real_o=$3
    case $3 in
    *.*) real_a=$3 real_p=53 real_s=853 real_h=443 real_d=8053 ;;
    *) real_a=127.0.0.1 real_p=$3 real_s=$(freeport) real_h=$(freeport) real_d=$(freeport) ;;
    esac
    case $3$real_cert in *.* | "$3") ;; *) real_p=$real_s real_s=$3 ;; esac
    shift 3
    kill_pid "$real_n" TERM
    rm -rf "$T/$real_n.d"
    mkdir "$T/$real_n.d"
    (cd "$T/$real_n.d" && "real_$real_k" "$@") >"$T/$real_n.conf"
    # shellcheck disable=SC2046
    (cd "$T/$real_n.d" && exec $NS $real_by $(real_command "$real_k") "$T/$real_n.conf") </dev/null >"$T/$real_n.log" 2>&1 &
    started "$real_n" $!
    case $real_o in
    *.*) ;;
    *) listens $! "$real_o" 10 || fail "$real_k does not serve: $(tail -n 3 "$T/$real_n.log")" ;;
    esac
}

# name, protocols (those without udp have nothing at port 53), certificate, the words before the file of the configuration
real_servers='
nsd            udp,tcp,tls        good     nsd -d -c
unbound        udp,tcp,tls,https  good     unbound -d -c
bind9          udp,tcp,tls,https  good     named -f -g -4 -c
knotd          udp,tcp            -        knotd -c
kresd          udp,tcp,tls,https  goodrsa  kresd -n -c
pdns_recursor  udp,tcp            -        sh
dnsdist        udp,tcp,tls,https  goodrsa  dnsdist --supervised --disable-syslog -C
dnsmasq        udp,tcp            -        dnsmasq -k -C
smartdns       udp,tcp            -        smartdns -f -p - -c
stubby         udp,tcp            -        stubby -v 0 -C
haproxy        tls                good     haproxy -db -f
stunnel        tls                goodrsa  stunnel
nginx          tls,https          good     nginx -p . -c
resolved       -                  -        sh'
real_command() { echo "$real_servers" | sed -n "s/^$1 *[^ ]* *[^ ]* *//p"; }
# real_here KIND: it is on this machine, else the promise is skipped
real_here() {
    here_c=$(real_command "$1")
    case $1 in
    resolved) needs "$ROOT/resolved/lib/systemd/systemd-resolved" ;;
    pdns_recursor) needs "$1" ;;
    *) needs "${here_c%% *}" ;;
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
    printf '%s\n' "$@"
}
real_anchor() { echo "trust-anchors { . static-ds ${real_ds% *} \"${real_ds##* }\"; };"; }
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
    printf '%s\n' "$@"
    cat <<END
setLocal("$real_a:$real_p")
addDOHLocal("$real_a:$real_d", nil, nil, "/dns-query", { reusePort = false })
setSecurityPollSuffix("")
END
    [ -z "$real_cert" ] || cat <<END
addTLSLocal("$real_a:$real_s", "$real_c.pem", "$real_c.key", { minTLSVersion = "tls1.2", maxInFlight = inFlight })
addDOHLocal("$real_a:$real_h", "$real_c.pem", "$real_c.key", "/dns-query")
END
    [ -z "$real_back" ] || echo "newServer({ address = '$(real_colon)', healthCheckMode = 'up' })"
}
real_dnsmasq() {
    printf '%s\n' "port=$real_p" "listen-address=$real_a" bind-interfaces no-resolv no-hosts user=root log-facility=- pid-file=pid \
        edns-packet-max=1232 "${real_back:+server=${real_back%@*}#${real_back#*@}}" "$@"
}
real_smartdns() {
    printf '%s\n' "bind $real_a:$real_p" "bind-tcp $real_a:$real_p" "${real_back:+server-tcp $(real_colon)}" \
        'speed-check-mode none' 'dualstack-ip-selection no' 'log-level error' 'log-file out' 'cache-file cache' 'force-qtype-SOA -' \
        'server-name smartdns' "$@"
}
real_stubby() {
    [ $# -gt 0 ] || set -- "{ address_data: ${real_back%@*}, tls_auth_name: \"dns.test\" }"
    cat <<END
{ resolution_type: GETDNS_RESOLUTION_STUB, dns_transport_list: [ GETDNS_TRANSPORT_TLS ], idle_timeout: 10000, appdata_dir: ".",
  tls_authentication: GETDNS_AUTHENTICATION_REQUIRED, tls_ca_file: "$T/pki/ca.pem", listen_addresses: [ $real_a@$real_p ],
  upstream_recursive_servers: [ $* ] }
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

# zone ORIGIN [OPTION...]: $T/ORIGIN.text, a zone with a record of each type that is asked below, and as zone_sign
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
    } >"$T/$real_o.text"
    zone_sign "$real_o" "$@"
}
# zone_sign ORIGIN [OPTION...]: $T/ORIGIN.zone, that text signed by ldns-signzone with these options, and its DS in $T/ORIGIN.ds
zone_sign() {
    (
        cd "$T" || exit
        zone_o=$1
        shift
        zone_k=$(ldns-keygen -a ECDSAP256SHA256 -k "${zone_o#root}." 2>/dev/null) &&
            ldns-signzone -e 20380101000000 -i 20200101000000 "$@" -f "$zone_o.zone" "$zone_o.text" "$zone_k" && mv "$zone_k.ds" "$zone_o.ds"
    ) >>"$T/sign.log" 2>&1
}

# questions ORIGIN: names and types of that zone: each record, by a name that leads to it, and what is not so plain
questions() {
    awk -v o="$1" '/^[^$]/ { sub(/^\*/, "x"); sub(/^deep.new/, "deep.old"); print ($1 == "@" ? "" : $1 ".") o, $2 }' "$T/$1.text" | sort -u
    printf '%s\n' "WwW.$1 AAAA" "www.$1 MX" "alias.$1 A" "alias.$1 MX" "$1 DNSKEY +dnssec" "nothing.$1 A"
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

# ---- The world: a root, a zone with NSEC, one with NSEC3, an insecure and a bogus one, at two nsd, and a resolver, all in a namespace

w_dead=127.7.9.9@9999
w_zones='signed hashed plain bogus'

# w_real NAME KIND ADDRESS [LINE...]: a server of the world; waits until it answers
w_real() {
    ns ip address add "$3/32" dev lo 2>/dev/null        # named serves only addresses that it finds
    real "$@"
    await 10 w_answers "$3" || fail "$1 does not answer: $(tail -n 3 "$T/$1.log")"
}
w_answers() { ns kdig "@$1" +retry=0 +timeout=2 www.signed A +notcp www.signed A +tls 2>/dev/null | grep -q 'status: NOERROR'; }

# w_world TEXT: certificates, zones, the servers root and auth, and the resolver, which is asked by all that start later. False when
# this machine cannot have it, and then the promise TEXT is skipped.
w_world() {
    promise "$1"
    needs nsd kdig ldns-signzone ldns-keygen openssl unbound && netns || return
    promise_text=''
    tls_ready
    real_cert=good
    zone signed
    zone hashed -n
    zone bogus
    zone plain
    sed -i 's/203\.0\.113\.10$/203.0.113.66/' "$T/bogus.zone"
    {
        printf '%s\n' '$ORIGIN .' '$TTL 3600' '@ SOA a.root. hostmaster.root. 1 3600 600 86400 300' '@ NS a.root.' 'a.root. A 127.7.0.1'
        for w_z in $w_zones; do printf '%s\n' "$w_z. NS ns.$w_z." "ns.$w_z. A $real_auth"; done
        cat "$T/signed.ds" "$T/hashed.ds" "$T/bogus.ds"
    } >"$T/root.text"
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

# w_proxy LINE...: dnsproxy with these lines, where resolv.conf can name it
w_proxy() { proxy front "$@" 'listen 127.0.0.1@53' 'listen ::1@53' "ca-file $T/pki/ca.pem" 'cache-negative 30'; }

# w_picked NAME: it is one of the rows that are wanted
w_picked() { case " ${WORKS:-$1} " in *" $1 "*) ;; *) return 1 ;; esac; }

leg_real_servers() {
    w_world 'real servers as upstreams' || return
    WORKS=${WORKS-nsd unbound bind9 kresd dnsdist dnsmasq haproxy stunnel}
    crt goodrsa by=intrsa key=rsa cn=dns.test san=dns:dns.test eku=serverAuth
    questions=$(questions signed && printf '%s\n' 'far.signed A' 'x.wild.hashed A' 'www.plain A' 'many.plain A')
    echo "$real_servers" >"$T/servers"
    while read -r w_name w_protos real_cert w_x; do
        case $w_protos in '' | -) continue ;; esac
        w_picked "$w_name" || continue
        promise "$w_name starts and answers"
        real_here "$w_name" || continue
        [ "$real_cert" != - ] || real_cert=good
        # a nginx speaks HTTPS for a dnsdist
        [ "$w_name" != nginx ] || { w_real behind dnsdist 127.7.1.99; real_back=127.7.1.99@53; }
        w_addr=127.7.1.2
        w_real server "$w_name" "$w_addr"
        case $w_protos in udp*) w_how=+tcp w_p=53 ;; *) w_how=+tls w_p=853 ;; esac
        all_directly 29 "$w_addr" $w_p $w_how        # smartdns has no answer of more than 4,000 bytes
        [ ! -s "$why" ] || continue
        for w_p in $(echo "$w_protos" | tr , ' '); do w_cell "$w_name" "$w_p"; done
    done <"$T/servers"
    promise "a server with TLS 1.3 only is a clean failure, named once"
    begin only13 openssl s_server -accept 127.0.0.1:5301 -tls1_3 -www -cert "$T/pki/good.crt" -key "$T/pki/good.key"
    only_13 127.0.0.1@5301
}

# w_cell NAME PROTO: what clients get with that upstream is what it says itself
w_cell() {
    promise "$1 as $2 upstream: 31 kinds of answers, cold, from the cache over TCP and IPv6, and with the best upstream dead"
    case $2 in udp) w_words='' ;; tcp) w_words=' tcp' ;; *) w_words=" $2=dns.test" ;; esac
    if [ "$2" = tls ] && ! real_has_12 "$w_addr" 853; then
        promise_text="$1 with TLS 1.3 only is a clean failure, named once"
        only_13 "$w_addr@853"
        return
    fi
    if [ "$2" = https ] && grep -q 'http_version 1.1' "$T/server.conf" && ! ns kdig "@$w_addr" +https +retry=0 www.signed A >/dev/null; then
        skip 'not here: this nginx cannot ask this dnsdist, whose plain DoH is HTTP/2 only'
        return
    fi
    w_proxy "$w_addr 1$w_words"
    all_same 'when asked first' 127.0.0.1 53
    [ "$2" != tls ] || within 1 2 "$(upstream "$w_addr@853" connects)" "connections"
    all_same 'from the cache, over TCP' 127.0.0.1 53 +tcp
    [ "$(count hits)" -ge 28 ] || fail "only $(count hits) came from the cache"       # a no without SOA is not kept
    all_same 'from the cache, over IPv6' ::1 53
    w_proxy 'timeout 4000' 'patience 300' "$w_dead 1" "$w_addr 2$w_words"
    all_same 'with the best upstream dead' 127.0.0.1 53
    stop front
}

# only_13 ADDRESS: a server there with TLS 1.3 only (nsd from 4.13 on) costs its clients nothing, and the log names TLS 1.3, once
only_13() {
    dot last good : net=11
    proxy px "$ca" "$1 1 tls=dns.test" "$last 2 tls=dns.test" 'patience 3000'
    answered 11 15 rate=10
    within 0 $((1500 * SLOW)) "$(val slowest_ms "$out")" "slowest, ms"
    blamed "$1" 'tls: .*(TLS 1\.2|version)' 1
    stop px
}
# real_has_12 ADDRESS PORT: the server there speaks TLS 1.2
real_has_12() { ns openssl s_client -connect "$1:$2" -tls1_2 </dev/null >"$T/tls12.log" 2>&1; }

# ---- The clients. tests/clients/ has those that are programs.

# name, the program, and what runs, in $T: $1 is the server's address, resolv.conf names it too; $w_words are the names and types that
# it asks for, $w_names the names
w_clients='
glibc    getent    for n in $w_names; do getent ahosts $n; done | cut -c 1-22
musl     musl-gcc  musl-gcc -o gai $C/../gai.c && for n in $w_names; do ./gai $n; done
busybox  busybox   for n in $w_names; do busybox nslookup $n $1 | grep -v :53; done
dig      dig       dig @$1 +noall +answer +nottlid $w_words
kdig     kdig      kdig @$1 +noall +answer +nottl $w_words
drill    drill     for n in $w_names; do drill @$1 $n A; drill @$1 $n AAAA; done | grep -v "^;;" | cut -f 1,3-
host     host      for n in $w_names; do host $n $1; done
delv     delv      for n in $w_names; do delv @$1 -a bind.keys +root=. $n A; done | sed "s/[0-9]*.IN/IN/"
node     node      node $C/node.js $w_words
go       go        GO111MODULE=off GOCACHE=$T/go GOFLAGS=-p=1 CGO_ENABLED=0 go run $C/go.go $w_words
ruby     ruby      ruby $C/ruby.rb $w_words
perl     perl      perl $C/perl.pl $w_words
python   /usr/bin/python3 /usr/bin/python3 $C/python.py $w_words
java     java      java $C/Client.java $w_words
erlang   escript   ERL_INETRC=$T/inetrc escript $C/erlang.escript $w_words'

leg_real_clients() {
    w_world 'real clients' || return
    WORKS=${WORKS-glibc musl busybox dig kdig drill}
    w_resolver='127.7.1.1 2 tls=dns.test'
    w_names='www.signed alias.signed far.signed x.wild.hashed many.signed www.plain nothing.signed'
    w_words="$(for n in $w_names; do printf '%s A %s AAAA ' "$n" "$n"; done)signed MX _sip._tcp.signed SRV naptr.signed NAPTR \
        www.signed CAA svc.signed HTTPS raw.signed TYPE65280 big.signed TXT huge.signed TXT"
    real_anchor >"$T/bind.keys"
    printf '{resolv_conf, "/etc/resolv.conf"}.\n{lookup, [dns]}.\n' >"$T/inetrc"
    export w_names w_words C="$SRC/tests/clients"
    echo "$w_clients" >"$T/clients"
    while read -r w_name w_program w_command; do
        [ -n "$w_name" ] && w_picked "$w_name" || continue
        promise "$w_name hears through dnsproxy what it hears from its upstream: cold, from the cache, and with the best upstream dead"
        needs "$w_program" || continue
        w_client 127.7.1.1 >"$T/want"
        w_x=$(grep -E "^Can't locate|^ModuleNotFound" "$T/want") && { skip "its library is missing: $w_x"; continue; }
        like '203[.,]0[.,]113[.,]10' "$(cat "$T/want")" 'asked directly'
        w_proxy "$w_resolver"
        w_hears 127.0.0.1 'when asked first'
        case $w_name in perl) w_x=127.0.0.1 ;; *) w_x=::1 ;; esac          # Net::DNS finds no way to ::1 from here
        w_hears "$w_x" 'from the cache, over IPv6'
        w_proxy "$w_dead 1" "$w_resolver"
        w_hears 127.0.0.1 'with the best upstream dead'
    done <"$T/clients"
}

# w_hears ADDRESS WHAT: the client says the same through the proxy there; those that do not ask over TCP hear as
# many lines or more, for what is cut holds records, other ones each time
w_hears() {
    w_client "$1" >"$T/got"
    case $w_name in
    musl | busybox | drill) [ "$(grep -c . "$T/got")" -ge "$(grep -c . "$T/want")" ] && like '203[.]0[.]113[.]10' "$(cat "$T/got")" && return ;;
    esac
    got_same "$2"
}

# w_client ADDRESS: what this client says with that server, in order of text
w_client() {
    printf 'nameserver %s\n' "$1" >"$T/resolv.conf"
    echo 'hosts: files dns' >"$T/nsswitch.conf"
    # shellcheck disable=SC2016
    ns env T="$T" unshare -m sh -c 'cd "$T" && mount --bind resolv.conf /etc/resolv.conf && mount --bind nsswitch.conf /etc/nsswitch.conf || exit
        command=$1; shift; eval "$command"' sh "$w_command" "$1" </dev/null 2>&1 | sort |
        sed '/^;; *WARNING: truncated/d; /^;; Truncated/d; s/\(127\.[0-9.]*\|\[*::1\]*\)[#:]53/server/g' | grep -v "^Address: $1\$\|^Server:\|^Name: $1$"
}

leg_netcats() {
    proxy front '127.0.0.1@9 1'
    for real_c in nc.openbsd nc.traditional ncat 'busybox nc'; do
        promise "'echo status | $real_c' ends by itself"
        needs "${real_c% nc}" || continue
        # shellcheck disable=SC2086
        like '^dnsproxy .* uptime [0-9]+ queries.* cache entries 0 .* exit 0 $' \
            "$({ echo status | timeout 10 $real_c 127.0.0.1 "$admin"; echo exit $?; } | tr '\n' ' ')"
    done
}
