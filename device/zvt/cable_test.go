package zvt_test

import (
	"io"
	"os"
	"sync"
	"time"
)

// cable is a link with two ends, which holds what was written until it is read,
// as the system does for serial ports and sockets. (A Write on a net.Pipe waits
// for the reader.) It works in a bubble of testing/synctest.
func cable() (a, b *end) {
	one, other := newLane(), newLane()
	return &end{in: one, out: other}, &end{in: other, out: one}
}

// lane is one direction.
type lane struct {
	mu       sync.Mutex
	changed  *sync.Cond
	bytes    []byte
	closed   bool // by the writer, or with it the whole cable
	deadline time.Time
	alarm    *time.Timer
}

func newLane() *lane {
	l := &lane{}
	l.changed = sync.NewCond(&l.mu)
	return l
}

// end is a frame.Stream.
type end struct{ in, out *lane }

func (e *end) Read(p []byte) (int, error) {
	l := e.in
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case !l.deadline.IsZero() && !time.Now().Before(l.deadline):
			return 0, os.ErrDeadlineExceeded
		case len(l.bytes) > 0:
			n := copy(p, l.bytes)
			l.bytes = l.bytes[n:]
			return n, nil
		case l.closed:
			return 0, io.EOF
		}
		l.changed.Wait()
	}
}

func (e *end) Write(p []byte) (int, error) {
	l := e.out
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, io.ErrClosedPipe
	}
	l.bytes = append(l.bytes, p...)
	l.changed.Broadcast()
	return len(p), nil
}

func (e *end) Close() error {
	for _, l := range []*lane{e.in, e.out} {
		l.mu.Lock()
		l.closed = true
		l.changed.Broadcast()
		l.mu.Unlock()
	}
	return nil
}

func (e *end) SetReadDeadline(t time.Time) error {
	l := e.in
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.alarm != nil {
		l.alarm.Stop()
	}
	if l.deadline = t; !t.IsZero() {
		l.alarm = time.AfterFunc(time.Until(t), func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.changed.Broadcast()
		})
	}
	return nil
}

// SetWriteDeadline does nothing: no Write waits.
func (e *end) SetWriteDeadline(time.Time) error { return nil }
