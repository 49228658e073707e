package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"terminalops/device/trace"
)

// `terminal-agent doctor` goes from the configuration to a status enquiry on the
// terminal and says of each thing on the way whether it is right, and if not,
// what a person does next.
//
//	doctor.go           the command, what it finds, how that is shown
//	doctor_local.go     configuration, files, state directory, journal, service
//	doctor_broker.go    the way to the broker, and what it permits
//	doctor_terminal.go  the port and who is at the other end
//	doctor_bundle.go    all of it in one archive, for the office
//
// It can be asked while the service runs: it connects to the broker by a client
// id of its own, and leaves a terminal alone that the service may be at. It sends
// a terminal a registration and a status enquiry, nothing that makes it act.

// doctorPatience bounds all of it. What is not done by then is not checked.
const doctorPatience = 55 * time.Second

// verdict is what a check says. The words are those of --json.
type verdict string

const (
	verdictOK      verdict = "ok"
	verdictWarning verdict = "warning" // it works, but somebody should look at it
	verdictFailed  verdict = "failed"
	verdictSkipped verdict = "not checked" // something before it failed, or it is the service's to say
)

// finding is the outcome of one check.
type finding struct {
	Check   string  `json:"check"`             // "configuration", "tls" ...
	Subject string  `json:"subject,omitempty"` // the broker's URL, the terminal's id, a file
	Verdict verdict `json:"verdict"`
	Says    string  `json:"says"`
	Advice  string  `json:"advice,omitempty"` // the next step, for a person
}

// report is what a doctor has found, in the order of the way.
type report struct {
	Version  string    `json:"version"`
	OS       string    `json:"os"`
	Arch     string    `json:"arch"`
	At       time.Time `json:"at"`
	Config   string    `json:"config"`
	Findings []finding `json:"checks"`
	Verdict  verdict   `json:"verdict"` // the worst of them
}

// section is a part of the way. Sections are looked at side by side.
type section func(ctx context.Context) []finding

// doctor is what the checks share.
type doctor struct {
	p         program
	from      *source
	file      string // the configuration's
	c         *config
	service   serviceView
	sightings sightings
	tap       *trace.Tap // what goes over the lines meanwhile, for the bundle
}

// doctor is `terminal-agent doctor`.
func (p program) doctor(ctx context.Context, args []string) error {
	flags := p.flags("doctor", "Checks everything from the configuration to the terminal, and says what to do.\n"+
		"It can be asked while the service runs. 0: all is well, or there are warnings only;\n1: a check failed; 78: the configuration is wrong.")
	from := newSource(flags, p.getenv)
	asJSON := flags.Bool("json", false, "for a program")
	bundle := flags.String("bundle", "", "writes `FILE`, a .tar.gz for the office: this report, configuration, journal, log, captures; without secrets")
	if err := parse(flags, args); err != nil {
		return err
	}
	d := &doctor{p: p, from: from, file: from.file, tap: trace.NewTap(keptTrace)}
	show := func(finding) {}
	if !*asJSON {
		fmt.Fprintf(p.stdout, "%s\nThis takes up to a minute.\n\n", headline(d.file))
		show = func(f finding) { io.WriteString(p.stdout, f.String()) }
	}
	r, wrong := d.examine(ctx, show)
	if *asJSON {
		e := json.NewEncoder(p.stdout)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(r); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(p.stdout, "\n%s\n", r.summary())
	}
	if *bundle != "" {
		if err := d.writeBundle(ctx, *bundle, r); err != nil {
			return fmt.Errorf("doctor: bundle: %w", err)
		}
		fmt.Fprintf(p.stderr, "%s is written; it can be mailed as it is\n", *bundle)
	}
	switch {
	case wrong:
		return logged{configError{errors.New("the configuration is wrong")}}
	case r.Verdict == verdictFailed:
		return logged{errors.New("a check failed")}
	default:
		return nil
	}
}

// headline says who looked at what, when.
func headline(file string) string {
	return fmt.Sprintf("terminal-agent %s %s/%s, %s\nconfiguration %s", programVersion(), runtime.GOOS, runtime.GOARCH,
		time.Now().Format("2006-01-02 15:04:05 -0700"), file)
}

