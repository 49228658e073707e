package frame

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	t1 = 200 * time.Millisecond
	t2 = 5 * time.Second
)

// exchange runs one test of a Conn against a raw peer, in virtual time.
func exchange(t *testing.T, o SerialOptions, theirs func(p *peer), ours func(t *testing.T, c *SerialConn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, p := newPeer(t)
		c := Serial(s, o)
		wait := later(func() { theirs(p) })
		ours(t, c)
		wait()
		synctest.Wait()
		p.close()
		c.Close()
	})
}

func TestWriteAgainstTrouble(t *testing.T) {
	command, answer := encode(endOfDay), encode(positive)
	type write = func(*SerialConn, context.Context, []byte) error
	always, once := (*SerialConn).WriteAPDU, (*SerialConn).WriteOnce
	tests := []struct {
		name   string
		o      SerialOptions
		write  write
		theirs func(*peer)
		err    []error
		took   time.Duration
	}{
		{"silence", SerialOptions{}, always, func(p *peer) { p.hears(command, command, command) }, []error{ErrNoAcknowledgement}, 3 * t2},
		{"silence, once", SerialOptions{}, once, func(p *peer) { p.hears(command) }, []error{ErrNoAcknowledgement}, t2},
		// 12 bytes of 11 bits each at 9600 bit/s take 13.75 ms.
		{"silence at 9600", SerialOptions{Baud: 9600}, always, func(p *peer) { p.hears(command, command, command) }, []error{ErrNoAcknowledgement}, 3 * (t2 + 13750*time.Microsecond)},
		{"other timers", SerialOptions{T1: time.Second, T2: 2 * time.Second}, once, func(p *peer) { p.hears(command); p.say(nakByte); p.hears(command) }, []error{ErrNoAcknowledgement}, 3 * time.Second},
		{"slow ACK", SerialOptions{}, once, func(p *peer) { p.hears(command); time.Sleep(4999 * time.Millisecond); p.say(ackByte) }, nil, 4999 * time.Millisecond},
		{"ACK of the third copy", SerialOptions{}, always, func(p *peer) { p.hears(command, command, command); p.say(ackByte) }, nil, 2 * t2},
		{"NAK three times", SerialOptions{}, always, func(p *peer) {
			for range 3 {
				p.hears(command)
				p.say(nakByte)
			}
		}, []error{ErrRejected}, 3 * t1},
		{"NAK three times, once", SerialOptions{}, once, func(p *peer) {
			for range 3 {
				p.hears(command)
				p.say(nakByte)
			}
		}, []error{ErrRejected}, 3 * t1},
		{"NAK, ACK, once", SerialOptions{}, once, func(p *peer) { p.hears(command); p.say(nakByte); p.hears(command); p.say(ackByte) }, nil, t1},
		{"NAK, silence, once", SerialOptions{}, once, func(p *peer) { p.hears(command); p.say(nakByte); p.hears(command) }, []error{ErrNoAcknowledgement}, t1 + t2},
		{"NAK, silence, NAK", SerialOptions{}, always, func(p *peer) {
			p.hears(command)
			p.say(nakByte)
			p.hears(command, command)
			p.say(nakByte)
		}, []error{ErrNoAcknowledgement}, t1 + t2 + t1},
		{"NAK at the last moment, once", SerialOptions{}, once, func(p *peer) {
			p.hears(command)
			time.Sleep(t2 - 1)
			p.say(nakByte)
			p.hears(command)
			p.say(ackByte)
		}, nil, t2 - 1 + t1},
		{"no NAK: bytes before it", SerialOptions{}, once, func(p *peer) { p.hears(command); p.say([]byte{0x00, nak}) }, []error{ErrNoAcknowledgement}, t2},
		{"no NAK: bytes behind it", SerialOptions{}, once, func(p *peer) {
			p.hears(command)
			p.say(nakByte)
			time.Sleep(t1 - 1)
			p.say([]byte{0x00})
		}, []error{ErrNoAcknowledgement}, t2},
		{"no NAK: an ACK behind it", SerialOptions{}, once, func(p *peer) { p.hears(command); p.say(nakByte, ackByte) }, nil, 0},
		{"NAK after old garbage", SerialOptions{}, once, func(p *peer) {
			p.hears(command)
			p.say([]byte{0xFF})
			time.Sleep(t1 + 1)
			p.say(nakByte)
			p.hears(command)
			p.say(ackByte)
		}, nil, 2*t1 + 1},
		{"endless garbage", SerialOptions{}, once, func(p *peer) {
			p.hears(command)
			for range 50 {
				p.say([]byte{0xFF, dle})
				time.Sleep(t1 / 2)
			}
		}, []error{ErrNoAcknowledgement}, t2},
		{"endless NAKs", SerialOptions{}, once, func(p *peer) {
			p.hears(command)
			for range 50 {
				p.say(nakByte)
				time.Sleep(t1 / 2)
			}
		}, []error{ErrNoAcknowledgement}, t2},
		{"answer instead of the ACK", SerialOptions{}, once, func(p *peer) { p.hears(command); p.say(answer); p.hears(ackByte) }, nil, 0},
		{"answer begins before T2 and ends after it", SerialOptions{}, once, func(p *peer) {
			p.hears(command)
			time.Sleep(t2 - 1)
			p.say(answer[:2])
			for _, b := range answer[2:] {
				time.Sleep(t1 - 1)
				p.say([]byte{b})
			}
			p.hears(ackByte)
		}, nil, t2 - 1 + time.Duration(len(answer)-2)*(t1-1)},
		{"bad answer instead of the ACK, repeated", SerialOptions{}, once, func(p *peer) {
			p.hears(command)
			p.say(answer[:len(answer)-1], []byte{0})
			p.hears(nakByte)
			p.say(answer)
			p.hears(ackByte)
		}, nil, t1},
		{"bad answer instead of the ACK, NAK", SerialOptions{}, once, func(p *peer) {
			p.hears(command)
			p.say(answer[:len(answer)-1], []byte{0})
			p.hears(nakByte)
			p.say(nakByte)
			p.hears(command)
			p.say(ackByte)
		}, nil, 2 * t1},
		{"84 83 is a stray", SerialOptions{}, once, func(p *peer) { p.hears(command); p.say(encode(negative)); p.hears(ackByte); p.say(ackByte) }, nil, 0},
		{"84 83 and silence", SerialOptions{}, once, func(p *peer) { p.hears(command); p.say(encode(negative)); p.hears(ackByte) }, []error{ErrNoAcknowledgement}, t2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			exchange(t, tt.o, tt.theirs, func(t *testing.T, c *SerialConn) {
				start := time.Now()
				wantErr(t, tt.write(c, t.Context(), endOfDay), tt.err...)
				wantElapsed(t, start, tt.took)
				if strings.Contains(tt.name, "endless") {
					wantNothing(t, c)
				}
			})
		})
	}
}

