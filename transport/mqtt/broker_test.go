package mqtt

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"terminalops/transport"
	"terminalops/transport/transporttest"
	"terminalops/transport/transporttest/brokers"
)

const patience = time.Minute

// quick are options for a broker at a loopback address, with short pauses.
func quick(t testing.TB, address string) Options {
	return Options{
		URLs:           []string{"tcp://" + address},
		Prefix:         "terminals",
		Logger:         slog.New(slog.NewTextHandler(t.Output(), nil)),
		ConnectTimeout: 5 * time.Second,
		FirstPause:     20 * time.Millisecond,
		LongestPause:   200 * time.Millisecond,
		RedeliverAfter: 200 * time.Millisecond,
	}
}

// anybody is a client of the broker that publishes what it likes. A retained
// message is there for the next subscriber when publish returns.
func anybody(t testing.TB, address string) (publish func(topic string, payload []byte, retained bool)) {
	t.Helper()
	client := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + address).SetClientID("anybody"))
	done := func(what string, token paho.Token) {
		t.Helper()
		if !token.WaitTimeout(patience) || token.Error() != nil {
			t.Fatalf("%s: %v", what, token.Error())
		}
	}
	done("connect", client.Connect())
	t.Cleanup(func() { client.Disconnect(1000) })
	return func(topic string, payload []byte, retained bool) {
		t.Helper()
		done("publish "+topic, client.Publish(topic, 1, retained, payload))
		if retained {
			brokers.AwaitRetained(t, address, topic)
		}
	}
}

func conformance(t *testing.T, address string) transporttest.Setup {
	network := newFaults(t, address)
	publish := anybody(t, address)
	return transporttest.Setup{
		Agent: func(id string) transport.End { return Agent(quick(t, network.address), id) },
		Cloud: func() transport.End { return Cloud(quick(t, address), "cloud") },
		Cut:   func(string) { network.cut() },
		Publish: func(id string, k transport.Kind, payload []byte, retained bool) {
			publish("terminals/"+id+"/"+string(k), payload, retained)
		},
	}
}

func TestOverMosquitto(t *testing.T) {
	transporttest.TestEnds(t, func(t *testing.T) transporttest.Setup {
		return conformance(t, brokers.StartMosquitto(t).Address)
	})
}

func TestOverNATS(t *testing.T) {
	transporttest.TestEnds(t, func(t *testing.T) transporttest.Setup {
		return conformance(t, brokers.StartNATS(t))
	})
}

// startBoth starts both ends, the agent through a proxy that can make faults.
func startBoth(t *testing.T, address string) (network *faults, agent, cloud *transporttest.Recorder) {
	t.Helper()
	network = newFaults(t, address)
	agent, cloud = transporttest.NewRecorder(), transporttest.NewRecorder()
	o := quick(t, network.address)
	o.KeepAlive, o.PingTimeout, o.WriteTimeout = 2*time.Second, time.Second, time.Second
	transporttest.Start(t, Cloud(quick(t, address), "cloud"), cloud)
	cloud.AwaitConnected(t, patience)
	transporttest.Start(t, Agent(o, "T1"), agent)
	agent.AwaitConnected(t, patience)
	return network, agent, cloud
}

// The broker has the message, but its PUBACK is lost and then the connection:
// that is not a success, and a second Send on a new connection is a duplicate.
func TestSwallowedPubackIsNoSuccess(t *testing.T) {
	network, agent, cloud := startBoth(t, brokers.StartNATS(t))
	sender := agent.Sender()
	network.set(&network.swallowed, true)
	result := make(chan error)
	go func() { result <- sender.Send(context.Background(), "T1", transport.Reports, []byte("final")) }()
	awaitPayloads(t, cloud, transport.Reports, "final")
	network.awaitLost(t, 4)
	network.cut()
	if err := <-result; !errors.Is(err, transport.ErrNotConnected) {
		t.Fatalf("Send returned %v", err)
	}
	network.heal()
	agent.Await(t, patience, "connected again", func() bool { return agent.Sender() != nil && agent.Sender() != sender })
	if err := agent.Sender().Send(t.Context(), "T1", transport.Reports, []byte("final")); err != nil {
		t.Fatal(err)
	}
	awaitPayloads(t, cloud, transport.Reports, "final", "final")
}

// A network that takes no more bytes and says nothing: reading and writing ends
// are both noticed, by the ping and by the deadline of the write.
func TestStalledNetworkIsNoticed(t *testing.T) {
	network, agent, _ := startBoth(t, brokers.StartNATS(t))
	sender := agent.Sender()
	network.set(&network.stalled, true)
	payload := make([]byte, transport.MaxPayload)
	began := time.Now()
	results := make(chan error)
	const sends = 3 * sendWindow // more than the kernel's buffers take
	for range sends {
		go func() { results <- sender.Send(context.Background(), "T1", transport.Reports, payload) }()
	}
	for range sends {
		if err := <-results; err == nil {
			t.Error("Send succeeded on a stalled network")
		}
	}
	// Of itself the kernel would take a quarter of an hour.
	if took := time.Since(began); took > patience {
		t.Errorf("noticed after %v", took)
	}
	network.heal()
	network.cut()
	agent.Await(t, patience, "connected again", func() bool { return agent.Connections() >= 2 })
}

