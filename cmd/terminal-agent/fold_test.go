package main

import (
	"strings"
	"testing"
)

func TestFold(t *testing.T) {
	long := strings.Repeat("x", screenWidth)
	fits := strings.Repeat("x", screenWidth-len("OK: a "))
	for _, tt := range []struct{ text, want string }{
		{"", "OK: \n"},
		{"a b", "OK: a b\n"},
		{"a " + fits, "OK: a " + fits + "\n"},
		{"a x" + fits + " b", "OK: a\n   x" + fits + " b\n"},
		{"a " + long + " b", "OK: a\n   " + long + "\n   b\n"},
		{"a " + strings.Repeat("ä", len(fits)), "OK: a " + strings.Repeat("ä", len(fits)) + "\n"},
	} {
		if have := fold("OK: ", 3, tt.text); have != tt.want {
			t.Errorf("have\n%swant\n%s", have, tt.want)
		}
	}
}
