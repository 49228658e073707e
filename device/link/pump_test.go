package link

import (
	"errors"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// blockingPort is a port without deadlines, as the library for Windows has
// them: calls block until the other side (a pipe) acts, or until Close.
type blockingPort struct {
	*io.PipeReader // what arrives
	out            *io.PipeWriter
	closeErr       error
}

func (p *blockingPort) Write(b []byte) (int, error) { return p.out.Write(b) }

func (p *blockingPort) Close() error {
	aborted := errors.New("operation aborted")
	p.PipeReader.CloseWithError(aborted)
	p.out.CloseWithError(aborted)
	return p.closeErr
}

// device is the other side of a blockingPort.
type device struct {
	io.Reader      // what the pump wrote
	*io.PipeWriter // what it will read
}

func newTestPump() (*pump, device) {
	in, toIn := io.Pipe()
	fromOut, out := io.Pipe()
	return newPump("COM3", &blockingPort{PipeReader: in, out: out}), device{fromOut, toIn}
}

func TestPump(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, peer := newTestPump()
		defer p.Close()
		testDeadlines(t, p)

		if err := p.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := p.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 5*time.Second {
			t.Fatalf("read ended after %v: %v", time.Since(start), err)
		}

		go peer.Write([]byte("abc"))
		synctest.Wait()
		if err := p.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := p.Read(nil); n != 0 || err != nil {
			t.Fatalf("read into nothing: %d, %v", n, err)
		}
		b := make([]byte, 2)
		for _, want := range []string{"ab", "c"} { // what there is, not byte by byte
			if n, err := p.Read(b); err != nil || string(b[:n]) != want {
				t.Fatalf("read %q, %v, want %q", b[:n], err, want)
			}
		}

		go io.ReadFull(peer, make([]byte, 5))
		if n, err := p.Write([]byte("hello")); n != 5 || err != nil {
			t.Fatalf("wrote %d of 5 bytes: %v", n, err)
		}
	})
}

func TestPumpLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, peer := newTestPump()
		gone := errors.New("a device attached to the system is not functioning")
		go func() {
			peer.Write([]byte("last"))
			peer.CloseWithError(gone)
		}()
		synctest.Wait()
		got, err := io.ReadAll(p)
		if string(got) != "last" || !errors.Is(err, gone) {
			t.Fatalf("read %q, %v, want what came before the loss, then %v", got, err, gone)
		}
		says(t, err, nil, "read COM3: ")
		if _, err := p.Read(make([]byte, 1)); !errors.Is(err, gone) {
			t.Errorf("read once more: %v", err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestPumpCloseEndsWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := newTestPump()
		ended := make(chan error, 2)
		go func() {
			_, err := p.Read(make([]byte, 1))
			ended <- err
		}()
		go func() {
			_, err := p.Write([]byte("nobody reads"))
			ended <- err
		}()
		synctest.Wait()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-ended; !errors.Is(err, os.ErrClosed) {
				t.Errorf("ended with %v, want os.ErrClosed", err)
			}
		}
		if err := p.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
		_, readErr := p.Read(make([]byte, 1))
		_, writeErr := p.Write([]byte("x"))
		if !errors.Is(readErr, os.ErrClosed) || !errors.Is(writeErr, os.ErrClosed) {
			t.Errorf("after close: read %v, write %v", readErr, writeErr)
		}
	})
}

// A write that is stuck ends in time, and takes the port with it.
func TestPumpWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := newTestPump()
		start := time.Now()
		p.SetWriteDeadline(start.Add(time.Hour))
		time.AfterFunc(time.Second, func() { p.SetWriteDeadline(start.Add(3 * time.Second)) })
		_, err := p.Write([]byte("nobody reads"))
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Fatalf("write ended after %v: %v", time.Since(start), err)
		}
		if _, err := p.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
			t.Errorf("read after it: %v, want os.ErrClosed", err)
		}
	})
}

func TestPumpCloseError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, _ := io.Pipe()
		_, out := io.Pipe()
		stuck := errors.New("the handle is invalid")
		p := newPump("COM3", &blockingPort{PipeReader: in, out: out, closeErr: stuck})
		for range 2 {
			if err := p.Close(); !errors.Is(err, stuck) {
				t.Errorf("close: %v, want %v", err, stuck)
			}
		}
	})
}

// stuckPort is a port whose driver does not end a call when the port is closed.
type stuckPort struct {
	release chan struct{} // closed: the calls end
	writes  chan []byte   // what the driver was given; buffered
	cut     int           // how much less than that it says it took
}

func (p *stuckPort) Read([]byte) (int, error) {
	<-p.release
	return 0, io.EOF
}

func (p *stuckPort) Write(b []byte) (int, error) {
	p.writes <- b
	<-p.release
	return len(b) - p.cut, nil
}

func (p *stuckPort) Close() error { return nil }

func TestPumpStuckDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		port := &stuckPort{release: make(chan struct{}), writes: make(chan []byte, 9)}
		p := newPump("COM3", port)
		b := []byte("first")
		ended := make(chan error, 3)
		go func() {
			_, err := p.Read(make([]byte, 1))
			ended <- err
		}()
		for range 2 {
			go func() {
				_, err := p.Write(b)
				ended <- err
			}()
		}
		synctest.Wait()
		if len(port.writes) != 1 {
			t.Fatalf("the driver has %d writes at a time", len(port.writes))
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		for range 3 {
			if err := <-ended; !errors.Is(err, os.ErrClosed) {
				t.Errorf("a call ended with %v, want os.ErrClosed", err)
			}
		}
		copy(b, "other") // the buffer is ours again
		if got := string(<-port.writes); got != "first" {
			t.Errorf("the driver writes %q now", got)
		}
		close(port.release)
	})
}

func TestPumpShortWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		port := &stuckPort{release: make(chan struct{}), writes: make(chan []byte, 9), cut: 1}
		close(port.release)
		p := newPump("COM3", port)
		defer p.Close()
		if n, err := p.Write([]byte("abc")); n != 2 || !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("wrote %d bytes, %v", n, err)
		}
	})
}

// The receiving goroutine ends although nobody takes what it has; synctest
// fails if not.
func TestPumpCloseFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, peer := newTestPump()
		go peer.Write(make([]byte, 2*cap(p.arrived)))
		synctest.Wait()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}
