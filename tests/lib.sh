# lib.sh - promises, processes, ports, waiting for events, the scripted peers.
# Every chapter uses it; test.sh reads it first. A promise is one line, or a row of a table, and what follows it:
#     promise TEXT ... same, like, unlike, within, says, saw; replies, tried read rows
#     up, dot, proxy start a scripted upstream, one over TLS, the program; what is started again under a name replaces the first
#     await waits for an event; skip and needs say why something cannot be shown here

port='' admin=''                # of the proxy started or chosen last
passed=0 failed=0 skipped=0
promise_text='' why="$T/.why" skipwhy=''

trap 'finish $?' EXIT
trap 'exit 143' HUP INT TERM

# The last act: everything started is stopped, the directory goes (KEEP=1 leaves it).
finish() {
    trap - EXIT HUP INT TERM
    [ -z "${pids:-}" ] || { kill $pids 2>/dev/null; wait $pids; }
    reap
    if [ "$T" != "$ROOT" ]; then exit "$1"; fi
    if [ -n "${KEEP:-}" ]; then echo "# kept: $T"; else rm -rf "$T"; fi
    exit "$1"
}

# ---- Promises

# promise TEXT: judges the one before, starts the next.
promise() {
    judge
    promise_text=$1 skipwhy=''
}

# judge: prints what became of the current promise.
judge() {
    [ -n "$promise_text" ] || [ ! -s "$why" ] || promise_text='what is made ready before a promise'
    [ -n "$promise_text" ] || return 0
    case ${CI:-}:$skipwhy in
    true:'not here:'* | true:) ;;
    true:*) fail "skipped, and CI skips nothing: $skipwhy" ;;
    esac
    judge_n=$((passed + failed + skipped + 1))
    if [ -s "$why" ]; then
        failed=$((failed + 1))
        printf 'not ok %s - %s\n' "$judge_n" "$promise_text"
        sed 's/^/    /' "$why"
        tails
        printf '%s: %s\n' "$legnow" "$promise_text" >>"$ROOT/.failed"
    elif [ -n "$skipwhy" ]; then
        skipped=$((skipped + 1))
        printf 'ok %s - %s # SKIP %s\n' "$judge_n" "$promise_text" "$skipwhy"
    else
        passed=$((passed + 1))
        printf 'ok %s - %s\n' "$judge_n" "$promise_text"
    fi
    promise_text=''
    : >"$why"
}

# tails: the last lines of the logs of what runs or ran in this leg; of the servers of a table, those that the failure names
tails() {
    for tails_f in "$T"/*.log "$T"/*.q; do
        [ -s "$tails_f" ] || continue
        case $tails_f in */s[0-9]*) tails_n=${tails_f%.*} && grep -qw -e "${tails_n##*/}" "$why" || continue ;; esac
        echo "    --- ${tails_f##*/}"
        tail -n 8 "$tails_f" | cut -c 1-300 | sed 's/^/    /'
    done
}

fail() { printf '%s\n' "$*" >>"$why"; }
skip() { skipwhy=$*; }

# same WANT GOT [WHAT]
same() {
    [ "$1" = "$2" ] || fail "${3:+$3: }wanted [$1], got [$2]"
}

# like ERE TEXT [WHAT], unlike ERE TEXT [WHAT]: any line of TEXT may match
like() {
    printf '%s\n' "$2" | grep -Eq -e "$1" || fail "${3:+$3: }wanted /$1/, got [$2]"
}
unlike() {
    ! printf '%s\n' "$2" | grep -Eq -e "$1" || fail "${3:+$3: }wanted nothing like /$1/, got [$2]"
}

# within LOW HIGH GOT [WHAT]: LOW <= GOT <= HIGH, whole numbers; if WHAT speaks of ms, SLOW makes HIGH higher
within() {
    case " ${4:-} " in *[!a-z]ms[!a-z]*) set -- "$1" $(($2 * SLOW)) "$3" "$4" ;; esac
    case $3 in
    '' | *[!0-9-]*) fail "${4:+$4: }wanted $1 to $2, got [$3]" ;;
    *) { [ "$3" -ge "$1" ] && [ "$3" -le "$2" ]; } || fail "${4:+$4: }wanted $1 to $2, got $3" ;;
    esac
}

# have COMMAND...: all of them are there;  needs COMMAND...: the same, and if not the promise is skipped for that reason
have() {
    for have_c; do command -v "$have_c" >/dev/null 2>&1 || return 1; done
}
needs() {
    needs_m=''
    for needs_c; do have "$needs_c" || needs_m="$needs_m $needs_c"; done
    [ -z "$needs_m" ] || { skip "missing:$needs_m"; return 1; }
}

