package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"terminalops/device"
	"terminalops/transport"
)

const (
	helloEvery   = 10 * time.Minute // with everything well
	helloSoon    = 30 * time.Second // the second one on a connection: see lane.welcome
	helloAnswer  = maxAnswer        // after that without a welcome, it is said again ...
	helloCeiling = 20 * time.Second // ... with a growing pause

	progressEvery = 20 * time.Second // at least, while an operation is not finished
	progressPause = time.Second      // at most
)

// Connected implements transport.Handler: it is the reporter. It sends what the
// cloud does not know yet, as long as the connection lasts: hello and presence
// first, then final reports in the order of the journal, then the newest of
// what is going on.
func (l *lane) Connected(ctx context.Context, s transport.Sender) {
	s = &noted{s, l}
	l.mu.Lock()
	l.connected, l.hello, l.news = true, hello{}, true
	l.log.Info("connected", "connection", l.connection)
	l.mu.Unlock()
	defer l.disconnected()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		l.reporting.turn(turnPatience)
		again, err := l.send(ctx, s)
		if err != nil && ctx.Err() == nil {
			l.log.Warn("not sent, trying again", "error", err)
			again = time.Second
		}
		timer.Reset(again)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-l.reporterWake:
		}
	}
}

func (l *lane) disconnected() {
	l.reporting.turn(0)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.connected = false
}

// send sends everything that is due, and returns when to look again.
func (l *lane) send(ctx context.Context, s transport.Sender) (time.Duration, error) {
	again, err := l.sendHello(ctx, s)
	if err != nil {
		return 0, err
	}
	if err := l.sendPresence(ctx, s); err != nil {
		return 0, err
	}
	if err := l.sendFinals(ctx, s); err != nil {
		return 0, err
	}
	progress, err := l.sendProgress(ctx, s)
	if err != nil {
		return 0, err
	}
	return min(again, progress), l.sendLastWord(ctx, s)
}

// sayHello asks for a welcome soon: something waits for the cloud's time. l.mu
// is held.
func (l *lane) sayHello() {
	if l.hello.nonce == "" {
		l.hello.due = time.Time{}
		l.wakeReporter()
	}
}

// sendHello says hello if it is due, and returns when it is due again. An agent
// that no cloud ever welcomed does not wait for one.
func (l *lane) sendHello(ctx context.Context, s transport.Sender) (time.Duration, error) {
	l.mu.Lock()
	if wait := time.Until(l.hello.due); wait > 0 {
		l.mu.Unlock()
		return wait, nil
	}
	if l.hello.nonce != "" {
		l.hello.misses++
		if l.journal.meta("welcomed") == "" && l.journal.meta("replaced") == "" {
			l.clock.useOwn()
			l.wakeWorker()
		}
	}
	pause := min(helloAnswer<<min(l.hello.misses, 4), helloCeiling)
	l.hello = hello{nonce: newID(), sent: l.clock.read(), due: time.Now().Add(pause), misses: l.hello.misses, again: l.hello.again}
	m := transport.HelloMessage{Nonce: l.hello.nonce, JournalID: l.journal.id, Agent: l.program}
	l.news = true
	l.mu.Unlock()
	return pause, s.Send(ctx, l.id, transport.Hello, transport.Encode(m))
}

// sendPresence sends presence if it has changed.
func (l *lane) sendPresence(ctx context.Context, s transport.Sender) error {
	l.mu.Lock()
	if !l.news {
		l.mu.Unlock()
		return nil
	}
	l.news = false
	p := l.presence(transport.Online)
	l.mu.Unlock()
	err := s.Send(ctx, l.id, transport.Presence, transport.Encode(p))
	if err != nil {
		l.mu.Lock()
		l.news = true
		l.mu.Unlock()
	}
	return err
}

// presence is what is known now. l.mu is held.
func (l *lane) presence(state string) transport.PresenceMessage {
	dev, program := l.describe(), l.program
	p := transport.PresenceMessage{
		State: state, At: transport.At(l.clock.now()), JournalID: l.journal.id, Connection: l.connection,
		Agent: &program, Device: &dev, Detail: l.detail,
	}
	for _, op := range l.terminal.Describe().Operations {
		p.Operations = append(p.Operations, string(op))
	}
	return p
}

// describe is what is known of the terminal. l.mu is held.
func (l *lane) describe() transport.Device {
	d, dev := l.terminal.Describe(), l.device
	if l.unplugged != "" {
		dev.State, dev.Detail = transport.DeviceUnreachable, l.unplugged
	}
	dev.Protocol, dev.Link = d.Protocol, l.link
	dev.Model, dev.SerialNumber, dev.SoftwareVersion = d.Model, d.SerialNumber, d.SoftwareVersion
	return dev
}