func TestReadAgainstTrouble(t *testing.T) {
	good := encode(printLine)
	bad := bytes.Clone(good)
	bad[len(bad)-1]++
	tooLong := append([]byte{0x06, 0xD3, 0xFF, 0xFF, 0xFF}, make([]byte, 0xFFFF+1)...)
	longest := append([]byte{0x06, 0xD3, 0xFF, 0xFF, 0xFF}, bytes.Repeat([]byte{dle}, 0xFFFF)...)
	short := []byte{0x06, 0xD1, 0xFF, 0x02, 0x00, 0x00, 0x41}
	// A mismatch is answered by NAK, like any bad frame; then the good one comes.
	mismatch := func(apdu ...byte) func(*peer) {
		return func(p *peer) { p.say(encode(apdu)); p.hears(nakByte); p.say(good); p.hears(ackByte) }
	}
	tests := []struct {
		name   string
		theirs func(*peer)
		want   []byte
		err    []error
		took   time.Duration
	}{
		{"garbage before", func(p *peer) { p.say([]byte{0x00, 0x02, dle, 0x41, dle, dle, 0xFF}, good); p.hears(ackByte) }, printLine, nil, 0},
		{"lone ACK and NAK before", func(p *peer) { p.say(ackByte, nakByte, ackByte, good); p.hears(ackByte) }, printLine, nil, 0},
		{"lone NAK long before", func(p *peer) { p.say(nakByte); time.Sleep(time.Second); p.say(good); p.hears(ackByte) }, printLine, nil, time.Second},
		{"DLE long before STX", func(p *peer) { p.say([]byte{dle}); time.Sleep(time.Second); p.say([]byte{stx}, good); p.hears(ackByte) }, printLine, nil, time.Second},
		{"new frame inside a frame", func(p *peer) { p.say(good[:7], good); p.hears(ackByte) }, printLine, nil, 0},
		{"short block in the long form", func(p *peer) { p.say(encode(short)); p.hears(ackByte) }, short, nil, 0},
		{"longest of all", func(p *peer) { p.say(encode(longest)); p.hears(ackByte) }, longest, nil, 0},
		{"bad CRC", func(p *peer) { p.say(bad); p.hears(nakByte); p.say(good); p.hears(ackByte) }, printLine, nil, t1},
		{"bad CRC, and more behind it", func(p *peer) {
			p.say(bad)
			time.Sleep(t1 - 1)
			p.say(good) // not heard: the line has to be silent first
			p.hears(nakByte)
			p.say(good)
			p.hears(ackByte)
		}, printLine, nil, 2*t1 - 1},
		{"gap", func(p *peer) { p.say(good[:5]); p.hears(nakByte); p.say(good); p.hears(ackByte) }, printLine, nil, t1},
		{"gap before the CRC", func(p *peer) { p.say(good[:len(good)-1]); p.hears(nakByte); p.say(good); p.hears(ackByte) }, printLine, nil, t1},
		{"DLE and nonsense", func(p *peer) {
			p.say(good[:5], []byte{dle, 0x41}, good[5:])
			p.hears(nakByte)
			p.say(good)
			p.hears(ackByte)
		}, printLine, nil, t1},
		{"length too large", mismatch(0x06, 0xD1, 0x03, 0x00, 0x41), printLine, nil, t1},
		{"length too small", mismatch(0x06, 0xD1, 0x01, 0x00, 0x41), printLine, nil, t1},
		{"long length too large", mismatch(0x06, 0xD1, 0xFF, 0x02, 0x00, 0x41), printLine, nil, t1},
		{"long length, high byte first", mismatch(0x06, 0xD1, 0xFF, 0x00, 0x01, 0x41), printLine, nil, t1},
		{"no length", mismatch(0x06, 0xD1), printLine, nil, t1},
		{"half a length", mismatch(0x06, 0xD1, 0xFF, 0x00), printLine, nil, t1},
		{"nothing", mismatch(), printLine, nil, t1},
		{"too long", func(p *peer) { p.say(encode(tooLong)); p.hears(nakByte); p.say(good); p.hears(ackByte) }, printLine, nil, t1},
		{"three bad ones", func(p *peer) {
			for range 3 {
				p.say(bad)
				p.hears(nakByte)
			}
		}, nil, []error{ErrMalformed}, 3 * t1},
		{"three torn ones", func(p *peer) {
			for range 3 {
				p.say(good[:4])
				p.hears(nakByte)
			}
		}, nil, []error{ErrMalformed}, 3 * t1},
		{"resend", func(p *peer) {
			p.say(good)
			p.hears(ackByte)
			p.say(good)
			p.hears(ackByte)
			p.say(encode(completion))
			p.hears(ackByte)
		}, printLine, nil, 0},
		{"link lost", func(p *peer) { p.say(good[:4]); p.pipe.Close() }, nil, []error{ErrLinkLost}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			exchange(t, SerialOptions{}, tt.theirs, func(t *testing.T, c *SerialConn) {
				start := time.Now()
				got, err := c.ReadAPDU(t.Context())
				if !bytes.Equal(got, tt.want) {
					t.Errorf("ReadAPDU: %.40X, want %.40X", got, tt.want)
				}
				wantErr(t, err, tt.err...)
				wantElapsed(t, start, tt.took)
				clear(got) // it is the caller's
				if tt.name == "resend" {
					wantAPDU(t, c, completion)
				}
			})
		})
	}
}

