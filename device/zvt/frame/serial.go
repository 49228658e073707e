package frame

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// attempts is how often a frame is sent at most: once, and up to two repeats
// ([S16]).
const attempts = 3

// SerialOptions are the options of Serial. A zero duration is the
// specification's value.
type SerialOptions struct {
	// T1 is the longest gap between two bytes of a frame; 0 is 200 ms. USB
	// adapters need more.
	T1 time.Duration
	// T2 is the longest wait from the end of a frame to its ACK; 0 is 5 s.
	T2 time.Duration
	// Baud is the speed of the line in bit/s; 0 if it is not known or does not
	// matter. T2 begins when a frame can have left at that speed: Write
	// returns long before.
	Baud int
	// Naive delivers the resend of a frame as if it were another one. For a
	// simulated terminal that takes a repeated command for a new command.
	Naive bool
	// Watch is told of all that happens on the line; nil costs nothing.
	Watch Watch
}

// bitsPerByte on a line with 8N2: a start bit and two stop bits.
const bitsPerByte = 11

// onLine is how long n bytes are on the line.
func (o SerialOptions) onLine(n int) time.Duration {
	if o.Baud == 0 {
		return 0
	}
	return time.Duration(n) * bitsPerByte * time.Second / time.Duration(o.Baud)
}

// SerialConn is a Conn over a line with frames. Each frame, each ACK and each
// NAK is one Write on the stream.
//
// The protocol numbers nothing. A frame identical to the one received last is
// a resend, whose first ACK got lost, if we have written nothing since, or are
// still waiting for the acknowledgement of what we wrote. It is acknowledged
// again and not delivered again (zvt.md 5.3). Afterwards it is a new message:
// a receipt may have two equal lines. (Of two equal lines one is lost if the
// ACK of our answer in between is: nobody can tell that from a resend.)
type SerialConn struct {
	line
	o    SerialOptions
	dec  decoder
	rec  recorder // if somebody watches
	held [][]byte // received by a write, for the next ReadAPDU
	last []byte   // received last, nil once an answer to it is acknowledged
}

// Serial makes a Conn of a serial line or what stands for one. It owns s.
func Serial(s Stream, o SerialOptions) *SerialConn {
	if o.T1 == 0 {
		o.T1 = 200 * time.Millisecond
	}
	if o.T2 == 0 {
		o.T2 = 5 * time.Second
	}
	return &SerialConn{line: line{s: s, seen: o.Watch}, o: o, rec: recorder{watch: o.Watch}}
}

// ReadAPDU implements Conn. A bad frame is answered by NAK and awaited again;
// the third in a row is an ErrMalformed, as the sender gives up then.
func (c *SerialConn) ReadAPDU(ctx context.Context) ([]byte, error) {
	if len(c.held) > 0 {
		apdu := c.held[0]
		c.held = c.held[1:]
		return apdu, nil
	}
	defer c.watch(ctx)()
	for bad := 0; ; {
		sig, err := c.next(ctx, time.Time{})
		if err == nil && (sig == malformed || sig == torn) {
			bad++
			err = c.refuse(ctx, sig)
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("read APDU: %w", err)
		case bad == attempts:
			return nil, fmt.Errorf("read APDU: %w: %d bad frames in a row, the last: %s", ErrMalformed, bad, c.dec.fault)
		case sig != gotFrame:
			continue // an ACK or NAK that nobody waits for
		}
		if apdu := c.accept(ctx); !c.isResend(apdu, c.last) {
			c.last = bytes.Clone(apdu)
			return apdu, nil
		}
		c.seen.note("the same again: acknowledged, not taken for another one")
	}
}

// WriteAPDU implements Conn.
func (c *SerialConn) WriteAPDU(ctx context.Context, apdu []byte) error {
	return c.send(ctx, apdu, true)
}

// WriteOnce implements Conn.
func (c *SerialConn) WriteOnce(ctx context.Context, apdu []byte) error {
	return c.send(ctx, apdu, false)
}

// reply is how a transmission ended.
type reply int

const (
	silent       reply = iota // nothing within T2
	acknowledged              // by ACK, or by the frame that comes behind it
	rejected                  // by NAK
	asked                     // the message that we answer was sent again
)

