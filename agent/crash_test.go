package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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
	"terminalops/device/zvt"
	"terminalops/device/zvt/frame"
	"terminalops/device/zvt/zvttest"
	"terminalops/transport"
)

// The crash test ends the agent at every place where the outside world can
// tell: before and after each journal write, each message to and from the
// terminal, each message to the broker, and each upload. It then boots twice more.
// The terminal, which speaks the real protocol, the broker and the cloud go on.
//
// It asks for: at most one action by the terminal; exactly one final report;
// what the terminal said before the crash is in it; and on the third boot
// nothing is left to do: nobody talks to the terminal, reports, or uploads.

var errPowerCut = errors.New("the power is cut")

// power is cut at the n-th place, or when it has come along certain places; from
// then on nothing has an effect.
type power struct {
	mu     sync.Mutex
	places int
	cutAt  int      // 0: never
	way    []string // beginnings of the places to come; nil: none
	where  string
	off    chan struct{}
	seen   bool // the agent has answered the terminal's totals
	taken  bool // the agent has acknowledged a command
}

func newPower(cutAt int) *power { return &power{cutAt: cutAt, off: make(chan struct{})} }

// at is one place. An error means that the power is off.
func (p *power) at(where string, args ...any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isOff() {
		return errPowerCut
	}
	p.places++
	p.where = fmt.Sprintf(where, args...)
	passed := len(p.way) > 0 && strings.HasPrefix(p.where, p.way[0])
	if passed {
		p.way = p.way[1:]
	}
	if p.places == p.cutAt || passed && len(p.way) == 0 {
		close(p.off)
		return errPowerCut
	}
	return nil
}

// note notes what the agent has done.
func (p *power) note(what *bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*what = true
}

func (p *power) isOff() bool {
	select {
	case <-p.off:
		return true
	default:
		return false
	}
}

// line is the agent's side of the line to the terminal.
type line struct {
	net.Conn
	power  *power
	totals bool // a 04 0F has come
}

func (l *line) Write(b []byte) (int, error) {
	if err := l.power.at("before writing % X", b); err != nil {
		return 0, err
	}
	if l.totals && bytes.Contains(b, []byte{0x80, 0x00, 0x00}) {
		l.power.note(&l.power.seen)
	}
	n, err := l.Conn.Write(b)
	if off := l.power.at("after writing % X", b); off != nil {
		return n, off
	}
	return n, err
}

func (l *line) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	l.totals = l.totals || bytes.Contains(b[:n], []byte{0x04, 0x0F})
	if n > 0 {
		if off := l.power.at("after reading % X", b[:n]); off != nil {
			return 0, off
		}
	}
	if l.power.isOff() {
		return 0, errPowerCut
	}
	return n, err
}

// poweredEnd is the agent's end of the transport.
type poweredEnd struct {
	transport.End
	power *power
}

func (e *poweredEnd) Run(ctx context.Context, h transport.Handler) error {
	return e.End.Run(ctx, &poweredHandler{h, e.power})
}

type poweredHandler struct {
	transport.Handler
	power *power
}

func (h *poweredHandler) Connected(ctx context.Context, s transport.Sender) {
	h.Handler.Connected(ctx, &poweredSender{s, h.power})
}

func (h *poweredHandler) Receive(ctx context.Context, m transport.Message) error {
	if err := h.power.at("before receiving %s", m.Kind); err != nil {
		return err
	}
	err := h.Handler.Receive(ctx, m)
	if off := h.power.at("after receiving %s, before it is acknowledged", m.Kind); off != nil {
		return off
	}
	if err == nil && m.Kind == transport.Commands {
		h.power.note(&h.power.taken)
	}
	return err
}

type poweredSender struct {
	transport.Sender
	power *power
}

func (s *poweredSender) Send(ctx context.Context, id string, k transport.Kind, payload []byte) error {
	if err := s.power.at("before sending %s %.80s", k, payload); err != nil {
		return err
	}
	err := s.Sender.Send(ctx, id, k, payload)
	if off := s.power.at("after sending %s %.80s", k, payload); off != nil {
		return off
	}
	return err
}

// client uploads as long as there is power.
func (p *power) client(c *http.Client) *http.Client {
	if c == nil {
		return nil
	}
	server := c.Transport
	if server == nil {
		server = http.DefaultTransport
	}
	return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		if err := p.at("before uploading"); err != nil {
			return nil, err
		}
		answer, err := server.RoundTrip(r)
		if off := p.at("after uploading"); off != nil {
			return nil, off
		}
		return answer, err
	})}
}

// store is a shop: a PC that may crash, and what survives it.
type store struct {
	*world
	terminal *zvttest.Terminal
	serial   bool
	lines    sync.WaitGroup // the terminal's side of each connection
	serving  chan struct{}  // capacity 1: a terminal has one line
	opened   int
	booted   func(*Agent) // called when the agent runs; nil for nothing
}

