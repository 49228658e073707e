package apdu

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"terminalops/device/trace"
)

func bytesOf(t testing.TB, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCover(t *testing.T) {
	for _, test := range []struct{ name, apdu, want string }{
		{"end of day", "06 50 03 12 34 56", "06 50 03|•• •• ••"},
		{"registration", "06 00 0A 12 34 56 8C 09 78 06 03 12 01 40", "06 00 0A|•• •• ••|8C 09 78|06 03|12 01|40"},
		{"acknowledgement", "80 00 00", "80 00 00"},
		{"refusal", "84 9C 00", "84 9C 00"},
		{"intermediate status", "04 FF 0B 17 03 06 07 24 05 07 03 41 42 43", "04 FF 0B|17 03|06 07|24 05|07 03|41 42 43"},
		{"intermediate status without a timeout", "04 FF 04 17 06 01 41", "04 FF 04|17 06|01|41"},
		{"PAN", "04 0F 0B 22 F0 F8 41 11 11 11 11 11 11 11", "04 0F 0B|22 F0 F8|41 11 11 •• •• •• 11 11"},
		{"PAN of 19 digits", "04 0F 0D 22 F1 F0 67 99 99 01 00 00 00 00 01 9F", "04 0F 0D|22 F1 F0|67 99 99 •• •• •• •• •• 01 9F"},
		{"PAN with a wrong check digit", "04 0F 0B 22 F0 F8 41 11 11 11 11 11 11 12", "04 0F 0B|22 F0 F8|41 11 11 •• •• •• 11 12"},
		{"PAN that is a track", "04 0F 0D 22 F1 F0 41 11 11 11 11 11 11 11 D2 51", "04 0F 0D|22 F1 F0|•• •• •• •• •• •• •• •• •• ••"},
		{"short PAN", "04 0F 07 22 F0 F4 41 11 11 11", "04 0F 07|22 F0 F4|•• •• •• ••"},
		{"tracks", "04 0F 0F 23 F0 F2 41 11 24 F0 F0 F1 41 2D F0 F2 42 34", "04 0F 0F|23 F0 F2|•• ••|24 F0 F0 F1|••|2D F0 F2|•• ••"},
		{"expiry date", "04 0F 03 0E 25 12", "04 0F 03|0E|•• ••"},
		{"broken track", "04 0F 06 23 F9 F9 41 11 11", "04 0F 06|•• •• •• •• •• ••"},
		{"behind an unknown BMP", "04 0F 08 C9 00 00 23 F0 F2 41 11", "04 0F 08|C9 00 00 •• •• •• •• ••"},
		{"track 2 in an unknown BMP", "04 0F 0A C9 FF 41 11 11 11 11 11 D2 51", "04 0F 0A|C9 FF •• •• •• •• •• •• •• ••"},
		{"text", "06 D1 14 40 2A 2A 20 4B 41 53 53 45 4E 53 43 48 4E 49 54 54 20 2A 2A", "06 D1 14|40|2A 2A 20 4B 41 53 53 45 4E 53 43 48 4E 49 54 54 20 2A 2A"},
		{"private password", "08 13 08 06 06 FF 40 03 12 34 56", "08 13 08|06 06|FF 40 03|•• •• ••"},
		{"a till's reversal", "06 30 06 12 34 56 87 00 01", "06 30 06|•• •• ••|87|00 01"},
		{"change of the password", "06 95 06 12 34 56 65 43 21", "06 95 06|•• •• •• •• •• ••"},
		{"a command nobody knows", "0F 99 06 12 34 56 87 00 01", "0F 99 06|•• •• ••|87|00 01"},
		{"status with a version", "06 0F 0B F0 F0 F7 32 2E 31 34 2E 31 35 00", "06 0F 0B|F0 F0 F7|32 2E 31 34 2E 31 35|00"},
		{"a block of a file", "04 0F 10 06 0E 2D 0C 1C 0A 31 32 33 34 35 36 37 38 39 30", "04 0F 10|06 0E|2D 0C|1C 0A|•• •• •• •• •• •• •• •• •• ••"},
		{"no header", "06", "06"},
	} {
		b := bytesOf(t, test.apdu)
		if got := trace.Hex(b, Cover(b)); got != test.want {
			t.Errorf("%s:\n%s, want\n%s", test.name, got, test.want)
		}
	}
}

// A card number that goes on in the next line is one of the block.
func TestCoverAcrossLines(t *testing.T) {
	block := NewPrintTextBlock(ReceiptAdministration, []Line{{Bytes: []byte("Karte 4111 11ab")}, {Bytes: []byte("x4111 11")}, {Bytes: []byte("11 1111 1111 y")}}, true)
	b := block.Marshal()
	shown := bytes.Clone(b)
	for i, mark := range Cover(b) {
		if mark&trace.Hidden != 0 {
			shown[i] = '*'
		}
	}
	if !bytes.Contains(shown, []byte("\x0E** ")) { // of the line alone the first digits would be seen
		t.Errorf("%q", shown)
	}
	if s := block.String(); strings.Contains(s, "1111 1111") || !strings.Contains(s, `"** **** 1111 y"`) {
		t.Errorf("in words: %s", s)
	}
}

// So it is in the texts of a display.
func TestMaskAcrossDisplayTexts(t *testing.T) {
	status := IntermediateStatus{Status: 0x17, Fields: Fields{DisplayTexts(CP437, "Karte 4111 1111", "1111 1111")}}
	if s := status.String(); !strings.Contains(s, `text "Karte 4111 11**", text "**** 1111"`) {
		t.Error(s)
	}
}

// Whatever bytes come, covering them ends soon and does not fail.
func FuzzCover(f *testing.F) {
	for _, apdu := range []string{"06 50 03 12 34 56", "04 0F 0D 22 F1 F0 41 11 11 11 11 11 11 11 D2 51", "06 D3 05 06 03 25 01 07", "06 0F 03 F0 F0 F9"} {
		f.Add(bytesOf(f, apdu))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, marks := range [][]trace.Mark{Cover(b), CoverDamaged(b), CoverUnknown(b)} {
			if len(marks) != len(b) {
				t.Fatalf("%d marks for %d bytes", len(marks), len(b))
			}
		}
	})
}

