package agent

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"terminalops/device"
	"terminalops/device/devicetest"
	"terminalops/transport"
)

func mustOpen(t *testing.T, dir string) *journal {
	t.Helper()
	j, err := openJournal(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.close() })
	return j
}

// newEntry is an accepted operation.
func newEntry(id string) *entry {
	now := time.Now().UTC()
	return &entry{
		Command: transport.Command{OperationID: id, TerminalID: terminal, Operation: "end_of_day", IssuedAt: transport.At(now), ExpiresAt: transport.At(now.Add(time.Minute))},
		State:   accepted, AcceptedAt: now,
	}
}

func TestJournalKeepsWhatItWasTold(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir)
	e := newEntry("a")
	if err := errors.Join(
		j.add(e),
		j.advance(e, func(e *entry) { e.State, e.Mark = started, []byte(`{"receipt":7}`) }),
		j.record(e, device.Evidence{Kind: "totals", Data: []byte(`{"total":26}`)}),
		j.record(e, device.Evidence{Kind: "end", Data: []byte(`0`)}),
		j.add(newEntry("b")),
		j.close(),
	); err != nil {
		t.Fatal(err)
	}
	j = mustOpen(t, dir)
	var ids []string
	if err := j.each(func(e *entry) { ids = append(ids, e.Command.OperationID) }); err != nil || strings.Join(ids, " ") != "a b" {
		t.Fatalf("entries %v, %v", ids, err)
	}
	again, err := j.find(terminal, "a")
	if err != nil || again.State != started || string(again.Mark) != `{"receipt":7}` || again.Sequence != e.Sequence {
		t.Errorf("have %+v, %v", again, err)
	}
	evidence, err := j.evidence(again)
	if err != nil || len(evidence) != 2 || evidence[1].Kind != "end" {
		t.Errorf("evidence %v, %v", evidence, err)
	}
	if other, err := j.find("another", "a"); other != nil || err != nil {
		t.Errorf("another terminal's id was found: %v, %v", other, err)
	}
}

// An older agent leaves a newer journal exactly as it is, also if it does so
// for the third time, or the newer agent did not get through its start.
func TestJournalOfANewerAgent(t *testing.T) {
	for _, attempts := range []string{"", "1", "2"} {
		t.Run("attempts="+attempts, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, journalFile)
			j := mustOpen(t, dir)
			if err := errors.Join(j.add(newEntry("a")), j.setMeta("format", "2"), j.close()); err != nil {
				t.Fatal(err)
			}
			if attempts != "" {
				if err := os.WriteFile(path+".opening", []byte(attempts), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			before := contents(t, dir)
			for range 3 {
				_, err := New(Options{StateDir: dir})
				if !errors.Is(err, ErrNewerJournal) {
					t.Fatalf("err = %v", err)
				}
				for _, part := range []string{path, "format 2", "knows 1", "install"} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%q does not say %q", err, part)
					}
				}
			}
			if after := contents(t, dir); !maps.Equal(before, after) {
				t.Errorf("have the files %v, had %v, or one is not what it was", slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
			}
		})
	}
}

// contents is what is in a state directory, without the lock.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.Name() == lockFile {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[f.Name()] = string(b)
	}
	return files
}

// What is damaged is set aside, whatever the damage is.
func TestDamagedJournal(t *testing.T) {
	damages := map[string]func(content []byte) []byte{
		"zeros":        func(b []byte) []byte { return make([]byte, len(b)) },
		"stump":        func(b []byte) []byte { return b[:5000] },
		"other format": func(b []byte) []byte { return []byte(strings.Repeat("not a journal\n", 2000)) },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j := mustOpen(t, dir)
			if err := errors.Join(j.add(newEntry("a")), j.close()); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, journalFile)
			content, _ := os.ReadFile(path)
			content = damage(content)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			j = mustOpen(t, dir)
			if j.meta("replaced") == "" {
				t.Error("the new journal does not know that it replaces a damaged one")
			}
			kept, _ := filepath.Glob(path + ".damaged-*")
			if len(kept) != 1 {
				t.Fatalf("set aside: %v", kept)
			}
			// On Windows bbolt has lengthened it, to map it.
			if b, _ := os.ReadFile(kept[0]); !bytes.Equal(bytes.TrimRight(b, "\x00"), bytes.TrimRight(content, "\x00")) {
				t.Error("the damaged file was changed")
			}
		})
	}
}

