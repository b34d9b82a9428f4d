# shellcheck shell=sh disable=SC2034,SC2154
# tls.sh - DNS over TLS: who is trusted, and that nothing leaks to anybody else.
# Alone: ./test.sh tls_transport tls_refused tls_pins tls_accepted tls_start tls_plaintext tls_clock

LEGS="$LEGS tls_transport tls_refused tls_pins tls_accepted tls_start tls_plaintext tls_clock"

leg_tls_transport() {
    single 'patience 500'
    promise "a TLS connection is opened at the start, before any query"
    await 3 sees one '^up' || fail "no connection"
    saw 0 '^query' one
    promise "queries over TLS are answered"
    answered 10 20
    promise "the ClientHello names the server and offers no ALPN"
    like '^hello 1 .* sni dns\.test alpn - ' "$(cat "$T/one.q")"
    promise "TLS 1.2 with forward-secret AEAD suites only is offered"
    like ' version 0303 suites ((cca8|cca9|c02b|c02c|c02f|c030|00ff),?)+ ' "$(grep '^hello 1 ' "$T/one.q")"
    promise "queries over TLS are padded to multiples of 128 bytes, with one padding option"
    forget one
    for len in 1 20 50 63; do
        answered 10 2 name="$(printf "%.${len}s" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa).%x.pad.test"
        answered 10 2 name="%x.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.$(printf "%.${len}s" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa).pad.test"
    done
    saw 16 '^query' one
    same 0 "$(sed -n 's/^query .* size=\([0-9]*\) .*/\1/p' "$T/one.q" | awk '$1 % 128' | wc -l)" "queries of another length"
    same 0 "$(grep '^query' "$T/one.q" | grep -Evc ' opts=(11:,)?12:[0-9a-f+]*(,11:)?$')" "queries with other options than padding and keepalive"
    promise "edns-tcp-keepalive is sent on each connection, without a timeout"
    turn one kick=1
    answered 10 1
    like '^query .* opts=([0-9a-f:+]+,)*11:(,|$)' "$(tail -n 1 "$T/one.q")"
    promise "500 queries one after another use one connection"
    answered 10 1
    forget one
    answered 10 500
    saw 0 '^open' one
    saw 500 '^query' one
    promise "100 queries at once use one connection, a record each; answers may come in reverse order, many a record"
    turn one batch=100 order=lifo
    forget one
    kill -STOP "$(pid px)"
    loading 100 window=100
    sleep 0.2                   # the burst is 100 sends; nothing tells when the last is in
    kill -CONT "$(pid px)"
    loaded 5
    like 'wrong 0 dup 0 bad 0 right 100 failed 0 lost 0' "$got"
    saw 0 '^open' one
    first=$(sed -n 's/^query .* record=\([0-9]*\) .*/\1/p' "$T/one.q" | head -n 1)
    same 99 $(($(sed -n 's/^query .* record=\([0-9]*\) .*/\1/p' "$T/one.q" | tail -n 1) - first)) "records behind the first"
    turn one
    promise "a slow answer does not hold up the others on the connection"
    loading 1 name=delay=900.n%x.slow.test
    await 2 sees one 'delay=900'
    answered 10 30 in:700
    loaded 3
    like 'right 1 ' "$got"
    promise "padding, keepalive and other options of the upstream do not reach a client, those of a client not the upstream"
    turn one keepalive=300 pad=300
    forget one
    got=$(ask options.test A +edns=1232 +opt=12:00000000 +opt=8:00011800c00002 +opt=10:0011223344556677 +opt=11:)
    like "NOERROR .* edns=[0-9]+ .*$(peer addr 10 options.test)" "$got"
    unlike 'opts=' "$got"
    like '^query .* opts=(11:,)?12:[0-9a-f+]*(,11:)?$' "$(grep '^query' "$T/one.q")"
    unlike 'edns' "$(ask plain.options.test A)"
    unlike 'opts=' "$(ask options.test A +edns=1232)" "from the cache"
    turn one
    promise "an answer of 60,000 bytes reaches a TCP client whole and a UDP client as TC"
    says 'NOERROR qr .* size=(59|60)[0-9]{3} ' big=60000.1.test TYPE65400 +tcp
    says 'NOERROR qr tc .* an=0 ' big=60000.2.test TYPE65400
    promise "DO and CD reach the upstream"
    ask docd.test A +do +cd >/dev/null
    like '^query .* docd\.test\. A rd cd .* do( |$)' "$(cat "$T/one.q")"
    promise "SIGTERM ends TLS connections with close_notify"
    stop px
    await 2 sees one '^end .*by client'
    like '^end .*by client why notify' "$(tail -n 1 "$T/one.q")"
    reap
    promise "a server with ChaCha20 only, or with AES-256 only, is spoken to; if that took a second try, it came at once, and once"
    for suites in cca8,cca9 c02c,c030; do
        dot one good suites=$suites
        proxy px "$ca" "$one 1 tls=dns.test" 'log debug'
        answered 10 1 in:1000
        k=$(asked one '^open')
        within 1 2 "$k" "$suites, connections"
        turn one kick=1
        answered 10 1
        same $((k + 1)) "$(asked one '^open')" "$suites, connections after another"
    done
    promise "bare tls sends no SNI"
    crt ip by=int san=ip:127.0.0.1
    dot one ip
    proxy px "$ca" "$one 1 tls"
    answered 10 1
    like '^hello 1 .* sni - ' "$(cat "$T/one.q")"
}

