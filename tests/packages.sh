# packages.sh - install, packages, and what README.md shows.
# Alone: ./test.sh install readme; ./test.sh image builds the container file.

# valid WORD...: a configuration that the program accepts without a word;  version COMMAND...: it is a dnsproxy
# static_here: what `make static` needs is there;  files_are DIRECTORY FILE...: all that are below it
valid() { same '' "$("$BIN" -t "$@" 2>&1 >/dev/null)" "-t $*"; }
version() { like '^dnsproxy ' "$("$@" -V 2>&1)" "$* -V"; }
static_here() { have musl-gcc && [ -z "$BEARSSL" ] || { skip "not here: musl-gcc is missing, or BearSSL is not the system's"; return 1; }; }
files_are() {
    files_d=$1
    shift
    same "$*" "$(cd "$files_d" && find ./* -type f | sed 's/..//' | sort | paste -s -d ' ')" "files in $files_d"
}

# made ARGUMENT...: make in the copy of the source
made() { make -C "$T/tree" CC="$CC" CFLAGS="$CFLAGS" BEARSSL="$BEARSSL" "$@" >>"$T/make.log" 2>&1 || fail "make $*: $(tail -n 3 "$T/make.log")"; }

leg_install() {
    mkdir "$T/tree" "$T/sbin"
    (cd "$SRC" && cp -p Makefile dnsproxy.c dnsproxy.8 dns.config.example test.sh README.md "$T/tree/")
    (cd "$T/tree" && ls -A) >"$T/tree.before"
    cross_cc=$(readme cross-make | sed 's/.*CC=//')
    replies <<'END'
make install puts binary, man page, configuration and unit under DESTDIR ; made DESTDIR="$T/dest" PREFIX=/usr install
 ; files_are "$T/dest" etc/dns.config usr/lib/systemd/system/dnsproxy.service usr/sbin/dnsproxy usr/share/man/man8/dnsproxy.8
 ; version "$T/dest/usr/sbin/dnsproxy"
 ; valid -c "$T/dest/etc/dns.config"
a configuration that exists is left alone, by install and by uninstall ; echo '127.0.0.1 1' >"$T/dest/etc/dns.config"
 ; made DESTDIR="$T/dest" PREFIX=/usr install
 ; same '127.0.0.1 1' "$(cat "$T/dest/etc/dns.config")"
 ; made DESTDIR="$T/dest" PREFIX=/usr uninstall
 ; files_are "$T/dest" etc/dns.config
make clean leaves what was there before, and every output is in .gitignore ; outputs=$(cd "$T/tree" && ls -A | grep -vxF "$(cat ../tree.before)")
 ; each 'grep -qx "/$it" "$SRC/.gitignore" || fail "$it is not in .gitignore"' $outputs
 ; made clean
 ; same "$(cat "$T/tree.before")" "$(cd "$T/tree" && ls -A)"
without bearssl.h make says in one line what to do ; out=$(make -C "$T/tree" CPPFLAGS=-nostdinc 2>&1 >/dev/null || echo "make: $?")
 ; like '^make: 2$' "$out" 'exit status of make'
 ; same 1 "$(printf '%s\n' "$out" | grep -cv '^make')" 'lines'
 ; like 'bearssl.h.*libbearssl-dev.*BEARSSL' "$out"
make static makes one file that needs nothing else ; static_here
 ; rm -f "$T/tree/dnsproxy"
 ; made static
 ; unlike 'NEEDED|INTERP' "$(readelf -ld "$T/tree/dnsproxy-static" 2>&1)"
 ; version "$T/tree/dnsproxy-static"
 ; [ ! -e "$T/tree/dnsproxy" ] || fail 'it makes dnsproxy too'
the cross-compiling command of the README makes a program of the other machine
 ; "$cross_cc" -print-file-name=libbearssl.a 2>/dev/null | grep -q / || skip "not here: no ${cross_cc:-compiler} with libbearssl"
 ; made -B CC="$cross_cc"
 ; like 'Machine: *ARM$' "$(readelf -h "$T/tree/dnsproxy" 2>&1)"
systemd accepts the unit, and finds it well confined ; make -s -C "$T/tree" PREFIX="$T" unit >"$T/dnsproxy.service"
 ; cp "$BIN" "$T/sbin/dnsproxy"
 ; needs systemd-analyze
 ; same '' "$(systemd-analyze --man=no verify "$T/dnsproxy.service" 2>&1 | grep dnsproxy)" 'systemd-analyze verify'
 ; out=$(systemd-analyze security --no-pager --offline=yes "$T/dnsproxy.service" 2>&1 | grep 'exposure level')
 ; like 'exposure level for [^:]*: [01]\.' "$out" 'exposure'
END
}

