package zvt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"terminalops/device"
	"terminalops/device/trace"
	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
)

// Logs are read by 08 11, one file a request (zvt.md 4.15); the terminal sends
// them in blocks, with the offsets or without. Few terminals know it. The others
// are asked to print what they have to say of themselves, which comes as receipt
// lines. Reading changes nothing, so it is begun again where it broke off.
//
// Of the files of chapter 9.4 two are left out: the merchant journal (01) and
// the reconciliation data (06) are records of payments and no logs; their card
// data does not leave the shop, also not masked. Nothing is ever deleted (08 12).

// logFiles are the files to ask for.
var logFiles = []struct {
	id   byte
	name string
}{
	{apdu.FileApplicationLog, "02-application.log"},
	{apdu.FileECRProtocolLog, "03-ecr-protocol.log"},
	{apdu.FileCommunicationLog, "04-communication.log"},
	{apdu.FilePINPadLog, "05-pin-pad.log"},
}

// statusFile always is among the files.
const statusFile = "status.txt"

// logsWait is how long Resolve tries to reach a terminal again to read its logs.
// Nothing depends on them; a closing does on what this lane does next.
const logsWait = time.Hour

// maxCuts is how often reading is begun again after the link broke. Then what
// there is has to be enough.
const maxCuts = 2

// logReader reads the logs once.
type logReader struct {
	t       *Terminal
	d       *dialogue
	l       *ledger
	spool   device.Spool
	found   int      // files and prints with something in them
	remarks []string // what is not whole
	refused *refusal // the first no that is not "I do not have that"
}

// readLogs puts what the terminal has into the spool.
func (t *Terminal) readLogs(ctx context.Context, d *dialogue, l *ledger, spool device.Spool) (device.Outcome, error) {
	r := &logReader{t: t, d: d, l: l, spool: spool}
	err := r.readAll(ctx)
	switch {
	case ctx.Err() != nil:
		return device.Outcome{}, ctx.Err()
	case errors.Is(err, device.ErrBusy) && r.found == 0:
		// Not asked again: that would go on for a day, and hold up the lane.
		return device.Outcome{Message: r.message(), Failure: &device.Failure{
			Cause: device.Busy, Executed: device.No, Message: err.Error(),
		}}, nil
	case err != nil && l.account().cuts < maxCuts:
		l.record(kindCut, nothing{})
		if r.found == 0 && (errors.Is(err, frame.ErrNothingWritten) || errors.Is(err, frame.ErrRejected)) {
			err = fmt.Errorf("%w: %w", device.ErrNotStarted, err)
		}
		return device.Outcome{}, err
	case err != nil && r.found == 0:
		return device.Outcome{Failure: &device.Failure{
			Cause: device.Unknown, Executed: device.Perhaps, Message: "the logs cannot be read: " + err.Error(),
		}}, nil
	case err != nil:
		r.remarks = append(r.remarks, "broken off: "+err.Error())
	case r.found == 0 && r.refused != nil:
		return device.Outcome{Message: r.message(), Failure: &device.Failure{
			Cause: device.Refused, Code: r.refused.code.Hex(), Executed: device.No, Message: r.refused.Error(),
		}}, nil
	case r.found == 0:
		return device.Outcome{Message: r.message(), Failure: &device.Failure{
			Cause: device.Unsupported, Executed: device.No, Message: "the terminal has no logs to give, only its status",
		}}, nil
	}
	return device.Outcome{Effect: device.Done, Message: r.message()}, nil
}

func (r *logReader) message() string { return strings.Join(r.remarks, "; ") }

func (r *logReader) readAll(ctx context.Context) error {
	if err := r.readStatus(ctx); err != nil {
		return err
	}
	for i, f := range logFiles {
		share := r.spool.Room() / int64(len(logFiles)-i)
		if err := r.readFile(ctx, f.id, f.name, share); err != nil {
			return err
		}
	}
	const lines = byte(apdu.ConfigPrintLines | apdu.ConfigAdministrationReceipts)
	if r.found > 0 || r.t.o.ConfigByte&lines != lines {
		return nil // without both bits the prints would come out on paper, or not at all
	}
	return r.readPrints(ctx)
}

// readStatus spools the status, with the details if the terminal tells them.
func (r *logReader) readStatus(ctx context.Context) error {
	command := apdu.StatusEnquiry{Password: r.t.password, Fields: apdu.Fields{apdu.ServiceByte(apdu.ServiceTLVDetails)}}
	end, err := r.t.inquire(ctx, r.d, exchange{command: command, hear: r.l.overhear(command.Control())})
	content := []byte(fmt.Sprintf("%v\n", err))
	if no := (*refusal)(nil); err != nil && !errors.As(err, &no) {
		return err
	}
	if err == nil {
		s, unread := end.Status()
		if unread != nil {
			r.remarks = append(r.remarks, unread.Error())
		}
		r.t.learn(s)
		content = statusText(s)
	}
	return r.spool.Put(statusFile, content, 0)
}

