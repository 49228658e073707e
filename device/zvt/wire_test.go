package zvt_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device"
	"terminalops/device/zvt"
	"terminalops/device/zvt/frame"
	"terminalops/device/zvt/zvttest"
)

// These tests do not trust zvttest, which shares our codec: the terminal is a
// list of bytes here, those of zvt.md 1.3, 4.0 and 6.

// Frames that occur everywhere (zvt.md 4.0), as on TCP.
const (
	registration = "06 00 15 00 00 00 8C 09 78 06 0D 26 04 0A 02 06 D3 12 01 40 1A 02 04 00"
	enquiry      = "05 01 03 00 00 00"
	endOfDay     = "06 50 03 00 00 00"
	repeatLast   = "06 20 05 00 00 00 03 03"
	repeatEOD    = "06 20 0B 00 00 00 03 01 06 04 1F 01 01 04"
	openMenu     = "08 01 03 00 00 00"
	softUpdate   = "08 10 00"
	ack          = "80 00 00"
	complete     = "06 0F 00"
	ready        = "06 0F 0B F0 F0 F7 32 2E 31 34 2E 31 35 00" // vector 9
	pleaseWait   = "04 FF 01 17"                               // vector 21

	// Vector 25: an end of day as recorded, with its length byte put in.
	totals = "04 0F 49 27 00 04 00 00 00 00 26 00 0C 10 59 37 0D 03 31 60 F0 F5 F3 00 68 00 71 04 00 00 00 00 26 00" +
		"00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
)

// peer is the terminal's end of a link.
type peer struct {
	t *testing.T
	net.Conn
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hears wants exactly these bytes next.
func (p *peer) hears(s string) {
	p.t.Helper()
	want := unhex(p.t, s)
	got := make([]byte, len(want))
	if n, err := io.ReadFull(p, got); err != nil || string(got) != string(want) {
		p.t.Errorf("heard % X, %v\nwant  % X", got[:n], err, want)
	}
}

func (p *peer) says(s string) {
	p.t.Helper()
	if _, err := p.Write(unhex(p.t, s)); err != nil {
		p.t.Errorf("says %s: %v", s, err)
	}
}

// tells says something that has to be answered 80 00 00.
func (p *peer) tells(s string) { p.t.Helper(); p.says(s); p.hears(ack) }

// hearsNothing wants silence for so long.
func (p *peer) hearsNothing(d time.Duration) {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(d))
	b := make([]byte, 64)
	if n, _ := p.Read(b); n > 0 {
		p.t.Errorf("heard % X, want silence for %v", b[:n], d)
	}
	p.SetReadDeadline(time.Time{})
}

// prepares is Registration and Status-Enquiry.
func (p *peer) prepares() {
	p.t.Helper()
	p.hears(registration)
	p.says(ack)
	p.tells("06 0F 00")
	p.hears(enquiry)
	p.says(ack)
	p.tells(ready)
}

// accepts is the acting command and its 80 00 00.
func (p *peer) accepts(command string) {
	p.t.Helper()
	p.prepares()
	p.hears(command)
	p.says(ack)
}

// play runs test in a bubble, with an adapter whose links lead to the scripts in
// turn.
func play(t *testing.T, change func(*zvt.Options), test func(t *testing.T, z *zvt.Terminal), scripts ...func(*peer)) {
	synctest.Test(t, func(t *testing.T) {
		next := 0
		o := zvt.Options{Location: time.UTC}
		o.Open = func(context.Context) (frame.Stream, error) {
			if next == len(scripts) {
				return nil, errors.New("nobody there")
			}
			ours, theirs := net.Pipe()
			script := scripts[next]
			next++
			go func() {
				script(&peer{t, theirs})
				theirs.Close()
			}()
			return ours, nil
		}
		if change != nil {
			change(&o)
		}
		z, err := zvt.New(o)
		if err != nil {
			t.Fatal(err)
		}
		test(t, z)
		synctest.Wait()
		if next != len(scripts) {
			t.Errorf("opened the link %d times, want %d", next, len(scripts))
		}
	})
}

// at sets the clock of a bubble, which begins on 2000-01-01, by waiting.
func at(t *testing.T, when string) {
	t.Helper()
	moment, err := time.Parse(time.DateTime, when)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(moment))
}

func execute(t *testing.T, z *zvt.Terminal, op device.Operation, e *entry) (device.Outcome, error) {
	return z.Execute(t.Context(), device.Request{Operation: op}, e)
}

func resolve(t *testing.T, z *zvt.Terminal, op device.Operation, e *entry) (device.Outcome, error) {
	return z.Resolve(t.Context(), device.Request{Operation: op}, e.past(), e)
}

