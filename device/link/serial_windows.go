package link

import (
	"errors"
	"fmt"
	"strings"

	"go.bug.st/serial"
	"go.bug.st/serial/enumerator"
)

// openSerial opens a port by the library, which also knows the names above
// COM9. Every error of an open port means that the port is gone: what a driver
// says when its device is unplugged differs from driver to driver.
func openSerial(name string, o Options) (*pump, error) {
	mode := &serial.Mode{BaudRate: o.Baud, DataBits: 8, Parity: serial.NoParity, StopBits: serial.OneStopBit}
	if o.StopBits == 2 {
		mode.StopBits = serial.TwoStopBits
	}
	port, err := serial.Open(name, mode)
	if err != nil {
		return nil, explainOpen(name, o, err)
	}
	if err := port.ResetInputBuffer(); err != nil {
		port.Close()
		return nil, fmt.Errorf("clear the input: %w", err)
	}
	return newPump(name, port), nil
}

// explainOpen puts the error of an open into words. Windows opens a serial port
// once; it does not tell who did.
func explainOpen(name string, o Options, err error) error {
	var portErr *serial.PortError
	if !errors.As(err, &portErr) {
		return err
	}
	switch portErr.Code() {
	case serial.PortBusy:
		return &BusyError{Port: name}
	case serial.PortNotFound:
		return absentPort()
	case serial.InvalidSerialPort:
		return fmt.Errorf("%s is not a serial port, or cannot do %d baud 8N%d (%w)", name, o.Baud, o.StopBits, err)
	default:
		return err
	}
}

// listPorts takes the names from the registry, which has every port that can be
// opened, and what is known of their USB devices from SetupAPI.
func listPorts() ([]Port, error) {
	names, err := serial.GetPortsList()
	if err != nil {
		return nil, err
	}
	details, err := enumerator.GetDetailedPortsList()
	if err != nil {
		return nil, err
	}
	known := map[string]*enumerator.PortDetails{}
	for _, d := range details {
		known[d.Name] = d
	}
	var ports []Port
	for _, name := range names {
		p := Port{Name: name}
		if d, ok := known[name]; ok && d.IsUSB {
			p.VendorID, p.ProductID = strings.ToLower(d.VID), strings.ToLower(d.PID)
			p.SerialNumber, p.Product = d.SerialNumber, d.Product
		}
		ports = append(ports, p)
	}
	return ports, nil
}
