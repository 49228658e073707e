package dispatcher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"terminalops/dispatcher/store"
	"terminalops/transport"
)

// Receive implements transport.Handler. It returns nil once a message is
// committed, or can never be used; an error means that the store could not take
// it now.
func (d *Dispatcher) Receive(ctx context.Context, m transport.Message) error {
	if m.Retained && m.Kind != transport.Presence {
		d.drop(m, "it is retained")
		return nil
	}
	switch m.Kind {
	case transport.Reports:
		return d.report(ctx, m)
	case transport.Presence:
		return d.presence(ctx, m)
	case transport.Hello:
		return d.hello(m)
	default:
		d.drop(m, "no such kind")
		return nil
	}
}

// drop is the audit of what a terminal said and nobody can use.
func (d *Dispatcher) drop(m transport.Message, why string) {
	d.log.Warn("message dropped", "terminal", m.TerminalID, "kind", string(m.Kind), "why", why)
}

func (d *Dispatcher) report(ctx context.Context, m transport.Message) error {
	r, err := transport.DecodeReport(m.Payload, m.TerminalID)
	if err != nil {
		d.drop(m, err.Error())
		return nil
	}
	switch {
	case r.Origin == transport.OriginLocal && !r.Final():
		return nil // only what has become of it is of interest here
	case r.Origin == transport.OriginLocal:
		return d.localReport(ctx, m, r)
	case r.Final():
		return d.finalReport(ctx, r)
	default:
		v, err := d.store.Heard(ctx, r.TerminalID, r.OperationID, store.Progress{
			Running: r.State == transport.StateRunning, Sequence: r.Sequence, Message: r.Message,
		}, d.times.SilenceWindow)
		return d.judged(r, v, err)
	}
}

func (d *Dispatcher) finalReport(ctx context.Context, r transport.Report) error {
	v, err := d.store.Finish(ctx, r.TerminalID, r.OperationID, outcome(r))
	if err == nil && (v == store.Stored || v == store.Late) {
		d.logOutcome(r, v)
	}
	return d.judged(r, v, err)
}

func (d *Dispatcher) localReport(ctx context.Context, m transport.Message, r transport.Report) error {
	if !slices.Contains(operations, r.Operation) {
		d.drop(m, fmt.Sprintf("local operation %.80s: unknown operation %.40q", r.OperationID, r.Operation))
		return nil
	}
	user := r.CreatedBy
	if user == "" {
		user = "unknown"
	}
	if !strings.HasPrefix(user, "local:") {
		user = "local:" + user
	}
	v, err := d.store.AddLocal(ctx, r.TerminalID, r.OperationID, r.Operation, user, outcome(r))
	if errors.Is(err, store.ErrUnknownTerminal) {
		d.drop(m, "unknown terminal; make it known with terminals add")
		return nil
	}
	if err == nil && v == store.Stored {
		d.logOutcome(r, v)
	}
	return d.judged(r, v, err)
}

// judged logs what was not usable in a report.
func (d *Dispatcher) judged(r transport.Report, v store.Verdict, err error) error {
	if err != nil {
		return err
	}
	switch v {
	case store.Stored, store.Late, store.Repeated, store.Over:
	case store.Unknown, store.Foreign, store.Contradicting:
		d.log.Warn("report dropped", "operation", r.OperationID, "terminal", r.TerminalID, "state", r.State, "why", string(v))
	default:
		panic("dispatcher: unknown verdict " + string(v))
	}
	return nil
}

func (d *Dispatcher) logOutcome(r transport.Report, v store.Verdict) {
	args := []any{"operation", r.OperationID, "terminal", r.TerminalID, "name", r.Operation, "state", r.State}
	if r.Error != nil {
		args = append(args, "code", r.Error.Code, "executed", r.Error.Executed, "message", r.Error.Message)
	}
	if v == store.Late {
		d.log.Warn("operation ended after its timeout", args...)
		return
	}
	d.log.Info("operation ended", args...)
}

// failure is the error member of an operation: what the report said, and with
// it what the terminal had told before it failed.
type failure struct {
	transport.Error
	Result json.RawMessage `json:"result,omitempty"`
}

