package frame

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// errSilence: the deadline of a fill passed without a byte.
var errSilence = errors.New("silence")

// longAgo is a deadline that ends a Read or Write at once.
var longAgo = time.Unix(1, 0)

// line is a stream whose waits end with a deadline or with ctx.
type line struct {
	s     Stream
	seen  Watch  // is told of all; nil: nobody
	in    []byte // received, not yet looked at
	chunk [4096]byte
}

// watch lets the end of ctx interrupt what is under way on the stream, until
// the function it returns is called. That one waits for an interruption that
// has begun: it must not hit the next call's deadline.
func (l *line) watch(ctx context.Context) (unwatch func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		// Errors show at the Read or Write that follows.
		_ = l.s.SetReadDeadline(longAgo)
		_ = l.s.SetWriteDeadline(longAgo)
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

// fill appends to in what arrives first, until the deadline (zero: until ctx
// ends). It returns nil, errSilence, ctx.Err() or an ErrLinkLost.
func (l *line) fill(ctx context.Context, deadline time.Time) error {
	if err := l.s.SetReadDeadline(deadline); err != nil {
		return l.lost(err)
	}
	// In this order: if ctx ends after this line, watch's deadline comes after
	// ours.
	if err := ctx.Err(); err != nil {
		return err
	}
	n, err := l.s.Read(l.chunk[:])
	l.in = append(l.in, l.chunk[:n]...)
	switch {
	case n > 0:
		return nil // an error that came with bytes comes again
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSilence
	case err == nil:
		return l.lost(io.ErrNoProgress)
	default:
		return l.lost(err)
	}
}

// lost is the error of a stream that failed.
func (l *line) lost(err error) error {
	err = fmt.Errorf("%w: %w", ErrLinkLost, err)
	l.seen.note(err.Error())
	return err
}

// write writes b in one Write that may take at most limit. It returns how many
// bytes left, and nil, ctx.Err() or an ErrLinkLost.
func (l *line) write(ctx context.Context, b []byte, limit time.Duration) (int, error) {
	if err := l.s.SetWriteDeadline(time.Now().Add(limit)); err != nil {
		return 0, l.lost(err)
	}
	if err := ctx.Err(); err != nil { // see fill
		return 0, err
	}
	n, err := l.s.Write(b)
	switch {
	case err == nil:
		return n, nil
	case ctx.Err() != nil:
		return n, ctx.Err()
	default:
		return n, l.lost(err)
	}
}

// Close closes the stream.
func (l *line) Close() error { return l.s.Close() }
