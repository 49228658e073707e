package apdu

import (
	"slices"

	"terminalops/device/trace"
)

// This file says which bytes of an APDU may be shown in hexadecimal digits. It is
// the rule of String, byte by byte: passwords, card data and whatever a card may
// have written are hidden, and in all other values what could be a card number, as
// text, packed, or in hexadecimal text. Classes, instructions, ids, tags and lengths
// are shown, and begin after a border: so no value runs into the next.

// Cover returns the marks of an APDU for [trace.Hex]. It is never too strict about
// the APDU: where one breaks off or cannot be read, the rest is what it could be.
func Cover(b []byte) []trace.Mark {
	c := newCover(b)
	c.message()
	return c.marks
}

// CoverDamaged returns the marks of an APDU that did not arrive as it was sent. Its
// ids may not be what they were, nor its beginning one: every byte counts as one of
// which nobody knows what it is, too.
func CoverDamaged(b []byte) []trace.Mark {
	c := newCover(b)
	c.message()
	c.fragment(0, len(b))
	return c.marks
}

// CoverUnknown returns the marks of bytes that are no APDU: what is left of one, for
// all that anybody knows.
func CoverUnknown(b []byte) []trace.Mark {
	c := newCover(b)
	c.fragment(0, len(b))
	return c.marks
}

// cover covers the bytes b.
type cover struct {
	b     []byte
	marks []trace.Mark
	lines [][2]int // from and to of texts that are lines of one text
}

func newCover(b []byte) *cover { return &cover{b: b, marks: make([]trace.Mark, len(b))} }

// headerSize is the size of control field and length of an APDU, as far as there
// is one.
func headerSize(b []byte) int {
	if len(b) > 2 && b[2] == extendedTag {
		return min(len(b), 5)
	}
	return min(len(b), 3)
}

// message covers the data by what Parse makes of it.
func (c *cover) message() {
	head := headerSize(c.b)
	if head == len(c.b) {
		return
	}
	c.border(head)
	data := c.b[head:]
	m, _ := parse(Raw{Class: c.b[0], Instr: c.b[1], Data: data}) // the length may be wrong
	if n := passwords[m.Control()]; n > 0 {
		end := min(head+n*passwordLen, len(c.b))
		c.secret(head, end)
		c.border(end)
		head = end
	}
	switch m := m.(type) {
	case Registration:
		head++
		if m.Currency != nil {
			head += 2
		}
		c.fields(head)
	case IntermediateStatus:
		head++
		if m.Timeout != nil {
			head++
		}
		c.fields(head)
	case Abort:
		head++
		if m.Currency != nil {
			head += 2
		}
		c.fields(head)
	case PrintLine:
		c.border(head + 1)
		c.cards(head+1, head+1+len(m.Text))
		c.fields(head + 1 + len(m.Text))
	case Completion:
		c.completion(m, head)
	case Raw:
		c.raw(head)
	case Nack:
		c.unknown(head, len(c.b))
	default:
		c.fields(head)
	}
	c.acrossLines()
}

// passwords is how many passwords the data of a command begins with.
var passwords = map[Control]int{
	ControlStatusEnquiry: 1, ControlRegistration: 1, ControlSendTurnoverTotals: 1, ControlRepeatReceipt: 1,
	ControlEndOfDay: 1, ControlSetDateTime: 1, ControlInitialisation: 1, ControlServiceMode: 1, ControlWriteFile: 1,
	ControlSystemInfo: 1, ControlEMVStatus: 1,
	// Others, of a till ([S15] 2).
	0x0612: 1, 0x0618: 1, 0x061B: 1, 0x0621: 1, 0x0623: 1, 0x0624: 1, 0x0625: 1, 0x0630: 1, 0x0631: 1,
	0x0695: 2, // change password: the old and the new one
	0x0812: 1, 0x0F10: 1,
}

// raw covers the data of a message nobody here knows: BMPs, BMPs behind a
// password, or anything; whatever it looks like, it may be anything.
func (c *cover) raw(at int) {
	c.unknown(at, len(c.b))
	for _, from := range []int{at, at + passwordLen} {
		if from > len(c.b) {
			break
		}
		if _, err := parseFields(c.b[from:], 0); err == nil {
			c.secret(at, from)
			c.fields(from)
			return
		}
	}
	c.secret(at, min(at+passwordLen, len(c.b)))
}

// completion covers the data of 06 0F, of which nobody says whether it answers a
// Status-Enquiry.
func (c *cover) completion(m Completion, at int) {
	const versionLen = 3
	switch m.layout() {
	case layoutFields:
		c.fields(at)
	case layoutUnread:
		c.unknown(at, len(c.b))
	case layoutStatus:
		if m.Data[0]&0xF0 == 0xF0 {
			length, _ := parseLL(m.Data, versionLen)
			from := at + versionLen
			at = from + length
			c.border(from)
			c.cards(from, at)
			c.border(at)
		}
		c.fields(at + 1) // behind the status code
	}
}

// fields covers BMPs.
func (c *cover) fields(at int) {
	for at < len(c.b) {
		c.border(at)
		id := c.b[at]
		f, n, err := parseBMP(id, c.b[at+1:])
		if err != nil {
			if kind, known := bmpKinds[id]; known && (kind.show == nil || id == BMPPAN) {
				c.secret(at+1, len(c.b))
			}
			c.unknown(at, len(c.b))
			return
		}
		end := at + 1 + n
		value := end - len(f.Data)
		c.border(value)
		c.bmp(id, value, end)
		at = end
	}
}

func (c *cover) bmp(id byte, from, to int) {
	switch {
	case id == BMPTLV:
		c.tlv(from, to, 0)
	case id == BMPPAN:
		c.pan(from, to)
	case bmpKinds[id].show == nil:
		c.secret(from, to)
	default:
		c.cards(from, to)
	}
}

