package zvt_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"terminalops/device/trace"
	"terminalops/device/zvt"
)

func decoded(t *testing.T, text string) string {
	t.Helper()
	var out strings.Builder
	if err := zvt.Decode(&out, strings.NewReader(text)); err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	return out.String()
}

func TestDecodeDump(t *testing.T) {
	const endOfDay = "ECR → PT    06 50 end-of-day: password ••••••; CRC right\n            10 02|06 50 03|•• •• ••|10 03 •• ••\n"
	const positive = "            80 00 positive acknowledgement; CRC right\n            10 02|80 00 00|10 03 F5 1F\n"
	const ack = "            ACK\n"
	for _, test := range []struct{ name, text, want string }{
		{"hexdump -C", "" +
			"00000000  10 02 06 50 03 00 00 00  10 03 fb 37 06 10 02 80  |...P.......7....|\n" +
			"00000010  00 00 10 03 f5 1f                                 |......|\n", endOfDay + ack + positive},
		{"xxd", "00000000: 1002 0650 0300 0000 1003 fb37            ...P.......7\n", endOfDay},
		{"one row", "1002065003000000" + "1003FB37", endOfDay},
		{"0x and commas", "0x10,0x02,0x06,0x50,0x03,0x00,0x00,0x00,0x10,0x03,0xFB,0x37,", endOfDay},
		{"a log", "2024-03-01 12:00:01.123 [thread 12] COM5: TX 10 02 06 50 03 00 00 00 10 03 FB 37\n12:00:02 RX 06\n",
			endOfDay + "PT → ECR    ACK\n"},
		{"in two lines", "TX 10 02 06 50 03 00\nTX 00 00 10 03 FB 37", endOfDay},
		{"TCP", "80 00 00 04 FF 01 17", "            80 00 positive acknowledgement\n            80 00 00\nPT → ECR    04 FF intermediate status: 17 please wait\n            04 FF 01|17\n"},
		{"wrong CRC", "10 02 06 0F 00 10 03 C6 34", "PT → ECR    wrong CRC over 4 bytes: 06 0F completion\n            10 02|06 0F 00|10 03 C6 34\n"},
		{"broken off", "10 02 06 0F 00 10 03 C6", "PT → ECR    the frame breaks off: 06 0F completion\n            10 02|06 0F 00|10 03 C6\n"},
		{"broken off on TCP", "06 D1 05 00 41", "PT → ECR    breaks off after 5 of 8 bytes: 06 D1 print line\n            06 D1 05|00|41\n"},
		{"another begins", "10 02 06 0F 10 02 80 00 00 10 03 F5 1F", "PT → ECR    the frame breaks off: another one begins: 06 0F completion\n            10 02|06 0F\n" + positive},
		{"doubled", "10 02 08 10 10 00 10 03 D6 52", "ECR → PT    08 10 software-update; CRC right\n            10 02|08 10|10 00|10 03 D6 52\n"},
		{"masked", "10 02|06 50 03|•• •• ••|10 03|•• ••", "ECR → PT    06 50 end-of-day: password ••••••; CRC not checked: bytes are masked\n            10 02|06 50 03|•• •• ••|10 03 •• ••\n"},
		{"garbage", "99 88 77 80 00 00", "            not understood: 3 bytes\n            99 88 77\n            80 00 positive acknowledgement\n            80 00 00\n"},
		{"a card", "04 0F 0B 22 F0 F8 41 11 11 11 11 11 11 11", "PT → ECR    04 0F status information: PAN 411111******1111\n            04 0F 0B|22 F0 F8|41 11 11 •• •• •• 11 11\n"},
		{"a card in nothing", "FF 41 11 11 11 11 11 11 11", "            not understood: 9 bytes\n            FF •• •• •• •• •• •• •• ••\n"},
	} {
		if got := decoded(t, test.text); got != test.want {
			t.Errorf("%s:\n%s\nwant\n%s", test.name, got, test.want)
		}
	}
	for _, text := range []string{"", "nothing\nin here\n", "# 06 50 03\n"} {
		if err := zvt.Decode(new(strings.Builder), strings.NewReader(text)); err == nil {
			t.Errorf("%q can be decoded", text)
		}
	}
}

// A capture says the same when it is decoded as when it was made.
func TestDecodeCapture(t *testing.T) {
	for _, name := range []string{"endofday-serial.capture", "endofday-tcp.capture"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		_, events, err := trace.Read(strings.NewReader(string(text)))
		if err != nil || len(events) < 20 {
			t.Fatalf("%s: %d events, %v", name, len(events), err)
		}
		got := decoded(t, string(text))
		for _, e := range events {
			if !strings.Contains(got, e.Meaning) || !strings.Contains(got, e.Bytes) && !strings.Contains(e.Bytes, "••") {
				t.Errorf("%s: not in it: %s %s", name, e.Bytes, e.Meaning)
			}
		}
		if !strings.Contains(got, "terminal P1-T1\n00:00:00.000   +0.000  line        link opened\n") {
			t.Errorf("%s:\n%s", name, got)
		}
	}
	const rest = "terminalops capture 1\nterminal T1\n2026-06-29 09:00:01.250 +0.000 · # journal: end_of_day 3f1a started\nterminal\n2026-06-29 09:00:01.500 +0.250 · # log: INFO stopped\n"
	if got, want := decoded(t, rest), "\nterminal T1\n09:00:01.250   +0.000  journal     end_of_day 3f1a started\n\nterminal\n09:00:01.500   +0.250  log         INFO stopped\n"; !strings.HasSuffix(got, want) {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if err := zvt.Decode(new(strings.Builder), strings.NewReader("terminalops capture 7\n")); err == nil || errors.Is(err, trace.ErrNoCapture) {
		t.Errorf("a capture of another version: %v", err)
	}
}

// Whatever is pasted, decoding ends; see TestNoCardData for what it must not show.
func FuzzDecode(f *testing.F) {
	f.Add("00000000  10 02 06 50 03 00 00 00  10 03 fb 37 06 10 02 80  |...P.......7....|")
	f.Add("TX 10 02 06 •• 10 03 ?? ?? 10 10 10")
	f.Add("terminalops capture 1\n2026-06-29 09:00:01.250 +1.000 ←  10 02|06 0F 10 # x\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		_ = zvt.Decode(new(strings.Builder), strings.NewReader(text))
	})
}
