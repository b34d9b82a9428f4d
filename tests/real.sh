# shellcheck shell=sh disable=SC2034,SC2154
# real.sh - real servers and real clients.
# Alone: ./test.sh real_upstreams real_clients real_failover netcats tls_real

# real_wait NAME ADDRESS PORT QNAME [KDIG OPTION...]: waits until the server NAME answers there
real_wait() {
    real_n=$1 real_a=$2 real_p=$3 real_q=$4
    shift 4
    await 10 real_answers "$@" || fail "$real_n does not answer: $(tail -n 3 "$T/$real_n.log")"
}
real_answers() { kdig "@$real_a" -p "$real_p" +retry=0 +timeout=1 "$@" "$real_q" A 2>/dev/null | grep -q 'status: NOERROR'; }

# real_unbound NAME PORT LINE...: unbound at 127.0.0.1 with these lines of configuration besides
real_unbound() {
    real_n=$1 real_p=$2
    shift 2
    {
        printf '%s\n' server: "interface: 127.0.0.1@$real_p" 'do-daemonize: no' 'username: ""' 'chroot: ""' 'pidfile: ""' \
            'use-syslog: no' 'num-threads: 1' 'do-not-query-localhost: no' 'module-config: "iterator"' 'directory: ""'
        printf '%s\n' "$@" 'remote-control:' 'control-enable: no'
    } >"$T/$real_n.conf"
    unbound -d -c "$T/$real_n.conf" </dev/null >"$T/$real_n.log" 2>&1 &
    started "$real_n" $!
}

# real_dnsmasq NAME PORT OPTION...
real_dnsmasq() {
    real_n=$1 real_p=$2
    shift 2
    dnsmasq -k -C /dev/null -R -h --pid-file= --user=root --log-facility=- --listen-address=127.0.0.1 --bind-interfaces -p "$real_p" "$@" \
        </dev/null >"$T/$real_n.log" 2>&1 &
    started "$real_n" $!
}

# real_nsd NAME PORT: nsd with the zone test, signed when ldns-signzone is there. Ended with SIGTERM, for it has children.
real_nsd() {
    [ -s "$T/test.zone" ] || real_zone
    cat >"$T/$1.conf" <<END
server:
    ip-address: 127.0.0.1@$2
    username: ""
    pidfile: ""
    database: ""
    zonesdir: "$T"
    xfrdfile: "$T/$1.xfrd"
    xfrdir: "$T"
    zonelistfile: "$T/$1.list"
    server-count: 1
remote-control:
    control-enable: no
zone:
    name: test
    zonefile: test.zone
END
    nsd -d -c "$T/$1.conf" </dev/null >"$T/$1.log" 2>&1 &
    started "$1" $!
    real_wait "$1" 127.0.0.1 "$2" www.test
}

# real_zone: a zone with the types that are asked below
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
    real_a=$1 real_p=$2 real_q=$3 real_t=$4
    shift 4
    kdig "@$real_a" -p "$real_p" +noall +header +answer +nottl +retry=1 +timeout=5 "$@" "$real_q" "$real_t" 2>&1 |
        sed -n 's/.*status: \([A-Z]*\).*/\1/p; /^[^;]/p' | sort
}

# real_compare PORT: what the upstream at PORT says, the proxy says too, when asked first and from the cache
real_compare() {
    for real_x in 'www.test A' 'www.test AAAA' 'test MX' 'www.test TXT' 'www.test TYPE65' 'test DNSKEY' 'www.test TYPE65280' 'alias.test A' 'a.wild.test A'; do
        # shellcheck disable=SC2086
        set -- "$1" $real_x
        case $3 in DNSKEY) real_o=+dnssec ;; *) real_o=+nodnssec ;; esac
        real_w=$(real_reply 127.0.0.1 "$1" "$2" "$3" "$real_o" +tcp)
        like '^NOERROR' "$real_w" "$2 $3 of the upstream"
        same "$real_w" "$(real_reply 127.0.0.1 "$port" "$2" "$3" "$real_o")" "$2 $3 over UDP"
        same "$real_w" "$(real_reply 127.0.0.1 "$port" "$2" "$3" "$real_o" +tcp)" "$2 $3 over TCP"
        same "$real_w" "$(real_reply ::1 "$port" "$2" "$3" "$real_o")" "$2 $3 over IPv6"
    done
    adm clear >/dev/null
    same "$(real_reply 127.0.0.1 "$1" nothing.test A)" "$(real_reply 127.0.0.1 "$port" nothing.test A)" 'a name that does not exist'
}

