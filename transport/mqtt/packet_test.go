package mqtt

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"terminalops/transport"
)

// publishBytes is a PUBLISH of MQTT 3.1.1, made without the code under test.
func publishBytes(topic string, qos byte, payload int) []byte {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Qos, p.MessageID = topic, qos, 7
	p.Payload = bytes.Repeat([]byte("p"), payload)
	var b bytes.Buffer
	p.Write(&b)
	return b.Bytes()
}

var (
	puback   = []byte{0x40, 2, 0, 7}
	suback   = []byte{0x90, 4, 0, 1, 1, 1}
	pingresp = []byte{0xd0, 0}
)

func TestPacketReader(t *testing.T) {
	whole := publishBytes("terminals/T1/commands", 1, transport.MaxPayload)
	tests := []struct {
		name     string
		in, want []byte
		err      string
	}{
		{"small packets pass", concat(puback, suback, pingresp, publishBytes("a", 0, 0), puback), concat(puback, suback, pingresp, publishBytes("a", 0, 0), puback), "EOF"},
		{"largest payload passes", concat(whole, puback), concat(whole, puback), "EOF"},
		{"one byte more passes and can be seen", publishBytes("a", 1, transport.MaxPayload+1), publishBytes("a", 1, transport.MaxPayload+1), "EOF"},
		{"larger is cut", concat(publishBytes("a", 1, 1<<20), puback), concat(publishBytes("a", 1, transport.MaxPayload+1), puback), "EOF"},
		{"larger is cut at QoS 0", concat(publishBytes("a", 0, 1<<20), puback), concat(publishBytes("a", 0, transport.MaxPayload+1), puback), "EOF"},
		{"SUBACK with too many codes", []byte{0x90, 5, 0, 1, 1, 1, 1}, nil, "packet 90 of 5 bytes, expected at most 4"},
		{"huge packet", []byte{0x40, 0xff, 0xff, 0xff, 0x7f}, nil, "of 268435455 bytes"},
		{"remaining length of five bytes", []byte{0x30, 0xff, 0xff, 0xff, 0xff, 0x01}, nil, "more than 4 bytes"},
		{"topic longer than packet", []byte{0x32, 5, 0, 2, 'a', 'b', 0}, nil, "PUBLISH of 5 bytes with a header of 6"},
		{"end in header", []byte{0x30, 0x80}, nil, "unexpected EOF"},
		{"end in topic length", []byte{0x30, 0x05, 0}, nil, "unexpected EOF"},
		{"end in what is thrown away", publishBytes("a", 0, 1<<20)[:1<<19], publishBytes("a", 0, transport.MaxPayload+1), "EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, r := range map[string]io.Reader{
				"at once":      bytes.NewReader(tt.in),
				"byte by byte": iotest.OneByteReader(bytes.NewReader(tt.in)),
			} {
				var out bytes.Buffer
				buffer := make([]byte, 100)
				var err error
				for p := newPacketReader(r, 2); err == nil; {
					var n int
					n, err = p.Read(buffer)
					out.Write(buffer[:n])
				}
				if !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%s: %v, want %q", name, err, tt.err)
				}
				if !bytes.Equal(out.Bytes(), tt.want) {
					t.Errorf("%s: have %d bytes, want %d: %.20x", name, out.Len(), len(tt.want), out.Bytes())
				}
			}
		})
	}
}

func concat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// What is announced is never more than what the limit allows, and it is what
// comes: the output can be taken apart again without looking at the input.
func FuzzPacketReader(f *testing.F) {
	f.Add(concat(puback, suback, publishBytes("a/b", 1, 10), pingresp))
	f.Add([]byte{0x90, 5, 0, 1, 1, 1, 1})
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := io.ReadAll(newPacketReader(bytes.NewReader(in), 2))
		for rest := out; len(rest) > 0; {
			n, size := binary.Uvarint(rest[1:])
			if size <= 0 {
				if err == nil {
					t.Fatalf("no remaining length in %x", rest)
				}
				return
			}
			limit := 4
			if rest[0]>>4 == 3 {
				limit = 2 + 1<<16 + 2 + transport.MaxPayload + 1
			}
			if n > uint64(limit) {
				t.Fatalf("announces %d bytes: %x", n, rest[:1+size])
			}
			rest = rest[min(len(rest), 1+size+int(n)):]
		}
		// What is short enough passes unchanged.
		if want := canonical(in); !bytes.HasPrefix(want, out[:min(len(out), len(want))]) {
			t.Fatalf("%x became %x", in, out)
		}
	})
}

// canonical is in with the shortest remaining lengths, as far as it can be read,
// and up to the first packet that is too long.
func canonical(in []byte) []byte {
	var out []byte
	for len(in) > 1 {
		n, size := binary.Uvarint(in[1:])
		if size <= 0 || size > 4 {
			return out
		}
		if n > transport.MaxPayload {
			return out
		}
		out = append(out, in[0])
		out = binary.AppendUvarint(out, n)
		body := min(len(in)-1-size, int(n))
		out = append(out, in[1+size:1+size+body]...)
		in = in[1+size+body:]
	}
	return out
}
