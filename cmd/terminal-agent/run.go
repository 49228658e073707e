package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
	_ "time/tzdata" // Windows has no zone names of its own

	"terminalops/agent"
	"terminalops/device"
	"terminalops/device/link"
	"terminalops/device/zvt"
	"terminalops/device/zvt/frame"
	"terminalops/transport/mqtt"
)

// runAgent is `terminal-agent run`.
func runAgent(ctx context.Context, args []string, stdout, stderr io.Writer, getenv func(string) string) error {
	c, err := loadConfig(args, stdout, getenv)
	if err != nil {
		return err
	}
	latest := newLogTail(stderr)
	level, _ := c.level() // checked
	logger := slog.New(slog.NewTextHandler(latest, &slog.HandlerOptions{Level: level}))
	options := agent.Options{
		StateDir:   c.StateDir,
		Version:    programVersion(),
		Logger:     logger,
		OwnLog:     latest.masked,
		ResolveFor: time.Duration(c.ResolveFor),
		Grace:      stopGrace,
	}
	for _, t := range c.Terminals {
		lane, err := newLane(c, t, logger)
		if err != nil {
			return configError{fmt.Errorf("terminal %s: %w", t.ID, err)}
		}
		options.Lanes = append(options.Lanes, lane)
	}
	a, err := agent.New(options)
	if err != nil {
		return err
	}
	logger.Info("started", "version", programVersion(), "terminals", len(c.Terminals), "state_dir", c.StateDir)
	err = a.Run(ctx)
	logger.Info("stopped")
	return err
}

// newLane builds one terminal from its part of the configuration.
func newLane(c *config, t terminalConfig, logger *slog.Logger) (agent.Lane, error) {
	broker, err := brokerOptions(c.Broker, t, logger)
	if err != nil {
		return agent.Lane{}, err
	}
	if err := broker.Check(); err != nil {
		return agent.Lane{}, err
	}
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
		Logger:     logger.With("terminal", t.ID),
	})
	if err != nil {
		return agent.Lane{}, err
	}
	return agent.Lane{ID: t.ID, Link: t.address.String(), Terminal: terminal, End: mqtt.Agent(broker, t.ID)}, nil
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
