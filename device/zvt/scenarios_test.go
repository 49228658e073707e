package zvt_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device"
	"terminalops/device/trace"
	"terminalops/device/zvt/zvttest"
)

// scenario is what has to come of one operation with a terminal of zvttest.
type scenario struct {
	name   string
	op     device.Operation
	want   string        // on both links, see ending.String
	serial string        // in its place on a serial line
	tcp    string        // in its place on TCP
	acts   int           // how often the terminal really did what was asked for
	also   zvttest.What  // what it did once beside that; empty: nothing
	within time.Duration // at most so long, where that is the point
	check  func(t *testing.T, w *world, end ending)
}

// The outcomes of most scenarios.
const (
	done        = "done"
	opened      = "triggered"
	attended    = "triggered, attend"
	unknown     = "unknown  executed unknown"
	unknownYes  = "unknown  executed yes"
	unsupported = "unsupported 83 executed no"
)

// scenarios has a line for each scenario and operation that are worth it. Every
// scenario of zvttest is in it, which is tested.
var scenarios = []scenario{
	{name: "success", op: device.EndOfDay, want: done, acts: 1, within: 12 * time.Second, check: schemes},
	{name: "success", op: device.SendLogs, want: done, check: hasFiles("02-application.log", "03-ecr-protocol.log", "05-pin-pad.log", "status.txt")},
	{name: "success", op: device.CheckUpdate, want: done, acts: 1, check: update(device.UpdateInstalled)},
	{name: "success", op: device.OpenMenu, want: opened, acts: 1, within: 3 * time.Second},

	{name: "ingenico", op: device.EndOfDay, want: done, acts: 1, check: schemes},
	{name: "ingenico+unsupported-files", op: device.SendLogs, want: done, check: hasFiles("self-test.txt", "system-info.txt", "emv-status.txt", "status.txt")},
	{name: "no-totals", op: device.EndOfDay, want: done, acts: 1, check: noCounts},
	{name: "no-status-information", op: device.EndOfDay, want: done, acts: 1, check: schemes},
	{name: "no-status-information+repeat-unsupported", op: device.EndOfDay, want: done, acts: 1, check: noAmount},
	{name: "no-status-information+repeat-payment", op: device.EndOfDay, want: done, acts: 1, check: noAmount},
	{name: "no-receipt", op: device.EndOfDay, want: done, acts: 1, check: schemes},
	{name: "empty-batch", op: device.EndOfDay, want: done, acts: 1},
	{name: "amounts-of-10h", op: device.EndOfDay, want: done, acts: 1},
	{name: "count-overflow", op: device.EndOfDay, want: done, acts: 1, check: says("cannot count beyond 255")},
	{name: "print-lines", op: device.EndOfDay, want: done, acts: 1, check: umlauts},
	{name: "print-lines-latin1", op: device.EndOfDay, want: done, acts: 1, check: umlauts},
	{name: "print-lines-tail", op: device.EndOfDay, want: done, acts: 1, check: umlauts},
	{name: "text-block-latin1", op: device.EndOfDay, want: done, acts: 1, check: umlauts},
	{name: "long-receipt", op: device.EndOfDay, want: done, acts: 1, check: receiptOf(160)},
	{name: "unknown-bmp", op: device.EndOfDay, want: done, acts: 1, check: schemes},
	{name: "sets-clock", op: device.EndOfDay, want: done, acts: 1},
	{name: "dial-up", op: device.EndOfDay, want: done, acts: 1},
	{name: "prints-when-idle", op: device.EndOfDay, want: done, acts: 1, check: receiptOf(10)},
	{name: "automatic-end-of-day", op: device.EndOfDay, want: done, acts: 2},

	{name: "refused-77", op: device.EndOfDay, want: "refused 77 executed no", check: because("Kassenschnitt nicht möglich")},
	{name: "refused-83", op: device.EndOfDay, want: "refused 83 executed no"},
	{name: "refused-b8", op: device.EndOfDay, want: "refused B8 executed no"},
	{name: "refused-6a", op: device.EndOfDay, want: "refused 6A executed no"},
	{name: "refused-6c", op: device.EndOfDay, want: "refused 6C executed no"},
	{name: "refused-cc", op: device.EndOfDay, want: "refused CC executed no"},
	{name: "result-77", op: device.EndOfDay, want: "refused 77 executed no"},
	{name: "result-77-silence", op: device.EndOfDay, want: "refused 77 executed no", within: 40 * time.Second},
	{name: "result-77-abort", op: device.EndOfDay, want: "refused 77 executed no"},
	{name: "completion-77", op: device.EndOfDay, want: "refused 77 executed no"},
	{name: "wrong-password", op: device.EndOfDay, want: "refused 37 executed no"},
	{name: "abort-confirmed", op: device.EndOfDay, want: done, acts: 1},
	{name: "abort-swallowed", op: device.EndOfDay, want: done, acts: 1},

	{name: "busy", op: device.EndOfDay, want: "busy 9C executed no", within: 5 * time.Second},
	{name: "busy", op: device.SendLogs, want: "busy  executed no"},
	{name: "busy", op: device.CheckUpdate, want: "busy 9C executed no"},
	{name: "busy", op: device.OpenMenu, want: "busy 9C executed no"},
	{name: "status-9c", op: device.EndOfDay, want: done, acts: 1, check: notBefore(time.Minute)},
	{name: "status-e0", op: device.EndOfDay, want: done, acts: 1, check: notBefore(time.Minute)},
	{name: "status-dc", op: device.EndOfDay, want: done, acts: 1, check: notBefore(time.Minute)},
	{name: "status-51", op: device.EndOfDay, want: "refused 6B executed no"},
	{name: "status-f0", op: device.EndOfDay, want: done, acts: 1},
	{name: "locked", op: device.EndOfDay, want: "refused C1 executed no"},
	{name: "locked", op: device.SendLogs, want: "refused C1 executed no", check: hasFiles("status.txt")},
	{name: "locked", op: device.CheckUpdate, want: done, acts: 1},
	{name: "locked", op: device.OpenMenu, want: opened, acts: 1},
	{name: "locked-at-once", op: device.EndOfDay, want: "refused C1 executed no"},
	{name: "wrong-currency", op: device.EndOfDay, want: "refused 6F executed no"},
	{name: "registration-refused", op: device.EndOfDay, want: "refused 7D executed no"},
	{name: "no-status-enquiry", op: device.EndOfDay, want: done, acts: 1},

	{name: "update-follows", op: device.EndOfDay, want: done, acts: 1, also: zvttest.Update, check: says("update follows")},
	{name: "reboot-follows", op: device.EndOfDay, want: done, acts: 1, check: says("reboot follows")},

	{name: "drop-after-acceptance", op: device.EndOfDay, want: done, acts: 1, check: schemes},
	{name: "drop-refused", op: device.EndOfDay, want: unknown},
	{name: "drop-before-totals", op: device.EndOfDay, want: done, acts: 1, check: schemes},
	{name: "drop-before-completion", op: device.EndOfDay, want: done, acts: 1, check: receiptOf(10)},
	{name: "drop-before-completion+repeat-unsupported", op: device.EndOfDay, want: unknownYes, acts: 1, check: schemes},
	{name: "drop-before-completion+repeat-payment", op: device.EndOfDay, want: unknownYes, acts: 1, check: schemes},
	{name: "drop-at-completion", op: device.EndOfDay, want: done, acts: 1},
	{name: "unplugged", op: device.EndOfDay, want: done, acts: 1},
	{name: "silence-after-closing", op: device.EndOfDay, want: done, acts: 1, check: schemes},
	{name: "silence-after-closing+repeat-unsupported", op: device.EndOfDay, want: unknown, acts: 1},
	{name: "silent", op: device.EndOfDay, want: "error: unreachable", within: 16 * time.Second},
	{name: "silent", op: device.SendLogs, want: "error: unreachable"},
	{name: "mute", op: device.EndOfDay, want: unknown},
	{name: "late-acceptance", op: device.EndOfDay, want: done, acts: 1},
	{name: "late-acceptance", op: device.SendLogs, want: unknown, check: hasFiles("status.txt")},
	{name: "late-acceptance", op: device.CheckUpdate, want: done, acts: 1},
	{name: "late-acceptance", op: device.OpenMenu, want: opened, acts: 1},
	{name: "repeat-unsupported", op: device.EndOfDay, want: done, acts: 1},
	{name: "repeat-payment", op: device.EndOfDay, want: done, acts: 1},
	{name: "drop-before-totals+repeat-payment", op: device.EndOfDay, want: unknown, acts: 1},

	{name: "naive", op: device.EndOfDay, want: done, acts: 1},
	{name: "naive", op: device.CheckUpdate, want: done, acts: 1},
	{name: "naive", op: device.OpenMenu, want: opened, serial: unknown, acts: 1},
	{name: "answers-lost", op: device.EndOfDay, want: done, acts: 1},
	{name: "answers-lost", op: device.OpenMenu, want: opened, serial: unknown, acts: 1},
	{name: "ack-lost", op: device.EndOfDay, want: done, acts: 1},
	{name: "nak-twice", op: device.EndOfDay, want: done, acts: 1},
	{name: "nak-always", op: device.EndOfDay, serial: "error: not started", tcp: done, acts: 1},
	{name: "nak-always", op: device.SendLogs, serial: "error: not started", tcp: done},
	{name: "nak-always", op: device.CheckUpdate, serial: "error: not started", tcp: done, acts: 1},
	{name: "nak-always", op: device.OpenMenu, serial: "error: not started", tcp: opened, acts: 1},
	{name: "slow-ack", op: device.EndOfDay, want: done, acts: 1},
	{name: "wrong-crc", op: device.EndOfDay, want: done, acts: 1, check: schemes},
	{name: "half-frame", op: device.EndOfDay, want: done, acts: 1, check: schemes},
	{name: "trickle", op: device.EndOfDay, want: done, acts: 1, check: schemes},
	{name: "merged", op: device.EndOfDay, want: done, acts: 1},
	{name: "garbage", op: device.EndOfDay, want: done, acts: 1},
	{name: "duplicate-frames", op: device.EndOfDay, want: done, acts: 1, check: receiptOf(10)},
	{name: "stray-refusals", op: device.EndOfDay, want: done, acts: 1},

	{name: "update-none", op: device.CheckUpdate, want: done, acts: 1, check: update(device.UpdateNone)},
	{name: "update-none-stays", op: device.CheckUpdate, want: done, acts: 1, check: all(update(device.UpdateNone), notBefore(2*time.Minute))},
	{name: "update-started-e0", op: device.CheckUpdate, want: done, acts: 1, check: update(device.UpdateInstalled)},
	{name: "update-6a", op: device.CheckUpdate, want: "refused 6A executed no"},
	{name: "update-failed", op: device.CheckUpdate, want: "refused A1 executed no"},
	{name: "update-never-returns", op: device.CheckUpdate, want: "triggered", acts: 1, within: 42 * time.Minute, check: all(update(device.UpdateStarted), notBefore(40*time.Minute))},
	{name: "update-closes-batch", op: device.CheckUpdate, want: done, acts: 1, also: zvttest.EndOfDay, check: update(device.UpdateInstalled)},
	{name: "drop-update", op: device.CheckUpdate, want: done, acts: 1, check: update(device.UpdateInstalled)},

	{name: "menu-b", op: device.OpenMenu, want: attended, acts: 1, within: 3 * time.Second, check: attend(5 * time.Minute)},
	{name: "menu-b-endless", op: device.OpenMenu, want: attended, acts: 1, check: attend(3 * time.Minute)},
	{name: "menu-refused", op: device.OpenMenu, want: "refused 83 executed no"},
	{name: "drop-menu", op: device.OpenMenu, serial: attended, tcp: opened, acts: 1},

	{name: "files-interleaved", op: device.SendLogs, want: done, check: wholeLog},
	{name: "files-no-offset", op: device.SendLogs, want: done, check: wholeLog},
	{name: "files-ignore-offset", op: device.SendLogs, want: done, check: wholeLog},
	{name: "files-big", op: device.SendLogs, want: done, check: bigLog},
	{name: "files-fail", op: device.SendLogs, want: done, check: all(says("not whole"), hasFiles("02-application.log", "03-ecr-protocol.log", "05-pin-pad.log", "status.txt"))},
	{name: "files-abort", op: device.SendLogs, want: done, check: says("not whole")},
	{name: "files-drop", op: device.SendLogs, want: done, check: all(says("broken off"), hasFiles("02-application.log", "status.txt"))},
	{name: "files-unknown-84", op: device.SendLogs, want: done, check: hasFiles("02-application.log", "status.txt")},
	{name: "files-unknown-1e", op: device.SendLogs, want: done, check: hasFiles("02-application.log", "status.txt")},
	{name: "files-unknown-0f", op: device.SendLogs, want: done, check: hasFiles("02-application.log", "status.txt")},

	{name: "unsupported-end-of-day", op: device.EndOfDay, want: unsupported},
	{name: "unsupported-update", op: device.CheckUpdate, want: unsupported},
	{name: "unsupported-menu", op: device.OpenMenu, want: unsupported},
	{name: "unsupported-files", op: device.SendLogs, want: done, check: hasFiles("configuration.txt", "self-test.txt", "status.txt")},
	{name: "logs-by-configuration", op: device.SendLogs, want: done, check: hasFiles("configuration.txt", "status.txt")},
	{name: "logs-by-selftest", op: device.SendLogs, want: done, check: hasFiles("self-test.txt", "status.txt")},
	{name: "logs-by-system-info", op: device.SendLogs, want: done, check: hasFiles("system-info.txt", "status.txt")},
	{name: "logs-by-status", op: device.SendLogs, want: "unsupported  executed no", check: hasFiles("status.txt")},
}

