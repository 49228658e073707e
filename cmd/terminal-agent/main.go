// Command terminal-agent is the daemon next to a payment terminal: it receives
// operations over MQTT, has the terminal carry them out, and reports.
//
// This package parses and wires; what it wires is in agent, device and
// transport.
//
//	main.go       commands and exit codes
//	config.go     the configuration file, environment and flags
//	configure.go  `config init`, `config check`, `config show` (configure_*.go)
//	run.go        `run`: the agent from its parts, in the foreground
//	supervise.go  `run --service`: under systemd, or Windows' service manager
//	service.go    `service`: install, start, stop ...
//	decode.go     `decode`: what was recorded of a line, in words
//	doctor.go     `doctor`: all that can be wrong, and what to do (doctor_*.go)
//	control.go    asking the agent that runs: `status`, `history`,
//	              `operation run`, `ports` (status.go, history.go, ...)
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/pflag"
)

// version is set by the linker in a release.
var version = "devel"

// Exit codes. A service manager does not restart after exitConfig, which is
// EX_CONFIG of sysexits.h: 2 is the code of a Go program that panics.
const (
	exitOK     = 0
	exitFailed = 1
	exitConfig = 78 // the configuration or the command line is wrong
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second one ends what does not end
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr, os.Getenv)
	stop()
	os.Exit(code)
}

const usage = `terminal-agent receives operations for payment terminals over MQTT, has the
terminals carry them out, and reports.

Usage:
  terminal-agent run                  serve until interrupted
  terminal-agent config init          write a configuration, with questions
  terminal-agent config check         is the configuration right?
  terminal-agent config show          what the agent makes of it, without secrets
  terminal-agent service install      as a service of this machine; also:
                         uninstall, start, stop, restart, status
  terminal-agent debug                look on: every frame, live and in words
  terminal-agent doctor               what is wrong, and what to do?
  terminal-agent status               how the agent and its terminals are
  terminal-agent history              the latest operations
  terminal-agent operation run OPERATION
                                      have one carried out: end_of_day,
                         send_logs, check_update, open_menu
  terminal-agent ports                serial ports, and whose they are
  terminal-agent decode FILE          what was recorded of a line, in words
  terminal-agent version

Without --config FILE the configuration is
%s.
terminal-agent COMMAND --help tells more.
`

// run is main without a process: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, getenv func(string) string) int {
	p := program{stdout: stdout, stderr: stderr, getenv: getenv}
	err := p.command(ctx, args)
	if err == nil || errors.Is(err, pflag.ErrHelp) {
		return exitOK
	}
	if !errors.As(err, new(logged)) {
		fmt.Fprintln(stderr, "terminal-agent:", err)
	}
	switch {
	case errors.As(err, new(configError)):
		return exitConfig
	case errors.As(err, new(unknownError)):
		return exitUnknown
	default:
		return exitFailed
	}
}

// program is what a command has of its process.
type program struct {
	stdout, stderr io.Writer
	getenv         func(string) string
}

func (p program) command(ctx context.Context, args []string) error {
	if len(args) == 0 {
		fmt.Fprintf(p.stderr, usage, defaultConfig())
		return configError{errors.New("no command")}
	}
	switch name, rest := args[0], args[1:]; name {
	case "run":
		return p.run(ctx, rest)
	case "config":
		return p.config(ctx, rest)
	case "service":
		return p.service(ctx, rest)
	case "debug":
		return p.debug(ctx, rest)
	case "doctor":
		return p.doctor(ctx, rest)
	case "status":
		return p.status(ctx, rest)
	case "history":
		return p.history(ctx, rest)
	case "operation":
		return p.operation(ctx, rest)
	case "ports":
		return p.ports(ctx, rest)
	case "decode":
		return p.decode(rest)
	case "version", "--version":
		fmt.Fprintf(p.stdout, "terminal-agent %s %s/%s %s\n", programVersion(), runtime.GOOS, runtime.GOARCH, runtime.Version())
		return nil
	case "help", "--help", "-h":
		fmt.Fprintf(p.stdout, usage, defaultConfig())
		return nil
	default:
		return configError{fmt.Errorf("unknown command %q; want run, debug, config, service, doctor, status, history, operation, ports, decode or version", name)}
	}
}

// flags makes the flags of a command. text says what it does.
func (p program) flags(command, text string) *pflag.FlagSet {
	flags := pflag.NewFlagSet(command, pflag.ContinueOnError)
	flags.SetOutput(p.stdout)
	flags.SortFlags = false
	flags.Usage = func() {
		fmt.Fprintf(p.stdout, "%s\n\nUsage: terminal-agent %s [flags]\n\n%s", text, command, flags.FlagUsages())
	}
	return flags
}

// parse reads the command line of a command that takes flags only.
func parse(flags *pflag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return err
		}
		return configError{err}
	}
	if flags.NArg() > 0 {
		return configError{fmt.Errorf("unexpected argument %q", flags.Arg(0))}
	}
	return nil
}

// parseOne reads the command line of a command that takes one argument, and
// flags.
func parseOne(flags *pflag.FlagSet, args []string, argument string) error {
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return err
		}
		return configError{err}
	}
	if flags.NArg() != 1 {
		return configError{fmt.Errorf("%s: want one %s, have %q", flags.Name(), argument, flags.Args())}
	}
	return nil
}

// configError is an error that trying again does not mend.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

// programVersion is the linker's, or what go install knows.
func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && version == "devel" && info.Main.Version != "" {
		return info.Main.Version
	}
	return version
}
