package zvt_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"terminalops/device"
	"terminalops/device/zvt"
	"terminalops/device/zvt/frame"
	"terminalops/device/zvt/zvttest"
)

// world is an adapter, a simulated terminal at the other end of its link, and
// what stands for the engine. It lives in a bubble of testing/synctest: all
// timers have their true values.
type world struct {
	t        *testing.T
	serial   bool
	options  zvt.Options
	pt       *zvttest.Terminal
	adapter  *zvt.Terminal
	cut      func(frame.Stream) frame.Stream // around the adapter's end; nil: none
	absent   func() bool                     // reports whether the port is gone
	wire     *wire                           // the one link there is; nil: a new one each time
	serving  sync.WaitGroup
	stop     context.CancelFunc
	ctx      context.Context
	occupied chan struct{} // the terminal serves one link at a time
	opened   int           // links, ever
	open     int           // links, now
	links    []*counted    // all that were opened by this process
}

func newWorld(t *testing.T, scenario string, serial bool) *world {
	t.Helper()
	pt, err := zvttest.New(zvttest.Options{Scenario: scenario, Clock: func() time.Time { return time.Now().UTC() }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	w := &world{t: t, serial: serial, pt: pt, ctx: ctx, stop: stop, occupied: make(chan struct{}, 1)}
	w.options = zvt.Options{Open: w.dial, Serial: serial, Location: time.UTC}
	w.restart()
	t.Cleanup(func() {
		stop()
		w.serving.Wait()
	})
	return w
}

// restart is a new process of the agent. The system closes what the old one had
// open.
func (w *world) restart() {
	w.t.Helper()
	for _, l := range w.links {
		l.Close()
	}
	w.links = nil
	adapter, err := zvt.New(w.options)
	if err != nil {
		w.t.Fatal(err)
	}
	w.adapter = adapter
}

// dial opens a link to the terminal.
func (w *world) dial(context.Context) (frame.Stream, error) {
	if w.absent != nil && w.absent() {
		return nil, errors.New("no such device")
	}
	w.opened++
	if w.wire != nil {
		return w.wire.open(), nil
	}
	ours, theirs := cable()
	w.open++
	serve := w.pt.ServeTCP
	if w.serial {
		serve = w.pt.ServeSerial
	}
	w.serving.Go(func() {
		w.occupied <- struct{}{}
		defer func() { <-w.occupied }()
		if err := serve(w.ctx, theirs); err != nil {
			w.t.Errorf("the terminal's end: %v", err)
		}
	})
	l := &counted{ours, w, sync.Once{}}
	w.links = append(w.links, l)
	var stream frame.Stream = l
	if w.cut != nil {
		stream = w.cut(stream)
	}
	return stream, nil
}

// counted knows how many links are open.
type counted struct {
	frame.Stream
	w    *world
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.w.open-- })
	return c.Stream.Close()
}

// entry is what the journal has of an operation, and the device.Witness.
type entry struct {
	request   device.Request
	began     int
	startedAt time.Time
	mark      json.RawMessage
	evidence  []device.Evidence
	texts     []string
	refuse    error // of Begin
	fail      error // of Record
	onRecord  func(kind string)
}

func (e *entry) Begin(mark any) error {
	e.began++
	if e.refuse != nil {
		return e.refuse
	}
	e.startedAt = time.Now()
	e.mark, _ = json.Marshal(mark)
	return nil
}

func (e *entry) Record(kind string, data any) (device.Evidence, error) {
	b, err := json.Marshal(data)
	if err != nil {
		return device.Evidence{}, err
	}
	if e.onRecord != nil {
		e.onRecord(kind)
	}
	if e.fail != nil {
		return device.Evidence{}, e.fail
	}
	one := device.Evidence{At: time.Now(), Kind: kind, Data: b}
	e.evidence = append(e.evidence, one)
	return one, nil
}

func (e *entry) Progress(text string) { e.texts = append(e.texts, text) }

