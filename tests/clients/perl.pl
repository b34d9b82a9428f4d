# perl.pl NAME TYPE...: what Perl's Net::DNS says
use strict;
use warnings;
use Net::DNS;

my $r = Net::DNS::Resolver->new;
while (my ($name, $type) = splice @ARGV, 0, 2) {
    my $p = $r->send($name, $type);
    print "$name $type ", $p ? $p->header->rcode : $r->errorstring, "\n";
    for ($p ? $p->answer : ()) { $_->ttl(0); print $_->plain, "\n"; }
}
