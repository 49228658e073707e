package zvttest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"terminalops/device/zvt/apdu"
)

// Scenario is a name for a way in which a terminal behaves.
type Scenario struct {
	Name        string
	Description string // one line, for people
	change      func(*script)
}

// Group are scenarios that are about the same.
type Group struct {
	Title     string
	Scenarios []Scenario
}

// Groups lists all scenarios, grouped by what they are about.
func Groups() []Group { return append([]Group(nil), groups...) }

// Scenarios lists all scenarios.
func Scenarios() []Scenario {
	var all []Scenario
	for _, g := range groups {
		all = append(all, g.Scenarios...)
	}
	return all
}

// script is what a scenario changes.
type script struct {
	batch     Totals // open in a new terminal
	on        map[apdu.Control]dialogue
	onAbort   dialogue // on 06 B0 while the terminal is master
	condition *condition
	noise     noise
	naive     bool // takes a repeated frame for a new command
	silent    bool // says nothing, ever
	jammed    bool // the printer does not move

	charset     apdu.Charset // of receipts
	singleLines bool         // 06 D1, also to who can process 06 D3
	lineTail    bool         // BMP 06 behind the text of 06 D1, as card complete has it
	longReceipt int          // so many lines more

	oneFile      bool // the application log is the only file
	bigFiles     bool
	blockSize    int  // of the largest APDU with a block, in bytes
	interleaved  bool // a block of each file in every 04 0F
	noOffset     bool // 1E is absent in the answer
	ignoreOffset bool // 1E of the request is ignored
}

// condition is a state in which the terminal does not do all it can.
type condition struct {
	status  apdu.StatusCode
	lasts   time.Duration // from the first status enquiry on; 0: until cured
	blocked dialogue      // on the other commands
	allows  map[apdu.Control]bool
}

// compose makes the script of scenarios joined by "+".
func compose(names string) (*script, error) {
	sc := &script{
		batch:     severalSchemes,
		on:        ordinary(),
		onAbort:   dialogue{refuse(apdu.CodeNotPossible).aside()},
		blockSize: 240, // short APDUs
	}
	if names == "" {
		names = "success"
	}
	for name := range strings.SplitSeq(names, "+") {
		s, ok := find(name)
		if !ok {
			return nil, fmt.Errorf("scenario %q: one of these wanted, or several joined by \"+\": %s", name, strings.Join(known(), ", "))
		}
		s.change(sc)
	}
	return sc, nil
}

// aside keeps a step from ending the dialogue that it interrupts.
func (f step) aside() step {
	return func(ctx context.Context, s *session) {
		f(ctx, s)
		s.over = false
	}
}

func find(name string) (Scenario, bool) {
	for _, s := range Scenarios() {
		if s.Name == name {
			return s, true
		}
	}
	return Scenario{}, false
}

func known() []string {
	var names []string
	for _, s := range Scenarios() {
		names = append(names, s.Name)
	}
	return names
}

// Batches of new terminals.
var (
	severalSchemes = Totals{FirstReceipt: 68, LastReceipt: 109, Schemes: []Scheme{
		{"girocard", 23, 68450}, {"Mastercard", 9, 27300}, {"VISA", 8, 25650}, {"other", 2, 2050},
	}}
	emptyBatch = Totals{FirstReceipt: 21, LastReceipt: 20} // as a real terminal had it
	full10     = Totals{FirstReceipt: 1010, LastReceipt: 1025, Schemes: []Scheme{{"girocard", 0x10, 101010101010}}}
	manyCards  = Totals{FirstReceipt: 1, LastReceipt: 300, Schemes: []Scheme{{"girocard", 300, 300000}}}
)

// on makes a change of one command's dialogue.
func on(c apdu.Control, d ...step) func(*script) {
	return func(sc *script) { sc.on[c] = d }
}