# ---- Processes

# started NAME PID: remembers a process, so that it ends with the leg. Its output belongs in $T/NAME.log.
started() { echo "$2" >"$T/$1.pid"; }

# begin NAME COMMAND...: starts it in place of the one of that name, in the namespace if there is one; what it says goes to $T/NAME.log
begin() {
    begin_n=$1
    shift
    kill_pid "$begin_n"
    : >"$T/$begin_n.log"
    $NS "$@" </dev/null >"$T/$begin_n.log" 2>&1 &
    started "$begin_n" $!
}

# pid NAME: its process id
pid() { cat "$T/$1.pid"; }

# kill_pid NAME [SIGNAL]: ends it without a word
kill_pid() {
    [ -s "$T/$1.pid" ] || return 0
    kill_p=$(pid "$1")
    kill -CONT "$kill_p" 2>/dev/null
    kill -"${2:-KILL}" "$kill_p" 2>/dev/null
    wait "$kill_p" 2>/dev/null
    rm -f "$T/$1.pid"
    return 0
}

# meanwhile NAME COMMAND...: in the background, what it prints goes to $T/NAME.out
# underway NAME UPSTREAM ERE COMMAND...: the same, and the upstream has seen such a query
# ended NAME [ERE]: it has ended, and what it printed, which is then in $out, matches
meanwhile() {
    meanwhile_n=$1
    shift
    "$@" >"$T/$meanwhile_n.out" &
    echo $! >"$T/$meanwhile_n.job"
}
underway() {
    underway_n=$1 underway_u=$2 underway_e=$3
    shift 3
    meanwhile "$underway_n" "$@"
    comes "$underway_u" "$underway_e"
}
ended() {
    wait "$(cat "$T/$1.job")"
    out=$(cat "$T/$1.out")
    [ $# = 1 ] || like "$2" "$out" "$1"
}

# reap [NAME...]: ends everything else that was started and still runs; the program in the way that `stop` judges, while others are there
# shellcheck disable=SC2120
reap() {
    for reap_f in "$T"/*.admin "$T"/*.pid; do
        reap_n=${reap_f##*/}
        reap_n=${reap_n%.*}
        case " $* " in *" $reap_n "*) continue ;; esac
        if [ -s "$T/$reap_n.pid" ] && [ -e "$T/$reap_n.admin" ]; then stop "$reap_n"; else kill_pid "$reap_n"; fi
    done
    NS=''
}

# await SECONDS CMD...: runs CMD every 20 ms until it is true; false at the deadline
await() {
    await_end=$(($(date +%s) + $1 * SLOW + 1))
    shift
    until "$@"; do
        [ "$(date +%s)" -lt "$await_end" ] || return 1
        sleep 0.02
    done
}

# seen NAME [ERE]: how many queries the upstream NAME has seen, or how many lines like this the record of NAME has: the events of an
# upstream, the log of anything else;  sees NAME ERE [N]: at least N (one, if not said);  comes NAME ERE [N]: so within five seconds
# forget NAME...: the upstream starts counting anew
seen() {
    seen_f=$T/$1.q
    [ -e "$seen_f" ] || seen_f=$T/$1.log
    grep -Ec -e "${2:- id=}" "$seen_f"
}
sees() { [ "$(seen "$1" "$2")" -ge "${3:-1}" ]; }
comes() { await 5 sees "$@" || fail "nothing like /$2/ comes at $1"; }
forget() { for forget_n; do : >"$T/$forget_n.q"; done; }

# saw N ERE NAME...: so many (like 2 or 1-3) are there of each
saw() {
    saw_r=$1 saw_e=$2
    shift 2
    for saw_n; do within "${saw_r%-*}" "${saw_r#*-}" "$(seen "$saw_n" "$saw_e")" "lines of $saw_n like /$saw_e/"; done
}

# costs N ERE 'NAME...' COMMAND...: so many does the command make each of these upstreams see
costs() {
    costs_r=$1 costs_e=$2 costs_u=$3
    shift 3
    forget $costs_u
    "$@" >/dev/null
    saw "$costs_r" "$costs_e" $costs_u
}

