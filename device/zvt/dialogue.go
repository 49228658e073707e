package zvt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
)

// This file holds the one loop in which every command runs ([S16] 4, zvt.md 4):
//
//	ECR                                        PT
//	command  ------------------------------->       T3 runs (5 s)
//	         <-------------------------------  80 00, or 84 xx and the end
//	         <-------------------------------  04 FF, 04 0F, 06 D1, 06 D3 ...  T4 runs (180 s)
//	hear it (evidence goes to disk), then
//	80 00 00 ------------------------------->       T4 begins again
//	         <-------------------------------  06 0F or 06 1E
//	80 00 00 ------------------------------->       the ECR has the word again
//
// The rules, where the specification leaves a choice (ours, all of them):
//   - From its 80 00 on the terminal has the word. It is only answered: with
//     80 00 00, whatever is in its message, and 84 83 00 for commands that are
//     not implemented here (dial-up, input).
//   - Heard before answered. An answer that would come T3 after the message is
//     not given: the terminal would take it for the answer to something else.
//   - T4 begins again with every message; 04 FF may carry a new value, which
//     holds until the command ends.
//   - 80 00 and 84 xx that nobody waits for are strays (zvt.md 5.1): ignored.
//   - 06 0F without a preceding 80 00 ends nothing. 06 1E does (zvt.md 4.18).
//   - After a 04 0F with an error some terminals say no more (zvt.md 5.4).

// errNoAnswer: T3 passed without an answer to the command.
var errNoAnswer = errors.New("no answer")

// errSilent: T4 passed, and the terminal still has the word.
var errSilent = errors.New("terminal silent")

// errStillTalking: instead of answering the terminal went on with the dialogue
// before.
var errStillTalking = errors.New("terminal still talking")

// errAnswered: while we listened to the dialogue before, the terminal answered a
// question that we asked since. It has given the word back; what follows is no
// end of that dialogue.
var errAnswered = errors.New("an earlier question was answered")

// errSilence: nothing was received in time.
var errSilence = errors.New("silence")

// guard is how long a terminal may be silent after a 04 0F with an error before
// it is taken to have ended with it.
const guard = 30 * time.Second

// dialogue is an open link with a terminal.
type dialogue struct {
	conn         frame.Conn
	serial       bool
	t3, t4       time.Duration
	told         time.Duration // T4 as the terminal has set it since our last command; 0: not
	log          *slog.Logger
	acted        bool // the acting command went out on it
	acknowledged bool // and the line has acknowledged it: 84 xx answers it
	probes       int  // how often Resolve has asked on it what happened
	ends         int  // of dialogues that were not ours, which we have answered
}

// exchange is a command and who listens while it runs.
type exchange struct {
	command apdu.Message // nil: only listen
	// hear is called with 80 00, 84 xx and every message of the terminal,
	// before it is answered. True ends the listening: it is enough.
	hear func(apdu.Message) (enough bool)
	// late, if set, gets what a terminal that may still be busy with something
	// earlier says before it answers; the exchange then ends with
	// errStillTalking.
	late func(apdu.Message)
	// limit, if set, is how long the terminal may be silent where T4 allows more.
	limit time.Duration
}

func (x exchange) String() string {
	if x.command == nil {
		return "listen"
	}
	return x.command.Control().String()
}

func (x exchange) bounded(wait time.Duration) time.Duration {
	if x.limit > 0 {
		return min(wait, x.limit)
	}
	return wait
}

// stance is what is known of the terminal when following begins.
type stance struct {
	taken        bool          // the terminal has the word: its 80 00 was seen
	acknowledged bool          // the line has acknowledged our command, so 84 xx answers it
	patience     time.Duration // until the first message
}

