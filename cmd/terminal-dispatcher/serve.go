package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"terminalops/dispatcher"
	"terminalops/dispatcher/broker"
	"terminalops/dispatcher/store"
	"terminalops/transport"
	"terminalops/transport/mqtt"
)

// stopWait is how long requests that are being served may take once the program
// is to stop.
const stopWait = 10 * time.Second

// serve is the command. What it starts ends in the opposite order: first no
// more requests, then the connection, the broker, the database.
func (p program) serve(ctx context.Context, args []string) error {
	flags := p.flags("serve", "terminal-dispatcher serve --config FILE\n\nServes the HTTP API until interrupted.")
	var s settings
	s.defineServe(p, flags)
	if err := parse(flags, args, 0); err != nil {
		return err
	}
	c, err := s.load()
	if err != nil {
		return err
	}
	level, err := c.level()
	if err != nil {
		return configError{err}
	}
	log := slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: level}))

	db, err := openStore(ctx, c)
	if err != nil {
		return err
	}
	defer db.Close()
	end, closeBroker, err := connect(c, log)
	if err != nil {
		return err
	}
	defer closeBroker()
	d, err := build(c, db, end, log)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen for HTTP: %w", err)
	}
	log.Info("serving", "listen", listener.Addr().String(), "public_url", c.PublicURL, "version", programVersion())
	if err := serveHTTP(ctx, c, d, listener, log); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

func openStore(ctx context.Context, c *config) (*store.Store, error) {
	if err := os.MkdirAll(filepath.Dir(c.Database), 0o700); err != nil {
		return nil, err
	}
	return store.Open(ctx, store.Options{Path: c.Database})
}

// connect returns the dispatcher's end at the broker of the configuration, or at
// an embedded one, which closeBroker ends.
func connect(c *config, log *slog.Logger) (end transport.End, closeBroker func(), err error) {
	if !c.embedded() {
		o, err := c.mqttOptions(log)
		if err != nil {
			return nil, nil, err
		}
		return mqtt.Cloud(o, c.Broker.ClientID), func() {}, nil
	}
	o, err := c.brokerOptions(log)
	if err != nil {
		return nil, nil, err
	}
	b, err := broker.Start(o)
	if err != nil {
		return nil, nil, err
	}
	log.Info("embedded broker takes connections", "listen", b.Addr(), "tls", o.TLS != nil, "users", len(o.Users))
	username, password := b.Credentials()
	return mqtt.Cloud(mqtt.Options{
		URLs: []string{b.URL()}, Prefix: c.Broker.Prefix, Username: username, Password: mqtt.Secret(password), Logger: log,
	}, c.Broker.ClientID), b.Close, nil
}

func build(c *config, db *store.Store, end transport.End, log *slog.Logger) (*dispatcher.Dispatcher, error) {
	tokens, err := c.tokenOptions()
	if err != nil {
		return nil, err
	}
	tokens.Log = log
	verifier, err := dispatcher.NewVerifier(tokens)
	if err != nil {
		return nil, wrong("auth: %w", err)
	}
	uploads, err := c.uploads()
	if err != nil {
		return nil, err
	}
	d, err := dispatcher.New(dispatcher.Options{
		Store: db, End: end, Verifier: verifier, PublicURL: c.PublicURL, Times: c.times(), Uploads: uploads, Log: log,
	})
	if err != nil {
		return nil, configError{err}
	}
	return d, nil
}

// serveHTTP runs the dispatcher and its HTTP server until ctx ends.
func serveHTTP(ctx context.Context, c *config, d *dispatcher.Dispatcher, l net.Listener, log *slog.Logger) error {
	server := &http.Server{
		Handler:           d.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second, // an upload gets more
		WriteTimeout:      20 * time.Minute, // an archive over a slow line, in either direction
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // clients that cannot speak HTTP or TLS
	}
	// The dispatcher goes on until the last request is answered.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return d.Run(running) })
	tasks.Go(func() error {
		err := serveOn(server, l, c.HTTPS)
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("serve HTTP: %w", err)
	})
	tasks.Go(func() error {
		<-ctx.Done()
		defer stop()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
		defer cancel()
		if server.Shutdown(grace) != nil {
			return server.Close() // what still runs has had its time
		}
		return nil
	})
	return tasks.Wait()
}

func serveOn(server *http.Server, l net.Listener, https certificate) error {
	if https.CertFile != "" {
		return server.ServeTLS(l, https.CertFile, https.KeyFile)
	}
	return server.Serve(l)
}
