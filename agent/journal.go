package agent

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"terminalops/device"
	"terminalops/transport"
)

// The journal is one bbolt file, journal.db in the state directory. Every
// write is one transaction, on disk (two fdatasync) when the call returns.
//
//	bucket      key                                value
//	meta        "format"                           "1": the layout described here
//	            "id"                               journal_id, random, made with the file
//	            "welcomed"                         present once the cloud has answered a hello
//	            "replaced"                         present if an earlier file was damaged
//	            "birth"                            with replaced: the cloud's time at the first welcome
//	entries     sequence, 8 bytes big endian       entry, JSON
//	finals      sequence, number (8 bytes each)    a piece of the final report, in order
//	ids         terminal id 00 operation id        sequence
//	evidence    sequence, number (8 bytes each)    device.Evidence, JSON; numbers rise
//	connections terminal id                        number of the last connection, decimal
//
// A key of ids is never reused for another entry: an id that the journal knows
// never runs again, until the entry is pruned long after it has expired.
const (
	journalFile   = "journal.db"
	journalFormat = "1"
)

var (
	bucketMeta        = []byte("meta")
	bucketEntries     = []byte("entries")
	bucketFinals      = []byte("finals")
	bucketIDs         = []byte("ids")
	bucketEvidence    = []byte("evidence")
	bucketConnections = []byte("connections")
	bucketFiller      = []byte("filler")

	keyFormat = []byte("format") // in meta
)

// state is how far an entry is. The words are on disk.
type state string

const (
	accepted state = "accepted" // journaled, the terminal has not been asked to act
	started  state = "started"  // from here on the terminal may have acted
	finished state = "finished" // the final report is stored
)

// entry is one operation on disk.
type entry struct {
	Sequence uint64 `json:"-"` // its key

	Command    transport.Command `json:"command"`
	State      state             `json:"state"`
	AcceptedAt time.Time         `json:"accepted_at"` // all times: the cloud's clock, as well as it was known
	StartedAt  time.Time         `json:"started_at,omitzero"`
	FinishedAt time.Time         `json:"finished_at,omitzero"`

	Local   *local `json:"local,omitempty"`    // it began at the store, and not in the cloud
	OwnTime bool   `json:"own_time,omitempty"` // it was started without the cloud's time: see lane.timeFor

	Cancel bool            `json:"cancel,omitempty"` // a Cancel came before it was started
	Mark   json.RawMessage `json:"mark,omitempty"`   // the adapter's, from begin

	// Final is the final report, byte for byte as it is sent. Finished without
	// Final means abandoned: another journal has answered for this id.
	Final    []byte `json:"-"`                  // in the bucket finals
	Reported bool   `json:"reported,omitempty"` // the broker has taken Final

	// Attending: the terminal kept the word after the operation was complete
	// (an open menu), and was not seen to give it back.
	Attending bool `json:"attending,omitempty"`
}

// journal is the agent's memory. Its methods may be called from any goroutine.
type journal struct {
	db       *bolt.DB
	commits  *commits
	lock     *os.File // of the state directory
	id       string
	pageSize int // bytes

	reserving  sync.Mutex   // see reserve
	unfinished atomic.Int64 // entries that still need room for a result

	// noted, if set, is called with what has just come to be on disk of e.
	noted func(e *entry, step string)
	// cut, if set, is called around each transaction; tests cut the power there.
	cut func(when string) error
}

// ErrNewerJournal: a newer agent has written the journal, in a format that this
// version does not know. It was left as it is.
var ErrNewerJournal = errors.New("a newer terminal-agent has written it; nothing was changed: install that version or a newer one again")

// openJournal opens the journal in dir, or makes one, and keeps dir to itself
// until the journal is closed.
func openJournal(dir string, now time.Time) (*journal, error) {
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	lock, err := lockDir(dir) // before anything is touched that may be another's
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, journalFile)
	j, err := (*journal)(nil), refuseNewer(path)
	if err == nil {
		j, err = openOrReplace(path, now)
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	j.lock = lock
	return j, nil
}