// tagPassword is a password of Feig's terminals, in 08 13 (zvt.md 6, vector 41).
const tagPassword Tag = 0xFF40

// tlv covers TLV objects.
func (c *cover) tlv(from, to, depth int) {
	_, long := parseObjects(c.b[from:to], false)
	_, short := parseObjects(c.b[from:to], true)
	twoByte1F80 := long != nil && short == nil // see ParseTLV
	for at := from; at < to; {
		c.border(at)
		tag, n, err := readTag(c.b[at:to], twoByte1F80)
		if err != nil {
			c.unknown(at, to)
			return
		}
		length, head, err := readBER(c.b[at+n : to])
		value := at + n + head
		if err != nil || value+length > to {
			c.unknown(at, to)
			return
		}
		c.border(value)
		at = value + length
		switch _, known := tagNames[tag]; {
		case tag.IsContainer() && depth < maxDepth:
			c.tlv(value, at, depth+1)
		case tag == tagPassword:
			c.secret(value, at)
		case tag == TagText:
			c.lines = append(c.lines, [2]int{value, at})
			c.cards(value, at)
		case tag == TagFileBlock: // cut anywhere: half a card number is not to be recognised
			c.secret(value, at)
		case known:
			c.cards(value, at)
		default:
			c.unknown(value, at)
		}
	}
}

// border puts a border before a byte, if there is one.
func (c *cover) border(at int) {
	if at < len(c.b) {
		c.marks[at] |= trace.Border
	}
}

func (c *cover) secret(from, to int) {
	for i := from; i < to; i++ {
		c.marks[i] |= trace.Hidden
	}
}

// cards covers what could be a card number in a value.
func (c *cover) cards(from, to int) {
	trace.FindCards(c.b[from:to], func(at int) { c.marks[from+at] |= trace.Hidden })
}

// acrossLines covers a card number that goes on in the next line of a text.
func (c *cover) acrossLines() {
	var text []byte
	var at []int
	for _, line := range c.lines {
		for i := line[0]; i < line[1]; i++ {
			text, at = append(text, c.b[i]), append(at, i)
		}
		text, at = append(text, ' '), append(at, line[0])
	}
	trace.FindCardsInText(text, func(i int) { c.marks[at[i]] |= trace.Hidden })
}

// pan covers the number of a card, whatever its check digit, except the bytes with
// nothing but its first six and last four digits.
func (c *cover) pan(from, to int) {
	const first, last = 6, 4
	number := 2 * (to - from) // half bytes
	for ; number > 0 && c.half(from, number-1) == 0xF; number-- {
	}
	for i := from; i < to; i++ {
		high, low := 2*(i-from), 2*(i-from)+1
		inFirst := low < first && number > first+last
		inLast := high >= number-last && number > first+last
		if !inFirst && !inLast {
			c.marks[i] |= trace.Hidden
		}
	}
	if slices.ContainsFunc(c.b[from:to], func(b byte) bool { return b>>4 == trackSeparator || b&0xF == trackSeparator }) {
		c.secret(from, to)
	}
}

// half is half a byte: an even one is the high one of its byte.
func (c *cover) half(from, i int) byte {
	b := c.b[from+i/2]
	if i%2 == 0 {
		return b >> 4
	}
	return b & 0x0F
}

// trackSeparator stands behind the card number of tracks 2 and 3, packed.
const trackSeparator = 0xD

// unknown covers bytes of which nobody knows what they are: what could be a card
// number, and what looks like a track, from its beginning on to the end.
func (c *cover) unknown(from, to int) {
	c.cards(from, to)
	if at := findTrack(c.b[from:to]); at >= 0 {
		c.secret(from+at, to)
	}
}

// fragment covers bytes that may be a part of anything. Of a card number or a track
// that begins or ends elsewhere there is nothing to recognise but digits: no five
// bytes of them in a row are shown.
func (c *cover) fragment(from, to int) {
	const most = 4
	c.unknown(from, to)
	row := 0
	for at := from; at <= to; at++ {
		if at < to && c.b[at]>>4 <= 9 && c.b[at]&0x0F <= 9 {
			row++
			continue
		}
		if row > most {
			c.secret(at-row, at)
		}
		row = 0
	}
}

// findTrack returns where something begins that looks like a track, or -1: at the id
// of its BMP with a length, or at eight digits with a separator behind them, packed
// or as text.
func findTrack(b []byte) int {
	const least = 8
	packed, text := 0, 0 // digits in a row
	for i, c := range b {
		if lengths := trackLengths[c]; lengths > 0 && beginsWithLength(b[i+1:], lengths) {
			return i
		}
		for half, digit := range [2]byte{c >> 4, c & 0x0F} {
			switch {
			case digit <= 9:
				packed++
			case digit == trackSeparator && packed >= least:
				return (2*i + half - packed) / 2
			default:
				packed = 0
			}
		}
		switch {
		case c >= '0' && c <= '9':
			text++
		case (c == '=' || c == '^') && text >= least:
			return i - text
		default:
			text = 0
		}
	}
	return -1
}

// trackLengths are how many length digits follow the ids of tracks 2, 3 and 1.
var trackLengths = [0x100]int{0x23: 2, 0x24: 3, 0x2D: 2}

// beginsWithLength reports whether b begins with n length digits as terminals write
// them: F0 to F9.
func beginsWithLength(b []byte, n int) bool {
	if len(b) < n {
		return false
	}
	return !slices.ContainsFunc(b[:n], func(c byte) bool { return c < 0xF0 || c > 0xF9 })
}
