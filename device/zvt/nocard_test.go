package zvt_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf16"

	"pgregory.net/rapid"

	"terminalops/device"
	"terminalops/device/trace"
	"terminalops/device/zvt"
	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
)

// This file holds promise 6 of the design: no card data leaves the lane. A terminal
// says card numbers and tracks wherever it can, during whole operations with
// everything switched on, and all that comes out is searched: evidence, progress,
// outcome, files, log, events, captures, and what decode makes of them and of the
// unmasked bytes. What is searched for is written here once more, and shares no code
// with what masks.

// secrets are what a terminal of the test knows and nobody may see.
type secrets struct {
	pan    string
	track2 string // digits, packed: PAN D expiry, service code, data
	track3 string // the same kind
	track1 string // text
}

// draw makes secrets of a seed: shrinking must not make them look like anything else.
func drawSecrets(t *rapid.T) secrets {
	seed := rapid.Uint64().Draw(t, "card")
	r := rand.New(rand.NewPCG(seed, 1))
	digits := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = '0' + byte(r.IntN(10))
		}
		return string(b)
	}
	pan := string('1'+rune(r.IntN(9))) + digits(rapid.IntRange(11, 17).Draw(t, "length")) // 13 to 19 with the check digit
	for check := '0'; ; check++ {
		if whole := pan + string(check); luhnIsRight(whole) {
			pan = whole
			break
		}
	}
	return secrets{
		pan:    pan,
		track2: pan + "D" + digits(19+len(pan)%2),
		track3: "01" + pan + "D" + digits(61+len(pan)%2),
		track1: "B" + pan + "^QUIXOTE/JW^" + digits(12),
	}
}

func packed(digits string) []byte {
	if len(digits)%2 == 1 {
		digits += "F"
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		panic(err)
	}
	return b
}

// written are the ways in which a text shows a card number.
func (s secrets) written(t *rapid.T) string {
	every := func(n int, by string) string {
		var groups []string
		for group := range slices.Chunk([]byte(s.pan), n) {
			groups = append(groups, string(group))
		}
		return strings.Join(groups, by)
	}
	pan := rapid.SampledFrom([]string{
		s.pan, every(4, " "), every(4, "-"), every(3, "  "), every(1, " "),
		hex.EncodeToString([]byte(s.pan)), fmt.Sprintf("% X", s.pan), fmt.Sprintf("% X", every(4, " ")), strings.ToUpper(hex.EncodeToString([]byte(every(4, "-")))),
		fmt.Sprintf("% X", packed(s.pan)),
	}).Draw(t, "written")
	around := rapid.SampledFrom([]string{"", " ", "Karte ", "x", "12", "0000 ", "2026-06-29 ", "=", ";"})
	return around.Draw(t, "before") + pan + around.Draw(t, "behind")
}

// bytesOf are the ways in which a value has a card number.
func (s secrets) bytesOf(t *rapid.T) []byte {
	filling := rapid.SliceOfN(rapid.Byte(), 0, 3)
	b := rapid.SampledFrom([][]byte{packed(s.pan), packed("F" + s.pan), []byte(s.pan), []byte(s.written(t))}).Draw(t, "bytes")
	return slices.Concat(filling.Draw(t, "before"), b, filling.Draw(t, "behind"))
}

