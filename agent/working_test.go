package agent

import (
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

// Whoever wants to know is told each step of an operation once it is on disk.
func TestJournaled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		var mu sync.Mutex
		told := map[string][]string{}
		w.noted = func(operationID, operation, step string) {
			mu.Lock()
			defer mu.Unlock()
			told[operationID] = append(told[operationID], operation+" "+step)
		}
		w.device.Set(devicetest.Script{Lost: device.ErrUnreachable, Outcome: device.Outcome{Effect: device.Done}})
		w.start()
		w.send(w.command("lost", device.EndOfDay))
		w.wantFinal("lost", "COMPLETED")
		w.device.Set(devicetest.Script{Menu: 1, Outcome: device.Outcome{Effect: device.Triggered, Attend: true}})
		w.send(w.command("menu", device.OpenMenu))
		w.wantFinal("menu", "COMPLETED")
		w.send(w.command("no", "dance"))
		w.wantFinal("no", "unsupported_operation no")
		time.Sleep(time.Second) // the menu is closed
		synctest.Wait()
		w.end()
		want := map[string][]string{
			"lost": {"end_of_day accepted", "end_of_day started", "end_of_day finished: COMPLETED", "end_of_day the broker has its final report"},
			"menu": {"open_menu accepted", "open_menu started", "open_menu evidence: end", "open_menu finished: COMPLETED", "open_menu the broker has its final report", "open_menu the terminal is free again"},
			"no":   {"dance finished: FAILED unsupported_operation", "dance the broker has its final report"},
		}
		if !maps.EqualFunc(told, want, slices.Equal) {
			t.Errorf("told %q", told)
		}
	})
}
