package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device"
	"terminalops/device/devicetest"
	"terminalops/transport"
	"terminalops/transport/transporttest"
)

// scenarios are what can happen to commands on their way. Each says what is
// reported, and that the next good command runs. They hold on every broker:
// here on the one in memory, in virtual time.
var scenarios = []struct {
	name string
	run  func(*world)
}{
	{"delivered twice", func(w *world) {
		c := w.command("twice", device.EndOfDay)
		w.send(c)
		w.send(c)
		w.wantFinal("twice", "COMPLETED")
		w.send(c) // and long after it is over: the same report again
		w.cloud.await(w.t, w.patience, "second final report", func() bool { return len(w.cloud.finals["twice"]) > 1 })
		w.wantFinal("twice", "COMPLETED")
		w.wantActs(1)
	}},
	{"same id, other content", func(w *world) {
		w.device.Set(devicetest.Script{Work: time.Second, Outcome: device.Outcome{Effect: device.Done}})
		w.send(w.command("same", device.EndOfDay))
		w.send(w.command("same", device.OpenMenu))
		w.wantFinal("same", "COMPLETED")
		if acts := w.device.Acts(); len(acts) != 1 || acts[0].Operation != device.EndOfDay {
			w.t.Errorf("the terminal did %v, want one end of day", acts)
		}
	}},
	{"ten at once", func(w *world) {
		w.device.Set(devicetest.Script{Work: 200 * time.Millisecond, Outcome: device.Outcome{Effect: device.Done}})
		for i := range 10 {
			w.send(w.command(fmt.Sprint("ten-", i), device.Operations()[i%4]))
		}
		for i := range 10 {
			w.wantFinal(fmt.Sprint("ten-", i), "COMPLETED")
		}
		for i, act := range w.device.Acts() { // devicetest panics if two overlap
			if want := device.Operations()[i%4]; act.Operation != want {
				w.t.Errorf("act %d is %s, want %s: not in order", i, act.Operation, want)
			}
		}
		w.wantActs(10)
	}},
	{"past expires_at", func(w *world) {
		c := w.command("late", device.EndOfDay)
		c.IssuedAt = transport.At(time.Now().Add(-2 * time.Minute))
		c.ExpiresAt = transport.At(time.Now().Add(-time.Minute))
		w.send(c)
		w.wantFinal("late", "expired no")
		w.wantActs(0)
	}},
	{"clock three hours fast", func(w *world) {
		w.end()
		w.time.set(3 * time.Hour)
		w.start()
		w.send(w.command("fast", device.EndOfDay))
		w.wantFinal("fast", "COMPLETED")
		w.wantActs(1)
	}},
	{"clock three hours slow, past expires_at", func(w *world) {
		w.end()
		w.time.set(-3 * time.Hour)
		w.start()
		c := w.command("slow", device.EndOfDay)
		c.ExpiresAt = transport.At(time.Now().Add(-time.Second))
		w.send(c)
		w.wantFinal("slow", "expired no")
		w.wantActs(0)
	}},
	{"clock set three hours back while it waits", func(w *world) {
		w.device.Set(devicetest.Script{Before: fmt.Errorf("%w: card inserted", device.ErrBusy)})
		w.send(w.command("set", device.EndOfDay))
		w.wantWaiting("set", "card inserted")
		w.time.set(-3 * time.Hour)
		w.device.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done}})
		w.wantFinal("set", "COMPLETED")
		w.wantActs(1)
	}},
	{"waited through a suspend", func(w *world) {
		w.device.Set(devicetest.Script{Before: fmt.Errorf("%w: card inserted", device.ErrBusy)})
		w.send(w.command("slept", device.EndOfDay))
		w.wantWaiting("slept", "card inserted")
		w.suspend(2 * time.Minute)
		w.device.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done}})
		w.wantFinal("slept", "device_busy no")
		w.wantActs(0)
	}},
	{"cancelled before it started", func(w *world) {
		w.device.Set(devicetest.Script{Work: 2 * time.Second, Outcome: device.Outcome{Effect: device.Done}})
		w.send(w.command("first", device.EndOfDay))
		w.send(w.command("second", device.EndOfDay))
		cancel := w.command("second", device.EndOfDay)
		cancel.Cancel, cancel.Operation = true, ""
		w.send(cancel)
		w.wantFinal("second", "cancelled no")
		w.wantFinal("first", "COMPLETED")
		w.wantActs(1)
	}},
	{"cancelled while it waits for a busy terminal", func(w *world) {
		w.device.Set(devicetest.Script{Before: fmt.Errorf("%w: card inserted", device.ErrBusy)})
		w.send(w.command("busy", device.EndOfDay))
		w.wantWaiting("busy", "card inserted")
		cancel := w.command("busy", device.EndOfDay)
		cancel.Cancel, cancel.Operation = true, ""
		w.send(cancel)
		w.wantFinal("busy", "cancelled no")
		w.device.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done}})
	}},
	{"cancelled after it started", func(w *world) {
		w.device.Set(devicetest.Script{Work: time.Second, Outcome: device.Outcome{Effect: device.Done}})
		w.send(w.command("begun", device.EndOfDay))
		w.cloud.await(w.t, w.patience, "RUNNING", func() bool { return w.cloud.pending["begun"].Running })
		cancel := w.command("begun", device.EndOfDay)
		cancel.Cancel, cancel.Operation = true, ""
		w.send(cancel)
		w.wantFinal("begun", "COMPLETED")
		w.wantActs(1)
	}},
	{"cancelled before it arrived", func(w *world) {
		c := w.command("unborn", device.EndOfDay)
		cancel := c
		cancel.Cancel, cancel.Operation = true, ""
		w.send(cancel)
		w.wantFinal("unborn", "cancelled no")
		w.send(c)
		w.wantActs(0)
	}},
	{"retained", func(w *world) {
		w.end() // a session that begins now gets it as retained
		w.startAs("P11223351-T0077", func() {
			c := w.command("kept", device.EndOfDay)
			c.TerminalID = w.id
			w.bus.Publish(w.id, transport.Commands, transport.Encode(c), true)
		})
		w.wantFinal("kept", "invalid_command no")
		w.wantActs(0)
		w.bus.Publish(w.id, transport.Commands, nil, true)
	}},
	{"retained, and seen before", func(w *world) {
		w.bus.Publish(w.id, transport.Commands, transport.Encode(w.command("again", device.EndOfDay)), true)
		w.wantFinal("again", "COMPLETED")
		w.end()
		w.start() // the subscription delivers it once more
		w.cloud.await(w.t, w.patience, "the same report again", func() bool { return len(w.cloud.finals["again"]) > 1 })
		w.wantFinal("again", "COMPLETED")
		w.wantActs(1)
		w.bus.Publish(w.id, transport.Commands, nil, true)
	}},
	{"of another terminal", func(w *world) {
		c := w.command("foreign", device.EndOfDay)
		c.TerminalID = "P11223351-T0099"
		w.send(c)
		r := w.wantFinal("foreign", "invalid_command no")
		if !strings.Contains(r.Error.Message, "P11223351-T0099") {
			w.t.Errorf("the message does not name the terminal: %s", r.Error.Message)
		}
		w.wantActs(0)
	}},
	{"1 MiB", func(w *world) {
		huge := transport.Encode(w.command("huge", device.EndOfDay))
		huge = append(huge[:len(huge)-1], fmt.Sprintf(`,"filler":%q}`, strings.Repeat("x", 1<<20-1024))...) // NATS itself refuses a little more
		w.bus.Publish(w.id, transport.Commands, huge, false)
		w.wantFinal("huge", "invalid_command no")
		w.wantActs(0)
	}},
	{"not JSON", func(w *world) {
		w.bus.Publish(w.id, transport.Commands, []byte("end of day, please"), false)
	}},
	{"JSON, not a command", func(w *world) {
		w.bus.Publish(w.id, transport.Commands, []byte(`{"operation_id":"odd","operation":7}`), false)
		w.wantFinal("odd", "invalid_command no")
	}},
	{"unknown operation", func(w *world) {
		w.send(w.command("dance", "dance"))
		w.wantFinal("dance", "unsupported_operation no")
	}},
	{"refused by the terminal", func(w *world) {
		w.device.Set(devicetest.Script{Outcome: device.Outcome{Failure: &device.Failure{Cause: device.Refused, Code: "77", Message: "end-of-day batch not possible", Executed: device.No}}})
		w.send(w.command("refused", device.EndOfDay))
		if r := w.wantFinal("refused", "device_refused no"); r.Error.DeviceCode != "77" {
			w.t.Errorf("device_code = %q", r.Error.DeviceCode)
		}
		w.device.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done}})
	}},
	{"terminal unreachable", func(w *world) {
		w.device.Set(devicetest.Script{Before: fmt.Errorf("%w: open COM3: no such port", device.ErrUnreachable)})
		w.send(w.command("gone", device.EndOfDay))
		w.wantFinal("gone", "device_unreachable no")
		w.device.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done}})
	}},
	{"end not seen", func(w *world) {
		w.device.Set(devicetest.Script{Lost: fmt.Errorf("%w: unplugged", device.ErrUnreachable), Outcome: device.Outcome{Effect: device.Done}})
		w.send(w.command("lost", device.EndOfDay))
		w.wantFinal("lost", "COMPLETED")
		w.wantActs(1)
		w.device.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done}})
	}},
	{"stopped in the middle", func(w *world) {
		w.device.Set(devicetest.Script{Work: time.Hour, Outcome: device.Outcome{Effect: device.Done}})
		w.send(w.command("stopped", device.EndOfDay))
		w.cloud.await(w.t, w.patience, "RUNNING", func() bool { return w.cloud.pending["stopped"].Running })
		w.end()
		w.device.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done}})
		w.start()
		w.wantFinal("stopped", "COMPLETED")
		w.wantActs(1)
	}},
	{"journal restored from an old copy", func(w *world) {
		w.end()
		old := readJournal(w)
		w.start()
		w.device.Set(devicetest.Script{Work: time.Hour, Outcome: device.Outcome{Effect: device.Done}})
		c := w.command("restored", device.EndOfDay)
		w.send(c)
		w.cloud.await(w.t, w.patience, "RUNNING", func() bool { return w.cloud.pending["restored"].Running })
		w.end()
		writeJournal(w, old)
		w.device.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done}})
		w.start()
		w.send(c) // and the broker delivers it again
		w.wantNext()
		w.wantActs(2)
		if states := w.cloud.states("restored"); slices.Contains(states, transport.StateFailed) || slices.Contains(states, transport.StateCompleted) {
			w.t.Errorf("reported all the same: %v", states)
		}
	}},
}