func newStore(t *testing.T, scenario string, serial bool) *store {
	w, _ := memory(t)
	return storeIn(t, w, zvttest.Options{Scenario: scenario}, serial)
}

// storeIn is a store in a world that may have others, of which one is open at a
// time.
func storeIn(t *testing.T, w *world, o zvttest.Options, serial bool) *store {
	t.Helper()
	o.Clock = func() time.Time { return time.Now().UTC() }
	terminal, err := zvttest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	s := &store{world: w, terminal: terminal, serial: serial, serving: make(chan struct{}, 1)}
	t.Cleanup(func() {
		s.lines.Wait()
		terminal.Close()
	})
	return s
}

// plugIn opens a line to the terminal.
func (s *store) plugIn(p *power) func(context.Context) (frame.Stream, error) {
	return func(ctx context.Context) (frame.Stream, error) {
		if p.isOff() {
			return nil, errPowerCut
		}
		here, there := net.Pipe()
		s.serve(there)
		return &line{Conn: here, power: p}, nil
	}
}

// serve has the terminal serve its side of a line, once it has ended with the
// line before.
func (s *store) serve(there frame.Stream) {
	s.opened++
	s.lines.Go(func() {
		s.serving <- struct{}{}
		defer func() { <-s.serving }()
		if s.serial {
			s.terminal.ServeSerial(context.Background(), there)
		} else {
			s.terminal.ServeTCP(context.Background(), there)
		}
		there.Close()
	})
}

// adapter is the agent's side of the protocol.
func (s *store) adapter(open func(context.Context) (frame.Stream, error)) device.Terminal {
	s.t.Helper()
	t, err := zvt.New(zvt.Options{Open: open, Serial: s.serial, Baud: 9600, Password: "000000", Currency: 978, ConfigByte: 0x8C, Location: time.UTC})
	if err != nil {
		s.t.Fatal(err)
	}
	return t
}

// boot runs the agent until the power is cut or done holds, which is called
// with the cloud's lock held.
func (s *store) boot(p *power, what string, done func() bool) {
	s.t.Helper()
	a, err := New(Options{
		StateDir: s.dir, Time: s.time, Grace: time.Nanosecond,
		Logger: slog.New(slog.NewTextHandler(s.t.Output(), nil)),
		Lanes:  []Lane{{ID: s.id, Link: "test", Terminal: s.adapter(s.plugIn(p)), End: &poweredEnd{s.bus.Agent(s.id), p}}},
		HTTP:   p.client(s.options.HTTP),
		cut:    func(when string) error { return p.at("%s a journal write", when) },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	if s.booted != nil {
		s.booted(a)
	}
	s.waitFor(p, what, done)
	cancel()
	<-ended // with the power cut, its error means nothing
}

func (s *store) waitFor(p *power, what string, done func() bool) {
	s.t.Helper()
	deadline := time.NewTimer(6 * time.Hour)
	defer deadline.Stop()
	for {
		s.cloud.mu.Lock()
		ok, changed := done(), s.cloud.changed
		s.cloud.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-p.off:
			return
		case <-changed:
		case <-deadline.C:
			s.t.Fatalf("cut %s: no %s", p.where, what)
		}
	}
}

// acted is what the terminal really did for an operation.
var acted = map[device.Operation]zvttest.What{
	device.EndOfDay:    zvttest.EndOfDay,
	device.CheckUpdate: zvttest.Update,
	device.OpenMenu:    zvttest.Menu,
}

// subscribe makes a session at the broker, which keeps what is published from now
// on. Without one the command comes with the welcome, as after a broker that has
// forgotten it.
func (s *store) subscribe() {
	s.t.Helper()
	ctx, leave := context.WithCancel(context.Background())
	if err := s.bus.Agent(s.id).Run(ctx, visitor{leave}); err != nil {
		s.t.Fatal(err)
	}
}

// visitor connects, and leaves.
type visitor struct{ leave context.CancelFunc }

func (v visitor) Connecting() []byte                               { return nil }
func (v visitor) Connected(context.Context, transport.Sender)      { v.leave() }
func (v visitor) Receive(context.Context, transport.Message) error { return nil }

// crash lets one operation run into a power cut at the n-th place; it returns
// false if there are not so many places. The broker has the command on a serial
// line, and has lost it on TCP: both roads, and no run more.
func crash(t *testing.T, op device.Operation, scenario string, serial bool, n int) (more bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, scenario, serial)
		uploads := &logServer{}
		s.options.HTTP = &http.Client{Transport: uploads.client().Transport}
		c := s.command("x", op)
		c.ExpiresAt = transport.At(time.Now().Add(10 * time.Minute)) // a boot takes some seconds
		if op == device.SendLogs {
			c.Upload = &transport.Upload{URL: "https://logs.example.com/1"}
		}
		if serial {
			s.subscribe()
		}
		s.send(c)
		isFinal := func() bool { return len(s.cloud.finals["x"]) > 0 }

		first := newPower(n)
		s.boot(first, "final report", isFinal)
		more = first.isOff()
		acts := len(s.terminal.Did(acted[op]))

		known, totals := s.onDisk("x")
		if first.taken && !known {
			t.Errorf("cut %s: the command was acknowledged, and is not on disk", first.where)
		}

		s.boot(newPower(0), "quiet after the final report on the second boot", s.cloud.quietAfter(isFinal))
		second := len(s.terminal.Did(acted[op]))

		openings, reports, archives := s.opened, s.cloud.reportsSoFar(), len(uploads.seen)
		s.boot(newPower(0), "quiet on the third boot", s.cloud.quietAfter(isFinal))

		fail := func(format string, args ...any) {
			t.Helper()
			t.Errorf("cut %s: %s", first.where, fmt.Sprintf(format, args...))
		}
		if have := len(s.terminal.Did(acted[op])); have > 1 || op != device.SendLogs && have != second {
			fail("the terminal acted %d times after the crash, %d after the second boot, %d after the third", acts, second, have)
		}
		for _, v := range s.terminal.Violations() {
			// A PC without power does not answer, or only after it has booted.
			if !strings.HasPrefix(v, "no answer") && !strings.HasPrefix(v, "80 00 came later") {
				fail("violation: %s", v)
			}
		}
		if s.opened != openings {
			fail("the third boot talked to the terminal")
		}
		if have := s.cloud.reportsSoFar(); have != reports {
			fail("the third boot sent %d reports", have-reports)
		}
		if len(uploads.seen) != archives {
			fail("the third boot uploaded something")
		}
		r := s.cloud.reportOf(t, "x")
		if r.Error != nil && r.Error.Executed == transport.ExecutedNo && second > 0 {
			fail("the report says executed: no, but the terminal did act: %+v", r.Error)
		}
		if r.State == transport.StateCompleted && second != 1 && op != device.SendLogs {
			fail("the report says COMPLETED, but the terminal acted %d times", second)
		}
		if op == device.EndOfDay && (first.seen || totals) && !hasTotals(r, s.terminal) {
			fail("the totals that were seen are not in the report: %s", r.Result)
		}
		if op == device.SendLogs && (r.State != transport.StateCompleted || len(uploads.bodies) == 0) {
			fail("%s with %d archives: %+v", r.State, len(uploads.bodies), r.Error)
		}
	})
	return more
}

