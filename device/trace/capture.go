package trace

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// A capture is a text:
//
//	terminalops capture 1
//	software  terminal-agent 1.2.0 linux/amd64
//	made      2026-06-29 09:05:00.000
//
//	# Times are UTC. ...
//
//	terminal  P11223351-T0013
//	2026-06-29 09:00:01.250   +0.000  →  10 02|06 50 03|•• •• ••|10 03|•• ••  # 06 50 end-of-day: password ••••••
//	2026-06-29 09:00:01.370   +0.120  ←  06  # ACK
//	2026-06-29 09:00:09.000   +7.630  ·  # link closed
//	2026-06-29 09:00:09.010   +0.010  ·  # journal: end_of_day 3f1a: finished
//
// A line is an event, a word and its value, a comment (#) or empty. "terminal" is
// said of the events behind it. The gap, in seconds since the event before, is for
// the reader: it follows from the times.

// Header says what a capture is of. All but Made may be empty.
type Header struct {
	Software string // that made it, with its version
	Device   string // what the terminal says it is
	Made     time.Time
}

// Words of a capture.
const (
	wordFormat   = "terminalops capture"
	wordSoftware = "software"
	wordDevice   = "device"
	wordMade     = "made"
	wordTerminal = "terminal"
)

const (
	version    = "1"
	timeLayout = "2006-01-02 15:04:05.000" // UTC
)

const explanation = `
# Times are UTC. Each line: when, seconds since the line before, direction
# (→ to the terminal, ← from it, · a remark), the bytes on the wire in
# hexadecimal digits, their meaning. •• is a byte that is masked: passwords, card
# data, and what could be a card number. A bar is where an element begins, and in
# a 10 that is doubled on a serial line.
`

// Writer writes a capture.
type Writer struct {
	w    io.Writer
	lane string
	said bool // what lane it is
	last time.Time
}

// NewWriter begins a capture.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s\n", wordFormat, version)
	for _, line := range [][2]string{{wordSoftware, oneLine(h.Software)}, {wordDevice, oneLine(h.Device)}, {wordMade, stamp(h.Made)}} {
		if line[1] != "" {
			s.WriteString(keyword(line[0], line[1]))
		}
	}
	s.WriteString(explanation)
	_, err := io.WriteString(w, s.String())
	return &Writer{w: w}, err
}

func keyword(word, value string) string { return fmt.Sprintf("%-9s %s\n", word, value) }

// stamp is a time as it stands in a capture, which has milliseconds.
func stamp(t time.Time) string { return t.UTC().Format(timeLayout) }

// Write writes an event, each with one Write of the writer below.
func (w *Writer) Write(e Event) error {
	var s strings.Builder
	if lane := oneLine(e.Lane); lane != w.lane || !w.said {
		s.WriteString("\n" + keyword(wordTerminal, lane))
		w.lane, w.said = lane, true
	}
	if e.Missed > 0 {
		fmt.Fprintf(&s, "# %d events are missing here\n", e.Missed)
	}
	at := e.At.Truncate(time.Millisecond)
	gap := time.Duration(0)
	if !w.last.IsZero() {
		gap = at.Sub(w.last)
	}
	w.last = at
	fmt.Fprintf(&s, "%s %+8.3f  %s", stamp(at), gap.Seconds(), e.Direction)
	if e.Bytes != "" {
		s.WriteString("  " + e.Bytes)
	}
	meaning := oneLine(e.Meaning)
	if e.Source != Line {
		meaning = string(e.Source) + ": " + meaning
	}
	if meaning != "" {
		s.WriteString("  # " + meaning)
	}
	s.WriteByte('\n')
	_, err := io.WriteString(w.w, s.String())
	return err
}

// oneLine is a text without line breaks and without blanks around it.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}

// ErrNoCapture: a file does not begin as a capture does.
var ErrNoCapture = errors.New("not a capture: its first line is not " + `"` + wordFormat + `"`)

// maxLine is the longest line of a capture, in bytes: a frame of 64 KiB, all of it
// doubled, and what it means.
const maxLine = 2 << 20

// eventLine is a line with an event: when, the gap, the direction, the bytes, the
// meaning.
var eventLine = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})\s+[+-]\d+\.\d{3}\s+(→|←|·)(?:\s+((?:[0-9A-F]{2}|••)(?:[ |](?:[0-9A-F]{2}|••))*))?(?:\s+# (.*))?$`)

// Read reads a capture. Errors name the line. What is not of the newest version is
// an error, too.
func Read(r io.Reader) (Header, []Event, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	c := reader{}
	for number := 1; lines.Scan(); number++ {
		if err := c.line(strings.TrimSpace(lines.Text())); err != nil {
			return c.header, c.events, fmt.Errorf("capture, line %d: %w", number, err)
		}
	}
	if err := lines.Err(); err != nil {
		return c.header, c.events, fmt.Errorf("capture: %w", err)
	}
	if !c.begun {
		return c.header, nil, ErrNoCapture
	}
	return c.header, c.events, nil
}

// reader is what has been read so far.
type reader struct {
	begun  bool
	lane   string
	header Header
	events []Event
}

func (c *reader) line(line string) error {
	switch {
	case !c.begun:
		return c.first(line)
	case line == "" || line[0] == '#':
		return nil
	case line[0] >= '0' && line[0] <= '9':
		return c.event(line)
	}
	word, value, _ := strings.Cut(line, " ")
	value = oneLine(value)
	switch word {
	case wordSoftware:
		c.header.Software = value
	case wordDevice:
		c.header.Device = value
	case wordTerminal:
		c.lane = value
	case wordMade:
		made, err := time.Parse(timeLayout, value)
		if err != nil {
			return fmt.Errorf("made: a time like %s wanted", timeLayout)
		}
		c.header.Made = made
	default:
		return fmt.Errorf("%q: one of %s, %s, %s, %s, an event or a comment wanted", word, wordSoftware, wordDevice, wordMade, wordTerminal)
	}
	return nil
}

func (c *reader) first(line string) error {
	number, ok := strings.CutPrefix(strings.TrimPrefix(line, "\uFEFF"), wordFormat)
	switch {
	case !ok:
		return ErrNoCapture
	case strings.TrimSpace(number) != version:
		return fmt.Errorf("a capture of version %s wanted, this is %s", version, oneLine(number))
	}
	c.begun = true
	return nil
}

func (c *reader) event(line string) error {
	m := eventLine.FindStringSubmatch(line)
	if m == nil {
		return errors.New("an event wanted: a time, a gap, a direction, bytes, # and the meaning")
	}
	at, err := time.Parse(timeLayout, m[1])
	if err != nil {
		return fmt.Errorf("a time like %s wanted", timeLayout)
	}
	e := Event{At: at, Lane: c.lane, Direction: Direction(m[2]), Bytes: m[3], Meaning: oneLine(m[4])}
	if e.Direction == Remark {
		e.Source, e.Meaning = sourceOf(e.Meaning)
	}
	c.events = append(c.events, e)
	return nil
}

// sourceOf takes the source off the words of a remark.
func sourceOf(words string) (Source, string) {
	for _, s := range []Source{Journal, ToCloud, FromCloud, Log} {
		if rest, ok := strings.CutPrefix(words, string(s)+":"); ok {
			return s, oneLine(rest)
		}
	}
	return Line, words
}
