package trace

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var morning = time.Date(2026, 6, 29, 9, 0, 1, 250e6, time.UTC)

func write(t interface{ Fatal(...any) }, h Header, events []Event) string {
	var b bytes.Buffer
	w, err := NewWriter(&b, h)
	for _, e := range events {
		err = errors.Join(err, w.Write(e))
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const golden = `terminalops capture 1
software  terminal-agent 1.2.0 linux/amd64
device    Lane/5000 2.14.15
made      2026-06-29 09:00:01.250

# Times are UTC. Each line: when, seconds since the line before, direction
# (→ to the terminal, ← from it, · a remark), the bytes on the wire in
# hexadecimal digits, their meaning. •• is a byte that is masked: passwords, card
# data, and what could be a card number. A bar is where an element begins, and in
# a 10 that is doubled on a serial line.

terminal  P1-T1
2026-06-29 09:00:01.250   +0.000  ·  # link opened
2026-06-29 09:00:01.250   +0.000  →  10 02|06 50 03|•• •• ••|10 03|•• ••  # 06 50 end-of-day: password ••••••
2026-06-29 09:00:01.370   +0.120  ←  06  # ACK
# 3 events are missing here
2026-06-29 09:01:01.370  +60.000  ←  FF

terminal  P1-T2
2026-06-29 09:01:01.369   -0.001  ·  # a # in it
2026-06-29 09:01:01.369   +0.000  ·  # journal: end_of_day 3f1a: finished
`

func TestCapture(t *testing.T) {
	header := Header{Software: "terminal-agent 1.2.0 linux/amd64", Device: "Lane/5000\n2.14.15", Made: morning.In(time.FixedZone("", 7200))}
	marks := []Mark{0, 0, Border, 0, 0, Border | Hidden, Hidden, Hidden, Border, 0, Border | Hidden, Hidden}
	bytes := Hex([]byte{0x10, 0x02, 0x06, 0x50, 0x03, 0, 0, 0, 0x10, 0x03, 0xFB, 0x37}, marks)
	events := []Event{
		{At: morning, Lane: "P1-T1", Direction: Remark, Meaning: "link opened"},
		{At: morning, Lane: "P1-T1", Direction: ToTerminal, Bytes: bytes, Meaning: "06 50 end-of-day: password ••••••"},
		{At: morning.Add(120*time.Millisecond + 999), Lane: "P1-T1", Direction: FromTerminal, Bytes: "06", Meaning: "ACK"},
		{At: morning.Add(60120 * time.Millisecond), Lane: "P1-T1", Direction: FromTerminal, Bytes: "FF", Missed: 3},
		{At: morning.Add(60119 * time.Millisecond), Lane: "P1-T2", Direction: Remark, Meaning: "a # in it"},
		{At: morning.Add(60119 * time.Millisecond), Lane: "P1-T2", Source: Journal, Direction: Remark, Meaning: "end_of_day 3f1a: finished"},
	}
	got := write(t, header, events)
	gotLines := strings.ReplaceAll(got, "Lane/5000 2.14.15", "Lane/5000 2.14.15")
	if gotLines != golden {
		t.Errorf("got:\n%s\nwant:\n%s", got, golden)
	}
	h, back, err := Read(strings.NewReader(got))
	if err != nil || h.Device != "Lane/5000 2.14.15" || !h.Made.Equal(morning) || len(back) != len(events) {
		t.Fatalf("%+v, %d events, %v", h, len(back), err)
	}
	for i, e := range back {
		want := events[i]
		want.At, want.Missed = want.At.Truncate(time.Millisecond), 0
		if !reflect.DeepEqual(e, want) {
			t.Errorf("event %d: %+v, want %+v", i, e, want)
		}
	}
}

func TestReadNamesTheLine(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "not a capture"},
		{"06 50 03", "not a capture"},
		{"terminalops capture 2\n", "line 1: a capture of version 1 wanted, this is 2"},
		{"terminalops capture 1\nmade yesterday\n", "line 2: made: a time"},
		{"terminalops capture 1\n\nnonsense x\n", `line 3: "nonsense"`},
		{"terminalops capture 1\n2026-06-29 09:00:01.250 +0.000 → 0650\n", "line 2: an event wanted"},
		{"terminalops capture 1\n2026-13-29 09:00:01.250 +0.000 → 06\n", "line 2: a time"},
	} {
		if _, _, err := Read(strings.NewReader(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want %q", test.text, err, test.want)
		}
	}
}

// Whatever is written reads as what it was.
func TestCaptureRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Event {
			b := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "bytes")
			marks := make([]Mark, len(b))
			for i := range marks {
				marks[i] = Mark(rapid.IntRange(0, 3).Draw(t, "mark"))
			}
			e := Event{
				At:        time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "at")).UTC(),
				Lane:      rapid.StringMatching(`[A-Za-z0-9_-]{1,8}`).Draw(t, "lane"),
				Direction: rapid.SampledFrom([]Direction{ToTerminal, FromTerminal, Remark}).Draw(t, "direction"),
				Bytes:     Hex(b, marks),
				Meaning:   oneLine(rapid.String().Draw(t, "meaning")),
			}
			if e.Direction == Remark {
				e.Source = rapid.SampledFrom([]Source{Line, Journal, ToCloud, FromCloud, Log}).Draw(t, "source")
			}
			return e
		}), 1, 10).Draw(t, "events")
		_, got, err := Read(strings.NewReader(write(t, Header{Made: morning}, events)))
		if err != nil || !reflect.DeepEqual(got, events) {
			t.Fatalf("%v\n%+v\n%+v", err, got, events)
		}
	})
}

// Whatever can be read is written as something that reads as the same, and is
// written the same again.
func FuzzRead(f *testing.F) {
	f.Add(golden)
	f.Add("terminalops capture 1\r\n2026-06-29 09:00:01.250 +1.000 ←  •• 06|07 # x # y\r\n")
	f.Add("terminalops capture 1\n0000-01-01 00:00:00.000 -0.000 ·\nterminal\nmade 2026-06-29 09:00:01.250")
	f.Fuzz(func(t *testing.T, text string) {
		h, events, err := Read(strings.NewReader(text))
		if err != nil {
			return
		}
		once := write(t, h, events)
		h2, events2, err := Read(strings.NewReader(once))
		if err != nil {
			t.Fatalf("%v in\n%s", err, once)
		}
		if h2 != h || !reflect.DeepEqual(events2, events) {
			t.Fatalf("%+v %+v\nbecomes\n%+v %+v", h, events, h2, events2)
		}
		if twice := write(t, h2, events2); twice != once {
			t.Fatalf("%s\nbecomes\n%s", once, twice)
		}
	})
}
