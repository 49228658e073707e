package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"pgregory.net/rapid"

	"terminalops/agent"
	"terminalops/agent/control"
	"terminalops/device/trace"
	"terminalops/transport"
)

// nineOClock is when the screens of these tests are looked at, wherever that is.
var nineOClock = time.Date(2026, 6, 29, 9, 0, 12, 0, time.Local)

// newViewer is a screen before a healthy store with one terminal.
func newViewer(width, height int) *viewer {
	v := &viewer{now: nineOClock, width: width, height: height}
	v.hear(agent.Status{Version: "1.2.0", Lanes: []agent.LaneStatus{healthy("T1")}}, nil)
	return v
}

func healthy(id string) agent.LaneStatus {
	return agent.LaneStatus{
		ID: id, Connected: true, Connection: 3,
		Clock: agent.ClockStatus{Source: agent.ClockCloud, OffsetMillis: 2100},
		Device: transport.Device{
			Protocol: "zvt", Link: "serial:/dev/ttyACM0", State: transport.DeviceReady,
			Model: "Lane/5000", SerialNumber: "12345678", SoftwareVersion: "2.14.15",
		},
	}
}

// at is a moment, so many milliseconds after nine o'clock.
func at(milliseconds int) time.Time {
	return nineOClock.Truncate(time.Minute).Add(time.Duration(milliseconds) * time.Millisecond)
}

// endOfDayEvents are those of the beginning of one.
func endOfDayEvents() []trace.Event {
	frame := func(ms int, d trace.Direction, bytes, meaning string) trace.Event {
		return trace.Event{At: at(ms), Lane: "T1", Direction: d, Bytes: bytes, Meaning: meaning}
	}
	note := func(ms int, s trace.Source, meaning string) trace.Event {
		return trace.Event{At: at(ms), Lane: "T1", Source: s, Direction: trace.Remark, Meaning: meaning}
	}
	return []trace.Event{
		note(1000, trace.FromCloud, "command end_of_day 3f1a, starts until 2026-06-29T07:05:00Z"),
		note(1004, trace.Journal, "end_of_day 3f1a accepted"),
		frame(1010, trace.Remark, "", "link opened"),
		note(1249, trace.Journal, "end_of_day 3f1a started"),
		frame(1250, trace.ToTerminal, "10 02|06 50 03|•• •• ••|10 03|•• ••", "06 50 end-of-day: password ••••••"),
		frame(1262, trace.FromTerminal, "06", "ACK"),
		frame(1370, trace.FromTerminal, "10 02|80 00 00|10 03|F4 E3", "80 00 positive acknowledgement"),
		frame(1371, trace.ToTerminal, "06", "ACK"),
		frame(3420, trace.FromTerminal, "10 02|04 FF 02|04 03|10 03|F1 66", "04 FF intermediate status: 04 waiting for the host, T4 03 min"),
		note(3421, trace.ToCloud, "report RUNNING end_of_day 3f1a: waiting for the host"),
		note(3422, trace.Log, "INFO waiting for the host operation=3f1a"),
		frame(8100, trace.FromTerminal,
			"10 02|06 D3 FF 54 00|1F 07 01|03|25 49|07 0D|4B 61 73 73 65 6E 73 63 68 6E 69 74 74|07 21|4C 65 74 7A 74 65 20 4B 61 72 74 65 20 34 31 31 31 20 31 31 •• •• 20 •• •• •• •• 20 31 31 31 31|10 03|•• ••",
			`06 D3 print text-block: "Kassenschnitt" "Händlerbeleg" "Terminal-ID 65029158" "Summe EUR           42     1,234.50" "Letzte Karte 4111 11** **** 1111" "Kassenschnitt erfolgreich" "durchgeführt"`),
		frame(8101, trace.ToTerminal, "15", "NAK: wrong CRC"),
		note(8102, trace.Log, "ERROR the disk is full"),
	}
}

