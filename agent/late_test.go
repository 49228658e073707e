package agent

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device"
	"terminalops/device/devicetest"
	"terminalops/transport"
)

// Promises that hold between two looks: between the worker's and begin's, between
// begin's write and its look, between a question and the next.

// The deadline passes, or a cancel comes, while the adapter opens its link: begin
// has the last word.
func TestBeginLooksOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.startWith(&slow{w.device, 90 * time.Second}, nil)
		w.cloud.await(t, time.Minute, "hello", func() bool { return w.cloud.hellos > 0 })
		w.send(w.command("late", device.EndOfDay))
		w.wantFinal("late", "busy no")

		c := w.commandFor(10*time.Minute, "cancelled", device.EndOfDay)
		w.send(c)
		time.Sleep(30 * time.Second) // the link is being opened
		c.Cancel, c.Operation = true, ""
		w.send(c)
		w.wantFinal("cancelled", "cancelled no")
		w.wantActs(0)
	})
}

// hooked calls a function before Execute.
type hooked struct {
	*devicetest.Terminal
	before func()
}

func (h hooked) Execute(ctx context.Context, r device.Request, w device.Witness) (device.Outcome, error) {
	h.before()
	return h.Terminal.Execute(ctx, r, w)
}

// The PC sleeps past the deadline while Started is written: begin looks after the
// write, and not before it.
func TestSuspendWhileStartedIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		var begins atomic.Bool
		w.startWith(hooked{w.device, func() { begins.Store(true) }}, func(o *Options) {
			o.cut = func(when string) error {
				if when == "before" && begins.CompareAndSwap(true, false) {
					w.suspend(2 * time.Minute)
				}
				return nil
			}
		})
		w.cloud.await(t, time.Minute, "hello", func() bool { return w.cloud.hellos > 0 })
		w.send(w.command("x", device.EndOfDay))
		w.wantFinal("x", "busy no")
		w.wantActs(0)
	})
}

// pc is a PC's time that stands where it is set.
type pc struct {
	wall time.Time
	mono time.Duration
}

func (p *pc) Wall() time.Time          { return p.wall }
func (p *pc) Monotonic() time.Duration { return p.mono }

// The late edge decides: the cloud may have told its time as soon as it was asked.
// An answer older than maxAnswer tells none.
func TestLateEdge(t *testing.T) {
	cloud := time.Date(2026, 6, 29, 9, 0, 0, 0, time.UTC)
	for _, trip := range []time.Duration{0, 4 * time.Second, maxAnswer, maxAnswer + 1} {
		p := &pc{wall: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)}
		c := &cloudClock{source: p}
		pass := func(d time.Duration) { p.wall, p.mono = p.wall.Add(d), p.mono+d }
		sent := c.read()
		pass(trip)
		if took := c.welcome(cloud, sent); took != (trip <= maxAnswer) {
			t.Errorf("a welcome after %v: taken %v", trip, took)
		}
		pass(time.Minute)
		late, known := c.latest()
		if want := cloud.Add(trip + time.Minute); known && !late.Equal(want) {
			t.Errorf("a welcome after %v: at latest %v, want %v", trip, late, want)
		}
		if known != (trip <= maxAnswer) {
			t.Errorf("a welcome after %v: known %v", trip, known)
		}
	}
}

