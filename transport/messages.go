package transport

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// timeFormat is RFC 3339 with milliseconds; only UTC is written.
const timeFormat = "2006-01-02T15:04:05.000Z"

// Time is a time on the wire. The zero Time is "not said": with omitzero it is
// left out.
type Time struct{ time.Time }

// At makes a wire time of t, cut to milliseconds.
func At(t time.Time) Time { return Time{t.UTC().Truncate(time.Millisecond)} }

// MarshalJSON writes t in UTC with milliseconds.
func (t Time) MarshalJSON() ([]byte, error) {
	return []byte(`"` + t.UTC().Format(timeFormat) + `"`), nil
}

// UnmarshalJSON reads any RFC 3339 time.
func (t *Time) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("time: want an RFC 3339 string, have %.40s", b)
	}
	parsed, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return fmt.Errorf("time: want RFC 3339 such as 2026-06-29T09:00:00.000Z, have %.40q", s)
	}
	parsed = parsed.UTC()
	if y := parsed.Year(); (y < 1970 || y > 9998) && !parsed.IsZero() { // some could not be written again in RFC 3339
		return fmt.Errorf("time: %.40q is out of range", s)
	}
	t.Time = parsed
	return nil
}

// Command asks a terminal for an operation, or (Cancel) takes the wish back.
type Command struct {
	OperationID string     `json:"operation_id"`
	TerminalID  string     `json:"terminal_id"`
	Operation   string     `json:"operation,omitempty"` // empty in a Cancel
	Cancel      bool       `json:"cancel,omitempty"`
	Parameters  Parameters `json:"parameters,omitzero"`
	IssuedAt    Time       `json:"issued_at"`
	ExpiresAt   Time       `json:"expires_at"` // the start deadline
	Upload      *Upload    `json:"upload,omitempty"`
}

// Parameters of an operation.
type Parameters struct {
	OperatorID string `json:"operator_id,omitempty"`
}

// Upload says where the archive of a send_logs goes: an HTTPS PUT.
type Upload struct {
	URL      string            `json:"url"`
	Headers  map[string]string `json:"headers,omitempty"`
	MaxBytes int64             `json:"max_bytes,omitempty"`
	// Until is when the operation's hard limit ends the wish for it. An
	// optional member: without it the agent takes the usual hard limit.
	Until Time `json:"until,omitzero"`
}

// The states of a Report. COMPLETED and FAILED are final.
const (
	StateAccepted  = "ACCEPTED"
	StateRunning   = "RUNNING"
	StateCompleted = "COMPLETED"
	StateFailed    = "FAILED"
)

// OriginLocal marks an operation that began at the store.
const OriginLocal = "local"

// Report tells how far an operation is.
type Report struct {
	OperationID string          `json:"operation_id"`
	TerminalID  string          `json:"terminal_id"`
	Operation   string          `json:"operation,omitempty"` // unknown after a Cancel that came first
	State       string          `json:"state"`
	At          Time            `json:"at"`
	Sequence    int             `json:"sequence"` // for display only
	Origin      string          `json:"origin,omitempty"`
	CreatedBy   string          `json:"created_by,omitempty"` // with origin local: who
	Message     string          `json:"message,omitempty"`
	Effect      string          `json:"effect,omitempty"` // with COMPLETED: done, triggered
	Result      json.RawMessage `json:"result,omitempty"`
	Error       *Error          `json:"error,omitempty"` // with FAILED
}

// Final reports whether r is the outcome.
func (r Report) Final() bool { return r.State == StateCompleted || r.State == StateFailed }

// Error codes of a FAILED report.
const (
	CodeUnsupportedOperation = "unsupported_operation"
	CodeInvalidCommand       = "invalid_command"
	CodeUntrustedCommand     = "untrusted_command"
	CodeExpired              = "expired"
	CodeBusy                 = "busy"
	CodeCancelled            = "cancelled"
	CodeDeviceUnreachable    = "device_unreachable"
	CodeDeviceBusy           = "device_busy"
	CodeDeviceRefused        = "device_refused"
	CodeDeviceProtocolError  = "device_protocol_error"
	CodeOutcomeUnknown       = "outcome_unknown"
	CodeUploadFailed         = "upload_failed"
	CodeAgentError           = "agent_error"
)

// Executed: whether the terminal acted, as far as is known.
const (
	ExecutedNo      = "no"
	ExecutedYes     = "yes"
	ExecutedUnknown = "unknown"
)

// Error is why an operation FAILED.
type Error struct {
	Code       string `json:"code"`
	DeviceCode string `json:"device_code,omitempty"`
	Message    string `json:"message"`
	Executed   string `json:"executed"`
}