# shows [N] ERE: status has (N) such lines
shows() {
    if [ $# = 1 ]; then like "$1" "$(adm status)" status; else same "$1" "$(adm status | grep -Ec -e "$2")" "lines of status like /$2/"; fi
}

# is WANT CMD...: it prints that, as in `await 5 is 0 count inflight`
is() {
    is_w=$1
    shift
    [ "$("$@")" = "$is_w" ]
}

# peer WORD...: the other side (tests/peer.c), in the namespace if there is one
peer() { $NS "$ROOT/peer" "$@"; }

freeport() { peer freeport; }

# netns: from here to the end of the leg everything runs in a network namespace of its own, where `ns CMD` runs a command. If that
# is not allowed here the promise is skipped. (Only for root: in a user namespace the program would take itself for root.)
netns() {
    needs unshare nsenter ip || return 1
    [ "$(id -u)" = 0 ] || { skip "not here: a network namespace needs root"; return 1; }
    netns_o=$(unshare -n true 2>&1) || { skip "not here: $netns_o"; return 1; }
    netns_new netns && NS="nsenter -t $(pid netns) -n" && ns ip link set lo up
}
# netns_new NAME: one more, which is that of the process NAME
netns_new() {
    unshare -n sleep 1000 &
    started "$1" $!
    await 5 netns_other $!
}
netns_other() { [ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
ns() { $NS "$@"; }

# compile OUT SOURCE [FLAG...]: a program of this tree;  build OUT [FLAG...]: dnsproxy.c
compile() {
    compile_o=$1 compile_s=$SRC/$2
    shift 2
    if [ -n "$BEARSSL" ]; then set -- "$@" -I"$BEARSSL/inc" "$compile_s" "$BEARSSL/build/libbearssl.a"; else set -- "$@" "$compile_s" -lbearssl; fi
    "$CC" -std=c11 -o "$compile_o" "$@" ${LDLIBS:-}
}
build() {
    build_o=$1
    shift
    compile "$build_o" dnsproxy.c $CFLAGS "$@"
}

# proxy NAME [OPTION...] LINE...: starts the program with each LINE as an argument, on free ports unless the lines have
# their own, and waits until it serves. Sets port and admin.
proxy() {
    proxy_n=$1
    shift
    port=$(printf '%s\n' "$@" | sed -n 's/^listen .*@//p' | head -n 1)
    admin=$(printf '%s\n' "$@" | sed -n 's/^admin \(off\).*/\1/p; s/^admin .*@//p' | head -n 1)
    if [ -z "$port" ]; then
        port=$(freeport)
        set -- "$@" "listen 127.0.0.1@$port"
    fi
    if [ -z "$admin" ]; then
        admin=$(freeport)
        set -- "$@" "admin 127.0.0.1@$admin"
    fi
    launch "$proxy_n" $WRAP "$BIN" "$@"
}

# gone PID: it has ended (a zombie has).  listens PID PORT SECONDS: waits until TCP connects there; false at the deadline, or when PID is gone
gone() { ! kill -0 "$1" 2>/dev/null || grep -q ') [ZX] ' "/proc/$1/stat" 2>/dev/null; }
listens() { await "$3" eval "connects 127.0.0.1 $2 || connects ::1 $2 || gone $1" && ! gone "$1"; }
connects() { peer talk "$1" "$2" >/dev/null; }

# launch NAME COMMAND...: starts the program by a command of its own, with $port and $admin known, and waits until it serves
launch() {
    [ ! -s "$T/$1.pid" ] || stop "$1"
    begin "$@"
    echo "$port $admin" >"$T/$1.admin"
    listens $! "$port" 5 || fail "$1 does not serve at port $port"
    case $admin in '' | off) ;; *) listens $! "$admin" 1 || true ;; esac       # it is bound right after
}

# use NAME: port and admin are those of NAME again
use() { read -r port admin <"$T/$1.admin"; }

# stop NAME: SIGTERM, and it must exit 0
stop() {
    [ -s "$T/$1.pid" ] || { fail "$1 is not running"; return; }
    stop_p=$(pid "$1")
    kill -TERM "$stop_p" 2>/dev/null
    if await 10 gone "$stop_p"; then
        wait "$stop_p" 2>/dev/null
        same 0 $? "exit status of $1"
        rm -f "$T/$1.pid"
    else
        fail "$1 did not stop within 10 s"
        kill_pid "$1"
    fi
    same '' "$(grep -Em 5 'runtime error:|Sanitizer|^==[0-9]+== [A-Z]' "$T/$1.log" 2>/dev/null)" "what a sanitizer says of $1"
}

# after COMMANDS NAME LINE...: as proxy, in a shell that has run these commands before
after() {
    after_w=$WRAP
    echo "$1 && exec \"\$@\"" >"$T/$2.after"
    shift
    WRAP="sh $T/$1.after $WRAP"
    proxy "$@"
    WRAP=$after_w
}

# exits STATUS ERE WORD...: the program with these arguments ends so, and what it prints, then in $out, matches
exits() {
    exits_s=$1 exits_e=$2
    shift 2
    out=$(timeout $((10 * SLOW)) $WRAP "$BIN" "$@" 2>&1 </dev/null)
    same "$exits_s" $? "exit status, $*"
    like "$exits_e" "$out" "$*"
}

# adm COMMAND: one line to the admin port, prints the reply
adm() { peer talk 127.0.0.1 "$admin" "text=$1\n" slurp=20000; }

# ---- The scripted upstream and the client (tests/peer_server.h and tests/peer.c say what they take)

# up NAME [WORD...] [RULE...]: starts the scripted upstream; addr= and on= are its address and port, other words as in peer_server.h, and
# a RULE has a blank. The variable NAME becomes ADDRESS@PORT. Its number is that at the end of NAME.
up() {
    up_n=$1 up_a=127.0.0.1 up_p=0 up_w=${1##*[!0-9]}
    up_w=${up_w:+number=$up_w}
    shift
    while :; do
        case ${1:-' '} in
        *' '*) break ;;
        addr=*) up_a=${1#addr=} ;;
        on=*) up_p=${1#on=} ;;
        *) up_w="$up_w $1" ;;
        esac
        shift
    done
    rules "$up_n" "$@"
    : >"$T/$up_n.q"
    begin "$up_n" "$ROOT/peer" up "$up_a" "$up_p" $up_w log="$T/$up_n.q" rules="$T/$up_n.rules"
    await 5 grep -q '^ready' "$T/$up_n.log" || fail "the upstream $up_n does not start: $(cat "$T/$up_n.log")"
    eval "$up_n=\$(at $up_n)"
}

