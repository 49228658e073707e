package frame

import (
	"bytes"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestCRC(t *testing.T) {
	sum := func(b []byte) (crc uint16) {
		for _, c := range b {
			crc = crc16(crc, c)
		}
		return crc
	}
	if got := sum([]byte("123456789")); got != 0x2189 {
		t.Errorf("check value %04X, want 2189 (CRC-16/KERMIT)", got)
	}
	// zvt.md 1.2: the right value, and those that show a known mistake.
	apdu := []byte{0x06, 0x50, 0x03, 0x12, 0x34, 0x56}
	if got := sum(apdu); got != 0x9E09 {
		t.Errorf("without ETX %04X, want 9E09", got)
	}
	wire := encode(apdu)
	if got := wire[len(wire)-2:]; !bytes.Equal(got, []byte{0xC4, 0xAF}) {
		t.Errorf("CRC on the wire % X, want C4 AF", got)
	}
	for mistake, crc := range map[string]uint16{"ETX forgotten": 0x9E09, "XMODEM": 0x44B3, "init FFFF": 0xDC4B, "high byte first": 0xC4AF} {
		var d decoder
		frame := append(bytes.Clone(wire[:len(wire)-2]), byte(crc), byte(crc>>8))
		if sig := feedAll(&d, frame); sig != malformed {
			t.Errorf("CRC with %s: signal %d, want malformed", mistake, sig)
		}
	}
}

// feedAll returns the last signal.
func feedAll(d *decoder, b []byte) (sig signal) {
	for _, c := range b {
		sig = d.feed(c)
	}
	return sig
}

func TestVectorsWritten(t *testing.T) {
	for _, v := range vectors(t) {
		synctest.Test(t, func(t *testing.T) {
			s, p := newPeer(t)
			defer p.close()
			c := Serial(s, SerialOptions{})
			wait := later(func() { p.hears(v.wire); p.say(ackByte) })
			if err := c.WriteAPDU(t.Context(), v.apdu); err != nil {
				t.Errorf("%s: %v", v.name, err)
			}
			wait()
		})
	}
}

// Every vector, in one piece, byte by byte, cut in two at each place, and
// behind an ACK in the same read.
func TestVectorsRead(t *testing.T) {
	for _, v := range vectors(t) {
		pieces := [][][]byte{{v.wire}, {append([]byte{ack}, v.wire...)}, {{ack}, v.wire}}
		var bytewise [][]byte
		for i := range v.wire {
			bytewise = append(bytewise, v.wire[i:i+1])
			if i > 0 {
				pieces = append(pieces, [][]byte{v.wire[:i], v.wire[i:]})
			}
		}
		for _, parts := range append(pieces, bytewise) {
			synctest.Test(t, func(t *testing.T) {
				s, p := newPeer(t)
				defer p.close()
				wait := later(func() {
					for _, part := range parts {
						p.say(part)
						time.Sleep(199 * time.Millisecond) // virtual: just below T1
					}
					p.hears(ackByte)
				})
				wantAPDU(t, Serial(s, SerialOptions{}), v.apdu)
				wait()
			})
			if t.Failed() {
				t.Fatalf("%s in %d parts", v.name, len(parts))
			}
		}
	}
}

// Two Conns back to back over a plain net.Pipe, each vector both ways, and what
// was recorded without its frame.
func TestVectorsBackToBack(t *testing.T) {
	conns := map[string]func(Stream) Conn{
		"serial": func(s Stream) Conn { return Serial(s, SerialOptions{}) },
		"tcp":    func(s Stream) Conn { return TCP(s, TCPOptions{}) },
	}
	for name, newConn := range conns {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				ecr, pt := newConn(a), newConn(b)
				defer ecr.Close()
				defer pt.Close()
				for _, v := range append(vectors(t), unframed(t)...) {
					wait := later(func() {
						wantAPDU(t, pt, v.apdu)
						wantErr(t, pt.WriteAPDU(t.Context(), v.apdu))
					})
					wantErr(t, ecr.WriteOnce(t.Context(), v.apdu))
					wantAPDU(t, ecr, v.apdu)
					wait()
				}
			})
		})
	}
}
