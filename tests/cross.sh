# shellcheck shell=sh disable=SC2034,SC2154
# cross.sh - other machines, under emulation.
# Alone: ./test.sh cross

# ---- Other machines, under emulation

# cross [ARCHITECTURE...]: 32 and 64 bits, both byte orders; built with Debian's cross compilers and the BearSSL of that architecture
cmd_cross() {
    [ $# -gt 0 ] || set -- armhf mipsel i386 s390x
    legnow=cross
    tls_ready
    cross_binary=$BIN
    for cross_a; do
        case $cross_a in
        armhf) cross_t=arm-linux-gnueabihf cross_q=arm cross_p=$cross_t cross_l=$cross_t ;;
        mipsel) cross_t=mipsel-linux-gnu cross_q=mipsel cross_p=$cross_t cross_l=$cross_t ;;
        i386) cross_t=i686-linux-gnu cross_q=i386 cross_p=i686-linux-gnu cross_l=i386-linux-gnu ;;
        s390x) cross_t=s390x-linux-gnu cross_q=s390x cross_p=$cross_t cross_l=$cross_t ;;
        *) echo "test.sh: cross knows armhf, mipsel, i386 and s390x" >&2; return 2 ;;
        esac
        promise "$cross_a: dnsproxy.c compiles without a warning, and no cast raises the alignment"
        cross_m=''
        have "$cross_t-gcc" || cross_m="$cross_m gcc-$cross_p libc6-dev-$cross_a-cross"
        have "qemu-$cross_q-static" || cross_m="$cross_m qemu-user-static"
        [ -e "/usr/lib/$cross_l/libbearssl.a" ] || cross_m="$cross_m libbearssl-dev:$cross_a"
        if [ -n "$cross_m" ]; then
            skip "missing packages:$cross_m (after dpkg --add-architecture $cross_a)"
            continue
        fi
        cross_f="-std=c11 -O2 -g -L/usr/lib/$cross_l -static"
        # shellcheck disable=SC2086
        cross_o=$("$cross_t-gcc" $cross_f -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wcast-align=strict -Werror -o "$T/dnsproxy.$cross_a" "$SRC/dnsproxy.c" -lbearssl 2>&1 |
            grep -v "statically linked applications requires\|in function \`")
        unlike 'error|warning: [^U]' "$cross_o" "the compiler"
        [ -x "$T/dnsproxy.$cross_a" ] || { fail "$cross_o"; continue; }
        promise "$cross_a: the unit tests pass"
        # shellcheck disable=SC2086
        cross_o=$("$cross_t-gcc" $cross_f -o "$T/unit.$cross_a" "$SRC/tests/unit.c" -lbearssl 2>&1) || fail "$cross_o"
        cross_o=$("qemu-$cross_q-static" "$T/unit.$cross_a" 2>&1 </dev/null)
        like '^end$' "$(printf '%s\n' "$cross_o" | tail -n 1)" "the last line"
        [ "$(printf '%s\n' "$cross_o" | grep -c '^not ok')" = 0 ] || fail "$(printf '%s\n' "$cross_o" | grep -B 1 '^not ok')"
        within 100 1000 "$(printf '%s\n' "$cross_o" | grep -c '^ok')" "unit tests passed"
        judge
        BIN=$T/dnsproxy.$cross_a WRAP=qemu-$cross_q-static SLOW=$((SLOW * 5))
        cross_smoke "$cross_a"
        judge
        reap
        BIN=$cross_binary WRAP='' SLOW=$((SLOW / 5))
    done
    judge
    sum
}

# cross_smoke ARCHITECTURE
cross_smoke() {
    rm -f "$T"/*.up
    up u1
    dot one good
    promise "$1: serves over UDP and TCP, from an upstream over UDP"
    proxy p "$u1 1" "$one 2 tls pin=$(cat "$T/pki/good.pin")" 'patience 300'
    like '^NOERROR .*192\.0\.2\.1' "$(ask www.cross.test)"
    like '^NOERROR .*192\.0\.2\.1' "$(ask tcp.cross.test +tcp)"
    like '^NOERROR .* edns=1232' "$(ask edns.cross.test AAAA +edns +do)"
    like 'answered 500 noerror 500 .* wrong 0 dup 0' "$(many n=500 window=50)"
    promise "$1: answers from the cache with a lowered TTL and the client's spelling"
    forget u1
    await 5 cross_aged || fail "the TTL stays: $(ask www.cross.test)"
    like '^NOERROR .*192\.0\.2\.1' "$(ask WWW.cross.TEST)"
    same 0 "$(asked u1 www.cross)" "queries at the upstream"
    promise "$1: answers over a TLS upstream with a pinned key"
    kill_pid u1
    answered 10 5
    promise "$1: status and metrics"
    like '^upstream .* tls priority 2 state up' "$(adm status)"
    like '^entry www\.cross\.test\. A IN expires 20' "$(adm status)"
    stop p
    promise "$1: answers over a TLS upstream whose chain and name are verified"
    # shellcheck disable=SC2154
    proxy p "$ca" "$one 1 tls=dns.test"
    answered 10 20
    stop p
}
cross_aged() { ! ask www.cross.test | grep -q ' 300 A '; }
