package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"terminalops/device/zvt/zvttest"
)

// training is the interactive mode: a person, or a script, does to the terminal
// what happens to terminals in stores.
type training struct {
	terminal *zvttest.Terminal
	cable    *cable
	scenario string
	troubles []string // as zvttest wants them
	say      func(string)
	out      io.Writer // for lists
}

// command is a line that can be typed, beside the names of troubles.
type command struct {
	name, argument string
	text           string // for people
	do             func(t *training, argument string) error
}

// errQuit ends the training.
var errQuit = errors.New("quit")

// commands is a function for the sake of help, which lists them.
func commands() []command {
	return []command{
		{"pull", "", "pull the cable: the port vanishes, connections break and are refused", (*training).pull},
		{"plug", "", "plug it in again", (*training).plug},
		{"restart", "[SECONDS]", "switch it off and on again; it is away for 30 s", (*training).restart},
		{"sell", "AMOUNT", "a payment, such as 19.90", (*training).sell},
		{"well", "", "end all troubles", (*training).well},
		{"scenario", "NAME", "behave otherwise: a scenario, or several joined by \"+\"", (*training).changeScenario},
		{"scenarios", "", "list them", (*training).listScenarios},
		{"show", "", "how it is now", (*training).show},
		{"log", "", "what it really did", (*training).log},
		{"help", "", "this list", (*training).help},
		{"quit", "", "switch it off", func(*training, string) error { return errQuit }},
	}
}

func listCommands(w io.Writer) {
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-24s %s\n", strings.TrimSpace(c.name+" "+c.argument), c.text)
	}
	fmt.Fprint(w, "\nTroubles, which last until \"NAME off\"\n\n")
	for _, t := range zvttest.Troubles() {
		name := t.Name
		if name == refusing {
			name += " CODE"
		}
		fmt.Fprintf(w, "  %-24s %s\n", name, t.Description)
	}
}

// refusing is the one trouble with an argument.
const refusing = "refuse"

// run takes commands, a line each, until the input ends.
func (t *training) run(input io.Reader) {
	t.say(`type "help" for what can be done to it`)
	for lines := bufio.NewScanner(input); lines.Scan(); {
		line := strings.Join(strings.Fields(lines.Text()), " ")
		if line == "" {
			continue
		}
		switch err := t.do(line); {
		case errors.Is(err, errQuit):
			return
		case err != nil:
			t.say("? " + err.Error())
		}
	}
}

// do carries out one line.
func (t *training) do(line string) error {
	name, argument, _ := strings.Cut(line, " ")
	for _, c := range commands() {
		switch {
		case c.name != name:
		case c.argument == "" && argument != "":
			return fmt.Errorf("%s: nothing wanted behind it", name)
		default:
			return c.do(t, argument)
		}
	}
	if slices.ContainsFunc(zvttest.Troubles(), func(t zvttest.Trouble) bool { return t.Name == name }) {
		return t.trouble(name, argument)
	}
	return fmt.Errorf("%s: no such command; help lists them", name)
}

func (t *training) pull(string) error {
	if !t.cable.pull() {
		return errors.New("the cable is out already")
	}
	t.say("the cable is pulled")
	return nil
}

// plug: the server says where the terminal is when it is there.
func (t *training) plug(string) error {
	if !t.cable.plug() {
		return errors.New("the cable is in already")
	}
	return nil
}

func (t *training) restart(argument string) error {
	seconds := 30
	if argument != "" {
		n, err := strconv.Atoi(argument)
		if err != nil || n < 1 || n > 24*3600 {
			return fmt.Errorf("restart %s: seconds wanted, 1 to 86400", argument)
		}
		seconds = n
	}
	t.terminal.Restart(time.Duration(seconds) * time.Second)
	return nil
}

func (t *training) sell(argument string) error {
	amount, err := strconv.ParseFloat(argument, 64)
	if err != nil || amount <= 0 || amount >= 1e9 {
		return fmt.Errorf("sell %s: an amount wanted, such as 19.90", argument)
	}
	return t.terminal.Sell("girocard", int64(math.Round(amount*100)))
}

// trouble begins or ends one. One that was there, and is cured, begins anew.
func (t *training) trouble(name, argument string) error {
	others := slices.DeleteFunc(slices.Clone(t.troubles), func(have string) bool { return strings.HasPrefix(have+" ", name+" ") })
	isThere := len(others) < len(t.troubles)
	switch {
	case argument == "off" && !isThere:
		return fmt.Errorf("%s: not so now", name)
	case argument == "off":
		return t.play(t.scenario, others)
	}
	all := append(slices.Clone(others), strings.TrimSpace(name+" "+argument))
	if isThere {
		if err := t.terminal.Play(t.scenario, others...); err != nil {
			return err
		}
	}
	return t.play(t.scenario, all)
}

func (t *training) well(string) error { return t.play(t.scenario, nil) }

func (t *training) changeScenario(argument string) error { return t.play(argument, t.troubles) }

// play has the terminal behave so, and says how that is.
func (t *training) play(scenario string, troubles []string) error {
	if err := t.terminal.Play(scenario, troubles...); err != nil {
		return err
	}
	t.scenario, t.troubles = scenario, troubles
	return t.show("")
}

func (t *training) show(string) error {
	cable := "in"
	if t.cable.isOut() {
		cable = "out"
	}
	troubles := "none"
	if len(t.troubles) > 0 {
		troubles = strings.Join(t.troubles, ", ")
	}
	t.say(fmt.Sprintf("cable %s; scenario %s; troubles: %s; status: %s", cable, t.scenario, troubles, t.terminal.Status()))
	return nil
}

func (t *training) log(string) error {
	records := t.terminal.Log()
	for _, r := range records {
		fmt.Fprintf(t.out, "  %s  %s\n", r.At.Format(time.DateTime), r)
	}
	t.say(fmt.Sprintf("log: %d entries", len(records)))
	return nil
}

func (t *training) listScenarios(string) error {
	listScenarios(t.out)
	return nil
}

func (t *training) help(string) error {
	listCommands(t.out)
	return nil
}
