package apdu

import (
	"fmt"
	"strings"

	"terminalops/device/trace"
)

// format is how the length of a BMP is known.
type format string

const (
	fixed  format = "fixed"
	llvar  format = "LLVAR"  // two length digits
	lllvar format = "LLLVAR" // three length digits
	berLen format = "BER"    // a length as in TLV
)

// bmpKind is a line of the table of BMPs (3.3).
type bmpKind struct {
	format format
	size   int // of fixed
	name   string
	show   func([]byte) string // nil: only the length is shown
}

// How values are shown. Everything a card may have written, and everything
// nobody here knows, has no such function and shows only its length.
func showDigits(b []byte) string { return trace.Mask(digits(b)) }
func showCode(b []byte) string   { return Code(b[0]).Error() }
func showText(b []byte) string {
	return trace.Mask(strings.TrimSpace(CP437.Decode([]byte(strings.TrimRight(string(b), "\x00")))))
}

func showNumber(b []byte) string {
	if n, ok := parseBCD(b); ok {
		return fmt.Sprint(n)
	}
	return showDigits(b)
}

func showTime(b []byte) string {
	if t, ok := parseTime(b); ok {
		return t.String()
	}
	return showDigits(b)
}

func showDate(b []byte) string {
	if d, ok := parseDate(b); ok {
		return d.String()
	}
	return showDigits(b)
}

func showCurrency(b []byte) string { return (Currency(b[0])<<8 | Currency(b[1])).String() }

func showTotals(b []byte) string {
	t, err := parseTotals(b)
	if err != nil {
		return err.Error()
	}
	return t.String()
}

// showPAN shows the first six and last four digits, as trace.Mask does, but also
// of a number whose check digit is wrong. ZVT packs the digits, with E for a
// masked one and F at the end for an odd number of them. A track, which has a D,
// shows nothing.
func showPAN(b []byte) string {
	const first, last = 6, 4
	pan := strings.ReplaceAll(strings.TrimRight(digits(b), "F"), "E", "*")
	if len(pan) <= first+last || strings.Contains(pan, "D") {
		return strings.Repeat("*", len(pan))
	}
	return pan[:first] + strings.Repeat("*", len(pan)-first-last) + pan[len(pan)-last:]
}

// bmpKinds is the whole table of 3.3. The format of 92 is uncertain.
var bmpKinds = makeKinds(map[byte]bmpKind{
	0x01: {fixed, 1, "timeout", showDigits},
	0x02: {fixed, 1, "max. status informations", showDigits},
	0x03: {fixed, 1, "service byte", showDigits},
	0x04: {fixed, 6, "amount", showNumber},
	0x05: {fixed, 1, "pump", showDigits},
	0x06: {berLen, 0, "TLV", func(b []byte) string { t, _ := ParseTLV(b); return t.String() }},
	0x0B: {fixed, 3, "trace", showDigits},
	0x0C: {fixed, 3, "time", showTime},
	0x0D: {fixed, 2, "date", showDate},
	0x0E: {fixed, 2, "expiry date", nil},
	0x17: {fixed, 2, "card sequence number", nil},
	0x19: {fixed, 1, "status byte", showDigits},
	0x22: {llvar, 0, "PAN", showPAN},
	0x23: {llvar, 0, "track 2", nil},
	0x24: {lllvar, 0, "track 3", nil},
	0x27: {fixed, 1, "result", showCode},
	0x29: {fixed, 4, "TID", showDigits},
	0x2A: {fixed, 15, "VU number", showText},
	0x2D: {llvar, 0, "track 1", nil},
	0x2E: {lllvar, 0, "chip data", nil},
	0x37: {fixed, 3, "original trace", showDigits},
	0x3A: {fixed, 2, "CVV/CVC", nil},
	0x3B: {fixed, 8, "authorisation attribute", nil},
	0x3C: {lllvar, 0, "text", showText},
	0x3D: {fixed, 3, "password", nil},
	0x49: {fixed, 2, "currency", showCurrency},
	0x4C: {llvar, 0, "blocked goods groups", nil},
	0x60: {lllvar, 0, "totals", showTotals},
	0x70: {fixed, 4, "display image", nil},
	0x71: {fixed, 4, "display image size", nil},
	0x87: {fixed, 2, "receipt", showDigits},
	0x88: {fixed, 3, "turnover record", showDigits},
	0x8A: {fixed, 1, "card type", showDigits},
	0x8B: {llvar, 0, "card name", showText},
	0x8C: {fixed, 1, "card type of the network operator", showDigits},
	0x92: {lllvar, 0, "AID parameter offline", nil},
	0x9A: {lllvar, 0, "Geldkarte record", nil},
	0xA0: {fixed, 1, "result AS", showDigits},
	0xA7: {llvar, 0, "EF_ID", nil},
	0xAA: {fixed, 3, "date", showDate},
	0xAF: {lllvar, 0, "EF_Info", nil},
	0xBA: {fixed, 5, "AID parameter", nil},
	0xD0: {fixed, 1, "algorithm key", nil},
	0xD1: {llvar, 0, "PIN data", nil},
	0xD2: {fixed, 1, "card output direction", showDigits},
	0xD3: {fixed, 1, "DUKPT key id", nil},
	0xE0: {fixed, 1, "min. input length", showDigits},
	0xE9: {fixed, 1, "max. input length", showDigits},
	0xEA: {fixed, 1, "echo", showDigits},
	0xEB: {fixed, 8, "MAC", nil},
	0xF0: {fixed, 1, "display duration", showDigits},
})

