package link

import (
	"os"
	"path/filepath"
	"strings"
)

func listPorts() ([]Port, error) { return listPortsIn("/") }

// listPortsIn finds the ports in the file tree at root (which is / but in
// tests). It only reads what the kernel and udev say there:
//
//	/sys/class/tty/ttyACM0/device -> .../usb1/1-2/1-2:1.0     the interface
//	                                 .../usb1/1-2/            the device: idVendor, idProduct, serial, product
//	/sys/class/tty/ttyS1/type        "0": a port without hardware
//	/dev/serial/by-id/usb-...     -> ../../ttyACM0
//
// A port that vanishes meanwhile is left out.
func listPortsIn(root string) ([]Port, error) {
	class := filepath.Join(root, "sys/class/tty")
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil, err
	}
	aliases := portAliases(root)
	var ports []Port
	for _, e := range entries {
		dir := filepath.Join(class, e.Name())
		device, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
		if err != nil || attribute(dir, "type") == "0" {
			continue // a console or a pty, or nothing is there
		}
		name := "/dev/" + e.Name()
		p := Port{Name: name, Aliases: aliases[name]}
		describeUSB(&p, device)
		ports = append(ports, p)
	}
	return ports, nil
}

// portAliases maps the names of ports to their links in /dev/serial/by-id. The
// folder is missing if nothing is plugged in.
func portAliases(root string) map[string][]string {
	aliases := map[string][]string{}
	links, _ := filepath.Glob(filepath.Join(root, "dev/serial/by-id/*")) // the pattern is right, the only error there is
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			name := "/dev/" + filepath.Base(target)
			aliases[name] = append(aliases[name], "/dev/serial/by-id/"+filepath.Base(link))
		}
	}
	return aliases
}

// describeUSB fills in the USB device that dir, an interface or a port of it,
// belongs to: the first folder upwards that has ids.
func describeUSB(p *Port, dir string) {
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if vendor := attribute(dir, "idVendor"); vendor != "" {
			p.VendorID = vendor
			p.ProductID = attribute(dir, "idProduct")
			p.SerialNumber = attribute(dir, "serial")
			p.Product = attribute(dir, "product")
			return
		}
	}
}

// attribute reads a file of /sys; empty if it is not there.
func attribute(dir, name string) string {
	value, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(value))
}
