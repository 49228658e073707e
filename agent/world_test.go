package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"terminalops/device"
	"terminalops/device/devicetest"
	"terminalops/transport"
	"terminalops/transport/transporttest"
)

const terminal = "P11223351-T0013"

// bus is a broker, in memory or a real one.
type bus interface {
	Agent(terminalID string) transport.End
	Cloud() transport.End
	Publish(terminalID string, k transport.Kind, payload []byte, retained bool)
}

// world is one agent with one scripted terminal, a broker, and a cloud that
// answers every hello. The agent can be ended and started again; terminal,
// broker and cloud go on.
type world struct {
	t        testing.TB
	id       string // of the terminal
	bus      bus
	device   *devicetest.Terminal
	dir      string
	time     *pcTime
	cloud    *cloud
	options  Options
	patience time.Duration // how long to await anything
	working  func(operationID string)
	noted    func(operationID, operation, step string)
	capture  func(most int64) ([]byte, int64)

	agent *Agent // the one that runs
	stop  context.CancelFunc
	ended chan error
}

// newWorld makes a world with nothing started but the cloud.
func newWorld(t testing.TB, b bus) *world {
	w := &world{
		t: t, id: terminal, bus: b, device: new(devicetest.Terminal), dir: t.TempDir(), time: new(pcTime), patience: 48 * time.Hour,
		cloud: &cloud{pending: map[string]transport.Pending{}, finals: map[string][]string{}, changed: make(chan struct{})},
	}
	total := int64(4200)
	w.device.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done, Result: &device.EndOfDayResult{PurchasesAmount: &total}}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Cloud().Run(ctx, w.cloud) }()
	t.Cleanup(func() {
		w.end()
		cancel()
		if err := <-done; err != nil {
			t.Error("cloud:", err)
		}
	})
	return w
}

// memory is the usual world: a broker in memory, for synctest.
func memory(t testing.TB) (*world, *transporttest.Broker) {
	b := transporttest.NewBroker()
	return newWorld(t, b), b
}

// startAs starts the agent for another terminal, after prepare.
func (w *world) startAs(id string, prepare func()) {
	w.id = id
	prepare()
	w.start()
}

// start starts the agent, and waits until it is connected.
func (w *world) start() {
	w.t.Helper()
	hellos := w.cloud.hellosSoFar()
	w.startAlone()
	w.cloud.await(w.t, w.patience, "hello", func() bool { return w.cloud.hellos > hellos })
}

