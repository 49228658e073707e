package zvt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"terminalops/device"
	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
)

// Resolving (zvt.md 5.5) finds out how an operation ended whose end nobody saw.
// Nothing here makes a terminal act:
//
//  1. The evidence. It may hold the end already: a crash came after it.
//  2. Listen. A terminal that still has the word may go on, and says its totals
//     once. It is heard and answered.
//  3. Registration and Status-Enquiry. Silence, 9C and E0 mean "later".
//  4. Ask what is left of it: the last totals (06 20), the software version.
//  5. Otherwise it stays unknown. Never a second 06 50, 08 10 or 08 01.

// probing is how long to listen between questions, to a terminal that has not
// answered the last one or is busy: it may still be closing.
const probing = 30 * time.Second

// maxProbes is how often a link that is kept open is asked in vain. Then it is
// closed, and opened for each question: it may be dead, or the till wants it.
const maxProbes = 5

// Resolve implements device.Terminal.
func (t *Terminal) Resolve(ctx context.Context, r device.Request, p device.Past, w device.Witness) (device.Outcome, error) {
	l := t.ledger(r.Operation, w, p.Evidence)
	if outcome, known := t.outcome(l); known {
		if outcome.Attend {
			return outcome, nil
		}
		t.drop()
		if r.Operation == device.EndOfDay && l.account().lacksTotals() && !p.GiveUp {
			t.askTotalsLate(ctx, l, p)
			outcome, _ = t.outcome(l)
		}
		return outcome, nil
	}
	if p.GiveUp {
		t.drop()
		return t.inDoubt(l, p), nil
	}
	d, err := t.resume(ctx)
	if err != nil {
		return t.away(l, p, err)
	}
	outcome, err := t.resolve(ctx, d, l, r, p)
	if seen, known := t.outcome(l); known {
		outcome, err = seen, nil // a late end is worth more than any other answer
	}
	if outcome.Attend || t.mayStillTalk(ctx, d, l, err) {
		t.kept = d
	} else {
		t.hangUp(d)
	}
	if err != nil {
		return t.away(l, p, beforeBegin(err))
	}
	return outcome, nil
}

// askTotalsLate asks for the totals of an end of day whose end is in the evidence
// without them: a crash came before they were asked for. It is tried once. The
// outcome does not depend on it, and is not held back for it.
func (t *Terminal) askTotalsLate(ctx context.Context, l *ledger, p device.Past) {
	began := time.Now()
	d, err := t.open(ctx)
	if err != nil {
		t.o.Logger.Info("an end of day without totals", "why", err)
		return
	}
	defer t.hangUp(d)
	if _, err := t.prepare(ctx, d, l, nil); err != nil {
		t.o.Logger.Info("an end of day without totals", "why", err)
		return
	}
	t.askTotals(ctx, d, l, readMark(p).Last, p.Now.Add(time.Since(began)))
}

// resolve does steps 2 to 5 on an open link.
func (t *Terminal) resolve(ctx context.Context, d *dialogue, l *ledger, r device.Request, p device.Past) (device.Outcome, error) {
	began := time.Now()
	if err := t.listen(ctx, d, l, p); err != nil {
		return device.Outcome{}, err
	}
	if outcome, known := t.outcome(l); known {
		if r.Operation == device.EndOfDay {
			// 06 0F may be all that is still repeated; 04 0F was said to nobody.
			t.askTotals(ctx, d, l, readMark(p).Last, p.Now.Add(time.Since(began)))
		}
		return outcome, nil
	}
	if err := d.drain(ctx); err != nil {
		return device.Outcome{}, err
	}
	d.probes++
	status, err := t.prepare(ctx, d, l, l.hearLate)
	if errors.Is(err, errStillTalking) {
		if err := t.hearOut(ctx, d, l, d.longest()); err != nil {
			return device.Outcome{}, err
		}
		return device.Outcome{}, fmt.Errorf("%w: %w", device.ErrBusy, err)
	}
	if err != nil {
		return device.Outcome{}, err
	}
	switch r.Operation {
	case device.EndOfDay:
		err := t.repeatTotals(ctx, d, l, p)
		return t.endOfDayInDoubt(l.account()), err
	case device.CheckUpdate:
		return t.lookAtUpdate(l.account(), p, status)
	case device.SendLogs:
		return t.readLogs(ctx, d, l, r.Spool)
	case device.OpenMenu:
		return t.menuInDoubt(l.account()), nil
	}
	return device.Outcome{}, fmt.Errorf("operation %q: one of %v wanted", r.Operation, device.Operations())
}