// ask has a command carried out that may be repeated. It is, if the terminal
// said the end of an earlier dialogue in place of an answer: it was still in that
// one, and has not taken the command.
func (d *dialogue) ask(ctx context.Context, x exchange) (apdu.Message, error) {
	ends := d.ends
	if err := d.conn.WriteAPDU(ctx, x.command.Marshal()); err != nil {
		return nil, fmt.Errorf("%v: %w", x, err)
	}
	m, err := d.follow(ctx, x, stance{acknowledged: true, patience: d.t3})
	if errors.Is(err, errNoAnswer) && d.ends > ends && x.late == nil {
		if err := d.drain(ctx); err != nil {
			return nil, fmt.Errorf("%v: %w", x, err)
		}
		if err := d.conn.WriteAPDU(ctx, x.command.Marshal()); err != nil {
			return nil, fmt.Errorf("%v: %w", x, err)
		}
		return d.follow(ctx, x, stance{acknowledged: true, patience: d.t3})
	}
	return m, err
}

// A terminal whose ECR has lost its power in mid-dialogue waits for an answer to
// 06 0F or 06 1E. It repeats them (zvt.md 5.1) and takes no command meanwhile.
// So an end that nobody has asked for is answered, whoever was to do it. Nothing
// else is: a 04 0F that nobody answers makes the terminal reverse a payment
// ([S15] 3.1.1), and if the till is gone, so it should. (Our decision.)
//
// A terminal that has given up waiting takes such an answer for an unknown command
// and says 84 83 (zvt.md 5.1). That is no answer to what we ask next.

// answerEnd answers m if it is the end of a dialogue.
func (d *dialogue) answerEnd(ctx context.Context, m apdu.Message) (isEnd bool, err error) {
	switch m.(type) {
	case apdu.Completion, apdu.Abort:
		d.log.Info("the end of a dialogue that its ECR has left", "message", m)
		d.ends++
		return true, d.answer(ctx, m, time.Now())
	}
	return false, nil
}

// awaitEnd waits for the end of a dialogue that its ECR has left, as long as a
// terminal takes to repeat it, and answers it.
func (d *dialogue) awaitEnd(ctx context.Context) (came bool, err error) {
	for until := time.Now().Add(d.t3 + d.t3/5); ; {
		m, err := d.read(ctx, until)
		switch {
		case errors.Is(err, errSilence):
			return false, nil
		case err != nil:
			return false, err
		}
		switch m.(type) {
		case apdu.Ack, apdu.Nack:
			continue // strays
		}
		return d.answerEnd(ctx, m)
	}
}

// follow listens to the terminal and answers it until the exchange ends. It
// returns the message that ended it: 84 xx, 06 0F, 06 1E, or the one that was
// enough. An end that was heard counts, whether or not it could be answered.
func (d *dialogue) follow(ctx context.Context, x exchange, s stance) (apdu.Message, error) {
	taken := s.taken
	if x.command != nil {
		d.told = 0
	}
	orphans := -d.ends // answers of ours that the terminal may not have waited for
	until := time.Now().Add(s.patience)
	for {
		m, err := d.read(ctx, until)
		switch {
		case errors.Is(err, errSilence) && taken:
			return nil, fmt.Errorf("%v: %w", x, errSilent)
		case errors.Is(err, errSilence):
			return nil, fmt.Errorf("%v: %w within %v", x, errNoAnswer, d.t3)
		case err != nil:
			return nil, fmt.Errorf("%v: %w", x, err)
		}
		switch m := m.(type) {
		case apdu.Ack:
			if d.probes > 0 && x.command == nil && x.late == nil {
				return nil, fmt.Errorf("%v: %w", x, errAnswered)
			}
			if !taken {
				taken = true
				x.hear(m)
				until = time.Now().Add(x.bounded(d.longest()))
			}
			continue
		case apdu.Nack:
			if orphan := orphans+d.ends > 0; taken || !s.acknowledged || orphan {
				if orphan {
					orphans--
				}
				d.log.Debug("stray answer ignored", "during", x, "message", m)
				continue
			}
			x.hear(m)
			return m, nil
		}
		d.setT4(m)
		end, err := d.take(ctx, x, m, taken)
		if end || err != nil {
			return m, err
		}
		until = time.Now().Add(x.bounded(d.wait(m, taken)))
	}
}

