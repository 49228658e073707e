package dispatcher_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/dispatcher/store"
	"terminalops/transport"
	"terminalops/transport/transporttest"
)

// sweepLate keeps the sweeper away: only a POST can end operations.
func sweepLate(b *bed) { b.times.Sweep = 1000 * time.Hour }

func menu(b *bed) operation {
	return b.create(strings.Replace(endOfDay, "end_of_day", "open_menu", 1))
}

func TestCompleted(t *testing.T) {
	with(t, nil, func(b *bed) {
		o := b.create(endOfDay)
		b.sleep(time.Second)
		b.report(o.ID, `"state":"ACCEPTED","sequence":1`)
		accepted := b.wantStatus(o.ID, "PENDING")
		if !accepted.AcceptedAt.Equal(time.Now()) || accepted.UpdatedBy != "terminal" || !accepted.UpdatedAt.Equal(time.Now()) {
			t.Errorf("have %+v", accepted)
		}
		b.sleep(time.Second)
		b.report(o.ID, `"state":"RUNNING","sequence":3,"message":"newest"`)
		b.report(o.ID, `"state":"RUNNING","sequence":2,"message":"overtaken"`)
		if p := b.get(o.ID).Progress; p == nil || p.Message != "newest" || !p.At.Equal(time.Now()) {
			t.Errorf("have progress %+v", p)
		}
		b.sleep(time.Second)
		b.report(o.ID, `"state":"COMPLETED","sequence":4,"effect":"done","result":{ "outcome":"accepted", "purchases_amount":1234500 }`)
		o = b.wantStatus(o.ID, "COMPLETED")
		if string(o.Result) != `{"outcome":"accepted","purchases_amount":1234500}` || o.Effect != "done" || o.UpdatedBy != "terminal" ||
			!o.UpdatedAt.Equal(time.Now()) || o.CreatedBy != "anna@example.com" || !o.AcceptedAt.Equal(accepted.AcceptedAt) || o.Error != nil {
			t.Errorf("have %+v", o)
		}
		b.create(endOfDay) // the terminal is free again
	})
}

func TestFailed(t *testing.T) {
	with(t, nil, func(b *bed) {
		o := b.create(endOfDay)
		b.report(o.ID, `"state":"FAILED","error":{"code":"outcome_unknown","device_code":"77","message":"m","executed":"unknown"},"result":{"receipt":["a"]}`)
		o = b.wantStatus(o.ID, "FAILED")
		e := o.Error
		if e == nil || e.Code != "outcome_unknown" || e.DeviceCode != "77" || e.Message != "m" || e.Executed != "unknown" ||
			string(e.Result) != `{"receipt":["a"]}` || o.Result != nil {
			t.Errorf("have %+v, error %+v", o, e)
		}
	})
}

// TestFirstFinalWins says the same, and something else, after the first final report.
func TestFirstFinalWins(t *testing.T) {
	with(t, nil, func(b *bed) {
		o := b.create(endOfDay)
		b.report(o.ID, `"state":"COMPLETED","result":{"outcome":"accepted"}`)
		first := b.do("GET", base+"/"+o.ID, "").body
		b.sleep(time.Second)
		b.report(o.ID, `"state":"COMPLETED","result":{"outcome":"accepted"}`)
		if strings.Contains(b.log.String(), "contradicting") {
			t.Error("a repetition was taken for a contradiction")
		}
		b.report(o.ID, `"state":"FAILED","error":{"code":"busy","message":"m","executed":"no"}`)
		b.report(o.ID, `"state":"RUNNING"`)
		if got := b.do("GET", base+"/"+o.ID, "").body; got != first {
			t.Errorf("have %s\nwant %s", got, first)
		}
		if !strings.Contains(b.log.String(), "contradicting") {
			t.Error("the contradiction is not in the log")
		}
	})
}

