package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// Stream is an open link. Read, Write, Close and the deadlines may be called
// from different goroutines; Close ends a Read and a Write that wait.
type Stream interface {
	io.ReadWriteCloser
	// SetReadDeadline and SetWriteDeadline bound the calls that wait and those
	// to come. The zero time means no deadline. A Write that its deadline ended
	// may have written a part: the stream is of no more use then.
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// Options are the settings of a serial line; TCP has none.
type Options struct {
	Baud     int // bits per second
	StopBits int // 1 or 2
}

func (o Options) check() error {
	if o.Baud <= 0 {
		return fmt.Errorf("%d baud, want a number above 0 such as 9600", o.Baud)
	}
	if o.StopBits != 1 && o.StopBits != 2 {
		return fmt.Errorf("%d stop bits, want 1 or 2", o.StopBits)
	}
	return nil
}

// ErrBusy: another program has the port. Asking again later makes sense. The
// error is a *BusyError.
var ErrBusy = errors.New("port busy")

// BusyError says who has the port.
type BusyError struct {
	Port   string // "/dev/ttyACM0", "COM3"
	Holder string // "till (pid 1234)"; empty where it cannot be known
}

func (e *BusyError) Error() string {
	holder := e.Holder
	if holder == "" {
		holder = "another program"
	}
	return fmt.Sprintf("port %s is held by %s", e.Port, holder)
}

// Unwrap makes errors.Is(err, ErrBusy) true.
func (e *BusyError) Unwrap() error { return ErrBusy }

// absentError is os.ErrNotExist in words.
type absentError string

func (e absentError) Error() string { return string(e) }
func (e absentError) Unwrap() error { return os.ErrNotExist }

// Open opens the link to a. Bytes that came before are thrown away: they
// answer nobody's question.
//
// The error is os.ErrNotExist if the port is not there or the device not
// plugged in, os.ErrPermission if it may not be used, ErrBusy if somebody else
// has it (by errors.Is); it says what a person can do. ctx ends the wait for a
// TCP connection, and has no meaning once Open has returned.
func Open(ctx context.Context, a Address, o Options) (Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open %s: %w", a, err)
	}
	s, err := open(ctx, a, o)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", a, err)
	}
	return s, nil
}

// open returns a Stream that means nothing beside an error.
func open(ctx context.Context, a Address, o Options) (Stream, error) {
	if a.kind == TCP {
		return dial(ctx, a.hostPort)
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if a.kind == USB {
		ports, err := List()
		if err != nil {
			return nil, err
		}
		port, err := find(a, ports)
		if err != nil {
			return nil, err
		}
		return openSerial(port.Name, o)
	}
	return openSerial(a.port, o)
}

// A terminal on the local network answers in milliseconds. The keep-alive
// finds one that was switched off within 40 s.
const (
	dialTimeout    = 10 * time.Second
	keepAlive      = 10 * time.Second
	keepAliveCount = 3
)

func dial(ctx context.Context, hostPort string) (Stream, error) {
	d := net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive, Count: keepAliveCount},
	}
	conn, err := d.DialContext(ctx, "tcp", hostPort)
	if err != nil {
		return nil, explainDial(err)
	}
	return conn, nil
}

// explainDial puts the error of a dialer into words.
func explainDial(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // without "dial tcp 192.0.2.10:20007", which the address says
	}
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.Is(err, connectionRefused):
		return fmt.Errorf("connection refused: the device is there, but nothing listens on this port (%w)", err)
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Errorf("unknown host: there is no %s (%w)", dns.Name, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("no answer: is the device switched on and in this network? (%w)", err)
	default:
		return err
	}
}

// Port is a serial port of this computer.
type Port struct {
	Name    string   // what a serial: address takes: "/dev/ttyACM0", "COM3"
	Aliases []string // other names that do not change (Linux: /dev/serial/by-id/...)

	// Of the USB device behind it; empty if there is none, or if it is silent
	// about it. On Windows the serial number is in upper case, and that of an
	// FTDI chip ends in the letter of its channel.
	VendorID     string // four lower-case hexadecimal digits
	ProductID    string // likewise
	SerialNumber string
	Product      string
}

// IsUSB reports whether a USB address can lead to p.
func (p Port) IsUSB() bool { return p.VendorID != "" }

// String describes p in one line: `/dev/ttyACM0 (usb:0b00:0080:A17 "DESK/3500")`.
func (p Port) String() string {
	if !p.IsUSB() {
		return p.Name
	}
	id := "usb:" + p.VendorID + ":" + p.ProductID
	if p.SerialNumber != "" {
		id += ":" + p.SerialNumber
	}
	if p.Product != "" {
		id += fmt.Sprintf(" %q", p.Product)
	}
	return p.Name + " (" + id + ")"
}

// List returns the serial ports of this computer, the short names first. It
// opens none of them.
func List() ([]Port, error) {
	ports, err := listPorts()
	if err != nil {
		return nil, fmt.Errorf("list serial ports: %w", err)
	}
	slices.SortFunc(ports, func(a, b Port) int { // COM3 before COM10
		return cmp.Or(cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	return ports, nil
}

// find returns the only port that a USB address leads to.
func find(a Address, ports []Port) (Port, error) {
	var found []Port
	serialNumbers := map[string]bool{}
	for _, p := range ports {
		if a.Matches(p) {
			found = append(found, p)
			serialNumbers[p.SerialNumber] = true
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return Port{}, absentError("not plugged in; " + present(ports, Port.IsUSB))
	case len(serialNumbers) == len(found):
		return Port{}, fmt.Errorf("%d devices are plugged in, add the serial number of the right one: %s", len(found), describe(found))
	default: // one device with several ports, or twins without serial numbers
		return Port{}, fmt.Errorf("%d ports have these ids and no serial number of their own, use serial:PORT instead: %s", len(found), describe(found))
	}
}

// present says which of the ports there are instead of the one looked for.
func present(ports []Port, wanted func(Port) bool) string {
	var there []Port
	for _, p := range ports {
		if wanted(p) {
			there = append(there, p)
		}
	}
	if len(there) == 0 {
		return "there is no such port at all"
	}
	return "there is " + describe(there)
}

func describe(ports []Port) string {
	var texts []string
	for _, p := range ports {
		texts = append(texts, strings.Join(append([]string{p.String()}, p.Aliases...), " = "))
	}
	return strings.Join(texts, ", ")
}

// absentPort is the error for a port that is not there, as far as List knows
// what is there instead.
func absentPort() error {
	text := "no such port; is the terminal plugged in and switched on?"
	if ports, err := List(); err == nil {
		text += " " + present(ports, func(Port) bool { return true })
	}
	return absentError(text)
}
