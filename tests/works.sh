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
cmd_works()
{
    WORKS="$*"
    [ "$WORKS" != common ] || WORKS='nsd unbound bind9 dnsmasq dnsdist glibc musl dig kdig'
    export WORKS
    mkdir -p "$ROOT/resolved"           # systemd-resolved is run out of its package; the legs have no way to fetch it
    (cd "$ROOT/resolved" && { apt-get download systemd-resolved || cp /var/cache/apt/archives/systemd-resolved_*.deb .; } &&
        dpkg -x systemd-resolved_*.deb . && { [ -d lib ] || ln -s usr/lib lib; }) >/dev/null 2>&1
    run_legs works_servers works_clients works_validators
}

w_root=127.7.0.1 w_auth=127.7.0.2 w_resolver=127.7.1.1
W=$T/world
w_zones='signed hashed plain bogus'

# w_zone ORIGIN: the records that are asked for below
w_zone()
{
    cat <<END
\$ORIGIN $1.
\$TTL 3600
@ SOA ns hostmaster 1 3600 600 86400 300
@ NS ns
@ MX 10 mail
@ MX 20 www
ns A $w_auth
mail A 203.0.113.25
www A 203.0.113.10
www AAAA 2001:db8::10
www CAA 0 issue "ca.example"
alias CNAME www
far CNAME alias.hashed.
old DNAME new
deep.new A 203.0.113.11
*.wild A 203.0.113.12
_sip._tcp SRV 1 2 5060 www
naptr NAPTR 100 10 "u" "E2U+sip" "!^.*\$!sip:info@example.org!" .
svc HTTPS 1 . alpn=h2 ipv4hint=203.0.113.10
raw TYPE65280 \\# 16 00010203040506070809fffefdfcfbfa
END
    awk 'BEGIN { for (i = 1; i <= 60; i++) print "many A 198.51.100." i
        x = sprintf("%200s", ""); gsub(/ /, "x", x)
        for (i = 0; i < 22; i++) print "big TXT \"" i x "\""
        for (i = 0; i < 97; i++) print "huge TXT \"" i x "\"" }'
}

# w_sign ORIGIN [OPTION...]: signs $W/ORIGIN.zone in place; its DS goes to $W/ORIGIN.ds
w_sign()
{
    w_o=$1
    shift
    (
        cd "$W" || exit
        w_k=$(ldns-keygen -a ECDSAP256SHA256 -k "${w_o:-.}" 2>/dev/null) || exit
        ldns-signzone -e 20380101000000 -i 20200101000000 "$@" -f out "${w_o:-root}.zone" "$w_k" && mv out "${w_o:-root}.zone"
        cat "$w_k.ds" >"${w_o:-root}.ds"
        sed 's/;.*//; s/[ \t]\([0-9]*[ \t]\)*IN[ \t]/ IN /' "$w_k.key" >"${w_o:-root}.key"
    ) >>"$W/sign.log" 2>&1
}

# w_nsd NAME ADDRESS ZONE...: a nsd with these zones (the root is called root)
w_nsd()
{
    w_n=$1 w_a=$2
    shift 2
    {
        printf '%s\n' server: "  ip-address: $w_a" '  username: ""' "  pidfile: \"$W/$w_n.pid\"" '  database: ""' "  zonesdir: \"$W\"" \
            "  xfrdfile: \"$W/$w_n.xfrd\"" "  xfrdir: \"$W\"" "  zonelistfile: \"$W/$w_n.list\"" '  server-count: 1' '  tcp-count: 500'
        [ "$w_n" != nsd ] || printf '%s\n' "  ip-address: $w_a@853" '  tls-port: 853' "  tls-service-key: \"$W/key.pem\"" \
            "  tls-service-pem: \"$W/cert.pem\""
        printf '%s\n' remote-control: '  control-enable: no'
        for w_z; do printf '%s\n' zone: "  name: \"$([ "$w_z" = root ] && echo . || echo "$w_z")\"" "  zonefile: \"$w_z.zone\""; done
    } >"$W/$w_n.conf"
    w_run "$w_n" nsd -d -c "$W/$w_n.conf"
}

# w_run NAME COMMAND...: starts it in the world, with a directory of its own
w_run()
{
    w_n=$1
    shift
    mkdir -p "$W/$w_n"
    # shellcheck disable=SC2086
    (cd "$W/$w_n" && exec $NS "$@") </dev/null >"$T/$w_n.log" 2>&1 &
    started "$w_n" $!
}

