package main

import (
	"fmt"
	"slices"
	"time"

	"terminalops/agent"
	"terminalops/device"
	"terminalops/device/trace"
	"terminalops/transport"
)

// viewer is all that the screen shows, and what keys make of it. It does nothing
// itself: what somebody wants done is a wish.
type viewer struct {
	own           bool // the agent is this process: it ends with the screen
	now           time.Time
	width, height int

	status   agent.Status
	away     string // why there is none now; empty: there is one
	selected string // the terminal that is shown in full, and that keys are for

	kept     []trace.Event // the latest, at most eventsKept
	missed   int           // how many came before them
	filter   int           // of filters
	paused   bool
	end      int // paused: the number of the first event below those that are shown
	pausedAt int // the number of events when it was

	asking *confirmation
	asked  string // the operation that was asked for here last
	said   notice
}

// eventsKept is how many events can be scrolled to and saved.
const eventsKept = 5000

// confirmation is what is asked before something is done.
type confirmation struct {
	text   string
	wish   wish
	counts bool // it was there long enough to be read: an answer is one
}

// notice is what there is to say about the last wish, for a while.
type notice struct {
	text  string
	bad   bool
	until time.Time
}

// noticeLasts is how long; a key ends it, too.
const noticeLasts = 10 * time.Second

// A wish is what somebody wants done.
type wish struct {
	do        deed
	terminal  string
	operation string // its name, or the id of one that was asked for
}

type deed string

const (
	noDeed       deed = ""
	runOperation deed = "submit"
	takeBack     deed = "take back"
	saveEvents   deed = "save"
	endScreen    deed = "quit"
)

// filters are what can be shown of the events.
var filters = []struct {
	name  string
	shows func(trace.Event) bool
}{
	{"all events", func(trace.Event) bool { return true }},
	{"the line", func(e trace.Event) bool { return e.Source == trace.Line }},
	{"journal and cloud", func(e trace.Event) bool { return e.Source != trace.Line && e.Source != trace.Log }},
	{"the log", func(e trace.Event) bool { return e.Source == trace.Log }},
}

// operations are those that keys run.
var operations = []struct {
	key       key
	operation device.Operation
	name      string // in a question
}{
	{'e', device.EndOfDay, "End of day"},
	{'l', device.SendLogs, "Send the logs of"},
	{'u', device.CheckUpdate, "Check for an update"},
	{'m', device.OpenMenu, "Open the menu"},
}

// see takes an event.
func (v *viewer) see(e trace.Event) {
	v.kept = append(v.kept, e)
	if more := len(v.kept) - eventsKept; more > 0 {
		v.kept = v.kept[more:]
		v.missed += more
	}
}

// total is the number of events so far. Events are numbered from 0.
func (v *viewer) total() int { return v.missed + len(v.kept) }

// hear takes the agent's status, or why there is none.
func (v *viewer) hear(s agent.Status, err error) {
	if err != nil {
		v.away = err.Error()
		return
	}
	v.status, v.away = s, ""
	if v.lane() == nil && len(s.Lanes) > 0 {
		v.selected = s.Lanes[0].ID
	}
}

// lane is the terminal that is shown in full; nil: not known yet.
func (v *viewer) lane() *agent.LaneStatus {
	for i, l := range v.status.Lanes {
		if l.ID == v.selected {
			return &v.status.Lanes[i]
		}
	}
	return nil
}

// say shows what there is to say about a wish.
func (v *viewer) say(text string, err error) {
	v.said = notice{text: text, until: v.now.Add(noticeLasts)}
	if err != nil {
		v.said.text, v.said.bad = err.Error(), true
	}
}

