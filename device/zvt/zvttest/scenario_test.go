package zvttest

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device/zvt/apdu"
)

// play is what an ECR sees of a scenario: it registers, asks for the status and
// says one command. What is heard has to end so on a serial line and so on TCP,
// and the batch has to be closed so often.
type play struct {
	say    string // default: end of day
	ends   string
	tcp    string // default: the same
	closed int
	also   func(t *testing.T, s *station, e *ecr, heard []string)
}

const (
	silenceHeard = "silence"
	goneHeard    = "gone"
)

var plays = map[string]play{
	"success":               {ends: completed, closed: 1, also: statusBefore("06 D3")},
	"ingenico":              {ends: completed, closed: 1, also: likeALane5000},
	"no-totals":             {ends: completed, closed: 1, also: has(1, "04 0F 13 27 00 04 00 00 00 12 34 50 0C")},
	"no-status-information": {ends: completed, closed: 1, also: has(0, "04 0F")},
	"no-receipt":            {ends: completed, closed: 1, also: has(0, "06 D3")},
	"empty-batch":           {ends: completed, closed: 1, also: has(1, "00 21 00 20")},
	"amounts-of-10h":        {ends: completed, closed: 1, also: has(1, "04 10 10 10 10 10 10 0C")},
	"count-overflow":        {ends: completed, closed: 1, also: has(1, "00 01 03 00 2C 00 00 00 30 00 00")},
	"print-lines":           {ends: completed, closed: 1, also: has(1, hexOf("06 D1 0D 00 H\x84ndlerbeleg"))},
	"print-lines-latin1":    {ends: completed, closed: 1, also: has(1, hexOf("06 D1 0D 00 H\xE4ndlerbeleg"))},
	"print-lines-tail":      {ends: completed, closed: 1, also: has(14, "06 04 1F 07 01 01")},
	"text-block-latin1":     {ends: completed, closed: 1, also: has(1, hexOf("07 0C H\xE4ndlerbeleg"))},
	"long-receipt":          {ends: completed, closed: 1, also: has(6, "06 D3 FF")},
	"unknown-bmp":           {ends: completed, closed: 1, also: has(1, "C3 01 02 03")},
	"sets-clock":            {ends: completed, closed: 1, also: has(1, "0C 10 10 10")},
	"dial-up":               {ends: completed, closed: 1, also: has(1, "06 D8 00")},
	"prints-when-idle":      {ends: completed, closed: 1, also: printsLater},
	"automatic-end-of-day":  {say: statusEnquiry, ends: "06 0F 0B F0 F0 F7", closed: 1},

	"refused-77":        {ends: "06 1E 29 77 06 26 1F 16 05 FF 00 00 14 41 1F 17 1B"},
	"refused-83":        {ends: "06 1E 01 83"},
	"refused-b8":        {ends: "06 1E 04 B8 87 FF FF"},
	"refused-6a":        {ends: "06 1E 01 6A"},
	"refused-6c":        {ends: "06 1E 01 6C"},
	"refused-cc":        {ends: "06 1E 01 CC"},
	"result-77":         {ends: completed, also: has(1, "04 0F 02 27 77")},
	"result-77-silence": {ends: silenceHeard, also: has(1, "04 0F 02 27 77")},
	"result-77-abort":   {ends: "06 1E 01 77", also: has(1, "04 0F 02 27 77")},
	"completion-77":     {ends: "06 0F 02 27 77"},
	"wrong-password":    {ends: "84 37 00"},
	"abort-confirmed":   {ends: completed, closed: 1},
	"abort-swallowed":   {ends: completed, closed: 1},

	"busy":                 {ends: "84 9C 00"},
	"status-9c":            {ends: "84 9C 00", also: laterReady},
	"status-e0":            {ends: "84 9C 00", also: laterReady},
	"status-dc":            {ends: "06 1E 01 DC", also: laterReady},
	"status-51":            {ends: "06 1E 01 6B", also: afterInitialisation},
	"status-f0":            {ends: completed, closed: 1, also: nowReady},
	"locked":               {ends: "06 1E 01 C1", also: has(2, "")},
	"locked-at-once":       {ends: "06 1E 01 C1", also: has(1, "")},
	"wrong-currency":       {say: registerECR, ends: "84 1E 03 6F 07 56"},
	"registration-refused": {say: registerECR, ends: "84 1E 01 7D"},
	"no-status-enquiry":    {say: statusEnquiry, ends: notSupported},

	"update-follows": {ends: "06 0F 02 27 E0", closed: 1, also: updatesInPhases},
	"reboot-follows": {ends: "06 0F 02 27 FC", closed: 1, also: reboots},

	"drop-after-acceptance":  {ends: silenceHeard, tcp: goneHeard, closed: 1, also: has(0, "04 0F")},
	"drop-refused":           {ends: silenceHeard, tcp: goneHeard},
	"drop-before-totals":     {ends: silenceHeard, tcp: goneHeard, closed: 1, also: repeatsTotals},
	"drop-before-completion": {ends: silenceHeard, tcp: goneHeard, closed: 1, also: has(1, "04 0F")},
	"drop-at-completion":     {closed: 1, also: has(1, completed)},
	"unplugged":              {ends: goneHeard, closed: 1, also: has(1, "04 0F")},
	"silence-after-closing":  {ends: silenceHeard, closed: 1, also: has(0, "04 0F")},
	"silent":                 {say: statusEnquiry, ends: silenceHeard},
	"mute":                   {ends: silenceHeard},
	"late-acceptance":        {ends: completed, closed: 1, also: takes(t3)},
	"repeat-unsupported":     {say: repeatEndOfDay, ends: notSupported},
	"repeat-payment":         {say: repeatEndOfDay, ends: completed, also: has(1, "04 00 00 00 00 19 90")},

	"naive":            {ends: completed, closed: 1},
	"answers-lost":     {ends: completed, closed: 1, also: notAccepted},
	"ack-lost":         {ends: completed, closed: 1, also: has(1, yes)},
	"nak-twice":        {ends: completed, closed: 1},
	"nak-always":       {ends: "rejected", tcp: completed},
	"slow-ack":         {ends: completed, closed: 1},
	"wrong-crc":        {ends: completed, closed: 1},
	"half-frame":       {ends: completed, closed: 1},
	"trickle":          {ends: completed, closed: 1, also: takes(10 * time.Second)},
	"merged":           {ends: completed, closed: 1},
	"garbage":          {ends: completed, closed: 1},
	"duplicate-frames": {ends: completed, closed: 1},
	"stray-refusals":   {ends: completed, closed: 1, also: strayRefusals},

	"update-none":          {say: softwareUpdate, ends: "06 0F 0A 27 00 0C", also: updates("2.14.15", 3*time.Minute)},
	"update-none-stays":    {say: softwareUpdate, ends: "06 0F 0A 27 00 0C", also: updates("2.14.15", 0)},
	"update-started-e0":    {say: softwareUpdate, ends: "06 1E 01 E0", also: updates("2.14.16", 3*time.Minute)},
	"update-6a":            {say: softwareUpdate, ends: "06 1E 01 6A", also: updatesOnceClosed},
	"update-failed":        {say: softwareUpdate, ends: "06 0F 0A 27 A1 0C", also: updatesNothing},
	"update-never-returns": {say: softwareUpdate, ends: "06 0F 0A 27 00 0C", also: neverReturns},
	"update-closes-batch":  {say: softwareUpdate, ends: "06 0F 0A 27 00 0C", closed: 1, also: updates("2.14.16", 3*time.Minute)},
	"drop-update":          {say: softwareUpdate, ends: silenceHeard, tcp: goneHeard, also: updates("2.14.16", 3*time.Minute)},

	"menu-b":         {say: serviceMode, ends: completed, also: menuB},
	"menu-b-endless": {say: serviceMode, ends: silenceHeard, also: menuBusy},
	"menu-refused":   {say: serviceMode, ends: "06 1E 01 83", also: menus(0)},
	"drop-menu":      {say: serviceMode, ends: silenceHeard, tcp: goneHeard, also: menus(1)},

	"files-interleaved":   {say: readFiles0203, ends: "06 0F 02 27 00", also: files(true)},
	"files-no-offset":     {say: readFiles0203, ends: "06 0F 02 27 00", also: files(false)},
	"files-ignore-offset": {say: "08 11 0A 06 08 2D 06 1D 01 02 1E 01 40", ends: "06 0F 02 27 00", also: fromTheBeginning},
	"files-big":           {say: readFile02, ends: "06 0F 02 27 00", also: bigBlocks},
	"files-fail":          {say: readFile02, ends: "06 0F 02 27 9B", also: has(4, "04 0F")},
	"files-abort":         {say: readFile02, ends: "06 1E 01 A3", also: has(4, "04 0F")},
	"files-drop":          {say: readFile02, ends: silenceHeard, tcp: goneHeard, also: has(4, "04 0F")},
	"files-unknown-84":    {say: readFiles0203, ends: notSupported, also: has(1, "")},
	"files-unknown-1e":    {say: readFiles0203, ends: "06 1E 01 83"},
	"files-unknown-0f":    {say: readFiles0203, ends: "06 0F 02 27 83"},

	"unsupported-end-of-day": {ends: notSupported},
	"unsupported-update":     {say: softwareUpdate, ends: notSupported},
	"unsupported-menu":       {say: serviceMode, ends: notSupported},
	"unsupported-files":      {say: readFile02, ends: notSupported, also: prints(configuration, selfTest)},
	"logs-by-configuration":  {say: readFile02, ends: notSupported, also: prints(configuration)},
	"logs-by-selftest":       {say: readFile02, ends: notSupported, also: prints(selfTest)},
	"logs-by-system-info":    {say: readFile02, ends: notSupported, also: prints(systemInfo)},
	"logs-by-status":         {say: readFile02, ends: notSupported, also: prints()},
}

