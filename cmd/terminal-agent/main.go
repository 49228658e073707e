// Command terminal-agent is the daemon next to a payment terminal: it receives
// operations over MQTT, has the terminal carry them out, and reports.
//
// This package parses and wires; what it wires is in agent, device and
// transport.
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

// Exit codes. A service manager does not restart after exitConfig.
const (
	exitOK     = 0
	exitFailed = 1
	exitConfig = 2 // the configuration or the command line is wrong
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr, os.Getenv)
	stop()
	os.Exit(code)
}

const usage = `terminal-agent receives operations for payment terminals over MQTT, has the
terminals carry them out, and reports.

Usage:
  terminal-agent run --config FILE    serve until interrupted
  terminal-agent version

terminal-agent COMMAND --help tells more.
`

// run is main without a process: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, getenv func(string) string) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitConfig
	}
	var err error
	switch command, rest := args[0], args[1:]; command {
	case "run":
		err = runAgent(ctx, rest, stdout, stderr, getenv)
	case "version", "--version":
		fmt.Fprintf(stdout, "terminal-agent %s %s/%s %s\n", programVersion(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	case "help", "--help", "-h":
		fmt.Fprint(stdout, usage)
	default:
		err = configError{fmt.Errorf("unknown command %q; want run or version", command)}
	}
	var wrong configError
	switch {
	case err == nil, errors.Is(err, pflag.ErrHelp):
		return exitOK
	case errors.As(err, &wrong):
		fmt.Fprintln(stderr, "terminal-agent:", err)
		return exitConfig
	default:
		fmt.Fprintln(stderr, "terminal-agent:", err)
		return exitFailed
	}
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
