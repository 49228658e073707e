package mqtt

import (
	"context"
	"testing"
	"testing/synctest"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// message is an incoming message that has nothing but a payload.
type message struct {
	paho.Message
	payload []byte
}

func (m message) Payload() []byte { return m.payload }

// Before the first take nothing blocks: what is waited for then, the SUBACK, is
// behind the messages. After it the limit holds, and a take or the end of the
// connection makes room.
func TestInboxLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInbox()
		ctx, cancel := context.WithCancel(t.Context())
		m := message{payload: make([]byte, inboxLimit/2+1)}
		for range 3 {
			i.put(ctx, m)
		}
		i.take()
		returned := 0
		go func() {
			i.put(ctx, m)
			returned++
			i.put(ctx, m)
			returned++
		}()
		expect := func(want int, when string) {
			t.Helper()
			if synctest.Wait(); returned != want {
				t.Fatalf("%d puts have returned %s, want %d", returned, when, want)
			}
		}
		expect(0, "with 3 messages waiting")
		i.take()
		i.take()
		expect(1, "with 1 message waiting, then 2")
		cancel()
		expect(2, "at the end of the connection")
		for range 2 {
			if i.take() == nil {
				t.Fatal("a message is missing")
			}
		}
		if i.take() != nil || i.size != 0 {
			t.Errorf("empty inbox has a size of %d", i.size)
		}
	})
}
