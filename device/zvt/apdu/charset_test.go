package apdu

import (
	"testing"

	"pgregory.net/rapid"
	"terminalops/device/trace"
)

func TestDecode(t *testing.T) {
	tests := []struct {
		charset Charset
		in      string
		want    string
	}{
		{CP437, "f\x81r \x8e\x99\x9a\xe1 \xc4\xcd", "für ÄÖÜß ─═"},
		{"", "\x84", "ä"},
		{Latin1, "f\xfcr \xa4", "für ¤"},
		{Latin1, "\x80", "\uFFFD"},
		{Latin9, "\xa4", "€"},
		{Latin2, "\xb1", "ą"},
		{UTF8, "für \xff", "für \uFFFD"},
		{ASCII, "f\xfcr", "f\uFFFDr"},
		{Other, "f\xfcr", "f\uFFFDr"},
		{ZVT7Bit, "[\\]{|}~ @", "ÄÖÜäöüß @"},
		{CP437, "a\x00b\x0ac\xffd", "a b c d"},
		{UTF8, "4111\u00a01111\u202f1111\u20111111", "4111 1111 1111-1111"},
		{Auto, "Bitte warten", "Bitte warten"},
		{Auto, "Kassenschnitt durchgef\xfchrt", "Kassenschnitt durchgeführt"},
		{Auto, "PR\xdcFEN", "PRÜFEN"},
		{Auto, "gr\xf6\xdfer", "größer"},
		{Auto, "\xc4nderung", "Änderung"},
		{Auto, "H\x8eNDLER f\x81r", "HÄNDLER für"},
		{Auto, "Stra\xe1e", "Straße"},
		{Auto, "f\x81r A\xc4B", "für A─B"},
		{Auto, "\xc4\xc4\xc4\xc4\xc4\xc4", "──────"},
		{Auto, "Summe\xc4\xc4\xc4Ende", "Summe───Ende"},
		{Auto, "für", "für"},
	}
	for _, tt := range tests {
		if got := tt.charset.Decode([]byte(tt.in)); got != tt.want {
			t.Errorf("%s: %q is %q, want %q", tt.charset, tt.in, got, tt.want)
		}
	}
}

func TestEncode(t *testing.T) {
	for charset, want := range map[Charset]string{
		CP437:   "Gr\x94\xe1e ??",
		Auto:    "Gr\x94\xe1e ??",
		Latin1:  "Gr\xf6\xdfe ??",
		Latin9:  "Gr\xf6\xdfe \xa4?",
		UTF8:    "Größe €語",
		ASCII:   "Gr??e ??",
		ZVT7Bit: "Gr|~e ??",
	} {
		if got := string(charset.Encode("Größe €語")); got != want {
			t.Errorf("%s: %q, want %q", charset, got, want)
		}
	}
}

func TestCharsetNames(t *testing.T) {
	for tag14, want := range map[byte]Charset{0: ASCII, 1: Latin1, 2: Latin2, 5: Other, 15: Latin9, 16: Other, 0xFE: UTF8, 0xFF: CP437} {
		if got, ok := CharsetOf(tag14); got != want || !ok {
			t.Errorf("%02X: %q, %v, want %q", tag14, got, ok, want)
		}
	}
	if c, ok := CharsetOf(0x11); ok {
		t.Errorf("11 is %q", c)
	}
	if c, err := ParseCharset("ISO-8859-15"); c != Latin9 || err != nil {
		t.Errorf("%q, %v", c, err)
	}
	if _, err := ParseCharset("ebcdic"); err == nil {
		t.Error("ebcdic is a character set")
	}
}

// No byte between its digits hides a card number from the mask.
func TestNothingHidesACardNumber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gap := rapid.SampledFrom([]string{"", " ", "\x00", "\x1b", "\t", "\xa0", "\xff", "\u00ad", "\u200b", "\u2013", "\u3000", "\ufeff"}).Draw(t, "gap")
		charset := rapid.SampledFrom([]Charset{UTF8, Latin1, CP437, Auto}).Draw(t, "charset")
		text := charset.Decode([]byte("4111" + gap + "1111" + gap + "1111" + gap + "1111"))
		if isBlank := charset == UTF8 && gap != "\xa0" && gap != "\xff" ||
			len(gap) == 1 && gap < "\x80" || gap == "" || charset == Latin1 && gap == "\xa0" || charset == CP437 && gap == "\xff"; !isBlank {
			return // a letter in this character set
		}
		if trace.Mask(text) == text {
			t.Fatalf("%s: %q is not masked", charset, text)
		}
	})
}
