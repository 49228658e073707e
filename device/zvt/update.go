package zvt

import (
	"errors"
	"fmt"
	"time"

	"terminalops/device"
	"terminalops/device/zvt/apdu"
)

// A software update (08 10, [S15] 2.37) is started by the terminal's answer and
// ends where nobody sees it: the terminal goes away, for seconds or for most of
// an hour, and comes back. There is no way to only ask for one. So acceptance
// leaves the operation in doubt, and Resolve looks again and again:
//
//	not there, 9C, E0        away: an update runs          ask again later
//	there, other version     installed
//	there, same version      none, if it was away, or if it had
//	                         updateSettles to go away (ours)
//	away for UpdateWait      started: nobody waits any longer

// updateSettles is how long after 08 10 a terminal that never went away may
// still do so.
const updateSettles = 2 * time.Minute

// errSettling: the terminal is there, and it is too early to say that nothing
// came of the update.
var errSettling = errors.New("waiting whether an update begins")

// update is how a check_update ended, if the evidence shows it: only a refusal
// does. Old terminals close the batch first (zvt.md 4.8): then it is no "nothing
// done".
func (t *Terminal) update(a account) (device.Outcome, bool) {
	switch {
	case a.refused != nil:
		return device.Outcome{Failure: refused(a.refused.code())}, true
	case a.updateStarted():
		return device.Outcome{}, false
	case a.aborted != nil:
		return device.Outcome{Failure: failed(*a.aborted, a.acted())}, true
	case a.completed != nil:
		return device.Outcome{Failure: failed(*a.completed, a.acted())}, true
	}
	return device.Outcome{}, false
}

// updateStarted reports whether the terminal said that it begins: 06 0F with 00
// or E0, or card complete's 06 1E 01 E0, which is no failure (zvt.md 4.8).
func (a account) updateStarted() bool {
	if a.aborted != nil {
		return a.aborted.code() == apdu.CodeRemoteMaintenance
	}
	return a.completed != nil && (a.completed.code() == apdu.CodeOK || a.completed.code() == apdu.CodeRemoteMaintenance)
}

// updateInDoubt is what can be said of an update that nobody waits for any more.
func (t *Terminal) updateInDoubt(a account, p device.Past) device.Outcome {
	result := &device.CheckUpdateResult{Update: device.UpdateUnknown, Before: readMark(p).Version}
	if a.accepted || a.updateStarted() {
		result.Update = device.UpdateStarted
		return device.Outcome{Effect: device.Triggered, Message: "the terminal was not back in time", Result: result}
	}
	return device.Outcome{Result: result, Failure: &device.Failure{
		Cause: device.Unknown, Executed: device.Perhaps,
		Message: "the terminal was asked for an update and has not answered",
	}}
}

// lookAtUpdate says what became of an update, with the terminal back.
func (t *Terminal) lookAtUpdate(a account, p device.Past, s apdu.Status) (device.Outcome, error) {
	result := &device.CheckUpdateResult{Before: readMark(p).Version, After: s.SoftwareVersion}
	known := result.Before != "" && result.After != ""
	switch {
	case known && result.Before != result.After:
		result.Update = device.UpdateInstalled
		return device.Outcome{Effect: device.Done, Result: result}, nil
	case !a.away && p.Now.Sub(p.StartedAt) < updateSettles:
		return device.Outcome{}, fmt.Errorf("%w: %w", device.ErrBusy, errSettling)
	case !a.accepted && !a.updateStarted():
		o := t.updateInDoubt(a, p)
		o.Result = &device.CheckUpdateResult{Update: device.UpdateUnknown, Before: result.Before, After: result.After}
		return o, nil
	case !known:
		result.Update = device.UpdateUnknown
		return device.Outcome{Effect: device.Triggered, Message: "the terminal does not tell its software version", Result: result}, nil
	}
	result.Update = device.UpdateNone
	return device.Outcome{Effect: device.Done, Result: result}, nil
}
