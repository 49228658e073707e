package agent

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device"
	"terminalops/device/devicetest"
	"terminalops/transport"
)

// ask has somebody at the store ask for an end of day.
func (w *world) ask() string {
	w.t.Helper()
	id, err := w.agent.Submit(w.id, string(device.EndOfDay), "anna")
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// followed follows an operation to its end, and returns what was told.
func (w *world) followed(id string) (all []Report) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), w.patience)
	defer cancel()
	if err := w.agent.Follow(ctx, id, func(r Report) { all = append(all, r) }); err != nil {
		w.t.Fatalf("follow %s: %v after %+v", id, err, all)
	}
	return all
}

// wantEnd checks how a local operation ends, as somebody at the store sees it.
func (w *world) wantEnd(id, want string) Report {
	w.t.Helper()
	all := w.followed(id)
	r := all[len(all)-1]
	have := r.State
	if r.Error != nil {
		have = r.Error.Code + " " + r.Error.Executed
	}
	if have != want {
		w.t.Errorf("%s: have %s (%+v), want %s", id, have, r.Error, want)
	}
	for _, r := range all {
		if r.Origin != transport.OriginLocal || r.CreatedBy != "local:anna" {
			w.t.Errorf("%s: origin %q, created by %q", r.State, r.Origin, r.CreatedBy)
		}
	}
	return r
}

var (
	busy   = devicetest.Script{Before: fmt.Errorf("%w: card inserted", device.ErrBusy)}
	works  = devicetest.Script{Outcome: device.Outcome{Effect: device.Done}}
	slowly = devicetest.Script{Work: 10 * time.Second, Outcome: device.Outcome{Effect: device.Done}}
)

// A local operation needs no cloud, and the cloud is told once it is there.
func TestLocalWithoutTheCloud(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := memory(t)
		b.Down()
		w.device.Set(slowly)
		w.startAlone()
		id := w.ask()
		if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(id) {
			t.Errorf("%s is no random UUID", id)
		}
		var told []string
		for _, r := range w.followed(id) {
			told = append(told, r.State+" "+r.Message)
		}
		// What was overtaken before anybody looked may be missing.
		if n := len(told); n < 2 || told[n-2] != "RUNNING working" || told[n-1] != "COMPLETED " {
			t.Errorf("followed %q", told)
		}
		w.wantEnd(id, "COMPLETED") // and again, from the journal
		w.wantActs(1)
		b.Up()
		r := w.wantFinal(id, "COMPLETED")
		if r.Origin != transport.OriginLocal || r.CreatedBy != "local:anna" {
			t.Errorf("the cloud is told of origin %q, created by %q", r.Origin, r.CreatedBy)
		}
		w.wantNext()
	})
}

// What waits for the cloud's time does not keep back an engineer, who is there
// because the cloud is not; and the engineer does not cost the cloud its command.
func TestLocalBeforeTheClockIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.start()
		w.wantNext()
		w.end()
		w.cloud.setDeaf(true)
		w.start()
		w.send(w.commandFor(time.Hour, "cloud", device.OpenMenu))
		time.Sleep(time.Minute)
		w.wantEnd(w.ask(), "COMPLETED")
		w.wantActs(2)
		w.cloud.setDeaf(false)
		w.wantFinal("cloud", "COMPLETED")
		w.wantActs(3)
	})
}

// The same while the worker has the command already and the PC's clock is set.
func TestLocalWhenTheClockIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.device.Set(busy)
		w.start()
		w.send(w.commandFor(time.Hour, "cloud", device.OpenMenu))
		w.cloud.await(t, time.Minute, "ACCEPTED", func() bool { return !w.cloud.pending["cloud"].AcceptedAt.IsZero() })
		w.cloud.setDeaf(true)
		w.time.set(time.Hour)
		w.device.Set(works)
		time.Sleep(time.Minute)
		w.wantActs(0)
		w.wantEnd(w.ask(), "COMPLETED")
		w.cloud.setDeaf(false)
		w.wantFinal("cloud", "COMPLETED")
		w.wantActs(2)
	})
}

// In one queue with those of the cloud, in order.
func TestLocalAndCloudInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.device.Set(slowly)
		w.start()
		w.send(w.command("first", device.EndOfDay))
		synctest.Wait()
		time.Sleep(time.Second)
		menu, err := w.agent.Submit(w.id, "open_menu", "anna")
		if err != nil {
			t.Fatal(err)
		}
		w.send(w.command("third", device.CheckUpdate))
		w.wantFinal("third", "COMPLETED")
		w.wantEnd(menu, "COMPLETED")
		var have []device.Operation
		for _, act := range w.device.Acts() {
			have = append(have, act.Operation)
		}
		if want := []device.Operation{device.EndOfDay, device.OpenMenu, device.CheckUpdate}; !slices.Equal(have, want) {
			t.Errorf("the terminal did %v, want %v", have, want)
		}
	})
}

