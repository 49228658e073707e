package dispatcher

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"terminalops/dispatcher/store"
	"terminalops/transport"
)

// publishers is how many commands are published at a time when many wait.
const publishers = 16

// outbox holds the commands that the broker has not acknowledged. A command in
// it may have left us or not, so it is never taken back: it is published until
// it is acknowledged or cannot start any more.
type outbox struct {
	mu      sync.Mutex
	filled  bool
	entries map[string]*entry // by operation id
}

type entry struct {
	terminalID string
	payload    []byte
	sending    bool
}

func (b *outbox) add(c transport.Command) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.entries[c.OperationID] == nil {
		b.entries[c.OperationID] = &entry{terminalID: c.TerminalID, payload: transport.Encode(c)}
	}
}

func (b *outbox) ids() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids := make([]string, 0, len(b.entries))
	for id := range b.entries {
		ids = append(ids, id)
	}
	return ids
}

// take claims a command for one attempt; nil if it is gone or under way already.
func (b *outbox) take(id string) *entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[id]
	if e == nil || e.sending {
		return nil
	}
	e.sending = true
	return e
}

// done ends the attempt that take began; over says that there is to be no other.
func (b *outbox) done(id string, over bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if over {
		delete(b.entries, id)
	} else if e := b.entries[id]; e != nil {
		e.sending = false
	}
}

// publish makes one attempt to publish a command of the outbox. Whether it may
// still go out is asked right before: others may have waited their turn for long.
func (d *Dispatcher) publish(c *connection, id string) {
	e := d.outbox.take(id)
	if e == nil {
		return
	}
	wanted, err := d.store.IsUndelivered(c.ctx, id)
	if err == nil && wanted {
		err = d.send(c, e.terminalID, transport.Commands, e.payload)
	}
	d.outbox.done(id, err == nil)
	if err != nil {
		d.log.Warn("command is not acknowledged by the broker, publishing it again", "operation", id, "terminal", e.terminalID, "error", err)
	}
}

// fillOutbox takes the commands over that a former process may not have
// published: all that may still start and that no terminal has accepted.
//
// An accepted one needs no publishing: ACCEPTED and RUNNING are said by a
// terminal whose journal holds the command, which is a stronger receipt than
// the broker's. And it must not be published: a terminal that lost its journal
// since then would take the bare command for new and might act twice, while the
// pending member of a welcome tells it that the command was accepted, and so
// must not start. Nothing is lost by that which could be saved: where the
// journal is gone, TIMEOUT is what has to become of the operation.
func (d *Dispatcher) fillOutbox(ctx context.Context) error {
	if d.outbox.filled { // only Connected asks, and that one at a time
		return nil
	}
	undelivered, err := d.store.Undelivered(ctx)
	if err != nil {
		return err
	}
	for _, o := range undelivered {
		d.outbox.add(d.command(o))
	}
	d.outbox.filled = true
	return nil
}

// republish publishes what is in the outbox until the connection ends.
func (d *Dispatcher) republish(c *connection) {
	for {
		d.publishAll(c)
		if !pause(c.ctx, d.times.Republish) {
			return
		}
	}
}

func (d *Dispatcher) publishAll(c *connection) {
	var attempts errgroup.Group
	attempts.SetLimit(publishers)
	for _, id := range d.outbox.ids() {
		attempts.Go(func() error {
			d.publish(c, id)
			return nil
		})
	}
	attempts.Wait() // no attempt returns an error
}

// command is what a terminal is sent for an operation, the same at every call.
func (d *Dispatcher) command(o store.Operation) transport.Command {
	c := transport.Command{
		OperationID: o.ID, TerminalID: o.TerminalID, Operation: o.Operation,
		Parameters: parametersOf(o),
		IssuedAt:   transport.At(o.CreatedAt), ExpiresAt: transport.At(o.ExpiresAt),
	}
	if o.Operation == sendLogs {
		c.Upload = &transport.Upload{
			URL:      d.publicURL + uploadsPath + d.uploads.token(o.ID),
			MaxBytes: d.uploads.MaxBytes,
			Until:    transport.At(o.HardLimit),
		}
	}
	return c
}
