package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/agent"
	"terminalops/device"
	"terminalops/device/devicetest"
	"terminalops/transport/transporttest"
)

const terminal = "P11223351-T0013"

// deadline is for each thing that is awaited in real time.
const deadline = time.Minute

// store is an agent with a scripted terminal, and its server.
type store struct {
	*Client
	t        *testing.T
	server   Server
	terminal *devicetest.Terminal
	listener *pipes
	running  sync.WaitGroup // the agent and its server
	stop     func()
}

// newStore starts an agent. A terminal works for a second of virtual time, or
// until it is set otherwise. listen makes the listener of its server.
func newStore(t *testing.T, events func(context.Context, bool, func(json.RawMessage) error) error, listen func(dir string) net.Listener) *store {
	t.Helper()
	s := &store{t: t, terminal: new(devicetest.Terminal)}
	s.terminal.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done}})
	dir := t.TempDir()
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	a, err := agent.New(agent.Options{
		StateDir: dir, Version: "test", Logger: logger, Grace: time.Nanosecond,
		Lanes: []agent.Lane{{ID: terminal, Link: "scripted", Terminal: s.terminal, End: transporttest.NewBroker().Agent(terminal)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Client, s.server = &Client{StateDir: dir}, Server{Agent: a, Events: events, Logger: logger}
	l := listen(dir)
	ctx, cancel := context.WithCancel(context.Background())
	s.running.Go(func() {
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	s.running.Go(func() {
		if err := s.server.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	})
	s.stop = cancel
	t.Cleanup(func() {
		cancel()
		s.running.Wait()
	})
	return s
}

// onSocket listens as the agent does.
func onSocket(t *testing.T) func(string) net.Listener {
	return func(dir string) net.Listener {
		l, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// Everything that can be asked, over the real socket, gets the agent's answer.
func TestAsk(t *testing.T) {
	s := newStore(t, func(ctx context.Context, live bool, emit func(json.RawMessage) error) error {
		err := emit(json.RawMessage(`{"n":1}`))
		if live {
			err = errors.Join(err, emit(json.RawMessage(`{"n":2}`)))
		}
		return err
	}, onSocket(t))
	ctx := within(t)
	id, err := s.Submit(ctx, terminal, "end_of_day", "anna")
	if err != nil {
		t.Fatal(err)
	}
	var reports []agent.Report
	if err := s.Follow(ctx, id, func(r agent.Report) { reports = append(reports, r) }); err != nil {
		t.Fatal(err)
	}
	if last := reports[len(reports)-1]; last.State != "COMPLETED" || last.CreatedBy != "local:anna" || last.OperationID != id {
		t.Errorf("followed %+v", reports)
	}
	status, err := s.Status(ctx)
	if err != nil || len(status.Lanes) != 1 || status.Lanes[0].ID != terminal || status.Lanes[0].Last == nil || status.Lanes[0].Last.ID != id {
		t.Errorf("status: %+v, %v", status, err)
	}
	records, err := s.History(ctx, terminal, 5)
	if err != nil || len(records) != 1 || records[0].ID != id || records[0].Report.State != "COMPLETED" {
		t.Errorf("history: %+v, %v", records, err)
	}
	var events []string
	if err := s.Trace(ctx, func(e json.RawMessage) error { events = append(events, string(e)); return nil }); err != nil || !slices.Equal(events, []string{`{"n":1}`, `{"n":2}`}) {
		t.Errorf("events %q, %v", events, err)
	}
	events = nil
	if err := s.Past(ctx, func(e json.RawMessage) error { events = append(events, string(e)); return nil }); err != nil || !slices.Equal(events, []string{`{"n":1}`}) {
		t.Errorf("past events %q, %v", events, err)
	}
	enough := errors.New("enough")
	if err := s.Trace(ctx, func(json.RawMessage) error { return enough }); err != enough {
		t.Errorf("a tell that has enough: %v", err)
	}
	for _, tt := range []struct {
		what string
		err  error
		want error
	}{
		{"cancel what has ended", s.Cancel(ctx, id), agent.ErrStarted},
		{"cancel what is not there", s.Cancel(ctx, "x"), agent.ErrUnknownID},
		{"follow what is not there", s.Follow(ctx, "x", func(agent.Report) {}), agent.ErrUnknownID},
		{"another terminal", second(s.Submit(ctx, "T9", "end_of_day", "anna")), agent.ErrUnknownTerminal},
		{"another operation", second(s.Submit(ctx, terminal, "dance", "anna")), agent.ErrUnknownOperation},
	} {
		if !errors.Is(tt.err, tt.want) {
			t.Errorf("%s: %v", tt.what, tt.err)
		}
	}
}

func second(_ string, err error) error { return err }

// Many clients follow one operation, and others ask meanwhile.
func TestSeveralClients(t *testing.T) {
	s := newStore(t, nil, onSocket(t))
	ctx := within(t)
	hold := make(chan struct{})
	s.terminal.Set(devicetest.Script{Lost: device.ErrUnreachable, Resolve: func(device.Past) (device.Outcome, error) {
		<-hold
		return device.Outcome{Effect: device.Done}, nil
	}})
	id, err := s.Submit(ctx, terminal, "end_of_day", "anna")
	if err != nil {
		t.Fatal(err)
	}
	var clients, started sync.WaitGroup
	for range maxClients - 2 {
		started.Add(1)
		clients.Go(func() {
			running := sync.OnceFunc(started.Done)
			var last agent.Report
			if err := s.Follow(ctx, id, func(r agent.Report) {
				if last = r; r.State == "RUNNING" {
					running()
				}
			}); err != nil || last.State != "COMPLETED" {
				t.Errorf("%+v, %v", last, err)
			}
			running()
		})
	}
	started.Wait()
	if status, err := s.Status(ctx); err != nil || status.Lanes[0].Working == nil {
		t.Errorf("%+v, %v", status, err)
	}
	close(hold)
	clients.Wait()
}

// An agent that ends tells those who follow; a client may end earlier.
func TestFollowAnAgentThatEnds(t *testing.T) {
	s := newStore(t, nil, onSocket(t))
	s.terminal.Set(devicetest.Script{Work: time.Hour})
	ctx := within(t)
	id, err := s.Submit(ctx, terminal, "end_of_day", "anna")
	if err != nil {
		t.Fatal(err)
	}
	early, leave := context.WithCancel(ctx)
	if err := s.Follow(early, id, func(r agent.Report) {
		if r.State == "RUNNING" {
			leave()
		}
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that ends: %v", err)
	}
	err = s.Follow(ctx, id, func(r agent.Report) {
		if r.State == "RUNNING" {
			s.stop()
		}
	})
	if !errors.Is(err, agent.ErrStopping) && !errors.Is(err, ErrLost) {
		t.Errorf("an agent that ends: %v", err)
	}
	if _, err := s.Status(ctx); err == nil {
		t.Error("it has ended, and answers")
	}
}

// farewells emits what happens last, some moments after the agent was told to end.
func farewells(n int) func(context.Context, bool, func(json.RawMessage) error) error {
	return func(ctx context.Context, _ bool, emit func(json.RawMessage) error) error {
		if err := emit(json.RawMessage(`"on"`)); err != nil {
			return err
		}
		<-ctx.Done()
		time.Sleep(farewellPatience / 2) // virtual: whoever has hung up meanwhile hears none
		for range n {
			if err := emit(json.RawMessage(`"last"`)); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
}

// Whoever looks on sees also what happens last in an agent that ends.
func TestTraceToTheEnd(t *testing.T) {
	const n = 1000
	inMemory(t, farewells(n), func(t *testing.T, s *store) {
		conn := s.listener.connect()
		defer conn.Close()
		io.WriteString(conn, `{"version":1,"request":"trace"}`+"\n")
		last, lines := 0, bufio.NewScanner(conn)
		for lines.Scan() {
			switch {
			case strings.Contains(lines.Text(), `"on"`):
				s.stop()
			case strings.Contains(lines.Text(), `"last"`):
				last++
			default:
				t.Errorf("there is also %s", lines.Text())
			}
		}
		if last != n {
			t.Errorf("%d of the last %d events, then %v", last, n, lines.Err())
		}
	})
}

// An agent that ends waits for nobody who does not read what happens last.
func TestEndsWithoutBeingHeard(t *testing.T) {
	inMemory(t, farewells(1), func(t *testing.T, s *store) {
		silent, stalled := s.listener.connect(), s.listener.connect()
		defer silent.Close()
		defer stalled.Close()
		io.WriteString(stalled, `{"version":1,"request":"trace"}`+"\n")
		if line, err := bufio.NewReader(stalled).ReadString('\n'); err != nil || !strings.Contains(line, `"on"`) {
			t.Fatalf("event: %q, %v", line, err)
		}
		began := time.Now()
		s.stop()
		s.running.Wait()
		if took := time.Since(began); took > farewellPatience {
			t.Errorf("it ends after %v", took)
		}
	})
}

// pipes is a net.Listener in memory, for virtual time.
type pipes struct {
	waiting chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func newPipes() *pipes { return &pipes{waiting: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.waiting:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

// connect is a client's side of a new connection.
func (p *pipes) connect() net.Conn {
	here, there := net.Pipe()
	p.waiting <- there
	return here
}

// inMemory runs a test in virtual time, over connections in memory.
func inMemory(t *testing.T, events func(context.Context, bool, func(json.RawMessage) error) error, test func(t *testing.T, s *store)) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := newStore(t, events, func(string) net.Listener { return l })
		s.listener = l
		test(t, s)
	})
}

// endless emits events for as long as it may.
func endless(ctx context.Context, _ bool, emit func(json.RawMessage) error) error {
	for ctx.Err() == nil {
		if err := emit(json.RawMessage(`{"frame":"06 50"}`)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Whoever does not ask properly, in time, gets no place to wait in; nor does
// somebody who does not read.
func TestBadClients(t *testing.T) {
	for name, tt := range map[string]struct {
		says   string
		within time.Duration // until the server has hung up
		hears  string        // in the first line
	}{
		"silent":           {"", requestPatience, ""},
		"does not end":     {`{"version":1,`, requestPatience, ""},
		"endless":          {strings.Repeat("x", maxRequest+1), 0, ""},
		"no JSON":          {"status\n", 0, `"code":"failed"`},
		"no such request":  {`{"version":1,"request":"dance"}` + "\n", 0, "unknown request"},
		"another version":  {`{"version":2,"request":"status"}` + "\n", 0, `"code":"version"`},
		"no version":       {`{"request":"status"}` + "\n", 0, `"code":"version"`},
		"talks on":         {`{"version":1,"request":"status"}` + "\nmore and more\n", 0, `"status"`},
		"reads one line":   {`{"version":1,"request":"trace"}` + "\n", answerPatience, `"event"`},
		"asks for no more": {`{"version":1,"request":"history","limit":-1}` + "\n", 0, `"end"`},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, endless, func(t *testing.T, s *store) {
				conn := s.listener.connect()
				defer conn.Close()
				began := time.Now()
				go io.WriteString(conn, tt.says) // the server may not want all of it
				line, _ := bufio.NewReaderSize(conn, 16).ReadString('\n')
				if !strings.Contains(line, tt.hears) || tt.hears == "" && line != "" {
					t.Errorf("hears %q", line)
				}
				if name == "reads one line" {
					time.Sleep(tt.within + time.Second) // and no more
				}
				io.Copy(io.Discard, conn)
				if took := time.Since(began); took > tt.within+2*time.Second {
					t.Errorf("the server hangs up after %v", took)
				}
			})
		})
	}
}

// A client that has gone is not served any longer, and neither it nor one that
// does not read is in anybody's way.
func TestClientsThatGo(t *testing.T) {
	inMemory(t, endless, func(t *testing.T, s *store) {
		s.terminal.Set(devicetest.Script{Work: time.Minute, Outcome: device.Outcome{Effect: device.Done}})
		id, err := s.server.Agent.Submit(terminal, "end_of_day", "anna")
		if err != nil {
			t.Fatal(err)
		}
		follow := `{"version":1,"request":"follow","operation_id":"` + id + `"}` + "\n"
		for range 3 * maxClients { // more than there are places, one after the other
			conn := s.listener.connect()
			io.WriteString(conn, follow)
			bufio.NewReader(conn).ReadString('\n')
			conn.Close()
			synctest.Wait()
		}
		for range maxClients - 1 { // they read nothing
			conn := s.listener.connect()
			defer conn.Close()
			io.WriteString(conn, follow)
		}
		synctest.Wait()
		conn := s.listener.connect()
		defer conn.Close()
		io.WriteString(conn, `{"version":1,"request":"status"}`+"\n")
		if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.Contains(line, id) {
			t.Errorf("status: %q, %v", line, err)
		}
		var last agent.Report
		if err := s.server.Agent.Follow(t.Context(), id, func(r agent.Report) { last = r }); err != nil || last.State != "COMPLETED" {
			t.Errorf("%+v, %v", last, err)
		}
	})
}

// More than maxClients are turned away, and told so by the end.
func TestTooManyClients(t *testing.T) {
	inMemory(t, nil, func(t *testing.T, s *store) {
		for range maxClients {
			defer s.listener.connect().Close()
		}
		synctest.Wait()
		conn := s.listener.connect()
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("one more reads %v", err)
		}
		time.Sleep(requestPatience)
		synctest.Wait()
		conn = s.listener.connect()
		defer conn.Close()
		io.WriteString(conn, `{"version":1,"request":"status"}`+"\n")
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, terminal) {
			t.Errorf("afterwards: %q, %v", line, err)
		}
	})
}