# at NAME: the ADDRESS@PORT of an upstream
at() { sed -n 's/^ready //p' "$T/$1.log"; }

# ups NAME...: several of them, without rules
ups() { for ups_n; do up "$ups_n"; done; }

# rules NAME [RULE...]: from now on these are the rules of the upstream NAME
rules() {
    rules_n=$1
    shift
    printf '%s\n' "$@" >"$T/.rules"
    mv "$T/.rules" "$T/$rules_n.rules"
}

# ask NAME [TYPE] [+OPTION...]: the test client, by default at 127.0.0.1 and $port;  asks NAME...: just asks them, one by one
ask() { peer ask 127.0.0.1 "$port" "$@"; }
asks() { for asks_n; do ask "$asks_n" >/dev/null; done; }

# sound REPLY: it is no malformed one, and none to another question
sound() { unlike 'MALFORMED|WRONG|too-many' "$1"; }

# hears ERE WORD...: the reply to `ask WORD...` matches, as in `await 5 hears '^NOERROR' back.test`
hears() {
    hears_e=$1
    shift
    ask "$@" | grep -Eq -e "$hears_e"
}

# says N|ERE [ms:RANGE] [ttl:RANGE] WORD...: the reply to `ask WORD...`, which is then in $out, has the address of the upstream
# uN, 192.0.2.N, or matches where N is an ERE, took so many milliseconds, and lives so long
says() {
    says_a=$1 says_k=''
    shift
    while case $1 in ms:* | ttl:*) ;; *) false ;; esac; do
        says_k="$says_k $1"
        shift
    done
    out=$(ask "$@")
    sound "$out"
    case $says_a in
    [1-9]) same "192.0.2.$says_a" "$(addresses "$out")" "ask $*: $out" ;;
    *) like "$says_a" "$out" "ask $*" ;;
    esac
    for says_r in $says_k; do
        says_l=${says_r#*:}
        within "${says_l%-*}" "${says_l#*-}" "$("${says_r%%:*}_of" "$out")" "${says_r%%:*} of ask $*"
    done
}

# replies [COMMAND]: each line PROMISE ; WANT ; WORDS of standard input says what `COMMAND WORDS` prints (COMMAND is ask if not
# said). WANT is an ERE, with ! before it one that does not match; or @ and what `says` takes; or # and how many times u1 has seen
# the question by then. With several WORDS, a | between them, all do so. A line PROMISE ; WORDS is a command that judges by itself,
# or does what the next lines need, which are left out when it skips. A line without PROMISE belongs to the promise before it. The
# shell expands WORDS. A ; ends a part, in quotes too.
replies() {
    sed 's/ *; */;/g' >"$T/.rows"
    while IFS=';' read -r row_p row_e row_w; do
        [ -z "$row_p" ] || promise "$row_p"
        [ -z "$skipwhy" ] || continue
        [ -n "$row_e" ] && [ -n "$row_w" ] || { eval "$row_e$row_w"; continue; }
        row_w="$row_w | "
        while [ -n "$row_w" ]; do
            reply "${1:-ask}" "${row_w%%" | "*}"
            row_w=${row_w#*" | "}
        done
    done <"$T/.rows"
}
reply() {
    case $row_e in
    @*) eval "says ${row_e#@} $2"; return ;;
    esac
    eval "row_o=\$($1 $2)"
    sound "$row_o"
    case $row_e in
    '#'*) same "${row_e#?}" "$(grep -cF " ${2%% *}. " "$T/u1.q")" "queries at u1, $2" ;;
    !*) unlike "${row_e#!}" "$row_o" "$2" ;;
    *) like "$row_e" "$row_o" "$2" ;;
    esac
}

