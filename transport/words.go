package transport

import (
	"fmt"
	"strings"
)

// Words says in one line what a message is about, for people. They hold no
// secret; texts of the terminal stand in them as they are.
func (m Message) Words() string {
	words, err := m.words()
	if err != nil {
		words = fmt.Sprintf("not readable, %d bytes: %v", len(m.Payload), err)
	}
	if m.Retained && m.Kind != Presence {
		words += " (retained)"
	}
	return words
}

func (m Message) words() (string, error) {
	switch m.Kind {
	case Commands:
		c, err := DecodeCommand(m.Payload, m.TerminalID)
		if err != nil {
			return "", err
		}
		return commandWords(c), nil
	case Reports:
		r, err := DecodeReport(m.Payload, m.TerminalID)
		if err != nil {
			return "", err
		}
		return reportWords(r), nil
	case Presence:
		p, err := DecodePresence(m.Payload)
		if err != nil {
			return "", err
		}
		return presenceWords(p), nil
	case Hello:
		h, err := DecodeHello(m.Payload)
		if err != nil {
			return "", err
		}
		return "hello " + h.Nonce + ": what is the time, what is missing?", nil
	case Welcome:
		w, err := DecodeWelcome(m.Payload)
		if err != nil {
			return "", err
		}
		return welcomeWords(w), nil
	default:
		return string(m.Kind), nil
	}
}

func commandWords(c Command) string {
	if c.Cancel {
		return "cancel " + c.OperationID
	}
	return fmt.Sprintf("command %s %s, starts until %s", c.Operation, c.OperationID, c.ExpiresAt.UTC().Format(timeFormat))
}

func reportWords(r Report) string {
	words := fmt.Sprintf("report %s %s %s", r.State, r.Operation, r.OperationID)
	if e := r.Error; e != nil {
		return fmt.Sprintf("%s: %s: %s (executed: %s)", words, strings.TrimSpace(e.Code+" "+e.DeviceCode), e.Message, e.Executed)
	}
	if r.Effect != "" {
		words += " (" + r.Effect + ")"
	}
	if r.Message != "" {
		words += ": " + r.Message
	}
	if len(r.Result) > 0 {
		words += " " + string(r.Result)
	}
	return words
}

func presenceWords(p PresenceMessage) string {
	words := "presence " + p.State
	if d := p.Device; d != nil && d.State != "" {
		words += ", terminal " + d.State
		if d.Detail != "" {
			words += ": " + d.Detail
		}
	}
	if p.Detail != "" {
		words += ", " + p.Detail
	}
	return words
}

func welcomeWords(w WelcomeMessage) string {
	words := fmt.Sprintf("welcome %s: it is %s", w.Nonce, w.ServerTime.UTC().Format(timeFormat))
	for _, p := range w.Pending {
		words += ", pending " + p.Command.Operation + " " + p.Command.OperationID
	}
	for _, id := range w.Wanted {
		words += ", wanted the report of " + id
	}
	return words
}
