#!/bin/sh
# shellcheck disable=SC2034,SC2154
# test.sh - what dnsproxy promises, one promise a line
#
#   ./test.sh                 the default legs
#   ./test.sh NAME...         only these legs (./test.sh list names them)
#   ./test.sh help            the long runs: bench, fuzz, soak, cross, asan, valgrind, ...
#
# This is the door. tests/lib.sh has what the legs are made of, tests/CHAPTER.sh the legs. A leg is a function leg_NAME, which is
# all that it needs to be run: it says `promise TEXT`, does something, and checks with same, like and unlike. Legs run side by side,
# each a process of its own with a directory, ports and (for root) a loopback of its own; what they print comes out in order.
# The program under test is built from dnsproxy.c beside this file, or is the one that BIN= names.

set -u
export LC_ALL=C
unset TLS_DNS_IP TLS_DNS_PORT PROXY_PORT NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID 2>/dev/null

SRC=$(cd "$(dirname "$0")" && pwd) || exit 1
CHAPTERS="serving messages choosing spoofing cache admin config logs limits reload house tls tls_life connections https unit real day packages documents"
RUNS="fresh heavy fuzz cross soak bench works"
CC=${CC:-cc}
CFLAGS=${CFLAGS:--O2 -g}
BEARSSL=${BEARSSL:-}
BIN=${BIN:-}
WRAP=${WRAP:-}                  # words before $BIN, such as valgrind and its options
WATCH=${WATCH:-}                # asan or valgrind: their reports are looked for after each leg
SLOW=${SLOW:-1}                 # deadlines are multiplied by this: a sanitizer or emulator is slow
NS=''                           # words that enter a network namespace, see netns
export CC CFLAGS BEARSSL BIN WRAP WATCH SLOW

# The directory of this run, $ROOT, has what all legs share: tools, the program, certificates. That of a leg is $T.
if [ -n "${TEST_ROOT:-}" ]; then
    ROOT=$TEST_ROOT
    T=$ROOT/leg.$1
    mkdir "$T" || exit 1
else
    ROOT=$(mktemp -d "${TMPDIR:-/tmp}/dnsproxy-test.XXXXXX") || exit 1
    T=$ROOT
fi
chmod 755 "$T"                  # the program reads files here after it has become nobody

for chapter in lib $CHAPTERS $RUNS; do
    # shellcheck source=/dev/null
    . "$SRC/tests/$chapter.sh"
done
# The default list: all legs of the chapters, in their order
# shellcheck disable=SC2046,SC2086
LEGS=$(cd "$SRC/tests" && sed -n 's/^leg_\([a-z0-9_]*\)() {$/\1/p' $(printf '%s.sh ' $CHAPTERS))

usage() {
    cat <<END
usage: ./test.sh [LEG...]      the default legs, or these
       ./test.sh list          names of the legs
       ./test.sh help          this text
long runs, each a word and its arguments:
       bench [quick|counts]    speed beside other forwarders; instructions alone, BEFORE=TREE against the build of that
       fuzz [SECONDS]          each fuzz target for so long
       soak [SECONDS]          mixed load with failing upstreams
       cross                   other machines, under emulation
       asan                    the legs with address and undefined-behaviour sanitizers
       valgrind                some legs under valgrind
       analyse                 compilers' and other static analysers
       static                  the static musl build
       image                   the container file, built by buildah
       fresh SUITE [ARG...]    both commands of README.md on a fresh Debian (trixie, sid, ...)
       works [NAME...|common]  real servers, clients and validators, in a small signed world
environment: BIN (a built dnsproxy), CC, CFLAGS, BEARSSL (its tree), JOBS (legs at a time), KEEP=1 (leave the files),
       SLOW=N (longer deadlines), CI=true (a skip is a failure, but for what says "not here")
legs: $(echo $LEGS)
END
}

# prepare: the tools and the program
prepare() {
    [ -x "$ROOT/peer" ] || compile "$ROOT/peer" tests/peer.c -O1 -g || { echo "test.sh: the test tools do not compile" >&2; exit 1; }
    if [ -z "$BIN" ]; then
        BIN=$ROOT/dnsproxy
        build "$BIN" || { echo "test.sh: dnsproxy.c does not compile" >&2; exit 1; }
    fi
}

# ---- Legs side by side

JOBS=${JOBS:-$(($(nproc 2>/dev/null || echo 2) * 3 + 2))}       # so many at a time: nearly all of a leg is waiting
FIRST="connections_slow tcp failing stale real_servers tls_idle"        # what takes longest begins first
own='' own_begin=''             # namespaces that each leg has of its own, as unshare takes them, and what is done first in there
pids=''                         # processes of the legs that were started

# leg_here NAME: one leg, in this process; its sum goes into a file. NAME__WORD is the leg NAME for that WORD.
leg_here() {
    legnow=$1 leg_began=$(date +%s)
    echo "# $1"
    [ -z "$WATCH" ] || "watch_$WATCH"
    case $1 in tls_* | https* | connections*) tls_ready ;; esac         # they find the certificates there
    "leg_${1%%__*}" "${1#*__}"
    reap
    [ -z "$WATCH" ] || watched
    judge
    echo "$passed $failed $skipped $(($(date +%s) - leg_began))" >"$ROOT/$1.sum"
}

