// Package control is the way of people at the store into the agent that runs:
// a local socket, where a command of the same machine asks and the agent's
// process answers.
//
//	terminal-agent status             terminal-agent run
//	   Client  ---- one connection ---->  Server ----> agent.Agent
//	           {"version":1,"request":"run","terminal":"T1",...}\n
//	           <----------------- {"operation_id":"3f1a..."}\n
//	           <------------------------------ {"end":true}\n
//
// A connection is for one request: one line of JSON each way, and more lines
// back where there is more to say, the last of which is an end or an error.
//
//	request   members               answers
//	status                          status
//	history   terminal, limit       record ...
//	run       terminal, operation,  operation_id
//	          by
//	follow    operation_id          report ... the final one
//	cancel    operation_id
//	past                            event ... those that are kept
//	trace                           the same, then event ... as they happen,
//	                                until the client hangs up
//
// Who may connect, the system decides (socket_unix.go, socket_windows.go): the
// account that the agent runs as, and the administrators. So nobody is asked for
// a name or a password, and the name in a request is only a name.
//
// A client is never waited for beyond a deadline, and never by anybody but the
// goroutine that serves it.
package control

import (
	"encoding/json"
	"errors"
	"time"

	"terminalops/agent"
)

// version is that of the lines. A member more does not change it.
const version = 1

const (
	// maxRequest bounds a request, in bytes.
	maxRequest = 64 << 10
	// maxAnswer bounds a line of an answer, in bytes: a final report, which has
	// 64 KiB, in JSON within JSON, or a status with many terminals.
	maxAnswer = 16 << 20
	// maxClients is how many are served at a time.
	maxClients = 32
	// requestPatience is how long a client may take for its request,
	// answerPatience for taking a line of the answer, and farewellPatience for
	// taking all that there is to say when the agent ends.
	requestPatience  = 10 * time.Second
	answerPatience   = 10 * time.Second
	farewellPatience = time.Second
)

// The requests.
const (
	requestStatus  = "status"
	requestHistory = "history"
	requestRun     = "run"
	requestFollow  = "follow"
	requestCancel  = "cancel"
	requestPast    = "past"
	requestTrace   = "trace"
)

type request struct {
	Version     int    `json:"version"`
	Request     string `json:"request"`
	Terminal    string `json:"terminal,omitempty"`
	Operation   string `json:"operation,omitempty"`
	By          string `json:"by,omitempty"`
	OperationID string `json:"operation_id,omitempty"`
	Limit       int    `json:"limit,omitempty"`
}

// answer is one line of an answer: one of its members is set.
type answer struct {
	Status      *agent.Status   `json:"status,omitempty"`
	Record      *agent.Record   `json:"record,omitempty"`
	OperationID string          `json:"operation_id,omitempty"`
	Report      *agent.Report   `json:"report,omitempty"`
	Event       json.RawMessage `json:"event,omitempty"`
	Error       *remoteError    `json:"error,omitempty"`
	End         bool            `json:"end,omitempty"`
}

// remoteError is an error of the agent. Where its code is known, errors.Is finds
// the agent's own.
type remoteError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *remoteError) Error() string { return e.Message }

func (e *remoteError) Unwrap() error {
	for _, c := range codes {
		if c.word == e.Code {
			return c.err
		}
	}
	return nil
}

// ErrVersion: the agent that runs is of another version, and does not
// understand this one.
var ErrVersion = errors.New("another version of terminal-agent runs")

// codes are the errors that a client can tell apart.
var codes = []struct {
	word string
	err  error
}{
	{"version", ErrVersion},
	{"unknown_terminal", agent.ErrUnknownTerminal},
	{"unknown_operation", agent.ErrUnknownOperation},
	{"unknown_id", agent.ErrUnknownID},
	{"not_local", agent.ErrNotLocal},
	{"started", agent.ErrStarted},
	{"stopping", agent.ErrStopping},
}

// remote makes an error ready for the way.
func remote(err error) *remoteError {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return &remoteError{c.word, err.Error()}
		}
	}
	return &remoteError{"failed", err.Error()}
}