# strangers FILE: each line NAME;CERT;SERVER WORDS : RULES;UPSTREAM WORDS;ERE;WHAT of FILE is a server, all of them of better
# priority than the good one; 25 queries over 2.5 s are answered by that one, and of each stranger the promises are judged.
# The rules are those of tests/peer_server.h: a new fault or alert (at=hello:alert40) is a new line below.
strangers() {
    strangers_f=$1
    dot last good : net=11
    set -- "$ca" "$last 99 tls=dns.test" 'patience 3000'
    strangers_i=0
    while IFS=';' read -r name cert words upstream ere what; do
        strangers_i=$((strangers_i + 1))
        # shellcheck disable=SC2086
        dot "$name" "$cert" $words
        set -- "$@" "$(at "$name") $strangers_i $upstream"
    done <"$strangers_f"
    promise "with $strangers_i servers before it that fail, the next priority answers without waiting for patience"
    proxy px "$@"
    kill -0 "$(pid px)" || { fail "$(cat "$T/px.log")"; return; }
    answered 11 25 in:1500 rate=10
    while IFS=';' read -r name cert words upstream ere what; do
        promise "a server $what is refused: it gets no byte of a query, and one line says why"
        strangers_a=$(at "$name")
        await 3 sees "$name" '^open' 2 || fail "it was tried $(asked "$name" '^open') times, wanted 2 or more"
        same 0 "$(asked "$name" '^data|^query')" "queries inside TLS"
        same 0 "$(asked "$name" '^plain')" "plaintext"
        same 1 "$(said px "$strangers_a" "tls: .*($ere)")" "lines in the log like /$ere/, of [$(grep -F "$strangers_a" "$T/px.log" | head -n 4)]"
    done <"$strangers_f"
    promise "after failed handshakes the program serves as before"
    answered 11 20
}

