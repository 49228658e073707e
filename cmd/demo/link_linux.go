package main

import (
	"os"
	"path/filepath"
	"strings"
)

// simulatorLink puts the terminal on a pseudo terminal: a serial line.
func simulatorLink(dir string) []string {
	return []string{"--link", "pty:" + filepath.Join(dir, "ttyTERMINAL")}
}

// agentLink is the agent's link to a terminal that is ready on "pty:PATH (...)".
func agentLink(ready string) string {
	path, _, _ := strings.Cut(strings.TrimPrefix(ready, "pty:"), " ")
	return "serial:" + path
}

// interrupt asks a program to end.
func interrupt(p *os.Process) error { return p.Signal(os.Interrupt) }
