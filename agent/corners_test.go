package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"terminalops/device"
	"terminalops/device/devicetest"
	"terminalops/transport"
	"terminalops/transport/transporttest"
)

// The PC sleeps between a hello and its welcome, which then looks fresh to the
// monotonic clock.
func TestSuspendBetweenHelloAndWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := memory(t)
		b.Delay(func(p transporttest.Published) (time.Duration, time.Duration) {
			if p.Kind == transport.Welcome || p.Kind == transport.Commands {
				return 0, 3 * time.Second
			}
			return 0, 0
		})
		w.start()
		synctest.Wait() // the welcome is on its way
		c := w.command("x", device.EndOfDay)
		w.send(c)
		time.Sleep(time.Second)
		w.suspend(3 * time.Hour)
		w.wantFinal("x", "expired no")
		w.wantActs(0)
	})
}

// An operation with an endless name is refused like any other bad command.
func TestEndlessOperation(t *testing.T) {
	c := transport.Command{OperationID: "x", TerminalID: terminal, Operation: strings.Repeat("a", 65300), IssuedAt: transport.At(time.Now()), ExpiresAt: transport.At(time.Now())}
	p := transport.Encode(c)
	if len(p) > transport.MaxPayload {
		t.Fatal(len(p))
	}
	a, err := New(Options{StateDir: t.TempDir(), Lanes: []Lane{{ID: terminal, Terminal: new(devicetest.Terminal)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	done := make(chan error, 1)
	go func() {
		done <- a.lanes[0].Receive(t.Context(), transport.Message{TerminalID: terminal, Kind: transport.Commands, Payload: p})
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Receive does not end, and holds l.mu")
	}
}

// A time that could not be written again must not reach the journal: the agent
// would not start any more.
func TestTimeOutOfRange(t *testing.T) {
	for _, at := range []string{"9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00+01:00"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _ := memory(t)
				w.start()
				w.bus.Publish(w.id, transport.Commands, []byte(fmt.Sprintf(`{"operation_id":"p","terminal_id":%q,"operation":"end_of_day","issued_at":"2000-01-01T00:00:00Z","expires_at":%q}`, terminal, at)), false)
				w.cloud.await(t, time.Minute, "final", func() bool { return len(w.cloud.finals["p"]) > 0 })
				w.end()
				a, err := New(Options{StateDir: w.dir, Lanes: []Lane{{ID: terminal, Terminal: w.device, End: w.bus.Agent(terminal)}}})
				if err != nil {
					t.Fatal("the agent does not start any more:", err)
				}
				a.Close()
			})
		})
	}
}

// After a restart the PC's clock, which may be fast by days, does not end the
// time for asking.
func TestGiveUpNotByThePCsClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.time.set(48 * time.Hour)
		w.device.Set(devicetest.Script{Work: time.Hour})
		w.start()
		w.send(w.command("x", device.EndOfDay))
		w.cloud.await(t, time.Minute, "RUNNING", func() bool { return w.cloud.pending["x"].Running })
		w.end()
		w.device.Set(devicetest.Script{Resolve: func(p device.Past) (device.Outcome, error) {
			if p.GiveUp {
				return device.Outcome{Failure: &device.Failure{Cause: device.Unknown, Executed: device.Perhaps, Message: "gave up"}}, nil
			}
			return device.Outcome{Effect: device.Done}, nil
		}})
		w.start()
		w.wantFinal("x", "COMPLETED")
	})
}

// slow waits before Begin, like an adapter that opens its link.
type slow struct {
	*devicetest.Terminal
	wait time.Duration
}

func (s *slow) Execute(ctx context.Context, r device.Request, w device.Witness) (device.Outcome, error) {
	select {
	case <-ctx.Done():
		return device.Outcome{}, ctx.Err()
	case <-time.After(s.wait):
	}
	return s.Terminal.Execute(ctx, r, w)
}