func TestScenarios(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _ := memory(t)
				w.start()
				s.run(w)
				w.wantNext()
			})
		})
	}
}

func readJournal(w *world) []byte {
	b, err := os.ReadFile(filepath.Join(w.dir, journalFile))
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func writeJournal(w *world, content []byte) {
	if err := os.WriteFile(filepath.Join(w.dir, journalFile), content, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// An old copy of the journal may hold the command as accepted and not started.
func TestOldJournalHasItNotStarted(t *testing.T) {
	for _, ending := range []string{"while it runs", "after it has ended"} {
		t.Run(ending, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _ := memory(t)
				busy := devicetest.Script{Before: device.ErrBusy}
				w.device.Set(busy)
				w.start()
				w.send(w.command("x", device.EndOfDay))
				w.cloud.await(t, time.Minute, "ACCEPTED", func() bool { return !w.cloud.pending["x"].AcceptedAt.IsZero() })
				w.end()
				old := readJournal(w)
				w.device.Set(devicetest.Script{Work: 10 * time.Second, Outcome: device.Outcome{Effect: device.Done}})
				w.start()
				if ending == "while it runs" {
					w.cloud.await(t, time.Minute, "RUNNING", func() bool { return w.cloud.pending["x"].Running })
				} else {
					w.wantFinal("x", "COMPLETED")
				}
				w.end()
				writeJournal(w, old)
				w.start()
				w.wantNext()
				w.wantActs(2)
			})
		})
	}
}

