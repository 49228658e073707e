package agent

import (
	"fmt"

	"terminalops/transport"
)

// Cable tells the agent whether the port of a terminal is there; detail says why
// not. While it is not, presence and status say "unreachable", whatever was
// known before, and again what was known when it is back: nobody has asked the
// terminal meanwhile. What the terminal is at work on goes on as with any lost
// link. detail must not be empty. An unknown terminal panics. Cable may be called from any goroutine.
func (a *Agent) Cable(terminalID string, present bool, detail string) {
	for _, l := range a.lanes {
		if l.id == terminalID {
			l.setCable(present, detail)
			return
		}
	}
	panic(fmt.Sprintf("agent: Cable of terminal %q, which is not of this agent", terminalID))
}

// setCable is Cable for this lane. That nobody answered without a cable says
// nothing about the terminal once it is back.
func (l *lane) setCable(present bool, detail string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.unplugged
	l.unplugged = ""
	if !present {
		l.unplugged = cut(detail)
	}
	switch {
	case l.unplugged == was:
		return
	case was == "":
		l.log.Warn("the port is gone", "why", detail)
	case present:
		l.log.Info("the port is there again")
		if l.device.State == transport.DeviceUnreachable {
			l.device.State, l.device.Detail = "", ""
		}
	}
	l.news = true
	l.wakeReporter()
}
