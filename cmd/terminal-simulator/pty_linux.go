package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// pluggedIn is how long a line is gone when a terminal is unplugged.
const pluggedIn = 5 * time.Second

// servePTY makes a pseudo terminal and a link at path to its end for clients,
// a new one each time that it is plugged in.
func servePTY(path string) (server, error) {
	return func(ctx context.Context, c *cable) error {
		defer c.wait()
		for state := "ready"; ; state = "plugged in again" {
			plugged := c.awaitPlugged(ctx)
			if ctx.Err() != nil {
				return nil
			}
			itself, err := servePlugged(ctx, plugged, path, state, c)
			if err != nil || ctx.Err() != nil {
				return err
			}
			if !itself {
				continue // awaitPlugged waits
			}
			c.say("unplugged")
			select {
			case <-time.After(pluggedIn):
			case <-ctx.Done():
				return nil
			}
		}
	}, nil
}

// servePlugged serves one pseudo terminal until somebody pulls the cable, or the
// terminal unplugs itself.
//
// It keeps the clients' end open, too: without anybody at that end the other
// one could not be read, and clients come and go.
func servePlugged(ctx, plugged context.Context, path, state string, c *cable) (itself bool, err error) {
	master, slave, err := pty.Open()
	if err != nil {
		return false, fmt.Errorf("pty: %w", err)
	}
	defer master.Close() // which the terminal notices
	defer slave.Close()
	if err := errors.Join(makeRaw(slave), makePollable(master)); err != nil {
		return false, fmt.Errorf("pty %s: %w", slave.Name(), err)
	}
	if err := link(slave.Name(), path); err != nil {
		return false, err
	}
	defer os.Remove(path)
	c.say(fmt.Sprintf("%s on pty:%s (%s)", state, path, slave.Name()))
	ended := c.serve(ctx, func() error { return c.terminal.ServeSerial(ctx, master) })
	select {
	case err := <-ended:
		return true, err
	case <-plugged.Done():
		return false, nil
	}
}

// link makes a symbolic link, also in place of one that leads nowhere, which a
// simulator that was killed has left. It replaces nothing else.
func link(to, path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if at, err := os.Lstat(path); err == nil && at.Mode()&fs.ModeSymlink != 0 {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return os.Symlink(to, path)
}

// makeRaw turns off all that a terminal line does to bytes.
func makeRaw(f *os.File) error { return control(f, setRaw) }

// makePollable lets deadlines and Close end a Read: package pty has asked for
// the descriptor, which makes it blocking.
func makePollable(f *os.File) error {
	return control(f, func(fd int) error { return unix.SetNonblock(fd, true) })
}

// control calls do with the descriptor of f, and leaves f as it is.
func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err
	}
	return failed
}

func setRaw(fd int) error {
	mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	mode.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	mode.Oflag &^= unix.OPOST
	mode.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	mode.Cflag = mode.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	return unix.IoctlSetTermios(fd, unix.TCSETS, mode)
}
