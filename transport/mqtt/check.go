package mqtt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"terminalops/transport"
)

// This file goes the way to a broker one leg at a time, to say where it ends. It
// is for a person who looks for a fault; Run goes the same way in one go.
//
//	Survey:  name -> TCP -> proxy -> TLS -> WebSocket
//	Visit:   CONNECT -> SUBSCRIBE -> hello, welcome
//
// Neither uses the client id of a terminal: the broker would end the session of
// the agent that has it.

// Leg is a part of the way to a broker.
type Leg string

// The legs, in the order of the way.
const (
	LegName      Leg = "name"      // the address of the host is looked up
	LegTCP       Leg = "tcp"       // to the broker, or to the proxy
	LegProxy     Leg = "proxy"     // the proxy connects to the broker
	LegTLS       Leg = "tls"       // the broker's certificate is right
	LegWebSocket Leg = "websocket" // HTTP becomes WebSocket
	LegConnect   Leg = "connect"   // the broker takes name, password, certificate
	LegSubscribe Leg = "subscribe" // the broker answers a SUBSCRIBE
)

// legPatience is how long one leg may take.
const legPatience = 6 * time.Second

// Route is how far the way to a broker goes.
type Route struct {
	Broker       string              // "tls://broker.example.com:8883"
	Proxy        string              // host:port; empty: none
	Host         string              // host:port that is dialled: the proxy's if there is one
	Addresses    []string            // of its name
	Certificates []*x509.Certificate // what the broker has shown, believed or not, its own first
	Passed       []Leg
	Ended        Leg   // where the way ended; empty: nowhere
	Err          error // why; context.DeadlineExceeded if nothing answered in time
}

// Survey goes to a broker, one of URLs, as far as TLS and WebSocket. It says
// nothing in MQTT. It takes 30 s at most.
func (o Options) Survey(ctx context.Context, broker string) Route {
	r := Route{Broker: broker}
	u, err := parseBroker(broker)
	if err != nil {
		r.Ended, r.Err = LegName, err
		return r
	}
	r.Broker, r.Host = u.String(), u.Host
	proxy, err := o.proxyFor(u)
	if err != nil {
		r.Ended, r.Err = LegProxy, err
		return r
	}
	if proxy != nil {
		r.Proxy = proxyHost(proxy)
		r.Host = r.Proxy
	}
	for _, leg := range []struct {
		name   Leg
		wanted bool
		walk   func(context.Context) error
	}{
		{LegName, true, r.lookUp},
		{LegTCP, true, r.dial},
		{LegProxy, proxy != nil, func(ctx context.Context) error { return o.tryProxy(ctx, u) }},
		{LegTLS, u.Scheme == "tls" || u.Scheme == "wss", func(ctx context.Context) error { return o.tryTLS(ctx, u, &r) }},
		{LegWebSocket, u.Scheme == "ws" || u.Scheme == "wss", func(ctx context.Context) error { return o.tryWebSocket(ctx, u) }},
	} {
		if !leg.wanted {
			continue
		}
		if err := within(ctx, legPatience, leg.walk); err != nil {
			r.Ended, r.Err = leg.name, err
			return r
		}
		r.Passed = append(r.Passed, leg.name)
	}
	return r
}

// within gives walk its time. An error after that time is
// context.DeadlineExceeded.
func within(ctx context.Context, patience time.Duration, walk func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := walk(ctx)
	var timeout net.Error // a dialer may notice before ctx does
	if err != nil && (ctx.Err() != nil || errors.As(err, &timeout) && timeout.Timeout()) {
		return fmt.Errorf("no answer within %v: %w", patience, context.DeadlineExceeded)
	}
	return err
}

func (r *Route) lookUp(ctx context.Context) (err error) {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		return err
	}
	r.Addresses, err = net.DefaultResolver.LookupHost(ctx, host)
	return err
}

func (r *Route) dial(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", r.Host)
	if err != nil {
		return err
	}
	return conn.Close()
}

func (o Options) tryProxy(ctx context.Context, broker *url.URL) error {
	conn, err := o.dialTCP(ctx, broker)
	if err != nil {
		return err
	}
	return conn.Close()
}

