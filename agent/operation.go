package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"terminalops/device"
	"terminalops/transport"
)

// This file is the story of one operation. Every arrow is on disk before
// anything else happens:
//
//	(nothing) --accept--> accepted --execute--> started (+ evidence) --> finished --> reported
//	                                              |  ^
//	                                              +--+ resolve
//
// A start of the agent reads the journal and walks the same road: what is
// accepted is executed, what is started is resolved, what is finished is
// reported. There is no other recovery.

// operation is an entry that is not finished, with what need not be on disk.
type operation struct {
	entry
	evidence []device.Evidence // in memory too: it counts even if the disk fails
	spool    *spool            // the files of a send_logs

	current   bool    // the worker has it
	fresh     bool    // accepted since this start
	asked     reading // when it was asked for, if it is local and fresh
	waiting   error   // why it was not started so far; the worker's
	since     moment  // of an operation without the cloud's time
	announced bool    // the cloud was told of it
	inTime    bool    // was seen before its expires_at, so it is waiting for its turn

	message  string    // the newest text for people
	changed  bool      // message or state has news for the cloud
	lastSent time.Time // the last ACCEPTED or RUNNING
	sequence int       // of the last report
}

// Why begin says no. The operation was not started.
var (
	errTooLate   = errors.New("its start deadline has passed")
	errCancelled = errors.New("cancelled")
	errClock     = errors.New("the cloud's time is not known")
	errStopping  = errors.New("the agent is stopping")
	errEnded     = errors.New("another journal has answered for it")
)

// errDisk: the state directory cannot be written.
var errDisk = errors.New("state directory")

// accept journals a command that arrived; the caller then acknowledges it to
// the broker. An id that the journal knows is answered with its latest report,
// whatever the command says now: the first counts.
func (l *lane) accept(c transport.Command) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, err := l.journal.find(l.id, c.OperationID)
	switch {
	case err != nil:
		return err
	case known != nil && c.Cancel && known.Local == nil:
		return l.cancel(known)
	case known != nil:
		l.adopt(known)
		l.answerAgain(known)
		return nil
	case c.Cancel && l.journal.meta("replaced") != "":
		return l.refuseDoubtful(c) // the damaged one may have started it
	case c.Cancel:
		return l.refuse(c, transport.CodeCancelled, "cancelled before it arrived")
	case !l.supported(c.Operation):
		return l.refuse(c, transport.CodeUnsupportedOperation, fmt.Sprintf("unknown operation %.40q", c.Operation))
	case l.issuedBeforeBirth(c):
		return l.refuseDoubtful(c)
	}
	if late, known := l.clock.latest(); known && late.After(c.ExpiresAt.Time) {
		return l.refuse(c, transport.CodeExpired, "arrived after its start deadline")
	}
	op := &operation{fresh: true, changed: true}
	op.Command, op.State, op.AcceptedAt = c, accepted, l.clock.now()
	if err := l.add(op); err != nil {
		return err
	}
	l.log.Info("accepted", "operation", c.OperationID, "kind", c.Operation, "expires_at", c.ExpiresAt)
	l.wake()
	return nil
}

// perform takes one operation from wherever the journal says it is to its end.
// ctx ends when the agent stops, patience when it cannot wait any longer for a
// terminal at work.
func (l *lane) perform(ctx, patience context.Context, op *operation) {
	if l.stateOf(op) == accepted {
		l.execute(ctx, patience, op)
	}
	if l.stateOf(op) == started && patience.Err() == nil {
		l.resolve(ctx, patience, op)
	}
	if l.stateOf(op) == finished {
		l.attend(ctx, &op.entry)
	}
}

