# tls.sh - DNS over TLS: who is trusted, and that nothing leaks to anybody else.
# Alone: ./test.sh tls_transport tls_refused tls_broken tls_accepted tls_clock

leg_tls_transport() {
    a63=$(printf 'a%.0s' $(seq 63)) b46=$(printf 'b%.0s' $(seq 46))
    pin=$(cat "$T/pki/alone.pin") port=$(freeport) many_ca=/etc/ssl/certs/ca-certificates.crt
    : >"$T/empty.pem"
    { echo '# a comment'; cat "$T/pki/stranger.crt"; echo junk; printf %s "$(cat "$T/pki/root.crt")"; } >"$T/pki/odd.pem"
    replies <<'END'
a TLS connection is opened at the start, before any query ; single '' 'patience 500'
 ; comes one '^up'
 ; saw 0 '^query' one
500 queries one after another are answered over it ; answered 10 500
 ; saw 500 '^query' one
 ; saw 1 '^open' one
the ClientHello names the server and offers no ALPN ; saw 1 '^hello 1 .* sni dns\.test alpn - ' one
TLS 1.2 with forward-secret AEAD suites only is offered
 ; saw 1 '^hello 1 .* version 0303 suites ((cca8|cca9|c02b|c02c|c02f|c030|00ff),?)+ ' one
queries over TLS are padded to multiples of 128 bytes, with one padding option ; forget one
 ; each 'answered 10 2 name="$(printf %.${it}s $a63).%x.pad.test"' 1 20 50 63
 ; each 'answered 10 2 name="%x.$b46.$(printf %.${it}s $a63).pad.test"' 1 20 50 63
 ; saw 16 '^query' one
 ; same 0 "$(sed -n 's/^query .* size=\([0-9]*\) .*/\1/p' "$T/one.q" | awk '$1 % 128' | wc -l)" "queries of another length"
 ; saw 16 '^query .* opts=(11:,)?12:[0-9a-f+]*(,11:)?$' one      # no options but padding and keepalive
edns-tcp-keepalive is sent on each connection, without a timeout ; kicked kick=1
 ; like '^query .* opts=([0-9a-f:+]+,)*11:(,|$)' "$(tail -n 1 "$T/one.q")"
100 queries at once use one connection, a record each, and answers may come in reverse order, many a record
 ; turn one batch=100
 ; costs 0 '^open' one answered 10 100 window=100
 ; same 99 "$(sed -n 's/^query .* record=\([0-9]*\) .*/\1/p' "$T/one.q" | awk 'NR == 1 { n = $1 } END { print $1 - n }')" "records behind the first"
 ; turn one
SIGTERM ends TLS connections with close_notify ; stop px
 ; comes one '^end .*by client why notify'
a server with ChaCha20 only, or with AES-256 only, is spoken to, and a second try for it comes at once, and once
 ; each fewer_suites cca8,cca9 c02c,c030
bare tls sends no SNI ; crt ip by=int san=ip:127.0.0.1
 ; dot one ip
 ; proxy px "$ca" "$one 1 tls"
 ; answered 10 1
 ; saw 1 '^hello 1 .* sni - ' one
records of one byte are put together ; served
 ; ruled record=1 50 window=10
segments of one byte are put together, in the handshake too ; ruled 'wire=1 kick=1' 20 window=5
records of 16 KB are read ; ruled batch=4 8 window=4
 ; turn one
 ; size=6[45][0-9]{3} ; big=65500.1.test TYPE65400 +tcp
the connection was kept through all this ; answered 10 100
 ; saw 2 '^open' one
 ; saw 0 '^end .*by client' one
a server's wish to renegotiate is refused, and no query is lost ; ruled reneg 50
 ; saw 1-99 '^reneg' one
 ; ruled '' 5
a ca-file that is not there, or has no certificate, is an error at the start when tls=NAME or bare tls needs it ; dot one good
 ; each 'exits 78 "$it" "ca-file $it" "$one 1 tls=dns.test" "listen 127.0.0.1@$port"' "$T/none.pem" "$T/empty.pem" "$T"
 ; each 'exits 78 "$T/none.pem" "ca-file $T/none.pem" "$one 1 $it" "listen 127.0.0.1@$port"' tls "tls=dns.test pin=$pin"
3,000 of the smallest authorities that there can be are read ; tiny=MIGAMG6gAwIBAgIBATALBgkqhkiG9w0BAQswADAeFw0yMDAxMDEwMDAwMDBa
 ; tiny=${tiny}Fw00MDAxMDEwMDAwMDBaMAAwITANBgkqhkiG9w0BAQEFAAMQADANAgh/f39/f39/fwIBA6MQMA4wDAYDVR0TBAUwAwEB/zALBgkqhkiG9w0BAQsDAQA=
 ; yes "$(printf '\n-----%s-----' 'BEGIN CERTIFICATE' 'END CERTIFICATE' | sed "2a $tiny")" | head -n 12000 >"$T/tiny.pem"
 ; exits 0 '^192' -t "ca-file $T/tiny.pem" '192.0.2.1 1 tls=dns.test'
with a pin alone no ca-file is needed ; dot two alone
 ; proxy px "ca-file $T/none.pem" "$two 1 tls pin=$pin"
 ; answered 10 3
noverify warns at each start
 ; each 'proxy px "$two 1 tls noverify" && answered 10 1 && blamed two "noverify|not authenticated|without authentic"' 1 2
of a large ca-file with junk between only an index stays in memory, and its last authority, without a newline, is found
 ; [ -s "$many_ca" ] && proc_here && [ "$WATCH" != valgrind ] || skip "not here: $many_ca, /proc, or the time to read it"
 ; cat "$many_ca" "$many_ca" "$many_ca" "$many_ca" "$T/pki/odd.pem" >"$T/pki/large.pem"
 ; proxy px "$ca" "$one 1 tls=dns.test"
 ; answered 10 3
 ; small=$(rss_kb px)
 ; proxy px "ca-file $T/pki/large.pem" "$one 1 tls=dns.test"
 ; answered 10 3
 ; ! plain || grew 100 "$small" px
when every handshake fails no plaintext byte leaves for any upstream, on its port, 53 or 853, and clients get SERVFAIL
 ; netns
 ; dot one other on=853
 ; dot two other on=53
 ; dot last alone
 ; proxy px "$ca" "127.0.0.1 1 tls=dns.test" "$last 2 tls=dns.test" 'timeout 1500'
 ; like 'wrong 0 dup 0 bad 0 right 0 failed 20 lost 0' "$(load n=20 rate=10)"
 ; saw 0 '^(plain|data)' one two last
 ; saw 0 '^open' two
END
}
fewer_suites() {
    dot one good "suites=$it" : pause=200          # the query comes before the first try has failed
    proxy px "$ca" "$one 1 tls=dns.test"
    answered 10 1 in:1000
    saw 1-2 '^open' one
    costs 1 '^open' one kicked kick=1
}

