// Command terminal-simulator is a payment terminal to talk to, on a pseudo
// terminal or on TCP: for demonstrations, training and tests.
//
//	terminal-simulator --protocol zvt --link pty:/tmp/terminal
//	terminal-simulator --protocol zvt --link tcp:127.0.0.1:20007 --scenario drop-before-completion
//	terminal-simulator --protocol zvt --link pty:/tmp/terminal --interactive
//
// It prints "ready ..." when it can be talked to, and then a line for each
// message it hears ("<-") and says ("->"), and for each thing it does. The log
// that it is given is the truth about the latter; see package zvttest.
//
// With --interactive it is a training ground: it reads commands, a line each,
// from its input, which pull the cable, jam the printer and so on; "help" lists
// them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"terminalops/device/zvt/zvttest"
)

// Exit codes, as those of the other commands.
const (
	exitOK     = 0
	exitFailed = 1
	exitConfig = 78 // the command line is wrong
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without a process: it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	err := simulate(ctx, args, stdin, stdout)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "terminal-simulator: %v\n", err)
	var usage usageError
	if errors.As(err, &usage) {
		return exitConfig
	}
	return exitFailed
}

// usageError is an error in what was asked for.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// settings are the flags.
type settings struct {
	protocol    string
	link        string
	scenario    string
	scenarios   bool
	log         string
	fast        bool
	interactive bool
}

// simulate is a terminal that is switched on until ctx ends.
func simulate(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) (err error) {
	var s settings
	flags := newFlags(&s, stdout)
	switch err := flags.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return nil
	case err != nil:
		return usageError{err}
	case s.scenarios:
		listScenarios(stdout)
		return nil
	case flags.NArg() > 0:
		return usagef("argument %q: only flags are wanted", flags.Arg(0))
	case s.protocol != "zvt":
		return usagef("--protocol %q: zvt wanted, there is no other yet", s.protocol)
	}
	serve, err := parseLink(s.link)
	if err != nil {
		return usageError{err}
	}
	say := func(line string) { fmt.Fprintln(stdout, line) }
	if s.interactive {
		say = func(line string) { fmt.Fprintln(stdout, time.Now().Format("15:04:05.000 "), line) }
	}
	terminal, err := zvttest.New(zvttest.Options{Scenario: s.scenario, Log: s.log, Fast: s.fast, Tell: say})
	if err != nil {
		return usageError{err}
	}
	defer func() { err = errors.Join(err, terminal.Close()) }()
	c := newCable(terminal, say)
	if s.interactive {
		var stop context.CancelFunc
		ctx, stop = context.WithCancel(ctx)
		defer stop()
		t := &training{terminal: terminal, cable: c, scenario: s.scenario, say: say, out: stdout}
		go func() {
			defer stop()
			t.run(stdin)
		}()
	}
	return serve(ctx, c)
}

func newFlags(s *settings, stdout io.Writer) *pflag.FlagSet {
	flags := pflag.NewFlagSet("terminal-simulator", pflag.ContinueOnError)
	flags.SetOutput(stdout)
	flags.SortFlags = false
	flags.StringVar(&s.protocol, "protocol", "zvt", "what the terminal speaks: `zvt`")
	flags.StringVar(&s.link, "link", "", "`where` it is: pty:PATH or tcp:HOST:PORT (port 0: any)")
	flags.StringVar(&s.scenario, "scenario", "success", "how it behaves: a `name` of the list below, or several joined by \"+\"")
	flags.BoolVar(&s.scenarios, "scenarios", false, "list the scenarios")
	flags.StringVar(&s.log, "log", "", "`file` for what it really did, continued if it exists")
	flags.BoolVar(&s.fast, "fast", false, "work a hundred times as fast as a real terminal")
	flags.BoolVar(&s.interactive, "interactive", false, "a training ground: take commands, a line each, until the input ends")
	flags.Usage = func() {
		fmt.Fprintf(stdout, "A payment terminal to talk to.\n\nUsage: terminal-simulator --link LINK [flags]\n\n%s\nScenarios\n", flags.FlagUsages())
		listScenarios(stdout)
		fmt.Fprint(stdout, "\nCommands of --interactive\n\n")
		listCommands(stdout)
	}
	return flags
}

func listScenarios(w io.Writer) {
	for _, g := range zvttest.Groups() {
		fmt.Fprintf(w, "\n%s\n", g.Title)
		for _, s := range g.Scenarios {
			fmt.Fprintf(w, "  %-24s %s\n", s.Name, s.Description)
		}
	}
}

// server connects a terminal to the world until ctx ends.
type server func(ctx context.Context, c *cable) error

// parseLink reads a --link.
func parseLink(link string) (server, error) {
	kind, where, _ := strings.Cut(link, ":")
	switch {
	case link == "":
		return nil, errors.New("--link is missing: pty:PATH or tcp:HOST:PORT wanted")
	case where == "":
		return nil, fmt.Errorf("--link %q: pty:PATH or tcp:HOST:PORT wanted", link)
	case kind == "tcp":
		return serveTCP(where), nil
	case kind == "pty":
		return servePTY(where)
	}
	return nil, fmt.Errorf("--link %q: pty:PATH or tcp:HOST:PORT wanted", link)
}
