package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/creack/pty"
	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sys/unix"

	"terminalops/device/zvt/zvttest"
)

// What status says of the way to the office. With online it has nothing more to
// say.
var (
	online  = []string{"cloud     connected", "the cloud's, and this PC's is the same"}
	offline = "cloud     not connected"
)

// situations are those of the field guide: what is wrong at the store, and what
// people do about it.
var situations = map[string]func(*scene){
	"healthy": func(s *scene) {
		s.withOffice()
		s.plug("ttyUSB0", on(s.terminal("success")))
		s.configure("serial:/dev/ttyUSB0")
		s.start(online...)
	},

	"silent-terminal": func(s *scene) {
		s.withOffice()
		pt := s.terminal("silent")
		s.plug("ttyUSB0", on(pt))
		s.configure("serial:/dev/ttyUSB0")
		s.start(online...)
		s.command("operation", "run", "end_of_day").Run() // which fails
		s.can["the service is stopped"] = s.stop
		s.can["the terminal is set to ZVT"] = func() { s.plays(pt, "success") }
	},
	"wrong-speed": func(s *scene) {
		s.withOffice()
		s.plug("ttyUSB0", onAt(s.terminal("success"), 115200))
		s.configure("serial:/dev/ttyUSB0")
		s.can["baud = 115200 is written"] = func() {
			s.lab.terminal = "baud = 115200\n"
			s.configure("serial:/dev/ttyUSB0")
		}
	},
	"other-protocol": func(s *scene) {
		s.withOffice()
		pull := s.plug("ttyUSB0", answering("\x10\x00\x02\x91{\"StatusResponse\":{\"TrmStatus\":0,\"TrmLng\":\"de\",\"ESigInd\":0}}\n\xd3\x79\x10\xff"))
		s.configure("serial:/dev/ttyUSB0")
		s.can["the provider has set it to ZVT"] = func() {
			pull()
			s.plug("ttyUSB0", on(s.terminal("success")))
		}
	},

	"port-gone": func(s *scene) {
		s.withOffice()
		pt := s.terminal("success")
		pull := s.plug("ttyUSB0", on(pt))
		s.configure("serial:/dev/ttyUSB0")
		s.start(online...)
		pull()
		s.await("status", "is not there")
		s.can["the cable is plugged in again"] = func() {
			s.plug("ttyUSB1", on(pt))
			s.isUSB("ttyUSB1", "0403", "6001", "A50285BI", "FT232R USB UART")
		}
		s.can["the link is usb:0403:6001, and the service is restarted"] = func() {
			s.stop()
			s.configure("usb:0403:6001")
			s.start(online...)
		}
	},

	"port-held": func(s *scene) {
		s.withOffice()
		letGo := s.heldBy("kassa", "ttyUSB0", on(s.terminal("success")))
		s.configure("serial:/dev/ttyUSB0")
		s.start(online...)
		s.can["the till lets go of the port"] = func() {
			s.screen.shows("kassa")
			letGo()
		}
	},

	"end-of-day-due": func(s *scene) {
		s.withOffice()
		s.plug("ttyUSB0", on(s.terminal("status-f0")))
		s.configure("serial:/dev/ttyUSB0")
		s.can["the service is started"] = func() { s.start(online...) }
		s.can["the service is stopped"] = s.stop
	},
	"locked": func(s *scene) {
		s.withOffice()
		pt := s.terminal("locked")
		s.plug("ttyUSB0", on(pt))
		s.configure("serial:/dev/ttyUSB0")
		s.can["the provider has unlocked it"] = func() { s.plays(pt, "success") }
	},

	"no-paper": func(s *scene) {
		s.withOffice()
		pt := s.terminal("success")
		s.plays(pt, "success", "no-paper")
		s.plug("ttyUSB0", on(pt))
		s.configure("serial:/dev/ttyUSB0")
		s.start(online...)
		s.can["paper is put in"] = func() { s.plays(pt, "success") }
	},

	"menu-open": func(s *scene) {
		s.withOffice()
		pt := s.terminal("success")
		s.plays(pt, "success", "menu")
		s.plug("ttyUSB0", on(pt))
		s.configure("serial:/dev/ttyUSB0")
		s.start(online...)
		s.can["the menu is closed"] = func() {
			s.screen.shows("busy")
			s.plays(pt, "success")
		}
	},

	"broker-unreachable": func(s *scene) {
		s.plug("ttyUSB0", on(s.terminal("success")))
		address, end := openBlackHole(s.t)
		port := strings.TrimPrefix(address, "127.0.0.1:")
		s.broker = "tls://" + storeBroker + ":" + port
		s.isCalled(storeBroker+":"+port, storeBroker+":8883")
		s.isCalled("127.0.0.1", "203.0.113.80")
		s.isCalled("port "+port, "port 8883")
		s.configure("serial:/dev/ttyUSB0")
		s.start(offline)
		s.can["the firewall lets it pass"] = func() {
			end()
			s.withOffice(func(o *server.Options) { o.MQTT.Port, _ = strconv.Atoi(port) })
			s.stop()
			s.configure("serial:/dev/ttyUSB0")
			s.start(online...)
		}
	},
	"wrong-clock": func(s *scene) {
		o := s.withOffice()
		o.certify(time.Now().Add(40 * 24 * time.Hour))
		s.plug("ttyUSB0", on(s.terminal("success")))
		s.configure("serial:/dev/ttyUSB0")
		s.start(offline)
		s.can["the clock is set"] = func() {
			o.certify(time.Now().Add(-time.Hour))
			s.stop()
			s.start(online...)
		}
	},

	"broker-refuses": func(s *scene) {
		s.withOffice()
		s.write("password", "other")
		s.plug("ttyUSB0", on(s.terminal("success")))
		s.configure("serial:/dev/ttyUSB0")
		s.start(offline)
		s.can["the right password is written"] = func() {
			s.write("password", "right")
			s.stop()
			s.start(online...)
		}
	},

	"two-agents": func(s *scene) {
		s.withOffice()
		other := newStorePC(s.t)
		other.broker, other.more = s.broker, s.more
		for _, name := range []string{"ca.pem", "password"} {
			content, err := os.ReadFile(filepath.Join(s.dir, name))
			if err != nil {
				s.t.Fatal(err)
			}
			other.write(name, string(content))
		}
		s.plug("ttyUSB0", on(s.terminal("success")))
		s.configure("serial:/dev/ttyUSB0")
		other.configure("serial:/dev/ttyUSB0")
		s.start(online...)
		s.stop()
		other.start(online...)
		s.can["the other service is stopped"] = other.stop
		s.can["the service is started"] = func() { s.start(online...) }
	},

	"power-cut": func(s *scene) {
		s.withOffice()
		pt := s.terminal("success")
		s.plays(pt, "success", "jam") // which holds the closing until it is cleared
		s.plug("ttyUSB0", on(pt))
		s.configure("serial:/dev/ttyUSB0")
		s.start(online...)
		s.can["the PC loses its power"] = func() {
			s.screen.shows("Papierstau")
			s.kill()
		}
		s.can["the printer is cleared, and the PC is on again"] = func() {
			s.plays(pt, "success")
			s.start(online...)
			s.await("history --json", `"COMPLETED"`, `"purchases_amount":123450`)
			if closed := len(pt.Did(zvttest.EndOfDay)); closed != 1 {
				s.t.Errorf("%d ends of day", closed)
			}
		}
	},

	"disk-full": func(s *scene) {
		dir := filepath.Join(s.root, s.stateDir)
		mountAt(s.t, dir, 0, "size=1g")
		s.withOffice()
		s.plug("ttyUSB0", on(s.terminal("success")))
		s.configure("serial:/dev/ttyUSB0")
		s.start(online...)
		s.resize(dir, "64k")
		s.can["the disk has room again"] = func() { s.resize(dir, "1g") }
	},
}