// A welcome to another hello than the last one tells no time.
func TestWelcomeToAnotherHello(t *testing.T) {
	a, err := New(Options{StateDir: t.TempDir(), Lanes: []Lane{{ID: terminal, Terminal: new(devicetest.Terminal)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	l := a.lanes[0]
	l.hello = hello{nonce: "ours", sent: l.clock.read()}
	l.Receive(t.Context(), welcomeTo("another"))
	if at, known := l.clock.latest(); known {
		t.Errorf("the cloud's time is %v", at)
	}
	l.Receive(t.Context(), welcomeTo("ours"))
	if _, known := l.clock.latest(); !known {
		t.Error("its own welcome tells no time")
	}
}

// Nobody has welcomed here, and the PC's clock decides. A welcome that comes too late
// to tell the time says that there is a cloud: from then on only its clock does.
func TestPCsClockCountsUntilTheFirstWelcome(t *testing.T) {
	p := &pc{wall: time.Now()}
	c := cloudClock{source: p}
	sent := c.read()
	c.useOwn()
	if _, known := c.latest(); !known {
		t.Error("the PC's clock does not count")
	}
	p.mono, p.wall = maxAnswer+time.Second, p.wall.Add(maxAnswer+time.Second)
	if c.welcome(p.wall, sent) {
		t.Error("a late welcome tells the time")
	}
	c.useOwn() // the next hello is not answered, either
	if at, known := c.latest(); known {
		t.Errorf("it is %v, says the PC's clock", at)
	}
}

func welcomeTo(nonce string) transport.Message {
	w := transport.WelcomeMessage{Nonce: nonce, ServerTime: transport.At(time.Now())}
	return transport.Message{TerminalID: terminal, Kind: transport.Welcome, Payload: transport.Encode(w)}
}

// While a terminal is asked for what became of an operation, nothing else starts.
func TestNothingStartsWhileOneIsInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		away := func(device.Past) (device.Outcome, error) { return device.Outcome{}, device.ErrUnreachable }
		w.device.Set(devicetest.Script{Lost: device.ErrUnreachable, Resolve: away})
		w.start()
		w.send(w.command("x", device.EndOfDay))
		w.send(w.commandFor(2*time.Hour, "y", device.EndOfDay))
		w.send(w.commandFor(time.Hour, "z", device.OpenMenu))
		w.wantFinal("z", "busy no")
		w.wantActs(1)
		w.device.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done}})
		w.wantFinal("x", "COMPLETED")
		w.wantFinal("y", "COMPLETED")
		w.wantActs(2)
	})
}

// A result that cannot be written is not sent, however long that takes.
func TestResultIsNotSentBeforeItIsOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		broken := w.breakDisk("input/output error")
		w.device.Set(devicetest.Script{Work: 10 * time.Second, Outcome: device.Outcome{Effect: device.Done}})
		w.start()
		w.send(w.command("x", device.EndOfDay))
		w.cloud.await(t, time.Minute, "RUNNING", func() bool { return w.cloud.pending["x"].Running })
		broken.Store(true)
		time.Sleep(time.Hour)
		if states := w.cloud.states("x"); states[len(states)-1] != transport.StateRunning {
			t.Errorf("sent, and not on disk: %v", states)
		}
		broken.Store(false)
		w.wantFinal("x", "COMPLETED")
		w.wantActs(1)
	})
}

// Each write is synced. (Whether the disk obeys is tried by packaging/try/vm.sh.)
func TestJournalIsSynced(t *testing.T) {
	j := mustOpen(t, t.TempDir())
	if j.db.NoSync || j.db.NoGrowSync {
		t.Errorf("NoSync %v, NoGrowSync %v", j.db.NoSync, j.db.NoGrowSync)
	}
}

// What a welcome says of a new journal could not be written: the time that it has
// told counts for nothing, also not for a command that comes before the next one.
func TestTimeOfAWelcomeThatCannotBeRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.start()
		w.wantNext()
		w.end()
		w.send(w.commandFor(time.Hour, "old", device.OpenMenu)) // issued before the new journal is born
		time.Sleep(time.Second)
		writeJournal(w, []byte(strings.Repeat("damage", 5000)))
		w.cloud.setDeaf(true)
		failed := make(chan struct{})
		var fail atomic.Bool
		w.options.cut = func(when string) error {
			if when == "before" && fail.CompareAndSwap(true, false) {
				close(failed)
				return errors.New("input/output error")
			}
			return nil
		}
		w.start()
		time.Sleep(time.Second) // old is journaled
		fail.Store(true)
		w.cloud.setDeaf(false)
		<-failed
		w.send(w.command("new", device.EndOfDay))
		w.wantFinal("old", "outcome_unknown unknown")
		w.wantFinal("new", "outcome_unknown unknown") // born is the journal with the next welcome
		w.wantActs(1)
		w.wantNext()
	})
}

// A cancel that was acknowledged while the worker had the operation is on disk: a
// start that comes before begin knows it.
func TestCancelOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.startWith(&slow{w.device, time.Hour}, nil)
		w.cloud.await(t, time.Minute, "hello", func() bool { return w.cloud.hellos > 0 })
		c := w.commandFor(2*time.Hour, "x", device.EndOfDay)
		w.send(c)
		time.Sleep(time.Second) // the link is being opened
		c.Cancel, c.Operation = true, ""
		w.send(c)
		time.Sleep(time.Second)
		w.end()
		w.start()
		w.wantFinal("x", "cancelled no")
		w.wantActs(0)
	})
}
