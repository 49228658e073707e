package frame

import "fmt"

// Control bytes of the serial line ([S16]).
const (
	stx = 0x02
	etx = 0x03
	ack = 0x06
	dle = 0x10
	nak = 0x15
)

// crc16 adds one byte to a CRC-16/KERMIT, which [S16] calls CRC-XModem. It
// begins with 0; over the ASCII string 123456789 it is 2189h.
func crc16(crc uint16, b byte) uint16 {
	crc ^= uint16(b)
	for range 8 {
		if crc&1 != 0 {
			crc = crc>>1 ^ 0x8408
		} else {
			crc >>= 1
		}
	}
	return crc
}

// encode returns the frame of an APDU as it goes over the line.
func encode(apdu []byte) []byte {
	wire := make([]byte, 0, len(apdu)+len(apdu)/8+6)
	wire = append(wire, dle, stx)
	var crc uint16
	for _, b := range apdu {
		if b == dle {
			wire = append(wire, dle)
		}
		wire = append(wire, b)
		crc = crc16(crc, b)
	}
	crc = crc16(crc, etx)
	return append(wire, dle, etx, byte(crc), byte(crc>>8))
}

// maxWire is the size of the longest frame, in which each byte is doubled.
const maxWire = 2*maxAPDU + 6

// signal is what a decoder makes of the bytes on the line.
type signal int

const (
	none      signal = iota
	gotACK           // an ACK, also one behind garbage: it is never harmful
	gotNAK           // a NAK that stands alone, see heardNAK
	gotFrame         // a frame with a right length and CRC: decoder.apdu
	malformed        // a frame gone wrong, the line is not silent: decoder.fault
	torn             // a frame whose rest did not come within T1: decoder.fault
)

// position is where in the stream a decoder is.
type position int

const (
	between    position = iota // outside a frame, after silence, a frame, an ACK
	garbage                    // outside a frame, within T1 of bytes that mean nothing
	betweenDLE                 // outside a frame, behind a DLE
	heardNAK                   // behind a NAK that would stand alone if silence follows
	inside                     // inside the APDU
	insideDLE                  // inside the APDU, behind a DLE
	crcLow                     // behind DLE ETX
	crcHigh                    // behind the first byte of the CRC
)

// decoder finds frames, ACKs and NAKs in a stream of bytes, one at a time.
//
// A NAK makes us send again, which must not happen on a guess: it is believed
// only if it stands alone, with T1 of silence behind it and no garbage before
// it. So a 15 out of the middle of a frame whose beginning was lost is none.
type decoder struct {
	at    position
	apdu  []byte // without doubling
	crc   uint16 // over apdu, then also the ETX
	raw   int    // bytes since the first DLE STX; bounds apdu and the time
	low   byte   // first byte of the received CRC
	fault string // why malformed or torn; quotes no data
}

// feed takes the next byte.
func (d *decoder) feed(b byte) signal {
	if d.at >= inside {
		if d.raw++; d.raw > maxWire {
			return d.fail("a frame longer than %d bytes", maxWire)
		}
	}
	switch d.at {
	case between, garbage, heardNAK:
		return d.outside(b)
	case betweenDLE:
		if b == stx {
			d.start()
			d.raw = 2
			return none
		}
		d.at = garbage
		return d.outside(b)
	case inside:
		if b == dle {
			d.at = insideDLE
			return none
		}
		return d.add(b)
	case insideDLE:
		return d.escaped(b)
	case crcLow:
		d.low, d.at = b, crcHigh
		return none
	case crcHigh:
		return d.finish(uint16(d.low) | uint16(b)<<8)
	default:
		panic(fmt.Sprintf("frame: decoder in position %d", d.at))
	}
}

func (d *decoder) outside(b byte) signal {
	switch {
	case b == dle:
		d.at = betweenDLE
	case b == ack:
		d.at = between
		return gotACK
	case b == nak && d.at == between:
		d.at = heardNAK
	default:
		d.at = garbage
	}
	return none
}

// escaped takes the byte behind a DLE inside a frame.
func (d *decoder) escaped(b byte) signal {
	switch b {
	case dle:
		d.at = inside
		return d.add(dle)
	case etx:
		d.crc = crc16(d.crc, etx)
		d.at = crcLow
		return none
	case stx:
		// A new frame. [S16] is silent; our decision: the sender has begun
		// again, and what came before is not worth a NAK. raw goes on
		// counting, or a babble of DLE STX would never end.
		d.start()
		return none
	default:
		return d.fail("DLE is followed by %02X", b)
	}
}

func (d *decoder) start() {
	d.at, d.apdu, d.crc = inside, d.apdu[:0], 0
}

func (d *decoder) add(b byte) signal {
	if len(d.apdu) == maxAPDU {
		return d.fail("an APDU longer than %d bytes", maxAPDU)
	}
	d.apdu = append(d.apdu, b)
	d.crc = crc16(d.crc, b)
	d.at = inside
	return none
}

func (d *decoder) finish(crc uint16) signal {
	if crc != d.crc {
		// Which it is would tell much of bytes that are masked.
		return d.fail("wrong CRC over %d bytes", len(d.apdu)+1)
	}
	if err := checkAPDU(d.apdu); err != nil {
		return d.fail("%v", err)
	}
	d.at = between
	return gotFrame
}

func (d *decoder) fail(format string, args ...any) signal {
	d.fault = fmt.Sprintf(format, args...)
	d.at = garbage
	return malformed
}

// silence is called after T1 without a byte.
func (d *decoder) silence() signal {
	at := d.at
	d.at = between
	switch {
	case at == heardNAK:
		return gotNAK
	case at >= inside:
		d.fault = fmt.Sprintf("a frame breaks off after %d bytes", d.raw)
		return torn
	default:
		return none
	}
}

// unsettled reports whether T1 of silence would mean something now.
func (d *decoder) unsettled() bool { return d.at != between }

// committed reports whether the decoder is in the middle of something that
// will end soon, and deserves to be waited for.
func (d *decoder) committed() bool { return d.at >= heardNAK }

// forgetNAK is called before a frame is sent: a NAK before it is not its own.
func (d *decoder) forgetNAK() {
	if d.at == heardNAK {
		d.at = between
	}
}
