package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"terminalops/device/link"
	"terminalops/transport"
	"terminalops/transport/mqtt"
)

// setUp asks a person for what the flags of config init have not said. Nothing is
// written before the last question, and an answer is checked when it is given, by
// what checks it later.
type setUp struct {
	*asker
	p      program
	file   string // to be written
	ports  func() ([]link.Port, error)
	urls   []string
	all    settings
	secret string // the broker's password, to be written into broker-password-file; empty: none is
}

// What only a dialogue sets has no flag: a secret, and what the terminal knows.
const (
	zvtPassword = "ZVT password"
	zvtBaud     = "speed"
)

// configAsk writes the configuration that comes of the flags and of what a person
// answers.
func (p program) configAsk(ctx context.Context, a *asker, file string, urls []string, all settings) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return fmt.Errorf("config init: %w", err)
	}
	return newSetUp(p, a, file, urls, all).set(ctx)
}

func newSetUp(p program, a *asker, file string, urls []string, all settings) *setUp {
	all = append(all, &setting{flag: zvtPassword, table: "terminal.zvt", key: "password"},
		&setting{flag: zvtBaud, table: "terminal", key: "baud", number: true})
	return &setUp{asker: a, p: p, file: file, ports: link.List, urls: urls, all: all}
}

// set asks, and writes. The password is undone if the configuration cannot be
// written.
func (s *setUp) set(ctx context.Context) error {
	if err := s.askAll(ctx); err != nil {
		return fmt.Errorf("config init: %w; nothing was written", err)
	}
	undo, err := s.writeSecret()
	if err != nil {
		return fmt.Errorf("config init: %w", err)
	}
	if err := s.p.configWrite(s.file, s.urls, s.all); err != nil {
		undo()
		return err
	}
	s.next(ctx)
	return nil
}

// askAll asks. An error leaves everything as it was.
func (s *setUp) askAll(ctx context.Context) error {
	if err := s.checkGiven(); err != nil {
		return configError{err}
	}
	if err := canBeWritten(s.file); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "This writes %s.\nEnter takes what stands in [], ? tells more, Ctrl-C leaves everything as it is.\n\n", s.file)
	for _, questions := range []func(context.Context) error{s.askTerminal, s.askID, s.askBroker, s.askCertificates, s.askUser, s.confirm} {
		if err := questions(ctx); err != nil {
			return err
		}
	}
	return nil
}

// checkGiven finds what is wrong with the flags before somebody has answered all
// the rest: what is missing is right for now.
func (s *setUp) checkGiven() error {
	whole := settings{}
	for _, one := range s.all {
		copied := *one
		if copied.required {
			setDefault(&copied.value, map[string]string{"terminal-id": "T1", "link": "tcp:192.0.2.10:20007"}[one.flag])
		}
		whole = append(whole, &copied)
	}
	urls := s.urls
	if len(urls) == 0 {
		urls = []string{"tls://broker.example.com:8883"}
	}
	_, err := fillIn(urls, whole)
	return err
}

// canBeWritten finds out whether a file can be made, in a directory that may have to
// be made first.
func canBeWritten(file string) error {
	dir := filepath.Dir(file)
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	err := tryToWrite(dir)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w: %s", file, err, needsElevation)
	default:
		return fmt.Errorf("%s: %w: %s", file, err, adviseWrite(err))
	}
}

func (s *setUp) askID(ctx context.Context) (err error) {
	id := s.all.named("terminal-id")
	if id.value != "" {
		return nil
	}
	id.value, err = s.ask(ctx, question{text: "Terminal id, as the cloud knows it", check: func(answer string) error {
		if !transport.ValidTerminalID(answer) {
			return fmt.Errorf("%q: want 1 to 64 letters, digits, '-' or '_', such as P11223351-T0013", answer)
		}
		return nil
	}, help: "such as P11223351-T0013; the office has it. It is not the number on the terminal's receipts"})
	return err
}

func (s *setUp) askBroker(ctx context.Context) error {
	if len(s.urls) > 0 {
		return nil
	}
	answer, err := s.ask(ctx, question{text: "Address of the broker", check: func(answer string) error {
		err := mqtt.Options{URLs: strings.Fields(answer), Prefix: defaultPrefix}.Check()
		if inner := errors.Unwrap(err); inner != nil {
			return fmt.Errorf("%w; such as tls://broker.example.com:8883", inner)
		}
		return err
	}, help: "such as tls://broker.example.com:8883; the office has it. Several, with blanks between, are tried in turn"})
	s.urls = strings.Fields(answer)
	return err
}

