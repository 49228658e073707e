package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"terminalops/agent"
	"terminalops/device/zvt/zvttest"
	"terminalops/transport"
	"terminalops/transport/mqtt"
	"terminalops/transport/transporttest/brokers"
)

// A lab is a store where everything is right: a broker, a dispatcher behind it, a
// terminal and a configuration. A test makes one fault in it.
type lab struct {
	t        *testing.T
	dir      string
	id       string // the terminal's
	broker   string // URL
	link     string
	more     string // keys of [broker]
	terminal string // keys of [[terminal]] and the tables below it
	stateDir string
	env      map[string]string
}

func newLab(t *testing.T) *lab {
	l := &lab{t: t, dir: t.TempDir(), id: "T1"}
	l.stateDir = filepath.Join(l.dir, "state")
	if err := os.Mkdir(l.stateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	return l
}

// withBroker starts a broker with a dispatcher behind it.
func (l *lab) withBroker(configure ...func(*server.Options)) *lab {
	l.t.Helper()
	address := brokers.StartNATS(l.t, configure...)
	l.broker = "tcp://" + address
	return l
}

// withCloud has a dispatcher answer at the broker, whose clock is off by so much.
func (l *lab) withCloud(offset time.Duration) *lab {
	return l.withCloudAs(mqtt.Options{URLs: []string{l.broker}, Prefix: "terminals"}, offset)
}

func (l *lab) withCloudAs(o mqtt.Options, offset time.Duration) *lab {
	l.t.Helper()
	o.Logger = slog.New(slog.NewTextHandler(l.t.Output(), nil))
	ctx, stop := context.WithCancel(l.t.Context())
	c := &welcomer{offset: offset, connected: make(chan struct{})}
	var running sync.WaitGroup
	running.Go(func() { mqtt.Cloud(o, "cloud").Run(ctx, c) })
	l.t.Cleanup(func() {
		stop()
		running.Wait()
	})
	select {
	case <-c.connected:
	case <-time.After(time.Minute):
		l.t.Fatal("the dispatcher does not connect")
	}
	return l
}

// welcomer answers every hello.
type welcomer struct {
	offset    time.Duration
	connected chan struct{}
	once      sync.Once
	mu        sync.Mutex
	sender    transport.Sender
}

func (c *welcomer) Connecting() []byte { return nil }

func (c *welcomer) Connected(_ context.Context, s transport.Sender) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sender = s
	c.once.Do(func() { close(c.connected) })
}

func (c *welcomer) Receive(ctx context.Context, m transport.Message) error {
	h, err := transport.DecodeHello(m.Payload)
	if m.Kind != transport.Hello || err != nil {
		return nil
	}
	go func() {
		<-c.connected
		c.mu.Lock()
		defer c.mu.Unlock()
		w := transport.WelcomeMessage{Nonce: h.Nonce, ServerTime: transport.At(time.Now().Add(c.offset))}
		c.sender.Send(ctx, m.TerminalID, transport.Welcome, transport.Encode(w))
	}()
	return nil
}

// withTerminal starts a terminal that plays a scenario, on TCP.
func (l *lab) withTerminal(scenario string) *lab {
	l.t.Helper()
	pt, err := zvttest.New(zvttest.Options{Scenario: scenario, Fast: true})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if acted := pt.Log(); len(acted) > 0 {
			l.t.Errorf("the doctor made the terminal act: %v", acted)
		}
	})
	return l.withPeer(func(ctx context.Context, c net.Conn) { pt.ServeTCP(ctx, c) })
}

// withPeer has somebody serve the terminal's connections.
func (l *lab) withPeer(serve func(context.Context, net.Conn)) *lab {
	l.link = "tcp:" + listenAt(l.t, serve)
	return l
}

// listenAt serves connections at a loopback address until the test ends.
func listenAt(t *testing.T, serve func(context.Context, net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				serve(ctx, c)
			})
		}
	})
	t.Cleanup(func() {
		stop()
		listener.Close()
		all.Wait()
	})
	return listener.Addr().String()
}

// silentPeer hears everything and says nothing.
func silentPeer(_ context.Context, c net.Conn) { io.Copy(io.Discard, c) }

