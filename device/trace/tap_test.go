package trace

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestTapFansOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tap := NewTap(1 << 10)
		ctx, stop := context.WithCancel(t.Context())
		_, one := tap.Subscribe(ctx, 3)
		_, other := tap.Subscribe(t.Context(), 1)
		for i := range 3 {
			tap.Emit(Event{Lane: "a", Meaning: fmt.Sprint(i)})
		}
		for i := range 3 {
			if e := <-one; e.Meaning != fmt.Sprint(i) || e.Missed != 0 {
				t.Errorf("event %d: %+v", i, e)
			}
		}
		stop()
		synctest.Wait()
		if e, ok := <-one; ok {
			t.Errorf("after the end: %+v", e)
		}
		if e := <-other; e.Meaning != "0" || e.Missed != 0 {
			t.Errorf("the slow one gets %+v first", e)
		}
		tap.Emit(Event{Lane: "a", Meaning: "3"})
		if e := <-other; e.Meaning != "3" || e.Missed != 2 {
			t.Errorf("the slow one gets %+v then, want 3 with 2 missed", e)
		}
	})
}

func TestTapKeepsTheLast(t *testing.T) {
	tap := NewTap(1000)
	for i := range 100 {
		tap.Emit(Event{Lane: "busy", Meaning: fmt.Sprintf("%04d", i)})
	}
	tap.Emit(Event{Lane: "quiet", Meaning: "once"})
	last := tap.Last("busy")
	if n := len(last); n == 0 || n*last[0].size() > 1000 || (n+1)*last[0].size() <= 1000 {
		t.Fatalf("%d events kept", n)
	}
	for i, e := range last {
		if want := fmt.Sprintf("%04d", 100-len(last)+i); e.Meaning != want {
			t.Errorf("event %d is %s, want %s", i, e.Meaning, want)
		}
	}
	if quiet := tap.Last("quiet"); len(quiet) != 1 {
		t.Errorf("the other lane has %v", quiet)
	}
	if none := tap.Last("unknown"); none != nil {
		t.Errorf("nobody's lane has %v", none)
	}
}

func TestNilTap(t *testing.T) {
	var tap *Tap
	ctx, stop := context.WithCancel(t.Context())
	past, events := tap.Subscribe(ctx, 1)
	tap.Emit(Event{})
	stop()
	if e, ok := <-events; ok || past != nil || tap.Last("") != nil || tap.Past() != nil {
		t.Errorf("a tap that is none has %+v", e)
	}
}

// Who comes late gets what is kept, in the order in which it happened, and then
// each event once.
func TestTapPast(t *testing.T) {
	tap := NewTap(1 << 10)
	at := time.Date(2026, 6, 29, 9, 0, 0, 0, time.UTC)
	for i, lane := range []string{"b", "a", "", "b", "a"} {
		tap.Emit(Event{At: at.Add(time.Duration(i) * time.Second), Lane: lane, Meaning: fmt.Sprint(i)})
	}
	past, now := tap.Subscribe(t.Context(), 1)
	tap.Emit(Event{At: at, Meaning: "5"})
	all := append(past, <-now)
	if len(all) != 6 {
		t.Fatalf("%v", all)
	}
	for i, e := range all {
		if e.Meaning != fmt.Sprint(i) {
			t.Errorf("event %d is %+v", i, e)
		}
	}
	if n := len(tap.Past()); n != 6 {
		t.Errorf("%d events are kept", n)
	}
}
