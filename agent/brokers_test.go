package agent

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"terminalops/device"
	"terminalops/device/devicetest"
	"terminalops/transport"
	"terminalops/transport/mqtt"
	"terminalops/transport/transporttest/brokers"
)

// realBus is a real broker on loopback.
type realBus struct {
	t       testing.TB
	options mqtt.Options
	clients atomic.Int32 // that have published as anybody
}

func newRealBus(t testing.TB, address string) *realBus {
	return &realBus{t: t, options: mqtt.Options{
		URLs: []string{"tcp://" + address}, Prefix: "terminals",
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
}

func (b *realBus) Agent(id string) transport.End { return mqtt.Agent(b.options, id) }
func (b *realBus) Cloud() transport.End          { return mqtt.Cloud(b.options, "cloud") }

// Publish publishes with a client of its own, any bytes, retained or not. Each has
// a name of its own: NATS puts who comes again at once on hold.
func (b *realBus) Publish(id string, k transport.Kind, payload []byte, retained bool) {
	b.t.Helper()
	client := paho.NewClient(paho.NewClientOptions().AddBroker(b.options.URLs[0]).SetClientID(fmt.Sprint("anybody-", b.clients.Add(1))).SetProtocolVersion(4).SetAutoReconnect(false))
	for _, step := range []func() paho.Token{
		client.Connect,
		func() paho.Token {
			return client.Publish(path.Join(b.options.Prefix, id, string(k)), 1, retained, payload)
		},
	} {
		if token := step(); !token.WaitTimeout(time.Minute) || token.Error() != nil {
			b.t.Fatal("publish:", token.Error())
		}
	}
	client.Disconnect(100)
}

// On every broker the same happens to commands on their way, in real time.
func TestScenariosOnRealBrokers(t *testing.T) {
	starters := map[string]func(testing.TB) string{
		"NATS":      func(t testing.TB) string { return brokers.StartNATS(t) },
		"Mosquitto": func(t testing.TB) string { return brokers.StartMosquitto(t).Address },
	}
	for broker, start := range starters {
		t.Run(broker, func(t *testing.T) {
			for _, s := range scenarios {
				t.Run(s.name, func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, newRealBus(t, start(t)))
					w.patience = time.Minute
					w.cloud.await(t, w.patience, "the cloud's connection", func() bool { return w.cloud.sender != nil })
					w.start()
					w.awaitWelcome()
					s.run(w)
					w.wantNext()
				})
			}
		})
	}
}

// A broker that is killed and started again, with its sessions or without,
// while an operation is under way: five times in a row.
func TestBrokerIsKilled(t *testing.T) {
	for _, keeps := range []bool{true, false} {
		t.Run(fmt.Sprint("keeps sessions ", keeps), func(t *testing.T) {
			t.Parallel()
			broker := brokers.StartMosquitto(t)
			w := newWorld(t, newRealBus(t, broker.Address))
			w.patience = 2 * time.Minute
			w.device.Set(devicetest.Script{Work: 3 * time.Second, Outcome: device.Outcome{Effect: device.Done}})
			w.cloud.await(t, w.patience, "the cloud's connection", func() bool { return w.cloud.sender != nil })
			w.start()
			for i := range 5 {
				id := fmt.Sprint("killed-", i)
				w.send(w.command(id, device.EndOfDay))
				w.cloud.await(t, w.patience, "RUNNING", func() bool { return w.cloud.pending[id].Running })
				broker.Kill()
				if !keeps {
					broker.Forget()
				}
				broker.Start()
				w.wantFinal(id, "COMPLETED")
				w.wantActs(i + 1)
				w.cloud.await(t, w.patience, "the cloud's connection", func() bool { return w.cloud.connected })
			}
		})
	}
}

// A broker that is not there at the start, and commands that wait at it.
func TestBrokerComesLater(t *testing.T) {
	broker := brokers.StartMosquitto(t)
	w := newWorld(t, newRealBus(t, broker.Address))
	w.patience = time.Minute
	w.start()
	w.end()
	w.send(w.command("waiting", device.EndOfDay))
	broker.Kill()
	started := make(chan struct{})
	go func() {
		defer close(started)
		w.start()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	select {
	case <-ctx.Done(): // it has found nobody there for a while
	case <-started:
		t.Error("connected to a broker that is not there")
	}
	broker.Start()
	<-started
	w.wantFinal("waiting", "COMPLETED")
	w.wantActs(1)
	w.wantNext()
}
