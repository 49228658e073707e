package mqtt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"terminalops/transport"
	"terminalops/transport/transporttest"
)

// fake is the broker's end of the wire in virtual time: it answers every packet
// as answer says, over net.Pipe. What it is told to do wrong no real broker
// does when one wants it to.
type fake struct {
	// answer returns what to write; nil answers like a broker in good health.
	answer func(packets.ControlPacket) []packets.ControlPacket

	mu       sync.Mutex
	down     bool
	conns    []net.Conn
	accepted []time.Time
	received []packets.ControlPacket
}

func (f *fake) dial(context.Context, *url.URL) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, errors.New("connection refused")
	}
	client, server := net.Pipe()
	f.conns = append(f.conns, server)
	f.accepted = append(f.accepted, time.Now())
	go f.serve(server)
	return client, nil
}

func (f *fake) serve(conn net.Conn) {
	defer conn.Close()
	for {
		p, err := packets.ReadPacket(conn)
		if err != nil {
			return
		}
		f.mu.Lock()
		f.received = append(f.received, p)
		f.mu.Unlock()
		answer := healthy
		if f.answer != nil {
			answer = f.answer
		}
		for _, a := range answer(p) {
			a.Write(conn)
		}
	}
}

// healthy answers like a broker to which nothing is forbidden.
func healthy(p packets.ControlPacket) []packets.ControlPacket {
	switch p := p.(type) {
	case *packets.ConnectPacket:
		return one(packets.Connack)
	case *packets.SubscribePacket:
		a := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
		a.MessageID = p.MessageID
		a.ReturnCodes = p.Qoss
		return []packets.ControlPacket{a}
	case *packets.PublishPacket:
		a := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
		a.MessageID = p.MessageID
		return []packets.ControlPacket{a}
	case *packets.PingreqPacket:
		return one(packets.Pingresp)
	default:
		return nil
	}
}

func one(kind byte) []packets.ControlPacket {
	return []packets.ControlPacket{packets.NewControlPacket(kind)}
}

// count returns how many packets of a type were received.
func (f *fake) count(kind byte) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.received {
		if strings.HasPrefix(p.String(), packets.PacketNames[kind]+":") {
			n++
		}
	}
	return n
}

func (f *fake) attempts() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.accepted
}

// setDown takes the broker away, or brings it back.
func (f *fake) setDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
	if down {
		for _, c := range f.conns {
			c.Close()
		}
		f.conns = nil
	}
}

// lines is a log to look at.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// has reports whether a line has all these words.
func (l *lines) has(words ...string) bool {
	for line := range strings.Lines(l.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}

// agentOf returns an agent's end with true timings at a fake broker.
func agentOf(f *fake, id string, log *lines) *end {
	return endOf(f, log, func(o Options) transport.End { return Agent(o, id) })
}

// endOf returns an end with true timings at a fake broker.
func endOf(f *fake, log *lines, which func(Options) transport.End) *end {
	e := which(Options{
		URLs: []string{"tls://broker.test"}, Prefix: "terminals",
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	}).(*end)
	e.dial = f.dial
	return e
}

// virtual runs an agent at a fake broker in virtual time.
func virtual(t *testing.T, f *fake, h transport.Handler, test func(t *testing.T, log *lines)) {
	synctest.Test(t, func(t *testing.T) {
		log := new(lines)
		t.Cleanup(outlast)
		transporttest.Start(t, agentOf(f, "T1", log), h)
		test(t, log)
	})
}

// stalled is how long a fake that stalls does so.
const stalled = time.Hour

// outlast waits for fakes that stall: a bubble must not end before.
func outlast() { time.Sleep(2 * stalled) }

func TestSilentBrokerIsNoticed(t *testing.T) {
	agent := transporttest.NewRecorder()
	f := &fake{answer: func(p packets.ControlPacket) []packets.ControlPacket {
		if _, ping := p.(*packets.PingreqPacket); ping {
			return nil
		}
		return healthy(p)
	}}
	virtual(t, f, agent, func(t *testing.T, log *lines) {
		agent.AwaitConnected(t, time.Minute)
		began := time.Now()
		agent.Await(t, time.Minute, "lost", func() bool { return agent.Sender() == nil })
		if took := time.Since(began); took < 30*time.Second || took > 45*time.Second {
			t.Errorf("noticed after %v", took)
		}
		synctest.Wait()
		if !log.has("connection lost", "pingresp") {
			t.Errorf("log: %s", log)
		}
	})
}

// A dispatcher that is deaf has to know it before it takes that for the terminals'
// silence: they speak every 20 s, and 60 s without a word are TIMEOUT.
func TestDeafCloudIsNoticedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(outlast)
		log, cloud := new(lines), transporttest.NewRecorder()
		f := &fake{answer: func(p packets.ControlPacket) []packets.ControlPacket {
			if _, ping := p.(*packets.PingreqPacket); ping {
				return nil
			}
			return healthy(p)
		}}
		transporttest.Start(t, endOf(f, log, func(o Options) transport.End { return Cloud(o, "cloud") }), cloud)
		cloud.AwaitConnected(t, time.Minute)
		began := time.Now()
		cloud.Await(t, time.Minute, "lost", func() bool { return cloud.Sender() == nil })
		if took := time.Since(began); took > 60*time.Second-20*time.Second {
			t.Errorf("noticed after %v", took)
		}
	})
}