// write writes a file into the lab.
func (l *lab) write(name, content string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// config writes the configuration.
func (l *lab) config() string {
	return l.write("agent.toml", fmt.Sprintf("state_dir = %q\n[broker]\nurls = [%q]\n%s\n[[terminal]]\nid = %q\nprotocol = \"zvt\"\nlink = %q\n%s\n",
		filepath.ToSlash(l.stateDir), l.broker, l.more, l.id, l.link, l.terminal))
}

// doctorRun is `terminal-agent doctor` with arguments.
func doctorRun(t *testing.T, env map[string]string, args ...string) (code int, stdout string) {
	t.Helper()
	var out, said bytes.Buffer
	began := time.Now()
	code = run(t.Context(), append([]string{"doctor"}, args...), &out, &said, func(k string) string { return env[k] })
	if took := time.Since(began); took > time.Minute {
		t.Errorf("the doctor took %v", took)
	}
	if said.Len() > 0 {
		t.Log(said.String())
	}
	return code, out.String()
}

// unfolded is a text as it was before it was made to fit the screen.
func unfolded(text string) string { return strings.Join(strings.Fields(text), " ") }

// examine is the report of the lab as it is.
func (l *lab) examine(args ...string) (int, report) {
	l.t.Helper()
	code, out := doctorRun(l.t, l.env, append([]string{"--json", "--config", l.config()}, args...)...)
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		l.t.Fatalf("%v: %s", err, out)
	}
	return code, r
}

// diagnosis is what a doctor has to say of the one fault in a lab.
type diagnosis struct {
	check  string
	says   string // part of it
	advice string // likewise
}

// wants examines the lab, in which this check and no other has to fail, for this
// reason and with this advice.
func (l *lab) wants(code int, v verdict, want diagnosis) report {
	l.t.Helper()
	have, r := l.examine()
	l.expect(r, v, want)
	if have != code {
		l.t.Errorf("exit code %d, want %d", have, code)
	}
	return r
}

func (l *lab) expect(r report, v verdict, want diagnosis) {
	l.t.Helper()
	found := false
	for _, f := range r.Findings {
		switch {
		case f.Check == want.check && f.Verdict == v:
			found = true
			if !strings.Contains(f.Says, want.says) || !strings.Contains(f.Advice, want.advice) {
				l.t.Errorf("%s says %q\nand advises %q,\nwant %q\nand %q", f.Check, f.Says, f.Advice, want.says, want.advice)
			}
			if v == verdictFailed && f.Advice == "" {
				l.t.Errorf("%s has failed and advises nothing", f.Check)
			}
		case f.Verdict == verdictFailed, f.Verdict == verdictWarning && f.Check != "service":
			l.t.Errorf("this is also not right: %v", f)
		}
	}
	if !found {
		l.t.Errorf("no %s of %s in\n%s", v, want.check, r.text())
	}
}

// In a store where everything is right, nothing is wrong; only that no service
// runs is worth a word.
func TestDoctorFindsNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t).withBroker().withCloud(0).withTerminal("success")
	code, r := l.examine()
	if code != exitOK {
		t.Errorf("exit code %d", code)
	}
	var checks []string
	for _, f := range r.Findings {
		checks = append(checks, f.Check)
		if f.Verdict != verdictOK && f.Check != "service" {
			t.Errorf("%v", f)
		}
	}
	want := []string{"configuration", "state directory", "journal", "time zone", "service", "name", "connection", "credentials", "topics", "cloud", "clock", "another agent", "network", "terminal"}
	if !slices.Equal(checks, want) {
		t.Errorf("checks %q,\nwant %q", checks, want)
	}
	code, text := doctorRun(t, nil, "--config", l.config())
	if code != exitOK || !strings.Contains(text, "OK       terminal T1: ready, ZVT 2.14.15\n") || !strings.Contains(text, "Nothing failed; 1 warning.") {
		t.Errorf("exit code %d:\n%s", code, text)
	}
}

func TestDoctorConfiguration(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, from, to, says, advice string }{
		{"unknown key", "id = ", "idd = ", "line 6: unknown key terminal.idd", "config check"},
		{"bad link", `link = "tcp:`, `link = "ftp:`, "want serial:PORT", "config check"},
		{"no password file", "urls", "password_file = \"/nowhere/password\"\nusername = \"u\"\nurls", "/nowhere/password", "config check"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			l.broker, l.link = "tcp://127.0.0.1:1", "tcp:127.0.0.1:1"
			path := l.config()
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			l.write("agent.toml", strings.Replace(string(text), tt.from, tt.to, 1))
			code, out := doctorRun(t, nil, "--config", path)
			first, _, _ := strings.Cut(out[strings.Index(out, "\n\n")+2:], "\nOK")
			first = unfolded(first)
			if code != exitConfig || !strings.HasPrefix(first, "FAILED configuration: ") || !strings.Contains(first, tt.says) || !strings.Contains(first, tt.advice) {
				t.Errorf("exit code %d: %s", code, out)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		code, out := doctorRun(t, nil, "--config", filepath.Join(t.TempDir(), "agent.toml"))
		if code != exitConfig || !strings.Contains(out, "config init") {
			t.Errorf("exit code %d: %s", code, out)
		}
	})
}

