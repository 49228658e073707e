// Package frame turns a stream of bytes into whole ZVT APDUs, in both
// directions, and back. Both ends use it: the ECR, and a simulated terminal.
//
// On a serial line ([S16], zvt.md 1.2 to 1.4) an APDU travels in a frame, and
// each frame is acknowledged by the single byte ACK before anybody looks into
// it, or refused by the single byte NAK and sent again:
//
//	sender                                                        receiver
//	10 02   06 01 0A 04 00 00 00 01 10 10 00 49 09 78   10 03   F2 FF   ->
//	DLE STX APDU, each 10 doubled                       DLE ETX CRC     ->
//	                                                        <-  06 (ACK)
//
//	CRC     CRC-16/KERMIT (reflected 1021h, init 0000h) over the APDU as it is
//	        without the doubling, and the ETX. Low byte first, never doubled:
//	        after DLE ETX exactly two raw bytes follow.
//	T1      200 ms: the longest gap between two bytes of a frame.
//	T2      5 s: from the end of a frame to its ACK.
//
// On TCP (zvt.md 2) there is nothing but APDUs, one behind the other; each
// tells its length. T3 (5 s) is how long the rest of one may take.
//
// The package does not know what an APDU means, with two exceptions: where its
// length field is, and that 80 xx and 84 xx are answers to commands. It runs
// no dialogue, starts no goroutine of its own, and repeats nothing but frames.
package frame

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Stream is what a link gives. A net.Conn, an end of a net.Pipe and an
// *os.File that can be polled (a pty) satisfy it. Read returns at least one
// byte or an error, os.ErrDeadlineExceeded after the deadline. A deadline ends
// a Read or Write that is under way, and may be set from another goroutine.
type Stream interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Conn carries whole APDUs. It is for one goroutine, except Close, which may
// be called from anywhere and ends what is under way.
//
// When ctx ends, each method returns at once an error that is ctx.Err(). The
// other errors are those of the list at [ErrNothingWritten].
type Conn interface {
	// ReadAPDU returns the next whole APDU, which then belongs to the caller.
	// On a serial line it has been acknowledged. ReadAPDU waits as long as ctx
	// allows.
	ReadAPDU(ctx context.Context) ([]byte, error)

	// WriteAPDU returns nil when the other end has acknowledged the APDU; on
	// TCP, when the system has taken it. On a serial line it is sent up to
	// three times, again after NAK or after T2 of silence.
	WriteAPDU(ctx context.Context, apdu []byte) error

	// WriteOnce is WriteAPDU for a command that makes the terminal act. It is
	// sent again only after a NAK, never after silence: whose receive line is
	// broken cannot know that the terminal has not already taken it, and a
	// terminal may take the copy for a second command. After an error it is
	// certain that the other end has not taken the APDU only if the error is
	// ErrNothingWritten or ErrRejected.
	WriteOnce(ctx context.Context, apdu []byte) error

	// Drain throws away what the other end still says (acknowledged, or it
	// would be said again) and what has not been read, until the line is
	// silent. For the ECR before a new command (zvt.md 5.1). What comes after
	// it counts as new. It returns the last APDU of these; nil if there was none.
	Drain(ctx context.Context) (last []byte, err error)

	// Close closes the stream.
	Close() error
}

// What went wrong, in the order in which certainty is lost. An error may be
// two of these: ErrNothingWritten also tells why, if that was the link.
var (
	// ErrNothingWritten, of WriteAPDU and WriteOnce: no byte of the frame has
	// left. The other end knows nothing of it.
	ErrNothingWritten = errors.New("nothing was written")

	// ErrRejected, of WriteAPDU and WriteOnce: all three copies were answered
	// by NAK. The other end has not taken the APDU.
	ErrRejected = errors.New("rejected by NAK three times")

	// ErrNoAcknowledgement, of WriteAPDU and WriteOnce: the frame was sent and
	// neither ACK nor another frame came. Whether the other end has taken the
	// APDU is in doubt. The link can still be used.
	ErrNoAcknowledgement = errors.New("no acknowledgement")

	// ErrMalformed: three bad frames came in a row, or the line does not fall
	// silent after one; on TCP, the rest of an APDU did not come. A serial link
	// can still be used, a TCP link is out of step and of no more use. With
	// ErrNothingWritten it can also mean that the caller's APDU is none.
	ErrMalformed = errors.New("malformed")

	// ErrLinkLost, of all methods: the stream failed, or took no bytes for
	// longer than they may need. The link is of no more use. After a write,
	// whether the other end has taken the APDU is in doubt, unless the error
	// is ErrNothingWritten, too.
	ErrLinkLost = errors.New("link lost")
)

// An APDU ([S16], zvt.md 3.1) is two bytes of control field, a length field
// and data. The length field counts the data: one byte 00..FE, or FF and two
// bytes, low byte first. A short block may use the long form.
const (
	shortHeader = 3
	longHeader  = 5
	longForm    = 0xFF
	maxAPDU     = longHeader + 0xFFFF
)

// apduSize is the size of the APDU that begins with b, in bytes, as its length
// field tells it. It is 0 while b is too short to know.
func apduSize(b []byte) int {
	switch {
	case len(b) < shortHeader:
		return 0
	case b[2] != longForm:
		return shortHeader + int(b[2])
	case len(b) < longHeader:
		return 0
	default:
		return longHeader + int(b[3]) + int(b[4])<<8
	}
}

// checkAPDU returns nil if apdu is one whole APDU and nothing more.
func checkAPDU(apdu []byte) error {
	size := apduSize(apdu)
	if size == 0 {
		return fmt.Errorf("APDU of %d bytes has no whole length field", len(apdu))
	}
	if size != len(apdu) {
		return fmt.Errorf("APDU has %d bytes, its length field says %d", len(apdu), size)
	}
	return nil
}

// isAnswer reports whether apdu answers a command (80 xx, 84 xx).
func isAnswer(apdu []byte) bool { return apdu[0] == 0x80 || isRefusal(apdu) }

// isRefusal reports whether apdu is 84 xx: no, not now, or not supported.
func isRefusal(apdu []byte) bool { return apdu[0] == 0x84 }
