package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// typist is a person who types at the real program, which is a process of its own at
// a terminal.
type typist struct {
	t      *testing.T
	seen   *shown
	screen *os.File
	cmd    *exec.Cmd
	ended  chan struct{} // nothing more is to be seen
}

func newTypist(t *testing.T, args ...string) *typist {
	t.Helper()
	p := &typist{t: t, seen: newShown(t), ended: make(chan struct{}), cmd: agentProcess(args...)}
	var err error
	p.screen, err = pty.Start(p.cmd) // its controlling terminal, for Ctrl-C
	need(t, "pseudo-terminals (/dev/ptmx)", err)
	go func() {
		defer close(p.ended)
		for b := make([]byte, 4096); ; {
			n, err := p.screen.Read(b)
			p.seen.Write(b[:n])
			if err != nil { // EIO: the program has ended
				return
			}
		}
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		<-p.ended
		p.screen.Close()
	})
	return p
}

// after waits for a question, and answers it.
func (p *typist) after(question, answer string) {
	p.t.Helper()
	p.seen.await(question)
	p.types(answer)
}

func (p *typist) types(text string) {
	p.t.Helper()
	if _, err := p.screen.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

// secretAfter is after where what is typed must not be shown: a person looks, and
// types when it is so.
func (p *typist) secretAfter(question, answer string) {
	p.t.Helper()
	p.seen.await(question)
	p.awaitEcho(false)
	p.types(answer)
}

func (p *typist) awaitEcho(want bool) {
	p.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for p.echoes() != want {
		select {
		case <-look.C:
		case <-deadline.C:
			p.t.Fatalf("the echo is not %v within %v", want, patience)
		}
	}
}

// echoes reports whether what is typed is shown.
func (p *typist) echoes() (on bool) {
	conn, err := p.screen.SyscallConn()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := errors.Join(conn.Control(func(fd uintptr) {
		var settings *unix.Termios
		if settings, err = unix.IoctlGetTermios(int(fd), unix.TCGETS); err == nil {
			on = settings.Lflag&unix.ECHO != 0
		}
	}), err); err != nil {
		p.t.Fatal(err)
	}
	return on
}

// exitCode waits for the end.
func (p *typist) exitCode() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("no end within %v in\n%s", patience, p.seen)
	}
	p.cmd.Wait() // the exit code is the outcome
	return p.cmd.ProcessState.ExitCode()
}

// A person at a terminal sets up a store with a terminal on a serial line, which is
// recognised, at its own speed, and does nothing (playingAt checks that).
func TestConfigInitAtATerminal(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.withPTY(l.playingAt("success", 115200))
	file := filepath.Join(l.dir, "etc", "agent.toml")
	p := newTypist(t, "config", "init", "--config", file, "--state-dir", l.stateDir)
	p.after("Where is the terminal?", "/dev/ttyNOTHING\n")
	p.after("want serial:PORT", l.link+"\n")
	p.secretAfter("ZVT password of the terminal", "000000\n")
	p.seen.await("It answers at 115200 baud")
	p.after("Terminal id", "P11223351-T0013\n")
	p.after("Address of the broker", "tcp://broker.example.com\n")
	p.seen.await("User name")
	if !p.echoes() {
		t.Error("the echo has not come back")
	}
	p.types("store-0042\n")
	p.secretAfter("Its password", brokerSecret+"\n")
	p.after("Write it?", "yes\n")
	if code := p.exitCode(); code != exitOK {
		t.Fatalf("exit code %d\n%s", code, p.seen)
	}
	wantInText(t, unfolded(p.seen.String()), "OK port: "+l.link, "OK terminal: ready, ZVT 2.14.15, terminal number (TID)", "(new, with the password)", file+" is written", "terminal-agent doctor")
	content, err := os.ReadFile(file)
	if err != nil || strings.Contains(p.seen.String()+string(content), brokerSecret) || strings.Contains(unfolded(p.seen.String()), "(is not shown) [000000]: 000000") {
		t.Errorf("%v; a secret is to be seen in\n%s\n%s", err, p.seen, content)
	}
	c, err := loadConfig([]string{"--config", file}, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if c.Terminals[0].Link != l.link || c.Terminals[0].Baud != 115200 || c.Broker.Username != "store-0042" {
		t.Errorf("have %+v", c)
	}
	info, err := os.Stat(c.Broker.PasswordFile)
	if err != nil || info.Mode().Perm()&0o027 != 0 {
		t.Errorf("the password's file: %v, %v", info, err)
	}
	if secret, err := os.ReadFile(c.Broker.PasswordFile); err != nil || string(secret) != brokerSecret+"\n" {
		t.Errorf("the password is %q, %v", secret, err)
	}
}

// Ctrl-C ends it, also where a secret is to be typed; the terminal is as it was.
func TestConfigInitInterruptedAtATerminal(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.withPTY(func(_ context.Context, f *os.File) { silentTerminal(f) })
	file := filepath.Join(l.dir, "etc", "agent.toml")
	for _, tt := range []struct {
		at   string
		goes func(p *typist)
	}{
		{"a question", func(p *typist) { p.after("Where is the terminal?", "\x03") }},
		{"a secret", func(p *typist) {
			p.after("Where is the terminal?", l.link+"\n")
			p.secretAfter("ZVT password", "12\x03")
		}},
		{"the look at the terminal", func(p *typist) {
			p.after("Where is the terminal?", l.link+"\n")
			p.secretAfter("ZVT password", "\n")
			p.after("Asking the terminal", "\x03")
		}},
	} {
		p := newTypist(t, "config", "init", "--config", file, "--state-dir", l.stateDir)
		tt.goes(p)
		if code := p.exitCode(); code != exitFailed || !strings.Contains(p.seen.String(), "interrupted; nothing was written") || !p.echoes() {
			t.Errorf("at %s: exit code %d, echo %v\n%s", tt.at, code, p.echoes(), p.seen)
		}
		if _, err := os.Stat(filepath.Dir(file)); err == nil {
			t.Errorf("at %s: something was written", tt.at)
		}
	}
}

// silentTerminal hears everything and says nothing.
func silentTerminal(f *os.File) {
	for b := make([]byte, 256); ; {
		if _, err := f.Read(b); err != nil {
			return
		}
	}
}

// Where nothing is missing, or nothing is to be asked, nothing is, also at a
// terminal.
func TestConfigInitAsksNothing(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "agent.toml")
	p := newTypist(t, "config", "init", "--config", file, "--no-input", "--link", "tcp:192.0.2.10:20007")
	if code := p.exitCode(); code != exitConfig || !strings.Contains(p.seen.String(), "config init: --broker-url is missing") {
		t.Errorf("exit code %d\n%s", code, p.seen)
	}
	p = newTypist(t, initArgs(file)...)
	if code := p.exitCode(); code != exitOK || !strings.Contains(p.seen.String(), file+" is written") {
		t.Errorf("exit code %d\n%s", code, p.seen)
	}
	p = newTypist(t, "config", "init", "--config", file)
	if code := p.exitCode(); code != exitOK || !strings.Contains(p.seen.String(), "stays as it is") {
		t.Errorf("exit code %d\n%s", code, p.seen)
	}
}

// A configuration that is not root's is its owner's alone: who knows what else the
// owner's group is for.
func TestConfigInitWithoutRoot(t *testing.T) {
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(home, 0o777); err != nil { // whatever the umask
		t.Fatal(err)
	}
	file := filepath.Join(home, "agent.toml")
	cmd := processOfNobody(t, dir, initArgs(file)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v", info.Mode())
	}
}
