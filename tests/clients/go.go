// go.go NAME TYPE...: all that Go's own resolver says of the names, whatever the type
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
		name := os.Args[i] + "."
		hosts, no1 := r.LookupHost(c, name)
		mx, no2 := r.LookupMX(c, name)
		_, srv, no3 := r.LookupSRV(c, "", "", name)
		txt, no4 := r.LookupTXT(c, name)
		text, _ := json.Marshal([]interface{}{hosts, mx, srv, txt})
		words := strings.FieldsFunc(string(text), func(r rune) bool { return strings.ContainsRune("[],", r) })
		sort.Strings(words)
		fmt.Println(name, words, no1, no2, no3, no4)
	}
}
