package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"

	"terminalops/device/link"
	"terminalops/device/zvt"
	"terminalops/device/zvt/apdu"
	"terminalops/transport"
)

// The configuration is one TOML file; packaging/terminal-agent.toml is its
// reference. It is strict: an unknown key is an error. What a person would
// expect to say elsewhere can come from the environment or a flag, which win in
// this order.

// config is the file.
type config struct {
	StateDir   string           `toml:"state_dir"`
	LogLevel   string           `toml:"log_level"`
	LogFile    *string          `toml:"log_file"` // nil: the supervisor's; empty: none
	ResolveFor duration         `toml:"resolve_for"`
	Broker     brokerConfig     `toml:"broker"`
	Commands   commandsConfig   `toml:"commands"`
	Terminals  []terminalConfig `toml:"terminal"`
}

type brokerConfig struct {
	URLs         []string `toml:"urls"`
	Prefix       string   `toml:"prefix"`
	CAFile       string   `toml:"ca_file"`
	Proxy        string   `toml:"proxy"`
	CertFile     string   `toml:"cert_file"`
	KeyFile      string   `toml:"key_file"`
	Username     string   `toml:"username"`
	PasswordFile string   `toml:"password_file"`

	password string // from the environment
}

type commandsConfig struct {
	TrustedKeys string `toml:"trusted_keys"`
}

type terminalConfig struct {
	ID       string    `toml:"id"`
	Protocol string    `toml:"protocol"`
	Link     string    `toml:"link"`
	Baud     int       `toml:"baud"`
	StopBits int       `toml:"stop_bits"`
	Timezone string    `toml:"timezone"`
	ZVT      zvtConfig `toml:"zvt"`

	// Credentials of its own, instead of the broker's.
	CertFile     string `toml:"cert_file"`
	KeyFile      string `toml:"key_file"`
	Username     string `toml:"username"`
	PasswordFile string `toml:"password_file"`

	address  link.Address   // Link, parsed
	location *time.Location // Timezone, loaded
}

type zvtConfig struct {
	Password   string   `toml:"password"`
	Currency   int      `toml:"currency"`
	ConfigByte *int     `toml:"config_byte"`
	Receipt    string   `toml:"receipt"`
	T1         duration `toml:"t1"`
	T3         duration `toml:"t3"`
	T4         duration `toml:"t4"`
}

// duration is a time.Duration written as in "1s".
type duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed <= 0 {
		return fmt.Errorf("want a time such as \"200ms\" or \"24h\", have %q", text)
	}
	*d = duration(parsed)
	return nil
}

// check finds a number without a unit, which TOML takes for nanoseconds. Nothing
// here is that short.
func (d duration) check() error {
	if time.Duration(d) < time.Millisecond {
		return fmt.Errorf("%d: want a time with its unit, such as \"200ms\" or \"24h\"", int64(d))
	}
	return nil
}

// String is as in the file.
func (d duration) String() string { return time.Duration(d).String() }

// Defaults. T1 is longer than the specification's 200 ms: USB adapters deliver
// in bursts with longer gaps, and a longer T1 costs nothing on a good line
// (our decision).
const (
	defaultLogLevel   = "info"
	defaultResolveFor = 24 * time.Hour
	defaultPrefix     = "terminals"
	defaultBaud       = 9600
	defaultStopBits   = 2
	defaultCurrency   = 978
	defaultConfigByte = 0x8C
	defaultT1         = time.Second
	defaultT3         = 5 * time.Second
	defaultT4         = 180 * time.Second
)

// setDefault gives a key its value where the file has none.
func setDefault[T comparable](key *T, value T) {
	var zero T
	if *key == zero {
		*key = value
	}
}

// source is where a configuration comes from: the file, and what overrides it.
type source struct {
	file         string
	stateDir     string
	urls         []string
	username     string
	passwordFile string
	password     string // the environment's
	level        string
}