func TestScenarios(t *testing.T) {
	for _, sc := range Scenarios() {
		p, ok := plays[sc.Name]
		if !ok {
			t.Errorf("scenario %s has no test", sc.Name)
		}
		if sc.Description == "" || strings.Contains(sc.Description, "\n") {
			t.Errorf("scenario %s: a description of one line wanted", sc.Name)
		}
		for _, link := range []string{"serial", "tcp"} {
			t.Run(sc.Name+"/"+link, func(t *testing.T) { p.run(t, sc.Name, link == "tcp") })
		}
	}
}

func (p play) run(t *testing.T, name string, tcp bool) {
	if p.say == "" {
		p.say = endOfDayCommand
	}
	if p.tcp != "" && tcp {
		p.ends = p.tcp
	}
	start(t, Options{Scenario: name}, tcp, func(t *testing.T, s *station) {
		e := s.connect()
		if p.say != registerECR && name != "silent" {
			e.say(registerECR)
			if p.say != statusEnquiry {
				e.say(statusEnquiry)
			}
		}
		heard := e.say(p.say)
		if last(heard) == goneHeard {
			time.Sleep(10 * time.Second) // what has begun goes on
		}
		synctest.Wait()
		if !strings.HasPrefix(last(heard), p.ends) {
			t.Fatalf("heard %q, the last should be %s", heard, p.ends)
		}
		if name != "nak-always" || !tcp { // a line that TCP does not have
			wantDid(t, s.pt, EndOfDay, p.closed)
		}
		wantNoViolations(t, s.pt)
		if p.also == nil {
			return
		}
		p.also(t, s, e, heard)
		if name != "status-51" { // which looks at them itself
			wantNoViolations(t, s.pt)
		}
	})
}

