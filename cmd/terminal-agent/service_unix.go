//go:build !windows

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/kardianos/service"
	"github.com/spf13/pflag"

	"terminalops/packaging"
)

const (
	needsElevation = "only root may do that; try it with sudo"
	whereTheLogIs  = "its log: journalctl -u terminal-agent -n 20"

	serviceUser = "terminal-agent"
	unitName    = serviceName + ".service"
	execStart   = "ExecStart=/usr/bin/terminal-agent run --service --config /etc/terminal-agent/terminal-agent.toml"
)

// Where a package puts the unit; an administrator's own is in /etc.
var packageUnits = []string{"/usr/lib/systemd/system/" + unitName, "/lib/systemd/system/" + unitName}

func defaultConfig() string   { return "/etc/terminal-agent/terminal-agent.toml" }
func defaultStateDir() string { return "/var/lib/terminal-agent" }

func addPlatformFlags(*pflag.FlagSet, *installOptions) {}

func elevated() bool { return os.Geteuid() == 0 }

// controllable: only systemd is asked. What else there is can run the agent, too.
func controllable() error {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return errors.New("systemd does not run here; have your service manager run `terminal-agent run`")
	}
	return nil
}

// queryService asks systemd.
func queryService(ctx context.Context) (serviceState, error) {
	cmd := exec.CommandContext(ctx, "systemctl", "show", unitName,
		"--property=LoadState,ActiveState,SubState,Result,ExecMainStatus,StatusText,UnitFileState,ConditionResult,ConditionTimestampMonotonic")
	out, err := cmd.Output()
	if err != nil {
		return serviceState{}, fmt.Errorf("systemctl show: %w", err)
	}
	properties := make(map[string]string)
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), "=")
		properties[key] = value
	}
	state := describeUnit(properties)
	for _, path := range packageUnits {
		if _, err := os.Stat(path); err == nil {
			state.packaged = path
			break
		}
	}
	return state, nil
}

// describeUnit says what the properties of the unit mean.
func describeUnit(p map[string]string) serviceState {
	state := serviceState{installed: p["LoadState"] != "not-found" && p["LoadState"] != ""}
	switch active := p["ActiveState"]; {
	case !state.installed:
		state.words = "not installed"
	case p["LoadState"] == "masked":
		state.words = "masked by the administrator: systemctl unmask terminal-agent"
	case active == "active", active == "reloading":
		state.running = true
		state.words = "running"
		if text := p["StatusText"]; text != "" {
			state.words += ": " + text
		}
	case active == "activating", active == "deactivating":
		state.running = true
		state.words = active + " (" + p["SubState"] + ")"
	case active == "failed":
		state.words = fmt.Sprintf("failed (%s, exit code %s)", p["Result"], p["ExecMainStatus"])
		if p["ExecMainStatus"] == strconv.Itoa(exitConfig) {
			state.words = "failed: the configuration is wrong"
		}
	case p["ConditionResult"] == "no" && p["ConditionTimestampMonotonic"] != "0": // it was looked at
		state.words = "stopped: there is no configuration; `terminal-agent config init` writes one"
	default:
		state.words = "stopped"
	}
	if state.installed && p["UnitFileState"] == "disabled" {
		state.words += "; does not start with the machine: systemctl enable terminal-agent"
	}
	return state
}

// awaitService: systemctl has waited already.
func awaitService(ctx context.Context) (serviceState, error) { return queryService(ctx) }

// prepareService makes what the unit speaks of: the user, and a state directory
// elsewhere. The unit is the package's with another program and configuration.
func prepareService(ctx context.Context, exe string, c *config, o installOptions) (*service.Config, error) {
	file, err := filepath.Abs(o.from.file)
	if err != nil {
		return nil, err
	}
	for _, hidden := range []string{"/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/"} {
		for _, path := range []string{exe, file} {
			if strings.HasPrefix(path, hidden) {
				return nil, fmt.Errorf("%s: a service does not see what is below %s; the program belongs in /usr/local/bin, the configuration in /etc/terminal-agent", path, hidden)
			}
		}
	}
	unit, err := unitFor(exe, file, c.StateDir)
	if err != nil {
		return nil, err
	}
	sysusers := exec.CommandContext(ctx, "systemd-sysusers", "-")
	sysusers.Stdin = strings.NewReader(packaging.SystemdUser)
	if out, err := sysusers.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("systemd-sysusers: %w: %s", err, bytes.TrimSpace(out))
	}
	if err := shareConfig(file); err != nil {
		return nil, err
	}
	if password := c.Broker.PasswordFile; filepath.Dir(password) == filepath.Dir(file) { // config init wrote it there
		if err := shareConfig(password); err != nil {
			return nil, err
		}
	}
	if c.StateDir != defaultStateDir() {
		if err := makeStateDir(c.StateDir); err != nil {
			return nil, err
		}
	}
	if err := checkAsService(ctx, exe, file); err != nil {
		return nil, err
	}
	return &service.Config{Name: serviceName, Executable: exe, Option: service.KeyValue{"SystemdScript": unit}}, nil
}

