package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
	"terminalops/device/zvt/zvttest"
)

// simulator is the command while it runs.
type simulator struct {
	t     *testing.T
	lines chan string    // what it prints
	keys  *io.PipeWriter // what is typed
	stop  context.CancelFunc
	code  chan int
}

// begin runs the command, until the test ends.
func begin(t *testing.T, args ...string) *simulator {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r, w := io.Pipe()
	input, keys := io.Pipe()
	s := &simulator{t, make(chan string, 10_000), keys, stop, make(chan int, 1)}
	go func() {
		defer close(s.lines)
		for out := bufio.NewScanner(r); out.Scan(); {
			s.lines <- out.Text()
		}
	}()
	go func() {
		s.code <- run(ctx, args, input, w, testWriter{t})
		w.Close()
	}()
	t.Cleanup(s.end)
	return s
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("stderr: %s", b)
	return len(b), nil
}

// types types a line.
func (s *simulator) types(line string) {
	s.t.Helper()
	if _, err := io.WriteString(s.keys, line+"\n"); err != nil {
		s.t.Fatal(err)
	}
}

// after types a line, and waits for one with these words in it.
func (s *simulator) after(typed, want string) string {
	s.t.Helper()
	s.types(typed)
	return s.says(want)
}

// says waits for a line with these words in it.
func (s *simulator) says(want string) string {
	s.t.Helper()
	return s.find(want, func(line string) bool { return strings.Contains(line, want) })
}

// find waits for a line.
func (s *simulator) find(want string, is func(string) bool) string {
	s.t.Helper()
	late := time.After(time.Minute)
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("ended without a line %q", want)
			}
			if is(line) {
				return line
			}
		case <-late:
			s.t.Fatalf("no line %q", want)
		}
	}
}

// line waits for a line that begins with prefix.
func (s *simulator) line(prefix string) string {
	s.t.Helper()
	return s.find(prefix, func(line string) bool { return strings.HasPrefix(line, prefix) })
}

// end ends the command; it has to end well.
func (s *simulator) end() {
	s.stop()
	s.keys.Close()
	select {
	case code := <-s.code:
		if code != exitOK {
			s.t.Errorf("exit code %d", code)
		}
		s.code <- code
	case <-time.After(time.Minute):
		s.t.Error("it does not end")
	}
}

// closeDay does an end of day and returns what the terminal said last.
func closeDay(t *testing.T, conn frame.Conn) apdu.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := conn.WriteOnce(ctx, apdu.EndOfDay{}.Marshal()); err != nil {
		t.Fatal(err)
	}
	for {
		b, err := conn.ReadAPDU(ctx)
		if err != nil {
			t.Fatal(err)
		}
		m, err := apdu.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		switch m.(type) {
		case apdu.Ack:
			continue
		case apdu.Nack:
			return m
		}
		if err := conn.WriteAPDU(ctx, apdu.Ack{}.Marshal()); err != nil {
			t.Fatal(err)
		}
		switch m.(type) {
		case apdu.Completion, apdu.Abort:
			return m
		}
	}
}

const closed42 = "closed the batch: 42 payments, 1,234.50 EUR"

func TestTCP(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	args := []string{"--protocol", "zvt", "--link", "tcp:127.0.0.1:0", "--log", log, "--fast"}
	for n, want := range []string{closed42, "closed the batch: 0 payments, 0.00 EUR"} {
		s := begin(t, args...)
		address := strings.TrimPrefix(s.line("ready on tcp:"), "ready on tcp:")
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		ecr := frame.TCP(conn, frame.TCPOptions{})
		if m := closeDay(t, ecr); m.Control() != apdu.ControlCompletion {
			t.Errorf("ended with %v", m)
		}
		if got := s.line("closed"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		ecr.Close()
		s.end()
		if got := records(t, log); len(got) != n+1 || got[n].What != zvttest.EndOfDay {
			t.Errorf("log: %v", got)
		}
	}
}

func records(t *testing.T, path string) []zvttest.Record {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []zvttest.Record
	for d := json.NewDecoder(f); ; {
		var r zvttest.Record
		err := d.Decode(&r)
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
}

// Others wait for a connection, as with a real terminal.
func TestTCPOneAtATime(t *testing.T) {
	s := begin(t, "--link", "tcp:127.0.0.1:0", "--fast")
	address := strings.TrimPrefix(s.line("ready on tcp:"), "ready on tcp:")
	first, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	second, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	closeDay(t, frame.TCP(first, frame.TCPOptions{}))
	ecr := frame.TCP(second, frame.TCPOptions{})
	if err := ecr.WriteOnce(t.Context(), apdu.StatusEnquiry{}.Marshal()); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if b, err := ecr.ReadAPDU(t.Context()); err != nil || b[0] != 0x80 {
		t.Fatalf("% X, %v", b, err)
	}
	second.Close()
}

func TestBadInput(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{nil, "--link is missing"},
		{[]string{"--link", "serial:COM3"}, `"serial:COM3": pty:PATH or tcp:HOST:PORT wanted`},
		{[]string{"--link", "tcp:"}, "tcp:HOST:PORT wanted"},
		{[]string{"--link", "tcp:127.0.0.1:0", "--protocol", "kit"}, `--protocol "kit": zvt wanted`},
		{[]string{"--link", "tcp:127.0.0.1:0", "--scenario", "sucess"}, `scenario "sucess": one of these wanted`},
		{[]string{"--link", "tcp:127.0.0.1:0", "more"}, `argument "more"`},
		{[]string{"--lnk", "tcp:127.0.0.1:0"}, "--lnk"},
	}
	for _, test := range tests {
		var stderr strings.Builder
		code := run(t.Context(), test.args, nil, io.Discard, &stderr)
		if code != exitConfig || !strings.Contains(stderr.String(), test.want) {
			t.Errorf("%q: code %d, %q, want %q", test.args, code, stderr.String(), test.want)
		}
	}
	var stderr strings.Builder
	if code := run(t.Context(), []string{"--link", "tcp:192.0.2.1:1"}, nil, io.Discard, &stderr); code != exitFailed || !strings.Contains(stderr.String(), "192.0.2.1:1") {
		t.Errorf("an address of somebody else: code %d, %q", code, stderr.String())
	}
}

func TestHelp(t *testing.T) {
	for _, flag := range []string{"--help", "--scenarios"} {
		var stdout strings.Builder
		if code := run(t.Context(), []string{flag}, nil, &stdout, io.Discard); code != exitOK {
			t.Errorf("%s: code %d", flag, code)
		}
		for _, s := range zvttest.Scenarios() {
			if !strings.Contains(stdout.String(), fmt.Sprintf("  %-24s %s\n", s.Name, s.Description)) {
				t.Errorf("%s does not tell of %s", flag, s.Name)
			}
		}
		for _, g := range zvttest.Groups() {
			if !strings.Contains(stdout.String(), "\n"+g.Title+"\n  "+g.Scenarios[0].Name) {
				t.Errorf("%s: no group %q", flag, g.Title)
			}
		}
	}
}
