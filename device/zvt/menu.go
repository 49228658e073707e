package zvt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"terminalops/device"
	"terminalops/device/zvt/apdu"
)

// The service menu (08 01, [S15] 2.55.4) opens in one of two ways:
//
//	A: 80 00 00, 06 0F 00              menu open, the ECR has the word again
//	B: 80 00 00, 04 FF 1A ...          menu open, the terminal keeps the word,
//	   06 0F 00 hours later            it is answered (Attend) until it is left
//
// Nobody can see the menu. That the terminal took the command and did not take
// it back is all that there is: COMPLETED, triggered.

// menuGrace is how long a terminal that took 08 01 has to take it back (06 1E)
// or to show which way it goes (our decision).
const menuGrace = 15 * time.Second

// openMenu waits until the menu is open.
func (t *Terminal) openMenu(ctx context.Context, d *dialogue, l *ledger) error {
	err := t.act(ctx, d, l, mark{}, exchange{command: apdu.ServiceMode{Password: t.password}, limit: menuGrace})
	if errors.Is(err, errSilent) {
		l.record(kindQuiet, nothing{})
		return nil
	}
	return err
}

// menu is how an open_menu ended, if the evidence shows it.
func (t *Terminal) menu(a account) (device.Outcome, bool) {
	switch {
	case a.refused != nil:
		return device.Outcome{Failure: refused(a.refused.code())}, true
	case a.aborted != nil && !a.menu:
		return device.Outcome{Failure: failed(*a.aborted, false)}, true
	case a.completed != nil && a.completed.code() != apdu.CodeOK:
		return device.Outcome{Failure: failed(*a.completed, false)}, true
	case a.menuOpen():
		return a.menuOpened(), true
	}
	return device.Outcome{}, false
}

// menuOpened says when the menu opened, and whether the terminal still has the
// word.
func (a account) menuOpened() device.Outcome {
	opened := a.acceptedAt
	if a.menu {
		opened = a.menuAt
	}
	return device.Outcome{
		Effect: device.Triggered,
		Result: &device.OpenMenuResult{OpenedAt: opened},
		Attend: !a.ended(),
	}
}

// menuInDoubt is what can be said when the terminal answers again, or is given
// up: the menu is not open any more, or the terminal is not talking about it.
func (t *Terminal) menuInDoubt(a account) device.Outcome {
	if a.accepted {
		o := a.menuOpened()
		o.Attend = false
		return o
	}
	return device.Outcome{Failure: &device.Failure{
		Cause: device.Unknown, Executed: device.Perhaps,
		Message: "the terminal was asked to open its menu and has not answered",
	}}
}

// Attend implements device.Attendant: it answers a terminal whose menu is open
// until it gives the word back, or has been silent for T4. After a restart the
// link is opened again; nothing is sent that is no answer.
func (t *Terminal) Attend(ctx context.Context) error {
	d, err := t.resume(ctx)
	if err != nil {
		return fmt.Errorf("attend: %w", err)
	}
	defer t.hangUp(d)
	ignore := func(apdu.Message) bool { return false }
	_, err = d.follow(ctx, exchange{hear: ignore}, stance{taken: true, patience: d.longest()})
	if err := silenceIsFine(err); err != nil {
		return fmt.Errorf("attend: %w", err)
	}
	return nil
}
