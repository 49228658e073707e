package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	bolt "go.etcd.io/bbolt"

	"terminalops/device/zvt/zvttest"
	"terminalops/transport"
	"terminalops/transport/mqtt"
	"terminalops/transport/transporttest/brokers"
)

// The benchmarks print each figure of the agent next to that of a bare program
// (testdata/echo), measured in the same run.

const benchID = "P11223351-T0013"

// programs builds the agent and the echo as they are released.
func programs(b *testing.B) (agent, echo string) {
	b.Helper()
	dir := b.TempDir()
	for name, source := range map[string]string{"agent": "../terminal-agent", "echo": "./testdata/echo"} {
		build := exec.Command("go", "build", "-trimpath", "-gcflags=all=-l", "-tags=nethttpomithttp2", "-ldflags", "-s -w", "-o", filepath.Join(dir, name), source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			b.Fatalf("build %s: %v\n%s", source, err, out)
		}
	}
	return filepath.Join(dir, "agent"), filepath.Join(dir, "echo")
}

// start runs a program until the benchmark ends.
func start(b *testing.B, name string, args ...string) *os.Process {
	b.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process
}

// writeConfig writes a configuration for the agent and returns its name.
func writeConfig(b *testing.B, url, extra, link string) string {
	b.Helper()
	dir := b.TempDir()
	path := filepath.Join(dir, "agent.toml")
	text := fmt.Sprintf("state_dir = %q\nlog_level = \"error\"\n[broker]\nurls = [%q]\n%s\n[[terminal]]\nid = %q\nprotocol = \"zvt\"\nlink = %q\n", dir, url, extra, benchID, link)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// cloud is the dispatcher's end: it welcomes, and keeps what comes back.
type cloud struct {
	sender  chan transport.Sender
	mu      sync.Mutex
	current transport.Sender
	answers chan answer
}

// answer is a message on reports, and when it came.
type answer struct {
	at      time.Time
	payload []byte
}

func (c *cloud) Connecting() []byte { return nil }

func (c *cloud) Connected(ctx context.Context, s transport.Sender) {
	c.mu.Lock()
	c.current = s
	c.mu.Unlock()
	c.sender <- s
	<-ctx.Done()
}

func (c *cloud) Receive(ctx context.Context, m transport.Message) error {
	at := time.Now()
	switch m.Kind {
	case transport.Hello:
		h, err := transport.DecodeHello(m.Payload)
		if err != nil {
			return nil
		}
		c.mu.Lock()
		s := c.current
		c.mu.Unlock()
		go s.Send(ctx, m.TerminalID, transport.Welcome, transport.Encode(transport.WelcomeMessage{Nonce: h.Nonce, ServerTime: transport.At(time.Now())}))
	case transport.Reports:
		c.answers <- answer{at, m.Payload}
	}
	return nil
}

// newCloud connects a cloud and returns it with its sender.
func newCloud(b *testing.B, o mqtt.Options) (*cloud, transport.Sender) {
	b.Helper()
	c := &cloud{sender: make(chan transport.Sender, 16), answers: make(chan answer, 1024)}
	o.Logger = slog.New(slog.DiscardHandler)
	o.Prefix = "terminals"
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := mqtt.Cloud(o, "bench").Run(ctx, c); err != nil {
			b.Error(err)
		}
	}()
	b.Cleanup(func() {
		cancel()
		<-done
	})
	return c, <-c.sender
}

// await waits for an answer that holds text.
func (c *cloud) await(b *testing.B, text string) answer {
	b.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case a := <-c.answers:
			if strings.Contains(string(a.payload), text) {
				return a
			}
		case <-timeout:
			b.Fatalf("no report with %s", text)
		}
	}
}

func command(id string) []byte {
	now := time.Now()
	return transport.Encode(transport.Command{
		OperationID: id, TerminalID: benchID, Operation: "open_menu",
		IssuedAt: transport.At(now), ExpiresAt: transport.At(now.Add(time.Minute)),
	})
}

// simulated is a simulated terminal on TCP that notes when it heard the first
// byte of a connection and when it said the last one.
type simulated struct {
	address string
	mu      sync.Mutex
	first   time.Time
	last    time.Time
}

