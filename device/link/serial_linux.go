package link

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// serialPort is a serial line. The file is non-blocking, so the runtime's
// poller gives it deadlines, and os opens it close-on-exec.
type serialPort struct {
	file *os.File
}

// openSerial opens a port in an order that disturbs nobody: a port that
// somebody is seen to hold is not even opened, for opening raises DTR and RTS;
// one that is opened is claimed before its settings are touched.
func openSerial(name string, o Options) (*serialPort, error) {
	device, err := filepath.EvalSymlinks(name) // /dev/serial/by-id/... and the like
	if err != nil {
		return nil, explainOpen(name, err)
	}
	pty, err := isPTY(device)
	if err != nil {
		return nil, explainOpen(device, err)
	}
	// The other end of a pty may well hold this one too, to see no hang-up.
	if h := holder(device); h != "" && !pty {
		return nil, &BusyError{Port: device, Holder: h}
	}
	// Without O_NONBLOCK the open of some lines waits for a carrier.
	file, err := os.OpenFile(device, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, explainOpen(device, err)
	}
	p := &serialPort{file: file}
	err = p.control(func(fd int) error { return prepare(fd, o, pty) })
	if err != nil {
		file.Close()
		return nil, explainOpen(device, err)
	}
	return p, nil
}

// isPTY reports whether device is the terminal end of a pseudo-terminal. Those
// have the major device numbers 136 to 143 (Linux, admin-guide/devices.txt).
func isPTY(device string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return false, unix.ENOTTY
	}
	return isPTYNumber(uint64(st.Rdev)), nil
}

func isPTYNumber(device uint64) bool {
	major := unix.Major(device)
	return 136 <= major && major <= 143
}

func prepare(fd int, o Options, pty bool) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	if err != nil {
		return err
	}
	if err := claim(fd, pty); err != nil {
		return err
	}
	if err := setLine(fd, *t, o); err != nil {
		return err
	}
	return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH)
}

// claim takes the port for this process alone, or returns EBUSY. The lock is
// for root and against ourselves, whom TIOCEXCL does not bind; TIOCEXCL is for
// programs that do not lock. A pty keeps TIOCEXCL after our death for as long
// as its other end lives, so there the lock has to do.
func claim(fd int, pty bool) error {
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return unix.EBUSY
		}
		return err
	}
	exclusive, err := unix.IoctlGetInt(fd, unix.TIOCGEXCL)
	if err != nil {
		return err
	}
	if exclusive != 0 {
		return unix.EBUSY
	}
	if pty {
		return nil
	}
	return unix.IoctlSetInt(fd, unix.TIOCEXCL, 0)
}

// setLine makes the line raw, 8 data bits, no parity, no flow control. What
// else t says stays, HUPCL for one: whether a close drops DTR.
//
// Standard rates are set by their constants, though BOTHER could set them all:
// stty and tills know only those.
func setLine(fd int, t unix.Termios, o Options) error {
	t.Iflag = unix.IGNBRK // a cable that is plugged in is not a byte
	t.Oflag = 0
	t.Lflag = 0
	t.Cflag &^= unix.CSIZE | unix.CSTOPB | unix.PARENB | unix.CMSPAR | unix.CRTSCTS | unix.CBAUD | unix.CIBAUD
	t.Cflag |= unix.CS8 | unix.CREAD | unix.CLOCAL
	if o.StopBits == 2 {
		t.Cflag |= unix.CSTOPB
	}
	if constant, ok := standardRates[o.Baud]; ok {
		t.Cflag |= constant
	} else {
		t.Cflag |= unix.BOTHER
	}
	t.Ispeed, t.Ospeed = uint32(o.Baud), uint32(o.Baud)
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS2, &t); err != nil {
		return fmt.Errorf("set %d baud 8N%d: %w", o.Baud, o.StopBits, err)
	}
	return checkLine(fd, o)
}

// standardRates are those of termios(3) that a terminal may use.
var standardRates = map[int]uint32{
	300: unix.B300, 600: unix.B600, 1200: unix.B1200, 2400: unix.B2400, 4800: unix.B4800,
	9600: unix.B9600, 19200: unix.B19200, 38400: unix.B38400, 57600: unix.B57600,
	115200: unix.B115200, 230400: unix.B230400, 460800: unix.B460800, 500000: unix.B500000,
	576000: unix.B576000, 921600: unix.B921600, 1000000: unix.B1000000, 1152000: unix.B1152000,
	1500000: unix.B1500000, 2000000: unix.B2000000, 2500000: unix.B2500000,
	3000000: unix.B3000000, 3500000: unix.B3500000, 4000000: unix.B4000000,
}

// checkLine looks whether the driver took the settings: one that cannot, says
// so only there. It may round the rate; 3 % is what a receiver bears.
func checkLine(fd int, o Options) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	if err != nil {
		return err
	}
	stopBits := 1
	if t.Cflag&unix.CSTOPB != 0 {
		stopBits = 2
	}
	deviation := int64(t.Ospeed) - int64(o.Baud)
	if max(deviation, -deviation)*100 > int64(o.Baud)*3 || stopBits != o.StopBits || t.Cflag&unix.CSIZE != unix.CS8 {
		return fmt.Errorf("the port cannot do %d baud 8N%d, its driver made it %d baud, %d stop bits", o.Baud, o.StopBits, t.Ospeed, stopBits)
	}
	return nil
}

