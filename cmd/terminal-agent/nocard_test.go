package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"terminalops/agent"
	"terminalops/device"
	"terminalops/device/trace"
	"terminalops/device/zvt"
	"terminalops/device/zvt/frame"
	"terminalops/device/zvt/zvttest/cards"
	"terminalops/transport/transporttest"
)

// TestNoCardDataLeavesTheAgent is the promise of device/zvt, kept by the agent
// around it: a terminal says card numbers and tracks wherever it can, and whatever
// anybody can see of the agent has none of them. More of it: -rapid.seed=0
// -rapid.checks=1000.
func TestNoCardDataLeavesTheAgent(t *testing.T) {
	unlessSaid(t, "rapid.seed", "20261124") // the same cards each time: nobody's work depends on luck
	unlessSaid(t, "rapid.checks", "20")     // each is an agent with a journal on disk
	rapid.Check(t, func(rt *rapid.T) {
		card := cards.Draw(rt)
		p := card.Terminal(rt, false)
		op := rapid.SampledFrom(device.Operations()).Draw(rt, "operation")
		seen := allThatIsSeen(t, p, op)
		for _, want := range []string{"log", "message 0", "event 0", "debug", "archive 2 terminal-agent-capture.txt", "archive 2 terminal-agent.log", "bundle captures-service.txt"} {
			if seen[want] == "" {
				rt.Fatalf("nothing is seen as %s", want)
			}
		}
		for name, text := range seen {
			if found := card.FindIn(text, terminalFile.MatchString(name)); found != "" {
				rt.Fatalf("%s shows %s:\n%s", name, found, card.LineWithIt(text))
			}
		}
	})
}

// What others than the adapter say is masked, too, where it becomes an event.
func TestEventsAreMasked(t *testing.T) {
	const card = "4111 1111 1111 1111"
	tap := trace.NewTap(keptTrace)
	lane := watched(agent.Lane{ID: "T1", End: transporttest.NewBroker().Agent("T1")}, tap)
	lane.Journaled("x", "end_of_day", "evidence: "+card)
	slog.New(logToTap(tap)).Info("card "+card, "terminal", "T1", "track", card)
	past := tap.Past()
	for _, e := range past {
		if strings.Contains(e.Meaning, "11 1111 1111") || !strings.Contains(e.Meaning, "4111 11** **** 1111") {
			t.Errorf("%q", e.Meaning)
		}
	}
	if len(past) != 2 {
		t.Errorf("%d events", len(past))
	}
}

// The log that goes with a send_logs is masked once more, whoever has written it.
func TestLogForTheCloudIsMasked(t *testing.T) {
	const card = "4111 1111 1111 1111"
	l := newLog(console{new(bytes.Buffer)})
	l.Info("card "+card, "track", card)
	if said := string(l.latest.masked()); strings.Contains(said, "11 1111 1111") || strings.Count(said, "4111 11** **** 1111") != 2 {
		t.Errorf("%q", said)
	}
}

// unlessSaid sets a flag for this test if the command line does not.
func unlessSaid(t *testing.T, name, value string) {
	t.Helper()
	f := flag.Lookup(name)
	if f.Value.String() != f.DefValue {
		return
	}
	if err := f.Value.Set(value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Value.Set(f.DefValue) })
}

// terminalFile is one in an archive that may be no text.
var terminalFile = regexp.MustCompile(`^archive \d+ 0\d-`)

