package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/term"

	"terminalops/agent/control"
	"terminalops/device/trace"
)

// The screen of debug is a view for a person at a terminal:
//
//	events, status, keys, size, time ---> viewer ---> rows ---> terminalWindow
//	                                        |
//	                                        +---> wishes: operations, a capture, the end
//
//	screen.go           what comes together, and what is done
//	screen_model.go     the viewer: what is known, and what keys mean
//	screen_draw.go      the viewer in rows
//	screen_text.go      rows, colours
//	screen_keys.go      what a terminal sends for a key
//	screen_terminal.go  the window (screen_unix.go, screen_windows.go)

// screen is the view of a person at a terminal; false: there is none.
func (p program) screen(o *onlooker) (view, bool) {
	out, isFile := p.stdout.(*os.File)
	if !isFile || !term.IsTerminal(int(out.Fd())) || !term.IsTerminal(int(os.Stdin.Fd())) || p.getenv("TERM") == "dumb" {
		return nil, false
	}
	undo, err := obeySequences(out)
	if err != nil {
		return nil, false // a console that shows them instead
	}
	undo()
	return func(ctx context.Context, events <-chan trace.Event) error {
		w, err := openWindow(os.Stdin, out, p.getenv("NO_COLOR") == "")
		if err != nil {
			return err
		}
		defer w.close()
		s := screenShow{onlooker: o, by: p.userName(), window: w, viewer: viewer{own: o.own}, done: make(chan func(*viewer))}
		return s.run(ctx, events)
	}, true
}

// screenShow brings together what a viewer is told, and does what it wishes.
type screenShow struct {
	*onlooker
	by     string // who looks on
	window *terminalWindow
	viewer viewer
	keys   keyDecoder
	asked  *confirmation      // the question that is to be read
	asking chan struct{}      // capacity 1: the agent's status is wanted now
	done   chan func(*viewer) // what came of something that took its time
	work   sync.WaitGroup     // what takes its time
}

const (
	// frameTime is how soon something new is shown, together with all that comes
	// in the meantime.
	frameTime = 20 * time.Millisecond
	// escapeTime is how long what follows an ESC may take: it is one Write of the
	// terminal, but a network may be in between.
	escapeTime = 50 * time.Millisecond
	// readingTime is how long a question is shown before an answer counts: what is
	// typed or pasted by then was not meant for it.
	readingTime = 400 * time.Millisecond
)

// run shows events until they end, ctx ends, or the person has seen enough.
func (s *screenShow) run(ctx context.Context, events <-chan trace.Event) error {
	ctx, enough := context.WithCancel(ctx)
	typed, resized := make(chan []byte), make(chan os.Signal, 1)
	s.asking = make(chan struct{}, 1)
	s.work.Go(func() { s.askStatus(ctx) })
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		s.window.read(ctx, typed)
	}()
	defer func() {
		enough()
		s.work.Wait()
		select {
		case <-reading:
		case <-time.After(2 * inputWait): // on Windows it may go on; no more keys are coming for us
		}
	}()
	notifyResized(resized)
	defer signal.Stop(resized)
	second := time.NewTicker(time.Second)
	defer second.Stop()
	var due, undecided, read <-chan time.Time
	s.viewer.now = time.Now()
	s.measure()
	for {
		var wanted wish
		select {
		case e, more := <-events:
			if !more {
				return nil
			}
			s.viewer.see(e)
			if e.Source == trace.Journal {
				s.ask()
			}
		case tell := <-s.done:
			tell(&s.viewer)
		case b := <-typed:
			wanted = s.press(b)
		case <-read:
			s.viewer.mayAnswer()
		case <-undecided:
			if k, pressed := s.keys.nothingFollows(); pressed {
				wanted = s.viewer.press(k)
			}
		case <-reading:
			return errors.New("screen: nobody types here any more")
		case s.viewer.now = <-second.C:
			s.measure()
		case <-resized:
			s.measure()
		case <-due:
			due = nil
			if err := s.window.show(s.viewer.draw()); err != nil {
				return fmt.Errorf("screen: %w", err)
			}
			continue
		case <-ctx.Done():
			return nil
		}
		if s.do(ctx, wanted) {
			return nil
		}
		if question := s.viewer.asking; question != s.asked {
			if s.asked, read = question, nil; question != nil {
				read = time.After(readingTime)
			}
		}
		if undecided = nil; s.keys.undecided() {
			undecided = time.After(escapeTime)
		}
		if due == nil {
			due = time.After(frameTime)
		}
	}
}

func (s *screenShow) measure() { s.viewer.width, s.viewer.height = s.window.measure() }

// press takes what was typed, and returns the first wish in it. The rest is read all
// the same: what is pasted may begin or end there.
func (s *screenShow) press(typed []byte) (w wish) {
	for _, b := range typed {
		if k, pressed := s.keys.take(b); pressed && w.do == noDeed {
			w = s.viewer.press(k)
		}
	}
	return w
}

// do does what was wished, and reports whether that was the end.
func (s *screenShow) do(ctx context.Context, w wish) (end bool) {
	switch w.do {
	case endScreen:
		return true
	case saveEvents:
		s.viewer.say(s.save())
	case runOperation:
		s.work.Go(func() {
			id, err := submit(ctx, s.client, w.terminal, w.operation, s.by)
			if errors.Is(err, control.ErrLost) || errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("%s may have begun: %w", w.operation, err)
			}
			s.tell(ctx, func(v *viewer) {
				v.asked = id
				v.say(fmt.Sprintf("%s is asked for: %s", w.operation, id), advised(err))
			})
			s.ask()
		})
	case takeBack:
		s.work.Go(func() {
			err := s.client.Cancel(ctx, w.operation)
			s.tell(ctx, func(v *viewer) { v.say("taken back", advised(err)) })
			s.ask()
		})
	}
	return false
}

// tell has the viewer told something.
func (s *screenShow) tell(ctx context.Context, something func(*viewer)) {
	select {
	case s.done <- something:
	case <-ctx.Done():
	}
}

// ask has the agent's status asked for at once.
func (s *screenShow) ask() {
	select {
	case s.asking <- struct{}{}:
	default:
	}
}

// askStatus asks for the agent's status, again and again.
func (s *screenShow) askStatus(ctx context.Context) {
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for ctx.Err() == nil {
		answer, enough := context.WithTimeout(ctx, statusPatience)
		status, err := s.client.Status(answer)
		enough()
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("the agent does not answer")
		}
		s.tell(ctx, func(v *viewer) { v.hear(status, err) })
		select {
		case <-s.asking:
		case <-again.C:
		case <-ctx.Done():
		}
	}
}

// save saves all events that are kept as a capture, and says where.
func (s *screenShow) save() (said string, err error) {
	now := s.viewer.now
	name, err := filepath.Abs("terminal-agent-" + now.Local().Format("20060102-150405.000") + ".capture")
	if err != nil {
		return "", err
	}
	f, err := newCapture(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	w, err := trace.NewWriter(f, trace.Header{Software: "terminal-agent " + programVersion(), Made: now})
	for _, e := range s.viewer.kept {
		if err == nil {
			err = w.Write(e)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return "", fmt.Errorf("capture: %w", err)
	}
	return fmt.Sprintf("%d events saved in %s", len(s.viewer.kept), filepath.Base(name)), nil
}