func newTerminal(b *testing.B) *simulated {
	b.Helper()
	sim, err := zvttest.New(zvttest.Options{Fast: true})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	t := &simulated{address: l.Addr().String()}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			sim.ServeTCP(context.Background(), &timedConn{Conn: conn, terminal: t})
		}
	}()
	return t
}

// timedConn is one connection to a terminal.
type timedConn struct {
	net.Conn
	terminal *simulated
	heard    bool
}

func (c *timedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.heard {
		c.heard = true
		c.terminal.mu.Lock()
		c.terminal.first = time.Now()
		c.terminal.mu.Unlock()
	}
	return n, err
}

func (c *timedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.terminal.mu.Lock()
	c.terminal.last = time.Now()
	c.terminal.mu.Unlock()
	return n, err
}

// BenchmarkFootprint: size, idle memory and CPU over mutual TLS, and the time
// from the start to the first answered command.
func BenchmarkFootprint(b *testing.B) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		b.Skip("memory and CPU of a process are read from /proc")
	}
	agent, echo := programs(b)
	report(b, "size-MB", float64(size(b, agent))/1e6, float64(size(b, echo))/1e6)

	pki := newPKI(b)
	url := "tls://" + brokers.StartNATS(b, func(o *server.Options) {
		o.MQTT.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pki.server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pki.pool}
	})
	c, sender := newCloud(b, mqtt.Options{URLs: []string{url}, CAFile: pki.ca, CertFile: pki.cert, KeyFile: pki.key})
	config := writeConfig(b, url, fmt.Sprintf("ca_file = %q\ncert_file = %q\nkey_file = %q", pki.ca, pki.cert, pki.key), "tcp:"+newTerminal(b).address)

	began := time.Now()
	floor := start(b, echo, url, "echo", pki.ca, pki.cert, pki.key)
	echoed := firstAnswer(b, c, sender, "echo", began)
	began = time.Now()
	process := start(b, agent, "run", "--config", config)
	answered := firstAnswer(b, c, sender, benchID, began)
	report(b, "start-ms", answered.Seconds()*1e3, echoed.Seconds()*1e3)

	const idle = 30 * time.Second
	time.Sleep(5 * time.Second) // past the second hello's preparations
	agentBefore, echoBefore := cpu(b, process.Pid), cpu(b, floor.Pid)
	time.Sleep(idle)
	perMinute := float64(time.Minute / idle)
	report(b, "idle-cpu-ms/min", perMinute*(cpu(b, process.Pid)-agentBefore).Seconds()*1e3, perMinute*(cpu(b, floor.Pid)-echoBefore).Seconds()*1e3)
	report(b, "idle-rss-MB", rss(b, process.Pid), rss(b, floor.Pid))
}