# each COMMAND VALUE...: the command, once for each VALUE, which it finds in $it
each() {
    each_c=$1
    shift
    for it; do eval "$each_c"; done
}

# many [WORD...]: mass queries;  talk [WORD...]: a scripted TCP connection;  flood kind=KIND [WORD...]: messages of chance
many() { peer many 127.0.0.1 "$port" "$@"; }
talk() { peer talk 127.0.0.1 "$port" "$@"; }
flood() { many window=60000 rate=50000 timeout=200 vary +opt=10:0011223344556677 name=f%d.flood.test names=500 "$@"; }

# good N [in:MS] WORD...: N queries of `many WORD...`, whose words are then in $out, are all answered NOERROR, once and with what was
# asked, none later than MS
good() { all_right many "$@"; }
all_right() {
    good_c=$1 good_n=$2 good_ms=''
    shift 2
    case ${1:-} in in:*) good_ms=${1#in:}; shift ;; esac
    out=$("$good_c" n="$good_n" "$@")
    like " wrong 0 dup 0 bad 0 right $good_n failed 0 lost 0 " "$out" "$good_c n=$good_n $*"
    [ -z "$good_ms" ] || within 0 "$good_ms" "$(val slowest_ms "$out")" "slowest ms"
}

# hold NAME PORT N [WORD...]: N idle connections to 127.0.0.1, until kill_pid NAME; the log says how many are open
hold() {
    hold_n=$1 hold_p=$2 hold_c=$3
    shift 3
    begin "$hold_n" "$ROOT/peer" many 127.0.0.1 "$hold_p" hold tcp="$hold_c" "$@"
    await 8 sees "$hold_n" '^holding' || fail "$hold_n: no connections"
}

# val KEY TEXT: the word after the first `KEY=` or `KEY ` in TEXT
val() { printf ' %s\n' "$2" | sed -n "/ $1[ =]/{s/ $1[ =]\([^ ]*\).*/\n\1/;s/.*\n//p;q;}"; }

# ---- Tools -------------------------------------------------------------

# what up sets: the addresses of the upstreams
u1='' u2='' u3='' u4=''

# Figures of a process: ms of CPU, resident kB that are its own (pages of files come and go as the system likes), descriptors; 0 where
# /proc has none
cpu_ms() { awk '{ sub(/.*\) /, ""); print ($12 + $13) * 10 }' "/proc/$(pid "$1")/stat" 2>/dev/null || echo 0; }
rss_kb() { awk '/^RssAnon/ { n = $2 } END { print n + 0 }' "/proc/$(pid "$1")/status" 2>/dev/null || echo 0; }
fds_within() { [ "$(fd_count "$1")" -le "$2" ]; }
fd_count() { find "/proc/$(pid "$1")/fd" -type l 2>/dev/null | wc -l | tr -d ' '; }
proc_here() { [ -r "/proc/$$/stat" ]; }
# plain: the program runs as it is, not under an emulator and without sanitizers: memory and time are its own
plain() { [ -z "$WRAP" ] && ! grep -q __asan_init "$BIN"; }
# shim NAME: builds tests/shim.c to be that; if this program cannot be listened in on that way the promise is skipped.
# shimmed NAME LINE...: as proxy, behind that library, with which it shares the file $T/shim;  shim_count: the number there
shim() {
    plain && ldd "$BIN" 2>/dev/null | grep -q 'libc\.so' && "$CC" -O2 -DNAME="\"$1\"" -shared -fPIC -o "$T/shim.so" "$SRC/tests/shim.c" -ldl 2>/dev/null ||
        { skip "not here: nothing can come between this program and its C library"; return 1; }
    rm -f "$T/shim"
    head -c 4096 /dev/zero >"$T/shim"
    chmod 666 "$T/shim"
}
# clock SECONDS: what a program behind `shim CLOCK` takes the time for from now on
clock() { printf '%-20s' "$(($1 - $(date +%s)))" 1<>"$T/shim"; }
shim_count() { od -An -tu8 -N8 "$T/shim" | tr -d ' '; }
shimmed() { after "export SHIM=$T/shim LD_PRELOAD=$T/shim.so" "$@"; }

