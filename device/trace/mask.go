package trace

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Card numbers (ISO/IEC 7812) have 13 to 19 digits, the last of which makes
// the Luhn sum a multiple of ten.
const (
	minDigits = 13
	maxDigits = 19
	keepFirst = 6 // PCI DSS 3.4: at most the first six
	keepLast  = 4 // and the last four may be shown
)

// Mask replaces the inner digits of everything in text that could be a card
// number by '*': every run of 13 to 19 digits whose Luhn sum is right, also
// inside a longer run. Blanks and dashes may stand between the digits, and NUL,
// which is between them in UTF-16. The digits may also be written in hexadecimal,
// as in "34 31 31 31" for 4111. A number that is no card may be masked, too. The
// length of text stays the same. Line breaks end a run.
func Mask(text string) string {
	if countDigits(text) < minDigits {
		return text
	}
	b := []byte(text)
	findInText([]byte(text), func(at int) { b[at] = '*' })
	return string(b)
}

// MaskLines masks lines, also a number that goes on in the next one.
func MaskLines(lines []string) []string {
	masked := Mask(strings.Join(lines, " ")) // as long as before
	split := make([]string, len(lines))
	for i, line := range lines {
		split[i] = masked[:len(line)]
		masked = masked[min(len(line)+1, len(masked)):]
	}
	return split
}

// MaskBytes is Mask for bytes of any kind. In them card numbers may stand as
// packed digits (BCD), too: a masked one becomes E, as ZVT writes it. That can
// hit what is no card number. A damaged file is better than one that shows a card.
func MaskBytes(content []byte) []byte {
	masked := slices.Clone(content)
	findInText(content, func(at int) { masked[at] = '*' })
	packed := func(at int) {
		if high := at%2 == 0; high {
			masked[at/2] |= 0xE0
			masked[at/2] &^= 0x10
		} else {
			masked[at/2] |= 0x0E
			masked[at/2] &^= 0x01
		}
	}
	// An asterisk has a digit, too, with which those beside it could be a number.
	starred := slices.Clone(masked)
	findPacked(starred, packed)
	findPacked(content, func(at int) {
		if masked[at/2] != '*' {
			packed(at)
		}
	})
	return masked
}

// FindCards calls hide with the positions of all bytes that show an inner digit
// of what could be a card number: as text, in hexadecimal, as in Mask, or packed.
// For who shows bytes in hexadecimal, where all three can be read.
func FindCards(b []byte, hide func(at int)) {
	findInText(b, hide)
	findPacked(b, func(at int) { hide(at / 2) })
}

// FindCardsInText is FindCards for bytes that are text.
func FindCardsInText(b []byte, hide func(at int)) { findInText(b, hide) }

