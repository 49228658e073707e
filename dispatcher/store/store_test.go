package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// begin is a moment with milliseconds, as the database has it.
var begin = time.Date(2026, 6, 29, 9, 0, 0, 123e6, time.UTC)

func openStore(t *testing.T, path string, clock func() time.Time) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{Path: path, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// opened returns a store with the terminals and a clock to turn.
func opened(t *testing.T) (s *Store, now *time.Time, path string) {
	t.Helper()
	now, path = new(time.Time), filepath.Join(t.TempDir(), "d.db")
	*now = begin
	s = openStore(t, path, func() time.Time { return *now })
	if err := s.AddTerminals(t.Context(), "A", "A-1", "A-2"); err != nil {
		t.Fatal(err)
	}
	return s, now, path
}

func newOperation(id string) New {
	return New{
		ID: id, AccountID: "A", TerminalID: "A-1", Operation: "end_of_day", Parameters: json.RawMessage(`{}`), CreatedBy: "anna",
		Start: time.Minute, Grace: 5 * time.Second, Hard: 10 * time.Minute, Listening: func() bool { return true },
		Answer: func(o Operation) []byte { return []byte(o.ID + o.Status) },
	}
}

// TestClock: without a clock of the test's, time is the database's own.
func TestClock(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "d.db"), nil)
	before := time.Now()
	now, err := s.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if now.Before(before.Add(-time.Second)) || now.After(time.Now().Add(time.Second)) || now.Location() != time.UTC {
		t.Errorf("have %v, it is %v", now, before)
	}
}

// TestDurable asks the database whether a commit is on disk when it returns.
func TestDurable(t *testing.T) {
	s, _, _ := opened(t)
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		var have string
		if err := s.write.QueryRow("PRAGMA " + pragma).Scan(&have); err != nil || have != want {
			t.Errorf("%s is %q (%v), want %q", pragma, have, err, want)
		}
	}
	if _, err := s.read.Exec("DELETE FROM terminals"); err == nil {
		t.Error("a reader can write")
	}
}

// TestTwoProcesses: that one of many is first does not depend on a lock of one
// process. Each store here is what another process would have open.
func TestTwoProcesses(t *testing.T) {
	const n = 8
	_, now, path := opened(t)
	var all sync.WaitGroup
	results := make([]error, n)
	for i := range n {
		s := openStore(t, path, func() time.Time { return *now })
		all.Go(func() { _, results[i] = s.Create(context.Background(), newOperation(string(rune('a'+i)))) })
	}
	all.Wait()
	created := 0
	for _, err := range results {
		var busy *BusyError
		switch {
		case err == nil:
			created++
		case errors.As(err, &busy):
			if busy.Remaining != 65*time.Second {
				t.Errorf("have %v", busy)
			}
		default:
			t.Error(err)
		}
	}
	if created != 1 {
		t.Errorf("%d were created, want 1", created)
	}
}

// TestOnePendingIsTheDatabasesRule goes behind the store's back.
func TestOnePendingIsTheDatabasesRule(t *testing.T) {
	s, _, _ := opened(t)
	insert := func(id, status string) error {
		_, err := s.write.Exec(`INSERT INTO operations (id, account_id, terminal_id, operation, parameters, status, created_at, created_by, updated_at, updated_by)
			VALUES (?, 'A', 'A-1', 'x', '{}', ?, 1, '', 1, '')`, id, status)
		return err
	}
	for _, id := range []string{"1", "2"} {
		if err := insert(id, Failed); err != nil {
			t.Fatal(err)
		}
	}
	if err := insert("3", Pending); err != nil {
		t.Fatal(err)
	}
	if err := insert("4", Pending); err == nil {
		t.Error("two operations of one terminal are PENDING")
	}
	if err := insert("5", "RUNNING"); err == nil {
		t.Error("a status that is none was taken")
	}
}

