package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"terminalops/agent"
	"terminalops/device/trace"
	"terminalops/transport"
)

// Everything that happens to a terminal comes together in one trace.Tap, masked:
//
//	adapter: frames, the link -----+
//	agent: steps of the journal ---+--> Tap --> control socket: terminal-agent debug
//	transport: messages -----------+     |
//	log: lines of every level -----+     +----> kept, for a send_logs and for
//	                                            doctor --bundle

// watched has the tap see what a lane journals, sends and receives, and a send_logs
// take what the tap has seen.
func watched(lane agent.Lane, tap *trace.Tap) agent.Lane {
	note := func(source trace.Source, words string) {
		tap.Emit(trace.Event{At: time.Now(), Lane: lane.ID, Source: source, Direction: trace.Remark, Meaning: trace.Mask(words)})
	}
	lane.Journaled = func(operationID, operation, step string) {
		note(trace.Journal, fmt.Sprintf("%s %s %s", operation, operationID, step))
	}
	terminal := lane.Terminal
	lane.Capture = func(most int64) ([]byte, int64) { return lastSeen(tap, lane.ID, terminal.Describe(), most) }
	lane.End = transport.Watch(lane.End, func(s transport.Sight) {
		words := s.Words()
		switch {
		case s.Err != nil:
			note(trace.ToCloud, fmt.Sprintf("not sent: %s: %v", words, s.Err))
		case s.Sent:
			note(trace.ToCloud, words)
		default:
			note(trace.FromCloud, words)
		}
	})
	return lane
}

// logToTap is a handler that has the tap see log lines of every level.
func logToTap(tap *trace.Tap) slog.Handler {
	return &lineHandler{level: slog.LevelDebug, write: func(level slog.Level, line string, attrs []slog.Attr) error {
		e := trace.Event{At: time.Now(), Source: trace.Log, Direction: trace.Remark}
		for _, a := range attrs {
			if a.Key == "terminal" {
				e.Lane = a.Value.String()
				line = strings.Replace(line, " terminal="+e.Lane, "", 1)
			}
		}
		e.Meaning = trace.Mask(level.String() + " " + line)
		tap.Emit(e)
		return nil
	}}
}

// eventsAtOnce is how many events whoever looks on may be behind before some are
// missed.
const eventsAtOnce = 4096

// events passes on what the tap has and gets, for control.Server. Between what was
// and what is stands an event that is zero.
func events(tap *trace.Tap) func(context.Context, bool, func(json.RawMessage) error) error {
	return func(ctx context.Context, live bool, emit func(json.RawMessage) error) error {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		past, now := tap.Subscribe(ctx, eventsAtOnce)
		send := func(e trace.Event) error {
			b, err := json.Marshal(e)
			if err != nil {
				return err
			}
			return emit(b)
		}
		for _, e := range past {
			if err := send(e); err != nil {
				return err
			}
		}
		if !live {
			return nil
		}
		if err := send(trace.Event{}); err != nil {
			return err
		}
		for e := range now {
			if err := send(e); err != nil {
				return err
			}
		}
		return context.Cause(ctx)
	}
}