# readme NAME: the block of README.md that is marked so
readme() { awk -v mark="<!-- test: $1 -->" '$0 == mark { on = 1; next } on == 2 && /^```/ { exit } on == 2 { print } on == 1 { on = 2 }' "$SRC/README.md"; }

leg_readme() {
    mkdir -p "$T/image/src" "$T/fake" "$T/first"
    readme containerfile >"$T/Containerfile"
    { readme 'kubernetes sidecar'; echo ---; readme 'kubernetes daemonset'; } >"$T/kube.yaml"
    cat >"$T/kube.py" <<'END'
import yaml
pod, config, daemon = all = list(yaml.safe_load_all(open('kube.yaml')))
assert [d['kind'] for d in all] == ['Pod', 'ConfigMap', 'DaemonSet']
t = daemon['spec']['template']
assert daemon['spec']['selector']['matchLabels'] == t['metadata']['labels']
for c in t['spec']['containers']:
    assert {m['name'] for m in c['volumeMounts']} <= {v['name'] for v in t['spec']['volumes']}
open('kube.1', 'w').write('\n'.join(a for c in pod['spec']['containers'] if c['name'] == 'dnsproxy' for a in c['args']))
open('kube.2', 'w').write(config['data']['dns.config'])
END
    ln -s /bin/true "$T/fake/apt-get"
    each 'cp -p "$SRC/Makefile" "$SRC/dnsproxy.c" "$T/$it/"' image/src first
    tls_ready
    dot one good
    replies <<'END'
each configuration of the README is one ; each 'readme "config $it" | sed "s|^block .*|block /dev/null|" >"$T/$it.config"' plain house home filter tls
 ; each 'grep -q . "$T/$it.config" && valid -c "$T/$it.config" || fail "there is no configuration $it"' plain house home filter tls
the package Makefile for OpenWrt builds and installs by the rules of its build system ; out=$(openwrt 2>&1) || fail "make: $out"
 ; version "$T/owrt/usr/sbin/dnsproxy"
 ; files_are "$T/owrt" etc/dns.config etc/init.d/dnsproxy usr/sbin/dnsproxy
the init script for procd is one ; like '^#!/bin/sh /etc/rc.common$' "$(head -n 1 "$T/openwrt/files/dnsproxy.init")"
 ; same '' "$(sh -n "$T/openwrt/files/dnsproxy.init" 2>&1)"
 ; each 'like "$it" "$(procd)"' '^command /usr/sbin/dnsproxy$' '^reload_signal HUP$'
what the container file builds runs alone in its directory, as nobody ; like '^USER 65534' "$(cat "$T/Containerfile")"
 ; each '[ -e "$SRC/$it" ] || fail "COPY $it: not in the source"' $(sed -n 's/^COPY \([^-].*\) [^ ]*$/\1/p' "$T/Containerfile")
 ; [ "$(id -u)" = 0 ] || skip 'not here: chroot needs root'
 ; static_here
 ; image_here >"$T/image.log" 2>&1 || fail "$(tail -n 3 "$T/image.log")"
 ; files_are "$T/image/out" dnsproxy etc/group etc/passwd etc/ssl/certs/ca-certificates.crt
 ; alone "$T/image/out"
the Kubernetes files are YAML, and their configurations are right ; /usr/bin/python3 -c 'import yaml' 2>/dev/null || skip 'python3-yaml is missing'
 ; (cd "$T" && /usr/bin/python3 kube.py) >"$T/kube.out" 2>&1 || fail "$(cat "$T/kube.out")"
 ; each 'valid -c "$T/kube.$it"' 1 2
the shell commands of the README are shell ; each 'readme "$it" >"$T/$it.sh" && grep -q . "$T/$it.sh" || fail "there is no command $it"' $commands
 ; each 'same "" "$(sh -n "$T/$it.sh" 2>&1)" "command $it"' $commands
the pin of the README is the pin that the program takes ; pin=$(readme pin | sed "s/9.9.9.9:853/$(echo "$one" | tr @ :)/" | sh)
 ; same "$(cat "$T/pki/good.pin")" "$pin"
 ; exits 0 'tls pin=' -t "127.0.0.1 1 tls pin=$pin"
the first command of the README builds and serves as it stands ; [ "$(id -u)" = 0 ] || skip 'not here: not root'
 ; netns
 ; begin readme env CC="$CC" CFLAGS="$CFLAGS" BEARSSL="$BEARSSL" PATH="$T/fake:$PATH" sh -c "cd $T/first && $(readme build)"
 ; await 120 readme_serves || fail 'it does not serve'
 ; out=$(ns sh -c "$(sed -n 's/^\(kdig .*-p 5300.*\)/\1 +retry=0 +timeout=8/p' "$SRC/README.md")" 2>&1)
 ; like 'status: (NOERROR|SERVFAIL)' "$out" 'the kdig command below it'
 ; kill "$(pgrep -P "$(pid readme)" -x dnsproxy)" || fail 'dnsproxy is not what runs there'
END
}
commands='build tests long image bench pin cross'         # of the README, beside those of one program

