package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"terminalops/cmd/internal/texttest"
)

// The field guide shows what an engineer types and sees. None of it is written by
// hand: every console block is a real run of the program on a store's PC on which
// the fault was made.
//
//	<!-- situation: no-paper -->     a new PC, as situations["no-paper"] makes it
//	<!-- now: paper is put in -->    what somebody does between two commands
//	<!-- meanwhile: the menu is closed -->   and while the next block's command runs
//
//	```console
//	$ sudo terminal-agent status     is run
//	...                              stands for any lines
//	^C                               ends a command that does not end by itself
//	```
//
// What differs between any two runs (times, ids, sizes) is not compared, nor how
// it is laid out because of that. With -update a block that differs otherwise is
// written anew.
const fieldGuide = "../../docs/field-guide.md"

func TestFieldGuide(t *testing.T) {
	text, err := os.ReadFile(fieldGuide)
	if err != nil {
		t.Fatal(err)
	}
	pages, err := readGuide(string(text))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("situations", func(t *testing.T) {
		for _, p := range pages {
			t.Run(p.situation, func(t *testing.T) {
				t.Parallel()
				p.enact(t)
			})
		}
	})
	unused := len(situations)
	for _, p := range pages {
		if _, there := situations[p.situation]; there {
			unused--
		}
	}
	if unused != 0 {
		t.Errorf("%d situations are in no guide", unused)
	}
	if !*update {
		return
	}
	if err := os.WriteFile(fieldGuide, []byte(rewritten(string(text), pages)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// rewritten is the guide with the blocks of this run, from its end on: the lines
// before a block stay where they are.
func rewritten(text string, pages []*page) string {
	lines := slices.Collect(strings.Lines(text))
	for _, p := range slices.Backward(pages) {
		for _, s := range slices.Backward(p.steps) {
			if s.block != s.rewritten {
				lines = slices.Replace(lines, s.line, s.line+strings.Count(s.block, "\n"), s.rewritten)
			}
		}
	}
	return strings.Join(lines, "")
}

// Whoever looks for what he sees is led to a heading that is there.
func TestFieldGuideContents(t *testing.T) {
	text, err := os.ReadFile(fieldGuide)
	if err != nil {
		t.Fatal(err)
	}
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(text), -1) {
		words := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(m[1]), "")
		headings["#"+strings.ReplaceAll(words, " ", "-")] = true
	}
	led := regexp.MustCompile(`\]\((#[^)]*)\)`).FindAllStringSubmatch(string(text), -1)
	for _, m := range led {
		if !headings[m[1]] {
			t.Errorf("no heading %s", m[1])
		}
	}
	if len(led) < len(situations) {
		t.Errorf("%d situations, and %d ways to them", len(situations), len(led))
	}
}

// page is what the guide shows of one situation.
type page struct {
	situation string
	steps     []*step
}

// step is a block, or what somebody does.
type step struct {
	line int // of the guide
	// does is the name of something that somebody does, meanwhile if there is a
	// block, which then begins first.
	does      string
	block     string // its text
	rewritten string // the same, or what it should be
}

var comment = regexp.MustCompile(`^<!-- (situation|now|meanwhile): (.+) -->$`)

// readGuide takes the guide apart.
func readGuide(text string) (pages []*page, err error) {
	var block *strings.Builder
	meanwhile, began := "", 0
	var current *page
	for i, line := range strings.SplitAfter(text, "\n") {
		m := comment.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		switch {
		case line == "```console\n":
			if current == nil {
				return nil, fmt.Errorf("line %d: a console block of no situation", i+1)
			}
			block, began = new(strings.Builder), i+1
		case block != nil && line == "```\n":
			current.steps = append(current.steps, &step{line: began, does: meanwhile, block: block.String(), rewritten: block.String()})
			block, meanwhile = nil, ""
		case block != nil:
			block.WriteString(line)
		case m == nil:
		case m[1] == "situation":
			current = &page{situation: m[2]}
			pages = append(pages, current)
		case current == nil:
			return nil, fmt.Errorf("line %d: nobody is in a situation yet", i+1)
		case m[1] == "now":
			current.steps = append(current.steps, &step{line: i + 1, does: m[2]})
		case m[1] == "meanwhile":
			meanwhile = m[2]
		}
	}
	return pages, nil
}

// A scene is a situation as it is played.
type scene struct {
	*storePC
	// can is what people do in it besides typing, by the words of the guide.
	can    map[string]func()
	screen *screen // of the command that runs
}

// enact makes the situation and does what the page shows.
func (p *page) enact(t *testing.T) {
	set, there := situations[p.situation]
	if !there {
		t.Fatalf("no such situation; there are %q", slices.Sorted(maps.Keys(situations)))
	}
	s := &scene{storePC: newStorePC(t), can: map[string]func(){}}
	set(s)
	for _, step := range p.steps {
		do, there := s.can[step.does]
		switch {
		case step.does != "" && !there:
			t.Fatalf("field-guide.md, line %d: %q: nobody can do this; there is %q", step.line, step.does, slices.Sorted(maps.Keys(s.can)))
		case step.block == "":
			do()
		default:
			s.types(step, do)
		}
		delete(s.can, step.does)
	}
	if len(s.can) > 0 {
		t.Errorf("the guide leaves out: %q", slices.Sorted(maps.Keys(s.can)))
	}
}

// types runs the commands of a block, the last of them while somebody does
// something, and compares what they print.
func (s *scene) types(step *step, meanwhile func()) {
	s.t.Helper()
	interrupted := strings.HasSuffix(step.block, "^C\n")
	var commands []string
	for line := range strings.Lines(step.block) {
		if command, is := strings.CutPrefix(line, "$ "); is {
			commands = append(commands, strings.TrimSuffix(command, "\n"))
		}
	}
	have := ""
	for i, command := range commands {
		have += "$ " + command + "\n"
		if i == len(commands)-1 {
			have += s.prints(command, meanwhile, interrupted)
		} else {
			have += s.prints(command, nil, false)
		}
	}
	if matches(step.block, have) {
		return
	}
	step.rewritten = have
	if !*update {
		s.t.Errorf("field-guide.md, line %d: it is not so (-update writes what is):\n%s", step.line, differ(step.block, have))
	}
	for line := range strings.Lines(have) {
		complains := strings.HasPrefix(line, "terminal-agent: ") // in one line, for scripts
		if utf8.RuneCountInString(line) > screenWidth+1 && !complains {
			s.t.Errorf("wider than %d columns: %s", screenWidth, line)
		}
	}
}

// commandPatience is how long a command of the guide may take.
const commandPatience = 3 * time.Minute

// prints is what a command prints, as it is called.
func (s *scene) prints(command string, meanwhile func(), interrupted bool) string {
	s.t.Helper()
	words := strings.Fields(command)
	if len(words) < 3 || words[0] != "sudo" || words[1] != "terminal-agent" {
		s.t.Fatalf("%q: want sudo terminal-agent ...", command)
	}
	s.screen = &screen{t: s.t, changed: make(chan struct{}, 1)}
	cmd := s.command(words[2:]...)
	cmd.Stdout, cmd.Stderr = s.screen, s.screen
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	timer := time.AfterFunc(commandPatience, func() { s.giveUp(cmd) })
	if meanwhile != nil {
		meanwhile()
	}
	text := ""
	if interrupted {
		cmd.Process.Signal(os.Interrupt)
		text = "^C\n"
	}
	cmd.Wait() // the outcome is what it prints
	if !timer.Stop() {
		s.t.Errorf("%s did not end", command)
	}
	return s.shown(s.screen.text()) + text
}

// giveUp ends a command, and the service that it may be waiting for, with all their
// stacks.
func (s *scene) giveUp(cmd *exec.Cmd) {
	if s.service != nil {
		s.service.Process.Signal(syscall.SIGQUIT)
	}
	cmd.Process.Signal(syscall.SIGQUIT)
}

// screen is what a command has printed.
type screen struct {
	t       *testing.T
	mu      sync.Mutex
	printed bytes.Buffer
	changed chan struct{} // capacity 1
}

// Write implements io.Writer.
func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return s.printed.Write(b)
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.printed.String()
}

