package zvt

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"terminalops/device"
	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
)

func TestNear(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		if os.Getenv("TERMINALOPS_TEST_ALL") == "1" {
			t.Fatal("needs time zones:", err)
		}
		t.Skip("needs time zones:", err)
	}
	for _, test := range []struct {
		clock clock
		at    string
		want  string
	}{
		{clock{0, 6, 29, 22, 0, 5}, "2026-06-29T20:00:07Z", "2026-06-29T22:00:05+02:00"},
		{clock{0, 12, 31, 23, 59, 58}, "2026-12-31T23:00:03Z", "2026-12-31T23:59:58+01:00"},
		{clock{0, 1, 1, 0, 0, 2}, "2026-12-31T22:59:59Z", "2027-01-01T00:00:02+01:00"},
		{clock{0, 2, 29, 12, 0, 0}, "2027-12-01T12:00:00Z", "2028-02-29T12:00:00+01:00"},
		{clock{2019, 3, 31, 10, 59, 37}, "2026-06-29T20:00:07Z", "2019-03-31T10:59:37+02:00"},
		{clock{0, 2, 30, 0, 0, 0}, "2026-06-29T20:00:07Z", "0001-01-01T00:00:00Z"},
	} {
		at, err := time.Parse(time.RFC3339, test.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := test.clock.near(at, berlin).Format(time.RFC3339); got != test.want {
			t.Errorf("%+v near %s: %s, want %s", test.clock, test.at, got, test.want)
		}
	}
}

func block(at int64, s string) apdu.File {
	offset := uint64(at)
	f := apdu.File{Offset: &offset, Block: []byte(s)}
	if at < 0 {
		f.Offset = nil
	}
	return f
}

func TestAssembly(t *testing.T) {
	for _, test := range []struct {
		name    string
		room    int64
		blocks  []apdu.File
		want    string
		dropped int64
	}{
		{"in order", 100, []apdu.File{block(0, "ab"), block(2, "cd")}, "abcd", 0},
		{"without offsets", 100, []apdu.File{block(-1, "ab"), block(-1, "cd")}, "abcd", 0},
		{"out of order", 100, []apdu.File{block(2, "cd"), block(0, "ab")}, "abcd", 0},
		{"one again", 100, []apdu.File{block(0, "ab"), block(0, "ab"), block(2, "cd")}, "abcd", 0},
		{"one missing", 100, []apdu.File{block(0, "ab"), block(4, "ef")}, "ab??ef", 0},
		{"too much, from a line on", 8, []apdu.File{block(0, "1234\n5678\n"), block(10, "90\n")}, "90\n", 10},
		{"too much at once", 4, []apdu.File{block(0, "123456\n789\n")}, "", 11},
		{"from far behind", 8, []apdu.File{block(0, "ab\n"), block(1<<39, "cd\n")}, "", 1<<39 + 3},
		{"an offset nobody has", 8, []apdu.File{block(1<<50, "ab\n")}, "ab\n", 0},
		{"no room", 0, []apdu.File{block(0, "ab\n")}, "", 3},
	} {
		a := &assembly{room: test.room}
		for _, b := range test.blocks {
			a.add(b)
		}
		if int64(len(a.data)) > test.room {
			t.Errorf("%s: keeps %d bytes, room for %d", test.name, len(a.data), test.room)
		}
		if got, dropped := a.masked(); string(got) != test.want || dropped != test.dropped {
			t.Errorf("%s: %q, %d dropped; want %q, %d", test.name, got, dropped, test.want, test.dropped)
		}
	}
}

// TestHalfACardNumber: what room cuts in two cannot be recognised any more.
func TestHalfACardNumber(t *testing.T) {
	for room := int64(1); room < 200; room++ {
		a := &assembly{room: room}
		a.add(block(0, strings.Repeat("x", 150)+"4111111111111111"+strings.Repeat("x", 20)))
		if content, _ := a.masked(); bytes.Count(content, []byte("1")) > 9 {
			t.Fatalf("room %d: %s", room, content)
		}
	}
}

// What is said of the line is masked, whatever it says: a note is not an APDU, and
// has not been masked by package apdu.
func TestInterpretMasks(t *testing.T) {
	const note = "behind it: 4111111111111111"
	for _, s := range []frame.Sight{
		{Kind: frame.Whole, APDU: []byte{0x80, 0x00, 0x00}, Note: note},
		{Kind: frame.Broken, APDU: []byte{0x80, 0x00, 0x00}, Note: note},
		{Kind: frame.Remark, Note: note},
	} {
		if _, meaning := interpret(s); !strings.Contains(meaning, "411111******1111") {
			t.Errorf("%v: %s", s.Kind, meaning)
		}
	}
}

func TestMaskFile(t *testing.T) {
	packed := append([]byte("\x00\x22\xF0\xF8"), 0x41, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x00, 0x01)
	if got := fmt.Sprintf("%X", maskFile(packed)); strings.Contains(got, "4111111111111111") || !strings.Contains(got, "411111EE") || len(got) != 2*len(packed) {
		t.Errorf("packed: %s", got)
	}
	shifted := []byte{0x00, 0xF4, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x1F}
	if got := fmt.Sprintf("%X", maskFile(shifted)); strings.Contains(got, "4111111111111111") {
		t.Errorf("packed, half a byte later: %s", got)
	}
	text := []byte("karte 4111 1111 1111 1111\nschön 12345678\n")
	if got := string(maskFile(text)); got != "karte 4111 11** **** 1111\nschön 12345678\n" {
		t.Errorf("text: %s", got)
	}
	latin1 := []byte("sch\xF6n 31323334353637383930\n")
	if got := maskFile(latin1); !bytes.HasPrefix(got, []byte("sch\xF6n 3132")) {
		t.Errorf("Latin-1: %q", got)
	}
}

