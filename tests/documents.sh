# documents.sh - documents that agree with the program.
# Alone: ./test.sh docs

# Each doc_ prints one line for a directive: name, argument, default, with tabs between.
# The program's own table, by --help
doc_program() {
    "$BIN" --help | awk '
        on && /^  [a-z]/ { name = $1; arg = $0; sub(/^  [^ ]+ /, "", arg) }
        on && /^      / { d = $0; if (!sub(/.*\(default /, "", d)) sub(/.*; default /, "", d); sub(/\)$/, "", d); print name "\t" arg "\t" d }
        /^directives/ { on = 1 }'
}

# The manual: .It Ic NAME Ar ARGUMENT, and the default in the last sentence.
doc_manual() {
    awk '
        function out() { if (name != "") { sub(/.*The default is */, "", text); sub(/\.$/, "", text); print name "\t" arg "\t" text } name = "" }
        /^\.S[sh] / { out(); on = $2 == "Directives" }
        on && /^\.It Ic/ { out(); name = $3; arg = $0; sub(/.* Ar /, "", arg); text = ""; next }
        on && /^\.El/ { out() }
        name != "" { text = text " " $0 }
    ' "$SRC/dnsproxy.8"
}

# doc_alike WHAT LIST LIST: what is in one list is in the other, in its order, and that is something
doc_alike() {
    printf '%s\n' "$2" >"$T/doc.1"
    printf '%s\n' "$3" >"$T/doc.2"
    [ -n "$2" ] || fail "$1: there is nothing"
    same '' "$(diff "$T/doc.1" "$T/doc.2")" "diff of $1"
}