// startWith starts the agent with another terminal and changed options.
func (w *world) startWith(term device.Terminal, change func(*Options)) *Agent {
	o := w.options
	o.StateDir, o.Time, o.Version = w.dir, w.time, "test"
	o.Lanes = []Lane{{ID: w.id, Link: "scripted", Terminal: term, End: w.bus.Agent(w.id)}}
	o.Grace = time.Nanosecond
	if change != nil {
		change(&o)
	}
	a, err := New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.agent, w.stop, w.ended = a, cancel, make(chan error, 1)
	go func() { w.ended <- a.Run(ctx) }()
	return a
}

// An operation that a stop overtakes before begin is executed by the next start.
func TestStopBeforeBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.startWith(&slow{w.device, time.Hour}, nil)
		time.Sleep(time.Second)
		w.send(w.command("x", device.EndOfDay))
		time.Sleep(time.Second)
		w.end()
		w.start()
		w.wantFinal("x", "COMPLETED")
		w.wantActs(1)
	})
}

// Presence says offline also when the grace was too short for the operation.
func TestOfflineAfterAnImpatientStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := memory(t)
		w.options.Grace = 20 * time.Second
		w.device.Set(devicetest.Script{Work: time.Hour})
		w.start()
		w.send(w.command("x", device.EndOfDay))
		w.cloud.await(t, time.Minute, "RUNNING", func() bool { return w.cloud.pending["x"].Running })
		w.end()
		if p := string(b.Retained(terminal, transport.Presence)); !strings.Contains(p, `"offline"`) {
			t.Errorf("presence of an agent that has ended: %s", p)
		}
	})
}

// Evidence counts also behind some that could not be written.
func TestEvidenceAfterAFailedWrite(t *testing.T) {
	j := mustOpen(t, t.TempDir())
	e := newEntry("a")
	if err := j.add(e); err != nil {
		t.Fatal(err)
	}
	// number 0 could not be written
	if err := j.record(e, device.Evidence{Kind: "completion", Data: []byte("0")}); err != nil {
		t.Fatal(err)
	}
	if all, err := j.evidence(e); err != nil || len(all) != 1 {
		t.Errorf("evidence on disk is not read: %v %v", all, err)
	}
}

// The number of the connection rises also over times without a disk.
func TestConnectionNumberOnlyRises(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		var full atomic.Bool
		a := w.startWith(w.device, func(o *Options) {
			o.cut = func(when string) error {
				if full.Load() && when == "before" {
					return errors.New("no space left on device")
				}
				return nil
			}
		})
		time.Sleep(time.Second)
		l := a.lanes[0]
		full.Store(true)
		for range 5 {
			l.Connecting()
		}
		high := l.connection
		full.Store(false)
		l.Connecting()
		if l.connection <= high {
			t.Errorf("connection %d after %d", l.connection, high)
		}
	})
}

// Nothing starts before what the welcome says is on disk.
func TestWelcomeThatCannotBeRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.start()
		w.wantNext()
		w.end()
		old := w.command("old", device.OpenMenu) // issued before the new journal is born
		old.ExpiresAt = transport.At(time.Now().Add(time.Hour))
		w.send(old)
		time.Sleep(time.Second)
		writeJournal(w, []byte(strings.Repeat("damage", 5000)))
		w.cloud.setDeaf(true)
		var broken atomic.Bool
		w.options.cut = func(when string) error {
			if broken.Load() && when == "before" {
				return errors.New("input/output error")
			}
			return nil
		}
		w.start()
		time.Sleep(time.Second) // old is journaled
		broken.Store(true)
		w.cloud.setDeaf(false)
		time.Sleep(5 * time.Minute)
		w.wantActs(1)
		broken.Store(false)
		w.wantFinal("old", "outcome_unknown unknown")
		w.wantActs(1)
		w.wantNext()
	})
}

// An operation may be abandoned while the worker opens the link for it.
func TestAbandonedBeforeBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := memory(t)
		w.cloud.deaf = true
		a := w.startWith(&slow{w.device, 3 * time.Second}, nil)
		_ = a
		time.Sleep(time.Second)
		w.send(w.command("x", device.EndOfDay))
		synctest.Wait()
		w.cloud.mu.Lock()
		w.cloud.pending["x"] = transport.Pending{Command: w.cloud.pending["x"].Command, AcceptedAt: transport.At(time.Now())} // another has it
		w.cloud.deaf = false
		w.cloud.mu.Unlock()
		// PUBACKs are slow, as over a mobile network
		b.Delay(func(p transporttest.Published) (time.Duration, time.Duration) {
			if p.From == terminal {
				return time.Second, 0
			}
			return 0, 0
		})
		time.Sleep(time.Minute)
		w.wantNext()
	})
}

