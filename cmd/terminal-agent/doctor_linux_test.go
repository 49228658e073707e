package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"terminalops/agent"
	"terminalops/device/zvt/zvttest"
	"terminalops/transport/transporttest/brokers"
)

// need skips a test that lacks something, or fails it where all must run.
func need(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("TERMINALOPS_TEST_ALL") == "1" {
		t.Fatalf("needs %s: %v", what, err)
	}
	t.Skipf("needs %s: %v", what, err)
}

// withPTY has somebody serve the other end of a serial port.
func (l *lab) withPTY(serve func(ctx context.Context, master *os.File)) *lab {
	l.t.Helper()
	name, _ := l.plugIn(serve)
	l.link = "serial:" + name
	return l
}

// plugIn is a serial port with somebody at its other end, until the cable is
// pulled.
func (l *lab) plugIn(serve func(ctx context.Context, master *os.File)) (name string, pull func()) {
	l.t.Helper()
	master, slave, err := pty.Open()
	need(l.t, "pseudo-terminals (/dev/ptmx)", err)
	conn, err := master.SyscallConn()
	if err != nil {
		l.t.Fatal(err)
	}
	// Package pty has asked for the descriptor, which makes it blocking: Close
	// would not end a Read.
	if err := conn.Control(func(fd uintptr) { err = unix.SetNonblock(int(fd), true) }); err != nil {
		l.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(l.t.Context())
	var serving sync.WaitGroup
	serving.Go(func() { serve(ctx, master) })
	pull = sync.OnceFunc(func() {
		stop()
		master.Close()
		serving.Wait()
		slave.Close() // until now, or the other end sees a hang-up whenever a port is closed
	})
	l.t.Cleanup(pull)
	return slave.Name(), pull
}

// playing serves a scenario of zvttest on a line.
func (l *lab) playing(scenario string) func(context.Context, *os.File) {
	return l.playingAt(scenario, 0)
}

// playingAt is playing at a speed of the terminal's own; 0: whatever the port has.
func (l *lab) playingAt(scenario string, baud int) func(context.Context, *os.File) {
	pt, err := zvttest.New(zvttest.Options{Scenario: scenario, Fast: true})
	if err != nil {
		l.t.Fatal(err)
	}
	return func(ctx context.Context, master *os.File) {
		pt.ServeSerial(ctx, &wire{File: master, baud: baud})
		if acted := pt.Log(); len(acted) > 0 {
			l.t.Errorf("the doctor made the terminal act: %v", acted)
		}
	}
}

// wire is a serial line between a port, which has the speed of its settings, and
// a terminal with a speed of its own: where they differ, each reads the other's
// levels at its own times.
type wire struct {
	*os.File
	baud int
}

func (w *wire) Read(b []byte) (int, error) {
	for {
		n, err := w.File.Read(b)
		heard := w.sampled(b[:n], w.port(), w.baud)
		if len(heard) > 0 || err != nil {
			return copy(b, heard), err
		}
	}
}

func (w *wire) Write(b []byte) (int, error) {
	if _, err := w.File.Write(w.sampled(b, w.baud, w.port())); err != nil {
		return 0, err
	}
	return len(b), nil
}

// port is the speed that the other side has set.
func (w *wire) port() int {
	conn, err := w.SyscallConn()
	if err != nil {
		return 0
	}
	speed := 0
	conn.Control(func(fd uintptr) {
		if t, err := unix.IoctlGetTermios(int(fd), unix.TCGETS2); err == nil {
			speed = int(t.Ospeed)
		}
	})
	return speed
}

// sampled is what a receiver hears of bytes that are sent at another speed: the
// sender's levels (start bit, eight bits from the lowest on, two stop bits), seen
// in the middle of the receiver's bits.
func (w *wire) sampled(b []byte, sender, receiver int) []byte {
	if sender == receiver || sender == 0 || receiver == 0 {
		return b
	}
	var levels []bool // one a bit of the sender
	for _, c := range b {
		levels = append(levels, false)
		for bit := range 8 {
			levels = append(levels, c>>bit&1 == 1)
		}
		levels = append(levels, true, true)
	}
	ratio := float64(sender) / float64(receiver) // bits of the sender in one of the receiver
	at := func(time float64) bool { i := int(time); return i >= len(levels) || levels[i] }
	var heard []byte
	for now := 0.0; now < float64(len(levels)); {
		if at(now) { // idle
			now = float64(int(now) + 1)
			continue
		}
		var c byte
		for bit := range 8 {
			if at(now + ratio*(float64(bit)+1.5)) {
				c |= 1 << bit
			}
		}
		heard = append(heard, c)
		now += ratio * 9.5
		for now < float64(len(levels)) && !at(now) { // a break lasts
			now++
		}
	}
	return heard
}

// In a store with a serial terminal where everything is right, nothing is wrong.
func TestDoctorSerial(t *testing.T) {
	t.Parallel()
	l := newLab(t).withBroker().withCloud(0)
	l.withPTY(l.playing("success"))
	l.wants(exitOK, verdictOK, diagnosis{"terminal", "ready, ZVT 2.14.15", ""})
}

// A terminal that has another speed than the configuration is found at its own.
func TestDoctorWrongSpeed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ configured, own int }{{9600, 115200}, {115200, 9600}, {9600, 19200}} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			t.Parallel()
			l := newLab(t).withBroker().withCloud(0)
			l.terminal = fmt.Sprintf("baud = %d\n", tt.configured)
			l.withPTY(l.playingAt("success", tt.own))
			l.wants(exitFailed, verdictFailed, diagnosis{"terminal", fmt.Sprintf("answers at %d baud, not at the configured %d", tt.own, tt.configured), fmt.Sprintf("write baud = %d", tt.own)})
		})
	}
}

