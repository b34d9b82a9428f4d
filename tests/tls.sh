# tls.sh - DNS over TLS: who is trusted, and that nothing leaks to anybody else.
# Alone: ./test.sh tls_transport tls_refused tls_broken tls_accepted tls_start tls_plaintext tls_clock

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
    like "NOERROR .* edns=[0-9]+ .* A 10\.25\.43\.201$" "$got"
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

# blamed NAME ERE: the log of px has a line about that server which matches
blamed() { like "$2" "$(grep -F "$(at "$1")" "$T/px.log")" "the log about $1"; }

# servers: each line CERT;WORDS : RULES;UPSTREAM;ERE;WHAT of $T/rows becomes a TLS server s1, s2, ... of priority 1, 2, ...; their
# upstream lines are the words that `eval "proxy px $lines"` takes. CERT is a certificate that is there, or what crt takes for a new
# one, of dns.test if that says no other; WORDS : RULES is what dot takes. UPSTREAM is tls=dns.test if empty.
servers() {
    servers_i=0 lines=''
    while IFS=';' read -r cert words upstream ere what; do
        servers_i=$((servers_i + 1))
        case $cert in *=*)
            crt "c$servers_i" cn=dns.test san=dns:dns.test $cert
            cert=c$servers_i
            ;;
        esac
        dot "s$servers_i" "$cert" $words
        lines="$lines '$(at "s$servers_i") $servers_i ${upstream:-tls=dns.test}'"
    done <"$T/rows"
}

# strangers: the servers of $T/rows, all of better priority than the good one; 25 queries over 2.5 s are answered by that one, and
# each stranger is refused, with one line of the log that matches ERE. A new fault or alert is a new line of a table below: the
# rules are told in tests/peer_server.h (at=hello:alert40), the certificates at crt in tests/lib.sh.
strangers() {
    servers
    dot last good : net=11
    promise "with $servers_i servers before it that fail, the next priority answers without waiting for patience"
    eval "proxy px $lines" '"$ca" "$last 99 tls=dns.test" "patience 3000"'
    kill -0 "$(pid px)" || { fail "$(cat "$T/px.log")"; return; }
    answered 11 25 in:1500 rate=10
    strangers_i=0
    while IFS=';' read -r cert words upstream ere what; do
        strangers_i=$((strangers_i + 1))
        strangers_n=s$strangers_i
        promise "a server $what is refused: it gets no byte of a query, and one line says why"
        strangers_a=$(at "$strangers_n")
        await 3 sees "$strangers_n" '^open' 2 || fail "it was tried $(asked "$strangers_n" '^open') times, wanted 2 or more"
        same 0 "$(asked "$strangers_n" '^data|^query')" "queries inside TLS"
        same 0 "$(asked "$strangers_n" '^plain')" "plaintext"
        same 1 "$(said px "$strangers_a" "tls: .*($ere)")" "lines in the log like /$ere/, of [$(grep -F "$strangers_a" "$T/px.log" | head -n 4)]"
    done <"$T/rows"
    promise "after failed handshakes the program serves as before"
    answered 11 20
}

