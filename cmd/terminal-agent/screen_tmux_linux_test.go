package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"terminalops/cmd/internal/texttest"
	"terminalops/device/zvt/zvttest"
	"terminalops/transport"
)

// The screen as a person has it: the real program in the window of a terminal
// emulator, which is tmux, with keys that are pressed.

// tmux is a window of 100 columns and 30 rows.
type tmux struct {
	t      *testing.T
	socket string
	dir    string // the program's current directory
}

// newTmux runs `terminal-agent` in a window.
func newTmux(t *testing.T, env []string, args ...string) *tmux {
	t.Helper()
	_, err := exec.LookPath("tmux")
	need(t, "tmux", err)
	w := &tmux{t: t, dir: t.TempDir()}
	w.socket = filepath.Join(w.dir, "tmux")
	config := filepath.Join(w.dir, "tmux.conf")
	if err := os.WriteFile(config, []byte("set -g status off\nset -g escape-time 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tmux", slices.Concat([]string{"-u", "-S", w.socket, "-f", config, "new-session", "-d", "-x", "100", "-y", "30", "-c", w.dir, "sh", "-c", `trap : INT; "$@"; echo "exit code $?"; exec cat`, "sh", "env"}, env, os.Args[:1])...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TMUX=", "SUDO_USER=anna", asAgent+"="+strings.Join(args, "\n"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tmux: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("tmux", "-S", w.socket, "kill-server").Run() }) // an error: it has ended
	return w
}

// tell has tmux do something, and returns what it says.
func (w *tmux) tell(args ...string) string {
	w.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-u", "-S", w.socket}, args...)...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("tmux %q: %v: %s", args, err, out)
	}
	return string(out)
}

// press presses a key, by tmux's name.
func (w *tmux) press(key string) {
	w.t.Helper()
	w.tell("send-keys", key)
}

// sees is what can be seen in the window.
func (w *tmux) sees() string {
	w.t.Helper()
	return w.tell("capture-pane", "-p")
}

// await looks until all of this can be seen.
func (w *tmux) await(texts ...string) string {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		screen, missing := w.sees(), ""
		for _, text := range texts {
			if !strings.Contains(screen, text) {
				missing = text
			}
		}
		if missing == "" {
			return screen
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("no %q within %v in\n%s", missing, patience, screen)
		}
		w.rest()
	}
}

// keep waits until what can be seen, with all of these texts, is what is kept.
func (w *tmux) keep(name string, texts ...string) {
	w.t.Helper()
	name = "screen/tmux-" + name
	screen := asKept(w.await(texts...))
	want, err := os.ReadFile(filepath.Join("testdata", filepath.FromSlash(name)+".txt"))
	const looks = 250 // in which it has to become so, or, for -update, to come to rest
	for range looks {
		if err == nil && screen == string(want) && !*update {
			return
		}
		w.rest()
		screen = asKept(w.sees())
	}
	golden(w.t, name, screen)
}

// rest is a moment: tmux does not tell when something changes.
func (w *tmux) rest() { <-time.After(20 * time.Millisecond) }

// runDifferences are what differs from run to run besides times. What stands for
// them is as wide.
var runDifferences = []struct{ pattern, becomes string }{
	{`(09:00:00)\.000 [ +\-0-9]{4}\.\d{3}`, "${1}.000   +0.000"},
	{`\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`, "00000000-0000-4000-8000-000000000000"},
	{`(tcp:127\.0\.0\.1:)\d+`, "${1}20007"},
	{`(?m)^terminal-agent (\S+)`, "terminal-agent 1.2.0"},
	{`(end_of_day|open_menu), [0-9ms]+:`, "${1}, 4s:"},
	{`paused: \d+ new`, "paused: 0 new"},
	{`(the cloud's), .* this PC's.*`, "$1, and this PC's is the same"},
}

