// Package device is the vocabulary between the engine and a payment terminal:
// what an operation asks of a terminal, and what comes back.
//
// An adapter (package zvt, for one) implements [Terminal]. The engine (package
// agent) calls it with a [Witness], through which the adapter says the three
// things that must be on disk in time:
//
//	adapter                                   engine
//	-------                                   ------
//	open the link, register, ask the status        nothing happened yet: every
//	   (all of this may fail)                      error here means "executed: no"
//	Begin(mark)  ----------------------------->  Started is on disk; still in time?
//	write the one frame that makes it act          from here on, no answer means
//	                                               "in doubt", never "failed"
//	totals, receipt, completion arrive
//	Record(kind, data)  ---------------------->  Evidence is on disk
//	answer the terminal
//	return the Outcome  ---------------------->  Finished is on disk
//
// After a crash or a lost link the engine calls Resolve with what was recorded;
// Resolve asks the terminal what happened and never makes it act again.
//
// The package knows no protocol, no journal and no cloud.
package device

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Operation names an administrative operation. The words are those of the
// public API and of the journal.
type Operation string

// The operations a terminal can be asked for.
const (
	EndOfDay    Operation = "end_of_day"
	SendLogs    Operation = "send_logs"
	CheckUpdate Operation = "check_update"
	OpenMenu    Operation = "open_menu"
)

// Operations lists all operations, in the order of the public API.
func Operations() []Operation {
	return []Operation{EndOfDay, SendLogs, CheckUpdate, OpenMenu}
}

// Errors that an adapter returns, possibly wrapped, when an operation came to
// nothing. Any other error means a violated protocol.
//
// Before Witness.Begin has returned nil every error means that the terminal did
// not act. After it, only ErrNotStarted means that; everything else leaves the
// operation in doubt.
var (
	// ErrUnreachable: the link cannot be opened, or nobody answers on it.
	ErrUnreachable = errors.New("terminal unreachable")
	// ErrBusy: the terminal (or its port) is in use: a payment runs, a card is
	// in, a menu is open, an update runs. Asking again later makes sense.
	ErrBusy = errors.New("terminal busy")
	// ErrNotStarted: Begin was called, but it is certain that no byte of the
	// acting command reached the terminal.
	ErrNotStarted = errors.New("not started")
)

// Terminal is one payment terminal behind a protocol adapter.
//
// The engine calls Execute, Resolve and Attend one at a time. Describe may be
// called at any time from any goroutine.
type Terminal interface {
	// Execute carries out one operation and returns its outcome as seen.
	//
	// It opens the link, makes sure the terminal is ready, calls w.Begin
	// exactly once right before the first byte of the command that makes the
	// terminal act, and closes the link again. If Begin returns an error,
	// nothing is written and that error is returned, wrapped. A terminal that
	// refuses is an Outcome with a Failure, not an error.
	//
	// When ctx ends, waiting ends; nothing is sent to a terminal that has the
	// word.
	Execute(ctx context.Context, r Request, w Witness) (Outcome, error)

	// Resolve finds out how an operation ended that Begin was called for and
	// nobody saw the end of. It first consults p.Evidence, then asks the
	// terminal, and never sends the acting command again (reading files may be
	// begun again). ErrUnreachable and ErrBusy mean "not yet, ask again later".
	// A terminal that answers but cannot say is an Outcome with Failure Unknown.
	// With p.GiveUp set the terminal is not asked any more: the Outcome is what
	// the evidence alone says.
	Resolve(ctx context.Context, r Request, p Past, w Witness) (Outcome, error)

	// Describe says what is known of the terminal, without asking it.
	Describe() Description
}

// Attendant is implemented by terminals that may keep the word after an
// operation is complete: a menu is open and the terminal goes on talking.
//
// After an Outcome with Attend set, and again after a restart while that is
// not over, the engine calls Attend and starts nothing else until it returns.
// Attend answers the terminal and sends nothing of its own; nil means that the
// terminal has given the word back, or may be asked again.
type Attendant interface {
	Attend(ctx context.Context) error
}

// Request is one operation as the adapter needs it.
type Request struct {
	Operation Operation
	// Spool takes the files of a SendLogs. Nil for other operations.
	Spool Spool
}