// unfair are scenarios in which the simulated terminal complains of what no ECR
// could do better: it did not say 80 00, so it is not master, or what was
// answered did not reach it.
var unfair = map[string]bool{"mute": true}

func TestScenarios(t *testing.T) {
	for _, s := range scenarios {
		for _, serial := range []bool{true, false} {
			t.Run(s.name+"/"+string(s.op)+"/"+link(serial), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { s.run(t, serial) })
			})
		}
	}
}

func link(serial bool) string {
	if serial {
		return "serial"
	}
	return "tcp"
}

func (s scenario) run(t *testing.T, serial bool) {
	w := newWorld(t, s.name, serial)
	end, e := w.run(s.op)
	want := s.want
	switch {
	case serial && s.serial != "":
		want = s.serial
	case !serial && s.tcp != "":
		want = s.tcp
	}
	if got := end.String(); got != want {
		t.Errorf("ended %q, want %q: %v", got, want, why(end))
	}
	if s.within > 0 && end.took > s.within {
		t.Errorf("took %v, want at most %v", end.took, s.within)
	}
	if s.check != nil && end.err == nil {
		s.check(t, w, end)
	}
	w.hangUp()
	s.checkActs(w, end)
	if e.began > 1 {
		t.Errorf("began %d times", e.began)
	}
	if w.open > 0 && !end.outcome.Attend {
		t.Errorf("%d links left open", w.open)
	}
	if !unfair[s.name] {
		for _, v := range w.pt.Violations() {
			t.Errorf("violation: %s", v)
		}
	}
	w.checkTruth(s, end)
	w.checkMasked(e, end)
	w.checkEvidence(s.op, e, end)
}

