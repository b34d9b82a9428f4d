# unit.sh - the unit tests: the program's parts from inside, see tests/unit.c. Each line that it prints is a promise.
# Alone: ./test.sh unit

# With sanitizers where the compiler has them
leg_unit() {
    compile "$T/unit" tests/unit.c -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all 2>"$T/unit.log" ||
        compile "$T/unit" tests/unit.c -O1 -g 2>"$T/unit.log" || { promise "the unit tests compile"; fail "$(cat "$T/unit.log")"; return; }
    (ASAN_OPTIONS=detect_leaks=0 "$T/unit"; echo "status $?") >"$T/unit.out" 2>"$T/unit.err" </dev/null
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
