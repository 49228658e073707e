package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"terminalops/agent"
)

// Server answers for an agent.
type Server struct {
	Agent *agent.Agent
	// Events passes on, as JSON, what is known to have happened, and if live what
	// happens from then on, until ctx ends; or until emit returns an error, which
	// it returns. Nil: there is nothing to see.
	Events func(ctx context.Context, live bool, emit func(event json.RawMessage) error) error
	Logger *slog.Logger
}

// Serve serves l until ctx ends, closes it, and returns when nobody is served
// any more. It returns nil then, and else why nobody can connect.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	defer l.Close()
	places := make(chan struct{}, maxClients)
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case err != nil:
			return fmt.Errorf("control: %w", err)
		}
		select {
		case places <- struct{}{}:
			clients.Go(func() {
				defer func() { <-places }()
				s.serve(ctx, conn)
			})
		default: // it is seen as an end without an answer
			s.Logger.Warn("control: too many commands at a time, one was turned away", "most", maxClients)
			conn.Close()
		}
	}
}

// serve answers one client.
func (s *Server) serve(ctx context.Context, conn net.Conn) {
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	defer conn.Close()
	noRequest := context.AfterFunc(ctx, func() { conn.Close() })
	c := &client{conn: conn, hangUp: hangUp}
	conn.SetReadDeadline(time.Now().Add(requestPatience))
	line, err := bufio.NewReader(io.LimitReader(conn, maxRequest)).ReadBytes('\n')
	if err != nil {
		return // it has hung up, is silent, or does not come to an end
	}
	noRequest()
	// An agent that ends says the last of it, but does not wait to be heard.
	defer context.AfterFunc(ctx, func() { time.AfterFunc(farewellPatience, func() { conn.Close() }) })()
	// From here on a client says nothing more: what can be read is its end.
	conn.SetReadDeadline(time.Time{})
	var reading sync.WaitGroup
	defer reading.Wait()
	defer conn.Close()
	reading.Go(func() {
		io.Copy(io.Discard, conn)
		hangUp()
	})
	switch err := s.answer(ctx, c, line); {
	case ctx.Err() != nil: // it has hung up, or the agent ends: an end of the connection without an end in it
	case err != nil:
		c.send(answer{Error: remote(err)})
	default:
		c.send(answer{End: true})
	}
}

// client is who is served.
type client struct {
	conn   net.Conn
	hangUp func()
}

// send sends a line. A client that does not take it in time is served no more.
func (c *client) send(a answer) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	c.conn.SetWriteDeadline(time.Now().Add(answerPatience))
	if _, err := c.conn.Write(append(b, '\n')); err != nil {
		c.hangUp()
		return err
	}
	return nil
}

// answer does what is asked for. What it returns is the client's last line.
func (s *Server) answer(ctx context.Context, c *client, line []byte) error {
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	if r.Version != version {
		return fmt.Errorf("%w: it speaks version %d with commands, this command version %d; restart the service, or use its command", ErrVersion, version, r.Version)
	}
	switch r.Request {
	case requestStatus:
		status, err := s.Agent.Status()
		if err != nil {
			return err
		}
		return c.send(answer{Status: &status})
	case requestHistory:
		records, err := s.Agent.History(r.Terminal, r.Limit)
		if err != nil {
			return err
		}
		for _, record := range records {
			if err := c.send(answer{Record: &record}); err != nil {
				return err
			}
		}
		return nil
	case requestRun:
		id, err := s.Agent.Submit(r.Terminal, r.Operation, r.By)
		if err != nil {
			return err
		}
		return c.send(answer{OperationID: id})
	case requestFollow:
		return s.Agent.Follow(ctx, r.OperationID, func(r agent.Report) {
			c.send(answer{Report: &r}) // an error ends ctx
		})
	case requestCancel:
		return s.Agent.Cancel(r.OperationID)
	case requestPast, requestTrace:
		if s.Events == nil {
			return errors.New("this agent shows no events")
		}
		return s.Events(ctx, r.Request == requestTrace, func(event json.RawMessage) error { return c.send(answer{Event: event}) })
	default:
		return fmt.Errorf("unknown request %.40q", r.Request)
	}
}