# openwrt: the package is built and installed into $T/owrt, by rules like those of OpenWrt
openwrt() {
    mkdir -p "$T/openwrt/files" "$T/openwrt/src" "$T/openwrt/bearssl/inc" "$T/openwrt/bearssl/build" "$T/rules"
    cp -p "$SRC/Makefile" "$SRC/dnsproxy.c" "$SRC/dns.config.example" "$T/openwrt/src/"
    readme 'openwrt Makefile' >"$T/openwrt/Makefile"
    readme 'openwrt init' >"$T/openwrt/files/dnsproxy.init"
    cp "${BEARSSL:-/usr}"/inc*/bearssl*.h "$T/openwrt/bearssl/inc/"
    if [ -n "$BEARSSL" ]; then set -- "$BEARSSL/build/libbearssl.a"; else set -- "$("$CC" -print-file-name=libbearssl.a)"; fi
    cp "$1" "$T/openwrt/bearssl/libbearssl.a"
    printf 'lib:\n\tcp libbearssl.a build/libbearssl.a\n' >"$T/openwrt/bearssl/Makefile"
    printf '%s\n' 'CP := cp -fpR' 'INSTALL_DIR := install -d -m0755' 'INSTALL_BIN := install -m0755' 'INSTALL_CONF := install -m0600' >"$T/rules/rules.mk"
    cat >"$T/rules/package.mk" <<'END'
define BuildPackage
compile:
	$(value Build/Prepare)
	$(value Build/Compile)
	$(subst $$(1),$$(DEST),$(value Package/$(1)/install))
endef
END
    make -C "$T/openwrt" TOPDIR="$T/rules" INCLUDE_DIR="$T/rules" PKG_BUILD_DIR="$T/owrt-build" TARGET_CC="$CC" TARGET_AR=ar TARGET_CFLAGS=-Os \
        DEST="$T/owrt" compile
}

# procd: what the init script tells it
procd() {
    procd_open_instance() { :; }
    procd_close_instance() { :; }
    procd_set_param() { echo "$*"; }
    # shellcheck disable=SC1091
    . "$T/openwrt/files/dnsproxy.init"
    start_service
}

# image_here: what the container file runs to build, in this system, with the directories of $T/image
image_here() { sed -n 's/^RUN //p; /^ /p' "$T/Containerfile" | sed "/apt-get/d; s|/src|$T/image/src|g; s|/out|$T/image/out|g" | sh -e; }
readme_serves() { (cd "$T/first" && ns ./dnsproxy -a status) 2>/dev/null | grep -q '^dnsproxy '; }

# alone ROOT: what is in that directory runs there as nobody, and needs nothing else
alone() {
    port=$(freeport) admin=$(freeport) alone_w="chroot --userspec=65534:65534 $1 /dnsproxy"
    launch image $alone_w "listen 127.0.0.1@$port" "admin 127.0.0.1@$admin" '127.0.0.1@9 1' '127.0.0.1 2 tls=dns.test'
    says '^SERVFAIL' a.test
    like '^dnsproxy ' "$($alone_w "admin 127.0.0.1@$admin" '127.0.0.1@9 1' -a status)" 'health check'
    stop image
}

# image: the container file as it stands. The base is pulled, or made by debootstrap (MIRROR=URL)
cmd_image() {
    promise "the container file is built by buildah, and what it makes answers in an empty root"
    x="buildah --root $T/store --runroot $T/storerun --storage-driver vfs"
    { [ "$(id -u)" = 0 ] && have buildah; } || { skip 'not here: buildah or root is missing'; return; }
    $x pull -q docker.io/library/debian:12 >"$T/buildah.log" 2>&1 || image_base >"$T/buildah.log" 2>&1 ||
        { skip "not here: no base image can be had ($(tail -n 1 "$T/buildah.log" | cut -c1-120))"; return; }
    readme containerfile >"$T/Containerfile"
    $x bud -q --pull=never --format docker --isolation chroot -f "$T/Containerfile" -t dnsproxy-test "$SRC" >"$T/buildah.log" 2>&1 || fail "$(tail -n 3 "$T/buildah.log")"
    c=$($x from --pull=never dnsproxy-test) && m=$($x mount "$c")
    alone "$m"
    $x umount "$c" >/dev/null
}
image_base() {
    have debootstrap && debootstrap --variant=minbase bookworm "$T/base" ${MIRROR:-} && c=$($x from scratch) &&
        $x add -q "$c" "$T/base" / && $x commit -q "$c" docker.io/library/debian:12
}
