#!/bin/sh
# Erlang/OTP 25, inet_res: the flags and services of a NAPTR record arrive in lower case ("E2U+sip" becomes "e2u+sip"), whatever the
# server sends; dig shows them as they are. RFC 3403 compares them without case, programs that match the string do not.
export packages='erlang-base=1:25.2.3+dfsg-1+deb12u4 nsd=4.6.1-1 bind9-dnsutils=1:9.18.49-1~deb12u3'
. "$(dirname "$0")/lab.sh"

zone example.com 127.0.0.2 <<END
phone NAPTR 100 10 "U" "E2U+sip" "!^.*\$!sip:info@example.com!" .
END
seen dig 'phone.example.com. IN NAPTR 100 10 "U" "E2U+sip" "!^.*$!sip:info@example.com!" .' "$(records 127.0.0.2 phone.example.com NAPTR)"
cat >"$LAB/naptr.escript" <<'END'
#!/usr/bin/env escript
main(_) -> io:format("~0p~n", [inet_res:lookup("phone.example.com", in, naptr, [{nameservers, [{{127,0,0,2}, 53}]}])]).
END
seen inet_res '[{100,10,"u","e2u+sip","!^.*$!sip:info@example.com!","."}]' "$(escript "$LAB/naptr.escript")"
