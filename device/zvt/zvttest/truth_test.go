package zvttest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
)

// This file has tests of what the terminal really does, and of its log.

func TestNaive(t *testing.T) {
	for scenario, closings := range map[string]int{"naive": 3, "answers-lost": 1} {
		t.Run(scenario, func(t *testing.T) {
			start(t, Options{Scenario: scenario}, false, func(t *testing.T, s *station) {
				e := s.connect()
				e.say(registerECR)
				// An ECR that repeats its frame on silence, as the specification has it.
				if err := e.conn.WriteAPDU(t.Context(), unhex(t, endOfDayCommand)); err == nil {
					t.Error("somebody has answered")
				}
				for last(e.hear()) != silenceHeard {
				}
				did := wantDid(t, s.pt, EndOfDay, closings)
				if count, _ := did[0].Totals.Sum(); count != 42 {
					t.Errorf("first closing: %d payments", count)
				}
				for _, r := range did[1:] {
					if count, _ := r.Totals.Sum(); count != 0 {
						t.Errorf("another closing: %d payments", count)
					}
				}
				wantNoViolations(t, s.pt)
			})
		})
	}
}

// An ECR that hears its answer does not repeat, and a naive terminal closes
// once, however often it is asked for the status.
func TestNaiveTerminalAndOnce(t *testing.T) {
	start(t, Options{Scenario: "naive"}, false, func(t *testing.T, s *station) {
		e := s.connect()
		e.say(endOfDayCommand)
		wantStatus(t, e, "00")
		wantDid(t, s.pt, EndOfDay, 1)
	})
}

