package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// show is `config show` of a text, with an environment and more arguments.
func show(t interface {
	Fatal(...any)
	Helper()
}, dir, text string, env map[string]string, args ...string) (code int, out string) {
	t.Helper()
	file := filepath.Join(dir, "agent.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	code = run(context.Background(), append([]string{"config", "show", "--config", file}, args...), &b, &b, func(k string) string { return env[k] })
	return code, b.String()
}

func TestConfigShow(t *testing.T) {
	env := map[string]string{"TERMINAL_AGENT_LOG_LEVEL": "debug", "TERMINAL_AGENT_BROKER_PASSWORD": "hunter2", "TERMINAL_AGENT_BROKER_USERNAME": "shadowed"}
	args := []string{"--broker-url", "tls://a:8883", "--broker-url", "tls://b:8883", "--broker-username", "anna"}
	text := minimal() + "baud = 19200\n[terminal.zvt]\npassword = \"314159\"\n[[terminal]]\nid = \"T2\"\nprotocol = \"zvt\"\nlink = \"usb:0b00:0080\"\n"
	dir := t.TempDir()
	code, out := show(t, dir, text, env, args...)
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, out)
	}
	have := regexp.MustCompile(` +`).ReplaceAllString(out, " ")
	want := `# ` + filepath.Join(dir, "agent.toml") + `, as the agent uses it
state_dir = "` + stateDir + `"
log_level = "debug" # TERMINAL_AGENT_LOG_LEVEL
resolve_for = "24h0m0s" # default

[broker]
urls = ["tls://a:8883", "tls://b:8883"] # --broker-url
prefix = "terminals" # default
username = "anna" # --broker-username
# password = "(not shown)" # TERMINAL_AGENT_BROKER_PASSWORD

[[terminal]]
id = "T1"
protocol = "zvt"
link = "tcp:127.0.0.1:20007"
baud = 19200
stop_bits = 2 # default
timezone = "Local" # default

[terminal.zvt]
password = "(not shown)"
currency = 978 # default
config_byte = 0x8C # default
receipt = "report" # default
t1 = "1s" # default
t3 = "5s" # default
t4 = "3m0s" # default

[[terminal]]
id = "T2"
`
	want = strings.Replace(want, `"Local"`, fmt.Sprintf("%q", time.Local.String()), 1) // TZ names it
	if !strings.HasPrefix(have, want) {
		t.Errorf("shows\n%s\nwant\n%s", have, want)
	}

	code, out = show(t, dir, text, env, append(args, "--json")...)
	var object struct {
		Broker struct {
			URLs     []string
			Password string
		}
		Terminal []struct {
			ID   string
			Baud int
			ZVT  struct{ Password, T4 string }
		}
		From map[string]string
	}
	if err := json.Unmarshal([]byte(out), &object); err != nil || code != exitOK {
		t.Fatalf("%v, exit code %d: %s", err, code, out)
	}
	if first := object.Terminal[0]; len(object.Broker.URLs) != 2 || object.Broker.Password != notShown || first.ID != "T1" || first.Baud != 19200 ||
		first.ZVT.Password != notShown || first.ZVT.T4 != "3m0s" || object.Terminal[1].ID != "T2" {
		t.Errorf("shows %+v", object)
	}
	for key, want := range map[string]string{"broker.urls": "--broker-url", "log_level": "TERMINAL_AGENT_LOG_LEVEL", "terminal[0].baud": "", "terminal[1].baud": "default", "terminal[1].zvt.password": "default"} {
		if object.From[key] != want {
			t.Errorf("%s comes from %q, want %q", key, object.From[key], want)
		}
	}
}

// What is shown is a configuration that the agent would load, if its secrets stood
// there.
func TestConfigShowIsAConfiguration(t *testing.T) {
	content := packaged(t, "terminal-agent.toml")
	text := strings.ReplaceAll(content, "/var/lib/terminal-agent", stateDir)
	_, first := show(t, t.TempDir(), text, nil)
	_, second := show(t, t.TempDir(), strings.ReplaceAll(first, notShown, "000000"), nil)
	_, again, _ := strings.Cut(second, "\n")
	_, shown, _ := strings.Cut(regexp.MustCompile(` +# default`).ReplaceAllString(first, ""), "\n")
	if shown != again || len(shown) == 0 {
		t.Errorf("shown at first:\n%s\nfrom that:\n%s", shown, again)
	}
}

