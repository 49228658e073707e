package frame

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// TCPOptions are the options of TCP.
type TCPOptions struct {
	T3    time.Duration // how long the rest of an APDU, or a Write, may take; 0 is 5 s
	Watch Watch         // is told of all that happens; nil costs nothing
}

// TCPConn is a Conn over TCP: naked APDUs, one behind the other (zvt.md 2).
type TCPConn struct {
	line
	t3     time.Duration
	broken bool // part of an APDU was written
}

// TCP makes a Conn of a stream that needs no frames. It owns s.
func TCP(s Stream, o TCPOptions) *TCPConn {
	if o.T3 == 0 {
		o.T3 = 5 * time.Second
	}
	return &TCPConn{line: line{s: s, seen: o.Watch}, t3: o.T3}
}

// ReadAPDU implements Conn.
func (c *TCPConn) ReadAPDU(ctx context.Context) ([]byte, error) {
	defer c.watch(ctx)()
	apdu, err := c.next(ctx, time.Time{})
	if err != nil {
		return nil, fmt.Errorf("read APDU: %w", err)
	}
	return apdu, nil
}

// next returns the next APDU, or errSilence if none has begun by the deadline.
// Its rest may take T3, however late it began.
func (c *TCPConn) next(ctx context.Context, deadline time.Time) ([]byte, error) {
	begun := false
	for {
		if size := apduSize(c.in); size > 0 && size <= len(c.in) {
			apdu := c.in[:size:size]
			c.in = append([]byte(nil), c.in[size:]...)
			c.seen.tell(Sight{Wire: apdu, APDU: apdu})
			return apdu, nil
		}
		if len(c.in) > 0 && !begun {
			begun, deadline = true, time.Now().Add(c.t3)
		}
		err := c.fill(ctx, deadline)
		if begun && (errors.Is(err, errSilence) || errors.Is(err, ErrLinkLost)) {
			c.seen.tell(Sight{Kind: Broken, Wire: c.in, APDU: c.in, Note: "the rest has not come"})
		}
		if begun && errors.Is(err, errSilence) {
			return nil, fmt.Errorf("%w: the rest of an APDU has not come for %v, %d bytes have", ErrMalformed, c.t3, len(c.in))
		}
		if err != nil {
			return nil, err
		}
	}
}

// WriteAPDU implements Conn.
func (c *TCPConn) WriteAPDU(ctx context.Context, apdu []byte) error {
	if err := checkAPDU(apdu); err != nil {
		return fmt.Errorf("write APDU: %w: %w: %w", ErrNothingWritten, ErrMalformed, err)
	}
	if c.broken {
		return fmt.Errorf("write APDU: %w: %w: out of step since a broken write", ErrNothingWritten, ErrLinkLost)
	}
	defer c.watch(ctx)()
	n, err := c.write(ctx, apdu, c.t3)
	switch {
	case n == len(apdu):
		c.seen.tell(Sight{Sent: true, Wire: apdu, APDU: apdu})
	case n > 0:
		c.seen.tell(Sight{Kind: Broken, Sent: true, Wire: apdu[:n], APDU: apdu[:n], Note: fmt.Sprintf("broken off after %d of %d bytes", n, len(apdu))})
	}
	switch {
	case err == nil:
		return nil
	case n == 0:
		return fmt.Errorf("write APDU: %w: %w", ErrNothingWritten, err)
	default:
		c.broken = true
		return fmt.Errorf("write APDU: %w after %d of %d bytes", err, n, len(apdu))
	}
}

// WriteOnce implements Conn. Nothing is ever sent twice on TCP.
func (c *TCPConn) WriteOnce(ctx context.Context, apdu []byte) error {
	return c.WriteAPDU(ctx, apdu)
}

// drainPause is the silence after which Drain believes a TCP link to have
// said everything; drainLimit is how long it may take to fall silent.
const (
	drainPause = 200 * time.Millisecond
	drainLimit = 10 * time.Second
)

// Drain implements Conn.
func (c *TCPConn) Drain(ctx context.Context) (last []byte, err error) {
	defer c.watch(ctx)()
	for limit := time.Now().Add(drainLimit); time.Now().Before(limit); {
		b, err := c.next(ctx, time.Now().Add(drainPause))
		if errors.Is(err, errSilence) {
			return last, nil
		}
		if err != nil {
			return nil, fmt.Errorf("drain: %w", err)
		}
		last = b
	}
	return nil, fmt.Errorf("drain: %w: still talking after %v", ErrMalformed, drainLimit)
}
