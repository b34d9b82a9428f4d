# config.sh - configuration lines, the command line, the environment, and the errors they get.
# Alone: ./test.sh config
# A new error of a line, with its words, is a row of `replies wrong` below; that a line is an error at all, whatever its words, one
# of "every wrong line is an error" in unit.c.

# checked COMMAND...: what it says, and then its exit status, on one line
checked() { { "$@" 2>&1 </dev/null; echo "exit $?"; } | tr '\n' ' '; }

# wrong LINE: what it says of the line; what it says of the whole, such as "no upstream", has another place
wrong() { "$BIN" -t '9.9.9.9 1' "$1" 2>&1 | tee "$T/wrong" | grep '^argument:2: .*, .*expected' || fail "$1: no error of argument:2 in [$(tail -n 2 "$T/wrong")]"; }

leg_config() {
    up u1
    printf '# a comment\n\n1.2.3.4 1\n   // another\n9.9.9.9\t2 # behind\r\n2001:db8::1 3   // and here' >"$T/plain.conf"
    printf '\357\273\277192.0.2.1 1\n' >"$T/bom.conf"
    printf '9.9.9.9 1\ntimeout soon\nrate x\n# none\n1.2.3.4 0\n' >"$T/check.conf"
    echo "$u1 1" >"$T/a.conf"
    long=$(printf '%060d.%060d.%060d.%056d.' 0 0 0 0 | tr 0 a)
    long="192.0.2.7@60000 65535 tls$(printf ' pin=%042dA=' 1 2 3 4) domain=b$long domain=c$long"
    replies 'checked "$BIN" -t' <<'END'
a file in the plain format <IP> <priority> works, with comments, blank lines and CRLF, and without a newline at its end
 ;  1\.2\.3\.4@53 1 9\.9\.9\.9@53 2 2001:db8::1@53 3 exit 0 $ ; -c "$T/plain.conf"
a mark of byte order is passed over ;  192\.0\.2\.1@53 1 exit 0 $ ; -c "$T/bom.conf"
arguments are lines too, read after the file
 ;  timeout 777 .* 127\.0\.0\.1@.* 1 192\.0\.2\.1@53 2 exit 0 $ ; -c "$T/a.conf" '192.0.2.1 2' 'timeout 777'
with arguments and no -c no file is read ; !1\.1\.1\.1 ; '192.0.2.1 2'
long options are the short ones ; listen (\*@5312|127) ; --test --port 5312 '192.0.2.1 1'
 ;  127\.0\.0\.1@.* 1 exit 0 $ ; --config "$T/a.conf"
a leading dot of a suffix is dropped ; hosts /h lan[.] .* domain=lan[.] exit ; '9.9.9.9 1' '1.2.3.4 1 domain=.Lan' 'hosts /h .lan'
the normal form of https= has the port, and no path that is the usual one
 ;  9\.9\.9\.9@443 3 https=dns\.test exit 0 $ ; '9.9.9.9 3 https=DNS.test.' | '9.9.9.9@443 3 https=dns.test/dns-query'
 ;  9\.9\.9\.9@8443 3 https=dns\.test/q exit 0 $ ; '9.9.9.9@8443 3 https=dns.test/q'
a file that cannot be read is an error with its name ; nosuch\.conf.* exit 1 $ ; -c "$T/nosuch.conf"
 ;  exit 1 $ ; -c "$T"
every error is reported, all of them at once, as FILE:LINE: what is wrong, what was expected
 ; check\.conf:2: [^,]+, expected .*check\.conf:3: [^,]+, expected .*check\.conf:5: [^,]+, expected .* exit 1 $ ; -c "$T/check.conf"
-t prints the longest line whole ; same "$long" "$("$BIN" -t "$long" | tail -n 1)"
END
    replies wrong <<'END'
a wrong line is met by what was expected ; "soon" is not valid, expected milliseconds ; 'timeout soon'
 ; "loud" is not valid, expected error, info or debug ; 'log loud'
 ; "tls" is wrong here, expected only one of tcp, tls, tls=NAME and https=NAME ; '1.2.3.4 1 tcp tls' | '192.0.2.1 3 https=dns.test tls'
 ; pin= and noverify without tls, expected tls ; '1.2.3.4 1 noverify'
 ; both noverify and pin=, expected only one of them ; "1.2.3.4 1 tls noverify pin=$(printf %042dA= 1)"
 ; "0" is not a priority, expected a number, 1 to 65535 ; '1.2.3.4 0'
 ; "maybe" is not valid, expected on or off ; 'rebind-protect maybe'
 ; "1\.1\.1\.1" has no priority, expected "1\.1\.1\.1 1" ; '1.1.1.1 # no priority'
 ; a port from 1 to 65535 ; '1.1.1.1@99999 1'
 ; a host name behind tls= or https= ; '192.0.2.1 3 https=' | '192.0.2.1 3 https=https://dns.test/q'
 ; tls alone for a certificate of the address ; '192.0.2.1 3 https=192.0.2.1' | '1.2.3.4 1 tls=127.0.0.1'
 ; a path of at most 127 letters behind https=NAME ; '192.0.2.1 3 https=dns.test/"q"'
 ; tcp, tls, tls=NAME ; '192.0.2.1 3 https'
 ; an address of this host \(fe80::1%eth0\), or \* with "allow" ; 'listen eth0' | 'listen fe80::1'
 ; with %interface if ; 'fe80::1 1'
 ; \*@5300 ; 'listen 5300' | 'listen *:5300'
what is right for hosts, dnsmasq, resolv.conf or unbound is met by what to write here ; expected .*192\.0\.2\.1@53 ; '1.1.1.1:53 1'
 ; expected a port behind '@' ; '1.1.1.1#5353 1'
 ; without brackets ; '[::1]@53 1'
 ; tls=NAME ; 'tls://1.1.1.1'
 ; https=NAME and no scheme ; 'https://dns.google/dns-query'
 ; , https=NAME ; '1.1.1.1 1 https://dns.google/dns-query'
 ; a blank and no '=' ; 'listen-address=127.0.0.1 # as in dnsmasq'
 ; name behind tls= ; '1.1.1.1@853#name 1'
 ; ADDRESS PRIORITY ; 'server=1.1.1.1' | 'nameserver 1.1.1.1' | 'forward-addr: 1.1.1.1'
 ; an IP address, for nobody .* resolve ; 'dns.quad9.net 1 tls'
 ; not a priority ; '1.1.1.1 tls=one.one.one.one'
 ; not a priority, .*file of hosts ; '192.168.1.20 nas.lan'
 ; expected listen ADDRESS ; 'interface: 0.0.0.0'
 ; expected block PATH ; '||ads.test^'
what may never end is no file ; not a file ; "hosts $T" | 'hosts /dev/zero'
END
    replies <<'END'
a suffix that no name can have is an error that says so
 ; each no_suffix '*.lan' '~lan' '/lan/' 'a,b' '"lan"' https://lan 192.168.1.1. 192.168 10 10.0.0.0/8 ::1 '\.lan'
hostile files give errors and nothing else ; copies 1000000 x >"$T/random.conf"
 ; exits 1 'random\.conf:1: ' -t -c "$T/random.conf"
 ; printf '9.9.9.9 1\n1.2.3.4\0005 1\n' >"$T/random.conf"
 ; exits 1 'random\.conf:2: ' -t -c "$T/random.conf"
-h and -V print to standard output and exit 0
 ; each 'exits 0 "[a-z]" $it && same "" "$("$BIN" $it 2>&1 >/dev/null)" "$it: standard error"' -h --help -V --version
the file is used: it serves, and what was chosen is logged ; proxy p -c "$T/a.conf"
 ; ^NOERROR ; file.test
 ; comes p 'a\.conf'
a mistake in more than one argument is met by what to write instead
 ; exits 1 'one word, expected .*in quotes, a command behind -a' -t 9.9.9.9 1 tls
 ; exits 1 'one word, expected .*in quotes' -a query www.example.com
 ; exits 1 'one word, expected .*behind -c' -t /etc/dns.config
 ; exits 0 'warning: .*192\.0\.2\.1@853 .*"tls" missing' -t '192.0.2.1@853 1'
 ; exits 1 'argument:2: listen: .*no other line has' -t 'listen *@5300' 'listen 127.0.0.1@5300' '1.1.1.1 1'
 ; exits 1 'admin .* is a listen address too' -t 'listen *@5300' 'admin 127.0.0.1@5300' '1.1.1.1 1'
 ; exits 1 'cache-min-ttl above cache-max-ttl, expected' -t 'cache-min-ttl 100000' '1.1.1.1 1'
 ; exits 1 '^argument:1: user nosuchuser-xyz: ' -t 'user nosuchuser-xyz' '1.1.1.1 1'
 ; exits 1 '^argument:1: ca-file /none/at/all: No such file.*ca-certificates' -t 'ca-file /none/at/all' '1.1.1.1 1' '1.0.0.1 1 tls=a.test'
an unknown option is one line, which says where help is, and exit 2, as for a bad -p
 ; each 'exits 2 "is not a port" -p $it' 0 65536 x
 ; each 'exits 2 "$it.*--help" $it && same 1 "$(printf "%s\n" "$out" | grep -c .)" "lines, $it"' -x --nonsense -c
-a with a configuration that cannot be read says so, with a broken one it goes on ; proxy p "$u1 1"
 ; printf '%s\n' nonsense "admin 127.0.0.1@$admin" >"$T/broken.conf"
 ; exits 1 "^$T/none\.conf: cannot be read" -c "$T/none.conf" -a status
 ; exits 0 '^dnsproxy ' -c "$T/broken.conf" -a status
the start says where it serves, whom it asks, and which address is not there yet
 ; proxy q "listen 127.0.0.1@$(freeport)" 'listen 192.0.2.77@53530' '192.0.2.1@853 7' '127.0.0.1 2 tcp domain=x.test'
 ; each 'saw 1 "^$it" q' "serving on 127\.0\.0\.1@$port" 'serving on 192\.0\.2\.77@53530: this host does not have that address yet'
 ; each 'saw 1 "^$it" q' 'asking 192\.0\.2\.1@853 udp, priority 7' 'asking 127\.0\.0\.1@53 tcp, priority 2'
 ; comes q '^warning: .*192\.0\.2\.1@853 .*"tls" missing'
a port that is taken, and one that may not be bound: exit 1, which it is, and what to do
 ; exits 1 "listen 127\.0\.0\.1@$port.*systemd-resolved.*dnsmasq" "listen 127.0.0.1@$port" 'admin off' "$u1 1"
 ; exits 1 "admin 127\.0\.0\.1@$port: .*an admin line of its own" "listen 127.0.0.1@$(freeport)" "admin 127.0.0.1@$port" "$u1 1"
 ; [ "$(id -u)" != 0 ] || ! have setpriv || may_not_bind
five descriptors are too few, and a system without randomness is none, and that is told
 ; ! plain || like 'too few descriptors' "$(sh -c 'ulimit -n 5 && exec "$0" "$1"' "$BIN" "$u1 1" 2>&1)"
 ; ! shim NO_RANDOM || like 'no randomness' "$(LD_PRELOAD=$T/shim.so "$BIN" "$u1 1" 2>&1)"
a wrong configuration ends with 78, and -t with 1, errors of arguments have their place
 ; each 'exits 78 . "$u1 1" "$it" && exits 1 . -t "$u1 1" "$it"' 'user nosuchuser-xyz' 'timeout x' 'block /none/at/all' "-c$T/none.conf"
 ; exits 78 '^argument:1: .*"0"' '1.2.3.4 0' 'timeout soon'
 ; like '^argument:2: .*"soon"' "$out"
where the journal reads standard error, lines begin with their level ; : >"$T/journal"
 ; JOURNAL_STREAM=$(stat -Lc %d:%i "$T/journal") "$BIN" '192.0.2.1 x' 2>"$T/journal"
 ; like '^<3>argument:1: ' "$(cat "$T/journal")"
 ; like '^argument:1: ' "$(JOURNAL_STREAM=1:1 "$BIN" '192.0.2.1 x' 2>&1)"
started as root it becomes user: nobody, no supplementary groups, no way back, and its tables have no huge pages
 ; [ "$(id -u)" = 0 ] && proc_here || skip "not here: not root, or no /proc"
 ; each becomes_user daemon nobody
 ; u=$(id -u nobody) g=$(id -g nobody) x=$(cat "/proc/$(pid p)/status")
 ; each 'like "^$it\$" "$x"' "Uid:	$u	$u	$u	$u" "Gid:	$g	$g	$g	$g" 'Groups:[	 ]*' 'NoNewPrivs:	1' 'CapEff:	0000000000000000' 'THP_enabled:	0'
a file that only root may read: reload works or says why, and serving goes on ; [ "$(id -u)" = 0 ] || skip 'not here: not root'
 ; chmod 600 "$T/a.conf"
 ; proxy p -c "$T/a.conf"
 ; like '^Reloaded$|^error: .*a\.conf|a\.conf.*[Pp]ermission' "$(adm reload)"
 ; ^NOERROR ; afterreload.test
END
    [ ! -e /etc/dns.config ] || { promise 'environment and built-in default'; skip 'not here: there is an /etc/dns.config'; return; }
    replies with <<'END'
without file and arguments the environment counts: TLS_DNS_IP, TLS_DNS_PORT, PROXY_PORT
 ; ^listen \*@5399 .* 192\.0\.2\.9@8853 1 tls ; TLS_DNS_IP=192.0.2.9 TLS_DNS_PORT=8853 PROXY_PORT=5399
 ;  192\.0\.2\.9(@853)? 1 tls ; TLS_DNS_IP=192.0.2.9 | TLS_DNS_IP=192.0.2.9 TLS_DNS_PORT= PROXY_PORT=
 ;  1\.1\.1\.1(@853)? 1 tls= ; TLS_DNS_IP=
the variable with an error is named, and PROXY_PORT counts without TLS_DNS_IP
 ; ^environment:TLS_DNS_IP: "dns\.quad9\.net.* exit 1 $ ; TLS_DNS_IP=dns.quad9.net
 ; ^environment:PROXY_PORT: .* exit 1 $ ; PROXY_PORT=x | PROXY_PORT=0x TLS_DNS_IP=192.0.2.9
 ; ^listen \*@5300 ; PROXY_PORT=5300
else the built-in default: 1.1.1.1 and 1.0.0.1 with their names
 ;  1\.1\.1\.1(@853)? 1 tls=one\.one\.one\.one 1\.0\.0\.1(@853)? 2 tls=one\.one\.one\.one exit 0 $ ; LC_ALL=C
END
    [ "$(id -u)" != 0 ] || like '^built-in default: ca-file /etc/ssl/.*ca-certificates' "$(unshare -m sh -c 'mount -t tmpfs none /etc/ssl && "$0"' "$BIN" 2>&1)"
}
becomes_user() {
    proxy p "$u1 1" "user $it"
    await 5 runs_as p "$(id -u "$it")" || fail "it does not become $it"
    says '^NOERROR' "user$it.test"
}
no_suffix() { exits 1 '"domain=.*" is wrong here, expected a host name' -t '9.9.9.9 1' "1.2.3.4 1 domain=$it"; }

# runs_as NAME UID: the program gives up root after it has begun to listen, and the flags of the last step come last
runs_as() { [ "$(awk '/^Uid:/ { u = $5 } /^NoNewPrivs:/ { n = $2 } END { print u, n }' "/proc/$(pid "$1")/status")" = "$2 1" ]; }

# with NAME=VALUE...: as checked, with these variables and without arguments
with() { checked env "$@" "$BIN" -t; }
may_not_bind() {
    like 'Permission denied.*CAP_NET_BIND_SERVICE' "$(setpriv --reuid=65534 --clear-groups --bounding-set=-all --inh-caps=-all \
        "$BIN" 'listen 127.0.0.1@99' 'admin off' "$u1 1" 2>&1)"
}
