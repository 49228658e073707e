package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func noEnv(string) string { return "" }

// loadConfig is what the commands do.
func loadConfig(args []string, getenv func(string) string) (*config, error) {
	p := program{stdout: io.Discard, stderr: io.Discard, getenv: getenv}
	flags := p.flags("run", "")
	from := newSource(flags, getenv)
	if err := parse(flags, args); err != nil {
		return nil, err
	}
	return from.load()
}

// load loads text as a configuration file.
func load(t *testing.T, text string, args ...string) (*config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return loadConfig(append([]string{"--config", path}, args...), noEnv)
}

// stateDir is an absolute path everywhere.
var stateDir = filepath.ToSlash(os.TempDir())

func minimal() string {
	return `state_dir = "` + stateDir + `"
[broker]
urls = ["tcp://127.0.0.1:1883"]
[[terminal]]
id = "T1"
protocol = "zvt"
link = "tcp:127.0.0.1:20007"
`
}

func TestMinimalConfig(t *testing.T) {
	c, err := load(t, minimal())
	if err != nil {
		t.Fatal(err)
	}
	terminal := c.Terminals[0]
	if c.Broker.Prefix != "terminals" || terminal.Baud != 9600 || terminal.StopBits != 2 || *terminal.ZVT.ConfigByte != 0x8C || terminal.ZVT.Currency != 978 {
		t.Errorf("defaults: %+v", c)
	}
}

func TestConfigErrors(t *testing.T) {
	second := "[[terminal]]\nid = \"T2\"\nprotocol = \"zvt\"\nlink = \"tcp:127.0.0.1:20008\"\n"
	tests := []struct{ name, text, want string }{
		{"unknown key", strings.Replace(minimal(), "id =", "idd =", 1), "line 5: unknown key terminal.idd"},
		{"not TOML", strings.Replace(minimal(), `"T1"`, `T1`, 1), "line 5, column"},
		{"wrong type", strings.Replace(minimal(), `"T1"`, `1`, 1), "line 5"},
		{"no state_dir", strings.Replace(minimal(), "state_dir", "#", 1), "state_dir is missing"},
		{"relative state_dir", strings.Replace(minimal(), stateDir, "state", 1), "absolute"},
		{"no broker", strings.Replace(minimal(), "urls", "#", 1), "broker.urls is missing"},
		{"no terminal", minimal()[:strings.Index(minimal(), "[[")], "no [[terminal]]"},
		{"bad id", strings.Replace(minimal(), `"T1"`, `"T 1"`, 1), `line 5: terminal "T 1": id`},
		{"unknown protocol", strings.Replace(minimal(), `"zvt"`, `"zvb"`, 1), `line 6: terminal "T1": protocol "zvb"`},
		{"protocol of a later version", strings.Replace(minimal(), `"zvt"`, `"kit"`, 1), "speaks zvt only"},
		{"bad link", strings.Replace(minimal(), "tcp:127", "ftp:127", 1), "line 7"},
		{"same id", minimal() + strings.Replace(second, "T2", "T1", 1), "line 9: terminal \"T1\": id: another"},
		{"same link", minimal() + strings.Replace(second, "20008", "20007", 1), "line 11: terminal \"T2\": link"},
		{"bad time zone", minimal() + "timezone = \"Mars/Olympus\"\n", "line 8"},
		{"bad time", minimal() + "[terminal.zvt]\nt1 = \"fast\"\n", "want a time"},
		{"bad config byte", minimal() + "[terminal.zvt]\nconfig_byte = 300\n", "line 9: terminal \"T1\": config_byte 0x12c"},
		{"time without a unit", minimal() + "[terminal.zvt]\nt1 = 5\n", `line 9: terminal "T1": t1: 5: want a time with its unit`},
		{"resolve_for without a unit", "resolve_for = 24\n" + minimal(), "resolve_for: 24: want a time with its unit"},
		{"stop bits", minimal() + "stop_bits = 3\n", `line 8: terminal "T1": stop_bits 3: want 1 or 2`},
		{"negative baud", minimal() + "baud = -1\n", `line 8: terminal "T1": baud -1: want bits per second`},
		{"number in quotes", minimal() + "baud = \"9600\"\n", "line 8, column 8: terminal.baud: want a whole number, have a TOML string"},
		{"text without quotes", minimal() + "[terminal.zvt]\npassword = 123456\n", "line 9, column 12: terminal.zvt.password: want a text in quotes, have a TOML integer"},
		{"one URL", strings.Replace(minimal(), `["tcp://127.0.0.1:1883"]`, `"tcp://127.0.0.1:1883"`, 1), "broker.urls: want a list of texts"},
		{"short password", minimal() + "[terminal.zvt]\npassword = \"12345\"\n", `line 9: terminal "T1": password: want six digits`},
		{"bad currency", minimal() + "[terminal.zvt]\ncurrency = 9999\n", `line 9: terminal "T1": currency 9999: want a number of ISO 4217`},
		{"bad receipt", minimal() + "[terminal.zvt]\nreceipt = \"both\"\n", `line 9: terminal "T1": receipt "both": want "report" or "terminal"`},
		{"bad proxy", strings.Replace(minimal(), "urls", "proxy = \"http://anna:se/cret@proxy:3128\"\nurls", 1), "line 3: broker.proxy: not a URL"},
		{"signed commands", minimal() + "[commands]\ntrusted_keys = \"keys.json\"\n", "line 9: commands.trusted_keys: this version cannot verify"},
		{"bad level", "log_level = \"loud\"\n" + minimal(), "log_level"},
		{"relative log file", "log_file = \"agent.log\"\n" + minimal(), "log_file \"agent.log\": want an absolute path"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.text)
			var wrong configError
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want %q", err, tt.want)
			}
			said := fmt.Sprint(err)
			if _, behind, named := strings.Cut(said, "agent.toml"); named {
				said = behind // a temporary directory may have any number
			}
			for _, secret := range []string{"123456", "12345", "se/cret", ":se", "main."} {
				if strings.Contains(said, secret) {
					t.Errorf("%v: shows %q", err, secret)
				}
			}
		})
	}
}

func TestFlagsAndEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.toml")
	if err := os.WriteFile(path, []byte(minimal()), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"TERMINAL_AGENT_CONFIG":          path,
		"TERMINAL_AGENT_BROKER_URLS":     "tls://a:8883,tls://b:8883",
		"TERMINAL_AGENT_BROKER_USERNAME": "from the environment",
		"TERMINAL_AGENT_BROKER_PASSWORD": "secret",
	}
	c, err := loadConfig([]string{"--broker-username", "from the flag"}, func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Broker.URLs) != 2 || c.Broker.Username != "from the flag" || c.Broker.password != "secret" {
		t.Errorf("have %+v", c.Broker)
	}
}

// The shipped configuration loads, and so it does with every line in use.
func TestReferenceConfig(t *testing.T) {
	content, err := os.ReadFile("../../packaging/terminal-agent.toml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(content), "/var/lib/terminal-agent", stateDir)
	if _, err := load(t, text); err != nil {
		t.Error(err)
	}
	var all []string
	for _, line := range strings.Split(text, "\n") {
		if rest, isComment := strings.CutPrefix(line, "#"); isComment && !strings.HasPrefix(rest, " ") && strings.Contains(rest, "=") {
			line = rest
		}
		all = append(all, line)
	}
	if _, err := load(t, strings.Join(all, "\n")); err != nil {
		t.Error("with every line in use:", err)
	}
}

func TestExitCodes(t *testing.T) {
	tests := []struct {
		args []string
		code int
		says string
	}{
		{nil, exitConfig, "Usage"},
		{[]string{"dance"}, exitConfig, `unknown command "dance"`},
		{[]string{"version"}, exitOK, "terminal-agent "},
		{[]string{"--help"}, exitOK, "Usage"},
		{[]string{"run", "--help"}, exitOK, "--config"},
		{[]string{"config"}, exitConfig, "want init, check or show"},
		{[]string{"config", "dance"}, exitConfig, `unknown command "dance"`},
		{[]string{"config", "check", "--config", "/nowhere/agent.toml"}, exitConfig, "config init"},
		{[]string{"service"}, exitConfig, "install, uninstall"},
		{[]string{"service", "dance"}, exitConfig, `unknown command "dance"`},
		{[]string{"service", "start", "now"}, exitConfig, `unexpected argument "now"`},
		{[]string{"run", "--config", "/nowhere/agent.toml"}, exitConfig, "/nowhere/agent.toml"},
		{[]string{"run", "--loud"}, exitConfig, "--loud"},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		if code := run(context.Background(), tt.args, &out, &out, noEnv); code != tt.code || !strings.Contains(out.String(), tt.says) {
			t.Errorf("%v: exit code %d, %q; want %d, %q", tt.args, code, out.String(), tt.code, tt.says)
		}
	}
}
