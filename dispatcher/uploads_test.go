package dispatcher_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"terminalops/dispatcher"
	"terminalops/transport"
)

// uploadPath creates a send_logs and returns its id and where its archive goes.
func (b *bed) uploadPath() (id, path string) {
	b.t.Helper()
	o := b.create(getLogs)
	all := b.commands()
	u := all[len(all)-1].Upload
	if u == nil || u.MaxBytes != 1000 || !u.Until.Equal(o.CreatedAt.Add(15*minute)) {
		b.t.Fatalf("have upload %+v", u)
	}
	path, ours := strings.CutPrefix(u.URL, "https://dispatcher.example.com/v1/uploads/")
	if !ours || len(path) != 43 { // 32 bytes
		b.t.Fatalf("have URL %s", u.URL)
	}
	return o.ID, "/v1/uploads/" + path
}

func (b *bed) put(path, body string) answer {
	return b.do("PUT", path, body, "Authorization", "", "Content-Type", "application/gzip")
}

// files returns the names in the uploads' directory.
func (b *bed) files() []string {
	b.t.Helper()
	entries, err := os.ReadDir(filepath.Join(b.dir, "uploads"))
	if err != nil {
		b.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (b *bed) wantFiles(n int) {
	b.t.Helper()
	if names := b.files(); len(names) != n {
		b.t.Fatalf("have files %q, want %d", names, n)
	}
}

func TestUpload(t *testing.T) {
	with(t, nil, func(b *bed) {
		id, path := b.uploadPath()
		logs := base + "/" + id + "/logs"
		checkProblem(t, "logs before there are any", b.do("GET", logs, ""), 404)
		b.restart() // the token is the same, although only its hash is stored
		if all := b.broker.PublishedOn(terminal, transport.Commands); len(all) != 2 || string(all[0].Payload) != string(all[1].Payload) {
			t.Errorf("have %v, want the same command twice", all)
		}
		if a := b.put(path, "archive"); a.status != 204 || a.body != "" {
			t.Fatalf("have %v", a)
		}
		a := b.put(path, "another")
		checkProblem(t, "second use", a, 409)
		sum := sha256.Sum256([]byte("archive"))
		if a.header.Get("Repr-Digest") != "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":" {
			t.Errorf("have headers %v", a.header)
		}
		b.wantFiles(1)
		b.sleep(20 * minute) // the operation is over; the archive stays
		a = b.do("GET", logs, "")
		if a.status != 200 || a.body != "archive" || a.header.Get("Content-Type") != "application/gzip" || a.header.Get("Cache-Control") != "no-store" ||
			a.header.Get("Content-Disposition") != `attachment; filename="P11223351-T0013-`+id+`.tar.gz"` {
			t.Errorf("have %v %v", a, a.header)
		}
		// Ranges are not offered: to ignore one is right, and a refusal would
		// have to look like every other.
		if a := b.do("GET", logs, "", "Range", "bytes=100-"); a.status != 200 || a.body != "archive" || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("with a range: have %v %v", a, a.header)
		}
		writer := "Bearer " + b.sign(dispatcher.Development{Account: account, Scopes: []string{"write:checkout:/admin/terminals"}, Subject: "s"})
		checkProblem(t, "without the scope", b.do("GET", logs, "", "Authorization", writer), 403)
	})
}

func TestUploadsRefused(t *testing.T) {
	with(t, nil, func(b *bed) {
		_, path := b.uploadPath()
		checkProblem(t, "unknown token", b.put("/v1/uploads/"+strings.Repeat("A", 43), "x"), 404)
		checkProblem(t, "too large", b.put(path, strings.Repeat("x", 1001)), 413)
		checkProblem(t, "too large, length not said", b.putReader(path, strings.NewReader(strings.Repeat("x", 1001))), 413)
		checkProblem(t, "cut off", b.putReader(path, io.MultiReader(strings.NewReader("arch"), broken{})), 400)
		checkProblem(t, "empty", b.put(path, ""), 400)
		b.wantFiles(0)
		// None of that used the token up.
		b.wantRefused(b.put(path, strings.Repeat("x", 1000)), 204)

		o := b.create(strings.Replace(getLogs, terminal, other, 1))
		b.sleep(time.Second)
		commands := b.broker.PublishedOn(other, transport.Commands)
		c, err := transport.DecodeCommand(commands[0].Payload, other)
		if err != nil {
			t.Fatal(err)
		}
		path = strings.TrimPrefix(c.Upload.URL, "https://dispatcher.example.com")
		b.sleep(15*minute - time.Second)
		checkProblem(t, "after the hard limit", b.put(path, "x"), 410)
		checkProblem(t, "no logs", b.do("GET", base+"/"+o.ID+"/logs", ""), 404)
	})
}

