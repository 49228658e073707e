package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device"
	"terminalops/device/devicetest"
	"terminalops/device/zvt/frame"
	"terminalops/transport"
)

// The stop test stops the service at every message of an operation, to the
// terminal and from it, with the time that the system grants:
//
//	stop            grace is over              Run has returned
//	 |-------------------|----------------------------|
//	 what the terminal says is      not a byte is written
//	 answered, nothing new starts   to the terminal
//
// It asks for: no command to a terminal that is master, and nothing at all once
// the grace is over; the port closed; Run returned in time. Then the next start
// finds out: one act, and a final report with the truth.

// What the terminal is like from the stop on.
const (
	well   = "well"
	slow4s = "slow"   // so slow that the protocol just about bears it
	silent = "silent" // all that it says is lost
)

// granted is the time that a system grants, and what of it the agent waits for
// the terminal, as cmd/terminal-agent has it.
type granted struct {
	system       string
	limit, grace time.Duration
}

var (
	onLinux   = granted{"linux", 30 * time.Second, 25 * time.Second}
	onWindows = granted{"windows", 3 * time.Second, time.Second}
)

// halt stops the agent at the n-th place.
type halt struct {
	granted
	mood string
	at   int
	stop context.CancelFunc

	mu      sync.Mutex
	places  int
	where   string
	stopped time.Time // zero: not yet
	after   []string  // what was written after the stop
	late    []string  // what was written after the grace
	open    int       // lines
}

func (h *halt) place(format string, b []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.places++; h.places == h.at {
		h.where, h.stopped = fmt.Sprintf(format, b), time.Now()
		h.stop()
	}
}

// since is how long ago the stop was; false: it is still to come.
func (h *halt) since() (time.Duration, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.stopped), !h.stopped.IsZero()
}

// ours is the agent's side of a line.
type ours struct {
	net.Conn
	h    *halt
	once sync.Once
}

func (l *ours) Write(b []byte) (int, error) {
	l.h.place("before writing % X", b)
	if ago, stopped := l.h.since(); stopped {
		l.h.mu.Lock()
		l.h.after = append(l.h.after, fmt.Sprintf("% X", b))
		if ago > l.h.grace {
			l.h.late = append(l.h.late, fmt.Sprintf("% X %v after the stop", b, ago))
		}
		l.h.mu.Unlock()
	}
	return l.Conn.Write(b)
}

func (l *ours) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.h.place("after reading % X", b[:n])
	}
	return n, err
}

func (l *ours) Close() error {
	l.once.Do(func() {
		l.h.mu.Lock()
		defer l.h.mu.Unlock()
		l.h.open--
	})
	return l.Conn.Close()
}

// theirs is the terminal's side.
type theirs struct {
	net.Conn
	h *halt
}

func (l *theirs) Write(b []byte) (int, error) {
	if _, stopped := l.h.since(); stopped && l.h.mood == silent {
		return len(b), nil
	} else if stopped && l.h.mood == slow4s {
		time.Sleep(4 * time.Second)
	}
	return l.Conn.Write(b)
}

// stopAt lets one operation run into a stop at the n-th place; it returns false
// if there are not so many.
func stopAt(t *testing.T, op device.Operation, scenario string, serial bool, g granted, mood string, n int) (more bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, scenario, serial)
		uploads := &logServer{}
		s.options.HTTP = &http.Client{Transport: uploads.client().Transport}
		c := s.command("x", op)
		c.ExpiresAt = transport.At(time.Now().Add(10 * time.Minute)) // the next start may execute it
		if op == device.SendLogs {
			c.Upload = &transport.Upload{URL: "https://logs.example.com/1"}
		}
		s.send(c)

		h := &halt{granted: g, mood: mood, at: n}
		took := s.runInto(h)
		synctest.Wait() // what the broker has taken is with the cloud
		if more = !h.stopped.IsZero(); !more {
			return
		}
		fail := func(format string, args ...any) {
			t.Helper()
			t.Errorf("stopped %s: %s", h.where, fmt.Sprintf(format, args...))
		}
		acted := s.terminal.Did(acted[op])
		if took > g.limit {
			fail("Run took %v, %s grants %v", took, g.system, g.limit)
		}
		if h.open != 0 {
			fail("%d lines are still open", h.open)
		}
		if len(h.late) > 0 {
			fail("written after the grace: %q", h.late)
		}
		if i := slices.IndexFunc(h.after, isAbort); i >= 0 {
			fail("an abort was written: %s", h.after[i])
		}
		e, evidence := s.journaled("x")
		switch {
		case len(acted) > 0 && e.State == accepted:
			fail("the terminal has acted, and the journal knows nothing of it")
		case mood == well && e.State == started && op != device.CheckUpdate: // which ends where nobody sees it
			fail("the terminal could have ended it in time, and it was left")
		case mood == well && e.State == finished && (!e.Reported || len(s.cloud.finals["x"]) != 1):
			fail("the result was there, and was not sent")
		}

		s.boot(newPower(0), "final report after the next start", func() bool { return len(s.cloud.finals["x"]) > 0 })
		s.wantTruth(op, h, slices.ContainsFunc(evidence, func(e device.Evidence) bool { return e.Kind == "accepted" }), len(uploads.bodies), fail)
	})
	return more
}

func isAbort(written string) bool {
	return strings.HasPrefix(written, "06 B0") || strings.HasPrefix(written, "10 02 06 B0")
}

