package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"terminalops/device"
	"terminalops/transport"
)

// The logs of a send_logs come from the terminal in pieces, are packed into one
// archive, and go to the cloud:
//
//	adapter --Put--> spool/N/*  --pack--> logs/N.tar.gz  --PUT--> upload.url
//	                              ^          |
//	   the agent's own log, and --+    evidence "archive": from here on the
//	   what it saw meanwhile           terminal is not read again
//
// N is the journal's sequence of the operation.
const (
	spoolDir = "spool"
	logsDir  = "logs"

	defaultMaxBytes = 16 << 20
	ownLogName      = "terminal-agent.log"
	captureName     = "terminal-agent-capture.txt"

	// ownRoom is what the adapter leaves for these two, in bytes; of an archive
	// that has to be small it is a quarter.
	ownRoom = 1 << 20

	// hardLimit of a send_logs at the dispatcher, if the command does not say.
	hardLimit     = 15 * time.Minute
	uploadAttempt = 5 * time.Minute

	archiveKind = "archive"
)

// archive is the engine's own evidence: the logs are packed.
type archive struct {
	Files  []transport.LogFile `json:"files"`
	Report transport.Report    `json:"report"` // what the terminal's part came to
}

// request is op as the adapter sees it.
func (l *lane) request(op *operation) (device.Request, error) {
	r := device.Request{Operation: device.Operation(op.Command.Operation)}
	if r.Operation != device.SendLogs {
		return r, nil
	}
	dir := l.spoolPath(op.Sequence)
	if err := os.RemoveAll(dir); err != nil { // reading begins again
		return r, fmt.Errorf("%w: %w", errDisk, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return r, fmt.Errorf("%w: %w", errDisk, err)
	}
	op.spool = newSpool(dir, roomFor(op.Command.Upload))
	r.Spool = op.spool
	return r, nil
}

// roomFor is how many bytes of content fit into an archive of the size that is
// wanted, with its headers.
func roomFor(u *transport.Upload) int64 {
	limit := int64(defaultMaxBytes)
	if u != nil && u.MaxBytes > 0 {
		limit = u.MaxBytes
	}
	return max(limit-limit/64-(32<<10), 0)
}

// spool implements device.Spool in a directory.
type spool struct {
	dir   string
	room  int64
	own   int64 // more room, which the adapter does not get
	files []transport.LogFile
}

func newSpool(dir string, room int64) *spool {
	own := min(ownRoom, room/4)
	return &spool{dir: dir, room: room - own, own: own}
}

// Room implements device.Spool.
func (s *spool) Room() int64 { return s.room }

// Put implements device.Spool. Of content that is too large the oldest lines
// are left out.
func (s *spool) Put(name string, content []byte, dropped int64) error {
	if surplus := int64(len(content)) - s.room; surplus > 0 {
		cut := content[surplus:]
		if newline := bytes.IndexByte(cut, '\n'); newline >= 0 && newline < 4096 {
			cut = cut[newline+1:] // from the beginning of a line
		}
		dropped += int64(len(content) - len(cut))
		content = cut
	}
	s.room -= int64(len(content))
	name = s.free(fileName(name))
	if err := os.WriteFile(filepath.Join(s.dir, name), content, 0o600); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	sum := sha256.Sum256(content)
	s.files = append(s.files, transport.LogFile{
		Name: name, Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:]), Dropped: dropped,
	})
	return nil
}

// free returns name, or one like it that no file has yet.
func (s *spool) free(name string) string {
	taken := func(n string) bool {
		return slices.ContainsFunc(s.files, func(f transport.LogFile) bool { return strings.EqualFold(f.Name, n) })
	}
	unique := name
	for n := 2; taken(unique); n++ {
		unique = strconv.Itoa(n) + "-" + name
	}
	return unique
}