// A broker that was away for the night delivers what it kept.
func TestBrokerKeptItOvernight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := memory(t)
		w.start()
		w.wantNext()
		w.end()
		w.send(w.command("overnight", device.EndOfDay))
		time.Sleep(9 * time.Hour)
		w.start()
		w.wantFinal("overnight", "expired no")
		w.wantActs(1)
		b.Cut(terminal)
		w.wantNext()
	})
}

// A connection that lasts may lose acknowledgements, the broker its memory.
func TestFaultsOfTheBroker(t *testing.T) {
	faults := map[string]func(w *world, b *transporttest.Broker){
		"puback lost": func(_ *world, b *transporttest.Broker) { b.LoseAcks(3) },
		"broker away": func(_ *world, b *transporttest.Broker) { b.Down(); time.Sleep(time.Minute); b.Up() },
		"broker forgot": func(_ *world, b *transporttest.Broker) {
			b.Forget()
		},
		"cut": func(_ *world, b *transporttest.Broker) { b.Cut(terminal) },
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, b := memory(t)
				w.device.Set(devicetest.Script{Work: 5 * time.Second, Outcome: device.Outcome{Effect: device.Done}})
				w.start()
				w.send(w.command("x", device.EndOfDay))
				w.cloud.await(t, time.Minute, "RUNNING", func() bool { return w.cloud.pending["x"].Running })
				fault(w, b)
				w.wantFinal("x", "COMPLETED")
				w.wantActs(1)
				w.wantNext()
			})
		})
	}
}

