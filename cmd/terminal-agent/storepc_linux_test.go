package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sys/unix"

	"terminalops/device/zvt/zvttest"
	"terminalops/transport/mqtt"
	"terminalops/transport/transporttest/brokers"
)

// A storePC is a lab that is a computer of its own, as far as the agent can see:
// it has a file tree, in which the configuration and the state directory are
// where a package has them, and the ports are those that the test plugs in. Only
// the processor, the network and the processes are the machine's.
//
//	/etc/terminal-agent/terminal-agent.toml   and what it names
//	/var/lib/terminal-agent                   the state directory
//	/dev/ttyUSB0  -> pts/7                    the end of a pseudo-terminal
//	/sys/class/tty/ttyUSB0/device             what the kernel says of a port
//	/dev/pts, /proc                           the machine's
type storePC struct {
	*lab
	root    string
	program string            // the test's, by the agent's name
	service *exec.Cmd         // nil: stopped
	names   map[string]string // what is shown by another name
}

// inStorePC: the test's process is a program of the store's PC with this file
// tree. (The agent's: see asAgent.)
const inStorePC = "TERMINAL_AGENT_TEST_ROOT"

func init() {
	root := os.Getenv(inStorePC)
	if root == "" {
		return
	}
	if err := enter(root); err != nil {
		fmt.Fprintln(os.Stderr, "store's PC:", err)
		os.Exit(70)
	}
	version = "1.0.0"
}

