package agent

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device"
	"terminalops/device/devicetest"
	"terminalops/transport"
	"terminalops/transport/transporttest"
)

// What presence and status say of the terminal follows the cable, while nobody
// asks the terminal, and also while it is at work.
func TestCable(t *testing.T) {
	const gone = "port /dev/ttyACM0 is not there"
	synctest.Test(t, func(t *testing.T) {
		w, b := memory(t)
		w.start()
		want := func(when, state, detail string) {
			t.Helper()
			time.Sleep(2 * time.Second)
			synctest.Wait()
			var p transport.PresenceMessage
			if err := json.Unmarshal(b.Retained(terminal, transport.Presence), &p); err != nil {
				t.Fatal(err)
			}
			if p.State != transport.Online || p.Device.State != state || p.Device.Detail != detail {
				t.Errorf("%s: presence is %s, %q, %q; want %q, %q", when, p.State, p.Device.State, p.Device.Detail, state, detail)
			}
			status, err := w.agent.Status()
			if err != nil {
				t.Fatal(err)
			}
			if d := status.Lanes[0].Device; d.State != state || d.Detail != detail {
				t.Errorf("%s: status is %q, %q", when, d.State, d.Detail)
			}
		}
		w.agent.Cable(terminal, true, "")
		want("at first", "", "")
		w.agent.Cable(terminal, false, gone)
		want("pulled", transport.DeviceUnreachable, gone)
		w.agent.Cable(terminal, false, gone+"; there is /dev/ttyUSB0")
		want("another one plugged in", transport.DeviceUnreachable, gone+"; there is /dev/ttyUSB0")

		w.device.Set(devicetest.Script{Before: device.ErrUnreachable})
		w.send(w.command("x", device.EndOfDay))
		w.wantFinal("x", "device_unreachable no")
		w.agent.Cable(terminal, true, "")
		want("back, and nobody has asked it", "", "")

		w.device.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done}})
		w.wantNext()
		want("asked", transport.DeviceReady, "")
		w.agent.Cable(terminal, false, gone)
		want("pulled again", transport.DeviceUnreachable, gone)
		w.agent.Cable(terminal, true, "")
		want("back as it was", transport.DeviceReady, "")

		w.device.Set(devicetest.Script{Work: time.Minute, Outcome: device.Outcome{Effect: device.Done}})
		w.send(w.command("y", device.EndOfDay))
		w.cloud.await(t, time.Minute, "RUNNING", func() bool { return w.cloud.pending["y"].Running })
		w.agent.Cable(terminal, false, gone)
		want("pulled at work", transport.DeviceUnreachable, gone)
		w.agent.Cable(terminal, true, "")
		w.wantFinal("y", "COMPLETED")
	})
}

// The same news twice is none.
func TestCableSaysItOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := memory(t)
		w.start()
		w.agent.Cable(terminal, false, "gone")
		synctest.Wait()
		before := len(presences(b))
		w.agent.Cable(terminal, false, "gone")
		synctest.Wait()
		if after := len(presences(b)); after != before {
			t.Errorf("%d presences, then %d", before, after)
		}
	})
}

func presences(b *transporttest.Broker) []transporttest.Published {
	return b.PublishedOn(terminal, transport.Presence)
}