// Every key of the reference configuration is shown.
func TestConfigShowIsWhole(t *testing.T) {
	var all, keys []string
	for _, line := range strings.Split(packaged(t, "terminal-agent.toml"), "\n") {
		if m := regexp.MustCompile(`^#?([a-z0-9_]+)\s*=`).FindStringSubmatch(line); m != nil {
			line = strings.TrimPrefix(line, "#")
			keys = append(keys, m[1])
		}
		all = append(all, line)
	}
	text := strings.ReplaceAll(strings.Join(all, "\n"), "/var/lib/terminal-agent", stateDir)
	code, out := show(t, t.TempDir(), text, nil)
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, out)
	}
	for _, key := range keys {
		if have, want := strings.Count("\n"+out, "\n"+key+" = "), strings.Count("\n"+strings.Join(keys, "\n")+"\n", "\n"+key+"\n"); have != want {
			t.Errorf("%s is shown %d times, want %d:\n%s", key, have, want, out)
		}
	}
}

// inTOMLAs are the ways to write a text in TOML 1.0, and some that are wrong.
var inTOMLAs = map[string]func(string) string{
	"basic":            func(s string) string { return fmt.Sprintf("%q", s) },
	"literal":          func(s string) string { return "'" + s + "'" },
	"multi-line basic": func(s string) string { return `"""` + "\n" + s + `"""` },
	"folded":           func(s string) string { return `"""` + s[:1] + "\\\n   " + s[1:] + `"""` },
	"multi-line":       func(s string) string { return "'''" + s + "'''" },
	"escaped": func(s string) string {
		var b strings.Builder
		for _, r := range s {
			fmt.Fprintf(&b, `\u%04X`, r)
		}
		return `"` + b.String() + `"`
	},
	"no quotes":   func(s string) string { return s },
	"half quoted": func(s string) string { return `"` + s },
	"a list":      func(s string) string { return "[" + fmt.Sprintf("%q", s) + "]" },
}

// However a secret is written, and whether or not the configuration is right, it
// is not shown.
func TestConfigShowNeverShowsASecret(t *testing.T) {
	dir := t.TempDir()
	shown := 0
	rapid.Check(t, func(t *rapid.T) {
		pin := rapid.StringMatching(`[0-9]{6}`).Draw(t, "ZVT password")
		password := rapid.StringMatching(`[a-zA-Z0-9/@:#? %!-]{8,12}`).Draw(t, "password of the proxy")
		env := rapid.StringMatching(`[a-zA-Z0-9/@:#? %!-]{8,12}`).Draw(t, "password of the broker")
		if strings.Contains(dir, pin) || pin == strings.Repeat("0", 6) {
			t.Skip("the name of the directory has it")
		}
		written := inTOMLAs[rapid.SampledFrom(keysOf(inTOMLAs)).Draw(t, "notation")]
		proxy := rapid.SampledFrom([]string{"http://anna:%s@proxy:3128", "anna:%s@proxy:3128", "socks5://%s@proxy"}).Draw(t, "proxy")
		if rapid.Bool().Draw(t, "quoted for a URL") {
			proxy = fmt.Sprintf(proxy, url.PathEscape(password))
		} else {
			proxy = fmt.Sprintf(proxy, password)
		}
		urls := `"tcp://127.0.0.1:1883"`
		if rapid.Bool().Draw(t, "password in the URL of the broker") {
			urls = fmt.Sprintf("%q", "tls://anna:"+password+"@broker")
		}
		zvt := rapid.SampledFrom([]string{"[terminal.zvt]\npassword = %s\n", "zvt.password = %s\n", "zvt = { password = %s }\n", "[terminal.zvt]\n\"pass\\u0077ord\"\t=%s # note\n", "[terminal.zvt]\npasswort = %s\n"}).Draw(t, "key")
		text := strings.Replace(minimal(), `["tcp://127.0.0.1:1883"]`, "["+urls+"]\nproxy = "+written(proxy), 1) + fmt.Sprintf(zvt, written(pin))
		for _, args := range [][]string{nil, {"--json"}, {"--broker-url", "tls://anna:" + password + "@broker"}} {
			code, out := show(t, dir, text, map[string]string{"TERMINAL_AGENT_BROKER_PASSWORD": env}, args...)
			if code == exitOK {
				shown++
			}
			for _, secret := range []string{pin, password, url.PathEscape(password), env} {
				if strings.Contains(out, secret) {
					t.Fatalf("%q is in\n%s\nof\n%s", secret, out, text)
				}
			}
		}
	})
	if shown == 0 {
		t.Error("no configuration was right")
	}
}

func keysOf[V any](m map[string]V) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}
