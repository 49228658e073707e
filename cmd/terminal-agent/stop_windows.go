package main

import "time"

// stopGrace is how long an operation at work may take once the agent is to
// stop: Windows grants three seconds, and the last word needs some of them.
const stopGrace = time.Second