// brokerPasswordVariable is the only way to give the password itself.
const brokerPasswordVariable = "TERMINAL_AGENT_BROKER_PASSWORD"

// newSource adds the flags of a source; after they are parsed, it is filled in.
func newSource(flags *pflag.FlagSet, getenv func(string) string) *source {
	s := &source{password: getenv(brokerPasswordVariable)}
	s.addFile(flags, getenv)
	flags.StringVar(&s.stateDir, "state-dir", getenv("TERMINAL_AGENT_STATE_DIR"), "instead of state_dir (TERMINAL_AGENT_STATE_DIR)")
	flags.StringSliceVar(&s.urls, "broker-url", strings.FieldsFunc(getenv("TERMINAL_AGENT_BROKER_URLS"), func(r rune) bool { return r == ',' || r == ' ' }),
		"instead of broker.urls; may be repeated (TERMINAL_AGENT_BROKER_URLS)")
	flags.StringVar(&s.username, "broker-username", getenv("TERMINAL_AGENT_BROKER_USERNAME"), "instead of broker.username (TERMINAL_AGENT_BROKER_USERNAME)")
	flags.StringVar(&s.passwordFile, "broker-password-file", getenv("TERMINAL_AGENT_BROKER_PASSWORD_FILE"),
		"instead of broker.password_file (TERMINAL_AGENT_BROKER_PASSWORD_FILE; the password itself: "+brokerPasswordVariable+")")
	flags.StringVar(&s.level, "log-level", getenv("TERMINAL_AGENT_LOG_LEVEL"), "instead of log_level: debug, info, warn, error (TERMINAL_AGENT_LOG_LEVEL)")
	return s
}

// addFile adds the flag that names the file.
func (s *source) addFile(flags *pflag.FlagSet, getenv func(string) string) {
	file := getenv("TERMINAL_AGENT_CONFIG")
	if file == "" {
		file = defaultConfig()
	}
	flags.StringVar(&s.file, "config", file, "configuration `FILE` (TERMINAL_AGENT_CONFIG)")
}

// load reads the file, applies what overrides it, and checks what can be checked
// without touching anything. Every error is a configError.
func (s *source) load() (*config, error) {
	content, err := os.ReadFile(s.file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, configError{fmt.Errorf("configuration: %w; `terminal-agent config init` writes one", err)}
	}
	if err != nil {
		return nil, configError{fmt.Errorf("configuration: %w", err)}
	}
	c, err := parseConfig(content)
	if err != nil {
		return nil, configError{fmt.Errorf("%s: %w", s.file, err)}
	}
	override(&c.StateDir, s.stateDir)
	override(&c.Broker.Username, s.username)
	override(&c.Broker.PasswordFile, s.passwordFile)
	override(&c.LogLevel, s.level)
	if len(s.urls) > 0 {
		c.Broker.URLs = s.urls
	}
	c.Broker.password = s.password
	if err := c.check(content); err != nil {
		return nil, configError{fmt.Errorf("%s: %w", s.file, err)}
	}
	return c, nil
}

func override(value *string, by string) {
	if by != "" {
		*value = by
	}
}

// parseConfig reads the file's text.
func parseConfig(content []byte) (*config, error) {
	var c config
	decoder := toml.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&c)
	var strict *toml.StrictMissingError
	var decode *toml.DecodeError
	switch {
	case errors.As(err, &strict):
		first := strict.Errors[0]
		line, _ := first.Position()
		return nil, fmt.Errorf("line %d: unknown key %s", line, strings.Join(first.Key(), "."))
	case errors.As(err, &decode):
		line, column := decode.Position()
		return nil, fmt.Errorf("line %d, column %d: %s", line, column, inTOML(decode))
	case err != nil:
		return nil, err
	}
	return &c, nil
}

// wrongType is how the library says that a value is of the wrong type, in the
// words of this program's text.
var wrongType = regexp.MustCompile(`cannot decode TOML (\w+) into struct field \S+ of type (\S+)`)