// goodbye is how long a stopping agent tries to say so.
const goodbye = 2 * time.Second

// sendLastWord says offline when the agent is leaving: after a proper
// disconnect the broker publishes no last will.
func (l *lane) sendLastWord(ctx context.Context, s transport.Sender) error {
	l.mu.Lock()
	leaving := l.leaving
	l.leaving = nil
	p := l.presence(transport.Offline)
	l.mu.Unlock()
	if leaving == nil {
		return nil
	}
	defer close(leaving)
	return s.Send(ctx, l.id, transport.Presence, transport.Encode(p))
}

// sayGoodbye gives the reporter a moment to send what is final, and that the
// agent leaves. Without a connection there is nothing to wait for: the system
// grants little time, on Windows three seconds in all.
func (l *lane) sayGoodbye() {
	l.mu.Lock()
	if !l.connected {
		l.mu.Unlock()
		return
	}
	l.leaving = make(chan struct{})
	said := l.leaving
	l.wakeReporter()
	l.mu.Unlock()
	timer := time.NewTimer(goodbye)
	defer timer.Stop()
	select {
	case <-said:
	case <-timer.C:
	}
}

// sendFinals sends the final reports, oldest first, each until the broker has
// it.
func (l *lane) sendFinals(ctx context.Context, s transport.Sender) error {
	for {
		l.mu.Lock()
		e := l.nextFinal()
		if e == nil {
			l.mu.Unlock()
			return nil
		}
		final := e.Final
		l.mu.Unlock()
		if err := s.Send(ctx, l.id, transport.Reports, final); err != nil {
			return fmt.Errorf("final report of operation %s: %w", e.Command.OperationID, err)
		}
		l.mu.Lock()
		l.outbox = slices.DeleteFunc(l.outbox, func(o *entry) bool { return o == e })
		var err error
		if !e.Reported {
			err = l.journal.advance(e, func(e *entry) { e.Reported = true })
		}
		l.mu.Unlock()
		if err != nil {
			l.trouble(err) // it is sent once more after the next start: the same bytes
		}
	}
}

// nextFinal is the oldest final report that may be sent; nil if there is none.
// That of a local operation waits for a welcome on this connection: a broker may
// take it before the dispatcher has subscribed, and then nobody gets it, and
// nobody misses it. (Where no cloud ever welcomes, it does not wait.) l.mu is
// held.
func (l *lane) nextFinal() *entry {
	_, known := l.clock.latest()
	mayBeLocal := l.hello.again || known && !l.clock.isSynced()
	for _, e := range l.outbox {
		if e.Local == nil || mayBeLocal {
			return e
		}
	}
	return nil
}

// sendProgress sends the newest of each unfinished operation, if there is news
// or it was silent for long, and returns when to look again.
func (l *lane) sendProgress(ctx context.Context, s transport.Sender) (time.Duration, error) {
	again := progressEvery
	l.mu.Lock()
	queue := slices.Clone(l.queue)
	l.mu.Unlock()
	for _, op := range queue {
		l.mu.Lock()
		due := progressEvery
		if op.changed {
			due = progressPause
		}
		wait := time.Until(op.lastSent.Add(due))
		if op.State == finished || !op.announced && !l.mayAnnounce() || wait > 0 {
			l.mu.Unlock()
			again = min(again, max(wait, progressPause))
			continue
		}
		r := l.stamp(op, l.progress(op))
		op.announced, op.changed, op.lastSent = true, false, time.Now()
		l.mu.Unlock()
		if err := s.Send(ctx, l.id, transport.Reports, transport.Encode(r)); err != nil {
			l.mu.Lock()
			op.changed = true
			l.mu.Unlock()
			return 0, fmt.Errorf("report of operation %s: %w", op.Command.OperationID, err)
		}
	}
	return again, nil
}

// report begins a report about op; stamp ends it.
func (l *lane) report(op *operation, state string) transport.Report {
	r := transport.Report{
		OperationID: op.Command.OperationID,
		TerminalID:  l.id,
		Operation:   op.Command.Operation,
		State:       state,
	}
	if op.Local != nil {
		r.Origin, r.CreatedBy = transport.OriginLocal, op.Local.By
	}
	return r
}

// stamp gives a report about op its time and its place in the order of display,
// which survives restarts without being on disk: it grows by one with every
// report, and at least with the seconds. l.mu is held.
func (l *lane) stamp(op *operation, r transport.Report) transport.Report {
	now := l.clock.now()
	op.sequence = max(op.sequence+1, int(now.Sub(op.AcceptedAt)/time.Second)+1)
	r.At, r.Sequence = transport.At(now), op.sequence
	return r
}