# namespaces: a loopback, if that can be had. In a plain chroot the root is no mount point, and no mount namespace can be made, until
# the root is bound to a place and gone into there.
namespaces() {
    [ "$(id -u)" = 0 ] && have unshare ip || return
    if unshare -n ip link set lo up 2>/dev/null; then own=-n own_begin='ip link set lo up; exec'; fi
    if ! unshare -m true 2>/dev/null && unshare --propagation unchanged -m sh -c 'mount --rbind / /mnt && chroot /mnt unshare -m true' 2>/dev/null; then
        own="$own --propagation unchanged -m" own_begin="${own_begin%exec} mount --rbind / /mnt; exec chroot /mnt"
    fi
}

# leg_process NAME: the same in a process of its own
leg_process() {
    set -- timeout -k 20 $((900 * SLOW)) env TEST_ROOT="$ROOT" "$SRC/test.sh" "$1"
    # shellcheck disable=SC2086
    [ -z "$own" ] || set -- unshare $own sh -c "$own_begin \"\$@\"" sh "$@"
    exec "$@" </dev/null
}

# leg_start NAME: the same meanwhile, with its output in a file; those behind the first $JOBS begin when others have ended
leg_start() {
    : >"$ROOT/$1.out"
    start_n=$((${start_n:-0} + 1))
    (
        [ "$start_n" -le "$JOBS" ] || read -r _ <&3
        [ "$JOBS" = 1 ] || exec >"$ROOT/$1.out"
        leg_process "$1" 2>&1 3<&- &
        trap 'kill $!' HUP INT TERM
        wait $! || wait $!
        echo >&3
    ) &
    eval "pid_$1=$!"
    pids="$pids $!"
}

# leg_print NAME: what the leg printed, its promises numbered on
leg_print() {
    awk -v n=$((passed + failed + skipped)) '/^(not )?ok [0-9]+ - / { sub(/ok [0-9]+/, "ok " ++n) } { print }' "$ROOT/$1.out"
    # the shell's own words: a promise may have proved nothing
    print_w=$(grep -E 'test\.sh: (line )?[0-9]+: ' "$ROOT/$1.out" | sort | uniq -c | head -n 5)
    if [ -s "$ROOT/$1.sum" ]; then
        read -r print_p print_f print_s print_t <"$ROOT/$1.sum"
        passed=$((passed + print_p)) failed=$((failed + print_f)) skipped=$((skipped + print_s))
        echo "$print_t $1" >>"$ROOT/.times"
    else
        print_w="$print_w it was killed, or took longer than $((900 * SLOW)) s"
    fi
    [ -n "$print_w" ] || return 0
    legnow=$1
    promise "$1 runs to its end, without an error of the shell"
    fail "$print_w"
    judge
}

# run_legs NAME...: false if any promise failed
run_legs() {
    for run_l; do
        command -v "leg_${run_l%%__*}" >/dev/null || { echo "test.sh: $run_l is no leg; ./test.sh list names them" >&2; exit 2; }
    done
    prepare
    namespaces
    [ $# -gt 1 ] || JOBS=1
    mkfifo "$ROOT/.ended"
    exec 3<>"$ROOT/.ended"
    for run_l in $FIRST "$@"; do
        case " $* " in *" $run_l "*) [ -e "$ROOT/$run_l.out" ] || leg_start "$run_l" ;; esac
        [ "$JOBS" != 1 ] || wait
    done
    for run_l; do
        eval "wait \$pid_$run_l"
        leg_print "$run_l"
    done
    pids=''                     # their numbers may be those of others by now
    [ $# = 1 ] || echo "# longest: $(sort -rn "$ROOT/.times" | awk 'NR <= 6 { printf "%s%s %d s", c, $2, $1; c = ", " }')"
    sum
}

# sum: the last line; false if any promise failed
sum() {
    if [ -s "$ROOT/.failed" ]; then
        echo "# failed:"
        sed 's/^/#   /' "$ROOT/.failed"
    fi
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}

main() {
    case ${1:-} in
    help | -h | --help) usage; exit 0 ;;
    list) printf '%s\n' $LEGS; exit 0 ;;
    esac
    if [ $# -gt 0 ] && command -v "cmd_$1" >/dev/null; then
        legnow=$1
        shift
        [ "$legnow" = fresh ] || prepare
        "cmd_$legnow" "$@"
        main_s=$?
        [ -z "$promise_text" ] || { judge; sum; exit; }
        exit $main_s
    fi
    # shellcheck disable=SC2086
    [ $# -gt 0 ] || set -- $LEGS
    run_legs "$@"
    exit
}

if [ -n "${TEST_ROOT:-}" ]; then
    leg_here "$1"
    exit 0
fi
main "$@"
