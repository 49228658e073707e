package agent

import (
	"compress/gzip"
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"terminalops/device"
	"terminalops/device/devicetest"
	"terminalops/device/zvt/zvttest"
	"terminalops/transport"
)

// testdata/format-1 is a state directory as a version has left it that writes
// journals of format 1, with entries in every state that an entry can have. Each
// later version must go on from there. Beside it are the logs of the simulated
// terminals: what they really did.
//
//	terminal   its operation
//	REPORTED   finished and reported
//	FINISHED   finished, the report was not sent
//	TOTALS     started, with mark and evidence: its totals, and no end
//	SILENT     started, and nothing was heard since
//	UPDATE     a check_update, accepted by the terminal, with a mark
//	MENU       an open_menu, reported; the terminal still has the word
//	LOGS       a send_logs, packed and not uploaded
//	ACCEPTED   waits for its turn
//	REFUSED    refused: it came too late
//	ELSEWHERE  another journal has answered for it
//
// The journal replaced a damaged one, and knows its birth.
//
// It was written by
//
//	go test ./agent -run TestWriteFormat1 -update
//
// in the version before format 2, which cannot be had again: never again.
const goldenDir = "testdata/format-1"

var update = flag.Bool("update", false, "write "+goldenDir+" anew")

// generation is later than everything in it, and before anything expires.
const generation = 4 * time.Hour

func TestWriteFormat1(t *testing.T) {
	if !*update {
		t.Skip("writes " + goldenDir + " with -update only")
	}
	if journalFormat != "1" {
		t.Fatalf("this version writes format %s", journalFormat)
	}
	if err := errors.Join(os.RemoveAll(goldenDir), os.MkdirAll(filepath.Join(goldenDir, logsDir), 0o755)); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		writeJournal(w, []byte(strings.Repeat("damage", 5000)))
		w.start()
		time.Sleep(time.Second) // the welcome brings the birth
		w.end()
		final := func() bool { return len(w.cloud.finals[w.id]) > 0 }
		goldenLane(t, w, "REPORTED", "success", device.EndOfDay).boot(newPower(0), "report", final)

		cut := func(id, scenario string, op device.Operation, way ...string) {
			p := newPower(0)
			p.way = way
			goldenLane(t, w, id, scenario, op).boot(p, strings.Join(way, ", "), func() bool { return false })
		}
		cut("FINISHED", "success", device.EndOfDay, "after writing 06 50", "after reading 06 0F", "after a journal write", "after a journal write")
		cut("TOTALS", "success", device.EndOfDay, "after writing 06 50", "after reading 04 0F", "after reading 06 D3", "after reading 06 0F")
		cut("SILENT", "success", device.EndOfDay, "after writing 06 50")
		cut("UPDATE", "success", device.CheckUpdate, "after writing 08 10", "after reading 06 0F")
		goldenLane(t, w, "MENU", "menu-b", device.OpenMenu).boot(newPower(0), "report", final)

		w.options.HTTP = (&logServer{answers: slices.Repeat([]int{http.StatusServiceUnavailable}, 1000)}).client()
		goldenLane(t, w, "LOGS", "success", device.SendLogs).boot(newPower(0), "an upload that fails", func() bool {
			return slices.ContainsFunc(w.cloud.reports, func(r transport.Report) bool { return strings.Contains(r.Message, "again soon") })
		})

		w.device.Set(devicetest.Script{Before: device.ErrBusy})
		goldenLane(t, w, "ACCEPTED", "success", device.EndOfDay)
		w.start()
		w.cloud.await(t, time.Minute, "ACCEPTED", func() bool { return !w.cloud.pending[w.id].AcceptedAt.IsZero() })
		w.end()
		w.id = "REFUSED"
		c := w.command(w.id, device.EndOfDay)
		c.ExpiresAt = c.IssuedAt
		time.Sleep(time.Second)
		w.send(c)
		w.start()
		w.final(w.id)
		w.end()
		w.id = "ELSEWHERE"
		c = w.command(w.id, device.EndOfDay)
		w.cloud.mu.Lock()
		w.cloud.pending[w.id] = transport.Pending{Command: c, AcceptedAt: transport.At(time.Now())}
		w.cloud.mu.Unlock()
		w.start()
		time.Sleep(time.Second)
		w.end()
		if time.Since(epoch) > generation {
			t.Fatal("it took longer than generation")
		}
		keepGolden(t, w.dir)
	})
}