func TestEndOfDayOnTheWire(t *testing.T) {
	var said []string
	e := &entry{}
	// Every record is made before the terminal hears the answer.
	e.onRecord = func(kind string) { said = append(said, "record "+kind) }
	play(t, nil, func(t *testing.T, z *zvt.Terminal) {
		at(t, "2021-03-31 10:59:30")
		o, err := execute(t, z, device.EndOfDay, e)
		if err != nil || o.Failure != nil {
			t.Fatal(err, o.Failure)
		}
		r := totalsOf(t, ending{outcome: o})
		if *r.PurchasesCount != 4 || *r.PurchasesAmount != 2600 || r.Currency != "" ||
			!r.TerminalTime.Equal(time.Date(2021, 3, 31, 10, 59, 37, 0, time.UTC)) ||
			len(r.Receipt) != 2 || r.Receipt[1] != "** KASSENSCHNITT **" {
			b, _ := json.Marshal(r)
			t.Errorf("%s", b)
		}
	}, func(p *peer) {
		p.accepts(endOfDay)
		p.tells("04 FF 14 17 03 06 10 24 0E 07 0C 42 69 74 74 65 20 77 61 72 74 65 6E") // vector 43
		answers := func(message string) {
			p.says(message)
			p.hears(ack)
			said = append(said, "answered")
		}
		answers(totals)
		answers("06 D1 17 00 20 20 20 20 20 20 20 20 20 4B 61 73 73 65 6E 73 63 68 6E 69 74 74")
		answers("06 D1 14 40 2A 2A 20 4B 41 53 53 45 4E 53 43 48 4E 49 54 54 20 2A 2A")
		answers("06 D1 01 81")
		answers(complete)
	})
	want := "record accepted,record totals,answered,record printed,answered,record printed,answered,answered,record completed,answered"
	if got := strings.Join(said, ","); got != want {
		t.Errorf("order %s\nwant  %s", got, want)
	}
	if len(e.texts) == 0 || e.texts[0] != "Bitte warten" {
		t.Errorf("progress %q", e.texts)
	}
}

func TestEndOfDayOnASerialLine(t *testing.T) {
	play(t, func(o *zvt.Options) { o.Serial = true }, func(t *testing.T, z *zvt.Terminal) {
		o, err := execute(t, z, device.EndOfDay, &entry{})
		if err != nil || o.Failure == nil || o.Failure.Code != "77" {
			t.Errorf("%+v, %v", o.Failure, err)
		}
	}, func(p *peer) {
		p.carries(serialRegistration)
		p.tellsSerial(serialComplete)
		p.carries(serialEnquiry)
		p.tellsSerial(serialReady)
		p.carries(serialEndOfDay)
		p.tellsSerial("10 02 06 1E 01 77 10 03 F0 83")
	})
}

// TestOtherCommandsOnTheWire: the frames that make a terminal act, as in 4.0.
func TestOtherCommandsOnTheWire(t *testing.T) {
	for op, command := range map[device.Operation]string{device.CheckUpdate: softUpdate, device.OpenMenu: openMenu} {
		play(t, nil, func(t *testing.T, z *zvt.Terminal) {
			o, err := execute(t, z, op, &entry{})
			if err != nil || o.Failure == nil || o.Failure.Cause != device.Unsupported || o.Failure.Executed != device.No {
				t.Errorf("%s: %+v, %v", op, o.Failure, err)
			}
		}, func(p *peer) {
			p.prepares()
			p.hears(command)
			p.says("84 83 00")
		})
	}
}

// TestFailureCodes: what an end with an error code says about what was done.
func TestFailureCodes(t *testing.T) {
	for _, test := range []struct {
		name string
		says []string
		want string
	}{
		{"a code that means nothing was done", []string{"06 1E 01 77"}, "refused 77 executed no"},
		{"a code that leaves it open", []string{"06 1E 01 66"}, "unknown 66 executed unknown"},
		{"a system error", []string{"06 1E 01 FF"}, "unknown FF executed unknown"},
		{"no code at all", []string{"06 1E 00"}, "unknown 00 executed unknown"},
		{"any code after the totals", []string{totals, "06 1E 01 77"}, "unknown 77 executed yes"},
		{"busy", []string{"06 1E 01 9C"}, "busy 9C executed no"},
		{"completed with an error", []string{"06 0F 02 27 64"}, "unknown 64 executed unknown"},
		{"card complete's update follows", []string{totals, "06 0F 02 27 E0"}, "done"},
	} {
		t.Run(test.name, func(t *testing.T) {
			play(t, nil, func(t *testing.T, z *zvt.Terminal) {
				o, err := execute(t, z, device.EndOfDay, &entry{})
				if got := (ending{outcome: o, err: err}).String(); got != test.want {
					t.Errorf("%s, want %s", got, test.want)
				}
				if f := o.Failure; f != nil && f.Executed == device.Yes && *totalsOf(t, ending{outcome: o}).PurchasesAmount != 2600 {
					t.Error("the totals are lost")
				}
			}, func(p *peer) {
				p.accepts(endOfDay)
				for _, s := range test.says {
					p.tells(s)
				}
			})
		})
	}
}

// TestMakersText: a maker's text to a failure is for people, and may have a card
// number in it. In 04 0F and in 06 1E it is masked before it is on disk.
func TestMakersText(t *testing.T) {
	const text = "1F 17 16 4B 61 72 74 65 20 34 31 31 31 31 31 31 31 31 31 31 31 31 31 31 31" // Karte 4111111111111111
	for name, says := range map[string][]string{
		"04 0F": {"04 0F 1D 27 77 06 19 " + text, "06 1E 01 77"},
		"06 1E": {"06 1E 1C 77 06 19 " + text},
	} {
		t.Run(name, func(t *testing.T) {
			e := &entry{}
			play(t, nil, func(t *testing.T, z *zvt.Terminal) {
				o, err := execute(t, z, device.EndOfDay, e)
				if err != nil || o.Failure == nil || !strings.HasSuffix(o.Failure.Message, "Karte 411111******1111") {
					t.Errorf("%+v, %v", o.Failure, err)
				}
				for _, one := range e.evidence {
					if strings.Contains(string(one.Data), "4111111111111111") {
						t.Errorf("on disk: %s", one.Data)
					}
				}
			}, func(p *peer) {
				p.accepts(endOfDay)
				for _, s := range says {
					p.tells(s)
				}
			})
		})
	}
}

