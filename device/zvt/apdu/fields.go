package apdu

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Fields is the list of a message's BMPs, in the order on the wire. An id may
// occur more than once; the readers below take the first.
type Fields []BMP

// BMP is one element of a message: an id and its value.
type BMP struct {
	ID   byte
	Data []byte // the value, without length bytes

	// Unread: the id is unknown, or the bytes after it do not fit it. Data is
	// all that follows the id, and this is the last BMP of its list.
	Unread bool

	length []byte // the length bytes, where they are not as Marshal writes them
}

// Ids of BMPs (3.3), as far as code asks for them.
const (
	BMPTimeout       = 0x01
	BMPServiceByte   = 0x03
	BMPAmount        = 0x04
	BMPTLV           = 0x06
	BMPTrace         = 0x0B
	BMPTime          = 0x0C
	BMPDate          = 0x0D // month and day
	BMPStatusByte    = 0x19
	BMPPAN           = 0x22
	BMPResultCode    = 0x27
	BMPTID           = 0x29
	BMPVUNumber      = 0x2A
	BMPText          = 0x3C
	BMPCurrency      = 0x49
	BMPTotals        = 0x60
	BMPReceiptNumber = 0x87
	BMPTurnoverRec   = 0x88
	BMPCardName      = 0x8B
	BMPFullDate      = 0xAA // with the year
)

// parseFields reads the BMPs of data, which begins at the message's data byte
// base. What cannot be read is kept as one Unread BMP at the end; the error is
// the first one met.
func parseFields(data []byte, base int) (Fields, error) {
	var fields Fields
	var first error
	for at := 0; at < len(data); {
		id, rest := data[at], data[at+1:]
		f, n, err := parseBMP(id, rest)
		if err == nil && id == BMPTLV {
			err = checkTLV(f.Data, 1)
		}
		if err != nil && first == nil {
			first = fmt.Errorf("BMP %02X at offset %d: %w", id, base+at, err)
		}
		fields = append(fields, f)
		at += 1 + n
	}
	return fields, first
}

// parseBMP reads the BMP id from rest and says how many bytes of rest it took.
// With an error from here the BMP is Unread and took everything.
func parseBMP(id byte, rest []byte) (BMP, int, error) {
	unread := BMP{ID: id, Data: rest, Unread: true}
	kind, known := bmpKinds[id]
	if !known {
		return unread, len(rest), fmt.Errorf("unknown, with the %d bytes behind it", len(rest))
	}
	length, head, err := kind.readLength(rest)
	if err != nil {
		return unread, len(rest), err
	}
	if left := len(rest) - head; left < length {
		return unread, len(rest), fmt.Errorf("length %d wanted, %d bytes left", length, left)
	}
	f := BMP{ID: id, Data: rest[head : head+length]}
	if !bytes.Equal(kind.appendLength(nil, length), rest[:head]) {
		f.length = rest[:head]
	}
	return f, head + length, nil
}

// Marshal gives the bytes of the list. It panics if a value does not fit its
// id's format.
func (f Fields) Marshal() []byte {
	var b []byte
	for _, e := range f {
		b = e.append(b)
	}
	return b
}

func (e BMP) append(b []byte) []byte {
	b = append(b, e.ID)
	if e.Unread {
		return append(b, e.Data...)
	}
	kind, known := bmpKinds[e.ID]
	if !known || kind.format == fixed && len(e.Data) != kind.size {
		panic(fmt.Sprintf("apdu: BMP %02X cannot hold %d bytes", e.ID, len(e.Data)))
	}
	if e.length != nil {
		b = append(b, e.length...)
	} else {
		b = kind.appendLength(b, len(e.Data))
	}
	return append(b, e.Data...)
}

// Get returns the value of BMP id.
func (f Fields) Get(id byte) (value []byte, ok bool) {
	for _, e := range f {
		if e.ID == id && !e.Unread {
			return e.Data, true
		}
	}
	return nil, false
}

// Unread returns the tail that could not be read, from its id on; nil if
// everything could.
func (f Fields) Unread() []byte {
	if n := len(f); n > 0 && f[n-1].Unread {
		return f[n-1:].Marshal()
	}
	return nil
}

// Byte returns the value of a BMP of one byte.
func (f Fields) Byte(id byte) (value byte, ok bool) {
	v, _ := f.Get(id)
	if len(v) != 1 {
		return 0, false
	}
	return v[0], true
}

// Number returns the value of a BMP of packed digits, such as BMPTrace.
func (f Fields) Number(id byte) (n int64, ok bool) {
	v, ok := f.Get(id)
	if !ok {
		return 0, false
	}
	return parseBCD(v)
}