func TestReportsThatAreNotTheTerminals(t *testing.T) {
	with(t, nil, func(b *bed) {
		o := b.create(endOfDay)
		completed := fmt.Sprintf(`{"operation_id":%q,"terminal_id":%%q,"state":"COMPLETED"}`, o.ID)
		for what, publish := range map[string]func(){
			"another terminal's topic": func() {
				b.broker.Publish(other, transport.Reports, fmt.Appendf(nil, completed, other), false)
			},
			"another terminal's topic, this one's name": func() {
				b.broker.Publish(other, transport.Reports, fmt.Appendf(nil, completed, terminal), false)
			},
			"another terminal's name": func() {
				b.broker.Publish(terminal, transport.Reports, fmt.Appendf(nil, completed, other), false)
			},
			"unknown operation": func() { b.report("1", `"state":"COMPLETED"`) },
			"malformed":         func() { b.say(transport.Reports, `{"operation_id":`) },
			"local":             func() { b.report(o.ID, `"state":"COMPLETED","operation":"end_of_day","origin":"local"`) },
			"progress of another terminal": func() {
				b.broker.Publish(other, transport.Reports, fmt.Appendf(nil, `{"operation_id":%q,"terminal_id":%q,"state":"ACCEPTED"}`, o.ID, other), false)
			},
		} {
			publish()
			synctest.Wait()
			if got := b.wantStatus(o.ID, "PENDING"); !got.AcceptedAt.IsZero() {
				t.Errorf("%s: was taken for progress", what)
			}
		}
		if n := strings.Count(b.log.String(), "dropped"); n != 7 {
			t.Errorf("%d were audited, want 7:\n%s", n, b.log)
		}
		if n := b.broker.Unacknowledged("cloud"); n != 0 {
			t.Errorf("%d messages stay unacknowledged", n)
		}
	})
}

func TestRetainedReport(t *testing.T) {
	with(t, nil, func(b *bed) {
		b.broker.Down()
		b.broker.Forget() // no session: only the retained copy will be delivered
		b.broker.Publish(terminal, transport.Reports, []byte(`{"operation_id":"L1","terminal_id":"P11223351-T0013","operation":"end_of_day","state":"COMPLETED","origin":"local"}`), true)
		b.broker.Up()
		b.sleep(minute)
		if a := b.do("GET", base, ""); a.body != "[]" || !strings.Contains(b.log.String(), "retained") {
			t.Errorf("have %v\n%s", a, b.log)
		}
	})
}

// TestTimes lets virtual time pass to right before and right after the moment
// an operation becomes TIMEOUT.
func TestTimes(t *testing.T) {
	running := func(at ...time.Duration) map[time.Duration]string {
		reports := make(map[time.Duration]string)
		for _, d := range at {
			reports[d] = `"state":"RUNNING"`
		}
		return reports
	}
	every := func(step, end time.Duration) (at []time.Duration) {
		for d := step; d < end; d += step {
			at = append(at, d)
		}
		return at
	}
	tests := []struct {
		name    string
		body    string
		prepare func(*bed)
		reports map[time.Duration]string
		timeout time.Duration
		code    string
	}{
		{"never heard", endOfDay, nil, nil, 65 * time.Second, "terminal_unreachable"},
		{"heard early: not before the start deadline", endOfDay, nil, running(time.Second), 65 * time.Second, "terminal_no_response"},
		{"heard late", endOfDay, nil, running(time.Second, 50*time.Second), 110 * time.Second, "terminal_no_response"},
		{"accepted only", endOfDay, nil, map[time.Duration]string{40 * time.Second: `"state":"ACCEPTED"`}, 100 * time.Second, "terminal_no_response"},
		{"hard limit", endOfDay, nil, running(every(20*time.Second, 10*minute)...), 10 * minute, "terminal_no_response"},
		{"hard limit of open_menu", strings.Replace(endOfDay, "end_of_day", "open_menu", 1), nil, running(every(20*time.Second, 3*minute)...), 3 * minute, "terminal_no_response"},
		{"timeout_seconds", strings.Replace(endOfDay, "}", `,"timeout_seconds":90}`, 1), nil, running(every(20*time.Second, 90*time.Second)...), 90 * time.Second, "terminal_no_response"},
		{"short silence window: not before the start deadline", endOfDay, func(b *bed) { b.times.SilenceWindow = 10 * time.Second }, running(time.Second), 65 * time.Second, "terminal_no_response"},
		{"long start deadline: keeps its distance from the hard limit", strings.Replace(endOfDay, "}", `,"timeout_seconds":70}`, 1),
			func(b *bed) { b.times.StartDeadline = 20 * minute }, nil, 70 * time.Second, "terminal_unreachable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			with(t, func(b *bed) {
				if tt.prepare != nil {
					tt.prepare(b)
				}
			}, func(b *bed) {
				o := b.create(tt.body)
				if latest := o.CreatedAt.Add(tt.timeout - 5*time.Second); o.ExpiresAt.After(latest) {
					t.Errorf("may start until %v, want %v at the latest", o.ExpiresAt, latest)
				}
				var passed time.Duration
				for _, at := range slices.Sorted(maps.Keys(tt.reports)) {
					b.sleep(at - passed)
					passed = at
					b.report(o.ID, tt.reports[at])
				}
				b.sleep(tt.timeout - passed - time.Millisecond)
				b.wantStatus(o.ID, "PENDING")
				b.sleep(b.times.Sweep)
				o = b.wantStatus(o.ID, "TIMEOUT")
				if o.Error == nil || o.Error.Code != tt.code || o.UpdatedBy != "system" || o.Result != nil {
					t.Errorf("have %+v, error %+v", o, o.Error)
				}
			})
		})
	}
}

