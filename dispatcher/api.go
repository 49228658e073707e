package dispatcher

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"terminalops/dispatcher/store"
	"terminalops/transport"
)

const (
	defaultList = 100
	longestList = 100

	uploadsPath = "/v1/uploads/"

	// storeWait bounds what a request may wait for the store.
	storeWait = 15 * time.Second
	// connectWait is when to ask again while there is no broker connection.
	connectWait = 5 * time.Second
)

// collections are the two paths of the API.
var collections = []string{
	"/v1/admin/terminals/operations",
	"/v1/accounts/{account}/payments/admin/terminals/operations",
}

// Handler serves the API.
func (d *Dispatcher) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, path := range collections {
		mux.Handle("POST "+path, d.guarded(scopeWrite, d.create))
		mux.Handle("GET "+path, d.guarded(scopeRead, d.list))
		mux.Handle(path, notAllowed("GET, HEAD, POST"))
		mux.Handle("GET "+path+"/{id}", d.guarded(scopeRead, d.get))
		mux.Handle(path+"/{id}", notAllowed("GET, HEAD"))
		mux.Handle("GET "+path+"/{id}/logs", d.guarded(scopeRead, d.logs))
		mux.Handle(path+"/{id}/logs", notAllowed("GET, HEAD"))
		mux.Handle("POST "+path+"/{id}/cancel", d.guarded(scopeWrite, d.cancel))
		mux.Handle(path+"/{id}/cancel", notAllowed("POST"))
	}
	mux.Handle("PUT "+uploadsPath+"{token}", answering(d.upload))
	mux.Handle(uploadsPath+"{token}", notAllowed("PUT"))
	mux.Handle("/", answering(func(http.ResponseWriter, *http.Request) *problem {
		return newProblem(http.StatusNotFound, "not_found", "no such resource")
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

// answering writes the problem that f returns; f has answered if it is nil.
func answering(f func(http.ResponseWriter, *http.Request) *problem) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := f(w, r); p != nil {
			p.write(w)
		}
	})
}

func notAllowed(methods string) http.Handler {
	return answering(func(_ http.ResponseWriter, r *http.Request) *problem {
		return newProblem(http.StatusMethodNotAllowed, "method_not_allowed", "%.20s is not possible here", r.Method).with("Allow", methods)
	})
}

// by is in whose name a request is served.
type by struct{ account, name string }

// guarded lets those pass whose token has the scope.
func (d *Dispatcher) guarded(scope string, f func(http.ResponseWriter, *http.Request, by) *problem) http.Handler {
	return answering(func(w http.ResponseWriter, r *http.Request) *problem {
		who, account, p := d.verifier.authorize(r, scope)
		if p != nil {
			return p
		}
		return f(w, r, by{account, who.name})
	})
}

// create is POST: the request is stored, then published, then answered.
func (d *Dispatcher) create(w http.ResponseWriter, r *http.Request, who by) *problem {
	req, p := d.readRequest(w, r)
	if p != nil {
		return p
	}
	// Whether it is stored and published must not hang on a caller who hangs up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), storeWait)
	defer cancel()
	c := d.connection()
	created, err := d.store.Create(ctx, d.newOperation(req, who, c.listening))
	if err != nil {
		return d.refusal(req, err)
	}
	if created.Replayed {
		w.Header().Set("Idempotent-Replayed", "true")
		answer(w, http.StatusCreated, created.Answer)
		return nil
	}
	d.logExpired(created.Expired)
	o := created.Operation
	d.log.Info("operation created", "operation", o.ID, "terminal", o.TerminalID, "name", o.Operation, "by", o.CreatedBy)
	// From here on the answer is 201, whatever becomes of the command: it may
	// have left us.
	d.outbox.add(d.command(o))
	d.publish(c, o.ID)
	answer(w, http.StatusCreated, created.Answer)
	return nil
}

