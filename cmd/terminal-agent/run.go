package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"terminalops/agent"
	"terminalops/device"
	"terminalops/device/link"
	"terminalops/device/trace"
	"terminalops/device/zvt"
	"terminalops/device/zvt/frame"
	"terminalops/transport/mqtt"
)

// run is `terminal-agent run`.
func (p program) run(ctx context.Context, args []string) error {
	flags := p.flags("run", "Serves the terminals of the configuration until it is interrupted.")
	from := newSource(flags, p.getenv)
	service := flags.Bool("service", false, "speak to systemd, or to the service manager of Windows, which has started this program")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *service {
		return supervise(ctx, from)
	}
	return serve(ctx, from, console{p.stderr})
}

// A supervisor has started the agent and wants to know how it does.
type supervisor interface {
	// logHandler is where the log goes; its lines also go to copy.
	logHandler(copy io.Writer, level slog.Leveler) slog.Handler
	// logFile is where the log also goes if the configuration does not say;
	// empty: nowhere.
	logFile(stateDir string) string
	// reload gets a value when log_level is to be read again; nil: never.
	reload() <-chan os.Signal
	// ready: the configuration is right and the journal is open.
	ready(a *agent.Agent, c *config)
	// stopping: the agent does what it does last.
	stopping()
	// patience is how long the agent may hang; 0 is for ever.
	patience() time.Duration
	// alive: the agent was seen to work. dead: it was not, for so long.
	alive()
	dead()
}

// serve is the agent's life.
func serve(ctx context.Context, from *source, s supervisor) error {
	l := newLog(s)
	c, err := from.load()
	if err != nil {
		l.Error(err.Error()) // a supervisor has to be told why, too
		return err
	}
	l.configure(c, s)
	defer l.end()
	defer l.reloads(s.reload(), from)()
	err = serveConfig(ctx, c, l, s)
	if err != nil {
		l.Error(err.Error())
	}
	return err
}

func serveConfig(ctx context.Context, c *config, l *log, s supervisor) error {
	logger := l.Logger
	lanes, err := newLanes(c, l.tap, logger)
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Options{
		StateDir:   c.StateDir,
		Lanes:      lanes,
		Version:    programVersion(),
		Logger:     logger,
		OwnLog:     l.latest.masked,
		ResolveFor: time.Duration(c.ResolveFor),
		Grace:      stopGrace,
	})
	if errors.Is(err, agent.ErrNewerJournal) {
		return configError{err} // trying again does not mend it
	}
	if err != nil {
		return err
	}
	logger.Info("started", "version", programVersion(), "terminals", len(lanes), "state_dir", c.StateDir)
	defer openControl(a, c.StateDir, l.tap, logger)()
	s.ready(a, c)
	defer watchCables(a, c.Terminals)()
	defer announceStop(ctx, s, logger)()
	watching, stop := context.WithCancel(context.WithoutCancel(ctx)) // also while it stops
	defer stop()
	go watch(watching, a.Alive, s, logger)
	err = a.Run(ctx)
	logger.Info("stopped")
	return err
}

// announceStop tells the supervisor when ctx ends. The returned function waits until
// that is done: otherwise an agent that ends at once ends without it.
func announceStop(ctx context.Context, s supervisor, logger *slog.Logger) (wait func()) {
	told := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(told)
		logger.Info("stopping", "grace", stopGrace)
		s.stopping()
	})
	return func() {
		if !cancel() {
			<-told
		}
	}
}

