package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// What can be done with a state directory without being its agent. Neither makes
// a file: it could belong to somebody else than the agent's user.

// Hold keeps every agent out of a state directory until release is called. An
// agent that is started meanwhile does not run, and says who has the directory.
// ErrInUse: an agent works in it.
func Hold(dir string) (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return func() {}, nil // no agent has ever worked here
	}
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	switch err := lock(f); {
	case errors.Is(err, errLocked):
		defer f.Close()
		return nil, fmt.Errorf("state directory %s is %w%s", dir, ErrInUse, holder(f))
	case err != nil:
		f.Close()
		return nil, fmt.Errorf("state directory %s: lock: %w", dir, err)
	}
	if f.Truncate(0) == nil { // see lockDir
		f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return func() { f.Close() }, nil
}

// Inspection is what a journal says.
type Inspection struct {
	JournalID string
	SetAside  []string // names of journals that were damaged
	Records   []Record // newest first
}

// Inspect reads the journal in dir, and the latest n operations of it, and
// changes nothing.
//
// The error is os.ErrNotExist if there is no journal, ErrInUse if an agent has
// it, ErrNewerJournal if this version cannot read it; any other says how it is
// damaged.
func Inspect(dir string, n int) (i Inspection, err error) {
	path := filepath.Join(dir, journalFile)
	aside, _ := filepath.Glob(path + damagedSuffix + "*") // the pattern is right, the only error there is
	for _, name := range aside {
		i.SetAside = append(i.SetAside, filepath.Base(name))
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a mapped page beyond the end of the file
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("journal %s is damaged: %v", path, p)
		}
	}()
	if _, err := os.Stat(path); err != nil {
		return i, fmt.Errorf("journal: %w", err)
	}
	if err := refuseNewer(path); err != nil {
		return i, err
	}
	db, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return i, inUse(path)
	case err != nil:
		return i, fmt.Errorf("journal %s: %w", path, err)
	}
	defer db.Close()
	j := &journal{db: db}
	if err := j.check(); err != nil {
		return i, err
	}
	entries, err := j.latest("", n, func(*entry) bool { return true })
	if err != nil {
		return i, err
	}
	i.JournalID = j.id
	for _, e := range entries {
		i.Records = append(i.Records, recordOf(e))
	}
	return i, nil
}
