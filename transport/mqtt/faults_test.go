package mqtt

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// faults is a TCP proxy on the way to a broker that does what networks do.
type faults struct {
	address string // of the proxy

	mu        sync.Mutex
	changed   *sync.Cond
	target    string
	refusing  bool
	stalled   bool // nothing is read any more, in neither direction
	swallowed bool // what the broker sends is lost
	lost      int  // bytes swallowed
	conns     map[net.Conn]bool
	accepted  int
}

func newFaults(t testing.TB, target string) *faults {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &faults{address: l.Addr().String(), target: target, conns: make(map[net.Conn]bool)}
	f.changed = sync.NewCond(&f.mu)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { f.serve(client) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.heal()
		f.cut()
		running.Wait()
	})
	return f
}

func (f *faults) serve(client net.Conn) {
	// A broker notices that a connection has ended before the next one comes: NATS
	// would forget the last will of one that is taken over.
	time.Sleep(50 * time.Millisecond)
	broker, err := net.Dial("tcp", f.target)
	f.mu.Lock()
	f.accepted++
	if err != nil || f.refusing {
		f.mu.Unlock()
		client.Close()
		if broker != nil {
			broker.Close()
		}
		return
	}
	f.conns[client], f.conns[broker] = true, true
	f.changed.Broadcast()
	f.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { f.copy(broker, client, false) })
	both.Go(func() { f.copy(client, broker, true) })
	both.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, client)
	delete(f.conns, broker)
}

func (f *faults) copy(to, from net.Conn, down bool) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 32<<10)
	for {
		f.mu.Lock()
		for f.stalled {
			f.changed.Wait()
		}
		f.mu.Unlock()
		n, err := from.Read(buffer)
		f.mu.Lock()
		stalled, lost := f.stalled, down && f.swallowed
		if lost {
			f.lost += n
			f.changed.Broadcast()
		}
		f.mu.Unlock()
		if n > 0 && !lost && !stalled {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if err == io.EOF && stalled {
				continue // a stalled network does not pass on a close either
			}
			return
		}
	}
}

// cut resets all connections, towards both ends.
func (f *faults) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

func (f *faults) set(flag *bool, value bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*flag = value
	f.changed.Broadcast()
}

func (f *faults) heal() {
	f.set(&f.refusing, false)
	f.set(&f.stalled, false)
	f.set(&f.swallowed, false)
}

// awaitLost waits until so many bytes of the broker have been swallowed.
func (f *faults) awaitLost(t testing.TB, n int) {
	t.Helper()
	timeout := time.AfterFunc(10*time.Second, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.lost = -1 << 30
		f.changed.Broadcast()
	})
	defer timeout.Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.lost >= 0 && f.lost < n {
		f.changed.Wait()
	}
	if f.lost < 0 {
		t.Fatal("the broker sent nothing to be swallowed")
	}
}