// unitFor is the unit for a program that no package has installed.
func unitFor(exe, file, stateDir string) (string, error) {
	for _, path := range []string{exe, file, stateDir} {
		if strings.ContainsAny(path, "\n\r") || strings.Contains(path, "{{") {
			return "", fmt.Errorf("%q cannot stand in a unit", path)
		}
	}
	unit := packaging.SystemdUnit
	unit = strings.Replace(unit, execStart, "ExecStart="+unitWord(exe)+" run --service --config "+unitWord(file), 1)
	unit = strings.Replace(unit, "ConditionPathExists="+defaultConfig(), "ConditionPathExists="+strings.ReplaceAll(file, "%", "%%"), 1)
	if stateDir != defaultStateDir() {
		unit = strings.Replace(unit, "StateDirectory=terminal-agent\n", "StateDirectory=terminal-agent\nReadWritePaths="+unitWord(stateDir)+"\n", 1)
	}
	return unit, nil
}

// unitWord quotes one word of a command line (systemd.service(5), "Command
// lines"; systemd.unit(5), "Specifiers").
func unitWord(s string) string {
	s = strings.NewReplacer("%", "%%", "$", "$$", `\`, `\\`, `"`, `\"`).Replace(s)
	if strings.ContainsAny(s, " \t'\";") {
		return `"` + s + `"`
	}
	return s
}

// updateService: a unit in /etc that is there already has to be for this program
// and this configuration. One of another version becomes that of this one.
func updateService(ctx context.Context, definition *service.Config) error {
	path := "/etc/systemd/system/" + unitName
	have, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	want := definition.Option["SystemdScript"].(string)
	if execLine(string(have)) != execLine(want) {
		return fmt.Errorf("%s runs something else (%s); `terminal-agent service uninstall` removes it", path, execLine(string(have)))
	}
	if string(have) == want {
		return nil
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "systemctl", "daemon-reload").CombinedOutput(); err != nil {
		return fmt.Errorf("systemctl daemon-reload: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// execLine is what a unit runs.
func execLine(unit string) string {
	for line := range strings.Lines(unit) {
		if strings.HasPrefix(line, "ExecStart=") {
			return strings.TrimSpace(line)
		}
	}
	return "nothing"
}

func completeService(installOptions) error { return nil }

// makeConfigDir makes the directory of the configuration, for root and for the
// service.
func makeConfigDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return chgrpService(dir)
}

// shareWithService lets the service read a configuration that root writes.
func shareWithService(f *os.File) error {
	if !elevated() {
		return f.Chmod(0o600) // its group would be ours
	}
	if err := f.Chmod(0o640); err != nil {
		return err
	}
	return chgrpService(f.Name())
}

// shareConfig does the same for one that was written before there was a service,
// and for its directory; what the administrator has set otherwise stays.
func shareConfig(file string) error {
	for _, path := range []string{filepath.Dir(file), file} {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		if stat.Uid == 0 && stat.Gid == 0 && info.Mode().Perm()&0o007 == 0 {
			if err := chgrpService(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// chgrpService gives path to the group of the service, if there is one and we
// may.
func chgrpService(path string) error {
	group, err := user.LookupGroup(serviceUser)
	if err != nil || !elevated() {
		return nil
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		return err
	}
	return os.Chown(path, -1, gid)
}

func makeStateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	credential, err := serviceCredential()
	if err != nil {
		return err
	}
	return os.Chown(dir, int(credential.Uid), int(credential.Gid))
}

// checkAsService has the program check the configuration with the eyes of the
// service's user: whether it can read it all, above all.
func checkAsService(ctx context.Context, exe, file string) error {
	credential, err := serviceCredential()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, exe, "config", "check", "--config", file)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	if out, err := cmd.CombinedOutput(); err != nil {
		return configError{fmt.Errorf("as user %s: %s", serviceUser, bytes.TrimPrefix(bytes.TrimSpace(out), []byte("terminal-agent: ")))}
	}
	return nil
}

func serviceCredential() (*syscall.Credential, error) {
	u, err := user.Lookup(serviceUser)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
