package transport

import (
	"errors"
	"strings"
	"testing"
	"time"
)

const goodCommand = `{"operation_id":"3f1a9c2e","terminal_id":"P11223351-T0013","operation":"end_of_day",
 "parameters":{"operator_id":"anna"},"issued_at":"2026-06-29T09:00:00.000Z","expires_at":"2026-06-29T11:01:00+02:00","new_member":[1,2]}`

func TestDecodeCommand(t *testing.T) {
	c, err := DecodeCommand([]byte(goodCommand), "P11223351-T0013")
	if err != nil {
		t.Fatal(err)
	}
	if c.OperationID != "3f1a9c2e" || c.Operation != "end_of_day" || c.Parameters.OperatorID != "anna" {
		t.Errorf("have %+v", c)
	}
	if want := time.Date(2026, 6, 29, 9, 1, 0, 0, time.UTC); !c.ExpiresAt.Equal(want) {
		t.Errorf("expires_at = %v, want %v", c.ExpiresAt, want)
	}
}

func TestDecodeCommandRefuses(t *testing.T) {
	tests := []struct{ name, payload, id, reason string }{
		{"not JSON", `hello`, "", "want a JSON object"},
		{"cut off", goodCommand[:200], "3f1a9c2e", "malformed JSON"},
		{"too large", goodCommand[:len(goodCommand)-1] + `,"x":"` + strings.Repeat("x", MaxPayload) + `"}`, "3f1a9c2e", "larger than 65536 bytes"},
		{"too large, cut off", (goodCommand[:len(goodCommand)-1] + `,"x":"` + strings.Repeat("x", 1<<20))[:MaxPayload+1], "3f1a9c2e", "larger than"},
		{"foreign", strings.Replace(goodCommand, "T0013", "T0014", 1), "3f1a9c2e", `terminal_id is "P11223351-T0014", this is "P11223351-T0013"`},
		{"wrong type", strings.Replace(goodCommand, `"end_of_day"`, `7`, 1), "3f1a9c2e", "malformed JSON"},
		{"no id", strings.Replace(goodCommand, `"3f1a9c2e"`, `""`, 1), "", "no operation_id"},
		{"endless id", strings.Replace(goodCommand, `3f1a9c2e`, strings.Repeat("7", 200), 1), "", "longer than"},
		{"no deadline", strings.Replace(goodCommand, `expires_at`, `expired_at`, 1), "3f1a9c2e", "no expires_at"},
		{"bad time", strings.Replace(goodCommand, `2026-06-29T09:00:00.000Z`, `yesterday`, 1), "3f1a9c2e", "want RFC 3339"},
		{"not UTF-8", strings.Replace(goodCommand, `anna`, "\xff", 1), "3f1a9c2e", "not UTF-8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := DecodeCommand([]byte(tt.payload), "P11223351-T0013")
			var invalid *InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("err = %v", err)
			}
			if invalid.OperationID != tt.id || !strings.Contains(invalid.Reason, tt.reason) {
				t.Errorf("have id %q, reason %q", invalid.OperationID, invalid.Reason)
			}
		})
	}
}

func TestTimeHasMilliseconds(t *testing.T) {
	at := time.Date(2026, 6, 29, 11, 0, 1, 250_900_000, time.FixedZone("CEST", 7200))
	got := string(Encode(Report{OperationID: "1", TerminalID: "t", State: StateRunning, At: At(at), Sequence: 2}))
	want := `{"operation_id":"1","terminal_id":"t","state":"RUNNING","at":"2026-06-29T09:00:01.250Z","sequence":2}`
	if got != want {
		t.Errorf("have %s\nwant %s", got, want)
	}
}

func TestDecodeReport(t *testing.T) {
	if _, err := DecodeReport([]byte(`{"operation_id":"1","terminal_id":"t","state":"FAILED","sequence":1}`), "t"); err == nil {
		t.Error("FAILED without error was taken")
	}
	if _, err := DecodeReport([]byte(`{"operation_id":"1","terminal_id":"t","state":"DONE"}`), "t"); err == nil {
		t.Error("an unknown state was taken")
	}
	if _, err := DecodeReport([]byte(`{"operation_id":"1","terminal_id":"u","state":"RUNNING"}`), "t"); err == nil {
		t.Error("another terminal's report was taken")
	}
}
