package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"terminalops/agent"
	"terminalops/agent/control"
	"terminalops/device/trace"
)

// A bundle is what the office wants to see, in one archive:
//
//	report.txt, report.json   what the doctor has found
//	configuration.toml        without passwords
//	journal.json              the latest operations, newest first
//	service.json              what the service says of itself, where it runs
//	captures-service.txt      and what it has last seen of its terminals
//	terminals.json            what was seen of each terminal, where it does not
//	captures.txt              and what went over its line meanwhile
//	*.log, or log.txt         the service's log, or how to get it
//	said-to-doctor.txt        what terminals said on their own account
//
// Everything goes through trace.Mask; but captures, which decode has to read, are
// masked at their source. Of files that the configuration names only the paths are
// in it.

// bundleHistory is how many operations of the journal are in a bundle.
const bundleHistory = 1000

// part is one file of a bundle.
type part struct {
	name    string
	content []byte
	masked  bool // already
}

// writeBundle writes the archive, whole or not at all.
func (d *doctor) writeBundle(ctx context.Context, path string, r report) (err error) {
	ctx, cancel := context.WithTimeout(ctx, doctorPatience)
	defer cancel()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(path)
		}
	}()
	return archive(f, d.parts(ctx, r), r.At)
}

// archive writes parts as a .tar.gz, masked.
func archive(w io.Writer, parts []part, at time.Time) error {
	zipped := gzip.NewWriter(w)
	tarred := tar.NewWriter(zipped)
	for _, p := range parts {
		content := p.content
		if !p.masked {
			content = []byte(trace.Mask(string(content)))
		}
		if err := tarred.WriteHeader(&tar.Header{Name: p.name, Mode: 0o600, Size: int64(len(content)), ModTime: at}); err != nil {
			return err
		}
		if _, err := tarred.Write(content); err != nil {
			return err
		}
	}
	return errors.Join(tarred.Close(), zipped.Close())
}

// parts are the files of a bundle. What cannot be had is a file that says why.
func (d *doctor) parts(ctx context.Context, r report) []part {
	parts := []part{{name: "report.txt", content: []byte(r.text())}, inJSON("report", r, nil)}
	if content, err := os.ReadFile(d.file); err == nil {
		parts = append(parts, part{name: "configuration.toml", content: []byte(withoutSecrets(string(content), d.c))})
	}
	parts = append(parts, d.logs(ctx)...)
	if d.c == nil {
		return parts
	}
	records, err := d.history(ctx)
	parts = append(parts, inJSON("journal", records, err))
	if d.service.status != nil {
		parts = append(parts, inJSON("service", d.service.status, nil))
	}
	if d.service.runs {
		parts = append(parts, d.serviceCaptures(ctx))
	}
	if len(d.sightings.all) > 0 {
		parts = append(parts, inJSON("terminals", d.sightings.all, nil), captures("captures.txt", d.tap.Past()))
	}
	if said, err := os.ReadFile(d.inStateDir(saidFile)); err == nil {
		parts = append(parts, part{name: saidFile, content: said})
	}
	return parts
}

// logs are the files of the agent's own log, or what the system has of it.
func (d *doctor) logs(ctx context.Context) (parts []part) {
	if d.c != nil {
		path := d.inStateDir(serviceName + ".log") // where a supervisor without a log has it
		if d.c.LogFile != nil {
			path = *d.c.LogFile
		}
		for n := range logFileCount {
			name := path
			if n > 0 {
				name = fmt.Sprint(path, ".", n)
			}
			if content, err := os.ReadFile(name); err == nil {
				parts = append(parts, part{name: filepath.Base(name), content: content})
			}
		}
	}
	if len(parts) > 0 {
		return parts
	}
	log, note := serviceLog(ctx)
	return []part{{name: "log.txt", content: append(log, note...)}}
}

// captures are events of any terminals.
func captures(name string, events []trace.Event) part {
	return part{name: name, content: capture("", time.Now(), events), masked: true}
}

// serviceCaptures is what the service has last seen. If not all of it can be had,
// a comment at the end says why.
func (d *doctor) serviceCaptures(ctx context.Context) part {
	client := control.Client{StateDir: d.c.StateDir}
	var seen []trace.Event
	err := client.Past(ctx, func(line json.RawMessage) error {
		var e trace.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("event: %w", err)
		}
		seen = append(seen, e)
		return nil
	})
	p := captures("captures-service.txt", seen)
	if err != nil {
		p.content = fmt.Appendf(p.content, "\n# not all is to be had: %s\n", trace.Mask(err.Error()))
	}
	return p
}

func inJSON(name string, v any, err error) part {
	content, failed := json.MarshalIndent(v, "", "  ")
	if err = errors.Join(err, failed); err != nil {
		return part{name: name + ".txt", content: fmt.Appendf(nil, "not to be had: %v\n", err)}
	}
	return part{name: name + ".json", content: append(content, '\n')}
}

// history is what the journal has, from the service if it runs.
func (d *doctor) history(ctx context.Context) ([]agent.Record, error) {
	if d.service.runs {
		client := control.Client{StateDir: d.c.StateDir}
		return client.History(ctx, "", bundleHistory)
	}
	return d.service.inspection.Records, d.service.inspectionErr
}

var (
	passwordValue = regexp.MustCompile(`(\bpassword["']?\s*=\s*)("""[^"]*"""|'''[^']*'''|"[^"]*"|'[^']*'|[^\s,}#]+)`)
	userInfo      = regexp.MustCompile(`(://)[^/@\s"']*@`)
)

const notShown = "(not shown)"

// withoutSecrets takes the passwords out of a configuration: as they are written,
// and once more by their values, for TOML can write them in many ways.
func withoutSecrets(text string, c *config) string {
	text = passwordValue.ReplaceAllString(text, `${1}"`+notShown+`"`)
	text = userInfo.ReplaceAllString(text, `${1}`+notShown+`@`)
	if c == nil {
		return text
	}
	for _, t := range c.Terminals {
		if t.ZVT.Password != "" {
			text = strings.ReplaceAll(text, t.ZVT.Password, notShown)
		}
	}
	return text
}
