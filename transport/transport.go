// Package transport is the vocabulary between the agent and the cloud: the
// messages of the contract, and what each end of a connection must do.
//
//	topic                       from         retained       message
//	{prefix}/{id}/commands      dispatcher   no             Command, or a Cancel
//	{prefix}/{id}/reports       agent        no             Report
//	{prefix}/{id}/presence      agent        yes, and will  Presence
//	{prefix}/{id}/hello         agent        no             Hello
//	{prefix}/{id}/welcome       dispatcher   no             Welcome
//
// Payloads are UTF-8 JSON of at most [MaxPayload] bytes. Receivers ignore
// members they do not know. Times are RFC 3339 in UTC with milliseconds,
// amounts are integers in minor units.
//
// The package moves no bytes (package mqtt does) and knows no device.
package transport

import (
	"context"
	"errors"
	"regexp"
)

// MaxPayload is the largest payload that either end accepts, in bytes.
const MaxPayload = 64 << 10

// Kind is the last word of a topic: what a message is about.
type Kind string

const (
	Commands Kind = "commands"
	Reports  Kind = "reports"
	Presence Kind = "presence"
	Hello    Kind = "hello"
	Welcome  Kind = "welcome"
)

var terminalID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// ValidTerminalID reports whether id may stand in a topic.
func ValidTerminalID(id string) bool { return terminalID.MatchString(id) }

// Message is one delivered message. Whoever receives it owns Payload.
type Message struct {
	TerminalID string
	Kind       Kind
	Payload    []byte // cut off after MaxPayload+1 bytes: longer than MaxPayload means too large
	Retained   bool   // the broker kept it: not meant for now
}

// Sender sends on one connection.
type Sender interface {
	// Send returns nil when the broker has taken responsibility for the
	// message (PUBACK) on this connection, and an error when that is not
	// certain: the message may arrive all the same. Presence is retained.
	// Several goroutines may send at once.
	Send(ctx context.Context, terminalID string, k Kind, payload []byte) error
}

// Handler is what an end of the transport serves.
type Handler interface {
	// Connecting is called before every attempt to connect and returns the
	// last will, a presence; nil for none.
	Connecting() (will []byte)
	// Connected is called once a connection stands and its subscriptions are
	// granted. ctx ends with the connection. Connected may run as long as it
	// likes, but returns soon after ctx has ended; the transport does not
	// connect again before.
	Connected(ctx context.Context, s Sender)
	// Receive deals with one message and returns nil once it is dealt with for
	// good (stored, refused, known already): only then is it acknowledged to
	// the broker. After an error it stays unacknowledged, to be delivered
	// again. Receive is called one message at a time, in the order of arrival,
	// possibly before Connected, and never blocks for long.
	Receive(ctx context.Context, m Message) error
}

// End is one end of the transport: a terminal's session, or the dispatcher's.
type End interface {
	// Run keeps a connection, and connects again for as long as it takes. It
	// returns when ctx has ended and everything it started has ended too; the
	// error is nil then, and Run may be called again. Another error is
	// permanent: the configuration is wrong.
	Run(ctx context.Context, h Handler) error
}

// ErrNotConnected is returned by a Sender whose connection has ended.
var ErrNotConnected = errors.New("not connected")
