// Package brokers starts real MQTT brokers for tests, on loopback: Mosquitto,
// which has to be installed, and NATS, which runs inside the test.
package brokers

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats-server/v2/server"
)

// startTimeout is how long a broker may take to listen.
const startTimeout = time.Minute

// Mosquitto is a Mosquitto process that keeps its sessions.
type Mosquitto struct {
	Address string // host:port of its first listener

	t       testing.TB
	config  string // path
	process *exec.Cmd
	ended   chan struct{} // closed when the process has
	output  *bytes.Buffer
}

// StartMosquitto starts Mosquitto until the test ends. Its first listener is
// plain TCP; settings are further lines of its configuration, such as another
// listener. Without Mosquitto the test is skipped, or fails if
// TERMINALOPS_TEST_ALL is 1.
func StartMosquitto(t testing.TB, settings ...string) *Mosquitto {
	t.Helper()
	if _, err := exec.LookPath("mosquitto"); err != nil {
		if os.Getenv("TERMINALOPS_TEST_ALL") == "1" {
			t.Fatal("mosquitto is not installed")
		}
		t.Skip("mosquitto is not installed")
	}
	dir := t.TempDir()
	m := &Mosquitto{Address: Address(t), t: t, config: filepath.Join(dir, "mosquitto.conf")}
	_, port, _ := net.SplitHostPort(m.Address)
	lines := append([]string{
		"user root", // not to lose the directory, if it is root who tests
		"listener " + port + " 127.0.0.1",
		"persistence true",
		"persistence_location " + dir + "/",
		"autosave_interval 1", // with the next line: after each change
		"autosave_on_changes true",
		"max_queued_messages 0",
		"set_tcp_nodelay true",
	}, settings...)
	if !strings.Contains(strings.Join(settings, "\n"), "allow_anonymous") {
		lines = append(lines, "allow_anonymous true")
	}
	if err := os.WriteFile(m.config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Start()
	t.Cleanup(m.Kill)
	return m
}

// Start starts the broker again after [Mosquitto.Kill].
func (m *Mosquitto) Start() {
	m.t.Helper()
	m.output = new(bytes.Buffer)
	m.process = exec.Command("mosquitto", "-c", m.config)
	m.process.Stdout, m.process.Stderr = m.output, m.output
	if err := m.process.Start(); err != nil {
		m.t.Fatal(err)
	}
	process, ended := m.process, make(chan struct{})
	m.ended = ended
	go func() {
		process.Wait() // "signal: killed", at last
		close(ended)
	}()
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", m.Address)
		select {
		case <-ended: // who answers is another
			m.t.Fatalf("mosquitto has ended\n%s", m.output)
		default:
		}
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			m.Kill()
			m.t.Fatalf("mosquitto does not listen: %v\n%s", err, m.output)
		}
	}
}

// Kill is kill -9.
func (m *Mosquitto) Kill() {
	m.process.Process.Kill()
	<-m.ended
}

// Forget loses all sessions, queues and retained messages of a killed broker.
func (m *Mosquitto) Forget() {
	m.t.Helper()
	if err := os.Remove(filepath.Join(filepath.Dir(m.config), "mosquitto.db")); err != nil {
		m.t.Fatal(err)
	}
}

// StartNATS starts NATS as an MQTT broker until the test ends and returns its
// host:port. configure changes the options, if there is any. NATS delivers
// again after a time, not at once, and then does not keep the order.
func StartNATS(t testing.TB, configure ...func(*server.Options)) (address string) {
	t.Helper()
	o := &server.Options{
		ServerName: "test",
		Host:       "127.0.0.1",
		Port:       server.RANDOM_PORT,
		JetStream:  true,
		StoreDir:   t.TempDir(),
		NoSigs:     true,
		NoLog:      true,
		// Each subscription is a consumer, and the default is 1000 of them.
		JetStreamLimits: server.JSLimitOpts{DefaultMaxConsumers: -1},
	}
	o.MQTT.Host, o.MQTT.Port = "127.0.0.1", server.RANDOM_PORT
	o.MQTT.StreamReplicas = 1
	// How long NATS waits before it delivers again, on the same connection or
	// the next, whatever happened to the connection meanwhile.
	o.MQTT.AckWait = time.Second
	for _, f := range configure {
		f(o)
	}
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(startTimeout) {
		t.Fatal("NATS does not listen")
	}
	return fmt.Sprintf("127.0.0.1:%d", o.MQTT.Port)
}

// visitors counts the clients of AwaitRetained: NATS puts one that comes again at
// once on hold.
var visitors atomic.Int32

// AwaitRetained waits until a broker at host:port has a topic's retained message
// for whoever subscribes: NATS has it some moments after it was acknowledged.
func AwaitRetained(t testing.TB, address, topic string) {
	t.Helper()
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + address).SetClientID(fmt.Sprint("await-retained-", visitors.Add(1))))
	done := func(token paho.Token) {
		t.Helper()
		if !token.WaitTimeout(startTimeout) || token.Error() != nil {
			t.Fatalf("retained message of %s: %v", topic, token.Error())
		}
	}
	done(c.Connect())
	defer c.Disconnect(0)
	retained := make(chan struct{}, 1)
	for late := time.Now().Add(startTimeout); ; {
		done(c.Subscribe(topic, 1, func(_ paho.Client, m paho.Message) {
			select {
			case retained <- struct{}{}:
			default: // another one
			}
		}))
		select {
		case <-retained:
			return
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(late) {
			t.Fatalf("no retained message of %s", topic)
		}
		done(c.Unsubscribe(topic))
	}
}

// Nobody is a loopback address nobody listens at: systems give the ports below
// 1024 only to who asks for them, and this one (tcpmux) nobody does.
const Nobody = "127.0.0.1:1"

// addresses counts those that were tried in this process.
var addresses atomic.Int32

// Address returns a loopback address to listen at, also again after a while: it
// has a port that systems give only to who asks for it (Linux gives from 32768 on
// of itself, Windows from 49152 on).
func Address(t testing.TB) string {
	t.Helper()
	const first, last = 10000, 32767
	var err error
	for range 100 {
		n := 64*os.Getpid() + int(addresses.Add(1)) // each process begins elsewhere
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+n%(last-first+1))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal(err)
	return ""
}