// acting is what the terminal does for an operation.
var acting = map[device.Operation]zvttest.What{
	device.EndOfDay: zvttest.EndOfDay, device.CheckUpdate: zvttest.Update, device.OpenMenu: zvttest.Menu,
}

// checkActs counts in the terminal's own log, each kind for itself: a menu that
// opens in place of an end of day is none.
func (s scenario) checkActs(w *world, end ending) {
	w.t.Helper()
	for _, what := range []zvttest.What{zvttest.EndOfDay, zvttest.Update, zvttest.Menu} {
		want := 0
		if what == acting[s.op] && end.String() != "error: not started" {
			want = s.acts
		}
		if what == s.also {
			want++
		}
		if n := w.did(what); n != want {
			w.t.Errorf("%v %d times in the terminal's log, want %d", what, n, want)
		}
	}
}

func why(end ending) string {
	switch {
	case end.err != nil:
		return end.err.Error()
	case end.outcome.Failure != nil:
		return end.outcome.Failure.Message
	}
	return end.outcome.Message
}

// hangUp lets the terminal end what it is doing.
func (w *world) hangUp() {
	w.stop()
	w.serving.Wait()
}

// checkTruth compares the outcome with what the terminal really did.
func (w *world) checkTruth(s scenario, end ending) {
	w.t.Helper()
	var closed []zvttest.Record
	for _, r := range w.pt.Log() {
		if r.What == zvttest.EndOfDay {
			closed = append(closed, r)
		}
	}
	if f := end.outcome.Failure; f != nil && f.Executed == device.No && len(closed) > 0 {
		w.t.Errorf("executed no, but it closed the batch: %v", closed)
	}
	result, ok := end.outcome.Result.(*device.EndOfDayResult)
	if !ok {
		return
	}
	if len(closed) == 0 {
		w.t.Fatalf("a result, but no batch was closed")
	}
	last := closed[len(closed)-1]
	count, amount := last.Totals.Sum()
	if result.PurchasesAmount != nil && *result.PurchasesAmount != amount {
		w.t.Errorf("amount %d, want %d", *result.PurchasesAmount, amount)
	}
	if result.PurchasesCount != nil && *result.PurchasesCount != int64(count%256) {
		w.t.Errorf("count %d, want %d", *result.PurchasesCount, count%256)
	}
	if !result.TerminalTime.IsZero() && result.TerminalTime.Sub(last.At).Abs() > time.Minute {
		w.t.Errorf("terminal time %v, it closed at %v", result.TerminalTime, last.At)
	}
}

