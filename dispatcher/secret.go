package dispatcher

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ReadSecret reads a secret from a file: all of it, but for line ends at its end.
func ReadSecret(file string) ([]byte, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	secret := bytes.TrimRight(content, "\r\n")
	if len(secret) < shortestSecret {
		return nil, fmt.Errorf("%s holds %d bytes, want at least %d", file, len(secret), shortestSecret)
	}
	return secret, nil
}

// MakeSecret is ReadSecret for a file that is made, with a new secret, if it
// does not exist.
func MakeSecret(file string) ([]byte, error) {
	secret, err := ReadSecret(file)
	if !errors.Is(err, os.ErrNotExist) {
		return secret, err
	}
	// Where several make it at a time, one file counts: what is there is read.
	if err := create(file, rand.Text()+rand.Text()+"\n"); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return ReadSecret(file)
}

// create makes a file that is there completely, and for good, or not at all.
// Only its owner may read it.
func create(file, content string) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "*"+partSuffix)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // a leftover would be no harm
	_, err = f.WriteString(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	// Unlike a rename, a link does not replace what is there.
	if err := os.Link(f.Name(), file); err != nil {
		return err
	}
	return syncDir(dir)
}
