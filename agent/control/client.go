package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"terminalops/agent"
)

// Why nobody answers.
var (
	// ErrNotRunning: no agent works in the state directory.
	ErrNotRunning = errors.New("no agent runs")
	// ErrNotPermitted: only the account of the agent and administrators may ask
	// it.
	ErrNotPermitted = errors.New("not permitted")
	// ErrLost: the agent ended, or was ended, while it was asked.
	ErrLost = errors.New("the agent has gone away")
)

// patience is how long an agent that is not asked to wait may take for an
// answer: its disk may be slow.
const patience = 30 * time.Second

// Client asks the agent that works in a state directory. Its methods may be
// called from any goroutine; each makes a connection of its own. Their errors
// are ErrNotRunning, ErrNotPermitted, ErrLost, ErrVersion, those of the agent's
// method, or ctx's.
type Client struct {
	StateDir string
}

// Status says how the agent is.
func (c *Client) Status(ctx context.Context) (status agent.Status, err error) {
	err = c.ask(ctx, request{Request: requestStatus}, func(a answer) error {
		if a.Status != nil {
			status = *a.Status
		}
		return nil
	})
	return status, err
}

// History returns the latest n operations of a terminal, or of all if the id is
// empty, newest first.
func (c *Client) History(ctx context.Context, terminalID string, n int) (records []agent.Record, err error) {
	err = c.ask(ctx, request{Request: requestHistory, Terminal: terminalID, Limit: n}, func(a answer) error {
		if a.Record != nil {
			records = append(records, *a.Record)
		}
		return nil
	})
	return records, err
}

// Submit asks for an operation in the name of by, and returns its id.
func (c *Client) Submit(ctx context.Context, terminalID, operation, by string) (id string, err error) {
	err = c.ask(ctx, request{Request: requestRun, Terminal: terminalID, Operation: operation, By: by}, func(a answer) error {
		id = a.OperationID
		return nil
	})
	return id, err
}

// Cancel takes back the wish for an operation that has not started.
func (c *Client) Cancel(ctx context.Context, operationID string) error {
	return c.ask(ctx, request{Request: requestCancel, OperationID: operationID}, func(answer) error { return nil })
}

// Follow calls tell with what is known of an operation, now and whenever there
// is news; the last call is with its final report.
func (c *Client) Follow(ctx context.Context, operationID string, tell func(agent.Report)) error {
	return c.stream(ctx, request{Request: requestFollow, OperationID: operationID}, func(a answer) error {
		if a.Report != nil {
			tell(*a.Report)
		}
		return nil
	})
}

// Past calls tell with what is known to have happened, oldest first, as the
// agent's Server.Events has it. An error of tell ends it and is returned.
func (c *Client) Past(ctx context.Context, tell func(event json.RawMessage) error) error {
	return c.ask(ctx, request{Request: requestPast}, eventsTo(tell))
}

// Trace is Past, and goes on with what happens, until ctx ends.
func (c *Client) Trace(ctx context.Context, tell func(event json.RawMessage) error) error {
	return c.stream(ctx, request{Request: requestTrace}, eventsTo(tell))
}

func eventsTo(tell func(json.RawMessage) error) func(answer) error {
	return func(a answer) error {
		if a.Event == nil {
			return nil
		}
		return tell(a.Event)
	}
}

// ask is stream for what is answered at once.
func (c *Client) ask(ctx context.Context, r request, each func(answer) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the agent does not answer within %v", patience))
	defer cancel()
	return c.stream(ctx, r, each)
}

// stream sends a request and calls each with the lines of the answer.
func (c *Client) stream(ctx context.Context, r request, each func(answer) error) error {
	conn, err := dial(ctx, c.StateDir)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	r.Version = version
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := conn.Write(append(b, '\n')); err != nil {
		return lost(ctx)
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxAnswer)
	for lines.Scan() {
		var a answer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			return fmt.Errorf("answer of the agent: %w", err)
		}
		switch {
		case a.Error != nil:
			return a.Error
		case a.End:
			return nil
		}
		if err := each(a); err != nil {
			return err
		}
	}
	return lost(ctx)
}

// lost is what a connection that has ended means.
func lost(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return ErrLost
}
