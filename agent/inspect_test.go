package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A look at a state directory leaves no file, and does not change one.
func TestInspect(t *testing.T) {
	dir := t.TempDir()
	if _, err := Inspect(dir, 10); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no journal: %v", err)
	}
	release, err := Hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	release()
	if files := contents(t, dir); len(files) != 0 {
		t.Errorf("there are files now: %d", len(files))
	}

	j := mustOpen(t, dir)
	if err := errors.Join(j.add(newEntry("a")), j.add(newEntry("b"))); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(dir, 10); !errors.Is(err, ErrInUse) {
		t.Errorf("an agent works: %v", err)
	}
	if _, err := Hold(dir); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "process") {
		t.Errorf("an agent works: %v", err)
	}
	id := j.id
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	i, err := Inspect(dir, 10)
	if err != nil || i.JournalID != id || len(i.Records) != 2 || i.Records[0].ID != "b" {
		t.Errorf("have %+v, %v", i, err)
	}
	if after := contents(t, dir); len(after) != len(before) || after[journalFile] != before[journalFile] {
		t.Error("something has changed")
	}
	if i, err := Inspect(dir, 1); err != nil || len(i.Records) != 1 {
		t.Errorf("have %+v, %v", i, err)
	}
}

// Who holds a directory keeps agents out of it.
func TestHold(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir).close()
	release, err := Hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{StateDir: dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("an agent starts: %v", err)
	}
	release()
	a, err := New(Options{StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
}

// A damaged journal is an error that says so, and stays as it is.
func TestInspectDamaged(t *testing.T) {
	for name, content := range map[string]string{"no journal": strings.Repeat("x", 1<<16), "empty": "", "short": "x"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, journalFile)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if i, err := Inspect(dir, 10); err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrInUse) {
				t.Errorf("have %+v, %v", i, err)
			}
			if have := readText(path); have != content {
				t.Error("it was changed")
			}
			if files := contents(t, dir); len(files) != 1 {
				t.Errorf("%d files", len(files))
			}
		})
	}
}
