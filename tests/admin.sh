# admin.sh - the admin port: commands, status, query, top, metrics.
# Alone: ./test.sh admin

# raw WORD...: a scripted connection to the admin port
# scrape HOST, metrics: GET /metrics from there, from localhost;  metric NAME: the value there of a counter, or of NAME{LABELS}
raw() { peer talk 127.0.0.1 "$admin" "$@"; }
scrape() { raw "text=GET /metrics HTTP/1.1\r\nHost: $1\r\nUser-Agent: test\r\n\r\n" slurp=5000; }
metrics() { scrape localhost; }
metric() { metrics | sed -n "s/^dnsproxy_$1\(_total\)\{0,1\} //p"; }

leg_admin() {
    ups u1 u2
    proxy p "$u2 7 tcp" "$u1 3" 'cache-size 200k'
    n='[0-9]+'
    replies raw <<'END'
status: the records are those of the contract, and the fields of an upstream and an entry ; asks st.test St.TEST
 ; same "dnsproxy $u1 $u2 cache entry" "$(adm status | awk '{ print $1 == "upstream" ? $2 : $1 }' | paste -s -d ' ')" records
 ; shows "^upstream $u1 udp priority 3 state up rtt_ms [0-9.]+ sent $n answered $n won $n failed $n\$"
 ; shows "^upstream $u2 tcp priority 7 state up rtt_ms [0-9.]+ sent $n answered $n won $n failed $n connects $n resumed $n\$"
 ; shows "^entry st\.test\. A IN expires 20[0-9-]{8}T[0-9:]{8}Z remaining (300|29[0-9]) upstream $u1\$"
status: queries are hits, misses and others, upstreams count sent, answered, won
 ; same '2 1 1' "$(count queries) $(count hits) $(count misses)" 'queries, hits, misses'
 ; same '1 1 1 0' "$(upstream "$u1" sent) $(upstream "$u1" answered) $(upstream "$u1" won) $(upstream "$u2" won)" 'sent, answered, won'
a line may end with LF or CRLF ; ^dnsproxy ; 'text=status\r\n' slurp=3000
clear NAME drops every type of NAME, without case, and nothing else ; each 'ask $it >/dev/null' one.test 'one.test AAAA' 'one.test +do' one.test.st.test
 ; same 'Cache cleared (3 entries)' "$(adm 'clear ONE.test')"
 ; same 'Cache cleared (0 entries)' "$(adm 'clear one.test.')"
 ; shows 2 '^entry (one\.test\.)?st\.test'
clear empties the cache ; same "Cache cleared ($(count entries cache) entries)" "$(adm clear)"
 ; same 0 "$(count entries cache)" entries
log LEVEL changes what is logged ; each 'same "Log level $it" "$(adm "log $it")"' error debug
 ; asks debugged.test
 ; comes p 'debugged\.test'
only the first line of a connection is read ; asks keep.test
 ; ^clear ; 'text=help\nclear\nclear\n' slurp=3000
 ; shows '^entry keep\.test'
what is longer than 512 bytes, at whatever pace it comes, and bytes that are 0 end the connection, and nothing runs
 ; (EOF|RESET) ms=[0-9]{1,4} ; fill=600 send end=4000 | fill=400 send pause=50 fill=200 send end=4000
 ; (EOF|RESET) ms=[0-9]+ ; fill=10000000 send end=4000 | hex=160301020001 fill=600 send end=7000 | hex=0000000000636c6561720a send end=7000
 ; shows '^entry keep\.test'
/metrics wants a Host that is an IP address or localhost
 ; each 'like "^HTTP/1\.[01] 200" "$(scrape "$it")"' localhost 127.0.0.1 "127.0.0.1:$admin" '[::1]:5353' "localhost:$admin"
 ; each 'like "^(HTTP/1\.[01] [345]|\$)" "$(scrape "$it")"' evil.example 127.0.0.1.evil.example "localhost.evil.example:$admin" a 1.2.3.4x 'a\\r\\nHost: localhost'
admin clients that stay silent are closed after 5 s, and do not keep others out ; hold hold "$admin" 300
 ; within 200 310 "$(metric full)" "times that a table made room, in the metrics"
 ; says '^NOERROR' beside.test
 ; await 9 sees hold 'open 0$' || fail "still $(tail -n 1 "$T/hold.log")"
a slow reader of a long status does not stop the service ; many n=2000 window=100 name=long%d.test >/dev/null
 ; meanwhile slow raw rcvbuf=2048 'text=status\n' pause=1500 end=5000
 ; good 200 in:500 window=10 name=meanwhile%d.test
 ; shows '^dnsproxy '
 ; ended slow
-a COMMAND is a client: reply to standard output, exit 0, or 1 on error, without a reply or without connection
 ; exits 0 '^dnsproxy ' -a status "$u1 1" "admin 127.0.0.1@$admin"
 ; exits 1 'no whole reply' -a "clear $(printf %0600d 1)" "admin 127.0.0.1@$admin"
 ; exits 1 'error: ' --admin nonsense "$u1 1" "admin 127.0.0.1@$admin"
 ; stop p
 ; exits 1 . -a status "$u1 1" "admin 127.0.0.1@$admin"
admin off: there is no admin port ; proxy p "$u1 1" 'admin off'
 ; says '^NOERROR' off.test
END
    dead=127.0.0.1@$(freeport)
    proxy p "$u1 1" "$u2 2 tcp" "$dead 3" 'patience 300' 'timeout 1000'
    replies adm <<'END'
query asks every upstream that applies, past the cache: a line each, and who won ; asks 1nxdomain=.q.test
 ; out=$(adm 'query 1nxdomain=.q.test A')
 ; like "^upstream $u1 udp priority 1 NXDOMAIN answers 0 ms [0-9.]+\$" "$out"
 ; like "^upstream $u2 tcp priority 2 NOERROR answers 1 ms [0-9.]+ won\$" "$out"
 ; like "^upstream $dead udp priority 3 no answer.*[a-z]" "$out"
 ; same 4 "$(printf '%s\n' "$out" | grep -c .)" 'lines, with one record'
 ; saw 2-9 ' 1nxdomain=\.q\.test\. ' u1
query without a type asks for A ; ^upstream .* priority 1 NOERROR answers 2 ms [0-9.]+ won$ ; 'query n=2.q2.test'
query says why an upstream has no answer ; ^upstream .* priority 1 no answer.*(time|silent|no reply) ; 'query 1silent=.q3.test AAAA'
 ; ^upstream .* priority 1 (no answer.*)?malformed ; 'query 1bad=loop.q4.test'
query with a name of 300 octets is an error ; ^error: ; "query $(printf '%0300d' 0)"
top tells the most asked names and the clients that ask most ; each 'many n=150 window=20 name=popular.test type=$it >/dev/null' A AAAA
 ; many n=100 window=20 name=second.test src=127.0.0.7 >/dev/null
 ; many n=300 window=20 name=rare%d.test src=127.0.0.8 >/dev/null
 ; out=$(adm top)
 ; each 'like "$it\$" "$out"' 'popular\.test\. .* 300' 'second\.test\. .* 100' '127\.0\.0\.8 .* 300' '127\.0\.0\.7 .* 100'
 ; within 2 24 "$(printf '%s\n' "$out" | wc -l)" "lines, ten of each at most"
hostile names are escaped there, and in status ; many n=500 window=20 'name=Evil\010top\027.\.test' >/dev/null
 ; evil\\010top\\027\.\\\.test\. ; top | status
 ; same 0 "$(adm top | grep -c '[^ -~]')" "lines with other than printable ASCII"
GET /metrics is an HTTP response with the type of the text format ; proxy p "$u1 1" "$u2 2 tcp"
 ; each 'many n=40 window=4 name=m%d.test >/dev/null' 1 2
 ; ask 1silent=.2silent=.t.test +timeout=300 >/dev/null
 ; metrics | tr -d '\r' | sed '/^$/q' >"$T/head"
 ; like '^HTTP/1\.[01] 200 ' "$(sed -n 1p "$T/head")"
 ; like '^[Cc]ontent-[Tt]ype: text/plain. version=0\.0\.4' "$(cat "$T/head")"
every counter of status is there, with its value: queries and their kinds, the cache's and each upstream's
 ; await 5 numbers_agree || fail "$(cat "$T/differ")"
 ; within 24 24 "$(wc -l <"$T/status")" numbers
 ; same '1 1' "$(metric 'upstream_up{.*}' | paste -s -d ' ')" up
every metric has HELP and TYPE, and a value that is a number
 ; same '' "$(awk '/^#/ { has[$3] = has[$3] $2 } !/^#/ { sub(/(_(bucket|sum|count))?[{ ].*/, "") } !/^#/ && has[$0] != "HELPTYPE"' "$T/metrics")" without
 ; same 0 "$(grep -v '^#' "$T/metrics" | grep -Evc '^[a-z_]+(\{[^}]*\})? [0-9.e+-]+$')" "lines of another shape"
a histogram counts what it should: clients' queries, an upstream's answers
 ; same "$(upstream "$u1" answered)" "$(metric "upstream_seconds_count{upstream=\"$u1\".*}")" "of u1"
 ; each 'within 80 81 "$(metric "query_seconds_$it")" "of clients, $it"' count 'bucket{le="5"}'
promtool finds nothing wrong ; have promtool || skip "not here: no promtool"         # its package is another in each Debian
 ; ! have promtool || same '' "$(promtool check metrics <"$T/metrics" 2>&1 || echo "exit status $?")" "what it says"
END
}

# numbers_agree: status and /metrics, read one after the other, say the same; $T/differ has what only status says
numbers_agree() {
    metrics | tr -d '\r' | sed '1,/^$/d' >"$T/metrics"
    sed 's/_total\([ {]\)/\1/; s/size_bytes/size/; s/tcp_clients/tcp/
        s/^dnsproxy_\([a-z_]*\){upstream="\([^"]*\)".*} /\2 \1 /; s/^dnsproxy_/all /' "$T/metrics" >"$T/served"
    adm status | awk '/^(dnsproxy|cache|upstream) / {
        for (i = 2; i < NF; i++) if ($i ~ /^[a-z]+$/ && $i !~ /uptime|priority/ && $(i + 1) ~ /^[0-9]+$/)
            print $1 == "upstream" ? $2 : "all", ($1 == "dnsproxy" ? "" : $1 "_") $i, $(i + 1) }' >"$T/status"
    grep -vxFf "$T/served" "$T/status" >"$T/differ"
    [ ! -s "$T/differ" ]
}
