package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"

	"terminalops/agent"
	"terminalops/agent/control"
	"terminalops/device/trace"
)

// openControl lets people at the store ask the agent, until the function that it
// returns is called. An agent that cannot be asked does its work all the same.
func openControl(a *agent.Agent, stateDir string, tap *trace.Tap, logger *slog.Logger) (closeControl func()) {
	l, err := control.Listen(stateDir)
	if err != nil {
		logger.Error("status, history and operation cannot reach this agent: " + err.Error())
		return func() {}
	}
	server := control.Server{Agent: a, Events: events(tap), Logger: logger}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(ctx, l); err != nil {
			logger.Error("status, history and operation cannot reach this agent any more: " + err.Error())
		}
	})
	return func() {
		cancel()
		serving.Wait()
	}
}

// asking is a command that asks the agent that runs.
type asking struct {
	source
	json bool
}

// askingFlags makes the flags of such a command.
func (p program) askingFlags(command, text string) (*pflag.FlagSet, *asking) {
	flags, a := p.flags(command, text), new(asking)
	a.addFile(flags, p.getenv)
	flags.StringVar(&a.stateDir, "state-dir", p.getenv("TERMINAL_AGENT_STATE_DIR"), "the agent's, instead of state_dir of the configuration (TERMINAL_AGENT_STATE_DIR)")
	flags.BoolVar(&a.json, "json", false, "for scripts")
	return flags, a
}

// client is the way to the agent. Of the configuration it needs the state
// directory only: the agent may run with the rest of it as it was before.
func (s *source) client() (*control.Client, error) {
	if s.stateDir != "" {
		return &control.Client{StateDir: s.stateDir}, nil
	}
	content, err := os.ReadFile(s.file)
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("configuration: %w; %s", err, needsElevation)
	case err != nil:
		return nil, configError{fmt.Errorf("configuration: %w", err)}
	}
	var c struct {
		StateDir string `toml:"state_dir"`
	}
	if err := toml.Unmarshal(content, &c); err != nil {
		return nil, configError{fmt.Errorf("%s: %w", s.file, err)}
	}
	if c.StateDir == "" {
		return nil, configError{fmt.Errorf("%s: state_dir is missing", s.file)}
	}
	return &control.Client{StateDir: c.StateDir}, nil
}

// advised adds to an error of the control socket what can be done.
func advised(err error) error {
	switch {
	case errors.Is(err, control.ErrNotRunning):
		return fmt.Errorf("%w; start it with: terminal-agent service start, or terminal-agent run", err)
	case errors.Is(err, control.ErrNotPermitted):
		return fmt.Errorf("%w; %s", err, needsElevation)
	case errors.Is(err, agent.ErrUnknownTerminal), errors.Is(err, agent.ErrUnknownOperation):
		return configError{err}
	default:
		return err
	}
}

// writeJSON writes a value as one line.
func writeJSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(value)
}

// table is for rows of cells that end with tabs.
func table(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }

// when is a time as people at the store read it.
func when(t time.Time) string { return t.Local().Format(time.DateTime) }

// orDash makes an empty cell visible.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