// runInto runs the agent until it is stopped and has ended, and returns how long
// that took; or until the operation is reported, if the stop does not come.
func (s *store) runInto(h *halt) (took time.Duration) {
	s.t.Helper()
	open := func(context.Context) (frame.Stream, error) {
		here, there := net.Pipe()
		h.mu.Lock()
		h.open++
		h.mu.Unlock()
		s.serve(&theirs{there, h})
		return &ours{Conn: here, h: h}, nil
	}
	a, err := New(Options{
		StateDir: s.dir, Time: s.time, Grace: h.grace, HTTP: s.options.HTTP,
		Logger: slog.New(slog.NewTextHandler(s.t.Output(), nil)),
		Lanes:  []Lane{{ID: s.id, Link: "test", Terminal: s.adapter(open), End: s.bus.Agent(s.id)}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h.stop = cancel
	go func() {
		s.cloud.await(s.t, 6*time.Hour, "final report", func() bool { return len(s.cloud.finals["x"]) > 0 || ctx.Err() != nil })
		cancel()
	}()
	if err := a.Run(ctx); err != nil {
		s.t.Errorf("stopped %s: %v", h.where, err)
	}
	s.cloud.mu.Lock()
	s.cloud.notify() // the goroutine ends
	s.cloud.mu.Unlock()
	took, _ = h.since()
	return took
}

// journaled is what the agent has left of an operation.
func (s *store) journaled(id string) (*entry, []device.Evidence) {
	s.t.Helper()
	j := mustOpen(s.t.(*testing.T), s.dir)
	defer j.close()
	e, err := j.find(s.id, id)
	if err != nil || e == nil {
		s.t.Fatalf("%s in the journal: %v, %v", id, e, err)
	}
	evidence, err := j.evidence(e)
	if err != nil {
		s.t.Fatal(err)
	}
	return e, evidence
}

// wantTruth compares the final report with what the terminal really did.
// acceptance: the journal had it that the terminal took the command.
func (s *store) wantTruth(op device.Operation, h *halt, acceptance bool, archives int, fail func(string, ...any)) {
	s.t.Helper()
	for _, v := range s.terminal.Violations() {
		// An agent that has left does not answer, or only after the next start.
		if !strings.HasPrefix(v, "no answer") && !strings.HasPrefix(v, "80 00 came later") {
			fail("violation: %s", v)
		}
	}
	r := s.cloud.reportOf(s.t, "x")
	if op == device.SendLogs {
		if r.State != transport.StateCompleted || archives == 0 {
			fail("%s with %d archives: %+v", r.State, archives, r.Error)
		}
		return
	}
	if acts := s.terminal.Did(acted[op]); len(acts) != 1 {
		fail("the terminal acted %d times", len(acts))
	}
	mayBeUnknown := op != device.EndOfDay && !acceptance // nobody can know it then
	switch {
	case r.State == transport.StateCompleted && op == device.EndOfDay && !hasTotals(r, s.terminal):
		fail("the totals are not those of the terminal: %s", r.Result)
	case r.State == transport.StateCompleted:
	case !mayBeUnknown || r.Error.Code != transport.CodeOutcomeUnknown || r.Error.Executed == transport.ExecutedNo:
		fail("%s: %+v", r.State, r.Error)
	}
}

func TestStop(t *testing.T) {
	for _, tt := range []struct {
		op       device.Operation
		scenario string
	}{
		{device.EndOfDay, "success"},
		{device.SendLogs, "success+files-unknown-84"},
		{device.CheckUpdate, "success"},
		{device.OpenMenu, "success"},
		{device.OpenMenu, "menu-b"},
	} {
		for _, serial := range []bool{true, false} {
			for _, g := range []struct {
				granted
				mood string
			}{{onLinux, silent}, {onWindows, silent}, {onLinux, slow4s}, {onWindows, slow4s}, {onLinux, well}} {
				t.Run(fmt.Sprintf("%s %s serial=%v %s %s", tt.op, tt.scenario, serial, g.system, g.mood), func(t *testing.T) {
					t.Parallel()
					places := 1
					for stopAt(t, tt.op, tt.scenario, serial, g.granted, g.mood, places) {
						places++
					}
					t.Logf("stopped at %d places", places-1)
					if places < 10 {
						t.Errorf("only %d places to stop at", places-1)
					}
				})
			}
		}
	}
}

// Between two questions to a terminal that may still have the word the port is
// kept open. A stop closes it, too.
func TestStopBetweenQuestions(t *testing.T) {
	for at := 180 * time.Second; at < 240*time.Second; at += 1700 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			s := newStore(t, "silence-after-closing", true)
			s.send(s.command("x", device.EndOfDay))
			h := &halt{granted: onWindows, mood: well}
			time.AfterFunc(at, func() {
				h.mu.Lock()
				defer h.mu.Unlock()
				h.stopped = time.Now()
				h.stop()
			})
			if took := s.runInto(h); took > onWindows.limit || h.open != 0 || len(h.late) > 0 {
				t.Fatalf("stopped after %v: Run took %v, %d lines are open, written after the grace: %q", at, took, h.open, h.late)
			}
			s.boot(newPower(0), "final report after the next start", func() bool { return len(s.cloud.finals["x"]) > 0 })
			s.wantTruth(device.EndOfDay, h, true, 0, t.Errorf)
		})
	}
}

// Without a broker there is nobody to say goodbye to, and no time for it.
func TestStopWithoutABroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := memory(t)
		w.options.Grace = onWindows.grace
		w.device.Set(devicetest.Script{Work: time.Hour})
		w.start()
		w.send(w.command("x", device.EndOfDay))
		w.cloud.await(t, time.Minute, "RUNNING", func() bool { return w.cloud.pending["x"].Running })
		b.Down()
		time.Sleep(time.Minute)
		began := time.Now()
		w.end()
		if took := time.Since(began); took > onWindows.grace {
			t.Errorf("the stop took %v", took)
		}
	})
}