// refuseNewer looks at the format of a journal, if it can be read, and changes
// nothing. Opening the file for writing does: bbolt gives it another size on
// Windows, and we count how often we try.
func refuseNewer(path string) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a mapped page beyond the end of the file
	defer func() {
		if recover() != nil {
			err = nil // it is damaged, which is for openOrReplace to see
		}
	}()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return inUse(path)
	}
	if err != nil {
		return nil // likewise, or it is not there yet
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		if meta := tx.Bucket(bucketMeta); meta != nil && isNewer(meta) {
			return newer(path, meta)
		}
		return nil
	})
}

// isNewer reports whether a later version has written the journal. Formats are
// numbers.
func isNewer(meta *bolt.Bucket) bool {
	known, _ := strconv.Atoi(journalFormat)
	found, err := strconv.Atoi(string(meta.Get(keyFormat)))
	return err == nil && found > known
}

func newer(path string, meta *bolt.Bucket) error {
	return fmt.Errorf("journal %s has format %s, this version knows %s: %w", path, meta.Get(keyFormat), journalFormat, ErrNewerJournal)
}

// inUse: an agent that did not lock the state directory, as the first versions
// did not, has the journal itself.
func inUse(path string) error { return fmt.Errorf("journal %s is %w", path, ErrInUse) }

// openOrReplace opens the journal at path. A damaged file is renamed to
// journal.db.damaged-TIME; a journal that is made beside such a file knows that
// it replaces one, however often the agent ended in between.
//
// bbolt may panic on a damaged file, also on a goroutine where nobody can
// recover it. Therefore a file counts the attempts to open it, and after the
// second one that did not come back the journal counts as damaged. The count is
// about processes that ended and not about power cuts: it need not be synced,
// and one that was cut short counts as none.
func openOrReplace(path string, now time.Time) (*journal, error) {
	attempts := path + ".opening"
	tries, _ := strconv.Atoi(readText(attempts))
	damage := fmt.Errorf("terminal-agent ended %d times while opening it", tries)
	if tries < 2 {
		if err := os.WriteFile(attempts, []byte(strconv.Itoa(tries+1)), 0o600); err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
		j, err := openFile(path)
		var d damaged
		if !errors.As(err, &d) {
			os.Remove(attempts)
			return j, err
		}
		damage = err
	}
	aside := path + damagedSuffix + now.UTC().Format("20060102T150405Z")
	if err := moveFile(path, aside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("journal %s is damaged (%v) and cannot be set aside: %w", path, damage, err)
	}
	os.Remove(attempts)
	return openFile(path)
}

const damagedSuffix = ".damaged-"

// readText returns the content of a small file, or "".
func readText(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

// damaged marks an error that speaks of the file's content.
type damaged struct{ error }

// openFile opens or creates the file at path.
func openFile(path string) (j *journal, err error) {
	defer func() {
		if p := recover(); p != nil {
			j, err = nil, damaged{fmt.Errorf("journal %s: %v", path, p)}
		}
	}()
	info, statErr := os.Stat(path)
	isNew := statErr != nil || info.Size() == 0
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:        time.Second,
		FreelistType:   bolt.FreelistMapType,
		NoFreelistSync: true,
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, inUse(path)
	case errors.Is(err, os.ErrPermission), errors.As(err, new(*os.PathError)):
		return nil, fmt.Errorf("journal: %w", err)
	case err != nil:
		return nil, damaged{fmt.Errorf("journal %s: %w", path, err)}
	}
	j = &journal{db: db, commits: newCommits(db), pageSize: db.Info().PageSize} // later it would be a race with a remap
	if isNew {
		aside, _ := filepath.Glob(path + damagedSuffix + "*")
		err = j.create(len(aside) > 0)
	} else {
		err = j.check()
	}
	if err == nil {
		err = syncDir(filepath.Dir(path)) // the file's name is on disk too
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	return j, nil
}

// create lays out a new file. replaces: it stands in for a damaged one.
func (j *journal) create(replaces bool) error {
	j.id = newID()
	err := j.db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketEntries, bucketFinals, bucketIDs, bucketEvidence, bucketConnections, bucketFiller} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if replaces {
			if err := meta.Put([]byte("replaced"), []byte("yes")); err != nil {
				return err
			}
		}
		if err := meta.Put(keyFormat, []byte(journalFormat)); err != nil {
			return err
		}
		return meta.Put([]byte("id"), []byte(j.id))
	})
	if err != nil {
		return fmt.Errorf("journal: create: %w", err)
	}
	return nil
}