// send sends a frame until it is acknowledged, at most attempts times. Only
// with insist is it sent again for another reason than a NAK.
func (c *SerialConn) send(ctx context.Context, apdu []byte, insist bool) error {
	if err := checkAPDU(apdu); err != nil {
		return fmt.Errorf("write APDU: %w: %w: %w", ErrNothingWritten, ErrMalformed, err)
	}
	defer c.watch(ctx)()
	if err := c.settle(ctx); err != nil {
		return fmt.Errorf("write APDU: %w: %w", ErrNothingWritten, err)
	}
	wire := encode(apdu)
	before := c.last // the message that we answer, if we do
	rejections := 0
	for n := 1; n <= attempts; n++ {
		started := time.Now()
		written, err := c.write(ctx, wire, c.o.onLine(len(wire))+c.o.T2)
		c.sent(wire[:written], apdu, len(wire), n)
		if err != nil && n == 1 && written == 0 {
			return fmt.Errorf("write APDU: %w: %w", ErrNothingWritten, err)
		}
		if n == 1 {
			c.last = nil
		}
		if err != nil {
			return fmt.Errorf("write APDU: %w after %d of %d bytes, copy %d", err, written, len(wire), n)
		}
		got, err := c.await(ctx, c.ends(started, len(wire)), before, isAnswer(apdu), insist && n < attempts)
		switch {
		case err != nil:
			return fmt.Errorf("write APDU: %w, copy %d awaits its ACK", err, n)
		case got == acknowledged:
			return nil
		case got == rejected:
			rejections++
			continue
		case got == silent:
			c.seen.note(fmt.Sprintf("no ACK within %v", c.o.T2))
		}
		if !insist {
			return fmt.Errorf("write APDU: %w for %v, not repeated", ErrNoAcknowledgement, c.o.T2)
		}
	}
	if rejections == attempts {
		return fmt.Errorf("write APDU: %w", ErrRejected)
	}
	if rejections == 0 {
		return fmt.Errorf("write APDU: %w, sent %d times", ErrNoAcknowledgement, attempts)
	}
	return fmt.Errorf("write APDU: %w, sent %d times, rejected %d times", ErrNoAcknowledgement, attempts, rejections)
}

// sent tells of a frame of size bytes, or of what was written of it.
func (c *SerialConn) sent(written, apdu []byte, size, copy int) {
	if c.seen == nil || len(written) == 0 {
		return
	}
	s := Sight{Kind: Whole, Sent: true, Wire: written, APDU: apdu}
	if copy > 1 {
		s.Note = fmt.Sprintf("sent again, copy %d", copy)
	}
	if len(written) < size {
		s.Kind, s.Note = Broken, fmt.Sprintf("broken off after %d of %d bytes", len(written), size)
	}
	c.seen(s)
}

// say sends an ACK or a NAK.
func (c *SerialConn) say(ctx context.Context, b byte, kind Kind) error {
	wire := []byte{b}
	n, err := c.write(ctx, wire, c.o.T2)
	if n > 0 {
		c.seen.tell(Sight{Kind: kind, Sent: true, Wire: wire})
	}
	return err
}

// ends is when the wait for the ACK of a frame of size bytes ends, of which
// the Write has just returned: T2 after its last byte can have left.
func (c *SerialConn) ends(started time.Time, size int) time.Time {
	end := started.Add(c.o.onLine(size))
	if now := time.Now(); now.After(end) {
		end = now
	}
	return end.Add(c.o.T2)
}

// settle looks at what was received with the last message and not read: it
// came before our frame, so it is no reply to it. An answer among it was meant
// for something earlier, and is forgotten.
func (c *SerialConn) settle(ctx context.Context) error {
	for {
		switch sig := c.scan(); sig {
		case none:
			c.dec.forgetNAK()
			return nil
		case gotFrame:
			apdu := c.accept(ctx)
			if !c.isResend(apdu, c.last) && !isAnswer(apdu) {
				c.hold(apdu)
			} else {
				c.seen.note("came before our message: forgotten")
			}
		case malformed:
			if err := c.refuse(ctx, sig); err != nil {
				return err
			}
		}
	}
}

// await waits for the ACK of the frame just sent. before is the message
// received before it, or nil. Whether a frame that comes instead is as good as
// an ACK:
//
//	before again  no, if before was a command: its sender does not know our
//	              frame, nor that we have before. With repeat it is asked.
//	              (An answer equal to before is another one: each message of a
//	              terminal is answered by 80 00 00.)
//	84 xx         no: an answer to something earlier, out of step (zvt.md 5.1).
//	              If it was ours, the operation ends in doubt: the safe side.
//	              A terminal that lost the ACK of its message and gets 84 xx
//	              repeats that message, and is answered again.
//	80 xx         no, if we sent an answer: nobody answers an answer.
//	any other     yes. If it is a command against our command, both sides have
//	              spoken at once. The ACK proper, if it still comes, is ignored.
//
// All of them are acknowledged; the last kind is for the next ReadAPDU.
func (c *SerialConn) await(ctx context.Context, until time.Time, before []byte, answering, repeat bool) (reply, error) {
	for {
		sig, err := c.next(ctx, until)
		switch {
		case errors.Is(err, errSilence):
			return silent, nil
		case err != nil:
			return silent, err
		}
		switch sig {
		case gotACK:
			return acknowledged, nil
		case gotNAK:
			return rejected, nil
		case malformed, torn:
			if err := c.refuse(ctx, sig); err != nil {
				return silent, err
			}
		case gotFrame:
			apdu := c.accept(ctx)
			switch {
			case c.isResend(apdu, before) && !isAnswer(before):
				if repeat {
					return asked, nil
				}
			case isRefusal(apdu) || answering && isAnswer(apdu):
				c.last = apdu // its own resend is no answer either
				c.seen.note("answers something earlier: ignored")
			default:
				c.hold(apdu)
				return acknowledged, nil
			}
		}
	}
}