func TestIdleDay(t *testing.T) {
	agent, f := transporttest.NewRecorder(), new(fake)
	virtual(t, f, agent, func(t *testing.T, log *lines) {
		time.Sleep(24 * time.Hour)
		if agent.Connections() != 1 || agent.Sender() == nil {
			t.Errorf("%d connections in an idle day", agent.Connections())
		}
		if pings := f.count(packets.Pingreq); pings < 24*60 || pings > 3*24*60 {
			t.Errorf("%d pings in an idle day", pings)
		}
	})
}

// A broker that reads no more while we write: the deadline of the write ends
// it, whichever packet it is.
func TestStalledWrite(t *testing.T) {
	agent, f := transporttest.NewRecorder(), new(fake)
	f.answer = func(p packets.ControlPacket) []packets.ControlPacket {
		if _, publish := p.(*packets.PublishPacket); publish {
			time.Sleep(stalled)
		}
		return healthy(p)
	}
	virtual(t, f, agent, func(t *testing.T, log *lines) {
		sender := agent.AwaitConnected(t, time.Minute)
		began := time.Now()
		results := make(chan error)
		for range 3 {
			go func() { results <- sender.Send(context.Background(), "T1", transport.Reports, []byte("x")) }()
		}
		for range 3 {
			if err := <-results; !errors.Is(err, transport.ErrNotConnected) {
				t.Errorf("Send returned %v", err)
			}
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("noticed after %v", took)
		}
		agent.Await(t, time.Minute, "connected again", func() bool { return agent.Connections() == 2 })
	})
}

// The library clears write deadlines after a PUBLISH, while a ping may be
// written: that must not take ours away.
func TestWriteDeadlineIsOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer server.Close()
		g := guard(client, 2, 10*time.Second)
		began := time.Now()
		result := make(chan error)
		go func() {
			_, err := g.Write([]byte("x"))
			result <- err
		}()
		synctest.Wait()
		g.SetWriteDeadline(time.Time{})
		g.SetDeadline(time.Time{})
		err := <-result
		if took := time.Since(began); took != 10*time.Second || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write ended after %v with %v", took, err)
		}
	})
}

func TestRefusedSubscription(t *testing.T) {
	suback := func(codes ...byte) func(packets.ControlPacket) []packets.ControlPacket {
		return func(p packets.ControlPacket) []packets.ControlPacket {
			answers := healthy(p)
			if _, subscribe := p.(*packets.SubscribePacket); subscribe {
				answers[0].(*packets.SubackPacket).ReturnCodes = codes
			}
			return answers
		}
	}
	tests := []struct {
		name   string
		answer func(packets.ControlPacket) []packets.ControlPacket
		log    []string
	}{
		{"refused", suback(0x80, 0x80), []string{"level=ERROR", "broker=tls://broker.test:8883", "subscribe terminals/T1/", "refused (code 80)"}},
		{"granted at QoS 0", suback(0, 0), []string{"level=ERROR", "granted at QoS 0, expected 1"}},
		{"too few codes", suback(1), []string{"no answer in the SUBACK"}},
		{"too many codes", suback(1, 1, 1), []string{"packet 90 of 5 bytes, expected at most 4"}},
		{"no SUBACK", func(p packets.ControlPacket) []packets.ControlPacket {
			if _, subscribe := p.(*packets.SubscribePacket); subscribe {
				return nil
			}
			return healthy(p)
		}, []string{"no answer within 10s"}},
		{"no CONNACK", func(packets.ControlPacket) []packets.ControlPacket { return nil }, []string{"no answer within 10s"}},
		{"bad password", func(packets.ControlPacket) []packets.ControlPacket {
			a := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
			a.ReturnCode = packets.ErrRefusedBadUsernameOrPassword
			return []packets.ControlPacket{a}
		}, []string{"broker=tls://broker.test:8883", "bad user name or password"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			agent, f := transporttest.NewRecorder(), &fake{answer: tt.answer}
			virtual(t, f, agent, func(t *testing.T, log *lines) {
				time.Sleep(10 * time.Minute)
				if agent.Connections() != 0 {
					t.Error("Connected was called")
				}
				if !log.has(tt.log...) {
					t.Errorf("log: %s", log)
				}
				// An attempt takes up to 10 s, a pause up to 30 s.
				if n := len(f.attempts()); n < 15 || n > 100 {
					t.Errorf("%d attempts in 10 minutes", n)
				}
			})
		})
	}
}

