package agent

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"terminalops/device"
	"terminalops/device/devicetest"
)

// Whoever wants to know is told what the terminal works on, and when that is
// over: executing, resolving and attending.
func TestWorking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		var mu sync.Mutex
		var told []string
		w.working = func(operationID string) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, operationID)
		}
		w.device.Set(devicetest.Script{Lost: device.ErrUnreachable, Outcome: device.Outcome{Effect: device.Done}})
		w.start()
		w.send(w.command("x", device.EndOfDay))
		w.wantFinal("x", "COMPLETED")
		w.device.Set(devicetest.Script{Menu: 1, Outcome: device.Outcome{Effect: device.Triggered, Attend: true}})
		w.send(w.command("y", device.OpenMenu))
		w.wantFinal("y", "COMPLETED")
		w.end()
		want := []string{"x", "", "x", "", "y", "", "y", ""}
		if !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}