// answering says these bytes whenever it hears something.
func answering(b string) func(context.Context, *os.File) {
	return func(_ context.Context, f *os.File) {
		for in := make([]byte, 256); ; {
			if _, err := f.Read(in); err != nil {
				return
			}
			f.WriteString(b)
		}
	}
}

// heldBy is a port that a program holds until it lets go, and then somebody's that
// serves it.
func (s *scene) heldBy(program, name string, serve func(context.Context, *os.File)) (letGo func()) {
	s.t.Helper()
	if os.Geteuid() != 0 {
		need(s.t, "root, to see who holds a port", os.ErrPermission) // from a namespace of its own nobody else sees it
	}
	master, slave, err := pty.Open()
	need(s.t, "pseudo-terminals (/dev/ptmx)", err)
	s.t.Cleanup(func() { master.Close() })
	s.leads(name, slave.Name())
	slave.Close() // or we were the first to be seen to hold it
	dir, err := os.MkdirTemp(filepath.Dir(os.Args[0]), "till")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { os.RemoveAll(dir) })
	till := filepath.Join(dir, program)
	if err := os.Link(os.Args[0], till); err != nil { // the name of its file is what is shown
		s.t.Fatal(err)
	}
	_, end := holdAsTill(s.t, till, slave.Name())
	return func() {
		free, _ := s.plugIn(serve) // a pseudo-terminal that was held stays so, unlike a port
		s.leads(name, free)
		end()
	}
}

// resize gives a mounted file system another size.
func (s *scene) resize(dir, size string) {
	s.t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size="+size); err != nil {
		s.t.Fatal(err)
	}
}
