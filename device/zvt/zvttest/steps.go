package zvttest

import (
	"context"
	"time"

	"terminalops/device/zvt/apdu"
)

// dialogue is what a terminal does on a command, step by step, as the
// specification draws it. A step that finds no line does its inner part only:
// who pulls the cable does not stop a closing.
type dialogue []step

type step func(context.Context, *session)

// accept is 80 00 00: from here on the terminal is master.
func accept(ctx context.Context, s *session) {
	pause(ctx, s.t.between(60*time.Millisecond, 200*time.Millisecond))
	s.write(ctx, apdu.Ack{})
	s.master, s.since = true, time.Now()
	s.listen(ctx, s.t.between(50*time.Millisecond, 100*time.Millisecond))
}

// refuse is 84 xx, and the end.
func refuse(c apdu.Code) step { return refuseWith(apdu.Nack{Code: c}) }

func refuseWith(n apdu.Nack) step {
	return func(ctx context.Context, s *session) {
		s.write(ctx, n)
		s.over = true
	}
}

// tell sends a message that the ECR has to answer.
func tell(m apdu.Message) step {
	return func(ctx context.Context, s *session) { s.tell(ctx, m) }
}

// complete is 06 0F with BMPs, mostly none.
func complete(fields ...apdu.BMP) step { return tell(apdu.NewCompletion(fields...)) }

// abort is 06 1E. It tells what else the makers tell.
func abort(c apdu.Code, fields ...apdu.BMP) step { return tell(apdu.Abort{Code: c, Fields: fields}) }

// display is 04 FF with a text, for who has asked for it. It sets T4.
func display(code apdu.IntermediateCode, minutes int, texts ...string) step {
	return func(ctx context.Context, s *session) {
		if s.t.at().registered.config&apdu.ConfigIntermediateStatus == 0 {
			return
		}
		m := apdu.IntermediateStatus{Status: code, Timeout: apdu.Minutes(minutes)}
		if len(texts) > 0 {
			// A Lane/5000 has displays in Latin-1, whatever its receipts are in.
			m.Fields = apdu.Fields{apdu.DisplayTexts(apdu.Latin1, texts...)}
		}
		s.tell(ctx, m)
	}
}

// work is a time in which the terminal says nothing.
func work(min, max time.Duration) step {
	return func(ctx context.Context, s *session) { s.listen(ctx, s.t.between(min, max)) }
}

// silence is a trouble: true time in which the terminal says nothing.
func silence(d time.Duration) step {
	return func(ctx context.Context, s *session) { s.listen(ctx, d) }
}

// closeBatch closes the batch, in truth, whether anybody hears of it or not.
func closeBatch(_ context.Context, s *session) {
	totals := s.t.at().batch
	s.t.did(Record{What: EndOfDay, Totals: &totals})
}

// hangUp closes a TCP connection. A serial line cannot be closed from here:
// its cable is pulled for half a minute.
func hangUp(_ context.Context, s *session) {
	if s.line == nil {
		s.hangUp()
		return
	}
	s.t.o.Tell("the cable is pulled")
	s.t.change(func(st *state) { st.away(time.Now().Add(30 * time.Second)) })
}

// unplug closes the line, also a serial one: a USB device that is gone.
func unplug(_ context.Context, s *session) { s.hangUp() }

// reboot restarts the terminal.
func reboot(d time.Duration) step {
	return func(_ context.Context, s *session) {
		s.t.did(Record{What: Reboot, Until: time.Now().Add(s.t.work(d))})
		s.leave()
	}
}

// leave is the line's part of being away.
func (s *session) leave() {
	if s.line == nil {
		s.hangUp()
	}
}

// unfinished ends the dialogue without a last message.
func unfinished(_ context.Context, s *session) { s.over = true }
