package zvt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync/atomic"
	"time"

	"terminalops/device"
	"terminalops/device/trace"
	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
)

// This file finds out for a person who or what is at the other end of a link. It
// sends a registration and a status enquiry, never anything else.
//
//	the terminal answers      Sighting has its status
//	nobody, or not in ZVT     serial: the same question at other speeds
//	still not                 Speech says what the bytes look like

// Speech is what was heard on a link.
type Speech string

// What may be heard. Sources: zvt.md 2, kit.md 2 and 4, and what the systems say
// that are found on the wrong port.
const (
	SpeechZVT     Speech = "ZVT"
	SpeechSilence Speech = "silence"

	SpeechEcho       Speech = "echo"          // our own bytes
	SpeechUnheard    Speech = "ACK only"      // frames are acknowledged, commands not answered
	SpeechRejected   Speech = "NAK only"      // frames arrive damaged, so the other end says
	SpeechDamaged    Speech = "bad frames"    // ZVT frames, but not a right one
	SpeechUnframed   Speech = "no frames"     // ZVT as on TCP, on a serial line
	SpeechFramed     Speech = "frames"        // ZVT as on a serial line, on TCP
	SpeechPrefixed   Speech = "length prefix" // APDUs behind a length of two bytes
	SpeechKIT        Speech = "PayTec KIT"
	SpeechECR17      Speech = "ECR17"
	SpeechYomani     Speech = "Yomani"
	SpeechTLS        Speech = "TLS"
	SpeechHTTP       Speech = "HTTP"
	SpeechSSH        Speech = "SSH"
	SpeechText       Speech = "text"
	SpeechUnreadable Speech = "unreadable" // as at a wrong speed
)

// Sighting is what a Probe has seen.
type Sighting struct {
	Speech Speech
	Baud   int    // at which it was heard; 0 on TCP
	Bytes  string // the first of them, hexadecimal, masked; nothing for ZVT

	// With SpeechZVT:

	Registered byte       // what the registration says is needed: 01 initialisation, 02 diagnosis, 04 OPT action
	Refused    *apdu.Code // why the registration was refused
	Asked      bool       // the status enquiry was answered with Status
	Status     apdu.StatusCode
	Busy       bool     // it keeps us waiting, or the word
	Doing      string   // what it displays meanwhile, masked
	Heard      []string // what it said on its own account: an end of day of its own, for one; masked
	TID        string   // its number at the acquirer, eight digits; masked
	Device     device.Description
}

// Ready reports whether nothing is in the way of an operation.
func (s Sighting) Ready() bool {
	return s.Speech == SpeechZVT && s.Refused == nil && !s.Busy && s.Status == apdu.StatusReady
}

// Line opens the link of a Probe.
type Line struct {
	// Open opens it at a speed, which means nothing on TCP.
	Open func(ctx context.Context, baud int) (frame.Stream, error)
	// Others are speeds to try when nobody answers at that of the Options.
	Others []int
	// Keep puts on disk what a terminal says once, on its own account, before it
	// is answered. nil: nowhere.
	Keep func(text string)
}

const (
	// probeT2 is how long an ACK may take in a Probe. Slow ones take 0.5 s (zvt.md
	// 5.3), and three copies of the question are sent.
	probeT2 = 2 * time.Second
	// otherT2 is the same where hardly anybody is expected.
	otherT2 = time.Second
	// firstBytes is how many bytes are kept of what is heard.
	firstBytes = 64
)

// Probe registers with the terminal of o and asks its status, or finds out why
// that cannot be. o.Open is not used. An error is one of opening the link, as
// Line.Open gives it, or ctx ended; with it the Sighting means nothing.
//
// A status enquiry can make a terminal begin an end of day that is due ([S15]
// 2.56), whoever asks. Once it tells of that, the deadline of ctx does not count
// any more, for its totals come once; it is then heard until it is silent for T4.
func Probe(ctx context.Context, o Options, l Line) (Sighting, error) {
	setDefault(&o.T2, probeT2)
	o.Open = func(ctx context.Context) (frame.Stream, error) { return l.Open(ctx, o.Baud) }
	t, err := New(o)
	if err != nil {
		return Sighting{}, err
	}
	p := &probe{t: t, line: l}
	if !o.Serial {
		return p.at(ctx, 0, p.greet)
	}
	first, err := p.at(ctx, o.Baud, p.greet)
	if err != nil || !first.mayBeSpeed() {
		return first, err
	}
	t.o.T2 = otherT2
	for _, baud := range l.Others {
		if baud == o.Baud {
			continue
		}
		other, err := p.at(ctx, baud, p.knock)
		if ctx.Err() != nil {
			break
		}
		if err == nil && !other.mayBeSpeed() { // an error: the port cannot do this speed
			return other, nil
		}
	}
	return first, nil
}

// mayBeSpeed reports whether another speed could explain what was heard.
func (s Sighting) mayBeSpeed() bool {
	switch s.Speech {
	case SpeechSilence, SpeechUnreadable, SpeechDamaged, SpeechRejected:
		return true
	default:
		return false
	}
}