// TestStrays: answers that belong to nothing, and an end that has no beginning.
func TestStrays(t *testing.T) {
	e := &entry{}
	play(t, nil, func(t *testing.T, z *zvt.Terminal) {
		_, err := execute(t, z, device.EndOfDay, e)
		if err == nil || errors.Is(err, device.ErrNotStarted) || e.began != 1 {
			t.Errorf("began %d times, %v: want in doubt", e.began, err)
		}
		o, err := resolve(t, z, device.EndOfDay, e)
		if err != nil || o.Failure != nil {
			t.Errorf("%+v, %v: want the end that was heard late", o.Failure, err)
		}
	}, func(p *peer) {
		p.prepares()
		p.hears(endOfDay)
		p.tells(complete) // of something earlier: no 80 00 was before it
		time.Sleep(7 * time.Second)
		p.says(ack) // late, past T3: only now it is accepted
		p.says("84 83 00")
		p.says(ack)
		p.tells(totals)
		p.tells(complete)
	})
}

// Frames on a serial line (zvt.md 1.3 and 4.0).
const (
	serialAck          = "10 02 80 00 00 10 03 F5 1F"
	serialNotPossible  = "10 02 84 83 00 10 03 91 8E"
	serialRegistration = "10 02 06 00 15 00 00 00 8C 09 78 06 0D 26 04 0A 02 06 D3 12 01 40 1A 02 04 00 10 03 E8 74"
	serialEnquiry      = "10 02 05 01 03 00 00 00 10 03 DF DB"
	serialReady        = "10 02 06 0F 0B F0 F0 F7 32 2E 31 34 2E 31 35 00 10 03 B1 11"
	serialEndOfDay     = "10 02 06 50 03 00 00 00 10 03 FB 37"
	serialComplete     = "10 02 06 0F 00 10 03 C6 33"
)

// carries is a command of ours on a serial line, up to its 80 00.
func (p *peer) carries(command string) {
	p.t.Helper()
	p.hears(command)
	p.says("06 " + serialAck)
	p.hears("06")
}

// tellsSerial is tells on a serial line.
func (p *peer) tellsSerial(message string) {
	p.t.Helper()
	p.says(message)
	p.hears("06 " + serialAck)
	p.says("06")
}

// TestStraysOnASerialLine: what was left over from before is drained, and 84 83
// is no refusal of a command that was not acknowledged.
func TestStraysOnASerialLine(t *testing.T) {
	e := &entry{}
	play(t, func(o *zvt.Options) { o.Serial = true }, func(t *testing.T, z *zvt.Terminal) {
		o, err := execute(t, z, device.EndOfDay, e)
		if err == nil || errors.Is(err, device.ErrNotStarted) || len(e.evidence) > 0 {
			t.Errorf("%+v, %v, %v: want in doubt, without evidence", o.Failure, err, e.evidence)
		}
	}, func(p *peer) {
		p.says(serialAck + serialComplete) // the end of something earlier
		p.hears("06 06 " + serialAck)
		p.says("06 " + serialNotPossible) // it waits for no answer
		p.hears("06")
		p.carries(serialRegistration)
		p.tellsSerial(serialComplete)
		p.carries(serialEnquiry)
		p.tellsSerial(serialReady)
		p.hears(serialEndOfDay)
		time.Sleep(6 * time.Second) // past T2
		p.says(serialNotPossible)
		p.hears("06")
		p.hearsNothing(4 * time.Second) // until T3: above all no second 06 50
	})
}

// TestBusyBefore: 84 9C to what only prepares is no end. Nothing was begun, and
// asking again later makes sense.
func TestBusyBefore(t *testing.T) {
	for _, says := range []string{"84 9C 00", "06 1E 01 9C"} {
		e := &entry{}
		play(t, nil, func(t *testing.T, z *zvt.Terminal) {
			o, err := execute(t, z, device.EndOfDay, e)
			if !errors.Is(err, device.ErrBusy) || e.began > 0 {
				t.Errorf("%s: %+v, %v, began %d times; want busy", says, o.Failure, err, e.began)
			}
		}, func(p *peer) {
			p.hears(registration)
			p.says(says)
		})
	}
}

// TestStrayRefusal: an 84 xx on a serial line that has not acknowledged our
// command answers nothing of ours, also when Resolve hears it, on the same link
// or after a restart.
func TestStrayRefusal(t *testing.T) {
	refuses := func(p *peer) {
		p.says(serialNotPossible)
		p.hears("06")
		p.hears(serialRegistration)
	}
	for _, restart := range []bool{false, true} {
		play(t, func(o *zvt.Options) { o.Serial = true }, func(t *testing.T, z *zvt.Terminal) {
			e := &entry{startedAt: time.Now()}
			if !restart {
				if _, err := execute(t, z, device.EndOfDay, e); err == nil {
					t.Fatal("want in doubt")
				}
			}
			o, err := resolve(t, z, device.EndOfDay, e)
			if err == nil || len(e.evidence) > 0 {
				t.Errorf("restart %v: %+v, %v: want in doubt, without evidence", restart, o.Failure, e.evidence)
			}
		}, func(p *peer) {
			if !restart {
				p.carries(serialRegistration)
				p.tellsSerial(serialComplete)
				p.carries(serialEnquiry)
				p.tellsSerial(serialReady)
				p.hears(serialEndOfDay)
				time.Sleep(12 * time.Second) // past T2 and T3
			}
			refuses(p)
		})
	}
}

