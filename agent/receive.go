package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"terminalops/device"
	"terminalops/transport"
)

// What arrives from the cloud: commands, and the welcome, which brings the
// cloud's time and repairs what brokers forget and journals lose.

// Connecting implements transport.Handler.
func (l *lane) Connecting() []byte {
	l.session.turn(sessionPatience)
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.journal.nextConnection(l.id, l.connection)
	if err != nil {
		l.troubleLocked(err)
		n = l.connection + 1
	}
	l.connection = n
	return transport.Encode(transport.PresenceMessage{State: transport.Offline, JournalID: l.journal.id, Connection: n})
}

// Receive implements transport.Handler. An error means that the journal cannot
// be written: the message will come again.
func (l *lane) Receive(_ context.Context, m transport.Message) error {
	l.session.turn(sessionPatience)
	switch m.Kind {
	case transport.Welcome:
		return l.welcome(m.Payload)
	case transport.Commands:
		return l.receiveCommand(m)
	default:
		l.log.Warn("message on a topic that is not for an agent", "kind", m.Kind)
		return nil
	}
}

func (l *lane) receiveCommand(m transport.Message) error {
	c, err := transport.DecodeCommand(m.Payload, l.id)
	if err == nil && m.Retained {
		err = &transport.InvalidError{OperationID: c.OperationID, Operation: c.Operation, Reason: "command: retained by the broker, so it may be old; commands are never retained"}
	}
	if err == nil {
		if err = l.accept(c); err != nil {
			l.log.Warn("not taken; the broker delivers it again", "operation", c.OperationID, "error", err)
		}
		return err
	}
	var invalid *transport.InvalidError
	if !errors.As(err, &invalid) || invalid.OperationID == "" {
		l.log.Warn("command ignored, it has no readable operation_id", "error", err, "bytes", len(m.Payload))
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	known, err := l.journal.find(l.id, invalid.OperationID)
	if err != nil {
		return err
	}
	if known != nil {
		l.answerAgain(known)
		return nil
	}
	now := transport.At(l.clock.now())
	return l.refuse(transport.Command{
		OperationID: invalid.OperationID, TerminalID: l.id, Operation: invalid.Operation, IssuedAt: now, ExpiresAt: now,
	}, transport.CodeInvalidCommand, invalid.Reason)
}

// issuedBeforeBirth reports whether a damaged journal may have known c. l.mu is
// held.
func (l *lane) issuedBeforeBirth(c transport.Command) bool {
	birth, err := time.Parse(time.RFC3339Nano, l.journal.meta("birth"))
	return err == nil && c.IssuedAt.Before(birth)
}

// mayAnnounce: the cloud is told of an accepted command only once it has said,
// since this start, which commands it waits for (or seems not to say such
// things). What it has heard by then it has heard from another journal. l.mu is
// held.
func (l *lane) mayAnnounce() bool {
	_, known := l.clock.latest()
	return l.welcomed || known
}

// welcome takes the dispatcher's answer to our hello.
func (l *lane) welcome(payload []byte) error {
	w, err := transport.DecodeWelcome(payload)
	if err != nil {
		l.log.Warn("welcome ignored", "error", err)
		return nil
	}
	l.mu.Lock()
	if l.hello.nonce == "" || w.Nonce != l.hello.nonce {
		l.mu.Unlock()
		l.log.Info("welcome ignored: it answers no hello of now", "nonce", w.Nonce)
		return nil
	}
	if !l.clock.welcome(w.ServerTime.Time, l.hello.sent) {
		// Too slow to tell the time, but this cloud does welcome: the PC's clock
		// is not what decides.
		l.hello = hello{misses: l.hello.misses, again: l.hello.again, due: time.Now().Add(time.Second)}
		err := l.rememberWelcome()
		l.wakeReporter()
		l.mu.Unlock()
		l.log.Info("welcome ignored: it came too late", "nonce", w.Nonce)
		return err
	}
	// A broker that lost its sessions takes reports before the dispatcher has
	// subscribed again, and nobody gets them. So the dispatcher is asked once
	// more what it waits for, within its silence window.
	pause := helloEvery
	if !l.hello.again {
		pause = helloSoon
	}
	l.hello = hello{again: true, due: time.Now().Add(pause)}
	if err = l.remember(); err == nil {
		err = l.reconcile(w.Pending)
	}
	if err != nil { // nothing starts before this is on disk
		l.troubleLocked(err)
		l.clock.forget()
		l.hello = hello{due: time.Now().Add(helloAnswer)}
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	for _, p := range w.Pending {
		if err := l.pending(p); err != nil {
			return err
		}
	}
	l.resend(w.Wanted)
	l.prune()
	l.wake()
	return nil
}

// remember notes that this cloud welcomes, and when a replaced journal was
// born. l.mu is held.
func (l *lane) remember() error {
	if err := l.rememberWelcome(); err != nil {
		return err
	}
	if l.journal.meta("replaced") == "" || l.journal.meta("birth") != "" {
		return nil
	}
	birth, _ := l.clock.latest()
	if err := l.journal.setMeta("birth", birth.UTC().Format(time.RFC3339Nano)); err != nil {
		return err
	}
	l.log.Warn("this journal replaces a damaged one; commands issued before now are not started", "birth", birth)
	for _, op := range slices.Clone(l.queue) { // they came before the welcome
		if op.Local != nil || birth.After(op.Command.ExpiresAt.Time) {
			continue // no journal but this one can know it; expired, as everywhere
		}
		if err := l.store(op, l.failed(op, transport.CodeOutcomeUnknown, transport.ExecutedUnknown, setAside), false); err != nil {
			return err
		}
	}
	return nil
}

func (l *lane) rememberWelcome() error {
	if l.journal.meta("welcomed") != "" {
		return nil
	}
	return l.journal.setMeta("welcomed", "yes")
}

// reconcile compares what the journal holds as not started with what the cloud
// waits for, at the first welcome after a start. A journal may be an old copy
// (a restored disk image), and a command may be delivered again after the
// journal that knew it was lost. Such an operation is never started here:
//
//	in the journal              at the cloud                    start it?
//	accepted before this start  not waited for, not expired     no: it has ended
//	                            running                         no: a newer copy of this journal has it
//	                            accepted, or not heard of       yes
//	accepted since this start   accepted, or running            no: we have not told it yet, so another has
//	                            anything else                   yes
//
// l.mu is held.
func (l *lane) reconcile(pending []transport.Pending) error {
	if l.welcomed {
		return nil
	}
	waited := make(map[string]transport.Pending)
	for _, p := range pending {
		waited[p.Command.OperationID] = p
	}
	late, _ := l.clock.latest()
	for _, op := range slices.Clone(l.queue) {
		p, isWaited := waited[op.Command.OperationID]
		heard := !p.AcceptedAt.IsZero() || p.Running
		if op.State != accepted || op.announced || op.Local != nil {
			continue
		}
		var err error
		switch {
		case op.fresh && heard:
			err = l.abandon(op, "the cloud has heard of it before this journal knew it")
		case !op.fresh && p.Running:
			err = l.abandon(op, "the cloud has heard that it runs: this journal is an old copy")
		case !op.fresh && !isWaited && !late.After(op.Command.ExpiresAt.Time):
			err = l.abandon(op, "the cloud does not wait for it any more")
		default:
			op.changed = true
		}
		if err != nil {
			return err
		}
	}
	l.welcomed = true
	return nil
}

// pending deals with an operation that the cloud waits for, as if it were just
// delivered.
func (l *lane) pending(p transport.Pending) error {
	payload := transport.Encode(p.Command)
	c, err := transport.DecodeCommand(payload, l.id)
	if err != nil {
		return l.receiveCommand(transport.Message{TerminalID: l.id, Kind: transport.Commands, Payload: payload})
	}
	if p.AcceptedAt.IsZero() && !p.Running {
		return l.accept(c)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	known, err := l.journal.find(l.id, c.OperationID)
	switch {
	case err != nil:
		return err
	case known != nil:
		l.answerAgain(known)
		return nil
	}
	// Another journal has it. It is remembered, so that a copy of the command
	// that is still on its way does not start it.
	now := l.clock.now()
	e := &entry{Command: c, State: finished, AcceptedAt: now, FinishedAt: now, Reported: true}
	l.log.Warn("not started and not reported", "operation", c.OperationID, "why", "another journal has accepted it")
	return l.journal.add(e)
}

// resend queues the final reports that the cloud wants.
func (l *lane) resend(wanted []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range wanted {
		if known, err := l.journal.find(l.id, id); err == nil && known != nil {
			l.answerAgain(known)
		}
	}
}

// answerAgain sends the latest report of an operation once more. l.mu is held.
func (l *lane) answerAgain(known *entry) {
	if op := l.operations[known.Command.OperationID]; op != nil {
		op.changed = true
	} else if known.Final != nil && !slices.ContainsFunc(l.outbox, func(e *entry) bool { return e.Sequence == known.Sequence }) {
		l.outbox = append(l.outbox, known)
	}
	l.wakeReporter()
}

// prune deletes what nobody will ask for any more.
func (l *lane) prune() {
	sequences, err := l.journal.prune(l.clock.now())
	if err != nil {
		l.trouble(err)
		return
	}
	for _, n := range sequences {
		l.removeFiles(n)
	}
}

// supported reports whether the agent knows the operation at all. Whether this
// terminal has it, the adapter says.
func (l *lane) supported(operation string) bool {
	return slices.Contains(device.Operations(), device.Operation(operation))
}
