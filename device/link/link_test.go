package link

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// must parses an address that is right.
func must(t *testing.T, s string) Address {
	t.Helper()
	a, err := Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// says fails the test unless err is the sentinel and contains all words.
func says(t *testing.T, err, sentinel error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if sentinel != nil && !errors.Is(err, sentinel) {
		t.Errorf("%v: is not %v", err, sentinel)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v: does not say %q", err, w)
		}
	}
}

func TestFindUSB(t *testing.T) {
	onboard := Port{Name: "/dev/ttyS0"}
	desk := Port{Name: "/dev/ttyACM0", VendorID: "0b00", ProductID: "0080", SerialNumber: "a17", Product: "DESK"}
	twin := Port{Name: "/dev/ttyACM1", VendorID: "0b00", ProductID: "0080", SerialNumber: "a18"}
	second := Port{Name: "/dev/ttyACM2", VendorID: "0b00", ProductID: "0080", SerialNumber: "a17", Aliases: []string{"/dev/serial/by-id/x-if02"}}
	other := Port{Name: "/dev/ttyUSB0", VendorID: "0403", ProductID: "6001"}

	for _, test := range []struct {
		name    string
		address string
		ports   []Port
		want    string // port name; empty for an error
		absent  bool
		words   []string
	}{
		{"alone", "usb:0b00:0080", []Port{onboard, desk, other}, "/dev/ttyACM0", false, nil},
		{"by serial number", "usb:0B00:0080:A18", []Port{desk, twin}, "/dev/ttyACM1", false, nil},
		{"nothing at all", "usb:0b00:0080", []Port{onboard}, "", true, []string{"not plugged in", "no such port at all"}},
		{"something else", "usb:0b00:0080", []Port{onboard, other}, "", true, []string{"not plugged in", "/dev/ttyUSB0 (usb:0403:6001)"}},
		{"another serial number", "usb:0b00:0080:A99", []Port{desk}, "", true, []string{`/dev/ttyACM0 (usb:0b00:0080:a17 "DESK")`}},
		{"twins", "usb:0b00:0080", []Port{desk, twin}, "", false, []string{"2 devices", "add the serial number", "a17", "a18"}},
		{"two ports of one device", "usb:0b00:0080", []Port{desk, second}, "", false, []string{"2 ports", "use serial:PORT", "/dev/serial/by-id/x-if02"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := find(must(t, test.address), test.ports)
			if test.want != "" {
				if err != nil || p.Name != test.want {
					t.Fatalf("got %q, %v, want %s", p.Name, err, test.want)
				}
				return
			}
			says(t, err, nil, test.words...)
			if errors.Is(err, os.ErrNotExist) != test.absent {
				t.Errorf("%v: os.ErrNotExist is %v", err, !test.absent)
			}
			if strings.Contains(err.Error(), "ttyS0") {
				t.Errorf("%v: names a port that is not USB", err)
			}
		})
	}
}

func TestMatches(t *testing.T) {
	p := Port{Name: "/dev/ttyACM0", Aliases: []string{"/dev/serial/by-id/x"}, VendorID: "0b00", ProductID: "0080", SerialNumber: "a17"}
	for address, want := range map[string]bool{
		"serial:/dev/ttyACM0":        true,
		"serial:/dev/serial/by-id/x": true,
		"serial:/dev/ttyACM1":        false,
		"usb:0b00:0080":              true,
		"usb:0b00:0080:a17":          true,
		"usb:0b00:0080:a1":           false,
		"usb:0b00:0081":              false,
		"usb:0b01:0080":              false,
		"tcp:localhost:20007":        false,
	} {
		if got := must(t, address).Matches(p); got != want {
			t.Errorf("%s leads to %s: %v, want %v", address, p, got, want)
		}
	}
}

func TestOpenChecksOptions(t *testing.T) {
	a := must(t, "serial:/dev/nothing-of-that-name")
	_, err := Open(t.Context(), a, Options{Baud: 9600, StopBits: 3})
	says(t, err, nil, "open serial:/dev/nothing-of-that-name: ", "3 stop bits, want 1 or 2")
	_, err = Open(t.Context(), a, Options{StopBits: 1})
	says(t, err, nil, "0 baud, want")
}

func TestOpenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Open(ctx, must(t, "tcp:127.0.0.1:20007"), Options{})
	says(t, err, context.Canceled, "open tcp:127.0.0.1:20007")
}

func TestUnpluggedUSB(t *testing.T) {
	s, err := Open(t.Context(), must(t, "usb:ffff:fffe:NONE"), Options{Baud: 9600, StopBits: 1})
	if s != nil {
		t.Error("a stream beside the error")
	}
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	says(t, err, os.ErrNotExist, "open usb:ffff:fffe:NONE: not plugged in")
}

func TestTCP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s, err := Open(t.Context(), must(t, "tcp:"+listener.Addr().String()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	peer, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()

	testDeadlines(t, s)
	exchange(t, s, peer)
	peer.Close()
	if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read from a peer that hung up: %v", err)
	}
}

func TestTCPErrors(t *testing.T) {
	const address = "tcp:127.0.0.1:1" // nobody listens there: systems give the port (tcpmux) only to who asks for it
	s, err := Open(t.Context(), must(t, address), Options{})
	if s != nil {
		t.Error("a stream beside the error")
	}
	says(t, err, connectionRefused, "open "+address+": connection refused", "nothing listens")

	_, err = Open(t.Context(), must(t, "tcp:no-such-host.invalid:20007"), Options{})
	says(t, err, nil, "open tcp:no-such-host.invalid:20007: ", "no-such-host.invalid")

	says(t, explainDial(&net.OpError{Op: "dial", Err: &net.DNSError{Name: "till", IsNotFound: true}}), nil, "unknown host: there is no till")
	says(t, explainDial(&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}), os.ErrDeadlineExceeded, "no answer: is the device switched on")
}

// exchange sends a few bytes each way.
func exchange(t *testing.T, s Stream, peer io.ReadWriter) {
	t.Helper()
	if err := errors.Join(s.SetReadDeadline(time.Now().Add(10*time.Second)), s.SetWriteDeadline(time.Now().Add(10*time.Second))); err != nil {
		t.Fatal(err)
	}
	// All that a line which is not raw would take for itself.
	text := []byte("\x00\x03\x04\x0a\x0d\x10\x11\x13\x1a\x1c\x7f\xff")
	send(t, s, peer, text)
	send(t, peer, s, text)
}

func send(t *testing.T, from io.Writer, to io.Reader, text []byte) {
	t.Helper()
	if n, err := from.Write(text); n != len(text) || err != nil {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(text), err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(to, got); err != nil {
		t.Fatal(err)
	}
	if string(got) != string(text) {
		t.Fatalf("got %x, want %x", got, text)
	}
}

// testDeadlines expects nobody to send. It lets a read wait in vain, and one
// that waits already; a write whose time is over writes nothing.
func testDeadlines(t *testing.T, s Stream) {
	t.Helper()
	for _, d := range []time.Duration{-time.Second, 20 * time.Millisecond} {
		if err := s.SetReadDeadline(time.Now().Add(d)); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Read(make([]byte, 10)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read with a deadline in %v: %d bytes, %v", d, n, err)
		}
	}
	if err := s.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := s.Read(make([]byte, 10))
		ended <- err
	}()
	if err := s.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read whose deadline was moved to now: %v", err)
	}
	if err := s.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Write([]byte("late")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("write after its deadline: %d bytes, %v", n, err)
	}
	if err := s.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
}
