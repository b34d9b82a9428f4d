# perl.pl NAME...: what Perl's Net::DNS says
use strict;
use warnings;
use Net::DNS;

my $r = Net::DNS::Resolver->new;
sub say_it {
    my ($name, $type) = @_;
    my $p = $r->send($name, $type);
    print "$name $type ", $p ? $p->header->rcode : $r->errorstring, "\n";
    return unless $p;
    for ($p->answer) { $_->ttl(0); print $_->plain, "\n"; }
}
for my $name (@ARGV) { say_it($name, $_) for 'A', 'AAAA'; }
say_it(@$_) for ['signed', 'MX'], ['_sip._tcp.signed', 'SRV'], ['naptr.signed', 'NAPTR'], ['svc.signed', 'HTTPS'], ['big.signed', 'TXT'],
    ['raw.signed', 'TYPE65280'];