// labAuthority signs certificates of a lab.
type labAuthority struct {
	l    *lab
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	file string
}

func (l *lab) authority(name string) *labAuthority {
	a := &labAuthority{l: l, key: l.newKey()}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.AddDate(-2, 0, 0), NotAfter: now.AddDate(2, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = template
	a.cert, a.file = a.sign(name, template, a.key)
	return a
}

func (l *lab) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		l.t.Fatal(err)
	}
	return key
}

func (a *labAuthority) sign(name string, template *x509.Certificate, key *ecdsa.PrivateKey) (*x509.Certificate, string) {
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.l.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.l.t.Fatal(err)
	}
	return cert, a.l.write(name+".pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// issue makes a certificate of 127.0.0.1, or of other names, and its key.
func (a *labAuthority) issue(name string, from, to time.Time, names ...string) (certFile, keyFile string) {
	key := a.l.newKey()
	addresses := []net.IP{net.IPv4(127, 0, 0, 1)}
	if len(names) > 0 {
		addresses = nil
	}
	_, certFile = a.sign(name, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to,
		DNSNames: names, IPAddresses: addresses,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, key)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.l.t.Fatal(err)
	}
	return certFile, a.l.write(name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
}

// serve is a NATS option: TLS with a certificate of the authority.
func (a *labAuthority) serve(certFile, keyFile string, mutual bool) func(*server.Options) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		a.l.t.Fatal(err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}}
	if mutual {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AddCert(a.cert)
	}
	return func(o *server.Options) { o.MQTT.TLSConfig = c }
}

func (l *lab) keys(pairs ...string) {
	for i := 0; i < len(pairs); i += 2 {
		l.more += fmt.Sprintf("%s = %q\n", pairs[i], filepath.ToSlash(pairs[i+1]))
	}
}

// The files that the configuration names.
func TestDoctorFiles(t *testing.T) {
	t.Parallel()
	now := time.Now()
	year := now.AddDate(1, 0, 0)
	t.Run("client certificate soon ends", func(t *testing.T) {
		l := newLab(t).withTerminal("success")
		a := l.authority("ca")
		cert, key := a.issue("broker", now.Add(-time.Hour), year)
		mine, mineKey := a.issue("mine", now.Add(-time.Hour), now.Add(72*time.Hour))
		l.withBroker(a.serve(cert, key, true))
		l.broker = strings.Replace(l.broker, "tcp:", "tls:", 1)
		l.keys("ca_file", a.file, "cert_file", mine, "key_file", mineKey)
		l.withCloudAs(mqtt.Options{URLs: []string{l.broker}, Prefix: "terminals", CAFile: a.file, CertFile: mine, KeyFile: mineKey}, 0)
		l.wants(exitOK, verdictWarning, diagnosis{"file", "cert_file expires on " + day(now.Add(72*time.Hour)), "new one"})
	})
	t.Run("client certificate expired", func(t *testing.T) {
		l := newLab(t).withTerminal("success")
		a := l.authority("ca")
		cert, key := a.issue("broker", now.Add(-time.Hour), year)
		mine, mineKey := a.issue("mine", now.Add(-72*time.Hour), now.Add(-48*time.Hour))
		l.withBroker(a.serve(cert, key, true))
		l.broker = strings.Replace(l.broker, "tcp:", "tls:", 1)
		l.keys("ca_file", a.file, "cert_file", mine, "key_file", mineKey)
		_, r := l.examine()
		l.t.Log(r.text())
		first := r.Findings[slices.IndexFunc(r.Findings, func(f finding) bool { return f.Verdict == verdictFailed })]
		if first.Check != "file" || !strings.Contains(first.Says, "cert_file has expired on "+day(now.Add(-48*time.Hour))) {
			t.Errorf("the first is %v", first)
		}
		refused := r.Findings[slices.IndexFunc(r.Findings, func(f finding) bool { return f.Verdict == verdictFailed && f.Check != "file" })]
		if refused.Check != "credentials" && refused.Check != "TLS" || !strings.Contains(refused.Advice, "cert_file") {
			t.Errorf("the broker's refusal is %v", refused)
		}
	})
	t.Run("key of another certificate", func(t *testing.T) {
		l := newLab(t).withTerminal("success")
		l.broker = "tls://127.0.0.1:1"
		a := l.authority("ca")
		mine, _ := a.issue("mine", now.Add(-time.Hour), year)
		_, other := a.issue("other", now.Add(-time.Hour), year)
		l.keys("cert_file", mine, "key_file", other)
		code, r := l.examine()
		i := slices.IndexFunc(r.Findings, func(f finding) bool { return f.Check == "file" && f.Verdict == verdictFailed })
		if code != exitConfig || i < 0 || !strings.Contains(r.Findings[i].Says, "do not belong together") {
			t.Errorf("exit code %d: %s", code, r.text())
		}
	})
	for _, tt := range []struct {
		name, content string
		want          verdict
		says          string
	}{
		{"empty", "\n", verdictFailed, "is empty"},
		{"blank behind it", "secret \n", verdictWarning, "blank"},
		{"two lines", "secret\nmore\n", verdictWarning, "several lines"},
		{"Notepad's mark", "\uFEFFsecret", verdictFailed, "mark before the text"},
		{"right", "secret\n", verdictOK, "can be read"},
	} {
		t.Run("password "+tt.name, func(t *testing.T) {
			l := newLab(t)
			path := l.write("password", tt.content)
			f := checkPassword(namedFile{"password_file", path}, []byte(tt.content))
			if f.Verdict != tt.want || !strings.Contains(f.Says, tt.says) || strings.Contains(f.Says+f.Advice, "secret") {
				t.Errorf("have %v", f)
			}
		})
	}
}