// onEndOfDay and so on: the four operations.
func onEndOfDay(d dialogue) func(*script)      { return on(apdu.ControlEndOfDay, d...) }
func onUpdate(d ...step) func(*script)         { return on(apdu.ControlSoftwareUpdate, d...) }
func onMenu(d ...step) func(*script)           { return on(apdu.ControlServiceMode, d...) }
func onReadFile(d ...step) func(*script)       { return on(apdu.ControlReadFile, d...) }
func unsupported(c apdu.Control) func(*script) { return func(sc *script) { delete(sc.on, c) } }

// having makes a change of a condition.
func having(c condition) func(*script) { return func(sc *script) { sc.condition = &c } }

// onLine makes a change of the noise.
func onLine(n noise) func(*script) { return func(sc *script) { sc.noise = n } }

// inLock are the commands that a locked terminal carries out ([S15] 7.1),
// beside those that every terminal always does.
var inLock = map[apdu.Control]bool{apdu.ControlServiceMode: true, apdu.ControlSoftwareUpdate: true}

// refusedWith is an end of day that ends with 06 1E.
func refusedWith(c apdu.Code, fields ...apdu.BMP) func(*script) {
	return onEndOfDay(refusedEndOfDay(abort(c, fields...)))
}

// manufacturer is a maker's own code and text for a failure.
var manufacturer = apdu.Container(
	apdu.Object{Tag: apdu.TagManufacturerCode, Value: []byte{0xFF, 0x00, 0x00, 0x14, 0x41}},
	apdu.Object{Tag: apdu.TagManufacturerText, Value: apdu.CP437.Encode("Kassenschnitt nicht möglich")},
)

// noPreAuthorisation is BMP 87 with FF FF: none is open.
var noPreAuthorisation = apdu.BMP{ID: apdu.BMPReceiptNumber, Data: []byte{0xFF, 0xFF}}

