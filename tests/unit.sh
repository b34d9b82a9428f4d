# shellcheck shell=sh disable=SC2034,SC2154
# unit.sh - the unit tests: tests/unit.c includes dnsproxy.c.
# Alone: ./test.sh unit

LEGS="$LEGS unit"

# ---- Unit tests: a program that includes dnsproxy.c ----------------------

# lab_build OUT SOURCE [FLAG...]: compiles a program that includes dnsproxy.c
lab_build() {
    lab_o=$1 lab_s=$2
    shift 2
    if [ -n "$BEARSSL" ]; then
        "$CC" -std=c11 -I"$SRC" -I"$SRC/tests" -I"$BEARSSL/inc" "$@" -o "$lab_o" "$lab_s" "$BEARSSL/build/libbearssl.a"
    else
        "$CC" -std=c11 -I"$SRC" -I"$SRC/tests" "$@" -o "$lab_o" "$lab_s" -lbearssl
    fi
}

# unit_run COMMAND...: runs the unit tests, each line a promise
unit_run() {
    ("$@"; echo "status $?") >"$T/unit.out" 2>"$T/unit.err" </dev/null
    unit_end='' unit_note=''
    while read -r unit_w unit_l; do
        case $unit_w in
        ok) promise "$unit_l" ;;
        not) promise "${unit_l#ok }"; fail "$unit_note" ;;
        '#') unit_note=$unit_l; continue ;;
        end) unit_end=yes ;;
        status) [ "$unit_l" = 0 ] && [ -n "$unit_end" ] || { promise "the unit tests run to their end"; fail "status $unit_l: $(head -n 30 "$T/unit.err")"; } ;;
        esac
        unit_note=''
    done <"$T/unit.out"
    judge
}

# With sanitizers where the compiler has them
leg_unit() {
    lab_build "$T/unit" "$SRC/tests/unit.c" -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all 2>"$T/unit.log" || {
        lab_build "$T/unit" "$SRC/tests/unit.c" -O1 -g 2>"$T/unit.log" || { promise "the unit tests compile"; fail "$(cat "$T/unit.log")"; return; }
    }
    ASAN_OPTIONS=detect_leaks=0 unit_run "$T/unit"
}