// Witness is the engine's ear while an adapter works. It is used from the
// goroutine that called Execute or Resolve.
type Witness interface {
	// Begin puts on disk that the operation starts now, together with mark:
	// whatever the adapter wants to see again in Resolve (nil for nothing). An
	// error means "do not start": too late, cancelled, or the disk is full.
	Begin(mark any) error
	// Record puts on disk what the terminal says only once, before the adapter
	// answers it, and returns it with its time. data is stored as JSON and
	// must be masked already: no card data reaches the disk. An error means
	// that it is not on disk; the engine has logged that and still knows it
	// until it stops, and the terminal is answered all the same.
	Record(kind string, data any) (Evidence, error)
	// Progress passes on a text for people, masked. It never blocks.
	Progress(text string)
}

// Evidence is one recorded message of the terminal: the kind is the adapter's
// word, At the time of recording by the cloud's clock.
type Evidence struct {
	At   time.Time
	Kind string
	Data json.RawMessage
}

// Past is what the journal holds of an operation in doubt.
type Past struct {
	StartedAt time.Time       // when Begin returned nil, by the cloud's clock
	Now       time.Time       // the cloud's clock as Resolve is called
	Mark      json.RawMessage // what Begin was given; nil for nothing
	Evidence  []Evidence      // in order of recording
	GiveUp    bool            // the time for asking is over
}

// Spool takes the files that a SendLogs brings together. Content is text or
// bytes, masked by the adapter.
type Spool interface {
	// Room is how many more bytes are wanted; reading may stop beyond it.
	Room() int64
	// Put stores one file. dropped is the number of bytes at its beginning
	// (the oldest) that were left out already for want of room.
	Put(name string, content []byte, dropped int64) error
}

// Effect says how much an outcome proves.
type Effect string

const (
	// Done: the terminal has proven that it did it.
	Done Effect = "done"
	// Triggered: the terminal has confirmed that it will.
	Triggered Effect = "triggered"
)

// Outcome is how an operation ended: completed if Failure is nil.
//
// Result is one of *EndOfDayResult, *CheckUpdateResult, *OpenMenuResult, or
// nil. A Failure that is not certain to have done nothing carries in Result
// what the terminal said before.
type Outcome struct {
	Effect  Effect
	Message string // for people; may be empty
	Result  any
	Failure *Failure
	Attend  bool // see Attendant
}

// Cause is the reason of a Failure, as far as an adapter can know it.
type Cause string

const (
	Unsupported   Cause = "unsupported"    // this terminal has no such function
	Busy          Cause = "busy"           // the terminal refused because it is busy
	Refused       Cause = "refused"        // the terminal refused, or ended with an error code
	Unknown       Cause = "unknown"        // nobody can say any more
	ProtocolError Cause = "protocol_error" // the terminal broke the protocol
)

// Executed says whether the terminal acted.
type Executed string

const (
	No      Executed = "no"
	Yes     Executed = "yes"
	Perhaps Executed = "unknown"
)

// Failure is an outcome that is not success. It is no error: the terminal
// answered, or it is certain that nobody can say.
type Failure struct {
	Cause    Cause
	Code     string // the terminal's own code, in the protocol's notation; may be empty
	Message  string
	Executed Executed
}

// Description is what is known of a terminal. Empty members are unknown.
type Description struct {
	Protocol        string // "zvt"
	Operations      []Operation
	Model           string
	SerialNumber    string
	SoftwareVersion string
}

// EndOfDayResult holds the totals of a closed batch. Amounts are in minor units
// of Currency. A nil member was not told by the terminal; nothing is derived
// that it did not say.
type EndOfDayResult struct {
	BatchID          string
	StartOfDayAt     time.Time
	LastEndOfDayAt   time.Time
	PurchasesCount   *int64
	PurchasesAmount  *int64
	ReversalsCount   *int64
	ReversalsAmount  *int64
	SaleAmount       *int64
	TipAmount        *int64
	Currency         string // ISO 4217, alphabetic if known, else numeric
	ByCardScheme     []SchemeTotal
	Receipt          []string  // text lines, masked
	TerminalTime     time.Time // the terminal's clock at the closing
	ReceiptTruncated bool      // lines were left out for size
}

// SchemeTotal is the share of one card scheme in the totals.
type SchemeTotal struct {
	Scheme string
	Count  int64
	Amount int64 // minor units
}

// Update says what a CheckUpdate found.
type Update string

const (
	UpdateNone      Update = "none"
	UpdateAvailable Update = "available"
	UpdateInstalled Update = "installed"
	UpdateStarted   Update = "started"
	UpdateUnknown   Update = "unknown"
)

// CheckUpdateResult tells the software version before and after.
type CheckUpdateResult struct {
	Update Update
	Before string // empty: not told
	After  string // empty: not told
}

// OpenMenuResult tells when the terminal confirmed its menu, by the cloud's clock.
type OpenMenuResult struct {
	OpenedAt time.Time
}