// A line that babbles ends in an error, and in bounded memory.
func TestReadBabble(t *testing.T) {
	babble := map[string]struct{ begin, goOn []byte }{
		"APDU":    {[]byte{dle, stx}, []byte{0x41}},
		"doubled": {[]byte{dle, stx}, []byte{dle, dle}},
		"starts":  {[]byte{dle, stx}, []byte{dle, stx}},
	}
	for name, b := range babble {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, p := newPeer(t)
				c := Serial(s, SerialOptions{})
				wait := later(func() {
					rest := bytes.Repeat(b.goOn, 4096/len(b.goOn))
					for said := b.begin; ; said = rest {
						if _, err := p.pipe.Write(said); errors.Is(err, io.ErrClosedPipe) {
							return
						}
						time.Sleep(t1 / 4)
					}
				})
				_, err := c.ReadAPDU(t.Context())
				wantErr(t, err, ErrMalformed)
				if n := cap(c.dec.apdu) + cap(c.in); n > 4*maxAPDU {
					t.Errorf("holds %d bytes", n)
				}
				wantDrain(t, c, nil, ErrMalformed)
				c.Close()
				wait()
				p.close()
			})
		})
	}
}

// What the other end says while we wait for the ACK of our answer.
func TestResendWhileAnswering(t *testing.T) {
	question, answer := encode(printLine), encode(positive)
	// ask lets the peer send a message for the first time.
	ask := func(p *peer) { p.say(question); p.hears(ackByte) }
	tests := []struct {
		name   string
		naive  bool
		theirs func(*peer)
		err    []error
		next   []byte // what ReadAPDU delivers then
	}{
		{"answered again", false, func(p *peer) {
			p.hears(answer)
			p.say(question)
			p.hears(ackByte, answer)
			p.say(ackByte)
		}, nil, nil},
		{"three times, then ACK", false, func(p *peer) {
			p.hears(answer)
			p.say(question)
			p.hears(ackByte, answer)
			p.say(question)
			p.hears(ackByte, answer)
			p.say(question)
			p.hears(ackByte)
			p.say(ackByte)
		}, nil, nil},
		{"three times, then silence", false, func(p *peer) {
			p.hears(answer)
			p.say(question)
			p.hears(ackByte, answer)
			p.say(question)
			p.hears(ackByte, answer)
			p.say(question)
			p.hears(ackByte)
		}, []error{ErrNoAcknowledgement}, nil},
		{"equal line after the ACK", false, func(p *peer) { p.hears(answer); p.say(ackByte, question); p.hears(ackByte) }, nil, printLine},
		{"next message instead of the ACK", false, func(p *peer) { p.hears(answer); p.say(encode(completion)); p.hears(ackByte) }, nil, completion},
		{"80 00 is no ACK of an answer", false, func(p *peer) { p.hears(answer); p.say(answer); p.hears(ackByte); p.say(ackByte) }, nil, nil},
		{"naive", true, func(p *peer) { p.hears(answer); p.say(question); p.hears(ackByte) }, nil, printLine},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			exchange(t, SerialOptions{Naive: tt.naive}, func(p *peer) { ask(p); tt.theirs(p) }, func(t *testing.T, c *SerialConn) {
				wantAPDU(t, c, printLine)
				wantErr(t, c.WriteAPDU(t.Context(), positive), tt.err...)
				if tt.next != nil {
					wantAPDU(t, c, tt.next)
				} else {
					wantNothing(t, c)
				}
			})
		})
	}
}

