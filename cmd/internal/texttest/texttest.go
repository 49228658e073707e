// Package texttest prepares what the programs print for comparison with what a
// document or a kept file shows: the field guide, the screens of debug, the README.
//
// Two runs differ in the time, two days in the date, and summer in the offset of
// the time zone. FixTimes knows all forms in which the programs, the receipts and
// the logs print these. Its test finds the layouts in the sources, so a new form
// fails that test, and not the comparison on the day after.
//
// Other things that differ from run to run (ids, sizes, durations) are the business
// of the test that meets them.
package texttest

import "regexp"

// forms are the forms of a date or a time, and the same form of 29 June 2026,
// 09:00:00 in Berlin. Longer forms stand before those that they contain.
var forms = []struct {
	pattern *regexp.Regexp
	fixed   string
}{
	{regexp.MustCompile(`\b\d{8}([T-])\d{6}(Z?)\b`), "20260629${1}090000${2}"}, // names of files
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\d`), "2026-06-29"},                    // followed by T or not
	{regexp.MustCompile(`(^|[^\w-])--\d\d-\d\d\b`), "${1}--06-29"},             // BMP 0D, which has no year
	{regexp.MustCompile(`\b\d\d\.\d\d\.\d{4}\b`), "29.06.2026"},                // German receipts
	{regexp.MustCompile(`\d\d:\d\d:\d\d`), "09:00:00"},
	{regexp.MustCompile(`(090000|09:00:00)\.\d+`), "${1}.000"},
	{regexp.MustCompile(`(09:00:00(?:\.000)?)[+-]\d\d:\d\d\b`), "${1}+02:00"},
	{regexp.MustCompile(`(09:00:00(?:\.000)? )[+-]\d{4}\b`), "${1}+0200"},
	{regexp.MustCompile(`\bCES?T\b`), "CEST"},
}

// FixTimes returns text with each date and time replaced by that of 29 June 2026,
// 09:00:00, in the same form. The replacement has the same width, except that a
// fraction of a second becomes three digits and CET becomes CEST.
//
// Texts that differ only in their dates, times and offsets become equal. The offset Z
// of UTC stays: one PC prints either Z or an offset.
func FixTimes(text string) string {
	for _, f := range forms {
		text = f.pattern.ReplaceAllString(text, f.fixed)
	}
	return text
}
