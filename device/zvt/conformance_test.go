package zvt_test

import (
	"context"
	"fmt"
	"testing"

	"terminalops/device"
	"terminalops/device/devicetest"
	"terminalops/device/zvt/frame"
	"terminalops/device/zvt/zvttest"
)

// TestDevice: what every adapter must pass.
func TestDevice(t *testing.T) {
	for _, serial := range []bool{true, false} {
		t.Run(link(serial), func(t *testing.T) {
			devicetest.TestDevice(t, func(t *testing.T, c devicetest.Condition) *devicetest.Bench {
				return newBench(t, c, serial)
			})
		})
	}
}

func newBench(t *testing.T, c devicetest.Condition, serial bool) *devicetest.Bench {
	scenarios := map[devicetest.Condition]string{
		devicetest.Working: "success", devicetest.Absent: "success", devicetest.InUse: "success",
		devicetest.Mute: "silent", devicetest.Dying: "drop-after-acceptance+drop-menu+drop-update",
	}
	w := newWorld(t, scenarios[c], serial)
	b := &devicetest.Bench{OnWrite: func() {}}
	w.cut = func(s frame.Stream) frame.Stream { return &noticed{s, b} }
	w.options.Open = func(ctx context.Context) (frame.Stream, error) {
		b.OnWrite()
		switch c {
		case devicetest.Absent:
			return nil, fmt.Errorf("open the port: %w", device.ErrUnreachable)
		case devicetest.InUse:
			return nil, fmt.Errorf("another program has the port: %w", device.ErrBusy)
		}
		return w.dial(ctx)
	}
	b.New = func() device.Terminal { w.restart(); return w.adapter }
	b.Acts = func() int { return w.did(zvttest.EndOfDay, zvttest.Update, zvttest.Menu) }
	b.Links = func() int { return w.open }
	return b
}

// noticed tells of each Write.
type noticed struct {
	frame.Stream
	b *devicetest.Bench
}

func (n *noticed) Write(p []byte) (int, error) {
	n.b.OnWrite()
	return n.Stream.Write(p)
}
