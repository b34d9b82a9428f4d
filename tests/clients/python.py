# python.py NAME TYPE...: what dnspython says
import sys
import dns.resolver

for name, kind in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        answer = dns.resolver.resolve(name, kind)
        print(name, kind, answer.canonical_name, sorted(r.to_text() for r in answer))
    except Exception as e:
        print(name, kind, type(e).__name__)
