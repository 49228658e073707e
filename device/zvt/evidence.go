package zvt

import (
	"encoding/json"
	"log/slog"
	"strconv"
	"time"

	"terminalops/device"
	"terminalops/device/trace"
	"terminalops/device/zvt/apdu"
)

// This file holds what an adapter writes down of a dialogue, and how it reads it
// again. Each message of the terminal that says something once becomes one
// record, before it is answered:
//
//	kind        message                            data
//	accepted    80 00 to the acting command        -
//	refused     84 xx to it                        ending
//	totals      04 0F                              totals
//	printed     06 D1, 06 D3                       printed
//	completed   06 0F                              ending
//	aborted     06 1E                              ending
//	menu        the first 04 FF 1A                 -
//	quiet       menu: neither 1A nor an end        -
//	            followed 80 00 for menuGrace
//	repeated    04 0F of Repeat Receipt, found to  totals
//	            be that of our end of day
//	away        update: was not there, or busy     -
//	cut         logs: the link broke in reading    -
//	unasked     04 0F, 06 D1, 06 D3 during another unasked
//	            command than the acting one
//
// How an operation ended is a function of these records and of nothing else
// (account, and the outcome functions on it). It is used when a dialogue ends,
// and again after a crash with the records of the journal: what was heard last
// before the crash is as good as what is heard now.
const (
	kindAccepted  = "accepted"
	kindRefused   = "refused"
	kindTotals    = "totals"
	kindPrinted   = "printed"
	kindCompleted = "completed"
	kindAborted   = "aborted"
	kindMenu      = "menu"
	kindQuiet     = "quiet"
	kindRepeated  = "repeated"
	kindAway      = "away"
	kindCut       = "cut"
	kindUnasked   = "unasked"
)

// nothing is the data of a record whose kind says it all.
type nothing struct{}

// ending is how a command ended: the code is that of 84 xx, BMP 27 of 06 0F, or
// the first byte of 06 1E, in the specification's notation; Text is the maker's.
type ending struct {
	Code string `json:"code"`
	Text string `json:"text,omitempty"`
}

// code reads the code back. What cannot be read is no success.
func (e ending) code() apdu.Code {
	n, err := strconv.ParseUint(e.Code, 16, 8)
	if err != nil {
		return apdu.CodeSystemError
	}
	return apdu.Code(n)
}

// totals is what a 04 0F says of an end of day. No member of it can hold card
// data. Amounts are in minor units.
type totals struct {
	Code     string    `json:"code,omitempty"` // BMP 27, if it is not 00
	Text     string    `json:"text,omitempty"` // the maker's, to the code
	Amount   *int64    `json:"amount,omitempty"`
	Currency string    `json:"currency,omitempty"` // as apdu.Currency says it
	Trace    *int64    `json:"trace,omitempty"`
	Time     *clock    `json:"time,omitempty"`
	First    int       `json:"first,omitempty"` // receipts, if there are Groups
	Last     int       `json:"last,omitempty"`
	Groups   []cardSum `json:"groups,omitempty"` // all seven, or none
}

// cardSum is one of the seven card groups of BMP 60.
type cardSum struct {
	Count  int64 `json:"count"`
	Amount int64 `json:"amount"`
}

// clock is the terminal's clock. Year is 0 where it told none.
type clock struct {
	Year   int `json:"year,omitempty"`
	Month  int `json:"month"`
	Day    int `json:"day"`
	Hour   int `json:"hour"`
	Minute int `json:"minute"`
	Second int `json:"second"`
}

// printed is some lines of a receipt, masked.
type printed struct {
	Lines     []string `json:"lines,omitempty"`
	Truncated bool     `json:"truncated,omitempty"` // the rest is not kept
}

// unasked is what a terminal said on its own account: an automatic end of day,
// for one. It is kept for people and is no part of the operation: its totals are
// those of another end of day.
type unasked struct {
	During string   `json:"during"`
	Totals *totals  `json:"totals,omitempty"`
	Lines  []string `json:"lines,omitempty"`
}

// maxReceipt is how much of a receipt is kept, in bytes: a report has 64 KiB.
const maxReceipt = 24 << 10

// ledger writes down the evidence of one operation.
type ledger struct {
	operation device.Operation
	witness   device.Witness
	charset   apdu.Charset
	log       *slog.Logger
	evidence  []device.Evidence
	begun     bool      // Begin has returned nil
	taken     time.Time // when 80 00 came; zero: not here
}

