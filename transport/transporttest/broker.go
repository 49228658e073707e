// Package transporttest is for tests of whatever stands at an end of the
// transport: a broker in memory, and the test that every pair of ends must pass.
//
//	Agent(id).Run --- link --- session "id" ---+
//	                           queue: commands |
//	                                           +--- Broker --- Publish (anybody)
//	                           queue: reports  |
//	Cloud().Run ----- link --- session "cloud" +
//
// The [Broker] does what an MQTT broker does at QoS 1 with persistent sessions:
// what is published waits in the queue of every session that subscribed to it
// until it is acknowledged, and is delivered again on the next connection if it
// was not. A session begins with its first connection: what is published before
// that is lost, as with a real broker.
//
// The broker has no sockets and starts no goroutine; those of an end belong to
// its Run and have ended when that returns. It may be used inside a
// testing/synctest bubble, and must then be made there.
package transporttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"terminalops/transport"
)

// cloudID is the client id of the dispatcher's session.
const cloudID = "cloud"

// Broker is a broker in memory. Its zero value is not usable: see [NewBroker].
type Broker struct {
	// Pause is how long an end waits before it connects again.
	Pause time.Duration
	// RedeliverAfter is how long a connection goes on after Receive failed; it
	// is then closed (without last will) and made again.
	RedeliverAfter time.Duration

	mu         sync.Mutex
	changed    chan struct{} // closed, and replaced, at every change
	down       bool
	sessions   map[string]*session
	retained   map[topic]Published
	published  []Published
	loseAcks   int
	duplicates int
	delay      func(Published) (ack, delivery time.Duration)
}

type topic struct {
	terminalID string
	kind       transport.Kind
}

// Published is one message that the broker has taken.
type Published struct {
	From       string // client id: a terminal's id, or "cloud"; "" for Broker.Publish
	TerminalID string
	Kind       transport.Kind
	Payload    []byte
	Retained   bool
	Will       bool // published by the broker, because a connection was lost
	At         time.Time
}

func (p Published) String() string {
	return fmt.Sprintf("%s %s/%s from %q will=%t %s", p.At.Format("15:04:05.000"), p.TerminalID, p.Kind, p.From, p.Will, p.Payload)
}

// session is what the broker keeps for a client id, connected or not.
type session struct {
	wants func(topic) bool
	queue []*delivery
	link  *link // nil while nobody is connected
}

// delivery is a message in the queue of a session, until it is acknowledged.
type delivery struct {
	message transport.Message
	due     time.Time
	sent    bool // on the present link
}

// NewBroker returns a broker without sessions.
func NewBroker() *Broker {
	return &Broker{
		Pause:          time.Second,
		RedeliverAfter: 30 * time.Second,
		changed:        make(chan struct{}),
		sessions:       make(map[string]*session),
		retained:       make(map[topic]Published),
	}
}

// Agent returns the end of a terminal. Two ends of one terminal take the
// session from each other.
func (b *Broker) Agent(terminalID string) transport.End {
	return &end{b, terminalID, func(t topic) bool {
		return t.terminalID == terminalID && (t.kind == transport.Commands || t.kind == transport.Welcome)
	}}
}

// Cloud returns the end of the dispatcher.
func (b *Broker) Cloud() transport.End {
	return &end{b, cloudID, func(t topic) bool {
		return t.kind == transport.Reports || t.kind == transport.Presence || t.kind == transport.Hello
	}}
}

// Publish publishes as anybody would who may log in to the broker: any topic,
// any bytes, retained or not. An empty retained message removes the retained one.
func (b *Broker) Publish(terminalID string, k transport.Kind, payload []byte, retained bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.publish(Published{TerminalID: terminalID, Kind: k, Payload: payload, Retained: retained})
}

// Published returns everything the broker has ever taken, in order.
func (b *Broker) Published() []Published {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.published)
}

// PublishedOn returns what the broker has ever taken on one topic, in order.
func (b *Broker) PublishedOn(terminalID string, k transport.Kind) []Published {
	return slices.DeleteFunc(b.Published(), func(p Published) bool { return p.TerminalID != terminalID || p.Kind != k })
}

// Retained returns the retained payload of a topic, nil if there is none.
func (b *Broker) Retained(terminalID string, k transport.Kind) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.retained[topic{terminalID, k}].Payload
}

// Connected reports whether a client (a terminal's id, or "cloud") is connected.
func (b *Broker) Connected(clientID string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sessions[clientID]
	return s != nil && s.link != nil
}

// Unacknowledged returns how many messages the broker holds for a client.
func (b *Broker) Unacknowledged(clientID string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.sessions[clientID]; s != nil {
		return len(s.queue)
	}
	return 0
}

