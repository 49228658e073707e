package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"

	"terminalops/dispatcher"
	"terminalops/dispatcher/broker"
	"terminalops/transport/mqtt"
)

// The configuration is one TOML file; packaging/terminal-dispatcher.toml is its
// reference. It is strict: an unknown key is an error. What a person would
// expect to say elsewhere can come from the environment or a flag, which win in
// this order. Paths are relative to the file's own directory.

// config is the file.
type config struct {
	StateDir  string        `toml:"state_dir"`
	Database  string        `toml:"database"`
	Listen    string        `toml:"listen"`
	PublicURL string        `toml:"public_url"`
	LogLevel  string        `toml:"log_level"`
	HTTPS     certificate   `toml:"https"`
	Auth      authConfig    `toml:"auth"`
	Broker    brokerConfig  `toml:"broker"`
	Times     timesConfig   `toml:"times"`
	Uploads   uploadsConfig `toml:"uploads"`
}

type certificate struct {
	CertFile string `toml:"cert_file"`
	KeyFile  string `toml:"key_file"`
}

type authConfig struct {
	HMACSecretFile string   `toml:"hmac_secret_file"`
	JWKSFile       string   `toml:"jwks_file"`
	Issuers        []string `toml:"issuers"`
	Audience       string   `toml:"audience"`

	makeSecret bool // no file was named: it is made on first use
}

type brokerConfig struct {
	URLs         []string       `toml:"urls"`
	Prefix       string         `toml:"prefix"`
	ClientID     string         `toml:"client_id"`
	CAFile       string         `toml:"ca_file"`
	CertFile     string         `toml:"cert_file"`
	KeyFile      string         `toml:"key_file"`
	Username     string         `toml:"username"`
	PasswordFile string         `toml:"password_file"`
	Embedded     embeddedConfig `toml:"embedded"`
}

type embeddedConfig struct {
	Listen   string       `toml:"listen"`
	StoreDir string       `toml:"store_dir"`
	CertFile string       `toml:"cert_file"`
	KeyFile  string       `toml:"key_file"`
	Users    []userConfig `toml:"user"`
}

type userConfig struct {
	Name         string   `toml:"name"`
	PasswordFile string   `toml:"password_file"`
	Terminals    []string `toml:"terminals"`
}

type timesConfig struct {
	StartDeadline   duration `toml:"start_deadline"`
	Grace           duration `toml:"grace"`
	SilenceWindow   duration `toml:"silence_window"`
	EndOfDay        duration `toml:"end_of_day"`
	SendLogs        duration `toml:"send_logs"`
	CheckUpdate     duration `toml:"check_update"`
	OpenMenu        duration `toml:"open_menu"`
	ShortestTimeout duration `toml:"shortest_timeout"`
	LongestTimeout  duration `toml:"longest_timeout"`
}

type uploadsConfig struct {
	Dir      string   `toml:"dir"`
	KeyFile  string   `toml:"key_file"`
	MaxBytes int64    `toml:"max_bytes"`
	Keep     duration `toml:"keep"`
}

// duration is a time.Duration written as in "1s".
type duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed <= 0 {
		return fmt.Errorf("want a time such as \"90s\" or \"720h\", have %q", text)
	}
	*d = duration(parsed)
	return nil
}

const (
	defaultListen       = "127.0.0.1:8080"
	defaultBrokerListen = "127.0.0.1:1883"
	defaultPrefix       = "terminals"
	defaultClientID     = "terminal-dispatcher"
	defaultIssuer       = "terminal-dispatcher"
	defaultMaxBytes     = 16 << 20
	defaultKeep         = 30 * 24 * time.Hour
)

// settings are the flags that stand for keys of the configuration.
type settings struct {
	file, stateDir, listen, publicURL, logLevel string
}

// define adds the flags that every command has. Each has an environment
// variable of the same name.
func (s *settings) define(p program, flags *pflag.FlagSet) {
	p.flag(flags, &s.file, "config", "configuration file")
	p.flag(flags, &s.stateDir, "state-dir", "instead of state_dir")
}

func (s *settings) defineServe(p program, flags *pflag.FlagSet) {
	s.define(p, flags)
	p.flag(flags, &s.listen, "listen", "instead of listen: host:port for HTTP")
	p.flag(flags, &s.publicURL, "public-url", "instead of public_url")
	p.flag(flags, &s.logLevel, "log-level", "instead of log_level: debug, info, warn, error")
}

func (p program) flag(flags *pflag.FlagSet, value *string, name, usage string) {
	env := "TERMINAL_DISPATCHER_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
	flags.StringVar(value, name, p.getenv(env), fmt.Sprintf("%s (%s)", usage, env))
}