// allThatIsSeen is what can be seen of an agent that carries out an operation, and
// then a send_logs.
func allThatIsSeen(t *testing.T, p *cards.Terminal, op device.Operation) map[string]string {
	seen := map[string]string{}
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		l := newLog(console{&text})
		l.level.Set(slog.LevelDebug)
		broker, dir := transporttest.NewBroker(), t.TempDir()
		lane := agent.Lane{ID: "T1", Link: "tcp:10.0.0.5:20007", Terminal: connectedTo(t, p, l), End: broker.Agent("T1")}
		a, err := agent.New(agent.Options{
			StateDir: dir, Version: "test", Lanes: []agent.Lane{watched(lane, l.tap)},
			Logger: l.Logger, OwnLog: l.latest.masked, ResolveFor: time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.Run(ctx) }()

		var noCards []string // random, or made of it: it may look like anything
		for i, op := range []device.Operation{op, device.SendLogs} {
			id, err := a.Submit("T1", string(op), "anna")
			if err != nil {
				t.Fatal(err)
			}
			noCards = append(noCards, id)
			err = a.Follow(ctx, id, func(r agent.Report) { seen[fmt.Sprintf("follow %d", i)] += string(inJSON("report", r, nil).content) })
			if err != nil {
				t.Fatal(err)
			}
		}
		status, err := a.Status()
		if err != nil {
			t.Fatal(err)
		}
		noCards = append(noCards, status.JournalID)
		records, err := a.History("T1", 10)
		if err != nil {
			t.Fatal(err)
		}
		past := overTheSocket(t, l.tap, seen)
		stop()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		seen["log"] = text.String()
		for i, m := range broker.Published() {
			seen[fmt.Sprint("message ", i)] = string(m.Payload)
		}
		archives, _ := filepath.Glob(filepath.Join(dir, "logs", "*.tar.gz"))
		for _, path := range archives {
			sequence := strings.TrimSuffix(filepath.Base(path), ".tar.gz")
			for name, content := range unpack(t, path) {
				seen["archive "+sequence+" "+name] = content
			}
			decoded(t, seen, "archive "+sequence+" terminal-agent-capture.txt")
		}
		bundle := []part{captures("captures-service.txt", past), inJSON("service", status, nil), inJSON("journal", records, nil)}
		for name, content := range unpack(t, written(t, bundle)) {
			seen["bundle "+name] = content
		}
		decoded(t, seen, "bundle captures-service.txt")
		for name, text := range seen {
			for _, id := range noCards {
				text = strings.ReplaceAll(text, id, "(id)")
			}
			seen[name] = random.ReplaceAllString(text, "(random)")
		}
	})
	return seen
}

// random are members of JSON that may look like anything, too.
var random = regexp.MustCompile(`"(sha256|nonce)":\s*"[0-9a-f]*"`)

// connectedTo is the adapter with a line to p.
func connectedTo(t *testing.T, p *cards.Terminal, l *log) device.Terminal {
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	terminal, err := zvt.New(zvt.Options{
		Open: func(context.Context) (frame.Stream, error) {
			ours, theirs := net.Pipe()
			serving.Go(func() { _ = p.Serve(context.Background(), theirs) }) // the agent ends it
			return ours, nil
		},
		Location: time.UTC, T4: 30 * time.Second, Logger: l.With("terminal", "T1"), Tap: l.tap, Lane: "T1",
	})
	if err != nil {
		t.Fatal(err)
	}
	return terminal
}

// overTheSocket returns what a bundle and debug get to see, and what debug shows
// of it.
func overTheSocket(t *testing.T, tap *trace.Tap, seen map[string]string) (past []trace.Event) {
	err := events(tap)(t.Context(), false, func(line json.RawMessage) error {
		seen[fmt.Sprint("event ", len(past))] = string(line)
		var e trace.Event
		err := json.Unmarshal(line, &e)
		past = append(past, e)
		return err
	})
	shown := make(chan trace.Event, len(past))
	for _, e := range past {
		shown <- e
	}
	close(shown)
	var lines bytes.Buffer
	if err := errors.Join(err, linesTo(&lines)(t.Context(), shown)); err != nil {
		t.Fatal(err)
	}
	seen["debug"] = lines.String()
	return past
}

// decoded adds what decode makes of a capture.
func decoded(t *testing.T, seen map[string]string, name string) {
	var b strings.Builder
	if err := zvt.Decode(&b, strings.NewReader(seen[name])); err != nil {
		t.Fatalf("decode of %s: %v", name, err)
	}
	seen["decode of "+name] = b.String()
}

// written is the file of a bundle.
func written(t *testing.T, parts []part) string {
	path := filepath.Join(t.TempDir(), "bundle.tar.gz")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(archive(f, parts, time.Now()), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}