// The log is on disk before anybody is told.
func TestLogComesFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	start(t, Options{Log: path}, false, func(t *testing.T, s *station) {
		e := s.connect()
		if err := e.conn.WriteOnce(t.Context(), unhex(t, endOfDayCommand)); err != nil {
			t.Fatal(err)
		}
		for {
			got, err := e.read(time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			onDisk := lines(t, path)
			if strings.HasPrefix(got, "04 0F") {
				if len(onDisk) != 1 || !strings.Contains(onDisk[0], `"what":"end_of_day"`) || !strings.Contains(onDisk[0], `"amount":68450`) {
					t.Fatalf("told, and on disk is %q", onDisk)
				}
				return
			}
			if len(onDisk) > 0 && !strings.HasPrefix(got, "04 0F") {
				t.Fatalf("on disk is %q, heard %s", onDisk, got)
			}
			if strings.HasPrefix(got, "80") {
				continue
			}
			if err := e.conn.WriteAPDU(t.Context(), unhex(t, yes)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

func TestRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	start(t, Options{Log: path}, false, func(t *testing.T, s *station) {
		if err := s.pt.Sell("VISA", 1000); err != nil {
			t.Fatal(err)
		}
		e := s.connect()
		e.say(endOfDayCommand)
		if err := s.pt.Sell("Diners", 250); err != nil {
			t.Fatal(err)
		}
		e.say(softwareUpdate)
		synctest.Wait()
	})
	// The power was cut while a line was being written.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"at":"2000-01-01T00:`); err != nil {
		t.Fatal(err)
	}
	f.Close()

	for n := range 2 {
		start(t, Options{Log: path}, false, func(t *testing.T, s *station) {
			if got := len(s.pt.Log()); got != 4+n {
				t.Fatalf("%d records", got)
			}
			wantDid(t, s.pt, EndOfDay, 1)
			time.Sleep(time.Hour)
			e := s.connect()
			wantVersion(t, e, "2.14.16")
			if got := e.say(repeatStatusNow); !strings.HasPrefix(got[1], "04 0F 49 27 00 04 00 00 00 12 44 50") {
				t.Errorf("repeated: %q", got)
			}
			if open := s.pt.at().batch; open.FirstReceipt != 111 || open.LastReceipt != 111+n || open.Schemes[0] != (Scheme{"Diners", 1 + n, 250 * int64(1+n)}) {
				t.Errorf("the open batch: %+v", open)
			}
			if err := s.pt.Sell("Diners", 250); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestLogOfSomethingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("{\"at\":\"2000-01-01T00:00:00Z\",\"what\":\"menu\"}\nhello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Log: path}); err == nil || !strings.Contains(err.Error(), path+", line 2") {
		t.Fatalf("New: %v", err)
	}
	if _, err := New(Options{Log: filepath.Join(path, "none")}); err == nil {
		t.Fatal("New in a folder that is a file")
	}
}

// A terminal that cannot write its log does nothing more.
func TestLogFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pt, err := New(Options{Log: filepath.Join(t.TempDir(), "log")})
		if err != nil {
			t.Fatal(err)
		}
		if err := pt.Close(); err != nil {
			t.Fatal(err)
		}
		if err := pt.Sell("VISA", 1); err == nil || !strings.Contains(err.Error(), "log") {
			t.Fatalf("Sell: %v", err)
		}
		here, there := net.Pipe()
		defer here.Close()
		if err := pt.ServeSerial(t.Context(), there); err == nil || !strings.Contains(err.Error(), "log") {
			t.Fatalf("serve: %v", err)
		}
	})
}

func TestSell(t *testing.T) {
	start(t, Options{Scenario: "empty-batch"}, true, func(t *testing.T, s *station) {
		if err := s.pt.Sell("Visa", 1); err == nil || !strings.Contains(err.Error(), `"Visa"`) {
			t.Errorf("Sell: %v", err)
		}
		for range 2 {
			if err := s.pt.Sell("JCB", 123456); err != nil {
				t.Fatal(err)
			}
		}
		e := s.connect()
		has(1, "04 0F 49 27 00 04 00 00 00 24 69 12 0C")(t, s, e, e.say(endOfDayCommand))
		if got := wantDid(t, s.pt, EndOfDay, 1)[0].String(); got != "closed the batch: 2 payments, 2,469.12 EUR" {
			t.Errorf("%q", got)
		}
	})
}

// A closing goes on when the ECR goes away in the middle of it.
func TestClosingWithoutLine(t *testing.T) {
	for _, tcp := range []bool{false, true} {
		start(t, Options{}, tcp, func(t *testing.T, s *station) {
			e := s.connect()
			if err := e.conn.WriteOnce(t.Context(), unhex(t, endOfDayCommand)); err != nil {
				t.Fatal(err)
			}
			if got, err := e.read(time.Second); got != yes {
				t.Fatal(got, err)
			}
			e.conn.Close()
			wantDid(t, s.pt, EndOfDay, 0)
			e = s.connect() // served as soon as the terminal is free
			wantStatus(t, e, "00")
			wantDid(t, s.pt, EndOfDay, 1)
		})
	}
}

func TestServeEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pt, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		here, there := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- pt.ServeSerial(ctx, there) }()
		e := &ecr{t: t, conn: frame.Serial(here, frame.SerialOptions{})}
		if err := e.conn.WriteOnce(t.Context(), unhex(t, endOfDayCommand)); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		wantDid(t, pt, EndOfDay, 0)
	})
}

// What an ECR must never do.
func TestViolations(t *testing.T) {
	tests := []struct {
		name string
		want string // the first violation; "" for none
		do   func(e *ecr)
	}{
		{"none", "", func(e *ecr) { e.say(endOfDayCommand) }},
		{"1F1F", "1F1F in 06 50", func(e *ecr) { e.say("06 50 09 00 00 00 06 04 1F 1F 01 05") }},
		{"a payment", "06 01", func(e *ecr) { e.say("06 01 07 04 00 00 00 00 01 00") }},
		{"log-off", "06 02", func(e *ecr) { e.say("06 02 00") }},
		{"delete file", "08 12", func(e *ecr) { e.say("08 12 05 06 03 1D 01 02") }},
		{"not an APDU of its kind", "registration: ", func(e *ecr) { e.say("06 00 01 00") }},
		{"84 to 04 FF", "04 FF intermediate status was answered 84 83", func(e *ecr) { e.sayTo(endOfDayCommand, "04 FF", "84 83 00", 0) }},
		{"84 to 04 0F", "04 0F status information was answered 84 83", func(e *ecr) { e.sayTo(endOfDayCommand, "04 0F", "84 83 00", 0) }},
		{"84 to 06 D3", "06 D3 print text-block was answered 84 CC", func(e *ecr) { e.sayTo(endOfDayCommand, "06 D3", "84 CC 00", 0) }},
		{"84 to 06 0F", "06 0F completion was answered 84 83", func(e *ecr) { e.sayTo(endOfDayCommand, "06 0F", "84 83 00", 0) }},
		{"06 B0", "06 B0 abort by the ECR during end-of-day", func(e *ecr) { e.sayTo(endOfDayCommand, yes, "06 B0 00", 0) }},
		{"status enquiry", "05 01 status enquiry during end-of-day", func(e *ecr) { e.sayTo(endOfDayCommand, yes, statusEnquiry, 0) }},
		{"late", "no answer to 04 0F status information within 5s", func(e *ecr) { e.sayTo(endOfDayCommand, "04 0F", yes, 5400*time.Millisecond) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			start(t, Options{}, false, func(t *testing.T, s *station) {
				e := s.connect()
				e.t = t
				e.say(registerECR)
				test.do(e)
				synctest.Wait()
				got := strings.Join(s.pt.Violations(), "; ")
				if !strings.HasPrefix(got, test.want) || (test.want == "") != (got == "") {
					t.Errorf("violations %q, want %q", got, test.want)
				}
			})
		})
	}
}

