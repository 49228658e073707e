package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"terminalops/device"
	"terminalops/device/devicetest"
	"terminalops/device/zvt"
	"terminalops/device/zvt/frame"
	"terminalops/device/zvt/zvttest"
	"terminalops/transport"
	"terminalops/transport/transporttest/brokers"
)

// crowd starts one agent with n terminals, and a cloud. connects is called with
// the time of each connection.
func crowd(t *testing.T, bus *realBus, terminals []device.Terminal, connected func(id string)) *world {
	w := newWorld(t, bus)
	w.patience = 2 * time.Minute
	w.cloud.await(t, w.patience, "the cloud's connection", func() bool { return w.cloud.sender != nil })
	o := Options{StateDir: w.dir, Logger: slog.New(slog.DiscardHandler), Grace: time.Nanosecond}
	for i, d := range terminals {
		id := crowdID(i)
		o.Lanes = append(o.Lanes, Lane{ID: id, Link: "test", Terminal: d, End: &watchedEnd{bus.Agent(id), func() { connected(id) }}})
	}
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop, w.ended = cancel, make(chan error, 1)
	go func() { w.ended <- a.Run(ctx) }()
	return w
}

func crowdID(i int) string { return fmt.Sprintf("P11223351-T%04d", i) }

func scripted(n int) []device.Terminal {
	all := make([]device.Terminal, n)
	for i := range all {
		d := new(devicetest.Terminal)
		d.Set(devicetest.Script{Work: time.Second, Outcome: device.Outcome{Effect: device.Done}})
		all[i] = d
	}
	return all
}

// simulated are terminals that speak the real protocol, on lines that end with
// the test.
func simulated(t *testing.T, n int) (adapters []device.Terminal, terminals []*zvttest.Terminal) {
	for range n {
		sim, err := zvttest.New(zvttest.Options{Fast: true})
		if err != nil {
			t.Fatal(err)
		}
		line := make(chan struct{}, 1) // a terminal has one
		adapter, err := zvt.New(zvt.Options{Open: func(ctx context.Context) (frame.Stream, error) {
			here, there := net.Pipe()
			go func() {
				line <- struct{}{}
				defer func() { <-line }()
				sim.ServeTCP(context.Background(), there)
			}()
			return here, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		adapters, terminals = append(adapters, adapter), append(terminals, sim)
	}
	return adapters, terminals
}

// watchedEnd tells of each connection.
type watchedEnd struct {
	transport.End
	connected func()
}

func (e *watchedEnd) Run(ctx context.Context, h transport.Handler) error {
	return e.End.Run(ctx, &watchedHandler{h, e.connected})
}

type watchedHandler struct {
	transport.Handler
	connected func()
}

func (h *watchedHandler) Connected(ctx context.Context, s transport.Sender) {
	h.connected()
	h.Handler.Connected(ctx, s)
}

// 500 sessions in one process, and every lane works at the same time; twenty of
// them with a terminal that speaks the real protocol.
func TestFiveHundredSessions(t *testing.T) {
	const n, real = 500, 20
	broker := brokers.StartMosquitto(t)
	var mu sync.Mutex
	online := map[string]bool{}
	all := make(chan struct{})
	before := runtime.NumGoroutine()
	adapters, terminals := simulated(t, real)
	w := crowd(t, newRealBus(t, broker.Address), append(adapters, scripted(n-real)...), func(id string) {
		mu.Lock()
		defer mu.Unlock()
		if !online[id] { // some may come again
			if online[id] = true; len(online) == n {
				close(all)
			}
		}
	})
	select {
	case <-all:
	case <-time.After(w.patience):
		t.Fatalf("%d of %d sessions are connected", len(online), n)
	}
	t.Logf("%.1f goroutines a session", float64(runtime.NumGoroutine()-before)/n)
	begin := time.Now()
	for i := range n {
		c := w.commandFor(10*time.Minute, fmt.Sprint("op-", i), device.EndOfDay) // also on a slow PC
		c.TerminalID = crowdID(i)
		w.cloud.mu.Lock()
		w.cloud.pending[c.OperationID] = transport.Pending{Command: c}
		sender := w.cloud.sender
		w.cloud.mu.Unlock()
		if err := sender.Send(context.Background(), c.TerminalID, transport.Commands, transport.Encode(c)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		w.wantFinal(fmt.Sprint("op-", i), "COMPLETED")
	}
	t.Logf("%d operations of a second each took %v", n, time.Since(begin).Round(time.Millisecond))
	for i, terminal := range terminals {
		if did := terminal.Did(zvttest.EndOfDay); len(did) != 1 || len(terminal.Violations()) != 0 {
			t.Errorf("terminal %d: %d ends of day, violations %q", i, len(did), terminal.Violations())
		}
	}
}

// After an outage the sessions come back soon, and not all at once.
func TestSessionsComeBack(t *testing.T) {
	if os.Getenv("TERMINALOPS_TEST_ALL") != "1" {
		t.Skip("takes two minutes; make test-all runs it (the same in virtual time: transport/mqtt)")
	}
	t.Parallel()
	const (
		n      = 200
		outage = 75 * time.Second
		within = 35 * time.Second
		share  = 0.15
	)
	broker := brokers.StartMosquitto(t)
	times := make(chan time.Time, 10*n)
	w := crowd(t, newRealBus(t, broker.Address), scripted(n), func(string) { times <- time.Now() })
	collect := func(d time.Duration) (all []time.Time) {
		deadline := time.After(d)
		for len(all) < n {
			select {
			case at := <-times:
				all = append(all, at)
			case <-deadline:
				t.Fatalf("%d of %d sessions are back after %v", len(all), n, d)
			}
		}
		return all
	}
	collect(w.patience)
	broker.Kill()
	<-time.After(outage) // an outage is a time
	longestStall := watchStalls(t)
	begin := time.Now()
	broker.Start()
	seconds, last := map[int]int{}, time.Duration(0)
	for _, at := range collect(w.patience) {
		after := at.Sub(begin)
		seconds[int(after/time.Second)]++
		last = max(last, after)
	}
	// What would have come while this PC stood still comes in the second after it.
	stall := longestStall()
	if last > within+stall {
		t.Errorf("the last session came back after %v", last)
	}
	for second, count := range seconds {
		if float64(count) > share*n*(1+stall.Seconds()) {
			t.Errorf("%d of %d sessions came back in second %d", count, n, second)
		}
	}
	t.Logf("sessions by second after the broker: %v; the PC stood still for %v at most", seconds, stall)
}

// watchStalls finds out how long this process got no time, at most, until the
// function that it returns is called.
func watchStalls(t *testing.T) (longest func() time.Duration) {
	const every = 20 * time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	found := make(chan time.Duration, 1)
	go func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		var stall time.Duration
		for last := time.Now(); ; {
			select {
			case <-ticker.C:
				stall = max(stall, time.Since(last)-every)
				last = time.Now()
			case <-ctx.Done():
				found <- stall
				return
			}
		}
	}()
	return func() time.Duration {
		stop()
		return <-found
	}
}
