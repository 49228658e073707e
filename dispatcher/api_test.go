package dispatcher_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"terminalops/dispatcher"
	"terminalops/transport"
)

func TestCreate(t *testing.T) {
	with(t, nil, func(b *bed) {
		a := b.post(`{"terminal_id":"P11223351-T0013","operation":"end_of_day","parameters":{"operator_id":"anna"}}`)
		if a.status != 201 || a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("have %v %v", a, a.header)
		}
		// The wire, to the letter: members, their names, and nothing empty.
		var members map[string]any
		if err := json.Unmarshal([]byte(a.body), &members); err != nil {
			t.Fatal(err)
		}
		now := time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
		want := map[string]any{
			"terminal_id": terminal, "account_id": account, "operation": "end_of_day", "status": "PENDING",
			"parameters": map[string]any{"operator_id": "anna"},
			"created_at": now, "created_by": "anna@example.com", "updated_at": now, "updated_by": "anna@example.com",
			"expires_at": time.Now().Add(minute).UTC().Format("2006-01-02T15:04:05.000Z"),
			"id":         members["id"],
		}
		if fmt.Sprint(members) != fmt.Sprint(want) {
			t.Errorf("have %v\nwant %v", members, want)
		}
		commands := b.commands()
		if len(commands) != 1 {
			t.Fatalf("have %d commands", len(commands))
		}
		c := commands[0]
		if c.OperationID != members["id"] || c.Operation != "end_of_day" || c.Parameters.OperatorID != "anna" || c.Upload != nil ||
			!c.IssuedAt.Equal(time.Now()) || c.ExpiresAt.Sub(c.IssuedAt.Time) != minute {
			t.Errorf("have command %+v", c)
		}
		if b.broker.PublishedOn(terminal, transport.Commands)[0].Retained {
			t.Error("the command is retained")
		}
	})
}

func TestRefusals(t *testing.T) {
	long := strings.Repeat("x", 70000)
	tests := []struct {
		name    string
		body    string
		headers []string
		status  int
		says    string // in the body
	}{
		{"not JSON", `hello`, nil, 400, "body: want a JSON object"},
		{"nothing", ``, nil, 400, "body: want a JSON object"},
		{"an array", `[]`, nil, 400, "body: want a JSON object"},
		{"null", `null`, nil, 400, "body: want a JSON object"},
		{"cut off", endOfDay[:len(endOfDay)-1], nil, 400, "malformed"},
		{"member name is a number", `{1:2}`, nil, 400, "malformed"},
		{"two objects", endOfDay + endOfDay, nil, 400, "something follows"},
		{"not UTF-8", strings.Replace(endOfDay, "T0013", "\xff", 1), nil, 400, "want UTF-8"},
		{"duplicate member", `{"terminal_id":"P11223351-T0013","operation":"open_menu","operation":"end_of_day"}`, nil, 400, "operation: occurs twice"},
		{"duplicate parameter", `{"terminal_id":"P11223351-T0013","operation":"end_of_day","parameters":{"operator_id":"a","operator_id":"b"}}`, nil, 400, "parameters.operator_id: occurs twice"},
		{"unknown member", strings.Replace(endOfDay, "{", `{"colour":"red",`, 1), nil, 400, "colour: is unknown"},
		{"another case", strings.Replace(endOfDay, "terminal_id", "Terminal_ID", 1), nil, 400, "Terminal_ID: is unknown"},
		{"unknown parameter", strings.Replace(endOfDay, "}", `,"parameters":{"amount":1}}`, 1), nil, 400, "parameters.amount: is unknown"},
		{"parameters are text", strings.Replace(endOfDay, "}", `,"parameters":"x"}`, 1), nil, 400, "parameters: want a JSON object"},
		{"parameters are null", strings.Replace(endOfDay, "}", `,"parameters":null}`, 1), nil, 400, "parameters: is null"},
		{"operator is a number", strings.Replace(endOfDay, "}", `,"parameters":{"operator_id":7}}`, 1), nil, 400, "parameters.operator_id: is 7, want a string"},
		{"operator is endless", strings.Replace(endOfDay, "}", `,"parameters":{"operator_id":"`+long[:200]+`"}}`, 1), nil, 400, "longer than 128"},
		{"no terminal", `{"operation":"end_of_day"}`, nil, 400, "terminal_id: is missing"},
		{"terminal is a number", `{"terminal_id":7,"operation":"end_of_day"}`, nil, 400, "terminal_id: is 7, want a string"},
		{"no operation", `{"terminal_id":"P11223351-T0013"}`, nil, 400, "operation: is missing"},
		{"unknown operation", strings.Replace(endOfDay, "end_of_day", "reboot", 1), nil, 400, "want one of end_of_day, send_logs, check_update, open_menu"},
		{"timeout is text", strings.Replace(endOfDay, "}", `,"timeout_seconds":"70"}`, 1), nil, 400, "timeout_seconds: is"},
		{"timeout is broken", strings.Replace(endOfDay, "}", `,"timeout_seconds":70.5}`, 1), nil, 400, "want a whole number"},
		{"timeout is short", strings.Replace(endOfDay, "}", `,"timeout_seconds":69}`, 1), nil, 400, "want 70 to 3600"},
		{"timeout is long", strings.Replace(endOfDay, "}", `,"timeout_seconds":3601}`, 1), nil, 400, "want 70 to 3600"},
		{"key is empty", endOfDay, []string{"Idempotency-Key", `""`}, 400, "Idempotency-Key"},
		{"key has spaces", endOfDay, []string{"Idempotency-Key", `a b`}, 400, "Idempotency-Key"},
		{"too large", `{"terminal_id":"` + long, nil, 413, "larger than 65536"},
		{"form", endOfDay, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "want application/json"},
		{"UTF-16", endOfDay, []string{"Content-Type", "application/json; charset=utf-16"}, 415, "charset"},
		{"compressed", endOfDay, []string{"Content-Encoding", "gzip"}, 415, "Content-Encoding"},
		{"unknown terminal", strings.Replace(endOfDay, "T0013", "T0099", 1), nil, 404, "terminal_not_found"},
		{"another account's terminal", strings.Replace(endOfDay, terminal, foreign, 1), nil, 404, "terminal_not_found"},
	}
	with(t, nil, func(b *bed) {
		for _, tt := range tests {
			a := b.post(tt.body, tt.headers...)
			checkProblem(t, tt.name, a, tt.status)
			if !strings.Contains(a.body, tt.says) {
				t.Errorf("%s: have %v, want it to say %q", tt.name, a, tt.says)
			}
		}
		b.wantCommands(0)
		if a := b.do("GET", base, ""); a.body != "[]" {
			t.Errorf("something was stored: %v", a)
		}
	})
}

