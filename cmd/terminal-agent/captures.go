package main

import (
	"bytes"
	"sort"
	"strings"
	"time"

	"terminalops/device"
	"terminalops/device/trace"
)

// capture writes events down as decode reads them. device is what the terminal is;
// empty: they are of several, or nobody knows.
func capture(device string, made time.Time, events []trace.Event) []byte {
	var b bytes.Buffer
	w, _ := trace.NewWriter(&b, trace.Header{Software: "terminal-agent " + programVersion(), Device: device, Made: made})
	for _, e := range events {
		w.Write(e) // no error: a buffer takes it all
	}
	return b.Bytes()
}

// lastSeen is what send_logs wants of a terminal: see agent.Lane.Capture. Where
// there is no room for all of it, it begins later.
func lastSeen(tap *trace.Tap, id string, d device.Description, most int64) (content []byte, dropped int64) {
	made, events := time.Now(), tap.Last(id)
	model := strings.Join(strings.Fields(d.Model+" "+d.SoftwareVersion), " ")
	from := func(n int) []byte { return capture(model, made, events[n:]) }
	fits := func(n int) bool { return int64(len(from(n))) <= most }
	whole := from(0)
	if len(events) == 0 || int64(len(whole)) <= most {
		return whole, 0
	}
	content = from(sort.Search(len(events), fits))
	return content, int64(len(whole) - len(content))
}
