package apdu

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// parseBCD reads packed decimal digits, the highest first. It reports whether
// all halves are decimal and the number fits.
func parseBCD(b []byte) (int64, bool) {
	if len(b) > 9 { // 18 digits fit in an int64
		return 0, false
	}
	var n int64
	for _, c := range b {
		hi, lo := c>>4, c&0x0F
		if hi > 9 || lo > 9 {
			return 0, false
		}
		n = n*100 + int64(hi)*10 + int64(lo)
	}
	return n, true
}

// appendBCD writes n as size bytes of packed decimal digits.
func appendBCD(b []byte, n int64, size int) []byte {
	digits := fmt.Sprintf("%0*d", 2*size, n)
	packed, err := hex.DecodeString(digits)
	if n < 0 || err != nil || len(packed) != size {
		panic(fmt.Sprintf("apdu: %d does not fit in %d BCD bytes", n, size))
	}
	return append(b, packed...)
}

func bcd(n int64, size int) []byte { return appendBCD(nil, n, size) }

// digits writes packed digits as they stand, also where they are not decimal.
func digits(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

// parseUint reads a binary number of variable length, the highest byte first.
func parseUint(b []byte) (uint64, bool) {
	if len(b) == 0 || len(b) > 8 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n, true
}

// minimalUint writes n in as few bytes as possible, at least one.
func minimalUint(n uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, n)
	for len(b) > 1 && b[0] == 0 {
		b = b[1:]
	}
	return b
}

// parseLL reads the length digits of LLVAR (n = 2) or LLLVAR (n = 3); chapter 9.
func parseLL(b []byte, n int) (length int, ok bool) {
	for _, c := range b[:n] {
		digit := int(c & 0x0F)
		if digit > 9 {
			return 0, false
		}
		length = length*10 + digit
	}
	return length, true
}

// appendLL writes the length digits of LLVAR or LLLVAR.
func appendLL(b []byte, length, n int) []byte {
	s := fmt.Sprintf("%0*d", n, length)
	if len(s) != n {
		panic(fmt.Sprintf("apdu: %d bytes do not fit in a length of %d digits", length, n))
	}
	for _, c := range []byte(s) {
		b = append(b, 0xF0|(c-'0'))
	}
	return b
}

const passwordLen = 3

// Password is the six digits that most commands of administration begin with,
// packed. The zero value is 000000, which most terminals have.
type Password [passwordLen]byte

// ParsePassword reads six decimal digits.
func ParsePassword(s string) (Password, error) {
	var p Password
	if len(s) != 2*passwordLen || strings.Trim(s, "0123456789") != "" {
		return Password{}, fmt.Errorf("password: six decimal digits wanted")
	}
	_, err := hex.Decode(p[:], []byte(s))
	return p, err
}

// Password prints as dots, with whatever verb.
func (p Password) Format(f fmt.State, _ rune) { fmt.Fprint(f, "••••••") }

// String is dots, too: a password is never shown.
func (p Password) String() string { return "••••••" }

func (p Password) describe() string { return "password " + p.String() }

// Currency is an ISO 4217 number as the two packed bytes that ZVT has for it:
// the digits of 0x0978 are those of the euro's 978.
type Currency uint16

// EUR is the euro.
const EUR Currency = 0x0978

// NewCurrency packs an ISO 4217 number, 0 to 999.
func NewCurrency(number int) (Currency, error) {
	if number < 0 || number > 999 {
		return 0, fmt.Errorf("currency %d: an ISO 4217 number from 0 to 999 wanted", number)
	}
	return Currency(binary.BigEndian.Uint16(bcd(int64(number), 2))), nil
}

// Number is the ISO 4217 number; ok is false where the bytes are not decimal.
func (c Currency) Number() (number int, ok bool) {
	n, ok := parseBCD(c.bytes())
	return int(n), ok
}

func (c Currency) bytes() []byte { return binary.BigEndian.AppendUint16(nil, uint16(c)) }

// String is "EUR" for the euro, the three digits for others.
func (c Currency) String() string {
	if c == EUR {
		return "EUR"
	}
	return strings.TrimPrefix(digits(c.bytes()), "0")
}

// Date is a day as terminals tell it. Year is 0 where only month and day are
// told.
type Date struct{ Year, Month, Day int }

func (d Date) String() string {
	if d.Year == 0 {
		return fmt.Sprintf("--%02d-%02d", d.Month, d.Day)
	}
	return fmt.Sprintf("%04d-%02d-%02d", d.Year, d.Month, d.Day)
}

// parseDate reads MMDD, YYMMDD (of this century) or YYYYMMDD.
func parseDate(b []byte) (Date, bool) {
	n, ok := parseBCD(b)
	d := Date{Year: int(n / 10000), Month: int(n / 100 % 100), Day: int(n % 100)}
	if len(b) == 3 {
		d.Year += 2000
	}
	return d, ok && len(b) >= 2 && len(b) <= 4 && d.Month >= 1 && d.Month <= 12 && d.Day >= 1 && d.Day <= 31
}

// Time is a time of day of the terminal's clock.
type Time struct{ Hour, Minute, Second int }

func (t Time) String() string { return fmt.Sprintf("%02d:%02d:%02d", t.Hour, t.Minute, t.Second) }

// parseTime reads HHMMSS.
func parseTime(b []byte) (Time, bool) {
	n, ok := parseBCD(b)
	t := Time{Hour: int(n / 10000), Minute: int(n / 100 % 100), Second: int(n % 100)}
	return t, ok && len(b) == 3 && t.Hour <= 23 && t.Minute <= 59 && t.Second <= 59
}

func (t Time) bytes() []byte {
	return bcd(int64(t.Hour*10000+t.Minute*100+t.Second), 3)
}
