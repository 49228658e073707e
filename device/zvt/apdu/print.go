package apdu

import (
	"fmt"
	"strconv"
	"strings"

	"terminalops/device/trace"
)

// Attribute is how a line is printed, and where a receipt ends: the attribute
// byte of 06 D1 and the value of TLV 09.
type Attribute byte

const (
	AttributeNormal       Attribute = 0x00
	AttributeDoubleHeight Attribute = 0x10
	AttributeDoubleWidth  Attribute = 0x20
	AttributeCentred      Attribute = 0x40
	AttributeReserved     Attribute = 0x80 // by itself; no end of a receipt
	AttributeEnd          Attribute = 0x81 // as terminals mostly write it
	AttributeLineFeed     Attribute = 0xFF
)

// EndOfReceipt reports whether the attribute ends a receipt, or the merchant's
// part of it.
func (a Attribute) EndOfReceipt() bool {
	return a > AttributeReserved && a != AttributeLineFeed
}

// Indent is the number of columns a normal line is moved right, 0 to 15.
func (a Attribute) Indent() int {
	if a&0xF0 != 0 {
		return 0
	}
	return int(a & 0x0F)
}

// Line is one line of a receipt, its text still in bytes.
type Line struct {
	Attribute Attribute
	Bytes     []byte
}

// Text is the line's text. It is not masked.
func (l Line) Text(c Charset) string { return c.Decode(l.Bytes) }

// PrintLine is 06 D1 (3.2): one line of a receipt, or its end.
type PrintLine struct {
	Attribute Attribute
	Text      []byte // without line breaks; after AttributeLineFeed the count, none: 1
	Fields           // a BMP 06 behind the text: 1F07 receipt type [CC]
	wire
}

// parsePrintLine looks for the BMP 06 that card complete appends: the first 06
// from which the rest is exactly that. No text has a 06 in it.
func parsePrintLine(r Raw) (Message, error) {
	if err := atLeast(r, 1, "attribute"); err != nil {
		return r, err
	}
	m := PrintLine{Attribute: Attribute(r.Data[0]), Text: r.Data[1:], wire: r.wire}
	for i, c := range m.Text {
		if c == BMPTLV && isContainer(m.Text[i:]) {
			m.Fields, _ = parseFields(m.Text[i:], 0) // isContainer has read it
			m.Text = m.Text[:i:i]
			break
		}
	}
	return m, nil
}

// Lines are the lines to print: one, empty ones for line feeds, or none where
// the message only ends the receipt.
func (m PrintLine) Lines() []Line {
	switch {
	case m.Attribute == AttributeLineFeed && len(m.Text) > 0:
		return make([]Line, m.Text[0])
	case m.Attribute == AttributeLineFeed:
		return make([]Line, 1)
	case m.Attribute.EndOfReceipt() && len(m.Text) == 0:
		return nil
	}
	return []Line{{m.Attribute, m.Text}}
}

// EndOfReceipt reports whether the receipt ends with this message.
func (m PrintLine) EndOfReceipt() bool { return m.Attribute.EndOfReceipt() }

func (m PrintLine) Control() Control { return ControlPrintLine }
func (m PrintLine) Marshal() []byte {
	return m.join(m.Control(), []byte{byte(m.Attribute)}, m.Text, m.Fields.Marshal())
}
func (m PrintLine) String() string {
	return describe(m.Control(), showLines(m.Lines(), m.EndOfReceipt()), m.Fields.String())
}

// PrintTextBlock is 06 D3 (3.3): many lines of a receipt in BMP 06. A receipt can
// be split over several.
type PrintTextBlock struct {
	Fields
	wire
}