// groups is the table. Times in descriptions are true times, except those of
// work, which a fast terminal does a hundred times as fast.
var groups = []Group{
	{"No trouble", []Scenario{
		{"success", "everything works, in the order of the specification: 04 0F, print, 06 0F", func(*script) {}},
	}},
	{"How an end of day tells what it did", []Scenario{
		{"ingenico", "as a Lane/5000: print, then 04 0F with an empty BMP 06; private 0F 11 and 0F 12", ingenico},
		{"no-totals", "04 0F without BMP 60", onEndOfDay(endOfDay(totals(false), receipt, complete()))},
		{"no-status-information", "no 04 0F at all", onEndOfDay(endOfDay(receipt, complete()))},
		{"no-receipt", "no receipt", onEndOfDay(endOfDay(totals(true), complete()))},
		{"empty-batch", "nothing was sold: first receipt above the last, zero totals", func(sc *script) { sc.batch = emptyBatch }},
		{"amounts-of-10h", "counts, amounts and receipts full of the byte 10h", func(sc *script) { sc.batch = full10 }},
		{"count-overflow", "300 girocard payments, in a count of one byte", func(sc *script) { sc.batch = manyCards }},
		{"print-lines", "receipts in single lines (06 D1), CP437", func(sc *script) { sc.singleLines = true }},
		{"print-lines-latin1", "receipts in single lines (06 D1), Latin-1", func(sc *script) { sc.singleLines, sc.charset = true, apdu.Latin1 }},
		{"print-lines-tail", "single lines with BMP 06 behind the text, as card complete has it", func(sc *script) { sc.singleLines, sc.lineTail = true, true }},
		{"text-block-latin1", "receipts in text blocks (06 D3), Latin-1", func(sc *script) { sc.charset = apdu.Latin1 }},
		{"long-receipt", "a receipt in several long text blocks (06 D3)", func(sc *script) { sc.longReceipt = 150 }},
		{"unknown-bmp", "04 0F with an unknown BMP behind the totals", onEndOfDay(endOfDay(unknownBMP, receipt, complete()))},
		{"sets-clock", "04 01 during the end of day, at 10:10:10", onEndOfDay(endOfDay(setClock1010, totals(true), receipt, complete()))},
		{"dial-up", "wants to dial through the ECR (06 D8) before it closes", onEndOfDay(append(dialogue{closing[0], tell(apdu.Raw{Class: 0x06, Instr: 0xD8})}, endOfDay(totals(true), receipt, complete())[1:]...))},
		{"prints-when-idle", "prints without being master, after the end of day", onEndOfDay(endOfDay(totals(true), complete(), receipt))},
		{"automatic-end-of-day", "closes a batch that is not empty when asked for its status", on(apdu.ControlStatusEnquiry, accept, automaticEndOfDay, tellStatus)},
	}},
	{"An end of day that is refused or fails: nothing is closed", []Scenario{
		{"refused-77", "end of day ends 06 1E 77, with a maker's code and text", refusedWith(apdu.CodeEndOfDayNotPossible, manufacturer)},
		{"refused-83", "end of day ends 06 1E 83 at once", onEndOfDay(dialogue{accept, abort(apdu.CodeNotPossible)})},
		{"refused-b8", "end of day ends 06 1E B8: open pre-authorisations", refusedWith(apdu.CodePreAuthorisation, noPreAuthorisation)},
		{"refused-6a", "end of day ends 06 1E 6A", refusedWith(apdu.CodeTurnoverFull)},
		{"refused-6c", "end of day is aborted at the terminal: 06 1E 6C", refusedWith(apdu.CodeAborted)},
		{"refused-cc", "end of day ends 06 1E CC: no paper", refusedWith(apdu.CodePrinterNotReady)},
		{"result-77", "04 0F says 27 77, then 06 0F 00: not closed", onEndOfDay(refusedEndOfDay(failed77, complete()))},
		{"result-77-silence", "04 0F says 27 77, and no completion follows: not closed", onEndOfDay(refusedEndOfDay(failed77, silence(2*t4)))},
		{"result-77-abort", "04 0F says 27 77, then 06 1E 77: not closed", onEndOfDay(refusedEndOfDay(failed77, abort(apdu.CodeEndOfDayNotPossible)))},
		{"completion-77", "06 0F says 27 77: not closed", onEndOfDay(refusedEndOfDay(complete(apdu.Result(apdu.CodeEndOfDayNotPossible))))},
		{"wrong-password", "84 37 to the end of day", onEndOfDay(dialogue{refuse(apdu.CodeWrongPassword)})},
		{"abort-confirmed", "06 B0 during a command is answered 80 00 00, and 06 1E 6C follows", func(sc *script) { sc.onAbort = dialogue{accept, abort(apdu.CodeAborted), unfinished} }},
		{"abort-swallowed", "06 B0 during a command is answered 80 00 00, and nothing else happens", func(sc *script) { sc.onAbort = dialogue{accept} }},
	}},
	{"The state it is in before", []Scenario{
		{"busy", "84 9C to every command but registration and status enquiry, whose status is 00", having(condition{status: apdu.StatusReady, blocked: dialogue{refuse(apdu.CodePleaseWait)}})},
		{"status-9c", "status 9C (please wait) for a minute", having(condition{status: apdu.StatusPleaseWait, lasts: time.Minute, blocked: dialogue{refuse(apdu.CodePleaseWait)}})},
		{"status-e0", "status E0 (remote maintenance) for a minute", having(condition{status: apdu.StatusRemoteMaintenance, lasts: time.Minute, blocked: dialogue{refuse(apdu.CodePleaseWait)}})},
		{"status-dc", "status DC (card inserted) for a minute", having(condition{status: apdu.StatusCardInserted, lasts: time.Minute, blocked: dialogue{accept, abort(apdu.CodeCardInserted)}})},
		{"status-51", "status 51 (initialisation required) until 06 93", having(condition{status: apdu.StatusInitialisation, blocked: dialogue{accept, abort(apdu.CodeNotRegistered)}, allows: with(inLock, apdu.ControlInitialisation)})},
		{"status-f0", "status F0 (end of day required) until 06 50", statusF0},
		{"locked", "locked, status C1: 80 00 00 and 06 1E C1 to what is not allowed in a lock", having(condition{status: 0xC1, blocked: dialogue{accept, abort(0xC1)}, allows: inLock})},
		{"locked-at-once", "locked, status C1: 06 1E C1 without 80 00 00", having(condition{status: 0xC1, blocked: dialogue{abort(0xC1)}, allows: inLock})},
		{"wrong-currency", "84 1E 6F 07 56 to a registration with a currency", on(apdu.ControlRegistration, wrongCurrency, accept, register, registered(true))},
		{"registration-refused", "84 1E 7D to every registration", on(apdu.ControlRegistration, refuseWith(apdu.Nack{Code: 0x1E, Data: []byte{byte(apdu.CodeCommunication)}}))},
		{"no-status-enquiry", "84 83 to the status enquiry", unsupported(apdu.ControlStatusEnquiry)},
	}},
	{"What follows an end of day", []Scenario{
		{"update-follows", "end of day ends 27 E0; silence, status E0, silence, ready with another version", onEndOfDay(endOfDay(totals(true), receipt, complete(apdu.Result(apdu.CodeRemoteMaintenance)), installInPhases))},
		{"reboot-follows", "end of day ends 27 FC; away for a minute", onEndOfDay(endOfDay(totals(true), receipt, complete(apdu.Result(apdu.CodeDeviceMissing)), reboot(time.Minute)))},
	}},
	{"The connection breaks: TCP is closed, a serial line is dead for 30 s", []Scenario{
		{"drop-after-acceptance", "the connection breaks after 80 00 00; the batch is closed all the same", onEndOfDay(append(dialogue{accept, hangUp}, closing[1:]...))},
		{"drop-refused", "the connection breaks after 80 00 00; nothing is closed", onEndOfDay(refusedEndOfDay(hangUp))},
		{"drop-before-totals", "the connection breaks when the batch is closed, before 04 0F", onEndOfDay(endOfDay(hangUp))},
		{"drop-before-completion", "the connection breaks after 04 0F, before 06 0F", onEndOfDay(endOfDay(totals(true), receipt, hangUp))},
		{"drop-at-completion", "the connection breaks when 06 0F has left, before it is answered", onEndOfDay(endOfDay(totals(true), receipt, lastWord, hangUp))},
		{"unplugged", "the line is gone after 04 0F, also a serial one", onEndOfDay(endOfDay(totals(true), unplug))},
		{"silence-after-closing", "the batch is closed, and 04 0F and 06 0F never come", onEndOfDay(endOfDay(silence(2 * t4)))},
		{"silent", "says nothing, ever", func(sc *script) { sc.silent = true }},
		{"mute", "acknowledges frames, but never answers the end of day; closes nothing", onEndOfDay(dialogue{silence(t4)})},
		{"late-acceptance", "80 00 00 comes after 7 s, past T3", lateAcceptance},
		{"repeat-unsupported", "84 83 to Repeat Receipt", unsupported(apdu.ControlRepeatReceipt)},
		{"repeat-payment", "Repeat Receipt tells of the last payment, not of the end of day", on(apdu.ControlRepeatReceipt, accept, paymentStatus, complete())},
	}},
	{"Trouble on a serial line; TCP has none of it", []Scenario{
		{"naive", "takes a repeated frame for a new command; all it says is lost for 20 s after the first command that makes it act", func(sc *script) { sc.naive, sc.noise.loseFor = true, 20*time.Second }},
		{"answers-lost", "all it says is lost for 20 s after the first command that makes it act", onLine(noise{loseFor: 20 * time.Second})},
		{"ack-lost", "the ACK of a command that makes it act is lost, 80 00 00 is not", onLine(noise{loseACK: true})},
		{"nak-twice", "such a command arrives damaged twice: NAK, NAK, ACK", onLine(noise{spoilIn: 2})},
		{"nak-always", "such a command arrives damaged three times", onLine(noise{spoilIn: 3})},
		{"slow-ack", "each ACK takes half a second", onLine(noise{slowACK: 500 * time.Millisecond})},
		{"wrong-crc", "the first copy of each 04 0F has a wrong CRC", onLine(noise{spoilOut: true})},
		{"half-frame", "half of the first 04 0F, then half a minute of silence", onLine(noise{half: true})},
		{"trickle", "20 ms between any two bytes", onLine(noise{trickle: 20 * time.Millisecond})},
		{"merged", "ACK and 80 00 00 in one piece", onLine(noise{merge: true})},
		{"garbage", "noise before each frame", onLine(noise{garbage: []byte{0x00, 0xFF, 0x10, 0x55, 0x03}})},
		{"duplicate-frames", "each frame leaves twice", onLine(noise{twice: true})},
		{"stray-refusals", "06 0F again and two stray 84 83 00 after the end of day, as if the ECR had been late", onEndOfDay(endOfDay(totals(true), receipt, complete(), complete(), strays))},
	}},
	{"Software-update", []Scenario{
		{"update-none", "away for three minutes, and back with the same version", onUpdate(accept, work(time.Second, 2*time.Second), updateAccepted(apdu.CodeOK), install(3*time.Minute, false))},
		{"update-none-stays", "accepted, nothing to install, not even away", onUpdate(accept, work(time.Second, 2*time.Second), updateAccepted(apdu.CodeOK), install(0, false))},
		{"update-started-e0", "06 1E E0, and then it installs, as card complete has it", onUpdate(accept, abort(apdu.CodeRemoteMaintenance), install(3*time.Minute, true))},
		{"update-6a", "06 1E 6A while the batch is not empty", onUpdate(unlessEmpty(accept, abort(apdu.CodeTurnoverFull), unfinished), accept, updateAccepted(apdu.CodeOK), install(3*time.Minute, true))},
		{"update-failed", "06 0F says 27 A1: nothing installed", onUpdate(accept, work(time.Second, 2*time.Second), updateAccepted(apdu.CodeNoResponse))},
		{"update-never-returns", "accepted, and never seen again", onUpdate(accept, updateAccepted(apdu.CodeOK), install(10*365*24*time.Hour, true))},
		{"update-closes-batch", "closes the batch first, as old card complete terminals do", onUpdate(accept, unlessEmpty(closing[1:]...), updateAccepted(apdu.CodeOK), install(3*time.Minute, true))},
		{"drop-update", "the connection breaks after 80 00 00; it installs all the same", onUpdate(accept, hangUp, install(3*time.Minute, true))},
	}},
	{"Service menu", []Scenario{
		{"menu-b", "stays master while the menu is open, five minutes; 04 FF 1A each minute", onMenu(accept, openMenu, stayInMenu(time.Minute, 5*time.Minute), complete())},
		{"menu-b-endless", "stays master and never says anything again after the first 04 FF 1A", onMenu(accept, openMenu, stayInMenu(365*24*time.Hour, 365*24*time.Hour), complete())},
		{"menu-refused", "06 1E 83", onMenu(accept, abort(apdu.CodeNotPossible))},
		{"drop-menu", "the connection breaks after 80 00 00; the menu is open", onMenu(accept, openMenu, hangUp)},
	}},
	{"Files", []Scenario{
		{"files-interleaved", "blocks of several files in each 04 0F", func(sc *script) { sc.interleaved = true }},
		{"files-no-offset", "no offsets (1E) in the answers", func(sc *script) { sc.noOffset = true }},
		{"files-ignore-offset", "the offset (1E) of the request is ignored", func(sc *script) { sc.ignoreOffset = true }},
		{"files-big", "a big log, in blocks of more than 254 bytes", func(sc *script) { sc.bigFiles, sc.blockSize = true, maxAPDU }},
		{"files-fail", "06 0F says 27 9B after four blocks", onReadFile(accept, readFile, sendFiles(4), complete(apdu.Result(apdu.CodeDialUp)))},
		{"files-abort", "06 1E A3 after four blocks", onReadFile(accept, readFile, sendFiles(4), abort(apdu.CodeNoConnection))},
		{"files-drop", "the connection breaks after four blocks", onReadFile(accept, readFile, sendFiles(4), hangUp)},
		{"files-unknown-84", "one file only; 84 83 if another one is asked for", unknownFile(refuse(apdu.CodeNotPossible))},
		{"files-unknown-1e", "one file only; 06 1E 83 if another one is asked for", unknownFile(accept, abort(apdu.CodeNotPossible))},
		{"files-unknown-0f", "one file only; 06 0F with 27 83 if another one is asked for", unknownFile(accept, complete(apdu.Result(apdu.CodeNotPossible)))},
	}},
	{"What it does not know; without Read File, what else tells of it", []Scenario{
		{"unsupported-end-of-day", "84 83 to 06 50", unsupported(apdu.ControlEndOfDay)},
		{"unsupported-update", "84 83 to 08 10", unsupported(apdu.ControlSoftwareUpdate)},
		{"unsupported-menu", "84 83 to 08 01", unsupported(apdu.ControlServiceMode)},
		{"unsupported-files", "84 83 to 08 11; 06 1A, 06 79 and the status tell of it", unsupported(apdu.ControlReadFile)},
		{"logs-by-configuration", "84 83 to 08 11 and 06 79; 06 1A prints", onlyPrints(apdu.ControlSystemConfiguration)},
		{"logs-by-selftest", "84 83 to 08 11 and 06 1A; 06 79 prints", onlyPrints(apdu.ControlSelfTest)},
		{"logs-by-system-info", "84 83 to 08 11, 06 1A and 06 79; 0F 11 prints, as Ingenico has it", onlyPrints(apdu.ControlSystemInfo)},
		{"logs-by-status", "nothing but the status tells of it", onlyPrints()},
	}},
}

