// Package trace is where the bytes of a terminal become readable, and where
// card data ends: whatever a person or a file may see passes through here.
package trace

// Card numbers (ISO/IEC 7812) have 13 to 19 digits, the last of which makes
// the Luhn sum a multiple of ten.
const (
	minDigits = 13
	maxDigits = 19
	keepFirst = 6 // PCI DSS 3.4: at most the first six
	keepLast  = 4 // and the last four may be shown
)

// Mask replaces the inner digits of everything in text that could be a card
// number by '*': every run of 13 to 19 digits, spaces and dashes between them
// allowed, whose Luhn sum is right, also inside a longer run. A number that is
// no card may be masked too. The length of text stays the same. Line breaks
// end a run.
func Mask(text string) string {
	var out []byte // a copy, made when the first digit is masked
	for start := 0; start < len(text); {
		end := start
		var at []int // the positions of the run's digits
		for ; end < len(text) && inRun(text[end]); end++ {
			if isDigit(text[end]) {
				at = append(at, end)
			}
		}
		if len(at) >= minDigits {
			if out == nil {
				out = []byte(text)
			}
			maskRun(out, at)
		}
		start = end + 1
	}
	if out == nil {
		return text
	}
	return string(out)
}

func inRun(c byte) bool   { return isDigit(c) || c == ' ' || c == '-' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// maskRun masks the card numbers of one run, given the positions of its digits.
// One pass is enough: masking makes no other window right, and no window that
// begins earlier was.
func maskRun(text []byte, at []int) {
	for first := range at {
		// The longest window first: a shorter one inside it would show more of
		// the long one than its first six and last four.
		for n := min(maxDigits, len(at)-first); n >= minDigits; n-- {
			window := at[first : first+n]
			if luhn(text, window) {
				for _, i := range window[keepFirst : n-keepLast] {
					text[i] = '*'
				}
				break
			}
		}
	}
}

// luhn reports whether all positions hold digits and their Luhn sum (ISO/IEC
// 7812-1, annex B) is right.
func luhn(text []byte, at []int) bool {
	sum := 0
	for i := range at {
		c := text[at[len(at)-1-i]]
		if !isDigit(c) {
			return false
		}
		d := int(c - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}
