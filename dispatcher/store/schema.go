package store

import (
	"context"
	"fmt"
)

// schema holds the steps from an empty database to the present one. A step that
// was released is never changed; a change is a step more. Times are
// milliseconds, 0 and the empty text are "not yet" or "none".
var schema = []string{`
CREATE TABLE terminals (
	id          TEXT PRIMARY KEY,
	account_id  TEXT NOT NULL,
	added_at    BIGINT NOT NULL,
	state       TEXT NOT NULL DEFAULT '',  -- online, offline
	journal_id  TEXT NOT NULL DEFAULT '',
	connection  BIGINT NOT NULL DEFAULT 0,
	presence    TEXT NOT NULL DEFAULT '',  -- the newest online presence, JSON
	seen_at     BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE operations (
	id               TEXT PRIMARY KEY,
	account_id       TEXT NOT NULL,
	terminal_id      TEXT NOT NULL REFERENCES terminals (id),
	operation        TEXT NOT NULL,
	parameters       TEXT NOT NULL,
	status           TEXT NOT NULL CHECK (status IN ('PENDING', 'COMPLETED', 'FAILED', 'TIMEOUT')),
	origin           TEXT NOT NULL DEFAULT '',
	created_at       BIGINT NOT NULL,
	created_by       TEXT NOT NULL,
	updated_at       BIGINT NOT NULL,
	updated_by       TEXT NOT NULL,
	expires_at       BIGINT NOT NULL DEFAULT 0,
	deadline         BIGINT NOT NULL DEFAULT 0,  -- TIMEOUT then, if nothing more is heard
	hard_limit       BIGINT NOT NULL DEFAULT 0,
	accepted_at      BIGINT NOT NULL DEFAULT 0,
	running_at       BIGINT NOT NULL DEFAULT 0,
	progress         TEXT NOT NULL DEFAULT '',
	progress_at      BIGINT NOT NULL DEFAULT 0,
	sequence         BIGINT NOT NULL DEFAULT 0,  -- of progress
	ended_at         BIGINT NOT NULL DEFAULT 0,  -- PENDING was left then
	effect           TEXT NOT NULL DEFAULT '',
	result           TEXT NOT NULL DEFAULT '',
	error            TEXT NOT NULL DEFAULT '',
	late_result      TEXT NOT NULL DEFAULT '',
	late_result_at   BIGINT NOT NULL DEFAULT 0,
	idempotency_key  TEXT NOT NULL DEFAULT '',
	fingerprint      TEXT NOT NULL DEFAULT '',
	answer           TEXT NOT NULL DEFAULT ''   -- the body of the 201
);
CREATE UNIQUE INDEX one_pending ON operations (terminal_id) WHERE status = 'PENDING';
CREATE UNIQUE INDEX one_per_key ON operations (account_id, idempotency_key) WHERE idempotency_key <> '';
CREATE INDEX pending_deadlines ON operations (deadline) WHERE status = 'PENDING';
CREATE INDEX wanted ON operations (terminal_id, ended_at) WHERE status = 'TIMEOUT' AND late_result_at = 0;
CREATE INDEX by_account ON operations (account_id, created_at, id);
CREATE INDEX by_terminal ON operations (terminal_id, created_at, id);
CREATE TABLE uploads (
	operation_id  TEXT PRIMARY KEY REFERENCES operations (id),
	token_hash    TEXT NOT NULL UNIQUE,
	stored_at     BIGINT NOT NULL DEFAULT 0,
	removed_at    BIGINT NOT NULL DEFAULT 0,
	file          TEXT NOT NULL DEFAULT '',
	size          BIGINT NOT NULL DEFAULT 0,
	sha256        TEXT NOT NULL DEFAULT ''
);
CREATE INDEX kept_uploads ON uploads (stored_at) WHERE stored_at > 0 AND removed_at = 0;
`}

// migrate takes the steps that the database has not seen, all or none.
func (s *Store) migrate(ctx context.Context) error {
	return s.update(ctx, func(tx *transaction) error {
		if _, err := tx.exec(ctx, `CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)`); err != nil {
			return err
		}
		var version int
		if err := tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) FROM schema_version`).Scan(&version); err != nil {
			return err
		}
		if version > len(schema) {
			return fmt.Errorf("schema version is %d, this program knows up to %d: it is too old for this database", version, len(schema))
		}
		for i := version; i < len(schema); i++ {
			if _, err := tx.exec(ctx, schema[i]); err != nil {
				return fmt.Errorf("schema version %d: %w", i+1, err)
			}
			if _, err := tx.exec(ctx, `INSERT INTO schema_version (version) VALUES (?)`, i+1); err != nil {
				return err
			}
		}
		return nil
	})
}