# servers: each line CERT;WORDS : RULES;UPSTREAM;ERE;WHAT of $T/rows becomes a TLS server s1, s2, ... of priority 1, 2, ...; their
# upstream lines are the words that `eval "proxy px $lines"` takes. CERT is a certificate that is there, or what crt takes for a new
# one, of dns.test if that says no other; WORDS : RULES is what dot takes. UPSTREAM is tls=dns.test if empty.
servers() {
    lines=''
    each_server server
}
server() {
    case $cert in *=*)
        crt "c$i" cn=dns.test san=dns:dns.test $cert
        cert=c$i
        ;;
    esac
    dot "s$i" "$cert" $words
    lines="$lines '$(at "s$i") $i ${upstream:-tls=dns.test}'"
}
# each_server COMMAND: for each such line, with the number of its server in $i, and after the last one how many they are
each_server() {
    i=0
    while IFS=';' read -r cert words upstream ere what; do
        i=$((i + 1))
        "$1"
    done <"$T/rows"
}

# tried: the servers of $T/rows, and a good one behind them: 25 queries over 2.5 s are answered. One without an ERE is accepted; any
# other is refused, with one line of the log that matches it. A new fault or alert is a new line in leg_tls_broken: the rules are told
# in tests/peer_server.h (at=hello:alert40), the certificates at crt in tests/lib.sh.
tried() {
    servers
    dot last good : net=11
    promise "with $i servers in a row, some of which may fail, nobody waits for patience"
    eval "proxy px $lines" '"$ca" "$last 99 tls=dns.test" "patience 3000"'
    each_server is_taken
    like 'right 25 failed 0 ' "$(load n=25 rate=10 timeout=1500)"
    each_server tried_one
}
is_taken() { [ -n "$ere" ] || comes "s$i" '^up'; }
tried_one() {
    if [ -z "$ere" ]; then
        promise "a server with $what is accepted"
        saw 25 '^query' "s$i"
        saw 1 '^open' "s$i"
    else
        promise "a server $what is refused: it gets no byte of a query, and one line says why"
        comes "s$i" '^open' 2
        saw 0 '^(data|query|plain|request)' "s$i"
        blamed "s$i" "(tls|https): .*($ere)" 1
    fi
}

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
by=stranger chain=stranger;;;unknown CA;whose chain ends at an unknown CA, though it sends the root
by=int chain=,;;;unknown CA|intermediate;that does not send its intermediate certificate
by=root eku=clientAuth;;;extended key usage|serverAuth|server;whose certificate is for TLS clients only
by=noca;;;CA;whose issuer is no CA
by=root badsig;;;signature|unknown CA;whose certificate has a wrong signature
stolen;;;key|signature;that does not own the certificate's key
by=root san=;;;name;with a name in the CN alone
by=root san=ip:127.0.0.99;;tls;wanted 127\.0\.0\.1,.*127\.0\.0\.99;with a certificate for another address
good;;tls;address|name;with a certificate without addresses, asked by address
by=root cn=127.0.0.1 san=dns:127.0.0.1;;tls;address|name;with the address as a dNSName and a CN
by=oldint;;;expired;whose intermediate certificate has expired
by=deepint;;;path|CA|chain;whose chain is longer than a CA allows
by=root critical;;;critical;with a critical extension that is unknown
END
    tried
}

