package zvttest

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Each trouble begins and ends on a line that stays open, in a terminal that an
// ECR has just used.
func TestTroubles(t *testing.T) {
	ends := map[string]string{ // the end of day
		"payment": "84 9C 00", "menu": "84 9C 00", "card": "06 1E 01 DC", "lock": "06 1E 01 C1",
		"initialisation": "06 1E 01 6B", "end-of-day": completed, "no-paper": "06 1E 01 CC",
		"silent": silenceHeard, "refuse": "06 1E 01 77",
	}
	status := map[string]string{ // what 05 01 tells; default: ready
		"payment": "9C", "menu": "9C", "card": "DC", "lock": "C1", "initialisation": "51", "end-of-day": "F0",
	}
	for _, trouble := range Troubles() {
		text := trouble.Name
		if text == refusing {
			text += " 77"
		}
		for _, tcp := range []bool{false, true} {
			start(t, Options{}, tcp, func(t *testing.T, s *station) {
				e := s.connect()
				e.say(registerECR)
				switchTo(t, s.pt, "success", text)
				if trouble.Name != "silent" && trouble.Name != "jam" {
					want := "F7" // the last byte of a text that tells the version
					if code := status[trouble.Name]; code != "" {
						want = code
					}
					heard := e.say(statusEnquiry)
					if !strings.HasPrefix(last(heard), "06 0F") || want != "F7" && !strings.Contains(last(heard), want) {
						t.Errorf("%s: the status is %q, want %s in it", text, heard, want)
					}
				}
				if trouble.Name == "jam" {
					cleared(t, s, e)
					return
				}
				if heard := e.say(endOfDayCommand); !strings.HasPrefix(last(heard), ends[trouble.Name]) {
					t.Errorf("%s: the end of day ended %q, want %s", text, heard, ends[trouble.Name])
				}
				switchTo(t, s.pt, "success")
				if heard := e.say(endOfDayCommand); last(heard) != completed {
					t.Errorf("after %s: the end of day ended %q", text, heard)
				}
				wantNoViolations(t, s.pt)
			})
		}
	}
}

func switchTo(t *testing.T, pt *Terminal, scenario string, troubles ...string) {
	t.Helper()
	if err := pt.Play(scenario, troubles...); err != nil {
		t.Fatal(err)
	}
	synctest.Wait() // the idle session has looked
}

// cleared is an end of day with a jam that somebody clears after ten minutes.
func cleared(t *testing.T, s *station, e *ecr) {
	t.Helper()
	began := time.Now()
	time.AfterFunc(10*time.Minute, func() { s.pt.Play("success") })
	heard := e.say(endOfDayCommand)
	if took := time.Since(began); last(heard) != completed || took < 10*time.Minute || took > 11*time.Minute {
		t.Errorf("after %v: %q", took, heard)
	}
	wantDid(t, s.pt, EndOfDay, 1)
	wantNoViolations(t, s.pt)
}

// Two troubles at once, and one of them is over.
func TestTroublesTogether(t *testing.T) {
	start(t, Options{Scenario: "print-lines"}, true, func(t *testing.T, s *station) {
		e := s.connect()
		e.say(registerECR)
		switchTo(t, s.pt, "print-lines", "card", "refuse 6c")
		if heard := e.say(endOfDayCommand); last(heard) != "06 1E 01 DC" {
			t.Errorf("%q", heard)
		}
		switchTo(t, s.pt, "print-lines", "refuse 6c")
		if heard := e.say(softwareUpdate); last(heard) != "06 1E 01 6C" {
			t.Errorf("%q", heard)
		}
		switchTo(t, s.pt, "print-lines")
		if heard := e.say(endOfDayCommand); last(heard) != completed || index(heard, "06 D1") < 0 {
			t.Errorf("%q", heard)
		}
	})
}

// An initialisation is done, and stays done whatever else happens.
func TestTroubleIsCured(t *testing.T) {
	start(t, Options{}, true, func(t *testing.T, s *station) {
		e := s.connect()
		e.say(registerECR)
		switchTo(t, s.pt, "success", "initialisation")
		e.say("06 93 03 00 00 00")
		switchTo(t, s.pt, "success", "initialisation", "no-paper")
		if heard := e.say(endOfDayCommand); last(heard) != "06 1E 01 CC" {
			t.Errorf("%q", heard)
		}
	})
}

// The noise of a line changes while it is open.
func TestPlayNoise(t *testing.T) {
	start(t, Options{}, false, func(t *testing.T, s *station) {
		e := s.connect()
		e.say(registerECR)
		switchTo(t, s.pt, "trickle")
		began := time.Now()
		if heard := e.say(endOfDayCommand); last(heard) != completed || time.Since(began) < 10*time.Second {
			t.Errorf("after %v: %q", time.Since(began), heard)
		}
		switchTo(t, s.pt, "nak-always")
		if heard := e.say(endOfDayCommand); last(heard) != "rejected" {
			t.Errorf("%q", heard)
		}
		wantDid(t, s.pt, EndOfDay, 1)
	})
}

// A terminal that restarts forgets what it was at work on, and who had
// registered; it closes its connections.
func TestRestartByHand(t *testing.T) {
	for _, tcp := range []bool{false, true} {
		start(t, Options{}, tcp, func(t *testing.T, s *station) {
			e := s.connect()
			e.say(registerECR)
			time.AfterFunc(time.Second, func() { s.pt.Restart(time.Minute) })
			want := silenceHeard
			if tcp {
				want = goneHeard
			}
			if heard := e.say(endOfDayCommand); last(heard) != want {
				t.Errorf("%q", heard)
			}
			if status := s.pt.Status(); tcp && status != "nobody answers" {
				t.Errorf("the status is %q", status)
			}
			time.Sleep(time.Minute)
			wantDid(t, s.pt, EndOfDay, 0)
			if tcp {
				e = s.connect()
			}
			if heard := e.say(endOfDayCommand); last(heard) != completed || index(heard, "04 FF") >= 0 || index(heard, "06 D3") >= 0 {
				t.Errorf("%q", heard)
			}
		})
	}
}

// A TCP connection on which nothing happens is closed by a restart, too.
func TestRestartByHandWhenIdle(t *testing.T) {
	start(t, Options{}, true, func(t *testing.T, s *station) {
		e := s.connect()
		synctest.Wait()
		s.pt.Restart(time.Minute)
		if _, err := e.read(time.Second); err == nil || err.Error() != goneHeard {
			t.Errorf("%v", err)
		}
	})
}

func TestUnknownTrouble(t *testing.T) {
	pt, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"fire":      `trouble "fire": one of these wanted: payment, menu`,
		"refuse":    "two hexadecimal digits",
		"refuse 7":  `refuse "7": a code of two`,
		"refuse xy": "two hexadecimal digits",
		"card in":   `card "in": nothing wanted`,
	} {
		if err := pt.Play("success", "silent", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := pt.Play("sucess"); err == nil || !strings.Contains(err.Error(), `scenario "sucess"`) {
		t.Errorf("%v", err)
	}
	if status := pt.Status(); status != "ready" {
		t.Errorf("an error has changed it: %s", status)
	}
}
