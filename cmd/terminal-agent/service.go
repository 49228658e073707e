package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/kardianos/service"
)

// What the service is called, on every system.
const (
	serviceName        = "terminal-agent"
	serviceDisplayName = "Terminal Agent"
	serviceDescription = "Carries out operations on payment terminals: end of day, logs, updates."
)

// controlTimeout is how long a service manager may take for anything: longer
// than a start or a stop that ends well.
const controlTimeout = 90 * time.Second

// serviceState is what the service manager says.
type serviceState struct {
	installed bool
	running   bool
	packaged  string // the unit, if a package has brought it and takes it away
	words     string // for people
}

var serviceCommands = map[string]struct {
	text string
	do   func(p program, ctx context.Context, o installOptions) error
}{
	"install":   {"Installs the agent as a service that starts with the machine.", program.serviceInstall},
	"uninstall": {"Stops and removes the service. Configuration and journal stay.", program.serviceUninstall},
	"start":     {"Starts the service and waits until it is ready.", program.serviceStart},
	"stop":      {"Stops the service. An operation at work is given time to end.", program.serviceStop},
	"restart":   {"Stops and starts the service.", program.serviceRestart},
	"status":    {"Says how the service is: exit code 0 if it runs, 1 if not.", program.serviceStatus},
}

// installOptions are the flags of `service install`.
type installOptions struct {
	from         source
	delayedStart *bool // nil: as it is
}

// service is `terminal-agent service`.
func (p program) service(ctx context.Context, args []string) error {
	const want = "install, uninstall, start, stop, restart or status"
	if len(args) == 0 {
		return configError{errors.New("service: want " + want)}
	}
	name := args[0]
	command, known := serviceCommands[name]
	if !known {
		return configError{fmt.Errorf("service: unknown command %q; want %s", name, want)}
	}
	var o installOptions
	flags := p.flags("service "+name, command.text)
	if name == "install" {
		o.from.addFile(flags, p.getenv)
		addPlatformFlags(flags, &o)
	}
	if err := parse(flags, args[1:]); err != nil {
		return err
	}
	if !flags.Changed("delayed-start") {
		o.delayedStart = nil
	}
	if err := controllable(); err != nil {
		return fmt.Errorf("service %s: %w", name, err)
	}
	if name != "status" && !elevated() {
		return fmt.Errorf("service %s: %s", name, needsElevation)
	}
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	if err := command.do(p, ctx, o); err != nil {
		return fmt.Errorf("service %s: %w", name, err)
	}
	return nil
}

func (p program) serviceInstall(ctx context.Context, o installOptions) error {
	state, err := queryService(ctx)
	if err != nil {
		return err
	}
	if state.packaged != "" {
		fmt.Fprintf(p.stdout, "installed already: %s belongs to the package\n", state.packaged)
		return nil
	}
	c, err := o.from.load()
	if err != nil {
		return err
	}
	if _, err := newLanes(c, nil, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	definition, err := prepareService(ctx, exe, c, o)
	if err != nil {
		return err
	}
	if state.installed {
		if err := updateService(ctx, definition); err != nil {
			return err
		}
		fmt.Fprintln(p.stdout, "installed already")
	} else if err := controlService(ctx, definition, service.Service.Install); err != nil {
		return err
	}
	if err := completeService(o); err != nil {
		return err
	}
	if !state.installed {
		fmt.Fprintf(p.stdout, "installed: %s, with %s\nstart it with: terminal-agent service start\n", exe, o.from.file)
	}
	return nil
}

func (p program) serviceUninstall(ctx context.Context, _ installOptions) error {
	state, err := queryService(ctx)
	switch {
	case err != nil:
		return err
	case state.packaged != "":
		return fmt.Errorf("%s belongs to the package; remove the package", state.packaged)
	case !state.installed:
		fmt.Fprintln(p.stdout, "not installed")
		return nil
	}
	if state.running {
		if err := stopService(ctx); err != nil {
			return err
		}
	}
	if err := controlService(ctx, plainDefinition(), service.Service.Uninstall); err != nil {
		return err
	}
	fmt.Fprintln(p.stdout, "uninstalled; configuration and journal are still there")
	return nil
}

func (p program) serviceStart(ctx context.Context, _ installOptions) error {
	state, err := installedService(ctx)
	if err != nil {
		return err
	}
	if state.running {
		fmt.Fprintln(p.stdout, "running already")
		return nil
	}
	return p.startAndSay(ctx)
}

func (p program) serviceStop(ctx context.Context, _ installOptions) error {
	state, err := installedService(ctx)
	if err != nil {
		return err
	}
	if !state.running {
		fmt.Fprintln(p.stdout, "stopped already")
		return nil
	}
	if err := stopService(ctx); err != nil {
		return err
	}
	fmt.Fprintln(p.stdout, "stopped")
	return nil
}

func (p program) serviceRestart(ctx context.Context, _ installOptions) error {
	state, err := installedService(ctx)
	if err != nil {
		return err
	}
	if state.running {
		if err := stopService(ctx); err != nil {
			return err
		}
	}
	return p.startAndSay(ctx)
}

func (p program) serviceStatus(ctx context.Context, _ installOptions) error {
	state, err := queryService(ctx)
	if err != nil {
		return err
	}
	if !state.running {
		return errors.New(state.words)
	}
	fmt.Fprintln(p.stdout, state.words)
	return nil
}

func (p program) startAndSay(ctx context.Context) error {
	if err := controlService(ctx, plainDefinition(), service.Service.Start); err != nil {
		return fmt.Errorf("%w; %s", err, whereTheLogIs)
	}
	state, err := awaitService(ctx)
	if err != nil {
		return err
	}
	if !state.running {
		return fmt.Errorf("%s; %s", state.words, whereTheLogIs)
	}
	fmt.Fprintln(p.stdout, state.words)
	return nil
}

func stopService(ctx context.Context) error {
	return controlService(ctx, plainDefinition(), service.Service.Stop)
}

// installedService is the state of a service that has to be there.
func installedService(ctx context.Context) (serviceState, error) {
	state, err := queryService(ctx)
	if err == nil && !state.installed {
		err = errors.New("not installed; `terminal-agent service install` does that")
	}
	return state, err
}

// controlService has the service library do something. Some of it waits for ever when
// Windows does not answer.
func controlService(ctx context.Context, definition *service.Config, do func(service.Service) error) error {
	s, err := service.New(nil, definition) // the library does not run the agent
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- do(s) }()
	select {
	case err := <-done:
		if err != nil {
			return errors.New(strings.TrimSpace(err.Error()))
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the service manager does not answer: %w", ctx.Err())
	}
}

// plainDefinition names the service, for all but its installation.
func plainDefinition() *service.Config { return &service.Config{Name: serviceName} }