# w_up NAME ADDRESS [KDIG OPTION...]: waits until it answers
w_up()
{
    w_n=$1 w_a=$2
    shift 2
    await 10 w_answers "$w_a" "${1:-+notcp}" || fail "$w_n does not answer: $(tail -n 3 "$T/$w_n.log")"
}
w_answers() { ns kdig "@$1" +retry=0 +timeout=2 "$2" www.signed A 2>/dev/null | grep -q 'status: NOERROR'; }

# w_world: certificates, zones, the two authoritative servers. False when this machine cannot have one; $w_why tells.
w_world()
{
    w_why=''
    for w_c in nsd kdig ldns-signzone ldns-keygen openssl unbound; do have "$w_c" || w_why="$w_why $w_c"; done
    [ -z "$w_why" ] || { w_why="missing:$w_why"; return 1; }
    netns || { w_why='no network namespace can be made here'; return 1; }
    if [ ! -s "$W/root.key" ]; then
        mkdir -p "$W"
        chmod 755 "$W"
        w_certificate
        for w_z in $w_zones; do w_zone "$w_z" >"$W/$w_z.zone"; done
        w_sign signed
        w_sign hashed -n
        w_sign bogus
        sed -i 's/203\.0\.113\.10$/203.0.113.66/' "$W/bogus.zone"
        {
            printf '%s\n' '$ORIGIN .' '$TTL 3600' '@ SOA a.root. hostmaster.root. 1 3600 600 86400 300' '@ NS a.root.' "a.root. A $w_root"
            for w_z in $w_zones; do printf '%s\n' "$w_z. NS ns.$w_z." "ns.$w_z. A $w_auth"; done
            cat "$W/signed.ds" "$W/hashed.ds" "$W/bogus.ds"
        } >"$W/root.zone"
        w_sign ''
        printf '%s\n' '. 3600 NS a.root.' "a.root. 3600 A $w_root" >"$W/hints"
    fi
    w_nsd root "$w_root" root
    # shellcheck disable=SC2086
    w_nsd nsd "$w_auth" $w_zones
    w_up nsd "$w_auth"
}

