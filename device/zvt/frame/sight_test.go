package frame

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device/trace"
)

// watched is a Watch that writes down what it is told, a line each.
type watched struct{ lines []string }

func (w *watched) watch(s Sight) { w.lines = append(w.lines, describe(s)) }

func describe(s Sight) string {
	names := map[Kind]string{Whole: "frame", Broken: "broken", ACK: "ACK", NAK: "NAK", Noise: "noise", Remark: "remark"}
	direction := "<-"
	switch {
	case s.Kind == Remark:
		direction = "--"
	case s.Sent:
		direction = "->"
	}
	line := strings.TrimSpace(fmt.Sprintf("%s %s % X", direction, names[s.Kind], s.Wire))
	if s.APDU != nil && !bytes.Equal(s.APDU, s.Wire) {
		line += fmt.Sprintf(" = % X", s.APDU)
	}
	if s.Note != "" {
		line += ": " + s.Note
	}
	return line
}

func (w *watched) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(w.lines, want) {
		t.Errorf("seen:\n%s\nwant:\n%s", strings.Join(w.lines, "\n"), strings.Join(want, "\n"))
	}
}

const (
	endOfDayFrame = "10 02 06 50 03 00 00 00 10 03 FB 37 = 06 50 03 00 00 00"
	positiveFrame = "10 02 80 00 00 10 03 F5 1F = 80 00 00"
)

// What happens on a line is seen in its order: frames as they are on the wire,
// single bytes, what is thrown away and why.
func TestWatchSerial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := newPeer(t)
		var w watched
		c := Serial(s, SerialOptions{Watch: w.watch})
		defer c.Close()
		defer p.close()
		bad := encode(completion)
		bad[len(bad)-1]++
		go func() {
			p.hears(encode(endOfDay))
			p.say(nakByte)
			p.hears(encode(endOfDay))
			p.say([]byte{0x55, 0xAA}, ackByte, encode(positive))
			p.hears(ackByte)
			p.say(encode(positive)) // its ACK was lost
			p.hears(ackByte)
			p.say(bad, []byte{1, 2, 3})
			p.hears(nakByte)
			p.say([]byte{0x10, 0x02, 0x06})
			p.hears(nakByte)
			p.say(encode(completion))
			p.hears(ackByte)
		}()
		if err := c.WriteAPDU(t.Context(), endOfDay); err != nil {
			t.Fatal(err)
		}
		for _, want := range [][]byte{positive, completion} {
			if got, err := c.ReadAPDU(t.Context()); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("% X, %v, want % X", got, err, want)
			}
		}
		synctest.Wait()
		w.expect(t,
			"-> frame "+endOfDayFrame,
			"<- NAK 15",
			"-> frame "+endOfDayFrame+": sent again, copy 2",
			"<- noise 55 AA",
			"<- ACK 06",
			"<- frame "+positiveFrame,
			"-> ACK 06",
			"<- frame "+positiveFrame,
			"-> ACK 06",
			"-- remark: the same again: acknowledged, not taken for another one",
			fmt.Sprintf("<- broken % X = % X: wrong CRC over 4 bytes", bad, completion),
			"<- noise 01 02 03",
			"-> NAK 15",
			"<- broken 10 02 06 = 06: a frame breaks off after 3 bytes",
			"-> NAK 15",
			"<- frame 10 02 06 0F 00 10 03 C6 33 = 06 0F 00",
			"-> ACK 06",
		)
	})
}

// Silence, a stray answer, the end of the link.
func TestWatchSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := newPeer(t)
		var w watched
		c := Serial(s, SerialOptions{Watch: w.watch})
		defer c.Close()
		go func() {
			p.hears(encode(endOfDay))
			p.say(encode(negative))
			p.hears(ackByte)
			time.Sleep(time.Minute)
			p.close()
		}()
		if err := c.WriteOnce(t.Context(), endOfDay); !errors.Is(err, ErrNoAcknowledgement) {
			t.Fatal(err)
		}
		if _, err := c.ReadAPDU(t.Context()); !errors.Is(err, ErrLinkLost) {
			t.Fatal(err)
		}
		w.expect(t,
			"-> frame "+endOfDayFrame,
			"<- frame 10 02 84 83 00 10 03 91 8E = 84 83 00",
			"-> ACK 06",
			"-- remark: answers something earlier: ignored",
			"-- remark: no ACK within 5s",
			"-- remark: link lost: EOF",
		)
	})
}

func TestWatchTCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := newPeer(t)
		var w watched
		c := TCP(s, TCPOptions{Watch: w.watch})
		defer c.Close()
		defer p.close()
		go p.say(positive, completion[:2])
		if _, err := c.ReadAPDU(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.WriteAPDU(t.Context(), endOfDay); err != nil {
			t.Fatal(err)
		}
		p.hears(endOfDay)
		if _, err := c.ReadAPDU(t.Context()); !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
		w.expect(t,
			"<- frame 80 00 00",
			"-> frame 06 50 03 00 00 00",
			"<- broken 06 0F: the rest has not come",
		)
	})
}

// Nobody watches: nothing is made for it. The bytes of a message are what is
// allocated, watched or not.
func TestNobodyWatchesForNothing(t *testing.T) {
	wire := encode(endOfDay)
	c := Serial(nil, SerialOptions{})
	c.in = make([]byte, 0, 100)
	if n := testing.AllocsPerRun(100, func() {
		c.in = append(c.in[:0], wire...)
		if sig := c.scan(); sig != gotFrame {
			t.Fatal(sig)
		}
		c.in = c.chunk[:0]
		c.sent(wire, endOfDay, len(wire), 1)
		c.seen.note("nothing")
		c.discard()
		c.silence()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkReadAPDU(b *testing.B) {
	for name, watch := range map[string]Watch{"nobody watches": nil, "watched": func(Sight) {}} {
		b.Run(name, func(b *testing.B) {
			c := Serial(&endless{wire: encode(printLine)}, SerialOptions{Watch: watch, Naive: true})
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.ReadAPDU(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// endless is a Stream on which the same comes again and again.
type endless struct{ wire []byte }

func (e *endless) Read(p []byte) (int, error)       { return copy(p, e.wire), nil }
func (e *endless) Write(p []byte) (int, error)      { return len(p), nil }
func (e *endless) Close() error                     { return nil }
func (e *endless) SetReadDeadline(time.Time) error  { return nil }
func (e *endless) SetWriteDeadline(time.Time) error { return nil }

// Hidden bytes are not told by the CRC, nor by being doubled.
func TestSightHex(t *testing.T) {
	const hidden, border = trace.Hidden, trace.Border
	apdu := []byte{0x06, 0x50, 0x03, 0x10, 0x10, 0x21}
	secret := []trace.Mark{0, 0, 0, border | hidden, hidden, hidden}
	for _, test := range []struct {
		name  string
		s     Sight
		marks []trace.Mark
		want  string
	}{
		{"nothing hidden", Sight{Wire: encode(apdu), APDU: apdu}, make([]trace.Mark, 6), "10 02|06 50 03 10|10 10|10 21|10 03 34 95"},
		{"hidden", Sight{Wire: encode(apdu), APDU: apdu}, secret, "10 02|06 50 03|•• •• ••|10 03 •• ••"},
		{"on TCP", Sight{Wire: apdu, APDU: apdu}, secret, "06 50 03|•• •• ••"},
		{"broken off", Sight{Wire: encode(apdu)[:6], APDU: apdu}, secret, "10 02|06 50 03|••"},
		{"broken off on TCP", Sight{Wire: apdu[:4], APDU: apdu[:4]}, secret[:4], "06 50 03|••"},
		{"ACK", Sight{Wire: ackByte}, nil, "06"},
	} {
		got := test.s.Hex(test.marks)
		if test.name == "nothing hidden" {
			got, test.want = got[:len(got)-5], test.want[:len(test.want)-5] // the CRC is that of codec_test.go
		}
		if got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

// Of a recording the same is seen as of the line, and every byte is in it.
func TestSights(t *testing.T) {
	bad := encode(completion)
	bad[len(bad)-1]++
	stream := slices.Concat([]byte{0x99}, encode(endOfDay), ackByte, encode(positive), bad, ackByte, encode(completion)[:4])
	var w watched
	for _, s := range Sights(stream) {
		w.watch(s)
	}
	w.expect(t,
		"<- noise 99",
		"<- frame "+endOfDayFrame,
		"<- ACK 06",
		"<- frame "+positiveFrame,
		fmt.Sprintf("<- broken % X = % X: wrong CRC over 4 bytes", bad, completion),
		"<- ACK 06",
		"<- broken 10 02 06 0F = 06 0F: a frame breaks off after 4 bytes",
	)
}

func FuzzSights(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.wire)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		var all []byte
		for _, s := range Sights(stream) {
			all = append(all, s.Wire...)
			if s.Kind == Whole && !bytes.Equal(s.Wire, encode(s.APDU)) {
				t.Fatalf("% X is said to be % X", s.Wire, s.APDU)
			}
			marked := s.APDU
			if len(marked) == 0 {
				marked = s.Wire
			}
			s.Hex(make([]trace.Mark, len(marked)))
		}
		if !bytes.Equal(all, stream) {
			t.Fatalf("% X is seen as % X", stream, all)
		}
	})
}
