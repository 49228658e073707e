package main

import (
	"strings"
	"unicode/utf8"
)

// screenWidth is how wide a laptop's screen is, in columns.
const screenWidth = 100

// fold is a text behind a beginning, in lines that fit the screen, each with its
// end. The lines after the first are indented by so many columns. What has no
// blanks stays whole: paths and addresses are copied.
func fold(begins string, indent int, text string) string {
	var b strings.Builder
	b.WriteString(begins)
	column := utf8.RuneCountInString(begins)
	for i, word := range strings.Fields(text) {
		width := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+width > screenWidth:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += width
	}
	b.WriteByte('\n')
	return b.String()
}