// hexOf spells a line of text behind the bytes before it.
func hexOf(s string) string {
	i := strings.LastIndex(s, " ") + 1
	return s[:i] + spell([]byte(s[i:]))
}

// has checks how many of the messages heard have these bytes in them.
func has(n int, part string) func(*testing.T, *station, *ecr, []string) {
	return func(t *testing.T, _ *station, _ *ecr, heard []string) {
		t.Helper()
		count := 0
		for _, h := range heard {
			if strings.Contains(h, part) {
				count++
			}
		}
		if count != n {
			t.Errorf("%q is in %d messages, want %d; heard\n%s", part, count, n, strings.Join(heard, "\n"))
		}
	}
}

// statusBefore checks that the totals come before the receipt.
func statusBefore(print string) func(*testing.T, *station, *ecr, []string) {
	return func(t *testing.T, _ *station, _ *ecr, heard []string) {
		if index(heard, "04 0F") < 0 || index(heard, "04 0F") > index(heard, print) {
			t.Errorf("heard %q", heard)
		}
		if !strings.Contains(strings.Join(heard, ""), spell([]byte(cardNumber))) {
			t.Error("no card number in the receipt")
		}
	}
}

func likeALane5000(t *testing.T, _ *station, e *ecr, heard []string) {
	if index(heard, "06 D3") < 0 || index(heard, "06 D3") > index(heard, "04 0F") {
		t.Errorf("print, then 04 0F wanted, heard %q", heard)
	}
	// Vector 15.
	wantHeard(t, e.say(registerECR), yes, "06 0F 14 29 65 02 91 58 49 09 78 06 0A 26 08 0A 02 06 D3 0A 02 0F 27")
	if got := last(e.say(systemInfo)); got != completed {
		t.Errorf("system info: %s", got)
	}
}

