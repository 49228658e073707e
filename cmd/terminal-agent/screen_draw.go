package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"terminalops/agent"
	"terminalops/transport"
)

// The screen, in 80 columns:
//
//	terminal-agent 1.2.0  looking on: the service runs                    09:00:12
//	T1  serial:/dev/ttyACM0 (zvt)
//	terminal  ready, Lane/5000, serial number 12345678, software 2.14.15
//	cloud     connected (connection 3)
//	clock     the cloud's, 2.1s ahead of this PC's
//	at work   end_of_day, 12s: waiting for the host
//	waiting   nothing
//	last      2026-06-28 21:00:09 end_of_day COMPLETED, 3f1a
//	          42 purchases
//	── all events ────────────────────────────────────────────────────────────────
//	09:00:01.250   +0.000  ECR → PT    06 50 end-of-day: password ••••••
//	                       10 02|06 50 03|•• •• ••|10 03|•• ••
//	e end of day  l logs  u update  m menu  p pause  f filter  s save  q quit

// What the screen needs, in characters.
const (
	leastWidth  = 60
	leastHeight = 18
)

func (v *viewer) tooSmall() bool { return v.width < leastWidth || v.height < leastHeight }

// draw is what the screen shows: as many rows as it is high.
func (v *viewer) draw() []row {
	rows := v.top()
	if v.tooSmall() {
		text := fmt.Sprintf("This window is %d x %d; %d x %d are needed.", v.width, v.height, leastWidth, leastHeight)
		rows = nil
		for _, line := range wrap(text, max(2, v.width), 3) {
			rows = append(rows, row{{plainStyle, line}})
		}
	} else {
		rows = append(rows, v.rule())
		rows = append(rows, v.events()...)
	}
	rows = append(rows, make([]row, v.height)...)[:max(1, v.height)]
	rows[len(rows)-1] = v.bottom()
	for i := range rows {
		rows[i] = rows[i].cut(v.width)
	}
	return rows
}

// top says how the agent and its terminals are.
func (v *viewer) top() []row {
	rows := []row{v.title()}
	l := v.lane()
	switch {
	case v.away != "":
		return append(rows, v.noLane(redStyle, v.away)...)
	case l == nil:
		return append(rows, v.noLane(dimStyle, "asking the agent ...")...)
	}
	rows = append(rows, v.laneRows(l)...)
	return append(rows, v.otherRows()...)
}

func (v *viewer) title() row {
	version, does := v.status.Version, "looking on: the service runs"
	switch {
	case v.own:
		does = "this is the agent"
	case v.away != "":
		does = "looking on: waiting for an agent"
	}
	if version == "" {
		version = programVersion()
	}
	r := row{{boldStyle, "terminal-agent " + plainText(version)}, {plainStyle, "  " + does}}
	now := v.now.Local().Format(time.TimeOnly)
	return append(r, span{plainStyle, strings.Repeat(" ", max(2, v.width-r.width()-len(now)))}, span{dimStyle, now})
}

// nameWidth is that of the names of what is shown of a terminal.
const nameWidth = 10

func named(name string, s style, words string) row {
	return row{{dimStyle, fmt.Sprintf("%-*s", nameWidth, name)}, {s, plainText(words)}}
}

// noLane stands where a terminal would.
func (v *viewer) noLane(s style, words string) []row {
	rows := make([]row, laneHeight)
	rows[1] = named("agent", s, words)
	return rows
}

// laneHeight is how many rows a terminal without trouble has.
const laneHeight = 8

