package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"terminalops/agent"
	"terminalops/device"
	"terminalops/device/link"
	"terminalops/device/zvt"
	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
	"terminalops/device/zvt/zvttest"
	"terminalops/dispatcher"
	"terminalops/dispatcher/store"
	"terminalops/transport"
	"terminalops/transport/mqtt"
	"terminalops/transport/transporttest/brokers"
)

// The end of day from one end to the other, with everything real, in one
// process:
//
//	HTTP --> dispatcher --wire--> broker --wire--> agent --TCP--> terminal
//	         (SQLite)                              (bbolt)        (simulated)
//
// Whatever is cut, forgotten or restored in between: the terminal closes its
// batch once, and the API says what it closed.

const (
	storeAccount  = "P11223351"
	storeTerminal = "P11223351-T0013"
	// deadline is for each event that is awaited. The longest way there is a
	// second hello, after half a minute.
	deadline = time.Minute
)

// system is all of it.
type system struct {
	t        *testing.T
	dir      string
	times    dispatcher.Times
	cloud    *wire // the dispatcher's to the broker
	shop     *wire // the agent's
	terminal *paymentTerminal

	url, token     string
	stopDispatcher func()
	stopAgent      func() // at once, whatever the terminal is at
}

// newSystem starts all but the agent. times may be nil.
func newSystem(t *testing.T, broker string, times func(*dispatcher.Times)) *system {
	t.Helper()
	s := &system{t: t, dir: t.TempDir(), times: dispatcher.DefaultTimes()}
	s.times.AckWait = deadline // a slow broker is not asked twice: publications are counted
	if times != nil {
		times(&s.times)
	}
	s.cloud, s.shop, s.terminal = newWire(t, broker), newWire(t, broker), newPaymentTerminal(t)
	s.startDispatcher()
	t.Cleanup(func() { s.stopDispatcher() })
	return s
}

// onBrokers runs a test on every broker there is.
func onBrokers(t *testing.T, f func(t *testing.T, broker string)) {
	t.Parallel()
	t.Run("NATS", func(t *testing.T) {
		t.Parallel()
		f(t, brokers.StartNATS(t))
	})
	t.Run("Mosquitto", func(t *testing.T) {
		t.Parallel()
		f(t, brokers.StartMosquitto(t).Address)
	})
}

func (s *system) log() *slog.Logger { return slog.New(slog.NewTextHandler(s.t.Output(), nil)) }

func (s *system) mqtt(w *wire) mqtt.Options {
	return mqtt.Options{
		URLs: []string{"tcp://" + w.address}, Prefix: "terminals", Logger: s.log(),
		FirstPause: 50 * time.Millisecond, LongestPause: time.Second,
	}
}

