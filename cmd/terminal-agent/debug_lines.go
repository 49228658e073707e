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
//
// Times are the PC's, with its time zone; the gap to the line before is in
// seconds.
func linesTo(w io.Writer) view {
	return func(ctx context.Context, events <-chan trace.Event) error {
		var last time.Time
		for e := range events {
			gap := time.Duration(0)
			if !last.IsZero() {
				gap = e.At.Sub(last)
			}
			last = e.At
			head := fmt.Sprintf("%s %+8.3f  %s  ", e.At.Local().Format("15:04:05.000"), gap.Seconds(), orDash(e.Lane))
			var text strings.Builder
			if e.Missed > 0 {
				fmt.Fprintf(&text, "%d events are missing here\n", e.Missed)
			}
			text.WriteString(head + fmt.Sprintf("%-*s  ", trace.LabelWidth, e.Label()) + e.Meaning + "\n")
			if len(e.Bytes) > len("06") { // an ACK has said it all
				text.WriteString(strings.Repeat(" ", len(head)+trace.LabelWidth+2) + e.Bytes + "\n")
			}
			if _, err := io.WriteString(w, text.String()); err != nil {
				return err
			}
		}
		return nil
	}
}