// A terminal may answer a command with a message of its own (06 1E). It must
// not take a resend of the command for another one then, either.
func TestResendWhileTerminalSpeaks(t *testing.T) {
	command, abort := encode(endOfDay), []byte{0x06, 0x1E, 0x01, 0x83}
	exchange(t, SerialOptions{}, func(p *peer) {
		p.say(command)
		p.hears(ackByte, encode(abort))
		p.say(command)
		p.hears(ackByte, encode(abort))
		p.say(ackByte, encode(positive))
		p.hears(ackByte)
	}, func(t *testing.T, c *SerialConn) {
		wantAPDU(t, c, endOfDay)
		wantErr(t, c.WriteAPDU(t.Context(), abort))
		wantAPDU(t, c, positive)
		wantNothing(t, c)
	})
}

// Each message of a terminal is answered by the same 80 00 00: with its ACK
// lost, it is still the answer to this message.
func TestEqualAnswersAreNew(t *testing.T) {
	exchange(t, SerialOptions{}, func(p *peer) {
		for range 3 {
			p.hears(encode(printLine))
			p.say(encode(positive))
			p.hears(ackByte)
		}
	}, func(t *testing.T, c *SerialConn) {
		for range 3 {
			wantErr(t, c.WriteAPDU(t.Context(), printLine))
			wantAPDU(t, c, positive)
		}
	})
}

func TestNaiveDeliversTwice(t *testing.T) {
	exchange(t, SerialOptions{Naive: true}, func(p *peer) {
		for range 2 {
			p.say(encode(endOfDay))
			p.hears(ackByte)
		}
	}, func(t *testing.T, c *SerialConn) {
		wantAPDU(t, c, endOfDay)
		wantAPDU(t, c, endOfDay)
	})
}

