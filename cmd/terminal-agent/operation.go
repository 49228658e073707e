package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/user"
	"slices"
	"strings"
	"time"

	"terminalops/agent"
	"terminalops/agent/control"
	"terminalops/device"
)

// exitUnknown: an operation was asked for, and how it ended is not known.
const exitUnknown = 3

// unknownError is why nobody can say how an operation ended.
type unknownError struct{ error }

func (e unknownError) Unwrap() error { return e.error }

const operationText = `Has the agent that runs carry out an operation, and waits for its end. OPERATION is
end_of_day, send_logs, check_update or open_menu.

Exit code: 0 COMPLETED; 1 FAILED, or not asked for; 3 how it ended is not known,
look at terminal-agent history before you try again; 78 wrong command line.

Ctrl-C takes an operation back that has not started. One that has started goes on.`

// operation is `terminal-agent operation`.
func (p program) operation(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] != "run" {
		return configError{errors.New("operation: want operation run OPERATION")}
	}
	flags, a := p.askingFlags("operation run", operationText)
	terminal := flags.String("terminal", "", "the `ID` of the terminal; may be left out where there is one")
	follow := flags.Bool("follow", false, "show how it goes on")
	if err := parseOne(flags, args[1:], "OPERATION"); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	if *terminal == "" {
		if *terminal, err = onlyTerminal(ctx, c); err != nil {
			return err
		}
	}
	id, err := submit(ctx, c, *terminal, flags.Arg(0), p.userName())
	switch {
	case errors.Is(err, control.ErrLost):
		return unknownError{fmt.Errorf("%w before it answered; it may have begun: terminal-agent history", err)}
	case errors.Is(err, context.DeadlineExceeded):
		return unknownError{errors.New("the agent does not answer; it may have begun: terminal-agent history")}
	case err != nil:
		return advised(err)
	}
	screen := reportPrinter{w: p.stdout, json: a.json, follow: *follow}
	return p.await(ctx, c, id, &screen)
}

// submitPatience is how long the agent may take to put an operation on disk.
const submitPatience = 20 * time.Second

// submit asks for an operation. An interrupt waits for the answer, or nobody
// could take back what was asked for.
func submit(ctx context.Context, c *control.Client, terminal, operation, by string) (id string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), submitPatience)
	defer cancel()
	return c.Submit(ctx, terminal, operation, by)
}

// onlyTerminal is the terminal of an agent that has one.
func onlyTerminal(ctx context.Context, c *control.Client) (string, error) {
	s, err := c.Status(ctx)
	if err != nil {
		return "", advised(err)
	}
	if len(s.Lanes) == 1 {
		return s.Lanes[0].ID, nil
	}
	var ids []string
	for _, l := range s.Lanes {
		ids = append(ids, l.ID)
	}
	return "", configError{fmt.Errorf("this agent has several terminals: say which with --terminal: %s", strings.Join(ids, ", "))}
}

