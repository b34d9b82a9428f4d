# shellcheck shell=sh disable=SC2034,SC2154
# config.sh - configuration lines, the command line, and the errors they get.
# Alone: ./test.sh config

LEGS="$LEGS config"

# checked TEXT: what -t says of a file with this text, and then its exit status
checked() {
    printf '%b' "$1" >"$T/check.conf"
    "$BIN" -t -c "$T/check.conf" 2>&1
    echo "exit $?"
}

# config_errors: each line TEXT ; LINE of standard input is a promise: LINE in a file is an error, whose message has TEXT.
# A new error is a new line there; one whose words do not matter is a word in the list before it.
config_errors() {
    sed 's/ *; */;/g' >"$T/.rows"
    while IFS=';' read -r row_e row_l; do
        promise "[$row_l] is an error: $row_e"
        checked "9.9.9.9 1\n$row_l\n" >"$T/checked"
        grep -F "check.conf:2: " "$T/checked" | grep -Fq -e "$row_e" || fail "it says: $(cat "$T/checked")"
    done <"$T/.rows"
}

leg_config() {
    up u1
    dead=127.0.0.1@$(freeport)
    promise "a file in the plain format <IP> <priority> works, with comments, blank lines and CRLF, and without a newline at its end"
    out=$(checked '# a comment\n\n1.2.3.4 1\n   // another\n9.9.9.9\t2 # behind\r\n2001:db8::1 3   // and here')
    like '^1\.2\.3\.4(@53)? 1$' "$out"
    like '^9\.9\.9\.9(@53)? 2$' "$out"
    like '^2001:db8::1(@53)? 3$' "$out"
    like '^exit 0$' "$out"
    promise "the defaults are those of the contract, and -t prints every directive that --help names"
    out=$("$BIN" -t '192.0.2.7 1' 2>/dev/null | sed 's/^cache-size 1m$/cache-size 1048576/; s/^listen \*$/listen *@53/')
    same "listen *@53
admin 127.0.0.1@5353
allow 127.0.0.0/8 ::1/128 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 fc00::/7 fe80::/10
rate 0
cache-size 1048576
cache-min-ttl 0
cache-max-ttl 86400
cache-negative 0
serve-stale 0
timeout 5000
patience 1000
queries 1024
tcp-clients 256
user nobody
log info
rebind-protect off
192.0.2.7@53 1" "$out"
    same "$("$BIN" --help | sed -n '/^directives/,$s/^  \([a-z][a-z-]*\) .*/\1/p' | grep -Ev '^(ca-file|hosts|block)$')" \
        "$(printf '%s\n' "$out" | sed -n 's/^\([a-z][a-z-]*\) .*/\1/p')" "directives in --help and in -t"
    same 'hosts /none lan. hosts /none block /dev/null ' "$("$BIN" -t 'block /dev/null' '192.0.2.7 1' 'hosts /none LAN' 'hosts /none' | grep -E '^(hosts|block)' | tr '\n' ' ')"
    like '^ca-file /dev/null$' "$("$BIN" -t '192.0.2.7 1' 'ca-file /dev/null' 2>&1)" "ca-file, which has no default of its own"
    promise "-t prints the longest configuration whole: 32 upstreams with all that they may have"
    awk 'BEGIN { for (i = 0; i < 32; i++) {
        l = "192.0.2." i + 1 "@" 60000 + i " 65535 tls=a-long-name-of-a-server.example"
        for (k = 0; k < 4; k++) l = l " pin=" sprintf("%042d", i * 4 + k) "A="
        for (k = 0; k < 2; k++) { l = l " domain="; for (j = 0; j < 240; j++) l = l (j && j % 60 == 0 ? "." : "") sprintf("%c", 97 + (i + k + j) % 26) }
        print l } }' >"$T/long.conf"
    "$BIN" -t -c "$T/long.conf" 'ca-file /dev/null' >"$T/b.conf" 2>"$T/err"
    "$BIN" -t -c "$T/b.conf" 'ca-file /dev/null' >"$T/c.conf" 2>>"$T/err"
    if grep -q 'ca-file\|/dev/null' "$T/err"; then    # it wants anchors even for this: then without the chain
        sed 's/ tls=[^ ]*/ tls/' "$T/long.conf" >"$T/a.conf"
        "$BIN" -t -c "$T/a.conf" >"$T/b.conf" 2>"$T/err"
        "$BIN" -t -c "$T/b.conf" >"$T/c.conf" 2>>"$T/err"
    fi
    same 32 "$(grep -c '^192\.0\.2\.[0-9]*@.* domain=.* domain=' "$T/b.conf")" "upstreams: $(cut -c 1-200 "$T/err")"
    same "$(cksum <"$T/b.conf")" "$(cksum <"$T/c.conf")" "normal form of the normal form"
    promise "every error is reported, all of them at once, as FILE:LINE: what is wrong, what was expected"
    out=$(checked '1.2.3.4\n1.2.3.4 0\n1.2.3.4 65536\n1.2.3.4 x\n1.2.3.4@0 1\n1.2.3.4@65536 1\n1.2.3 1\n1.2.3.4 1 tcp tls\n1.2.3.4 1 udp\n1.2.3.4 1 pin=AAAA\n1.2.3.4 1 tls pin=AAAA\r\n1.2.3.4 y')
    for n in 1 2 3 4 5 6 7 8 9 10 11 12; do like "^.*check\\.conf:$n: .+, .*expected" "$out" "line $n"; done
    like '^exit 1$' "$out"
    config_errors <<'END'