// badEnd is an end whose configuration turns out to be wrong.
type badEnd struct{ after time.Duration }

func (e badEnd) Run(ctx context.Context, h transport.Handler) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(e.after):
		return errors.New("wrong")
	}
}

// A lane whose configuration is wrong ends the agent, within the grace of the
// others.
func TestWrongConfigurationEndsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.device.Set(devicetest.Script{Work: 10 * time.Hour})
		w.startWith(w.device, func(o *Options) {
			o.Lanes = append(o.Lanes, Lane{ID: "T2", Terminal: new(devicetest.Terminal), End: badEnd{10 * time.Second}})
			o.Grace = 25 * time.Second
		})
		time.Sleep(time.Second)
		w.send(w.command("x", device.EndOfDay))
		began := time.Now()
		err := <-w.ended
		w.stop = nil
		if took := time.Since(began); took > time.Minute {
			t.Errorf("the stop took %v (%v)", took, err)
		}
	})
}

// An entry that cannot be read is damage.
func TestUnreadableEntry(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir)
	e := newEntry("a")
	if err := j.add(e); err != nil {
		t.Fatal(err)
	}
	j.update(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketEntries).Put(sequenceKey(e.Sequence), []byte("{\"comm\x00nd\":"))
	})
	j.close()
	a, err := New(Options{StateDir: dir, Lanes: []Lane{{ID: terminal, Terminal: new(devicetest.Terminal)}}})
	if err != nil {
		t.Fatal("the agent does not start, and the journal is not set aside:", err)
	}
	a.Close()
}

// Files keep apart whatever the terminal calls them.
func TestSpoolNames(t *testing.T) {
	s := &spool{dir: t.TempDir(), room: 1000}
	for name, content := range map[string]string{"a/b": "longer content", "a_b": "short"} {
		if err := s.Put(name, []byte(content), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeArchive(filepath.Join(s.dir, "x.tar.gz"), s, time.Now()); err != nil {
		t.Error("archive:", err)
	}
	if err := s.Put("..", []byte("x"), 0); err != nil {
		t.Error("name of dots:", err)
	}
}

// An endless text of an adapter is cut.
func TestEndlessText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.device.Set(devicetest.Script{Before: fmt.Errorf("%w: %s", device.ErrUnreachable, strings.Repeat("x", 70000))})
		w.start()
		w.send(w.command("x", device.EndOfDay))
		w.patience = 10 * time.Minute
		w.wantFinal("x", "device_unreachable no")
	})
}

// Each unfinished operation has its room, whatever its lane.
func TestReservedRoomOfSeveralLanes(t *testing.T) {
	j := mustOpen(t, t.TempDir())
	var all []*entry
	for i := range 4 {
		e := newEntry("a")
		e.Command.TerminalID = fmt.Sprint("T", i)
		if err := j.add(e); err != nil { // as each lane says
			t.Fatal(err)
		}
		all = append(all, e)
	}
	before := hw(j)
	for _, e := range all {
		if err := j.advance(e, func(e *entry) { e.State, e.Final = finished, []byte(strings.Repeat("x", transport.MaxPayload)) }); err != nil {
			t.Fatal(err)
		}
	}
	if after := hw(j); after != before {
		t.Errorf("results grew the file from %d to %d pages", before, after)
	}
}

// Room is found also between the large reports of others.
func TestReservedRoomBesideLargeReports(t *testing.T) {
	j := mustOpen(t, t.TempDir())
	for i := range 6 {
		e := newEntry(fmt.Sprint(i))
		if err := j.add(e); err != nil {
			t.Fatal(err)
		}
		before := hw(j)
		for range 10 {
			j.record(e, device.Evidence{Kind: "line", Data: []byte(`"` + strings.Repeat("r", 1000) + `"`)})
		}
		if err := j.advance(e, func(e *entry) { e.State = started }); err != nil {
			t.Fatal(err)
		}
		if err := j.advance(e, func(e *entry) { e.State, e.Final = finished, []byte(strings.Repeat("x", transport.MaxPayload)) }); err != nil {
			t.Fatal(err)
		}
		if err := j.advance(e, func(e *entry) { e.Reported = true }); err != nil {
			t.Fatal(err)
		}
		if after := hw(j); after != before {
			t.Errorf("operation %d: result grew the file from %d to %d pages", i, before, after)
		}
	}
}

