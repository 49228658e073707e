package dispatcher

import (
	"encoding/json"
	"testing"
	"time"
)

// FuzzParseRequest: what is accepted means the same when it is written out
// plainly, and has the same fingerprint then.
func FuzzParseRequest(f *testing.F) {
	for _, seed := range []string{
		`{"terminal_id":"P11223351-T0013","operation":"end_of_day"}`,
		`{"operation":"open_menu","parameters":{"operator_id":"\u0061nna"},"terminal_id":"T","timeout_seconds":90}`,
		`{"terminal_id":"\ud800","operation":"send_logs","parameters":{}}`,
		`{"terminal_id":"T","operation":"send_logs","operation":"open_menu"}`,
		`{1:2}`, `{"":0}`, `{"a"`, `{"a":}`, `[`, `{}{}`, `{"terminal_id":null}`, `{"parameters":[]}`, `{"timeout_seconds":1e400}`,
	} {
		f.Add([]byte(seed))
	}
	d := &Dispatcher{times: DefaultTimes()}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, p := d.parseRequest(body)
		if p != nil {
			if p.Status != 400 || len(p.Error.Errors) != 1 || p.Error.Errors[0].Field == "" {
				t.Fatalf("have %+v, want a 400 that names the field", p)
			}
			return
		}
		plain := map[string]any{"terminal_id": r.terminalID, "operation": r.operation, "parameters": r.parameters}
		if r.timeout != 0 {
			plain["timeout_seconds"] = r.timeout / time.Second
		}
		text, err := json.Marshal(plain)
		if err != nil {
			t.Fatal(err)
		}
		again, p := d.parseRequest(text)
		if p != nil || again != r || again.fingerprint() != r.fingerprint() {
			t.Fatalf("%s: have %+v, %v, want %+v", text, again, p, r)
		}
	})
}