// checkMasked looks for card numbers in what leaves the adapter.
func (w *world) checkMasked(e *entry, end ending) {
	w.t.Helper()
	said := append([]string{why(end)}, e.texts...)
	for _, one := range e.evidence {
		said = append(said, string(one.Data))
	}
	for _, content := range end.spool.files {
		said = append(said, content)
	}
	for _, s := range said {
		if trace.Mask(s) != s {
			w.t.Errorf("not masked: %q", s)
		}
	}
}

// checkEvidence is a crash after the last message: what the dead process would
// have said, another one must be able to say from the journal alone.
func (w *world) checkEvidence(op device.Operation, e *entry, end ending) {
	w.t.Helper()
	if end.err != nil || op == device.SendLogs || op == device.CheckUpdate || e.began == 0 {
		return
	}
	w.restart()
	past := e.past()
	past.GiveUp = true
	opened := w.opened
	outcome, err := w.adapter.Resolve(w.t.Context(), e.request, past, e)
	if err != nil {
		w.t.Fatalf("from the evidence alone: %v", err)
	}
	outcome.Attend = end.outcome.Attend // whether a link is open is not in the evidence
	if !reflect.DeepEqual(outcome, end.outcome) {
		got, _ := json.Marshal(outcome)
		want, _ := json.Marshal(end.outcome)
		w.t.Errorf("from the evidence alone:\n%s\nwas:\n%s", got, want)
	}
	if w.opened != opened {
		w.t.Error("opened the link although it was to give up")
	}
}