func TestRetryAfter(t *testing.T) {
	with(t, sweepLate, func(b *bed) {
		o := b.create(endOfDay)
		wait := func(d time.Duration, want string) {
			t.Helper()
			b.sleep(d)
			a := b.post(endOfDay)
			if a.status != 409 || a.header.Get("Retry-After") != want {
				t.Errorf("have %v, Retry-After %q, want %s", a, a.header.Get("Retry-After"), want)
			}
			if !strings.Contains(a.body, o.ID) {
				t.Errorf("have %v, want it to name the pending operation", a)
			}
		}
		wait(0, "65")
		wait(time.Millisecond, "65") // rounded up
		wait(999*time.Millisecond, "64")
		wait(63*time.Second+500*time.Millisecond, "1")
		wait(499*time.Millisecond, "1") // never 0
		// The deadline has come: nobody else is needed to see it.
		b.sleep(time.Millisecond)
		second := b.create(endOfDay)
		b.wantStatus(o.ID, "TIMEOUT")
		b.wantStatus(second.ID, "PENDING")
		if want := `msg="operation timed out" operation=` + o.ID; strings.Count(b.log.String(), want) != 1 {
			t.Errorf("want one %s in the log\n%s", want, b.log)
		}
	})
}

func TestRetryAfterFollowsReports(t *testing.T) {
	with(t, nil, func(b *bed) {
		o := b.create(endOfDay)
		b.sleep(40 * time.Second)
		b.report(o.ID, `"state":"RUNNING"`)
		if a := b.post(endOfDay); a.header.Get("Retry-After") != "60" {
			t.Errorf("Retry-After is %q, want the silence window", a.header.Get("Retry-After"))
		}
	})
}

// TestSilenceOfOurOwn: while the dispatcher cannot hear, silence says nothing.
func TestSilenceOfOurOwn(t *testing.T) {
	with(t, nil, func(b *bed) {
		o := b.create(endOfDay)
		b.report(o.ID, `"state":"RUNNING"`)
		b.broker.Down()
		b.sleep(5 * minute)
		b.wantStatus(o.ID, "PENDING")
		b.broker.Up()
		b.sleep(time.Second) // the broker's pause: connected again
		if a := b.post(endOfDay); a.status != 409 || a.header.Get("Retry-After") != "60" {
			t.Errorf("have %v, Retry-After %q, want a fresh window in the POST", a, a.header.Get("Retry-After"))
		}
		b.sleep(58 * time.Second)
		b.wantStatus(o.ID, "PENDING")
		b.sleep(4 * time.Second)
		b.wantStatus(o.ID, "TIMEOUT")
	})
}