func (s *system) startDispatcher() {
	s.t.Helper()
	db, err := store.Open(s.t.Context(), store.Options{Path: filepath.Join(s.dir, "dispatcher.db")})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := db.AddTerminals(s.t.Context(), storeAccount, storeTerminal); err != nil {
		s.t.Fatal(err)
	}
	tokens := dispatcher.TokenOptions{Secret: []byte("0123456789abcdef0123456789abcdef"), Issuers: []string{"https://login.example.com"}, Audience: "https://api.example.com/v1"}
	if s.token, err = tokens.Sign(dispatcher.Development{Account: storeAccount, Scopes: []string{"admin:checkout"}, Subject: "demo", For: time.Hour}); err != nil {
		s.t.Fatal(err)
	}
	verifier, err := dispatcher.NewVerifier(tokens)
	if err != nil {
		s.t.Fatal(err)
	}
	d, err := dispatcher.New(dispatcher.Options{
		Store: db, End: mqtt.Cloud(s.mqtt(s.cloud), "dispatcher"), Verifier: verifier, PublicURL: "https://dispatcher.example.com", Times: s.times,
		Uploads: dispatcher.Uploads{Dir: filepath.Join(s.dir, "uploads"), Key: tokens.Secret, MaxBytes: 1 << 20, Keep: time.Hour},
		Log:     s.log(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	server := httptest.NewServer(d.Handler())
	s.url = server.URL
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	s.stopDispatcher = sync.OnceFunc(func() {
		server.Close()
		cancel()
		if err := errors.Join(<-ended, db.Close()); err != nil {
			s.t.Errorf("dispatcher: %v", err)
		}
	})
}

// startAgent starts the agent, on the journal that is there, and waits until it
// has been welcomed.
func (s *system) startAgent() {
	s.t.Helper()
	before := s.shop.delivered.count(on(transport.Welcome, ""))
	terminal, err := zvt.New(zvt.Options{Open: s.terminal.open, Logger: s.log()})
	if err != nil {
		s.t.Fatal(err)
	}
	a, err := agent.New(agent.Options{
		StateDir: filepath.Join(s.dir, "agent"), Version: "test", Logger: s.log(), Grace: time.Nanosecond,
		Lanes: []agent.Lane{{ID: storeTerminal, Link: "tcp:" + s.terminal.address, Terminal: terminal, End: mqtt.Agent(s.mqtt(s.shop), storeTerminal)}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	s.stopAgent = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("agent: %v", err)
		}
	})
	s.t.Cleanup(s.stopAgent)
	await(s.t, "a welcome", func() bool { return s.shop.delivered.count(on(transport.Welcome, "")) > before })
}

// journal is the file of the agent's journal. It is read and written as a whole,
// with the agent stopped.
func (s *system) journal() string { return filepath.Join(s.dir, "agent", "journal.db") }

// imageJournal is a copy of the journal, as in the image of a disk.
func (s *system) imageJournal() []byte {
	s.t.Helper()
	image, err := os.ReadFile(s.journal())
	if err != nil {
		s.t.Fatal(err)
	}
	return image
}

func (s *system) restoreJournal(image []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.journal(), image, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// operation is what the API says of an end of day.
type operation struct {
	ID       string
	Status   string
	Effect   string
	Result   totals
	Expires  time.Time `json:"expires_at"`
	Progress struct{ Message string }
	Error    *struct{ Code, Message, Executed string }
	Late     *struct {
		State  string
		Result totals
	} `json:"late_result"`
}

type totals struct {
	Count  *int64 `json:"purchases_count"`
	Amount *int64 `json:"purchases_amount"`
}

func (t totals) String() string {
	if t.Count == nil || t.Amount == nil {
		return "no totals"
	}
	return fmt.Sprintf("%d purchases, %s", *t.Count, money(*t.Amount))
}

func (s *system) request(method, path, body string) (status int, answer []byte) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+operationsPath+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	if answer, err = io.ReadAll(response.Body); err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, answer
}

// post asks for an end of day as soon as the dispatcher is connected.
func (s *system) post() (id string) {
	s.t.Helper()
	var o operation
	await(s.t, "201", func() bool {
		status, answer := s.request("POST", "", `{"terminal_id":"`+storeTerminal+`","operation":"end_of_day"}`)
		if status == http.StatusServiceUnavailable { // not connected: nothing was done
			return false
		}
		if err := json.Unmarshal(answer, &o); err != nil || status != http.StatusCreated {
			s.t.Fatalf("POST: %d %s", status, answer)
		}
		return true
	})
	return o.ID
}

func (s *system) get(id string) operation {
	s.t.Helper()
	status, answer := s.request("GET", "/"+id, "")
	var o operation
	if err := json.Unmarshal(answer, &o); err != nil || status != http.StatusOK {
		s.t.Fatalf("GET: %v %d %s", err, status, answer)
	}
	return o
}

// wantStartable checks that a terminal may still begin the operation: it is not
// for want of time if none does.
func (s *system) wantStartable(id string) {
	s.t.Helper()
	if o := s.get(id); !time.Now().Before(o.Expires) {
		s.t.Fatalf("the start deadline %v is over: this machine is too slow for the test", o.Expires)
	}
}

// awaitProgress waits until the API shows a text.
func (s *system) awaitProgress(id, text string) {
	s.t.Helper()
	await(s.t, "progress "+text, func() bool { return strings.Contains(s.get(id).Progress.Message, text) })
}

// wantStatus waits for the end of an operation.
func (s *system) wantStatus(id, want string) operation {
	s.t.Helper()
	await(s.t, "the end of "+id, func() bool { return s.get(id).Status != store.Pending })
	o := s.get(id)
	if o.Status != want {
		s.t.Fatalf("operation is %s (%+v), want %s", o.Status, o.Error, want)
	}
	return o
}

// wantClosed checks that the operation is COMPLETED with the totals of the
// n-th end of day of the terminal (from 1), and that this was its last.
func (s *system) wantClosed(id string, n int) {
	s.t.Helper()
	o := s.wantStatus(id, store.Completed)
	if o.Effect != string(device.Done) {
		s.t.Errorf("effect is %q", o.Effect)
	}
	s.wantTotals(o.Result, s.wantActs(n))
}

// wantActs checks how often the terminal closed a batch, and that nobody sent it
// what it must never be sent. It returns what the last batch held.
func (s *system) wantActs(n int) zvttest.Totals {
	s.t.Helper()
	closed := s.terminal.Did(zvttest.EndOfDay)
	if len(closed) != n {
		s.t.Fatalf("the terminal's log has %d ends of day, want %d: %v", len(closed), n, closed)
	}
	if v := s.terminal.Violations(); len(v) > 0 {
		s.t.Errorf("violations: %q", v)
	}
	return *closed[n-1].Totals
}

func (s *system) wantTotals(have totals, closed zvttest.Totals) {
	s.t.Helper()
	count, amount := closed.Sum()
	if want := fmt.Sprintf("%d purchases, %s", count, money(amount)); have.String() != want {
		s.t.Errorf("the API has %v, the terminal closed %s", have, want)
	}
}

// wantNext takes a payment, and has the next end of day, the n-th, close it.
func (s *system) wantNext(n int) {
	s.t.Helper()
	if err := s.terminal.Sell("VISA", 1990); err != nil {
		s.t.Fatal(err)
	}
	s.wantClosed(s.post(), n)
}

// await waits until something has happened that can only be looked at.
func await(t *testing.T, what string, happened func() bool) {
	t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	over := time.NewTimer(deadline)
	defer over.Stop()
	for !happened() {
		select {
		case <-look.C:
		case <-over.C:
			t.Fatalf("%s: not within %v", what, deadline)
		}
	}
}

// paymentTerminal is a fast simulated terminal on TCP. A test can have it stop
// in the middle of what it does, and take it away from the agent.
type paymentTerminal struct {
	*zvttest.Terminal
	address string

	mu      sync.Mutex
	stop    *stop
	line    net.Conn // the one that is served
	trouble error    // of whoever opens a link
}

// stop is where a terminal stops: before it tells a line that holds a text.
type stop struct {
	text    string
	reached chan struct{}
	goOn    chan struct{}
}

func newPaymentTerminal(t *testing.T) *paymentTerminal {
	t.Helper()
	p := &paymentTerminal{}
	simulated, err := zvttest.New(zvttest.Options{Fast: true, Tell: p.told})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.Terminal, p.address = simulated, l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.line = conn
			p.mu.Unlock()
			if err := simulated.ServeTCP(ctx, conn); err != nil {
				t.Errorf("terminal: %v", err)
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		cancel()
		tasks.Wait()
	})
	return p
}

// stopBefore has the terminal stop once, before it tells a line that holds text.
// goOn lets it go on, and may be called again.
func (p *paymentTerminal) stopBefore(t *testing.T, text string) (reached <-chan struct{}, goOn func()) {
	s := &stop{text, make(chan struct{}), make(chan struct{})}
	goOn = sync.OnceFunc(func() { close(s.goOn) })
	t.Cleanup(goOn)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop = s
	return s.reached, goOn
}

// told hears what the terminal tells.
func (p *paymentTerminal) told(line string) {
	p.mu.Lock()
	s := p.stop
	if s == nil || !strings.Contains(line, s.text) {
		p.mu.Unlock()
		return
	}
	p.stop = nil
	p.mu.Unlock()
	close(s.reached)
	<-s.goOn
}

// open opens the agent's link.
func (p *paymentTerminal) open(ctx context.Context) (frame.Stream, error) {
	p.mu.Lock()
	trouble := p.trouble
	p.mu.Unlock()
	if trouble != nil {
		return nil, trouble
	}
	address, err := link.Parse("tcp:" + p.address)
	if err != nil {
		return nil, err
	}
	stream, err := link.Open(ctx, address, link.Options{})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", device.ErrUnreachable, err)
	}
	return stream, nil
}

// setTrouble has opening fail; nil ends that.
func (p *paymentTerminal) setTrouble(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trouble = err
}

// unplug breaks the line, and there is no other until setTrouble(nil).
func (p *paymentTerminal) unplug() {
	p.setTrouble(fmt.Errorf("%w: unplugged", device.ErrUnreachable))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line.Close()
}

// wire is the way between one end and the broker. It passes on whole MQTT
// packets, notes what is published, and breaks where a test wants it to.
type wire struct {
	address, broker string

	published    tape // by the end
	acknowledged tape // of these, whose PUBACK has come back to the end
	delivered    tape // to the end

	mu    sync.Mutex
	lose  func(publication) bool
	down  bool
	conns map[net.Conn]bool
}

// publication is a PUBLISH at QoS 1.
type publication struct {
	topic, payload string
	id             uint16 // of the packet; never 0
}

// on selects by the last word of the topic and a text in the payload.
func on(k transport.Kind, text string) func(publication) bool {
	return func(p publication) bool {
		return strings.HasSuffix(p.topic, "/"+string(k)) && strings.Contains(p.payload, text)
	}
}

const completedReport = `"state":"COMPLETED"`

// tape notes publications in order.
type tape struct {
	mu  sync.Mutex
	all []publication
}

func (t *tape) note(p publication) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, p)
}