// fields draws BMPs, some of which have card data.
func (s secrets) fields(t *rapid.T) apdu.Fields {
	one := rapid.Custom(func(t *rapid.T) apdu.BMP {
		fit := func(b []byte, most int) []byte { // half a card number is none
			if len(b) <= most {
				return b
			}
			return []byte(s.pan)[:min(len(s.pan), most/2)]
		}
		return rapid.SampledFrom([]apdu.BMP{
			apdu.Amount(12345), apdu.ClockTime(apdu.Time{Hour: 10, Minute: 20, Second: 30}), apdu.MonthDay(apdu.Date{Month: 6, Day: 29}),
			apdu.CurrencyCode(apdu.EUR), apdu.TID(65029158), apdu.Totals{FirstReceipt: 68, LastReceipt: 109}.BMP(),
			{ID: 0x22, Data: packed(s.pan)}, {ID: 0x22, Data: packed(s.track2)}, {ID: 0x22, Data: []byte(s.pan)},
			{ID: 0x23, Data: packed(s.track2)}, {ID: 0x24, Data: packed(s.track3)}, {ID: 0x2D, Data: []byte(s.track1)},
			{ID: 0x3C, Data: []byte(s.written(t))}, {ID: 0x8B, Data: fit([]byte(s.written(t)), 99)}, {ID: 0xF1, Data: fit([]byte(s.written(t)), 99)},
			{ID: 0x2A, Data: []byte(fmt.Sprintf("%-15s", fit([]byte(s.pan), 15)))},
			{ID: 0x9A, Data: s.bytesOf(t)}, {ID: 0xAF, Data: s.bytesOf(t)}, {ID: 0xA7, Data: fit(s.bytesOf(t), 99)},
			apdu.Container(s.objects(t)...), apdu.Container(s.objects(t)...),
		}).Draw(t, "BMP")
	})
	fields := apdu.Fields(rapid.SliceOfN(one, 0, 4).Draw(t, "BMPs"))
	if rapid.IntRange(0, 3).Draw(t, "unknown BMP") == 0 {
		tail := rapid.SampledFrom([][]byte{
			s.bytesOf(t),
			apdu.Fields{{ID: 0x23, Data: packed(s.track2)}}.Marshal(), apdu.Fields{{ID: 0x24, Data: packed(s.track3)}}.Marshal(),
			apdu.Fields{{ID: 0x2D, Data: []byte(s.track1)}}.Marshal(), packed(s.track2), []byte(s.track1),
		}).Draw(t, "tail")
		fields = append(fields, apdu.BMP{ID: rapid.SampledFrom([]byte{0x00, 0xC9, 0xFE}).Draw(t, "id"), Unread: true, Data: tail})
	}
	return fields
}

// objects draws TLV objects with a card number.
func (s secrets) objects(t *rapid.T) []apdu.Object {
	primitive := rapid.Custom(func(t *rapid.T) apdu.Object {
		tag := rapid.SampledFrom([]apdu.Tag{
			apdu.TagText, apdu.TagManufacturerText, apdu.TagManufacturerCode, apdu.TagDeviceName, apdu.TagSoftwareVersion, apdu.TagSerialNumber,
			apdu.TagTID, apdu.TagFileSize, apdu.TagFileOffset, apdu.TagFileName, apdu.TagReceiptType, apdu.TagLocks, apdu.TagMaxAPDU,
			0x45, 0x1F10, 0x1F4C, 0xDF05, 0xFF41, 0xFFD803,
		}).Draw(t, "tag")
		return apdu.Object{Tag: tag, Value: s.bytesOf(t)}
	})
	objects := rapid.SliceOfN(primitive, 1, 3).Draw(t, "objects")
	if in := rapid.SampledFrom([]apdu.Tag{0, apdu.TagDisplayTexts, apdu.TagPrintTexts, apdu.TagDevice, apdu.TagFile, 0x60}).Draw(t, "container"); in != 0 {
		return []apdu.Object{apdu.Group(in, objects...)}
	}
	return objects
}

// lines draws the lines of a receipt. A card number may go on in the next line.
func (s secrets) lines(t *rapid.T) []apdu.Line {
	texts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
		return rapid.SampledFrom([]string{"Kassenschnitt", "", "Summe EUR           42     1,234.50", s.written(t)}).Draw(t, "line")
	}), 1, 4).Draw(t, "lines")
	if rapid.Bool().Draw(t, "in two lines") {
		at := rapid.IntRange(1, len(s.pan)-1).Draw(t, "cut")
		texts = append(texts, "Karte "+s.pan[:at], s.pan[at:]+" Dank")
	}
	var lines []apdu.Line
	for _, text := range texts {
		lines = append(lines, apdu.Line{Bytes: []byte(text)})
	}
	return lines
}

