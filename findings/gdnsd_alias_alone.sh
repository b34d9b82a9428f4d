#!/bin/sh
# gdnsd 3.8: an alias within one zone is answered with the CNAME alone, never with what it leads to, though RFC 1034 4.3.2 (3a)
# has the server go on with the target. A stub that asks it directly, or through a forwarder that does not resolve, gets no
# address for any alias.
export packages='gdnsd=3.8.1-1 bind9-dnsutils=1:9.18.49-1~deb12u3'
. "$(dirname "$0")/lab.sh"

mkdir -p "$LAB/gdnsd/zones" "$LAB/run" "$LAB/state"
echo "options => { listen => 127.0.0.2, run_dir => \"$LAB/run\", state_dir => \"$LAB/state\" }" >"$LAB/gdnsd/config"
printf '%s\n' '@ SOA ns h 1 7200 1800 259200 300' '@ NS ns' 'ns A 127.0.0.2' 'www A 192.0.2.1' 'alias CNAME www' >"$LAB/gdnsd/zones/example.com"
gdnsd -c "$LAB/gdnsd" start >"$LAB/gdnsd.log" 2>&1 &
answers 127.0.0.2 www.example.com A
seen 'the address' 'www.example.com. IN A 192.0.2.1' "$(records 127.0.0.2 www.example.com A)"
seen 'its alias' 'alias.example.com. IN CNAME www.example.com.' "$(records 127.0.0.2 alias.example.com A)"