// Whoever else is on a line is named.
func TestDoctorSomethingElseOnTheLine(t *testing.T) {
	t.Parallel()
	broker := newLab(t).withBroker().withCloud(0).broker
	// answers says these bytes whenever it hears something.
	answers := func(b string) func(context.Context, *os.File) {
		return func(_ context.Context, f *os.File) {
			for in := make([]byte, 256); ; {
				n, err := f.Read(in)
				if err != nil {
					return
				}
				if b == "echo" {
					f.Write(in[:n])
				} else {
					f.WriteString(b)
				}
			}
		}
	}
	kit := "\x10\x00\x02\x91{\"StatusResponse\":{\"TrmStatus\":0,\"TrmLng\":\"de\",\"ESigInd\":0}}\n\xd3\x79\x10\xff"
	for _, tt := range []struct{ name, peer, says, advice string }{
		{"nobody", "", "nobody answers on this port, at 9600 baud or any other", "is the terminal on"},
		{"a plug that joins both lines", "echo", "our own bytes come back", "is this the terminal's cable?"},
		{"KIT", kit, "PayTec KIT (JSON), not ZVT", "set the ECR interface (Kasse) to ZVT"},
		{"ECR17", "\x15\x03\x69", "ECR17, the Italian protocol, not ZVT", "set the ECR interface (Kasse) to ZVT"},
		{"ZVT as on TCP", "\x80\x00\x00", "without frames", "not to TCP/IP"},
		{"modem", "\r\nERROR\r\n", "a device answers in text", "another port"},
		{"noise", "\x00\xF8\x80\xFE\x00", "makes no sense at 9600 baud or any other", "look up the speed"},
		{"damaged", "\x10\x02\x80\x00\x00\x10\x03\xFF\xFF", "arrives damaged", "try another cable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.broker = broker
			l.withPTY(answers(tt.peer))
			l.wants(exitFailed, verdictFailed, diagnosis{"terminal", tt.says, tt.advice})
		})
	}
}

// The test's process is the till's, which holds a port.
const asTill = "DOCTOR_TEST_HOLDS"

func init() {
	port := os.Getenv(asTill)
	if port == "" {
		return
	}
	f, err := os.OpenFile(port, os.O_RDWR|unix.O_NOCTTY, 0)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = unix.IoctlSetInt(int(f.Fd()), unix.TIOCEXCL, 0)
	}
	fmt.Println(err)
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// A port that another program holds is its, and is named with it.
func TestDoctorBusyPort(t *testing.T) {
	t.Parallel()
	l := newLab(t).withBroker().withCloud(0)
	master, slave, err := pty.Open()
	need(t, "pseudo-terminals (/dev/ptmx)", err)
	defer master.Close()
	l.link = "serial:" + slave.Name()
	slave.Close() // or we were the first to be seen to hold it
	pid, _ := holdAsTill(t, os.Args[0], slave.Name())
	l.wants(exitFailed, verdictFailed, diagnosis{"port", "(pid " + strconv.Itoa(pid) + ")", "most likely the till"})
}