# w_certificate: a CA and a certificate for dns.test and every address that serves
w_certificate()
{
    (
        cd "$W" || exit
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj '/CN=works CA' -days 3650 \
            -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign'
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out csr.pem -subj '/CN=dns.test'
        printf '%s\n' 'subjectAltName=DNS:dns.test' 'extendedKeyUsage=serverAuth' 'basicConstraints=CA:FALSE' >ext
        openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile ext -out cert.pem
        cat cert.pem key.pem >both.pem
        chmod 644 ./*.pem
    ) >"$W/cert.log" 2>&1
}

# ---- The servers. w_server_NAME ADDRESS starts one there: port 53, and 853 and 443 where it has them.

w_server_nsd() { :; }           # it is the world's own, see w_at

w_server_unbound()
{
    {
        printf '%s\n' server: "interface: $1@53" "interface: $1@853" "interface: $1@443" 'do-daemonize: no' 'username: ""' 'chroot: ""' \
            'pidfile: ""' 'use-syslog: no' 'do-not-query-localhost: no' 'directory: ""' "root-hints: \"$W/hints\"" "trust-anchor-file: \"$W/root.key\"" \
            "tls-service-key: \"$W/key.pem\"" "tls-service-pem: \"$W/cert.pem\"" 'tls-port: 853' 'https-port: 443' 'incoming-num-tcp: 200' \
            'access-control: 127.0.0.0/8 allow' 'ede: yes' 'do-ip6: no' 'num-threads: 1' 'outgoing-tcp-mss: 1220' remote-control: 'control-enable: no'
    } >"$W/unbound.conf"
    w_run unbound unbound -d -c "$W/unbound.conf"
}

w_server_bind9()
{
    mkdir -p "$W/bind9"
    cat >"$W/bind9.conf" <<END
options { directory "$W/bind9"; pid-file none; session-keyfile none; listen-on-v6 { none; }; dnssec-validation yes; recursion yes;
    allow-query { any; }; allow-recursion { any; }; empty-zones-enable no; managed-keys-directory "$W/bind9"; max-udp-size 1232;
    listen-on port 53 { $1; }; listen-on port 853 tls here { $1; }; listen-on port 443 tls here http here { $1; }; };
tls here { key-file "$W/key.pem"; cert-file "$W/cert.pem"; };
http here { endpoints { "/dns-query"; }; };
controls { };
zone "." { type hint; file "$W/hints"; };
trust-anchors { $(w_anchor) };
END
    w_run bind9 named -f -g -4 -c "$W/bind9.conf"
}

# w_anchor: the root's key as named writes it
w_anchor() { awk '{ for (i = 1; i <= NF; i++) if ($i == "DNSKEY") printf ". static-key %s %s %s \"%s\";", $(i + 1), $(i + 2), $(i + 3), $(i + 4) }' "$W/root.key"; }

w_server_knotd()
{
    {
        printf '%s\n' server: "    listen: $1@53" "    rundir: \"$W/knotd\"" database: "    storage: \"$W/knotd\"" 'log:' '  - target: stderr' \
            '    any: info' template: '  - id: default' "    storage: \"$W\"" '    file: "%s.zone"' zone:
        for w_z in $w_zones; do echo "  - domain: $w_z"; done
    } >"$W/knotd.conf"
    w_run knotd knotd -c "$W/knotd.conf"
}

w_server_kresd()
{
    cat >"$W/kresd.conf" <<END
net.listen('$1', 53, { kind = 'dns' })
net.listen('$1', 853, { kind = 'tls' })
net.listen('$1', 443, { kind = 'doh2' })
net.tls('$W/cert.pem', '$W/key.pem')
net.ipv6 = false
modules.load('hints > iterate')
hints.root({ ['a.root.'] = '$w_root' })
trust_anchors.remove('.')
trust_anchors.add('$(tr '\t' ' ' <"$W/root.key" | head -n 1)')
cache.size = 10 * MB
END
    w_run kresd kresd -n -c "$W/kresd.conf" "$W/kresd"
}

w_server_pdns_recursor()
{
    printf 'clearTA()\n%s' "$(awk '{ for (i = 1; i <= NF; i++) if ($i == "DS") print "addTA(\".\", \"" $(i + 1) " " $(i + 2) " " $(i + 3) " " $(i + 4) "\")" }' "$W/root.ds")" >"$W/pdns.lua"
    w_run pdns_recursor pdns_recursor --config-dir="$W/none" --local-address="$1" --local-port=53 --hint-file="$W/hints" --dont-query= \
        --daemon=no --socket-dir="$W/pdns_recursor" --dnssec=process --allow-from=127.0.0.0/8 --disable-syslog=yes --threads=1 \
        --lua-config-file="$W/pdns.lua" --query-local-address=127.0.0.1 --write-pid=no --security-poll-suffix=
}

w_server_dnsdist()
{
    cat >"$W/dnsdist.conf" <<END
setLocal('$1:53')
addTLSLocal('$1:853', '$W/cert.pem', '$W/key.pem', { maxInFlight = 1000 })
addDOHLocal('$1:443', '$W/cert.pem', '$W/key.pem', '/dns-query')
addDOHLocal('$1:8053', nil, nil, '/dns-query', { reusePort = false })
addACL('127.0.0.0/8')
setSecurityPollSuffix('')
newServer({ address = '$w_resolver:53', maxInFlight = 100 })
END
    w_run dnsdist dnsdist -C "$W/dnsdist.conf" --supervised
}

w_server_dnsmasq()
{
    w_run dnsmasq dnsmasq -k -C /dev/null -R -h --pid-file= --user=root --log-facility=- --listen-address="$1" --bind-interfaces -p 53 \
        --server="$w_resolver" --edns-packet-max=1232 --cache-size=500
}

w_server_smartdns()
{
    printf '%s\n' "bind $1:53" "bind-tcp $1:53" "server-tcp $w_resolver" 'speed-check-mode none' 'dualstack-ip-selection no' 'log-level error' \
        "log-file $W/smartdns.out" "cache-file $W/smartdns.cache" 'force-qtype-SOA -' 'server-name smartdns' >"$W/smartdns.conf"
    w_run smartdns smartdns -f -x -c "$W/smartdns.conf" -p -
}

w_server_stubby()
{
    cat >"$W/stubby.yml" <<END
resolution_type: GETDNS_RESOLUTION_STUB
dns_transport_list: [ GETDNS_TRANSPORT_TLS ]
tls_authentication: GETDNS_AUTHENTICATION_REQUIRED
tls_ca_file: "$W/ca.pem"
idle_timeout: 10000
listen_addresses: [ $1 ]
appdata_dir: "$W/stubby"
upstream_recursive_servers:
  - address_data: $w_resolver
    tls_auth_name: "dns.test"
END
    w_run stubby stubby -C "$W/stubby.yml"
}

w_server_haproxy()
{
    cat >"$W/haproxy.conf" <<END
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen dot
    bind $1:853 ssl crt $W/both.pem
    server r $w_resolver:53
END
    w_run haproxy haproxy -db -f "$W/haproxy.conf"
}

w_server_stunnel()
{
    printf '%s\n' foreground=yes pid= debug=4 '[dot]' "accept = $1:853" "connect = $w_resolver:53" "cert = $W/both.pem" >"$W/stunnel.conf"
    w_run stunnel stunnel "$W/stunnel.conf"
}

w_server_nginx()
{
    cat >"$W/nginx.conf" <<END
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; pid $W/nginx.pid; error_log stderr; worker_processes 1; user root;
events { worker_connections 500; }
stream { server { listen $1:853 ssl; ssl_certificate $W/cert.pem; ssl_certificate_key $W/key.pem; proxy_pass $w_resolver:53; } }
http { access_log off; server { listen $1:443 ssl http2; ssl_certificate $W/cert.pem; ssl_certificate_key $W/key.pem;
    location /dns-query { proxy_pass http://$(w_at dnsdist):8053; proxy_http_version 2; proxy_set_header Connection ""; } } }
END
    # dnsdist 2.1 speaks HTTP/2 only there; a nginx that cannot stands before an older one
    ns nginx -t -q -c "$W/nginx.conf" 2>/dev/null || sed -i 's/http_version 2;/http_version 1.1;/' "$W/nginx.conf"
    w_run nginx nginx -p "$W/nginx" -c "$W/nginx.conf"
}

# name, the program, its protocols (those without udp have nothing at port 53), what it must find running
w_servers='
nsd            nsd            udp,tcp,tls
unbound        unbound        udp,tcp,tls,https
bind9          named          udp,tcp,tls,https
knotd          knotd          udp,tcp
kresd          kresd          udp,tcp,tls,https
pdns_recursor  pdns_recursor  udp,tcp
dnsdist        dnsdist        udp,tcp,tls,https
dnsmasq        dnsmasq        udp,tcp
smartdns       smartdns       udp,tcp
stubby         stubby         udp,tcp
haproxy        haproxy        tls
stunnel        stunnel        tls
nginx          nginx          tls,https'

# w_at NAME: its address
w_at()
{
    case $1 in
    nsd) echo "$w_auth" ;;
    *) echo "$w_servers" | awk -v n="$1" '$1 == n { print "127.7.1." NR - 2 }' ;;
    esac
}

# w_says ADDRESS [KDIG OPTION...]: what it says to every question of the world, without TTLs and in order of text
w_says()
{
    w_a=$1
    shift
    # shellcheck disable=SC2086
    ns kdig "@$w_a" "$@" +retry=2 +timeout=9 +nottl +noall +header +question +answer $w_questions 2>&1 |
        awk '/status:/ { s = $0; sub(/.*status: /, "", s); sub(/;.*/, "", s) } /^;;[^ ]/ { q = substr($1, 3) " " $3; print q, s }
            /^[^;]/ { print q, $0 } /^;; (WARNING|ERROR)/ && !/truncated reply/ { print }' | sort
}
w_questions='www.signed A www.signed AAAA www.signed CAA alias.signed A far.signed A x.wild.hashed A deep.old.signed A signed MX _sip._tcp.signed SRV naptr.signed NAPTR
    big.signed TXT svc.signed HTTPS raw.signed TYPE65280 many.signed A huge.signed TXT nothing.signed A www.signed MX www.plain A many.plain A'

