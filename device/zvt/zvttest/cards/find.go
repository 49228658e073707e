package cards

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// LineWithIt is the line of a text that shows something, if it is one.
func (c Card) LineWithIt(text string) string {
	for line := range strings.Lines(text) {
		if c.FindIn(line, false) != "" {
			return line
		}
	}
	return text
}

// FindIn returns what of the card a text shows, or anything else that could be a card
// number; empty: nothing. A file may be no text.
func (c Card) FindIn(text string, file bool) string {
	readings := map[string]string{"as text": text, "hexadecimal": unhexed(text, 0), "hexadecimal, odd": unhexed(text, 1)}
	if file {
		readings["in UTF-16"] = strings.ReplaceAll(text, "\x00", "")
		if strings.ContainsAny(text, "\x01\x02") { // not a text
			readings["packed"] = hex.EncodeToString([]byte(text))
		}
	}
	for how, reading := range readings {
		for _, digits := range digitRuns.FindAllString(reading, -1) {
			digits = withoutGaps.Replace(digits)
			for from := range digits {
				for to := from + 13; to <= min(from+19, len(digits)); to++ {
					if luhnIsRight(digits[from:to]) {
						return fmt.Sprintf("%s: what could be a card, %s", how, digits[from:to])
					}
				}
			}
			// A part of the card that is longer than what may be shown of it.
			const part = 9
			for from := 0; from+part <= len(c.pan); from++ {
				if strings.Contains(digits, c.pan[from:from+part]) {
					return fmt.Sprintf("%s: %s of card %s", how, c.pan[from:from+part], c.pan)
				}
			}
		}
	}
	return c.findTracks(text)
}

// findTracks looks for the tracks, of which nothing may be shown: any five bytes.
func (c Card) findTracks(text string) string {
	const part = 10 // hexadecimal digits
	shown := strings.ToUpper(withoutBorders.Replace(text))
	if strings.Contains(shown, "QUIXOTE") || strings.Contains(shown, fmt.Sprintf("%X", "QUIXOTE")) {
		return "track 1"
	}
	for name, track := range map[string]string{"track 2": c.track2, "track 3": c.track3} {
		secret := track[strings.Index(track, "D")+1:]
		for from := 0; from+part <= len(secret); from++ {
			if strings.Contains(shown, secret[from:from+part]) {
				return fmt.Sprintf("%s: %s of %s", name, secret[from:from+part], track)
			}
		}
	}
	return ""
}

var (
	digitRuns = regexp.MustCompile(`[0-9][0-9 -]+`)
	hexRuns   = regexp.MustCompile(`[0-9A-Fa-f][0-9A-Fa-f -]+`)

	withoutGaps    = strings.NewReplacer(" ", "", "-", "")
	withoutBorders = strings.NewReplacer(" ", "", "|", "")
)

// unhexed is what is written in hexadecimal digits in a text, from its first digit
// on or from another one.
func unhexed(text string, from int) string {
	var b strings.Builder
	for _, row := range hexRuns.FindAllString(text, -1) {
		digits := withoutGaps.Replace(row)
		if len(digits) < 26 { // of the shortest card number
			continue
		}
		digits = digits[from:]
		part, err := hex.DecodeString(digits[:len(digits)&^1])
		if err != nil {
			panic(err)
		}
		b.Write(part)
		b.WriteByte('\n')
	}
	return b.String()
}

// luhnIsRight adds up from the front, with a table: other than the code under test.
func luhnIsRight(digits string) bool {
	doubled := map[rune]int{'0': 0, '1': 2, '2': 4, '3': 6, '4': 8, '5': 1, '6': 3, '7': 5, '8': 7, '9': 9}
	sum := 0
	for i, c := range digits {
		if (len(digits)-i)%2 == 0 {
			sum += doubled[c]
		} else {
			sum += int(c - '0')
		}
	}
	return sum%10 == 0
}
