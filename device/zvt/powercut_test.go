package zvt_test

import (
	"fmt"
	"io"
	"regexp"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device"
	"terminalops/device/zvt/frame"
	"terminalops/device/zvt/zvttest"
)

// wire is a serial line that lasts: who opens its end hears nothing of what came
// while nobody had it open, and the terminal does not notice.
type wire struct {
	end   *end
	off   time.Duration // how long the PC is without power
	left  int           // Writes until the power is cut; then negative
	cut   func()
	awake time.Time // when it has power again
}

func (w *wire) open() frame.Stream {
	time.Sleep(time.Until(w.awake))
	in := w.end.in
	in.mu.Lock()
	in.bytes = nil
	in.mu.Unlock()
	w.end.SetReadDeadline(time.Time{})
	return &plug{wire: w}
}

// plug is what a process has of the wire.
type plug struct {
	*wire
	dead atomic.Bool
}

func (p *plug) Write(b []byte) (int, error) {
	if p.dead.Load() {
		return 0, errCut
	}
	if p.left--; p.left == 0 {
		p.awake = time.Now().Add(p.off)
		p.Close()
		p.cut()
		return 0, errCut
	}
	return p.end.Write(b)
}

func (p *plug) Read(b []byte) (int, error) {
	n, err := p.end.Read(b)
	if p.dead.Load() {
		return 0, io.EOF
	}
	return n, err
}

func (p *plug) Close() error {
	p.dead.Store(true)
	return p.end.SetReadDeadline(time.Now())
}

func (p *plug) SetReadDeadline(t time.Time) error {
	if p.dead.Load() {
		return nil
	}
	return p.end.SetReadDeadline(t)
}

func (p *plug) SetWriteDeadline(t time.Time) error { return p.end.SetWriteDeadline(t) }

// TestPowerCut takes the PC's power before each single thing that the adapter
// writes, for as long as the terminal takes to repeat itself, to give up, or to
// be done. The serial line stays; nobody hears what comes meanwhile. Then the
// terminal closes its day once, and the totals are known.
func TestPowerCut(t *testing.T) {
	for _, off := range []time.Duration{100 * time.Millisecond, 3 * time.Second, 7 * time.Second, 12 * time.Second, 17 * time.Second, 22 * time.Second, 40 * time.Second, 4 * time.Minute} {
		t.Run(fmt.Sprint("off for ", off), func(t *testing.T) {
			t.Parallel()
			n := 1
			for powerCutAt(t, off, n) {
				n++
			}
			if n < 15 {
				t.Errorf("cut at %d places: too few to mean anything", n-1)
			}
		})
	}
}

// excused is what cannot be helped: who was to answer was off, and who is back
// finds out by asking, and by answering.
var excused = regexp.MustCompile(`^(no answer to|06 00 registration during|80 00 came later)`)

// powerCutAt reports whether there was an nth Write.
func powerCutAt(t *testing.T, off time.Duration, n int) (was bool) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "success", true)
		ours, theirs := cable()
		w.wire = &wire{end: ours, off: off, left: n, cut: func() { was = true; w.restart() }}
		w.serving.Go(func() {
			if err := w.pt.ServeSerial(w.ctx, theirs); err != nil {
				t.Errorf("the terminal's end: %v", err)
			}
		})
		e := &entry{}
		end := w.runEntry(device.EndOfDay, e)
		if was && e.began == 0 { // the next process takes it from the journal, where it is only accepted
			end = w.runEntry(device.EndOfDay, e)
		}
		ours.Close()
		where := fmt.Sprintf("cut at write %d: %v (%s) after %v", n, end, why(end), end.took)
		acts := w.did(zvttest.EndOfDay)
		completed := end.err == nil && end.outcome.Failure == nil
		switch {
		case acts > 1 || e.began > 1:
			t.Errorf("%s: the terminal acted %d times, begun %d times", where, acts, e.began)
		case acts == 1 && !completed:
			t.Errorf("%s, want done: the terminal can tell", where)
		case acts == 1:
			schemes(t, w, end)
		case e.began == 0 || completed:
			t.Errorf("%s, want done: the terminal was there", where)
		}
		for _, v := range w.pt.Violations() {
			if !excused.MatchString(v) {
				t.Errorf("%s: violation: %s", where, v)
			}
		}
	})
	return was
}
