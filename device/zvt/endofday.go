package zvt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"terminalops/device"
	"terminalops/device/trace"
	"terminalops/device/zvt/apdu"
)

// nothingDone are the codes of 06 1E and 06 0F after which the terminal has not
// acted (zvt.md 4.0 and 4.18): the end of day was not possible, the host was not
// reached, somebody pressed the abort key, or the terminal is locked. Any other
// code leaves open what was done (our decision): an end of day that was sent to
// the host and then failed may be closed there.
var nothingDone = map[apdu.Code]bool{
	apdu.CodeWrongPassword:       true,
	apdu.CodeTurnoverFull:        true,
	apdu.CodeNotRegistered:       true,
	apdu.CodeAborted:             true,
	apdu.CodeWrongCurrency:       true,
	apdu.CodeEndOfDayNotPossible: true,
	apdu.CodeCommunication:       true,
	apdu.CodeNotPossible:         true,
	apdu.CodeProtocol:            true,
	apdu.CodeDialUp:              true,
	apdu.CodePleaseWait:          true,
	apdu.CodeReceiverNotReady:    true,
	apdu.CodeNoResponse:          true,
	apdu.CodeNoConnection:        true,
	apdu.CodePreAuthorisation:    true,
	apdu.CodePrinterNotReady:     true,
	apdu.CodeCardInserted:        true,
	// Locks: the state of the terminal (4.3) as the reason.
	0x51: true, // initialisation required
	0x62: true, // date or time incorrect
	0xB1: true, // memory full
	0xB2: true, // merchant journal full
	0xBF: true, // supply voltage
	0xC0: true, // card lock
	0xC1: true, // merchant card locked
	0xC2: true, // diagnosis required
	0xC4: true, // card profile invalid
	0xDF: true, // out of order
	0xE2: true, // card reader
	0xE4: true, // activation required
	0xF6: true, // OPT data missing
}

// refused is the failure of a command that was answered by 84 xx: it was not
// started.
func refused(code apdu.Code) *device.Failure {
	f := &device.Failure{Cause: device.Refused, Code: code.Hex(), Message: code.Error(), Executed: device.No}
	switch code {
	case apdu.CodeNotPossible:
		f.Cause, f.Message = device.Unsupported, "the terminal does not know this command (84 83)"
	case apdu.CodePleaseWait:
		f.Cause = device.Busy
	}
	return f
}

// failed is the failure of a command that ended with an error code after it was
// accepted. acted says that the terminal showed before that it did something.
func failed(e ending, acted bool) *device.Failure {
	code := e.code()
	f := &device.Failure{Cause: device.Unknown, Code: code.Hex(), Message: code.Error(), Executed: device.Perhaps}
	if e.Text != "" {
		f.Message += ": " + e.Text
	}
	switch {
	case acted:
		f.Executed = device.Yes
	case code == apdu.CodePleaseWait:
		f.Cause, f.Executed = device.Busy, device.No
	case nothingDone[code]:
		f.Cause, f.Executed = device.Refused, device.No
	}
	return f
}

// endOfDay is how an end of day ended, if the evidence shows it.
//
// A 04 0F with totals comes only after the closing ([S15] 2.16). Without its
// 06 0F it is not the end, but a failure after it cannot be "executed: no".
func (t *Terminal) endOfDay(a account) (device.Outcome, bool) {
	switch {
	case a.refused != nil:
		return device.Outcome{Failure: refused(a.refused.code())}, true
	case a.repeated != nil && a.completed == nil:
		return t.closed(a, "the end was not seen; the terminal repeated its totals afterwards"), true
	case a.negative != nil:
		return t.notClosed(a, ending{a.negative.Code, a.negative.Text}), true
	case a.aborted != nil:
		return t.notClosed(a, *a.aborted), true
	case a.completed == nil:
		return device.Outcome{}, false
	}
	switch a.completed.code() {
	case apdu.CodeOK:
		return t.closed(a, ""), true
	case apdu.CodeRemoteMaintenance:
		return t.closed(a, "update follows"), true
	case apdu.CodeDeviceMissing:
		return t.closed(a, "reboot follows"), true
	}
	return t.notClosed(a, *a.completed), true
}

// endOfDayInDoubt is what can be said of an end of day whose end nobody saw and
// nobody can tell any more.
func (t *Terminal) endOfDayInDoubt(a account) device.Outcome {
	f := &device.Failure{
		Cause: device.Unknown, Executed: device.Perhaps,
		Message: "the end of day was started, its end was not seen, and the terminal cannot say how it ended",
	}
	if a.acted() {
		f.Executed = device.Yes
		f.Message = "the terminal sent its totals, but its confirmation was not seen, and it cannot repeat it"
	}
	return t.withTotals(a, f)
}

