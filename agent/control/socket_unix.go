//go:build !windows

package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketFile is the socket, in the state directory. Only the account of the
// agent, and root, may connect.
const socketFile = "control.sock"

// longestPath is what a socket's name may have, in bytes: 108 of sun_path with
// the zero at its end, 104 on some systems.
const longestPath = len(syscall.RawSockaddrUnix{}.Path) - 1

func socketPath(stateDir string) (string, error) {
	path := filepath.Join(stateDir, socketFile)
	if len(path) > longestPath {
		return "", fmt.Errorf("control socket: %s has %d characters, the system allows %d: use a shorter state_dir", path, len(path), longestPath)
	}
	return path, nil
}

// Listen makes the socket. The caller has the state directory to itself: a
// socket that is there already is what an agent has left that was killed.
//
// The file stays when the listener is closed: by then the next agent may have
// made its own.
func Listen(stateDir string) (net.Listener, error) {
	path, err := socketPath(stateDir)
	if err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("control socket: %s is something else; move it away", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("control socket: %w", err)
		}
	}
	// The mode of the file is that of the socket when it is bound (unix(7)):
	// there is no moment at which others could connect.
	private := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	l, err := private.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l, nil
}

// dial connects to the agent that works in a state directory.
func dial(ctx context.Context, stateDir string) (net.Conn, error) {
	path, err := socketPath(stateDir)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w in %s", ErrNotRunning, stateDir)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%w to ask the agent in %s", ErrNotPermitted, stateDir)
	default:
		return nil, fmt.Errorf("control socket: %w", err)
	}
}