// A broker forgot a command that it acknowledged to the dispatcher: the welcome
// brings it.
func TestRepairByWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := memory(t)
		w.start()
		w.wantNext()
		w.end()
		w.send(w.command("forgotten", device.EndOfDay))
		b.Forget()
		w.start()
		w.wantFinal("forgotten", "COMPLETED")
		w.wantActs(2)
	})
}

// A final report that got lost behind the broker is sent again when wanted.
func TestWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := memory(t)
		w.start()
		w.send(w.command("x", device.EndOfDay))
		first := w.wantFinal("x", "COMPLETED")
		w.cloud.mu.Lock()
		w.cloud.wanted = []string{"x", "never-heard-of"}
		w.cloud.mu.Unlock()
		b.Cut(terminal)
		w.cloud.await(t, time.Minute, "the report again", func() bool { return len(w.cloud.finals["x"]) == 2 })
		if again := w.wantFinal("x", "COMPLETED"); again.Sequence != first.Sequence {
			t.Errorf("have %+v, want %+v", again, first)
		}
		w.wantActs(1)
	})
}

// An agent that no cloud ever welcomed goes by the PC's clock; one that ever
// was starts nothing without the cloud's time.
func TestNoWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.cloud.deaf = true
		w.start()
		begin := time.Now()
		w.send(w.command("x", device.EndOfDay))
		w.wantFinal("x", "COMPLETED")
		if waited := time.Since(begin); waited < helloAnswer || waited > 2*helloAnswer {
			t.Errorf("it took %v, want a little more than %v", waited, helloAnswer)
		}
		w.cloud.setDeaf(false)
		time.Sleep(time.Minute) // it is welcomed
		w.end()
		w.cloud.setDeaf(true)
		w.start()
		w.send(w.command("y", device.EndOfDay))
		time.Sleep(10 * time.Minute)
		w.wantActs(1)
		w.cloud.setDeaf(false)
		w.wantFinal("y", "expired no")
		w.wantNext()
	})
}

// Waiting for one's turn is something else than arriving late.
func TestWaitedForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.device.Set(devicetest.Script{Work: 3 * time.Minute, Outcome: device.Outcome{Effect: device.Done}})
		w.start()
		w.send(w.command("long", device.EndOfDay))
		w.send(w.command("short", device.EndOfDay))
		w.wantFinal("short", "busy no")
		if got := w.cloud.states("long"); slices.Contains(got, "COMPLETED") {
			t.Errorf("busy was reported only after the other had ended: %v", got)
		}
		w.wantFinal("long", "COMPLETED")
		w.wantActs(1)
	})
}

// A terminal that stays busy is waited for until the start deadline, and no
// longer; one that becomes free in time is used.
func TestBusyTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.device.Set(devicetest.Script{Before: fmt.Errorf("%w: card inserted", device.ErrBusy)})
		w.start()
		begin := time.Now()
		w.send(w.command("x", device.EndOfDay))
		r := w.wantFinal("x", "device_busy no")
		if waited := time.Since(begin).Round(time.Second); waited != time.Minute || !strings.Contains(r.Error.Message, "card inserted") {
			t.Errorf("after %v: %s", waited, r.Error.Message)
		}
		w.send(w.command("y", device.EndOfDay))
		time.Sleep(20 * time.Second)
		w.device.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done}})
		w.wantFinal("y", "COMPLETED")
	})
}

