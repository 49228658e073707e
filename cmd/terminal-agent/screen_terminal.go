package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// terminalWindow is the window that a person looks at: its size, what it shows, and
// what is typed. Control functions are those of [ECMA-48] and of XTerm.
type terminalWindow struct {
	in, out       *os.File
	coloured      bool
	typing        *term.State // as it was
	undo          func()      // of how it shows
	shown         []string    // the rows that it shows
	width, height int
}

const (
	// The other screen, no cursor, lines that do not go on in the next one, and
	// what is pasted is marked.
	windowBegins = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[?2004h"
	windowEnds   = "\x1b[m\x1b[?2004l\x1b[?7h\x1b[?25h\x1b[?1049l"
	clearWindow  = "\x1b[m\x1b[2J"
	clearRest    = "\x1b[K"
)

// openWindow takes the window over, until close.
func openWindow(in, out *os.File, coloured bool) (*terminalWindow, error) {
	undo, err := obeySequences(out)
	if err != nil {
		return nil, fmt.Errorf("screen: %w", err)
	}
	typing, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		undo()
		return nil, fmt.Errorf("screen: %w", err)
	}
	w := &terminalWindow{in: in, out: out, coloured: coloured, typing: typing, undo: undo}
	if _, err := out.WriteString(windowBegins); err != nil {
		w.close()
		return nil, fmt.Errorf("screen: %w", err)
	}
	return w, nil
}

// close makes the window what it was.
func (w *terminalWindow) close() {
	w.out.WriteString(windowEnds) // errors: nobody is there to see
	term.Restore(int(w.in.Fd()), w.typing)
	w.undo()
}

// measure looks how large the window is.
func (w *terminalWindow) measure() (width, height int) {
	width, height, err := term.GetSize(int(w.out.Fd()))
	if err != nil || width <= 0 || height <= 0 { // a terminal that does not know
		width, height = 80, 24
	}
	if width != w.width || height != w.height {
		w.width, w.height, w.shown = width, height, nil
	}
	return width, height
}

// show shows rows: what has changed, with one Write.
func (w *terminalWindow) show(rows []row) error {
	var b strings.Builder
	if w.shown == nil {
		b.WriteString(clearWindow)
		w.shown = make([]string, len(rows))
	}
	for i, r := range rows {
		text := r.sequence(w.coloured)
		if text == w.shown[i] {
			continue
		}
		fmt.Fprintf(&b, "\x1b[%d;1H%s", i+1, text)
		if r.width() < w.width { // behind the last column this could clear that
			b.WriteString(clearRest)
		}
		w.shown[i] = text
	}
	if b.Len() == 0 {
		return nil
	}
	_, err := w.out.WriteString(b.String())
	return err
}

// inputWait is how often whoever waits for a key looks whether to go on.
const inputWait = 100 * time.Millisecond

// read passes on what is typed, until ctx ends or there is nobody to type. It
// leaves what comes after ctx has ended to the next program.
func (w *terminalWindow) read(ctx context.Context, typed chan<- []byte) {
	for ctx.Err() == nil {
		there, err := awaitInput(w.in, inputWait)
		if err != nil {
			return
		}
		if !there {
			continue
		}
		b := make([]byte, 256)
		n, err := w.in.Read(b)
		if err != nil {
			return
		}
		select {
		case typed <- b[:n]:
		case <-ctx.Done():
			return
		}
	}
}
