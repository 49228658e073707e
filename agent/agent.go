package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"terminalops/device"
	"terminalops/transport"
)

// Options configure an Agent. StateDir and Lanes are required.
type Options struct {
	StateDir string // journal, spooled logs; made if it does not exist
	Lanes    []Lane
	Version  string
	Logger   *slog.Logger // default: none
	Time     TimeSource   // default: the PC's

	// OwnLog returns the agent's own latest log lines, for send_logs. It must
	// be masked already. Default: nothing.
	OwnLog func() []byte
	// HTTP uploads the logs. Default: a client that honours the environment's
	// proxy settings.
	HTTP *http.Client

	// ResolveFor is how long a terminal is asked for an outcome nobody saw.
	// Default 24 h.
	ResolveFor time.Duration
	// Grace is how long a stopping agent waits for an operation at work, before
	// it leaves the rest to the next start. Default 25 s, within the 30 s that
	// a service manager on Linux grants.
	Grace time.Duration

	cut func(when string) error // tests: see journal.cut
}

// Lane is one terminal of an agent.
type Lane struct {
	ID       string // terminal id
	Link     string // as configured, for presence
	Terminal device.Terminal
	End      transport.End
	// Working is called with the id of the operation that Terminal works on from
	// now on; empty: none. Default: nobody wants to know.
	Working func(operationID string)
	// Journaled is called with each step of an operation of this terminal once
	// it is on disk, in words. It must neither wait nor ask the agent. Default:
	// nobody wants to know.
	Journaled func(operationID, operation, step string)
	// Capture returns what was last seen of this terminal, for send_logs, masked.
	// If that is more than most bytes the oldest are left out, and dropped is how
	// many. Default: nothing.
	Capture func(most int64) (content []byte, dropped int64)
}

// Agent is the engine: it takes commands, has terminals carry them out, and
// reports.
type Agent struct {
	options Options
	journal *journal
	lanes   []*lane
	watch   *watch
}

// New opens the journal and reads what an earlier run left. The caller calls
// Run, or Close.
func New(o Options) (*Agent, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Time == nil {
		o.Time = NewSystemTime()
	}
	if o.OwnLog == nil {
		o.OwnLog = func() []byte { return nil }
	}
	if o.HTTP == nil {
		o.HTTP = &http.Client{}
	}
	if o.ResolveFor == 0 {
		o.ResolveFor = 24 * time.Hour
	}
	if o.Grace == 0 {
		o.Grace = 25 * time.Second
	}
	j, err := openJournal(o.StateDir, o.Time.Wall())
	if err != nil {
		return nil, err
	}
	j.cut, j.noted = o.cut, journaled(o.Lanes)
	if j.meta("replaced") != "" && j.meta("birth") == "" {
		o.Logger.Error("the journal was damaged; it was set aside beside " + filepath.Join(o.StateDir, journalFile))
	}
	a := &Agent{options: o, journal: j}
	for _, lo := range o.Lanes {
		a.lanes = append(a.lanes, a.newLane(lo))
	}
	a.watch = a.newWatch()
	if err := a.load(); err != nil {
		j.close()
		return nil, err
	}
	return a, nil
}

// journaled tells lanes of what is on disk of their operations.
func journaled(lanes []Lane) func(*entry, string) {
	told := make(map[string]func(operationID, operation, step string))
	for _, l := range lanes {
		told[l.ID] = l.Journaled
	}
	return func(e *entry, step string) {
		if tell := told[e.Command.TerminalID]; tell != nil {
			tell(e.Command.OperationID, e.Command.Operation, step)
		}
	}
}

// load hands each lane what an earlier run left of it. Entries of terminals
// that are not configured any more stay where they are.
func (a *Agent) load() error {
	byID := make(map[string]*lane)
	for _, l := range a.lanes {
		byID[l.id] = l
	}
	if err := a.journal.each(func(e *entry) {
		if l := byID[e.Command.TerminalID]; l != nil {
			l.load(e)
		}
	}); err != nil {
		return err
	}
	for _, l := range a.lanes {
		if err := l.loadEvidence(); err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) newLane(lo Lane) *lane {
	o := a.options
	if lo.Working == nil {
		lo.Working = func(string) {}
	}
	if lo.Capture == nil {
		lo.Capture = func(int64) ([]byte, int64) { return nil, 0 }
	}
	return &lane{
		id:           lo.ID,
		link:         lo.Link,
		terminal:     lo.Terminal,
		worksOn:      lo.Working,
		end:          lo.End,
		journal:      a.journal,
		clock:        &cloudClock{source: o.Time},
		log:          o.Logger.With("terminal", lo.ID),
		program:      transport.Program{Version: o.Version, OS: runtime.GOOS, Arch: runtime.GOARCH},
		stateDir:     o.StateDir,
		ownLog:       o.OwnLog,
		capture:      lo.Capture,
		http:         o.HTTP,
		resolveFor:   o.ResolveFor,
		operations:   make(map[string]*operation),
		workerWake:   make(chan struct{}, 1),
		reporterWake: make(chan struct{}, 1),
		queueWake:    make(chan struct{}, 1),
	}
}

// Run serves all lanes, side by side, until ctx ends; then it waits up to Grace
// for operations at work. An error is permanent: the configuration is wrong.
func (a *Agent) Run(ctx context.Context) error {
	patience, impatient := context.WithCancel(context.WithoutCancel(ctx))
	defer impatient()
	group, ctx := errgroup.WithContext(ctx) // a lane whose configuration is wrong ends all
	defer context.AfterFunc(ctx, func() { time.AfterFunc(a.options.Grace, impatient) })()
	for _, l := range a.lanes {
		group.Go(func() error {
			if err := l.run(ctx, patience); err != nil {
				return fmt.Errorf("terminal %s: %w", l.id, err)
			}
			return nil
		})
	}
	return errors.Join(group.Wait(), a.Close())
}

// Wake tells the agent that the PC was asleep. Nobody knows for how long, so the
// cloud's time is asked for again before anything starts; and the connections,
// which are dead more often than not and would only be missed after a while, are
// made anew. An operation at work goes on. Wake may be called from any
// goroutine.
func (a *Agent) Wake() {
	for _, l := range a.lanes {
		l.rouse()
	}
}

// Close closes the journal of an agent that does not run.
func (a *Agent) Close() error {
	if err := a.journal.close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
