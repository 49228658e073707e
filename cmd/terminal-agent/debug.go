package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"terminalops/agent"
	"terminalops/agent/control"
	"terminalops/device/trace"
)

// A person looks on:
//
//	the agent that runs --- control socket ---> onlooker --+--> view: lines, or the screen
//	 or, where none does,                                   |
//	one in this process                                     +--> --capture FILE
//
// There is one way: also an agent in this process is asked over its socket.

const debugText = `Shows live what happens: each frame between the agent and the terminal, in words
and in hexadecimal digits, each step of the journal, each message to and from the
cloud, and the log. Card data and passwords are masked (••).

Where the service runs, debug looks on: nothing is started or stopped. Where no
agent runs it is the agent itself, until Ctrl-C, and carries out what the cloud
asks for.

On a terminal this is a screen, with how everything is on top of it, and with keys
to run the operations, to pause, to filter and to save what is shown. Otherwise, and
with --plain, it is lines.`

// debug is `terminal-agent debug`.
func (p program) debug(ctx context.Context, args []string) error {
	flags := p.flags("debug", debugText)
	from := newSource(flags, p.getenv)
	o := onlooker{stderr: p.stderr, events: make(chan trace.Event)}
	flags.StringVar(&o.terminal, "terminal", "", "only what concerns the terminal with this `ID`")
	file := flags.String("capture", "", "also write what is shown to `FILE`, which terminal-agent decode explains")
	plain := flags.Bool("plain", false, "lines, and no screen")
	if err := parse(flags, args); err != nil {
		return err
	}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		var stop func()
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP) // the window goes
		defer stop()
	}
	var err error
	if o.client, err = from.client(); err != nil {
		return err
	}
	if *file != "" {
		capture, err := newCapture(*file)
		if err != nil {
			return err
		}
		defer capture.Close()
		if o.capture, err = trace.NewWriter(capture, trace.Header{Software: "terminal-agent " + programVersion(), Made: time.Now()}); err != nil {
			return err
		}
	}
	view := linesTo(p.stdout)
	if screen, there := p.screen(&o); there && !*plain {
		view = screen
	}
	switch status, err := o.client.Status(ctx); {
	case err == nil:
		var ids []string
		for _, l := range status.Lanes {
			ids = append(ids, l.ID)
		}
		if err := o.checkTerminal(ids); err != nil {
			return err
		}
		return o.lookOn(ctx, view)
	case errors.Is(err, control.ErrNotRunning):
		o.own = true
		return o.serveAndLookOn(ctx, from, view)
	default:
		return advised(err)
	}
}

// newCapture makes the file of a capture, which it does not take from another.
func newCapture(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("capture: %w; give it another name", err)
	}
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	return f, nil
}

// A view shows events until they end, ctx ends, or the person has seen enough.
type view func(ctx context.Context, events <-chan trace.Event) error

// onlooker brings what happens in an agent to a view.
type onlooker struct {
	client   *control.Client
	terminal string        // the only one that is wanted; empty: all
	capture  *trace.Writer // nil: none
	stderr   io.Writer
	own      bool // the agent is this process
	events   chan trace.Event
}

// lookOn shows what happens in the agent that runs. If it ends, the next one is
// waited for: a service that is restarted is worth looking at.
func (o *onlooker) lookOn(ctx context.Context, show view) error {
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	failed := make(chan error, 1)
	go func() {
		defer close(o.events)
		failed <- o.follow(ctx)
	}()
	err := show(ctx, o.events)
	enough()
	if followed := <-failed; err == nil && !errors.Is(followed, context.Canceled) {
		err = followed
	}
	return err
}

// serveAndLookOn is an agent, and shows what happens in it, until ctx ends or the
// person has seen enough; and then how it ends.
func (o *onlooker) serveAndLookOn(ctx context.Context, from *source, show view) error {
	c, err := from.load()
	if err != nil {
		return err
	}
	var ids []string
	for _, t := range c.Terminals {
		ids = append(ids, t.ID)
	}
	if err := o.checkTerminal(ids); err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	engine := watchedEngine{isReady: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- serve(serving, from, engine) }()
	select {
	case err := <-ended:
		return err
	case <-engine.isReady:
	}
	err = o.lookOnToTheEnd(serving, stop, show)
	return errors.Join(err, <-ended)
}