func with(set map[apdu.Control]bool, c apdu.Control) map[apdu.Control]bool {
	larger := map[apdu.Control]bool{c: true}
	for c := range set {
		larger[c] = true
	}
	return larger
}

func ingenico(sc *script) {
	sc.on[apdu.ControlRegistration] = dialogue{accept, register, registered(false)}
	sc.on[apdu.ControlEndOfDay] = endOfDay(
		receipt,
		display(apdu.IntermediatePleaseWait, 3, "Kassenschnitt erfolgreich", "durchgeführt"),
		totals(true, apdu.Container()),
		complete(),
	)
	sc.on[apdu.ControlSystemInfo] = dialogue{accept, printInformation, complete()}
	sc.on[apdu.ControlEMVStatus] = dialogue{accept, printInformation, complete()}
	delete(sc.on, apdu.ControlSendTurnoverTotals)
	delete(sc.on, apdu.ControlSystemConfiguration)
}

func statusF0(sc *script) {
	sc.condition = &condition{
		status: apdu.StatusReconciliation, blocked: dialogue{accept, abort(apdu.CodeEndOfDayOpen)},
		allows: with(inLock, apdu.ControlEndOfDay),
	}
	sc.on[apdu.ControlEndOfDay] = endOfDay(cure, totals(true), receipt, complete())
}

