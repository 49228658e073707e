//go:build !windows

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"terminalops/packaging"
)

// The unit has the lines that unitFor replaces, and no others differ.
func TestUnitFor(t *testing.T) {
	same, err := unitFor("/usr/bin/terminal-agent", defaultConfig(), defaultStateDir())
	if err != nil || same != packaging.SystemdUnit {
		t.Errorf("the package's own: %v\n%s", err, same)
	}
	unit, err := unitFor(`/opt/100% cash/agent`, `/etc/till $1/agent.toml`, `/data/agent`)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`ExecStart="/opt/100%% cash/agent" run --service --config "/etc/till $$1/agent.toml"`,
		`ConditionPathExists=/etc/till $1/agent.toml`,
		`ReadWritePaths=/data/agent`,
	} {
		if strings.Count(unit, want+"\n") != 1 {
			t.Errorf("no line %s in\n%s", want, unit)
		}
	}
	if _, err := unitFor("/opt/a\nUser=root", "/etc/a", "/var/a"); err == nil {
		t.Error("a path with a newline was taken")
	}
	systemdReads(t, unit)
}

// systemdReads has systemd's own parser look at a unit.
func systemdReads(t *testing.T, unit string) {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		if os.Getenv("TERMINALOPS_TEST_ALL") == "1" {
			t.Fatal("systemd-analyze is not installed")
		}
		t.Log("without systemd-analyze: the unit was not read by systemd")
		return
	}
	// It wants the program to be there.
	program := filepath.Join(t.TempDir(), "100% cash")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	unit = strings.Replace(unit, unitWord(`/opt/100% cash/agent`), unitWord(program), 1)
	// What systemd knows since 254 only; older ones call it an error.
	unit = regexp.MustCompile(`(?m)^Restart(Steps|MaxDelaySec)=.*\n`).ReplaceAllString(unit, "")
	file := filepath.Join(t.TempDir(), unitName)
	if err := os.WriteFile(file, []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", file).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestDescribeUnit(t *testing.T) {
	tests := []struct {
		properties string
		want       serviceState
	}{
		{"LoadState=not-found ActiveState=inactive", serviceState{words: "not installed"}},
		{"LoadState=masked ActiveState=inactive UnitFileState=masked", serviceState{installed: true, words: "masked by the administrator: systemctl unmask terminal-agent"}},
		{"LoadState=loaded ActiveState=active UnitFileState=enabled", serviceState{installed: true, running: true, words: "running"}},
		{"LoadState=loaded ActiveState=activating SubState=auto-restart UnitFileState=enabled", serviceState{installed: true, running: true, words: "activating (auto-restart)"}},
		{"LoadState=loaded ActiveState=failed Result=exit-code ExecMainStatus=78", serviceState{installed: true, words: "failed: the configuration is wrong"}},
		{"LoadState=loaded ActiveState=failed Result=watchdog ExecMainStatus=6", serviceState{installed: true, words: "failed (watchdog, exit code 6)"}},
		{"LoadState=loaded ActiveState=inactive ConditionResult=no ConditionTimestampMonotonic=0", serviceState{installed: true, words: "stopped"}},
		{"LoadState=loaded ActiveState=inactive ConditionResult=no ConditionTimestampMonotonic=5061", serviceState{installed: true, words: "stopped: there is no configuration; `terminal-agent config init` writes one"}},
		{"LoadState=loaded ActiveState=inactive ConditionResult=yes UnitFileState=disabled", serviceState{installed: true, words: "stopped; does not start with the machine: systemctl enable terminal-agent"}},
	}
	for _, tt := range tests {
		properties := make(map[string]string)
		for _, p := range strings.Fields(tt.properties) {
			key, value, _ := strings.Cut(p, "=")
			properties[key] = value
		}
		if have := describeUnit(properties); have != tt.want {
			t.Errorf("%s: have %+v, want %+v", tt.properties, have, tt.want)
		}
	}
}