// explainOpen puts the error of an open into words.
func explainOpen(device string, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err
	}
	switch errno {
	case unix.EBUSY:
		return &BusyError{Port: device, Holder: holder(device)}
	case unix.ENOENT, unix.ENXIO, unix.ENODEV:
		return absentPort()
	case unix.EACCES, unix.EPERM:
		return fmt.Errorf("permission denied: add the user that runs this program to the group %s, which %s belongs to (%w)", group(device), device, errno)
	case unix.ENOTTY, unix.EISDIR:
		return fmt.Errorf("%s is not a serial port (%w)", device, errno)
	default:
		return err
	}
}

// group names the group that owns a file: dialout, on most systems.
func group(file string) string {
	info, err := os.Stat(file)
	if err != nil {
		return "dialout"
	}
	id := strconv.FormatUint(uint64(info.Sys().(*syscall.Stat_t).Gid), 10)
	g, err := user.LookupGroupId(id)
	if err != nil {
		return id
	}
	return g.Name
}

// holder names a process that has device open, or says in a lock file that it
// does, with its id. Empty if there is none. Of a process of another user only
// root sees the descriptors; the lock file everybody does.
func holder(device string) string {
	var port unix.Stat_t
	if err := unix.Stat(device, &port); err != nil {
		return ""
	}
	descriptors, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is right, the only error there is
	for _, fd := range descriptors {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, "/dev/") && isSamePort(fd, port) {
			pid := strings.Split(fd, "/")[2]
			return fmt.Sprintf("%s (pid %s)", command(pid), pid)
		}
	}
	return lockFileHolder("/var/lock", device)
}

// isSamePort reports whether a descriptor is open on port. In a container the same
// port may have another name, and the same name may be another pty.
func isSamePort(fd string, port unix.Stat_t) bool {
	var st unix.Stat_t
	if err := unix.Stat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != port.Rdev {
		return false
	}
	return st.Dev == port.Dev || !isPTYNumber(uint64(st.Rdev))
}

// lockFileHolder names the process whose id stands in the lock file of device
// (Filesystem Hierarchy Standard 3.0, 5.9: LCK.. and the device's base name; ten
// characters with the id in decimal). One that a process left behind counts
// for nothing.
func lockFileHolder(dir, device string) string {
	text, err := os.ReadFile(filepath.Join(dir, "LCK.."+filepath.Base(device)))
	if err != nil {
		return ""
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 || pid == os.Getpid() {
		return ""
	}
	if err := unix.Kill(pid, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return "" // it has ended
	}
	return fmt.Sprintf("%s (pid %d)", command(strconv.Itoa(pid)), pid)
}

// command is the program of process pid. Its command line is not for logs, it
// may hold secrets.
func command(pid string) string {
	if program, err := os.Readlink("/proc/" + pid + "/exe"); err == nil {
		return filepath.Base(program)
	}
	if name, err := os.ReadFile("/proc/" + pid + "/comm"); err == nil { // of another user's, too
		return strings.TrimSpace(string(name))
	}
	return "another program"
}

func (p *serialPort) Read(b []byte) (int, error) {
	n, err := p.file.Read(b)
	return n, explainLoss(err)
}

func (p *serialPort) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	return n, explainLoss(err)
}

// explainLoss puts into words what a driver says of a device that has gone.
// io.EOF stays io.EOF.
func explainLoss(err error) error {
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("the port is gone; was the terminal unplugged? (%w)", err)
	}
	return err
}

func (p *serialPort) SetReadDeadline(t time.Time) error  { return p.file.SetReadDeadline(t) }
func (p *serialPort) SetWriteDeadline(t time.Time) error { return p.file.SetWriteDeadline(t) }

// sendTime is how long a Close lets the line send what was written.
const sendTime = time.Second

// Close closes the port once what was written has been sent, or cannot be: the
// last acknowledgement of a dialogue would be lost otherwise. Without the limit
// the kernel would wait for a device that takes nothing, for 30 s, and let
// nobody open the port in that time.
func (p *serialPort) Close() error {
	sent := waitUntil(p.sent, sendTime)
	// The errors of a port that is gone, or closed already, do not matter here.
	_ = p.control(func(fd int) error {
		if !sent {
			_ = unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCOFLUSH)
		}
		// Whoever else has the port open may open it again.
		return unix.IoctlSetInt(fd, unix.TIOCNXCL, 0)
	})
	return p.file.Close()
}

// sent reports whether the line has nothing left to send.
func (p *serialPort) sent() bool {
	var left int
	err := p.control(func(fd int) (err error) {
		left, err = unix.IoctlGetInt(fd, unix.TIOCOUTQ)
		return err
	})
	return err != nil || left == 0 // a port that is gone sends no more
}

// waitUntil asks done every 5 ms until it says yes, for limit at most.
func waitUntil(done func() bool, limit time.Duration) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if done() {
			return true
		}
	}
	return done()
}

// control runs do with the descriptor, which stays valid meanwhile.
func (p *serialPort) control(do func(fd int) error) error {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err
	}
	return failed
}
