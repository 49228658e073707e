package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"terminalops/agent"
	"terminalops/agent/control"
	"terminalops/device"
	"terminalops/device/devicetest"
	"terminalops/device/link"
	"terminalops/transport/transporttest"
)

// shop is an agent with scripted terminals, and its control socket.
type shop struct {
	dir       string
	terminals []*devicetest.Terminal // T0, T1 ...
	stop      func()
}

func newShop(t *testing.T, n int) *shop {
	t.Helper()
	s := &shop{dir: t.TempDir()}
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	o := agent.Options{StateDir: s.dir, Version: "1.2.3", Logger: logger, Grace: time.Nanosecond}
	for i := range n {
		terminal, id := new(devicetest.Terminal), fmt.Sprint("T", i)
		terminal.Set(devicetest.Script{Outcome: device.Outcome{Effect: device.Done}})
		s.terminals = append(s.terminals, terminal)
		o.Lanes = append(o.Lanes, agent.Lane{ID: id, Link: "serial:/dev/tty" + id, Terminal: terminal, End: transporttest.NewBroker().Agent(id)})
	}
	a, err := agent.New(o)
	if err != nil {
		t.Fatal(err)
	}
	closeControl := openControl(a, s.dir, nil, logger)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		closeControl()
	})
	t.Cleanup(s.stop)
	return s
}

// types is output, of a command that asks the shop's agent.
func (s *shop) types(args ...string) (code int, output string) {
	return s.typesUntil(context.Background(), args...)
}

// typesUntil is types, until Ctrl-C.
func (s *shop) typesUntil(ctx context.Context, args ...string) (code int, output string) {
	var out bytes.Buffer
	code = run(ctx, append(args, "--state-dir", s.dir), &out, &out, func(name string) string {
		return map[string]string{"SUDO_USER": "anna"}[name]
	})
	return code, out.String()
}

// The exit code says how it ended, and the text why.
func TestOperationRun(t *testing.T) {
	s := newShop(t, 1)
	count := int64(42)
	totals := &device.EndOfDayResult{PurchasesCount: &count, Receipt: []string{"Kassenschnitt", "erfolgreich"}}
	amount := int64(123450)
	priced := func(currency string) device.Outcome {
		return device.Outcome{Effect: device.Done, Result: &device.EndOfDayResult{Currency: currency, PurchasesAmount: &amount,
			ByCardScheme: []device.SchemeTotal{{Scheme: "VISA", Count: 8, Amount: 25650}}}}
	}
	failed := func(executed device.Executed, cause device.Cause) device.Outcome {
		return device.Outcome{Result: totals, Failure: &device.Failure{Cause: cause, Code: "77", Message: "end-of-day batch not possible", Executed: executed}}
	}
	for _, tt := range []struct {
		name   string
		script devicetest.Script
		args   string
		code   int
		want   []string
	}{
		{"completed", devicetest.Script{Outcome: device.Outcome{Effect: device.Done, Message: "all well", Result: totals}},
			"end_of_day", exitOK, []string{"end_of_day COMPLETED (done): all well\n", "\n  purchases_count  42\n", "\n  receipt          Kassenschnitt\n                   erfolgreich\n"}},
		{"amounts as on the receipt", devicetest.Script{Outcome: priced("EUR")},
			"end_of_day", exitOK, []string{"scheme VISA, count 8, amount 256.50\n", "  purchases_amount  1234.50\n"}},
		{"amounts in a currency that is not known", devicetest.Script{Outcome: priced("JPY")},
			"end_of_day", exitOK, []string{"scheme VISA, count 8, amount 25650\n", "  purchases_amount  123450\n"}},
		{"with the terminal named", devicetest.Script{Outcome: device.Outcome{Effect: device.Triggered}},
			"open_menu --terminal T0", exitOK, []string{"open_menu COMPLETED (triggered)\n"}},
		{"refused", devicetest.Script{Outcome: failed(device.No, device.Refused)},
			"end_of_day", exitFailed, []string{"end_of_day FAILED\n", "device_refused 77: end-of-day batch not possible (executed: no)\n"}},
		{"half done", devicetest.Script{Outcome: failed(device.Yes, device.Refused)},
			"end_of_day", exitFailed, []string{"FAILED", "(executed: yes)\n", "  purchases_count  42\n"}},
		{"unknown", devicetest.Script{Outcome: failed(device.Perhaps, device.Unknown)},
			"end_of_day", exitUnknown, []string{"FAILED", "outcome_unknown 77", "(executed: unknown)\n"}},
		{"no such operation", devicetest.Script{}, "dance", exitConfig, []string{`unknown operation "dance"; there are [end_of_day send_logs`}},
		{"no such terminal", devicetest.Script{}, "end_of_day --terminal T9", exitConfig, []string{`unknown terminal "T9"; this agent has T0`}},
		{"none", devicetest.Script{}, "", exitConfig, []string{"want one OPERATION"}},
		{"two", devicetest.Script{}, "end_of_day open_menu", exitConfig, []string{"want one OPERATION"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.terminals[0].Set(tt.script)
			code, out := s.types(append([]string{"operation", "run"}, strings.Fields(tt.args)...)...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("have %s\nwant %q", out, want)
				}
			}
		})
	}
}

