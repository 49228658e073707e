//go:build !windows

package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func testedSupervisor(*testing.T) supervisor { return systemd{journal: true} }

// asAgent: the test's process is the agent's, with this command line.
const asAgent = "TERMINAL_AGENT_TEST_ARGS"

// longestTemp is how long TMPDIR may be: the path of a socket has at most 107
// characters, of which a test's directory takes up to 70.
const longestTemp = 30

func TestMain(m *testing.M) {
	if args := os.Getenv(asAgent); args != "" {
		os.Args = append(os.Args[:1], strings.Split(args, "\n")...)
		main()
	}
	if len(os.TempDir()) > longestTemp {
		os.Setenv("TMPDIR", "/tmp")
	}
	os.Exit(m.Run())
}

// systemdProcess is the agent as systemd starts it.
type systemdProcess struct {
	*exec.Cmd
	notify *net.UnixConn
	stderr bytes.Buffer
}

func startUnderSystemd(t *testing.T, file string, watchdog time.Duration) *systemdProcess {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { notify.Close() })
	p := &systemdProcess{Cmd: exec.Command(os.Args[0]), notify: notify}
	p.Stderr = &p.stderr
	p.Env = append(os.Environ(), asAgent+"=run\n--service\n--config\n"+file, "NOTIFY_SOCKET="+socket)
	if watchdog > 0 {
		p.Env = append(p.Env, "WATCHDOG_USEC="+strings.TrimSuffix(watchdog.String(), "s")+"000000")
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Process.Kill()
		p.Wait()
	})
	return p
}

// heard returns the next state that the agent tells systemd.
func (p *systemdProcess) heard(t *testing.T) string {
	t.Helper()
	p.notify.SetReadDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 1000)
	n, err := p.notify.Read(b)
	if err != nil {
		t.Fatalf("systemd hears nothing: %v\n%s", err, &p.stderr)
	}
	return string(b[:n])
}

// await skips states until one comes.
func (p *systemdProcess) await(t *testing.T, want string) {
	t.Helper()
	for have := ""; have != want; {
		have = p.heard(t)
	}
}

// The real process, and a systemd that listens: ready, then alive again and
// again, then stopping.
func TestUnderSystemd(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.toml")
	text := strings.Replace(minimal(), stateDir, dir, 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startUnderSystemd(t, file, 3*time.Second)
	if first := p.heard(t); first != "READY=1" {
		t.Fatalf("the first word is %q", first)
	}
	if _, err := os.Stat(filepath.Join(dir, "journal.db")); err != nil {
		t.Error("ready without a journal:", err)
	}
	p.await(t, "WATCHDOG=1")
	p.await(t, "WATCHDOG=1")
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.await(t, "STOPPING=1")
	if err := p.Wait(); err != nil {
		t.Errorf("ended with %v\n%s", err, &p.stderr)
	}
}

// A wrong configuration, and a state directory that another agent has: never
// ready, and the exit code that stops, or does not stop, new starts.
func TestUnderSystemdNotReady(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.toml")
	fails := func(text string, wantCode int, want string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p := startUnderSystemd(t, file, 0)
		p.Wait() // its error is the exit code
		if code := p.ProcessState.ExitCode(); code != wantCode || !strings.Contains(p.stderr.String(), want) {
			t.Errorf("exit code %d, want %d and %q:\n%s", code, wantCode, want, &p.stderr)
		}
		p.notify.SetReadDeadline(time.Now())
		if n, err := p.notify.Read(make([]byte, 1000)); err == nil {
			t.Errorf("systemd heard %d bytes", n)
		}
	}
	good := strings.Replace(minimal(), stateDir, dir, 1)
	fails(strings.Replace(good, "[broker]", "[broken]", 1), exitConfig, "unknown key broken")
	if err := os.WriteFile(file+"2", []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	running := startUnderSystemd(t, file+"2", 0)
	running.await(t, "READY=1")
	fails(good, exitFailed, "in use by another terminal-agent")
}
