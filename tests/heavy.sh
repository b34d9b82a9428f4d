# heavy.sh - the long runs: sanitizers, valgrind, analysers, the static build.
# Alone: ./test.sh asan, valgrind, analyse or static

# watch_asan, watch_valgrind: where they write, one file a process, seen by the program when it is nobody too
watch_asan() {
    mkdir -p "$T/reports"
    chmod 1777 "$T/reports"
    # the program that becomes nobody may not look into itself for leaks
    export ASAN_OPTIONS="detect_leaks=0:abort_on_error=0:quarantine_size_mb=4:log_path=$T/reports/asan"
    export UBSAN_OPTIONS="print_stacktrace=1:log_path=$T/reports/ubsan"
}
watch_valgrind() {
    watch_asan
    WRAP="valgrind -q --vgdb=no --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --log-file=$T/reports/valgrind.%p"
}

# watched: the last promise of a leg that was watched
watched() {
    promise "no report up to here"
    for reports_f in "$T/reports"/*; do
        [ ! -s "$reports_f" ] || fail "$(sed -n '1,40p' "$reports_f")"
    done
}

# leg_mixed: 100,000 queries (MIXED=N), descriptors and memory as after the first tenth. Not in the default list.
leg_mixed() {
    mixed_all=${MIXED:-100000}
    up u1 '. net=10 ttl=300' 'old.soak.test noedns=1' 'full.soak.test silent'
    up u2 '. net=10 ttl=300' 'old.soak.test noedns=1' 'full.soak.test silent'
    proxy p "$u1 1" "$u2 2" 'user root' 'timeout 3000' 'cache-size 128k'
    mixed_fd=$(fd_count p)
    promise "$mixed_all queries of mixed kinds are answered, each once and rightly"
    many n=3000 window=3000 name=n%d.full.soak.test >/dev/null        # the tables have been full once
    for mixed_k in 1 9; do
        mixed $((mixed_all * mixed_k / 200)) "$mixed_k"
        loads_end
        flood n=$((mixed_all * mixed_k / 200)) kind=mutate seed="$mixed_k" >/dev/null
        flood n=$((mixed_all * mixed_k / 200)) kind=random seed="$mixed_k" >/dev/null
        [ "$mixed_k" = 9 ] || { await 20 fds_within p "$mixed_fd"; mixed_kb=$(rss_kb p); }
    done
    promise "descriptors are then as at the start, and memory as after the first tenth"
    await 20 fds_within p "$mixed_fd" || fail "$(fd_count p) descriptors, wanted $mixed_fd"
    grew $((mixed_kb / 50 + 256)) "$mixed_kb" p
    stop p
}

# asan [LEG...]: with the address and undefined-behaviour sanitizers. Memory cannot be judged there: WRAP tells the legs so.
cmd_asan() {
    [ $# -gt 0 ] || set -- $LEGS mixed
    BIN=$ROOT/dnsproxy.asan
    CFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all" \
        build "$BIN" || { echo "test.sh: no build with sanitizers" >&2; return 1; }
    WATCH=asan WRAP=env SLOW=$((SLOW * 4))
    run_legs "$@"
}

# valgrind [LEG...]: some legs, and 10,000 mixed queries
cmd_valgrind() {
    have valgrind || { echo "test.sh: no valgrind" >&2; return 1; }
    [ $# -gt 0 ] || set -- serving messages cache admin config reload tls_transport mixed
    BIN=$ROOT/dnsproxy.plain
    CFLAGS='-O1 -g' build "$BIN" || return 1
    WATCH=valgrind SLOW=$((SLOW * 15)) MIXED=${MIXED:-10000}
    export MIXED
    run_legs "$@"
}

# analyse_table: what is run, a line each: tool|file|command. The files that include the program take longest, and come first;
# unit.c includes fuzz.c. cppcheck and gcc's analyser see the program by itself: with a test around it they need many minutes and
# gigabytes. What cppcheck may not say: that two variables start with the same value, and that it has not tried every #ifdef and branch.
analyse_table() {
    analyse_i=${BEARSSL:+-isystem $BEARSSL/inc}
    analyse_w="-std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror $analyse_i -c -o /dev/null"
    analyse_1='dnsproxy.c tests/shim.c tests/gai.c' analyse_2='tests/unit.c tests/peer.c'
    while IFS='|' read -r analyse_t analyse_f analyse_c; do
        for analyse_x in $analyse_f; do echo "$analyse_t|$analyse_x|$analyse_c"; done
    done <<END
clang --analyze|$analyse_2 $analyse_1|clang --analyze --analyzer-output text -std=c11 $analyse_i -o /dev/null
gcc -fanalyzer|$analyse_1|gcc -std=c11 -O2 -fanalyzer $analyse_i -c -o /dev/null
cppcheck|$analyse_1|cppcheck --quiet --std=c11 --enable=warning,portability,performance --inline-suppr --suppress=missingIncludeSystem \
--suppress=toomanyconfigs --suppress=duplicateAssignExpression --suppress=normalCheckLevelMaxBranches --error-exitcode=1 $analyse_i
gcc with every warning|$analyse_2 $analyse_1|gcc $analyse_w -O2
clang with every warning|$analyse_2 $analyse_1|clang $analyse_w -O2
$(for c in gcc clang; do
    for o in -O0 -Os -DPLAIN_POSIX; do echo "$c $o with every warning|dnsproxy.c|$c $analyse_w $o"; done
done)
END
}

# analyse: compilers with every warning, and static analysers, as many side by side as there are processors: no output, and success
cmd_analyse() {
    JOBS=$(nproc)
    # shellcheck disable=SC2046
    run_legs $(analyse_table | sed -n '=' | sed 's/^/analyse__/')
}
leg_analyse() {
    analyse_table | sed -n "$1p" >"$T/analyse"
    IFS='|' read -r analyse_t analyse_f analyse_c <"$T/analyse"
    promise "$analyse_t has nothing to say about $analyse_f"
    needs "${analyse_t%% *}" || return
    analyse_o=$(cd "$SRC" && $analyse_c "$analyse_f" 2>&1 || echo "exit status $?")
    same '' "$(printf '%s\n' "$analyse_o" | head -n 40)"
}

# leg_static: the musl build, in a root directory that holds nothing else. Not in the default list.
leg_static() {
    promise "make static builds for an empty root directory"
    needs musl-gcc make || return
    mkdir -p "$T/static" "$T/jail"
    chmod 755 "$T/jail"
    cp "$SRC/Makefile" "$SRC/dnsproxy.c" "$T/static/"
    static_o=$(make -C "$T/static" BEARSSL="$BEARSSL" static 2>&1) || { fail "$static_o"; return; }
    cp "$T/static/dnsproxy-static" "$T/jail/dnsproxy"
    BIN=/dnsproxy WRAP="chroot $T/jail"
    [ "$(id -u)" = 0 ] || WRAP="unshare -r $WRAP"
    $WRAP "$BIN" -V >/dev/null 2>&1 || { skip "not here: chroot needs root or a user namespace"; return; }
    serves_anywhere "in an empty root directory it"
    replies <<'END'
and its admin client works there ; exits 0 '^dnsproxy .* queries ' -a status "admin 127.0.0.1@$admin" '192.0.2.1 1'
and -t prints the normal form there ; exits 0 '^192\.0\.2\.1@53 1$' -t '192.0.2.1 1'
with all standard descriptors closed it serves too ; stop p
 ; up u1
 ; after 'exec <&- >&- 2>&-' q "$u1 1"
 ; @^NOERROR ; closed.static.test
 ; @^NOERROR ; closed2.static.test +tcp
END
}