func (t *tape) payloads(match func(publication) bool) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []string
	for _, p := range t.all {
		if match(p) {
			found = append(found, p.payload)
		}
	}
	return found
}

func (t *tape) count(match func(publication) bool) int { return len(t.payloads(match)) }

func newWire(t *testing.T, broker string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{address: l.Addr().String(), broker: broker, conns: make(map[net.Conn]bool)}
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() { w.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.setDown(true)
		tasks.Wait()
	})
	return w
}

// losePuback has the broker's PUBACK of the next publication that matches, and
// all that the broker says before it, get lost, and then the connection.
func (w *wire) losePuback(match func(publication) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose = match
}

// loses reports whether p is the one.
func (w *wire) loses(p publication) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lose == nil || !w.lose(p) {
		return false
	}
	w.lose = nil
	return true
}

// setDown cuts all connections and takes no others, or takes them again.
func (w *wire) setDown(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
	if down {
		for c := range w.conns {
			c.Close()
		}
	}
}

// keep notes a connection that setDown has to cut; false if it is cut already.
func (w *wire) keep(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[c] = true
	return !w.down
}

func (w *wire) forget(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
	c.Close()
}

func (w *wire) serve(end net.Conn) {
	defer w.forget(end)
	broker, err := net.Dial("tcp", w.broker)
	if err != nil {
		return // the broker is killed
	}
	defer w.forget(broker)
	if !w.keep(end) || !w.keep(broker) {
		return
	}
	var (
		lost   atomic.Uint32 // the packet whose PUBACK gets lost; 0: none
		unsure sync.Map      // publications by packet, not acknowledged
		up     sync.WaitGroup
	)
	up.Go(func() {
		defer broker.Close()
		forward(end, broker, func(p packet) (pass, more bool) {
			if sent, ok := p.publication(); ok {
				w.published.note(sent)
				unsure.Store(sent.id, sent)
				if w.loses(sent) {
					lost.Store(uint32(sent.id))
				}
			}
			return true, true
		})
	})
	forward(broker, end, func(p packet) (pass, more bool) {
		id, isPuback := p.puback()
		if l := lost.Load(); l != 0 {
			return false, !isPuback || uint32(id) != l
		}
		if sent, ok := unsure.LoadAndDelete(id); isPuback && ok {
			w.acknowledged.note(sent.(publication))
		}
		if got, ok := p.publication(); ok {
			w.delivered.note(got)
		}
		return true, true
	})
	end.Close()
	up.Wait()
}