// The way to the broker: where it ends, and why.
func TestDoctorWayToTheBroker(t *testing.T) {
	t.Parallel()
	now := time.Now()
	year := now.AddDate(1, 0, 0)
	withTLS := func(l *lab, from, to time.Time) *labAuthority {
		a := l.authority("the office")
		cert, key := a.issue("broker", from, to)
		l.withBroker(a.serve(cert, key, false))
		l.broker = strings.Replace(l.broker, "tcp:", "tls:", 1)
		return a
	}
	tests := []struct {
		name  string
		fault func(l *lab)
		want  diagnosis
	}{
		{"no such name", func(l *lab) { l.broker = "tcp://broker.invalid:1883" },
			diagnosis{"name", "broker.invalid", ""}},
		{"nobody listens", func(l *lab) { l.broker = "tcp://" + brokers.Nobody },
			diagnosis{"connection", "refuses the connection", "the broker is down"}},
		{"unknown authority", func(l *lab) { withTLS(l, now.Add(-time.Hour), year) },
			diagnosis{"TLS", "signed by CN=the office, whom nobody here trusts", "name it as ca_file"}},
		{"another authority", func(l *lab) {
			withTLS(l, now.Add(-time.Hour), year)
			l.keys("ca_file", l.authority("others").file)
		}, diagnosis{"TLS", "signed by CN=the office", "ca_file is not the authority of this broker"}},
		{"expired", func(l *lab) { l.keys("ca_file", withTLS(l, now.Add(-72*time.Hour), now.Add(-48*time.Hour)).file) },
			diagnosis{"TLS", "has expired on " + day(now.Add(-48*time.Hour)), "if the clock is right, tell the office"}},
		{"clock behind", func(l *lab) { l.keys("ca_file", withTLS(l, now.Add(48*time.Hour), year).file) },
			diagnosis{"TLS", "the clock of this PC says ", "set the clock"}},
		{"another name", func(l *lab) {
			l.keys("ca_file", withTLS(l, now.Add(-time.Hour), year).file)
			l.broker = strings.Replace(l.broker, "127.0.0.1", "localhost", 1)
		}, diagnosis{"TLS", "is for 127.0.0.1, not for localhost", "broker.urls"}},
		{"no TLS there", func(l *lab) {
			l.withBroker()
			l.broker = strings.Replace(l.broker, "tcp:", "tls:", 1)
		}, diagnosis{"TLS", "is cut as soon as TLS begins", "is the port right, and one with TLS?"}},
		{"something else there", func(l *lab) {
			l.broker = "tls://" + listenAt(l.t, func(_ context.Context, c net.Conn) {
				c.Read(make([]byte, 1))
				io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			})
		}, diagnosis{"TLS", "there is no TLS on this port", "is the port right?"}},
		{"silent", func(l *lab) { l.broker = "tls://" + listenAt(l.t, silentPeer) },
			diagnosis{"TLS", "nobody answers in TLS", "swallows TLS"}},
		{"proxy refuses", func(l *lab) {
			l.broker = "tcp://broker.test:1883"
			l.keys("proxy", "http://user:geheim@"+listenAt(l.t, func(_ context.Context, c net.Conn) {
				c.Read(make([]byte, 1))
				io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
				io.Copy(io.Discard, c)
			}))
		}, diagnosis{"proxy", "407", "it wants a name and a password"}},
		{"no MQTT there", func(l *lab) { l.broker = "tcp://" + listenAt(l.t, silentPeer) },
			diagnosis{"credentials", "nobody answers in MQTT", "the broker hangs"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t).withTerminal("success")
			tt.fault(l)
			r := l.wants(exitFailed, verdictFailed, tt.want)
			if strings.Contains(r.text(), "geheim") {
				t.Error("the report tells a password")
			}
		})
	}
}

