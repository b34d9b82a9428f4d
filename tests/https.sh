# https.sh - DNS over HTTPS: requests, responses of every shape, servers that break HTTP/2, trust, and where port 853 is closed.
# Alone: ./test.sh https https_flow https_trust. What the scripted server can do is told by tests/peer_h2.h.

# web_answers 'RULE...' COUNT [WORD...]: a single server with these rules answers that
web_answers() {
    single "$1"
    shift
    answered 10 "$@"
}
# asked_for FAULT: what `query` says of a name that makes the server one commit it
asked_for() { adm "query h2=$1.n$(date +%s)$$.test A" | grep -F "$one "; }

leg_https() {
    over=https
    # POST, https, :authority, :path, accept, content-type, content-length: the bytes of RFC 7541
    headers='\\131\\135\\001\\008dns\.test\\004\\010/dns-query\\015\\004\\023application/dns-message\\015\\016\\023application/dns-message'
    headers=$headers'\\015\\013\\003128'
    replies asked_for <<'END'
queries over HTTPS are answered, 500 on one connection, its ALPN h2 ; single '' 'timeout 1000'
 ; answered 10 500 window=100
 ; saw 1 '^open' one
 ; saw 1 '^hello 1 .* sni dns\.test alpn h2 ' one
a request is a POST to the name and the path, and tells nothing else ; saw 500 '^request' one
 ; saw 500 "^request .* \"$headers\"\$" one
its question has the ID 0, padding to 128 bytes and no other option
 ; saw 500 '^query .* id=0 .* size=128 .* opts=12:[0-9a-f+]*$' one
an answer in many DATA frames with padding is put together   ; NOERROR answers 20 ; split.n=20
trailers do no harm                                          ; NOERROR answers 1  ; trailers
a response 103 before the real one does no harm              ; NOERROR answers 1  ; early
headers in three frames are read                             ; NOERROR answers 1  ; wide
headers in Huffman's code are read                           ; NOERROR answers 1  ; huffman
a response without a type is taken for what was asked        ; NOERROR answers 1  ; typeless
unknown frames, settings and flags do no harm                ; NOERROR answers 1  ; unknown
a PING comes back ; NOERROR answers 1  ; ping
 ; comes one '^pong .* pingpong'
a TTL is lowered by the age of the response: 300 less 100, and less 30 ; like ' 200 IN A ' "$(adm 'query h2=age100.ttl.test A' | tr '\t' ' ')"
 ; like ' 270 IN A ' "$(adm 'query h2=huffman,age30.ttl.test A' | tr '\t' ' ')"
through all that the connection stays ; saw 1 '^open' one
a status other than 200 is a failure with its number: 404    ; no answer HTTP status 404$ ; status404
302, which is not followed                                   ; no answer HTTP status 302$ ; status302
503, in Huffman's code                                       ; no answer HTTP status 503$ ; huffman,status503
a body of another type is a failure                          ; no answer the answer is no application/dns-message$ ; type
half a body is a failure                                     ; no answer the answer is to another question$ ; short
data without headers is a failure                            ; no answer HTTP status 0$ ; noheaders
a reset request is a failure with the number of its error    ; no answer the server has reset the request \(HTTP/2 error 2\)$ ; rst
a client gets SERVFAIL for a 404 ; says '^SERVFAIL ' h2=status404.client.test
a frame above 16,384 bytes ends the connection, and the reason is told ; no answer HTTP/2: a frame of more than 16,384 bytes$ ; bigframe
and a header block of more than 8 kB                       ; no answer HTTP/2: a header block of more than 8 kB ; bigblock
and one that never ends                                    ; no answer HTTP/2: a header block of more than 8 kB ; flood
and one that never ends, in empty pieces                   ; no answer HTTP/2: a header block .* in empty pieces$ ; empty
and a frame within a header block                          ; no answer HTTP/2: a header block is interrupted$ ; interleave
and a continuation of nothing                              ; no answer HTTP/2: a header block is interrupted$ ; lone
and a damaged header block                                 ; no answer HTTP/2: a damaged header block$ ; badhpack
and a push                                                 ; no answer HTTP/2: a push that we have forbidden$ ; push
and data of the connection                                 ; no answer HTTP/2: a damaged frame$ ; zero
and a response to what was never asked                     ; no answer HTTP/2: a damaged frame$ ; even
and more padding than frame                                ; no answer HTTP/2: a damaged frame$ ; overpad
and a reset of three bytes                                 ; no answer the server has reset the request \(HTTP/2 error 0\)$ ; shortreset
each is logged once, not with every connection ; saw 6-8 'https: HTTP/2: ' px
after all that it serves as before ; lives px
with another server behind it no name is lost to a header block that never ends, nor takes another with it
 ; dot last good : net=11
 ; proxy px "$ca" "$one 1 https=dns.test" "$last 2 tls=dns.test"
 ; beside h2=flood 'n=12 rate=3' ' right 12 failed 0 lost 0 .* from 11:12$' good 60 window=60000 rate=15 name=n%x.load.test
END
}

