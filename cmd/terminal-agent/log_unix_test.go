//go:build !windows

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The real process under systemd: a reload makes it say more, and its log file
// has what it says.
func TestReloadUnderSystemd(t *testing.T) {
	dir := t.TempDir()
	file, logPath := filepath.Join(dir, "agent.toml"), filepath.Join(dir, "agent.log")
	text := strings.Replace(minimal(), stateDir, dir, 1)
	write := func(level string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("log_level = \""+level+"\"\nlog_file = \""+logPath+"\"\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("error")
	p := startUnderSystemd(t, file, 3*time.Second)
	p.await(t, "READY=1")
	write("debug")
	if err := p.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for said := ""; !strings.Contains(said, "log level is DEBUG"); {
		p.await(t, "WATCHDOG=1") // it lives, and half a second has gone
		content, _ := os.ReadFile(logPath)
		said = string(content)
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("ended with %v\n%s", err, &p.stderr)
	}
	if said := contentOf(t, logPath); !strings.Contains(said, "msg=stopped") || strings.Contains(said, "msg=started") {
		t.Errorf("the log file has:\n%s", said)
	}
}
