package mqtt

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"terminalops/transport"
)

// packetReader hands on the packets a broker sends, and keeps from the library
// what it cannot take: it would allocate whatever length a packet announces, up
// to 256 MiB, and panic on a SUBACK with more codes than were asked for.
//
//	PUBLISH [MQTT-3.1.1] 3.3
//	+------+------------------+--------------+-------+-------------+---------+
//	| 3x   | remaining length | topic length | topic | packet id   | payload |
//	| 1    | 1 to 4           | 2            |       | 2, QoS 1, 2 |         |
//	+------+------------------+--------------+-------+-------------+---------+
//
// A payload longer than MaxPayload is cut to MaxPayload+1 bytes by announcing
// less, and the rest is read and thrown away when its turn comes: the message
// can be seen to be too large, and is acknowledged like any other. Any other
// packet that is too long is an error, which ends the connection.
type packetReader struct {
	r        *bufio.Reader
	maxOther int    // remaining length of anything but a PUBLISH
	head     []byte // of the packet, still to be handed on
	pass     int    // bytes of it that follow
	skip     int    // bytes of it that nobody gets
}

// newPacketReader reads packets from r, on a connection with one SUBSCRIBE for
// so many topics.
func newPacketReader(r io.Reader, subscriptions int) *packetReader {
	// The longest other packet is the SUBACK [MQTT-3.1.1] 3.9: packet id, a
	// code for each topic.
	return &packetReader{r: bufio.NewReaderSize(r, 1<<10), maxOther: 2 + subscriptions}
}

// Read implements [io.Reader].
func (p *packetReader) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	if len(p.head) == 0 && p.pass == 0 {
		if err := p.next(); err != nil {
			return 0, err
		}
	}
	if len(p.head) > 0 {
		n = copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	n, err = p.r.Read(b[:min(len(b), p.pass)])
	p.pass -= n
	return n, err
}

// next throws away the rest of the last packet and reads the head of another.
func (p *packetReader) next() error {
	n, err := p.r.Discard(p.skip)
	p.skip -= n
	if err != nil {
		return err
	}
	first, err := p.r.ReadByte()
	if err != nil {
		return err
	}
	remaining, err := readRemainingLength(p.r)
	if err != nil {
		return err
	}
	if first>>4 != 3 {
		if remaining > p.maxOther {
			return fmt.Errorf("broker sent a packet %02x of %d bytes, expected at most %d", first, remaining, p.maxOther)
		}
		p.begin(first, remaining, remaining)
		return nil
	}
	header, err := p.publishHeader(first, remaining)
	if err != nil {
		return err
	}
	p.begin(first, remaining, min(remaining, header+transport.MaxPayload+1))
	return nil
}

// publishHeader returns how many bytes stand before the payload.
func (p *packetReader) publishHeader(first byte, remaining int) (int, error) {
	topic, err := p.r.Peek(2)
	if err != nil {
		return 0, unexpected(err)
	}
	header := 2 + int(binary.BigEndian.Uint16(topic))
	if qos := first >> 1 & 3; qos > 0 {
		header += 2
	}
	if header > remaining {
		return 0, fmt.Errorf("broker sent a PUBLISH of %d bytes with a header of %d", remaining, header)
	}
	return header, nil
}

// begin hands on a packet of remaining bytes as one of pass bytes.
func (p *packetReader) begin(first byte, remaining, pass int) {
	p.head = append(p.head[:0], first)
	p.head = appendRemainingLength(p.head, pass)
	p.pass = pass
	p.skip = remaining - pass
}

// readRemainingLength reads 1 to 4 bytes [MQTT-3.1.1] 2.2.3.
func readRemainingLength(r io.ByteReader) (length int, err error) {
	for shift := 0; shift < 28; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, unexpected(err)
		}
		length |= int(b&0x7f) << shift
		if b < 0x80 {
			return length, nil
		}
	}
	return 0, fmt.Errorf("broker sent a remaining length of more than 4 bytes")
}

func appendRemainingLength(b []byte, length int) []byte {
	for length > 0x7f {
		b = append(b, byte(length)|0x80)
		length >>= 7
	}
	return append(b, byte(length))
}

// unexpected is what the end of the stream is inside a packet.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