// TestKeyAndOperationAreOne: where no operation comes to be, the key is free.
func TestKeyAndOperationAreOne(t *testing.T) {
	s, now, path := opened(t)
	n := newOperation("1")
	n.Key, n.Fingerprint = "k", "f"
	n.Answer = func(Operation) []byte { panic("power cut") }
	func() {
		defer func() { recover() }()
		s.Create(t.Context(), n)
	}()
	n.Listening = func() bool { return false }
	if _, err := s.Create(t.Context(), n); !errors.Is(err, ErrNotListening) {
		t.Fatalf("have %v", err)
	}
	n = newOperation("2")
	n.Key, n.Fingerprint = "k", "f"
	c, err := s.Create(t.Context(), n)
	if err != nil || c.Replayed || string(c.Answer) != "2PENDING" {
		t.Fatalf("have %+v, %v", c, err)
	}
	// As another process sees it.
	c, err = openStore(t, path, func() time.Time { return *now }).Create(t.Context(), n)
	if err != nil || !c.Replayed || string(c.Answer) != "2PENDING" {
		t.Errorf("have %+v, %v", c, err)
	}
	n.Fingerprint = "g"
	if _, err := s.Create(t.Context(), n); !errors.Is(err, ErrKeyReused) {
		t.Errorf("have %v", err)
	}
}

// TestEndsOnce: of everything that may end an operation at a time, one does.
func TestEndsOnce(t *testing.T) {
	s, now, path := opened(t)
	for round := range 10 {
		id := string(rune('a' + round))
		if _, err := s.Create(t.Context(), newOperation(id)); err != nil {
			t.Fatal(err)
		}
		*now = now.Add(65 * time.Second)
		second := openStore(t, path, func() time.Time { return *now })
		var all sync.WaitGroup
		var expired []Operation
		verdicts := make([]Verdict, 2)
		errs := make([]error, 3)
		all.Go(func() { expired, errs[0] = second.Expire(context.Background(), true) })
		for i, status := range []string{Completed, Failed} {
			all.Go(func() {
				verdicts[i], errs[1+i] = s.Finish(context.Background(), "A-1", id, Outcome{Status: status, Late: json.RawMessage(`{}`)})
			})
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		o, err := s.Operation(t.Context(), "A", id)
		if err != nil {
			t.Fatal(err)
		}
		ends := len(expired)
		for _, v := range verdicts {
			if v == Stored {
				ends++
			}
		}
		if ends != 1 || (o.Status == Timeout) != (len(expired) == 1) {
			t.Fatalf("%s: ended %d times: expired %d, verdicts %v", o.Status, ends, len(expired), verdicts)
		}
	}
}

func TestRefusesAnotherSchema(t *testing.T) {
	_, _, path := opened(t)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO schema_version (version) VALUES (99)`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), Options{Path: path})
	if err == nil || !strings.Contains(err.Error(), "schema version is 99") || !strings.Contains(err.Error(), path) {
		t.Errorf("have %v", err)
	}
}

func TestRefusesPaths(t *testing.T) {
	for _, path := range []string{"", "a?b", filepath.Join(t.TempDir(), "no", "such", "directory", "d.db")} {
		if s, err := Open(t.Context(), Options{Path: path}); err == nil {
			s.Close()
			t.Errorf("%q was opened", path)
		}
	}
}

func TestTerminalsBelongToOneAccount(t *testing.T) {
	s, _, _ := opened(t)
	if err := s.AddTerminals(t.Context(), "B", "B-1", "A-1"); err == nil {
		t.Error("a terminal was taken away")
	}
	all, err := s.Terminals(t.Context(), "B")
	if err != nil || len(all) != 0 {
		t.Errorf("have %v, %v: want all or none", all, err)
	}
	if err := s.AddTerminals(t.Context(), "A", "A-1"); err != nil {
		t.Errorf("again: %v", err)
	}
}

// TestIndexesAreUsed looks at queries whose index is a partial one, which is
// easily missed.
func TestIndexesAreUsed(t *testing.T) {
	s, _, _ := opened(t)
	for index, q := range map[string]struct {
		query string
		args  []any
	}{
		"one_per_key": {replaySQL, []any{"A", "k"}},
		"wanted":      {wantedSQL, []any{"A-1", 0, 5}},
	} {
		var id, parent, unused int
		var plan string
		if err := s.read.QueryRow("EXPLAIN QUERY PLAN "+q.query, q.args...).Scan(&id, &parent, &unused, &plan); err != nil || !strings.Contains(plan, index) {
			t.Errorf("%s: have %q, %v", index, plan, err)
		}
	}
}