// forward copies packets, as long as see wants more of them.
func forward(from io.Reader, to io.Writer, see func(packet) (pass, more bool)) {
	for r := bufio.NewReader(from); ; {
		p, err := readPacket(r)
		if err != nil {
			return
		}
		pass, more := see(p)
		if pass {
			if _, err := to.Write(p.bytes()); err != nil {
				return
			}
		}
		if !more {
			return
		}
	}
}

// packet is an MQTT control packet ([MQTT-3.1.1] 2).
type packet struct {
	first byte // type and flags
	body  []byte
}

// readPacket reads one; its length is written as a uvarint.
func readPacket(r *bufio.Reader) (packet, error) {
	first, err := r.ReadByte()
	if err != nil {
		return packet{}, err
	}
	length, err := binary.ReadUvarint(r)
	if err != nil || length > 1<<20 {
		return packet{}, errors.Join(err, fmt.Errorf("packet of %d bytes", length))
	}
	p := packet{first, make([]byte, length)}
	_, err = io.ReadFull(r, p.body)
	return p, err
}

func (p packet) bytes() []byte {
	return append(binary.AppendUvarint([]byte{p.first}, uint64(len(p.body))), p.body...)
}

// publication reads a PUBLISH: topic, packet identifier, payload (3.3).
func (p packet) publication() (publication, bool) {
	const publish, qos1 = 0x30, 0x02
	if p.first&0xF0 != publish || p.first&qos1 == 0 {
		return publication{}, false
	}
	topic := p.body[2:][:binary.BigEndian.Uint16(p.body)]
	rest := p.body[2+len(topic):]
	return publication{string(topic), string(rest[2:]), binary.BigEndian.Uint16(rest)}, true
}