// A long block of anything is covered in a moment.
func TestCoverIsLinear(t *testing.T) {
	// What is not linear does not end within anybody's patience.
	for _, filling := range []byte{0x00, '0', 0xD0, 0x23, 0x11} {
		CoverUnknown(bytes.Repeat([]byte{filling}, 1<<19))
	}
}

// No track is shown, wherever the terminal says it and whatever is around it.
func TestCoverHidesTracks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		track := rapid.SliceOfN(rapid.ByteRange(0x40, 0x4F), 12, 20).Draw(t, "track")
		id := rapid.SampledFrom([]byte{0x23, 0x24, 0x2D}).Draw(t, "id")
		fields := rapid.SampledFrom([]Fields{nil, {Amount(1)}, {Result(0), TID(65029158)}}).Draw(t, "before")
		unknown := rapid.SampledFrom([]byte{0x00, 0xC9}).Draw(t, "unknown")
		data := fields.Marshal()
		if rapid.Bool().Draw(t, "behind an unknown BMP") {
			data = append(data, unknown)
		}
		data = append(data, BMP{ID: id, Data: track}.append(nil)...)
		data = append(data, Fields{Container()}.Marshal()...)
		b := Raw{Class: 0x04, Instr: 0x0F, Data: data}.Marshal()
		for _, marks := range [][]trace.Mark{Cover(b), CoverDamaged(b)} {
			if shown := trace.Hex(b, marks); strings.Contains(shown, trace.Hex(track[:3], nil)) {
				t.Fatalf("% X of % X: %s", track, b, shown)
			}
		}
	})
}