// A lost page may make bbolt panic on a goroutine of its own, which ends the
// process. Whatever happens, the file is set aside at the third start at the
// latest, untouched, and the one that replaces it knows.
func TestJournalThatCannotBeOpened(t *testing.T) {
	if dir := os.Getenv("TERMINALOPS_TEST_JOURNAL"); dir != "" {
		mustOpen(t, dir) // in a child
		return
	}
	dir := t.TempDir()
	j := mustOpen(t, dir)
	page := j.db.Info().PageSize
	if err := errors.Join(j.add(newEntry("a")), j.close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, journalFile)
	content, _ := os.ReadFile(path)
	clear(content[2*page:])
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for starts := 1; ; starts++ {
		child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		child.Env = append(os.Environ(), "TERMINALOPS_TEST_JOURNAL="+dir)
		out, err := child.CombinedOutput()
		if err == nil {
			break
		}
		if starts == 3 {
			t.Fatalf("the third start fails, too: %v\n%s", err, out)
		}
	}
	if j := mustOpen(t, dir); j.meta("replaced") == "" {
		t.Error("the new journal does not know that it replaces a damaged one")
	}
	kept, _ := filepath.Glob(path + damagedSuffix + "*")
	if len(kept) == 0 {
		t.Fatal("it was not set aside")
	}
	if b, _ := os.ReadFile(kept[0]); string(b) != string(content) {
		t.Error("the damaged file was changed")
	}
}

// A file that ended the process twice is not opened a third time.
func TestJournalIsOpenedTwice(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir)
	j.close()
	attempts := filepath.Join(dir, journalFile+".opening")
	if err := os.WriteFile(attempts, []byte("2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if j := mustOpen(t, dir); j.meta("replaced") == "" {
		t.Error("it was opened a third time")
	}
	if _, err := os.Stat(attempts); err == nil {
		t.Error("the count stays")
	}
}

// The agent ends between setting a damaged journal aside and making the one
// that replaces it.
func TestJournalWasSetAside(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir)
	j.close()
	path := filepath.Join(dir, journalFile)
	if err := os.Rename(path, path+damagedSuffix+"20260629T090000Z"); err != nil {
		t.Fatal(err)
	}
	if j := mustOpen(t, dir); j.meta("replaced") == "" {
		t.Error("the new journal does not know that it replaces a damaged one")
	}
}

// Commands issued before a damaged journal was replaced are not started, those
// issued later are.
func TestCommandsOlderThanTheJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		w.start()
		w.wantNext()
		w.end()
		old := w.command("old", device.EndOfDay)
		ancient := w.command("ancient", device.EndOfDay)
		ancient.ExpiresAt = ancient.IssuedAt
		w.send(old)
		w.send(ancient)
		time.Sleep(time.Second)
		writeJournal(w, []byte(strings.Repeat("damage", 5000)))
		w.start()
		w.wantFinal("old", "outcome_unknown unknown")
		w.wantFinal("ancient", "expired no")
		w.wantActs(1)
		w.end()
		w.start() // it remembers
		w.wantNext()
	})
}