// fileName makes a plain file name of whatever a terminal calls its file.
func fileName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return '_'
	}, name)
	if name = strings.TrimLeft(name[:min(len(name), 100)], "."); name == "" {
		return "file"
	}
	return name
}

// deliverLogs packs what the adapter spooled and uploads it. It returns the
// final report; false if ctx ended first.
func (l *lane) deliverLogs(ctx context.Context, op *operation, r transport.Report) (transport.Report, bool) {
	l.working.turn(readPatience)
	a, packed := op.packed()
	if !packed {
		l.tell(op, "packing the logs")
		var err error
		if a, err = l.pack(op, r); err != nil {
			return l.failed(op, transport.CodeAgentError, transport.ExecutedYes, "pack the logs: "+err.Error()), true
		}
	}
	result := transport.SendLogsResult{Files: a.Files}
	upload := op.Command.Upload
	var failure error
	if upload == nil {
		result.Archive = l.archivePath(op.Sequence)
	} else {
		result.UploadURL = withoutQuery(upload.URL)
		failure = l.upload(ctx, op)
	}
	if ctx.Err() != nil {
		return transport.Report{}, false
	}
	final := l.report(op, a.Report.State)
	final.Effect, final.Message, final.Error = a.Report.Effect, a.Report.Message, a.Report.Error
	if failure != nil && final.Error == nil {
		final = l.failed(op, transport.CodeUploadFailed, transport.ExecutedYes, failure.Error())
	}
	if final.Error == nil || final.Error.Executed != transport.ExecutedNo {
		final.Result = transport.Encode(result)
	}
	return final, true
}

// packed returns the archive that an earlier attempt made.
func (op *operation) packed() (archive, bool) {
	for _, e := range op.evidence {
		var a archive
		if e.Kind == archiveKind && json.Unmarshal(e.Data, &a) == nil {
			return a, true
		}
	}
	return archive{}, false
}

// pack makes the archive, puts it on disk, and records that it is there.
func (l *lane) pack(op *operation, r transport.Report) (archive, error) {
	s := op.spool
	if err := l.putOwn(s); err != nil {
		return archive{}, err
	}
	path := l.archivePath(op.Sequence)
	if err := makeDir(filepath.Dir(path)); err != nil {
		return archive{}, err
	}
	if err := writeArchive(path, s, l.clock.now()); err != nil {
		return archive{}, err
	}
	a := archive{Files: s.files, Report: r}
	w := &witness{lane: l, op: op}
	if _, err := w.Record(archiveKind, a); err != nil {
		return archive{}, err
	}
	return a, nil
}

// putOwn adds what the agent itself has to say, while the terminal's dialogue is
// the last thing that it saw.
func (l *lane) putOwn(s *spool) error {
	s.room, s.own = s.room+s.own, 0
	if seen, dropped := l.capture(s.room / 2); len(seen) > 0 {
		if err := s.Put(captureName, seen, dropped); err != nil {
			return err
		}
	}
	if own := l.ownLog(); len(own) > 0 {
		return s.Put(ownLogName, own, 0)
	}
	return nil
}

