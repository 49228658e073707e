package zvttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"terminalops/device/zvt/apdu"
)

// What names a thing that a terminal did.
type What string

// The things a terminal can do. The words are those of the log file.
const (
	EndOfDay   What = "end_of_day"  // it closed its batch; Totals is what was in it
	Update     What = "update"      // it installs Version, or finds none, and is back at Until
	Menu       What = "menu"        // it opened its service menu
	ReadFile   What = "read_file"   // it is about to send Files
	DeleteFile What = "delete_file" // it deleted files
	Payment    What = "payment"     // it took a payment, which is Totals
	Reboot     What = "reboot"      // it restarts and is back at Until
	LogOff     What = "log_off"     // the till's registration is gone
	Violation  What = "violation"   // it was sent what must never be sent; Text is what
)

// Record is one line of the log: one thing the terminal really did.
type Record struct {
	At      time.Time `json:"at"` // by the terminal's clock
	What    What      `json:"what"`
	Totals  *Totals   `json:"totals,omitempty"`
	Version string    `json:"version,omitempty"`
	Until   time.Time `json:"until,omitzero"` // by the clock of the machine
	Files   []uint64  `json:"files,omitempty"`
	Text    string    `json:"text,omitempty"`
}

// Totals are what is in a batch.
type Totals struct {
	FirstReceipt int      `json:"first_receipt"`
	LastReceipt  int      `json:"last_receipt"` // FirstReceipt-1 in an empty batch
	Schemes      []Scheme `json:"schemes"`
}

// Scheme is a card scheme's part of a batch.
type Scheme struct {
	Name   string `json:"name"` // one of apdu.GroupNames
	Count  int    `json:"count"`
	Amount int64  `json:"amount"` // minor units
}

// Sum is the number of payments and their amount in minor units.
func (t Totals) Sum() (count int, amount int64) {
	for _, s := range t.Schemes {
		count += s.Count
		amount += s.Amount
	}
	return count, amount
}

// with returns the totals with one more payment.
func (t Totals) with(scheme string, amount int64) Totals {
	t.LastReceipt++
	t.Schemes = append([]Scheme(nil), t.Schemes...)
	for i := range t.Schemes {
		if t.Schemes[i].Name == scheme {
			t.Schemes[i].Count++
			t.Schemes[i].Amount += amount
			return t
		}
	}
	t.Schemes = append(t.Schemes, Scheme{scheme, 1, amount})
	return t
}

// after returns the totals of the empty batch that follows.
func (t Totals) after() Totals {
	next := t.LastReceipt + 1
	return Totals{FirstReceipt: next, LastReceipt: next - 1}
}

// field makes BMP 60. Its counts have one byte, and overflow as in a real
// terminal; its receipt numbers have four digits.
func (t Totals) field() apdu.BMP {
	const digits = 10000
	f := apdu.Totals{FirstReceipt: t.FirstReceipt % digits, LastReceipt: t.LastReceipt % digits}
	for i, name := range apdu.GroupNames {
		for _, s := range t.Schemes {
			if s.Name == name {
				f.Groups[i] = apdu.CardGroup{Count: s.Count & 0xFF, Amount: s.Amount}
			}
		}
	}
	return f.BMP()
}

// String says what the terminal did, as it would tell it.
func (r Record) String() string {
	switch r.What {
	case EndOfDay:
		count, amount := r.Totals.Sum()
		return fmt.Sprintf("closed the batch: %d payments, %s EUR%s", count, money(amount), r.remark())
	case Update:
		return fmt.Sprintf("software-update to %s, back at %s%s", r.Version, clock(r.Until), r.remark())
	case Menu:
		return "opened the service menu"
	case ReadFile:
		return fmt.Sprintf("sends the files %02X", r.Files)
	case DeleteFile:
		return "deleted files"
	case Payment:
		_, amount := r.Totals.Sum()
		return fmt.Sprintf("took a payment: %s, %s EUR", r.Totals.Schemes[0].Name, money(amount))
	case Reboot:
		return "restarts, back at " + clock(r.Until) + r.remark()
	case LogOff:
		return "forgot its registration"
	case Violation:
		return "VIOLATION: " + r.Text
	}
	return string(r.What)
}

func (r Record) remark() string {
	if r.Text == "" {
		return ""
	}
	return " (" + r.Text + ")"
}

// money writes minor units as in "1,234.50".
func money(minor int64) string {
	whole := fmt.Sprint(minor / 100)
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	return fmt.Sprintf("%s.%02d", whole, minor%100)
}

// clock writes a time of day.
func clock(t time.Time) string { return t.Format(time.TimeOnly) }

// journal is the log: in memory, and in a file if it has one. Whoever appends
// has done nothing yet: what the log does not hold has not happened.
type journal struct {
	records []Record
	file    *os.File // nil: memory only
}

// openJournal opens the log at path, or makes it. A last line without its end
// was being written when the simulator died, before anything was done: it is
// cut off.
func openJournal(path string) (*journal, error) {
	j := &journal{}
	if path == "" {
		return j, nil
	}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("log: %w", err)
	}
	whole := text[:bytes.LastIndexByte(text, '\n')+1]
	number := 0
	for line := range strings.Lines(string(whole)) {
		number++
		var r Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, fmt.Errorf("log %s, line %d: a record of a simulated terminal wanted: %w", path, number, err)
		}
		j.records = append(j.records, r)
	}
	j.file, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	if err := j.file.Truncate(int64(len(whole))); err != nil {
		return nil, errors.Join(fmt.Errorf("log: %w", err), j.file.Close())
	}
	return j, nil
}

// append puts a record into the log; it is on disk when append returns nil.
func (j *journal) append(r Record) error {
	if j.file != nil {
		line, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("log: %w", err)
		}
		if _, err := j.file.Write(append(line, '\n')); err != nil {
			return fmt.Errorf("log: %w", err)
		}
		if err := j.file.Sync(); err != nil {
			return fmt.Errorf("log: %w", err)
		}
	}
	j.records = append(j.records, r)
	return nil
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
