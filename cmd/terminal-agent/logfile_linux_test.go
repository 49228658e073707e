package main

import (
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A disk that is full in the middle of a line: half of it is taken back, and the
// line that says so stands for itself. The limit for files of this process plays
// the disk.
func TestLogFileDiskFull(t *testing.T) {
	logger, f := newFileLog(t)
	logger.Info("before")
	before := contentOf(t, f.path)

	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(len(before)) + 20, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	logger.Info("during")
	logger.Info("during, too")
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if text := contentOf(t, f.path); text != before {
		t.Errorf("half a line is left: %q", text)
	}
	logger.Info("after")
	lines := strings.Split(contentOf(t, f.path), "\n")
	if len(lines) != 4 || lines[0]+"\n" != before || !strings.Contains(lines[1], "lines=2 error=") || !strings.Contains(lines[2], "msg=after") {
		t.Errorf("%q", lines)
	}
}