// quietAfter holds when the agent has had time for whatever it has left to do
// since final held: until its third hello, the last of which comes helloEvery after
// the one before. A menu is closed by then, too. c.mu is held.
func (c *cloud) quietAfter(final func() bool) func() bool {
	last := 0
	return func() bool {
		switch {
		case !final():
			return false
		case last == 0:
			last = c.hellos + 3
		}
		return c.hellos >= last
	}
}

// onDisk reports whether the journal has an operation, and totals of it, answered
// or not.
func (s *store) onDisk(id string) (known, totals bool) {
	s.t.Helper()
	j, err := openJournal(s.dir, s.time.Wall())
	if err != nil {
		s.t.Fatal(err)
	}
	defer j.close()
	e, err := j.find(s.id, id)
	if err != nil || e == nil {
		return false, false
	}
	all, err := j.evidence(e)
	if err != nil {
		s.t.Fatal(err)
	}
	return true, slices.ContainsFunc(all, func(one device.Evidence) bool { return one.Kind == "totals" })
}

func hasTotals(r transport.Report, d *zvttest.Terminal) bool {
	var result transport.EndOfDayResult
	if json.Unmarshal(r.Result, &result) != nil || result.PurchasesAmount == nil || result.PurchasesCount == nil {
		return false
	}
	count, amount := d.Did(zvttest.EndOfDay)[0].Totals.Sum()
	return *result.PurchasesAmount == amount && *result.PurchasesCount == int64(count)
}

func TestCrash(t *testing.T) {
	for _, tt := range []struct {
		op       device.Operation
		scenario string
	}{
		{device.EndOfDay, "success"},
		{device.EndOfDay, "ingenico"},
		{device.EndOfDay, "repeat-unsupported"}, // what was seen is all there is
		{device.EndOfDay, "naive"},
		{device.SendLogs, "success"},
		{device.CheckUpdate, "success"},
		{device.CheckUpdate, "update-none"},
		{device.OpenMenu, "success"},
		{device.OpenMenu, "menu-b"},
	} {
		for _, serial := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s %s serial=%v", tt.op, tt.scenario, serial), func(t *testing.T) {
				t.Parallel()
				places := 1
				for crash(t, tt.op, tt.scenario, serial, places) {
					places++
				}
				t.Logf("cut at %d places", places-1)
				if places < 20 {
					t.Errorf("only %d places to cut at: is the power connected?", places-1)
				}
			})
		}
	}
}
