# soak.sh - mixed load with failing upstreams, for long.
# Alone: ./test.sh soak [SECONDS]

# soak_config N: the configuration of round N; upstreams change places
soak_config() {
    # shellcheck disable=SC2046
    set -- $(echo '1 2,2 1,1 1' | cut -d , -f $(($1 % 3 + 1)))
    printf '%s\n' "$u1 $1" "$one $2 tls=dns.test" "$u3 3" "$u9 1 domain=dead.soak.test" "$ca" 'timeout 2000' 'patience 200' \
        'cache-size 256k' 'tcp-clients 64' 'user root' >"$T/soak.config"
}

# loads UNIT KEY: rows COUNT WANT WORD... of standard input, where @ stands for KEY: COUNT times UNIT queries of `many WORD...`, all
# rows at the same time;  loads_end: they have ended, and each query was answered once, rightly, and as WANT says, a word of many's.
# $loads_sent and $loads_slow: how many these were up to now, and what the slowest took, ms
loads_sent=0 loads_slow=0
loads() {
    loads_u=$1 loads_i=0
    sed "/./!d; s/@/$2/" >"$T/loads"
    while read -r loads_k _ loads_l; do
        loads_i=$((loads_i + 1))
        meanwhile "load$loads_i" many n=$((loads_k * loads_u)) timeout=$((15000 * SLOW)) $loads_l
    done <"$T/loads"
}
loads_end() {
    loads_i=0
    while read -r loads_k loads_w loads_l; do
        loads_i=$((loads_i + 1)) loads_k=$((loads_k * loads_u))
        ended "load$loads_i" 'wrong 0 dup 0 bad 0 '
        same "$loads_k $loads_k" "$(val answered "$out") $(val "$loads_w" "$out")" "answered and $loads_w of $loads_l: $out"
        loads_sent=$((loads_sent + loads_k)) loads_ms=$(val slowest_ms "$out")
        [ "${loads_ms:-0}" -le "$loads_slow" ] || loads_slow=$loads_ms
    done <"$T/loads"
}

# mixed UNIT KEY [ROW]...: loads of every kind to the proxy p beside those ROWs: hits, misses, names and options of every spelling, DNSSEC OK
# and checking disabled, over TCP, answers that are cut, no data, an upstream that may know no EDNS
mixed() {
    loads "$1" "$2" <<END
8 noerror window=64 name=hot.soak.test
4 noerror window=64 byname name=miss%d.@.soak.test
2 noerror window=32 vary name=vary%d.@.soak.test
1 noerror window=32 +do +cd name=do%d.@.soak.test type=AAAA
2 noerror window=32 tcp=8 name=tcp%d.@.soak.test
1 noerror window=16 name=big=3000.c%d.@.soak.test type=TXT
1 noerror window=32 name=no%d.@.soak.test type=MX
1 noerror window=32 name=old%d.@.old.soak.test
${3:-}
${4:-}
END
}

# soak [SECONDS]: mixed load over UDP and TCP, while one upstream loses, delays, truncates, refuses, stops and comes back, another (TLS)
# closes its connections, a third one loses every twentieth question once, and the configuration is read again and again
cmd_soak() {
    soak_end=$(($(date +%s) + ${1:-60}))
    tls_ready
    up u1 '. net=10'
    up u3 '. net=10'
    up u9 '. silent'
    dot one good
    soak_config 0
    promise "soak: the program serves"
    proxy p -c "$T/soak.config"
    many n=3000 window=3000 timeout=3000 name=n%d.dead.soak.test >/dev/null         # the tables have been full once
    soak_r=0
    promise "soak: every query is answered once; where an upstream has the answer with it, else with SERVFAIL at the end of its life"
    while [ "$(date +%s)" -lt "$soak_end" ] || [ "$soak_r" -lt 17 ]; do
        case $((soak_r % 8)) in
        0) rules u1 '. net=10' ;;
        1) rules u1 '. net=10 delay=150' ;;
        2) rules u1 '. net=10 tc' ;;
        3) kill_pid u1 ;;
        4) up u1 on="${u1##*@}" '. servfail' ;;
        5) rules u1 '. net=10' ; kill -STOP "$(pid u1)" ;;
        6) kill -CONT "$(pid u1)" ; rules one ". net=10 kick=$soak_r" ;;
        7) rules one '. net=10 after=5' ; rules u1 '. net=10 tc close' ;;
        esac
        mixed 50 "$soak_r" '1 noerror window=10 name=drop=.b%d.@.soak.test' '1 servfail window=50 name=d%d.@.dead.soak.test'
        flood n=200 kind=mutate seed=$((soak_r + 1)) >/dev/null
        if [ $((soak_r % 2)) = 1 ]; then
            soak_config $((soak_r / 2))
            kill -HUP "$(pid p)"
        fi
        loads_end
        within 0 3500 "$loads_slow" "the slowest up to round $soak_r, ms"
        forget u1 u3 u9 one
        soak_r=$((soak_r + 1))
        [ "$soak_r" != 9 ] || soak_kb=$(rss_kb p) soak_heap=$(soak_heap) soak_fd=$(fd_count p)
    done
    echo "# soak: $loads_sent queries in $soak_r rounds, the slowest $loads_slow ms; memory after 9 rounds $soak_kb kB, at the end $(rss_kb p) kB"
    # chance decides which of the 24 places for connections have had TLS, for which each keeps 25 KiB
    replies <<'END'
soak: at the end nothing is in flight, and no connection is left ; kill -CONT "$(pid u1)"
 ; rules u1 '. net=10'
 ; rules one '. net=10'
 ; await 25 soak_idle || fail "$(adm status | head -n 1)"
soak: every upstream that answers is up again ; await 10 soak_up || fail "$(adm status | grep '^upstream')"
soak: queries went over UDP, TCP and TLS, and the TLS connection ended and was made again
 ; shows ' tls .* won [1-9][0-9]* .* connects ([3-9]|[1-9][0-9]+) '
soak: memory and descriptors are those of the first rounds
 ; await 25 fds_within p "$((soak_fd < 24 ? soak_fd : 24))" || fail "$(fd_count p) descriptors, after the first rounds $soak_fd"
 ; [ -n "$WRAP" ] || grew $((soak_kb / 50 + 128 + 600)) "$soak_kb" p
 ; within 0 $((soak_heap + 16)) "$(soak_heap)" "KiB of the heap, after the first rounds $soak_heap"
soak: it stops as told ; stop p
END
}
soak_heap() { awk '/^[0-9a-f]+-/ { heap = /\[heap\]/ } heap && /^Anonymous:/ { n += $2 } END { print n + 0 }' "/proc/$(pid p)/smaps"; }
soak_idle() { adm status | grep -q '^dnsproxy .* inflight 0 tcp [01]$'; }
soak_up() {
    many n=4 window=1 "name=up%d.$(date +%s).soak.test" >/dev/null
    [ "$(adm status | grep -Ec '^upstream .* (udp|tls) .* state up ')" -ge 3 ]
}
