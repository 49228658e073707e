package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device"
	"terminalops/device/devicetest"
	"terminalops/transport"
	"terminalops/transport/transporttest"
)

// After a sleep the agent is on a new connection at once, although nobody has
// told it that the old one is dead, and says hello on it.
func TestWakeConnectsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := memory(t)
		a := w.startWith(w.device, nil)
		time.Sleep(time.Minute)
		connections := func() uint64 {
			a.lanes[0].mu.Lock()
			defer a.lanes[0].mu.Unlock()
			return a.lanes[0].connection
		}
		b.Delay(func(p transporttest.Published) (ack, delivery time.Duration) { // no PUBACK comes back
			if p.From == terminal {
				return time.Hour, 0
			}
			return 0, 0
		})
		w.send(w.command("x", device.EndOfDay))
		time.Sleep(5 * time.Second)
		b.Delay(nil)
		hellos, before := w.cloud.hellosSoFar(), connections()
		a.Wake()
		time.Sleep(3 * time.Second)
		if w.cloud.hellosSoFar() == hellos || connections() != before+1 {
			t.Errorf("%d hellos, and connection %d after %d", w.cloud.hellosSoFar()-hellos, connections(), before)
		}
		w.wantNext()
		w.wantFinal("x", "COMPLETED")
	})
}

// Nothing starts after a sleep before the cloud has told the time again, also
// where the PC's clocks agree about how long it was: both may have stood still.
func TestWakeAsksForTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		a := w.startWith(w.device, nil)
		w.wantNext()
		late := w.command("late", device.EndOfDay)
		w.cloud.mu.Lock()
		w.cloud.deaf = true
		w.cloud.later += time.Hour
		w.cloud.mu.Unlock()
		a.Wake()
		w.send(late)
		time.Sleep(30 * time.Second)
		w.wantActs(1)
		w.cloud.setDeaf(false)
		w.wantFinal("late", "expired no")
		w.wantActs(1)
		w.wantNext()
	})
}

// A sleep in mid-operation ends nothing.
func TestWakeInMidOperation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.device.Set(devicetest.Script{Work: time.Minute})
		a := w.startWith(w.device, nil)
		time.Sleep(time.Second)
		w.send(w.command("x", device.EndOfDay))
		w.cloud.await(t, time.Minute, "RUNNING", func() bool { return w.cloud.pending["x"].Running })
		for range 10 {
			time.Sleep(3 * time.Second)
			a.Wake()
		}
		w.wantFinal("x", "COMPLETED")
		w.wantActs(1)
	})
}

// A welcome that was on its way while the PC slept answers a hello from before,
// and tells no time.
func TestWelcomeFromBeforeTheSleep(t *testing.T) {
	a, _ := newByHand(t)
	l := a.lanes[0]
	l.hello = hello{nonce: "before", sent: l.clock.read()}
	a.Wake()
	w := transport.WelcomeMessage{Nonce: "before", ServerTime: transport.At(time.Now())}
	if err := l.Receive(t.Context(), transport.Message{TerminalID: terminal, Kind: transport.Welcome, Payload: transport.Encode(w)}); err != nil {
		t.Fatal(err)
	}
	if at, known := l.clock.latest(); known {
		t.Errorf("the cloud's time is %v", at)
	}
}

// An agent that is woken before it runs, or after, has nothing to do.
func TestWakeWithoutRun(t *testing.T) {
	a, _ := newByHand(t)
	a.Wake()
}
