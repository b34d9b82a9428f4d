# house.sh - names of the house, and block lists.
# Alone: ./test.sh hosts records house unitfile

# here NAME ERE [TYPE]: after a query and at most five seconds the reply matches
here() { await 5 hears "$2" "$1" "${3:-A}" || fail "$1 ${3:-A}: wanted /$2/, got [$(ask "$1" "${3:-A}")]"; }

leg_hosts() {
    up u1 '. aa nodata'
    cat >"$T/hosts" <<'END'
# of the house
127.0.0.1	localhost
192.168.1.5	Printer  nas.home# two names
fd00::5		printer
no address here
192.168.1.6
fe80::7%eth0	scoped.home
END
    printf '192.168.1.9 bad..name good.home\n192.168.1.10 dr\303\274cker xn--drcker-3ya\n192.168.1.11 tv.lan tv\n' >>"$T/hosts"
    cat >"$T/leases" <<'END'
1999999999 aa:bb:cc:dd:ee:01 192.168.1.77 laptop 01:aa:bb:cc:dd:ee:01
0 aa:bb:cc:dd:ee:02 192.168.1.78 forever *
1000 aa:bb:cc:dd:ee:03 192.168.1.79 gone *
1999999999 aa:bb:cc:dd:ee:04 192.168.1.80 * *
duid 00:01:00:01:2b:aa
1999999999 12345 fd00::77 laptop 00:01
1999999999 aa:bb:cc:dd:ee:05 192.168.1.11 tv.lan *
END
    echo '192.168.1.8 localhost.' >"$T/own"
    i=$(printf 'x%.0s.' 1 2 3 4 5 6 7 8 9 10)
    {
        printf '# a list\r\n! a remark\r\n[head]\r\n\r\nads.test\r\n||TRACK.test^\r\n@@||good.track.test^\r\nworse.good.track.test # remark\r\n'
        printf '0.0.0.0 localhost two.test three.test\n127.0.0.1 four.test\n:: five.test\n::1 six.test\nxn--bcher-kva.test\n'
        printf '%sdeep.test\n192.168.1.1 not.test\nbad##name\n*.star.test\n||opt.test^$third-party\nlabel\n@@||five.test^\nm\303\274ll.test\n||m\303\274ll.test^\n' "$i"
    } >"$T/list"
    awk 'BEGIN { for (i = 0; i < 1000000; i++) printf "%s%d.%c%d.example\n", i % 3 ? "ads" : "t", i, 97 + i % 26, i % 977 }' >"$T/million"
    proxy p "$u1 1" "hosts $T/hosts lan" "hosts $T/leases home.arpa" "hosts $T/later" 'cache-negative 60'
    replies <<'END'
a name of the file is answered here: A, AAAA, with the TTL of 60, whatever its case ; ^NOERROR qr aa .*\| [^ ]* 60 A 192\.168\.1\.5( \||$) ; printer
 ; 60 AAAA fd00::5 ; PRINTER AAAA
 ; A 192\.168\.1\.5 ; nas.home
with SUFFIX a name without a dot is also known with it, and one with a dot is not ; A 192\.168\.1\.5 ; printer.lan
 ; A 192\.168\.1\.77 ; laptop.home.arpa
 ; AAAA fd00::77 ; laptop.home.arpa AAAA
 ; ! A 192 ; nas.home.lan
an address that is found twice is answered once ; ^NOERROR [^|]*\| [^|]*A 192\.168\.1\.11$ ; tv.lan
PTR gives the first name of the line, with SUFFIX where it has no dot ; PTR printer\.lan ; 5.1.168.192.in-addr.arpa PTR
 ; PTR laptop\.home\.arpa ; 7.7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa PTR
other types of such a name are NODATA, and no upstream is asked ; ^NOERROR qr aa .*answers=0|^NOERROR qr aa [^|]*$ ; printer TXT
 ; ^NOERROR [^|]*$ ; nas.home AAAA | 5.1.168.192.in-addr.arpa A
a lease that is over counts no more, one of 0 is for ever, and one without a name has none ; A 192\.168\.1\.78 ; forever
 ; ! A 192 ; gone
a name is its bytes: an international one is found in the form in which it stands there
 ; A 192\.168\.1\.10 ; xn--drcker-3ya.lan | 'dr\195\188cker'
 ; saw 0 ' (printer|laptop|nas\.home|forever)\. [A-Z]' u1
a broken line is counted and logged once with FILE:LINE, the others count ; saw 1 'hosts:5: .*expected .*3 such lines' p
 ; A 192\.168\.1\.9 ; good.home
 ; AAAA fe80::7 ; scoped.home AAAA
a domain= does not come before hosts, and hosts come before special names
 ; proxy p "$u1 1 domain=lan" "hosts $T/hosts lan" "hosts $T/own"
 ; A 192\.168\.1\.5 ; printer.lan
 ; A 127\.0\.0\.1 ; localhost
 ; A 192\.168\.1\.8 ; localhost
a file that comes, changes and goes is noticed within five seconds of a query ; proxy p "$u1 1" "hosts $T/later lan"
 ; same 0 "$(count names hosts)" 'names before there is a file'
 ; each 'echo "10.1.1.$it new" >"$T/later" && here new.lan "A 10\.1\.1\.$it"' 1 2
 ; rm "$T/later"
 ; here new.lan '^NOERROR [^|]*$'
a file that is being written is never half read
 ; each 'echo "10.1.1.$it n$it" && ask "n$it.lan" >/dev/null && sleep 0.3' 1 2 3 4 5 6 7 8 9 >"$T/later"
 ; await 8 is 18 count names hosts || fail "$(adm status | grep hosts)"
 ; same 18 "$(sed -n 's/^hosts: \([0-9]*\) names$/\1/p' "$T/p.log" | sort -un | grep -v '^[02]$')" 'sizes that it has read'
a file that cannot be read is told, and the names stay until it can ; echo 10.2.2.2 n1 >"$T/new" && chmod 0 "$T/new" && mv "$T/new" "$T/later"
 ; here n1.lan 'A 10\.1\.1\.1'
 ; comes p 'hosts .*later: cannot be read: Permission'
 ; A 10\.1\.1\.9 ; n9.lan
 ; chmod 644 "$T/later" && here n1.lan 'A 10\.2\.2\.2'
5,000 names cost at most 100 bytes each ; plain && proc_here || skip "not here: its memory is not its own"
 ; seq 5000 | awk '{ printf "10.7.%d.%d host-%d\n", $1 / 256, $1 % 256, $1 }' >"$T/many"
 ; proxy p "$u1 1"
 ; kb=$(rss_kb p)
 ; proxy p "$u1 1" "hosts $T/many"
 ; A 10\.7\. ; host-4999
 ; grew 488 "$kb" p
a blocked name gets 0.0.0.0 and ::, and the Extended DNS Error 15 ; rules u1 '. a=192.0.2.99'
 ; proxy p "$u1 1" "block $T/list" 'cache-size 64k'
 ; ^NOERROR qr aa .*\| [^ ]* 60 A 0\.0\.0\.0 ; ads.test
 ; 60 AAAA ::( |$) ; ads.test AAAA
 ; ede=15 ; ads.test +edns
other types of it are NODATA with that error ; ^NOERROR qr aa .*ede=15[^|]*$ ; ads.test MX +edns
so do all names below it, however deep, and names beside it do not ; A 0\.0\.0\.0 ; a.b.c.ads.test
 ; A 0\.0\.0\.0 ; x.x.x.x.x.x.x.x.x.x.deep.test | y.x.x.x.x.x.x.x.x.x.x.deep.test
 ; A 192\.0\.2\.99 ; x.x.x.x.x.x.x.x.x.deep.test | badads.test
upper case, CRLF, remarks and the forms of hosts(5) and of rules are understood ; A 0\.0\.0\.0 ; Track.Test
 ; A 0\.0\.0\.0 ; three.test | four.test | six.test | xn--bcher-kva.test | label
an exception lets a name and what is below it through, and the closest name decides ; A 0\.0\.0\.0 ; worse.good.track.test
 ; A 192\.0\.2\.99 ; good.track.test | very.good.track.test | five.test
names of one label in hosts(5) form, other addresses, raw UTF-8 and other forms block nothing ; A 127\.0\.0\.1 ; localhost
 ; A 192\.0\.2\.99 ; not.test | a.star.test | opt.test | 'm\195\188ll.test'
 ; saw 1 'list:15: .*expected a name.*6 such lines' p
status, top and metrics count ; shows "^block .*names 12 "
 ; same 14 "$(count hits block)" hits
 ; like '^name ads\.test\. queries 4$' "$(adm top)"
 ; same "$(count hits block)" "$(metric block_hits)" 'hits in /metrics'
a reload reads a million names while the old list serves, and no turn of the loop takes more than 20 ms of the processor
 ; cp "$T/list" "$T/lists"
 ; printf '%s\n' "$u1 1" "block $T/lists" 'cache-max-ttl 600' >"$T/p.conf"
 ; start=proxy
 ; ! (shim TURNS) || start=shimmed
 ; $start p -c "$T/p.conf"
 ; ^NOERROR ; hit.test
 ; kb=$(rss_kb p) vm=$(awk '/^VmSize/ { print $2 }' "/proc/$(pid p)/status")
 ; cat "$T/list" "$T/million" >"$T/lists"
 ; meanwhile asker many n=4000 rate=1000 window=1000 name=hit.test timeout=5000
 ; like '^Reloaded' "$(adm reload)"
 ; A 0\.0\.0\.0 ; ads.test
 ; await 60 is 1000012 count names block || fail "$(adm status | grep block)"
 ; ended asker ' noerror 4000 '
 ; [ ! -s "$T/shim" ] || within 1 20000 "$(shim_count)" 'microseconds at most'
 ; A 0\.0\.0\.0 ; below.ads1.b1.example
 ; A 192\.0\.2\.99 ; ads1.b2.example
a million names cost 10 bytes each at most ; plain && proc_here || skip "not here: its memory is not its own"
 ; within 5000 9766 $(($(rss_kb p) - kb)) 'KiB for a million names'
a reload without memory for a list is told, and the old list stays ; plain && proc_here || skip "not here: its memory is not its own"
 ; cp "$T/list" "$T/lists"
 ; after "ulimit -v $((vm + 4000))" p -c "$T/p.conf"
 ; cp "$T/million" "$T/lists"
 ; like '^Reloaded' "$(adm reload)"
 ; comes p 'block: not enough memory'
 ; A 0\.0\.0\.0 ; ads.test
a reload of a list that cannot be read is an error, and the old list stays ; rm "$T/lists"
 ; like '^error: .*p\.conf:2: block: .*can be read' "$(adm reload)"
 ; mkfifo "$T/lists"
 ; like '^error: .*p\.conf:2: block: .*not a file' "$(adm reload)"
 ; A 0\.0\.0\.0 ; ads.test
END
}

