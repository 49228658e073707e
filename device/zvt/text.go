package zvt

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"terminalops/device/trace"
	"terminalops/device/zvt/apdu"
)

// currencyNames are those of the countries where ZVT terminals are, by their
// ISO 4217 numbers.
var currencyNames = map[int]string{
	203: "CZK", 208: "DKK", 348: "HUF", 578: "NOK", 752: "SEK", 756: "CHF",
	826: "GBP", 840: "USD", 946: "RON", 975: "BGN", 978: "EUR", 985: "PLN",
}

// currencyName is the alphabetic name of a currency, or its number.
func currencyName(c apdu.Currency) string {
	n, ok := c.Number()
	if name, known := currencyNames[n]; ok && known {
		return name
	}
	return c.String()
}

// plain makes one line of a text for people.
func plain(s string) string { return trace.Mask(strings.Join(strings.Fields(s), " ")) }

// statusText is the status of a terminal as a file for people.
func statusText(s apdu.Status) []byte {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-18s%s\n", name, value)
		}
	}
	line("status", fmt.Sprintf("%02X %v", byte(s.Code), s.Code))
	line("software version", plain(s.SoftwareVersion))
	if tid, ok := s.TID(); ok {
		line("terminal id", plain(tid))
	}
	for _, o := range s.TLV() {
		line("detail", plain(o.String()))
	}
	return []byte(b.String())
}

// A file is masked in pieces of maskPiece bytes, each looked at with maskAround
// more on both sides: so no card number is cut, and the memory for it is small. A
// file of zeros is one run of digits. Written in hexadecimal, in UTF-16, with
// blanks, a card number is longest.
const (
	maskPiece  = 64 << 10
	maskAround = 1024
)

// maskFile masks a file of a terminal: a text by its lines, any other file also
// where it has packed digits.
func maskFile(content []byte) []byte {
	mask := trace.MaskBytes
	if isText(content) || isUTF16(content) {
		mask = func(piece []byte) []byte { return []byte(trace.Mask(string(piece))) }
	}
	masked := make([]byte, 0, len(content))
	for from := 0; from < len(content); from += maskPiece {
		to := min(from+maskPiece, len(content))
		start, end := max(from-maskAround, 0), min(to+maskAround, len(content))
		masked = append(masked, mask(content[start:end])[from-start:to-start]...)
	}
	return masked
}

// isText reports whether a file is a text, in whatever character set of bytes.
// Such files have no control characters but those that move the cursor.
func isText(content []byte) bool {
	if utf8.Valid(content) {
		return bytes.IndexFunc(content, isBinary) < 0
	}
	for _, c := range content {
		if isBinary(rune(c)) {
			return false
		}
	}
	return true
}

// isUTF16 reports whether a file is a text in UTF-16, of whatever byte order:
// three of four characters are Latin, so that every other byte is zero.
func isUTF16(content []byte) bool {
	var zeros [2]int
	for i, c := range content {
		switch {
		case c == 0:
			zeros[i%2]++
		case isBinary(rune(c)):
			return false
		}
	}
	return min(zeros[0], zeros[1]) == 0 && 8*max(zeros[0], zeros[1]) > 3*len(content)
}

func isBinary(r rune) bool {
	return r < ' ' && !strings.ContainsRune("\t\n\v\f\r\x1B", r)
}