// failed is the final report of an operation that came to nothing, or to
// nothing that anybody knows.
func (l *lane) failed(op *operation, code, executed, message string) transport.Report {
	r := l.report(op, transport.StateFailed)
	r.Error = &transport.Error{Code: code, Message: message, Executed: executed}
	return r
}

// outcomeReport is the final report of what the terminal answered.
func (l *lane) outcomeReport(op *operation, o device.Outcome) transport.Report {
	r := l.report(op, transport.StateCompleted)
	if f := o.Failure; f != nil {
		r = l.failed(op, failureCode(f.Cause), string(f.Executed), f.Message)
		r.Error.DeviceCode = f.Code
	} else {
		r.Effect = string(o.Effect)
	}
	r.Message = o.Message
	if result := wireResult(o); result != nil {
		r.Result = transport.Encode(result)
	}
	return r
}

// codeOf translates the error of an operation that was not started.
func codeOf(err error) string {
	switch {
	case errors.Is(err, errDisk):
		return transport.CodeAgentError
	case errors.Is(err, device.ErrBusy):
		return transport.CodeDeviceBusy
	case errors.Is(err, device.ErrUnreachable), errors.Is(err, device.ErrNotStarted):
		return transport.CodeDeviceUnreachable
	default:
		return transport.CodeDeviceProtocolError
	}
}

// failureCode translates the adapter's words into the contract's.
func failureCode(c device.Cause) string {
	switch c {
	case device.Unsupported:
		return transport.CodeUnsupportedOperation
	case device.Busy:
		return transport.CodeDeviceBusy
	case device.Refused:
		return transport.CodeDeviceRefused
	case device.ProtocolError:
		return transport.CodeDeviceProtocolError
	case device.Unknown:
		return transport.CodeOutcomeUnknown
	default:
		panic("agent: unknown cause of failure " + string(c))
	}
}

// wireResult translates an adapter's result into the contract's.
func wireResult(o device.Outcome) any {
	switch r := o.Result.(type) {
	case nil:
		return nil
	case *device.EndOfDayResult:
		w := &transport.EndOfDayResult{
			BatchID: r.BatchID, StartOfDayAt: wireTime(r.StartOfDayAt), LastEndOfDayAt: wireTime(r.LastEndOfDayAt),
			PurchasesCount: r.PurchasesCount, PurchasesAmount: r.PurchasesAmount,
			ReversalsCount: r.ReversalsCount, ReversalsAmount: r.ReversalsAmount,
			SaleAmount: r.SaleAmount, TipAmount: r.TipAmount,
			Currency: r.Currency, TerminalTime: wireTime(r.TerminalTime),
			Receipt: r.Receipt, ReceiptTruncated: r.ReceiptTruncated,
		}
		if o.Failure == nil {
			w.Outcome = "accepted"
		}
		for _, s := range r.ByCardScheme {
			w.ByCardScheme = append(w.ByCardScheme, transport.SchemeTotal(s))
		}
		return w
	case *device.CheckUpdateResult:
		return &transport.CheckUpdateResult{Update: string(r.Update), SoftwareVersionBefore: r.Before, SoftwareVersion: r.After}
	case *device.OpenMenuResult:
		return &transport.OpenMenuResult{OpenedAt: wireTime(r.OpenedAt)}
	default:
		panic("agent: unknown result of an adapter")
	}
}

func wireTime(t time.Time) transport.Time {
	if t.IsZero() {
		return transport.Time{}
	}
	return transport.At(t)
}

// maxText bounds a message in a final report, in bytes.
const maxText = 4096

// encodeFinal writes a final report, of at most transport.MaxPayload bytes: for
// more, receipt lines are left out from the end and the result says so.
func encodeFinal(r transport.Report) []byte {
	r.Message = cut(r.Message)
	if r.Error != nil {
		e := *r.Error
		e.Message = cut(e.Message)
		r.Error = &e
	}
	for {
		b := transport.Encode(r)
		if len(b) <= transport.MaxPayload {
			return b
		}
		var result transport.EndOfDayResult
		if json.Unmarshal(r.Result, &result) != nil || len(result.Receipt) == 0 {
			r.Result = nil // no other result can be large, and nothing else
			return transport.Encode(r)
		}
		result.Receipt, result.ReceiptTruncated = result.Receipt[:len(result.Receipt)/2], true
		r.Result = transport.Encode(result)
	}
}

func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + " ..."
}

// errorFields are what a log line says of a final report.
func errorFields(r transport.Report) []any {
	if r.Error == nil {
		return []any{"effect", r.Effect}
	}
	return []any{"code", r.Error.Code, "device_code", r.Error.DeviceCode, "executed", r.Error.Executed, "why", r.Error.Message}
}
