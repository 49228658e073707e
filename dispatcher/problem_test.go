package dispatcher

import (
	"testing"
	"time"
)

// TestRetryAfterIsNeverZero: another process may have the operation end between
// our two looks at it; a client told 0 would not wait at all.
func TestRetryAfterIsNeverZero(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "1", time.Millisecond: "1", time.Second: "1", 1001 * time.Millisecond: "2", 65 * time.Second: "65"} {
		if got := newProblem(409, "c", "d").retryAfter(d).header.Get("Retry-After"); got != want {
			t.Errorf("%v: have %s, want %s", d, got, want)
		}
	}
}
