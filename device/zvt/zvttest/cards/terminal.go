package cards

import (
	"context"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
)

// said is what a terminal does on one command.
type said struct {
	messages []apdu.Message
	noise    []byte // before them; on a serial line
	end      apdu.Message
}

// Terminal is one that says a card wherever it can.
type Terminal struct {
	Serial  bool // it is on a serial line
	answers map[apdu.Control]said
	raw     []byte
}

// Terminal draws a terminal that says c.
func (c Card) Terminal(t *rapid.T, serial bool) *Terminal {
	p := &Terminal{Serial: serial, answers: map[apdu.Control]said{}}
	for _, command := range []apdu.Control{
		apdu.ControlRegistration, apdu.ControlStatusEnquiry, apdu.ControlEndOfDay, apdu.ControlSoftwareUpdate, apdu.ControlServiceMode,
		apdu.ControlRepeatReceipt, apdu.ControlSystemConfiguration, apdu.ControlSelfTest, apdu.ControlReadFile,
	} {
		answer := said{messages: c.messages(t), end: c.end(t, command), noise: c.noise(t)}
		if command == apdu.ControlReadFile {
			answer.messages = append(answer.messages, c.blocks(t, rapid.SampledFrom([]uint64{2, 3, 4, 5}).Draw(t, "file"))...)
		}
		p.answers[command] = answer
	}
	return p
}

// Said is all that it has said, as it is on the wire of TCP.
func (p *Terminal) Said() []byte { return p.raw }

// Serve answers commands until the other end has enough.
func (p *Terminal) Serve(ctx context.Context, s frame.Stream) error {
	var conn frame.Conn = frame.TCP(s, frame.TCPOptions{})
	if p.Serial {
		conn = frame.Serial(s, frame.SerialOptions{})
	}
	defer conn.Close()
	for {
		b, err := conn.ReadAPDU(ctx)
		if err != nil {
			return err
		}
		m, err := apdu.Parse(b)
		if m == nil || m.Control() == apdu.ControlAck {
			continue
		}
		if err != nil {
			return fmt.Errorf("the ECR sends % X: %w", b, err)
		}
		answer, known := p.answers[m.Control()]
		if !known {
			answer = said{end: apdu.NewCompletion()}
		}
		if err := p.tell(ctx, conn, apdu.Ack{}); err != nil {
			return err
		}
		if p.Serial && len(answer.noise) > 0 {
			if _, err := s.Write(answer.noise); err != nil {
				return err
			}
			time.Sleep(time.Second) // until it is heard to be none
		}
		for _, m := range append(slices.Clone(answer.messages), answer.end) {
			if err := p.tell(ctx, conn, m); err != nil {
				return err
			}
			if _, err := conn.ReadAPDU(ctx); err != nil {
				return err
			}
		}
	}
}

func (p *Terminal) tell(ctx context.Context, conn frame.Conn, m apdu.Message) error {
	p.raw = append(p.raw, m.Marshal()...)
	return conn.WriteAPDU(ctx, m.Marshal())
}