func (e *entry) past() device.Past {
	return device.Past{
		StartedAt: e.startedAt, Now: time.Now(), Mark: e.mark,
		Evidence: slices.Clone(e.evidence), GiveUp: time.Since(e.startedAt) > 24*time.Hour,
	}
}

// spool takes files in memory.
type spool struct {
	room  int64
	files map[string]string
	lost  map[string]int64
}

func newSpool(room int64) *spool {
	return &spool{room, map[string]string{}, map[string]int64{}}
}

func (s *spool) Room() int64 { return s.room }

func (s *spool) Put(name string, content []byte, dropped int64) error {
	s.files[name], s.lost[name] = string(content), dropped
	s.room -= int64(len(content))
	return nil
}

// ending is what becomes of an operation in the engine's hands.
type ending struct {
	outcome device.Outcome
	err     error // before Begin, or ErrNotStarted
	took    time.Duration
	asked   int // calls of Resolve
	spool   *spool
}

// run does what agent/operation.go does: it waits for a busy terminal until the
// start deadline, and resolves what is in doubt with growing pauses.
func (w *world) run(op device.Operation) (ending, *entry) {
	w.t.Helper()
	e := &entry{}
	return w.runEntry(op, e), e
}

func (w *world) runEntry(op device.Operation, e *entry) ending {
	w.t.Helper()
	began := time.Now()
	expires := began.Add(2 * time.Minute)
	pause := time.Second
	for {
		end := ending{spool: newSpool(1 << 20)}
		e.request = device.Request{Operation: op}
		if op == device.SendLogs {
			e.request.Spool = end.spool
		}
		end.outcome, end.err = w.adapter.Execute(w.ctx, e.request, e)
		end.took = time.Since(began)
		switch {
		case end.err == nil:
			return end
		case e.began > 0 && errors.Is(end.err, device.ErrNotStarted), e.refuse != nil:
			return end
		case e.began > 0:
			end = w.resolve(op, e)
			end.took = time.Since(began)
			return end
		case !errors.Is(end.err, device.ErrBusy):
			return end
		case time.Now().Add(pause).After(expires):
			return end
		}
		time.Sleep(pause)
		pause = min(2*pause, 5*time.Second)
	}
}

// resolve asks until there is an outcome.
func (w *world) resolve(op device.Operation, e *entry) ending {
	w.t.Helper()
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		end := ending{spool: newSpool(1 << 20)}
		e.request = device.Request{Operation: op}
		if op == device.SendLogs {
			e.request.Spool = end.spool
		}
		began := e.began
		end.asked++
		end.outcome, end.err = w.adapter.Resolve(w.ctx, e.request, e.past(), e)
		if e.began != began {
			w.t.Fatal("Resolve called Begin")
		}
		if end.err == nil {
			return end
		}
		if time.Since(e.startedAt) > 25*time.Hour {
			w.t.Fatalf("Resolve still says %v after 25 hours", end.err)
		}
		time.Sleep(pause)
	}
}

// did counts what the terminal really did.
func (w *world) did(what ...zvttest.What) int {
	n := 0
	for _, r := range w.pt.Log() {
		if slices.Contains(what, r.What) {
			n++
		}
	}
	return n
}

// String is the ending in one line, for the table.
func (e ending) String() string {
	switch f := e.outcome.Failure; {
	case e.err != nil:
		return "error: " + kindOf(e.err)
	case f != nil:
		return fmt.Sprintf("%s %s executed %s", f.Cause, f.Code, f.Executed)
	case e.outcome.Attend:
		return fmt.Sprintf("%s, attend", e.outcome.Effect)
	}
	return string(e.outcome.Effect)
}

func kindOf(err error) string {
	for kind, target := range map[string]error{"busy": device.ErrBusy, "unreachable": device.ErrUnreachable, "not started": device.ErrNotStarted} {
		if errors.Is(err, target) {
			return kind
		}
	}
	return "other"
}