// messages draws what a terminal says before it ends a command.
func (s secrets) messages(t *rapid.T) []apdu.Message {
	one := rapid.Custom(func(t *rapid.T) apdu.Message {
		switch rapid.IntRange(0, 6).Draw(t, "message") {
		case 0:
			return apdu.StatusInformation{Fields: s.fields(t)}
		case 1:
			return apdu.PrintLine{Text: []byte(s.written(t))}
		case 2:
			return apdu.NewPrintTextBlock(apdu.ReceiptAdministration, s.lines(t), rapid.Bool().Draw(t, "end"))
		case 3:
			return apdu.IntermediateStatus{Status: 0x17, Timeout: apdu.Minutes(3), Fields: apdu.Fields{apdu.DisplayTexts(apdu.CP437, s.written(t), "bitte warten")}}
		case 4:
			return apdu.IntermediateStatus{Status: 0x17, Fields: apdu.Fields{apdu.Container(s.objects(t)...)}}
		case 5:
			return apdu.Raw{Class: 0x06, Instr: 0xD8, Data: s.bytesOf(t)}
		}
		return apdu.SetClock{Fields: s.fields(t)}
	})
	return rapid.SliceOfN(one, 0, 3).Draw(t, "messages")
}

// end draws how a terminal ends a command.
func (s secrets) end(t *rapid.T, c apdu.Control) apdu.Message {
	switch rapid.IntRange(0, 5).Draw(t, "end") {
	case 0:
		fields := s.fields(t)
		if rapid.Bool().Draw(t, "in the maker's words") {
			fields = apdu.Fields{apdu.Container(apdu.Object{Tag: apdu.TagManufacturerText, Value: []byte(s.written(t))})}
		}
		return apdu.Abort{Code: apdu.CodeEndOfDayNotPossible, Fields: fields}
	case 1:
		if c != apdu.ControlStatusEnquiry && c != apdu.ControlRegistration {
			return apdu.NewCompletion(s.fields(t)...)
		}
	}
	switch c {
	case apdu.ControlRegistration:
		return apdu.NewCompletion(apdu.TID(65029158), apdu.Container(s.objects(t)...))
	case apdu.ControlStatusEnquiry:
		status := apdu.Status{Code: apdu.StatusReady, SoftwareVersion: s.written(t)}
		if rapid.Bool().Draw(t, "details") {
			status.Fields = apdu.Fields{apdu.Container(apdu.Group(apdu.TagDevice, s.objects(t)...))}
		}
		return status.Completion()
	}
	return apdu.NewCompletion()
}

// file draws the content of a log.
func (s secrets) file(t *rapid.T) []byte {
	lines := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
		return rapid.SampledFrom([]string{"12:00:01 ready", "schön", s.written(t), s.written(t)}).Draw(t, "line")
	}), 1, 5).Draw(t, "log")
	text := strings.Join(lines, "\n") + "\n"
	switch rapid.IntRange(0, 3).Draw(t, "encoding") {
	case 0:
		return append([]byte{0, 1, 2}, s.bytesOf(t)...)
	case 1, 2:
		var b []byte
		high := rapid.IntRange(0, 1).Draw(t, "byte order")
		for _, u := range utf16.Encode([]rune(text)) {
			pair := []byte{byte(u), byte(u)}
			pair[1-high] = byte(u >> 8)
			b = append(b, pair...)
		}
		return b
	}
	return []byte(text)
}

// blocks are the 04 0F that carry a file.
func (s secrets) blocks(t *rapid.T, id uint64) []apdu.Message {
	content := s.file(t)
	size := rapid.IntRange(1, 200).Draw(t, "block size")
	var blocks []apdu.Message
	for offset := 0; offset < len(content); offset += size {
		at := uint64(offset)
		f := apdu.File{ID: id, Offset: &at, Block: content[offset:min(offset+size, len(content))]}
		blocks = append(blocks, apdu.StatusInformation{Fields: apdu.Fields{apdu.Files(f)}})
	}
	return blocks
}

