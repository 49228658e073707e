package main

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// commands are all there are, as they are typed.
func commands() []string {
	all := []string{"run", "config init", "config check", "config show", "debug", "decode", "doctor", "status", "history", "operation run", "ports"}
	for name := range serviceCommands {
		all = append(all, "service "+name)
	}
	slices.Sort(all)
	return all
}

// flagsOf returns the flags that a command's --help tells of.
func flagsOf(t *testing.T, command string) []string {
	t.Helper()
	code, help := output(append(strings.Fields(command), "--help")...)
	if code != exitOK {
		t.Fatalf("%s --help: exit code %d: %s", command, code, help)
	}
	flags := []string{"--help"}
	for _, m := range regexp.MustCompile(`(?m)^\s+(--[a-z-]+)`).FindAllStringSubmatch(help, -1) {
		flags = append(flags, m[1])
	}
	slices.Sort(flags)
	return slices.Compact(flags)
}

func packaged(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile("../../packaging/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// onlyOnWindows are flags that the manual of the other systems does not have.
var onlyOnWindows = []string{"--delayed-start"}

// The usage, the man page and the completions know every command and every flag.
func TestHelpIsWhole(t *testing.T) {
	_, usage := output("--help")
	manual := packaged(t, "man/terminal-agent.1")
	shells := map[string]string{
		"bash": packaged(t, "completions/terminal-agent.bash"),
		"zsh":  packaged(t, "completions/_terminal-agent"),
		"fish": packaged(t, "completions/terminal-agent.fish"),
	}
	for _, command := range commands() {
		last := command[strings.LastIndex(command, " ")+1:]
		if !strings.Contains(usage, last) {
			t.Errorf("--help does not know %s", command)
		}
		if !regexp.MustCompile(`(?m)^\.(Cm|It Cm).*\b` + last + `\b`).MatchString(manual) {
			t.Errorf("the man page does not know %s", command)
		}
		for _, flag := range flagsOf(t, command) {
			if slices.Contains(onlyOnWindows, flag) {
				continue
			}
			name := strings.TrimPrefix(flag, "--")
			if !strings.Contains(manual, ".It Fl Fl "+name) && !strings.Contains(manual, ", Fl Fl "+name) {
				t.Errorf("the man page does not know %s of %s", flag, command)
			}
			for shell, script := range shells {
				if !strings.Contains(script, name) || !strings.Contains(script, last) {
					t.Errorf("%s does not know %s of %s", shell, flag, command)
				}
			}
		}
	}
}

// The man page of the configuration has every key of the reference.
func TestConfigManualIsWhole(t *testing.T) {
	manual := packaged(t, "man/terminal-agent.toml.5")
	for _, m := range regexp.MustCompile(`(?m)^#?([a-z0-9_]+)\s*=`).FindAllStringSubmatch(packaged(t, "terminal-agent.toml"), -1) {
		if !strings.Contains(manual, ".It Cm "+m[1]) && !strings.Contains(manual, ", Cm "+m[1]) {
			t.Errorf("the man page does not know the key %s", m[1])
		}
	}
}

// What bash offers after a command is exactly what the command takes.
func TestBashCompletes(t *testing.T) {
	if len(slices.DeleteFunc(flagsOf(t, "service install"), func(f string) bool { return !slices.Contains(onlyOnWindows, f) })) > 0 {
		t.Skip("this is Windows, whose flags bash does not offer")
	}
	if _, err := exec.LookPath("bash"); err != nil {
		if os.Getenv("TERMINALOPS_TEST_ALL") == "1" {
			t.Fatal("needs bash:", err)
		}
		t.Skip("needs bash:", err)
	}
	for _, command := range commands() {
		words := "terminal-agent " + command + " --"
		script := `source ../../packaging/completions/terminal-agent.bash
			COMP_WORDS=(` + words + `); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
			_terminal_agent; printf '%s\n' "${COMPREPLY[@]}"`
		out, err := exec.Command("bash", "-c", script).CombinedOutput()
		if err != nil {
			t.Fatalf("bash: %v: %s", err, out)
		}
		have := strings.Fields(string(out))
		slices.Sort(have)
		if want := flagsOf(t, command); !slices.Equal(have, want) {
			t.Errorf("%s: bash offers %q, it takes %q", command, have, want)
		}
	}
}
