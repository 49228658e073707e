package zvttest

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"terminalops/device/zvt/apdu"
)

// Trouble is what a person does to a terminal that is switched on. It lasts
// until it is ended; a scenario's trouble, mostly, is over by itself.
type Trouble struct {
	Name        string // "refuse" takes a code: "refuse 77"
	Description string // one line, for people
	change      func(*script)
}

// Troubles lists all troubles.
func Troubles() []Trouble { return append([]Trouble(nil), troubles...) }

// refusing is the trouble with a code.
const refusing = "refuse"

// troubles are on top of whatever the scenario is.
var troubles = []Trouble{
	{"payment", "a payment runs: busy", having(occupied)},
	{"menu", "somebody has opened the menu at the terminal: busy", having(occupied)},
	{"card", "a card is in the reader", having(condition{status: apdu.StatusCardInserted, blocked: dialogue{accept, abort(apdu.CodeCardInserted)}})},
	{"lock", "locked by its operator (C1): only update and menu work", having(condition{status: 0xC1, blocked: dialogue{accept, abort(0xC1)}, allows: inLock})},
	{"initialisation", "wants an initialisation first", having(condition{status: apdu.StatusInitialisation, blocked: dialogue{accept, abort(apdu.CodeNotRegistered)}, allows: with(inLock, apdu.ControlInitialisation)})},
	{"end-of-day", "wants an end of day before anything else", statusF0},
	{"no-paper", "out of paper: an end of day ends 06 1E CC, and closes nothing", refusedWith(apdu.CodePrinterNotReady)},
	{"jam", "the printer jams behind the next receipt: the terminal waits for somebody to clear it", jam},
	{"silent", "says nothing any more", func(sc *script) { sc.silent = true }},
	{refusing, "ends every operation 06 1E with this code, two hexadecimal digits", nil},
}

// occupied is a terminal that somebody uses.
var occupied = condition{status: apdu.StatusPleaseWait, blocked: dialogue{refuse(apdu.CodePleaseWait)}}

// trouble finds what a text such as "card" or "refuse 77" means.
func trouble(text string) (func(*script), error) {
	name, argument, hasArgument := strings.Cut(text, " ")
	var names []string
	for _, t := range troubles {
		names = append(names, t.Name)
		switch {
		case t.Name != name:
		case name == refusing:
			code, err := hex.DecodeString(argument)
			if err != nil || len(code) != 1 {
				return nil, fmt.Errorf("%s %q: a code of two hexadecimal digits wanted, such as %s 77", name, argument, name)
			}
			return refuseAll(apdu.Code(code[0])), nil
		case hasArgument:
			return nil, fmt.Errorf("%s %q: nothing wanted behind it", name, argument)
		default:
			return t.change, nil
		}
	}
	return nil, fmt.Errorf("trouble %q: one of these wanted: %s", name, strings.Join(names, ", "))
}

// refuseAll ends every operation with a code.
func refuseAll(c apdu.Code) func(*script) {
	return func(sc *script) {
		for command := range acting {
			sc.on[command] = dialogue{accept, work(time.Second, 2*time.Second), abort(c)}
		}
	}
}

// jam stops an end of day when its receipt is to be printed. The batch is closed.
func jam(sc *script) {
	sc.jammed = true
	sc.on[apdu.ControlEndOfDay] = endOfDay(totals(true), untilCleared, receipt, complete())
}

// untilCleared says every now and then that the terminal waits for somebody, as
// long as its printer is jammed.
func untilCleared(ctx context.Context, s *session) {
	const every = 15 * time.Second
	told := time.Time{}
	for s.t.script().jammed && !s.over && ctx.Err() == nil {
		if time.Since(told) >= every {
			told = time.Now()
			s.t.o.Tell("the printer is jammed")
			display(apdu.IntermediatePleaseWait, 3, "Papierstau", "Drucker prüfen")(ctx, s)
		}
		s.listen(ctx, time.Second)
	}
}

// Play has the terminal behave like another scenario, with troubles on top of
// it. What it is at work on goes on as it was, but for a printer that is cleared
// and a terminal that falls silent. The truth log stays what it is. An error
// changes nothing.
func (t *Terminal) Play(scenario string, troubles ...string) error {
	sc, err := compose(scenario)
	if err != nil {
		return err
	}
	for _, text := range troubles {
		change, err := trouble(text)
		if err != nil {
			return err
		}
		change(sc)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.playing.condition.like(sc.condition) {
		t.state.asked, t.state.cured = time.Time{}, false
	}
	t.playing = sc
	t.poke()
	return nil
}

// like reports whether c and other are the same condition.
func (c *condition) like(other *condition) bool {
	return c != nil && other != nil && c.status == other.status
}

// Restart takes the terminal away for d, a time of work. It is back without its
// registration, and has forgotten what it was at work on.
func (t *Terminal) Restart(d time.Duration) {
	t.did(Record{What: Reboot, Until: time.Now().Add(t.work(d))})
	t.mu.Lock()
	defer t.mu.Unlock()
	t.restarts++
	t.poke()
}

func (t *Terminal) restarted() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.restarts
}

// poke has an idle session look at what has changed. t.mu is held.
func (t *Terminal) poke() {
	t.changes++
	if t.look != nil {
		t.look()
	}
}

// Status says in words how the terminal is, as it would tell it itself.
func (t *Terminal) Status() string {
	if t.away() {
		return "nobody answers"
	}
	return t.status().String()
}
