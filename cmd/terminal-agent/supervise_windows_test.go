package main

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"

	"terminalops/agent"
)

// manage runs Execute with a configuration, as svc.Run does.
func manage(t *testing.T, text string) (requests chan<- svc.ChangeRequest, changes <-chan svc.Status, ended <-chan [2]uint32) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "agent.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	events, err := eventlog.Open(serviceName)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { events.Close() })
	m := &manager{ctx: t.Context(), from: &source{file: file}, events: events, started: make(chan *agent.Agent, 1)}
	r, c, e := make(chan svc.ChangeRequest), make(chan svc.Status, 100), make(chan [2]uint32, 1)
	go func() {
		specific, code := m.Execute(nil, r, c)
		is := uint32(0)
		if specific {
			is = 1
		}
		e <- [2]uint32{is, code}
	}()
	return r, c, e
}

const managerPatience = 20 * time.Second

// awaitState returns the next status that has the state.
func awaitState(t *testing.T, changes <-chan svc.Status, want svc.State) svc.Status {
	t.Helper()
	for timeout := time.After(managerPatience); ; {
		select {
		case status := <-changes:
			if status.State == want {
				return status
			}
		case <-timeout:
			t.Fatalf("state %d does not come", want)
		}
	}
}

func send(t *testing.T, requests chan<- svc.ChangeRequest, r svc.ChangeRequest) {
	t.Helper()
	select {
	case requests <- r:
	case <-time.After(managerPatience):
		t.Fatalf("request %d is not taken", r.Cmd)
	}
}

// A service says that it is about to start, that it runs, without a broker or a
// terminal in sight, and that it is about to stop, whatever the reason; and it is
// not upset by the end of sleep.
func TestExecute(t *testing.T) {
	for name, stop := range map[string]svc.Cmd{"stop": svc.Stop, "shutdown": svc.Shutdown, "preshutdown": svc.PreShutdown} {
		t.Run(name, func(t *testing.T) {
			state := filepath.ToSlash(t.TempDir())
			t.Cleanup(func() { debug.SetCrashOutput(nil, debug.CrashOptions{}) }) // holds a file in it
			requests, changes, ended := manage(t, strings.Replace(minimal(), stateDir, state, 1))
			if s := awaitState(t, changes, svc.StartPending); s.WaitHint == 0 {
				t.Error("no wait hint")
			}
			running := awaitState(t, changes, svc.Running)
			if want := svc.AcceptStop | svc.AcceptShutdown | svc.AcceptPreShutdown | svc.AcceptPowerEvent; running.Accepts&want != want {
				t.Errorf("accepts %b, want %b", running.Accepts, want)
			}
			send(t, requests, svc.ChangeRequest{Cmd: svc.PowerEvent, EventType: resumeAutomatic})
			send(t, requests, svc.ChangeRequest{Cmd: svc.Interrogate})
			if s := <-changes; s.State != svc.Running {
				t.Errorf("after sleep: %+v", s)
			}
			send(t, requests, svc.ChangeRequest{Cmd: stop})
			if s := awaitState(t, changes, svc.StopPending); s.WaitHint == 0 {
				t.Error("no wait hint")
			}
			select {
			case code := <-ended:
				if code != [2]uint32{} {
					t.Errorf("ended with %v", code)
				}
			case <-time.After(managerPatience):
				t.Fatal("it does not end")
			}
		})
	}
}

// Windows starts a service again that crashed, but not one that has said why it
// stopped.
func TestExecuteWrongConfiguration(t *testing.T) {
	_, changes, ended := manage(t, strings.Replace(minimal(), "id =", "idd =", 1))
	select {
	case code := <-ended:
		if code != [2]uint32{1, exitConfig} {
			t.Errorf("ended with %v", code)
		}
	case <-time.After(managerPatience):
		t.Fatal("it does not end")
	}
	for range len(changes) {
		if s := <-changes; s.State == svc.Running {
			t.Error("it was said to run")
		}
	}
}