// A stray 84 83 whose ACK is lost comes again: it must not be delivered as the
// answer to the command that went out in between.
func TestResentStrayIsNoAnswer(t *testing.T) {
	exchange(t, SerialOptions{}, func(p *peer) {
		p.hears(encode(endOfDay))
		p.say(encode(negative))
		p.hears(ackByte)
		p.say(ackByte, encode(negative))
		p.hears(ackByte)
		p.say(encode(positive))
		p.hears(ackByte)
	}, func(t *testing.T, c *SerialConn) {
		wantErr(t, c.WriteOnce(t.Context(), endOfDay))
		wantAPDU(t, c, positive)
	})
}

// What came with the last message and was not read is no reply to the next
// command: neither the late ACK of a copy, nor a frame.
func TestWhatWasThereBefore(t *testing.T) {
	stale := map[string][]byte{
		"ACK":        ackByte,
		"NAK":        nakByte,
		"84 83":      encode(negative),
		"80 00":      encode(positive),
		"its resend": encode(completion),
	}
	for name, b := range stale {
		t.Run(name, func(t *testing.T) {
			exchange(t, SerialOptions{}, func(p *peer) {
				p.say(encode(completion), b)
				p.hears(ackByte)
				if len(b) > 1 {
					p.hears(ackByte)
				}
				p.hears(encode(endOfDay))
			}, func(t *testing.T, c *SerialConn) {
				wantAPDU(t, c, completion)
				wantErr(t, c.WriteOnce(t.Context(), endOfDay), ErrNoAcknowledgement)
				wantNothing(t, c)
			})
		})
	}
	t.Run("a bad frame", func(t *testing.T) {
		bad := encode(completion)
		bad[len(bad)-1]++
		exchange(t, SerialOptions{}, func(p *peer) {
			p.say(encode(printLine), bad)
			p.hears(ackByte, nakByte, encode(positive))
			p.say(ackByte, encode(completion))
			p.hears(ackByte)
		}, func(t *testing.T, c *SerialConn) {
			wantAPDU(t, c, printLine)
			wantErr(t, c.WriteAPDU(t.Context(), positive))
			wantAPDU(t, c, completion)
		})
	})
	t.Run("a message", func(t *testing.T) {
		exchange(t, SerialOptions{}, func(p *peer) {
			p.say(encode(printLine), encode(completion))
			p.hears(ackByte, ackByte, encode(positive))
			p.say(ackByte)
		}, func(t *testing.T, c *SerialConn) {
			wantAPDU(t, c, printLine)
			wantErr(t, c.WriteAPDU(t.Context(), positive))
			wantAPDU(t, c, completion)
		})
	})
}

// The ACK of the first copy comes late, that of the second later still.
func TestLateACKs(t *testing.T) {
	exchange(t, SerialOptions{}, func(p *peer) {
		p.hears(encode(status), encode(status))
		p.say(ackByte, ackByte)
		time.Sleep(time.Second)
		p.say(ackByte, encode(positive), ackByte)
		p.hears(ackByte)
	}, func(t *testing.T, c *SerialConn) {
		wantErr(t, c.WriteAPDU(t.Context(), status))
		wantAPDU(t, c, positive)
		wantNothing(t, c)
	})
}

// Both ends begin at the same moment: each gets the other's command, once.
func TestCollision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var toB, toA int
		a, b := cable(t, through(&toB), through(&toA))
		ecr, pt := Serial(a, SerialOptions{}), Serial(b, SerialOptions{})
		wait := later(func() {
			wantErr(t, pt.WriteAPDU(t.Context(), printLine))
			wantAPDU(t, pt, status)
			wantNothing(t, pt)
		})
		wantErr(t, ecr.WriteAPDU(t.Context(), status))
		wantAPDU(t, ecr, printLine)
		wantNothing(t, ecr)
		wait()
		if toB != 1 || toA != 1 {
			t.Errorf("%d frames of the ECR, %d of the terminal, want 1 and 1", toB, toA)
		}
	})
}

