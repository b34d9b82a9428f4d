# cross.sh - other machines, under emulation: 32 and 64 bits, both byte orders; built with Debian's cross compilers and the
# BearSSL of that architecture, or, where Debian has none, of the tree that CROSS_BEARSSL names (make lib with that compiler as CC and LD).
# Alone: ./test.sh cross [ARCHITECTURE...]

# cross [ARCHITECTURE...]
cmd_cross() {
    [ $# -gt 0 ] || set -- armhf arm64 i386 s390x mipsel riscv64
    # shellcheck disable=SC2046
    run_legs $(printf 'cross__%s ' "$@")
}

# leg_cross ARCHITECTURE: a machine, by Debian's name; behind that the names of its compiler, emulator and library
leg_cross() {
    case $1 in
    armhf) set -- armhf arm-linux-gnueabihf arm ;;
    arm64) set -- arm64 aarch64-linux-gnu aarch64 ;;
    i386) set -- i386 i686-linux-gnu i386 i386-linux-gnu ;;
    s390x) anywhere_w=1 ;;      # one query at a time: qemu-user does not turn round the length with which replies are taken apart
    esac
    [ $# -gt 1 ] || set -- "$1" "$1-linux-gnu" "$1"
    cross_cc=$2-gcc cross_q=qemu-$3 cross_l=${4:-$2}
    have "$cross_q" || cross_q=$cross_q-static
    promise "$1: dnsproxy.c compiles without a warning, and no cast raises the alignment"
    cross_m=''
    have "$cross_cc" || cross_m="gcc-$2 libc6-dev-$1-cross"
    have "$cross_q" || cross_m="$cross_m qemu-user"
    cross_b='' cross_lib=/usr/lib/$cross_l/libbearssl.a
    [ -e "$cross_lib" ] || cross_b=${CROSS_BEARSSL:-} cross_lib=${CROSS_BEARSSL:-}/build/libbearssl.a
    [ -e "$cross_lib" ] || cross_m="$cross_m libbearssl-dev:$1"
    if [ -n "$cross_m" ]; then
        # mipsel ends with Debian 12, the BearSSL of riscv64 begins with 13
        case $1 in mipsel | riscv64) skip "not here: missing: $cross_m" ;; *) skip "missing: $cross_m" ;; esac
        return
    fi
    cross_f="-std=c11 -O2 -g ${cross_b:+-isystem $cross_b/inc}"
    same '' "$("$cross_cc" $cross_f -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wcast-align=strict -Werror -c -o /dev/null "$SRC/dnsproxy.c" 2>&1)" "the compiler"
    promise "$1: make static makes a program of one file"
    mkdir -p "$T/$1"
    cp "$SRC/Makefile" "$SRC/dnsproxy.c" "$T/$1/"
    cross_o=$(make -C "$T/$1" static STATIC_CC="$cross_cc" BEARSSL="$cross_b" 2>&1)
    BIN=$T/$1/dnsproxy-static
    [ -x "$BIN" ] || { fail "$cross_o"; return; }
    promise "$1: the unit tests pass"
    cross_o=$("$cross_cc" $cross_f -static -o "$T/unit.$1" "$SRC/tests/unit.c" "$cross_lib" 2>&1) || fail "$cross_o"
    compile "$T/unit" tests/unit.c -O1 2>"$T/unit.log" || fail "$(cat "$T/unit.log")"
    cross_o=$("$cross_q" "$T/unit.$1" 2>&1 </dev/null)
    unlike '^not ok' "$cross_o" "the unit tests"
    same "$("$T/unit" 2>&1 </dev/null)" "$cross_o" "what they say on this machine"
    WRAP=$cross_q SLOW=$((SLOW * 5))
    serves_anywhere "$1: it"
    promise "$1: answers over a TLS upstream whose chain and name are verified"
    proxy p "$ca" "$one 1 tls=dns.test"
    answered 10 20
}

# serves_anywhere WHO: what the program does on whatever machine, also in heavy.sh
serves_anywhere() {
    tls_ready
    up u1
    dot one good
    proxy p "$u1 1" "$one 2 tls pin=$(cat "$T/pki/good.pin")" 'patience 300'
    promise "$1 serves over UDP and TCP, from an upstream over UDP"
    says '^NOERROR .*192\.0\.2\.1' www.cross.test
    says '^NOERROR .*192\.0\.2\.1' tcp.cross.test +tcp
    says '^NOERROR .* edns=1232' edns.cross.test AAAA +edns +do
    like 'answered 500 noerror 500 .* wrong 0 dup 0' "$(many n=500 window="${anywhere_w:-50}")"
    promise "$1 answers from the cache with a lowered TTL and the client's spelling"
    forget u1
    await 5 cross_aged || fail "the TTL stays: $(ask www.cross.test)"
    says '^NOERROR .*192\.0\.2\.1' WWW.cross.TEST
    saw 0 www.cross u1
    promise "$1 answers over a TLS upstream with a pinned key"
    kill_pid u1
    answered 10 5
    promise "$1 has status and metrics"
    like '^upstream .* tls priority 2 state up' "$(adm status)"
    like '^entry www\.cross\.test\. A IN expires 20' "$(adm status)"
}
cross_aged() { ! ask www.cross.test | grep -q ' 300 A '; }