# w_line NAME PROTO: the upstream line
w_line()
{
    case $2 in
    udp) echo "$(w_at "$1") 1" ;;
    tcp) echo "$(w_at "$1") 1 tcp" ;;
    *) echo "$(w_at "$1") 1 $2=dns.test" ;;
    esac
}

# w_knows PROTO: can this build have such upstreams?
w_knows() { "$BIN" -t 'listen 127.0.0.1@5300' "192.0.2.1 1 $1=dns.test noverify" >/dev/null 2>&1 || [ "$1" = udp ] || [ "$1" = tcp ]; }

# w_cell NAME PROTO WANT: asked first, from the cache, and beside a better one that is dead
w_cell()
{
    promise "$1 as $2 upstream: 19 kinds of answers, cold, from the cache, and with the best upstream dead"
    w_knows "$2" || { skip "this build has no $2 upstreams"; return; }
    if [ "$2" = tls ] && ! w_tls "$1" -tls1_2 && w_tls "$1" -tls1_3; then skip "not here: this $1 speaks TLS 1.3 only"; return; fi
    if [ "$2" = https ] && grep -q 'http_version 1.1' "$W/$1.conf" && ! w_answers "$(w_at "$1")" +https; then
        skip 'not here: this nginx cannot ask this dnsdist, whose plain DoH is HTTP/2 only'
        return
    fi
    proxy front 'listen 127.0.0.1@53' "ca-file $W/ca.pem" 'cache-negative 30' "$(w_line "$1" "$2")"
    w_same "$3" 'when asked first'
    w_same "$3" 'from the cache'
    [ "$(count hits)" -ge 17 ] || fail "only $(count hits) came from the cache"       # a no without SOA is not kept
    stop front
    proxy front 'listen 127.0.0.1@53' "ca-file $W/ca.pem" 'timeout 4000' 'patience 300' "$w_dead 1" "$(w_line "$1" "$2" | sed 's/ 1/ 2/')"
    w_same "$3" 'with the best upstream dead'
    stop front
}
w_dead=127.7.9.9@9999
w_tls() { ns openssl s_client -connect "$(w_at "$1"):853" "$2" </dev/null >/dev/null 2>&1; }    # NAME VERSION: it shakes hands so