// hw is how many pages the file has ever used.
func hw(j *journal) (pages uint64) {
	j.db.View(func(tx *bolt.Tx) error { pages = uint64(tx.Size()) / uint64(j.db.Info().PageSize); return nil })
	return pages
}

// A welcome that nobody asked for tells no time.
func TestWelcomeWithoutAHello(t *testing.T) {
	dir := t.TempDir()
	a, err := New(Options{StateDir: dir, Lanes: []Lane{{ID: terminal, Terminal: new(devicetest.Terminal)}}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	l := a.lanes[0]
	l.Receive(t.Context(), transport.Message{TerminalID: terminal, Kind: transport.Welcome, Retained: true, Payload: []byte(`{"nonce":"","server_time":"2020-01-01T00:00:00Z"}`)})
	if at, known := l.clock.latest(); known {
		t.Errorf("nobody said hello, and the cloud's time is %v", at)
	}
}

// The PC's clock does not end the time for uploading either.
func TestUploadNotByThePCsClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.time.set(3 * time.Hour)
		server := &logServer{answers: []int{503, 503, 503, 503, 503}}
		w.options.HTTP = server.client()
		w.device.Set(logScript)
		w.start()
		w.send(w.logCommand("x"))
		time.Sleep(2 * time.Second)
		w.end()
		w.start()
		w.wantFinal("x", "COMPLETED")
	})
}

// A commit may reach the disk and return an error all the same.
func TestAcceptedByHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		var fail atomic.Bool
		w.options.cut = func(when string) error {
			if when == "after" && fail.CompareAndSwap(true, false) {
				return errors.New("fdatasync: input/output error")
			}
			return nil
		}
		w.start()
		w.wantNext()
		time.Sleep(time.Minute)
		fail.Store(true)
		w.patience = 10 * time.Minute
		w.send(w.commandFor(5*time.Minute, "x", device.EndOfDay))
		w.wantFinal("x", "COMPLETED")
	})
}

// A damaged journal may have started what is cancelled now.
func TestCancelAfterDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.device.Set(devicetest.Script{Work: time.Hour})
		w.start()
		c := w.command("x", device.EndOfDay)
		w.send(c)
		w.cloud.await(t, time.Minute, "RUNNING", func() bool { return w.cloud.pending["x"].Running })
		w.end()
		cancel := c
		cancel.Cancel, cancel.Operation, cancel.IssuedAt = true, "", transport.At(time.Now())
		w.send(cancel)
		writeJournal(w, []byte(strings.Repeat("damage", 5000)))
		w.device.Set(devicetest.Script{})
		w.start()
		time.Sleep(time.Minute)
		w.cloud.mu.Lock()
		defer w.cloud.mu.Unlock()
		for _, f := range w.cloud.finals["x"] {
			if strings.Contains(f, `"executed":"no"`) {
				t.Errorf("the terminal acted, and yet: %s", f)
			}
		}
	})
}

// notYet says the first time that it is busy, after Begin.
type notYet struct {
	*devicetest.Terminal
	n int
}

func (s *notYet) Execute(ctx context.Context, r device.Request, w device.Witness) (device.Outcome, error) {
	if s.n++; s.n == 1 {
		if err := w.Begin(nil); err != nil {
			return device.Outcome{}, err
		}
		return device.Outcome{}, fmt.Errorf("%w: %w", device.ErrNotStarted, device.ErrBusy)
	}
	return s.Terminal.Execute(ctx, r, w)
}

// An adapter that has called Begin is not asked again, whatever it says.
func TestNotStartedAndBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.startWith(&notYet{w.device, 0}, nil)
		time.Sleep(time.Second)
		w.send(w.command("x", device.EndOfDay))
		w.final("x")
	})
}