// TestT4: 04 FF may make it longer, and every message begins it again.
func TestT4(t *testing.T) {
	play(t, nil, func(t *testing.T, z *zvt.Terminal) {
		o, err := execute(t, z, device.EndOfDay, &entry{})
		if err != nil || o.Failure != nil {
			t.Errorf("%+v, %v", o.Failure, err)
		}
	}, func(p *peer) {
		p.accepts(endOfDay)
		for range 3 {
			time.Sleep(179 * time.Second)
			p.tells(pleaseWait)
		}
		p.tells("04 FF 02 17 10")
		time.Sleep(599 * time.Second)
		p.tells(totals)
		time.Sleep(599 * time.Second)
		p.tells(complete)
	})
}

// TestLateTotals: T4 is over, the terminal was given up, and then it speaks.
func TestLateTotals(t *testing.T) {
	e := &entry{}
	play(t, nil, func(t *testing.T, z *zvt.Terminal) {
		if _, err := execute(t, z, device.EndOfDay, e); err == nil {
			t.Fatal("want in doubt")
		}
		if _, err := resolve(t, z, device.EndOfDay, e); !errors.Is(err, device.ErrUnreachable) {
			t.Fatalf("%v, want unreachable", err)
		}
		o, err := resolve(t, z, device.EndOfDay, e)
		if err != nil || o.Failure != nil || *totalsOf(t, ending{outcome: o}).PurchasesAmount != 2600 {
			t.Errorf("%+v, %v", o, err)
		}
	}, func(p *peer) {
		p.accepts(endOfDay)
		p.hearsNothing(180 * time.Second)
		time.Sleep(time.Second)
		p.hears(registration) // to which it says nothing
		time.Sleep(20 * time.Second)
		p.tells(totals)
		p.tells(complete)
	})
}

// TestLateEndWithoutTotals: what Resolve hears is the end alone; the 04 0F was said
// while nobody was there. It is asked for, as after an end that was seen.
func TestLateEndWithoutTotals(t *testing.T) {
	e := &entry{}
	play(t, nil, func(t *testing.T, z *zvt.Terminal) {
		at(t, "2021-03-31 10:59:30")
		if _, err := execute(t, z, device.EndOfDay, e); err == nil {
			t.Fatal("want in doubt")
		}
		o, err := resolve(t, z, device.EndOfDay, e)
		if err != nil || o.Failure != nil {
			t.Fatalf("%+v, %v", o, err)
		}
		if amount := totalsOf(t, ending{outcome: o}).PurchasesAmount; amount == nil || *amount != 2600 {
			t.Errorf("amount %v, want 2600", amount)
		}
	}, func(p *peer) {
		p.accepts(endOfDay)
		p.hearsNothing(180 * time.Second)
		time.Sleep(time.Second)
		p.tells(complete)
		p.hears(repeatLast)
		p.says(ack)
		p.tells(totals)
		p.tells(complete)
	})
}

// TestLateAnswerToAQuestion: a terminal that was too busy answers the
// Registration of a Resolve when nobody expects it any more. That is no end of
// the end of day, and no late acceptance of it.
func TestLateAnswerToAQuestion(t *testing.T) {
	for _, accepted := range []bool{true, false} {
		e := &entry{}
		play(t, nil, func(t *testing.T, z *zvt.Terminal) {
			if _, err := execute(t, z, device.EndOfDay, e); err == nil {
				t.Fatal("want in doubt")
			}
			if _, err := resolve(t, z, device.EndOfDay, e); !errors.Is(err, device.ErrUnreachable) {
				t.Fatalf("%v, want unreachable", err)
			}
			o, err := resolve(t, z, device.EndOfDay, e)
			if got := (ending{outcome: o, err: err}).String(); got != unknown {
				t.Errorf("accepted %v: %s, want %s", accepted, got, unknown)
			}
		}, func(p *peer) {
			p.prepares()
			p.hears(endOfDay)
			if accepted {
				p.says(ack)
			}
			p.hears(registration)
			time.Sleep(20 * time.Second)
			p.says(ack)
			p.tells(complete)
			p.prepares()
			p.hears(repeatLast)
			p.says("84 83 00")
			p.hears(repeatEOD)
			p.says("84 83 00")
		})
	}
}

// TestStillTalking: in place of an answer to our question the terminal goes on.
func TestStillTalking(t *testing.T) {
	e := &entry{}
	play(t, nil, func(t *testing.T, z *zvt.Terminal) {
		if _, err := execute(t, z, device.EndOfDay, e); err == nil {
			t.Fatal("want in doubt")
		}
		o, err := resolve(t, z, device.EndOfDay, e)
		if err != nil || o.Failure != nil || *totalsOf(t, ending{outcome: o}).PurchasesAmount != 2600 {
			t.Errorf("%+v, %v", o, err)
		}
	}, func(p *peer) {
		p.accepts(endOfDay)
		p.hears(registration) // after T4
		p.tells(totals)
		p.tells(complete)
	})
}

// TestLateAnswer: when the disk takes longer than T3, the terminal has gone on.
// What it said is evidence, but there is no answer to it any more.
func TestLateAnswer(t *testing.T) {
	e := &entry{}
	e.onRecord = func(kind string) {
		if kind == "totals" {
			time.Sleep(6 * time.Second)
		}
	}
	play(t, nil, func(t *testing.T, z *zvt.Terminal) {
		o, err := execute(t, z, device.EndOfDay, e)
		if err != nil || *totalsOf(t, ending{outcome: o}).PurchasesAmount != 2600 {
			t.Errorf("%+v, %v", o, err)
		}
	}, func(p *peer) {
		p.accepts(endOfDay)
		p.says(totals)
		p.hearsNothing(10 * time.Second)
		p.tells(complete)
	})
}

