package zvt_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"terminalops/device"
	"terminalops/device/zvt/frame"
	"terminalops/device/zvt/zvttest"
)

// cutter is a link that breaks at the nth Write of the adapter: when it was
// made (half false), or in the middle of it. Package frame writes each APDU,
// ACK and NAK with one Write.
type cutter struct {
	frame.Stream
	left  *int
	half  bool
	onCut func()
}

var errCut = errors.New("the cable is cut")

func (c *cutter) Write(p []byte) (int, error) {
	*c.left--
	if *c.left != 0 {
		return c.Stream.Write(p)
	}
	n := 0
	if first := p[:len(p)/2]; !c.half {
		n, _ = c.Stream.Write(p)
	} else if len(first) > 0 {
		n, _ = c.Stream.Write(first)
	}
	c.Stream.Close()
	c.onCut()
	if c.half {
		return n, errCut
	}
	return n, nil
}

// TestCut cuts the connection at every single thing the adapter writes, with
// and without a crash of its process. Whatever happens, the terminal acts at
// most once, nobody claims what is not true, and where the terminal can tell,
// the truth comes out.
func TestCut(t *testing.T) {
	for _, op := range device.Operations() {
		for _, serial := range []bool{true, false} {
			for _, half := range []bool{true, false} {
				for _, crash := range []bool{true, false} {
					name := fmt.Sprintf("%s/%s/half=%v/crash=%v", op, link(serial), half, crash)
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						n, begun := 1, 0
						for cutAt(t, op, serial, half, crash, n, &begun) {
							n++
						}
						if n < 6 || begun < 3 {
							t.Errorf("cut at %d places, %d of them after Begin: too few to mean anything", n-1, begun)
						}
					})
				}
			}
		}
	}
}

// cutAt reports whether there was an nth Write.
func cutAt(t *testing.T, op device.Operation, serial, half, crash bool, n int, begun *int) (was bool) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "success", serial)
		left := n
		w.cut = func(s frame.Stream) frame.Stream {
			return &cutter{s, &left, half, func() {
				was = true
				if crash {
					w.restart()
				}
			}}
		}
		end, e := w.run(op)
		w.hangUp()
		if e.began > 0 && was {
			*begun++
		}
		acts := w.did(zvttest.EndOfDay, zvttest.Update, zvttest.Menu)
		where := fmt.Sprintf("cut at write %d: %v (%s), the terminal acted %d times", n, end, why(end), acts)
		if acts > 1 || e.began > 1 {
			t.Errorf("%s, begun %d times", where, e.began)
		}
		for _, v := range w.pt.Violations() {
			t.Errorf("%s: violation: %s", where, v)
		}
		completed := end.err == nil && end.outcome.Failure == nil
		certain := end.err != nil || end.outcome.Failure != nil && end.outcome.Failure.Executed == device.No
		switch {
		case op == device.SendLogs:
			if e.began > 0 && !completed && !errors.Is(end.err, device.ErrNotStarted) {
				t.Errorf("%s, want the logs", where)
			}
		case completed && acts == 0:
			t.Errorf("%s", where)
		case certain && acts > 0:
			t.Errorf("%s", where)
		case op == device.EndOfDay && acts == 1 && !completed:
			t.Errorf("%s, want done: the terminal can tell", where)
		}
		if completed && op == device.EndOfDay {
			schemes(t, w, end)
		}
		w.checkMasked(e, end)
	})
	return was
}