leg_records() {
    promise "query shows the records as dig prints them"
    needs nsd dig ldns-signzone || return
    zone test
    printf '%s\n' 'c.test. 300 CNAME Www.Test.' 'p.test. 300 PTR w\.x.test.' 'e.test. 300 TYPE65280 \# 0' 'x.test. 300 MX 1 Mail.x\000.test.' \
        'd.test. 300 DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D' \
        't.test. 300 TXT "v=spf1 -all; x" "qu\"o\\te" "\195\188"' | tee "$T/more" >>"$T/test.zone"
    x=$(freeport)
    real server nsd "$x"
    proxy p "127.0.0.1@$x 1" "127.0.0.1@$x 2 tcp"
    # not what dig has words for and the program has not, not what is asked in other letters, and not what is not there
    { questions test | grep -Ev ' (NAPTR|HTTPS|DNAME|DNSKEY)|^(deep|WwW|nothing)|^www.* MX'; cut -d ' ' -f 1,3 "$T/more"; } >"$T/questions"
    within 25 40 "$(wc -l <"$T/questions")" questions
    while read -r q; do
        like_dig=$(dig +noall +answer @127.0.0.1 -p "$x" $q | tr -s '\t ' ' ')
        same "$like_dig
$like_dig" "$(adm "query $q" | sed -n 's/^  //p' | tr -s '\t ' ' ')" "$q"
    done <"$T/questions"
    replies <<'END'
query is never cut, however long the records are ; up u1 '. tc rdlen=60000'
 ; up u2 '. tc n=2000'
 ; proxy p "$u1 1" "$u2 2"
 ; out=$(adm 'query long.test TXT')
 ; like "^upstream $u2 udp priority 2 NOERROR answers 2000 ms [0-9]*\$" "$out"
 ; same 2001 "$(printf '%s\n' "$out" | grep -c '^  long\.test\.	')" records
 ; within 60000 300000 "$(printf '%s\n' "$out" | grep '^  ' | wc -L)" 'the longest line'
END
}

