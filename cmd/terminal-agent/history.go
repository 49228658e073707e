package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"terminalops/agent"
)

// history is `terminal-agent history`.
func (p program) history(ctx context.Context, args []string) error {
	flags, a := p.askingFlags("history", "Lists the latest operations, the newest first, whoever has asked for them.")
	terminal := flags.String("terminal", "", "of the terminal with this `ID` only")
	limit := flags.Int("limit", 20, "so many, at most 1000")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *limit < 1 || *limit > 1000 {
		return configError{fmt.Errorf("--limit %d: want 1 to 1000", *limit)}
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	records, err := c.History(ctx, *terminal, *limit)
	if err != nil {
		return advised(err)
	}
	if a.json {
		for _, r := range records {
			if err := writeJSON(p.stdout, r); err != nil {
				return err
			}
		}
		return nil
	}
	return p.printHistory(records)
}

// printHistory has a row for each operation, and below it its id, for the office,
// and what there is to say.
func (p program) printHistory(records []agent.Record) error {
	if len(records) == 0 {
		fmt.Fprintln(p.stdout, "no operations")
		return nil
	}
	var rows bytes.Buffer
	var details []string // below each row
	t := table(&rows)
	fmt.Fprintln(t, "ACCEPTED\tTERMINAL\tOPERATION\tBY\tSTATE")
	for _, r := range records {
		by := r.Origin
		if r.CreatedBy != "" {
			by = r.CreatedBy
		}
		detail := recordDetail(r)
		if r.Report != nil && !r.Reported {
			detail = strings.TrimPrefix(detail+"; the cloud does not know yet", "; ")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", when(r.AcceptedAt), r.TerminalID, orDash(r.Operation), by, r.State)
		details = append(details, fold("  ", 4, strings.TrimSuffix(r.ID+": "+detail, ": ")))
	}
	t.Flush() // into memory
	head, _ := rows.ReadString('\n')
	text := head
	for _, detail := range details {
		row, _ := rows.ReadString('\n')
		text += row + detail
	}
	_, err := io.WriteString(p.stdout, text)
	return err
}
