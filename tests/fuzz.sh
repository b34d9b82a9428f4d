# fuzz.sh - libFuzzer looks for what breaks the promises of tests/fuzz.c (single inputs) and tests/sequence.h (everything).
# Alone: ./test.sh fuzz [SECONDS [TARGET...]]. CORPUS=DIR keeps what is found.

FUZZ_TARGETS="client answer config admin cert http2 sequence"

# fuzz_seeds DIR: what the unit tests use, certificates (how, a length beyond the end, certificate), sequences that make sense:
# a configuration, and events by their numbers in event()
fuzz_seeds() {
    for fuzz_t in $FUZZ_TARGETS; do mkdir -p "$1/$fuzz_t"; done
    compile "$T/unit" tests/unit.c -O1 2>/dev/null && SEEDS=$1 "$T/unit" >/dev/null 2>&1
    for fuzz_f in "$T/pki"/*.crt; do
        for fuzz_o in 0 1 2; do
            { printf "\00$fuzz_o\377\377"; sed -n '1,/END/{/-----/!p;}' "$fuzz_f" | base64 -d; } >"$1/cert/$fuzz_o.${fuzz_f##*/}"
        done
    done
    for fuzz_i in 1 2 3 4 5; do                     # an answer, and nothing more may leave, or be opened
        printf "\11\0\0\0\0\3\0\0\0\0\23\\$fuzz_i\0\0\1\0\15\1\16\0\1\2\3" >"$1/sequence/wall$fuzz_i"
    done
    printf '\6\13\0\5\13\1\5\13\0\6' >"$1/sequence/flood"         # two handshakes that do not end
    # one request is never answered, while others are
    printf '\7\13\0\5\13\0\5\0\0\0\0'"$(printf '\\0\\0\\%s\\0\\6\\0\\%s\\0\\0\\5\\1\\1\\1\\1\\10\\6' 1 1 2 2 3 3 4 4 5 5 6 6)" >"$1/sequence/dead"
    for fuzz_i in 0 1 2 3 4 5 6 7 10; do            # (octal) in each configuration: connections open, questions, answers, time
        {
            printf "\\$fuzz_i\13\0\5\13\0\5\13\1\5\13\1\5\0\1\0\1\6\0\0\0\0\3\0\0\0\0\0\2\2\7\6\1\0\10\10\5"
            head -c $((200 * fuzz_i)) /dev/urandom
        } >"$1/sequence/set$fuzz_i"
        # two wait on a silent connection, a third for one that does not come about
        printf "\\$fuzz_i\13\0\5\13\0\5\0\0\0\0\0\0\40\0\11\200\0\0\20\0\10\10" >"$1/sequence/silent$fuzz_i"
    done
}

cmd_fuzz() {
    fuzz_s=${1:-20}
    [ $# = 0 ] || shift
    [ $# -gt 0 ] || set -- $FUZZ_TARGETS
    promise "fuzz targets are built"
    needs clang || return 0
    tls_ready
    mkdir -p "$T/found"
    fuzz_c=${CORPUS:-$T/corpus}
    fuzz_seeds "$fuzz_c"
    export CA="$T/pki/ca.pem" ASAN_OPTIONS=detect_leaks=0 TARGET
    # what only looks, like check_all(), has no paths of interest
    printf 'fun:%s\n' run 'check*' 'fake_*' 'lab_*' 'is_*' '*_seen' 'frames' '*_frame' slot_of >"$T/fuzz.blind"
    CC=clang compile "$T/fuzz" tests/fuzz.c -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
        -fsanitize-coverage-ignorelist="$T/fuzz.blind" 2>"$T/fuzz.log" || { fail "$(head -n 20 "$T/fuzz.log")"; return; }
    for TARGET; do
        promise "$TARGET: $fuzz_s s of libFuzzer without a finding"
        "$T/fuzz" -max_total_time="$fuzz_s" -timeout=20 -rss_limit_mb=2000 -max_len=2000 -len_control=0 -print_final_stats=1 \
            -artifact_prefix="$T/found/$TARGET-" "$fuzz_c/$TARGET" >"$T/fuzz.log" 2>&1 </dev/null ||
            fail "$(grep -E 'broken:|ERROR: |runtime error|^    #[0-9] ' "$T/fuzz.log" | head -n 14)
    the input in base64: $(cat "$T/found/$TARGET-"* 2>/dev/null | tee "${CORPUS:-$T}/found.$TARGET" | base64 -w 0 | cut -c 1-3000)"
        echo "# $TARGET: $(sed -n 's/^stat::number_of_executed_units: */runs /p; s/^stat::average_exec_per_sec: */a second /p' "$T/fuzz.log" |
            tr '\n' ' ')$(grep -Eo 'cov: [0-9]+ ft: [0-9]+' "$T/fuzz.log" | tail -n 1)"
    done
}