leg_real_upstreams() {
    if ! have kdig nsd; then
        promise 'real servers as upstreams'
        skip 'nsd or kdig is missing'
        return
    fi
    real_pn=$(freeport)
    promise 'what nsd says is what clients get: A, AAAA, MX, TXT, HTTPS, DNSKEY, TYPE65280 over UDP, TCP and IPv6'
    real_nsd nsd "$real_pn"
    real_pl=$(freeport)
    proxy front "listen 127.0.0.1@$real_pl" "listen ::1@$real_pl" "127.0.0.1@$real_pn 1"
    real_compare "$real_pn"
    stop front
    promise 'the same through unbound'
    if needs unbound; then
        real_pu=$(freeport)
        real_unbound unbound "$real_pu" 'local-zone: test. nodefault' 'domain-insecure: test.' stub-zone: 'name: test.' "stub-addr: 127.0.0.1@$real_pn"
        real_wait unbound 127.0.0.1 "$real_pu" www.test
        proxy front "listen 127.0.0.1@$real_pl" "listen ::1@$real_pl" "127.0.0.1@$real_pu 1 tcp"
        real_compare "$real_pu"
        stop front
    fi
    promise 'the same through dnsmasq'
    if needs dnsmasq; then
        real_pm=$(freeport)
        real_dnsmasq dnsmasq "$real_pm" "--server=/test/127.0.0.1#$real_pn"
        real_wait dnsmasq 127.0.0.1 "$real_pm" www.test
        proxy front "listen 127.0.0.1@$real_pl" "listen ::1@$real_pl" "127.0.0.1@$real_pm 1"
        real_compare "$real_pm"
        stop front
    fi
    judge
    kill_pid nsd TERM
}

# getaddrinfo(3) as programs use it
real_gai() {
    "$1" -O -o "$2" "$SRC/tests/gai.c" 2>>"$T/gai.log"
}

