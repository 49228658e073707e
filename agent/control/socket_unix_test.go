//go:build !windows

package control

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain uses /tmp where TMPDIR is long: the path of a socket has a limit, to
// which a test's directory adds about 50 characters.
func TestMain(m *testing.M) {
	if len(os.TempDir()) > longestPath/2 {
		os.Setenv("TMPDIR", "/tmp")
	}
	os.Exit(m.Run())
}

// Only the account of the agent may connect, from the first moment on.
func TestSocketIsPrivate(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(filepath.Join(dir, socketFile))
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// An agent that was killed leaves its socket, which the next one replaces; and
// what one leaves that ends later than the next one starts is not the other's.
func TestStaleSocket(t *testing.T) {
	dir := t.TempDir()
	first, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	conn, err := dial(t.Context(), dir)
	if err != nil {
		t.Fatal("the second one's socket went with the first:", err)
	}
	conn.Close()
	second.Close()
	if _, err := dial(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody listens: %v", err)
	}
}

// What is no socket is not ours to remove.
func TestSocketNameIsTaken(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, socketFile)
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(dir); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("have %v", err)
	}
	if content, err := os.ReadFile(path); string(content) != "precious" {
		t.Errorf("the file is gone: %v", err)
	}
}

// The longest name that the system allows works; one more is an error that says
// what to do.
func TestLongPath(t *testing.T) {
	base, err := os.MkdirTemp("/tmp", "t")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	for _, more := range []int{0, 1} {
		dir := filepath.Join(base, strings.Repeat("d", longestPath-len(base)-len(socketFile)-2+more))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := Listen(dir)
		if more == 0 {
			if err != nil {
				t.Fatal(err)
			}
			var conn net.Conn
			if conn, err = dial(t.Context(), dir); err == nil {
				conn.Close()
			}
			l.Close()
		}
		if (err != nil) != (more > 0) || err != nil && !strings.Contains(err.Error(), "use a shorter state_dir") {
			t.Errorf("%d more: %v", more, err)
		}
		if _, err := dial(context.Background(), dir); more > 0 && (err == nil || !strings.Contains(err.Error(), "shorter")) {
			t.Errorf("%d more: dial: %v", more, err)
		}
	}
}