func printsLater(t *testing.T, _ *station, e *ecr, _ []string) {
	got, err := e.read(time.Second)
	if err != nil || !strings.HasPrefix(got, "06 D3") {
		t.Fatalf("heard %s, %v", got, err)
	}
	if err := e.conn.WriteAPDU(t.Context(), unhex(t, yes)); err != nil {
		t.Fatal(err)
	}
}

func laterReady(t *testing.T, s *station, e *ecr, _ []string) {
	time.Sleep(time.Minute)
	if got := last(e.say(endOfDayCommand)); got != completed {
		t.Errorf("after a minute: %s", got)
	}
}

func nowReady(t *testing.T, _ *station, e *ecr, _ []string) { wantStatus(t, e, "00") }

func wantStatus(t *testing.T, e *ecr, code string) {
	t.Helper()
	if got := last(e.say(statusEnquiry)); !strings.HasPrefix(got, "06 0F") || !strings.HasSuffix(got, code) {
		t.Errorf("status %s, want %s", got, code)
	}
}

func wantVersion(t *testing.T, e *ecr, version string) {
	t.Helper()
	if got := last(e.say(statusEnquiry)); !strings.Contains(got, spell([]byte(version))) {
		t.Errorf("status %s, want version %s", got, version)
	}
}

func afterInitialisation(t *testing.T, s *station, e *ecr, _ []string) {
	wantStatus(t, e, "51")
	if got := last(e.say("06 93 03 00 00 00")); got != completed {
		t.Errorf("initialisation: %s", got)
	}
	if got := last(e.say(endOfDayCommand)); got != completed {
		t.Errorf("after the initialisation: %s", got)
	}
	if v := s.pt.Violations(); len(v) != 1 || !strings.HasPrefix(v[0], "06 93") {
		t.Errorf("violations: %q", v)
	}
}

// again connects anew where the terminal has hung up.
func (s *station) again(e *ecr) *ecr {
	if !s.tcp {
		return e
	}
	e.conn.Close()
	return s.connect()
}

func updatesInPhases(t *testing.T, s *station, e *ecr, _ []string) {
	began := wantDid(t, s.pt, Update, 1)[0].Until.Add(-4 * time.Minute)
	time.Sleep(time.Until(began.Add(time.Minute)))
	wantAway(t, s, e)
	time.Sleep(time.Until(began.Add(150 * time.Second)))
	e = s.again(e)
	wantStatus(t, e, "E0")
	if got := last(e.say(endOfDayCommand)); got != "84 9C 00" {
		t.Errorf("end of day during an update: %s", got)
	}
	time.Sleep(time.Until(began.Add(5 * time.Minute)))
	e = s.again(e)
	wantStatus(t, e, "00")
	wantVersion(t, e, "2.14.16")
}

