package apdu

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
	"terminalops/device/trace"
)

func TestStatusInformationEndOfDay(t *testing.T) { // vector 25
	m := mustParse[StatusInformation](t, "040F49 2700 04000000002600 0C105937 0D0331 60F0F5F3 00680071 04000000002600"+strings.Repeat("00", 42))
	totals, ok, err := m.Totals()
	if !ok || err != nil {
		t.Fatalf("Totals: %v, %v", ok, err)
	}
	want := Totals{FirstReceipt: 68, LastReceipt: 71, Groups: [7]CardGroup{{Count: 4, Amount: 2600}}}
	if totals != want {
		t.Errorf("Totals = %+v, want %+v", totals, want)
	}
	if count, amount := totals.Sum(); count != 4 || amount != 2600 {
		t.Errorf("Sum = %d, %d", count, amount)
	}
	if c, ok := m.Result(); c != CodeOK || !ok {
		t.Errorf("Result = %v, %v", c, ok)
	}
	if n, ok := m.Amount(); n != 2600 || !ok {
		t.Errorf("Amount = %d, %v", n, ok)
	}
	if tm, ok := m.Time(); tm != (Time{10, 59, 37}) || !ok {
		t.Errorf("Time = %v, %v", tm, ok)
	}
	if d, ok := m.Date(); d != (Date{0, 3, 31}) || !ok {
		t.Errorf("Date = %v, %v", d, ok)
	}
	if b := totals.BMP(); !slices.ContainsFunc(m.Fields, func(f BMP) bool { return reflect.DeepEqual(f, b) }) {
		t.Error("Totals.BMP is another BMP 60")
	}
}

// The order of the groups is a matter of money.
func TestTotalsGroups(t *testing.T) {
	m := mustParse[StatusInformation](t, "040F39 60F0F5F3 99989999"+
		"01000000000100"+"02000000000200"+"03000000000300"+"04000000000400"+"05000000000500"+"06000000000600"+"FF999999999999")
	totals, _, err := m.Totals()
	if err != nil {
		t.Fatal(err)
	}
	want := "{receipts 9998-9999, girocard 1/100, JCB 2/200, Mastercard 3/300, American Express 4/400, VISA 5/500, Diners 6/600, other 255/999999999999}"
	if totals.String() != want {
		t.Errorf("totals %v, want %v", totals, want)
	}
}