// Never late: a minute after it was asked for, by whichever of the PC's clocks
// has come further, a local operation does not start any more.
func TestLocalNeverLate(t *testing.T) {
	for name, tt := range map[string]struct {
		script devicetest.Script
		during func(w *world)
		want   string
		after  time.Duration
	}{
		"the terminal is busy": {busy, func(w *world) {}, "device_busy no", time.Minute},
		"the lane is busy": {slowly, func(w *world) {
			w.device.Set(devicetest.Script{Work: 10 * time.Minute})
			w.send(w.command("long", device.EndOfDay))
			time.Sleep(time.Second)
		}, "busy no", time.Minute},
		"the lane is busy, and there is no cloud": {slowly, func(w *world) {
			w.device.Set(devicetest.Script{Work: 10 * time.Minute})
			w.ask()
			time.Sleep(time.Second)
		}, "busy no", time.Minute},
		"the PC sleeps": {busy, func(w *world) {
			time.AfterFunc(10*time.Second, func() { w.suspend(time.Hour); w.device.Set(works) })
		}, "device_busy no", 15 * time.Second},
		"its clock is set back": {busy, func(w *world) {
			time.AfterFunc(10*time.Second, func() { w.time.set(-time.Hour) })
		}, "device_busy no", time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, b := memory(t)
				w.device.Set(tt.script)
				w.start()
				if strings.Contains(name, "no cloud") {
					b.Down()
				}
				tt.during(w)
				acts := len(w.device.Acts())
				began := time.Now()
				w.wantEnd(w.ask(), tt.want)
				if took := time.Since(began); took > tt.after+time.Second {
					t.Errorf("it took %v", took)
				}
				w.wantActs(acts)
				b.Up()
			})
		})
	}
}

// What was not started when the agent ended never starts: nobody knows whether
// the engineer is still there. What was started is resolved.
func TestLocalOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.device.Set(devicetest.Script{Work: time.Hour})
		w.start()
		running := w.ask()
		time.Sleep(time.Second)
		waiting := w.ask()
		var err error
		ended := make(chan bool)
		go func() {
			err = w.agent.Follow(t.Context(), waiting, func(Report) {})
			close(ended)
		}()
		synctest.Wait()
		w.end()
		if <-ended; !errors.Is(err, ErrStopping) {
			t.Errorf("who followed is told %v", err)
		}
		if _, err := w.agent.Submit(w.id, "end_of_day", "anna"); !errors.Is(err, ErrStopping) {
			t.Errorf("an agent that has ended says %v", err)
		}
		away := func(device.Past) (device.Outcome, error) { return device.Outcome{}, device.ErrUnreachable }
		w.device.Set(devicetest.Script{Resolve: away})
		w.start()
		w.wantEnd(waiting, "expired no") // although the other is not resolved
		w.device.Set(works)
		w.wantEnd(running, "COMPLETED")
		w.wantFinal(waiting, "expired no")
		w.wantFinal(running, "COMPLETED")
		w.wantActs(1)
	})
}

// What was started has the lane after a restart, wherever it stands in the
// queue.
func TestLocalOvertookACommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.start()
		w.wantNext()
		w.end()
		w.cloud.setDeaf(true)
		w.device.Set(devicetest.Script{Work: time.Hour})
		w.start()
		w.send(w.commandFor(time.Hour, "cloud", device.OpenMenu))
		time.Sleep(time.Second)
		id := w.ask()
		time.Sleep(time.Second)
		w.wantActs(2)
		w.end()
		next, err := New(Options{StateDir: w.dir, Time: w.time, Lanes: []Lane{{ID: w.id, Terminal: w.device}}})
		if err != nil {
			t.Fatal(err)
		}
		next.lanes[0].clock.useOwn() // whoever is faster, the welcome or the worker
		if op := next.lanes[0].first(); op.Command.OperationID != id {
			t.Errorf("a new agent takes on %s first, and %s was started", op.Command.OperationID, id)
		}
		next.Close()
		w.cloud.setDeaf(false)
		w.device.Set(devicetest.Script{Resolve: func(device.Past) (device.Outcome, error) { return device.Outcome{}, device.ErrUnreachable }})
		w.start()
		time.Sleep(10 * time.Minute)
		w.wantActs(2) // the menu waits for the end of day
		w.device.Set(works)
		w.wantEnd(id, "COMPLETED")
		w.wantFinal("cloud", "COMPLETED")
	})
}