leg_tls_broken() {
    good=$(cat "$T/pki/good.pin") alone=$(cat "$T/pki/alone.pin") other=$(cat "$T/pki/other.pin")
    crt swollen by=root cn=dns.test san=dns:dns.test
    for i in $(seq 35); do cat "$T/pki/swollen.crt"; done >>"$T/pki/swollen.pem"
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
good;: at=hello:alert80;;server: internal error$;that sends the alert 80
good;: at=hello:alert49;;server alert 49$;that sends the alert 49, which has no words and is told by its number
good;suites=c009,c00a,c023;;cipher;with old cipher suites only
good;: at=hello:fin;;closed.*TLS 1\.3;that closes in the handshake time and again
good;: at=mid:rst;;reset;that resets in the handshake
swollen;;tls=other.test;name|chain|certificate;with a chain of 36 certificates
by=root names=2000;;;certificate|chain|long|large;with a certificate of 50 KB
alone;alpn=h2;https=dns.test;unknown CA|self-signed;over HTTPS with a certificate of an unknown CA
good;;https=dns.test;the server does not speak HTTP/2 \(no ALPN h2\);over HTTPS that chooses no protocol by ALPN
good;alpn=dot;https=dns.test;the server does not speak HTTP/2 \(no ALPN h2\);over HTTPS that knows another protocol only
good;alpn=h2 : at=hello:alert120;https=dns.test;no HTTP/2 \(no ALPN h2\);over HTTPS that says so by an alert
END
    tried
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
by=root eku=serverAuth,clientAuth;;;;an extended key usage for servers and clients
by=int san=ip:192.0.2.1,ip:127.0.0.1;;tls;;an IPv4 address, asked by address
alone;;tls pin=$alone;;the pinned key, self-signed
oldalone;;tls pin=$(cat "$T/pki/oldalone.pin");;the pinned key, expired and for another name
alone;;tls pin=$(cat "$T/pki/good.pin") pin=$alone pin=$(cat "$T/pki/other.pin");;the second of three pinned keys
good;;tls=dns.test pin=$(cat "$T/pki/good.pin");;the pinned key and the name
alone;;tls=dns.test noverify;;anything, with noverify
oldalone;;tls noverify;;an expired certificate, with noverify
alone;alpn=h2;https=dns.test noverify;;any certificate over HTTPS, with noverify
good;alpn=h2;https=DNS.test./q/%7Buser%7D?x;;a path of its own over HTTPS
END
    ! grep -q '^0*1 ' /proc/net/if_inet6 2>/dev/null ||
        echo 'by=int san=ip:::1;addr=::1;tls;;an IPv6 address, asked by address' >>"$T/rows"
    ca="ca-file $T/pki/more.pem"
    tried
    promise "a path of its own is in each request"
    saw 25-50 '^request .*dns\.test.*/q/%7Buser%7D\?x\\' "s$(sed -n '/%7B/=' "$T/rows")"
    promise "certificates that the path does not use do not end resumption, expired ones neither"
    chained=$(sed -n '/chain=/=' "$T/rows")
    each 'turn "s$it" kick=1 && comes "s$it" "^up .* resumed 1"' $chained
}

