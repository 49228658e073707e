package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// asker asks a person, a line at a time. Nothing of it knows whether that is at a
// terminal.
type asker struct {
	in  *bufio.Reader
	out io.Writer
	// secret reads a line that is not shown.
	secret func() (string, error)
}

// askAtTerminal is the asker of a person at a terminal; false: there is none. leave
// shows again what is typed, also where a secret was to be typed and never was.
func (p program) askAtTerminal() (a *asker, leave func(), there bool) {
	out, isFile := p.stdout.(*os.File)
	in := int(os.Stdin.Fd())
	if !isFile || !term.IsTerminal(int(out.Fd())) || !term.IsTerminal(in) {
		return nil, nil, false
	}
	before, err := term.GetState(in)
	if err != nil {
		return nil, nil, false
	}
	a = &asker{in: bufio.NewReader(os.Stdin), out: out, secret: func() (string, error) {
		line, err := term.ReadPassword(in)
		return string(line), err
	}}
	return a, func() { term.Restore(in, before) }, true
}

// question is one of them.
type question struct {
	text     string
	preset   string                    // taken if the answer is empty
	bracket  string                    // shown for it; empty: preset itself
	optional bool                      // the answer may be empty; "-" makes it so where there is a preset
	secret   bool                      // what is typed is not shown
	help     string                    // what "?" says
	check    func(answer string) error // says what is wrong with an answer, to the person
}

// Both leave everything as it was.
var (
	errInterrupted = errors.New("interrupted")
	errEnded       = errors.New("the input has ended")
)

// ask asks until there is an answer that is right. The error is errInterrupted if
// ctx has ended, or errEnded.
func (a *asker) ask(ctx context.Context, q question) (string, error) {
	for {
		line, err := a.line(ctx, q.prompt(), q.secret)
		if err != nil {
			return "", err
		}
		answer, wrong := q.answer(line)
		if wrong == "" {
			return answer, nil
		}
		fmt.Fprint(a.out, fold("  ", 2, wrong))
	}
}

func (q question) prompt() string {
	shown := q.bracket
	if shown == "" {
		shown = q.preset
	}
	if shown == "" && q.optional {
		shown = "none"
	}
	if shown == "" {
		return q.text + ": "
	}
	return q.text + " [" + shown + "]: "
}

// answer is what a line means, or what to say to it instead.
func (q question) answer(line string) (answer, wrong string) {
	answer = strings.TrimRight(line, "\r\n")
	if !q.secret {
		answer = strings.TrimSpace(answer)
	}
	switch {
	case answer == "?":
		return "", q.help
	case strings.ContainsFunc(answer, unicode.IsControl), strings.ContainsRune(answer, unicode.ReplacementChar):
		return "", "a key was pressed there that is no character; once more"
	case answer == "-" && q.optional:
		return "", ""
	case answer == "" && (q.preset != "" || q.optional):
		return q.preset, "" // which was right before
	case answer == "":
		return "", "this has to be answered; ? tells more"
	}
	if q.check != nil {
		if err := q.check(answer); err != nil {
			return "", err.Error()
		}
	}
	return answer, ""
}

// yes asks for a decision.
func (a *asker) yes(ctx context.Context, text string, preset bool, help string) (bool, error) {
	q := question{text: text, preset: "no", help: help, check: func(answer string) error {
		switch strings.ToLower(answer) {
		case "y", "yes", "n", "no":
			return nil
		}
		return fmt.Errorf("%q: want yes or no", answer)
	}}
	if preset {
		q.preset = "yes"
	}
	answer, err := a.ask(ctx, q)
	return strings.HasPrefix(strings.ToLower(answer), "y"), err
}

// line reads one. Somebody who does not answer leaves a goroutine behind that
// waits for the input; it ends with it, or with the process.
func (a *asker) line(ctx context.Context, prompt string, secret bool) (string, error) {
	if ctx.Err() != nil {
		return "", errInterrupted
	}
	fmt.Fprint(a.out, prompt)
	type input struct {
		line string
		err  error
	}
	read := make(chan input, 1)
	go func() {
		var got input
		if secret {
			got.line, got.err = a.secret()
		} else {
			got.line, got.err = a.in.ReadString('\n')
		}
		read <- got
	}()
	var got input
	select {
	case got = <-read:
	case <-ctx.Done():
	}
	switch {
	case ctx.Err() != nil:
		got.err = errInterrupted
	case errors.Is(got.err, io.EOF):
		got.err = errEnded
	}
	if got.err != nil || secret { // nobody has seen the end of the line
		fmt.Fprintln(a.out)
	}
	return got.line, got.err
}