// probe is a Probe under way. It is the device.Witness of what it hears.
type probe struct {
	t          *Terminal
	line       Line
	sighting   Sighting
	understood bool        // the other end has said something in ZVT
	echoed     bool        // it has said what we had said
	heard      atomic.Bool // and something on its own account, or that it will
}

// at opens the line at a speed and has a conversation.
func (p *probe) at(ctx context.Context, baud int, talk func(context.Context, *dialogue) error) (Sighting, error) {
	stream, err := p.line.Open(ctx, baud)
	if err != nil {
		return Sighting{}, err
	}
	p.sighting, p.understood, p.echoed = Sighting{Baud: baud}, false, false
	p.t.o.Baud = baud
	line := &recorder{Stream: stream}
	d := p.t.dialogue(line)
	defer p.t.hangUp(d)
	talking, stop := p.patience(ctx)
	defer stop()
	if err = d.drain(talking); err == nil {
		err = talk(talking, d)
	}
	s := &p.sighting
	switch {
	case p.understood && !p.echoed:
		s.Speech, s.Device = SpeechZVT, p.t.Describe()
		s.Busy = s.Busy || err != nil && !s.Asked // it has begun to answer and does not go on
	case ctx.Err() != nil && len(line.in) == 0:
		return Sighting{}, ctx.Err()
	default:
		s.Speech, s.Bytes = identify(line.in, p.t.o.Serial), shown(line.in)
	}
	return *s, nil
}

// patience is ctx, whose deadline does not count once a terminal has said
// something on its own account.
func (p *probe) patience(ctx context.Context) (context.Context, func()) {
	talking, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if !p.heard.Load() || errors.Is(ctx.Err(), context.Canceled) {
			cancel()
		}
	})
	return talking, func() { stop(); cancel() }
}

// greet registers and asks the status. A wrong password is not said twice.
func (p *probe) greet(ctx context.Context, d *dialogue) error {
	end, err := p.t.inquire(ctx, d, exchange{command: p.t.registration(), hear: p.overhear(apdu.ControlRegistration)})
	if err = p.note(err); err != nil {
		return err
	}
	fields, _ := end.Fields() // as far as it can be read
	p.sighting.Registered, _ = fields.Byte(apdu.BMPStatusByte)
	p.learnTID(fields)
	if r := p.sighting.Refused; r != nil && *r == apdu.CodeWrongPassword {
		return nil
	}
	command := apdu.StatusEnquiry{Password: p.t.password}
	end, err = p.t.inquire(ctx, d, exchange{command: command, hear: p.overhear(command.Control())})
	return p.status(end, p.note(err))
}

// knock asks the status once, of whoever may be there.
func (p *probe) knock(ctx context.Context, d *dialogue) error {
	x := exchange{command: apdu.StatusEnquiry{Password: p.t.password}, hear: p.overhear(apdu.ControlStatusEnquiry)}
	if err := d.conn.WriteOnce(ctx, x.command.Marshal()); err != nil {
		return err
	}
	end, err := d.follow(ctx, x, stance{acknowledged: true, patience: d.t3})
	completion, _ := end.(apdu.Completion)
	return p.status(completion, err)
}

// note takes from an error what a terminal has said with it.
func (p *probe) note(err error) error {
	no := (*refusal)(nil)
	switch {
	case errors.Is(err, device.ErrBusy):
		p.sighting.Busy = true
	case unsupported(err): // both commands are optional
	case errors.As(err, &no):
		p.sighting.Refused = &no.code
	default:
		return err
	}
	return nil
}

func (p *probe) status(end apdu.Completion, err error) error {
	if err != nil || len(end.Data) == 0 {
		return err
	}
	status, err := end.Status()
	if err != nil && status.Fields == nil {
		return err
	}
	p.t.learn(status)
	p.learnTID(status.Fields)
	p.sighting.Asked, p.sighting.Status = true, status.Code
	return nil
}

func (p *probe) learnTID(f apdu.Fields) {
	if tid, ok := f.TID(); ok {
		remember(&p.sighting.TID, plain(tid))
	}
}

// overhear hears what is said during a command.
func (p *probe) overhear(during apdu.Control) func(apdu.Message) bool {
	hear := p.t.ledger("", p, nil).overhear(during)
	return func(m apdu.Message) bool {
		switch c := m.Control(); {
		case c == apdu.ControlRegistration, c == apdu.ControlStatusEnquiry:
			p.echoed = true // no terminal asks that
		case beginsDialogue(c):
			p.understood = true
		}
		if status, ok := m.(apdu.IntermediateStatus); ok && status.Status == apdu.IntermediateAutomaticEndOfDay {
			p.heard.Store(true) // its totals will come
		}
		return p.echoed || hear(m)
	}
}

// Begin implements device.Witness. Nothing of a Probe begins anything.
func (p *probe) Begin(any) error { return errors.ErrUnsupported }

