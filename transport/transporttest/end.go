package transporttest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"terminalops/transport"
)

// end is one end of the transport, on a Broker.
type end struct {
	broker   *Broker
	clientID string
	wants    func(topic) bool
}

// Run implements [transport.End].
func (e *end) Run(ctx context.Context, h transport.Handler) error {
	for ctx.Err() == nil {
		if l, err := e.broker.connect(ctx, e, h.Connecting()); err == nil {
			l.serve(ctx, h)
		}
		select {
		case <-ctx.Done():
		case <-time.After(e.broker.Pause):
		}
	}
	return nil
}

// link is one connection.
type link struct {
	broker   *Broker
	session  *session
	clientID string
	will     []byte
	ctx      context.Context // of the handlers: ends with the connection, or Run's ctx
	cancel   context.CancelFunc
	gone     chan struct{} // closed when the connection has ended
}

// serve serves h until the connection or ctx has ended. It ends the connection
// in good order when ctx has: after Connected has returned.
func (l *link) serve(ctx context.Context, h transport.Handler) {
	var connected sync.WaitGroup
	connected.Go(func() { h.Connected(l.ctx, l) })
	l.receive(h)
	l.cancel()
	connected.Wait()
	l.broker.mu.Lock()
	defer l.broker.mu.Unlock()
	l.broker.disconnect(l)
}

// receive hands what is in the queue to h, until the connection ends or is due
// for redelivery.
func (l *link) receive(h transport.Handler) {
	var redeliver <-chan time.Time
	for {
		d, due, changed := l.next()
		if d == nil {
			select {
			case <-l.ctx.Done():
				return
			case <-redeliver:
				return
			case <-changed:
			case <-due:
			}
			continue
		}
		if l.ctx.Err() != nil {
			return
		}
		m := d.message
		m.Payload = slices.Clone(m.Payload) // whoever receives it owns it
		if err := h.Receive(l.ctx, m); err == nil {
			l.acknowledge(d)
		} else if redeliver == nil {
			redeliver = time.After(l.broker.RedeliverAfter)
		}
	}
}

// next returns the first message not sent on this connection, if it is due;
// otherwise what to wait for.
func (l *link) next() (d *delivery, due <-chan time.Time, changed <-chan struct{}) {
	l.broker.mu.Lock()
	defer l.broker.mu.Unlock()
	i := slices.IndexFunc(l.session.queue, func(d *delivery) bool { return !d.sent })
	if l.session.link != l || i < 0 {
		return nil, nil, l.broker.changed
	}
	d = l.session.queue[i]
	if wait := time.Until(d.due); wait > 0 {
		return nil, time.After(wait), l.broker.changed
	}
	d.sent = true
	return d, nil, nil
}

// acknowledge takes d out of the queue, unless the connection has ended: then
// the acknowledgement is lost.
func (l *link) acknowledge(d *delivery) {
	l.broker.mu.Lock()
	defer l.broker.mu.Unlock()
	if l.session.link == l {
		l.session.queue = slices.DeleteFunc(l.session.queue, func(q *delivery) bool { return q == d })
		l.broker.notify()
	}
}

// Send implements [transport.Sender].
func (l *link) Send(ctx context.Context, terminalID string, k transport.Kind, payload []byte) error {
	if len(payload) > transport.MaxPayload {
		return fmt.Errorf("send %s: %d bytes, the limit is %d", k, len(payload), transport.MaxPayload)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("send %s: %w", k, ctx.Err())
	}
	ack, err := l.publish(Published{
		From: l.clientID, TerminalID: terminalID, Kind: k, Payload: payload, Retained: k == transport.Presence,
	})
	if err != nil || ack == 0 {
		return err
	}
	select {
	case <-time.After(ack):
		return nil
	case <-l.gone:
		return fmt.Errorf("send %s: %w", k, transport.ErrNotConnected)
	case <-ctx.Done():
		return fmt.Errorf("send %s: %w", k, ctx.Err())
	}
}

// publish hands p to the broker and returns how long the PUBACK takes.
func (l *link) publish(p Published) (ack time.Duration, err error) {
	b := l.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.session.link != l {
		return 0, fmt.Errorf("send %s: %w", p.Kind, transport.ErrNotConnected)
	}
	ack = b.publish(p)
	if b.loseAcks > 0 {
		b.loseAcks--
		b.cut(l)
		return 0, fmt.Errorf("send %s: PUBACK lost: %w", p.Kind, transport.ErrNotConnected)
	}
	return ack, nil
}