func (o Options) tryTLS(ctx context.Context, broker *url.URL, r *Route) error {
	config, err := o.tlsConfig(broker.Hostname())
	if err != nil {
		return err
	}
	conn, err := o.dialTCP(ctx, broker)
	if err != nil {
		return err
	}
	secure := tls.Client(conn, config)
	defer secure.Close()
	err = secure.HandshakeContext(ctx)
	r.Certificates = secure.ConnectionState().PeerCertificates
	if unbelieved := (*tls.CertificateVerificationError)(nil); errors.As(err, &unbelieved) {
		r.Certificates = unbelieved.UnverifiedCertificates
	}
	return err
}

func (o Options) tryWebSocket(ctx context.Context, broker *url.URL) error {
	conn, err := o.dial(ctx, broker)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Call is one conversation with a broker as a client of its own.
type Call struct {
	ClientID   string // whose session nobody else has
	TerminalID string // whose topics are tried
	// Hello, if it has a nonce, is said on the terminal's topic. The dispatcher
	// only reads to answer it, and an agent ignores the answer to a nonce that
	// is not its own.
	Hello transport.HelloMessage
}

// Visit is what a broker, and the dispatcher behind it, say to a Call.
type Visit struct {
	Code    byte                    // of the CONNACK: 0 is welcome, 1 to 5 [MQTT-3.1.1] 3.2.2.3
	Granted map[transport.Kind]byte // of each SUBACK: the QoS, or 80
	Ended   Leg                     // where the conversation ended early; empty: nowhere
	Err     error                   // why

	Presence  *transport.PresenceMessage // the retained one; nil: none, or it may not be read
	Greeted   bool                       // hello was said, and the broker has taken it
	Welcome   *transport.WelcomeMessage  // nil: no answer
	WelcomeAt time.Time                  // when it came, by the PC's clock
	RoundTrip time.Duration              // from hello to welcome
}

const (
	// welcomePatience is how long a dispatcher may take to answer: as long as an
	// agent waits.
	welcomePatience = 5 * time.Second
	// retainedPatience is how long a retained message may take after the SUBACK.
	retainedPatience = time.Second
	// lastCode is the last one of a CONNACK.
	lastCode = 5
)

// visited are the topics that an agent reads, and its own presence, which says
// who else has the terminal.
var visited = []transport.Kind{transport.Presence, transport.Commands, transport.Welcome}

// Visit connects to a broker, one of URLs, subscribes to what an agent reads,
// and says hello. Nothing of it stays at the broker. It takes 30 s at most.
func (o Options) Visit(ctx context.Context, broker string, c Call) Visit {
	v := Visit{Granted: make(map[transport.Kind]byte)}
	u, err := parseBroker(broker)
	if err != nil {
		v.Ended, v.Err = LegConnect, err
		return v
	}
	s := &visitor{o: o.withDefaults(), call: c, visit: &v, broker: u, heard: make(chan paho.Message, 16), lost: make(chan error, 1)}
	if err := within(ctx, 2*legPatience, s.connect); err != nil {
		v.Ended, v.Err = LegConnect, err
		return v
	}
	defer s.leave()
	for _, k := range visited {
		if err := within(ctx, legPatience, func(ctx context.Context) error { return s.subscribe(ctx, k) }); err != nil {
			v.Ended, v.Err = LegSubscribe, fmt.Errorf("subscribe %s: %w", s.topic(k), err)
			return v
		}
	}
	if c.Hello.Nonce != "" && v.Granted[transport.Welcome] <= qos {
		s.greet(ctx)
	}
	if v.Presence == nil && v.Granted[transport.Presence] <= qos {
		s.listen(ctx, retainedPatience, func() bool { return v.Presence != nil })
	}
	return v
}

// visitor is a Visit under way.
type visitor struct {
	o      Options
	call   Call
	visit  *Visit
	broker *url.URL
	conn   net.Conn
	client paho.Client
	heard  chan paho.Message
	lost   chan error // why the connection ended
	sent   time.Time  // the hello
}

func (s *visitor) topic(k transport.Kind) string {
	return s.o.Prefix + "/" + s.call.TerminalID + "/" + string(k)
}

func (s *visitor) connect(ctx context.Context) error {
	conn, err := s.o.dial(ctx, s.broker)
	if err != nil {
		return err
	}
	s.conn = conn
	guarded := guard(conn, 1, s.o.WriteTimeout)
	s.client = paho.NewClient(paho.NewClientOptions().
		AddBroker(s.broker.String()).
		SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return guarded, nil }).
		SetClientID(s.call.ClientID).
		SetProtocolVersion(4).
		SetCleanSession(true).
		SetAutoReconnect(false).
		SetConnectRetry(false).
		SetUsername(s.o.Username).
		SetPassword(string(s.o.Password)).
		SetWriteTimeout(s.o.WriteTimeout).
		SetConnectionLostHandler(func(_ paho.Client, err error) { s.lost <- err }).
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
			select {
			case s.heard <- m:
			default: // commands, if there are many: they are not for us
			}
		}))
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	token := s.client.Connect()
	<-token.Done() // for ever is until the connection is closed
	if code := token.(*paho.ConnectToken).ReturnCode(); code <= lastCode {
		s.visit.Code = code // above are the library's own
	}
	if err := token.Error(); err != nil {
		s.leave()
		return err
	}
	return nil
}