// puback reads a PUBACK: the packet identifier (3.4).
func (p packet) puback() (id uint16, ok bool) {
	const puback = 0x40
	if p.first != puback {
		return 0, false
	}
	return binary.BigEndian.Uint16(p.body), true
}

// intermediate is what the terminal tells when it sends its first 04 FF: it has
// taken the command, and closed nothing yet.
var intermediate = "-> " + apdu.ControlIntermediateStatus.String()

func TestEndOfDay(t *testing.T) {
	onBrokers(t, func(t *testing.T, broker string) {
		s := newSystem(t, broker, nil)
		s.startAgent()
		s.wantClosed(s.post(), 1)
		s.wantNext(2)
	})
}

// The broker has taken the command, and the dispatcher does not get to know it:
// it publishes the command again. The agent gets it twice.
func TestCommandIsPublishedAgain(t *testing.T) {
	onBrokers(t, func(t *testing.T, broker string) {
		s := newSystem(t, broker, nil)
		s.startAgent()
		s.stopAgent() // the broker keeps the commands, so that both are there
		command := on(transport.Commands, "")
		s.cloud.losePuback(command)
		id := s.post()
		await(t, "the second command's PUBACK", func() bool { return s.cloud.acknowledged.count(command) == 1 })
		s.startAgent()
		await(t, "both commands", func() bool { return s.shop.delivered.count(command) >= 2 })
		s.wantClosed(id, 1)
		wantSame(t, s.cloud.published.payloads(command), 2)
		s.wantNext(2)
	})
}

// The same while the agent is there: it may be done before the dispatcher is
// back.
func TestPubackOfCommandIsLost(t *testing.T) {
	onBrokers(t, func(t *testing.T, broker string) {
		s := newSystem(t, broker, nil)
		s.startAgent()
		s.cloud.losePuback(on(transport.Commands, ""))
		s.wantClosed(s.post(), 1)
		s.wantNext(2)
	})
}

// The broker has taken the final report, and the agent does not get to know it:
// it sends the same bytes again.
func TestPubackOfReportIsLost(t *testing.T) {
	onBrokers(t, func(t *testing.T, broker string) {
		s := newSystem(t, broker, nil)
		s.startAgent()
		completed := on(transport.Reports, completedReport)
		s.shop.losePuback(completed)
		id := s.post()
		s.wantClosed(id, 1)
		await(t, "the second report's PUBACK", func() bool { return s.shop.acknowledged.count(completed) == 1 })
		wantSame(t, s.shop.published.payloads(completed), 2)
		await(t, "both reports", func() bool { return s.cloud.delivered.count(completed) >= 2 })
		s.wantNext(2)
		s.wantTotals(s.wantStatus(id, store.Completed).Result, *s.terminal.Did(zvttest.EndOfDay)[0].Totals)
	})
}

// wantSame checks that the same was published n times.
func wantSame(t *testing.T, payloads []string, n int) {
	t.Helper()
	if len(payloads) != n {
		t.Fatalf("published %d times, want %d: %q", len(payloads), n, payloads)
	}
	for _, p := range payloads[1:] {
		if p != payloads[0] {
			t.Errorf("published %s\nand then %s", payloads[0], p)
		}
	}
}

