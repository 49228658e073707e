package frame

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// All vectors as one stream, in segments of every small size.
func TestTCPSegments(t *testing.T) {
	var stream []byte
	vs := vectors(t)
	for _, v := range vs {
		stream = append(stream, v.apdu...)
	}
	for _, size := range []int{1, 2, 3, 4, 5, 7, 100, len(stream)} {
		synctest.Test(t, func(t *testing.T) {
			s, p := net.Pipe()
			c := TCP(s, TCPOptions{})
			wait := later(func() {
				for rest := stream; len(rest) > 0; {
					n := min(size, len(rest))
					_, _ = p.Write(rest[:n])
					rest = rest[n:]
				}
				p.Close()
			})
			for _, v := range vs {
				wantAPDU(t, c, v.apdu)
			}
			_, err := c.ReadAPDU(t.Context())
			wantErr(t, err, ErrLinkLost)
			wait()
		})
	}
}

// tcp runs one test of a TCPConn against a raw peer, in virtual time.
func tcp(t *testing.T, theirs func(p *peer), ours func(t *testing.T, c *TCPConn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, p := newPeer(t)
		c := TCP(s, TCPOptions{})
		wait := later(func() { theirs(p) })
		ours(t, c)
		wait()
		synctest.Wait()
		p.close()
		c.Close()
	})
}

func TestTCPRestDoesNotCome(t *testing.T) {
	tcp(t, func(p *peer) {
		time.Sleep(time.Minute) // nothing at all is no trouble
		p.say(printLine[:4])
		time.Sleep(4 * time.Second)
		p.say(printLine[4:5])
	}, func(t *testing.T, c *TCPConn) {
		start := time.Now()
		_, err := c.ReadAPDU(t.Context())
		wantErr(t, err, ErrMalformed)
		wantElapsed(t, start, time.Minute+5*time.Second)
	})
}

func TestTCPContextEnds(t *testing.T) {
	tcp(t, func(p *peer) {
		p.say(printLine[:4])
		time.Sleep(time.Second)
		p.say(printLine[4:])
	}, func(t *testing.T, c *TCPConn) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		_, err := c.ReadAPDU(ctx)
		wantErr(t, err, context.DeadlineExceeded)
		wantErr(t, c.WriteAPDU(ctx, status), ErrNothingWritten, context.DeadlineExceeded)
		wantAPDU(t, c, printLine) // what had come of it was kept
	})
}

func TestTCPDrain(t *testing.T) {
	tcp(t, func(p *peer) {
		p.say(printLine, completion, positive[:1])
		time.Sleep(time.Second)
		p.say(positive[1:])
		time.Sleep(drainPause - 1)
		p.say(negative)
		time.Sleep(drainPause + 1)
		p.say(completion)
	}, func(t *testing.T, c *TCPConn) {
		wantAPDU(t, c, printLine)
		start := time.Now()
		wantDrain(t, c, negative)
		wantElapsed(t, start, time.Second+2*drainPause-1)
		wantAPDU(t, c, completion)
	})
}

func TestTCPDrainBabble(t *testing.T) {
	tcp(t, func(p *peer) {
		for range 99 {
			p.say(printLine)
			time.Sleep(drainPause * 3 / 4)
		}
	}, func(t *testing.T, c *TCPConn) {
		start := time.Now()
		wantDrain(t, c, nil, ErrMalformed)
		if took := time.Since(start); took < drainLimit || took > drainLimit+drainPause {
			t.Errorf("took %v, want %v", took, drainLimit)
		}
		wantDrain(t, c, nil)
	})
}

func TestTCPBrokenWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := net.Pipe()
		c := TCP(s, TCPOptions{})
		defer c.Close()
		start := time.Now()
		wantErr(t, c.WriteOnce(t.Context(), endOfDay), ErrNothingWritten, ErrLinkLost)
		wantElapsed(t, start, 5*time.Second)

		wait := later(func() { _, _ = io.ReadFull(p, make([]byte, 2)) })
		wantErr(t, c.WriteOnce(t.Context(), endOfDay), ErrLinkLost)
		wait()
		// Half an APDU is out: nothing may follow it. Reading goes on.
		start = time.Now()
		wantErr(t, c.WriteOnce(t.Context(), endOfDay), ErrNothingWritten, ErrLinkLost)
		wantElapsed(t, start, 0)
		wait = later(func() { _, _ = p.Write(completion) })
		wantAPDU(t, c, completion)
		wait()
	})
}

// A sender of ours on a real socket.
func TestTCPSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	longest := append([]byte{0x06, 0xD3, 0xFF, 0xFF, 0xFF}, bytes.Repeat([]byte{dle}, 0xFFFF)...)
	wait := later(func() {
		s, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		pt := TCP(s, TCPOptions{})
		defer pt.Close()
		wantAPDU(t, pt, endOfDay)
		wantErr(t, pt.WriteAPDU(t.Context(), longest))
		wantErr(t, pt.WriteAPDU(t.Context(), completion))
	})
	s, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ecr := TCP(s, TCPOptions{})
	defer ecr.Close()
	wantErr(t, ecr.WriteOnce(t.Context(), endOfDay))
	wantAPDU(t, ecr, longest)
	wantAPDU(t, ecr, completion)
	wait()
}
