//go:build !windows

package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// obeySequences has a terminal obey control functions until undo is called. Here
// they do so anyway.
func obeySequences(*os.File) (undo func(), err error) { return func() {}, nil }

// awaitInput waits until something is there to be read, at most so long.
func awaitInput(f *os.File, most time.Duration) (there bool, err error) {
	fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(most.Milliseconds()))
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	return n > 0, err
}

// notifyResized has a signal sent whenever the size of the window changes.
func notifyResized(c chan<- os.Signal) { signal.Notify(c, syscall.SIGWINCH) }
