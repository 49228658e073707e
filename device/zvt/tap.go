package zvt

import (
	"fmt"
	"time"

	"terminalops/device/trace"
	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
)

// interpret says what was seen on a line, in hexadecimal digits and in words. What it
// says is masked.
func interpret(s frame.Sight) (bytes, meaning string) {
	switch s.Kind {
	case frame.Whole:
		bytes, meaning = s.Hex(apdu.Cover(s.APDU)), words(s.APDU)
		if s.Note != "" {
			meaning += "; " + s.Note
		}
	case frame.Broken:
		bytes, meaning = s.Hex(coverBroken(s)), s.Note
		if said := name(s.APDU); said != "" { // more of it is not to be believed
			meaning += ": " + said
		}
	case frame.ACK:
		bytes, meaning = s.Hex(nil), "ACK"
	case frame.NAK:
		bytes, meaning = s.Hex(nil), "NAK"
	case frame.Noise:
		bytes, meaning = s.Hex(apdu.CoverUnknown(s.Wire)), fmt.Sprintf("no frame: %d bytes thrown away", len(s.Wire))
	case frame.Remark:
		meaning = s.Note
	}
	return bytes, trace.Mask(meaning)
}

// coverBroken covers an APDU, or the bytes where there is none yet.
func coverBroken(s frame.Sight) []trace.Mark {
	if len(s.APDU) == 0 {
		return apdu.CoverUnknown(s.Wire)
	}
	return apdu.CoverDamaged(s.APDU)
}

// words are those for an APDU: "06 50 end-of-day: password ••••••".
func words(b []byte) string {
	m, err := apdu.Parse(b)
	if m == nil {
		return fmt.Sprintf("no message: %v", err)
	}
	said := m.String()
	if _, unnamed := m.(apdu.Raw); !unnamed || m.Control().String() != m.Control().Hex() {
		said = m.Control().Hex() + " " + said
	}
	if err != nil {
		said += fmt.Sprintf(" (not read to its end: %v)", err)
	}
	return said
}

// name is that of a message with its bytes; nothing of one that has none.
func name(b []byte) string {
	if len(b) < 2 {
		return ""
	}
	c := apdu.Control(b[0])<<8 | apdu.Control(b[1])
	if said := c.String(); said != c.Hex() {
		return c.Hex() + " " + said
	}
	return ""
}

// watch makes events of what happens on a new link. Without a tap nobody watches.
func (t *Terminal) watch() frame.Watch {
	if t.o.Tap == nil {
		return nil
	}
	return func(s frame.Sight) {
		direction := trace.FromTerminal
		switch {
		case s.Kind == frame.Remark:
			direction = trace.Remark
		case s.Sent:
			direction = trace.ToTerminal
		}
		bytes, meaning := interpret(s)
		t.o.Tap.Emit(trace.Event{At: time.Now(), Lane: t.o.Lane, Direction: direction, Bytes: bytes, Meaning: meaning})
	}
}

// remark makes an event of what happens to the link itself.
func (t *Terminal) remark(format string, args ...any) {
	if t.o.Tap == nil {
		return
	}
	text := trace.Mask(fmt.Sprintf(format, args...))
	t.o.Tap.Emit(trace.Event{At: time.Now(), Lane: t.o.Lane, Direction: trace.Remark, Meaning: text})
}
