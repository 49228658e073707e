package transport

import "context"

// Sight is a message that was seen at an end of the transport.
type Sight struct {
	Message
	Sent bool  // by this end; else it has arrived
	Err  error // sent: why it is not certain that the broker has it
}

// Watch makes an end that does what end does, and calls seen with every message:
// with one that has arrived before it is dealt with, with one that is sent once
// the broker has it, or once that is known to be uncertain. seen must not wait,
// and may be called from several goroutines.
func Watch(end End, seen func(Sight)) End { return &watchedEnd{end, seen} }

type watchedEnd struct {
	End
	seen func(Sight)
}

// Run implements [End].
func (e *watchedEnd) Run(ctx context.Context, h Handler) error {
	return e.End.Run(ctx, &watchedHandler{h, e.seen})
}

type watchedHandler struct {
	Handler
	seen func(Sight)
}

// Connected implements [Handler].
func (h *watchedHandler) Connected(ctx context.Context, s Sender) {
	h.Handler.Connected(ctx, &watchedSender{s, h.seen})
}

// Receive implements [Handler].
func (h *watchedHandler) Receive(ctx context.Context, m Message) error {
	h.seen(Sight{Message: m})
	return h.Handler.Receive(ctx, m)
}

type watchedSender struct {
	Sender
	seen func(Sight)
}

// Send implements [Sender].
func (s *watchedSender) Send(ctx context.Context, terminalID string, k Kind, payload []byte) error {
	err := s.Sender.Send(ctx, terminalID, k, payload)
	s.seen(Sight{Message: Message{TerminalID: terminalID, Kind: k, Payload: payload, Retained: k == Presence}, Sent: true, Err: err})
	return err
}
