package link

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// The test binary is also the other program: it opens the port childPort, says
// how that went, and holds it until its input ends.
const (
	childPort = "LINK_TEST_PORT"
	opened    = "opened"
)

func TestMain(m *testing.M) {
	name := os.Getenv(childPort)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := hold(name); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func hold(name string) error {
	a, err := Parse("serial:" + name)
	if err != nil {
		return err
	}
	s, err := Open(context.Background(), a, line)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Println(opened)
	bufio.NewReader(os.Stdin).ReadByte()
	return nil
}

// otherProgram starts the other program and returns what it said.
func otherProgram(t *testing.T, port string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childPort+"="+port, "GORACE=atexit_sleep_ms=0")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait() // killed, or failed to open, where the test wants that
	})
	said, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(said)
}

var line = Options{Baud: 9600, StopBits: 2}

// need skips a test that lacks a component, or fails it where all must run.
func need(t *testing.T, component string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("TERMINALOPS_TEST_ALL") == "1" {
		t.Fatalf("needs %s: %v", component, err)
	}
	t.Skipf("needs %s: %v", component, err)
}

// newPTY returns the terminal's end of a pseudo-terminal, and the port's name.
func newPTY(t *testing.T) (*os.File, string) {
	t.Helper()
	master, slave, err := pty.Open()
	need(t, "pseudo-terminals (/dev/ptmx)", err)
	t.Cleanup(func() { master.Close() })
	if err := slave.Close(); err != nil {
		t.Fatal(err)
	}
	return master, slave.Name()
}

