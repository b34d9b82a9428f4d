# packages.sh - install, packages, and what README.md shows.
# Alone: ./test.sh install readme; ./test.sh image builds the container file.

# valid WORD...: a configuration that the program accepts without a word;  version COMMAND...: it is a dnsproxy
# static_here: what `make static` needs is there;  files DIRECTORY: all that are below it
valid() { same '' "$("$BIN" -t "$@" 2>&1 >/dev/null)" "-t $*"; }
version() { like '^dnsproxy ' "$("$@" -V 2>&1)" "$* -V"; }
static_here() { have musl-gcc && [ -z "$BEARSSL" ] || { skip "not here: musl-gcc is missing, or BearSSL is not the system's"; return 1; }; }
files() { (cd "$1" && find . -type f | sort | paste -s -d ' '); }

leg_install() {
    promise 'make install puts binary, man page, configuration and unit under DESTDIR'
    mkdir "$T/tree" "$T/sbin"
    (cd "$SRC" && cp -p Makefile dnsproxy.c dnsproxy.8 dns.config.example test.sh README.md "$T/tree/")
    (cd "$T/tree" && ls -A) >"$T/tree.before"
    real_make() { make -C "$T/tree" CC="$CC" CFLAGS="$CFLAGS" BEARSSL="$BEARSSL" "$@" >>"$T/make.log" 2>&1 || fail "make $*: $(tail -n 3 "$T/make.log")"; }
    real_make DESTDIR="$T/dest" PREFIX=/usr install
    same './etc/dns.config ./usr/lib/systemd/system/dnsproxy.service ./usr/sbin/dnsproxy ./usr/share/man/man8/dnsproxy.8' "$(files "$T/dest")"
    version "$T/dest/usr/sbin/dnsproxy"
    valid -c "$T/dest/etc/dns.config"
    promise 'a configuration that exists is left alone, by install and by uninstall'
    echo '127.0.0.1 1' >"$T/dest/etc/dns.config"
    real_make DESTDIR="$T/dest" PREFIX=/usr install
    same '127.0.0.1 1' "$(cat "$T/dest/etc/dns.config")"
    real_make DESTDIR="$T/dest" PREFIX=/usr uninstall
    same "$T/dest/etc/dns.config" "$(find "$T/dest" -type f)" 'what uninstall leaves'
    promise 'make clean leaves what was there before, and every output is in .gitignore'
    # shellcheck disable=SC2010
    real_x=$(cd "$T/tree" && ls -A | grep -vxF "$(cat "$T/tree.before")")
    for real_f in $real_x; do grep -qx "/$real_f" "$SRC/.gitignore" || fail "$real_f is not in .gitignore"; done
    real_make clean
    same "$(cat "$T/tree.before")" "$(cd "$T/tree" && ls -A)"
    promise 'without bearssl.h make says in one line what to do'
    real_x=$(make -C "$T/tree" CPPFLAGS=-nostdinc 2>&1 >/dev/null)
    same 2 $? 'exit status of make'
    same 1 "$(printf '%s\n' "$real_x" | grep -cv '^make')" 'lines'
    like 'bearssl.h.*libbearssl-dev.*BEARSSL' "$real_x"
    promise 'make static makes one file that needs nothing else'
    if static_here; then
        rm -f "$T/tree/dnsproxy"
        real_make static
        unlike 'NEEDED|INTERP' "$(readelf -ld "$T/tree/dnsproxy-static" 2>&1)"
        version "$T/tree/dnsproxy-static"
        [ ! -e "$T/tree/dnsproxy" ] || fail 'it makes dnsproxy too'
        real_make clean
    fi
    promise 'the cross-compiling command of the README makes a program of the other machine'
    real_x=$(readme cross-make)
    real_x=${real_x#*CC=}
    if have "$real_x" && [ -n "$("$real_x" -print-file-name=libbearssl.a | grep /)" ]; then
        real_make -B CC="$real_x"
        like 'Machine: *ARM$' "$(readelf -h "$T/tree/dnsproxy" 2>&1)"
        real_make clean
    else
        skip "not here: no ${real_x:-compiler} with libbearssl"
    fi
    promise 'systemd accepts the unit, and finds it well confined'
    make -s -C "$T/tree" PREFIX="$T" unit >"$T/dnsproxy.service"
    cp "$BIN" "$T/sbin/dnsproxy"
    if needs systemd-analyze; then
        same '' "$(systemd-analyze --man=no verify "$T/dnsproxy.service" 2>&1 | grep dnsproxy)" 'systemd-analyze verify'
        real_x=$(systemd-analyze security --no-pager --offline=yes "$T/dnsproxy.service" 2>&1 | sed -n 's/.*exposure level for [^:]*: \([0-9.]*\).*/\1/p')
        echo "# exposure by systemd-analyze security: $real_x (10 is the worst)"
        like '^[01]\.' "$real_x" 'exposure'
    fi
}

# readme NAME: the block of README.md that is marked so
readme() { awk -v mark="<!-- test: $1 -->" '$0 == mark { on = 1; next } on == 2 && /^```/ { exit } on == 2 { print } on == 1 { on = 2 }' "$SRC/README.md"; }

leg_readme() {
    promise 'each configuration of the README is one'
    for real_x in plain house home filter tls; do
        readme "config $real_x" | sed 's|^block .*|block /dev/null|' >"$T/readme.config"
        [ -s "$T/readme.config" ] || fail "there is no configuration $real_x"
        valid -c "$T/readme.config"
    done
    promise 'the package Makefile for OpenWrt builds and installs by the rules of its build system'
    real_o=$T/openwrt
    mkdir -p "$real_o/files" "$real_o/src" "$real_o/bearssl/inc" "$real_o/bearssl/build" "$T/rules" "$T/image/src"
    cp -p "$SRC/Makefile" "$SRC/dnsproxy.c" "$SRC/dns.config.example" "$real_o/src/"
    readme 'openwrt Makefile' >"$real_o/Makefile"
    readme 'openwrt init' >"$real_o/files/dnsproxy.init"
    if [ -n "$BEARSSL" ]; then real_x=$BEARSSL/inc real_y=$BEARSSL/build/libbearssl.a; else real_x=/usr/include real_y=$("$CC" -print-file-name=libbearssl.a); fi
    cp "$real_x"/bearssl*.h "$real_o/bearssl/inc/"
    cp "$real_y" "$real_o/bearssl/libbearssl.a"
    printf 'lib:\n\tcp libbearssl.a build/libbearssl.a\n' >"$real_o/bearssl/Makefile"
    printf '%s\n' 'CP := cp -fpR' 'INSTALL_DIR := install -d -m0755' 'INSTALL_BIN := install -m0755' 'INSTALL_CONF := install -m0600' >"$T/rules/rules.mk"
    cat >"$T/rules/package.mk" <<'END'
define BuildPackage
compile:
	$(value Build/Prepare)
	$(value Build/Compile)
	$(subst $$(1),$$(DEST),$(value Package/$(1)/install))
endef
END
    real_x=$(make -C "$real_o" TOPDIR="$T/rules" INCLUDE_DIR="$T/rules" PKG_BUILD_DIR="$T/owrt-build" TARGET_CC="$CC" TARGET_AR=ar TARGET_CFLAGS=-Os \
        DEST="$T/owrt" compile 2>&1)
    same 0 $? "make: $real_x"
    version "$T/owrt/usr/sbin/dnsproxy"
    same './etc/dns.config ./etc/init.d/dnsproxy ./usr/sbin/dnsproxy' "$(files "$T/owrt")"
    promise 'the init script for procd is one'
    like '^#!/bin/sh /etc/rc.common$' "$(head -n 1 "$real_o/files/dnsproxy.init")"
    same '' "$(sh -n "$real_o/files/dnsproxy.init" 2>&1)"
    real_x=$(
        procd_open_instance() { :; }
        procd_close_instance() { :; }
        procd_set_param() { echo "$*"; }
        # shellcheck disable=SC1091
        . "$real_o/files/dnsproxy.init"
        start_service
    )
    like '^command /usr/sbin/dnsproxy$' "$real_x"
    like '^reload_signal HUP$' "$real_x"
    promise 'what the container file builds runs alone in its directory, as nobody'
    readme containerfile >"$T/Containerfile"
    for real_x in $(sed -n 's/^COPY \([^-].*\) [^ ]*$/\1/p' "$T/Containerfile"); do [ -e "$SRC/$real_x" ] || fail "COPY $real_x: not in the source"; done
    like '^USER 65534' "$(cat "$T/Containerfile")"
    if [ "$(id -u)" != 0 ]; then
        skip 'not here: chroot needs root'
    elif static_here; then
        cp -p "$SRC/Makefile" "$SRC/dnsproxy.c" "$T/image/src/"
        sed -n 's/^RUN //p; /^ /p' "$T/Containerfile" | sed "/apt-get/d; s|/src|$T/image/src|g; s|/out|$T/image/out|g" >"$T/image.sh"
        sh -e "$T/image.sh" >"$T/image.log" 2>&1 || fail "$(tail -n 3 "$T/image.log")"
        same './dnsproxy ./etc/group ./etc/passwd ./etc/ssl/certs/ca-certificates.crt' "$(files "$T/image/out")" files
        alone "$T/image/out"
    fi
    promise 'the Kubernetes files are YAML, and their configurations are right'
    if /usr/bin/python3 -c 'import yaml' 2>/dev/null; then
        { readme 'kubernetes sidecar'; echo ---; readme 'kubernetes daemonset'; } >"$T/kube.yaml"
        (cd "$T" && /usr/bin/python3 - kube.yaml) >"$T/kube.out" 2>&1 <<'END'
import sys, yaml
pod, config, daemon = all = list(yaml.safe_load_all(open(sys.argv[1])))
assert [d['kind'] for d in all] == ['Pod', 'ConfigMap', 'DaemonSet']
t = daemon['spec']['template']
assert daemon['spec']['selector']['matchLabels'] == t['metadata']['labels']
for c in t['spec']['containers']:
    assert {m['name'] for m in c['volumeMounts']} <= {v['name'] for v in t['spec']['volumes']}
open('kube.1', 'w').write('\n'.join(a for c in pod['spec']['containers'] if c['name'] == 'dnsproxy' for a in c['args']))
open('kube.2', 'w').write(config['data']['dns.config'])
END
        same 0 $? "$(cat "$T/kube.out")"
        for real_x in 1 2; do valid -c "$T/kube.$real_x"; done
    else
        skip 'python3-yaml is missing'
    fi
    promise 'the shell commands of the README are shell'
    for real_x in build tests long image bench pin cross; do
        readme "$real_x" >"$T/readme.sh"
        [ -s "$T/readme.sh" ] || fail "there is no command $real_x"
        same '' "$(sh -n "$T/readme.sh" 2>&1)" "command $real_x"
    done
    promise 'the first command of the README builds and serves as it stands'
    real_t=$T/readme.tree
    mkdir -p "$T/fake" "$real_t"
    cp -p "$SRC/Makefile" "$SRC/dnsproxy.c" "$real_t/"
    ln -s /bin/true "$T/fake/apt-get"
    if [ "$(id -u)" = 0 ] && netns; then
        begin readme env CC="$CC" CFLAGS="$CFLAGS" BEARSSL="$BEARSSL" PATH="$T/fake:$PATH" sh -c "cd $real_t && $(readme build)"
        await 120 readme_serves || fail 'it does not serve'
        real_x=$(ns sh -c "$(sed -n 's/^\(kdig .*-p 5300.*\)/\1 +retry=0 +timeout=8/p' "$SRC/README.md")" 2>&1)
        like 'status: (NOERROR|SERVFAIL)' "$real_x" 'the kdig command below it'
        kill "$(pgrep -P "$(pid readme)" -x dnsproxy)" || fail 'dnsproxy is not what runs there'
    else
        skip 'not here: not root, or namespaces are not allowed'
    fi
    promise 'the pin of the README is the pin that the program takes'
    if needs openssl; then
        tls_ready
        real_x=$(openssl x509 -in "$T/pki/good.crt" -pubkey -noout | openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64)
        same "$(cat "$T/pki/good.pin")" "$real_x"
        exits 0 'tls pin=' -t "127.0.0.1 1 tls pin=$real_x"
    fi
}
readme_serves() { (cd "$real_t" && ns ./dnsproxy -a status) 2>/dev/null | grep -q '^dnsproxy '; }

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
    if [ "$(id -u)" != 0 ] || ! have buildah; then
        skip 'not here: buildah or root is missing'
    elif ! $x pull -q docker.io/library/debian:12 >"$T/buildah.log" 2>&1 && ! image_base >"$T/buildah.log" 2>&1; then
        skip "not here: no base image can be had ($(tail -n 1 "$T/buildah.log" | cut -c1-120))"
    else
        readme containerfile >"$T/Containerfile"
        $x bud -q --pull=never --format docker --isolation chroot -f "$T/Containerfile" -t dnsproxy-test "$SRC" >"$T/buildah.log" 2>&1 || fail "$(tail -n 3 "$T/buildah.log")"
        c=$($x from --pull=never dnsproxy-test) && m=$($x mount "$c")
        alone "$m"
        $x umount "$c" >/dev/null
    fi
}
image_base() {
    have debootstrap && debootstrap --variant=minbase bookworm "$T/base" ${MIRROR:-} && c=$($x from scratch) &&
        $x add -q "$c" "$T/base" / && $x commit -q "$c" docker.io/library/debian:12
}
