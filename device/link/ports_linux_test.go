package link

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// tree makes a file tree from paths and contents; a content that begins with
// "->" is a symbolic link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if len(content) > 2 && content[:2] == "->" {
			err = os.Symlink(content[2:], file)
		} else {
			err = os.WriteFile(file, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// The layout is that of Linux 6: a CDC ACM terminal, an FTDI cable, a UART on
// the board, one that is only configured, a console, and a port that has gone
// while it was looked at.
func TestListPorts(t *testing.T) {
	root := tree(t, map[string]string{
		"sys/devices/pci/usb1/1-2/idVendor":                           "0b00\n",
		"sys/devices/pci/usb1/1-2/idProduct":                          "0080\n",
		"sys/devices/pci/usb1/1-2/serial":                             "A17\n",
		"sys/devices/pci/usb1/1-2/product":                            "DESK 3500\n",
		"sys/devices/pci/usb1/1-2/1-2:1.0/tty/ttyACM0/dev":            "166:0\n",
		"sys/devices/pci/usb1/1-2/1-2:1.0/tty/ttyACM0/device":         "->../..",
		"sys/class/tty/ttyACM0":                                       "->../../devices/pci/usb1/1-2/1-2:1.0/tty/ttyACM0",
		"sys/devices/pci/usb1/1-3/idVendor":                           "0403\n",
		"sys/devices/pci/usb1/1-3/idProduct":                          "6001\n",
		"sys/devices/pci/usb1/1-3/1-3:1.0/ttyUSB0/tty/ttyUSB0/dev":    "188:0\n",
		"sys/devices/pci/usb1/1-3/1-3:1.0/ttyUSB0/tty/ttyUSB0/device": "->../..",
		"sys/class/tty/ttyUSB0":                                       "->../../devices/pci/usb1/1-3/1-3:1.0/ttyUSB0/tty/ttyUSB0",
		"sys/devices/pnp0/00:00/tty/ttyS0/type":                       "4\n",
		"sys/devices/pnp0/00:00/tty/ttyS0/device":                     "->../..",
		"sys/class/tty/ttyS0":                                         "->../../devices/pnp0/00:00/tty/ttyS0",
		"sys/devices/platform/serial8250/tty/ttyS1/type":              "0\n",
		"sys/devices/platform/serial8250/tty/ttyS1/device":            "->../..",
		"sys/class/tty/ttyS1":                                         "->../../devices/platform/serial8250/tty/ttyS1",
		"sys/devices/virtual/tty/console/dev":                         "5:1\n",
		"sys/class/tty/console":                                       "->../../devices/virtual/tty/console",
		"sys/class/tty/ttyACM9":                                       "->../../devices/pci/usb1/1-9/1-9:1.0/tty/ttyACM9",
		"dev/serial/by-id/usb-DESK_3500_A17-if00":                     "->../../ttyACM0",
		"dev/serial/by-id/usb-gone":                                   "->../../ttyACM9",
	})
	got, err := listPortsIn(root)
	if err != nil {
		t.Fatal(err)
	}
	want := []Port{
		{Name: "/dev/ttyACM0", Aliases: []string{"/dev/serial/by-id/usb-DESK_3500_A17-if00"},
			VendorID: "0b00", ProductID: "0080", SerialNumber: "A17", Product: "DESK 3500"},
		{Name: "/dev/ttyS0"},
		{Name: "/dev/ttyUSB0", VendorID: "0403", ProductID: "6001"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if text := got[0].String(); text != `/dev/ttyACM0 (usb:0b00:0080:A17 "DESK 3500")` {
		t.Error(text)
	}
}

func TestListPortsWithoutSys(t *testing.T) {
	if ports, err := listPortsIn(t.TempDir()); err == nil {
		t.Errorf("got %v, want an error", ports)
	}
}
