#!/bin/sh
# adns 1.6: one CNAME before the address is followed, the second is an error ("DNS alias found where canonical name wanted") though
# the answer of the server holds the whole chain and the address. Most names at content networks are chains of two and more.
export packages='adns-tools=1.6.0-2 nsd=4.6.1-1 bind9-dnsutils=1:9.18.49-1~deb12u3'
. "$(dirname "$0")/lab.sh"

zone example.com 127.0.0.2 <<END
first CNAME second
second CNAME third
third A 192.0.2.1
END
ask() { adnshost --config 'nameserver 127.0.0.2' -t a "$1" 2>&1; }
seen 'one alias' 'second.example.com CNAME third.example.com
third.example.com A 192.0.2.1' "$(ask second.example.com)"
seen 'two aliases' 'Error during DNS A lookup for first.example.com: DNS alias found where canonical name wanted
first.example.com CNAME second.example.com' "$(ask first.example.com)"