// shows waits until it shows a text.
func (s *screen) shows(text string) {
	s.t.Helper()
	timeout := time.NewTimer(commandPatience)
	defer timeout.Stop()
	for !strings.Contains(s.text(), text) {
		select {
		case <-s.changed:
		case <-timeout.C:
			s.t.Fatalf("nobody says %q: %s", text, s.text())
		}
	}
}

// differences are what differs from run to run besides times, and how it is compared.
var differences = []struct{ pattern, becomes string }{
	{`\bpid \d+`, "pid N"},
	{`\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`, "ID"},
	{`\b[0-9a-f]{32}\b`, "ID"},
	{`linux/\w+`, "linux"},
	{`\d+ (MB|kB|bytes)`, "SIZE"},
	{`\(connection \d+\)`, "(connection N)"},
	{`([^\w.])(\d+(\.\d+)?(h|m|s|ms|µs|ns))+\b`, "${1}DURATION"},
	{`\s+`, " "}, // what is wider or narrower moves and folds what follows
}

// asCompared returns text without what differs from run to run.
func asCompared(text string) string {
	text = texttest.FixTimes(text)
	for _, d := range differences {
		text = regexp.MustCompile(d.pattern).ReplaceAllString(text, d.becomes)
	}
	return text
}

// matches reports whether a block of the guide shows this, where a line of three
// dots stands for any.
func matches(block, have string) bool {
	const any = "\x00"
	pattern := asCompared(strings.ReplaceAll("\n"+block, "\n...\n", "\n"+any+"\n"))
	pattern = strings.ReplaceAll(regexp.QuoteMeta(pattern), " "+any+" ", " (?:.* )?")
	return regexp.MustCompile("^" + pattern + "$").MatchString(asCompared("\n" + have))
}

// differ shows the lines that differ, between those that do not.
func differ(want, have string) string {
	w, h := strings.SplitAfter(want, "\n"), strings.SplitAfter(have, "\n")
	same := func(a, b string) bool { return asCompared(a) == asCompared(b) }
	var before, after []string
	for len(w) > 0 && len(h) > 0 && same(w[0], h[0]) {
		before = append(before, "  "+h[0])
		w, h = w[1:], h[1:]
	}
	for len(w) > 0 && len(h) > 0 && same(w[len(w)-1], h[len(h)-1]) {
		after = append([]string{"  " + h[len(h)-1]}, after...)
		w, h = w[:len(w)-1], h[:len(h)-1]
	}
	var b strings.Builder
	for _, lines := range [][]string{before, prefixed("- ", w), prefixed("+ ", h), after} {
		b.WriteString(strings.Join(lines, ""))
	}
	return b.String()
}

func prefixed(prefix string, lines []string) (all []string) {
	for _, line := range lines {
		all = append(all, prefix+line)
	}
	return all
}
