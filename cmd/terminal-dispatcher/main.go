// Command terminal-dispatcher is the cloud side: it takes operations for
// payment terminals over HTTP and passes them to the agents over MQTT.
//
// This package parses and wires; what it wires is in dispatcher and transport.
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
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr, os.Getenv)
	stop()
	os.Exit(code)
}

const usage = `terminal-dispatcher takes operations for payment terminals over HTTP and passes
them to the agents over MQTT.

Usage:
  terminal-dispatcher serve --config FILE                     serve until interrupted
  terminal-dispatcher token --config FILE --account ID        print a token for development
  terminal-dispatcher terminals add --config FILE --account ID TERMINAL...
  terminal-dispatcher terminals list --config FILE
  terminal-dispatcher version

terminal-dispatcher COMMAND --help tells more.
`

// program is what a command works with.
type program struct {
	stdout, stderr io.Writer
	getenv         func(string) string
}

// run is main without a process: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, getenv func(string) string) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitConfig
	}
	p := program{stdout, stderr, getenv}
	var err error
	switch command, rest := args[0], args[1:]; command {
	case "serve":
		err = p.serve(ctx, rest)
	case "token":
		err = p.token(rest)
	case "terminals":
		err = p.terminals(ctx, rest)
	case "version", "--version":
		fmt.Fprintf(stdout, "terminal-dispatcher %s %s/%s %s\n", programVersion(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	case "help", "--help", "-h":
		fmt.Fprint(stdout, usage)
	default:
		err = configError{fmt.Errorf("unknown command %q; want serve, token, terminals or version", command)}
	}
	var wrong configError
	switch {
	case err == nil, errors.Is(err, pflag.ErrHelp):
		return exitOK
	case errors.As(err, &wrong):
		fmt.Fprintln(stderr, "terminal-dispatcher:", err)
		return exitConfig
	default:
		fmt.Fprintln(stderr, "terminal-dispatcher:", err)
		return exitFailed
	}
}

// configError is an error that trying again does not mend.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

func wrong(format string, args ...any) error { return configError{fmt.Errorf(format, args...)} }

// programVersion is the linker's, or what go install knows.
func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && version == "devel" && info.Main.Version != "" {
		return info.Main.Version
	}
	return version
}