// A script gets JSON: the final report, or all of them.
func TestOperationRunJSON(t *testing.T) {
	s := newShop(t, 1)
	for _, args := range [][]string{{}, {"--follow"}} {
		code, out := s.types(append([]string{"operation", "run", "end_of_day", "--json"}, args...)...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		var last agent.Report
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || code != exitOK {
			t.Fatalf("exit code %d, %v: %s", code, err, out)
		}
		if last.State != "COMPLETED" || last.Origin != "local" || last.CreatedBy != "local:anna" {
			t.Errorf("have %+v", last)
		}
		if len(args) == 0 && len(lines) != 1 {
			t.Errorf("%d lines without --follow: %s", len(lines), out)
		}
	}
}

// With several terminals somebody has to say which.
func TestOperationRunWhichTerminal(t *testing.T) {
	s := newShop(t, 2)
	code, out := s.types("operation", "run", "end_of_day")
	if code != exitConfig || !strings.Contains(out, "--terminal: T0, T1") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if code, out := s.types("operation", "run", "end_of_day", "--terminal", "T1"); code != exitOK || len(s.terminals[0].Acts()) != 0 || len(s.terminals[1].Acts()) != 1 {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// await waits until the only terminal's operation has a state.
func (s *shop) await(t *testing.T, state string) agent.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := control.Client{StateDir: s.dir}
	var found agent.Record
	for found.State != state {
		status, err := c.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if w := status.Lanes[0].Working; w != nil {
			found = *w
		}
	}
	return found
}

// Ctrl-C takes back what has not started, and leaves alone what has.
func TestOperationRunInterrupted(t *testing.T) {
	for _, tt := range []struct {
		name   string
		script devicetest.Script
		state  string
		code   int
		want   string
	}{
		{"before it starts", devicetest.Script{Before: device.ErrBusy}, "ACCEPTED", exitFailed, "cancelled"},
		{"after it has started", devicetest.Script{Work: time.Hour}, "RUNNING", exitUnknown, "it has started and goes on; terminal-agent history"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newShop(t, 1)
			s.terminals[0].Set(tt.script)
			ctx, interrupt := context.WithCancel(context.Background())
			go func() {
				s.await(t, tt.state)
				interrupt()
			}()
			if code, out := s.typesUntil(ctx, "operation", "run", "end_of_day"); code != tt.code || !strings.Contains(out, tt.want) {
				t.Errorf("exit code %d, want %d: %s", code, tt.code, out)
			}
			if acts := len(s.terminals[0].Acts()); acts > 0 && tt.state == "ACCEPTED" {
				t.Errorf("the terminal acted %d times", acts)
			}
		})
	}
}

// An agent that ends leaves nobody waiting, or believing anything.
func TestOperationRunAgentEnds(t *testing.T) {
	s := newShop(t, 1)
	s.terminals[0].Set(devicetest.Script{Work: time.Hour})
	go func() {
		s.await(t, "RUNNING")
		s.stop()
	}()
	if code, out := s.types("operation", "run", "end_of_day"); code != exitUnknown || !strings.Contains(out, "terminal-agent history") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// Where no agent runs, every command says what starts one, and starts none.
func TestNoAgentRuns(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{{"status"}, {"history"}, {"operation", "run", "end_of_day"}} {
		code, out := output(append(args, "--state-dir", dir)...)
		if code != exitFailed || !strings.Contains(out, "no agent runs in "+dir+"; start it with: terminal-agent service start, or terminal-agent run") {
			t.Errorf("%s: exit code %d: %s", args, code, out)
		}
	}
	if files, err := os.ReadDir(dir); len(files) != 0 || err != nil {
		t.Errorf("there is now %v (%v)", files, err)
	}
}

// An agent whose socket cannot be made works all the same, and logs why.
func TestNoControlSocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not there")
	var log bytes.Buffer
	openControl(nil, dir, nil, slog.New(slog.NewTextHandler(&log, nil)))()
	if !strings.Contains(log.String(), "status, history and operation cannot reach this agent: control ") && os.PathSeparator == '/' {
		t.Errorf("the log says %q", &log)
	}
}

// The state directory is all that is needed of the configuration.
func TestAskingWithABrokenConfiguration(t *testing.T) {
	s := newShop(t, 1)
	file := filepath.Join(t.TempDir(), "agent.toml")
	for text, wantCode := range map[string]int{
		fmt.Sprintf("state_dir = %q\n[broken]\nkey = 1\n", s.dir): exitOK,
		"state_dir = \n": exitConfig,
		"[broker]\n":     exitConfig,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out := output("status", "--config", file); code != wantCode {
			t.Errorf("%s: exit code %d: %s", text, code, out)
		}
	}
	if code, out := output("status", "--config", file+".missing"); code != exitConfig {
		t.Errorf("no configuration: exit code %d: %s", code, out)
	}
}

func TestStatusAndHistory(t *testing.T) {
	s := newShop(t, 1)
	if code, out := s.types("history"); code != exitOK || out != "no operations\n" {
		t.Errorf("exit code %d: %s", code, out)
	}
	s.terminals[0].Set(devicetest.Script{Outcome: device.Outcome{Failure: &device.Failure{Cause: device.Refused, Code: "77", Message: "not possible", Executed: device.No}}})
	s.types("operation", "run", "end_of_day")
	s.terminals[0].Set(devicetest.Script{Work: time.Hour})
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	typed := make(chan bool)
	go func() {
		s.typesUntil(ctx, "operation", "run", "check_update")
		close(typed)
	}()
	running := s.await(t, "RUNNING")
	for _, tt := range []struct {
		args string
		want []string
	}{
		{"status", []string{"terminal-agent 1.2.3 ", "\nT0\n", "  link      serial:/dev/ttyT0 (scripted)\n", "  at work   ", "check_update RUNNING, " + running.ID, "  last      ", "end_of_day FAILED, ", "device_refused 77: not possible (executed: no)\n"}},
		{"history", []string{"ACCEPTED", "T0        check_update  local:anna  RUNNING\n  " + running.ID, "device_refused 77: not possible (executed: no)"}},
		{"history --limit 1", []string{running.ID}},
		{"history --terminal T9", []string{"no operations"}},
	} {
		code, out := s.types(strings.Fields(tt.args)...)
		for _, want := range tt.want {
			if code != exitOK || !strings.Contains(out, want) {
				t.Errorf("%s: exit code %d: %s\nwant %q", tt.args, code, out, want)
			}
		}
	}
	_, out := s.types("status", "--json")
	var status agent.Status
	if err := json.Unmarshal([]byte(out), &status); err != nil || status.Lanes[0].Working.ID != running.ID {
		t.Errorf("%v: %s", err, out)
	}
	_, out = s.types("history", "--json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var newest agent.Record
	if err := json.Unmarshal([]byte(lines[0]), &newest); err != nil || len(lines) != 2 || newest.ID != running.ID {
		t.Errorf("%v: %s", err, out)
	}
	if code, out := s.types("history", "--limit", "0"); code != exitConfig {
		t.Errorf("--limit 0: exit code %d: %s", code, out)
	}
	interrupt()
	<-typed
}

func TestPorts(t *testing.T) {
	ports := []link.Port{
		{Name: "/dev/ttyACM0", Aliases: []string{"/dev/serial/by-id/usb-x"}, VendorID: "0b00", ProductID: "0080", SerialNumber: "17420001", Product: "Terminal"},
		{Name: "/dev/ttyS0"},
	}
	links := []usedLink{{"T1", "usb:0b00:0080"}, {"T2", "serial:/dev/serial/by-id/usb-x"}, {"T3", "tcp:192.0.2.10:20007"}, {"T4", "usb:079b:0028"}}
	list := assign(ports, links)
	if !slices.Equal(list.Ports[0].Terminals, []string{"T1", "T2"}) || len(list.Ports[1].Terminals) != 0 || !slices.Equal(list.Absent, links[3:]) {
		t.Errorf("have %+v", list)
	}
	for _, tt := range []struct {
		list portList
		want string
	}{
		{list, `PORT          USB        SERIAL NUMBER  PRODUCT   TERMINAL
/dev/ttyACM0  0b00:0080  17420001       Terminal  T1, T2
/dev/ttyS0    -          -              -         -
T4 has usb:079b:0028, which is not in this list
`},
		{assign(nil, nil), "no serial ports: nothing is plugged in, or its driver is missing\n"},
	} {
		var out strings.Builder
		if err := tt.list.print(&out); err != nil || out.String() != tt.want {
			t.Errorf("%v: have\n%s\nwant\n%s", err, &out, tt.want)
		}
	}
}

// Which terminal has which port, the agent knows, or else the configuration.
func TestPortsOfWhom(t *testing.T) {
	s := newShop(t, 1)
	var list portList
	if _, out := s.types("ports", "--json"); json.Unmarshal([]byte(out), &list) != nil || !slices.Equal(list.Absent, []usedLink{{"T0", "serial:/dev/ttyT0"}}) {
		t.Errorf("the agent's: %s", out)
	}
	s.stop()
	file := filepath.Join(t.TempDir(), "agent.toml")
	text := strings.Replace(minimal(), "tcp:127.0.0.1:20007", "usb:0b00:0081", 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, out := s.types("ports", "--json", "--config", file); json.Unmarshal([]byte(out), &list) != nil || !slices.Equal(list.Absent, []usedLink{{"T1", "usb:0b00:0081"}}) {
		t.Errorf("the configuration's: %s", out)
	}
	if code, out := s.types("ports", "--config", file+".missing"); code != exitOK || !strings.Contains(out, "is not known") {
		t.Errorf("nobody's: exit code %d: %s", code, out)
	}
}