// TestSlowDisk is the trap of zvt.md 5.1 with a terminal that falls into it: the
// totals come to the disk after T3. On a serial line the terminal goes on without
// the answer, on TCP it hangs up. Nothing is lost, and what it says to late answers
// is not taken for anything else.
func TestSlowDisk(t *testing.T) {
	for _, serial := range []bool{true, false} {
		t.Run(link(serial), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "success", serial)
				e := &entry{onRecord: func(kind string) {
					if kind == "totals" {
						time.Sleep(6 * time.Second)
					}
				}}
				end := w.runEntry(device.EndOfDay, e)
				if end.String() != done {
					t.Fatalf("ended %q: %s", end, why(end))
				}
				schemes(t, w, end)
				if end := w.runEntry(device.OpenMenu, &entry{}); end.String() != opened {
					t.Errorf("the next operation ended %q: %s", end, why(end))
				}
				w.hangUp()
				if n := w.did(zvttest.EndOfDay); n != 1 {
					t.Errorf("%d ends of day, want 1", n)
				}
				for _, v := range w.pt.Violations() {
					if !strings.HasPrefix(v, "no answer to 04 0F") {
						t.Errorf("violation: %s", v)
					}
				}
			})
		})
	}
}

// recorder keeps what the adapter writes.
type recorder struct {
	frame.Stream
	said *[]byte
}

func (r recorder) Write(b []byte) (int, error) {
	*r.said = append(*r.said, b...)
	return r.Stream.Write(b)
}

// TestChecksumsOf10h: the acting command with a CRC that has the byte 10h in it, or
// looks like the beginning of a frame (zvt.md 1.3). The passwords see to it.
func TestChecksumsOf10h(t *testing.T) {
	for password, crc := range map[string]string{"000021": "\x10\x0D", "000079": "\x27\x10", "060785": "\x10\x02"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "success", true)
			var said []byte
			w.cut = func(s frame.Stream) frame.Stream { return recorder{s, &said} }
			w.options.Password = password
			w.restart()
			end, _ := w.run(device.EndOfDay)
			w.hangUp()
			digits, _ := hex.DecodeString(password)
			if whole := "\x10\x02\x06\x50\x03" + string(digits) + "\x10\x03" + crc; !strings.Contains(string(said), whole) {
				t.Errorf("password %s: % X is not on the line: % X", password, whole, said)
			}
			if end.String() != done || w.did(zvttest.EndOfDay) != 1 || len(w.pt.Violations()) > 0 {
				t.Errorf("password %s: ended %q (%s), %d ends of day, violations %q", password, end, why(end), w.did(zvttest.EndOfDay), w.pt.Violations())
			}
		})
	}
}

// TestCancelledWhileHearing: when ctx ends, what was heard is evidence, and
// nothing is sent any more.
func TestCancelledWhileHearing(t *testing.T) {
	e := &entry{}
	play(t, nil, func(t *testing.T, z *zvt.Terminal) {
		ctx, cancel := context.WithCancel(t.Context())
		e.onRecord = func(kind string) {
			if kind == "totals" {
				cancel()
			}
		}
		_, err := z.Execute(ctx, device.Request{Operation: device.EndOfDay}, e)
		if !errors.Is(err, context.Canceled) || e.evidence[len(e.evidence)-1].Kind != "totals" {
			t.Errorf("%v, %v", err, e.evidence)
		}
	}, func(p *peer) {
		p.accepts(endOfDay)
		p.says(totals)
		p.hearsNothing(time.Minute)
	})
}

// TestOwnReceiptOnly: what Repeat Receipt brings is not always ours.
func TestOwnReceiptOnly(t *testing.T) {
	const payment = "04 0F 10 27 00 04 00 00 00 00 19 90 0C 11 00 00 0D 03 31"
	for _, test := range []struct {
		name, now string
		mark      string
		repeats   string
		want      string
	}{
		{"ours", "2021-03-31 10:59:30", "{}", totals, "done"},
		{"ours, new year's eve of the clocks", "2021-03-31 11:00:30", "{}", totals, "done"},
		{"yesterday's", "2021-04-01 10:59:30", "{}", totals, unknown},
		{"an hour ago", "2021-03-31 12:00:00", "{}", totals, unknown},
		{"last year's", "2022-03-31 11:30:00", "{}", totals, unknown},
		{"the one before, a minute ago", "2021-03-31 11:00:00",
			`{"last":{"amount":2600,"time":{"month":3,"day":31,"hour":10,"minute":59,"second":37},"first":68,"last":71,"groups":[{"count":4,"amount":2600},{"count":0,"amount":0},{"count":0,"amount":0},{"count":0,"amount":0},{"count":0,"amount":0},{"count":0,"amount":0},{"count":0,"amount":0}]}}`,
			totals, unknown},
		{"a payment", "2021-03-31 10:59:30", "{}", payment, unknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			play(t, nil, func(t *testing.T, z *zvt.Terminal) {
				at(t, test.now)
				e := &entry{startedAt: time.Now(), mark: json.RawMessage(test.mark)}
				o, err := resolve(t, z, device.EndOfDay, e)
				if got := (ending{outcome: o, err: err}).String(); got != test.want {
					t.Errorf("%s, want %s", got, test.want)
				}
			}, func(p *peer) {
				p.prepares()
				p.hears(repeatLast)
				p.says(ack)
				p.tells(test.repeats)
				p.tells(complete)
				if test.want == done {
					return
				}
				p.hears(repeatEOD)
				p.says("84 9A 00")
				p.hearsNothing(time.Minute) // above all no second 06 50
			})
		})
	}
}