// A second broker that cannot be reached is no failure.
func TestDoctorSecondBroker(t *testing.T) {
	t.Parallel()
	l := newLab(t).withBroker().withCloud(0).withTerminal("success")
	l.broker += `", "tcp://` + brokers.Nobody // in the list of the configuration
	path := l.config()
	text, _ := os.ReadFile(path)
	l.write("agent.toml", strings.ReplaceAll(string(text), `\"`, `"`))
	code, out := doctorRun(t, nil, "--config", path)
	if code != exitOK || !strings.Contains(out, "warning  connection tcp://127.0.0.1") || !strings.Contains(unfolded(out), "another broker can be reached") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// users are a NATS with permissions.
func users(o *server.Options) {
	allow := func(s ...string) *server.SubjectPermission { return &server.SubjectPermission{Allow: s} }
	deny := func(s ...string) *server.SubjectPermission { return &server.SubjectPermission{Deny: s} }
	all := allow(">")
	o.Users = []*server.User{
		{Username: "cloud", Password: "right"},
		{Username: "store", Password: "right"},
		{Username: "deaf", Password: "right", Permissions: &server.Permissions{Publish: all, Subscribe: deny("terminals.T1.commands")}},
		{Username: "blind", Password: "right", Permissions: &server.Permissions{Publish: all, Subscribe: deny("terminals.T1.presence")}},
		{Username: "dumb", Password: "right", Permissions: &server.Permissions{Publish: deny("terminals.T1.hello"), Subscribe: all}},
	}
}

// What the broker permits, and who is behind it.
func TestDoctorAtTheBroker(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		user     string
		password string
		offset   time.Duration
		noCloud  bool
		code     int
		verdict  verdict
		want     diagnosis
	}{
		{name: "right", user: "store", password: "right", code: exitOK, verdict: verdictOK, want: diagnosis{"credentials", "the name store and its password", ""}},
		{name: "wrong password", user: "store", password: "wrong", code: exitFailed, verdict: verdictFailed, want: diagnosis{"credentials", "the broker refuses the name store and its password (code 5", "name or password is not this store's"}},
		{name: "no credentials", code: exitFailed, verdict: verdictFailed, want: diagnosis{"credentials", "refuses", "set username and password_file"}},
		{name: "may not read commands", user: "deaf", password: "right", code: exitFailed, verdict: verdictFailed, want: diagnosis{"topics", "terminals/T1/commands", "permit this topic"}},
		{name: "may not say hello", user: "dumb", password: "right", code: exitFailed, verdict: verdictFailed, want: diagnosis{"cloud", "terminals/T1/hello", "may write"}},
		{name: "may not read presence", user: "blind", password: "right", code: exitOK, verdict: verdictSkipped, want: diagnosis{"another agent", "may not be read", ""}},
		{name: "no dispatcher", user: "store", password: "right", noCloud: true, code: exitFailed, verdict: verdictFailed, want: diagnosis{"cloud", "nobody behind it answers", "whether the dispatcher runs"}},
		{name: "clock behind", user: "store", password: "right", offset: 2 * time.Hour, code: exitOK, verdict: verdictWarning, want: diagnosis{"clock", "behind the cloud's", "set the clock"}},
		{name: "clock ahead", user: "store", password: "right", offset: -90 * time.Minute, code: exitOK, verdict: verdictWarning, want: diagnosis{"clock", "ahead of the cloud's", "set the clock"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t).withBroker(users).withTerminal("success")
			if !tt.noCloud {
				l.withCloudAs(mqtt.Options{URLs: []string{l.broker}, Prefix: "terminals", Username: "cloud", Password: "right"}, tt.offset)
			}
			if tt.user != "" {
				l.keys("username", tt.user, "password_file", l.write("password", tt.password))
			}
			l.wants(tt.code, tt.verdict, tt.want)
		})
	}
}