# w_same FILE WHAT: the proxy says what is in the file
w_same()
{
    w_says 127.0.0.1 >"$W/got"
    cmp -s "$1" "$W/got" || fail "$2:" "$(diff "$1" "$W/got" | grep '^[<>]' | cut -c 1-160 | head -n 6)"
}

w_picked() { case " ${WORKS:-$1} " in *" $1 "*) ;; *) return 1 ;; esac; }

leg_works_servers()
{
    if ! w_world; then promise 'real servers as upstreams'; skip "$w_why"; return; fi
    w_server_unbound "$w_resolver"
    w_up unbound "$w_resolver"
    echo "$w_servers" >"$W/servers"
    while read -r w_name w_program w_protos; do
        [ -n "$w_name" ] && w_picked "$w_name" || continue
        if ! have "$w_program"; then
            promise "$w_name as upstream"
            skip "$w_program is missing"
            continue
        fi
        promise "$w_name starts and answers"
        if w_start "$w_name" "$w_protos"; then
            for w_p in $(echo "$w_protos" | tr , ' '); do w_cell "$w_name" "$w_p" "$W/$w_name.says"; done
            judge
        fi
        case $w_name in unbound | nsd | dnsdist) ;; *) kill_pid "$w_name" TERM ;; esac
    done <"$W/servers"
}

# w_start NAME PROTOS: the server runs; $W/NAME.says is what it says when asked directly
w_start()
{
    w_addr=$(w_at "$1")
    [ "$1" != nginx ] || [ -s "$T/dnsdist.pid" ] || { w_server_dnsdist "$(w_at dnsdist)"; w_up dnsdist "$(w_at dnsdist)"; }
    ns ip address add "$w_addr/32" dev lo 2>/dev/null       # named serves only addresses that it finds
    [ "$1" = unbound ] || "w_server_$1" "$w_addr"
    case $2 in udp*) w_how=+tcp ;; *) w_how=+tls ;; esac
    w_up "$1" "$w_addr" "$w_how"
    w_says "$w_addr" "$w_how" >/dev/null            # some say it in other words when it comes from their cache
    w_says "$w_addr" "$w_how" >"$W/$1.says"
    grep -q '^www.signed. A NOERROR' "$W/$1.says" || { fail "asked directly: $(head -n 3 "$W/$1.says")"; return 1; }
}

