#!/bin/sh
# shellcheck disable=SC2034,SC2154
# lab.sh - what a finding stands on: pinned packages of Debian 12 in a temporary folder, and a network of its own
#
#   findings/NAME.sh      runs one finding: prints what was seen, fails if that has changed
#   findings/lab.sh       runs them all
#
# A finding exports packages='NAME=VERSION ...' and sources this file. What follows runs in a network namespace whose loopback is
# up, with $LAB as its folder and the packages' programs first in PATH. Nothing is installed in the system; wants apt, unshare, ip.

set -u
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
if [ -z "${packages:-}" ]; then
    lab_bad=0
    for lab_f in "$(dirname "$0")"/*.sh; do
        case $lab_f in */lab.sh) continue ;; esac
        "$lab_f" || { lab_bad=1; echo "$lab_f: not as it was"; }
    done
    exit $lab_bad
fi
if [ -z "${LAB:-}" ]; then
    LAB=$(mktemp -d) || exit 1
    export LAB
    trap 'rm -rf "$LAB"' EXIT
    chmod 755 "$LAB"
    mkdir -p "$LAB/debs/partial" "$LAB/root"
    # shellcheck disable=SC2086
    apt-get install -y -qq --download-only --reinstall --no-install-recommends --allow-downgrades -o Debug::NoLocking=1 -o Dir::Cache::Archives="$LAB/debs" \
        $packages >"$LAB/apt" 2>&1 || { cat "$LAB/apt"; exit 1; }
    for lab_f in "$LAB"/debs/*.deb; do dpkg -x "$lab_f" "$LAB/root" || exit 1; done
    if [ "$(id -u)" = 0 ]; then set -- -n; else set -- -rn; fi
    unshare "$@" setsid -w sh "$0" </dev/null
    exit
fi
ip link set lo up
PATH="$LAB/root/usr/sbin:$LAB/root/usr/bin:$LAB/root/sbin:$LAB/root/bin:$PATH"
LD_LIBRARY_PATH=$LAB/root/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch)
export PATH LD_LIBRARY_PATH
trap 'lab_s=$?; trap "" TERM; kill 0; wait; exit $lab_s' EXIT
echo "$(basename "$0" .sh): $packages"

# zone ORIGIN ADDRESS: nsd serves the zone on standard input there, at port 53; one without SOA gets what a zone must have
zone()
{
    cat >"$LAB/records"
    grep -q SOA "$LAB/records" || printf '%s\n' "\$ORIGIN $1." '$TTL 3600' '@ SOA ns h 1 3600 600 86400 300' '@ NS ns' "ns A $2" >"$LAB/$1.zone"
    cat "$LAB/records" >>"$LAB/$1.zone"
    printf '%s\n' server: "  ip-address: $2" '  username: ""' '  pidfile: ""' '  database: ""' "  zonesdir: \"$LAB\"" "  xfrdfile: \"$LAB/xfrd\"" \
        "  xfrdir: \"$LAB\"" "  zonelistfile: \"$LAB/list\"" remote-control: '  control-enable: no' zone: "  name: \"$1\"" "  zonefile: \"$1.zone\"" >"$LAB/nsd.conf"
    nsd -d -c "$LAB/nsd.conf" >"$LAB/nsd.log" 2>&1 &
    answers "$2" "$1" SOA
}

# answers ADDRESS NAME TYPE: waits until somebody answers there
answers()
{
    for lab_i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
        dig "@$1" +tries=1 +timeout=1 "$2" "$3" >"$LAB/dig" 2>&1 && return 0
        sleep 0.2
    done
    echo "nobody answers at $1"
    exit 1
}

# records ADDRESS WORD...: the answer section as dig shows it, without TTLs
records() { dig "@$1" +noall +answer +nottlid "$2" "$3" ${4:+"$4"} | tr -s '\t ' ' '; }

# seen WHAT WANT GOT: says what was seen, and ends if it is not that any more
seen()
{
    printf '  %s: %s\n' "$1" "$(printf '%s' "$3" | tr '\n' '|')"
    [ "$2" = "$3" ] || { printf '  it used to be: %s\n' "$(printf '%s' "$2" | tr '\n' '|')"; exit 1; }
}
