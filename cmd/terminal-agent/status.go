package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"terminalops/agent"
)

// status is `terminal-agent status`.
func (p program) status(ctx context.Context, args []string) error {
	flags, a := p.askingFlags("status", "Says how the agent that runs, and each of its terminals, is.")
	if err := parse(flags, args); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	s, err := c.Status(ctx)
	if err != nil {
		return advised(err)
	}
	if a.json {
		return writeJSON(p.stdout, s)
	}
	return printStatus(p.stdout, s)
}

func printStatus(w io.Writer, s agent.Status) error {
	fmt.Fprintf(w, "terminal-agent %s %s/%s, journal %s\n", s.Version, s.OS, s.Arch, s.JournalID)
	t := table(w)
	for _, l := range s.Lanes {
		fmt.Fprintf(t, "\n%s\n", l.ID)
		row := func(name, text string) { fmt.Fprintf(t, "  %s\t%s\n", name, text) }
		row("link", l.Device.Link+" ("+l.Device.Protocol+")")
		row("terminal", deviceWords(l))
		row("cloud", cloudWords(l))
		row("clock", clockWords(l.Clock))
		if l.Detail != "" {
			row("trouble", l.Detail)
		}
		if r := l.Working; r != nil {
			row("at work", recordWords(*r))
		}
		for _, r := range l.Queue {
			row("waiting", recordWords(r))
		}
		if r := l.Last; r != nil {
			row("last", recordWords(*r))
		}
	}
	return t.Flush()
}

func deviceWords(l agent.LaneStatus) string {
	words := []string{l.Device.State}
	if l.Device.State == "" {
		words[0] = "not asked yet"
	}
	for _, more := range []struct{ name, value string }{
		{"", l.Device.Detail}, {"", l.Device.Model}, {"serial number ", l.Device.SerialNumber}, {"software ", l.Device.SoftwareVersion},
	} {
		if more.value != "" {
			words = append(words, more.name+more.value)
		}
	}
	return strings.Join(words, ", ")
}

func cloudWords(l agent.LaneStatus) string {
	if l.Connected {
		return fmt.Sprintf("connected (connection %d)", l.Connection)
	}
	return "not connected"
}

func clockWords(c agent.ClockStatus) string {
	switch offset := time.Duration(c.OffsetMillis) * time.Millisecond; {
	case c.Source == agent.ClockUnknown:
		return "the cloud has not told its time yet"
	case c.Source == agent.ClockPC:
		return "this PC's: no cloud has ever told its time"
	case offset < 0:
		return fmt.Sprintf("the cloud's, %v behind this PC's", -offset)
	default:
		return fmt.Sprintf("the cloud's, %v ahead of this PC's", offset)
	}
}

// recordWords is one operation in a line.
func recordWords(r agent.Record) string {
	at := r.AcceptedAt
	for _, later := range []time.Time{r.StartedAt, r.FinishedAt} {
		if !later.IsZero() {
			at = later
		}
	}
	text := fmt.Sprintf("%s %s %s, %s", when(at), r.Operation, r.State, r.ID)
	if detail := recordDetail(r); detail != "" {
		text += ": " + detail
	}
	return text
}

// recordDetail is what there is to say about how an operation ended, or is.
func recordDetail(r agent.Record) string {
	if r.Report == nil {
		return r.Message
	}
	return reportDetail(*r.Report)
}

// reportDetail is what a report says beyond its state.
func reportDetail(r agent.Report) string {
	e := r.Error
	if e == nil {
		return r.Message
	}
	code := e.Code
	if e.DeviceCode != "" {
		code += " " + e.DeviceCode
	}
	return fmt.Sprintf("%s: %s (executed: %s)", code, e.Message, e.Executed)
}
