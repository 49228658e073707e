package link

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// ears is a notifier that tells, or does not.
type ears struct {
	hears bool
	news  chan struct{}
}

func (e ears) listen() bool             { return e.hears }
func (e ears) changed() <-chan struct{} { return e.news }
func (e ears) close()                   {}

// A port is seen within its time, whether the system tells or not, and nobody
// looks more often than that.
func TestWatchLooks(t *testing.T) {
	present := State{Present: true, Port: "COM3"}
	for _, hears := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			states, e := make(chan State, 1), ears{hears, make(chan struct{}, 1)}
			var looks atomic.Int32
			var now atomic.Value // State
			now.Store(State{Detail: "gone"})
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				watch(ctx, states, e, func() State {
					looks.Add(1)
					return now.Load().(State)
				})
			}()
			if first := <-states; first != now.Load() {
				t.Errorf("first %v", first)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if want := map[bool]int32{true: 61, false: 1801}[hears]; looks.Load() != want {
				t.Errorf("looked %d times in an hour, want %d", looks.Load(), want)
			}
			now.Store(present)
			within := lookEvery
			if hears {
				e.news <- struct{}{}
				within = gathers
			}
			began := time.Now()
			if state := <-states; state != present || time.Since(began) > within {
				t.Errorf("%v after %v", state, time.Since(began))
			}
			if hears { // what the second look is for
				now.Store(State{Present: true, Port: "COM4"})
				if state := <-states; state != now.Load() || time.Since(began) > gathers+settles {
					t.Errorf("%v after %v", state, time.Since(began))
				}
			}
			now.Store(State{Detail: "old"})
			time.Sleep(2 * lookAgain)
			now.Store(State{Detail: "new"})
			time.Sleep(2 * lookAgain)
			if state := <-states; state != now.Load() {
				t.Errorf("%v is not the newest", state)
			}
			stop()
			<-ended
		})
	}
}

// A storm of changes costs twenty looks a second at most.
func TestWatchGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		e := ears{true, make(chan struct{})}
		looks := 0 // read when watch has ended
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			watch(ctx, make(chan State, 1), e, func() State { looks++; return State{} })
		}()
		storm, calm := context.WithTimeout(t.Context(), time.Second)
		defer calm()
		for storm.Err() == nil {
			select {
			case e.news <- struct{}{}:
			case <-storm.Done():
			}
		}
		stop()
		<-ended
		if looks > 25 {
			t.Errorf("looked %d times", looks)
		}
	})
}

func TestWatchTCP(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	states := Watch(ctx, must(t, "tcp:192.0.2.10:20007"))
	stop()
	if state, told := <-states; told {
		t.Errorf("told %v", state)
	}
}

// A port that no system has, then nothing: the channel is closed.
func TestWatchEnds(t *testing.T) {
	for _, address := range []string{"serial:/dev/nothing-of-that-name", "usb:ffff:fffe:NONE"} {
		ctx, stop := context.WithCancel(t.Context())
		states := Watch(ctx, must(t, address))
		if first := <-states; first.Present || first.Detail == "" || first.Port != "" {
			t.Errorf("%s: %+v", address, first)
		}
		stop()
		for state := range states {
			t.Errorf("%s: %+v", address, state)
		}
	}
}
