package frame

import (
	"bytes"

	"terminalops/device/trace"
)

// Kind is what was seen on the wire.
type Kind int

const (
	Whole  Kind = iota // a whole APDU; on a serial line its frame
	Broken             // part of one, or a bad frame; Note says what is wrong
	ACK                // the single byte
	NAK                // the single byte
	Noise              // bytes that belong to no frame; they are thrown away
	Remark             // no bytes: Note says what happened, or what is made of the last sight
)

// Sight is what a Conn has seen on the wire or done there. It is not masked.
type Sight struct {
	Kind Kind
	Sent bool   // by us; else received
	Wire []byte // the bytes as they are on the wire
	APDU []byte // those of the APDU, as far as it came; of Whole and Broken
	Note string // what is wrong, or worth knowing; quotes no data
}

// Watch is told of all that happens on the wire, in its order, by the goroutine
// that uses the Conn: it must not wait. The bytes are its only until it returns.
type Watch func(Sight)

func (w Watch) tell(s Sight) {
	if w != nil {
		w(s)
	}
}

func (w Watch) note(text string) { w.tell(Sight{Kind: Remark, Note: text}) }

// Hex writes the bytes on the wire with the marks of those of the APDU; where there
// are none, of those on the wire. No marks are none.
//
// The CRC of a frame is hidden with what is hidden in the APDU: with the other
// // bytes it would tell of six hidden digits all but the last guess. Nor does a
// hidden 10 show that it is doubled. A doubled one that is shown has a border in
// it: the digits beside it are not more than they were.
func (s Sight) Hex(marks []trace.Mark) string {
	if marks == nil || len(s.APDU) == 0 || bytes.Equal(s.Wire, s.APDU[:min(len(s.Wire), len(s.APDU))]) {
		return trace.Hex(s.Wire, marks)
	}
	const start, end = 2, 2 // DLE STX, DLE ETX
	shown := append([]byte(nil), s.Wire[:start]...)
	said := make([]trace.Mark, start, len(s.Wire))
	secret := false
	at := start
	for i, b := range s.APDU {
		if at >= len(s.Wire) {
			break // not all of it was sent
		}
		mark := marks[i]
		hidden := mark&trace.Hidden != 0
		secret = secret || hidden
		if i == 0 {
			mark |= trace.Border
		}
		shown, said = append(shown, b), append(said, mark)
		if at++; b != dle || at >= len(s.Wire) {
			continue
		}
		if at++; !hidden {
			shown, said = append(shown, dle), append(said, trace.Border)
		}
	}
	for i, b := range s.Wire[at:] {
		var mark trace.Mark
		if i == 0 {
			mark = trace.Border
		}
		if i >= end && secret {
			mark |= trace.Hidden
		}
		shown, said = append(shown, b), append(said, mark)
	}
	return trace.Hex(shown, said)
}

// recorder makes sights of the bytes that a decoder is fed with.
type recorder struct {
	watch Watch
	raw   []byte // since the last sight
	begun int    // where in raw the frame begins
}

// longestNoise is how much noise, in bytes, makes one sight.
const longestNoise = 256

// fed is called after each byte.
func (r *recorder) fed(b byte, sig signal, d *decoder) {
	r.raw = append(r.raw, b)
	n := len(r.raw)
	if d.at == inside && len(d.apdu) == 0 && b == stx && n >= 2 && r.raw[n-2] == dle {
		r.begun = n - 2
	}
	switch {
	case sig == gotACK:
		r.noise(r.raw[:n-1])
		r.tell(Sight{Kind: ACK, Wire: r.raw[n-1:]})
	case sig == gotFrame:
		r.frame(Whole, d, "")
	case sig == malformed:
		r.frame(Broken, d, d.fault)
	case d.at == garbage && n >= longestNoise:
		r.noise(r.raw)
		r.raw = r.raw[:0]
	}
}

// silent is called after T1 without a byte.
func (r *recorder) silent(sig signal, d *decoder) {
	switch n := len(r.raw); {
	case n == 0:
	case sig == gotNAK:
		r.noise(r.raw[:n-1])
		r.tell(Sight{Kind: NAK, Wire: r.raw[n-1:]})
	case sig == torn:
		r.frame(Broken, d, d.fault)
	default:
		r.noise(r.raw)
		r.raw = r.raw[:0]
	}
}

func (r *recorder) frame(kind Kind, d *decoder, note string) {
	r.noise(r.raw[:r.begun])
	r.tell(Sight{Kind: kind, Wire: r.raw[r.begun:], APDU: d.apdu, Note: note})
}

// tell tells of the last bytes of raw, and forgets them all.
func (r *recorder) tell(s Sight) {
	r.watch(s)
	r.raw, r.begun = r.raw[:0], 0
}

func (r *recorder) noise(b []byte) {
	if len(b) > 0 {
		r.watch(Sight{Kind: Noise, Wire: b})
	}
}

// Sights finds the frames in what was recorded of a serial line, in one direction
// or both, as a Conn that receives it all would.
func Sights(stream []byte) []Sight {
	var all []Sight
	var d decoder
	r := recorder{watch: func(s Sight) {
		s.Wire, s.APDU = bytes.Clone(s.Wire), bytes.Clone(s.APDU)
		all = append(all, s)
	}}
	for _, b := range stream {
		r.fed(b, d.feed(b), &d)
	}
	r.silent(d.silence(), &d)
	return all
}
