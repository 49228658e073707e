package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"terminalops/device"
	"terminalops/device/devicetest"
	"terminalops/transport"
)

// logServer takes uploads, after some answers that are errors.
type logServer struct {
	answers []int // of the first attempts; 0: the connection breaks
	bodies  [][]byte
	seen    []*http.Request
}

func (s *logServer) client() *http.Client {
	return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		s.seen = append(s.seen, r)
		code := http.StatusNoContent
		if n := len(s.seen) - 1; n < len(s.answers) {
			code = s.answers[n]
		}
		if code == 0 {
			return nil, errors.New("connection reset by peer")
		}
		if code < 300 {
			s.bodies = append(s.bodies, body)
		}
		return &http.Response{StatusCode: code, Status: http.StatusText(code), Body: io.NopCloser(strings.NewReader("because"))}, nil
	})}
}

func unpack(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	gz, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(gz); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(content)
	}
}

func (w *world) logCommand(id string) transport.Command {
	c := w.command(id, device.SendLogs)
	c.Upload = &transport.Upload{URL: "https://logs.example.com/v1/uploads/1?signature=secret", Headers: map[string]string{"X-Test": "yes"}}
	return c
}

var logScript = devicetest.Script{
	Outcome: device.Outcome{Effect: device.Done},
	Files:   map[string]string{"02-application.log": "one\ntwo\n", "../../etc/passwd": "odd name"},
}

func TestSendLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		server := &logServer{answers: []int{0, 503, 429}}
		w.options.HTTP = server.client()
		w.options.OwnLog = func() []byte { return []byte("agent started\n") }
		w.capture = func(most int64) ([]byte, int64) {
			return fmt.Appendf(nil, "%d dialogue\n", len(w.device.Acts())), 7
		}
		w.device.Set(logScript)
		w.start()
		w.send(w.logCommand("x"))
		r := w.wantFinal("x", "COMPLETED")
		if len(server.bodies) != 1 {
			t.Fatalf("%d archives uploaded", len(server.bodies))
		}
		files := unpack(t, server.bodies[0])
		if files["02-application.log"] != "one\ntwo\n" || files[ownLogName] != "agent started\n" || files[captureName] != "1 dialogue\n" || len(files) != 4 {
			t.Errorf("files = %q", files)
		}
		if result := logsOf(t, r); !slices.ContainsFunc(result.Files, func(f transport.LogFile) bool { return f.Name == captureName && f.Dropped == 7 }) {
			t.Errorf("result %+v", result)
		}
		last := server.seen[len(server.seen)-1]
		if last.Method != http.MethodPut || last.ContentLength != int64(len(server.bodies[0])) || last.Header.Get("X-Test") != "yes" {
			t.Errorf("request %v", last)
		}
		if strings.Contains(string(r.Result), "secret") || !strings.Contains(string(r.Result), "https://logs.example.com/v1/uploads/1") {
			t.Errorf("result %s", r.Result)
		}
		synctest.Wait()
		for _, dir := range []string{spoolDir, logsDir} {
			if left, _ := filepath.Glob(filepath.Join(w.dir, dir, "*")); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		}
	})
}

func logsOf(t *testing.T, r transport.Report) (result transport.SendLogsResult) {
	t.Helper()
	if err := json.Unmarshal(r.Result, &result); err != nil {
		t.Fatal(err)
	}
	return result
}

// A crash after the logs were packed uploads them; the terminal is not read
// again, and what is uploaded is what was seen when it was read.
func TestSendLogsAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		server := &logServer{}
		for range 8 {
			server.answers = append(server.answers, 503)
		}
		w.options.HTTP = server.client()
		w.capture = func(int64) ([]byte, int64) { return []byte("of this run\n"), 0 }
		w.device.Set(logScript)
		w.start()
		w.send(w.logCommand("x"))
		time.Sleep(5 * time.Second)
		w.end()
		w.capture = func(int64) ([]byte, int64) { return []byte("of the next run\n"), 0 }
		w.device.Set(devicetest.Script{})
		w.start()
		w.wantFinal("x", "COMPLETED")
		w.wantActs(1)
		if w.device.Asked() != 0 {
			t.Error("the terminal was read again")
		}
		if files := unpack(t, server.bodies[0]); files["02-application.log"] != "one\ntwo\n" || files[captureName] != "of this run\n" {
			t.Errorf("files = %q", files)
		}
	})
}

func TestUploadFails(t *testing.T) {
	tests := []struct {
		name    string
		answers []int
		within  time.Duration
	}{
		{"refused for good", []int{403}, 10 * time.Second},
		{"until the hard limit", []int{503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503, 503}, hardLimit + time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _ := memory(t)
				w.options.HTTP = (&logServer{answers: tt.answers}).client()
				w.device.Set(logScript)
				w.start()
				begin := time.Now()
				w.send(w.logCommand("x"))
				r := w.wantFinal("x", "upload_failed yes")
				if strings.Contains(r.Error.Message, "secret") || !strings.Contains(r.Error.Message, "because") {
					t.Errorf("message %q", r.Error.Message)
				}
				if took := time.Since(begin); took > tt.within {
					t.Errorf("it took %v", took)
				}
				w.wantNext()
			})
		})
	}
}