func TestSilenceOfOurOwnInThePOST(t *testing.T) {
	with(t, sweepLate, func(b *bed) {
		o := b.create(endOfDay)
		b.report(o.ID, `"state":"RUNNING"`)
		b.broker.Down()
		b.sleep(5 * minute)
		b.wantRefused(b.post(endOfDay), 503)
		b.wantStatus(o.ID, "PENDING") // not expired by that POST
		b.broker.Up()
		b.sleep(time.Second)
		b.wantRefused(b.post(endOfDay), 409)
		b.sleep(61 * time.Second)
		b.create(endOfDay)
	})
}

// The database is busy, and the broker goes while a POST waits for it: nobody has
// listened when the deadline came.
func TestBrokerGoesWhileThePOSTWaits(t *testing.T) {
	with(t, sweepLate, func(b *bed) {
		o := b.create(endOfDay)
		b.report(o.ID, `"state":"RUNNING"`) // TIMEOUT would be after 65 s
		b.sleep(63 * time.Second)
		var waiting sync.WaitGroup
		waiting.Go(func() {
			b.store.Create(context.Background(), store.New{
				ID: "busy", AccountID: account, TerminalID: other, Operation: "open_menu", Parameters: json.RawMessage(`{}`),
				Start: time.Minute, Grace: time.Second, Hard: 10 * time.Minute, Listening: func() bool { return true },
				Answer: func(store.Operation) []byte { time.Sleep(5 * time.Second); return nil },
			})
		})
		waiting.Go(func() { time.Sleep(time.Second); b.broker.Down() })
		b.sleep(time.Millisecond) // the store is busy
		b.wantRefused(b.post(endOfDay), 503)
		waiting.Wait()
		b.wantStatus(o.ID, "PENDING")
	})
}

func TestHardLimitWhileNobodyListens(t *testing.T) {
	with(t, nil, func(b *bed) {
		o := menu(b)
		b.broker.Down()
		b.sleep(3*minute - time.Second)
		b.wantStatus(o.ID, "PENDING")
		b.sleep(3 * time.Second)
		b.wantStatus(o.ID, "TIMEOUT")
	})
}

func TestRestartInMidFlight(t *testing.T) {
	with(t, nil, func(b *bed) {
		o := b.create(endOfDay)
		b.report(o.ID, `"state":"RUNNING","message":"closing"`)
		b.stop()
		time.Sleep(3 * minute)
		b.start()
		if got := b.wantStatus(o.ID, "PENDING"); got.Progress.Message != "closing" {
			t.Errorf("have %+v", got)
		}
		if a := b.post(endOfDay); a.status != 409 || a.header.Get("Retry-After") != "60" {
			t.Errorf("have %v, Retry-After %q, want a fresh window", a, a.header.Get("Retry-After"))
		}
		b.sleep(50 * time.Second)
		b.report(o.ID, `"state":"RUNNING"`)
		// The hard limit is absolute: ten minutes from the beginning, restart or not.
		b.sleep(50 * time.Second)
		b.report(o.ID, `"state":"COMPLETED","result":{"outcome":"accepted"}`)
		b.wantStatus(o.ID, "COMPLETED")

		o = b.create(endOfDay)
		created := time.Now()
		b.stop()
		time.Sleep(9*minute + 50*time.Second)
		b.start()
		b.wantStatus(o.ID, "PENDING")
		b.sleep(10*minute - time.Since(created) - 2*time.Second)
		b.wantStatus(o.ID, "PENDING")
		b.sleep(4 * time.Second)
		b.wantStatus(o.ID, "TIMEOUT")
	})
}

