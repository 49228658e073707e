package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"terminalops/device/link"
)

// A conversation is a config init that asks, and what is answered: a line each.
type conversation struct {
	t     *testing.T
	file  string
	ports []link.Port
	urls  []string
	given map[string]string // flags
	leave func()            // is called when there is no answer any more; nil: the input ends
	said  bytes.Buffer
}

func newConversation(t *testing.T) *conversation {
	dir := t.TempDir()
	return &conversation{t: t, file: filepath.Join(dir, "etc", "agent.toml"), given: map[string]string{"state-dir": filepath.ToSlash(filepath.Join(dir, "state"))}}
}

// answers gives answers, then leaves.
type answers struct {
	lines []string
	leave func()
	left  chan struct{} // closed at the end of the test
}

func (a *answers) Read(b []byte) (int, error) {
	if len(a.lines) == 0 {
		if a.leave == nil {
			return 0, io.EOF
		}
		a.leave()
		<-a.left // nobody types any more
		return 0, io.EOF
	}
	n := copy(b, a.lines[0]+"\n")
	a.lines = a.lines[1:]
	return n, nil
}

// hold has the conversation. What was said is returned as it was before it was
// folded.
func (c *conversation) hold(lines ...string) (said string, err error) {
	c.t.Helper()
	ctx := c.t.Context()
	from := &answers{lines: slices.Clone(lines), left: make(chan struct{})}
	c.t.Cleanup(func() { close(from.left) })
	if c.leave != nil {
		leaving, cancel := context.WithCancel(ctx)
		ctx, from.leave = leaving, cancel
		c.t.Cleanup(cancel)
	}
	in := bufio.NewReader(from)
	a := &asker{in: in, out: &c.said, secret: func() (string, error) { return in.ReadString('\n') }}
	all := initSettings()
	for _, one := range all {
		if value, is := c.given[one.flag]; is {
			one.value = value
		}
	}
	s := newSetUp(program{stdout: &c.said, stderr: &c.said, getenv: noEnv}, a, c.file, c.urls, all)
	s.ports = func() ([]link.Port, error) { return c.ports, nil }
	err = s.set(ctx)
	return unfolded(c.said.String()), err
}

// written is the configuration that was written.
func (c *conversation) written() *config {
	c.t.Helper()
	loaded, err := loadConfig([]string{"--config", c.file}, noEnv)
	if err != nil {
		c.t.Fatalf("%v\n%s", err, c.said.String())
	}
	return loaded
}

// nothingWritten checks that all is as it was.
func (c *conversation) nothingWritten() {
	c.t.Helper()
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(c.file)), "*")); len(left) > 0 {
		c.t.Errorf("left behind: %q", left)
	}
}

// Two devices of one kind, one of another, and a port of the machine's own.
var severalPorts = []link.Port{
	{Name: "/dev/ttyS0"},
	{Name: "/dev/ttyACM0", VendorID: "0b00", ProductID: "0080", SerialNumber: "A17", Product: "DESK/3500"},
	{Name: "/dev/ttyACM1", VendorID: "0b00", ProductID: "0080", SerialNumber: "A18", Product: "DESK/3500"},
	{Name: "/dev/ttyUSB0", VendorID: "0403", ProductID: "6001"},
}

const brokerSecret = "opensesame !"

