package dispatcher

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"terminalops/dispatcher/store"
)

const (
	// uploadWait is how long one archive may take: 16 MiB over 150 kbit/s.
	uploadWait = 15 * time.Minute
	// partSuffix marks a file that is still being received.
	partSuffix    = ".part"
	archiveSuffix = ".tar.gz"
)

// Uploads is where log archives go.
//
// The token of an upload is derived from Key and the operation's id, so that a
// command is the same whenever it is sent, while the store holds only the
// token's hash: neither the database alone nor an id opens anything.
type Uploads struct {
	Dir      string        // made if it does not exist
	Key      []byte        // a secret that stays the same; see MakeSecret
	MaxBytes int64         // of one archive
	Keep     time.Duration // an archive is removed after this
}

func (u Uploads) prepare() error {
	switch {
	case len(u.Key) < shortestSecret:
		return fmt.Errorf("key has %d bytes, want at least %d", len(u.Key), shortestSecret)
	case u.MaxBytes <= 0:
		return fmt.Errorf("largest size is %d bytes, want more than 0", u.MaxBytes)
	case u.Keep <= 0:
		return fmt.Errorf("archives are kept for %v, want more than 0", u.Keep)
	}
	return os.MkdirAll(u.Dir, 0o700)
}

// token is the secret part of an operation's upload URL.
func (u Uploads) token(operationID string) string {
	mac := hmac.New(sha256.New, u.Key)
	mac.Write([]byte("upload " + operationID))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// hash is what the store knows of a token.
func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// upload is PUT: the archive is on disk, then noted in the store, then answered.
func (d *Dispatcher) upload(w http.ResponseWriter, r *http.Request) *problem {
	token := hash(r.PathValue("token"))
	u, err := d.store.UploadByToken(r.Context(), token)
	if err != nil {
		return d.uploadRefusal(u, err)
	}
	if r.ContentLength > d.uploads.MaxBytes {
		return d.tooLarge()
	}
	// The server's time for reading a request is meant for small ones.
	err = http.NewResponseController(w).SetReadDeadline(time.Now().Add(uploadWait))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return d.internal(err)
	}
	file, err := d.uploads.receive(u.OperationID, http.MaxBytesReader(w, r.Body, d.uploads.MaxBytes))
	var tooLarge *http.MaxBytesError
	var bad *bodyError
	switch {
	case errors.As(err, &tooLarge):
		return d.tooLarge()
	case errors.As(err, &bad):
		return newProblem(http.StatusBadRequest, "invalid_request", "body: %v", bad)
	case err != nil:
		return d.internal(fmt.Errorf("store archive: %w", err))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), storeWait)
	defer cancel()
	if u, err = d.store.UseToken(ctx, token, file); err != nil {
		// After any other error the store may point to this file all the same: it
		// stays, and if it does not count it is a leftover.
		if isRefusedUpload(err) {
			d.discard(file.File)
		}
		return d.uploadRefusal(u, err)
	}
	d.log.Info("log archive stored", "operation", file.OperationID, "bytes", file.Size)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// isRefusedUpload reports whether err is a token that is good for nothing: then
// the store has changed nothing.
func isRefusedUpload(err error) bool {
	return errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrTooLate) || errors.Is(err, store.ErrUsed)
}

func (d *Dispatcher) tooLarge() *problem {
	return newProblem(http.StatusRequestEntityTooLarge, "too_large", "the archive is larger than %d bytes", d.uploads.MaxBytes)
}

func (d *Dispatcher) uploadRefusal(u store.Upload, err error) *problem {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return newProblem(http.StatusNotFound, "upload_not_found", "there is no such upload")
	case errors.Is(err, store.ErrTooLate):
		return newProblem(http.StatusGone, "upload_expired", "the time for this upload is over")
	case errors.Is(err, store.ErrUsed):
		// Whoever lost the answer to the first one sees whether it was the same.
		sum, err := hex.DecodeString(u.SHA256)
		if err != nil {
			return d.internal(err)
		}
		return newProblem(http.StatusConflict, "already_uploaded", "this archive was uploaded already").
			with("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum)+":")
	default:
		return d.internal(err)
	}
}

// bodyError is an archive that did not arrive whole.
type bodyError struct{ error }