leg_house() {
    promise "a house: dnsmasq with port=0 gives addresses, and names are known seconds after the lease (the README's recipe)"
    needs ip dnsmasq busybox && netns || return
    netns_new client
    client="nsenter -t $(pid client) -n"
    ns ip link add lan type veth peer name e0 netns "$(pid client)"
    ns ip addr add 192.168.1.1/24 dev lan
    ns ip link set lan up
    $client ip link set e0 up
    readme dnsmasq | sed "s|/var/lib/misc|$T|" >"$T/dnsmasq.conf"
    begin dhcp dnsmasq -k -C "$T/dnsmasq.conf" --pid-file= --user=root --log-facility=- --no-ping
    up u1 '. nxdomain'
    echo 'ads.test' >"$T/list"
    echo '192.168.1.1 router' >"$T/etc-hosts"
    readme 'config house' | sed "s|/var/lib/misc|$T|; s|/etc/hosts|$T/etc-hosts|; s|/etc/dnsproxy.block|$T/list|; s|^9\.9.*|$u1 1|; /^149/d" >"$T/house.conf"
    printf '%s\n' 'listen 127.0.0.1@53' 'listen 192.168.1.1@53' 'admin 127.0.0.1@5353' >>"$T/house.conf"
    port=53 admin=5353
    launch p $WRAP "$BIN" -c "$T/house.conf"
    says 'A 192\.168\.1\.1' router.lan
    says '^NXDOMAIN' printer.lan
    printf '#!/bin/sh\n[ "$1" != bound ] || { ip addr add "$ip/24" dev e0; echo "$ip $dns $domain" >"%s/lease"; }\n' "$T" >"$T/udhcpc.sh"
    chmod 755 "$T/udhcpc.sh"
    $client busybox udhcpc -i e0 -n -q -t 10 -T 1 -x hostname:printer -s "$T/udhcpc.sh" </dev/null >"$T/udhcpc.log" 2>&1
    [ -s "$T/lease" ] || fail "no lease: $(tail -n 3 "$T/udhcpc.log") $(tail -n 3 "$T/dhcp.log")"
    read -r ip dns domain <"$T/lease"
    same '192.168.1.1 lan' "$dns $domain" 'what the client was told'
    here printer.lan "A $ip"
    says "A $ip" printer
    says 'PTR printer\.lan' "$(echo "$ip" | awk -F. '{ print $4 "." $3 "." $2 "." $1 }').in-addr.arpa" PTR
    like "A 0\.0\.0\.0" "$($client "$ROOT/peer" ask 192.168.1.1 53 www.ads.test)"
}