// A whole dialogue in which each frame and each ACK is lost or damaged once.
func TestLossyCable(t *testing.T) {
	damage := map[string]func([]byte) []byte{
		"lost":    func([]byte) []byte { return nil },
		"damaged": func(b []byte) []byte { b[len(b)-1] ^= 0xFF; return b },
	}
	for name, hurt := range damage {
		for _, fromECR := range []bool{true, false} {
			for victim := range 6 {
				synctest.Test(t, func(t *testing.T) {
					n := 0
					hook := func(b []byte) []byte {
						if n++; n-1 == victim {
							return hurt(b)
						}
						return b
					}
					clean := func(b []byte) []byte { return b }
					toPT, toECR := hook, clean
					if !fromECR {
						toPT, toECR = clean, hook
					}
					a, b := cable(t, toPT, toECR)
					ecr, pt := Serial(a, SerialOptions{}), Serial(b, SerialOptions{})
					messages := [][]byte{printLine, {0x06, 0xD1, 0x01, 0x00}, completion}
					wait := later(func() {
						wantAPDU(t, pt, status)
						wantErr(t, pt.WriteAPDU(t.Context(), positive))
						for _, m := range messages {
							wantErr(t, pt.WriteAPDU(t.Context(), m))
							wantAPDU(t, pt, positive)
						}
						wantNothing(t, pt)
					})
					wantErr(t, ecr.WriteAPDU(t.Context(), status))
					wantAPDU(t, ecr, positive)
					for _, m := range messages {
						wantAPDU(t, ecr, m)
						wantErr(t, ecr.WriteAPDU(t.Context(), positive))
					}
					wantNothing(t, ecr)
					wait()
				})
				if t.Failed() {
					t.Fatalf("write %d %s, from the ECR: %v", victim, name, fromECR)
				}
			}
		}
	}
}

func TestDrain(t *testing.T) {
	late := encode(negative)
	exchange(t, SerialOptions{}, func(p *peer) {
		p.say(encode(printLine), encode(completion))
		p.hears(ackByte)
		p.hears(ackByte) // drained from here
		time.Sleep(t1 - 1)
		p.say(ackByte, nakByte, late[:4])
		time.Sleep(t1 - 1)
		p.say(late)
		p.hears(ackByte)
		time.Sleep(t1 - 1)
		p.say(late[:4])
		p.hears(encode(status))
		p.say(ackByte)
	}, func(t *testing.T, c *SerialConn) {
		wantAPDU(t, c, printLine)
		start := time.Now()
		wantDrain(t, c, negative)
		wantElapsed(t, start, 4*t1-3)
		wantErr(t, c.WriteAPDU(t.Context(), status))
	})
}

// After a Drain nothing counts as a resend, and nothing is left of before.
func TestDrainForgets(t *testing.T) {
	exchange(t, SerialOptions{}, func(p *peer) {
		p.hears(encode(status))
		p.say(encode(printLine)) // instead of the ACK: held
		p.hears(ackByte)
		time.Sleep(time.Second)
		p.say(encode(printLine))
		p.hears(ackByte)
	}, func(t *testing.T, c *SerialConn) {
		wantErr(t, c.WriteAPDU(t.Context(), status))
		wantDrain(t, c, printLine)
		start := time.Now()
		wantAPDU(t, c, printLine)
		wantElapsed(t, start, time.Second-t1)
	})
}

// A frame that came instead of an ACK comes again, as our ACK was lost.
func TestResendOfHeldFrame(t *testing.T) {
	exchange(t, SerialOptions{}, func(p *peer) {
		p.hears(encode(status))
		p.say(encode(positive))
		p.hears(ackByte)
		p.say(encode(positive))
		p.hears(ackByte)
	}, func(t *testing.T, c *SerialConn) {
		wantErr(t, c.WriteAPDU(t.Context(), status))
		wantAPDU(t, c, positive)
		wantNothing(t, c)
	})
}

func TestContextEnds(t *testing.T) {
	calls := map[string]func(*SerialConn, context.Context) error{
		"ReadAPDU":  func(c *SerialConn, ctx context.Context) error { _, err := c.ReadAPDU(ctx); return err },
		"WriteAPDU": func(c *SerialConn, ctx context.Context) error { return c.WriteAPDU(ctx, status) },
		"WriteOnce": func(c *SerialConn, ctx context.Context) error { return c.WriteOnce(ctx, status) },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			exchange(t, SerialOptions{}, func(p *peer) {
				if name != "ReadAPDU" {
					p.hears(encode(status))
				}
				time.Sleep(2 * time.Second)
				p.say(encode(printLine))
				p.hears(ackByte)
			}, func(t *testing.T, c *SerialConn) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start := time.Now()
				wantErr(t, call(c, ctx), context.DeadlineExceeded)
				wantElapsed(t, start, time.Second)
				wantAPDU(t, c, printLine) // the Conn is as good as before
			})
		})
		t.Run(name+" at once", func(t *testing.T) {
			exchange(t, SerialOptions{}, func(*peer) {}, func(t *testing.T, c *SerialConn) {
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				want := []error{context.Canceled}
				if name != "ReadAPDU" {
					want = append(want, ErrNothingWritten)
				}
				wantErr(t, call(c, ctx), want...)
			})
		})
	}
}

