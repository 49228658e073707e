package mqtt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"terminalops/transport"
)

const (
	// qos of all messages, both ways.
	qos = 1
	// sendWindow is how many messages may wait for their PUBACK at once.
	sendWindow = 32
	// ackTimeout is how long a PUBACK may take; then the connection is given up.
	ackTimeout = 40 * time.Second
	// closeGrace is how long a connection outlives Run's ctx for last words.
	closeGrace = 2 * time.Second
)

// errClosed is why a connection ended that we closed.
var errClosed = errors.New("closed")

// link is one connection.
type link struct {
	end    *end
	broker *url.URL
	conn   *guarded
	client paho.Client
	inbox  *inbox
	window chan struct{} // holds one for every message sent and not acknowledged

	// ctx ends with the connection and for nothing else.
	ctx  context.Context
	lost context.CancelCauseFunc
}

// refusedError is a subscription that the broker did not grant.
type refusedError struct {
	topic string
	code  byte
}

func (e *refusedError) Error() string {
	if e.code == 0 {
		return fmt.Sprintf("subscribe %s: granted at QoS 0, expected 1", e.topic)
	}
	return fmt.Sprintf("subscribe %s: refused (code %02x): may this client read it?", e.topic, e.code)
}

// open connects and subscribes, within ConnectTimeout.
func (e *end) open(ctx context.Context, broker *url.URL, will []byte) (*link, error) {
	attempt, cancel := context.WithTimeoutCause(ctx, e.options.ConnectTimeout,
		fmt.Errorf("no answer within %v", e.options.ConnectTimeout))
	defer cancel()
	raw, err := e.dial(attempt, broker)
	if err != nil {
		return nil, err
	}
	l := &link{
		end:    e,
		broker: broker,
		conn:   guard(raw, len(e.kinds), e.options.WriteTimeout),
		inbox:  newInbox(),
		window: make(chan struct{}, sendWindow),
	}
	l.ctx, l.lost = context.WithCancelCause(context.WithoutCancel(ctx))
	l.client = paho.NewClient(l.clientOptions(will))
	// Closing the connection is what ends the library's handshake.
	stop := context.AfterFunc(attempt, func() { raw.Close() })
	defer stop()
	if err := l.handshake(attempt); err != nil {
		l.close()
		if attempt.Err() != nil {
			err = context.Cause(attempt)
		}
		return nil, err
	}
	return l, nil
}

// clientOptions make of the library a codec for this one connection: it neither
// connects again nor keeps, orders or acknowledges anything by itself.
func (l *link) clientOptions(will []byte) *paho.ClientOptions {
	o := l.end.options
	c := paho.NewClientOptions().
		AddBroker(l.broker.String()).
		SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return l.conn, nil }).
		SetClientID(l.end.clientID).
		SetProtocolVersion(4).
		SetCleanSession(false).
		SetAutoReconnect(false).
		SetConnectRetry(false).
		SetAutoAckDisabled(true).
		SetOrderMatters(true). // the handler only puts into the inbox
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { l.inbox.put(l.ctx, m) }).
		SetConnectionLostHandler(func(_ paho.Client, err error) { l.lost(err) }).
		SetUsername(o.Username).
		SetPassword(string(o.Password)).
		SetKeepAlive(o.KeepAlive).
		SetPingTimeout(o.PingTimeout).
		SetConnectTimeout(o.ConnectTimeout).
		SetWriteTimeout(o.WriteTimeout)
	if will != nil {
		c.SetBinaryWill(l.end.topic(l.end.clientID, transport.Presence), will, qos, true)
	}
	return c
}