// TestUploadThatMayCount: the store fails when it is to note an archive. Nobody
// knows whether it did, so the file may not be taken away from it.
func TestUploadThatMayCount(t *testing.T) {
	with(t, nil, func(b *bed) {
		_, path := b.uploadPath()
		fails := closing{strings.NewReader("archive"), b.store}
		checkProblem(t, "store fails", b.putReader(path, fails), 500)
		b.wantFiles(1)
		b.restart()
	})
}

// closing is an archive at whose end the store is no more.
type closing struct {
	io.Reader
	store io.Closer
}

func (c closing) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if err == io.EOF {
		c.store.Close()
	}
	return n, err
}

func TestUploadAfterTimeout(t *testing.T) {
	with(t, nil, func(b *bed) {
		id, path := b.uploadPath()
		b.sleep(14 * minute)
		b.wantStatus(id, "TIMEOUT")
		b.wantRefused(b.put(path, "archive"), 204)
	})
}

func TestParallelUploads(t *testing.T) {
	with(t, nil, func(b *bed) {
		id, path := b.uploadPath()
		bodies := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
		count := make(map[int]int)
		won := ""
		for i, a := range parallel(len(bodies), func(i int) answer { return b.put(path, bodies[i]) }) {
			if count[a.status]++; a.status == 204 {
				won = bodies[i]
			}
		}
		if count[204] != 1 || count[409] != len(bodies)-1 {
			t.Errorf("have %v", count)
		}
		b.wantFiles(1)
		if a := b.do("GET", base+"/"+id+"/logs", ""); a.body != won {
			t.Errorf("have %v, want %q", a, won)
		}
	})
}

func TestArchivesAreKeptForAStatedTime(t *testing.T) {
	seldom := func(b *bed) { b.times.Sweep, b.times.Republish = 6*time.Hour, time.Hour }
	with(t, seldom, func(b *bed) {
		id, path := b.uploadPath()
		b.wantRefused(b.put(path, "archive"), 204)
		leftover := filepath.Join(b.dir, "uploads", "x.part")
		if err := os.WriteFile(leftover, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(leftover, time.Time{}, time.Now()); err != nil { // of the bubble's time
			t.Fatal(err)
		}
		b.sleep(29 * 24 * time.Hour)
		b.wantRefused(b.do("GET", base+"/"+id+"/logs", ""), 200)
		b.wantFiles(1)
		b.sleep(36 * time.Hour)
		checkProblem(t, "removed", b.do("GET", base+"/"+id+"/logs", ""), 410)
		b.wantFiles(0)
	})
}

// broken is a connection that ends too soon.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func (b *bed) putReader(path string, body io.Reader) answer {
	r := httptest.NewRequest("PUT", path, body)
	r.ContentLength = -1
	w := httptest.NewRecorder()
	b.api.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.String()}
}

func TestSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a", "secret")
	if _, err := dispatcher.ReadSecret(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("have %v", err)
	}
	first, err := dispatcher.MakeSecret(file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := dispatcher.MakeSecret(file)
	if err != nil || string(first) != string(again) || len(first) < 32 {
		t.Errorf("have %q, %q, %v", first, again, err)
	}
	if err := os.WriteFile(file, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dispatcher.MakeSecret(file); err == nil || !strings.Contains(err.Error(), "5 bytes") {
		t.Errorf("have %v", err)
	}
}
