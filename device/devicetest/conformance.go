package devicetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device"
)

// Condition is the state in which TestDevice wants a device and its link.
type Condition string

// The conditions that TestDevice asks for.
const (
	Working Condition = "working" // does everything it is asked for, within 30 s
	Absent  Condition = "absent"  // the link cannot be opened
	InUse   Condition = "in use"  // another program has the link
	Mute    Condition = "mute"    // the link is open, and nobody answers
	Dying   Condition = "dying"   // the link breaks when the device has begun to act, for good or for a while
)

// Bench is a device in some condition, and the adapter that drives it.
type Bench struct {
	// New makes the adapter, as a process does that has just started. What the
	// process before had open is closed.
	New func() device.Terminal
	// Acts is how often the device really acted. Reading is no act.
	Acts func() int
	// Links is the number of links that are open now.
	Links func() int
	// OnWrite is set by TestDevice. The bench calls it before each Write of the
	// adapter on its link, and before each attempt to open one.
	OnWrite func()
}

// Setup makes a Bench for a test. It is called inside of a bubble of
// testing/synctest: time is virtual, and what it starts has to end with t.
type Setup func(t *testing.T, c Condition) *Bench

// TestDevice is the contract of device.Terminal as a test. Every adapter must
// pass it. The operations tested are those that Describe lists.
func TestDevice(t *testing.T, setup Setup) {
	for _, test := range []struct {
		name      string
		condition Condition
		run       func(*trial)
	}{
		{"begins once before it acts", Working, beginsOnce},
		{"a begin that refuses", Working, beginRefuses},
		{"absent", Absent, failsBefore(device.ErrUnreachable)},
		{"in use", InUse, failsBefore(device.ErrBusy)},
		{"mute", Mute, failsBefore(device.ErrUnreachable)},
		{"a lost end is in doubt", Dying, lostEnd},
		{"resolve never acts", Working, resolveNeverActs},
		{"resolve that gives up", Working, givesUp},
		{"the end of ctx", Working, cancelled},
		{"evidence before the answer", Working, evidenceFirst},
		{"evidence that is not on disk", Working, diskFails},
		{"describe at any time", Working, describes},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, op := range operations(t, setup) {
				t.Run(string(op), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						tr := &trial{T: t, op: op, bench: setup(t, test.condition)}
						tr.bench.OnWrite = tr.wrote
						tr.terminal = tr.bench.New()
						tr.ctx, tr.cancel = context.WithCancel(t.Context())
						defer tr.cancel()
						test.run(tr)
						tr.checkTidy()
					})
				})
			}
		})
	}
}

// operations asks an adapter what it can do.
func operations(t *testing.T, setup Setup) (list []device.Operation) {
	synctest.Test(t, func(t *testing.T) { list = setup(t, Working).New().Describe().Operations })
	if len(list) == 0 {
		t.Fatal("Describe lists no operations")
	}
	return list
}

// trial is one run of one test. It is the device.Witness, too.
type trial struct {
	*testing.T
	op       device.Operation
	bench    *Bench
	terminal device.Terminal
	ctx      context.Context
	cancel   context.CancelFunc

	began     int
	startedAt time.Time
	mark      json.RawMessage
	evidence  []device.Evidence
	writes    atomic.Int64
	known     int // pieces of evidence when the last Write was made
	attending bool

	refuse  error  // of Begin
	fail    error  // of Record
	onBegin func() // called in Begin
}

func (tr *trial) wrote() {
	tr.writes.Add(1)
	tr.known = len(tr.evidence)
}

// Begin implements device.Witness.
func (tr *trial) Begin(mark any) error {
	tr.began++
	if tr.onBegin != nil {
		tr.onBegin()
	}
	if tr.refuse != nil {
		return tr.refuse
	}
	if n := tr.bench.Acts(); n > 0 {
		tr.Errorf("acted %d times before Begin", n)
	}
	var err error
	if tr.mark, err = json.Marshal(mark); err != nil {
		tr.Errorf("the mark is no JSON: %v", err)
	}
	tr.startedAt = time.Now()
	return nil
}

// Record implements device.Witness.
func (tr *trial) Record(kind string, data any) (device.Evidence, error) {
	b, err := json.Marshal(data)
	if err != nil {
		tr.Errorf("evidence %s is no JSON: %v", kind, err)
	}
	if kind == "" {
		tr.Error("evidence without a kind")
	}
	e := device.Evidence{At: time.Now(), Kind: kind, Data: b}
	if tr.fail != nil {
		return e, tr.fail
	}
	tr.evidence = append(tr.evidence, e)
	return e, nil
}

