package zvt_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"terminalops/device"
	"terminalops/device/trace"
	"terminalops/device/zvt"
	"terminalops/device/zvt/frame"
	"terminalops/device/zvt/zvttest/cards"
)

// This file holds promise 6 of the design: no card data leaves the lane. A terminal
// says card numbers and tracks wherever it can, during whole operations with
// everything switched on, and all that comes out is searched: evidence, progress,
// outcome, files, log, events, captures, and what decode makes of them and of the
// unmasked bytes. The same of the agent around it: see cmd/terminal-agent.

// outputs runs an operation with everything switched on, and returns all that can be
// seen of it.
func outputs(t *testing.T, p *cards.Terminal, op device.Operation) map[string]string {
	var out map[string]string
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var text, lines bytes.Buffer
		tap := trace.NewTap(8 << 20)
		level := &slog.HandlerOptions{Level: slog.LevelDebug}
		o := zvt.Options{
			Serial: p.Serial, Location: time.UTC, T4: 30 * time.Second, Tap: tap, Lane: "P1-T1",
			Logger: slog.New(both{slog.NewTextHandler(&text, level), slog.NewJSONHandler(&lines, level)}),
		}
		served := make(chan struct{}, 10)
		o.Open = func(context.Context) (frame.Stream, error) {
			ours, theirs := cable()
			go func() {
				_ = p.Serve(ctx, theirs) // the ECR ends it, sooner or later
				served <- struct{}{}
			}()
			return ours, nil
		}
		terminal, err := zvt.New(o)
		if err != nil {
			t.Fatal(err)
		}
		files := newSpool(1 << 20)
		e := &entry{request: device.Request{Operation: op}}
		if op == device.SendLogs {
			e.request.Spool = files
		}
		outcome, err := terminal.Execute(ctx, e.request, e)
		out = map[string]string{"error of Execute": fmt.Sprint(err)}
		show := func(name string, v any) {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			out[name] = string(b)
		}
		show("outcome of Execute", outcome)
		if e.began > 0 {
			past := e.past()
			past.GiveUp = true
			outcome, err = terminal.Resolve(ctx, e.request, past, e)
			show("outcome of Resolve", outcome)
			out["error of Resolve"] = fmt.Sprint(err)
		}
		stop()
		synctest.Wait()
		show("description", terminal.Describe())
		show("evidence", e.evidence)
		out["mark"] = string(e.mark)
		out["progress"] = strings.Join(e.texts, "\n")
		for name, content := range files.files {
			out["file "+name] = content
		}
		out["log"], out["log in JSON"] = text.String(), lines.String()
		show("events", tap.Last("P1-T1"))
		out["capture"] = capture(t, tap.Last("P1-T1"))
		for name, recording := range map[string]string{
			"capture": out["capture"], "dump": hex.Dump(p.Said()), "one row": hex.EncodeToString(p.Said()), "frames": fmt.Sprintf("RX % X", inFrame(p.Said())),
		} {
			var b strings.Builder
			if err := zvt.Decode(&b, strings.NewReader(recording)); err != nil && len(p.Said()) > 0 {
				t.Fatalf("decode of the %s: %v", name, err)
			}
			out["decode of the "+name] = b.String()
		}
	})
	return out
}

// inFrame is a frame of bytes that are no APDU, with whatever CRC.
func inFrame(b []byte) []byte {
	return slices.Concat([]byte{0x10, 0x02}, bytes.ReplaceAll(b, []byte{0x10}, []byte{0x10, 0x10}), []byte{0x10, 0x03, 0, 0})
}

func capture(t *testing.T, events []trace.Event) string {
	var b strings.Builder
	w, err := trace.NewWriter(&b, trace.Header{Made: time.Now()})
	for _, e := range events {
		err = errors.Join(err, w.Write(e))
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// both hands log records to two handlers.
type both [2]slog.Handler

func (b both) Enabled(context.Context, slog.Level) bool { return true }
func (b both) Handle(ctx context.Context, r slog.Record) error {
	return errors.Join(b[0].Handle(ctx, r.Clone()), b[1].Handle(ctx, r))
}
func (b both) WithAttrs(a []slog.Attr) slog.Handler {
	return both{b[0].WithAttrs(a), b[1].WithAttrs(a)}
}
func (b both) WithGroup(name string) slog.Handler {
	return both{b[0].WithGroup(name), b[1].WithGroup(name)}
}

// The same cards are drawn each time, so that nobody's work depends on luck.
func init() { _ = flag.Set("rapid.seed", "20261124") }

// TestNoCardData is the promise. More of it: -rapid.seed=0 -rapid.checks=10000.
func TestNoCardData(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		card := cards.Draw(rt)
		p := card.Terminal(rt, rapid.Bool().Draw(rt, "serial"))
		op := rapid.SampledFrom(device.Operations()).Draw(rt, "operation")
		for name, text := range outputs(t, p, op) {
			if found := card.FindIn(text, strings.HasPrefix(name, "file ")); found != "" {
				rt.Fatalf("%s shows %s:\n%s", name, found, card.LineWithIt(text))
			}
		}
	})
}
