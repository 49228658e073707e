package link

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// awaitState waits for a state that is as wanted; what comes before it is passed
// over. The time is what it takes on a machine that has much else to do; without
// being told Watch would take longer than lookAgain, which no test waits for.
func awaitState(t *testing.T, states <-chan State, what string, wanted func(State) bool) {
	t.Helper()
	late := time.After(lookAgain / 2)
	for {
		select {
		case s, ok := <-states:
			if !ok {
				t.Fatalf("ended before: %s", what)
			}
			if wanted(s) {
				return
			}
		case <-late:
			t.Fatalf("never: %s", what)
		}
	}
}

func there(port string) func(State) bool {
	return func(s State) bool { return s.Present && s.Port == port && s.Detail == "" }
}

func gone(detail string) func(State) bool {
	return func(s State) bool { return !s.Present && s.Port == "" && strings.Contains(s.Detail, detail) }
}

// A pseudo-terminal behind a link of a fixed name, which vanishes and comes back
// as another one.
func TestWatchSerial(t *testing.T) {
	name := filepath.Join(t.TempDir(), "terminal")
	states := Watch(t.Context(), must(t, "serial:"+name))
	awaitState(t, states, "not there yet", gone("port "+name+" is not there"))
	for range 2 {
		_, port := newPTY(t)
		if err := os.Symlink(port, name); err != nil {
			t.Fatal(err)
		}
		awaitState(t, states, "plugged in", there(name))
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		awaitState(t, states, "unplugged", gone("port "+name+" is not there"))
	}
}

// As /dev/serial/by-id, where all folders go with the last device.
func TestWatchFolders(t *testing.T) {
	root := t.TempDir()
	device, link := filepath.Join(root, "ttyACM0"), filepath.Join(root, "serial/by-id/usb-DESK")
	states := Watch(t.Context(), must(t, "serial:"+link))
	awaitState(t, states, "not there yet", gone("is not there"))
	for range 2 {
		err := errors.Join(os.WriteFile(device, nil, 0o600), os.MkdirAll(filepath.Dir(link), 0o700), os.Symlink("../../ttyACM0", link))
		if err != nil {
			t.Fatal(err)
		}
		awaitState(t, states, "plugged in", there(link))
		if err := os.Remove(device); err != nil { // udev takes the link away a moment later
			t.Fatal(err)
		}
		awaitState(t, states, "unplugged", gone("is not there"))
		if err := os.RemoveAll(filepath.Join(root, "serial")); err != nil {
			t.Fatal(err)
		}
	}
}

// A USB device is found again under another name, and one that is not ours is
// none.
func TestWatchUSB(t *testing.T) {
	root := tree(t, map[string]string{"dev/null": "", "sys/class/tty/console/dev": "5:1\n"})
	a := must(t, "usb:0b00:0080:A17")
	ctx, stop := context.WithCancel(t.Context())
	states, ended := make(chan State, 1), make(chan struct{})
	go func() {
		defer close(ended)
		n := newNotifier(root, a)
		defer n.close()
		watch(ctx, states, n, func() State { return look(root, a) })
	}()
	defer func() { stop(); <-ended }()
	awaitState(t, states, "not there yet", gone("not plugged in; there is no such port at all"))

	plug := func(tty, serialNumber string) {
		device := filepath.Join(root, "sys/devices/usb1", tty)
		for name, text := range map[string]string{"idVendor": "0b00", "idProduct": "0080", "serial": serialNumber} {
			if err := errors.Join(os.MkdirAll(device, 0o700), os.WriteFile(filepath.Join(device, name), []byte(text+"\n"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		class := filepath.Join(root, "sys/class/tty", tty)
		err := errors.Join(os.MkdirAll(class, 0o700), os.Symlink(device, filepath.Join(class, "device")),
			os.WriteFile(filepath.Join(root, "dev", tty), nil, 0o600)) // the node comes last
		if err != nil {
			t.Fatal(err)
		}
	}
	unplug := func(tty string) { // as the kernel does: the node goes first
		if err := errors.Join(os.Remove(filepath.Join(root, "dev", tty)), os.RemoveAll(filepath.Join(root, "sys/class/tty", tty))); err != nil {
			t.Fatal(err)
		}
	}
	plug("ttyACM0", "A17")
	awaitState(t, states, "plugged in", there("/dev/ttyACM0"))
	plug("ttyACM1", "A99")
	unplug("ttyACM0")
	awaitState(t, states, "unplugged", gone(""))
	plug("ttyACM2", "A17")
	awaitState(t, states, "plugged in under another name", there("/dev/ttyACM2"))
}

// Between the node and the rest a device counts as gone.
func TestLookAtNodes(t *testing.T) {
	root := tree(t, map[string]string{
		"sys/devices/usb1/idVendor": "0b00\n", "sys/devices/usb1/idProduct": "0080\n",
		"sys/class/tty/ttyACM0/device": "->../../../devices/usb1",
	})
	if s := look(root, must(t, "usb:0b00:0080")); s.Present || s.Detail != "port /dev/ttyACM0 is not there" {
		t.Errorf("%+v", s)
	}
}