// The cloud has not heard of a local operation: a welcome that does not know it
// says nothing about it.
func TestLocalIsNotAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.start()
		w.wantNext() // a cloud that welcomes
		w.end()
		w.cloud.setDeaf(true)
		w.device.Set(slowly)
		w.start()
		first := w.ask()
		second := w.ask()
		time.Sleep(time.Second)
		w.cloud.mu.Lock()
		w.cloud.deaf = false
		// Somebody has made the cloud believe that it gave this command, and
		// that another has it.
		w.cloud.pending[second] = transport.Pending{Command: transport.Command{OperationID: second, TerminalID: w.id, Operation: "end_of_day", IssuedAt: transport.At(time.Now()), ExpiresAt: transport.At(time.Now().Add(time.Hour))},
			AcceptedAt: transport.At(time.Now()), Running: true}
		w.cloud.mu.Unlock()
		w.wantEnd(first, "COMPLETED")
		w.wantEnd(second, "COMPLETED")
		w.wantFinal(second, "COMPLETED")
		w.wantActs(3)
	})
}

// The journal that replaces a damaged one has taken it itself.
func TestLocalBeforeTheBirth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		writeJournal(w, []byte(strings.Repeat("damage", 5000)))
		w.cloud.deaf = true
		w.device.Set(slowly)
		w.start()
		first, second := w.ask(), w.ask()
		time.Sleep(time.Second)
		w.cloud.setDeaf(false)
		w.wantEnd(first, "COMPLETED")
		w.wantEnd(second, "COMPLETED")
		w.wantActs(2)
	})
}

// The first content of an id counts, and a Cancel of the cloud is not for what
// began at the store.
func TestLocalAndTheCloudHaveOneID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.device.Set(slowly)
		w.start()
		w.ask()
		id := w.ask()
		c := w.command(id, device.OpenMenu)
		w.bus.Publish(w.id, transport.Commands, transport.Encode(c), false)
		c.Cancel, c.Operation = true, ""
		w.bus.Publish(w.id, transport.Commands, transport.Encode(c), false)
		w.wantEnd(id, "COMPLETED")
		if r := w.wantFinal(id, "COMPLETED"); r.Operation != "end_of_day" {
			t.Errorf("the cloud is told of a %s", r.Operation)
		}
		w.wantActs(2)
	})
}

// Only what has not started can be cancelled, and only what began at the store.
func TestLocalCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.device.Set(slowly)
		w.start()
		w.send(w.command("cloud", device.EndOfDay))
		time.Sleep(time.Second)
		running, waiting := w.ask(), w.ask()
		if err := w.agent.Cancel(waiting); err != nil {
			t.Error(err)
		}
		w.wantEnd(waiting, "cancelled no")
		if err := w.agent.Cancel("cloud"); !errors.Is(err, ErrNotLocal) {
			t.Errorf("of the cloud: %v", err)
		}
		if err := w.agent.Cancel("unheard"); !errors.Is(err, ErrUnknownID) {
			t.Errorf("unknown: %v", err)
		}
		time.Sleep(12 * time.Second)
		if err := w.agent.Cancel(running); !errors.Is(err, ErrStarted) {
			t.Errorf("started: %v", err)
		}
		w.wantEnd(running, "COMPLETED")
		if err := w.agent.Cancel(running); !errors.Is(err, ErrStarted) {
			t.Errorf("ended: %v", err)
		}
		w.device.Set(busy)
		held := w.ask()
		time.Sleep(10 * time.Second) // the worker has it
		if err := w.agent.Cancel(held); err != nil {
			t.Error(err)
		}
		w.wantEnd(held, "cancelled no")
		w.wantActs(2)
	})
}

// A state directory that cannot be written takes nothing on, and says so.
func TestLocalOnAFullDisk(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _ := memory(t)
				var full atomic.Bool
				w.options.cut = func(at string) error {
					if at == when && full.Load() {
						return errors.New("no space left on device")
					}
					return nil
				}
				w.start()
				time.Sleep(time.Minute)
				full.Store(true)
				id, err := w.agent.Submit(w.id, "end_of_day", "anna")
				if id != "" || err == nil || !strings.Contains(err.Error(), "no space left on device") {
					t.Errorf("have %q, %v", id, err)
				}
				full.Store(false)
				time.Sleep(time.Minute)
				w.end()
				w.start() // what reached the disk all the same is not started
				time.Sleep(time.Minute)
				w.wantActs(0)
				w.wantNext()
			})
		})
	}
}

func TestSubmitRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.start()
		if _, err := w.agent.Submit("T9", "end_of_day", ""); !errors.Is(err, ErrUnknownTerminal) || !strings.Contains(err.Error(), terminal) {
			t.Errorf("unknown terminal: %v", err)
		}
		if _, err := w.agent.Submit(w.id, "dance", ""); !errors.Is(err, ErrUnknownOperation) || !strings.Contains(err.Error(), "end_of_day") {
			t.Errorf("unknown operation: %v", err)
		}
		if err := w.agent.Follow(t.Context(), "unheard", nil); !errors.Is(err, ErrUnknownID) {
			t.Errorf("unknown id: %v", err)
		}
		for by, want := range map[string]string{
			"":                       "local:unknown",
			" anna\n":                "local:anna",
			strings.Repeat("x", 100): "local:" + strings.Repeat("x", 64),
			"\xffJos\u00e9\x1b[2J":   "local:José[2J",
		} {
			id, err := w.agent.Submit(w.id, "end_of_day", by)
			if err != nil {
				t.Fatal(err)
			}
			if all := w.followed(id); all[0].CreatedBy != want {
				t.Errorf("%q becomes %q, want %q", by, all[0].CreatedBy, want)
			}
		}
	})
}

// An operation that was started without the cloud's time has a time of its own:
// neither a PC's clock that is wrong by years nor the cloud's that becomes known
// later ends the time for asking.
func TestLocalWithAWrongClock(t *testing.T) {
	for _, wrong := range []time.Duration{-20 * 365 * 24 * time.Hour, 48 * time.Hour} {
		t.Run(fmt.Sprint(wrong), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, b := memory(t)
				w.time.set(wrong)
				b.Down()
				var last atomic.Pointer[device.Past]
				w.device.Set(devicetest.Script{Lost: device.ErrUnreachable, Resolve: func(p device.Past) (device.Outcome, error) {
					last.Store(&p)
					return device.Outcome{}, device.ErrUnreachable
				}})
				w.startAlone()
				began := time.Now()
				id := w.ask()
				time.Sleep(time.Hour)
				b.Up()
				time.Sleep(time.Hour)
				w.end()
				w.start()
				time.Sleep(time.Hour)
				past := last.Load()
				if passed := past.Now.Sub(past.StartedAt); past.GiveUp || passed <= 0 || passed > time.Since(began) {
					t.Errorf("after %v the adapter is told that %v have passed, and to give up: %v", time.Since(began), passed, past.GiveUp)
				}
				w.device.Set(works)
				w.wantEnd(id, "COMPLETED")
			})
		})
	}
}

// Status and history say what the journal says.
func TestStatusAndHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.start()
		w.wantNext()
		w.device.Set(slowly)
		running := w.ask()
		w.send(w.command("waiting", device.OpenMenu))
		time.Sleep(time.Second)
		w.time.set(-time.Hour)
		s, err := w.agent.Status()
		if err != nil {
			t.Fatal(err)
		}
		l := s.Lanes[0]
		switch {
		case s.JournalID == "" || s.Version != "test" || len(s.Lanes) != 1 || l.ID != terminal || l.Device.Link != "scripted" || l.Device.Model != "Scripted":
			t.Errorf("have %+v", s)
		case !l.Connected || l.Connection != 1 || l.Clock.Source != ClockUnknown:
			t.Errorf("connection and clock: %+v", l)
		case l.Working == nil || l.Working.ID != running || l.Working.Message != "working" || l.Working.CreatedBy != "local:anna" || l.Working.State != "RUNNING":
			t.Errorf("at work: %+v", l.Working)
		case len(l.Queue) != 1 || l.Queue[0].ID != "waiting" || l.Queue[0].State != "ACCEPTED" || l.Queue[0].Origin != OriginCloud:
			t.Errorf("queue: %+v", l.Queue)
		case l.Last == nil || l.Last.ID != "next-0" || l.Last.State != "COMPLETED" || !l.Last.Reported || l.Last.Report.Result == nil:
			t.Errorf("last: %+v", l.Last)
		}
		w.wantFinal("waiting", "COMPLETED")
		if s, _ = w.agent.Status(); s.Lanes[0].Clock != (ClockStatus{ClockCloud, time.Hour.Milliseconds()}) {
			t.Errorf("clock: %+v", s.Lanes[0].Clock)
		}
		for _, tt := range []struct {
			terminal string
			n        int
			want     []string
		}{
			{terminal, 10, []string{"waiting", running, "next-0"}},
			{"", 2, []string{"waiting", running}},
			{"T9", 10, nil},
			{"", 0, nil},
		} {
			records, err := w.agent.History(tt.terminal, tt.n)
			var ids []string
			for _, r := range records {
				ids = append(ids, r.ID)
			}
			if err != nil || !slices.Equal(ids, tt.want) {
				t.Errorf("%q, %d: have %q, %v, want %q", tt.terminal, tt.n, ids, err, tt.want)
			}
		}
	})
}
