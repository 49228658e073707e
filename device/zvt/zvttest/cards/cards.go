// Package cards holds the promise that no card data leaves the lane to the test. It
// draws a card and a terminal that says its number and tracks wherever a terminal can,
// and finds them in whatever comes out:
//
//	Draw --> Card --Terminal--> Terminal --Serve--> the code under test
//	           |                                          |
//	           +-------------- FindIn <------ log, report, archive, screen ...
//
// What is searched for is written here once more, and shares no code with what masks.
package cards

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"unicode/utf16"

	"pgregory.net/rapid"

	"terminalops/device/zvt/apdu"
)

// Card is what a terminal knows and nobody may see.
type Card struct {
	pan    string
	track2 string // digits, packed: PAN D expiry, service code, data
	track3 string // the same kind
	track1 string // text
}

// Draw makes a card of a seed: shrinking must not make it look like anything else.
func Draw(t *rapid.T) Card {
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
	return Card{
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
func (c Card) written(t *rapid.T) string {
	every := func(n int, by string) string {
		var groups []string
		for group := range slices.Chunk([]byte(c.pan), n) {
			groups = append(groups, string(group))
		}
		return strings.Join(groups, by)
	}
	pan := rapid.SampledFrom([]string{
		c.pan, every(4, " "), every(4, "-"), every(3, "  "), every(1, " "),
		hex.EncodeToString([]byte(c.pan)), fmt.Sprintf("% X", c.pan), fmt.Sprintf("% X", every(4, " ")), strings.ToUpper(hex.EncodeToString([]byte(every(4, "-")))),
		fmt.Sprintf("% X", packed(c.pan)),
	}).Draw(t, "written")
	around := rapid.SampledFrom([]string{"", " ", "Karte ", "x", "12", "0000 ", "2026-06-29 ", "=", ";"})
	return around.Draw(t, "before") + pan + around.Draw(t, "behind")
}

// bytesOf are the ways in which a value has a card number.
func (c Card) bytesOf(t *rapid.T) []byte {
	filling := rapid.SliceOfN(rapid.Byte(), 0, 3)
	b := rapid.SampledFrom([][]byte{packed(c.pan), packed("F" + c.pan), []byte(c.pan), []byte(c.written(t))}).Draw(t, "bytes")
	return slices.Concat(filling.Draw(t, "before"), b, filling.Draw(t, "behind"))
}

// fields draws BMPs, some of which have card data.
func (c Card) fields(t *rapid.T) apdu.Fields {
	one := rapid.Custom(func(t *rapid.T) apdu.BMP {
		fit := func(b []byte, most int) []byte { // half a card number is none
			if len(b) <= most {
				return b
			}
			return []byte(c.pan)[:min(len(c.pan), most/2)]
		}
		return rapid.SampledFrom([]apdu.BMP{
			apdu.Amount(12345), apdu.ClockTime(apdu.Time{Hour: 10, Minute: 20, Second: 30}), apdu.MonthDay(apdu.Date{Month: 6, Day: 29}),
			apdu.CurrencyCode(apdu.EUR), apdu.TID(65029158), apdu.Totals{FirstReceipt: 68, LastReceipt: 109}.BMP(),
			{ID: 0x22, Data: packed(c.pan)}, {ID: 0x22, Data: packed(c.track2)}, {ID: 0x22, Data: []byte(c.pan)},
			{ID: 0x23, Data: packed(c.track2)}, {ID: 0x24, Data: packed(c.track3)}, {ID: 0x2D, Data: []byte(c.track1)},
			{ID: 0x3C, Data: []byte(c.written(t))}, {ID: 0x8B, Data: fit([]byte(c.written(t)), 99)}, {ID: 0xF1, Data: fit([]byte(c.written(t)), 99)},
			{ID: 0x2A, Data: []byte(fmt.Sprintf("%-15s", fit([]byte(c.pan), 15)))},
			{ID: 0x9A, Data: c.bytesOf(t)}, {ID: 0xAF, Data: c.bytesOf(t)}, {ID: 0xA7, Data: fit(c.bytesOf(t), 99)},
			apdu.Container(c.objects(t)...), apdu.Container(c.objects(t)...),
		}).Draw(t, "BMP")
	})
	fields := apdu.Fields(rapid.SliceOfN(one, 0, 4).Draw(t, "BMPs"))
	if rapid.IntRange(0, 3).Draw(t, "unknown BMP") == 0 {
		tail := rapid.SampledFrom([][]byte{
			c.bytesOf(t),
			apdu.Fields{{ID: 0x23, Data: packed(c.track2)}}.Marshal(), apdu.Fields{{ID: 0x24, Data: packed(c.track3)}}.Marshal(),
			apdu.Fields{{ID: 0x2D, Data: []byte(c.track1)}}.Marshal(), packed(c.track2), []byte(c.track1),
		}).Draw(t, "tail")
		fields = append(fields, apdu.BMP{ID: rapid.SampledFrom([]byte{0x00, 0xC9, 0xFE}).Draw(t, "id"), Unread: true, Data: tail})
	}
	return fields
}

// objects draws TLV objects with a card number.
func (c Card) objects(t *rapid.T) []apdu.Object {
	primitive := rapid.Custom(func(t *rapid.T) apdu.Object {
		tag := rapid.SampledFrom([]apdu.Tag{
			apdu.TagText, apdu.TagManufacturerText, apdu.TagManufacturerCode, apdu.TagDeviceName, apdu.TagSoftwareVersion, apdu.TagSerialNumber,
			apdu.TagTID, apdu.TagFileSize, apdu.TagFileOffset, apdu.TagFileName, apdu.TagReceiptType, apdu.TagLocks, apdu.TagMaxAPDU,
			0x45, 0x1F10, 0x1F4C, 0xDF05, 0xFF41, 0xFFD803,
		}).Draw(t, "tag")
		return apdu.Object{Tag: tag, Value: c.bytesOf(t)}
	})
	objects := rapid.SliceOfN(primitive, 1, 3).Draw(t, "objects")
	if in := rapid.SampledFrom([]apdu.Tag{0, apdu.TagDisplayTexts, apdu.TagPrintTexts, apdu.TagDevice, apdu.TagFile, 0x60}).Draw(t, "container"); in != 0 {
		return []apdu.Object{apdu.Group(in, objects...)}
	}
	return objects
}

// lines draws the lines of a receipt. A card number may go on in the next line.
func (c Card) lines(t *rapid.T) []apdu.Line {
	texts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
		return rapid.SampledFrom([]string{"Kassenschnitt", "", "Summe EUR           42     1,234.50", c.written(t)}).Draw(t, "line")
	}), 1, 4).Draw(t, "lines")
	if rapid.Bool().Draw(t, "in two lines") {
		at := rapid.IntRange(1, len(c.pan)-1).Draw(t, "cut")
		texts = append(texts, "Karte "+c.pan[:at], c.pan[at:]+" Dank")
	}
	var lines []apdu.Line
	for _, text := range texts {
		lines = append(lines, apdu.Line{Bytes: []byte(text)})
	}
	return lines
}

