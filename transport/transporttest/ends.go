package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"terminalops/transport"
)

// Setup is both ends of a transport with a broker of their own between them.
// The ends connect again within a second or two, and for redelivery too.
type Setup struct {
	Agent func(terminalID string) transport.End
	Cloud func() transport.End
	// Cut breaks the connection of a terminal so that the broker notices.
	Cut func(terminalID string)
	// Publish publishes as anybody.
	Publish func(terminalID string, k transport.Kind, payload []byte, retained bool)
}

// patience is how long anything may take in TestEnds.
const patience = time.Minute

// TestEnds tests that the ends keep the contract of [transport.End]. It calls
// setup for every part.
func TestEnds(t *testing.T, setup func(t *testing.T) Setup) {
	for _, part := range []struct {
		name string
		test func(*testing.T, Setup)
	}{
		{"both ways, in order", testBothWays},
		{"presence is retained", testPresenceIsRetained},
		{"offline", testOffline},
		{"not dealt with", testNotDealtWith},
		{"cut", testCut},
		{"cut while receiving", testCutWhileReceiving},
		{"last words", testLastWords},
		{"too large", testTooLarge},
		{"retained command", testRetainedCommand},
		{"run again", testRunAgain},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, setup(t)) })
	}
}

// startBoth starts the cloud's end and that of terminal T1, and waits for both.
func startBoth(t *testing.T, s Setup, agent, cloud *Recorder) (stopAgent func()) {
	t.Helper()
	Start(t, s.Cloud(), cloud)
	cloud.AwaitConnected(t, patience)
	stopAgent = Start(t, s.Agent("T1"), agent)
	agent.AwaitConnected(t, patience)
	return stopAgent
}

func mustSend(t *testing.T, r *Recorder, k transport.Kind, payload string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.AwaitConnected(t, patience).Send(ctx, "T1", k, []byte(payload)); err != nil {
		t.Fatal(err)
	}
}

func awaitExactly(t *testing.T, r *Recorder, k transport.Kind, want ...string) {
	t.Helper()
	r.Await(t, patience, fmt.Sprintf("%s %.20q", k, want), func() bool { return slices.Equal(r.Payloads(k), want) })
}

// awaitInOrder waits until what is wanted has arrived in this order, whatever of it
// was delivered again.
func awaitInOrder(t *testing.T, r *Recorder, k transport.Kind, want ...string) {
	t.Helper()
	r.Await(t, patience, fmt.Sprintf("%s %.20q", k, want), func() bool {
		var first []string
		seen := make(map[string]bool)
		for _, p := range r.Payloads(k) {
			if !seen[p] {
				first = append(first, p)
			}
			seen[p] = true
		}
		return slices.Equal(first, want)
	})
}

// awaitAll waits until all that is wanted has arrived, as often as it stands
// there or more often. Messages that are delivered again need not be in order.
func awaitAll(t *testing.T, r *Recorder, k transport.Kind, want ...string) {
	t.Helper()
	r.Await(t, patience, fmt.Sprintf("%s %q", k, want), func() bool {
		have := r.Payloads(k)
		for _, w := range want {
			i := slices.Index(have, w)
			if i < 0 {
				return false
			}
			have = slices.Delete(have, i, i+1)
		}
		return true
	})
}

func testBothWays(t *testing.T, s Setup) {
	agent, cloud := NewRecorder(), NewRecorder()
	var inside atomic.Int32
	agent.Verdict = func(transport.Message) error {
		if inside.Add(1) != 1 {
			t.Error("Receive was called while it ran")
		}
		inside.Add(-1)
		return nil
	}
	startBoth(t, s, agent, cloud)
	var want []string
	for i := range 200 {
		want = append(want, strconv.Itoa(i))
		mustSend(t, cloud, transport.Commands, want[i])
		mustSend(t, agent, transport.Reports, want[i])
	}
	mustSend(t, cloud, transport.Welcome, "welcome")
	mustSend(t, agent, transport.Hello, "hello")
	awaitInOrder(t, agent, transport.Commands, want...)
	awaitInOrder(t, cloud, transport.Reports, want...)
	awaitExactly(t, agent, transport.Welcome, "welcome")
	awaitExactly(t, cloud, transport.Hello, "hello")
	for _, m := range slices.Concat(agent.Received(), cloud.Received()) {
		if m.TerminalID != "T1" || m.Retained {
			t.Fatalf("received %+v", m)
		}
	}
}