func mustOpen(t *testing.T, port string, o Options) Stream {
	t.Helper()
	s, err := Open(t.Context(), must(t, "serial:"+port), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// closeIdle closes a port that has nothing left to send, or is gone: Close has
// nothing to wait for.
func closeIdle(t *testing.T, s Stream) error {
	t.Helper()
	if !s.(*serialPort).sent() {
		t.Error("close would wait")
	}
	return s.Close()
}

func TestSerial(t *testing.T) {
	terminal, port := newPTY(t)
	s := mustOpen(t, port, line)
	testDeadlines(t, s)
	exchange(t, s, terminal)
	if err := closeIdle(t, s); err != nil {
		t.Error(err)
	}
	if err := closeIdle(t, s); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
}

func TestSerialSettings(t *testing.T) {
	for _, test := range []struct {
		o    Options
		rate uint32 // the constant in c_cflag
	}{
		{Options{9600, 2}, unix.B9600},
		{Options{9600, 1}, unix.B9600},
		{Options{115200, 1}, unix.B115200},
		{Options{12345, 2}, unix.BOTHER},
		{Options{250000, 1}, unix.BOTHER},
	} {
		t.Run(fmt.Sprint(test.o), func(t *testing.T) {
			terminal, port := newPTY(t)
			mustOpen(t, port, test.o)
			line, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS2)
			if err != nil {
				t.Fatal(err)
			}
			if line.Cflag&unix.CBAUD != test.rate || line.Ospeed != uint32(test.o.Baud) || line.Ispeed != uint32(test.o.Baud) {
				t.Errorf("rate %#x, out %d, in %d baud", line.Cflag&unix.CBAUD, line.Ospeed, line.Ispeed)
			}
			if two := line.Cflag&unix.CSTOPB != 0; two != (test.o.StopBits == 2) {
				t.Errorf("two stop bits: %v", two)
			}
			if line.Cflag&(unix.CSIZE|unix.PARENB|unix.CRTSCTS|unix.CLOCAL) != unix.CS8|unix.CLOCAL {
				t.Errorf("c_cflag %#x is not 8N without flow control", line.Cflag)
			}
		})
	}
}

// What the driver made of the settings is looked at.
func TestSerialSettingsRefused(t *testing.T) {
	terminal, port := newPTY(t)
	mustOpen(t, port, line)
	err := checkLine(int(terminal.Fd()), Options{Baud: 9600, StopBits: 1})
	says(t, err, nil, "cannot do 9600 baud 8N1", "2 stop bits")
	err = checkLine(int(terminal.Fd()), Options{Baud: 10000, StopBits: 2})
	says(t, err, nil, "cannot do 10000 baud 8N2", "made it 9600 baud")
	if err := checkLine(int(terminal.Fd()), Options{Baud: 9700, StopBits: 2}); err != nil {
		t.Errorf("a rate rounded by 1 %%: %v", err)
	}
}

func TestSerialIsExclusive(t *testing.T) {
	_, port := newPTY(t)
	s := mustOpen(t, port, line)
	self := fmt.Sprintf("%s (pid %d)", filepath.Base(os.Args[0]), os.Getpid())

	second, err := Open(t.Context(), must(t, "serial:"+port), line)
	if second != nil {
		t.Error("a stream beside the error")
	}
	says(t, err, ErrBusy, "open serial:"+port+": ", "held by "+self)
	var busy *BusyError
	if !errors.As(err, &busy) || busy.Port != port || busy.Holder != self {
		t.Errorf("%#v", busy)
	}
	if _, said := otherProgram(t, port); !strings.Contains(said, "held by "+self) {
		t.Errorf("the other program could open it too: %s", said)
	}
	s.Close()
	if _, said := otherProgram(t, port); said != opened {
		t.Errorf("after close: %s", said)
	}
}

func TestSerialHeldByOtherProgram(t *testing.T) {
	_, port := newPTY(t)
	other, said := otherProgram(t, port)
	if said != opened {
		t.Fatal(said)
	}
	_, err := Open(t.Context(), must(t, "serial:"+port), line)
	says(t, err, ErrBusy, fmt.Sprintf("(pid %d)", other.Process.Pid))
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait() // says that it was killed
	mustOpen(t, port, line)
}

// A till need not lock, but takes the port exclusively; this binds root too.
// A program of another user that has said so in a lock file, one that has ended,
// and files that say nothing.
func TestLockFile(t *testing.T) {
	dir := t.TempDir()
	other := exec.Command("sleep", "600")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { other.Process.Kill(); other.Wait() }()
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ text, want string }{
		"lives":     {fmt.Sprintf("%10d\n", other.Process.Pid), fmt.Sprintf("sleep (pid %d)", other.Process.Pid)},
		"has ended": {fmt.Sprintf("%10d\n", ended.Process.Pid), ""},
		"ourselves": {fmt.Sprintf("%10d\n", os.Getpid()), ""},
		"nonsense":  {"minicom", ""},
		"empty":     {"", ""},
		"all":       {"-1", ""},
	} {
		if err := os.WriteFile(filepath.Join(dir, "LCK..ttyACM0"), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		have := lockFileHolder(dir, "/dev/ttyACM0")
		if tt.want != "" && !strings.HasSuffix(have, fmt.Sprintf("(pid %d)", other.Process.Pid)) || tt.want == "" && have != "" {
			t.Errorf("%s: %q, want %q", name, have, tt.want)
		}
	}
	if have := lockFileHolder(dir, "/dev/ttyACM1"); have != "" {
		t.Errorf("no file: %q", have)
	}
}

func TestSerialHeldExclusively(t *testing.T) {
	_, port := newPTY(t)
	till, err := os.OpenFile(port, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer till.Close()
	if err := unix.IoctlSetInt(int(till.Fd()), unix.TIOCEXCL, 0); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), must(t, "serial:"+port), line)
	says(t, err, ErrBusy, fmt.Sprintf("(pid %d)", os.Getpid()))
}

func TestSerialDropsOldBytes(t *testing.T) {
	terminal, port := newPTY(t)
	before, err := os.OpenFile(port, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	if _, err := terminal.WriteString("old\n"); err != nil {
		t.Fatal(err)
	}
	arrived := []unix.PollFd{{Fd: int32(before.Fd()), Events: unix.POLLIN}}
	if n, err := unix.Poll(arrived, 10_000); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	s := mustOpen(t, port, line)
	send(t, terminal, s, []byte("new"))
}

func TestSerialWriteDeadline(t *testing.T) {
	_, port := newPTY(t)
	s := mustOpen(t, port, line)
	if err := s.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Write(make([]byte, 1<<20)); n == 1<<20 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("wrote %d bytes to a terminal that takes nothing: %v", n, err)
	}
}