// acted reports whether the terminal has sent totals.
func (a account) acted() bool {
	return a.totals != nil && (a.totals.Amount != nil || a.totals.Groups != nil)
}

func (t *Terminal) notClosed(a account, e ending) device.Outcome {
	f := failed(e, a.acted())
	if f.Executed == device.No {
		return device.Outcome{Failure: f}
	}
	return t.withTotals(a, f)
}

// withTotals is a failure with what the terminal said before.
func (t *Terminal) withTotals(a account, f *device.Failure) device.Outcome {
	o := device.Outcome{Failure: f}
	if a.acted() || len(a.lines) > 0 {
		o = t.closed(a, "")
		o.Effect, o.Failure = "", f
	}
	return o
}

// closed is the outcome of an end of day that is done.
func (t *Terminal) closed(a account, message string) device.Outcome {
	result := &device.EndOfDayResult{}
	if t.o.Receipt == ReceiptReport {
		result.Receipt, result.ReceiptTruncated = trace.MaskLines(a.lines), a.truncated
	}
	remarks := []string{}
	if message != "" {
		remarks = append(remarks, message)
	}
	said, at := a.totals, a.totalsAt
	if a.repeated != nil {
		said, at = a.repeated, a.repeatedAt
	}
	if said != nil {
		if difference := said.fill(result); difference != "" {
			remarks = append(remarks, difference)
		}
		if said.Time != nil {
			result.TerminalTime = said.Time.near(at, t.o.Location)
		}
	}
	return device.Outcome{Effect: device.Done, Message: strings.Join(remarks, "; "), Result: result}
}

// fill puts the totals into a result. It returns a remark if the terminal
// contradicts itself.
func (t totals) fill(r *device.EndOfDayResult) (difference string) {
	r.Currency = t.Currency
	r.PurchasesAmount = t.Amount
	if t.Groups == nil {
		return ""
	}
	var sum cardSum
	for i, g := range t.Groups {
		sum.Count += g.Count
		sum.Amount += g.Amount
		if g != (cardSum{}) && i < len(apdu.GroupNames) {
			r.ByCardScheme = append(r.ByCardScheme, device.SchemeTotal{Scheme: apdu.GroupNames[i], Count: g.Count, Amount: g.Amount})
		}
	}
	r.PurchasesCount = &sum.Count
	if t.Amount == nil {
		r.PurchasesAmount = &sum.Amount
	}
	receipts := int64(t.Last - t.First + 1)
	switch {
	case t.Amount != nil && *t.Amount != sum.Amount:
		return fmt.Sprintf("the terminal's total is %d, the sum of its card groups %d", *t.Amount, sum.Amount)
	case receipts-sum.Count >= countModulus:
		return fmt.Sprintf("the terminal counts %d payments, but has %d receipts: it cannot count beyond 255 in a card group", sum.Count, receipts)
	}
	return ""
}

// countModulus: a count of BMP 60 has one byte, which begins again at 0.
const countModulus = 256

// near is the time on the terminal's clock that lies nearest to a known time: a
// terminal mostly tells no year (zvt.md 4.6).
func (c clock) near(at time.Time, in *time.Location) time.Time {
	years := []int{c.Year}
	if c.Year == 0 {
		y := at.In(in).Year()
		years = []int{y, y - 1, y + 1}
	}
	var nearest time.Time
	for _, year := range years {
		t := time.Date(year, time.Month(c.Month), c.Day, c.Hour, c.Minute, c.Second, 0, in)
		if t.Day() != c.Day {
			continue // 29 February
		}
		if nearest.IsZero() || t.Sub(at).Abs() < nearest.Sub(at).Abs() {
			nearest = t
		}
	}
	return nearest
}

// mark is what Begin is given, to be compared with in Resolve.
//
// It holds only what is known already. To ask for the last transaction before
// each end of day (06 20 with service byte 03) would tell more, but the terminal
// may print a customer's receipt on it, and one that takes 06 20 and does not
// come back cannot be closed for T4 (our decision).
type mark struct {
	// Version is the software version before an update.
	Version string `json:"version,omitempty"`
	// Last is the end of day before this one, if this process has seen it.
	Last *totals `json:"last,omitempty"`
}

// clockTolerance is how far the terminal's clock may be from the cloud's.
const clockTolerance = 2 * time.Minute

// closingTakes is how long after its last sign of life an end of day may have
// been closed, at most (our decision; minutes were seen, zvt.md 4.6). What was
// closed later was closed by somebody else.
const closingTakes = 10 * time.Minute

