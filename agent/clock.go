package agent

import (
	"sync"
	"time"
)

// TimeSource is where an agent gets its time from. Tests have their own.
type TimeSource interface {
	// Wall is the PC's clock, which people and NTP set.
	Wall() time.Time
	// Monotonic is the time since some fixed moment. It may stand still while
	// the PC sleeps.
	Monotonic() time.Duration
}

// SystemTime is the PC's time.
type SystemTime struct{ start time.Time }

// NewSystemTime returns the PC's time.
func NewSystemTime() SystemTime { return SystemTime{time.Now()} }

// Wall returns the PC's clock without its monotonic reading.
func (s SystemTime) Wall() time.Time { return time.Now().Round(0) }

// Monotonic returns the monotonic time since NewSystemTime.
func (s SystemTime) Monotonic() time.Duration { return time.Since(s.start) }

const (
	// maxJump is by how much wall and monotonic clock may disagree before what
	// is known of the cloud's clock is void.
	maxJump = 2 * time.Second
	// maxAnswer is how old an answer to a hello may be.
	maxAnswer = 5 * time.Second
)

// cloudClock knows the dispatcher's clock, which decides about expiry.
//
//	hello sent          server_time taken       welcome received         now
//	   |------------------------|------------------------|----------------|
//	  sent                                                             elapsed
//
// The cloud's time now lies between server_time + (now - received) and
// server_time + (now - sent). The late edge decides: a command is rather not
// started than started late.
type cloudClock struct {
	source TimeSource

	mu     sync.Mutex
	synced bool
	server time.Time     // server_time of the last good welcome
	sent   time.Duration // monotonic, of its hello
	half   time.Duration // half its round trip: the best guess lies in the middle
	wall   time.Time     // the PC's clock when the welcome came ...
	mono   time.Duration // ... and the monotonic one
	ownOK  bool          // nobody welcomes here: the PC's clock must do
}

// welcome takes an answer to the hello that was sent at the monotonic time
// sent, and reports whether it was fresh enough to be used.
func (c *cloudClock) welcome(server time.Time, sent time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.source.Monotonic()
	if now-sent > maxAnswer {
		return false
	}
	c.synced, c.ownOK = true, false
	c.server, c.sent, c.half = server, sent, (now-sent)/2
	c.wall, c.mono = c.source.Wall(), now
	return true
}

// useOwn lets the PC's clock decide until a welcome comes.
func (c *cloudClock) useOwn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ownOK = !c.synced
}

// latest returns the latest that the cloud's time can be now; false if it is
// not known, or not any more.
func (c *cloudClock) latest() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.synced {
		return c.source.Wall(), c.ownOK
	}
	now := c.source.Monotonic()
	jump := c.source.Wall().Sub(c.wall) - (now - c.mono)
	if jump > maxJump || jump < -maxJump {
		return time.Time{}, false
	}
	return c.server.Add(now - c.sent), true
}

// now is the best guess of the cloud's time, for everything that is not
// expiry: it is never unknown.
func (c *cloudClock) now() time.Time {
	late, known := c.latest()
	if !known {
		return c.source.Wall()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return late.Add(-c.half)
}