leg_https_flow() {
    over=https
    replies <<'END'
GOAWAY after every 10 requests: of 500 names with 100 in flight none is lost, and a few are asked twice
 ; web_answers h2=goaway10 500 window=100
 ; saw 50-90 '^open' one
a refused request comes again, and is not a failure ; web_answers h2=refused3 100 window=20
a reset of a request that is asked elsewhere too by then is no failure ; single 'h2=rst delay=1900'
 ; meanwhile ask ask elsewhere.test
 ; comes one '^query'
 ; turn one delay=600
 ; ended ask '^NOERROR'
100 answers in many frames at a time ; web_answers h2=split 300 window=100
100 answers at a time whose end comes later ; web_answers h2=late 300 window=100
a byte at a time ; web_answers 'dribble=1 record=20' 5
a server that closes after 10 answers: of 500 names with 100 in flight none fails ; web_answers after=10 500 window=100
a server that takes 65,535 bytes and gives no room for more gets its questions over another connection
 ; web_answers h2=nowindow 600 window=20
 ; saw 2 '^open' one
 ; saw 0 '^over' one
no more requests at a time than the server allows: 200 names with 50 in flight, 7 allowed ; web_answers 'h2=max7 delay=5' 1
 ; answered 10 200 window=50
 ; saw 0 '^over' one
answers of 60,000 bytes, 100 of them: the window of the connection is widened in time ; single
 ; each 'good 10 window=1 name="big=60000.n$it-%x.test" type=TYPE65400 tcp=1' $(seq 10)
 ; saw 0 '^overrun' one
requests that a server leaves open do not keep others from being answered ; single h2=max20
 ; beside h2=silent 'n=5 rate=100 timeout=6000' . answered 10 100 in:1500 window=5
END
}

leg_https_trust() {
    good=$(cat "$T/pki/good.pin") other=$(cat "$T/pki/other.pin")
    cat >"$T/rows" <<END
other;alpn=h2;https=dns.test;dns\.test.*other\.test|other\.test.*dns\.test;with a certificate for another name
alone;alpn=h2;https=dns.test;unknown CA|self-signed;with a certificate of an unknown CA
alone;alpn=h2;https=dns.test noverify;;any certificate, with noverify
good;alpn=h2;https=dns.test pin=$good;;the right pin
good;alpn=h2;https=dns.test pin=$other;pin.*$(ere "$good");with another pin, though the name is right
good;;https=dns.test;the server does not speak HTTP/2 \(no ALPN h2\);that chooses no protocol by ALPN
good;alpn=dot;https=dns.test;the server does not speak HTTP/2 \(no ALPN h2\);that knows another protocol only
good;alpn=h2 : at=hello:alert120;https=dns.test;no HTTP/2 \(no ALPN h2\);that says so by an alert
good;alpn=h2;https=DNS.test./q/%7Buser%7D?x;;a path of its own
END
    tried
    saw 25-50 '^request .*dns\.test.*/q/%7Buser%7D\?x\\' s9
    promise "where TLS gets no answer HTTPS at the same address answers, at once when that is known"
    dot one good alpn=h2
    proxy px "$ca" "127.0.0.1@$(freeport) 1 tls=dns.test" "$one 3 https=dns.test"
    answered 10 20 in:1500
    answered 10 20 in:500
    promise "the normal form leaves out the port and the path that are usual, and is its own"
    out=$("$BIN" -t '192.0.2.1 3 https=DNS.test.' '192.0.2.3@443 4 https=dns.test/dns-query' '192.0.2.1 1 tls=dns.test' '192.0.2.2@8443 5 https=dns.test/q' 2>&1)
    same "192.0.2.1@443 3 https=dns.test 192.0.2.3@443 4 https=dns.test 192.0.2.1@853 1 tls=dns.test 192.0.2.2@8443 5 https=dns.test/q" \
        "$(printf '%s\n' "$out" | grep '^192' | tr '\n' ' ' | sed 's/ $//')"
    replies wrong <<'END'
what is wrong with https= is met by what was expected ; a host name behind tls= or https= ; '192.0.2.1 3 https=' | '192.0.2.1 3 https=https://dns.test/q'
 ; only one of tcp, tls, tls=NAME and https=NAME ; '192.0.2.1 3 https=dns.test tls'
 ; tls alone for a certificate of the address ; '192.0.2.1 3 https=192.0.2.1'
 ; a path of at most 127 letters behind https=NAME ; '192.0.2.1 3 https=dns.test/"q"'
 ; tcp, tls, tls=NAME ; '192.0.2.1 3 https'
END
}