// repeatTotals asks the terminal for the totals of an end of day whose end was
// not seen.
func (t *Terminal) repeatTotals(ctx context.Context, d *dialogue, l *ledger, p device.Past) error {
	asked := time.Now()
	for _, fields := range []apdu.Fields{
		{apdu.ServiceByte(apdu.RepeatStatusInformation | apdu.RepeatNoPrint)},
		{apdu.ServiceByte(apdu.RepeatStatusInformation), apdu.Container(apdu.ReceiptID(apdu.ReceiptEndOfDay))},
	} {
		said, err := t.repeat(ctx, d, exchange{command: apdu.RepeatReceipt{Password: t.password, Fields: fields}})
		if err != nil {
			return err
		}
		now := p.Now.Add(time.Since(asked))
		if said != nil && t.isOurs(*said, l.account(), readMark(p).Last, p.StartedAt, now) {
			l.record(kindRepeated, said)
			return nil
		}
	}
	return nil
}

// lacksTotals: the end of day is done, and nobody has heard its totals.
func (a account) lacksTotals() bool {
	return a.totals == nil && a.repeated == nil && a.negative == nil && a.completed != nil && a.completed.code() == apdu.CodeOK
}

// askedFor is how long a terminal may be silent while it repeats totals for an
// end of day that is done. The report waits for it.
const askedFor = 3 * time.Second

// askTotals asks for the totals of an end of day that is done and whose 04 0F did
// not come: of a bad line, or the terminal has none. Nothing depends on it but
// the numbers in the report, so it is asked once, in the way that prints nothing.
// now is by the clock of the evidence.
func (t *Terminal) askTotals(ctx context.Context, d *dialogue, l *ledger, before *totals, now time.Time) {
	a := l.account()
	if !a.lacksTotals() {
		return
	}
	fields := apdu.Fields{apdu.ServiceByte(apdu.RepeatStatusInformation | apdu.RepeatNoPrint)}
	said, err := t.repeat(ctx, d, exchange{command: apdu.RepeatReceipt{Password: t.password, Fields: fields}, limit: askedFor})
	switch {
	case err != nil:
		d.log.Info("an end of day without totals", "why", err)
	case said != nil && t.isOurs(*said, a, before, a.acceptedAt, now):
		l.record(kindRepeated, said)
	}
}

// repeat has Repeat Receipt carried out. What the terminal sends is the last 04
// 0F it sent, whatever that belonged to (zvt.md 4.17): it counts only if it can
// be nothing else than ours. Nil: it sends none.
func (t *Terminal) repeat(ctx context.Context, d *dialogue, x exchange) (said *totals, err error) {
	x.hear = func(m apdu.Message) bool {
		if s, ok := m.(apdu.StatusInformation); ok {
			seen := seeTotals(s.Fields)
			said = &seen
		}
		return false
	}
	_, err = t.inquire(ctx, d, x)
	if no := (*refusal)(nil); errors.As(err, &no) {
		return nil, nil
	}
	return said, err
}

// isOurs reports whether totals that the terminal repeats are those of the end
// of day that began at started: of an end of day, not of the one before nor of one
// that nobody asked for, not against what we heard already, and either just that
// or of the right time by the terminal's clock.
func (t *Terminal) isOurs(said totals, a account, before *totals, started, now time.Time) bool {
	if said.Groups == nil || said.Code != "" {
		return false
	}
	if before != nil && said.same(*before) {
		return false
	}
	if slices.ContainsFunc(a.unasked, said.same) {
		return false
	}
	if a.totals != nil && (a.totals.Groups != nil || !said.same(*a.totals)) {
		return said.same(*a.totals)
	}
	if said.Time == nil {
		return false
	}
	at := said.Time.near(started, t.o.Location)
	latest := now
	if limit := a.lastSign(started).Add(closingTakes); limit.Before(now) {
		latest = limit
	}
	return at.After(started.Add(-clockTolerance)) && at.Before(latest.Add(clockTolerance))
}

// lastSign is when the terminal last showed that it works on the operation.
func (a account) lastSign(started time.Time) time.Time {
	last := started
	for _, at := range []time.Time{a.acceptedAt, a.totalsAt} {
		if at.After(last) {
			last = at
		}
	}
	return last
}

// same reports whether two 04 0F are of one end of day, as far as both tell.
func (t totals) same(u totals) bool {
	if t.Groups != nil && u.Groups != nil && (t.First != u.First || t.Last != u.Last || !slices.Equal(t.Groups, u.Groups)) {
		return false
	}
	return equal(t.Time, u.Time) && equal(t.Amount, u.Amount) && equal(t.Trace, u.Trace)
}

// equal compares what both have told; what one did not tell is no difference.
func equal[T comparable](a, b *T) bool { return a == nil || b == nil || *a == *b }
