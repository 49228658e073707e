package main

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"terminalops/device/trace"
)

// A style is what a text looks like: the parameters of the control function SGR
// ([ECMA-48] 8.3.117), with colours and, for who wants none (NO_COLOR), without.
type style struct{ coloured, plain string }

var (
	plainStyle   = style{}
	boldStyle    = style{"1", "1"}
	dimStyle     = style{"2", "2"}
	greenStyle   = style{"32", ""}
	redStyle     = style{"1;31", "1"}
	cyanStyle    = style{"36", ""}
	magentaStyle = style{"35", ""}
	yellowStyle  = style{"33", ""}
	workStyle    = style{"1;33", "1"}
	askStyle     = style{"1;7", "1;7"}
)

// span is a text of one style.
type span struct {
	style style
	text  string
}

// row is a line of the screen.
type row []span

func (r row) text() string {
	var b strings.Builder
	for _, s := range r {
		b.WriteString(s.text)
	}
	return b.String()
}

func (r row) width() int { return utf8.RuneCountInString(r.text()) }

// cut is a row of at most so many columns. One that was longer ends with "…".
func (r row) cut(width int) row {
	if r.width() <= width {
		return r
	}
	var short row
	room := width - 1
	for _, s := range r {
		runes := []rune(s.text)
		if len(runes) > room {
			return append(short, span{s.style, string(runes[:max(0, room)])}, span{dimStyle, "…"})
		}
		short = append(short, s)
		room -= len(runes)
	}
	return short
}

// sequence is a row for a terminal. It ends in no style.
func (r row) sequence(coloured bool) string {
	var b strings.Builder
	for _, s := range r {
		how := s.style.plain
		if coloured {
			how = s.style.coloured
		}
		if how == "" || s.text == "" {
			b.WriteString(s.text)
			continue
		}
		b.WriteString("\x1b[" + how + "m" + s.text + "\x1b[m")
	}
	return b.String()
}

// plainText is a text that a terminal only shows: in place of what it would obey, or
// what would move the rest of the line, stands a dot. A dot, because with a blank
// there two numbers could become one that looks like a card's.
func plainText(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar || unicode.Is(unicode.Mn, r) {
			return '·'
		}
		return r
	}, text)
}

// wrap is a text in lines of at most so many columns, broken at blanks where there
// are some. What is behind the last line is cut off.
func wrap(text string, width, most int) []string {
	var lines []string
	rest := []rune(text)
	for len(rest) > width {
		at := width
		for at > width/4 && rest[at] != ' ' {
			at--
		}
		if at == width/4 {
			at = width
		}
		if len(lines) == most-1 {
			return append(lines, string(rest[:width-1])+"…")
		}
		lines = append(lines, strings.TrimRight(string(rest[:at]), " "))
		for rest = rest[at:]; len(rest) > 0 && rest[0] == ' '; {
			rest = rest[1:]
		}
	}
	return append(lines, string(rest))
}

// withSecretsDim is a text in which what is masked steps back.
func withSecretsDim(s style, text string) (r row) {
	const dot = "•"
	for text != "" {
		secret := text[:len(text)-len(strings.TrimLeft(text, dot))]
		if secret != "" {
			r = append(r, span{dimStyle, secret})
		}
		text = text[len(secret):]
		shown, _, _ := strings.Cut(text, dot)
		if shown != "" {
			r = append(r, span{s, shown})
		}
		text = text[len(shown):]
	}
	return r
}

// styleOf is that of an event's words.
func styleOf(e trace.Event) style {
	switch {
	case isTrouble(e):
		return redStyle
	case e.Source == trace.Journal && strings.Contains(e.Meaning, "finished: COMPLETED"):
		return greenStyle
	}
	switch e.Source {
	case trace.Journal:
		return yellowStyle
	case trace.ToCloud, trace.FromCloud:
		return magentaStyle
	case trace.Log:
		if strings.HasPrefix(e.Meaning, "WARN ") {
			return yellowStyle
		}
		return plainStyle
	}
	switch e.Direction {
	case trace.ToTerminal:
		return cyanStyle
	case trace.FromTerminal:
		return greenStyle
	default:
		return dimStyle
	}
}

// isTrouble reports whether an event tells of something that went wrong.
func isTrouble(e trace.Event) bool {
	begins := func(beginnings ...string) bool {
		for _, b := range beginnings {
			if strings.HasPrefix(e.Meaning, b) {
				return true
			}
		}
		return false
	}
	switch e.Source {
	case trace.Line:
		refused := begins("84 ") && !begins("84 00 ") // 84 00 is 80 00 00 (zvt.md 2)
		return refused || begins("06 1E ", "NAK", "wrong CRC", "no frame")
	case trace.Journal:
		return strings.Contains(e.Meaning, "finished: FAILED")
	case trace.Log:
		return begins("ERROR ")
	default:
		return begins("not sent: ")
	}
}
