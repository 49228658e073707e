package broker_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"terminalops/dispatcher/broker"
	"terminalops/transport"
	"terminalops/transport/mqtt"
	"terminalops/transport/transporttest"
)

const patience = time.Minute

func options(t *testing.T) broker.Options {
	return broker.Options{
		StoreDir: t.TempDir(), Listen: "127.0.0.1:0", Prefix: "terminals",
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

func start(t *testing.T, o broker.Options) *broker.Server {
	t.Helper()
	s, err := broker.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func cloud(s *broker.Server) transport.End {
	username, password := s.Credentials()
	return mqtt.Cloud(mqtt.Options{URLs: []string{s.URL()}, Prefix: "terminals", Username: username, Password: mqtt.Secret(password)}, "cloud")
}

func send(t *testing.T, s transport.Sender, terminal string, k transport.Kind, payload string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Send(ctx, terminal, k, []byte(payload)); err != nil {
		t.Fatalf("send %s: %v", k, err)
	}
}

// TestKeepsWhatItAcknowledged: commands for a terminal that is away are there
// after the broker has been started again.
func TestKeepsWhatItAcknowledged(t *testing.T) {
	o := options(t)
	s := start(t, o)
	// The session has to exist before something can wait in it.
	agent := transporttest.NewRecorder()
	run := func(e transport.End, r *transporttest.Recorder) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx, r) }()
		return func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	end := mqtt.Agent(mqtt.Options{URLs: []string{s.URL()}, Prefix: "terminals"}, "T1")
	stop := run(end, agent)
	agent.AwaitConnected(t, patience)
	stop()
	r := transporttest.NewRecorder()
	stop = run(cloud(s), r)
	sender := r.AwaitConnected(t, patience)
	send(t, sender, "T1", transport.Commands, "1")
	send(t, sender, "T1", transport.Commands, "2")
	stop()
	s.Close()

	s = start(t, o)
	defer s.Close()
	agent = transporttest.NewRecorder()
	stop = run(mqtt.Agent(mqtt.Options{URLs: []string{s.URL()}, Prefix: "terminals"}, "T1"), agent)
	defer func() { stop() }()
	agent.Await(t, patience, "both commands", func() bool {
		return strings.Join(agent.Payloads(transport.Commands), " ") == "1 2"
	})
}

// TestUsers: an agent may act for its terminal and for no other.
func TestUsers(t *testing.T) {
	o := options(t)
	o.Users = []broker.User{{"store-1", "secret", []string{"T1"}}, {"store-2", "geheim", []string{"T2"}}}
	cert, caFile := certificate(t)
	o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s := start(t, o)
	defer s.Close()
	login := func(user, password, terminal string) *transporttest.Recorder {
		r := transporttest.NewRecorder()
		r.Will = func() []byte { return []byte(`gone`) }
		transporttest.Start(t, mqtt.Agent(mqtt.Options{
			URLs: []string{"tls://" + s.Addr()}, CAFile: caFile, Prefix: "terminals", Username: user, Password: mqtt.Secret(password),
		}, terminal), r)
		return r
	}
	dispatcher := transporttest.NewRecorder()
	transporttest.Start(t, cloud(s), dispatcher)
	toAgents := dispatcher.AwaitConnected(t, patience)

	one := login("store-1", "secret", "T1")
	fromOne := one.AwaitConnected(t, patience)
	two := login("store-2", "geheim", "T2")
	two.AwaitConnected(t, patience)
	wrong := login("store-1", "guess", "T1x")
	foreign := login("store-1", "secret", "T3") // its own password, another terminal

	send(t, toAgents, "T1", transport.Commands, "for one")
	send(t, toAgents, "T3", transport.Commands, "for three")
	send(t, toAgents, "T2", transport.Commands, "for two")
	one.Await(t, patience, "its command", func() bool { return len(one.Payloads(transport.Commands)) == 1 })
	two.Await(t, patience, "its command", func() bool { return len(two.Payloads(transport.Commands)) == 1 })
	// What is not allowed may be refused or dropped; the next allowed one shows
	// that it had its time.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := fromOne.Send(ctx, "T2", transport.Reports, []byte("forged")); err != nil {
		t.Logf("forged report: %v", err)
	}
	fromOne = one.AwaitConnected(t, patience)
	send(t, fromOne, "T1", transport.Reports, "true")
	dispatcher.Await(t, patience, "the report", func() bool { return len(dispatcher.Payloads(transport.Reports)) >= 1 })
	if got := dispatcher.Payloads(transport.Reports); len(got) != 1 || got[0] != "true" {
		t.Errorf("have reports %q", got)
	}
	if got := append(wrong.Received(), foreign.Received()...); len(got) != 0 || wrong.Connections() != 0 {
		t.Errorf("have %v; %d connections with a wrong password", got, wrong.Connections())
	}
}