leg_tls_refused() {
    crt expired by=root cn=dns.test san=dns:dns.test from=-1728000 to=-259200
    crt future by=root cn=dns.test san=dns:dns.test from=432000
    crt strange by=stranger cn=dns.test san=dns:dns.test withroot
    crt noint by=int cn=dns.test san=dns:dns.test noint
    crt client by=root cn=dns.test san=dns:dns.test eku=client
    crt noca by=root cn='No authority' san=dns:mallory.test
    crt vialeaf by=noca cn=dns.test san=dns:dns.test
    crt badsig by=root cn=dns.test san=dns:dns.test badsig
    crt cnonly by=root cn=dns.test
    crt nul by=root cn=dns.test san=nul:dns.test
    crt wildtld by=root cn=dns.test san='dns:*.test'
    crt wild by=root cn=dns.test san='dns:*.dns.test'
    crt otherip by=root cn=dns.test san=ip:127.0.0.99
    crt ipasdns by=root cn=127.0.0.1 san=dns:127.0.0.1
    crt oldint by=root cn='Old intermediate' ca from=-1728000 to=-259200
    crt viaold by=oldint cn=dns.test san=dns:dns.test
    crt deepint by=int cn='Too deep' ca
    crt deep by=deepint cn=dns.test san=dns:dns.test
    crt critical by=root cn=dns.test san=dns:dns.test critical
    cp "$T/pki/good.pem" "$T/pki/stolen.pem"
    cp "$T/pki/other.key" "$T/pki/stolen.key"
    cat >"$T/strangers" <<END
s_expired;expired;;tls=dns.test;expired;whose certificate has expired
s_future;future;;tls=dns.test;not yet valid.*$(date -u +%Y);whose certificate is not yet valid (the line tells the clock's time)
s_other;other;;tls=dns.test;dns\.test.*other\.test|other\.test.*dns\.test;with a certificate for another name (the line tells both)
s_alone;alone;;tls=dns.test;unknown CA|self-signed;with a self-signed certificate
s_strange;strange;;tls=dns.test;unknown CA;whose chain ends at an unknown CA, though it sends the root
s_noint;noint;;tls=dns.test;unknown CA|intermediate;that does not send its intermediate certificate
s_client;client;;tls=dns.test;extended key usage|serverAuth|server;whose certificate is for TLS clients only
s_vialeaf;vialeaf;;tls=dns.test;CA;whose issuer is no CA
s_badsig;badsig;;tls=dns.test;signature|unknown CA;whose certificate has a wrong signature
s_stolen;stolen;;tls=dns.test;key|signature;that does not own the certificate's key
s_cnonly;cnonly;;tls=dns.test;name;with a name in the CN alone
s_nul;nul;;tls=dns.test;name;with the right name before a NUL byte
s_wildtld;wildtld;;tls=dns.test;name;with a wildcard for a top-level domain
s_wild;wild;;tls=dns.test;name;with a wildcard for names below the wanted one
s_deepwild;wild;;tls=a.b.dns.test;name;with a wildcard for a name two labels below it
s_otherip;otherip;;tls;wanted 127\.0\.0\.1,.*127\.0\.0\.99;with a certificate for another address
s_noip;good;;tls;address|name;with a certificate without addresses, asked by address
s_ipasdns;ipasdns;;tls;address|name;with the address as a dNSName and a CN
s_viaold;viaold;;tls=dns.test;expired;whose intermediate certificate has expired
s_deep;deep;;tls=dns.test;path|CA|chain;whose chain is longer than a CA allows
s_critical;critical;;tls=dns.test;critical;with a critical extension that is unknown
END
    strangers "$T/strangers"
}

leg_tls_pins() {
    good=$(cat "$T/pki/good.pin") alone=$(cat "$T/pki/alone.pin") other=$(cat "$T/pki/other.pin")
    crt swollen by=root cn=dns.test san=dns:dns.test
    for i in 1 2 3 4 5 6 7; do cat "$T/pki/swollen.crt" "$T/pki/swollen.crt" "$T/pki/swollen.crt" "$T/pki/swollen.crt" "$T/pki/swollen.crt"; done >>"$T/pki/swollen.pem"
    i=1 many=''
    while [ $i -le 2000 ]; do many="${many}dns:name$i.filler.test," i=$((i + 1)); done
    crt fat by=root cn=dns.test san="${many}dns:dns.test"
    cat >"$T/strangers" <<END
p_wrong;alone;;tls pin=$good;pin.*$(ere "$alone");with another key than the pinned (the line tells its pin)
p_both;good;;tls=dns.test pin=$other;pin.*$(ere "$good");with the right name and another key than the pinned
p_name;other;;tls=dns.test pin=$other;dns\.test.*other\.test|other\.test.*dns\.test;with the pinned key and another name
p_chain;alone;;tls=dns.test pin=$alone;unknown CA|self-signed;with the pinned key and the name, but of an unknown CA
p_root;good;;tls pin=$(cat "$T/pki/root.pin");pin.*$(ere "$good");below a CA whose key is pinned (a pin is of the server's own key)
p_plain;good;: at=accept:plain;tls=dns.test;not TLS|speak TLS( at all)?$;that speaks another protocol
p_zeros;good;: at=hello:zeros;tls=dns.test;not TLS|speak TLS( at all)?$;that sends zeros
p_garbage;good;: at=hello:garbage;tls=dns.test;not TLS|speak TLS( at all)?$;that sends garbage
p_tls11;good;tls=11;tls=dns.test;TLS 1\.2|version|cipher;with TLS 1.1 only
p_tls13;good;: at=hello:alert70;tls=dns.test;TLS 1\.2|version;with TLS 1.3 only
p_alert40;good;: at=hello:alert40;tls=dns.test;handshake_failure|alert 40|cipher;that sends the alert 40
p_suite;good;suites=c009,c00a,c023;tls=dns.test;cipher;with old cipher suites only
p_closes;good;: at=hello:fin;tls=dns.test;closed;that closes in the handshake
p_resets;good;: at=mid:rst upto=200;tls=dns.test;reset;that resets in the handshake
p_swollen;swollen;;tls=other.test;name|chain|certificate;with a chain of 36 certificates
p_fat;fat;;tls=dns.test;certificate|chain|long|large;with a certificate of 50 KB
END
    strangers "$T/strangers"
}

leg_tls_accepted() {
    crt upper by=root cn=dns.test san=dns:DNS.Test
    crt wild by=root cn=dns.test san='dns:*.dns.test'
    crt withroot by=int cn=dns.test san=dns:dns.test
    cat "$T/pki/root.crt" >>"$T/pki/withroot.pem"
    crt crossed by=stranger keyof=root cn='Test root' ca from=-1728000 to=-259200
    for name in twice between crossed_end; do cp "$T/pki/withroot.key" "$T/pki/$name.key"; done
    cat "$T/pki/withroot.crt" "$T/pki/withroot.crt" "$T/pki/int.crt" >"$T/pki/twice.pem"
    cat "$T/pki/withroot.crt" "$T/pki/root.crt" "$T/pki/stranger.crt" "$T/pki/int.crt" >"$T/pki/between.pem"
    cat "$T/pki/withroot.crt" "$T/pki/int.crt" "$T/pki/crossed.crt" >"$T/pki/crossed_end.pem"
    crt int384 by=root384 key=p384 cn='Test intermediate P-384' ca
    crt p384 by=int384 key=p384 cn=dns.test san=dns:dns.test
    crt ec384 by=int384 cn=dns.test san=dns:dns.test
    crt rsa by=intrsa key=rsa cn=dns.test san=dns:dns.test eku=server
    crt mixed by=intrsa cn=dns.test san=dns:dns.test
    crt rsaec by=int keyof=rsa cn=dns.test san=dns:dns.test
    crt root4096 key=rsa4096 cn='Test root RSA 4096' ca
    crt long1 by=root4096 keyof=root4096 cn='Long 1' ca
    crt long2 by=long1 key=p384 cn='Long 2' ca=1
    crt long3 by=long2 cn='Long 3' ca=0
    crt long by=long3 keyof=rsa cn=dns.test san=dns:dns.test
    crt both by=root cn=dns.test san=dns:dns.test eku=both
    crt far by=root cn=dns.test san=dns:dns.test from=-1000000000 to=2000000000
    crt names by=root cn=dns.test san="$(i=0; while [ $i -lt 60 ]; do printf 'dns:n%d.test,' $i; i=$((i + 1)); done)dns:dns.test"
    crt large by=root cn=dns.test san="$(i=0; while [ $i -lt 330 ]; do printf 'dns:name%d.of.dns.test,' $i; i=$((i + 1)); done)dns:dns.test"
    crt ip by=int san=ip:192.0.2.1,ip:127.0.0.1
    crt ip6 by=int san=ip:::1
    crt oldalone cn=whatever from=-1728000 to=-259200
    cat "$T/pki/ca.pem" "$T/pki/root4096.crt" >"$T/pki/more.pem"
    cat >"$T/rows" <<END
a_good;good;;tls=dns.test;a P-256 chain with an intermediate
a_rsa;rsa;;tls=dns.test;an RSA chain with an intermediate
a_mixed;mixed;;tls=dns.test;a P-256 certificate below RSA
a_rsaec;rsaec;;tls=dns.test;an RSA certificate below P-256
a_p384;p384;;tls=dns.test;a P-384 chain
a_ec384;ec384;;tls=dns.test;a P-256 certificate below P-384
a_long;long;;tls=dns.test;a chain of four with RSA 4096, P-384, P-256 and RSA 2048
a_root;withroot;;tls=dns.test;a chain that ends with the root
a_twice;twice;;tls=dns.test;a chain that begins with the certificate twice
a_between;between;;tls=dns.test;a chain with the root and a stranger in the middle
a_crossed;crossed_end;;tls=dns.test;a chain behind which an expired cross-signed root follows
a_large;large;;tls=dns.test;a certificate of 8 kB
a_upper;upper;;tls=dns.test;a name in other letter case
a_asked;good;;tls=DNS.test;a wanted name in other letter case
a_wild;wild;;tls=a.dns.test;a wildcard for one label
a_both;both;;tls=dns.test;an extended key usage for servers and clients
a_far;far;;tls=dns.test;dates before and after the range of UTCTime
a_names;names;;tls=dns.test;61 names
a_ip;ip;;tls;an IPv4 address, asked by address
a_pin;alone;;tls pin=$(cat "$T/pki/alone.pin");the pinned key, self-signed
a_oldpin;oldalone;;tls pin=$(cat "$T/pki/oldalone.pin");the pinned key, expired and for another name
a_pins;alone;;tls pin=$(cat "$T/pki/good.pin") pin=$(cat "$T/pki/alone.pin");the second of two pinned keys
a_namepin;good;;tls=dns.test pin=$(cat "$T/pki/good.pin");the pinned key and the name
a_noverify;alone;;tls=dns.test noverify;anything, with noverify
a_oldnoverify;oldalone;;tls noverify;an expired certificate, with noverify
END
    if [ -e /proc/net/if_inet6 ] && grep -q '^0*1 ' /proc/net/if_inet6; then
        echo 'a_ip6;ip6;addr=::1;tls;an IPv6 address, asked by address' >>"$T/rows"
    fi
    set -- "ca-file $T/pki/more.pem" 'patience 3000'
    prio=0
    while IFS=';' read -r name cert words upstream what; do
        prio=$((prio + 1))
        # shellcheck disable=SC2086
        dot "$name" "$cert" $words
        set -- "$@" "$(at "$name") $prio $upstream"
    done <"$T/rows"
    promise "a program with $prio TLS upstreams starts"
    proxy px "$@"
    kill -0 "$(pid px)" || { fail "$(cat "$T/px.log")"; return; }
    while IFS=';' read -r name cert words upstream what; do
        promise "a server with $what is accepted"
        await 4 sees "$name" '^up' || fail "no connection: $(grep -F "$(at "$name")" "$T/px.log")"
    done <"$T/rows"
    promise "$prio servers with good certificates all answer"
    answered 10 5
    for name in $(cut -d ';' -f 1 "$T/rows"); do
        sees "$name" '^query' 5 || fail "$name saw $(asked "$name" '^query') of 5 queries"
        same 1 "$(asked "$name" '^open')" "connections of $name"
    done
}

# refuses ERE LINE...: the program does not start with these lines, exits with 1 and says so
refuses() {
    refuses_e=$1
    shift
    # shellcheck disable=SC2086
    timeout $((5 * SLOW)) $WRAP "$BIN" "$@" 'listen 127.0.0.1@'"$(freeport)" 'admin off' </dev/null >"$T/refused.log" 2>&1
    same 78 $? "exit status"
    like "$refuses_e" "$(cat "$T/refused.log")"
}

leg_tls_start() {
    pin=$(cat "$T/pki/alone.pin")
    dot one good
    promise "a ca-file that is not there is an error at the start when tls=NAME or bare tls needs it"
    refuses "$T/none\\.pem" "ca-file $T/none.pem" "$one 1 tls=dns.test"
    refuses "$T/none\\.pem" "ca-file $T/none.pem" "$one 1 tls"
    refuses "$T/none\\.pem" "ca-file $T/none.pem" "$one 1 tls=dns.test pin=$pin"
    promise "a ca-file without a certificate is an error at the start"
    : >"$T/empty.pem"
    refuses "$T/empty\\.pem" "ca-file $T/empty.pem" "$one 1 tls=dns.test"
    refuses "$T" "ca-file $T" "$one 1 tls=dns.test"
    promise "a pin that is not 32 bytes of base64 is an error"
    refuses 'pin' "$one 1 tls pin=$(printf %s "$pin" | cut -c 1-40)"
    refuses 'pin' "$one 1 tls pin=AAAA"
    refuses 'pin' "$one 1 tls pin=!$(printf %s "$pin" | cut -c 2-)"
    refuses 'pin' "$one 1 tls pin="
    promise "pins, noverify and tls= on an upstream without tls are errors"
    refuses . "$one 1 pin=$pin"
    refuses . "$one 1 tcp noverify"
    refuses . "$one 1 tls="
    promise "an address behind tls= is an error: bare tls is for those"
    refuses '127\.0\.0\.1' "$one 1 tls=127.0.0.1"
    promise "with a pin alone no ca-file is needed"
    dot two alone
    proxy px "ca-file $T/none.pem" "$two 1 tls pin=$pin"
    answered 10 3
    stop px
    promise "a ca-file with comments, junk between and no newline at its end is read whole"
    { echo '# a comment'; cat "$T/pki/stranger.crt"; echo junk; printf %s "$(cat "$T/pki/root.crt")"; } >"$T/pki/odd.pem"
    proxy px "ca-file $T/pki/odd.pem" "$one 1 tls=dns.test"
    answered 10 3
    stop px
    promise "noverify warns at each start"
    for i in 1 2; do
        proxy px "$two 1 tls noverify"
        answered 10 1
        within 1 9 "$(said px "$two" 'noverify|not authenticated|unauthenticated|without authentic')" "warnings"
    done
    promise "of a large ca-file only an index stays in memory, and its last authority is found"
    if [ -s /etc/ssl/certs/ca-certificates.crt ] && [ -r /proc/self/status ]; then
        for i in 1 2 3 4; do cat /etc/ssl/certs/ca-certificates.crt; done >"$T/pki/large.pem"
        cat "$T/pki/ca.pem" >>"$T/pki/large.pem"
        proxy px "$ca" "$one 1 tls=dns.test"
        answered 10 3
        small=$(rss_kb px)
        proxy px "ca-file $T/pki/large.pem" "$one 1 tls=dns.test"
        answered 10 3
        grew 100 "$small" px
        stop px
    else
        skip "not here: /etc/ssl/certs/ca-certificates.crt or /proc"
    fi
}

# F12: what leaves for an upstream address when every handshake fails
leg_tls_plaintext() {
    promise "when every handshake fails no plaintext byte and no datagram leaves for any upstream, on its port, 53 or 853"
    if [ "$(id -u)" != 0 ] || [ "$(uname -s)" != Linux ]; then
        skip "not here: ports 53 and 853 on an address of its own need root and Linux"
        return
    fi
    plain_a=127.$(($$ / 200 % 200 + 1)).$(($$ % 200 + 1)).77      # other runs on this machine have another
    dot one other addr="$plain_a" on=853
    dot two other addr="$plain_a" on=53
    dot last alone addr="$plain_a"
    proxy px "$ca" "$plain_a 1 tls=dns.test" "$last 2 tls=dns.test" "$last 3 tls=other.test noverify" 'timeout 1500'
    proxy px "$ca" "$plain_a 1 tls=dns.test" "$last 2 tls=dns.test" 'timeout 1500'
    got=$(load 20 rate=10)
    like 'wrong 0 dup 0 bad 0 right 0 failed 20 lost 0' "$got"
    same 0 "$(cat "$T/one.q" "$T/two.q" "$T/last.q" | grep -c '^plain')" "plaintext"
    saw 0 '^data' one
    saw 0 '^open' two
    promise "when every handshake fails clients get SERVFAIL"
    same 20 "$(val failed "$got")" "failures"
}

leg_tls_clock() {
    promise "the clock of the program can be set by the test"
    shim CLOCK || return
    peer clock "$T/shim" 60
    within 60 120 "$(LD_PRELOAD="$T/shim.so" SHIM="$T/shim" peer now)" "the time"
    crt expired by=root cn=dns.test san=dns:dns.test from=-1728000 to=-259200
    crt future by=root cn=dns.test san=dns:dns.test from=432000
    crt strange by=stranger cn=dns.test san=dns:dns.test withroot
    dot one good
    dot c_future future : net=12
    dot c_expired expired : net=13
    dot c_other other : net=14
    dot c_strange strange : net=15
    shimmed px "$ca" "$one 1 tls=dns.test" "$(at c_future) 2 tls=dns.test" "$(at c_expired) 3 tls=dns.test" "$(at c_other) 4 tls=dns.test" \
        "$(at c_strange) 5 tls=dns.test"
    promise "with the clock in 1970 a certificate that is valid at the floor is accepted"
    answered 10 5
    promise "with the clock in 1970 the log says once that the clock is wrong"
    same 1 "$(clock_lines px)" "lines"
    promise "with the clock in 1970 a certificate newer than the floor is judged at its own notBefore"
    await 3 sees c_future '^up' || fail "refused: $(grep -F "$(at c_future)" "$T/px.log")"
    promise "with the clock in 1970 a certificate that expired before the floor, another name and an unknown CA are refused"
    await 3 sees c_expired '^end'
    saw 0 '^(up|data)' c_expired
    saw 0 '^(up|data)' c_other
    saw 0 '^(up|data)' c_strange
    like 'expired' "$(grep -F "$(at c_expired)" "$T/px.log")"
    same 1 "$(clock_lines px)" "lines about the clock"
    promise "when the clock has been set it counts, without a restart"
    peer clock "$T/shim" real
    answered 10 1
    k=$(asked c_future '^open')
    turn c_future net=12 kick=1 epoch=1         # without its session
    answered 10 15 rate=10
    await 3 sees c_future '^open' $((k + 1)) || fail "not tried again"
    saw 1 '^up' c_future
    like 'not yet valid' "$(grep -F "$(at c_future)" "$T/px.log")"
    answered 10 5
    promise "a session that was made while the clock was wrong is not resumed when the certificate's dates do not hold"
    peer clock "$T/shim" 60
    dot one good
    dot c_future future : net=12
    shimmed px "$ca" "$one 1 tls=dns.test" "$(at c_future) 2 tls=dns.test"
    await 3 sees c_future '^up'
    answered 10 2
    peer clock "$T/shim" real
    forget c_future
    turn c_future net=12 kick=1
    answered 10 15 rate=10
    await 3 sees c_future '^open' || fail "not tried again"
    saw 0 '^(up|data)' c_future
    promise "a certificate that expires is refused at the next connection, also when its session could be resumed"
    crt brief by=root cn=dns.test san=dns:dns.test to=8
    dot one brief
    dot last good : net=11
    proxy px "$ca" "$one 1 tls=dns.test" "$last 2 tls=dns.test"
    answered 10 2
    turn one kick=1
    await 2 sees one '^up .* resumed' 2 || fail "no second connection"
    await 12 eval '[ "$(date +%s)" -gt $(($(date -r "$T/pki/brief.crt" +%s) + 9)) ]'
    forget one
    turn one kick=2
    answered 11 5
    saw 0 '^(up|data)' one
    like 'expired' "$(grep -F "$one" "$T/px.log")"
}