// screens are scenes that are kept as they look.
var screens = []struct {
	name          string
	width, height int
	scene         func(v *viewer)
}{
	{"quiet", 80, 24, func(v *viewer) {
		v.see(trace.Event{At: at(0), Source: trace.Log, Direction: trace.Remark, Meaning: "INFO started"})
	}},
	{"end-of-day", 100, 30, func(v *viewer) {
		atWork(v)
		for _, e := range endOfDayEvents() {
			v.see(e)
		}
	}},
	{"end-of-day-small", 80, 24, func(v *viewer) {
		atWork(v)
		for _, e := range endOfDayEvents() {
			v.see(e)
		}
	}},
	{"line", 80, 24, func(v *viewer) {
		for _, e := range endOfDayEvents() {
			v.see(e)
		}
		presses(v, 'f')
	}},
	{"journal-and-cloud-paused", 80, 24, func(v *viewer) {
		presses(v, 'f', 'f')
		for i, e := range endOfDayEvents() {
			v.see(e)
			if i == 9 {
				presses(v, 'p')
			}
		}
	}},
	{"several-terminals", 140, 40, func(v *viewer) {
		v.own = true
		var lanes []agent.LaneStatus
		for i := range 8 {
			lanes = append(lanes, healthy(fmt.Sprintf("P11223351-T00%02d", i+13)))
		}
		lanes[1].Connected, lanes[1].Device.State, lanes[1].Device.Detail = false, transport.DeviceUnreachable, "open /dev/ttyACM1: no such file"
		lanes[1].Detail = "the disk is full"
		lanes[1].Queue = []agent.Record{{Operation: "send_logs"}, {Operation: "check_update"}}
		lanes[1].Last = &agent.Record{
			ID: "3f19", Operation: "end_of_day", State: transport.StateFailed, FinishedAt: nineOClock.Add(-time.Hour),
			Report: &agent.Report{Error: &transport.Error{Code: "device_refused", DeviceCode: "77", Message: "end-of-day batch not possible", Executed: "no"}},
		}
		lanes[2].Working = &agent.Record{ID: "3f1a", Operation: "open_menu", State: transport.StateAccepted, AcceptedAt: nineOClock.Add(-75 * time.Second), Message: "a payment runs"}
		v.hear(agent.Status{Version: "1.2.0", Lanes: lanes}, nil)
		presses(v, keyTab)
		for _, e := range endOfDayEvents() {
			e.Lane = lanes[2].ID
			v.see(e)
		}
		v.see(trace.Event{At: at(9000), Source: trace.Log, Direction: trace.Remark, Meaning: "WARN it is late", Missed: 12})
	}},
	{"asks", 80, 24, func(v *viewer) { presses(v, 'e') }},
	{"ends", 80, 24, func(v *viewer) {
		v.own = true
		presses(v, 'q')
	}},
	{"away", 80, 24, func(v *viewer) {
		v.hear(agent.Status{}, control.ErrNotRunning)
		presses(v, 'e')
	}},
	{"hostile", 80, 24, func(v *viewer) {
		const hostile = "\x1b]0;you\x07 \x1b[2J\r\n\u202egnp\u0301.exe\x9b\x00 4111\x01111111111111"
		l := healthy(hostile)
		l.Device.Model = hostile
		l.Working = &agent.Record{Operation: hostile, State: transport.StateRunning, StartedAt: nineOClock, Message: hostile}
		v.hear(agent.Status{Version: hostile, Lanes: []agent.LaneStatus{l}}, nil)
		v.see(trace.Event{At: at(0), Lane: hostile, Source: trace.Log, Direction: trace.Remark, Meaning: hostile})
		v.say("", errors.New(hostile))
	}},
	{"too-small", 40, 10, func(v *viewer) { presses(v, 'e', 'y') }},
}

func atWork(v *viewer) {
	l := healthy("T1")
	l.Working = &agent.Record{ID: "3f1a", Operation: "end_of_day", State: transport.StateRunning, StartedAt: at(1249), Message: "waiting for the host"}
	l.Queue = []agent.Record{{Operation: "send_logs", State: transport.StateAccepted}}
	l.Last = &agent.Record{ID: "3f19", Operation: "end_of_day", State: transport.StateCompleted, FinishedAt: nineOClock.Add(-12 * time.Hour), Report: &agent.Report{Message: "printed on the terminal"}}
	v.hear(agent.Status{Version: "1.2.0", Lanes: []agent.LaneStatus{l}}, nil)
}