// awaitWelcome waits until the agent knows the cloud's time, and for good that there
// is a cloud: what the hello asked for may be on its way.
func (w *world) awaitWelcome() {
	w.t.Helper()
	late := time.Now().Add(w.patience)
	for w.agent.lanes[0].journal.meta("welcomed") == "" {
		if time.Now().After(late) {
			w.t.Fatal("no welcome")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// startAlone starts the agent.
func (w *world) startAlone() {
	w.t.Helper()
	o := w.options
	o.StateDir, o.Time, o.Version = w.dir, w.time, "test"
	o.Logger = slog.New(slog.NewTextHandler(w.t.Output(), nil))
	o.Lanes = []Lane{{ID: w.id, Link: "scripted", Terminal: w.device, End: w.bus.Agent(w.id), Working: w.working, Journaled: w.noted, Capture: w.capture}}
	if o.Grace == 0 {
		o.Grace = time.Nanosecond
	}
	a, err := New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.agent, w.stop, w.ended = a, cancel, make(chan error, 1)
	go func() { w.ended <- a.Run(ctx) }()
}

// end stops the agent and waits for it.
func (w *world) end() {
	if w.stop == nil {
		return
	}
	w.stop()
	w.stop = nil
	if err := <-w.ended; err != nil {
		w.t.Error("agent:", err)
	}
}

// command is a command issued now by the cloud's clock.
func (w *world) command(id string, op device.Operation) transport.Command {
	now := w.cloud.now()
	return transport.Command{
		OperationID: id, TerminalID: w.id, Operation: string(op),
		IssuedAt: transport.At(now), ExpiresAt: transport.At(now.Add(time.Minute)),
	}
}

// commandFor is a command that may start within d.
func (w *world) commandFor(d time.Duration, id string, op device.Operation) transport.Command {
	c := w.command(id, op)
	c.ExpiresAt = transport.At(w.cloud.now().Add(d))
	return c
}

// send has the cloud wait for a command and publish it.
func (w *world) send(c transport.Command) {
	w.cloud.mu.Lock()
	if _, known := w.cloud.pending[c.OperationID]; !known && !c.Cancel {
		w.cloud.pending[c.OperationID] = transport.Pending{Command: c}
	}
	w.cloud.mu.Unlock()
	w.bus.Publish(w.id, transport.Commands, transport.Encode(c), false)
}

// final waits for the final report of an operation.
func (w *world) final(id string) transport.Report {
	w.t.Helper()
	w.cloud.await(w.t, w.patience, "the final report of "+id, func() bool { return len(w.cloud.finals[id]) > 0 })
	return w.cloud.reportOf(w.t, id)
}

// wantFinal checks a final report: "COMPLETED", or the code and executed of a
// failure.
func (w *world) wantFinal(id, want string) transport.Report {
	w.t.Helper()
	r := w.final(id)
	have := r.State
	if r.Error != nil {
		have = r.Error.Code + " " + r.Error.Executed
	}
	if have != want {
		w.t.Errorf("%s: have %s (%+v), want %s", id, have, r.Error, want)
	}
	return r
}

// wantActs checks how often the terminal really acted.
func (w *world) wantActs(want int) {
	w.t.Helper()
	if have := w.device.Acts(); len(have) != want {
		w.t.Errorf("the terminal acted %d times, want %d: %v", len(have), want, have)
	}
}

// wantNext checks that the next good command runs.
func (w *world) wantNext() {
	w.t.Helper()
	acts := len(w.device.Acts())
	id := fmt.Sprintf("next-%d", acts)
	w.send(w.command(id, device.EndOfDay))
	w.wantFinal(id, "COMPLETED")
	w.wantActs(acts + 1)
}

// pcTime is the PC's time: the bubble's, or the system's, with a wall clock
// that can be set wrong.
type pcTime struct {
	mu    sync.Mutex
	wrong time.Duration
}

var epoch = time.Now()

func (p *pcTime) Wall() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Round(0).Add(p.wrong)
}

func (p *pcTime) Monotonic() time.Duration {
	return time.Since(epoch)
}

// set makes the wall clock wrong by d.
func (p *pcTime) set(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrong = d
}

// suspend puts the PC to sleep for d: when it wakes, the cloud and the wall
// clock are later, and the monotonic clock has stood still.
func (w *world) suspend(d time.Duration) {
	w.time.mu.Lock()
	w.time.wrong += d
	w.time.mu.Unlock()
	w.cloud.mu.Lock()
	w.cloud.later += d
	w.cloud.mu.Unlock()
}

// cloud is the dispatcher's end as far as an agent can tell.
type cloud struct {
	mu        sync.Mutex
	sender    transport.Sender // of the latest connection
	connected bool
	pending   map[string]transport.Pending
	wanted    []string
	deaf      bool          // no hello is answered
	later     time.Duration // its clock is later than the system's
	reports   []transport.Report
	finals    map[string][]string // as received, by operation
	hellos    int
	changed   chan struct{}
}

// wantWaiting waits until the cloud is told why an operation waits.
func (w *world) wantWaiting(id, why string) {
	w.t.Helper()
	w.cloud.await(w.t, w.patience, "report that "+id+" waits", func() bool {
		return slices.ContainsFunc(w.cloud.reports, func(r transport.Report) bool {
			return r.OperationID == id && strings.Contains(r.Message, why)
		})
	})
}

// setDeaf: a deaf cloud answers no hello.
func (c *cloud) setDeaf(deaf bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deaf = deaf
}

func (c *cloud) Connecting() []byte { return nil }

func (c *cloud) Connected(ctx context.Context, s transport.Sender) {
	c.mu.Lock()
	c.sender, c.connected = s, true
	c.notify()
	c.mu.Unlock()
	<-ctx.Done()
	c.mu.Lock()
	c.connected = false
	c.mu.Unlock()
}

func (c *cloud) Receive(ctx context.Context, m transport.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.notify()
	switch m.Kind {
	case transport.Hello:
		c.hellos++
		h, err := transport.DecodeHello(m.Payload)
		if err != nil || c.deaf || c.sender == nil {
			return nil
		}
		w := transport.WelcomeMessage{Nonce: h.Nonce, ServerTime: transport.At(time.Now().Add(c.later)), Wanted: c.wanted}
		for _, p := range c.pending {
			if p.Command.TerminalID == m.TerminalID {
				w.Pending = append(w.Pending, p)
			}
		}
		sender := c.sender
		go sender.Send(ctx, m.TerminalID, transport.Welcome, transport.Encode(w)) // lost: the agent asks again
	case transport.Reports:
		r, err := transport.DecodeReport(m.Payload, m.TerminalID)
		if err != nil {
			return nil
		}
		c.reports = append(c.reports, r)
		p, isPending := c.pending[r.OperationID]
		switch {
		case r.Final():
			c.finals[r.OperationID] = append(c.finals[r.OperationID], string(m.Payload))
			delete(c.pending, r.OperationID)
		case isPending && p.AcceptedAt.IsZero():
			p.AcceptedAt = transport.At(time.Now())
			fallthrough
		case isPending:
			p.Running = p.Running || r.State == transport.StateRunning
			c.pending[r.OperationID] = p
		}
	}
	return nil
}

func (c *cloud) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.later)
}

func (c *cloud) hellosSoFar() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hellos
}

func (c *cloud) reportsSoFar() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.reports)
}

// notify tells whoever awaits something. c.mu is held.
func (c *cloud) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// await waits until cond holds, which is called with c.mu held.
func (c *cloud) await(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	for {
		c.mu.Lock()
		ok, changed := cond(), c.changed
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			c.mu.Lock()
			defer c.mu.Unlock()
			t.Fatalf("no %s within %v; reports: %+v", what, within, c.reports)
		}
	}
}

// reportOf returns the final report of an operation; all copies must be alike.
func (c *cloud) reportOf(t testing.TB, id string) transport.Report {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.finals[id]
	if len(slices.Compact(slices.Clone(all))) != 1 {
		t.Errorf("%s: final reports differ:\n%s", id, strings.Join(all, "\n"))
	}
	var r transport.Report
	if err := json.Unmarshal([]byte(all[0]), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// states returns the states reported for an operation, repeats left out.
func (c *cloud) states(id string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var states []string
	for _, r := range c.reports {
		if r.OperationID == id {
			states = append(states, r.State)
		}
	}
	return slices.Compact(states)
}

// roundTrip is an http.RoundTripper that is a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