func (l *ledger) begin(mark any) error {
	err := l.witness.Begin(mark)
	l.begun = err == nil
	return err
}

// record puts a record on disk. If that fails it is known all the same until the
// agent stops: the terminal must be answered in any case.
func (l *ledger) record(kind string, data any) {
	e, err := l.witness.Record(kind, data)
	if err != nil {
		l.log.Error("evidence is not on disk", "kind", kind, "error", err)
		if e.Kind == "" {
			b, _ := json.Marshal(data) // our own types: they marshal
			e = device.Evidence{At: time.Now(), Kind: kind, Data: b}
		}
	}
	l.evidence = append(l.evidence, e)
}

// hear writes down a message in the dialogue of the acting command. Enough is
// said where a menu is open, whoever has the word.
func (l *ledger) hear(m apdu.Message) (enough bool) {
	switch m := m.(type) {
	case apdu.Ack:
		l.taken = time.Now()
		l.record(kindAccepted, nothing{})
	case apdu.Nack:
		l.record(kindRefused, ending{Code: m.Reason().Hex()})
	case apdu.StatusInformation:
		l.record(kindTotals, seeTotals(m.Fields))
	case apdu.PrintLine:
		l.print(m.Lines(), l.charset)
	case apdu.PrintTextBlock:
		l.print(m.Lines(), blockCharset(m, l.charset))
	case apdu.Completion:
		l.record(kindCompleted, ending{Code: m.Result().Hex()})
	case apdu.Abort:
		_, text := m.Manufacturer()
		l.record(kindAborted, ending{Code: m.Code.Hex(), Text: trace.Mask(text)})
	case apdu.IntermediateStatus:
		l.witness.Progress(m.Text(l.charset))
		return l.operation == device.OpenMenu && l.menuShown(m)
	}
	return false
}

// menuShown reports whether the terminal shows by m that its menu is open: it
// says so, or it took 08 01 menuGrace ago and still has the word.
func (l *ledger) menuShown(m apdu.IntermediateStatus) bool {
	kind := kindMenu
	a := l.account()
	if m.Status != apdu.IntermediateServiceMode {
		if !a.accepted || time.Since(l.taken) < menuGrace {
			return false
		}
		kind = kindQuiet
	}
	if !a.menuOpen() {
		l.record(kind, nothing{})
	}
	return true
}

// overhear is for what a terminal says during another command than the acting
// one. A Status-Enquiry may start an end of day ([S15] 2.56).
func (l *ledger) overhear(during apdu.Control) func(apdu.Message) bool {
	return func(m apdu.Message) bool {
		switch m := m.(type) {
		case apdu.StatusInformation:
			l.log.Warn("unasked totals", "during", during, "message", m)
			seen := seeTotals(m.Fields)
			l.record(kindUnasked, unasked{During: during.Hex(), Totals: &seen})
		case apdu.PrintLine:
			l.overprint(during, m.Lines(), l.charset)
		case apdu.PrintTextBlock:
			l.overprint(during, m.Lines(), blockCharset(m, l.charset))
		case apdu.IntermediateStatus:
			l.witness.Progress(m.Text(l.charset))
		}
		return false
	}
}

// print keeps lines of the receipt while there is room for them.
func (l *ledger) print(lines []apdu.Line, c apdu.Charset) {
	a := l.account()
	if a.truncated || len(lines) == 0 {
		return
	}
	kept, whole := fitting(a.lines, maskLines(lines, c))
	l.record(kindPrinted, printed{Lines: kept, Truncated: !whole})
}

// overprint keeps lines that nobody asked for, likewise.
func (l *ledger) overprint(during apdu.Control, lines []apdu.Line, c apdu.Charset) {
	if kept, _ := fitting(l.account().unaskedLines, maskLines(lines, c)); len(kept) > 0 {
		l.record(kindUnasked, unasked{During: during.Hex(), Lines: kept})
	}
}

// fitting is the beginning of lines that can be kept with those before.
func fitting(before, lines []string) (kept []string, whole bool) {
	size := 0
	for _, line := range before {
		size += len(line) + 1
	}
	for i, line := range lines {
		if size += len(line) + 1; size > maxReceipt {
			return lines[:i], false
		}
	}
	return lines, true
}

func (l *ledger) account() account { return read(l.evidence) }

