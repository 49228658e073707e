package zvttest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
)

// The timers of the terminal ([S16], zvt.md 1.4).
const (
	t3 = 5 * time.Second // from a message to its answer
	t4 = 3 * time.Minute // from 04 FF and 04 0F to the next
)

// lateness is how long after T3 an answer is still taken for the one that was
// due then: recorded were up to 0.8 s (zvt.md 5.1). Later, nobody can tell which
// of our messages it answers.
const lateness = time.Second

// lastTries is how often a terminal sends its last message when nobody answers
// it (zvt.md 5.1).
const lastTries = 3

var (
	errHungUp = errors.New("the terminal has hung up")
	errAway   = errors.New("the terminal is away")
)

// session is a connection. While the terminal carries out a command it is
// master: it speaks, the ECR answers.
type session struct {
	t      *Terminal
	stream frame.Stream
	serial bool // or TCP

	plays *script // what conn and line are made for
	conn  frame.Conn
	line  *line // nil: TCP

	gone     error          // why there is no line any more; nil while there is
	command  apdu.Message   // being carried out; nil: the ECR is master
	over     bool           // the rest of the command's dialogue is not played
	restarts int            // of the terminal, before the command came
	began    time.Time      // when it came
	master   bool           // it was accepted
	since    time.Time      // start of T4
	owed     int            // messages that were not answered in time
	lapsed   time.Time      // when the last of them was due
	excused  bool           // the ECR cannot know that we are master
	copies   []apdu.Message // commands that a naive terminal has yet to carry out
}

// serve answers commands until the line ends.
func (s *session) serve(ctx context.Context) error {
	defer s.stream.Close()
	for ctx.Err() == nil && s.gone == nil {
		seen := s.tune()
		if err := s.t.failure(); err != nil {
			return err
		}
		if s.line == nil && s.t.away() && !s.t.script().silent {
			s.gone = errAway
			break
		}
		if m := s.await(ctx, seen); m != nil {
			s.carryOut(ctx, m)
		}
		for len(s.copies) > 0 {
			m := s.copies[0]
			s.copies = s.copies[1:]
			s.carryOut(ctx, m)
		}
	}
	if ctx.Err() != nil || s.gone == errAway || isEnd(s.gone) {
		return nil
	}
	return s.gone
}

// tune makes the connection that the script wants, with its noise; also anew,
// when somebody has changed the script. It returns the number of changes that
// it has seen.
func (s *session) tune() int {
	s.t.mu.Lock()
	playing, changes := s.t.playing, s.t.changes
	s.t.mu.Unlock()
	switch {
	case s.plays == playing:
	case s.serial:
		s.line = &line{Stream: s.stream, t: s.t, noise: playing.noise}
		s.conn = frame.Serial(s.line, frame.SerialOptions{Naive: playing.naive, Baud: playing.noise.baud()})
	case s.conn == nil:
		s.conn = frame.TCP(s.stream, frame.TCPOptions{})
	}
	s.plays = playing
	return changes
}

// await returns the next command, or nil if the line or ctx ended, or if people
// have done more to the terminal than was seen.
func (s *session) await(ctx context.Context, seen int) apdu.Message {
	waiting, look := context.WithCancel(ctx)
	defer look()
	s.t.mu.Lock()
	news := s.t.changes != seen
	s.t.look = look
	s.t.mu.Unlock()
	if news {
		return nil
	}
	return s.read(waiting, 0)
}

func (t *Terminal) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.broken
}

// read returns the next message, or nil: after d without one (0: never), or if
// the line or ctx ended.
func (s *session) read(ctx context.Context, d time.Duration) apdu.Message {
	waiting, cancel := ctx, context.CancelFunc(func() {})
	if d > 0 {
		waiting, cancel = context.WithTimeout(ctx, d)
	}
	defer cancel()
	for s.gone == nil {
		b, err := s.conn.ReadAPDU(waiting)
		switch {
		case err == nil:
			m, err := apdu.Parse(b)
			if err != nil {
				s.violated("%v", err)
			}
			return m
		case waiting.Err() != nil:
			return nil
		case s.line != nil && errors.Is(err, frame.ErrMalformed):
			continue // it has been answered by NAK
		default:
			s.gone = err
		}
	}
	return nil
}

