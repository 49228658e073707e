package zvttest

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device/zvt/frame"
)

// The APDUs of zvt.md 4.0, byte for byte.
const (
	registerECR     = "06 00 15 00 00 00 8C 09 78 06 0D 26 04 0A 02 06 D3 12 01 40 1A 02 04 00"
	statusEnquiry   = "05 01 03 00 00 00"
	statusDetails   = "05 01 05 00 00 00 03 04"
	endOfDayCommand = "06 50 03 00 00 00"
	repeatEndOfDay  = "06 20 0B 00 00 00 03 01 06 04 1F 01 01 04"
	repeatStatusNow = "06 20 05 00 00 00 03 03"
	readFile02      = "08 11 07 06 05 2D 03 1D 01 02"
	readFiles0203   = "08 11 0C 06 0A 2D 03 1D 01 02 2D 03 1D 01 03"
	configuration   = "06 1A 00"
	selfTest        = "06 79 00"
	systemInfo      = "0F 11 03 00 00 00"
	softwareUpdate  = "08 10 00"
	serviceMode     = "08 01 03 00 00 00"
	yes             = "80 00 00"
	completed       = "06 0F 00"
	notSupported    = "84 83 00"
)

// station is a terminal that is switched on and serves one connection after the
// other, as the command does.
type station struct {
	t    *testing.T
	pt   *Terminal
	tcp  bool
	dial chan net.Conn
}

// start switches a terminal on in virtual time; test is the ECR's side.
func start(t *testing.T, o Options, tcp bool, test func(*testing.T, *station)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		pt, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		s := &station{t, pt, tcp, make(chan net.Conn)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.serve(ctx)
		}()
		defer func() {
			cancel()
			<-done
			if err := pt.Close(); err != nil {
				t.Error(err)
			}
		}()
		test(t, s)
	})
}

func (s *station) serve(ctx context.Context) {
	serve := s.pt.ServeSerial
	if s.tcp {
		serve = s.pt.ServeTCP
	}
	for {
		select {
		case <-ctx.Done():
			return
		case conn := <-s.dial:
			if err := serve(ctx, conn); err != nil {
				s.t.Errorf("serve: %v", err)
			}
		}
	}
}

// ecr is a cash register: it says what it is told to, and 80 00 00 to the rest.
type ecr struct {
	t     *testing.T
	conn  frame.Conn
	delay time.Duration // before its answers
}

// connect plugs an ECR in, as soon as the terminal is free.
func (s *station) connect() *ecr {
	here, there := cable()
	s.dial <- there
	if s.tcp {
		return &ecr{t: s.t, conn: frame.TCP(here, frame.TCPOptions{})}
	}
	return &ecr{t: s.t, conn: frame.Serial(here, frame.SerialOptions{})}
}

// cable is a line that holds what nobody has read yet, as real ones do; two ends
// of a net.Pipe that both write wait for each other.
func cable() (here, there net.Conn) {
	here, a := net.Pipe()
	there, b := net.Pipe()
	go forward(a, b)
	go forward(b, a)
	return here, there
}

// forward is one direction of a cable, until one of its ends is closed.
func forward(from, to net.Conn) {
	held := make(chan []byte, 10_000)
	go func() {
		defer to.Close()
		for b := range held {
			if _, err := to.Write(b); err != nil {
				return
			}
		}
	}()
	defer from.Close()
	defer close(held)
	for {
		b := make([]byte, 4096)
		n, err := from.Read(b)
		if err != nil {
			return
		}
		held <- b[:n]
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func spell(b []byte) string { return strings.ToUpper(spaced(hex.EncodeToString(b))) }

func spaced(s string) string {
	var out []string
	for i := 0; i+2 <= len(s); i += 2 {
		out = append(out, s[i:i+2])
	}
	return strings.Join(out, " ")
}

// say sends a command and returns all that the terminal says to it, up to its
// last word, or to silence for longer than T4: then the last is "silence". A
// line that breaks is "gone".
func (e *ecr) say(command string) []string {
	e.t.Helper()
	b := unhex(e.t, command)
	if err := e.conn.WriteOnce(e.t.Context(), b); err != nil && !errors.Is(err, frame.ErrNoAcknowledgement) {
		if errors.Is(err, frame.ErrRejected) {
			return []string{"rejected"}
		}
		return []string{"gone"}
	}
	return e.hear()
}

// hear answers all that the terminal says.
func (e *ecr) hear() []string {
	var heard []string
	for {
		got, err := e.read(t4 + time.Minute)
		if err != nil {
			return append(heard, err.Error())
		}
		heard = append(heard, got)
		switch {
		case strings.HasPrefix(got, "84"):
			return heard
		case strings.HasPrefix(got, "80"):
			continue
		}
		time.Sleep(e.delay)
		if err := e.conn.WriteAPDU(e.t.Context(), unhex(e.t, yes)); err != nil {
			return append(heard, "gone")
		}
		if strings.HasPrefix(got, "06 0F") || strings.HasPrefix(got, "06 1E") {
			return heard
		}
	}
}

func (e *ecr) read(d time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(e.t.Context(), d)
	defer cancel()
	b, err := e.conn.ReadAPDU(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "", errors.New("silence")
	case err != nil:
		return "", errors.New("gone")
	}
	return spell(b), nil
}

// last returns what was heard last.
func last(heard []string) string { return heard[len(heard)-1] }

func index(heard []string, prefix string) int {
	for i, h := range heard {
		if strings.HasPrefix(h, prefix) {
			return i
		}
	}
	return -1
}

func wantHeard(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("heard\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func wantDid(t *testing.T, pt *Terminal, what What, n int) []Record {
	t.Helper()
	did := pt.Did(what)
	if len(did) != n {
		t.Fatalf("%s happened %d times, want %d; log: %v", what, len(did), n, pt.Log())
	}
	return did
}

func wantNoViolations(t *testing.T, pt *Terminal) {
	t.Helper()
	if v := pt.Violations(); v != nil {
		t.Fatalf("violations: %q", v)
	}
}