// The presence that the broker keeps tells of another agent.
func TestDoctorAnotherAgent(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		state   string
		own     bool
		code    int
		verdict verdict
		says    string
	}{
		{"online", transport.Online, false, exitFailed, verdictFailed, "is online for this terminal: version 9 on linux, journal another"},
		{"offline", transport.Offline, false, exitOK, verdictWarning, "had this terminal before"},
		{"our own", transport.Online, true, exitOK, verdictOK, "none but this one"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t).withBroker().withCloud(0).withTerminal("success")
			a, err := agent.New(agent.Options{StateDir: l.stateDir})
			if err != nil {
				t.Fatal(err)
			}
			a.Close()
			journal := "another"
			if i, err := agent.Inspect(l.stateDir, 1); err != nil {
				t.Fatal(err)
			} else if tt.own {
				journal = i.JournalID
			}
			l.retain(transport.PresenceMessage{State: tt.state, At: transport.At(time.Now()), JournalID: journal, Agent: &transport.Program{Version: "9", OS: "linux"}})
			l.wants(tt.code, tt.verdict, diagnosis{"another agent", tt.says, ""})
		})
	}
}

// retain leaves a presence of T1 at the broker.
func (l *lab) retain(p transport.PresenceMessage) {
	l.t.Helper()
	ctx, stop := context.WithCancel(l.t.Context())
	defer stop()
	s := &sayer{id: l.id, payload: transport.Encode(p), said: make(chan error, 1)}
	var running sync.WaitGroup
	running.Go(func() {
		mqtt.Agent(mqtt.Options{URLs: []string{l.broker}, Prefix: "terminals", Logger: slog.New(slog.DiscardHandler)}, l.id).Run(ctx, s)
	})
	select {
	case err := <-s.said:
		if err != nil {
			l.t.Fatal(err)
		}
	case <-time.After(time.Minute):
		l.t.Fatal("no presence was said")
	}
	stop()
	running.Wait()
	brokers.AwaitRetained(l.t, strings.TrimPrefix(l.broker, "tcp://"), "terminals/"+l.id+"/presence")
}

// sayer says one presence.
type sayer struct {
	id      string // the terminal's
	payload []byte
	said    chan error
}

func (s *sayer) Connecting() []byte { return nil }
func (s *sayer) Connected(ctx context.Context, to transport.Sender) {
	s.said <- to.Send(ctx, s.id, transport.Presence, s.payload)
}
func (s *sayer) Receive(context.Context, transport.Message) error { return nil }

// What a terminal says of itself becomes the next step.
func TestDoctorTerminal(t *testing.T) {
	t.Parallel()
	l := newLab(t).withBroker().withCloud(0)
	tests := []struct {
		scenario string
		verdict  verdict
		says     string
		advice   string
	}{
		{"success", verdictOK, "ready, ZVT 2.14.15", ""},
		{"locked", verdictFailed, "merchant card locked (C1)", "is locked"},
		{"status-dc", verdictWarning, "card inserted (DC)", "pull the card out"},
		{"status-9c", verdictWarning, "please wait (9C)", "Wait, then try again"},
		{"status-e0", verdictWarning, "remote maintenance active (E0)", "an update runs"},
		{"status-51", verdictFailed, "initialisation required (51)", "start Initialisation"},
		{"status-f0", verdictFailed, "reconciliation required (F0)", "an end of day is due"},
		{"wrong-currency", verdictFailed, "wrong currency (6F)", "set currency under [terminal.zvt]"},
		{"no-status-enquiry", verdictOK, "ready", ""},
	}
	for _, tt := range tests {
		t.Run(tt.scenario, func(t *testing.T) {
			one := newLab(t).withTerminal(tt.scenario)
			one.broker = l.broker
			code := exitOK
			if tt.verdict == verdictFailed {
				code = exitFailed
			}
			one.wants(code, tt.verdict, diagnosis{"terminal", tt.says, tt.advice})
		})
	}
}

