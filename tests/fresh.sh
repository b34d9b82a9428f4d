# shellcheck shell=sh disable=SC2034,SC2154
# fresh.sh - both commands of README.md as they stand, on a fresh Debian in a temporary directory.
# Alone: ./test.sh fresh SUITE [ARGUMENT...]; the arguments are those of ./test.sh in the second command. Wants root, debootstrap
# and a mirror (MIRROR=URL, else that of debootstrap). The network of this machine is only used to fetch packages.

# fresh SUITE [ARGUMENT...]
cmd_fresh() {
    fresh_s=${1:-trixie} fresh_d=$T/debian
    [ $# = 0 ] || shift
    promise "$fresh_s: debootstrap makes a system"
    needs debootstrap unshare ip || return
    [ "$(id -u)" = 0 ] || { skip "not here: debootstrap needs root"; return; }
    fresh_made || return
    promise "$fresh_s: the first command of README.md builds dnsproxy and serves"
    fresh_inside "$(readme build)" ' & cd /src; i=0; until ./dnsproxy -a status 2>/dev/null || [ $((i += 1)) -gt 600 ]; do sleep 0.1; done' >"$T/first.log" 2>&1
    like '^dnsproxy .* queries ' "$(cat "$T/first.log")"
    promise "$fresh_s: the second command installs what the tests want, and they pass"
    case " $* " in *' works '*) fresh_w=$(fresh_works) ;; *) fresh_w='' ;; esac
    fresh_inside "$(readme tests) $*" '' "$fresh_w" 2>&1 | tee "$T/second.log" | sed 's/^/    /'
    like '^[0-9]+ passed, 0 failed' "$(tail -n 1 "$T/second.log")"
}

# fresh_made: the system at $fresh_d, with this source in /src; a mirror that is not reached skips the promise
fresh_made() {
    # shellcheck disable=SC2086
    debootstrap --variant=minbase "$fresh_s" "$fresh_d" ${MIRROR:-} >"$T/debootstrap.log" 2>&1 || {
        if grep -Eq 'Failed getting release|Invalid Release file' "$T/debootstrap.log"; then
            skip "not here: no mirror has $fresh_s: $(tail -n 1 "$T/debootstrap.log")"
        else
            fail "$(tail -n 5 "$T/debootstrap.log")"
        fi
        return 1
    }
    echo 'Acquire::Check-Valid-Until "false";' >"$fresh_d/etc/apt/apt.conf.d/mirror"     # one may be some weeks behind
    mkdir -p "$fresh_d/src" "$fresh_d/dev/net"
    mknod "$fresh_d/dev/net/tun" c 10 200
    printf '#!/bin/sh\nexit 101\n' >"$fresh_d/usr/sbin/policy-rc.d"         # no service starts
    chmod 755 "$fresh_d/usr/sbin/policy-rc.d"
    (cd "$SRC" && tar -cf - test.sh tests Makefile dnsproxy.c dnsproxy.8 dns.config.example README.md .ci .gitignore) | tar -xf - -C "$fresh_d/src"
}

# fresh_works: installs what README.md names for the matrix too, each by itself, for a row says what it misses. In newer Debians
# knot-resolver has another name.
fresh_works() {
    fresh_n=$(readme works | sed 's/ && .*//; s/.*recommends //')
    echo " && { for p in $fresh_n knot-resolver6 \"-d systemd-resolved\"; do apt-get install -y --no-install-recommends \$p; done; true; }"
}

# fresh_inside COMMAND [MORE [PACKAGES]]: runs COMMAND there, with processes and mounts of its own: the part up to the packages, and what
# installs others, with the network of this machine, what comes behind with none but a loopback, MORE at the same time
fresh_inside() {
    cat >"$T/inside.sh" <<'END'
mount --bind "$1" "$1" && mount -t proc proc "$1/proc" && mount -t devpts -o ptmxmode=666 devpts "$1/dev/pts" || exit
in="exec chroot $1 /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root CI=${CI:-} DEBIAN_FRONTEND=noninteractive"
sh -c "$in sh -c 'cd /src && $2'" >"$1/packages.log" 2>&1 || { tail -n 20 "$1/packages.log"; exit 1; }
unshare -n sh -c "ip link set lo up; $in sh -c 'cd /src && $3'"
END
    fresh_p=${1%%" && ${1#*install* && }"}
    unshare -mp --fork --kill-child sh "$T/inside.sh" "$fresh_d" "$fresh_p${3:-}" "${1#"$fresh_p && "}${2:-}" </dev/null
}