// Resolving goes on until the terminal answers; nothing final is said before,
// and nothing else starts.
func TestResolveWaitsForTheTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		away := func(device.Past) (device.Outcome, error) { return device.Outcome{}, device.ErrUnreachable }
		w.device.Set(devicetest.Script{Lost: device.ErrUnreachable, Resolve: away})
		w.start()
		w.send(w.command("x", device.EndOfDay))
		time.Sleep(5 * time.Hour)
		if slices.Contains(w.cloud.states("x"), "COMPLETED") {
			t.Fatal("something final was said without an answer")
		}
		if n := w.device.Asked(); n < 250 || n > 400 {
			t.Errorf("asked %d times in 5 h, want about once a minute", n)
		}
		w.cloud.mu.Lock()
		running := len(w.cloud.reports)
		w.cloud.mu.Unlock()
		if running < 5*3600/20 {
			t.Errorf("%d reports in 5 h, want one every 20 s at least", running)
		}
		w.device.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done}})
		w.wantFinal("x", "COMPLETED")
		w.wantActs(1)
	})
}

// After resolveFor the evidence has the last word.
func TestResolveGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		total := int64(12)
		w.device.Set(devicetest.Script{Lost: device.ErrUnreachable, Resolve: func(p device.Past) (device.Outcome, error) {
			if !p.GiveUp {
				return device.Outcome{}, device.ErrUnreachable
			}
			return device.Outcome{Result: &device.EndOfDayResult{PurchasesAmount: &total},
				Failure: &device.Failure{Cause: device.Unknown, Executed: device.Yes, Message: "totals were seen, the end was not"}}, nil
		}})
		w.start()
		begin := time.Now()
		w.send(w.command("x", device.EndOfDay))
		r := w.wantFinal("x", "outcome_unknown yes")
		if waited := time.Since(begin); waited < 24*time.Hour || waited > 25*time.Hour {
			t.Errorf("gave up after %v", waited)
		}
		if !strings.Contains(string(r.Result), `"purchases_amount":12`) {
			t.Errorf("the evidence is not in the report: %s", r.Result)
		}
	})
}

// An open menu keeps the lane, also over a restart, although the operation is
// complete.
func TestMenuStaysOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := memory(t)
		w.device.Set(devicetest.Script{Menu: 2 * time.Hour, Outcome: device.Outcome{Effect: device.Triggered, Attend: true}})
		w.start()
		w.send(w.command("menu", device.OpenMenu))
		w.wantFinal("menu", "COMPLETED")
		time.Sleep(time.Minute)
		if p := string(b.Retained(terminal, transport.Presence)); !strings.Contains(p, "menu open since") {
			t.Errorf("presence does not say so: %s", p)
		}
		w.end()
		w.device.Set(devicetest.Script{Menu: time.Hour, Outcome: device.Outcome{Effect: device.Done}})
		w.start()
		w.send(w.command("x", device.EndOfDay))
		w.wantFinal("x", "busy no")
		time.Sleep(time.Hour)
		w.wantNext()
	})
}

// A service manager's stop waits for the operation at work, within the grace.
func TestStopWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := memory(t)
		w.options.Grace = 25 * time.Second
		w.device.Set(devicetest.Script{Work: 10 * time.Second, Outcome: device.Outcome{Effect: device.Done}})
		w.start()
		w.send(w.command("x", device.EndOfDay))
		w.send(w.command("y", device.EndOfDay))
		w.cloud.await(t, time.Minute, "RUNNING", func() bool { return w.cloud.pending["x"].Running })
		begin := time.Now()
		w.end()
		if waited := time.Since(begin); waited > 12*time.Second {
			t.Errorf("the stop took %v", waited)
		}
		w.wantFinal("x", "COMPLETED")
		w.wantActs(1) // y waits for the next start
		if p := string(b.Retained(terminal, transport.Presence)); !strings.Contains(p, `"offline"`) {
			t.Errorf("presence = %s", p)
		}
		w.start()
		w.wantFinal("y", "COMPLETED")
	})
}
