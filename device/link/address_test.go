package link

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		in   string
		want string // canonical text
		kind Kind
	}{
		{"serial:/dev/ttyACM0", "serial:/dev/ttyACM0", Serial},
		{"serial:/dev//serial/../ttyACM0", "serial:/dev/ttyACM0", Serial},
		{"serial:/dev/serial/by-id/usb-A B:C", "serial:/dev/serial/by-id/usb-A B:C", Serial},
		{"serial:COM3", "serial:COM3", Serial},
		{"serial:com10", "serial:COM10", Serial},
		{`serial:\\.\com10`, "serial:COM10", Serial},
		{`serial:\\.\cnca0`, `serial:\\.\CNCA0`, Serial},
		{"usb:0b00:0080", "usb:0b00:0080", USB},
		{"usb:0B00:0080:a17-b", "usb:0b00:0080:A17-B", USB},
		{"usb:11ca:0219:a:b", "usb:11ca:0219:A:B", USB},
		{"tcp:192.0.2.10:20007", "tcp:192.0.2.10:20007", TCP},
		{"tcp:Terminal-1.Store.example:020007", "tcp:terminal-1.store.example:20007", TCP},
		{"tcp:[2001:DB8:0:0::1]:20007", "tcp:[2001:db8::1]:20007", TCP},
		{"tcp:[fe80::1%eth0]:20007", "tcp:[fe80::1%eth0]:20007", TCP},
	} {
		a, err := Parse(test.in)
		if err != nil {
			t.Errorf("Parse(%q): %v", test.in, err)
			continue
		}
		if a.String() != test.want || a.Kind() != test.kind {
			t.Errorf("Parse(%q) = %s of kind %s, want %s of kind %s", test.in, a, a.Kind(), test.want, test.kind)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, test := range []struct {
		in, want string
	}{
		{"", "want serial:PORT, usb:VENDOR:PRODUCT"},
		{"/dev/ttyACM0", "want serial:PORT"},
		{"Serial:COM3", "want serial:PORT"},
		{"serial", `have port "", want a full path`},
		{"serial:ttyACM0", `have port "ttyACM0", want a full path such as serial:/dev/ttyACM0`},
		{"serial:COM0", "have port"},
		{"serial:COM1000", "have port"},
		{`serial:\\.\`, "have port"},
		{`serial:\\.\a\b`, "have port"},
		{"serial:/dev/tty\nACM0", "cannot be printed"},
		{"serial:/dev/\xff", "cannot be printed"},
		{"usb:b00:0080", `vendor "b00" is not four hexadecimal digits`},
		{"usb:0x0b00:0080", `vendor "0x0b00"`},
		{"usb:0b00", `product "" is not four hexadecimal digits`},
		{"usb:0b00:008g", `product "008g"`},
		{"usb:0b00:0080:", "serial number is empty"},
		{"tcp:192.0.2.10", "no host and port"},
		{"tcp::20007", `host "" is neither`},
		{"tcp:a b:20007", `host "a b" is neither`},
		{"tcp:host:0", `port "0" is not a number from 1 to 65535`},
		{"tcp:host:65536", `port "65536"`},
		{"tcp:host:zvt", `port "zvt"`},
	} {
		a, err := Parse(test.in)
		if err == nil {
			t.Errorf("Parse(%q) = %s, want an error", test.in, a)
		} else if !strings.Contains(err.Error(), test.want) {
			t.Errorf("Parse(%q): %v, want it to say %q", test.in, err, test.want)
		}
		if a != (Address{}) {
			t.Errorf("Parse(%q) returned %v beside the error", test.in, a)
		}
	}
}

// What parses has one canonical text, and that text is the same address.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"serial:/dev/ttyACM0", "serial:com3", `serial:\\.\x`, "usb:0b00:0080:A1", "tcp:[::1]:7", "tcp:host:20007",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(a.String())
		if err != nil {
			t.Fatalf("Parse(%q) = %q, which does not parse: %v", s, a, err)
		}
		if again != a || again.String() != a.String() {
			t.Fatalf("Parse(%q) = %q, which parses as %q", s, a, again)
		}
	})
}
