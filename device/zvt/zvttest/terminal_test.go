package zvttest

import (
	"strings"
	"testing"
	"time"
)

// recorded is the batch and the clock of a recorded end of day (zvt.md 6,
// vector 25).
var recorded = Options{
	Batch: &Totals{FirstReceipt: 68, LastReceipt: 71, Schemes: []Scheme{{"girocard", 4, 2600}}},
	Clock: func() time.Time { return time.Date(2021, 3, 31, 10, 59, 37, 0, time.UTC) },
}

// recordedTotals is that vector, with the length byte that its source left out.
var recordedTotals = "04 0F 49 27 00 04 00 00 00 00 26 00 0C 10 59 37 0D 03 31 60 F0 F5 F3 00 68 00 71 " +
	"04 00 00 00 00 26 00" + strings.Repeat(" 00", 6*7)

// The bytes on the wire are those of zvt.md.
func TestHappyEndOfDay(t *testing.T) {
	for _, tcp := range []bool{false, true} {
		start(t, recorded, tcp, func(t *testing.T, s *station) {
			e := s.connect()
			wantHeard(t, e.say(registerECR), yes,
				"06 0F 16 19 00 29 65 02 91 58 49 09 78 06 0A 26 08 0A 02 06 D3 0A 02 0F 27")
			wantHeard(t, e.say(statusEnquiry), yes, "06 0F 0B F0 F0 F7 32 2E 31 34 2E 31 35 00")
			began := time.Now()
			heard := e.say(endOfDayCommand)
			if took := time.Since(began); took < 3600*time.Millisecond || took > 10*time.Second {
				t.Errorf("end of day took %v", took)
			}
			wantHeard(t, heard[:4], yes,
				"04 FF 14 17 03 06 10 24 0E 07 0C 42 69 74 74 65 20 77 61 72 74 65 6E",
				"04 FF 02 04 03", strings.NewReplacer("04 0F 49", "04 0F 4C", "0D 03 31", "0D 03 31 49 09 78").Replace(recordedTotals))
			if last(heard) != completed || index(heard, "06 D3") != 4 || len(heard) != 6 {
				t.Errorf("heard %q", heard)
			}
			did := wantDid(t, s.pt, EndOfDay, 1)
			if count, amount := did[0].Totals.Sum(); count != 4 || amount != 2600 {
				t.Errorf("closed %d payments, %d", count, amount)
			}
			wantNoViolations(t, s.pt)
		})
	}
}

// Without a currency in the registration there is none in the totals (3.2).
func TestTotalsWithoutACurrency(t *testing.T) {
	start(t, recorded, true, func(t *testing.T, s *station) {
		e := s.connect()
		e.say("06 00 04 00 00 00 8C")
		if heard := e.say(endOfDayCommand); index(heard, recordedTotals) < 0 {
			t.Errorf("heard %q", heard)
		}
	})
}