func (d *Dispatcher) newOperation(req request, who by, listening func() bool) store.New {
	n := store.New{
		ID: newID(), AccountID: who.account, TerminalID: req.terminalID, Operation: req.operation,
		Parameters: encode(req.parameters), CreatedBy: who.name, Key: req.key, Fingerprint: req.fingerprint(),
		Start: d.times.StartDeadline, Grace: d.times.Grace, Hard: req.timeout,
		Listening: listening,
		Answer:    func(o store.Operation) []byte { return encode(view(o)) },
	}
	if n.Hard == 0 {
		n.Hard = d.times.HardLimits[req.operation]
	}
	if req.operation == sendLogs {
		n.UploadHash = hash(d.uploads.token(n.ID))
	}
	return n
}

// refusal is why nothing was created, and no idempotency key used up.
func (d *Dispatcher) refusal(req request, err error) *problem {
	var busy *store.BusyError
	switch {
	case errors.Is(err, store.ErrKeyReused):
		return newProblem(http.StatusUnprocessableEntity, "idempotency_key_reused", "this Idempotency-Key was used for another request")
	case errors.Is(err, store.ErrUnknownTerminal):
		return newProblem(http.StatusNotFound, "terminal_not_found", "there is no terminal %.80q in this account", req.terminalID)
	case errors.Is(err, store.ErrNotListening):
		return noConnection()
	case errors.As(err, &busy):
		return newProblem(http.StatusConflict, "operation_pending",
			"terminal %s has operation %s PENDING; one at a time", req.terminalID, busy.OperationID).retryAfter(busy.Remaining)
	default:
		return d.internal(err)
	}
}

func noConnection() *problem {
	return newProblem(http.StatusServiceUnavailable, "no_connection", "terminals cannot be reached now; nothing was done").retryAfter(connectWait)
}

// internal tells the log why, and the caller only that.
func (d *Dispatcher) internal(err error) *problem {
	d.log.Error("request failed", "error", err)
	return newProblem(http.StatusInternalServerError, "internal_error", "the request could not be served")
}

// newID makes a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// laterParameters will filter and page lists. To ignore them until then would
// give a client the first page for ever.
var laterParameters = []string{"starting_after", "status", "operation", "created_after", "created_before"}

func (d *Dispatcher) list(w http.ResponseWriter, r *http.Request, who by) *problem {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil { // what cannot be read would filter nothing
		return invalid("query", "%v", err)
	}
	for _, name := range laterParameters {
		if query.Has(name) {
			return invalid(name, "is not supported by this version; want terminal_id, operation_id or limit")
		}
	}
	f := store.Filter{AccountID: who.account, Limit: defaultList}
	f.TerminalID, f.OperationID = given(query, "terminal_id"), given(query, "operation_id")
	if text := given(query, "limit"); text != nil {
		limit, err := strconv.Atoi(*text)
		if err != nil || limit < 1 || limit > longestList {
			return invalid("limit", "is %.40q, want 1 to %d", *text, longestList)
		}
		f.Limit = limit
	}
	found, err := d.store.List(r.Context(), f)
	if err != nil {
		return d.internal(err)
	}
	views := make([]operationView, 0, len(found)) // an empty list is [], not null
	for _, o := range found {
		views = append(views, view(o))
	}
	answer(w, http.StatusOK, encode(views))
	return nil
}

// given returns nil where a query has no such parameter: an empty one filters too.
func given(query url.Values, name string) *string {
	if !query.Has(name) {
		return nil
	}
	value := query.Get(name)
	return &value
}

// find reads the operation of the path.
func (d *Dispatcher) find(r *http.Request, who by) (store.Operation, *problem) {
	id := r.PathValue("id")
	o, err := d.store.Operation(r.Context(), who.account, id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return o, newProblem(http.StatusNotFound, "operation_not_found", "there is no operation %.80q in this account", id)
	case err != nil:
		return o, d.internal(err)
	}
	return o, nil
}