// Record implements device.Witness.
func (p *probe) Record(kind string, data any) (device.Evidence, error) {
	b, err := json.Marshal(data)
	if err != nil {
		return device.Evidence{}, err
	}
	p.heard.Store(true)
	text := trace.Mask(string(b))
	p.sighting.Heard = append(p.sighting.Heard, text)
	if p.line.Keep != nil {
		p.line.Keep(text)
	}
	return device.Evidence{At: time.Now(), Kind: kind, Data: b}, nil
}

// Progress implements device.Witness.
func (p *probe) Progress(text string) { p.sighting.Doing = plain(text) }

// recorder keeps the first bytes that are read.
type recorder struct {
	frame.Stream
	in []byte
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.Stream.Read(b)
	r.in = append(r.in, b[:min(n, firstBytes-len(r.in))]...)
	return n, err
}

// shown is bytes for a person: no card number, and not all of them.
func shown(b []byte) string {
	const most = 24
	more := ""
	if len(b) > most {
		more = " ..."
	}
	return trace.Mask(fmt.Sprintf("% X", b[:min(len(b), most)])) + more
}

// Bytes that tell who speaks.
var (
	ourFrame  = []byte{0x10, 0x02, 0x06, 0x00} // a registration; no terminal sends one
	frameHead = []byte{0x10, 0x02}
	ecr17     = []byte{0x15, 0x03, 0x69} // zvt.md 2
	yomani    = regexp.MustCompile(`(?s)^\x00\x00..VER\|`)
	kitJSON   = regexp.MustCompile(`"[A-Za-z]+(Request|Response|Notification)"`)
	tlsRecord = regexp.MustCompile(`^[\x15\x16]\x03[\x00-\x04]`)
)

// identify says what bytes look like that are no answer in ZVT to a
// registration.
func identify(in []byte, serial bool) Speech {
	head := in
	if serial {
		head = bytes.TrimLeft(in, "\x06") // an ACK
	}
	switch {
	case len(in) == 0:
		return SpeechSilence
	case bytes.Contains(in, ourFrame[2:]) && (!serial || bytes.Contains(in, ourFrame)):
		return SpeechEcho
	case bytes.HasPrefix(in, ecr17):
		return SpeechECR17
	case kitJSON.Match(in), serial && isKITFrame(in):
		return SpeechKIT
	case yomani.Match(in):
		return SpeechYomani
	case tlsRecord.Match(in):
		return SpeechTLS
	case bytes.HasPrefix(in, []byte("HTTP/")):
		return SpeechHTTP
	case bytes.HasPrefix(in, []byte("SSH-")):
		return SpeechSSH
	case serial && len(head) == 0:
		return SpeechUnheard
	case serial && len(bytes.Trim(in, "\x06\x15")) == 0:
		return SpeechRejected
	case serial && bytes.Contains(in, frameHead):
		return SpeechDamaged
	case bytes.HasPrefix(in, frameHead):
		return SpeechFramed
	case serial && isTerminalAPDU(head):
		return SpeechUnframed
	case !serial && isPrefixed(in):
		return SpeechPrefixed
	case looksLikeText(in):
		return SpeechText
	default:
		return SpeechUnreadable
	}
}

// isKITFrame reports whether bytes begin as a frame of a KIT terminal, type 91, or
// with its acknowledgement (kit.md 2). Its number may be doubled.
func isKITFrame(in []byte) bool {
	if len(in) < 2 || in[0] != 0x10 {
		return false
	}
	acknowledges := in[1] == 0x11 || in[1] == 0x12
	return acknowledges || in[1] == 0x00 && bytes.IndexByte(in[:min(len(in), 5)], 0x91) > 0
}

// isTerminalAPDU reports whether bytes begin like an APDU of a terminal.
func isTerminalAPDU(in []byte) bool {
	return len(in) >= 3 && beginsDialogue(apdu.Control(in[0])<<8|apdu.Control(in[1]))
}

// beginsDialogue reports whether a terminal may say this first.
func beginsDialogue(c apdu.Control) bool {
	switch c {
	case apdu.ControlAck, apdu.ControlStatusInformation, apdu.ControlIntermediateStatus, apdu.ControlSetClock,
		apdu.ControlCompletion, apdu.ControlAbort, apdu.ControlPrintLine, apdu.ControlPrintTextBlock:
		return true
	default:
		return c>>8 == 0x84
	}
}

// isPrefixed reports whether an APDU stands behind its length, in either order of
// bytes (zvt.md 2: no ZVT, but found).
func isPrefixed(in []byte) bool {
	return len(in) > 4 && (in[0] == 0) != (in[1] == 0) && isTerminalAPDU(in[2:])
}

// looksLikeText reports whether somebody wrote this for people: a modem, a
// scanner, the console of a computer.
func looksLikeText(in []byte) bool {
	return len(in) >= 2 && !slices.ContainsFunc(in, func(c byte) bool { return c >= 0x7F || isBinary(rune(c)) })
}
