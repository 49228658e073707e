package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"terminalops/agent"
	"terminalops/device/devicetest"
	"terminalops/device/link"
	"terminalops/transport/transporttest"
)

// The agent learns of a port that comes and goes.
func TestWatchCables(t *testing.T) {
	port := filepath.Join(t.TempDir(), "terminal")
	address, err := link.Parse("serial:" + port)
	if err != nil {
		t.Fatal(err)
	}
	a, err := agent.New(agent.Options{StateDir: t.TempDir(), Lanes: []agent.Lane{
		{ID: "T1", Link: address.String(), Terminal: new(devicetest.Terminal), End: transporttest.NewBroker().Agent("T1")}}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	stop := watchCables(a, []terminalConfig{{ID: "T1", address: address}})
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	await := func(state, detail string) {
		t.Helper()
		look := time.NewTicker(10 * time.Millisecond)
		defer look.Stop()
		for {
			status, err := a.Status()
			if err != nil {
				t.Fatal(err)
			}
			d := status.Lanes[0].Device
			if d.State == state && d.Detail == detail {
				return
			}
			select {
			case <-look.C:
			case <-ctx.Done():
				t.Fatalf("the state is %q, %q; want %q, %q", d.State, d.Detail, state, detail)
			}
		}
	}
	await("unreachable", "port "+port+" is not there")
	if err := os.WriteFile(port, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await("", "")
	if err := os.Remove(port); err != nil {
		t.Fatal(err)
	}
	await("unreachable", "port "+port+" is not there")
}
