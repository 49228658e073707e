package zvt_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device/zvt"
	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
	"terminalops/device/zvt/zvttest"
)

// probed is a terminal, or something else, at the other end of a link, and a
// Probe of it.
type probed struct {
	t       *testing.T
	options zvt.Options
	line    zvt.Line
	opened  []int // the speeds
	stop    context.CancelFunc
	peers   sync.WaitGroup

	patience time.Duration
}

// probe runs a Probe against what serve does with the other end of the link.
func probe(t *testing.T, serial bool, serve func(ctx context.Context, s frame.Stream, baud int)) *probed {
	ctx, stop := context.WithCancel(t.Context())
	p := &probed{t: t, stop: stop, patience: 50 * time.Second}
	p.options = zvt.Options{Serial: serial, Baud: 9600}
	p.line = zvt.Line{Others: []int{9600, 115200}, Open: func(_ context.Context, baud int) (frame.Stream, error) {
		p.opened = append(p.opened, baud)
		ours, theirs := cable()
		p.peers.Go(func() { serve(ctx, theirs, baud) })
		return ours, nil
	}}
	return p
}

// run is the Probe, within most of a minute unless told otherwise.
func (p *probed) run() (zvt.Sighting, error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), p.patience)
	defer cancel()
	defer p.peers.Wait()
	defer p.stop()
	return zvt.Probe(ctx, p.options, p.line)
}

// plays serves a scenario of zvttest.
func plays(t *testing.T, scenario string, serial bool) (*zvttest.Terminal, func(context.Context, frame.Stream, int)) {
	pt, err := zvttest.New(zvttest.Options{Scenario: scenario})
	if err != nil {
		t.Fatal(err)
	}
	serve := pt.ServeTCP
	if serial {
		serve = pt.ServeSerial
	}
	return pt, func(ctx context.Context, s frame.Stream, _ int) { serve(ctx, s) }
}

// What a terminal says of itself is in the Sighting, and nothing else was asked
// of it.
func TestProbeOfATerminal(t *testing.T) {
	tests := []struct {
		scenario string
		status   apdu.StatusCode
		busy     bool
		refused  apdu.Code
		silent   bool // no status enquiry
	}{
		{scenario: "success"},
		{scenario: "locked", status: 0xC1},
		{scenario: "locked-at-once", status: 0xC1},
		{scenario: "status-dc", status: apdu.StatusCardInserted},
		{scenario: "status-9c", status: apdu.StatusPleaseWait},
		{scenario: "status-51", status: apdu.StatusInitialisation},
		{scenario: "status-f0", status: apdu.StatusReconciliation},
		{scenario: "no-status-enquiry", silent: true},
		{scenario: "wrong-currency", refused: apdu.CodeWrongCurrency},
	}
	for _, serial := range []bool{true, false} {
		for _, tt := range tests {
			t.Run(tt.scenario, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					pt, serve := plays(t, tt.scenario, serial)
					s, err := probe(t, serial, serve).run()
					if err != nil || s.Speech != zvt.SpeechZVT || s.Status != tt.status || s.Busy != tt.busy || s.Asked == tt.silent {
						t.Errorf("have %+v, %v", s, err)
					}
					if (s.Refused != nil) != (tt.refused != 0) || s.Refused != nil && *s.Refused != tt.refused {
						t.Errorf("refused: %v, want %v", s.Refused, tt.refused)
					}
					if ready := tt.status == 0 && tt.refused == 0 && !tt.busy; s.Ready() != ready {
						t.Errorf("ready: %v", s.Ready())
					}
					if s.Asked && !strings.Contains(s.Device.SoftwareVersion, "2.14.15") {
						t.Errorf("device: %+v", s.Device)
					}
					if want := "65029158"; s.Refused == nil && s.TID != want {
						t.Errorf("TID %q, want %s", s.TID, want)
					}
					if log := pt.Log(); len(log) > 0 {
						t.Errorf("the terminal did %v", log)
					}
				})
			})
		}
	}
}

// A terminal that closes its batch when it is asked is heard to the end, also
// when the time is over: its totals come once. They are kept before they are
// answered.
func TestProbeOfATerminalWithAnEndOfDayOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pt, serve := plays(t, "automatic-end-of-day", true)
		p := probe(t, true, serve)
		var kept []string
		p.line.Keep = func(text string) { kept = append(kept, text) }
		p.patience = 2 * time.Second
		s, err := p.run()
		if err != nil || !s.Asked || len(s.Heard) == 0 || len(kept) != len(s.Heard) || !strings.Contains(strings.Join(kept, ""), "123450") {
			t.Errorf("have %+v, %v, kept %q", s, err, kept)
		}
		if len(pt.Did(zvttest.EndOfDay)) != 1 {
			t.Error("the scenario has changed: there was no end of day")
		}
	})
}

// answers waits for the first bytes and answers with these; then it hears and
// says nothing. nil echoes.
func answers(answer []byte) func(context.Context, frame.Stream, int) {
	return func(ctx context.Context, s frame.Stream, _ int) {
		defer s.Close()
		defer context.AfterFunc(ctx, func() { s.Close() })()
		b := make([]byte, 64)
		for said := false; ; {
			n, err := s.Read(b)
			if err != nil {
				return
			}
			if answer == nil {
				s.Write(b[:n])
			} else if !said {
				s.Write(answer)
				said = true
			}
		}
	}
}

