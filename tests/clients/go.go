// go.go NAME TYPE...: what Go's own resolver says
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sort"
	"strings"
)

func main() {
	r := &net.Resolver{PreferGo: true}
	c := context.Background()
	for i := 1; i < len(os.Args); i += 2 {
		var list interface{}
		var err error
		name := os.Args[i] + "."
		switch os.Args[i+1] {
		case "A":
			list, err = r.LookupIP(c, "ip4", name)
		case "AAAA":
			list, err = r.LookupIP(c, "ip6", name)
		case "MX":
			list, err = r.LookupMX(c, name)
		case "SRV":
			_, list, err = r.LookupSRV(c, "", "", name)
		case "TXT":
			list, err = r.LookupTXT(c, name)
		}
		text, _ := json.Marshal(list)
		words := strings.Split(strings.Trim(string(text), "[]"), ",")
		sort.Strings(words)
		fmt.Println(name, os.Args[i+1], words, err)
	}
}
