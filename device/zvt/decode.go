package zvt

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"terminalops/device/trace"
	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
)

// Decode explains what was recorded of a line, for people: a capture, or bytes in
// hexadecimal digits however somebody has them, a dump with offsets or the lines of a
// log. In these it finds the frames of a serial line, and APDUs alone, as on TCP.
// What it writes is masked, whatever it reads.
func Decode(w io.Writer, r io.Reader) error {
	in, out := bufio.NewReader(r), bufio.NewWriter(w)
	const enough = 64 // bytes for the first line of a capture
	first, _ := in.Peek(enough)
	explain := explainDump
	if bytes.Contains(first, []byte("terminalops capture")) {
		explain = explainCapture
	}
	err := explain(out, in)
	return errors.Join(err, out.Flush())
}

// explainCapture explains the events of a capture. A frame with masked bytes means
// what was written down when it was seen: then all of it was known.
func explainCapture(w *bufio.Writer, r io.Reader) error {
	header, events, err := trace.Read(r)
	for _, row := range [][2]string{{"software", header.Software}, {"device", header.Device}, {"made", header.Made.Format("2006-01-02 15:04:05 UTC")}} {
		if row[1] != "" {
			fmt.Fprintf(w, "%-8s %s\n", row[0], trace.Mask(row[1]))
		}
	}
	for i, e := range events {
		if i == 0 || e.Lane != events[i-1].Lane {
			fmt.Fprintf(w, "\n%s\n", strings.TrimSpace("terminal "+trace.Mask(e.Lane)))
		}
		gap := 0.0
		if i > 0 {
			gap = e.At.Sub(events[i-1].At).Seconds()
		}
		when := fmt.Sprintf("%s %+8.3f  ", e.At.Format("15:04:05.000"), gap)
		if e.Bytes == "" {
			explainPart(w, when, e.Label(), "", trace.Mask(e.Meaning))
		}
		for _, p := range parseHex(e.Bytes).parts() {
			bytes, meaning := p.interpret()
			if p.masked() && e.Meaning != "" {
				meaning = trace.Mask(e.Meaning)
			}
			explainPart(w, when, e.Label(), bytes, meaning)
			when = strings.Repeat(" ", len(when))
		}
	}
	return err
}

// explainPart writes what a part is, and below it its bytes. label says who said
// it.
func explainPart(w io.Writer, when, label, bytes, meaning string) {
	label = fmt.Sprintf("%-*s", trace.LabelWidth, label)
	fmt.Fprintf(w, "%s%s  %s\n", when, label, meaning)
	if len(bytes) > len("06") { // an ACK has said it all
		fmt.Fprintf(w, "%*s  %s\n", len(when)+trace.LabelWidth, "", bytes)
	}
}

// explainDump explains hexadecimal digits. Lines that follow one another belong
// together, unless they say that they go another way.
func explainDump(w *bufio.Writer, r io.Reader) error {
	const longest = 8 << 20 // of a line, in bytes
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, longest)
	var gathered dump
	direction, found := trace.Remark, false
	explain := func() {
		for _, p := range gathered.parts() {
			bytes, meaning := p.interpret()
			label := ""
			if way := p.direction(direction); way != trace.Remark {
				label = trace.Event{Direction: way}.Label()
			}
			explainPart(w, "", label, bytes, meaning)
			found = true
		}
		gathered = dump{}
	}
	for lines.Scan() {
		d := parseHex(hexIn(lines.Text()))
		if way := directionOf(lines.Text()); len(d.b) == 0 || way != direction {
			explain()
			direction = way
		}
		gathered = dump{append(gathered.b, d.b...), append(gathered.hidden, d.hidden...)}
	}
	explain()
	if !found && lines.Err() == nil {
		return errors.New("neither a capture nor bytes in hexadecimal digits")
	}
	return lines.Err()
}

// Which way a line of somebody's log says that its bytes went.
var (
	fromTerminal = regexp.MustCompile(`(?i)\bpt\b\W*(>|→)\W*ecr\b|\b(rx|recv|received|read)\b|<-|<<|←`)
	toTerminal   = regexp.MustCompile(`(?i)\becr\b\W*(>|→)\W*pt\b|\b(tx|send|sent|write|written)\b|->|>>|→`)
)

// directionOf is trace.Remark where a line does not say it.
func directionOf(line string) trace.Direction {
	switch {
	case fromTerminal.MatchString(line):
		return trace.FromTerminal
	case toTerminal.MatchString(line):
		return trace.ToTerminal
	}
	return trace.Remark
}

