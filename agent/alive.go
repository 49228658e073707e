package agent

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"terminalops/device"
	"terminalops/transport"
)

// What a watchdog asks: does the agent still do its work? A wrong "no" ends a
// process that may be in the middle of a closing, and costs a visit to the
// store; a "yes" too many costs some minutes. So everything here counts as
// alive until it has been silent for longer than anything can take that is
// merely slow.
//
//	what                 its sign of life                          how long without
//	the journal          a write could begin                       turnPatience
//	a lane's lock        it was to be had                          turnPatience
//	its worker, idle     it went round when it was asked to        turnPatience
//	  at an operation    the adapter called its Witness, or ended  actPatience, readPatience
//	  while a menu is    none: the terminal may keep the word      for ever
//	  open               for days
//	its reporter         it went round, or a Send ended            turnPatience
//	its transport        an attempt to connect, a message, either  sessionPatience
//	                     way; hello is said every 10 minutes
const (
	// turnPatience covers a disk that stands still: a worn memory card in a
	// clean-up, a drive that spins up, an update of the system that writes its
	// caches. A Send ends within a minute.
	turnPatience = 10 * time.Minute
	// actPatience covers the longest time that a terminal may want to be
	// silent: 99 minutes ([S15] 3.7, T4 in an intermediate status). Whatever it
	// says is recorded or is progress.
	actPatience = 2 * time.Hour
	// readPatience covers the reading of one file of many MiB over a serial
	// line of 9600 bit/s, of which the engine sees only the end.
	readPatience = 24 * time.Hour
	// sessionPatience covers several hellos in vain, and many attempts to
	// connect.
	sessionPatience = time.Hour

	// longestStep is how much silence one look can add. A PC that has slept, or
	// was stopped by its hypervisor, has been silent for hours by its clock.
	longestStep = time.Minute
)

// turns is how something shows that it goes on. The zero value may be silent.
type turns struct {
	count    atomic.Uint64
	patience atomic.Int64
}

// turn is a sign of life. The next one comes within patience; 0: nobody can say.
func (t *turns) turn(patience time.Duration) {
	t.patience.Store(int64(patience))
	t.count.Add(1)
}

// watched is something that has to go on, and since when it did not.
type watched struct {
	what   string // "terminal T1: the worker has done nothing"
	turns  *turns
	seen   uint64
	silent time.Duration
}

// look takes in another step of time. An error means that it is dead.
func (w *watched) look(step time.Duration) error {
	count, patience := w.turns.count.Load(), time.Duration(w.turns.patience.Load())
	if count != w.seen || patience == 0 {
		w.seen, w.silent = count, 0
		return nil
	}
	if w.silent += step; w.silent <= patience {
		return nil
	}
	return fmt.Errorf("%s for %v", w.what, w.silent.Round(time.Second))
}

// watch is what Alive knows from one call to the next.
type watch struct {
	all     []*watched
	journal turns
	asking  chan struct{} // closed when the journal has answered; nil: it has been heard
	looked  time.Duration // monotonic
}

func (a *Agent) newWatch() *watch {
	w := &watch{looked: a.options.Time.Monotonic()}
	w.all = append(w.all, &watched{what: "journal: no write could begin", turns: &w.journal})
	for _, l := range a.lanes {
		w.all = append(w.all,
			&watched{what: "terminal " + l.id + ": the lock was not to be had", turns: &l.locking},
			&watched{what: "terminal " + l.id + ": the worker has done nothing", turns: &l.working},
			&watched{what: "terminal " + l.id + ": the reporter has done nothing", turns: &l.reporting},
			&watched{what: "terminal " + l.id + ": the transport has done nothing", turns: &l.session},
		)
	}
	return w
}

// Alive returns an error, which names what hangs, if an agent that runs can do
// its work no more, and only a new process can. It is for a watchdog, which calls it from
// one goroutine, every 10 to 30 s: time counts as far as it was looked at. It
// answers at once while all is well, and in any case when ctx has ended; what
// has given no sign by then is given its time.
//
// A hung disk looks like this: a commit does not return from fdatasync, with the
// writer's lock of the journal taken, and mostly the lane's too. So beginning a
// write, and giving it up at once, shows it, and wears out no disk. As long as
// nobody writes, a hung disk is not noticed, and is in nobody's way.
func (a *Agent) Alive(ctx context.Context) error {
	w := a.watch
	a.askJournal(ctx)
	for _, l := range a.lanes {
		l.askLock(ctx)
	}
	now := a.options.Time.Monotonic()
	step := min(max(now-w.looked, 0), longestStep)
	w.looked = now
	var dead []error
	for _, one := range w.all {
		dead = append(dead, one.look(step))
	}
	for _, l := range a.lanes {
		l.wake() // to be seen at the next look
	}
	return errors.Join(dead...)
}

// askJournal lets a write begin, and waits for it until ctx ends. One that does
// not begin is asked for once.
func (a *Agent) askJournal(ctx context.Context) {
	w := a.watch
	if w.asking == nil {
		begun := make(chan struct{})
		w.asking = begun
		go func() {
			defer close(begun)
			a.journal.beginAndGiveUp()
		}()
	}
	select {
	case <-w.asking:
		w.asking = nil
		w.journal.turn(turnPatience)
	case <-ctx.Done():
	}
}

// askLock takes the lane's lock and gives it back, or gives up when ctx ends.
func (l *lane) askLock(ctx context.Context) {
	pauses := pauses{first: time.Millisecond, ceiling: 100 * time.Millisecond}
	for !l.mu.TryLock() {
		if !sleep(ctx, pauses.next()) {
			return
		}
	}
	l.mu.Unlock()
	l.locking.turn(turnPatience)
}

// patienceFor is how long a terminal at an operation may give no sign.
func patienceFor(op *operation) time.Duration {
	if device.Operation(op.Command.Operation) == device.SendLogs {
		return readPatience
	}
	return actPatience
}

// noted is a Sender that notes when a Send has ended.
type noted struct {
	transport.Sender
	lane *lane
}

func (s *noted) Send(ctx context.Context, terminalID string, k transport.Kind, payload []byte) error {
	err := s.Sender.Send(ctx, terminalID, k, payload)
	s.lane.reporting.turn(turnPatience)
	s.lane.session.turn(sessionPatience)
	return err
}