// account is what the evidence comes to.
type account struct {
	accepted   bool
	acceptedAt time.Time
	refused    *ending
	completed  *ending
	aborted    *ending
	totals     *totals // all 04 0F in one: what a later one says again counts
	totalsAt   time.Time
	negative   *totals // a 04 0F with an error; its code
	repeated   *totals
	repeatedAt time.Time
	unasked    []totals // of other ends of day
	// unaskedLines are those that nobody asked for.
	unaskedLines []string
	lines        []string
	truncated    bool
	menu         bool
	menuAt       time.Time
	quiet        bool
	away         bool
	cuts         int
}

// read reads the evidence. Kinds it does not know are the engine's or a later
// version's.
func read(evidence []device.Evidence) account {
	var a account
	for _, e := range evidence {
		switch e.Kind {
		case kindAccepted:
			a.accepted, a.acceptedAt = true, e.At
		case kindRefused:
			a.refused = decode[ending](e)
		case kindCompleted:
			a.completed = decode[ending](e)
		case kindAborted:
			a.aborted = decode[ending](e)
		case kindTotals:
			a.add(decode[totals](e), e.At)
		case kindRepeated:
			a.repeated, a.repeatedAt = decode[totals](e), e.At
		case kindUnasked:
			u := decode[unasked](e)
			a.unaskedLines = append(a.unaskedLines, u.Lines...)
			if u.Totals != nil {
				a.unasked = append(a.unasked, *u.Totals)
			}
		case kindPrinted:
			p := decode[printed](e)
			a.lines, a.truncated = append(a.lines, p.Lines...), a.truncated || p.Truncated
		case kindMenu:
			a.menu, a.menuAt = true, e.At
		case kindQuiet:
			a.quiet = true
		case kindAway:
			a.away = true
		case kindCut:
			a.cuts++
		}
	}
	return a
}

// add takes in the totals of another 04 0F.
func (a *account) add(t *totals, at time.Time) {
	if t.Code != "" {
		a.negative = t
		return
	}
	if a.totals != nil {
		t = a.totals.with(*t)
	}
	a.totals, a.totalsAt = t, at
}

// with is t with what newer says in its place.
func (t totals) with(newer totals) *totals {
	if newer.Amount != nil {
		t.Amount = newer.Amount
	}
	if newer.Currency != "" {
		t.Currency = newer.Currency
	}
	if newer.Trace != nil {
		t.Trace = newer.Trace
	}
	if newer.Time != nil {
		t.Time = newer.Time
	}
	if newer.Groups != nil {
		t.First, t.Last, t.Groups = newer.First, newer.Last, newer.Groups
	}
	return &t
}

// menuOpen reports whether the terminal has shown that its menu is open.
func (a account) menuOpen() bool { return a.menu || a.completed != nil || a.quiet }

// ended reports whether the terminal has given the word back.
func (a account) ended() bool {
	return a.refused != nil || a.completed != nil || a.aborted != nil
}

// decode reads the data of a record. Of damaged data what is readable counts.
func decode[T any](e device.Evidence) *T {
	data := new(T)
	_ = json.Unmarshal(e.Data, data)
	return data
}

// seeTotals reads a 04 0F.
func seeTotals(f apdu.Fields) totals {
	var t totals
	if code, ok := f.Result(); ok && code != apdu.CodeOK {
		t.Code = code.Hex()
		_, text := f.Manufacturer()
		t.Text = trace.Mask(text)
	}
	if n, ok := f.Amount(); ok {
		t.Amount = &n
	}
	if c, ok := f.Currency(); ok {
		t.Currency = currencyName(c)
	}
	if n, ok := f.Number(apdu.BMPTrace); ok {
		t.Trace = &n
	}
	date, hasDate := f.Date()
	if at, ok := f.Time(); ok && hasDate {
		t.Time = &clock{date.Year, date.Month, date.Day, at.Hour, at.Minute, at.Second}
	}
	if sums, ok, _ := f.Totals(); ok {
		t.First, t.Last = sums.FirstReceipt, sums.LastReceipt
		for _, g := range sums.Groups {
			t.Groups = append(t.Groups, cardSum{int64(g.Count), g.Amount})
		}
	}
	return t
}

func blockCharset(m apdu.PrintTextBlock, otherwise apdu.Charset) apdu.Charset {
	if c, ok := m.Charset(); ok {
		return c
	}
	return otherwise
}

// maskLines are the texts of lines, masked: also a number that goes on in the next
// one. (Of one in two messages the journal has both halves: the first is on disk and
// answered when the second comes. The report has not.)
func maskLines(lines []apdu.Line, c apdu.Charset) []string {
	texts := make([]string, len(lines))
	for i, l := range lines {
		texts[i] = l.Text(c)
	}
	return trace.MaskLines(texts)
}