// wantAway checks that nobody answers.
func wantAway(t *testing.T, s *station, e *ecr) {
	t.Helper()
	e = s.again(e)
	if !s.tcp {
		if err := e.conn.WriteOnce(t.Context(), unhex(t, statusEnquiry)); err == nil {
			t.Error("somebody is there")
		}
		return
	}
	if _, err := e.read(time.Second); err == nil || err.Error() != goneHeard {
		t.Errorf("away: %v", err)
	}
}

func reboots(t *testing.T, s *station, e *ecr, _ []string) {
	r := wantDid(t, s.pt, Reboot, 1)[0]
	wantAway(t, s, e)
	time.Sleep(time.Until(r.Until))
	e = s.again(e)
	wantVersion(t, e, "2.14.15")
	if got := e.say(endOfDayCommand); slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "04 FF") }) {
		t.Errorf("a terminal that nobody has registered with shows %q", got)
	}
	wantDid(t, s.pt, EndOfDay, 2)
}

func repeatsTotals(t *testing.T, s *station, e *ecr, _ []string) {
	if !s.tcp {
		time.Sleep(30 * time.Second)
	}
	e = s.again(e)
	wantStatus(t, e, "00")
	for _, command := range []string{repeatEndOfDay, repeatStatusNow} {
		has(1, "04 0F 4C 27 00 04 00 00 00 12 34 50")(t, s, e, e.say(command))
	}
}

func takes(d time.Duration) func(*testing.T, *station, *ecr, []string) {
	return func(t *testing.T, s *station, _ *ecr, _ []string) {
		r := wantDid(t, s.pt, EndOfDay, 1)[0]
		if took := r.At.Sub(epoch); took < d && (!s.tcp || d == t3) {
			t.Errorf("the batch is closed after %v, want more than %v", took, d)
		}
	}
}

// epoch is when synctest begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func notAccepted(t *testing.T, s *station, e *ecr, heard []string) {
	if !s.tcp {
		has(0, yes)(t, s, e, heard)
	}
}