// Progress implements device.Witness.
func (tr *trial) Progress(string) {}

func (tr *trial) request() device.Request {
	r := device.Request{Operation: tr.op}
	if tr.op == device.SendLogs {
		r.Spool = &memory{room: 1 << 20}
	}
	return r
}

func (tr *trial) execute() (device.Outcome, error) {
	o, err := tr.terminal.Execute(tr.ctx, tr.request(), tr)
	tr.attending = o.Attend
	return o, err
}

// past is what a journal would hold.
func (tr *trial) past() device.Past {
	return device.Past{StartedAt: tr.startedAt, Now: time.Now(), Mark: tr.mark, Evidence: slices.Clone(tr.evidence)}
}

// resolve asks until there is an outcome, as the engine does.
func (tr *trial) resolve() device.Outcome {
	began := tr.began
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		o, err := tr.terminal.Resolve(tr.ctx, tr.request(), tr.past(), tr)
		if tr.began != began {
			tr.Fatal("Resolve called Begin")
		}
		if err == nil {
			tr.attending = o.Attend
			return o
		}
		if time.Since(tr.startedAt) > 24*time.Hour {
			tr.Fatalf("no outcome after 24 hours: %v", err)
		}
		time.Sleep(pause)
	}
}

// checkTidy wants no link to stay open.
func (tr *trial) checkTidy() {
	if n := tr.bench.Links(); n > 0 && !tr.attending {
		tr.Errorf("%d links left open", n)
	}
}

// checkActs wants at most one act, and none by an operation that reads.
func (tr *trial) checkActs() {
	most := 1
	if tr.op == device.SendLogs {
		most = 0
	}
	if n := tr.bench.Acts(); n > most {
		tr.Errorf("acted %d times, want at most %d", n, most)
	}
}

// beginsOnce has a slow disk: whatever was asked of the device before Begin has
// time to show.
func beginsOnce(tr *trial) {
	tr.onBegin = func() { time.Sleep(30 * time.Second) }
	o, err := tr.execute()
	if err == nil {
		checkOutcome(tr, o)
	} else if errors.Is(err, device.ErrNotStarted) {
		tr.Errorf("a device that works: %v", err)
	}
	if tr.began != 1 {
		tr.Errorf("began %d times, want once", tr.began)
	}
	tr.checkActs()
}

// checkOutcome wants an outcome that the engine understands.
func checkOutcome(tr *trial, o device.Outcome) {
	switch f := o.Failure; {
	case f == nil && o.Effect != device.Done && o.Effect != device.Triggered:
		tr.Errorf("effect %q", o.Effect)
	case f != nil && f.Message == "":
		tr.Errorf("failure without a message: %+v", f)
	case f != nil && f.Executed == device.No && tr.bench.Acts() > 0:
		tr.Errorf("executed no, and it acted: %+v", f)
	}
	switch o.Result.(type) {
	case nil, *device.EndOfDayResult, *device.CheckUpdateResult, *device.OpenMenuResult:
	default:
		tr.Errorf("result of type %T", o.Result)
	}
	if _, attends := tr.terminal.(device.Attendant); o.Attend && !attends {
		tr.Error("Attend is set, and the adapter is no device.Attendant")
	}
}

func beginRefuses(tr *trial) {
	tr.refuse = errors.New("too late")
	var written int64
	tr.onBegin = func() { written = tr.writes.Load() }
	if _, err := tr.execute(); !errors.Is(err, tr.refuse) {
		tr.Errorf("error %v, want Begin's %v in it", err, tr.refuse)
	}
	if n := tr.writes.Load() - written; n > 0 {
		tr.Errorf("%d Writes after Begin refused", n)
	}
	time.Sleep(time.Hour)
	if n := tr.bench.Acts(); n > 0 {
		tr.Errorf("acted %d times", n)
	}
}

func failsBefore(want error) func(*trial) {
	return func(tr *trial) {
		start := time.Now()
		if _, err := tr.execute(); !errors.Is(err, want) {
			tr.Errorf("error %v, want %v", err, want)
		}
		if tr.began > 0 {
			tr.Error("called Begin")
		}
		if took := time.Since(start); took > 2*time.Minute {
			tr.Errorf("took %v", took)
		}
	}
}

