package frame

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// vector is an APDU and its bytes on a serial line.
type vector struct {
	name       string
	apdu, wire []byte
}

// vectors reads testdata/*.hex: "APDU = wire  # what it is".
func vectors(t testing.TB) []vector {
	t.Helper()
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) < 2 {
		t.Fatalf("testdata/*.hex: %v, %v", files, err)
	}
	var vs []vector
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			content, name, _ := strings.Cut(line, "#")
			if strings.TrimSpace(content) == "" {
				continue
			}
			apdu, wire, _ := strings.Cut(content, "=")
			vs = append(vs, vector{strings.TrimSpace(name), unhex(t, apdu), unhex(t, wire)})
		}
	}
	return vs
}

// unframed are the APDUs that others recorded, most of them on TCP: package apdu
// has them, with what they mean.
func unframed(t testing.TB) []vector {
	t.Helper()
	text, err := os.ReadFile("../apdu/testdata/recorded.hex")
	if err != nil {
		t.Fatal(err)
	}
	var vs []vector
	name := ""
	for line := range strings.Lines(string(text)) {
		switch mark, rest, _ := strings.Cut(strings.TrimSpace(line), " "); mark {
		case "#":
			name = rest
		case ">":
			vs = append(vs, vector{name: name, apdu: unhex(t, rest)})
		case "!": // no APDU
			vs = vs[:len(vs)-1]
		}
	}
	if len(vs) < 26 {
		t.Fatalf("%d recorded APDUs: zvt.md 6 alone has 26", len(vs))
	}
	return vs
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil || len(b) == 0 {
		t.Fatalf("%.60q: %v", s, err)
	}
	return b
}

// Messages that the tests say to each other, and their frames.
var (
	endOfDay   = []byte{0x06, 0x50, 0x03, 0x00, 0x00, 0x00}
	status     = []byte{0x05, 0x01, 0x03, 0x00, 0x00, 0x00}
	printLine  = []byte{0x06, 0xD1, 0x03, 0x00, 0x41, 0x42}
	completion = []byte{0x06, 0x0F, 0x00}
	positive   = []byte{0x80, 0x00, 0x00}
	negative   = []byte{0x84, 0x83, 0x00}

	ackByte = []byte{ack}
	nakByte = []byte{nak}
)

// peer is the raw other end of a Conn: a test says bytes and hears Writes.
// A peer must end with close.
type peer struct {
	t     *testing.T
	pipe  net.Conn
	heard chan []byte
}

func newPeer(t *testing.T) (Stream, *peer) {
	ours, theirs := net.Pipe()
	p := &peer{t: t, pipe: theirs, heard: make(chan []byte, 1000)}
	go func() {
		defer close(p.heard)
		buf := make([]byte, 1<<20)
		for {
			n, err := theirs.Read(buf)
			if err != nil {
				return
			}
			p.heard <- bytes.Clone(buf[:n])
		}
	}()
	return ours, p
}

func (p *peer) say(b ...[]byte) {
	p.t.Helper()
	if _, err := p.pipe.Write(bytes.Join(b, nil)); err != nil {
		p.t.Errorf("peer says % X: %v", b, err)
	}
}

// hears waits for the next Writes and compares them.
func (p *peer) hears(want ...[]byte) {
	p.t.Helper()
	for i, w := range want {
		select {
		case got := <-p.heard:
			if !bytes.Equal(got, w) {
				p.t.Errorf("peer hears % X as number %d, want % X", got, i+1, w)
			}
		case <-time.After(time.Hour):
			p.t.Fatalf("peer hears nothing more, want % X", w)
		}
	}
}

// close ends the peer and fails if it has heard more than it waited for.
func (p *peer) close() {
	p.t.Helper()
	p.pipe.Close()
	for b := range p.heard {
		p.t.Errorf("peer also hears % X", b)
	}
}

// later calls f in a goroutine and returns a function that waits for it.
func later(f func()) (wait func()) {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	return func() { <-done }
}

// cable joins two streams like a serial line: it buffers, and a hook sees each
// Write and says what becomes of it.
func cable(t *testing.T, toB, toA func(b []byte) []byte) (a, b Stream) {
	a, aEnd := net.Pipe()
	b, bEnd := net.Pipe()
	pump := func(from, to net.Conn, hook func([]byte) []byte) {
		queue := make(chan []byte, 1000)
		go func() {
			defer close(queue)
			buf := make([]byte, 1<<18)
			for {
				n, err := from.Read(buf)
				if err != nil {
					return
				}
				if out := hook(bytes.Clone(buf[:n])); len(out) > 0 {
					queue <- out
				}
			}
		}()
		go func() {
			for out := range queue {
				_, _ = to.Write(out) // fails when the test is over
			}
		}()
	}
	pump(aEnd, bEnd, toB)
	pump(bEnd, aEnd, toA)
	t.Cleanup(func() {
		for _, c := range []io.Closer{a, b, aEnd, bEnd} {
			c.Close()
		}
	})
	return a, b
}

// through is a hook that counts the frames.
func through(frames *int) func([]byte) []byte {
	return func(b []byte) []byte {
		if len(b) > 1 {
			*frames++
		}
		return b
	}
}

func wantAPDU(t *testing.T, c Conn, want []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	got, err := c.ReadAPDU(ctx)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("ReadAPDU: % X, %v, want % X", got, err, want)
	}
}

func wantErr(t *testing.T, err error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Errorf("error %v, want it to be %q", err, w)
		}
	}
	if len(want) == 0 && err != nil {
		t.Errorf("error %v", err)
	}
	for _, s := range []error{ErrNothingWritten, ErrRejected, ErrNoAcknowledgement, ErrMalformed, ErrLinkLost, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, s) && !errors.Is(errors.Join(want...), s) {
			t.Errorf("error %v, want it not to be %q", err, s)
		}
	}
}

func wantElapsed(t *testing.T, since time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(since); got != want {
		t.Errorf("took %v, want %v", got, want)
	}
}

// wantNothing fails if ReadAPDU delivers anything in the next minute.
func wantNothing(t *testing.T, c Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := c.ReadAPDU(ctx)
	if got != nil {
		t.Errorf("ReadAPDU: % X, want nothing", got)
	}
	wantErr(t, err, context.DeadlineExceeded)
}

// wantDrain drains, and wants the last APDU of what is thrown away.
func wantDrain(t *testing.T, c Conn, last []byte, want ...error) {
	t.Helper()
	have, err := c.Drain(t.Context())
	wantErr(t, err, want...)
	if err == nil && last != nil && !bytes.Equal(have, last) {
		t.Errorf("drained % X, want % X", have, last)
	}
}