// execute asks the terminal to act, until it did, refused, or time is up. It
// returns with op finished, or started and in doubt, or as it was: while the
// cloud's time is not known the lane is free for others, and when ctx has ended
// the next start executes it.
func (l *lane) execute(ctx, patience context.Context, op *operation) {
	pauses := pauses{first: time.Second, ceiling: 5 * time.Second}
	for ctx.Err() == nil && l.stateOf(op) == accepted {
		switch err := l.mayStart(op); {
		case errors.Is(err, errClock):
			return
		case err != nil:
			l.finish(patience, op, l.notStarted(op, err))
			return
		}
		outcome, err := l.attempt(ctx, patience, op)
		begun := l.stateOf(op) == started
		switch {
		case err == nil:
			l.conclude(patience, op, outcome)
			return
		case begun && errors.Is(err, device.ErrNotStarted):
			l.setDevice(transport.DeviceUnreachable, err.Error())
			l.finish(patience, op, l.failed(op, transport.CodeDeviceUnreachable, transport.ExecutedNo, err.Error()))
			return
		case begun:
			l.log.Warn("in doubt", "operation", op.Command.OperationID, "why", err)
			l.tell(op, err.Error())
			return
		case ctx.Err() != nil, refusedByBegin(err):
			// the loop says what that means
		case errors.Is(err, device.ErrBusy), errors.Is(err, errDisk):
			op.waiting = err
			l.setDevice(deviceState(err), err.Error())
			l.tell(op, "waiting: "+err.Error())
			l.waitForTurn(ctx, pauses.next(), op)
		default:
			l.setDevice(deviceState(err), err.Error())
			l.finish(patience, op, l.failed(op, codeOf(err), transport.ExecutedNo, err.Error()))
			return
		}
	}
}

// attempt has the adapter execute op once.
func (l *lane) attempt(ctx, patience context.Context, op *operation) (device.Outcome, error) {
	l.working.turn(patienceFor(op))
	defer l.working.turn(turnPatience)
	l.worksOn(op.Command.OperationID)
	defer l.worksOn("")
	request, err := l.request(op)
	if err != nil {
		return device.Outcome{}, err
	}
	return l.terminal.Execute(patience, request, &witness{lane: l, op: op, ctx: ctx})
}

// begin is the last thing before the first byte that makes the terminal act.
// Started is on disk before the deadline and the cancel are looked at: what
// happens between that look and the byte is a write, nothing that waits.
func (l *lane) begin(ctx context.Context, op *operation, mark any) error {
	var stored json.RawMessage
	if mark != nil {
		stored = transport.Encode(mark)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case op.State == finished:
		return errEnded
	case op.State != accepted:
		panic("agent: begin called twice for " + op.Command.OperationID)
	case ctx.Err() != nil:
		return errStopping
	}
	now, ownTime := l.clock.now(), !l.clock.isSynced()
	if err := l.journal.advance(&op.entry, func(e *entry) { e.State, e.StartedAt, e.OwnTime, e.Mark = started, now, ownTime, stored }); err != nil {
		l.troubleLocked(err)
		return fmt.Errorf("%w: %w", errDisk, err)
	}
	if err := l.ready(op); err != nil {
		// Nothing was written to the terminal. If this cannot be journaled, or
		// the power fails now, the operation is merely in doubt.
		if back := l.journal.advance(&op.entry, func(e *entry) { e.State, e.StartedAt, e.OwnTime = accepted, time.Time{}, false }); back != nil {
			return back
		}
		return err
	}
	// RUNNING goes out at once, whenever ACCEPTED did: should this PC's disk be
	// restored to an old copy, it is how the cloud's welcome stops the copy.
	op.message, op.changed, op.lastSent = "started", true, time.Time{}
	op.since = moment{now, l.clock.source.Monotonic()}
	l.wakeReporter()
	l.tellFollowers()
	l.log.Info("started", "operation", op.Command.OperationID, "kind", op.Command.Operation)
	return nil
}