func TestTotalsOfAnotherShape(t *testing.T) {
	for _, tt := range []struct{ data, err string }{
		{"60 F0F0F4 00680071", "BMP 60: 53 bytes wanted, 4 found"},
		{"60 F0F5F3 006A0071" + strings.Repeat("00", 49), "BMP 60: receipt numbers: decimal digits wanted, 006A0071 found"},
		{"60 F0F5F3 00680071 04 00000000260F" + strings.Repeat("00", 42), "BMP 60: amount of girocard: decimal digits wanted, 00000000260F found"},
	} {
		fields, err := parseFields(unhex(t, tt.data), 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok, err := fields.Totals(); ok || errorText(err) != tt.err {
			t.Errorf("%s: %v, %v, want %v", tt.data, ok, err, tt.err)
		}
	}
	if _, ok, err := (Fields{Result(CodeOK)}).Totals(); ok || err != nil {
		t.Errorf("no BMP 60: %v, %v", ok, err)
	}
}

// What came before a broken tail can be used.
func TestStatusInformationBrokenTail(t *testing.T) {
	m, err := Parse(unhex(t, "040F0C 2700 04000000002600 99 0102"))
	if got, want := errorText(err), "status information: BMP 99 at offset 9: unknown, with the 2 bytes behind it"; got != want {
		t.Errorf("error %q, want %q", got, want)
	}
	si := m.(StatusInformation)
	if n, ok := si.Amount(); n != 2600 || !ok {
		t.Errorf("Amount = %d, %v", n, ok)
	}
	if tail := si.Unread(); !bytes.Equal(tail, []byte{0x99, 1, 2}) {
		t.Errorf("Unread = % X", tail)
	}
	if _, ok := si.Get(0x99); ok {
		t.Error("Get returns what could not be read")
	}
}

func TestDateWithYear(t *testing.T) {
	m := mustParse[StatusInformation](t, "040F14 0D1122 060F2E0D1F0E04202611221F0F03235958")
	if d, ok := m.Date(); d != (Date{2026, 11, 22}) || !ok {
		t.Errorf("Date = %v, %v", d, ok)
	}
	if tm, ok := m.Time(); tm != (Time{23, 59, 58}) || !ok {
		t.Errorf("Time = %v, %v", tm, ok)
	}
	for _, bad := range []string{"040F03 0D1322", "040F03 0D1100", "040F03 0D1A11", "040F04 0C240000", "040F04 0C236000", "040F04 0C000060"} {
		m := mustParse[StatusInformation](t, bad)
		if d, ok := m.Date(); ok {
			t.Errorf("%s is the date %v", bad, d)
		}
		if tm, ok := m.Time(); ok {
			t.Errorf("%s is the time %v", bad, tm)
		}
	}
}

func TestStatusCompletion(t *testing.T) {
	version := "GER-APP-v2.0.9;cS02.01.01-10.10-2-2;CC26"
	tests := []struct {
		data string
		want Status
		err  string
	}{
		{"F0F0F7 322E31342E3135 00", Status{SoftwareVersion: "2.14.15", Code: StatusReady}, ""},
		{"DC", Status{Code: StatusCardInserted}, ""},
		{"F0F0F4 5B5D7B7E F0", Status{SoftwareVersion: "ÄÜäß", Code: StatusReconciliation}, ""},
		{"00 0600", Status{Fields: Fields{Container()}}, ""},
		{"9C 99", Status{Code: StatusPleaseWait, Fields: Fields{{ID: 0x99, Data: []byte{}, Unread: true}}},
			"completion of status enquiry: BMP 99 at offset 1: unknown, with the 0 bytes behind it"},
		{"", Status{}, "completion of status enquiry: status code at offset 0: 1 byte wanted, none left"},
		{"F0F0F1 32", Status{}, "completion of status enquiry: status code at offset 4: 1 byte wanted, none left"},
		{"F0F1F0 32", Status{}, "completion of status enquiry: software version at offset 0: length 10 wanted, 1 bytes left"},
		{"F0F1", Status{}, "completion of status enquiry: software version at offset 0: length 0 wanted, 0 bytes left"},
	}
	for _, tt := range tests {
		c := Completion{Data: unhex(t, tt.data)}
		got, err := c.Status()
		if errorText(err) != tt.err {
			t.Errorf("%s: error %v, want %s", tt.data, err, tt.err)
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.data, got, tt.want)
		}
		if err == nil && !bytes.Equal(got.Completion().Data, c.Data) {
			t.Errorf("%s: made again: % X", tt.data, got.Completion().Data)
		}
	}

	// Vector 23: everything a terminal may tell.
	i := slices.IndexFunc(vectors(t), func(v vector) bool { return bytes.HasPrefix(v.apdu, []byte{6, 0x0F, 0x89}) })
	m, _ := Parse(vectors(t)[i].apdu)
	s, err := m.(Completion).Status()
	if err != nil {
		t.Fatal(err)
	}
	if s.SoftwareVersion != version || s.Code != StatusReady {
		t.Errorf("status %v", s)
	}
	if tid, ok := s.TID(); tid != "52523535" || !ok {
		t.Errorf("TID = %s, %v", tid, ok)
	}
	for tag, want := range map[Tag]string{TagDeviceName: "cVEND plug", TagSoftwareVersion: version} {
		if o, ok := s.TLV().Find(TagDevice, tag); !ok || o.Text(CP437) != want {
			t.Errorf("%v = %q, want %q", tag, o.Value, want)
		}
	}
	if o, _ := s.TLV().Find(TagDevice, TagSerialNumber); digits(o.Value) != "17FD1E3C" {
		t.Errorf("serial number %X", o.Value)
	}
	d, _ := s.TLV().Date(TagTerminalClock)
	tm, _ := s.TLV().Time(TagTerminalClock)
	if d != (Date{2023, 4, 5}) || tm != (Time{22, 56, 55}) {
		t.Errorf("clock %v %v", d, tm)
	}
}

