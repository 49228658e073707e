package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"terminalops/agent"
	"terminalops/agent/control"
)

// configuration checks the file. Without it there is nothing else to check. A
// configuration that names files the agent could not read, or broken ones, is
// wrong, too; which of them is for the check of files to say.
func (d *doctor) configuration() (f finding, wrong bool) {
	const name = "configuration"
	c, err := d.from.load()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failure(name, "", err.Error(), "write one with `terminal-agent config init`, or name yours with --config FILE"), true
	case errors.Is(err, fs.ErrPermission):
		return failure(name, "", err.Error(), needsRights), true
	case err != nil && strings.Contains(err.Error(), "timezone") && !haveTimeZones():
		return failure(name, "", err.Error(), "this PC has no time zone data: install the package tzdata, or leave timezone out"), true
	case err != nil:
		return failure(name, "", err.Error(), "correct this, then try `terminal-agent config check`"), true
	}
	d.c = c
	if _, err := newLanes(c, nil, slog.New(slog.DiscardHandler)); err != nil {
		return failure(name, "", err.Error(), "correct this, then try `terminal-agent config check`; see also the checks of files below"), true
	}
	return good(name, "", "%s at %s", plural(len(c.Terminals), "terminal"), strings.Join(c.Broker.URLs, ", ")), false
}

// namedFile is a file that the configuration names.
type namedFile struct{ key, path string }

// namedFiles are all of them, once each.
func (d *doctor) namedFiles() (all []namedFile) {
	b := d.c.Broker
	add := func(key, path string) {
		f := namedFile{key, path}
		if path != "" && !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	add("ca_file", b.CAFile)
	add("cert_file", b.CertFile)
	add("key_file", b.KeyFile)
	add("password_file", b.PasswordFile)
	for _, t := range d.c.Terminals {
		add("cert_file", t.CertFile)
		add("key_file", t.KeyFile)
		add("password_file", t.PasswordFile)
	}
	return all
}

// files checks what the configuration names: that it can be read, by the service
// too, and that certificates are what they should be.
func (d *doctor) files(context.Context) (found []finding) {
	if why, advice := hiddenFromService(d.file, false); why != "" {
		found = append(found, failure("file", d.file, "configuration: "+why, advice))
	}
	for _, f := range d.namedFiles() {
		found = append(found, d.checkFile(f))
	}
	pairs := [][2]string{{d.c.Broker.CertFile, d.c.Broker.KeyFile}}
	for _, t := range d.c.Terminals {
		pairs = append(pairs, [2]string{t.CertFile, t.KeyFile})
	}
	for _, pair := range slices.Compact(pairs) {
		if pair[0] == "" || pair[1] == "" {
			continue
		}
		if _, err := tls.LoadX509KeyPair(pair[0], pair[1]); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			found = append(found, failure("file", pair[1], fmt.Sprintf("certificate and key do not belong together: %v", err),
				"cert_file and key_file have to be of the same delivery; ask the office for both again"))
		}
	}
	return found
}

func (d *doctor) checkFile(f namedFile) finding {
	content, err := os.ReadFile(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failure("file", f.path, f.key+" is not there", "put it there, or correct the path in the configuration")
	case errors.Is(err, fs.ErrPermission):
		return failure("file", f.path, f.key+" cannot be read by this user", needsRights)
	case err != nil:
		return failure("file", f.path, err.Error(), "repair it, or correct the path in the configuration")
	}
	if why, advice := hiddenFromService(f.path, false); why != "" {
		return failure("file", f.path, f.key+": "+why, advice)
	}
	switch f.key {
	case "password_file":
		return checkPassword(f, content)
	case "ca_file", "cert_file":
		return checkCertificates(f, content, time.Now())
	default:
		return good("file", f.path, "%s can be read", f.key)
	}
}

func checkPassword(f namedFile, content []byte) finding {
	password := strings.TrimRight(string(content), "\r\n")
	switch {
	case password == "":
		return failure("file", f.path, "password_file is empty", "put the broker's password into it, nothing else")
	case strings.TrimSpace(password) != password, strings.ContainsAny(password, "\r\n"):
		return warning("file", f.path, "the password begins or ends with a blank, or has several lines", "unless that is so on purpose, leave nothing but the password in it")
	case strings.HasPrefix(password, "\uFEFF"), strings.HasPrefix(password, "\xFF\xFE"):
		return failure("file", f.path, "password_file was written by an editor that puts a mark before the text", "save it as plain text: ANSI, or UTF-8 without BOM")
	}
	if isOpen(f.path) {
		return warning("file", f.path, "everybody at this PC can read the password", "chmod 640 "+f.path)
	}
	return good("file", f.path, "password_file can be read")
}

