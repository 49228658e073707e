package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The statuses of an operation. PENDING is left once; the others are for ever.
const (
	Pending   = "PENDING"
	Completed = "COMPLETED"
	Failed    = "FAILED"
	Timeout   = "TIMEOUT"
)

// Who updates an operation when it is no person.
const (
	ByTerminal = "terminal"
	BySystem   = "system"
)

// OriginLocal marks an operation that began at the store.
const OriginLocal = "local"

// Errors of Create and of whatever looks for one row. None has changed anything.
var (
	// ErrUnknownTerminal: no such terminal in this account.
	ErrUnknownTerminal = errors.New("unknown terminal")
	// ErrNotFound: no such operation (archive, upload) in this account.
	ErrNotFound = errors.New("not found")
	// ErrKeyReused: the idempotency key belongs to another request.
	ErrKeyReused = errors.New("idempotency key belongs to another request")
	// ErrNotListening: the caller does not hear terminals now (New.Listening).
	ErrNotListening = errors.New("not listening to terminals")
)

// BusyError says that the terminal has a PENDING operation. It becomes TIMEOUT
// after Remaining (never negative) if nothing more is heard.
type BusyError struct {
	OperationID string
	Remaining   time.Duration
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("operation %s is PENDING, for %v at most", e.OperationID, e.Remaining)
}

// Operation is one operation. Members that are not known yet are empty.
type Operation struct {
	ID         string
	AccountID  string
	TerminalID string
	Operation  string
	Parameters json.RawMessage
	Status     string
	Origin     string
	CreatedAt  time.Time
	CreatedBy  string
	UpdatedAt  time.Time
	UpdatedBy  string

	ExpiresAt time.Time // it may not start later
	Deadline  time.Time // it becomes TIMEOUT then, if nothing more is heard
	HardLimit time.Time // it becomes TIMEOUT then at the latest

	AcceptedAt time.Time // the terminal was first heard of it
	RunningAt  time.Time
	Progress   string
	ProgressAt time.Time

	Effect       string
	Result       json.RawMessage
	Error        json.RawMessage
	LateResult   json.RawMessage
	LateResultAt time.Time
}

const operationColumns = `id, account_id, terminal_id, operation, parameters, status, origin,
	created_at, created_by, updated_at, updated_by, expires_at, deadline, hard_limit,
	accepted_at, running_at, progress, progress_at, effect, result, error, late_result, late_result_at`

func scanOperation(row interface{ Scan(...any) error }) (Operation, error) {
	var o Operation
	var parameters, result, failure, late string
	var created, updated, expires, deadline, hard, accepted, running, progress, lateAt int64
	err := row.Scan(&o.ID, &o.AccountID, &o.TerminalID, &o.Operation, &parameters, &o.Status, &o.Origin,
		&created, &o.CreatedBy, &updated, &o.UpdatedBy, &expires, &deadline, &hard,
		&accepted, &running, &o.Progress, &progress, &o.Effect, &result, &failure, &late, &lateAt)
	if err != nil {
		return Operation{}, err
	}
	o.Parameters, o.Result, o.Error, o.LateResult = raw(parameters), raw(result), raw(failure), raw(late)
	o.CreatedAt, o.UpdatedAt, o.ExpiresAt = fromMillis(created), fromMillis(updated), fromMillis(expires)
	o.Deadline, o.HardLimit = fromMillis(deadline), fromMillis(hard)
	o.AcceptedAt, o.RunningAt = fromMillis(accepted), fromMillis(running)
	o.ProgressAt, o.LateResultAt = fromMillis(progress), fromMillis(lateAt)
	return o, nil
}

func raw(text string) json.RawMessage {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}

