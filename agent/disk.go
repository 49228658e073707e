package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// What the state directory needs of the system: to be one agent's alone, and
// names that are still there after a power cut. The system's part is in
// disk_unix.go and disk_windows.go:
//
//	lock      takes a file for this process; errLocked if another has it
//	moveFile  gives a file its name in one step, on disk when it returns
//	syncDir   puts the names in a directory on disk

// ErrInUse: another agent works in the state directory.
var ErrInUse = errors.New("in use by another terminal-agent")

// errLocked: somebody else has the lock.
var errLocked = errors.New("locked")

const (
	lockFile = "lock"
	// lockPatience is how long a lock is tried: Windows gives back the locks of
	// a process that was killed only a little later.
	lockPatience = time.Second
)

// lockDir makes dir this agent's, until the file that it returns is closed or
// the process ends, in whatever way. The file stays where it is: if it were
// deleted, two agents could each lock a file of that name.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	err = lock(f)
	for began := time.Now(); errors.Is(err, errLocked) && time.Since(began) < lockPatience; err = lock(f) {
		time.Sleep(50 * time.Millisecond)
	}
	switch {
	case errors.Is(err, errLocked):
		defer f.Close()
		return nil, fmt.Errorf("state directory %s is %w%s", dir, ErrInUse, holder(f))
	case err != nil:
		f.Close()
		return nil, fmt.Errorf("state directory %s: lock: %w", dir, err)
	}
	// Only people read who has it: without the number the lock is as good.
	if f.Truncate(0) == nil {
		f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}

// holder names the process that has the lock, or nobody if it has not said so.
func holder(f *os.File) string {
	b := make([]byte, 20)
	n, _ := f.ReadAt(b, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}

// makeDir makes a directory, and puts its name on disk if it is new. Its parent
// may be one that we may not read: then the name is on disk when the system
// sees fit.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(dir)); err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	return nil
}
