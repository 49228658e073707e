package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"terminalops/transport"
	"terminalops/transport/mqtt"
	"terminalops/transport/transporttest"
)

const patience = time.Minute

// call runs a command and returns what it printed.
func call(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs, noEnv)
	return out.String(), errs.String(), code
}

// output collects what a running command prints, and can be waited on.
type output struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{}
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(b)
}

// await returns the first group of pattern.
func (o *output) await(t *testing.T, pattern string) string {
	t.Helper()
	re, timeout := regexp.MustCompile(pattern), time.After(patience)
	for {
		o.mu.Lock()
		found, changed, text := re.FindStringSubmatch(o.text.String()), o.changed, o.text.String()
		o.mu.Unlock()
		if found != nil {
			return found[1]
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("no %s in\n%s", pattern, text)
		}
	}
}

// serveIt starts serve and returns where HTTP and MQTT are, and how to stop it.
func serveIt(t *testing.T, config string) (url, mqttURL string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	log := &output{changed: make(chan struct{})}
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"serve", "--config", config}, io.Discard, log, noEnv) }()
	stop = func() {
		cancel()
		if code := <-ended; code != exitOK {
			t.Errorf("serve ended with %d\n%s", code, log.text.String())
		}
	}
	mqttURL = "tcp://" + log.await(t, `embedded broker.* listen=(\S+)`)
	url = "http://" + log.await(t, `msg=serving listen=(\S+)`)
	log.await(t, `(connected to the broker)`)
	return url, mqttURL, stop
}

type client struct {
	t          *testing.T
	url, token string
}