func testPresenceIsRetained(t *testing.T, s Setup) {
	agent, cloud := NewRecorder(), NewRecorder()
	Start(t, s.Agent("T1"), agent)
	mustSend(t, agent, transport.Presence, "online")
	mustSend(t, agent, transport.Reports, "nobody has asked for this yet")
	// A broker may have what is retained some moments after it has acknowledged it:
	// NATS. Who comes in between does not get it.
	for n := 0; len(cloud.Payloads(transport.Presence)) == 0 && n < 100; n++ {
		stop := Start(t, s.Cloud(), cloud)
		cloud.AwaitConnected(t, patience)
		report := strconv.Itoa(n)
		mustSend(t, agent, transport.Reports, report)
		cloud.Await(t, patience, "report "+report, func() bool { return slices.Contains(cloud.Payloads(transport.Reports), report) })
		stop()
	}
	if !slices.ContainsFunc(cloud.Received(), func(m transport.Message) bool {
		return m.Kind == transport.Presence && string(m.Payload) == "online" && m.Retained
	}) {
		t.Errorf("received %+v, want the presence, retained", cloud.Received())
	}
	if reports := cloud.Payloads(transport.Reports); reports[0] != "0" {
		t.Errorf("reports %q, want those since it has subscribed", reports)
	}
}

func testOffline(t *testing.T, s Setup) {
	agent, cloud := NewRecorder(), NewRecorder()
	stop := startBoth(t, s, agent, cloud)
	stop()
	mustSend(t, cloud, transport.Commands, "1")
	mustSend(t, cloud, transport.Commands, "2")
	again := NewRecorder()
	stop = Start(t, s.Agent("T1"), again)
	awaitAll(t, again, transport.Commands, "1", "2")
	stop()
	awaitNothingLeft(t, s, cloud)
}

// awaitNothingLeft waits until a new connection of the agent brings nothing that
// an earlier one has dealt with: all of it is acknowledged. One connection may
// still bring some, if the last one ended before its acknowledgements got
// through.
func awaitNothingLeft(t *testing.T, s Setup, cloud *Recorder) {
	t.Helper()
	var received []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		agent := NewRecorder()
		stop := Start(t, s.Agent("T1"), agent)
		mustSend(t, cloud, transport.Commands, "marker")
		agent.Await(t, patience, "the marker", func() bool {
			received = agent.Payloads(transport.Commands)
			return slices.Contains(received, "marker")
		})
		stop()
		if !slices.ContainsFunc(received, func(p string) bool { return p != "marker" }) {
			return
		}
	}
	t.Fatalf("what was acknowledged comes again and again: %.80q", received)
}

func testNotDealtWith(t *testing.T, s Setup) {
	agent, cloud := NewRecorder(), NewRecorder()
	var refused atomic.Bool
	agent.Will = func() []byte { return []byte("gone") }
	agent.Verdict = func(m transport.Message) error {
		if string(m.Payload) == "difficult" && refused.CompareAndSwap(false, true) {
			return errors.New("the journal is full")
		}
		return nil
	}
	startBoth(t, s, agent, cloud)
	mustSend(t, cloud, transport.Commands, "difficult")
	mustSend(t, cloud, transport.Commands, "easy")
	awaitAll(t, agent, transport.Commands, "difficult", "easy", "difficult")
	mustSend(t, agent, transport.Reports, "still here")
	awaitExactly(t, cloud, transport.Reports, "still here")
	if got := cloud.Payloads(transport.Presence); len(got) != 0 {
		t.Errorf("presence %q, want no last will", got)
	}
}