func TestCompletionFields(t *testing.T) {
	m := mustParse[Completion](t, "060F14 29650291 58490978 060A 26080A0206D30A020F27") // vector 15
	f, err := m.Fields()
	if err != nil {
		t.Fatal(err)
	}
	if tid, _ := f.TID(); tid != "65029158" {
		t.Errorf("TID = %s", tid)
	}
	if c, _ := f.Currency(); c != EUR {
		t.Errorf("Currency = %v", c)
	}
	if _, ok := f.Byte(BMPStatusByte); ok {
		t.Error("a status byte where there is none")
	}
	if got := f.TLV().Commands(); !slices.Equal(got, []Control{ControlPrintTextBlock, 0x0F27}) {
		t.Errorf("Commands = %v", got)
	}
	for data, want := range map[string]Code{"": CodeOK, "27E0": CodeRemoteMaintenance, "27FC": CodeDeviceMissing, "27000C235958": CodeOK} {
		if got := (Completion{Data: unhex(t, data)}).Result(); got != want {
			t.Errorf("Result of %s = %v, want %v", data, got, want)
		}
	}
	if _, err := (Completion{Data: []byte{0x99}}).Fields(); errorText(err) != "completion: BMP 99 at offset 0: unknown, with the 0 bytes behind it" {
		t.Errorf("error %v", err)
	}
}

func TestAbort(t *testing.T) {
	m := mustParse[Abort](t, "061E2E6C062B 1F1605FF00001441 1F1720"+fmt.Sprintf("%x", "Abbruch durch externes Kommando!")) // vector 37
	if code, text := m.Manufacturer(); code != "FF00001441" || text != "Abbruch durch externes Kommando!" {
		t.Errorf("Manufacturer = %s, %s", code, text)
	}
	if m.Code != CodeAborted {
		t.Errorf("Code = %v", m.Code)
	}
	m = mustParse[Abort](t, "061E036F0978")
	if m.Currency == nil || *m.Currency != EUR {
		t.Errorf("Currency = %v", m.Currency)
	}
	m = mustParse[Abort](t, "061E036F0344") // 344 looks like BMP 03
	if n, ok := m.Currency.Number(); n != 344 || !ok {
		t.Errorf("Currency = %v", m.Currency)
	}
	m = mustParse[Abort](t, "061E03770301") // only 6F has a currency
	if b, ok := m.ServiceByte(); m.Currency != nil || b != 1 || !ok {
		t.Errorf("%v", m)
	}
	m = mustParse[Abort](t, "061E046F870012")
	if n, ok := m.Number(BMPReceiptNumber); m.Currency != nil || n != 12 || !ok {
		t.Errorf("%v: receipt %d", m, n)
	}
}

func TestNack(t *testing.T) {
	for _, tt := range []struct {
		apdu        string
		reason      Code
		unsupported bool
	}{
		{"848300", CodeNotPossible, true},
		{"849C00", CodePleaseWait, false},
		{"841E017D", CodeCommunication, false}, // vector 51
		{"841E036F0978", CodeWrongCurrency, false},
		{"841E00", 0x1E, false},
	} {
		m := mustParse[Nack](t, tt.apdu)
		if m.Reason() != tt.reason || m.Unsupported() != tt.unsupported {
			t.Errorf("%s: %v, unsupported %v", tt.apdu, m.Reason(), m.Unsupported())
		}
	}
}

