package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"terminalops/device"
	"terminalops/transport"
)

// lane is one terminal with its link, its queue and its session.
//
// Four goroutines meet in it: the transport's, which calls Connecting and
// Receive; the reporter, which is Connected; the worker, the only one that
// talks to the terminal; and one that ends what has waited too long. People at
// the store come in on goroutines of their own. mu guards everything below it; the journal is written
// under mu wherever a state changes, so that memory and disk agree.
type lane struct {
	id         string
	link       string
	terminal   device.Terminal
	worksOn    func(operationID string)
	end        transport.End
	journal    *journal
	clock      *cloudClock
	log        *slog.Logger
	program    transport.Program
	stateDir   string
	ownLog     func() []byte
	capture    func(most int64) (content []byte, dropped int64)
	http       *http.Client
	resolveFor time.Duration

	workerWake   chan struct{} // capacity 1: look again
	reporterWake chan struct{} // capacity 1: look again
	queueWake    chan struct{} // capacity 1: look again

	locking, working, reporting, session turns // for Alive

	mu         sync.Mutex
	operations map[string]*operation // by id, those not finished
	queue      []*operation          // the same, in order
	outbox     []*entry              // final reports to send, in order; some again
	left       *entry                // a finished operation whose menu may still be open
	changed    chan struct{}         // closed at the next news of an operation; nil: nobody follows
	stopping   bool                  // the agent is to end
	stopped    bool                  // the worker has ended

	connection uint64
	connected  bool
	hello      hello
	hangUp     context.CancelFunc // ends the connection; the next one is made at once
	welcomed   bool               // by the cloud, since this start
	device     transport.Device
	unplugged  string        // why there is no port; empty if there is, or nobody knows
	news       bool          // presence has changed
	detail     string        // why no commands are taken; empty if they are
	detailDue  time.Time     // when to look whether that is over
	leaving    chan struct{} // set when the agent stops; the reporter closes it after its last word
}

// hello is the last one sent.
type hello struct {
	nonce  string
	sent   reading
	due    time.Time // when to say it next
	misses int       // how many were not answered
	again  bool      // this connection had a welcome
}

// load takes an entry that an earlier run left.
func (l *lane) load(e *entry) {
	if e.Attending {
		l.left = e
	}
	switch {
	case e.State != finished:
		op := &operation{entry: *e, changed: true}
		l.operations[e.Command.OperationID] = op
		l.queue = append(l.queue, op)
	case !e.Reported:
		l.outbox = append(l.outbox, e)
	}
}

// loadEvidence takes what was recorded of the operations that load has queued.
func (l *lane) loadEvidence() (err error) {
	for _, op := range l.queue {
		if op.evidence, err = l.journal.evidence(&op.entry); err != nil {
			return err
		}
	}
	return nil
}

// run serves the lane until ctx ends, and then until the operation at work has
// ended too, or patience.
func (l *lane) run(ctx, patience context.Context) error {
	defer context.AfterFunc(ctx, l.stop)()
	session, hangUp := context.WithCancel(context.WithoutCancel(ctx)) // it has the last word
	defer hangUp()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		defer stop() // the configuration is wrong: nothing to wait for
		ended <- l.keepSession(session)
	}()
	var expiring sync.WaitGroup
	expiring.Go(func() { l.expire(ctx) })

	l.work(ctx, patience)
	expiring.Wait()
	l.mu.Lock()
	l.stopped = true
	l.tellFollowers()
	l.mu.Unlock()
	l.sayGoodbye()
	hangUp()
	return <-ended
}

// stop has nobody at the store ask for anything more.
func (l *lane) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopping = true
}

// keepSession runs the session until ctx ends, from its beginning again
// whenever somebody has hung up.
func (l *lane) keepSession(ctx context.Context) error {
	defer l.session.turn(0)
	for {
		connection, hangUp := context.WithCancel(ctx)
		l.mu.Lock()
		l.hangUp = hangUp
		l.mu.Unlock()
		l.session.turn(sessionPatience)
		err := l.end.Run(connection, l)
		hungUp := connection.Err() != nil && ctx.Err() == nil
		hangUp()
		if err != nil || !hungUp {
			return err
		}
	}
}