// writeArchive writes the files of s as .tar.gz to path, under another name
// until it is whole and on disk.
func writeArchive(path string, s *spool, at time.Time) error {
	f, err := os.OpenFile(path+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	gz := gzip.NewWriter(f)
	archive := tar.NewWriter(gz)
	for _, file := range s.files {
		content, err := os.ReadFile(filepath.Join(s.dir, file.Name))
		if err != nil {
			return err
		}
		if err := archive.WriteHeader(&tar.Header{Name: file.Name, Mode: 0o600, Size: file.Size, ModTime: at.Truncate(time.Second)}); err != nil {
			return err
		}
		if _, err := archive.Write(content); err != nil {
			return err
		}
	}
	for _, end := range []func() error{archive.Close, gz.Close, f.Sync, f.Close} {
		if err := end(); err != nil {
			return err
		}
	}
	return moveFile(path+".part", path)
}

// upload sends the archive, again and again until it is taken, refused for
// good, or the hard limit has come.
func (l *lane) upload(ctx context.Context, op *operation) error {
	until := op.Command.Upload.Until.Time
	if until.IsZero() {
		until = op.Command.IssuedAt.Add(hardLimit)
	}
	pauses := pauses{first: time.Second, ceiling: time.Minute}
	began := l.clock.source.Monotonic()
	for {
		l.tell(op, "uploading the logs")
		final, err := l.put(ctx, op)
		if err == nil {
			return nil
		}
		over := l.clock.source.Monotonic()-began > hardLimit // all that is known while the cloud's time is not
		if late, known := l.clock.latest(); known {
			over = late.After(until)
		}
		if final || over {
			return err
		}
		l.tell(op, "uploading the logs, again soon: "+err.Error())
		if !sleep(ctx, pauses.next()) {
			return ctx.Err()
		}
	}
}

// put uploads the archive once. final: the answer will not change.
func (l *lane) put(ctx context.Context, op *operation) (final bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, uploadAttempt)
	defer cancel()
	where := withoutQuery(op.Command.Upload.URL)
	f, err := os.Open(l.archivePath(op.Sequence))
	if err != nil {
		return true, fmt.Errorf("upload: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return true, fmt.Errorf("upload: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, op.Command.Upload.URL, f)
	if err != nil || request.URL.Host == "" {
		return true, fmt.Errorf("upload: unusable URL %q", where)
	}
	request.ContentLength = info.Size()
	request.Header.Set("Content-Type", "application/gzip")
	for name, value := range op.Command.Upload.Headers {
		request.Header.Set(name, value)
	}
	response, err := l.http.Do(request)
	if err != nil {
		if outer, ok := errors.AsType[*url.Error](err); ok {
			err = outer.Err // without the URL: its query is a secret
		}
		return false, fmt.Errorf("upload to %s: %w", where, err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 200))
	code := response.StatusCode
	if code >= 200 && code < 300 || l.hasAlready(response, op) {
		return true, nil
	}
	temporary := code >= 500 || code == http.StatusRequestTimeout || code == http.StatusTooEarly || code == http.StatusTooManyRequests
	return !temporary, fmt.Errorf("upload to %s: %s: %s", where, response.Status, bytes.TrimSpace(body))
}

// hasAlready reports whether an upload was refused because an earlier one of
// the same archive, whose answer got lost, was taken: the answer then shows the
// digest of what is there (RFC 9530).
func (l *lane) hasAlready(response *http.Response, op *operation) bool {
	content, err := os.ReadFile(l.archivePath(op.Sequence))
	if err != nil {
		return false
	}
	sum := sha256.Sum256(content)
	return strings.Contains(response.Header.Get("Repr-Digest"), "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":")
}

// withoutQuery is a pre-signed URL as it may be shown.
func withoutQuery(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(unreadable)"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// removeLogs deletes what is left of the logs of a finished operation, if it was
// about logs. An archive stays only if nobody wanted it uploaded.
func (l *lane) removeLogs(op *operation) {
	if op.Command.Upload != nil {
		l.removeFiles(op.Sequence)
	} else {
		os.RemoveAll(l.spoolPath(op.Sequence))
	}
}

// removeFiles deletes everything that an operation left on disk. What cannot be
// deleted now is in nobody's way.
func (l *lane) removeFiles(sequence uint64) {
	os.RemoveAll(l.spoolPath(sequence))
	os.Remove(l.archivePath(sequence))
}

func (l *lane) spoolPath(sequence uint64) string {
	return filepath.Join(l.stateDir, spoolDir, strconv.FormatUint(sequence, 10))
}

func (l *lane) archivePath(sequence uint64) string {
	return filepath.Join(l.stateDir, logsDir, strconv.FormatUint(sequence, 10)+".tar.gz")
}