# limited OPTIONS NAME LINE...: as proxy, after `ulimit OPTIONS`; where that is not allowed the promise is skipped
limited() {
    { [ -z "$WRAP" ] && sh -c "ulimit $1" 2>/dev/null; } || { skip "not here: no ulimit $1"; return 1; }
    limited_o=$1
    shift
    after "ulimit $limited_o" "$@"
}

# count KEY [LINE]: a number of status, in the line that begins so, or the first;  upstream ADDR KEY: of an upstream's line
count() { val "$1" "$(adm status | grep "^${2:-dnsproxy} ")"; }
upstream() { val "$2" "$(adm status | grep -F "upstream $1 ")"; }
# pairs NAME ERE: with how many pairs of port and ID such a question came to the upstream: one sent again is the same
pairs() { grep -E -e "$2" "$T/$1.q" | sed 's/.*from=\([^ ]*\) id=\([0-9]*\) .*/\1 \2/' | sort -u | wc -l | tr -d ' '; }
# becomes SECONDS ADDR STATE: within that time the upstream is so
becomes() { await "$1" is "$3" upstream "$2" state || fail "$2 is $(upstream "$2" state), wanted $3 within $1 s"; }
# returns ADDR, answers_with ADDRESS: a fresh name is asked; true when the upstream is up, when that is the answer
returns() { ask "returns$(date +%N).test" >/dev/null; is up upstream "$1" state; }
answers_with() { [ "$(addresses "$(ask "fresh$(date +%N).test")")" = "$1" ]; }
# ms_of, ttl_of ANSWER: what says() calls by the word of a row, as in `ms:0-900`
ms_of() { val ms "$1"; }
addresses() { printf '%s\n' "$1" | tr '|' '\n' | sed -n 's/^ [^:]* A \([0-9.]*\).*/\1/p' | tr '\n' ' ' | sed 's/ $//'; }
ttl_of() { printf '%s\n' "$1" | tr '|' '\n' | sed -n '2s/^ [^ ]* \([0-9]*\) .*/\1/p'; }

# lives NAME: after an attack it is the same process, and answers 20 of 20 fresh names
lives() {
    kill -0 "$(pid "$1")" 2>/dev/null || fail "$1 has died"
    good 20 window=1 timeout=3000 name=alive%x.lives.test
}

# down NAME: the upstream NAME falls silent, and is down once it has left a few queries unanswered;  revive NAME: it answers again
down() {
    rules "$1" '. silent'
    many n=4 window=4 "name=down%d-$(date +%N).test" timeout=4000 >/dev/null
    becomes 5 "$(at "$1")" down
}
revive() {
    rules "$1"
    await 5 returns "$(at "$1")" || fail "$1 does not come back: $(adm status)"
}

# ---- DNS over TLS ------------------------------------------------------

one='' two='' last=''           # ADDRESS@PORT of the scripted TLS servers
over=''                         # https: so speaks a single one

