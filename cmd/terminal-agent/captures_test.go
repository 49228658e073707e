package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"terminalops/agent"
	"terminalops/device"
	"terminalops/device/trace"
)

// Where there is little room a capture begins later: it stays one, and says what is
// missing in bytes.
func TestLastSeenFits(t *testing.T) {
	tap := trace.NewTap(keptTrace)
	for i := range 1000 {
		tap.Emit(trace.Event{At: time.Unix(int64(i), 0), Lane: "T1", Direction: trace.ToTerminal, Bytes: "06 50", Meaning: fmt.Sprintf("command %d", i)})
		tap.Emit(trace.Event{At: time.Unix(int64(i), 0), Lane: "T2", Direction: trace.Remark, Meaning: "of another"})
	}
	d := device.Description{Model: "Lane/5000", SoftwareVersion: "2.14.15"}
	whole, dropped := lastSeen(tap, "T1", d, 1<<20)
	if n := eventsIn(t, whole); n != 1000 || dropped != 0 {
		t.Errorf("%d events, %d bytes dropped", n, dropped)
	}
	for _, most := range []int64{int64(len(whole)) - 1, 10000, 1000} {
		content, dropped := lastSeen(tap, "T1", d, most)
		have := int64(len(content))
		if have > most || have < most-100 || have+dropped != int64(len(whole)) {
			t.Errorf("%d bytes and %d dropped of %d, with room for %d", have, dropped, len(whole), most)
		}
		if n := eventsIn(t, content); !strings.HasSuffix(string(content), "# command 999\n") || n == 0 {
			t.Errorf("%d events, up to %s", n, content[len(content)-50:])
		}
	}
}

// eventsIn reads a capture of terminal T1, and counts its events.
func eventsIn(t *testing.T, capture []byte) int {
	t.Helper()
	h, events, err := trace.Read(strings.NewReader(string(capture)))
	if err != nil || h.Device != "Lane/5000 2.14.15" || !strings.HasPrefix(h.Software, "terminal-agent ") || h.Made.IsZero() {
		t.Errorf("%+v, %v", h, err)
	}
	for _, e := range events {
		if e.Lane != "T1" {
			t.Errorf("of terminal %s: %v", e.Lane, e)
		}
	}
	return len(events)
}

// A service that does not answer takes nothing away from a bundle.
func TestBundleBesideASilentService(t *testing.T) {
	t.Parallel()
	l := newLab(t).withBroker().withCloud(0).withPeer(func(_ context.Context, c net.Conn) { t.Error("the doctor connects to the terminal") })
	a, err := agent.New(agent.Options{StateDir: l.stateDir})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	path := filepath.Join(l.dir, "bundle.tar.gz")
	if code, _ := l.examine("--bundle", path); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	files := unpack(t, path)
	for name, want := range map[string]string{
		"report.txt":           "runs (",
		"configuration.toml":   "state_dir",
		"journal.txt":          "not to be had: no agent runs",
		"captures-service.txt": "\n# not all is to be had: no agent runs",
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s: %q", name, files[name])
		}
	}
	if _, _, err := trace.Read(strings.NewReader(files["captures-service.txt"])); err != nil {
		t.Error(err)
	}
}
