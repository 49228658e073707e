package apdu

import (
	"fmt"
	"strings"
)

// Totals is BMP 60 of an end of day (2.16): the range of receipts, and seven
// groups of cards in a fixed order.
type Totals struct {
	// FirstReceipt and LastReceipt have four digits. In an empty batch the first
	// may be above the last.
	FirstReceipt, LastReceipt int
	Groups                    [7]CardGroup
}

// CardGroup is one group of cards in BMP 60.
type CardGroup struct {
	Count  int   // 0 to 255; the terminal has one byte for it, which may overflow
	Amount int64 // minor units
}

// GroupNames are the names of Totals.Groups. The last is all other cards.
var GroupNames = [7]string{"girocard", "JCB", "Mastercard", "American Express", "VISA", "Diners", "other"}

const (
	receiptLen = 2
	groupLen   = 1 + 6
	totalsLen  = 2*receiptLen + len(GroupNames)*groupLen
)

// Totals reads BMP 60. ok is false where there is none or it is of another
// shape; the error then says which.
func (f Fields) Totals() (t Totals, ok bool, err error) {
	v, ok := f.Get(BMPTotals)
	if !ok {
		return Totals{}, false, nil
	}
	t, err = parseTotals(v)
	return t, err == nil, err
}

func parseTotals(b []byte) (Totals, error) {
	if len(b) != totalsLen {
		return Totals{}, fmt.Errorf("BMP 60: %d bytes wanted, %d found", totalsLen, len(b))
	}
	first, ok1 := parseBCD(b[:receiptLen])
	last, ok2 := parseBCD(b[receiptLen : 2*receiptLen])
	if !ok1 || !ok2 {
		return Totals{}, fmt.Errorf("BMP 60: receipt numbers: decimal digits wanted, %X found", b[:2*receiptLen])
	}
	t := Totals{FirstReceipt: int(first), LastReceipt: int(last)}
	for i := range t.Groups {
		group := b[2*receiptLen+i*groupLen:][:groupLen]
		amount, ok := parseBCD(group[1:])
		if !ok {
			return Totals{}, fmt.Errorf("BMP 60: amount of %s: decimal digits wanted, %X found", GroupNames[i], group[1:])
		}
		t.Groups[i] = CardGroup{Count: int(group[0]), Amount: amount}
	}
	return t, nil
}

// BMP makes BMP 60. It panics if a number does not fit.
func (t Totals) BMP() BMP {
	b := appendBCD(nil, int64(t.FirstReceipt), receiptLen)
	b = appendBCD(b, int64(t.LastReceipt), receiptLen)
	for _, g := range t.Groups {
		if g.Count < 0 || g.Count > 0xFF {
			panic(fmt.Sprintf("apdu: count %d does not fit in a byte", g.Count))
		}
		b = appendBCD(append(b, byte(g.Count)), g.Amount, groupLen-1)
	}
	return BMP{ID: BMPTotals, Data: b}
}

// Sum is the count and the amount (minor units) of all groups.
func (t Totals) Sum() (count int, amount int64) {
	for _, g := range t.Groups {
		count += g.Count
		amount += g.Amount
	}
	return count, amount
}

// String describes the totals for people: "receipts 0068-0071, girocard 4/2600".
func (t Totals) String() string {
	said := []string{fmt.Sprintf("receipts %04d-%04d", t.FirstReceipt, t.LastReceipt)}
	for i, g := range t.Groups {
		if g != (CardGroup{}) {
			said = append(said, fmt.Sprintf("%s %d/%d", GroupNames[i], g.Count, g.Amount))
		}
	}
	return "{" + strings.Join(said, ", ") + "}"
}
