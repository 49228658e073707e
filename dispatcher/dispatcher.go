// Package dispatcher is the cloud side: the public HTTP API over the contract
// of package transport.
//
//	POST .../operations                              terminal's agent
//	        |                                               |
//	   +----v-------+  commit, then publish   +---------+   |
//	   |  handlers  |------- outbox --------->|         |---> commands
//	   +----+-------+   (again until acked)   |transport|<--- reports, presence
//	        |                                 |         |<--- hello
//	   +----v-------+<------ Receive ---------|         |---> welcome
//	   |   store    |   commit, then ack      +---------+
//	   +----^-------+
//	        +---- sweeper: PENDING -> TIMEOUT
//
// The store holds everything that matters and decides every race; its clock is
// the only one that counts. In memory there is only the connection to the
// broker and the outbox, which is filled again from the store at start.
//
// What becomes of an operation is the terminal's word. The dispatcher itself
// knows one ending, TIMEOUT, and that is never said before the command could no
// longer start: see [Times].
package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"terminalops/dispatcher/store"
	"terminalops/transport"
)

// The operations of the API.
const (
	endOfDay    = "end_of_day"
	sendLogs    = "send_logs"
	checkUpdate = "check_update"
	openMenu    = "open_menu"
)

// operations in the order of the API's description.
var operations = []string{endOfDay, sendLogs, checkUpdate, openMenu}

// Operations lists the names of all operations.
func Operations() []string { return slices.Clone(operations) }

// Times are how long the dispatcher waits for what. An operation becomes
// TIMEOUT at
//
//	min(hard limit, max(start deadline + Grace, last report + SilenceWindow))
//
// and a start deadline lies Grace before the hard limit at the latest.
type Times struct {
	StartDeadline time.Duration            // a terminal may begin for so long
	Grace         time.Duration            // how much later TIMEOUT is at the earliest
	SilenceWindow time.Duration            // from the last report to TIMEOUT
	HardLimits    map[string]time.Duration // by operation
	// What a request may ask for as its hard limit (timeout_seconds).
	ShortestTimeout, LongestTimeout time.Duration

	AckWait   time.Duration // how long one attempt waits for the broker's acknowledgement
	Republish time.Duration // between attempts
	Sweep     time.Duration // between looks for operations whose time is up
}

// DefaultTimes are those of the API's description.
func DefaultTimes() Times {
	return Times{
		StartDeadline: 60 * time.Second,
		Grace:         5 * time.Second,
		SilenceWindow: 60 * time.Second,
		HardLimits: map[string]time.Duration{
			endOfDay:    10 * time.Minute,
			sendLogs:    15 * time.Minute,
			checkUpdate: 45 * time.Minute,
			openMenu:    3 * time.Minute,
		},
		ShortestTimeout: 70 * time.Second,
		LongestTimeout:  time.Hour,
		AckWait:         2 * time.Second,
		Republish:       2 * time.Second,
		Sweep:           time.Second,
	}
}

func (t Times) validate() error {
	for name, d := range map[string]time.Duration{
		"start deadline": t.StartDeadline, "grace": t.Grace, "silence window": t.SilenceWindow,
		"acknowledgement wait": t.AckWait, "republish interval": t.Republish, "sweep interval": t.Sweep,
	} {
		if d <= 0 {
			return fmt.Errorf("%s is %v, want more than 0", name, d)
		}
	}
	limits := maps.Clone(t.HardLimits)
	limits["shortest timeout"] = t.ShortestTimeout
	for _, name := range append(Operations(), "shortest timeout") {
		if limits[name] <= t.Grace {
			return fmt.Errorf("hard limit of %s is %v, want more than the grace of %v", name, limits[name], t.Grace)
		}
	}
	if t.LongestTimeout < t.ShortestTimeout {
		return fmt.Errorf("longest timeout is %v, want at least the shortest, %v", t.LongestTimeout, t.ShortestTimeout)
	}
	return nil
}

// Options of a Dispatcher. All members are needed.
type Options struct {
	Store     *store.Store
	End       transport.End // the cloud's end
	Verifier  *Verifier
	PublicURL string // where clients and agents reach Handler, without a slash at its end
	Times     Times
	Uploads   Uploads
	Log       *slog.Logger
}

// Dispatcher serves the API while Run runs.
type Dispatcher struct {
	store     *store.Store
	end       transport.End
	verifier  *Verifier
	publicURL string
	times     Times
	uploads   Uploads
	log       *slog.Logger

	conn   atomic.Pointer[connection]
	outbox outbox
	hellos chan hello
}