// goldenLane is the next terminal, with its command on the way. The operation
// has the name of the terminal.
func goldenLane(t *testing.T, w *world, id, scenario string, op device.Operation) *store {
	t.Helper()
	w.id = id
	c := w.command(id, op)
	c.ExpiresAt = transport.At(w.cloud.now().Add(2 * generation))
	if op == device.SendLogs {
		c.Upload = &transport.Upload{URL: "https://logs.example.com/1", Until: c.ExpiresAt}
	}
	w.send(c)
	return storeIn(t, w, zvttest.Options{Scenario: scenario, Log: filepath.Join(goldenDir, id+".log")}, false)
}

// keepGolden copies the state directory.
func keepGolden(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(goldenDir, journalFile+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	gz, _ := gzip.NewWriterLevel(f, gzip.BestCompression)
	_, err = io.WriteString(gz, readText(filepath.Join(dir, journalFile)))
	if err := errors.Join(err, gz.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(goldenDir, logsDir), os.DirFS(filepath.Join(dir, logsDir))); err != nil {
		t.Fatal(err)
	}
}

// takeGolden unpacks it, and returns the copies of the terminals' logs.
func takeGolden(t *testing.T, dir string) (logs string) {
	t.Helper()
	f, err := os.Open(filepath.Join(goldenDir, journalFile+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(gz)
	if err != nil {
		t.Fatal(err)
	}
	logs = t.TempDir()
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, journalFile), content, 0o600),
		os.CopyFS(filepath.Join(dir, logsDir), os.DirFS(filepath.Join(goldenDir, logsDir))),
		os.CopyFS(logs, os.DirFS(goldenDir)),
	); err != nil {
		t.Fatal(err)
	}
	return logs
}

// What format 1 holds is what it is documented to hold.
func TestFormat1IsWhole(t *testing.T) {
	dir := t.TempDir()
	takeGolden(t, dir)
	j := mustOpen(t, dir)
	if j.meta("welcomed") == "" || j.meta("replaced") == "" || j.meta("birth") == "" || j.id == "" {
		t.Error("meta is not whole")
	}
	for id, want := range map[string]struct {
		state            state
		reported, final  bool
		attending, marks bool
		evidence         string // kinds
	}{
		"REPORTED":  {finished, true, true, false, true, "accepted totals printed completed"},
		"FINISHED":  {finished, false, true, false, true, "accepted totals printed completed"},
		"TOTALS":    {started, false, false, false, true, "accepted totals printed"},
		"SILENT":    {started, false, false, false, true, ""},
		"UPDATE":    {started, false, false, false, true, "accepted"},
		"MENU":      {finished, true, true, true, true, "accepted menu"},
		"LOGS":      {started, false, false, false, false, "archive"},
		"ACCEPTED":  {accepted, false, false, false, false, ""},
		"REFUSED":   {finished, true, true, false, false, ""},
		"ELSEWHERE": {finished, true, false, false, false, ""},
	} {
		e, err := j.find(id, id)
		if err != nil || e == nil {
			t.Errorf("%s: %v, %v", id, e, err)
			continue
		}
		evidence, err := j.evidence(e)
		if err != nil {
			t.Error(err)
		}
		var kinds []string
		for _, one := range evidence {
			kinds = append(kinds, one.Kind)
		}
		if e.State != want.state || e.Reported != want.reported || (e.Final != nil) != want.final ||
			e.Attending != want.attending || (e.Mark != nil) != want.marks || strings.Join(kinds, " ") != want.evidence {
			t.Errorf("%s: have %s, reported %v, attending %v, mark %s, final report %s, evidence %q; want %+v",
				id, e.State, e.Reported, e.Attending, e.Mark, e.Final, kinds, want)
		}
	}
	j.db.View(func(tx *bolt.Tx) error {
		if n := tx.Bucket(bucketConnections).Stats().KeyN; n < 10 {
			t.Errorf("%d terminals have a number of their last connection", n)
		}
		return nil
	})
}