// presses presses keys; what they wish is the last one's.
func presses(v *viewer, keys ...key) (w wish) {
	for _, k := range keys {
		w = v.press(k)
		v.mayAnswer()
	}
	return w
}

// look is what a viewer shows, as text, each line with its end marked.
func look(v *viewer, show func(row) string) string {
	var b strings.Builder
	for _, r := range v.draw() {
		b.WriteString(show(r) + "\n")
	}
	return b.String()
}

func TestScreens(t *testing.T) {
	for _, s := range screens {
		t.Run(s.name, func(t *testing.T) {
			v := newViewer(s.width, s.height)
			s.scene(v)
			golden(t, "screen/"+s.name, look(v, row.text))
		})
	}
	v := newViewer(100, 30)
	screens[1].scene(v)
	for name, coloured := range map[string]bool{"coloured": true, "no-colour": false} {
		golden(t, "screen/"+name, strings.ReplaceAll(look(v, func(r row) string { return r.sequence(coloured) }), "\x1b", "␛"))
	}
}

// golden compares a text with the one that is kept.
func golden(t *testing.T, name, have string) {
	t.Helper()
	file := filepath.Join("testdata", filepath.FromSlash(name)+".txt")
	if *update {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(have), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if have != strings.ReplaceAll(string(want), "\r\n", "\n") {
		t.Errorf("%s (-update writes what is):\n%s\nwant\n%s", file, have, want)
	}
}

// Nobody runs an operation by accident.
func TestScreenAsksFirst(t *testing.T) {
	all := []key{keyInterrupt, keyEscape, keyUp, keyOther, '\r', ' ', 'n', 'e', 'q', 'Y', 'y'}
	for _, o := range operations {
		for _, answer := range all {
			v := newViewer(80, 24)
			if w := presses(v, o.key); w != (wish{}) || v.asking == nil {
				t.Fatalf("%c: %+v without a question", o.key, w)
			}
			want := wish{}
			if answer == 'y' || answer == 'Y' {
				want = wish{do: runOperation, terminal: "T1", operation: string(o.operation)}
			}
			if w := presses(v, answer); w != want || v.asking != nil {
				t.Errorf("%c, and then %q: %+v, want %+v", o.key, answer, w, want)
			}
			if w := presses(v, 'y'); w != (wish{}) {
				t.Errorf("%c, then %q, and then y: %+v", o.key, answer, w)
			}
		}
	}
}

// The end of an agent is asked about; the end of looking on is nobody's loss.
func TestScreenEnds(t *testing.T) {
	for _, tt := range []struct {
		own  bool
		keys []key
		want deed
	}{
		{false, []key{'q'}, endScreen},
		{false, []key{keyInterrupt}, endScreen},
		{true, []key{'q'}, noDeed},
		{true, []key{'q', 'n'}, noDeed},
		{true, []key{'q', 'q'}, noDeed},
		{true, []key{'q', 'y'}, endScreen},
		{true, []key{keyInterrupt, keyInterrupt}, endScreen},
		{true, []key{'e', keyInterrupt}, noDeed},
	} {
		v := newViewer(80, 24)
		v.own = tt.own
		if w := presses(v, tt.keys...); w.do != tt.want {
			t.Errorf("%v, %q: %q, want %q", tt.own, tt.keys, w.do, tt.want)
		}
	}
}

// What is typed before a question can be read, or pasted, is no answer.
func TestScreenTypedAhead(t *testing.T) {
	for _, typed := range [][]string{
		{"ey"}, {"eyyyy"}, {"e", "y"}, {"k", "e", "y"},
		{"\x1b[200~ey\x1b[201~"}, {"\x1b[200~e\ry\x1b[201~"}, {"e\x1b[200~some text", "yes, and more\x1b[201~"},
	} {
		s := screenShow{viewer: *newViewer(80, 24)}
		for _, read := range typed {
			if w := s.press([]byte(read)); w != (wish{}) {
				t.Errorf("%q: %+v", typed, w)
			}
		}
	}
	s := screenShow{viewer: *newViewer(80, 24)}
	s.press([]byte("e"))
	s.viewer.mayAnswer()
	if w := s.press([]byte("y")); w.do != runOperation {
		t.Errorf("an answer: %+v", w)
	}
}

// The end of a question is seen, and nothing of it before an answer counts.
func TestScreenShowsWhenAnAnswerCounts(t *testing.T) {
	v := newViewer(leastWidth, leastHeight)
	v.status.Lanes[0] = healthy("P" + strings.Repeat("1", 63))
	v.selected = v.status.Lanes[0].ID
	v.press('e')
	question := func() string { return v.bottom().cut(v.width).text() }
	if q := question(); !strings.HasSuffix(q, ", now? ") {
		t.Errorf("asks %q", q)
	}
	v.mayAnswer()
	if q := question(); !strings.HasSuffix(q, ", now? y/n ") {
		t.Errorf("asks %q", q)
	}
}

// What was scrolled to may be gone by the next key.
func TestScreenScrollsToWhatIsGone(t *testing.T) {
	for _, k := range []key{keyUp, keyDown, keyPageUp, keyPageDown, keyHome, keyEnd} {
		v := newViewer(80, 24)
		numbered(v, 100)
		v.press('p')
		numbered(v, eventsKept+500)
		v.press(k)
		v.draw()
	}
}

// What was asked for here can be taken back until it starts.
func TestScreenTakesBack(t *testing.T) {
	v := newViewer(80, 24)
	record := func(state string) {
		l := healthy("T1")
		l.Working = &agent.Record{ID: "3f1a", Operation: "end_of_day", State: state}
		v.hear(agent.Status{Lanes: []agent.LaneStatus{l}}, nil)
	}
	record(transport.StateAccepted)
	if w := presses(v, 'x'); w != (wish{}) || strings.Contains(look(v, row.text), "take") {
		t.Errorf("another's: %+v", w)
	}
	v.asked = "3f1a"
	if w := presses(v, 'x'); w != (wish{do: takeBack, operation: "3f1a"}) || !strings.Contains(look(v, row.text), "x take back") {
		t.Errorf("ours: %+v", w)
	}
	record(transport.StateRunning)
	if w := presses(v, 'x'); w != (wish{}) || strings.Contains(look(v, row.text), "take") {
		t.Errorf("ours, started: %+v", w)
	}
}

// numbered shows n more events, a row each.
func numbered(v *viewer, n int) {
	for range n {
		v.see(trace.Event{At: at(v.total()), Lane: "T1", Direction: trace.Remark, Meaning: fmt.Sprintf("event %d.", v.total())})
	}
}

// shownNumbers are the first and the last that can be seen.
func shownNumbers(v *viewer) string {
	all := regexp.MustCompile(`event (\d+)\.`).FindAllStringSubmatch(look(v, row.text), -1)
	return all[0][1] + "-" + all[len(all)-1][1]
}

func TestScreenScrolls(t *testing.T) {
	v := newViewer(80, 24) // 13 events fit
	numbered(v, 100)
	for _, step := range []struct {
		keys []key
		more int
		want string
	}{
		{nil, 10, "97-109"},
		{[]key{keyUp}, 10, "96-108"}, // pauses
		{[]key{keyPageUp}, 0, "84-96"},
		{[]key{keyDown, keyDown}, 0, "86-98"},
		{[]key{keyPageDown, keyPageDown, keyPageDown}, 0, "107-119"},
		{[]key{keyHome}, 0, "0-12"},
		{[]key{keyUp, keyPageUp}, 0, "0-12"},
		{[]key{keyPageDown}, 0, "12-24"},
		{[]key{keyEnd}, 5, "107-119"},
		{[]key{'p'}, 0, "112-124"},
		{[]key{'p'}, 5, "112-124"},
		{[]key{keyHome}, eventsKept, "130-142"}, // the oldest are gone
		{[]key{'p'}, 0, "5117-5129"},
	} {
		presses(v, step.keys...)
		numbered(v, step.more)
		if have := shownNumbers(v); have != step.want {
			t.Errorf("after %q and %d more: %s, want %s", step.keys, step.more, have, step.want)
		}
	}
	if len(v.kept) != eventsKept {
		t.Errorf("%d events are kept", len(v.kept))
	}
}

// Each filter shows its kinds, and each event is in one beside "all".
func TestScreenFilters(t *testing.T) {
	for _, source := range []trace.Source{trace.Line, trace.Journal, trace.ToCloud, trace.FromCloud, trace.Log} {
		v, in := newViewer(80, 24), 0
		v.see(trace.Event{At: at(0), Source: source, Meaning: "here it is"})
		for range filters {
			if strings.Contains(look(v, row.text), "here it is") {
				in++
			}
			presses(v, 'f')
		}
		if in != 2 {
			t.Errorf("%q is in %d filters", source, in)
		}
	}
}

func TestKeys(t *testing.T) {
	for typed, want := range map[string][]key{
		"e":                        {'e'},
		"\x03\t":                   {keyInterrupt, keyTab},
		"\x1b":                     {keyEscape},
		"\x1b\x1b":                 {keyEscape, keyEscape},
		"\x1b[A\x1b[B\x1bOA\x1bOF": {keyUp, keyDown, keyUp, keyEnd},
		"\x1b[5~\x1b[6~\x1b[1~\x1b[4~\x1b[H\x1b[F": {keyPageUp, keyPageDown, keyHome, keyEnd, keyHome, keyEnd},
		"\x1b[1;5Ax":                   {keyOther, 'x'}, // Ctrl and an arrow
		"\x1by":                        {keyOther},      // Alt and y
		"\x1b[":                        {keyOther},
		"é":                            {keyOther, keyOther},
		"a\x1b[200~y\x1b[Ay\x1b[201~b": {'a', 'b'},
		"\x1b[200~y\x03":               {keyInterrupt},
	} {
		var d keyDecoder
		var have []key
		for _, b := range []byte(typed) {
			if k, pressed := d.take(b); pressed {
				have = append(have, k)
			}
		}
		if k, pressed := d.nothingFollows(); pressed {
			have = append(have, k)
		}
		if !slices.Equal(have, want) {
			t.Errorf("%q: %d, want %d", typed, have, want)
		}
		if d.undecided() {
			t.Errorf("%q: still undecided", typed)
		}
	}
}

// Whatever is said, a screen is as many rows as the window has, none wider than
// it, and a terminal has nothing to obey in them.
func TestScreenFits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		v := drawViewer(rt, rapid.String())
		rows := v.draw()
		if len(rows) != v.height {
			rt.Fatalf("%d rows in %d", len(rows), v.height)
		}
		for _, r := range rows {
			if r.width() > v.width {
				rt.Fatalf("%d columns in %d: %s", r.width(), v.width, r.text())
			}
			if strings.ContainsFunc(r.text(), func(c rune) bool { return !unicode.IsPrint(c) }) {
				rt.Fatalf("for a terminal to obey: %q", r.text())
			}
		}
	})
}