// check looks an existing file over, once per start.
func (j *journal) check() error {
	return j.db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			return damaged{errors.New("journal: no meta bucket")}
		}
		// The version that brings another format upgrades here: in one
		// transaction, before anything else is read, so that a power cut leaves
		// the one or the other. A start after it does not tell the difference.
		switch format := string(meta.Get(keyFormat)); {
		case isNewer(meta):
			return newer(j.db.Path(), meta)
		case format != journalFormat:
			return damaged{fmt.Errorf("journal: unknown format %.20q", format)}
		}
		for _, name := range [][]byte{bucketEntries, bucketFinals, bucketIDs, bucketEvidence, bucketConnections, bucketFiller} {
			if tx.Bucket(name) == nil {
				return damaged{fmt.Errorf("journal: no bucket %s", name)}
			}
		}
		j.id = string(meta.Get([]byte("id")))
		if err := tx.Bucket(bucketEntries).ForEach(func(k, v []byte) error {
			e, err := parse(tx, k, v)
			if err == nil && e.State != finished {
				j.unfinished.Add(1)
			}
			return err
		}); err != nil {
			return damaged{err}
		}
		var first error
		for err := range tx.Check() { // read to its end: the channel's writer waits for us
			if first == nil {
				first = damaged{fmt.Errorf("journal: %w", err)}
			}
		}
		return first
	})
}

// close closes the journal and gives the state directory free.
func (j *journal) close() error { return errors.Join(j.db.Close(), j.lock.Close()) }

// update is the way to write. It is on disk when update returns nil. What
// waits at the same time is written together: see commits.
func (j *journal) update(change func(tx *bolt.Tx) error) error {
	return j.write(j.commits.update, change)
}

// updateAlone is update for what may be too much for the disk, having no room
// reserved: nothing else shall fail with it.
func (j *journal) updateAlone(change func(tx *bolt.Tx) error) error {
	return j.write(j.db.Update, change)
}

func (j *journal) write(update func(func(tx *bolt.Tx) error) error, change func(tx *bolt.Tx) error) error {
	if j.cut != nil {
		if err := j.cut("before"); err != nil {
			return err
		}
	}
	if err := update(change); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if j.cut != nil {
		return j.cut("after")
	}
	return nil
}

// beginAndGiveUp returns when a write could begin. Nothing is written.
func (j *journal) beginAndGiveUp() {
	if tx, err := j.db.Begin(true); err == nil { // an error: it is closed
		tx.Rollback()
	}
}

// roomPerOperation is what an operation may still need on disk after it was
// accepted: its evidence, its final report, and the pages that bbolt copies on
// the way. In bytes.
const roomPerOperation = 192 << 10

// reserve keeps room for the result of one more operation, until unfinished
// counts it no longer. Two lanes that looked at the same free pages would share
// them: one looks at a time.
func (j *journal) reserve() error {
	j.reserving.Lock()
	defer j.reserving.Unlock()
	if err := j.makeRoom(int(j.unfinished.Load()) + 2); err != nil {
		return err
	}
	j.unfinished.Add(1)
	return nil
}

// canTake reports whether one more operation could be accepted now: nil, or why
// not.
func (j *journal) canTake() error {
	if err := j.reserve(); err != nil {
		return err
	}
	defer j.unfinished.Add(-1)
	return j.update(func(*bolt.Tx) error { return nil }) // is written and synced all the same
}