// Whoever answers everything gets a whole configuration. No secret is shown, nor
// in the configuration.
func TestConfigInitAsks(t *testing.T) {
	t.Parallel()
	l := newLab(t).withTerminal("success")
	a := l.authority("ca")
	cert, key := a.issue("store", time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
	c := newConversation(t)
	said, err := c.hold(l.link, "471100", "P11223351-T0013", "tls://a.example.com:8883 tls://b.example.com", a.file, cert, key, "store-0042", brokerSecret, "yes")
	if err != nil {
		t.Fatalf("%v\n%s", err, c.said.String())
	}
	have, password := c.written(), filepath.Join(filepath.Dir(c.file), "password")
	b, terminal := have.Broker, have.Terminals[0]
	if terminal.Link != l.link || terminal.ID != "P11223351-T0013" || terminal.ZVT.Password != "471100" || terminal.Baud != defaultBaud ||
		!slices.Equal(b.URLs, []string{"tls://a.example.com:8883", "tls://b.example.com"}) || b.Username != "store-0042" || b.PasswordFile != password ||
		b.CAFile != a.file || b.CertFile != cert || b.KeyFile != key {
		t.Errorf("have %+v", have)
	}
	if content, err := os.ReadFile(password); err != nil || string(content) != brokerSecret+"\n" {
		t.Errorf("the password is %q, %v", content, err)
	}
	content, _ := os.ReadFile(c.file)
	for _, secret := range []string{brokerSecret, "471100"} {
		if strings.Contains(c.said.String(), secret) || secret == brokerSecret && strings.Contains(string(content), secret) {
			t.Errorf("a secret is to be seen:\n%s", c.said.String())
		}
	}
	wantInText(t, said, "There is no serial port now", "OK terminal: ready, ZVT 2.14.15", "terminal number (TID) ", "terminal.id P11223351-T0013",
		password+" (new, with the password)", "terminal.zvt.password (not shown)", c.file+" is written", "terminal-agent doctor --config "+c.file, "terminal-agent service start")
	if code, out := output("config", "check", "--config", c.file); code != exitOK {
		t.Errorf("config check: exit code %d: %s", code, out)
	}
}

// wantInText checks that texts are in a text, in this order.
func wantInText(t *testing.T, text string, want ...string) {
	t.Helper()
	rest := text
	for _, w := range want {
		_, after, found := strings.Cut(rest, w)
		if !found {
			t.Errorf("no %q behind what comes before it in\n%s", w, text)
			return
		}
		rest = after
	}
}

// What is wrong is said at once, and asked again; ? helps.
func TestConfigInitBadAnswers(t *testing.T) {
	t.Parallel()
	l := newLab(t).withTerminal("success")
	a := l.authority("ca")
	cert, key := a.issue("store", time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
	old, _ := a.issue("old", time.Now().AddDate(-1, 0, 0), time.Now().Add(-time.Hour))
	_, otherKey := a.issue("other", time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
	c := newConversation(t)
	said, err := c.hold(
		"?", "5", "COM3", "serial:ttyS0", "usb:0b00", "\x1b[A", l.link,
		"12", "?", "",
		"", "P 11223351", "P11223351-T0013",
		"?", "broker.example.com", "tls://anna:opensesame@broker.example.com", "http://broker.example.com", "tls://broker.example.com",
		"/nowhere/ca.pem", key, a.file,
		old, cert, "", otherKey, key,
		"-",
		"perhaps", "Y")
	if err != nil {
		t.Fatalf("%v\n%s", err, c.said.String())
	}
	wantInText(t, said,
		"a number of the list", "5 is not in the list; want a number of it", `link "COM3": want serial:PORT`, "want a full path such as", `product ""`, "no character",
		"want six digits", "000000 at most terminals", "OK terminal: ready",
		"this has to be answered", `"P 11223351": want 1 to 64 letters`,
		"are tried in turn", `"broker.example.com": expected tcp://`, "name and password do not belong in the URL", "expected tcp://",
		"ca.pem: ca_file is not there", "ca_file has no certificate that can be read",
		"cert_file has expired", "this has to be answered", "do not belong together",
		`"perhaps": want yes or no`)
	if strings.Contains(said, "opensesame") {
		t.Errorf("a secret is to be seen:\n%s", said)
	}
	if b := c.written().Broker; b.Username != "" || b.PasswordFile != "" || b.KeyFile != key {
		t.Errorf("have %+v", b)
	}
}

// Whoever leaves, at whatever question and however, leaves everything as it was.
func TestConfigInitLeft(t *testing.T) {
	t.Parallel()
	l := newLab(t).withTerminal("success")
	whole := []string{l.link, "", "T1", "tls://broker.example.com", "", "", "store-0042", brokerSecret}
	for answered := range len(whole) + 1 {
		for _, tt := range []struct {
			leave func()
			want  error
		}{{nil, errEnded}, {func() {}, errInterrupted}} {
			c := newConversation(t)
			c.leave = tt.leave
			_, err := c.hold(whole[:answered]...)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), "nothing was written") {
				t.Errorf("after %d answers: %v, want %v\n%s", answered, err, tt.want, c.said.String())
			}
			c.nothingWritten()
		}
	}
	c := newConversation(t)
	if _, err := c.hold(append(whole, "no")...); err == nil || !strings.Contains(err.Error(), "nothing was written") {
		t.Errorf("who did not want it is told %v", err)
	}
	c.nothingWritten()
}

// Ctrl-C also ends the wait for a terminal that does not answer.
func TestConfigInitLeftWhileLooking(t *testing.T) {
	t.Parallel()
	c, l := newConversation(t), newLab(t)
	ctx, leave := context.WithCancel(t.Context())
	l.withPeer(func(_ context.Context, conn net.Conn) { leave(); silentPeer(ctx, conn) })
	in := bufio.NewReader(strings.NewReader(l.link + "\n\n"))
	s := newSetUp(program{stderr: &c.said}, &asker{in: in, out: &c.said, secret: func() (string, error) { return in.ReadString('\n') }}, c.file, nil, initSettings())
	if err := s.set(ctx); !errors.Is(err, errInterrupted) {
		t.Errorf("%v, want %v", err, errInterrupted)
	}
	c.nothingWritten()
}

// Flags that were given are not asked for again; what is wrong in them is said
// before anything is asked.
func TestConfigInitAsksTheRest(t *testing.T) {
	t.Parallel()
	l := newLab(t).withTerminal("success")
	c := newConversation(t)
	c.urls = []string{"tcp://broker.example.com"}
	c.given["link"], c.given["broker-username"], c.given["broker-password-file"] = l.link, "anna", "/secrets/password"
	said, err := c.hold("", "T1", "")
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	have := c.written()
	if have.Terminals[0].Link != l.link || have.Terminals[0].ID != "T1" || have.Broker.URLs[0] != c.urls[0] || have.Broker.Username != "anna" || have.Broker.PasswordFile != "/secrets/password" {
		t.Errorf("have %+v", have)
	}
	for flag, value := range map[string]string{"link": "COM3", "terminal-id": "T 1"} {
		c := newConversation(t)
		c.given[flag] = value
		if said, err := c.hold(); !errors.As(err, new(configError)) || said != "" {
			t.Errorf("%s: %v\n%s", flag, err, said)
		}
	}
}

// A port is chosen by its number, and found by the device behind it where that is
// unmistakable.
func TestConfigInitPorts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		ports   []link.Port
		answers []string
		link    string
		says    string
	}{
		{"of its own", severalPorts, []string{"1"}, "serial:/dev/ttyS0", "1 /dev/ttyS0 2 /dev/ttyACM0 (usb:0b00:0080:A17 \"DESK/3500\")"},
		{"one of two", severalPorts, []string{"2", ""}, "usb:0b00:0080:A17", "Find it as usb:0b00:0080:A17"},
		{"only one of its kind", severalPorts, []string{"4", "yes"}, "usb:0403:6001", "Find it as usb:0403:6001,"},
		{"by its name", severalPorts, []string{"4", "?", "no"}, "serial:/dev/ttyUSB0", "at any socket"},
		{"by hand", severalPorts, []string{"usb:0b00:0080:A18"}, "usb:0b00:0080:A18", ""},
		{"the only one", severalPorts[:1], []string{""}, "serial:/dev/ttyS0", "[1]"},
		{"not to be told apart", []link.Port{{Name: "COM3", VendorID: "0403", ProductID: "6001"}, {Name: "COM4", VendorID: "0403", ProductID: "6001"}}, []string{"2"}, "serial:COM4", ""},
		{"plugged in later", nil, []string{"", "tcp:192.0.2.10:20007"}, "tcp:192.0.2.10:20007", "There is no serial port now"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newConversation(t)
			in := bufio.NewReader(strings.NewReader(strings.Join(tt.answers, "\n") + "\n"))
			s := newSetUp(program{}, &asker{in: in, out: &c.said}, c.file, nil, initSettings())
			s.ports = func() ([]link.Port, error) { return tt.ports, nil }
			have, err := s.askLink(t.Context(), "")
			if err != nil || have != tt.link {
				t.Errorf("have %q, %v; want %q", have, err, tt.link)
			}
			wantInText(t, unfolded(c.said.String()), tt.says)
		})
	}
}