func TestCodeIsAnError(t *testing.T) {
	err := fmt.Errorf("end of day: %w", CodeEndOfDayNotPossible)
	if !errors.Is(err, CodeEndOfDayNotPossible) || errors.Is(err, CodeNotPossible) {
		t.Error("errors.Is does not tell codes apart")
	}
	for c, want := range map[Code]string{
		0x77: "end-of-day batch not possible (77)",
		0x05: "code 5 of the authorisation host (05)",
		0x80: "unknown (0x80)",
	} {
		if got := c.Error(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestIntermediateStatus(t *testing.T) {
	for _, tt := range []struct {
		apdu string
		t4   time.Duration
		text string
	}{
		{"04FF0117", 0, "please wait"},
		{"04FF021703", 3 * time.Minute, "please wait"},
		{"04FF021706", 6 * time.Minute, "please wait"},
		{"04FF021712", 12 * time.Minute, "please wait"},
		{"04FF02171A", 0, "please wait"}, // no BCD
		{"04FF021700", 0, "please wait"},
		{"04FF03170600", 0, "please wait"}, // an empty BMP 06, not six minutes
		{"04FF04170306 00", 3 * time.Minute, "please wait"},
		{"04FF14170306 10240E070C426974746520 77617274656E", 3 * time.Minute, "Bitte warten"}, // vector 43
		{"04FF10FF06 0D240B 0703204162 0704436420 20", 0, "Ab Cd"},
		{"04FF0142", 0, "please follow the PIN-pad, please remove card"},
		{"04FF014A", 0, "unknown (0x4A)"},
	} {
		m := mustParse[IntermediateStatus](t, tt.apdu)
		if d, ok := m.T4(); d != tt.t4 || ok != (tt.t4 > 0) {
			t.Errorf("%s: T4 = %v, %v", tt.apdu, d, ok)
		}
		if got := m.Text(Auto); got != tt.text {
			t.Errorf("%s: Text = %q, want %q", tt.apdu, got, tt.text)
		}
	}
	masked := IntermediateStatus{Fields: Fields{DisplayTexts(CP437, "4111 1111", "1111 1111")}}.Text(CP437)
	if masked != "4111 11** **** 1111" {
		t.Errorf("a card number over two lines: %s", masked)
	}
}

func TestPrintLine(t *testing.T) {
	for _, tt := range []struct {
		apdu  string
		lines []Line
		end   bool
	}{
		{"06D103004142", []Line{{0, []byte("AB")}}, false},
		{"06D10140", []Line{{AttributeCentred, []byte{}}}, false},
		{"06D101FF", make([]Line, 1), false},
		{"06D102FF03", make([]Line, 3), false},
		{"06D10181", nil, true},
		{"06D101F0", nil, true},
		{"06D10180", []Line{{AttributeReserved, []byte{}}}, false},
		{"06D102 8141", []Line{{AttributeEnd, []byte("A")}}, true},
	} {
		m := mustParse[PrintLine](t, tt.apdu)
		if !reflect.DeepEqual(m.Lines(), tt.lines) || m.EndOfReceipt() != tt.end {
			t.Errorf("%s: %v, %v", tt.apdu, m.Lines(), m.EndOfReceipt())
		}
	}
	m := mustParse[PrintLine](t, "06D10C40 53756D6D65 06041F070101")
	if string(m.Text) != "Summe" || m.ReceiptType() != ReceiptMerchant {
		t.Errorf("%q for %v", m.Text, m.ReceiptType())
	}
}

func TestPrintTextBlock(t *testing.T) {
	m := mustParse[PrintTextBlock](t, "06D320 061E 1F070103 2518 090140 07026162 0700 090100 070163 0901FF 070164 090181")
	want := []Line{
		{AttributeCentred, []byte("ab")}, {AttributeCentred, []byte{}},
		{AttributeNormal, []byte("c")}, {}, {AttributeNormal, []byte("d")},
	}
	if got := m.Lines(); !reflect.DeepEqual(got, want) {
		t.Errorf("Lines = %v, want %v", got, want)
	}
	if !m.EndOfReceipt() || m.ReceiptType() != ReceiptAdministration {
		t.Errorf("end %v, type %v", m.EndOfReceipt(), m.ReceiptType())
	}
	two := mustParse[PrintTextBlock](t, "06D30D 060B 2509 070161 090181 070162") // merchant's, customer's
	if got := two.Lines(); len(got) != 2 || got[1].Attribute != AttributeNormal {
		t.Errorf("Lines = %v", got)
	}
	if _, ok := m.Charset(); ok {
		t.Error("a character set nobody named")
	}
	named := PrintTextBlock{Fields: Fields{Container(Object{TagCharset, []byte{0x0F}})}}
	if c, ok := named.Charset(); c != Latin9 || !ok || named.EndOfReceipt() {
		t.Errorf("%v, %v", c, ok)
	}

	lines := []Line{{0, []byte("a")}, {AttributeCentred, []byte("b")}, {AttributeCentred, nil}}
	for _, end := range []bool{true, false} {
		again, err := Parse(NewPrintTextBlock(ReceiptCustomer, lines, end).Marshal())
		if err != nil {
			t.Fatal(err)
		}
		block := again.(PrintTextBlock)
		if fmt.Sprint(block.Lines()) != fmt.Sprint(lines) || block.EndOfReceipt() != end || block.ReceiptType() != ReceiptCustomer {
			t.Errorf("made %v, end %v", lines, end)
		}
	}
}

func TestFiles(t *testing.T) {
	w := mustParse[WriteFile](t, "0814 10 123456 060B 2D091D0123 1F0003333A47") // shape of vector 39
	if f := w.Files(); len(f) != 1 || f[0].ID != 0x23 || *f[0].Size != 0x333A47 || f[0].Offset != nil {
		t.Errorf("Files = %+v", f)
	}
	files := []File{
		{ID: 2, Offset: new(uint64(0)), Size: new(uint64(70000)), Block: []byte("log\x00")},
		{ID: 0x1234, Name: "a.log", Block: []byte{}},
	}
	m, err := Parse(StatusInformation{Fields: Fields{Files(files...)}}.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	if got := m.(StatusInformation).Files(); !reflect.DeepEqual(got, files) {
		t.Errorf("Files = %+v, want %+v", got, files)
	}
	for _, apdu := range []string{ // the name's tag with three bytes and with two
		"040F12 06102D0E 1C03616263 1D0102 1F8000026C6F",
		"040F11 060F2D0D 1C03616263 1D0102 1F80026C6F",
	} {
		if f := mustParse[StatusInformation](t, apdu).Files(); len(f) != 1 || f[0].Name != "lo" || string(f[0].Block) != "abc" {
			t.Errorf("%s: %+v", apdu, f)
		}
	}
	if got, want := NewReadFile(File{ID: 2}, File{ID: 3}).Marshal(), unhex(t, "08110C060A2D031D01022D031D0103"); !bytes.Equal(got, want) {
		t.Errorf("read file % X, want % X", got, want)
	}
}

// A block of nothing but containers is read in no time, and says what it is.
func TestContainersInEachOther(t *testing.T) {
	o := Object{TagText, []byte("x")}
	for range 5000 {
		o = Group(TagFile, o)
	}
	m, err := Parse(StatusInformation{Fields: Fields{Container(o)}}.Marshal())
	if got, want := errorText(err), "status information: BMP 06 at offset 0: "+strings.Repeat("container 2D: ", 8)+"more than 8 containers in each other"; got != want {
		t.Errorf("error %s, want %s", got, want)
	}
	if s := m.String(); len(s) > 100 {
		t.Errorf("described in %d bytes", len(s))
	}
}

// Bit 20h makes no container: Feig's FF40 and FF41 hold bytes (vector 41).
func TestConstructedBitAlone(t *testing.T) {
	m := mustParse[ChangeConfiguration](t, "08131406 12E410FF4003123456FF4107D5B7136976C101")
	e4, _ := m.TLV().Find(TagDevice)
	if got := e4.Children(); len(got) != 2 || got[0].Tag != 0xFF40 || got[1].Tag != 0xFF41 || got[0].Children() != nil {
		t.Errorf("E4 holds %v", got)
	}
}

func TestTLVErrors(t *testing.T) {
	for data, want := range map[string]string{
		"1F":             "tag at offset 0: another byte wanted after 1F, none left",
		"0700 FFD8":      "tag at offset 2: another byte wanted after FF D8, none left",
		"1F81828384 00":  "tag at offset 0: at most 4 bytes wanted, 1F 81 82 83 goes on",
		"07":             "tag 07 at offset 0: length wanted, nothing left",
		"0783":           "tag 07 at offset 0: length 00 to 7F, 81 or 82 wanted, 83 found",
		"078201":         "tag 07 at offset 0: 2 length bytes wanted after 82, 1 left",
		"070161 2403 07": "tag 24 at offset 3: length 3 wanted, 1 bytes left",
	} {
		if _, err := ParseTLV(unhex(t, data)); errorText(err) != want {
			t.Errorf("%s: %v, want %s", data, err, want)
		}
	}
}

func TestBMPTable(t *testing.T) {
	for id := range 0x100 {
		kind, known := bmpKinds[byte(id)]
		if !known {
			continue
		}
		if kind.name == "" || kind.format == fixed && kind.size == 0 {
			t.Errorf("BMP %02X: %+v", id, kind)
		}
	}
	if n := len(bmpKinds); n != 76 {
		t.Errorf("%d BMPs in the table, 76 in the specification", n)
	}
}

func TestIndent(t *testing.T) {
	for a, want := range map[Attribute]int{0: 0, 0x0F: 15, 0x4F: 0, AttributeEnd: 0} {
		if got := a.Indent(); got != want {
			t.Errorf("%02X: %d, want %d", byte(a), got, want)
		}
	}
}

func TestRegistrationCommands(t *testing.T) {
	r := mustParse[Registration](t, "060010 000000 8C 0978 0608 2606 0A0206D3 0A00")
	if got := r.Commands(); !slices.Equal(got, []Control{ControlPrintTextBlock}) {
		t.Errorf("Commands = %v", got)
	}
	if got := (Registration{}).Commands(); got != nil {
		t.Errorf("Commands = %v without a list", got)
	}
}

func TestConfigOfLogOff(t *testing.T) {
	if ConfigLoggedOff != 0x86 {
		t.Errorf("config after log-off %02X, want 86", ConfigLoggedOff)
	}
}

// Nobody sees a password, with whatever verb.
func TestPasswordIsHidden(t *testing.T) {
	p, err := ParsePassword("123456")
	if err != nil || p != (Password{0x12, 0x34, 0x56}) {
		t.Fatalf("ParsePassword: %v", err)
	}
	m := EndOfDay{Password: p}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, v := range []any{p, m, []Password{p}} {
			if s := fmt.Sprintf(verb, v); strings.Contains(s, "12") || strings.Contains(s, "18, 52") {
				t.Errorf("%s of a %T shows %s", verb, v, s)
			}
		}
	}
	for _, bad := range []string{"", "12345", "1234567", "12345a", "+12345", "12 456"} {
		if _, err := ParsePassword(bad); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("password %q: %v", bad, err)
		}
	}
}

func TestCurrency(t *testing.T) {
	if c, err := NewCurrency(978); c != EUR || err != nil {
		t.Errorf("%v, %v", c, err)
	}
	if c, err := NewCurrency(36); c.String() != "036" || err != nil {
		t.Errorf("%v, %v", c, err)
	}
	for _, bad := range []int{-1, 1000} {
		if _, err := NewCurrency(bad); err == nil {
			t.Errorf("currency %d", bad)
		}
	}
	if _, ok := Currency(0x0A78).Number(); ok {
		t.Error("0A78 has a number")
	}
}

// What a literal cannot hold is a mistake in the program that must not reach the
// wire.
func TestMarshalPanics(t *testing.T) {
	for name, marshal := range map[string]func(){
		"fixed":    func() { Fields{{ID: BMPAmount, Data: []byte{1}}}.Marshal() },
		"unknown":  func() { Fields{{ID: 0x99}}.Marshal() },
		"LLVAR":    func() { Fields{{ID: BMPCardName, Data: make([]byte, 100)}}.Marshal() },
		"LLLVAR":   func() { Fields{{ID: BMPText, Data: make([]byte, 1000)}}.Marshal() },
		"APDU":     func() { Raw{Data: make([]byte, 0x10000)}.Marshal() },
		"TLV":      func() { TLV{{Tag: TagText, Value: make([]byte, 0x10000)}}.Marshal() },
		"amount":   func() { Amount(1e12) },
		"negative": func() { Amount(-1) },
		"count":    func() { Totals{Groups: [7]CardGroup{{Count: 256}}}.BMP() },
		"number":   func() { Number(BMPCardName, 1) },
	} {
		func() {
			defer func() {
				if r, _ := recover().(string); !strings.HasPrefix(r, "apdu: ") {
					t.Errorf("%s: recovered %q", name, r)
				}
			}()
			marshal()
		}()
	}
}

// A message does not change with the buffer it was read from.
func TestParseKeepsNoBuffer(t *testing.T) {
	b := unhex(t, "040F09270004000000002600")
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	want := m.String()
	for i := range b {
		b[i] = 0xFF
	}
	if got := m.String(); got != want {
		t.Errorf("%s became %s", want, got)
	}
}

// What is made by hand is read as it was made.
func TestMarshalParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genMessage(t)
		b := m.Marshal()
		got, err := Parse(b)
		if err != nil {
			t.Fatalf("%#v: % X: %v", m, b, err)
		}
		if !reflect.DeepEqual(got, m) {
			t.Fatalf("% X:\ngot  %#v\nwant %#v", b, got, m)
		}
	})
}