// messages draws what a terminal says before it ends a command.
func (c Card) messages(t *rapid.T) []apdu.Message {
	one := rapid.Custom(func(t *rapid.T) apdu.Message {
		switch rapid.IntRange(0, 6).Draw(t, "message") {
		case 0:
			return apdu.StatusInformation{Fields: c.fields(t)}
		case 1:
			return apdu.PrintLine{Text: []byte(c.written(t))}
		case 2:
			return apdu.NewPrintTextBlock(apdu.ReceiptAdministration, c.lines(t), rapid.Bool().Draw(t, "end"))
		case 3:
			return apdu.IntermediateStatus{Status: 0x17, Timeout: apdu.Minutes(3), Fields: apdu.Fields{apdu.DisplayTexts(apdu.CP437, c.written(t), "bitte warten")}}
		case 4:
			return apdu.IntermediateStatus{Status: 0x17, Fields: apdu.Fields{apdu.Container(c.objects(t)...)}}
		case 5:
			return apdu.Raw{Class: 0x06, Instr: 0xD8, Data: c.bytesOf(t)}
		}
		return apdu.SetClock{Fields: c.fields(t)}
	})
	return rapid.SliceOfN(one, 0, 3).Draw(t, "messages")
}

// end draws how a terminal ends a command.
func (c Card) end(t *rapid.T, command apdu.Control) apdu.Message {
	switch rapid.IntRange(0, 5).Draw(t, "end") {
	case 0:
		fields := c.fields(t)
		if rapid.Bool().Draw(t, "in the maker's words") {
			fields = apdu.Fields{apdu.Container(apdu.Object{Tag: apdu.TagManufacturerText, Value: []byte(c.written(t))})}
		}
		return apdu.Abort{Code: apdu.CodeEndOfDayNotPossible, Fields: fields}
	case 1:
		if command != apdu.ControlStatusEnquiry && command != apdu.ControlRegistration {
			return apdu.NewCompletion(c.fields(t)...)
		}
	}
	switch command {
	case apdu.ControlRegistration:
		return apdu.NewCompletion(apdu.TID(65029158), apdu.Container(c.objects(t)...))
	case apdu.ControlStatusEnquiry:
		status := apdu.Status{Code: apdu.StatusReady, SoftwareVersion: c.written(t)}
		if rapid.Bool().Draw(t, "details") {
			status.Fields = apdu.Fields{apdu.Container(apdu.Group(apdu.TagDevice, c.objects(t)...))}
		}
		return status.Completion()
	}
	return apdu.NewCompletion()
}

// file draws the content of a log.
func (c Card) file(t *rapid.T) []byte {
	lines := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
		return rapid.SampledFrom([]string{"12:00:01 ready", "schön", c.written(t), c.written(t)}).Draw(t, "line")
	}), 1, 5).Draw(t, "log")
	text := strings.Join(lines, "\n") + "\n"
	switch rapid.IntRange(0, 3).Draw(t, "encoding") {
	case 0:
		return append([]byte{0, 1, 2}, c.bytesOf(t)...)
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
func (c Card) blocks(t *rapid.T, id uint64) []apdu.Message {
	content := c.file(t)
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
func (c Card) noise(t *rapid.T) []byte {
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
		[]byte(c.pan), packed(c.pan), packed(c.track2), []byte(c.written(t)),
		bad(c.fields(t)), bad(apdu.Fields{{ID: 0x23, Data: packed(c.track2)}}),
		bad(c.fields(t))[:8], bad(apdu.Fields{{ID: 0x2D, Data: []byte(c.track1)}})[:20], bad(apdu.Fields{{ID: 0x24, Data: packed(c.track3)}})[12:],
	}).Draw(t, "noise")
	if drawn != nil && drawn[0] != 0x10 && bytes.ContainsAny(drawn, "\x06\x15\x10") {
		return nil // an ACK in it makes it two: no value of which the halves would be
	}
	return drawn
}
