package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lines is a buffer that timers write to.
type lines struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}

func (l *lines) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buffer.Reset()
}

// textLog is a log whose lines can be read, without their times.
func textLog(w io.Writer) slog.Handler {
	return slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
}

// Of what comes too often some lines pass, and a count at the end of the minute;
// what differs in text, level, terminal or operation is not the same.
func TestRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		h := newRepeats(textLog(&out))
		logger := slog.New(h).With("terminal", "T1")
		for n := range 59 + repeatsAllowed {
			logger.Warn("connect", "error", fmt.Sprint("no. ", n))
			time.Sleep(repeatsWithin / 100)
		}
		slog.New(h).With("terminal", "T2").Warn("connect")
		logger.Error("connect")
		logger.Warn("connected")
		logger.Warn("connect", "operation", "op-1")
		if n := strings.Count(out.String(), "\n"); n != repeatsAllowed+4 {
			t.Errorf("%d lines:\n%s", n, &out)
		}
		out.Reset()
		time.Sleep(repeatsWithin)
		synctest.Wait()
		if want := "level=WARN msg=\"connect (repeated 59 times)\" terminal=T1 error=\"no. 63\"\n"; out.String() != want {
			t.Errorf("%s\nwant %s", &out, want)
		}
		out.Reset()
		logger.Warn("connect")
		if out.String() != "level=WARN msg=connect terminal=T1\n" {
			t.Errorf("in the next minute: %s", &out)
		}
	})
}

// What is said seldom is written for ever, and nothing is remembered of it.
func TestRepeatsForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		h := newRepeats(textLog(&out))
		for n := range 1000 {
			slog.New(h).Info("hello", "operation", fmt.Sprint(n))
			slog.New(h).Info("hello")
			time.Sleep(repeatsWithin / (repeatsAllowed - 1))
		}
		if n := strings.Count(out.String(), "\n"); n != 2000 {
			t.Errorf("%d lines", n)
		}
		if n := len(h.seen.messages); n > 20 {
			t.Errorf("%d messages are remembered", n)
		}
	})
}

// What is held back when the log ends is written, once.
func TestRepeatsFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		h := newRepeats(textLog(&out))
		for range repeatsAllowed + 3 {
			slog.New(h).Info("hello")
		}
		out.Reset()
		h.flush()
		time.Sleep(2 * repeatsWithin)
		if out.String() != "level=INFO msg=\"hello (repeated 3 times)\"\n" {
			t.Errorf("%s", &out)
		}
	})
}

// While a lane is at work on an operation, the adapter's lines have its id.
func TestOperationHandler(t *testing.T) {
	var out bytes.Buffer
	w := new(working)
	logger := slog.New(operationHandler{textLog(&out), w}).With("terminal", "T1")
	logger.Warn("before")
	w.on("op-1")
	logger.Warn("during")
	w.on("")
	logger.Warn("after")
	want := "level=WARN msg=before terminal=T1\nlevel=WARN msg=during terminal=T1 operation=op-1\nlevel=WARN msg=after terminal=T1\n"
	if out.String() != want {
		t.Errorf("%s", &out)
	}
}

func newFileLog(t *testing.T) (*slog.Logger, *logFile) {
	t.Helper()
	f := &logFile{path: filepath.Join(t.TempDir(), "agent.log")}
	t.Cleanup(f.close)
	return slog.New(newFileHandler(f, slog.LevelInfo)), f
}

func contentOf(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// The files are no larger and no more than they may be, whole lines stand in
// them, and the newest are the last ones written; also over restarts.
func TestLogFileTurns(t *testing.T) {
	logger, f := newFileLog(t)
	line := strings.Repeat("x", 10_000)
	const n = logFileCount * logFileSize / 10_000 * 3 / 2
	for i := range n {
		logger.Info(line, "n", i)
		if i%100 == 0 {
			f.close()
		}
	}
	files, err := filepath.Glob(f.path + "*")
	if err != nil || len(files) != logFileCount {
		t.Fatalf("%q, %v", files, err)
	}
	last := n
	for i := range logFileCount {
		path := f.path
		if i > 0 {
			path = fmt.Sprintf("%s.%d", f.path, i)
		}
		text := contentOf(t, path)
		if len(text) > logFileSize {
			t.Errorf("%s has %d bytes", path, len(text))
		}
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		for j := range lines {
			last--
			if want := fmt.Sprintf(" n=%d", last); !strings.HasSuffix(lines[len(lines)-1-j], want) {
				t.Fatalf("%s: %d lines before its end is not%s", path, j, want)
			}
		}
	}
}

// A file that cannot be written costs its lines and nothing else, and it is said
// how many when it can be written again.
func TestLogFileTrouble(t *testing.T) {
	logger, f := newFileLog(t)
	if err := os.Mkdir(f.path, 0o700); err != nil { // a folder in its place
		t.Fatal(err)
	}
	for range 3 {
		logger.Error("lost")
	}
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	logger.Info("again")
	logger.Info("and again")
	lines := strings.Split(contentOf(t, f.path), "\n")
	if len(lines) != 4 || !strings.Contains(lines[0], `level=ERROR msg="the log could not be written" lines=3 error="open `) ||
		!strings.Contains(lines[1], "msg=again") || !strings.Contains(lines[2], "msg=\"and again\"") {
		t.Errorf("%q", lines)
	}
}

// The level can be changed while the agent runs, and a wrong configuration
// changes nothing.
func TestReload(t *testing.T) {
	var out bytes.Buffer
	path := filepath.Join(t.TempDir(), "agent.toml")
	write := func(level string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("log_level = \""+level+"\"\n"+minimal()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := newLog(console{&out})
	asked := make(chan os.Signal)
	stop := l.reloads(asked, &source{file: path})
	write("debug")
	asked <- os.Interrupt
	asked <- os.Interrupt // the first has been dealt with
	write("loud")
	asked <- os.Interrupt
	stop()
	if l.level.Level() != slog.LevelDebug {
		t.Errorf("the level is %v", l.level.Level())
	}
	l.Debug("details")
	for _, want := range []string{"log level is DEBUG", "everything stays as it was", `log_level \"loud\"`, "msg=details"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in:\n%s", want, &out)
		}
	}
}

// log_file of the configuration, the supervisor's own, and none.
func TestLogFileIsConfigured(t *testing.T) {
	own := filepath.Join(t.TempDir(), "agent.log")
	none := ""
	for want, file := range map[string]*string{own: &own, "": &none} {
		l := newLog(console{io.Discard})
		l.configure(&config{LogFile: file}, console{io.Discard})
		l.With("terminal", "T1").Error("hello")
		l.end()
		if want == "" {
			if l.file != nil {
				t.Error("a file although none is wanted")
			}
		} else if text := contentOf(t, want); !strings.Contains(text, "msg=hello terminal=T1") || !bytes.Contains(l.latest.masked(), []byte("msg=hello")) {
			t.Errorf("%s", text)
		}
	}
}