func asKept(screen string) string {
	screen = texttest.FixTimes(screen)
	for _, d := range runDifferences {
		screen = regexp.MustCompile(d.pattern).ReplaceAllString(screen, d.becomes)
	}
	title, rest, _ := strings.Cut(screen, "\n")
	title = strings.TrimRight(strings.TrimSuffix(title, "09:00:00"), " ")
	return fmt.Sprintf("%-92s09:00:00\n%s", title, rest)
}

// clock1020 is the terminal's: it stands on the receipt.
func clock1020() time.Time { return time.Date(2026, 6, 29, 10, 20, 30, 0, time.Local) }

// maskedCard is the card of the receipt.
const maskedCard = "4111 11** **** 1111"

// A key runs an end of day, in an agent that is the screen's own: first how it goes
// on, while the terminal waits for its printer, then how it has ended.
func TestScreenIsTheAgent(t *testing.T) {
	t.Parallel()
	terminal, cloud, config := onePCBy(t, clock1020)
	if err := terminal.Play("success", "jam"); err != nil {
		t.Fatal(err)
	}
	w := newTmux(t, nil, "debug", "--config", config)
	cloud.await("a hello", func() bool { return len(cloud.hellos) > 0 })
	w.await("this is the agent", "cloud     connected", "clock     the cloud's", "welcome ")
	w.press("f")
	w.await("── the line ──")
	w.press("e")
	w.await(" End of day on T1, now? y/n")
	if n := len(terminal.Did(zvttest.EndOfDay)); n != 0 {
		t.Fatalf("%d ends of day before anybody said yes", n)
	}
	w.press("y")
	w.await("end_of_day is asked for: ")
	w.press("Escape")
	w.keep("progress", "at work   end_of_day, ", "s: Papierstau", "PT → ECR    04 FF intermediate status: ", "Drucker prüfen", "e end of day  l send logs")
	if err := terminal.Play("success"); err != nil {
		t.Fatal(err)
	}
	w.await("last      ", "end_of_day COMPLETED", "line        link closed", "at work   nothing")
	w.press("p")
	w.keep("completed", "── the line, paused ──", "paused: ", maskedCard)
	w.press("p")
	w.await("── the line ──")
	w.press("q")
	w.await(" The agent ends, too. End? y/n")
	w.press("y")
	w.await("presence offline")
	w.ends(0)
	terminal.check(t, 1)
	cloud.await("the final report", func() bool {
		for _, state := range cloud.finals {
			return state == transport.StateCompleted
		}
		return false
	})
}

// ends waits for the end of the program, and that it has left the window as it was.
func (w *tmux) ends(code int) {
	w.t.Helper()
	w.await(fmt.Sprint("exit code ", code))
	if flags := w.tell("display-message", "-p", "#{alternate_on} #{cursor_flag} #{wrap_flag}"); flags != "0 1 1\n" {
		w.t.Errorf("the other screen, cursor and wrapping are %s", flags)
	}
	w.press("echoes")
	w.await("\nechoes")
}

