# shellcheck shell=sh disable=SC2034,SC2154
# fuzz.sh - libFuzzer targets that include dnsproxy.c: tests/fuzz.c.
# Alone: ./test.sh fuzz [SECONDS]

# ---- Fuzzing: libFuzzer targets that include dnsproxy.c

# fuzz_build TARGET: compiles $T/fuzz.TARGET
fuzz_build() {
    lab_build "$T/fuzz.$1" "$SRC/tests/fuzz.c" -DTARGET_"$(echo "$1" | tr a-z A-Z)" -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
}

# fuzz [SECONDS [TARGET...]]: each target for so long, from the seeds of the unit tests. CORPUS=DIR keeps what is found.
cmd_fuzz() {
    fuzz_s=${1:-20}
    [ $# -eq 0 ] || shift
    [ $# -gt 0 ] || set -- client answer config admin cert sequence
    legnow=fuzz
    if ! have clang; then
        promise "fuzz targets are built"
        skip "no clang: libFuzzer is part of it"
        judge
        sum
        return
    fi
    tls_ready
    CC=clang
    fuzz_c=${CORPUS:-$T/corpus}
    mkdir -p "$fuzz_c/client" "$fuzz_c/answer" "$fuzz_c/config" "$fuzz_c/admin" "$fuzz_c/cert" "$fuzz_c/sequence" "$T/found"
    lab_build "$T/unit" "$SRC/tests/unit.c" -O1 2>/dev/null && SEEDS=$fuzz_c "$T/unit" >/dev/null 2>&1
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
    sum
}
