package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"terminalops/agent"
	"terminalops/transport"
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
	for _, l := range s.Lanes {
		fmt.Fprintf(w, "\n%s\n", l.ID)
		row := func(name, text string) { io.WriteString(w, fold(fmt.Sprintf("  %-9s ", name), 12, text)) }
		row("link", l.Device.Link+" ("+l.Device.Protocol+")")
		row("terminal", deviceWords(l.Device))
		if l.Device.State == transport.DeviceUnreachable {
			row("", "-> terminal-agent doctor")
		}
		row("cloud", cloudWords(l))
		if !l.Connected {
			row("", "-> terminal-agent doctor")
		}
		row("clock", clockWords(l.Clock))
		if l.Detail != "" {
			row("trouble", l.Detail)
		}
		record := func(name string, r agent.Record) {
			row(name, recordWords(r))
			if detail := recordDetail(r); detail != "" {
				row("", detail)
			}
		}
		if r := l.Working; r != nil {
			record("at work", *r)
		}
		for _, r := range l.Queue {
			record("waiting", r)
		}
		if r := l.Last; r != nil {
			record("last", *r)
		}
	}
	return nil
}

func deviceWords(d transport.Device) string {
	words := []string{d.State}
	if d.State == "" {
		words[0] = "not asked yet"
	}
	for _, more := range []struct{ name, value string }{
		{"", plainDetail(d)}, {"", d.Model}, {"serial number ", d.SerialNumber}, {"software ", d.SoftwareVersion},
	} {
		if more.value != "" {
			words = append(words, more.name+more.value)
		}
	}
	return strings.Join(words, ", ")
}

// plainDetail leaves out of a device's detail what its state says.
func plainDetail(d transport.Device) string {
	return strings.TrimPrefix(d.Detail, "terminal "+d.State+": ")
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
	case offset.Abs() < time.Second:
		return "the cloud's, and this PC's is the same"
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
	return fmt.Sprintf("%s %s %s, %s", when(at), r.Operation, r.State, r.ID)
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
	return fmt.Sprintf("%s: %s (executed: %s)", code, strings.TrimPrefix(e.Message, "terminal unreachable: "), e.Executed)
}
