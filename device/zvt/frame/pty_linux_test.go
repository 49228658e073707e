package frame

import (
	"context"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// A pty is what the simulator serves: an *os.File with deadlines.
func TestPTY(t *testing.T) {
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := slave.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var ioctl error
	if err := raw.Control(func(fd uintptr) { ioctl = makeRaw(int(fd)) }); err != nil || ioctl != nil {
		t.Fatal(err, ioctl)
	}
	ecr, pt := Serial(slave, SerialOptions{}), Serial(master, SerialOptions{})
	defer ecr.Close()
	defer pt.Close()

	vs := vectors(t)
	wait := later(func() {
		for _, v := range vs {
			wantAPDU(t, pt, v.apdu)
			wantErr(t, pt.WriteAPDU(t.Context(), v.apdu))
		}
	})
	for _, v := range vs {
		wantErr(t, ecr.WriteAPDU(t.Context(), v.apdu))
		wantAPDU(t, ecr, v.apdu)
	}
	wait()

	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err = ecr.ReadAPDU(ctx)
	wantErr(t, err, context.Canceled)
}

// makeRaw turns off all that a terminal line does to bytes, as cfmakeraw does.
func makeRaw(fd int) error {
	mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	mode.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	mode.Oflag &^= unix.OPOST
	mode.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	mode.Cflag = mode.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	return unix.IoctlSetTermios(fd, unix.TCSETS, mode)
}