func countDigits(text string) int {
	n := 0
	for i := range len(text) {
		if isDigit(text[i]) {
			n++
		}
	}
	return n
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// run is a row of digits that could hold card numbers. It remembers no more of
// them than a card number has: a file of zeros is one run.
type run struct {
	n    int // digits so far
	last [lookBack]struct {
		from, to  int // where it stands: a position, or two
		odd, even int // see luhn
	} // at their number modulo lookBack
}

// lookBack is more than maxDigits.
const lookBack = 32

// add takes the next digit, which stands at one position, or at two.
//
// Of each window that could be a card number and ends with it the inner digits
// are hidden, however windows lie in each other or across: each by itself could be
// the one.
func (r *run) add(digit byte, from, to int, hide func(at int)) {
	once, twice := int(digit), 2*int(digit)
	if twice > 9 {
		twice -= 9
	}
	if r.n%2 == 1 {
		once, twice = twice, once
	}
	before, next := r.last[r.n%lookBack], &r.last[(r.n+1)%lookBack]
	next.from, next.to = from, to
	next.even, next.odd = before.even+once, before.odd+twice
	r.n++
	for n := minDigits; n <= min(maxDigits, r.n); n++ {
		if r.luhn(n) {
			r.hide(r.n-n+keepFirst, r.n-keepLast, hide)
		}
	}
}

// luhn reports whether the Luhn sum (ISO/IEC 7812-1, annex B) of the last n digits
// is right: from the last one on, every other one counts double. Which these are
// depends on where a window ends, so all digits are added up in both ways: odd is
// the sum with those doubled that stand at odd places, counted from one.
func (r *run) luhn(n int) bool {
	end, begin := r.last[r.n%lookBack], r.last[(r.n-n)%lookBack]
	if r.n%2 == 1 {
		return (end.even-begin.even)%10 == 0
	}
	return (end.odd-begin.odd)%10 == 0
}

// hide hides the digits from one on, up to another, counted from zero.
func (r *run) hide(from, to int, hide func(at int)) {
	for i := from; i < to; i++ {
		at := r.last[(i+1)%lookBack]
		hide(at.from)
		if at.to != at.from {
			hide(at.to)
		}
	}
}

// end ends the run. Sums are only ever subtracted: they may go on.
func (r *run) end() { r.n = 0 }

// findInText finds digits as text and in hexadecimal.
func findInText(b []byte, hide func(at int)) {
	var r run
	for at := 0; at < len(b); {
		if isDigit(b[at]) {
			r.add(b[at]-'0', at, at, hide)
			at++
			continue
		}
		n := between(b[at:])
		if n == 0 {
			r.end()
			n = 1
		}
		at += n
	}
	findHex(b, hide)
}

// between is the size of a character that may stand between the digits of a
// number, 0 if b begins with another one.
func between(b []byte) int {
	switch c := b[0]; {
	case c == ' ' || c == '-' || c == '\t' || c == 0:
		return 1
	case c < utf8.RuneSelf:
		return 0
	}
	const noBreakSpace, softHyphen, noBreakSpaceCP437 = 0xA0, 0xAD, 0xFF
	r, n := utf8.DecodeRune(b)
	switch {
	case r == utf8.RuneError && (b[0] == noBreakSpace || b[0] == softHyphen || b[0] == noBreakSpaceCP437):
		return 1
	case r != utf8.RuneError && unicode.In(r, unicode.Zs, unicode.Pd, unicode.Cf):
		return n
	}
	return 0
}

// findPacked finds packed digits, of which two make a byte. Positions count the
// half bytes.
func findPacked(b []byte, hide func(at int)) {
	var r run
	for i, c := range b {
		for half, digit := range [2]byte{c >> 4, c & 0x0F} {
			if digit > 9 {
				r.end()
				continue
			}
			r.add(digit, 2*i+half, 2*i+half, hide)
		}
	}
}

// findHex finds digits that are written in hexadecimal: 34 for 4. Where such a text
// begins nobody tells, so each two neighbours are taken for a character: those that
// begin at an even place make one text, the others another.
func findHex(b []byte, hide func(at int)) {
	var texts [2]run
	var before struct {
		value byte
		at    int
	}
	n := 0 // hexadecimal digits so far
	for i, c := range b {
		value, ok := hexValue(c)
		switch {
		case ok:
			if n > 0 {
				texts[n%2].addCharacter(before.value<<4|value, before.at, i, hide)
			}
			n++
			before.value, before.at = value, i
		case n > 0 && (c == 'x' || c == 'X') && b[i-1] == '0':
			n-- // that was the 0 of 0x
		case !strings.ContainsRune(" \t-:,|;\x00", rune(c)):
			texts[0].end()
			texts[1].end()
			n = 0
		}
	}
}

// addCharacter takes the next character of a text, which may be a digit.
func (r *run) addCharacter(c byte, from, to int, hide func(at int)) {
	switch {
	case isDigit(c):
		r.add(c-'0', from, to, hide)
	case c != ' ' && c != '-' && c != 0:
		r.end()
	}
}

func hexValue(c byte) (byte, bool) {
	switch {
	case isDigit(c):
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
