//go:build !windows

package main

import "time"

// stopGrace is how long an operation at work may take once the agent is to
// stop: service managers grant 30 seconds, and the last word needs some of them.
const stopGrace = 25 * time.Second
