# python.py NAME...: what dnspython says
import sys
import dns.resolver

def say(name, kind):
    try:
        answer = dns.resolver.resolve(name, kind)
        print(name, kind, answer.canonical_name, sorted(r.to_text() for r in answer))
    except Exception as e:
        print(name, kind, type(e).__name__)

for name in sys.argv[1:]:
    say(name, 'A')
    say(name, 'AAAA')
for name, kind in (('signed', 'MX'), ('_sip._tcp.signed', 'SRV'), ('naptr.signed', 'NAPTR'), ('svc.signed', 'HTTPS'), ('big.signed', 'TXT'),
                   ('raw.signed', 'TYPE65280'), ('huge.signed', 'TXT')):
    say(name, kind)