// EndOfDayResult is the result of an end_of_day. What the terminal did not tell
// is left out.
type EndOfDayResult struct {
	Outcome          string        `json:"outcome"` // "accepted"
	BatchID          string        `json:"batch_id,omitempty"`
	StartOfDayAt     Time          `json:"start_of_day_at,omitzero"`
	LastEndOfDayAt   Time          `json:"last_end_of_day_at,omitzero"`
	PurchasesCount   *int64        `json:"purchases_count,omitempty"`
	PurchasesAmount  *int64        `json:"purchases_amount,omitempty"`
	ReversalsCount   *int64        `json:"reversals_count,omitempty"`
	ReversalsAmount  *int64        `json:"reversals_amount,omitempty"`
	SaleAmount       *int64        `json:"sale_amount,omitempty"`
	TipAmount        *int64        `json:"tip_amount,omitempty"`
	Currency         string        `json:"currency,omitempty"`
	ByCardScheme     []SchemeTotal `json:"by_card_scheme,omitempty"`
	TerminalTime     Time          `json:"terminal_time,omitzero"`
	Receipt          []string      `json:"receipt,omitempty"`
	ReceiptTruncated bool          `json:"receipt_truncated,omitempty"`
}

// SchemeTotal is one card scheme's share of the totals.
type SchemeTotal struct {
	Scheme string `json:"scheme"`
	Count  int64  `json:"count"`
	Amount int64  `json:"amount"`
}

// SendLogsResult is the result of a send_logs.
type SendLogsResult struct {
	Files     []LogFile `json:"files"`
	UploadURL string    `json:"upload_url,omitempty"` // without its query
	Archive   string    `json:"archive,omitempty"`    // without an upload: its path at the store
}

// LogFile is one file of the archive.
type LogFile struct {
	Name    string `json:"name"`
	Size    int64  `json:"size"`
	SHA256  string `json:"sha256"`
	Dropped int64  `json:"dropped,omitempty"` // bytes left out at its beginning
}

// CheckUpdateResult is the result of a check_update.
type CheckUpdateResult struct {
	Update                string `json:"update"`
	SoftwareVersionBefore string `json:"software_version_before,omitempty"`
	SoftwareVersion       string `json:"software_version,omitempty"` // after
}

// OpenMenuResult is the result of an open_menu.
type OpenMenuResult struct {
	OpenedAt Time `json:"opened_at,omitzero"`
}

// Program names the software at one end.
type Program struct {
	Version string `json:"version,omitempty"`
	OS      string `json:"os,omitempty"`
	Arch    string `json:"arch,omitempty"`
}

// The states of a PresenceMessage.
const (
	Online  = "online"
	Offline = "offline"
)

// PresenceMessage says whether a terminal can be reached, and is the last will.
// An offline of an older connection than the newest online is old news.
type PresenceMessage struct {
	State      string   `json:"state"`
	At         Time     `json:"at,omitzero"`
	JournalID  string   `json:"journal_id"`
	Connection uint64   `json:"connection"`
	Agent      *Program `json:"agent,omitempty"`
	Device     *Device  `json:"device,omitempty"`
	Operations []string `json:"operations,omitempty"`
	Detail     string   `json:"detail,omitempty"` // why no commands are taken, if so
}

// The states of a Device.
const (
	DeviceReady       = "ready"
	DeviceBusy        = "busy"
	DeviceUnreachable = "unreachable"
)

// Device is a terminal as presence shows it.
type Device struct {
	Protocol        string `json:"protocol"`
	Link            string `json:"link"`
	State           string `json:"state,omitempty"` // empty: not asked yet
	Model           string `json:"model,omitempty"`
	SerialNumber    string `json:"serial_number,omitempty"`
	SoftwareVersion string `json:"software_version,omitempty"`
	Detail          string `json:"detail,omitempty"`
}

// HelloMessage asks for the time and for what is missing.
type HelloMessage struct {
	Nonce     string  `json:"nonce"`
	JournalID string  `json:"journal_id"`
	Agent     Program `json:"agent"`
}

// WelcomeMessage answers a HelloMessage.
type WelcomeMessage struct {
	Nonce      string    `json:"nonce"`
	ServerTime Time      `json:"server_time"`
	Pending    []Pending `json:"pending,omitempty"`
	Wanted     []string  `json:"wanted,omitempty"` // operations whose final report is wanted
}

// Pending is an operation that the dispatcher waits for. AcceptedAt is set if
// an agent has said that it journaled the command, Running (an optional member)
// if it has said that the terminal was asked to act.
type Pending struct {
	Command    Command `json:"command"`
	AcceptedAt Time    `json:"accepted_at,omitzero"`
	Running    bool    `json:"running,omitempty"`
}

// InvalidError is a message that cannot be taken. OperationID is set where it
// could be read all the same, so that a refusal can be reported.
type InvalidError struct {
	OperationID string
	Operation   string
	Reason      string
}