// NewPrintTextBlock makes a block of lines, of a receipt of a type, with or
// without its end.
func NewPrintTextBlock(kind ReceiptType, lines []Line, end bool) PrintTextBlock {
	var texts TLV
	attribute := AttributeNormal
	for _, l := range lines {
		if l.Attribute != attribute {
			attribute = l.Attribute
			texts = append(texts, Object{TagPrintAttribute, []byte{byte(attribute)}})
		}
		texts = append(texts, Object{TagText, l.Bytes})
	}
	if end {
		texts = append(texts, Object{TagPrintAttribute, []byte{byte(AttributeEnd)}})
	}
	return PrintTextBlock{Fields: Fields{Container(
		Object{TagReceiptType, []byte{byte(kind)}},
		Group(TagPrintTexts, texts...),
	)}}
}

// texts are the objects in the containers 25. Lines that stand outside of one,
// against the specification, are taken as well.
func (m PrintTextBlock) texts() TLV {
	var texts TLV
	for _, o := range m.TLV() {
		switch o.Tag {
		case TagPrintTexts:
			texts = append(texts, o.Children()...)
		case TagText, TagPrintAttribute:
			texts = append(texts, o)
		}
	}
	return texts
}

// Lines are the lines to print, in order. An attribute holds for the lines after
// it until the next one; FF is one line feed.
func (m PrintTextBlock) Lines() []Line {
	var lines []Line
	attribute := AttributeNormal
	for _, o := range m.texts() {
		if o.Tag == TagText {
			lines = append(lines, Line{attribute, o.Value})
			continue
		}
		a, ok := o.attribute()
		switch {
		case !ok || a.EndOfReceipt():
		case a == AttributeLineFeed:
			lines = append(lines, Line{})
		default:
			attribute = a
		}
	}
	return lines
}

// EndOfReceipt reports whether the receipt ends with this message.
func (m PrintTextBlock) EndOfReceipt() bool {
	for _, o := range m.texts() {
		if a, ok := o.attribute(); ok && a.EndOfReceipt() {
			return true
		}
	}
	return false
}

func (o Object) attribute() (Attribute, bool) {
	if o.Tag != TagPrintAttribute || len(o.Value) != 1 {
		return 0, false
	}
	return Attribute(o.Value[0]), true
}

// ReceiptType says whom a receipt is for (TLV 1F07).
type ReceiptType byte

const (
	ReceiptUnknown        ReceiptType = 0 // not told
	ReceiptMerchant       ReceiptType = 1
	ReceiptCustomer       ReceiptType = 2
	ReceiptAdministration ReceiptType = 3
)

// ReceiptType returns TLV 1F07 of a print message.
func (f Fields) ReceiptType() ReceiptType {
	if o, ok := f.TLV().Find(TagReceiptType); ok && len(o.Value) == 1 {
		return ReceiptType(o.Value[0])
	}
	return ReceiptUnknown
}

// Charset is the character set the block itself names (TLV 14), if it does.
func (m PrintTextBlock) Charset() (c Charset, ok bool) {
	o, ok := m.TLV().Find(TagCharset)
	if !ok || len(o.Value) != 1 {
		return "", false
	}
	return CharsetOf(o.Value[0])
}

func (m PrintTextBlock) Control() Control { return ControlPrintTextBlock }
func (m PrintTextBlock) Marshal() []byte  { return m.join(m.Control(), m.Fields.Marshal()) }

func (m PrintTextBlock) String() string {
	var unread string
	if tail := m.Unread(); tail != nil {
		unread = fmt.Sprintf("%d bytes not read", len(tail))
	}
	return describe(m.Control(), showLines(m.Lines(), m.EndOfReceipt()), unread)
}

// showLines shows lines masked, in one line.
func showLines(lines []Line, end bool) string {
	said := make([]string, len(lines))
	for i, l := range lines {
		said[i] = l.Text(Auto)
	}
	for i, text := range trace.MaskLines(said) { // together: one may go on in the next
		said[i] = strconv.Quote(text)
	}
	if end {
		said = append(said, "end of receipt")
	}
	return strings.Join(said, " ")
}