// rouse is Wake for this lane. A welcome that is still on its way answers a
// hello from before the sleep, and tells no time.
func (l *lane) rouse() {
	l.log.Info("the PC was asleep: asking for the time, and connecting again")
	l.clock.forget()
	l.mu.Lock()
	l.hello = hello{}
	if l.hangUp != nil {
		l.hangUp()
	}
	l.mu.Unlock()
	l.wake()
}

// work takes the operations of the queue one after the other.
func (l *lane) work(ctx, patience context.Context) {
	defer l.working.turn(0)
	if l.left != nil {
		l.attend(ctx, l.left)
	}
	for {
		op := l.next(ctx)
		if op == nil {
			return
		}
		l.perform(ctx, patience, op)
		l.mu.Lock()
		op.current = false
		l.mu.Unlock()
	}
}

// next waits for an operation that may be taken on; nil when ctx has ended.
func (l *lane) next(ctx context.Context) *operation {
	for ctx.Err() == nil {
		l.working.turn(turnPatience)
		l.mu.Lock()
		if op := l.first(); op != nil {
			op.current = true
			l.mu.Unlock()
			return op
		}
		if len(l.queue) > 0 {
			l.sayHello()
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-l.workerWake:
		}
	}
	return nil
}

// first is the operation to take on now; nil if there is none. One that was
// started comes before everything, wherever it stands: nothing else may start.
// Of the others it is the oldest, but what needs the cloud's time does not keep
// back what does without. l.mu is held.
func (l *lane) first() *operation {
	for _, op := range l.queue {
		if op.State == started {
			return op
		}
	}
	for _, op := range l.queue {
		if _, known := l.timeLeft(op); known {
			return op
		}
	}
	return nil
}

// waitForTurn pauses for d, or until op is cancelled, or its start deadline
// comes, or ctx ends.
func (l *lane) waitForTurn(ctx context.Context, d time.Duration, op *operation) {
	if left, known := l.timeLeft(op); known {
		d = min(d, max(left+time.Millisecond, 0))
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for !errors.Is(l.mayStart(op), errCancelled) {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-l.workerWake:
		}
	}
}

// mayStart is ready, for the worker.
func (l *lane) mayStart(op *operation) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready(op)
}

func (l *lane) stateOf(op *operation) state {
	l.mu.Lock()
	defer l.mu.Unlock()
	return op.State
}

func (l *lane) attending(e *entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return e.Attending
}

// add journals a new operation and queues it. l.mu is held.
func (l *lane) add(op *operation) error {
	if err := l.journal.add(&op.entry); err != nil {
		l.troubleLocked(err)
		return err
	}
	l.setDetail("")
	l.operations[op.Command.OperationID] = op
	l.queue = append(l.queue, op)
	return nil
}

// forget takes a finished operation out of the queue. l.mu is held.
func (l *lane) forget(op *operation) {
	delete(l.operations, op.Command.OperationID)
	l.queue = slices.DeleteFunc(l.queue, func(o *operation) bool { return o == op })
}

// expire ends what waits for its turn past its deadline, while the lane is busy
// with another operation, and trouble that is over, until ctx ends.
func (l *lane) expire(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		l.mu.Lock()
		again := min(l.expireQueue(), l.lookAtTrouble())
		l.mu.Unlock()
		timer.Reset(again)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-l.queueWake:
		}
	}
}

// expireQueue looks for them once, and returns when it has to look again. l.mu
// is held.
func (l *lane) expireQueue() time.Duration {
	again := time.Hour
	for _, op := range slices.Clone(l.queue) {
		left, known := l.timeLeft(op)
		if op.current || op.State != accepted || !known {
			continue
		}
		if left >= 0 {
			op.inTime = true
			again = min(again, left+time.Millisecond)
		} else if err := l.store(op, l.notStarted(op, errTooLate), false); err != nil {
			l.troubleLocked(err)
			again = min(again, time.Second)
		}
	}
	return again
}