// TestTotalsAskedFor: an end of day is done, and its 04 0F did not come. It is
// asked for, once and without printing; a terminal that does not say it costs
// some seconds and nothing else.
func TestTotalsAskedFor(t *testing.T) {
	for name, test := range map[string]struct {
		says []string
		want string
		told bool
	}{
		"told":          {[]string{ack, totals, complete}, done, true},
		"not told":      {[]string{ack, complete}, done, false},
		"somebody's":    {[]string{ack, strings.Replace(totals, "0D 03 31", "0D 03 30", 1), complete}, done, false},
		"refused":       {[]string{"84 83 00"}, done, false},
		"busy":          {[]string{"84 9C 00"}, done, false},
		"silent":        {nil, done, false},
		"taken, silent": {[]string{ack}, done, false},
	} {
		play(t, nil, func(t *testing.T, z *zvt.Terminal) {
			at(t, "2021-03-31 10:59:30")
			start := time.Now()
			o, err := execute(t, z, device.EndOfDay, &entry{})
			if got := (ending{outcome: o, err: err}).String(); got != test.want || o.Message != "" {
				t.Errorf("%s: %s (%s), want %s", name, got, o.Message, test.want)
			}
			if told := totalsOf(t, ending{outcome: o}).PurchasesAmount != nil; told != test.told {
				t.Errorf("%s: amount told %v", name, told)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("%s: took %v", name, took)
			}
		}, func(p *peer) {
			p.accepts(endOfDay)
			p.tells(complete)
			p.hears(repeatLast)
			for _, s := range test.says {
				if p.says(s); s == totals || s == complete || strings.HasPrefix(s, "04 0F") {
					p.hears(ack)
				}
			}
			p.hearsNothing(time.Minute)
		})
	}
}

// TestBusyWithRepeatReceipt: "please wait" is no answer to the question what
// happened.
func TestBusyWithRepeatReceipt(t *testing.T) {
	e := &entry{}
	play(t, nil, func(t *testing.T, z *zvt.Terminal) {
		at(t, "2021-03-31 10:59:30")
		e.startedAt = time.Now()
		if o, err := resolve(t, z, device.EndOfDay, e); !errors.Is(err, device.ErrBusy) {
			t.Fatalf("%+v, %v, want busy", o.Failure, err)
		}
		o, err := resolve(t, z, device.EndOfDay, e)
		if got := (ending{outcome: o, err: err}).String(); got != done {
			t.Errorf("%s, want %s", got, done)
		}
	}, func(p *peer) {
		p.prepares()
		p.hears(repeatLast)
		p.says("84 9C 00")
	}, func(p *peer) {
		p.prepares()
		p.hears(repeatLast)
		p.says(ack)
		p.tells(totals)
		p.tells(complete)
	})
}

// TestUnaskedEndOfDay: a Status-Enquiry starts an automatic end of day. It is not
// the one that was asked for, which nobody has seen: neither where it came
// before our command nor where it came after.
func TestUnaskedEndOfDay(t *testing.T) {
	for _, before := range []bool{true, false} {
		e := &entry{}
		prepares := func(p *peer, automatic bool) {
			p.hears(registration)
			p.says(ack)
			p.tells(complete)
			p.hears(enquiry)
			p.says(ack)
			if automatic {
				p.tells("04 FF 01 0F")
				p.tells(totals)
			}
			p.tells(ready)
		}
		play(t, nil, func(t *testing.T, z *zvt.Terminal) {
			at(t, "2021-03-31 10:59:30")
			if _, err := execute(t, z, device.EndOfDay, e); err == nil {
				t.Fatal("want in doubt")
			}
			o, err := resolve(t, z, device.EndOfDay, e)
			if got := (ending{outcome: o, err: err}).String(); got != unknown {
				t.Errorf("before %v: %s, want %s", before, got, unknown)
			}
		}, func(p *peer) {
			prepares(p, before)
			p.hears(endOfDay)
		}, func(p *peer) {
			prepares(p, !before)
			p.hears(repeatLast)
			p.says(ack)
			p.tells(totals)
			p.tells(complete)
			p.hears(repeatEOD)
			p.says("84 83 00")
		})
	}
}

// TestAnotherEndOfDay: what the terminal repeats in the evening is of somebody
// else, if ours began in the morning, or contradicts what ours said.
func TestAnotherEndOfDay(t *testing.T) {
	for _, test := range []struct{ name, began, evidence string }{
		{"hours later", "2021-03-31 09:59:30", ""},
		{"of another total", "2021-03-31 10:58:30", `{"amount":2700}`},
	} {
		play(t, nil, func(t *testing.T, z *zvt.Terminal) {
			at(t, test.began)
			e := &entry{startedAt: time.Now()}
			want := unknown
			if test.evidence != "" {
				e.evidence = []device.Evidence{{At: time.Now(), Kind: "totals", Data: json.RawMessage(test.evidence)}}
				want = unknownYes
			}
			at(t, "2021-03-31 11:00:00")
			o, err := resolve(t, z, device.EndOfDay, e)
			if got := (ending{outcome: o, err: err}).String(); got != want {
				t.Errorf("%s: %s, want %s", test.name, got, want)
			}
		}, func(p *peer) {
			p.prepares()
			p.hears(repeatLast)
			p.says(ack)
			p.tells(totals)
			p.tells(complete)
			p.hears(repeatEOD)
			p.says("84 83 00")
		})
	}
}