// soon is how long before its end a certificate is worth a word.
const soon = 30 * 24 * time.Hour

// checkCertificates looks at all certificates of a file. Of an authority's file
// those that have ended do not matter, as long as there is one that has not.
func checkCertificates(f namedFile, content []byte, now time.Time) finding {
	certs, err := parseCertificates(content)
	if err != nil || len(certs) == 0 {
		return failure("file", f.path, fmt.Sprintf("%s has no certificate that can be read", f.key), "it has to be PEM: text with the line -----BEGIN CERTIFICATE-----; ask the office for it in this form")
	}
	if f.key == "cert_file" {
		certs = certs[:1] // the rest is its chain
	}
	slices.SortFunc(certs, func(a, b *x509.Certificate) int { return b.NotAfter.Compare(a.NotAfter) })
	last := certs[0]
	switch {
	case now.Before(last.NotBefore):
		return failure("file", f.path, fmt.Sprintf("%s is valid from %s on, and this PC's clock says %s", f.key, day(last.NotBefore), day(now)), setTheClock)
	case now.After(last.NotAfter):
		return failure("file", f.path, fmt.Sprintf("%s has expired on %s; this PC's clock says %s", f.key, day(last.NotAfter), day(now)), "if the clock is right, ask the office for a new one")
	case now.Add(soon).After(last.NotAfter):
		return warning("file", f.path, fmt.Sprintf("%s expires on %s", f.key, day(last.NotAfter)), "ask the office for a new one before that day")
	default:
		return good("file", f.path, "%s is valid until %s", f.key, day(last.NotAfter))
	}
}

func parseCertificates(content []byte) (certs []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			return certs, nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
}

// day is the day at this PC.
func day(t time.Time) string { return t.Local().Format(time.DateOnly) }

// What the state directory needs, in bytes: some operations with their logs.
const (
	littleSpace = 200 << 20
	noSpace     = 20 << 20
)

// stateDirectory checks that the journal can be written.
func (d *doctor) stateDirectory(context.Context) []finding {
	const name = "state directory"
	dir := d.c.StateDir
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []finding{good(name, dir, "is not there yet; the first start makes it")}
	case errors.Is(err, fs.ErrPermission):
		return []finding{failure(name, dir, "may not be looked at by this user", needsRights)}
	case err != nil:
		return []finding{failure(name, dir, err.Error(), "correct state_dir in the configuration")}
	case !info.IsDir():
		return []finding{failure(name, dir, "is no directory", "correct state_dir in the configuration")}
	}
	if why, advice := hiddenFromService(dir, true); why != "" {
		return []finding{failure(name, dir, why, advice)}
	}
	if err := tryToWrite(dir); err != nil {
		return []finding{failure(name, dir, "cannot be written: "+reason(err).Error(), adviseWrite(err))}
	}
	free, err := freeSpace(dir)
	says := fmt.Sprintf("%d MB are free", free>>20)
	switch {
	case err != nil:
		return []finding{good(name, dir, "can be written")}
	case free < noSpace:
		return []finding{failure(name, dir, says, diskFull)}
	case free < littleSpace:
		return []finding{warning(name, dir, says, "delete what is not needed on this disk")}
	}
	return []finding{good(name, dir, "can be written, %s", says)}
}

const diskFull = "the disk is full: delete what is not needed on it; until then the agent takes no new commands"

// tryToWrite writes a little file, on disk, and removes it.
func tryToWrite(dir string) (err error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(make([]byte, 256<<10))
	return errors.Join(err, f.Sync(), f.Close())
}

// reason is an error without the name of the file that was tried: it says nothing
// to anybody.
func reason(err error) error {
	if path := new(fs.PathError); errors.As(err, &path) {
		return path.Err
	}
	return err
}

func adviseWrite(err error) string {
	switch {
	case isDiskFull(err):
		return diskFull
	case isReadOnly(err):
		return "the disk is read-only. If it was not made so on purpose, it is failing: save the journal, have the disk replaced"
	case errors.Is(err, fs.ErrPermission):
		return needsRights
	default:
		return "the disk may be failing; look into the system's log"
	}
}