// handshake does CONNECT and SUBSCRIBE.
func (l *link) handshake(ctx context.Context) error {
	connect := l.client.Connect()
	<-connect.Done() // for ever is until the connection is closed
	if err := connect.Error(); err != nil {
		return err
	}
	filters := make(map[string]byte)
	for _, f := range l.end.filters() {
		filters[f] = qos
	}
	subscribe := l.client.SubscribeMultiple(filters, nil)
	select {
	case <-subscribe.Done():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if subscribe.Error() != nil { // the connection is lost: why, comes a little later
		select {
		case <-l.ctx.Done():
			return context.Cause(l.ctx)
		case <-ctx.Done():
			return subscribe.Error()
		}
	}
	// The token has no error for a refusal: only the codes tell.
	granted := subscribe.(*paho.SubscribeToken).Result()
	for f := range filters {
		code, answered := granted[f]
		if !answered {
			return fmt.Errorf("subscribe %s: no answer in the SUBACK", f)
		}
		if code != qos {
			return &refusedError{f, code}
		}
	}
	return nil
}

// serve serves h until the connection has ended, is due for redelivery, or ctx
// has ended. Everything it started has ended when it returns, except messages
// handed to the library, for which Run waits.
func (l *link) serve(ctx context.Context, h transport.Handler) {
	handlers, cancel := context.WithCancel(l.ctx)
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	connected := make(chan struct{})
	go func() {
		defer close(connected)
		h.Connected(handlers, l)
	}()
	l.receive(handlers, h)
	if l.ctx.Err() != nil {
		l.end.log.Warn("connection lost", "broker", l.broker.String(), "error", context.Cause(l.ctx))
	}
	cancel()
	grace, expired := context.WithTimeout(l.ctx, closeGrace)
	defer expired()
	select {
	case <-connected:
		l.drain(grace)
	case <-grace.Done():
	}
	l.close()
	<-connected
}

// receive hands what arrives to h, until ctx ends or redelivery is due.
func (l *link) receive(ctx context.Context, h transport.Handler) {
	var redeliver <-chan time.Time
	for ctx.Err() == nil {
		if m := l.inbox.take(); m != nil {
			if err := l.deliver(ctx, h, m); err != nil && redeliver == nil {
				redeliver = time.After(l.end.options.RedeliverAfter)
			}
			continue
		}
		select {
		case <-l.inbox.arrived:
		case <-redeliver:
			l.end.log.Info("connecting again, for what was not acknowledged")
			return
		case <-ctx.Done():
		}
	}
}

// deliver hands one message to h and acknowledges it if it was dealt with.
// Nothing but the message object of this very connection can acknowledge.
func (l *link) deliver(ctx context.Context, h transport.Handler, m paho.Message) error {
	id, k, ok := l.end.parse(m.Topic())
	if !ok {
		l.end.log.Warn("message on a topic that is not ours", "topic", m.Topic())
		m.Ack()
		return nil
	}
	err := h.Receive(ctx, transport.Message{TerminalID: id, Kind: k, Payload: m.Payload(), Retained: m.Retained()})
	if err != nil {
		if ctx.Err() == nil {
			l.end.log.Warn("message not acknowledged", "topic", m.Topic(), "error", err)
		}
		return err
	}
	m.Ack()
	return nil
}

// Send implements [transport.Sender].
func (l *link) Send(ctx context.Context, terminalID string, k transport.Kind, payload []byte) error {
	topic := l.end.topic(terminalID, k)
	if !transport.ValidTerminalID(terminalID) {
		return fmt.Errorf("send %s: %q is no terminal id", k, terminalID)
	}
	if len(payload) > transport.MaxPayload {
		return fmt.Errorf("send %s: %d bytes, the limit is %d", topic, len(payload), transport.MaxPayload)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("send %s: %w", topic, ctx.Err())
	}
	select {
	case l.window <- struct{}{}:
	case <-l.ctx.Done():
		return l.notConnected(topic)
	case <-ctx.Done():
		return fmt.Errorf("send %s: %w", topic, ctx.Err())
	}
	// The library may block for WriteTimeout without looking at any ctx.
	acknowledged := make(chan error, 1)
	payload = slices.Clone(payload)
	l.end.sends.Go(func() {
		acknowledged <- l.publish(topic, k == transport.Presence, payload)
		<-l.window
	})
	select {
	case err := <-acknowledged:
		return err
	case <-l.ctx.Done():
		return l.notConnected(topic)
	case <-ctx.Done():
		return fmt.Errorf("send %s: %w", topic, ctx.Err())
	}
}

// publish returns nil if the PUBACK came while the connection stood. A token
// alone says too little: some are completed without PUBACK, some never.
//
// A PUBACK that does not come ends the connection, whoever still waits for it:
// in MQTT a message is sent again on another connection only, and on this one
// it would hold its place in the window for ever. A broker that answers pings
// and no messages would so leave us connected and dumb.
func (l *link) publish(topic string, retained bool, payload []byte) error {
	token := l.client.Publish(topic, qos, retained, payload)
	overdue := time.NewTimer(ackTimeout)
	defer overdue.Stop()
	select {
	case <-token.Done():
	case <-l.ctx.Done():
	case <-overdue.C:
		l.lost(fmt.Errorf("send %s: no PUBACK within %v", topic, ackTimeout))
	}
	switch {
	case l.ctx.Err() != nil:
		return l.notConnected(topic)
	case token.Error() != nil:
		return fmt.Errorf("send %s: %v: %w", topic, token.Error(), transport.ErrNotConnected)
	default:
		return nil
	}
}

func (l *link) notConnected(topic string) error {
	return fmt.Errorf("send %s: %v: %w", topic, context.Cause(l.ctx), transport.ErrNotConnected)
}

// drain waits until everything sent is acknowledged, or ctx ends.
func (l *link) drain(ctx context.Context) {
	for range sendWindow {
		select {
		case l.window <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// close ends the connection, with DISCONNECT where that can still be written:
// then there is no last will. It returns when the library's goroutines have
// ended, and may be called again.
func (l *link) close() {
	l.lost(errClosed)
	l.client.Disconnect(250)    // milliseconds
	l.conn.Close()              // what still writes ends now ...
	l.client.Disconnect(10_000) // ... and this waits for it
}