// take hears a message of the terminal and answers it. It reports whether the
// exchange ends with it.
func (d *dialogue) take(ctx context.Context, x exchange, m apdu.Message, taken bool) (end bool, err error) {
	came := time.Now()
	_, completed := m.(apdu.Completion)
	_, aborted := m.(apdu.Abort)
	switch {
	case completed && !taken:
		d.log.Warn("completion without an acknowledgement before it", "during", x)
		d.ends++
	case x.late != nil && !taken && !aborted:
		x.late(m)
		err = errStillTalking
	default:
		end = x.hear(m) || completed || aborted
	}
	if answered := d.answer(ctx, m, came); answered != nil && !end {
		return false, fmt.Errorf("%v: %w", x, answered)
	}
	return end, err
}

// answer answers a message that came at a time. A serial terminal that does not
// acknowledge the answer may go on all the same; T4 says when it did not.
func (d *dialogue) answer(ctx context.Context, m apdu.Message, came time.Time) error {
	if waited := time.Since(came); waited >= d.t3 {
		d.log.Warn("not answered: too late", "message", m, "after", waited)
		return nil
	}
	err := d.conn.WriteAPDU(ctx, reply(m).Marshal())
	if errors.Is(err, frame.ErrNoAcknowledgement) || errors.Is(err, frame.ErrRejected) {
		d.log.Warn("answer not acknowledged", "message", m, "error", err)
		return nil
	}
	return err
}

// reply is the answer to a message of the terminal. A negative answer to 04 0F
// makes a terminal reverse a payment ([S15] 3.1.1): there is none.
func reply(m apdu.Message) apdu.Message {
	switch m.Control() {
	case apdu.ControlStatusInformation, apdu.ControlIntermediateStatus, apdu.ControlSetClock,
		apdu.ControlPrintLine, apdu.ControlPrintTextBlock, apdu.ControlCompletion, apdu.ControlAbort:
		return apdu.Ack{}
	default:
		return apdu.Nack{Code: apdu.CodeNotPossible}
	}
}

// setT4 takes the value of T4 that m may have ([S15] 3.7). It holds until our
// next command, also where the operation ends before the dialogue: in a menu.
func (d *dialogue) setT4(m apdu.Message) {
	if s, ok := m.(apdu.IntermediateStatus); ok {
		if t4, ok := s.T4(); ok {
			d.told = t4
		}
	}
}

// longest is T4: how long the terminal may be silent while it has the word.
func (d *dialogue) longest() time.Duration {
	if d.told > 0 {
		return d.told
	}
	return d.t4
}

// wait is how long the terminal may be silent after m.
func (d *dialogue) wait(m apdu.Message, taken bool) time.Duration {
	if !taken {
		return d.t3
	}
	if s, ok := m.(apdu.StatusInformation); ok {
		if code, ok := s.Result(); ok && code != apdu.CodeOK {
			return min(guard, d.longest())
		}
	}
	return d.longest()
}

// read returns the next message, or errSilence. What was not understood to its
// end counts as far as it was.
func (d *dialogue) read(ctx context.Context, until time.Time) (apdu.Message, error) {
	waiting, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	for {
		b, err := d.conn.ReadAPDU(waiting)
		switch {
		case err == nil:
			m, err := apdu.Parse(b)
			if err != nil {
				d.log.Warn("message not read to its end", "error", err)
			}
			return m, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case waiting.Err() != nil:
			return nil, errSilence
		case d.serial && errors.Is(err, frame.ErrMalformed):
			d.log.Warn("bad frames", "error", err) // T3 or T4 says when it is over
		default:
			return nil, err
		}
	}
}

// afterthought is how long a terminal may take to begin with what it says after
// its end of day.
const afterthought = time.Second

// linger hears what a terminal prints after its end of day, without having the
// word (Ingenico, zvt.md 5.4): the receipt may be among it. Nothing of it
// changes how the end of day ended.
func (d *dialogue) linger(ctx context.Context, l *ledger) {
	hear := func(m apdu.Message) bool {
		switch m.(type) {
		case apdu.PrintLine, apdu.PrintTextBlock:
			l.hear(m)
		}
		return false
	}
	_, err := d.follow(ctx, exchange{hear: hear, limit: afterthought}, stance{taken: true, patience: afterthought})
	d.log.Debug("nothing more", "why", err) // silence, mostly
}