// lateResult is what is kept beside a TIMEOUT.
type lateResult struct {
	State  string          `json:"state"`
	Effect string          `json:"effect,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *failure        `json:"error,omitempty"`
}

// outcome translates a final report.
func outcome(r transport.Report) store.Outcome {
	out := store.Outcome{Status: store.Completed, Sequence: r.Sequence, Message: r.Message, Effect: r.Effect}
	late := lateResult{State: r.State, Effect: r.Effect}
	result := compact(r.Result)
	if r.State == transport.StateFailed {
		late.Error = &failure{Error: *r.Error, Result: result}
		out.Status, out.Error = store.Failed, encode(late.Error)
	} else {
		late.Result, out.Result = result, result
	}
	out.Late = encode(late)
	return out
}

// compact returns nil for "no value".
func compact(value json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if len(value) == 0 || json.Compact(&b, value) != nil || b.String() == "null" {
		return nil
	}
	return b.Bytes()
}

func encode(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic("dispatcher: " + err.Error())
	}
	return b
}

func (d *Dispatcher) presence(ctx context.Context, m transport.Message) error {
	if len(m.Payload) == 0 {
		return nil // somebody removed the retained one
	}
	p, err := transport.DecodePresence(m.Payload)
	if err != nil {
		d.drop(m, err.Error())
		return nil
	}
	now := store.Presence{State: p.State, JournalID: p.JournalID, Connection: p.Connection}
	if p.State == transport.Online {
		now.Message = m.Payload
	}
	before, oldNews, err := d.store.SavePresence(ctx, m.TerminalID, now)
	switch {
	case errors.Is(err, store.ErrUnknownTerminal):
		d.drop(m, "unknown terminal; make it known with terminals add")
		return nil
	case err != nil:
		return err
	case oldNews:
		return nil
	case before.State == transport.Online && before.JournalID != p.JournalID:
		d.log.Warn("terminal is online with another journal: a new one, or two agents with one id",
			"terminal", m.TerminalID, "journal", p.JournalID, "before", before.JournalID)
	case before.State != p.State:
		d.log.Info("terminal is "+p.State, "terminal", m.TerminalID)
	}
	return nil
}

const (
	// helloQueue is how many hellos wait for an answer; what is more is said
	// again by the agents.
	helloQueue = 16384
	// helloPatience is how long an agent waits for an answer.
	helloPatience = 5 * time.Second
	// welcomers is how many hellos are answered at a time.
	welcomers = 16
	// wantedWithin and wantedMost bound what is asked for in a welcome; an id
	// takes 39 bytes of the payload, so that 1000 of them leave it under 64 KiB.
	wantedWithin = 30 * 24 * time.Hour
	wantedMost   = 1000
	longestNonce = 128
)

type hello struct {
	terminalID string
	message    transport.HelloMessage
	at         time.Time
}

// hello puts a hello where the welcomers find it. It may be lost: the agent
// says it again.
func (d *Dispatcher) hello(m transport.Message) error {
	h, err := transport.DecodeHello(m.Payload)
	if err != nil {
		d.drop(m, err.Error())
		return nil
	}
	if len(h.Nonce) > longestNonce { // it comes back in the welcome, which has its limit
		d.drop(m, fmt.Sprintf("hello: nonce longer than %d characters", longestNonce))
		return nil
	}
	select {
	case d.hellos <- hello{m.TerminalID, h, time.Now()}:
	default:
		d.drop(m, "too many hellos wait for an answer")
	}
	return nil
}

func (d *Dispatcher) welcomeAll(c *connection) {
	for {
		select {
		case <-c.ctx.Done():
			return
		case h := <-d.hellos:
			if time.Since(h.at) >= helloPatience {
				continue
			}
			if err := d.welcome(c, h); err != nil && c.ctx.Err() == nil {
				d.log.Warn("welcome not sent, the agent will ask again", "terminal", h.terminalID, "error", err)
			}
		}
	}
}

func (d *Dispatcher) welcome(c *connection, h hello) error {
	pending, err := d.store.PendingOf(c.ctx, h.terminalID)
	if err != nil {
		return err
	}
	w := transport.WelcomeMessage{Nonce: h.message.Nonce}
	for _, o := range pending {
		p := transport.Pending{Command: d.command(o), Running: !o.RunningAt.IsZero()}
		if !o.AcceptedAt.IsZero() {
			p.AcceptedAt = transport.At(o.AcceptedAt)
		}
		w.Pending = append(w.Pending, p)
	}
	if w.Wanted, err = d.store.Wanted(c.ctx, h.terminalID, wantedWithin, wantedMost); err != nil {
		return err
	}
	// The time last: the agent's uncertainty is all that passes after this.
	now, err := d.store.Now(c.ctx)
	if err != nil {
		return err
	}
	w.ServerTime = transport.At(now)
	return d.send(c, h.terminalID, transport.Welcome, transport.Encode(w))
}