leg_tls_clock() {
    promise "with the clock in 1970 a certificate that is valid at the floor is accepted"
    shim CLOCK || return
    clock 60
    cat >"$T/rows" <<'END'
good;: net=10
by=root from=432000;: net=12
by=root from=-1728000 to=-259200;: net=13
other;: net=14
by=stranger chain=stranger;: net=15
END
    servers
    eval "shimmed px $lines" '"$ca"'
    answered 10 5
    replies <<'END'
with the clock in 1970 a certificate newer than the floor is judged at its own notBefore ; comes s2 '^up'
with the clock in 1970 a certificate that expired before the floor, another name and an unknown CA are refused
 ; comes s3 '^end'
 ; saw 0 '^(up|data)' s3 s4 s5
 ; blamed s3 expired
with the clock in 1970 the log says once that the clock is wrong ; saw 1 '^the clock is wrong' px
when the clock has been set it counts, without a restart ; clock "$(date +%s)"
 ; answered 10 1
 ; k=$(seen s2 '^open')
 ; turn s2 net=12 kick=1 cache=new         # without its session
 ; answered 10 15 rate=10
 ; comes s2 '^open' $((k + 1))
 ; saw 1 '^up' s2
 ; blamed s2 'not yet valid'
 ; answered 10 5
a session that was made while the clock was wrong is not resumed when the certificate's dates do not hold
 ; clock 60
 ; dot s1 good
 ; dot s2 c2 : net=12
 ; shimmed px "$ca" "$(at s1) 1 tls=dns.test" "$(at s2) 2 tls=dns.test"
 ; comes s2 '^up'
 ; answered 10 2
 ; clock "$(date +%s)"
 ; forget s2
 ; turn s2 net=12 kick=1
 ; answered 10 15 rate=10
 ; comes s2 '^open'
 ; saw 0 '^(up|data)' s2
a certificate that expires is refused at the next connection, also when its session could be resumed
 ; crt brief by=root cn=dns.test san=dns:dns.test to=8
 ; row one:brief
 ; answered 10 2
 ; turn one kick=1
 ; comes one '^up .* resumed' 2
 ; await 12 eval '[ "$(date +%s)" -gt $(($(date -r "$T/pki/brief.crt" +%s) + 9)) ]'
 ; forget one
 ; turn one kick=2
 ; answered 11 5
 ; saw 0 '^(up|data)' one
 ; blamed one expired
END
}
