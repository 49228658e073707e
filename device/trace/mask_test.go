package trace

import (
	"strings"
	"testing"

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
	}
	for _, tt := range tests {
		if got := Mask(tt.in); got != tt.want {
			t.Errorf("Mask(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// Whatever stands around it, no card number survives.
func TestMaskLeavesNoCardNumber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[ -]{0,2}([0-9]{1,6}[ -]{0,2}){1,9}[a-z]?([0-9]{1,6}[ -]?){0,6}`).Draw(t, "text")
		got := Mask(text)
		if len(got) != len(text) {
			t.Fatalf("Mask(%q) = %q: another length", text, got)
		}
		for _, run := range strings.FieldsFunc(got, func(r rune) bool { return r != ' ' && r != '-' && (r < '0' || r > '9') }) {
			digits := strings.NewReplacer(" ", "", "-", "").Replace(run)
			for i := range digits {
				for n := minDigits; n <= maxDigits && i+n <= len(digits); n++ {
					if plainLuhn(digits[i : i+n]) {
						t.Fatalf("Mask(%q) = %q shows %s", text, got, digits[i:i+n])
					}
				}
			}
		}
	})
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
