package zvttest

import (
	"bytes"
	"slices"
	"time"

	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
)

// Bytes of a serial line ([S16], zvt.md 1.2).
const (
	stx = 0x02
	etx = 0x03
	ack = 0x06
	dle = 0x10
)

// noise is the trouble on a serial line. Package frame writes each frame, each
// ACK and each NAK with one Write, so that they can be told apart.
type noise struct {
	spoilIn  int           // so many copies of an acting command arrive damaged
	spoilOut bool          // the first copy of each 04 0F leaves with a wrong CRC
	loseACK  bool          // the ACK of an acting command is lost
	loseFor  time.Duration // after the first acting command all that is said is lost for so long
	half     bool          // of the first 04 0F one half leaves, and then nothing for half a minute
	trickle  time.Duration // between two bytes
	merge    bool          // ACK and 80 00 00 leave together
	garbage  []byte        // before each frame
	twice    bool          // each frame leaves twice
	slowACK  time.Duration // latency of each ACK
}

// baud is the speed of a line with that noise, in bit/s; 0: it does not matter.
func (n noise) baud() int {
	const bitsPerByte = 11
	if n.trickle == 0 {
		return 0
	}
	return int(bitsPerByte * time.Second / n.trickle)
}

// acting are the commands that make a terminal act.
var acting = map[apdu.Control]bool{
	apdu.ControlEndOfDay: true, apdu.ControlSoftwareUpdate: true,
	apdu.ControlServiceMode: true, apdu.ControlReadFile: true,
}

// line is the cable of a terminal, between its frames and the world.
type line struct {
	frame.Stream
	t     *Terminal
	noise noise

	in      watcher
	copies  int          // of the acting command that is coming in
	last    apdu.Control // of the frame that came in last
	lost    time.Time    // until when nothing gets through
	lostOne bool         // loseFor has happened
	spoilt  []byte       // the 04 0F that has left damaged
	halved  bool         // half has happened
	held    []byte       // an ACK that waits for a frame
}

// Read reads what arrives, unless nobody is there.
func (l *line) Read(p []byte) (int, error) {
	for {
		n, err := l.Stream.Read(p)
		if err != nil || !l.t.away() {
			l.listen(p[:n])
			return n, err
		}
	}
}

// listen looks at what comes in, and damages it.
func (l *line) listen(p []byte) {
	for i, b := range p {
		c, begins := l.in.feed(b)
		if !begins {
			continue
		}
		if c != l.last {
			l.copies = 0
		}
		l.last = c
		l.copies++
		if !acting[c] {
			continue
		}
		if l.copies <= l.noise.spoilIn {
			p[i] ^= 0x01 // of the length byte: the CRC tells
		}
		if l.noise.loseFor > 0 && !l.lostOne {
			l.lostOne, l.lost = true, time.Now().Add(l.noise.loseFor)
		}
	}
}

// Write writes a frame, an ACK or a NAK. A lost one counts as written.
func (l *line) Write(p []byte) (int, error) {
	if l.t.away() || time.Now().Before(l.lost) {
		return len(p), nil
	}
	if len(p) == 1 {
		return l.writeSignal(p)
	}
	out := slices.Concat(l.noise.garbage, l.held, p)
	l.held = nil
	switch {
	case l.noise.spoilOut && controlOf(p) == apdu.ControlStatusInformation && !bytes.Equal(p, l.spoilt):
		l.spoilt = bytes.Clone(p)
		out[len(out)-1] ^= 0xFF
	case l.noise.half && controlOf(p) == apdu.ControlStatusInformation && !l.halved:
		l.halved = true
		out = out[:len(out)/2]
		defer func() { l.lost = time.Now().Add(30 * time.Second) }()
	case l.noise.twice:
		out = append(out, p...)
	}
	if err := l.put(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// writeSignal writes an ACK or a NAK.
func (l *line) writeSignal(p []byte) (int, error) {
	forCommand := l.last>>8 != 0x80 && l.last>>8 != 0x84
	switch {
	case p[0] == ack && l.noise.loseACK && acting[l.last] && l.copies == 1:
		return len(p), nil
	case p[0] == ack && l.noise.merge && forCommand:
		l.held = bytes.Clone(p)
		return len(p), nil
	}
	time.Sleep(l.latency())
	return len(p), l.put(p)
}

// latency is how long a terminal takes for an ACK.
func (l *line) latency() time.Duration {
	if l.noise.slowACK > 0 {
		return l.noise.slowACK
	}
	return l.t.between(70*time.Millisecond, 180*time.Millisecond)
}

// put writes bytes, one by one if they trickle.
func (l *line) put(b []byte) error {
	if l.noise.trickle == 0 {
		_, err := l.Stream.Write(b)
		return err
	}
	for i := range b {
		if _, err := l.Stream.Write(b[i : i+1]); err != nil {
			return err
		}
		time.Sleep(l.noise.trickle)
	}
	return nil
}

// controlOf is the control field of a frame.
func controlOf(wire []byte) apdu.Control {
	var w watcher
	for _, b := range wire {
		if c, begins := w.feed(b); begins {
			return c
		}
	}
	return 0
}

// watcher finds the control fields in what passes by, without looking at CRCs.
type watcher struct {
	inside bool   // between DLE STX and DLE ETX
	dle    bool   // the last byte was a DLE that is not a second one
	apdu   []byte // the first bytes of the APDU
}

// feed takes the next byte. With the first one behind a control field it
// returns that and true.
func (w *watcher) feed(b byte) (c apdu.Control, begins bool) {
	switch {
	case w.dle && b == stx:
		*w = watcher{inside: true}
		return 0, false
	case w.dle && b == etx:
		*w = watcher{}
		return 0, false
	case b == dle && !w.dle:
		w.dle = true
		return 0, false
	}
	w.dle = false
	if !w.inside || len(w.apdu) > 2 {
		return 0, false
	}
	w.apdu = append(w.apdu, b)
	if len(w.apdu) < 3 {
		return 0, false
	}
	return apdu.Control(w.apdu[0])<<8 | apdu.Control(w.apdu[1]), true
}
