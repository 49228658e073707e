package frame

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// FuzzSerial: what is encoded decodes to the same, in pieces of any size.
func FuzzSerial(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.apdu[0], v.apdu[1], v.apdu[3:], len(v.apdu) > 256, 3)
	}
	f.Fuzz(func(t *testing.T, class, instr byte, data []byte, long bool, piece int) {
		if len(data) > 0xFFFF {
			return
		}
		apdu := []byte{class, instr, byte(len(data))}
		if long || len(data) > 0xFE {
			apdu = []byte{class, instr, longForm, byte(len(data)), byte(len(data) >> 8)}
		}
		apdu = append(apdu, data...)
		piece = max(1, piece&0xFFF)
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			defer a.Close()
			wait := later(func() {
				for rest := encode(apdu); len(rest) > 0; {
					n := min(piece, len(rest))
					if _, err := b.Write(rest[:n]); err != nil {
						t.Error(err)
					}
					rest = rest[n:]
				}
				got, _ := io.ReadAll(b)
				if !bytes.Equal(got, ackByte) {
					t.Errorf("answered % X", got)
				}
			})
			wantAPDU(t, Serial(a, SerialOptions{}), apdu)
			a.Close()
			wait()
		})
	})
}

// FuzzSerialReader: whatever comes, reading ends, and what is delivered was on
// the line, whole and with its CRC.
func FuzzSerialReader(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.wire, uint16(3), false)
	}
	f.Add(append(append(encode(printLine)[:8], nak, 0xFF), encode(completion)...), uint16(1), true)
	f.Fuzz(func(t *testing.T, stream []byte, piece uint16, slow bool) {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			c := Serial(a, SerialOptions{})
			wait := later(func() {
				go func() { _, _ = io.Copy(io.Discard, b) }()
				size := max(1, int(piece))
				for rest := stream; len(rest) > 0; {
					n := min(size, len(rest))
					if _, err := b.Write(rest[:n]); err != nil {
						t.Error(err)
					}
					rest = rest[n:]
					if slow {
						time.Sleep(150 * time.Millisecond)
					}
				}
				time.Sleep(time.Minute)
				b.Close()
			})
			ctx, cancel := context.WithTimeout(t.Context(), 1000*time.Hour)
			defer cancel()
			for lost := false; !lost; {
				apdu, err := c.ReadAPDU(ctx)
				switch {
				case err == nil && !bytes.Contains(stream, encode(apdu)):
					t.Errorf("delivered % X, which was not on the line", apdu)
				case ctx.Err() != nil:
					t.Fatal("hangs")
				case err != nil:
					lost = !errors.Is(err, ErrMalformed)
				}
			}
			wait()
			c.Close()
		})
	})
}

// FuzzTCP: what is delivered, put together again, is what was sent.
func FuzzTCP(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(append(bytes.Clone(v.apdu), v.apdu...), uint16(3))
	}
	f.Fuzz(func(t *testing.T, stream []byte, piece uint16) {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			c := TCP(a, TCPOptions{})
			wait := later(func() {
				size := max(1, int(piece))
				for rest := stream; len(rest) > 0; {
					n := min(size, len(rest))
					if _, err := b.Write(rest[:n]); err != nil {
						t.Error(err)
					}
					rest = rest[n:]
				}
				b.Close()
			})
			var got []byte
			for {
				apdu, err := c.ReadAPDU(t.Context())
				if err != nil {
					wantErr(t, err, ErrLinkLost)
					break
				}
				wantErr(t, checkAPDU(apdu))
				got = append(got, apdu...)
			}
			if all := append(got, c.in...); !bytes.Equal(all, stream) {
				t.Errorf("have % X, want % X", all, stream)
			}
			if n := apduSize(c.in); n > 0 && n <= len(c.in) {
				t.Errorf("a whole APDU was not delivered: % X", c.in)
			}
			wait()
			c.Close()
		})
	})
}