// running asks for an end of day, and returns when the terminal is at it, has
// stopped before the first 04 FF, and the cloud knows that it runs.
func (s *system) running() (id string, goOn func()) {
	s.t.Helper()
	reached, goOn := s.terminal.stopBefore(s.t, intermediate)
	id = s.post()
	s.awaitRunning(id, reached)
	return id, goOn
}

func (s *system) awaitRunning(id string, reached <-chan struct{}) {
	s.t.Helper()
	await(s.t, "the terminal at work", func() bool {
		select {
		case <-reached:
			return true
		default:
			return false
		}
	})
	s.awaitProgress(id, "started")
}

// closes lets the terminal go on, and waits until it has closed its batch.
func (s *system) closes(goOn func()) {
	s.t.Helper()
	goOn()
	await(s.t, "a closed batch", func() bool { return len(s.terminal.Did(zvttest.EndOfDay)) > 0 })
}

// The broker forgets all sessions while the terminal closes its batch.
func TestBrokerForgetsWhileRunning(t *testing.T) {
	t.Parallel()
	t.Run("both are back", func(t *testing.T) {
		t.Parallel()
		broker := brokers.StartMosquitto(t)
		s := newSystem(t, broker.Address, nil)
		s.startAgent()
		id, goOn := s.running()
		broker.Kill()
		broker.Forget()
		broker.Start()
		goOn()
		s.wantClosed(id, 1)
		s.wantNext(2)
	})
	// The broker takes the report, and nobody has subscribed to it.
	t.Run("the report comes before the dispatcher", func(t *testing.T) {
		t.Parallel()
		broker := brokers.StartMosquitto(t)
		s := newSystem(t, broker.Address, nil)
		s.startAgent()
		id, goOn := s.running()
		s.cloud.setDown(true)
		broker.Kill()
		broker.Forget()
		broker.Start()
		goOn()
		completed := on(transport.Reports, completedReport)
		await(t, "the report's PUBACK", func() bool { return s.shop.acknowledged.count(completed) == 1 })
		s.cloud.setDown(false)
		s.wantClosed(id, 1)
		s.wantNext(2)
	})
}

// The broker forgets a command that it has acknowledged. The agent was never
// there before: the welcome brings it.
func TestBrokerForgetsCommand(t *testing.T) {
	t.Parallel()
	broker := brokers.StartMosquitto(t)
	s := newSystem(t, broker.Address, nil)
	id, command := s.post(), on(transport.Commands, "")
	await(t, "the command's PUBACK", func() bool { return s.cloud.acknowledged.count(command) == 1 })
	broker.Kill()
	broker.Forget()
	broker.Start()
	s.startAgent()
	s.wantClosed(id, 1)
	if n := s.shop.delivered.count(command); n != 0 {
		t.Errorf("%d commands came by themselves, want the welcome to have brought it", n)
	}
	wantSame(t, s.cloud.published.payloads(command), 1)
	s.wantNext(2)
}

// waiting asks for an end of day while the till has the terminal, and returns
// when the agent has accepted it and waits.
func (s *system) waiting() (id string) {
	s.t.Helper()
	s.terminal.setTrouble(fmt.Errorf("%w: the till has the port", device.ErrBusy))
	id = s.post()
	s.awaitProgress(id, "the till has the port")
	return id
}

// The disk is restored from an image that was made before the end of day was
// completed: with the agent stopped, the journal is an old copy.
func TestOldJournalAfterCompletion(t *testing.T) {
	t.Parallel()
	images := map[string]func(s *system) (id string, image []byte){
		"does not know it": func(s *system) (string, []byte) {
			s.stopAgent()
			image := s.imageJournal()
			s.startAgent()
			return s.post(), image
		},
		"has accepted it": func(s *system) (string, []byte) {
			id := s.waiting()
			s.stopAgent()
			image := s.imageJournal()
			s.terminal.setTrouble(nil)
			s.startAgent()
			return id, image
		},
		"has started it": func(s *system) (string, []byte) {
			id, goOn := s.running()
			s.stopAgent()
			image := s.imageJournal()
			s.closes(goOn)
			s.startAgent()
			return id, image
		},
	}
	for name, take := range images {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t, brokers.StartNATS(t), nil)
			s.startAgent()
			id, image := take(s)
			s.wantClosed(id, 1)
			s.stopAgent()
			s.restoreJournal(image)
			s.startAgent()
			s.wantStartable(id)
			s.wantNext(2) // behind whatever the old journal still had to do
			o := s.wantStatus(id, store.Completed)
			s.wantTotals(o.Result, *s.terminal.Did(zvttest.EndOfDay)[0].Totals)
		})
	}
}