func (c client) do(method, path, body string) (status int, answer string) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// TestNewcomer does what a newcomer does: two lines of configuration (the
// ports), a terminal, a token; then all of it again after a restart.
func TestNewcomer(t *testing.T) {
	config := writeConfig(t, "state_dir = \"state\"\nlisten = \"127.0.0.1:0\"\npublic_url = \"http://dispatcher.example.com\"\n[broker.embedded]\nlisten = \"127.0.0.1:0\"")
	url, mqttURL, stop := serveIt(t, config)
	const terminal = "P11223351-T0013"
	for range 2 { // while serve runs, and twice
		if out, errs, code := call(t, "terminals", "add", "--config", config, "--account", "P11223351", terminal, "P11223351-T0014"); code != 0 || out+errs != "" {
			t.Fatalf("terminals add: %d %s %s", code, out, errs)
		}
	}
	token, errs, code := call(t, "token", "--config", config, "--account", "P11223351", "--email", "anna@example.com")
	if code != 0 || errs != "" || strings.Count(token, ".") != 2 || strings.Count(token, "\n") != 1 {
		t.Fatalf("token: %d %q %s", code, token, errs)
	}
	c := client{t, url, strings.TrimSpace(token)}

	agent := transporttest.NewRecorder()
	transporttest.Start(t, mqtt.Agent(mqtt.Options{URLs: []string{mqttURL}, Prefix: "terminals"}, terminal), agent)
	sender := agent.AwaitConnected(t, patience)
	say := func(k transport.Kind, payload string) {
		t.Helper()
		if err := sender.Send(t.Context(), terminal, k, []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	say(transport.Presence, `{"state":"online","journal_id":"j","connection":1,"device":{"protocol":"zvt","model":"H5000","link":"serial"}}`)

	status, body := c.do("POST", "/v1/admin/terminals/operations", `{"terminal_id":"`+terminal+`","operation":"send_logs"}`)
	if status != http.StatusCreated {
		t.Fatalf("have %d %s", status, body)
	}
	agent.Await(t, patience, "the command", func() bool { return len(agent.Payloads(transport.Commands)) == 1 })
	command, err := transport.DecodeCommand([]byte(agent.Payloads(transport.Commands)[0]), terminal)
	if err != nil {
		t.Fatal(err)
	}
	path, ours := strings.CutPrefix(command.Upload.URL, "http://dispatcher.example.com")
	if !ours {
		t.Fatalf("uploads go to %s", command.Upload.URL)
	}
	if status, body := c.do("PUT", path, "archive"); status != http.StatusNoContent {
		t.Fatalf("have %d %s", status, body)
	}
	say(transport.Reports, fmt.Sprintf(`{"operation_id":%q,"terminal_id":%q,"state":"COMPLETED","effect":"done","result":{"files":[]}}`, command.OperationID, terminal))
	say(transport.Hello, `{"nonce":"1","journal_id":"j"}`)
	agent.Await(t, patience, "the welcome", func() bool { return len(agent.Payloads(transport.Welcome)) == 1 })
	completed := func() {
		t.Helper()
		var all []struct {
			ID, Status string
			CreatedBy  string `json:"created_by"`
		}
		for late := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // the report is on its way
			status, body := c.do("GET", "/v1/admin/terminals/operations?terminal_id="+terminal, "")
			if err := json.Unmarshal([]byte(body), &all); err != nil || status != 200 || len(all) != 1 || all[0].CreatedBy != "anna@example.com" {
				t.Fatalf("have %v %d %s", err, status, body)
			}
			if all[0].Status == "COMPLETED" {
				break
			}
			if time.Now().After(late) {
				t.Fatalf("have %s", body)
			}
		}
		if status, body := c.do("GET", "/v1/admin/terminals/operations/"+all[0].ID+"/logs", ""); status != 200 || body != "archive" {
			t.Fatalf("have %d %s", status, body)
		}
	}
	completed()
	out, errs, code := call(t, "terminals", "list", "--config", config)
	if code != 0 || errs != "" || !regexp.MustCompile(`P11223351-T0013 +P11223351 +online +20\S+ +zvt H5000\nP11223351-T0014 +P11223351 +unknown +- +-\n`).MatchString(out) {
		t.Errorf("terminals list: %d %s %s", code, out, errs)
	}
	stop()
	c.url, _, stop = serveIt(t, config)
	defer stop()
	completed() // the token is good, the operation there
}

func TestTokenNeedsASecret(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "c.toml")
	if err := os.WriteFile(config, []byte("state_dir = \"s\"\n[auth]\njwks_file = \"keys.jwks\""), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code := call(t, "token", "--config", config, "--account", "P11223351")
	if code != exitConfig || out != "" || !strings.Contains(errs, "jwks_file") || !strings.Contains(errs, "no secret") {
		t.Errorf("have %d %s %s", code, out, errs)
	}
}

func TestExitCodes(t *testing.T) {
	good := writeConfig(t, "state_dir = \"s\"\nlisten = \"127.0.0.1:0\"\n[broker.embedded]\nlisten = \"127.0.0.1:0\"")
	open := writeConfig(t, "state_dir = \"s\"\n[broker.embedded]\nlisten = \"0.0.0.0:0\"")
	times := writeConfig(t, "state_dir = \"s\"\n[broker]\nurls = [\"tcp://127.0.0.1:1\"]\n[times]\nopen_menu = \"3s\"")
	urls := writeConfig(t, "state_dir = \"s\"\n[broker]\nurls = [\"http://127.0.0.1\"]")
	tests := []struct {
		args []string
		code int
		says string // on stderr, or on stdout where code is 0
	}{
		{nil, exitConfig, "Usage:"},
		{[]string{"fly"}, exitConfig, `unknown command "fly"`},
		{[]string{"version"}, exitOK, "terminal-dispatcher "},
		{[]string{"--help"}, exitOK, "Usage:"},
		{[]string{"serve", "--help"}, exitOK, "TERMINAL_DISPATCHER_LISTEN"},
		{[]string{"token", "--help"}, exitOK, "--ttl"},
		{[]string{"terminals", "add", "--help"}, exitOK, "--account"},
		{[]string{"serve"}, exitConfig, "give --config"},
		{[]string{"serve", "--config", good, "more"}, exitConfig, `unexpected argument "more"`},
		{[]string{"serve", "--colour", "red"}, exitConfig, "unknown flag"},
		{[]string{"serve", "--config", "nowhere"}, exitConfig, "nowhere"},
		{[]string{"serve", "--config", open}, exitConfig, "broker.embedded"},
		{[]string{"serve", "--config", times}, exitConfig, "hard limit of open_menu is 3s"},
		{[]string{"serve", "--config", urls}, exitConfig, "broker.urls[0]"},
		{[]string{"serve", "--config", good, "--listen", "192.0.2.1:1"}, exitFailed, "listen"},
		{[]string{"token", "--config", good}, exitConfig, "--account"},
		{[]string{"token", "--config", good, "--account", "P11223351", "--ttl", "0s"}, exitConfig, "--ttl"},
		{[]string{"terminals"}, exitConfig, "add or list"},
		{[]string{"terminals", "remove"}, exitConfig, "add or list"},
		{[]string{"terminals", "add", "--config", good, "--account", "P11223351"}, exitConfig, "no terminal"},
		{[]string{"terminals", "add", "--config", good, "--account", "P1", "P1-T1"}, exitConfig, "--account"},
		{[]string{"terminals", "add", "--config", good, "--account", "P11223351", "P99999999-T0001"}, exitConfig, "want an id such as P11223351-T0001"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			out, errs, code := call(t, tt.args...)
			where := errs
			if tt.code == 0 {
				where = out
			}
			if code != tt.code || !strings.Contains(where, tt.says) {
				t.Errorf("have %d\nstdout: %s\nstderr: %s\nwant %d and %q", code, out, errs, tt.code, tt.says)
			}
		})
	}
}