// wrongCurrency refuses a registration with a currency: the terminal's is CHF.
func wrongCurrency(ctx context.Context, s *session) {
	const chf = 0x0756
	if m, ok := s.command.(apdu.Registration); ok && m.Currency != nil && *m.Currency != chf {
		refuseWith(apdu.Nack{Code: 0x1E, Data: []byte{byte(apdu.CodeWrongCurrency), 0x07, 0x56}})(ctx, s)
	}
}

// unknownBMP is a 04 0F of an end of day with an unknown BMP, C3, at its end.
func unknownBMP(ctx context.Context, s *session) {
	totals(true, apdu.BMP{ID: 0xC3, Unread: true, Data: []byte{0x01, 0x02, 0x03}})(ctx, s)
}

// failed77 is a 04 0F of an end of day that has failed.
var failed77 = tell(apdu.StatusInformation{Fields: apdu.Fields{apdu.Result(apdu.CodeEndOfDayNotPossible)}})

// paymentStatus is a 04 0F of a payment, where one of an end of day was hoped
// for.
func paymentStatus(ctx context.Context, s *session) {
	if wants(s.command, apdu.RepeatStatusInformation) {
		now := Record{At: s.t.o.Clock()}
		s.tell(ctx, apdu.StatusInformation{Fields: apdu.Fields{
			apdu.Result(apdu.CodeOK), apdu.Amount(1990), apdu.ClockTime(timeOf(now)), apdu.MonthDay(dateOf(now)),
			{ID: apdu.BMPPAN, Data: []byte{0x41, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11}},
		}})
	}
}

// setClock1010 is 04 01 with a time full of 10h (zvt.md 1.3).
func setClock1010(ctx context.Context, s *session) {
	now := Record{At: s.t.o.Clock()}
	s.tell(ctx, apdu.SetClock{Fields: apdu.Fields{
		apdu.FullDate(dateOf(now)), apdu.ClockTime(apdu.Time{Hour: 10, Minute: 10, Second: 10})}})
}

// unlessEmpty plays d if there is something in the batch.
func unlessEmpty(d ...step) step {
	return func(ctx context.Context, s *session) {
		if count, _ := s.t.at().batch.Sum(); count > 0 {
			s.play(ctx, d)
		}
	}
}

// automaticEndOfDay is a pending job, which a status enquiry starts.
var automaticEndOfDay = unlessEmpty(
	display(apdu.IntermediateAutomaticEndOfDay, 3),
	work(3600*time.Millisecond, 8*time.Second),
	closeBatch, totals(true), receipt,
)

// lastWord is a 06 0F whose answer nobody waits for.
func lastWord(ctx context.Context, s *session) { s.write(ctx, apdu.Completion{}) }

// strays are what an Ingenico says to late answers (zvt.md 5.1).
func strays(ctx context.Context, s *session) {
	for range 2 {
		s.write(ctx, apdu.Nack{Code: apdu.CodeNotPossible})
	}
}

// lateAcceptance delays the answer to all that acts past T3.
func lateAcceptance(sc *script) {
	for c := range acting {
		sc.on[c] = append(dialogue{silence(t3 + 2*time.Second)}, sc.on[c]...)
	}
}

// installInPhases is the update after an end of day (zvt.md 4.6): software
// (silence), parameters (status E0), EMV (silence).
func installInPhases(ctx context.Context, s *session) {
	start := time.Now()
	install(4*time.Minute, true)(ctx, s)
	at := func(d time.Duration) time.Time { return start.Add(s.t.work(d)) }
	s.t.change(func(st *state) {
		st.phases = []phase{
			{at(2 * time.Minute), statusAway},
			{at(3 * time.Minute), apdu.StatusRemoteMaintenance},
			{at(4 * time.Minute), statusAway},
		}
	})
}

// unknownFile makes a change of what happens if a file is asked for that the
// terminal does not have.
func unknownFile(d ...step) func(*script) {
	return func(sc *script) {
		sc.oneFile = true
		sc.on[apdu.ControlReadFile] = dialogue{
			refuseUnknown(d...), accept, readFile, sendFiles(allBlocks), complete(apdu.Result(apdu.CodeOK)),
		}
	}
}

// onlyPrints leaves of all that tells of a terminal only the printing commands
// named, and the status.
func onlyPrints(commands ...apdu.Control) func(*script) {
	return func(sc *script) {
		for _, c := range []apdu.Control{apdu.ControlReadFile, apdu.ControlSystemConfiguration, apdu.ControlSelfTest,
			apdu.ControlSystemInfo, apdu.ControlEMVStatus, apdu.ControlRepeatReceipt} {
			delete(sc.on, c)
		}
		for _, c := range commands {
			sc.on[c] = dialogue{accept, printInformation, complete()}
		}
	}
}