// The disk is restored while the terminal is at it: nobody knows any more how
// it ended, and nobody has it done again.
func TestOldJournalWhileRunning(t *testing.T) {
	t.Parallel()
	images := map[string]func(s *system) (id string, image []byte, goOn func()){
		"does not know it": func(s *system) (string, []byte, func()) {
			s.stopAgent()
			image := s.imageJournal()
			s.startAgent()
			id, goOn := s.running()
			return id, image, goOn
		},
		"has accepted it": func(s *system) (string, []byte, func()) {
			id := s.waiting()
			s.stopAgent()
			image := s.imageJournal()
			reached, goOn := s.terminal.stopBefore(s.t, intermediate)
			s.terminal.setTrouble(nil)
			s.startAgent()
			s.awaitRunning(id, reached)
			return id, image, goOn
		},
	}
	for name, take := range images {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t, brokers.StartNATS(t), func(times *dispatcher.Times) {
				times.StartDeadline, times.SilenceWindow = 15*time.Second, 3*time.Second
			})
			s.startAgent()
			id, image, goOn := take(s)
			s.stopAgent()
			s.restoreJournal(image)
			s.startAgent()
			s.wantStartable(id)
			s.closes(goOn)
			o := s.wantStatus(id, store.Timeout)
			if o.Error == nil || o.Error.Executed != transport.ExecutedUnknown {
				t.Errorf("error is %+v, want executed unknown", o.Error)
			}
			s.wantActs(1)
			s.wantNext(2)
			if o := s.wantStatus(id, store.Timeout); o.Late != nil {
				t.Errorf("late result %+v of a journal that knows nothing", o.Late)
			}
		})
	}
}

// The dispatcher is restarted while the terminal is at it.
func TestDispatcherIsRestarted(t *testing.T) {
	t.Parallel()
	for _, meanwhile := range []bool{true, false} {
		t.Run(fmt.Sprint("result comes meanwhile ", meanwhile), func(t *testing.T) {
			t.Parallel()
			s := newSystem(t, brokers.StartNATS(t), nil)
			s.startAgent()
			id, goOn := s.running()
			s.stopDispatcher()
			if meanwhile {
				goOn()
				await(t, "the report's PUBACK", func() bool { return s.shop.acknowledged.count(on(transport.Reports, completedReport)) == 1 })
			}
			s.startDispatcher()
			goOn()
			s.wantClosed(id, 1)
			s.wantNext(2)
		})
	}
}

// wantLate checks that the totals come beside a TIMEOUT.
func (s *system) wantLate(id string) {
	s.t.Helper()
	await(s.t, "the late result", func() bool { return s.get(id).Late != nil })
	o := s.wantStatus(id, store.Timeout)
	if o.Late.State != transport.StateCompleted {
		s.t.Errorf("late result is %s", o.Late.State)
	}
	s.wantTotals(o.Late.Result, s.wantActs(1))
	if o.Result != (totals{}) {
		s.t.Errorf("result %v of an operation that is TIMEOUT", o.Result)
	}
}

func TestResultComesLate(t *testing.T) {
	t.Parallel()
	t.Run("the store was offline", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t, brokers.StartNATS(t), func(times *dispatcher.Times) {
			times.StartDeadline, times.SilenceWindow = 8*time.Second, 3*time.Second
		})
		s.startAgent()
		id, goOn := s.running()
		s.shop.setDown(true)
		s.closes(goOn)
		s.wantStatus(id, store.Timeout)
		s.shop.setDown(false)
		s.wantLate(id)
		s.wantNext(2)
	})
	t.Run("the terminal was unplugged", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t, brokers.StartNATS(t), func(times *dispatcher.Times) {
			times.StartDeadline, times.HardLimits["end_of_day"] = 8*time.Second, 14*time.Second
		})
		s.startAgent()
		id, goOn := s.running()
		s.terminal.unplug()
		s.awaitProgress(id, "asking the terminal what happened")
		s.wantStatus(id, store.Timeout)
		s.closes(goOn)
		s.terminal.setTrouble(nil)
		s.wantLate(id)
		s.wantNext(2)
	})
}