var (
	// offsetLine is a line of a dump: the offset, and up to 16 bytes in pairs of
	// digits. Behind them is the same as text.
	offsetLine = regexp.MustCompile(`^\s*(?:0[xX])?[0-9A-Fa-f]{4,8}(?::\s*|\s{2,})((?:[0-9A-Fa-f]{2}\s{0,2}){1,16})(?:\s|$)`)
	clockTime  = regexp.MustCompile(`\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d(?:[.,]\d+)?`)
	hexToken   = regexp.MustCompile(`^(?:0[xX])?((?:[0-9A-Fa-f]{2}|••|\*\*|\?\?)+)$`)
)

// hexIn returns the hexadecimal digits in a line: behind the offset of a dump, else
// the longest row of them.
func hexIn(line string) string {
	if m := offsetLine.FindStringSubmatch(line); m != nil {
		return m[1]
	}
	line, _, _ = strings.Cut(line, "#")
	line = clockTime.ReplaceAllString(line, " ! ") // an exclamation mark ends a row
	line = strings.NewReplacer(": ", " ! ", "[", " ! ", "]", " ! ", "(", " ! ", ")", " ! ").Replace(line)
	var row, longest strings.Builder
	for _, word := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r,;:|-", r) }) {
		m := hexToken.FindStringSubmatch(word)
		if m == nil {
			row.Reset()
			continue
		}
		row.WriteString(m[1])
		if row.Len() > longest.Len() {
			longest.Reset()
			longest.WriteString(row.String())
		}
	}
	return longest.String()
}

// dump is bytes of which some are masked; these are masked in b, too.
type dump struct {
	b      []byte
	hidden []bool
}

// masked stands for a masked byte: it reads as an asterisk, and is no DLE.
const masked = '*'

// parseHex reads pairs of digits, whatever is between them.
func parseHex(text string) dump {
	var d dump
	text = strings.NewReplacer("••", "**", "??", "**", " ", "", "|", "").Replace(text)
	for ; len(text) >= 2; text = text[2:] {
		b, err := hex.DecodeString(text[:2])
		if err != nil {
			b = []byte{masked}
		}
		d.b, d.hidden = append(d.b, b[0]), append(d.hidden, err != nil)
	}
	return d
}

func (d dump) masked() bool { return slices.Contains(d.hidden, true) }

func (d dump) cut(from, to int) dump { return dump{d.b[from:to], d.hidden[from:to]} }

// part is something that was found in a dump: hidden are the masked bytes of the
// sight's APDU.
type part struct {
	dump
	sight  frame.Sight
	hidden []bool
}

// parts takes a dump apart. All of it is in one of them.
func (d dump) parts() []part {
	var all []part
	unknown := 0 // bytes before at of which nobody knows what they are
	for at := 0; at < len(d.b); {
		p, ok := d.cut(at, len(d.b)).first(at == 0)
		if !ok {
			unknown++
			at++
			continue
		}
		if unknown > 0 {
			all = append(all, d.cut(at-unknown, at).unknown())
			unknown = 0
		}
		all = append(all, p)
		at += len(p.b)
	}
	if unknown > 0 {
		all = append(all, d.cut(len(d.b)-unknown, len(d.b)).unknown())
	}
	return all
}

func (d dump) unknown() part {
	return part{dump: d, sight: frame.Sight{Kind: frame.Noise, Wire: d.b}}
}

// Bytes of a serial line ([S16]).
const (
	stx = 0x02
	etx = 0x03
	ack = 0x06
	dle = 0x10
	nak = 0x15
)

// first returns what a dump begins with. Only where begins is true is it believed to
// be the beginning of an APDU that goes on elsewhere.
func (d dump) first(begins bool) (part, bool) {
	size := apdu.Size(d.b)
	known := slices.Contains([]byte{0x04, 0x05, 0x06, 0x08, 0x0F, 0x80, 0x84}, d.b[0]) && !slices.Contains(d.hidden[:min(len(d.b), 3)], true)
	switch {
	case d.beginsFrame(0):
		return d.frame(), true
	case (d.b[0] == ack || d.b[0] == nak) && (len(d.b) == 1 || d.beginsFrame(1)):
		kind := frame.ACK
		if d.b[0] == nak {
			kind = frame.NAK
		}
		return part{dump: d.cut(0, 1), sight: frame.Sight{Kind: kind, Wire: d.b[:1]}}, true
	case known && size > 0 && size <= len(d.b):
		p := part{dump: d.cut(0, size), sight: frame.Sight{Wire: d.b[:size], APDU: d.b[:size]}}
		p.hidden = p.dump.hidden
		return p, true
	case known && size > 0 && begins:
		note := fmt.Sprintf("breaks off after %d of %d bytes", len(d.b), size)
		p := part{dump: d, sight: frame.Sight{Kind: frame.Broken, Wire: d.b, APDU: d.b, Note: note}}
		p.hidden = d.hidden
		return p, true
	}
	return part{}, false
}