// ready says whether op may start now: nil, errTooLate, errCancelled or
// errClock. l.mu is held.
func (l *lane) ready(op *operation) error {
	left, known := l.timeLeft(op)
	switch {
	case op.Cancel:
		return errCancelled
	case !known:
		return errClock
	case left < 0:
		return errTooLate
	}
	op.inTime = true
	return nil
}

// refusedByBegin reports whether begin said no, for a reason that ready knows.
func refusedByBegin(err error) bool {
	for _, no := range []error{errTooLate, errCancelled, errClock, errStopping, errEnded} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// resolve asks what became of an operation that was started and that nobody saw
// end. It goes on, with growing pauses, until the terminal has answered or
// resolveFor is over; nothing else starts on this lane meanwhile.
//
// An agent that stops asks nothing any more: a terminal that nobody heard take
// the command may have the word all the same. A question that is out already has
// until patience ends: the terminal may be telling its totals.
func (l *lane) resolve(ctx, patience context.Context, op *operation) {
	if a, packed := op.packed(); packed { // the terminal has given all it had
		l.finishDelivered(patience, op, a.Report, false)
		return
	}
	pauses := pauses{first: time.Second, ceiling: time.Minute}
	began := l.clock.source.Monotonic()
	for {
		if ctx.Err() != nil {
			patience = ctx // the adapter looks at its evidence, and lets the link go
		}
		past := l.past(op, l.clock.source.Monotonic()-began)
		outcome, err := l.ask(ctx, patience, op, past)
		switch {
		case err == nil && past.GiveUp:
			l.finishDelivered(patience, op, l.outcomeReport(op, outcome), outcome.Attend)
			return
		case err == nil:
			l.conclude(patience, op, outcome)
			return
		case patience.Err() != nil:
			return // the next start resolves it
		case past.GiveUp:
			l.finish(patience, op, l.failed(op, transport.CodeOutcomeUnknown, transport.ExecutedUnknown, err.Error()))
			return
		}
		l.setDevice(deviceState(err), err.Error())
		l.tell(op, "asking the terminal what happened: "+err.Error())
		sleep(ctx, pauses.next())
	}
}

// ask has the adapter resolve op once.
func (l *lane) ask(ctx, patience context.Context, op *operation, past device.Past) (device.Outcome, error) {
	l.working.turn(patienceFor(op))
	defer l.working.turn(turnPatience)
	l.worksOn(op.Command.OperationID)
	defer l.worksOn("")
	request, err := l.request(op)
	if err != nil {
		return device.Outcome{}, err
	}
	return l.terminal.Resolve(patience, request, past, &witness{lane: l, op: op, ctx: ctx, resolving: true})
}

// conclude turns what the terminal answered into the final report.
func (l *lane) conclude(ctx context.Context, op *operation, outcome device.Outcome) {
	l.setDevice(transport.DeviceReady, "")
	l.finishDelivered(ctx, op, l.outcomeReport(op, outcome), outcome.Attend)
}

// finishDelivered is finish for a terminal that has done its part: its logs, if
// that was the operation, are on their way to the cloud first.
func (l *lane) finishDelivered(ctx context.Context, op *operation, r transport.Report, attending bool) {
	if device.Operation(op.Command.Operation) == device.SendLogs {
		var delivered bool
		if r, delivered = l.deliverLogs(ctx, op, r); !delivered {
			return // the next start goes on with it
		}
	}
	l.finishAttending(ctx, op, r, attending)
	if l.stateOf(op) == finished {
		l.removeLogs(op)
	}
}

// finish stores the final report. From here on it is sent until the broker has
// it, and again whenever the cloud asks.
func (l *lane) finish(ctx context.Context, op *operation, r transport.Report) {
	l.finishAttending(ctx, op, r, false)
}

// finishAttending is finish; attending says that the terminal keeps the word.
// A journal that cannot be written is tried again until ctx ends: the result is
// not sent before it is on disk.
func (l *lane) finishAttending(ctx context.Context, op *operation, r transport.Report, attending bool) {
	pauses := pauses{first: time.Second, ceiling: 30 * time.Second}
	for {
		l.working.turn(turnPatience)
		l.mu.Lock()
		err := l.store(op, r, attending)
		l.mu.Unlock()
		if err == nil {
			return
		}
		l.trouble(err)
		if !sleep(ctx, pauses.next()) {
			return
		}
	}
}

// store journals the final report of op. l.mu is held.
func (l *lane) store(op *operation, r transport.Report, attending bool) error {
	now, final := l.clock.now(), encodeFinal(l.stamp(op, r))
	err := l.journal.advance(&op.entry, func(e *entry) {
		e.State, e.FinishedAt, e.Final, e.Attending = finished, now, final, attending
	})
	if err != nil {
		return err
	}
	l.log.Info("finished", append([]any{"operation", op.Command.OperationID, "kind", op.Command.Operation, "state", r.State}, errorFields(r)...)...)
	l.forget(op)
	l.outbox = append(l.outbox, &op.entry)
	l.wake()
	l.tellFollowers()
	return nil
}

// attend lets the terminal talk after an operation is complete: its menu is
// open. Nothing else starts on this lane meanwhile. An agent that stops leaves
// the terminal alone; the next start attends again.
func (l *lane) attend(ctx context.Context, e *entry) {
	if !l.attending(e) {
		return
	}
	if attendant, ok := l.terminal.(device.Attendant); ok {
		l.setDevice(transport.DeviceBusy, "menu open since "+e.FinishedAt.UTC().Format(time.RFC3339))
		l.working.turn(0) // hours, or days
		l.worksOn(e.Command.OperationID)
		if err := attendant.Attend(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("attend", "operation", e.Command.OperationID, "error", err)
		}
		l.worksOn("")
		l.working.turn(turnPatience)
	}
	if ctx.Err() != nil {
		return
	}
	l.setDevice(transport.DeviceReady, "")
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.journal.advance(e, func(e *entry) { e.Attending = false }); err != nil {
		l.log.Error("attend", "operation", e.Command.OperationID, "error", err)
	}
}

// cancel takes a Cancel for an id that the journal knows. Only what is not
// started can be cancelled; everything else repeats its latest report. l.mu is
// held.
func (l *lane) cancel(known *entry) error {
	op := l.operations[known.Command.OperationID]
	if op == nil || op.State != accepted {
		l.answerAgain(known)
		return nil
	}
	if !op.current {
		return l.store(op, l.failed(op, transport.CodeCancelled, transport.ExecutedNo, "cancelled"), false)
	}
	// The worker has it, but has not begun. The wish is on disk before it is
	// acknowledged; begin will see it.
	if err := l.journal.advance(&op.entry, func(e *entry) { e.Cancel = true }); err != nil {
		return err
	}
	l.wakeWorker()
	return nil
}

// refuse journals a command together with its refusal: the id never runs. l.mu
// is held.
func (l *lane) refuse(c transport.Command, code, why string) error {
	return l.refuseWith(c, code, transport.ExecutedNo, why)
}

// refuseDoubtful refuses a command that a damaged journal may have known.
func (l *lane) refuseDoubtful(c transport.Command) error {
	if late, known := l.clock.latest(); known && late.After(c.ExpiresAt.Time) {
		return l.refuse(c, transport.CodeExpired, "arrived after its start deadline")
	}
	return l.refuseWith(c, transport.CodeOutcomeUnknown, transport.ExecutedUnknown, setAside)
}

const setAside = "the journal that may have known this command was damaged and set aside"

func (l *lane) refuseWith(c transport.Command, code, executed, why string) error {
	op := &operation{}
	op.Command, op.State, op.AcceptedAt = c, accepted, l.clock.now()
	r := l.stamp(op, l.failed(op, code, executed, why))
	op.State, op.FinishedAt, op.Final = finished, op.AcceptedAt, encodeFinal(r)
	if err := l.journal.add(&op.entry); err != nil {
		l.troubleLocked(err)
		return err
	}
	l.log.Warn("refused", "operation", c.OperationID, "kind", c.Operation, "code", code, "why", why)
	l.outbox = append(l.outbox, &op.entry)
	l.wakeReporter()
	return nil
}

// abandon ends an operation that another journal has answered for: it is not
// started, and nothing is reported for it. l.mu is held.
func (l *lane) abandon(op *operation, why string) error {
	now := l.clock.now()
	if err := l.journal.advance(&op.entry, func(e *entry) { e.State, e.FinishedAt, e.Reported = finished, now, true }); err != nil {
		return err
	}
	l.log.Warn("not started and not reported", "operation", op.Command.OperationID, "why", why)
	l.forget(op)
	l.tellFollowers()
	return nil
}

// witness is what an adapter sees of the engine while it works on op.
type witness struct {
	lane      *lane
	op        *operation
	ctx       context.Context // ends when the agent stops
	resolving bool
}

// Begin implements device.Witness.
func (w *witness) Begin(mark any) error {
	if w.resolving {
		panic("agent: an adapter called Begin in Resolve: a terminal never acts twice for one command")
	}
	defer w.lane.working.turn(patienceFor(w.op))
	return w.lane.begin(w.ctx, w.op, mark)
}

// Record implements device.Witness.
func (w *witness) Record(kind string, data any) (device.Evidence, error) {
	defer w.lane.working.turn(patienceFor(w.op))
	e := device.Evidence{At: w.lane.timeFor(w.op), Kind: kind, Data: transport.Encode(data)}
	w.op.evidence = append(w.op.evidence, e)
	if err := w.lane.journal.record(&w.op.entry, e); err != nil {
		w.lane.trouble(err)
		return e, err
	}
	return e, nil
}

// Progress implements device.Witness.
func (w *witness) Progress(text string) {
	w.lane.working.turn(patienceFor(w.op))
	w.lane.tell(w.op, text)
}

// past is what the journal holds of op. asked is how long it has been asked for
// since this start, which is all that is known of the time as long as the
// cloud's is not: the PC's clock may be wrong by days.
func (l *lane) past(op *operation, asked time.Duration) device.Past {
	now := op.StartedAt.Add(asked)
	if op.OwnTime {
		now = l.timeFor(op)
	} else if late, known := l.clock.latest(); known {
		now = late
	}
	return device.Past{
		StartedAt: op.StartedAt, Now: now, Mark: op.Mark, Evidence: op.evidence,
		GiveUp: now.Sub(op.StartedAt) > l.resolveFor,
	}
}

// moment is a time that goes on by the monotonic clock.
type moment struct {
	at   time.Time
	mono time.Duration
}

// timeFor is the time for everything that an adapter compares with the start of
// op. One that was started without the cloud's time has a time of its own, which
// goes on from StartedAt: the PC's clock may be wrong by years, and the cloud's
// may become known in between. After a restart it goes on from the last thing
// that is known.
func (l *lane) timeFor(op *operation) time.Time {
	if !op.OwnTime {
		return l.clock.now()
	}
	mono := l.clock.source.Monotonic()
	if op.since.at.IsZero() {
		op.since = moment{op.StartedAt, mono}
		if n := len(op.evidence); n > 0 {
			op.since.at = op.evidence[n-1].At
		}
	}
	return op.since.at.Add(mono - op.since.mono)
}

// adopt queues an operation that is on disk although journaling it has failed:
// a commit may reach the disk and still return an error. l.mu is held.
func (l *lane) adopt(known *entry) {
	if known.State != accepted || l.operations[known.Command.OperationID] != nil {
		return
	}
	op := &operation{entry: *known, fresh: true, changed: true}
	l.operations[known.Command.OperationID] = op
	l.queue = append(l.queue, op)
	l.wake()
}
