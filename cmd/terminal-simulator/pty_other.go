//go:build !linux

package main

import "errors"

// servePTY: only Linux has pseudo terminals that stand for a serial line here.
func servePTY(string) (server, error) {
	return nil, errors.New("--link pty:PATH: not on this system, use tcp:HOST:PORT")
}