func (d dump) beginsFrame(at int) bool {
	return len(d.b) >= at+2 && d.b[at] == dle && d.b[at+1] == stx && !d.hidden[at] && !d.hidden[at+1]
}

// frame returns the frame that a dump begins with.
func (d dump) frame() part {
	p := part{sight: frame.Sight{Kind: frame.Broken, Note: "the frame breaks off"}}
	at, end := 2, len(d.b)
	for ; at < len(d.b); at++ {
		if d.b[at] == dle && at+1 < len(d.b) && d.b[at+1] != dle {
			end = d.frameEnd(at, &p)
			break
		}
		if d.b[at] == dle {
			at++ // doubled, or the last byte
		}
		if at < len(d.b) {
			p.sight.APDU, p.hidden = append(p.sight.APDU, d.b[at]), append(p.hidden, d.hidden[at])
		}
	}
	p.dump = d.cut(0, end)
	p.sight.Wire = p.b
	if p.sight.Kind != frame.Whole {
		return p
	}
	if p.masked() {
		p.sight.Note = "CRC not checked: bytes are masked"
		if size := apdu.Size(p.sight.APDU); size != len(p.sight.APDU) || size == 0 {
			p.sight.Kind, p.sight.Note = frame.Broken, "not what its length field says"
		}
		return p
	}
	s := frame.Sights(p.b)[0]
	p.sight.Kind, p.sight.Note = s.Kind, s.Note
	if s.Kind == frame.Whole {
		p.sight.Note = "CRC right"
	}
	return p
}

// frameEnd says what a single DLE inside a frame makes of it, and where it ends.
func (d dump) frameEnd(at int, p *part) int {
	const tail = 4 // DLE ETX and the CRC
	switch next := d.b[at+1]; {
	case next == etx && at+tail <= len(d.b):
		p.sight.Kind, p.sight.Note = frame.Whole, ""
		return at + tail
	case next == etx:
		return len(d.b)
	case next == stx:
		p.sight.Note = "the frame breaks off: another one begins"
		return at
	default:
		p.sight.Note = fmt.Sprintf("DLE is followed by %02X", next)
		return at + 2
	}
}

// interpret is that of the sight. What was masked stays so.
func (p part) interpret() (bytes, meaning string) {
	s := p.sight
	if s.Kind == frame.Noise {
		return trace.Hex(s.Wire, alsoHidden(apdu.CoverUnknown(s.Wire), p.dump.hidden)), fmt.Sprintf("not understood: %d bytes", len(s.Wire))
	}
	bytes, meaning = interpret(s)
	switch s.Kind {
	case frame.Whole:
		bytes = s.Hex(alsoHidden(apdu.Cover(s.APDU), p.hidden))
	case frame.Broken:
		if len(s.APDU) > 0 {
			bytes = s.Hex(alsoHidden(apdu.CoverDamaged(s.APDU), p.hidden))
		}
	}
	return bytes, meaning
}

// alsoHidden hides what is masked already.
func alsoHidden(marks []trace.Mark, hidden []bool) []trace.Mark {
	for i := range marks {
		if hidden[i] {
			marks[i] |= trace.Hidden
		}
	}
	return marks
}

// direction is the way that a part went, if nobody said: some messages go one way
// only.
func (p part) direction(said trace.Direction) trace.Direction {
	if said != trace.Remark || len(p.sight.APDU) < 2 {
		return said
	}
	switch c := apdu.Control(p.sight.APDU[0])<<8 | apdu.Control(p.sight.APDU[1]); {
	case c>>8 == 0x80 || c>>8 == 0x84:
		return said
	case c>>8 == 0x04, c == apdu.ControlCompletion, c == apdu.ControlAbort, c == apdu.ControlPrintLine, c == apdu.ControlPrintTextBlock:
		return trace.FromTerminal
	}
	return trace.ToTerminal
}