// A terminal that is not as it should be is described, and the person decides.
func TestConfigInitTerminalNotRight(t *testing.T) {
	t.Parallel()
	rest := []string{"T1", "tcp://broker.example.com", "", ""}
	good := newLab(t).withTerminal("success")
	t.Run("choose again", func(t *testing.T) {
		c := newConversation(t)
		said, err := c.hold(append([]string{"tcp:127.0.0.1:1", "123456", "", good.link, "000000"}, rest...)...)
		if err != nil || c.written().Terminals[0].Link != good.link || c.written().Terminals[0].ZVT.Password != "" {
			t.Errorf("%v\n%s", err, said)
		}
		wantInText(t, said, "FAILED network: 127.0.0.1:1 refuses the connection", "switch on the ECR interface", "all the same? [no]", "[tcp:127.0.0.1:1]", "[as before]", "OK terminal: ready")
	})
	t.Run("go on", func(t *testing.T) {
		c := newConversation(t)
		said, err := c.hold(append([]string{"tcp:127.0.0.1:1", "", "?", "yes"}, rest...)...)
		if err != nil || c.written().Terminals[0].Link != "tcp:127.0.0.1:1" {
			t.Errorf("%v\n%s", err, said)
		}
	})
	t.Run("busy", func(t *testing.T) {
		c := newConversation(t)
		said, err := c.hold(append([]string{newLab(t).withTerminal("status-dc").link, "", ""}, rest...)...)
		if err != nil {
			t.Errorf("%v\n%s", err, said)
		}
		wantInText(t, said, "warning terminal: card inserted", "pull the card out", "all the same? [yes]")
	})
	t.Run("refuses", func(t *testing.T) {
		c := newConversation(t)
		said, err := c.hold(append([]string{newLab(t).withTerminal("registration-refused").link, "", "yes"}, rest...)...)
		if err != nil {
			t.Errorf("%v\n%s", err, said)
		}
		wantInText(t, said, "FAILED terminal: refuses to talk")
	})
}

// A file with the password that is there is used, or left alone.
func TestConfigInitPasswordFile(t *testing.T) {
	t.Parallel()
	l := newLab(t).withTerminal("success")
	for answer, want := range map[string]string{"": "password", brokerSecret: "password-2"} {
		c := newConversation(t)
		dir := filepath.Dir(c.file)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		there := filepath.Join(dir, "password")
		if err := os.WriteFile(there, []byte("the administrator's"), 0o600); err != nil {
			t.Fatal(err)
		}
		said, err := c.hold(l.link, "", "T1", "tcp://broker.example.com", "store-0042", answer, "")
		if err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
		wantInText(t, said, "[what is in "+there+"]")
		if content, _ := os.ReadFile(there); string(content) != "the administrator's" {
			t.Errorf("it is now %q", content)
		}
		if have := c.written().Broker.PasswordFile; have != filepath.Join(dir, want) {
			t.Errorf("password_file is %q, want %q", have, want)
		}
	}
}