// flags returns an empty set for a command; synopsis is the beginning of its help.
func (p program) flags(name, synopsis string) *pflag.FlagSet {
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	flags.SetOutput(p.stderr)
	flags.SortFlags = false
	flags.Usage = func() { fmt.Fprintf(p.stdout, "%s\n\nFlags:\n%s", synopsis, flags.FlagUsages()) }
	return flags
}

// parse reads a command line; most is how many arguments may follow the flags,
// -1 for any number.
func parse(flags *pflag.FlagSet, args []string, most int) error {
	err := flags.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return err
	case err != nil:
		return configError{err}
	case most >= 0 && flags.NArg() > most:
		return wrong("unexpected argument %q", flags.Arg(most))
	}
	return nil
}

// load reads the file and completes it. Every error is a configError.
func (s settings) load() (*config, error) {
	if s.file == "" {
		return nil, wrong("no configuration: give --config FILE")
	}
	content, err := os.ReadFile(s.file)
	if err != nil {
		return nil, configError{err}
	}
	c, err := parseConfig(content)
	if err != nil {
		return nil, wrong("%s: %w", s.file, err)
	}
	override(&c.StateDir, s.stateDir)
	override(&c.Listen, s.listen)
	override(&c.PublicURL, s.publicURL)
	override(&c.LogLevel, s.logLevel)
	dir, err := filepath.Abs(filepath.Dir(s.file))
	if err != nil {
		return nil, configError{err}
	}
	if err := c.complete(dir); err != nil {
		return nil, wrong("%s: %w", s.file, err)
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
		return nil, fmt.Errorf("line %d, column %d: %s", line, column, strings.TrimPrefix(decode.Error(), "toml: "))
	case err != nil:
		return nil, err
	}
	return &c, nil
}

// complete fills in defaults, makes paths absolute, and finds what is missing
// or contradicts itself. dir is the file's.
func (c *config) complete(dir string) error {
	if c.StateDir == "" {
		return errors.New("state_dir is missing: the directory for everything that must last")
	}
	absolute := func(path *string, otherwise string) {
		if *path == "" {
			*path = otherwise
		}
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
		*path = filepath.FromSlash(*path) // one way to write it in messages, also on Windows
	}
	absolute(&c.StateDir, "")
	absolute(&c.Database, filepath.Join(c.StateDir, "dispatcher.db"))
	absolute(&c.Uploads.Dir, filepath.Join(c.StateDir, "uploads"))
	absolute(&c.Uploads.KeyFile, filepath.Join(c.StateDir, "upload.key"))
	absolute(&c.Broker.Embedded.StoreDir, filepath.Join(c.StateDir, "broker"))
	if c.Auth.HMACSecretFile == "" && c.Auth.JWKSFile == "" {
		c.Auth.HMACSecretFile, c.Auth.makeSecret = filepath.Join(c.StateDir, "hmac.secret"), true
	}
	for _, path := range []*string{
		&c.Auth.HMACSecretFile, &c.Auth.JWKSFile, &c.HTTPS.CertFile, &c.HTTPS.KeyFile,
		&c.Broker.CAFile, &c.Broker.CertFile, &c.Broker.KeyFile, &c.Broker.PasswordFile,
		&c.Broker.Embedded.CertFile, &c.Broker.Embedded.KeyFile,
	} {
		absolute(path, "")
	}
	for i := range c.Broker.Embedded.Users {
		absolute(&c.Broker.Embedded.Users[i].PasswordFile, "")
	}
	c.defaults()
	return c.check()
}

func (c *config) defaults() {
	for _, d := range []struct {
		value     *string
		otherwise string
	}{
		{&c.Listen, defaultListen},
		{&c.Broker.Prefix, defaultPrefix},
		{&c.Broker.ClientID, defaultClientID},
		{&c.Broker.Embedded.Listen, defaultBrokerListen},
	} {
		if *d.value == "" {
			*d.value = d.otherwise
		}
	}
	if c.PublicURL == "" {
		scheme := "http"
		if c.HTTPS.CertFile != "" {
			scheme = "https"
		}
		c.PublicURL = scheme + "://" + c.Listen
	}
	c.PublicURL = strings.TrimSuffix(c.PublicURL, "/")
	if len(c.Auth.Issuers) == 0 {
		c.Auth.Issuers = []string{defaultIssuer}
	}
	if c.Auth.Audience == "" {
		c.Auth.Audience = c.PublicURL + "/v1"
	}
	if c.Uploads.MaxBytes == 0 {
		c.Uploads.MaxBytes = defaultMaxBytes
	}
	if c.Uploads.Keep == 0 {
		c.Uploads.Keep = duration(defaultKeep)
	}
}