// makeRoom makes sure that the file holds enough free pages, on disk already,
// for so many operations: their results can then be written although the disk is
// full. (Pages that are free in the file belong to it. On a file system that
// never overwrites in place, such as btrfs, this is no guarantee.)
func (j *journal) makeRoom(operations int) error {
	page := j.pageSize
	want := operations * roomPerOperation / page
	s := j.db.Stats()
	free := s.FreePageN + s.PendingPageN
	if free >= want {
		return nil
	}
	// A filler that fits between what is free already would make no room: it is
	// larger than all of that together.
	filler := make([]byte, max(want-free, free+1)*page)
	if err := j.updateAlone(func(tx *bolt.Tx) error { return tx.Bucket(bucketFiller).Put([]byte("filler"), filler) }); err != nil {
		return err
	}
	return j.updateAlone(func(tx *bolt.Tx) error { return tx.Bucket(bucketFiller).Delete([]byte("filler")) })
}

// add stores a new entry and gives it its sequence.
func (j *journal) add(e *entry) error {
	if err := j.reserve(); err != nil {
		return err
	}
	err := j.update(func(tx *bolt.Tx) error {
		ids := tx.Bucket(bucketIDs)
		key := idKey(e.Command.TerminalID, e.Command.OperationID)
		if ids.Get(key) != nil {
			panic("agent: journal: id added twice")
		}
		sequence, err := tx.Bucket(bucketEntries).NextSequence()
		if err != nil {
			return err
		}
		e.Sequence = sequence
		if err := ids.Put(key, sequenceKey(sequence)); err != nil {
			return err
		}
		if err := putFinal(tx, *e); err != nil {
			return err
		}
		return put(tx, *e)
	})
	if err != nil || e.State == finished {
		j.unfinished.Add(-1)
	}
	if err != nil {
		return err
	}
	j.note(e, e.words())
	return nil
}

// note says what has come to be on disk of an entry.
func (j *journal) note(e *entry, step string) {
	if j.noted != nil && step != "" {
		j.noted(e, step)
	}
}

// words say the state of an entry.
func (e *entry) words() string {
	var final transport.Report
	switch {
	case e.State != finished:
		return string(e.State)
	case json.Unmarshal(e.Final, &final) != nil:
		return "finished: another journal has it"
	case final.Error != nil:
		return fmt.Sprintf("finished: %s %s", final.State, final.Error.Code)
	default:
		return "finished: " + final.State
	}
}

// step says what has become of an entry that was before; "" for nothing that
// has a name.
func (e *entry) step(before entry) string {
	switch {
	case before.State == started && e.State == accepted:
		return "accepted again: it was not started"
	case before.State != e.State:
		return e.words()
	case e.Cancel && !before.Cancel:
		return "to be cancelled"
	case e.Reported && !before.Reported:
		return "the broker has its final report"
	case before.Attending && !e.Attending:
		return "the terminal is free again"
	default:
		return ""
	}
}

// advance applies change to e, on disk first: e has changed only if the error
// is nil. It is the one function that changes a state. change is called twice.
func (j *journal) advance(e *entry, change func(*entry)) error {
	next := *e
	change(&next)
	switch from, to := e.State, next.State; {
	case from == to,
		from == accepted && (to == started || to == finished),
		from == started && (to == accepted || to == finished): // back to accepted: begin refused, nothing was written to the terminal
	default:
		panic(fmt.Sprintf("agent: journal: %s becomes %s", from, to))
	}
	ends := e.State != finished && next.State == finished
	if err := j.update(func(tx *bolt.Tx) error {
		if ends {
			if err := putFinal(tx, next); err != nil {
				return err
			}
		}
		return put(tx, next)
	}); err != nil {
		return err
	}
	if ends {
		j.unfinished.Add(-1)
	}
	before := *e
	change(e) // only what it changes: other members may be read meanwhile
	j.note(e, next.step(before))
	return nil
}

