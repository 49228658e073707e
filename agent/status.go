package agent

import (
	"encoding/json"
	"runtime"
	"time"

	"terminalops/transport"
)

// What people at the store may ask, at any time and from any goroutine.

// Status is how an agent is.
type Status struct {
	Version   string       `json:"version"`
	OS        string       `json:"os"`
	Arch      string       `json:"arch"`
	JournalID string       `json:"journal_id"`
	Lanes     []LaneStatus `json:"terminals"`
}

// LaneStatus is how one terminal is.
type LaneStatus struct {
	ID         string           `json:"id"`
	Connected  bool             `json:"connected"` // to the cloud
	Connection uint64           `json:"connection"`
	Clock      ClockStatus      `json:"clock"`
	Device     transport.Device `json:"device"`
	Detail     string           `json:"detail,omitempty"`  // why no commands are taken, if so
	Working    *Record          `json:"working,omitempty"` // at the terminal now
	Queue      []Record         `json:"queue"`             // waiting for their turn, in order
	Last       *Record          `json:"last,omitempty"`    // the latest that has ended
}

// Whose time decides about deadlines.
const (
	ClockCloud   = "cloud"
	ClockPC      = "pc"      // no cloud has ever told its time
	ClockUnknown = "unknown" // the cloud is to tell its time first
)

// ClockStatus is what is known of the cloud's time.
type ClockStatus struct {
	Source string `json:"source"`
	// OffsetMillis is by how much the cloud's clock is later than the PC's, with
	// ClockCloud.
	OffsetMillis int64 `json:"offset_ms"`
}

// Record is one operation as the journal has it.
type Record struct {
	ID         string    `json:"operation_id"`
	TerminalID string    `json:"terminal_id"`
	Operation  string    `json:"operation"`
	Origin     string    `json:"origin"` // OriginCloud or OriginLocal
	CreatedBy  string    `json:"created_by,omitempty"`
	State      string    `json:"state"` // as in a Report, or StateElsewhere
	Message    string    `json:"message,omitempty"`
	AcceptedAt time.Time `json:"accepted_at"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	Reported   bool      `json:"reported"`         // the broker has the final report
	Report     *Report   `json:"report,omitempty"` // the final one
}

// What stands in a Record beyond the words of a Report.
const (
	OriginCloud    = "cloud"
	OriginLocal    = transport.OriginLocal
	StateElsewhere = "ELSEWHERE" // not started and not reported here: another journal has it
)

// maxHistory bounds what History returns: each record may have a report of 64
// KiB.
const maxHistory = 1000

// Status says how the agent and its terminals are.
func (a *Agent) Status() (Status, error) {
	s := Status{Version: a.options.Version, OS: runtime.GOOS, Arch: runtime.GOARCH, JournalID: a.journal.id}
	for _, l := range a.lanes {
		lane, err := l.status()
		if err != nil {
			return Status{}, err
		}
		s.Lanes = append(s.Lanes, lane)
	}
	return s, nil
}

func (l *lane) status() (LaneStatus, error) {
	last, err := l.journal.latest(l.id, 1, func(e *entry) bool { return e.State == finished })
	if err != nil {
		return LaneStatus{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := LaneStatus{
		ID: l.id, Connected: l.connected, Connection: l.connection, Clock: l.clock.status(),
		Device: l.describe(), Detail: l.detail, Queue: []Record{},
	}
	for _, e := range last {
		r := recordOf(e)
		s.Last = &r
	}
	for _, op := range l.queue {
		r := recordOf(&op.entry)
		r.Message = op.message
		if s.Working == nil && (op.current || op.State == started) {
			s.Working = &r
		} else {
			s.Queue = append(s.Queue, r)
		}
	}
	return s, nil
}

// History returns the latest n operations of a terminal, or of all if the id is
// empty, newest first. More than 1000 are not to be had at once.
func (a *Agent) History(terminalID string, n int) ([]Record, error) {
	entries, err := a.journal.latest(terminalID, min(n, maxHistory), func(*entry) bool { return true })
	if err != nil {
		return nil, err
	}
	records := make([]Record, len(entries))
	for i, e := range entries {
		records[i] = recordOf(e)
		if l := a.lane(e.Command.TerminalID); l != nil {
			records[i].Message = l.messageOf(e)
		}
	}
	return records, nil
}

// messageOf is the newest text about an operation that is not finished.
func (l *lane) messageOf(e *entry) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if op := l.operations[e.Command.OperationID]; op != nil {
		return op.message
	}
	return ""
}

func recordOf(e *entry) Record {
	r := Record{
		ID: e.Command.OperationID, TerminalID: e.Command.TerminalID, Operation: e.Command.Operation, Origin: OriginCloud,
		AcceptedAt: e.AcceptedAt, StartedAt: e.StartedAt, FinishedAt: e.FinishedAt, Reported: e.Reported,
	}
	if e.Local != nil {
		r.Origin, r.CreatedBy = OriginLocal, e.Local.By
	}
	switch e.State {
	case accepted:
		r.State = transport.StateAccepted
	case started:
		r.State = transport.StateRunning
	case finished:
		r.State = StateElsewhere
		var final Report
		if json.Unmarshal(e.Final, &final) == nil {
			r.State, r.Report = final.State, &final
		}
	default:
		panic("agent: unknown state " + string(e.State))
	}
	return r
}

// status says whose time decides.
func (c *cloudClock) status() ClockStatus {
	late, known := c.latest()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !known:
		return ClockStatus{Source: ClockUnknown}
	case !c.synced:
		return ClockStatus{Source: ClockPC}
	default:
		return ClockStatus{Source: ClockCloud, OffsetMillis: late.Add(-c.half).Sub(c.source.Wall()).Milliseconds()}
	}
}