func genMessage(t *rapid.T) Message {
	p := Password(rapid.SliceOfN(rapid.Byte(), 3, 3).Draw(t, "password"))
	b := rapid.Byte().Draw(t, "byte")
	f := genFields(t)
	messages := []Message{
		LogOff{Fields: f}, Diagnosis{Fields: f}, SystemConfiguration{Fields: f}, SelfTest{Fields: f}, AbortCommand{Fields: f},
		SoftwareUpdate{Fields: f}, ReadFile{Fields: f}, ChangeConfiguration{Fields: f}, SetClock{Fields: f},
		StatusInformation{Fields: f}, PrintTextBlock{Fields: f}, Ack{Fields: f}, Ack{As84: true, Fields: f},
		SendTurnoverTotals{Password: p, Fields: f}, RepeatReceipt{Password: p, Fields: f}, Initialisation{Password: p, Fields: f},
		SetDateTime{Password: p, Fields: f}, ServiceMode{Password: p, Fields: f}, WriteFile{Password: p, Fields: f},
		SystemInfo{Password: p, Fields: f}, EMVStatus{Password: p, Fields: f},
		StatusEnquiry{Password: p, Fields: f}, StatusEnquiry{NoPassword: true}, EndOfDay{Password: p, Fields: f}, EndOfDay{NoPassword: true},
		Registration{Password: p, Config: Config(b)}, Registration{Password: p, Config: Config(b), Currency: new(EUR), Fields: f},
		Nack{Code: Code(b | 1), Data: []byte{b}}, Completion{Data: f.Marshal()},
		IntermediateStatus{Status: IntermediateCode(b)},
		IntermediateStatus{Status: IntermediateCode(b), Timeout: Minutes(7), Fields: f},
		Abort{Code: CodeWrongCurrency, Currency: new(EUR), Fields: f}, Abort{Code: CodeEndOfDayNotPossible, Fields: f},
		PrintLine{Attribute: Attribute(b), Text: []byte(rapid.StringMatching(`[ -~]{0,40}`).Draw(t, "text")), Fields: Fields{Container()}},
		Raw{Class: 0x06, Instr: 0x51, Data: []byte{b}},
	}
	i := rapid.IntRange(0, len(messages)-1).Draw(t, "message")
	if c, ok := messages[i].(Completion); ok && c.Data == nil {
		return Completion{Data: []byte{}}
	}
	return messages[i]
}