func strayRefusals(t *testing.T, s *station, e *ecr, _ []string) {
	var heard []string
	for {
		got, err := e.read(time.Second)
		if err != nil {
			break
		}
		heard = append(heard, got)
		if got == completed {
			if err := e.conn.WriteAPDU(t.Context(), unhex(t, yes)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// On a serial line two equal frames are one that was repeated.
	want := []string{completed, notSupported, notSupported}
	if !s.tcp {
		want = want[:2]
	}
	wantHeard(t, heard, want...)
}

func updates(version string, away time.Duration) func(*testing.T, *station, *ecr, []string) {
	return func(t *testing.T, s *station, e *ecr, _ []string) {
		r := wantDid(t, s.pt, Update, 1)[0]
		if took := r.Until.Sub(r.At); took != away {
			t.Errorf("away for %v, want %v", took, away)
		}
		time.Sleep(time.Until(r.Until))
		wantVersion(t, s.again(e), version)
	}
}

func updatesOnceClosed(t *testing.T, s *station, e *ecr, _ []string) {
	wantDid(t, s.pt, Update, 0)
	e.say(endOfDayCommand)
	if got := last(e.say(softwareUpdate)); !strings.HasPrefix(got, "06 0F 0A 27 00") {
		t.Errorf("with an empty batch: %s", got)
	}
	synctest.Wait()
	wantDid(t, s.pt, Update, 1)
}

func updatesNothing(t *testing.T, s *station, e *ecr, _ []string) {
	wantDid(t, s.pt, Update, 0)
	wantVersion(t, e, "2.14.15")
}

func neverReturns(t *testing.T, s *station, e *ecr, _ []string) {
	time.Sleep(24 * time.Hour)
	wantAway(t, s, e)
}

func menus(n int) func(*testing.T, *station, *ecr, []string) {
	return func(t *testing.T, s *station, _ *ecr, _ []string) { wantDid(t, s.pt, Menu, n) }
}

func menuB(t *testing.T, s *station, e *ecr, heard []string) {
	wantDid(t, s.pt, Menu, 1)
	has(5, "04 FF 02 1A 03")(t, s, e, heard)
}

// menuBusy: the menu that nobody leaves. After T4 the terminal may be asked, and
// is busy; also on the next connection.
func menuBusy(t *testing.T, s *station, e *ecr, heard []string) {
	wantDid(t, s.pt, Menu, 1)
	has(1, "04 FF 02 1A 03")(t, s, e, heard)
	wantHeard(t, e.say(statusEnquiry), "84 9C 00")
	e.conn.Close()
	e = s.connect()
	wantStatus(t, e, "9C")
	wantHeard(t, e.say(serviceMode), "84 9C 00")
	wantDid(t, s.pt, Menu, 1)
}

// files checks that the files heard are those of the terminal.
func files(offsets bool) func(*testing.T, *station, *ecr, []string) {
	return func(t *testing.T, s *station, _ *ecr, heard []string) {
		got := map[uint64][]byte{}
		for _, f := range parts(t, heard) {
			if (f.Offset != nil) != offsets || f.Size == nil {
				t.Fatalf("file %02X: offset %v, size %v", f.ID, f.Offset, f.Size)
			}
			if offsets && *f.Offset != uint64(len(got[f.ID])) {
				t.Fatalf("file %02X: offset %d after %d bytes", f.ID, *f.Offset, len(got[f.ID]))
			}
			got[f.ID] = append(got[f.ID], f.Block...)
		}
		for _, id := range []uint64{2, 3} {
			if !bytes.Equal(got[id], s.pt.files()[id]) || len(got[id]) == 0 {
				t.Errorf("file %02X: %d bytes, want %d", id, len(got[id]), len(s.pt.files()[id]))
			}
		}
		wantDid(t, s.pt, ReadFile, 1)
	}
}

// parts are the blocks of files in what was heard.
func parts(t *testing.T, heard []string) []apdu.File {
	t.Helper()
	var all []apdu.File
	for _, h := range heard {
		m, err := apdu.Parse(unhex(t, h))
		if err != nil {
			t.Fatal(err)
		}
		if m, ok := m.(apdu.StatusInformation); ok {
			all = append(all, m.Files()...)
		}
	}
	return all
}

func fromTheBeginning(t *testing.T, _ *station, _ *ecr, heard []string) {
	if f := parts(t, heard)[0]; f.Offset == nil || *f.Offset != 0 {
		t.Errorf("first block: %+v", f)
	}
}

func bigBlocks(t *testing.T, s *station, _ *ecr, heard []string) {
	var size int
	for _, f := range parts(t, heard) {
		size += len(f.Block)
		if *f.Size < 90_000 {
			t.Fatalf("size %d", *f.Size)
		}
	}
	if size != len(s.pt.files()[2]) {
		t.Errorf("%d bytes, want %d", size, len(s.pt.files()[2]))
	}
	if !strings.HasPrefix(heard[1], "04 0F FF") {
		t.Errorf("first block %.30s", heard[1])
	}
	for _, h := range heard {
		if n := (len(h) + 1) / 3; n > 1024 {
			t.Errorf("an APDU of %d bytes, 1024 were wanted at most", n)
		}
	}
}

// prints checks which commands print something: these, and no others.
func prints(which ...string) func(*testing.T, *station, *ecr, []string) {
	return func(t *testing.T, s *station, e *ecr, _ []string) {
		for _, command := range []string{configuration, selfTest, systemInfo} {
			heard := e.say(command)
			printed := strings.Contains(strings.Join(heard, ""), spell([]byte("Systemkonfiguration")))
			if printed != slices.Contains(which, command) {
				t.Errorf("%s: %q", command, heard)
			}
		}
		details := last(e.say(statusDetails))
		for _, want := range []string{"1F 44 04 65 02 91 58", "1F 41 07 " + spell([]byte("2.14.15"))} {
			if !strings.Contains(details, want) {
				t.Errorf("details %s, want %s in it", details, want)
			}
		}
	}
}

func TestUnknownScenario(t *testing.T) {
	_, err := New(Options{Scenario: "success+sucess"})
	if err == nil || !strings.Contains(err.Error(), `"sucess"`) || !strings.Contains(err.Error(), "drop-before-completion") {
		t.Fatalf("New: %v", err)
	}
}
