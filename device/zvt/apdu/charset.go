package apdu

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Charset says how the bytes of a text become characters (tags 14 and 27 of
// chapter 9.4). The zero value is CP437.
type Charset string

// The character sets. Their values are also the words of a configuration.
const (
	CP437   Charset = "cp437"       // the default for receipts and displays
	ASCII   Charset = "ascii"       // tag 14 value 00
	ZVT7Bit Charset = "zvt-7bit"    // software version: ASCII with the umlauts of DIN 66003
	UTF8    Charset = "utf-8"       // tag 14 value FE
	Latin1  Charset = "iso-8859-1"  // tag 14 value 01
	Latin2  Charset = "iso-8859-2"  // tag 14 value 02
	Latin9  Charset = "iso-8859-15" // tag 14 value 0F
	Other   Charset = "iso-8859"    // the other parts of ISO 8859: only ASCII is read
	Auto    Charset = "auto"        // UTF-8, Latin-1 or CP437, whichever the bytes look like
)

// ParseCharset reads the name of a character set.
func ParseCharset(name string) (Charset, error) {
	names := []Charset{Auto, CP437, ASCII, ZVT7Bit, UTF8, Latin1, Latin2, Latin9}
	for _, c := range names {
		if Charset(strings.ToLower(name)) == c {
			return c, nil
		}
	}
	return "", fmt.Errorf("character set %q: one of %v wanted", name, names)
}

// CharsetOf returns the character set of a value of TLV tag 14.
func CharsetOf(tag14 byte) (c Charset, ok bool) {
	switch {
	case tag14 == 0x00:
		return ASCII, true
	case tag14 == 0x01:
		return Latin1, true
	case tag14 == 0x02:
		return Latin2, true
	case tag14 == 0x0F:
		return Latin9, true
	case tag14 <= 0x10:
		return Other, true
	case tag14 == 0xFE:
		return UTF8, true
	case tag14 == 0xFF:
		return CP437, true
	}
	return "", false
}

// Decode reads a text. A byte the character set does not have becomes U+FFFD;
// blanks, control and invisible characters become spaces and dashes hyphens, one
// each, so that they cannot hide a card number from the mask or break a log line.
func (c Charset) Decode(b []byte) string {
	switch c {
	case Auto:
		return guess(b).Decode(b)
	case UTF8:
		return strings.Map(harmless, strings.ToValidUTF8(string(b), "\uFFFD"))
	}
	var s strings.Builder
	for _, x := range b {
		s.WriteRune(harmless(c.rune(x)))
	}
	return s.String()
}

// harmless is what stands for a character in a decoded text: every blank,
// control or invisible character is a space, every dash a hyphen.
func harmless(r rune) rune {
	switch {
	case r < utf8.RuneSelf && r >= ' ' && r != 0x7F:
		return r
	case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Z):
		return ' '
	case unicode.Is(unicode.Pd, r):
		return '-'
	}
	return r
}

// rune is the character of a byte in a character set of one byte each.
func (c Charset) rune(b byte) rune {
	if b < 0x80 {
		if r, ok := zvt7BitRunes[b]; ok && c == ZVT7Bit {
			return r
		}
		return rune(b)
	}
	table, from := c.table()
	if i := int(b) - from; i >= 0 && i < len(table) {
		return table[i]
	}
	return utf8.RuneError
}

// table returns the upper characters of a character set and the first byte that
// has one.
func (c Charset) table() (runes []rune, from int) {
	switch c {
	case CP437, "":
		return cp437Runes, 0x80
	case Latin1:
		return latin1Runes, 0xA0
	case Latin2:
		return latin2Runes, 0xA0
	case Latin9:
		return latin9Runes, 0xA0
	}
	return nil, 0
}

// Encode writes a text; Auto writes CP437. A character the character set does
// not have becomes '?'. It is for those who play a terminal.
func (c Charset) Encode(s string) []byte {
	if c == UTF8 {
		return []byte(s)
	}
	if c == Auto {
		c = CP437
	}
	b := make([]byte, 0, len(s))
	for _, r := range s {
		b = append(b, c.byte(r))
	}
	return b
}

