package cards

import (
	"encoding/hex"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// The search finds what it is for.
func TestFindIn(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := Draw(rt)
		for name, text := range map[string]string{
			"text": s.pan, "blanks": "a " + s.pan[:4] + " " + s.pan[4:] + " b", "packed": fmt.Sprintf("% X", packed(s.pan)),
			"text in hexadecimal": fmt.Sprintf("% X", s.pan), "in a row": "x" + hex.EncodeToString([]byte(s.pan)) + "x",
			"track 2": fmt.Sprintf("% X", packed(s.track2)[12:]), "track 1": fmt.Sprintf("% X", s.track1), "part": s.pan[2:11] + "0000",
		} {
			if s.FindIn(text, false) == "" {
				rt.Fatalf("%s is not found: %s", name, text)
			}
		}
		if s.FindIn("\x01"+string(packed(s.pan)), true) == "" {
			rt.Fatalf("not found in a file: %s", s.pan)
		}
		if found := s.FindIn(s.pan[:6]+"******"+s.pan[len(s.pan)-4:], false); found != "" {
			rt.Fatalf("masked, and found: %s", found)
		}
	})
}
