package main

import (
	"context"
	"sync"

	"terminalops/device/zvt/zvttest"
)

// cable connects the terminal with the world. A person can pull it and plug it
// in again; the terminal goes on with what it has begun.
type cable struct {
	terminal *zvttest.Terminal
	say      func(string)

	turn    chan struct{} // capacity 1: whose stream the terminal has
	serving sync.WaitGroup

	mu      sync.Mutex
	out     bool
	changed chan struct{}      // closed and replaced by move
	cut     context.CancelFunc // ends what is plugged in
}

func newCable(t *zvttest.Terminal, say func(string)) *cable {
	return &cable{terminal: t, say: say, turn: make(chan struct{}, 1), changed: make(chan struct{}), cut: func() {}}
}

// pull and plug report whether the cable was the other way before.
func (c *cable) pull() bool { return c.move(true) }
func (c *cable) plug() bool { return c.move(false) }

func (c *cable) move(out bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out == out {
		return false
	}
	c.out = out
	if out {
		c.cut()
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return true
}

func (c *cable) isOut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out
}

// awaitPlugged waits until the cable is in, or ctx ends. The context that it
// returns ends with ctx, and when the cable is pulled.
func (c *cable) awaitPlugged(ctx context.Context) (plugged context.Context) {
	for {
		c.mu.Lock()
		if !c.out {
			plugged, c.cut = context.WithCancel(ctx)
			c.mu.Unlock()
			return plugged
		}
		moved := c.changed
		c.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx
		}
	}
}

// serve has the terminal serve a stream as soon as it is through with the one
// before. What it returns gets the error; wait waits for all.
func (c *cable) serve(ctx context.Context, serve func() error) <-chan error {
	ended := make(chan error, 1)
	c.serving.Go(func() {
		select {
		case c.turn <- struct{}{}:
			ended <- serve()
			<-c.turn
		case <-ctx.Done():
			ended <- nil
		}
	})
	return ended
}

func (c *cable) wait() { c.serving.Wait() }