leg_real_clients() {
    promise 'a namespace of its own, with port 53 and resolv.conf'
    needs dnsmasq unshare ip || return
    real_x=$(unshare -mn sh -c 'ip link set lo up && mount -t tmpfs none /mnt' 2>&1) || { skip "not here: $real_x"; return; }
    real_gai "$CC" "$T/gai-libc" || fail "$(tail -n 3 "$T/gai.log")"
    ! have musl-gcc || real_gai musl-gcc "$T/gai-musl" || fail "$(tail -n 3 "$T/gai.log")"
    echo 'nameserver 127.0.0.1' >"$T/resolv.conf"
    cat >"$T/inside.sh" <<'END'
ip link set lo up
mount --bind "$T/resolv.conf" /etc/resolv.conf || exit
dnsmasq -k -C /dev/null -R -h --pid-file= --user=root --log-facility=- --listen-address=127.0.0.1 --bind-interfaces -p 5300 \
    --local=/test/ --host-record=www.test,192.0.2.10,2001:db8::10 --txt-record=www.test,hello >"$T/inside-dnsmasq.log" 2>&1 &
m=$!
"$BIN" 'listen 127.0.0.1' 'listen ::1' 'admin off' '127.0.0.1@5300 1' >"$T/inside.log" 2>&1 &
p=$!
i=0
until kdig @127.0.0.1 +retry=0 +timeout=1 www.test A | grep -q 192.0.2.10 || [ $i -ge 100 ]; do i=$((i + 1)); sleep 0.05; done
for f in 4 6; do
    for c in 'kdig +short' 'dig +short' 'drill -Q'; do
        t=A; [ $f = 4 ] || t=AAAA
        a=127.0.0.1; [ $f = 4 ] || a=::1
        command -v ${c%% *} >/dev/null && echo "${c%% *} $t $($c @$a www.test $t)"
    done
done
command -v busybox >/dev/null && echo "busybox $(busybox nslookup www.test 127.0.0.1 | sed -n 's/^Address[ 0-9:]* \(192[^ ]*\).*/\1/p')"
[ -x "$T/gai-libc" ] && echo "libc $("$T/gai-libc" www.test | sort | tr '\n' ' ')"
[ -x "$T/gai-musl" ] && echo "musl $("$T/gai-musl" www.test | sort | tr '\n' ' ')"
[ -x "$T/gai-libc" ] && echo "nobody $("$T/gai-libc" nobody.test)"
kill $p && wait $p
echo "exit $?"
kill $m
END
    export BIN T
    timeout 60 unshare -mn sh "$T/inside.sh" >"$T/inside.out" 2>&1
    real_x=$(cat "$T/inside.out")
    like '^exit 0$' "$real_x"
    judge
    for real_c in kdig dig drill; do
        promise "$real_c gets A over IPv4 and AAAA over IPv6"
        if have "$real_c"; then
            like "^$real_c A 192\\.0\\.2\\.10$" "$real_x"
            like "^$real_c AAAA 2001:db8::10$" "$real_x"
        else
            skip "$real_c is missing"
        fi
    done
    promise 'nslookup of busybox finds the address'
    if needs busybox; then like '^busybox 192\.0\.2\.10' "$real_x"; fi
    promise 'getaddrinfo of the C library gets both addresses, and an error for a name that does not exist'
    like '^libc 192\.0\.2\.10 2001:db8::10 $' "$real_x"
    like '^nobody .*[Nn]ot known' "$real_x"
    promise 'getaddrinfo of musl gets both addresses'
    if needs musl-gcc; then like '^musl 192\.0\.2\.10 2001:db8::10 $' "$real_x"; fi
}

# real_short NAME [KDIG OPTION...]: the address that the proxy gives
real_short() {
    real_q=$1
    shift
    kdig @127.0.0.1 -p "$port" +short +retry=0 +timeout=5 "$@" "$real_q" A 2>/dev/null
}

# real_ms: milliseconds of the wall clock
real_ms() { date +%s%3N; }

real_best_wins() {
    real_i=$((${real_i:-0} + 1))
    [ "$(real_short "w$real_i.test")" = 192.0.2.1 ]
}

