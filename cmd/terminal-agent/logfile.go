package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// A log file of our own, in place of the usual library (lumberjack): that one
// names old files by the clock, which is wrong by hours on some PCs, and then
// deletes the wrong ones; it leaves half a line where the disk was full; and its
// goroutine never ends.

const (
	logFileSize  = 2 << 20 // bytes
	logFileCount = 5       // this one, and .1 (the latest) to .4
)

// logFile is a log of bounded size. What cannot be written is lost, and counted:
// a full disk must not end the agent, or hold it up. When it can be written
// again, a line says so.
type logFile struct {
	path string

	mu      sync.Mutex
	file    *os.File // nil: not open
	size    int64
	lost    int   // lines since the last one that was written
	trouble error // why
}

// Write implements io.Writer: one call is one line. It returns no error, for
// nobody could do anything about it.
func (f *logFile) Write(line []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lost > 0 {
		text := fmt.Sprintf("time=%s level=%s msg=\"the log could not be written\" lines=%d error=%q\n",
			time.Now().Format(time.RFC3339), slog.LevelError, f.lost, f.trouble)
		if f.write([]byte(text)) == nil {
			f.lost = 0
		}
	}
	if f.lost > 0 {
		f.lost++
		return len(line), nil
	}
	if err := f.write(line); err != nil {
		f.lost, f.trouble = 1, err
	}
	return len(line), nil
}

// write writes all of a line, or nothing.
func (f *logFile) write(line []byte) error {
	if f.file == nil || f.size+int64(len(line)) > logFileSize {
		if err := f.turn(int64(len(line))); err != nil {
			return err
		}
	}
	_, err := f.file.Write(line)
	if err != nil {
		// Half a line: if it cannot be taken back either, the next one hangs on it.
		return errors.Join(err, f.file.Truncate(f.size))
	}
	f.size += int64(len(line))
	return nil
}

// turn opens the file, and moves full ones on until there is room for so many
// bytes.
func (f *logFile) turn(room int64) error {
	if err := f.open(); err != nil || f.size == 0 || f.size+room <= logFileSize {
		return err
	}
	f.closeFile()
	for n := logFileCount - 1; n > 0; n-- {
		from := f.path
		if n > 1 {
			from = fmt.Sprintf("%s.%d", f.path, n-1)
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", f.path, n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return f.open()
}

func (f *logFile) open() error {
	if f.file != nil {
		return nil
	}
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	f.file, f.size = file, info.Size()
	return nil
}

// sync waits until what was written is on disk. An error means a disk that will
// fail the next line, too.
func (f *logFile) sync() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		_ = f.file.Sync()
	}
}

func (f *logFile) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closeFile()
}

func (f *logFile) closeFile() {
	if f.file != nil {
		f.file.Close()
		f.file = nil
	}
}
