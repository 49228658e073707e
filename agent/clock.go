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
	at     reading       // when the welcome came
	ownOK  bool          // nobody welcomes here: the PC's clock must do
	cloud  bool          // somebody does
}

// reading is both of the PC's clocks at one moment.
type reading struct {
	wall time.Time
	mono time.Duration
}

func (c *cloudClock) read() reading { return reading{c.source.Wall(), c.source.Monotonic()} }

// jumped reports whether the clocks disagree about the time since r: the PC
// slept, or somebody has set its clock.
func (r reading) jumped(now reading) bool {
	jump := now.wall.Sub(r.wall) - (now.mono - r.mono)
	return jump > maxJump || jump < -maxJump
}

// welcome takes an answer to the hello of sent, and reports whether it was
// fresh enough to be used.
func (c *cloudClock) welcome(server time.Time, sent reading) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.read()
	c.ownOK, c.cloud = false, true // however late
	if now.mono-sent.mono > maxAnswer || sent.jumped(now) {
		return false
	}
	c.synced = true
	c.server, c.sent, c.half, c.at = server, sent.mono, (now.mono-sent.mono)/2, now
	return true
}

// forget makes the cloud's time unknown again.
func (c *cloudClock) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.synced = false
}

// isSynced reports whether the cloud has told its time since it was last
// forgotten.
func (c *cloudClock) isSynced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.synced && !c.at.jumped(c.read())
}

// useOwn lets the PC's clock decide until a welcome comes, if none ever has.
func (c *cloudClock) useOwn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ownOK = !c.synced && !c.cloud
}

// latest returns the latest that the cloud's time can be now; false if it is
// not known, or not any more.
func (c *cloudClock) latest() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.synced {
		return c.source.Wall(), c.ownOK
	}
	now := c.read()
	if c.at.jumped(now) {
		return time.Time{}, false
	}
	return c.server.Add(now.mono - c.sent), true
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
