package link

import (
	"runtime"
	"slices"
	"strings"

	"go.bug.st/serial"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

func listIn(string) ([]Port, error) { return List() }

// exists reports whether a port is in the registry, where each driver enters
// and removes its own. If that cannot be read, opening the port will tell.
func exists(_, name string) bool {
	names, err := serial.GetPortsList()
	return err != nil || slices.ContainsFunc(names, func(have string) bool {
		return strings.EqualFold(have, strings.TrimPrefix(name, devicePrefix))
	})
}

// registryNotifier hears of changes below HARDWARE\DEVICEMAP, where the ports
// are listed in the key SERIALCOMM. That one is not there while there is no port
// at all.
type registryNotifier struct {
	armed bool
	stop  windows.Handle // an event
	news  chan struct{}  // capacity 1
	ended chan struct{}
}

func newNotifier(string, Address) notifier {
	n := &registryNotifier{news: make(chan struct{}, 1), ended: make(chan struct{})}
	armed := make(chan bool)
	var err error
	if n.stop, err = windows.CreateEvent(nil, 1, 0, nil); err != nil {
		close(n.ended)
		return n
	}
	go n.hear(armed)
	n.armed = <-armed
	return n
}

// listen implements notifier.
func (n *registryNotifier) listen() bool { return n.armed }

// hear waits for changes until close, in a thread of its own: Windows forgets
// the wish of a thread that has ended. It wishes for the next change before it
// tells of the last, so that none is lost.
func (n *registryNotifier) hear(armed chan<- bool) {
	defer close(n.ended)
	runtime.LockOSThread() // for good: the thread ends with the goroutine
	key, err := registry.OpenKey(registry.LOCAL_MACHINE, `HARDWARE\DEVICEMAP`, registry.NOTIFY)
	if err != nil {
		armed <- false
		return
	}
	defer key.Close()
	event, err := windows.CreateEvent(nil, 0, 0, nil)
	if err != nil {
		armed <- false
		return
	}
	defer windows.CloseHandle(event)
	wish := func() error {
		const filter = windows.REG_NOTIFY_CHANGE_NAME | windows.REG_NOTIFY_CHANGE_LAST_SET
		return windows.RegNotifyChangeKeyValue(windows.Handle(key), true, filter, event, true)
	}
	err = wish()
	armed <- err == nil
	for err == nil {
		which, waitErr := windows.WaitForMultipleObjects([]windows.Handle{event, n.stop}, false, windows.INFINITE)
		if waitErr != nil || which != windows.WAIT_OBJECT_0 {
			return
		}
		err = wish()
		select {
		case n.news <- struct{}{}:
		default:
		}
	}
}

func (n *registryNotifier) changed() <-chan struct{} { return n.news }

func (n *registryNotifier) close() {
	if n.stop == 0 {
		return
	}
	_ = windows.SetEvent(n.stop) // it is ours and open: there is no error
	<-n.ended
	windows.CloseHandle(n.stop)
}