# ---- The clients. tests/clients/ has those that are programs; each asks for the same names as far as it can.

# name, the program, what it needs built first (- for nothing), and what runs; $1 is the server's address, resolv.conf names it too
w_clients='
glibc    getent    -     for n in $w_names; do getent ahosts $n; done | cut -c 1-22
musl     musl-gcc  musl  for n in $w_names; do ./musl $n; done
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
erlang   escript   -     ERL_INETRC=$W/inetrc escript $C/erlang.escript $w_names'
w_names='www.signed alias.signed far.signed x.wild.hashed many.signed www.plain nothing.signed'
w_words=$(for n in $w_names; do printf '%s A %s AAAA ' "$n" "$n"; done)'-q signed -t MX -q big.signed -t TXT -q svc.signed -t HTTPS -q huge.signed -t TXT'

# w_client COMMAND ADDRESS: runs it with that server, and prints what it says in order of text
w_client()
{
    printf 'nameserver %s\n' "$2" >"$W/resolv.conf"
    # shellcheck disable=SC2016
    ns env W="$W" C="$SRC/tests/clients" w_names="$w_names" w_words="$w_words" unshare -m sh -c '
        mount --bind "$W/resolv.conf" /etc/resolv.conf && mount --bind "$W/nsswitch.conf" /etc/nsswitch.conf && cd "$W" || exit
        command=$1; shift; eval "$command"' sh "$1" "$2" </dev/null 2>&1 | sed '/^;; *WARNING: truncated/d; /^;; Truncated/d; s/127\.[0-9.]*#53/server/' |
        grep -v "^Address: $2\$\|^Server:\|^Name: $2$" | sort
}

# w_build WHAT: makes it in $W
w_build()
{
    case $1 in
    musl) musl-gcc -O -static -o "$W/musl" "$SRC/tests/gai.c" ;;
    go) (cd "$W" && cp "$SRC/tests/clients/go.go" . && GO111MODULE=off GOCACHE="$W/go" GOFLAGS=-p=1 CGO_ENABLED=0 go build -o go-client go.go) ;;
    esac >>"$W/build.log" 2>&1
}

# w_front LINE...: dnsproxy at 127.0.0.1 with a resolver behind it over TLS, and these lines
w_front() { proxy front 'listen 127.0.0.1@53' "ca-file $W/ca.pem" 'cache-negative 30' "$w_resolver 2 tls=dns.test" "$@"; }

leg_works_clients()
{
    if ! w_world; then promise 'real clients'; skip "$w_why"; return; fi
    w_server_unbound "$w_resolver"
    w_up unbound "$w_resolver"
    echo 'hosts: files dns' >"$W/nsswitch.conf"
    printf 'trust-anchors { %s };\n' "$(w_anchor)" >"$W/bind.keys"
    printf '{resolv_conf, "/etc/resolv.conf"}.\n{lookup, [dns]}.\n' >"$W/inetrc"
    echo "$w_clients" >"$W/clients"
    while read -r w_name w_program w_needs w_command; do
        [ -n "$w_name" ] && w_picked "$w_name" || continue
        promise "$w_name hears through dnsproxy what it hears from its upstream: cold, from the cache, and with the best upstream dead"
        if ! have "$w_program"; then skip "$w_program is missing"; continue; fi
        [ "$w_needs" = - ] || w_build "$w_needs" || { fail "it cannot be built: $(tail -n 2 "$W/build.log")"; continue; }
        w_client "$w_command" "$w_resolver" >"$W/want"
        if grep -Eq "^Can't locate|^ModuleNotFound" "$W/want"; then skip "its library is missing: $(grep -E "^Can't|^Module" "$W/want")"; continue; fi
        like '203[.,]0[.,]113[.,]10' "$(cat "$W/want")" 'asked directly'
        w_front
        w_hears 'when asked first'
        w_hears 'from the cache'
        stop front
        w_front "$w_dead 1"
        w_hears 'with the best upstream dead'
        stop front
    done <"$W/clients"
}