leg_unitfile() {
    promise "the unit under a booted systemd: a broken file, a busy port, a reload of a broken file, and the reason in its status"
    { [ "$(id -u)" = 0 ] && [ -x /lib/systemd/systemd ] && plain && needs systemd-nspawn unshare; } || { skip 'not here: systemd-nspawn or root is missing'; return; }
    make -s -C "$SRC" unit | sed 's|/usr/local/sbin/dnsproxy|/usr/sbin/dnsproxy-tested|' >"$T/dnsproxy.service"
    printf '%s\n' '[Unit]' 'Requires=basic.target' 'After=basic.target' 'SuccessAction=poweroff-force' 'FailureAction=poweroff-force' \
        '[Service]' 'Type=oneshot' 'ExecStart=/bin/sh /steps/steps' >"$T/steps.service"
    cat >"$T/steps" <<'END'
exec >/steps/steps.out 2>&1
until_so() { for i in $(seq 200); do eval "$1" && break; sleep 0.1; done; }
of_unit() { systemctl show -P "$1" dnsproxy; }
reason() { systemctl status --no-pager dnsproxy | sed -n "s/.*\(dns.config:$1: .*\)/reason: \1/p"; }
echo '127.0.0.1@9 x' >/etc/dns.config
systemctl start dnsproxy
echo "broken: $(of_unit ActiveState) restarts $(of_unit NRestarts) status $(of_unit ExecMainStatus)"
reason 1
printf '%s\n' '127.0.0.1@9 1' 'listen 127.0.0.1@5399' >/etc/dns.config
systemctl reset-failed dnsproxy
/usr/sbin/dnsproxy-tested 'listen 127.0.0.1@5399' 'admin off' '127.0.0.1@9 1' &
until_so "ss -lnt | grep -q '127.0.0.1:5399 '"
systemctl start --no-block dnsproxy
until_so '[ "$(of_unit NRestarts)" != 0 ]'
kill $!
until_so '[ "$(of_unit ActiveState)" = active ]'
echo "busy: $(of_unit ActiveState) restarts $(of_unit NRestarts)"
systemctl reload dnsproxy
echo "reload: $?"
echo 'timeout soon' >>/etc/dns.config
systemctl reload dnsproxy
echo "bad reload: $? $(of_unit ActiveState)"
reason 3
systemctl stop dnsproxy
echo "stopped: $(of_unit ExecMainStatus)"
END
    mkdir "$T/root"
    # the whole of this machine is at $T/root there, and for nobody else
    unshare -m sh -c 'mount --bind / "$0" && exec "$@"' "$T/root" timeout $((120 * SLOW)) systemd-nspawn -q -D "$T/root" --volatile=overlay \
        -M "dnsproxy-test-$$" --private-network --register=no --keep-unit --link-journal=no --bind="$T:/steps" \
        --bind-ro="$BIN:/usr/sbin/dnsproxy-tested" --bind-ro="$T/dnsproxy.service:/etc/systemd/system/dnsproxy.service" \
        --bind-ro="$T/steps.service:/etc/systemd/system/steps.service" -b systemd.unit=steps.service </dev/null >"$T/nspawn.log" 2>&1
    out=$(cat "$T/steps.out")
    [ -n "$out" ] || { skip "not here: systemd does not boot ($(tail -n 1 "$T/nspawn.log" | tr -cd ' -~'))"; return; }
    each 'like "$it" "$out"' '^broken: failed restarts 0 status 78$' '^reason: dns\.config:1: "x" is not a priority' '^busy: active restarts [1-9]' \
        '^reload: 0$' '^bad reload: [1-9][0-9]* active$' '^reason: dns\.config:3: ' '^stopped: 0$'
}