func TestPrune(t *testing.T) {
	j := mustOpen(t, t.TempDir())
	now := time.Now()
	add := func(id string, age time.Duration, change func(*entry)) {
		t.Helper()
		e := newEntry(id)
		e.Command.ExpiresAt = transport.At(now.Add(-age))
		if err := j.add(e); err != nil {
			t.Fatal(err)
		}
		if err := j.advance(e, func(e *entry) {
			e.State, e.FinishedAt, e.Final, e.Reported = finished, now.Add(-age), []byte("{}"), true
			if change != nil {
				change(e)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if err := j.record(e, device.Evidence{Kind: "x", Data: []byte("1")}); err != nil {
			t.Fatal(err)
		}
	}
	const day = 24 * time.Hour
	add("old", 91*day, nil)
	add("young", 89*day, nil)
	add("unreported", 91*day, func(e *entry) { e.Reported = false })
	add("attending", 91*day, func(e *entry) { e.Attending = true })
	add("started", 91*day, func(e *entry) { e.State, e.Final = started, nil })
	add("not expired", 91*day, func(e *entry) { e.Command.ExpiresAt = transport.At(now) })
	gone, err := j.prune(now)
	if err != nil || len(gone) != 1 {
		t.Fatalf("pruned %v, %v; want one", gone, err)
	}
	if e, _ := j.find(terminal, "old"); e != nil {
		t.Error("old was not pruned")
	}
	j.db.View(func(tx *bolt.Tx) error {
		if n := tx.Bucket(bucketEvidence).Stats().KeyN; n != 5 {
			t.Errorf("%d pieces of evidence left, want 5", n)
		}
		return nil
	})
}

// Of too many entries the oldest go, but none of the last 30 days.
func TestPruneByCount(t *testing.T) {
	j := mustOpen(t, t.TempDir())
	j.db.NoSync = true
	now := time.Now()
	const surplus = 40
	err := j.db.Update(func(tx *bolt.Tx) error {
		for i := range keepCount + surplus {
			age := 40 * 24 * time.Hour
			if i < surplus/2 {
				age = 29 * 24 * time.Hour // the oldest by sequence, but still wanted
			}
			e := newEntry(strconv.Itoa(i))
			e.Sequence, _ = tx.Bucket(bucketEntries).NextSequence()
			e.State, e.Reported, e.FinishedAt = finished, true, now.Add(-age)
			e.Command.ExpiresAt = transport.At(now.Add(-age))
			if err := errors.Join(put(tx, *e), tx.Bucket(bucketIDs).Put(idKey(terminal, e.Command.OperationID), sequenceKey(e.Sequence))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	gone, err := j.prune(now)
	if err != nil || len(gone) != surplus/2 {
		t.Errorf("pruned %d, %v; want %d: the count gives way to the 30 days", len(gone), err, surplus/2)
	}
}

// breakDisk has each write to the journal fail, with an error that says so, while
// broken is true.
func (w *world) breakDisk(says string) (broken *atomic.Bool) {
	broken = new(atomic.Bool)
	w.options.cut = func(when string) error {
		if broken.Load() && when == "before" {
			return errors.New(says)
		}
		return nil
	}
	return broken
}

// A disk that is full refuses new commands: they are not acknowledged, presence
// says why, and they run once there is room again. A result is never refused.
func TestDiskFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := memory(t)
		full := w.breakDisk("write journal.db: no space left on device")
		w.device.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done}})
		w.start()
		w.wantNext()
		full.Store(true)
		w.send(w.command("x", device.EndOfDay))
		synctest.Wait()
		if n := b.Unacknowledged(terminal); n != 1 {
			t.Errorf("%d messages are not acknowledged, want 1", n)
		}
		if p := string(b.Retained(terminal, transport.Presence)); !strings.Contains(p, "no space left on device") {
			t.Errorf("presence does not say why: %s", p)
		}
		full.Store(false)
		w.wantFinal("x", "COMPLETED")
		w.wantActs(2)
		synctest.Wait()
		if p := string(b.Retained(terminal, transport.Presence)); strings.Contains(p, "no space left") {
			t.Errorf("presence still says so: %s", p)
		}
	})
}

// Once there is room again presence and status say so, although no command has
// come, and whether the broker is there or not.
func TestDiskHasRoomAgain(t *testing.T) {
	for _, connected := range []bool{true, false} {
		t.Run(fmt.Sprintf("connected %v", connected), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, b := memory(t)
				full := w.breakDisk("write journal.db: no space left on device")
				says := func(where string) bool {
					text := string(b.Retained(terminal, transport.Presence))
					if where == "status" {
						s, err := w.agent.Status()
						if err != nil {
							t.Fatal(err)
						}
						text = s.Lanes[0].Detail
					}
					return strings.Contains(text, "no space left")
				}
				w.start()
				w.wantNext()
				full.Store(true)
				w.send(w.command("x", device.EndOfDay))
				time.Sleep(2 * time.Minute) // in which x expires, too
				if !connected {
					b.Down()
				}
				for _, where := range []string{"presence", "status"} {
					if !says(where) {
						t.Errorf("%s does not say that the disk is full", where)
					}
				}
				full.Store(false)
				time.Sleep(troubleEvery + time.Second)
				if says("status") {
					t.Error("status still says so")
				}
				if !connected {
					b.Up()
					time.Sleep(time.Minute)
				}
				if says("presence") {
					t.Error("presence still says so")
				}
				w.wantFinal("x", "expired no")
			})
		})
	}
}

// A disk that fails when an operation would start: it waits, and starts once
// the disk is well again, or ends at its deadline.
func TestDiskFailsAtTheStart(t *testing.T) {
	for _, outage := range []time.Duration{10 * time.Second, 5 * time.Minute} {
		t.Run(outage.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _ := memory(t)
				broken := w.breakDisk("write journal.db: input/output error")
				w.device.Set(devicetest.Script{Before: device.ErrBusy})
				w.start()
				w.send(w.command("x", device.EndOfDay))
				w.cloud.await(t, time.Minute, "ACCEPTED", func() bool { return !w.cloud.pending["x"].AcceptedAt.IsZero() })
				broken.Store(true)
				w.device.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done}})
				time.Sleep(outage)
				w.wantActs(0)
				broken.Store(false)
				if outage < time.Minute {
					w.wantFinal("x", "COMPLETED")
				} else {
					w.wantFinal("x", "agent_error no")
				}
				w.wantNext()
			})
		})
	}
}

// The room for the result of an accepted operation is in the file already.
func TestReservedRoom(t *testing.T) {
	j := mustOpen(t, t.TempDir())
	e := newEntry("a")
	if err := j.add(e); err != nil {
		t.Fatal(err)
	}
	size := func() int64 {
		info, err := os.Stat(j.db.Path())
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	highWater := func() (pages uint64) {
		j.db.View(func(tx *bolt.Tx) error { pages = uint64(tx.Size()) / uint64(j.db.Info().PageSize); return nil })
		return pages
	}
	before, pages := size(), highWater()
	text := strings.Repeat("SUMME EUR 12,34 ", 60) // about a KiB
	for range 20 {
		if err := j.record(e, device.Evidence{Kind: "receipt", Data: []byte(strconv.Quote(text))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.advance(e, func(e *entry) { e.State, e.Final = finished, bytes.Repeat([]byte("x"), transport.MaxPayload) }); err != nil {
		t.Fatal(err)
	}
	if after := size(); after != before || highWater() != pages {
		t.Errorf("a result made the file grow from %d to %d bytes, from %d to %d pages", before, after, pages, highWater())
	}
}