// operations reads all rows that match; rest is everything after FROM operations.
func operations(ctx context.Context, q querier, rest string, args ...any) ([]Operation, error) {
	rows, err := q.QueryContext(ctx, `SELECT `+operationColumns+` FROM operations `+rest, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Operation
	for rows.Next() {
		o, err := scanOperation(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return all, rows.Err()
}

// operation reads one row, or returns ErrNotFound.
func operation(ctx context.Context, q querier, rest string, args ...any) (Operation, error) {
	o, err := scanOperation(q.QueryRowContext(ctx, `SELECT `+operationColumns+` FROM operations `+rest, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return Operation{}, ErrNotFound
	}
	return o, err
}

// New is an operation to create.
type New struct {
	ID          string
	AccountID   string
	TerminalID  string
	Operation   string
	Parameters  json.RawMessage
	CreatedBy   string
	Key         string // idempotency key; empty for none
	Fingerprint string // of the request, to compare with another one under Key
	UploadHash  string // of the token for the archive; empty for none

	Start time.Duration // from now to ExpiresAt
	Grace time.Duration // from ExpiresAt to the first deadline
	Hard  time.Duration // from now to HardLimit

	// Listening says whether the caller hears terminals now. If not, nothing is
	// created, and silence ends nothing. It is called in the transaction, which may
	// have waited.
	Listening func() bool
	// Answer makes the answer that is kept for a repetition of the request.
	Answer func(Operation) []byte
}

// Created is what became of a New: a new operation, or the answer that was
// given to the same request before.
type Created struct {
	Operation Operation // empty if Replayed
	Answer    []byte
	Replayed  bool
	Expired   []Operation // the terminal's, whose time was found to be up
}

// Create stores a PENDING operation together with its idempotency key. The
// errors are ErrKeyReused, ErrUnknownTerminal, ErrNotListening and *BusyError,
// looked for in this order.
func (s *Store) Create(ctx context.Context, n New) (Created, error) {
	var c Created
	err := s.update(ctx, func(tx *transaction) (err error) {
		c, err = tx.create(ctx, n)
		return err
	})
	switch {
	case err == nil:
		return c, nil
	case isRefusal(err):
		return Created{}, err
	default:
		return Created{}, fmt.Errorf("create operation: %w", err)
	}
}

func isRefusal(err error) bool {
	var busy *BusyError
	return errors.Is(err, ErrKeyReused) || errors.Is(err, ErrUnknownTerminal) || errors.Is(err, ErrNotListening) || errors.As(err, &busy)
}

// create is long because its order is its meaning: the key is looked up before
// the terminal's state, so that a repetition gets its first answer whatever has
// become of the operation, and the insert itself, not a check before it,
// decides who was first.
func (t *transaction) create(ctx context.Context, n New) (Created, error) {
	c, found, err := t.replay(ctx, n)
	if found || err != nil {
		return c, err
	}
	if err := t.knowsTerminal(ctx, n.AccountID, n.TerminalID); err != nil {
		return Created{}, err
	}
	if !n.Listening() {
		return Created{}, ErrNotListening
	}
	expired, err := t.expire(ctx, true, `terminal_id = ?`, n.TerminalID)
	if err != nil {
		return Created{}, err
	}
	o := n.operation(fromMillis(t.now))
	c = Created{Operation: o, Answer: n.Answer(o), Expired: expired}
	inserted, err := t.insert(ctx, o, n.Key, n.Fingerprint, c.Answer)
	switch {
	case err != nil:
		return Created{}, err
	case !inserted:
		return t.lost(ctx, n)
	case n.UploadHash != "":
		_, err = t.exec(ctx, `INSERT INTO uploads (operation_id, token_hash) VALUES (?, ?)`, n.ID, n.UploadHash)
	}
	return c, err
}

// lost finds out who was first where the insert was not.
func (t *transaction) lost(ctx context.Context, n New) (Created, error) {
	c, found, err := t.replay(ctx, n)
	if found || err != nil {
		return c, err
	}
	first, err := operation(ctx, t, `WHERE terminal_id = ? AND status = 'PENDING'`, n.TerminalID)
	if err != nil {
		return Created{}, fmt.Errorf("find the operation that was first: %w", err)
	}
	remaining := max(0, first.Deadline.Sub(fromMillis(t.now)))
	return Created{}, &BusyError{OperationID: first.ID, Remaining: remaining}
}

// replaySQL names the empty key so that the index serves it.
const replaySQL = `SELECT fingerprint, answer FROM operations WHERE account_id = ? AND idempotency_key = ? AND idempotency_key <> ''`

// replay looks for the answer that was given under the key before.
func (t *transaction) replay(ctx context.Context, n New) (c Created, found bool, err error) {
	if n.Key == "" {
		return Created{}, false, nil
	}
	var fingerprint, answer string
	err = t.QueryRowContext(ctx, replaySQL, n.AccountID, n.Key).Scan(&fingerprint, &answer)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Created{}, false, nil
	case err != nil:
		return Created{}, false, err
	case fingerprint != n.Fingerprint:
		return Created{}, false, ErrKeyReused
	}
	return Created{Answer: []byte(answer), Replayed: true}, true, nil
}

func (n New) operation(now time.Time) Operation {
	o := Operation{
		ID: n.ID, AccountID: n.AccountID, TerminalID: n.TerminalID, Operation: n.Operation, Parameters: n.Parameters,
		Status: Pending, CreatedAt: now, CreatedBy: n.CreatedBy, UpdatedAt: now, UpdatedBy: n.CreatedBy,
	}
	o.HardLimit = now.Add(n.Hard)
	// What timed out must not be able to start any more: the start deadline
	// keeps its distance from the hard limit.
	o.ExpiresAt = now.Add(min(n.Start, n.Hard-n.Grace))
	o.Deadline = o.ExpiresAt.Add(n.Grace)
	return o
}

// insert stores a new row, or returns false where a unique index has one already.
func (t *transaction) insert(ctx context.Context, o Operation, key, fingerprint string, answer []byte) (bool, error) {
	var ended int64
	if o.Status != Pending {
		ended = toMillis(o.UpdatedAt)
	}
	n, err := t.exec(ctx, `INSERT INTO operations (`+operationColumns+`, ended_at, idempotency_key, fingerprint, answer)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO NOTHING`,
		o.ID, o.AccountID, o.TerminalID, o.Operation, string(o.Parameters), o.Status, o.Origin,
		toMillis(o.CreatedAt), o.CreatedBy, toMillis(o.UpdatedAt), o.UpdatedBy,
		toMillis(o.ExpiresAt), toMillis(o.Deadline), toMillis(o.HardLimit),
		toMillis(o.AcceptedAt), toMillis(o.RunningAt), o.Progress, toMillis(o.ProgressAt),
		o.Effect, string(o.Result), string(o.Error), string(o.LateResult), toMillis(o.LateResultAt),
		ended, key, fingerprint, string(answer))
	return n == 1, err
}

// ending is how an operation leaves PENDING.
type ending struct {
	status, by    string
	effect        string
	result, error json.RawMessage
}

// end is the one function that changes a status, and it changes it only from
// PENDING: the first ending wins, false says that this one was not it.
func (t *transaction) end(ctx context.Context, id string, e ending) (bool, error) {
	switch e.status {
	case Completed, Failed, Timeout:
	default:
		return false, fmt.Errorf("end operation %s: %q is not the status of an end", id, e.status)
	}
	n, err := t.exec(ctx, `UPDATE operations
		SET status = ?, updated_by = ?, effect = ?, result = ?, error = ?, updated_at = ?, ended_at = ?
		WHERE id = ? AND status = 'PENDING'`,
		e.status, e.by, e.effect, string(e.result), string(e.error), t.now, t.now, id)
	return n == 1, err
}

// Listen gives every PENDING operation a fresh silence window: until now nobody
// could be heard. Call it when terminals can be heard (again).
func (s *Store) Listen(ctx context.Context, silence time.Duration) error {
	err := s.update(ctx, func(tx *transaction) error {
		fresh := tx.now + silence.Milliseconds()
		_, err := tx.exec(ctx, `UPDATE operations
			SET deadline = CASE WHEN hard_limit < ? THEN hard_limit ELSE ? END
			WHERE status = 'PENDING' AND deadline < ?`, fresh, fresh, fresh)
		return err
	})
	if err != nil {
		return fmt.Errorf("give PENDING operations a fresh silence window: %w", err)
	}
	return nil
}

// Expire makes every PENDING operation TIMEOUT whose deadline has come, and
// returns them. While nobody listens, silence ends nothing: only the hard limit
// counts then.
func (s *Store) Expire(ctx context.Context, listening bool) ([]Operation, error) {
	// Most of the time there is nothing to do, and no need for the writer.
	now, err := s.now(ctx, s.read)
	if err != nil {
		return nil, fmt.Errorf("expire operations: %w", err)
	}
	due, err := operations(ctx, s.read, `WHERE status = 'PENDING' AND deadline <= ? LIMIT 1`, now)
	if err != nil || len(due) == 0 {
		return nil, err
	}
	var expired []Operation
	err = s.update(ctx, func(tx *transaction) (err error) {
		expired, err = tx.expire(ctx, listening, `1 = 1`)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("expire operations: %w", err)
	}
	return expired, nil
}

// expire is Expire for the operations that also match where.
func (t *transaction) expire(ctx context.Context, listening bool, where string, args ...any) ([]Operation, error) {
	limit := "deadline"
	if !listening {
		limit = "hard_limit"
	}
	due, err := operations(ctx, t, `WHERE status = 'PENDING' AND `+limit+` <= ? AND `+where, append([]any{t.now}, args...)...)
	if err != nil {
		return nil, err
	}
	for i, o := range due {
		failure := timeoutError(o)
		ended, err := t.end(ctx, o.ID, ending{status: Timeout, by: BySystem, error: failure})
		if err != nil || !ended {
			return nil, errors.Join(err, fmt.Errorf("operation %s was PENDING in this transaction", o.ID))
		}
		due[i].Status, due[i].UpdatedBy, due[i].UpdatedAt, due[i].Error = Timeout, BySystem, fromMillis(t.now), failure
	}
	return due, nil
}

// timeoutError tells a terminal that never was heard of the operation from one
// that fell silent. Either may have acted: reports get lost.
func timeoutError(o Operation) json.RawMessage {
	if o.AcceptedAt.IsZero() {
		return json.RawMessage(`{"code":"terminal_unreachable","message":"the terminal never acknowledged the command","executed":"unknown"}`)
	}
	return json.RawMessage(`{"code":"terminal_no_response","message":"the terminal took the command and did not answer in time","executed":"unknown"}`)
}

// Verdict says what became of a report.
type Verdict string

const (
	Stored        Verdict = "stored"        // it is what the operation says now
	Late          Verdict = "late"          // kept beside TIMEOUT
	Repeated      Verdict = "repeated"      // said before
	Over          Verdict = "over"          // progress of an operation that has ended
	Contradicting Verdict = "contradicting" // another outcome than the first, which counts
	Unknown       Verdict = "unknown"       // no such operation
	Foreign       Verdict = "foreign"       // not this terminal's operation
)

// Progress is a report that is not final.
type Progress struct {
	Running  bool // the terminal works; otherwise it only has the command
	Sequence int
	Message  string // may be empty: the last one stays
}

// Heard stores progress and moves the deadline: the silence begins anew.
func (s *Store) Heard(ctx context.Context, terminalID, id string, p Progress, silence time.Duration) (Verdict, error) {
	var v Verdict
	err := s.update(ctx, func(tx *transaction) error {
		o, err := operation(ctx, tx, `WHERE id = ?`, id)
		switch {
		case errors.Is(err, ErrNotFound):
			v = Unknown
			return nil
		case err != nil:
			return err
		case o.TerminalID != terminalID || o.Origin == OriginLocal:
			v = Foreign
			return nil
		case o.Status != Pending:
			v = Over
			return nil
		}
		v = Stored
		return tx.heard(ctx, o, p, silence)
	})
	if err != nil {
		return "", fmt.Errorf("store progress of operation %s: %w", id, err)
	}
	return v, nil
}

func (t *transaction) heard(ctx context.Context, o Operation, p Progress, silence time.Duration) error {
	accepted, running := toMillis(o.AcceptedAt), toMillis(o.RunningAt)
	if accepted == 0 {
		accepted = t.now // what runs was accepted, even if that report got lost
	}
	if p.Running && running == 0 {
		running = t.now
	}
	// The deadline never moves back: it begins at ExpiresAt and the grace, before
	// which nothing may time out.
	deadline := min(toMillis(o.HardLimit), max(toMillis(o.Deadline), t.now+silence.Milliseconds()))
	if _, err := t.exec(ctx, `UPDATE operations
		SET accepted_at = ?, running_at = ?, deadline = ?, updated_at = ?, updated_by = ?
		WHERE id = ? AND status = 'PENDING'`,
		accepted, running, deadline, t.now, ByTerminal, o.ID); err != nil {
		return err
	}
	return t.message(ctx, o.ID, p.Sequence, p.Message)
}

// message keeps the newest text for people.
func (t *transaction) message(ctx context.Context, id string, sequence int, text string) error {
	if text == "" {
		return nil
	}
	_, err := t.exec(ctx, `UPDATE operations SET progress = ?, progress_at = ?, sequence = ? WHERE id = ? AND sequence <= ?`,
		text, t.now, sequence, id, sequence)
	return err
}

// Outcome is a final report.
type Outcome struct {
	Status   string // Completed or Failed
	Sequence int
	Message  string
	Effect   string
	Result   json.RawMessage
	Error    json.RawMessage
	Late     json.RawMessage // the same, as it is kept after a TIMEOUT
}

// Finish stores a final report: as the end of the operation if that is PENDING,
// beside it after a TIMEOUT. The first one counts.
func (s *Store) Finish(ctx context.Context, terminalID, id string, out Outcome) (Verdict, error) {
	var v Verdict
	err := s.update(ctx, func(tx *transaction) (err error) {
		v, err = tx.finish(ctx, terminalID, id, out)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("store the outcome of operation %s: %w", id, err)
	}
	return v, nil
}

func (t *transaction) finish(ctx context.Context, terminalID, id string, out Outcome) (Verdict, error) {
	o, err := operation(ctx, t, `WHERE id = ?`, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return Unknown, nil
	case err != nil:
		return "", err
	case o.TerminalID != terminalID || o.Origin == OriginLocal:
		return Foreign, nil
	}
	ended, err := t.end(ctx, id, ending{status: out.Status, by: ByTerminal, effect: out.Effect, result: out.Result, error: out.Error})
	switch {
	case err != nil:
		return "", err
	case ended:
		return Stored, t.message(ctx, id, out.Sequence, out.Message)
	case o.Status == Timeout && o.LateResultAt.IsZero():
		_, err := t.exec(ctx, `UPDATE operations SET late_result = ?, late_result_at = ?, updated_at = ?, updated_by = ? WHERE id = ?`,
			string(out.Late), t.now, t.now, ByTerminal, id)
		return Late, err
	case o.repeats(out):
		return Repeated, nil
	default:
		return Contradicting, nil
	}
}

func (o Operation) repeats(out Outcome) bool {
	if o.Status == Timeout {
		return string(o.LateResult) == string(out.Late)
	}
	return o.Status == out.Status && o.Effect == out.Effect && string(o.Result) == string(out.Result) && string(o.Error) == string(out.Error)
}

// AddLocal stores an operation that began and ended at the store. Its account
// is the terminal's; ErrUnknownTerminal if there is no such terminal.
func (s *Store) AddLocal(ctx context.Context, terminalID, id, op, user string, out Outcome) (Verdict, error) {
	var v Verdict
	err := s.update(ctx, func(tx *transaction) (err error) {
		v, err = tx.addLocal(ctx, terminalID, id, op, user, out)
		return err
	})
	switch {
	case errors.Is(err, ErrUnknownTerminal):
		return "", err
	case err != nil:
		return "", fmt.Errorf("store local operation %s: %w", id, err)
	}
	return v, nil
}

func (t *transaction) addLocal(ctx context.Context, terminalID, id, op, user string, out Outcome) (Verdict, error) {
	var account string
	err := t.QueryRowContext(ctx, `SELECT account_id FROM terminals WHERE id = ?`, terminalID).Scan(&account)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", ErrUnknownTerminal
	case err != nil:
		return "", err
	case out.Status != Completed && out.Status != Failed:
		return "", fmt.Errorf("%q is not the status of an end", out.Status)
	}
	now := fromMillis(t.now)
	o := Operation{
		ID: id, AccountID: account, TerminalID: terminalID, Operation: op, Parameters: json.RawMessage(`{}`),
		Status: out.Status, Origin: OriginLocal,
		CreatedAt: now, CreatedBy: user, UpdatedAt: now, UpdatedBy: ByTerminal,
		Effect: out.Effect, Result: out.Result, Error: out.Error,
	}
	if out.Message != "" {
		o.Progress, o.ProgressAt = out.Message, now
	}
	inserted, err := t.insert(ctx, o, "", "", nil)
	if err != nil || inserted {
		return Stored, err
	}
	first, err := operation(ctx, t, `WHERE id = ?`, id)
	switch {
	case err != nil:
		return "", err
	case first.TerminalID != terminalID || first.Origin != OriginLocal:
		return Foreign, nil
	case first.repeats(out):
		return Repeated, nil
	default:
		return Contradicting, nil
	}
}

// Operation returns one operation of an account, or ErrNotFound.
func (s *Store) Operation(ctx context.Context, account, id string) (Operation, error) {
	o, err := operation(ctx, s.read, `WHERE account_id = ? AND id = ?`, account, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Operation{}, fmt.Errorf("read operation %s: %w", id, err)
	}
	return o, err
}

// Filter selects operations of one account. A nil member selects all.
type Filter struct {
	AccountID   string
	TerminalID  *string
	OperationID *string
	Limit       int
}

// List returns operations, the newest first.
func (s *Store) List(ctx context.Context, f Filter) ([]Operation, error) {
	where, args := []string{`account_id = ?`}, []any{f.AccountID}
	if f.TerminalID != nil {
		where, args = append(where, `terminal_id = ?`), append(args, *f.TerminalID)
	}
	if f.OperationID != nil {
		where, args = append(where, `id = ?`), append(args, *f.OperationID)
	}
	all, err := operations(ctx, s.read, `WHERE `+strings.Join(where, ` AND `)+` ORDER BY created_at DESC, id DESC LIMIT ?`, append(args, f.Limit)...)
	if err != nil {
		return nil, fmt.Errorf("list operations: %w", err)
	}
	return all, nil
}

// undelivered selects, at a time, what may still start and what no terminal has
// said to have.
const undelivered = `status = 'PENDING' AND accepted_at = 0 AND expires_at > ?`

// Undelivered returns the PENDING operations that may still start and that no
// terminal has said to have.
func (s *Store) Undelivered(ctx context.Context) ([]Operation, error) {
	now, err := s.now(ctx, s.read)
	if err != nil {
		return nil, fmt.Errorf("list undelivered operations: %w", err)
	}
	all, err := operations(ctx, s.read, `WHERE `+undelivered+` ORDER BY created_at, id`, now)
	if err != nil {
		return nil, fmt.Errorf("list undelivered operations: %w", err)
	}
	return all, nil
}

// IsUndelivered reports whether Undelivered would return this one.
func (s *Store) IsUndelivered(ctx context.Context, id string) (bool, error) {
	now, err := s.now(ctx, s.read)
	if err != nil {
		return false, fmt.Errorf("read operation %s: %w", id, err)
	}
	_, err = operation(ctx, s.read, `WHERE id = ? AND `+undelivered, id, now)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read operation %s: %w", id, err)
	}
	return true, nil
}

// PendingOf returns the PENDING operation of a terminal: none or one.
func (s *Store) PendingOf(ctx context.Context, terminalID string) ([]Operation, error) {
	all, err := operations(ctx, s.read, `WHERE terminal_id = ? AND status = 'PENDING'`, terminalID)
	if err != nil {
		return nil, fmt.Errorf("read the pending operation of %s: %w", terminalID, err)
	}
	return all, nil
}

const wantedSQL = `SELECT id FROM operations
	WHERE terminal_id = ? AND status = 'TIMEOUT' AND late_result_at = 0 AND ended_at >= ?
	ORDER BY ended_at DESC, id LIMIT ?`

// Wanted returns the ids of a terminal's operations that became TIMEOUT within
// the given time and still have no result, the newest first, at most limit.
func (s *Store) Wanted(ctx context.Context, terminalID string, within time.Duration, limit int) ([]string, error) {
	ids, err := s.wanted(ctx, terminalID, within, limit)
	if err != nil {
		return nil, fmt.Errorf("list the wanted results of %s: %w", terminalID, err)
	}
	return ids, nil
}

func (s *Store) wanted(ctx context.Context, terminalID string, within time.Duration, limit int) ([]string, error) {
	now, err := s.now(ctx, s.read)
	if err != nil {
		return nil, err
	}
	rows, err := s.read.QueryContext(ctx, wantedSQL, terminalID, now-within.Milliseconds(), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}
