package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	bolterrors "go.etcd.io/bbolt/errors"

	"terminalops/device"
	"terminalops/transport"
)

// Operations that begin at the store: an engineer asks for one at the PC. They
// take the same road as those of the cloud, in the same queue, with three
// differences.
//
//   - Their deadline is startWithin after they were asked for, by the PC's own
//     clocks: it needs no cloud. One that was not started before the agent
//     ended never starts: nobody knows whether the engineer is still there.
//   - The cloud has not heard of them. No welcome abandons one, and no Cancel of
//     the cloud ends one.
//   - Their reports have the origin "local", and say who it was.
const startWithin = time.Minute

// local marks an entry of the journal as begun at the store.
type local struct {
	By string `json:"by"` // "local:NAME"
}

// Report is transport.Report, for those who see this package only.
type Report = transport.Report

// Why a local operation cannot be asked for, followed or cancelled.
var (
	ErrUnknownTerminal  = errors.New("unknown terminal")
	ErrUnknownOperation = errors.New("unknown operation")
	ErrUnknownID        = errors.New("no such operation in the journal")
	ErrNotLocal         = errors.New("the cloud has asked for it, and only the cloud can cancel it")
	ErrStarted          = errors.New("it has started")
	ErrStopping         = errors.New("the agent is stopping")
)

// Submit asks for an operation in the name of somebody at the store, and returns
// its id once it is in the journal. It starts when its turn comes, or within a
// minute never. by is a name of at most 64 characters.
//
// ErrUnknownTerminal, ErrUnknownOperation and ErrStopping say why not; any other
// error is the state directory's. After an error the operation never starts.
func (a *Agent) Submit(terminalID, operation, by string) (operationID string, err error) {
	l := a.lane(terminalID)
	if l == nil {
		return "", fmt.Errorf("%w %q; this agent has %s", ErrUnknownTerminal, terminalID, strings.Join(a.terminals(), ", "))
	}
	if !l.supported(operation) {
		return "", fmt.Errorf("%w %.40q; there are %v", ErrUnknownOperation, operation, device.Operations())
	}
	return l.submit(operation, "local:"+nameOf(by))
}

// nameOf makes a name that can be shown of whatever somebody calls himself.
func nameOf(by string) string {
	runes := slices.DeleteFunc([]rune(strings.ToValidUTF8(by, "")), func(r rune) bool { return !unicode.IsPrint(r) })
	if by = strings.TrimSpace(string(runes[:min(len(runes), 64)])); by == "" {
		return "unknown"
	}
	return by
}

func (l *lane) submit(kind, by string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopping {
		return "", ErrStopping
	}
	now := l.clock.now()
	op := &operation{fresh: true, changed: true, asked: l.clock.read()}
	op.Command = transport.Command{
		OperationID: newUUID(), TerminalID: l.id, Operation: kind,
		IssuedAt: transport.At(now), ExpiresAt: transport.At(now.Add(startWithin)), // for people: asked is what decides
	}
	op.State, op.AcceptedAt, op.Local = accepted, now, &local{By: by}
	if err := l.add(op); err != nil {
		return "", fmt.Errorf("not accepted, it will not start: %w", err)
	}
	l.log.Info("accepted", "operation", op.Command.OperationID, "kind", kind, "by", by)
	l.wake()
	return op.Command.OperationID, nil
}

// timeLeft is how long op may still start; false if that cannot be told without
// the cloud's time. A negative time is over.
//
// Of the PC's two clocks the one that has come further decides about a local
// operation: the monotonic one stands still while the PC sleeps, and the other
// may be set.
func (l *lane) timeLeft(op *operation) (time.Duration, bool) {
	if op.Local == nil {
		late, known := l.clock.latest()
		return op.Command.ExpiresAt.Sub(late), known
	}
	if !op.fresh {
		return -1, true // the agent that took it has ended
	}
	now := l.clock.read()
	return startWithin - max(now.mono-op.asked.mono, now.wall.Sub(op.asked.wall)), true
}

// Cancel takes back the wish for a local operation that has not started. It is
// on disk when Cancel returns nil, and the final report says what became of it:
// FAILED cancelled, unless it starts at this very moment.
//
// ErrStarted: it goes on, nobody can stop a terminal. ErrUnknownID, ErrNotLocal:
// not this one.
func (a *Agent) Cancel(operationID string) error {
	l, e, err := a.find(operationID)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch op := l.operations[operationID]; {
	case e.Local == nil:
		return ErrNotLocal
	case op == nil || op.State != accepted:
		return ErrStarted
	default:
		return l.cancel(&op.entry)
	}
}

// Follow calls tell with what is known of an operation, now and whenever there
// is news, until its final report, which is the last call. A tell that takes its
// time misses what was overtaken meanwhile. It ends early with ctx, or with
// ErrStopping: then the next start of the agent goes on with the operation.
//
// ErrUnknownID: the journal does not know it.
func (a *Agent) Follow(ctx context.Context, operationID string, tell func(Report)) error {
	l, _, err := a.find(operationID)
	if err != nil {
		return err
	}
	var last Report
	for {
		r, news, err := l.newest(operationID)
		if err != nil {
			return err
		}
		if r.State != last.State || r.Message != last.Message {
			tell(r)
			last = r
		}
		if r.Final() {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// newest is the newest report about an operation, and a channel that is closed
// when there may be a newer one.
func (l *lane) newest(operationID string) (Report, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if op := l.operations[operationID]; op != nil {
		if l.stopped {
			return Report{}, nil, ErrStopping
		}
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		r := l.progress(op)
		r.At, r.Sequence = transport.At(l.clock.now()), op.sequence
		return r, l.changed, nil
	}
	e, err := l.journal.find(l.id, operationID)
	switch {
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return Report{}, nil, ErrStopping
	case err != nil:
		return Report{}, nil, err
	case e == nil || e.Final == nil:
		return Report{}, nil, ErrUnknownID // pruned, or answered by another journal
	}
	var r Report
	if err := json.Unmarshal(e.Final, &r); err != nil {
		return Report{}, nil, fmt.Errorf("journal: final report of %s: %w", operationID, err)
	}
	return r, nil, nil
}

// progress is the report about an operation that is not finished. l.mu is held.
func (l *lane) progress(op *operation) transport.Report {
	r := l.report(op, transport.StateAccepted)
	if op.State == started {
		r.State = transport.StateRunning
	}
	r.Message = op.message
	return r
}

// tellFollowers has those who follow an operation look again. l.mu is held.
func (l *lane) tellFollowers() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// find looks for an operation in all lanes.
func (a *Agent) find(operationID string) (*lane, *entry, error) {
	for _, l := range a.lanes {
		if e, err := a.journal.find(l.id, operationID); err != nil || e != nil {
			return l, e, err
		}
	}
	return nil, nil, fmt.Errorf("%.80s: %w", operationID, ErrUnknownID)
}

// lane is the lane of a terminal; nil if there is none.
func (a *Agent) lane(terminalID string) *lane {
	for _, l := range a.lanes {
		if l.id == terminalID {
			return l
		}
	}
	return nil
}

func (a *Agent) terminals() []string {
	var ids []string
	for _, l := range a.lanes {
		ids = append(ids, l.id)
	}
	return ids
}

// newUUID returns a random UUID (RFC 9562 5.4), as the cloud's ids are.
func newUUID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0F|0x40, b[8]&0x3F|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