# crt NAME WORD...: $T/pki/NAME.key, .crt (the certificate alone), .pem (what a server sends: with its chain but the root), .pin, and
# .up, what those send behind theirs that it signs. Words, where OTHER is a NAME that is there:
#   key=P-256|P-384|rsa|rsa:4096  keyof=OTHER (its key)  by=OTHER (its issuer, else self-signed)  cn=TEXT
#   san=dns:NAME,ip:ADDRESS (or DER:HEX)  names=N (so many more)  from=S to=S (relative to now)  ca[=PATHLEN]
#   eku=serverAuth,clientAuth  critical (an unknown critical extension)  badsig
#   chain=OTHER,... (what is sent behind it, instead of its chain; "," is nothing)
crt_words='key keyof by cn san names from to ca eku critical badsig chain'
crt() {
    crt_d=${crt_dir:-$T/pki} crt_n=$1
    crt_f=$crt_d/$1 crt_m=$crt_d/made/$1
    shift
    for crt_w in $crt_words; do eval "crt_$crt_w=''"; done
    for crt_w; do
        case " $crt_words " in *" ${crt_w%%=*} "*) eval "crt_${crt_w%%=*}=\${crt_w#*=}" ;; *) fail "crt: what is $crt_w?" ;; esac
    done
    mkdir -p "$crt_d/made"
    crt_config >"$crt_m.conf"
    : >"$crt_m.db"
    case $crt_key in rsa*) set -- -newkey "$crt_key" ;; *) set -- -newkey ec -pkeyopt "ec_paramgen_curve:${crt_key:-P-256}" ;; esac
    [ -z "$crt_keyof" ] || { cp "$crt_d/$crt_keyof.key" "$crt_f.key"; set -- -key "$crt_f.key"; }
    openssl req -config "$crt_m.conf" -new -nodes "$@" -keyout "$crt_f.key" -subj "/${crt_cn:+CN=$crt_cn}" -out "$crt_m.csr" 2>"$crt_m.log"
    set -- -keyfile "$crt_d/${crt_by:-$crt_n}.key"
    case $(openssl pkey -in "$2" -noout -text) in *'(384 bit'*) set -- "$@" -md sha384 ;; esac
    if [ -n "$crt_by" ]; then set -- "$@" -cert "$crt_d/$crt_by.crt"; else set -- "$@" -selfsign; fi
    openssl ca -config "$crt_m.conf" -batch -notext "$@" -in "$crt_m.csr" -out "$crt_f.crt" 2>>"$crt_m.log"
    [ -z "$crt_badsig" ] || openssl x509 -in "$crt_f.crt" -badsig -out "$crt_f.crt"
    openssl pkey -in "$crt_f.key" -pubout -outform DER | openssl dgst -sha256 -binary | base64 >"$crt_f.pin"
    cat "$crt_f.crt" ${crt_by:+"$crt_d/$crt_by.up"} >"$crt_f.pem"
    : >"$crt_f.up"
    [ -z "$crt_by" ] || cp "$crt_f.pem" "$crt_f.up"
    [ -z "$crt_chain" ] || cp "$crt_f.crt" "$crt_f.pem"
    for crt_w in $(echo "$crt_chain" | tr , ' '); do cat "$crt_d/$crt_w.crt" >>"$crt_f.pem"; done
}
crt_date() { date -u -d "@$(($(date +%s) + $1))" +%Y%m%d%H%M%SZ; }
crt_config() {
    printf '%s\n' '[req]' distinguished_name=any '[any]' commonName=optional '[ca]' default_ca=here '[here]' "database=$crt_m.db" \
        "new_certs_dir=$crt_d/made" rand_serial=yes policy=any default_md=sha256 x509_extensions=ext \
        "default_startdate=$(crt_date "${crt_from:--86400}")" "default_enddate=$(crt_date "${crt_to:-2592000}")" '[ext]'
    case $crt_ca in
    '') printf '%s\n' 'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature,keyEncipherment' ;;
    *) printf '%s\n' "basicConstraints=critical,CA:TRUE$([ "$crt_ca" = ca ] || echo ",pathlen:$crt_ca")" 'keyUsage=critical,keyCertSign,cRLSign' ;;
    esac
    [ -z "$crt_names" ] || crt_san=$(seq -s, -f 'dns:name%g.filler.test' "$crt_names")${crt_san:+,$crt_san}
    [ -z "$crt_san" ] || echo "subjectAltName=$crt_san" | sed 's/dns:/DNS:/g; s/ip:/IP:/g'
    [ -z "$crt_eku" ] || echo "extendedKeyUsage=$crt_eku"
    [ -z "$crt_critical" ] || echo 1.2.3.4=critical,DER:0500
}

# tls_ready: copies of the certificates that most legs use, which the first leg that wants them makes
tls_ready() {
    [ ! -s "$T/pki/ca.pem" ] || return 0
    have openssl || { echo "test.sh: no openssl, which makes the certificates" >&2; exit 1; }
    ! mkdir "$ROOT/pki" 2>/dev/null || { tls_certificates && : >"$ROOT/pki/.ready"; }
    await 120 test -e "$ROOT/pki/.ready" || { echo "test.sh: no certificates" >&2; exit 1; }
    [ "$T" = "$ROOT" ] || cp -R "$ROOT/pki" "$T/"
    ca="ca-file $T/pki/ca.pem"
}
tls_certificates() {
    crt_dir=$ROOT/pki
    crt root cn='Test root' ca
    crt root384 key=P-384 cn='Test root P-384' ca
    crt rootrsa key=rsa cn='Test root RSA' ca
    crt stranger cn='Strange root' ca
    crt int by=root cn='Test intermediate' ca=0
    crt intrsa by=rootrsa key=rsa cn='Test intermediate RSA' ca=0
    crt good by=int cn=dns.test san=dns:dns.test eku=serverAuth
    crt other by=root cn=other.test san=dns:other.test
    crt alone cn=dns.test san=dns:dns.test
    cat "$ROOT/pki/root.crt" "$ROOT/pki/root384.crt" "$ROOT/pki/rootrsa.crt" >"$ROOT/pki/ca.pem"
    crt_dir=''
}

