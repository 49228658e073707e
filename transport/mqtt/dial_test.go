package mqtt

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/nats-io/nats-server/v2/server"

	"terminalops/transport"
	"terminalops/transport/transporttest"
	"terminalops/transport/transporttest/brokers"
)

// authority signs certificates, and keeps all of them as files.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = a.newKey()
	a.cert, a.file = a.sign("ca", template, template, a.key)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) sign(name string, template, parent *x509.Certificate, key *ecdsa.PrivateKey) (*x509.Certificate, string) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, a.write(name+".pem", "CERTIFICATE", der)
}

func (a *authority) write(name, kind string, der []byte) string {
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue makes a certificate for 127.0.0.1, as server and client, that ends at
// notAfter.
func (a *authority) issue(name string, notAfter time.Time) (certFile, keyFile string) {
	key := a.newKey()
	_, certFile = a.sign(name, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, key)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return certFile, a.write(name+".key", "EC PRIVATE KEY", der)
}

// serverConfig is what a broker with that certificate uses; client asks for
// client certificates of this authority.
func (a *authority) serverConfig(certFile, keyFile string, client bool) *tls.Config {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		a.t.Fatal(err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if client {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AddCert(a.cert)
	}
	return c
}

// natsWithWebSocket starts NATS that also listens for MQTT over WebSocket.
func natsWithWebSocket(t *testing.T, config *tls.Config) (address string) {
	var opts *server.Options
	brokers.StartNATS(t, func(o *server.Options) {
		o.Websocket.Host, o.Websocket.Port = "127.0.0.1", server.RANDOM_PORT
		o.Websocket.TLSConfig, o.Websocket.NoTLS = config, config == nil
		opts = o
	})
	return fmt.Sprintf("127.0.0.1:%d", opts.Websocket.Port)
}

// mustWork sends a report through an end with these options.
func mustWork(t *testing.T, o Options) {
	t.Helper()
	agent := transporttest.NewRecorder()
	transporttest.Start(t, Agent(o, "T1"), agent)
	if err := agent.AwaitConnected(t, patience).Send(t.Context(), "T1", transport.Reports, []byte("1")); err != nil {
		t.Error(err)
	}
}

// mustFail runs an end with these options until its log says why it does not
// connect, twice: it tries again.
func mustFail(t *testing.T, o Options, why string) {
	t.Helper()
	log := &watched{want: why, found: make(chan struct{})}
	o.Logger = slog.New(slog.NewTextHandler(log, nil))
	agent := transporttest.NewRecorder()
	transporttest.Start(t, Agent(o, "T1"), agent)
	select {
	case <-log.found:
	case <-time.After(patience):
		t.Errorf("no %q in the log:\n%s", why, log.String())
	}
	if agent.Connections() != 0 {
		t.Error("connected all the same")
	}
}

// watched is a log that waits for something to be said twice.
type watched struct {
	want  string
	found chan struct{}
	times int
	mu    sync.Mutex
	text  bytes.Buffer
}

func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if strings.Contains(string(b), w.want) {
		if w.times++; w.times == 2 {
			close(w.found)
		}
	}
	return w.text.Write(b)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func TestTLS(t *testing.T) {
	a := newAuthority(t)
	later := time.Now().Add(time.Hour)
	good, goodKey := a.issue("broker", later)
	expired, expiredKey := a.issue("expired", time.Now().Add(-time.Hour))
	client, clientKey := a.issue("client", later)
	foreign, foreignKey := newAuthority(t).issue("foreign", later)

	start := func(t *testing.T, config *tls.Config) Options {
		o := quick(t, brokers.StartNATS(t, func(o *server.Options) { o.MQTT.TLSConfig = config }))
		o.URLs[0] = strings.Replace(o.URLs[0], "tcp:", "mqtts:", 1)
		o.CAFile = a.file
		return o
	}
	t.Run("works", func(t *testing.T) {
		mustWork(t, start(t, a.serverConfig(good, goodKey, false)))
	})
	t.Run("mutual", func(t *testing.T) {
		o := start(t, a.serverConfig(good, goodKey, true))
		o.CertFile, o.KeyFile = client, clientKey
		mustWork(t, o)
	})
	t.Run("wrong CA", func(t *testing.T) {
		o := start(t, a.serverConfig(good, goodKey, false))
		o.CAFile = newAuthority(t).file
		mustFail(t, o, "certificate signed by unknown authority")
	})
	t.Run("the system's CAs do not know it", func(t *testing.T) {
		o := start(t, a.serverConfig(good, goodKey, false))
		o.CAFile = ""
		mustFail(t, o, "certificate signed by unknown authority")
	})
	t.Run("expired", func(t *testing.T) {
		mustFail(t, start(t, a.serverConfig(expired, expiredKey, false)), "certificate has expired")
	})
	t.Run("wrong name", func(t *testing.T) {
		o := start(t, a.serverConfig(good, goodKey, false))
		o.URLs[0] = strings.Replace(o.URLs[0], "127.0.0.1", "localhost", 1)
		mustFail(t, o, "certificate is not valid for any names, but wanted to match localhost")
	})
	t.Run("no client certificate", func(t *testing.T) {
		mustFail(t, start(t, a.serverConfig(good, goodKey, true)), "certificate required")
	})
	t.Run("foreign client certificate", func(t *testing.T) {
		o := start(t, a.serverConfig(good, goodKey, true))
		o.CertFile, o.KeyFile = foreign, foreignKey
		mustFail(t, o, "remote error: tls")
	})
	t.Run("no TLS there", func(t *testing.T) {
		o := quick(t, brokers.StartNATS(t))
		o.URLs[0] = strings.Replace(o.URLs[0], "tcp:", "tls:", 1)
		mustFail(t, o, "tls://127.0.0.1:")
	})
	t.Run("renewed without restart", func(t *testing.T) {
		o := start(t, a.serverConfig(good, goodKey, true))
		o.CertFile, o.KeyFile = filepath.Join(t.TempDir(), "c"), filepath.Join(t.TempDir(), "k")
		install(t, foreign, o.CertFile)
		install(t, foreignKey, o.KeyFile)
		agent := transporttest.NewRecorder()
		transporttest.Start(t, Agent(o, "T1"), agent)
		install(t, client, o.CertFile)
		install(t, clientKey, o.KeyFile)
		agent.AwaitConnected(t, patience)
	})
}

func install(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWebSocket(t *testing.T) {
	t.Run("ws", func(t *testing.T) {
		o := quick(t, "")
		o.URLs[0] = "ws://" + natsWithWebSocket(t, nil) + "/mqtt"
		mustWork(t, o)
	})
	t.Run("wss", func(t *testing.T) {
		a := newAuthority(t)
		cert, key := a.issue("broker", time.Now().Add(time.Hour))
		o := quick(t, "")
		o.URLs[0] = "wss://" + natsWithWebSocket(t, a.serverConfig(cert, key, false)) + "/mqtt"
		o.CAFile = a.file
		mustWork(t, o)
	})
	t.Run("no MQTT there", func(t *testing.T) {
		l := listen(t, func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 404 Not Found\r\n\r\n")
		})
		o := quick(t, "")
		o.URLs[0] = "ws://" + l + "/mqtt"
		mustFail(t, o, "WebSocket refused: HTTP 404 Not Found")
	})
	t.Run("the whole contract", func(t *testing.T) {
		transporttest.TestEnds(t, func(t *testing.T) transporttest.Setup {
			var opts *server.Options
			plain := brokers.StartNATS(t, func(o *server.Options) {
				o.Websocket.Host, o.Websocket.Port, o.Websocket.NoTLS = "127.0.0.1", server.RANDOM_PORT, true
				opts = o
			})
			s := conformance(t, plain)
			network := newFaults(t, fmt.Sprintf("127.0.0.1:%d", opts.Websocket.Port))
			s.Agent = func(id string) transport.End {
				o := quick(t, "")
				o.URLs[0] = "ws://" + network.address + "/mqtt"
				return Agent(o, id)
			}
			s.Cut = func(string) { network.cut() }
			return s
		})
	})
}

// The library writes pings beside everything else.
func TestWebSocketWritesBesideEachOther(t *testing.T) {
	const writers, writes = 4, 50
	received := make(chan int, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		n, _ := io.CopyN(io.Discard, websocket.JoinMessages(conn, ""), writers*writes)
		received <- int(n)
	}))
	defer server.Close()
	u, err := parseBroker("ws" + strings.TrimPrefix(server.URL, "http"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := Options{}.dial(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	g := guard(conn, 2, patience)
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range writes {
				if _, err := g.Write([]byte("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if n := <-received; n != writers*writes {
		t.Errorf("%d bytes arrived, want %d", n, writers*writes)
	}
}

func TestPassword(t *testing.T) {
	address := brokers.StartNATS(t, func(o *server.Options) { o.Username, o.Password = "store", "right" })
	o := quick(t, address)
	o.Username, o.Password = "store", "right"
	mustWork(t, o)
	o.Password = "wrong"
	mustFail(t, o, "ot Authorized")
}

// listen serves connections at a loopback address until the test ends.
func listen(t testing.TB, serve func(net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

// join copies both ways until both ends have closed.
func join(a, b net.Conn) {
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			io.Copy(way[0], way[1])
			way[0].Close()
		})
	}
	both.Wait()
}

// connectProxy is an HTTP CONNECT proxy that wants a name and password and
// reaches every host at target.
func connectProxy(t testing.TB, target string) (address string) {
	return listen(t, func(c net.Conn) {
		request, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		if request.Method != http.MethodConnect || request.Header.Get("Proxy-Authorization") != "Basic dXNlcjpwYTpzcw==" { // user:pa:ss
			io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
			return
		}
		broker, err := net.Dial("tcp", target)
		if err != nil {
			io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Proxy: "+request.Host+"\r\n\r\n")
		join(c, broker)
	})
}

// socksProxy is a SOCKS5 proxy (RFC 1928, 1929) that wants a name and password
// and reaches every host at target.
func socksProxy(t testing.TB, target string) (address string) {
	return listen(t, func(c net.Conn) {
		greeting := make([]byte, 2)
		io.ReadFull(c, greeting)
		io.CopyN(io.Discard, c, int64(greeting[1]))
		c.Write([]byte{5, 2})
		credentials := make([]byte, len("\x01\x04user\x05pa:ss"))
		io.ReadFull(c, credentials)
		if string(credentials) != "\x01\x04user\x05pa:ss" {
			c.Write([]byte{1, 1})
			return
		}
		c.Write([]byte{1, 0})
		head := make([]byte, 5) // 05 CONNECT 00 03 length
		io.ReadFull(c, head)
		io.CopyN(io.Discard, c, int64(head[4])+2)
		broker, err := net.Dial("tcp", target)
		if err != nil || head[3] != 3 {
			c.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
			return
		}
		c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		join(c, broker)
	})
}

// Through a proxy the broker's name is for the proxy to look up: "broker.test"
// does not exist here.
func TestProxy(t *testing.T) {
	plain := brokers.StartNATS(t)
	a := newAuthority(t)
	cert, key := a.issue("broker", time.Now().Add(time.Hour))
	secure := brokers.StartNATS(t, func(o *server.Options) { o.MQTT.TLSConfig = a.serverConfig(cert, key, false) })
	webSocket := natsWithWebSocket(t, nil)
	for name, start := range map[string]func(testing.TB, string) string{"http": connectProxy, "socks5": socksProxy} {
		through := func(target string) Options {
			o := quick(t, "broker.test:1883")
			o.Proxy = Secret(name + "://user:pa%3Ass@" + start(t, target))
			o.CAFile = a.file
			return o
		}
		t.Run(name+" to tcp", func(t *testing.T) { mustWork(t, through(plain)) })
		t.Run(name+" to ws", func(t *testing.T) {
			o := through(webSocket)
			o.URLs[0] = "ws://broker.test/mqtt"
			mustWork(t, o)
		})
		t.Run(name+" to tls", func(t *testing.T) {
			o := through(secure)
			o.URLs[0] = "tls://broker.test" // TLS ends at the broker, not at the proxy
			mustFail(t, o, "not valid for any names, but wanted to match broker.test")
		})
		t.Run(name+" refuses", func(t *testing.T) {
			o := through(plain)
			o.Proxy = Secret(strings.Replace(string(o.Proxy), "user:", "nobody:", 1))
			mustFail(t, o, "error=\"proxy 127.0.0.1:")
		})
		t.Run(name+" cannot reach the broker", func(t *testing.T) {
			mustFail(t, through(brokers.Nobody), "error=\"proxy 127.0.0.1:")
		})
	}
}

// The environment is read once in a process: a child looks at it.
func TestProxyFromEnvironment(t *testing.T) {
	wanted := []struct{ broker, proxy string }{
		{"tcp://broker.test", "http://one.test:1"},
		{"ws://broker.test", "http://one.test:1"},
		{"tls://broker.test", "socks5://two.test:2"},
		{"wss://broker.test", "socks5://two.test:2"},
		{"tls://broker.internal.test", "<nil>"},
		{"tls://127.0.0.1", "<nil>"},
	}
	if os.Getenv("HTTP_PROXY") != "http://one.test:1" {
		child := exec.Command(os.Args[0], "-test.run=^TestProxyFromEnvironment$", "-test.v")
		// The last one wins, and on Windows http_proxy is HTTP_PROXY.
		child.Env = append(os.Environ(), "http_proxy=", "https_proxy=", "no_proxy=",
			"HTTP_PROXY=http://one.test:1", "HTTPS_PROXY=socks5://two.test:2", "NO_PROXY=internal.test")
		if out, err := child.CombinedOutput(); err != nil || !strings.Contains(string(out), "looked at 6 brokers") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for _, w := range wanted {
		u, err := parseBroker(w.broker)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := (Options{}).proxyFor(u); fmt.Sprint(p) != w.proxy || err != nil {
			t.Errorf("proxy for %s: %v, %v, want %s", w.broker, p, err, w.proxy)
		}
	}
	t.Logf("looked at %d brokers", len(wanted))
}

func TestCheck(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("client", time.Now().Add(time.Hour))
	good := Options{URLs: []string{"tls://broker.test:8883"}, Prefix: "terminals/of/one"}
	tests := []struct {
		change func(*Options)
		want   string // empty: no error
	}{
		{func(o *Options) {}, ""},
		{func(o *Options) { o.URLs = []string{"mqtt://a", "mqtts://b:1", "ws://c/mqtt", "wss://d"} }, ""},
		{func(o *Options) { o.CAFile, o.CertFile, o.KeyFile = a.file, cert, key }, ""},
		{func(o *Options) { o.URLs = nil }, "broker.urls: no URL"},
		{func(o *Options) { o.URLs = append(o.URLs, "http://x") }, `broker.urls[1]: "http://x": expected tcp://, tls://, ws:// or wss://`},
		{func(o *Options) { o.URLs[0] = "broker.test:8883" }, "broker.urls[0]: "},
		{func(o *Options) { o.URLs[0] = "tls://:8883" }, "broker.urls[0]: \"tls://:8883\": no host"},
		{func(o *Options) { o.URLs[0] = "tls://me:secret@broker" }, "broker.urls[0]: name and password do not belong in the URL"},
		{func(o *Options) { o.URLs[0] = "tls://me:secret@bro ker" }, "broker.urls[0]: not a URL"},
		{func(o *Options) { o.Prefix = "" }, "broker.prefix"},
		{func(o *Options) { o.Prefix = "a/+" }, "broker.prefix"},
		{func(o *Options) { o.Prefix = "/a" }, "broker.prefix"},
		{func(o *Options) { o.CAFile = "/does/not/exist" }, "broker.ca_file: open /does/not/exist"},
		{func(o *Options) { o.CAFile = key }, "no certificate in PEM form"},
		{func(o *Options) { o.CertFile = cert }, "broker.key_file"},
		{func(o *Options) { o.KeyFile = key }, "broker.cert_file"},
		{func(o *Options) { o.CertFile, o.KeyFile = cert, a.file }, "broker.cert_file, broker.key_file"},
		{func(o *Options) { o.Password = "secret" }, "broker.username"},
		{func(o *Options) { o.Proxy = "ftp://me:secret@x" }, "broker.proxy: scheme \"ftp\""},
		{func(o *Options) { o.Proxy = "http://me:secret@x y" }, "broker.proxy: not a URL"},
		{func(o *Options) { o.KeepAlive = time.Millisecond }, "broker.keep_alive"},
	}
	for i, tt := range tests {
		t.Run(strconv.Itoa(i)+" "+tt.want, func(t *testing.T) {
			o := good
			o.URLs = append([]string(nil), good.URLs...)
			tt.change(&o)
			err := o.Check()
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Check returned %v, want %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells the password: %v", err)
			}
			if run := Agent(o, "T1").Run(t.Context(), transporttest.NewRecorder()); run == nil || run.Error() != err.Error() {
				t.Errorf("Run returned %v", run)
			}
		})
	}
	if err := Agent(good, "T/1").Run(t.Context(), nil); err == nil {
		t.Error("Run takes a terminal id that cannot stand in a topic")
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	o := Options{Password: "geheim", Proxy: "http://x:geheim@y"}
	var text bytes.Buffer
	slog.New(slog.NewJSONHandler(&text, nil)).Info("", "options", o, "password", o.Password)
	fmt.Fprintf(&text, "%v %+v %#v %s %q", o, o, o, o.Password, o.Password)
	if strings.Contains(text.String(), "geheim") {
		t.Error(text.String())
	}
}

// parseBroker is the only reader of URLs.
func TestDefaultPorts(t *testing.T) {
	for raw, want := range map[string]string{
		"mqtt://h": "tcp://h:1883", "mqtts://h": "tls://h:8883", "tls://[::1]": "tls://[::1]:8883",
		"ws://h/mqtt": "ws://h:80/mqtt", "wss://h:1/": "wss://h:1/",
	} {
		if u, err := parseBroker(raw); err != nil || u.String() != want {
			t.Errorf("%s: %v, %v, want %s", raw, u, err, want)
		}
	}
	if _, err := parseProxy(Secret((&url.URL{Scheme: "socks5", Host: "h"}).String())); err != nil {
		t.Error(err)
	}
}
