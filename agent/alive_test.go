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

const lookEvery = 20 * time.Second

// watchFor is a watchdog: it returns what Alive says, if it says anything within
// d, and when.
func watchFor(t *testing.T, a *Agent, d time.Duration) (after time.Duration, err error) {
	t.Helper()
	for began := time.Now(); time.Since(began) < d; time.Sleep(lookEvery) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err = a.Alive(ctx)
		cancel()
		if err != nil {
			return time.Since(began), err
		}
	}
	return d, nil
}

// wantDead checks that Alive says so once the patience is over, and what.
func wantDead(t *testing.T, a *Agent, what string, patience time.Duration) {
	t.Helper()
	after, err := watchFor(t, a, 2*patience)
	if err == nil || !strings.Contains(err.Error(), what+" for ") || strings.Contains(err.Error(), "\n") {
		t.Fatalf("after %v: %v; want %s, and nothing else", after, err, what)
	}
	if after < patience || after > patience+time.Minute {
		t.Errorf("%v after %v, want it after %v", err, after, patience)
	}
}

// What is slow is alive, whatever takes its time.
func TestSlowIsAlive(t *testing.T) {
	busy := func(s devicetest.Script, op device.Operation) func(*world) {
		return func(w *world) {
			w.device.Set(s)
			w.send(w.command("x", op))
		}
	}
	tests := map[string]struct {
		d     time.Duration
		begin func(*world)
	}{
		"nothing to do":          {6 * time.Hour, func(*world) {}},
		"a long T4":              {3 * time.Hour, busy(devicetest.Script{Work: 99 * time.Minute}, device.EndOfDay)},
		"a large file":           {8 * time.Hour, busy(devicetest.Script{Work: 7 * time.Hour}, device.SendLogs)},
		"a menu that stays open": {8 * time.Hour, busy(devicetest.Script{Menu: 60 * time.Hour, Outcome: device.Outcome{Effect: device.Triggered, Attend: true}}, device.OpenMenu)},
		"a terminal that is away": {3 * time.Hour, busy(devicetest.Script{Lost: errors.New("lost"), Resolve: func(device.Past) (device.Outcome, error) {
			return device.Outcome{}, device.ErrUnreachable
		}}, device.EndOfDay)},
		"a terminal that is busy": {time.Hour, func(w *world) {
			w.device.Set(devicetest.Script{Before: device.ErrBusy})
			w.send(w.commandFor(2*time.Hour, "x", device.EndOfDay))
		}},
		"a cloud that says nothing": {3 * time.Hour, func(w *world) {
			w.wantNext()
			w.cloud.setDeaf(true)
			w.suspend(time.Hour)
			w.send(w.command("x", device.EndOfDay))
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, _ := memory(t)
				a := w.startWith(w.device, nil)
				time.Sleep(time.Second)
				tt.begin(w)
				if after, err := watchFor(t, a, tt.d); err != nil {
					t.Errorf("after %v: %v", after, err)
				}
			})
		})
	}
}

// Nor does a broker that is away for hours, with results to send, make the agent
// look dead.
func TestAliveWithoutABroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := memory(t)
		a := w.startWith(w.device, nil)
		time.Sleep(time.Second)
		w.send(w.command("x", device.EndOfDay))
		b.Down()
		if after, err := watchFor(t, a, 3*time.Hour); err != nil {
			t.Errorf("after %v: %v", after, err)
		}
		b.Up()
		if after, err := watchFor(t, a, time.Hour); err != nil {
			t.Errorf("after %v: %v", after, err)
		}
	})
}

// A disk that fails and says so is no reason to start again: nothing would be
// better.
func TestAliveWithABrokenDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		var broken atomic.Bool
		w.device.Set(devicetest.Script{Work: time.Minute})
		a := w.startWith(w.device, func(o *Options) {
			o.cut = func(when string) error {
				if broken.Load() && when == "before" {
					return errors.New("input/output error")
				}
				return nil
			}
		})
		time.Sleep(time.Second)
		w.send(w.command("x", device.EndOfDay))
		time.Sleep(time.Second)
		broken.Store(true) // its result cannot be stored
		if after, err := watchFor(t, a, 2*time.Hour); err != nil {
			t.Errorf("after %v: %v", after, err)
		}
		broken.Store(false)
		w.final("x")
	})
}

// stuck is a terminal whose driver does not come back, whatever ends.
type stuck struct {
	*devicetest.Terminal
	until chan struct{}
}

func (s *stuck) Execute(context.Context, device.Request, device.Witness) (device.Outcome, error) {
	<-s.until
	return device.Outcome{}, device.ErrUnreachable
}

func TestDeadWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		s := &stuck{w.device, make(chan struct{})}
		a := w.startWith(s, nil)
		time.Sleep(time.Second)
		w.send(w.command("x", device.EndOfDay))
		time.Sleep(time.Second)
		wantDead(t, a, "terminal "+terminal+": the worker has done nothing", actPatience)
		close(s.until)
		time.Sleep(time.Second)
		if err := a.Alive(t.Context()); err != nil {
			t.Errorf("it has come back: %v", err)
		}
	})
}

// stuckEnd connects, if it does, to a network that takes nothing and gives
// nothing.
type stuckEnd struct {
	connects bool
	until    chan struct{}
}

func (e *stuckEnd) Run(ctx context.Context, h transport.Handler) error {
	if e.connects {
		h.Connecting()
		h.Connected(ctx, e)
	}
	<-e.until
	return nil
}

func (e *stuckEnd) Send(context.Context, string, transport.Kind, []byte) error {
	<-e.until
	return nil
}

func TestDeadTransport(t *testing.T) {
	for _, tt := range []struct {
		connects bool
		what     string
		patience time.Duration
	}{
		{true, "the reporter has done nothing", turnPatience},
		{false, "the transport has done nothing", sessionPatience},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _ := memory(t)
				e := &stuckEnd{tt.connects, make(chan struct{})}
				a := w.startWith(w.device, func(o *Options) { o.Lanes[0].End = e })
				time.Sleep(time.Second)
				wantDead(t, a, "terminal "+terminal+": "+tt.what, tt.patience)
				close(e.until)
			})
		})
	}
}

// byHand is a clock that a test moves.
type byHand struct {
	SystemTime
	mono atomic.Int64
}

func (c *byHand) Monotonic() time.Duration { return time.Duration(c.mono.Load()) }

func (c *byHand) move(d time.Duration) { c.mono.Add(int64(d)) }

// newByHand is an agent that does not run, with a clock that a test moves. A
// mutex that is held stops the time of a bubble.
func newByHand(t *testing.T) (*Agent, *byHand) {
	t.Helper()
	clock := &byHand{SystemTime: NewSystemTime()}
	a, err := New(Options{StateDir: t.TempDir(), Time: clock, Lanes: []Lane{{ID: terminal, Terminal: new(devicetest.Terminal)}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a, clock
}

// look is Alive with so little time that nothing is waited for.
func look(t *testing.T, a *Agent) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	began := time.Now()
	defer func() {
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("Alive took %v, and ctx had ended after 20 ms", took)
		}
	}()
	return a.Alive(ctx)
}

func TestLocksThatAreNotGivenBack(t *testing.T) {
	tests := map[string]func(*Agent) (giveBack func()){
		"journal: no write could begin": func(a *Agent) func() {
			tx, err := a.journal.db.Begin(true) // as a commit that hangs in fdatasync
			if err != nil {
				t.Fatal(err)
			}
			return func() { tx.Rollback() }
		},
		"terminal " + terminal + ": the lock was not to be had": func(a *Agent) func() {
			a.lanes[0].mu.Lock()
			return a.lanes[0].mu.Unlock
		},
	}
	for what, take := range tests {
		t.Run(what, func(t *testing.T) {
			a, clock := newByHand(t)
			if err := a.Alive(t.Context()); err != nil {
				t.Fatal(err)
			}
			giveBack := take(a)
			for silent := lookEvery; silent <= turnPatience; silent += lookEvery {
				clock.move(lookEvery)
				if err := look(t, a); err != nil {
					t.Fatalf("after %v: %v", silent, err)
				}
			}
			clock.move(lookEvery)
			if err := look(t, a); err == nil || err.Error() != what+" for 10m20s" {
				t.Errorf("have %v, want %s for 10m20s", err, what)
			}
			giveBack()
			if err := a.Alive(t.Context()); err != nil {
				t.Errorf("given back: %v", err)
			}
		})
	}
}

// The monotonic clock of Windows goes on while the PC sleeps. What was silent
// for a moment before has not been silent for a night.
func TestANightIsNoSilence(t *testing.T) {
	a, clock := newByHand(t)
	a.lanes[0].working.turn(actPatience)
	for range 100 {
		if err := a.Alive(t.Context()); err != nil {
			t.Fatal(err)
		}
		clock.move(9 * time.Hour)
	}
	a.lanes[0].working.turn(turnPatience)
	for range 30 {
		clock.move(9 * time.Hour)
		if err := a.Alive(t.Context()); err != nil {
			return
		}
	}
	t.Error("and yet it is never dead")
}
