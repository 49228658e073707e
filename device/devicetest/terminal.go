// Package devicetest is for tests of whatever stands at an end of package
// device: a scripted terminal for tests of the engine, and the test that every
// adapter must pass.
package devicetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"terminalops/device"
)

// Terminal is a device.Terminal without a protocol. It keeps a log of what it
// really did, which tests treat as the truth: it survives whatever happens to
// the engine. Its script may be changed while it is used, by Set.
type Terminal struct {
	mu      sync.Mutex
	script  Script
	acts    []Act
	asked   int
	working bool
}

// Script says what a Terminal does. The zero Script does everything at once
// and says so.
type Script struct {
	Before  error         // found before the terminal is asked to act: nothing happens
	Work    time.Duration // from acting to the end
	Lost    error         // the end is not seen: returned instead of the outcome
	Outcome device.Outcome
	Resolve func(device.Past) (device.Outcome, error) // default: the Outcome
	Menu    time.Duration                             // how long Attend takes
	Files   map[string]string                         // spooled by a send_logs
}

// Act is one thing a Terminal really did.
type Act struct {
	At        time.Time
	Operation device.Operation
}

// Set changes the script.
func (d *Terminal) Set(s Script) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.script = s
}

// Acts returns what the terminal really did so far.
func (d *Terminal) Acts() []Act {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Act(nil), d.acts...)
}

// Asked returns how often Resolve was called.
func (d *Terminal) Asked() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

// Describe implements device.Terminal.
func (d *Terminal) Describe() device.Description {
	return device.Description{Protocol: "scripted", Operations: device.Operations(), Model: "Scripted"}
}

// Execute implements device.Terminal.
func (d *Terminal) Execute(ctx context.Context, r device.Request, w device.Witness) (device.Outcome, error) {
	s := d.enter()
	defer d.leave()
	if s.Before != nil {
		return device.Outcome{}, s.Before
	}
	if err := w.Begin(map[string]string{"mark": "before"}); err != nil {
		return device.Outcome{}, fmt.Errorf("scripted terminal: %w", err)
	}
	d.mu.Lock()
	d.acts = append(d.acts, Act{time.Now(), r.Operation})
	d.mu.Unlock()
	w.Progress("working")
	if err := wait(ctx, s.Work); err != nil {
		return device.Outcome{}, err
	}
	if s.Lost != nil {
		return device.Outcome{}, s.Lost
	}
	if err := spool(s, r); err != nil {
		return device.Outcome{}, err
	}
	if _, err := w.Record("end", "seen"); err != nil {
		return s.Outcome, nil // not on disk, but seen
	}
	return s.Outcome, nil
}

// Resolve implements device.Terminal.
func (d *Terminal) Resolve(_ context.Context, r device.Request, p device.Past, w device.Witness) (device.Outcome, error) {
	s := d.enter()
	defer d.leave()
	d.mu.Lock()
	d.asked++
	d.mu.Unlock()
	if s.Resolve != nil {
		return s.Resolve(p)
	}
	return s.Outcome, spool(s, r)
}

// Attend implements device.Attendant.
func (d *Terminal) Attend(ctx context.Context) error {
	s := d.enter()
	defer d.leave()
	return wait(ctx, s.Menu)
}

func spool(s Script, r device.Request) error {
	if r.Operation != device.SendLogs {
		return nil
	}
	for name, content := range s.Files {
		if err := r.Spool.Put(name, []byte(content), 0); err != nil {
			return err
		}
	}
	return nil
}

// enter panics if the engine lets two operations overlap.
func (d *Terminal) enter() Script {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.working {
		panic("devicetest: two operations at a time")
	}
	d.working = true
	return d.script
}

func (d *Terminal) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.working = false
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