func (s *visitor) subscribe(ctx context.Context, k transport.Kind) error {
	token := s.client.Subscribe(s.topic(k), qos, nil)
	if err := s.await(ctx, token); err != nil {
		return err
	}
	code, answered := token.(*paho.SubscribeToken).Result()[s.topic(k)]
	if !answered {
		return errors.New("no answer in the SUBACK")
	}
	s.visit.Granted[k] = code
	return nil
}

// await waits until the broker has answered. The reason why a connection is lost
// comes beside the token's error, and says more.
func (s *visitor) await(ctx context.Context, token paho.Token) error {
	select {
	case <-token.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	if token.Error() == nil {
		return nil // also by a broker that then closes the connection
	}
	select {
	case err := <-s.lost:
		return fmt.Errorf("the broker has closed the connection: %w", err)
	case <-ctx.Done():
		return errors.Join(token.Error(), ctx.Err())
	}
}

// greet says hello and waits for the welcome. Neither is an error if it fails: a
// broker does not say that one may not publish. (Some acknowledge and close the
// connection: Mosquitto 2.0.11 of Debian 12.)
func (s *visitor) greet(ctx context.Context) {
	s.sent = time.Now()
	token := s.client.Publish(s.topic(transport.Hello), qos, false, transport.Encode(s.call.Hello))
	s.visit.Greeted = within(ctx, legPatience, func(ctx context.Context) error { return s.await(ctx, token) }) == nil
	if s.visit.Greeted {
		s.listen(ctx, welcomePatience, func() bool { return s.visit.Welcome != nil })
	}
}

// listen takes what comes until it is enough.
func (s *visitor) listen(ctx context.Context, patience time.Duration, enough func() bool) {
	over := time.NewTimer(patience)
	defer over.Stop()
	for !enough() {
		select {
		case m := <-s.heard:
			s.take(m)
		case <-s.lost: // after what has come
			for len(s.heard) > 0 {
				s.take(<-s.heard)
			}
			return
		case <-over.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (s *visitor) take(m paho.Message) {
	switch m.Topic() {
	case s.topic(transport.Presence):
		if p, err := transport.DecodePresence(m.Payload()); err == nil {
			s.visit.Presence = &p
		}
	case s.topic(transport.Welcome):
		if w, err := transport.DecodeWelcome(m.Payload()); err == nil && w.Nonce == s.call.Hello.Nonce {
			s.visit.Welcome, s.visit.WelcomeAt = &w, time.Now()
			s.visit.RoundTrip = s.visit.WelcomeAt.Sub(s.sent)
		}
	}
}

// leave ends the connection, and with it what the broker knows of it.
func (s *visitor) leave() {
	s.client.Disconnect(250) // milliseconds
	s.conn.Close()
}
