package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"

	"terminalops/packaging"
)

// config is `terminal-agent config`.
func (p program) config(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return configError{errors.New("config: want init, check or show")}
	}
	switch name, rest := args[0], args[1:]; name {
	case "init":
		return p.configInit(ctx, rest)
	case "check":
		return p.configCheck(rest)
	case "show":
		return p.configShow(rest)
	default:
		return configError{fmt.Errorf("config: unknown command %q; want init, check or show", name)}
	}
}

// configCheck is `terminal-agent config check`.
func (p program) configCheck(args []string) error {
	flags := p.flags("config check", "Says whether the agent would start with a configuration: 0, or 78 and what is wrong.")
	from := newSource(flags, p.getenv)
	if err := parse(flags, args); err != nil {
		return err
	}
	c, err := from.load()
	if err != nil {
		return err
	}
	if _, err := newLanes(c, nil, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	for _, t := range c.Terminals {
		fmt.Fprintf(p.stdout, "terminal %s at %s\n", t.ID, t.Link)
	}
	fmt.Fprintf(p.stdout, "%s is right\n", from.file)
	return nil
}

// setting is one line of the configuration, and the flag that gives it.
type setting struct {
	flag, table, key string
	required         bool
	number           bool // in TOML
	help             string
	value            string
}

type settings []*setting

// named is the setting of a flag.
func (all settings) named(flag string) *setting {
	for _, s := range all {
		if s.flag == flag {
			return s
		}
	}
	panic("terminal-agent: no setting " + flag)
}

// initSettings are those with a flag. The broker's URLs are several, and apart.
func initSettings() settings {
	return settings{
		{flag: "terminal-id", table: "terminal", key: "id", required: true, help: "the terminal's id, as the cloud knows it; required"},
		{flag: "link", table: "terminal", key: "link", required: true, help: "serial:/dev/ttyACM0, serial:COM3, usb:0b00:0080 or tcp:192.0.2.10:20007; required"},
		{flag: "broker-username", table: "broker", key: "username", help: "name for the broker"},
		{flag: "broker-password-file", table: "broker", key: "password_file", help: "`FILE` with the password for the broker"},
		{flag: "ca-file", table: "broker", key: "ca_file", help: "`FILE` with the authority of the broker's certificate"},
		{flag: "cert-file", table: "broker", key: "cert_file", help: "`FILE` with the certificate for the broker (mutual TLS)"},
		{flag: "key-file", table: "broker", key: "key_file", help: "`FILE` with its key"},
		{flag: "state-dir", key: "state_dir", value: defaultStateDir(), help: "`DIRECTORY` for the journal"},
	}
}

// configInit is `terminal-agent config init`: the reference configuration with
// what was given filled in. Whoever is at a terminal is asked for the rest if
// something has to be given. It never overwrites.
func (p program) configInit(ctx context.Context, args []string) error {
	flags := p.flags("config init", "Writes a configuration for one terminal, with every key that there is and a word about it.\n"+
		"At a terminal it asks for what is not given, once something required is not.\nAn existing file stays as it is.")
	all := initSettings()
	urls := flags.StringSlice("broker-url", nil, "tls://broker.example.com:8883; may be repeated; required")
	for _, s := range all {
		flags.StringVar(&s.value, s.flag, s.value, s.help)
	}
	noInput := flags.Bool("no-input", false, "asks nothing, also at a terminal")
	var to source
	to.addFile(flags, p.getenv)
	if err := parse(flags, args); err != nil {
		return err
	}
	if _, err := os.Stat(to.file); err == nil {
		fmt.Fprintf(p.stdout, "%s is there already; it stays as it is\n", to.file)
		return nil
	}
	whole := len(*urls) > 0 && all.named("terminal-id").value != "" && all.named("link").value != ""
	if a, leave, there := p.askAtTerminal(); there && !whole && !*noInput {
		defer leave()
		return p.configAsk(ctx, a, to.file, *urls, all)
	}
	return p.configWrite(to.file, *urls, all)
}

// configWrite writes the configuration as it was given.
func (p program) configWrite(file string, urls []string, all settings) error {
	text, err := fillIn(urls, all)
	if err != nil {
		return configError{fmt.Errorf("config init: %w", err)}
	}
	if err := writeWhole(file, text, shareWithService); err != nil {
		return fmt.Errorf("config init: %w", err)
	}
	fmt.Fprintf(p.stdout, "%s is written\n", file)
	return nil
}

// fillIn is the reference configuration with settings in it. What is not given
// stays a comment.
func fillIn(urls []string, all settings) (string, error) {
	if len(urls) == 0 {
		return "", errors.New("--broker-url is missing")
	}
	var quoted []string
	for _, u := range urls {
		q, err := quote(u)
		if err != nil {
			return "", fmt.Errorf("--broker-url: %w", err)
		}
		quoted = append(quoted, q)
	}
	text := setKey(packaging.AgentConfig, "broker", "urls", "["+strings.Join(quoted, ", ")+"]")
	for _, s := range all {
		if s.value == "" {
			if s.required {
				return "", fmt.Errorf("--%s is missing", s.flag)
			}
			continue
		}
		q, err := quote(s.value)
		if err != nil {
			return "", fmt.Errorf("--%s: %w", s.flag, err)
		}
		if s.number {
			q = s.value
		}
		text = setKey(text, s.table, s.key, q)
	}
	c, err := parseConfig([]byte(text))
	if err == nil {
		err = c.check([]byte(text))
	}
	return text, err
}

// quote writes a TOML basic string (TOML 1.0, "String").
func quote(value string) (string, error) {
	if strings.ContainsFunc(value, unicode.IsControl) {
		return "", fmt.Errorf("%q: control characters", value)
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`, nil
}

// setKey sets a key of a table to a TOML value, on the line where the reference
// configuration has it, in use or commented out. "" is the table at the top.
func setKey(text, table, key, value string) string {
	line := regexp.MustCompile(`^#?` + regexp.QuoteMeta(key) + `\s*=`)
	lines := strings.Split(text, "\n")
	at := ""
	for i, l := range lines {
		if m := header.FindStringSubmatch(l); m != nil {
			at = m[1]
		}
		if at == table && line.MatchString(l) {
			lines[i] = key + " = " + value
			return strings.Join(lines, "\n")
		}
	}
	panic("the reference configuration has no " + table + "." + key)
}

// writeWhole writes a file whole or not at all, for the agent's and the
// administrator's eyes, as share sees to it.
func writeWhole(path, text string, share func(*os.File) error) (err error) {
	dir := filepath.Dir(path)
	if err := makeConfigDir(dir); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := io.WriteString(f, text); err != nil {
		return err
	}
	if err := share(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return renameToNew(f.Name(), path)
}

// renameToNew is a Rename that leaves alone what has come to be there meanwhile.
func renameToNew(from, to string) error {
	err := os.Link(from, to)
	if err == nil {
		return os.Remove(from)
	}
	if _, there := os.Lstat(to); there == nil {
		return fmt.Errorf("%s: %w", to, fs.ErrExist)
	}
	return os.Rename(from, to) // a file system without links
}