leg_docs() {
    promise 'mandoc finds nothing in the man page'
    if needs mandoc; then
        same '' "$(mandoc -Tlint "$SRC/dnsproxy.8" 2>&1 | grep -vE 'mandoc\.db|referenced manual not found')"
    fi
    promise 'shellcheck finds nothing in the scripts'
    if needs shellcheck; then
        same '' "$(shellcheck -S warning "$SRC/test.sh" "$SRC"/tests/*.sh "$SRC/.ci/run" 2>&1 | head -n 20)"
    fi
    promise 'no two functions of the scripts have one name'
    same '' "$(cat "$SRC/test.sh" "$SRC"/tests/*.sh | sed -n 's/^\([a-z0-9_]*\)() .*/\1/p' | sort | uniq -d)"
    promise 'the table of contents of dnsproxy.c is that of its sections'
    doc_alike 'contents and sections' "$(sed -n '1,/\*\//s/^ \*  *\([0-9][0-9]*\) \([^ ].*[^ ]\)   *[^ ].*$/\1 \2/p' "$SRC/dnsproxy.c")" \
        "$(sed -n 's|^/\* ---- \([0-9][0-9]* .*[^ -]\) -*[- ]*\*/$|\1|p' "$SRC/dnsproxy.c")"
    promise 'directives, their arguments and defaults: the manual says what the program does'
    doc_program >"$T/doc.program"
    doc_alike 'program and manual' "$(cat "$T/doc.program")" "$(doc_manual)"
    promise 'ranges: the manual says what the errors say'
    real_m=$(sed -n '/^\.Ss Directives/,/^\.El/p' "$SRC/dnsproxy.8" |
        awk '/^\.It Ic/ { n = $3 } /^From [0-9]+ to [0-9]+\.$/ { print n, $2, $4 + 0 }')
    printf '%s\n' "$real_m" | sed 's/ .*/ x/' >"$T/doc.config"
    doc_alike 'manual and errors' "$real_m" \
        "$("$BIN" -t -c "$T/doc.config" 2>&1 | sed -n 's/.*:[0-9]*: \(.*\): "x" .* \([0-9]*\) to \([0-9]*\)$/\1 \2 \3/p')"
    promise 'limits: one upstream, address, network, file or pin more than the manual allows is one too many'
    real_x=' pin=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='
    {
        echo "127.0.0.1 1 tls$real_x$real_x$real_x$real_x$real_x"
        seq -f '198.51.100.%g 1' 33
        seq -f 'listen 192.0.2.%g' 17
        seq -f 'allow 192.0.2.%g' 65
        seq -f 'hosts /none/%g' 9
    } >"$T/doc.config"
    doc_alike 'manual and errors' "$("$BIN" -t -c "$T/doc.config" 2>&1 | sed 's/.*, expected at most \([0-9]*\).*/\1/' | sort)" \
        "$(sed -n '/^\.Sh LIMITS/,/^\.Sh/p' "$SRC/dnsproxy.8" |
            sed -n 's/^\([0-9]*\) \(upstreams\|listen addresses\|allow networks\|hosts files\|pins in a line\)$/\1/p' | sort)"
    promise 'dns.config.example shows every directive with its default'
    doc_alike 'program and example' \
        "$(awk -F '\t' '$3 != "none" { print $1 "\t" ($1 == "ca-file" ? "/etc/ssl/certs/ca-certificates.crt" : $3) }' "$T/doc.program")" \
        "$(sed -n '/^# ---- Directives/,$s/^#\([a-z][a-z-]*\) \(.*\)$/\1\t\2/p' "$SRC/dns.config.example")"
    for real_x in $(awk -F '\t' '$3 == "none" { print $1 }' "$T/doc.program"); do
        grep -q "^#$real_x /" "$SRC/dns.config.example" || fail "no example of $real_x"
    done
    promise 'the example without its comment signs means what it means with them'
    sed '/^# ---- Directives/,$s/^#\([a-z]\)/\1/' "$SRC/dns.config.example" >"$T/doc.config"
    real_x=$("$BIN" -t -c "$SRC/dns.config.example" 2>&1)
    same 0 $? "dns.config.example: $real_x"
    same "$(printf '%s\n' "$real_x" | grep -v '^ca-file')" "$("$BIN" -t -c "$T/doc.config" 2>&1 | grep -v '^ca-file')"
    promise 'every upstream of the example is one'
    sed 's/^#\([0-9]\)/\1/' "$SRC/dns.config.example" | grep '^[0-9]' | sort -u >"$T/doc.config"
    valid -c "$T/doc.config"
    promise 'every configuration among the examples of the manual is one'
    awk -v out="$T/doc.ex" '/^\.Sh/ { on = $2 == "EXAMPLES" } on && /^\.Bd/ { n++ } on && /^[0-9]/ { print >(out n) }' "$SRC/dnsproxy.8"
    [ -s "$T/doc.ex1" ] && [ -s "$T/doc.ex2" ] || fail 'there are none'
    for real_x in "$T"/doc.ex[0-9]; do valid -c "$real_x"; done
    promise 'options: the manual and --help name the same'
    same "$("$BIN" --help | grep -oE -- '--[a-z]+' | sort -u)" "$(sed -n 's/^\.It Fl . , Fl Fl \([a-z]*\).*/--\1/p' "$SRC/dnsproxy.8" | sort -u)"
    proxy front '127.0.0.1@9 1' '127.0.0.1@10 1 tls noverify'
    promise 'commands of the admin port: the manual says what help says'
    doc_alike 'help and manual' "$(adm help | sed 's/ - .*//')" "$(sed -n '/^\.Sh ADMIN PROTOCOL/,/^\.Ss Status/s/^\.It Ic //p' "$SRC/dnsproxy.8" |
        sed '/^GET /d; s/ Op Ar \([A-Z]*\)/ [\1]/; s/ Ar / /')"
    promise 'metrics: the manual names all that are served, and no other'
    doc_alike 'program and manual' "$(metrics | sed -n 's/^# TYPE \([a-z_]*\) .*/\1/p' | sort)" \
        "$(sed -n '/^\.Ss Metrics/,/^\.Sh/s/^\.It Li \([a-z_]*\).*/\1/p' "$SRC/dnsproxy.8" | sort)"
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
}
