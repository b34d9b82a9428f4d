# https.sh - DNS over HTTPS: requests, responses of every shape, servers that break HTTP/2, and where port 853 is closed. Trust: tls.sh.
# Alone: ./test.sh https. What the scripted server can do is told by tests/peer_h2.h.

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
trailers, a response 103 before the real one, headers in three frames or in Huffman's code, no type, unknown frames, settings and flags
 ; NOERROR answers 1 ; trailers | early | wide | huffman | typeless | unknown
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
a frame above 16,384 bytes ends the connection, and the reason is told ; no answer HTTP/2: a frame of more than 16,384 bytes$ ; bigframe
and a header block of more than 8 kB, and one that never ends ; no answer HTTP/2: a header block of more than 8 kB ; bigblock | flood
and one that never ends, in empty pieces                   ; no answer HTTP/2: a header block .* in empty pieces$ ; empty
and a frame within a header block, and a continuation of nothing ; no answer HTTP/2: a header block is interrupted$ ; interleave | lone
and a damaged header block                                 ; no answer HTTP/2: a damaged header block$ ; badhpack
and a push                                                 ; no answer HTTP/2: a push that we have forbidden$ ; push
and data of the connection, a response to what was never asked, more padding than frame
 ; no answer HTTP/2: a damaged frame$ ; zero | even | overpad
and a reset of three bytes                                 ; no answer the server has reset the request \(HTTP/2 error 0\)$ ; shortreset
each is logged once, not with every connection ; saw 6-8 'https: HTTP/2: ' px
after all that it serves as before ; lives px
with another server behind it no name is lost to a header block that never ends, nor takes another with it
 ; dot last good : net=11
 ; proxy px "$ca" "$one 1 https=dns.test" "$last 2 tls=dns.test"
 ; beside h2=flood 'n=12 rate=3' ' right 12 failed 0 lost 0 .* from 11:12$' good 60 window=60000 rate=15 name=n%x.load.test
GOAWAY after every 10 requests: of 500 names with 100 in flight none is lost, and a few are asked twice
 ; single h2=goaway10
 ; answered 10 500 window=100
 ; saw 50-90 '^open' one
a refused request comes again, and is not a failure ; ruled h2=refused3 100 window=20
a reset of a request that is asked elsewhere too by then is no failure ; single 'h2=rst delay=1900'
 ; meanwhile ask ask elsewhere.test
 ; comes one '^query'
 ; turn one delay=600
 ; ended ask '^NOERROR'
100 answers at a time, in many frames, and such whose end comes later ; each 'ruled h2=$it 300 window=100' split late50
a byte at a time ; ruled 'dribble=1 record=20' 5
a server that closes after 10 answers: of 500 names with 100 in flight none fails ; ruled after=10 500 window=100
a server that takes 65,535 bytes and gives no room for more gets its questions over another connection
 ; single h2=nowindow
 ; answered 10 600 window=20
 ; saw 2 '^open' one
 ; saw 0 '^over' one
no more requests at a time than the server allows: 200 names with 50 in flight, 7 allowed ; single 'h2=max7 delay=5'
 ; answered 10 1
 ; answered 10 200 window=50
 ; saw 0 '^over' one
answers of 60,000 bytes, 100 of them: the window of the connection is widened in time ; single
 ; each 'good 10 window=1 name="big=60000.n$it-%x.test" type=TYPE65400 tcp=1' $(seq 10)
 ; saw 0 '^overrun' one
a server that takes no request at all is connected to a few times a second ; single h2=goaway0 'timeout 1500'
 ; says ^SERVFAIL vain.test
 ; saw 4-16 '^open' one
no server takes the room in which the answers of others gather ; dot last good alpn=h2 : net=11 h2=split
 ; dot one good alpn=h2 : h2=late9000
 ; proxy px "$ca" "$one 1 https=dns.test" "$last 2 https=dns.test"
 ; answered 11 900 rate=400
one that takes long is answered, however many others there are meanwhile ; single
 ; beside delay=2500 n=1 ' right 1 ' answered 10 900 window=5 rate=600
requests that a server leaves open do not keep others from being answered ; single h2=max20
 ; beside h2=silent 'n=5 rate=100 timeout=6000' . answered 10 100 in:1500 window=5
where TLS gets no answer HTTPS at the same address answers, at once when that is known ; dot one good alpn=h2
 ; proxy px "$ca" "127.0.0.1@$(freeport) 1 tls=dns.test" "$one 3 https=dns.test"
 ; answered 10 20 in:1500
 ; answered 10 20 in:500
END
}
