package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// A message may be written so often within a time; what is more is counted.
const (
	repeatsAllowed = 5
	repeatsWithin  = time.Minute
)

// repeats is a slog.Handler that lets no message flood the log: of lines with
// the same text, terminal and operation some pass, and a line at the end of the
// minute counts the others.
type repeats struct {
	next                slog.Handler
	terminal, operation string // of WithAttrs
	seen                *seen  // of all handlers made from one
}

// seen are the messages of this minute.
type seen struct {
	mu       sync.Mutex
	messages map[message]*count
}

// message is what makes lines the same.
type message struct {
	level                     slog.Level
	text, terminal, operation string
}

// count is how often a message came.
type count struct {
	until time.Time
	n     int
	last  slog.Record  // the latest that was not written
	next  slog.Handler // it was for
	timer *time.Timer  // set with the first that was not written
}

func newRepeats(next slog.Handler) *repeats {
	return &repeats{next: next, seen: &seen{messages: map[message]*count{}}}
}

// Enabled implements slog.Handler.
func (h *repeats) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *repeats) Handle(ctx context.Context, r slog.Record) error {
	if h.surplus(r) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// surplus counts a record, and reports whether it came too often to be written.
func (h *repeats) surplus(r slog.Record) bool {
	m := message{r.Level, r.Message, h.terminal, h.operation}
	r.Attrs(func(a slog.Attr) bool {
		m.note(a)
		return true
	})
	h.seen.mu.Lock()
	defer h.seen.mu.Unlock()
	now := time.Now()
	c := h.seen.messages[m]
	if c == nil {
		h.seen.forget(now)
		c = &count{until: now.Add(repeatsWithin)}
		h.seen.messages[m] = c
	}
	if c.timer == nil && !now.Before(c.until) {
		*c = count{until: now.Add(repeatsWithin)}
	}
	if c.n++; c.n <= repeatsAllowed {
		return false
	}
	c.last, c.next = r.Clone(), h.next
	if c.timer == nil {
		c.timer = time.AfterFunc(time.Until(c.until), func() { h.seen.sum(m, c) })
	}
	return true
}

// note takes what tells one message from another.
func (m *message) note(a slog.Attr) {
	switch a.Key {
	case "terminal":
		m.terminal = a.Value.String()
	case "operation":
		m.operation = a.Value.String()
	}
}

// forget drops the messages of past minutes. s.mu is held.
func (s *seen) forget(now time.Time) {
	for m, c := range s.messages {
		if c.timer == nil && !now.Before(c.until) {
			delete(s.messages, m)
		}
	}
}

// sum writes how often a message came that was not written, with what else the
// latest one said.
func (s *seen) sum(m message, c *count) {
	s.mu.Lock()
	if s.messages[m] != c {
		s.mu.Unlock()
		return // flush was faster
	}
	delete(s.messages, m)
	s.mu.Unlock()
	r := c.last
	r.Time = time.Now()
	r.Message += fmt.Sprintf(" (repeated %d times)", c.n-repeatsAllowed)
	_ = c.next.Handle(context.Background(), r) // as slog.Logger does
}

// flush writes all counts, before the log ends.
func (h *repeats) flush() {
	h.seen.mu.Lock()
	due := map[message]*count{}
	for m, c := range h.seen.messages {
		if c.timer != nil && c.timer.Stop() {
			due[m] = c
		}
	}
	h.seen.mu.Unlock()
	for m, c := range due {
		h.seen.sum(m, c)
	}
}

// WithAttrs implements slog.Handler.
func (h *repeats) WithAttrs(attrs []slog.Attr) slog.Handler {
	m := message{terminal: h.terminal, operation: h.operation}
	for _, a := range attrs {
		m.note(a)
	}
	return &repeats{h.next.WithAttrs(attrs), m.terminal, m.operation, h.seen}
}

// WithGroup implements slog.Handler.
func (h *repeats) WithGroup(name string) slog.Handler {
	return &repeats{h.next.WithGroup(name), h.terminal, h.operation, h.seen}
}