func (c *config) check() error {
	if _, err := c.level(); err != nil {
		return err
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("listen %q: want host:port", c.Listen)
	}
	if u, err := url.Parse(c.PublicURL); err != nil || u.Hostname() == "" || unspecified(u.Hostname()) || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("public_url %q: want where agents reach this dispatcher, such as https://dispatcher.example.com", c.PublicURL)
	}
	switch {
	case c.Auth.HMACSecretFile != "" && c.Auth.JWKSFile != "":
		return errors.New("auth: hmac_secret_file and jwks_file: want one of them")
	case (c.HTTPS.CertFile == "") != (c.HTTPS.KeyFile == ""):
		return errors.New("https: cert_file and key_file go together")
	case (c.Broker.Embedded.CertFile == "") != (c.Broker.Embedded.KeyFile == ""):
		return errors.New("broker.embedded: cert_file and key_file go together")
	case c.Uploads.MaxBytes < 0:
		return fmt.Errorf("uploads.max_bytes is %d: want more than 0", c.Uploads.MaxBytes)
	}
	return nil
}

// unspecified reports whether host is "all addresses": good to listen on, but
// no place that an agent could upload to.
func unspecified(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsUnspecified()
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

// The following translate into the options of the packages. They read the files
// that are named; a secret that nobody named is made. Errors are configErrors.

func (c *config) tokenOptions() (dispatcher.TokenOptions, error) {
	o := dispatcher.TokenOptions{JWKSFile: c.Auth.JWKSFile, Issuers: c.Auth.Issuers, Audience: c.Auth.Audience}
	if o.JWKSFile != "" {
		return o, nil
	}
	read := dispatcher.ReadSecret
	if c.Auth.makeSecret {
		read = dispatcher.MakeSecret
	}
	var err error
	if o.Secret, err = read(c.Auth.HMACSecretFile); err != nil {
		return o, wrong("auth.hmac_secret_file: %w", err)
	}
	return o, nil
}

func (c *config) times() dispatcher.Times {
	t := dispatcher.DefaultTimes()
	for _, set := range []struct {
		value *time.Duration
		to    duration
	}{
		{&t.StartDeadline, c.Times.StartDeadline},
		{&t.Grace, c.Times.Grace},
		{&t.SilenceWindow, c.Times.SilenceWindow},
		{&t.ShortestTimeout, c.Times.ShortestTimeout},
		{&t.LongestTimeout, c.Times.LongestTimeout},
	} {
		if set.to != 0 {
			*set.value = time.Duration(set.to)
		}
	}
	for operation, limit := range map[string]duration{
		"end_of_day": c.Times.EndOfDay, "send_logs": c.Times.SendLogs, "check_update": c.Times.CheckUpdate, "open_menu": c.Times.OpenMenu,
	} {
		if limit != 0 {
			t.HardLimits[operation] = time.Duration(limit)
		}
	}
	return t
}

func (c *config) uploads() (dispatcher.Uploads, error) {
	key, err := dispatcher.MakeSecret(c.Uploads.KeyFile)
	if err != nil {
		return dispatcher.Uploads{}, wrong("uploads.key_file: %w", err)
	}
	return dispatcher.Uploads{Dir: c.Uploads.Dir, Key: key, MaxBytes: c.Uploads.MaxBytes, Keep: time.Duration(c.Uploads.Keep)}, nil
}

// embedded reports whether the broker is ours.
func (c *config) embedded() bool { return len(c.Broker.URLs) == 0 }

func (c *config) brokerOptions(log *slog.Logger) (broker.Options, error) {
	e := c.Broker.Embedded
	o := broker.Options{StoreDir: e.StoreDir, Listen: e.Listen, Prefix: c.Broker.Prefix, Log: log}
	for _, u := range e.Users {
		password, err := readPassword(u.PasswordFile)
		if err != nil {
			return o, wrong("broker.embedded.user %q: password_file: %w", u.Name, err)
		}
		o.Users = append(o.Users, broker.User{Name: u.Name, Password: password, Terminals: u.Terminals})
	}
	if e.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(e.CertFile, e.KeyFile)
		if err != nil {
			return o, wrong("broker.embedded.cert_file: %w", err)
		}
		o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	if err := o.Check(); err != nil {
		return o, wrong("broker.embedded: %w", err)
	}
	return o, nil
}

func (c *config) mqttOptions(log *slog.Logger) (mqtt.Options, error) {
	b := c.Broker
	o := mqtt.Options{
		URLs: b.URLs, Prefix: b.Prefix, CAFile: b.CAFile, CertFile: b.CertFile, KeyFile: b.KeyFile, Username: b.Username, Logger: log,
	}
	if b.PasswordFile != "" {
		password, err := readPassword(b.PasswordFile)
		if err != nil {
			return o, wrong("broker.password_file: %w", err)
		}
		o.Password = mqtt.Secret(password)
	}
	if err := o.Check(); err != nil {
		return o, configError{err}
	}
	return o, nil
}

func readPassword(file string) (string, error) {
	content, err := os.ReadFile(file)
	password := strings.TrimRight(string(content), "\r\n")
	if err == nil && password == "" {
		err = fmt.Errorf("%s is empty", file)
	}
	return password, err
}