leg_real_failover() {
    if ! have kdig unbound dnsmasq; then
        promise 'one of two real upstreams fails'
        skip 'kdig, unbound or dnsmasq is missing'
        return
    fi
    real_p1=$(freeport) real_p2=$(freeport) real_i=0
    real_first() { real_unbound first "$real_p1" 'local-zone: test. redirect' 'local-data: "test. A 192.0.2.1"'; }
    real_first
    real_wait first 127.0.0.1 "$real_p1" www.test
    real_dnsmasq second "$real_p2" --address=/test/192.0.2.2 --local-ttl=60
    real_wait second 127.0.0.1 "$real_p2" www.test
    proxy front "127.0.0.1@$real_p1 1" "127.0.0.1@$real_p2 2" 'patience 1000'
    promise 'with both well, priority 1 wins'
    for real_x in 1 2 3 4 5; do same 192.0.2.1 "$(real_short "a$real_x.test")"; done
    promise 'priority 1 silent (SIGSTOP): every query is answered'
    kill -STOP "$(pid first)"
    for real_x in 1 2 3; do same 192.0.2.2 "$(real_short "b$real_x.test")"; done
    promise 'after three slow answers they are immediate'
    real_t=$(real_ms)
    for real_x in 1 2 3 4 5; do same 192.0.2.2 "$(real_short "c$real_x.test")"; done
    real_t=$(($(real_ms) - real_t))
    [ "$real_t" -lt $((2500 * SLOW)) ] || fail "five answers took $real_t ms"
    like 'upstream 127.0.0.1@'"$real_p1"' udp priority 1 state down' "$(adm status)"
    promise 'it comes back by itself (SIGCONT)'
    kill -CONT "$(pid first)"
    await 10 real_best_wins || fail 'priority 1 does not win again'
    promise 'priority 1 killed (SIGKILL): every query is answered, at once'
    kill_pid first KILL
    real_t=$(real_ms)
    for real_x in 1 2 3 4 5; do same 192.0.2.2 "$(real_short "d$real_x.test")"; done
    real_t=$(($(real_ms) - real_t))
    [ "$real_t" -lt $((2500 * SLOW)) ] || fail "five answers took $real_t ms"
    promise 'it comes back by itself (started again)'
    real_first
    await 15 real_best_wins || fail 'priority 1 does not win again'
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

# compare NAME CERT-NAME: every question gets the same answer from the real server at $real directly and through the proxy
compare() {
    proxy "px_$1" "$ca" "$real 1 tls=$2"
    for q in 'www.real.test A' 'www.real.test AAAA' 'real.test MX' 'txt.real.test TXT' 'real.test SOA' 'real.test NS' 'srv.real.test SRV' \
        'alias.real.test A' 'unk.real.test TYPE65400' 'nothing.real.test A' 'www.real.test MX' 'WwW.rEaL.test A'; do
        # shellcheck disable=SC2086
        direct=$(kdig "@${real%@*}" -p "${real#*@}" +tls-ca="$T/pki/ca.pem" +tls-hostname="$2" +retry=0 +noall +header +answer $q 2>&1 | real_plain)
        # shellcheck disable=SC2086
        through=$(kdig @127.0.0.1 -p "$port" +retry=0 +noall +header +answer $q 2>&1 | real_plain)
        like 'status:' "$direct" "$1 directly, $q"
        same "$direct" "$through" "$q"
    done
    answered_r=$(load 50 name=n%x.wild.real.test window=10)
    like 'wrong 50 .* failed 0 lost 0' "$answered_r" "50 at once (the addresses are not ours)"
    case $1 in
    nsd | dnsdist)  # nsd answers one query of a record, until more comes: a pause of a second, then they go one a record.
                    # dnsdist loses one now and then on a busy machine.
        within 1 2 "$(upstream "$real" connects)" "connections"
        within 0 $((2000 * SLOW)) "$(val slowest_ms "$answered_r")" "slowest, ms"
        ;;
    *) same 1 "$(upstream "$real" connects)" "connections" ;;
    esac
    stop "px_$1"
}
# what must be the same: status and records, without TTLs and in one order
real_plain() { sed -n 's/.*\(status: [A-Z]*\).*/\1/p; /^;/d; s/^\([^[:space:]]*\)[[:space:]]*[0-9]*[[:space:]]*IN/\1 IN/p' | tr 'A-Z' 'a-z' | sort; }

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
    crt realec by=int cn=dns.test san=dns:dns.test eku=server
    crt realrsa by=intrsa key=rsa cn=dns.test san=dns:dns.test eku=server
    chmod 644 "$T"/pki/*.key
    cat >"$T/real.zone" <<'END'
$ORIGIN real.test.
$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
@ MX 10 www
ns A 192.0.2.53
www A 192.0.2.80
www AAAA 2001:db8::80
alias CNAME www
txt TXT "one" "two words"
srv SRV 1 2 853 www
unk TYPE65400 \# 4 deadbeef
*.wild A 192.0.2.99
END
    for kind in realec realrsa; do
        promise "kdig gets from nsd through the program what it gets from it directly ($kind)"
        if needs kdig nsd; then
            p=$(freeport)
            cat >"$T/nsd.conf" <<END
server:
  ip-address: 127.0.0.1@$p
  port: $p
  tls-port: $p
  tls-service-key: "$T/pki/$kind.key"
  tls-service-pem: "$T/pki/$kind.pem"
  username: ""
  chroot: ""
  pidfile: "$T/nsd.pidfile"
  database: ""
  zonesdir: "$T"
  xfrdfile: "$T/nsd.xfrd"
  zonelistfile: "$T/nsd.list"
  xfrdir: "$T"
  cookie-secret-file: ""
  verbosity: 1
remote-control:
  control-enable: no
zone:
  name: real.test
  zonefile: real.zone
END
            nsd -d -c "$T/nsd.conf" </dev/null >"$T/nsd.log" 2>&1 &
            started nsd $!
            real=127.0.0.1@$p
            await 5 real_up || fail "nsd does not start"
            if echo | openssl s_client -connect "127.0.0.1:$p" -tls1_2 >"$T/tls12.log" 2>&1; then compare nsd dns.test
            else promise_text="nsd with TLS 1.3 only is a clean failure, named once ($kind)"; only_13 "$real"; fi
            kill_pid nsd TERM
        fi
    done
    promise "kdig gets from unbound through the program what it gets from it directly"
    if needs kdig unbound; then
        p=$(freeport)
        cat >"$T/unbound.conf" <<END
server:
  interface: 127.0.0.1@$p
  tls-port: $p
  tls-service-key: "$T/pki/realec.key"
  tls-service-pem: "$T/pki/realec.pem"
  chroot: ""
  username: ""
  directory: "$T"
  pidfile: ""
  use-syslog: no
  module-config: "iterator"
  local-zone: "test." nodefault
auth-zone:
  name: real.test
  zonefile: "$T/real.zone"
  for-downstream: yes
  for-upstream: no
remote-control:
  control-enable: no
END
        unbound -d -c "$T/unbound.conf" </dev/null >"$T/unbound.log" 2>&1 &
        started unbound $!
        real=127.0.0.1@$p
        await 5 real_up || fail "unbound does not start"
        compare unbound dns.test
        kill_pid unbound TERM
    fi
    promise "kdig gets from dnsdist through the program what it gets from it directly"
    if needs kdig nsd dnsdist; then
        p=$(freeport) b=$(freeport)
        sed "s/$(sed -n 's/^  port: //p' "$T/nsd.conf")/$b/; /tls-/d" "$T/nsd.conf" | sed "s/ip-address:.*/ip-address: 127.0.0.1@$b/; s/^  port:.*/  port: $b/" >"$T/nsd2.conf"
        nsd -d -c "$T/nsd2.conf" </dev/null >"$T/nsd.log" 2>&1 &
        started nsd $!
        cat >"$T/dnsdist.conf" <<END