// holdAsTill has a program, which is the test's, hold a port until it lets go.
func holdAsTill(t *testing.T, program, port string) (pid int, letGo func()) {
	t.Helper()
	till := exec.Command(program)
	till.Env = append(os.Environ(), asTill+"="+port)
	input, _ := till.StdinPipe()
	output, _ := till.StdoutPipe()
	if err := till.Start(); err != nil {
		t.Fatal(err)
	}
	letGo = sync.OnceFunc(func() {
		input.Close()
		till.Wait()
	})
	t.Cleanup(letGo)
	if said, _ := bufio.NewReader(output).ReadString('\n'); said != "<nil>\n" {
		t.Fatalf("the till says %q", said)
	}
	return till.Process.Pid, letGo
}

func TestDoctorMissingPort(t *testing.T) {
	t.Parallel()
	for _, link := range []string{"serial:/dev/ttyNOTHERE0", "usb:ffff:ffff"} {
		t.Run(link, func(t *testing.T) {
			l := newLab(t).withBroker().withCloud(0)
			l.link = link
			l.wants(exitFailed, verdictFailed, diagnosis{"port", "is not there: " + link, "cable"})
		})
	}
	t.Run("no serial port", func(t *testing.T) {
		l := newLab(t).withBroker().withCloud(0)
		l.link = "serial:" + l.write("port", "")
		l.wants(exitFailed, verdictFailed, diagnosis{"port", "not a serial port", "is this the right port?"})
	})
}

// asNobody is `terminal-agent doctor` by a user without rights.
func (l *lab) asNobody() (int, report) {
	l.t.Helper()
	if os.Geteuid() != 0 {
		return l.examine()
	}
	config := l.config()
	cmd := processOfNobody(l.t, l.dir, "doctor", "--json", "--config", config)
	if err := os.Chmod(config, 0o755); err != nil {
		l.t.Fatal(err)
	}
	out, _ := cmd.Output() // the exit code is the outcome
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		l.t.Fatalf("%v: %s", err, out)
	}
	return cmd.ProcessState.ExitCode(), r
}