// The screen looks on: what the cloud asks for goes its way, a key has the menu
// opened, a capture is saved; the agent may go and come back, and the screen goes
// without it.
func TestScreenLooksOn(t *testing.T) {
	t.Parallel()
	terminal, cloud, config := onePCBy(t, clock1020)
	if err := terminal.Play("success", "jam"); err != nil {
		t.Fatal(err)
	}
	first := agentProcess("run", "--config", config)
	start := func(cmd *exec.Cmd) {
		t.Helper()
		cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Signal(os.Interrupt) // an error: it has ended
			cmd.Wait()
		})
	}
	start(first)
	cloud.await("a hello", func() bool { return len(cloud.hellos) == 1 })
	w := newTmux(t, []string{"NO_COLOR=1"}, "debug", "--config", config)
	w.await("looking on: the service runs", "cloud     connected", "clock     the cloud's")
	w.press("f")
	w.await("── the line ──")
	cloud.send(transport.Commands, endOfDay("cloud-1"))
	w.keep("looks-on", "at work   end_of_day, ", "s: Papierstau", "Drucker prüfen", "q quit")

	w.tell("resize-window", "-x", "80", "-y", "24")
	w.await("e end of day  l logs  u update  m menu")
	w.tell("resize-window", "-x", "50", "-y", "12")
	w.await("This window is 50 x 12; 60 x 18 are needed.")
	w.tell("resize-window", "-x", "100", "-y", "30")
	w.await("e end of day  l send logs")

	if err := terminal.Play("success"); err != nil {
		t.Fatal(err)
	}
	w.await("end_of_day COMPLETED, cloud-1", "line        link closed")
	w.press("m")
	w.await(" Open the menu on T1, now? y/n")
	w.press("y")
	w.await("open_menu COMPLETED")
	w.press("s")
	w.await("events saved in terminal-agent-")
	w.captured()

	if err := errors.Join(first.Process.Signal(os.Interrupt), first.Wait()); err != nil {
		t.Fatal(err)
	}
	w.await("looking on: waiting for an agent", "agent     no agent runs")
	second := agentProcess("run", "--config", config)
	start(second)
	w.await("looking on: the service runs", "open_menu COMPLETED")
	w.press("q")
	w.ends(0)
	if err := second.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the agent is gone, too: %v", err)
	}
	terminal.check(t, 1)
	if n := len(terminal.Did(zvttest.Menu)); n != 1 {
		t.Errorf("the menu was opened %d times", n)
	}
}

// captured wants the one capture to tell of all that happened.
func (w *tmux) captured() {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.dir, "terminal-agent-*.capture"))
	if err != nil || len(files) != 1 {
		w.t.Fatalf("captures: %q, %v", files, err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		w.t.Errorf("%v, %v", info.Mode(), err)
	}
	code, decoded := output("decode", files[0])
	if code != exitOK {
		w.t.Errorf("decode: exit code %d", code)
	}
	wantInOrder(w.t, decoded, "end_of_day cloud-1 started", "06 50 end-of-day", maskedCard, "08 01", "open_menu")
}

// The window goes, with the word of it (SIGHUP) or without, as under nohup: an agent
// that is the screen's own says goodbye, and ends.
func TestScreenWindowGoes(t *testing.T) {
	t.Parallel()
	for _, trap := range []string{"", "trap '' HUP; "} {
		t.Run(trap, func(t *testing.T) {
			t.Parallel()
			_, cloud, config := onePC(t)
			cmd := exec.Command("sh", "-c", trap+`exec "$0"`, os.Args[0])
			cmd.Env = append(agentProcess("debug", "--config", config).Env, "TERM=xterm")
			window, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 30, Cols: 100})
			need(t, "pseudo-terminals (/dev/ptmx)", err)
			ended := make(chan struct{})
			go func() { cmd.Wait(); close(ended) }() // killed at the end, if need be
			defer func() { cmd.Process.Kill(); <-ended }()
			for shown, b := "", make([]byte, 4096); !strings.Contains(shown, "welcome"); {
				n, err := window.Read(b)
				if err != nil {
					t.Fatalf("%v after %q", err, shown)
				}
				shown += string(b[:n])
			}
			window.Close()
			select {
			case <-ended:
			case <-time.After(patience):
				t.Fatal("it does not end")
			}
			cloud.await("its goodbye", func() bool { return cloud.gone })
		})
	}
}

// Who has no terminal, or wants none, gets lines.
func TestDebugPlain(t *testing.T) {
	t.Parallel()
	_, _, config := onePC(t)
	for _, tt := range []struct {
		env  []string
		args []string
	}{
		{nil, []string{"debug", "--plain", "--config", config}},
		{[]string{"TERM=dumb"}, []string{"debug", "--config", config}},
	} {
		w := newTmux(t, tt.env, tt.args...)
		w.await("log         INFO started ", "from cloud  welcome ")
		if screen := w.sees(); strings.Contains(screen, "q quit") {
			t.Errorf("%q shows a screen:\n%s", tt.args, screen)
		}
		w.press("C-c")
		w.ends(0)
	}
}