// laneRows is the terminal that is shown in full.
func (v *viewer) laneRows(l *agent.LaneStatus) []row {
	rows := []row{
		{{boldStyle, plainText(l.ID)}, {plainStyle, "  " + plainText(l.Device.Link+" ("+l.Device.Protocol+")")}},
		named("terminal", deviceStyle(l.Device), deviceWords(l.Device)),
		named("cloud", cloudStyleOf(l), cloudWords(*l)),
		named("clock", plainStyle, clockWords(l.Clock)),
	}
	if l.Detail != "" {
		rows = append(rows, named("trouble", redStyle, l.Detail))
	}
	work, waiting := "nothing", "nothing"
	if l.Working != nil {
		work = v.workWords(*l.Working)
	}
	var queue []string
	for _, r := range l.Queue {
		queue = append(queue, r.Operation)
	}
	if len(queue) > 0 {
		waiting = strings.Join(queue, ", ")
	}
	return append(append(rows,
		named("at work", quietIf(workStyle, l.Working == nil), work),
		named("waiting", quietIf(plainStyle, len(queue) == 0), waiting),
	), lastRows(l.Last)...)
}

// lastRows is the operation that has ended last.
func lastRows(r *agent.Record) []row {
	if r == nil {
		return []row{named("last", dimStyle, "nothing"), nil}
	}
	how := greenStyle
	if r.State != transport.StateCompleted {
		how = redStyle
	}
	return []row{named("last", how, recordWords(*r)), named("", plainStyle, recordDetail(*r))}
}

// otherRows are the terminals that are not shown in full, a row each.
func (v *viewer) otherRows() []row {
	var rows []row
	for _, l := range v.status.Lanes {
		if l.ID == v.selected {
			continue
		}
		words := deviceWords(transport.Device{State: l.Device.State}) + "; " + cloudWords(l)
		if l.Working != nil {
			words += "; " + v.workWords(*l.Working)
		}
		rows = append(rows, row{{boldStyle, plainText(l.ID)}, {deviceStyle(l.Device), "  " + plainText(words)}})
	}
	if most := max(1, v.height/6); len(rows) > most {
		rows = append(rows[:most-1], row{{dimStyle, fmt.Sprintf("and %d more terminals", len(rows)-most+1)}})
	}
	return rows
}

// workWords is the operation that is at work.
func (v *viewer) workWords(r agent.Record) string {
	words, since := r.Operation, r.StartedAt
	if r.State == transport.StateAccepted {
		words, since = words+" is to start", r.AcceptedAt
	}
	words += ", " + max(0, v.now.Sub(since)).Truncate(time.Second).String()
	if r.Message != "" {
		words += ": " + r.Message
	}
	return words
}

func deviceStyle(d transport.Device) style {
	switch d.State {
	case transport.DeviceReady:
		return greenStyle
	case transport.DeviceUnreachable:
		return redStyle
	default:
		return plainStyle
	}
}

func cloudStyleOf(l *agent.LaneStatus) style {
	if l.Connected {
		return greenStyle
	}
	return redStyle
}

func quietIf(s style, quiet bool) style {
	if quiet {
		return dimStyle
	}
	return s
}

// rule is between what is and what happens.
func (v *viewer) rule() row {
	name := filters[v.filter].name
	if v.paused {
		name += ", paused"
	}
	text := "── " + name + " "
	return row{{dimStyle, text + strings.Repeat("─", max(0, v.width-len([]rune(text))))}}
}

// events are those that fit, the newest at the bottom.
func (v *viewer) events() []row {
	var blocks [][]row
	room, number := v.eventRoom(), v.latest(v.pageEnd())
	for room > 0 && number >= 0 {
		earlier := v.latest(number)
		rows := v.eventRows(number, earlier)
		room -= len(rows)
		blocks = append(blocks, rows[max(0, -room):])
		number = earlier
	}
	slices.Reverse(blocks)
	return slices.Concat(blocks...)
}

// eventRoom is how many rows there are for events.
func (v *viewer) eventRoom() int { return v.height - len(v.top()) - 2 }

// pageEnd is the number of the first event that is below the screen.
func (v *viewer) pageEnd() int {
	if v.paused {
		return max(v.end, v.firstPage()) // the oldest may be gone, or filtered
	}
	return v.total()
}

// latest is the number of the latest shown event before one; -1: there is none.
func (v *viewer) latest(end int) int {
	for end--; end >= v.missed; end-- {
		if v.shows(end) {
			return end
		}
	}
	return -1
}