"soon" is not valid, expected milliseconds        ; timeout soon
"x" is not valid, expected a number, 0 to 1000000 ; rate x
"loud" is not valid, expected error, info or debug ; log loud
"tls" is wrong here, expected only one of tcp,    ; 1.2.3.4 1 tcp tls
pin= and noverify without tls, expected tls       ; 1.2.3.4 1 noverify
"0" is not a priority, expected a number, 1 to 65535 ; 1.2.3.4 0
"maybe" is not valid, expected on or off          ; rebind-protect maybe
END
    promise "a number or name with something wrong far behind is no other number or name: it is right or an error"
    x=$("$BIN" -t '9.9.9.9 1' "allow 10.0.0.0/$(printf '%060d' 8)" 2>&1)
    like '^allow 10\.0\.0\.0/8$|: .*expected' "$x" "/8 behind 59 zeros"
    x=$("$BIN" -t '9.9.9.9 1' 'listen *@000000000000000053' 2>&1)
    like '^listen \*(@53)?$|: .*expected' "$x" "@53 behind 16 zeros"
    for l in '\300.test' '\999.test' '\12.test' '\1'; do
        x=$("$BIN" -t '9.9.9.9 1' "1.2.3.4 1 domain=$l" 2>&1)
        like 'expected' "$x" "domain=$l"
    done
    promise "a suffix that no name can have is an error that says so; a leading dot is dropped"
    for l in '*.lan' '~lan' '/lan/' 'a,b' '"lan"' 'https://lan' 192.168.1.1 10.0.0.0/8 ::1 '\.lan'; do
        like "\"domain=.*\" is wrong here, expected a host name" "$("$BIN" -t '9.9.9.9 1' "1.2.3.4 1 domain=$l" 2>&1)" "$l"
    done
    like ' domain=lan[.]$' "$("$BIN" -t '9.9.9.9 1' '1.2.3.4 1 domain=.Lan' 2>&1)"
    promise "errors of arguments are reported too, and the program does not start"
    out=$("$BIN" '1.2.3.4 0' 'timeout soon' 2>&1)
    same 78 $? "exit status"
    like 'soon' "$out"
    like '0' "$out"
    same 2 "$(printf '%s\n' "$out" | grep -c ':[0-9]*: ')" "errors with a place"
    promise "a file that cannot be read is an error with its name"
    out=$("$BIN" -t -c "$T/nosuch.conf" 2>&1)
    same 1 $? "exit status"
    like 'nosuch\.conf' "$out"
    "$BIN" -t -c "$T" >/dev/null 2>&1
    same 1 $? "a directory: exit status"
    promise "hostile files give errors and nothing else"
    for b in 100 5000 200000; do
        head -c $b /dev/urandom >"$T/random.conf"
        "$BIN" -t -c "$T/random.conf" >/dev/null 2>"$T/err"
        same 1 $? "exit status, $b random bytes"
    done
    awk 'BEGIN { for (i = 0; i < 1000000; i++) printf "x"; print "" }' >"$T/random.conf"
    "$BIN" -t -c "$T/random.conf" >/dev/null 2>"$T/err"
    same 1 $? "exit status, a line of 1,000,000 bytes"
    like 'random\.conf:1: ' "$(cut -c 1-300 "$T/err")"
    printf '9.9.9.9 1\n1.2.3.4\0005 1\n' >"$T/random.conf"
    "$BIN" -t -c "$T/random.conf" >/dev/null 2>"$T/err"
    same 1 $? "exit status, a byte that is 0"
    like 'random\.conf:2: ' "$(cat "$T/err")"
    awk 'BEGIN { for (i = 0; i < 3000; i++) print "1.2.3.4@" i % 60000 + 1, 1 }' >"$T/random.conf"
    "$BIN" -t -c "$T/random.conf" >/dev/null 2>&1
    within 0 1 $? "exit status, 3,000 upstreams"
    promise "arguments are lines too, read after the file"
    echo "$dead 1" >"$T/a.conf"
    out=$("$BIN" -t -c "$T/a.conf" "$u1 2" 'timeout 777' 2>/dev/null)
    like "^$dead 1" "$out"
    like "^$u1 2" "$out"
    like "^timeout 777" "$out"
    promise "with arguments and no -c no file is read"
    unlike '^1\.1\.1\.1' "$("$BIN" -t "$u1 2" 2>/dev/null)"
    promise "the file is used: it serves"
    port=$(freeport) admin=$(freeport)
    printf '%s\n' "$u1 1" "listen 127.0.0.1@$port" "admin 127.0.0.1@$admin" >"$T/a.conf"
    launch p $WRAP "$BIN" -c "$T/a.conf"
    says '^NOERROR' file.test
    promise "what was chosen is logged"
    like 'a\.conf' "$(cat "$T/p.log")"
    stop p
    if [ -e /etc/dns.config ]; then
        promise "environment and built-in default"
        skip "not here: there is an /etc/dns.config"
    else
        promise "without file and arguments the environment counts: TLS_DNS_IP, TLS_DNS_PORT, PROXY_PORT"
        out=$(TLS_DNS_IP=192.0.2.9 TLS_DNS_PORT=8853 PROXY_PORT=5399 "$BIN" -t 2>/dev/null)
        like '^192\.0\.2\.9@8853 1 tls' "$out"
        like '^listen \*@5399$' "$out"
        like '^192\.0\.2\.9(@853)? 1 tls' "$(TLS_DNS_IP=192.0.2.9 "$BIN" -t 2>/dev/null)"
        TLS_DNS_IP=nonsense "$BIN" -t >/dev/null 2>&1
        same 1 $? "exit status with a wrong TLS_DNS_IP"
        TLS_DNS_IP=192.0.2.9 PROXY_PORT=0x "$BIN" -t >/dev/null 2>&1
        same 1 $? "exit status with a wrong PROXY_PORT"
        like '^192\.0\.2\.9(@853)? 1 tls' "$(TLS_DNS_IP=192.0.2.9 TLS_DNS_PORT='' PROXY_PORT='' "$BIN" -t 2>/dev/null)" "TLS_DNS_PORT and PROXY_PORT are empty"
        like '^1\.1\.1\.1(@853)? 1 tls=' "$(TLS_DNS_IP='' "$BIN" -t 2>/dev/null)" "TLS_DNS_IP is empty"
        promise "else the built-in default: 1.1.1.1 and 1.0.0.1 with their names"
        out=$("$BIN" -t 2>/dev/null)
        like '^1\.1\.1\.1(@853)? 1 tls=one\.one\.one\.one$' "$out"
        like '^1\.0\.0\.1(@853)? 2 tls=one\.one\.one\.one$' "$out"
    fi
    promise "-h and -V print to standard output and exit 0"
    for o in -h --help -V --version; do
        out=$("$BIN" $o 2>"$T/err")
        same 0 $? "$o: exit status"
        like '[a-z]' "$out" "$o"
        same '' "$(cat "$T/err")" "$o: standard error"
    done
    promise "an unknown option and a bad -p exit 2"
    for o in -x --nonsense '-p 0' '-p 65536' '-p x' -c; do
        # shellcheck disable=SC2086
        "$BIN" $o </dev/null >/dev/null 2>&1
        same 2 $? "$o: exit status"
    done
    promise "long options are the short ones"
    like "^listen \*@5312|^listen 127" "$("$BIN" --test --port 5312 "$u1 1" 2>/dev/null)"
    same "$("$BIN" -t -c "$T/a.conf" 2>/dev/null)" "$("$BIN" --test --config "$T/a.conf" 2>/dev/null)"
    promise "a port that is taken: exit 1, and the message says which"
    x=${u1#*@}
    out=$("$BIN" "$dead 1" "listen 127.0.0.1@$x" 'admin off' 2>&1)
    same 1 $? "exit status"
    like "$x" "$out"
    if [ "$(id -u)" = 0 ] && proc_here; then
        promise "started as root with a user that does not exist: exit 78, and the message says which"
        out=$("$BIN" "$u1 1" "listen 127.0.0.1@$(freeport)" 'admin off' 'user nosuchuser-xyz' 2>&1)
        same 78 $? "exit status"
        like 'nosuchuser-xyz' "$out"
        promise "started as root it becomes user: nobody, no supplementary groups, no way back"
        proxy p "$u1 1"
        x=$(id -u nobody)
        await 5 runs_as p "$x" || fail "it does not become nobody"
        like "^Uid:	$x	$x	$x	$x\$" "$(cat "/proc/$(pid p)/status")"
        same '' "$(sed -n 's/^Groups:[	 ]*\([0-9 ]*[0-9]\).*/\1/p' "/proc/$(pid p)/status" | tr -d ' ')" "supplementary groups"
        like '^NoNewPrivs:	1$' "$(cat "/proc/$(pid p)/status")"
        like '^CapEff:	0000000000000000$' "$(cat "/proc/$(pid p)/status")"
        x=$(id -g nobody)
        like "^Gid:	$x	$x	$x	$x\$" "$(cat "/proc/$(pid p)/status")"
        says '^NOERROR' user.test
        proxy p "$u1 1" 'user daemon'
        x=$(id -u daemon)
        await 5 runs_as p "$x" || fail "it does not become daemon"
        like "^Uid:	$x	$x	$x	$x\$" "$(cat "/proc/$(pid p)/status")"
        stop p
        promise "a file that only root may read: reload works or says why, and serving goes on"
        chmod 600 "$T/a.conf"
        port=$(freeport) admin=$(freeport)
        printf '%s\n' "$u1 1" "listen 127.0.0.1@$port" "admin 127.0.0.1@$admin" >"$T/a.conf"
        launch p $WRAP "$BIN" -c "$T/a.conf"
        like '^Reloaded$|^error: .*a\.conf|a\.conf.*[Pp]ermission' "$(adm reload)"
        says '^NOERROR' afterreload.test
        stop p
        chmod 644 "$T/a.conf"
    fi
}

# runs_as NAME UID: the program gives up root after it has begun to listen, and the flags of the last step come last
runs_as() { [ "$(awk '/^Uid:/ { u = $5 } /^NoNewPrivs:/ { n = $2 } END { print u, n }' "/proc/$(pid "$1")/status")" = "$2 1" ]; }