// watch asks again and again whether the agent is alive and tells the
// supervisor, until ctx ends. Answers are counted, not time: nothing is dead
// because the PC has slept.
func watch(ctx context.Context, alive func(context.Context) error, s supervisor, logger *slog.Logger) {
	if s.patience() == 0 {
		return
	}
	const asks = 6 // within the patience
	ticker := time.NewTicker(s.patience() / asks)
	defer ticker.Stop()
	for missed := 0; ; {
		asking, stop := context.WithTimeout(ctx, s.patience()/asks)
		err := alive(asking)
		stop()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			missed = 0
			s.alive()
		default:
			missed++
			logger.Error("the agent hangs: " + err.Error())
			if missed >= asks {
				s.dead()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// watchCables tells the agent which of its ports are there, until stop is called.
func watchCables(a *agent.Agent, terminals []terminalConfig) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	for _, t := range terminals {
		watching.Go(func() {
			for state := range link.Watch(ctx, t.address) {
				a.Cable(t.ID, state.Present, state.Detail)
			}
		})
	}
	return func() {
		cancel()
		watching.Wait()
	}
}

// console is a person who has started the agent.
type console struct{ stderr io.Writer }

func (c console) logHandler(copy io.Writer, level slog.Leveler) slog.Handler {
	return slog.NewTextHandler(io.MultiWriter(copy, c.stderr), &slog.HandlerOptions{Level: level})
}
func (console) logFile(string) string       { return "" }
func (console) reload() <-chan os.Signal    { return nil } // SIGHUP is a terminal that is closed
func (console) ready(*agent.Agent, *config) {}
func (console) stopping()                   {}
func (console) patience() time.Duration     { return 0 }
func (console) alive()                      {}
func (console) dead()                       {}

// newLanes builds the terminals of the configuration. The tap, which may be nil,
// sees what happens to them.
func newLanes(c *config, tap *trace.Tap, logger *slog.Logger) (lanes []agent.Lane, err error) {
	for _, t := range c.Terminals {
		lane, err := newLane(c, t, tap, logger)
		if err != nil {
			return nil, configError{fmt.Errorf("terminal %s: %w", t.ID, err)}
		}
		lanes = append(lanes, lane)
	}
	return lanes, nil
}

// newLane builds one terminal from its part of the configuration.
func newLane(c *config, t terminalConfig, tap *trace.Tap, logger *slog.Logger) (agent.Lane, error) {
	broker, err := brokerOptions(c.Broker, t, logger)
	if err != nil {
		return agent.Lane{}, err
	}
	if err := broker.Check(); err != nil {
		return agent.Lane{}, err
	}
	work := new(working)
	terminal, err := zvt.New(zvt.Options{
		Open: func(ctx context.Context) (frame.Stream, error) {
			s, err := link.Open(ctx, t.address, link.Options{Baud: t.Baud, StopBits: t.StopBits})
			return s, linkError(err)
		},
		Serial:     t.address.Kind() != link.TCP,
		Baud:       t.Baud,
		T1:         time.Duration(t.ZVT.T1),
		T3:         time.Duration(t.ZVT.T3),
		T4:         time.Duration(t.ZVT.T4),
		Password:   t.ZVT.Password,
		Currency:   t.ZVT.Currency,
		ConfigByte: byte(*t.ZVT.ConfigByte),
		Receipt:    t.ZVT.Receipt,
		Location:   t.location,
		Logger:     slog.New(operationHandler{logger.Handler(), work}).With("terminal", t.ID),
		Tap:        tap,
		Lane:       t.ID,
	})
	if err != nil {
		return agent.Lane{}, err
	}
	lane := agent.Lane{ID: t.ID, Link: t.address.String(), Terminal: terminal, End: mqtt.Agent(broker, t.ID), Working: work.on}
	return watched(lane, tap), nil
}

// linkError says in the words of package device why a link is not open.
func linkError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, link.ErrBusy):
		return fmt.Errorf("%w: %w", device.ErrBusy, err)
	default:
		return fmt.Errorf("%w: %w", device.ErrUnreachable, err)
	}
}

// brokerOptions are those of [broker], with the credentials of the terminal if
// it brings its own.
func brokerOptions(b brokerConfig, t terminalConfig, logger *slog.Logger) (mqtt.Options, error) {
	password, file := b.password, b.PasswordFile
	if t.Username != "" || t.CertFile != "" {
		b.Username, b.CertFile, b.KeyFile = t.Username, t.CertFile, t.KeyFile
		password, file = "", t.PasswordFile
	}
	if password == "" && file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return mqtt.Options{}, fmt.Errorf("password_file: %w", err)
		}
		password = strings.TrimRight(string(content), "\r\n")
	}
	return mqtt.Options{
		URLs: b.URLs, Prefix: b.Prefix, CAFile: b.CAFile, Proxy: mqtt.Secret(b.Proxy),
		CertFile: b.CertFile, KeyFile: b.KeyFile,
		Username: b.Username, Password: mqtt.Secret(password),
		Logger: logger.With("terminal", t.ID),
	}, nil
}
