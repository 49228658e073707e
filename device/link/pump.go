package link

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// pump gives deadlines to a port that has none: one whose Read and Write block
// until something happens, and end with an error when it is closed.
//
//	                 port.Read, byte by byte
//	port -----> receive (a goroutine) -----> arrived -----> Read
//	port <----- a goroutine for each Write <------------ Write
//
// Close does not wait for the goroutines: a driver may sit on a call for good,
// and takes only its own goroutine with it.
type pump struct {
	port io.ReadWriteCloser
	name string

	arrived       chan byte // closed by receive when lost is set
	lost          error
	readDeadline  deadline
	writeDeadline deadline

	writing   chan struct{} // holds a token while there is a Write: one at a time
	closed    chan struct{}
	closeOnce sync.Once
	closeErr  error
}

// newPump starts to read port, which belongs to the pump from now on.
func newPump(name string, port io.ReadWriteCloser) *pump {
	p := &pump{
		port:    port,
		name:    name,
		arrived: make(chan byte, 4096),

		readDeadline:  deadline{changed: make(chan struct{})},
		writeDeadline: deadline{changed: make(chan struct{})},
		writing:       make(chan struct{}, 1),
		closed:        make(chan struct{}),
	}
	go p.receive()
	return p
}

// receive ends when the port is lost or closed. It asks for single bytes: Wine
// does not return from a longer read before the buffer is full.
func (p *pump) receive() {
	defer close(p.arrived)
	var b [1]byte
	for {
		n, err := p.port.Read(b[:])
		if n == 1 {
			select {
			case p.arrived <- b[0]:
			case <-p.closed:
			}
		}
		if err != nil {
			p.lost = p.explain("read", err)
			return
		}
	}
}

// Read returns what has arrived, at least one byte, before it tells of a loss.
func (p *pump) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		if err := p.usable(&p.readDeadline); err != nil {
			return 0, p.explain("read", err)
		}
		passed, changed := p.readDeadline.watch()
		select {
		case first, ok := <-p.arrived:
			if ok {
				b[0] = first
				return 1 + p.takeArrived(b[1:]), nil
			}
			if p.isClosed() {
				return 0, p.explain("read", os.ErrClosed)
			}
			return 0, p.lost
		case <-passed:
		case <-changed:
		case <-p.closed:
		}
	}
}

// takeArrived fills b with what waits already.
func (p *pump) takeArrived(b []byte) int {
	for i := range b {
		select {
		case c, ok := <-p.arrived:
			if !ok {
				return i
			}
			b[i] = c
		default:
			return i
		}
	}
	return len(b)
}

// Write returns when the port has taken all of b. A Write that its deadline
// ends closes the port, which is the only way to end it.
func (p *pump) Write(b []byte) (int, error) {
	select {
	case p.writing <- struct{}{}:
		defer func() { <-p.writing }()
	case <-p.closed: // usable says so
	}
	if err := p.usable(&p.writeDeadline); err != nil {
		return 0, p.explain("write", err)
	}
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	own := bytes.Clone(b) // b is the caller's again when Write returns, the goroutine may last longer
	go func() {
		n, err := p.port.Write(own)
		done <- result{n, err}
	}()
	for {
		passed, changed := p.writeDeadline.watch()
		select {
		case r := <-done:
			return r.n, p.writeError(r.err, r.n < len(b))
		case <-passed:
			// The error of the write counts, not that of the close.
			_ = p.Close()
			return 0, p.explain("write", os.ErrDeadlineExceeded)
		case <-p.closed:
			return 0, p.explain("write", os.ErrClosed)
		case <-changed:
		}
	}
}

// writeError is what Write returns for a call of the port that ended so.
func (p *pump) writeError(err error, short bool) error {
	switch {
	case err != nil && p.isClosed():
		return p.explain("write", os.ErrClosed)
	case err != nil:
		return p.explain("write", err)
	case short:
		return p.explain("write", io.ErrShortWrite)
	default:
		return nil
	}
}

func (p *pump) SetReadDeadline(t time.Time) error {
	p.readDeadline.set(t)
	return nil
}

func (p *pump) SetWriteDeadline(t time.Time) error {
	p.writeDeadline.set(t)
	return nil
}

// Close closes the port, once; later calls return the same error.
func (p *pump) Close() error {
	p.closeOnce.Do(func() {
		close(p.closed)
		p.closeErr = p.port.Close()
	})
	return p.closeErr
}

// usable returns why there is no point in starting a call, if so.
func (p *pump) usable(d *deadline) error {
	switch {
	case p.isClosed():
		return os.ErrClosed
	case d.hasPassed():
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

func (p *pump) isClosed() bool {
	select {
	case <-p.closed:
		return true
	default:
		return false
	}
}

func (p *pump) explain(verb string, err error) error {
	return fmt.Errorf("%s %s: %w", verb, p.name, err)
}

// deadline is a time that may be changed while somebody waits for it.
type deadline struct {
	mu      sync.Mutex
	at      time.Time     // zero: never
	changed chan struct{} // closed and replaced by set
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *deadline) hasPassed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.at.IsZero() && !time.Now().Before(d.at)
}

// watch returns a channel that fires when the deadline passes, nil if there is
// none, and one that fires when it is set anew.
func (d *deadline) watch() (passed <-chan time.Time, changed <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.at.IsZero() {
		passed = time.After(time.Until(d.at))
	}
	return passed, d.changed
}
