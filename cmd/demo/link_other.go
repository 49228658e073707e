//go:build !linux

package main

import (
	"os"
	"strings"
)

// simulatorLink puts the terminal on TCP: there are no pseudo terminals here.
func simulatorLink(string) []string { return []string{"--link", "tcp:127.0.0.1:0"} }

// agentLink is the agent's link to a terminal that is ready on "tcp:ADDRESS".
func agentLink(ready string) string {
	link, _, _ := strings.Cut(ready, " ")
	return link
}

// interrupt ends a program: there is no way to ask it.
func interrupt(p *os.Process) error { return p.Kill() }