# dot NAME CERT [WORD...] [: RULE...]: starts the scripted upstream over TLS with that certificate, where each RULE is a word for
# all names. Its answers have addresses made from the names, by default 10.x.x.x. WORD is as in `up`.
dot() {
    dot_n=$1 dot_w="cert=$T/pki/$2"
    for dot_k in pem key; do grep -v ^- "$T/pki/$2.$dot_k" | base64 -d >"$T/pki/$2.$dot_k.der"; done
    shift 2
    while [ $# -gt 0 ] && [ "$1" != : ]; do
        dot_w="$dot_w $1"
        shift
    done
    [ $# = 0 ] || shift
    up "$dot_n" $dot_w ". net=10 $*"
}

# turn NAME [WORD...]: from now on the TLS upstream goes by these rules, for all names
turn() {
    turn_n=$1 turn_k=$(seen "$1" '^rules')
    shift
    rules "$turn_n" ". net=10 $*"
    comes "$turn_n" '^rules' $((turn_k + 1))
}

# load [WORD...]: as many, with fresh names, one after another if no rate is said, and the addresses are checked (name=FORMAT needs %x)
load() {
    case " $* " in *' rate='*) set -- window=60000 "$@" ;; *) set -- window=1 "$@" ;; esac
    many name=n%x.load.test byname "$@"
}

# beside LABELS 'WORD...' ERE COMMAND...: while a load of names with these labels is under way at the server one, the command is run;
# then what became of the load matches
beside() {
    beside_e=$3
    underway beside one "$1" load "name=$1.n%x.test" $2
    shift 3
    "$@"
    beside_o=$out
    ended beside "$beside_e"
    out=$beside_o
}

# answered NET N [in:MS] [WORD...]: N of these are good, and all answered by the server with that net
answered() {
    answered_n=$1
    shift
    all_right load "$@"
    like " from $answered_n:$1\$" "$out" "$1 queries"
}

# ruled 'RULE...' COUNT [in:MS] [WORD...]: when the TLS server one goes by these rules, it answers that
ruled() {
    turn one $1
    shift
    answered 10 "$@"
}

# single ['RULE...' [LINE...]]: the TLS upstream one with these rules, and the proxy px that has only it, with these lines
single() {
    dot one good ${over:+alpn=h2} : ${1:-}
    [ $# = 0 ] || shift
    proxy px "$ca" "$one 1 ${over:-tls}=dns.test" "$@"
}

# row 'NAME[:CERT] [RULE...]'... [-- LINE...]: TLS upstreams with these rules, the first the best, behind them last with the
# addresses 11.x.x.x, and the proxy px that has them all
row() {
    row_n=0 row_l=''
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        row_n=$((row_n + 1)) row_s=${1%% *}
        case $row_s in *:*) row_c=${row_s#*:} ;; *) row_c=good ;; esac
        dot "${row_s%:*}" "$row_c" : ${1#"$row_s"}
        row_l="$row_l '$(at "${row_s%:*}") $row_n tls=dns.test'"
        shift
    done
    [ $# = 0 ] || shift
    dot last good : net=11
    eval "proxy px \"\$ca\" \"\$last 99 tls=dns.test\" $row_l \"\$@\""
}

# none_waited NAME: every query but the first came to the TLS server NAME at least 1 ms after its connection was up
none_waited() {
    same 0 "$(awk '$1 == "up" { up[$2] = $4 } $1 == "query" && n++ && $4 - up[$2] < 1' "$T/$1.q" | wc -l)" "queries that waited for a handshake"
}

# ere TEXT: an expression that matches it
ere() { printf %s "$1" | sed 's/[+.]/\\&/g'; }

# blamed NAME|ADDRESS ERE [N]: the log of px has a line (N lines) about that upstream which matches
blamed() {
    case $1 in *@*) blamed_a=$1 ;; *) blamed_a=$(at "$1") ;; esac
    blamed_l=$(grep -F -e "$blamed_a" "$T/px.log")
    within "${3:-1}" "${3:-9}" "$(printf '%s\n' "$blamed_l" | grep -Ec -e "$2")" "lines of px about $1 like /$2/, of [$blamed_l]"
}

# grew MOST KIB NAME: its memory is at most MOST KiB above KIB
grew() { within -99999 "$1" "$(($(rss_kb "$3") - $2))" "KiB more than $2"; }
