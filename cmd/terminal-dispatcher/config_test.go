package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"terminalops/dispatcher"
)

const reference = "../../packaging/terminal-dispatcher.toml"

func noEnv(string) string { return "" }

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "dispatcher.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestReferenceConfiguration(t *testing.T) {
	c, err := settings{file: reference}.load()
	if err != nil {
		t.Fatal(err)
	}
	if c.StateDir != "/var/lib/terminal-dispatcher" && !strings.HasSuffix(filepath.ToSlash(c.StateDir), "/var/lib/terminal-dispatcher") {
		t.Errorf("state_dir is %q", c.StateDir)
	}
}

// TestReferenceShowsTheDefaults takes the # away from every key that the
// reference shows, and wants the same configuration, but for what has no default.
func TestReferenceShowsTheDefaults(t *testing.T) {
	content, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	without := regexp.MustCompile(`(?m)^# (hmac_secret_file|jwks_file|urls|username|password_file|ca_file|cert_file|key_file|name|terminals) .*|^# \[.*`)
	shown := regexp.MustCompile(`(?m)^# ([a-z_]+ *= )`).ReplaceAllString(without.ReplaceAllString(string(content), ""), "$1")
	stateDir := filepath.ToSlash(t.TempDir()) // absolute on every system, as /var/lib is not
	shown = strings.ReplaceAll(shown, "/var/lib/terminal-dispatcher", stateDir)
	if n := strings.Count(shown, "\n# "); strings.Count(string(content), "\n# ")-n < 30 {
		t.Fatalf("too few keys were found:\n%s", shown)
	}
	have, err := settings{file: writeConfig(t, shown)}.load()
	if err != nil {
		t.Fatal(err)
	}
	want, err := settings{file: writeConfig(t, `state_dir = "`+stateDir+`"`)}.load()
	if err != nil {
		t.Fatal(err)
	}
	if have.times().StartDeadline != want.times().StartDeadline || len(have.Broker.URLs) != 0 {
		t.Error("have other times or a broker")
	}
	for name, pair := range map[string][2]any{
		"database": {have.Database, want.Database}, "listen": {have.Listen, want.Listen}, "public_url": {have.PublicURL, want.PublicURL},
		"issuers": {have.Auth.Issuers[0], want.Auth.Issuers[0]}, "audience": {have.Auth.Audience, want.Auth.Audience},
		"prefix": {have.Broker.Prefix, want.Broker.Prefix}, "client_id": {have.Broker.ClientID, want.Broker.ClientID},
		"broker.listen": {have.Broker.Embedded.Listen, want.Broker.Embedded.Listen}, "store_dir": {have.Broker.Embedded.StoreDir, want.Broker.Embedded.StoreDir},
		"uploads": {have.Uploads, want.Uploads},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: the reference shows %v, the default is %v", name, pair[0], pair[1])
		}
	}
	a, b := have.times(), want.times()
	for _, operation := range dispatcher.Operations() {
		if a.HardLimits[operation] != b.HardLimits[operation] {
			t.Errorf("%s: the reference shows %v, the default is %v", operation, a.HardLimits[operation], b.HardLimits[operation])
		}
	}
	if a.Grace != b.Grace || a.SilenceWindow != b.SilenceWindow || a.ShortestTimeout != b.ShortestTimeout || a.LongestTimeout != b.LongestTimeout {
		t.Errorf("have %+v, want %+v", a, b)
	}
}

func TestConfigurationIsStrict(t *testing.T) {
	tests := []struct{ name, text, says string }{
		{"empty", ``, "state_dir is missing"},
		{"unknown key", "state_dir = \"s\"\nlisten_on = \"x\"", "line 2: unknown key listen_on"},
		{"unknown key in a table", "state_dir = \"s\"\n[broker]\nurl = \"x\"", "line 3: unknown key broker.url"},
		{"wrong type", "state_dir = 7", "line 1"},
		{"no TOML", "state_dir = \"s\"\nlisten", "line 2"},
		{"listen", "state_dir = \"s\"\nlisten = \"8080\"", `listen "8080": want host:port`},
		{"public_url", "state_dir = \"s\"\npublic_url = \"dispatcher\"", `public_url "dispatcher"`},
		{"public_url of all addresses", "state_dir = \"s\"\nlisten = \":8080\"", `public_url "http://:8080"`},
		{"public_url of all IPv6 addresses", "state_dir = \"s\"\nlisten = \"[::]:8080\"", `public_url "http://[::]:8080"`},
		{"log_level", "state_dir = \"s\"\nlog_level = \"loud\"", `log_level "loud"`},
		{"time", "state_dir = \"s\"\n[times]\ngrace = \"-1s\"", "line 3"},
		{"two kinds of keys", "state_dir = \"s\"\n[auth]\nhmac_secret_file = \"a\"\njwks_file = \"b\"", "want one of them"},
		{"half a certificate", "state_dir = \"s\"\n[https]\ncert_file = \"a\"", "https: cert_file and key_file"},
		{"half a certificate of the broker", "state_dir = \"s\"\n[broker.embedded]\nkey_file = \"a\"", "broker.embedded: cert_file and key_file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := writeConfig(t, tt.text)
			_, err := settings{file: file}.load()
			if err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), file) {
				t.Errorf("have %v, want it to say %q and name the file", err, tt.says)
			}
		})
	}
}

// TestFlagWinsOverEnvironmentOverFile says the same thing in all three places.
func TestFlagWinsOverEnvironmentOverFile(t *testing.T) {
	file := writeConfig(t, "state_dir = \"s\"\nlisten = \"127.0.0.1:1\"\npublic_url = \"http://file.example.com/\"")
	inFlag, inEnv := filepath.Join(t.TempDir(), "flag"), filepath.Join(t.TempDir(), "env")
	p := program{getenv: func(name string) string {
		return map[string]string{"TERMINAL_DISPATCHER_LISTEN": "127.0.0.1:2", "TERMINAL_DISPATCHER_CONFIG": file, "TERMINAL_DISPATCHER_STATE_DIR": inEnv}[name]
	}}
	flags := p.flags("serve", "")
	var s settings
	s.defineServe(p, flags)
	if err := parse(flags, []string{"--state-dir", inFlag}, 0); err != nil {
		t.Fatal(err)
	}
	c, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:2" || c.StateDir != inFlag || c.PublicURL != "http://file.example.com" || c.Auth.Audience != "http://file.example.com/v1" {
		t.Errorf("have %+v", c)
	}
}

func TestPathsAreRelativeToTheFile(t *testing.T) {
	file := writeConfig(t, "state_dir = \"s\"\n[auth]\nhmac_secret_file = \"secret\"\n[times]\nend_of_day = \"11m\"")
	c, err := settings{file: file}.load()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(file)
	if c.StateDir != filepath.Join(dir, "s") || c.Auth.HMACSecretFile != filepath.Join(dir, "secret") || c.Database != filepath.Join(dir, "s", "dispatcher.db") {
		t.Errorf("have %+v", c)
	}
	if got := c.times(); got.HardLimits["end_of_day"] != 11*time.Minute || got.HardLimits["open_menu"] != 3*time.Minute {
		t.Errorf("have %+v", got)
	}
	if _, err := c.tokenOptions(); err == nil || !strings.Contains(err.Error(), "auth.hmac_secret_file") {
		t.Errorf("a secret file that was named and is not there: have %v", err)
	}
}
