package main

import (
	"testing"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"
)

func testedSupervisor(t *testing.T) supervisor {
	t.Helper()
	events, err := eventlog.Open(serviceName)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { events.Close() })
	return &manager{events: events}
}

// The service that owns Windows' own files has the best known of these SIDs.
func TestServiceSID(t *testing.T) {
	const want = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
	if have := serviceSID("TrustedInstaller"); have != want {
		t.Errorf("have %s, want %s", have, want)
	}
	if _, err := windows.StringToSid(serviceSID(serviceName)); err != nil {
		t.Error(err)
	}
}

func TestSameCommandLine(t *testing.T) {
	want := `"C:\Program Files\terminal-agent\terminal-agent.exe" run --service --config C:\ProgramData\terminal-agent\terminal-agent.toml`
	for line, same := range map[string]bool{
		want: true,
		`"C:\Program Files\terminal-agent\terminal-agent.exe" "run" "--service" --config "c:\programdata\terminal-agent\terminal-agent.toml"`: true,
		`"C:\Program Files\terminal-agent\terminal-agent.exe" run --config C:\ProgramData\terminal-agent\terminal-agent.toml`:                 false,
		`C:\other.exe run --service --config C:\ProgramData\terminal-agent\terminal-agent.toml`:                                               false,
	} {
		if have := sameCommandLine(line, want); have != same {
			t.Errorf("%s: %t", line, have)
		}
	}
}

func TestDescribeStatus(t *testing.T) {
	tests := []struct {
		status svc.Status
		want   serviceState
	}{
		{svc.Status{State: svc.Running}, serviceState{installed: true, running: true, words: "running"}},
		{svc.Status{State: svc.StartPending}, serviceState{installed: true, running: true, words: "starting"}},
		{svc.Status{State: svc.StopPending}, serviceState{installed: true, running: true, words: "stopping"}},
		{svc.Status{State: svc.Stopped}, serviceState{installed: true, words: "stopped"}},
		{svc.Status{State: svc.Stopped, Win32ExitCode: uint32(windows.ERROR_SERVICE_NEVER_STARTED)}, serviceState{installed: true, words: "stopped"}},
		{svc.Status{State: svc.Stopped, Win32ExitCode: uint32(windows.ERROR_SERVICE_SPECIFIC_ERROR), ServiceSpecificExitCode: exitConfig},
			serviceState{installed: true, words: "stopped: the configuration is wrong"}},
	}
	for _, tt := range tests {
		if have := describeStatus(tt.status); have != tt.want {
			t.Errorf("%+v: have %+v, want %+v", tt.status, have, tt.want)
		}
	}
}

// Each crash is answered with a start, later each time.
func TestRecovery(t *testing.T) {
	for i, action := range recovery {
		if action.Type != mgr.ServiceRestart || i > 0 && action.Delay <= recovery[i-1].Delay {
			t.Errorf("action %d: %+v", i, action)
		}
	}
}
