package dispatcher

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"terminalops/dispatcher/store"
	"terminalops/transport"
)

const (
	longestBody     = 64 << 10 // bytes
	longestKey      = 255      // characters of an Idempotency-Key
	longestOperator = 128      // characters of an operator_id
)

// request is a valid request for an operation.
type request struct {
	terminalID string
	operation  string
	parameters transport.Parameters
	timeout    time.Duration // 0: the operation's usual hard limit
	key        string        // "": none
}

// fingerprint is the same for requests that mean the same.
func (r request) fingerprint() string {
	return string(encode([]any{r.terminalID, r.operation, r.parameters}))
}

// readRequest reads the body strictly: what is not understood must not be
// ignored where it might have been meant to change what a terminal does.
func (d *Dispatcher) readRequest(w http.ResponseWriter, r *http.Request) (request, *problem) {
	if p := wantJSON(r); p != nil {
		return request{}, p
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longestBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return request{}, newProblem(http.StatusRequestEntityTooLarge, "too_large", "the body is larger than %d bytes", longestBody)
	case err != nil:
		return request{}, newProblem(http.StatusBadRequest, "invalid_request", "body: %v", err)
	}
	req, p := d.parseRequest(body)
	if p != nil {
		return request{}, p
	}
	req.key, p = idempotencyKey(r.Header)
	return req, p
}

func wantJSON(r *http.Request) *problem {
	unsupported := func(format string, args ...any) *problem {
		return newProblem(http.StatusUnsupportedMediaType, "unsupported_media_type", format, args...)
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return unsupported("Content-Encoding is %.40q, want none", coding)
	}
	value := r.Header.Get("Content-Type")
	if value == "" {
		return nil // not said; the body will show
	}
	media, parameters, err := mime.ParseMediaType(value)
	if err != nil || media != "application/json" {
		return unsupported("Content-Type is %.80q, want application/json", value)
	}
	if charset, said := parameters["charset"]; said && !strings.EqualFold(charset, "utf-8") {
		return unsupported("charset is %.40q, want utf-8", charset)
	}
	return nil
}

func (d *Dispatcher) parseRequest(body []byte) (request, *problem) {
	if !utf8.Valid(body) {
		return request{}, invalid("body", "want UTF-8")
	}
	var req request
	var seconds *int64
	var parameters json.RawMessage
	p := readObject("", body, map[string]any{
		"terminal_id": &req.terminalID, "operation": &req.operation, "parameters": &parameters, "timeout_seconds": &seconds,
	})
	if p == nil && parameters != nil {
		p = readObject("parameters", parameters, map[string]any{"operator_id": &req.parameters.OperatorID})
	}
	if p != nil {
		return request{}, p
	}
	switch {
	case req.terminalID == "":
		return request{}, invalid("terminal_id", "is missing")
	case req.operation == "":
		return request{}, invalid("operation", "is missing, want one of %s", strings.Join(operations, ", "))
	case !slices.Contains(operations, req.operation):
		return request{}, invalid("operation", "%.40q is unknown, want one of %s", req.operation, strings.Join(operations, ", "))
	case utf8.RuneCountInString(req.parameters.OperatorID) > longestOperator:
		return request{}, invalid("parameters.operator_id", "is longer than %d characters", longestOperator)
	}
	if seconds == nil {
		return req, nil
	}
	shortest, longest := d.times.ShortestTimeout, d.times.LongestTimeout
	if *seconds < int64(shortest/time.Second) || *seconds > int64(longest/time.Second) {
		return request{}, invalid("timeout_seconds", "is %d, want %d to %d", *seconds, shortest/time.Second, longest/time.Second)
	}
	req.timeout = time.Duration(*seconds) * time.Second
	return req, nil
}

// readObject reads exactly one JSON object into the members given. Names match
// to the letter; each may occur once; there may be no others. path names the
// object in what the caller is told, "" for the body.
func readObject(path string, text []byte, members map[string]any) *problem {
	field := func(name string) string {
		if name == "" {
			name = `""` // a name all the same, and one that nobody sees
		}
		return strings.TrimPrefix(path+"."+name, ".")
	}
	here := path
	if here == "" {
		here = "body"
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return invalid(here, "want a JSON object")
	}
	seen := make(map[string]bool)
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return invalid(here, "malformed JSON: %v", err)
		}
		name := token.(string) // the decoder lets nothing else stand here
		if seen[name] {
			return invalid(field(name), "occurs twice")
		}
		seen[name] = true
		target, known := members[name]
		if !known {
			return invalid(field(name), "is unknown, want one of %s", strings.Join(slices.Sorted(maps.Keys(members)), ", "))
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return invalid(field(name), "malformed JSON: %v", err)
		}
		// null would leave the member as it is, without an error.
		if string(value) == "null" || json.Unmarshal(value, target) != nil {
			return invalid(field(name), "is %.40s, want %s", value, wanted(target))
		}
	}
	if _, err := decoder.Token(); err != nil {
		return invalid(here, "malformed JSON: %v", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return invalid(here, "something follows the JSON object")
	}
	return nil
}

func wanted(target any) string {
	switch target.(type) {
	case *string:
		return "a string"
	case **int64:
		return "a whole number"
	default:
		return "an object"
	}
}

// idempotencyKey reads the header, bare or quoted.
func idempotencyKey(h http.Header) (string, *problem) {
	values := h.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	usable := func(r rune) bool { return r > ' ' && r < 0x7f && r != '"' }
	if len(values) > 1 || key == "" || len(key) > longestKey || strings.ContainsFunc(key, func(r rune) bool { return !usable(r) }) {
		return "", invalid("Idempotency-Key", "want one UUID, or up to %d other visible characters", longestKey)
	}
	return key, nil
}

// parametersOf reads back what create stored.
func parametersOf(o store.Operation) transport.Parameters {
	var p transport.Parameters
	if err := json.Unmarshal(o.Parameters, &p); err != nil {
		panic(fmt.Sprintf("dispatcher: parameters of operation %s: %v", o.ID, err))
	}
	return p
}