// This version goes on from a state directory of format 1: everything that was
// open is resolved with the truth, sent, and not done again.
func TestFormat1GoesOn(t *testing.T) {
	for id, want := range map[string]struct {
		scenario string
		state    string
		acts     int // of the terminal, in all
	}{
		"REPORTED": {"success", "COMPLETED", 1},
		"FINISHED": {"success", "COMPLETED", 1},
		"TOTALS":   {"success", "COMPLETED", 1},
		"SILENT":   {"success", "COMPLETED", 1},
		"UPDATE":   {"success", "COMPLETED", 1},
		"MENU":     {"success", "COMPLETED", 1},
		"LOGS":     {"success", "COMPLETED", 0},
		"ACCEPTED": {"success", "COMPLETED", 1},
		"REFUSED":  {"success", "expired no", 0},
	} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, _ := memory(t)
				w.id = id
				logs := takeGolden(t, w.dir)
				before := expectOpen(w)
				uploads := &logServer{}
				w.options.HTTP = uploads.client()
				time.Sleep(generation)
				s := storeIn(t, w, zvttest.Options{Scenario: want.scenario, Log: filepath.Join(logs, id+".log")}, false)
				s.boot(newPower(0), "final report", func() bool { return len(w.cloud.finals[id]) > 0 })
				r := w.wantFinal(id, want.state)
				op := device.Operation(r.Operation)
				if acts := s.terminal.Did(acted[op]); len(acts) != want.acts {
					t.Errorf("the terminal acted %d times, want %d: %v", len(acts), want.acts, acts)
				}
				if v := s.terminal.Violations(); len(v) > 0 {
					t.Errorf("violations: %q", v)
				}
				if want.acts > 0 && op == device.EndOfDay && !hasTotals(r, s.terminal) {
					t.Errorf("the totals are not those of the terminal: %s", r.Result)
				}
				if id == "LOGS" && (len(uploads.bodies) != 1 || s.opened > 0) {
					t.Errorf("%d archives uploaded, the terminal was asked %d times", len(uploads.bodies), s.opened)
				}
				if before.Final != nil && w.cloud.finals[id][0] != string(before.Final) {
					t.Errorf("the report is another one:\n%s\n%s", w.cloud.finals[id][0], before.Final)
				}
				// The lane goes on, also behind a menu that nobody sees any more.
				next := w.command("next", device.EndOfDay)
				next.ExpiresAt = transport.At(w.cloud.now().Add(time.Hour))
				w.send(next)
				s.boot(newPower(0), "the next one", func() bool { return len(w.cloud.finals["next"]) > 0 })
				w.wantFinal("next", "COMPLETED")
				if e, _ := s.journaled(id); e.Attending || !e.Reported {
					t.Errorf("left behind: %+v", e)
				}
			})
		})
	}
}

// expectOpen has the cloud wait for what the journal has open, and want the
// rest again. It returns the entry of this world's terminal.
func expectOpen(w *world) (own *entry) {
	w.t.Helper()
	j, err := openJournal(w.dir, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	defer j.close()
	err = j.each(func(e *entry) {
		if e.Command.TerminalID != w.id {
			return
		}
		own = e
		if e.State == finished {
			w.cloud.wanted = append(w.cloud.wanted, e.Command.OperationID)
			return
		}
		w.cloud.pending[e.Command.OperationID] = transport.Pending{
			Command: e.Command, AcceptedAt: transport.At(e.AcceptedAt), Running: e.State == started,
		}
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return own
}

// What another journal has answered for stays unanswered, a command from before
// the journal's birth is not started, and neither starts without the cloud's
// time: this cloud welcomes.
func TestFormat1Remembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.id = "ELSEWHERE"
		takeGolden(t, w.dir)
		w.cloud.deaf = true
		time.Sleep(generation)
		w.start()
		w.send(w.command(w.id, device.EndOfDay))
		old := w.command("old", device.EndOfDay)
		old.IssuedAt = transport.At(old.IssuedAt.Add(-generation - time.Hour))
		w.send(old)
		w.wantFinal("old", "outcome_unknown unknown")
		w.send(w.commandFor(time.Hour, "new", device.EndOfDay))
		time.Sleep(10 * time.Minute)
		w.wantActs(0)
		w.cloud.setDeaf(false)
		w.wantFinal("new", "COMPLETED")
		w.wantActs(1)
		if len(w.cloud.finals[w.id]) > 0 {
			t.Error("it was answered here, too")
		}
	})
}