func (d *Dispatcher) get(w http.ResponseWriter, r *http.Request, who by) *problem {
	o, p := d.find(r, who)
	if p == nil {
		answer(w, http.StatusOK, encode(view(o)))
	}
	return p
}

// cancel passes the wish on; the terminal's report decides. To ask again does no harm.
func (d *Dispatcher) cancel(w http.ResponseWriter, r *http.Request, who by) *problem {
	o, p := d.find(r, who)
	switch {
	case p != nil:
		return p
	case o.Status != store.Pending:
		return newProblem(http.StatusConflict, "not_pending", "operation %s is %s", o.ID, o.Status)
	case !o.RunningAt.IsZero():
		return newProblem(http.StatusConflict, "already_running", "operation %s runs already", o.ID)
	}
	c := d.connection()
	if c == nil {
		return noConnection()
	}
	now, err := d.store.Now(r.Context())
	if err != nil {
		return d.internal(err)
	}
	err = d.send(c, o.TerminalID, transport.Commands, transport.Encode(transport.Command{
		OperationID: o.ID, TerminalID: o.TerminalID, Cancel: true,
		IssuedAt: transport.At(now), ExpiresAt: transport.At(o.ExpiresAt),
	}))
	if err != nil {
		d.log.Warn("cancel is not acknowledged by the broker", "operation", o.ID, "terminal", o.TerminalID, "error", err)
		return newProblem(http.StatusServiceUnavailable, "no_acknowledgement",
			"it is not certain that the terminal will be asked to cancel; ask again").retryAfter(connectWait)
	}
	d.log.Info("cancel sent", "operation", o.ID, "terminal", o.TerminalID, "by", who.name)
	answer(w, http.StatusAccepted, encode(view(o)))
	return nil
}

func answer(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body) // the client may be gone; there is nobody else to tell
}

// operationView is an operation as the API shows it.
type operationView struct {
	ID         string          `json:"id"`
	AccountID  string          `json:"account_id"`
	TerminalID string          `json:"terminal_id"`
	Operation  string          `json:"operation"`
	Parameters json.RawMessage `json:"parameters"`
	Status     string          `json:"status"`
	Result     json.RawMessage `json:"result,omitempty"`
	CreatedAt  transport.Time  `json:"created_at"`
	CreatedBy  string          `json:"created_by"`
	UpdatedAt  transport.Time  `json:"updated_at"`
	UpdatedBy  string          `json:"updated_by"`

	// Beyond the original.
	Origin       string          `json:"origin,omitempty"`
	Effect       string          `json:"effect,omitempty"`
	Error        json.RawMessage `json:"error,omitempty"`
	ExpiresAt    transport.Time  `json:"expires_at,omitzero"`
	AcceptedAt   transport.Time  `json:"accepted_at,omitzero"`
	Progress     *progressView   `json:"progress,omitempty"`
	LateResult   json.RawMessage `json:"late_result,omitempty"`
	LateResultAt transport.Time  `json:"late_result_at,omitzero"`
}

type progressView struct {
	Message string         `json:"message"`
	At      transport.Time `json:"at"`
}

func view(o store.Operation) operationView {
	v := operationView{
		ID: o.ID, AccountID: o.AccountID, TerminalID: o.TerminalID, Operation: o.Operation, Parameters: o.Parameters,
		Status: o.Status, Result: o.Result,
		CreatedAt: transport.At(o.CreatedAt), CreatedBy: o.CreatedBy, UpdatedAt: transport.At(o.UpdatedAt), UpdatedBy: o.UpdatedBy,
		Origin: o.Origin, Effect: o.Effect, Error: o.Error,
		ExpiresAt: transport.At(o.ExpiresAt), AcceptedAt: transport.At(o.AcceptedAt),
		LateResult: o.LateResult, LateResultAt: transport.At(o.LateResultAt),
	}
	if o.Progress != "" {
		v.Progress = &progressView{o.Progress, transport.At(o.ProgressAt)}
	}
	return v
}
