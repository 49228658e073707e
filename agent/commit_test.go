package agent

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"terminalops/device"
	"terminalops/transport"
)

// all runs f for 0 to n-1 side by side and returns when each has returned.
func all(n int, f func(i int)) {
	var g sync.WaitGroup
	for i := range n {
		g.Go(func() { f(i) })
	}
	g.Wait()
}

// meanwhile runs f when n writes wait for the disk, which it is not yet the turn
// of any of them to get.
func (c *commits) meanwhile(n int, write func(i int)) {
	c.turn <- struct{}{}
	var g sync.WaitGroup
	g.Go(func() { all(n, write) })
	for waiting := 0; waiting < n; runtime.Gosched() {
		c.mu.Lock()
		waiting = len(c.waiting)
		c.mu.Unlock()
	}
	<-c.turn
	g.Wait()
}

// transactions is how many there were.
func transactions(j *journal) (n int) {
	j.db.View(func(tx *bolt.Tx) error { n = tx.ID(); return nil })
	return n
}

// What waits for the disk at the same time gets there at once, and all of it.
func TestWritesThatWaitTogether(t *testing.T) {
	const n = 100
	dir := t.TempDir()
	j := mustOpen(t, dir)
	var entries [n]*entry
	for i := range n {
		entries[i] = newEntry(fmt.Sprint(i))
		if err := j.add(entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	before := transactions(j)
	j.commits.meanwhile(n, func(i int) {
		if err := j.record(entries[i], device.Evidence{Kind: fmt.Sprint("of ", i)}); err != nil {
			t.Error(err)
		}
	})
	if took := transactions(j) - before; took != 1 {
		t.Errorf("%d writes took %d transactions", n, took)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	j = mustOpen(t, dir)
	for i, e := range entries {
		if have, err := j.evidence(e); err != nil || len(have) != 1 || have[0].Kind != fmt.Sprint("of ", i) {
			t.Errorf("%d: %+v, %v", i, have, err)
		}
	}
}

// A write that cannot be made costs those that wait with it nothing.
func TestWriteThatFailsAmongOthers(t *testing.T) {
	const n, bad = 20, 7
	j := mustOpen(t, t.TempDir())
	wrong := errors.New("wrong")
	j.commits.meanwhile(n, func(i int) {
		err := j.update(func(tx *bolt.Tx) error {
			b := tx.Bucket(bucketMeta)
			if err := b.Put([]byte(fmt.Sprint("key ", i)), []byte("there")); err != nil || i != bad {
				return err
			}
			return wrong
		})
		if i == bad && !errors.Is(err, wrong) || i != bad && err != nil {
			t.Errorf("%d: %v", i, err)
		}
	})
	for i := range n {
		if there := j.meta(fmt.Sprint("key ", i)) != ""; there == (i == bad) {
			t.Errorf("%d: is there: %v", i, there)
		}
	}
}

// What may find no room on the disk waits with nobody: a result that waits with it
// would fail with it.
func TestWritesThatMayFindNoRoom(t *testing.T) {
	j := mustOpen(t, t.TempDir())
	e, now := newEntry("old"), time.Now()
	e.Command.ExpiresAt = transport.At(now.Add(-keepAge - time.Hour))
	if err := j.add(e); err != nil {
		t.Fatal(err)
	}
	if err := j.advance(e, func(e *entry) { e.State, e.FinishedAt = finished, now.Add(-keepAge-time.Hour) }); err != nil {
		t.Fatal(err)
	}
	for what, write := range map[string]func() error{
		"pruning": func() error {
			gone, err := j.prune(now)
			if len(gone) != 1 {
				t.Errorf("pruned %d", len(gone))
			}
			return err
		},
		"making room": func() error { return j.makeRoom(100) },
	} {
		j.commits.turn <- struct{}{} // others write, and are at it for long
		written := make(chan error, 1)
		go func() { written <- write() }()
		select {
		case err := <-written:
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(time.Minute):
			t.Errorf("%s waits with others", what)
		}
		<-j.commits.turn
	}
}

// However many operations there are, there is room for each of them.
func TestReservedRoomOfEach(t *testing.T) {
	j := mustOpen(t, t.TempDir())
	for i := range 40 {
		if err := j.add(newEntry(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		s := j.db.Stats()
		if have, want := s.FreePageN+s.PendingPageN, (i+1)*roomPerOperation/j.pageSize; have < want {
			t.Errorf("%d operations: %d pages are free, want %d", i+1, have, want)
		}
	}
}

// Operations of several lanes that come at the same moment have room each.
func TestReservedRoomAtTheSameMoment(t *testing.T) {
	const n = 40
	j := mustOpen(t, t.TempDir())
	var entries [n]*entry
	all(n, func(i int) {
		entries[i] = newEntry(fmt.Sprint(i))
		if err := j.add(entries[i]); err != nil {
			t.Error(err)
		}
	})
	before := hw(j)
	for _, e := range entries {
		if err := j.advance(e, func(e *entry) { e.State, e.Final = finished, []byte(strings.Repeat("x", transport.MaxPayload)) }); err != nil {
			t.Fatal(err)
		}
	}
	if after := hw(j); after != before {
		t.Errorf("results grew the file from %d to %d pages", before, after)
	}
	if left := j.unfinished.Load(); left != 0 {
		t.Errorf("room is kept for %d operations", left)
	}
}