// notStarted is the report for an operation that may not start any more.
func (l *lane) notStarted(op *operation, why error) transport.Report {
	switch {
	case errors.Is(why, errCancelled):
		return l.failed(op, transport.CodeCancelled, transport.ExecutedNo, "cancelled")
	case op.waiting != nil:
		return l.failed(op, codeOf(op.waiting), transport.ExecutedNo, op.waiting.Error())
	default:
		return l.tooLate(op)
	}
}

// tooLate is the report for an operation whose deadline has passed.
func (l *lane) tooLate(op *operation) transport.Report {
	if op.Local != nil && !op.fresh {
		return l.failed(op, transport.CodeExpired, transport.ExecutedNo, "the agent ended before it could be started")
	}
	if op.inTime {
		return l.failed(op, transport.CodeBusy, transport.ExecutedNo, "waited for its turn past its start deadline")
	}
	return l.failed(op, transport.CodeExpired, transport.ExecutedNo, "its start deadline passed before it could be started")
}

// tell notes a text for people about op.
func (l *lane) tell(op *operation, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if text = cut(text); op.message != text {
		op.message, op.changed = text, true
		l.log.Info(text, "operation", op.Command.OperationID)
		l.wakeReporter()
		l.tellFollowers()
	}
}

// setDevice notes what is known of the terminal, for presence.
func (l *lane) setDevice(state, detail string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if detail = cut(detail); l.device.State != state || l.device.Detail != detail {
		l.device.State, l.device.Detail, l.news = state, detail, true
		l.wakeReporter()
	}
}

// deviceState is what presence calls a terminal after an error.
func deviceState(err error) string {
	switch {
	case errors.Is(err, device.ErrBusy):
		return transport.DeviceBusy
	case errors.Is(err, errDisk):
		return "" // it was not asked
	default:
		return transport.DeviceUnreachable
	}
}

// trouble notes that the journal cannot be written.
func (l *lane) trouble(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.troubleLocked(err)
}

func (l *lane) troubleLocked(err error) {
	if text := cut("no commands are taken: " + err.Error()); text != l.detail {
		l.log.Error(text)
		l.setDetail(text)
	}
}

func (l *lane) setDetail(text string) {
	if l.detail != text {
		l.detail, l.detailDue, l.news = text, time.Now().Add(troubleEvery), true
		l.wakeReporter()
		poke(l.queueWake) // where it is looked at
	}
}

// troubleEvery is how often a journal that could not be written is tried again.
const troubleEvery = 30 * time.Second

// lookAtTrouble looks whether the journal can be written again, if that is due, and
// returns when to look again: presence and status say it without a command that
// comes first. l.mu is held.
func (l *lane) lookAtTrouble() time.Duration {
	if l.detail == "" {
		return time.Hour
	}
	if wait := time.Until(l.detailDue); wait > 0 {
		return wait
	}
	if err := l.journal.canTake(); err != nil {
		l.detailDue = time.Now().Add(troubleEvery)
		return troubleEvery
	}
	l.log.Info("commands are taken again")
	l.setDetail("")
	return time.Hour
}

func (l *lane) wake() {
	l.wakeWorker()
	l.wakeReporter()
	poke(l.queueWake)
}

func (l *lane) wakeWorker()   { poke(l.workerWake) }
func (l *lane) wakeReporter() { poke(l.reporterWake) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pauses are growing delays.
type pauses struct{ first, ceiling, last time.Duration }

func (p *pauses) next() time.Duration {
	p.last = min(max(2*p.last, p.first), p.ceiling)
	return p.last
}

// sleep waits for d; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// newID returns a random identifier.
func newID() string {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		panic(fmt.Sprintf("agent: no random numbers: %v", err))
	}
	return hex.EncodeToString(b)
}