// TestMaskFileAtBorders: a file is masked in pieces, and no piece may end in a
// card number.
func TestMaskFileAtBorders(t *testing.T) {
	packed := []byte{0x41, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11}
	for shift := -20; shift <= 4; shift++ {
		text := bytes.Repeat([]byte("x"), 3*maskPiece)
		copy(text[maskPiece+shift:], "4111 1111 1111 1111")
		if got := maskFile(text); bytes.Contains(got, []byte("1111 1111")) || len(got) != len(text) {
			t.Errorf("text, %d: %q", shift, got[maskPiece-30:maskPiece+30])
		}
		binary := bytes.Repeat([]byte{0xFF}, 3*maskPiece)
		binary[0] = 0
		copy(binary[maskPiece+shift:], packed)
		if got := maskFile(binary); bytes.Contains(got, packed[2:6]) || len(got) != len(binary) {
			t.Errorf("packed, %d: %X", shift, got[maskPiece-30:maskPiece+30])
		}
	}
}

// TestMaskFileIsBounded: a file of zeros is one run of digits.
func TestMaskFileIsBounded(t *testing.T) {
	const size, bound = 1 << 20, 12 << 20
	content := make([]byte, size)
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	heap := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	runtime.GC()
	before, most := heap(), int64(0)
	masked := make(chan struct{})
	go func() {
		maskFile(content)
		close(masked)
	}()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for done := false; !done; {
		select {
		case <-masked:
			done = true
		case <-look.C:
			most = max(most, heap()-before)
		}
	}
	if most > bound {
		t.Errorf("%d MiB of memory for a file of %d MiB", most>>20, size>>20)
	}
}

// TestCardNumberInTwoLines: of a block it does not reach the disk, of two messages
// not the report.
func TestCardNumberInTwoLines(t *testing.T) {
	const half, rest = "Karte 4111 1111", "1111 1111 genehmigt"
	block := apdu.NewPrintTextBlock(apdu.ReceiptAdministration, []apdu.Line{{Bytes: []byte(half)}, {Bytes: []byte(rest)}}, true)
	for name, messages := range map[string][]apdu.Message{
		"one block":    {block},
		"two messages": {apdu.PrintLine{Text: []byte(half)}, apdu.PrintLine{Text: []byte(rest)}},
	} {
		l := &ledger{witness: &fullWitness{}, charset: apdu.Auto, log: slog.New(slog.DiscardHandler)}
		for _, m := range messages {
			l.hear(m)
		}
		z := &Terminal{o: Options{Receipt: ReceiptReport}}
		receipt := z.closed(l.account(), "").Result.(*device.EndOfDayResult).Receipt
		if got := strings.Join(receipt, "|"); got != "Karte 4111 11**|**** 1111 genehmigt" {
			t.Errorf("%s: receipt %s", name, got)
		}
		if len(messages) == 1 && strings.Contains(string(l.evidence[0].Data), "4111 1111") {
			t.Errorf("on disk: %s", l.evidence[0].Data)
		}
	}
}

// TestReceiptIsBounded: a terminal that prints for ever does not fill the disk.
func TestReceiptIsBounded(t *testing.T) {
	w := &fullWitness{}
	l := &ledger{witness: w, charset: apdu.Auto, log: slog.New(slog.DiscardHandler)}
	for range 2000 {
		l.hear(apdu.PrintLine{Text: []byte("a line of a receipt that does not end ")})
	}
	a := l.account()
	size := 0
	for _, line := range a.lines {
		size += len(line) + 1
	}
	if size > maxReceipt || size < maxReceipt-100 || !a.truncated {
		t.Errorf("%d bytes kept, truncated %v", size, a.truncated)
	}
	if w.records > len(a.lines)+1 {
		t.Errorf("%d records for %d lines", w.records, len(a.lines))
	}
}

// TestUnaskedIsBounded: nor does one that prints on its own account.
func TestUnaskedIsBounded(t *testing.T) {
	l := &ledger{witness: &fullWitness{}, charset: apdu.Auto, log: slog.New(slog.DiscardHandler)}
	hear := l.overhear(apdu.ControlStatusEnquiry)
	for range 2000 {
		hear(apdu.PrintLine{Text: []byte("a line of a receipt that does not end ")})
	}
	size := 0
	for _, e := range l.evidence {
		size += len(e.Data)
	}
	if size > 4*maxReceipt || size < maxReceipt/2 {
		t.Errorf("%d bytes recorded", size)
	}
}

// fullWitness is a device.Witness whose disk is full: the evidence is known all
// the same.
type fullWitness struct{ records int }

func (w *fullWitness) Begin(any) error { return nil }
func (w *fullWitness) Progress(string) {}

func (w *fullWitness) Record(string, any) (device.Evidence, error) {
	w.records++
	return device.Evidence{}, errors.New("disk full")
}