func (s *session) violated(format string, args ...any) {
	s.t.did(Record{What: Violation, Text: fmt.Sprintf(format, args...)})
}

// outOfStep records a message, or the want of one, that does not fit to where
// the dialogue is; unless our own line has lost a part of that.
func (s *session) outOfStep(format string, args ...any) {
	if !s.deceived() {
		s.violated(format, args...)
	}
}

// deceived reports whether the line has lost some of what we said since the
// command came.
func (s *session) deceived() bool { return s.line != nil && s.line.lost.After(s.began) }

// carryOut plays what the scenario has the terminal do on a command.
func (s *session) carryOut(ctx context.Context, m apdu.Message) {
	if s.t.script().silent {
		return
	}
	switch m.(type) {
	case apdu.Ack, apdu.Nack:
		s.stray(ctx, m)
		return
	}
	s.t.o.Tell("<- " + m.String())
	s.check(m)
	s.owed = 0 // who commands answers nothing older any more
	s.command, s.over, s.master = m, false, false
	s.began, s.since = time.Now(), time.Now()
	s.restarts = s.t.restarted()
	s.play(ctx, s.t.dialogue(m))
	s.command = nil
}

// play plays steps until one of them says that the dialogue is over.
func (s *session) play(ctx context.Context, d dialogue) {
	for _, step := range d {
		if s.over || ctx.Err() != nil || s.t.restarted() != s.restarts {
			return
		}
		step(ctx, s)
	}
}

// check records what no ECR of ours may send (zvt.md 4.0).
func (s *session) check(m apdu.Message) {
	if forbidden[m.Control()] {
		s.violated("%s %v must never be sent", m.Control().Hex(), m.Control())
	}
	if f, ok := m.(interface{ TLV() apdu.TLV }); ok {
		if _, found := f.TLV().Find(apdu.TagReceiptNumber); found {
			s.violated("1F1F in %s %v: it may reverse the last payment", m.Control().Hex(), m.Control())
		}
	}
}

// forbidden are payments and whatever else changes a terminal without having
// been asked for.
var forbidden = map[apdu.Control]bool{
	0x0601: true, 0x0618: true, 0x061B: true, 0x0622: true, 0x0623: true, 0x0624: true,
	0x0625: true, 0x0630: true, 0x0631: true, 0x0695: true,
	apdu.ControlLogOff: true, apdu.ControlInitialisation: true, apdu.ControlDeleteFile: true,
	apdu.ControlChangeConfiguration: true, apdu.ControlWriteFile: true,
}

// write sends a message and reports whether it has arrived. A message that is
// not acknowledged is lost, the line is not.
func (s *session) write(ctx context.Context, m apdu.Message) bool {
	if s.gone != nil || s.t.away() {
		return false
	}
	s.t.o.Tell("-> " + m.String())
	err := s.conn.WriteAPDU(ctx, m.Marshal())
	if errors.Is(err, frame.ErrLinkLost) {
		s.gone = err
	}
	return err == nil
}

// tell sends a message and waits as long as T3 for its answer. Like a real
// terminal it goes on without one (zvt.md 5.1); on TCP it hangs up.
func (s *session) tell(ctx context.Context, m apdu.Message) {
	tries := 1
	if isLast(m) && s.line != nil {
		tries = lastTries
	}
	owed := s.owed
	for range tries {
		s.owed = min(s.owed, owed) // an answer to a copy answers its original
		arrived := s.write(ctx, m)
		if m.Control() == apdu.ControlIntermediateStatus || m.Control() == apdu.ControlStatusInformation {
			s.since = time.Now()
		}
		if !arrived || s.answered(ctx, m) {
			return
		}
		s.outOfStep("no answer to %s %v within %v", m.Control().Hex(), m.Control(), t3)
		if !s.deceived() {
			s.owed++
			s.lapsed = time.Now()
		}
	}
	if s.line == nil {
		s.hangUp()
	}
}

