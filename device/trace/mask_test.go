package trace

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"pgregory.net/rapid"
)

func TestMask(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{"KASSENSCHNITT 23.11.2026", "KASSENSCHNITT 23.11.2026"},
		{"4111111111111111", "411111******1111"},
		{"Karte 4111 1111 1111 1111 ok", "Karte 4111 11** **** 1111 ok"},
		{"5500-0000-0000-0004", "5500-00**-****-0004"},
		{"1234567890123", "1234567890123"}, // the Luhn sum is wrong
		{"4111111111111111\n4111111111111111", "411111******1111\n411111******1111"},
		{"6799990100000000019", "679999*********0019"},               // 19 digits
		{"1234567 4111111\n111111111", "1234567 4111111\n111111111"}, // a line break ends the run
		{"4111\u00A01111\u20131111\t1111", "4111\u00A011**\u2013****\t1111"},
		{"4111\xA01111\xA01111\xA01111", "4111\xA011**\xA0****\xA01111"}, // ISO 8859
		// In hexadecimal; the hexadecimal digits by themselves could be a number, too.
		{"34313131313131313131313131313131", "3431313*********************3131"},
		{"x34 31 31 31 31 31 31 31 31 31 31 31 31 31 31 31", "x34 31 31 3* ** ** ** ** ** ** ** ** ** ** 31 31"},
		{"4111-", "4111-"},
		{"0x34," + strings.Repeat("0x31,", 15), "0x34," + strings.Repeat("0x31,", 5) + strings.Repeat("0x**,", 6) + strings.Repeat("0x31,", 4)},
	}
	for _, tt := range tests {
		if got := Mask(tt.in); got != tt.want {
			t.Errorf("Mask(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestMaskLines(t *testing.T) {
	lines := []string{"Karte 4111 1111", "1111 1111 genehmigt", "", "0815"}
	want := []string{"Karte 4111 11**", "**** 1111 genehmigt", "", "0815"}
	if got := MaskLines(lines); strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("%q, want %q", got, want)
	}
}

// digitsOf returns the digits of a text, without what may stand between them, one
// string for each run.
func digitsOf(text string) []string {
	runs := strings.FieldsFunc(text, func(r rune) bool { return r != ' ' && r != '-' && (r < '0' || r > '9') })
	for i, run := range runs {
		runs[i] = strings.NewReplacer(" ", "", "-", "").Replace(run)
	}
	return runs
}

// cardIn returns something in a text that could be a card number.
func cardIn(text string) string {
	for _, digits := range digitsOf(text) {
		for i := range digits {
			for n := minDigits; n <= maxDigits && i+n <= len(digits); n++ {
				if plainLuhn(digits[i : i+n]) {
					return digits[i : i+n]
				}
			}
		}
	}
	return ""
}

// Whatever stands around it, no card number survives.
func TestMaskLeavesNoCardNumber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[ -]{0,2}([0-9]{1,6}[ -]{0,2}){1,9}[a-z]?([0-9]{1,6}[ -]?){0,6}`).Draw(t, "text")
		got := Mask(text)
		if len(got) != len(text) {
			t.Fatalf("Mask(%q) = %q: another length", text, got)
		}
		if card := cardIn(got); card != "" {
			t.Fatalf("Mask(%q) = %q shows %s", text, got, card)
		}
	})
}

// card draws a card number.
func card(t *rapid.T) string {
	digits := rapid.StringMatching(`[1-9][0-9]{11,17}`).Draw(t, "digits")
	for check := '0'; ; check++ {
		if pan := digits + string(check); plainLuhn(pan) {
			return pan
		}
	}
}

// A card number shows its first six and last four digits at most, also if digits
// stand around it that make other numbers with some of its own.
func TestMaskHidesTheInnerDigits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pan := card(t)
		before, behind := rapid.StringMatching(`[0-9]{0,19}`).Draw(t, "before"), rapid.StringMatching(`[0-9]{0,19}`).Draw(t, "behind")
		got := Mask(before + pan + behind)[len(before):][:len(pan)]
		if strings.Trim(got[keepFirst:len(pan)-keepLast], "*") != "" {
			t.Fatalf("%s between %q and %q: %s", pan, before, behind, got)
		}
	})
}

// views are the ways to read bytes: each shows digits as text.
func views(b []byte) map[string]string {
	dump := strings.Map(func(r rune) rune {
		if strings.ContainsRune("0123456789abcdefABCDEF", r) {
			return r
		}
		return -1
	}, string(b))
	unhex := func(digits string) string {
		b, _ := hex.DecodeString(digits[:len(digits)&^1])
		return string(b)
	}
	return map[string]string{
		"as text":                      string(b),
		"in UTF-16":                    strings.ReplaceAll(string(b), "\x00", ""),
		"packed":                       hex.EncodeToString(b),
		"in hexadecimal":               unhex(dump),
		"in hexadecimal, one digit on": unhex(dump[min(1, len(dump)):]),
	}
}

// Of bytes in whatever code, no card number survives in any.
func TestMaskBytesLeavesNoCardNumber(t *testing.T) {
	codes := map[string]func(pan string) []byte{
		"text":             func(pan string) []byte { return []byte(pan) },
		"hexadecimal text": func(pan string) []byte { return []byte(hex.EncodeToString([]byte(pan))) },
		"hexadecimal dump": func(pan string) []byte { return []byte(fmt.Sprintf("% X", pan)) },
		"UTF-16": func(pan string) []byte {
			var b []byte
			for _, u := range utf16.Encode([]rune(pan)) {
				b = append(b, byte(u), byte(u>>8))
			}
			return b
		},
		"packed": func(pan string) []byte {
			b, _ := hex.DecodeString(pan + strings.Repeat("F", len(pan)%2))
			return b
		},
		"packed, half a byte later": func(pan string) []byte {
			b, _ := hex.DecodeString("F" + pan + strings.Repeat("F", 1-len(pan)%2))
			return b
		},
	}
	for name, code := range codes {
		rapid.Check(t, func(t *rapid.T) {
			pan := card(t)
			before, behind := rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(t, "before"), rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(t, "behind")
			content := append(append(before, code(pan)...), behind...)
			got := MaskBytes(content)
			if len(got) != len(content) {
				t.Fatalf("%s: %d bytes become %d", name, len(content), len(got))
			}
			for how, view := range views(got) {
				if found := cardIn(view); found != "" {
					t.Fatalf("%s: % X becomes % X, which shows %s %s", name, content, got, found, how)
				}
			}
		})
	}
}

// plainLuhn is written another way than luhn, to check the checker.
func plainLuhn(s string) bool {
	twice := [10]int{0, 2, 4, 6, 8, 1, 3, 5, 7, 9}
	sum := 0
	for i, c := range s {
		if (len(s)-i)%2 == 0 {
			sum += twice[c-'0']
		} else {
			sum += int(c - '0')
		}
	}
	return sum%10 == 0
}
