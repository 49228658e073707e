package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"terminalops/transport"
)

// end is one MQTT session, over all its connections.
type end struct {
	options  Options
	clientID string
	level    string // of the terminal id in a topic: an id, or + for all
	kinds    []transport.Kind
	log      *slog.Logger
	dial     func(context.Context, *url.URL) (net.Conn, error)
	invalid  error // what Run returns

	brokers []*url.URL
	current int            // the broker to try next: the last good one first
	sends   sync.WaitGroup // of all links
}

func newEnd(o Options, clientID, level string, kinds ...transport.Kind) *end {
	o = o.withDefaults()
	e := &end{options: o, clientID: clientID, level: level, kinds: kinds, log: o.Logger.With("client", clientID), dial: o.dial}
	if e.invalid = o.Check(); e.invalid != nil {
		return e
	}
	if !transport.ValidTerminalID(clientID) {
		e.invalid = fmt.Errorf("client id %q: expected 1 to 64 letters, digits, - and _", clientID)
	}
	for _, raw := range o.URLs {
		u, _ := parseBroker(raw) // Check has found no error
		e.brokers = append(e.brokers, u)
	}
	return e
}

// Run implements [transport.End].
func (e *end) Run(ctx context.Context, h transport.Handler) error {
	if e.invalid != nil {
		return e.invalid
	}
	defer e.sends.Wait()
	pause := backoff{first: e.options.FirstPause, longest: e.options.LongestPause}
	for {
		if l := e.connect(ctx, h); l != nil {
			began := time.Now()
			l.serve(ctx, h)
			if time.Since(began) >= e.options.LongestPause {
				pause.reset()
			}
		}
		if !sleep(ctx, pause.next()) {
			return nil
		}
	}
}

// connect tries every broker once and returns the first connection that stands,
// nil for none. There is no pause between brokers: where one of two is dead,
// the other is there at once.
func (e *end) connect(ctx context.Context, h transport.Handler) *link {
	for range e.brokers {
		if ctx.Err() != nil {
			return nil
		}
		broker := e.brokers[e.current]
		l, err := e.open(ctx, broker, h.Connecting())
		if err == nil {
			e.log.Info("connected", "broker", broker.String())
			return l
		}
		if ctx.Err() != nil {
			return nil
		}
		e.report(broker, err)
		e.current = (e.current + 1) % len(e.brokers)
	}
	return nil
}

// report logs an attempt that failed. A refused subscription does not heal by
// itself, the rest may.
func (e *end) report(broker *url.URL, err error) {
	level := slog.LevelWarn
	var refused *refusedError
	if errors.As(err, &refused) {
		level = slog.LevelError
	}
	e.log.Log(context.Background(), level, "connect", "broker", broker.String(), "error", err)
}

// filters are the topics to subscribe to.
func (e *end) filters() []string {
	var filters []string
	for _, k := range e.kinds {
		filters = append(filters, e.topic(e.level, k))
	}
	return filters
}

func (e *end) topic(level string, k transport.Kind) string {
	return e.options.Prefix + "/" + level + "/" + string(k)
}

// parse says which terminal and kind a topic is about. ok is false if it is
// none that this end subscribes to.
func (e *end) parse(topic string) (terminalID string, k transport.Kind, ok bool) {
	rest, ok := strings.CutPrefix(topic, e.options.Prefix+"/")
	if !ok {
		return "", "", false
	}
	terminalID, kind, _ := strings.Cut(rest, "/")
	if !transport.ValidTerminalID(terminalID) || e.level != "+" && e.level != terminalID {
		return "", "", false
	}
	for _, k := range e.kinds {
		if string(k) == kind {
			return terminalID, k, true
		}
	}
	return "", "", false
}

// backoff makes the pauses between attempts: each is anything between nothing
// and a limit that doubles. When a broker comes back after a long outage, its
// clients are then spread evenly over the longest pause.
type backoff struct {
	first, longest time.Duration
	limit          time.Duration // of the next pause; zero is first
}

func (b *backoff) next() time.Duration {
	if b.limit == 0 {
		b.limit = b.first
	}
	pause := rand.N(b.limit)
	b.limit = min(2*b.limit, b.longest)
	return pause
}

func (b *backoff) reset() { b.limit = 0 }

// sleep reports whether it slept all of d.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
