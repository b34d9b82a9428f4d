#!/bin/sh
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

port='' admin=''                # of the proxy started or chosen last
passed=0 failed=0 skipped=0
promise_text='' why="$T/.why" skipwhy=''
legnow=''

: >"$T/.started" ; : >"$why" ; : >"$T/.failed"

trap 'finish $?' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# The last act: everything started is stopped, the directory goes (KEEP=1 leaves it).
finish()
{
    trap - EXIT HUP INT TERM
    reap
    if [ -n "${KEEP:-}" ]; then echo "# kept: $T"; else rm -rf "$T"; fi
    exit "$1"
}

# ---- Promises

# promise TEXT: judges the one before, starts the next.
promise()
{
    judge
    promise_text=$1 skipwhy=''
    : >"$why"
}

# judge: prints what became of the current promise.
judge()
{
    [ -n "$promise_text" ] || return 0
    if [ -n "$skipwhy" ] && [ "${CI:-}" = true ]; then
        case $skipwhy in
        'not here:'*) ;;
        *) echo "skipped, and CI skips nothing: $skipwhy" >>"$why" ;;
        esac
    fi
    judge_n=$((passed + failed + skipped + 1))
    if [ -s "$why" ]; then
        failed=$((failed + 1))
        printf 'not ok %s - %s\n' "$judge_n" "$promise_text"
        sed 's/^/    /' "$why"
        tails
        printf '%s: %s\n' "$legnow" "$promise_text" >>"$T/.failed"
    elif [ -n "$skipwhy" ]; then
        skipped=$((skipped + 1))
        printf 'ok %s - %s # SKIP %s\n' "$judge_n" "$promise_text" "$skipwhy"
    else
        passed=$((passed + 1))
        printf 'ok %s - %s\n' "$judge_n" "$promise_text"
    fi
    promise_text=''
}

# tails: the last lines of the logs of what runs or ran in this leg.
tails()
{
    for tails_f in $(sed 's/ .*//' "$T/.started" | sort -u); do
        for tails_g in "$T/$tails_f.log" "$T/$tails_f.q"; do
            [ -s "$tails_g" ] || continue
            echo "    --- ${tails_g#"$T"/}"
            tail -n 8 "$tails_g" | cut -c 1-300 | sed 's/^/    /'
        done
    done
}

fail() { printf '%s\n' "$*" >>"$why"; }
skip() { skipwhy=$*; }

# same WANT GOT [WHAT]
same()
{
    [ "$1" = "$2" ] || fail "${3:+$3: }wanted [$1], got [$2]"
}

# like ERE TEXT [WHAT], unlike ERE TEXT [WHAT]: any line of TEXT may match
like()
{
    printf '%s\n' "$2" | grep -Eq -e "$1" || fail "${3:+$3: }wanted /$1/, got [$2]"
}
unlike()
{
    ! printf '%s\n' "$2" | grep -Eq -e "$1" || fail "${3:+$3: }wanted nothing like /$1/, got [$2]"
}

# within LOW HIGH GOT [WHAT]: LOW <= GOT <= HIGH, whole numbers; if WHAT speaks of ms, SLOW makes HIGH higher
within()
{
    case " ${4:-} " in *[!a-z]ms[!a-z]*) set -- "$1" $(($2 * SLOW)) "$3" "$4" ;; esac
    case $3 in
    '' | *[!0-9-]*) fail "${4:+$4: }wanted $1 to $2, got [$3]" ;;
    *) { [ "$3" -ge "$1" ] && [ "$3" -le "$2" ]; } || fail "${4:+$4: }wanted $1 to $2, got $3" ;;
    esac
}

have()
{
    for have_c; do command -v "$have_c" >/dev/null 2>&1 || return 1; done
}

# ---- Processes

# started NAME PID: remembers a process, so that it ends with the leg. Its output belongs in $T/NAME.log.
started()
{
    echo "$1 $2" >>"$T/.started"
    echo "$2" >"$T/$1.pid"
}

# pid NAME: its process id
pid() { cat "$T/$1.pid"; }

# kill_pid NAME [SIGNAL]: ends it without a word
kill_pid()
{
    [ -s "$T/$1.pid" ] || return 0
    kill_p=$(pid "$1")
    kill -CONT "$kill_p" 2>/dev/null
    kill -"${2:-KILL}" "$kill_p" 2>/dev/null
    wait "$kill_p" 2>/dev/null
    rm -f "$T/$1.pid"
    return 0
}

# reap: ends everything that was started and still runs.
reap()
{
    while read -r reap_n reap_p; do
        [ "$(cat "$T/$reap_n.pid" 2>/dev/null)" = "$reap_p" ] || continue
        kill_pid "$reap_n"
    done <"$T/.started"
    : >"$T/.started"
    NS=''
}

# await SECONDS CMD...: runs CMD every 20 ms until it is true; false at the deadline
await()
{
    await_end=$(($(date +%s) + $1 * SLOW + 1))
    shift
    until "$@"; do
        [ "$(date +%s)" -lt "$await_end" ] || return 1
        sleep 0.02
    done
}

# logged NAME ERE: the log of NAME has such a line;  logs NAME ERE: how many
logged() { grep -Eq -e "$2" "$T/$1.log"; }
logs() { grep -Ec -e "$2" "$T/$1.log"; }

# tool WORD...: the test tool, in the namespace if there is one
# shellcheck disable=SC2086
tool() { $NS "$T/tool" "$@"; }

freeport() { tool freeport; }

# netns: from here to the end of the leg everything runs in a network namespace of its own, where `ns CMD` runs a command. False if that
# is not allowed here. (Only for root: in a user namespace the program would take itself for root.)
netns()
{
    [ "$(id -u)" = 0 ] && have unshare nsenter ip && unshare -n true 2>/dev/null || return 1
    unshare -n sleep 1000 &
    started netns $!
    NS="nsenter -t $! -n"
    netns_me=$(readlink /proc/self/ns/net)
    await 5 netns_other $! "$netns_me" && ns ip link set lo up
}
netns_other() { [ "$(readlink "/proc/$1/ns/net")" != "$2" ]; }
# shellcheck disable=SC2086
ns() { $NS "$@"; }

# build OUT [FLAG...]: compiles dnsproxy.c
build()
{
    build_o=$1
    shift
    if [ -n "$BEARSSL" ]; then
        # shellcheck disable=SC2086
        "$CC" -std=c11 $CFLAGS "$@" -I"$BEARSSL/inc" -o "$build_o" "$SRC/dnsproxy.c" "$BEARSSL/build/libbearssl.a" ${LDLIBS:-}
    else
        # shellcheck disable=SC2086
        "$CC" -std=c11 $CFLAGS "$@" -o "$build_o" "$SRC/dnsproxy.c" -lbearssl ${LDLIBS:-}
    fi
}

# proxy NAME [OPTION...] LINE...: starts the program with each LINE as an argument, on free ports unless the lines have
# their own, and waits until it serves. Sets port and admin. PROXY_IN (default /dev/null) is its standard input.
proxy()
{
    proxy_n=$1
    shift
    port='' admin=''
    for proxy_l; do
        case $proxy_l in
        'listen '*@*) [ -n "$port" ] || port=${proxy_l##*@} ;;
        'admin off'*) admin=off ;;
        'admin '*@*) admin=${proxy_l##*@} ;;
        esac
    done
    if [ -z "$port" ]; then
        port=$(freeport)
        set -- "$@" "listen 127.0.0.1@$port"
    fi
    if [ -z "$admin" ]; then
        admin=$(freeport)
        set -- "$@" "admin 127.0.0.1@$admin"
    fi
    # shellcheck disable=SC2086
    $NS $WRAP "$BIN" "$@" </dev/null >"$T/$proxy_n.log" 2>&1 &
    ready "$proxy_n" $!
}

# ready NAME PID: what was just started as PID, with $port and $admin known, is NAME; waits until it serves
ready()
{
    started "$1" "$2"
    echo "$port" >"$T/$1.port"
    echo "$admin" >"$T/$1.admin"
    tool serves "$2" "$port" $((5000 * SLOW)) || fail "$1 does not serve at port $port"
}

# use NAME: port and admin are those of NAME again
use()
{
    port=$(cat "$T/$1.port")
    admin=$(cat "$T/$1.admin")
}

# stop NAME: SIGTERM, and it must exit 0
stop()
{
    if [ ! -s "$T/$1.pid" ]; then
        fail "$1 is not running"
        return
    fi
    stop_p=$(pid "$1")
    kill -TERM "$stop_p" 2>/dev/null
    if "$T/tool" gone "$stop_p" $((10000 * SLOW)); then
        wait "$stop_p" 2>/dev/null
        stop_s=$?
        [ -e "$T/$1.up" ] || [ "$stop_s" = 0 ] || fail "$1 exited with $stop_s, wanted 0"
    else
        fail "$1 did not stop within 10 s"
        kill_pid "$1"
    fi
    rm -f "$T/$1.pid"
    if grep -Eq 'runtime error:|Sanitizer|^==[0-9]+== [A-Z]' "$T/$1.log" 2>/dev/null; then
        fail "$1: the sanitizer has something to say:" "$(grep -E 'runtime error:|Sanitizer|^==[0-9]+== [A-Z]' "$T/$1.log" | head -n 5)"
    fi
}

# adm COMMAND: one line to the admin port, prints the reply
adm() { tool line 127.0.0.1 "$admin" "$1"; }

# ---- The scripted upstream and the client (10-tools.sh says what they take)

# up NAME [-a ADDRESS] [-p PORT] [-n NUMBER] [-T] [-U] [RULE...]: starts the scripted upstream (-T: no TCP, -U: no UDP);
# the variable NAME becomes its ADDRESS@PORT. Its number is that at the end of NAME.
up()
{
    up_n=$1
    shift
    up_a=127.0.0.1 up_p='' up_o="-n ${up_n##*[!0-9]}"
    [ "$up_o" != "-n " ] || up_o="-n 1"
    while :; do
        case ${1:-} in
        -a) up_a=$2; shift 2 ;;
        -p) up_p=$2; shift 2 ;;
        -n) up_o="$up_o -n $2"; shift 2 ;;
        -T | -U) up_o="$up_o $1"; shift ;;
        *) break ;;
        esac
    done
    [ -n "$up_p" ] || up_p=$(freeport)
    rules "$up_n" "$@"
    : >"$T/$up_n.up"
    : >"$T/$up_n.q"
    : >"$T/$up_n.log"
    # shellcheck disable=SC2086
    $NS "$T/tool" up -l "$T/$up_n.q" -r "$T/$up_n.rules" $up_o "$up_a" "$up_p" </dev/null >"$T/$up_n.log" 2>&1 &
    started "$up_n" $!
    eval "$up_n=\$up_a@\$up_p"
    await 5 logged "$up_n" ready || fail "the upstream $up_n does not start: $(cat "$T/$up_n.log")"
}

# rules NAME [RULE...]: from now on these are the rules of the upstream NAME
rules()
{
    rules_n=$1
    shift
    : >"$T/.rules"
    for rules_l; do echo "$rules_l" >>"$T/.rules"; done
    mv "$T/.rules" "$T/$rules_n.rules"
}

# asked NAME [ERE]: how many queries the upstream NAME has seen (that match ERE);  forget NAME: starts counting anew
asked() { grep -Ec -e "${2:- id=}" "$T/$1.q"; }
forget() { : >"$T/$1.q"; }

# ask NAME [TYPE] [+OPTION...]: the test client, by default at 127.0.0.1 and $port
ask() { tool ask 127.0.0.1 "$port" "$@"; }

# many [WORD...]: mass queries;  talk [WORD...]: a scripted TCP connection;  flood [WORD...]: random datagrams
many() { tool many 127.0.0.1 "$port" "$@"; }
talk() { tool talk 127.0.0.1 "$port" "$@"; }
flood() { tool flood 127.0.0.1 "$port" "$@"; }

# hold NAME PORT N [WORD...]: N idle connections to 127.0.0.1, until kill_pid NAME; the log says how many are open
hold()
{
    hold_n=$1 hold_p=$2
    shift 2
    : >"$T/$hold_n.log"
    $NS "$T/tool" hold 127.0.0.1 "$hold_p" "$@" </dev/null >"$T/$hold_n.log" 2>&1 &
    started "$hold_n" $!
    await 8 logged "$hold_n" '^holding' || fail "$hold_n: no connections"
}

# val KEY TEXT: the word after `KEY=` or `KEY ` in TEXT
val()
{
    printf '%s\n' "$2" | awk -v k="$1" '{ for (i = 1; i <= NF; i++) {
        if ($i == k) { print $(i + 1); exit }
        if (index($i, k "=") == 1) { print substr($i, length(k) + 2); exit } } }'
}

# ---- Tools -------------------------------------------------------------

# tools_build: compiles the program below to $T/tool. It needs a C library and nothing else.
tools_build()
{
    [ -x "$T/tool" ] && return 0
    cat >"$T/tool.c" <<'END_OF_TOOL'
/* The test tool: a scripted upstream, a client, and other things that a shell cannot do.
 *
 *   freeport                        a port that is free for UDP and TCP on 127.0.0.1 and ::1
 *   serves PID PORT MS [ADDR]       waits until TCP connects there; false at the deadline or when PID has gone
 *   gone PID MS                     waits until the process has ended
 *   line ADDR PORT TEXT             sends one line, prints everything until the end
 *   zero ADDR PORT NAME             a query from UDP port 0
 *   notify PATH                     a supervisor's socket: prints each datagram as a line
 *   up, ask, many, talk, hold, flood: see above each
 *
 * Everything ends by itself: no wait is without a deadline, but for servers, which are killed. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MSG = 65535 };

static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "tool: ");
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
    exit(2);
}

static long long us_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}
static long long ms_now(void) { return us_now() / 1000; }
static void ms_sleep(long ms)
{
    struct timespec t = { ms / 1000, ms % 1000 * 1000000L };
    nanosleep(&t, NULL);
}

static uint64_t rng = 88172645463325252ULL;
static uint32_t rnd(void)
{
    rng ^= rng << 13; rng ^= rng >> 7; rng ^= rng << 17;
    return (uint32_t)(rng >> 16);
}

static void *grow(void *p, size_t n)
{
    p = realloc(p, n);
    if (p == NULL) die("out of memory");
    return p;
}

/* ---- Addresses and sockets */

union sa { struct sockaddr s; struct sockaddr_in v4; struct sockaddr_in6 v6; };

static socklen_t sa_len(const union sa *a) { return a->s.sa_family == AF_INET6 ? sizeof a->v6 : sizeof a->v4; }

static union sa sa_of(const char *host, int port)
{
    union sa a;
    memset(&a, 0, sizeof a);
    if (inet_pton(AF_INET, host, &a.v4.sin_addr) == 1) {
        a.v4.sin_family = AF_INET;
        a.v4.sin_port = htons((uint16_t)port);
    } else if (inet_pton(AF_INET6, host, &a.v6.sin6_addr) == 1) {
        a.v6.sin6_family = AF_INET6;
        a.v6.sin6_port = htons((uint16_t)port);
    } else
        die("%s is not an address", host);
    return a;
}

static int sa_port(const union sa *a) { return ntohs(a->s.sa_family == AF_INET6 ? a->v6.sin6_port : a->v4.sin_port); }

static const char *sa_text(const union sa *a)
{
    static char out[80], host[64];
    if (a->s.sa_family == AF_INET6) inet_ntop(AF_INET6, &a->v6.sin6_addr, host, sizeof host);
    else inet_ntop(AF_INET, &a->v4.sin_addr, host, sizeof host);
    snprintf(out, sizeof out, "%s@%d", host, sa_port(a));
    return out;
}

/* A socket bound to src (or not), connected to a (or not). -1 and errno when that fails. */
static int sock(int type, const union sa *src, const union sa *to, int nonblock)
{
    int fd = socket((src ? src : to)->s.sa_family, type, 0), one = 1, big = 4 << 20, e;
    if (fd < 0) return -1;
    if (nonblock) fcntl(fd, F_SETFL, O_NONBLOCK);
    if (type == SOCK_STREAM) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    } else {
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
    }
    if (src && src->s.sa_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if ((src && bind(fd, &src->s, sa_len(src)) < 0) || (to && connect(fd, &to->s, sa_len(to)) < 0 && errno != EINPROGRESS)) {
        e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

static void more_files(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
        r.rlim_cur = r.rlim_max < 20000 ? r.rlim_max : 20000;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

/* ---- Messages: writing */

struct buf { uint8_t p[MSG + 4096]; size_t n; };

static void put8(struct buf *b, unsigned v) { if (b->n < sizeof b->p) b->p[b->n++] = (uint8_t)v; }
static void put16(struct buf *b, unsigned v) { put8(b, v >> 8 & 255); put8(b, v & 255); }
static void put32(struct buf *b, uint32_t v) { put16(b, v >> 16); put16(b, v & 65535); }
static void putn(struct buf *b, const void *p, size_t n) { for (size_t i = 0; i < n; i++) put8(b, ((const uint8_t *)p)[i]); }
static void set16(uint8_t *p, unsigned v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }
static unsigned get16(const uint8_t *p) { return (unsigned)p[0] << 8 | p[1]; }
static uint32_t get32(const uint8_t *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }

/* NAME in presentation form, with \. and \DDD; nothing is checked, so that wrong names can be written too */
static void put_name(struct buf *b, const char *s)
{
    if (strcmp(s, ".") == 0) s = "";
    while (*s) {
        size_t at = b->n;
        put8(b, 0);
        while (*s && *s != '.') {
            if (*s == '\\' && isdigit((unsigned char)s[1]) && isdigit((unsigned char)s[2]) && isdigit((unsigned char)s[3])) {
                put8(b, (unsigned)((s[1] - '0') * 100 + (s[2] - '0') * 10 + s[3] - '0'));
                s += 4;
                continue;
            }
            if (*s == '\\' && s[1]) s++;
            put8(b, (unsigned char)*s++);
        }
        b->p[at] = (uint8_t)(b->n - at - 1);
        if (*s == '.') s++;
    }
    put8(b, 0);
}

static size_t put_hex(struct buf *b, const char *h)
{
    size_t at = b->n;
    unsigned v;
    for (; isxdigit((unsigned char)h[0]) && isxdigit((unsigned char)h[1]); h += 2) {
        sscanf(h, "%2x", &v);
        put8(b, v);
    }
    return b->n - at;
}

static const struct { const char *name; unsigned n; } types[] = {
    { "A", 1 }, { "NS", 2 }, { "CNAME", 5 }, { "SOA", 6 }, { "PTR", 12 }, { "MX", 15 }, { "TXT", 16 }, { "AAAA", 28 }, { "SRV", 33 },
    { "NAPTR", 35 }, { "DNAME", 39 }, { "OPT", 41 }, { "DS", 43 }, { "RRSIG", 46 }, { "NSEC", 47 }, { "DNSKEY", 48 }, { "TLSA", 52 },
    { "SVCB", 64 }, { "HTTPS", 65 }, { "IXFR", 251 }, { "AXFR", 252 }, { "MAILB", 253 }, { "ANY", 255 }, { "CAA", 257 } };
static const char *const rcodes[] = { "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET",
    "NOTAUTH", "NOTZONE", "RCODE11", "RCODE12", "RCODE13", "RCODE14", "RCODE15", "BADVERS" };

static int type_of(const char *s)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcasecmp(types[i].name, s) == 0) return (int)types[i].n;
    return strncasecmp(s, "TYPE", 4) == 0 && isdigit((unsigned char)s[4]) ? atoi(s + 4) : -1;
}
static const char *type_text(unsigned t)
{
    static char out[4][16];
    static int turn;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].n == t) return types[i].name;
    turn = (turn + 1) % 4;
    snprintf(out[turn], sizeof out[turn], "TYPE%u", t);
    return out[turn];
}
static int rcode_of(const char *s)
{
    for (int i = 0; i < 17; i++)
        if (strcasecmp(rcodes[i], s) == 0) return i;
    return isdigit((unsigned char)*s) ? atoi(s) : -1;
}

/* ---- Messages: reading */

/* Prints the name at *at to out (size 1100 is always enough), moves *at behind it; false if it is not a name. */
static int read_name(const uint8_t *p, size_t n, size_t *at, char *out)
{
    size_t i = *at, len = 0;
    int hops = 0, moved = 0;
    char *o = out;
    for (;;) {
        if (i >= n) return 0;
        unsigned c = p[i];
        if (c == 0) {
            if (!moved) *at = i + 1;
            if (o == out) *o++ = '.';
            *o = 0;
            return 1;
        }
        if (c >= 192) {
            if (i + 1 >= n || ++hops > 130) return 0;
            if (!moved) *at = i + 2;
            moved = 1;
            i = (c & 63) << 8 | p[i + 1];
            continue;
        }
        if (c > 63 || i + 1 + c > n || (len += c + 1) > 254) return 0;
        for (i++; c; c--, i++) {
            if (p[i] == '.' || p[i] == '\\') { *o++ = '\\'; *o++ = (char)p[i]; }
            else if (p[i] > 32 && p[i] < 127) *o++ = (char)p[i];
            else o += sprintf(o, "\\%03u", p[i]);
        }
        *o++ = '.';
    }
}

struct question { char name[1100]; unsigned type, class; size_t end; };
struct opt { int there, many; unsigned size, ver, flags, ext; const uint8_t *p; size_t n; };

static int read_question(const uint8_t *p, size_t n, struct question *q)
{
    size_t at = 12;
    q->name[0] = 0;
    if (n < 12 || get16(p + 4) == 0 || !read_name(p, n, &at, q->name) || at + 4 > n) return 0;
    q->type = get16(p + at);
    q->class = get16(p + at + 2);
    q->end = at + 4;
    return 1;
}

/* Walks over all records, calls each(); NULL or what is wrong with the message. */
struct rr { int section; char name[1100]; unsigned type, class, rdlen; uint32_t ttl; size_t rd; };
static const char *walk(const uint8_t *p, size_t n, void (*each)(const uint8_t *, size_t, const struct rr *, void *), void *ctx)
{
    struct question q;
    struct rr r;
    size_t at = 12;
    if (n < 12) return "short";
    for (unsigned i = get16(p + 4); i; i--) {
        if (!read_name(p, n, &at, q.name) || at + 4 > n) return "question";
        at += 4;
    }
    for (r.section = 1; r.section <= 3; r.section++)
        for (unsigned i = get16(p + 4 + 2 * r.section); i; i--) {
            if (!read_name(p, n, &at, r.name)) return "owner";
            if (at + 10 > n) return "cut";
            r.type = get16(p + at);
            r.class = get16(p + at + 2);
            r.ttl = get32(p + at + 4);
            r.rdlen = get16(p + at + 8);
            at += 10;
            if (at + r.rdlen > n) return "rdlength";
            r.rd = at;
            each(p, n, &r, ctx);
            at += r.rdlen;
        }
    return at == n ? NULL : "trailing";
}

static void see_opt(const uint8_t *p, size_t n, const struct rr *r, void *ctx)
{
    struct opt *o = ctx;
    (void)n;
    if (r->type != 41) return;
    o->many += o->there;
    o->there = 1;
    o->size = r->class;
    o->ext = r->ttl >> 24;
    o->ver = r->ttl >> 16 & 255;
    o->flags = r->ttl & 65535;
    o->p = p + r->rd;
    o->n = r->rdlen;
}
static struct opt opt_of(const uint8_t *p, size_t n)
{
    struct opt o;
    memset(&o, 0, sizeof o);
    walk(p, n, see_opt, &o);
    return o;
}

/* " opts=CODE:HEX,..." and EDE in words */
static void print_opt(FILE *f, const struct opt *o)
{
    if (!o->there) return;
    fprintf(f, " edns=%u", o->size);
    if (o->ver) fprintf(f, " ver=%u", o->ver);
    if (o->flags & 0x8000) fprintf(f, " do");
    if (o->flags & 0x7fff) fprintf(f, " zflags=%04x", o->flags & 0x7fff);
    if (o->many) fprintf(f, " opts-too-many=%d", o->many);
    const char *sep = " opts=";
    for (size_t i = 0; i + 4 <= o->n; ) {
        unsigned c = get16(o->p + i), l = get16(o->p + i + 2);
        if (i + 4 + l > o->n) break;
        fprintf(f, "%s%u:", sep, c);
        for (unsigned k = 0; k < l && k < 24; k++) fprintf(f, "%02x", o->p[i + 4 + k]);
        if (l > 24) fprintf(f, "+%u", l - 24);
        sep = ",";
        i += 4 + l;
    }
    for (size_t i = 0; i + 4 <= o->n; ) {
        unsigned c = get16(o->p + i), l = get16(o->p + i + 2);
        if (i + 4 + l > o->n) break;
        if (c == 15 && l >= 2) fprintf(f, " ede=%u", get16(o->p + i + 4));
        i += 4 + l;
    }
}

static void print_rr(const uint8_t *p, size_t n, const struct rr *r, void *ctx)
{
    FILE *f = ctx;
    char text[1100], two[1100];
    size_t at = r->rd, end = r->rd + r->rdlen;
    if (r->type == 41) return;
    fprintf(f, " | %s%s %u %s%s ", r->section == 1 ? "" : r->section == 2 ? "au: " : "ad: ", r->name, r->ttl,
            r->class == 1 ? "" : r->class == 3 ? "CH " : r->class == 4 ? "HS " : "CLASS? ", type_text(r->type));
    if (r->type == 1 && r->rdlen == 4) fprintf(f, "%s", inet_ntop(AF_INET, p + at, text, sizeof text));
    else if (r->type == 28 && r->rdlen == 16) fprintf(f, "%s", inet_ntop(AF_INET6, p + at, text, sizeof text));
    else if ((r->type == 2 || r->type == 5 || r->type == 12 || r->type == 39) && read_name(p, n, &at, text) && at == end) fprintf(f, "%s", text);
    else if (r->type == 15 && r->rdlen > 2 && (at += 2, read_name(p, n, &at, text)) && at == end) fprintf(f, "%u %s", get16(p + r->rd), text);
    else if (r->type == 33 && r->rdlen > 6 && (at += 6, read_name(p, n, &at, text)) && at == end)
        fprintf(f, "%u %u %u %s", get16(p + r->rd), get16(p + r->rd + 2), get16(p + r->rd + 4), text);
    else if (r->type == 6 && read_name(p, n, &at, text) && read_name(p, n, &at, two) && at + 20 == end)
        fprintf(f, "%s %s %u %u %u %u %u", text, two, get32(p + at), get32(p + at + 4), get32(p + at + 8), get32(p + at + 12), get32(p + at + 16));
    else {
        fprintf(f, "\\# %u ", r->rdlen);
        for (at = r->rd; at < end && at < r->rd + 40; at++) fprintf(f, "%02x", p[at]);
        if (r->rdlen > 40) {
            uint32_t h = 2166136261u;
            for (at = r->rd; at < end; at++) h = (h ^ p[at]) * 16777619u;
            fprintf(f, "+%u hash=%08x", r->rdlen - 40, h);
        }
    }
}

static void count_none(const uint8_t *p, size_t n, const struct rr *r, void *ctx) { (void)p; (void)n; (void)r; (void)ctx; }

/* One line: RCODE, flags, sizes, then the records each after " | ". */
static void print_msg(FILE *f, const uint8_t *p, size_t n, const char *more)
{
    struct question q;
    struct opt o = opt_of(p, n);
    const char *bad = walk(p, n, count_none, NULL);
    if (n < 12) { fprintf(f, "SHORT size=%zu%s\n", n, more); return; }
    unsigned fl = get16(p + 2), rc = (fl & 15) | o.ext << 4;
    if (bad) fprintf(f, "MALFORMED %s ", bad);
    if (rc < 17) fprintf(f, "%s", rcodes[rc]);
    else fprintf(f, "RCODE%u", rc);
    static const struct { unsigned bit; const char *name; } bits[] = { { 0x8000, "qr" }, { 0x400, "aa" }, { 0x200, "tc" }, { 0x100, "rd" },
        { 0x80, "ra" }, { 0x40, "z" }, { 0x20, "ad" }, { 0x10, "cd" } };
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
        if (fl & bits[i].bit) fprintf(f, " %s", bits[i].name);
    if (fl >> 11 & 15) fprintf(f, " opcode=%u", fl >> 11 & 15);
    fprintf(f, " id=%u", get16(p));
    if (read_question(p, n, &q)) fprintf(f, " q=%s/%s%s", q.name, type_text(q.type), q.class == 1 ? "" : q.class == 3 ? "/CH" : "/CLASS?");
    fprintf(f, " qd=%u an=%u ns=%u ar=%u size=%zu", get16(p + 4), get16(p + 6), get16(p + 8), get16(p + 10), n);
    print_opt(f, &o);
    fprintf(f, "%s", more);
    walk(p, n, print_rr, f);
    fprintf(f, "\n");
}

/* ---- Queries: what ask, many and talk send */

struct query {
    int tcp, do_, cd, ad, nord, z, qr, opcode, id, timeout, wait, hex, unconn, badver, nameless;
    int edns, class, qd, tc, an, ns, ar, twoopt, keep;
    const char *src, *server, *raw, *trail;
    struct buf opts;
};

static void query_init(struct query *q)
{
    memset(q, 0, offsetof(struct query, opts));
    q->opts.n = 0;
    q->id = -1;
    q->edns = -1;
    q->class = 1;
    q->timeout = 6000;
    q->qd = 1;
}

/* +WORD[=VALUE]; false if there is no such option */
static int query_option(struct query *q, const char *w)
{
    char key[32];
    const char *v = strchr(w, '=');
    size_t n = v ? (size_t)(v - w) : strlen(w);
    if (*w != '+' || n >= sizeof key) return 0;
    memcpy(key, w + 1, n - 1);
    key[n - 1] = 0;
    if (v) v++;
    int num = v ? atoi(v) : 1;
    static const struct { const char *name; size_t at; } ints[] = {
        { "tcp", offsetof(struct query, tcp) }, { "do", offsetof(struct query, do_) }, { "cd", offsetof(struct query, cd) }, { "ad", offsetof(struct query, ad) },
        { "nord", offsetof(struct query, nord) }, { "z", offsetof(struct query, z) }, { "qr", offsetof(struct query, qr) },
        { "opcode", offsetof(struct query, opcode) }, { "id", offsetof(struct query, id) }, { "timeout", offsetof(struct query, timeout) },
        { "wait", offsetof(struct query, wait) }, { "hex", offsetof(struct query, hex) }, { "unconn", offsetof(struct query, unconn) },
        { "ver", offsetof(struct query, badver) }, { "qd", offsetof(struct query, qd) }, { "tc", offsetof(struct query, tc) }, { "an", offsetof(struct query, an) },
        { "ns", offsetof(struct query, ns) }, { "ar", offsetof(struct query, ar) }, { "twoopt", offsetof(struct query, twoopt) } };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        if (strcmp(ints[i].name, key) == 0) {
            *(int *)((char *)q + ints[i].at) = num;
            return 1;
        }
    if (strcmp(key, "edns") == 0) q->edns = v ? num : 1232;
    else if (strcmp(key, "src") == 0) q->src = v;
    else if (strcmp(key, "server") == 0) q->server = v;
    else if (strcmp(key, "raw") == 0) q->raw = v;
    else if (strcmp(key, "trail") == 0) q->trail = v;
    else if (strcmp(key, "class") == 0) q->class = strcmp(v, "CH") == 0 ? 3 : strcmp(v, "HS") == 0 ? 4 : num;
    else if (strcmp(key, "opt") == 0) {         /* +opt=CODE:HEX */
        put16(&q->opts, (unsigned)num);
        size_t at = q->opts.n;
        put16(&q->opts, 0);
        if (strchr(v, ':')) set16(q->opts.p + at, (unsigned)put_hex(&q->opts, strchr(v, ':') + 1));
    } else return 0;
    return 1;
}

static void query_write(const struct query *q, struct buf *b, const char *name, int type, int id)
{
    b->n = 0;
    if (q->raw) { put_hex(b, q->raw); return; }
    put16(b, (unsigned)id);
    put16(b, (unsigned)(q->qr << 15 | q->opcode << 11 | q->tc << 9 | (q->nord ? 0 : 0x100) | q->z << 6 | q->ad << 5 | q->cd << 4));
    put16(b, (unsigned)q->qd);
    put16(b, (unsigned)q->an);
    put16(b, (unsigned)q->ns);
    put16(b, (unsigned)q->ar);
    for (int i = 0; i < (q->qd > 1 ? q->qd : 1); i++) {
        put_name(b, name);
        put16(b, (unsigned)type);
        put16(b, (unsigned)q->class);
    }
    if (q->edns >= 0 || q->do_ || q->opts.n || q->badver)
        for (int i = 0; i <= q->twoopt; i++) {
            put8(b, 0);
            put16(b, 41);
            put16(b, q->edns < 0 ? 1232 : (unsigned)q->edns);
            put32(b, (uint32_t)q->badver << 16 | (q->do_ ? 0x8000u : 0));
            put16(b, (unsigned)q->opts.n);
            putn(b, q->opts.p, q->opts.n);
            set16(b->p + 10, get16(b->p + 10) + 1);
        }
    if (q->trail) put_hex(b, q->trail);
}

/* Reads until n bytes, the deadline or the end; how many came. */
static size_t read_full(int fd, uint8_t *p, size_t n, long long end)
{
    size_t got = 0;
    while (got < n) {
        struct pollfd f = { fd, POLLIN, 0 };
        long long left = end - ms_now();
        if (left < 0 || poll(&f, 1, (int)left) <= 0) break;
        ssize_t r = read(fd, p + got, n - got);
        if (r <= 0) break;
        got += (size_t)r;
    }
    return got;
}

/* ask ADDR PORT NAME [TYPE] [+OPTION...]: one query, one line. Without a reply: TIMEOUT, CLOSED or REFUSEDPORT.
 * +wait=MS goes on listening after the first reply and says replies=N. Options: +tcp +edns[=N] +do +cd +ad +nord +z +qr +tc
 * +opcode=N +id=N +class=C +src=ADDR +server=ADDR +opt=CODE:HEX +ver=N +twoopt +qd=N +an=N +ns=N +ar=N +raw=HEX +trail=HEX
 * +timeout=MS +hex */
static int cmd_ask(int argc, char **argv)
{
    static struct query q;
    static struct buf b;
    static uint8_t in[MSG + 2];
    const char *name = argc > 3 && argv[3][0] != '+' ? argv[3] : ".";
    int type = 1, at = 4, n = 0;
    char more[200];
    query_init(&q);
    if (argc > 3 && argv[3][0] == '+') at = 3;
    if (at == 4 && argc > 4 && argv[4][0] != '+' && (type = type_of(argv[at++])) < 0) die("%s is not a type", argv[at - 1]);
    for (; at < argc; at++)
        if (!query_option(&q, argv[at])) die("ask: what is %s?", argv[at]);
    union sa to = sa_of(q.server ? q.server : argv[1], atoi(argv[2])), src, from;
    if (q.src) src = sa_of(q.src, 0);
    rng ^= (uint64_t)us_now() * 2654435761u ^ (uint64_t)getpid() << 32;
    rnd();
    int id = q.id >= 0 ? q.id : (int)(rnd() & 65535);
    query_write(&q, &b, name, type, id);
    long long t0 = us_now(), end = t0 / 1000 + q.timeout;
    if (q.unconn && !q.src) src = sa_of(to.s.sa_family == AF_INET6 ? "::" : "0.0.0.0", 0);
    int fd = sock(q.tcp ? SOCK_STREAM : SOCK_DGRAM, q.src || q.unconn ? &src : NULL, q.unconn ? NULL : &to, 0);
    if (fd < 0) { printf("%s\n", errno == ECONNREFUSED ? "REFUSEDPORT" : strerror(errno)); return 1; }
    from = to;
    size_t got = 0, first = 0;
    const char *why = "TIMEOUT";
    long long took = 0;
    if (q.tcp) {
        uint8_t len[2];
        memmove(b.p + 2, b.p, b.n);
        set16(b.p, (unsigned)b.n);
        if (write(fd, b.p, b.n + 2) < 0) why = "CLOSED";
        size_t r = read_full(fd, len, 2, end);
        if (r == 2) got = read_full(fd, in, get16(len), end);
        if (r < 2 || got < get16(len)) { if (ms_now() < end) why = "CLOSED"; got = 0; }
        else { n = 1; first = got; }
        took = us_now() - t0;
    } else {
        static uint8_t other[MSG];
        if ((q.unconn ? sendto(fd, b.p, b.n, 0, &to.s, sa_len(&to)) : send(fd, b.p, b.n, 0)) < 0) why = strerror(errno);
        else for (;;) {
            struct pollfd f = { fd, POLLIN, 0 };
            long long left = end - ms_now();
            if (left < 0 || poll(&f, 1, (int)left) <= 0) break;
            socklen_t sl = sizeof from;
            ssize_t r = recvfrom(fd, n ? other : in, MSG, 0, &from.s, &sl);
            if (r < 0) { if (n == 0) why = "REFUSEDPORT"; break; }
            if (n++ == 0) { first = (size_t)r; took = us_now() - t0; end = ms_now() + q.wait; }
            if (!q.wait) break;
        }
    }
    if (n == 0) { printf("%s ms=%lld\n", why, (us_now() - t0) / 1000); return 1; }
    int o = snprintf(more, sizeof more, " ms=%lld", took / 1000);
    if (q.wait) o += snprintf(more + o, sizeof more - (size_t)o, " replies=%d", n);
    if (q.unconn) o += snprintf(more + o, sizeof more - (size_t)o, " from=%s", sa_text(&from));
    if (!q.raw && first >= 12) {
        struct question a, z;
        const uint8_t *sent = b.p + (q.tcp ? 2 : 0);
        if (get16(in) != (unsigned)id) o += snprintf(more + o, sizeof more - (size_t)o, " WRONGID");
        if (read_question(sent, b.n, &a) && get16(in + 4) > 0 && (!read_question(in, first, &z) || z.end != a.end || memcmp(in + 12, sent + 12, a.end - 12)))
            o += snprintf(more + o, sizeof more - (size_t)o, " WRONGQUESTION");
    }
    print_msg(stdout, in, first, more);
    if (q.hex) {
        for (size_t i = 0; i < first; i++) printf("%02x", in[i]);
        printf("\n");
    }
    return 0;
}

/* ---- up: the scripted upstream
 *
 * up [-l LOG] [-r RULES] [-n NUMBER] [-T] [-U] ADDR PORT
 *
 * How it answers is said by words. They come from the lines of RULES, `SUFFIX WORD...`, read again whenever the file changes,
 * and from every label of the QNAME that contains `=`: `ttl=5`, `nodata=`. A word that starts with a number is for the upstream
 * with that number only: `2delay=300`. Later words win. Without any: a record of the asked type, TTL 300, A 192.0.2.NUMBER.
 *
 *  what      a=ADDR  aaaa=ADDR  byname (A from a hash of the name)  count (A says how many answers there were)  n=RECORDS  type=T
 *            ttl=N,N...  rdlen=N  big=BYTES  toobig (not cut over UDP)  cname=LINKS  cnameonly  extra (records of other names)
 *            nodata  soa=TTL,MINIMUM  servfail refused formerr notimp nxdomain  rcode=N  aa ad  ede=N  opt=CODE:HEX  noopt  optmid
 *            noedns=RCODE (that, without OPT, to every query with OPT)  lower upper (the question's letters)  trail=N  mutate=SEED
 *            norec (AD, CD and RD are not copied)
 *  when      delay=MS  silent  drop=N (the first N datagrams of a question)  udpsilent  tcpsilent
 *  over UDP  tc  tcrec (TC=1 with records)  twice
 *  over TCP  close  reset  closeafter  dribble=MS (a byte each)  cut (half the answer, then close)
 *  wrong     first=KIND (and MS=100 later the right one; gap=MS)  bad=KIND (alone)  flood=N (N wrong IDs first)
 *            KIND: id qname qtype qclass qr opcode zero eleven header qd2 cutq noq loop | port addr | rdlen ancount cutrr label40 a3 cname
 *            name256 optan
 *
 * Each query is a line of LOG: ms, proto, from, id, name, type, flags, EDNS; connections are lines too. */

struct act {
    int rcode, nodata, soa, soattl, soamin, byname, count, n, type, rdlen, big, toobig, cname, cnameonly, extra, aa, ad, ede, noopt, optmid, noedns;
    int lower, upper, trail, mutate, norec, delay, silent, drop, udpsilent, tcpsilent, tc, tcrec, twice, close, reset, closeafter, dribble, cut;
    int gap, flood, nttl;
    uint32_t ttl[8];
    char first[16], bad[16], a[64], aaaa[64], opt[256];
};

static const struct { const char *name; size_t at; } up_ints[] = {
#define W(x) { #x, offsetof(struct act, x) }
    W(nodata), W(byname), W(count), W(n), W(rdlen), W(big), W(toobig), W(cname), W(cnameonly), W(extra), W(aa), W(ad), W(ede), W(noopt), W(optmid),
    W(lower), W(upper), W(trail), W(mutate), W(norec), W(delay), W(silent), W(drop), W(udpsilent), W(tcpsilent), W(tc), W(tcrec), W(twice), W(close),
    W(reset), W(closeafter), W(dribble), W(cut), W(gap), W(flood),
#undef W
};

static int up_number = 1;
static const char *up_rules, *up_log;
static char up_text[65536];
static long up_seen;

static void act_word(struct act *a, const char *w)
{
    char key[32] = "";
    char *e;
    long only = strtol(w, &e, 10);
    if (e != w && only != up_number) return;
    w = e;
    size_t n = strcspn(w, "=");
    if (n == 0 || n >= sizeof key) return;
    memcpy(key, w, n);
    const char *v = w[n] ? w + n + 1 : "";
    int num = *v ? atoi(v) : 1, rc = rcode_of(key);
    if (rc >= 0 && isalpha((unsigned char)key[0])) { a->rcode = rc; return; }
    for (size_t i = 0; i < sizeof up_ints / sizeof *up_ints; i++)
        if (strcmp(up_ints[i].name, key) == 0) { *(int *)((char *)a + up_ints[i].at) = num; return; }
    if (strcmp(key, "rcode") == 0) a->rcode = rcode_of(v);
    else if (strcmp(key, "ttl") == 0) {
        for (a->nttl = 0; *v && a->nttl < 8; v += *v == ',') a->ttl[a->nttl++] = (uint32_t)strtoul(v, (char **)&v, 10);
    } else if (strcmp(key, "soa") == 0) { a->soa = 1; a->soattl = num; a->soamin = strchr(v, ',') ? atoi(strchr(v, ',') + 1) : num; }
    else if (strcmp(key, "noedns") == 0) a->noedns = rcode_of(v);
    else if (strcmp(key, "type") == 0) a->type = type_of(v);
    else if (strcmp(key, "first") == 0) snprintf(a->first, sizeof a->first, "%s", v);
    else if (strcmp(key, "bad") == 0) snprintf(a->bad, sizeof a->bad, "%s", v);
    else if (strcmp(key, "a") == 0) snprintf(a->a, sizeof a->a, "%s", v);
    else if (strcmp(key, "aaaa") == 0) snprintf(a->aaaa, sizeof a->aaaa, "%s", v);
    else if (strcmp(key, "opt") == 0) snprintf(a->opt, sizeof a->opt, "%s", v);
}

static int has_suffix(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);
    if (strcmp(suffix, ".") == 0) return 1;
    if (s && suffix[s - 1] != '.' && n) n--;
    return n >= s && strncasecmp(name + n - s, suffix, s) == 0 && (n == s || name[n - s - 1] == '.');
}

static void rules_read(void)
{
    static struct stat old;
    struct stat st;
    FILE *f;
    if (up_rules == NULL || stat(up_rules, &st) < 0) return;
    if (st.st_ino == old.st_ino && st.st_mtim.tv_nsec == old.st_mtim.tv_nsec && st.st_mtim.tv_sec == old.st_mtim.tv_sec) return;
    old = st;
    if ((f = fopen(up_rules, "r")) == NULL) return;
    up_text[fread(up_text, 1, sizeof up_text - 1, f)] = 0;
    fclose(f);
}

/* what to do with a question */
static struct act act_for(const char *name)
{
    static char copy[65536], labels[1100];
    struct act a;
    memset(&a, 0, sizeof a);
    a.n = 1;
    a.gap = 100;
    a.nttl = 1;
    a.ttl[0] = 300;
    a.ede = a.noedns = -1;
    rules_read();
    memcpy(copy, up_text, sizeof copy);
    for (char *line, *s = copy; (line = strsep(&s, "\n")) != NULL; ) {
        char *suffix = strtok(line, " ");
        if (suffix == NULL || !has_suffix(name, suffix)) continue;
        for (char *w; (w = strtok(NULL, " ")) != NULL; ) act_word(&a, w);
    }
    snprintf(labels, sizeof labels, "%s", name);
    for (char *l, *s = labels; (l = strsep(&s, ".")) != NULL; )
        if (strchr(l, '=')) act_word(&a, l);
    return a;
}

static uint32_t name_hash(const char *s)
{
    uint32_t h = 2166136261u;
    for (; *s; s++) h = (h ^ (uint8_t)tolower((unsigned char)*s)) * 16777619u;
    return h;
}

/* counts the datagrams of a question */
static int drop_count(const char *name, unsigned type)
{
    static struct { uint32_t key; int n; } seen[65536];
    uint32_t h = name_hash(name) ^ type * 2654435761u;
    for (uint32_t i = h & 65535, k = 0; k < 65536; k++, i = (i + 1) & 65535)
        if (seen[i].n == 0 || seen[i].key == h) { seen[i].key = h; return ++seen[i].n; }
    return 1;
}

static void put_rdata(struct buf *b, const struct act *a, unsigned type, int i)
{
    size_t at = b->n;
    uint8_t addr[16];
    char text[64];
    put16(b, 0);
    switch (type) {
    case 1:
        snprintf(text, sizeof text, "192.0.2.%d", (up_number + i) % 256);
        inet_pton(AF_INET, a->a[0] ? a->a : text, addr);
        putn(b, addr, 4);
        break;
    case 28:
        snprintf(text, sizeof text, "2001:db8::%x", up_number + i);
        inet_pton(AF_INET6, a->aaaa[0] ? a->aaaa : text, addr);
        putn(b, addr, 16);
        break;
    case 15: put16(b, 10); put_name(b, "mx"); b->n--; put16(b, 0xc00c); break;      /* a name below the question's, compressed */
    case 2: case 5: case 12: put_name(b, "ns"); b->n--; put16(b, 0xc00c); break;
    case 33: put16(b, 1); put16(b, 2); put16(b, 443); put_name(b, "srv.target.test"); break;
    case 6: put16(b, 0xc00c); put_name(b, "host"); b->n--; put16(b, 0xc00c); put32(b, 1); put32(b, 2); put32(b, 3); put32(b, 4); put32(b, 60); break;
    case 16:
        if (a->rdlen == 0) { put8(b, 5); putn(b, "up-", 3); put8(b, '0' + (unsigned)(up_number % 10)); put8(b, '0' + (unsigned)(i % 10)); break; }
        /* fall through */
    default: {
        int n = a->rdlen ? a->rdlen : 12;
        uint64_t keep = rng;
        rng = 1234567 + type;
        for (int k = 0; k < n; k++) put8(b, type == 16 ? (k % 256 ? 'x' : (unsigned)(n - k > 256 ? 255 : n - k - 1)) : rnd() & 255);
        rng = keep;
    }
    }
    set16(b->p + at, (unsigned)(b->n - at - 2));
}

static void put_rr(struct buf *b, unsigned owner, unsigned type, uint32_t ttl)
{
    put16(b, owner);
    put16(b, type);
    put16(b, 1);
    put32(b, ttl);
}

static void put_optrr(struct buf *b, const struct act *a, unsigned rcode, int do_)
{
    put8(b, 0);
    put16(b, 41);
    put16(b, 1232);
    put32(b, (uint32_t)(rcode >> 4) << 24 | (do_ ? 0x8000u : 0));
    size_t at = b->n;
    put16(b, 0);
    if (a->ede >= 0) { put16(b, 15); put16(b, 2 + 4); put16(b, (unsigned)a->ede); putn(b, "test", 4); }
    if (a->opt[0]) {
        put16(b, (unsigned)atoi(a->opt));
        size_t l = b->n;
        put16(b, 0);
        if (strchr(a->opt, ':')) set16(b->p + l, (unsigned)put_hex(b, strchr(a->opt, ':') + 1));
    }
    set16(b->p + at, (unsigned)(b->n - at - 2));
}

static void count_up(struct buf *b, int section) { set16(b->p + 4 + 2 * section, get16(b->p + 4 + 2 * section) + 1); }

/* the honest answer to the query p */
static void answer(struct buf *b, const struct act *a, const uint8_t *p, size_t n, const struct question *q, int tcp)
{
    struct opt o = opt_of(p, n);
    unsigned owner = 0xc00c, type = a->type ? (unsigned)a->type : q->type, rcode = (unsigned)a->rcode;
    int opt = o.there && !a->noopt, do_ = o.flags >> 15;
    size_t limit = tcp ? MSG : o.there ? (o.size < 512 ? 512 : o.size) : 512;
    (void)n;
    if (a->noedns >= 0 && o.there) { rcode = (unsigned)a->noedns; opt = 0; }
    b->n = 0;
    putn(b, p, 12);
    set16(b->p + 2, 0x8080 | (a->norec ? 0 : get16(p + 2) & 0x0110) | (a->aa ? 0x400u : 0) | (a->ad ? 0x20u : 0) | (rcode & 15));
    set16(b->p + 4, 1);
    memset(b->p + 6, 0, 6);
    putn(b, p + 12, q->end - 12);
    for (size_t i = 12; i < q->end - 4; i++) {
        if (a->lower) b->p[i] = (uint8_t)tolower(b->p[i]);
        if (a->upper) b->p[i] = (uint8_t)toupper(b->p[i]);
    }
    if (a->noedns >= 0 && o.there) return;
    size_t bare = b->n;
    if (a->tc && !tcp) {
        b->p[2] |= 2;
        if (opt) { put_optrr(b, a, rcode, do_); count_up(b, 3); }
        return;
    }
    for (int i = 0; i < a->cname; i++) {
        put_rr(b, owner, 5, a->ttl[0]);
        char text[32];
        snprintf(text, sizeof text, "c%d", i);
        put16(b, (unsigned)strlen(text) + 3);
        owner = 0xc000u | (unsigned)b->n;
        put_name(b, text);
        b->n--;
        put16(b, 0xc00c);
        count_up(b, 1);
    }
    if (rcode == 0 && !a->nodata && !a->cnameonly) {
        struct act x = *a;
        if (a->byname) { uint32_t h = name_hash(q->name); snprintf(x.a, sizeof x.a, "10.%u.%u.%u", h >> 16 & 255, h >> 8 & 255, h & 255); }
        if (a->count) { ++up_seen; snprintf(x.a, sizeof x.a, "10.%ld.%ld.%ld", up_seen >> 16 & 255, up_seen >> 8 & 255, up_seen & 255); }
        int k = a->n;
        size_t want = a->big ? (size_t)a->big - (opt ? 11 : 0) : 0;
        if (a->big && type == 1) k = (int)((want - b->n) / 16);
        if (a->big && type != 1 && type != 28) x.rdlen = (int)(want - b->n - 12);
        for (int i = 0; i < k; i++) {
            put_rr(b, owner, type == 255 ? 1 : type, a->ttl[i % a->nttl]);
            put_rdata(b, &x, type == 255 ? 1 : type, i);
            count_up(b, 1);
        }
    }
    if (a->soa) {
        put_rr(b, 0xc00c, 6, (uint32_t)a->soattl);
        put_rdata(b, a, 6, 0);
        b->p[b->n - 4] = (uint8_t)(a->soamin >> 24);
        b->p[b->n - 3] = (uint8_t)(a->soamin >> 16);
        set16(b->p + b->n - 2, (unsigned)a->soamin & 65535);
        count_up(b, 2);
    }
    if (a->extra) {             /* records that nobody asked for */
        put_name(b, "test"); put16(b, 2); put16(b, 1); put32(b, 300); put16(b, 9); put_name(b, "ns.evil"); count_up(b, 2);
        if (opt && a->optmid) { put_optrr(b, a, rcode, do_); count_up(b, 3); opt = 0; }
        put_name(b, "victim.test"); put16(b, 1); put16(b, 1); put32(b, 300); put16(b, 4); put32(b, 0x06060606); count_up(b, 3);
    } else if (opt && a->optmid) {
        put_optrr(b, a, rcode, do_); count_up(b, 3); opt = 0;
        put_name(b, "glue.test"); put16(b, 1); put16(b, 1); put32(b, 300); put16(b, 4); put32(b, 0x01020304); count_up(b, 3);
    }
    if (opt) { put_optrr(b, a, rcode, do_); count_up(b, 3); }
    if (a->tcrec && !tcp) b->p[2] |= 2;
    else if (b->n > limit && !a->toobig) {
        b->n = bare;
        memset(b->p + 6, 0, 6);
        b->p[2] |= 2;
        if (o.there && !a->noopt) { put_optrr(b, a, rcode, do_); count_up(b, 3); }
    }
    for (int i = 0; i < a->trail; i++) put8(b, 0xee);
}

/* makes the good message b a bad one */
static void spoil(struct buf *b, const char *kind, const struct question *q)
{
    size_t rr = q->end;
    if (strcmp(kind, "id") == 0) set16(b->p, get16(b->p) ^ 0x0101);
    else if (strcmp(kind, "qname") == 0) b->p[13] = b->p[13] == 'z' ? 'y' : 'z';
    else if (strcmp(kind, "qtype") == 0) set16(b->p + q->end - 4, q->type == 16 ? 1 : 16);
    else if (strcmp(kind, "qclass") == 0) set16(b->p + q->end - 2, 3);
    else if (strcmp(kind, "qr") == 0) b->p[2] &= 0x7f;
    else if (strcmp(kind, "opcode") == 0) b->p[2] |= 4 << 3;
    else if (strcmp(kind, "zero") == 0) b->n = 0;
    else if (strcmp(kind, "eleven") == 0) b->n = 11;
    else if (strcmp(kind, "header") == 0) { b->n = 12; memset(b->p + 4, 0, 8); }
    else if (strcmp(kind, "qd2") == 0) set16(b->p + 4, 2);
    else if (strcmp(kind, "cutq") == 0) { b->n = q->end - 3; memset(b->p + 6, 0, 6); }
    else if (strcmp(kind, "noq") == 0) { memmove(b->p + 12, b->p + q->end, b->n - q->end); b->n -= q->end - 12; set16(b->p + 4, 0); }
    else if (strcmp(kind, "loop") == 0) set16(b->p + rr, 0xc000u | (unsigned)rr);
    else if (strcmp(kind, "rdlen") == 0) set16(b->p + rr + 10, 60000);
    else if (strcmp(kind, "ancount") == 0) set16(b->p + 6, 65535);
    else if (strcmp(kind, "cutrr") == 0) b->n = rr + 13;
    else if (strcmp(kind, "label40") == 0) b->p[rr] = 0x40;
    else if (strcmp(kind, "a3") == 0) { set16(b->p + rr + 10, 3); memmove(b->p + rr + 15, b->p + rr + 16, b->n - rr - 16); b->n--; }
    else if (strcmp(kind, "cname") == 0) {      /* its name runs past its RDLENGTH */
        b->n = rr;
        memset(b->p + 6, 0, 6);
        put_rr(b, 0xc00c, 5, 300);
        put16(b, 4);
        put_name(b, "long.name.test");
        b->n = rr + 12 + 4;
        put_rr(b, 0xc00c, 1, 300);
        put16(b, 4);
        put32(b, 0xc0000201);
        set16(b->p + 6, 2);
    } else if (strcmp(kind, "name256") == 0) {  /* an owner that is too long only with what its pointer points at */
        unsigned n = 256 - (unsigned)(q->end - 4 - 12);
        b->n = rr;
        memset(b->p + 6, 0, 6);
        put_rr(b, 0xc00c, q->type, 300);        /* a good record first */
        put16(b, 4);
        put32(b, 0x06060606);
        put8(b, n - 1);
        for (unsigned i = 1; i < n; i++) put8(b, 'l');
        put_rr(b, 0xc00c, q->type, 300);
        put16(b, 4);
        put32(b, 0x06060606);
        set16(b->p + 6, 2);
    } else if (strcmp(kind, "optan") == 0) {    /* its OPT in the answer section */
        static const struct act plain = { .ede = -1 };
        set16(b->p + 6, 2);
        memset(b->p + 8, 0, 4);
        b->n = rr;
        put_optrr(b, &plain, 0, 0);
        put_rr(b, 0xc00c, q->type, 300);
        put16(b, 4);
        put32(b, 0x06060606);
    } else die("up: what is a wrong %s?", kind);
}

/* things to be sent later, soonest first */
struct job { struct job *next; long long due; int kind, conn, gen; union sa to; size_t n; uint8_t *p; };
enum { J_UDP, J_FLOOD, J_UDP_PORT, J_UDP_ADDR, J_TCP, J_CLOSE, J_RESET };
static struct job *jobs;

static void job_add(long long due, int kind, int conn, int gen, const union sa *to, const uint8_t *p, size_t n)
{
    struct job *j = grow(NULL, sizeof *j), **at = &jobs;
    j->due = due; j->kind = kind; j->conn = conn; j->gen = gen; j->n = n;
    if (to) j->to = *to;
    j->p = grow(NULL, n + 1);
    memcpy(j->p, p, n);
    while (*at && (*at)->due <= due) at = &(*at)->next;
    j->next = *at;
    *at = j;
}

struct conn { int fd, gen; union sa from; uint8_t *in, *out; size_t nin, nout, room; };
enum { CONNS = 1500 };
static struct conn conns[CONNS];
static int up_logfd = -1;

static void up_say(const char *fmt, ...)
{
    char line[3000];
    va_list ap;
    int n = snprintf(line, sizeof line, "%lld ", ms_now());
    va_start(ap, fmt);
    n += vsnprintf(line + n, sizeof line - (size_t)n - 2, fmt, ap);
    va_end(ap);
    line[n++] = '\n';
    if (up_logfd >= 0 && write(up_logfd, line, (size_t)n) < 0) die("log: %s", strerror(errno));
}

static void conn_close(int i, int reset)
{
    struct linger l = { 1, 0 };
    if (conns[i].fd < 0) return;
    if (reset) setsockopt(conns[i].fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    up_say("tcp close conn=%d", i);
    close(conns[i].fd);
    conns[i].fd = -1;
    conns[i].gen++;
    conns[i].nin = conns[i].nout = 0;
}

static void conn_flush(int i)
{
    struct conn *c = &conns[i];
    ssize_t n = send(c->fd, c->out, c->nout, MSG_NOSIGNAL);
    if (n > 0) { memmove(c->out, c->out + n, c->nout - (size_t)n); c->nout -= (size_t)n; }
    else if (n < 0 && errno != EAGAIN) conn_close(i, 0);
}

static void conn_send(int i, const uint8_t *p, size_t n)
{
    struct conn *c = &conns[i];
    if (c->nout + n > c->room) c->out = grow(c->out, c->room = (c->nout + n) * 2);
    memcpy(c->out + c->nout, p, n);
    c->nout += n;
    conn_flush(i);
}

/* One query has come: decides, and puts jobs into the list. conn is -1 for UDP. */
static void up_query(const uint8_t *p, size_t n, const union sa *from, int conn)
{
    static struct buf b, w;
    struct question q;
    long long now = ms_now();
    int gen = conn >= 0 ? conns[conn].gen : 0, tcp = conn >= 0;
    char *text = NULL;
    size_t len;
    if (n < 12 || (p[2] & 0x80) || !read_question(p, n, &q)) { up_say("%s from=%s garbage size=%zu", tcp ? "tcp" : "udp", sa_text(from), n); return; }
    struct opt o = opt_of(p, n);
    FILE *f = open_memstream(&text, &len);
    print_opt(f, &o);
    fclose(f);
    const char *odd = walk(p, n, count_none, NULL);
    unsigned fl = get16(p + 2);
    up_say("%s from=%s id=%u %s %s%s%s%s%s qd=%u an=%u ns=%u ar=%u size=%zu%s%s%s%s", tcp ? "tcp" : "udp", sa_text(from), get16(p), q.name, type_text(q.type),
           q.class == 1 ? "" : " class=other", fl & 0x100 ? " rd" : "", fl & 0x10 ? " cd" : "", fl & 0x20 ? " ad" : "", get16(p + 4), get16(p + 6), get16(p + 8),
           get16(p + 10), n, text, odd ? " odd=" : "", odd ? odd : "", fl & 0x7840 ? " oddflags" : "");
    free(text);
    struct act a = act_for(q.name);
    if (a.silent || (tcp ? a.tcpsilent : a.udpsilent)) return;
    if (!tcp && a.drop && drop_count(q.name, q.type) <= a.drop) return;
    if (tcp && (a.close || a.reset)) { job_add(now + a.delay, a.reset ? J_RESET : J_CLOSE, conn, gen, NULL, p, 0); return; }
    answer(&b, &a, p, n, &q, tcp);
    if (a.bad[0]) spoil(&b, a.bad, &q);
    if (a.mutate) {
        uint64_t keep = rng;
        rng = ((uint64_t)(unsigned)a.mutate << 32 ^ name_hash(q.name)) * 0x9e3779b97f4a7c15ULL | 1;
        rnd(); rnd();
        for (int k = 1 + (int)(rnd() % 4); k; k--) {
            unsigned at = rnd() % (unsigned)b.n, how = rnd() % 4;
            if (at < 2) continue;
            if (how == 0) b.p[at] ^= (uint8_t)(1u << rnd() % 8);
            else if (how == 1) b.p[at] = (uint8_t)rnd();
            else if (how == 2) b.p[at] = (uint8_t)"\0\xff\xc0\x0c\x40\x3f\x29\x01"[rnd() % 8];
            else if (b.n > 20) b.n = 12 + rnd() % (unsigned)(b.n - 12);
        }
        rng = keep;
    }
    long long due = now + a.delay;
    if (!tcp) {
        if (a.flood) job_add(now, J_FLOOD, a.flood, 0, from, b.p, b.n);
        if (a.first[0]) {
            int kind = strcmp(a.first, "port") == 0 ? J_UDP_PORT : strcmp(a.first, "addr") == 0 ? J_UDP_ADDR : J_UDP;
            w = b;
            for (size_t i = q.end; i + 4 <= w.n; i++)           /* the wrong one tells another address */
                if (get32(w.p + i) >> 8 == 0xc00002) { w.p[i] = 6; w.p[i + 1] = 6; w.p[i + 2] = 6; w.p[i + 3] = 6; }
            if (kind == J_UDP) spoil(&w, a.first, &q);
            job_add(due, kind, -1, 0, from, w.p, w.n);
            due += a.gap;
        }
        job_add(due, J_UDP, -1, 0, from, b.p, b.n);
        if (a.twice) job_add(due, J_UDP, -1, 0, from, b.p, b.n);
        return;
    }
    memmove(b.p + 2, b.p, b.n);
    set16(b.p, (unsigned)b.n);
    b.n += 2;
    if (a.first[0] && strcmp(a.first, "port") && strcmp(a.first, "addr")) {
        memcpy(w.p, b.p + 2, b.n - 2);
        w.n = b.n - 2;
        spoil(&w, a.first, &q);
        memmove(w.p + 2, w.p, w.n);
        set16(w.p, (unsigned)w.n);
        job_add(due, J_TCP, conn, gen, NULL, w.p, w.n + 2);
        due += a.gap;
    }
    if (a.dribble)
        for (size_t i = 0; i < b.n; i++) job_add(due + (long long)i * a.dribble, J_TCP, conn, gen, NULL, b.p + i, 1);
    else
        job_add(due, J_TCP, conn, gen, NULL, b.p, a.cut ? b.n / 2 : b.n);
    if (a.closeafter || a.cut) job_add(due, J_CLOSE, conn, gen, NULL, p, 0);
}

static int cmd_up(int argc, char **argv)
{
    static uint8_t in[MSG + 2];
    static struct pollfd pf[CONNS + 4];
    static int who[CONNS + 4];
    int c, no_tcp = 0, no_udp = 0;
    while ((c = getopt(argc, argv, "l:r:n:TU")) != -1) {
        if (c == 'l') up_log = optarg;
        else if (c == 'r') up_rules = optarg;
        else if (c == 'n') up_number = atoi(optarg);
        else if (c == 'T') no_tcp = 1;
        else if (c == 'U') no_udp = 1;
        else return 2;
    }
    argv += optind;
    if (argv[0] == NULL || argv[1] == NULL) die("up: ADDR PORT");
    more_files();
    union sa me = sa_of(argv[0], atoi(argv[1])), any = sa_of(argv[0], 0);
    if (up_log && (up_logfd = open(up_log, O_WRONLY | O_CREAT | O_APPEND, 0644)) < 0) die("%s: %s", up_log, strerror(errno));
    int udp = no_udp ? -1 : sock(SOCK_DGRAM, &me, NULL, 1), tcp = no_tcp ? -1 : sock(SOCK_STREAM, &me, NULL, 1);
    int other = sock(SOCK_DGRAM, &any, NULL, 1), elsewhere = -1;
    if (me.s.sa_family == AF_INET) { union sa x = sa_of("127.0.0.9", sa_port(&me)); elsewhere = sock(SOCK_DGRAM, &x, NULL, 1); }
    if ((udp < 0 && !no_udp) || (tcp < 0 && !no_tcp)) die("bind: %s", strerror(errno));
    if (tcp >= 0) listen(tcp, 1024);
    for (int i = 0; i < CONNS; i++) conns[i].fd = -1;
    signal(SIGPIPE, SIG_IGN);
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        int n = 0, wait = -1;
        long long now = ms_now();
        while (jobs && jobs->due <= now) {
            struct job *j = jobs;
            jobs = j->next;
            if (j->kind == J_UDP) sendto(udp, j->p, j->n, 0, &j->to.s, sa_len(&j->to));
            else if (j->kind == J_FLOOD) {      /* 250 wrong IDs a turn; j->conn is how many are left */
                unsigned right = get16(j->p);
                for (int k = 0; k < 250 && j->conn > 0; k++, j->conn--) {
                    set16(j->p, (right + 1 + (unsigned)j->conn % 65535) & 65535);
                    sendto(udp, j->p, j->n, 0, &j->to.s, sa_len(&j->to));
                }
                set16(j->p, right);
                if (j->conn > 0) job_add(now + 1, J_FLOOD, j->conn, 0, &j->to, j->p, j->n);
            }
            else if (j->kind == J_UDP_PORT) sendto(other, j->p, j->n, 0, &j->to.s, sa_len(&j->to));
            else if (j->kind == J_UDP_ADDR) sendto(elsewhere, j->p, j->n, 0, &j->to.s, sa_len(&j->to));
            else if (conns[j->conn].fd >= 0 && conns[j->conn].gen == j->gen) {
                if (j->kind == J_TCP) conn_send(j->conn, j->p, j->n);
                else conn_close(j->conn, j->kind == J_RESET);
            }
            free(j->p);
            free(j);
        }
        if (jobs) wait = (int)(jobs->due - now);
        pf[n].fd = udp; pf[n++].events = POLLIN;
        pf[n].fd = tcp; pf[n++].events = POLLIN;
        for (int i = 0; i < CONNS; i++)
            if (conns[i].fd >= 0) { who[n] = i; pf[n].fd = conns[i].fd; pf[n++].events = (short)(POLLIN | (conns[i].nout ? POLLOUT : 0)); }
        if (poll(pf, (nfds_t)n, wait) < 0) continue;
        if (pf[0].revents)
            for (int k = 0; k < 64; k++) {
                union sa from;
                socklen_t sl = sizeof from;
                ssize_t r = recvfrom(udp, in, sizeof in, 0, &from.s, &sl);
                if (r < 0) break;
                up_query(in, (size_t)r, &from, -1);
            }
        if (pf[1].revents) {
            union sa from;
            socklen_t sl = sizeof from;
            int fd = accept(tcp, &from.s, &sl), i = 0, one = 1;
            while (i < CONNS && conns[i].fd >= 0) i++;
            if (fd >= 0 && i == CONNS) close(fd);
            else if (fd >= 0) {
                fcntl(fd, F_SETFL, O_NONBLOCK);
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                conns[i].fd = fd;
                conns[i].from = from;
                if (conns[i].in == NULL) conns[i].in = grow(NULL, MSG + 2);
                up_say("tcp from=%s connect conn=%d", sa_text(&from), i);
                struct act a = act_for(".connect.");
                if (a.close || a.reset) conn_close(i, a.reset);
            }
        }
        for (int k = 2; k < n; k++) {
            int i = who[k];
            struct conn *cn = &conns[i];
            if (!pf[k].revents || cn->fd != pf[k].fd) continue;
            if (pf[k].revents & POLLOUT) conn_flush(i);
            if (cn->fd < 0 || !(pf[k].revents & (POLLIN | POLLHUP | POLLERR))) continue;
            ssize_t r = read(cn->fd, cn->in + cn->nin, MSG + 2 - cn->nin);
            if (r == 0 || (r < 0 && errno != EAGAIN)) { conn_close(i, 0); continue; }
            if (r < 0) continue;
            cn->nin += (size_t)r;
            int gen = cn->gen;
            while (cn->fd >= 0 && cn->gen == gen && cn->nin >= 2 && cn->nin >= 2 + get16(cn->in)) {
                size_t len = get16(cn->in);
                up_query(cn->in + 2, len, &cn->from, i);
                if (cn->gen != gen) break;
                memmove(cn->in, cn->in + 2 + len, cn->nin - 2 - len);
                cn->nin -= 2 + len;
            }
        }
    }
}

/* ---- many: mass queries
 *
 * many ADDR PORT [WORD...]: n=COUNT window=IN FLIGHT rate=A SECOND name=FORMAT (%d is the number) type=T tcp=CONNECTIONS src=ADDR
 * timeout=MS same (one name for all) vary (differing EDNS options and letters) byname (each A record must be that of the name) +OPTION...
 * Says: sent N answered N noerror N ... tc N tcfull N (TC=1 with records) wrong N dup N bad N slowest_ms N p50_us N p99_us N.
 * A query without a reply is not sent again. */

struct waiting { long long t; int used, answered; int number; };

static int by_size(const void *a, const void *b) { long x = *(const long *)a, y = *(const long *)b; return x < y ? -1 : x > y; }

struct found { int n, wrong; uint32_t want; };
static void see_a(const uint8_t *p, size_t n, const struct rr *r, void *ctx)
{
    struct found *f = ctx;
    (void)n;
    if (r->section != 1 || r->type != 1 || r->rdlen != 4) return;
    f->n++;
    if (get32(p + r->rd) != f->want) f->wrong++;
}

static int cmd_many(int argc, char **argv)
{
    static struct query q;
    static struct buf b;
    static struct waiting w[65536];
    static uint8_t in[MSG + 2];
    int refused = 0, count = 1000, window = 100, type = 1, tcp = 0, timeout = 6000, same = 0, vary = 0, byname = 0, from0 = 0;
    long rate = 0;
    const char *fmt = "n%d.test", *srcs = NULL;
    long *took, nrc[17] = { 0 }, sent = 0, done = 0, wrong = 0, dup = 0, tc = 0, tcfull = 0, bad = 0, open_ = 0;
    struct { int fd; uint8_t *in, *out; size_t nin, nout, room; } ch[256];
    query_init(&q);
    for (int i = 3; i < argc; i++) {
        char *v = strchr(argv[i], '=');
        v = v ? v + 1 : argv[i];
        if (argv[i][0] == '+') { if (!query_option(&q, argv[i])) die("many: what is %s?", argv[i]); }
        else if (strncmp(argv[i], "n=", 2) == 0) count = atoi(v);
        else if (strncmp(argv[i], "window=", 7) == 0) window = atoi(v);
        else if (strncmp(argv[i], "rate=", 5) == 0) rate = atol(v);
        else if (strncmp(argv[i], "name=", 5) == 0) fmt = v;
        else if (strncmp(argv[i], "from=", 5) == 0) from0 = atoi(v);
        else if (strncmp(argv[i], "type=", 5) == 0) type = type_of(v);
        else if (strncmp(argv[i], "tcp=", 4) == 0) tcp = atoi(v);
        else if (strncmp(argv[i], "src=", 4) == 0) srcs = v;
        else if (strncmp(argv[i], "timeout=", 8) == 0) timeout = atoi(v);
        else if (strcmp(argv[i], "same") == 0) same = 1;
        else if (strcmp(argv[i], "vary") == 0) vary = 1;
        else if (strcmp(argv[i], "byname") == 0) byname = 1;
        else die("many: what is %s?", argv[i]);
    }
    if (window > 60000) window = 60000;
    if (tcp > 256) tcp = 256;
    took = grow(NULL, sizeof *took * (size_t)(count + 1));
    union sa to = sa_of(q.server ? q.server : argv[1], atoi(argv[2])), src;
    if (srcs) src = sa_of(srcs, 0);
    int nch = tcp ? tcp : 1;
    memset(ch, 0, sizeof ch);
    for (int i = 0; i < nch; i++) {
        ch[i].fd = sock(tcp ? SOCK_STREAM : SOCK_DGRAM, srcs ? &src : NULL, &to, 0);
        if (ch[i].fd < 0) { printf("%s\n", strerror(errno)); return 1; }
        fcntl(ch[i].fd, F_SETFL, O_NONBLOCK);
        ch[i].in = grow(NULL, MSG + 2);
    }
    signal(SIGPIPE, SIG_IGN);
    rng ^= (uint64_t)us_now() * 2654435761u;
    long long t0 = us_now(), last = t0;
    unsigned next = rnd() & 65535;
    struct pollfd pf[256];
    for (;;) {
        long long now = us_now();
        while (sent < count && open_ < window && (rate == 0 || sent <= (now - t0) * rate / 1000000)) {
            char name[1024];
            int i = (int)(sent % nch), number = same ? from0 : from0 + (int)sent;
            while (w[next & 65535].used) next++;
            unsigned id = next++ & 65535;
            snprintf(name, sizeof name, fmt, number, number, number);
            if (vary) {
                static const char *const opts[] = { "+opt=8:0001180001020%d", "+opt=10:00112233445566%02d", "+opt=12:%04d", "+opt=3:" };
                char o[64];
                q.opts.n = 0;
                q.edns = 512 + (int)(rnd() % 4000);
                snprintf(o, sizeof o, opts[sent % 4], (int)(sent % 10));
                query_option(&q, o);
                for (char *s = name; *s; s++) if (rnd() & 1) *s = (char)toupper((unsigned char)*s);
            }
            query_write(&q, &b, name, type, (int)id);
            w[id].used = 1;
            w[id].answered = 0;
            w[id].number = number;
            w[id].t = us_now();
            if (tcp) {
                if (ch[i].nout + b.n + 2 > ch[i].room) ch[i].out = grow(ch[i].out, ch[i].room = (ch[i].nout + b.n + 2) * 2);
                set16(ch[i].out + ch[i].nout, (unsigned)b.n);
                memcpy(ch[i].out + ch[i].nout + 2, b.p, b.n);
                ch[i].nout += b.n + 2;
            } else if (send(ch[i].fd, b.p, b.n, 0) < 0 && errno == ECONNREFUSED) send(ch[i].fd, b.p, b.n, 0);
            sent++;
            open_++;
            last = us_now();
        }
        if (done >= sent && sent >= count) break;
        if (tcp) {                      /* all connections are closed: nothing more can come */
            int alive = 0;
            for (int i = 0; i < nch; i++) alive += ch[i].fd >= 0;
            if (alive == 0) break;
        }
        now = us_now();
        if (sent >= count && now - last > timeout * 1000LL) break;
        if (open_ >= window && now - last > timeout * 1000LL) {         /* forget what got no reply */
            for (int i = 0; i < 65536; i++) if (w[i].used && now - w[i].t > timeout * 1000LL) { w[i].used = 0; open_--; }
            last = now;
        }
        for (int i = 0; i < nch; i++) {
            if (ch[i].nout) {
                ssize_t r = send(ch[i].fd, ch[i].out, ch[i].nout, MSG_NOSIGNAL);
                if (r > 0) { memmove(ch[i].out, ch[i].out + r, ch[i].nout - (size_t)r); ch[i].nout -= (size_t)r; }
            }
            pf[i].fd = ch[i].fd;
            pf[i].events = (short)(ch[i].fd < 0 ? 0 : POLLIN | (ch[i].nout ? POLLOUT : 0));
            pf[i].revents = 0;
        }
        poll(pf, (nfds_t)nch, rate && sent < count ? 1 : 50);
        for (int i = 0; i < nch; i++) {
            if (!(pf[i].revents & (POLLIN | POLLHUP | POLLERR))) continue;
            for (int k = 0; k < 256; k++) {
                uint8_t *p = in;
                ssize_t r;
                if (tcp) {
                    r = recv(ch[i].fd, ch[i].in + ch[i].nin, MSG + 2 - ch[i].nin, 0);
                    if (r == 0 || (r < 0 && errno != EAGAIN)) { close(ch[i].fd); ch[i].fd = -1; ch[i].nin = ch[i].nout = 0; break; }
                    if (r < 0) break;
                    ch[i].nin += (size_t)r;
                } else {
                    r = recv(ch[i].fd, in, sizeof in, 0);
                    if (r < 0 && errno == ECONNREFUSED && done == 0 && ++refused == 3) goto end;
                    if (r < 0) break;
                }
                for (;;) {
                    if (tcp) {
                        if (ch[i].nin < 2 || ch[i].nin < 2 + get16(ch[i].in)) break;
                        r = get16(ch[i].in);
                        p = ch[i].in + 2;
                    }
                    struct question qq;
                    char name[1024];
                    if (r < 12) bad++;
                    else {
                        struct waiting *x = &w[get16(p)];
                        if (!x->used && x->answered) dup++;
                        else if (!x->used) wrong++;
                        else {
                            x->used = 0;
                            x->answered = 1;
                            open_--;
                            took[done++] = (long)(us_now() - x->t);
                            unsigned rc = p[3] & 15;
                            nrc[rc]++;
                            if (p[2] & 2) { tc++; tcfull += get16(p + 6) || get16(p + 8); }
                            snprintf(name, sizeof name, fmt, x->number, x->number, x->number);
                            size_t l = strlen(name);
                            if (!read_question(p, (size_t)r, &qq) || (qq.name[strlen(qq.name) - 1] = 0, strncasecmp(qq.name, name, l)) || qq.name[l]) {
                                if (strchr(name, '\\') == NULL) wrong++;
                            } else if (byname && rc == 0) {
                                struct found fo = { 0, 0, 0 };
                                strcat(qq.name, ".");
                                fo.want = 10u << 24 | (name_hash(qq.name) & 0xffffff);
                                if (walk(p, (size_t)r, see_a, &fo) || fo.n == 0 || fo.wrong) wrong++;
                            }
                        }
                    }
                    if (!tcp) break;
                    memmove(ch[i].in, ch[i].in + 2 + r, ch[i].nin - 2 - (size_t)r);
                    ch[i].nin -= 2 + (size_t)r;
                }
            }
        }
    }
    end:
    qsort(took, (size_t)done, sizeof *took, by_size);
    printf("sent %ld answered %ld noerror %ld formerr %ld servfail %ld nxdomain %ld notimp %ld refused %ld tc %ld tcfull %ld wrong %ld dup %ld bad %ld slowest_ms %ld p50_us %ld p99_us %ld ms %lld\n",
           sent, done, nrc[0], nrc[1], nrc[2], nrc[3], nrc[4], nrc[5], tc, tcfull, wrong, dup, bad, done ? took[done - 1] / 1000 : 0,
           done ? took[done / 2] : 0, done ? took[done * 99 / 100] : 0, (us_now() - t0) / 1000);
    return 0;
}

/* ---- talk: a TCP connection by script
 *
 * talk ADDR PORT WORD...: q=NAME[/TYPE[/+OPTION...]] adds a framed query to what will be sent, qs=COUNT:FORMAT many of them (%d is the
 * number), hex=HEX and text=TEXT (\r \n) add bytes, len=N two bytes; send writes it in one piece, bytes=MS byte by byte; pause=MS,
 * fin, rst; replies=N prints N DNS replies, a line each (at most 5 s, or replies=N,MS); count=N only counts them; slurp[=MS] prints text to the end;
 * segment says how many bytes one recv gives; rcvbuf=BYTES (first word); end=MS waits for the other's close and says EOF, RESET or OPEN with ms=. */
static int cmd_talk(int argc, char **argv)
{
    static struct query q;
    static struct buf b;
    static uint8_t in[MSG + 2];
    uint8_t *out = NULL;
    size_t nout = 0, room = 0;
    union sa to = sa_of(argv[1], atoi(argv[2]));
    int at = 3, fd = socket(to.s.sa_family, SOCK_STREAM, 0), one = 1, gone = 0;
    long long t0 = ms_now();
    unsigned id = 1;
    signal(SIGPIPE, SIG_IGN);
    if (at < argc && strncmp(argv[at], "rcvbuf=", 7) == 0) { int v = atoi(argv[at++] + 7); setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &v, sizeof v); }
    if (at < argc && strncmp(argv[at], "src=", 4) == 0) { union sa src = sa_of(argv[at++] + 4, 0); if (bind(fd, &src.s, sa_len(&src)) < 0) die("bind: %s", strerror(errno)); }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, &to.s, sa_len(&to)) < 0) { printf("%s\n", errno == ECONNREFUSED ? "REFUSEDPORT" : strerror(errno)); return 1; }
#define OUT(p, n) do { if (nout + (n) > room) out = grow(out, room = (nout + (n)) * 2); memcpy(out + nout, (p), (n)); nout += (n); } while (0)
    for (; at < argc; at++) {
        char *w = argv[at], *v = strchr(w, '=');
        v = v ? v + 1 : w + strlen(w);
        int is_send = strcmp(w, "send") == 0, is_bytes = strncmp(w, "bytes", 5) == 0;
        if (strncmp(w, "q=", 2) == 0 || strncmp(w, "qs=", 3) == 0) {
            int many = 1, type = 1;
            char *fmt = v, name[1100];
            if (w[1] == 's') { many = atoi(v); fmt = strchr(v, ':') + 1; }
            query_init(&q);
            char *sl = strchr(fmt, '/');
            if (sl) {
                *sl++ = 0;
                for (char *o; (o = strsep(&sl, "/")) != NULL; )
                    if (*o == '+') { if (!query_option(&q, o)) die("talk: what is %s?", o); }
                    else if ((type = type_of(o)) < 0) die("talk: %s is not a type", o);
            }
            for (int i = 0; i < many; i++) {
                uint8_t len[2];
                snprintf(name, sizeof name, fmt, i, i);
                query_write(&q, &b, name, type, q.id >= 0 ? q.id : (int)(id++ & 65535));
                set16(len, (unsigned)b.n);
                OUT(len, 2);
                OUT(b.p, b.n);
            }
        } else if (strncmp(w, "hex=", 4) == 0) { b.n = 0; put_hex(&b, v); OUT(b.p, b.n); }
        else if (strncmp(w, "len=", 4) == 0) { b.n = 0; put16(&b, (unsigned)atoi(v)); OUT(b.p, b.n); }
        else if (strncmp(w, "text=", 5) == 0) {
            for (; *v; v++) {
                char ch = *v;
                if (ch == '\\' && v[1]) { v++; ch = *v == 'r' ? '\r' : *v == 'n' ? '\n' : *v == 'x' ? 'x' : *v; }
                OUT(&ch, 1);
            }
        } else if (strncmp(w, "fill=", 5) == 0) { for (long k = atol(v); k; k--) OUT("x", 1); }
        else {
            if (nout) {                 /* everything else sends first what is there */
                size_t done = 0;
                long long end = ms_now() + 20000 + (is_bytes ? (long long)nout * atoi(v) : 0);
                fcntl(fd, F_SETFL, O_NONBLOCK);
                while (done < nout && ms_now() < end) {
                    ssize_t r = send(fd, out + done, is_bytes ? 1 : nout - done, MSG_NOSIGNAL);
                    if (r < 0 && errno == EAGAIN) {
                        struct pollfd f = { fd, POLLOUT, 0 };
                        if (poll(&f, 1, 3000) == 0) { printf("STUCK %zu of %zu\n", done, nout); break; }
                        continue;
                    }
                    if (r <= 0) { gone = 1; break; }
                    done += (size_t)r;
                    if (is_bytes && *v) ms_sleep(atoi(v));
                }
                fcntl(fd, F_SETFL, 0);
                nout = 0;
            }
            if (is_send || is_bytes) continue;
            if (strncmp(w, "pause=", 6) == 0) ms_sleep(atoi(v));
            else if (strcmp(w, "fin") == 0) shutdown(fd, SHUT_WR);
            else if (strcmp(w, "rst") == 0) { struct linger l = { 1, 0 }; setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l); close(fd); return 0; }
            else if (strncmp(w, "replies=", 8) == 0 || strncmp(w, "count=", 6) == 0) {
                int n = atoi(v), got = 0, counted = w[0] == 'c', rc0 = 0;
                long long end = ms_now() + (strchr(v, ',') ? atoi(strchr(v, ',') + 1) : 6000);
                while (got < n) {
                    uint8_t len[2];
                    char more[40];
                    if (read_full(fd, len, 2, end) < 2 || read_full(fd, in, get16(len), end) < get16(len)) {
                        if (!counted) printf("%s ms=%lld\n", ms_now() >= end ? "TIMEOUT" : "CLOSED", ms_now() - t0);
                        break;
                    }
                    got++;
                    rc0 += (in[3] & 15) == 0;
                    snprintf(more, sizeof more, " ms=%lld", ms_now() - t0);
                    if (!counted) print_msg(stdout, in, get16(len), more);
                }
                if (counted) printf("replies %d noerror %d ms=%lld\n", got, rc0, ms_now() - t0);
            } else if (strcmp(w, "segment") == 0) {
                struct pollfd f = { fd, POLLIN, 0 };
                printf("segment %zd\n", poll(&f, 1, 6000) > 0 ? recv(fd, in, sizeof in, 0) : (ssize_t)-1);
            } else if (strncmp(w, "slurp", 5) == 0 || strncmp(w, "end", 3) == 0) {
                long long end = ms_now() + (*v ? atoi(v) : 6000), bytes = 0;
                const char *how = "OPEN";
                for (;;) {
                    struct pollfd f = { fd, POLLIN, 0 };
                    long long left = end - ms_now();
                    if (left < 0 || poll(&f, 1, (int)left) <= 0) break;
                    ssize_t r = read(fd, in, sizeof in);
                    if (r == 0) { how = "EOF"; break; }
                    if (r < 0) { how = "RESET"; break; }
                    bytes += r;
                    if (w[0] == 's') fwrite(in, 1, (size_t)r, stdout);
                }
                if (w[0] == 'e') printf("%s ms=%lld bytes=%lld%s\n", how, ms_now() - t0, bytes, gone ? " gone" : "");
            } else die("talk: what is %s?", w);
        }
        fflush(stdout);
    }
    close(fd);
    return 0;
}

/* hold ADDR PORT N [hex=HEX] [src=ADDR]: N connections, each sends HEX once and then nothing. Says "holding N", and "open N" whenever that
 * number changes. Runs until killed, 10 minutes at most. */
static int cmd_hold(int argc, char **argv)
{
    int n = atoi(argv[3]), left = 0, told = -1;
    union sa to = sa_of(argv[1], atoi(argv[2])), src;
    struct pollfd *f = grow(NULL, sizeof *f * (size_t)(n + 1));
    static struct buf b;
    const char *srcs = NULL;
    for (int i = 4; i < argc; i++) {
        if (strncmp(argv[i], "hex=", 4) == 0) put_hex(&b, argv[i] + 4);
        if (strncmp(argv[i], "src=", 4) == 0) srcs = argv[i] + 4;
    }
    if (srcs) src = sa_of(srcs, 0);
    more_files();
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < n; i++) {
        int fd = sock(SOCK_STREAM, srcs ? &src : NULL, &to, 0);
        if (fd < 0) continue;
        if (b.n && write(fd, b.p, b.n) < 0) { close(fd); continue; }
        f[left].fd = fd;
        f[left++].events = POLLIN;
    }
    printf("holding %d\n", left);
    fflush(stdout);
    for (long long end = ms_now() + 600000; ms_now() < end; ) {
        int open_ = 0;
        poll(f, (nfds_t)left, 500);
        for (int i = 0; i < left; i++) {
            static char junk[4096];
            if (f[i].fd >= 0 && f[i].revents && read(f[i].fd, junk, sizeof junk) <= 0) { close(f[i].fd); f[i].fd = -1; }
            open_ += f[i].fd >= 0;
        }
        if (open_ != told) { printf("open %d\n", told = open_); fflush(stdout); }
        if (open_ == 0) break;
    }
    return 0;
}

/* flood ADDR PORT [WORD...]: n=COUNT seed=N kind=random|mutate|qr|short src=ADDR tcp gap=US after each 32: datagrams (or one connection each 50 messages).
 * A mutated query is a good one with some bytes changed. Says: sent N got N longest N odd N (FORMERR replies that are more than header,
 * question and OPT). */
static int cmd_flood(int argc, char **argv)
{
    static struct buf b;
    static uint8_t in[MSG];
    static struct query q;
    int count = 10000, tcp = 0, gap = 0;
    long got = 0, longest = 0, odd = 0;
    const char *kind = "random", *srcs = NULL;
    union sa to = sa_of(argv[1], atoi(argv[2])), src;
    rng = 1;
    for (int i = 3; i < argc; i++) {
        char *v = strchr(argv[i], '=');
        v = v ? v + 1 : argv[i];
        if (strncmp(argv[i], "n=", 2) == 0) count = atoi(v);
        else if (strncmp(argv[i], "seed=", 5) == 0) rng = strtoull(v, NULL, 10) * 0x9e3779b97f4a7c15ULL | 1;
        else if (strncmp(argv[i], "kind=", 5) == 0) kind = v;
        else if (strncmp(argv[i], "src=", 4) == 0) srcs = v;
        else if (strncmp(argv[i], "gap=", 4) == 0) gap = atoi(v);
        else if (strcmp(argv[i], "tcp") == 0) tcp = 1;
        else die("flood: what is %s?", argv[i]);
    }
    if (srcs) src = sa_of(srcs, 0);
    signal(SIGPIPE, SIG_IGN);
    int fd = -1;
    for (int i = 0; i < count; i++) {
        if (fd < 0 && (fd = sock(tcp ? SOCK_STREAM : SOCK_DGRAM, srcs ? &src : NULL, &to, 0)) < 0) { ms_sleep(2); continue; }
        b.n = 0;
        if (strcmp(kind, "random") == 0) for (int k = (int)(rnd() % (rnd() % 8 ? 80 : 1400)); k; k--) put8(&b, rnd() & 255);
        else if (strcmp(kind, "short") == 0) for (int k = (int)(rnd() % 12); k; k--) put8(&b, rnd() & 255);
        else {
            char name[64], o[64];
            snprintf(name, sizeof name, "f%u.flood.test", rnd() % 500);
            query_init(&q);
            if (rnd() % 3) q.edns = (int)(rnd() % 5000);
            if (rnd() % 3 == 0) { snprintf(o, sizeof o, "+opt=%u:%08x", rnd() % 16, rnd()); query_option(&q, o); }
            query_write(&q, &b, name, rnd() % 4 ? 1 : (int)(rnd() % 300), (int)(rnd() & 65535));
            if (strcmp(kind, "qr") == 0) b.p[2] |= 0x80;
            else for (int k = 1 + (int)(rnd() % 4); k; k--) {
                unsigned at = rnd() % (unsigned)b.n, how = rnd() % 5;
                if (how == 0) b.p[at] ^= (uint8_t)(1u << rnd() % 8);
                else if (how == 1) b.p[at] = (uint8_t)rnd();
                else if (how == 2) b.p[at] = (uint8_t)"\0\xff\xc0\x0c\x40\x3f\x29\x01"[rnd() % 8];
                else if (how == 3 && b.n > 14) b.n = 12 + rnd() % (unsigned)(b.n - 12);
                else set16(b.p + 4 + 2 * (rnd() % 4), rnd() % 3 ? rnd() % 4 : rnd() & 65535);
            }
        }
        if (tcp) {
            uint8_t len[2];
            set16(len, rnd() % 8 ? (unsigned)b.n : rnd() % 70);
            if (send(fd, len, 2, MSG_NOSIGNAL) < 0 || send(fd, b.p, b.n, MSG_NOSIGNAL) < 0 || i % 50 == 49) { close(fd); fd = -1; }
        } else send(fd, b.p, b.n, 0);
        if (fd >= 0)
            for (ssize_t r; (r = recv(fd, in, sizeof in, MSG_DONTWAIT)) > 0; ) {
                got++;
                if (r > longest) longest = (long)r;
                if (!tcp && r >= 12 && (in[3] & 15) == 1 && (get16(in + 6) || get16(in + 8) || get16(in + 10) > 1)) odd++;
            }
        if (i % 32 == 31) { if (gap) { struct timespec t = { 0, gap * 1000L }; nanosleep(&t, NULL); } else sched_yield(); }
    }
    if (!tcp && fd >= 0) {
        struct pollfd f = { fd, POLLIN, 0 };
        while (poll(&f, 1, 50) > 0) { ssize_t r = recv(fd, in, sizeof in, 0); if (r < 0) continue; got++; if (r > longest) longest = (long)r; }
    }
    printf("sent %d got %ld longest %ld odd %ld\n", count, got, longest, odd);
    return 0;
}

/* ---- The small ones */

/* zero ADDR PORT NAME: a query to an IPv4 address whose UDP source port is 0; false if that is not allowed here */
static int cmd_zero(int argc, char **argv)
{
    static struct buf b, m;
    static struct query q;
    union sa to = sa_of(argv[1], atoi(argv[2]));
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_UDP);
    (void)argc;
    if (fd < 0) return 1;
    query_init(&q);
    query_write(&q, &m, argv[3], 1, 4711);
    put16(&b, 0);
    put16(&b, (unsigned)sa_port(&to));
    put16(&b, (unsigned)m.n + 8);
    put16(&b, 0);                       /* no checksum */
    putn(&b, m.p, m.n);
    to.v4.sin_port = 0;
    return sendto(fd, b.p, b.n, 0, &to.s, sa_len(&to)) < 0;
}

static int cmd_freeport(int argc, char **argv)
{
    int fd[4], n = 0;
    (void)argc; (void)argv;
    rng ^= (uint64_t)us_now() * 2654435761u ^ (uint64_t)getpid() << 32;
    for (int try = 0; try < 200; try++) {
        int port = 10000 + (int)(rnd() % 20000);        /* below the ports that the kernel gives to clients */
        union sa a = sa_of("0.0.0.0", port), z = sa_of("::", port);
        n = 0;
        fd[n++] = sock(SOCK_DGRAM, &a, NULL, 0);
        fd[n++] = sock(SOCK_STREAM, &a, NULL, 0);
        fd[n++] = sock(SOCK_DGRAM, &z, NULL, 0);
        fd[n++] = sock(SOCK_STREAM, &z, NULL, 0);
        int good = fd[0] >= 0 && fd[1] >= 0;
        if (fd[2] < 0 && errno != EAFNOSUPPORT && errno != EADDRNOTAVAIL && errno == EADDRINUSE) good = 0;
        while (n--) if (fd[n] >= 0) close(fd[n]);
        if (good) { printf("%d\n", port); return 0; }
    }
    return 1;
}

/* true if the process has ended; a zombie has */
static int is_gone(int pid)
{
    char path[64], text[512];
    FILE *f;
    if (kill(pid, 0) < 0 && errno == ESRCH) return 1;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if ((f = fopen(path, "r")) == NULL) return access("/proc/self/stat", R_OK) == 0;
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    char *z = strrchr(text, ')');
    return z != NULL && z[1] == ' ' && (z[2] == 'Z' || z[2] == 'X');
}

static int cmd_serves(int argc, char **argv)
{
    union sa to = sa_of(argc > 4 ? argv[4] : "127.0.0.1", atoi(argv[2])), six = sa_of("::1", atoi(argv[2]));
    for (long long end = ms_now() + atoi(argv[3]); ms_now() < end; ms_sleep(3)) {
        int fd = sock(SOCK_STREAM, NULL, &to, 0);
        if (fd < 0) fd = sock(SOCK_STREAM, NULL, &six, 0);
        if (fd >= 0) { close(fd); return 0; }
        if (is_gone(atoi(argv[1]))) return 1;
    }
    return 1;
}

static int cmd_gone(int argc, char **argv)
{
    (void)argc;
    for (long long end = ms_now() + atoi(argv[2]); ms_now() < end; ms_sleep(3))
        if (is_gone(atoi(argv[1]))) return 0;
    return 1;
}

static int cmd_line(int argc, char **argv)
{
    static char in[65536];
    union sa to = sa_of(argv[1], atoi(argv[2]));
    int fd = sock(SOCK_STREAM, NULL, &to, 0);
    (void)argc;
    if (fd < 0) { printf("no connection: %s\n", strerror(errno)); return 1; }
    signal(SIGPIPE, SIG_IGN);
    if (dprintf(fd, "%s\n", argv[3]) < 0) return 1;
    for (long long end = ms_now() + 20000; ms_now() < end; ) {
        struct pollfd f = { fd, POLLIN, 0 };
        if (poll(&f, 1, 1000) <= 0) continue;
        ssize_t n = read(fd, in, sizeof in);
        if (n <= 0) return 0;
        fwrite(in, 1, (size_t)n, stdout);
    }
    printf("the admin port does not close\n");
    return 1;
}

static int cmd_notify(int argc, char **argv)
{
    static char in[65536];
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    (void)argc;
    snprintf(a.sun_path, sizeof a.sun_path, "%s", argv[1]);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0) die("%s: %s", argv[1], strerror(errno));
    chmod(argv[1], 0777);
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        ssize_t n = recv(fd, in, sizeof in - 1, 0);
        if (n < 0) return 1;
        for (ssize_t i = 0; i < n; i++) if (in[i] == '\n') in[i] = ' ';
        printf("%lld %.*s\n", ms_now(), (int)n, in);
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    static const struct { const char *name; int args; int (*run)(int, char **); } commands[] = {
        { "up", 4, cmd_up }, { "ask", 4, cmd_ask }, { "many", 3, cmd_many }, { "talk", 4, cmd_talk }, { "hold", 4, cmd_hold }, { "flood", 3, cmd_flood },
        { "zero", 4, cmd_zero }, { "freeport", 1, cmd_freeport }, { "serves", 4, cmd_serves }, { "gone", 3, cmd_gone }, { "line", 4, cmd_line }, { "notify", 2, cmd_notify } };
    if (argc > 1)
        for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
            if (strcmp(argv[1], commands[i].name) == 0 && argc > commands[i].args)
                return commands[i].run(argc - 1, argv + 1);
    die("freeport | serves | gone | line | notify | zero | up | ask | many | talk | hold | flood, and its arguments");
}
END_OF_TOOL
    "${TOOL_CC:-cc}" -O2 -g -o "$T/tool" "$T/tool.c"
}

# ---- The core: serving, messages, choosing, cache, admin, configuration, logs, hostile clients ----

LEGS="$LEGS serving tcp messages edns choosing failing sharing private spoofing retrying cache cachefull negative stale prefetch admin config"
LEGS="$LEGS logs hostile fixed confined crowds limits reload domains metrics network supervisor seeing"

# what up sets: the addresses of the upstreams
u1='' u2='' u3='' u4=''

# Figures of a process, where /proc has them
cpu_ms() { awk '{ sub(/.*\) /, ""); print ($12 + $13) * 10 }' "/proc/$(pid "$1")/stat"; }
rss_kb() { awk '/^VmRSS/ { print $2 }' "/proc/$(pid "$1")/status"; }
fd_count() { find "/proc/$(pid "$1")/fd" -type l 2>/dev/null | wc -l | tr -d ' '; }
proc_here() { [ -r "/proc/$$/stat" ]; }
# plain: the program runs as it is, not under an emulator and without sanitizers: memory and time are its own
plain() { [ -z "$WRAP" ] && ! grep -q __asan_init "$BIN"; }
# shim NAME: compiles standard input to $T/NAME.so for LD_PRELOAD; false if this program cannot be listened in on that way
shim()
{
    cat >"$T/$1.c"
    plain && ldd "$BIN" 2>/dev/null | grep -q 'libc\.so' && "$CC" -shared -fPIC -o "$T/$1.so" "$T/$1.c" -ldl 2>/dev/null
}

# count KEY: a number of the first line of status;  upstream ADDR KEY: of an upstream's line;  cached KEY: of the cache line
count() { val "$1" "$(adm status | grep '^dnsproxy ')"; }
upstream() { val "$2" "$(adm status | grep "^upstream $1 ")"; }
cached() { val "$1" "$(adm status | grep '^cache ')"; }
is() { [ "$2" = "$("$@" 2>/dev/null)" ]; }
# pairs NAME ERE: with how many pairs of port and ID such a question came to the upstream: one sent again is the same
pairs() { grep -E -e "$2" "$T/$1.q" | sed 's/.*from=\([^ ]*\) id=\([0-9]*\) .*/\1 \2/' | sort -u | wc -l | tr -d ' '; }
state_is() { [ "$(upstream "$1" state)" = "$2" ]; }
asked_is() { [ "$(asked "$1" "$3")" = "$2" ]; }
ms_of() { val ms "$1"; }
addresses() { printf '%s\n' "$1" | tr '|' '\n' | sed -n 's/^ [^:]* A \([0-9.]*\).*/\1/p' | tr '\n' ' ' | sed 's/ $//'; }
ttl_of() { printf '%s\n' "$1" | tr '|' '\n' | sed -n '2s/^ [^ ]* \([0-9]*\) .*/\1/p'; }

# lives NAME TEXT: after an attack it is the same process, and answers 20 of 20 fresh names
lives()
{
    kill -0 "$(pid "$1")" 2>/dev/null || fail "$1 has died"
    lives_o=$(many n=20 window=1 timeout=3000 "name=alive%d-$(date +%s).lives.test")
    same 20 "$(val noerror "$lives_o")" "after $2: fresh names answered ($lives_o)"
    ! grep -Eq 'runtime error:|Sanitizer' "$T/$1.log" || fail "$1: a sanitizer's report"
}

# down NAME ADDR: lets the silent upstream ADDR be down at proxy NAME (asks three names and more, at once)
down()
{
    many n=4 window=4 "name=down%d-$(date +%s)$2.test" timeout=4000 >/dev/null
    await 5 state_is "$1" down || fail "$1 is not down after 4 unanswered queries"
}

# ---- Serving

leg_serving()
{
    up u1
    port=$(freeport)
    proxy p "$u1 1" "listen 127.0.0.1@$port" "listen ::1@$port" "listen 127.0.0.3@$port"
    promise "a query over UDP is answered with what the upstream says"
    like '^NOERROR qr rd ra .* an=1 .*\| a\.test\. 300 A 192\.0\.2\.1$' "$(ask a.test)"
    promise "a query over TCP is answered likewise"
    like '^NOERROR qr rd ra .* an=1 .*\| b\.test\. 300 A 192\.0\.2\.1$' "$(ask b.test +tcp)"
    promise "every listen address serves, IPv4 and IPv6, UDP and TCP"
    for s in 127.0.0.3 ::1; do
        like '^NOERROR' "$(ask "c$s.test" +server=$s)" "$s, UDP"
        like '^NOERROR' "$(ask "d$s.test" +server=$s +tcp)" "$s, TCP"
    done
    promise "an address that is not listed does not serve"
    like '^(REFUSEDPORT|TIMEOUT)' "$(ask a.test +server=127.0.0.4 +timeout=300)"
    promise "SIGTERM ends it, exit status 0"
    stop p

    promise "listen * is every IPv4 and IPv6 address"
    port=$(freeport)
    proxy p "$u1 1" "listen *@$port"
    for s in 127.0.0.1 127.0.0.77 ::1; do
        like '^NOERROR' "$(ask "e$s.test" +server=$s)" "$s, UDP"
        like '^NOERROR' "$(ask "f$s.test" +server=$s +tcp)" "$s, TCP"
    done
    promise "a reply leaves from the address that was asked, on a wildcard socket too"
    for s in 127.0.0.1 127.0.0.77 ::1; do
        like " from=$s@$port " "$(ask "g$s.test" +server=$s +unconn)" "$s, miss"
        like " from=$s@$port " "$(ask "g$s.test" +server=$s +unconn)" "$s, hit"
    done
    promise "SIGINT ends it, exit status 0"
    kill -INT "$(pid p)"
    wait "$(pid p)"
    same 0 $? "exit status"
    rm -f "$T/p.pid"

    promise "without a listen line it serves *, at the port of -p"
    port=$(freeport) admin=$(freeport)
    $NS $WRAP "$BIN" -p "$port" "$u1 1" "admin 127.0.0.1@$admin" </dev/null >"$T/p.log" 2>&1 &
    ready p $!
    like '^NOERROR' "$(ask h.test +server=::1)"
    like '^NOERROR' "$(ask i.test +server=127.0.0.9)"
    stop p

    promise "two ports of one address serve side by side"
    port=$(freeport) second=$(freeport)
    proxy p "$u1 1" "listen 127.0.0.1@$port" "listen 127.0.0.1@$second"
    like '^NOERROR' "$(ask j.test)"
    port=$second
    like '^NOERROR' "$(ask k.test)"
    stop p

    promise "a host without IPv6 serves IPv4"
    if shim no6 <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>
int socket(int domain, int type, int proto)
{
    static int (*real)(int, int, int);
    if (domain == AF_INET6) { errno = EAFNOSUPPORT; return -1; }
    if (real == 0) *(void **)&real = dlsym(RTLD_NEXT, "socket");
    return real(domain, type, proto);
}
END
    then
        port=$(freeport)
        WRAP="env LD_PRELOAD=$T/no6.so"
        proxy p "$u1 1" "listen *@$port"
        WRAP=''
        like '^NOERROR' "$(ask l.test)"
        stop p
    else
        skip "not here: no way to take IPv6 away from this program"
    fi

    promise "SIGTERM under load: it ends within a second, and started again it binds at once"
    port=$(freeport)
    proxy p "$u1 1" "listen 127.0.0.1@$port"
    many n=4000 window=200 rate=2000 name=delay=50.load%d.test timeout=300 >/dev/null &
    load=$!
    hold hold "$port" 20
    await 3 logged_q u1 load400 || fail "no load"
    kill -TERM "$(pid p)"
    tool gone "$(pid p)" $((1000 * SLOW)) || fail "still there after a second"
    proxy p "$u1 1" "listen 127.0.0.1@$port"
    like '^NOERROR' "$(ask again.test)"
    like '^NOERROR' "$(ask again.test +tcp)" TCP
    wait $load
    stop p

    promise "the limit on descriptors is raised to what is allowed, and the log says what that gives"
    # shellcheck disable=SC3045 # dash, bash and busybox have -S; where it is missing the promise is skipped
    if ! proc_here || [ -n "$WRAP" ] || ! (ulimit -Sn 100) 2>/dev/null; then
        skip "not here: no soft limit on descriptors"
    else
        port=$(freeport) admin=$(freeport)
        # shellcheck disable=SC3045 # as above
        (ulimit -Sn 100 && ulimit -Hn 900 && exec "$BIN" "$u1 1" "listen 127.0.0.1@$port" "admin 127.0.0.1@$admin") >"$T/p.log" 2>&1 &
        ready p $!
        like '^Max open files +900 +900 ' "$(cat "/proc/$(pid p)/limits")"
        like '^900 descriptors: [1-9][0-9]* for upstream ports, [1-9][0-9]* for TCP clients$' "$(cat "$T/p.log")"
        stop p
    fi
}

leg_tcp()
{
    up u1
    proxy s "$u1 1" 'cache-size 16m' 'timeout 25000'

    # The slow ones run beside everything else, at a program of their own: nobody there needs their place.
    talk bytes pause=1 end=35000 >"$T/idle.out" &
    idle=$!
    talk len=30 send pause=1000 hex=00 send pause=1000 hex=00 send pause=1000 hex=00 send end=35000 >"$T/stall.out" &
    stall=$!
    talk q=drip-drip-drip-drip.test bytes=1000 end=35000 >"$T/drip.out" &
    drip=$!
    talk rcvbuf=4096 qs=500:big=60000.deaf%d.test/TXT send pause=28000 end=7000 >"$T/deaf.out" &
    deaf=$!
    ask delay=18000.longwait.test +tcp +timeout=30000 >"$T/longwait.out" &
    longwait=$!
    full=$(printf '%060d' 0)            # a status of over 4 MB, more than the kernel keeps
    many n=20000 window=100 "name=%d.$full.$full.$full.test" >/dev/null
    full=$(adm status | wc -c)
    tool talk 127.0.0.1 "$admin" rcvbuf=2048 'text=status\n' pause=47000 end=1000 >"$T/reader.out" &
    reader=$!
    proxy p "$u1 1" 'cache-size 0' 'tcp-clients 20'

    promise "TCP: several queries in one segment are all answered"
    like '^replies 20 noerror 20 ' "$(talk qs=20:one%d.test send count=20)"
    promise "TCP: 100 pipelined queries on one connection are all answered"
    like 'answered 100 noerror 100 .* wrong 0 dup 0 bad 0' "$(many n=100 tcp=1 window=100 name=pipe%d.test)"
    promise "TCP: a query that comes byte by byte is answered"
    like '^NOERROR.* 300 A 192\.0\.2\.1$' "$(talk q=byte.test bytes=2 replies=1)"
    promise "TCP: the length may come in two segments, and the message split anywhere"
    like '^NOERROR.* 300 A 192\.0\.2\.1$' "$(talk hex=00 send pause=30 hex=1c send pause=30 hex=0007 send pause=30 hex=01000001000000000000 \
        send pause=30 hex=0573706c send pause=30 hex=6974047465737400 send pause=30 hex=0001 send pause=30 hex=0001 replies=1,2000)" "split"
    promise "TCP: one segment may hold the end of one query and the beginning of the next"
    like '^replies 2 noerror 2 ' "$(talk q=over1.test send hex=001c00 send pause=30 hex=0701000001000000000000 send hex=0573706c69740474657374 send hex=0000010001 count=2,2000)"
    promise "TCP: a reply leaves in one segment with its length"
    like '^segment 4[0-9]$' "$(talk q=segment.test send segment)" "a short one"
    like '^segment [1-9][0-9]{4}$' "$(talk q=big=30000.segment.test/TXT send segment)" "30,000 bytes"
    promise "TCP: answers come as they are ready, the fast before the slow"
    out=$(talk q=delay=400.slow.test q=fast.test send replies=2)
    like '^NOERROR.* q=fast\.test\./A' "$(printf '%s\n' "$out" | head -n 1)" first
    like '^NOERROR.* q=delay=400\.slow\.test\./A' "$(printf '%s\n' "$out" | tail -n 1)" second
    promise "TCP: a client that half-closes after its query is still answered, then sees the end"
    out=$(talk q=delay=200.half.test send fin replies=1 end=3000)
    like '^NOERROR.* A 192' "$out"
    like '^EOF' "$out"
    promise "TCP: a client that half-closes with nothing asked is closed"
    like '^EOF ms=[0-9]{1,3} ' "$(talk bytes fin end=5000)"
    promise "TCP: a message of 0 to 11 bytes closes the connection or is skipped, and never misaligns the next"
    for n in 0 1 11; do
        out=$(talk len=$n fill=$n q=after.test send replies=1,1000)
        like '^(NOERROR .* q=after|CLOSED)' "$out" "length $n"
    done
    promise "TCP: an answer of 60,000 bytes comes whole, without TC"
    out=$(ask big=60000.tcp.test TXT +tcp)
    like '^NOERROR qr rd ra .* an=1 .* size=(60000|599[89][0-9]) ' "$out"
    promise "TCP: 20 answers of 60,000 bytes to a client that reads slowly are all delivered"
    like '^replies 20 noerror 20' "$(talk rcvbuf=4096 qs=20:big=60000.s%d.test/TXT send pause=300 count=20)"

    promise "a full table of TCP clients never disturbs UDP, and a new client is served: the longest idle one goes"
    hold hold "$port" 40
    like '^NOERROR' "$(ask full.test)" UDP
    like '^NOERROR' "$(ask full.test +tcp)" TCP
    within 20 100 "$(metric full)" "times that a table made room, in the metrics"
    await 3 logged hold 'open (1?[0-9]|20)$' || fail "more than 20 are open: $(tail -n 1 "$T/hold.log")"
    within 0 20 "$(count tcp)" "clients in status"
    kill_pid hold
    promise "the sum of TCP clients in status returns to nothing when they leave"
    await 35 tcp_none || fail "tcp $(count tcp)"
    wait $idle $stall $drip $deaf
    promise "TCP: an idle client is kept for 2 s or more and closed within 30 s"
    like '^(EOF|RESET) ' "$(cat "$T/idle.out")"
    within 2000 31000 "$(ms_of "$(cat "$T/idle.out")")" ms
    promise "TCP: a client that stops in the middle of a message is closed within 30 s, and nothing of it is forwarded"
    like '^(EOF|RESET) ' "$(cat "$T/stall.out")"
    within 2000 31000 "$(ms_of "$(cat "$T/stall.out")")" ms
    same 0 "$(asked u1 garbage)" "garbage at the upstream"
    promise "TCP: a client that sends a byte a second is closed within 30 s, and nothing of it is forwarded"
    like '^(EOF|RESET) ' "$(cat "$T/drip.out")"
    within 2000 31000 "$(ms_of "$(cat "$T/drip.out")")" ms
    same 0 "$(asked u1 drip)" "queries at the upstream"
    promise "TCP: a client that asks and does not read is closed within 30 s"
    like '^(EOF|RESET) ' "$(cat "$T/deaf.out")"
    within 2000 31000 "$(ms_of "$(cat "$T/deaf.out")")" ms
    promise "TCP: a client that waits for a slow answer is not idle: after 18 s it has it"
    wait $longwait
    like '^NOERROR .* 192\.0\.2\.1$' "$(cat "$T/longwait.out")"
    promise "an admin client that does not read a long status is cut off within 60 s"
    wait $reader
    like '^(EOF|RESET) ' "$(cat "$T/reader.out")"
    within 0 $((full - 500000)) "$(val bytes "$(cat "$T/reader.out")")" "bytes of $full were read"
    stop s
    use p
    stop p
}
tcp_none() { [ "$(count tcp)" = 0 ]; }

# ---- Messages

leg_messages()
{
    up u1
    proxy p "$u1 1"
    promise "a datagram of less than 12 bytes is dropped"
    for n in 00 0007 00070100000100000000000a; do like '^TIMEOUT' "$(ask +raw="${n%00000a}" +timeout=150)" "$n"; done
    promise "a message with QR=1 is dropped"
    like '^TIMEOUT' "$(ask a.test +qr +timeout=200)"
    like '^(TIMEOUT|CLOSED)' "$(ask a.test +qr +tcp +timeout=200)" "TCP"
    promise "QDCOUNT 0 or 2 is FORMERR"
    like '^FORMERR qr ' "$(ask a.test +qd=0)" "QDCOUNT 0"
    like '^FORMERR qr ' "$(ask a.test +qd=2)" "QDCOUNT 2"
    promise "what cannot be parsed is FORMERR"
    like '^FORMERR qr ' "$(ask +raw=000701000001000000000000016100ff)" "question cut off"
    like '^FORMERR qr ' "$(ask +raw=000701000001000000000000c00c00010001)" "a pointer to itself"
    like '^FORMERR qr ' "$(ask +raw=000701000001000000000000c00200010001)" "a pointer into the header"
    like '^FORMERR qr ' "$(ask +raw=000701000001000000000000c0ff00010001)" "a pointer past the end"
    like '^FORMERR qr ' "$(ask +raw=000701000001000000000000c01200010001000161)" "a pointer forwards"
    like '^FORMERR qr ' "$(ask +raw=000701000001000100000000016100010001c015c0130001000100000000000401020304)" "two pointers at each other"
    like '^FORMERR qr ' "$(ask +raw="0007010000010000000000010161000001000116$(awk 'BEGIN { printf "%022d", 0; for (i = 0; i < 200; i++) printf "c0%02x", 20 + 2 * i }')")" "a chain of pointers"
    like '^FORMERR qr ' "$(ask +raw=0007010000010001000000000161000001000100002904d000000000000000)" "OPT in the answer section"
    like '^FORMERR qr |^TIMEOUT' "$(ask a.test +tc +timeout=300)" "TC=1 in a query"
    like '^FORMERR qr ' "$(ask +raw=00070100000100000000000041610000010001)" "label type 0x40"
    like '^FORMERR qr ' "$(ask +raw=00070100000100000000000081610000010001)" "label type 0x80"
    like '^FORMERR qr ' "$(ask a.test +edns +ar=1)" "ARCOUNT 2 with one record"
    like '^FORMERR qr ' "$(ask a.test +an=65535)" "ANCOUNT 65535 with none"
    promise "a name of 255 octets works, one of 256 is FORMERR, a label of 63 octets works"
    l=$(printf '%063d' 0)
    like '^NOERROR' "$(ask "$l.$l.$l.$(printf '%061d' 0)")" "255"
    like '^FORMERR' "$(ask "$l.$l.$l.$(printf '%062d' 0)")" "256"
    promise "an unknown opcode is NOTIMP with that opcode, and goes nowhere"
    forget u1
    for o in 1 2 4 5 6 15; do like "^NOTIMP qr .*opcode=$o id=77 " "$(ask op.test +opcode=$o +id=77)" "opcode $o"; done
    same 0 "$(asked u1)" "seen by the upstream"
    promise "NOTIFY and UPDATE leave the cache as it is"
    ask kept.test >/dev/null
    for o in 4 5; do ask kept.test SOA +opcode=$o >/dev/null; done
    like '^entry kept\.test\. A ' "$(adm status)"
    forget u1
    promise "AXFR and IXFR are NOTIMP, and go nowhere"
    for t in AXFR IXFR; do
        like '^NOTIMP qr ' "$(ask xfr.test $t)" "$t"
        like '^NOTIMP qr ' "$(ask xfr.test $t +tcp)" "$t, TCP"
    done
    same 0 "$(asked u1)" "seen by the upstream"
    promise "RD=0 is REFUSED, also for what the cache holds"
    ask seen.test >/dev/null
    like '^REFUSED qr' "$(ask seen.test +nord)"
    unlike ' rd ' "$(ask seen.test +nord)"
    like '^REFUSED qr' "$(ask seen.test +nord +tcp)" TCP
    promise "a reply has QR=1, RA=1, RD and question as asked, Z clear, AA clear from the cache"
    rules u1 '. aa'
    like '^NOERROR qr (aa )?rd ra id=4242 q=FlAgS\.test\./A qd=1 ' "$(ask FlAgS.test +id=4242)"
    unlike '(WRONG|MALFORMED)' "$(ask FlAgS.test +z)"
    like '^NOERROR qr rd ra id=' "$(ask FlAgS.test)" "from the cache"
    rules u1
    promise "flags Z, AD, CD and unknown EDNS flags in a query do not matter"
    like '^NOERROR qr rd ra( cd)? ' "$(ask z1.test +z +cd)"
    like '^NOERROR qr rd ra ' "$(ask z2.test +ad)"
    promise "unknown types are carried bytewise, from the cache too"
    for t in TYPE65280 TYPE12345 HTTPS SVCB; do
        one=$(ask rdlen=300.b.test $t) two=$(ask rdlen=300.b.test $t)
        like "^NOERROR .*$t \\\\# 300 [0-9a-f]{80}\+260 hash=[0-9a-f]{8}\$" "$one" "$t"
        same "${one##*|}" "${two##*|}" "$t from the cache"
    done
    promise "the names in MX, SOA, NS, SRV and CNAME data survive"
    like ' MX 10 mx\.n\.test\.$' "$(ask n.test MX)"
    like ' NS ns\.n\.test\.$' "$(ask n.test NS)"
    like ' SRV 1 2 443 srv\.target\.test\.$' "$(ask n.test SRV)"
    like ' SOA n\.test\. host\.n\.test\. 1 2 3 4 60$' "$(ask n.test SOA)"
    like ' CNAME c0\.cname=2\.n\.test\. .* c1\.cname=2\.n\.test\. 300 A 192\.0\.2\.1$' "$(ask cname=2.n.test)"
    promise "all sections of an answer are passed on"
    like ' an=1 ns=1 .*\| au: test\. 300 NS ns\.evil\. \| ad: victim\.test\. 300 A 6\.6\.6\.6$' "$(ask extra=.all.test)"
    promise "a name of 256 octets by way of a pointer is malformed, an OPT in the answer section never reaches a client"
    l=$(printf '%063d' 0)
    like '^SERVFAIL' "$(ask "bad=name256.$l.$l.$l.test" +timeout=7000)" "name"
    like '^(SERVFAIL .* ar=1 |NOERROR .* an=1 .* ar=1 )' "$(ask bad=optan.o.test +edns +timeout=7000)" "OPT"
    promise "the reply to a name in mixed letters has the client's letters, hit or miss"
    unlike WRONG "$(ask MiXeD.test)"
    unlike WRONG "$(ask mIxEd.TEST)"
    like ' \| mIxEd\.TEST\. ' "$(ask mIxEd.TEST)" "owner names that point at the question"
    promise "an upstream that lower-cases the question is understood, the client gets its own letters"
    like '^NOERROR.* q=LowEr=\.UP\.test\.' "$(ask LowEr=.UP.test)"
    out=$(ask lower=.UP.test)
    like '^NOERROR' "$out"
    unlike WRONG "$out"
    promise "a name may hold any octet"
    like '^NOERROR.* q=a\\\.b\.o\.test\./A' "$(ask 'a\.b.o.test')"
    like '^NOERROR.* q=a\\000b\.o\.test\./A' "$(ask 'a\000b.o.test')"
    like '^NOERROR.* q=\\255\\007"\.o\.test\./A' "$(ask '\255\007\".o.test')"
    promise "bytes behind the message are not passed on"
    forget u1
    ask trail.test +trail=4141414141414141414141414141414141414141 >/dev/null
    same 0 "$(asked u1 'odd=')" "odd messages at the upstream"
    promise "class CH is a question of its own"
    like '^NOERROR.* q=version\.bind\./TXT/CH' "$(ask version.bind TXT +class=CH)"
    stop p
}

leg_edns()
{
    up u1
    proxy p "$u1 1"
    promise "an upstream is sent an OPT of size 1232 always, and no option of the client"
    ask plain.test >/dev/null
    ask opts.test +edns=4096 +opt=8:000118007f0000 +opt=10:0011223344556677 +opt=12:0000 +opt=3: +opt=11: +opt=65001:aabb >/dev/null
    same 2 "$(asked u1 'edns=1232$')" "queries with OPT 1232 and nothing else: $(cat "$T/u1.q")"
    promise "DO is passed on, and CD"
    ask do.test +do >/dev/null
    ask cd.test +cd >/dev/null
    like ' do\.test\. A rd .* edns=1232 do$' "$(cat "$T/u1.q")"
    like ' cd\.test\. A rd cd .* edns=1232$' "$(cat "$T/u1.q")"
    like '^NOERROR qr rd ra cd ' "$(ask cd2.test +cd)" "CD in the reply"
    promise "a reply has an OPT only if the query had one, and then exactly one"
    unlike ' edns=' "$(ask o1.test)"
    like ' ar=1 .* edns=[0-9]+ ' "$(ask o1.test +edns)" "from the cache"
    like ' ar=1 .* edns=[0-9]+ ' "$(ask o2.test +edns)"
    unlike ' edns=' "$(ask o2.test)" "from the cache"
    like ' edns=[0-9]+ do ' "$(ask o3.test +do)" "DO in the reply"
    unlike ' do ' "$(ask o3.test +edns)" "no DO without being asked"
    like ' edns=' "$(ask noopt=.o4.test +edns)" "when the upstream sends none"
    promise "options of the upstream never reach the client"
    unlike 'opts=' "$(ask opt=10:0011223344556677.o5.test +edns +opt=10:0011223344556677)"
    unlike 'opts=12' "$(ask opt=12:0000.o6.test +edns)"
    promise "Extended DNS Errors do reach it, if it sent an OPT"
    like ' ede=22( |$)' "$(ask ede=22.nodata=.o7.test +edns)"
    unlike ' ede=' "$(ask ede=22.nodata=.o8.test)"
    promise "an OPT in the middle of the additional section is replaced like any other"
    out=$(ask optmid=.o9.test)
    like '\| ad: glue\.test\. 300 A 1\.2\.3\.4' "$out"
    unlike ' edns=' "$out"
    out=$(ask optmid=.oa.test +edns)
    like ' ar=2 .* edns=[0-9]+ .*\| ad: glue\.test\. 300 A 1\.2\.3\.4' "$out"
    unlike 'MALFORMED|too-many' "$out"
    promise "edns-tcp-keepalive of a client is harmless: over UDP it is ignored, over TCP too or answered in kind"
    unlike 'opts=' "$(ask ka.test +opt=11:)" UDP
    like '^NOERROR .* edns=1232( opts=11:[0-9a-f]{4})? ms=' "$(ask ka.test +opt=11: +tcp)" TCP
    like '^(FORMERR|NOERROR) ' "$(ask ka.test +opt=11:001122 +tcp)" "of a wrong length"
    promise "an RCODE above 15 of an upstream reaches clients with OPT; without one it is SERVFAIL, not its low bits"
    like '^RCODE23 ' "$(ask rcode=23.x1.test +edns)"
    like '^SERVFAIL ' "$(ask rcode=23.x2.test)"
    like '^SERVFAIL ' "$(ask rcode=16.x3.test)"
    promise "EDNS version 1 is BADVERS, and goes nowhere"
    forget u1
    like '^BADVERS qr .* ar=1 .* edns=[0-9]+' "$(ask v.test +ver=1)"
    unlike ' ver=' "$(ask v.test +ver=1)"
    same 0 "$(asked u1)" "seen by the upstream"
    promise "two OPTs are FORMERR"
    like '^FORMERR' "$(ask v.test +edns +twoopt=1)"
    promise "options past their RDLENGTH, an OPT with a name: FORMERR or dropped"
    like '^(FORMERR|TIMEOUT)' "$(ask +raw=000701000001000000000001016100000100010000290400000000000004000a00ff +timeout=300)" "option past the end"
    like '^(FORMERR|TIMEOUT)' "$(ask +raw=0007010000010000000000010161000001000101620000290400000000000000 +timeout=300)" "OPT with a name"
    promise "without OPT a UDP reply has at most 512 bytes: TC=1 with the question only"
    like '^NOERROR qr tc rd ra .* qd=1 an=0 ns=0 ar=0 ' "$(ask big=524.s.test TXT)"
    like '^NOERROR qr rd ra .* an=1 .* size=(50[0-9]|51[0-2]) ' "$(ask big=512.s.test TXT)"
    promise "with OPT at most the client's size, which counts as 512 below that, and at most 1232"
    like '^NOERROR qr tc .* an=0 ns=0 ar=1 ' "$(ask big=600.s.test TXT +edns=100)" "size 100"
    like '^NOERROR qr rd ra .* an=1 ' "$(ask big=600.s.test TXT +edns=700)" "600 bytes, size 700"
    like '^NOERROR qr tc .* an=0 ns=0 ar=1 ' "$(ask big=800.s.test TXT +edns=700)" "800 bytes, size 700"
    like '^NOERROR qr rd ra .* an=1 .* size=12[0-3][0-9] ' "$(ask big=1232.s.test TXT +edns=4096)" "1232 bytes, size 4096"
    like '^NOERROR qr tc .* an=0 ns=0 ar=1 ' "$(ask big=1300.s.test TXT +edns=4096)" "1300 bytes, size 4096"
    promise "TC=1 is asked again over TCP, and the client gets the whole there"
    like '^NOERROR qr rd ra .* an=1 .* size=(12[89][0-9]|1300) ' "$(ask big=1300.s.test TXT +tcp)"
    promise "a message of 65,535 bytes from the upstream is delivered over TCP, or SERVFAIL if it cannot be, never more than fits"
    out=$(ask big=65535.s.test TXT +tcp +edns)
    like '^(NOERROR|SERVFAIL) qr rd ra ' "$out"
    unlike 'MALFORMED|TIMEOUT' "$out"
    promise "AD reaches only a client that set AD or DO"
    unlike '^NOERROR.* ad ' "$(ask ad=.a1.test)"
    like '^NOERROR.* ad ' "$(ask ad=.a2.test +ad)"
    like '^NOERROR.* ad ' "$(ask ad=.a3.test +do)"
    unlike '^NOERROR.* ad ' "$(ask ad=.a2.test)" "from the cache, not asked"
    like '^NOERROR.* ad ' "$(ask ad=.a1.test +ad)" "from the cache, asked"
    promise "AD is never set by the proxy itself"
    unlike '^NOERROR.* ad ' "$(ask a4.test +ad)"
    stop p
}

# ---- How an answer is chosen. The numbers are those of the contract's paragraphs. A label of a name says what an upstream does:
# 1delay=200 makes u1 wait. u1 answers 192.0.2.1, u2 192.0.2.2, u3 192.0.2.3.

leg_choosing()
{
    up u1
    up u2
    up u3
    dead=127.0.0.1@$(freeport)
    proxy p "$u1 1" "$u2 2" "$u3 3" 'patience 1500' 'timeout 3000'

    promise "1: a query goes to all upstreams at once"
    ask 1delay=200.all.test >/dev/null
    for u in u1 u2 u3; do
        same 1 "$(asked $u ' 1delay=200\.all\.test\. A ')" "$u"
        sed -n 's/ .* 1delay=200\.all.*//p' "$T/$u.q"
    done >"$T/times"
    within 0 150 "$(sort -n "$T/times" | sed -n '1h;$!d;G;s/\n/ /p' | awk '{ print $1 - $2 }')" "ms from the first to the last"
    promise "2: a priority-1 success is sent at once"
    out=$(ask 2silent=.3silent=.at-once.test)
    same 192.0.2.1 "$(addresses "$out")"
    within 0 900 "$(ms_of "$out")" ms
    promise "2: the success of the best priority wins, though it comes later"
    same 192.0.2.1 "$(addresses "$(ask 1delay=300.best.test)")"
    same 192.0.2.2 "$(addresses "$(ask 1servfail=.2delay=300.best.test)")"
    promise "2: NOERROR with a record of the asked type is a success, with none it is not"
    same 192.0.2.2 "$(addresses "$(ask 1nodata=.s.test)")" "nodata at 1"
    same 192.0.2.2 "$(addresses "$(ask 1type=TXT.s.test)")" "a record of another type at 1"
    same 192.0.2.2 "$(addresses "$(ask 1cname=1.1cnameonly=.s.test)")" "a CNAME to nothing at 1"
    same 192.0.2.1 "$(addresses "$(ask 1cname=2.s.test)")" "a CNAME with its address at 1"
    promise "2: for ANY a record of any type is a success"
    like '^NOERROR .*an=1 .* TXT ' "$(ask 1type=TXT.any.test ANY)"
    promise "2: NXDOMAIN, SERVFAIL, REFUSED, FORMERR, NOTIMP are no success"
    for r in nxdomain= servfail= refused= formerr= notimp= rcode=9; do same 192.0.2.2 "$(addresses "$(ask "1$r.r.test")")" $r; done
    promise "2: it is sent the moment every better upstream has answered without success"
    out=$(ask 1delay=300.1nxdomain=.moment.test)
    same 192.0.2.2 "$(addresses "$out")"
    within 290 1300 "$(ms_of "$out")" ms
    out=$(ask 1nxdomain=.2servfail=.moment.test)
    same 192.0.2.3 "$(addresses "$out")"
    within 0 900 "$(ms_of "$out")" ms
    promise "2: any answer with Extended DNS Error 15, 16 or 17 is a success"
    for e in 15 16 17; do
        like "^NXDOMAIN .* ede=$e" "$(ask 1nxdomain=.1ede=$e.e$e.test +edns)" "NXDOMAIN with $e"
        same "NOERROR " "$(ask 1nodata=.1ede=$e.e$e.test | sed 's/qr.*//')" "NODATA with $e"
        unlike 192.0.2 "$(ask 1nodata=.1ede=$e.e$e.test)" "NODATA with $e"
    done
    promise "2: with another Extended DNS Error it is not"
    for e in 14 18 3; do same 192.0.2.2 "$(addresses "$(ask 1nxdomain=.1ede=$e.e$e.test)")" $e; done
    promise "3: with no success NODATA comes before NXDOMAIN"
    like '^NOERROR .* an=0 ns=1 ' "$(ask 1nxdomain=.2nodata=.2soa=9,9.3nxdomain=.no.test)"
    promise "3: NXDOMAIN comes before any other answer"
    like '^NXDOMAIN ' "$(ask 1servfail=.2refused=.3nxdomain=.no.test)"
    promise "3: the best priority comes first within each"
    like ' 101 SOA ' "$(ask 1nodata=.1soa=101,5.2nodata=.2soa=102,5.3nodata=.3soa=103,5.no.test)" NODATA
    like ' 102 SOA ' "$(ask 1servfail=.2nxdomain=.2soa=102,5.3nxdomain=.3soa=103,5.no.test)" NXDOMAIN
    like '^REFUSED ' "$(ask 1refused=.2servfail=.3notimp=.no.test)" "REFUSED first"
    like '^NOTIMP ' "$(ask 1notimp=.2servfail=.3refused=.no.test)" "NOTIMP first"
    promise "3: it is sent when every upstream has answered or failed"
    out=$(ask 1nxdomain=.2nxdomain=.3delay=400.3nxdomain=.when.test)
    like '^NXDOMAIN' "$out"
    within 390 2500 "$(ms_of "$out")" ms
    promise "3: a wrong 'no' is worse than a late one: it waits for a success beyond patience"
    same 192.0.2.3 "$(addresses "$(ask 1nxdomain=.2nxdomain=.3delay=1900.late.test)")"
    promise "3: it is sent at timeout if someone stays silent"
    out=$(ask 1nxdomain=.2nxdomain=.3silent=.silent.test)
    like '^NXDOMAIN' "$out"
    within 2900 5000 "$(ms_of "$out")" ms
    promise "4: a success in hand waits for a better upstream no longer than patience"
    out=$(ask 1silent=.patience.test)
    same 192.0.2.2 "$(addresses "$out")"
    within 1400 2700 "$(ms_of "$out")" ms
    promise "4: and takes the better answer that comes within patience"
    same 192.0.2.1 "$(addresses "$(ask 1delay=900.patience.test)")"
    promise "4: patience counts from the success in hand, not from the query"
    out=$(ask 1silent=.2silent=.3delay=600.patience.test)
    same 192.0.2.3 "$(addresses "$out")"
    within 1900 2999 "$(ms_of "$out")" ms
    promise "13: RD=0 is REFUSED, AXFR and IXFR are NOTIMP"
    like '^REFUSED' "$(ask rd.test +nord)"
    like '^NOTIMP' "$(ask x.test AXFR +tcp)"
    like '^NOTIMP' "$(ask x.test IXFR +tcp)"
    stop p

    promise "2: a final upstream's NXDOMAIN and NODATA are successes"
    proxy p "$u1 1 final" "$u2 2" 'patience 1500' 'timeout 3000'
    like '^NXDOMAIN ' "$(ask 1nxdomain=.f.test)" NXDOMAIN
    like '^NOERROR .* an=0 ' "$(ask 1nodata=.f.test)" NODATA
    same 192.0.2.2 "$(addresses "$(ask 1servfail=.f.test)")" SERVFAIL
    out=$(ask 1nxdomain=.2silent=.f.test)
    like '^NXDOMAIN' "$out"
    within 0 1000 "$(ms_of "$out")" "ms, at once"
    stop p

    promise "2: among upstreams that share a priority the first success is sent"
    proxy p "$u1 5" "$u2 5" "$u3 6" 'patience 1500' 'timeout 3000'
    out=$(ask 1silent=.shared.test)
    same 192.0.2.2 "$(addresses "$out")"
    within 0 900 "$(ms_of "$out")" ms
    out=$(ask 2silent=.shared.test)
    same 192.0.2.1 "$(addresses "$out")"
    within 0 900 "$(ms_of "$out")" ms
    stop p

    promise "7: a refused port is a failure at once, no timeout"
    proxy p "$dead 1" "$u2 2" 'patience 1500' 'timeout 3000'
    for i in 1 2 3; do
        out=$(ask refused$i.test)
        same 192.0.2.2 "$(addresses "$out")"
        within 0 700 "$(ms_of "$out")" ms
    done
    stop p
    promise "5: with nothing at all it is SERVFAIL with an Extended DNS Error, at once when all have failed"
    proxy p "$dead 1" 'timeout 3000'
    out=$(ask nothing.test +edns)
    like '^SERVFAIL qr rd ra .* ede=(22|23)( |$)' "$out"
    within 0 1500 "$(ms_of "$out")" ms
    promise "5: without OPT there is no Extended DNS Error"
    unlike ' ede=|edns=' "$(ask nothing2.test)"
    stop p
    promise "5: with nothing at all it is SERVFAIL at timeout when they are silent"
    proxy p "$u1 1" "$u2 2" 'timeout 700'
    out=$(ask silent=.n.test +edns)
    like '^SERVFAIL qr rd ra .* ede=(22|23)( |$)' "$out"
    within 650 2000 "$(ms_of "$out")" ms
    stop p
}

# When upstreams fail: paragraphs 6, 7 and 10, and the last of 6 about late answers
leg_failing()
{
    up u1
    up u2
    proxy p "$u1 1" "$u2 2" 'patience 400' 'timeout 1000'
    promise "6: an upstream that left fewer than 3 queries in a row unanswered is not down"
    rules u1 '. silent'
    many n=2 window=2 name=two%d.test >/dev/null
    sleep 1.2               # the life of these queries; nothing tells the end of it but the clock
    same up "$(upstream "$u1" state)"
    promise "6: one that left 3 in a row unanswered is down, and nobody waits for it"
    ask three.test >/dev/null
    await 4 state_is "$u1" down || fail "state $(upstream "$u1" state)"
    slow=0
    for i in 1 2 3 4 5; do
        out=$(ask nowait$i.test)
        same 192.0.2.2 "$(addresses "$out")"
        [ "$(ms_of "$out")" -lt 350 ] || slow=$((slow + 1))
    done
    same 0 $slow "queries that waited"
    promise "3: with no success a 'no' is sent when all that are not down have answered: not at timeout"
    out=$(ask 2nxdomain=.no.test)
    like '^NXDOMAIN' "$out"
    within 0 700 "$(ms_of "$out")" ms
    promise "2: a success is sent at once when all better ones are down"
    out=$(ask downisnotwaitedfor.test)
    same 192.0.2.2 "$(addresses "$out")"
    within 0 350 "$(ms_of "$out")" ms
    promise "6: one that is down is asked at most once a second"
    forget u1
    many n=250 rate=100 name=once%d.test window=50 >/dev/null
    within 1 8 "$(asked u1)" "datagrams in 2.5 s, each query sent up to 3 times at most"
    within 1 4 "$(awk '{ print $5 }' "$T/u1.q" | sort -u | grep -c .)" "queries in 2.5 s"
    promise "6: the log says once that it is down"
    same 1 "$(grep -c "$u1.*down" "$T/p.log")" "lines: $(grep "$u1" "$T/p.log")"
    promise "6: its first valid answer brings it back"
    rules u1
    n=0
    until state_is "$u1" up || [ $n = 40 ]; do
        ask back$n.test >/dev/null
        n=$((n + 1))
        sleep 0.1
    done
    same up "$(upstream "$u1" state)"
    same 192.0.2.1 "$(addresses "$(ask isback.test)")"
    promise "6: the log says once that it is back"
    same 1 "$(grep -v 'down' "$T/p.log" | grep -c "$u1.*\(up\|back\|again\)")" "lines: $(grep "$u1" "$T/p.log")"
    promise "6: one that is silent is down after 3 queries for the same name too"
    proxy q "$u1 1" "$u2 2" 'patience 400' 'timeout 1500' 'cache-size 0'
    rules u1 '. silent'
    for i in 1 2 3 4; do ask samename.test >/dev/null; done
    await 3 state_is "$u1" down || fail "state $(upstream "$u1" state)"
    out=$(ask samename.test)
    same 192.0.2.2 "$(addresses "$out")"
    within 0 380 "$(ms_of "$out")" ms
    promise "6: and is asked at most once a second for it"
    forget u1
    many n=125 rate=50 window=10 same name=samename.test >/dev/null
    within 1 8 "$(asked u1)" "datagrams in 2.5 s, each query sent up to 3 times at most"
    rules u1
    stop q
    use p
    promise "6: when all are down, all are asked"
    rules u1 '. silent'
    rules u2 '. silent'
    many n=4 window=4 name=alldown%d.test timeout=3000 >/dev/null
    await 4 state_is "$u1" down || fail "u1 $(upstream "$u1" state)"
    await 4 state_is "$u2" down || fail "u2 $(upstream "$u2" state)"
    forget u1
    forget u2
    many n=5 window=5 name=allasked%d.test timeout=3000 >/dev/null
    within 5 15 "$(asked u1)" "datagrams at u1"
    within 5 15 "$(asked u2)" "datagrams at u2"
    rules u2
    same 192.0.2.2 "$(addresses "$(ask comesback.test)")" "one that comes back is used at once"
    rules u1
    stop p

    promise "6: an answer after the reply but within timeout still counts: a slow upstream is not down"
    proxy p "$u1 1" "$u2 2" 'patience 100' 'timeout 2000'
    many n=6 window=6 name=1delay=600.slow%d.test >/dev/null
    sleep 0.7               # u1's answers come in this time
    same up "$(upstream "$u1" state)"
    same 6 "$(upstream "$u1" answered)" "answered"
    promise "6: a better answer that comes late replaces what the cache kept"
    out=$(ask 1delay=500.late.test)
    same 192.0.2.2 "$(addresses "$out")" "at first"
    await 3 has_answer 192.0.2.1 1delay=500.late.test || fail "still $(ask 1delay=500.late.test)"
    within 31 300 "$(ttl_of "$(ask 1delay=500.late.test)")" "its TTL, not that of a marked one"
    same 1 "$(asked u1 'late\.test')" "queries to u1"
    promise "6: a late answer that is not better replaces nothing"
    ask 2delay=300.1=.notbetter.test >/dev/null
    ask 1delay=400.1nxdomain=.notbetter.test >/dev/null
    sleep 0.5               # u1's late answer comes in this time
    same 192.0.2.1 "$(addresses "$(ask 2delay=300.1=.notbetter.test)")"
    same 192.0.2.2 "$(addresses "$(ask 1delay=400.1nxdomain=.notbetter.test)")"
    stop p
    promise "6: a query that no client waits for is the first to make room"
    proxy p "$u1 1" "$u2 2" 'patience 50' 'timeout 2500' 'queries 16'
    many n=1 name=1delay=1200.2delay=1200.first%d.test >"$T/first" &    # the oldest, and someone waits for it
    n=$!
    await 3 logged_q u2 first0 || fail "not asked"
    out=$(many n=48 window=1 name=2delay=1500.room%d.test)     # u1 answers each at once, u2 keeps it open
    like 'answered 48 noerror 48 ' "$out"
    within 30 100 "$(metric full)" "times that one made room"
    wait $n
    like 'noerror 1 ' "$(cat "$T/first")" "the oldest query, which a client waits for"
    stop p
    promise "7: one refused datagram of an upstream that comes back at once marks nobody down"
    up u3
    proxy p "$u3 1" "$u2 2" 'patience 300' 'timeout 1000'
    same 192.0.2.3 "$(addresses "$(ask well.test)")"
    kill_pid u3
    like '^NOERROR' "$(ask refusedonce.test)"
    up u3 -p "${u3#*@}"
    same 192.0.2.3 "$(addresses "$(ask wellagain.test)")"
    same up "$(upstream "$u3" state)"
    kill_pid u3
    stop p

    promise "7: a reset or closed TCP connection is a failure at once"
    proxy p "$u1 1 tcp" "$u2 2" 'patience 2000' 'timeout 3000'
    for how in reset close; do
        out=$(ask 1$how=.c.test)
        same 192.0.2.2 "$(addresses "$out")" "$how"
        within 0 1000 "$(ms_of "$out")" "$how, ms"
    done
    promise "7: tcp upstreams are asked over TCP only, on a connection that is kept"
    sleep 1.1               # after a failure it is tried once a second
    same 192.0.2.1 "$(addresses "$(ask 2delay=300.again.test)")"
    forget u1
    many n=50 window=10 name=kept%d.test >/dev/null
    same 50 "$(asked u1 ' tcp .* id=')" "queries over TCP"
    same 0 "$(asked u1 ' udp ')" "queries over UDP"
    within 0 2 "$(asked u1 ' connect ')" "connections"
    promise "queries to a tcp upstream are pipelined, answers taken in any order"
    out=$(many n=20 window=20 name=1delay=300.pipe%d.test)
    like 'noerror 20 ' "$out"
    within 0 1500 "$(val slowest_ms "$out")" "ms for 20 that wait 300 ms each"
    like '^NOERROR.*192\.0\.2\.1$' "$(ask 1dribble=2.pipe.test)" "an answer byte by byte"
    promise "a tcp upstream that closes after each answer costs no query"
    out=$(many n=30 window=1 name=1closeafter=.n%d.test)
    like 'noerror 30 ' "$out"
    within 0 1500 "$(val slowest_ms "$out")" "slowest ms"
    promise "a tcp upstream that accepts and closes at once is not stormed, and the others answer"
    rules u1 '. close'
    forget u1
    out=$(many n=400 rate=200 window=100 name=storm%d.test)
    like 'noerror 400 ' "$out"
    within 0 30 "$(asked u1 ' connect ')" "connects in 2 s"
    rules u1
    stop p
    for n in 1000 300; do
        promise "a tcp upstream that sends one byte every $n ms delays others by no more than patience, and is dropped within timeout"
        forget u1
        proxy p "$u1 1 tcp" "$u2 2" 'patience 300' 'timeout 1500'
        out=$(ask 1dribble=$n.slow.test)
        same 192.0.2.2 "$(addresses "$out")"
        within 0 1400 "$(ms_of "$out")" ms
        await 4 logged_q u1 'tcp close' || fail "the connection is still there"
        stop p
    done

    promise "7: a truncated answer never wins"
    proxy p "$u1 1" "$u2 2" 'patience 400' 'timeout 1500'
    same 192.0.2.2 "$(addresses "$(ask 1tcrec=.1tcpsilent=.t.test)")" "TC=1 with records, TCP silent"
    same 192.0.2.2 "$(addresses "$(ask 1tcrec=.1reset=.t.test)")" "TC=1 with records, TCP reset"
    promise "7: TC=1 is asked again over TCP at once, and that answer taken"
    out=$(ask 1tcrec=.2silent=.u.test)
    same 192.0.2.1 "$(addresses "$out")"
    within 0 390 "$(ms_of "$out")" ms
    like ' tcp .* 1tcrec=\.2silent=\.u\.test\.' "$(cat "$T/u1.q")"
    promise "7: a malformed answer never wins, and is never kept"
    for k in loop rdlen ancount cutrr label40 a3 cname; do
        same 192.0.2.2 "$(addresses "$(ask 1bad=$k.m.test)")" "$k"
        like '^SERVFAIL' "$(ask 1bad=$k.2bad=$k.m.test)" "$k from both"
    done
    same 0 "$(adm status | grep -c 'entry.*2bad')" "entries"
    stop p

    promise "10: an answer that won while a better upstream was silent is sent with TTLs of at most 30 s"
    proxy p "$u1 1" "$u2 2" 'patience 200' 'timeout 1000'
    rules u1 '. silent'
    out=$(ask mark.test)
    same 192.0.2.2 "$(addresses "$out")"
    within 1 30 "$(ttl_of "$out")" TTL
    out=$(ask mark.test)
    within 1 30 "$(ttl_of "$out")" "TTL from the cache"
    same 1 "$(asked u2 mark)" "queries to u2"
    promise "10: and the cache drops it as soon as that upstream answers anything again"
    sleep 1.1               # the life of that query: what is asked now is a new one
    rules u1
    same 192.0.2.1 "$(addresses "$(ask other.test)")"
    same 192.0.2.1 "$(addresses "$(ask mark.test)")"
    promise "10: likewise while it is down"
    rules u1 '. silent'
    down "$u1" d1
    out=$(ask mark2.test)
    within 1 30 "$(ttl_of "$out")" TTL
    rules u1
    n=0
    until state_is "$u1" up || [ $n = 40 ]; do
        ask wake$n.test >/dev/null
        n=$((n + 1))
        sleep 0.1
    done
    same 192.0.2.1 "$(addresses "$(ask mark2.test)")"
    promise "10: a 'no' that won while a better one is down has TTLs of at most 30 s too"
    rules u1 '. silent'
    down "$u1" d2
    out=$(ask 2nxdomain=.2soa=300,300.marked.test)
    like '^NXDOMAIN' "$out"
    within 1 30 "$(printf '%s\n' "$out" | sed -n 's/.* \([0-9]*\) SOA .*/\1/p')" TTL
    rules u1
    await 5 returns "$u1" || fail "u1 does not come back"
    promise "10: an answer that won because the better one said no is not marked"
    same 300 "$(ttl_of "$(ask 1nodata=.plain.test)")" TTL
    stop p

    promise "answers go on when an upstream falls silent or dies, and it comes back by itself"
    up u3
    proxy p "$u3 1" "$u2 2" 'patience 300' 'timeout 1000'
    same 192.0.2.3 "$(addresses "$(ask k1.test)")"
    kill -STOP "$(pid u3)"
    like 'noerror 8 ' "$(many n=8 window=8 name=stopped%d.test)" stopped
    kill -CONT "$(pid u3)"
    kill_pid u3
    like 'noerror 8 ' "$(many n=8 window=1 name=killed%d.test)" killed
    up u3 -p "${u3#*@}"
    n=0
    until [ "$(addresses "$(ask return$n.test)")" = 192.0.2.3 ] || [ $n = 40 ]; do
        n=$((n + 1))
        sleep 0.1
    done
    within 0 39 $n "tries until it is used again"
    stop p

    promise "when all others have failed, one that counts as down is asked after all, before a SERVFAIL is sent"
    for how in '' ' tcp'; do
        proxy p "$u3 1$how" "$u2 2$how" 'patience 300' 'timeout 2000'
        same 192.0.2.3 "$(addresses "$(ask well.test)")" "at first"
        x=$u3
        kill_pid u3
        many n=20 window=4 name=refuses%d.test >/dev/null
        await 3 state_is "$x" down || fail "state of u3 $(upstream "$x" state)"
        up u3 -p "${x#*@}"
        x=$u2
        sleep 0.15              # one that refuses connections is tried ten times a second at most
        kill_pid u2
        same 192.0.2.3 "$(addresses "$(ask resort.test)")" "over${how:- udp}"
        up u2 -p "${x#*@}"
        stop p
    done

    promise "kill -9 of any upstream at any time leaves no query unanswered when another has the answer, over UDP and TCP"
    proxy q "$u3 1 tcp" "$u2 2 tcp" 'patience 300' 'timeout 2000' 'cache-size 0'
    many n=4400 rate=400 window=2000 name=delay=20.kill%d.tcp.test >"$T/kill.tcp" &
    m=$!
    proxy p "$u3 1" "$u2 2" 'patience 300' 'timeout 2000' 'cache-size 0'
    many n=4400 rate=400 window=2000 name=delay=20.kill%d.udp.test >"$T/kill.udp" &
    n=$!
    await 5 logged_q u3 'kill50\.udp' || fail "no load"
    for i in 13 57; do                  # each upstream twice, at moments of their own, never both at once
        for u in u3 u2; do
            eval "x=\$$u"
            kill_pid $u
            sleep 0.$i
            up $u -p "${x#*@}"
            for k in p q; do
                use $k
                await 5 state_is "$x" up || fail "$u is not up again at $k"
            done
        done
    done
    wait $m $n
    for k in udp tcp; do like 'sent 4400 answered 4400 noerror 4400 .* wrong 0 dup 0 ' "$(cat "$T/kill.$k")" $k; done
    stop p
    stop q
}
# returns ADDR: asks once; true when the upstream is up
returns() { ask "returns$(date +%N).test" >/dev/null; state_is "$1" up; }
has_answer() { [ "$(addresses "$(ask "$2")")" = "$1" ]; }
logged_q() { grep -Eq -e "$2" "$T/$1.q"; }

# Paragraph 9
leg_sharing()
{
    up u1
    proxy p "$u1 1" 'timeout 3000'
    promise "9: identical questions in flight share one upstream query; each client gets its own reply, ID and spelling"
    out=$(many n=200 window=200 name=delay=500.shared%d.test same vary)
    like 'answered 200 noerror 200 .* wrong 0 dup 0 bad 0' "$out"
    same 1 "$(pairs u1 ' delay=500\.shared')" "queries at the upstream"
    promise "9: over TCP too, and mixed"
    many n=20 window=20 name=delay=500.mixed.test tcp=4 >"$T/tcp.out" &
    out=$(many n=20 window=20 name=delay=500.mixed.test)
    wait $!
    like 'noerror 20 .* wrong 0' "$out"
    like 'noerror 20 .* wrong 0' "$(cat "$T/tcp.out")"
    same 1 "$(pairs u1 ' delay=500\.mixed')" "queries at the upstream"
    promise "9: type, class, DO and CD make questions of their own, EDNS options and letters do not"
    jobs=''
    for o in '' +do +cd '+do +cd' +class=CH +edns=4096 +opt=8:0001180001020300 +opt=10:0011223344556677 +ad; do
        # shellcheck disable=SC2086
        ask delay=400.four.test $o >/dev/null &
        jobs="$jobs $!"
    done
    ask delay=400.FOUR.test AAAA >/dev/null
    # shellcheck disable=SC2086
    wait $jobs
    same 6 "$(pairs u1 ' delay=400\.(four|FOUR)')" "queries at the upstream: $(grep -i four "$T/u1.q")"
    stop p
}

# Paragraphs 11 and 12. Public addresses exist only in a network namespace of the test's own.
leg_private()
{
    promise "AD and private names: a network of its own for public addresses"
    if ! netns; then
        skip "not here: no network namespace allowed"
        return
    fi
    ns ip addr add 203.0.113.53/32 dev lo
    ns ip addr add 10.9.8.7/32 dev lo
    ns ip addr add 2001:db8::53/128 dev lo nodad
    up u1 -a 203.0.113.53
    up u2 -a 10.9.8.7
    up u3
    proxy p "$u1 1" 'timeout 1500'
    promise "allow: by default loopback, private and link-local clients are served, others are REFUSED"
    port=$(freeport)
    proxy q "$u1 1" "listen *@$port"
    for x in 172.16.0.1 172.31.255.254 192.168.7.7 169.254.1.1 100.64.0.1 172.32.0.1 11.0.0.1; do ns ip addr add $x/32 dev lo; done
    for x in fd12::1 fe80::7; do ns ip addr add $x/128 dev lo nodad; done
    for x in 127.0.0.9 10.9.8.7 172.16.0.1 172.31.255.254 192.168.7.7 169.254.1.1; do like '^NOERROR' "$(ask allowed.test +src=$x)" $x; done
    like '^NOERROR' "$(ask allowed.test +server=::1 +src=fd12::1)" fd12::1
    like '^NOERROR' "$(ask allowed.test +server=::1 +src=::1)" ::1
    for x in 203.0.113.53 100.64.0.1 172.32.0.1 11.0.0.1; do like '^REFUSED' "$(ask allowed.test +src=$x)" $x; done
    like '^REFUSED' "$(ask allowed.test +server=::1 +src=2001:db8::53)" 2001:db8::53
    promise "a reply leaves from the address that was asked, on a host with several addresses of both families"
    ns ip addr add fd12::2/128 dev lo nodad
    await 5 served_at fd12::2 || fail "nothing from fd12::2"
    for x in fd12::2,fd12::1 fd12::1,fd12::2 ::1,fd12::2 10.9.8.7,192.168.7.7 192.168.7.7,127.0.0.1; do
        like " from=${x%,*}@$port " "$(ask from$x.test +server=${x%,*} +src=${x#*,} +unconn)" "$x, miss"
        like " from=${x%,*}@$port " "$(ask from$x.test +server=${x%,*} +src=${x#*,} +unconn)" "$x, hit"
    done
    stop q
    use p
    promise "11: AD of a plain upstream that is not loopback is not passed on"
    unlike ' ad ' "$(ask ad=.one.test +ad)"
    unlike ' ad ' "$(ask ad=.two.test +do)"
    promise "12: private names go to a public upstream when there is no private one"
    same 192.0.2.1 "$(addresses "$(ask printer.lan)")"
    stop p
    proxy p "$u3 1" 'timeout 1500'
    promise "11: AD of a loopback upstream is, to clients that set AD or DO"
    like ' ad ' "$(ask ad=.one.test +ad)"
    like ' ad ' "$(ask ad=.two.test +do)"
    unlike ' ad ' "$(ask ad=.three.test)"
    stop p

    proxy p "$u1 1" "$u2 2" 'timeout 1500'
    forget u1
    promise "12: one label, .local, .internal, .lan and home.arpa are asked of private upstreams only"
    for n in printer nas.local NAS.Local a.b.internal internal x.lan router.home.arpa home.arpa; do
        same 192.0.2.2 "$(addresses "$(ask $n)")" $n
    done
    same 0 "$(asked u1)" "seen by the public upstream: $(cat "$T/u1.q")"
    promise "12: and so are the reverse zones of RFC 6303"
    for n in 1.0.0.10 4.3.16.172 4.3.31.172 1.1.168.192 1.1.254.169 1.0.0.127 1.2.0.192 1.100.51.198 1.113.0.203 255.255.255.255 0.0.0; do
        like '^NOERROR.* PTR ' "$(ask $n.in-addr.arpa PTR)" "$n"
    done
    z='0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0'
    for n in 1.0.$z 0.0.$z 1.0.${z%.0.0}.d.f a.b.c.8.e.f 1.9.e.f a.e.f b.e.f 1.8.b.d.0.1.0.0.2; do
        like '^NOERROR.* PTR ' "$(ask $n.ip6.arpa PTR)" "$n"
    done
    same 0 "$(asked u1)" "seen by the public upstream: $(cat "$T/u1.q")"
    promise "12: names beside these zones are asked of all"
    forget u1
    n=0
    for q in 4.3.15.172.in-addr.arpa 4.3.32.172.in-addr.arpa 1.1.1.1.in-addr.arpa 1.167.192.in-addr.arpa 1.9.0.0.2.ip6.arpa local.test notlan mylocal.test lan.example homearpa.example; do
        [ $q != notlan ] || continue
        ask $q PTR >/dev/null
        n=$((n + 1))
        same $n "$(asked u1)" "$q at the public upstream"
    done
    stop p
    promise "12: a matching domain= comes before this"
    proxy p "$u1 1 domain=lan" "$u2 2" 'timeout 1500'
    same 192.0.2.1 "$(addresses "$(ask x.lan)")"
    same 192.0.2.2 "$(addresses "$(ask x.local)")"
    stop p
    promise "12: the private upstream alone decides: its no is the answer"
    proxy p "$u1 1" "$u2 2" 'timeout 1500'
    like '^NXDOMAIN' "$(ask 2nxdomain=.lan)"
    stop p
    promise "IPv6 upstreams work as IPv4 ones do"
    up u4 -a 2001:db8::53
    proxy p "$u4 1" 'timeout 1500'
    same 192.0.2.4 "$(addresses "$(ask six.test)")"
    like "^upstream \[?2001:db8::53\]?@" "$(adm status)"
    stop p
}

served_at() { ask ready.test "+server=$1" +unconn +timeout=300 | grep -q '^NOERROR'; }

# ---- What a blind attacker must guess, and replies that are not ours

# strays ADDR: how many replies of this upstream matched no query
strays() { metrics | sed -n "s/^dnsproxy_upstream_strays_total{upstream=\"$1\".*} //p"; }

leg_spoofing()
{
    up u1
    up u2
    proxy p "$u1 1" "$u2 2" 'cache-size 0' 'patience 400' 'timeout 2000'
    promise "2,000 names one after another leave from 1,800 or more distinct ports, none more than 5 times, neighbours at most 1 %"
    forget u1
    out=$(many n=2000 window=1 name=port%d.spaced.test)
    like 'noerror 2000 ' "$out"
    sed -n 's/.* udp from=[^@]*@\([0-9]*\) .*spaced.*/\1/p' "$T/u1.q" >"$T/ports"
    within 1800 2000 "$(sort -u "$T/ports" | wc -l)" "distinct ports"
    within 1 5 "$(sort "$T/ports" | uniq -c | sort -rn | awk 'NR == 1 { print $1 }')" "uses of one port"
    within 0 20 "$(awk 'NR > 1 && $1 - l <= 2 && l - $1 <= 2 { n++ } { l = $1 } END { print n + 0 }' "$T/ports")" "neighbours"
    promise "their IDs: 1,940 or more distinct, every bit set in 45 to 55 %"
    sed -n 's/.* id=\([0-9]*\) port.*spaced.*/\1/p' "$T/u1.q" >"$T/ids"
    within 1940 2000 "$(sort -u "$T/ids" | wc -l)" "distinct IDs"
    awk '{ v = $1; for (b = 0; b < 16; b++) { if (v % 2) n[b]++; v = int(v / 2) } } END { for (b = 0; b < 16; b++) print b, int(n[b] * 1000 / NR) }' "$T/ids" |
        while read -r b n; do within 450 550 "$n" "thousandths with bit $b"; done
    promise "the IDs towards u1 and u2 differ, and those of a restart too"
    sed -n 's/.* id=\([0-9]*\) \(port.*spaced[^ ]*\).*/\2 \1/p' "$T/u1.q" | sort >"$T/a"
    sed -n 's/.* id=\([0-9]*\) \(port.*spaced[^ ]*\).*/\2 \1/p' "$T/u2.q" | sort >"$T/b"
    within 0 3 "$(comm -12 "$T/a" "$T/b" | wc -l)" "equal towards both"
    same 2000 "$(wc -l <"$T/b" | tr -d ' ')" "queries at u2"
    stop p
    proxy p "$u1 1" "$u2 2" 'cache-size 0' 'patience 400' 'timeout 2000'
    forget u1
    many n=50 window=1 name=port%d.spaced.test >/dev/null
    sed -n 's/.* id=\([0-9]*\) \(port.*spaced[^ ]*\).*/\2 \1/p' "$T/u1.q" | sort >"$T/b"
    within 0 2 "$(comm -12 "$T/a" "$T/b" | wc -l)" "as before the restart"
    promise "the client's ID is not the upstream's"
    forget u1
    for i in 1 2 3 4; do ask same$i.test +id=4711 >/dev/null; done
    within 0 1 "$(asked u1 ' id=4711 ')"
    promise "a burst shares sockets: no port sees more than 32 queries"
    forget u1
    like 'noerror 500 ' "$(many n=500 window=500 name=delay=300.burst%d.test)"
    within 1 32 "$(sed -n 's/.* udp from=[^@]*@\([0-9]*\) .*burst.*/\1/p' "$T/u1.q" | sort | uniq -c | sort -rn | awk 'NR == 1 { print $1 }')" "queries of one port"

    for k in addr:"another address" port:"another port" id:"a wrong ID" qname:"another name" qtype:"another type" qclass:"another class" qr:"QR=0" \
        zero:"0 bytes" eleven:"11 bytes" header:"a header alone" opcode:"opcode 4" qd2:"QDCOUNT 2" cutq:"the question cut off" noq:"no question"; do
        promise "a reply with ${k#*:} is ignored, the right one is taken"
        out=$(ask "1first=${k%%:*}.f.test" +wait=250)
        same 192.0.2.1 "$(addresses "$out")" "$out"
        same 1 "$(val replies "$out")" "replies to the client"
        out=$(ask "1first=${k%%:*}.g.test" AAAA)
        like ' AAAA 2001:db8::1$' "$out" AAAA
    done
    promise "a first answer that is broken, with the right ID and question, gives way to the right one, or to the next upstream, never to the broken one"
    out=$(ask 1first=loop.f.test +wait=250)
    like '^192\.0\.2\.[12]$' "$(addresses "$out")" "$out"
    same 1 "$(val replies "$out")" "replies to the client"
    promise "ignored replies are counted: a wrong ID, name, type or class"
    a=$(strays "$u1")
    for k in id qname qtype qclass; do ask 1first=$k.count.test >/dev/null; done
    same $((a + 5)) "$(strays "$u1")" "replies, the wrong ID over UDP and over TCP"
    promise "over TCP likewise: the other queries of the connection still succeed"
    stop p
    proxy p "$u1 1 tcp" "$u2 2" 'cache-size 0' 'patience 500' 'timeout 2000'
    for k in id qname qtype qr; do
        same 192.0.2.1 "$(addresses "$(ask "1first=$k.h.test")")" $k
    done
    many n=20 window=20 name=1delay=200.beside%d.test >"$T/beside" &
    n=$!
    same 192.0.2.1 "$(addresses "$(ask 1first=id.i.test)")"
    wait $n
    like 'noerror 20 ' "$(cat "$T/beside")"
    stop p

    promise "a flood of 20,000 wrong IDs neither wins nor fails the query: TCP decides"
    proxy p "$u1 1" "$u2 2" 'cache-size 0' 'patience 1000' 'timeout 3000'
    out=$(ask 1flood=20000.1delay=600.flood.test)
    same 192.0.2.1 "$(addresses "$out")"
    within 1 20000 "$(strays "$u1")" "of them counted"
    promise "nor does it without TCP at that upstream: the right datagram does"
    up u3 -T
    rules u3 'flood.test flood=20000 delay=600'
    proxy q "$u3 1" 'cache-size 0' 'timeout 3000'
    same 192.0.2.3 "$(addresses "$(ask x.flood.test)")"
    stop q
    use p
    promise "after the first wrong ID the same question goes to that upstream over TCP"
    within 1 2 "$(asked u1 ' tcp .* 1flood')" "queries over TCP"
    same 192.0.2.1 "$(addresses "$(ask 1first=id.1gap=700.tcp.test)")"
    within 1 2 "$(asked u1 ' tcp .* 1first=id\.1gap')" "queries over TCP"
    promise "and right after it the proxy works as before"
    lives p "the flood"
    stop p

    promise "identical questions never have two queries open at one upstream, whatever EDNS options and letters they come with"
    proxy p "$u1 1" 'timeout 3000'
    out=$(many n=200 window=200 name=delay=700.birthday.test vary)
    like 'answered 200 noerror 200 .* dup 0' "$out"
    same 1 "$(pairs u1 birthday)" "pairs of port and ID"
    promise "a query that is sent again has the same port and ID, or its first port is closed"
    ask drop=1.again.test >/dev/null
    same 1 "$(pairs u1 'drop=1\.again')" "pairs of port and ID"
    promise "an open port answers a stranger's datagram as a closed one does, and is closed soon after the answer"
    ask delay=500.probe.test >/dev/null &
    n=$!
    await 2 logged_q u1 'probe\.test' || fail "not asked"
    x=$(sed -n 's/.* udp from=[^@]*@\([0-9]*\) .*probe\.test.*/\1/p' "$T/u1.q")
    port_was=$port
    port=$x
    like '^REFUSEDPORT' "$(ask x.test +src=127.0.0.9 +timeout=300)" "while the query is open"
    port=$port_was
    wait $n
    port=$x
    like '^REFUSEDPORT' "$(ask x.test +src=127.0.0.1 +timeout=300)" "after the answer"
    port=$port_was
    promise "the client's EDNS size is never the upstream's: 512 to 1232"
    ask size.test +edns=65535 >/dev/null
    like ' size\.test\. .* edns=(5[1-9][0-9]|[6-9][0-9][0-9]|1[01][0-9][0-9]|12[0-3][0-9])$' "$(cat "$T/u1.q")"
    promise "ECS and cookies of the client are not passed on"
    ask ecs.test +edns +opt=8:0001180001020300 +opt=10:0011223344556677 >/dev/null
    unlike ' ecs\.test\..* opts=' "$(cat "$T/u1.q")"
    promise "TC=1 with records: they are neither delivered nor kept, TCP's answer is"
    out=$(ask tcrec=.a17.test)
    like '^NOERROR qr rd ra .*an=1' "$out"
    same 1 "$(asked u1 ' tcp .*a17')" "queries over TCP"
    stop p
    promise "no weak generator is in the source"
    unlike '[^_a-z](rand|random|drand48|srand|srandom|lrand48) *\(' "$(cat "$SRC/dnsproxy.c")"
}

leg_retrying()
{
    up u1
    up u2
    proxy p "$u1 1" 'cache-size 0' 'timeout 3000'
    promise "8: a lost datagram is sent again well inside a second"
    x=9999
    for i in 1 2 3; do
        out=$(ask drop=1.again$i.test)
        like '^NOERROR' "$out"
        [ "$(ms_of "$out")" -gt $x ] || x=$(ms_of "$out")
        same 2 "$(asked u1 drop=1.again$i)" "datagrams for again$i"
    done
    within 0 900 $x "ms, the best of three"
    promise "8: of 50 queries at once whose first datagrams are lost all are answered, well inside a second"
    out=$(many n=50 window=50 name=drop=1.many%d.test)
    like 'noerror 50 ' "$out"
    within 0 900 "$(($(val p50_us "$out") / 1000))" "ms, the median"
    promise "8: a slow upstream sees a question at most 3 times, a silent one too"
    ask delay=2500.slow.test >/dev/null
    ask silent=.slow.test >/dev/null
    within 1 3 "$(asked u1 'delay=2500')" datagrams
    within 2 3 "$(asked u1 'silent=')" datagrams
    stop p
    promise "8: it is sent again to upstreams that have not answered, not to those that have"
    proxy p "$u1 1" "$u2 2" 'cache-size 0' 'patience 2000' 'timeout 3000'
    same 192.0.2.1 "$(addresses "$(ask 1drop=1.part.test)")"
    same 2 "$(asked u1 1drop=1.part)" "datagrams to u1"
    same 1 "$(asked u2 1drop=1.part)" "datagrams to u2"
    stop p
    promise "a duplicate reply does no harm: one reply to the client"
    proxy p "$u1 1" 'cache-size 0' 'timeout 3000'
    out=$(ask twice=.d.test +wait=200)
    same 1 "$(val replies "$out")" replies
    promise "answers that come twice, or after the question was sent again, harm no other query; nothing goes to TCP"
    up u3 -T
    for x in 'twice delay=20' 'delay=600' 'twice delay=600'; do
        rules u3 ". $x"
        proxy q "$u3 1" 'cache-size 0' 'timeout 3000'
        like 'answered 300 noerror 300 ' "$(many n=300 rate=200 window=300 "name=$(echo "$x" | tr -d ' =')%d.test")" "$x"
        same up "$(upstream "$u3" state)" "$x: state"
        stop q
    done
    kill_pid u3
    use p
    promise "FORMERR or NOTIMP without OPT: that upstream is asked again without EDNS"
    rules u1 '. noedns=formerr'
    out=$(ask noedns.test +edns)
    like '^NOERROR .* edns=' "$out"
    within 0 900 "$(ms_of "$out")" ms
    same 1 "$(grep ' noedns\.test' "$T/u1.q" | grep -vc edns=)" "queries without EDNS"
    rules u1 '. noedns=notimp'
    like '^(NOERROR|NOTIMP) ' "$(ask noedns2.test)"
    rules u1
    promise "FORMERR with OPT is an answer like others"
    like '^FORMERR' "$(ask formerr=.x.test)"
    stop p
}

# ---- What the cache keeps

leg_cache()
{
    up u1
    rules u1 '. count'
    proxy p "$u1 1" 'timeout 1500'
    promise "the second question is answered from the cache"
    one=$(ask hit.test)
    same "$(addresses "$one")" "$(addresses "$(ask hit.test)")"
    same 1 "$(asked u1 ' hit\.test')" "queries at the upstream"
    within 1 1 "$(count hits)" "hits in status"
    within 1 1 "$(count misses)" "misses in status"
    promise "over TCP too"
    same "$(addresses "$one")" "$(addresses "$(ask hit.test +tcp)")"
    promise "the key is the name without case"
    same "$(addresses "$one")" "$(addresses "$(ask HiT.TEST)")"
    same 1 "$(asked u1 ' [hH][iI][tT]\.')" "queries at the upstream"
    promise "and the type"
    like ' AAAA ' "$(ask hit.test AAAA)"
    same 2 "$(asked u1 ' hit\.test')" "queries at the upstream"
    promise "and the class"
    ask cls.test TXT +class=CH >/dev/null
    ask cls.test TXT >/dev/null
    same 2 "$(asked u1 ' cls\.test')" "queries at the upstream"
    promise "and DO and CD: four combinations are four entries"
    for o in '' +do +cd '+do +cd' '' +do +cd '+do +cd'; do
        # shellcheck disable=SC2086
        ask four.test $o >/dev/null
    done
    same 4 "$(asked u1 ' four\.test')" "queries at the upstream"
    same 4 "$(adm status | grep -c '^entry four\.test\. A ')" "entries in status"
    promise "names are octets with lengths: a.b.test, the label a\\.b, and a\\000b.test are three"
    for i in 1 2; do
        for n in a.b.test 'a\.b.test' 'a\000b.test' 'a.test'; do ask "$n" >/dev/null; done
    done
    same 4 "$(asked u1 ' a.*test\. A ')" "queries at the upstream"
    promise "the whole answer is kept: all records of all sections, as they were"
    one=$(ask extra=.cname=3.n=5.whole.test) two=$(ask extra=.cname=3.n=5.whole.test)
    same "${one#*ms=* }" "${two#*ms=* }"
    like ' an=8 ns=1 ar=1 ' "$two"
    promise "a record that came beside an answer does not answer a question of its own"
    unlike '6\.6\.6\.6' "$(ask victim.test)"
    same 1 "$(asked u1 ' victim\.test')" "queries at the upstream"
    promise "a reply from the cache has the client's ID and spelling"
    like '^NOERROR.* id=31337 q=HIT\.Test\./A .*\| HIT\.Test\. ' "$(ask HIT.Test +id=31337)"
    promise "it lives for the lowest TTL of the message"
    ask ttl=900,2,400.n=3.low.test >/dev/null
    ask ttl=300.soa=1,60.low.test >/dev/null
    ask ttl=1.one.test >/dev/null
    ask ttl=4,300.n=2.aged.test +do >/dev/null
    sleep 2.2               # time is what is tested
    ask ttl=900,2,400.n=3.low.test >/dev/null
    same 2 "$(asked u1 'ttl=900.*low')" "TTLs 900, 2, 400 after 2.2 s: queries"
    ask ttl=300.soa=1,60.low.test >/dev/null
    same 2 "$(asked u1 'ttl=300.*low')" "TTL 300 and SOA 1 after 2.2 s: queries"
    ask ttl=1.one.test >/dev/null
    same 2 "$(asked u1 'ttl=1\.one')" "TTL 1 after 2.2 s: queries"
    promise "every TTL is lowered by the time spent in the cache, OPT is not aged"
    out=$(ask ttl=4,300.n=2.aged.test +do)
    like '\| ttl=4,300\.n=2\.aged\.test\. [12] A .*\| ttl=4,300\.n=2\.aged\.test\. 29[78] A ' "$out"
    like ' edns=[0-9]+ do ' "$out"
    unlike ' ver=|zflags=' "$out"
    same 1 "$(asked u1 aged)" "queries at the upstream"
    promise "nothing with TTL 0"
    ask ttl=0.zero.test >/dev/null
    ask ttl=0.zero.test >/dev/null
    ask ttl=300,0.n=2.zero.test >/dev/null
    ask ttl=300,0.n=2.zero.test >/dev/null
    same 4 "$(asked u1 '\.zero\.test')" "queries at the upstream"
    promise "a TTL with the top bit set counts as 0, a huge one is capped (RFC 2181)"
    for t in 2147483648 4294967295 2147483647; do
        ask ttl=$t.big.test >/dev/null
        x=$(ttl_of "$(ask ttl=$t.big.test)")
        [ "$t" != 2147483647 ] || within 86390 86400 "$x" "TTL $t from the cache"
    done
    same 2 "$(asked u1 'ttl=2147483648')" "queries with the top bit set"
    promise "only successes: not SERVFAIL, REFUSED, FORMERR, NOTIMP, NXDOMAIN, NODATA, TC=1"
    for w in servfail= refused= formerr= notimp= nxdomain=.soa=60,60 nodata=.soa=60,60 cname=1.cnameonly= tcrec=.tcpsilent=; do
        ask "$w.bad.test" >/dev/null
        ask "$w.bad.test" >/dev/null
        same 2 "$(grep -F " $w.bad.test. " "$T/u1.q" | grep ' udp ' | awk '{ print $4 }' | sort -u | grep -c .)" "$w: queries at the upstream"
    done
    promise "nothing malformed"
    for k in loop rdlen cutrr; do ask bad=$k.mal.test +timeout=1700 >/dev/null; done
    same 0 "$(adm status | grep -c '^entry .*mal\.test')" entries
    promise "ANY is relayed, and not kept"
    like '^NOERROR .*an=1' "$(ask some.test ANY)"
    like '^NOERROR .*an=1' "$(ask some.test ANY)"
    same 2 "$(asked u1 ' some\.test\. ANY ')" "queries at the upstream"
    promise "a failure does not drop what is kept"
    rules u1 '. servfail'
    like '^NOERROR' "$(ask hit.test)"
    rules u1 '. count'
    stop p

    promise "cache-size 0 is no cache"
    proxy p "$u1 1" 'cache-size 0'
    ask off.test >/dev/null
    ask off.test >/dev/null
    same 2 "$(asked u1 ' off\.test')"
    stop p
    promise "cache-min-ttl and cache-max-ttl clamp what is kept; TTL 0 is not kept for all that"
    proxy p "$u1 1" 'cache-min-ttl 60' 'cache-max-ttl 100'
    ask ttl=5.c.test >/dev/null
    ask ttl=500.c.test >/dev/null
    ask ttl=0.c.test >/dev/null
    within 50 60 "$(ttl_of "$(ask ttl=5.c.test)")" "5 from the cache"
    within 50 60 "$(adm status | sed -n 's/^entry ttl=5\..* remaining \([0-9]*\) .*/\1/p')" "5, remaining"
    within 90 100 "$(ttl_of "$(ask ttl=500.c.test)")" "500 from the cache"
    within 90 100 "$(adm status | sed -n 's/^entry ttl=500\..* remaining \([0-9]*\) .*/\1/p')" "500, remaining"
    ask ttl=0.c.test >/dev/null
    same 2 "$(asked u1 'ttl=0\.c')" "queries for TTL 0"
    stop p
    promise "20,000 names with 20,000 addresses, asked twice: no reply carries another name's address"
    rules u1 '. byname'
    proxy p "$u1 1" 'cache-size 8m'
    like 'noerror 20000 .* wrong 0 dup 0 bad 0' "$(many n=20000 window=60 byname)"
    forget u1
    like 'noerror 20000 .* wrong 0 dup 0 bad 0' "$(many n=20000 window=60 byname)"
    within 0 2000 "$(asked u1)" "misses of the second round"
    stop p
}

leg_cachefull()
{
    up u1
    rules u1 '. byname ttl=3000'
    proxy p "$u1 1" 'cache-size 256k'
    promise "when the cache is full it makes room: the newest names are kept"
    like 'noerror 10000 .* wrong 0' "$(many n=10000 window=60 byname)"
    forget u1
    like 'noerror 100 .* wrong 0' "$(many n=100 from=9900 window=20 byname)"
    within 0 20 "$(asked u1)" "misses among the last 100"
    promise "and never grows: bytes is at most size, size is what was asked for"
    within 1 262144 "$(cached bytes)" bytes
    within 1 262144 "$(cached size)" size
    within 1000 10000 "$(cached entries)" entries
    within 1 10000 "$(cached evicted)" evicted
    promise "a small answer costs no more than its bytes and 60"
    within 1 140 "$(($(cached bytes) / $(cached entries)))" "bytes an entry"
    promise "big answers do not crowd out small ones for ever, nor break the bound"
    many n=300 window=2 tcp=1 name=big=60000.big%d.test type=TXT >/dev/null
    within 1 262144 "$(cached bytes)" bytes
    like 'noerror 200 .* wrong 0' "$(many n=200 name=small%d.test window=20 byname)"
    forget u1
    like 'noerror 200 .* wrong 0' "$(many n=200 name=small%d.test window=20 byname)"
    within 0 40 "$(asked u1)" "misses among 200 small ones"
    if proc_here; then
        promise "resident memory does not grow with what is asked"
        a=$(rss_kb p)
        many n=10000 window=60 name=grow%d.test >/dev/null
        many n=20 window=2 tcp=1 name=big=60000.grow%d.test type=TXT >/dev/null
        ! plain || within -2000 200 "$(($(rss_kb p) - a))" "kB more"
    fi
    stop p

    promise "200,000 names through a cache of 1 MB: the last 100 are hits"
    proxy p "$u1 1"
    many n=3000 window=60 name=few%d.test byname >/dev/null
    few=$(val p50_us "$(many n=3000 window=1 from=0 name=few%d.test byname)")
    a=0
    if proc_here; then a=$(rss_kb p); fi
    like 'noerror 200000 .* wrong 0' "$(many n=200000 window=60 byname)"
    forget u1
    like 'noerror 100 .* wrong 0' "$(many n=100 from=199900 window=20 byname)"
    within 0 10 "$(asked u1)" "misses among the last 100"
    within 1 1048576 "$(cached bytes)" bytes
    if proc_here && plain; then
        promise "and memory grows by no more than what was set aside"
        within 0 1300 "$(($(rss_kb p) - a))" "kB more"
    fi
    promise "and a hit costs what it cost before"
    within 1 $((few * 3 + 300)) "$(val p50_us "$(many n=3000 from=197000 window=1 byname)")" "median in us, $few with 3,000 names"
    stop p
}

leg_negative()
{
    up u1
    proxy p "$u1 1" 'cache-negative 60'
    promise "cache-negative: NXDOMAIN and NODATA are kept for the least of SOA TTL, MINIMUM and the cap"
    for w in nxdomain= nodata=; do
        ask $w.soa=50,20.n.test >/dev/null
        ask $w.soa=15,50.n.test >/dev/null
        ask $w.soa=900,900.n.test >/dev/null
        out=$(ask $w.soa=50,20.n.test)
        like " an=0 ns=1 " "$out"
    done
    for w in nxdomain= nodata=; do
        within 15 20 "$(adm status | sed -n "s/^entry $w\\.soa=50.* remaining \\([0-9]*\\) .*/\\1/p")" "$w SOA TTL 50, MINIMUM 20"
        within 10 15 "$(adm status | sed -n "s/^entry $w\\.soa=15.* remaining \\([0-9]*\\) .*/\\1/p")" "$w SOA TTL 15, MINIMUM 50"
        within 55 60 "$(adm status | sed -n "s/^entry $w\\.soa=900.* remaining \\([0-9]*\\) .*/\\1/p")" "$w SOA TTL 900, MINIMUM 900"
    done
    promise "without an SOA they are not kept"
    for w in nxdomain= nodata=; do
        ask $w.nosoa.test >/dev/null
        ask $w.nosoa.test >/dev/null
        same 2 "$(asked u1 "$w\\.nosoa")" "$w queries at the upstream"
    done
    promise "NODATA is for one type, and a positive answer of another type serves"
    ask nodata=.soa=60,60.t.test AAAA >/dev/null
    ask nodata=.soa=60,60.t.test A >/dev/null
    same 2 "$(asked u1 'nodata=\.soa=60,60\.t\.')" "queries at the upstream"
    promise "an NXDOMAIN at the end of a CNAME chain is kept for its own type alone: the first name exists"
    for x in A A CNAME; do ask cname=1.nxdomain=.soa=60,60.chain.test $x >/dev/null; done
    same 'A CNAME' "$(sed -n 's/.* cname=1[^ ]*chain\.test\. \([A-Z]*\) .*/\1/p' "$T/u1.q" | tr '\n' ' ' | sed 's/ $//')" "questions at the upstream"
    promise "a 'no' that was sent while an upstream was silent is not kept: that one may know better"
    up u2
    proxy q "$u1 1" "$u2 2" 'cache-negative 60' 'timeout 600'
    like '^NXDOMAIN' "$(ask 1nxdomain=.1soa=60,60.2silent=.half.test)"
    same 0 "$(adm status | grep -c '^entry .*half')" entries
    stop q
    use p
    promise "a kept NXDOMAIN answers other types of the name, with the client's own question, letters and ID"
    ask nxdomain=.soa=60,60.gone.test A >/dev/null
    for t in A AAAA MX TYPE65280; do
        out=$(ask NXdomain=.soa=60,60.Gone.TEST $t +id=99)
        like "^NXDOMAIN .* id=99 q=NXdomain=\\.soa=60,60\\.Gone\\.TEST\\./$t qd=1 an=0 ns=1 " "$out" "$t"
        unlike 'WRONG' "$out" "$t"
    done
    same 1 "$(asked u1 '[nN][xX]domain=.soa=60,60\.[gG]one')" "queries at the upstream"
    like '^NXDOMAIN' "$(ask nxdomain=.soa=60,60.gone.test A +do)" "DO makes a question of its own"
    same 2 "$(asked u1 '[nN][xX]domain=.soa=60,60\.[gG]one')" "queries at the upstream"
    promise "other failures are not kept"
    ask servfail=.soa=60,60.f.test >/dev/null
    ask servfail=.soa=60,60.f.test >/dev/null
    same 2 "$(asked u1 'servfail=')" "queries at the upstream"
    promise "a name below one that does not exist is asked for itself"
    ask nxdomain=.soa=60,60.top.test >/dev/null
    like '^NXDOMAIN' "$(ask 1=.nxdomain=.soa=60,60.top.test)"
    stop p
    promise "cache-negative 0 keeps neither"
    proxy p "$u1 1" 'cache-negative 0'
    forget u1
    for i in 1 2; do ask nxdomain=.soa=60,60.z.test >/dev/null; done
    same 2 "$(asked u1)"
    stop p
}

leg_stale()
{
    up u1
    proxy p "$u1 1" 'serve-stale 8' 'timeout 3000'
    promise "serve-stale: when no upstream answers, the expired answer comes with TTL 30 or less, within 1.8 s, with Extended DNS Error 3"
    ask ttl=1.old.test >/dev/null
    ask ttl=1,500.n=2.old.test >/dev/null
    ask ttl=1.gone.test >/dev/null
    began=$(date +%s)
    sleep 1.3               # until it has expired
    rules u1 '. silent'
    ask ttl=1,500.n=2.old.test >"$T/two" &
    x=$!
    ask ttl=1.old.test >"$T/bare" &
    n=$!
    out=$(ask ttl=1.old.test +edns)
    wait $x $n
    like '^NOERROR .* ede=3( |$)' "$out"
    same 192.0.2.1 "$(addresses "$out")"
    within 1 30 "$(ttl_of "$out")" TTL
    within 0 2300 "$(ms_of "$out")" ms
    like '^NOERROR ' "$(cat "$T/bare")" "without OPT"
    unlike ' ede=' "$(cat "$T/bare")" "without OPT"
    promise "all its TTLs are 30 or less"
    out=$(cat "$T/two")
    same 2 "$(printf '%s\n' "$out" | tr '|' '\n' | grep -cE '^ ttl=1,500\.n=2\.old\.test\. ([12]?[0-9]|30) A ')" "records with TTLs of 30 at most: $out"
    promise "status counts it"
    same 3 "$(count stale)"
    promise "at once while all upstreams are down"
    down "$u1" st
    out=$(ask ttl=1.old.test +edns)
    like '^NOERROR .* ede=3( |$)' "$out"
    within 0 700 "$(ms_of "$out")" ms
    promise "never while an upstream answers, and refreshed as soon as one returns"
    rules u1 '. a=192.0.2.99'
    n=0
    until [ "$(addresses "$(ask ttl=1.old.test)")" = 192.0.2.99 ] || [ $n = 40 ]; do
        n=$((n + 1))
        sleep 0.1
    done
    within 0 39 $n "tries until the fresh one"
    promise "not later than serve-stale allows"
    rules u1 '. silent'
    while [ $(($(date +%s) - began)) -le 10 ]; do sleep 0.2; done
    like '^SERVFAIL' "$(ask ttl=1.gone.test)"
    stop p
    promise "a stale answer while the table of queries is full: each client gets its own reply, and no byte of another's"
    rules u1
    proxy p "$u1 1" 'serve-stale 60' 'timeout 2500' 'queries 4'
    for i in 0 1 2; do ask ttl=1.stale$i.test >/dev/null; done
    sleep 1.3               # until they have expired
    rules u1 '. silent'
    down "$u1" full
    many n=4 window=4 src=127.0.0.2 name=full%d.test timeout=4000 >"$T/full" &
    n=$!
    await 3 logged_q u1 ' full3\.test' || fail "not asked"
    for i in 0 1 2; do
        out=$(ask ttl=1.stale$i.test +src=127.0.0.3 +edns +wait=50)
        like "^NOERROR .* q=ttl=1\\.stale$i\\.test\\./A .* ede=3 .* replies=1 .* 192\\.0\\.2\\.1\$" "$out" "over UDP"
        unlike WRONG "$out" "over UDP"
    done
    wait $n
    like 'answered 4 .* servfail 4 .* wrong 0 dup 0 bad 0 ' "$(cat "$T/full")" "the other client"
    talk qs=4:fulltcp%d.test q=ttl=1.stale0.test send replies=5 >"$T/full"
    same "NOERROR ttl=1.stale0.test./A SERVFAIL fulltcp0.test./A SERVFAIL fulltcp1.test./A SERVFAIL fulltcp2.test./A SERVFAIL fulltcp3.test./A" \
        "$(sed 's/^\([A-Z]*\) .* q=\([^ ]*\) .*/\1 \2/' "$T/full" | sort | tr '\n' ' ' | sed 's/ $//')" "on one TCP connection"
    stop p
    promise "serve-stale 0: never"
    rules u1
    proxy p "$u1 1" 'timeout 700'
    ask ttl=1.old.test >/dev/null
    sleep 1.3
    rules u1 '. silent'
    like '^SERVFAIL' "$(ask ttl=1.old.test)"
    stop p
    promise "an upstream that fails at once: stale at once"
    rules u1
    proxy p "$u1 1" 'serve-stale 60' 'timeout 3000'
    ask ttl=1.old.test >/dev/null
    sleep 1.3
    kill_pid u1
    out=$(ask ttl=1.old.test)
    like '^NOERROR' "$out"
    within 0 2500 "$(ms_of "$out")" ms
    stop p
}

leg_prefetch()
{
    up u1
    rules u1 '. count'
    proxy p "$u1 1"
    promise "an entry hit twice before, with less than a tenth of its TTL left, no earlier, is refreshed when it is hit again, and the client answered at once from the cache"
    one=$(ask ttl=11.pre.test)
    ask ttl=11.pre.test >/dev/null
    ask ttl=11.pre.test >/dev/null
    ask ttl=11.unused.test >/dev/null
    same 1 "$(asked u1 ' .*\.pre\.test')" "queries before"
    for i in 1 2 3; do ask ttl=11.middle.test >/dev/null; done
    sleep 7                 # until a third is left
    for i in 1 2; do ask ttl=11.middle.test >/dev/null; done
    same 1 "$(asked u1 middle)" "queries for one with a third of its TTL left"
    sleep 3                 # until less than a tenth is left
    ask ttl=11.unused.test >/dev/null
    rules u1 '. count delay=300'
    same "$(addresses "$one")" "$(addresses "$(ask ttl=11.pre.test)")" "the answer"
    out=$(many n=20 window=1 same name=ttl=11.pre.test)
    like 'noerror 20 ' "$out"
    within 0 280 "$(($(val p50_us "$out") / 1000))" "ms, the median of 20 more"
    promise "by one query at a time, and then the new answer serves"
    await 2 prefetched "$(addresses "$one")" || fail "still the old one"
    within 9 11 "$(ttl_of "$(ask ttl=11.pre.test)")" "its TTL"
    same 2 "$(asked u1 ' .*\.pre\.test')" "queries at the upstream"
    promise "one that was not hit twice is not refreshed"
    same 1 "$(asked u1 unused)" "queries at the upstream"
    stop p
}
prefetched() { x=$(addresses "$(ask ttl=11.pre.test)"); [ -n "$x" ] && [ "$x" != "$1" ]; }

# ---- The admin port

leg_admin()
{
    up u1
    up u2
    proxy p "$u2 7 tcp" "$u1 3" 'cache-size 200k'
    promise "help: one line a command"
    out=$(adm help)
    for c in help status clear reload log query top; do like "^ *$c" "$out" "$c"; done
    promise "status: the records, the fields and their order are those of the contract"
    ask st.test >/dev/null
    ask st.test >/dev/null
    out=$(adm status)
    n='[0-9]+'
    like "^dnsproxy [^ ]+ uptime $n queries $n hits $n misses $n stale $n refused $n limited $n failed $n inflight $n tcp $n\$" "$(printf '%s\n' "$out" | sed -n 1p)"
    like "^upstream $u1 udp priority 3 state (up|down) rtt_ms [0-9.]+ sent $n answered $n won $n failed $n( connects $n resumed $n)?\$" "$(printf '%s\n' "$out" | sed -n 2p)"
    like "^upstream $u2 tcp priority 7 state (up|down) rtt_ms [0-9.]+ sent $n answered $n won $n failed $n connects $n resumed $n\$" "$(printf '%s\n' "$out" | sed -n 3p)"
    like "^cache entries 1 bytes $n size $n inserted $n evicted $n\$" "$(printf '%s\n' "$out" | sed -n 4p)"
    like "^entry st\.test\. A IN expires 20[0-9-]{8}T[0-9:]{8}Z remaining (300|29[0-9]) upstream $u1\$" "$(printf '%s\n' "$out" | sed -n 5p)"
    same 5 "$(printf '%s\n' "$out" | wc -l | tr -d ' ')" lines
    promise "status: queries are hits, misses and others; upstreams count sent, answered, won"
    same 2 "$(count queries)" queries
    same 1 "$(count hits)" hits
    same 1 "$(count misses)" misses
    same 1 "$(upstream "$u1" sent)" sent
    same 1 "$(upstream "$u1" answered)" answered
    same 1 "$(upstream "$u1" won)" won
    same 0 "$(upstream "$u2" won)" "won by the other"
    promise "a line may end with LF or CRLF, and the server closes"
    like '^dnsproxy ' "$(tool talk 127.0.0.1 "$admin" 'text=status\r\n' slurp=3000)"
    like 'EOF' "$(tool talk 127.0.0.1 "$admin" 'text=status\r\n' end=3000)"
    promise "names in status are absolute and lower case, with \\. and \\DDD; hostile ones are escaped"
    ask 'MiX\.ed.TeSt' >/dev/null
    ask 'new\010line\032x\255\000\".test' TYPE4711 >/dev/null
    ask '\027[31m.test' >/dev/null
    out=$(adm status)
    like '^entry mix\\\.ed\.test\. A IN ' "$out"
    like '^entry new\\010line\\032x\\255\\000(\\")?"?\.test\. TYPE4711 IN ' "$out"
    like '^entry \\027(\[|\\091)31m\.test\. A IN ' "$out"
    same 0 "$(printf '%s\n' "$out" | LC_ALL=C grep -c '[^ -~]')" "lines with other than printable ASCII"
    promise "clear NAME drops every type of NAME, without case, and nothing else"
    ask one.test >/dev/null
    ask one.test AAAA >/dev/null
    ask one.test +do >/dev/null
    same 'Cache cleared (3 entries)' "$(adm 'clear ONE.test')"
    same 'Cache cleared (0 entries)' "$(adm 'clear one.test.')"
    same 'Cache cleared (1 entries)' "$(adm 'clear mix\.ed.test')"
    like '^entry st\.test' "$(adm status)"
    promise "clear empties the cache"
    n=$(adm status | grep -c '^entry ')
    same "Cache cleared ($n entries)" "$(adm clear)"
    same 0 "$(cached entries)" entries
    promise "log LEVEL changes what is logged"
    same 'Log level debug' "$(adm 'log debug')"
    ask debugged.test >/dev/null
    await 2 logged p 'debugged\.test' || fail "nothing in the log"
    same 'Log level error' "$(adm 'log error')"
    same 'Log level info' "$(adm 'log info')"
    promise "what is no command gets an error"
    for c in '' nonsense 'clear a b' 'log loud' 'STATUSS' 'clear ..' 'query' 'log'; do like '^error: ' "$(adm "$c")" "[$c]"; done
    promise "only the first line of a connection is read"
    ask keep.test >/dev/null
    tool talk 127.0.0.1 "$admin" 'text=help\nclear\nclear\n' slurp=3000 >/dev/null
    like '^entry keep\.test' "$(adm status)"
    promise "a line longer than 512 bytes ends the connection, at whatever pace it comes"
    like '(EOF|RESET) ms=[0-9]{1,3} ' "$(tool talk 127.0.0.1 "$admin" fill=600 send end=4000)"
    like '(EOF|RESET) ms=[0-9]{1,4} ' "$(tool talk 127.0.0.1 "$admin" fill=400 send pause=50 fill=200 send end=4000)"
    promise "10 MB without a newline, a TLS ClientHello, bytes that are 0: the connection ends, nothing runs, memory stays"
    a=0
    if proc_here && plain; then a=$(rss_kb p); fi
    like '(EOF|RESET) ms=[0-9]+ ' "$(tool talk 127.0.0.1 "$admin" fill=10000000 send end=4000)" "10 MB"
    like '(EOF|RESET) ms=[0-9]+ ' "$(tool talk 127.0.0.1 "$admin" hex=160301020001 fill=600 send end=7000)" "ClientHello"
    like '(EOF|RESET) ms=[0-9]+ ' "$(tool talk 127.0.0.1 "$admin" hex=0000000000636c6561720a send end=7000)" "zeros"
    like '^entry keep\.test' "$(adm status)"
    if proc_here && plain; then within -2000 100 "$(($(rss_kb p) - a))" "kB more"; fi
    promise "an HTTP request other than GET /metrics is refused and runs nothing"
    for r in 'POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 7\r\n\r\nclear\r\n' 'GET /clear HTTP/1.0\r\n\r\n' 'POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\nclear\r\n' \
        'OPTIONS * HTTP/1.1\r\n\r\n' 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\nclear\r\n' 'PUT clear HTTP/1.1\r\n\r\n' 'GET clear\r\n'; do
        out=$(tool talk 127.0.0.1 "$admin" "text=$r" slurp=3000)
        unlike 'Cache cleared|^dnsproxy |200 OK' "$out" "$r"
    done
    like '^entry keep\.test' "$(adm status)" "still in the cache"
    promise "/metrics wants a Host that is an IP address or localhost"
    for h in localhost 127.0.0.1 "127.0.0.1:$admin" '[::1]:5353' "localhost:$admin"; do
        like '^HTTP/1\.[01] 200' "$(tool talk 127.0.0.1 "$admin" "text=GET /metrics HTTP/1.1\r\nHost: $h\r\n\r\n" slurp=3000)" "Host: $h"
    done
    for h in evil.example "127.0.0.1.evil.example" "localhost.evil.example:$admin" 'a' '1.2.3.4x'; do
        unlike '^HTTP/1\.[01] 200' "$(tool talk 127.0.0.1 "$admin" "text=GET /metrics HTTP/1.1\r\nHost: $h\r\n\r\n" slurp=3000)" "Host: $h"
    done
    promise "admin clients that stay silent are closed after 5 s, and do not keep others out"
    hold hold "$admin" 300
    like '^dnsproxy ' "$(adm status)" "status beside 300 silent ones"
    within 200 310 "$(metric full)" "times that a table made room, in the metrics"
    like '^NOERROR' "$(ask beside.test)"
    await 9 logged hold 'open 0$' || fail "still $(tail -n 1 "$T/hold.log")"
    promise "a slow reader of a long status does not stop the service"
    many n=2000 window=100 name=long%d.test >/dev/null
    tool talk 127.0.0.1 "$admin" rcvbuf=2048 'text=status\n' pause=1500 end=5000 >"$T/slow.out" &
    n=$!
    out=$(many n=200 window=10 name=meanwhile%d.test)
    like 'noerror 200 ' "$out"
    within 0 500 "$(val slowest_ms "$out")" "slowest ms"
    like '^dnsproxy ' "$(adm status)" "another admin client"
    wait $n
    promise "-a COMMAND is a client: reply to standard output, exit 0; 1 on error or without connection"
    out=$("$BIN" -a status "$u1 1" "admin 127.0.0.1@$admin")
    same 0 $? "exit status"
    like '^dnsproxy ' "$out"
    out=$("$BIN" --admin nonsense "$u1 1" "admin 127.0.0.1@$admin" 2>&1)
    same 1 $? "exit status of an error"
    like 'error: ' "$out"
    stop p
    "$BIN" -a status "$u1 1" "admin 127.0.0.1@$admin" >/dev/null 2>&1
    same 1 $? "exit status without connection"
    promise "hostile bytes at the admin port harm nothing"
    proxy p "$u1 1"
    for s in 1 2 3; do tool flood 127.0.0.1 "$admin" tcp n=300 kind=random seed=$s >/dev/null; done
    tool talk 127.0.0.1 "$admin" hex=00000a send slurp=1000 >/dev/null
    tool talk 127.0.0.1 "$admin" hex=737461747573000a send slurp=1000 >/dev/null
    tool talk 127.0.0.1 "$admin" 'text=clear \\300.test\n' slurp=1000 >/dev/null
    like '^dnsproxy ' "$(adm status)"
    lives p "hostile bytes"
    stop p
    promise "admin off: there is no admin port"
    proxy p "$u1 1" 'admin off'
    like '^NOERROR' "$(ask off.test)"
    stop p
}

# ---- Configuration

# checked TEXT: what -t says of a file with this text, and then its exit status
checked()
{
    printf '%b' "$1" >"$T/check.conf"
    "$BIN" -t -c "$T/check.conf" 2>&1
    echo "exit $?"
}

leg_config()
{
    up u1
    dead=127.0.0.1@$(freeport)
    promise "a file in the plain format <IP> <priority> works, with comments and blank lines"
    out=$(checked '# a comment\n\n1.2.3.4 1\n   // another\n9.9.9.9\t2 # behind\n2001:db8::1 3   // and here\n\n')
    like '^1\.2\.3\.4(@53)? 1$' "$out"
    like '^9\.9\.9\.9(@53)? 2$' "$out"
    like '^2001:db8::1(@53)? 3$' "$out"
    like '^exit 0$' "$out"
    promise "the last line needs no newline, lines may end with CRLF"
    like '^exit 0$' "$(checked '1.2.3.4 1')"
    like '^exit 0$' "$(checked '1.2.3.4 1\r\ntimeout 300\r\n')"
    promise "-t prints a normal form that is a fixed point"
    pin=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
    port=1053
    lines="127.0.0.1@$port 5 final domain=Lan domain=168.192.in-addr.arpa.
9.9.9.9 1 tls=dns.Quad9.net
1.1.1.1@8853 2 tls pin=$pin pin=BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA=
1.0.0.1 3 tls noverify
fe80::1%lo 9 tcp
listen 127.0.0.1@5311
listen ::1@5311
admin ::1@5354
allow 127.0.0.0/8 ::1
allow 10.0.0.0/8
rate 100
cache-size 2m
cache-min-ttl 5
cache-max-ttl 1000
cache-negative 60
serve-stale 3600
timeout 4000
patience 700
queries 2000
tcp-clients 100
user daemon
log debug"
    printf '%s\n' "$lines" >"$T/a.conf"
    "$BIN" -t -c "$T/a.conf" >"$T/b.conf" 2>"$T/err"
    same 0 $? "exit status: $(cat "$T/err")"
    "$BIN" -t -c "$T/b.conf" >"$T/c.conf" 2>"$T/err"
    same 0 $? "exit status of the normal form: $(cat "$T/err")"
    same "$(cat "$T/b.conf")" "$(cat "$T/c.conf")" "normal form of the normal form"
    out=$(cat "$T/b.conf")
    for l in '^fe80::1%lo(@53)? 9 tcp$' '^listen 127\.0\.0\.1@5311$' '^listen (::1|\[::1\])@5311$' '^rate 100$' '^cache-size (2m|2097152)$' '^timeout 4000$' '^patience 700$' '^queries 2000$' \
        '^tcp-clients 100$' '^user daemon$' '^log debug$' 'domain=lan' '^1\.1\.1\.1@8853 2 tls pin=' '^1\.0\.0\.1(@853)? 3 tls noverify$'; do like "$l" "$out"; done
    promise "the defaults are those of the contract, and -t prints every directive that --help names"
    out=$("$BIN" -t '192.0.2.7 1' 2>/dev/null | sed 's/^cache-size 1m$/cache-size 1048576/; s/^listen \*$/listen *@53/')
    same "listen *@53
admin 127.0.0.1@5353
allow 127.0.0.0/8 ::1/128 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 fc00::/7 fe80::/10
rate 0
cache-size 1048576
cache-min-ttl 0
cache-max-ttl 86400
cache-negative 0
serve-stale 0
timeout 5000
patience 1000
queries 1024
tcp-clients 256
user nobody
log info
192.0.2.7@53 1" "$out"
    same "$("$BIN" --help | sed -n '/^directives/,$s/^  \([a-z][a-z-]*\) .*/\1/p' | grep -v '^ca-file$')" \
        "$(printf '%s\n' "$out" | sed -n 's/^\([a-z][a-z-]*\) .*/\1/p')" "directives in --help and in -t"
    like '^ca-file /dev/null$' "$("$BIN" -t '192.0.2.7 1' 'ca-file /dev/null' 2>&1)" "ca-file, which has no default of its own"
    promise "-t prints the longest configuration whole: 32 upstreams with all that they may have"
    awk 'BEGIN { for (i = 0; i < 32; i++) {
        l = "192.0.2." i + 1 "@" 60000 + i " 65535 tls=a-long-name-of-a-server.example"
        for (k = 0; k < 4; k++) l = l " pin=" sprintf("%042d", i * 4 + k) "A="
        for (k = 0; k < 2; k++) { l = l " domain="; for (j = 0; j < 240; j++) l = l (j && j % 60 == 0 ? "." : "") "\\" 200 + (i + k + j) % 50 }
        print l } }' >"$T/long.conf"
    "$BIN" -t -c "$T/long.conf" 'ca-file /dev/null' >"$T/b.conf" 2>"$T/err"
    "$BIN" -t -c "$T/b.conf" 'ca-file /dev/null' >"$T/c.conf" 2>>"$T/err"
    if grep -q 'ca-file\|/dev/null' "$T/err"; then    # it wants anchors even for this: then without the chain
        sed 's/ tls=[^ ]*/ tls/' "$T/long.conf" >"$T/a.conf"
        "$BIN" -t -c "$T/a.conf" >"$T/b.conf" 2>"$T/err"
        "$BIN" -t -c "$T/b.conf" >"$T/c.conf" 2>>"$T/err"
    fi
    same 32 "$(grep -c '^192\.0\.2\.[0-9]*@.* domain=.* domain=' "$T/b.conf")" "upstreams: $(cut -c 1-200 "$T/err")"
    same "$(cksum <"$T/b.conf")" "$(cksum <"$T/c.conf")" "normal form of the normal form"
    promise "the priority goes from 1 to 65535"
    like '^192\.0\.2\.7@53 65535$' "$("$BIN" -t '192.0.2.7 65535' '192.0.2.8 1' 2>&1)"
    promise "every error is reported, all of them at once, as FILE:LINE: what is wrong, what was expected"
    out=$(checked '1.2.3.4\n1.2.3.4 0\n1.2.3.4 65536\n1.2.3.4 x\n1.2.3.4@0 1\n1.2.3.4@65536 1\n1.2.3 1\n1.2.3.4 1 tcp tls\n1.2.3.4 1 udp\n1.2.3.4 1 pin=AAAA\n1.2.3.4 1 tls pin=AAAA\n')
    for n in 1 2 3 4 5 6 7 8 9 10 11; do like "^.*check\\.conf:$n: .+, .*expected" "$out" "line $n"; done
    like '^exit 1$' "$out"
    for l in nonsense 'listen' 'listen 1.2.3' 'listen 1.2.3.4@x' 'admin 192.0.2.1@5353' 'admin *@53' 'admin' 'allow' 'allow 10.0.0.0/33' 'allow x' 'allow ::/129' 'rate -1' 'rate x' 'cache-size 1q' \
        'cache-size' 'cache-size 99999999999999m' 'cache-min-ttl x' 'cache-max-ttl -5' 'cache-negative x' 'serve-stale soon' 'timeout soon' 'timeout 0' 'patience -1' 'queries 0' 'tcp-clients x' 'user' \
        'ca-file' 'log loud' 'log' 'log info nowhere' 'timeout 1 2' '1.2.3.4 1 domain=' '1.2.3.4 1 domain=a..b' '1.2.3.4 1 tls=' '1.2.3.4 1 tls=a..b' '1.2.3.4 1 noverify' '1.2.3.4 1 final final x' \
        '1.2.3.4 -1' '1.2.3.4 4294967297' '1.2.3.4 0x1' '1.2.3.4 1.5' 'listen 1.2.3.4@0' 'listen 1.2.3.4@65536' '01.2.3.4 1' '1.2.3.4.5 1' '1.2.3.256 1' ':: :: 1' 'fe80:: 1::1 1' \
        'timeout 99999999999999999999' '1.2.3.4%lo 1' '::1%nosuch@x 1' 'include x' 'timeout 500ms'; do
        out=$(checked "9.9.9.9 1\n$l\n")
        like '^[^ ]*check\.conf:2: ' "$out" "[$l]"
        like '^exit 1$' "$out" "[$l]"
    done
    promise "a number or name with something wrong far behind is no other number or name: it is right or an error"
    x=$("$BIN" -t '9.9.9.9 1' "allow 10.0.0.0/$(printf '%060d' 8)" 2>&1)
    like '^allow 10\.0\.0\.0/8$|: .*expected' "$x" "/8 behind 59 zeros"
    x=$("$BIN" -t '9.9.9.9 1' 'listen *@000000000000000053' 2>&1)
    like '^listen \*(@53)?$|: .*expected' "$x" "@53 behind 16 zeros"
    for l in '\300.test' '\999.test' '\12.test' '\1'; do
        x=$("$BIN" -t '9.9.9.9 1' "1.2.3.4 1 domain=$l" 2>&1)
        like 'expected' "$x" "domain=$l"
    done
    promise "errors of arguments are reported too, and the program does not start"
    out=$("$BIN" '1.2.3.4 0' 'timeout soon' 2>&1)
    same 1 $? "exit status"
    like 'soon' "$out"
    like '0' "$out"
    same 2 "$(printf '%s\n' "$out" | grep -c ':[0-9]*: ')" "errors with a place"
    promise "a configuration without an upstream is an error"
    like '^exit 1$' "$(checked 'timeout 500\n')"
    promise "an upstream that is one of our own listen addresses is an error"
    like '^exit 1$' "$(checked "127.0.0.1@5300 1\nlisten 127.0.0.1@5300\n")"
    like '^exit 1$' "$(checked "127.0.0.1@5300 1\nlisten *@5300\n")"
    like '^exit 0$' "$(checked "127.0.0.1@5301 1\nlisten *@5300\n")"
    promise "a file that cannot be read is an error with its name"
    out=$("$BIN" -t -c "$T/nosuch.conf" 2>&1)
    same 1 $? "exit status"
    like 'nosuch\.conf' "$out"
    "$BIN" -t -c "$T" >/dev/null 2>&1
    same 1 $? "a directory: exit status"
    promise "hostile files give errors and nothing else"
    for b in 100 5000 200000; do
        head -c $b /dev/urandom >"$T/random.conf"
        "$BIN" -t -c "$T/random.conf" >/dev/null 2>"$T/err"
        same 1 $? "exit status, $b random bytes"
    done
    awk 'BEGIN { for (i = 0; i < 1000000; i++) printf "x"; print "" }' >"$T/random.conf"
    "$BIN" -t -c "$T/random.conf" >/dev/null 2>"$T/err"
    same 1 $? "exit status, a line of 1,000,000 bytes"
    like 'random\.conf:1: ' "$(cut -c 1-300 "$T/err")"
    printf '9.9.9.9 1\n1.2.3.4\0005 1\n' >"$T/random.conf"
    "$BIN" -t -c "$T/random.conf" >/dev/null 2>"$T/err"
    same 1 $? "exit status, a byte that is 0"
    like 'random\.conf:2: ' "$(cat "$T/err")"
    awk 'BEGIN { for (i = 0; i < 3000; i++) print "1.2.3.4@" i % 60000 + 1, 1 }' >"$T/random.conf"
    "$BIN" -t -c "$T/random.conf" >/dev/null 2>&1
    within 0 1 $? "exit status, 3,000 upstreams"
    promise "arguments are lines too, read after the file"
    echo "$dead 1" >"$T/a.conf"
    out=$("$BIN" -t -c "$T/a.conf" "$u1 2" 'timeout 777' 2>/dev/null)
    like "^$dead 1" "$out"
    like "^$u1 2" "$out"
    like "^timeout 777" "$out"
    promise "with arguments and no -c no file is read"
    unlike '^1\.1\.1\.1' "$("$BIN" -t "$u1 2" 2>/dev/null)"
    promise "the file is used: it serves"
    port=$(freeport) admin=$(freeport)
    printf '%s\n' "$u1 1" "listen 127.0.0.1@$port" "admin 127.0.0.1@$admin" >"$T/a.conf"
    $WRAP "$BIN" -c "$T/a.conf" >"$T/p.log" 2>&1 &
    ready p $!
    like '^NOERROR' "$(ask file.test)"
    promise "what was chosen is logged"
    like 'a\.conf' "$(cat "$T/p.log")"
    stop p
    if [ -e /etc/dns.config ]; then
        promise "environment and built-in default"
        skip "not here: there is an /etc/dns.config"
    else
        promise "without file and arguments the environment counts: TLS_DNS_IP, TLS_DNS_PORT, PROXY_PORT"
        out=$(TLS_DNS_IP=192.0.2.9 TLS_DNS_PORT=8853 PROXY_PORT=5399 "$BIN" -t 2>/dev/null)
        like '^192\.0\.2\.9@8853 1 tls' "$out"
        like '^listen \*@5399$' "$out"
        like '^192\.0\.2\.9(@853)? 1 tls' "$(TLS_DNS_IP=192.0.2.9 "$BIN" -t 2>/dev/null)"
        TLS_DNS_IP=nonsense "$BIN" -t >/dev/null 2>&1
        same 1 $? "exit status with a wrong TLS_DNS_IP"
        TLS_DNS_IP=192.0.2.9 PROXY_PORT=0x "$BIN" -t >/dev/null 2>&1
        same 1 $? "exit status with a wrong PROXY_PORT"
        like '^192\.0\.2\.9(@853)? 1 tls' "$(TLS_DNS_IP=192.0.2.9 TLS_DNS_PORT='' PROXY_PORT='' "$BIN" -t 2>/dev/null)" "TLS_DNS_PORT and PROXY_PORT are empty"
        like '^1\.1\.1\.1(@853)? 1 tls=' "$(TLS_DNS_IP='' "$BIN" -t 2>/dev/null)" "TLS_DNS_IP is empty"
        promise "else the built-in default: 1.1.1.1 and 1.0.0.1 with their names"
        out=$("$BIN" -t 2>/dev/null)
        like '^1\.1\.1\.1(@853)? 1 tls=one\.one\.one\.one$' "$out"
        like '^1\.0\.0\.1(@853)? 2 tls=one\.one\.one\.one$' "$out"
    fi
    promise "-h and -V print to standard output and exit 0"
    for o in -h --help -V --version; do
        out=$("$BIN" $o 2>"$T/err")
        same 0 $? "$o: exit status"
        like '[a-z]' "$out" "$o"
        same '' "$(cat "$T/err")" "$o: standard error"
    done
    for d in listen admin allow rate cache-size cache-min-ttl cache-max-ttl cache-negative serve-stale timeout patience queries tcp-clients user ca-file log; do
        like "$d" "$("$BIN" -h)" "-h names $d"
    done
    promise "an unknown option and a bad -p exit 2"
    for o in -x --nonsense '-p 0' '-p 65536' '-p x' -c; do
        # shellcheck disable=SC2086
        "$BIN" $o </dev/null >/dev/null 2>&1
        same 2 $? "$o: exit status"
    done
    promise "long options are the short ones"
    like "^listen \*@5312|^listen 127" "$("$BIN" --test --port 5312 "$u1 1" 2>/dev/null)"
    same "$("$BIN" -t -c "$T/a.conf" 2>/dev/null)" "$("$BIN" --test --config "$T/a.conf" 2>/dev/null)"
    promise "a port that is taken: exit 1, and the message says which"
    x=${u1#*@}
    out=$("$BIN" "$dead 1" "listen 127.0.0.1@$x" 'admin off' 2>&1)
    same 1 $? "exit status"
    like "$x" "$out"
    if [ "$(id -u)" = 0 ] && proc_here; then
        promise "started as root with a user that does not exist: exit 1, and the message says which"
        out=$("$BIN" "$u1 1" "listen 127.0.0.1@$(freeport)" 'admin off' 'user nosuchuser-xyz' 2>&1)
        same 1 $? "exit status"
        like 'nosuchuser-xyz' "$out"
        promise "started as root it becomes user: nobody, no supplementary groups, no way back"
        proxy p "$u1 1"
        x=$(id -u nobody)
        await 5 runs_as p "$x" || fail "it does not become nobody"
        like "^Uid:	$x	$x	$x	$x\$" "$(cat "/proc/$(pid p)/status")"
        same '' "$(sed -n 's/^Groups:[	 ]*\([0-9 ]*[0-9]\).*/\1/p' "/proc/$(pid p)/status" | tr -d ' ')" "supplementary groups"
        like '^NoNewPrivs:	1$' "$(cat "/proc/$(pid p)/status")"
        like '^CapEff:	0000000000000000$' "$(cat "/proc/$(pid p)/status")"
        x=$(id -g nobody)
        like "^Gid:	$x	$x	$x	$x\$" "$(cat "/proc/$(pid p)/status")"
        like '^NOERROR' "$(ask user.test)"
        stop p
        proxy p "$u1 1" 'user daemon'
        x=$(id -u daemon)
        await 5 runs_as p "$x" || fail "it does not become daemon"
        like "^Uid:	$x	$x	$x	$x\$" "$(cat "/proc/$(pid p)/status")"
        stop p
        promise "a file that only root may read: reload works or says why, and serving goes on"
        chmod 600 "$T/a.conf"
        port=$(freeport) admin=$(freeport)
        printf '%s\n' "$u1 1" "listen 127.0.0.1@$port" "admin 127.0.0.1@$admin" >"$T/a.conf"
        $WRAP "$BIN" -c "$T/a.conf" >"$T/p.log" 2>&1 &
        ready p $!
        like '^Reloaded$|^error: .*a\.conf|a\.conf.*[Pp]ermission' "$(adm reload)"
        like '^NOERROR' "$(ask afterreload.test)"
        stop p
        chmod 644 "$T/a.conf"
    fi
}

# runs_as NAME UID: the program gives up root after it has begun to listen, and the flags of the last step come last
runs_as() { [ "$(awk '/^Uid:/ { u = $5 } /^NoNewPrivs:/ { n = $2 } END { print u, n }' "/proc/$(pid "$1")/status")" = "$2 1" ]; }

# ---- Logs

leg_logs()
{
    up u1
    up u2
    proxy p "$u1 1" "$u2 2" 'timeout 1500' 'patience 300'
    promise "at log info nothing is said of single queries"
    n=$(wc -l <"$T/p.log")
    many n=50 name=quiet%d.test >/dev/null
    ask quiet0.test >/dev/null
    same "$n" "$(wc -l <"$T/p.log")" "lines"
    unlike 'quiet' "$(cat "$T/p.log")"
    stop p
    promise "-d logs every query with client, name, type and ID, and miss or hit"
    proxy p -d "$u1 1" "$u2 2" 'timeout 1500' 'patience 300'
    ask seen.test MX +id=4660 +src=127.0.0.5 >/dev/null
    like '127\.0\.0\.5.*seen\.test\.? MX.*(4660|1234)|(4660|1234).*127\.0\.0\.5.*seen\.test\.? MX|seen\.test\.? MX' "$(cat "$T/p.log")"
    like '127\.0\.0\.5' "$(grep seen "$T/p.log")"
    like '4660|1234' "$(grep seen "$T/p.log")"
    like 'miss' "$(grep 'seen\.test' "$T/p.log" | tail -n 5)"
    unlike 'hit' "$(grep 'seen\.test' "$T/p.log")"
    ask seen.test MX >/dev/null
    like 'hit' "$(grep 'seen\.test' "$T/p.log" | tail -n 1)"
    promise "and each upstream's answer with RCODE and ms, and who won and why"
    ask 1servfail=.why.test >/dev/null
    await 2 logged p "$u2" || fail "nothing of $u2"
    like "$u1.*SERVFAIL.* ms|SERVFAIL.*$u1" "$(grep why "$T/p.log")"
    like "$u2.*NOERROR|NOERROR.*$u2" "$(grep why "$T/p.log")"
    like "won|wins|chosen" "$(grep why "$T/p.log")"
    promise "names are escaped in the log"
    ask 'bad\010dnsproxy\027[0m.test' >/dev/null
    like 'bad\\010dnsproxy\\027' "$(cat "$T/p.log")"
    same 0 "$(LC_ALL=C tr '\t' ' ' <"$T/p.log" | LC_ALL=C grep -c '[^ -~]')" "lines with other than printable ASCII"
    stop p
    promise "log error says nothing of the start"
    proxy p "$u1 1" 'log error'
    same '' "$(cat "$T/p.log")"
    stop p
    promise "SIGUSR1 logs the status"
    proxy p "$u1 1"
    ask usr1.test >/dev/null
    kill -USR1 "$(pid p)"
    await 3 logged p 'queries 1 .*misses 1' || fail "no status"
    await 3 logged p "upstream $u1 udp priority 1" || fail "no upstream line"
    stop p
    promise "a burst of the same warning is limited"
    proxy p "$u1 1" 'timeout 1500'
    n=$(wc -l <"$T/p.log")
    many n=300 window=100 name=bad=loop.burst%d.test timeout=2500 >/dev/null
    many n=300 window=100 name=servfail=.burst%d.test >/dev/null
    within 0 40 "$(($(wc -l <"$T/p.log") - n))" "lines after 600 failures"
    stop p

    for how in closed full blocked; do
        promise "a standard error that is $how never blocks the service: 20,000 queries at log debug"
        port=$(freeport) admin=$(freeport)
        set -- "$u1 1" 'log debug' "listen 127.0.0.1@$port" "admin 127.0.0.1@$admin"
        case $how in
        closed) $WRAP "$BIN" "$@" <&- >&- 2>&- & ;;
        full) $WRAP "$BIN" "$@" </dev/null >/dev/null 2>/dev/full & ;;
        blocked)
            mkfifo "$T/fifo"
            exec 9<>"$T/fifo"
            $WRAP "$BIN" "$@" </dev/null >/dev/null 2>&9 9>&- &
            ;;
        esac
        : >"$T/p.log"
        ready p $!
        like 'noerror 20000 .* wrong 0' "$(many n=20000 window=50 "name=$how%d.test")"
        like '^dnsproxy ' "$(adm status)"
        stop p
        [ $how != blocked ] || exec 9>&-
    done

    promise "log LEVEL syslog goes to syslog(3), with severities"
    if shim shim <<'END'
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
static void out(int pri, const char *fmt, va_list ap)
{
    static FILE *f;
    if (f == 0) { f = fopen(getenv("SHIM"), "a"); setvbuf(f, 0, _IOLBF, 0); }
    fprintf(f, "<%d> ", pri & 7);
    vfprintf(f, fmt, ap);
    fprintf(f, "\n");
}
void openlog(const char *i, int o, int f) { (void)i; (void)o; (void)f; }
void vsyslog(int pri, const char *fmt, va_list ap) { out(pri, fmt, ap); }
void __vsyslog_chk(int pri, int flag, const char *fmt, va_list ap) { (void)flag; out(pri, fmt, ap); }
void syslog(int pri, const char *fmt, ...) { va_list ap; va_start(ap, fmt); out(pri, fmt, ap); va_end(ap); }
void __syslog_chk(int pri, int flag, const char *fmt, ...) { va_list ap; (void)flag; va_start(ap, fmt); out(pri, fmt, ap); va_end(ap); }
END
    then
        : >"$T/shim"
        chmod 666 "$T/shim"
        WRAP="env SHIM=$T/shim LD_PRELOAD=$T/shim.so"
        proxy p "$u1 1" 'log debug syslog'
        WRAP=''
        ask syslogged.test >/dev/null
        like '^<7> .*syslogged\.test' "$(cat "$T/shim")" "debug"
        like '^<6> ' "$(cat "$T/shim")" "info"
        unlike 'syslogged' "$(cat "$T/p.log")" "standard error"
        stop p
    else
        skip "not here: no way to listen in on this program's syslog"
    fi
}

# ---- Hostile clients and upstreams

leg_hostile()
{
    up u1
    up u2
    port=$(freeport) admin=$(freeport)
    set -- "$u1 1" "$u2 2" 'patience 100' 'cache-size 256k' 'queries 2048'
    conf "$@" 'timeout 5000'
    $WRAP "$BIN" -c "$T/r.conf" </dev/null >"$T/p.log" 2>&1 &
    ready p $!
    # What the tables and buffers take is taken now: they are filled, and each attack is made once.
    many n=3000 window=50 name=warm%d.test >/dev/null
    many n=20 tcp=4 name=warmtcp%d.test >/dev/null
    many n=4096 window=4096 timeout=1000 name=silent=.fill%d.test >/dev/null &
    await 5 inflight_is 2048 || fail "in flight: $(count inflight)"
    wait $!
    conf "$@" 'timeout 300'
    adm reload >/dev/null
    hold hold "$port" 256 hex=00200007
    kill_pid hold
    for k in random mutate; do
        flood n=5000 kind=$k seed=21 >/dev/null
        flood n=1000 kind=$k seed=22 tcp >/dev/null
    done
    rules u1 '. mutate=3'
    rules u2 '. mutate=4'
    many n=5000 window=1000 name=w%d.mutated.test >/dev/null
    many n=200 window=100 name=wt%d.mutated.test tcp=5 >/dev/null
    rules u1
    rules u2
    await 5 tcp_none || fail "clients: $(count tcp)"
    fds=0 kb=0
    if proc_here; then fds=$(fd_count p) kb=$(rss_kb p); fi
    promise "a query from source port 0 is dropped: nothing goes to an upstream"
    forget u1
    n=$(metric dropped)
    if tool zero 127.0.0.1 "$port" zero.test 2>/dev/null; then
        await 2 metric_over dropped "$n" || fail "it is not counted as dropped"
        same 0 "$(asked u1)" "queries at the upstream"
    else
        skip "not here: no raw sockets"
    fi
    promise "20,000 random datagrams: alive, and none is answered but with an error"
    out=$(flood n=20000 kind=random seed=1)
    same 20000 "$(val sent "$out")" sent
    lives p "random datagrams"
    promise "20,000 mutated queries: alive, and no FORMERR has more than header, question and OPT"
    out=$(flood n=20000 kind=mutate seed=2)
    same 0 "$(val odd "$out")" "odd replies: $out"
    lives p "mutated queries"
    if proc_here && plain; then
        promise "resident memory is flat through both"
        within -2000 300 "$(($(rss_kb p) - kb))" "kB more"
    fi
    promise "datagrams of less than 12 bytes: silence"
    same 0 "$(val got "$(flood n=1000 kind=short seed=3)")" replies
    promise "1,000 packets with QR=1: silence, and nothing goes to an upstream"
    forget u1
    same 0 "$(val got "$(flood n=1000 kind=qr seed=4)")" replies
    same 0 "$(asked u1 flood)" "queries at the upstream"
    flood n=200 kind=qr seed=4 tcp >/dev/null
    same 0 "$(asked u1 flood)" "queries at the upstream from TCP"
    promise "random and mutated messages over TCP: alive"
    flood n=3000 kind=random seed=5 tcp >/dev/null
    flood n=3000 kind=mutate seed=6 tcp >/dev/null
    lives p "TCP garbage"
    promise "20,000 mutated answers: alive, every query answered once"
    rules u1 '. mutate=1'
    rules u2 '. mutate=2'
    out=$(many n=20000 window=1000 name=m%d.mutated.test)
    same 20000 "$(val answered "$out")" "answered ($out)"
    same 0 "$(val dup "$out")" "answered twice"
    same 0 "$(val bad "$out")" "short replies"
    out=$(many n=500 window=100 name=t%d.mutated.test tcp=5)
    same 500 "$(val answered "$out")" "answered over TCP ($out)"
    rules u1
    rules u2
    sleep 1                 # until the life of all these queries is over
    lives p "mutated answers"
    if proc_here; then
        promise "descriptors and resident memory are as before all this"
        await 35 fds_within p $((fds + 8)) || fail "descriptors: $fds before, $(fd_count p) now"
        ! plain || within -2000 300 "$(($(rss_kb p) - kb))" "kB more than before"
    fi
    promise "a UDP datagram of 4,096 or 60,000 bytes harms nothing"
    for n in 512 513 4096 60000; do ask huge.test +trail="$(awk -v n=$n 'BEGIN { for (i = 0; i < n; i++) printf "41" }')" +timeout=200 >/dev/null; done
    lives p "huge datagrams"
    promise "a query with 16,000 empty options over TCP costs little"
    # shellcheck disable=SC2183
    opts=$(awk 'BEGIN { for (i = 0; i < 16000; i++) printf "00630000" }')
    a=0
    if proc_here; then a=$(cpu_ms p); fi
    ask +tcp +raw="00070100000100000000000101610000010001000029040000000000fa00$opts" +timeout=1000 >/dev/null
    if proc_here; then within 0 100 "$(($(cpu_ms p) - a))" "ms of CPU"; fi
    lives p "16,000 options"
    promise "100 answers with 4,000 records relayed cost less than 2 s of CPU"
    if proc_here; then
        a=$(cpu_ms p)
        like 'noerror 100 ' "$(many n=100 window=5 tcp=1 name=big=64000.r%d.test)"
        [ -n "$WRAP" ] || within 0 2000 "$(($(cpu_ms p) - a))" "ms of CPU"
    fi
    stop p

    promise "allow: others are REFUSED, with no more bytes than they sent, and nothing goes to an upstream; TCP likewise"
    proxy p "$u1 1" 'allow 127.0.0.1' 'allow 127.0.0.64/26 ::1'
    forget u1
    out=$(ask out.test +src=127.0.0.2)
    like '^REFUSED qr .* an=0 ns=0 ar=0 size=26 ' "$out"
    like '^(REFUSED qr|CLOSED)' "$(ask out.test +src=127.0.0.2 +tcp)" "TCP"
    like '^REFUSED' "$(ask out.test +src=127.0.0.63)"
    like '^(REFUSED qr|CLOSED)' "$(ask out.test +src=127.0.0.2 +tcp +trail="$(printf '%06000d' 0)")" "TCP, 3,000 bytes"
    same 0 "$(asked u1)" "queries at the upstream"
    within 2 4 "$(count refused)" "refused in status"
    promise "allow: Extended DNS Error 18 for those who sent an OPT"
    like '^REFUSED .* ede=18( |$)' "$(ask out.test +src=127.0.0.2 +edns)"
    promise "allow: what is listed is served"
    like '^NOERROR' "$(ask in.test)"
    like '^NOERROR' "$(ask in.test +src=127.0.0.64)"
    like '^NOERROR' "$(ask in.test +src=127.0.0.127)"
    promise "allow: a refused client does not learn what the cache holds"
    like '^REFUSED .* an=0' "$(ask in.test +src=127.0.0.2)"
    stop p
    promise "four silent upstreams: one query costs at most 3 datagrams each"
    up u3 '. silent'
    up u4 '. silent'
    rules u1 '. silent'
    rules u2 '. silent'
    proxy p "$u1 1" "$u2 1" "$u3 2" "$u4 2" 'timeout 1500'
    forget u1
    forget u2
    ask cost.test >/dev/null
    for u in u1 u2 u3 u4; do within 1 3 "$(asked $u ' cost\.test')" "datagrams to $u"; done
    stop p
}
inflight_is() { [ "$(count inflight)" = "$1" ]; }
metric_over() { [ "$(metric "$1")" -gt "$2" ]; }
fds_within() { [ "$(fd_count "$1")" -le "$2" ]; }

# Nothing that an outsider sends makes the program allocate, and no clock but the monotonic one counts. Both are seen by a library that
# comes before the C library.
leg_fixed()
{
    up u1
    up u2
    promise "nothing that clients, upstreams or admin lines send makes it allocate memory"
    if shim count <<'END'
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static unsigned long *calls, none;
static void count(void)
{
    int fd;
    if (calls == 0) {
        fd = getenv("SHIM") ? open(getenv("SHIM"), O_RDWR) : -1;
        calls = fd >= 0 ? mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : &none;
        if (fd >= 0) close(fd);
    }
    ++*calls;
}
void *malloc(size_t n) { count(); return __libc_malloc(n); }
void *calloc(size_t n, size_t s) { count(); return __libc_calloc(n, s); }
void *realloc(void *p, size_t n) { count(); return __libc_realloc(p, n); }
END
    then
        head -c 4096 /dev/zero >"$T/shim"
        chmod 666 "$T/shim"
        WRAP="env SHIM=$T/shim LD_PRELOAD=$T/count.so"
        proxy p "$u1 1" "$u2 2 tcp" 'timeout 400' 'patience 100' 'queries 256' 'cache-size 64k' 'rate 0'
        WRAP=''
        a=$(od -A n -t u8 -N 8 "$T/shim" | tr -d ' ')
        within 1 100000 "$a" "calls at the start"
        many n=2000 window=100 name=first%d.test >/dev/null
        many n=1000 window=400 name=silent=.full%d.test timeout=500 >/dev/null
        many n=200 window=50 tcp=20 name=big=60000.tcp%d.test type=TXT >/dev/null
        flood n=5000 kind=mutate seed=11 >/dev/null
        flood n=1000 kind=mutate seed=12 tcp >/dev/null
        rules u1 '. mutate=5'
        rules u2 '. mutate=6'
        many n=3000 window=200 name=m%d.test >/dev/null
        rules u1 '. delay=300 reset'
        rules u2 '. close'
        many n=200 window=50 name=c%d.test >/dev/null
        for c in help status top 'query a.test' 'clear a.test' clear 'log info' nonsense; do adm "$c" >/dev/null; done
        metrics >/dev/null
        for x in 127.0.0.1 '[::1]' evil.example; do tool talk 127.0.0.1 "$admin" "text=GET /metrics HTTP/1.1\r\nHost: $x\r\n\r\n" slurp=3000 >/dev/null; done
        same "$a" "$(od -A n -t u8 -N 8 "$T/shim" | tr -d ' ')" "calls of malloc, calloc and realloc after all that"
        rules u1
        rules u2
        lives p "all that"
        stop p
    else
        skip "not here: no way to count the allocations of this program"
    fi

    promise "the wall clock may jump from 1970 to today and back: entries keep the time they have left, queries and patience too"
    if shim clock <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
static time_t wall(void)
{
    static const char *s;
    if (s == 0) s = mmap(0, 4096, PROT_READ, MAP_SHARED, open(getenv("SHIM"), O_RDONLY), 0);
    return s == MAP_FAILED ? 0 : atol(s);
}
int clock_gettime(clockid_t c, struct timespec *t)
{
    static int (*real)(clockid_t, struct timespec *);
    if (c == CLOCK_REALTIME) { t->tv_sec = wall(); t->tv_nsec = 0; return 0; }
    if (real == 0) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    return real(c, t);
}
time_t time(time_t *t) { time_t now = wall(); if (t) *t = now; return now; }
int gettimeofday(struct timeval *t, void *z) { (void)z; t->tv_sec = wall(); t->tv_usec = 0; return 0; }
END
    then
        head -c 4096 /dev/zero >"$T/shim"
        wall_clock 100
        chmod 666 "$T/shim"
        WRAP="env SHIM=$T/shim LD_PRELOAD=$T/clock.so"
        proxy p "$u1 1" "$u2 2" 'patience 500' 'timeout 2000'
        WRAP=''
        ask ttl=300.jump.test >/dev/null
        like '^entry ttl=300\.jump\.test\. A IN expires 1970-01-01T00:0[56]:' "$(adm status)" "status in 1970"
        out=''
        for x in 1900000000 50 1800000000; do
            ask 1delay=200.2silent=.x$x.test >"$T/wait" &
            n=$!
            await 2 logged_q u1 "x$x" || fail "not asked"
            wall_clock $x
            wait $n
            like '^NOERROR.* 192\.0\.2\.1$' "$(cat "$T/wait")" "a query that waited while the clock went to $x"
            within 290 300 "$(ttl_of "$(ask ttl=300.jump.test)")" "TTL when the clock says $x"
        done
        same 1 "$(asked u1 jump)" "queries at the upstream"
        like '^entry ttl=300\.jump\.test\. A IN expires 2027-01-15T' "$(adm status)" "status in 2027"
        stop p
    else
        skip "not here: no way to set the clock of this program"
    fi
}


leg_confined()
{
    up u1
    promise "a system call that the loop does not need kills it: what breaks in cannot start another program"
    if shim break_in <<'END'
#include <time.h>
#include <unistd.h>
time_t time(time_t *t) { (void)t; execl("/bin/true", "true", (char *)0); return 0; }
END
    then
        WRAP="env LD_PRELOAD=$T/break_in.so"
        proxy p "$u1 1"
        WRAP=''
        if ! grep -q '^Seccomp:	2$' "/proc/$(pid p)/status" 2>/dev/null; then
            skip "not here: $(grep -E 'no (filter|pledge)' "$T/p.log" || echo no filter and not a word about it)"
        else
            ask x.test >/dev/null
            adm status >/dev/null               # tells the time of the entry
            tool gone "$(pid p)" 5000 || fail "it goes on"
            wait "$(pid p)"
            same 159 $? "exit status: 128 and SIGSYS"
        fi
        kill_pid p
    else
        skip "not here: no way to break into this program"
    fi
    promise "a build without the filter says so, one with it has it"
    proxy p "$u1 1"
    if [ "$(uname)" = Linux ] && plain; then
        await 5 filter_known p || fail "neither: $(grep Seccomp "/proc/$(pid p)/status")"
    else
        skip "not here: not a plain program on Linux"
    fi
    stop p
}
filter_known() { grep -q '^Seccomp:	2$' "/proc/$(pid "$1")/status" || logged "$1" 'no filter of system calls'; }
wall_clock() { printf '%012d' "$1" | dd of="$T/shim" conv=notrunc 2>/dev/null; }

# Many clients at once, few descriptors
leg_crowds()
{
    up u1
    rules u1 'warm.test ttl=900'
    proxy p "$u1 1" 'tcp-clients 1000' 'timeout 2000'
    ask warm.test >/dev/null
    promise "1,000 idle TCP clients, 200 more in the middle of a message and 50 silent admin clients: UDP as without them"
    before=$(val p50_us "$(many n=2000 window=1 same name=warm.test)")
    hold hold1 "$port" 800
    hold hold2 "$port" 200 hex=00200007
    hold hold3 "$admin" 50
    out=$(many n=2000 window=1 same name=warm.test)
    like 'noerror 2000 ' "$out"
    within 0 $((before * 4 + 300)) "$(val p50_us "$out")" "median in us, without them $before"
    like '^NOERROR' "$(ask warm.test +tcp)" "a new TCP client"
    like '^dnsproxy ' "$(adm status)" "a new admin client"
    for h in hold1 hold2 hold3; do kill_pid $h; done
    if proc_here && [ -z "$WRAP" ]; then
        promise "with nothing in flight the process makes no system call: it sits in poll, which has no timeout"
        await 8 tcp_none || fail "clients: $(count tcp)"
        sleep 2             # until the last timer of the clients that left
        a=$(grep ctxt "/proc/$(pid p)/status")
        sleep 3
        same "$a" "$(grep ctxt "/proc/$(pid p)/status")" "context switches in 3 s"
        # number, and then descriptors, how many, timeout: -1 for poll, NULL for ppoll
        x=$(cut -d ' ' -f 1,4 "/proc/$(pid p)/syscall" 2>/dev/null)
        [ -z "$x" ] || like '^[0-9]+ 0x(f{8}|f{16}|0)$' "$x" "the system call that it waits in, and its timeout"
        if have strace && strace -V >/dev/null 2>&1 && strace -qq -o "$T/.true" true 2>/dev/null; then
            timeout 3 strace -qq -p "$(pid p)" -o "$T/strace" 2>/dev/null
            within 0 1 "$(grep -vc 'detached' "$T/strace")" "system calls in 3 s: $(cat "$T/strace")"
            unlike ' = -?[0-9]' "$(cat "$T/strace")" "system calls that ended"
        fi
    fi
    promise "a client that half-closes and stays costs no CPU"
    if proc_here; then
        talk bytes fin pause=2500 >/dev/null &
        n=$!
        ask delay=1500.half.test +tcp +timeout=3000 >/dev/null &
        m=$!
        talk q=delay=1500.half2.test send fin replies=1 >/dev/null &
        k=$!
        a=$(cpu_ms p)
        wait $n $m $k
        within 0 250 "$(($(cpu_ms p) - a))" "ms of CPU in 2.5 s"
    else
        skip "not here: no /proc"
    fi
    promise "500 clients that send a query, the beginning of another, and FIN leave nothing behind"
    if proc_here; then
        a=$(fd_count p)
        for i in 1 2 3 4 5; do
            hold hold "$port" 100 "hex=001b0007010000010000000000000463$(printf '%06x' $((3158064 + i)))04746573740000010001ffff00"
            kill_pid hold
            same 1 "$(asked u1 " c00$i\\.test\\. ")" "c00$i.test at the upstream"
        done
        await 8 fds_within p $((a + 4)) || fail "descriptors: $a before, $(fd_count p) now"
    else
        skip "not here: no /proc"
    fi
    promise "a client that never reads: 2,000 pipelined queries for 60,000 bytes each cost bounded memory, and others are served"
    a=0
    if proc_here; then a=$(rss_kb p); fi
    many n=1 tcp=1 name=big=60000.flood0.test type=TXT >/dev/null
    talk rcvbuf=4096 qs=2000:big=60000.flood%d.test/TXT send pause=4000 >"$T/noread.out" &
    n=$!
    out=$(many n=200 rate=100 window=10 name=others%d.test src=127.0.0.3)
    like 'noerror 200 ' "$out"
    within 0 500 "$(($(val p50_us "$out") / 1000))" "ms, the median of others"
    if proc_here && [ -z "$WRAP" ]; then within 0 9000 "$(($(rss_kb p) - a))" "kB more"; fi
    wait $n
    lives p "a client that never reads"
    stop p

    promise "10,000 cached questions in one write with a stack of 256 KB are all answered"
    # shellcheck disable=SC3045 # where -s is missing the promise is skipped
    if [ -n "$WRAP" ] || ! (ulimit -s 256) 2>/dev/null; then
        skip "not here: no small stack"
    else
        port=$(freeport) admin=$(freeport)
        # shellcheck disable=SC3045 # as above
        (ulimit -s 256 && exec "$BIN" "$u1 1" "listen 127.0.0.1@$port" "admin 127.0.0.1@$admin") >"$T/p.log" 2>&1 &
        ready p $!
        ask warm.test >/dev/null
        like '^replies 10000 noerror 10000 ' "$(talk qs=10000:warm.test send count=10000,15000)"
        promise "the same and gone without reading, twenty times: others are served"
        i=0
        while [ $((i += 1)) -le 20 ]; do talk qs=10000:warm.test send >/dev/null; done
        lives p "floods on TCP"
        stop p
    fi

    for limit in 32 64; do
        promise "with $limit descriptors, 200 idle TCP clients and 50 silent admin clients 100 of 100 UDP queries are answered, without a spin, and TCP works again when they left"
        # shellcheck disable=SC3045 # where -n is missing the promise is skipped
        if [ -n "$WRAP" ] || ! (ulimit -n $limit) 2>/dev/null; then
            skip "not here: no limit on descriptors"
            continue
        fi
        port=$(freeport) admin=$(freeport)
        # shellcheck disable=SC3045 # as above
        (ulimit -n $limit && exec "$BIN" "$u1 1" "listen 127.0.0.1@$port" "admin 127.0.0.1@$admin") >"$T/p.log" 2>&1 &
        ready p $!
        hold hold "$port" 200
        hold hold2 "$admin" 50
        out=$(many n=100 window=10 name=few$limit.n%d.test)
        like 'noerror 100 ' "$out"
        within 0 1000 "$(val slowest_ms "$out")" "slowest ms"
        if proc_here; then
            a=$(cpu_ms p)
            sleep 1.5
            within 0 200 "$(($(cpu_ms p) - a))" "ms of CPU in 1.5 s of idling"
        fi
        like '^dnsproxy ' "$(adm status)" "status beside them"
        kill_pid hold
        kill_pid hold2
        await 6 tcp_serves || fail "TCP does not come back"
        promise "and it is said once: $limit descriptors"
        same 1 "$(logs p 'descriptors')" "lines about descriptors in the log: $(grep descriptors "$T/p.log")"
        stop p
    done

    promise "a client that asks 5,000 unanswerable names a second does not cost another its 50"
    rules u1 'nobody.test silent' 'quiet.test delay=50'
    proxy p "$u1 1" 'queries 200' 'timeout 3000'
    many n=15000 rate=5000 window=60000 src=127.0.0.2 name=n%d.nobody.test timeout=200 >"$T/flood.out" &
    n=$!
    await 3 logged_q u1 nobody || fail "no flood"
    out=$(many n=125 rate=50 window=200 src=127.0.0.3 name=n%d.quiet.test timeout=3000)
    within 124 125 "$(val noerror "$out")" "of 125 answered ($out)"
    within 0 700 "$(val p99_us "$out" | awk '{ print int($1 / 1000) }')" "99th percentile, ms"
    wait $n
    like 'dup 0' "$(cat "$T/flood.out")"
    promise "the oldest query of the client that holds the most is answered SERVFAIL"
    within 10000 15000 "$(val servfail "$(cat "$T/flood.out")")" "SERVFAIL to the flooding one"
    stop p
    promise "answers that come all at once leave once each, and none for a query older than timeout"
    rules u1 '. delay=1200'
    proxy p "$u1 1" 'timeout 1000' 'queries 100'
    out=$(many n=600 rate=1000 window=60000 name=bomb%d.test timeout=2500)
    like ' dup 0 ' "$out"
    same 0 "$(val noerror "$out")" "answers later than timeout"
    within 0 1600 "$(val slowest_ms "$out")" "slowest ms"
    stop p
}
tcp_serves() { ask tcpback.test +tcp +timeout=500 | grep -q '^NOERROR'; }

# Limits on single clients
leg_limits()
{
    up u1
    rules u1 'warm.test ttl=900'
    port=$(freeport)
    proxy p "$u1 1" 'rate 20' "listen 127.0.0.1@$port" "listen ::1@$port"
    ask warm.test +tcp >/dev/null
    promise "rate: a client that asks ten times too much gets about what is due; of the rest half are dropped, half get an empty TC=1"
    out=$(many n=600 rate=200 window=1000 same name=warm.test src=127.0.0.2 timeout=500)
    full=$(($(val noerror "$out") - $(val tc "$out")))
    within 60 110 $full "full answers in 3 s at 20 a second and a burst of 20"
    within 200 290 "$(val tc "$out")" "empty ones with TC=1"
    within 300 390 "$(val answered "$out")" "answered at all ($out)"
    promise "rate: an empty one has the question only"
    out=$(many n=200 window=200 same name=warm.test src=127.0.0.2 timeout=500)
    within 50 100 "$(val tc "$out")" "empty ones with TC=1 ($out)"
    same 0 "$(val tcfull "$out")" "of them with records"
    same 0 "$(val wrong "$out")" "of them with another question"
    promise "rate: TCP still serves it, and other clients do not notice"
    like '^NOERROR qr rd ra ' "$(ask warm.test +src=127.0.0.2 +tcp)"
    like 'noerror 15 .* tc 0 ' "$(many n=15 window=15 same name=warm.test src=127.0.0.3)"
    promise "rate: status counts what was limited"
    within 600 760 "$(count limited)"
    promise "rate: IPv6 clients are counted too"
    out=$(tool many ::1 "$port" n=200 window=200 same name=warm.test timeout=500)
    within 15 45 "$(($(val noerror "$out") - $(val tc "$out")))" "full answers ($out)"
    promise "rate: it recovers"
    sleep 1.2               # a second's worth
    like 'noerror 15 .* tc 0 ' "$(many n=15 window=15 same name=warm.test src=127.0.0.2)"
    promise "rate: an IPv6 client is its /64, an IPv4 client its address"
    if netns; then
        for x in fd01::1 fd01::2 fd01:0:0:1::1; do ns ip addr add $x/128 dev lo nodad; done
        up u2
        proxy q "$u2 1" 'rate 20' "listen 127.0.0.1@$port" "listen ::1@$port"
        full=0
        for x in fd01::1 fd01::2 fd01:0:0:1::1; do
            tool many ::1 "$port" n=60 window=60 same name=warm.test src=$x timeout=300 >"$T/many.$x" &
            eval "job$full=\$!" && full=$((full + 1))
        done
        # shellcheck disable=SC2154 # set by the eval above
        wait "$job0" "$job1" "$job2"
        a=0
        for x in fd01::1 fd01::2; do a=$((a + $(val noerror "$(cat "$T/many.$x")") - $(val tc "$(cat "$T/many.$x")"))); done
        within 18 34 $a "full answers to two clients of one /64"
        x=$(cat "$T/many.fd01:0:0:1::1")
        within 18 34 $(($(val noerror "$x") - $(val tc "$x"))) "full answers to one of another /64"
        stop q
        NS=''
        kill_pid netns
        kill_pid u2
        use p
    else
        skip "not here: no network namespace allowed"
    fi
    stop p
    promise "rate 0 is no limit"
    proxy p "$u1 1"
    like 'noerror 2000 .* tc 0 ' "$(many n=2000 window=100 same name=warm.test)"
    stop p
    promise "queries: a full table degrades by rule, every client query is answered once"
    proxy p "$u1 1" 'queries 16' 'timeout 1000'
    out=$(many n=100 window=100 name=silent=.full%d.test timeout=3000)
    like 'sent 100 answered 100 .* servfail 100 .* dup 0 ' "$out"
    within 84 200 "$(metric full)" "times that a table made room, in the metrics"
    lives p "a full table"
    stop p
}

# ---- SIGHUP and reload

# conf LINE...: writes the configuration file of the proxy r
conf()
{
    printf '%s\n' "$@" "listen 127.0.0.1@$port" "admin 127.0.0.1@$admin" >"$T/.conf"
    chmod 644 "$T/.conf"
    mv "$T/.conf" "$T/r.conf"
}

leg_reload()
{
    up u1
    up u2
    port=$(freeport) admin=$(freeport)
    conf "$u1 1" 'timeout 2000'
    $WRAP "$BIN" -c "$T/r.conf" </dev/null >"$T/r.log" 2>&1 &
    ready r $!
    promise "SIGHUP reads the configuration again: upstreams"
    same 192.0.2.1 "$(addresses "$(ask before.test)")"
    many n=9 name=nine%d.test >/dev/null
    conf "$u1 2" "$u2 1" 'timeout 2000'
    kill -HUP "$(pid r)"
    await 3 reloaded "$u2" || fail "no sign of u2: $(adm status | grep ^upstream)"
    same 192.0.2.2 "$(addresses "$(ask after.test)")"
    promise "the cache survives"
    same 192.0.2.1 "$(addresses "$(ask before.test)")"
    promise "reload does the same and says Reloaded; statistics of unchanged lines are kept"
    a=$(upstream "$u2" answered)
    conf "$u2 1" 'timeout 2000'
    same Reloaded "$(adm reload)"
    same "$a" "$(upstream "$u2" answered)" "answered"
    same 0 "$(adm status | grep -c "^upstream $u1 ")" "the line that went"
    same 192.0.2.2 "$(addresses "$(ask gone.test)")"
    promise "queries in flight survive"
    many n=30 window=30 name=delay=600.fly%d.test >"$T/fly" &
    n=$!
    await 2 logged_q u2 fly29 || fail "not asked"
    conf "$u2 1" "$u1 2" 'timeout 2000'
    same Reloaded "$(adm reload)"
    wait $n
    like 'noerror 30 ' "$(cat "$T/fly")"
    promise "and those whose upstream went are answered by others"
    many n=10 window=10 name=2silent=.2=.1delay=800.went%d.test >"$T/fly" &
    n=$!
    await 2 logged_q u1 went9 || fail "not asked"
    conf "$u1 2" 'timeout 2000'
    same Reloaded "$(adm reload)"
    wait $n
    like 'noerror 10 ' "$(cat "$T/fly")"
    promise "a TCP connection survives"
    talk q=t1.test send replies=1 pause=700 q=t2.test send replies=1 >"$T/tcp" &
    n=$!
    await 2 logged_q u1 ' t1\.test' || fail "not asked"
    same Reloaded "$(adm reload)"
    wait $n
    same 2 "$(grep -c '^NOERROR' "$T/tcp")" replies
    promise "allow, rate, times and the log level change"
    conf "$u1 2" 'timeout 700' 'allow 127.0.0.1' 'rate 1000' 'log debug'
    same Reloaded "$(adm reload)"
    like '^REFUSED' "$(ask r.test +src=127.0.0.2)"
    out=$(ask silent=.r.test)
    within 500 1700 "$(ms_of "$out")" "ms until SERVFAIL"
    await 2 logged r 'silent=\.r\.test' || fail "log debug is not in force"
    promise "a bad file changes nothing; every error is logged, and sent back to reload"
    conf "$u2 1" nonsense 'timeout soon'
    out=$(adm reload)
    like 'r\.conf:2: ' "$out"
    like 'r\.conf:3: ' "$out"
    unlike Reloaded "$out"
    same 192.0.2.1 "$(addresses "$(ask still.test)")"
    await 2 logged r 'r\.conf:2: ' || fail "line 2 is not in the log"
    logged r 'r\.conf:3: ' || fail "line 3 is not in the log"
    rm "$T/r.conf"
    like '^error: |r\.conf' "$(adm reload)" "a file that is gone"
    same 192.0.2.1 "$(addresses "$(ask stillthere.test)")"
    promise "50 reloads in 5 s under 500 queries a second, the upstreams changing each time: 999 of 1,000 are answered at least"
    conf "$u1 1" 'timeout 2000'
    adm reload >/dev/null
    many n=2500 rate=500 window=2500 name=delay=15.load%d.test >"$T/load" &
    n=$!
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do
        conf "$u2 1" "$u1 2" 'timeout 2000'
        like '^Reloaded' "$(adm reload)"
        sleep 0.09
        if [ $((i % 2)) = 0 ]; then conf "$u1 1" 'timeout 2000'; else conf "$u2 3" 'timeout 2000'; fi
        like '^Reloaded' "$(adm reload)"
        sleep 0.09
    done
    wait $n
    like 'sent 2500 answered 2500 .* wrong 0 dup 0 ' "$(cat "$T/load")"
    within 2498 2500 "$(val noerror "$(cat "$T/load")")" "answered NOERROR"
    lives r "50 reloads"
    promise "500 reloads leave memory and descriptors as they were"
    conf "$u1 2" "$u2 3" 'timeout 700'
    adm reload >/dev/null
    if proc_here; then
        i=0
        while [ $i -lt 50 ]; do adm reload >/dev/null; i=$((i + 1)); done
        a=$(rss_kb r) b=$(fd_count r)
        while [ $i -lt 500 ]; do
            kill -HUP "$(pid r)"
            i=$((i + 1))
            [ $((i % 50)) != 0 ] || like '^Reloaded' "$(adm reload)"
        done
        ! plain || within -2000 300 "$(($(rss_kb r) - a))" "kB more"
        within -9 2 "$(($(fd_count r) - b))" "descriptors more"
        lives r "500 reloads"
    else
        skip "not here: no /proc"
    fi
    stop r
}
reloaded() { adm status | grep -q "^upstream $1 "; }

# ---- domain=

leg_domains()
{
    up u1
    up u2
    up u3
    up u4
    proxy p "$u1 1" "$u2 2 domain=corp.test domain=168.192.in-addr.arpa" "$u3 3 domain=Deep.Corp.TEST." "$u4 4 domain=corp.test" 'timeout 1500' 'patience 300'
    promise "domain: names at or below the suffix are asked of its upstreams alone"
    for n in corp.test a.corp.test A.b.CORP.test 1.1.168.192.in-addr.arpa; do like '^NOERROR' "$(ask $n)" "$n"; done
    same 192.0.2.2 "$(addresses "$(ask www.corp.test)")"
    same 0 "$(asked u1)" "seen by the general one: $(cat "$T/u1.q")"
    same 5 "$(asked u2)" "seen by its own"
    same 4 "$(asked u4)" "seen by the other with this suffix"
    promise "domain: the longest suffix wins"
    same 192.0.2.3 "$(addresses "$(ask x.deep.corp.test)")"
    same 192.0.2.3 "$(addresses "$(ask deep.corp.test)")"
    same 0 "$(asked u2 deep)" "seen by the shorter one"
    same 0 "$(asked u4 deep)" "seen by the shorter one that comes later"
    promise "domain: other names are asked of the others alone, and a suffix ends at a dot"
    forget u2
    for n in test www.test notcorp.test corp.test.example 1.169.192.in-addr.arpa; do same 192.0.2.1 "$(addresses "$(ask $n)")" $n; done
    same 0 "$(asked u2)" "seen by u2"
    promise "domain: nothing leaks when its upstreams fail"
    forget u1
    like '^NXDOMAIN' "$(ask nxdomain=.corp.test)"
    like '^SERVFAIL' "$(ask silent=.corp.test)"
    like '^SERVFAIL' "$(ask bad=loop.corp.test)"
    same 0 "$(asked u1)" "seen by the general one"
    stop p
    promise "domain: a name that no upstream applies to is answered at once, with an error"
    proxy p "$u2 2 domain=corp.test" 'timeout 1500'
    out=$(ask other.test +edns)
    like '^(SERVFAIL|REFUSED) ' "$out"
    within 0 1000 "$(ms_of "$out")" ms
    like '^NOERROR' "$(ask x.corp.test)"
    stop p
}

# ---- GET /metrics

# metric NAME: the value of a counter without labels
metric() { metrics | sed -n "s/^dnsproxy_$1_total //p"; }
metrics() { tool talk 127.0.0.1 "$admin" 'text=GET /metrics HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\n\r\n' slurp=5000; }

# numbers_agree: status and /metrics, read one after the other, say the same; $T/differ tells what differs
numbers_agree()
{
    metrics | tr -d '\r' | sed '1,/^$/d' >"$T/metrics"
    adm status >"$T/status"
    {
        for numbers_k in queries hits misses stale refused limited failed; do
            numbers_s=$(val $numbers_k "$(sed -n 1p "$T/status")") numbers_m=$(sed -n "s/^dnsproxy_${numbers_k}_total //p" "$T/metrics")
            [ "$numbers_s" = "$numbers_m" ] || echo "$numbers_k: $numbers_s in status, [$numbers_m] in metrics"
        done
        for numbers_k in entries bytes size inserted evicted; do
            numbers_s=$(val $numbers_k "$(grep '^cache ' "$T/status")") numbers_m=$(sed -n "s/^dnsproxy_cache_${numbers_k}[a-z_]* //p" "$T/metrics")
            [ "$numbers_s" = "$numbers_m" ] || echo "cache $numbers_k: $numbers_s in status, [$numbers_m] in metrics"
        done
        for numbers_u in "$u1" "$u2"; do
            for numbers_k in sent answered won failed connects; do
                numbers_s=$(val $numbers_k "$(grep "^upstream $numbers_u " "$T/status")")
                numbers_m=$(sed -n "s/^dnsproxy_upstream_${numbers_k}_total{upstream=\"$numbers_u\".*} //p" "$T/metrics")
                [ "${numbers_s:-0}" = "$numbers_m" ] || echo "$numbers_u $numbers_k: $numbers_s in status, [$numbers_m] in metrics"
            done
        done
    } >"$T/differ"
    [ ! -s "$T/differ" ]
}

leg_metrics()
{
    up u1
    up u2
    proxy p "$u1 1" "$u2 2 tcp"
    many n=40 window=4 name=m%d.test >/dev/null
    many n=40 window=4 name=m%d.test >/dev/null
    ask 1silent=.2silent=.t.test +timeout=300 >/dev/null
    promise "GET /metrics is an HTTP response with the type of the text format"
    metrics | tr -d '\r' >"$T/answer"
    like '^HTTP/1\.[01] 200 ' "$(sed -n 1p "$T/answer")"
    like '^[Cc]ontent-[Tt]ype: text/plain; version=0\.0\.4' "$(sed -n '1,/^$/p' "$T/answer")"
    sed '1,/^$/d' "$T/answer" >"$T/metrics"
    x=$(sed -n 's/^[Cc]ontent-[Ll]ength: //p' "$T/answer")
    [ -z "$x" ] || same "$x" "$(wc -c <"$T/metrics" | tr -d ' ')" "Content-Length"
    promise "every metric has HELP and TYPE, and a value that is a number"
    grep -v '^#' "$T/metrics" | sed 's/[{ ].*//; s/_\(bucket\|sum\|count\)$//' | sort -u >"$T/names"
    while read -r m; do
        grep -q "^# HELP $m\(_total\|_sum\|_count\)\{0,1\} ." "$T/metrics" || fail "$m has no HELP"
        grep -q "^# TYPE $m\(_total\|_sum\|_count\)\{0,1\} " "$T/metrics" || fail "$m has no TYPE"
    done <"$T/names"
    same 0 "$(grep -v '^#' "$T/metrics" | grep -Evc '^[a-z_]+(\{[^}]*\})? [0-9.e+-]+$')" "lines of another shape"
    promise "every counter of status is there, with its value: queries and their kinds, the cache's and each upstream's"
    await 5 numbers_agree || fail "$(cat "$T/differ")"
    same "1 1" "$(sed -n 's/^dnsproxy_upstream_up{.*} //p' "$T/metrics" | tr '\n' ' ' | sed 's/ $//')" "up"
    promise "a histogram counts what it should: clients' queries, an upstream's answers"
    same "$(val answered "$(grep "^upstream $u1 " "$T/status")")" "$(sed -n "s/^dnsproxy_upstream_seconds_count{upstream=\"$u1\".*} //p" "$T/metrics")" "of u1"
    within 80 81 "$(sed -n 's/^dnsproxy_query_seconds_count //p' "$T/metrics")" "of clients"
    promise "upstreams have labels, and histograms of their milliseconds, as clients have"
    like "\"$u1\"" "$(grep '{' "$T/metrics")"
    like "\"$u2\"" "$(grep '{' "$T/metrics")"
    within 2 9 "$(sed -n 's/^# TYPE \([^ ]*\) histogram$/\1/p' "$T/metrics" | wc -l)" histograms
    like 'le="\+Inf"' "$(cat "$T/metrics")"
    promise "promtool finds nothing wrong"
    if have promtool; then
        out=$(promtool check metrics <"$T/metrics" 2>&1)
        same 0 $? "exit status"
        same '' "$out" "what it says"
    else
        skip "not here: no promtool"
    fi
    stop p
}

# ---- A network that comes later

leg_network()
{
    promise "an upstream and a listen address that come later"
    if ! netns; then
        skip "not here: no network namespace allowed"
        return
    fi
    up u1
    port=$(freeport) admin=$(freeport)
    proxy p "10.77.0.2@5300 1" "fe80::5%later0 2" "$u1 3" "listen 127.0.0.1@$port" "listen 10.77.0.1@$port" 'patience 300' 'timeout 1500'
    promise "with no route to an upstream, and an interface that does not exist, the others answer without a wait"
    out=$(ask first.test)
    same 192.0.2.1 "$(addresses "$out")"
    for i in 1 2 3 4 5; do
        out=$(ask noroute$i.test)
        same 192.0.2.1 "$(addresses "$out")"
        within 0 280 "$(ms_of "$out")" ms
    done
    promise "the log does not repeat it"
    within 0 6 "$(logs p '10\.77\.0\.2|later0')" "lines: $(grep -E '10\.77\.0\.2|later0' "$T/p.log")"
    promise "an address to listen on that comes later is served within two seconds, with one log line or none before"
    within 0 2 "$(logs p "10\.77\.0\.1")" "lines"
    ns ip addr add 10.77.0.1/32 dev lo
    await 3 later_serves || fail "UDP: $(ask late.test +server=10.77.0.1 +timeout=300)"
    like '^NOERROR' "$(ask late.test +server=10.77.0.1 +tcp)" TCP
    promise "an upstream that comes later is used"
    ns ip addr add 10.77.0.2/32 dev lo
    up u2 -a 10.77.0.2 -p 5300
    n=0
    until [ "$(addresses "$(ask up$n.test)")" = 192.0.2.2 ] || [ $n = 40 ]; do
        n=$((n + 1))
        sleep 0.1
    done
    within 0 39 $n "tries"
    promise "an address that goes away and a network that goes down are no reason to exit"
    ns ip addr del 10.77.0.1/32 dev lo
    ns ip addr del 10.77.0.2/32 dev lo
    same 192.0.2.1 "$(addresses "$(ask away.test)")"
    ns ip link set lo down
    sleep 0.5
    kill -0 "$(pid p)" || fail "it has ended"
    ns ip link set lo up
    await 3 net_back || fail "no answer after the network came back"
    lives p "the network went and came"
    stop p
    promise "with no network at all a query is answered SERVFAIL, soon, and the program stays"
    proxy p '192.0.2.53 1' '2001:db8::53 2' 'timeout 1500'
    out=$(ask nonet.test +edns)
    like '^SERVFAIL .* ede=2[23]' "$out"
    within 0 1400 "$(ms_of "$out")" ms
    stop p
    NS=''
    kill_pid netns
}
later_serves() { ask late.test +server=10.77.0.1 +timeout=300 | grep -q '^NOERROR'; }
net_back() { ask back.test +timeout=400 | grep -q '^NOERROR'; }

# ---- sd_notify

leg_supervisor()
{
    up u1
    : >"$T/sd.log"
    "$T/tool" notify "$T/notify" >>"$T/sd.log" 2>&1 &
    started sd $!
    await 3 logged sd ready || fail "no socket"
    port=$(freeport) admin=$(freeport)
    conf "$u1 1"
    promise "READY=1 once the ports answer"
    NOTIFY_SOCKET=$T/notify WATCHDOG_USEC=1000000 $WRAP "$BIN" -c "$T/r.conf" </dev/null >"$T/r.log" 2>&1 &
    started r $!
    echo "$port" >"$T/r.port"
    echo "$admin" >"$T/r.admin"
    await 5 logged sd 'READY=1' || fail "not ready: $(cat "$T/sd.log" "$T/r.log")"
    like '^NOERROR' "$(ask ready.test)"
    promise "WATCHDOG=1 at half of WATCHDOG_USEC"
    sleep 2.2
    within 3 6 "$(logs sd 'WATCHDOG=1')" "in about 2 s, at 1 s"
    promise "RELOADING=1 and READY=1 around a reload"
    adm reload >/dev/null
    await 3 logged sd 'RELOADING=1' || fail "no RELOADING"
    await 3 ready_twice || fail "no READY after it"
    promise "RELOADING=1 carries MONOTONIC_USEC, which Type=notify-reload wants"
    like 'RELOADING=1.*MONOTONIC_USEC=[0-9]+' "$(cat "$T/sd.log")"
    promise "STOPPING=1 at the end"
    stop r
    await 3 logged sd 'STOPPING=1' || fail "no STOPPING"
    promise "a watchdog of two hours is one too; one that is meant for another process is not"
    : >"$T/sd.log"
    NOTIFY_SOCKET=$T/notify WATCHDOG_USEC=7200000000 $WRAP "$BIN" -c "$T/r.conf" </dev/null >"$T/r.log" 2>&1 &
    ready r $!
    await 3 logged sd 'WATCHDOG=1' || fail "no WATCHDOG: $(cat "$T/sd.log")"
    stop r
    : >"$T/sd.log"
    NOTIFY_SOCKET=$T/notify WATCHDOG_USEC=200000 WATCHDOG_PID=1 $WRAP "$BIN" -c "$T/r.conf" </dev/null >"$T/r.log" 2>&1 &
    ready r $!
    await 3 logged sd 'READY=1' || fail "not ready"
    ask other.test >/dev/null
    stop r
    same 0 "$(logs sd 'WATCHDOG=1')" "WATCHDOG=1 for another process"
    promise "a NOTIFY_SOCKET that is not there harms nothing"
    NOTIFY_SOCKET=$T/nosuch $WRAP "$BIN" -c "$T/r.conf" </dev/null >"$T/r.log" 2>&1 &
    ready r $!
    like '^NOERROR' "$(ask nosocket.test)"
    stop r
    kill_pid sd
}
ready_twice() { [ "$(logs sd '(^|[ ])READY=1')" -ge 2 ]; }

# ---- query and top

leg_seeing()
{
    up u1
    up u2
    dead=127.0.0.1@$(freeport)
    proxy p "$u1 1" "$u2 2 tcp" "$dead 3" 'patience 300' 'timeout 1000'
    promise "query asks every upstream that applies, past the cache: a line each, and who won"
    ask 1nxdomain=.q.test >/dev/null
    forget u1
    out=$(adm 'query 1nxdomain=.q.test A')
    like "^upstream $u1 udp priority 1 NXDOMAIN answers 0 ms [0-9.]+\$" "$out"
    like "^upstream $u2 tcp priority 2 NOERROR answers 1 ms [0-9.]+ won\$" "$out"
    like "^upstream $dead udp priority 3 no answer.*[a-z]" "$out"
    same 3 "$(printf '%s\n' "$out" | wc -l | tr -d ' ')" lines
    same 1 "$(printf '%s\n' "$out" | grep -c ' won$')" winners
    same 1 "$(asked u1)" "queries at u1"
    promise "query without a type asks for A"
    like "^upstream $u1 udp priority 1 NOERROR answers 2 ms [0-9.]+ won\$" "$(adm 'query n=2.q2.test')"
    promise "query says why an upstream has no answer"
    like "^upstream $u1 udp priority 1 no answer.*(time|silent|no reply)" "$(adm 'query 1silent=.q3.test AAAA')"
    like "^upstream $u1 udp priority 1 no answer.*malformed|^upstream $u1 udp priority 1 malformed" "$(adm 'query 1bad=loop.q4.test')"
    promise "query with a name or type that is none is an error"
    for q in 'query a..b' 'query a.test NOTYPE' 'query a.test A extra' "query $(printf '%0300d' 0)"; do like '^error: ' "$(adm "$q")" "$q"; done
    promise "top tells the most asked names and the clients that ask most"
    many n=300 window=20 same name=popular.test >/dev/null
    many n=100 window=20 same name=second.test src=127.0.0.7 >/dev/null
    many n=300 window=20 name=rare%d.test src=127.0.0.8 >/dev/null
    out=$(adm top)
    like 'popular\.test\.?.* 300|300.*popular\.test' "$out"
    like 'second\.test\.?.* 100|100.*second\.test' "$out"
    like '127\.0\.0\.8.* 300|300.*127\.0\.0\.8' "$out"
    like '127\.0\.0\.7.* 100|100.*127\.0\.0\.7' "$out"
    within 2 24 "$(printf '%s\n' "$out" | wc -l)" "lines, ten of each at most"
    promise "hostile names are escaped there"
    many n=500 window=20 same 'name=evil\010top\027.test' >/dev/null
    like 'evil\\010top\\027' "$(adm top)"
    same 0 "$(adm top | LC_ALL=C grep -c '[^ -~]')" "lines with other than printable ASCII"
    stop p
}


# ---- DNS over TLS ------------------------------------------------------

LEGS="$LEGS tls_transport tls_refused tls_pins tls_accepted tls_start tls_plaintext tls_clock tls_faults tls_life tls_idle"
LEGS="$LEGS tls_storm tls_resume tls_reload tls_hostile tls_status tls_flat tls_busy tls_real"

one='' two='' last=''           # ADDRESS@PORT of the scripted TLS servers

# crt NAME WORD...: a certificate, $T/pki/NAME.* (the words are below, at cert())
crt()
{
    crt_n=$1
    shift
    "$T/tls" cert "$T/pki/$crt_n" "$@" >/dev/null
}

# tls_cc OUT SOURCE [FLAG...]: compiles against BearSSL
tls_cc()
{
    tls_cc_o=$1 tls_cc_s=$2
    shift 2
    if [ -n "$BEARSSL" ]; then
        "$CC" -O2 -g -I"$BEARSSL/inc" "$@" -o "$tls_cc_o" "$tls_cc_s" "$BEARSSL/build/libbearssl.a"
    else
        "$CC" -O2 -g "$@" -o "$tls_cc_o" "$tls_cc_s" -lbearssl
    fi
}

# tls_ready: the tool, and the certificates that most legs use
tls_ready()
{
    [ ! -s "$T/pki/ca.pem" ] || return 0
    mkdir -p "$T/pki"
    tls_source
    tls_cc "$T/tls" "$T/tls.c" || { echo "test.sh: the TLS test tool does not compile" >&2; exit 1; }
    crt root cn='Test root' ca
    crt root384 key=p384 cn='Test root P-384' ca
    crt rootrsa key=rsa cn='Test root RSA' ca
    crt stranger cn='Strange root' ca
    crt int by="$T/pki/root" cn='Test intermediate' ca=0
    crt intrsa by="$T/pki/rootrsa" key=rsa cn='Test intermediate RSA' ca=0
    crt good by="$T/pki/int" cn=dns.test san=dns:dns.test eku=server
    crt other by="$T/pki/root" cn=other.test san=dns:other.test
    crt alone cn=dns.test san=dns:dns.test
    cat "$T/pki/root.crt" "$T/pki/root384.crt" "$T/pki/rootrsa.crt" >"$T/pki/ca.pem"
    ca="ca-file $T/pki/ca.pem"
}

# dot NAME CERT [WORD...] [: RULE...]: starts the scripted TLS server with that certificate (the words are at serve(), the
# rules at struct rules); the variable NAME becomes its ADDRESS@PORT. Its log of events is what `asked NAME ERE` counts.
dot()
{
    dot_n=$1 dot_c=$2 dot_a=127.0.0.1
    shift 2
    dot_w=''
    while [ $# -gt 0 ] && [ "$1" != : ]; do
        case $1 in addr=*) dot_a=${1#addr=} ;; esac
        dot_w="$dot_w $1"
        shift
    done
    [ $# = 0 ] || shift
    rules "$dot_n" "$@"
    : >"$T/$dot_n.up"
    : >"$T/$dot_n.q"
    rm -f "$T/$dot_n.at"
    # shellcheck disable=SC2086
    $NS "$T/tls" serve cert="$T/pki/$dot_c" log="$T/$dot_n.q" rules="$T/$dot_n.rules" port="$T/$dot_n.at" $dot_w </dev/null >"$T/$dot_n.log" 2>&1 &
    started "$dot_n" $!
    await 5 test -s "$T/$dot_n.at" || fail "the TLS server $dot_n does not start: $(cat "$T/$dot_n.log")"
    echo "$dot_a@$(cat "$T/$dot_n.at")" >"$T/$dot_n.at"
    eval "$dot_n=\$(at $dot_n)"
}

# at NAME: the ADDRESS@PORT of a TLS server
at() { cat "$T/$1.at"; }

# sees NAME ERE [N]: the TLS server NAME has logged at least N such events
sees() { [ "$(asked "$1" "$2")" -ge "${3:-1}" ]; }

# turn NAME [RULE...]: as rules, and waits until the server goes by them
turn()
{
    turn_k=$(asked "$1" '^rules')
    rules "$@"
    await 5 sees "$1" '^rules' $((turn_k + 1)) || fail "$1 does not take the rules $*"
}

# load COUNT [WORD...]: fresh names are asked of the proxy (the words are at load()); what became of them
# shellcheck disable=SC2086
load() { $NS "$T/tls" load "$port" "$@"; }

# loading COUNT [WORD...]: the same, meanwhile;  loaded SECONDS: what became of them, in $got
loading()
{
    rm -f "$T/px.load"
    # shellcheck disable=SC2086
    $NS "$T/tls" load "$port" "$@" >"$T/px.load" &
    started loader $!
}
loaded()
{
    await "$1" test -s "$T/px.load"
    got=$(cat "$T/px.load")
}

# answered NET COUNT [WORD...]: COUNT fresh names are asked, and all are answered rightly by the server with that net;
# the slowest took $worst ms
answered()
{
    answered_n=$1
    shift
    answered_r=$(load "$@")
    worst=$(val worst "$answered_r")
    like "right $1 wrong 0 failed 0 lost 0 .* from $answered_n:$1\$" "$answered_r" "$1 queries"
}

# ere TEXT: an expression that matches it;  clock_lines PROXY: how many lines say that the clock is wrong
ere() { printf %s "$1" | sed 's/[+.]/\\&/g'; }
clock_lines() { grep -v '^upstream' "$T/$1.log" | grep -Ec '[Cc]lock.*(wrong|1970)'; }

# said PROXY ADDRESS ERE: how many lines of its log are about the upstream and match
said() { grep -F -e "$2" "$T/$1.log" | grep -Ec -e "$3"; }

# field ADDRESS KEY: what status says about the upstream;  rss, fds NAME: memory in KiB and descriptors of a process
field() { val "$2" "$(adm status | grep -F "upstream $1 ")"; }
is() { [ "$(field "$1" "$2")" = "$3" ]; }
rss() { awk '$1 == "VmRSS:" && $2 > 100 { n = $2 } END { print n ? n : "unknown" }' "/proc/$(pid "$1")/status"; }
# grew MOST KIB NAME: its memory is at most MOST KiB above KIB
grew()
{
    grew_now=$(rss "$3")
    case $2$grew_now in
    *unknown*) fail "the memory of $3 cannot be read" ;;
    *) [ $((grew_now - $2)) -le "$1" ] || fail "memory grew from $2 to $grew_now KiB, wanted at most $1 more" ;;
    esac
}
fds() { ls "/proc/$(pid "$1")/fd" | wc -l; }

leg_tls_transport()
{
    tls_ready
    dot one good
    proxy px "$ca" "$one 1 tls=dns.test" 'patience 500'

    promise "a TLS connection is opened at the start, before any query"
    await 3 sees one '^up' || fail "no connection"
    same 0 "$(asked one '^query')" "queries"

    promise "queries over TLS are answered"
    answered 10 20

    promise "the ClientHello names the server and offers no ALPN"
    like '^hello 1 .* sni dns\.test alpn - ' "$(cat "$T/one.q")"

    promise "TLS 1.2 with forward-secret AEAD suites only is offered"
    like ' version 0303 suites ((cca8|cca9|c02b|c02c|c02f|c030|00ff),?)+ ' "$(grep '^hello 1 ' "$T/one.q")"

    promise "queries over TLS are padded to multiples of 128 bytes, with one padding option"
    forget one
    for len in 1 20 50 63; do
        answered 10 2 name="$(printf "%.${len}s" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa).%.pad.test"
        answered 10 2 name="%.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.$(printf "%.${len}s" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa).pad.test"
    done
    same 16 "$(asked one '^query')" "queries"
    same 0 "$(awk '$1 == "query" && $10 % 128' "$T/one.q" | wc -l)" "queries of another length"
    same 0 "$(awk '$1 == "query" && $14 !~ /^(11:0,)?12:[0-9]+(,11:0)?$/' "$T/one.q" | wc -l)" "queries with other options than padding and keepalive"

    promise "edns-tcp-keepalive is sent on each connection, without a timeout"
    turn one kick=1
    answered 10 1
    like '^query .* opts ([0-9:]+,)*11:0' "$(tail -n 1 "$T/one.q")"

    promise "500 queries one after another use one connection"
    answered 10 1
    forget one
    answered 10 500
    same 0 "$(asked one '^open')" "new connections"
    same 500 "$(asked one '^query')" "queries"

    promise "100 queries at once use one connection and a few records, answered in the reverse order in few records too"
    turn one batch=100 order=lifo
    forget one
    kill -STOP "$(pid px)"
    loading 100 window=100
    sleep 0.2                   # the burst is 100 sends; nothing tells when the last is in
    kill -CONT "$(pid px)"
    loaded 5
    like 'right 100 wrong 0 failed 0 lost 0' "$got"
    same 0 "$(asked one '^open')" "new connections"
    first=$(sed -n 's/^query .* record //p' "$T/one.q" | head -n 1)
    within 0 11 $(($(sed -n 's/^query .* record //p' "$T/one.q" | tail -n 1) - first)) "records"
    turn one

    promise "a slow answer does not hold up the others on the connection"
    loading 1 name=wait900-%.slow.test
    await 2 sees one '^query .* name wait900'
    answered 10 30
    within 0 700 "$worst" "slowest of the fast, ms"
    loaded 3
    like 'right 1 ' "$got"

    promise "padding, keepalive and other options of the upstream do not reach a client, those of a client not the upstream"
    turn one keepalive=300 pad=300
    forget one
    got=$(ask options.test A +edns=1232 +opt=12:00000000 +opt=8:00011800c00002 +opt=10:0011223344556677 +opt=11:)
    like "NOERROR .* edns=[0-9]+ .*$("$T/tls" addr 10 options.test)" "$got"
    unlike 'opts=' "$got"
    like '^query .* opts (11:0,)?12:[0-9]+(,11:0)? ' "$(grep '^query' "$T/one.q")"
    unlike 'edns' "$(ask plain.options.test A)"
    unlike 'opts=' "$(ask options.test A +edns=1232)" "from the cache"
    turn one

    promise "an answer of 60,000 bytes reaches a TCP client whole and a UDP client as TC"
    like 'NOERROR qr .* size=(59|60)[0-9]{3} ' "$(ask big60000-1.test TYPE65400 +tcp)"
    like 'NOERROR qr tc .* an=0 ' "$(ask big60000-2.test TYPE65400)"

    promise "DO and CD reach the upstream"
    ask docd.test A +do +cd >/dev/null
    like '^query .* name docd\.test\. .* rd 1 cd 1 do 1' "$(cat "$T/one.q")"

    promise "SIGTERM ends TLS connections with close_notify"
    stop px
    await 2 sees one '^end .*by client'
    like '^end .*by client why notify' "$(tail -n 1 "$T/one.q")"
    reap

    promise "a server with ChaCha20 only, or with AES-256 only, is spoken to; if that took a second try, it came at once, and once"
    for suites in cca8,cca9 c02c,c030; do
        dot one good suites=$suites
        proxy px "$ca" "$one 1 tls=dns.test" 'log debug'
        answered 10 1
        within 0 $((1000 * SLOW)) "$worst" "$suites, ms"
        k=$(asked one '^open')
        within 1 2 "$k" "$suites, connections"
        turn one kick=1
        answered 10 1
        same $((k + 1)) "$(asked one '^open')" "$suites, connections after another"
        stop px
        reap
    done

    promise "bare tls sends no SNI"
    crt ip by="$T/pki/int" san=ip:127.0.0.1
    dot one ip
    proxy px "$ca" "$one 1 tls"
    answered 10 1
    like '^hello 1 .* sni - ' "$(cat "$T/one.q")"
}

# strangers FILE: each line NAME;CERT;SERVER WORDS : RULES;UPSTREAM WORDS;ERE;WHAT of FILE is a server, all of them of better
# priority than the good one; 25 queries over 2.5 s are answered by that one, and of each stranger the promises are judged.
strangers()
{
    strangers_f=$1
    dot last good : net=11
    set -- "$ca" "$last 99 tls=dns.test" 'patience 3000'
    strangers_i=0
    while IFS=';' read -r name cert words upstream ere what; do
        strangers_i=$((strangers_i + 1))
        # shellcheck disable=SC2086
        dot "$name" "$cert" $words
        set -- "$@" "$(at "$name") $strangers_i $upstream"
    done <"$strangers_f"
    promise "with $strangers_i servers before it that fail, the next priority answers without waiting for patience"
    proxy px "$@"
    kill -0 "$(pid px)" || { fail "$(cat "$T/px.log")"; return; }
    answered 11 25 rate=10
    within 0 $((1500 * SLOW)) "$worst" "slowest, ms"
    while IFS=';' read -r name cert words upstream ere what; do
        promise "a server $what is refused: it gets no byte of a query, and one line says why"
        strangers_a=$(at "$name")
        await 3 sees "$name" '^open' 2 || fail "it was tried $(asked "$name" '^open') times, wanted 2 or more"
        same 0 "$(asked "$name" '^data|^query')" "queries inside TLS"
        same 0 "$(asked "$name" '^plain')" "plaintext"
        same 1 "$(said px "$strangers_a" "tls: .*($ere)")" "lines in the log like /$ere/, of [$(grep -F "$strangers_a" "$T/px.log" | head -n 4)]"
    done <"$strangers_f"
    promise "after failed handshakes the program serves as before"
    answered 11 20
    stop px
}

leg_tls_refused()
{
    tls_ready
    crt expired by="$T/pki/root" cn=dns.test san=dns:dns.test from=-1728000 to=-259200
    crt future by="$T/pki/root" cn=dns.test san=dns:dns.test from=432000
    crt strange by="$T/pki/stranger" cn=dns.test san=dns:dns.test withroot
    crt noint by="$T/pki/int" cn=dns.test san=dns:dns.test noint
    crt client by="$T/pki/root" cn=dns.test san=dns:dns.test eku=client
    crt noca by="$T/pki/root" cn='No authority' san=dns:mallory.test
    crt vialeaf by="$T/pki/noca" cn=dns.test san=dns:dns.test
    crt badsig by="$T/pki/root" cn=dns.test san=dns:dns.test badsig
    crt cnonly by="$T/pki/root" cn=dns.test
    crt nul by="$T/pki/root" cn=dns.test san=nul:dns.test
    crt wildtld by="$T/pki/root" cn=dns.test san='dns:*.test'
    crt wild by="$T/pki/root" cn=dns.test san='dns:*.dns.test'
    crt otherip by="$T/pki/root" cn=dns.test san=ip:127.0.0.99
    crt ipasdns by="$T/pki/root" cn=127.0.0.1 san=dns:127.0.0.1
    crt oldint by="$T/pki/root" cn='Old intermediate' ca from=-1728000 to=-259200
    crt viaold by="$T/pki/oldint" cn=dns.test san=dns:dns.test
    crt deepint by="$T/pki/int" cn='Too deep' ca
    crt deep by="$T/pki/deepint" cn=dns.test san=dns:dns.test
    crt critical by="$T/pki/root" cn=dns.test san=dns:dns.test critical
    cp "$T/pki/good.pem" "$T/pki/stolen.pem"
    cp "$T/pki/other.key" "$T/pki/stolen.key"
    cat >"$T/strangers" <<END
s_expired;expired;;tls=dns.test;expired;whose certificate has expired
s_future;future;;tls=dns.test;not yet valid.*$(date -u +%Y);whose certificate is not yet valid (the line tells the clock's time)
s_other;other;;tls=dns.test;dns\.test.*other\.test|other\.test.*dns\.test;with a certificate for another name (the line tells both)
s_alone;alone;;tls=dns.test;unknown CA|self-signed;with a self-signed certificate
s_strange;strange;;tls=dns.test;unknown CA;whose chain ends at an unknown CA, though it sends the root
s_noint;noint;;tls=dns.test;unknown CA|intermediate;that does not send its intermediate certificate
s_client;client;;tls=dns.test;extended key usage|serverAuth|server;whose certificate is for TLS clients only
s_vialeaf;vialeaf;;tls=dns.test;CA;whose issuer is no CA
s_badsig;badsig;;tls=dns.test;signature|unknown CA;whose certificate has a wrong signature
s_stolen;stolen;;tls=dns.test;key|signature;that does not own the certificate's key
s_cnonly;cnonly;;tls=dns.test;name;with a name in the CN alone
s_nul;nul;;tls=dns.test;name;with the right name before a NUL byte
s_wildtld;wildtld;;tls=dns.test;name;with a wildcard for a top-level domain
s_wild;wild;;tls=dns.test;name;with a wildcard for names below the wanted one
s_deepwild;wild;;tls=a.b.dns.test;name;with a wildcard for a name two labels below it
s_otherip;otherip;;tls;wanted 127\.0\.0\.1,.*127\.0\.0\.99;with a certificate for another address
s_noip;good;;tls;address|name;with a certificate without addresses, asked by address
s_ipasdns;ipasdns;;tls;address|name;with the address as a dNSName and a CN
s_viaold;viaold;;tls=dns.test;expired;whose intermediate certificate has expired
s_deep;deep;;tls=dns.test;path|CA|chain;whose chain is longer than a CA allows
s_critical;critical;;tls=dns.test;critical;with a critical extension that is unknown
END
    strangers "$T/strangers"
}

leg_tls_pins()
{
    tls_ready
    good=$(cat "$T/pki/good.pin") alone=$(cat "$T/pki/alone.pin") other=$(cat "$T/pki/other.pin")
    crt swollen by="$T/pki/root" cn=dns.test san=dns:dns.test
    for i in 1 2 3 4 5 6 7; do cat "$T/pki/swollen.crt" "$T/pki/swollen.crt" "$T/pki/swollen.crt" "$T/pki/swollen.crt" "$T/pki/swollen.crt"; done >>"$T/pki/swollen.pem"
    i=1 many=''
    while [ $i -le 2000 ]; do many="${many}dns:name$i.filler.test," i=$((i + 1)); done
    crt fat by="$T/pki/root" cn=dns.test san="${many}dns:dns.test"
    cat >"$T/strangers" <<END
p_wrong;alone;;tls pin=$good;pin.*$(ere "$alone");with another key than the pinned (the line tells its pin)
p_both;good;;tls=dns.test pin=$other;pin.*$(ere "$good");with the right name and another key than the pinned
p_name;other;;tls=dns.test pin=$other;dns\.test.*other\.test|other\.test.*dns\.test;with the pinned key and another name
p_chain;alone;;tls=dns.test pin=$alone;unknown CA|self-signed;with the pinned key and the name, but of an unknown CA
p_root;good;;tls pin=$(cat "$T/pki/root.pin");pin.*$(ere "$good");below a CA whose key is pinned (a pin is of the server's own key)
p_plain;good;: at=accept:plain;tls=dns.test;not TLS|speak TLS( at all)?$;that speaks another protocol
p_zeros;good;: at=hello:zeros;tls=dns.test;not TLS|speak TLS( at all)?$;that sends zeros
p_garbage;good;: at=hello:garbage;tls=dns.test;not TLS|speak TLS( at all)?$;that sends garbage
p_tls11;good;tls=11;tls=dns.test;TLS 1\.2|version|cipher;with TLS 1.1 only
p_tls13;good;: at=hello:alert70;tls=dns.test;TLS 1\.2|version;with TLS 1.3 only
p_suite;good;suites=c009,c00a,c023;tls=dns.test;cipher;with old cipher suites only
p_closes;good;: at=hello:fin;tls=dns.test;closed;that closes in the handshake
p_resets;good;: at=mid:rst cut=200;tls=dns.test;reset;that resets in the handshake
p_swollen;swollen;;tls=other.test;name|chain|certificate;with a chain of 36 certificates
p_fat;fat;;tls=dns.test;certificate|chain|long|large;with a certificate of 50 KB
END
    strangers "$T/strangers"
}

leg_tls_accepted()
{
    tls_ready
    crt upper by="$T/pki/root" cn=dns.test san=dns:DNS.Test
    crt wild by="$T/pki/root" cn=dns.test san='dns:*.dns.test'
    crt withroot by="$T/pki/int" cn=dns.test san=dns:dns.test
    cat "$T/pki/root.crt" >>"$T/pki/withroot.pem"
    crt int384 by="$T/pki/root384" key=p384 cn='Test intermediate P-384' ca
    crt p384 by="$T/pki/int384" key=p384 cn=dns.test san=dns:dns.test
    crt ec384 by="$T/pki/int384" cn=dns.test san=dns:dns.test
    crt rsa by="$T/pki/intrsa" key=rsa cn=dns.test san=dns:dns.test eku=server
    crt mixed by="$T/pki/intrsa" cn=dns.test san=dns:dns.test
    crt rsaec by="$T/pki/int" key="$T/pki/rsa.key" cn=dns.test san=dns:dns.test
    crt root4096 key=rsa4096 cn='Test root RSA 4096' ca
    crt long1 by="$T/pki/root4096" key="$T/pki/root4096.key" cn='Long 1' ca
    crt long2 by="$T/pki/long1" key=p384 cn='Long 2' ca=1
    crt long3 by="$T/pki/long2" cn='Long 3' ca=0
    crt long by="$T/pki/long3" key="$T/pki/rsa.key" cn=dns.test san=dns:dns.test
    crt both by="$T/pki/root" cn=dns.test san=dns:dns.test eku=both
    crt far by="$T/pki/root" cn=dns.test san=dns:dns.test from=-1000000000 to=2000000000
    crt names by="$T/pki/root" cn=dns.test san="$(i=0; while [ $i -lt 60 ]; do printf 'dns:n%d.test,' $i; i=$((i + 1)); done)dns:dns.test"
    crt ip by="$T/pki/int" san=ip:192.0.2.1,ip:127.0.0.1
    crt ip6 by="$T/pki/int" san=ip:::1
    crt oldalone cn=whatever from=-1728000 to=-259200
    cat "$T/pki/ca.pem" "$T/pki/root4096.crt" >"$T/pki/more.pem"
    cat >"$T/rows" <<END
a_good;good;;tls=dns.test;a P-256 chain with an intermediate
a_rsa;rsa;;tls=dns.test;an RSA chain with an intermediate
a_mixed;mixed;;tls=dns.test;a P-256 certificate below RSA
a_rsaec;rsaec;;tls=dns.test;an RSA certificate below P-256
a_p384;p384;;tls=dns.test;a P-384 chain
a_ec384;ec384;;tls=dns.test;a P-256 certificate below P-384
a_long;long;;tls=dns.test;a chain of four with RSA 4096, P-384, P-256 and RSA 2048
a_root;withroot;;tls=dns.test;a chain that ends with the root
a_upper;upper;;tls=dns.test;a name in other letter case
a_asked;good;;tls=DNS.test;a wanted name in other letter case
a_wild;wild;;tls=a.dns.test;a wildcard for one label
a_both;both;;tls=dns.test;an extended key usage for servers and clients
a_far;far;;tls=dns.test;dates before and after the range of UTCTime
a_names;names;;tls=dns.test;61 names
a_ip;ip;;tls;an IPv4 address, asked by address
a_pin;alone;;tls pin=$(cat "$T/pki/alone.pin");the pinned key, self-signed
a_oldpin;oldalone;;tls pin=$(cat "$T/pki/oldalone.pin");the pinned key, expired and for another name
a_pins;alone;;tls pin=$(cat "$T/pki/good.pin") pin=$(cat "$T/pki/alone.pin");the second of two pinned keys
a_namepin;good;;tls=dns.test pin=$(cat "$T/pki/good.pin");the pinned key and the name
a_noverify;alone;;tls=dns.test noverify;anything, with noverify
a_oldnoverify;oldalone;;tls noverify;an expired certificate, with noverify
END
    if [ -e /proc/net/if_inet6 ] && grep -q '^0*1 ' /proc/net/if_inet6; then
        echo 'a_ip6;ip6;addr=::1;tls;an IPv6 address, asked by address' >>"$T/rows"
    fi
    set -- "ca-file $T/pki/more.pem" 'patience 3000'
    prio=0
    while IFS=';' read -r name cert words upstream what; do
        prio=$((prio + 1))
        # shellcheck disable=SC2086
        dot "$name" "$cert" $words
        set -- "$@" "$(at "$name") $prio $upstream"
    done <"$T/rows"
    promise "a program with $prio TLS upstreams starts"
    proxy px "$@"
    kill -0 "$(pid px)" || { fail "$(cat "$T/px.log")"; return; }
    while IFS=';' read -r name cert words upstream what; do
        promise "a server with $what is accepted"
        await 4 sees "$name" '^up' || fail "no connection: $(grep -F "$(at "$name")" "$T/px.log")"
    done <"$T/rows"
    promise "$prio servers with good certificates all answer"
    answered 10 5
    for name in $(cut -d ';' -f 1 "$T/rows"); do
        sees "$name" '^query' 5 || fail "$name saw $(asked "$name" '^query') of 5 queries"
        same 1 "$(asked "$name" '^open')" "connections of $name"
    done
}

# refuses ERE LINE...: the program does not start with these lines, exits with 1 and says so
refuses()
{
    refuses_e=$1
    shift
    # shellcheck disable=SC2086
    timeout $((5 * SLOW)) $WRAP "$BIN" "$@" 'listen 127.0.0.1@'"$(freeport)" 'admin off' </dev/null >"$T/refused.log" 2>&1
    same 1 $? "exit status"
    like "$refuses_e" "$(cat "$T/refused.log")"
}

leg_tls_start()
{
    tls_ready
    pin=$(cat "$T/pki/alone.pin")
    dot one good

    promise "a ca-file that is not there is an error at the start when tls=NAME or bare tls needs it"
    refuses "$T/none\\.pem" "ca-file $T/none.pem" "$one 1 tls=dns.test"
    refuses "$T/none\\.pem" "ca-file $T/none.pem" "$one 1 tls"
    refuses "$T/none\\.pem" "ca-file $T/none.pem" "$one 1 tls=dns.test pin=$pin"

    promise "a ca-file without a certificate is an error at the start"
    : >"$T/empty.pem"
    refuses "$T/empty\\.pem" "ca-file $T/empty.pem" "$one 1 tls=dns.test"
    refuses "$T" "ca-file $T" "$one 1 tls=dns.test"

    promise "a pin that is not 32 bytes of base64 is an error"
    refuses 'pin' "$one 1 tls pin=$(printf %s "$pin" | cut -c 1-40)"
    refuses 'pin' "$one 1 tls pin=AAAA"
    refuses 'pin' "$one 1 tls pin=!$(printf %s "$pin" | cut -c 2-)"
    refuses 'pin' "$one 1 tls pin="

    promise "pins, noverify and tls= on an upstream without tls are errors"
    refuses . "$one 1 pin=$pin"
    refuses . "$one 1 tcp noverify"
    refuses . "$one 1 tls="

    promise "an address behind tls= is an error: bare tls is for those"
    refuses '127\.0\.0\.1' "$one 1 tls=127.0.0.1"

    promise "with a pin alone no ca-file is needed"
    dot two alone
    proxy px "ca-file $T/none.pem" "$two 1 tls pin=$pin"
    answered 10 3
    stop px

    promise "a ca-file with comments, junk between and no newline at its end is read whole"
    { echo '# a comment'; cat "$T/pki/stranger.crt"; echo junk; printf %s "$(cat "$T/pki/root.crt")"; } >"$T/pki/odd.pem"
    proxy px "ca-file $T/pki/odd.pem" "$one 1 tls=dns.test"
    answered 10 3
    stop px

    promise "noverify warns at each start"
    for i in 1 2; do
        proxy px "$two 1 tls noverify"
        answered 10 1
        within 1 9 "$(said px "$two" 'noverify|not authenticated|unauthenticated|without authentic')" "warnings"
        stop px
    done

    promise "of a large ca-file only an index stays in memory, and its last authority is found"
    if [ -s /etc/ssl/certs/ca-certificates.crt ] && [ -r /proc/self/status ]; then
        for i in 1 2 3 4; do cat /etc/ssl/certs/ca-certificates.crt; done >"$T/pki/large.pem"
        cat "$T/pki/ca.pem" >>"$T/pki/large.pem"
        proxy px "$ca" "$one 1 tls=dns.test"
        answered 10 3
        small=$(rss px)
        stop px
        proxy px "ca-file $T/pki/large.pem" "$one 1 tls=dns.test"
        answered 10 3
        grew 100 "$small" px
        stop px
    else
        skip "not here: /etc/ssl/certs/ca-certificates.crt or /proc"
    fi
}

# F12: what leaves for an upstream address when every handshake fails
leg_tls_plaintext()
{
    tls_ready
    promise "when every handshake fails no plaintext byte and no datagram leaves for any upstream, on its port, 53 or 853"
    if [ "$(id -u)" != 0 ] || [ "$(uname -s)" != Linux ]; then
        skip "not here: ports 53 and 853 on an address of its own need root and Linux"
        return
    fi
    plain_a=127.$(($$ / 200 % 200 + 1)).$(($$ % 200 + 1)).77      # other runs on this machine have another
    dot one other addr="$plain_a" on=853
    dot two other addr="$plain_a" on=53
    dot last alone addr="$plain_a"
    proxy px "$ca" "$plain_a 1 tls=dns.test" "$last 2 tls=dns.test" "$last 3 tls=other.test noverify" 'timeout 1500'
    stop px
    proxy px "$ca" "$plain_a 1 tls=dns.test" "$last 2 tls=dns.test" 'timeout 1500'
    got=$(load 20 rate=10)
    like 'right 0 wrong 0 failed 20 lost 0' "$got"
    same 0 "$(cat "$T/one.q" "$T/two.q" "$T/last.q" | grep -c '^plain')" "plaintext"
    same 0 "$(asked one '^data')" "queries inside TLS"
    same 0 "$(asked two '^open')" "connections to port 53"

    promise "when every handshake fails clients get SERVFAIL"
    same 20 "$(val failed "$got")" "failures"
}

leg_tls_clock()
{
    tls_ready
    promise "the clock of the program can be set by the test"
    clock_source
    "$CC" -O2 -shared -fPIC -o "$T/clock.so" "$T/clock.c" -ldl 2>"$T/clock.log" || skip "not here: shared libraries"
    "$T/tls" clock "$T/clock" 60
    case "$(LD_PRELOAD=/nonexistent "$BIN" -V 2>&1)" in
    *preload*) ;;
    *) skip "not here: the program is static, or the system has no LD_PRELOAD" ;;
    esac
    [ -z "$WRAP" ] || skip "not here: under $WRAP"
    [ -z "$skipwhy" ] || return
    within 60 120 "$(LD_PRELOAD="$T/clock.so" TEST_CLOCK="$T/clock" "$T/tls" now)" "the time"

    crt expired by="$T/pki/root" cn=dns.test san=dns:dns.test from=-1728000 to=-259200
    crt future by="$T/pki/root" cn=dns.test san=dns:dns.test from=432000
    crt strange by="$T/pki/stranger" cn=dns.test san=dns:dns.test withroot
    dot one good
    dot c_future future : net=12
    dot c_expired expired : net=13
    dot c_other other : net=14
    dot c_strange strange : net=15
    cat >"$T/clock.conf" <<END
$ca
$one 1 tls=dns.test
$(at c_future) 2 tls=dns.test
$(at c_expired) 3 tls=dns.test
$(at c_other) 4 tls=dns.test
$(at c_strange) 5 tls=dns.test
END
    WRAP="env LD_PRELOAD=$T/clock.so TEST_CLOCK=$T/clock ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0"
    proxy px -c "$T/clock.conf"
    WRAP=''

    promise "with the clock in 1970 a certificate that is valid at the floor is accepted"
    answered 10 5

    promise "with the clock in 1970 the log says once that the clock is wrong"
    same 1 "$(clock_lines px)" "lines"

    promise "with the clock in 1970 a certificate newer than the floor is judged at its own notBefore"
    await 3 sees c_future '^up' || fail "refused: $(grep -F "$(at c_future)" "$T/px.log")"

    promise "with the clock in 1970 a certificate that expired before the floor, another name and an unknown CA are refused"
    await 3 sees c_expired '^end'
    same 0 "$(asked c_expired '^(up|data)')" "expired"
    same 0 "$(asked c_other '^(up|data)')" "another name"
    same 0 "$(asked c_strange '^(up|data)')" "unknown CA"
    like 'expired' "$(grep -F "$(at c_expired)" "$T/px.log")"
    same 1 "$(clock_lines px)" "lines about the clock"

    promise "when the clock has been set it counts, without a restart"
    "$T/tls" clock "$T/clock" real
    answered 10 1
    k=$(asked c_future '^open')
    turn c_future net=12 kick=1 epoch=1         # without its session
    answered 10 15 rate=10
    await 3 sees c_future '^open' $((k + 1)) || fail "not tried again"
    same 1 "$(asked c_future '^up')" "connections to the server that is not yet valid"
    like 'not yet valid' "$(grep -F "$(at c_future)" "$T/px.log")"
    answered 10 5

    promise "a session that was made while the clock was wrong is not resumed when the certificate's dates do not hold"
    "$T/tls" clock "$T/clock" 60
    reap
    dot one good
    dot c_future future : net=12
    WRAP="env LD_PRELOAD=$T/clock.so TEST_CLOCK=$T/clock ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0"
    proxy px "$ca" "$one 1 tls=dns.test" "$(at c_future) 2 tls=dns.test"
    WRAP=''
    await 3 sees c_future '^up'
    answered 10 2
    "$T/tls" clock "$T/clock" real
    forget c_future
    turn c_future net=12 kick=1
    answered 10 15 rate=10
    await 3 sees c_future '^open' || fail "not tried again"
    same 0 "$(asked c_future '^(up|data)')" "connections"

    promise "a certificate that expires is refused at the next connection, also when its session could be resumed"
    reap
    crt brief by="$T/pki/root" cn=dns.test san=dns:dns.test to=8
    dot one brief
    dot last good : net=11
    proxy px "$ca" "$one 1 tls=dns.test" "$last 2 tls=dns.test"
    answered 10 2
    turn one kick=1
    await 2 sees one '^up .* resumed' 2 || fail "no second connection"
    await 12 eval '[ "$(date +%s)" -gt $(($(date -r "$T/pki/brief.crt" +%s) + 9)) ]'
    forget one
    turn one kick=2
    answered 11 5
    same 0 "$(asked one '^(up|data)')" "connections after the expiry"
    like 'expired' "$(grep -F "$one" "$T/px.log")"
}

leg_tls_faults()
{
    tls_ready
    # in a group, so that all fail side by side
    promise "a stall at any stage of the handshake costs patience, not more: the next priority answers"
    dot f_accept good : at=accept:stall
    dot f_deaf good : at=accept:deaf
    dot f_hello good : at=hello:stall
    dot f_mid good : at=mid:stall cut=700
    dot f_up good : at=up:deaf
    dot f_mute good : mute
    dot last good : net=11
    proxy px "$ca" 'patience 500' "$(at f_accept) 1 tls=dns.test" "$(at f_deaf) 2 tls=dns.test" "$(at f_hello) 3 tls=dns.test" "$(at f_mid) 4 tls=dns.test" \
        "$(at f_up) 5 tls=dns.test" "$(at f_mute) 6 tls=dns.test" "$last 7 tls=dns.test"
    answered 11 5 window=5
    within 0 $((500 + 400 * SLOW)) "$worst" "slowest, ms"

    promise "after three unanswered queries nobody waits for an upstream that stalls"
    answered 11 10
    answered 11 5
    within 0 $((300 * SLOW)) "$worst" "slowest, ms"
    for name in f_accept f_hello f_mid f_up f_mute; do
        is "$(at "$name")" state down || fail "$name is not down"
    done

    promise "a handshake is given up after 4 s, and the log says so"
    for name in f_accept f_hello f_mid; do
        await 5 sees "$name" '^end .*by client' || fail "$name: still open"
        within 3000 $((5000 * SLOW)) "$(awk '$1 == "open" && $2 == 1 { a = $4 } $1 == "end" && $2 == 1 { print $4 - a }' "$T/$name.q")" "$name, ms"
    done
    like 'handshake|4 s|timed? ?out' "$(grep -F "$(at f_hello)" "$T/px.log")"
    stop px
    reap

    promise "a failure after the handshake lets the next priority answer at once"
    dot f_garbage good : at=up:garbage
    dot f_zeros good : at=up:zeros
    dot f_fin good : at=up:fin
    dot f_rst good : at=up:rst
    dot f_plain good : at=up:plain
    dot f_alert good : at=up:alert80
    dot f_drop good : drop=1
    dot f_droprst good : drop=1 how=rst
    dot f_half good : half
    dot f_closed good
    kill_pid f_closed
    dot last good : net=11
    proxy px "$ca" 'patience 3000' "$(at f_garbage) 1 tls=dns.test" "$(at f_zeros) 2 tls=dns.test" "$(at f_fin) 3 tls=dns.test" "$(at f_rst) 4 tls=dns.test" \
        "$(at f_plain) 5 tls=dns.test" "$(at f_alert) 6 tls=dns.test" "$(at f_drop) 7 tls=dns.test" "$(at f_droprst) 8 tls=dns.test" "$(at f_half) 9 tls=dns.test" \
        "$(at f_closed) 10 tls=dns.test" "$last 11 tls=dns.test"
    answered 11 20
    within 0 $((1500 * SLOW)) "$worst" "slowest, ms"

    promise "half a message before the end of a connection is not used"
    unlike ' answered [1-9]' "$(adm status | grep -F "upstream $(at f_half) ")"

    promise "after all these faults the program serves as before"
    answered 11 50
    stop px
    reap

    promise "a server that sends a byte now and then delays nobody by more than patience, and is left within timeout"
    dot one good : trickle=300
    dot last good : net=11
    proxy px "$ca" "$one 1 tls=dns.test" "$last 2 tls=dns.test" 'patience 400' 'timeout 2000'
    answered 11 5
    within 0 $((400 + 400 * SLOW)) "$worst" "slowest, ms"
    await 4 sees one '^end .*by client' || fail "still connected"
    turn one
    stop px
    reap

    promise "a server that does not know EDNS is asked again without it"
    dot one good : formerr
    proxy px "$ca" "$one 1 tls=dns.test"
    answered 10 20
    same 1 "$(asked one '^open')" "connections"
    stop px
    reap

    promise "3,000 answers with damaged bytes, lengths too, leave the program serving, as small as before"
    dot one good : mutate=2
    dot last good : net=11
    proxy px "$ca" "$one 1 tls=dns.test" "$last 2 tls=dns.test" 'patience 100' 'timeout 1000' 'cache-size 0'
    got=$(load 500 window=50)
    m=$(rss px 2>/dev/null)
    got=$(load 2500 window=50)
    like ' lost 0 ' "$got"
    [ ! -r /proc/self/status ] || grew 1024 "$m" px
    turn one
    await 6 healed || fail "the server is not used when it sends whole answers again"
    answered 10 100
    stop px
    reap

    promise "a server that heals is used again within a few seconds, without a restart"
    dot one good : at=hello:alert80
    dot last good : net=11
    proxy px "$ca" "$one 1 tls=dns.test" "$last 2 tls=dns.test"
    answered 11 3
    turn one
    await 4 healed || fail "still not asked"
    is "$one" state up || fail "status does not say up"

    promise "failures back off when nobody asks: at most 4 tries in 5 s"
    turn one at=hello:alert80 kick=1
    forget one
    sleep 5
    within 1 4 "$(asked one '^open')" "tries"
}
healed() { case "$(load 1)" in *'from 10:1') ;; *) return 1 ;; esac; }

leg_tls_life()
{
    tls_ready
    dot one good
    proxy px "$ca" "$one 1 tls=dns.test"
    answered 10 1
    k=0
    for how in notify fin rst half; do
        promise "queries in flight when the connection ends ($how) are asked again on a new one and answered"
        forget one
        k=$((k + 1))
        turn one drop=10 batch=10 times=1 how=$how
        answered 10 10 window=10
        within 0 $((1500 * SLOW)) "$worst" "slowest, ms"
        same 1 "$(asked one '^open')" "new connections"
    done
    for how in notify fin rst; do
        promise "a server that closes after each answer ($how) answers 50 queries of 50"
        turn one after=1 how=$how
        answered 10 50
        within 0 1000 "$worst" "slowest, ms"
    done

    promise "a server that closes after every 10 answers answers 100 queries at once"
    turn one after=10
    answered 10 100 window=100
    turn one

    promise "a query that ends every connection is asked again once, not for ever"
    answered 10 1
    forget one
    like 'failed 1 ' "$(load 1 name=drop-%.test timeout=3000)"
    within 1 2 "$(asked one '^query .* name drop')" "times asked"
    answered 10 10

    promise "a server that closes each connection after 1 s answers 99 % at 200 queries a second"
    turn one life=1000
    got=$(load 1000 rate=200)
    within 990 1000 "$(val right "$got")" "right answers of [$got]"
    turn one
    answered 10 5

    promise "a connection that went silent is replaced: nobody waits more than 2 s, and no restart is needed"
    turn one muted=100000
    k=$(sed -n 's/^open \([0-9]*\) .*/\1/p' "$T/one.q" | tail -n 1)
    turn one muted="$k"
    forget one
    answered 10 5 window=5 timeout=4500
    within 500 $((2000 * SLOW)) "$worst" "slowest, ms"
    same 1 "$(asked one '^open')" "new connections"
    await 2 sees one "^end $k .*by client" || fail "the silent connection is still open"
    answered 10 20
    within 0 $((300 * SLOW)) "$worst" "slowest afterwards, ms"

    promise "a slow answer on a connection that is alive costs no new connection"
    forget one
    loading 1 name=wait1800-%.test
    answered 10 40 rate=20
    loaded 3
    like 'right 1 ' "$got"
    same 0 "$(asked one '^open')" "new connections"

    promise "a large answer that takes 2 s to come over a slow line costs no new connection"
    turn one trickle=100 record=3000
    forget one
    like 'NOERROR qr .* size=(59|60)[0-9]{3} ' "$(ask big60000-slow.test TYPE65400 +tcp +timeout=5000)"
    same 0 "$(asked one '^open')" "new connections"
    turn one

    promise "edns-tcp-keepalive of the server is obeyed: we close when its timeout has passed"
    turn one keepalive=5
    answered 10 1
    forget one
    answered 10 1
    await 3 sees one '^end .*by client' || fail "still open"
    within 200 1500 "$(awk '$1 == "query" { q = $4 } $1 == "end" { print $4 - q; exit }' "$T/one.q")" "ms from the last query to the end"
    answered 10 5

    promise "a keepalive of 0 ends the connection when nothing is in flight, and no query is lost"
    turn one keepalive=0
    answered 10 1
    await 2 sees one '^end .*by client' 2 || fail "still open"
    answered 10 30
    turn one
}

leg_tls_idle()
{
    tls_ready
    for how in notify fin rst half; do
        promise "after an idle close ($how) the connection is reopened at once, and the next query finds it open"
        dot one good : idle=300 how=$how
        proxy px "$ca" "$one 1 tls=dns.test"
        answered 10 1
        for i in 2 3 4; do
            await 3 sees one '^up' $i || fail "not reopened"
            answered 10 1
            within 0 $((500 * SLOW)) "$worst" "ms"
        done
        # every query but the first came at least 1 ms after its connection was up
        same 0 "$(awk '$1 == "up" { up[$2] = $4 } $1 == "query" && n++ && $4 - up[$2] < 1' "$T/one.q" | wc -l)" "queries that waited for a handshake"
        stop px
        reap
    done

    promise "a server that closes idle connections costs no query a handshake while queries come now and then"
    dot one good : idle=1200
    proxy px "$ca" "$one 1 tls=dns.test"
    answered 10 1
    for i in 1 2 3 4; do
        sleep 1.7
        answered 10 1
    done
    same 4 "$(asked one '^end .*by server')" "idle closes"
    same 0 "$(awk '$1 == "up" { up[$2] = $4 } $1 == "query" && n++ && $4 - up[$2] < 1' "$T/one.q" | wc -l)" "queries that waited for a handshake"
    unlike 'warning|error|failed' "$(grep -F "$one" "$T/px.log")" "an idle close is no failure"
    same 0 "$(field "$one" failed)" "failures"
    stop px
    reap

    promise "a server that closes idle connections after 2 s costs no query a handshake while queries come every 3 s"
    dot one good : idle=2000
    proxy px "$ca" "$one 1 tls=dns.test"
    answered 10 1
    for i in 1 2 3; do
        sleep 3
        answered 10 1
    done
    same 3 "$(asked one '^end .*by server')" "idle closes"
    same 0 "$(awk '$1 == "up" { up[$2] = $4 } $1 == "query" && n++ && $4 - up[$2] < 1' "$T/one.q" | wc -l)" "queries that waited for a handshake"
    stop px
    reap

    promise "a server that closes after 200 ms gets no more than a connection a second when nobody asks"
    dot one good : idle=200
    proxy px "$ca" "$one 1 tls=dns.test"
    answered 10 1
    forget one
    sleep 4
    within 2 5 "$(asked one '^open')" "connections in 4 s"
    within 1 2 "$(crowded one)" "connections in the worst second"
    stop px
    reap

    promise "a server that closes after 100 ms without a query answers all queries, none later than 1 s"
    dot one good : idle=100
    proxy px "$ca" "$one 1 tls=dns.test"
    answered 10 30 rate=6
    within 0 1000 "$worst" "slowest, ms"
    stop px
    reap

    promise "a connection that was not used is not reopened when the server closes it, but at the next query"
    dot one good : idle=200
    proxy px "$ca" "$one 1 tls=dns.test"
    await 3 sees one '^end'
    k=$(asked one '^open')
    sleep 1
    same "$k" "$(asked one '^open')" "connections"
    answered 10 1
    within 0 $((1000 * SLOW)) "$worst" "ms"
    stop px
    reap

    promise "50 queries at once without a connection make one, and are answered"
    dot one good : idle=200
    proxy px "$ca" "$one 1 tls=dns.test"
    await 3 sees one '^end'
    forget one
    turn one
    answered 10 50 window=50
    same 1 "$(asked one '^open')" "connections"
    stop px
}

# crowded NAME: the most connections that came within one second
crowded()
{
    awk '$1 == "open" { t[n++] = $4 } END { for (i = j = 0; i < n; i++) { while (t[i] - t[j] >= 1000) j++; if (i - j + 1 > max) max = i - j + 1 } print max + 0 }' "$T/$1.q"
}

leg_tls_storm()
{
    tls_ready
    for fault in at=accept:fin at=accept:rst at=hello:fin at=up:fin 'drop=1'; do
        promise "under 500 queries a second a server that ends connections ($fault) sees at most 10 a second, and the others answer"
        dot one good : "$fault"
        dot last good : net=11
        proxy px "$ca" "$one 1 tls=dns.test" "$last 2 tls=dns.test"
        answered 11 1000 rate=500
        within 0 $((1500 * SLOW)) "$worst" "slowest, ms"
        within 1 10 "$(crowded one)" "connections in the worst second"
        stop px
        reap
    done

    promise "while handshakes fail, queries may try once a second, and the others answer at once"
    dot one good : at=hello:alert80
    dot two other
    dot f_40 good : at=hello:alert40
    dot last good : net=11
    proxy px "$ca" "$one 1 tls=dns.test" "$two 2 tls=dns.test" "$(at f_40) 3 tls=dns.test" "$last 4 tls=dns.test" 'patience 3000'
    await 3 sees one '^strike'
    answered 11 300 rate=100
    within 0 $((1500 * SLOW)) "$worst" "slowest, ms"
    within 2 5 "$(asked one '^open')" "tries in 3 s"
    within 1 2 "$(crowded one)" "tries in the worst second"
    within 1 2 "$(crowded two)" "tries in the worst second, wrong name"
    within 1 3 "$(crowded f_40)" "tries in the worst second, no common cipher"
    stop px
}

leg_tls_resume()
{
    tls_ready
    dot one good
    proxy px "$ca" "$one 1 tls=dns.test"

    promise "sessions are resumed where the server offers it, and status counts them"
    answered 10 1
    for i in 1 2 3 4 5; do
        turn one kick=$i
        await 3 sees one '^up' $((i + 1)) || fail "not reopened"
        answered 10 1
    done
    within 4 5 "$(asked one '^up .* resumed 1')" "resumed"
    same "$(asked one '^up .* resumed 1')" "$(field "$one" resumed)" "resumed in status"
    same "$(asked one '^up')" "$(field "$one" connects)" "connects in status"

    promise "a server that has forgotten its sessions gets a full handshake"
    forget one
    turn one kick=6 epoch=1
    answered 10 5
    await 3 sees one '^up' || fail "no new connection"
    same 0 "$(asked one '^up .* resumed 1')" "resumed"

    promise "a server without sessions works"
    turn one kick=7 epoch=1 cache=off
    answered 10 2
    forget one
    turn one kick=8 epoch=1 cache=off
    answered 10 5
    await 3 sees one '^up' || fail "no new connection"
    same 0 "$(asked one '^up .* resumed 1')" "resumed"
    stop px
    reap

    promise "after a failed handshake no session is offered: a server without a valid certificate cannot resume its way in"
    dot one alone : cache=zero
    dot last good : net=11
    proxy px "$ca" "$one 1 tls=dns.test" "$last 2 tls=dns.test"
    answered 11 30 rate=10
    sees one '^hello' 2 || fail "tried $(asked one '^hello') times, wanted 2 or more"
    same 0 "$(asked one '^hello .* sid [1-9]')" "sessions offered"
    same 0 "$(asked one '^(up|data)')" "connections"
    stop px

    promise "a stranger in the place of a known server is offered its session, cannot resume it, and gets nothing"
    reap
    dot one good
    dot last good : net=11
    proxy px "$ca" "$one 1 tls=dns.test" "$last 2 tls=dns.test"
    answered 10 2
    p=${one#*@}
    kill_pid one
    answered 11 3
    dot two alone on="$p" : cache=zero
    answered 11 30 rate=10
    sees two '^hello' 2 || fail "tried $(asked two '^hello') times, wanted 2 or more"
    same 0 "$(asked two '^(up|data)')" "connections"
    kill_pid two
    dot one good on="$p"
    await 4 healed || fail "the right server is not used again"
    stop px
    reap

    promise "a session belongs to an upstream and its rule: another name at the same address is not resumed, and gets no query"
    dot one good
    dot last good : net=11
    proxy px "$ca" "$one 1 tls=other.test" "$one 2 tls=dns.test" "$last 3 tls=dns.test"
    await 3 sees one '^up' || fail "no connection"
    await 3 sees one '^hello .* sni other\.test' || fail "the other name was not tried"
    for i in 1 2 3; do
        turn one kick=$i
        answered 10 2
    done
    sees one '^up .* resumed 1' 2 || fail "the right name did not resume"
    same 0 "$(asked one '^hello .* sni other\.test .* sid [1-9]')" "sessions offered by the other name"
    for id in $(sed -n 's/^hello \([0-9]*\) .* sni other\.test .*/\1/p' "$T/one.q"); do
        same 0 "$(asked one "^(up|data|query) $id ")" "connection $id"
    done
    stop px
    reap

    promise "a session does not outlive the rule that it was made under: after a reload with another pin nothing is resumed"
    dot one good
    dot last good : net=11
    printf '%s\n' "$ca" "$one 1 tls=dns.test" "$last 2 tls=dns.test" >"$T/px.conf"
    proxy px -c "$T/px.conf"
    answered 10 2
    printf '%s\n' "$ca" "$one 1 tls=dns.test pin=$(cat "$T/pki/other.pin")" "$last 2 tls=dns.test" >"$T/px.conf"
    forget one
    like Reloaded "$(adm reload)"
    answered 11 10
    await 2 sees one '^hello' || fail "not tried"
    same 0 "$(asked one '^(up|data|query)')" "connections under the new rule"
    same 0 "$(asked one '^hello .* sid [1-9]')" "sessions offered"
    stop px
}

leg_tls_reload()
{
    tls_ready
    dot one good
    dot two good : net=11
    printf '%s\n' "$ca" "$one 1 tls=dns.test" >"$T/px.conf"
    proxy px -c "$T/px.conf"
    answered 10 2

    promise "a reload that leaves an upstream's line as it is leaves its connection too, under load"
    loading 500 rate=250
    for i in 1 2 3 4 5 6 7 8 9 10; do like Reloaded "$(adm reload)"; done
    loaded 6
    like 'right 500 wrong 0 failed 0 lost 0' "$got"
    same 1 "$(asked one '^open')" "connections"

    promise "a reload opens the connection of a new line at once, and ends that of a line that is gone with close_notify"
    printf '%s\n' "$ca" "$two 1 tls=dns.test" >"$T/px.conf"
    like Reloaded "$(adm reload)"
    await 3 sees two '^up' || fail "no connection"
    same 0 "$(asked two '^query')" "queries before"
    await 2 sees one '^end .*by client why notify' || fail "the old connection: $(tail -n 1 "$T/one.q")"
    answered 11 5

    promise "a reload takes the ca-file anew: a server of a CA that is gone from it is refused, one of a new CA accepted"
    cat "$T/pki/stranger.crt" >"$T/px.pem"
    crt strange by="$T/pki/stranger" cn=dns.test san=dns:dns.test
    dot new strange : net=12
    printf '%s\n' "ca-file $T/px.pem" "$(at one) 1 tls=DNS.test" "$(at new) 2 tls=dns.test" >"$T/px.conf"
    forget one
    like Reloaded "$(adm reload)"
    answered 12 10
    same 0 "$(asked one '^(up|data|query)')" "connections to the server of the CA that is gone"
    like 'unknown CA' "$(grep -F "$one" "$T/px.log")"

    promise "a reload with a ca-file that cannot be read changes nothing"
    printf '%s\n' "ca-file $T/none.pem" "$(at one) 1 tls=dns.test" >"$T/px.conf"
    like 'error|none\.pem' "$(adm reload)"
    answered 12 10
    stop px
}

leg_tls_hostile()
{
    tls_ready
    dot one good
    proxy px "$ca" "$one 1 tls=dns.test"
    answered 10 1

    promise "answers with a wrong ID, name or type, or with QR=0, before the right one are ignored"
    turn one wrong
    answered 10 100 window=20

    promise "records of one byte are put together"
    turn one record=1
    answered 10 50 window=10

    promise "segments of one byte are put together, in the handshake too"
    turn one wire=1 kick=1
    answered 10 20 window=5

    promise "answers split over five records are put together"
    turn one record=14
    answered 10 50 window=10

    promise "many answers in one record are taken apart"
    turn one batch=50 order=lifo
    answered 10 50 window=50

    promise "records of 16 KB are read"
    turn one batch=4
    answered 10 8 window=4
    turn one
    like 'size=6[45][0-9]{3} ' "$(ask big65500-1.test TYPE65400 +tcp)"

    promise "the connection was kept through all this"
    answered 10 100
    same 2 "$(asked one '^open')" "connections, one of them ended by the test"
    same 0 "$(asked one '^end .*by client')" "connections that the program ended"

    promise "a server's wish to renegotiate is refused, and no query is lost"
    turn one reneg
    answered 10 50
    sees one '^reneg' || fail "it was not asked"
    turn one
    answered 10 5
    stop px
}

leg_tls_status()
{
    tls_ready
    crt ip by="$T/pki/int" san=ip:192.0.2.7
    dot one good
    dot two alone
    proxy px "$ca" "$one 1 tls=dns.test" "$two 2 tls=dns.test" 'log debug'
    answered 10 3

    promise "status has PROTO tls, connects and resumed at the end of the line of a TLS upstream"
    like "^upstream $one tls priority 1 state up rtt_ms [0-9.]+ sent [0-9]+ answered [0-9]+ won 3 failed [0-9]+ connects 1 resumed 0\$" "$(adm status)"

    promise "the debug log has version, suite, certificate name, pin and the milliseconds of the handshake"
    got=$(grep -F "$one" "$T/px.log" | grep -F "$(cat "$T/pki/good.pin")")
    like 'TLS ?(v)?1\.2' "$got"
    like "$(sed -n 's/^up 1 .* suite \([0-9a-f]*\) .*/suite \1/p' "$T/one.q")|CHACHA20|AES_?128|AES_?256" "$got"
    like 'certificate.*dns\.test' "$got"
    like '[0-9](\.[0-9]+)? ?ms|ms[= ][0-9]' "$got"

    promise "what clients ask is not in the log at level info"
    adm 'log info' >/dev/null
    answered 10 3 name=secret%.test
    same 0 "$(logs px 'secret')" "lines"

    promise "query tells the TLS error of an upstream"
    like "^upstream $two tls priority 2 no answer.*(unknown CA|self-signed|certificate)" "$(adm 'query www.test A')"
    like "^upstream $one tls priority 1 NOERROR answers 1 ms [0-9.]+ won" "$(adm 'query www2.test A')"

    stop px
    reap

    promise "AD of an authenticated TLS upstream reaches the clients that set AD or DO, and no others; with noverify none"
    if netns && ns ip addr add 192.0.2.7/32 dev lo; then
        dot one ip addr=192.0.2.7 : ad
        for rule in tls 'tls noverify' "tls pin=$(cat "$T/pki/ip.pin")"; do
            proxy px "$ca" "$one 1 $rule"
            case $rule in *noverify) want=0 ;; *) want=1 ;; esac
            unlike ' ad ' "$(ask "plain$want.test" A)" "$rule, no AD, no DO"
            for opt in +ad +do; do
                got=$(ask "asks$opt.test" A $opt)
                like 'NOERROR ' "$got" "$rule, $opt"
                same $want "$(printf '%s\n' "$got" | grep -c ' ad ')" "$rule, $opt, from the upstream"
                same $want "$(ask "asks$opt.test" A $opt | grep -c ' ad ')" "$rule, $opt, from the cache"
            done
            stop px
        done
    else
        skip "not here: network namespaces"
    fi
}

leg_tls_flat()
{
    tls_ready
    promise "1,000 reconnects leave memory and descriptors as they were"
    if [ ! -r /proc/self/status ]; then
        skip "not here: /proc"
        return
    fi
    dot one good
    proxy px "$ca" "$one 1 tls=dns.test" 'cache-size 0'
    turn one after=1 cache=off
    answered 10 50
    m=$(rss px) f=$(fds px)
    answered 10 500
    turn one after=1
    answered 10 500
    turn one
    answered 10 5
    within 1000 2000 "$(asked one '^up')" "connections"
    grew 128 "$m" px
    within $((f - 2)) $((f + 2)) "$(fds px)" "descriptors"
    stop px
}

leg_tls_busy()
{
    tls_ready
    promise "at most one step of a handshake is done between two looks at the clients: 20 servers with P-384 chains hold nobody up"
    crt int384 by="$T/pki/root384" key=p384 cn='Test intermediate P-384' ca
    crt p384 by="$T/pki/int384" key=p384 cn=dns.test san=dns:dns.test
    dot last good : net=11
    set -- "$ca" "$last 1 tls=dns.test"
    i=0
    while [ $i -lt 20 ]; do
        dot "b_$i" p384 : cache=off
        set -- "$@" "$(at "b_$i") 2 tls=dns.test"
        i=$((i + 1))
    done
    proxy px "$@"
    busy_wait '^up 1 '
    answered 11 5
    load 1 name=busy.test >/dev/null
    # all connections end; the servers answer the new ClientHellos at the same time, while the program is stopped
    i=0
    while [ $i -lt 20 ]; do
        rules "b_$i" cache=off kick=1 pause=1500
        i=$((i + 1))
    done
    busy_wait '^hello 2 '
    kill -STOP "$(pid px)"
    within 0 5 "$(cat "$T"/b_*.q | grep -c '^flight 2 ')" "servers that had answered before the program was stopped"
    busy_wait '^flight 2 '
    loading 400 rate=400 name=busy.test cpu="$(pid px)"
    kill -CONT "$(pid px)"
    loaded 8
    like 'right 400 ' "$got"
    busy_wait '^up 2 '
    # in CPU time of the program, so that a busy machine does not count
    most=$(val cpu "$got") all=$(val used "$got")
    [ "${all:-0}" -gt 0 ] || fail "the CPU time of the program cannot be read"
    [ "$((${most:-0} * 4))" -le "${all:-0}" ] || fail "a client waited for $most us of work of $all us, wanted at most a quarter"
    stop px
}
# busy_wait ERE: all 20 servers have logged it
busy_wait() { await 10 busy_all "$1" || fail "not all of 20: $1"; }
busy_all() { [ "$(cat "$T"/b_*.q | grep -c "$1")" -ge 20 ]; }

# compare NAME CERT-NAME: every question gets the same answer from the real server at $real directly and through the proxy
compare()
{
    proxy "px_$1" "$ca" "$real 1 tls=$2"
    for q in 'www.real.test A' 'www.real.test AAAA' 'real.test MX' 'txt.real.test TXT' 'real.test SOA' 'real.test NS' 'srv.real.test SRV' \
        'alias.real.test A' 'unk.real.test TYPE65400' 'nothing.real.test A' 'www.real.test MX' 'WwW.rEaL.test A'; do
        # shellcheck disable=SC2086
        direct=$(kdig "@${real%@*}" -p "${real#*@}" +tls-ca="$T/pki/ca.pem" +tls-hostname="$2" +retry=0 +noall +header +answer $q 2>&1 | real_plain)
        # shellcheck disable=SC2086
        through=$(kdig @127.0.0.1 -p "$port" +retry=0 +noall +header +answer $q 2>&1 | real_plain)
        like 'status:' "$direct" "$1 directly, $q"
        same "$direct" "$through" "$q"
    done
    answered_r=$(load 50 name=%.wild.real.test window=10)
    like 'wrong 50 failed 0 lost 0' "$answered_r" "50 at once (the addresses are not ours)"
    case $1 in
    nsd | dnsdist)  # nsd answers one query of a record, until more comes: a pause of a second, then they go one a record.
                    # dnsdist loses one now and then on a busy machine.
        within 1 2 "$(field "$real" connects)" "connections"
        within 0 $((2000 * SLOW)) "$(val worst "$answered_r")" "slowest, ms"
        ;;
    *) same 1 "$(field "$real" connects)" "connections" ;;
    esac
    stop "px_$1"
}
# what must be the same: status and records, without TTLs and in one order
real_plain() { sed -n 's/.*\(status: [A-Z]*\).*/\1/p; /^;/d; s/^\([^[:space:]]*\)[[:space:]]*[0-9]*[[:space:]]*IN/\1 IN/p' | tr 'A-Z' 'a-z' | sort; }

leg_tls_real()
{
    tls_ready
    crt realec by="$T/pki/int" cn=dns.test san=dns:dns.test eku=server
    crt realrsa by="$T/pki/intrsa" key=rsa cn=dns.test san=dns:dns.test eku=server
    chmod 644 "$T"/pki/*.key
    cat >"$T/real.zone" <<'END'
$ORIGIN real.test.
$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
@ MX 10 www
ns A 192.0.2.53
www A 192.0.2.80
www AAAA 2001:db8::80
alias CNAME www
txt TXT "one" "two words"
srv SRV 1 2 853 www
unk TYPE65400 \# 4 deadbeef
*.wild A 192.0.2.99
END
    for kind in realec realrsa; do
        promise "kdig gets from nsd through the program what it gets from it directly ($kind)"
        if have kdig nsd; then
            p=$(freeport)
            cat >"$T/nsd.conf" <<END
server:
  ip-address: 127.0.0.1@$p
  port: $p
  tls-port: $p
  tls-service-key: "$T/pki/$kind.key"
  tls-service-pem: "$T/pki/$kind.pem"
  username: ""
  chroot: ""
  pidfile: "$T/nsd.pidfile"
  database: ""
  zonesdir: "$T"
  xfrdfile: "$T/nsd.xfrd"
  zonelistfile: "$T/nsd.list"
  xfrdir: "$T"
  cookie-secret-file: ""
  verbosity: 1
remote-control:
  control-enable: no
zone:
  name: real.test
  zonefile: real.zone
END
            nsd -d -c "$T/nsd.conf" </dev/null >"$T/nsd.log" 2>&1 &
            started nsd $!
            real=127.0.0.1@$p
            await 5 real_up || fail "nsd does not start"
            compare nsd dns.test
            kill_pid nsd TERM
        else
            skip "not here: nsd or kdig"
        fi
    done

    promise "kdig gets from unbound through the program what it gets from it directly"
    if have kdig unbound; then
        p=$(freeport)
        cat >"$T/unbound.conf" <<END
server:
  interface: 127.0.0.1@$p
  tls-port: $p
  tls-service-key: "$T/pki/realec.key"
  tls-service-pem: "$T/pki/realec.pem"
  chroot: ""
  username: ""
  directory: "$T"
  pidfile: ""
  use-syslog: no
  module-config: "iterator"
  local-zone: "test." nodefault
auth-zone:
  name: real.test
  zonefile: "$T/real.zone"
  for-downstream: yes
  for-upstream: no
remote-control:
  control-enable: no
END
        unbound -d -c "$T/unbound.conf" </dev/null >"$T/unbound.log" 2>&1 &
        started unbound $!
        real=127.0.0.1@$p
        await 5 real_up || fail "unbound does not start"
        compare unbound dns.test
        kill_pid unbound TERM
    else
        skip "not here: unbound or kdig"
    fi

    promise "kdig gets from dnsdist through the program what it gets from it directly"
    if have kdig nsd dnsdist; then
        p=$(freeport) b=$(freeport)
        sed "s/$(sed -n 's/^  port: //p' "$T/nsd.conf")/$b/; /tls-/d" "$T/nsd.conf" | sed "s/ip-address:.*/ip-address: 127.0.0.1@$b/; s/^  port:.*/  port: $b/" >"$T/nsd2.conf"
        nsd -d -c "$T/nsd2.conf" </dev/null >"$T/nsd.log" 2>&1 &
        started nsd $!
        cat >"$T/dnsdist.conf" <<END
setLocal("127.0.0.1:$(freeport)")
addTLSLocal("127.0.0.1:$p", "$T/pki/realrsa.pem", "$T/pki/realrsa.key", { minTLSVersion = "tls1.2" })
newServer({ address = "127.0.0.1:$b", healthCheckMode = "up" })
setSecurityPollSuffix("")
END
        dnsdist --supervised --disable-syslog -C "$T/dnsdist.conf" </dev/null >"$T/dnsdist.log" 2>&1 &
        started dnsdist $!
        real=127.0.0.1@$p
        await 5 real_up || fail "dnsdist does not start"
        compare dnsdist dns.test
        kill_pid dnsdist TERM
        kill_pid nsd TERM
    else
        skip "not here: dnsdist, nsd or kdig"
    fi

    promise "a server with TLS 1.3 only is a clean failure, named once"
    if have openssl; then
        p=$(freeport)
        openssl s_server -accept "127.0.0.1:$p" -tls1_3 -quiet -cert "$T/pki/realec.crt" -key "$T/pki/realec.key" </dev/zero >"$T/s_server.log" 2>&1 &
        started s_server $!
        dot last good : net=11
        proxy px "$ca" "127.0.0.1@$p 1 tls=dns.test" "$last 2 tls=dns.test" 'patience 3000'
        answered 11 15 rate=10
        within 0 $((1500 * SLOW)) "$worst" "slowest, ms"
        same 1 "$(said px "127.0.0.1@$p" 'tls: .*(TLS 1\.2|version)')" "lines in the log"
        stop px
    else
        skip "not here: openssl"
    fi
}
real_up() { kdig "@${real%@*}" -p "${real#*@}" +tls-ca="$T/pki/ca.pem" +tls-hostname=dns.test +retry=0 +time=1 www.real.test A 2>/dev/null | grep -q 192.0.2.80; }

# ---- The TLS test tool

# clock_source: a library to preload, so that a test sets the time of day. The offset lies in the file TEST_CLOCK names.
clock_source()
{
    cat >"$T/clock.c" <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile int64_t *offset;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void clock_open(void)
{
    int fd = open(getenv("TEST_CLOCK"), O_RDONLY);
    void *p = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, fd, 0);
    *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    offset = p == MAP_FAILED ? NULL : p;
}
int clock_gettime(clockid_t id, struct timespec *t)
{
    int r;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    r = real(id, t);
    if (r == 0 && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        t->tv_sec += (time_t)*offset;
    return r;
}
time_t time(time_t *to)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (to)
        *to = t.tv_sec;
    return t.tv_sec;
}
int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec t;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &t);
    tv->tv_sec = t.tv_sec;
    tv->tv_usec = (suseconds_t)(t.tv_nsec / 1000);
    return 0;
}
END
}

# tls_source: certificates, a scripted server, a client that asks in bulk
tls_source()
{
    cat >"$T/tls.c" <<'END'
/* tls: certificates, a scripted DNS-over-TLS server, and a client that asks in bulk. BearSSL only. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <bearssl.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef POLLRDHUP
#define POLLRDHUP 0
#endif

static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("tls: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    exit(1);
}

static void *grown(void *p, size_t n)
{
    if ((p = realloc(p, n ? n : 1)) == NULL)
        die("no memory");
    return p;
}

static long clock_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (long)(ts.tv_sec * 1000 + ts.tv_nsec / 1000000);
}

struct buf { unsigned char *p; size_t n, room; };

static void put(struct buf *b, const void *p, size_t n)
{
    if (b->n + n > b->room)
        b->p = grown(b->p, b->room = 2 * (b->n + n) + 256);
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
}
static void put8(struct buf *b, unsigned v) { unsigned char c = (unsigned char)v; put(b, &c, 1); }
static void put16(struct buf *b, unsigned v) { put8(b, v >> 8); put8(b, v & 255); }
static void put32(struct buf *b, uint32_t v) { put16(b, v >> 16); put16(b, v & 65535); }
static void puts_(struct buf *b, const char *s) { put(b, s, strlen(s)); }

static void take(struct buf *b, size_t n)
{
    memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
}

static struct buf slurp(const char *path)
{
    struct buf b = { 0 };
    unsigned char block[4096];
    size_t n;
    FILE *f = fopen(path, "r");
    if (f == NULL)
        die("%s: %s", path, strerror(errno));
    while ((n = fread(block, 1, sizeof block, f)) > 0)
        put(&b, block, n);
    fclose(f);
    return b;
}

static void spit(const char *base, const char *suffix, const struct buf *b)
{
    char path[1024];
    FILE *f;
    snprintf(path, sizeof path, "%s%s", base, suffix);
    if ((f = fopen(path, "w")) == NULL || fwrite(b->p, 1, b->n, f) != b->n || fclose(f))
        die("%s: %s", path, strerror(errno));
}

static br_hmac_drbg_context rng;

static void rng_init(void)
{
    unsigned char seed[32];
    FILE *f = fopen("/dev/urandom", "r");
    if (f == NULL || fread(seed, 1, sizeof seed, f) != sizeof seed)
        die("/dev/urandom: %s", strerror(errno));
    fclose(f);
    br_hmac_drbg_init(&rng, &br_sha256_vtable, seed, sizeof seed);
}

/* ---- Certificates ------------------------------------------------------ */

enum { P256, P384, RSA };

struct key {
    int kind;
    br_ec_private_key ec;
    br_rsa_private_key rsa;
    unsigned char store[BR_RSA_KBUF_PRIV_SIZE(4096)], store2[BR_RSA_KBUF_PUB_SIZE(4096)];
    br_rsa_public_key rsapub;
};

static size_t der_open(struct buf *b, unsigned tag)
{
    put8(b, tag);
    put8(b, 0);
    return b->n;
}

static void der_close(struct buf *b, size_t at)
{
    size_t n = b->n - at, extra = n < 128 ? 0 : n < 256 ? 1 : 2;
    put(b, "\0\0", extra);
    memmove(b->p + at + extra, b->p + at, n);
    if (extra == 0)
        b->p[at - 1] = (unsigned char)n;
    else {
        b->p[at - 1] = (unsigned char)(0x80 + extra);
        if (extra == 2)
            b->p[at++] = (unsigned char)(n >> 8);
        b->p[at] = (unsigned char)n;
    }
}

static void der(struct buf *b, unsigned tag, const void *p, size_t n)
{
    size_t at = der_open(b, tag);
    put(b, p, n);
    der_close(b, at);
}

static void der_uint(struct buf *b, const unsigned char *p, size_t n)
{
    size_t at = der_open(b, 2);
    while (n > 1 && *p == 0)
        p++, n--;
    if (*p & 0x80)
        put8(b, 0);
    put(b, p, n);
    der_close(b, at);
}

#define OID(b, bytes) der(b, 6, bytes, sizeof(bytes) - 1)

static void der_time(struct buf *b, time_t t)
{
    struct tm tm;
    char s[32];
    gmtime_r(&t, &tm);
    strftime(s, sizeof s, tm.tm_year < 150 ? "%y%m%d%H%M%SZ" : "%Y%m%d%H%M%SZ", &tm);
    der(b, tm.tm_year < 150 ? 0x17 : 0x18, s, strlen(s));
}

static void der_name(struct buf *b, const char *cn)
{
    size_t seq = der_open(b, 0x30), set, atv;
    if (*cn) {
        set = der_open(b, 0x31);
        atv = der_open(b, 0x30);
        OID(b, "\x55\x04\x03");
        der(b, 0x0C, cn, strlen(cn));
        der_close(b, atv);
        der_close(b, set);
    }
    der_close(b, seq);
}

static void der_spki(struct buf *b, const struct key *k)
{
    size_t seq = der_open(b, 0x30), alg = der_open(b, 0x30), bits, in;
    if (k->kind == RSA) {
        OID(b, "\x2A\x86\x48\x86\xF7\x0D\x01\x01\x01");
        der(b, 5, NULL, 0);
        der_close(b, alg);
        bits = der_open(b, 3);
        put8(b, 0);
        in = der_open(b, 0x30);
        der_uint(b, k->rsapub.n, k->rsapub.nlen);
        der_uint(b, k->rsapub.e, k->rsapub.elen);
        der_close(b, in);
    } else {
        unsigned char pub[BR_EC_KBUF_PUB_MAX_SIZE];
        br_ec_public_key pk;
        OID(b, "\x2A\x86\x48\xCE\x3D\x02\x01");
        if (k->kind == P256)
            OID(b, "\x2A\x86\x48\xCE\x3D\x03\x01\x07");
        else
            OID(b, "\x2B\x81\x04\x00\x22");
        der_close(b, alg);
        br_ec_compute_pub(&br_ec_all_m31, &pk, pub, &k->ec);
        bits = der_open(b, 3);
        put8(b, 0);
        put(b, pk.q, pk.qlen);
    }
    der_close(b, bits);
    der_close(b, seq);
}

static void der_algorithm(struct buf *b, int kind)
{
    size_t seq = der_open(b, 0x30);
    if (kind == P256)
        OID(b, "\x2A\x86\x48\xCE\x3D\x04\x03\x02");
    else if (kind == P384)
        OID(b, "\x2A\x86\x48\xCE\x3D\x04\x03\x03");
    else {
        OID(b, "\x2A\x86\x48\x86\xF7\x0D\x01\x01\x0B");
        der(b, 5, NULL, 0);
    }
    der_close(b, seq);
}

/* appends the signature of the bytes from `at` on, with its algorithm */
static void der_signature(struct buf *b, size_t at, const struct key *k, int spoil)
{
    unsigned char h[64], sig[1024];
    size_t n = 0, bits;
    if (k->kind == P384) {
        br_sha384_context c;
        br_sha384_init(&c);
        br_sha384_update(&c, b->p + at, b->n - at);
        br_sha384_out(&c, h);
        n = br_ecdsa_i31_sign_asn1(&br_ec_all_m31, &br_sha384_vtable, h, &k->ec, sig);
    } else {
        br_sha256_context c;
        br_sha256_init(&c);
        br_sha256_update(&c, b->p + at, b->n - at);
        br_sha256_out(&c, h);
        if (k->kind == P256)
            n = br_ecdsa_i31_sign_asn1(&br_ec_all_m31, &br_sha256_vtable, h, &k->ec, sig);
        else if (br_rsa_i31_pkcs1_sign(BR_HASH_OID_SHA256, h, 32, &k->rsa, sig))
            n = k->rsapub.nlen;
    }
    if (n == 0)
        die("cannot sign");
    if (spoil)
        sig[n - 1] ^= 1;
    der_algorithm(b, k->kind);
    bits = der_open(b, 3);
    put8(b, 0);
    put(b, sig, n);
    der_close(b, bits);
}

static void pem(struct buf *out, const char *banner, const void *p, size_t n)
{
    size_t len = br_pem_encode(NULL, p, n, banner, BR_PEM_LINE64);
    char *s = grown(NULL, len + 1);
    br_pem_encode(s, p, n, banner, BR_PEM_LINE64);
    put(out, s, len);
    free(s);
}

static void key_make(struct key *k, const char *kind)
{
    if (strncmp(kind, "rsa", 3) == 0) {
        unsigned bits = kind[3] ? (unsigned)atoi(kind + 3) : 2048;
        k->kind = RSA;
        if (!br_rsa_keygen_get_default()(&rng.vtable, &k->rsa, k->store, &k->rsapub, k->store2, bits, 65537))
            die("cannot make an RSA key");
    } else {
        k->kind = strcmp(kind, "p384") == 0 ? P384 : P256;
        if (br_ec_keygen(&rng.vtable, &br_ec_all_m31, &k->ec, k->store, k->kind == P384 ? BR_EC_secp384r1 : BR_EC_secp256r1) == 0)
            die("cannot make an EC key");
    }
}

static void key_save(const struct key *k, const char *base)
{
    unsigned char d[512], out[4096];
    struct buf b = { 0 };
    if (k->kind == RSA) {
        size_t dlen = br_rsa_compute_privexp_get_default()(d, &k->rsa, 65537);
        pem(&b, "RSA PRIVATE KEY", out, br_encode_rsa_raw_der(out, &k->rsa, &k->rsapub, d, dlen));
    } else {
        unsigned char pub[BR_EC_KBUF_PUB_MAX_SIZE];
        br_ec_public_key pk;
        br_ec_compute_pub(&br_ec_all_m31, &pk, pub, &k->ec);
        pem(&b, "EC PRIVATE KEY", out, br_encode_ec_raw_der(out, &k->ec, &pk));
    }
    spit(base, ".key", &b);
}

/* the objects of a PEM file, each as DER; the number of them */
static void into_buf(void *b, const void *p, size_t n) { put(b, p, n); }

static size_t pem_read(const char *path, struct buf *out, size_t max)
{
    struct buf f = slurp(path);
    br_pem_decoder_context pc;
    size_t at = 0, n = 0;
    int inside = 0;
    put8(&f, '\n');
    br_pem_decoder_init(&pc);
    while (at < f.n) {
        at += br_pem_decoder_push(&pc, f.p + at, f.n - at);
        switch (br_pem_decoder_event(&pc)) {
        case BR_PEM_BEGIN_OBJ:
            if (n == max)
                die("%s: too many objects", path);
            memset(&out[n], 0, sizeof out[n]);
            br_pem_decoder_setdest(&pc, into_buf, &out[n]);
            inside = 1;
            break;
        case BR_PEM_END_OBJ:
            n += (size_t)inside;
            inside = 0;
            break;
        case BR_PEM_ERROR:
            die("%s: no PEM", path);
        }
    }
    free(f.p);
    return n;
}

static void key_load(struct key *k, const char *path)
{
    br_skey_decoder_context *dc = grown(NULL, sizeof *dc);     /* the key points into it: it stays */
    struct buf b;
    if (pem_read(path, &b, 1) != 1)
        die("%s: no key", path);
    br_skey_decoder_init(dc);
    br_skey_decoder_push(dc, b.p, b.n);
    if (br_skey_decoder_key_type(dc) == BR_KEYTYPE_RSA) {
        k->kind = RSA;
        k->rsa = *br_skey_decoder_get_rsa(dc);
        /* SEQUENCE { 0, the modulus, ...: BearSSL computes none of 4096 bits */
        k->rsapub.n = b.p + 11 + (b.p[11] == 0);
        k->rsapub.nlen = (size_t)(b.p[9] << 8 | b.p[10]) - (b.p[11] == 0);
        memcpy(k->store2, "\1\0\1", 3);
        k->rsapub.e = k->store2;
        k->rsapub.elen = 3;
    } else if (br_skey_decoder_key_type(dc) == BR_KEYTYPE_EC) {
        k->ec = *br_skey_decoder_get_ec(dc);
        k->kind = k->ec.curve == BR_EC_secp384r1 ? P384 : P256;
    } else
        die("%s: no key", path);
}

static void base64(const unsigned char *p, size_t n, char *out)
{
    static const char abc[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (; n > 0; p += 3, n = n > 3 ? n - 3 : 0) {
        uint32_t v = (uint32_t)p[0] << 16 | (n > 1 ? (uint32_t)p[1] << 8 : 0) | (n > 2 ? p[2] : 0);
        *out++ = abc[v >> 18];
        *out++ = abc[v >> 12 & 63];
        *out++ = n > 1 ? abc[v >> 6 & 63] : '=';
        *out++ = n > 2 ? abc[v & 63] : '=';
    }
    *out = 0;
}

static void extension(struct buf *b, const char *oid, int critical, const struct buf *value)
{
    size_t seq = der_open(b, 0x30);
    der(b, 6, oid, 3);
    if (critical)
        der(b, 1, "\xFF", 1);
    der(b, 4, value->p, value->n);
    der_close(b, seq);
}

/* the SAN list: dns:NAME, ip:ADDRESS, nul:NAME (with a NUL byte after NAME, then .evil.test), a comma between */
static void san_put(struct buf *b, char *list)
{
    size_t seq = der_open(b, 0x30);
    for (char *s = strtok(list, ","); s; s = strtok(NULL, ",")) {
        unsigned char ip[16];
        if (strncmp(s, "dns:", 4) == 0)
            der(b, 0x82, s + 4, strlen(s + 4));
        else if (strncmp(s, "nul:", 4) == 0) {
            size_t at = der_open(b, 0x82);
            puts_(b, s + 4);
            put(b, "\0.evil.test", 11);
            der_close(b, at);
        } else if (strncmp(s, "ip:", 3) == 0 && inet_pton(AF_INET, s + 3, ip) == 1)
            der(b, 0x87, ip, 4);
        else if (strncmp(s, "ip:", 3) == 0 && inet_pton(AF_INET6, s + 3, ip) == 1)
            der(b, 0x87, ip, 16);
        else
            die("san: %s?", s);
    }
    der_close(b, seq);
}

/* cert OUT WORD...: a certificate and a key. Writes OUT.key, OUT.crt (it alone), OUT.pem (with its chain but the root) and
 * OUT.up (what certificates that it signs send after theirs); prints the pin.
 *   key=p256|p384|rsa|rsa4096|FILE  cn=TEXT  san=dns:NAME,ip:ADDRESS  by=OTHER (else self-signed)  from=S to=S (relative to now)
 *   ca[=PATHLEN]  eku=server|client|both  badsig  noint (sends no intermediate)  withroot  critical (an unknown critical extension) */
static int cert(int argc, char **argv)
{
    static struct key own, other;
    const struct key *signer = &own;
    const char *out = argv[0], *cn = "", *by = NULL, *keykind = "p256", *eku = NULL;
    char *san = NULL, pin[64], path[1024];
    long from = -86400, to = 30 * 86400L;
    int ca = -2, badsig = 0, noint = 0, withroot = 0, critical = 0;
    unsigned char serial[9], h[32];
    struct buf b = { 0 }, v = { 0 }, file = { 0 }, up = { 0 }, spki = { 0 }, issuer = { 0 };
    size_t all, tbs, at, in;
    br_sha256_context sh;
    for (int i = 1; i < argc; i++) {
        char *a = argv[i], *val = strchr(a, '=');
        if (val)
            *val++ = 0;
        if (strcmp(a, "key") == 0) keykind = val;
        else if (strcmp(a, "cn") == 0) cn = val;
        else if (strcmp(a, "san") == 0) san = val;
        else if (strcmp(a, "by") == 0) by = val;
        else if (strcmp(a, "from") == 0) from = atol(val);
        else if (strcmp(a, "to") == 0) to = atol(val);
        else if (strcmp(a, "ca") == 0) ca = val ? atoi(val) : -1;
        else if (strcmp(a, "eku") == 0) eku = val;
        else if (strcmp(a, "badsig") == 0) badsig = 1;
        else if (strcmp(a, "noint") == 0) noint = 1;
        else if (strcmp(a, "withroot") == 0) withroot = 1;
        else if (strcmp(a, "critical") == 0) critical = 1;
        else die("cert: %s?", a);
    }
    if (strchr(keykind, '/')) {
        key_load(&own, keykind);
        file = slurp(keykind);
        spit(out, ".key", &file);
        file.n = 0;
    } else {
        key_make(&own, keykind);
        key_save(&own, out);
    }
    if (by) {
        snprintf(path, sizeof path, "%s.key", by);
        key_load(&other, path);
        signer = &other;
        snprintf(path, sizeof path, "%s.dn", by);
        issuer = slurp(path);
    }
    der_spki(&spki, &own);
    all = der_open(&b, 0x30);
    tbs = der_open(&b, 0x30) - 2;
    at = der_open(&b, 0xA0);
    der(&b, 2, "\2", 1);
    der_close(&b, at);
    br_hmac_drbg_generate(&rng, serial, sizeof serial);
    serial[0] |= 1;
    der_uint(&b, serial, sizeof serial);
    der_algorithm(&b, signer->kind);
    der_name(&v, cn);
    spit(out, ".dn", &v);
    put(&b, by ? issuer.p : v.p, by ? issuer.n : v.n);
    at = der_open(&b, 0x30);
    der_time(&b, time(NULL) + from);
    der_time(&b, time(NULL) + to);
    der_close(&b, at);
    put(&b, v.p, v.n);
    put(&b, spki.p, spki.n);
    at = der_open(&b, 0xA3);
    in = der_open(&b, 0x30);
    v.n = 0;
    all = der_open(&v, 0x30);
    if (ca >= -1)
        der(&v, 1, "\xFF", 1);
    if (ca >= 0) {
        unsigned char len = (unsigned char)ca;
        der(&v, 2, &len, 1);
    }
    der_close(&v, all);
    extension(&b, "\x55\x1D\x13", 1, &v);
    v.n = 0;
    der(&v, 3, ca >= -1 ? "\1\6" : "\5\xA0", 2);
    extension(&b, "\x55\x1D\x0F", 1, &v);
    if (eku) {
        v.n = 0;
        all = der_open(&v, 0x30);
        if (*eku != 'c')
            OID(&v, "\x2B\x06\x01\x05\x05\x07\x03\x01");
        if (*eku != 's')
            OID(&v, "\x2B\x06\x01\x05\x05\x07\x03\x02");
        der_close(&v, all);
        extension(&b, "\x55\x1D\x25", 0, &v);
    }
    if (san) {
        v.n = 0;
        san_put(&v, san);
        extension(&b, "\x55\x1D\x11", 0, &v);
    }
    if (critical) {
        v.n = 0;
        der(&v, 5, NULL, 0);
        extension(&b, "\x2A\x03\x04", 1, &v);
    }
    der_close(&b, in);
    der_close(&b, at);
    der_close(&b, tbs + 2);
    der_signature(&b, tbs, signer, badsig);
    der_close(&b, 2);
    pem(&file, "CERTIFICATE", b.p, b.n);
    spit(out, ".crt", &file);
    if (by) {
        put(&up, file.p, file.n);
        snprintf(path, sizeof path, "%s.up", by);
        v = slurp(path);
        put(&up, v.p, v.n);
        if (!noint)
            put(&file, v.p, v.n);
        if (withroot) {
            snprintf(path, sizeof path, "%s.crt", by);
            v = slurp(path);
            put(&file, v.p, v.n);
        }
    }
    spit(out, ".pem", &file);
    spit(out, ".up", &up);
    br_sha256_init(&sh);
    br_sha256_update(&sh, spki.p, spki.n);
    br_sha256_out(&sh, h);
    base64(h, 32, pin);
    puts(pin);
    v.n = 0;
    puts_(&v, pin);
    spit(out, ".pin", &v);
    return 0;
}

/* ---- Rules ------------------------------------------------------------- */

/* Read from a file of words KEY[=VALUE], again whenever it changes. Times are milliseconds. */
static struct rules {
    char at[16], what[16];      /* a fault: at=accept|hello|mid|up:stall|deaf|fin|rst|garbage|plain|alertN */
    char how[8];                /* how connections are closed: notify fin rst half */
    long cut;                   /* mid: after so many bytes of ours */
    long times;                 /* at and drop happen so often, then no more (-1 always) */
    long idle, life;            /* close after so long without a query, since the accept */
    long after, drop;           /* close after so many answers; when so many queries wait */
    long batch; char order[8];  /* hold answers until so many wait: fifo lifo; then in as few records as possible */
    long record, wire;          /* at most so many bytes in a record; in a segment */
    long delay, keepalive, pad, ttl, net;
    long trickle;               /* a byte of the answers every so often; with record=, so many */
    long pause;                 /* so long the server does nothing after a ClientHello */
    long mutate;                /* so many random bytes of each answer are changed */
    int mute, wrong, half, reneg, ad;
    int formerr;                /* to queries with EDNS, as old servers do */
    long kick;                  /* a new value closes every open connection */
    long muted;                 /* connections up to this number answer nothing */
    long epoch;                 /* a new value forgets the sessions */
    char cache[8];              /* on off zero: zero takes any session with a secret of zeros */
} rules;
static struct rules rules_start;
static const char *rules_file;
static struct stat rules_stat;
static unsigned rules_seen;

static void rule(struct rules *r, char *w)
{
    static const struct { const char *name; size_t at; } longs[] = {
#define L(f) { #f, offsetof(struct rules, f) }
        L(cut), L(times), L(idle), L(life), L(after), L(drop), L(record), L(wire), L(delay), L(keepalive), L(pad), L(ttl), L(net),
        L(kick), L(epoch), L(batch), L(muted), L(trickle), L(mutate),
        L(pause),
#undef L
    };
    char *v = strchr(w, '=');
    if (v)
        *v++ = 0;
    for (size_t i = 0; i < sizeof longs / sizeof longs[0]; i++)
        if (strcmp(w, longs[i].name) == 0 && v) {
            *(long *)(void *)((char *)r + longs[i].at) = atol(v);
            return;
        }
    if (strcmp(w, "at") == 0 && v && strchr(v, ':')) {
        snprintf(r->what, sizeof r->what, "%s", strchr(v, ':') + 1);
        *strchr(v, ':') = 0;
        snprintf(r->at, sizeof r->at, "%s", v);
    } else if (strcmp(w, "how") == 0 && v)
        snprintf(r->how, sizeof r->how, "%s", v);
    else if (strcmp(w, "order") == 0 && v)
        snprintf(r->order, sizeof r->order, "%s", v);
    else if (strcmp(w, "cache") == 0 && v)
        snprintf(r->cache, sizeof r->cache, "%s", v);
    else if (strcmp(w, "mute") == 0) r->mute = 1;
    else if (strcmp(w, "wrong") == 0) r->wrong = 1;
    else if (strcmp(w, "half") == 0) r->half = 1;
    else if (strcmp(w, "reneg") == 0) r->reneg = 1;
    else if (strcmp(w, "ad") == 0) r->ad = 1;
    else if (strcmp(w, "formerr") == 0) r->formerr = 1;
    else die("rule %s?", w);
}

/* ---- Server ------------------------------------------------------------ */

struct answer { long due; struct buf b; };

struct conn {
    struct conn *next;
    int fd, id;
    br_ssl_server_context sc;
    unsigned char iobuf[BR_SSL_BUFSIZE_BIDI];
    int gone;                   /* the sweep frees it */
    int up, flight, hello, stalled, closing, sawdata, reneg, cutting;
    long t0, last, dripped, sent, app, wire, records, queries, answers, handshake, inrecord;
    struct buf first;           /* what came before the end of the ClientHello */
    unsigned char head[5];      /* of the record that is coming in */
    size_t headn;
    size_t recordleft;
    struct buf in, out, raw;    /* queries as they come; answers to encrypt; bytes to send as they are */
    struct answer held[4096];
    int nheld, waiting;         /* answers not due yet; queries without answer */
};

static struct conn *conns;
static FILE *logf_;
static long started_at, now;
static int conn_count, kick_seen;
static br_x509_certificate chain[80];
static size_t chain_len;
static struct key server_key;
static unsigned issuer_type;
static unsigned version = BR_TLS12;
static uint16_t suites[48];
static size_t nsuites;
static unsigned char cache_store[100000];
static br_ssl_session_cache_lru cache_lru;

static void note(const struct conn *c, const char *event, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(logf_, "%s %d ms %ld ", event, c ? c->id : 0, clock_ms() - started_at);
    vfprintf(logf_, fmt, ap);
    fputc('\n', logf_);
    fflush(logf_);
    va_end(ap);
}

static int zero_load(const br_ssl_session_cache_class **ctx, br_ssl_server_context *sc, br_ssl_session_parameters *pp)
{
    (void)ctx;
    pp->version = BR_TLS12;
    pp->cipher_suite = sc->client_suites[0][0];
    memset(pp->master_secret, 0, sizeof pp->master_secret);
    return 1;
}
static void zero_save(const br_ssl_session_cache_class **ctx, br_ssl_server_context *sc, const br_ssl_session_parameters *pp)
{
    (void)ctx;
    (void)sc;
    (void)pp;
}
static const br_ssl_session_cache_class zero_class = { sizeof(void *), zero_save, zero_load };
static const br_ssl_session_cache_class *zero_cache = &zero_class;

static void conn_die(struct conn *c, const char *who, const char *why)
{
    if (c->gone)
        return;
    c->gone = 1;
    note(c, "end", "by %s why %s app %ld records %ld wire %ld queries %ld answers %ld", who, why, c->app, c->records, c->wire,
        c->queries, c->answers);
    close(c->fd);
}

static void conn_rst(struct conn *c)
{
    struct linger l = { 1, 0 };
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
}

static void rules_read(void)
{
    struct stat st;
    struct buf b;
    static long epoch, kick;
    if (stat(rules_file, &st) || (st.st_ino == rules_stat.st_ino && st.st_mtim.tv_nsec == rules_stat.st_mtim.tv_nsec && st.st_mtim.tv_sec == rules_stat.st_mtim.tv_sec))
        return;
    rules_stat = st;
    b = slurp(rules_file);
    put8(&b, 0);
    rules = rules_start;
    for (char *w = strtok((char *)b.p, " \n"); w; w = strtok(NULL, " \n"))
        rule(&rules, w);
    free(b.p);
    if (rules.epoch && rules.epoch != epoch) {
        epoch = rules.epoch;
        br_ssl_session_cache_lru_init(&cache_lru, cache_store, sizeof cache_store);
    }
    if (rules.kick && rules.kick != kick) {
        kick = rules.kick;
        kick_seen = 1;
    }
    note(NULL, "rules", "n %u", ++rules_seen);
}

static int fault(const struct conn *c, const char *at)
{
    (void)c;
    return strcmp(rules.at, at) == 0 && rules.times != 0;
}

static void send_now(struct conn *c, const void *p, size_t n) { if (send(c->fd, p, n, MSG_NOSIGNAL) < 0) c->cutting = 1; }

/* does what the rule says to this connection */
static void strike(struct conn *c)
{
    unsigned char junk[600];
    if (rules.times > 0)
        rules.times--;
    note(c, "strike", "at %s what %s", rules.at, rules.what);
    if (strcmp(rules.what, "fin") == 0) {
        conn_die(c, "server", "fault");
        return;
    }
    if (strcmp(rules.what, "rst") == 0) {
        conn_rst(c);
        conn_die(c, "server", "fault");
        return;
    }
    if (strcmp(rules.what, "garbage") == 0) {
        br_hmac_drbg_generate(&rng, junk, sizeof junk);
        junk[0] = 0x80 | (junk[0] & 0x3f);
        send_now(c, junk, sizeof junk);
    } else if (strcmp(rules.what, "plain") == 0)
        send_now(c, "220 mail.test ESMTP ready\r\n", 27);
    else if (strcmp(rules.what, "zeros") == 0) {
        memset(junk, 0, sizeof junk);
        send_now(c, junk, sizeof junk);
    } else if (strncmp(rules.what, "alert", 5) == 0) {
        memcpy(junk, "\x15\x03\x03\0\2\2", 6);
        junk[6] = (unsigned char)atoi(rules.what + 5);
        send_now(c, junk, 7);
    }
    c->stalled = 1;
}

/* the ClientHello, in words. Its bytes are what came so far; false when it is not whole yet */
static int hello_note(struct conn *c)
{
    struct buf m = { 0 };
    const unsigned char *p, *e, *end;
    char sni[256] = "-", alpn[256] = "-", list[512] = "", exts[256] = "";
    size_t at = 0, n, used = 0;
    unsigned hello_version, sid;
    while (at + 5 <= c->first.n && c->first.p[at] == 22) {
        n = (size_t)(c->first.p[at + 3] << 8 | c->first.p[at + 4]);
        if (at + 5 + n > c->first.n)
            break;
        put(&m, c->first.p + at + 5, n);
        at += 5 + n;
    }
    if (m.n < 4 || m.n < 4 + (size_t)(m.p[2] << 8 | m.p[3]) || m.n < 44) {
        free(m.p);
        return 0;
    }
    p = m.p + 4;
    end = m.p + m.n;
    hello_version = (unsigned)(p[0] << 8 | p[1]);
    sid = p[34];
    p += 35 + sid;
    n = (size_t)(p[0] << 8 | p[1]);
    for (p += 2; n >= 2; n -= 2, p += 2)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%02x%02x", used ? "," : "", p[0], p[1]);
    p += 1 + p[0];
    used = 0;
    if (p + 2 <= end)
        for (p += 2; p + 4 <= end; p = e) {
            unsigned type = (unsigned)(p[0] << 8 | p[1]);
            n = (size_t)(p[2] << 8 | p[3]);
            p += 4;
            e = p + n;
            used += (size_t)snprintf(exts + used, sizeof exts - used, "%s%u", used ? "," : "", type);
            if (type == 0 && n > 5)
                snprintf(sni, sizeof sni, "%.*s", (int)(n - 5), (const char *)p + 5);
            if (type == 16 && n > 3)
                snprintf(alpn, sizeof alpn, "%.*s", (int)p[2], (const char *)p + 3);
        }
    note(c, "hello", "sni %s alpn %s sid %u version %04x suites %s exts %s", sni, alpn, sid, hello_version, list, exts);
    free(m.p);
    return 1;
}

/* counts the records that come in, by their headers */
static void records_count(struct conn *c, const unsigned char *p, size_t n)
{
    while (n > 0) {
        if (c->recordleft > 0) {
            size_t k = n < c->recordleft ? n : c->recordleft;
            c->recordleft -= k;
            p += k;
            n -= k;
            continue;
        }
        c->head[c->headn++] = *p++;
        n--;
        if (c->headn == 5) {
            c->headn = 0;
            c->recordleft = (size_t)(c->head[3] << 8 | c->head[4]);
            if (c->head[0] == 23)
                c->records++;
        }
    }
}

static void engine_setup(struct conn *c)
{
    br_ssl_engine_context *e = &c->sc.eng;
    if (server_key.kind == RSA)
        br_ssl_server_init_full_rsa(&c->sc, chain, chain_len, &server_key.rsa);
    else
        br_ssl_server_init_full_ec(&c->sc, chain, chain_len, issuer_type, &server_key.ec);
    br_ssl_engine_set_versions(e, version, version);
    if (nsuites)
        br_ssl_engine_set_suites(e, suites, nsuites);
    br_ssl_engine_set_buffer(e, c->iobuf, sizeof c->iobuf, 1);
    if (strcmp(rules.cache, "zero") == 0)
        br_ssl_server_set_cache(&c->sc, &zero_cache);
    else if (strcmp(rules.cache, "off") != 0)
        br_ssl_server_set_cache(&c->sc, &cache_lru.vtable);
    if (!br_ssl_server_reset(&c->sc))
        die("server reset: %d", br_ssl_engine_last_error(e));
}

static void conn_new(int lfd)
{
    struct conn *c;
    int one = 1, fd = accept(lfd, NULL, NULL);
    if (fd < 0)
        return;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c = grown(NULL, sizeof *c);
    memset(c, 0, sizeof *c);
    c->fd = fd;
    c->id = ++conn_count;
    c->t0 = c->last = now;
    c->next = conns;
    conns = c;
    note(c, "open", "-");
    engine_setup(c);
    if (fault(c, "accept"))
        strike(c);
}

/* a 24-bit number made from a name, letter case aside: the host part of its address */
static uint32_t name_number(const unsigned char *name, size_t n)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint32_t)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i])) * 16777619u;
    return (h >> 8 ^ h) & 0xFFFFFF;
}

struct asked { size_t qend, namelen; unsigned type; int opt, dflag; char opts[256]; char text[300]; };

static int query_read(const unsigned char *q, size_t n, struct asked *a)
{
    size_t at = 12, used = 0;
    memset(a, 0, sizeof *a);
    if (n < 17 || q[2] & 0x80 || q[5] != 1)
        return 0;
    while (at < n && q[at] && q[at] < 64) {
        for (size_t i = 1; i <= q[at] && at + i < n; i++)
            if (used < sizeof a->text - 2)
                a->text[used++] = q[at + i] > 32 && q[at + i] < 127 ? (char)q[at + i] : '?';
        a->text[used++] = '.';
        at += 1u + q[at];
    }
    if (at + 5 > n)
        return 0;
    a->namelen = at + 1 - 12;
    a->qend = at + 5;
    a->type = (unsigned)(q[at + 1] << 8 | q[at + 2]);
    at = a->qend;
    if (q[11] == 1 && at + 11 <= n && q[at] == 0 && q[at + 2] == 41) {
        size_t end = at + 11 + (size_t)(q[at + 9] << 8 | q[at + 10]);
        a->opt = 1;
        a->dflag = q[at + 7] >> 7;
        used = 0;
        for (at += 11; at + 4 <= end && end <= n; at += 4 + (size_t)(q[at + 2] << 8 | q[at + 3]))
            used += (size_t)snprintf(a->opts + used, sizeof a->opts - used, "%s%u:%u", used ? "," : "",
                (unsigned)(q[at] << 8 | q[at + 1]), (unsigned)(q[at + 2] << 8 | q[at + 3]));
    }
    return 1;
}

/* an answer; kind: 0 right, 1 other ID, 2 other question, 3 other type, 4 the query itself */
static void answer_make(struct buf *b, const unsigned char *q, size_t n, const struct asked *a, long big, unsigned rcode, int kind)
{
    size_t start = b->n, left;
    uint32_t host = name_number(q + 12, a->namelen);
    int empty = rcode != 0 || (a->type != 1 && a->type != 28 && !big);
    put16(b, 0);
    if (kind == 4) {
        put(b, q, n);
    } else {
        put(b, q, a->qend);
        b->p[start + 4] = (unsigned char)(0x80 | (q[2] & 1));
        b->p[start + 5] = (unsigned char)(0x80 | (rules.ad ? 0x20 : 0) | (q[3] & 0x10) | rcode);
        memset(b->p + start + 8, 0, 6);
        if (kind == 1) b->p[start + 2] ^= 0x55;
        if (kind == 2) b->p[start + 2 + 13] ^= 1;
        if (kind == 3) b->p[start + 2 + a->qend - 3] ^= 16;
        if (big) {
            for (left = (size_t)big > b->n - start ? (size_t)big - (b->n - start) : 0; left > 300; left = (size_t)big + 2 > b->n - start ? (size_t)big + 2 - (b->n - start) : 0) {
                size_t k = left > 4000 ? 4000 : left;
                put16(b, 0xC00C);
                put16(b, a->type);
                put16(b, 1);
                put32(b, (uint32_t)rules.ttl);
                put16(b, (unsigned)(k - 12 - 40));
                for (size_t i = 0; i < k - 12 - 40; i++)
                    put8(b, (unsigned)(i % 251));
                b->p[start + 9]++;
            }
        } else if (!empty) {
            b->p[start + 9] = 1;
            put16(b, 0xC00C);
            put16(b, kind == 3 ? a->type ^ 16 : a->type);
            put16(b, 1);
            put32(b, (uint32_t)rules.ttl);
            put16(b, a->type == 1 ? 4 : 16);
            if (a->type != 1)
                put(b, "\xFD\0\0\0\0\0\0\0\0\0\0\0", 12);
            put32(b, kind ? 0xC6336401 : (uint32_t)rules.net << 24 | host);
        }
        if (a->opt) {
            size_t optlen = (rules.keepalive >= 0 ? 6u : 0) + (rules.pad > 0 ? 4u + (unsigned)rules.pad : 0);
            b->p[start + 13] = 1;
            put(b, "\0\0\x29\x04\xD0\0\0", 7);
            put16(b, (unsigned)a->dflag << 15);
            put16(b, (unsigned)optlen);
            if (rules.keepalive >= 0) {
                put(b, "\0\x0B\0\2", 4);
                put16(b, (unsigned)rules.keepalive);
            }
            if (rules.pad > 0) {
                put16(b, 12);
                put16(b, (unsigned)rules.pad);
                for (long i = 0; i < rules.pad; i++)
                    put8(b, 0);
            }
        }
    }
    b->p[start] = (unsigned char)((b->n - start - 2) >> 8);
    b->p[start + 1] = (unsigned char)(b->n - start - 2);
}

static void conn_close(struct conn *c, const char *how)
{
    if (c->closing || c->gone)
        return;
    c->closing = 1;
    if (c->up && (strcmp(how, "notify") == 0 || strcmp(how, "half") == 0)) {
        br_ssl_engine_close(&c->sc.eng);
        if (strcmp(how, "half") == 0)
            c->closing = 2;
        return;
    }
    if (strcmp(how, "rst") == 0)
        conn_rst(c);
    conn_die(c, "server", how);
}

/* one query: makes its answer, or does what the rules or the words of its first label say */
static void query_take(struct conn *c, const unsigned char *q, size_t n)
{
    struct asked a;
    struct answer *h;
    char words[sizeof a.text];
    long delay = rules.delay, big = 0;
    int mute = rules.mute, wrong = rules.wrong, half = rules.half, drop = 0;
    unsigned rcode = 0;
    rules_read();
    c->last = now;
    c->queries++;
    if (!query_read(q, n, &a)) {
        note(c, "bad", "size %zu", n);
        return;
    }
    note(c, "query", "name %s type %u size %zu id %u opts %s rd %d cd %d do %d record %ld", a.text, a.type, n, (unsigned)(q[0] << 8 | q[1]),
        a.opts[0] ? a.opts : "-", q[2] & 1, q[3] >> 4 & 1, a.dflag, c->records);
    snprintf(words, sizeof words, "%.*s", (int)strcspn(a.text, "."), a.text);
    for (char *w = strtok(words, "-"); w; w = strtok(NULL, "-")) {
        if (strncmp(w, "wait", 4) == 0) delay = atol(w + 4);
        else if (strncmp(w, "big", 3) == 0) big = atol(w + 3);
        else if (strcmp(w, "mute") == 0) mute = 1;
        else if (strcmp(w, "wrong") == 0) wrong = 1;
        else if (strcmp(w, "half") == 0) half = 1;
        else if (strcmp(w, "nx") == 0) rcode = 3;
        else if (strcmp(w, "drop") == 0) drop = 1;
    }
    c->waiting++;
    if (drop || (rules.drop > 0 && rules.times != 0 && c->waiting >= rules.drop)) {
        if (rules.times > 0)
            rules.times--;
        conn_close(c, rules.how);
        return;
    }
    if (mute || c->id <= rules.muted || c->nheld == (int)(sizeof c->held / sizeof c->held[0]))
        return;
    h = &c->held[c->nheld++];
    memset(h, 0, sizeof *h);
    h->due = now + delay;
    if (wrong) {
        answer_make(&h->b, q, n, &a, 0, 0, 1);
        answer_make(&h->b, q, n, &a, 0, 0, 2);
        answer_make(&h->b, q, n, &a, 0, 0, 3);
        answer_make(&h->b, q, n, &a, 0, 0, 4);
    }
    if (rules.formerr && a.opt) {
        a.opt = 0;
        rcode = 1;
    }
    answer_make(&h->b, q, n, &a, big, rcode, 0);
    for (long i = 0; i < rules.mutate; i++) {
        unsigned char r[3];
        br_hmac_drbg_generate(&rng, r, sizeof r);
        h->b.p[2 + (unsigned)(r[0] << 8 | r[1]) % (h->b.n - 2)] = r[2];
    }
    if (half) {
        put(&c->out, h->b.p, h->b.n / 2);
        free(h->b.p);
        c->nheld--;
        c->closing = 3;
    }
}

static void answers_due(struct conn *c)
{
    struct answer keep[4096];
    int n = 0, all = c->nheld;
    if (rules.batch > 0 && all < rules.batch)
        return;
    for (int i = 0; i < all; i++) {
        struct answer *h = &c->held[rules.batch > 0 && strcmp(rules.order, "lifo") == 0 ? all - 1 - i : i];
        if (h->due > now || c->closing) {
            keep[n++] = *h;
            continue;
        }
        put(&c->out, h->b.p, h->b.n);
        free(h->b.p);
        c->waiting--;
        c->answers++;
        if (rules.after > 0 && c->answers >= rules.after)
            c->closing = 3;             /* once all is out */
    }
    memcpy(c->held, keep, (size_t)n * sizeof keep[0]);
    c->nheld = n;
}

static void conn_flush(struct conn *c)
{
    while (c->raw.n > 0) {
        size_t n = rules.wire > 0 && (size_t)rules.wire < c->raw.n ? (size_t)rules.wire : c->raw.n;
        ssize_t r = send(c->fd, c->raw.p, n, MSG_NOSIGNAL);
        if (r < 0 && errno == EAGAIN)
            return;
        if (r <= 0) {
            conn_die(c, "client", strerror(errno) ? "write" : "");
            return;
        }
        take(&c->raw, (size_t)r);
    }
}

/* moves bytes between engine, queues and socket until nothing moves */
static void conn_move(struct conn *c)
{
    br_ssl_engine_context *e = &c->sc.eng;
    for (int moved = 1; moved && !c->gone && !c->stalled;) {
        unsigned s = br_ssl_engine_current_state(e);
        size_t n;
        unsigned char *b;
        moved = 0;
        if (s & BR_SSL_SENDREC) {
            b = br_ssl_engine_sendrec_buf(e, &n);
            if (fault(c, "mid") && c->sent + (long)n > rules.cut && !c->up) {
                size_t k = (size_t)(rules.cut > c->sent ? rules.cut - c->sent : 0);
                put(&c->raw, b, k);
                conn_flush(c);
                if (!c->gone)
                    strike(c);
                return;
            }
            put(&c->raw, b, n);
            c->sent += (long)n;
            br_ssl_engine_sendrec_ack(e, n);
            moved = 1;
            continue;
        }
        if (!c->up && s & BR_SSL_SENDAPP) {
            br_ssl_session_parameters sp;
            br_ssl_engine_get_session_parameters(e, &sp);
            c->up = 1;
            c->handshake = now - c->t0;
            note(c, "up", "version %04x suite %04x resumed %d", sp.version, sp.cipher_suite, c->sent < 400);
            if (fault(c, "up")) {
                conn_flush(c);
                strike(c);
                return;
            }
        }
        if (s & BR_SSL_RECVAPP) {
            b = br_ssl_engine_recvapp_buf(e, &n);
            if (!c->sawdata++)
                note(c, "data", "bytes %zu", n);
            c->app += (long)n;
            put(&c->in, b, n);
            br_ssl_engine_recvapp_ack(e, n);
            while (!c->gone && c->in.n >= 2 && c->in.n >= 2u + (size_t)(c->in.p[0] << 8 | c->in.p[1])) {
                size_t len = (size_t)(c->in.p[0] << 8 | c->in.p[1]);
                query_take(c, c->in.p + 2, len);
                take(&c->in, 2 + len);
            }
            moved = 1;
        }
        if (c->gone)
            return;
        answers_due(c);
        if (c->out.n > 0 && s & BR_SSL_SENDAPP && now - c->dripped >= rules.trickle) {
            b = br_ssl_engine_sendapp_buf(e, &n);
            if (b) {
                if (n > c->out.n)
                    n = c->out.n;
                if (rules.trickle > 0)
                    n = rules.record > 0 ? n : 1, c->dripped = now;
                if (rules.record > 0 && n > (size_t)rules.record)
                    n = (size_t)rules.record;
                memcpy(b, c->out.p, n);
                br_ssl_engine_sendapp_ack(e, n);
                br_ssl_engine_flush(e, 0);
                take(&c->out, n);
                moved = 1;
            }
        } else if (rules.reneg && c->answers > 0 && !c->reneg && s & BR_SSL_SENDAPP) {
            c->reneg = 1;
            note(c, "reneg", "asked %d", br_ssl_engine_renegotiate(e));
            moved = 1;
        }
        if (br_ssl_engine_current_state(e) == BR_SSL_CLOSED && !(c->closing == 2)) {
            conn_flush(c);
            if (!c->gone)
                conn_die(c, c->closing ? "server" : "client", br_ssl_engine_last_error(e) ? "error" : "notify");
            return;
        }
    }
    if (c->gone)
        return;
    conn_flush(c);
    if (!c->flight && c->sent > 1000 && c->raw.n == 0) {
        c->flight = 1;
        note(c, "flight", "bytes %ld", c->sent);
    }
    if (!c->gone && c->closing == 3 && c->out.n == 0 && c->raw.n == 0) {
        c->closing = 0;
        conn_close(c, rules.half ? "fin" : rules.how);
        if (!c->gone)
            conn_move(c);
    }
}

static void conn_read(struct conn *c)
{
    static unsigned char block[65536];
    br_ssl_engine_context *e = &c->sc.eng;
    size_t at = 0, n;
    ssize_t r = recv(c->fd, block, sizeof block, 0);
    if (r < 0 && errno == EAGAIN)
        return;
    if (r <= 0) {
        conn_die(c, "client", r == 0 ? "fin" : "rst");
        return;
    }
    if (c->wire == 0 && (block[0] < 0x14 || block[0] > 0x17))
        note(c, "plain", "byte %u size %zd", block[0], r);
    c->wire += (long)r;
    records_count(c, block, (size_t)r);
    if (!c->hello) {
        put(&c->first, block, (size_t)r);
        c->hello = hello_note(c);
        if (c->hello && rules.pause > 0)
            poll(NULL, 0, (int)rules.pause);
        if (c->hello && fault(c, "hello")) {
            strike(c);
            return;
        }
    }
    while (at < (size_t)r && !c->gone && !c->stalled) {
        if (br_ssl_engine_current_state(e) & BR_SSL_RECVREC) {
            unsigned char *b = br_ssl_engine_recvrec_buf(e, &n);
            if (n > (size_t)r - at)
                n = (size_t)r - at;
            memcpy(b, block + at, n);
            br_ssl_engine_recvrec_ack(e, n);
            at += n;
        } else {
            size_t before = c->raw.n + c->in.n;
            conn_move(c);
            if (c->gone || c->stalled || (!(br_ssl_engine_current_state(e) & BR_SSL_RECVREC) && before == c->raw.n + c->in.n))
                break;
        }
        if (!(br_ssl_engine_current_state(e) & BR_SSL_RECVREC))
            conn_move(c);
    }
}

static void conn_clock(struct conn *c)
{
    if (c->gone || c->stalled)
        return;
    if (c->up && ((rules.idle > 0 && now - c->last >= rules.idle && c->waiting == 0 && c->raw.n == 0) || (rules.life > 0 && now - c->t0 >= rules.life)))
        conn_close(c, rules.how);
    if (!c->gone)
        conn_move(c);
}

/* serve WORD...: cert=FILE (.pem and .key) key=FILE log=FILE rules=FILE port=FILE (written when it listens)
 * addr=ADDRESS on=PORT tls=10|11|12 suites=HEX,HEX */
static int serve(int argc, char **argv)
{
    const char *certfile = NULL, *keyfile = NULL, *logname = NULL, *portname = NULL, *addr = "127.0.0.1";
    struct sockaddr_storage sa = { 0 };
    socklen_t salen;
    struct buf der_[80];
    char path[1024];
    int lfd, ufd, on = 0, one = 1, v6;
    static struct pollfd fds[4096];
    static struct conn *who[4096];
    for (int i = 0; i < argc; i++) {
        char *a = argv[i], *v = strchr(a, '=');
        if (v == NULL)
            die("serve: %s?", a);
        *v++ = 0;
        if (strcmp(a, "cert") == 0) certfile = v;
        else if (strcmp(a, "key") == 0) keyfile = v;
        else if (strcmp(a, "log") == 0) logname = v;
        else if (strcmp(a, "rules") == 0) rules_file = v;
        else if (strcmp(a, "port") == 0) portname = v;
        else if (strcmp(a, "addr") == 0) addr = v;
        else if (strcmp(a, "on") == 0) on = atoi(v);
        else if (strcmp(a, "tls") == 0) version = BR_TLS10 + (unsigned)(v[1] - '0');
        else if (strcmp(a, "suites") == 0)
            for (char *s = v; *s; s += *s == ',')
                suites[nsuites++] = (uint16_t)strtoul(s, &s, 16);
        else die("serve: %s?", a);
    }
    snprintf(path, sizeof path, "%s.pem", certfile);
    chain_len = pem_read(path, der_, 80);
    for (size_t i = 0; i < chain_len; i++)
        chain[i].data = der_[i].p, chain[i].data_len = der_[i].n;
    snprintf(path, sizeof path, "%s.key", keyfile ? keyfile : certfile);
    key_load(&server_key, path);
    issuer_type = memmem(der_[0].p, der_[0].n < 60 ? der_[0].n : 60, "\x2A\x86\x48\x86\xF7\x0D\x01\x01\x0B", 9) ? BR_KEYTYPE_RSA : BR_KEYTYPE_EC;
    br_ssl_session_cache_lru_init(&cache_lru, cache_store, sizeof cache_store);
    rules_start = (struct rules){ .how = "notify", .cut = 100, .times = -1, .keepalive = -1, .ttl = 300, .net = 10, .cache = "on" };
    rules = rules_start;
    if ((logf_ = fopen(logname, "a")) == NULL)
        die("%s: %s", logname, strerror(errno));
    started_at = now = clock_ms();
    v6 = strchr(addr, ':') != NULL;
    if (v6) {
        struct sockaddr_in6 *s = (void *)&sa;
        s->sin6_family = AF_INET6;
        s->sin6_port = htons((uint16_t)on);
        inet_pton(AF_INET6, addr, &s->sin6_addr);
        salen = sizeof *s;
    } else {
        struct sockaddr_in *s = (void *)&sa;
        s->sin_family = AF_INET;
        s->sin_port = htons((uint16_t)on);
        inet_pton(AF_INET, addr, &s->sin_addr);
        salen = sizeof *s;
    }
    lfd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
    setsockopt(lfd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(lfd, (void *)&sa, salen) || listen(lfd, 256))
        die("%s@%d: %s", addr, on, strerror(errno));
    getsockname(lfd, (void *)&sa, &salen);
    ufd = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
    if (bind(ufd, (void *)&sa, salen))
        close(ufd), ufd = -1;
    fcntl(lfd, F_SETFL, O_NONBLOCK);
    rules_read();
    if (portname) {
        struct buf b = { 0 };
        snprintf(path, sizeof path, "%d\n", ntohs(((struct sockaddr_in *)(void *)&sa)->sin_port));
        puts_(&b, path);
        snprintf(path, sizeof path, "%s.new", portname);
        spit(path, "", &b);
        rename(path, portname);
    }
    for (;;) {
        int n = 2, wait = 20;
        struct conn **p;
        for (struct conn *c = conns; c && n < 4096; c = c->next) {
            unsigned s = c->stalled ? 0 : br_ssl_engine_current_state(&c->sc.eng);
            for (int i = 0; i < c->nheld; i++)
                if (!rules.batch && c->held[i].due - now < wait)
                    wait = c->held[i].due > now ? (int)(c->held[i].due - now) : 0;
            fds[n].fd = c->fd;
            fds[n].events = (short)(POLLRDHUP | (s & BR_SSL_RECVREC && !c->stalled ? POLLIN : 0) | (c->raw.n ? POLLOUT : 0));
            if (c->stalled && strcmp(rules.what, "deaf") != 0)
                fds[n].events |= POLLIN;        /* reads what comes, says nothing */
            who[n++] = c;
        }
        fds[0].fd = lfd, fds[0].events = POLLIN;
        fds[1].fd = ufd, fds[1].events = POLLIN;
        poll(fds, (nfds_t)n, wait);
        now = clock_ms();
        rules_read();
        if (fds[0].revents)
            conn_new(lfd);
        if (fds[1].revents & POLLIN) {
            unsigned char d[65536];
            note(NULL, "plain", "datagram size %zd", recv(ufd, d, sizeof d, 0));
        }
        for (int i = 2; i < n; i++) {
            struct conn *c = who[i];
            if (c->gone)
                continue;
            if (c->stalled) {
                unsigned char d[4096];
                ssize_t r = fds[i].revents & POLLIN && strcmp(rules.what, "deaf") != 0 ? recv(c->fd, d, sizeof d, 0) : 1;
                if (r > 1 || (r == 1 && fds[i].revents & POLLIN))
                    c->wire += (long)r;
                if (r <= 0 || fds[i].revents & (POLLERR | POLLHUP | POLLRDHUP))
                    conn_die(c, "client", "fault");
                continue;
            }
            if (kick_seen) {
                conn_close(c, rules.how);
                if (!c->gone)
                    conn_move(c);
                continue;
            }
            if (fds[i].revents & (POLLIN | POLLERR | POLLHUP | POLLRDHUP))
                conn_read(c);
            if (!c->gone)
                conn_clock(c);
        }
        kick_seen = 0;
        for (p = &conns; *p;) {
            struct conn *c = *p;
            if (!c->gone) {
                p = &c->next;
                continue;
            }
            *p = c->next;
            for (int i = 0; i < c->nheld; i++)
                free(c->held[i].b.p);
            free(c->first.p), free(c->in.p), free(c->out.p), free(c->raw.p), free(c);
        }
    }
    return 0;
}

/* ---- Client ------------------------------------------------------------ */

/* load PORT COUNT WORD...: asks COUNT fresh names for A over UDP and checks the addresses (the last three bytes come from
 * the name). name=PATTERN (% becomes number and chance) window=N in flight, or rate=N a second; timeout=MS. Prints what became of them:
 * sent right wrong failed (any other RCODE) lost worst (ms) from (first byte of the address:count ...)
 * With cpu=PID also cpu, the most CPU time of that process between a query and its answer, and used, all it had meanwhile (us) */
static clockid_t cpu_clock;
static long cpu_us(void)
{
    struct timespec ts;
    return cpu_clock && clock_gettime(cpu_clock, &ts) == 0 ? (long)(ts.tv_sec * 1000000 + ts.tv_nsec / 1000) : 0;
}

struct sent { long at, cpu; uint16_t id; uint32_t number; int done; char name[200]; };

static size_t name_wire(unsigned char *w, const char *s)
{
    size_t n = 0;
    while (*s) {
        size_t k = strcspn(s, ".");
        w[n++] = (unsigned char)k;
        memcpy(w + n, s, k);
        n += k;
        s += k + (s[k] == '.');
    }
    w[n++] = 0;
    return n;
}

static int load(int argc, char **argv)
{
    int port = atoi(argv[0]), count = atoi(argv[1]), window = 1, rate = 0, timeout = 6000, next = 0, done = 0, open_ = 0, first = 0;
    int right = 0, wrong = 0, failed = 0, from[256] = { 0 }, fd = socket(AF_INET, SOCK_DGRAM, 0), room = 1 << 22;
    long worst = 0, start = clock_ms(), cpu_start, cpu_worst = 0;
    const char *pattern = "n%.load.test";
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sent *all = grown(NULL, (size_t)count * sizeof *all);
    static int byid[65536];
    unsigned char m[65536], base[5];
    br_hmac_drbg_generate(&rng, base, sizeof base);
    for (int i = 2; i < argc; i++) {
        char *v = strchr(argv[i], '=');
        if (v == NULL)
            die("load: %s?", argv[i]);
        *v++ = 0;
        if (strcmp(argv[i], "name") == 0) pattern = v;
        else if (strcmp(argv[i], "window") == 0) window = atoi(v);
        else if (strcmp(argv[i], "rate") == 0) rate = atoi(v);
        else if (strcmp(argv[i], "timeout") == 0) timeout = atoi(v);
        else if (strcmp(argv[i], "cpu") == 0) {
            if (clock_getcpuclockid(atoi(v), &cpu_clock))
                cpu_clock = 0;
        } else die("load: %s?", argv[i]);
    }
    cpu_start = cpu_us();
    memset(byid, -1, sizeof byid);
    memset(all, 0, (size_t)count * sizeof *all);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    if (connect(fd, (void *)&sa, sizeof sa))
        die("connect: %s", strerror(errno));
    while (done < count) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        long t = clock_ms(), wait;
        while (next < count && (rate ? (long)next * 1000 / rate <= t - start : open_ < window)) {
            struct sent *s = &all[next];
            size_t n;
            const char *star = strchr(pattern, '%');
            if (star)
                snprintf(s->name, sizeof s->name, "%.*s%dx%02x%02x%02x%s", (int)(star - pattern), pattern, next, base[2], base[3], base[4], star + 1);
            else
                snprintf(s->name, sizeof s->name, "%s", pattern);
            s->id = (uint16_t)((base[0] << 8 | base[1]) + next * 7);
            byid[s->id] = next;
            memset(m, 0, 12);
            m[0] = (unsigned char)(s->id >> 8);
            m[1] = (unsigned char)s->id;
            m[2] = 1;
            m[5] = 1;
            n = 12 + name_wire(m + 12, s->name);
            s->number = name_number(m + 12, n - 12);
            memcpy(m + n, "\0\1\0\1", 4);
            s->at = t;
            s->cpu = cpu_us();
            if (send(fd, m, n + 4, 0) < 0 && errno == ECONNREFUSED)
                send(fd, m, n + 4, 0);
            next++;
            open_++;
        }
        wait = rate && next < count ? start + (long)next * 1000 / rate + 1 - t : 20;
        poll(&p, 1, wait > 0 ? (int)wait : 0);
        t = clock_ms();
        for (ssize_t r; (r = recv(fd, m, sizeof m, MSG_DONTWAIT)) >= 12;) {
            int i = byid[m[0] << 8 | m[1]];
            struct sent *s = i >= 0 ? &all[i] : NULL;
            if (s == NULL || s->done) {
                wrong++;                        /* nobody asked, or answered twice */
                continue;
            }
            s->done = 1;
            done++;
            open_--;
            if (t - s->at > worst)
                worst = t - s->at;
            if (cpu_us() - s->cpu > cpu_worst)
                cpu_worst = cpu_us() - s->cpu;
            if ((m[3] & 15) != 0 || m[7] == 0)
                failed++;
            else {
                size_t at = 12 + strlen(s->name) + 2 + 4 + 12;
                uint32_t a = at + 4 <= (size_t)r ? (uint32_t)m[at] << 24 | (uint32_t)m[at + 1] << 16 | (uint32_t)m[at + 2] << 8 | m[at + 3] : 0;
                if ((a & 0xFFFFFF) == s->number)
                    right++, from[a >> 24]++;
                else
                    wrong++;
            }
        }
        for (; first < next && (all[first].done || t - all[first].at > timeout); first++)
            if (!all[first].done)
                all[first].done = 1, byid[all[first].id] = -1, done++, open_--, from[0]++;
    }
    printf("sent %d right %d wrong %d failed %d lost %d worst %ld ", next, right, wrong, failed, from[0], worst);
    if (cpu_clock)
        printf("cpu %ld used %ld ", cpu_worst, cpu_us() - cpu_start);
    printf("from ");
    for (int i = 1, k = 0; i < 256; i++)
        if (from[i])
            printf("%s%d:%d", k++ ? "," : "", i, from[i]);
    puts("");
    return 0;
}

/* addr NET NAME: the address that a server with net=NET gives NAME */
static int addr(char **argv)
{
    unsigned char w[300];
    uint32_t h = name_number(w, name_wire(w, argv[1]));
    printf("%s.%u.%u.%u\n", argv[0], h >> 16, h >> 8 & 255, h & 255);
    return 0;
}

/* clock FILE SECONDS|real: what a program with clock.so takes the time for, from now on */
static int clock_set(char **argv)
{
    int64_t offset = strcmp(argv[1], "real") == 0 ? 0 : atol(argv[1]) - (int64_t)time(NULL);
    int fd = open(argv[0], O_WRONLY | O_CREAT, 0644);
    return fd < 0 || write(fd, &offset, sizeof offset) != sizeof offset;
}

int main(int argc, char **argv)
{
    rng_init();
    signal(SIGPIPE, SIG_IGN);
    if (argc > 2 && strcmp(argv[1], "cert") == 0)
        return cert(argc - 2, argv + 2);
    if (argc > 2 && strcmp(argv[1], "serve") == 0)
        return serve(argc - 2, argv + 2);
    if (argc > 3 && strcmp(argv[1], "load") == 0)
        return load(argc - 2, argv + 2);
    if (argc == 4 && strcmp(argv[1], "addr") == 0)
        return addr(argv + 2);
    if (argc == 4 && strcmp(argv[1], "clock") == 0)
        return clock_set(argv + 2);
    if (argc == 2 && strcmp(argv[1], "now") == 0)
        return printf("%ld\n", (long)time(NULL)) < 0;
    die("usage: tls cert|serve|load|addr|clock|now ...");
    return 2;
}
END
}

# ---- Unit tests: a program that includes dnsproxy.c ----------------------

LEGS="$LEGS unit"

# lab_source: $T/lab.h, what the unit tests and the fuzz targets share: dnsproxy.c itself, writing messages, and the
# invariants of the cache
lab_source()
{
    cat >"$T/lab.h" <<'END_OF_LAB'
#ifdef LAB_FAKES
#include LAB_FAKES
#endif
#define main dnsproxy_main
#include "dnsproxy.c"
#undef main

static struct key put_key;

/* ---- Writing messages: into m, n bytes so far */

static uint8_t m[80000];
static size_t n;

static void w16(unsigned v) { put16at(m + n, v); n += 2; }
static void w32(uint32_t v) { put32at(m + n, v); n += 4; }
static void wbytes(const void *p, size_t k) { if (k > 0) memcpy(m + n, p, k); n += k; }

static void head(unsigned id, unsigned flags, unsigned qd, unsigned an, unsigned ns, unsigned ar)
{
	n = 0;
	w16(id); w16(flags); w16(qd); w16(an); w16(ns); w16(ar);
}

/* "www.example.com" as it stands; NULL: a pointer to the question. */
static void wname(const char *s)
{
	if (s == NULL) {
		w16(0xc00c);
		return;
	}
	while (*s != '\0') {
		size_t k = strcspn(s, ".");
		m[n++] = (uint8_t)k;
		wbytes(s, k);
		s += k + (s[k] == '.');
	}
	m[n++] = 0;
}

static void wquestion(const char *name, unsigned type) { wname(name); w16(type); w16(1); }

static void wrr(const char *name, unsigned type, uint32_t ttl, const void *rdata, size_t k)
{
	wname(name); w16(type); w16(1); w32(ttl); w16((unsigned)k);
	wbytes(rdata, k);
}

static void wopt(unsigned size, uint32_t ttl, const void *options, size_t k)
{
	m[n++] = 0; w16(T_OPT); w16(size); w32(ttl); w16((unsigned)k);
	wbytes(options, k);
}

/* A record whose RDATA is "skip" zero bytes and a name. */
static void wrr_name(const char *name, unsigned type, uint32_t ttl, size_t skip, const char *target)
{
	size_t at;

	wname(name); w16(type); w16(1); w32(ttl);
	at = n;
	w16(0);
	memset(m + n, 0, skip);
	n += skip;
	wname(target);
	put16at(m + at, (unsigned)(n - at - 2));
}

static void wsoa(const char *name, uint32_t ttl, uint32_t minimum)
{
	size_t at;

	wname(name); w16(T_SOA); w16(1); w32(ttl);
	at = n;
	w16(0);
	wname("ns.test"); wname(NULL);
	w32(1); w32(2); w32(3); w32(4); w32(minimum);
	put16at(m + at, (unsigned)(n - at - 2));
}

static void lab_key(struct key *k, const char *name, unsigned type, unsigned flags)
{
	key_set(k, name_parse(k->b, name), type, 1, flags);
}

/* A positive answer of about "size" bytes for name. */
static void wanswer(const char *name, unsigned type, uint32_t ttl, size_t size)
{
	static uint8_t zero[66000];

	head(7, F_QR | F_RD | F_RA, 1, 1, 0, 0);
	wquestion(name, type);
	wrr(NULL, type, ttl, zero, type == T_A ? 4 : type == T_AAAA ? 16 : size > n + 12 ? size - n - 12 : 0);
}

/* ---- The cache's invariants, as its comment tells them. Gives NULL or the first that is broken. */

static const char *cache_broken(void)
{
	size_t live = 0, dead = 0, used = 0, at = cache.tail, inring = 0;

	if (cache.memory == 0)
		return cache.entries || cache.used ? "entries without memory" : NULL;
	if ((uint8_t *)cache.slots + cache.memory < cache.ring + cache.size)
		return "the ring ends beyond the block";
	for (size_t i = 0; i < cache.nslots; i++) {
		const struct slot *s = &cache.slots[i];
		const struct entry *e;
		size_t place;
		if (s->at == 0)
			continue;
		place = (size_t)(s->at - 1) * 4;
		if (place >= cache.size || cache.size - place < sizeof *e)
			return "a slot points beyond the ring";
		e = entry_at(place);
		if (e->bits & (E_DEAD | E_FILLER))
			return "a slot points to a dead entry";
		if (e->hash != s->hash)
			return "slot and entry differ in their hash";
		if (s < slot_first(s->hash) || s >= slot_first(s->hash) + PROBE)
			return "an entry is not within the probes of its hash";
		if (entry_size(e) > cache.size - place)
			return "an entry reaches beyond the ring";
		live++;
		used += entry_size(e);
	}
	for (unsigned left = cache.nring; left > 0; ) {
		const struct entry *e = entry_at(at);
		if (cache.size - at < sizeof *e || (e->bits & E_FILLER)) {
			at = 0;
			continue;
		}
		if (entry_size(e) > cache.size - at)
			return "an entry reaches beyond the ring";
		dead += e->bits & E_DEAD ? entry_size(e) : 0;
		inring += e->bits & E_DEAD ? 0 : 1;
		at += entry_size(e);
		left--;
	}
	if (cache.nring > 0 && at != cache.head)
		return "the entries from the tail on do not end at the head";
	if (live != cache.entries || inring != live)
		return "the number of entries is wrong";
	if (used != cache.used || dead != cache.dead)
		return "the bytes of live or dead entries are wrong";
	return NULL;
}

/* A cache of another size; the old one's memory is not given back. */
static void cache_again(size_t memory)
{
	memset(&cache, 0, sizeof cache);
	cache_init(memory);
}

/* The tables of the program, as main() makes them. */
static void lab_tables(void)
{
	hash_init();
	query_init();
	descriptors_init();
	cache_init((size_t)cfg.cache_size);
	tcp_init();
	pool_init(&admins, MAX_ADMIN, sizeof(struct admin));
	origin_number(&cfg.specs[0].addr);
}

static uint64_t lab_random = 88172645463325252u;
static uint32_t lab_rnd(void)
{
	lab_random ^= lab_random << 13;
	lab_random ^= lab_random >> 7;
	lab_random ^= lab_random << 17;
	return (uint32_t)(lab_random >> 16);
}

/* ---- Reading configurations and admin lines */

/* Keeps p as a seed for the fuzz target "kind", if the environment says where. */
static void seed(const char *kind, const void *p, size_t k)
{
	static unsigned number;
	const char *dir = getenv("SEEDS");
	char path[512];
	FILE *f;

	if (dir == NULL)
		return;
	snprintf(path, sizeof path, "%s/%s/%u", dir, kind, ++number);
	if ((f = fopen(path, "w")) != NULL) {
		fwrite(p, 1, k, f);
		fclose(f);
	}
}

static char errors[65536], normal[65536];

/* Reads text as arguments. Its normal form, or NULL with the errors in "errors". */
static const char *config_of(const char *text)
{
	static char copy[65536], *lines[300];
	static struct config c;
	struct text e = { errors, sizeof errors, 0 };
	char from[80], *save;
	unsigned k = 0;
	FILE *f;

	snprintf(copy, sizeof copy, "%s", text);
	for (char *l = strtok_r(copy, "\n", &save); l != NULL && k < COUNT(lines) - 1; l = strtok_r(NULL, "\n", &save))
		lines[k++] = l;
	lines[k] = NULL;
	errors[0] = normal[0] = '\0';
	source = (struct source){ .lines = lines };
	seed("config", text, strlen(text));
	if (!config_read(&c, &e, from))
		return NULL;
	f = fmemopen(normal, sizeof normal, "w");
	config_print(f, &c);
	fclose(f);
	return normal;
}

/* What the program replies to one line. */
static const char *admin_of(const char *line)
{
	static struct admin a;
	static char reply[200000], copy[600];
	size_t at = 0;

	memset(&a, 0, sizeof a);
	a.fd = -1;
	a.reply = (struct text){ a.out, sizeof a.out, 0 };
	snprintf(copy, sizeof copy, "%s", line);
	seed("admin", line, strlen(line));
	if (!admin_line(&a, copy, strlen(copy)))
		return "(more)";
	reply[0] = '\0';
	for (;;) {
		memcpy(reply + at, a.reply.p, a.reply.len);
		at += a.reply.len;
		reply[at] = '\0';
		a.reply.len = 0;
		a.out[0] = '\0';
		if (a.next == NULL || at > sizeof reply - sizeof a.out || !a.next(&a, &a.reply))
			return reply;
	}
}
END_OF_LAB
}

# unit_source: $T/unit.c
unit_source()
{
    lab_source
    cat >"$T/unit.c" <<'END_OF_UNIT'
#include "lab.h"

/* Each promise is one call of is() or of all(); all() sums up what each() saw since the last of them. */
static unsigned nbad;
static char bad[400];

static void is(bool good, const char *text)
{
	printf("%s %s\n", good ? "ok" : "not ok", text);
	fflush(stdout);
}

static void each(bool good, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void each(bool good, const char *fmt, ...)
{
	va_list ap;

	if (good || nbad++ > 0)
		return;
	va_start(ap, fmt);
	vsnprintf(bad, sizeof bad, fmt, ap);
	va_end(ap);
	for (char *c = bad; *c != '\0'; c++)
		if (*c == '\n')
			*c = '|';
}

static void all(const char *text)
{
	if (nbad > 0)
		printf("# %u wrong, the first: %s\n", nbad, bad);
	is(nbad == 0, text);
	nbad = 0;
}

/* ---- Tools */

static void test_tools(void)
{
	static const struct { const char *s; int64_t lo, hi, want; } numbers[] = {
		{ "0", 0, 9, 0 }, { "9", 0, 9, 9 }, { "10", 0, 9, -1 }, { "", 0, 9, -1 }, { "-1", -5, 9, -1 }, { "+1", 0, 9, -1 }, { " 1", 0, 9, -1 },
		{ "1 ", 0, 9, -1 }, { "0x1", 0, 9, -1 }, { "1k", 0, 9, -1 }, { "007", 0, 9, 7 }, { "99999999999999999999", 0, INT64_MAX, -1 },
		{ "18446744073709551617", 0, INT64_MAX, -1 }, { "65535", 1, 65535, 65535 }, { "65536", 1, 65535, -1 } };
	static const struct { const char *s, *want; } addrs[] = {
		{ "127.0.0.1", "127.0.0.1" }, { "::1", "::1" }, { "2001:DB8:0:0:0:0:0:1", "2001:db8::1" }, { "fe80::1%br-lan", "fe80::1%br-lan" },
		{ "255.255.255.255", "255.255.255.255" }, { "::ffff:192.0.2.1", "::ffff:192.0.2.1" },
		{ "", NULL }, { "10.1", NULL }, { "1", NULL }, { "0x7f000001", NULL }, { "127.0.0.01", NULL }, { "1.2.3.4.5", NULL }, { "256.1.1.1", NULL },
		{ "localhost", NULL }, { "fe80::1%", NULL }, { "::g", NULL }, { "1.2.3.4%eth0", NULL }, { "fe80::1%anamethatistoolongforaninterface", NULL },
		{ "1:2:3:4:5:6:7:8:9", NULL }, { "[::1]", NULL } };
	static const struct { const char *net, *in, *out; } nets[] = {
		{ "10.0.0.0/8", "10.255.255.255", "11.0.0.0" }, { "172.16.0.0/12", "172.31.255.255", "172.32.0.0" }, { "192.0.2.7", "192.0.2.7", "192.0.2.6" },
		{ "192.0.2.128/25", "192.0.2.255", "192.0.2.127" }, { "0.0.0.0/0", "203.0.113.9", "::1" }, { "::/0", "2001:db8::1", "127.0.0.1" },
		{ "fc00::/7", "fdff::1", "fe00::1" }, { "2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1" }, { "::1/128", "::1", "::2" } };
	static const char *const bad_nets[] = { "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/a", "10.0.0.0/-1", "10.0.0.0/8/8", "/8", "10/8", "fe80::1%lo/64", "10.0.0.0/ 8" };
	char buf[8];
	struct text t = { buf, sizeof buf, 0 };
	struct addr a, b;
	struct cidr c;

	for (size_t i = 0; i < COUNT(numbers); i++)
		each(number(numbers[i].s, numbers[i].lo, numbers[i].hi) == numbers[i].want, "\"%s\"", numbers[i].s);
	all("a number is the whole word and within its bounds");
	for (size_t i = 0; i < COUNT(addrs); i++)
		each(addrs[i].want ? addr_parse(&a, addrs[i].s) && strcmp(addr_text(&a), addrs[i].want) == 0 : !addr_parse(&a, addrs[i].s), "\"%s\"", addrs[i].s);
	all("an address is numeric, whole, and written in its normal form");
	for (size_t i = 0; i < COUNT(nets); i++)
		each(cidr_parse(&c, nets[i].net) && addr_parse(&a, nets[i].in) && addr_parse(&b, nets[i].out) && addr_in(&a, &c.net, c.bits) &&
		    !addr_in(&b, &c.net, c.bits), "%s", nets[i].net);
	all("a network holds its first and last address and not those beside it");
	for (size_t i = 0; i < COUNT(bad_nets); i++)
		each(!cidr_parse(&c, bad_nets[i]), "%s", bad_nets[i]);
	all("what is no network is refused");
	text_add(&t, "%s", "abc");
	text_add(&t, "%s", "defghijk");
	text_add(&t, "%s", "lmn");
	is(strcmp(buf, "abcdefg") == 0 && t.len == 7, "text that does not fit is cut, and ends with NUL");
	addr_parse(&a, "2001:db8:1:2:3::4");
	addr_parse(&b, "2001:db8:1:2:ffff::5");
	is(addr_client(&a) == addr_client(&b), "an IPv6 client is its /64");
	addr_parse(&a, "192.0.2.1");
	addr_parse(&b, "192.0.2.2");
	is(addr_client(&a) != addr_client(&b), "an IPv4 client is its /32");
}

/* ---- Names */

static void test_names(void)
{
	static const struct { const char *s, *want; } names[] = {
		{ ".", "." }, { "com", "com." }, { "WWW.Example.COM.", "www.example.com." }, { "a\\.b.c", "a\\.b.c." }, { "\\097.\\065", "a.a." },
		{ "\\000\\255.x", "\\000\\255.x." }, { "a\\\\b", "a\\\\b." }, { "sp ace", "sp\\032ace." }, { "_25._tcp.x", "_25._tcp.x." }, { "\\..\\.", "\\..\\.." },
		{ "*.x", "*.x." }, { "semi;colon", "semi\\;colon." }, { "", NULL }, { "..", NULL }, { ".a", NULL }, { "a..b", NULL }, { "a..", NULL },
		{ "a\\", NULL }, { "\\256", NULL }, { "\\299.x", NULL } };
	uint8_t name[NAME_MAX_WIRE], other[NAME_MAX_WIRE];
	char text[NAME_TEXT + 8], *at;
	size_t k;

	for (size_t i = 0; i < COUNT(names); i++) {
		k = name_parse(name, names[i].s);
		each(names[i].want ? k > 0 && strcmp(name_text(name), names[i].want) == 0 && k == name_len(name) : k == 0, "\"%s\" gives \"%s\"", names[i].s,
		    k ? name_text(name) : "nothing");
	}
	all("names in text form become wire names and back, in lower case, escaped; what is no name is refused");
	for (unsigned c = 0; c < 256; c++) {
		uint8_t wire[] = { 3, 'x', (uint8_t)c, 'y', 0 };
		k = name_parse(name, name_text(wire));
		wire[2] = lower(wire[2]);
		each(k == 5 && memcmp(name, wire, 5) == 0, "byte %u", c);
	}
	all("every byte value of a label survives the way to text and back");
	memset(text, 'a', sizeof text);
	text[63] = text[127] = text[191] = '.';
	text[253] = '\0';
	each(name_parse(name, text) == 255, "253 characters");
	text[253] = '.';
	text[254] = '\0';
	each(name_parse(name, text) == 255, "253 characters and a dot");
	text[253] = 'a';
	each(name_parse(name, text) == 0, "254 characters");
	text[63] = 'a';
	text[64] = '\0';
	each(name_parse(name, text) == 0, "a label of 64");
	text[63] = '\0';
	each(name_parse(name, text) == 65, "a label of 63");
	all("a label of 63 and a name of 255 bytes are the longest");
	for (at = text, k = 0; k < 63 + 63 + 63 + 61; k++) {
		at += sprintf(at, "\\000");
		if (k == 62 || k == 125 || k == 188)
			*at++ = '.';
	}
	each(name_parse(name, text) == 255, "the longest text");
	each(strlen(name_text(name)) < NAME_TEXT, "room for it");
	all("the longest name of escapes has room in text form");

#define BELOW(a, b) name_below(name, name_parse(name, a), other, name_parse(other, b))
	each(BELOW("www.example.com", "example.com"), "below");
	each(BELOW("example.com", "example.com"), "itself");
	each(BELOW("example.com", "."), "the root");
	each(!BELOW("notexample.com", "example.com"), "not at a label");
	each(!BELOW("com", "example.com"), "above");
	each(!BELOW("example.org", "example.com"), "beside");
	each(!BELOW("a\\007example.com", "example.com"), "a length inside a label");
	all("a suffix matches at whole labels only");

	for (unsigned t = 1; t < 65536; t++) {
		const char *s = type_text(t);
		each(type_parse(s) == (int)t, "%u is %s", t, s);
		if (strncmp(s, "TYPE", 4) == 0)
			continue;
		snprintf(text, sizeof text, "type%u", t);
		each(type_parse(text) == (int)t, "%s", text);
	}
	each(type_parse("TYPE0") < 0 && type_parse("TYPE65536") < 0 && type_parse("TYPE") < 0 && type_parse("AA") < 0 && type_parse("") < 0, "no types");
	each(type_parse("aaaa") == 28 && type_parse("https") == 65, "lower case");
	all("every type has a mnemonic or TYPE form that is read back");
}

/* ---- Questions */

/* Reads the n bytes of m in a piece of memory that ends with them. */
static int read_question(struct question *q)
{
	static uint8_t *exact;
	int r;

	free(exact);
	exact = calloc(1, n);
	memcpy(exact, m, n);
	r = question_read(q, exact, n);
	seed("client", m, n);
	return r;
}

static void wquery(const char *name, unsigned type) { head(0x1234, F_RD, 1, 0, 0, 0); wquestion(name, type); }
static void wquery_opt(const char *name, unsigned type, uint32_t ttl, const void *o, size_t k)
{
	head(0x1234, F_RD, 1, 0, 0, 1);
	wquestion(name, type);
	wopt(1232, ttl, o, k);
}

static void test_questions(void)
{
	static uint8_t copy[512];
	static const uint8_t cookie[] = { 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8 };
	struct question q;
	char name[256];
	size_t whole;

	wquery("www.Example.com", T_AAAA);
	is(read_question(&q) == NOERROR && q.id == 0x1234 && q.mixed && !q.edns && key_type(&q.key) == T_AAAA && q.key.name_len == 17 &&
	    memcmp(q.key.b + 1, "www\7example", 11) == 0 && memcmp(q.name + 1, "www\7Example", 11) == 0, "a plain question is read: ID, type, name in both spellings");
	wquery_opt("example.com", T_A, 0x8000, cookie, sizeof cookie);
	is(read_question(&q) == NOERROR && q.edns && q.edns_size == 1232 && (key_flags(&q.key) & KEY_DO) && q.want_ad, "a question with OPT is read: size and DO, and an option is no matter");
	whole = n;
	memcpy(copy, m, n);
	for (n = 0; n < whole; n++)
		each(n < 12 ? read_question(&q) == -1 : read_question(&q) == FORMERR, "%zu bytes", n);
	all("every beginning of a question is FORMERR, and silence below 12 bytes");
	memcpy(m, copy, whole);
	n = whole;
	m[n++] = 0;
	is(read_question(&q) == FORMERR, "a byte after the last record is FORMERR");
	head(1, F_RD | F_CD | F_AD, 1, 0, 0, 0);
	wquestion("x.test", T_A);
	is(read_question(&q) == NOERROR && key_flags(&q.key) == KEY_CD && q.want_ad, "CD is part of the key, AD is wanted");
	wquery("x.test", T_A);
	put16at(m + 2, F_QR | F_RD);
	is(read_question(&q) == -1, "a response is met with silence");
	for (unsigned op = 1; op < 16; op++) {
		wquery("x.test", T_A);
		put16at(m + 2, op << 11 | F_RD);
		each(read_question(&q) == NOTIMP, "opcode %u", op);
	}
	all("every opcode but QUERY is NOTIMP");
	wquery("x.test", T_A);
	put16at(m + 2, 0);
	is(read_question(&q) == REFUSED, "RD=0 is REFUSED");
	wquery("x.test", T_AXFR);
	each(read_question(&q) == NOTIMP, "AXFR");
	wquery("x.test", T_IXFR);
	each(read_question(&q) == NOTIMP, "IXFR");
	all("AXFR and IXFR are NOTIMP");
	for (unsigned i = 0; i < 4; i++)
		for (unsigned v = 0; v < 3; v++) {
			wquery("x.test", T_A);
			put16at(m + 4 + 2 * i, v == 2 ? 65535 : v);
			if (v != (i == 0))
				each(read_question(&q) == FORMERR, "count %u is %u", i, v);
		}
	all("QDCOUNT not 1, records in answer or authority, and missing records are FORMERR");
	wquery_opt("x.test", T_A, 1 << 16, NULL, 0);
	is(read_question(&q) == BADVERS && q.edns, "EDNS version 1 is BADVERS");
	wquery_opt("x.test", T_A, 0, NULL, 0);
	put16at(m + 10, 2);
	wopt(512, 0, NULL, 0);
	is(read_question(&q) == FORMERR, "two OPT records are FORMERR");
	head(1, F_RD, 1, 0, 0, 1);
	wquestion("x.test", T_A);
	wrr("x.test", T_OPT, 0, NULL, 0);
	is(read_question(&q) == FORMERR, "an OPT with a name is FORMERR");
	wquery_opt("x.test", T_A, 0, "\0\12\0\11........", 12);
	is(read_question(&q) == FORMERR, "an EDNS option that runs past its OPT is FORMERR");
	wquery_opt("x.test", T_A, 0, "\0\12\0", 3);
	is(read_question(&q) == FORMERR, "a cut EDNS option is FORMERR");
	head(1, F_RD, 1, 0, 0, 2);
	wquestion("x.test", T_A);
	wrr(NULL, 250, 0, "signature", 9);
	wopt(4096, 0, NULL, 0);
	is(read_question(&q) == NOERROR && q.edns_size == 4096, "other additional records are stepped over");
	head(1, F_RD, 1, 0, 0, 0);
	m[n++] = 1; m[n++] = 'a'; w16(0xc00c); w16(T_A); w16(1);
	is(read_question(&q) == FORMERR, "a compression pointer in the question is FORMERR");
	for (unsigned c = 64; c < 256; c += 8) {
		wquery("x.test", T_A);
		m[12] = (uint8_t)c;
		each(read_question(&q) == FORMERR, "length byte %u", c);
	}
	all("a label of another kind in the question is FORMERR");
	memset(name, 'a', sizeof name);
	name[63] = name[127] = name[191] = '.';
	name[253] = '\0';
	wquery(name, T_A);
	each(read_question(&q) == NOERROR && q.key.name_len == 255, "255");
	name[253] = 'a';
	name[254] = '\0';
	wquery(name, T_A);
	each(read_question(&q) == FORMERR, "256");
	all("a name of 255 bytes is read, one of 256 is FORMERR");
	wquery("", T_NS);
	is(read_question(&q) == NOERROR && q.key.name_len == 1, "the root is a name");
	wquery("x.test", T_OPT);
	is(read_question(&q) == FORMERR, "a question for OPT is FORMERR");
	head(0, F_RD, 1, 0, 0, 65535);
	wquestion("x.test", T_A);
	for (unsigned i = 0; i < 5000; i++)
		wrr("", 99, 0, NULL, 0);
	is(read_question(&q) == FORMERR, "65,535 records announced and 5,000 there are FORMERR");
}

/* ---- Answers */

static struct answer ans;
static uint8_t *exact;

static const char *read_answer(const char *name, unsigned type)
{
	struct key k;
	uint8_t head2[600];

	lab_key(&k, name, type, 0);
	free(exact);
	exact = calloc(1, n ? n : 1);
	memcpy(exact, m, n);
	head2[0] = (uint8_t)(k.len);
	memcpy(head2 + 1, k.b, k.len);
	seed("answer", m, n);
	if (!answer_matches(exact, n, &k))
		return "no match";
	return answer_read(&ans, exact, n, &k);
}

static void test_answers(void)
{
	static const uint8_t ip[16] = { 192, 0, 2, 1 };
	static const struct { unsigned type; size_t len; } wrong[] = { { T_A, 3 }, { T_A, 5 }, { T_A, 0 }, { T_AAAA, 4 }, { T_AAAA, 15 }, { T_NS, 0 }, { T_MX, 2 },
		{ T_MX, 1 }, { T_SRV, 6 }, { T_SOA, 20 }, { T_CNAME, 0 } };
	struct key k;
	char deep[8];
	size_t whole, at;

	head(9, F_QR | F_RD | F_RA, 1, 2, 0, 1);
	wquestion("www.test", T_A);
	wrr_name(NULL, T_CNAME, 300, 0, "web.test");
	wrr("web.test", T_A, 60, ip, 4);
	wopt(1232, 0, NULL, 0);
	is(read_answer("www.test", T_A) == NULL && ans.verdict == V_SUCCESS && ans.ttl == 60 && ans.ancount == 2 && ans.nttl == 2 && ans.opt,
	    "an answer with an alias is a success, its TTL the lowest");
	whole = n;
	for (n = 0; n < whole; n++)
		each(read_answer("www.test", T_A) != NULL, "%zu bytes", n);
	all("no beginning of an answer is an answer");
	n = whole;
	m[n++] = 1;
	each(read_answer("www.test", T_A) == NULL && ans.len == whole, "len %zu", ans.len);
	all("bytes after the last record are cut off");
	head(9, F_QR, 1, 1, 0, 0);
	wquestion("www.test", T_A);
	wrr_name(NULL, T_CNAME, 300, 0, "web.test");
	is(read_answer("www.test", T_A) == NULL && ans.verdict == V_NODATA, "an alias without the asked type is no success");
	is(read_answer("www.test", T_CNAME) != NULL, "an answer to another type is none");
	put16at(m + 12 + 10, T_ANY);
	is(read_answer("www.test", T_ANY) == NULL && ans.verdict == V_SUCCESS, "any record is a success for ANY");
	head(9, F_QR | NXDOMAIN, 1, 0, 1, 0);
	wquestion("no.test", T_A);
	wsoa("test", 900, 300);
	is(read_answer("no.test", T_A) == NULL && ans.verdict == V_NXDOMAIN && ans.soa_ttl == 300, "NXDOMAIN: its life is the SOA's minimum");
	head(9, F_QR, 1, 0, 1, 0);
	wquestion("no.test", T_A);
	wsoa("test", 200, 300);
	is(read_answer("no.test", T_A) == NULL && ans.verdict == V_NODATA && ans.soa_ttl == 200, "NODATA: its life is the SOA's TTL if lower");
	head(9, F_QR | SERVFAIL, 1, 1, 0, 0);
	wquestion("no.test", T_A);
	wrr(NULL, T_A, 60, ip, 4);
	is(read_answer("no.test", T_A) == NULL && ans.verdict == V_OTHER, "SERVFAIL with a record is no success");
	for (unsigned code = 0; code < 30; code++) {
		uint8_t o[6] = { 0, EDNS_EDE, 0, 2, 0, (uint8_t)code };
		head(9, F_QR | NXDOMAIN, 1, 0, 0, 1);
		wquestion("ad.test", T_A);
		wopt(1232, 0, o, 6);
		each(read_answer("ad.test", T_A) == NULL && (ans.verdict == V_SUCCESS) == (code >= 15 && code <= 17), "code %u", code);
	}
	all("an Extended DNS Error of 15 to 17, and no other, makes an answer final");
	head(9, F_QR, 1, 1, 0, 0);
	wquestion("www.test", T_A);
	wrr(NULL, T_A, 0x80000001, ip, 4);
	is(read_answer("www.test", T_A) == NULL && ans.ttl == 0 && get32at(exact + n - 10) == 0, "a TTL with the top bit set is 0");
	for (size_t i = 0; i < COUNT(wrong); i++) {
		static const uint8_t zero[32] = { 1, 1, 1, 1 };
		head(9, F_QR, 1, 1, 0, 0);
		wquestion("www.test", wrong[i].type);
		wrr(NULL, wrong[i].type, 60, zero, wrong[i].len);
		each(read_answer("www.test", wrong[i].type) != NULL, "%s of %zu bytes", type_text(wrong[i].type), wrong[i].len);
	}
	all("RDATA of a wrong length for its type is malformed");
	head(9, F_QR, 1, 2, 0, 0);
	wquestion("www.test", T_MX);
	wrr_name(NULL, T_MX, 60, 2, "mail.test");
	put16at(m + n - 13, 5);
	wrr(NULL, T_MX, 60, ip, 4);
	is(read_answer("www.test", T_MX) != NULL, "a name that runs beyond its RDATA is malformed");
	head(9, F_QR, 1, 1, 0, 0);
	wquestion("www.test", T_NS);
	wname(NULL); w16(T_NS); w16(1); w32(60); w16(2);
	at = n;
	w16(0xc000 | (unsigned)at);
	is(read_answer("www.test", T_NS) != NULL, "a name that points at itself is malformed, not followed");
	n = at;
	w16(0xc000 | (unsigned)(at + 2));
	w16(0xc000 | (unsigned)at);
	is(read_answer("www.test", T_NS) != NULL, "a name that points forward is malformed");
	n = at;
	w16(0xc00c - 1);
	is(read_answer("www.test", T_NS) != NULL, "a name that points into the header is malformed");
	for (unsigned c = 0x40; c < 0xc0; c += 0x10) {
		n = at;
		m[n++] = (uint8_t)c;
		m[n++] = 0;
		each(read_answer("www.test", T_NS) != NULL, "%02x", c);
	}
	all("label types that do not exist are malformed");
	head(9, F_QR, 1, 400, 0, 0);
	wquestion("www.test", 16);
	for (unsigned i = 0; i < 400; i++) {
		wname(i == 0 ? "www.test" : NULL);
		if (i > 0) {
			n -= 2;
			w16(0xc000 | (unsigned)(at = i == 1 ? 12 + 14 : at));
		}
		w16(16); w16(1); w32(60); w16(2); w16(0x0161);
		at = n - 14;
	}
	each(read_answer("www.test", 16) != NULL || ans.nttl == 400, "pointers to pointers");
	all("400 records whose names are pointers to pointers end");
	head(9, F_QR, 1, 2, 0, 0);
	wquestion("www.test", T_A);
	wrr(NULL, T_A, 60, ip, 4);
	wopt(1232, 0, NULL, 0);
	is(read_answer("www.test", T_A) != NULL, "an OPT among the answers is malformed");
	head(9, F_QR, 1, 0, 0, 2);
	wquestion("www.test", T_A);
	wopt(1232, 0, NULL, 0);
	wopt(1232, 0, NULL, 0);
	is(read_answer("www.test", T_A) != NULL, "two OPT records are malformed");

	head(9, F_QR, 1, 1, 0, 3);                      /* the OPT first, names behind it that point behind it */
	wquestion("www.test", T_SRV);
	wrr_name(NULL, T_SRV, 60, 6, "host.test");
	wopt(1232, 0, "\0\12\0\10cccccccc", 12);
	at = n;
	wrr("host.test", T_A, 50, ip, 4);
	wname("x"); n--; w16(0xc000 | (unsigned)at); w16(T_MX); w16(1); w32(40); w16(4); w16(5); w16(0xc000 | (unsigned)at);
	is(read_answer("www.test", T_SRV) == NULL && ans.opt, "an OPT before other records is found");
	whole = ans.len;
	answer_strip(&ans, exact);
	lab_key(&k, "www.test", T_SRV, 0);
	n = ans.len;
	memcpy(m, exact, n);
	is(n == whole - 23 && read_answer("www.test", T_SRV) == NULL && !ans.opt && ans.nttl == 3 && ans.ttl == 40 && get16at(exact + n - 2) == (0xc000u | (unsigned)(at - 23)),
	    "and taken out: the pointers that lead behind it are moved");

	lab_key(&k, "www.test", T_A, 0);
	for (int i = 0; i < 100000; i++) {
		unsigned type = (const unsigned[]){ T_A, T_SRV, T_MX, T_SOA, T_TXT }[i % 5], changes = lab_rnd() % 4;
		head(9, F_QR, 1, 2, 1, 2);
		wquestion("www.test", type);
		wrr_name(NULL, T_CNAME, 60, 0, "web.test");
		if (type == T_A)
			wrr("web.test", T_A, 60, ip, 4);
		else
			wrr_name("web.test", type == T_SRV ? T_SRV : T_MX, 60, type == T_SRV ? 6 : 2, "mail.test");
		wsoa("test", 100, 50);
		wopt(1232, 0, "\0\17\0\2\0\20", 6);
		wrr_name(NULL, T_NS, 30, 0, "ns.test");
		whole = n;
		for (; changes > 0; changes--)
			m[26 + lab_rnd() % (n - 26)] = (uint8_t)(lab_rnd() % 3 ? lab_rnd() : 0xc0 + lab_rnd() % 2);
		if (read_answer("www.test", type) != NULL)
			continue;
		each(ans.len <= n && ans.nttl < 100, "round %d: longer than it was", i);
		answer_strip(&ans, exact);
		{
			struct answer first = ans, second;
			uint8_t *again = calloc(1, ans.len);
			memcpy(again, exact, ans.len);
			lab_key(&k, "www.test", type, 0);
			each(answer_read(&second, again, ans.len, &k) == NULL && !second.opt && second.len == first.len && second.nttl == first.nttl &&
			    second.ttl == first.ttl, "round %d: the stripped answer is not read again", i);
			free(again);
		}
		if (getenv("SEEDS") != NULL && i > 300)
			break;
	}
	all("100,000 mutated answers: each is malformed, or still whole after its OPT has been taken out");
}

/* ---- Writing */

static void test_writing(void)
{
	uint8_t out[MSG_MAX];
	struct question q;
	struct key k;
	size_t len;

	for (unsigned i = 0; i < 16; i++) {
		lab_key(&k, i & 1 ? "a.rather.long.name.for.a.test.example" : ".", T_AAAA, (i & 2 ? KEY_DO : 0) | (i & 4 ? KEY_CD : 0));
		len = query_write(out, 77, &k, true, i & 8);
		each(len <= UPSTREAM_QUERY_MAX && question_read(&q, out, len) == NOERROR && q.edns && q.edns_size == 1232 && q.id == 77 && q.key.len == k.len &&
		    memcmp(q.key.b, k.b, k.len) == 0, "case %u", i);
		each(!(i & 8) || len % 128 == 0, "case %u: padded to %zu", i, len);
		len = query_write(out, 77, &k, false, false);
		each(question_read(&q, out, len) == NOERROR && !q.edns && !(key_flags(&q.key) & KEY_DO), "case %u without EDNS", i);
	}
	all("a question to an upstream is what its key says, with OPT, size 1232 and DO, padded for TLS");
	wquery("Some.Name.test", T_A);
	question_read(&q, m, n);
	len = error_write(out, &q, REFUSED, EDE_PROHIBITED);
	is(len == n && (get16at(out + 2) & 15) == REFUSED && memcmp(out + 12, m + 12, n - 12) == 0 && get16at(out + 10) == 0,
	    "an error without OPT is header and question, as the client spelled it");
	wquery_opt("Some.Name.test", T_A, 0x8000, NULL, 0);
	question_read(&q, m, n);
	len = error_write(out, &q, BADVERS, EDE_NONE);
	is(len == n && get16at(out + 10) == 1 && (get16at(out + 2) & 15) == 0 && out[len - 6] == 1, "BADVERS is written in header and OPT");
	len = error_write(out, &q, SERVFAIL, EDE_NETWORK);
	is(len == n + 6 && get16at(out + len - 2) == EDE_NETWORK && get16at(out + len - 6) == EDNS_EDE, "an Extended DNS Error stands in the OPT");
}

/* ---- Cache */



/* Puts an answer into the cache. */
static void put(const char *name, unsigned type, uint32_t ttl, size_t size)
{
	struct keep keep = { .key = &put_key, .ttl = ttl };
	static struct answer a;

	wanswer(name, type, ttl, size);
	lab_key(&put_key, name, type, 0);
	if (answer_read(&a, m, n, &put_key) != NULL) {
		each(false, "the test's own answer for %s is wrong", name);
		return;
	}
	keep.hash = hash_bytes(put_key.b, put_key.len);
	cache_put(&keep, &a);
}

static struct slot *get(const char *name, unsigned type, unsigned flags)
{
	struct key k;

	lab_key(&k, name, type, flags);
	return cache_find(&k, hash_bytes(k.b, k.len));
}

static bool live(const char *name, unsigned type, unsigned flags)
{
	struct slot *s = get(name, type, flags);

	return s != NULL && !entry_expired(entry_at((size_t)(s->at - 1) * 4));
}

/* The TTL of the first record of a reply from the cache. */
static uint32_t reply_ttl(const char *name, unsigned type, const char *spelled)
{
	struct peer p = { .kind = PEER_UDP };
	static uint8_t out[UDP_SIZE];
	struct answer a;
	struct key k;
	size_t len;

	p.from.in.sin_family = AF_INET;
	p.from.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	wquery(spelled, type);
	outbox.n = 0;
	client_ask(&p, m, n);
	len = outbox.n > 0 ? outbox.iov[0].iov_len : 0;
	outbox.n = 0;
	memcpy(out, outbox.buf[0], len);
	lab_key(&k, name, type, 0);
	if (len < n || get16at(out) != 0x1234 || (out[3] & 15) != 0 || memcmp(out + 12, m + 12, n - 12) != 0 || !answer_matches(out, len, &k) || answer_read(&a, out, len, &k) != NULL)
		return NO_TTL;
	return a.ttl;
}

static void test_cache(void)
{
	static const size_t sizes[] = { 4096, 4097, 4100, 5000, 8191, 65536, 1 << 20 };
	const char *broken = NULL;
	char name[64];
	unsigned kept = 0, lost = 0;

	cfg.cache_max_ttl = 86400;
	cache_again(65536);
	put("www.test", T_A, 100, 60);
	is(live("www.test", T_A, 0), "what was put into the cache is found");
	is(!live("www.test", T_AAAA, 0) && !live("www.test", T_A, KEY_DO) && !live("www.test", T_A, KEY_CD) && !live("ww.test", T_A, 0),
	    "another name, type, DO or CD is another answer");
	each(reply_ttl("www.test", T_A, "www.test") == 100, "at once");
	now += SEC(40);
	each(reply_ttl("www.test", T_A, "WwW.tEsT") == 60, "after 40 s: %u", reply_ttl("www.test", T_A, "WwW.tEsT"));
	now += SEC(59);
	each(reply_ttl("www.test", T_A, "www.test") == 1, "after 99 s");
	all("a reply from the cache has the client's ID and spelling, and TTLs lowered by the time spent there");
	now += SEC(1);
	is(!live("www.test", T_A, 0), "at the end of its TTL it is gone");
	cfg.serve_stale = 100;
	put("stale.test", T_A, 10, 60);
	now += SEC(11);
	each(get("stale.test", T_A, 0) != NULL && !live("stale.test", T_A, 0), "stale");
	now += SEC(98);
	each(get("stale.test", T_A, 0) != NULL, "the last second of it");
	now += SEC(1);
	each(get("stale.test", T_A, 0) == NULL, "over");
	cfg.serve_stale = 0;
	all("with serve-stale an expired answer stays for so long, as expired");
	put("twice.test", T_A, 100, 60);
	put("twice.test", T_A, 50, 60);
	is(reply_ttl("twice.test", T_A, "twice.test") == 50 && cache.entries == 1, "a newer answer takes the place of the older");
	put("twice.test", T_AAAA, 100, 60);
	put("other.test", T_A, 100, 60);
	{
		uint8_t wire[NAME_MAX_WIRE];
		size_t k = name_parse(wire, "twice.test");
		is(cache_clear(wire, k) == 2 && !live("twice.test", T_A, 0) && !live("twice.test", T_AAAA, 0) && live("other.test", T_A, 0), "clear NAME drops every type of it and nothing else");
	}
	is(cache_clear(NULL, 0) == 1 && cache.entries == 0 && cache.used == 0, "clear drops everything");
	cfg.cache_min_ttl = 60;
	put("short.test", T_A, 5, 60);
	is(reply_ttl("short.test", T_A, "short.test") == 60 || get("short.test", T_A, 0) != NULL, "cache-min-ttl lifts the TTLs");
	cfg.cache_min_ttl = 0;
	put("none.test", T_A, 100, 60);
	cache_again(0);
	put("none.test", T_A, 100, 60);
	is(!live("none.test", T_A, 0) && cache_clear(NULL, 0) == 0, "a cache of 0 bytes keeps nothing");

	for (size_t i = 0; i < COUNT(sizes); i++) {
		cache_again(sizes[i]);
		for (int k = 0; k < 6000 && broken == NULL; k++) {
			static const size_t lens[] = { 60, 60, 100, 500, 1232, 4096, 8192, 65535 };
			snprintf(name, sizeof name, "n%u.test", lab_rnd() % 3000);
			put(name, k % 3 ? T_A : T_TXT, 1 + lab_rnd() % 300, lens[lab_rnd() % (sizes[i] < 65536 ? 4 : 8)]);
			if (lab_rnd() % 4 == 0)
				live(name, T_A, 0);
			if (lab_rnd() % 50 == 0)
				now += SEC(lab_rnd() % 40);
			if (lab_rnd() % 1000 == 0)
				cache_clear(NULL, 0);
			if (k % (sizes[i] > 100000 ? 16 : 1) == 0)
				broken = cache_broken();
			each(broken == NULL, "size %zu, step %d: %s", sizes[i], k, broken);
		}
		broken = NULL;
	}
	all("in caches of 4,096 bytes to 1 MiB every invariant holds after each of 6,000 random changes");
	cache_again(65536);
	put("big.test", T_TXT, 100, 65535);
	each(!live("big.test", T_TXT, 0), "65,535 bytes in 64 KiB");
	put("eighth.test", T_TXT, 100, cache.size / 8 + 1);
	each(!live("eighth.test", T_TXT, 0), "over an eighth");
	put("fits.test", T_TXT, 100, cache.size / 8 - 200);
	each(live("fits.test", T_TXT, 0), "under an eighth");
	each(cache_broken() == NULL, "%s", cache_broken());
	all("an answer of over an eighth of the cache is not kept");
	for (unsigned secret = 0; secret < 40; secret++) {
		hash_init();
		cache_again(1 << 20);
		for (unsigned i = 0; i < 9000; i++) {
			snprintf(name, sizeof name, secret & 1 ? "n%u.x.test" : "host-%07x.test", i);
			put(name, T_A, 300, 60);
		}
		kept = 0;
		for (unsigned i = 0; i < 9000; i++) {
			snprintf(name, sizeof name, secret & 1 ? "n%u.x.test" : "host-%07x.test", i);
			kept += live(name, T_A, 0);
		}
		each(kept > 8950, "%u of 9,000 kept", kept);
	}
	all("whatever the secret, 9,000 names in sequence find room in 1 MiB");
	cache_again(65536);
	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof name, "hot%u.test", i);
		put(name, T_A, 3000, 60);
	}
	for (unsigned i = 0; i < 5000; i++) {
		snprintf(name, sizeof name, "cold%u.test", i);
		put(name, T_A, 3000, 60);
		snprintf(name, sizeof name, "hot%u.test", i % 20);
		if (reply_ttl(name, T_A, name) == NO_TTL) {
			lost++;
			put(name, T_A, 3000, 60);
		}
	}
	each(lost <= 25, "%u of 5,000 questions for them miss", lost);
	all("answers that are used stay while 5,000 others pass through a full cache: at most 1 of 200 questions for them misses");
	each(cache.evicted > 3000 && cache_broken() == NULL, "evicted %llu", (unsigned long long)cache.evicted);
	all("evictions are counted");
	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof name, "old%u.test", i);
		put(name, T_A, 5, 60);
	}
	now += SEC(10);
	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof name, "hot%u.test", i);
		reply_ttl(name, T_A, name);
	}
	for (unsigned i = 0; i < 250; i++) {
		snprintf(name, sizeof name, "new%u.test", i);
		put(name, T_A, 3000, 60);
	}
	for (unsigned i = 0, k = 0; i < 20; i++) {
		snprintf(name, sizeof name, "hot%u.test", i);
		k += live(name, T_A, 0);
		if (i == 19)
			is(k >= 18, "expired answers make room before those in use");
	}
	cache_again(65536);
	{
		struct key k;
		unsigned same = 0;
		uint32_t first = 0;
		for (unsigned i = 0; i < 2000; i++) {
			snprintf(name, sizeof name, "h%u.test", i);
			lab_key(&k, name, T_A, 0);
			if (i == 0)
				first = hash_bytes(k.b, k.len) % 1024;
			else
				same += hash_bytes(k.b, k.len) % 1024 == first;
		}
		is(same < 20, "the hash spreads names");
		lab_key(&k, "h.test", T_A, 0);
		first = hash_bytes(k.b, k.len);
		hash_init();
		is(first != hash_bytes(k.b, k.len), "the hash has a secret of its own in each run");
	}
	cache_again(65536);
}

/* ---- Limits */

static void test_limits(void)
{
	unsigned sent[3] = { 0 };

	cfg.rate = 10;
	now += SEC(100);
	for (int i = 0; i < 30; i++)
		sent[rate_check(1)]++;
	is(sent[RATE_OK] == 10 && sent[RATE_DROP] == 10 && sent[RATE_TRUNCATE] == 10, "rate 10: a burst of 10, then half dropped and half truncated");
	now += SEC(1) / 2;
	memset(sent, 0, sizeof sent);
	for (int i = 0; i < 20; i++)
		sent[rate_check(1)]++;
	is(sent[RATE_OK] == 5, "after half a second 5 more");
	now += SEC(3600);
	memset(sent, 0, sizeof sent);
	for (int i = 0; i < 20; i++)
		sent[rate_check(1)]++;
	is(sent[RATE_OK] == 10, "after an hour no more than a burst");
	is(rate_check(2) == RATE_OK, "another client has its own");
	for (unsigned i = 0; i < 100000; i++)
		rate_check(i);
	is(true, "100,000 clients fit the fixed table");
	cfg.rate = 0;
}

/* ---- Config */

/* Does the normal form of text have this line? */
static bool config_says(const char *text, const char *line)
{
	char all[70000], want[4200];
	const char *got = config_of(text);

	snprintf(all, sizeof all, "\n%s", got ? got : errors);
	snprintf(want, sizeof want, "\n%s\n", line);
	return strstr(all, want) != NULL;
}

static void test_config(void)
{
#define PIN "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	static const struct { const char *line, *normal; } good[] = {
		{ "198.18.2.1 1", "198.18.2.1@53 1" }, { "198.18.2.1@5353 65535", "198.18.2.1@5353 65535" }, { "2001:db8::1 2 tcp", "2001:db8::1@53 2 tcp" },
		{ "fe80::1%br-lan@54 3", "fe80::1%br-lan@54 3" }, { "198.18.2.1 1 tls", "198.18.2.1@853 1 tls" }, { "198.18.2.1 1 tls=DNS.Test", "198.18.2.1@853 1 tls=dns.test" },
		{ "198.18.2.1 1 tls=dns.test.", "198.18.2.1@853 1 tls=dns.test" }, { "198.18.2.1 1 tls pin=" PIN, "198.18.2.1@853 1 tls pin=" PIN },
		{ "198.18.2.1 1 final noverify tls", "198.18.2.1@853 1 tls noverify final" }, { "198.18.2.1 1 domain=Corp.Test domain=10.in-addr.arpa", "198.18.2.1@53 1 domain=corp.test. domain=10.in-addr.arpa." },
		{ "198.18.2.1 1 domain=.", "198.18.2.1@53 1 domain=." }, { "\t198.18.2.1\t 1   # comment", "198.18.2.1@53 1" }, { "198.18.2.1 1 // comment", "198.18.2.1@53 1" },
		{ "198.18.2.1 1\r", "198.18.2.1@53 1" } };
	static const struct { const char *line, *normal; } directive[] = {
		{ "listen 127.0.0.1", "listen 127.0.0.1@53" }, { "listen ::1@5300", "listen ::1@5300" }, { "listen *", "listen *@53" }, { "listen *@5300", "listen *@5300" }, { "# none", "listen *@53" },
		{ "admin 127.0.0.2@99", "admin 127.0.0.2@99" }, { "admin ::1@99", "admin ::1@99" }, { "admin off", "admin off" }, { "# none", "admin 127.0.0.1@5353" },
		{ "allow 198.18.2.0/24", "allow 198.18.2.0/24" }, { "allow 10.0.0.1\nallow ::/0 fe80::1", "allow 10.0.0.1/32 ::/0 fe80::1/128" },
		{ "# none", "allow 127.0.0.0/8 ::1/128 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 fc00::/7 fe80::/10" },
		{ "rate 100", "rate 100" }, { "# none", "rate 0" }, { "cache-size 64k", "cache-size 65536" }, { "cache-size 2M", "cache-size 2097152" }, { "cache-size 0", "cache-size 0" },
		{ "# none", "cache-size 1048576" }, { "cache-min-ttl 60", "cache-min-ttl 60" }, { "# none", "cache-min-ttl 0" }, { "cache-max-ttl 60", "cache-max-ttl 60" },
		{ "# none", "cache-max-ttl 86400" }, { "cache-negative 60", "cache-negative 60" }, { "# none", "cache-negative 0" }, { "serve-stale 60", "serve-stale 60" },
		{ "# none", "serve-stale 0" }, { "timeout 100", "timeout 100" }, { "# none", "timeout 5000" }, { "patience 1", "patience 1" }, { "# none", "patience 1000" },
		{ "queries 16", "queries 16" }, { "# none", "queries 1024" }, { "tcp-clients 7", "tcp-clients 7" }, { "# none", "tcp-clients 256" }, { "user root", "user root" },
		{ "# none", "user nobody" }, { "ca-file /x/y.pem", "ca-file /x/y.pem" }, { "log error", "log error" }, { "log debug syslog", "log debug syslog" }, { "# none", "log info" } };
	static const char *const wrong[] = { "198.18.2.1", "198.18.2.1 0", "198.18.2.1 65536", "198.18.2.1 x", "198.18.2.1 1 udp", "198.18.2.1@0 1", "198.18.2.1@65536 1", "198.18.2.1@ 1",
		"198.18.2.256 1", "10.1 1", "::1::2 1", "198.18.2.1 1 tcp tls", "198.18.2.1 1 tls=", "198.18.2.1 1 tls=a..b", "198.18.2.1 1 tls=a/b", "198.18.2.1 1 pin=" PIN,
		"198.18.2.1 1 noverify", "198.18.2.1 1 tls noverify pin=" PIN, "198.18.2.1 1 tls pin=AAAA", "198.18.2.1 1 tls pin=" PIN "=", "198.18.2.1 1 tls pin=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8!",
		"198.18.2.1 1 domain=", "198.18.2.1 1 domain=a..b", "198.18.2.1 1 final=1", "0.0.0.0 1", "224.0.0.1 1", "255.255.255.255 1", ":: 1", "ff02::1 1", "nonsense", "listen", "listen a", "listen 127.0.0.1 53",
		"listen 127.0.0.1@0", "admin", "admin 198.18.2.1@53", "admin 127.0.0.1", "admin *@53", "admin on", "allow", "allow 10.0.0.0/33", "allow x", "rate", "rate -1", "rate 1 2", "rate 1000001",
		"cache-size", "cache-size 5g", "cache-size -1", "cache-size 100", "cache-size 4097m", "cache-size k", "cache-min-ttl x", "cache-min-ttl 604801", "cache-max-ttl 0", "cache-min-ttl 100000", "cache-negative 86401",
		"serve-stale x", "timeout 0", "timeout 60001", "timeout 5s", "patience 0", "patience 60001", "queries 0", "queries 65537", "tcp-clients 0", "tcp-clients 65537", "user", "user a b",
		"ca-file", "log", "log loud", "log info file", "log info syslog x", "Listen 127.0.0.1", "127.0.0.1 1" };
	static const char *const fixed[] = { "198.18.2.1 1", "198.18.2.1 1 tls=dns.test pin=" PIN " final domain=a.test domain=b\\.c.test\nlog debug syslog\nallow ::/0\nlisten *@99\nca-file /a\nadmin off",
		"fe80::1%eth0@99 7 tcp\n2001:db8::1 1 tls noverify\nlisten 127.0.0.1@5300\nlisten ::1@5300\ncache-size 0\nuser 65534", "198.18.2.1 1 domain=\\000\\255\\032\\..test" };
	char line[4200], once[65536], path[] = "/tmp/dnsproxy-unit.XXXXXX";
	static struct config c;
	struct text e = { errors, sizeof errors, 0 };
	char from[80];
	FILE *f;
	int fd;

	for (size_t i = 0; i < COUNT(good); i++)
		each(config_says(good[i].line, good[i].normal), "%s: %s", good[i].line, normal[0] ? normal : errors);
	all("every form of an upstream line is read, and printed in its normal form");
	for (size_t i = 0; i < COUNT(directive); i++) {
		snprintf(line, sizeof line, "%s\n198.18.2.1 1", directive[i].line);
		each(config_says(line, directive[i].normal), "%s: %s", directive[i].line, normal[0] ? normal : errors);
	}
	all("every directive is read, and printed in its normal form; each has its default");
	for (size_t i = 0; i < COUNT(directives); i++) {
		unsigned k = 0;
		for (size_t j = 0; j < COUNT(directive); j++)
			k += strncmp(directive[j].line, directives[i].name, strlen(directives[i].name)) == 0 && directive[j].line[strlen(directives[i].name)] == ' ';
		each(k > 0, "%s", directives[i].name);
	}
	all("no directive is left out of these tests");
	for (size_t i = 0; i < COUNT(wrong); i++) {
		bool up = wrong[i][0] != ':' && (wrong[i][0] < '0' || wrong[i][0] > '9');
		snprintf(line, sizeof line, "%s\n%s", up ? "198.18.2.9 1" : wrong[i], up ? wrong[i] : "198.18.2.9 1");
		each(config_of(line) == NULL, "%s is accepted", wrong[i]);
		for (const char *l = errors; *l != '\0'; l = strchr(l, '\n') + 1)
			each(strncmp(l, up ? "argument:2: " : "argument:1: ", 12) == 0 && strstr(l, "expected") != NULL, "%s: %s", wrong[i], l);
		each(errors[0] != '\0', "%s: refused without a word", wrong[i]);
	}
	all("every wrong line is an error, with its place and what was expected");
	for (size_t i = 0; i < COUNT(fixed); i++) {
		const char *p = config_of(fixed[i]);
		each(p != NULL, "%s: %s", fixed[i], errors);
		snprintf(once, sizeof once, "%s", normal);
		p = config_of(once);
		each(p != NULL && strcmp(p, once) == 0, "%s: %s", fixed[i], p ? p : errors);
	}
	all("the normal form of a normal form is itself");
	each(config_of("198.18.2.1 1\n198.18.2.1 2") == NULL && strstr(errors, "argument:2:"), "the same twice");
	each(config_of("127.0.0.1@5300 1\nlisten 127.0.0.1@5300") == NULL, "our own address");
	each(config_of("127.0.0.1@5300 1\nlisten *@5300") == NULL, "our own address behind *");
	each(config_of("127.0.0.1@5301 1\nlisten 127.0.0.1@5300") != NULL, "another port: %s", errors);
	each(config_of("listen 127.0.0.1@5300") == NULL, "no upstream");
	all("no upstream, the same upstream twice, and one that is our own listen address are errors");
	snprintf(once, sizeof once, "%s", "");
	for (unsigned i = 0; i < MAX_UPSTREAMS; i++)
		snprintf(once + strlen(once), sizeof once - strlen(once), "198.18.2.%u 1\n", i + 1);
	each(config_of(once) != NULL, "32: %s", errors);
	strcat(once, "198.18.2.200 1\n");
	each(config_of(once) == NULL && strncmp(errors, "argument:33: ", 13) == 0, "33: %s", errors);
	all("32 upstreams are read, the 33rd is an error");
	fd = mkstemp(path);
	f = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (f != NULL) {
		fputs("# comment\n\n198.18.2.1 x\r\nrate y\n198.18.2.2 1 # fine\n", f);
		fputc('a', f);
		fputc('\0', f);
		fputs("b\n", f);
		for (int i = 0; i < 5000; i++)
			fputc('z', f);
		fputs("\nlast 1", f);
		fclose(f);
		source = (struct source){ .file = path, .lines = (char *[]){ NULL } };
		each(!config_read(&c, &e, from), "read");
		for (unsigned l = 1; l < 10; l++) {
			snprintf(line, sizeof line, "%s:%u: ", path, l);
			each((strstr(errors, line) != NULL) == (l == 3 || l == 4 || l == 6 || l == 7 || l == 8), "line %u: %s", l, errors);
		}
		unlink(path);
	} else
		each(false, "no temporary file");
	all("all errors of a file are told with FILE:LINE: words, NUL bytes, long lines, a last line without its end");
	for (int i = 0; i < 20000; i++) {
		static const char *const words[] = { "198.18.2.1", "::1", "1", "tls", "tls=", "tls=a.b", "pin=", "domain=", "listen", "allow", "log", "cache-size", "#", "//", "*", "@", "10.0.0.0/8", "%", "\\", "4096m", "\377", "-1", "noverify" };
		line[0] = '\0';
		for (unsigned k = lab_rnd() % 6; k > 0; k--) {
			strcat(line, words[lab_rnd() % COUNT(words)]);
			strcat(line, lab_rnd() % 4 ? " " : lab_rnd() % 2 ? "\n" : "");
		}
		if (config_of(line) != NULL) {
			snprintf(once, sizeof once, "%s", normal);
			each(config_of(once) != NULL && strcmp(once, normal) == 0, "%s: %s", line, errors);
		} else
			each(errors[0] != '\0', "%s: refused without a word", line);
		if (getenv("SEEDS") != NULL && i > 200)
			break;
	}
	all("20,000 random configurations: refused with words, or their normal form is a fixed point");
}

/* ---- Admin */

static void test_admin(void)
{
	static const char *const wrong[] = { "", " ", "statu", "STATUS", "status x", "status;clear", "clear a b", "clear a..b", "log", "log loud", "log info debug", "query", "query a b c",
		"query a..b", "query x OPT", "query x AXFR", "query x NOTYPE", "help me", "reload now", "top 10", "\001", "status\tx", "#", "clear #" };
	static const char *const http[] = { "GET / HTTP/1.1", "GET /status HTTP/1.1", "POST /metrics HTTP/1.1", "clear HTTP/1.0", "GET /metrics HTTP/2", "get /metrics HTTP/1.1", "GET  /metrics HTTP/1.1", " HTTP/1.1", "status HTTP/" };
	char name[300], *p;

	cache_again(65536);
	put("other.test", T_A, 100, 60);
	put("plain.test", T_A, 100, 60);
	each(strncmp(admin_of("help"), "help", 4) == 0, "help");
	for (size_t i = 0; i < COUNT(commands); i++)
		each(strstr(admin_of("help"), commands[i].name) != NULL, "help lacks %s", commands[i].name);
	all("help names every command");
	each(strncmp(admin_of("status"), "dnsproxy " VERSION " uptime ", 17 + strlen(VERSION)) == 0, "%s", admin_of("status"));
	each(strstr(admin_of("status"), "\ncache entries 2 bytes ") != NULL && strstr(admin_of("status"), "\nentry plain.test. A IN expires 20") != NULL, "%s", admin_of("status"));
	all("status says what the cache holds");
	each(strcmp(admin_of("clear PLAIN.test"), "Cache cleared (1 entries)\n") == 0, "by name");
	each(strcmp(admin_of("clear"), "Cache cleared (1 entries)\n") == 0, "all");
	each(strcmp(admin_of("clear"), "Cache cleared (0 entries)\n") == 0, "none");
	all("clear says how many");
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof name, "log %s", level_names[i]);
		each(strncmp(admin_of(name), "Log level ", 10) == 0 && (int)log_level == i, "%s", name);
	}
	log_level = L_ERROR;
	all("log sets the level");
	for (size_t i = 0; i < COUNT(wrong); i++)
		each(strncmp(admin_of(wrong[i]), "error: ", 7) == 0, "\"%s\": %s", wrong[i], admin_of(wrong[i]));
	all("what is no command, or has wrong arguments, is an error");
	for (size_t i = 0; i < COUNT(http); i++)
		each(strncmp(admin_of(http[i]), "HTTP/1.1 4", 10) == 0 || strncmp(admin_of(http[i]), "error: ", 7) == 0, "%s: %s", http[i], admin_of(http[i]));
	all("an HTTP request other than GET /metrics is refused");
	each(strcmp(admin_of("GET /metrics HTTP/1.1"), "(more)") == 0 && strcmp(admin_of("GET /metrics HTTP/1.0"), "(more)") == 0, "metrics");
	all("GET /metrics waits for its headers");
	cache_again(1 << 20);
	for (unsigned i = 0; i < 256; i++) {
		struct keep keep = { .key = &put_key, .ttl = 100 };
		head(7, F_QR, 1, 1, 0, 0);
		m[n++] = 2; m[n++] = 'q'; m[n++] = (uint8_t)i; m[n++] = 0; w16(T_A); w16(1);
		wrr(NULL, T_A, 100, "abcd", 4);
		memcpy(put_key.b, m + 12, 4);
		put_key.b[2] = lower(put_key.b[2]);
		key_set(&put_key, 4, T_A, 1, 0);
		keep.hash = hash_bytes(put_key.b, put_key.len);
		each(answer_read(&ans, m, n, &put_key) == NULL, "byte %u", i);
		cache_put(&keep, &ans);
	}
	for (p = (char *)(uintptr_t)admin_of("status"); *p != '\0'; p++)
		each(*p == '\n' || (*p >= ' ' && *p <= '~'), "byte %d", *p);
	all("whatever bytes names have, status is printable ASCII");
	admin_of("top");
}

/* ---- TLS */

static void test_tls(void)
{
	static const struct { const char *want, *cert; bool match; } names[] = {
		{ "dns.test", "dns.test", true }, { "dns.test", "DNS.Test", true }, { "dns.test", "dns.tes", false }, { "dns.test", "dns.test.", false }, { "a.dns.test", "*.dns.test", true },
		{ "A.dns.test", "*.DNS.test", true }, { "dns.test", "*.dns.test", false }, { "a.b.dns.test", "*.dns.test", false }, { "dns.test", "*.test", false }, { "test", "*", false },
		{ "a.test", "*", false }, { "a.dns.test", "*", false }, { "a.dns.test", "*.", false }, { "a.dns.test", "a.*.test", false }, { "ab.dns.test", "a*.dns.test", false },
		{ "ab.dns.test", "*b.dns.test", false }, { "a.dns.test", "*.*.test", false }, { "dns.test", "", false }, { "a.dns.test", "**.dns.test", false }, { "a.dns.test", "*dns.test", false } };
	static const struct { unsigned tag; const char *s; int64_t want; } times[] = { { 0x17, "700101000000Z", 0 }, { 0x17, "000101000000Z", 946684800 }, { 0x17, "491231235959Z", 2524607999 },
		{ 0x17, "500101000000Z", -631152000 }, { 0x18, "20500101000000Z", 2524608000 }, { 0x18, "20240229120000Z", 1709208000 }, { 0x18, "21060207062815Z", 4294967295 },
		{ 0x17, "7001010000", 0 }, { 0x17, "x00101000000Z", 0 }, { 0x18, "", 0 } };
	uint8_t pin[32], other[32], wire[300];
	struct der d, v, whole;
	unsigned tag;
	char text[64];

	for (size_t i = 0; i < COUNT(names); i++)
		each(cert_name_matches(names[i].want, (const uint8_t *)names[i].cert, strlen(names[i].cert)) == names[i].match, "%s, certificate for %s", names[i].want, names[i].cert);
	each(!cert_name_matches("dns.test", (const uint8_t *)"dns.test\0.evil", 14), "a NUL");
	all("a certificate's name matches as RFC 6125 says: whole, or one wildcard label in front of two more");
	for (int i = 0; i < 1000; i++) {
		for (int k = 0; k < 32; k++)
			pin[k] = (uint8_t)lab_rnd();
		each(pin_parse(other, pin_text(pin)) && memcmp(pin, other, 32) == 0, "%s", pin_text(pin));
	}
	all("pins survive the way to base64 and back");
	for (int i = 0; i < 44; i++) {
		snprintf(text, sizeof text, "%s", pin_text(pin));
		text[i] = i == 43 ? 'A' : '*';
		each(!pin_parse(other, text), "place %d", i);
	}
	snprintf(text, sizeof text, "%.43s", pin_text(pin));
	each(!pin_parse(other, text), "without its =");
	all("a pin with a wrong letter or length is refused");
	for (size_t i = 0; i < COUNT(times); i++) {
		struct der t = { (const uint8_t *)times[i].s, (const uint8_t *)times[i].s + strlen(times[i].s) };
		each(der_time(t, times[i].tag) == times[i].want, "%s is %lld", times[i].s, (long long)der_time(t, times[i].tag));
	}
	all("dates of certificates become seconds, leap years and both centuries right");
	for (unsigned a = 0; a < 256; a++)
		for (unsigned len = 0; len < 12; len++) {
			uint8_t *p = calloc(1, len + 1);
			for (unsigned i = 0; i < len; i++)
				p[i] = (uint8_t)(i == 1 ? a : i == 0 ? 0x30 : lab_rnd() % 2 ? 0xff : lab_rnd() % 4);
			d = (struct der){ p, p + len };
			for (int turns = 0; der_next(&d, &tag, &v, &whole); turns++)
				each(v.p <= v.end && v.end <= p + len && d.p <= p + len && turns < 12, "length byte %02x in %u bytes", a, len);
			free(p);
		}
	all("a DER element never reaches beyond the bytes that are there");
	for (int i = 0; i < 20000; i++) {
		static struct auth a;
		static struct spec s;
		size_t k = lab_rnd() % sizeof wire;
		static const uint8_t shape[] = { 0x30, 0x82, 1, 0, 0x30, 0x81, 0xf0, 0xa0, 3, 2, 1, 2, 2, 1, 1, 0x30, 0, 0x30, 0, 0x30, 0, 0x30, 0, 0x30, 0, 0xa3, 0x20, 0x30, 0x1e, 0x30, 0x1c, 6, 3, 0x55, 0x1d, 0x11,
			4, 0x15, 0x30, 0x13, 0x82, 8, 'd', 'n', 's', '.', 't', 'e', 's', 't', 0x87, 4, 127, 0, 0, 1 };
		for (size_t at = 0; at < k; at++)
			wire[at] = at < sizeof shape && lab_rnd() % 16 ? shape[at] : (uint8_t)lab_rnd();
		memcpy(a.cert, wire, k);
		a.len = k;
		a.spec = &s;
		s.addr.u.in.sin_family = AF_INET;
		strcpy(s.name, "dns.test");
		cert_names(&a);
		cert_key_use_ok(&a);
		auth_pin(&a);
		each(strlen(a.seen) < sizeof a.seen, "round %d", i);
	}
	all("20,000 random certificates are looked at without harm");
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	log_level = L_ERROR;
	clock_read();
	started = now;
	config_of("192.0.2.1 1");
	{
		struct text e = { errors, sizeof errors, 0 };
		char from[80];
		config_read(&cfg, &e, from);
	}
	lab_tables();
	test_tools();
	test_names();
	test_questions();
	test_answers();
	test_writing();
	test_cache();
	test_limits();
	test_config();
	test_admin();
	test_tls();
	puts("end");
	return 0;
}
END_OF_UNIT
}

# lab_build OUT SOURCE [FLAG...]: compiles a program that includes dnsproxy.c
lab_build()
{
    lab_o=$1 lab_s=$2
    shift 2
    if [ -n "$BEARSSL" ]; then
        "$CC" -std=c11 -I"$SRC" -I"$T" -I"$BEARSSL/inc" "$@" -o "$lab_o" "$lab_s" "$BEARSSL/build/libbearssl.a"
    else
        "$CC" -std=c11 -I"$SRC" -I"$T" "$@" -o "$lab_o" "$lab_s" -lbearssl
    fi
}

# unit_run COMMAND...: runs the unit tests, each line a promise
unit_run()
{
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
leg_unit()
{
    unit_source
    lab_build "$T/unit" "$T/unit.c" -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all 2>"$T/unit.log" || {
        lab_build "$T/unit" "$T/unit.c" -O1 -g 2>"$T/unit.log" || { promise "the unit tests compile"; fail "$(cat "$T/unit.log")"; return; }
    }
    ASAN_OPTIONS=detect_leaks=0 unit_run "$T/unit"
}

# ---- The long runs: sanitizers, analysers, other machines, soak ---------

# heavy_reports: where sanitizers and valgrind write, one file a process; the program may be nobody by then
heavy_reports()
{
    mkdir -p "$T/reports"
    chmod 1777 "$T/reports"
}

# After a leg of asan and valgrind. Not in the default list.
leg_reports()
{
    promise "no report up to here"
    for reports_f in "$T/reports"/*; do
        [ -s "$reports_f" ] || continue
        case $reports_f in *.seen) continue ;; esac
        fail "$(sed -n '1,40p' "$reports_f")"
        mv "$reports_f" "$reports_f.seen"
    done
}

# watched LEG...: runs the legs, and looks for reports after each
watched()
{
    heavy_l=''
    for heavy_i; do heavy_l="$heavy_l $heavy_i reports"; done
    # shellcheck disable=SC2086
    run_legs $heavy_l
}

# fds_of NAME, kb_of NAME: descriptors and resident kB of a process
fds_of() { ls "/proc/$(pid "$1")/fd" | wc -l; }
kb_of() { awk '/^VmRSS/ { print $2 }' "/proc/$(pid "$1")/status"; }
fds_are() { [ "$(fds_of "$1")" -le "$2" ]; }

# mixed N: about N queries of every kind to the proxy p, of which u1 and u2 are upstreams; each must be answered once
mixed()
{
    mixed_n=$(($1 / 20))
    mixed_try 'hits' 8 window=64 same name=hit.mixed.test
    mixed_try 'misses' 4 window=64 name=miss%d.$2.mixed.test byname
    mixed_try 'names and options of every spelling' 2 window=32 vary name=vary%d.$2.mixed.test
    mixed_try 'DNSSEC OK and checking disabled' 1 window=32 +do +cd name=do%d.$2.mixed.test type=AAAA
    mixed_try 'over TCP' 2 window=32 tcp=8 name=tcp%d.$2.mixed.test
    mixed_try 'answers that are cut, and asked again over TCP' 1 window=16 name=big=3000.c%d.$2.mixed.test type=TXT
    mixed_try 'no data, no name, failure' 1 window=32 name=no%d.$2.mixed.test type=MX
    mixed_try 'an upstream that knows no EDNS' 1 window=32 name=old%d.$2.old.mixed.test
    flood n="$mixed_n" kind=mutate seed="$1" >/dev/null
    flood n="$mixed_n" kind=random seed="$1" >/dev/null
}
mixed_try()
{
    mixed_w=$1 mixed_k=$(($2 * mixed_n))
    shift 2
    mixed_o=$(many n="$mixed_k" timeout=$((20000 * SLOW)) "$@")
    same "$mixed_k 0 0 0" "$(val answered "$mixed_o") $(val wrong "$mixed_o") $(val dup "$mixed_o") $(val bad "$mixed_o")" \
        "answered, wrong, twice, short of $mixed_w: $mixed_o"
}

# leg_mixed: 100,000 queries (MIXED=N), descriptors and memory as after the first tenth. Not in the default list.
leg_mixed()
{
    mixed_all=${MIXED:-100000}
    up u1 '. byname ttl=300' 'old.mixed.test noedns=1' 'full.mixed.test silent'
    up u2 '. byname ttl=300' 'old.mixed.test noedns=1' 'full.mixed.test silent'
    proxy p "$u1 1" "$u2 2" 'user root' 'timeout 3000' 'cache-size 128k'
    promise "$mixed_all queries of mixed kinds are answered, each once and rightly"
    many n=3000 window=3000 name=n%d.full.mixed.test >/dev/null        # the tables have been full once
    mixed $((mixed_all / 10)) warm
    await 20 fds_are p 12
    mixed_kb=$(kb_of p) mixed_fd=$(fds_of p)
    mixed $((mixed_all * 9 / 10)) hot
    promise "descriptors and memory are then as after the first tenth"
    await 20 fds_are p "$mixed_fd" || fail "$(fds_of p) descriptors, wanted $mixed_fd"
    within -100000 $((mixed_kb / 50 + 256)) $(($(kb_of p) - mixed_kb)) "kB more than $mixed_kb"
    stop p
}

# asan [LEG...]: with the address and undefined-behaviour sanitizers. Memory cannot be judged there: WRAP tells the legs so.
cmd_asan()
{
    [ $# -gt 0 ] || set -- $LEGS mixed
    heavy_reports
    BIN=$T/dnsproxy.asan
    CFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all" \
        build "$BIN" || { echo "test.sh: no build with sanitizers" >&2; return 1; }
    # the program that becomes nobody may not look into itself for leaks
    export ASAN_OPTIONS="detect_leaks=0:abort_on_error=0:quarantine_size_mb=4:log_path=$T/reports/asan"
    export UBSAN_OPTIONS="print_stacktrace=1:log_path=$T/reports/ubsan"
    WRAP=env SLOW=$((SLOW * 4))
    watched "$@"
}

# valgrind [LEG...]: some legs, and 10,000 mixed queries
cmd_valgrind()
{
    have valgrind || { echo "test.sh: no valgrind" >&2; return 1; }
    [ $# -gt 0 ] || set -- serving messages edns cache admin config reload tls_transport mixed
    heavy_reports
    BIN=$T/dnsproxy.plain
    CFLAGS='-O1 -g' build "$BIN" || return 1
    WRAP="valgrind -q --vgdb=no --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --log-file=$T/reports/valgrind.%p"
    SLOW=$((SLOW * 15)) MIXED=${MIXED:-10000}
    watched "$@"
}

# analyser WHAT COMMAND...: no output, and success
analyser()
{
    analyser_w=$1
    shift
    promise "$analyser_w has nothing to say about dnsproxy.c"
    if ! have "$1"; then
        skip "no $1"
        return
    fi
    analyser_o=$("$@" 2>&1) || fail "exit status $?"
    [ -z "$analyser_o" ] || fail "$analyser_o"
}

# analyse: compilers with every warning, and static analysers. What cppcheck may not say: that two variables start with the same
# value, and that it has not tried every #ifdef.
cmd_analyse()
{
    legnow=analyse
    analyse_i=''
    [ -z "$BEARSSL" ] || analyse_i="-isystem $BEARSSL/inc"
    for analyse_c in gcc clang; do
        for analyse_o in -O0 -O2 -Os; do
            # shellcheck disable=SC2086
            analyser "$analyse_c $analyse_o with every warning" $analyse_c -std=c11 $analyse_o -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror $analyse_i -c -o /dev/null "$SRC/dnsproxy.c"
        done
        # shellcheck disable=SC2086
        analyser "$analyse_c without the extensions of Linux" $analyse_c -std=c11 -O2 -DPLAIN_POSIX -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror $analyse_i -c -o /dev/null "$SRC/dnsproxy.c"
    done
    # shellcheck disable=SC2086
    analyser 'gcc -fanalyzer' gcc -std=c11 -O2 -fanalyzer $analyse_i -c -o /dev/null "$SRC/dnsproxy.c"
    # shellcheck disable=SC2086
    analyser 'clang --analyze' clang --analyze --analyzer-output text -std=c11 $analyse_i -o /dev/null "$SRC/dnsproxy.c"
    # shellcheck disable=SC2086
    analyser cppcheck cppcheck --quiet --std=c11 --enable=warning,portability,performance --inline-suppr --suppress=missingIncludeSystem \
        --suppress=toomanyconfigs --suppress=duplicateAssignExpression --error-exitcode=1 $analyse_i "$SRC/dnsproxy.c"
    judge
    run_legs
}

# static: the musl build, in a root directory that holds nothing else
cmd_static()
{
    legnow=static
    promise "make static builds one file that needs no library"
    if ! have musl-gcc readelf make; then
        skip "missing packages: musl-tools binutils make"
        judge
        run_legs
        return
    fi
    mkdir -p "$T/static" "$T/jail"
    chmod 755 "$T/jail"
    cp "$SRC/Makefile" "$SRC/dnsproxy.c" "$T/static/"
    static_o=$(cd "$T/static" && make BEARSSL="$BEARSSL" static 2>&1) || fail "$static_o"
    cp "$T/static/dnsproxy-static" "$T/jail/dnsproxy" || { judge; run_legs; return; }
    unlike 'NEEDED|INTERP' "$(readelf -ld "$T/jail/dnsproxy")"
    BIN=/dnsproxy
    if [ "$(id -u)" = 0 ]; then
        WRAP="chroot $T/jail"
    elif unshare -r true 2>/dev/null; then
        WRAP="unshare -r chroot $T/jail"
    else
        skip "not here: chroot needs root or a user namespace"
        judge
        run_legs
        return
    fi
    run_legs static_jail
}

leg_static_jail()
{
    tls_ready
    up u1
    dot one good
    proxy p "$u1 1" "$one 2 tls pin=$(cat "$T/pki/good.pin")" 'patience 300'
    promise "in an empty root directory it serves over UDP and TCP"
    like '^NOERROR .*192\.0\.2\.1' "$(ask www.static.test)"
    like '^NOERROR .*192\.0\.2\.1' "$(ask tcp.static.test +tcp)"
    promise "and from the cache"
    forget u1
    like '^NOERROR .*192\.0\.2\.1' "$(ask www.static.test)"
    same 0 "$(asked u1 www.static)" "queries at the upstream"
    promise "and over TLS to a pinned upstream"
    kill_pid u1
    answered 10 5
    promise "and its admin client works there"
    # shellcheck disable=SC2086
    like '^dnsproxy .* queries ' "$($WRAP "$BIN" -a status "admin 127.0.0.1@$admin" '192.0.2.1 1' 2>&1)"
    promise "and -t prints the normal form there"
    # shellcheck disable=SC2086
    like '^192\.0\.2\.1@53 1$' "$($WRAP "$BIN" -t '192.0.2.1 1' 2>&1)"
    promise "with all standard descriptors closed it serves too"
    stop p
    up u1
    port=$(freeport)
    admin=$(freeport)
    # shellcheck disable=SC2086
    $WRAP "$BIN" "$u1 1" "listen 127.0.0.1@$port" "admin 127.0.0.1@$admin" <&- >&- 2>&- &
    ready q $!
    like '^NOERROR' "$(ask closed.static.test)"
    like '^NOERROR' "$(ask closed2.static.test +tcp)"
    kill_pid q
}

# ---- Fuzzing: libFuzzer targets that include dnsproxy.c

# fuzz_source: $T/fakes.h, a small kernel for the sequence target: descriptors, time and randomness; $T/fuzz.c, the targets
fuzz_source()
{
    lab_source
    cat >"$T/fakes.h" <<'END_OF_FAKES'
#define _GNU_SOURCE 1
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* A descriptor of the program: to the program a socket, to the target two queues. */
enum { FIRST_FD = 1000, FDS = 96, QUEUE = 12, QUEUED = 4096 };
enum kind { K_FREE, K_UDP, K_TCP, K_LISTEN, K_EPOLL };
struct fake {
	enum kind kind;
	bool connecting, connected, eof, stuck, listening;
	int err;                                /* what the next call gets */
	unsigned serial;
	struct sockaddr_in peer;
	uint8_t in[QUEUE][QUEUED];              /* a stream uses the first only */
	struct sockaddr_in from[QUEUE];
	size_t in_len[QUEUE];
	unsigned queued;
	uint8_t out[70000];                    /* of streams, what was sent and not yet looked at */
	size_t out_len;
};
static struct fake fakes[FDS];
static unsigned fake_serial;
static int fakes_max = FDS;                     /* descriptors that may be open */
static int64_t fake_now = 1000000000;
static int last_timeout;
static uint64_t fake_random = 1;
static void fake_sent(struct fake *f, const struct sockaddr_in *to, const uint8_t *p, size_t n);
static struct fake *fake_accept(struct fake *listener);
static bool fake_waiting(const struct fake *listener);

#define FAKE(fd) (&fakes[(fd) - FIRST_FD])
#define STREAM(f) ((uint8_t *)(f)->in)
#define IS_FAKE(fd) ((fd) >= FIRST_FD && (fd) < FIRST_FD + FDS)
#define MUST(c) do { if (!(c)) { fprintf(stderr, "broken: %s (line %d)\n", #c, __LINE__); abort(); } } while (0)

static int fake_open(enum kind kind)
{
	int open = 0, at = -1;

	for (int i = 0; i < FDS; i++) {
		open += fakes[i].kind != K_FREE;
		if (fakes[i].kind == K_FREE && at < 0)
			at = i;
	}
	if (open >= fakes_max || at < 0) {
		errno = EMFILE;
		return -1;
	}
	fakes[at].kind = kind;
	fakes[at].connecting = fakes[at].connected = fakes[at].eof = fakes[at].stuck = fakes[at].listening = false;
	fakes[at].err = 0;
	fakes[at].queued = 0;
	fakes[at].in_len[0] = fakes[at].out_len = 0;
	fakes[at].serial = ++fake_serial;
	return at + FIRST_FD;
}

static int lab_socket(int family, int type, int proto)
{
	(void)family;
	(void)proto;
	return fake_open((type & 15) == SOCK_STREAM ? K_TCP : K_UDP);
}

static bool epoll_has[FDS];
static int lab_close(int fd)
{
	if (!IS_FAKE(fd))
		return close(fd);
	MUST(FAKE(fd)->kind != K_FREE && !epoll_has[fd - FIRST_FD]);
	FAKE(fd)->kind = K_FREE;
	return 0;
}

static int lab_connect(int fd, const struct sockaddr *to, socklen_t n)
{
	struct fake *f = FAKE(fd);

	MUST(IS_FAKE(fd) && f->kind != K_FREE && n >= sizeof f->peer);
	memcpy(&f->peer, to, sizeof f->peer);
	if (f->kind == K_UDP) {
		f->connected = true;
		return 0;
	}
	f->connecting = true;
	errno = EINPROGRESS;
	return -1;
}

static int lab_bind(int fd, const struct sockaddr *to, socklen_t n) { (void)fd; (void)to; (void)n; return 0; }
static int lab_listen(int fd, int n) { (void)n; FAKE(fd)->kind = K_LISTEN; FAKE(fd)->listening = true; return 0; }
static int lab_setsockopt(int fd, int level, int what, const void *v, socklen_t n)
{
	(void)fd; (void)level; (void)what; (void)v; (void)n;
	return 0;
}

static int lab_getsockopt(int fd, int level, int what, void *v, socklen_t *n)
{
	struct fake *f = FAKE(fd);

	(void)level; (void)what;
	MUST(IS_FAKE(fd) && *n == sizeof(int));
	memcpy(v, &f->err, sizeof(int));
	f->err = 0;
	return 0;
}

static int lab_accept(int fd, struct sockaddr *from, socklen_t *n)
{
	struct fake *f = fake_waiting(FAKE(fd)) ? fake_accept(FAKE(fd)) : (errno = EAGAIN, NULL);

	if (f == NULL)
		return -1;
	if (from != NULL) {
		memcpy(from, &f->peer, sizeof f->peer);
		*n = sizeof f->peer;
	}
	return (int)(f - fakes) + FIRST_FD;
}

static int lab_fcntl(int fd, int what, ...) { (void)fd; (void)what; return 0; }

static bool fake_fails(struct fake *f)
{
	if (f->err == 0)
		return false;
	errno = f->err;
	f->err = 0;
	return true;
}

static ssize_t lab_send(int fd, const void *p, size_t n, int flags)
{
	struct fake *f = FAKE(fd);

	(void)flags;
	MUST(IS_FAKE(fd) && f->kind == K_TCP && n > 0);
	if (fake_fails(f))
		return -1;
	if (f->stuck || f->out_len == sizeof f->out) {
		errno = EAGAIN;
		return -1;
	}
	if (n > sizeof f->out - f->out_len)
		n = sizeof f->out - f->out_len;
	memcpy(f->out + f->out_len, p, n);
	f->out_len += n;
	return (ssize_t)n;
}

static ssize_t lab_recv(int fd, void *p, size_t n, int flags)
{
	struct fake *f = FAKE(fd);

	(void)flags;
	MUST(IS_FAKE(fd) && f->kind == K_TCP && !f->connecting);
	MUST(n > 0);
	if (fake_fails(f))
		return -1;
	if (f->in_len[0] == 0) {
		errno = EAGAIN;
		return f->eof ? 0 : -1;
	}
	if (n > f->in_len[0])
		n = f->in_len[0];
	memcpy(p, STREAM(f), n);
	memmove(STREAM(f), STREAM(f) + n, f->in_len[0] - n);
	f->in_len[0] -= n;
	return (ssize_t)n;
}

static int lab_recvmmsg(int fd, struct mmsghdr *v, unsigned n, int flags, struct timespec *t)
{
	struct fake *f = FAKE(fd);
	unsigned done = 0;

	(void)flags; (void)t;
	MUST(IS_FAKE(fd) && f->kind == K_UDP && n > 0);
	if (fake_fails(f))
		return -1;
	for (; done < n && done < f->queued; done++) {
		struct msghdr *h = &v[done].msg_hdr;
		size_t k = f->in_len[done], room = h->msg_iov[0].iov_len;
		h->msg_flags = k > room ? MSG_TRUNC : 0;
		if (k > room)
			k = room;
		memcpy(h->msg_iov[0].iov_base, f->in[done], k);
		v[done].msg_len = (unsigned)k;
		if (h->msg_name != NULL) {
			memcpy(h->msg_name, &f->from[done], sizeof f->from[0]);
			h->msg_namelen = sizeof f->from[0];
		}
	}
	for (unsigned i = done; i < f->queued; i++) {
		memcpy(f->in[i - done], f->in[i], f->in_len[i]);
		f->in_len[i - done] = f->in_len[i];
		f->from[i - done] = f->from[i];
	}
	f->queued -= done;
	if (done == 0)
		errno = EAGAIN;
	return done > 0 ? (int)done : -1;
}

static int lab_sendmmsg(int fd, struct mmsghdr *v, unsigned n, int flags)
{
	struct fake *f = FAKE(fd);

	(void)flags;
	MUST(IS_FAKE(fd) && f->kind == K_UDP && n > 0);
	if (fake_fails(f))
		return -1;
	for (unsigned i = 0; i < n; i++) {
		const struct msghdr *h = &v[i].msg_hdr;
		struct sockaddr_in to = f->peer;
		MUST((h->msg_name != NULL) == !f->connected && h->msg_iovlen == 1);
		if (h->msg_name != NULL)
			memcpy(&to, h->msg_name, sizeof to);
		fake_sent(f, &to, h->msg_iov[0].iov_base, h->msg_iov[0].iov_len);
	}
	return (int)n;
}

static struct epoll_event epoll_set[FDS];       /* by descriptor; epoll_has says which are in the set */

static short fake_ready(const struct fake *f, short events)
{
	short r = 0;

	MUST(f->kind != K_FREE);
	if (f->kind == K_EPOLL) {
		for (int i = 0; i < FDS && r == 0; i++)
			r = epoll_has[i] && fake_ready(&fakes[i], (short)epoll_set[i].events) ? POLLIN : 0;
	} else if (f->kind == K_LISTEN)
		r = fake_waiting(f) ? POLLIN : 0;
	else if (f->kind == K_UDP)
		r = (short)((f->queued > 0 ? POLLIN : 0) | (f->err ? POLLERR : 0) | POLLOUT);
	else if (!f->connecting)
		r = (short)((f->in_len[0] > 0 || f->eof ? POLLIN : 0) | (f->err ? POLLERR | POLLHUP : 0) | (f->stuck ? 0 : POLLOUT));
	return r & (short)(events | POLLERR | POLLHUP);
}

static int lab_epoll_create1(int flags) { (void)flags; return fake_open(K_EPOLL); }

static int lab_epoll_ctl(int set, int what, int fd, struct epoll_event *e)
{
	MUST(IS_FAKE(set) && FAKE(set)->kind == K_EPOLL && IS_FAKE(fd) && FAKE(fd)->kind != K_FREE);
	MUST(epoll_has[fd - FIRST_FD] == (what != EPOLL_CTL_ADD));
	epoll_has[fd - FIRST_FD] = what != EPOLL_CTL_DEL;
	epoll_set[fd - FIRST_FD] = *e;
	return 0;
}

static int lab_epoll_wait(int set, struct epoll_event *e, int n, int timeout)
{
	int k = 0;

	MUST(IS_FAKE(set) && FAKE(set)->kind == K_EPOLL && timeout == 0);
	for (int i = 0; i < FDS && k < n; i++) {
		short r = epoll_has[i] ? fake_ready(&fakes[i], (short)epoll_set[i].events) : 0;
		if (r == 0)
			continue;
		e[k] = epoll_set[i];
		e[k++].events = (uint32_t)r;
	}
	return k;
}

static int lab_poll(struct pollfd *p, nfds_t n, int timeout)
{
	int ready = 0;

	last_timeout = timeout;
	for (nfds_t i = 0; i < n; i++) {
		p[i].revents = 0;
		if (!IS_FAKE(p[i].fd))
			continue;               /* standard error: takes nothing */
		p[i].revents = fake_ready(FAKE(p[i].fd), p[i].events);
		ready += p[i].revents != 0;
	}
	return ready;
}

static int lab_clock_gettime(clockid_t c, struct timespec *t)
{
	(void)c;
	fake_now++;                             /* it never stands still */
	t->tv_sec = fake_now / 1000000;
	t->tv_nsec = fake_now % 1000000 * 1000;
	return 0;
}

static int lab_getentropy(void *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		fake_random = fake_random * 6364136223846793005u + 1442695040888963407u;
		((uint8_t *)p)[i] = (uint8_t)(fake_random >> 56);
	}
	return 0;
}

#define socket lab_socket
#define close lab_close
#define connect lab_connect
#define bind lab_bind
#define listen lab_listen
#define setsockopt lab_setsockopt
#define getsockopt lab_getsockopt
#define accept lab_accept
#define fcntl lab_fcntl
#define send lab_send
#define recv lab_recv
#define recvmmsg lab_recvmmsg
#define sendmmsg lab_sendmmsg
#define poll lab_poll
#define epoll_create1 lab_epoll_create1
#define epoll_ctl lab_epoll_ctl
#define epoll_wait lab_epoll_wait
#define clock_gettime lab_clock_gettime
#define getentropy lab_getentropy
END_OF_FAKES
    cat >"$T/fuzz.c" <<'END_OF_FUZZ'
#ifdef TARGET_SEQUENCE
#define LAB_FAKES "fakes.h"
#endif
#include "lab.h"

#ifndef MUST
#define MUST(c) do { if (!(c)) { fprintf(stderr, "broken: %s (line %d)\n", #c, __LINE__); abort(); } } while (0)
#endif

/* The program as after its start, with the given configuration. */
static void fuzz_start(const char *config)
{
	static char text[4096], *lines[64];
	struct text e = { errors, sizeof errors, 0 };
	char from[80], *save;
	unsigned k = 0;

	snprintf(text, sizeof text, "%s", config);
	for (char *l = strtok_r(text, "\n", &save); l != NULL; l = strtok_r(NULL, "\n", &save))
		lines[k++] = l;
	source = (struct source){ .lines = lines };
	log_level = L_ERROR;
	clock_read();
	started = now;
	errors[0] = '\0';
	if (!config_read(&cfg, &e, from)) {
		fputs(errors, stderr);
		abort();
	}
	lab_tables();
}

/* A copy whose end is the end of its memory; good until the third call after this. */
static uint8_t *exactly(const uint8_t *p, size_t k)
{
	static uint8_t *copies[3];
	static unsigned turn;
	uint8_t *copy = calloc(1, k ? k : 1);

	free(copies[++turn % 3]);
	copies[turn % 3] = copy;
	if (k > 0)
		memcpy(copy, p, k);
	return copy;
}

/* Asks for key and looks hard at the reply from the cache. Gives its lowest TTL, or NO_TTL when the cache has nothing. */
static uint32_t cached(const struct key *k, unsigned size, bool tcp)
{
	static uint8_t out[MSG_MAX], query[600];
	struct question q;
	struct reply_to r;
	struct slot *slot;
	struct answer a;
	uint32_t hash = hash_bytes(k->b, k->len);
	size_t len = query_write(query, 99, k, size > 0, false), limit = tcp ? MSG_MAX : size == 0 ? 512 : size;
	struct source_msg s;
	bool cut;

	if (size > 0)
		put16at(query + 12 + k->name_len + 4 + 3, size);
	if (question_read(&q, query, len) != NOERROR)
		return NO_TTL;
	q.key.b[q.key.name_len + 4] = k->b[k->name_len + 4];    /* without OPT no DO is sent */
	reply_to_question(&r, &q, tcp);
	slot = cache_find_any(&q.key, hash);
	if (slot == NULL || entry_expired(entry_at((size_t)(slot->at - 1) * 4)))
		return NO_TTL;
	s = entry_source(entry_at((size_t)(slot->at - 1) * 4), false);
	len = reply_write(out, &s, &r);
	MUST(len <= limit && len >= 12 + k->name_len + 4);
	MUST(get16at(out) == 99 && (get16at(out + 2) & F_QR) && answer_matches(out, len, k));
	cut = get16at(out + 2) & F_TC;
	MUST(answer_read(&a, exactly(out, len), len, k) == NULL && a.len == len);
	MUST(!cut || a.nttl == 0);
	return cut ? 0 : a.ttl;
}

#ifdef TARGET_CLIENT
/* A client's message: what is read, the error that refuses it, and the question that would go to upstreams. */
static void fuzz_one(const uint8_t *data, size_t size)
{
	static uint8_t out[ERROR_REPLY_MAX], back[UPSTREAM_QUERY_MAX];
	const uint8_t *p = exactly(data, size);
	struct question q, again;
	uint8_t name[NAME_MAX_WIRE];
	size_t len;
	int rcode = question_read(&q, p, size);

	if (rcode < 0) {
		MUST(size < 12 || (p[2] & 0x80));
		return;
	}
	MUST(rcode == NOERROR || rcode == FORMERR || rcode == NOTIMP || rcode == REFUSED || rcode == BADVERS);
	len = error_write(out, &q, (unsigned)rcode, size & 1 ? EDE_PROHIBITED : EDE_NONE);
	MUST(len <= sizeof out && len <= size + 11 + 6 && get16at(out) == get16at(p) && (out[2] & 0x80));
	if (rcode != NOERROR)
		return;
	MUST(q.key.name_len >= 1 && q.key.name_len <= NAME_MAX_WIRE && q.key.len == q.key.name_len + 5);
	MUST(name_parse(name, name_text(q.key.b)) == q.key.name_len && memcmp(name, q.key.b, q.key.name_len) == 0);
	MUST(name_len(q.key.b) == q.key.name_len);
	name_is_private(q.key.b, q.key.name_len);
	for (int i = 0; i < 4; i++) {
		len = query_write(back, 7, &q.key, i & 1, i & 2);
		MUST(len <= sizeof back && question_read(&again, back, len) == NOERROR && again.key.len == q.key.len);
		MUST(memcmp(again.key.b, q.key.b, q.key.len - (i & 1 ? 0 : 1)) == 0);
	}
}

static void fuzz_init(void) { fuzz_start("192.0.2.77 1\nlisten 127.0.0.1@5300"); }
#endif

#ifdef TARGET_ANSWER
/* An upstream's answer: read, stripped, into the cache, and out to clients of every kind, now and later. */
static void fuzz_one(const uint8_t *data, size_t size)
{
	static uint8_t out[MSG_MAX];
	static struct answer a, again;
	static const unsigned sizes[] = { 0, 512, 1232 };
	static uint8_t *kept;
	uint8_t *p, *twin;
	struct key k;
	struct keep keep = { .key = &k, .ttl = 100 };
	struct source_msg s = { .cap = NO_TTL };
	struct reply_to r = { .id = 7, .edns = true };
	const char *broken;
	size_t at = 12;
	uint32_t ttl;
	bool middle;

	if (size < 17)
		return;
	free(kept);
	p = kept = calloc(1, size);
	memcpy(p, data, size);
	for (size_t i = 0; ; i++) {                     /* the question that the message itself tells */
		if (at >= size || p[at] > 63 || i + p[at] + 2 > NAME_MAX_WIRE || at + p[at] + 5 > size)
			return;
		k.b[i] = p[at];
		if (p[at++] == 0) {
			key_set(&k, i + 1, get16at(p + at), get16at(p + at + 2), p[1] & (KEY_DO | KEY_CD));
			break;
		}
		for (unsigned left = k.b[i]; left > 0; left--)
			k.b[++i] = lower(p[at++]);
	}
	if (!answer_matches(p, size, &k))
		return;
	memcpy(p + 12, k.b, k.name_len);                /* a pointer into a label of it may change with its letters: no promise there */
	if (answer_read(&a, p, size, &k) != NULL)
		return;
	MUST(a.len <= size);
	if (a.truncated)
		return;
	middle = a.opt && a.opt_at + a.opt_len < a.len;
	answer_strip(&a, p);
	twin = calloc(1, a.len);
	memcpy(twin, p, a.len);
	if (middle && answer_read(&again, twin, a.len, &k) != NULL) {
		free(twin);                     /* names ran through the OPT: the program looks, and finds it malformed */
		return;
	}
	MUST(answer_read(&again, twin, a.len, &k) == NULL && !again.opt && again.nttl == a.nttl && again.ttl == a.ttl && again.len == a.len);
	ttl = true;
	for (int fill = 0; fill <= 0x40 && ttl; fill += 0x40) {
		memcpy(twin, p, a.len);         /* a name that runs through a TTL changes with it: no promise there */
		at = 12 + k.name_len + 4;
		for (unsigned i = 0; i < a.nttl; i++) {
			at = name_end(twin, at);
			memset(twin + at + 4, fill, 4);
			at += 10 + get16at(twin + at + 8);
		}
		ttl = answer_read(&again, twin, a.len, &k) == NULL;
	}
	free(twin);
	if (!ttl)
		return;
	r.name = k.b;
	r.name_len = k.name_len;
	r.type = key_type(&k);
	s.msg = p;
	s.len = a.len;
	s.nttl = a.nttl;
	s.ede = a.ede;
	s.ede_len = a.ede_len;
	s.rcode = a.rcode;
	for (unsigned i = 0; i < 8; i++) {
		r.limit = i & 1 ? MSG_MAX : 512;
		s.cap = i & 2 ? MARKED_TTL : NO_TTL;
		s.age = i & 4 ? 10 : 0;
		at = reply_write(out, &s, &r);
		MUST(at <= r.limit && at >= 12 + k.name_len + 4);
		MUST(answer_read(&again, exactly(out, at), at, &k) == NULL && again.len == at);
		MUST(!(i & 2) || again.nttl == 0 || again.ttl <= MARKED_TTL);
	}
	if (a.ttl == 0 || a.nttl == 0 || key_type(&k) == 0 || key_type(&k) == T_OPT || key_type(&k) == T_AXFR || key_type(&k) == T_IXFR)
		return;
	keep.ttl = MIN(a.ttl, 86400u);
	keep.hash = hash_bytes(k.b, k.len);
	cache_put(&keep, &a);
	broken = cache_broken();
	if (broken != NULL)
		fprintf(stderr, "%s\n", broken);
	MUST(broken == NULL);
	for (unsigned i = 0; i < 4; i++) {
		ttl = cached(&k, sizes[i % 3], i == 3);
		MUST(ttl == NO_TTL || ttl <= 86400);
	}
	now += SEC(keep.ttl - 1);
	ttl = cached(&k, 0, true);
	MUST(ttl == NO_TTL || ttl <= 1);
	now += SEC(1);
	MUST(cached(&k, 0, true) == NO_TTL);
	if (now > SEC(1000000000))
		now = started;
}

static void fuzz_init(void) { fuzz_start("192.0.2.77 1\nlisten 127.0.0.1@5300\ncache-size 16k"); }
#endif

#ifdef TARGET_CONFIG
static void fuzz_one(const uint8_t *data, size_t size)
{
	static char text[8192], once[65536];

	if (size >= sizeof text || memchr(data, 0, size) != NULL)
		return;
	memcpy(text, data, size);
	text[size] = '\0';
	if (config_of(text) == NULL) {
		MUST(errors[0] != '\0');
		for (const char *p = errors; *p != '\0'; p++)
			MUST(*p == '\n' || (*p >= ' ' && *p <= '~'));
		return;
	}
	snprintf(once, sizeof once, "%s", normal);
	if (config_of(once) == NULL || strcmp(once, normal) != 0) {
		fprintf(stderr, "first:\n%s\nsecond:\n%s\n%s\n", once, normal, errors);
		abort();
	}
}

static void fuzz_init(void) { fuzz_start("192.0.2.77 1\nlisten 127.0.0.1@5300"); }
#endif

#ifdef TARGET_ADMIN
/* Admin lines, as the program reads them: the first is the command, those behind it are headers. */
static void fuzz_one(const uint8_t *data, size_t size)
{
	static struct admin a;
	const char *reply;
	char line[513];

	if (size > 512 || memchr(data, '\n', size) == data)
		return;
	memcpy(line, data, size);
	line[size] = '\0';
	if (strstr(line, "query") || strstr(line, "reload"))
		return;                         /* the sequence target does those */
	line[strcspn(line, "\n")] = '\0';
	reply = admin_of(line);
	MUST(reply[0] != '\0');
	for (; *reply != '\0'; reply++)
		MUST(*reply == '\n' || *reply == '\r' || (*reply >= ' ' && *reply <= '~'));
	memset(&a, 0, sizeof a);
	a.reply = (struct text){ a.out, sizeof a.out, 0 };
	for (const uint8_t *p = data, *end = data + size, *nl; p < end; p = nl + 1) {
		if ((nl = memchr(p, '\n', (size_t)(end - p))) == NULL)
			break;
		memcpy(line, p, (size_t)(nl - p));
		line[nl - p] = '\0';
		if (admin_http_line(&a, line))
			break;
	}
	if (cache.entries < 20) {
		struct keep keep = { .key = &put_key, .ttl = 100 };
		static struct answer got;
		char name[16];
		snprintf(name, sizeof name, "n%u.test", cache.entries);
		wanswer(name, T_A, 100, 60);
		lab_key(&put_key, name, T_A, 0);
		if (answer_read(&got, m, n, &put_key) == NULL) {
			keep.hash = hash_bytes(put_key.b, put_key.len);
			cache_put(&keep, &got);
		}
	}
}

static void fuzz_init(void) { fuzz_start("192.0.2.77 1\nlisten 127.0.0.1@5300\ncache-size 16k"); }
#endif

#ifdef TARGET_CERT
/* A server's certificate chain: two bytes of length and a certificate, again and again. The first byte says how the upstream
 * is to be authenticated. */
static void fuzz_one(const uint8_t *data, size_t size)
{
	static struct tls tls;
	struct spec *spec = &upstreams[0].spec;
	struct auth *a = &tls.auth;
	const br_x509_class **c = &a->vtable;
	unsigned how, usages, err;
	size_t k, piece;

	if (size < 3)
		return;
	how = *data++;
	size--;
	memset(spec, 0, sizeof *spec);
	addr_parse(&spec->addr, how & 8 ? "::1" : "127.0.0.1");
	strcpy(spec->name, how & 1 ? "dns.test" : "");
	spec->npins = how >> 1 & 1;
	spec->noverify = how & 4;
	tls_init(&tls, &upstreams[0]);
	a->now = a->floor = INT64_C(1790000000);
	(*c)->start_chain(c, how & 1 ? "dns.test" : NULL);
	for (unsigned i = 0; size >= 2 && i < 6; i++) {
		k = get16at(data);
		data += 2;
		size -= 2;
		k = MIN(k, size);
		(*c)->start_cert(c, (uint32_t)k);
		for (size_t at = 0; at < k; at += piece) {
			piece = MIN(k - at, (size_t)1 + how * 7);
			(*c)->append(c, exactly(data + at, piece), piece);
		}
		(*c)->end_cert(c);
		data += k;
		size -= k;
	}
	err = (*c)->end_chain(c);
	for (const char *p = a->seen; *p != '\0'; p++)
		MUST(p < a->seen + sizeof a->seen);
	MUST(spec->noverify || err != 0 || !spec->npins || a->pin_ok);
	MUST(err != 0 || !auth_needs_chain(spec) || (a->name_ok && a->key_use_ok && a->nanchors > 0));
	if (err == 0)
		MUST((*c)->get_pkey(c, &usages) != NULL);
}

static void fuzz_init(void)
{
	const char *ca = getenv("CA");

	fuzz_start("192.0.2.77 1\nlisten 127.0.0.1@5300");
	if (ca != NULL)
		MUST(ca_load(ca) == NULL);
}
#endif

END_OF_FUZZ
    fuzz_source_sequence
    cat >>"$T/fuzz.c" <<'END_OF_FUZZ'

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool up;

	if (!up) {
		fuzz_init();
		up = true;
	}
	fuzz_one(data, size);
	return 0;
}
END_OF_FUZZ
}

# fuzz_source_sequence: the target that feeds the whole machinery, appended to $T/fuzz.c
fuzz_source_sequence()
{
    cat >>"$T/fuzz.c" <<'END_OF_SEQUENCE'
#ifdef TARGET_SEQUENCE
/* A sequence of events: what clients and upstreams send, time that passes, connections that end, descriptors that run out.
 * After each event the program runs until it would wait, and then every table must be in order, and every client's query
 * answered once or waiting. */

enum { TRACKED = 256, WILD_PORT = 999, LONGEST = 5000 };
static struct asked {
	bool open, tcp;
	unsigned conn, limit;
	uint16_t id;
	struct sockaddr_in from;
	int64_t born;
	size_t len;
	uint8_t query[300];
} asked[TRACKED];
static unsigned next_id = 1;
static bool mutated;                            /* an upstream has sent something odd */

enum { CONNS = 6 };
static struct conn { bool open, admin, wild; unsigned serial, fake; size_t nrest; uint8_t rest[300]; } conns[CONNS];
static unsigned due_tcp, due_admin;             /* connections that wait to be accepted */

static const char *const sets[] = {
	"192.0.2.11 1\n192.0.2.12 2\n192.0.2.13 3 tcp\n",
	"192.0.2.11 1\n192.0.2.12 1 final\n192.0.2.14 2 tls noverify\nserve-stale 100\ncache-negative 60\npatience 200\nlog debug\n",
	"192.0.2.13 1 tcp\n192.0.2.11 2 tcp\n192.0.2.15 2 domain=b.test\n127.0.0.9 5\ncache-min-ttl 10\n",
	"192.0.2.12 1\ncache-max-ttl 20\nserve-stale 10\n",
	"192.0.2.11 1\n192.0.2.11@54 1\n192.0.2.11@55 1 final\n192.0.2.12 2\n192.0.2.13 2 tcp\n192.0.2.14 3\nlog debug\n",
	"192.0.2.16 1\n",
};
#define BASE "listen 127.0.0.1@5300\nadmin 127.0.0.1@5301\nqueries 8\ntcp-clients 4\ncache-size 8k\n"

static bool is_listener(const struct fake *f) { return nlisteners > 0 && f == FAKE(listeners[0].udp); }

/* A reply to a client: it must be the first to something that was asked, and be well-formed. */
static void reply_seen(struct asked *q, const uint8_t *p, size_t len)
{
	static uint8_t copy[MSG_MAX];
	static struct answer a;
	struct question question;
	int rcode = question_read(&question, q->query, q->len);

	MUST(q->open && rcode == NOERROR);
	q->open = false;
	MUST(len >= q->len - (question.edns ? 11 : 0) && len <= q->limit);
	MUST((p[2] & 0x80) && get16at(p + 4) == 1);
	MUST(memcmp(p + 12, q->query + 12, question.key.name_len + 4) == 0);
	if (mutated)                            /* a name of it may run through a TTL, and change with that */
		return;
	memcpy(copy, p, len);
	MUST(answer_read(&a, copy, len, &question.key) == NULL && a.len == len);
	MUST(a.opt == question.edns || len > MSG_MAX - 11);
}

static void fake_sent(struct fake *f, const struct sockaddr_in *to, const uint8_t *p, size_t len)
{
	if (is_listener(f)) {
		if (ntohs(to->sin_port) == WILD_PORT)
			return;
		MUST(len >= 12);
		for (unsigned i = 0; i < TRACKED; i++)
			if (!asked[i].tcp && asked[i].open && asked[i].id == get16at(p) && memcmp(&asked[i].from, to, sizeof *to) == 0) {
				reply_seen(&asked[i], p, len);
				return;
			}
		MUST(!"a reply that nobody waits for");
	}
	MUST(f->connected && len <= UPSTREAM_QUERY_MAX);
	if (f->out_len + 2 + len > 8192)
		f->out_len = 0;
	put16at(f->out + f->out_len, (unsigned)len);
	memcpy(f->out + f->out_len + 2, p, len);
	f->out_len += 2 + len;
}

/* Takes whole replies out of what the program has sent to a TCP client. */
static void conn_drain(struct conn *c)
{
	struct fake *f = &fakes[c->fake];
	size_t at = 0, len;

	while (f->out_len - at >= 2 && f->out_len - at - 2 >= (len = get16at(f->out + at))) {
		unsigned i = 0;
		while (i < TRACKED && !(asked[i].tcp && asked[i].open && asked[i].conn == c->serial && asked[i].id == get16at(f->out + at + 2)))
			i++;
		MUST(c->wild || i < TRACKED);
		if (!c->wild)
			reply_seen(&asked[i], f->out + at + 2, len);
		at += 2 + len;
	}
	if (at > 0) {
		memmove(f->out, f->out + at, f->out_len - at);
		f->out_len -= at;
	}
}

/* The program has closed it: what was asked there waits no more. */
static void conn_end(struct conn *c)
{
	if (!c->admin && fakes[c->fake].serial == c->serial)
		conn_drain(c);
	for (unsigned i = 0; i < TRACKED; i++)
		if (asked[i].tcp && asked[i].conn == c->serial)
			asked[i].open = false;
	c->open = false;
}

static void conns_look(void)
{
	for (unsigned i = 0; i < CONNS; i++) {
		struct conn *c = &conns[i];
		if (!c->open)
			continue;
		if (fakes[c->fake].kind == K_FREE || fakes[c->fake].serial != c->serial)
			conn_end(c);
		else if (c->admin)
			fakes[c->fake].out_len = 0;
		else
			conn_drain(c);
	}
}

static bool fake_waiting(const struct fake *l) { return l == FAKE(admin_fd) ? due_admin > 0 : due_tcp > 0; }

static struct fake *fake_accept(struct fake *l)
{
	bool admin = l == FAKE(admin_fd);
	unsigned i;
	int fd;

	conns_look();
	for (i = 0; i < CONNS && conns[i].open; i++)
		;
	fd = fake_open(K_TCP);
	if (fd < 0)
		return NULL;
	if (admin)
		due_admin--;
	else
		due_tcp--;
	FAKE(fd)->peer.sin_family = AF_INET;
	FAKE(fd)->peer.sin_addr.s_addr = htonl(0x0a000000 + i);
	FAKE(fd)->peer.sin_port = htons(5000);
	if (i < CONNS)
		conns[i] = (struct conn){ .open = true, .admin = admin, .serial = FAKE(fd)->serial, .fake = (unsigned)(fd - FIRST_FD) };
	else
		FAKE(fd)->eof = true;
	return FAKE(fd);
}

/* ---- Every table in order? */

static void check_query(const struct query *q, unsigned *nwaiters, unsigned *nudp, unsigned *nheld)
{
	unsigned found = 0;

	for (const struct query *x = query_table[q->hash & query_table_mask]; x != NULL; x = x->next)
		found += x == q;
	MUST(found == 1 && list_on(&q->staged) && !q->starting);
	MUST(now < q->born + MS(LONGEST) + SEC(1));
	*nheld += q->held_buf != NULL;
	MUST(q->best < (int)q->nasks && q->nasks <= MAX_UPSTREAMS);
	for (unsigned i = 0; i < q->nasks; i++) {
		const struct ask *a = &q->asks[i];
		MUST(a->q == q);
		if (a->state == ASK_WAIT)
			MUST((a->port != NULL) != (a->stream != NULL) && list_on(&a->on));
		else
			MUST(a->port == NULL && a->stream == NULL && !list_on(&a->on));
		for (unsigned k = 0; k < i; k++)
			MUST(q->asks[k].up != a->up || q->asks[k].state != ASK_WAIT || a->state != ASK_WAIT);
	}
	for (const struct node *x = q->waiters.next; x != &q->waiters; x = x->next) {
		const struct waiter *w = OWNER(x, struct waiter, of_query);
		MUST(w->q == q && x->next->prev == x && !q->replied && w->holder->count > 0);
		++*nwaiters;
		*nudp += w->peer.kind == PEER_UDP && ntohs(w->peer.from.in.sin_port) != WILD_PORT;
	}
}

static void check(void)
{
	unsigned nqueries = 0, nwaiters = 0, nudp = 0, nheld = 0, nports = 0, nopen = 0, held = 0, waiting = 0;
	const char *broken = cache_broken();

	if (broken != NULL)
		fprintf(stderr, "cache: %s\n", broken);
	MUST(broken == NULL);
	for (unsigned i = 0; i < queries.ever; i++) {
		const struct query *q = pool_at(&queries, i);
		if (!q->active)
			continue;
		nqueries++;
		check_query(q, &nwaiters, &nudp, &nheld);
	}
	MUST(nqueries == queries.used && nwaiters == waiters.used && nheld == held_small.used + held_big.used);
	for (unsigned i = 0; i <= query_table_mask; i++)
		for (const struct holder *h = holder_table[i]; h != NULL; h = h->next) {
			MUST(h->count > 0 && list_on(&h->of_count) && h->count <= holders_most);
			held += h->count;
		}
	MUST(held == nwaiters);
	for (unsigned i = 0; i < TRACKED; i++) {
		if (!asked[i].open)
			continue;
		MUST(asked[i].tcp || now < asked[i].born + MS(LONGEST + 1));
		waiting += !asked[i].tcp;
	}
	MUST(waiting == nudp);
	for (int i = 0; i < npolls; i++) {
		MUST(*watches[i].slot == i && IS_FAKE(polls[i].fd) && FAKE(polls[i].fd)->kind != K_FREE);
		for (int k = 0; k < i; k++)
			MUST(polls[k].fd != polls[i].fd);
		if (watches[i].ready == port_ready) {
			const struct port *p = watches[i].owner;
			unsigned k = 0;
			for (const struct node *x = p->asks.next; x != &p->asks; x = x->next, k++)
				MUST(OWNER(x, struct ask, on)->port == p);
			MUST(p->fd == polls[i].fd && k == p->open && k > 0 && p->busy == 0 && !p->dirty && p->life <= PORT_LIFE + BATCH);
			nports++;
		}
	}
	MUST(nports == ports.used);
	for (int i = 0; i < FDS; i++)
		nopen += fakes[i].kind != K_FREE;
	MUST(nopen == (unsigned)npolls);
	for (unsigned i = 0; i < norder; i++)
		for (int k = 0; k < 2; k++) {
			const struct stream *s = upstreams[order[i]].streams[k];
			MUST((s->state == S_CLOSED) == (s->fd < 0) && !s->dirty);
			MUST(s->state != S_CLOSED || (list_empty(&s->pending) && list_empty(&s->sent)));
		}
	for (unsigned i = 0; i < CONNS; i++) {
		const struct conn *c = &conns[i];
		const struct fake *f = &fakes[c->fake];
		if (!c->open || c->admin || c->wild || f->stuck || f->out_len > 0 || f->in_len[0] > 0)
			continue;
		for (int k = 0; k < npolls; k++)
			if (polls[k].fd == (int)c->fake + FIRST_FD) {
				const struct tcp_client *t = watches[k].owner;
				unsigned open = 0;
				for (unsigned j = 0; j < TRACKED; j++)
					open += asked[j].open && asked[j].tcp && asked[j].conn == c->serial;
				MUST(t->stopped || open == t->waiting + (c->nrest > 0));
			}
	}
}

/* Lets the program run until it would wait. Before it waits, all that it has to send must have gone. */
static void run(void)
{
	for (int turns = 0; ; turns++) {
		MUST(turns < 2000);             /* else it spins */
		turn_end();
		conns_look();
		MUST(ports_dirty == NULL && streams_dirty == NULL && tcp_dirty == NULL && outbox.n == 0);
		if (lab_poll(polls, (nfds_t)npolls, 0) == 0 && (wake == 0 || wake > now))
			break;
		for (int i = 0; i < npolls; i++)
			polls[i].revents = 0;
		loop_turn();
		conns_look();
	}
	check();
}

/* ---- The events */

static const uint8_t *in, *in_end;
static unsigned byte(void) { return in < in_end ? *in++ : 0; }

/* A client's good question; "how" says whether over UDP (connection NULL) or TCP. */
static void client_query(struct conn *c)
{
	static const char *const names[] = { "a.test", "b.test", "x.b.test", "one", "c.test", "d.test", "e.test", "f.lan" };
	static const unsigned types[] = { T_A, T_A, T_AAAA, 16, 65280, T_ANY };
	unsigned who = byte(), what = byte(), how = byte(), i = 0;
	struct asked *q;
	uint8_t framed[302];
	struct fake *f;

	while (i < TRACKED && asked[i].open)
		i++;
	if (i == TRACKED)
		return;
	q = &asked[i];
	head(next_id, (unsigned)(F_RD | (how & 4 ? F_CD : 0) | (how & 8 ? F_AD : 0)), 1, 0, 0, how & 1);
	wquestion(names[what % 8], types[what / 8 % 6]);
	if (how & 16)
		m[13] &= 0xdf;
	if (how & 1)
		wopt(how & 32 ? 4096 : 700, how & 2 ? 0x8000 : 0, NULL, 0);
	*q = (struct asked){ .open = true, .tcp = c != NULL, .id = (uint16_t)next_id, .born = fake_now, .len = n };
	next_id = next_id % 65535 + 1;
	memcpy(q->query, m, n);
	q->limit = c != NULL ? MSG_MAX : how & 1 ? how & 32 ? 1232 : 700 : 512;
	if (c == NULL) {
		f = FAKE(listeners[0].udp);
		q->from.sin_family = AF_INET;
		q->from.sin_addr.s_addr = htonl(0x0a000001 + who % 4);
		q->from.sin_port = htons((uint16_t)(2000 + q->id % 30000));
		MUST(f->queued < QUEUE);
		memcpy(f->in[f->queued], m, n);
		f->in_len[f->queued] = n;
		f->from[f->queued++] = q->from;
		return;
	}
	q->conn = c->serial;
	f = &fakes[c->fake];
	put16at(framed, (unsigned)n);
	memcpy(framed + 2, m, n);
	i = who % 4 == 0 ? who % (unsigned)(n + 2) : (unsigned)n + 2;
	memcpy(STREAM(f) + f->in_len[0], framed, i);
	f->in_len[0] += i;
	c->nrest = n + 2 - i;
	memcpy(c->rest, framed + i, c->nrest);
}

/* An answer of some kind to the query at p; gives its length in m. */
static void answer_build(const uint8_t *p, size_t len, bool stream)
{
	static const uint32_t ttls[] = { 300, 0, 1, 5, 30, 0x80000005 };
	static uint8_t text[40000];
	unsigned kind = byte() % 18, ttl = ttls[byte() % 6], type;
	size_t qlen = 12;

	while (qlen < len && p[qlen] != 0)
		qlen += 1 + (size_t)p[qlen];
	qlen += 5;
	type = get16at(p + qlen - 4);
	memcpy(m, p, qlen);
	n = qlen;
	put16at(m + 2, F_QR | F_RD | F_RA);
	memset(m + 6, 0, 6);
	if (kind <= 3 || kind == 9 || kind == 10 || kind == 11 || kind == 14) {
		m[7] = 1;
		wrr(NULL, type == T_ANY ? T_A : type, ttl, text, type == T_AAAA ? 16 : 4);
	}
	if (kind == 2)
		put16at(m + 2, F_QR | F_RD | F_RA | F_AD);
	if (kind == 5 || kind == 6 || kind == 12) {
		m[9] = 1;
		wsoa("test", ttl, 60);
	}
	if (kind == 6 || kind == 12)
		m[3] |= NXDOMAIN;
	if (kind == 7)
		m[3] |= byte() % 16;
	if (kind == 8)
		m[2] |= F_TC >> 8;
	if (kind == 9)
		m[1] ^= 1;
	if (kind == 10)
		m[13] ^= 1;
	if (kind == 11)
		m[2] &= 0x7f;
	if (kind == 12 || kind == 3) {
		uint8_t o[6] = { 0, EDNS_EDE, 0, 2, 0, (uint8_t)(12 + byte() % 8) };
		m[11] = 1;
		wopt(1232, 0, o, 6);
	}
	if (kind == 13) {
		m[7] = 1;
		wrr(NULL, 16, ttl, text, stream ? 100 + byte() * 150 : 100 + byte() * 14);
	}
	mutated |= kind == 14;
	if (kind == 14)
		for (unsigned k = byte() % 4; k > 0; k--) {
			unsigned at = byte();
			m[at % n] = (uint8_t)byte();
		}
	if (kind == 15)
		n = byte() % (n + 1);
	if (kind == 16) {
		n = 12;
		m[3] |= FORMERR;
		m[5] = 0;
	}
	if (kind == 17)
		m[3] |= FORMERR;
}

/* One of the program's descriptors towards upstreams, or NULL. */
static struct fake *upstream_pick(enum kind kind)
{
	struct fake *list[FDS];
	unsigned count = 0, k = byte();

	for (int i = 0; i < FDS; i++) {
		struct fake *f = &fakes[i];
		bool ours = f->kind == kind && !is_listener(f) && (kind != K_UDP || f->connected);
		for (unsigned c = 0; c < CONNS && ours; c++)
			ours = !(conns[c].open && conns[c].serial == f->serial);
		if (ours)
			list[count++] = f;
	}
	return count > 0 ? list[k % count] : NULL;
}

/* An upstream answers one of the queries that it has seen. */
static void upstream_answer(enum kind kind)
{
	struct fake *f = upstream_pick(kind);
	size_t at = 0, k = 0, pick;
	uint8_t query[UPSTREAM_QUERY_MAX + 2], *to;

	if (f == NULL || (kind == K_UDP && f->queued == QUEUE) || f->connecting)
		return;
	while (at + 2 <= f->out_len && at + 2 + get16at(f->out + at) <= f->out_len) {
		at += 2 + get16at(f->out + at);
		k++;
	}
	if (k == 0)
		return;
	pick = byte() % k;
	for (at = 0; pick > 0; pick--)
		at += 2 + get16at(f->out + at);
	k = get16at(f->out + at);
	if (k < 17 || k > UPSTREAM_QUERY_MAX)
		return;                         /* a TLS record, perhaps */
	memcpy(query, f->out + at + 2, k);
	answer_build(query, k, kind == K_TCP);
	if (kind == K_UDP) {
		if (n > QUEUED)
			n = QUEUED;
		memcpy(f->in[f->queued], m, n);
		f->in_len[f->queued++] = n;
		return;
	}
	if (f->in_len[0] + 2 + n > QUEUE * QUEUED)
		return;
	to = STREAM(f) + f->in_len[0];
	put16at(to, (unsigned)n);
	memcpy(to + 2, m, n);
	f->in_len[0] += 2 + n;
}

static void reload(unsigned k)
{
	static char texts[8][4096], *lines[8][64];
	char *save, *text = texts[k];
	struct text e = { errors, sizeof errors, 0 };
	unsigned i = 0;

	snprintf(text, sizeof texts[0], "%s%s", BASE, sets[k]);
	for (char *l = strtok_r(text, "\n", &save); l != NULL; l = strtok_r(NULL, "\n", &save))
		lines[k][i++] = l;
	lines[k][i] = NULL;
	source = (struct source){ .lines = lines[k] };
	errors[0] = '\0';
	MUST(config_reload(&e));
}

static void conn_event(unsigned what)
{
	static const char *const commands_[] = { "status\n", "clear\r\n", "query a.test\n", "query b.test AAAA\n", "top\n", "GET /metrics HTTP/1.1\nHost: localhost\n\n", "nonsense\n", "log error\n", "clear a.test\n", "help\n" };
	struct conn *c = &conns[byte() % CONNS];
	struct fake *f = &fakes[c->fake];

	if (!c->open || f->kind == K_FREE || f->serial != c->serial)
		return;
	if (c->nrest > 0 && f->in_len[0] + c->nrest < QUEUED && !f->eof) {
		memcpy(STREAM(f) + f->in_len[0], c->rest, c->nrest);
		f->in_len[0] += c->nrest;
		c->nrest = 0;
	}
	switch (what) {
	case 0:
		if (f->eof || f->in_len[0] > 2000)
			break;
		if (c->admin) {
			const char *s = commands_[byte() % COUNT(commands_)];
			memcpy(STREAM(f) + f->in_len[0], s, strlen(s));
			f->in_len[0] += strlen(s);
		} else if (!c->wild)
			client_query(c);
		break;
	case 1:
		f->eof = true;
		break;
	case 2:
		f->err = ECONNRESET;
		break;
	case 3:
		f->stuck = !f->stuck;
		break;
	case 4:
		if (f->eof || f->in_len[0] > 2000)
			break;
		c->wild = true;
		for (unsigned i = 0; i < TRACKED; i++)
			if (asked[i].tcp && asked[i].conn == c->serial)
				asked[i].open = false;
		for (unsigned k = byte() % 64; k > 0; k--)
			STREAM(f)[f->in_len[0]++] = (uint8_t)byte();
		break;
	}
}

static void event(void)
{
	static const int64_t steps[] = { 1000, 5000, 20000, 100000, 350000, 700000, 1000000, 1800000, 4000000, 5000000, 20000000 };
	struct fake *f;
	unsigned op = byte() % 20, k;

	switch (op) {
	case 0: case 1: case 2:
		client_query(NULL);
		break;
	case 3: case 4: case 5:
		upstream_answer(K_UDP);
		break;
	case 6: case 7:
		upstream_answer(K_TCP);
		break;
	case 8: case 9:
		k = byte();
		if (k & 128 && wake > fake_now)
			fake_now = wake;
		else
			fake_now += steps[k % COUNT(steps)];
		clock_read();
		break;
	case 10:
		if ((f = upstream_pick(K_UDP)) != NULL)
			f->err = (const int[]){ ECONNREFUSED, EHOSTUNREACH, ENOBUFS, EPERM }[byte() % 4];
		break;
	case 11: case 12:
		if ((f = upstream_pick(K_TCP)) == NULL)
			break;
		k = byte() % 8;
		if (f->connecting) {
			f->connecting = false;
			f->err = k == 0 ? ECONNREFUSED : k == 1 ? ETIMEDOUT : 0;
		} else if (k == 0)
			f->err = ECONNRESET;
		else if (k == 1)
			f->eof = true;
		else if (k == 2)
			f->stuck = !f->stuck;
		else if (k == 3 && f->in_len[0] < QUEUED)
			for (k = byte() % 40; k > 0; k--)
				STREAM(f)[f->in_len[0]++] = (uint8_t)byte();
		break;
	case 13:
		k = byte();
		if (k % 4 == 0)
			due_admin += due_admin < 3;
		else
			due_tcp += due_tcp < 3;
		break;
	case 14: case 15:
		conn_event(0);
		break;
	case 16:
		conn_event(byte() % 5);
		break;
	case 17:
		reload(byte() % (unsigned)COUNT(sets));
		break;
	case 18:
		k = byte();
		fakes_max = k % 3 ? FDS : 3 + (int)k % 12;
		break;
	case 19:
		f = FAKE(listeners[0].udp);
		f->from[f->queued].sin_family = AF_INET;
		f->from[f->queued].sin_addr.s_addr = htonl(0x0a000009);
		f->from[f->queued].sin_port = htons(WILD_PORT);
		f->in_len[f->queued] = 0;
		for (k = byte() % 80; k > 0; k--)
			f->in[f->queued][f->in_len[f->queued]++] = (uint8_t)byte();
		f->queued++;
		break;
	}
}

/* All ends, all waits: nothing may be left but what listens. */
static void wind_down(void)
{
	unsigned open = 0;

	fakes_max = FDS;
	due_tcp = due_admin = 0;
	for (unsigned i = 0; i < CONNS; i++) {
		struct fake *f = &fakes[conns[i].fake];
		if (conns[i].open && f->kind != K_FREE && f->serial == conns[i].serial) {
			f->stuck = false;
			f->err = ECONNRESET;
		}
	}
	run();
	for (int i = 0; i < 3; i++) {
		fake_now += SEC(20);
		clock_read();
		run();
	}
	reload((unsigned)COUNT(sets) - 1);
	for (int i = 0; i < 4; i++) {
		fake_now += SEC(20);
		clock_read();
		run();
	}
	cache_clear(NULL, 0);
	MUST(queries.used == 0 && waiters.used == 0 && ports.used == 0 && holders.used == 0 && held_small.used == 0 && held_big.used == 0 && tcp_pool.used == 0 && admins.used == 0);
	MUST(out_blocks.used == 0);
	for (unsigned i = 0; i < TRACKED; i++)
		MUST(!asked[i].open);
	for (int i = 0; i < FDS; i++)
		open += fakes[i].kind != K_FREE;
	MUST(open == (unsigned)npolls && npolls <= 4);
	MUST(wake == 0);                        /* idle means idle */
	reload(0);
}

static void fuzz_one(const uint8_t *data, size_t size)
{
	in = data;
	in_end = data + size;
	fake_random = 1;
	mutated = false;
	run();
	for (int i = 0; i < 400 && in < in_end; i++) {
		event();
		run();
	}
	wind_down();
	run();
}

static void fuzz_init(void)
{
	fuzz_start(BASE "192.0.2.11 1");
	upstreams_apply(&cfg);
	MUST(listeners_open());
	reload(0);
}
#endif
END_OF_SEQUENCE
}

# fuzz_build TARGET: compiles $T/fuzz.TARGET
fuzz_build()
{
    lab_build "$T/fuzz.$1" "$T/fuzz.c" -DTARGET_"$(echo "$1" | tr a-z A-Z)" -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
}

# fuzz [SECONDS [TARGET...]]: each target for so long, from the seeds of the unit tests. CORPUS=DIR keeps what is found.
cmd_fuzz()
{
    fuzz_s=${1:-20}
    [ $# -eq 0 ] || shift
    [ $# -gt 0 ] || set -- client answer config admin cert sequence
    legnow=fuzz
    if ! have clang; then
        promise "fuzz targets are built"
        skip "no clang: libFuzzer is part of it"
        judge
        run_legs
        return
    fi
    tls_ready
    CC=clang
    unit_source
    fuzz_source
    fuzz_c=${CORPUS:-$T/corpus}
    mkdir -p "$fuzz_c/client" "$fuzz_c/answer" "$fuzz_c/config" "$fuzz_c/admin" "$fuzz_c/cert" "$fuzz_c/sequence" "$T/found"
    lab_build "$T/unit" "$T/unit.c" -O1 2>/dev/null && SEEDS=$fuzz_c "$T/unit" >/dev/null 2>&1
    export CA="$T/pki/ca.pem"
    for fuzz_f in "$T/pki"/*.crt; do                # how, length, certificate
        sed -n '1,/END/{/-----/!p;}' "$fuzz_f" | base64 -d >"$T/fuzz.der"
        fuzz_i=$(wc -c <"$T/fuzz.der")
        for fuzz_o in 0 1 2; do
            { printf "\\00$fuzz_o\\$(printf %o $((fuzz_i / 256)))\\$(printf %03o $((fuzz_i % 256)))"; cat "$T/fuzz.der"; } >"$fuzz_c/cert/$fuzz_o.${fuzz_f##*/}"
        done
    done
    # a sequence: a query, its answer, the same again, a TCP client that asks, time, an error, a reload
    printf '\0\0\0\1\3\0\0\0\0\0\1\0\1\15\1\16\0\1\2\3\10\6\12\0\0\21\1\0\2\11\3\10\200\13\0\2' >"$fuzz_c/sequence/one"
    for fuzz_i in 1 2 3 4 5 6 7 8 9 10 11 12; do
        awk -v s="$fuzz_i" 'BEGIN { srand(s); for (i = 0; i < 100 * s; i++) printf "%03o\n", int(rand() * 256) }' |
            while read -r fuzz_o; do printf "\\$fuzz_o"; done >"$fuzz_c/sequence/long$fuzz_i"
    done
    for fuzz_t; do
        promise "$fuzz_t: $fuzz_s s of libFuzzer without a finding"
        fuzz_build "$fuzz_t" 2>"$T/fuzz.log" || { fail "$(head -n 20 "$T/fuzz.log")"; continue; }
        ASAN_OPTIONS=detect_leaks=0 "$T/fuzz.$fuzz_t" -max_total_time="$fuzz_s" -timeout=20 -rss_limit_mb=2000 -max_len=2000 -len_control=0 -print_final_stats=1 \
            -artifact_prefix="$T/found/$fuzz_t-" "$fuzz_c/$fuzz_t" >"$T/fuzz.$fuzz_t.log" 2>&1 </dev/null || {
            fail "$(grep -E 'broken:|ERROR: |runtime error|^    #[0-9] ' "$T/fuzz.$fuzz_t.log" | head -n 14)"
            for fuzz_f in "$T/found/$fuzz_t-"*; do
                [ -s "$fuzz_f" ] || continue
                fail "input in base64: $(base64 -w 0 "$fuzz_f" | cut -c 1-3000)"
                cp "$fuzz_f" "${CORPUS:-$T}/" 2>/dev/null
            done
        }
        echo "# $fuzz_t: $(sed -n 's/^stat::number_of_executed_units: */runs /p; s/^stat::average_exec_per_sec: */a second /p' "$T/fuzz.$fuzz_t.log" | tr '\n' ' ')$(grep -Eo 'cov: [0-9]+ ft: [0-9]+' "$T/fuzz.$fuzz_t.log" | tail -n 1)"
    done
    judge
    run_legs
}

# ---- Other machines, under emulation

# cross [ARCHITECTURE...]: 32 and 64 bits, both byte orders; built with Debian's cross compilers and the BearSSL of that architecture
cmd_cross()
{
    [ $# -gt 0 ] || set -- armhf mipsel i386 s390x
    legnow=cross
    tls_ready
    unit_source
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
        cross_f="-std=c11 -O2 -g -I$SRC -I$T -L/usr/lib/$cross_l -static"
        # shellcheck disable=SC2086
        cross_o=$("$cross_t-gcc" $cross_f -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wcast-align=strict -Werror -o "$T/dnsproxy.$cross_a" "$SRC/dnsproxy.c" -lbearssl 2>&1 |
            grep -v "statically linked applications requires\|in function \`")
        unlike 'error|warning: [^U]' "$cross_o" "the compiler"
        [ -x "$T/dnsproxy.$cross_a" ] || { fail "$cross_o"; continue; }
        promise "$cross_a: the unit tests pass"
        # shellcheck disable=SC2086
        cross_o=$("$cross_t-gcc" $cross_f -o "$T/unit.$cross_a" "$T/unit.c" -lbearssl 2>&1) || fail "$cross_o"
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
    run_legs
}

# cross_smoke ARCHITECTURE
cross_smoke()
{
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

# ---- Soak

# soak_load NAME WANT WORD...: a load in the background, whose words end in the file NAME; WANT is the RCODE that all must have
soak_load()
{
    soak_n=$1 soak_w=$2
    shift 2
    many timeout=$((15000 * SLOW)) "$@" >"$T/soak.$soak_n" 2>&1 &
    soak_jobs="$soak_jobs $!:$soak_n:$soak_w"
}

# soak_config N: the configuration of round N; upstreams change places
soak_config()
{
    case $(($1 % 3)) in
    0) set -- 1 2 ;;
    1) set -- 2 1 ;;
    2) set -- 1 1 ;;
    esac
    # shellcheck disable=SC2154
    printf '%s\n' "$u1 $1" "$one $2 tls=dns.test" "$u3 3" "$u9 1 domain=dead.soak.test" "$ca" 'timeout 2000' 'patience 200' \
        'cache-size 256k' 'tcp-clients 64' 'user root' >"$T/soak.config"
}

# soak [SECONDS]: mixed load over UDP and TCP, while one upstream loses, delays, truncates, refuses, stops and comes back, another (TLS)
# closes its connections, a third one loses every twentieth question once, and the configuration is read again and again
cmd_soak()
{
    soak_end=$(($(date +%s) + ${1:-60}))
    legnow=soak
    tls_ready
    up u1
    up u3
    up u9 '. silent'
    dot one good
    soak_config 0
    promise "soak: the program serves"
    proxy p -c "$T/soak.config"
    many n=3000 window=3000 timeout=3000 name=n%d.dead.soak.test >/dev/null         # the tables have been full once
    soak_r=0 soak_sent=0 soak_kb=0 soak_fd=0 soak_slow=0
    promise "soak: every query is answered once; where an upstream has the answer with it, else with SERVFAIL at the end of its life"
    while [ "$(date +%s)" -lt "$soak_end" ] || [ "$soak_r" -lt 17 ]; do
        soak_jobs=''
        case $((soak_r % 8)) in
        0) rules u1 ;;
        1) rules u1 '. delay=150' ;;
        2) rules u1 '. tc' ;;
        3) kill_pid u1 ;;
        4) up u1 -p "${u1##*@}" '. servfail' ;;
        5) rules u1 ; kill -STOP "$(pid u1)" ;;
        6) kill -CONT "$(pid u1)" ; rules one "kick=$soak_r" ;;
        7) rules one after=5 ; rules u1 '. tc close' ;;
        esac
        soak_load udp noerror n=400 window=40 name=a%d.$soak_r.soak.test
        soak_load lost noerror n=20 window=5 name=drop=1.b%d.$soak_r.soak.test
        soak_load vary noerror n=100 window=10 vary name=v%d.$soak_r.soak.test
        soak_load hot noerror n=300 window=10 same name=hot.soak.test
        soak_load tcp noerror n=150 window=20 tcp=6 name=t%d.$soak_r.soak.test
        soak_load big noerror n=20 window=5 tcp=2 type=TXT name=big=2500.c%d.$soak_r.soak.test
        soak_load dead servfail n=20 window=20 name=d%d.$soak_r.dead.soak.test
        flood n=200 kind=mutate seed=$((soak_r + 1)) >/dev/null
        if [ $((soak_r % 2)) = 1 ]; then
            soak_config $((soak_r / 2))
            kill -HUP "$(pid p)"
        fi
        for soak_j in $soak_jobs; do
            wait "${soak_j%%:*}"
            soak_n=${soak_j#*:}
            soak_w=${soak_n#*:} soak_n=${soak_n%:*}
            soak_o=$(cat "$T/soak.$soak_n")
            soak_k=$(val sent "$soak_o")
            same "$soak_k $soak_k 0 0 0" "$(val answered "$soak_o") $(val "$soak_w" "$soak_o") $(val wrong "$soak_o") $(val dup "$soak_o") $(val bad "$soak_o")" \
                "round $soak_r, $soak_n: answered, $soak_w, wrong, twice, short: $soak_o"
            within 0 $((3500 * SLOW)) "$(val slowest_ms "$soak_o")" "round $soak_r, $soak_n: slowest"
            soak_sent=$((soak_sent + ${soak_k:-0}))
            [ "$(val slowest_ms "$soak_o")" -le "$soak_slow" ] || soak_slow=$(val slowest_ms "$soak_o")
        done
        forget u1
        forget u3
        forget u9
        forget one
        soak_r=$((soak_r + 1))
        if [ "$soak_r" = 9 ]; then
            soak_kb=$(kb_of p) soak_fd=$(fds_of p)
        fi
    done
    echo "# soak: $soak_sent queries in $soak_r rounds, the slowest $soak_slow ms; memory after 9 rounds $soak_kb kB, at the end $(kb_of p) kB"
    promise "soak: at the end nothing is in flight, and no connection is left"
    kill -CONT "$(pid u1)"
    rules u1
    rules one
    await 25 soak_idle || fail "$(adm status | head -n 1)"
    promise "soak: every upstream that answers is up again"
    await 10 soak_up || fail "$(adm status | grep '^upstream')"
    promise "soak: queries went over UDP, TCP and TLS, and the TLS connection ended and was made again"
    like ' tls .* won [1-9][0-9]* .* connects ([3-9]|[1-9][0-9]+) ' "$(adm status)"
    promise "soak: memory and descriptors are those of the first rounds"
    await 25 fds_are p "$((soak_fd < 24 ? soak_fd : 24))" || fail "$(fds_of p) descriptors, after the first rounds $soak_fd"
    [ -n "$WRAP" ] || within -100000 $((soak_kb / 50 + 128)) $(($(kb_of p) - soak_kb)) "kB more than $soak_kb"
    promise "soak: it stops as told"
    stop p
    judge
    run_legs
}
soak_idle() { adm status | grep -q '^dnsproxy .* inflight 0 tcp [01]$'; }
soak_up()
{
    many n=4 window=1 "name=up%d.$(date +%s).soak.test" >/dev/null
    [ "$(adm status | grep -Ec '^upstream .* (udp|tls) .* state up ')" -ge 3 ]
}
# ---- bench: speed and size beside other forwarders ------------------------
#
# Cost is CPU time (user and system, threads and children included, from /proc) divided by good answers, on loopback. A row's
# servers all run at once and are loaded in turn for a fraction of a second, many times over, so that what disturbs the machine
# disturbs them alike. A ratio is the median of the rounds' ratios.

# bench_tools: compiles the reference and the loads to $BENCH/gauge
bench_tools()
{
    cat >"$BENCH/gauge.c" <<'END_OF_GAUGE'
/* The tools of the bench: the reference, an upstream, loads and measures. The functions cmd_... say what they take.
 * Names are nDDDDDD.sixty-byte.example: an answer with one A record has 60 bytes. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, QUERY = 44, PACKET = 600, NAMES = 1000000 };

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now(void)                        /* microseconds */
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static unsigned number(const char *s) { return (unsigned)strtoul(s, NULL, 10); }

/* A socket of TYPE on loopback: bound to PORT when it serves, else connected to it; -1 when nobody is there. */
static int sock(int type, const char *port, bool serve)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)number(port)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0), on = 1, big = 4 << 20;
    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
    if (type == SOCK_STREAM)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if ((serve ? bind : connect)(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool readable(int fd, int ms)
{
    struct pollfd p = { fd, POLLIN, 0 };
    return poll(&p, 1, ms) > 0;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int64_t median(int64_t *v, size_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return n ? v[n / 2] : -1;
}

/* ---- messages, alone and in batches ---- */

/* The query for name number N; always QUERY bytes. */
static void query(uint8_t *p, unsigned id, unsigned n)
{
    memcpy(p, "II\1\0\0\1\0\0\0\0\0\0\7nDDDDDD\12sixty-byte\7example\0\0\1\0\1", QUERY);
    p[0] = (uint8_t)(id >> 8), p[1] = (uint8_t)id;
    for (int i = 6; i > 0; i--, n /= 10)
        p[13 + i] = (uint8_t)('0' + n % 10);
}

/* Turns the query of LEN bytes into its answer, in place; the new length. */
static size_t answer(uint8_t *p, size_t len, unsigned ttl)
{
    const uint8_t rr[16] = { 0xc0, 12, 0, 1, 0, 1, (uint8_t)(ttl >> 24), (uint8_t)(ttl >> 16), (uint8_t)(ttl >> 8),
                             (uint8_t)ttl, 0, 4, 192, 0, 2, 1 };
    const uint8_t opt[11] = { 0, 0, 41, 4, 208 };
    size_t at = 12;
    while (at < len && p[at])
        at += p[at] + 1u;
    at += 5;                                    /* the root label, type and class */
    if (at > len || at > PACKET - 32)
        return len;
    p[2] |= 0x80, p[3] = 0x80, p[7] = 1;
    memcpy(p + at, rr, sizeof rr);
    at += sizeof rr;
    if (p[11]) {                                /* the query had an OPT record, and so has the answer */
        memcpy(p + at, opt, sizeof opt);
        at += sizeof opt;
    }
    return at;
}

struct batch {
    struct mmsghdr m[BATCH];
    struct iovec v[BATCH];
    struct sockaddr_in a[BATCH];
    uint8_t b[BATCH][PACKET];
};

static struct batch in, out;

static int batch_recv(int fd, int flags, bool from)
{
    for (int i = 0; i < BATCH; i++) {
        in.v[i] = (struct iovec){ in.b[i], PACKET };
        in.m[i].msg_hdr = (struct msghdr){ .msg_iov = &in.v[i], .msg_iovlen = 1, .msg_name = from ? &in.a[i] : NULL,
                                           .msg_namelen = from ? sizeof in.a[i] : 0 };
    }
    return recvmmsg(fd, in.m, BATCH, flags, NULL);
}

/* Slot I of the outgoing batch will be these bytes to that address (NULL: the connected one). */
static void batch_put(int i, void *bytes, size_t len, struct sockaddr_in *to)
{
    out.v[i] = (struct iovec){ bytes, len };
    out.m[i].msg_hdr = (struct msghdr){ .msg_iov = &out.v[i], .msg_iovlen = 1, .msg_name = to, .msg_namelen = to ? sizeof *to : 0 };
}

/* What the network refuses is lost. */
static void batch_send(int fd, int n)
{
    for (int at = 0, k; at < n; at += k > 0 ? k : 1)
        k = sendmmsg(fd, out.m + at, (unsigned)(n - at), 0);
}

/* ---- the reference and an upstream ---- */

/* echo PORT [poll]: every datagram goes back with QR set; with poll() before it receives, as servers do */
static int cmd_echo(char **arg)
{
    int fd = sock(SOCK_DGRAM, arg[0], true);
    if (fd < 0)
        die("echo");
    for (;;) {
        if (arg[1])
            readable(fd, -1);
        int n = batch_recv(fd, arg[1] ? MSG_DONTWAIT : MSG_WAITFORONE, true);
        for (int i = 0; i < n; i++) {
            in.b[i][2] |= 0x80;
            batch_put(i, in.b[i], in.m[i].msg_len, &in.a[i]);
        }
        batch_send(fd, n);
    }
    return 0;
}

/* relay PORT UPSTREAM: the least that a forwarder can do, one query at a time */
static int cmd_relay(char **arg)
{
    int fd = sock(SOCK_DGRAM, arg[0], true);
    struct sockaddr_in from;
    uint8_t p[PACKET];
    for (;;) {
        socklen_t size = sizeof from;
        ssize_t n = recvfrom(fd, p, sizeof p, 0, (struct sockaddr *)&from, &size);
        int up = sock(SOCK_DGRAM, arg[1], false);
        if (n > 0 && send(up, p, (size_t)n, 0) == n && readable(up, 1000) && (n = recv(up, p, sizeof p, 0)) > 0)
            sendto(fd, p, (size_t)n, 0, (struct sockaddr *)&from, size);
        close(up);
    }
    return 0;
}

/* upstream PORT MS: answers every query MS milliseconds after it came */
static int cmd_upstream(char **arg)
{
    enum { RING = 16384 };
    static struct { int64_t due; struct sockaddr_in from; size_t len; uint8_t b[PACKET]; } ring[RING], *r;
    int fd = sock(SOCK_DGRAM, arg[0], true);
    int64_t delay = number(arg[1]) * 1000;
    unsigned head = 0, tail = 0;
    if (fd < 0)
        die("upstream");
    for (;;) {
        int64_t left = ring[tail % RING].due - now();
        readable(fd, head == tail ? -1 : left > 0 ? (int)(left + 999) / 1000 : 0);
        int n = batch_recv(fd, MSG_DONTWAIT, true);
        int64_t t = now();
        for (int i = 0; i < n && head - tail < RING; i++, head++) {
            r = &ring[head % RING];
            r->due = t + delay;
            r->from = in.a[i];
            memcpy(r->b, in.b[i], in.m[i].msg_len);
            r->len = answer(r->b, in.m[i].msg_len, 86400);
        }
        for (n = 0; n < BATCH && tail != head && (r = &ring[tail % RING])->due <= t; n++, tail++)
            batch_put(n, r->b, r->len, &r->from);
        batch_send(fd, n);
    }
    return 0;
}

/* ---- loads: each prints how many queries were answered, and how many not ---- */

static struct { int64_t sent; bool open; } slot[65536];     /* by ID */
static unsigned head, tail;                                 /* the IDs in flight lie between */
static unsigned in_flight, answered, lost;

static void slot_open(unsigned id)
{
    slot[id % 65536].sent = now();
    slot[id % 65536].open = true;
    in_flight++;
}

static void slot_answer(const uint8_t *p)
{
    unsigned id = (unsigned)p[0] << 8 | p[1];
    if (slot[id].open && (p[3] & 15) == 0) {
        slot[id].open = false;
        in_flight--, answered++;
    }
}

/* Gives up what was not answered in time. */
static void slot_sweep(int64_t patience)
{
    for (; tail != head; tail++) {
        if (slot[tail % 65536].open) {
            if (slot[tail % 65536].sent + patience > now())
                return;
            slot[tail % 65536].open = false;
            in_flight--, lost++;
        }
    }
}

/* load PORT SECONDS COUNT WINDOW FIRST NAMES PACE: keeps up to WINDOW queries in flight for so long, or until COUNT were sent; asks
 * for NAMES names from number FIRST on, in turn, at most PACE a millisecond, also after a pause (0: as fast as answers come). */
static int cmd_load(char **arg)
{
    int fd = sock(SOCK_DGRAM, arg[0], false);
    int64_t start = now(), end = start + (int64_t)(strtod(arg[1], NULL) * 1e6), t = start, due = start;     /* due: the next query */
    unsigned count = number(arg[2]), window = number(arg[3]), first = number(arg[4]), names = number(arg[5]), pace = number(arg[6]);
    while ((t < end && head < count) || in_flight) {
        int n = 0;
        if (pace && due < t - 2000)
            due = t - 2000;
        while (n < BATCH && in_flight < window && head < count && t < end && (!pace || due <= t) && !slot[head % 65536].open) {
            query(out.b[n], head, first + head % names);
            batch_put(n, out.b[n], QUERY, NULL);
            slot_open(head++), n++;
            due += pace ? 1000 / pace : 0;
        }
        batch_send(fd, n);
        readable(fd, n == BATCH ? 0 : pace ? 1 : 100);
        n = batch_recv(fd, MSG_DONTWAIT, false);
        for (int i = 0; i < n; i++)
            slot_answer(in.b[i]);
        slot_sweep(2000000);
        t = now();
    }
    printf("%u %u\n", answered, lost);
    return 0;
}

/* bursts PORT COUNT SIZE FIRST NAMES: COUNT queries in bursts of SIZE, each when the one before is answered */
static int cmd_bursts(char **arg)
{
    int fd = sock(SOCK_DGRAM, arg[0], false);
    unsigned count = number(arg[1]), size = number(arg[2]), first = number(arg[3]), names = number(arg[4]);
    while (head < count) {
        for (unsigned i = 0; i < size; i++, head++) {
            query(out.b[i], head, first + head % names);
            batch_put((int)i, out.b[i], QUERY, NULL);
            slot_open(head);
        }
        batch_send(fd, (int)size);
        while (in_flight) {
            readable(fd, 100);
            int n = batch_recv(fd, MSG_DONTWAIT, false);
            for (int i = 0; i < n; i++)
                slot_answer(in.b[i]);
            slot_sweep(10000000);
        }
    }
    printf("%u %u\n", answered, lost);
    return 0;
}

/* stream PORT SECONDS WINDOW NAMES: as load, over one TCP connection; all that may be asked leaves in one write */
static int cmd_stream(char **arg)
{
    static uint8_t buf[65536], ask[1024 * (QUERY + 2)];
    int fd = sock(SOCK_STREAM, arg[0], false);
    int64_t end = now() + (int64_t)(strtod(arg[1], NULL) * 1e6);
    unsigned window = number(arg[2]), names = number(arg[3]);
    size_t have = 0;
    while (fd >= 0 && (now() < end || in_flight)) {
        size_t len = 0;
        for (; in_flight < window && now() < end && len < sizeof ask; len += QUERY + 2) {
            ask[len] = 0, ask[len + 1] = QUERY;
            query(ask + len + 2, head, head % names);
            slot_open(head++);
        }
        if (len && write(fd, ask, len) != (ssize_t)len)
            break;
        ssize_t n = readable(fd, 2000) ? read(fd, buf + have, sizeof buf - have) : 0;
        if (n <= 0)
            break;
        have += (size_t)n;
        size_t at = 0, size;
        while (have - at >= 14 && have - at >= 2 + (size = (size_t)buf[at] << 8 | buf[at + 1])) {
            slot_answer(buf + at + 2);
            at += 2 + size;
        }
        memmove(buf, buf + at, have -= at);
    }
    printf("%u %u\n", answered, in_flight);
    return 0;
}

/* hold PORT N: keeps N idle TCP connections open, until killed */
static int cmd_hold(char **arg)
{
    enum { MOST = 4096 };
    static struct pollfd p[MOST];
    struct rlimit files = { MOST + 16, MOST + 16 };
    unsigned n = number(arg[1]);
    setrlimit(RLIMIT_NOFILE, &files);
    for (unsigned i = 0; i < n && i < MOST; i++)
        p[i] = (struct pollfd){ sock(SOCK_STREAM, arg[0], false), POLLIN, 0 };
    puts("held");
    fflush(stdout);
    while (poll(p, n, -1) > 0)
        for (unsigned i = 0; i < n; i++)
            if (p[i].revents) {                 /* closed for being idle: another one */
                close(p[i].fd);
                p[i].fd = sock(SOCK_STREAM, arg[0], false);
            }
    return 1;
}

/* ---- measures ---- */

/* The number after FIELD fields of a /proc file, counted behind the last ')'. */
static unsigned long long field(const char *path, int count)
{
    char buf[2048] = "", *s;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, buf, sizeof buf - 1) < 0)
        buf[0] = 0;
    if (fd >= 0)
        close(fd);
    s = strrchr(buf, ')') ? strrchr(buf, ')') + 2 : buf;
    for (; count > 0 && (s = strchr(s, ' ')) != NULL; count--)
        s++;
    return s ? strtoull(s, NULL, 10) : 0;
}

/* Microseconds of user and system time of a process, its threads and its children: by the scheduler's account where the
 * kernel shows it (it is the one that utime and stime are made from), else in ticks. */
static unsigned long long cpu(unsigned pid)
{
    char path[300];
    unsigned long long ns = 0, ticks, tick = 1000000ull / (unsigned long long)sysconf(_SC_CLK_TCK);
    struct dirent *e;
    DIR *d;
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    ticks = (field(path, 11) + field(path, 12)) * tick;
    snprintf(path, sizeof path, "/proc/%u/task", pid);
    for (d = opendir(path); d && (e = readdir(d)) != NULL; )
        if (e->d_name[0] != '.') {
            snprintf(path, sizeof path, "/proc/%u/task/%s/schedstat", pid, e->d_name);
            ns += field(path, 0);
        }
    if (d)
        closedir(d);
    ticks = ns ? ns / 1000 : ticks;
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    ticks += (field(path, 13) + field(path, 14)) * tick;        /* children that have ended */
    for (d = opendir("/proc"); d && (e = readdir(d)) != NULL; )
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9') {
            snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
            if (field(path, 1) == pid)
                ticks += cpu(number(e->d_name));
        }
    if (d)
        closedir(d);
    return ticks;
}

/* cpu PID */
static int cmd_cpu(char **arg)
{
    printf("%llu\n", cpu(number(arg[0])));
    return 0;
}

/* Asks for NAME once; true when a good answer comes within MS. */
static bool served(int fd, unsigned name, int ms)
{
    uint8_t p[PACKET];
    query(p, name & 65535, name);
    return fd >= 0 && send(fd, p, QUERY, 0) == QUERY && readable(fd, ms) && recv(fd, p, sizeof p, 0) > 12 && (p[3] & 15) == 0;
}

/* serves PORT SECONDS: waits until a query for NAME is answered there */
static int cmd_serves(char **arg)
{
    int fd = sock(SOCK_DGRAM, arg[0], false);
    int64_t end = now() + number(arg[1]) * 1000000ll;
    while (now() < end) {
        if (served(fd, NAMES - 1, 300))
            return 0;
        usleep(10000);
    }
    return 1;
}

/* first PORT COMMAND...: microseconds from the start of the command to its first answer; then stops it */
static int cmd_first(char **arg)
{
    int fd = sock(SOCK_DGRAM, arg[0], false);
    int64_t start = now(), t = start;
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, 1), dup2(null, 2);
        execvp(arg[1], arg + 1);
        _exit(127);
    }
    while (t < start + 5000000 && !served(fd, (unsigned)t % NAMES, 20)) {
        usleep(50);
        t = now();
    }
    t = now();
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
    printf("%lld\n", (long long)(t - start));
    return t > start + 5000000;
}

/* latency DIRECT PORT COUNT FIRST: asks for COUNT new names, one at a time, once the upstream and once the forwarder; prints the
 * medians in microseconds, and that of the differences */
static int cmd_latency(char **arg)
{
    int fd[2] = { sock(SOCK_DGRAM, arg[0], false), sock(SOCK_DGRAM, arg[1], false) };
    unsigned count = number(arg[2]), first = number(arg[3]);
    int64_t *v[3];
    size_t n = 0;
    for (int k = 0; k < 3; k++)
        if ((v[k] = calloc(count, sizeof **v)) == NULL)
            die("calloc");
    for (unsigned i = 0; i < count; i++) {
        bool good = true;
        for (int k = 0; k < 2; k++) {
            int64_t t = now();
            good = served(fd[k], first + i, 1000) && good;
            v[k][n] = now() - t;
        }
        if (good) {
            v[2][n] = v[1][n] - v[0][n];
            n++;
        }
    }
    printf("%lld %lld %lld\n", (long long)median(v[0], n), (long long)median(v[1], n), (long long)median(v[2], n));
    return 0;
}

/* A Zipf(1.0) stream over NAMES names, the same for the same seed: rank K comes with probability proportional to 1/K. */
static double *sum_to;
static uint64_t zipf_state;

static void zipf_seed(unsigned seed)
{
    double sum = 0;
    zipf_state = seed * 2654435761u + 88172645463325252ull;
    if ((sum_to = calloc(NAMES, sizeof *sum_to)) == NULL)
        die("calloc");
    for (int k = 0; k < NAMES; k++)
        sum_to[k] = sum += 1.0 / (k + 1);
}

static unsigned zipf_next(void)
{
    unsigned low = 0, high = NAMES - 1;
    zipf_state ^= zipf_state << 13, zipf_state ^= zipf_state >> 7, zipf_state ^= zipf_state << 17;
    double want = (double)(zipf_state >> 11) / 9007199254740992.0 * sum_to[NAMES - 1];
    while (low < high) {
        unsigned mid = (low + high) / 2;
        if (sum_to[mid] < want)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* zipf PORT UPSTREAM COUNT SEED: is the load and, at the port UPSTREAM, the upstream that counts misses; prints the hits among
 * the second half of COUNT queries */
static int cmd_zipf(char **arg)
{
    enum { WINDOW = 32 };
    int client = sock(SOCK_DGRAM, arg[0], false), up = sock(SOCK_DGRAM, arg[1], true);
    unsigned count = number(arg[2]), misses = 0, before = 0;
    struct pollfd p[2] = { { client, POLLIN, 0 }, { up, POLLIN, 0 } };
    if (client < 0 || up < 0)
        die("zipf");
    zipf_seed(number(arg[3]));
    while (head < count || in_flight) {
        int n = 0;
        for (; in_flight < WINDOW && head < count && !slot[head % 65536].open; n++) {
            if (head == count / 2)
                before = misses;
            query(out.b[n], head, zipf_next());
            batch_put(n, out.b[n], QUERY, NULL);
            slot_open(head++);
        }
        batch_send(client, n);
        poll(p, 2, 100);
        n = batch_recv(up, MSG_DONTWAIT, true);
        for (int i = 0; i < n; i++, misses++)
            batch_put(i, in.b[i], answer(in.b[i], in.m[i].msg_len, 86400), &in.a[i]);
        batch_send(up, n);
        n = batch_recv(client, MSG_DONTWAIT, false);
        for (int i = 0; i < n; i++)
            slot_answer(in.b[i]);
        slot_sweep(5000000);
    }
    printf("%lld %u\n", (long long)(count - count / 2) - (misses - before), lost);
    return 0;
}

/* lru ENTRIES COUNT SEED: the hits of an exact LRU among the second half of the same stream */
static int cmd_lru(char **arg)
{
    static struct { unsigned newer, older; bool in; } e[NAMES + 1];     /* a ring through e[NAMES] */
    unsigned entries = number(arg[0]), count = number(arg[1]), hits = 0, held = 0;
    e[NAMES].newer = e[NAMES].older = NAMES;
    zipf_seed(number(arg[2]));
    for (unsigned i = 0; i < count; i++) {
        unsigned k = zipf_next();
        if (e[k].in)
            hits += i >= count / 2;
        else if (held++ == entries) {
            unsigned last = e[NAMES].newer;
            e[NAMES].newer = e[last].newer;
            e[e[last].newer].older = NAMES;
            e[last].in = false;
            held--;
        }
        if (e[k].in) {
            e[e[k].newer].older = e[k].older;
            e[e[k].older].newer = e[k].newer;
        }
        e[k].in = true;
        e[k].newer = NAMES, e[k].older = e[NAMES].older;
        e[e[k].older].newer = k;
        e[NAMES].older = k;
    }
    printf("%u\n", hits);
    return 0;
}

/* names FIRST COUNT STEP MOD: lines for dnsperf, the names with the numbers (FIRST + I * STEP) % MOD */
static int cmd_names(char **arg)
{
    unsigned long first = number(arg[0]), count = number(arg[1]), step = number(arg[2]), mod = number(arg[3]);
    for (unsigned long i = 0; i < count; i++)
        printf("n%06lu.sixty-byte.example A\n", (first + i * step) % mod);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct { const char *name; int args; int (*run)(char **arg); } cmds[] = {
        { "echo", 1, cmd_echo }, { "relay", 2, cmd_relay }, { "upstream", 2, cmd_upstream }, { "load", 7, cmd_load }, { "bursts", 5, cmd_bursts },
        { "stream", 4, cmd_stream }, { "hold", 2, cmd_hold }, { "cpu", 1, cmd_cpu }, { "serves", 2, cmd_serves },
        { "first", 2, cmd_first }, { "latency", 4, cmd_latency }, { "zipf", 4, cmd_zipf }, { "lru", 3, cmd_lru }, { "names", 4, cmd_names } };
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; argc > 1 && i < sizeof cmds / sizeof *cmds; i++)
        if (!strcmp(argv[1], cmds[i].name) && argc - 2 >= cmds[i].args)
            return cmds[i].run(argv + 2);
    fprintf(stderr, "gauge: no such use\n");
    return 2;
}
END_OF_GAUGE
    "$CC" -std=c11 -O2 -o "$BENCH/gauge" "$BENCH/gauge.c"
}

# ---- bench: servers ----

# bench_say TEXT: what is going on, to standard error
bench_say() { echo "# bench: $*" >&2; }

# bench_run NAME CMD...: starts CMD as NAME, not measured
bench_run()
{
    bench_n=$1
    shift
    : >"$T/$bench_n.log"
    "$@" </dev/null >"$T/$bench_n.log" 2>&1 &
    started "$bench_n" $!
}

# bench_upstreams: $plain1 to $plain3 and $tls are ports of name servers that answer every name; $pin belongs to the last, which
# is unbound, since nsd 4.6 answers only the first of the queries in a TLS record
bench_upstreams()
{
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=dot.example \
        -addext subjectAltName=DNS:dot.example -keyout "$BENCH/key.pem" -out "$BENCH/cert.pem" 2>/dev/null &&
        pin=$(openssl x509 -in "$BENCH/cert.pem" -pubkey -noout | openssl pkey -pubin -outform der |
            openssl dgst -sha256 -binary | openssl base64)
    cat >"$BENCH/zone" <<END
\$TTL 86400
@ SOA ns host 1 3600 600 86400 300
@ NS ns
ns A 192.0.2.53
* A 192.0.2.1
END
    plain1='' plain2='' plain3='' tls=''
    for bench_i in 1 2 3; do
        bench_p=$(freeport)
        eval "plain$bench_i=$bench_p"
        mkdir -p "$BENCH/nsd$bench_i"
        cat >"$BENCH/nsd$bench_i/conf" <<END
server:
 ip-address: 127.0.0.1@$bench_p
 server-count: 1
 username: ""
 chroot: ""
 zonesdir: "$BENCH"
 pidfile: ""
 database: ""
 xfrdfile: "$BENCH/nsd$bench_i/xfrd"
 xfrdir: "$BENCH/nsd$bench_i"
 zonelistfile: "$BENCH/nsd$bench_i/zones"
 minimal-responses: yes
 rrl-ratelimit: 0
remote-control:
 control-enable: no
zone:
 name: sixty-byte.example
 zonefile: zone
END
        bench_run "nsd$bench_i" nsd -d -c "$BENCH/nsd$bench_i/conf"
        "$BENCH/gauge" serves "$bench_p" 10 || { bench_say "nsd does not start: $(tail -n 3 "$T/nsd$bench_i.log")"; return 1; }
    done
    if ! have unbound; then
        bench_lack DoT 'unbound, the upstream over TLS, is not installed'
        return
    fi
    bench_p=$(freeport)
    tls=$(freeport)
    cat >"$BENCH/dot.conf" <<END
server:
 interface: 127.0.0.1@$bench_p
 interface: 127.0.0.1@$tls
 tls-port: $tls
 tls-service-key: "$BENCH/key.pem"
 tls-service-pem: "$BENCH/cert.pem"
 num-threads: 1
 username: ""
 chroot: ""
 directory: "$BENCH"
 pidfile: ""
 use-syslog: no
 module-config: "iterator"
 incoming-num-tcp: 200
 local-zone: "sixty-byte.example." redirect
 local-data: "sixty-byte.example. 86400 A 192.0.2.1"
remote-control:
 control-enable: no
END
    bench_run dot unbound -d -c "$BENCH/dot.conf"
    "$BENCH/gauge" serves "$bench_p" 10 || { bench_lack DoT "unbound does not start: $(tail -n 3 "$T/dot.log")"; tls=''; }
}

# bench_lack WORD WHY: remembers why something could not be measured
bench_lack() { echo "$1: $2" >>"$BENCH/lacks"; bench_say "$1: $2"; }

# bench_in NAME PID PORT: the server takes part in the row, if it serves. Caches are warmed with $warm names.
bench_in()
{
    if "$BENCH/gauge" serves "$3" 10 && { [ "$warm" = 0 ] || "$BENCH/gauge" load "$3" 30 "$warm" 50 0 "$warm" 0 >/dev/null; }; then
        echo "$1 $2 $3" >>"$BENCH/in"
    else
        bench_lack "$1" "does not serve in the row $row: $(tail -n 2 "$T/$1.log" | tr '\n' ' ')"
    fi
}

# bench_echo NAME [poll]: the reference
bench_echo()
{
    bench_p=$(freeport)
    "$BENCH/gauge" echo "$bench_p" ${2:-} &
    started "$1" $!
    echo "$1 $! $bench_p" >>"$BENCH/in"
}

# bench_proxy NAME LINE...: dnsproxy
bench_proxy()
{
    : >"$why"
    proxy "$@"
    if [ -s "$why" ]; then
        bench_lack "$1" "$(tr '\n' ' ' <"$why") $(tail -n 2 "$T/$1.log" | tr '\n' ' ')"
    else
        bench_in "$1" "$(pid "$1")" "$port"
    fi
}

# bench_peer KIND MODE: another forwarder at its best: one thread, no logs; MODE hit has a cache, miss has none and asks $plain1, dot asks $tls
bench_peer()
{
    if ! have "$1"; then
        bench_lack "$1" "not installed"
        return
    fi
    bench_p=$(freeport)
    bench_c=$BENCH/$1.$2.yml
    size=0
    [ "$2" != hit ] || size=20000
    "bench_$1" "$2" >"$bench_c"
    bench_x=$("bench_$1" command)
    # shellcheck disable=SC2086
    $bench_x </dev/null >"$T/$1.log" 2>&1 &
    started "$1" $!
    bench_in "$1" $! "$bench_p"
}

# Each of these prints the configuration for a mode or, when asked for the command, that.

bench_dnsmasq()
{
    case $1 in
    command) echo dnsmasq -k -C "$bench_c" -u "$(id -un)" ;;
    *) printf '%s\n' "port=$bench_p" listen-address=127.0.0.1 bind-interfaces no-resolv no-hosts "pid-file=$BENCH/dnsmasq.pid" \
        "cache-size=$([ "$size" = 0 ] && echo 0 || echo 10000)" dns-forward-max=2000 "server=127.0.0.1#$plain1" ;;
    esac
}

bench_unbound()
{
    case $1 in
    command) echo unbound -d -c "$bench_c" ;;
    *)
        cat <<END
server:
 interface: 127.0.0.1@$bench_p
 num-threads: 1
 username: ""
 chroot: ""
 directory: "$BENCH"
 pidfile: ""
 use-syslog: no
 verbosity: 0
 module-config: "iterator"
 do-not-query-localhost: no
 so-reuseport: no
 outgoing-range: 4096
 num-queries-per-thread: 2048
 incoming-num-tcp: 100
 minimal-responses: yes
 qname-minimisation: no
 aggressive-nsec: no
 unblock-lan-zones: yes
 msg-cache-slabs: 1
 rrset-cache-slabs: 1
 infra-cache-slabs: 1
 key-cache-slabs: 1
$([ "$size" != 0 ] || echo ' msg-cache-size: 0
 rrset-cache-size: 0')
remote-control:
 control-enable: no
forward-zone:
 name: .
END
        case $1 in
        dot) printf ' forward-tls-upstream: yes\n forward-addr: 127.0.0.1@%s\n' "$tls" ;;
        *) echo " forward-addr: 127.0.0.1@$plain1" ;;
        esac
        ;;
    esac
}

bench_dnsdist()
{
    case $1 in
    command) echo dnsdist --supervised --disable-syslog -C "$bench_c" ;;
    *)
        cat <<END
setSecurityPollSuffix("")
setLocal("127.0.0.1:$bench_p")
setMaxTCPClientThreads(1)
setMaxUDPOutstanding(65535)
setVerboseHealthChecks(false)
END
        case $1 in
        dot) echo "newServer({address='127.0.0.1:$tls', tls='openssl', validateCertificates=false, maxInFlight=1000}):setUp()" ;;
        *) echo "newServer({address='127.0.0.1:$plain1'}):setUp()" ;;
        esac
        [ "$size" = 0 ] || echo "getPool(''):setCache(newPacketCache($size, {numberOfShards=1}))"
        ;;
    esac
}

bench_smartdns()
{
    case $1 in
    command) echo smartdns -f -c "$bench_c" -p "$BENCH/smartdns.pid" ;;
    *)
        printf '%s\n' "bind 127.0.0.1:$bench_p" "cache-size $size" 'cache-persist no' 'speed-check-mode none' \
            'dualstack-ip-selection no' 'prefetch-domain no' 'serve-expired no' 'rr-ttl-min 0' 'log-level fatal' "log-file $BENCH/smartdns.log"
        case $1 in
        dot) echo "server-tls 127.0.0.1:$tls -no-check-certificate" ;;
        *) echo "server 127.0.0.1:$plain1" ;;
        esac
        ;;
    esac
}

bench_stubby()
{
    case $1 in
    command) echo stubby -C "$bench_c" -v 0 ;;
    *)
        cat <<END
resolution_type: GETDNS_RESOLUTION_STUB
dns_transport_list:
  - GETDNS_TRANSPORT_TLS
tls_authentication: GETDNS_AUTHENTICATION_NONE
idle_timeout: 60000
round_robin_upstreams: 0
listen_addresses:
  - 127.0.0.1@$bench_p
upstream_recursive_servers:
  - address_data: 127.0.0.1
    tls_port: $tls
END
        ;;
    esac
}

# ---- bench: loads and rounds ----

# Each takes a port, seconds and the server's name, and prints how many queries were answered and how many not.

bench_dnsperf()
{
    dnsperf -s 127.0.0.1 -p "$1" -d "$BENCH/names" -l "$2" -q 100 -t 1 2>/dev/null | awk '
        /Queries sent:/ { sent = $3 }
        /Response codes:/ { for (i = 3; i < NF; i++) if ($i == "NOERROR") good = $(i + 1) }
        END { print good + 0, sent - good }'
}

bench_thousand()
{
    "$BENCH/gauge" names "$bench_at" 20000 7919 1000 >"$BENCH/names"
    bench_dnsperf "$@"
}

bench_stored()
{
    case $3 in
    *100000*) bench_m=100000 ;;
    *) bench_m=1000 ;;
    esac
    "$BENCH/gauge" names "$bench_at" 20000 7919 "$bench_m" >"$BENCH/names"
    bench_dnsperf "$@"
}

bench_new()
{
    "$BENCH/gauge" names "$bench_at" 20000 1 1000000 >"$BENCH/names"
    bench_dnsperf "$@"
}

bench_stream() { "$BENCH/gauge" stream "$1" "$2" 100 1000; }

# 25 queries a millisecond both times: 5,000 at an upstream that takes 200 ms, 100 at one that takes 4
bench_flight()
{
    case $3 in
    *5000*) "$BENCH/gauge" load "$1" 1 1000000 5000 "$bench_at" 100000 25 ;;
    *) "$BENCH/gauge" load "$1" 1 1000000 100 "$bench_at" 100000 25 ;;
    esac
}

# bench_rounds LOAD: loads the servers of the row in turn; results go to $BENCH/raw as ROW NAME ROUND CPU ANSWERED LOST
bench_rounds()
{
    bench_say "$row: $(awk '{ printf "%s ", $1 }' "$BENCH/in")"
    bench_at=0
    for bench_r in $(seq "$ROUNDS"); do
        for _ in $(seq "$SLICES"); do
            while read -r bench_n bench_q bench_p; do
                bench_a=$("$BENCH/gauge" cpu "$bench_q")
                bench_d=$("$1" "$bench_p" "$SLICE" "$bench_n")
                bench_b=$("$BENCH/gauge" cpu "$bench_q")
                echo "$row $bench_n $bench_r $((bench_b - bench_a)) $bench_d"
            done <"$BENCH/in" >>"$BENCH/raw"
            bench_at=$((bench_at + 20000))
        done
    done
}

# bench_end: the row's servers end
bench_end()
{
    while read -r bench_n bench_q bench_p; do kill_pid "$bench_n"; done <"$BENCH/in"
    : >"$BENCH/in"
}

# bench_cost ROW NAME: microseconds an answer: median, least, most of the rounds, share of queries that failed in percent; nothing
# when nothing was answered
bench_cost()
{
    awk -v row="$1" -v name="$2" '$1 == row && $2 == name { cpu[$3] += $4; good[$3] += $5; all += $5 + $6; bad += $6 }
        END { for (r in cpu) if (good[r]) printf "%.3f %.2f\n", cpu[r] / good[r], 100 * bad / all }' "$BENCH/raw" | sort -n |
        awk '{ v[NR] = $1; bad = $2 } END { if (NR) print v[int((NR + 1) / 2)], v[1], v[NR], bad }'
}

# bench_best ROW NAME...: the cheapest that failed less than one query in twenty
bench_best()
{
    bench_w=$1
    shift
    for bench_n; do echo "$(bench_cost "$bench_w" "$bench_n") $bench_n"; done |
        awk 'NF == 5 && $4 < 5 && (best == "" || $1 < least) { least = $1; best = $5 } END { print best }'
}

# bench_ratio ROW NAME OTHER: median, least and most of the rounds' ratios
bench_ratio()
{
    awk -v row="$1" -v a="$2" -v b="$3" '$1 == row { cpu[$2, $3] += $4; good[$2, $3] += $5; rounds[$3] }
        END { for (r in rounds) if (good[a, r] && good[b, r]) printf "%.3f\n", cpu[a, r] / good[a, r] / (cpu[b, r] / good[b, r]) }' "$BENCH/raw" |
        sort -n | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)], v[1], v[NR] }'
}

# ---- bench: the table ----

# bench_verdict WHAT SENSE LIMIT UNIT FIGURE [NOTE]: a line of the table; SENSE is 'most' or 'least', no FIGURE means not measured
bench_verdict()
{
    if [ -z "$5" ]; then
        bench_v="not measured: ${6:-no figure}"
    else
        bench_v=$(awk -v f="$5" -v l="$3" -v s="$2" 'BEGIN { print (s == "most" ? f <= l : f >= l) ? "met" : "missed" }')
    fi
    echo "$1|at $2 $3$4|${5:+$5$4${6:+ ($6)}}|$bench_v" >>"$BENCH/table"
}

# bench_compare WHAT LIMIT ROW NAME OTHER: a line of the table that is a ratio of two servers of a row
bench_compare()
{
    if [ -z "$5" ]; then
        bench_verdict "$1" most "$2" '' '' 'no peer'
        return
    fi
    bench_x=$(bench_ratio "$3" "$4" "$5")
    bench_y=$(bench_cost "$3" "$4")
    if [ -z "$bench_x" ]; then
        bench_verdict "$1" most "$2" '' '' "$4 or $5 did not answer"
    elif [ "$(echo "${bench_y##* }" | awk '{ print ($1 >= 5) }')" = 1 ]; then
        bench_verdict "$1" most "$2" '' '' "${bench_y##* }% of the queries of $4 failed"
    else
        # shellcheck disable=SC2086
        set -- "$1" "$2" "$3" "$4" "$5" $bench_x
        bench_verdict "$1" most "$2" '' "$6" "against $5; rounds $7 to $8"
    fi
}

# bench_print: lines a|b|c become a table
bench_print()
{
    awk -F'|' '
        { n = NF > n ? NF : n; for (i = 1; i <= NF; i++) { c[NR, i] = $i; if (length($i) > w[i]) w[i] = length($i) } }
        END {
            for (r = 1; r <= NR; r++) {
                for (i = 1; i <= n; i++) printf "| %-*s ", w[i], c[r, i]
                print "|"
                if (r > 1) continue
                for (i = 1; i <= n; i++) { d = "---"; while (length(d) < w[i]) d = d "-"; printf "| %s ", d }
                print "|"
            }
        }'
}

# bench_machine: where this was measured
bench_machine()
{
    bench_m=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
    echo "$(date +%Y-%m-%d): ${bench_m:-unknown processor}, $(uname -m), $(nproc) processors, Linux $(uname -r), $("$CC" --version | head -n 1)," \
        "$(ldd --version 2>&1 | head -n 1), BearSSL $(bench_version libbearssl-dev)," \
        "dnsperf $(bench_version dnsperf), nsd $(bench_version nsd), dnsmasq $(bench_version dnsmasq-base), unbound $(bench_version unbound)," \
        "dnsdist $(bench_version dnsdist), smartdns $(bench_version smartdns), stubby $(bench_version stubby)." \
        "Load average at the start $load_before, at the end $(cut -d ' ' -f 1 /proc/loadavg)."
}

# bench_version PACKAGE
bench_version()
{
    bench_x=$(dpkg-query -W -f '${Version}\n' "$1" 2>/dev/null | head -n 1)
    echo "${bench_x:-absent}"
}

# ---- bench: the rows ----

# A row is a set of servers, a load and what is compared. warm is how many names the caches hold before the load.

bench_row_hit()
{
    row=hit warm=1000
    bench_echo echo
    bench_echo echo-with-poll poll
    bench_proxy dnsproxy "127.0.0.1@$plain1 1"
    for bench_k in dnsdist unbound smartdns dnsmasq; do bench_peer "$bench_k" hit; done
    bench_rounds bench_thousand
    bench_compare 'cached answer over UDP, CPU a query, against the batch echo' 1.10 hit dnsproxy echo
    bench_compare 'the same against the best peer' 0.75 hit dnsproxy "$(bench_best hit dnsdist unbound smartdns dnsmasq)"
    bench_end
}

bench_row_miss()
{
    row=miss warm=0
    bench_proxy dnsproxy "127.0.0.1@$plain1 1"
    bench_proxy dnsproxy-without-cache "127.0.0.1@$plain1 1" 'cache-size 0'
    bench_proxy dnsproxy-3-upstreams "127.0.0.1@$plain1 1" "127.0.0.1@$plain2 1" "127.0.0.1@$plain3 1"
    for bench_k in dnsdist unbound smartdns dnsmasq; do bench_peer "$bench_k" miss; done
    bench_rounds bench_new
    bench_missed dnsproxy
    bench_compare 'miss over one UDP upstream, against the best peer' 0.75 miss dnsproxy "$(bench_best miss dnsdist unbound smartdns dnsmasq)"
    bench_compare 'miss over three UDP upstreams in parallel, against one' 2.2 miss dnsproxy-3-upstreams dnsproxy
    bench_end
}

bench_row_dot()
{
    row=dot warm=0
    if [ -z "$tls" ]; then
        bench_verdict 'miss over DoT, 100 in flight, against the best peer' most 0.35 '' '' 'no DoT server'
        return
    fi
    bench_proxy dnsproxy "127.0.0.1@$tls 1 tls pin=$pin"
    for bench_k in unbound smartdns stubby dnsdist; do bench_peer "$bench_k" dot; done
    bench_rounds bench_new
    bench_missed dnsproxy
    bench_compare 'miss over DoT, 100 in flight, against the best peer' 0.35 dot dnsproxy "$(bench_best dot unbound smartdns stubby dnsdist)"
    bench_end
}

bench_row_tcp()
{
    row=tcp warm=1000
    bench_proxy dnsproxy "127.0.0.1@$plain1 1"
    bench_peer unbound hit
    bench_rounds bench_stream
    bench_compare 'cached answer over a TCP connection with pipelined queries, against unbound' 0.6 tcp dnsproxy "$(bench_best tcp unbound)"
    bench_end
}

bench_row_entries()
{
    row=entries warm=1000
    bench_proxy dnsproxy-1000-entries "127.0.0.1@$plain1 1" 'cache-size 16m'
    warm=100000
    bench_proxy dnsproxy-100000-entries "127.0.0.1@$plain1 1" 'cache-size 16m'
    bench_x=$(val entries "$(adm status | grep '^cache ')")
    [ "${bench_x:-0}" -ge 99000 ] || bench_lack entries "of 100,000 names the cache holds ${bench_x:-none}"
    bench_rounds bench_stored
    bench_compare 'cached, with 100,000 entries in the cache against 1,000' 1.15 entries dnsproxy-100000-entries dnsproxy-1000-entries
    bench_end
}

bench_row_idle()
{
    row=idle warm=1000
    bench_proxy dnsproxy "127.0.0.1@$plain1 1" 'tcp-clients 1200'
    bench_proxy dnsproxy-1000-idle "127.0.0.1@$plain1 1" 'tcp-clients 1200'
    bench_run hold "$BENCH/gauge" hold "$port" 1000
    await 10 logged hold held
    bench_rounds bench_thousand
    bench_x=$(val tcp "$(adm status | head -n 1)")
    [ "${bench_x:-0}" -ge 990 ] || bench_lack idle "of 1,000 idle clients ${bench_x:-none} were there at the end"
    bench_compare 'cached, with 1,000 idle TCP clients against none' 1.10 idle dnsproxy-1000-idle dnsproxy
    kill_pid hold
    bench_end
}

bench_row_flight()
{
    row=flight warm=0
    bench_x=$(freeport)
    bench_run near "$BENCH/gauge" upstream "$bench_x" 4
    bench_proxy dnsproxy-100-in-flight "127.0.0.1@$bench_x 1" 'queries 8192'
    bench_x=$(freeport)
    bench_run far "$BENCH/gauge" upstream "$bench_x" 200
    bench_proxy dnsproxy-5000-in-flight "127.0.0.1@$bench_x 1" 'queries 8192'
    bench_rounds bench_flight
    bench_compare 'misses with 5,000 in flight (`queries 8192`) against 100' 1.3 flight dnsproxy-5000-in-flight dnsproxy-100-in-flight
    kill_pid near
    kill_pid far
    bench_end
}

# bench_missed NAME: says so when the server of a row of misses had hits
bench_missed()
{
    use "$1"
    bench_x=$(val hits "$(adm status | head -n 1)")
    [ "${bench_x:-0}" -lt 100 ] || bench_lack "$row" "$1 had $bench_x hits"
}

# All on one processor: else the time it takes to wake another one is what is measured.
bench_row_latency()
{
    bench_say latency
    bench_one='taskset -c 0'
    have taskset || bench_one=''
    bench_x=$(freeport) bench_y=$(freeport)
    # shellcheck disable=SC2086
    {
        $bench_one "$BENCH/gauge" upstream "$bench_x" 0 &
        started near $!
        $bench_one "$BENCH/gauge" relay "$bench_y" "$bench_x" &
        started relay $!
    }
    : >"$why"
    WRAP=$bench_one
    proxy dnsproxy "127.0.0.1@$bench_x 1"
    WRAP=''
    for bench_r in $(seq "$ROUNDS"); do
        # shellcheck disable=SC2086
        {
            echo "$($bench_one "$BENCH/gauge" latency "$bench_x" "$port" 4000 $((bench_r * 4000)))" \
                "$($bench_one "$BENCH/gauge" latency "$bench_x" "$bench_y" 4000 $((bench_r * 4000)))"
        }
    done | sort -n -k 3 >"$BENCH/latency"
    # shellcheck disable=SC2046
    set -- $(awk '{ v[NR] = $0; a[NR] = $3 } END { print v[int((NR + 1) / 2)], a[1], a[NR] }' "$BENCH/latency")
    bench_verdict 'latency added to a miss at low load (one query at a time), median' most 60 ' us' "${3#-1}" \
        "${2:-} us instead of ${1:-}; rounds ${7:-} to ${8:-}; a bare relay adds ${6:-}"
    kill_pid dnsproxy
    kill_pid relay
    kill_pid near
}

# bench_static: the static musl build, if there can be one; its path is $static
bench_static()
{
    static=''
    if ! have musl-gcc; then
        bench_lack static 'musl-gcc is not installed'
        return
    fi
    mkdir -p "$BENCH/static"
    cp "$SRC/Makefile" "$SRC/dnsproxy.c" "$BENCH/static/"
    if (cd "$BENCH/static" && make BEARSSL="$BEARSSL" static) >"$BENCH/static/log" 2>&1; then
        static=$BENCH/static/dnsproxy-static
    else
        bench_lack static "make static fails: $(tail -n 2 "$BENCH/static/log" | tr '\n' ' ')"
    fi
}

# bench_connected: have all upstreams over TLS a connection?
bench_connected()
{
    case $(adm status) in *'connects 0'*) false ;; esac
}

# bench_filled PROGRAM LINE...: KiB that PROGRAM has resident once its cache is full; $cache is the line of its status
bench_filled()
{
    bench_bin=$BIN
    BIN=$1
    shift
    : >"$why"
    proxy filled "$@"
    BIN=$bench_bin
    await 10 bench_connected || fail 'no connection to the DoT server'
    "$BENCH/gauge" load "$port" 30 15000 50 0 15000 "$FILL" >/dev/null
    cache=$(adm status | grep '^cache ')
    rss=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$(pid filled)/status")
    [ ! -s "$why" ] || rss=''
    kill_pid filled
}

# mib KIB
mib() { [ -z "$1" ] || awk -v k="$1" 'BEGIN { printf "%.2f", k / 1024 }'; }

# bench_resident PROGRAM WHAT MOST MORE [NOTE]: two lines of the table: what it has resident, and MORE: what a pinned upstream adds
bench_resident()
{
    if [ -z "$1" ]; then
        bench_verdict "$2" most "$3" ' MiB' '' 'no static build'
        bench_verdict "$4" most 0.1 ' MiB' '' 'no static build'
        return
    fi
    bench_filled "$1" "127.0.0.1@$plain1 1"
    bench_m=$rss bench_cache=$cache
    bench_verdict "$2" most "$3" ' MiB' "$(mib "$bench_m")" "filled at $FILL,000 answers a second${5:+; $5}"
    if [ -z "$tls" ]; then
        bench_verdict "$4" most 0.1 ' MiB' '' 'no DoT server'
        return
    fi
    bench_filled "$1" "127.0.0.1@$tls 1 tls pin=$pin"
    bench_verdict "$4" most 0.1 ' MiB' "$(mib "${rss:+$((rss - bench_m))}")" 'the same, but all answers from it'
}

bench_row_memory()
{
    bench_say memory
    bench_x=$(freeport)
    bench_run reference "$BENCH/gauge" echo "$bench_x"
    "$BENCH/gauge" bursts "$bench_x" 64 64 0 64 >/dev/null
    bench_echo_kib=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$(pid reference)/status")
    kill_pid reference
    bench_resident "$static" 'resident memory, default config, cache full, plain upstream: static musl' 2.0 'one pinned DoT upstream more: static musl'
    bench_resident "$BIN" 'resident memory, default config, cache full, plain upstream: dynamic glibc' 3.0 'one pinned DoT upstream more: dynamic glibc' \
        "the echo: $(mib "$bench_echo_kib")"
    bench_entries=$(val entries "$bench_cache")
    bench_size=$(val size "$bench_cache")
    bench_x=''
    [ "${bench_entries:-0}" = 0 ] || bench_x=$(awk -v s="$bench_size" -v n="$bench_entries" 'BEGIN { printf "%.1f", s / n }')
    bench_verdict 'bytes of cache memory for an answer of 60 bytes' most 100 '' "$bench_x" "$bench_size bytes hold $bench_entries answers"
    bench_x=''
    [ -z "$static" ] || bench_x=$(wc -c <"$static")
    bench_verdict 'static musl binary, stripped, -Os' most 200 ' KiB' "$([ -z "$bench_x" ] || awk -v b="$bench_x" 'BEGIN { printf "%.1f", b / 1024 }')" \
        "${bench_x:-no static build}${bench_x:+ bytes}"
}

bench_row_ratio()
{
    bench_say 'hit ratio'
    if [ "${bench_entries:-0}" = 0 ]; then
        bench_verdict 'hit ratio, Zipf(1.0) stream of 1,000,000 names, memory for 10,000, share of that of an exact LRU' least 0.95 '' '' 'no cache'
        return
    fi
    bench_x=$(freeport)
    : >"$why"
    proxy dnsproxy "127.0.0.1@$bench_x 1" "cache-size $((bench_size * 100 / bench_entries * 100))"
    bench_y=$("$BENCH/gauge" zipf "$port" "$bench_x" "$ZIPF" 7)
    bench_m=$(val entries "$(adm status | grep '^cache ')")
    kill_pid dnsproxy
    bench_g=$("$BENCH/gauge" lru "${bench_m:-1}" "$ZIPF" 7)
    bench_v=''
    [ "${bench_y##* }" != 0 ] || bench_v=$(awk -v a="${bench_y% *}" -v b="$bench_g" 'BEGIN { printf "%.3f", a / b }')
    bench_verdict 'hit ratio, Zipf(1.0) stream of 1,000,000 names, memory for 10,000, share of that of an exact LRU' least 0.95 '' "$bench_v" \
        "$(awk -v a="${bench_y% *}" -v b="$bench_g" -v n="$ZIPF" 'BEGIN { printf "%.4f against %.4f", 2 * a / n, 2 * b / n }'), $bench_m entries, ${bench_y##* } queries lost"
}

bench_row_start()
{
    bench_say start
    for bench_r in 1 2 3 4 5 6 7 8 9 10 11; do
        bench_x=$(freeport)
        "$BENCH/gauge" first "$bench_x" "$BIN" "listen 127.0.0.1@$bench_x" "admin 127.0.0.1@$(freeport)" "127.0.0.1@$plain1 1"
    done | sort -n >"$BENCH/start"
    bench_verdict 'start to first answer, plain upstream' most 5 ' ms' \
        "$(awk '{ v[NR] = $1 / 1000 } END { if (v[NR] < 5000) printf "%.1f", v[6] }' "$BENCH/start")" \
        "$(awk '{ v[NR] = $1 / 1000 } END { printf "11 starts, %.1f to %.1f", v[1], v[NR] }' "$BENCH/start")"
}

# bench_counted KIND NAMES LINE...: instructions of a query, one at a time and in bursts of 64, with NAMES names. What the start, the
# first connection and the first answers cost is in two runs, and so not in their difference.
bench_counted()
{
    bench_k=$1 bench_names=$2
    shift 2
    bench_say "instructions of a $bench_k"
    bench_bin=$BIN
    BIN=$BENCH/counted
    for bench_x in '1000 0' '3000 0' '1000 3200'; do
        : >"$why"
        rm -f "$BENCH/callgrind"
        WRAP="valgrind -q --tool=callgrind --callgrind-out-file=$BENCH/callgrind"
        SLOW=6
        proxy counted "user $(id -un)" "$@"     # nobody could not write the counts
        WRAP='' SLOW=$bench_slow
        "$BENCH/gauge" bursts "$port" "${bench_x% *}" 1 0 "$bench_names"
        "$BENCH/gauge" bursts "$port" "${bench_x#* }" 64 $((500000 % bench_names)) "$bench_names"
        kill -TERM "$(pid counted)"
        "$T/tool" gone "$(pid counted)" 30000 || fail 'does not stop'
        kill_pid counted
        [ ! -s "$why" ] || bench_lack instructions "$(cat "$why")"
        sed -n 's/^totals: /total /p' "$BENCH/callgrind"
    done >"$BENCH/counts"
    BIN=$bench_bin
    awk -v kind="$bench_k" '
        $1 == "total" { t[++n] = $2 }
        $1 != "total" { lost += $2 }
        END {
            if (n == 3 && !lost) printf "%s|%.0f|%.0f\n", kind, (t[2] - t[1]) / 2000, (t[3] - t[1]) / 3200
            else printf "%s|not measured|not measured\n", kind
        }' "$BENCH/counts" >>"$BENCH/instructions"
}

bench_row_instructions()
{
    echo 'instructions a query|one at a time|in bursts of 64' >"$BENCH/instructions"
    if ! have valgrind; then
        bench_lack instructions 'valgrind is not installed'
    elif ! build "$BENCH/counted" -DNO_SECCOMP 2>"$BENCH/counted.log"; then
        bench_lack instructions "does not compile: $(tail -n 2 "$BENCH/counted.log" | tr '\n' ' ')"
    else
        bench_slow=$SLOW
        bench_counted 'hit' 100 "127.0.0.1@$plain1 1"
        bench_counted 'miss' 1000000 "127.0.0.1@$plain1 1"
        [ -z "$tls" ] || bench_counted 'DoT miss' 1000000 "127.0.0.1@$tls 1 tls pin=$pin"
    fi
}

# cmd_bench [quick]: everything in under 10 minutes, or most of it, less exactly, in under one. The tables are Markdown.
cmd_bench()
{
    case ${1:-full} in
    full) ROUNDS=5 SLICES=6 SLICE=0.2 ZIPF=1000000 FILL=5 ;;
    quick) ROUNDS=3 SLICES=1 SLICE=0.2 ZIPF=200000 FILL=15 ;;
    *)
        echo "usage: ./test.sh bench [quick]" >&2
        return 2
        ;;
    esac
    if ! have dnsperf nsd openssl || [ ! -r /proc/self/stat ]; then
        echo 'bench needs Linux and the Debian packages dnsperf, nsd and openssl' >&2
        return 1
    fi
    BENCH=$T/bench
    mkdir -p "$BENCH"
    for bench_x in lacks in raw table instructions; do : >"$BENCH/$bench_x"; done
    load_before=$(cut -d ' ' -f 1 /proc/loadavg)
    bench_tools && bench_upstreams || return 1
    bench_start=$(date +%s)
    bench_static
    for bench_x in hit miss dot tcp entries idle flight latency memory ratio start; do "bench_row_$bench_x"; done
    [ "${1:-}" = quick ] || bench_row_instructions

    bench_machine
    echo
    { echo 'what|target|figure|verdict'; cat "$BENCH/table"; } | bench_print
    echo
    {
        echo 'row|server|us a query|least round|most round|failed %'
        awk '!seen[$1, $2]++ { print $1, $2 }' "$BENCH/raw" | while read -r bench_w bench_n; do
            bench_x=$(bench_cost "$bench_w" "$bench_n" | awk '{ printf "%.2f|%.2f|%.2f|%.2f", $1, $2, $3, $4 }')
            echo "$bench_w|$bench_n|${bench_x:-not measured|||}"
        done
    } | bench_print
    echo
    [ ! -s "$BENCH/instructions" ] || bench_print <"$BENCH/instructions"
    if [ -s "$BENCH/lacks" ]; then
        echo
        echo 'Missing or doubtful:'
        sed 's/^/- /' "$BENCH/lacks"
    fi
    bench_say "$(($(date +%s) - bench_start)) s"
}
# ---- Real servers, real clients, a network, packages, documents --------

LEGS="$LEGS real_upstreams real_clients real_failover netcats day install readme docs"

# real_wait NAME ADDRESS PORT QNAME [KDIG OPTION...]: waits until the server NAME answers there
real_wait()
{
    real_n=$1 real_a=$2 real_p=$3 real_q=$4
    shift 4
    await 10 real_answers "$@" || fail "$real_n does not answer: $(tail -n 3 "$T/$real_n.log")"
}
real_answers() { kdig "@$real_a" -p "$real_p" +retry=0 +timeout=1 "$@" "$real_q" A 2>/dev/null | grep -q 'status: NOERROR'; }

# real_unbound NAME PORT LINE...: unbound at 127.0.0.1 with these lines of configuration besides
real_unbound()
{
    real_n=$1 real_p=$2
    shift 2
    {
        printf '%s\n' server: "interface: 127.0.0.1@$real_p" 'do-daemonize: no' 'username: ""' 'chroot: ""' 'pidfile: ""' \
            'use-syslog: no' 'num-threads: 1' 'do-not-query-localhost: no' 'module-config: "iterator"' 'directory: ""'
        printf '%s\n' "$@" 'remote-control:' 'control-enable: no'
    } >"$T/$real_n.conf"
    unbound -d -c "$T/$real_n.conf" </dev/null >"$T/$real_n.log" 2>&1 &
    started "$real_n" $!
}

# real_dnsmasq NAME PORT OPTION...
real_dnsmasq()
{
    real_n=$1 real_p=$2
    shift 2
    dnsmasq -k -C /dev/null -R -h --pid-file= --user=root --log-facility=- --listen-address=127.0.0.1 --bind-interfaces -p "$real_p" "$@" \
        </dev/null >"$T/$real_n.log" 2>&1 &
    started "$real_n" $!
}

# real_nsd NAME PORT: nsd with the zone test, signed when ldns-signzone is there. Ended with SIGTERM, for it has children.
real_nsd()
{
    [ -s "$T/test.zone" ] || real_zone
    cat >"$T/$1.conf" <<END
server:
    ip-address: 127.0.0.1@$2
    username: ""
    pidfile: ""
    database: ""
    zonesdir: "$T"
    xfrdfile: "$T/$1.xfrd"
    xfrdir: "$T"
    zonelistfile: "$T/$1.list"
    server-count: 1
remote-control:
    control-enable: no
zone:
    name: test
    zonefile: test.zone
END
    nsd -d -c "$T/$1.conf" </dev/null >"$T/$1.log" 2>&1 &
    started "$1" $!
    real_wait "$1" 127.0.0.1 "$2" www.test
}

# real_zone: a zone with the types that are asked below
real_zone()
{
    cat >"$T/test.zone" <<'END'
$ORIGIN test.
$TTL 3600
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
@ MX 10 mail
@ MX 20 mail2
ns A 192.0.2.1
mail A 192.0.2.2
mail2 A 192.0.2.3
www A 192.0.2.10
www A 192.0.2.11
www AAAA 2001:db8::10
www TXT "plain" "with \"quotes\" and \; and \255"
www TYPE65 \# 10 00010000010003026832
www TYPE65280 \# 16 00010203040506070809fffefdfcfbfa
alias CNAME www
*.wild A 192.0.2.12
END
    have ldns-keygen ldns-signzone || return 0
    (
        cd "$T" || exit
        real_k=$(ldns-keygen -a ECDSAP256SHA256 -k test 2>/dev/null) &&
            ldns-signzone -e 20380101000000 -i 20200101000000 -f test.signed test.zone "$real_k" 2>"$T/zone.log" && mv test.signed test.zone
    )
}

# real_reply ADDRESS PORT NAME TYPE [KDIG OPTION...]: RCODE and answer as kdig tells them, without TTLs, in order of text
real_reply()
{
    real_a=$1 real_p=$2 real_q=$3 real_t=$4
    shift 4
    kdig "@$real_a" -p "$real_p" +noall +header +answer +nottl +retry=1 +timeout=5 "$@" "$real_q" "$real_t" 2>&1 |
        sed -n 's/.*status: \([A-Z]*\).*/\1/p; /^[^;]/p' | sort
}

# real_compare PORT: what the upstream at PORT says, the proxy says too, when asked first and from the cache
real_compare()
{
    for real_x in 'www.test A' 'www.test AAAA' 'test MX' 'www.test TXT' 'www.test TYPE65' 'test DNSKEY' 'www.test TYPE65280' 'alias.test A' 'a.wild.test A'; do
        # shellcheck disable=SC2086
        set -- "$1" $real_x
        case $3 in DNSKEY) real_o=+dnssec ;; *) real_o=+nodnssec ;; esac
        real_w=$(real_reply 127.0.0.1 "$1" "$2" "$3" "$real_o" +tcp)
        like '^NOERROR' "$real_w" "$2 $3 of the upstream"
        same "$real_w" "$(real_reply 127.0.0.1 "$port" "$2" "$3" "$real_o")" "$2 $3 over UDP"
        same "$real_w" "$(real_reply 127.0.0.1 "$port" "$2" "$3" "$real_o" +tcp)" "$2 $3 over TCP"
        same "$real_w" "$(real_reply ::1 "$port" "$2" "$3" "$real_o")" "$2 $3 over IPv6"
    done
    adm clear >/dev/null
    same "$(real_reply 127.0.0.1 "$1" nothing.test A)" "$(real_reply 127.0.0.1 "$port" nothing.test A)" 'a name that does not exist'
}

leg_real_upstreams()
{
    if ! have kdig nsd; then
        promise 'real servers as upstreams'
        skip 'nsd or kdig is missing'
        return
    fi
    real_pn=$(freeport)
    promise 'what nsd says is what clients get: A, AAAA, MX, TXT, HTTPS, DNSKEY, TYPE65280 over UDP, TCP and IPv6'
    real_nsd nsd "$real_pn"
    real_pl=$(freeport)
    proxy front "listen 127.0.0.1@$real_pl" "listen ::1@$real_pl" "127.0.0.1@$real_pn 1"
    real_compare "$real_pn"
    stop front
    promise 'the same through unbound'
    if have unbound; then
        real_pu=$(freeport)
        real_unbound unbound "$real_pu" 'local-zone: test. nodefault' 'domain-insecure: test.' stub-zone: 'name: test.' "stub-addr: 127.0.0.1@$real_pn"
        real_wait unbound 127.0.0.1 "$real_pu" www.test
        proxy front "listen 127.0.0.1@$real_pl" "listen ::1@$real_pl" "127.0.0.1@$real_pu 1 tcp"
        real_compare "$real_pu"
        stop front
    else
        skip 'unbound is missing'
    fi
    promise 'the same through dnsmasq'
    if have dnsmasq; then
        real_pm=$(freeport)
        real_dnsmasq dnsmasq "$real_pm" "--server=/test/127.0.0.1#$real_pn"
        real_wait dnsmasq 127.0.0.1 "$real_pm" www.test
        proxy front "listen 127.0.0.1@$real_pl" "listen ::1@$real_pl" "127.0.0.1@$real_pm 1"
        real_compare "$real_pm"
        stop front
    else
        skip 'dnsmasq is missing'
    fi
    judge
    kill_pid nsd TERM
}

# getaddrinfo(3) as programs use it
real_gai()
{
    cat >"$T/gai.c" <<'END'
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv)
{
    struct addrinfo *a, *i, hints;
    int e = argc;

    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    if ((e = getaddrinfo(argv[1], "80", &hints, &a)) != 0) {
        printf("%s\n", gai_strerror(e));
        return 1;
    }
    for (i = a; i != NULL; i = i->ai_next) {
        char s[64];
        if (getnameinfo(i->ai_addr, i->ai_addrlen, s, sizeof s, NULL, 0, NI_NUMERICHOST) == 0)
            printf("%s\n", s);
    }
    return 0;
}
END
    "$1" -O -o "$2" "$T/gai.c" 2>>"$T/gai.log"
}

leg_real_clients()
{
    promise 'a namespace of its own, with port 53 and resolv.conf'
    if ! have dnsmasq unshare ip; then
        skip 'dnsmasq, unshare or ip is missing'
        return
    fi
    if ! unshare -mn sh -c 'ip link set lo up && mount -t tmpfs none /mnt' 2>/dev/null; then
        skip 'not here: namespaces are not allowed'
        return
    fi
    real_gai "$CC" "$T/gai-libc" || fail "$(tail -n 3 "$T/gai.log")"
    ! have musl-gcc || real_gai musl-gcc "$T/gai-musl" || fail "$(tail -n 3 "$T/gai.log")"
    echo 'nameserver 127.0.0.1' >"$T/resolv.conf"
    cat >"$T/inside.sh" <<'END'
ip link set lo up
mount --bind "$T/resolv.conf" /etc/resolv.conf || exit
dnsmasq -k -C /dev/null -R -h --pid-file= --user=root --log-facility=- --listen-address=127.0.0.1 --bind-interfaces -p 5300 \
    --local=/test/ --host-record=www.test,192.0.2.10,2001:db8::10 --txt-record=www.test,hello >"$T/inside-dnsmasq.log" 2>&1 &
m=$!
"$BIN" 'listen 127.0.0.1' 'listen ::1' 'admin off' '127.0.0.1@5300 1' >"$T/inside.log" 2>&1 &
p=$!
i=0
until kdig @127.0.0.1 +retry=0 +timeout=1 www.test A | grep -q 192.0.2.10 || [ $i -ge 100 ]; do i=$((i + 1)); sleep 0.05; done
for f in 4 6; do
    for c in 'kdig +short' 'dig +short' 'drill -Q'; do
        t=A; [ $f = 4 ] || t=AAAA
        a=127.0.0.1; [ $f = 4 ] || a=::1
        command -v ${c%% *} >/dev/null && echo "${c%% *} $t $($c @$a www.test $t)"
    done
done
command -v busybox >/dev/null && echo "busybox $(busybox nslookup www.test 127.0.0.1 | sed -n 's/^Address[ 0-9:]* \(192[^ ]*\).*/\1/p')"
[ -x "$T/gai-libc" ] && echo "libc $("$T/gai-libc" www.test | sort | tr '\n' ' ')"
[ -x "$T/gai-musl" ] && echo "musl $("$T/gai-musl" www.test | sort | tr '\n' ' ')"
[ -x "$T/gai-libc" ] && echo "nobody $("$T/gai-libc" nobody.test)"
kill $p && wait $p
echo "exit $?"
kill $m
END
    export BIN T
    timeout 60 unshare -mn sh "$T/inside.sh" >"$T/inside.out" 2>&1
    real_x=$(cat "$T/inside.out")
    like '^exit 0$' "$real_x"
    judge
    for real_c in kdig dig drill; do
        promise "$real_c gets A over IPv4 and AAAA over IPv6"
        if have "$real_c"; then
            like "^$real_c A 192\\.0\\.2\\.10$" "$real_x"
            like "^$real_c AAAA 2001:db8::10$" "$real_x"
        else
            skip "$real_c is missing"
        fi
    done
    promise 'nslookup of busybox finds the address'
    if have busybox; then like '^busybox 192\.0\.2\.10' "$real_x"; else skip 'busybox is missing'; fi
    promise 'getaddrinfo of the C library gets both addresses, and an error for a name that does not exist'
    like '^libc 192\.0\.2\.10 2001:db8::10 $' "$real_x"
    like '^nobody .*[Nn]ot known' "$real_x"
    promise 'getaddrinfo of musl gets both addresses'
    if have musl-gcc; then like '^musl 192\.0\.2\.10 2001:db8::10 $' "$real_x"; else skip 'musl-gcc is missing'; fi
}

# real_short NAME [KDIG OPTION...]: the address that the proxy gives
real_short()
{
    real_q=$1
    shift
    kdig @127.0.0.1 -p "$port" +short +retry=0 +timeout=5 "$@" "$real_q" A 2>/dev/null
}

# real_ms: milliseconds of the wall clock
real_ms() { date +%s%3N; }

real_best_wins()
{
    real_i=$((${real_i:-0} + 1))
    [ "$(real_short "w$real_i.test")" = 192.0.2.1 ]
}

leg_real_failover()
{
    if ! have kdig unbound dnsmasq; then
        promise 'one of two real upstreams fails'
        skip 'kdig, unbound or dnsmasq is missing'
        return
    fi
    real_p1=$(freeport) real_p2=$(freeport) real_i=0
    real_first() { real_unbound first "$real_p1" 'local-zone: test. redirect' 'local-data: "test. A 192.0.2.1"'; }
    real_first
    real_wait first 127.0.0.1 "$real_p1" www.test
    real_dnsmasq second "$real_p2" --address=/test/192.0.2.2 --local-ttl=60
    real_wait second 127.0.0.1 "$real_p2" www.test
    proxy front "127.0.0.1@$real_p1 1" "127.0.0.1@$real_p2 2" 'patience 1000'
    promise 'with both well, priority 1 wins'
    for real_x in 1 2 3 4 5; do same 192.0.2.1 "$(real_short "a$real_x.test")"; done
    promise 'priority 1 silent (SIGSTOP): every query is answered'
    kill -STOP "$(pid first)"
    for real_x in 1 2 3; do same 192.0.2.2 "$(real_short "b$real_x.test")"; done
    promise 'after three slow answers they are immediate'
    real_t=$(real_ms)
    for real_x in 1 2 3 4 5; do same 192.0.2.2 "$(real_short "c$real_x.test")"; done
    real_t=$(($(real_ms) - real_t))
    [ "$real_t" -lt $((2500 * SLOW)) ] || fail "five answers took $real_t ms"
    like 'upstream 127.0.0.1@'"$real_p1"' udp priority 1 state down' "$(adm status)"
    promise 'it comes back by itself (SIGCONT)'
    kill -CONT "$(pid first)"
    await 10 real_best_wins || fail 'priority 1 does not win again'
    promise 'priority 1 killed (SIGKILL): every query is answered, at once'
    kill_pid first KILL
    real_t=$(real_ms)
    for real_x in 1 2 3 4 5; do same 192.0.2.2 "$(real_short "d$real_x.test")"; done
    real_t=$(($(real_ms) - real_t))
    [ "$real_t" -lt $((2500 * SLOW)) ] || fail "five answers took $real_t ms"
    promise 'it comes back by itself (started again)'
    real_first
    await 15 real_best_wins || fail 'priority 1 does not win again'
    stop front
}

leg_netcats()
{
    proxy front '127.0.0.1@9 1'
    for real_c in nc.openbsd nc.traditional ncat 'busybox nc'; do
        promise "'echo status | $real_c' ends by itself"
        if have "${real_c% nc}"; then
            # shellcheck disable=SC2086
            real_x=$(echo status | timeout 10 $real_c 127.0.0.1 "$admin")
            same 0 $? 'exit status'
            like '^dnsproxy .* uptime [0-9]+ queries' "$real_x"
            like '^cache entries 0 ' "$real_x"
        else
            skip "${real_c% nc} is missing"
        fi
    done
    stop front
}

# ---- A day of browsing in a minute

# The browser: pages come at random times; each asks for a handful of names at once, A and AAAA (and HTTPS for the first).
real_browser()
{
    cat >"$T/browser.c" <<'END'
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* browser ADDRESS PORT SECONDS SEED: prints "asked N answered N servfail N empty N retried N median_ms X slowest_ms X" */
enum { MAX = 65536, SITES = 400 };
static struct { double first, last, took; int tries; } q[MAX];
static double took[MAX];
static uint64_t state;
static double rnd(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) / 9007199254740992.0;
}
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
static uint8_t sent[MAX][96];
static int sent_len[MAX];
static int cmp(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}
static int s, n;
static void ask(const char *name, int type)
{
    uint8_t *b = sent[n];
    int l = 12;
    if (n == MAX - 1)
        return;
    memset(b, 0, 96);
    b[0] = (uint8_t)(n >> 8), b[1] = (uint8_t)n, b[2] = 1, b[5] = 1;
    while (*name) {
        int k = (int)strcspn(name, ".");
        b[l++] = (uint8_t)k;
        memcpy(b + l, name, (size_t)k);
        l += k;
        name += k + (name[k] == '.');
    }
    l++;
    b[l + 1] = (uint8_t)type, b[l + 3] = 1;
    sent_len[n] = l + 4;
    q[n].first = q[n].last = now();
    q[n].tries = 1;
    if (send(s, b, (size_t)l + 4, 0) < 0) { /* asked again below */ }
    n++;
}
int main(int argc, char **argv)
{
    struct sockaddr_in a = { .sin_family = AF_INET };
    double end, next, t;
    int i, answered = 0, servfail = 0, empty = 0, retried = 0, low = 0;
    char name[64];

    if (argc != 5)
        return 2;
    inet_pton(AF_INET, argv[1], &a.sin_addr);
    a.sin_port = htons((uint16_t)atoi(argv[2]));
    end = now() + atof(argv[3]);
    state = strtoull(argv[4], NULL, 10);
    s = socket(AF_INET, SOCK_DGRAM, 0);
    if (connect(s, (struct sockaddr *)&a, sizeof a) != 0)
        return 1;
    for (next = now(); (t = now()) < end + 6; ) {
        struct pollfd p = { s, POLLIN, 0 };
        uint8_t b[1500];
        ssize_t got;
        if (t >= next && t < end) {
            int names = 1 + (int)(rnd() * 8);
            for (i = 0; i < names; i++) {
                double z = rnd();
                int site = (int)(SITES * z * z * z);
                if (i == names - 1 && rnd() < 0.2)
                    snprintf(name, sizeof name, "host%d.lan", (int)(rnd() * 5));
                else
                    snprintf(name, sizeof name, "%s%d.example", i == 0 ? "www" : "cdn", site);
                ask(name, 1);
                ask(name, 28);
                if (i == 0)
                    ask(name, 65);
            }
            next = t + 0.02 + 0.2 * rnd() * rnd();
        }
        for (i = low; i < n; i++) {
            if (q[i].took != 0) {
                if (i == low)
                    low++;
            } else if (t - q[i].last > 5 && q[i].tries < 2) {
                q[i].last = t, q[i].tries++, retried++;
                if (send(s, sent[i], (size_t)sent_len[i], 0) < 0)
                    continue;
            }
        }
        if (t >= end && low == n)
            break;
        poll(&p, 1, t < end ? (int)((next - t) * 1000) + 1 : 50);
        while ((got = recv(s, b, sizeof b, MSG_DONTWAIT)) >= 12) {
            i = b[0] << 8 | b[1];
            if (i >= n || q[i].took != 0)
                continue;
            q[i].took = now() - q[i].first;
            took[answered++] = q[i].took;
            servfail += (b[3] & 15) != 0;
            empty += (b[3] & 15) == 0 && b[7] == 0 && sent[i][sent_len[i] - 3] == 1;
        }
    }
    qsort(took, (size_t)answered, sizeof took[0], cmp);
    printf("asked %d answered %d servfail %d empty %d retried %d median_ms %.1f slowest_ms %.0f\n", n, answered, servfail, empty, retried,
        answered ? took[answered / 2] * 1000 : 0, answered ? took[answered - 1] * 1000 : 0);
    return 0;
}
END
    "$CC" -O2 -o "$T/browser" "$T/browser.c"
}

# real_cert NAME: an authority $T/ca.pem, and NAME's key and certificate
real_cert()
{
    (
        cd "$T" || exit
        [ -s ca.pem ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 -subj '/CN=test authority' \
            -addext basicConstraints=critical,CA:TRUE || exit
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$1" || exit
        printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth\n' "$1" >"$1.ext"
        openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 20 -extfile "$1.ext" -out "$1.pem" || exit
        chmod 644 "$1.key" "$1.pem" ca.pem
    ) >"$T/$1.certlog" 2>&1 || fail "certificate of $1: $(tail -n 2 "$T/$1.certlog")"
}

# real_dot NAME ADDRESS NAMESPACE: unbound as a resolver that serves DoT there, and knows every name below example
real_dot()
{
    cat >"$T/$1.conf" <<END
server:
    interface: $2@853
    do-daemonize: no
    username: ""
    chroot: ""
    pidfile: ""
    directory: ""
    use-syslog: no
    num-threads: 1
    module-config: "iterator"
    access-control: 0.0.0.0/0 allow
    tls-service-key: "$T/$1.key"
    tls-service-pem: "$T/$1.pem"
    local-zone: example. redirect
    local-data: "example. 30 A 192.0.2.10"
    local-data: "example. 30 AAAA 2001:db8::10"
remote-control:
    control-enable: no
END
    ip netns exec "$3" unbound -d -c "$T/$1.conf" </dev/null >"$T/$1.log" 2>&1 &
    started "$1" $!
}

# The namespaces of the day are named after this run; the first is the proxy's and the browser's.
real_ns="dp$$"

# Where the kernel has no netem: a program carries the packets from one namespace to another, late, and loses some.
real_wire()
{
    cat >"$T/wire.c" <<'END'
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* wire NETNS DEVICE NETNS DEVICE DELAY JITTER LOSS: a link between two network namespaces; milliseconds each way, packets lost of 1000 */
enum { SLOTS = 4096, SIZE = 2048 };
static struct { double due; int to, len; char b[SIZE]; } q[SLOTS];
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}
static int end(const char *ns, const char *device)
{
    char path[256];
    struct ifreq r = { .ifr_flags = IFF_TUN | IFF_NO_PI };
    int fd;
    snprintf(path, sizeof path, "/var/run/netns/%s", ns);
    if ((fd = open(path, O_RDONLY)) < 0 || setns(fd, CLONE_NEWNET) != 0 || (fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK)) < 0)
        return -1;
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", device);
    return ioctl(fd, TUNSETIFF, &r) == 0 ? fd : -1;
}
int main(int argc, char **argv)
{
    struct pollfd p[2];
    double last[2] = { 0, 0 }, first, t;
    int i, k, free_slot;

    if (argc != 8)
        return 2;
    for (i = 0; i < 2; i++) {
        p[i].fd = end(argv[1 + 2 * i], argv[2 + 2 * i]);
        p[i].events = POLLIN;
        if (p[i].fd < 0) {
            perror("wire");
            return 1;
        }
    }
    puts("ready");
    fflush(stdout);
    srand(1);
    for (;;) {
        for (t = now(), first = t + 1000, free_slot = -1, i = 0; i < SLOTS; i++) {
            if (q[i].len > 0 && q[i].due <= t) {
                if (write(p[q[i].to].fd, q[i].b, (size_t)q[i].len) < 0) { /* lost */ }
                q[i].len = 0;
            }
            if (q[i].len == 0)
                free_slot = i;
            else if (q[i].due < first)
                first = q[i].due;
        }
        if (poll(p, 2, (int)(first - t) + 1) < 0)
            return 1;
        for (k = 0; k < 2; k++) {
            if (free_slot < 0 || !(p[k].revents & POLLIN) || (q[free_slot].len = (int)read(p[k].fd, q[free_slot].b, SIZE)) <= 0)
                continue;
            if (rand() % 1000 < atoi(argv[7])) {
                q[free_slot].len = 0;
                continue;
            }
            q[free_slot].to = !k;
            q[free_slot].due = now() + atoi(argv[5]) + rand() % (atoi(argv[6]) + 1);
            if (q[free_slot].due < last[k])     /* in order, as on a line */
                q[free_slot].due = last[k];
            last[k] = q[free_slot].due;
            break;
        }
    }
}
END
    "$CC" -O2 -o "$T/wire" "$T/wire.c"
}

# real_link N DELAY JITTER LOSS: device vN of the first namespace leads to e0 of namespace N; milliseconds, packets of 1000
real_link()
{
    if [ "$real_lossy" = wire ]; then
        "$T/wire" "$real_ns-0" "v$1" "$real_ns-$1" e0 "$2" "$3" "$4" </dev/null >"$T/wire$1.log" 2>&1 &
        started "wire$1" $!
        await 5 logged "wire$1" ready || return 1
    else
        ip -n "$real_ns-0" link add "v$1" type veth peer name e0 netns "$real_ns-$1" || return 1
    fi
    ip -n "$real_ns-0" address add "10.55.$1.1/24" dev "v$1" &&
        ip -n "$real_ns-$1" address add "10.55.$1.2/24" dev e0 &&
        ip -n "$real_ns-0" link set "v$1" up &&
        ip -n "$real_ns-$1" link set e0 up || return 1
    [ "$real_lossy" != netem ] || for real_x in "$real_ns-0 v$1" "$real_ns-$1 e0"; do
        tc -n "${real_x% *}" qdisc add dev "${real_x#* }" root netem delay "$2ms" "$3ms" loss "$(($4 / 10)).$(($4 % 10))%" || return 1
    done
}

# real_net_up: namespaces 0 to 3 with links like those to a router in the house, a near and a far resolver
real_net_up()
{
    for real_i in 0 1 2 3; do
        ip netns add "$real_ns-$real_i" && ip -n "$real_ns-$real_i" link set lo up || return 1
    done
    real_lossy=no
    if have tc && tc -n "$real_ns-0" qdisc add dev lo root netem delay 1ms; then
        tc -n "$real_ns-0" qdisc del dev lo root
        real_lossy=netem
    elif [ -e /dev/net/tun ] && real_wire; then
        real_lossy=wire
    fi
    real_link 1 1 0 0 && real_link 2 10 3 10 && real_link 3 17 5 20
}

real_net_down()
{
    for real_i in 0 1 2 3; do ip netns del "$real_ns-$real_i"; done 2>/dev/null
}

leg_day()
{
    day=${DAY:-20}
    promise 'a day of browsing: most from the cache, none fails though one DoT server falls silent and then dies'
    if ! have ip unbound dnsmasq openssl kdig; then
        skip 'ip, unbound, dnsmasq, openssl or kdig is missing'
        return
    fi
    trap 'real_x=$?; reap; real_net_down; finish $real_x' EXIT
    if ! real_net_up 2>"$T/net.log"; then
        reap
        real_net_down
        trap 'finish $?' EXIT
        skip 'not here: no network namespaces'
        return
    fi
    real_browser || fail 'the browser does not compile'
    case $real_lossy in
    netem) echo '# the links have delay and loss by tc netem' ;;
    wire) echo '# no tc netem here: the links have delay and loss by a program of the test' ;;
    no) echo '# no tc netem and no /dev/net/tun here: no delay and no loss' ;;
    esac
    real_cert dot2.test
    real_cert dot3.test
    real_dot dot2.test 10.55.2.2 "$real_ns-2"
    real_dot dot3.test 10.55.3.2 "$real_ns-3"
    ip netns exec "$real_ns-1" dnsmasq -k -C /dev/null -R -h --pid-file= --user=root --log-facility=- -p 53 --local=/lan/ --address=/lan/192.168.55.5 --local-ttl=30 \
        </dev/null >"$T/lan.log" 2>&1 &
    started lan $!
    # shellcheck disable=SC2086
    ip netns exec "$real_ns-0" $WRAP "$BIN" -d 'listen 127.0.0.1' 'admin 127.0.0.1@5353' "ca-file $T/ca.pem" '10.55.1.2 1 final domain=lan' \
        '10.55.2.2 2 tls=dot2.test' '10.55.3.2 3 tls=dot3.test' </dev/null >"$T/front.log" 2>&1 &
    started front $!
    await 10 real_day_answers || fail 'the proxy does not answer'
    ip netns exec "$real_ns-0" "$T/browser" 127.0.0.1 53 "$day" 1 >"$T/browser.out" &
    real_b=$!
    sleep $((day / 2))
    kill -STOP "$(pid dot2.test)"
    sleep $((day / 4))
    kill_pid dot2.test KILL
    wait "$real_b"
    real_x=$(cat "$T/browser.out")
    real_s=$(ip netns exec "$real_ns-0" "$BIN" 'admin 127.0.0.1@5353' "ca-file $T/ca.pem" '10.55.2.2 1' -a status)
    printf '%s\n' "$real_s" >"$T/front.status"
    real_a=$(val asked "$real_x") real_h=$(val hits "$real_s") real_q=$(val queries "$real_s")
    echo "# browser: $real_x"
    echo "# $real_h of $real_q answered from the cache: $((${real_h:-0} * 100 / ${real_q:-1})) %"
    same "$real_a" "$(val answered "$real_x")" answered
    same 0 "$(val servfail "$real_x")" 'SERVFAIL or NXDOMAIN'
    same 0 "$(val empty "$real_x")" 'empty answers for A'
    same 0 "$(val retried "$real_x")" 'asked twice'
    [ "${real_a:-0}" -gt 200 ] || fail "only ${real_a:-0} queries"
    within 30 100 $((${real_h:-0} * 100 / ${real_q:-1})) 'per cent from the cache'
    real_w=$(val slowest_ms "$real_x")
    within 0 $((4000 * SLOW)) "${real_w:-none}" 'slowest answer in milliseconds'
    like '^upstream 10.55.1.2@53 udp .* won [1-9]' "$real_s"
    like '^upstream 10.55.3.2@853 tls .* won [1-9]' "$real_s"
    judge
    reap
    real_net_down
    trap 'finish $?' EXIT
}
real_day_answers() { ip netns exec "$real_ns-0" kdig @127.0.0.1 +retry=0 +timeout=2 www1.example A 2>/dev/null | grep -q 192.0.2.10; }

# ---- Packages

leg_install()
{
    promise 'make install puts binary, man page, configuration and unit under DESTDIR'
    mkdir "$T/tree"
    for real_f in Makefile dnsproxy.c dnsproxy.8 dns.config.example test.sh README.md; do cp -p "$SRC/$real_f" "$T/tree/"; done
    (cd "$T/tree" && ls -A) >"$T/tree.before"
    real_make() { make -C "$T/tree" CC="$CC" CFLAGS="$CFLAGS" BEARSSL="$BEARSSL" "$@" >>"$T/make.log" 2>&1 || fail "make $*: $(tail -n 3 "$T/make.log")"; }
    real_make DESTDIR="$T/dest" PREFIX=/usr install
    for real_f in /usr/sbin/dnsproxy /usr/share/man/man8/dnsproxy.8 /etc/dns.config /usr/lib/systemd/system/dnsproxy.service; do
        [ -s "$T/dest$real_f" ] || fail "$real_f is not there"
    done
    like '^dnsproxy ' "$("$T/dest/usr/sbin/dnsproxy" -V)" version
    same '' "$("$T/dest/usr/sbin/dnsproxy" -t -c "$T/dest/etc/dns.config" 2>&1 >/dev/null)" 'errors in the installed configuration'
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
    if have musl-gcc && [ -z "$BEARSSL" ]; then
        rm -f "$T/tree/dnsproxy"
        real_make static
        unlike 'NEEDED|INTERP' "$(readelf -ld "$T/tree/dnsproxy-static" 2>&1)"
        like '^dnsproxy ' "$("$T/tree/dnsproxy-static" -V 2>&1)" version
        [ ! -e "$T/tree/dnsproxy" ] || fail 'it makes dnsproxy too'
        real_make clean
    else
        skip "not here: musl-gcc is missing, or BearSSL is not the system's"
    fi
    promise 'the cross-compiling command of the README makes a program of the other machine'
    real_x=$(readme cross-make)
    real_x=${real_x#*CC=}
    if have "$real_x" && [ -n "$("$real_x" -print-file-name=libbearssl.a | grep /)" ]; then
        real_make -B CC="$real_x"
        like 'Machine: *ARM$' "$(readelf -h "$T/tree/dnsproxy" 2>&1)"
        ! have qemu-arm-static || like '^dnsproxy ' "$(qemu-arm-static -L "/usr/${real_x%-gcc}" "$T/tree/dnsproxy" -V 2>&1)" version
        real_make clean
    else
        skip "not here: no ${real_x:-compiler} with libbearssl"
    fi
    promise 'systemd accepts the unit, and finds it well confined'
    make -s -C "$T/tree" PREFIX="$T" unit >"$T/dnsproxy.service"
    mkdir -p "$T/sbin"
    printf '#!/bin/sh\n' >"$T/sbin/dnsproxy"
    chmod 755 "$T/sbin/dnsproxy"
    if have systemd-analyze; then
        same '' "$(systemd-analyze --man=no verify "$T/dnsproxy.service" 2>&1 | grep dnsproxy)" 'systemd-analyze verify'
        real_x=$(systemd-analyze security --no-pager --offline=yes "$T/dnsproxy.service" 2>&1 | sed -n 's/.*exposure level for [^:]*: \([0-9.]*\).*/\1/p')
        echo "# exposure by systemd-analyze security: $real_x (10 is the worst)"
        like '^[01]\.' "$real_x" 'exposure'
    else
        skip 'systemd-analyze is missing'
    fi
}

# readme NAME: the block of README.md that is marked so
readme() { awk -v mark="<!-- test: $1 -->" '$0 == mark { on = 1; next } on == 2 && /^```/ { exit } on == 2 { print } on == 1 { on = 2 }' "$SRC/README.md"; }

leg_readme()
{
    promise 'each configuration of the README is one'
    for real_x in plain home filter tls; do
        readme "config $real_x" >"$T/readme.config"
        [ -s "$T/readme.config" ] || fail "there is no configuration $real_x"
        same '' "$("$BIN" -t -c "$T/readme.config" 2>&1 >/dev/null)" "config $real_x"
    done
    promise 'the package Makefile for OpenWrt builds and installs by the rules of its build system'
    real_o=$T/openwrt
    mkdir -p "$real_o/files" "$real_o/src" "$real_o/bearssl/inc" "$real_o/bearssl/build" "$T/rules"
    readme 'openwrt Makefile' >"$real_o/Makefile"
    readme 'openwrt init' >"$real_o/files/dnsproxy.init"
    cp -p "$SRC/Makefile" "$SRC/dnsproxy.c" "$SRC/dns.config.example" "$real_o/src/"
    if [ -n "$BEARSSL" ]; then real_x=$BEARSSL/inc real_y=$BEARSSL/build/libbearssl.a; else real_x=/usr/include real_y=$("$CC" -print-file-name=libbearssl.a); fi
    cp "$real_x"/bearssl*.h "$real_o/bearssl/inc/"
    cp "$real_y" "$real_o/bearssl/libbearssl.a"
    printf 'lib:\n\tcp libbearssl.a build/libbearssl.a\n' >"$real_o/bearssl/Makefile"
    cat >"$T/rules/rules.mk" <<'END'
CP := cp -fpR
INSTALL_DIR := install -d -m0755
INSTALL_BIN := install -m0755
INSTALL_CONF := install -m0600
END
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
    like '^dnsproxy ' "$("$T/owrt/usr/sbin/dnsproxy" -V)" version
    same 'etc/dns.config etc/init.d/dnsproxy usr/sbin/dnsproxy' "$(cd "$T/owrt" && find . -type f | sed 's|^\./||' | sort | tr '\n' ' ' | sed 's/ $//')"
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
    promise 'the container file makes an image that has all that it needs'
    readme containerfile >"$T/Containerfile"
    same 2 "$(grep -c '^FROM' "$T/Containerfile")" stages
    for real_x in $(sed -n 's/^COPY \([^-].*\) [^ ]*$/\1/p' "$T/Containerfile"); do [ -e "$SRC/$real_x" ] || fail "COPY $real_x: not in the source"; done
    like '^USER 65534' "$(cat "$T/Containerfile")"
    sed -n 's/^RUN //p; /^ /p' "$T/Containerfile" >"$T/container.sh"
    same '' "$(sh -n "$T/container.sh" 2>&1)" 'RUN lines'
    promise 'what the container file builds runs alone in its directory, as nobody'
    if [ "$(id -u)" != 0 ]; then
        skip 'not here: chroot needs root'
    elif have musl-gcc && [ -z "$BEARSSL" ]; then
        mkdir -p "$T/image/src"
        cp -p "$SRC/Makefile" "$SRC/dnsproxy.c" "$T/image/src/"
        grep -v apt-get "$T/container.sh" | sed "s|/src|$T/image/src|g; s|/out|$T/image/out|g" >"$T/image.sh"
        sh -e "$T/image.sh" >"$T/image.log" 2>&1 || fail "$(tail -n 3 "$T/image.log")"
        same 'dnsproxy etc/group etc/passwd etc/ssl/certs/ca-certificates.crt' \
            "$(cd "$T/image/out" && find . -type f | sed 's|^\./||' | sort | tr '\n' ' ' | sed 's/ $//')" files
        same '' "$(chroot --userspec=65534:65534 "$T/image/out" /dnsproxy -t '9.9.9.9 1 tls=dns.quad9.net' 2>&1 >/dev/null)" 'a configuration with tls='
        port=$(freeport) admin=$(freeport)
        chroot --userspec=65534:65534 "$T/image/out" /dnsproxy "listen 127.0.0.1@$port" "admin 127.0.0.1@$admin" '127.0.0.1@9 1' </dev/null >"$T/image.log" 2>&1 &
        ready image $!
        like '^dnsproxy ' "$(chroot --userspec=65534:65534 "$T/image/out" /dnsproxy "admin 127.0.0.1@$admin" '127.0.0.1@9 1' -a status)" 'health check'
        stop image
    else
        skip 'musl-gcc is missing, or BearSSL is not the system'"'"'s'
    fi
    promise 'the Kubernetes files are YAML, and their configurations are right'
    real_py=
    for real_x in /usr/bin/python3 python3; do
        [ -n "$real_py" ] || ! "$real_x" -c 'import yaml' 2>/dev/null || real_py=$real_x
    done
    if [ -n "$real_py" ]; then
        { readme 'kubernetes sidecar'; echo ---; readme 'kubernetes daemonset'; } >"$T/kube.yaml"
        "$real_py" - "$T/kube.yaml" "$T/kube" >"$T/kube.out" 2>&1 <<'END'
import sys, yaml
n = 0
for d in yaml.safe_load_all(open(sys.argv[1])):
    assert {'apiVersion', 'kind', 'metadata'} <= set(d), d
    print(d['kind'])
    lines = None
    if d['kind'] == 'ConfigMap':
        lines = d['data']['dns.config']
    elif d['kind'] == 'Pod':
        lines = '\n'.join(next(c for c in d['spec']['containers'] if c['name'] == 'dnsproxy')['args']) + '\n'
    else:
        t = d['spec']['template']
        assert d['spec']['selector']['matchLabels'] == t['metadata']['labels']
        for c in t['spec']['containers']:
            assert {m['name'] for m in c['volumeMounts']} <= {v['name'] for v in t['spec']['volumes']}
    if lines:
        n += 1
        open('%s.%d' % (sys.argv[2], n), 'w').write(lines)
END
        same 0 $? "$(cat "$T/kube.out")"
        same 'Pod ConfigMap DaemonSet' "$(tr '\n' ' ' <"$T/kube.out" | sed 's/ $//')"
        for real_x in 1 2; do same '' "$("$BIN" -t -c "$T/kube.$real_x" 2>&1 >/dev/null)" "configuration $real_x"; done
    else
        skip 'python3-yaml is missing'
    fi
    promise 'the shell commands of the README are shell'
    for real_x in build tests bench pin cross; do
        readme "$real_x" >"$T/readme.sh"
        [ -s "$T/readme.sh" ] || fail "there is no command $real_x"
        same '' "$(sh -n "$T/readme.sh" 2>&1)" "command $real_x"
    done
    promise 'the first command of the README builds and serves queries as it stands (what it installs is checked below)'
    real_t=$T/readme.tree
    mkdir -p "$T/fake" "$real_t"
    printf '#!/bin/sh\necho "$@" >>"%s/apt.log"\n' "$T" >"$T/fake/apt-get"
    printf '#!/bin/sh\necho ran >>"%s/tests.log"\n' "$T" >"$real_t/test.sh"
    chmod 755 "$T/fake/apt-get" "$real_t/test.sh"
    cp -p "$SRC/Makefile" "$SRC/dnsproxy.c" "$real_t/"
    if [ "$(id -u)" = 0 ] && netns; then
        readme build >"$T/readme.sh"
        (cd "$real_t" && export CC CFLAGS BEARSSL && PATH=$T/fake:$PATH exec $NS sh "$T/readme.sh") </dev/null >"$T/readme.log" 2>&1 &
        port=5300 admin=5353
        started readme $!
        await 120 logged readme 'descriptors:' || fail 'it does not start'
        ready readme "$(pid readme)"
        real_x=$(ns sh -c "$(sed -n 's/^\(kdig .*-p 5300.*\)/\1 +retry=0 +timeout=8/p' "$SRC/README.md")" 2>&1)
        like 'status: (NOERROR|SERVFAIL)' "$real_x" 'the kdig command below it'
        like '^dnsproxy .* queries [1-9]' "$(cd "$real_t" && ns ./dnsproxy -a status)" '-a status'
        kill "$(pgrep -P "$(pid readme)" -x dnsproxy)" 2>/dev/null || fail 'dnsproxy is not what runs there'
        await 5 logged readme '^stopped$' || fail 'it does not stop'
    else
        skip 'not here: not root, or namespaces are not allowed'
    fi
    judge
    reap
    promise 'the second command of the README installs and runs the tests'
    readme tests >"$T/readme.sh"
    (cd "$real_t" && PATH=$T/fake:$PATH sh "$T/readme.sh") >"$T/readme.log" 2>&1 || fail "$(tail -n 3 "$T/readme.log")"
    same ran "$(cat "$T/tests.log" 2>&1)"
    promise 'every package that the README installs is one of Debian, and gives all the programs that the tests ask for'
    real_x=$(for real_y in build tests bench cross; do
        readme "$real_y" | grep -o 'apt-get install [^&|]*' | tr ' ' '\n' | sed '1,2d; /^-/d; /^$/d; s/:.*//'
    done | sort -u)
    if have apt-cache dpkg-query && [ -n "$(apt-cache policy libbearssl-dev 2>/dev/null | grep 'Candidate: [0-9]')" ]; then
        # shellcheck disable=SC2086
        apt-cache policy $real_x >"$T/apt.policy" 2>/dev/null
        for real_y in $real_x; do
            grep -A 2 "^$real_y:" "$T/apt.policy" | grep -q 'Candidate: [0-9]' || fail "there is no package $real_y"
        done
        grep -oE '(^|[^-a-z])have( [a-z][a-z0-9.-]+)+' "$SRC/test.sh" | sed 's/.*have//' | tr ' ' '\n' | sort -u | while read -r real_y; do
            real_f=$(command -v "$real_y") && [ -f "$real_f" ] && printf '%s\n' "$real_f" "${real_f#/usr}" "$(readlink -f "$real_f")"
        done | sort -u >"$T/apt.files"
        xargs dpkg-query -S <"$T/apt.files" 2>/dev/null | sed 's/:.* / /' | sort -u >"$T/apt.owners"
        # shellcheck disable=SC2016
        sed 's/ .*//' "$T/apt.owners" | sort -u | xargs dpkg-query -W -f '${Package} ${Essential} ${Priority}\n' | sed -n 's/ yes .*//p; s/ .*required//p; s/ .*important//p' >"$T/apt.basic"
        while read -r real_p real_f; do
            printf '%s\n' "$real_x" | cat - "$T/apt.basic" | grep -qx -e "$real_p" -e "${real_p%-[0-9]*}" && continue
            # the other name of the same program may be of a package that is installed
            real_n=no
            while read -r real_y real_g; do
                [ "$(readlink -f "$real_g")" = "$(readlink -f "$real_f")" ] && printf '%s\n' "$real_x" | grep -qx "$real_y" && real_n=yes
            done <"$T/apt.owners"
            [ $real_n = yes ] || fail "$real_f is of $real_p, which no command installs"
        done <"$T/apt.owners"
    else
        skip 'not here: this is not Debian, or apt-get update was never run'
    fi
    promise 'the pin of the README is the pin that the program takes'
    if have openssl; then
        real_cert pin.test
        real_x=$(openssl x509 -in "$T/pin.test.pem" -pubkey -noout | openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64)
        same '' "$("$BIN" -t "127.0.0.1 1 tls pin=$real_x" 2>&1 >/dev/null)"
    else
        skip 'openssl is missing'
    fi
}

# ---- Documents that agree with the program

# Each doc_ prints one line for a directive: name, argument, default, with tabs between.
# The program's own table, by --help
doc_program()
{
    "$BIN" --help | awk '
        on && /^  [a-z]/ { name = $1; arg = $0; sub(/^  [^ ]+ /, "", arg) }
        on && /^      / { d = $0; if (!sub(/.*\(default /, "", d)) sub(/.*; default /, "", d); sub(/\)$/, "", d); print name "\t" arg "\t" d }
        /^directives/ { on = 1 }'
}

# The manual: .It Ic NAME Ar ARGUMENT, and the default in the last sentence.
doc_manual()
{
    awk '
        function out() { if (name != "") { sub(/.*The default is */, "", text); sub(/\.$/, "", text); print name "\t" arg "\t" text } name = "" }
        /^\.S[sh] / { out(); on = $2 == "Directives" }
        on && /^\.It Ic/ { out(); name = $3; arg = $0; sub(/.* Ar /, "", arg); text = ""; next }
        on && /^\.El/ { out() }
        name != "" { text = text " " $0 }
    ' "$SRC/dnsproxy.8"
}

# The example: #NAME DEFAULT
doc_example() { sed -n '/^# ---- Directives/,$s/^#\([a-z][a-z-]*\) \(.*\)$/\1\t\2/p' "$SRC/dns.config.example"; }

# The commands of the admin port, by the manual and by `help`: words and arguments
doc_commands() { sed -n '/^\.Sh ADMIN PROTOCOL/,/^\.Ss Status/s/^\.It Ic //p' "$SRC/dnsproxy.8" | sed '/^GET /d; s/ Op Ar \([A-Z]*\)/ [\1]/; s/ Ar / /'; }

# The metrics, by the manual: .It Li NAME
doc_metrics() { sed -n '/^\.Ss Metrics/,/^\.Sh/s/^\.It Li \([a-z_]*\).*/\1/p' "$SRC/dnsproxy.8"; }

# The ranges, by the manual: "From N to M." in the entry of a directive
doc_ranges() { sed -n '/^\.Ss Directives/,/^\.El/p' "$SRC/dnsproxy.8" | awk '/^\.It Ic/ { n = $3 } /^From [0-9]+ to [0-9]+\.$/ { print n, $2, $4 + 0 }'; }

# doc_many N LINE: N lines like LINE, in which # is the number
doc_many()
{
    doc_i=0
    while [ $doc_i -lt "$1" ]; do
        doc_i=$((doc_i + 1))
        printf '%s\n' "$2" | sed "s/#/$doc_i/g"
    done
}

# doc_limit WORD LINE: the manual, under LIMITS, says how many of WORD there may be; LINE makes one of them
doc_limit()
{
    doc_n=$(sed -n '/^\.Sh LIMITS/,/^\.Sh/p' "$SRC/dnsproxy.8" | sed -n "s/^\\([0-9]*\\) $1\$/\\1/p")
    [ -n "$doc_n" ] || { fail "the manual does not limit $1"; return; }
    for doc_k in 0 1; do
        { if [ "$1" = upstreams ]; then echo 'listen 127.0.0.1'; else echo '127.0.0.1@9 1'; fi; doc_many $((doc_n + doc_k)) "$2"; } >"$T/doc.config"
        doc_x=$("$BIN" -t -c "$T/doc.config" 2>&1 >/dev/null)
        if [ $doc_k = 0 ]; then same '' "$doc_x" "$doc_n $1"; else like 'expected at most|at most|fewer' "$doc_x" "one more than $doc_n $1"; fi
    done
}
doc_limits()
{
    doc_limit upstreams '192.0.2.# 1'
    doc_limit 'listen addresses' 'listen 192.0.2.#'
    doc_limit 'allow networks' 'allow 192.0.2.#'
    real_x='AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='
    same '' "$("$BIN" -t "127.0.0.1 1 tls pin=$real_x pin=$real_x pin=$real_x pin=$real_x" 2>&1 >/dev/null)" '4 pins'
    like 'at most 4 pins' "$("$BIN" -t "127.0.0.1 1 tls pin=$real_x pin=$real_x pin=$real_x pin=$real_x pin=$real_x" 2>&1 >/dev/null)" '5 pins'
}

leg_docs()
{
    promise 'mandoc finds nothing in the man page'
    if have mandoc; then
        same '' "$(mandoc -Tlint "$SRC/dnsproxy.8" 2>&1 | grep -vE 'mandoc\.db|referenced manual not found')"
    else
        skip 'mandoc is missing'
    fi
    promise 'shellcheck finds nothing in the scripts'
    if have shellcheck; then
        same '' "$(shellcheck -S warning "$SRC/test.sh" "$SRC/.ci/run" 2>&1 | head -n 20)"
    else
        skip 'shellcheck is missing'
    fi
    promise 'the table of contents of dnsproxy.c is that of its sections'
    sed -n '1,/\*\//s/^ \*  *\([0-9][0-9]*\) \([^ ].*[^ ]\)   *[^ ].*$/\1 \2/p' "$SRC/dnsproxy.c" >"$T/contents"
    sed -n 's|^/\* ---- \([0-9][0-9]* .*[^ -]\) -*[- ]*\*/$|\1|p' "$SRC/dnsproxy.c" >"$T/sections"
    [ -s "$T/contents" ] || fail 'there is no table of contents'
    same "$(cat "$T/contents")" "$(cat "$T/sections")"
    promise 'directives, their arguments and defaults: the manual says what the program does'
    doc_program >"$T/doc.program"
    [ "$(wc -l <"$T/doc.program")" -gt 10 ] || fail '--help lists no directives'
    doc_manual >"$T/doc.manual"
    same '' "$(diff "$T/doc.program" "$T/doc.manual" 2>&1)" 'diff of program and manual'
    promise 'ranges: the least and the greatest value of the manual are taken, what lies beyond is not'
    doc_ranges >"$T/doc.ranges"
    [ "$(wc -l <"$T/doc.ranges")" -ge 9 ] || fail "only these ranges: $(cat "$T/doc.ranges")"
    while read -r real_n real_lo real_hi; do
        for real_x in "$real_lo" "$real_hi"; do
            same '' "$("$BIN" -t '127.0.0.1@9 1' 'cache-max-ttl 604800' "$real_n $real_x" 2>&1 >/dev/null)" "$real_n $real_x"
        done
        for real_x in $((real_lo - 1)) $((real_hi + 1)); do
            like "$real_n: .* expected " "$("$BIN" -t '127.0.0.1@9 1' "$real_n $real_x" 2>&1 >/dev/null)" "$real_n $real_x"
        done
    done <"$T/doc.ranges"
    promise 'limits: as many upstreams, addresses, networks, pins and domains as the manual says are taken, one more is not'
    doc_limits
    promise 'dns.config.example shows every directive with its default'
    awk -F '\t' '{ print $1 "\t" ($1 == "ca-file" ? "/etc/ssl/certs/ca-certificates.crt" : $3) }' "$T/doc.program" >"$T/doc.want"
    doc_example >"$T/doc.example"
    same '' "$(diff "$T/doc.want" "$T/doc.example" 2>&1)" 'diff of program and example'
    promise 'the example without its comment signs means what it means with them'
    sed '/^# ---- Directives/,$s/^#\([a-z]\)/\1/' "$SRC/dns.config.example" >"$T/doc.config"
    real_x=$("$BIN" -t -c "$SRC/dns.config.example" 2>&1)
    same 0 $? "dns.config.example: $real_x"
    same "$(printf '%s\n' "$real_x" | grep -v '^ca-file')" "$("$BIN" -t -c "$T/doc.config" 2>&1 | grep -v '^ca-file')"
    promise 'every upstream of the example is one'
    sed 's/^#\([0-9]\)/\1/' "$SRC/dns.config.example" | grep '^[0-9]' | sort -u >"$T/doc.config"
    same '' "$("$BIN" -t -c "$T/doc.config" 2>&1 >/dev/null)"
    promise 'every configuration among the examples of the manual is one'
    awk -v out="$T/doc.ex" '/^\.Sh/ { on = $2 == "EXAMPLES" } on && /^\.Bd/ { n++ } on && /^[0-9]/ { print >(out n) }' "$SRC/dnsproxy.8"
    [ -s "$T/doc.ex1" ] && [ -s "$T/doc.ex2" ] || fail 'there are none'
    for real_x in "$T"/doc.ex[0-9]; do same '' "$("$BIN" -t -c "$real_x" 2>&1 >/dev/null)"; done
    promise 'options: the manual and --help name the same'
    same "$("$BIN" --help | grep -oE -- '--[a-z]+' | sort -u)" "$(sed -n 's/^\.It Fl . , Fl Fl \([a-z]*\).*/--\1/p' "$SRC/dnsproxy.8" | sort -u)"
    proxy front '127.0.0.1@9 1' '127.0.0.1@10 1 tls noverify'
    promise 'commands of the admin port: the manual says what help says'
    adm help | sed 's/ - .*//' >"$T/doc.help"
    doc_commands >"$T/doc.commands"
    same '' "$(diff "$T/doc.help" "$T/doc.commands" 2>&1)" 'diff of help and manual'
    promise 'metrics: the manual names all that are served, and no other'
    printf 'GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n' | timeout 10 nc.openbsd 127.0.0.1 "$admin" >"$T/doc.http"
    sed -n 's/^# TYPE \([a-z_]*\) .*/\1/p' "$T/doc.http" | sort >"$T/doc.served"
    doc_metrics | sort >"$T/doc.metrics"
    [ -s "$T/doc.served" ] || fail 'no metrics are served'
    same '' "$(diff "$T/doc.served" "$T/doc.metrics" 2>&1)" 'diff of program and manual'
    promise 'status: the manual shows every field in its order'
    real_m=$(sed -n '/^\.Ss Status/,/^\.Ss Metrics/p' "$SRC/dnsproxy.8")
    for real_x in dnsproxy upstream cache; do
        same "$(adm status | sed -n "/^$real_x /{p;q;}" | tr ' ' '\n' | grep -xE '[a-z_]+' | grep -vxE 'udp|up|down' | tr '\n' ' ')" \
            "$(printf '%s\n' "$real_m" | sed -n "/^$real_x /,/^[^ ]/{/^$real_x /p;/^ /p;}" | tr ' []' '\n\n\n' | grep -xE '[a-z_]+' | grep -vxE 'connects|resumed' | tr '\n' ' ')" "fields of $real_x"
    done
    promise 'status: the example of the README has every field in its order'
    for real_x in dnsproxy 'upstream .* tls' cache; do
        same "$(adm status | grep -m 1 "^$real_x " | sed 's/ [^a-z ][^ ]*//g')" "$(grep -m 1 "^$real_x .* [0-9]" "$SRC/README.md" | sed 's/ [^a-z ][^ ]*//g')" "fields of $real_x"
    done
    stop front
}

# ---- Main --------------------------------------------------------------

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
