package link

import (
	"context"
	"time"
)

// State says whether there is a port at an address.
type State struct {
	Present bool
	Port    string // its name today: "/dev/ttyACM0", "COM3"; empty if it is not there
	Detail  string // why not, for people; empty if it is there
}

// When Watch looks.
const (
	lookEvery = 2 * time.Second // where the system does not tell of changes
	lookAgain = time.Minute     // where it does
	// After a change it looks twice: when all that comes at once has come, and
	// when udev has made its links, or Windows its list of USB devices.
	gathers = 50 * time.Millisecond
	settles = time.Second
)

// Watch tells whether there is a port at a, at first and whenever that changes,
// without opening it: the cable of a serial or USB terminal is pulled, or
// plugged in again, perhaps under another name. A state that is old before
// anybody has received it is dropped. The channel is closed when ctx has ended.
//
// Who is there in a network nobody can see without asking: of TCP the channel
// tells nothing.
func Watch(ctx context.Context, a Address) <-chan State {
	states := make(chan State, 1)
	go func() {
		defer close(states)
		if a.kind == TCP {
			<-ctx.Done()
			return
		}
		n := newNotifier("/", a)
		defer n.close()
		watch(ctx, states, n, func() State { return look("/", a) })
	}()
	return states
}

// A notifier tells that the ports of this computer may have changed: a file pair
// of each system has newNotifier.
//
// listen is called before each look, for what came since may have to be listened
// to as well. It reports whether changes will be told. changed then gets a value
// after each.
type notifier interface {
	listen() bool
	changed() <-chan struct{}
	close()
}

// watch sends what look sees until ctx ends.
func watch(ctx context.Context, states chan State, n notifier, look func() State) {
	var last State
	var next time.Duration
	for first := true; ; first = false {
		told := n.listen() // before the look, or a change in between is lost
		if now := look(); first || now != last {
			last = now
			replace(states, now)
		}
		switch {
		case next == gathers:
			next = settles
		case told:
			next = lookAgain
		default:
			next = lookEvery
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-n.changed():
			next = gathers
			timer.Reset(next)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// replace puts s into a channel that holds one, in place of an older one.
func replace(states chan State, s State) {
	select {
	case <-states:
	default:
	}
	states <- s // there is room: nobody else sends
}

// look sees whether there is a port at a. root is / but in tests.
func look(root string, a Address) State {
	name := a.port
	if a.kind == USB {
		ports, err := listIn(root)
		if err != nil {
			return State{Detail: err.Error()}
		}
		port, err := find(a, ports)
		if err != nil {
			return State{Detail: err.Error()}
		}
		name = port.Name
	}
	if !exists(root, name) {
		return State{Detail: "port " + name + " is not there"}
	}
	return State{Present: true, Port: name}
}