// inTOML is an error of the library in the words of the file.
func inTOML(err *toml.DecodeError) string {
	text := strings.TrimPrefix(err.Error(), "toml: ")
	m := wrongType.FindStringSubmatch(text)
	if m == nil {
		return text
	}
	want := "another type"
	switch strings.TrimPrefix(m[2], "*") {
	case "string":
		want = "a text in quotes"
	case "int":
		want = "a whole number"
	case "[]string":
		want = "a list of texts, in brackets"
	}
	return fmt.Sprintf("%s: want %s, have a TOML %s", strings.Join(err.Key(), "."), want, m[1])
}

// check fills in defaults, and finds what is missing or contradicts itself. An
// error of url.Parse may hold a part of a password, and is not repeated.
func (c *config) check(content []byte) error {
	setDefault(&c.LogLevel, defaultLogLevel)
	setDefault(&c.ResolveFor, duration(defaultResolveFor))
	setDefault(&c.Broker.Prefix, defaultPrefix)
	if c.StateDir == "" {
		return errors.New("state_dir is missing: the directory for the journal")
	}
	if !filepath.IsAbs(c.StateDir) {
		return fmt.Errorf("state_dir %q: want an absolute path", c.StateDir)
	}
	if _, err := c.level(); err != nil {
		return err
	}
	if err := c.ResolveFor.check(); err != nil {
		return fmt.Errorf("resolve_for: %w", err)
	}
	if c.LogFile != nil && *c.LogFile != "" && !filepath.IsAbs(*c.LogFile) {
		return fmt.Errorf("log_file %q: want an absolute path, or \"\" for none", *c.LogFile)
	}
	if c.Commands.TrustedKeys != "" {
		return fmt.Errorf("%s: commands.trusted_keys: this version cannot verify signed commands yet; it does not run without the check that was asked for",
			lineOf(content, "commands", 0, "trusted_keys"))
	}
	if len(c.Broker.URLs) == 0 {
		return errors.New(`broker.urls is missing: for instance urls = ["tls://broker.example.com:8883"]`)
	}
	for _, u := range c.Broker.URLs {
		if _, err := url.Parse(u); err != nil {
			return errors.New("broker.urls: not a URL such as tls://broker.example.com:8883; name and password do not belong there")
		}
	}
	if _, err := url.Parse(c.Broker.Proxy); err != nil {
		return fmt.Errorf("%s: broker.proxy: not a URL such as http://proxy.example.com:3128; in a password, / is written %%2F, @ %%40 and a blank %%20",
			lineOf(content, "broker", 0, "proxy"))
	}
	if len(c.Terminals) == 0 {
		return errors.New("no [[terminal]]: nothing to do")
	}
	ids, links := map[string]bool{}, map[link.Address]bool{}
	for i := range c.Terminals {
		t := &c.Terminals[i]
		where := func(key string) string {
			return fmt.Sprintf("%s: terminal %q: %s", lineOf(content, "terminal", i, key), t.ID, key)
		}
		if err := t.check(where); err != nil {
			return err
		}
		if ids[t.ID] {
			return fmt.Errorf("%s: another [[terminal]] has this id", where("id"))
		}
		if links[t.address] {
			return fmt.Errorf("%s %q: another [[terminal]] has this link", where("link"), t.Link)
		}
		ids[t.ID], links[t.address] = true, true
	}
	return nil
}

