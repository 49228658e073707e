package control

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// pipeName is the name of the pipe of the agent that works in a state directory:
// pipes are not in directories.
func pipeName(stateDir string) (*uint16, error) {
	dir, err := filepath.Abs(stateDir)
	if err != nil {
		return nil, fmt.Errorf("control pipe: %w", err)
	}
	sum := sha256.Sum256([]byte(strings.ToLower(dir)))
	return windows.UTF16PtrFromString(fmt.Sprintf(`\\.\pipe\terminal-agent-%x`, sum[:8]))
}

// access is who may use the pipe: the system, the administrators, and the
// account of this process. A service has a SID of its own; its account, which
// it shares with other services, is not let in then.
func access() (*windows.SecurityAttributes, error) {
	token := windows.GetCurrentProcessToken()
	user, err := token.GetTokenUser()
	if err != nil {
		return nil, err
	}
	groups, err := token.GetTokenGroups()
	if err != nil {
		return nil, err
	}
	self := user.User.Sid.String()
	for _, g := range groups.AllGroups() {
		// S-1-5-80 are services ([MS-DTYP] 2.4.2.4), S-1-5-80-0 are all of them.
		if sid := g.Sid.String(); strings.HasPrefix(sid, "S-1-5-80-") && sid != "S-1-5-80-0" {
			self = sid
		}
	}
	sd, err := windows.SecurityDescriptorFromString("D:P(A;;GA;;;SY)(A;;GA;;;BA)(A;;GA;;;" + self + ")")
	if err != nil {
		return nil, err
	}
	return &windows.SecurityAttributes{Length: uint32(unsafe.Sizeof(windows.SecurityAttributes{})), SecurityDescriptor: sd}, nil
}

// pipeListener is a net.Listener on a named pipe. Each client gets an instance
// of the pipe; there is always one more, which waits for the next.
type pipeListener struct {
	name   *uint16
	access *windows.SecurityAttributes

	closing   windows.Handle // an event
	closeOnce sync.Once

	mu   sync.Mutex // held by Accept
	next windows.Handle
}

// Listen makes the pipe. The caller has the state directory to itself; a pipe of
// that name that is there all the same is somebody else's, and an error.
func Listen(stateDir string) (net.Listener, error) {
	name, err := pipeName(stateDir)
	if err != nil {
		return nil, err
	}
	l := &pipeListener{name: name}
	if l.access, err = access(); err != nil {
		return nil, fmt.Errorf("control pipe: access list: %w", err)
	}
	if l.closing, err = windows.CreateEvent(nil, 1, 0, nil); err != nil {
		return nil, fmt.Errorf("control pipe: %w", err)
	}
	if l.next, err = l.instance(windows.FILE_FLAG_FIRST_PIPE_INSTANCE); err != nil {
		windows.CloseHandle(l.closing)
		return nil, err
	}
	return l, nil
}

const pipeBuffer = 64 << 10 // bytes, each way

func (l *pipeListener) instance(flags uint32) (windows.Handle, error) {
	h, err := windows.CreateNamedPipe(l.name,
		windows.PIPE_ACCESS_DUPLEX|windows.FILE_FLAG_OVERLAPPED|flags,
		windows.PIPE_TYPE_BYTE|windows.PIPE_READMODE_BYTE|windows.PIPE_WAIT|windows.PIPE_REJECT_REMOTE_CLIENTS,
		windows.PIPE_UNLIMITED_INSTANCES, pipeBuffer, pipeBuffer, 0, l.access)
	if err != nil {
		return windows.InvalidHandle, fmt.Errorf("control pipe %s: %w", windows.UTF16PtrToString(l.name), err)
	}
	return h, nil
}

// Accept implements net.Listener.
func (l *pipeListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if l.next == windows.InvalidHandle {
			return nil, net.ErrClosed
		}
		err := l.connect(l.next)
		if errors.Is(err, windows.ERROR_NO_DATA) { // it came, and has gone
			windows.DisconnectNamedPipe(l.next)
			continue
		}
		if err != nil {
			return nil, err
		}
		conn := newPipeConn(l.next, l.name)
		if l.next, err = l.instance(0); err != nil {
			conn.Close()
			return nil, err
		}
		return conn, nil
	}
}

// connect waits for a client, or for Close.
func (l *pipeListener) connect(pipe windows.Handle) error {
	done, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return fmt.Errorf("control pipe: %w", err)
	}
	defer windows.CloseHandle(done)
	wait := &windows.Overlapped{HEvent: done}
	err = windows.ConnectNamedPipe(pipe, wait)
	switch {
	case errors.Is(err, windows.ERROR_PIPE_CONNECTED):
		return nil
	case !errors.Is(err, windows.ERROR_IO_PENDING):
		return err
	}
	first, err := windows.WaitForMultipleObjects([]windows.Handle{l.closing, done}, false, windows.INFINITE)
	var none uint32
	if err != nil || first == windows.WAIT_OBJECT_0 {
		windows.CancelIoEx(pipe, wait)
		windows.GetOverlappedResult(pipe, wait, &none, true) // it is not written to any more
		return net.ErrClosed
	}
	return windows.GetOverlappedResult(pipe, wait, &none, true)
}

// Close implements net.Listener. It ends an Accept that waits.
func (l *pipeListener) Close() error {
	l.closeOnce.Do(func() {
		windows.SetEvent(l.closing)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.next != windows.InvalidHandle {
			windows.CloseHandle(l.next)
			l.next = windows.InvalidHandle
		}
		windows.CloseHandle(l.closing)
	})
	return nil
}

// Addr implements net.Listener.
func (l *pipeListener) Addr() net.Addr { return pipeAddr(windows.UTF16PtrToString(l.name)) }

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }

// pipeConn is a net.Conn: a file that was opened for overlapped operations has
// deadlines.
type pipeConn struct {
	*os.File
	addr pipeAddr
}

func newPipeConn(h windows.Handle, name *uint16) *pipeConn {
	text := windows.UTF16PtrToString(name)
	return &pipeConn{os.NewFile(uintptr(h), text), pipeAddr(text)}
}

// LocalAddr implements net.Conn.
func (c *pipeConn) LocalAddr() net.Addr { return c.addr }

// RemoteAddr implements net.Conn.
func (c *pipeConn) RemoteAddr() net.Addr { return c.addr }

// dial connects to the agent that works in a state directory, and shows it who
// we are, but does not let it act as us.
func dial(ctx context.Context, stateDir string) (net.Conn, error) {
	name, err := pipeName(stateDir)
	if err != nil {
		return nil, err
	}
	const flags = windows.FILE_FLAG_OVERLAPPED | windows.SECURITY_SQOS_PRESENT | windows.SECURITY_IDENTIFICATION
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		h, err := windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, nil, windows.OPEN_EXISTING, flags, 0)
		switch {
		case err == nil:
			return newPipeConn(h, name), nil
		case errors.Is(err, windows.ERROR_FILE_NOT_FOUND):
			return nil, fmt.Errorf("%w in %s", ErrNotRunning, stateDir)
		case errors.Is(err, windows.ERROR_ACCESS_DENIED):
			return nil, fmt.Errorf("%w to ask the agent in %s", ErrNotPermitted, stateDir)
		case !errors.Is(err, windows.ERROR_PIPE_BUSY): // all instances are taken, the next one comes
			return nil, fmt.Errorf("control pipe: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-again.C:
		}
	}
}