// drawViewer draws a screen on which everybody says what said draws.
func drawViewer(t *rapid.T, said *rapid.Generator[string]) *viewer {
	say := func(what string) string { return said.Draw(t, what) }
	record := func(state string) *agent.Record {
		return &agent.Record{ID: "3f1a", Operation: "end_of_day", State: state, StartedAt: at(0), AcceptedAt: at(0), Message: say("message"),
			Report: &agent.Report{State: state, Error: &transport.Error{Code: "device_refused", Message: say("error"), Executed: "no"}}}
	}
	lane := func(id string) agent.LaneStatus {
		l := healthy(id)
		l.Device.Model, l.Device.SerialNumber, l.Device.SoftwareVersion, l.Device.Detail = say("model"), say("serial"), say("version"), say("detail")
		l.Detail, l.Working, l.Last = say("trouble"), record(transport.StateRunning), record(transport.StateFailed)
		return l
	}
	v := &viewer{now: nineOClock, width: rapid.IntRange(1, 200).Draw(t, "width"), height: rapid.IntRange(1, 50).Draw(t, "height")}
	lanes := []agent.LaneStatus{lane("T1"), lane("T2")}
	v.hear(agent.Status{Version: "1.2.0", Lanes: lanes[:rapid.IntRange(1, 2).Draw(t, "terminals")]}, nil)
	for range rapid.IntRange(0, 20).Draw(t, "events") {
		e := trace.Event{
			At: at(v.total()), Lane: "T1", Meaning: say("meaning"), Missed: rapid.IntRange(0, 1).Draw(t, "missed"),
			Source:    rapid.SampledFrom([]trace.Source{trace.Line, trace.Journal, trace.ToCloud, trace.Log}).Draw(t, "source"),
			Direction: rapid.SampledFrom([]trace.Direction{trace.ToTerminal, trace.FromTerminal, trace.Remark}).Draw(t, "direction"),
		}
		if e.Source == trace.Line {
			content := []byte(say("bytes"))
			marks := make([]trace.Mark, len(content))
			trace.FindCards(content, func(at int) { marks[at] |= trace.Hidden })
			e.Bytes = trace.Hex(content, marks)
		}
		v.see(e)
	}
	if text := say("notice"); rapid.Bool().Draw(t, "has notice") {
		v.say("", errors.New(text))
	}
	keys := []key{'p', 'f', keyTab, 'e', 'x', keyUp, keyDown, keyPageUp, keyPageDown, keyHome, keyEnd}
	presses(v, rapid.SliceOfN(rapid.SampledFrom(keys), 0, 5).Draw(t, "keys")...)
	return v
}

