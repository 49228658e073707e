package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind is the first word of an address.
type Kind string

// The kinds of links.
const (
	Serial Kind = "serial"
	USB    Kind = "usb"
	TCP    Kind = "tcp"
)

// Address says where a terminal is. Two addresses are equal (==) exactly if
// their canonical texts are.
type Address struct {
	kind Kind

	port string // Serial: a device path, or a Windows port name

	vendor, product string // USB: four lower-case hexadecimal digits each
	serialNumber    string // USB: upper case; empty for any

	hostPort string // TCP
}

// Kind returns the kind of link.
func (a Address) Kind() Kind { return a.kind }

// String returns the canonical text of a, which Parse reads.
func (a Address) String() string {
	switch a.kind {
	case Serial:
		return string(Serial) + ":" + a.port
	case USB:
		s := string(USB) + ":" + a.vendor + ":" + a.product
		if a.serialNumber != "" {
			s += ":" + a.serialNumber
		}
		return s
	case TCP:
		return string(TCP) + ":" + a.hostPort
	default:
		return ""
	}
}

// Matches reports whether a leads to the port p.
func (a Address) Matches(p Port) bool {
	switch a.kind {
	case Serial:
		return a.port == p.Name || slices.Contains(p.Aliases, a.port)
	case USB:
		return a.vendor == p.VendorID && a.product == p.ProductID &&
			(a.serialNumber == "" || a.serialNumber == strings.ToUpper(p.SerialNumber))
	default:
		return false
	}
}

// Parse reads an address. The error says what is wrong with it and what is
// expected; it does not depend on the system, or on what is plugged in.
func Parse(s string) (Address, error) {
	a, err := parse(s)
	if err != nil {
		return Address{}, fmt.Errorf("link %q: %w", s, err)
	}
	return a, nil
}

func parse(s string) (Address, error) {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return Address{}, errors.New("contains characters that cannot be printed")
	}
	kind, rest, _ := strings.Cut(s, ":")
	switch Kind(kind) {
	case Serial:
		return parseSerial(rest)
	case USB:
		return parseUSB(rest)
	case TCP:
		return parseTCP(rest)
	default:
		return Address{}, errors.New("want serial:PORT, usb:VENDOR:PRODUCT[:SERIAL-NUMBER] or tcp:HOST:PORT")
	}
}

// devicePrefix begins the full name of a Windows device. Ports that are not
// called COM and a number can only be told from a mistake by it.
const devicePrefix = `\\.\`

var comName = regexp.MustCompile(`^COM[1-9][0-9]{0,2}$`)

func parseSerial(name string) (Address, error) {
	device, isDevice := strings.CutPrefix(name, devicePrefix)
	device = strings.ToUpper(device)
	switch {
	case comName.MatchString(device):
		return Address{kind: Serial, port: device}, nil
	case isDevice && device != "" && !strings.ContainsAny(device, `\/`):
		return Address{kind: Serial, port: devicePrefix + device}, nil
	case strings.HasPrefix(name, "/"):
		return Address{kind: Serial, port: path.Clean(name)}, nil
	default:
		return Address{}, fmt.Errorf("have port %q, want a full path such as serial:/dev/ttyACM0, or serial:COM3", name)
	}
}

var usbID = regexp.MustCompile(`^[0-9a-f]{4}$`)

// parseUSB makes the serial number upper case because Windows knows no other.
func parseUSB(s string) (Address, error) {
	const want = "want usb:VENDOR:PRODUCT[:SERIAL-NUMBER] such as usb:0b00:0080"
	vendor, rest, _ := strings.Cut(strings.ToLower(s), ":")
	if !usbID.MatchString(vendor) {
		return Address{}, fmt.Errorf("vendor %q is not four hexadecimal digits, %s", vendor, want)
	}
	product, serialNumber, colon := strings.Cut(rest, ":")
	if !usbID.MatchString(product) {
		return Address{}, fmt.Errorf("product %q is not four hexadecimal digits, %s", product, want)
	}
	if colon && serialNumber == "" {
		return Address{}, fmt.Errorf("the serial number is empty, %s", want)
	}
	return Address{kind: USB, vendor: vendor, product: product, serialNumber: strings.ToUpper(serialNumber)}, nil
}

func parseTCP(s string) (Address, error) {
	const want = "want tcp:HOST:PORT such as tcp:192.0.2.10:20007"
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return Address{}, fmt.Errorf("no host and port in %q, %s", s, want)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return Address{}, fmt.Errorf("port %q is not a number from 1 to 65535, %s", port, want)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.String()
	} else if host == "" || strings.ContainsAny(host, " /:@[]%") {
		return Address{}, fmt.Errorf("host %q is neither a name nor an IP address, %s", host, want)
	}
	hostPort := net.JoinHostPort(strings.ToLower(host), strconv.FormatUint(number, 10))
	return Address{kind: TCP, hostPort: hostPort}, nil
}