// makeKinds adds the numbered rows of the table.
func makeKinds(kinds map[byte]bmpKind) map[byte]bmpKind {
	rows := func(from, to byte, kind bmpKind) {
		for id := from; id <= to; id++ {
			kinds[id] = kind
		}
	}
	rows(0x72, 0x75, bmpKind{fixed, 1, "display image", nil})
	rows(0xE1, 0xE8, bmpKind{llvar, 0, "text", showText})
	rows(0xF1, 0xF8, bmpKind{llvar, 0, "text", showText})
	rows(0xF9, 0xFD, bmpKind{fixed, 1, "input control", nil})
	return kinds
}

// readLength reads the length from the bytes after the id: the length of the
// value, and of the length itself.
func (k bmpKind) readLength(b []byte) (length, head int, err error) {
	switch k.format {
	case fixed:
		return k.size, 0, nil
	case berLen:
		return readBER(b)
	}
	head = k.lengthDigits()
	if len(b) < head {
		return 0, 0, fmt.Errorf("%d length bytes wanted, %d left", head, len(b))
	}
	length, ok := parseLL(b, head)
	switch {
	case !ok && k.show == nil: // these bytes may be the card's
		return 0, 0, fmt.Errorf("%d length digits wanted, something else found", head)
	case !ok:
		return 0, 0, fmt.Errorf("length digits wanted, % X found", b[:head])
	}
	return length, head, nil
}

// appendLength writes the length bytes.
func (k bmpKind) appendLength(b []byte, length int) []byte {
	switch k.format {
	case fixed:
		return b
	case berLen:
		return appendBER(b, length)
	}
	return appendLL(b, length, k.lengthDigits())
}

func (k bmpKind) lengthDigits() int {
	if k.format == lllvar {
		return 3
	}
	return 2
}

// String describes the BMPs for people: "amount 2600, time 10:59:37".
func (f Fields) String() string {
	said := make([]string, len(f))
	for i, e := range f {
		said[i] = e.String()
	}
	return strings.Join(said, ", ")
}

// String is the name of the BMP and its value, or only its length where the
// value may be card data or is unknown.
func (e BMP) String() string {
	kind, known := bmpKinds[e.ID]
	switch {
	case e.Unread:
		return fmt.Sprintf("BMP %02X and %d bytes not read", e.ID, len(e.Data))
	case !known:
		return fmt.Sprintf("BMP %02X (%d bytes)", e.ID, len(e.Data))
	case kind.show == nil || kind.format == fixed && len(e.Data) != kind.size:
		return fmt.Sprintf("%s (%d bytes)", kind.name, len(e.Data))
	}
	return kind.name + " " + kind.show(e.Data)
}