// Who is not a terminal, or speaks otherwise, is named.
func TestDoctorSomethingElseOnTheNetwork(t *testing.T) {
	t.Parallel()
	l := newLab(t).withBroker().withCloud(0)
	answer := func(b string) func(context.Context, net.Conn) {
		return func(_ context.Context, c net.Conn) {
			c.Read(make([]byte, 64))
			io.WriteString(c, b)
			io.Copy(io.Discard, c)
		}
	}
	tests := []struct {
		name   string
		peer   func(context.Context, net.Conn)
		check  string
		says   string
		advice string
	}{
		{"refused", nil, "network", "refuses the connection", "switch on the ECR interface"},
		{"silent", silentPeer, "terminal", "nobody answers on it", "ZVT"},
		{"ECR17", answer("\x15\x03\x69"), "terminal", "ECR17, the Italian protocol", "set the ECR interface (Kasse) to ZVT"},
		{"Yomani", answer("\x00\x00\x00\x3EVER|01"), "terminal", "Yomani", "ZVT"},
		{"KIT", answer(`{"ErrorNotification":{"ErrorCode":3}}` + "\n"), "terminal", "PayTec KIT", "ZVT"},
		{"web server", answer("HTTP/1.1 400 Bad Request\r\n\r\n"), "terminal", "a web server", "20007"},
		{"wrong password", answer("\x84\x37\x00"), "terminal", "refuses to talk: wrong password", "set password under [terminal.zvt]"},
		{"TLS", answer("\x15\x03\x03\x00\x02\x02\x46"), "terminal", "TLS is spoken", "without encryption"},
		{"frames", answer("\x10\x02\x80\x00\x00\x10\x03\xF5\x1F"), "terminal", "in frames", "TCP/IP"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			one := newLab(t)
			one.broker = l.broker
			if tt.peer == nil {
				one.link = "tcp:" + brokers.Nobody
			} else {
				one.withPeer(tt.peer)
			}
			one.wants(exitFailed, verdictFailed, diagnosis{tt.check, tt.says, tt.advice})
		})
	}
}

// While an agent has the state directory, the terminal is left alone, and what
// the agent says stands in the report.
func TestDoctorBesideTheService(t *testing.T) {
	t.Parallel()
	l := newLab(t).withBroker().withCloud(0)
	l.withPeer(func(_ context.Context, c net.Conn) { t.Error("the doctor connects to the terminal") })
	a, err := agent.New(agent.Options{StateDir: l.stateDir})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	code, r := l.examine()
	if code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for _, f := range r.Findings {
		switch f.Check {
		case "terminal", "journal":
			if f.Verdict != verdictSkipped {
				t.Errorf("%v", f)
			}
		case "service":
			if f.Verdict != verdictWarning || !strings.Contains(f.Says, "runs") {
				t.Errorf("%v", f)
			}
		}
	}
}

