package main

import (
	"bytes"
	"sync"

	"terminalops/device/trace"
)

// logTailSize is how much of the agent's own log goes into a send_logs, in
// bytes: some days of an agent with nothing unusual to say.
const logTailSize = 256 << 10

// logTail remembers the end of a log.
type logTail struct {
	mu   sync.Mutex
	tail []byte
}

// Write implements io.Writer: one call is one or more whole lines.
func (l *logTail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = append(l.tail, p...)
	if surplus := len(l.tail) - logTailSize; surplus > logTailSize { // seldom, for it moves all of it
		line := bytes.IndexByte(l.tail[surplus:], '\n')
		l.tail = append(l.tail[:0], l.tail[surplus+line+1:]...)
	}
	return len(p), nil
}

// masked returns the end of the log. Nothing in it should hold card data; it is
// masked all the same.
func (l *logTail) masked() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return []byte(trace.Mask(string(l.tail[max(0, len(l.tail)-logTailSize):])))
}