func put(tx *bolt.Tx, e entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketEntries).Put(sequenceKey(e.Sequence), b)
}

// pieceSize is the size of the pieces of a final report, in bytes: so small that
// no value needs pages side by side. Free pages are only counted (reserve), and
// may lie anywhere.
const pieceSize = 1 << 10

func putFinal(tx *bolt.Tx, e entry) error {
	var number uint64
	for piece := range slices.Chunk(e.Final, pieceSize) {
		if err := tx.Bucket(bucketFinals).Put(numberedKey(e.Sequence, number), piece); err != nil {
			return err
		}
		number++
	}
	return nil
}

// record adds a piece of evidence to e.
func (j *journal) record(e *entry, evidence device.Evidence) error {
	b, err := json.Marshal(evidence)
	if err != nil {
		return err
	}
	if err := j.update(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(bucketEvidence)
		number, err := bucket.NextSequence()
		if err != nil {
			return err
		}
		return bucket.Put(numberedKey(e.Sequence, number), b)
	}); err != nil {
		return err
	}
	j.note(e, "evidence: "+evidence.Kind)
	return nil
}

// evidence returns what was recorded for e, in order.
func (j *journal) evidence(e *entry) ([]device.Evidence, error) {
	var all []device.Evidence
	err := j.db.View(func(tx *bolt.Tx) error {
		return eachOf(tx.Bucket(bucketEvidence), e.Sequence, func(_, v []byte) error {
			var one device.Evidence
			if err := json.Unmarshal(v, &one); err != nil {
				return err
			}
			all = append(all, one)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("journal: evidence: %w", err)
	}
	return all, nil
}

// eachOf calls f for what a bucket holds of an entry, in order.
func eachOf(b *bolt.Bucket, sequence uint64, f func(key, value []byte) error) error {
	prefix := sequenceKey(sequence)
	c := b.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if err := f(k, v); err != nil {
			return err
		}
	}
	return nil
}

// find returns the entry of an operation; nil if the journal does not know it.
func (j *journal) find(terminal, operation string) (*entry, error) {
	var e *entry
	err := j.db.View(func(tx *bolt.Tx) error {
		key := tx.Bucket(bucketIDs).Get(idKey(terminal, operation))
		if key == nil {
			return nil
		}
		var err error
		e, err = parse(tx, key, tx.Bucket(bucketEntries).Get(key))
		return err
	})
	return e, err
}

// each calls f for all entries, oldest first. f must not use the journal.
func (j *journal) each(f func(*entry)) error {
	return j.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketEntries).ForEach(func(k, v []byte) error {
			e, err := parse(tx, k, v)
			if err == nil {
				f(e)
			}
			return err
		})
	})
}

// latest returns the newest n entries of a terminal, or of all if it is empty,
// that are wanted, newest first. wanted sees no final report.
func (j *journal) latest(terminal string, n int, wanted func(*entry) bool) ([]*entry, error) {
	var found []*entry
	err := j.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketEntries).Cursor()
		for k, v := c.Last(); k != nil && len(found) < n; k, v = c.Prev() {
			e, err := parseEntry(k, v)
			if err != nil {
				return err
			}
			if terminal != "" && e.Command.TerminalID != terminal || !wanted(e) {
				continue
			}
			if err := e.readFinal(tx); err != nil {
				return err
			}
			found = append(found, e)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return found, nil
}

func parse(tx *bolt.Tx, key, value []byte) (*entry, error) {
	e, err := parseEntry(key, value)
	if err != nil {
		return nil, err
	}
	return e, e.readFinal(tx)
}

func parseEntry(key, value []byte) (*entry, error) {
	e := new(entry)
	if err := json.Unmarshal(value, e); err != nil {
		return nil, fmt.Errorf("journal: entry %x: %w", key, err)
	}
	e.Sequence = binary.BigEndian.Uint64(key)
	return e, nil
}