// TestScenariosAreComplete: nobody adds a scenario and forgets this end.
func TestScenariosAreComplete(t *testing.T) {
	for _, s := range zvttest.Scenarios() {
		if !slices.ContainsFunc(scenarios, func(have scenario) bool { return have.name == s.Name }) {
			t.Errorf("scenario %s (%s) is not in the table", s.Name, s.Description)
		}
	}
}

// Checks.

func all(checks ...func(*testing.T, *world, ending)) func(*testing.T, *world, ending) {
	return func(t *testing.T, w *world, end ending) {
		t.Helper()
		for _, check := range checks {
			check(t, w, end)
		}
	}
}

func totalsOf(t *testing.T, end ending) *device.EndOfDayResult {
	t.Helper()
	r, ok := end.outcome.Result.(*device.EndOfDayResult)
	if !ok {
		t.Fatalf("result %T", end.outcome.Result)
	}
	return r
}

// schemes wants all that a simulated terminal tells of its batch.
func schemes(t *testing.T, _ *world, end ending) {
	t.Helper()
	r := totalsOf(t, end)
	want := []device.SchemeTotal{
		{Scheme: "girocard", Count: 23, Amount: 68450}, {Scheme: "Mastercard", Count: 9, Amount: 27300},
		{Scheme: "VISA", Count: 8, Amount: 25650}, {Scheme: "other", Count: 2, Amount: 2050},
	}
	if !reflect.DeepEqual(r.ByCardScheme, want) || r.PurchasesCount == nil || r.PurchasesAmount == nil {
		t.Errorf("by card scheme %v, want %v", r.ByCardScheme, want)
	}
	if r.TerminalTime.IsZero() || r.Currency != "EUR" {
		t.Errorf("terminal time %v, currency %q", r.TerminalTime, r.Currency)
	}
}

func noCounts(t *testing.T, _ *world, end ending) {
	t.Helper()
	if r := totalsOf(t, end); r.PurchasesCount != nil || r.ByCardScheme != nil || r.PurchasesAmount == nil {
		t.Errorf("%+v, want the amount and no counts", r)
	}
}

func noAmount(t *testing.T, _ *world, end ending) {
	t.Helper()
	if r := totalsOf(t, end); r.PurchasesAmount != nil || len(r.Receipt) == 0 {
		t.Errorf("%+v, want the receipt and no amount", r)
	}
}

