# network.sh - a network that comes later.
# Alone: ./test.sh network

leg_network() {
    promise "an upstream and a listen address that come later"
    netns || return
    up u1
    port=$(freeport)
    proxy p "10.77.0.2@5300 1" "fe80::5%later0 2" "$u1 3" "listen 127.0.0.1@$port" "listen 10.77.0.1@$port" 'patience 300' 'timeout 1500'
    replies <<'END'
with no route to an upstream, and an interface that does not exist, the others answer without a wait ; @1 ; first.test
 ; @1 ms:0-280 ; noroute1.test | noroute2.test | noroute3.test | noroute4.test | noroute5.test
the log does not repeat it ; saw 0-6 '10\.77\.0\.2|later0' p
an address to listen on that comes later is served within two seconds, with one log line or none before ; saw 0-2 '10\.77\.0\.1' p
 ; ns ip addr add 10.77.0.1/32 dev lo
 ; await 3 hears '^NOERROR' late.test +server=10.77.0.1 +timeout=300 || fail "UDP: $(ask late.test +server=10.77.0.1 +timeout=300)"
 ; ^NOERROR ; late.test +server=10.77.0.1 +tcp
an upstream that comes later is used ; ns ip addr add 10.77.0.2/32 dev lo
 ; up u2 addr=10.77.0.2 on=5300
 ; await 5 answers_with 192.0.2.2 || fail "it is not used"
an address that goes away and a network that goes down are no reason to exit ; each 'ns ip addr del 10.77.0.$it/32 dev lo' 1 2
 ; @1 ; away.test
 ; ns ip link set lo down
 ; sleep 0.5
 ; ns ip link set lo up
 ; await 3 hears '^NOERROR' back.test +timeout=400 || fail "no answer after the network came back"
 ; lives p "the network went and came"
with no network at all a query is answered SERVFAIL, soon, and the program stays
 ; proxy p '192.0.2.53 1' '2001:db8::53 2' 'timeout 1500'
 ; @'^SERVFAIL .* ede=2[23]' ms:0-1400 ; nonet.test +edns
END
}