// examine looks at everything, within doctorPatience. wrong: the agent would not
// start with this configuration.
func (d *doctor) examine(ctx context.Context, show func(finding)) (r report, wrong bool) {
	ctx, cancel := context.WithTimeout(ctx, doctorPatience)
	defer cancel()
	r = report{Version: programVersion(), OS: runtime.GOOS, Arch: runtime.GOARCH, At: time.Now(), Config: d.file, Verdict: verdictOK}
	add := func(f finding) {
		f.Says, f.Advice = trace.Mask(f.Says), trace.Mask(f.Advice)
		r.Findings = append(r.Findings, f)
		r.Verdict = worst(r.Verdict, f.Verdict)
		show(f)
	}
	f, wrong := d.configuration()
	add(f)
	if d.c == nil {
		return r, wrong
	}
	d.service = d.lookAtService(ctx)
	defer d.service.release()
	for _, found := range sideBySide(ctx, d.files, d.stateDirectory, d.journal, d.timeZones, d.serviceSays, d.brokers, d.terminals) {
		for _, f := range <-found {
			add(f)
		}
	}
	return r, wrong
}

// sideBySide starts all sections; what each found comes in their order.
func sideBySide(ctx context.Context, sections ...section) []<-chan []finding {
	var all []<-chan []finding
	for _, look := range sections {
		found := make(chan []finding, 1)
		all = append(all, found)
		go func() { found <- look(ctx) }()
	}
	return all
}

func worst(a, b verdict) verdict {
	for _, v := range []verdict{verdictFailed, verdictWarning} {
		if a == v || b == v {
			return v
		}
	}
	return verdictOK
}

var verdictColumn = map[verdict]string{verdictOK: "OK", verdictWarning: "warning", verdictFailed: "FAILED", verdictSkipped: "-"}

// String is a finding as a person reads it: the verdict, what it is about, what
// was seen, and behind an arrow what to do.
func (f finding) String() string {
	about := f.Check
	if f.Subject != "" {
		about += " " + f.Subject
	}
	text := fold(fmt.Sprintf("%-8s ", verdictColumn[f.Verdict]), 9, about+": "+f.Says)
	if f.Advice != "" {
		text += fold("         -> ", 12, f.Advice)
	}
	return text
}

// summary is the last line.
func (r report) summary() string {
	count, unknown := map[verdict]int{}, 0
	for _, f := range r.Findings {
		count[f.Verdict]++
		if f.Verdict == verdictSkipped && f.Advice != "" {
			unknown++
		}
	}
	switch {
	case count[verdictFailed] > 0:
		return fmt.Sprintf("%s failed. Begin with the first.", plural(count[verdictFailed], "check"))
	case count[verdictWarning] > 0:
		return fmt.Sprintf("Nothing failed; %s.", plural(count[verdictWarning], "warning"))
	case unknown > 0:
		return fmt.Sprintf("Nothing failed; %s could be looked at more closely.", plural(unknown, "terminal"))
	default:
		return "All is well."
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// text is the whole report, as it was shown.
func (r report) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", headline(r.Config))
	for _, f := range r.Findings {
		b.WriteString(f.String())
	}
	fmt.Fprintf(&b, "\n%s\n", r.summary())
	return b.String()
}

// The four ways to say what was found.

func good(check, subject, format string, args ...any) finding {
	return finding{Check: check, Subject: subject, Verdict: verdictOK, Says: fmt.Sprintf(format, args...)}
}

func skipped(check, subject, why string) finding {
	return finding{Check: check, Subject: subject, Verdict: verdictSkipped, Says: why}
}

func warning(check, subject, says, advice string) finding {
	return finding{Check: check, Subject: subject, Verdict: verdictWarning, Says: says, Advice: advice}
}

func failure(check, subject, says, advice string) finding {
	return finding{Check: check, Subject: subject, Verdict: verdictFailed, Says: says, Advice: advice}
}
