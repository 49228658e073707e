package dispatcher

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"
)

// problem is an answer that is not what was asked for. Its body has both forms:
// RFC 9457, and the house's error object as a member of it.
type problem struct {
	Type   string       `json:"type"`
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail"`
	Error  problemError `json:"error"`

	header http.Header
}

type problemError struct {
	Code    string         `json:"code"`
	Message string         `json:"message"`
	Errors  []fieldProblem `json:"errors,omitempty"`
}

// fieldProblem says which part of a request is wrong.
type fieldProblem struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func newProblem(status int, code, format string, args ...any) *problem {
	detail := fmt.Sprintf(format, args...)
	return &problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail,
		Error:  problemError{Code: code, Message: detail},
		header: make(http.Header),
	}
}

// invalid is a 400 that names the field.
func invalid(field, format string, args ...any) *problem {
	message := fmt.Sprintf(format, args...)
	p := newProblem(http.StatusBadRequest, "invalid_request", "%s: %s", field, message)
	p.Error.Errors = []fieldProblem{{field, message}}
	return p
}

// with adds a header.
func (p *problem) with(name, value string) *problem {
	p.header.Set(name, value)
	return p
}

// retryAfter adds the time to wait: whole seconds, rounded up, never 0.
func (p *problem) retryAfter(d time.Duration) *problem {
	return p.with("Retry-After", strconv.Itoa(max(1, int(math.Ceil(d.Seconds())))))
}

func (p *problem) write(w http.ResponseWriter) {
	for name, values := range p.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	body, err := json.Marshal(p)
	if err != nil {
		panic("dispatcher: " + err.Error())
	}
	w.Write(body) // the client may be gone; there is nobody else to tell
}