// processOfNobody is the agent in a process of a user without rights, where the
// tests have any. That user can see what is in dir, which is t.TempDir's.
func processOfNobody(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := agentProcess(args...)
	cmd.Dir = "/"
	if os.Geteuid() != 0 {
		return cmd
	}
	const nobody = 65534
	for _, d := range []string{dir, filepath.Dir(dir)} { // all of it that the tests have made
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(os.Args[0]) // it may be where others cannot look
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path = filepath.Join(dir, "terminal-agent")
	if err := os.WriteFile(cmd.Path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd
}

// A port that belongs to others is named with its group.
func TestDoctorPortNotPermitted(t *testing.T) {
	t.Parallel()
	l := newLab(t).withBroker().withCloud(0)
	l.withPTY(func(_ context.Context, f *os.File) { io.Copy(io.Discard, f) })
	if err := os.Chmod(strings.TrimPrefix(l.link, "serial:"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(l.stateDir, 0o777); err != nil {
		t.Fatal(err)
	}
	code, r := l.asNobody()
	l.expect(r, verdictFailed, diagnosis{"port", "permission denied: add the user that runs this program to the group", "sudo"})
	if code != exitFailed {
		t.Errorf("exit code %d", code)
	}
}

// A state directory that this user may not see keeps him from the terminal, too:
// the service might be at it.
func TestDoctorStateDirectoryNotPermitted(t *testing.T) {
	t.Parallel()
	l := newLab(t).withBroker().withCloud(0)
	l.withPeer(func(context.Context, net.Conn) { t.Error("the doctor connects to the terminal") })
	a, err := agent.New(agent.Options{StateDir: l.stateDir})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := os.Chmod(l.stateDir, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(l.stateDir, 0o700) })
	code, r := l.asNobody()
	l.t.Log(r.text())
	for _, f := range r.Findings {
		if f.Check == "state directory" && (f.Verdict != verdictFailed || !strings.Contains(f.Advice, "sudo")) || f.Check == "terminal" && f.Verdict != verdictSkipped {
			t.Errorf("%v", f)
		}
	}
	if code != exitFailed {
		t.Errorf("exit code %d", code)
	}
}

// mount mounts a tmpfs as the state directory.
func (l *lab) mount(flags uintptr, options string) { mountAt(l.t, l.stateDir, flags, options) }

func mountAt(t *testing.T, dir string, flags uintptr, options string) {
	t.Helper()
	need(t, "root, to mount a tmpfs", unix.Mount("tmpfs", dir, "tmpfs", flags, options))
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

func TestDoctorDisk(t *testing.T) {
	t.Parallel()
	t.Run("full", func(t *testing.T) {
		l := newLab(t).withBroker().withCloud(0).withTerminal("success")
		l.mount(0, "size=64k")
		l.wants(exitFailed, verdictFailed, diagnosis{"state directory", "no space left", "the disk is full"})
	})
	t.Run("nearly full", func(t *testing.T) {
		l := newLab(t).withBroker().withCloud(0).withTerminal("success")
		l.mount(0, "size=8m")
		l.wants(exitFailed, verdictFailed, diagnosis{"state directory", "MB are free", "the disk is full"})
	})
	t.Run("little space", func(t *testing.T) {
		l := newLab(t).withBroker().withCloud(0).withTerminal("success")
		l.mount(0, "size=100m")
		l.wants(exitOK, verdictWarning, diagnosis{"state directory", "MB are free", "delete"})
	})
	t.Run("read-only", func(t *testing.T) {
		l := newLab(t).withBroker().withCloud(0).withTerminal("success")
		l.mount(unix.MS_RDONLY, "")
		l.wants(exitFailed, verdictFailed, diagnosis{"state directory", "read-only file system", "the disk is read-only"})
	})
	t.Run("no directory", func(t *testing.T) {
		l := newLab(t).withBroker().withCloud(0).withTerminal("success")
		l.stateDir = l.write("file", "")
		code, r := l.examine()
		if code != exitFailed || !strings.Contains(unfolded(r.text()), "FAILED state directory "+l.stateDir+": is no directory") {
			t.Errorf("exit code %d: %s", code, r.text())
		}
	})
}

func TestDoctorJournal(t *testing.T) {
	t.Parallel()
	t.Run("newer", func(t *testing.T) {
		l := newLab(t).withBroker().withCloud(0).withTerminal("success")
		a, err := agent.New(agent.Options{StateDir: l.stateDir})
		if err != nil {
			t.Fatal(err)
		}
		a.Close()
		db, err := bolt.Open(filepath.Join(l.stateDir, "journal.db"), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte("99")) }); err != nil {
			t.Fatal(err)
		}
		db.Close()
		l.wants(exitFailed, verdictFailed, diagnosis{"journal", "a newer terminal-agent has written it", "install that version again"})
	})
	t.Run("damaged", func(t *testing.T) {
		l := newLab(t).withBroker().withCloud(0).withTerminal("success")
		if err := os.WriteFile(filepath.Join(l.stateDir, "journal.db"), []byte(strings.Repeat("x", 1<<16)), 0o600); err != nil {
			t.Fatal(err)
		}
		l.wants(exitOK, verdictWarning, diagnosis{"journal", "journal.db", "sets it aside"})
	})
}

// A host that swallows everything ends in time.
func TestDoctorBlackHole(t *testing.T) {
	t.Parallel()
	l := newLab(t).withTerminal("success")
	l.broker = "tcp://" + blackHole(t)
	l.wants(exitFailed, verdictFailed, diagnosis{"connection", "does not answer", "a firewall most likely"})
	l = newLab(t).withBroker().withCloud(0)
	l.link = "tcp:" + blackHole(t)
	l.wants(exitFailed, verdictFailed, diagnosis{"network", "does not answer", "is the terminal switched on"})
}

// blackHole is an address where nobody answers: the queue of a socket that
// accepts nobody is full.
func blackHole(t *testing.T) string {
	address, _ := openBlackHole(t)
	return address
}

func openBlackHole(t *testing.T) (address string, end func()) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { unix.Close(fd) })
	t.Cleanup(end)
	address = brokers.Address(t) // where a broker may be later
	at := netip.MustParseAddrPort(address)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return address, end
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue does not fill")
	return "", nil
}

// Rights are judged as the kernel does.
func TestPermits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	own := info.Sys().(*syscall.Stat_t)
	for _, tt := range []struct {
		mode   fs.FileMode
		uid    uint32
		groups []uint32
		need   fs.FileMode
		want   bool
	}{
		{0o600, own.Uid + 1, nil, 0o4, false},
		{0o604, own.Uid + 1, nil, 0o4, true},
		{0o640, own.Uid + 1, []uint32{own.Gid}, 0o4, true},
		{0o640, own.Uid + 1, []uint32{own.Gid + 1}, 0o4, false},
		{0o640, own.Uid + 1, []uint32{own.Gid}, 0o6, false},
		{0o064, own.Uid + 1, []uint32{own.Gid}, 0o6, true},
		{0o604, own.Uid + 1, []uint32{own.Gid}, 0o4, false}, // the group's, not the others'
		{0, 0, nil, 0o6, true},
	} {
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if have := permits(info, tt.uid, tt.groups, tt.need); have != tt.want {
			t.Errorf("mode %o, user %d in %v, needs %o: %v", tt.mode, tt.uid-own.Uid, tt.groups, tt.need, have)
		}
	}
}
