#!/bin/sh
# dnsdist 1.7.3, whose DNS over HTTPS is h2o's: a client that sets SETTINGS_HEADER_TABLE_SIZE to 0 in its first frame still gets header
# blocks that refer to the dynamic table, from the second response on (RFC 7541 4.2: the encoder must keep to the size that the decoder
# has acknowledged, and that is the client's own setting). A client without such a table cannot read those headers.
export packages='dnsdist=1.7.3-2 nsd=4.6.1-1 bind9-dnsutils=1:9.18.49-1~deb12u3'
. "$(dirname "$0")/lab.sh"

zone example.com 127.0.0.2 <<END
www A 192.0.2.1
END
printf '%s\n' "setLocal('127.0.0.3:53')" "addDOHLocal('127.0.0.3:8053', nil, nil, '/dns-query')" "newServer('127.0.0.2:53')" "setSecurityPollSuffix('')" \
    >"$LAB/dnsdist.conf"
dnsdist -C "$LAB/dnsdist.conf" --supervised >"$LAB/dnsdist.log" 2>&1 &
answers 127.0.0.3 www.example.com A
# a preface, settings with a table of 0 and their acknowledgement, then requests; prints each response's indexed headers
indexes() {
    perl -MIO::Socket::INET -e '
        my $s = IO::Socket::INET->new("127.0.0.3:8053") or die;
        sub frame { my ($type, $flags, $stream, $data) = @_; substr(pack("N", length $data), 1) . pack("CCN", $type, $flags, $stream) . $data }
        sub value { chr(length $_[0]) . $_[0] }
        my $type = value("application/dns-message");
        my $query = pack("n6", 0, 0x100, 1, 0, 0, 0) . "\3www\7example\3com\0" . pack("nn", 1, 1);
        my $headers = "\x83\x87\x01" . value("dns.test") . "\x04" . value("/dns-query") . "\x0f\x04$type\x0f\x10$type";
        print $s "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(4, 0, 0, pack("nN", 1, 0)), frame(4, 1, 0, "");
        $s->flush;
        for my $stream (1, 3) {
            print $s frame(1, 4, $stream, $headers), frame(0, 1, $stream, $query);
            $s->flush;
            for (;;) {
                read($s, my $head, 9) == 9 or die;
                my ($n, $kind, $flags, $of) = (unpack("N", "\0" . substr($head, 0, 3)), unpack("x3CCN", $head));
                read($s, my $data, $n) == $n or die if $n;
                next unless $kind == 1;
                my @bytes = unpack("C*", $data);
                shift @bytes while @bytes && ($bytes[0] & 0xe0) == 0x20;        # table size updates
                my $large = 0;
                while (@bytes) {                                                # all headers that are an index and nothing else
                    my $b = shift @bytes;
                    if ($b & 0x80) { $large ||= ($b & 0x7f) > 61; next }
                    my $index = $b & ($b & 0x40 ? 0x3f : 0x0f);
                    shift @bytes if $index == 15 && !($b & 0x40);
                    splice @bytes, 0, $bytes[0] & 0x7f, () if !$index && shift(@bytes) + 1;
                    my $len = shift(@bytes) & 0x7f;
                    splice @bytes, 0, $len;
                }
                print "response ", ($stream + 1) / 2, ": ", ($large ? "refers to the dynamic table" : "spelled out"), "\n";
                last;
            }
        }'
}
seen 'table size 0' 'response 1: spelled out
response 2: refers to the dynamic table' "$(indexes)"