// firstAnswer publishes commands until one is answered: before the first
// connection there is no session to keep them.
func firstAnswer(b *testing.B, c *cloud, sender transport.Sender, id string, began time.Time) time.Duration {
	b.Helper()
	for n := 0; ; n++ {
		if time.Since(began) > time.Minute {
			b.Fatalf("%s does not answer", id)
		}
		text := fmt.Sprintf("first-%s-%d", id, n)
		payload := command(text)
		if err := sender.Send(context.Background(), id, transport.Commands, payload); err != nil {
			b.Fatal(err)
		}
		select {
		case a := <-c.answers:
			return a.at.Sub(began)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// BenchmarkLatency: 200 open_menu, from the command to the first byte on the
// line and from the last byte to the report, against an echo plus as many
// synced commits of the same journal library. Mosquitto where there is one.
func BenchmarkLatency(b *testing.B) {
	const n = 200
	agent, echo := programs(b)
	address := ""
	if _, err := exec.LookPath("mosquitto"); err == nil {
		address = brokers.StartMosquitto(b).Address
	} else {
		address = brokers.StartNATS(b)
	}
	url := "tcp://" + address
	c, sender := newCloud(b, mqtt.Options{URLs: []string{url}})
	t := newTerminal(b)
	start(b, echo, url, "echo")
	start(b, agent, "run", "--config", writeConfig(b, url, "", "tcp:"+t.address))
	firstAnswer(b, c, sender, "echo", time.Now())
	firstAnswer(b, c, sender, benchID, time.Now())
	c.await(b, "COMPLETED")

	var echoes, commits, toLine, toReport []time.Duration
	commit := committer(b)
	for i := range n { // side by side, so that the machine's moods hit both
		id := fmt.Sprint("op-", i)
		began := time.Now()
		send(b, sender, "echo", command(id))
		echoes = append(echoes, c.await(b, id).at.Sub(began))

		began = time.Now()
		commit()
		commits = append(commits, time.Since(began))

		began = time.Now()
		send(b, sender, benchID, command(id))
		final := c.await(b, `"state":"COMPLETED"`)
		t.mu.Lock()
		toLine = append(toLine, t.first.Sub(began))
		toReport = append(toReport, final.at.Sub(t.last))
		t.mu.Unlock()
	}
	// One commit before the first byte (accepted). After the terminal's last
	// byte, two: its evidence, and the final report.
	const commitsOnTheWay = 3
	floor := p50(echoes) + commitsOnTheWay*p50(commits)
	us := p50(toLine) + p50(toReport)
	b.ReportMetric(us.Seconds()*1e3, "agent-ms")
	b.ReportMetric(floor.Seconds()*1e3, "floor-ms")
	b.ReportMetric(float64(us)/float64(floor), "ratio")
	b.ReportMetric(p50(toLine).Seconds()*1e3, "to-line-ms")
	b.ReportMetric(p50(toReport).Seconds()*1e3, "to-report-ms")
	b.ReportMetric(p50(echoes).Seconds()*1e3, "echo-ms")
	b.ReportMetric(p50(commits).Seconds()*1e3, "commit-ms")
	b.ReportMetric(0, "ns/op")
}

// send does not wait for the PUBACK, so that it is not on the way.
func send(b *testing.B, s transport.Sender, id string, payload []byte) {
	go func() {
		if err := s.Send(context.Background(), id, transport.Commands, payload); err != nil {
			b.Error(err)
		}
	}()
}

// committer returns a synced commit of the size of a journal entry, with the
// agent's settings.
func committer(b *testing.B) func() {
	db, err := bolt.Open(filepath.Join(b.TempDir(), "floor.db"), 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType, NoFreelistSync: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	value, n := make([]byte, 400), 0
	return func() {
		n++
		if err := db.Update(func(tx *bolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists([]byte("entries"))
			if err != nil {
				return err
			}
			return bucket.Put([]byte(fmt.Sprintf("%08d", n)), value)
		}); err != nil {
			b.Fatal(err)
		}
	}
}

// report prints a figure, its floor, and their ratio.
func report(b *testing.B, name string, agent, echo float64) {
	b.ReportMetric(agent, "agent-"+name)
	b.ReportMetric(echo, "echo-"+name)
	b.ReportMetric(0, "ns/op")
}

func p50(all []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

func size(b *testing.B, path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	return info.Size()
}

// rss is the resident memory of a process, in MB.
func rss(b *testing.B, pid int) float64 {
	for _, line := range strings.Split(proc(b, pid, "status"), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmRSS:" {
			kB, _ := strconv.ParseFloat(fields[1], 64)
			return kB * 1024 / 1e6
		}
	}
	b.Fatal("no VmRSS")
	return 0
}

// cpu is the processor time of a process so far.
func cpu(b *testing.B, pid int) time.Duration {
	var sum int64
	// The kernel's accounting in nanoseconds, thread by thread: the ticks of
	// /proc/PID/stat are too coarse for a program that idles.
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, task := range tasks {
		content, err := os.ReadFile(task)
		if err != nil {
			continue // a thread that has just ended
		}
		ns, _ := strconv.ParseInt(strings.Fields(string(content))[0], 10, 64)
		sum += ns
	}
	if sum == 0 {
		b.Fatal("no schedstat")
	}
	return time.Duration(sum)
}

func proc(b *testing.B, pid int, file string) string {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		b.Fatal(err)
	}
	return string(content)
}

// pki is an authority with one certificate for the broker and one for clients.
type pki struct {
	ca, cert, key string // files
	pool          *x509.CertPool
	server        tls.Certificate
}

func newPKI(b *testing.B) pki {
	b.Helper()
	dir := b.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		b.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	p := pki{ca: filepath.Join(dir, "ca.pem"), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"), pool: x509.NewCertPool()}
	for path, content := range map[string][]byte{p.ca: certPEM, p.cert: certPEM, p.key: keyPEM} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	p.pool.AppendCertsFromPEM(certPEM)
	if p.server, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		b.Fatal(err)
	}
	return p
}
