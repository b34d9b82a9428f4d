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

# manual SECTION: its lines.  In that of the directives .It Ic NAME Ar ARGUMENT begins one, and the default is its last sentence.
manual() { awk -v s="$1" '/^\.S[hs] / { on = substr($0, 5) == s } on' "$SRC/dnsproxy.8"; }
doc_manual() {
    manual Directives | awk '
        /^\.(It Ic|El)/ { if (name != "") print name "\t" arg "\t" text; name = $3; arg = $0; sub(/.* Ar /, "", arg); text = ""; next }
        { text = text " " $0; sub(/.*The default is */, "", text); sub(/\.$/, "", text) }'
}

# fields: of lines of status, of a TLS upstream where there are several, the words that are no values
fields() { grep -E '^(dnsproxy|upstream .* (tls|PROTO)|cache) .* [0-9N]' | sed 's/  */ /g; s/|down//; s/ tls / /; s/[][]//g; s/ [^a-z ][^ ]*//g' | uniq; }

# agree PROMISE LIST LIST: what is in one list is in the other, in its order, and that is something
agree() {
    promise "$1"
    printf '%s\n' "$2" >"$T/doc.1"
    printf '%s\n' "$3" >"$T/doc.2"
    [ -n "$2" ] || fail 'there is nothing'
    same '' "$(diff "$T/doc.1" "$T/doc.2")" diff
}

leg_docs() {
    promise 'mandoc finds nothing in the man page'
    ! needs mandoc || same '' "$(mandoc -Tlint "$SRC/dnsproxy.8" 2>&1 | grep -vE 'mandoc\.db|referenced manual not found')"
    promise 'shellcheck finds nothing in the scripts'
    ! needs shellcheck || same '' "$(shellcheck -S warning "$SRC/test.sh" "$SRC"/tests/*.sh "$SRC/.ci/run" 2>&1 | head -n 20)"
    promise 'no two functions of the scripts have one name'
    same '' "$(cat "$SRC/test.sh" "$SRC"/tests/*.sh | sed -n 's/^\([a-z0-9_]*\)() .*/\1/p' | sort | uniq -d)"
    agree 'the table of contents of dnsproxy.c is that of its sections' \
        "$(sed -n '1,/\*\//s/^ \*  *\([0-9][0-9]*\) \([^ ].*[^ ]\)   *[^ ].*$/\1 \2/p' "$SRC/dnsproxy.c")" \
        "$(sed -n 's|^/\* ---- \([0-9][0-9]* .*[^ -]\) -*[- ]*\*/$|\1|p' "$SRC/dnsproxy.c")"
    doc_program >"$T/doc.program"
    agree 'directives, their arguments and defaults: the manual says what the program does' "$(cat "$T/doc.program")" "$(doc_manual)"
    real_m=$(manual Directives | awk '/^\.It Ic/ { n = $3 } /^From [0-9]+ to [0-9]+\.$/ { print n, $2, $4 + 0 }')
    printf '%s\n' "$real_m" | sed 's/ .*/ x/' >"$T/doc.config"
    agree 'ranges: the manual says what the errors say' "$real_m" \
        "$("$BIN" -t -c "$T/doc.config" 2>&1 | sed -n 's/.*:[0-9]*: \(.*\): "x" .* \([0-9]*\) to \([0-9]*\)$/\1 \2 \3/p')"
    real_x=' pin=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='
    {
        echo "127.0.0.1 1 tls$real_x$real_x$real_x$real_x$real_x"
        seq -f '198.51.100.%g 1' 33
        seq -f 'listen 192.0.2.%g' 17
        seq -f 'allow 192.0.2.%g' 65
        seq -f 'hosts /none/%g' 9
    } >"$T/doc.config"
    agree 'limits: one upstream, address, network, file or pin more than the manual allows is one too many' \
        "$("$BIN" -t -c "$T/doc.config" 2>&1 | sed 's/.*, expected at most \([0-9]*\).*/\1/' | sort)" \
        "$(manual LIMITS | sed -n 's/^\([0-9]*\) \(upstreams\|listen addresses\|allow networks\|hosts files\|pins in a line\)$/\1/p' | sort)"
    agree 'dns.config.example shows every directive with its default' \
        "$(awk -F '\t' '$3 != "none" { print $1 "\t" ($1 == "ca-file" ? "/etc/ssl/certs/ca-certificates.crt" : $3) }' "$T/doc.program")" \
        "$(sed -n '/^# ---- Directives/,$s/^#\([a-z][a-z-]*\) \(.*\)$/\1\t\2/p' "$SRC/dns.config.example")"
    same '' "$(sed -n 's/^\([a-z]*\)\t.*\tnone$/\1/p' "$T/doc.program" | while read -r x; do grep -q "^#$x /" "$SRC/dns.config.example" || echo "$x"; done)"
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
    agree 'options: the manual and --help name the same' "$("$BIN" --help | grep -oE -- '--[a-z]+' | sort -u)" \
        "$(sed -n 's/^\.It Fl . , Fl Fl \([a-z]*\).*/--\1/p' "$SRC/dnsproxy.8" | sort -u)"
    proxy front '127.0.0.1@9 1' '127.0.0.1@10 1 tls noverify'
    agree 'commands of the admin port: the manual says what help says' "$(adm help | sed 's/ - .*//')" \
        "$(manual 'ADMIN PROTOCOL' | sed -n '/^\.It Ic GET /d; s/ Op Ar \([A-Z]*\)/ [\1]/; s/ Ar / /; s/^\.It Ic //p')"
    agree 'metrics: the manual names all that are served, and no other' "$(metrics | sed -n 's/^# TYPE \([a-z_]*\) .*/\1/p' | sort)" \
        "$(manual Metrics | sed -n 's/^\.It Li \([a-z_]*\).*/\1/p' | sort)"
    agree 'status: the manual shows every field in its order' "$(adm status | fields)" \
        "$(manual Status | awk '{ printf "%s%s", /^ / ? "" : "\n", $0 }' | fields)"
    agree 'status: the example of the README has every field in its order' "$(adm status | fields)" "$(fields <"$SRC/README.md")"
}