# Certificates that are not taken
leg_tls_refused() {
    crt noca by=root cn='No authority' san=dns:mallory.test
    crt oldint by=root cn='Old intermediate' ca from=-1728000 to=-259200
    crt deepint by=int cn='Too deep' ca
    cp "$T/pki/good.pem" "$T/pki/stolen.pem"
    cp "$T/pki/other.key" "$T/pki/stolen.key"
    cat >"$T/rows" <<END
by=root from=-1728000 to=-259200;;;expired;whose certificate has expired
by=root from=432000;;;not yet valid.*$(date -u +%Y);whose certificate is not yet valid (the line tells the clock's time)
other;;;dns\.test.*other\.test|other\.test.*dns\.test;with a certificate for another name (the line tells both)
alone;;;unknown CA|self-signed;with a self-signed certificate
by=stranger withroot;;;unknown CA;whose chain ends at an unknown CA, though it sends the root
by=int noint;;;unknown CA|intermediate;that does not send its intermediate certificate
by=root eku=clientAuth;;;extended key usage|serverAuth|server;whose certificate is for TLS clients only
by=noca;;;CA;whose issuer is no CA
by=root badsig;;;signature|unknown CA;whose certificate has a wrong signature
stolen;;;key|signature;that does not own the certificate's key
by=root san=;;;name;with a name in the CN alone
by=root san=DER:30158213646e732e74657374002e6576696c2e74657374;;;name;with the right name before a NUL byte
by=root san=dns:*.test;;;name;with a wildcard for a top-level domain
by=root san=dns:*.dns.test;;;name;with a wildcard for names below the wanted one
by=root san=dns:*.dns.test;;tls=a.b.dns.test;name;with a wildcard for a name two labels below it
by=root san=ip:127.0.0.99;;tls;wanted 127\.0\.0\.1,.*127\.0\.0\.99;with a certificate for another address
good;;tls;address|name;with a certificate without addresses, asked by address
by=root cn=127.0.0.1 san=dns:127.0.0.1;;tls;address|name;with the address as a dNSName and a CN
by=oldint;;;expired;whose intermediate certificate has expired
by=deepint;;;path|CA|chain;whose chain is longer than a CA allows
by=root critical;;;critical;with a critical extension that is unknown
END
    strangers
}

# Pins that do not fit, handshakes that fail, alerts
leg_tls_broken() {
    good=$(cat "$T/pki/good.pin") alone=$(cat "$T/pki/alone.pin") other=$(cat "$T/pki/other.pin")
    crt swollen by=root cn=dns.test san=dns:dns.test
    for i in 1 2 3 4 5 6 7; do cat "$T/pki/swollen.crt" "$T/pki/swollen.crt" "$T/pki/swollen.crt" "$T/pki/swollen.crt" "$T/pki/swollen.crt"; done >>"$T/pki/swollen.pem"
    cat >"$T/rows" <<END
alone;;tls pin=$good;pin.*$(ere "$alone");with another key than the pinned (the line tells its pin)
good;;tls=dns.test pin=$other;pin.*$(ere "$good");with the right name and another key than the pinned
other;;tls=dns.test pin=$other;dns\.test.*other\.test|other\.test.*dns\.test;with the pinned key and another name
alone;;tls=dns.test pin=$alone;unknown CA|self-signed;with the pinned key and the name, but of an unknown CA
good;;tls pin=$(cat "$T/pki/root.pin");pin.*$(ere "$good");below a CA whose key is pinned (a pin is of the server's own key)
good;: at=accept:plain;;not TLS|speak TLS( at all)?$;that speaks another protocol
good;: at=hello:zeros;;not TLS|speak TLS( at all)?$;that sends zeros
good;: at=hello:garbage;;not TLS|speak TLS( at all)?$;that sends garbage
good;tls=11;;TLS 1\.2|version|cipher;with TLS 1.1 only
good;: at=hello:alert70;;TLS 1\.2|version;with TLS 1.3 only
good;: at=hello:alert40;;handshake_failure|alert 40|cipher;that sends the alert 40
good;suites=c009,c00a,c023;;cipher;with old cipher suites only
good;: at=hello:fin;;closed;that closes in the handshake
good;: at=mid:rst upto=200;;reset;that resets in the handshake
swollen;;tls=other.test;name|chain|certificate;with a chain of 36 certificates
by=root names=2000;;;certificate|chain|long|large;with a certificate of 50 KB
END
    strangers
}

leg_tls_accepted() {
    crt crossed by=stranger keyof=root cn='Test root' ca from=-1728000 to=-259200
    crt int384 by=root384 key=P-384 cn='Test intermediate P-384' ca
    crt rsa by=intrsa key=rsa cn=dns.test san=dns:dns.test eku=serverAuth
    crt root4096 key=rsa:4096 cn='Test root RSA 4096' ca
    crt long1 by=root4096 keyof=root4096 cn='Long 1' ca
    crt long2 by=long1 key=P-384 cn='Long 2' ca=1
    crt long3 by=long2 cn='Long 3' ca=0
    crt oldalone cn=whatever from=-1728000 to=-259200
    cat "$T/pki/ca.pem" "$T/pki/root4096.crt" >"$T/pki/more.pem"
    alone=$(cat "$T/pki/alone.pin")
    cat >"$T/rows" <<END
good;;;;a P-256 chain with an intermediate
rsa;;;;an RSA chain with an intermediate
by=intrsa;;;;a P-256 certificate below RSA
by=int keyof=rsa;;;;an RSA certificate below P-256
by=int384 key=P-384;;;;a P-384 chain
by=int384;;;;a P-256 certificate below P-384
by=long3 keyof=rsa;;;;a chain of four with RSA 4096, P-384, P-256 and RSA 2048
by=int chain=int,root;;;;a chain that ends with the root
by=int chain=c9,int;;;;a chain that begins with the certificate twice
by=int chain=root,stranger,int;;;;a chain with the root and a stranger in the middle
by=int chain=int,crossed;;;;a chain behind which an expired cross-signed root follows
by=root names=350;;;;a certificate of 8 kB
by=root san=dns:DNS.Test;;;;a name in other letter case
good;;tls=DNS.test;;a wanted name in other letter case
by=root san=dns:*.dns.test;;tls=a.dns.test;;a wildcard for one label
by=root eku=serverAuth,clientAuth;;;;an extended key usage for servers and clients
by=root from=-1000000000 to=2000000000;;;;dates before and after the range of UTCTime
by=root names=60;;;;61 names
by=int san=ip:192.0.2.1,ip:127.0.0.1;;tls;;an IPv4 address, asked by address
alone;;tls pin=$alone;;the pinned key, self-signed
oldalone;;tls pin=$(cat "$T/pki/oldalone.pin");;the pinned key, expired and for another name
alone;;tls pin=$(cat "$T/pki/good.pin") pin=$alone;;the second of two pinned keys
good;;tls=dns.test pin=$(cat "$T/pki/good.pin");;the pinned key and the name
alone;;tls=dns.test noverify;;anything, with noverify
oldalone;;tls noverify;;an expired certificate, with noverify
END
    if grep -q '^0*1 ' /proc/net/if_inet6 2>/dev/null; then
        echo 'by=int san=ip:::1;addr=::1;tls;;an IPv6 address, asked by address' >>"$T/rows"
    fi
    servers
    promise "a program with $servers_i TLS upstreams starts"
    eval "proxy px $lines" '"ca-file $T/pki/more.pem" "patience 3000"'
    kill -0 "$(pid px)" || { fail "$(cat "$T/px.log")"; return; }
    promise "$servers_i servers with good certificates all answer"
    for i in $(seq "$servers_i"); do await 4 sees "s$i" '^up'; done
    answered 10 5
    i=0
    while IFS=';' read -r cert words upstream ere what; do
        i=$((i + 1))
        promise "a server with $what is accepted"
        sees "s$i" '^query' 5 || fail "s$i saw $(asked "s$i" '^query') of 5 queries: $(grep -F "$(at "s$i")" "$T/px.log")"
        same 1 "$(asked "s$i" '^open')" "connections"
    done <"$T/rows"
    promise "certificates that the path does not use do not end resumption, expired ones neither"
    for i in $(sed -n '/chain=/=' "$T/rows"); do
        turn "s$i" kick=1
        await 4 sees "s$i" '^up .* resumed 1' || fail "s$i is not resumed"
    done
}

# refuses ERE LINE...: the program does not start with these lines, and says so
refuses() {
    refuses_e=$1
    shift
    exits 78 "$refuses_e" "$@" "listen 127.0.0.1@$(freeport)" 'admin off'
}

leg_tls_start() {
    pin=$(cat "$T/pki/alone.pin")
    dot one good
    : >"$T/empty.pem"
    replies <<'END'
a ca-file that is not there is an error at the start when tls=NAME or bare tls needs it
 ; ; refuses "$T/none\\.pem" "ca-file $T/none.pem" "$one 1 tls=dns.test"
 ; ; refuses "$T/none\\.pem" "ca-file $T/none.pem" "$one 1 tls"
 ; ; refuses "$T/none\\.pem" "ca-file $T/none.pem" "$one 1 tls=dns.test pin=$pin"
a ca-file without a certificate is an error at the start
 ; ; refuses "$T/empty\\.pem" "ca-file $T/empty.pem" "$one 1 tls=dns.test"
 ; ; refuses "$T" "ca-file $T" "$one 1 tls=dns.test"
END
    promise "with a pin alone no ca-file is needed"
    dot two alone
    proxy px "ca-file $T/none.pem" "$two 1 tls pin=$pin"
    answered 10 3
    promise "a ca-file with comments, junk between and no newline at its end is read whole"
    { echo '# a comment'; cat "$T/pki/stranger.crt"; echo junk; printf %s "$(cat "$T/pki/root.crt")"; } >"$T/pki/odd.pem"
    proxy px "ca-file $T/pki/odd.pem" "$one 1 tls=dns.test"
    answered 10 3
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
    else
        skip "not here: /etc/ssl/certs/ca-certificates.crt or /proc"
    fi
}

# F12: what leaves for an upstream address when every handshake fails
leg_tls_plaintext() {
    promise "when every handshake fails no plaintext byte and no datagram leaves for any upstream, on its port, 53 or 853"
    { [ "$(id -u)" = 0 ] && [ "$(uname -s)" = Linux ]; } || { skip "not here: ports 53 and 853 on an address of its own need root and Linux"; return; }
    plain_a=127.$(($$ / 200 % 200 + 1)).$(($$ % 200 + 1)).77      # other runs on this machine have another
    dot one other addr="$plain_a" on=853
    dot two other addr="$plain_a" on=53
    dot last alone addr="$plain_a"
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
    within 60 120 "$(LD_PRELOAD="$T/shim.so" SHIM="$T/shim" date +%s)" "the time"
    cat >"$T/rows" <<'END'
good;: net=10
by=root from=432000;: net=12
by=root from=-1728000 to=-259200;: net=13
other;: net=14
by=stranger withroot;: net=15
END
    servers
    eval "shimmed px $lines" '"$ca"'
    promise "with the clock in 1970 a certificate that is valid at the floor is accepted"
    answered 10 5
    promise "with the clock in 1970 the log says once that the clock is wrong"
    same 1 "$(clock_lines px)" "lines"
    promise "with the clock in 1970 a certificate newer than the floor is judged at its own notBefore"
    await 3 sees s2 '^up' || fail "refused: $(grep -F "$(at s2)" "$T/px.log")"
    promise "with the clock in 1970 a certificate that expired before the floor, another name and an unknown CA are refused"
    await 3 sees s3 '^end'
    saw 0 '^(up|data)' s3 s4 s5
    like 'expired' "$(grep -F "$(at s3)" "$T/px.log")"
    same 1 "$(clock_lines px)" "lines about the clock"
    promise "when the clock has been set it counts, without a restart"
    peer clock "$T/shim" real
    answered 10 1
    k=$(asked s2 '^open')
    turn s2 net=12 kick=1 epoch=1         # without its session
    answered 10 15 rate=10
    await 3 sees s2 '^open' $((k + 1)) || fail "not tried again"
    saw 1 '^up' s2
    like 'not yet valid' "$(grep -F "$(at s2)" "$T/px.log")"
    answered 10 5
    promise "a session that was made while the clock was wrong is not resumed when the certificate's dates do not hold"
    peer clock "$T/shim" 60
    dot s1 good
    dot s2 c2 : net=12
    shimmed px "$ca" "$(at s1) 1 tls=dns.test" "$(at s2) 2 tls=dns.test"
    await 3 sees s2 '^up'
    answered 10 2
    peer clock "$T/shim" real
    forget s2
    turn s2 net=12 kick=1
    answered 10 15 rate=10
    await 3 sees s2 '^open' || fail "not tried again"
    saw 0 '^(up|data)' s2
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
