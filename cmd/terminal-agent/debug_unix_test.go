//go:build !windows

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"terminalops/agent/control"
	"terminalops/device"
	"terminalops/device/trace"
	"terminalops/transport"
	"terminalops/transport/transporttest/brokers"
)

// shown is what a person sees of a command, as it comes.
type shown struct {
	t    *testing.T
	mu   sync.Mutex
	text bytes.Buffer
	news chan struct{} // capacity 1
}

func newShown(t *testing.T) *shown { return &shown{t: t, news: make(chan struct{}, 1)} }

func (s *shown) Write(p []byte) (int, error) {
	s.mu.Lock()
	s.text.Write(p)
	s.mu.Unlock()
	select {
	case s.news <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (s *shown) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until something is there to be seen.
func (s *shown) await(text string) {
	s.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for !strings.Contains(s.String(), text) {
		select {
		case <-s.news:
		case <-timeout.C:
			s.t.Fatalf("no %q within %v in\n%s", text, patience, s)
		}
	}
}

// onePC is a terminal, a cloud, and the configuration of an agent for both.
func onePC(t *testing.T) (terminal *simulated, cloud *cloud, config string) {
	t.Helper()
	return onePCBy(t, nil)
}

// onePCBy is onePC with a terminal that has a clock of its own.
func onePCBy(t *testing.T, clock func() time.Time) (terminal *simulated, cloud *cloud, config string) {
	t.Helper()
	terminal, broker, dir := newSimulated(t, clock), brokers.StartNATS(t), t.TempDir()
	config = filepath.Join(dir, "agent.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `state_dir = %q
[broker]
urls = ["tcp://%s"]
[[terminal]]
id = "T1"
protocol = "zvt"
link = "tcp:%s"
`, filepath.Join(dir, "state"), broker, terminal.address), 0o600); err != nil {
		t.Fatal(err)
	}
	return terminal, newCloud(t, broker), config
}

// types runs a command until stop is called, which returns its exit code.
func types(t *testing.T, args ...string) (seen *shown, stop func() int) {
	t.Helper()
	seen = newShown(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, args, seen, seen, noEnv) }()
	stop = sync.OnceValue(func() int {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { stop() })
	return seen, stop
}

func endOfDay(id string) []byte {
	return transport.Encode(transport.Command{
		OperationID: id, TerminalID: "T1", Operation: string(device.EndOfDay),
		IssuedAt: transport.At(time.Now()), ExpiresAt: transport.At(time.Now().Add(time.Minute)),
	})
}

// wantInOrder checks that texts are in a text, one behind the other.
func wantInOrder(t *testing.T, text string, want ...string) {
	t.Helper()
	rest := text
	for _, w := range want {
		_, after, found := strings.Cut(rest, w)
		if !found {
			t.Fatalf("no %q behind what comes before it in\n%s", w, text)
		}
		rest = after
	}
}

// anEndOfDay is what there is to see of one.
var anEndOfDay = []string{
	"T1  from cloud  command end_of_day cloud-1, starts until ",
	"T1  journal     end_of_day cloud-1 accepted\n",
	"T1  line        link opened\n",
	"T1  ECR → PT    06 00 registration: password ••••••",
	"T1  journal     end_of_day cloud-1 started\n",
	"T1  ECR → PT    06 50 end-of-day: password ••••••\n",
	" 06 50 03|•• •• ••",
	"T1  journal     end_of_day cloud-1 evidence: totals\n",
	"T1  PT → ECR    06 D3 print text-block: \"Kassenschnitt\" ",
	"T1  PT → ECR    06 0F completion\n",
	"T1  journal     end_of_day cloud-1 finished: COMPLETED\n",
	"T1  to cloud    report COMPLETED end_of_day cloud-1 (done) {",
	"T1  journal     end_of_day cloud-1 the broker has its final report\n",
}

// Where no agent runs, debug is one: everything it does can be seen, until it has
// ended; and what was captured tells the same.
func TestDebugIsTheAgent(t *testing.T) {
	t.Parallel()
	terminal, cloud, config := onePC(t)
	capture := filepath.Join(t.TempDir(), "capture.txt")
	seen, stop := types(t, "debug", "--config", config, "--capture", capture)
	cloud.await("a hello", func() bool { return len(cloud.hellos) > 0 })
	cloud.send(transport.Commands, endOfDay("cloud-1"))
	seen.await("cloud-1 the broker has its final report\n")
	if code := stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	wantInOrder(t, seen.String(), append(append([]string{"log         INFO started "}, anEndOfDay...), "log         INFO stopping ", "T1  to cloud    presence offline", "log         INFO stopped\n")...)
	terminal.check(t, 1)
	code, decoded := output("decode", capture)
	var inCapture []string
	for _, want := range anEndOfDay {
		inCapture = append(inCapture, strings.TrimPrefix(strings.TrimSuffix(want, "\n"), "T1  "))
	}
	wantInOrder(t, decoded, inCapture...)
	if code != exitOK {
		t.Errorf("decode: exit code %d", code)
	}
	if mode, err := os.Stat(capture); err != nil || mode.Mode().Perm() != 0o600 {
		t.Errorf("the capture: %v, %v", mode, err)
	}
}

// Where the agent runs, debug looks on: it shows what has happened before, what
// happens, that the agent ends, and what the next one does. It changes nothing.
func TestDebugLooksOn(t *testing.T) {
	t.Parallel()
	terminal, cloud, config := onePC(t)
	begin := func() *exec.Cmd {
		cmd := agentProcess("run", "--config", config)
		cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill() // an error: it has ended
			cmd.Wait()
		})
		return cmd
	}
	first := begin()
	cloud.await("a hello", func() bool { return len(cloud.hellos) == 1 })
	cloud.send(transport.Commands, endOfDay("cloud-1"))
	cloud.awaitFinal("cloud-1")

	seen, stop := types(t, "debug", "--config", config, "--terminal", "T1")
	seen.await("cloud-1 the broker has its final report\n")
	cloud.send(transport.Commands, endOfDay("cloud-2"))
	seen.await("cloud-2 the broker has its final report\n")
	if err := first.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	seen.await("log         debug: the agent has gone away; waiting for the next one\n")
	if err := first.Wait(); err != nil {
		t.Error(err)
	}
	begin()
	seen.await("log         debug: an agent runs again\n")
	cloud.await("a hello", func() bool { return len(cloud.hellos) == 2 })
	seen.await("welcome ") // of the first
	if code := stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if n := strings.Count(seen.String(), "cloud-2 accepted\n"); n != 1 {
		t.Errorf("an event is shown %d times", n)
	}
	terminal.check(t, 2)
	if n := cloud.greeted(); n != 2 {
		t.Errorf("%d hellos: an agent was disturbed", n)
	}
}

// A second interrupt ends what takes its time to end.
func TestSecondInterrupt(t *testing.T) {
	t.Parallel()
	l := newLab(t).withBroker().withTerminal("mute")
	seen := newShown(t)
	cmd := agentProcess("run", "--config", l.config())
	cmd.Stderr = seen
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait() // how it has ended is its state
	}()
	t.Cleanup(func() {
		cmd.Process.Kill() // an error: it has ended
		<-ended
	})
	seen.await("msg=connected ")
	if _, err := (&control.Client{StateDir: l.stateDir}).Submit(t.Context(), l.id, string(device.EndOfDay), "anna"); err != nil {
		t.Fatal(err)
	}
	seen.await("msg=started terminal=")
	cmd.Process.Signal(os.Interrupt) // an error: it has ended
	seen.await("msg=stopping ")
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for over := false; !over; {
		cmd.Process.Signal(os.Interrupt) // an error: it has ended
		select {
		case <-again.C: // it may not have let go of the first yet
		case <-ended:
			over = true
		}
	}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Errorf("%v", cmd.ProcessState)
	}
}

// What cannot be shown is said, before anything starts.
func TestDebugSays(t *testing.T) {
	t.Parallel()
	_, cloud, config := onePC(t)
	taken := filepath.Join(t.TempDir(), "taken")
	if err := os.WriteFile(taken, []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--config", filepath.Join(t.TempDir(), "none.toml")}, exitConfig, "none.toml: no such file"},
		{[]string{"--config", config, "--capture", taken}, exitFailed, "taken: file exists; give it another name"},
		{[]string{"--config", config, "--capture", filepath.Join(taken, "x")}, exitFailed, "capture: "},
		{[]string{"--config", config, "more"}, exitConfig, `unexpected argument "more"`},
		{[]string{"--config", config, "--terminal", "T9"}, exitConfig, `unknown terminal "T9"; this agent has T1`},
	} {
		if code, out := output(append([]string{"debug"}, tt.args...)...); code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("%q: exit code %d, want %d; %s", tt.args, code, tt.code, out)
		}
	}
	if content, err := os.ReadFile(taken); string(content) != "dear" {
		t.Errorf("the other file: %q, %v", content, err)
	}
	seen, _ := types(t, "debug", "--config", config)
	seen.await("welcome ")
	if code, out := output("debug", "--config", config, "--terminal", "T9"); code != exitConfig || !strings.Contains(out, `unknown terminal "T9"; this agent has T1`) {
		t.Errorf("beside an agent: exit code %d; %s", code, out)
	}
	if n := cloud.greeted(); n != 1 {
		t.Errorf("%d hellos: agents have begun", n)
	}
}

// full is a disk with room for the beginning of a capture.
type full struct{ begun bool }

func (f *full) Write(p []byte) (int, error) {
	if f.begun {
		return 0, syscall.ENOSPC
	}
	f.begun = true
	return len(p), nil
}

// A capture that cannot be written any more is said, and the looking on goes on.
func TestDebugCaptureEnds(t *testing.T) {
	capture, err := trace.NewWriter(new(full), trace.Header{})
	if err != nil {
		t.Fatal(err)
	}
	o := onlooker{events: make(chan trace.Event, 3), capture: capture}
	for _, words := range []string{"one", "two"} {
		if err := o.pass(t.Context(), trace.Event{Meaning: words}); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"debug: the capture ends here: no space left on device", "one", "two"} {
		if got := (<-o.events).Meaning; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// agentProcess is the agent in a process of its own.
func agentProcess(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asAgent+"="+strings.Join(args, "\n"))
	return cmd
}