# w_hears WHAT: the client says the same through the proxy; those that do not ask over TCP hear as
# many lines or more, for what is cut holds records, other ones each time
w_hears()
{
    w_client "$w_command" 127.0.0.1 >"$W/got"
    case $w_name in
    musl | busybox | drill) [ "$(grep -c . "$W/got")" -ge "$(grep -c . "$W/want")" ] && like '203[.]0[.]113[.]10' "$(cat "$W/got")" && return ;;
    esac
    cmp -s "$W/want" "$W/got" || fail "$1:" "$(diff "$W/want" "$W/got" | grep '^[<>]' | cut -c 1-160 | head -n 6)"
}

# ---- The validators: each forwards to dnsproxy and believes nothing that it has not proved itself.

# w_validator NAME ADDRESS SERVER: starts it there, as a forwarder to SERVER, and waits until it answers
w_validator()
{
    rm -rf "${W:?}/v_$1"                # kresd keeps its cache there
    case $1 in
    unbound)
        printf '%s\n' server: "interface: $2" 'do-daemonize: no' 'username: ""' 'chroot: ""' 'pidfile: ""' 'use-syslog: no' 'do-not-query-localhost: no' \
            'directory: ""' "trust-anchor-file: \"$W/root.key\"" 'module-config: "validator iterator"' 'num-threads: 1' remote-control: \
            'control-enable: no' forward-zone: 'name: "."' "forward-addr: $3" >"$W/v_unbound.conf"
        w_run v_unbound unbound -d -c "$W/v_unbound.conf" ;;
    named)
        mkdir -p "$W/v_named"
        printf '%s\n' "options { directory \"$W/v_named\"; pid-file none; session-keyfile none; listen-on-v6 { none; }; dnssec-validation yes;" \
            "listen-on { $2; }; forwarders { $3; }; forward only; empty-zones-enable no; managed-keys-directory \"$W/v_named\"; };" \
            "trust-anchors { $(w_anchor) }; controls { };" >"$W/v_named.conf"
        w_run v_named named -f -g -4 -c "$W/v_named.conf" ;;
    kresd)
        printf '%s\n' "net.listen('$2', 53, { kind = 'dns' })" 'net.ipv6 = false' "trust_anchors.remove('.')" \
            "trust_anchors.add('$(tr '\t' ' ' <"$W/root.key" | head -n 1)')" 'cache.size = 10 * MB' "policy.add(policy.all(policy.FORWARD('$3')))" \
            >"$W/v_kresd.conf"
        w_run v_kresd kresd -n -c "$W/v_kresd.conf" "$W/v_kresd" ;;
    dnsmasq)
        w_run v_dnsmasq dnsmasq -k -C /dev/null -R -h --pid-file= --user=root --log-facility=- --listen-address="$2" --bind-interfaces -p 53 \
            --server="$3" --dnssec --dnssec-check-unsigned "--trust-anchor=.,$(awk '{ for (i = 1; i <= NF; i++) if ($i == "DS") print $(i + 1) "," $(i + 2) "," $(i + 3) "," $(i + 4) }' "$W/root.ds" | head -n 1)" ;;
    resolved) w_resolved "$2" "$3" ;;
    esac
    await 10 w_answers "$2" +notcp || fail "$1 does not answer: $(tail -n 3 "$T/v_$1.log")"
}

# w_resolved ADDRESS SERVER: systemd-resolved, which wants a network that is up, and a user
w_resolved()
{
    ns ip link add w0 type veth peer name w1 2>/dev/null && ns ip address add 10.99.0.1/24 dev w0
    ns ip link set w0 up
    ns ip link set w1 up
    mkdir -p "$W/resolve/run/systemd/resolve" "$W/resolve/etc" "$W/resolve/anchors"
    chown 65534:65534 "$W/resolve/run/systemd/resolve"
    { cat /etc/passwd; echo 'systemd-resolve:x:65534:65534::/:/bin/false'; } >"$W/resolve/passwd"
    awk '{ for (i = 1; i <= NF; i++) if ($i == "DS") print ". IN DS", $(i + 1), $(i + 2), $(i + 3), $(i + 4) }' "$W/root.ds" >"$W/resolve/anchors/root.positive"
    printf '%s\n' '[Resolve]' "DNS=$2" FallbackDNS= Domains=~. DNSSEC=yes LLMNR=no MulticastDNS=no DNSStubListener=no "DNSStubListenerExtra=$1" Cache=no \
        >"$W/resolve/etc/resolved.conf"
    mkdir -p /etc/dnssec-trust-anchors.d
    # shellcheck disable=SC2016
    w_run v_resolved env R="$W/resolve" D="$ROOT/resolved" unshare -m sh -c 'mount --bind "$R/passwd" /etc/passwd && mount --bind "$R/etc" /etc/systemd &&
        mount --bind "$R/anchors" /etc/dnssec-trust-anchors.d && mount --bind "$R/run" /run && exec "$D/lib/systemd/systemd-resolved"'
}