// TestAttendAfterARestart: the link is opened again, and nothing is sent but
// answers.
func TestAttendAfterARestart(t *testing.T) {
	play(t, nil, func(t *testing.T, z *zvt.Terminal) {
		start := time.Now()
		if err := z.Attend(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 280*time.Second {
			t.Errorf("attended for %v, want 100 s and T4", took)
		}
	}, func(p *peer) {
		p.hearsNothing(100 * time.Second)
		p.tells("04 FF 01 1A")
		p.hearsNothing(10 * time.Minute)
	})
}

// TestMenuThatSaysOtherThings: a terminal that keeps the word and does not take
// 08 01 back has its menu open, also if it never says 1A.
func TestMenuThatSaysOtherThings(t *testing.T) {
	play(t, nil, func(t *testing.T, z *zvt.Terminal) {
		start := time.Now()
		o, err := execute(t, z, device.OpenMenu, &entry{})
		if err != nil || !o.Attend || !o.Result.(*device.OpenMenuResult).OpenedAt.Equal(start) {
			t.Fatalf("%+v, %v", o, err)
		}
		if took := time.Since(start); took != 20*time.Second {
			t.Errorf("after %v, want 20 s", took)
		}
		if err := z.Attend(t.Context()); err != nil {
			t.Error(err)
		}
	}, func(p *peer) {
		p.accepts(openMenu)
		for range 20 {
			time.Sleep(10 * time.Second)
			p.tells(pleaseWait)
		}
		p.tells(complete)
	})
}

// TestUpdateThatClosed: 08 10 may begin with an end of day (zvt.md 4.8). A
// failure behind its totals is not "nothing done".
func TestUpdateThatClosed(t *testing.T) {
	play(t, nil, func(t *testing.T, z *zvt.Terminal) {
		o, err := execute(t, z, device.CheckUpdate, &entry{})
		if got := (ending{outcome: o, err: err}).String(); got != "unknown A1 executed yes" {
			t.Errorf("%s", got)
		}
	}, func(p *peer) {
		p.accepts(softUpdate)
		p.tells(totals)
		p.tells("06 1E 01 A1")
	})
}

// TestAttendKeepsT4: a terminal in its menu mostly sets a longer T4 (zvt.md 4.9).
// It still holds when the operation is over.
func TestAttendKeepsT4(t *testing.T) {
	play(t, nil, func(t *testing.T, z *zvt.Terminal) {
		o, err := execute(t, z, device.OpenMenu, &entry{})
		if err != nil || !o.Attend {
			t.Fatalf("%+v, %v", o, err)
		}
		start := time.Now()
		if err := z.Attend(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 590*time.Second {
			t.Errorf("attended for %v, want 590 s", took)
		}
	}, func(p *peer) {
		p.accepts(openMenu)
		p.tells("04 FF 02 1A 10")
		p.hearsNothing(590 * time.Second)
		p.tells(complete)
	})
}

// TestFileThatIsShort: the terminal says how long its file is, sends less, and
// says that this is all.
func TestFileThatIsShort(t *testing.T) {
	files := newSpool(1 << 20)
	play(t, nil, func(t *testing.T, z *zvt.Terminal) {
		o, err := z.Execute(t.Context(), device.Request{Operation: device.SendLogs, Spool: files}, &entry{})
		if err != nil || o.Failure != nil || !strings.Contains(o.Message, "02-application.log is not whole: 2 of 9 bytes") {
			t.Errorf("%+v, %v", o, err)
		}
		if files.files["02-application.log"] != "A\n" {
			t.Errorf("%q", files.files)
		}
	}, func(p *peer) {
		p.prepares()
		p.hears("05 01 05 00 00 00 03 04")
		p.says(ack)
		p.tells(ready)
		p.hears("08 11 07 06 05 2D 03 1D 01 02")
		p.says(ack)
		p.tells("04 0F 11 06 0F 2D 0D 1C 02 41 0A 1D 01 02 1F 00 03 00 00 09")
		p.tells("06 0F 02 27 00")
		for _, id := range []string{"03", "04", "05"} {
			p.hears("08 11 07 06 05 2D 03 1D 01 " + id)
			p.says("84 83 00")
		}
	})
}

// TestCardNumberInTwoPrints: what a terminal prints of itself goes into a file, and
// a card number that begins in one message and ends in the next is none there.
func TestCardNumberInTwoPrints(t *testing.T) {
	files := newSpool(1 << 20)
	play(t, nil, func(t *testing.T, z *zvt.Terminal) {
		o, err := z.Execute(t.Context(), device.Request{Operation: device.SendLogs, Spool: files}, &entry{})
		if got := (ending{outcome: o, err: err}).String(); got != done {
			t.Errorf("ended %s", got)
		}
		if got := files.files["configuration.txt"]; got != "Karte 4111 11**\n**** 1111 ok\n" {
			t.Errorf("configuration.txt: %q", got)
		}
	}, func(p *peer) {
		p.prepares()
		p.hears("05 01 05 00 00 00 03 04")
		p.says(ack)
		p.tells(ready)
		for _, id := range []string{"02", "03", "04", "05"} {
			p.hears("08 11 07 06 05 2D 03 1D 01 " + id)
			p.says("84 83 00")
		}
		p.hears("06 1A 00")
		p.says(ack)
		p.tells("06 D1 10 00 4B 61 72 74 65 20 34 31 31 31 20 31 31 31 31") // Karte 4111 1111
		p.tells("06 D1 0D 00 31 31 31 31 20 31 31 31 31 20 6F 6B")          // 1111 1111 ok
		p.tells(complete)
		for _, other := range []string{"06 79 00", "0F 11 03 00 00 00", "0F 12 03 00 00 00"} {
			p.hears(other)
			p.says("84 83 00")
		}
	})
}

// TestNoPrintsOnPaper: where the registration leaves administration receipts to
// the terminal, or asks for no lines, what it prints of itself would be paper.
func TestNoPrintsOnPaper(t *testing.T) {
	for _, config := range []byte{0x0A, 0x88, 0x0C} {
		files := newSpool(1 << 20)
		play(t, func(o *zvt.Options) { o.ConfigByte = config }, func(t *testing.T, z *zvt.Terminal) {
			o, err := z.Execute(t.Context(), device.Request{Operation: device.SendLogs, Spool: files}, &entry{})
			if got := (ending{outcome: o, err: err}).String(); got != "unsupported  executed no" {
				t.Errorf("config %02X: %s", config, got)
			}
		}, func(p *peer) {
			p.hears(strings.Replace(registration, "8C", strings.ToUpper(hex.EncodeToString([]byte{config})), 1))
			p.says(ack)
			p.tells(complete)
			for _, command := range []string{enquiry, "05 01 05 00 00 00 03 04"} {
				p.hears(command)
				p.says(ack)
				p.tells(ready)
			}
			for _, id := range []string{"02", "03", "04", "05"} {
				p.hears("08 11 07 06 05 2D 03 1D 01 " + id)
				p.says("84 83 00")
			}
			p.hearsNothing(time.Minute)
		})
	}
}

// TestMenuAfterACrash: 08 01 was accepted, and the process died.
func TestMenuAfterACrash(t *testing.T) {
	play(t, func(o *zvt.Options) { o.Serial = true }, func(t *testing.T, z *zvt.Terminal) {
		e := &entry{startedAt: time.Now()}
		e.evidence = []device.Evidence{{At: time.Now(), Kind: "accepted", Data: json.RawMessage("{}")}}
		accepted := time.Now()
		o, err := resolve(t, z, device.OpenMenu, e)
		if err != nil || !o.Attend || !o.Result.(*device.OpenMenuResult).OpenedAt.Equal(accepted.Add(100*time.Second)) {
			t.Errorf("%+v, %v", o, err)
		}
		if err := z.Attend(t.Context()); err != nil {
			t.Error(err)
		}
	}, func(p *peer) {
		p.hearsNothing(100 * time.Second) // it may have the word
		p.says("10 02 04 FF 01 1A 10 03 64 E8")
		p.hears("06 " + serialAck)
		p.says("06")
		p.tellsSerial(serialComplete)
	})
}

// TestDescribe: what a Feig says of itself (vector 23, with its length FF).
func TestDescribe(t *testing.T) {
	play(t, nil, func(t *testing.T, z *zvt.Terminal) {
		if _, err := execute(t, z, device.OpenMenu, &entry{}); err != nil {
			t.Error(err)
		}
		d := z.Describe()
		if d.Model != "cVEND plug" || d.SerialNumber != "17FD1E3C" || !strings.HasPrefix(d.SoftwareVersion, "GER-APP-v2.0.9;") || d.Protocol != "zvt" {
			t.Errorf("%+v", d)
		}
	}, func(p *peer) {
		p.hears(registration)
		p.says(ack)
		p.tells("06 0F 00")
		p.hears(enquiry)
		p.says(ack)
		p.tells("06 0F 89 F0 F4 F0 47 45 52 2D 41 50 50 2D 76 32 2E 30 2E 39 3B 63 53 30 32 2E 30 31 2E 30 31 2D 31 30 2E 31 30 2D 32 2D 32 3B 43 43 32 36 00 06 5B 1F 44 04 52 52 35 35 E4 43 1F 40 0A 63 56 45 4E 44 20 70 6C 75 67 1F 41 28 47 45 52 2D 41 50 50 2D 76 32 2E 30 2E 39 3B 63 53 30 32 2E 30 31 2E 30 31 2D 31 30 2E 31 30 2D 32 2D 32 3B 43 43 32 36 1F 42 04 17 FD 1E 3C 1F 43 01 00 34 0D 1F 0E 04 20 23 04 05 1F 0F 03 22 56 55")
		p.hears(openMenu)
		p.says("84 83 00")
	})
}

// TestTerminalPrints: where the shop keeps its slip, the registration leaves the
// printing of administration to the terminal.
func TestTerminalPrints(t *testing.T) {
	play(t, func(o *zvt.Options) { o.Receipt = zvt.ReceiptTerminal }, func(t *testing.T, z *zvt.Terminal) {
		if _, err := execute(t, z, device.EndOfDay, &entry{}); !errors.Is(err, device.ErrUnreachable) {
			t.Error(err)
		}
	}, func(p *peer) {
		p.hears(strings.Replace(registration, "8C", "88", 1))
	})
}

func TestOptions(t *testing.T) {
	open := func(context.Context) (frame.Stream, error) { return nil, errors.New("not today") }
	for want, o := range map[string]zvt.Options{
		"option Open":     {},
		"option Password": {Open: open, Password: "12345"},
		"option Currency": {Open: open, Currency: 1000},
		"option Charset":  {Open: open, Charset: "ebcdic"},
		"option Receipt":  {Open: open, Receipt: "printer"},
		"option T4":       {Open: open, T4: -time.Second},
		"option Baud":     {Open: open, Baud: -9600},
	} {
		if _, err := zvt.New(o); err == nil || !strings.HasPrefix(err.Error(), want+":") {
			t.Errorf("%v, want %s named", err, want)
		}
		if _, err := zvt.New(o); err != nil && strings.Contains(err.Error(), "12345") {
			t.Error("the password is in the error")
		}
	}
}