// sayTo says a command, and something of its own, after some time, where the
// terminal says what begins with prefix.
func (e *ecr) sayTo(command, prefix, own string, delay time.Duration) (heard []string) {
	e.t.Helper()
	if err := e.conn.WriteOnce(e.t.Context(), unhex(e.t, command)); err != nil {
		e.t.Fatal(err)
	}
	for {
		got, err := e.read(time.Minute)
		if err != nil {
			e.t.Fatalf("after %q: %v", heard, err)
		}
		heard = append(heard, got)
		answer := yes
		if strings.HasPrefix(got, prefix) {
			time.Sleep(delay)
			answer, prefix = own, "never again"
		} else if strings.HasPrefix(got, "8") {
			continue
		}
		// The write of somebody who is out of step need not succeed.
		_ = e.conn.WriteAPDU(e.t.Context(), unhex(e.t, answer))
		if strings.HasPrefix(got, "06 0F") || strings.HasPrefix(got, "06 1E") {
			return heard
		}
	}
}

// The reaction to late answers that was recorded (zvt.md 5.1): the terminal
// goes on, and takes the late answer for an unknown command.
func TestLateAnswer(t *testing.T) {
	start(t, Options{}, false, func(t *testing.T, s *station) {
		e := s.connect()
		e.say(registerECR)
		heard := e.sayTo(endOfDayCommand, "04 0F", yes, 5400*time.Millisecond)
		if last(heard) != completed || len(heard) < 6 {
			t.Errorf("heard %q", heard)
		}
		wantDid(t, s.pt, EndOfDay, 1)
		if v := s.pt.Violations(); len(v) != 2 || v[1] != "80 00 came later than 5s" {
			t.Errorf("violations: %q", v)
		}
	})
}

// On TCP the terminal hangs up.
func TestLateAnswerTCP(t *testing.T) {
	start(t, Options{}, true, func(t *testing.T, s *station) {
		e := s.connect()
		e.say(registerECR)
		e.delay = 6 * time.Second
		if got := last(e.say(endOfDayCommand)); got != goneHeard {
			t.Errorf("heard %s", got)
		}
		time.Sleep(10 * time.Second)
		wantDid(t, s.pt, EndOfDay, 1)
	})
}

func TestAbortDuringEndOfDay(t *testing.T) {
	tests := []struct {
		scenario string
		ends     string
		closed   int
	}{
		{"success", completed, 1},
		{"abort-swallowed", completed, 1},
		{"abort-confirmed", "06 1E 01 6C", 0},
	}
	for _, test := range tests {
		start(t, Options{Scenario: test.scenario}, false, func(t *testing.T, s *station) {
			e := s.connect()
			e.say(registerECR)
			if got := last(e.sayTo(endOfDayCommand, yes, "06 B0 00", 0)); got != test.ends {
				t.Errorf("%s: %s", test.scenario, got)
			}
			wantDid(t, s.pt, EndOfDay, test.closed)
		})
	}
}