// Await waits until cond holds. It asks again whenever something has changed at
// the broker: a message, an acknowledgement, a connection. The test fails after
// within, with everything that was published.
func (b *Broker) Await(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	for {
		b.mu.Lock()
		changed := b.changed
		b.mu.Unlock()
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			t.Fatalf("%s: not within %v; published:\n%s", what, within, b.transcript())
		}
	}
}

func (b *Broker) transcript() string {
	var text strings.Builder
	for _, p := range b.Published() {
		fmt.Fprintln(&text, p)
	}
	return text.String()
}

// Cut breaks the connection of a client and publishes its last will.
func (b *Broker) Cut(clientID string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.sessions[clientID]; s != nil && s.link != nil {
		b.cut(s.link)
	}
}

// Down takes the broker away: every connection breaks, and nobody is there to
// publish last wills. Sessions, queues and retained messages stay.
func (b *Broker) Down() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = true
	b.breakAll()
}

// Up brings the broker back.
func (b *Broker) Up() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = false
	b.notify()
}

// Forget is the restart of a broker that keeps nothing: every connection
// breaks, and sessions, queues and retained messages are lost. What
// [Broker.Published] returns is not.
func (b *Broker) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.breakAll()
	clear(b.sessions)
	clear(b.retained)
}

// LoseAcks makes the next n messages that ends send arrive, but their PUBACK
// get lost: the connection breaks (with last will) and Send returns an error.
func (b *Broker) LoseAcks(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loseAcks = n
}

// Duplicate makes the next n messages be delivered twice, one after the other,
// to each subscriber.
func (b *Broker) Duplicate(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.duplicates = n
}

// Delay makes f say of every message how long its PUBACK takes, and how long
// after it was published it is delivered. What was published later does not
// overtake it. nil ends that.
func (b *Broker) Delay(f func(Published) (ack, delivery time.Duration)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.delay = f
}

// The following are called with b.mu held.

func (b *Broker) notify() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// publish takes a message and returns how long its PUBACK takes.
func (b *Broker) publish(p Published) (ack time.Duration) {
	p.At = time.Now()
	p.Payload = slices.Clone(p.Payload)
	b.published = append(b.published, p)
	at := topic{p.TerminalID, p.Kind}
	if p.Retained {
		b.retained[at] = p
		if len(p.Payload) == 0 {
			delete(b.retained, at)
		}
	}
	due := p.At
	if b.delay != nil {
		var delivery time.Duration
		ack, delivery = b.delay(p)
		due = due.Add(delivery)
	}
	copies := 1
	if b.duplicates > 0 {
		b.duplicates--
		copies = 2
	}
	for _, s := range b.sessions {
		for range copies {
			s.enqueue(p, due, false)
		}
	}
	b.notify()
	return ack
}

func (s *session) enqueue(p Published, due time.Time, retained bool) {
	if !s.wants(topic{p.TerminalID, p.Kind}) {
		return
	}
	payload := p.Payload[:min(len(p.Payload), transport.MaxPayload+1)]
	s.queue = append(s.queue, &delivery{
		message: transport.Message{TerminalID: p.TerminalID, Kind: p.Kind, Payload: slices.Clone(payload), Retained: retained},
		due:     due,
	})
}

// cut breaks a connection from outside: the broker publishes the last will.
func (b *Broker) cut(l *link) {
	b.disconnect(l)
	if l.will != nil {
		b.publish(Published{From: l.clientID, TerminalID: l.clientID, Kind: transport.Presence, Payload: l.will, Retained: true, Will: true})
	}
}

// disconnect ends a connection; every message not acknowledged yet is to be
// delivered again.
func (b *Broker) disconnect(l *link) {
	if l.session.link != l {
		return
	}
	l.session.link = nil
	for _, d := range l.session.queue {
		d.sent = false
	}
	l.cancel()
	close(l.gone)
	b.notify()
}

func (b *Broker) breakAll() {
	for _, s := range b.sessions {
		if s.link != nil {
			b.disconnect(s.link)
		}
	}
	b.notify()
}

// connect opens a connection and subscribes: retained messages are delivered
// (again) then. Whoever had the session loses it, without a last will.
func (b *Broker) connect(ctx context.Context, e *end, will []byte) (*link, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return nil, errors.New("broker is down")
	}
	s := b.sessions[e.clientID]
	if s == nil {
		s = &session{wants: e.wants}
		b.sessions[e.clientID] = s
	}
	if s.link != nil {
		b.disconnect(s.link)
	}
	for _, p := range b.retained {
		s.enqueue(p, time.Now(), true)
	}
	l := &link{broker: b, session: s, clientID: e.clientID, will: will, gone: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(ctx)
	s.link = l
	b.notify()
	return l, nil
}