// checkProblem wants both forms of an error in one body.
func checkProblem(t *testing.T, name string, a answer, status int) {
	t.Helper()
	var p struct {
		Type, Title, Detail string
		Status              int
		Error               struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("%s: %v: %v", name, err, a)
	}
	if a.status != status || p.Status != status || p.Title != http.StatusText(status) || p.Type == "" || p.Detail == "" ||
		p.Error.Code == "" || p.Error.Message != p.Detail {
		t.Errorf("%s: have %v, want %d in both forms", name, a, status)
	}
	if a.header.Get("Content-Type") != "application/problem+json" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: have headers %v", name, a.header)
	}
}

func TestFieldsAreNamed(t *testing.T) {
	with(t, nil, func(b *bed) {
		a := b.post(strings.Replace(endOfDay, "}", `,"parameters":{"operator_id":7}}`, 1))
		p := decode[struct {
			Error struct {
				Errors []struct{ Field, Message string }
			}
		}](t, a.body)
		if len(p.Error.Errors) != 1 || p.Error.Errors[0].Field != "parameters.operator_id" {
			t.Errorf("have %v", a)
		}
	})
}

func TestOtherPathsAndMethods(t *testing.T) {
	with(t, nil, func(b *bed) {
		checkProblem(t, "no such path", b.do("GET", "/v1/admin", ""), 404)
		for _, tt := range []struct{ method, path, allow string }{
			{"DELETE", base, "GET, HEAD, POST"},
			{"PUT", base + "/1", "GET, HEAD"},
			{"POST", base + "/1/logs", "GET, HEAD"},
			{"GET", base + "/1/cancel", "POST"},
			{"GET", "/v1/uploads/x", "PUT"},
		} {
			a := b.do(tt.method, tt.path, "")
			checkProblem(t, tt.method+" "+tt.path, a, 405)
			if a.header.Get("Allow") != tt.allow {
				t.Errorf("%s %s: allows %q", tt.method, tt.path, a.header.Get("Allow"))
			}
		}
	})
}