// onScreen is how many events fit on the screen now.
func (v *viewer) onScreen() int {
	n := 0
	room, number := v.eventRoom(), v.latest(v.pageEnd())
	for number >= 0 {
		if room -= len(v.eventRows(number, -1)); room < 0 {
			break
		}
		n++
		number = v.latest(number)
	}
	return n
}

// firstPage is the end of the page with the oldest events.
func (v *viewer) firstPage() int {
	room := v.eventRoom()
	for number := v.missed; number < v.total(); number++ {
		if !v.shows(number) {
			continue
		}
		if room -= len(v.eventRows(number, -1)); room <= 0 {
			return number + 1
		}
	}
	return v.total()
}

// meaningHeight is how many rows the words of an event may have. The lines of debug
// --plain have all of them.
const meaningHeight = 10

// eventRows are an event behind another one; -1: behind none that is shown.
func (v *viewer) eventRows(number, earlier int) []row {
	e, before := v.event(number), time.Time{}
	if earlier >= 0 {
		before = v.event(earlier).At
	}
	x, how := textOf(e, before), styleOf(e)
	head := row{{dimStyle, x.time + "  "}}
	if len(v.status.Lanes) > 1 {
		head = append(head, span{plainStyle, shortID(e.Lane) + "  "})
	}
	indent := head.width()
	head = append(head, span{how, x.label})
	var rows []row
	if x.missed != "" {
		rows = append(rows, row{{redStyle, x.missed}})
	}
	for _, line := range wrap(plainText(x.meaning), max(10, v.width-head.width()), meaningHeight) {
		rows = append(rows, append(slices.Clone(head), withSecretsDim(how, line)...))
		head = row{{plainStyle, strings.Repeat(" ", indent+labelWidth)}}
	}
	if x.bytes != "" {
		rows = append(rows, append(row{{plainStyle, strings.Repeat(" ", indent)}}, withSecretsDim(plainStyle, plainText(x.bytes))...))
	}
	return rows
}

// shortID is the end of a terminal's id, which is what differs in a store.
func shortID(id string) string {
	const width = 6
	runes := []rune(plainText(orDash(id)))
	if len(runes) > width {
		runes = append([]rune("…"), runes[len(runes)-width+1:]...)
	}
	return fmt.Sprintf("%-*s", width, string(runes))
}

// bottom says what keys do, or asks, or answers.
func (v *viewer) bottom() row {
	switch {
	case v.asking != nil && v.asking.counts:
		return row{{askStyle, " " + plainText(v.asking.text) + " y/n "}}
	case v.asking != nil:
		return row{{askStyle, " " + plainText(v.asking.text) + " "}}
	case v.said.text != "" && v.now.Before(v.said.until):
		how := greenStyle
		if v.said.bad {
			how = redStyle
		}
		return row{{how, plainText(v.said.text)}}
	}
	r := v.hints(false)
	if r.width() > v.width {
		r = v.hints(true)
	}
	return r
}

func (v *viewer) hints(short bool) row {
	var r row
	hint := func(key, long, brief string) {
		if short {
			long = brief
		}
		if len(r) > 0 {
			r = append(r, span{plainStyle, "  "})
		}
		r = append(r, span{boldStyle, key})
		if long != "" {
			r = append(r, span{dimStyle, " " + long})
		}
	}
	if v.paused {
		r = append(r, span{askStyle, fmt.Sprintf(" paused: %d new ", v.total()-v.pausedAt)})
		hint("p", "go on", "go on")
		hint("↑ ↓ PgUp PgDn Home End", "scroll", "")
	} else {
		hint("e", "end of day", "end of day")
		hint("l", "send logs", "logs")
		hint("u", "check update", "update")
		hint("m", "open menu", "menu")
		if v.waiting() != "" {
			hint("x", "take it back", "take back")
		}
		if len(v.status.Lanes) > 1 {
			hint("Tab", "terminal", "next")
		}
		hint("p", "pause", "pause")
	}
	hint("f", "filter", "filter")
	hint("s", "save", "save")
	hint("q", "quit", "quit")
	return r
}