func TestLateResults(t *testing.T) {
	for _, tt := range []struct{ name, report, late string }{
		{"completed", `"state":"COMPLETED","effect":"done","result":{"outcome":"accepted"}`, `{"effect":"done","result":{"outcome":"accepted"},"state":"COMPLETED"}`},
		{"failed", `"state":"FAILED","error":{"code":"expired","message":"m","executed":"no"}`, `{"error":{"code":"expired","executed":"no","message":"m"},"state":"FAILED"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			with(t, nil, func(b *bed) {
				o := b.create(endOfDay)
				b.sleep(2 * minute)
				b.wantStatus(o.ID, "TIMEOUT")
				b.create(endOfDay)
				b.report(o.ID, `"state":"RUNNING"`)
				b.report(o.ID, tt.report)
				got := b.wantStatus(o.ID, "TIMEOUT")
				if string(got.LateResult) != tt.late || !got.LateResultAt.Equal(time.Now()) || got.UpdatedBy != "terminal" ||
					got.Result != nil || got.Error.Code != "terminal_unreachable" {
					t.Errorf("have %+v, late %s", got, got.LateResult)
				}
				// The first one counts here too.
				first := b.do("GET", base+"/"+o.ID, "").body
				b.sleep(time.Second)
				b.report(o.ID, tt.report)
				b.report(o.ID, `"state":"COMPLETED","result":{"outcome":"another"}`)
				if again := b.do("GET", base+"/"+o.ID, "").body; again != first {
					t.Errorf("have %s\nwant %s", again, first)
				}
			})
		})
	}
}

func TestLocalOperations(t *testing.T) {
	with(t, nil, func(b *bed) {
		b.report("L1", `"state":"RUNNING","operation":"end_of_day","origin":"local"`)
		if a := b.do("GET", base, ""); a.body != "[]" {
			t.Fatalf("progress was stored: %v", a)
		}
		done := `"state":"COMPLETED","operation":"end_of_day","origin":"local","created_by":"anna","effect":"done","message":"m","result":{"outcome":"accepted"}`
		b.report("L1", done)
		b.report("L1", done)
		b.report("L2", `"state":"FAILED","operation":"open_menu","origin":"local","error":{"code":"busy","message":"m","executed":"no"}`)
		b.report("L3", `"state":"COMPLETED","operation":"reboot","origin":"local"`)
		b.report("L1", `"state":"FAILED","error":{"code":"busy","message":"m","executed":"no"}`) // not local: not its operation
		b.broker.Publish("P11223351-T0099", transport.Reports, []byte(`{"operation_id":"L4","terminal_id":"P11223351-T0099","state":"COMPLETED","operation":"end_of_day","origin":"local"}`), false)
		synctest.Wait()
		one, two := b.get("L1"), b.get("L2")
		if one.Status != "COMPLETED" || one.Origin != "local" || one.CreatedBy != "local:anna" || one.AccountID != account || one.TerminalID != terminal ||
			one.Effect != "done" || string(one.Result) != `{"outcome":"accepted"}` || one.Progress.Message != "m" || one.UpdatedBy != "terminal" {
			t.Errorf("have %+v", one)
		}
		if two.Status != "FAILED" || two.CreatedBy != "local:unknown" || two.Error.Code != "busy" {
			t.Errorf("have %+v", two)
		}
		if all := decode[[]operation](t, b.do("GET", base, "").body); len(all) != 2 {
			t.Errorf("have %+v", all)
		}
		b.create(endOfDay) // they occupy nobody
	})
}

// TestSlowAcknowledgement: an answer does not wait for the broker longer than
// 2 s, and the command is published again until it is acknowledged.
func TestSlowAcknowledgement(t *testing.T) {
	with(t, nil, func(b *bed) {
		slow := func(p transporttest.Published) (ack, delivery time.Duration) {
			if p.Kind == transport.Commands {
				ack = time.Hour
			}
			return ack, 0
		}
		b.broker.Delay(slow)
		before := time.Now()
		o := b.create(endOfDay)
		if took := time.Since(before); took != 2*time.Second {
			t.Errorf("the answer took %v, want 2 s", took)
		}
		b.sleep(10 * time.Second)
		if n := len(b.commands()); n < 3 {
			t.Fatalf("published %d times", n)
		}
		all := b.broker.PublishedOn(terminal, transport.Commands)
		for _, p := range all {
			if string(p.Payload) != string(all[0].Payload) {
				t.Errorf("have %s and %s", p.Payload, all[0].Payload)
			}
		}
		b.broker.Delay(nil)
		b.sleep(5 * time.Second)
		n := len(b.commands())
		b.sleep(20 * time.Second)
		b.wantCommands(n) // acknowledged: no more
		b.wantStatus(o.ID, "PENDING")
	})
}

func TestNoCommandIsPublishedAfterItExpired(t *testing.T) {
	with(t, nil, func(b *bed) {
		b.broker.Delay(func(transporttest.Published) (ack, delivery time.Duration) { return time.Hour, 0 })
		o := b.create(endOfDay)
		b.sleep(3 * minute)
		all := b.broker.PublishedOn(terminal, transport.Commands)
		if last := all[len(all)-1].At; len(all) < 10 || !last.Before(o.ExpiresAt) || o.ExpiresAt.Sub(last) > 5*time.Second {
			t.Errorf("published %d times, last at %v, expires at %v", len(all), last, o.ExpiresAt)
		}
	})
}

// TestNoneOfManyIsPublishedAfterItExpired: a broker that acknowledges nothing
// makes the attempts so slow that many wait their turn beyond their time.
func TestNoneOfManyIsPublishedAfterItExpired(t *testing.T) {
	with(t, nil, func(b *bed) {
		terminals := make([]string, 200)
		for i := range terminals {
			terminals[i] = fmt.Sprintf("%s-M%04d", account, i)
		}
		if err := b.store.AddTerminals(b.t.Context(), account, terminals...); err != nil {
			t.Fatal(err)
		}
		b.broker.Delay(func(transporttest.Published) (ack, delivery time.Duration) { return time.Hour, 0 })
		answers := parallel(len(terminals), func(i int) answer {
			return b.post(strings.Replace(endOfDay, terminal, terminals[i], 1))
		})
		b.sleep(3 * minute)
		published := 0
		for i, a := range answers {
			o := decode[operation](t, a.body)
			for _, p := range b.broker.PublishedOn(terminals[i], transport.Commands) {
				published++
				if !p.At.Before(o.ExpiresAt) {
					t.Errorf("%s: published at %v, expired at %v", terminals[i], p.At, o.ExpiresAt)
				}
			}
		}
		if published < 2*len(terminals) {
			t.Errorf("%d commands were published, want each again and again", published)
		}
	})
}

func TestAcceptedCommandIsNotPublishedAgain(t *testing.T) {
	with(t, nil, func(b *bed) {
		b.broker.Delay(func(transporttest.Published) (ack, delivery time.Duration) { return time.Hour, 0 })
		o := b.create(endOfDay)
		b.report(o.ID, `"state":"ACCEPTED"`)
		b.sleep(2 * time.Second) // an attempt that was under way
		n := len(b.commands())
		b.sleep(30 * time.Second)
		b.wantCommands(n)
		b.restart()
		b.sleep(10 * time.Second)
		b.wantCommands(n)
	})
}

// TestAcknowledgementIsLost: the connection breaks with the PUBACK.
func TestAcknowledgementIsLost(t *testing.T) {
	with(t, nil, func(b *bed) {
		b.broker.LoseAcks(1)
		o := b.create(endOfDay)
		b.wantCommands(1)
		b.sleep(5 * time.Second)
		b.wantCommands(2)
		if all := b.commands(); all[0] != all[1] || all[0].OperationID != o.ID {
			t.Errorf("have %+v", all)
		}
	})
}

func TestCommandsArePublishedAgainAtStart(t *testing.T) {
	with(t, nil, func(b *bed) {
		o := b.create(endOfDay)
		b.wantCommands(1)
		b.restart()
		b.wantCommands(2)
		b.broker.Cut("cloud") // not a start: this process knows that it was acknowledged
		b.sleep(10 * time.Second)
		b.wantCommands(2)
		b.stop()
		time.Sleep(time.Until(o.ExpiresAt) + time.Millisecond)
		b.start()
		b.wantCommands(2) // expired
		if all := b.commands(); all[0] != all[1] {
			t.Errorf("have %+v, want the same command twice", all)
		}
	})
}

// TestReportIsCommittedBeforeItIsAcknowledged: a store that cannot write keeps
// the report at the broker.
func TestReportIsCommittedBeforeItIsAcknowledged(t *testing.T) {
	with(t, nil, func(b *bed) {
		o := b.create(endOfDay)
		if err := b.store.Close(); err != nil {
			t.Fatal(err)
		}
		b.report(o.ID, `"state":"COMPLETED"`)
		if n := b.broker.Unacknowledged("cloud"); n != 1 {
			t.Fatalf("%d messages wait at the broker, want the report", n)
		}
		b.restart()
		b.sleep(minute)
		b.wantStatus(o.ID, "COMPLETED")
		if n := b.broker.Unacknowledged("cloud"); n != 0 {
			t.Errorf("%d messages wait at the broker", n)
		}
	})
}

func (b *bed) welcome(nonce string) transport.WelcomeMessage {
	b.t.Helper()
	b.say(transport.Hello, fmt.Sprintf(`{"nonce":%q,"journal_id":"j"}`, nonce))
	all := b.broker.PublishedOn(terminal, transport.Welcome)
	if len(all) == 0 {
		b.t.Fatalf("no welcome\n%s", b.log)
	}
	last := all[len(all)-1]
	if len(last.Payload) > transport.MaxPayload {
		b.t.Fatalf("the welcome has %d bytes", len(last.Payload))
	}
	w, err := transport.DecodeWelcome(last.Payload)
	if err != nil || w.Nonce != nonce || !w.ServerTime.Equal(time.Now()) || last.Retained {
		b.t.Fatalf("have %v, %+v", err, w)
	}
	return w
}

func TestWelcome(t *testing.T) {
	with(t, nil, func(b *bed) {
		if w := b.welcome("1"); len(w.Pending) != 0 || len(w.Wanted) != 0 {
			t.Errorf("have %+v", w)
		}
		late := b.create(endOfDay)
		b.sleep(2 * minute)
		o := b.create(strings.Replace(endOfDay, "}", `,"parameters":{"operator_id":"anna"}}`, 1))
		w := b.welcome("2")
		if len(w.Pending) != 1 || w.Pending[0].Command != b.commands()[1] || !w.Pending[0].AcceptedAt.IsZero() || !slices.Equal(w.Wanted, []string{late.ID}) {
			t.Errorf("have %+v", w)
		}
		b.report(o.ID, `"state":"ACCEPTED"`)
		accepted := time.Now()
		b.sleep(time.Second)
		if w := b.welcome("3"); len(w.Pending) != 1 || !w.Pending[0].AcceptedAt.Equal(accepted) || w.Pending[0].Running {
			t.Errorf("have %+v", w)
		}
		b.report(o.ID, `"state":"RUNNING"`)
		if w := b.welcome("running"); len(w.Pending) != 1 || !w.Pending[0].AcceptedAt.Equal(accepted) || !w.Pending[0].Running {
			t.Errorf("have %+v", w)
		}
		b.report(o.ID, `"state":"COMPLETED"`)
		if w := b.welcome("4"); len(w.Pending) != 0 || len(w.Wanted) != 1 {
			t.Errorf("have %+v", w)
		}
		b.report(late.ID, `"state":"COMPLETED"`)
		if w := b.welcome("5"); len(w.Wanted) != 0 {
			t.Errorf("have %+v", w)
		}
	})
}

func TestWelcomeWantsThirtyDays(t *testing.T) {
	seldom := func(b *bed) { b.times.Sweep, b.times.Republish = time.Hour, time.Hour }
	with(t, seldom, func(b *bed) {
		o := b.create(endOfDay)
		b.sleep(time.Hour)
		b.wantStatus(o.ID, "TIMEOUT")
		b.sleep(30*24*time.Hour - minute)
		if w := b.welcome("1"); len(w.Wanted) != 1 {
			t.Errorf("have %+v", w)
		}
		b.sleep(minute + time.Millisecond)
		if w := b.welcome("2"); len(w.Wanted) != 0 {
			t.Errorf("have %+v", w)
		}
	})
}

func TestWelcomeIsBounded(t *testing.T) {
	with(t, func(b *bed) { b.times.Sweep, b.times.Republish = time.Hour, time.Hour }, func(b *bed) {
		var newest operation
		for range 1010 { // each ends the one before
			newest = b.create(strings.Replace(getLogs, "}", `,"parameters":{"operator_id":"`+strings.Repeat("ä", 128)+`"}}`, 1))
			b.sleep(70 * time.Second)
		}
		b.create(getLogs)
		w := b.welcome(strings.Repeat("n", 128))
		if len(w.Wanted) != 1000 || w.Wanted[0] != newest.ID || len(w.Pending) != 1 {
			t.Errorf("%d are wanted, %d pending", len(w.Wanted), len(w.Pending))
		}
	})
}

func TestHellosThatAreNotAnswered(t *testing.T) {
	with(t, nil, func(b *bed) {
		b.say(transport.Hello, `{"nonce":""}`)
		b.say(transport.Hello, `{"nonce":"`+strings.Repeat("n", 129)+`"}`)
		if got := b.broker.PublishedOn(terminal, transport.Welcome); len(got) != 0 {
			t.Errorf("have %v", got)
		}
	})
}

func TestPresence(t *testing.T) {
	online := func(journal string, n int) string {
		return fmt.Sprintf(`{"state":"online","journal_id":%q,"connection":%d,"device":{"protocol":"zvt","model":"m%d"}}`, journal, n, n)
	}
	offline := func(journal string, n int) string {
		return fmt.Sprintf(`{"state":"offline","journal_id":%q,"connection":%d}`, journal, n)
	}
	tests := []struct {
		name, message string
		state         string
		connection    uint64
		model         string
	}{
		{"first", online("a", 7), "online", 7, "m7"},
		{"older will", offline("a", 6), "online", 7, "m7"},
		{"older online", online("a", 6), "online", 7, "m7"},
		{"will of another journal", offline("b", 99), "online", 7, "m7"},
		{"malformed", `{"state":"asleep"}`, "online", 7, "m7"},
		{"its will", offline("a", 7), "offline", 7, "m7"},
		{"again", online("a", 8), "online", 8, "m8"},
		{"will of a connection whose online got lost", offline("a", 9), "offline", 9, "m8"},
		{"new journal", online("b", 1), "online", 1, "m1"},
		{"will of the old journal", offline("a", 9), "online", 1, "m1"},
	}
	with(t, nil, func(b *bed) {
		for _, tt := range tests {
			b.broker.Publish(terminal, transport.Presence, []byte(tt.message), true)
			synctest.Wait()
			all, err := b.store.Terminals(b.t.Context(), account)
			if err != nil {
				t.Fatal(err)
			}
			got := all[0]
			if got.ID != terminal || got.State != tt.state || got.Connection != tt.connection || !strings.Contains(string(got.Message), `"`+tt.model+`"`) {
				t.Errorf("%s: have %+v, message %s", tt.name, got, got.Message)
			}
		}
		b.broker.Publish("P11223351-T0099", transport.Presence, []byte(online("a", 1)), true)
		b.broker.Publish(terminal, transport.Presence, nil, true)
		synctest.Wait()
		if n := b.broker.Unacknowledged("cloud"); n != 0 {
			t.Errorf("%d messages stay unacknowledged", n)
		}
		if all, _ := b.store.Terminals(b.t.Context(), ""); len(all) != 3 || all[0].State != store.Online {
			t.Errorf("have %+v", all)
		}
	})
}

// TestLastSeen: the broker repeats what it kept at every start. An offline of
// long ago is no sign of life; an online one is: there was no last will.
func TestLastSeen(t *testing.T) {
	with(t, nil, func(b *bed) {
		want := func(what string, seen time.Time) {
			t.Helper()
			b.restart()
			all, err := b.store.Terminals(b.t.Context(), account)
			if err != nil {
				t.Fatal(err)
			}
			if got := all[0].SeenAt; !got.Equal(seen) {
				t.Errorf("%s: last seen %v, want %v", what, got, seen)
			}
		}
		b.broker.Publish(terminal, transport.Presence, []byte(`{"state":"online","journal_id":"j","connection":1}`), true)
		b.sleep(minute)
		want("online", time.Now())
		b.broker.Publish(terminal, transport.Presence, []byte(`{"state":"offline","journal_id":"j","connection":1}`), true)
		synctest.Wait()
		left := time.Now()
		b.sleep(minute)
		want("offline", left)
	})
}