// TestOrderOfChecks makes requests that are wrong in two ways: what is checked
// first, answers.
func TestOrderOfChecks(t *testing.T) {
	with(t, nil, func(b *bed) {
		reader := "Bearer " + b.sign(dispatcher.Development{Account: account, Scopes: []string{"read:checkout:/admin/terminals"}, Subject: "s"})
		unknown := strings.Replace(endOfDay, "T0013", "T0099", 1)
		b.create(endOfDay, "Idempotency-Key", "used")
		tests := []struct {
			name   string
			a      answer
			status int
		}{
			{"401 before 403 and 400", b.post(`x`, "Authorization", "Bearer x"), 401},
			{"403 before 400", b.post(`x`, "Authorization", reader), 403},
			{"400 before idempotency", b.post(`{}`, "Idempotency-Key", "used"), 400},
			{"idempotency before 404", b.post(unknown, "Idempotency-Key", "used"), 422},
			{"replay before 409", b.post(endOfDay, "Idempotency-Key", "used"), 201},
			{"404", b.post(unknown, "Idempotency-Key", "fresh"), 404},
			{"409", b.post(endOfDay, "Idempotency-Key", "fresh"), 409},
		}
		for _, tt := range tests {
			if tt.a.status != tt.status {
				t.Errorf("%s: have %v", tt.name, tt.a)
			}
		}
		b.broker.Down()
		if a := b.post(endOfDay, "Idempotency-Key", "used"); a.status != 201 {
			t.Errorf("replay without a broker: have %v", a)
		}
		b.wantRefused(b.post(unknown), 404)
		b.wantRefused(b.post(endOfDay), 503)
	})
}

func TestAccountsInThePath(t *testing.T) {
	with(t, nil, func(b *bed) {
		path := "/v1/accounts/" + account + "/payments/admin/terminals/operations"
		a := b.do("POST", path, endOfDay)
		if a.status != 201 {
			t.Fatalf("have %v", a)
		}
		o := decode[operation](t, a.body)
		for _, p := range []string{path, base} {
			if a := b.do("GET", p+"?operation_id="+o.ID, ""); len(decode[[]operation](t, a.body)) != 1 {
				t.Errorf("GET %s: have %v", p, a)
			}
		}
		for _, wrong := range []string{"P99999999", "T11223351", "x"} {
			checkProblem(t, wrong, b.do("GET", strings.Replace(path, account, wrong, 1), ""), 403)
		}
	})
}

func TestOtherAccountsAreInvisible(t *testing.T) {
	with(t, nil, func(b *bed) {
		o := b.create(endOfDay, "Idempotency-Key", "k")
		stranger := []string{"Authorization", "Bearer " + b.sign(dispatcher.Development{Account: "P99999999", Scopes: []string{"admin:checkout"}, Subject: "s"})}
		for _, path := range []string{"/" + o.ID, "/" + o.ID + "/logs"} {
			checkProblem(t, path, b.do("GET", base+path, "", stranger...), 404)
		}
		checkProblem(t, "cancel", b.do("POST", base+"/"+o.ID+"/cancel", "", stranger...), 404)
		for _, query := range []string{"", "?terminal_id=" + terminal, "?operation_id=" + o.ID} {
			if a := b.do("GET", base+query, "", stranger...); a.body != "[]" {
				t.Errorf("GET %s: have %v", query, a)
			}
		}
		// A foreign and an unknown terminal look the same.
		theirs := b.post(endOfDay, stranger...)
		nobodys := b.post(strings.Replace(endOfDay, terminal, "P11223351-T0099", 1), stranger...)
		if strings.ReplaceAll(theirs.body, terminal, "") != strings.ReplaceAll(nobodys.body, "P11223351-T0099", "") || theirs.status != 404 {
			t.Errorf("have %v and %v", theirs, nobodys)
		}
		// And keys are the account's own.
		a := b.post(strings.Replace(endOfDay, terminal, foreign, 1), append(stranger, "Idempotency-Key", "k")...)
		b.wantRefused(a, 201)
	})
}

