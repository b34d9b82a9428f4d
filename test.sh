#!/bin/sh
# shellcheck disable=SC2034,SC2154
# test.sh - what dnsproxy promises, one promise a line
#
#   ./test.sh                 the default legs
#   ./test.sh NAME...         only these legs (./test.sh list names them)
#   ./test.sh help            the long runs: bench, fuzz, soak, cross, asan, valgrind, ...
#
# A leg is a function leg_NAME. It says `promise TEXT`, does something, and checks with same, like and unlike.
# The program under test is built from dnsproxy.c beside this file, or is the one that BIN= names.

set -u
export LC_ALL=C
unset TLS_DNS_IP TLS_DNS_PORT PROXY_PORT NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID 2>/dev/null

# ---- Framework ---------------------------------------------------------

SRC=$(cd "$(dirname "$0")" && pwd) || exit 1
T=$(mktemp -d "${TMPDIR:-/tmp}/dnsproxy-test.XXXXXX") || exit 1
chmod 755 "$T"                  # the program reads files here after it has become nobody
CC=${CC:-cc}
CFLAGS=${CFLAGS:--O2 -g}
BEARSSL=${BEARSSL:-}
BIN=${BIN:-}
WRAP=${WRAP:-}                  # words before $BIN, such as valgrind and its options
NS=''                           # words that enter a network namespace, see netns
SLOW=${SLOW:-1}                 # deadlines are multiplied by this: a sanitizer or emulator is slow
LEGS=""                         # the default list; each part adds its own

for chapter in lib serving messages choosing spoofing cache admin config logs limits reload network tls tls_life unit \
    real day packages documents heavy fuzz cross soak bench; do
    # shellcheck source=/dev/null
    . "$SRC/tests/$chapter.sh"
done

usage()
{
    cat <<END
usage: ./test.sh [LEG...]      the default legs, or these
       ./test.sh list          names of the legs
       ./test.sh help          this text
long runs, each a word and its arguments:
       bench [quick]           speed beside other forwarders
       fuzz [SECONDS]          each fuzz target for so long
       soak [SECONDS]          mixed load with failing upstreams
       cross                   other machines, under emulation
       asan                    the legs with address and undefined-behaviour sanitizers
       valgrind                some legs under valgrind
       analyse                 compilers' and other static analysers
       static                  the static musl build
environment: BIN (a built dnsproxy), CC, CFLAGS, BEARSSL (its tree), KEEP=1 (leave the files), SLOW=N (longer deadlines), CI=true (no skips)
legs: $LEGS
END
}

# prepare: the tools and the program
prepare()
{
    tools_build || { echo "test.sh: the test tools do not compile" >&2; exit 1; }
    if [ -z "$BIN" ]; then
        BIN=$T/dnsproxy
        build "$BIN" || { echo "test.sh: dnsproxy.c does not compile" >&2; exit 1; }
    fi
}

# run_leg NAME
run_leg()
{
    legnow=$1
    echo "# $1"
    "leg_$1"
    judge
    reap
    port='' admin=''
}

# run_legs NAME...: prints the sum; false if any promise failed
run_legs()
{
    for run_l; do run_leg "$run_l"; done
    if [ -s "$T/.failed" ]; then
        echo "# failed:"
        sed 's/^/#   /' "$T/.failed"
    fi
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}

main()
{
    case ${1:-} in
    help | -h | --help) usage; exit 0 ;;
    list) printf '%s\n' $LEGS; exit 0 ;;
    esac
    if [ $# -gt 0 ] && command -v "cmd_$1" >/dev/null; then
        main_c=$1
        shift
        prepare
        "cmd_$main_c" "$@"
        exit
    fi
    for main_l; do
        command -v "leg_$main_l" >/dev/null || { echo "test.sh: $main_l is no leg; ./test.sh list names them" >&2; exit 2; }
    done
    prepare
    # shellcheck disable=SC2086
    [ $# -gt 0 ] || set -- $LEGS
    run_legs "$@"
    exit
}

main "$@"