// noise draws bytes that are no frame, or a bad one.
func (s secrets) noise(t *rapid.T) []byte {
	bad := func(fields apdu.Fields) []byte {
		b := []byte{0x10, 0x02}
		for _, c := range (apdu.StatusInformation{Fields: fields}).Marshal() {
			if b = append(b, c); c == 0x10 {
				b = append(b, c)
			}
		}
		return append(b, 0x10, 0x03, 0xAB, 0xCD)
	}
	drawn := rapid.SampledFrom([][]byte{
		nil, nil, nil,
		[]byte(s.pan), packed(s.pan), packed(s.track2), []byte(s.written(t)),
		bad(s.fields(t)), bad(apdu.Fields{{ID: 0x23, Data: packed(s.track2)}}),
		bad(s.fields(t))[:8], bad(apdu.Fields{{ID: 0x2D, Data: []byte(s.track1)}})[:20], bad(apdu.Fields{{ID: 0x24, Data: packed(s.track3)}})[12:],
	}).Draw(t, "noise")
	if drawn != nil && drawn[0] != 0x10 && bytes.ContainsAny(drawn, "\x06\x15\x10") {
		return nil // an ACK in it makes it two: no value of which the halves would be
	}
	return drawn
}

// said is what a terminal does on one command.
type said struct {
	messages []apdu.Message
	noise    []byte // before them; on a serial line
	end      apdu.Message
}

// talkative is a terminal that says secrets.
type talkative struct {
	serial  bool
	answers map[apdu.Control]said
	raw     []byte // all that it has said, as it was on the wire of TCP
}

func (p *talkative) serve(ctx context.Context, s frame.Stream) error {
	var conn frame.Conn = frame.TCP(s, frame.TCPOptions{})
	if p.serial {
		conn = frame.Serial(s, frame.SerialOptions{})
	}
	defer conn.Close()
	for {
		b, err := conn.ReadAPDU(ctx)
		if err != nil {
			return err
		}
		m, err := apdu.Parse(b)
		if m == nil || m.Control() == apdu.ControlAck {
			continue
		}
		if err != nil {
			return fmt.Errorf("the ECR sends % X: %w", b, err)
		}
		answer, known := p.answers[m.Control()]
		if !known {
			answer = said{end: apdu.NewCompletion()}
		}
		if err := p.tell(ctx, conn, apdu.Ack{}); err != nil {
			return err
		}
		if p.serial && len(answer.noise) > 0 {
			if _, err := s.Write(answer.noise); err != nil {
				return err
			}
			time.Sleep(time.Second) // until it is heard to be none
		}
		for _, m := range append(slices.Clone(answer.messages), answer.end) {
			if err := p.tell(ctx, conn, m); err != nil {
				return err
			}
			if _, err := conn.ReadAPDU(ctx); err != nil {
				return err
			}
		}
	}
}

func (p *talkative) tell(ctx context.Context, conn frame.Conn, m apdu.Message) error {
	p.raw = append(p.raw, m.Marshal()...)
	return conn.WriteAPDU(ctx, m.Marshal())
}

// outputs runs an operation with everything switched on, and returns all that can be
// seen of it.
func outputs(t *testing.T, p *talkative, op device.Operation) map[string]string {
	var out map[string]string
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var text, lines bytes.Buffer
		tap := trace.NewTap(8 << 20)
		level := &slog.HandlerOptions{Level: slog.LevelDebug}
		o := zvt.Options{
			Serial: p.serial, Location: time.UTC, T4: 30 * time.Second, Tap: tap, Lane: "P1-T1",
			Logger: slog.New(both{slog.NewTextHandler(&text, level), slog.NewJSONHandler(&lines, level)}),
		}
		served := make(chan struct{}, 10)
		o.Open = func(context.Context) (frame.Stream, error) {
			ours, theirs := cable()
			go func() {
				_ = p.serve(ctx, theirs) // the ECR ends it, sooner or later
				served <- struct{}{}
			}()
			return ours, nil
		}
		terminal, err := zvt.New(o)
		if err != nil {
			t.Fatal(err)
		}
		files := newSpool(1 << 20)
		e := &entry{request: device.Request{Operation: op}}
		if op == device.SendLogs {
			e.request.Spool = files
		}
		outcome, err := terminal.Execute(ctx, e.request, e)
		out = map[string]string{"error of Execute": fmt.Sprint(err)}
		show := func(name string, v any) {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			out[name] = string(b)
		}
		show("outcome of Execute", outcome)
		if e.began > 0 {
			past := e.past()
			past.GiveUp = true
			outcome, err = terminal.Resolve(ctx, e.request, past, e)
			show("outcome of Resolve", outcome)
			out["error of Resolve"] = fmt.Sprint(err)
		}
		stop()
		synctest.Wait()
		show("description", terminal.Describe())
		show("evidence", e.evidence)
		out["mark"] = string(e.mark)
		out["progress"] = strings.Join(e.texts, "\n")
		for name, content := range files.files {
			out["file "+name] = content
		}
		out["log"], out["log in JSON"] = text.String(), lines.String()
		show("events", tap.Last("P1-T1"))
		out["capture"] = capture(t, tap.Last("P1-T1"))
		for name, recording := range map[string]string{
			"capture": out["capture"], "dump": hex.Dump(p.raw), "one row": hex.EncodeToString(p.raw), "frames": fmt.Sprintf("RX % X", inFrame(p.raw)),
		} {
			var b strings.Builder
			if err := zvt.Decode(&b, strings.NewReader(recording)); err != nil && len(p.raw) > 0 {
				t.Fatalf("decode of the %s: %v", name, err)
			}
			out["decode of the "+name] = b.String()
		}
	})
	return out
}

