# unit.sh - the unit tests: the program's parts from inside, see tests/unit.c. Each line that it prints is a promise.
# Alone: ./test.sh unit

# With sanitizers where the compiler has them
leg_unit() {
    compile "$T/unit" tests/unit.c -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all 2>"$T/unit.log" ||
        compile "$T/unit" tests/unit.c -O1 -g 2>"$T/unit.log"
    ASAN_OPTIONS=detect_leaks=0 "$T/unit" >"$T/unit.out" 2>>"$T/unit.log" </dev/null
    unit_s="status $?"
    while read -r unit_w unit_l; do
        case $unit_w in
        ok) promise "$unit_l" ;;
        not) promise "${unit_l#ok }"; fail "$unit_note" ;;
        end) unit_s=${unit_s#status 0} ;;
        esac
        unit_note=$unit_l
    done <"$T/unit.out"
    [ -z "$unit_s" ] || { promise "the unit tests run to their end"; fail "$unit_s: $(head -n 30 "$T/unit.log")"; }
}
