package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/agent"
	"terminalops/transport"
)

// patient is a supervisor with a watchdog.
type patient struct {
	events []string
	within time.Duration
}

func (p *patient) logHandler(io.Writer, slog.Leveler) slog.Handler { return slog.DiscardHandler }
func (p *patient) logFile(string) string                           { return "" }
func (p *patient) reload() <-chan os.Signal                        { return nil }
func (p *patient) ready(*agent.Agent, *config)                     {}
func (p *patient) stopping()                                       {}
func (p *patient) patience() time.Duration                         { return p.within }
func (p *patient) alive()                                          { p.events = append(p.events, "alive") }
func (p *patient) dead()                                           { p.events = append(p.events, "dead") }

// The supervisor hears of an agent that works several times within its patience,
// of one that hangs nothing, and that it is dead when the patience is over; also
// if it hangs so that it does not even answer.
func TestWatch(t *testing.T) {
	hangs := errors.New("hangs")
	tests := []struct {
		name  string
		alive func(ctx context.Context, second int) error
		want  []string
	}{
		{"works", func(context.Context, int) error { return nil }, []string{"alive", "alive", "alive", "alive", "alive", "alive", "alive"}},
		{"hangs for a while", func(_ context.Context, second int) error {
			if second >= 10 && second < 40 {
				return hangs
			}
			return nil
		}, []string{"alive", "alive", "alive", "alive"}},
		{"hangs", func(context.Context, int) error { return hangs }, []string{"dead", "dead"}},
		{"does not answer", func(ctx context.Context, _ int) error { <-ctx.Done(); return hangs }, []string{"dead"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				s := &patient{within: time.Minute}
				start := time.Now()
				go watch(ctx, func(ctx context.Context) error {
					return tt.alive(ctx, int(time.Since(start)/time.Second))
				}, s, slog.New(slog.DiscardHandler))
				time.Sleep(61 * time.Second)
				synctest.Wait()
				stop()
				synctest.Wait()
				if !reflect.DeepEqual(s.events, tt.want) {
					t.Errorf("have %q, want %q", s.events, tt.want)
				}
			})
		})
	}
}

// slow is a supervisor that needs a second to hear that the agent stops.
type slow struct{ patient }

func (s *slow) stopping() {
	time.Sleep(time.Second)
	s.events = append(s.events, "stopping")
}

func TestSupervisorHearsOfAStopBeforeTheEnd(t *testing.T) {
	for _, interrupted := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			s := &slow{}
			wait := announceStop(ctx, s, slog.New(slog.DiscardHandler))
			if interrupted {
				interrupt()
				synctest.Wait() // it is being told
			}
			wait()
			if heard := len(s.events) == 1; heard != interrupted {
				t.Errorf("interrupted: %v, heard of it: %q", interrupted, s.events)
			}
		})
	}
}

func TestLineHandler(t *testing.T) {
	type record struct {
		level slog.Level
		line  string
		attrs []slog.Attr
	}
	var have []record
	logger := slog.New(&lineHandler{level: slog.LevelInfo, write: func(level slog.Level, line string, attrs []slog.Attr) error {
		have = append(have, record{level, line, attrs})
		return nil
	}})
	logger.Debug("not wanted")
	lane := logger.With("terminal", "T1")
	lane.Warn("waiting", "operation", "op-1", "seconds", 3)
	lane.With("a", 1).Info("one")
	expires := transport.At(time.Date(2026, 6, 29, 9, 0, 0, 0, time.UTC))
	lane.Info("later", "expires_at", expires, "why", `no "answer"`)
	lane.With("b", 2).Info("two") // does not write over the attributes of the line before
	want := []record{
		{slog.LevelWarn, "waiting terminal=T1 operation=op-1 seconds=3", []slog.Attr{slog.String("terminal", "T1"), slog.String("operation", "op-1"), slog.Int("seconds", 3)}},
		{slog.LevelInfo, "one terminal=T1 a=1", []slog.Attr{slog.String("terminal", "T1"), slog.Int("a", 1)}},
		{slog.LevelInfo, `later terminal=T1 expires_at=2026-06-29T09:00:00Z why="no \"answer\""`,
			[]slog.Attr{slog.String("terminal", "T1"), slog.Any("expires_at", expires), slog.String("why", `no "answer"`)}},
		{slog.LevelInfo, "two terminal=T1 b=2", []slog.Attr{slog.String("terminal", "T1"), slog.Int("b", 2)}},
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("have %v\nwant %v", have, want)
	}
}

// The agent's own log, for send_logs, has the same lines wherever they go.
func TestLogTailSeesAll(t *testing.T) {
	for name, s := range map[string]supervisor{"console": console{io.Discard}, "service": testedSupervisor(t)} {
		latest := new(logTail)
		slog.New(s.logHandler(latest, slog.LevelInfo)).With("terminal", "T1").Info("started")
		if tail := latest.masked(); !bytes.Contains(tail, []byte("msg=started terminal=T1")) {
			t.Errorf("%s: the tail is %q", name, tail)
		}
	}
}
