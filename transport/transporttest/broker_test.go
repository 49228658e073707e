package transporttest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/transport"
)

const minute = time.Minute

// bubble runs f in virtual time with a broker, a terminal "T1" and the cloud,
// both connected.
func bubble(t *testing.T, f func(t *testing.T, b *Broker, agent, cloud *Recorder)) {
	synctest.Test(t, func(t *testing.T) {
		b, agent, cloud := NewBroker(), NewRecorder(), NewRecorder()
		agent.Will = func() []byte { return []byte("gone") }
		Start(t, b.Agent("T1"), agent)
		Start(t, b.Cloud(), cloud)
		agent.AwaitConnected(t, minute)
		cloud.AwaitConnected(t, minute)
		f(t, b, agent, cloud)
	})
}

func TestBrokerIsATransport(t *testing.T) {
	TestEnds(t, func(t *testing.T) Setup {
		b := NewBroker()
		b.Pause, b.RedeliverAfter = time.Millisecond, 100*time.Millisecond
		return Setup{Agent: b.Agent, Cloud: b.Cloud, Cut: b.Cut, Publish: b.Publish}
	})
}

func send(t *testing.T, r *Recorder, k transport.Kind, payload string) {
	t.Helper()
	if err := r.Sender().Send(context.Background(), "T1", k, []byte(payload)); err != nil {
		t.Fatal(err)
	}
}

func awaitPayloads(t *testing.T, r *Recorder, k transport.Kind, want ...string) {
	t.Helper()
	r.Await(t, minute, "payloads", func() bool { return slices.Equal(r.Payloads(k), want) })
}

func TestOfflineSessionKeepsItsMessages(t *testing.T) {
	bubble(t, func(t *testing.T, b *Broker, agent, cloud *Recorder) {
		b.Cut("T1")
		send(t, cloud, transport.Commands, "1")
		send(t, cloud, transport.Commands, "2")
		awaitPayloads(t, agent, transport.Commands, "1", "2")
		b.Await(t, minute, "acknowledged", func() bool { return b.Unacknowledged("T1") == 0 })
		if got := string(b.Retained("T1", transport.Presence)); got != "gone" {
			t.Errorf("retained presence is %q, want the last will", got)
		}
		awaitPayloads(t, cloud, transport.Presence, "gone")
	})
}

func TestUnacknowledgedIsDeliveredAgain(t *testing.T) {
	bubble(t, func(t *testing.T, b *Broker, agent, cloud *Recorder) {
		full := true
		agent.Verdict = func(transport.Message) error {
			if full {
				full = false
				return errors.New("journal is full")
			}
			return nil
		}
		start := time.Now()
		send(t, cloud, transport.Commands, "1")
		awaitPayloads(t, agent, transport.Commands, "1", "1")
		if took := time.Since(start); took != b.RedeliverAfter+b.Pause {
			t.Errorf("delivered again after %v", took)
		}
		if got := b.PublishedOn("T1", transport.Presence); len(got) != 0 {
			t.Errorf("closing for redelivery published a will: %v", got)
		}
	})
}

func TestConnectionLostDuringReceive(t *testing.T) {
	bubble(t, func(t *testing.T, b *Broker, agent, cloud *Recorder) {
		agent.Verdict = func(transport.Message) error {
			if len(agent.Received()) == 0 {
				b.Cut("T1")
			}
			return nil
		}
		send(t, cloud, transport.Commands, "1")
		awaitPayloads(t, agent, transport.Commands, "1", "1")
	})
}

func TestLostAck(t *testing.T) {
	bubble(t, func(t *testing.T, b *Broker, agent, cloud *Recorder) {
		b.LoseAcks(1)
		err := agent.Sender().Send(context.Background(), "T1", transport.Reports, []byte("done"))
		if !errors.Is(err, transport.ErrNotConnected) {
			t.Fatalf("Send returned %v", err)
		}
		awaitPayloads(t, cloud, transport.Reports, "done")
		agent.Await(t, minute, "connected again", func() bool { return agent.Connections() == 2 && agent.Sender() != nil })
		send(t, agent, transport.Reports, "done")
		awaitPayloads(t, cloud, transport.Reports, "done", "done")
	})
}

func TestDownUp(t *testing.T) {
	bubble(t, func(t *testing.T, b *Broker, agent, cloud *Recorder) {
		sender := agent.Sender()
		b.Down()
		if err := sender.Send(context.Background(), "T1", transport.Reports, nil); !errors.Is(err, transport.ErrNotConnected) {
			t.Errorf("Send returned %v", err)
		}
		time.Sleep(75 * time.Second) // virtual
		if b.Connected("T1") || agent.Connections() != 1 {
			t.Error("connected to a broker that is down")
		}
		b.Up()
		agent.Await(t, minute, "connected again", func() bool { return agent.Sender() != nil })
		if got := b.Published(); len(got) != 0 {
			t.Errorf("published while down: %v", got)
		}
	})
}

func TestForget(t *testing.T) {
	bubble(t, func(t *testing.T, b *Broker, agent, cloud *Recorder) {
		b.Publish("T1", transport.Commands, []byte("kept"), true)
		awaitPayloads(t, agent, transport.Commands, "kept")
		b.Cut("T1")
		b.Publish("T1", transport.Commands, []byte("lost"), false)
		b.Forget()
		b.Await(t, minute, "connected again", func() bool { return b.Connected("T1") })
		synctest.Wait()
		awaitPayloads(t, agent, transport.Commands, "kept")
	})
}

func TestRetainedIsMarkedAtSubscriptionOnly(t *testing.T) {
	bubble(t, func(t *testing.T, b *Broker, agent, cloud *Recorder) {
		b.Publish("T1", transport.Commands, []byte("kept"), true)
		awaitPayloads(t, agent, transport.Commands, "kept")
		b.Cut("T1")
		awaitPayloads(t, agent, transport.Commands, "kept", "kept")
		if got := agent.Received(); got[0].Retained || !got[1].Retained {
			t.Errorf("retained flags: %t, %t, want false, true", got[0].Retained, got[1].Retained)
		}
	})
}

func TestDuplicateAndDelay(t *testing.T) {
	bubble(t, func(t *testing.T, b *Broker, agent, cloud *Recorder) {
		b.Duplicate(1)
		b.Delay(func(p Published) (ack, delivery time.Duration) { return 2 * time.Second, 5 * time.Second })
		start := time.Now()
		send(t, cloud, transport.Commands, "1")
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("PUBACK took %v", took)
		}
		awaitPayloads(t, agent, transport.Commands, "1", "1")
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("delivery took %v", took)
		}
	})
}

func TestTwoAgentsTakeTheSessionFromEachOther(t *testing.T) {
	bubble(t, func(t *testing.T, b *Broker, agent, cloud *Recorder) {
		other := NewRecorder()
		stop := Start(t, b.Agent("T1"), other)
		agent.Await(t, minute, "taken over twice", func() bool { return agent.Connections() == 3 })
		stop()
		agent.Await(t, minute, "alone again", func() bool { return agent.Sender() != nil })
		if got := b.PublishedOn("T1", transport.Presence); len(got) != 0 {
			t.Errorf("a take-over published a will: %v", got)
		}
	})
}