// inFrame is a frame of bytes that are no APDU, with whatever CRC.
func inFrame(b []byte) []byte {
	return slices.Concat([]byte{0x10, 0x02}, bytes.ReplaceAll(b, []byte{0x10}, []byte{0x10, 0x10}), []byte{0x10, 0x03, 0, 0})
}

func capture(t *testing.T, events []trace.Event) string {
	var b strings.Builder
	w, err := trace.NewWriter(&b, trace.Header{Made: time.Now()})
	for _, e := range events {
		err = errors.Join(err, w.Write(e))
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// both hands log records to two handlers.
type both [2]slog.Handler

func (b both) Enabled(context.Context, slog.Level) bool { return true }
func (b both) Handle(ctx context.Context, r slog.Record) error {
	return errors.Join(b[0].Handle(ctx, r.Clone()), b[1].Handle(ctx, r))
}
func (b both) WithAttrs(a []slog.Attr) slog.Handler {
	return both{b[0].WithAttrs(a), b[1].WithAttrs(a)}
}
func (b both) WithGroup(name string) slog.Handler {
	return both{b[0].WithGroup(name), b[1].WithGroup(name)}
}

// The same cards are drawn each time, so that nobody's work depends on luck.
func init() { _ = flag.Set("rapid.seed", "20261124") }

// TestNoCardData is the promise. More of it: -rapid.seed=0 -rapid.checks=10000.
func TestNoCardData(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSecrets(rt)
		p := &talkative{serial: rapid.Bool().Draw(rt, "serial"), answers: map[apdu.Control]said{}}
		for _, c := range []apdu.Control{
			apdu.ControlRegistration, apdu.ControlStatusEnquiry, apdu.ControlEndOfDay, apdu.ControlSoftwareUpdate, apdu.ControlServiceMode,
			apdu.ControlRepeatReceipt, apdu.ControlSystemConfiguration, apdu.ControlSelfTest, apdu.ControlReadFile,
		} {
			answer := said{messages: s.messages(rt), end: s.end(rt, c), noise: s.noise(rt)}
			if c == apdu.ControlReadFile {
				answer.messages = append(answer.messages, s.blocks(rt, rapid.SampledFrom([]uint64{2, 3, 4, 5}).Draw(rt, "file"))...)
			}
			p.answers[c] = answer
		}
		op := rapid.SampledFrom(device.Operations()).Draw(rt, "operation")
		for name, text := range outputs(t, p, op) {
			if found := s.findIn(text, strings.HasPrefix(name, "file ")); found != "" {
				rt.Fatalf("%s shows %s:\n%s", name, found, s.lineWithIt(text))
			}
		}
	})
}

// lineWithIt is the line of a text that shows something, if it is one.
func (s secrets) lineWithIt(text string) string {
	for line := range strings.Lines(text) {
		if s.findIn(line, false) != "" {
			return line
		}
	}
	return text
}

