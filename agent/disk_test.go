package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

const stateDirOfChild = "TERMINALOPS_TEST_STATE"

// TestMain lets a child of a test be an agent in a state directory: it says
// that it starts, then whether it could, and stays until its input ends.
func TestMain(m *testing.M) {
	dir := os.Getenv(stateDirOfChild)
	if dir == "" {
		os.Exit(m.Run())
	}
	fmt.Println("starting")
	a, err := New(Options{StateDir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("started")
	io.Copy(io.Discard, os.Stdin)
	a.Close()
}

// child is another process with an agent.
type child struct {
	*exec.Cmd
	stdin io.Closer
	said  *bufio.Scanner
}

func startChild(t *testing.T, ctx context.Context, dir string) *child {
	t.Helper()
	c := &child{Cmd: exec.CommandContext(ctx, os.Args[0])}
	c.Env = append(os.Environ(), stateDirOfChild+"="+dir)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin, c.said = in, bufio.NewScanner(out)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.stdin.Close()
		c.Wait()
	})
	return c
}

// says returns the next line of the child; "" if it has ended.
func (c *child) says() string {
	if !c.said.Scan() {
		return ""
	}
	return c.said.Text()
}

func wantInUse(t *testing.T, err error, dir string, pid int) {
	t.Helper()
	if want := inUseBy(dir, pid); !errors.Is(err, ErrInUse) || err.Error() != want {
		t.Errorf("have %v, want %s", err, want)
	}
}

func inUseBy(dir string, pid int) string {
	return fmt.Sprintf("state directory %s is in use by another terminal-agent (process %d)", dir, pid)
}

// A state directory has one agent, in one process or in two, whoever was first
// and however the first one ends.
func TestStateDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	first, err := New(Options{StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(Options{StateDir: dir})
	wantInUse(t, err, dir, os.Getpid())
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	c := startChild(t, t.Context(), dir)
	if c.says(); c.says() != "started" {
		t.Fatal("the child does not start in a directory that was given free")
	}
	_, err = New(Options{StateDir: dir})
	wantInUse(t, err, dir, c.Process.Pid)
	c.Process.Kill()
	c.Wait()
	third, err := New(Options{StateDir: dir})
	if err != nil {
		t.Fatal("after the child was killed:", err)
	}
	third.Close()
}

// A second agent, however often it is killed and started again, touches nothing
// of the one that runs. (It once counted its attempts to open the journal, and
// at the third took that for damaged.)
func TestSecondAgentIsKilledAgainAndAgain(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir)
	if err := j.add(newEntry("a")); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	for range 2 {
		ctx, kill := context.WithCancel(t.Context())
		c := startChild(t, ctx, dir)
		if said := c.says(); said != "starting" {
			t.Fatalf("the child says %q", said)
		}
		time.AfterFunc(300*time.Millisecond, kill) // in the middle of its start
		// If we are late, it has come to its end.
		if said := c.says(); said != "" && said != inUseBy(dir, os.Getpid()) {
			t.Fatalf("the child says %q before it is killed", said)
		}
		kill()
	}
	c := startChild(t, t.Context(), dir)
	c.says()
	if said, want := c.says(), inUseBy(dir, os.Getpid()); said != want {
		t.Errorf("the third one says %q, want %q", said, want)
	}
	after := contents(t, dir)
	if len(after) != len(before) || after[journalFile] != before[journalFile] {
		t.Errorf("the second agent has changed something: %d files, there were %d", len(after), len(before))
	}
	if err := errors.Join(j.add(newEntry("b")), j.close()); err != nil {
		t.Fatal(err)
	}
	j = mustOpen(t, dir)
	if e, err := j.find(terminal, "b"); e == nil || err != nil || j.meta("replaced") != "" {
		t.Errorf("entry of the running agent: %v, %v", e, err)
	}
}

// The first versions locked the journal only.
func TestJournalInUseByTheFirstVersion(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir).close()
	db, err := bolt.Open(filepath.Join(dir, journalFile), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for range 3 {
		if _, err := New(Options{StateDir: dir}); !errors.Is(err, ErrInUse) {
			t.Fatalf("err = %v", err)
		}
	}
	if files := contents(t, dir); len(files) != 1 {
		t.Errorf("%d files, want the journal alone", len(files))
	}
}

// A file gets its name in one step, also a name that is taken.
func TestMoveFile(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "a.part"), filepath.Join(dir, "a")
	for _, content := range []string{"first", "second"} {
		if err := os.WriteFile(from, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := moveFile(from, to); err != nil {
			t.Fatal(err)
		}
		if have := readText(to); have != content {
			t.Errorf("have %q, want %q", have, content)
		}
	}
	if err := moveFile(from, to); !errors.Is(err, os.ErrNotExist) || readText(to) != "second" {
		t.Errorf("a file that is not there: %v", err)
	}
}
