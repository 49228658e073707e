package main

import (
	"context"
	"fmt"
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

func (p program) printHistory(records []agent.Record) error {
	if len(records) == 0 {
		fmt.Fprintln(p.stdout, "no operations")
		return nil
	}
	t := table(p.stdout)
	fmt.Fprintln(t, "ACCEPTED\tTERMINAL\tOPERATION\tBY\tSTATE\tID\tDETAIL")
	for _, r := range records {
		by := r.Origin
		if r.CreatedBy != "" {
			by = r.CreatedBy
		}
		detail := recordDetail(r)
		if r.Report != nil && !r.Reported {
			detail = strings.TrimPrefix(detail+"; the cloud does not know yet", "; ")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", when(r.AcceptedAt), r.TerminalID, orDash(r.Operation), by, r.State, r.ID, detail)
	}
	return t.Flush()
}