func testCut(t *testing.T, s Setup) {
	agent, cloud := NewRecorder(), NewRecorder()
	var wills atomic.Int32
	agent.Will = func() []byte { return fmt.Appendf(nil, "gone %d", wills.Add(1)) }
	startBoth(t, s, agent, cloud)
	sender := agent.AwaitConnected(t, patience)
	s.Cut("T1")
	awaitExactly(t, cloud, transport.Presence, "gone 1")
	agent.Await(t, patience, "connected again", func() bool { return agent.Connections() >= 2 })
	if err := sender.Send(t.Context(), "T1", transport.Reports, []byte("1")); !errors.Is(err, transport.ErrNotConnected) {
		t.Errorf("Send on the connection of before returned %v", err)
	}
	mustSend(t, cloud, transport.Commands, "2")
	awaitExactly(t, agent, transport.Commands, "2")
	last := fmt.Sprintf("gone %d", wills.Load())
	s.Cut("T1")
	awaitExactly(t, cloud, transport.Presence, "gone 1", last)
}

func testCutWhileReceiving(t *testing.T, s Setup) {
	agent, cloud := NewRecorder(), NewRecorder()
	agent.During = func(ctx context.Context, m transport.Message) {
		if len(agent.Received()) == 0 {
			s.Cut("T1")
			<-ctx.Done()
		}
	}
	startBoth(t, s, agent, cloud)
	mustSend(t, cloud, transport.Commands, "1")
	awaitAll(t, agent, transport.Commands, "1", "1")
}

// testLastWords: when Run's ctx ends, Connected's does, and what Connected
// sends then still arrives; the last will does not.
func testLastWords(t *testing.T, s Setup) {
	agent, cloud := NewRecorder(), NewRecorder()
	agent.Will = func() []byte { return []byte("gone") }
	agent.Leaving = func(sender transport.Sender) {
		if err := sender.Send(context.Background(), "T1", transport.Presence, []byte("offline")); err != nil {
			t.Errorf("last words: %v", err)
		}
	}
	stop := startBoth(t, s, agent, cloud)
	stop()
	mustSend(t, cloud, transport.Hello, "marker") // a will would come before it
	awaitExactly(t, cloud, transport.Hello, "marker")
	awaitExactly(t, cloud, transport.Presence, "offline")
}

func testTooLarge(t *testing.T, s Setup) {
	agent, cloud := NewRecorder(), NewRecorder()
	stop := startBoth(t, s, agent, cloud)
	largest := strings.Repeat("x", transport.MaxPayload)
	mustSend(t, cloud, transport.Commands, largest)
	s.Publish("T1", transport.Commands, bytes.Repeat([]byte("y"), 10*transport.MaxPayload), false)
	mustSend(t, cloud, transport.Commands, "next")
	awaitExactly(t, agent, transport.Commands, largest, strings.Repeat("y", transport.MaxPayload+1), "next")
	if err := cloud.AwaitConnected(t, patience).Send(t.Context(), "T1", transport.Commands, []byte(largest+"x")); err == nil {
		t.Error("Send takes more than MaxPayload")
	}
	stop()
	awaitNothingLeft(t, s, cloud)
}

func testRetainedCommand(t *testing.T, s Setup) {
	s.Publish("T1", transport.Commands, []byte("old"), true)
	agent := NewRecorder()
	Start(t, s.Agent("T1"), agent)
	awaitExactly(t, agent, transport.Commands, "old")
	if m := agent.Received()[0]; !m.Retained {
		t.Errorf("received %+v, want it retained", m)
	}
}

// testRunAgain: the same end, run a second time, goes on with its session.
func testRunAgain(t *testing.T, s Setup) {
	agent, cloud := NewRecorder(), NewRecorder()
	Start(t, s.Cloud(), cloud)
	cloud.AwaitConnected(t, patience)
	end := s.Agent("T1")
	stop := Start(t, end, agent)
	agent.AwaitConnected(t, patience)
	stop()
	mustSend(t, cloud, transport.Commands, "meanwhile")
	again := NewRecorder()
	Start(t, end, again)
	awaitAll(t, again, transport.Commands, "meanwhile")
	mustSend(t, again, transport.Reports, "here")
	awaitExactly(t, cloud, transport.Reports, "here")
}
