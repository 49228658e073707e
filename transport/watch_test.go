package transport_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"terminalops/transport"
)

// script is an end on which the same always happens.
type script struct{}

func (script) Run(ctx context.Context, h transport.Handler) error {
	h.Connected(ctx, sender{})
	return h.Receive(ctx, transport.Message{TerminalID: "T1", Kind: transport.Commands, Payload: []byte("arrives")})
}

type sender struct{}

var errLost = errors.New("lost")

func (sender) Send(_ context.Context, _ string, k transport.Kind, _ []byte) error {
	if k == transport.Reports {
		return errLost
	}
	return nil
}

// user says something, and deals with what arrives.
type user struct{ seen *[]string }

func (user) Connecting() []byte { return nil }

func (user) Connected(ctx context.Context, s transport.Sender) {
	s.Send(ctx, "T1", transport.Presence, []byte("here"))
	s.Send(ctx, "T1", transport.Reports, []byte("done"))
}

func (u user) Receive(context.Context, transport.Message) error {
	*u.seen = append(*u.seen, "dealt with")
	return errLost
}

// Whoever watches sees each message, and the two ends notice nothing of it.
func TestWatch(t *testing.T) {
	var seen []string
	end := transport.Watch(script{}, func(s transport.Sight) {
		seen = append(seen, fmt.Sprintf("%s %s %q retained %v sent %v: %v", s.TerminalID, s.Kind, s.Payload, s.Retained, s.Sent, s.Err))
	})
	if err := end.Run(t.Context(), user{&seen}); err != errLost {
		t.Errorf("Run: %v", err)
	}
	want := []string{
		`T1 presence "here" retained true sent true: <nil>`,
		`T1 reports "done" retained false sent true: lost`,
		`T1 commands "arrives" retained false sent false: <nil>`,
		"dealt with",
	}
	if !slices.Equal(seen, want) {
		t.Errorf("seen %q", seen)
	}
}

func TestWords(t *testing.T) {
	at := transport.At(time.Date(2026, 6, 29, 9, 0, 0, 0, time.UTC))
	command := transport.Command{
		OperationID: "3f1a", TerminalID: "T1", Operation: "send_logs", IssuedAt: at, ExpiresAt: at,
		Upload: &transport.Upload{URL: "https://logs.example.com/T1?signature=secret", Headers: map[string]string{"Authorization": "secret"}},
	}
	for _, tt := range []struct {
		kind    transport.Kind
		message any
		want    string
	}{
		{transport.Commands, command, "command send_logs 3f1a, starts until 2026-06-29T09:00:00.000Z"},
		{transport.Commands, transport.Command{OperationID: "3f1a", TerminalID: "T1", Cancel: true, IssuedAt: at, ExpiresAt: at}, "cancel 3f1a"},
		{transport.Commands, transport.Command{OperationID: "secret"}, `not readable, 121 bytes: command: terminal_id is "", this is "T1"`},
		{transport.Reports, transport.Report{OperationID: "3f1a", TerminalID: "T1", Operation: "end_of_day", State: "RUNNING", Message: "closing"}, "report RUNNING end_of_day 3f1a: closing"},
		{transport.Reports, transport.Report{OperationID: "3f1a", TerminalID: "T1", Operation: "end_of_day", State: "COMPLETED", Effect: "done", Result: transport.Encode(map[string]int{"sale_amount": 5})},
			`report COMPLETED end_of_day 3f1a (done) {"sale_amount":5}`},
		{transport.Reports, transport.Report{OperationID: "3f1a", TerminalID: "T1", Operation: "end_of_day", State: "FAILED", Error: &transport.Error{Code: "device_refused", DeviceCode: "6C", Message: "no", Executed: "no"}},
			"report FAILED end_of_day 3f1a: device_refused 6C: no (executed: no)"},
		{transport.Presence, transport.PresenceMessage{State: "offline"}, "presence offline"},
		{transport.Presence, transport.PresenceMessage{State: "online", Device: &transport.Device{State: "busy", Detail: "menu open"}, Detail: "disk full"}, "presence online, terminal busy: menu open, disk full"},
		{transport.Hello, transport.HelloMessage{Nonce: "n"}, "hello n: what is the time, what is missing?"},
		{transport.Welcome, transport.WelcomeMessage{Nonce: "n", ServerTime: at, Pending: []transport.Pending{{Command: command}}, Wanted: []string{"2b"}},
			"welcome n: it is 2026-06-29T09:00:00.000Z, pending send_logs 3f1a, wanted the report of 2b"},
	} {
		got := transport.Message{TerminalID: "T1", Kind: tt.kind, Payload: transport.Encode(tt.message)}.Words()
		if got != tt.want || strings.Contains(got, "secret") {
			t.Errorf("%s: %q, want %q", tt.kind, got, tt.want)
		}
	}
	retained := transport.Message{TerminalID: "T1", Kind: transport.Commands, Payload: []byte("x"), Retained: true}
	if got := retained.Words(); !strings.HasSuffix(got, "(retained)") || !strings.HasPrefix(got, "not readable, 1 bytes") {
		t.Error(got)
	}
}
