package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// The states of a Terminal; empty: it was never heard.
const (
	Online  = "online"
	Offline = "offline"
)

// Terminal is a terminal as it was made known and as it last showed itself.
type Terminal struct {
	ID        string
	AccountID string
	AddedAt   time.Time
	Presence
	SeenAt time.Time // of the newest presence that was no old news
}

// Presence is what a terminal says of itself.
type Presence struct {
	State      string
	JournalID  string          // which journal stands behind it
	Connection uint64          // rises with every connection of that journal
	Message    json.RawMessage // an online presence as it came; an offline has none
}

// AddTerminals makes terminals known, or none of them. One that the account
// has already stays as it is.
func (s *Store) AddTerminals(ctx context.Context, account string, ids ...string) error {
	return s.update(ctx, func(tx *transaction) error {
		for _, id := range ids {
			if _, err := tx.exec(ctx, `INSERT INTO terminals (id, account_id, added_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
				id, account, tx.now); err != nil {
				return fmt.Errorf("add terminal %s: %w", id, err)
			}
			if err := tx.knowsTerminal(ctx, account, id); err != nil {
				return fmt.Errorf("add terminal %s: it belongs to another account", id)
			}
		}
		return nil
	})
}

// knowsTerminal returns ErrUnknownTerminal where the account has no such terminal.
func (t *transaction) knowsTerminal(ctx context.Context, account, id string) error {
	var one int
	err := t.QueryRowContext(ctx, `SELECT 1 FROM terminals WHERE id = ? AND account_id = ?`, id, account).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrUnknownTerminal
	}
	return err
}

const terminalColumns = `id, account_id, added_at, state, journal_id, connection, presence, seen_at`

func scanTerminal(row interface{ Scan(...any) error }) (Terminal, error) {
	var t Terminal
	var added, connection, seen int64
	var presence string
	err := row.Scan(&t.ID, &t.AccountID, &added, &t.State, &t.JournalID, &connection, &presence, &seen)
	t.AddedAt, t.SeenAt, t.Connection, t.Message = fromMillis(added), fromMillis(seen), uint64(connection), raw(presence)
	return t, err
}

// Terminals lists the terminals of an account, or all if account is empty.
func (s *Store) Terminals(ctx context.Context, account string) ([]Terminal, error) {
	all, err := s.terminals(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("list terminals: %w", err)
	}
	return all, nil
}

func (s *Store) terminals(ctx context.Context, account string) ([]Terminal, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT `+terminalColumns+` FROM terminals WHERE ? IN ('', account_id) ORDER BY id`, account)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Terminal
	for rows.Next() {
		t, err := scanTerminal(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, rows.Err()
}

// SavePresence keeps what a terminal says of itself and returns what was known
// before. Old news changes nothing and is reported as such. The error is
// ErrUnknownTerminal where there is no such terminal.
func (s *Store) SavePresence(ctx context.Context, terminalID string, p Presence) (before Presence, oldNews bool, err error) {
	err = s.update(ctx, func(tx *transaction) error {
		t, err := scanTerminal(tx.QueryRowContext(ctx, `SELECT `+terminalColumns+` FROM terminals WHERE id = ?`, terminalID))
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrUnknownTerminal
		case err != nil:
			return err
		}
		before = t.Presence
		if oldNews = p.isOldNews(before); oldNews {
			return nil
		}
		if p.Message == nil {
			p.Message = before.Message
		}
		_, err = tx.exec(ctx, `UPDATE terminals SET state = ?, journal_id = ?, connection = ?, presence = ?, seen_at = ? WHERE id = ?`,
			p.State, p.JournalID, int64(p.Connection), string(p.Message), tx.now, terminalID)
		return err
	})
	if err != nil && !errors.Is(err, ErrUnknownTerminal) {
		err = fmt.Errorf("store presence of %s: %w", terminalID, err)
	}
	return before, oldNews, err
}

// isOldNews compares connections of one journal by their numbers. An offline
// that is known already is what the broker kept, whenever that was. A last will
// of another journal than the one that is online was left behind by an agent
// that has been replaced.
func (p Presence) isOldNews(known Presence) bool {
	if p.JournalID == known.JournalID {
		repeated := p.State == Offline && known.State == Offline && p.Connection == known.Connection
		return repeated || p.Connection < known.Connection
	}
	return p.State == Offline && known.State == Online
}
