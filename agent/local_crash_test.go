package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device"
	"terminalops/device/zvt/frame"
	"terminalops/device/zvt/zvttest"
	"terminalops/transport"
)

// crashLocal is crash for an operation that somebody at the store asks for, as
// soon as the agent runs. A crash makes it neither start later nor twice, and
// what is in the journal gets its one final report.
func crashLocal(t *testing.T, op device.Operation, scenario string, serial bool, n int) (more bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, scenario, serial)
		s.options.HTTP = &http.Client{}
		var id string // as the engineer was told; empty: it was not accepted
		s.booted = func(a *Agent) { id, _ = a.Submit(s.id, string(op), "anna") }
		first := newPower(n)
		s.boot(first, "final report", func() bool { return len(s.cloud.finals) > 0 })
		more = first.isOff()

		fail := func(format string, args ...any) {
			t.Helper()
			t.Errorf("cut %s: %s", first.where, fmt.Sprintf(format, args...))
		}
		var journaled []Record
		s.booted = func(a *Agent) { journaled, _ = a.History("", 10) }
		_, totals := s.onDisk(id)
		reported := func() bool { return len(s.cloud.finals) == len(journaled) }
		s.boot(newPower(0), "quiet after the final reports on the second boot", s.cloud.quietAfter(reported))
		if len(journaled) > 1 || id != "" && (len(journaled) == 0 || journaled[0].ID != id) {
			fail("accepted as %q, and the journal has %+v", id, journaled)
		}
		openings, reports := s.opened, s.cloud.reportsSoFar()
		s.booted = nil
		s.boot(newPower(0), "quiet on the third boot", s.cloud.quietAfter(reported))
		acts := len(s.terminal.Did(acted[op])) // also while the PC had no power
		if acts > 1 {
			fail("the terminal acted %d times", acts)
		}
		if s.opened != openings {
			fail("the third boot talked to the terminal")
		}
		if have := s.cloud.reportsSoFar(); have != reports {
			fail("the third boot sent %d reports", have-reports)
		}
		for _, record := range journaled {
			r := s.cloud.reportOf(t, record.ID)
			switch {
			case r.Origin != transport.OriginLocal || r.CreatedBy != "local:anna":
				fail("origin %q, created by %q", r.Origin, r.CreatedBy)
			case record.State == transport.StateAccepted && (r.Error == nil || r.Error.Code != transport.CodeExpired || acts > 0):
				fail("it had not started, and yet the terminal acted %d times, and the report says %s %+v", acts, r.State, r.Error)
			case r.Error != nil && r.Error.Executed == transport.ExecutedNo && acts > 0:
				fail("the report says executed: no, but the terminal did act: %+v", r.Error)
			case r.State == transport.StateCompleted && acts != 1 && op != device.SendLogs:
				fail("the report says COMPLETED, but the terminal acted %d times", acts)
			case op == device.EndOfDay && (first.seen || totals) && !hasTotals(r, s.terminal):
				fail("the totals that were seen are not in the report: %s", r.Result)
			}
		}
	})
	return more
}

func TestCrashLocal(t *testing.T) {
	for _, tt := range []struct {
		op       device.Operation
		scenario string
		serial   bool
	}{
		{device.EndOfDay, "success", true},
		{device.EndOfDay, "success", false},
		{device.EndOfDay, "naive", true},
		{device.SendLogs, "success", false},
		{device.CheckUpdate, "success", true},
		{device.OpenMenu, "menu-b", true},
	} {
		t.Run(fmt.Sprintf("%s %s serial=%v", tt.op, tt.scenario, tt.serial), func(t *testing.T) {
			t.Parallel()
			places := 1
			for crashLocal(t, tt.op, tt.scenario, tt.serial, places) {
				places++
			}
			t.Logf("cut at %d places", places-1)
			if places < 20 {
				t.Errorf("only %d places to cut at: is the power connected?", places-1)
			}
		})
	}
}

// An engineer and the cloud ask for something at the same moment, again and
// again: the terminal never has two dialogues, does all that was asked for, and
// both learn how it ended.
func TestAtTheSameMoment(t *testing.T) {
	const rounds = 200
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		var log dialogues
		s := storeIn(t, w, zvttest.Options{Fast: true, Tell: log.tell}, false)
		w.startWith(s.adapter(log.oneLine(s.plugIn(newPower(0)))), nil)
		w.cloud.await(t, w.patience, "hello", func() bool { return w.cloud.hellos > 0 })
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		operations := []device.Operation{device.EndOfDay, device.CheckUpdate}
		for i := range rounds {
			c := w.command(fmt.Sprint("cloud-", i), operations[random.IntN(2)])
			kind := string(operations[random.IntN(2)])
			lead := time.Duration(random.IntN(3)) * time.Duration(random.IntN(50)) * time.Millisecond
			var id string
			var err error
			var asking sync.WaitGroup
			asking.Go(func() {
				time.Sleep(lead)
				id, err = w.agent.Submit(w.id, kind, "anna")
			})
			time.Sleep(time.Duration(random.IntN(50)) * time.Millisecond)
			w.send(c)
			asking.Wait()
			if err != nil {
				t.Fatal(err)
			}
			w.wantEnd(id, "COMPLETED")
			w.wantFinal(c.OperationID, "COMPLETED")
			w.wantFinal(id, "COMPLETED")
		}
		if did := len(s.terminal.Did(zvttest.EndOfDay)) + len(s.terminal.Did(zvttest.Update)); did != 2*rounds {
			t.Errorf("the terminal did %d things, was asked for %d", did, 2*rounds)
		}
		log.check(t, 2*rounds)
		if v := s.terminal.Violations(); len(v) > 0 {
			t.Errorf("violations: %q", v)
		}
	})
}

// dialogues is what a simulated terminal hears and says.
type dialogues struct {
	mu      sync.Mutex
	lines   []string
	open    atomic.Bool
	overlap atomic.Int64 // lines that were opened while there was one
}

func (d *dialogues) tell(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

// oneLine counts the lines that overlap.
func (d *dialogues) oneLine(open func(context.Context) (frame.Stream, error)) func(context.Context) (frame.Stream, error) {
	return func(ctx context.Context) (frame.Stream, error) {
		if !d.open.CompareAndSwap(false, true) {
			d.overlap.Add(1)
		}
		stream, err := open(ctx)
		return &countedLine{stream, func() { d.open.Store(false) }}, err
	}
}

type countedLine struct {
	frame.Stream
	closed func()
}

func (l *countedLine) Close() error {
	l.closed()
	return l.Stream.Close()
}

// check wants n acting commands in the log, each of which ends before the next
// begins.
func (d *dialogues) check(t *testing.T, n int) {
	t.Helper()
	if have := d.overlap.Load(); have > 0 {
		t.Errorf("%d lines were opened while another was open", have)
	}
	acting, began := false, 0
	for i, line := range d.lines {
		switch {
		case strings.HasPrefix(line, "<- end-of-day"), strings.HasPrefix(line, "<- software-update"):
			if acting {
				t.Fatalf("two at a time: %q", d.lines[max(i-10, 0):i+1])
			}
			acting = true
			began++
		case strings.HasPrefix(line, "-> completion"), strings.HasPrefix(line, "-> abort"):
			acting = false
		}
	}
	if began != n {
		t.Errorf("%d dialogues in the log, want %d: %q", began, n, slices.Compact(d.lines)[:min(len(d.lines), 30)])
	}
}
