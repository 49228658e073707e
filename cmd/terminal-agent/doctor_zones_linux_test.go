package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"
)

// A PC without time zone data counts as UTC, which is worth a word; a time zone in
// the configuration cannot be had then.
func TestDoctorWithoutTimeZones(t *testing.T) {
	t.Parallel()
	l := newLab(t).withBroker().withCloud(0).withTerminal("success")
	code, r := l.withoutTimeZones()
	l.expect(r, verdictWarning, diagnosis{"time zone", "this PC has no time zone data, it counts as UTC", "install the package tzdata"})
	if code != exitOK {
		t.Errorf("exit code %d", code)
	}
	l.terminal = `timezone = "Europe/Berlin"`
	code, r = l.withoutTimeZones()
	l.expect(r, verdictFailed, diagnosis{"configuration", "Europe/Berlin", "install the package tzdata, or leave timezone out"})
	if code != exitConfig {
		t.Errorf("a time zone: exit code %d", code)
	}
}

// withoutTimeZones is the report where all places are empty in which a Go program
// looks for the data.
func (l *lab) withoutTimeZones() (int, report) {
	l.t.Helper()
	need(l.t, "root, to hide directories (unshare --mount)", exec.Command("unshare", "--mount", "true").Run())
	const hide = `for d in /usr/share/zoneinfo /usr/share/lib/zoneinfo /usr/lib/locale/TZ /etc/zoneinfo; do
		[ ! -d $d ] || mount -t tmpfs none $d || exit 99
	done
	exec "$0"`
	cmd := exec.Command("unshare", "--mount", "sh", "-c", hide, os.Args[0])
	cmd.Env = append(os.Environ(), "GOROOT=/nowhere", asAgent+"=doctor\n--json\n--config\n"+l.config())
	out, _ := cmd.Output() // the exit code is the outcome
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		l.t.Fatalf("%v: %s", err, out)
	}
	return cmd.ProcessState.ExitCode(), r
}