// A bundle has all that the office asks for, and no secret and no card number.
func TestDoctorBundle(t *testing.T) {
	t.Parallel()
	l := newLab(t).withBroker(users).withTerminal("status-f0")
	l.withCloudAs(mqtt.Options{URLs: []string{l.broker}, Prefix: "terminals", Username: "cloud", Password: "right"}, 0)
	l.keys("username", "store", "password_file", l.write("password", "right"), "proxy", "")
	l.more = strings.Replace(l.more, `proxy = ""`, `# proxy = "http://me:geheim@proxy.test:3128", card 4111 1111 1111 1111`, 1)
	l.terminal = "[terminal.zvt]\npassword = \"765432\" # it is 765432\n"
	if err := os.WriteFile(filepath.Join(l.stateDir, saidFile), []byte("T1 said 5500 0000 0000 0004\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := agent.New(agent.Options{StateDir: l.stateDir})
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	if err := os.WriteFile(filepath.Join(l.stateDir, serviceName+".log.1"), []byte("msg=started\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(l.dir, "bundle.tar.gz")
	code, _ := l.examine("--bundle", path)
	if code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	files := unpack(t, path)
	for name, want := range map[string]string{
		"report.txt":           "reconciliation required (F0)",
		"report.json":          `"verdict": "failed"`,
		"configuration.toml":   filepath.ToSlash(l.stateDir),
		"journal.json":         "",
		"terminals.json":       "2.14.15",
		"captures.txt":         "# 06 00",
		"terminal-agent.log.1": "msg=started",
		saidFile:               "T1 said 550000",
	} {
		content, there := files[name]
		if !there || !strings.Contains(strings.ReplaceAll(content, "5500 00", "550000"), want) {
			t.Errorf("%s, in it %v: %s", name, there, content)
		}
	}
	for name, content := range files {
		for _, secret := range []string{"765432", "geheim", "right\n", "4111 1111 1111 1111", "5500 0000 0000 0004"} {
			if strings.Contains(content, secret) {
				t.Errorf("%s has %q in it", name, secret)
			}
		}
	}
	if code, _ := l.examine("--bundle", path); code != exitFailed {
		t.Errorf("a bundle that is there already: exit code %d", code)
	}
	if again := unpack(t, path); again["report.txt"] != files["report.txt"] {
		t.Error("a bundle that was there was overwritten")
	}
}

func unpack(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for r := tar.NewReader(zipped); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(content)
	}
}

// However TOML may write a password, it is not in a bundle.
func TestWithoutSecrets(t *testing.T) {
	const secret = "765432"
	for _, text := range []string{
		`password = "765432"`, `password="765432"`, `password = '765432'`, `"password" = "765432"`, `'password' = "765432"`,
		`zvt = { currency = 978, password = "765432" }`, `zvt.password = "765432"`, `#password = "765432"`, `password = """765432"""`, "password = 765432",
	} {
		if have := withoutSecrets(text, nil); strings.Contains(have, secret) || !strings.Contains(have, "not shown") {
			t.Errorf("%s became %s", text, have)
		}
	}
	c := &config{Terminals: []terminalConfig{{ZVT: zvtConfig{Password: secret}}}}
	if have := withoutSecrets("passwort = 765432", c); strings.Contains(have, secret) {
		t.Error(have)
	}
	if have := withoutSecrets(`proxy = "http://me:765432@host:1"`+"\npassword_file = \"/a/b\"", nil); strings.Contains(have, secret) || !strings.Contains(have, "host:1") || !strings.Contains(have, "/a/b") {
		t.Error(have)
	}
}

// What the service says of its terminals stands in the report.
func TestDoctorAsksTheService(t *testing.T) {
	t.Parallel()
	s := newShop(t, 1)
	l := newLab(t).withBroker().withCloud(0)
	l.withPeer(func(_ context.Context, c net.Conn) { t.Error("the doctor connects to the terminal") })
	l.stateDir = s.dir
	i := strings.Replace(l.config(), "agent.toml", "T0.toml", 1)
	text, err := os.ReadFile(l.config())
	if err != nil {
		t.Fatal(err)
	}
	l.write("T0.toml", strings.Replace(string(text), `id = "T1"`, `id = "T0"`, 1))
	code, out := doctorRun(t, nil, "--config", i)
	if code != exitOK || !strings.Contains(out, "OK       service: runs, version 1.2.3") || !strings.Contains(out, " terminal T0: ") {
		t.Errorf("exit code %d: %s", code, out)
	}
	code, out = doctorRun(t, nil, "--config", l.config())
	if code != exitOK || !strings.Contains(out, "warning  terminal T1: the service does not serve this terminal") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// Each state of a lane has its verdict.
func TestLaneFinding(t *testing.T) {
	for _, tt := range []struct {
		lane agent.LaneStatus
		want verdict
		says string
	}{
		{agent.LaneStatus{Device: transport.Device{State: transport.DeviceReady, Model: "DESK"}}, verdictOK, "DESK"},
		{agent.LaneStatus{Device: transport.Device{State: transport.DeviceBusy, Detail: "card inserted"}}, verdictWarning, "card inserted"},
		{agent.LaneStatus{Device: transport.Device{State: transport.DeviceUnreachable, Detail: "no such port"}}, verdictFailed, "no such port"},
		{agent.LaneStatus{}, verdictSkipped, "has not asked it yet"},
		{agent.LaneStatus{Working: &agent.Record{Operation: "end_of_day", Message: "please wait"}}, verdictOK, "end_of_day, please wait"},
	} {
		tt.lane.ID = "T1"
		d := &doctor{service: serviceView{runs: true, status: &agent.Status{Lanes: []agent.LaneStatus{tt.lane}}}}
		if f := d.laneFinding(terminalConfig{ID: "T1"}); f.Verdict != tt.want || !strings.Contains(f.Says, tt.says) {
			t.Errorf("have %v, want %s", f, tt.want)
		}
	}
}