// TestMoreThanAThousandTerminals: the server's default would refuse the
// subscriptions beyond 1000. Each session stands for 60 terminals.
func TestMoreThanAThousandTerminals(t *testing.T) {
	if os.Getenv("TERMINALOPS_TEST_ALL") != "1" {
		t.Skip("a thousand new subscriptions, each synced to disk, take a minute or more; TERMINALOPS_TEST_ALL=1 runs it")
	}
	s := start(t, options(t))
	defer s.Close()
	const sessions, each = 17, 60 // a session may have 63
	for i := range sessions {
		o := paho.NewClientOptions().AddBroker(s.URL()).SetClientID(fmt.Sprint("session", i)).SetProtocolVersion(4).SetCleanSession(false).SetAutoReconnect(false)
		client := paho.NewClient(o)
		if token := client.Connect(); !token.WaitTimeout(patience) || token.Error() != nil {
			t.Fatalf("connect: %v", token.Error())
		}
		defer client.Disconnect(0)
		for j := range each {
			topic := fmt.Sprintf("terminals/T%d-%d/commands", i, j)
			token := client.Subscribe(topic, 1, nil)
			if !token.WaitTimeout(patience) || token.Error() != nil || token.(*paho.SubscribeToken).Result()[topic] != 1 {
				t.Fatalf("subscription %d: %v, %v", i*each+j+1, token.Error(), token.(*paho.SubscribeToken).Result())
			}
		}
	}
}

func TestRefusesOptions(t *testing.T) {
	tests := []struct {
		name   string
		change func(*broker.Options)
		says   string
	}{
		{"open to everybody", func(o *broker.Options) { o.Listen = "0.0.0.0:0" }, "without users"},
		{"open to everybody by name", func(o *broker.Options) { o.Listen = ":1883" }, "without users"},
		{"no port", func(o *broker.Options) { o.Listen = "127.0.0.1" }, "want host:port"},
		{"bad port", func(o *broker.Options) { o.Listen = "127.0.0.1:mqtt" }, "want 0 to 65535"},
		{"no password", func(o *broker.Options) { o.Users = []broker.User{{"a", "", []string{"T1"}}} }, "want a name and a password"},
		{"reserved name", func(o *broker.Options) { o.Users = []broker.User{{"dispatcher", "x", []string{"T1"}}} }, "taken"},
		{"no terminals", func(o *broker.Options) { o.Users = []broker.User{{"a", "x", nil}} }, "no terminals"},
		{"wildcard", func(o *broker.Options) { o.Users = []broker.User{{"a", "x", []string{"*"}}} }, "not a terminal id"},
		{"prefix", func(o *broker.Options) { o.Prefix = "a.b" }, "prefix"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t)
			tt.change(&o)
			s, err := broker.Start(o)
			if err == nil {
				s.Close()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("have %v, want it to say %q", err, tt.says)
			}
		})
	}
}

func TestPortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := options(t)
	o.Listen = l.Addr().String()
	if _, err := broker.Start(o); err == nil || !strings.Contains(err.Error(), "listen tcp "+o.Listen) {
		t.Errorf("have %v", err)
	}
}

// certificate makes one for 127.0.0.1, signed by itself.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broker"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}
