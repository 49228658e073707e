//go:build !windows

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/journal"

	"terminalops/agent"
)

// stopGrace is how long an operation at work may take once the agent is to
// stop: systemd grants 30 seconds (TimeoutStopSec in the unit), and the last
// word needs some of them.
const stopGrace = 25 * time.Second

// supervise serves under systemd: sd_notify(3) and the journal. Where these are
// not, it serves all the same.
func supervise(ctx context.Context, from *source) error {
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return configError{fmt.Errorf("WATCHDOG_USEC: %w", err)}
	}
	s := systemd{watchdog: watchdog, hangups: make(chan os.Signal, 1)}
	signal.Notify(s.hangups, syscall.SIGHUP) // ExecReload of the unit
	defer signal.Stop(s.hangups)
	s.journal, _ = journal.StderrIsJournalStream()
	err = serve(ctx, from, s)
	if err != nil && s.journal {
		return logged{err}
	}
	return err
}

// systemd is the supervisor.
type systemd struct {
	watchdog time.Duration // WatchdogSec of the unit; 0 without
	journal  bool          // stderr goes to the journal; so can fields
	hangups  chan os.Signal
}

func (s systemd) logHandler(copy io.Writer, level slog.Leveler) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	if !s.journal {
		return slog.NewTextHandler(io.MultiWriter(copy, os.Stderr), options)
	}
	return slog.NewMultiHandler(slog.NewTextHandler(copy, options), &lineHandler{level: level, write: toJournal})
}

// toJournal writes one record, with its attributes as fields: TERMINAL=,
// OPERATION= and so on.
//
// An error without any may be our last word, and goes to stderr, with its priority
// (sd-daemon(3)): the journal knows whose that is. Of what was sent with fields it
// only finds out as long as the process lives.
func toJournal(level slog.Level, line string, attrs []slog.Attr) error {
	if level >= slog.LevelError && len(attrs) == 0 {
		_, err := fmt.Fprintf(os.Stderr, "<3>%s\n", strings.ReplaceAll(line, "\n", "\n<3>"))
		return err
	}
	priority := journal.PriDebug
	switch {
	case level >= slog.LevelError:
		priority = journal.PriErr // 3
	case level >= slog.LevelWarn:
		priority = journal.PriWarning
	case level >= slog.LevelInfo:
		priority = journal.PriInfo
	}
	fields := map[string]string{"SYSLOG_IDENTIFIER": serviceName}
	for _, a := range attrs {
		fields[strings.ToUpper(a.Key)] = fieldText(a.Value)
	}
	return journal.Send(line, priority, fields)
}

// logFile: the journal keeps what we say, or whoever has our stderr.
func (systemd) logFile(string) string { return "" }

func (s systemd) reload() <-chan os.Signal { return s.hangups }

func (systemd) ready(*agent.Agent, *config) { notify(daemon.SdNotifyReady) }
func (systemd) stopping()                   { notify(daemon.SdNotifyStopping) }
func (s systemd) patience() time.Duration   { return s.watchdog }
func (systemd) alive()                      { notify(daemon.SdNotifyWatchdog) }
func (systemd) dead()                       {} // systemd notices, and takes the stacks

// notify: an error is a systemd that does not listen, and that ends us itself.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }
