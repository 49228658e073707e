package zvttest

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"terminalops/device/zvt/apdu"
)

// This file has the dialogues of a terminal that does everything and has no
// trouble. Scenarios replace some of them, and reuse their parts.

// ordinary are those dialogues. What is not in it is answered by 84 83 00.
func ordinary() map[apdu.Control]dialogue {
	return map[apdu.Control]dialogue{
		apdu.ControlRegistration:       {accept, register, registered(true)},
		apdu.ControlLogOff:             {logOff, accept},
		apdu.ControlStatusEnquiry:      {accept, tellStatus},
		apdu.ControlEndOfDay:           endOfDay(totals(true), receipt, complete()),
		apdu.ControlRepeatReceipt:      {accept, repeatStatus, repeatReceipt, complete()},
		apdu.ControlSendTurnoverTotals: {accept, openTotals, complete()},
		apdu.ControlDiagnosis:          {accept, setClock, complete()},
		apdu.ControlInitialisation:     {accept, cure, complete()},
		apdu.ControlSetDateTime:        {accept, complete()},
		apdu.ControlSystemConfiguration: {
			accept, printInformation, complete()},
		apdu.ControlSelfTest:       {accept, printInformation, complete()},
		apdu.ControlAbortCommand:   {accept},
		apdu.ControlServiceMode:    {accept, openMenu, complete()},
		apdu.ControlSoftwareUpdate: {accept, work(time.Second, 2*time.Second), updateAccepted(apdu.CodeOK), install(3*time.Minute, true)},
		apdu.ControlReadFile:       {refuseUnknown(refuse(apdu.CodeNotPossible)), accept, readFile, sendFiles(allBlocks), complete(apdu.Result(apdu.CodeOK))},
		apdu.ControlDeleteFile:     {accept, complete(apdu.Result(apdu.CodeOK)), deleteFile},
	}
}

// closing is the first part of an end of day, until the batch is closed: 3.6 to
// 8 s, as a real terminal was seen to take (zvt.md 4.6).
var closing = dialogue{
	accept,
	display(apdu.IntermediatePleaseWait, 3, "Bitte warten"),
	work(1800*time.Millisecond, 4*time.Second),
	display(apdu.IntermediateWaitingForHost, 3),
	work(1800*time.Millisecond, 4*time.Second),
	closeBatch,
}

// endOfDay is an end of day that closes the batch, and what follows that.
func endOfDay(rest ...step) dialogue { return append(closing[:len(closing):len(closing)], rest...) }

// refusedEndOfDay is an end of day that closes nothing.
func refusedEndOfDay(rest ...step) dialogue {
	return append(dialogue{
		accept,
		display(apdu.IntermediatePleaseWait, 3, "Bitte warten"),
		work(1800*time.Millisecond, 4*time.Second),
	}, rest...)
}

// register keeps what the ECR asks for, until the next registration.
func register(_ context.Context, s *session) {
	m, ok := s.command.(apdu.Registration)
	if !ok {
		return
	}
	r := registration{config: m.Config, currency: m.Currency != nil, size: maxAPDU}
	for _, c := range m.Commands() {
		r.blocks = r.blocks || c == apdu.ControlPrintTextBlock
	}
	if o, found := m.TLV().Find(apdu.TagMaxAPDU); found {
		if n, ok := o.Uint(); ok && n >= 64 && n < maxAPDU {
			r.size = int(n)
		}
	}
	s.t.change(func(st *state) { st.registered = r })
}

// registered is the completion of a registration, with the status byte (BMP 19)
// or, as a Lane/5000 has it, without (vector 15).
func registered(withStatus bool) step {
	return func(ctx context.Context, s *session) {
		var fields []apdu.BMP
		if withStatus {
			const initialisationNeeded = 1
			b := apdu.BMP{ID: apdu.BMPStatusByte, Data: []byte{0}}
			if s.t.status() == apdu.StatusInitialisation {
				b.Data[0] = initialisationNeeded
			}
			fields = append(fields, b)
		}
		fields = append(fields, apdu.TID(terminalID), apdu.CurrencyCode(apdu.EUR))
		if m, ok := s.command.(apdu.Registration); ok {
			if _, mayTLV := m.Get(apdu.BMPTLV); mayTLV {
				fields = append(fields, apdu.Container(apdu.Commands(apdu.ControlPrintTextBlock, 0x0F27)))
			}
		}
		s.tell(ctx, apdu.NewCompletion(fields...))
	}
}

func logOff(_ context.Context, s *session) { s.t.did(Record{What: LogOff}) }

// tellStatus is the completion of a status enquiry.
func tellStatus(ctx context.Context, s *session) {
	s.t.change(func(st *state) {
		if st.asked.IsZero() {
			st.asked = time.Now()
		}
	})
	m, _ := s.command.(apdu.StatusEnquiry)
	service, _ := m.ServiceByte()
	status := apdu.Status{Code: s.t.status()}
	if service&apdu.ServiceNoVersion == 0 {
		status.SoftwareVersion = s.t.SoftwareVersion()
	}
	if service&apdu.ServiceTLVDetails != 0 {
		status.Fields = apdu.Fields{s.t.details()}
	}
	s.tell(ctx, status.Completion())
}

// details are the TLV of a status enquiry.
func (t *Terminal) details() apdu.BMP {
	now := Record{At: t.o.Clock()}
	return apdu.Container(
		apdu.Object{Tag: apdu.TagTID, Value: binary.BigEndian.AppendUint32(nil, 0x65029158)},
		apdu.Group(apdu.TagDevice,
			apdu.Object{Tag: apdu.TagDeviceName, Value: []byte("Simulated Terminal")},
			apdu.Object{Tag: apdu.TagSoftwareVersion, Value: []byte(t.SoftwareVersion())},
			apdu.Object{Tag: apdu.TagSerialNumber, Value: []byte{0x17, 0x42, 0x00, 0x01}},
			apdu.Object{Tag: apdu.TagDeviceState, Value: []byte{0}},
		),
		apdu.Timestamp(apdu.TagTerminalClock, dateOf(now), timeOf(now)),
	)
}

// openTotals is a 04 0F of the open batch.
func openTotals(ctx context.Context, s *session) {
	batch := s.t.at().batch
	s.tell(ctx, s.statusInformation(Record{At: s.t.o.Clock(), Totals: &batch}, true))
}

// repeatStatus is the 04 0F of the last end of day, if it is asked for.
func repeatStatus(ctx context.Context, s *session) {
	if wants(s.command, apdu.RepeatStatusInformation) {
		totals(true)(ctx, s)
	}
}

// repeatReceipt prints it again. To the specification that is a function of
// payment (zvt.md 4.1).
func repeatReceipt(ctx context.Context, s *session) {
	closed := s.t.at().closed
	if closed == nil || wants(s.command, apdu.RepeatNoPrint) {
		return
	}
	s.print(ctx, apdu.ConfigPaymentReceipts, append([]string{"^KOPIE"}, s.t.receiptLines(*closed)...))
}

func wants(m apdu.Message, bit byte) bool {
	r, _ := m.(apdu.RepeatReceipt)
	b, _ := r.ServiceByte()
	return b&bit != 0
}

// setClock is 04 01.
func setClock(ctx context.Context, s *session) {
	now := Record{At: s.t.o.Clock()}
	s.tell(ctx, apdu.SetClock{Fields: apdu.Fields{apdu.FullDate(dateOf(now)), apdu.ClockTime(timeOf(now))}})
}

// cure ends the condition that the scenario began with.
func cure(_ context.Context, s *session) { s.t.change(func(st *state) { st.cured = true }) }

// printInformation is the receipt of 06 1A, 06 79, 0F 11 and 0F 12.
func printInformation(ctx context.Context, s *session) {
	s.print(ctx, apdu.ConfigAdministrationReceipts, []string{
		"^Systemkonfiguration",
		fmt.Sprintf("Terminal-ID %d", terminalID),
		"Software " + s.t.SoftwareVersion(),
		"Schnittstelle ZVT",
		"Händlerkarte " + cardNumber,
	})
}

// openMenu opens the service menu.
func openMenu(_ context.Context, s *session) { s.t.did(Record{What: Menu}) }

// stayInMenu is flow B: the terminal stays master as long as the menu is open,
// and says so at intervals. Without a line it is busy until then.
func stayInMenu(every, total time.Duration) step {
	return func(ctx context.Context, s *session) {
		every, end := s.t.work(every), time.Now().Add(s.t.work(total))
		for time.Now().Before(end) && ctx.Err() == nil && !s.over {
			display(apdu.IntermediateServiceMode, 3)(ctx, s)
			for until := earlier(time.Now().Add(every), end); time.Now().Before(until) && s.gone == nil && ctx.Err() == nil; {
				s.listen(ctx, min(time.Until(until), time.Second))
			}
			if s.gone != nil {
				s.t.change(func(st *state) { st.phases = []phase{{end, apdu.StatusPleaseWait}} })
				return
			}
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// updateAccepted is the completion of a software-update, which comes before the
// update (zvt.md 4.8).
func updateAccepted(c apdu.Code) step {
	return func(ctx context.Context, s *session) {
		now := Record{At: s.t.o.Clock()}
		s.tell(ctx, apdu.NewCompletion(apdu.Result(c), apdu.ClockTime(timeOf(now)), apdu.FullDate(dateOf(now))))
	}
}

// install takes the terminal away for d. If it finds something to install, it
// comes back with another version.
func install(d time.Duration, finds bool) step {
	return func(_ context.Context, s *session) {
		r := Record{What: Update, Version: s.t.SoftwareVersion(), Until: time.Now().Add(s.t.work(d)), Text: "nothing to install"}
		if finds {
			r.Version, r.Text = following(r.Version), ""
		}
		s.t.did(r)
		s.leave()
	}
}

// following is the version after another: one more at its end.
func following(version string) string {
	i := strings.LastIndexByte(version, '.') + 1
	var n int
	if _, err := fmt.Sscanf(version[i:], "%d", &n); err != nil {
		panic("zvttest: version " + version)
	}
	return fmt.Sprintf("%s%d", version[:i], n+1)
}

// files are what a terminal has, by their IDs.
func (t *Terminal) files() map[uint64][]byte {
	application := log("app", 60)
	if t.script().bigFiles {
		application = log("app", 4000)
	}
	if t.script().oneFile {
		return map[uint64][]byte{apdu.FileApplicationLog: application}
	}
	return map[uint64][]byte{
		apdu.FileMerchantJournal:    log("journal", 20),
		apdu.FileApplicationLog:     application,
		apdu.FileECRProtocolLog:     log("ecr", 15),
		apdu.FileCommunicationLog:   {},
		apdu.FilePINPadLog:          []byte("\x10\x02\x10\x10\x10\x03PIN-Pad\x00\x10"),
		apdu.FileReconciliationData: log("batch", 5),
	}
}

// log is a log file as terminals have them, with a card number here and there.
func log(name string, lines int) []byte {
	var b strings.Builder
	for n := range lines {
		fmt.Fprintf(&b, "%06d %s: state %s\r\n", n, name, hex.EncodeToString([]byte{byte(n), 0x10}))
		if n%50 == 7 {
			fmt.Fprintf(&b, "%06d %s: card %s\r\n", n, name, cardNumber)
		}
	}
	return []byte(b.String())
}

// refuseUnknown plays d, and ends there, if a file is asked for that the
// terminal does not have.
func refuseUnknown(d ...step) step {
	return func(ctx context.Context, s *session) {
		m, _ := s.command.(apdu.ReadFile)
		files, wanted := s.t.files(), m.Files()
		unknown := len(wanted) == 0
		for _, f := range wanted {
			_, found := files[f.ID]
			unknown = unknown || !found
		}
		if unknown {
			s.play(ctx, d)
			s.over = true
		}
	}
}

// readFile puts the reading on record.
func readFile(_ context.Context, s *session) {
	m, _ := s.command.(apdu.ReadFile)
	s.t.did(Record{What: ReadFile, Files: ids(m.Files())})
}

func deleteFile(_ context.Context, s *session) {
	s.t.did(Record{What: DeleteFile})
}

func ids(files []apdu.File) []uint64 {
	var list []uint64
	for _, f := range files {
		list = append(list, f.ID)
	}
	return list
}

// allBlocks is no limit of sendFiles.
const allBlocks = 1 << 30

// sendFiles sends the files that were asked for, each from its offset, in 04 0F
// with a block each. It ends after limit blocks.
func sendFiles(limit int) step {
	return func(ctx context.Context, s *session) {
		for n, m := range s.t.blocks(s.command, s.t.at().registered.size) {
			if n == limit || s.gone != nil || s.over || ctx.Err() != nil {
				return
			}
			pause(ctx, s.t.between(20*time.Millisecond, 80*time.Millisecond))
			s.tell(ctx, m)
		}
	}
}

// blocks are the 04 0F that carry the files, one after the other or, in that
// scenario, all files at once: a block of each in every message.
func (t *Terminal) blocks(m apdu.Message, size int) []apdu.Message {
	command, _ := m.(apdu.ReadFile)
	const around = 50 // bytes of tags and lengths
	wanted := command.Files()
	room := min(size, t.script().blockSize) - around
	if t.script().interleaved {
		room = size/max(len(wanted), 1) - around
	}
	var each [][]apdu.File
	for _, f := range wanted {
		each = append(each, t.split(f, room))
	}
	var messages []apdu.Message
	if !t.script().interleaved {
		for _, parts := range each {
			for _, p := range parts {
				messages = append(messages, apdu.StatusInformation{Fields: apdu.Fields{apdu.Files(p)}})
			}
		}
		return messages
	}
	for n := 0; ; n++ {
		var together []apdu.File
		for _, parts := range each {
			if n < len(parts) {
				together = append(together, parts[n])
			}
		}
		if together == nil {
			return messages
		}
		messages = append(messages, apdu.StatusInformation{Fields: apdu.Fields{apdu.Files(together...)}})
	}
}

// split cuts a file into blocks. An empty one is one empty block.
func (t *Terminal) split(f apdu.File, room int) []apdu.File {
	content := t.files()[f.ID]
	from := uint64(0)
	if f.Offset != nil && !t.script().ignoreOffset {
		from = min(*f.Offset, uint64(len(content)))
	}
	size := uint64(len(content))
	var parts []apdu.File
	for {
		to := min(from+uint64(max(room, 1)), size)
		p := apdu.File{ID: f.ID, Block: content[from:to], Size: &size}
		if !t.script().noOffset {
			offset := from
			p.Offset = &offset
		}
		parts = append(parts, p)
		if from = to; from == size {
			return parts
		}
	}
}

// status is what the terminal says of itself.
func (t *Terminal) status() apdu.StatusCode {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p, busy := t.state.phase(); busy {
		return p.status
	}
	if t.state.suffers(t) {
		return t.playing.condition.status
	}
	return apdu.StatusReady
}

// suffers reports whether the condition of the scenario still holds. t.mu is
// held.
func (s *state) suffers(t *Terminal) bool {
	c := t.playing.condition
	if c == nil || s.cured {
		return false
	}
	return c.lasts == 0 || s.asked.IsZero() || time.Since(s.asked) < t.work(c.lasts)
}

// always are the commands that every terminal carries out, whatever its state.
var always = map[apdu.Control]bool{
	apdu.ControlStatusEnquiry: true, apdu.ControlRegistration: true,
	apdu.ControlLogOff: true, apdu.ControlAbortCommand: true,
}

// dialogue is what the terminal does on a command in the state it is in.
func (t *Terminal) dialogue(m apdu.Message) dialogue {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := m.Control()
	if _, busy := t.state.phase(); busy && !always[c] {
		return dialogue{refuse(apdu.CodePleaseWait)}
	}
	if t.state.suffers(t) && !always[c] && !t.playing.condition.allows[c] {
		return t.playing.condition.blocked
	}
	if d, known := t.playing.on[c]; known {
		return d
	}
	return dialogue{refuse(apdu.CodeNotPossible)}
}