// findIn returns what of the secrets a text shows, or anything else that could be a
// card number. A file may be no text.
func (s secrets) findIn(text string, file bool) string {
	readings := map[string]string{"as text": text, "hexadecimal": unhexed(text, 0), "hexadecimal, odd": unhexed(text, 1)}
	if file {
		readings["in UTF-16"] = strings.ReplaceAll(text, "\x00", "")
		if strings.ContainsAny(text, "\x01\x02") { // not a text
			readings["packed"] = hex.EncodeToString([]byte(text))
		}
	}
	for how, reading := range readings {
		for _, digits := range digitRuns.FindAllString(reading, -1) {
			digits = strings.NewReplacer(" ", "", "-", "").Replace(digits)
			for from := range digits {
				for to := from + 13; to <= min(from+19, len(digits)); to++ {
					if luhnIsRight(digits[from:to]) {
						return fmt.Sprintf("%s: what could be a card, %s", how, digits[from:to])
					}
				}
			}
			// A part of the card that is longer than what may be shown of it.
			const part = 9
			for from := 0; from+part <= len(s.pan); from++ {
				if strings.Contains(digits, s.pan[from:from+part]) {
					return fmt.Sprintf("%s: %s of card %s", how, s.pan[from:from+part], s.pan)
				}
			}
		}
	}
	return s.findTracks(text)
}

// findTracks looks for the tracks, of which nothing may be shown: any five bytes.
func (s secrets) findTracks(text string) string {
	const part = 10 // hexadecimal digits
	shown := strings.ToUpper(strings.NewReplacer(" ", "", "|", "").Replace(text))
	if strings.Contains(shown, "QUIXOTE") || strings.Contains(shown, fmt.Sprintf("%X", "QUIXOTE")) {
		return "track 1"
	}
	for name, track := range map[string]string{"track 2": s.track2, "track 3": s.track3} {
		secret := track[strings.Index(track, "D")+1:]
		for from := 0; from+part <= len(secret); from++ {
			if strings.Contains(shown, secret[from:from+part]) {
				return fmt.Sprintf("%s: %s of %s", name, secret[from:from+part], track)
			}
		}
	}
	return ""
}

var (
	digitRuns = regexp.MustCompile(`[0-9][0-9 -]+`)
	hexRuns   = regexp.MustCompile(`[0-9A-Fa-f][0-9A-Fa-f -]+`)
)

// unhexed is what is written in hexadecimal digits in a text, from its first digit
// on or from another one.
func unhexed(text string, from int) string {
	var b strings.Builder
	for _, row := range hexRuns.FindAllString(text, -1) {
		digits := strings.NewReplacer(" ", "", "-", "").Replace(row)
		if len(digits) < 26 { // of the shortest card number
			continue
		}
		digits = digits[from:]
		part, err := hex.DecodeString(digits[:len(digits)&^1])
		if err != nil {
			panic(err)
		}
		b.Write(part)
		b.WriteByte('\n')
	}
	return b.String()
}

// luhnIsRight adds up from the front, with a table: other than the code under test.
func luhnIsRight(digits string) bool {
	doubled := map[rune]int{'0': 0, '1': 2, '2': 4, '3': 6, '4': 8, '5': 1, '6': 3, '7': 5, '8': 7, '9': 9}
	sum := 0
	for i, c := range digits {
		if (len(digits)-i)%2 == 0 {
			sum += doubled[c]
		} else {
			sum += int(c - '0')
		}
	}
	return sum%10 == 0
}

// The search finds what it is for.
func TestFindInFinds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSecrets(rt)
		for name, text := range map[string]string{
			"text": s.pan, "blanks": "a " + s.pan[:4] + " " + s.pan[4:] + " b", "packed": fmt.Sprintf("% X", packed(s.pan)),
			"text in hexadecimal": fmt.Sprintf("% X", s.pan), "in a row": "x" + hex.EncodeToString([]byte(s.pan)) + "x",
			"track 2": fmt.Sprintf("% X", packed(s.track2)[12:]), "track 1": fmt.Sprintf("% X", s.track1), "part": s.pan[2:11] + "0000",
		} {
			if s.findIn(text, false) == "" {
				rt.Fatalf("%s is not found: %s", name, text)
			}
		}
		if s.findIn("\x01"+string(packed(s.pan)), true) == "" {
			rt.Fatalf("not found in a file: %s", s.pan)
		}
		if found := s.findIn(s.pan[:6]+"******"+s.pan[len(s.pan)-4:], false); found != "" {
			rt.Fatalf("masked, and found: %s", found)
		}
	})
}