// An upload whose answer got lost is refused the next time, with the digest of
// what is there: that is success. Another digest is not.
func TestUploadWasTaken(t *testing.T) {
	for _, same := range []bool{true, false} {
		t.Run(fmt.Sprint("same archive ", same), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _ := memory(t)
				digest := ""
				w.options.HTTP = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
					body, err := io.ReadAll(r.Body)
					if err != nil {
						return nil, err
					}
					if digest == "" {
						sum := sha256.Sum256(body)
						digest = "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
						return nil, errors.New("connection reset by peer")
					}
					answer := http.Header{}
					if same {
						answer.Set("Repr-Digest", digest)
					} else {
						answer.Set("Repr-Digest", "sha-256=:AAAA:")
					}
					return &http.Response{StatusCode: http.StatusConflict, Header: answer, Body: io.NopCloser(strings.NewReader("used"))}, nil
				})}
				w.device.Set(logScript)
				w.start()
				w.send(w.logCommand("x"))
				if same {
					w.wantFinal("x", "COMPLETED")
				} else {
					w.wantFinal("x", "upload_failed yes")
				}
			})
		})
	}
}

// A terminal that has nothing is unsupported; what there is goes to the cloud
// all the same. Without an upload the archive stays at the store.
func TestSendLogsWithoutLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := memory(t)
		server := &logServer{}
		w.options.HTTP = server.client()
		w.device.Set(devicetest.Script{
			Outcome: device.Outcome{Failure: &device.Failure{Cause: device.Unsupported, Code: "83", Message: "no files", Executed: device.No}},
			Files:   map[string]string{"status.txt": "ready"},
		})
		w.start()
		w.send(w.logCommand("x"))
		w.wantFinal("x", "unsupported_operation no")
		if len(server.bodies) != 1 || unpack(t, server.bodies[0])["status.txt"] != "ready" {
			t.Error("the status was not uploaded")
		}
		w.device.Set(logScript)
		w.send(w.command("kept", device.SendLogs))
		result := logsOf(t, w.wantFinal("kept", "COMPLETED"))
		content, err := os.ReadFile(result.Archive)
		if err != nil || unpack(t, content)["02-application.log"] == "" {
			t.Errorf("archive %q: %v", result.Archive, err)
		}
	})
}

// Of too much the oldest lines go, and the result says how much.
func TestSpoolHasARoom(t *testing.T) {
	s := &spool{dir: t.TempDir(), room: 10}
	if err := s.Put("a.log", []byte("first\nsecond\nthird\n"), 3); err != nil {
		t.Fatal(err)
	}
	if f := s.files[0]; f.Size != 6 || f.Dropped != 3+13 || s.Room() != 4 {
		t.Errorf("%+v, room %d", f, s.Room())
	}
	if b, _ := os.ReadFile(filepath.Join(s.dir, "a.log")); string(b) != "third\n" {
		t.Errorf("kept %q", b)
	}
}

// A terminal with logs without end leaves room for the agent's own, of which the
// oldest go where that is little.
func TestOwnFilesHaveARoom(t *testing.T) {
	for _, tt := range []struct {
		name                   string
		maxBytes, most, ownLog int64
	}{
		{"by default", 0, 512 << 10, 300 << 10},
		{"a small archive", 100 << 10, 8500, 8500},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _ := memory(t)
				w.options.HTTP = new(logServer).client()
				w.options.OwnLog = func() []byte { return bytes.Repeat([]byte("agent\n"), 50<<10) }
				w.capture = func(most int64) ([]byte, int64) {
					if most < tt.most || most > tt.most+tt.most/8 {
						t.Errorf("captured with room for %d", most)
					}
					return make([]byte, most), 0
				}
				w.device.Set(devicetest.Script{Outcome: logScript.Outcome, Files: map[string]string{"big": strings.Repeat("line\n", 4<<20)}})
				w.start()
				c := w.logCommand("x")
				c.Upload.MaxBytes = tt.maxBytes
				w.send(c)
				size := int64(0)
				for _, f := range logsOf(t, w.wantFinal("x", "COMPLETED")).Files {
					size += f.Size
					if f.Name == ownLogName && (f.Size < tt.ownLog || f.Size+f.Dropped != 300<<10) {
						t.Errorf("%+v", f)
					}
				}
				if most := roomFor(c.Upload); size > most || size < most-most/8 {
					t.Errorf("%d bytes with room for %d", size, most)
				}
			})
		})
	}
}
