#!/bin/sh
# aardvark-dns 1.4 (podman's name server): names of containers have a TTL of a day, while the address changes with each start of the
# container; and there is no TCP. A cache in front of it serves the old address until tomorrow.
export packages='aardvark-dns=1.4.0-3 bind9-dnsutils=1:9.18.49-1~deb12u3'
. "$(dirname "$0")/lab.sh"

mkdir "$LAB/networks"
printf '%s\n' 127.0.0.2 '68fb291b0318b54a71f6f3636e58bd0896f084e5ba4fa311ecf36e019c5e6e43 10.88.0.5  web' >"$LAB/networks/podman"
"$LAB/root/usr/lib/podman/aardvark-dns" --config "$LAB/networks" --port 53 run >"$LAB/log" 2>&1 &
answers 127.0.0.2 web.dns.podman A
seen 'a container' 'web.dns.podman. 86400 IN A 10.88.0.5' "$(dig @127.0.0.2 +noall +answer web.dns.podman A | tr -s '\t ' ' ')"
seen 'over TCP' 'connection refused' "$(dig @127.0.0.2 +tcp +tries=1 +timeout=2 web.dns.podman A | sed -n 's/.*failed: \(connection refused\).*/\1/p' | head -n 1)"