func umlauts(t *testing.T, _ *world, end ending) {
	t.Helper()
	if text := strings.Join(totalsOf(t, end).Receipt, "\n"); !strings.ContainsAny(text, "äöüÄÖÜß") || strings.Contains(text, "\uFFFD") {
		t.Errorf("receipt without its umlauts:\n%s", text)
	}
}

func receiptOf(lines int) func(*testing.T, *world, ending) {
	return func(t *testing.T, _ *world, end ending) {
		t.Helper()
		r := totalsOf(t, end).Receipt
		if len(r) < lines {
			t.Errorf("receipt of %d lines, want at least %d", len(r), lines)
		}
		for i := 1; i < len(r); i++ {
			if strings.TrimSpace(r[i]) != "" && r[i] == r[i-1] {
				t.Errorf("line %d twice: %q", i, r[i])
			}
		}
	}
}

func says(text string) func(*testing.T, *world, ending) {
	return func(t *testing.T, _ *world, end ending) {
		t.Helper()
		if !strings.Contains(end.outcome.Message, text) {
			t.Errorf("message %q, want %q in it", end.outcome.Message, text)
		}
	}
}

func because(text string) func(*testing.T, *world, ending) {
	return func(t *testing.T, _ *world, end ending) {
		t.Helper()
		if f := end.outcome.Failure; f == nil || !strings.Contains(f.Message, text) {
			t.Errorf("failure %+v, want %q in it", f, text)
		}
	}
}

func notBefore(d time.Duration) func(*testing.T, *world, ending) {
	return func(t *testing.T, _ *world, end ending) {
		t.Helper()
		if end.took < d {
			t.Errorf("after %v, want not before %v", end.took, d)
		}
	}
}

func hasFiles(names ...string) func(*testing.T, *world, ending) {
	return func(t *testing.T, _ *world, end ending) {
		t.Helper()
		var got []string
		for name, content := range end.spool.files {
			got = append(got, name)
			if content == "" {
				t.Errorf("%s is empty", name)
			}
		}
		slices.Sort(got)
		if names := slices.Sorted(slices.Values(names)); !slices.Equal(got, names) {
			t.Errorf("files %v, want %v", got, names)
		}
	}
}

// wholeLog wants every line of the application log, its card number masked.
func wholeLog(t *testing.T, _ *world, end ending) {
	t.Helper()
	log := end.spool.files["02-application.log"]
	if !strings.HasPrefix(log, "000000 app: state 0010\r\n") || !strings.HasSuffix(log, "000059 app: state 3b10\r\n") ||
		strings.Count(log, "\n") != 62 || !strings.Contains(log, "4111 11** **** 1111") {
		t.Errorf("application log:\n%s", log)
	}
	if pin := end.spool.files["05-pin-pad.log"]; pin != "\x10\x02\x10\x10\x10\x03PIN-Pad\x00\x10" {
		t.Errorf("PIN-pad log %q", pin)
	}
}

func bigLog(t *testing.T, _ *world, end ending) {
	t.Helper()
	if log := end.spool.files["02-application.log"]; !strings.HasPrefix(log, "000000 app") || !strings.Contains(log, "\r\n003999 app") {
		t.Errorf("application log of %d bytes", len(log))
	}
}

func update(want device.Update) func(*testing.T, *world, ending) {
	return func(t *testing.T, w *world, end ending) {
		t.Helper()
		r, ok := end.outcome.Result.(*device.CheckUpdateResult)
		if !ok || r.Update != want || r.Before != "2.14.15" {
			t.Fatalf("result %+v, want %s", end.outcome.Result, want)
		}
		if now := w.pt.SoftwareVersion(); r.After != "" && r.After != now {
			t.Errorf("version %s, the terminal has %s", r.After, now)
		}
	}
}

// attend attends the open menu, and wants the terminal to be there afterwards.
func attend(d time.Duration) func(*testing.T, *world, ending) {
	return func(t *testing.T, w *world, end ending) {
		t.Helper()
		opened := end.outcome.Result.(*device.OpenMenuResult).OpenedAt
		if since := time.Since(opened); since < 0 || since > 2*time.Second {
			t.Errorf("opened %v ago", since)
		}
		start := time.Now()
		if err := w.adapter.Attend(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < d || took > d+10*time.Second {
			t.Errorf("attended for %v, want %v", took, d)
		}
		if w.open > 0 {
			t.Errorf("%d links left open", w.open)
		}
	}
}
