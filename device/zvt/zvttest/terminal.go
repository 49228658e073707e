package zvttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
)

// Options are the options of New.
type Options struct {
	// Scenario is the name of a scenario, or several joined by "+", each of
	// which changes what it is about; empty: "success". See Scenarios.
	Scenario string
	// Log is the file of what the terminal really did; empty: memory only. An
	// existing one is continued: what is closed stays closed.
	Log string
	// Batch is what is in the open batch of a terminal without a log; nil: 42
	// payments with several card schemes.
	Batch *Totals
	// Clock is the terminal's clock, which it prints and writes to its log;
	// nil: time.Now. It waits by the real one.
	Clock func() time.Time
	// Fast lets the terminal work a hundred times as fast, and without the
	// latencies of a serial line. The timers of the protocol stay as they are,
	// and so do the troubles that are about time.
	Fast bool
	// Tell is called with a line for people about all that the terminal hears
	// and does; nil: nobody listens. It must not call the terminal.
	Tell func(line string)
}

// Terminal is a simulated payment terminal. Its methods may be called from any
// goroutine, but it has one line: only one Serve at a time.
type Terminal struct {
	o    Options
	rand *rand.Rand // latencies; used by the one Serve

	mu       sync.Mutex
	playing  *script // replaced as a whole, never changed
	changes  int     // counts what people have done to it
	restarts int     // those among it
	look     func()  // ends the wait of an idle session, for it to look at that
	journal  *journal
	broken   error // the log cannot be written: the terminal stops
	state    state
}

// state is what a terminal keeps when it is switched off (all of it follows
// from the log), and while it is on.
type state struct {
	batch   Totals
	closed  *Record // the last end of day
	version version

	registered registration
	phases     []phase   // times in which it is not at hand, in order
	asked      time.Time // first status enquiry; zero: none yet
	cured      bool      // the condition of the scenario is over
}

// version is the software's. An update shows when it is over.
type version struct {
	now, next string
	at        time.Time // from when on it is next
}

func (v version) current() string {
	if v.next != "" && !time.Now().Before(v.at) {
		return v.next
	}
	return v.now
}

// phase is a time in which the terminal updates or restarts.
type phase struct {
	until  time.Time
	status apdu.StatusCode // what it answers; statusAway: nothing
}

// statusAway is no status of the specification: nobody is there to ask.
const statusAway apdu.StatusCode = 0xFF

// registration is what the ECR has asked for.
type registration struct {
	config   apdu.Config
	currency bool // it named one, so 04 0F may
	blocks   bool // receipts may come as 06 D3
	size     int  // of the largest APDU wanted, in bytes
}

// unregistered is the state after a restart.
var unregistered = registration{config: apdu.ConfigLoggedOff, size: maxAPDU}

// maxAPDU is the largest APDU, in bytes, to an ECR that does not say what it
// can take. Terminals were seen to send 1648 bytes.
const maxAPDU = 1700

// firstVersion is the software of a new terminal.
const firstVersion = "2.14.15"

// New makes a terminal. An unknown scenario is an error that lists the known.
func New(o Options) (*Terminal, error) {
	sc, err := compose(o.Scenario)
	if err != nil {
		return nil, err
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Tell == nil {
		o.Tell = func(string) {}
	}
	j, err := openJournal(o.Log)
	if err != nil {
		return nil, err
	}
	t := &Terminal{o: o, playing: sc, rand: rand.New(rand.NewPCG(1, 2)), journal: j}
	t.state = state{batch: sc.batch, version: version{now: firstVersion}, registered: unregistered}
	if o.Batch != nil {
		t.state.batch = *o.Batch
	}
	for _, r := range j.records {
		t.state.apply(r)
	}
	return t, nil
}

// Close closes the log's file.
func (t *Terminal) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.journal.close()
}

// Log returns what the terminal really did, and what it was sent that must
// never be sent.
func (t *Terminal) Log() []Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.journal.records)
}

// Did returns the records of one kind.
func (t *Terminal) Did(what What) []Record {
	return slices.DeleteFunc(t.Log(), func(r Record) bool { return r.What != what })
}

// Violations returns what the ECR did that it must never do, a sentence each.
func (t *Terminal) Violations() []string {
	var texts []string
	for _, r := range t.Did(Violation) {
		texts = append(texts, r.Text)
	}
	return texts
}

// Sell adds a payment to the open batch: one of apdu.GroupNames, and an amount
// in minor units.
func (t *Terminal) Sell(scheme string, amount int64) error {
	if !slices.Contains(apdu.GroupNames[:], scheme) {
		return fmt.Errorf("card scheme %q: one of %q wanted", scheme, apdu.GroupNames)
	}
	t.did(Record{What: Payment, Totals: &Totals{Schemes: []Scheme{{scheme, 1, amount}}}})
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.broken
}

// SoftwareVersion is the version the terminal runs now.
func (t *Terminal) SoftwareVersion() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state.version.current()
}

// did puts on record what the terminal does now, and lets it have its effect.
func (t *Terminal) did(r Record) {
	t.mu.Lock()
	r.At = t.o.Clock()
	if t.broken == nil {
		t.broken = t.journal.append(r)
	}
	if t.broken == nil {
		t.state.apply(r)
	}
	t.mu.Unlock()
	t.o.Tell(r.String())
}

// apply is the effect of a record.
func (s *state) apply(r Record) {
	switch r.What {
	case EndOfDay:
		s.closed, s.batch = &r, r.Totals.after()
	case Payment:
		paid := r.Totals.Schemes[0]
		s.batch = s.batch.with(paid.Name, paid.Amount)
	case Update:
		s.version = version{now: s.version.current(), next: r.Version, at: r.Until}
		s.away(r.Until)
	case Reboot:
		s.registered = unregistered
		s.away(r.Until)
	case LogOff:
		s.registered = unregistered
	case Menu, ReadFile, DeleteFile, Violation:
	}
}

func (s *state) away(until time.Time) { s.phases = []phase{{until, statusAway}} }

// phase returns what the terminal is busy with, if it is.
func (s *state) phase() (phase, bool) {
	for _, p := range s.phases {
		if time.Now().Before(p.until) {
			return p, true
		}
	}
	return phase{}, false
}

// away reports whether nobody is there to answer.
func (t *Terminal) away() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, busy := t.state.phase()
	return t.playing.silent || busy && p.status == statusAway
}

// script returns what the terminal plays now.
func (t *Terminal) script() *script {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.playing
}

// at returns the state, of which the caller may look at the plain members.
func (t *Terminal) at() state {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state
}

func (t *Terminal) change(f func(*state)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.state)
}

// ServeSerial plays the terminal on a serial line, or what stands for one,
// until the line or ctx ends, which is no error. It owns s. What the terminal
// has begun it ends before ServeSerial returns, also without a line. It may
// be called again.
func (t *Terminal) ServeSerial(ctx context.Context, s frame.Stream) error {
	return (&session{t: t, stream: s, serial: true}).serve(ctx)
}

// ServeTCP plays the terminal on a TCP connection, as ServeSerial does on a
// line. A terminal that is away closes the connection.
func (t *Terminal) ServeTCP(ctx context.Context, s frame.Stream) error {
	return (&session{t: t, stream: s}).serve(ctx)
}

// isEnd reports whether a stream simply ended. A peer that closes a connection
// with something unread in it resets it.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) || errors.Is(err, connectionReset) || errors.Is(err, errHungUp)
}
