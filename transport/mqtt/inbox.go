package mqtt

import (
	"context"
	"sync"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// inboxLimit is how many bytes may wait in an inbox before the connection is
// not read any further. A broker that minds its window of unacknowledged
// messages does not get there.
const inboxLimit = 8 << 20

// inbox is where messages wait for Receive, in the order of their arrival. It
// stands between the library, whose pings and PUBACKs wait while it delivers a
// message, and a handler that writes to a disk.
type inbox struct {
	mu      sync.Mutex
	waiting []paho.Message
	size    int
	reading bool          // somebody takes
	arrived chan struct{} // holds one if something may wait
	taken   chan struct{} // holds one if something may have been taken
}

func newInbox() *inbox {
	return &inbox{arrived: make(chan struct{}, 1), taken: make(chan struct{}, 1)}
}

// put adds m. It blocks only while the inbox is over its limit, and not before
// the first take: the SUBACK that is waited for first is behind these messages.
func (i *inbox) put(ctx context.Context, m paho.Message) {
	i.mu.Lock()
	i.waiting = append(i.waiting, m)
	i.size += len(m.Payload())
	i.mu.Unlock()
	notify(i.arrived)
	for i.full() {
		select {
		case <-i.taken:
		case <-ctx.Done():
			return
		}
	}
}

func (i *inbox) full() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.reading && i.size > inboxLimit
}

// take removes the oldest message, nil if there is none: then arrived says when
// to ask again.
func (i *inbox) take() paho.Message {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.reading = true
	if len(i.waiting) == 0 {
		return nil
	}
	m := i.waiting[0]
	i.waiting[0] = nil
	i.waiting = i.waiting[1:]
	if len(i.waiting) == 0 {
		i.waiting = nil // idle sessions keep nothing
	}
	i.size -= len(m.Payload())
	notify(i.taken)
	return m
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
