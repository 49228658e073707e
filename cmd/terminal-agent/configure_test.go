package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// output runs the program with a command line.
func output(args ...string) (code int, output string) {
	var out bytes.Buffer
	code = run(context.Background(), args, &out, &out, noEnv)
	return code, out.String()
}

// initArgs is a config init with everything.
func initArgs(file string) []string {
	return []string{"config", "init", "--config", file,
		"--terminal-id", "T7", "--broker-url", "tls://a:8883", "--broker-url", "tls://b:8883", "--link", "tcp:127.0.0.1:20007",
		"--broker-username", `anna "the admin"`, "--broker-password-file", `C:\secrets\pass word`, "--state-dir", stateDir}
}

func TestConfigInit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "etc", "agent.toml")
	code, out := output(initArgs(file)...)
	if code != exitOK || !strings.Contains(out, file+" is written") {
		t.Fatalf("exit code %d: %s", code, out)
	}
	c, err := loadConfig([]string{"--config", file}, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	b, terminal := c.Broker, c.Terminals[0]
	if len(b.URLs) != 2 || b.Username != `anna "the admin"` || b.PasswordFile != `C:\secrets\pass word` || b.CAFile != "" ||
		terminal.ID != "T7" || terminal.Link != "tcp:127.0.0.1:20007" || terminal.Username != "" || c.StateDir != stateDir {
		t.Errorf("have %+v", c)
	}
	if left, _ := filepath.Glob(file + "?*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestConfigInitNeverOverwrites(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.toml")
	if err := os.WriteFile(file, []byte("the administrator's"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := output(initArgs(file)...)
	if content, _ := os.ReadFile(file); code != exitOK || string(content) != "the administrator's" || !strings.Contains(out, "stays as it is") {
		t.Errorf("exit code %d, %s; the file: %s", code, out, content)
	}
}

// A file that comes to be there while somebody answers questions is not overwritten.
func TestWriteWholeNeverOverwrites(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.toml")
	share := func(*os.File) error { return os.WriteFile(file, []byte("another's"), 0o600) }
	if err := writeWhole(file, "ours", share); !errors.Is(err, os.ErrExist) {
		t.Errorf("have %v", err)
	}
	if content, _ := os.ReadFile(file); string(content) != "another's" {
		t.Errorf("the file: %s", content)
	}
	if left, _ := filepath.Glob(file + "?*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestConfigInitRefuses(t *testing.T) {
	whole := initArgs("")[4:]
	without := func(flag string) []string {
		var args []string
		for i := 0; i < len(whole); i += 2 {
			if whole[i] != flag {
				args = append(args, whole[i:i+2]...)
			}
		}
		return args
	}
	tests := []struct {
		args []string
		want string
	}{
		{without("--terminal-id"), "--terminal-id is missing"},
		{without("--link"), "--link is missing"},
		{without("--broker-url"), "--broker-url is missing"},
		{append(without("--link"), "--link", "telepathy:1"), "link"},
		{append(without("--terminal-id"), "--terminal-id", "T 7"), "id: want 1 to 64"},
		{append(without("--link"), "--link", "serial:/dev/tty\n[commands]"), "--link: "},
		{append(whole, "now"), "unexpected argument"},
	}
	for _, tt := range tests {
		file := filepath.Join(t.TempDir(), "agent.toml")
		code, out := output(append([]string{"config", "init", "--config", file}, tt.args...)...)
		if code != exitConfig || !strings.Contains(out, tt.want) {
			t.Errorf("%q: exit code %d, %s; want %q", tt.args, code, out, tt.want)
		}
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%q: a file was written", tt.args)
		}
	}
}

func TestConfigCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.toml")
	check := func(text, want string, wantCode int) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out := output("config", "check", "--config", file); code != wantCode || !strings.Contains(out, want) {
			t.Errorf("exit code %d: %s; want %d, %q", code, out, wantCode, want)
		}
	}
	check(minimal(), "terminal T1 at tcp:127.0.0.1:20007", exitOK)
	check(strings.Replace(minimal(), "[broker]", "[broker]\nurl = 1", 1), "line 3: unknown key broker.url", exitConfig)
	check(strings.Replace(minimal(), "[broker]", "[broker]\nusername = \"u\"\npassword_file = \"/nowhere/password\"", 1), "password_file: open /nowhere/password", exitConfig)
	check(strings.Replace(minimal(), "[broker]", "[broker]\nca_file = \"/nowhere/ca.pem\"", 1), "/nowhere/ca.pem", exitConfig)
}

// Every line that config init can set is there to be set.
func TestEverySettingHasItsLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.toml")
	args := append(initArgs(file), "--ca-file", "/ca.pem", "--cert-file", "/cert.pem", "--key-file", "/key.pem")
	if code, out := output(args...); code != exitOK {
		t.Fatalf("exit code %d: %s", code, out)
	}
	c, err := loadConfig([]string{"--config", file}, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if b := c.Broker; b.CAFile != "/ca.pem" || b.CertFile != "/cert.pem" || b.KeyFile != "/key.pem" {
		t.Errorf("have %+v", b)
	}
}
