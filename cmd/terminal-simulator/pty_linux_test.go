package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
)

// openLine opens a serial line as a client does, with deadlines.
func openLine(t *testing.T, path string) frame.Conn {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	return frame.Serial(os.NewFile(uintptr(fd), path), frame.SerialOptions{})
}

func TestPTY(t *testing.T) {
	path := filepath.Join(t.TempDir(), "terminal")
	s := begin(t, "--protocol", "zvt", "--link", "pty:"+path, "--fast", "--scenario", "amounts-of-10h")
	if got := s.line("ready"); !strings.HasPrefix(got, "ready on pty:"+path) {
		t.Errorf("%q", got)
	}
	for range 2 { // clients come and go
		ecr := openLine(t, path)
		if m := closeDay(t, ecr); m.Control() != apdu.ControlCompletion {
			t.Errorf("ended with %v", m)
		}
		ecr.Close()
	}
	s.end()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the link is still there: %v", err)
	}
}

// What a killed simulator has left is replaced, and nothing else.
func TestPTYLink(t *testing.T) {
	folder := t.TempDir()
	stale, file := filepath.Join(folder, "stale"), filepath.Join(folder, "file")
	if err := os.Symlink(filepath.Join(folder, "none"), stale); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := begin(t, "--link", "pty:"+stale)
	s.line("ready")
	s.end()

	var stderr strings.Builder
	if code := run(t.Context(), []string{"--link", "pty:" + file}, nil, &stderr, &stderr); code != exitFailed || !strings.Contains(stderr.String(), file) {
		t.Errorf("code %d, %q", code, stderr.String())
	}
	if text, err := os.ReadFile(file); string(text) != "mine" {
		t.Errorf("%q, %v", text, err)
	}
}

// The port vanishes when the cable is pulled, also for who has it open, and is
// back under the same path.
func TestPullPTY(t *testing.T) {
	path := filepath.Join(t.TempDir(), "terminal")
	s := begin(t, "--link", "pty:"+path, "--fast", "--interactive")
	s.says("ready on pty:" + path)
	ecr := openLine(t, path)
	defer ecr.Close()
	s.after("pull", "the cable is pulled")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := ecr.ReadAPDU(ctx); !errors.Is(err, frame.ErrLinkLost) {
		t.Errorf("the line lives: %v", err)
	}
	s.after("plug", "plugged in again on pty:"+path) // when the link is made anew
	again := openLine(t, path)
	defer again.Close()
	if m := closeDay(t, again); m.Control() != apdu.ControlCompletion {
		t.Errorf("ended with %v", m)
	}
	s.after("pull", "the cable is pulled")
	s.end()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the link is still there: %v", err)
	}
}
