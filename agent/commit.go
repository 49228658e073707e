package agent

import (
	"sync"

	bolt "go.etcd.io/bbolt"
)

// commits brings writes to the disk. Those that wait at the same time get there
// in one transaction: many lanes that begin at the same moment wait as long as a
// few, and what a terminal says only once is on disk before the terminal gives
// up waiting for the answer (T3).
//
//	lane 1  write ----------------------[ 1 ]
//	lane 2  write .......................|...[ 2 3 4 ]
//	lane 3       write ..................|...|
//	lane 4            write .............|...|
//	lane 5                                  write ....[ 5 ]
//
// The one whose turn it is writes for all that wait.
type commits struct {
	db   *bolt.DB
	turn chan struct{} // capacity 1: full while somebody writes

	mu      sync.Mutex
	waiting []*write
}

// write is a change that somebody waits for.
type write struct {
	change func(tx *bolt.Tx) error
	err    error
	done   chan struct{} // closed when err is known
}

func newCommits(db *bolt.DB) *commits {
	return &commits{db: db, turn: make(chan struct{}, 1)}
}

// update makes a change, which is on disk when update returns nil. change may be
// called twice, each time as if it were the first, and on another goroutine.
func (c *commits) update(change func(tx *bolt.Tx) error) error {
	w := &write{change: change, done: make(chan struct{})}
	c.mu.Lock()
	c.waiting = append(c.waiting, w)
	c.mu.Unlock()
	select {
	case <-w.done:
	case c.turn <- struct{}{}:
		c.writeWaiting()
		<-c.turn
	}
	return w.err // it was among the waiting, or had been before
}

// writeWaiting makes all changes that wait. One that fails costs the others
// nothing; a disk that fails, fails for all. (Room is no reason to: what waits here
// has its room reserved. Who has none writes alone.)
func (c *commits) writeWaiting() {
	c.mu.Lock()
	all := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	if len(all) == 0 {
		return
	}
	refused := false
	err := c.db.Update(func(tx *bolt.Tx) error {
		for _, w := range all {
			if err := w.change(tx); err != nil {
				refused = true
				return err
			}
		}
		return nil
	})
	for _, w := range all {
		w.err = err
		if refused && len(all) > 1 {
			w.err = c.db.Update(w.change)
		}
		close(w.done)
	}
}