func TestList(t *testing.T) {
	with(t, nil, func(b *bed) {
		var ids []string
		for i := range 105 {
			body := endOfDay
			if i == 50 {
				body = strings.Replace(endOfDay, terminal, other, 1)
			}
			o := b.create(body)
			ids = append(ids, o.ID)
			b.sleep(time.Millisecond)
			b.broker.Publish(o.TerminalID, transport.Reports, []byte(fmt.Sprintf(`{"operation_id":%q,"terminal_id":%q,"state":"COMPLETED"}`, o.ID, o.TerminalID)), false)
			b.sleep(time.Millisecond)
		}
		list := func(query string) []operation { return decode[[]operation](t, b.do("GET", base+query, "").body) }
		all := list("")
		if len(all) != 100 {
			t.Fatalf("have %d operations, want the newest 100", len(all))
		}
		for i, o := range all {
			if o.ID != ids[len(ids)-1-i] {
				t.Fatalf("operation %d is not the one that was created %d before the last", i, i)
			}
		}
		if got := list("?limit=3"); len(got) != 3 || got[0].ID != ids[104] {
			t.Errorf("limit=3: have %v", got)
		}
		if got := list("?terminal_id=" + other); len(got) != 1 || got[0].ID != ids[50] {
			t.Errorf("by terminal: have %v", got)
		}
		if got := list("?operation_id=" + ids[0]); len(got) != 1 || got[0].ID != ids[0] {
			t.Errorf("by operation: have %v", got)
		}
		for _, nothing := range []string{"?terminal_id=" + foreign, "?terminal_id=", "?operation_id=" + ids[0] + "&terminal_id=" + other} {
			if a := b.do("GET", base+nothing, ""); a.status != 200 || a.body != "[]" {
				t.Errorf("GET %s: have %v", nothing, a)
			}
		}
		for _, limit := range []string{"0", "101", "-1", "x", ""} {
			checkProblem(t, "limit="+limit, b.do("GET", base+"?limit="+limit, ""), 400)
		}
		checkProblem(t, "starting_after", b.do("GET", base+"?starting_after="+ids[0], ""), 400)
		checkProblem(t, "no such operation", b.do("GET", base+"/1", ""), 404)
	})
}

// What cannot be read would filter nothing: it is refused.
func TestMalformedQuery(t *testing.T) {
	with(t, nil, func(b *bed) {
		b.create(endOfDay)
		for _, query := range []string{"?terminal_id=%zz", "?terminal_id=" + other + ";x"} {
			if a := b.do("GET", base+query, ""); a.status != http.StatusBadRequest {
				t.Errorf("%s: have %v", query, a)
			}
		}
	})
}

func TestOneOfManyParallelRequests(t *testing.T) {
	const n = 50
	with(t, nil, func(b *bed) {
		answers := parallel(n, func(i int) answer { return b.post(endOfDay, "Idempotency-Key", fmt.Sprint(i)) })
		count := make(map[int]int)
		for _, a := range answers {
			count[a.status]++
			if a.status == 409 && a.header.Get("Retry-After") != "65" {
				t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
			}
		}
		if count[201] != 1 || count[409] != n-1 {
			t.Errorf("have %v, want one 201 and %d 409", count, n-1)
		}
		b.wantCommands(1)
	})
}

func TestParallelRequestsWithOneKey(t *testing.T) {
	with(t, nil, func(b *bed) {
		answers := parallel(50, func(int) answer { return b.post(endOfDay, "Idempotency-Key", "k") })
		for _, a := range answers {
			if a.status != 201 || a.body != answers[0].body {
				t.Fatalf("have %v and %v", a, answers[0])
			}
		}
		b.wantCommands(1)
	})
}

func parallel(n int, f func(int) answer) []answer {
	answers := make([]answer, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { answers[i] = f(i) })
	}
	all.Wait()
	return answers
}

func TestIdempotency(t *testing.T) {
	const key = "4f6a1c2e-8b7d-4f6a-9c1e-2d5b8a0f4e6c"
	with(t, nil, func(b *bed) {
		request := `{"terminal_id":"P11223351-T0013","operation":"end_of_day","parameters":{"operator_id":"anna"}}`
		first := b.post(request, "Idempotency-Key", key)
		o := decode[operation](t, first.body)
		if first.status != 201 || first.header.Get("Idempotent-Replayed") != "" {
			t.Fatalf("have %v %v", first, first.header)
		}
		again := func(what, request, key string) {
			t.Helper()
			a := b.post(request, "Idempotency-Key", key)
			if a.status != 201 || a.body != first.body || a.header.Get("Idempotent-Replayed") != "true" || a.header.Get("Content-Type") != "application/json" {
				t.Errorf("%s: have %v %v\nwant %v", what, a, a.header, first)
			}
		}
		again("while PENDING", request, key)
		again("quoted", request, `"`+key+`"`)
		again("in another order, with white space", "{ \"parameters\" : {\"operator_id\":\"a\\u006ena\"},\n\"operation\":\"end_of_day\", \"terminal_id\":\"P11223351-T0013\"}", key)
		b.report(o.ID, `"state":"RUNNING","sequence":1,"message":"closing"`)
		again("while RUNNING", request, key)
		b.restart()
		again("after a restart", request, key)

		for what, another := range map[string]string{
			"another terminal":  strings.Replace(request, terminal, other, 1),
			"another operation": strings.Replace(request, "end_of_day", "open_menu", 1),
			"another operator":  strings.Replace(request, "anna", "bert", 1),
			"no operator":       endOfDay,
		} {
			checkProblem(t, what, b.post(another, "Idempotency-Key", key), 422)
		}
		b.sleep(10 * minute)
		b.wantStatus(o.ID, "TIMEOUT")
		again("after TIMEOUT", request, key)
		checkProblem(t, "after TIMEOUT", b.post(endOfDay, "Idempotency-Key", key), 422)
		second := b.create(request)
		again("while another one is PENDING", request, key)
		if second.ID == o.ID {
			t.Error("without a key the same operation came back")
		}
		b.wantCommands(2)
	})
}