// After an outage of 75 s all sessions are back within 35 s, and no second has
// to bear more than 15 % of them.
func TestSessionsComeBackSpread(t *testing.T) {
	const sessions = 200
	synctest.Test(t, func(t *testing.T) {
		f := new(fake)
		agents := make([]*transporttest.Recorder, sessions)
		for i := range agents {
			agents[i] = transporttest.NewRecorder()
			transporttest.Start(t, agentOf(f, fmt.Sprintf("T%d", i), new(lines)), agents[i])
		}
		time.Sleep(5 * time.Minute)
		if n := len(f.attempts()); n != sessions {
			t.Fatalf("%d connections of %d sessions", n, sessions)
		}
		f.setDown(true)
		time.Sleep(75 * time.Second)
		f.setDown(false)
		back := time.Now()
		time.Sleep(5 * time.Minute)
		perSecond := make(map[time.Duration]int)
		for _, at := range f.attempts()[sessions:] {
			took := at.Sub(back)
			perSecond[took.Truncate(time.Second)]++
			if took > 35*time.Second {
				t.Errorf("a session came back after %v", took)
			}
		}
		for second, n := range perSecond {
			if n > sessions*15/100 {
				t.Errorf("%d of %d sessions came back in second %v", n, sessions, second)
			}
		}
		for i, a := range agents {
			if a.Sender() == nil || a.Connections() != 2 {
				t.Errorf("session %d: %d connections", i, a.Connections())
			}
		}
	})
}

// deliver answers like healthy, and delivers a message on each topic once the
// subscription is granted.
func deliver(topics ...string) func(packets.ControlPacket) []packets.ControlPacket {
	return func(p packets.ControlPacket) []packets.ControlPacket {
		answers := healthy(p)
		if _, subscribe := p.(*packets.SubscribePacket); subscribe {
			for i, topic := range topics {
				m := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
				m.TopicName, m.Qos, m.MessageID, m.Payload = topic, 1, uint16(i+1), []byte("1")
				answers = append(answers, m)
			}
		}
		return answers
	}
}

// A topic that is not ours, from a subscription of the past, is acknowledged:
// otherwise it would stand in the broker's window for ever.
func TestForeignTopicIsAcknowledged(t *testing.T) {
	foreign := []string{"old/T1/commands", "terminals/T2/commands", "terminals/T1/reports", "terminals/T1/commands/more", "terminals/T1", "x"}
	agent, f := transporttest.NewRecorder(), &fake{answer: deliver(foreign...)}
	virtual(t, f, agent, func(t *testing.T, log *lines) {
		agent.AwaitConnected(t, time.Minute)
		synctest.Wait()
		if got := agent.Received(); len(got) != 0 {
			t.Errorf("received %v", got)
		}
		if n := f.count(packets.Puback); n != len(foreign) {
			t.Errorf("%d PUBACK, want %d", n, len(foreign))
		}
		if !log.has("level=WARN", "topic=old/T1/commands") {
			t.Errorf("log: %s", log)
		}
	})
}

// After Receive has failed the connection stands for 30 s more, then ends with
// DISCONNECT.
func TestRedeliverAfter(t *testing.T) {
	agent, f := transporttest.NewRecorder(), new(fake)
	agent.Verdict = func(transport.Message) error { return errors.New("the journal is full") }
	f.answer = deliver("terminals/T1/commands")
	virtual(t, f, agent, func(t *testing.T, log *lines) {
		sender := agent.AwaitConnected(t, time.Minute)
		time.Sleep(29 * time.Second)
		if err := sender.Send(t.Context(), "T1", transport.Presence, []byte("full")); err != nil {
			t.Errorf("Send while waiting: %v", err)
		}
		if n := f.count(packets.Disconnect); n != 0 || agent.Connections() != 1 {
			t.Errorf("%d DISCONNECT and %d connections after 29 s", n, agent.Connections())
		}
		time.Sleep(3 * time.Second)
		if n := f.count(packets.Disconnect); n != 1 || agent.Connections() != 2 {
			t.Errorf("%d DISCONNECT and %d connections after 32 s", n, agent.Connections())
		}
		if n := f.count(packets.Puback); n != 0 {
			t.Errorf("%d PUBACK", n)
		}
	})
}

