// Command demo shows the main job on one machine: it starts the three real
// programs (dispatcher, agent, and a simulated terminal), asks the HTTP API for
// all four operations, and tells what happens. It ends with an error unless all
// four are COMPLETED and the totals are those that the terminal has closed.
//
//	curl -> terminal-dispatcher -> MQTT -> terminal-agent -> ZVT on a serial line -> terminal-simulator
//
// With --keep everything goes on running afterwards.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

const (
	account  = "T11223351"
	terminal = account + "-T0001"
)

// run is main without a process.
func run(ctx context.Context, args []string, stdout io.Writer) (err error) {
	flags := pflag.NewFlagSet("demo", pflag.ContinueOnError)
	flags.SetOutput(stdout)
	keep := flags.Bool("keep", false, "go on running when the four operations are done")
	bin := flags.String("bin", "", "directory of the programs (default: the demo's own)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	dir, err := os.MkdirTemp("", "terminalops-")
	if err != nil {
		return err
	}
	s := &stage{out: stdout, dir: dir, bin: *bin}
	defer func() {
		s.end()
		if err != nil {
			fmt.Fprintf(stdout, "\nWhat the programs have logged is in %s.\n", dir)
			return
		}
		err = os.RemoveAll(dir)
	}()
	if err := s.build(ctx); err != nil {
		return err
	}
	if err := s.play(ctx); err != nil {
		return err
	}
	if !*keep {
		return nil
	}
	s.invite()
	return s.wait(ctx)
}