setLocal("127.0.0.1:$(freeport)")
addTLSLocal("127.0.0.1:$p", "$T/pki/realrsa.pem", "$T/pki/realrsa.key", { minTLSVersion = "tls1.2" })
newServer({ address = "127.0.0.1:$b", healthCheckMode = "up" })
setSecurityPollSuffix("")
END
        dnsdist --supervised --disable-syslog -C "$T/dnsdist.conf" </dev/null >"$T/dnsdist.log" 2>&1 &
        started dnsdist $!
        real=127.0.0.1@$p
        await 5 real_up || fail "dnsdist does not start"
        compare dnsdist dns.test
        kill_pid dnsdist TERM
        kill_pid nsd TERM
    fi
    promise "a server with TLS 1.3 only is a clean failure, named once"
    if needs openssl; then
        p=$(freeport)
        openssl s_server -accept "127.0.0.1:$p" -tls1_3 -quiet -cert "$T/pki/realec.crt" -key "$T/pki/realec.key" </dev/zero >"$T/s_server.log" 2>&1 &
        started s_server $!
        only_13 "127.0.0.1@$p"
    fi
}
real_up() { kdig "@${real%@*}" -p "${real#*@}" +tls-ca="$T/pki/ca.pem" +tls-hostname=dns.test +retry=0 +time=1 www.real.test A 2>/dev/null | grep -q 192.0.2.80; }