func lostEnd(tr *trial) {
	if tr.op == device.SendLogs {
		tr.Skip("reading is no act")
	}
	_, err := tr.execute()
	switch {
	case tr.began != 1:
		tr.Fatalf("began %d times: %v", tr.began, err)
	case errors.Is(err, device.ErrNotStarted) && tr.bench.Acts() > 0:
		tr.Errorf("it acted, and the error says not started: %v", err)
	case err != nil:
		tr.terminal = tr.bench.New() // the process crashed, too
		checkOutcome(tr, tr.resolve())
	}
	tr.checkActs()
}

func resolveNeverActs(tr *trial) {
	if err := tr.Begin(nil); err != nil { // and then the power failed
		tr.Fatal(err)
	}
	o := tr.resolve()
	if n := tr.bench.Acts(); n > 0 {
		tr.Errorf("Resolve made it act %d times: %+v", n, o)
	}
	if f := o.Failure; tr.op == device.EndOfDay && (f == nil || f.Executed == device.Yes) {
		tr.Errorf("nothing happened, and the outcome is %+v", o)
	}
}

func givesUp(tr *trial) {
	tr.startedAt = time.Now()
	past := tr.past()
	past.GiveUp = true
	o, err := tr.terminal.Resolve(tr.ctx, tr.request(), past, tr)
	if err != nil || o.Failure == nil || o.Failure.Cause != device.Unknown {
		tr.Errorf("without evidence: %+v, %v, want a failure, unknown", o, err)
	}
	if n := tr.writes.Load(); n > 0 || tr.began > 0 {
		tr.Errorf("%d Writes, begun %d times, want none", n, tr.began)
	}
}

// cancelled ends ctx a moment after Begin. What the adapter has to say then is
// left unsaid.
func cancelled(tr *trial) {
	type moment struct {
		at     time.Time
		writes int64
	}
	ended := make(chan moment, 1)
	tr.onBegin = func() {
		time.AfterFunc(1300*time.Millisecond, func() {
			m := moment{time.Now(), tr.writes.Load()}
			tr.cancel()
			ended <- m
		})
	}
	_, err := tr.execute()
	if tr.ctx.Err() == nil {
		tr.Skip("it was over before")
	}
	returned := time.Now()
	m := <-ended
	if errors.Is(err, device.ErrNotStarted) {
		tr.Errorf("it was asked to act, and the error says not started: %v", err)
	}
	if waited := returned.Sub(m.at); waited > 100*time.Millisecond {
		tr.Errorf("returned %v after the end of ctx", waited)
	}
	time.Sleep(time.Minute)
	if n := tr.writes.Load() - m.writes; n > 0 {
		tr.Errorf("%d Writes after the end of ctx", n)
	}
	tr.checkActs()
}

// evidenceFirst: before the last thing that the adapter says, which is the
// answer to the end, it must be on disk how the operation ended.
func evidenceFirst(tr *trial) {
	if tr.op != device.EndOfDay {
		tr.Skip("only an end of day has results that are told once")
	}
	o, err := tr.execute()
	if err != nil {
		tr.Fatal(err)
	}
	past := tr.past()
	past.Evidence, past.GiveUp = past.Evidence[:tr.known], true
	tr.terminal = tr.bench.New()
	again, err := tr.terminal.Resolve(tr.ctx, tr.request(), past, tr)
	got, want := fmt.Sprintf("%+v", flat(tr, again)), fmt.Sprintf("%+v", flat(tr, o))
	if err != nil || got != want {
		tr.Errorf("a crash before the last answer, and the evidence says %s, %v\nwant %s", got, err, want)
	}
}

func flat(tr *trial, o device.Outcome) string {
	b, err := json.Marshal(o)
	if err != nil {
		tr.Error(err)
	}
	return string(b)
}

func diskFails(tr *trial) {
	tr.fail = errors.New("disk full")
	o, err := tr.execute()
	if tr.op != device.CheckUpdate && (err != nil || o.Failure != nil) {
		tr.Errorf("%+v, %v: want it done, if not on disk", o, err)
	}
	tr.checkActs()
}

func describes(tr *trial) {
	describing, stop := context.WithCancel(tr.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for describing.Err() == nil {
			if d := tr.terminal.Describe(); d.Protocol == "" {
				tr.Error("no protocol")
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	if _, err := tr.execute(); err != nil && tr.op != device.CheckUpdate {
		tr.Error(err)
	}
	stop()
	<-done
}

// memory is a device.Spool.
type memory struct{ room int64 }

// Room implements device.Spool.
func (m *memory) Room() int64 { return m.room }

// Put implements device.Spool.
func (m *memory) Put(_ string, content []byte, _ int64) error {
	m.room -= int64(len(content))
	return nil
}
