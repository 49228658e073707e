package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Errors of an upload token that was good once.
var (
	// ErrUsed: an archive was stored with it already; see Upload.SHA256.
	ErrUsed = errors.New("upload token was used")
	// ErrTooLate: its operation's hard limit is over.
	ErrTooLate = errors.New("upload token is no longer valid")
)

// Upload is the archive of one send_logs operation. Until StoredAt is set there
// is none; once RemovedAt is set it is gone again.
type Upload struct {
	OperationID string
	StoredAt    time.Time
	RemovedAt   time.Time
	File        string // a name within the directory of uploads
	Size        int64  // bytes
	SHA256      string // hexadecimal
}

const uploadColumns = `operation_id, stored_at, removed_at, file, size, sha256`

func scanUpload(row interface{ Scan(...any) error }) (Upload, error) {
	var u Upload
	var stored, removed int64
	err := row.Scan(&u.OperationID, &stored, &removed, &u.File, &u.Size, &u.SHA256)
	if errors.Is(err, sql.ErrNoRows) {
		return Upload{}, ErrNotFound
	}
	u.StoredAt, u.RemovedAt = fromMillis(stored), fromMillis(removed)
	return u, err
}

// UploadByToken returns what a token is for. With ErrUsed the Upload says what
// it was used for; other errors are ErrNotFound and ErrTooLate.
func (s *Store) UploadByToken(ctx context.Context, tokenHash string) (Upload, error) {
	now, err := s.now(ctx, s.read)
	if err != nil {
		return Upload{}, fmt.Errorf("find upload: %w", err)
	}
	return uploadByToken(ctx, s.read, now, tokenHash)
}

func uploadByToken(ctx context.Context, q querier, now int64, tokenHash string) (Upload, error) {
	u, err := scanUpload(q.QueryRowContext(ctx, `SELECT `+uploadColumns+` FROM uploads WHERE token_hash = ?`, tokenHash))
	switch {
	case errors.Is(err, ErrNotFound):
		return Upload{}, err
	case err != nil:
		return Upload{}, fmt.Errorf("find upload: %w", err)
	case !u.StoredAt.IsZero():
		return u, ErrUsed
	}
	o, err := operation(ctx, q, `WHERE id = ?`, u.OperationID)
	switch {
	case err != nil:
		return Upload{}, fmt.Errorf("find upload: %w", err)
	case toMillis(o.HardLimit) <= now:
		return Upload{}, ErrTooLate
	}
	return u, nil
}

// UseToken takes a file, which is on disk, as the archive that the token is
// for. Errors are those of UploadByToken: of several that use one token at a
// time, one wins.
func (s *Store) UseToken(ctx context.Context, tokenHash string, file Upload) (Upload, error) {
	var u Upload
	err := s.update(ctx, func(tx *transaction) (err error) {
		if u, err = uploadByToken(ctx, tx, tx.now, tokenHash); err != nil {
			return err
		}
		n, err := tx.exec(ctx, `UPDATE uploads SET stored_at = ?, file = ?, size = ?, sha256 = ? WHERE token_hash = ? AND stored_at = 0`,
			tx.now, file.File, file.Size, file.SHA256, tokenHash)
		if err == nil && n != 1 {
			err = ErrUsed
		}
		return err
	})
	return u, err
}

// UploadOf returns the archive of an operation, or ErrNotFound where there is
// none (yet).
func (s *Store) UploadOf(ctx context.Context, operationID string) (Upload, error) {
	u, err := scanUpload(s.read.QueryRowContext(ctx, `SELECT `+uploadColumns+` FROM uploads WHERE operation_id = ? AND stored_at > 0`, operationID))
	if err != nil && !errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("find the archive of operation %s: %w", operationID, err)
	}
	return u, err
}

// OldUploads returns the archives that have been kept for that long.
func (s *Store) OldUploads(ctx context.Context, keep time.Duration) ([]Upload, error) {
	all, err := s.oldUploads(ctx, keep)
	if err != nil {
		return nil, fmt.Errorf("list old archives: %w", err)
	}
	return all, nil
}

func (s *Store) oldUploads(ctx context.Context, keep time.Duration) ([]Upload, error) {
	now, err := s.now(ctx, s.read)
	if err != nil {
		return nil, err
	}
	rows, err := s.read.QueryContext(ctx, `SELECT `+uploadColumns+` FROM uploads
		WHERE stored_at > 0 AND removed_at = 0 AND stored_at <= ? ORDER BY stored_at`, now-keep.Milliseconds())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Upload
	for rows.Next() {
		u, err := scanUpload(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, rows.Err()
}

// RemoveUpload notes that the file of an archive is gone.
func (s *Store) RemoveUpload(ctx context.Context, operationID string) error {
	err := s.update(ctx, func(tx *transaction) error {
		_, err := tx.exec(ctx, `UPDATE uploads SET removed_at = ? WHERE operation_id = ?`, tx.now, operationID)
		return err
	})
	if err != nil {
		return fmt.Errorf("note the removal of the archive of operation %s: %w", operationID, err)
	}
	return nil
}