// Also where lines are cut, broken and set side by side, nothing that a terminal has
// said becomes what could be a card number.
func TestScreenShowsNoCard(t *testing.T) {
	said := rapid.Custom(func(t *rapid.T) string {
		around := rapid.SampledFrom([]string{"", " ", "-", "Karte ", "12", "0000 ", "\x01", "\u200b", "\u00a0", "\n", strings.Repeat("x", 40)})
		digits := rapid.StringMatching(`[0-9]{1,4}|([0-9]{4}[ -]?){3,5}`)
		var b strings.Builder
		for range rapid.IntRange(1, 3).Draw(t, "parts") {
			b.WriteString(around.Draw(t, "before") + rapid.OneOf(digits, rapid.Just("4111 1111 1111 1111"), rapid.Just("4111111111111111")).Draw(t, "digits") + around.Draw(t, "behind"))
		}
		return trace.Mask(b.String())
	})
	rapid.Check(t, func(rt *rapid.T) {
		v := drawViewer(rt, said)
		for _, r := range v.draw() {
			if card := findCard(r.text()); card != "" {
				rt.Fatalf("%s in the row\n%s", card, r.text())
			}
		}
	})
}

// findCard returns what could be a card number in a line. It shares nothing with
// what masks.
func findCard(line string) string {
	for _, run := range regexp.MustCompile(`[0-9][0-9 -]+`).FindAllString(line, -1) {
		digits := strings.NewReplacer(" ", "", "-", "").Replace(run)
		for from := range digits {
			for to := from + 13; to <= min(from+19, len(digits)); to++ {
				sum := 0
				for i, c := range digits[from:to] {
					d := int(c - '0')
					if (to-from-i)%2 == 0 {
						if d *= 2; d > 9 {
							d -= 9
						}
					}
					sum += d
				}
				if sum%10 == 0 {
					return digits[from:to]
				}
			}
		}
	}
	return ""
}

func TestFindCardFinds(t *testing.T) {
	for line, want := range map[string]bool{"a 4111 1111-1111 1111 b": true, "x04111111111111111": true, "4111 11** **** 1111": false, "4111 1111.1111 1111": false} {
		if found := findCard(line) != ""; found != want {
			t.Errorf("%s: %v", line, found)
		}
	}
}