// byte is the byte of a character in a character set of one byte each.
func (c Charset) byte(r rune) byte {
	for x := range 0x100 {
		if b := byte(x); c.rune(b) == r && r != utf8.RuneError {
			return b
		}
	}
	return '?'
}

// guess says which character set a text is in. Real terminals mix them within
// one dialogue: an Ingenico Lane/5000 sends displays in Latin-1 and receipts in
// CP437. A text of several valid UTF-8 bytes is UTF-8. Latin-1 has no characters
// from 80 to 9F, where CP437 has most umlauts. What is left is Latin-1 if it has
// one of the German letters of Latin-1 where a letter can be: next to another
// letter and not in a row of its kind, because C4 is a rule in CP437.
func guess(b []byte) Charset {
	if utf8.Valid(b) {
		return UTF8
	}
	german := false
	for i, x := range b {
		if x >= 0x80 && x <= 0x9F {
			return CP437
		}
		german = german || strings.IndexByte(latin1German, x) >= 0 && standsAsLetter(b, i)
	}
	if german {
		return Latin1
	}
	return CP437
}

// latin1German are the German letters of Latin-1: ä ö ü Ä Ö Ü ß.
const latin1German = "\xE4\xF6\xFC\xC4\xD6\xDC\xDF"

// standsAsLetter reports whether b[i] has a letter of ASCII beside it, and not
// itself.
func standsAsLetter(b []byte, i int) bool {
	letter := false
	for _, j := range []int{i - 1, i + 1} {
		if j < 0 || j >= len(b) {
			continue
		}
		if b[j] == b[i] {
			return false
		}
		lower := b[j] | 0x20
		letter = letter || lower >= 'a' && lower <= 'z'
	}
	return letter
}

// zvt7BitRunes are the seven characters that DIN 66003 has in place of ASCII's.
var zvt7BitRunes = map[byte]rune{'[': 'Ä', '\\': 'Ö', ']': 'Ü', '{': 'ä', '|': 'ö', '}': 'ü', '~': 'ß'}

// cp437Runes are the characters from 80 on.
var cp437Runes = []rune("" +
	"ÇüéâäàåçêëèïîìÄÅ" +
	"ÉæÆôöòûùÿÖÜ¢£¥₧ƒ" +
	"áíóúñÑªº¿⌐¬½¼¡«»" +
	"░▒▓│┤╡╢╖╕╣║╗╝╜╛┐" +
	"└┴┬├─┼╞╟╚╔╩╦╠═╬╧" +
	"╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀" +
	"αßΓπΣσµτΦΘΩδ∞φε∩" +
	"≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ")

// latin1Runes are the characters from A0 on, as in the next two.
var latin1Runes = []rune("" +
	" ¡¢£¤¥¦§¨©ª«¬-®¯" +
	"°±²³´µ¶·¸¹º»¼½¾¿" +
	"ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏ" +
	"ÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞß" +
	"àáâãäåæçèéêëìíîï" +
	"ðñòóôõö÷øùúûüýþÿ")

// latin2Runes: ISO 8859-2.
var latin2Runes = []rune("" +
	" Ą˘Ł¤ĽŚ§¨ŠŞŤŹ-ŽŻ" +
	"°ą˛ł´ľśˇ¸šşťź˝žż" +
	"ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎ" +
	"ĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢß" +
	"ŕáâăäĺćçčéęëěíîď" +
	"đńňóôőö÷řůúűüýţ˙")

// latin9Runes: ISO 8859-15.
var latin9Runes = []rune("" +
	" ¡¢£€¥Š§š©ª«¬-®¯" +
	"°±²³Žµ¶·ž¹º»ŒœŸ¿" +
	"ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏ" +
	"ÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞß" +
	"àáâãäåæçèéêëìíîï" +
	"ðñòóôõö÷øùúûüýþÿ")