func TestReadFileFromOffset(t *testing.T) {
	start(t, Options{}, true, func(t *testing.T, s *station) {
		heard := s.connect().say("08 11 0A 06 08 2D 06 1D 01 02 1E 01 40")
		var got []byte
		for _, f := range parts(t, heard) {
			got = append(got, f.Block...)
		}
		if want := s.pt.files()[2][0x40:]; string(got) != string(want) {
			t.Errorf("%d bytes, want %d", len(got), len(want))
		}
	})
}

// Who is not registered for lines or displays does not get any (zvt.md 4.1).
func TestRegistration(t *testing.T) {
	tests := []struct {
		register string
		want     string // the first bytes of all that is heard
	}{
		{"06 00 06 00 00 00 8C 09 78", "80 04 04 04 06"},                   // lines in 06 D1 follow
		{"06 00 06 00 00 00 86 09 78", "80 04 06"},                         // no displays
		{"06 00 06 00 00 00 0C 09 78", "80 04 04 04 06"},                   // no lines
		{"06 00 0C 00 00 00 BA 09 78 06 04 26 02 0A 00", "80 04 04 04 06"}, // the terminal prints
	}
	for _, test := range tests {
		start(t, Options{}, true, func(t *testing.T, s *station) {
			e := s.connect()
			e.say(test.register)
			heard := e.say(endOfDayCommand)
			var got []string
			printed := 0
			for _, h := range heard {
				if strings.HasPrefix(h, "06 D") {
					printed++
					continue
				}
				got = append(got, h[:2])
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("%s: heard %q", test.register, heard)
			}
			if mayPrint := strings.Contains(test.register, " 8"); mayPrint != (printed > 0) {
				t.Errorf("%s: %d lines", test.register, printed)
			}
		})
	}
}

// What is on the line, byte by byte, where package frame would hide it.
func TestNoiseOnTheWire(t *testing.T) {
	const (
		command = "10 02 06 50 03 00 00 00 10 03 FB 37"
		taken   = "10 02 80 00 00 10 03 F5 1F"
	)
	tests := map[string][]string{ // what comes after each copy of the command
		"success":                  {"06", taken},
		"merged":                   {"06 " + taken},
		"nak-twice":                {"15"},
		"ack-lost":                 {taken},
		"garbage":                  {"06", "00 FF 10 55 03 " + taken},
		"late-acceptance+ack-lost": {taken},
		"duplicate-frames":         {"06", taken + " " + taken},
		"trickle":                  {"06", "10", "02", "80", "00", "00", "10", "03", "F5", "1F"},
	}
	for scenario, want := range tests {
		t.Run(scenario, func(t *testing.T) {
			start(t, Options{Scenario: scenario}, false, func(t *testing.T, s *station) {
				here, there := net.Pipe()
				s.dial <- there
				defer here.Close()
				if _, err := here.Write(unhex(t, command)); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 100)
				for _, w := range want {
					if err := here.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
						t.Fatal(err)
					}
					n, err := here.Read(b)
					if err != nil || spell(b[:n]) != w {
						t.Fatalf("read %s, %v, want %s", spell(b[:n]), err, w)
					}
				}
			})
		})
	}
}

func TestSeveralScenarios(t *testing.T) {
	start(t, Options{Scenario: "drop-before-totals+repeat-unsupported"}, true, func(t *testing.T, s *station) {
		e := s.connect()
		if got := last(e.say(endOfDayCommand)); got != goneHeard {
			t.Errorf("end of day: %s", got)
		}
		e = s.connect()
		wantHeard(t, e.say(repeatEndOfDay), notSupported)
	})
}

// Fast is only about work.
func TestFast(t *testing.T) {
	start(t, Options{Fast: true, Scenario: "success"}, false, func(t *testing.T, s *station) {
		began := time.Now()
		s.connect().say(endOfDayCommand)
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
	start(t, Options{Fast: true, Scenario: "late-acceptance"}, false, func(t *testing.T, s *station) {
		began := time.Now()
		s.connect().say(endOfDayCommand)
		if took := time.Since(began); took < 7*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestTotalsOf10h(t *testing.T) {
	f := apdu.Fields{full10.field()}
	totals, ok, err := f.Totals()
	if !ok || err != nil || totals.Groups[0].Count != 0x10 || totals.FirstReceipt != 1010 {
		t.Fatal(totals, ok, err)
	}
}