# w_proves ADDRESS: for each name its RCODE and whether it was proved
w_proves()
{
    for w_q in 'www.signed A' 'www.hashed AAAA' 'x.wild.hashed A' 'deep.old.signed A' 'nothing.signed A' 'www.signed MX' 'signed DNSKEY' 'www.plain A' 'www.bogus A'; do
        # shellcheck disable=SC2086
        ns kdig "@$1" +dnssec +retry=2 +timeout=4 $w_q | awk -v q="$w_q" '/status:/ { sub(/.*status: /, ""); s = $1 } /^;; Flags:/ { a = / ad[ ;]/ ? "proved" : "-" }
            END { print q, s, a }'
    done
}
leg_works_validators()
{
    if ! w_world; then promise 'validators behind dnsproxy'; skip "$w_why"; return; fi
    w_server_unbound "$w_resolver"
    w_up unbound "$w_resolver"
    ns ip address add 127.7.2.1/32 dev lo
    w_run router dnsmasq -k -C /dev/null -R -h --pid-file= --user=root --log-facility=- --listen-address=127.7.1.20 --bind-interfaces -p 53 \
        --local=/lan/ --address=/printer.lan/192.168.1.9
    w_shape 'a router that knows the house only, beside a validating resolver over TLS' '127.7.1.20 1' "$w_resolver 2 tls=dns.test"
    w_shape 'a dead server first, and a spare that does not validate last' "$w_dead 1" "$w_resolver 2 tls=dns.test" "$w_auth 3"
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
w_example()
{
    readme "config $1" | sed "/^#/d; /:/d; /^listen/d; /^allow/d; s/^block .*/block \/dev\/null/; s/tls=[^ ]*/tls=dns.test/
        s/^192.168.1.1 /127.7.1.20 /; s/^198.51.100.1 /$w_auth /; s/^9.9.9.9 /$w_resolver /; s/^192.168.1.3 /$w_resolver /; s/^203.0.113.1 /$w_resolver /
        /^127/!s/^[0-9]*[.][0-9]*[.][0-9]*[.]\([0-9]*\) /127.7.9.\1@9999 /"
}

# w_proof NAME: what it proves with the resolver itself behind it, in $W/NAME.proof
w_proof()
{
    [ ! -s "$W/$1.proof" ] || return 0
    w_validator "$1" 127.7.2.1 "$w_resolver"
    w_proves 127.7.2.1 >"$W/$1.proof"
    kill_pid "v_$1" TERM
    for w_q in 'www.signed A NOERROR; proved' 'nothing.signed A NXDOMAIN; proved' 'www.plain A NOERROR; -' 'www.bogus A SERVFAIL; -'; do
        grep -q "^$w_q" "$W/$1.proof" || fail "without dnsproxy: wanted $w_q, got $(cat "$W/$1.proof")"
    done
}

# w_shape TEXT LINE...: each validator behind a dnsproxy with these upstreams
w_shape()
{
    w_text=$1
    shift
    proxy front 'listen 127.0.0.1@53' "ca-file $W/ca.pem" 'cache-negative 30' 'patience 300' "$@"
    for w_v in unbound named kresd dnsmasq resolved; do
        w_picked "$w_v" || continue
        promise "$w_v proves and refuses through $w_text as it should"
        if [ "$w_v" = resolved ]; then [ -x "$ROOT/resolved/lib/systemd/systemd-resolved" ]; else have "$w_v"; fi || { skip "$w_v is missing"; continue; }
        w_proof "$w_v"
        w_k=$(count queries)
        w_validator "$w_v" 127.7.2.1 127.0.0.1
        same "$(cat "$W/$w_v.proof")" "$(w_proves 127.7.2.1)"
        within $((w_k + 9)) 999999 "$(count queries)" 'queries, for it has asked for all that it says'
        kill_pid "v_$w_v" TERM
    done
    judge
    stop front
}