// cancelling is a stream on which ctx ends right before a deadline is set,
// which then comes after the one that should have interrupted the call.
type cancelling struct {
	net.Conn
	cancel context.CancelFunc
}

func (s cancelling) SetReadDeadline(d time.Time) error {
	s.end(d)
	return s.Conn.SetReadDeadline(d)
}

func (s cancelling) SetWriteDeadline(d time.Time) error {
	s.end(d)
	return s.Conn.SetWriteDeadline(d)
}

func (s cancelling) end(d time.Time) {
	if d != longAgo {
		s.cancel()
		time.Sleep(time.Nanosecond) // virtual: the interruption goes first
	}
}

func TestContextEndsBeforeDeadlineIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		calls := []func(*SerialConn, context.Context) error{
			func(c *SerialConn, ctx context.Context) error { _, err := c.ReadAPDU(ctx); return err },
			func(c *SerialConn, ctx context.Context) error { return c.WriteAPDU(ctx, status) },
		}
		for i, call := range calls {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Hour, func() { ours.Close() }) // or it would hang
			start := time.Now()
			err := call(Serial(cancelling{ours, cancel}, SerialOptions{}), ctx)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("call %d: %v", i, err)
			}
			wantElapsed(t, start, 1)
		}
	})
}

// A line that takes no bytes, or only some.
func TestStalledLine(t *testing.T) {
	tests := []struct {
		name  string
		takes int
		err   []error
	}{
		{"no byte", 0, []error{ErrNothingWritten, ErrLinkLost, os.ErrDeadlineExceeded}},
		{"some bytes", 5, []error{ErrLinkLost, os.ErrDeadlineExceeded}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, p := net.Pipe()
				defer p.Close()
				if tt.takes > 0 {
					go func() { _, _ = io.ReadFull(p, make([]byte, tt.takes)) }()
				}
				c := Serial(s, SerialOptions{Baud: 9600})
				defer c.Close()
				start := time.Now()
				wantErr(t, c.WriteOnce(t.Context(), endOfDay), tt.err...)
				wantElapsed(t, start, t2+13750*time.Microsecond)

				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start = time.Now()
				wantErr(t, c.WriteOnce(ctx, endOfDay), ErrNothingWritten, context.DeadlineExceeded)
				wantElapsed(t, start, time.Second)
			})
		})
	}
	t.Run("closed", func(t *testing.T) {
		s, p := newPeer(t)
		p.close()
		wantErr(t, Serial(s, SerialOptions{}).WriteAPDU(t.Context(), status), ErrNothingWritten, ErrLinkLost)
	})
}

// The terminal says its totals and the cable is pulled before our ACK.
func TestFrameCountsWithoutItsACK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := Serial(ours, SerialOptions{})
		wait := later(func() {
			_, _ = theirs.Write(encode(completion))
			theirs.Close()
		})
		wantAPDU(t, c, completion)
		_, err := c.ReadAPDU(t.Context())
		wantErr(t, err, ErrLinkLost)
		wait()
	})
}

func TestWriteRefusesWhatIsNoAPDU(t *testing.T) {
	for _, apdu := range [][]byte{nil, {0x06}, {0x06, 0x50}, {0x06, 0x50, 0x01}, {0x06, 0x50, 0x00, 0x00}, {0x06, 0x50, 0xFF, 0x00}, {0x06, 0x50, 0xFF, 0x01, 0x00}} {
		ours, _ := net.Pipe()
		for _, c := range []Conn{Serial(ours, SerialOptions{}), TCP(ours, TCPOptions{})} {
			wantErr(t, c.WriteAPDU(t.Context(), apdu), ErrNothingWritten, ErrMalformed)
			wantErr(t, c.WriteOnce(t.Context(), apdu), ErrNothingWritten, ErrMalformed)
		}
	}
}