// ServiceByte returns BMP 03; its meaning depends on the command.
func (f Fields) ServiceByte() (b byte, ok bool) { return f.Byte(BMPServiceByte) }

// Result returns BMP 27.
func (f Fields) Result() (c Code, ok bool) {
	b, ok := f.Byte(BMPResultCode)
	return Code(b), ok
}

// Amount returns BMP 04, in minor units.
func (f Fields) Amount() (minor int64, ok bool) { return f.Number(BMPAmount) }

// Currency returns BMP 49.
func (f Fields) Currency() (c Currency, ok bool) {
	v, ok := f.Get(BMPCurrency)
	if !ok {
		return 0, false
	}
	return Currency(binary.BigEndian.Uint16(v)), true
}

// TID returns the eight digits of BMP 29, or else of TLV 1F44.
func (f Fields) TID() (tid string, ok bool) {
	if v, ok := f.Get(BMPTID); ok {
		return digits(v), true
	}
	o, ok := f.TLV().Find(TagTID)
	return digits(o.Value), ok
}

// Time returns BMP 0C, or else the time of TLV 2E{1F0F}.
func (f Fields) Time() (t Time, ok bool) {
	if v, found := f.Get(BMPTime); found {
		if t, ok = parseTime(v); ok {
			return t, true
		}
	}
	return f.TLV().Time(TagTimestamp)
}

// Date returns the date, from the source that says most: BMP AA or TLV 2E{1F0E}
// with the year, else BMP 0D without.
func (f Fields) Date() (d Date, ok bool) {
	if v, found := f.Get(BMPFullDate); found {
		if d, ok = parseDate(v); ok {
			return d, true
		}
	}
	if d, ok = f.TLV().Date(TagTimestamp); ok {
		return d, true
	}
	if v, found := f.Get(BMPDate); found {
		return parseDate(v)
	}
	return Date{}, false
}

// TLV returns the objects of BMP 06; of a broken container those before the
// break.
func (f Fields) TLV() TLV {
	v, _ := f.Get(BMPTLV)
	t, _ := ParseTLV(v) // Parse has said what is wrong with it
	return t
}

// Manufacturer returns the maker's error code (TLV 1F16) as hexadecimal digits
// and its text (TLV 1F17, always CP437), both empty if not told. Both occur in
// 04 0F and 06 1E.
func (f Fields) Manufacturer() (code, text string) {
	t := f.TLV()
	if o, ok := t.Find(TagManufacturerCode); ok {
		code = digits(o.Value)
	}
	if o, ok := t.Find(TagManufacturerText); ok {
		text = o.Text(CP437)
	}
	return code, text
}

// Files returns the file containers (TLV 2D) of BMP 06.
func (f Fields) Files() []File { return f.TLV().Files() }

// Makers of BMPs, for literals of Fields.

// ServiceByte makes BMP 03.
func ServiceByte(b byte) BMP { return BMP{ID: BMPServiceByte, Data: []byte{b}} }

// Result makes BMP 27.
func Result(c Code) BMP { return BMP{ID: BMPResultCode, Data: []byte{byte(c)}} }

// Number makes a BMP of packed digits: an amount, a trace number. It panics if
// the BMP has no fixed length or n does not fit.
func Number(id byte, n int64) BMP {
	kind := bmpKinds[id]
	if kind.format != fixed {
		panic(fmt.Sprintf("apdu: BMP %02X holds no number", id))
	}
	return BMP{ID: id, Data: bcd(n, kind.size)}
}

// Amount makes BMP 04 of an amount in minor units.
func Amount(minor int64) BMP { return Number(BMPAmount, minor) }

// CurrencyCode makes BMP 49.
func CurrencyCode(c Currency) BMP { return BMP{ID: BMPCurrency, Data: c.bytes()} }

// TID makes BMP 29 of a terminal id of up to eight digits.
func TID(n int64) BMP { return Number(BMPTID, n) }

// ClockTime makes BMP 0C.
func ClockTime(t Time) BMP { return BMP{ID: BMPTime, Data: t.bytes()} }

// MonthDay makes BMP 0D, the date without its year.
func MonthDay(d Date) BMP { return Number(BMPDate, int64(d.Month*100+d.Day)) }

// FullDate makes BMP AA, the date with the last two digits of its year.
func FullDate(d Date) BMP { return Number(BMPFullDate, int64(d.Year%100*10000+d.Month*100+d.Day)) }

// Container makes BMP 06 of TLV objects; without any it is empty, which in a
// registration permits the terminal to send TLV.
func Container(objects ...Object) BMP { return BMP{ID: BMPTLV, Data: TLV(objects).Marshal()} }