// lookOnToTheEnd shows what happens in our own agent until it has ended: also
// what it does after it was told to, in lines if the view is gone.
func (o *onlooker) lookOnToTheEnd(serving context.Context, stop func(), show view) error {
	toTheEnd, over := context.WithCancel(context.WithoutCancel(serving))
	defer over()
	failed := make(chan error, 1)
	go func() {
		defer close(o.events)
		failed <- o.trace(toTheEnd)
	}()
	err := show(serving, o.events)
	stop()
	err = errors.Join(err, linesTo(o.stderr)(toTheEnd, o.events))
	over() // also if nobody sees it

	if traced := <-failed; !errors.Is(traced, control.ErrLost) { // that is the end
		err = errors.Join(err, traced)
	}
	return err
}

// checkTerminal reports whether the terminal that is wanted is one of these.
func (o *onlooker) checkTerminal(ids []string) error {
	if o.terminal == "" || slices.Contains(ids, o.terminal) {
		return nil
	}
	return advised(fmt.Errorf("%w %q; this agent has %s", agent.ErrUnknownTerminal, o.terminal, strings.Join(ids, ", ")))
}

// pastShown is how many events from before debug was started are shown.
const pastShown = 50

// follow passes on the events of one agent after the other, until ctx ends.
func (o *onlooker) follow(ctx context.Context) error {
	for {
		err := o.trace(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, control.ErrLost) {
			return advised(err)
		}
		o.remark(ctx, "the agent has gone away; waiting for the next one")
		if err := o.await(ctx); err != nil {
			return err
		}
		o.remark(ctx, "an agent runs again")
	}
}

// await waits until an agent runs.
func (o *onlooker) await(ctx context.Context) error {
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		if _, err := o.client.Status(ctx); err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// trace passes on the last of what has happened in the agent that runs, and then
// what happens, until it ends or ctx does.
func (o *onlooker) trace(ctx context.Context) error {
	var past []trace.Event
	live := false
	return o.client.Trace(ctx, func(line json.RawMessage) error {
		var e trace.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("event: %w", err)
		}
		switch {
		case e.At.IsZero():
			live = true
			for _, e := range past[max(0, len(past)-pastShown):] {
				if err := o.pass(ctx, e); err != nil {
					return err
				}
			}
			return nil
		case o.terminal != "" && e.Lane != "" && e.Lane != o.terminal:
			return nil
		case !live:
			past = append(past, e)
			return nil
		default:
			return o.pass(ctx, e)
		}
	})
}

// pass passes an event on, to the capture too.
func (o *onlooker) pass(ctx context.Context, e trace.Event) error {
	if o.capture != nil {
		if err := o.capture.Write(e); err != nil {
			o.capture = nil // a full disk must not end the looking on
			o.remark(ctx, fmt.Sprintf("the capture ends here: %v", err))
		}
	}
	select {
	case o.events <- e:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// remark passes on something that the onlooker itself has to say.
func (o *onlooker) remark(ctx context.Context, words string) {
	o.pass(ctx, trace.Event{At: time.Now(), Source: trace.Log, Direction: trace.Remark, Meaning: "debug: " + words}) // an error is ctx's end
}

// watchedEngine is the supervisor of an agent that runs for an onlooker, who sees
// its log with everything else.
type watchedEngine struct{ isReady chan struct{} }

func (watchedEngine) logHandler(copy io.Writer, level slog.Leveler) slog.Handler {
	return slog.NewTextHandler(copy, &slog.HandlerOptions{Level: level})
}
func (watchedEngine) logFile(string) string         { return "" }
func (watchedEngine) reload() <-chan os.Signal      { return nil }
func (e watchedEngine) ready(*agent.Agent, *config) { close(e.isReady) }
func (watchedEngine) stopping()                     {}
func (watchedEngine) patience() time.Duration       { return 0 }
func (watchedEngine) alive()                        {}
func (watchedEngine) dead()                         {}
