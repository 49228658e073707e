package dispatcher_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/dispatcher"
	"terminalops/dispatcher/store"
	"terminalops/transport"
	"terminalops/transport/transporttest"
)

const (
	account  = "P11223351"
	terminal = "P11223351-T0013"
	other    = "P11223351-T0014" // another terminal of the same account
	foreign  = "P99999999-T0001" // a terminal of another account
	base     = "/v1/admin/terminals/operations"
	endOfDay = `{"terminal_id":"P11223351-T0013","operation":"end_of_day"}`
	getLogs  = `{"terminal_id":"P11223351-T0013","operation":"send_logs"}`
	minute   = time.Minute
)

var tokens = dispatcher.TokenOptions{
	Secret:   []byte("0123456789abcdef0123456789abcdef"),
	Issuers:  []string{"https://login.example.com", "https://old.example.com"},
	Audience: "https://api.example.com/v1",
}

// bed is a dispatcher on a real database file, with a broker in memory and a
// terminal's end on its other side, in virtual time.
type bed struct {
	t      *testing.T
	dir    string
	times  dispatcher.Times
	broker *transporttest.Broker
	agent  *transporttest.Recorder // the end of terminal
	store  *store.Store
	api    http.Handler
	token  string
	log    *lockedBuffer
	stop   func()
}

// with runs f in a bubble with a running dispatcher; prepare may be nil.
func with(t *testing.T, prepare func(*bed), f func(*bed)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := &bed{
			t: t, dir: dir, times: dispatcher.DefaultTimes(),
			broker: transporttest.NewBroker(), agent: transporttest.NewRecorder(), log: new(lockedBuffer),
		}
		b.token = b.sign(dispatcher.Development{Account: account, Scopes: []string{"admin:checkout"}, Subject: "demo", Email: "anna@example.com"})
		if prepare != nil {
			prepare(b)
		}
		b.start()
		if err := b.store.AddTerminals(t.Context(), account, terminal, other); err != nil {
			t.Fatal(err)
		}
		if err := b.store.AddTerminals(t.Context(), "P99999999", foreign); err != nil {
			t.Fatal(err)
		}
		transporttest.Start(t, b.broker.Agent(terminal), b.agent)
		synctest.Wait()
		defer func() { b.stop() }()
		f(b)
	})
}

func (b *bed) start() {
	b.t.Helper()
	var err error
	if b.store, err = store.Open(context.Background(), store.Options{Path: filepath.Join(b.dir, "dispatcher.db"), Clock: time.Now}); err != nil {
		b.t.Fatal(err)
	}
	d := b.build(b.store)
	b.api = d.Handler()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("Run: %v", err)
		}
		if err := b.store.Close(); err != nil {
			b.t.Error(err)
		}
	}
	synctest.Wait()
}

func (b *bed) build(s *store.Store) *dispatcher.Dispatcher {
	b.t.Helper()
	verifier, err := dispatcher.NewVerifier(tokens)
	if err != nil {
		b.t.Fatal(err)
	}
	d, err := dispatcher.New(dispatcher.Options{
		Store: s, End: b.broker.Cloud(), Verifier: verifier, PublicURL: "https://dispatcher.example.com", Times: b.times,
		Uploads: dispatcher.Uploads{Dir: filepath.Join(b.dir, "uploads"), Key: tokens.Secret, MaxBytes: 1000, Keep: 30 * 24 * time.Hour},
		Log:     slog.New(slog.NewTextHandler(b.log, nil)),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

func (b *bed) restart() {
	b.t.Helper()
	b.stop()
	b.start()
}

func (b *bed) sign(d dispatcher.Development) string {
	b.t.Helper()
	if d.For == 0 {
		d.For = 100 * 24 * time.Hour
	}
	token, err := tokens.Sign(d)
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}

// answer is what came back of a request.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

// do makes a request with the usual token. headers are pairs; an empty value
// removes the header.
func (b *bed) do(method, path, body string, headers ...string) answer {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+b.token)
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Del(headers[i])
		if headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	w := httptest.NewRecorder()
	b.api.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.String()}
}

func (b *bed) post(body string, headers ...string) answer {
	return b.do("POST", base, body, headers...)
}

// operation is an operation as a client sees it.
type operation struct {
	ID, AccountID, TerminalID, Operation, Status, Origin, Effect string
	CreatedBy, UpdatedBy                                         string
	CreatedAt, UpdatedAt, ExpiresAt, AcceptedAt, LateResultAt    time.Time
	Parameters, Result, LateResult                               json.RawMessage
	Error                                                        *struct {
		Code, Message, DeviceCode, Executed string
		Result                              json.RawMessage
	}
	Progress *struct {
		Message string
		At      time.Time
	}
}

func decode[T any](t *testing.T, body string) T {
	t.Helper()
	var v T
	// The members' names have underscores, the fields' have not.
	var members any
	if err := json.Unmarshal([]byte(body), &members); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	text, err := json.Marshal(withoutUnderscores(members))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return v
}

func withoutUnderscores(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any)
		for name, value := range maps.All(v) {
			if name != "result" && name != "late_result" { // these stay as they are
				value = withoutUnderscores(value)
			}
			m[strings.ReplaceAll(name, "_", "")] = value
		}
		return m
	case []any:
		for i := range v {
			v[i] = withoutUnderscores(v[i])
		}
	}
	return v
}

// create makes an operation and wants a 201.
func (b *bed) create(body string, headers ...string) operation {
	b.t.Helper()
	a := b.post(body, headers...)
	if a.status != http.StatusCreated {
		b.t.Fatalf("POST %s: %v", body, a)
	}
	return decode[operation](b.t, a.body)
}

func (b *bed) get(id string) operation {
	b.t.Helper()
	a := b.do("GET", base+"/"+id, "")
	if a.status != http.StatusOK {
		b.t.Fatalf("GET %s: %v", id, a)
	}
	return decode[operation](b.t, a.body)
}

// wantStatus compares the status of an operation.
func (b *bed) wantStatus(id, status string) operation {
	b.t.Helper()
	o := b.get(id)
	if o.Status != status {
		b.t.Fatalf("operation is %s, want %s", o.Status, status)
	}
	return o
}

// report is what the terminal says; everything is dealt with when it returns.
func (b *bed) report(id, members string) {
	b.t.Helper()
	b.say(transport.Reports, fmt.Sprintf(`{"operation_id":%q,"terminal_id":%q,%s}`, id, terminal, members))
}

func (b *bed) say(k transport.Kind, payload string) {
	b.t.Helper()
	b.broker.Publish(terminal, k, []byte(payload), false)
	synctest.Wait()
}

// sleep lets virtual time pass, and everything happen that is due by then.
func (b *bed) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// commands returns what was published to the terminal's commands, Cancels too.
func (b *bed) commands() []transport.Command {
	b.t.Helper()
	var all []transport.Command
	for _, p := range b.broker.PublishedOn(terminal, transport.Commands) {
		c, err := transport.DecodeCommand(p.Payload, terminal)
		if err != nil {
			b.t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

func (b *bed) wantCommands(n int) {
	b.t.Helper()
	if got := b.commands(); len(got) != n {
		b.t.Fatalf("%d commands were published, want %d: %+v", len(got), n, got)
	}
}

func (b *bed) wantRefused(a answer, status int) {
	b.t.Helper()
	if a.status != status {
		b.t.Fatalf("have %v, want %d", a, status)
	}
}

// lockedBuffer is a log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