func TestSerialCloseEndsWaits(t *testing.T) {
	_, port := newPTY(t)
	s := mustOpen(t, port, line)
	ended := make(chan error)
	go func() {
		_, err := s.Read(make([]byte, 1))
		ended <- err
	}()
	go func() {
		_, err := s.Write(make([]byte, 1<<20))
		ended <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, os.ErrClosed) {
			t.Errorf("ended with %v, want os.ErrClosed", err)
		}
	}
}

// The terminal is unplugged in the middle of a read, and comes back as another
// device behind the same name.
func TestSerialUnplugged(t *testing.T) {
	name := filepath.Join(t.TempDir(), "terminal")
	plugIn := func() *os.File {
		terminal, port := newPTY(t)
		if err := errors.Join(os.RemoveAll(name), os.Symlink(port, name)); err != nil {
			t.Fatal(err)
		}
		return terminal
	}
	terminal := plugIn()
	s := mustOpen(t, name, line)
	exchange(t, s, terminal)
	if err := s.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := s.Read(make([]byte, 1))
		ended <- err
	}()
	terminal.Close()
	if err := <-ended; err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	_, err := s.Write([]byte("x"))
	says(t, err, syscall.EIO, "the port is gone")
	// As long as it is open here, nobody else's port gets its name.
	_, err = Open(t.Context(), must(t, "serial:"+name), line)
	says(t, err, os.ErrNotExist, "no such port", "plugged in")
	if err := closeIdle(t, s); err != nil {
		t.Error(err)
	}

	terminal = plugIn()
	exchange(t, mustOpen(t, name, line), terminal)
}

func TestSerialBeyond1024Descriptors(t *testing.T) {
	terminal, port := newPTY(t)
	for range 1100 {
		f, err := os.Open(os.DevNull)
		need(t, "1100 file descriptors (ulimit -n)", err)
		defer f.Close()
	}
	s := mustOpen(t, port, line)
	err := s.(*serialPort).control(func(fd int) error {
		if fd <= 1024 {
			return fmt.Errorf("descriptor %d is too small for this test", fd)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	testDeadlines(t, s)
	exchange(t, s, terminal)
}

func TestSerialIsNotInherited(t *testing.T) {
	_, port := newPTY(t)
	mustOpen(t, port, line)
	_, another := newPTY(t)
	child, said := otherProgram(t, another)
	if said != opened {
		t.Fatal(said)
	}
	descriptors, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", child.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, fd := range descriptors {
		target, err := os.Readlink(fd)
		if err != nil {
			t.Fatal(err)
		}
		seen[target] = true
	}
	if seen[port] || !seen[another] {
		t.Errorf("the child has %v, want %s and not %s", seen, another, port)
	}
}

func TestSerialNotAPort(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, t.TempDir(), "/dev/zero"} {
		_, err := Open(t.Context(), must(t, "serial:"+name), line)
		says(t, err, nil, "open serial:"+name, "is not a serial port")
	}
	_, err := Open(t.Context(), must(t, "serial:COM3"), line)
	says(t, err, os.ErrNotExist, "no such port")
}

func TestSerialPermission(t *testing.T) {
	_, port := newPTY(t)
	err := explainOpen(port, &fs.PathError{Op: "open", Path: port, Err: syscall.EACCES})
	says(t, err, os.ErrPermission, "permission denied", "to the group "+group(port)+", which "+port+" belongs to")
}

func TestWaitUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if waitUntil(func() bool { return false }, time.Second) || time.Since(start) != time.Second {
			t.Errorf("never: took %v, want false after 1s", time.Since(start))
		}
		start = time.Now()
		after := func() bool { return time.Since(start) >= 100*time.Millisecond }
		if !waitUntil(after, time.Second) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("after 100 ms: took %v", time.Since(start))
		}
	})
}

// A program that does not lock is kept out by TIOCEXCL, on all ports but a pty.
func TestClaimIsExclusive(t *testing.T) {
	for _, pty := range []bool{true, false} {
		_, port := newPTY(t)
		f, err := os.OpenFile(port, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fd := int(f.Fd())
		if err := claim(fd, pty); err != nil {
			t.Fatal(err)
		}
		exclusive, err := unix.IoctlGetInt(fd, unix.TIOCGEXCL)
		if err != nil || (exclusive != 0) == pty {
			t.Errorf("pty %v: TIOCGEXCL %d, %v", pty, exclusive, err)
		}
	}
}
