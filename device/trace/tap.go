package trace

import (
	"context"
	"slices"
	"sync"
)

// Tap hands events on to whoever wants them now, and keeps the last of each
// terminal for who wants them later. Its methods may be called from any goroutine,
// and of a nil Tap: there is nothing then.
type Tap struct {
	keep int // bytes for each lane

	mu          sync.Mutex
	subscribers map[*subscriber]struct{}
	last        map[string]*memory
}

// subscriber is one of those who listen.
type subscriber struct {
	events chan Event
	missed int
}

// NewTap makes a tap that keeps about so many bytes of events for each terminal.
func NewTap(keep int) *Tap {
	return &Tap{keep: keep, subscribers: map[*subscriber]struct{}{}, last: map[string]*memory{}}
}

// Emit hands an event on. It never waits: a terminal has to be answered in time. A
// subscriber whose channel is full misses the event, and the next one it gets says
// how many it has missed.
func (t *Tap) Emit(e Event) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	lane := t.last[e.Lane]
	if lane == nil {
		lane = new(memory)
		t.last[e.Lane] = lane
	}
	lane.add(e, t.keep)
	for s := range t.subscribers {
		s.send(e)
	}
}

func (s *subscriber) send(e Event) {
	e.Missed = s.missed
	select {
	case s.events <- e:
		s.missed = 0
	default:
		s.missed++
	}
}

// Subscribe returns the events that are kept, oldest first, and a channel with room
// for so many, on which come those emitted from now on: none is in both, and none
// in neither. The channel is closed when ctx ends.
func (t *Tap) Subscribe(ctx context.Context, room int) (past []Event, now <-chan Event) {
	s := &subscriber{events: make(chan Event, room)}
	if t == nil {
		context.AfterFunc(ctx, func() { close(s.events) })
		return nil, s.events
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subscribers[s] = struct{}{}
	context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.subscribers, s)
		close(s.events) // only Emit sends, and it knows s no more
	})
	return t.past(), s.events
}

// Past returns the events that are kept of all terminals, oldest first.
func (t *Tap) Past() []Event {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.past()
}

func (t *Tap) past() []Event {
	var all []Event
	for _, m := range t.last {
		all = append(all, m.events...)
	}
	slices.SortStableFunc(all, func(a, b Event) int { return a.At.Compare(b.At) })
	return all
}

// Last returns the last events of a terminal, oldest first.
func (t *Tap) Last(lane string) []Event {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.last[lane]; m != nil {
		return append([]Event(nil), m.events...)
	}
	return nil
}

// memory is the last events of a lane.
type memory struct {
	events []Event
	size   int // of them all, in bytes
}

func (m *memory) add(e Event, limit int) {
	m.events = append(m.events, e)
	m.size += e.size()
	drop := 0
	for m.size > limit && drop < len(m.events) {
		m.size -= m.events[drop].size()
		m.events[drop] = Event{} // its texts are free
		drop++
	}
	m.events = m.events[drop:]
}

// size is about what an event takes in memory.
func (e Event) size() int {
	const rest = 100 // the members that are no text
	return rest + len(e.Bytes) + len(e.Meaning)
}
