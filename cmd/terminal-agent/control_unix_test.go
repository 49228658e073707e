//go:build !windows

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"terminalops/agent"
	"terminalops/device"
	"terminalops/device/zvt/zvttest"
	"terminalops/transport"
	"terminalops/transport/mqtt"
	"terminalops/transport/transporttest/brokers"
)

// patience is for everything that is awaited in real time: longer than T4.
const patience = 5 * time.Minute

// The real processes: an engineer types a command at the moment at which the
// cloud's arrives, again and again. The terminal never has two dialogues, and
// both get an outcome.
func TestEngineerAndCloudAtTheSameMoment(t *testing.T) {
	const rounds = 8
	t.Parallel()
	terminal := newSimulated(t, nil)
	broker := brokers.StartNATS(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, `state_dir = %q
[broker]
urls = ["tcp://%s"]
[[terminal]]
id = "T1"
protocol = "zvt"
link = "tcp:%s"
`, filepath.Join(dir, "state"), broker, terminal.address), 0o600); err != nil {
		t.Fatal(err)
	}
	cloud := newCloud(t, broker)
	process(t, "run", "--config", file)
	cloud.await("a hello", func() bool { return len(cloud.hellos) > 0 })

	closed := 0
	for i := range rounds {
		c := transport.Command{
			OperationID: fmt.Sprint("cloud-", i), TerminalID: "T1", Operation: string(device.EndOfDay),
			IssuedAt: transport.At(time.Now()), ExpiresAt: transport.At(time.Now().Add(time.Minute)),
		}
		var sending sync.WaitGroup
		sending.Go(func() {
			// A process takes some 30 ms to begin: so either is the first, now and then.
			timer := time.NewTimer(time.Duration(i) * 12 * time.Millisecond)
			<-timer.C
			cloud.send(transport.Commands, transport.Encode(c))
		})
		out, err := agentProcess("operation", "run", "end_of_day", "--json", "--config", file).Output()
		var r agent.Report
		if json.Unmarshal(out, &r) != nil || r.State != transport.StateCompleted && (r.Error == nil || r.Error.Executed != transport.ExecutedNo) {
			t.Errorf("round %d: the engineer is told %s, %v", i, out, err)
		}
		sending.Wait()
		for _, id := range []string{c.OperationID, r.OperationID} {
			if cloud.awaitFinal(id) == transport.StateCompleted {
				closed++
			} else {
				t.Logf("round %d: %s came to nothing", i, id)
			}
		}
	}
	// On a machine that is too busy one may come to nothing; then nothing was done.
	if closed < rounds {
		t.Errorf("%d of %d came to something", closed, 2*rounds)
	}
	terminal.check(t, closed)
}

// process is the agent in a process of its own.
func process(t *testing.T, args ...string) {
	t.Helper()
	cmd := agentProcess(args...)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	})
}

// simulated is a terminal on TCP.
type simulated struct {
	*zvttest.Terminal
	address string

	mu    sync.Mutex
	lines []string // what it hears and does
}

// newSimulated is a terminal that works fast, by its clock; nil: the PC's.
func newSimulated(t *testing.T, clock func() time.Time) *simulated {
	t.Helper()
	s := new(simulated)
	var err error
	if s.Terminal, err = zvttest.New(zvttest.Options{Fast: true, Clock: clock, Tell: func(line string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lines = append(s.lines, line)
	}}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	var serving sync.WaitGroup
	line := make(chan struct{}, 1) // a terminal has one
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				line <- struct{}{}
				defer func() { <-line }()
				s.ServeTCP(context.Background(), conn)
				conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
		s.Close()
	})
	return s
}

// check wants n ends of day, each of which ends before the next begins.
func (s *simulated) check(t *testing.T, n int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	acting := false
	for i, line := range s.lines {
		switch {
		case strings.HasPrefix(line, "<- end-of-day"):
			if acting {
				t.Fatalf("two at a time: %q", s.lines[max(i-10, 0):i+1])
			}
			acting = true
		case strings.HasPrefix(line, "-> completion"), strings.HasPrefix(line, "-> abort"):
			acting = false
		}
	}
	if did := len(s.Did(zvttest.EndOfDay)); did != n {
		t.Errorf("the terminal did %d ends of day, was asked for %d", did, n)
	}
	if v := s.Violations(); len(v) > 0 {
		t.Errorf("violations: %q", v)
	}
}

// cloud is the dispatcher's end as far as an agent can tell.
type cloud struct {
	t      *testing.T
	mu     sync.Mutex
	sender transport.Sender
	hellos map[string]bool   // by nonce: a broker may deliver one again
	gone   bool              // the agent has said goodbye itself: a last will has no time
	finals map[string]string // states
	news   chan struct{}     // capacity 1
}

func newCloud(t *testing.T, broker string) *cloud {
	c := &cloud{t: t, hellos: map[string]bool{}, finals: map[string]string{}, news: make(chan struct{}, 1)}
	end := mqtt.Cloud(mqtt.Options{URLs: []string{"tcp://" + broker}, Prefix: "terminals", Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}, "cloud")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- end.Run(ctx, c) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error("cloud:", err)
		}
	})
	c.await("its connection", func() bool { return c.sender != nil })
	return c
}

func (c *cloud) Connecting() []byte { return nil }

func (c *cloud) Connected(ctx context.Context, s transport.Sender) {
	c.change(func() { c.sender = s })
	<-ctx.Done()
}

func (c *cloud) Receive(_ context.Context, m transport.Message) error {
	switch m.Kind {
	case transport.Hello:
		if h, err := transport.DecodeHello(m.Payload); err == nil {
			c.change(func() { c.hellos[h.Nonce] = true })
			go c.send(transport.Welcome, transport.Encode(transport.WelcomeMessage{Nonce: h.Nonce, ServerTime: transport.At(time.Now())}))
		}
	case transport.Presence:
		if p, err := transport.DecodePresence(m.Payload); err == nil && p.State == transport.Offline && !p.At.IsZero() {
			c.change(func() { c.gone = true })
		}
	case transport.Reports:
		if r, err := transport.DecodeReport(m.Payload, m.TerminalID); err == nil && r.Final() {
			c.change(func() { c.finals[r.OperationID] = r.State })
		}
	}
	return nil
}

func (c *cloud) change(f func()) {
	c.mu.Lock()
	f()
	c.mu.Unlock()
	select {
	case c.news <- struct{}{}:
	default:
	}
}

func (c *cloud) send(k transport.Kind, payload []byte) {
	c.mu.Lock()
	sender := c.sender
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := sender.Send(ctx, "T1", k, payload); err != nil && k == transport.Commands {
		c.t.Error("cloud:", err)
	}
}

// awaitFinal waits for the final report of an operation and returns its state.
func (c *cloud) awaitFinal(id string) (state string) {
	c.t.Helper()
	c.await("the final report of "+id, func() bool { state = c.finals[id]; return state != "" })
	return state
}

// greeted is how many hellos there were.
func (c *cloud) greeted() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.hellos)
}

// await waits until cond holds, which is called with c.mu held.
func (c *cloud) await(what string, cond func() bool) {
	c.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		c.mu.Lock()
		ok := cond()
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-c.news:
		case <-timeout.C:
			c.t.Fatalf("no %s within %v", what, patience)
		}
	}
}
