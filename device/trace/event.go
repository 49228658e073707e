package trace

import (
	"strings"
	"time"
)

// Direction is where something went. Its values are what people see and what
// captures hold.
type Direction string

const (
	ToTerminal   Direction = "→"
	FromTerminal Direction = "←"
	Remark       Direction = "·" // nothing on the line: a link was opened, for one
)

// Source is who has seen an event.
type Source string

const (
	Line      Source = "" // what went over the line of the terminal
	Journal   Source = "journal"
	ToCloud   Source = "to cloud"
	FromCloud Source = "from cloud"
	Log       Source = "log"
)

// Event is something that was seen on the line of a terminal, or has to do with
// it. It is masked: it may be shown and kept as it is.
type Event struct {
	At        time.Time `json:"at"`
	Lane      string    `json:"lane"` // the id of the terminal; empty: it is about no single one
	Source    Source    `json:"source,omitempty"`
	Direction Direction `json:"direction"` // Remark, unless the source is Line
	// Bytes are those on the wire as [Hex] writes them, with Secret for what is
	// masked; empty for a remark.
	Bytes string `json:"bytes,omitempty"`
	// Meaning says it in words, in one line.
	Meaning string `json:"meaning,omitempty"`
	// Missed is how many events before this one a subscriber was too slow for.
	Missed int `json:"missed,omitempty"`
}

// LabelWidth is the width of the widest label, in characters.
const LabelWidth = 10

// Label says who says what to whom, in the words of payment terminals: ECR is the
// till's side, which the agent plays, PT the terminal.
func (e Event) Label() string {
	switch {
	case e.Source != Line:
		return string(e.Source)
	case e.Direction == ToTerminal:
		return "ECR → PT"
	case e.Direction == FromTerminal:
		return "PT → ECR"
	default:
		return "line"
	}
}

// Secret stands for a byte that is not shown.
const Secret = "••"

// Mark says how a byte is shown.
type Mark byte

const (
	Hidden Mark = 1 << iota // as Secret
	Border                  // an element of the message begins with it
)

// Hex writes bytes in hexadecimal digits. A bar stands in place of the space before
// an element:
//
//	06 50 03|•• •• ••
//
// So digits of two elements never stand in one row. marks has one for each byte, or
// is nil.
func Hex(b []byte, marks []Mark) string {
	const digits = "0123456789ABCDEF"
	var s strings.Builder
	s.Grow(3 * len(b))
	for i, c := range b {
		var mark Mark
		if marks != nil {
			mark = marks[i]
		}
		switch {
		case i == 0:
		case mark&Border != 0:
			s.WriteByte('|')
		default:
			s.WriteByte(' ')
		}
		if mark&Hidden != 0 {
			s.WriteString(Secret)
			continue
		}
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&0x0F])
	}
	return s.String()
}