func isLast(m apdu.Message) bool {
	return m.Control() == apdu.ControlCompletion || m.Control() == apdu.ControlAbort
}

// answered waits for the answer to m.
func (s *session) answered(ctx context.Context, m apdu.Message) bool {
	for until := time.Now().Add(t3); time.Now().Before(until); {
		got := s.read(ctx, time.Until(until))
		switch got := got.(type) {
		case nil:
			return s.gone != nil || ctx.Err() != nil
		case apdu.Ack:
			if s.owed == 0 || time.Since(s.lapsed) >= lateness {
				return true
			}
			s.stray(ctx, got)
		case apdu.Nack:
			s.refused(m, got)
			return true
		default:
			s.begunAnew(ctx, got)
			if s.over {
				return true
			}
		}
	}
	return false
}

// begunAnew deals with a command in place of an answer. An ECR whose power was
// cut cannot know that one is owed; it finds out by asking, not by acting.
func (s *session) begunAnew(ctx context.Context, m apdu.Message) {
	switch m.(type) {
	case apdu.Registration, apdu.StatusEnquiry:
		s.excused = true
		defer func() { s.excused = false }()
	}
	s.interrupted(ctx, m)
}

// refused records a negative answer. Only whole commands that an ECR does not
// implement may get one, and that is 84 83.
func (s *session) refused(m apdu.Message, answer apdu.Nack) {
	if _, isRaw := m.(apdu.Raw); !isRaw || !answer.Unsupported() {
		s.violated("%s %v was answered %s", m.Control().Hex(), m.Control(), answer.Control().Hex())
	}
}

// stray deals with an answer that no message of ours waits for. One that comes
// too late is answered by 84 83 00, as if it were an unknown command.
func (s *session) stray(ctx context.Context, m apdu.Message) {
	if s.owed == 0 {
		return
	}
	s.owed--
	s.outOfStep("%s came later than %v", m.Control().Hex(), t3)
	s.write(ctx, apdu.Nack{Code: apdu.CodeNotPossible})
}

// interrupted deals with a command that comes while the terminal is master.
func (s *session) interrupted(ctx context.Context, m apdu.Message) {
	if s.t.script().naive {
		s.copies = append(s.copies, m)
		return
	}
	s.t.o.Tell("<- " + m.String())
	s.check(m)
	if s.master && time.Since(s.since) < t4 && !s.excused {
		s.outOfStep("%s %v during %v: the terminal is master", m.Control().Hex(), m.Control(), s.command.Control())
	}
	if m.Control() == apdu.ControlAbortCommand {
		s.play(ctx, s.t.script().onAbort)
		return
	}
	s.write(ctx, apdu.Nack{Code: apdu.CodePleaseWait})
}

// listen is what the terminal does while it works: for d it hears what comes.
// Its work goes on without a line.
func (s *session) listen(ctx context.Context, d time.Duration) {
	for until := time.Now().Add(d); time.Now().Before(until) && ctx.Err() == nil && !s.over; {
		if s.gone != nil {
			pause(ctx, time.Until(until))
			return
		}
		switch m := s.read(ctx, time.Until(until)).(type) {
		case nil:
		case apdu.Ack, apdu.Nack:
			s.stray(ctx, m)
		default:
			s.interrupted(ctx, m)
		}
	}
}

// pause returns after d, or when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// hangUp closes the line.
func (s *session) hangUp() {
	if s.gone == nil {
		s.gone = errHungUp
		s.t.o.Tell("hangs up")
	}
	s.conn.Close()
}

// between is a time from min to max; none for a fast terminal.
func (t *Terminal) between(min, max time.Duration) time.Duration {
	d := min + time.Duration(t.rand.Int64N(int64(max-min)+1))
	return t.work(d)
}

// work is how long a piece of work takes that takes d.
func (t *Terminal) work(d time.Duration) time.Duration {
	if t.o.Fast {
		return d / 100
	}
	return d
}