// readFile spools one file, of which the last room bytes are wanted. A terminal
// may know nothing of it, in one of three ways (zvt.md 4.15).
func (r *logReader) readFile(ctx context.Context, id byte, name string, room int64) error {
	r.l.witness.Progress("reading " + name)
	file := &assembly{room: room}
	hear := func(m apdu.Message) bool {
		if s, ok := m.(apdu.StatusInformation); ok {
			for _, f := range s.Files() {
				if f.ID == uint64(id) || f.ID == 0 {
					file.add(f)
				}
			}
		}
		return false
	}
	end, err := r.t.inquire(ctx, r.d, exchange{command: apdu.NewReadFile(apdu.File{ID: uint64(id)}), hear: hear})
	if code := end.Result(); err == nil && code != apdu.CodeOK {
		err = &refusal{apdu.ControlReadFile, code}
	}
	switch {
	case err != nil && len(file.data) > 0:
		r.remarks = append(r.remarks, fmt.Sprintf("%s is not whole: %v", name, err))
	case err == nil && file.end() < file.size:
		r.remarks = append(r.remarks, fmt.Sprintf("%s is not whole: %d of %d bytes", name, file.end(), file.size))
	}
	content, dropped := file.masked()
	if put := r.put(name, content, dropped); put != nil {
		return put
	}
	return r.tolerate(err)
}

// tolerate takes a terminal's no for what it is: it has no such file or print,
// or does not give it in a lock. Other errors it returns.
func (r *logReader) tolerate(err error) error {
	no := (*refusal)(nil)
	if errors.Is(err, device.ErrBusy) || !errors.As(err, &no) {
		return err
	}
	if no.code != apdu.CodeNotPossible && r.refused == nil {
		r.refused = no
	}
	return nil
}

// prints are the commands that make a terminal tell of itself on a receipt.
func (t *Terminal) prints() []struct {
	command apdu.Message
	name    string
} {
	return []struct {
		command apdu.Message
		name    string
	}{
		{apdu.SystemConfiguration{}, "configuration.txt"},
		{apdu.SelfTest{}, "self-test.txt"},
		{apdu.SystemInfo{Password: t.password}, "system-info.txt"},
		{apdu.EMVStatus{Password: t.password}, "emv-status.txt"},
	}
}

// readPrints spools what the terminal prints of itself.
func (r *logReader) readPrints(ctx context.Context) error {
	for _, p := range r.t.prints() {
		r.l.witness.Progress("reading " + p.name)
		var lines []string
		hear := func(m apdu.Message) bool {
			switch m := m.(type) {
			case apdu.PrintLine:
				lines = append(lines, maskLines(m.Lines(), r.l.charset)...)
			case apdu.PrintTextBlock:
				lines = append(lines, maskLines(m.Lines(), blockCharset(m, r.l.charset))...)
			}
			return false
		}
		_, err := r.t.inquire(ctx, r.d, exchange{command: p.command, hear: hear})
		if err := r.tolerate(err); err != nil {
			return err
		}
		text := strings.Join(trace.MaskLines(lines), "\n")
		if strings.TrimSpace(text) == "" {
			continue
		}
		if err := r.put(p.name, []byte(text+"\n"), 0); err != nil {
			return err
		}
	}
	return nil
}

// put spools something the terminal has. Nothing is no file.
func (r *logReader) put(name string, content []byte, dropped int64) error {
	if len(content) == 0 {
		return nil
	}
	r.found++
	return r.spool.Put(name, content, dropped)
}

// assembly puts a file together of blocks, of which it keeps the last room
// bytes.
type assembly struct {
	room int64
	data []byte
	base int64 // the offset of data in the file
	size int64 // of the whole file, if the terminal tells it
}

// maxOffset is beyond every file that a terminal can have.
const maxOffset = 1 << 40

// end is where the file ends, as far as it was sent.
func (a *assembly) end() int64 { return a.base + int64(len(a.data)) }

// missing stands for bytes that the terminal did not send.
const missing = '?'

// add takes in a block: at its offset, or behind the others.
func (a *assembly) add(f apdu.File) {
	if f.Size != nil && *f.Size < maxOffset {
		a.size = int64(*f.Size)
	}
	at := a.end()
	if f.Offset != nil && *f.Offset < maxOffset {
		at = int64(*f.Offset)
	}
	end := at + int64(len(f.Block))
	a.keepFrom(end - a.room)
	block := f.Block
	if at < a.base { // its beginning was dropped, or it all
		block = block[min(a.base-at, int64(len(block))):]
		at = a.base
	}
	for a.end() < at+int64(len(block)) {
		a.data = append(a.data, missing)
	}
	copy(a.data[at-a.base:], block)
}

// keepFrom drops what comes before an offset.
func (a *assembly) keepFrom(offset int64) {
	if offset <= a.base {
		return
	}
	a.data = a.data[min(offset-a.base, int64(len(a.data))):]
	a.base = offset
}

// masked is what is kept, without card numbers, and how many bytes of the file
// are missing before it. It begins with a line, or far enough behind the cut: half
// a card number cannot be recognised. So it is masked first, and then cut.
func (a *assembly) masked() (content []byte, dropped int64) {
	content = maskFile(a.data)
	if a.base == 0 {
		return content, 0
	}
	const longest = 256 // of a card number, however it is written
	cut := min(longest, len(content))
	if newline := bytes.IndexByte(content, '\n'); newline >= 0 && newline < 4096 {
		cut = newline + 1
	}
	return content[cut:], a.base + int64(cut)
}