// journal reads the journal where no agent has it.
func (d *doctor) journal(context.Context) []finding {
	const name = "journal"
	if d.service.runs {
		return []finding{skipped(name, "", "the service has it open")}
	}
	i, err := d.service.inspection, d.service.inspectionErr
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []finding{good(name, "", "there is none yet; the first start makes it")}
	case errors.Is(err, agent.ErrNewerJournal):
		return []finding{failure(name, "", err.Error(), "install that version again; do not delete the journal: it knows what was carried out")}
	case errors.Is(err, fs.ErrPermission):
		return []finding{failure(name, "", err.Error(), needsRights)}
	case err != nil:
		return []finding{warning(name, "", err.Error(), "the next start sets it aside and makes a new one; send a bundle to the office: terminal-agent doctor --bundle FILE")}
	case len(i.SetAside) > 0:
		return []finding{warning(name, "", "an earlier one was damaged: "+strings.Join(i.SetAside, ", "), "send these files to the office, then delete them. If it happens again, the disk is failing")}
	}
	open := 0
	for _, r := range i.Records {
		if r.Report == nil {
			open++
		}
	}
	return []finding{good(name, "", "%s, %d of them not at an end", plural(len(i.Records), "operation"), open)}
}

// timeZones checks the data for the terminals' clocks.
func (d *doctor) timeZones(context.Context) []finding {
	const name = "time zone"
	if !haveTimeZones() {
		return []finding{warning(name, "", "this PC has no time zone data, it counts as UTC", "install the package tzdata: the times on receipts are read by it")}
	}
	zone, _ := time.Now().Zone()
	return []finding{good(name, "", "%s here", zone)}
}

func haveTimeZones() bool {
	_, err := time.LoadLocation("Europe/Berlin")
	return err == nil
}

// serviceView is what is known of an agent that works in the state directory.
type serviceView struct {
	runs   bool
	blind  error         // why it cannot be known whether one runs; nil: it is
	inUse  error         // says who it is
	status *agent.Status // what it says itself; nil: it cannot be asked
	err    error         // why not

	// Without one, what its journal says.
	inspection    agent.Inspection
	inspectionErr error
	release       func() // lets agents in again
}

// journalID is that of this state directory; empty if it cannot be known.
func (s serviceView) journalID() string {
	if s.status != nil {
		return s.status.JournalID
	}
	return s.inspection.JournalID
}

// lane is what the service says of a terminal; nil if it says nothing.
func (s serviceView) lane(id string) *agent.LaneStatus {
	if s.status == nil {
		return nil
	}
	for i := range s.status.Lanes {
		if s.status.Lanes[i].ID == id {
			return &s.status.Lanes[i]
		}
	}
	return nil
}

// statusPatience is how long the service may take to say how it is.
const statusPatience = 10 * time.Second

// lookAtService finds out whether an agent works here. If not, none does until
// release: one that started now would meet us at the terminal.
func (d *doctor) lookAtService(ctx context.Context) serviceView {
	s := serviceView{release: func() {}}
	release, err := agent.Hold(d.c.StateDir)
	switch {
	case err == nil:
		s.release = release
		s.inspection, s.inspectionErr = agent.Inspect(d.c.StateDir, 1000)
		if !errors.Is(s.inspectionErr, agent.ErrInUse) {
			return s
		}
	case !errors.Is(err, agent.ErrInUse):
		s.blind, s.inspectionErr = err, err
		return s
	}
	s.runs, s.inUse = true, err
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	client := control.Client{StateDir: d.c.StateDir}
	status, err := client.Status(ctx)
	if err != nil {
		s.err = err
		return s
	}
	s.status = &status
	return s
}

// serviceSays tells what runs.
func (d *doctor) serviceSays(ctx context.Context) []finding {
	const name = "service"
	switch s := d.service; {
	case s.status != nil:
		return []finding{good(name, "", "runs, version %s", s.status.Version)}
	case s.runs && errors.Is(s.err, control.ErrNotPermitted):
		return []finding{warning(name, "", "runs, and does not answer this user", needsRights)}
	case s.blind != nil && errors.Is(s.blind, fs.ErrPermission):
		return []finding{warning(name, "", "this user cannot see whether it runs", needsRights)}
	case s.runs:
		return []finding{warning(name, "", fmt.Sprintf("runs (%v), and does not say how it is: %v", s.inUse, s.err), "")}
	}
	says, advice := "no agent works in "+filepath.Clean(d.c.StateDir), "start it: terminal-agent service start"
	if controllable() == nil {
		if state, err := queryService(ctx); err == nil {
			says = "the service is " + strings.TrimPrefix(state.words, "the service is ")
			if !state.installed {
				advice = "install it: terminal-agent service install"
			}
		}
	}
	return []finding{warning(name, "", says, advice)}
}