// userName is who asks, for the cloud's records. Nobody is believed because of
// it: the socket lets in only those who may do everything.
func (p program) userName() string {
	if name := p.getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

// await waits for the end of an operation, which an interrupt takes back if it
// has not started.
func (p program) await(ctx context.Context, c *control.Client, id string, screen *reportPrinter) error {
	err := c.Follow(ctx, id, screen.tell)
	if ctx.Err() != nil {
		err = p.takeBack(c, id, screen)
	}
	switch {
	case err != nil:
		return unknownError{fmt.Errorf("operation %s: %w; terminal-agent history tells what becomes of it", id, err)}
	case screen.err != nil:
		return screen.err
	}
	err = outcomeError(screen.last)
	if err != nil && !screen.json {
		return logged{err} // it was shown
	}
	return err
}

// takeBackPatience is how long the end of an operation that was taken back may
// take.
const takeBackPatience = 10 * time.Second

// takeBack cancels an operation and follows it to its end.
func (p program) takeBack(c *control.Client, id string, screen *reportPrinter) error {
	ctx, cancel := context.WithTimeout(context.Background(), takeBackPatience)
	defer cancel()
	if err := c.Cancel(ctx, id); errors.Is(err, agent.ErrStarted) {
		if screen.last.Final() {
			return nil
		}
		return errors.New("it has started and goes on")
	} else if err != nil {
		return err
	}
	return c.Follow(ctx, id, screen.tell)
}

// outcomeError is the error of an operation that did not end well.
func outcomeError(r agent.Report) error {
	if r.Error == nil {
		return nil
	}
	err := fmt.Errorf("operation %s: %s", r.OperationID, reportDetail(r))
	if device.Executed(r.Error.Executed) == device.Perhaps {
		return unknownError{err}
	}
	return err
}

// reportPrinter shows how an operation goes on and ends.
type reportPrinter struct {
	w            io.Writer
	json, follow bool
	last         agent.Report
	err          error // of the writing
}

func (s *reportPrinter) tell(r agent.Report) {
	s.last = r
	switch {
	case !r.Final() && !s.follow || s.err != nil:
	case s.json:
		s.err = writeJSON(s.w, r)
	default:
		s.err = printReport(s.w, r)
	}
}

// printReport is one line for a report, and what a final one has as its result.
func printReport(w io.Writer, r agent.Report) error {
	text := fmt.Sprintf("%s  %s %s", r.At.Local().Format(time.TimeOnly), r.Operation, r.State)
	if r.Effect != "" {
		text += " (" + r.Effect + ")"
	}
	if r.Message != "" {
		text += ": " + r.Message
	}
	text = fold("", 10, text)
	if r.Error != nil {
		text += fold("          ", 10, reportDetail(r))
	}
	if _, err := io.WriteString(w, text); err != nil || r.Result == nil {
		return err
	}
	return printResult(w, r.Result)
}

// printResult shows what a result says: the members by name, lists line by line.
func printResult(w io.Writer, result json.RawMessage) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(result, &members); err != nil {
		return fmt.Errorf("result: %w", err)
	}
	plain := reader{hundredths: slices.Contains(inHundredths, jsonText(members["currency"]))}.plain
	var b bytes.Buffer
	t := table(&b)
	for _, name := range slices.Sorted(maps.Keys(members)) {
		var list []json.RawMessage
		if json.Unmarshal(members[name], &list) != nil {
			list = []json.RawMessage{members[name]}
		}
		for i, value := range list {
			label := name
			if i > 0 {
				label = ""
			}
			fmt.Fprintf(t, "  %s\t%s\n", label, plain(name, value))
		}
	}
	t.Flush() // into memory
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil { // receipts have empty lines
			return err
		}
	}
	return nil
}

// inHundredths are the currencies, of those that terminals are seen with, whose
// minor unit is a hundredth. An amount in another stays as it is.
var inHundredths = []string{"BGN", "CHF", "CZK", "DKK", "EUR", "GBP", "HUF", "NOK", "PLN", "RON", "SEK", "USD"}

// reader puts JSON values into the words of people.
type reader struct {
	hundredths bool // amounts are in hundredths, and told as on the receipt
}

// plain is the value of a member: a text without its quotes, an object as names
// and values.
func (r reader) plain(name string, value json.RawMessage) string {
	var object map[string]json.RawMessage
	var minor int64
	switch {
	case json.Unmarshal(value, &object) == nil:
		var members []string
		for _, name := range slices.Backward(slices.Sorted(maps.Keys(object))) { // what it is, then how much
			members = append(members, name+" "+r.plain(name, object[name]))
		}
		return strings.Join(members, ", ")
	case r.hundredths && strings.HasSuffix(name, "amount") && json.Unmarshal(value, &minor) == nil:
		return money(minor)
	default:
		return jsonText(value)
	}
}

// money is an amount in hundredths, as in 1234.50.
func money(minor int64) string {
	sign := ""
	if minor < 0 {
		sign, minor = "-", -minor
	}
	return fmt.Sprintf("%s%d.%02d", sign, minor/100, minor%100)
}

// jsonText is a text without its quotes, and any other value as it is.
func jsonText(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) == nil {
		return text
	}
	return string(value)
}
