package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"terminalops/device/trace"
)

// linesTo is a view that writes lines, whoever reads them:
//
//	09:00:01.250   +0.000  T1  ECR → PT    06 50 end-of-day: password ••••••
//	                                       10 02|06 50 03|•• •• ••|10 03|•• ••
//	09:00:01.251   +0.001  T1  journal     end_of_day 3f1a started
func linesTo(w io.Writer) view {
	return func(ctx context.Context, events <-chan trace.Event) error {
		var last time.Time
		for e := range events {
			x := textOf(e, last)
			last = e.At
			head := x.time + "  " + orDash(e.Lane) + "  "
			var text strings.Builder
			if x.missed != "" {
				text.WriteString(x.missed + "\n")
			}
			text.WriteString(head + x.label + x.meaning + "\n")
			if x.bytes != "" {
				text.WriteString(strings.Repeat(" ", len(head)+labelWidth) + x.bytes + "\n")
			}
			if _, err := io.WriteString(w, text.String()); err != nil {
				return err
			}
		}
		return nil
	}
}

// labelWidth is that of a label and the blanks behind it, in characters.
const labelWidth = trace.LabelWidth + 2

// eventText is an event as people read it, in parts.
type eventText struct {
	missed  string // a line of its own before the others; mostly empty
	time    string // with the gap to the event before
	label   string // who says what to whom, labelWidth wide
	meaning string
	bytes   string // a line of its own; empty: the meaning has said it all
}

// textOf is the text of an event behind one of that time; zero: behind none. Times
// are the PC's, with its time zone; the gap is in seconds.
func textOf(e trace.Event, before time.Time) eventText {
	gap := time.Duration(0)
	if !before.IsZero() {
		gap = e.At.Sub(before)
	}
	x := eventText{
		time:    fmt.Sprintf("%s %+8.3f", e.At.Local().Format("15:04:05.000"), gap.Seconds()),
		label:   fmt.Sprintf("%-*s", labelWidth, e.Label()),
		meaning: e.Meaning,
	}
	if e.Missed > 0 {
		x.missed = fmt.Sprintf("%d events are missing here", e.Missed)
	}
	if len(e.Bytes) > len("06") { // an ACK
		x.bytes = e.Bytes
	}
	return x
}