// check fills in the defaults of one terminal. where names a key and its line.
func (t *terminalConfig) check(where func(key string) string) (err error) {
	if !transport.ValidTerminalID(t.ID) {
		return fmt.Errorf("%s: want 1 to 64 letters, digits, '-' or '_'", where("id"))
	}
	switch t.Protocol {
	case "zvt":
	case "kit", "helper":
		return fmt.Errorf("%s %q: this version speaks zvt only", where("protocol"), t.Protocol)
	default:
		return fmt.Errorf("%s %q: want zvt", where("protocol"), t.Protocol)
	}
	if t.address, err = link.Parse(t.Link); err != nil {
		return fmt.Errorf("%s: %w", where("link"), err)
	}
	t.location = time.Local
	if t.Timezone != "" {
		if t.location, err = time.LoadLocation(t.Timezone); err != nil {
			return fmt.Errorf("%s %q: want a name such as Europe/Berlin: %w", where("timezone"), t.Timezone, err)
		}
	}
	setDefault(&t.Baud, defaultBaud)
	if t.Baud < 0 {
		return fmt.Errorf("%s %d: want bits per second, such as 9600 or 115200", where("baud"), t.Baud)
	}
	setDefault(&t.StopBits, defaultStopBits)
	if t.StopBits != 1 && t.StopBits != 2 {
		return fmt.Errorf("%s %d: want 1 or 2", where("stop_bits"), t.StopBits)
	}
	return t.ZVT.check(where)
}

// check fills in the defaults of [terminal.zvt].
func (z *zvtConfig) check(where func(key string) string) error {
	if _, err := apdu.ParsePassword(z.Password); z.Password != "" && err != nil {
		return fmt.Errorf("%s: want six digits in quotes", where("password"))
	}
	setDefault(&z.Currency, defaultCurrency)
	if _, err := apdu.NewCurrency(z.Currency); err != nil {
		return fmt.Errorf("%s %d: want a number of ISO 4217, such as 978 (EUR) or 756 (CHF)", where("currency"), z.Currency)
	}
	if z.ConfigByte == nil {
		b := defaultConfigByte
		z.ConfigByte = &b
	}
	if *z.ConfigByte < 1 || *z.ConfigByte > 0xFF {
		return fmt.Errorf("%s %#x: want one byte, not 0", where("config_byte"), *z.ConfigByte)
	}
	setDefault(&z.Receipt, zvt.ReceiptReport)
	if z.Receipt != zvt.ReceiptReport && z.Receipt != zvt.ReceiptTerminal {
		return fmt.Errorf("%s %q: want %q or %q", where("receipt"), z.Receipt, zvt.ReceiptReport, zvt.ReceiptTerminal)
	}
	for _, timer := range []struct {
		key   string
		value *duration
		none  time.Duration
	}{{"t1", &z.T1, defaultT1}, {"t3", &z.T3, defaultT3}, {"t4", &z.T4, defaultT4}} {
		setDefault(timer.value, duration(timer.none))
		if err := timer.value.check(); err != nil {
			return fmt.Errorf("%s: %w", where(timer.key), err)
		}
	}
	return nil
}

// level is log_level, parsed.
func (c *config) level() (slog.Level, error) {
	if c.LogLevel == "" {
		return slog.LevelInfo, nil
	}
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return 0, fmt.Errorf("log_level %q: want debug, info, warn or error", c.LogLevel)
	}
	return l, nil
}

var header = regexp.MustCompile(`^\s*\[+\s*([A-Za-z_.]+)\s*\]+`)

// lineOf finds the line of a key in the n-th table of a name or in a table
// below it, for messages; the line of the table if the key is not there.
func lineOf(content []byte, table string, n int, key string) string {
	found, number := 0, -1
	inside := false
	for i, line := range strings.Split(string(content), "\n") {
		if m := header.FindStringSubmatch(line); m != nil {
			if m[1] == table {
				number++
			}
			inside = number == n && (m[1] == table || strings.HasPrefix(m[1], table+"."))
			if inside && m[1] == table {
				found = i + 1
			}
		}
		name, _, isPair := strings.Cut(line, "=")
		if inside && isPair && strings.TrimSpace(name) == key {
			return fmt.Sprint("line ", i+1)
		}
	}
	return fmt.Sprint("line ", found)
}