// Whoever else is there is recognised by the first bytes.
func TestProbeOfSomethingElse(t *testing.T) {
	const serial, tcp = true, false
	tests := []struct {
		name   string
		serial bool
		answer string // hexadecimal, or a text behind ' ; "echo"
		want   zvt.Speech
	}{
		{"nobody", serial, "", zvt.SpeechSilence},
		{"nobody", tcp, "", zvt.SpeechSilence},
		{"a plug that joins both lines", serial, "echo", zvt.SpeechEcho},
		{"echo server", tcp, "echo", zvt.SpeechEcho},
		{"Italian ECR17", serial, "15 03 69", zvt.SpeechECR17},
		{"Italian ECR17", tcp, "15 03 69", zvt.SpeechECR17},
		{"Swiss Yomani", tcp, "00 00 00 3E 56 45 52 7C 30 31", zvt.SpeechYomani},
		{"KIT D1", serial, "10 00 02 91 7b 22 53 74 61 74 75 73 52 65 73 70 6f 6e 73 65 22 3a 7b", zvt.SpeechKIT},
		{"KIT with a doubled number", serial, "10 00 10 10 91 7b 22 42 61 6c", zvt.SpeechKIT},
		{"KIT, NAK", serial, "10 12", zvt.SpeechKIT},
		{"KIT", tcp, `'{"ErrorNotification":{"ErrorCode":3}}` + "\n", zvt.SpeechKIT},
		{"ACK and no more", serial, "06", zvt.SpeechUnheard},
		{"NAK and no more", serial, "15", zvt.SpeechRejected},
		{"wrong CRC", serial, "10 02 80 00 00 10 03 FF FF", zvt.SpeechDamaged},
		{"frames on TCP", tcp, "10 02 80 00 00 10 03 F5 1F", zvt.SpeechFramed},
		{"no frames on a line", serial, "80 00 00", zvt.SpeechUnframed},
		{"with a length before it", tcp, "00 03 80 00 00", zvt.SpeechPrefixed},
		{"TLS alert", tcp, "15 03 03 00 02 02 46", zvt.SpeechTLS},
		{"web server", tcp, "'HTTP/1.1 400 Bad Request\r\n", zvt.SpeechHTTP},
		{"SSH server", tcp, "'SSH-2.0-OpenSSH_9.6\r\n", zvt.SpeechSSH},
		{"modem", serial, "'\r\nERROR\r\n", zvt.SpeechText},
		{"noise", serial, "00 F8 00 80 FE", zvt.SpeechUnreadable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answer := []byte{}
				if text, isText := strings.CutPrefix(tt.answer, "'"); isText {
					answer = []byte(text)
				} else if tt.answer != "echo" {
					answer = append(answer, unhex(t, tt.answer)...)
				} else {
					answer = nil
				}
				began := time.Now()
				s, err := probe(t, tt.serial, answers(answer)).run()
				if err != nil || s.Speech != tt.want || s.Asked {
					t.Errorf("have %+v, %v, want %s", s, err, tt.want)
				}
				if (len(answer) > 0) != (s.Bytes != "") && tt.answer != "echo" {
					t.Errorf("bytes: %q", s.Bytes)
				}
				if took := time.Since(began); took > 45*time.Second {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// A terminal with another speed is found at its own.
func TestProbeFindsTheSpeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, serve := plays(t, "success", true)
		noise := answers([]byte{0x00, 0xF8, 0x00, 0x80, 0xFE})
		p := probe(t, true, func(ctx context.Context, s frame.Stream, baud int) {
			if baud == 115200 {
				serve(ctx, s, baud)
			} else {
				noise(ctx, s, baud)
			}
		})
		s, err := p.run()
		if err != nil || s.Speech != zvt.SpeechZVT || s.Baud != 115200 || !s.Asked || len(p.opened) != 2 {
			t.Errorf("have %+v, %v, opened %v", s, err, p.opened)
		}
	})
}

// A link that cannot be opened is the error; ctx that ends is one where nothing
// was heard.
func TestProbeErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := probe(t, true, nil)
		gone := errors.New("gone")
		p.line.Open = func(context.Context, int) (frame.Stream, error) { return nil, gone }
		if _, err := p.run(); !errors.Is(err, gone) {
			t.Errorf("err = %v", err)
		}
		p = probe(t, true, answers([]byte{}))
		p.options.T2 = time.Hour
		if _, err := p.run(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v", err)
		}
		p.options.Password = "12"
		if _, err := p.run(); err == nil {
			t.Error("a password of two digits is taken")
		}
	})
}

// No card number is in a Sighting, wherever it stood.
func TestProbeMasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := probe(t, true, answers([]byte("4111 1111 1111 1111\r\n"))).run()
		if err != nil || s.Speech != zvt.SpeechText || strings.Contains(s.Bytes, "31 31 31 31 20 31 31 31 31 20") {
			t.Errorf("have %+v, %v", s, err)
		}
	})
}

// A wrong password is said once: some terminals count.
func TestProbeSaysAWrongPasswordOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		commands := 0
		s, err := probe(t, false, func(ctx context.Context, s frame.Stream, _ int) {
			defer s.Close()
			defer context.AfterFunc(ctx, func() { s.Close() })()
			for b := make([]byte, 256); ; commands++ {
				if _, err := s.Read(b); err != nil {
					return
				}
				s.Write([]byte{0x84, 0x37, 0x00}) // as card complete has it
			}
		}).run()
		if err != nil || s.Refused == nil || *s.Refused != apdu.CodeWrongPassword || s.Ready() || commands != 1 {
			t.Errorf("have %+v, %v, after %d commands", s, err, commands)
		}
	})
}