// A broker killed with -9 has what it acknowledged when it comes back, and the
// ends come back by themselves.
func TestBrokerKilled(t *testing.T) {
	broker := brokers.StartMosquitto(t)
	_, agent, cloud := startBoth(t, broker.Address)
	var killed atomic.Bool
	agent.Verdict = func(transport.Message) error {
		if !killed.Load() {
			return errors.New("not now")
		}
		return nil
	}
	if err := cloud.Sender().Send(t.Context(), "T1", transport.Commands, []byte("kept")); err != nil {
		t.Fatal(err)
	}
	agent.Await(t, patience, "delivered", func() bool { return len(agent.Payloads(transport.Commands)) > 0 })
	broker.Kill()
	killed.Store(true)
	agent.Await(t, patience, "agent lost", func() bool { return agent.Sender() == nil })
	cloud.Await(t, patience, "cloud lost", func() bool { return cloud.Sender() == nil })
	broker.Start()
	agent.Await(t, patience, "delivered again", func() bool {
		got := agent.Payloads(transport.Commands)
		return len(got) > 0 && got[len(got)-1] == "kept" && agent.Connections() > 1
	})
	if err := cloud.AwaitConnected(t, patience).Send(t.Context(), "T1", transport.Commands, []byte("next")); err != nil {
		t.Fatal(err)
	}
	agent.Await(t, patience, "next", func() bool { return slices.Contains(agent.Payloads(transport.Commands), "next") })
}

// Where one of two brokers is dead, the other is there at once, and is the
// first to be tried the next time.
func TestSecondBroker(t *testing.T) {
	dead := newFaults(t, brokers.Nobody)
	network := newFaults(t, brokers.StartNATS(t))
	o := quick(t, dead.address)
	o.URLs = append(o.URLs, "mqtt://"+network.address)
	agent := transporttest.NewRecorder()
	transporttest.Start(t, Agent(o, "T1"), agent)
	agent.AwaitConnected(t, patience)
	network.cut()
	agent.Await(t, patience, "connected again", func() bool { return agent.Connections() >= 2 })
	dead.mu.Lock()
	defer dead.mu.Unlock()
	if dead.accepted != 1 {
		t.Errorf("the dead broker was tried %d times, want once", dead.accepted)
	}
}

// Whatever the network does, what Send said was sent arrives, and so does every
// command; some more than once.
func TestNothingIsLostOverABadNetwork(t *testing.T) {
	network, agent, cloud := startBoth(t, brokers.StartNATS(t))
	const messages, sendersAtOnce = 100, 4
	ctx, cancel := context.WithCancel(t.Context())
	var senders, trouble sync.WaitGroup
	keepSending := func(r *transporttest.Recorder, k transport.Kind, payload string) {
		for ctx.Err() == nil {
			if s := r.Sender(); s != nil && s.Send(ctx, "T1", k, []byte(payload)) == nil {
				return
			}
			sleep(ctx, 10*time.Millisecond)
		}
	}
	for first := range sendersAtOnce {
		senders.Go(func() {
			for i := first; i < messages; i += sendersAtOnce {
				keepSending(agent, transport.Reports, strconv.Itoa(i))
				keepSending(cloud, transport.Commands, strconv.Itoa(i))
				sleep(ctx, 20*time.Millisecond)
			}
		})
	}
	trouble.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			switch sleep(ctx, 60*time.Millisecond); i % 4 {
			case 0, 1:
				network.cut()
			case 2: // the broker is heard no more, then the connection breaks
				network.set(&network.swallowed, true)
				sleep(ctx, 30*time.Millisecond)
				network.cut()
				network.heal()
			case 3:
				network.set(&network.stalled, true)
				sleep(ctx, 30*time.Millisecond)
				network.heal()
				network.cut()
			}
		}
	})
	senders.Wait()
	cancel()
	trouble.Wait()
	for r, k := range map[*transporttest.Recorder]transport.Kind{agent: transport.Commands, cloud: transport.Reports} {
		r.Await(t, patience, "all "+string(k), func() bool {
			distinct := make(map[string]bool)
			for _, p := range r.Payloads(k) {
				distinct[p] = true
			}
			return len(distinct) == messages
		})
	}
	if agent.Connections() < 10 {
		t.Errorf("only %d connections: the network was not bad", agent.Connections())
	}
}

func awaitPayloads(t testing.TB, r *transporttest.Recorder, k transport.Kind, want ...string) {
	t.Helper()
	r.Await(t, patience, "payloads", func() bool { return slices.Equal(r.Payloads(k), want) })
}

// BenchmarkSessions says what an idle session costs: goroutines, and memory of
// heap and stacks.
func BenchmarkSessions(b *testing.B) {
	const sessions = 500
	address := brokers.StartMosquitto(b).Address
	usage := func() (goroutines int, bytes uint64) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapInuse + m.StackInuse
	}
	for b.Loop() {
		goroutines, bytes := usage()
		o := quick(b, address)
		o.Logger = slog.New(slog.DiscardHandler)
		var stops []func()
		for i := range sessions {
			agent := transporttest.NewRecorder()
			stops = append(stops, transporttest.Start(b, Agent(o, "T"+strconv.Itoa(i)), agent))
			agent.AwaitConnected(b, patience)
		}
		moreGoroutines, moreBytes := usage()
		b.ReportMetric(float64(moreGoroutines-goroutines)/sessions, "goroutines/session")
		b.ReportMetric(float64(moreBytes-bytes)/sessions/1024, "KiB/session")
		for _, stop := range stops {
			stop()
		}
	}
}