func genFields(t *rapid.T) Fields {
	var f Fields
	ids := make([]byte, 0, len(bmpKinds))
	for id := range bmpKinds {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for range rapid.IntRange(0, 4).Draw(t, "fields") {
		id := rapid.SampledFrom(ids).Draw(t, "id")
		switch kind := bmpKinds[id]; kind.format {
		case fixed:
			f = append(f, BMP{ID: id, Data: rapid.SliceOfN(rapid.Byte(), kind.size, kind.size).Draw(t, "data")})
		case berLen:
			f = append(f, Container(genTLV(t, 2)...))
		default:
			f = append(f, BMP{ID: id, Data: rapid.SliceOfN(rapid.Byte(), 1, 99).Draw(t, "data")})
		}
	}
	return f
}

func genTLV(t *rapid.T, depth int) TLV {
	tags := []Tag{TagText, TagFileBlock, TagSoftwareVersion, 0xFFD803, 0xFF40, TagFileName}
	objects := TLV{}
	for range rapid.IntRange(1, 3).Draw(t, "objects") {
		if depth > 0 && rapid.Bool().Draw(t, "container") {
			objects = append(objects, Group(TagFile, genTLV(t, depth-1)...))
			continue
		}
		objects = append(objects, Object{rapid.SampledFrom(tags).Draw(t, "tag"), rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value")})
	}
	return objects
}

// Whatever is an APDU marshals to the same bytes, and shows no card number.
func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.apdu)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if _, splitErr := Split(b); (m == nil) != (splitErr != nil) {
			t.Fatalf("message %v, error %v, split %v", m, err, splitErr)
		}
		if m == nil {
			return
		}
		if got := m.Marshal(); !bytes.Equal(got, b) {
			t.Fatalf("marshals to % X, want % X", got, b)
		}
		s := m.String()
		if masked := trace.Mask(s); masked != s {
			t.Fatalf("%q shows a card number: %q", s, masked)
		}
		if strings.ContainsAny(s, "\r\n") {
			t.Fatalf("%q is more than one line", s)
		}
		readAll(t, m)
	})
}

// readAll calls what a dialogue calls, to see that nothing panics.
func readAll(t *testing.T, m Message) {
	if c, ok := m.(Completion); ok {
		if s, err := c.Status(); err == nil && len(s.SoftwareVersion) > 999*2 {
			t.Fatalf("a software version of %d bytes", len(s.SoftwareVersion))
		}
		_, _ = c.Fields()
		c.Result()
	}
	if r, ok := m.(interface {
		Lines() []Line
		EndOfReceipt() bool
	}); ok {
		for _, l := range r.Lines() {
			_ = l.Text(Auto)
		}
		r.EndOfReceipt()
	}
	if f, ok := m.(interface {
		Files() []File
		TLV() TLV
		Totals() (Totals, bool, error)
		Manufacturer() (string, string)
	}); ok {
		f.Files()
		f.TLV().Commands()
		_, _, _ = f.Totals()
		f.Manufacturer()
	}
	if i, ok := m.(IntermediateStatus); ok {
		i.T4()
		i.Text(Auto)
	}
}
