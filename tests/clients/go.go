// go.go NAME...: what Go's own resolver says
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"sort"
)

func say(what string, list []string, err error) {
	sort.Strings(list)
	if err != nil {
		fmt.Println(what, err.(*net.DNSError).IsNotFound, err.(*net.DNSError).IsTimeout)
		return
	}
	fmt.Println(what, list)
}

func main() {
	r := &net.Resolver{PreferGo: true}
	c := context.Background()
	for _, name := range os.Args[1:] {
		list, err := r.LookupHost(c, name+".")
		say(name, list, err)
		if name == "far.signed" { // of two links it says either, from 1.20 on: that of the answer that came first
			continue
		}
		cname, err := r.LookupCNAME(c, name+".")
		say(name+" CNAME", []string{cname}, err)
	}
	mx, err := r.LookupMX(c, "signed.")
	for _, m := range mx {
		say("MX", []string{fmt.Sprint(m.Pref), m.Host}, nil)
	}
	say("MX", nil, err)
	_, srv, err := r.LookupSRV(c, "sip", "tcp", "signed.")
	for _, s := range srv {
		say("SRV", []string{s.Target}, nil)
	}
	say("SRV", nil, err)
	txt, err := r.LookupTXT(c, "big.signed.")
	say("TXT", txt, err)
}