// next returns the next signal on the line, or errSilence if there was none
// until then (zero: until ctx ends). What has begun by then may end.
func (c *SerialConn) next(ctx context.Context, until time.Time) (signal, error) {
	for {
		if sig := c.scan(); sig != none {
			return sig, nil
		}
		deadline, isT1 := until, false
		if c.dec.unsettled() {
			t1 := time.Now().Add(c.o.T1)
			if isT1 = until.IsZero() || c.dec.committed() || t1.Before(until); isT1 {
				deadline = t1
			}
		}
		err := c.fill(ctx, deadline)
		if isT1 && errors.Is(err, errSilence) {
			if sig := c.silence(); sig != none {
				return sig, nil
			}
			continue
		}
		if err != nil {
			return none, err
		}
	}
}

// scan returns the next signal in the bytes received, or none.
func (c *SerialConn) scan() signal {
	for i, b := range c.in {
		sig := c.dec.feed(b)
		if c.seen != nil {
			c.rec.fed(b, sig, &c.dec)
		}
		if sig != none {
			c.in = c.in[i+1:]
			return sig
		}
	}
	c.in = c.in[:0]
	return none
}

// accept acknowledges the frame just decoded, before anybody looks into it,
// and returns its APDU.
func (c *SerialConn) accept(ctx context.Context) []byte {
	// The frame is whole and counts, also if the ACK cannot be written: a
	// terminal says its totals once. The link's trouble shows at the next
	// call.
	_ = c.say(ctx, ack, ACK)
	return bytes.Clone(c.dec.apdu)
}

// refuse answers a bad frame by NAK. Before, it waits until its rest has
// passed, which else would be taken for the beginning of the repeat.
func (c *SerialConn) refuse(ctx context.Context, sig signal) error {
	if sig == malformed {
		if err := c.awaitSilence(ctx, c.discard); err != nil {
			return err
		}
		c.silence()
	}
	return c.say(ctx, nak, NAK)
}

// discard throws away what was received.
func (c *SerialConn) discard() {
	if c.seen != nil {
		c.rec.noise(c.in)
	}
	c.in = c.in[:0]
}

// silence is the decoder's, after T1 without a byte.
func (c *SerialConn) silence() signal {
	sig := c.dec.silence()
	if c.seen != nil {
		c.rec.silent(sig, &c.dec)
	}
	return sig
}

func (c *SerialConn) isResend(apdu, of []byte) bool {
	return !c.o.Naive && of != nil && bytes.Equal(apdu, of)
}

func (c *SerialConn) hold(apdu []byte) {
	c.held = append(c.held, apdu)
	c.last = bytes.Clone(apdu)
}

// Drain implements Conn.
func (c *SerialConn) Drain(ctx context.Context) (last []byte, err error) {
	defer c.watch(ctx)()
	if n := len(c.held); n > 0 {
		last = c.held[n-1]
	}
	acknowledge := func() {
		for sig := c.scan(); sig != none; sig = c.scan() {
			if sig == gotFrame {
				last = c.accept(ctx)
			}
		}
	}
	if err := c.awaitSilence(ctx, acknowledge); err != nil {
		return nil, fmt.Errorf("drain: %w", err)
	}
	c.silence()
	c.held, c.last = nil, nil
	return last, nil
}

// awaitSilence returns when nothing has come for T1. heard is called for what
// is there, and each time that more has come. A line that talks for twice T2 is an ErrMalformed.
func (c *SerialConn) awaitSilence(ctx context.Context, heard func()) error {
	heard()
	for limit := time.Now().Add(2 * c.o.T2); time.Now().Before(limit); {
		err := c.fill(ctx, time.Now().Add(c.o.T1))
		if errors.Is(err, errSilence) {
			return nil
		}
		if err != nil {
			return err
		}
		heard()
	}
	return fmt.Errorf("%w: the line does not fall silent within %v", ErrMalformed, 2*c.o.T2)
}
