package transporttest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"terminalops/transport"
)

// Recorder is a [transport.Handler] that keeps what happens to it.
type Recorder struct {
	// Will is what Connecting returns; may be nil.
	Will func() []byte
	// Verdict is what Receive returns; nil means nil.
	Verdict func(transport.Message) error
	// During is called by Receive before anything else; may be nil.
	During func(context.Context, transport.Message)
	// Leaving is called by Connected when its ctx has ended; may be nil.
	Leaving func(transport.Sender)

	mu        sync.Mutex
	changed   chan struct{}
	received  []transport.Message
	connected int
	sender    transport.Sender // nil while there is no connection
}

// NewRecorder returns a Recorder that acknowledges everything.
func NewRecorder() *Recorder { return &Recorder{changed: make(chan struct{})} }

// Connecting implements [transport.Handler].
func (r *Recorder) Connecting() []byte {
	if r.Will == nil {
		return nil
	}
	return r.Will()
}

// Connected implements [transport.Handler].
func (r *Recorder) Connected(ctx context.Context, s transport.Sender) {
	r.change(func() { r.connected++; r.sender = s })
	<-ctx.Done()
	if r.Leaving != nil {
		r.Leaving(s)
	}
	r.change(func() { r.sender = nil })
}

// Receive implements [transport.Handler].
func (r *Recorder) Receive(ctx context.Context, m transport.Message) error {
	if r.During != nil {
		r.During(ctx, m)
	}
	var err error
	if r.Verdict != nil {
		err = r.Verdict(m)
	}
	r.change(func() { r.received = append(r.received, m) })
	return err
}

func (r *Recorder) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.changed)
	r.changed = make(chan struct{})
}

// Received returns everything that was received, in order.
func (r *Recorder) Received() []transport.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.received)
}

// Payloads returns the payloads received of one kind, in order.
func (r *Recorder) Payloads(k transport.Kind) []string {
	var payloads []string
	for _, m := range r.Received() {
		if m.Kind == k {
			payloads = append(payloads, string(m.Payload))
		}
	}
	return payloads
}

// Connections returns how often Connected was called.
func (r *Recorder) Connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.connected
}

// Sender returns the Sender of the present connection, nil without one.
func (r *Recorder) Sender() transport.Sender {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sender
}

// AwaitConnected waits for a connection and returns its Sender.
func (r *Recorder) AwaitConnected(t testing.TB, within time.Duration) (s transport.Sender) {
	t.Helper()
	r.Await(t, within, "a connection", func() bool {
		s = r.Sender()
		return s != nil
	})
	return s
}

// Await waits until cond holds; it is asked again after every call of the
// handler. The test fails after within.
func (r *Recorder) Await(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			var received strings.Builder
			for _, m := range r.Received() {
				fmt.Fprintf(&received, "%s/%s retained=%t %.80s\n", m.TerminalID, m.Kind, m.Retained, m.Payload)
			}
			t.Fatalf("%s: not within %v; received:\n%s", what, within, &received)
		}
	}
}

// Start runs e with h until the test ends, or stop is called; stop waits for it.
func Start(t testing.TB, e transport.End, h transport.Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx, h) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}