func (e *InvalidError) Error() string { return e.Reason }

// maxIDLength bounds an operation id; a UUID has 36 characters.
const maxIDLength = 128

// DecodeCommand reads a Command or Cancel meant for terminal id. The error is
// an *InvalidError.
func DecodeCommand(payload []byte, id string) (Command, error) {
	invalid := func(format string, args ...any) (Command, error) {
		e := &InvalidError{Reason: "command: " + fmt.Sprintf(format, args...)}
		e.OperationID, e.Operation = readable(payload)
		return Command{}, e
	}
	var c Command
	if err := decode(payload, &c); err != nil {
		return invalid("%v", err)
	}
	switch {
	case c.OperationID == "":
		return invalid("no operation_id")
	case len(c.OperationID) > maxIDLength:
		return invalid("operation_id longer than %d characters", maxIDLength)
	case c.TerminalID != id:
		return invalid("terminal_id is %.80q, this is %q", c.TerminalID, id)
	case c.Operation == "" && !c.Cancel:
		return invalid("no operation")
	case len(c.Operation) > maxIDLength:
		return invalid("operation longer than %d characters", maxIDLength)
	case c.ExpiresAt.IsZero():
		return invalid("no expires_at")
	case c.IssuedAt.IsZero():
		return invalid("no issued_at")
	}
	return c, nil
}

// readable finds the operation of a message that is malformed or cut off, as
// far as it can be read; empty if not.
func readable(payload []byte) (id, operation string) {
	d := json.NewDecoder(bytes.NewReader(payload))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return "", ""
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			break
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			break
		}
		var s string
		if json.Unmarshal(value, &s) != nil || len(s) > maxIDLength {
			continue
		}
		switch name {
		case "operation_id":
			id = s
		case "operation":
			operation = s
		}
	}
	return id, operation
}

// DecodeReport reads a Report that came on the topic of terminal id.
func DecodeReport(payload []byte, id string) (Report, error) {
	var r Report
	if err := decode(payload, &r); err != nil {
		return Report{}, fmt.Errorf("report: %w", err)
	}
	switch {
	case r.OperationID == "" || len(r.OperationID) > maxIDLength:
		return Report{}, errors.New("report: no usable operation_id")
	case r.TerminalID != id:
		return Report{}, fmt.Errorf("report: terminal_id is %.80q, the topic's is %q", r.TerminalID, id)
	case r.State == StateFailed && r.Error == nil:
		return Report{}, errors.New("report: FAILED without error")
	}
	switch r.State {
	case StateAccepted, StateRunning, StateCompleted, StateFailed:
		return r, nil
	default:
		return Report{}, fmt.Errorf("report: unknown state %.40q", r.State)
	}
}

// DecodePresence reads a PresenceMessage.
func DecodePresence(payload []byte) (PresenceMessage, error) {
	var p PresenceMessage
	if err := decode(payload, &p); err != nil {
		return p, fmt.Errorf("presence: %w", err)
	}
	if p.State != Online && p.State != Offline {
		return p, fmt.Errorf("presence: unknown state %.40q", p.State)
	}
	return p, nil
}

// DecodeHello reads a HelloMessage.
func DecodeHello(payload []byte) (HelloMessage, error) {
	var h HelloMessage
	if err := decode(payload, &h); err != nil {
		return h, fmt.Errorf("hello: %w", err)
	}
	if h.Nonce == "" {
		return h, errors.New("hello: no nonce")
	}
	return h, nil
}

// DecodeWelcome reads a WelcomeMessage. Its pending commands are not checked
// here: each is as good as one that arrives by itself.
func DecodeWelcome(payload []byte) (WelcomeMessage, error) {
	var w WelcomeMessage
	if err := decode(payload, &w); err != nil {
		return w, fmt.Errorf("welcome: %w", err)
	}
	if w.ServerTime.IsZero() {
		return w, errors.New("welcome: no server_time")
	}
	return w, nil
}

// Encode writes a message. It cannot fail on the types of this package, whose
// raw members come from Encode too.
func Encode(message any) []byte {
	b, err := json.Marshal(message)
	if err != nil {
		panic("transport: " + err.Error())
	}
	return b
}

// decode reads exactly one JSON object.
func decode(payload []byte, into any) error {
	switch {
	case len(payload) > MaxPayload:
		return fmt.Errorf("larger than %d bytes", MaxPayload)
	case !utf8.Valid(payload):
		return errors.New("not UTF-8")
	case !bytes.HasPrefix(bytes.TrimLeft(payload, " \t\r\n"), []byte("{")):
		return fmt.Errorf("want a JSON object, have %.40q", payload)
	}
	if err := json.Unmarshal(payload, into); err != nil {
		return fmt.Errorf("malformed JSON: %w", err)
	}
	return nil
}