func TestRefusalsDoNotUseUpAKey(t *testing.T) {
	with(t, nil, func(b *bed) {
		key := []string{"Idempotency-Key", "k"}
		b.wantRefused(b.post(`{}`, key...), 400)
		b.wantRefused(b.post(strings.Replace(endOfDay, "T0013", "T0099", 1), key...), 404)
		o := b.create(strings.Replace(endOfDay, "end_of_day", "open_menu", 1))
		b.wantRefused(b.post(endOfDay, key...), 409)
		b.report(o.ID, `"state":"COMPLETED"`)
		b.broker.Down()
		b.sleep(time.Second)
		b.wantRefused(b.post(endOfDay, key...), 503)
		b.broker.Up()
		b.sleep(minute)
		if a := b.post(endOfDay, key...); a.status != 201 || a.header.Get("Idempotent-Replayed") != "" {
			t.Errorf("have %v %v", a, a.header)
		}
	})
}

func TestEmptyParametersAreNoParameters(t *testing.T) {
	with(t, nil, func(b *bed) {
		b.create(endOfDay, "Idempotency-Key", "k")
		for _, same := range []string{`{}`, `{"operator_id":""}`} {
			a := b.post(strings.Replace(endOfDay, "}", `,"parameters":`+same+`}`, 1), "Idempotency-Key", "k")
			if a.status != 201 || a.header.Get("Idempotent-Replayed") != "true" {
				t.Errorf("parameters %s: have %v", same, a)
			}
		}
	})
}

func TestNoBrokerConnection(t *testing.T) {
	with(t, nil, func(b *bed) {
		b.broker.Down()
		b.sleep(time.Second)
		a := b.post(endOfDay)
		checkProblem(t, "POST", a, 503)
		if a.header.Get("Retry-After") != "5" {
			t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
		}
		if a := b.do("GET", base, ""); a.status != 200 || a.body != "[]" {
			t.Errorf("GET: have %v, want nothing stored", a)
		}
		b.broker.Up()
		b.sleep(minute)
		b.create(endOfDay)
		b.wantCommands(1)
	})
}

func TestCancel(t *testing.T) {
	with(t, nil, func(b *bed) {
		o := b.create(endOfDay)
		path := base + "/" + o.ID + "/cancel"
		a := b.do("POST", path, "")
		if a.status != 202 || decode[operation](t, a.body).Status != "PENDING" {
			t.Fatalf("have %v", a)
		}
		commands := b.commands()
		c := commands[len(commands)-1]
		if len(commands) != 2 || !c.Cancel || c.OperationID != o.ID || !c.ExpiresAt.Equal(o.ExpiresAt) || !c.IssuedAt.Equal(time.Now()) {
			t.Errorf("have commands %+v", commands)
		}
		b.report(o.ID, `"state":"ACCEPTED"`)
		b.wantRefused(b.do("POST", path, ""), 202) // accepted is not running
		b.report(o.ID, `"state":"RUNNING"`)
		checkProblem(t, "running", b.do("POST", path, ""), 409)
		b.report(o.ID, `"state":"FAILED","error":{"code":"cancelled","message":"m","executed":"no"}`)
		checkProblem(t, "over", b.do("POST", path, ""), 409)
		checkProblem(t, "unknown", b.do("POST", base+"/1/cancel", ""), 404)

		o = b.create(endOfDay)
		b.broker.LoseAcks(1)
		checkProblem(t, "no acknowledgement", b.do("POST", base+"/"+o.ID+"/cancel", ""), 503)
		b.broker.Down()
		checkProblem(t, "no broker", b.do("POST", base+"/"+o.ID+"/cancel", ""), 503)
		b.wantStatus(o.ID, "PENDING")
	})
}
