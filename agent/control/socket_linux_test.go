package control

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Another account may not connect, also where the directory lets it through.
func TestOthersMayNotConnect(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("TERMINALOPS_TEST_ALL") == "1" {
			t.Fatal("needs root, to be somebody else")
		}
		t.Skip("needs root, to be somebody else")
	}
	dir, err := os.MkdirTemp("/tmp", "t")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	denied := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		if _, err := unix.SetfsuidRetUid(65534); err != nil {
			denied <- err
			return
		}
		_, err := dial(t.Context(), dir)
		denied <- err
	}()
	if err := <-denied; !errors.Is(err, ErrNotPermitted) {
		t.Errorf("nobody is told %v", err)
	}
}
