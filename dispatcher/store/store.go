// Package store keeps what the dispatcher must not forget: terminals,
// operations, log archives. It is SQLite in one file.
//
//	          Create                    Heard (deadline moves on)
//	(nothing) ------> PENDING <-----------------------------------+
//	                    |  |                                      |
//	                    |  +-- ACCEPTED, RUNNING -----------------+
//	                    |
//	                    +-- Finish --> COMPLETED or FAILED
//	                    +-- Expire --> TIMEOUT -- Finish --> TIMEOUT + late_result
//
//	(nothing) -- AddLocal --> COMPLETED or FAILED, origin local
//
// PENDING is left exactly once, by one conditional update (see end); that a
// terminal has one PENDING operation at most is a partial unique index. Neither
// depends on a lock in this process, so several processes may share a file.
//
// Every time that is stored or compared is the database's clock, in
// milliseconds since 1970; a method reads it once, inside its transaction. All
// SQL is here, and restricted to what PostgreSQL understands too, except for
// how the file is opened and how the clock is read.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite", without cgo
)

// readers is how many connections serve reading. Writing has one, because
// SQLite has one writer: to wait for a connection is fair, to poll a lock is not.
const readers = 4

// busyTimeout is how long to wait for another process that writes, in milliseconds.
const busyTimeout = 10_000

// nowSQL reads the database's clock in milliseconds since 1970.
const nowSQL = `SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)`

// Options of a Store.
type Options struct {
	// Path of the database file; it is made if it does not exist.
	Path string
	// Clock takes the place of the database's clock in tests. nil: the
	// database's.
	Clock func() time.Time
}

// Store is an open database. Its methods may be called from several goroutines.
type Store struct {
	write, read *sql.DB
	clock       func() time.Time
}

// Open opens the database and brings its schema up to date.
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", o.Path, err)
	}
	return s, nil
}

func open(ctx context.Context, o Options) (*Store, error) {
	if o.Path == "" || strings.ContainsRune(o.Path, '?') {
		return nil, errors.New("want the path of a file, without a question mark")
	}
	path, err := filepath.Abs(o.Path)
	if err != nil {
		return nil, err
	}
	// FULL makes a commit durable in WAL mode; NORMAL would lose the last ones
	// with the power.
	dsn := fmt.Sprintf("%s?_busy_timeout=%d&_journal_mode=WAL&_synchronous=FULL&_foreign_keys=1&_txlock=immediate", path, busyTimeout)
	s := &Store{clock: o.Clock}
	if s.write, err = sql.Open("sqlite", dsn); err != nil {
		return nil, err
	}
	s.write.SetMaxOpenConns(1)
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(err, s.write.Close())
	}
	if s.read, err = sql.Open("sqlite", dsn+"&_query_only=1"); err != nil {
		return nil, errors.Join(err, s.write.Close())
	}
	s.read.SetMaxOpenConns(readers)
	return s, nil
}

// Close closes the database. Nothing may be going on.
func (s *Store) Close() error {
	return errors.Join(s.read.Close(), s.write.Close())
}

// Now reads the database's clock.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	now, err := s.now(ctx, s.read)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the database's clock: %w", err)
	}
	return fromMillis(now), nil
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// now is the one place where time comes from.
func (s *Store) now(ctx context.Context, q querier) (millis int64, err error) {
	if s.clock != nil {
		return s.clock().UnixMilli(), nil
	}
	err = q.QueryRowContext(ctx, nowSQL).Scan(&millis)
	return millis, err
}

// transaction is one writing transaction and the time at which it happens.
type transaction struct {
	*sql.Tx
	now int64
}

// update runs f in a writing transaction and commits it if f returns nil.
func (s *Store) update(ctx context.Context, f func(*transaction) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after a commit
	now, err := s.now(ctx, tx)
	if err != nil {
		return err
	}
	if err := f(&transaction{tx, now}); err != nil {
		return err
	}
	return tx.Commit()
}

// exec runs a statement and returns how many rows it changed.
func (t *transaction) exec(ctx context.Context, query string, args ...any) (int64, error) {
	r, err := t.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// toMillis stores the zero time as 0.
func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