// listen hears what the terminal still says of the operation.
//
// T3 is enough where it has nothing to say, and on TCP after a new connection:
// the old one took its dialogue along (zvt.md 2). On a serial line a terminal
// that took the command has the word for T4 since it last spoke.
//
// Where a question of ours is out on this link, 80 00 and an end are its answer,
// however late. A terminal that was too busy to answer says "80 00, 06 0F" to the
// Registration when it is done, and has closed nothing.
func (t *Terminal) listen(ctx context.Context, d *dialogue, l *ledger, p device.Past) error {
	a := l.account()
	wait := d.t3
	if n := len(p.Evidence); d.serial && a.accepted && !a.ended() && n > 0 {
		wait = max(wait, d.longest()-p.Now.Sub(p.Evidence[n-1].At))
	}
	if d.probes == 0 {
		return t.hearOut(ctx, d, l, wait)
	}
	x := exchange{hear: l.overhear(apdu.ControlStatusEnquiry), late: l.hearLate}
	_, err := d.follow(ctx, x, stance{acknowledged: true, patience: max(wait, probing)})
	if errors.Is(err, errStillTalking) {
		return t.hearOut(ctx, d, l, d.longest())
	}
	return silenceIsFine(err)
}

// hearOut hears the dialogue of the operation to its end. 84 xx is part of it only
// on the link whose line has acknowledged the command, and before we asked
// anything else on it: a stray one would say "not started" of what may run.
func (t *Terminal) hearOut(ctx context.Context, d *dialogue, l *ledger, wait time.Duration) error {
	hear := l.hear
	if l.operation == device.SendLogs {
		hear = func(apdu.Message) bool { return false } // it is read again anyway
	}
	taken := l.account().accepted
	_, err := d.follow(ctx, exchange{hear: hear}, stance{taken: taken, acknowledged: d.acknowledged && d.probes == 0, patience: wait})
	return silenceIsFine(err)
}

// silenceIsFine is err, unless it says that the terminal has no more to say.
func silenceIsFine(err error) error {
	if errors.Is(err, errSilent) || errors.Is(err, errNoAnswer) || errors.Is(err, errAnswered) {
		return nil
	}
	return err
}

// hearLate is for what a terminal says in place of an answer to our command.
// Its end is not among it: 06 0F and 06 1E may belong to that command.
func (l *ledger) hearLate(m apdu.Message) {
	switch m.(type) {
	case apdu.StatusInformation, apdu.PrintLine, apdu.PrintTextBlock, apdu.IntermediateStatus:
		if l.operation != device.SendLogs {
			l.hear(m)
		}
	}
}

// resume returns the link that was kept open, or opens a new one. It drains
// nothing: what is still to be said may be totals.
func (t *Terminal) resume(ctx context.Context) (*dialogue, error) {
	if d := t.kept; d != nil {
		t.kept = nil
		return d, nil
	}
	return t.dial(ctx)
}

// mayStillTalk reports whether the link is worth keeping after err: an end of
// day or a menu is not over, and the link is not lost. The terminal has, or may
// have, the word. Of an update there is nothing more to hear, and nothing on a
// new TCP connection: the old one took the dialogue along.
func (t *Terminal) mayStillTalk(ctx context.Context, d *dialogue, l *ledger, err error) bool {
	return ctx.Err() == nil && err != nil && !errors.Is(err, device.ErrNotStarted) &&
		(l.operation == device.EndOfDay || l.operation == device.OpenMenu) && !l.account().ended() &&
		(d.serial || d.acted) && d.probes < maxProbes && !errors.Is(err, frame.ErrLinkLost) && !errors.Is(err, frame.ErrMalformed)
}

// away is what Resolve says of a terminal that cannot be asked: err, so that it
// is called again, or the outcome where it has been called for long enough.
func (t *Terminal) away(l *ledger, p device.Past, err error) (device.Outcome, error) {
	absent := errors.Is(err, device.ErrBusy) || errors.Is(err, device.ErrUnreachable)
	waited := p.Now.Sub(p.StartedAt)
	switch {
	case l.operation == device.SendLogs && waited >= logsWait:
		return t.inDoubt(l, p), nil
	case l.operation != device.CheckUpdate || !absent:
		return device.Outcome{}, err
	}
	if !errors.Is(err, errSettling) && !l.account().away {
		l.record(kindAway, nothing{})
	}
	if a := l.account(); waited >= t.o.UpdateWait && (a.accepted || a.updateStarted()) {
		return t.updateInDoubt(a, p), nil
	}
	return device.Outcome{}, err
}

// inDoubt is what the evidence alone says when nobody asks any more.
func (t *Terminal) inDoubt(l *ledger, p device.Past) device.Outcome {
	switch a := l.account(); l.operation {
	case device.EndOfDay:
		return t.endOfDayInDoubt(a)
	case device.CheckUpdate:
		return t.updateInDoubt(a, p)
	case device.OpenMenu:
		return t.menuInDoubt(a)
	default:
		return device.Outcome{Failure: &device.Failure{
			Cause: device.Unknown, Executed: device.Perhaps, Message: "the terminal could not be read again",
		}}
	}
}

// readMark reads what Begin was given. A damaged mark is none.
func readMark(p device.Past) mark {
	var m mark
	_ = json.Unmarshal(p.Mark, &m)
	return m
}
