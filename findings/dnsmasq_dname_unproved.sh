#!/bin/sh
# dnsmasq 2.90 as validator: a name below a signed DNAME is SERVFAIL, though the signature over the DNAME and the CNAME made from it
# are as RFC 6672 5.3.1 has them; drill and unbound find it secure. The other names of the zone are proved.
export packages='dnsmasq-base=2.90-4~deb12u2 nsd=4.6.1-1 ldnsutils=1.8.3-1+b1 unbound=1.17.1-2+deb12u4 bind9-dnsutils=1:9.18.49-1~deb12u3'
. "$(dirname "$0")/lab.sh"

cd "$LAB" || exit 1
printf '%s\n' '$ORIGIN .' '$TTL 3600' '@ SOA ns h 1 3600 600 86400 300' '@ NS ns' 'ns A 127.0.0.2' 'new A 192.0.2.1' 'www.new A 192.0.2.2' \
    'old DNAME new' >plain
key=$(ldns-keygen -a ECDSAP256SHA256 -k .)
ldns-signzone -e 20380101000000 -i 20200101000000 -f signed plain "$key"
zone . 127.0.0.2 <signed
anchor=$(awk '{ for (i = 1; i <= NF; i++) if ($i == "DS") print $(i + 1) "," $(i + 2) "," $(i + 3) "," $(i + 4) }' "$key.ds")
dnsmasq -k -C /dev/null -R -h --pid-file= --user=root --log-facility="$LAB/dnsmasq.log" --listen-address=127.0.0.3 --bind-interfaces --server=127.0.0.2 \
    --dnssec --trust-anchor=".,$anchor" &
printf '%s\n' server: 'interface: 127.0.0.4' 'do-daemonize: no' 'username: ""' 'chroot: ""' 'pidfile: ""' 'use-syslog: no' 'directory: ""' \
    'do-not-query-localhost: no' "trust-anchor-file: \"$LAB/$key.ds\"" 'module-config: "validator iterator"' remote-control: 'control-enable: no' \
    stub-zone: 'name: .' 'stub-addr: 127.0.0.2' >unbound.conf
unbound -d -c unbound.conf >unbound.log 2>&1 &
says() { dig "@$1" +dnssec "$2" A | awk '/status:/ { sub(/.*status: /, ""); sub(/,.*/, ""); s = $0 } /^;; flags:/ { print s (/ ad[ ;]/ ? ", proved" : "") }'; }
answers 127.0.0.3 new A
answers 127.0.0.4 new A
seen 'www.new, dnsmasq' 'NOERROR, proved' "$(says 127.0.0.3 www.new)"
seen 'www.old, unbound' 'NOERROR, proved' "$(says 127.0.0.4 www.old)"
seen 'www.old, dnsmasq' 'SERVFAIL' "$(says 127.0.0.3 www.old)"