// press takes a key, and returns what it is to have done.
func (v *viewer) press(k key) wish {
	v.said = notice{}
	if q := v.asking; q != nil {
		if !q.counts && k != keyInterrupt {
			return wish{}
		}
		v.asking = nil
		if k == 'y' || k == 'Y' || k == keyInterrupt && q.wish.do == endScreen {
			return q.wish
		}
		return wish{}
	}
	if v.tooSmall() && k != 'q' && k != keyInterrupt {
		return wish{} // nobody could read a question
	}
	switch k {
	case 'q', keyInterrupt:
		return v.ask("The agent ends, too. End?", wish{do: endScreen}, v.own)
	case 's':
		return wish{do: saveEvents}
	case 'x':
		return wish{do: takeBack, operation: v.waiting()}.unless(v.waiting() == "")
	case 'f':
		v.filter = (v.filter + 1) % len(filters)
	case 'p':
		v.pause(!v.paused)
	case keyTab:
		v.selectNext()
	case keyUp, keyDown, keyPageUp, keyPageDown, keyHome, keyEnd:
		v.scroll(k)
	}
	for _, o := range operations {
		if o.key == k {
			return v.askFor(o.operation, o.name)
		}
	}
	return wish{}
}

// unless is a wish, or none.
func (w wish) unless(not bool) wish {
	if not {
		return wish{}
	}
	return w
}

// ask asks a question first, if it has to be asked.
func (v *viewer) ask(text string, w wish, first bool) wish {
	if !first {
		return w
	}
	v.asking = &confirmation{text: text, wish: w}
	return wish{}
}

// mayAnswer: the question was there long enough to be read.
func (v *viewer) mayAnswer() {
	if v.asking != nil {
		v.asking.counts = true
	}
}

// askFor asks before an operation is run: it may be somebody's money.
func (v *viewer) askFor(operation device.Operation, name string) wish {
	if v.away != "" || v.lane() == nil {
		v.say("", fmt.Errorf("%s cannot be asked for: no agent answers", operation))
		return wish{}
	}
	on := " on "
	if operation == device.SendLogs {
		on = " "
	}
	return v.ask(name+on+asAsked(v.selected)+", now?", wish{do: runOperation, terminal: v.selected, operation: string(operation)}, true)
}

// asAsked is a terminal's id in a question, of which the end has to be seen.
func asAsked(id string) string {
	if len(id) > leastWidth/2 {
		return shortID(id)
	}
	return id
}

// waiting is the id of the operation that was asked for here, if it has not
// started.
func (v *viewer) waiting() string {
	for _, l := range v.status.Lanes {
		records := l.Queue
		if l.Working != nil {
			records = append(slices.Clone(records), *l.Working)
		}
		for _, r := range records {
			if r.ID == v.asked && r.State == transport.StateAccepted {
				return r.ID
			}
		}
	}
	return ""
}

func (v *viewer) selectNext() {
	for i, l := range v.status.Lanes {
		if l.ID == v.selected {
			v.selected = v.status.Lanes[(i+1)%len(v.status.Lanes)].ID
			return
		}
	}
}

func (v *viewer) pause(on bool) {
	v.paused, v.end, v.pausedAt = on, v.total(), v.total()
}

// scroll moves what is shown, and pauses: what comes must not move it.
func (v *viewer) scroll(k key) {
	if !v.paused {
		v.pause(true)
	}
	v.end = max(v.end, v.missed) // what was there may be gone
	page := max(1, v.onScreen()-1)
	switch k {
	case keyUp:
		v.end = v.before(v.end, 1)
	case keyDown:
		v.end = v.behind(v.end, 1)
	case keyPageUp:
		v.end = v.before(v.end, page)
	case keyPageDown:
		v.end = v.behind(v.end, page)
	case keyHome:
		v.end = 0
	case keyEnd:
		v.end = v.total()
	}
	v.end = max(v.end, v.firstPage())
}

// before is the number of the event that so many shown ones are between it and the
// end of the page; behind is the same in the other direction.
func (v *viewer) before(end, n int) int {
	for end > v.missed && n > 0 {
		if end--; v.shows(end) {
			n--
		}
	}
	return end
}

func (v *viewer) behind(end, n int) int {
	for end < v.total() && n > 0 {
		if v.shows(end) {
			n--
		}
		end++
	}
	return end
}

// shows reports whether an event is one of those that the filter shows.
func (v *viewer) shows(number int) bool { return filters[v.filter].shows(v.event(number)) }

func (v *viewer) event(number int) trace.Event { return v.kept[number-v.missed] }
