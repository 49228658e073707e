package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"terminalops/device/trace"
)

// The way of a log line:
//
//	agent, mqtt --------------------+
//	adapter --> operationHandler ---+--> repeats --+--> the supervisor's: console, journald, event log
//	               operation=...    |  counts what |       and logTail, for send_logs
//	                                |  is the same +--> log_file
//	                                +--> tap, see events.go
//
// All of them but the tap ask one LevelVar, which reload sets anew.

// log is the log of an agent that serves.
type log struct {
	*slog.Logger
	latest  *logTail
	tap     *trace.Tap
	level   slog.LevelVar
	repeats *repeats
	file    *logFile // nil: none
}

// keptTrace is how much of what happens to each terminal is kept, in bytes: an end
// of day or two.
const keptTrace = 512 << 10

// newLog makes a log that goes to where the supervisor wants it.
func newLog(s supervisor) *log {
	l := &log{latest: new(logTail), tap: trace.NewTap(keptTrace)}
	l.through(s.logHandler(l.latest, &l.level))
	return l
}

func (l *log) through(h slog.Handler) {
	l.repeats = newRepeats(h)
	l.Logger = slog.New(slog.NewMultiHandler(l.repeats, logToTap(l.tap)))
}

// configure is what the configuration says of the log.
func (l *log) configure(c *config, s supervisor) {
	level, _ := c.level() // checked
	l.level.Set(level)
	path := s.logFile(c.StateDir)
	if c.LogFile != nil {
		path = *c.LogFile
	}
	if path != "" {
		l.file = &logFile{path: path}
		l.through(slog.NewMultiHandler(s.logHandler(l.latest, &l.level), newFileHandler(l.file, &l.level)))
	}
}

// reloads takes log_level from the configuration as it is now, whenever asked
// to, until stop is called. One that is wrong changes nothing.
func (l *log) reloads(asked <-chan os.Signal, from *source) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var reloading sync.WaitGroup
	reloading.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-asked:
				l.reload(from)
			}
		}
	})
	return func() {
		cancel()
		reloading.Wait()
	}
}

func (l *log) reload(from *source) {
	c, err := from.load()
	if err != nil {
		l.Error("reload: everything stays as it was: " + err.Error())
		return
	}
	level, _ := c.level() // checked
	l.level.Set(level)
	l.Log(context.Background(), level, fmt.Sprintf("log level is %s; the rest of the configuration is read at the next start", level))
}

// end writes what is still held back.
func (l *log) end() {
	l.repeats.flush()
	if l.file != nil {
		l.file.close()
	}
}

// working is what the terminal of a lane is at work on.
type working struct{ operation atomic.Pointer[string] }

// on sets the operation's id; empty: none.
func (w *working) on(operationID string) { w.operation.Store(&operationID) }

// operationHandler gives each line the id of the operation that a lane is at
// work on: the adapter, whose lines they are, knows of no ids.
type operationHandler struct {
	slog.Handler
	working *working
}

// Handle implements slog.Handler.
func (h operationHandler) Handle(ctx context.Context, r slog.Record) error {
	if id := h.working.operation.Load(); id != nil && *id != "" {
		r = r.Clone()
		r.AddAttrs(slog.String("operation", *id))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h operationHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return operationHandler{h.Handler.WithAttrs(attrs), h.working}
}

// WithGroup implements slog.Handler.
func (h operationHandler) WithGroup(name string) slog.Handler {
	return operationHandler{h.Handler.WithGroup(name), h.working}
}

// fileHandler writes to a logFile. An error is on disk when it returns.
type fileHandler struct {
	slog.Handler
	file *logFile
}

func newFileHandler(f *logFile, level slog.Leveler) slog.Handler {
	return fileHandler{slog.NewTextHandler(io.Writer(f), &slog.HandlerOptions{Level: level}), f}
}

// Handle implements slog.Handler.
func (h fileHandler) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelError {
		h.file.sync()
	}
	return err
}

// WithAttrs implements slog.Handler.
func (h fileHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return fileHandler{h.Handler.WithAttrs(attrs), h.file}
}

// WithGroup implements slog.Handler.
func (h fileHandler) WithGroup(name string) slog.Handler {
	return fileHandler{h.Handler.WithGroup(name), h.file}
}