func TestSendWindow(t *testing.T) {
	agent, f := transporttest.NewRecorder(), new(fake)
	f.answer = func(p packets.ControlPacket) []packets.ControlPacket {
		if _, publish := p.(*packets.PublishPacket); publish {
			return nil
		}
		return healthy(p)
	}
	virtual(t, f, agent, func(t *testing.T, log *lines) {
		sender := agent.AwaitConnected(t, time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		began := time.Now()
		results := make(chan error)
		for range 64 {
			go func() { results <- sender.Send(ctx, "T1", transport.Reports, []byte("x")) }()
		}
		synctest.Wait()
		if n := f.count(packets.Publish); n != 32 {
			t.Errorf("%d messages in flight, want 32", n)
		}
		for range 64 {
			if err := <-results; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Send returned %v", err)
			}
		}
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("Send took %v", took)
		}
	})
}

// A broker that answers pings and acknowledges nothing: messages that nobody
// waits for any more fill the window, so the connection is made again.
func TestMissingPubackIsNoticed(t *testing.T) {
	agent, f := transporttest.NewRecorder(), new(fake)
	var dumb atomic.Bool
	dumb.Store(true)
	f.answer = func(p packets.ControlPacket) []packets.ControlPacket {
		if _, publish := p.(*packets.PublishPacket); publish && dumb.Load() {
			return nil
		}
		return healthy(p)
	}
	virtual(t, f, agent, func(t *testing.T, log *lines) {
		sender := agent.AwaitConnected(t, time.Minute)
		for range sendWindow {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			go sender.Send(ctx, "T1", transport.Reports, []byte("x"))
		}
		time.Sleep(39 * time.Second)
		if agent.Connections() != 1 {
			t.Errorf("%d connections after 39 s", agent.Connections())
		}
		dumb.Store(false)
		time.Sleep(3 * time.Second)
		if agent.Connections() != 2 || !log.has("connection lost", "no PUBACK within 40s") {
			t.Errorf("%d connections after 42 s, log: %s", agent.Connections(), log)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := agent.AwaitConnected(t, time.Minute).Send(ctx, "T1", transport.Reports, []byte("x")); err != nil {
			t.Errorf("Send on the next connection: %v", err)
		}
	})
}

// Run ends in time also while nothing answers, and without last will.
func TestRunEndsWhileConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: func(packets.ControlPacket) []packets.ControlPacket { return nil }}
		stop := transporttest.Start(t, agentOf(f, "T1", new(lines)), transporttest.NewRecorder())
		time.Sleep(5 * time.Second)
		began := time.Now()
		stop()
		if took := time.Since(began); took > time.Second {
			t.Errorf("Run ended after %v", took)
		}
	})
}

// What is being sent when Run's ctx ends gets two seconds to be acknowledged.
func TestRunWaitsForWhatIsSent(t *testing.T) {
	for _, tt := range []struct {
		ack  time.Duration
		want error
	}{{time.Second, nil}, {stalled, transport.ErrNotConnected}} {
		agent, f := transporttest.NewRecorder(), new(fake)
		f.answer = func(p packets.ControlPacket) []packets.ControlPacket {
			if _, publish := p.(*packets.PublishPacket); publish {
				time.Sleep(tt.ack)
			}
			return healthy(p)
		}
		synctest.Test(t, func(t *testing.T) {
			t.Cleanup(outlast)
			stop := transporttest.Start(t, agentOf(f, "T1", new(lines)), agent)
			sender := agent.AwaitConnected(t, time.Minute)
			result := make(chan error, 1)
			go func() { result <- sender.Send(context.Background(), "T1", transport.Reports, []byte("x")) }()
			synctest.Wait()
			began := time.Now()
			stop()
			if err := <-result; !errors.Is(err, tt.want) {
				t.Errorf("PUBACK after %v: Send returned %v", tt.ack, err)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("PUBACK after %v: Run ended after %v", tt.ack, took)
			}
			synctest.Wait()
			stacks := make([]byte, 1<<20)
			if stacks = stacks[:runtime.Stack(stacks, true)]; bytes.Contains(stacks, []byte("paho.mqtt.golang.")) {
				t.Errorf("PUBACK after %v: Run has ended, but not:\n%s", tt.ack, stacks)
			}
		})
	}
}
