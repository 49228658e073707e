package zvt_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device"
	"terminalops/device/trace"
	"terminalops/device/zvt"
	"terminalops/device/zvt/frame"
)

// tapped runs an operation with a tap and returns what it took.
func tapped(t *testing.T, scenario string, serial bool, op device.Operation) []trace.Event {
	t.Helper()
	var events []trace.Event
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, scenario, serial)
		w.options.Tap, w.options.Lane = trace.NewTap(1<<20), "P1-T1"
		w.restart()
		w.run(op)
		w.stop()
		w.serving.Wait()
		events = w.options.Tap.Last("P1-T1")
	})
	return events
}

// The wire of an end of day, as a capture: look at it.
func TestCaptureOfEndOfDay(t *testing.T) {
	for name, serial := range map[string]bool{"serial": true, "tcp": false} {
		var b strings.Builder
		w, err := trace.NewWriter(&b, trace.Header{Software: "terminal-agent devel", Made: time.Date(2000, 1, 1, 0, 1, 0, 0, time.UTC)})
		for _, e := range tapped(t, "success", serial, device.EndOfDay) {
			err = errors.Join(err, w.Write(e))
		}
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", "endofday-"+name+".capture")
		if os.Getenv("UPDATE") == "1" {
			if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(file, []byte(b.String()), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if b.String() != string(want) {
			t.Errorf("%s (UPDATE=1 writes it):\n%s", file, b.String())
		}
	}
}

// What happens to the link is told, too.
func TestTapTellsOfTheLink(t *testing.T) {
	for _, test := range []struct {
		scenario string
		serial   bool
		want     []string
	}{
		{"silent", true, []string{"link opened", "no ACK within 5s", "sent again, copy 2", "link closed"}},
		{"drop-refused", false, []string{"link lost: EOF"}},
		{"nak-twice", true, []string{"NAK", "sent again, copy 3"}},
		{"wrong-crc", true, []string{"wrong CRC over", ": 04 0F status information"}},
		{"garbage", true, []string{"no frame: 5 bytes thrown away"}},
		{"duplicate-frames", true, []string{"the same again: acknowledged, not taken for another one"}},
	} {
		var said []string
		for _, e := range tapped(t, test.scenario, test.serial, device.EndOfDay) {
			said = append(said, e.Meaning)
		}
		for _, want := range test.want {
			if !strings.Contains(strings.Join(said, "\n"), want) {
				t.Errorf("%s: nobody says %q:\n%s", test.scenario, want, strings.Join(said, "\n"))
			}
		}
	}
}

func TestTapTellsOfNoLink(t *testing.T) {
	tap := trace.NewTap(1 << 10)
	z, err := zvt.New(zvt.Options{
		Open: func(context.Context) (frame.Stream, error) { return nil, errors.New("open COM3: no 4111111111111111") },
		Tap:  tap, Lane: "P1-T1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Execute(t.Context(), device.Request{Operation: device.EndOfDay}, &entry{}); !errors.Is(err, device.ErrUnreachable) {
		t.Fatal(err)
	}
	last := tap.Last("P1-T1")
	if len(last) != 1 || last[0].Direction != trace.Remark || last[0].Meaning != "link not opened: open COM3: no 411111******1111" {
		t.Errorf("%+v", last)
	}
}