// enter makes a file tree the process's whole one. The process has mounts of its
// own, which go with it.
func enter(root string) error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, dir := range []string{"/proc", "/dev/pts"} {
		if err := unix.Mount(dir, root+dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	if err := unix.Chroot(root); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return unix.Chdir("/root")
}

const (
	storeTerminal = "P11223351-T0013"
	storeBroker   = "broker.example.com"
	storeUser     = "store-0042"
	storeZone     = "Europe/Berlin"
)

// newStorePC is a PC with everything but a terminal.
func newStorePC(t *testing.T) *storePC {
	pc := &storePC{lab: newLab(t), root: t.TempDir(), names: map[string]string{}}
	pc.id, pc.dir, pc.stateDir = storeTerminal, pc.root+"/etc/terminal-agent", "/var/lib/terminal-agent"
	for _, dir := range []string{"etc/terminal-agent", "var/lib/terminal-agent", "dev/pts", "proc", "sys/class/tty", "root", "tmp"} {
		if err := os.MkdirAll(filepath.Join(pc.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	pc.program = filepath.Join(t.TempDir(), "terminal-agent")
	if err := os.Symlink(os.Args[0], pc.program); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"hosts":         "127.0.0.1 localhost " + storeBroker + "\n",
		"nsswitch.conf": "hosts: files\n",
		"passwd":        "root:x:0:0:root:/root:/bin/sh\n",
		"group":         "root:x:0:\ndialout:x:20:\n",
	} {
		pc.write("../"+name, content)
	}
	zones, err := os.ReadFile(goZones(t))
	if err != nil {
		t.Fatal(err)
	}
	pc.write("../../zones.zip", string(zones))
	if err := pc.command("version").Run(); err != nil {
		need(t, "root, or namespaces for every user, to make a store's PC of its own", err)
	}
	return pc
}

// goZones is the time zone data that comes with Go, whatever the machine has.
func goZones(t *testing.T) (path string) {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	need(t, "the command go, for its time zone data", err)
	return filepath.Join(strings.TrimSpace(string(root)), "lib", "time", "zoneinfo.zip")
}

// command is `terminal-agent` on the store's PC, as root, whom anna has become by
// sudo.
func (pc *storePC) command(args ...string) *exec.Cmd {
	cmd := exec.Command(pc.program)
	cmd.Env = []string{
		asAgent + "=" + strings.Join(args, "\n"), inStorePC + "=" + pc.root,
		"SUDO_USER=anna", "HOME=/root", "TZ=" + storeZone, "ZONEINFO=/zones.zip", "GOTRACEBACK=all",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	if uid, gid := os.Geteuid(), os.Getegid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	return cmd
}

// office is the other end of the way: a broker with TLS, which knows the store by
// its name and password, and a dispatcher behind it.
type office struct {
	pc          *storePC
	authority   *labAuthority
	certificate atomic.Pointer[tls.Certificate] // the broker's
}

// withOffice has the configuration lead to an office.
func (pc *storePC) withOffice(configure ...func(*server.Options)) *office {
	pc.t.Helper()
	o := &office{pc: pc, authority: pc.authority("ca")}
	o.certify(time.Now().Add(-time.Hour))
	address := brokers.StartNATS(pc.t, append(configure, func(s *server.Options) {
		s.Users = append(s.Users, &server.User{Username: "office", Password: "right"})
		s.MQTT.TLSConfig = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return o.certificate.Load(), nil }}
	}, storeMayEverything)...)
	_, port, _ := net.SplitHostPort(address)
	pc.withCloudAs(mqtt.Options{URLs: []string{"tls://localhost:" + port}, Prefix: "terminals", CAFile: o.authority.file, Username: "office", Password: "right"}, 0)
	pc.isCalled(storeBroker+":"+port, storeBroker+":8883")
	pc.isCalled("127.0.0.1", "203.0.113.80")
	pc.broker = "tls://" + storeBroker + ":" + port
	pc.more = ""
	pc.keys("ca_file", pc.inside(o.authority.file), "username", storeUser, "password_file", pc.inside(pc.write("password", "right")))
	return o
}

// certify gives the broker another certificate, for new connections.
func (o *office) certify(from time.Time) {
	cert, key := o.authority.issue("broker", from, from.AddDate(1, 0, 0), storeBroker, "localhost")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		o.pc.t.Fatal(err)
	}
	o.certificate.Store(&pair)
}

// storeMayEverything is for an office that has said nothing of the store.
func storeMayEverything(o *server.Options) {
	if !slices.ContainsFunc(o.Users, func(u *server.User) bool { return u.Username == storeUser }) {
		o.Users = append(o.Users, &server.User{Username: storeUser, Password: "right"})
	}
}

// inside is the path of a file in the PC's own tree.
func (pc *storePC) inside(path string) string { return strings.TrimPrefix(path, pc.root) }

// isCalled has what differs from run to run shown by another name.
func (pc *storePC) isCalled(is, called string) { pc.names[is] = called }

// shown is a text with these names.
func (pc *storePC) shown(text string) string {
	longestFirst := slices.SortedFunc(maps.Keys(pc.names), func(a, b string) int { return len(b) - len(a) }) // of pts/1 and pts/12
	var pairs []string
	for _, is := range longestFirst {
		pairs = append(pairs, is, pc.names[is])
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// plug plugs a terminal into the PC, as /dev/NAME, until pull.
func (pc *storePC) plug(name string, serve func(context.Context, *os.File)) (pull func()) {
	pc.t.Helper()
	pty, unplug := pc.plugIn(serve)
	kernel := filepath.Join(pc.root, "sys/class/tty", name)
	if err := os.MkdirAll(kernel+"/device", 0o755); err != nil {
		pc.t.Fatal(err)
	}
	device := pc.leads(name, pty)
	return func() {
		unplug()
		if err := errors.Join(os.Remove(device), os.RemoveAll(kernel)); err != nil {
			pc.t.Error(err)
		}
	}
}

// leads has /dev/NAME be this pseudo-terminal from now on, whatever it was before.
func (pc *storePC) leads(name, pty string) (device string) {
	pc.t.Helper()
	pc.isCalled(pty, "/dev/"+name)
	device = filepath.Join(pc.root, "dev", name)
	if err := errors.Join(os.Symlink(strings.TrimPrefix(pty, "/dev/"), device+".new"), os.Rename(device+".new", device)); err != nil {
		pc.t.Fatal(err)
	}
	return device
}

// isUSB has the kernel know a port as one of a USB device.
func (pc *storePC) isUSB(name, vendor, product, serial, text string) {
	pc.t.Helper()
	for file, content := range map[string]string{"idVendor": vendor, "idProduct": product, "serial": serial, "product": text} {
		pc.write("../../sys/class/tty/"+name+"/device/"+file, content+"\n")
	}
}

// plays is how a terminal behaves from now on.
func (pc *storePC) plays(pt *zvttest.Terminal, scenario string, troubles ...string) {
	pc.t.Helper()
	if err := pt.Play(scenario, troubles...); err != nil {
		pc.t.Fatal(err)
	}
}

// terminal is a terminal that works fast.
func (pc *storePC) terminal(scenario string) *zvttest.Terminal {
	pc.t.Helper()
	zone, err := time.LoadLocation(storeZone)
	if err != nil {
		pc.t.Fatal(err)
	}
	pt, err := zvttest.New(zvttest.Options{Scenario: scenario, Fast: true, Clock: func() time.Time { return time.Now().In(zone) }})
	if err != nil {
		pc.t.Fatal(err)
	}
	return pt
}

// on serves a terminal at a port.
func on(pt *zvttest.Terminal) func(context.Context, *os.File) { return onAt(pt, 0) }

// onAt is on at a speed of the terminal's own.
func onAt(pt *zvttest.Terminal, baud int) func(context.Context, *os.File) {
	return func(ctx context.Context, master *os.File) { pt.ServeSerial(ctx, &wire{File: master, baud: baud}) }
}

// configure writes the configuration, with a terminal at this link.
func (pc *storePC) configure(link string) {
	pc.t.Helper()
	pc.link = link
	if err := os.Rename(pc.config(), filepath.Join(pc.dir, "terminal-agent.toml")); err != nil {
		pc.t.Fatal(err)
	}
}

// start starts the service, and waits until its status tells all of this.
func (pc *storePC) start(says ...string) {
	pc.t.Helper()
	pc.service = pc.command("run", "--log-level", "debug") // which is shown if the test fails
	pc.service.Stdout, pc.service.Stderr = pc.t.Output(), pc.t.Output()
	if err := pc.service.Start(); err != nil {
		pc.t.Fatal(err)
	}
	pc.t.Cleanup(pc.stop)
	pc.await("status", says...)
}

// stop stops it.
func (pc *storePC) stop() {
	if pc.service != nil {
		pc.service.Process.Signal(os.Interrupt)
		pc.service.Wait()
		pc.service = nil
	}
}

// kill is a power failure, for the service.
func (pc *storePC) kill() {
	pc.service.Process.Kill()
	pc.service.Wait()
	pc.service = nil
}

// await asks until the answer has all of this in it.
func (pc *storePC) await(command string, says ...string) {
	pc.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		out, _ := pc.command(strings.Fields(command)...).CombinedOutput() // an error is an answer, too
		missing := slices.DeleteFunc(slices.Clone(says), func(s string) bool { return strings.Contains(string(out), s) })
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			pc.t.Fatalf("%s does not say %q:\n%s", command, missing, out)
		}
	}
}
