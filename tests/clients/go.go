// go.go NAME...: what Go's own resolver says
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"sort"
)

func main() {
	r := &net.Resolver{PreferGo: true}
	c := context.Background()
	for _, name := range os.Args[1:] {
		list, err := r.LookupHost(c, name+".")
		sort.Strings(list)
		fmt.Println(name, list, err)
		if name != "far.signed" { // of two links it says either, from 1.20 on: that of the answer that came first
			fmt.Println(r.LookupCNAME(c, name+"."))
		}
	}
	mx, err := r.LookupMX(c, "signed.")
	for _, m := range mx {
		fmt.Println(*m, err)
	}
	_, srv, err := r.LookupSRV(c, "sip", "tcp", "signed.")
	for _, s := range srv {
		fmt.Println(*s, err)
	}
	txt, err := r.LookupTXT(c, "big.signed.")
	sort.Strings(txt)
	fmt.Println(txt, err)
}
