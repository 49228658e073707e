package mqtt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats-server/v2/server"

	"terminalops/transport"
	"terminalops/transport/transporttest/brokers"
)

// nameServer is the only one that this process asks until the test ends. It
// knows no name.
func nameServer(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil && strings.Contains(err.Error(), "10045") {
		t.Skip("this is Wine, which cannot do what Go wants of UDP sockets: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			b[2], b[3] = 0x81, 0x83 // RFC 1035 4.1.1: a response, name error
			server.WriteTo(b[:n], from)
		}
	}()
	was := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = was
		server.Close()
	})
}

// Each leg of the way can be the one where it ends.
func TestSurvey(t *testing.T) {
	a := newAuthority(t)
	good, goodKey := a.issue("broker", time.Now().Add(time.Hour))
	old, oldKey := a.issue("old", time.Now().Add(-time.Minute))
	secure := func(cert, key string) string {
		return "tls://" + brokers.StartNATS(t, func(o *server.Options) { o.MQTT.TLSConfig = a.serverConfig(cert, key, false) })
	}
	right, expired, plain := secure(good, goodKey), secure(old, oldKey), brokers.StartNATS(t)
	notFound := listen(t, func(c net.Conn) {
		c.Read(make([]byte, 1))
		c.Write([]byte("HTTP/1.1 404 Not Found\r\n\r\n"))
	})
	silent := listen(t, func(c net.Conn) {
		for b := make([]byte, 1); ; {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	})
	nameServer(t)
	tests := []struct {
		name, broker string
		proxy        Secret
		foreign      bool // another CA is believed
		ended        Leg
		is           func(error) bool
	}{
		{name: "all the way", broker: right},
		{name: "without TLS", broker: "tcp://" + plain},
		{name: "no such name", broker: "tls://broker.test", ended: LegName, is: func(err error) bool {
			var dns *net.DNSError
			return errors.As(err, &dns) && dns.IsNotFound
		}},
		{name: "nobody listens", broker: "tls://" + brokers.Nobody, ended: LegTCP},
		{name: "no TLS there", broker: "tls://" + plain, ended: LegTLS},
		{name: "nothing answers", broker: "tls://" + silent, ended: LegTLS, is: func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
		{name: "expired", broker: expired, ended: LegTLS, is: func(err error) bool {
			var invalid x509.CertificateInvalidError
			return errors.As(err, &invalid) && invalid.Reason == x509.Expired
		}},
		{name: "another name", broker: strings.Replace(right, "127.0.0.1", "localhost", 1), ended: LegTLS, is: func(err error) bool { return errors.As(err, new(x509.HostnameError)) }},
		{name: "unknown authority", broker: right, foreign: true, ended: LegTLS, is: func(err error) bool { return errors.As(err, new(x509.UnknownAuthorityError)) }},
		{name: "no WebSocket there", broker: "ws://" + notFound, ended: LegWebSocket},
		{name: "proxy refuses", broker: "tcp://" + plain, proxy: Secret("http://" + connectProxy(t, plain)), ended: LegProxy},
		{name: "through a proxy", broker: "tcp://" + plain, proxy: Secret("http://user:pa%3Ass@" + connectProxy(t, plain))},
		{name: "proxy is not there", broker: "tcp://" + plain, proxy: Secret("http://" + brokers.Nobody), ended: LegTCP},
	}
	foreign := newAuthority(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := Options{Prefix: "terminals", CAFile: a.file, Proxy: tt.proxy}
			if tt.foreign {
				o.CAFile = foreign.file
			}
			r := o.Survey(t.Context(), tt.broker)
			if r.Ended != tt.ended || (r.Err != nil) != (tt.ended != "") || slices.Contains(r.Passed, tt.ended) {
				t.Fatalf("have %+v, want it to end at %q", r, tt.ended)
			}
			if tt.is != nil && !tt.is(r.Err) {
				t.Errorf("the error is %v", r.Err)
			}
			shown := strings.HasPrefix(tt.broker, "tls:") && (tt.ended == "" || errors.As(r.Err, new(*tls.CertificateVerificationError)))
			if shown != (len(r.Certificates) > 0) {
				t.Errorf("certificates: %d", len(r.Certificates))
			}
		})
	}
}

// deaf is a NATS where one user may not read commands.
func deaf(o *server.Options) {
	all := &server.SubjectPermission{Allow: []string{">"}}
	o.Users = []*server.User{
		{Username: "store", Password: "right"},
		{Username: "deaf", Password: "right", Permissions: &server.Permissions{
			Publish: all, Subscribe: &server.SubjectPermission{Deny: []string{"terminals.T1.commands"}},
		}},
	}
}