// receive writes an archive to a file of its own, which is on disk when it
// returns. The store decides whether it counts.
func (u Uploads) receive(operationID string, body io.Reader) (store.Upload, error) {
	f, err := os.CreateTemp(u.Dir, operationID+".*"+partSuffix)
	if err != nil {
		return store.Upload{}, err
	}
	defer os.Remove(f.Name()) // does nothing once it is renamed
	sum := sha256.New()
	size, err := copyBody(io.MultiWriter(f, sum), body)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return store.Upload{}, err
	}
	name := operationID + "." + rand.Text() + archiveSuffix
	if err := os.Rename(f.Name(), filepath.Join(u.Dir, name)); err != nil {
		return store.Upload{}, err
	}
	if err := syncDir(u.Dir); err != nil {
		return store.Upload{}, err
	}
	return store.Upload{OperationID: operationID, File: name, Size: size, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// copyBody tells an error of the sender (bodyError) from one of the disk.
func copyBody(to io.Writer, body io.Reader) (int64, error) {
	reader := &noting{Reader: body}
	n, err := io.Copy(to, reader)
	switch {
	case reader.err != nil:
		return n, &bodyError{reader.err}
	case err == nil && n == 0:
		return 0, &bodyError{errors.New("it is empty")}
	}
	return n, err
}

// noting remembers the error of a Reader.
type noting struct {
	io.Reader
	err error
}

func (n *noting) Read(b []byte) (int, error) {
	read, err := n.Reader.Read(b)
	if err != nil && err != io.EOF {
		n.err = err
	}
	return read, err
}

func (e *bodyError) Unwrap() error { return e.error }

// discard removes a file that nothing in the store points to.
func (d *Dispatcher) discard(name string) {
	if err := os.Remove(filepath.Join(d.uploads.Dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		d.log.Warn("cannot remove a log archive", "file", name, "error", err)
	}
}

// logs is GET of an operation's archive.
func (d *Dispatcher) logs(w http.ResponseWriter, r *http.Request, who by) *problem {
	o, p := d.find(r, who)
	if p != nil {
		return p
	}
	u, err := d.store.UploadOf(r.Context(), o.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return newProblem(http.StatusNotFound, "no_archive", "operation %s has no log archive", o.ID)
	case err != nil:
		return d.internal(err)
	case !u.RemovedAt.IsZero():
		return newProblem(http.StatusGone, "archive_removed", "log archives are kept for %v; this one is gone", d.uploads.Keep)
	}
	f, err := os.Open(filepath.Join(d.uploads.Dir, u.File))
	if err != nil {
		return d.internal(err)
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/gzip")
	w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s-%s%s"`, o.TerminalID, o.ID, archiveSuffix))
	w.Header().Set("Content-Length", strconv.FormatInt(u.Size, 10))
	io.Copy(w, f) // the client may be gone; there is nobody else to tell
	return nil
}

// removeOldArchives removes what was kept long enough, and what was received
// but never came to count.
func (d *Dispatcher) removeOldArchives(ctx context.Context) {
	old, err := d.store.OldUploads(ctx, d.uploads.Keep)
	if err != nil {
		d.log.Error("cannot look for old log archives, trying again in an hour", "error", err)
		return
	}
	for _, u := range old {
		d.discard(u.File)
		if err := d.store.RemoveUpload(ctx, u.OperationID); err != nil {
			d.log.Error("cannot note a removed log archive, trying again in an hour", "error", err)
		}
	}
	d.removeLeftovers()
}

// removeLeftovers removes what a former process left behind: parts, and whole
// archives that it had no time to note.
func (d *Dispatcher) removeLeftovers() {
	for suffix, age := range map[string]time.Duration{partSuffix: uploadWait, archiveSuffix: d.uploads.Keep + uploadWait} {
		files, err := filepath.Glob(filepath.Join(d.uploads.Dir, "*"+suffix))
		if err != nil {
			d.log.Error("cannot look for leftover log archives, trying again in an hour", "error", err)
		}
		for _, file := range files {
			if info, err := os.Stat(file); err == nil && time.Since(info.ModTime()) > age {
				d.discard(filepath.Base(file))
			}
		}
	}
}