// New returns a Dispatcher that is not connected yet.
func New(o Options) (*Dispatcher, error) {
	if err := o.Times.validate(); err != nil {
		return nil, fmt.Errorf("times: %w", err)
	}
	if u, err := url.Parse(o.PublicURL); err != nil || u.Host == "" {
		return nil, fmt.Errorf("public URL is %q, want something like https://dispatcher.example.com", o.PublicURL)
	}
	if err := o.Uploads.prepare(); err != nil {
		return nil, fmt.Errorf("uploads: %w", err)
	}
	return &Dispatcher{
		store: o.Store, end: o.End, verifier: o.Verifier, publicURL: o.PublicURL,
		times: o.Times, uploads: o.Uploads, log: o.Log,
		outbox: outbox{entries: make(map[string]*entry)},
		hellos: make(chan hello, helloQueue),
	}, nil
}

// Run keeps the connection to the broker and ends operations whose time is up.
// It returns when ctx has ended, or when the transport cannot work at all.
func (d *Dispatcher) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() { d.sweep(ctx) })
	err := d.end.Run(ctx, d)
	cancel()
	return err
}

// connection is one connection to the broker, from the moment operations may
// be sent on it. It keeps a ctx because that is what it is: a request borrows
// it to publish, and what is published must end with the connection, not with
// the request.
type connection struct {
	ctx    context.Context
	sender transport.Sender
}

// connection returns nil while there is none.
func (d *Dispatcher) connection() *connection {
	if c := d.conn.Load(); c.listening() {
		return c
	}
	return nil
}

// listening reports whether terminals are heard now: a connection may have ended
// since it was looked for.
func (c *connection) listening() bool { return c != nil && c.ctx.Err() == nil }

// send publishes one message and waits for the acknowledgement for as long as
// an attempt may take.
func (d *Dispatcher) send(c *connection, terminalID string, k transport.Kind, payload []byte) error {
	ctx, cancel := context.WithTimeout(c.ctx, d.times.AckWait)
	defer cancel()
	return c.sender.Send(ctx, terminalID, k, payload)
}

// Connecting implements transport.Handler: the dispatcher leaves no last will.
func (d *Dispatcher) Connecting() []byte { return nil }

// Connected implements transport.Handler.
func (d *Dispatcher) Connected(ctx context.Context, s transport.Sender) {
	// Silence up to now was ours, not the terminals'. Only after that is in the
	// store may silence end anything: connection is what sweeper and POST ask.
	if !d.insist(ctx, "begin listening", func() error { return d.store.Listen(ctx, d.times.SilenceWindow) }) {
		return
	}
	if !d.insist(ctx, "fill the outbox", func() error { return d.fillOutbox(ctx) }) {
		return
	}
	c := &connection{ctx, s}
	d.conn.Store(c)
	d.log.Info("connected to the broker")
	defer d.log.Warn("connection to the broker has ended")
	defer d.conn.CompareAndSwap(c, nil)

	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() { d.republish(c) })
	for range welcomers {
		tasks.Go(func() { d.welcomeAll(c) })
	}
	<-ctx.Done()
}

// insist does what the connection cannot do without, again and again; false
// when ctx ends first.
func (d *Dispatcher) insist(ctx context.Context, what string, do func() error) bool {
	for {
		err := do()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		d.log.Error("cannot "+what+", trying again", "error", err)
		if !pause(ctx, d.times.Sweep) {
			return false
		}
	}
}

// sweep looks for operations whose time is up, and for archives that were kept
// long enough, until ctx ends.
func (d *Dispatcher) sweep(ctx context.Context) {
	var cleaned time.Time
	for {
		d.expire(ctx)
		if time.Since(cleaned) >= time.Hour {
			d.removeOldArchives(ctx)
			cleaned = time.Now()
		}
		if !pause(ctx, d.times.Sweep) {
			return
		}
	}
}

func (d *Dispatcher) expire(ctx context.Context) {
	expired, err := d.store.Expire(ctx, d.connection() != nil)
	if err != nil && !errors.Is(err, context.Canceled) {
		d.log.Error("cannot end operations, trying again", "error", err)
	}
	d.logExpired(expired)
}

func (d *Dispatcher) logExpired(expired []store.Operation) {
	for _, o := range expired {
		d.log.Warn("operation timed out", "operation", o.ID, "terminal", o.TerminalID, "name", o.Operation, "error", string(o.Error))
	}
}

// pause returns false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

var _ transport.Handler = (*Dispatcher)(nil)