func TestVisit(t *testing.T) {
	address := brokers.StartNATS(t, deaf)
	visit := func(user, password string) Visit {
		o := Options{Prefix: "terminals", Username: user, Password: Secret(password)}
		return o.Visit(t.Context(), "tcp://"+address, Call{ClientID: "T1-doctor", TerminalID: "T1", Hello: transport.HelloMessage{Nonce: "doctor"}})
	}
	t.Run("welcome", func(t *testing.T) {
		v := visit("store", "right")
		if v.Err != nil || v.Code != 0 || len(v.Granted) != len(visited) || v.Granted[transport.Commands] != 1 || !v.Greeted || v.Welcome != nil || v.Presence != nil {
			t.Errorf("have %+v", v)
		}
	})
	t.Run("wrong password", func(t *testing.T) {
		v := visit("store", "wrong")
		if v.Ended != LegConnect || v.Code != 5 || v.Err == nil {
			t.Errorf("have %+v", v)
		}
	})
	t.Run("may not read commands", func(t *testing.T) {
		v := visit("deaf", "right")
		if v.Err != nil || v.Granted[transport.Commands] != 0x80 || v.Granted[transport.Welcome] != 1 {
			t.Errorf("have %+v", v)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		o := Options{Prefix: "terminals"}
		v := o.Visit(t.Context(), "tcp://"+brokers.Nobody, Call{ClientID: "T1-doctor", TerminalID: "T1"})
		if v.Ended != LegConnect || v.Code != 0 || v.Err == nil {
			t.Errorf("have %+v", v)
		}
	})
}

// The terminal's own session goes on beside a Visit, which sees its presence and
// what the dispatcher answers.
func TestVisitBesideAgentAndCloud(t *testing.T) {
	address := brokers.StartNATS(t)
	_, agent, cloud := startBoth(t, address)
	sender := agent.Sender()
	presence := transport.Encode(transport.PresenceMessage{State: transport.Online, JournalID: "j", Connection: 7})
	if err := sender.Send(t.Context(), "T1", transport.Presence, presence); err != nil {
		t.Fatal(err)
	}
	awaitPayloads(t, cloud, transport.Presence, string(presence))
	brokers.AwaitRetained(t, address, "terminals/T1/presence")
	now := time.Date(2026, 6, 29, 9, 0, 0, 0, time.UTC)
	visited := make(chan Visit)
	go func() {
		visited <- Options{Prefix: "terminals"}.Visit(t.Context(), "tcp://"+address,
			Call{ClientID: "T1-doctor", TerminalID: "T1", Hello: transport.HelloMessage{Nonce: "mine"}})
	}()
	cloud.Await(t, patience, "hello", func() bool { return len(cloud.Payloads(transport.Hello)) == 1 })
	for _, w := range []transport.WelcomeMessage{
		{Nonce: "another's", ServerTime: transport.At(now.Add(-time.Hour))},
		{Nonce: "mine", ServerTime: transport.At(now)},
	} {
		if err := cloud.Sender().Send(t.Context(), "T1", transport.Welcome, transport.Encode(w)); err != nil {
			t.Fatal(err)
		}
	}
	v := <-visited
	if v.Welcome == nil || !v.Welcome.ServerTime.Equal(now) || v.RoundTrip <= 0 || v.WelcomeAt.IsZero() {
		t.Errorf("welcome: %+v", v)
	}
	if v.Presence == nil || v.Presence.JournalID != "j" || v.Presence.Connection != 7 {
		t.Errorf("presence: %+v", v.Presence)
	}
	if agent.Sender() != sender || agent.Connections() != 1 {
		t.Error("the terminal's own session was disturbed")
	}
}

// topical is a message with a topic.
type topical struct {
	message
	topic string
}

func (m topical) Topic() string { return m.topic }

// What a broker passed on before it hung up is heard, whichever is seen first.
func TestVisitHearsWhatCameBeforeTheEnd(t *testing.T) {
	welcome := transport.WelcomeMessage{Nonce: "mine", ServerTime: transport.At(time.Now())}
	for range 100 {
		s := &visitor{
			o: Options{Prefix: "terminals"}, call: Call{TerminalID: "T1", Hello: transport.HelloMessage{Nonce: "mine"}},
			visit: new(Visit), heard: make(chan paho.Message, 1), lost: make(chan error, 1),
		}
		s.heard <- topical{message{payload: transport.Encode(welcome)}, s.topic(transport.Welcome)}
		s.lost <- io.EOF
		s.listen(t.Context(), patience, func() bool { return s.visit.Welcome != nil })
		if s.visit.Welcome == nil {
			t.Fatal("the welcome was not heard")
		}
	}
}

// A broker that takes the connection and says nothing ends a Visit in time, and
// so does ctx.
func TestVisitOfASilentBroker(t *testing.T) {
	silent := listen(t, func(c net.Conn) {
		for b := make([]byte, 1); ; {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	v := Options{Prefix: "terminals"}.Visit(ctx, "tcp://"+silent, Call{ClientID: "T1-doctor", TerminalID: "T1"})
	if v.Ended != LegConnect || !errors.Is(v.Err, context.DeadlineExceeded) {
		t.Errorf("have %+v", v)
	}
}