// askCertificates asks for what TLS needs, where there is TLS.
func (s *setUp) askCertificates(ctx context.Context) error {
	secure := false
	for _, u := range s.urls {
		scheme, _, _ := strings.Cut(strings.ToLower(u), "://")
		secure = secure || scheme == "tls" || scheme == "mqtts" || scheme == "wss"
	}
	if !secure {
		return nil
	}
	cert, key := s.all.named("cert-file"), s.all.named("key-file")
	if err := s.askFile(ctx, "ca-file", "File with the authority of the broker's certificate", "the system's",
		"a file in PEM form from the office. Without one, the authorities count that this system trusts"); err != nil {
		return err
	}
	if err := s.askFile(ctx, "cert-file", "File with a certificate for the broker", "",
		"a file in PEM form, where the broker wants a certificate of this store (mutual TLS). Without one it wants a name and a password"); err != nil {
		return err
	}
	if cert.value == "" || key.value != "" {
		return nil
	}
	return s.askFile(ctx, "key-file", "File with the key of this certificate", "", "the other file of the same delivery")
}

// askFile asks for a file, which has to be what it should be. The service finds it
// wherever it is started: its path is absolute.
func (s *setUp) askFile(ctx context.Context, flag, text, without, help string) error {
	file := s.all.named(flag)
	if file.value != "" {
		return nil
	}
	answer, err := s.ask(ctx, question{text: text, bracket: without, optional: flag != "key-file", help: help, check: func(answer string) error {
		path, err := filepath.Abs(answer)
		if err != nil {
			return err
		}
		if f := new(doctor).checkFile(namedFile{file.key, path}); f.Verdict == verdictFailed {
			return fmt.Errorf("%s: %s: %s", path, f.Says, f.Advice)
		}
		if flag == "key-file" {
			if _, err := tls.LoadX509KeyPair(s.all.named("cert-file").value, path); err != nil {
				return fmt.Errorf("certificate and key do not belong together: %w", err)
			}
		}
		return nil
	}})
	if err != nil || answer == "" {
		return err
	}
	file.value, err = filepath.Abs(answer)
	return err
}

// askUser asks for name and password at the broker.
func (s *setUp) askUser(ctx context.Context) (err error) {
	name, file := s.all.named("broker-username"), s.all.named("broker-password-file")
	if name.value == "" {
		if name.value, err = s.ask(ctx, question{text: "User name at the broker", optional: true,
			help: "the office has it, such as store-0042. With a certificate there often is none"}); err != nil {
			return err
		}
	}
	if name.value == "" || file.value != "" {
		return nil
	}
	there, free := passwordFiles(filepath.Dir(s.file))
	q := question{text: "Its password (is not shown)", optional: there == "", preset: there, secret: true,
		help: "it is written into " + free + ", which nobody but the administrator and the service can read"}
	if there != "" {
		q.bracket = "what is in " + there
	}
	switch answer, err := s.ask(ctx, q); {
	case err != nil:
		return err
	case answer == there: // nothing, where there is none
		file.value = there
	default:
		file.value, s.secret = free, answer
	}
	return nil
}

// passwordFiles are the file with a password next to the configuration, if it is
// there, and one that is not: nothing is overwritten.
func passwordFiles(dir string) (there, free string) {
	const name = "password"
	free = filepath.Join(dir, name)
	for n := 2; ; n++ {
		if _, err := os.Lstat(free); err != nil {
			return there, free
		}
		if there == "" {
			there = free
		}
		free = filepath.Join(dir, fmt.Sprint(name, "-", n))
	}
}

// confirm shows what is to be written, without secrets.
func (s *setUp) confirm(ctx context.Context) error {
	fmt.Fprintf(s.out, "\nThis is to be written to %s:\n", s.file)
	rows := table(s.out)
	fmt.Fprintf(rows, "  broker.urls\t%s\n", strings.Join(s.urls, " "))
	for _, one := range s.all {
		value := one.value
		switch {
		case value == "":
			continue
		case one.flag == zvtPassword:
			value = notShown
		case one.key == "password_file" && s.secret != "":
			value += " (new, with the password)"
		}
		fmt.Fprintf(rows, "  %s\t%s\n", strings.TrimPrefix(one.table+"."+one.key, "."), value)
	}
	if err := rows.Flush(); err != nil {
		return err
	}
	write, err := s.yes(ctx, "Write it?", true, "yes: it is written. no: everything stays as it is")
	if err == nil && !write {
		err = errors.New("it was not wanted")
	}
	return err
}

// writeSecret writes the broker's password if one was told. undo removes it again.
func (s *setUp) writeSecret() (undo func(), err error) {
	if s.secret == "" {
		return func() {}, nil
	}
	file := s.all.named("broker-password-file").value
	if err := writeWhole(file, s.secret+"\n", shareSecret); err != nil {
		return nil, err
	}
	fmt.Fprintf(s.out, "%s is written\n", file)
	return func() { os.Remove(file) }, nil
}

// next says what to do with a configuration that is written.
func (s *setUp) next(ctx context.Context) {
	with := ""
	if s.file != defaultConfig() {
		with = " --config " + s.file
	}
	rows := table(s.out)
	fmt.Fprintf(rows, "\nNext:\n  terminal-agent doctor%s\tis everything right?\n", with)
	if state, err := queryService(ctx); with != "" || err == nil && !state.installed {
		fmt.Fprintf(rows, "  terminal-agent service install%s\tmakes it a service\n", with)
	}
	fmt.Fprint(rows, "  terminal-agent service start\tserves the terminal, now and after every start of this machine\n")
	rows.Flush()
}
