package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"terminalops/device/link"
	"terminalops/device/trace"
	"terminalops/device/zvt"
	"terminalops/device/zvt/apdu"
)

// askTerminal asks where the terminal is, and the terminal who it is, until that is
// right or good enough. The password is asked for before, for the terminal is to
// hear the right one at once.
func (s *setUp) askTerminal(ctx context.Context) (err error) {
	at := s.all.named("link")
	for chosen := at.value != ""; ; chosen = false {
		if !chosen {
			if at.value, err = s.askLink(ctx, at.value); err != nil {
				return err
			}
		}
		if err := s.askZVTPassword(ctx); err != nil {
			return err
		}
		seen, err := s.look(ctx)
		if err != nil {
			return err
		}
		if seen == verdictOK {
			return nil
		}
		goOn, err := s.yes(ctx, "Go on with this terminal all the same?", seen == verdictWarning,
			"yes: what is wrong can be put right later, and doctor looks again. no: another port, another password, or the same once more")
		if err != nil || goOn {
			return err
		}
	}
}

// askLink asks for a link. before is what was chosen before, if anything was.
func (s *setUp) askLink(ctx context.Context, before string) (string, error) {
	for {
		ports, err := s.ports()
		switch {
		case err != nil:
			fmt.Fprintf(s.out, "The serial ports of this machine are not known: %v\n", err)
		case len(ports) == 0:
			fmt.Fprintln(s.out, "There is no serial port now: nothing is plugged in, or its driver is missing.")
		default:
			fmt.Fprintln(s.out, "The serial ports of this machine:")
		}
		for i, p := range ports {
			fmt.Fprintf(s.out, "%4d  %s\n", i+1, p)
		}
		q := question{text: "Where is the terminal? A number, or serial:, usb: or tcp: ...", preset: before, optional: true, check: func(answer string) error {
			_, err := chosenPort(answer, ports)
			return err
		}, help: "a number of the list; or serial:/dev/ttyACM0, serial:COM3, usb:0b00:0080 (a device by vendor and product), or tcp:192.0.2.10:20007 for a terminal on the network, whose menu shows its address. Plug it in and press Enter, and the list is made again"}
		switch {
		case before != "": // once more
		case len(ports) == 1:
			q.preset = "1"
		default:
			q.bracket = "look again"
		}
		answer, err := s.ask(ctx, q)
		if err != nil {
			return "", err
		}
		if answer == "" {
			continue
		}
		p, err := chosenPort(answer, ports)
		if err != nil || p == nil {
			return answer, err
		}
		return s.askName(ctx, *p, ports)
	}
}

// chosenPort is the port that a number means; nil: the answer is a link.
func chosenPort(answer string, ports []link.Port) (*link.Port, error) {
	n, err := strconv.Atoi(answer)
	if err != nil {
		_, err := link.Parse(answer)
		return nil, err
	}
	if n < 1 || n > len(ports) {
		return nil, fmt.Errorf("%d is not in the list; want a number of it, or a link such as serial:COM3", n)
	}
	return &ports[n-1], nil
}

// askName asks what a port is to be found by: its name, or the device behind it.
func (s *setUp) askName(ctx context.Context, p link.Port, ports []link.Port) (string, error) {
	name := string(link.Serial) + ":" + p.Name
	device := deviceLink(p, ports)
	if device == "" {
		return name, nil
	}
	byDevice, err := s.yes(ctx, "Find it as "+device+", whatever its port is called then?", true,
		"yes: the terminal is found at any socket of this machine. no: whatever is at "+p.Name+" is the terminal, which may be another device after a restart")
	if err != nil || !byDevice {
		return name, err
	}
	return device, nil
}

// deviceLink is the shortest link to the USB device behind a port that leads to no
// other; empty: there is none.
func deviceLink(p link.Port, ports []link.Port) string {
	ids := fmt.Sprintf("%s:%s:%s", link.USB, p.VendorID, p.ProductID)
	for _, text := range []string{ids, ids + ":" + p.SerialNumber} {
		address, err := link.Parse(text)
		if err != nil {
			continue
		}
		matches := 0
		for _, other := range ports {
			if address.Matches(other) {
				matches++
			}
		}
		if matches == 1 {
			return address.String()
		}
	}
	return ""
}

// askZVTPassword asks for the terminal's password. That of most terminals is not
// written.
func (s *setUp) askZVTPassword(ctx context.Context) error {
	const usual = "000000"
	password := s.all.named(zvtPassword)
	q := question{text: "ZVT password of the terminal (is not shown)", preset: usual, secret: true, check: func(answer string) error {
		if _, err := apdu.ParsePassword(answer); err != nil {
			return errors.New("want six digits")
		}
		return nil
	}, help: "six digits that the terminal wants to hear from a till; 000000 at most terminals. Its provider knows them"}
	if password.value != "" {
		q.preset, q.bracket = password.value, "as before"
	}
	answer, err := s.ask(ctx, q)
	if answer == usual {
		answer = ""
	}
	password.value = answer
	return err
}

// look asks the terminal who it is, as doctor does, and says what came of it. One
// that answers at another speed is looked at again at its own, which is written.
func (s *setUp) look(ctx context.Context) (verdict, error) {
	speed := s.all.named(zvtBaud)
	speed.value = ""
	fmt.Fprintf(s.out, "\nAsking the terminal who it is, which takes up to %.0f seconds.\n", terminalPatience.Seconds())
	found, seen, err := s.inspect(ctx, 0)
	if err == nil && seen.Speech == zvt.SpeechZVT && seen.Baud != 0 && seen.Baud != defaultBaud {
		speed.value = strconv.Itoa(seen.Baud)
		fmt.Fprintf(s.out, "It answers at %d baud, which is written.\n", seen.Baud)
		found, seen, err = s.inspect(ctx, seen.Baud)
	}
	if err != nil {
		return "", err
	}
	most := verdictOK
	for i, f := range found {
		if i == len(found)-1 && seen.TID != "" {
			f.Says += ", terminal number (TID) " + seen.TID
		}
		f.Says, f.Advice = trace.Mask(f.Says), trace.Mask(f.Advice)
		fmt.Fprint(s.out, f)
		most = worst(most, f.Verdict)
	}
	fmt.Fprintln(s.out)
	return most, nil
}

// inspect is what doctor finds of the terminal at a speed; 0: the usual one.
func (s *setUp) inspect(ctx context.Context, baud int) (found []finding, seen zvt.Sighting, err error) {
	t := terminalConfig{ID: "T1", Protocol: "zvt", Link: s.all.named("link").value, Baud: baud, ZVT: zvtConfig{Password: s.all.named(zvtPassword).value}}
	if err := t.check(func(key string) string { return key }); err != nil {
		return nil, seen, configError{err}
	}
	t.ID = "" // there is one only, and it has no id yet
	d := doctor{p: s.p, file: s.file, c: &config{StateDir: s.all.named("state-dir").value, Terminals: []terminalConfig{t}}}
	d.service = d.lookAtService(ctx)
	found = d.terminals(ctx)
	if ctx.Err() != nil {
		return nil, seen, errInterrupted
	}
	return found, d.sightings.all[t.ID], nil
}