func (e *entry) readFinal(tx *bolt.Tx) error {
	return eachOf(tx.Bucket(bucketFinals), e.Sequence, func(_, piece []byte) error {
		e.Final = append(e.Final, piece...)
		return nil
	})
}

// How long entries stay. The dispatcher may ask for a final report for 30 days
// (wanted); a command may be delivered again until it has expired, and a day
// covers clocks that are wrong. Beyond that, age and count decide.
const (
	keepFinal   = 30 * 24 * time.Hour
	keepExpired = 24 * time.Hour
	keepAge     = 90 * 24 * time.Hour
	keepCount   = 10_000
)

// prune deletes old entries: those older than keepAge, and of more than
// keepCount the oldest, but never one that may still be needed. It returns the
// sequences of what it deleted.
func (j *journal) prune(now time.Time) ([]uint64, error) {
	var old []*entry
	err := j.db.View(func(tx *bolt.Tx) error {
		entries := tx.Bucket(bucketEntries)
		surplus := entries.Stats().KeyN - keepCount
		return entries.ForEach(func(k, v []byte) error {
			e, err := parse(tx, k, v)
			if err != nil {
				return err
			}
			surplus--
			if e.needed(now) || (now.Sub(e.FinishedAt) < keepAge && surplus < 0) {
				return nil
			}
			old = append(old, e)
			return nil
		})
	})
	if err != nil || len(old) == 0 {
		return nil, err
	}
	err = j.updateAlone(func(tx *bolt.Tx) error { // it touches pages everywhere
		for _, e := range old {
			if err := j.remove(tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	sequences := make([]uint64, len(old))
	for i, e := range old {
		sequences[i] = e.Sequence
	}
	return sequences, nil
}

// needed reports whether e must stay whatever the age and the count.
func (e *entry) needed(now time.Time) bool {
	return e.State != finished || e.Attending ||
		!e.Reported && e.Final != nil ||
		now.Before(e.Command.ExpiresAt.Add(keepExpired)) ||
		now.Before(e.FinishedAt.Add(keepFinal))
}

func (j *journal) remove(tx *bolt.Tx, e *entry) error {
	if err := tx.Bucket(bucketEntries).Delete(sequenceKey(e.Sequence)); err != nil {
		return err
	}
	if err := tx.Bucket(bucketIDs).Delete(idKey(e.Command.TerminalID, e.Command.OperationID)); err != nil {
		return err
	}
	for _, b := range []*bolt.Bucket{tx.Bucket(bucketEvidence), tx.Bucket(bucketFinals)} {
		var keys [][]byte
		if err := eachOf(b, e.Sequence, func(k, _ []byte) error {
			keys = append(keys, bytes.Clone(k))
			return nil
		}); err != nil {
			return err
		}
		for _, k := range keys {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// nextConnection counts the connections of a terminal, from above after on.
func (j *journal) nextConnection(terminal string, after uint64) (uint64, error) {
	var n uint64
	err := j.update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketConnections)
		n, _ = strconv.ParseUint(string(b.Get([]byte(terminal))), 10, 64)
		n = max(n, after) + 1
		return b.Put([]byte(terminal), strconv.AppendUint(nil, n, 10))
	})
	return n, err
}

// meta returns a word of the meta bucket; "" if it is not there.
func (j *journal) meta(key string) string {
	var value string
	j.db.View(func(tx *bolt.Tx) error { // cannot fail: it only reads memory
		value = string(tx.Bucket(bucketMeta).Get([]byte(key)))
		return nil
	})
	return value
}

func (j *journal) setMeta(key, value string) error {
	return j.update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put([]byte(key), []byte(value)) })
}

func idKey(terminal, operation string) []byte { return []byte(terminal + "\x00" + operation) }

func sequenceKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func numberedKey(n, number uint64) []byte {
	return binary.BigEndian.AppendUint64(sequenceKey(n), number)
}
