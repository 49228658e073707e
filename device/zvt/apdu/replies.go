package apdu

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"terminalops/device/trace"
)

// This file has the acknowledgements of both sides, and what the PT sends except
// for print (print.go).

// Ack is 80 00, the positive acknowledgement of either side (chapter 1). It
// normally carries nothing: Ack{} is 80 00 00.
type Ack struct {
	As84 bool // 84 00, which means the same
	Fields
	wire
}

func (m Ack) Control() Control {
	if m.As84 {
		return ControlAck84
	}
	return ControlAck
}
func (m Ack) Marshal() []byte { return m.join(m.Control(), m.Fields.Marshal()) }
func (m Ack) String() string  { return describe(m.Control(), m.Fields.String()) }

// Nack is 84 xx, the negative acknowledgement of either side: the command it
// answers was not started. Code is the xx.
type Nack struct {
	Code Code
	Data []byte // mostly none; its meaning depends on the command, see Reason
	wire
}

// nackAbort is the xx of a refused registration: 84 1E has the data of a 06 1E.
const nackAbort = 0x1E

// Reason is why the command was refused: the Code, or that in the data of a
// refused registration (84 1E 03 6F 09 78: 6F, wrong currency).
func (m Nack) Reason() Code {
	if m.Code == nackAbort && len(m.Data) > 0 {
		return Code(m.Data[0])
	}
	return m.Code
}

// Unsupported reports whether the receiver does not know the command or a BMP
// in it: 84 83.
func (m Nack) Unsupported() bool { return m.Reason() == CodeNotPossible }

func (m Nack) Control() Control { return classNack<<8 | Control(m.Code) }
func (m Nack) Marshal() []byte  { return m.join(m.Control(), m.Data) }

func (m Nack) String() string {
	reason := m.Reason().Error()
	if m.Unsupported() {
		reason = "command not supported (83)"
	}
	if m.Reason() != m.Code {
		reason = fmt.Sprintf("%v in 84 %02X", m.Reason(), byte(m.Code))
	}
	return describe(m.Control(), reason)
}

// IntermediateStatus is 04 FF (3.7): what the terminal is doing, for a display.
type IntermediateStatus struct {
	Status  IntermediateCode
	Timeout *byte // the new T4 in BCD minutes, nil: not told; see T4 and Minutes
	Fields        // BMP 06: 24{07} texts
	wire
}

// parseIntermediateStatus decides between the two layouts that occur: status,
// timeout, BMP 06 (the rule), and status, BMP 06 (the specification's own
// example in chapter 5). A 06 behind the status is a BMP 06 if the rest is
// exactly that, else a timeout of six minutes.
func parseIntermediateStatus(r Raw) (Message, error) {
	if err := atLeast(r, 1, "status"); err != nil {
		return r, err
	}
	m := IntermediateStatus{Status: IntermediateCode(r.Data[0]), wire: r.wire}
	at := 1
	if len(r.Data) > 1 && !isContainer(r.Data[1:]) {
		m.Timeout = &r.Data[1]
		at = 2
	}
	var err error
	m.Fields, err = parseFields(r.Data[at:], at)
	return m, err
}

// isContainer reports whether b is one BMP 06 that can be read, and nothing else.
func isContainer(b []byte) bool {
	if len(b) == 0 || b[0] != BMPTLV {
		return false
	}
	length, head, err := readBER(b[1:])
	return err == nil && 1+head+length == len(b) && checkTLV(b[1+head:], 1) == nil
}

// T4 is the new value of timer T4, which runs from this message on. It is false
// where none was told or the bytes make no time.
func (m IntermediateStatus) T4() (d time.Duration, ok bool) {
	if m.Timeout == nil {
		return 0, false
	}
	n, ok := parseBCD([]byte{*m.Timeout})
	return time.Duration(n) * time.Minute, ok && n > 0
}

// Minutes makes the Timeout of an IntermediateStatus from 1 to 99 minutes.
func Minutes(n int) *byte { return &bcd(int64(n), 1)[0] }

// Texts are the lines to show instead of the status, nil if there are none. They
// are not masked.
func (m IntermediateStatus) Texts(c Charset) []string {
	container, _ := m.TLV().Find(TagDisplayTexts)
	var texts []string
	for _, o := range container.Children().All(TagText) {
		texts = append(texts, o.Text(c))
	}
	return texts
}

// Text is what to show: the texts in one line, masked, or the words for the
// status.
func (m IntermediateStatus) Text(c Charset) string {
	if text := strings.Join(strings.Fields(strings.Join(m.Texts(c), " ")), " "); text != "" {
		return trace.Mask(text)
	}
	return m.Status.String()
}

// DisplayTexts makes the BMP 06 of an IntermediateStatus.
func DisplayTexts(c Charset, lines ...string) BMP {
	var texts TLV
	for _, line := range lines {
		texts = append(texts, Object{TagText, c.Encode(line)})
	}
	return Container(Group(TagDisplayTexts, texts...))
}

func (m IntermediateStatus) Control() Control { return ControlIntermediateStatus }

func (m IntermediateStatus) Marshal() []byte {
	b := []byte{byte(m.Status)}
	if m.Timeout != nil {
		b = append(b, *m.Timeout)
	}
	return m.join(m.Control(), b, m.Fields.Marshal())
}

func (m IntermediateStatus) String() string {
	timeout := ""
	if m.Timeout != nil {
		timeout = fmt.Sprintf("T4 %02X min", *m.Timeout)
	}
	return describe(m.Control(), fmt.Sprintf("%02X %v", byte(m.Status), m.Status), timeout, m.Fields.String())
}

// StatusInformation is 04 0F (3.6): the result of a transaction, the totals of an
// end of day, or blocks of files. All its fields are optional; [Fields] has the
// methods to read them.
type StatusInformation struct {
	Fields
	wire
}

func (m StatusInformation) Control() Control { return ControlStatusInformation }
func (m StatusInformation) Marshal() []byte  { return m.join(m.Control(), m.Fields.Marshal()) }
func (m StatusInformation) String() string   { return describe(m.Control(), m.Fields.String()) }

// Completion is 06 0F (3.4): the command is done, the ECR has the word again. What
// Data means depends on that command: after a [StatusEnquiry] see Status, else
// see Fields. Completion{} is 06 0F 00.
type Completion struct {
	Data []byte
	wire
}

// NewCompletion makes a completion of BMPs.
func NewCompletion(fields ...BMP) Completion { return Completion{Data: Fields(fields).Marshal()} }

// parseCompletion reads nothing: only who knows the command can.
func parseCompletion(r Raw) (Message, error) { return Completion{Data: r.Data, wire: r.wire}, nil }

// Fields reads the data as the answer to any command but StatusEnquiry: BMP 27
// result (absent: success), 19, 29 and 49 after a registration, 0C and AA after a
// software-update. With an error it returns what could be read.
func (m Completion) Fields() (Fields, error) {
	f, err := parseFields(m.Data, 0)
	if err != nil {
		return f, fmt.Errorf("%v: %w", m.Control(), err)
	}
	return f, nil
}

// Result is BMP 27 of a completion that is no answer to a StatusEnquiry, CodeOK
// if there is none. A completion may report a failure.
func (m Completion) Result() Code {
	f, _ := parseFields(m.Data, 0)
	c, _ := f.Result()
	return c
}

// Status is what a terminal says to a [StatusEnquiry] (2.56).
type Status struct {
	SoftwareVersion string // empty: not told
	Code            StatusCode
	Fields          // BMP 06 if the details were asked for
}

// Status reads the data as the answer to a StatusEnquiry: the software version as
// a LLLVAR, if the first byte is F0 to F9, then the status code, both without an
// id, then BMP 06. An error with Fields in the status is only about these.
func (m Completion) Status() (Status, error) {
	const versionLen = 3
	var s Status
	at := 0
	if len(m.Data) > 0 && m.Data[0]&0xF0 == 0xF0 && m.Data[0]&0x0F <= 9 {
		length, ok := 0, len(m.Data) >= versionLen
		if ok {
			length, ok = parseLL(m.Data, versionLen)
		}
		at = versionLen + length
		if !ok || at > len(m.Data) {
			return Status{}, fmt.Errorf("completion of status enquiry: software version at offset 0: length %d wanted, %d bytes left", length, max(len(m.Data)-versionLen, 0))
		}
		s.SoftwareVersion = strings.TrimSpace(ZVT7Bit.Decode(m.Data[versionLen:at]))
	}
	if at == len(m.Data) {
		return Status{}, fmt.Errorf("completion of status enquiry: status code at offset %d: 1 byte wanted, none left", at)
	}
	s.Code = StatusCode(m.Data[at])
	at++
	var err error
	if s.Fields, err = parseFields(m.Data[at:], at); err != nil {
		err = fmt.Errorf("completion of status enquiry: %w", err)
	}
	return s, err
}

// Completion makes the answer to a StatusEnquiry.
func (s Status) Completion() Completion {
	var b []byte
	if s.SoftwareVersion != "" {
		version := ZVT7Bit.Encode(s.SoftwareVersion)
		b = append(appendLL(b, len(version), 3), version...)
	}
	b = append(b, byte(s.Code))
	return Completion{Data: append(b, s.Fields.Marshal()...)}
}

// String describes the status for people.
func (s Status) String() string {
	said := []string{fmt.Sprintf("%02X %v", byte(s.Code), s.Code)}
	if s.SoftwareVersion != "" {
		said = append(said, "software version "+strconv.Quote(trace.Mask(s.SoftwareVersion)))
	}
	if len(s.Fields) > 0 {
		said = append(said, s.Fields.String())
	}
	return strings.Join(said, ", ")
}

func (m Completion) Control() Control { return ControlCompletion }
func (m Completion) Marshal() []byte  { return m.join(m.Control(), m.Data) }

// layout is what the data of a completion looks like, to one who does not know the
// command.
type layout int

const (
	layoutFields layout = iota
	layoutStatus
	layoutUnread // it begins like a software version, and does not go on so
)

// layout tries: data that is BMPs throughout is that, unless it begins like a
// software version. A status has nothing behind its code but BMP 06. What else can
// be read as one may be card data in a place where nobody hides it.
func (m Completion) layout() layout {
	_, err := parseFields(m.Data, 0)
	hasVersion := len(m.Data) > 0 && m.Data[0] >= 0xF0
	if err == nil && !hasVersion {
		return layoutFields
	}
	status, err := m.Status()
	more := len(status.Fields)
	if err == nil && (more == 0 || more == 1 && status.Fields[0].ID == BMPTLV) {
		return layoutStatus
	}
	if hasVersion {
		return layoutUnread
	}
	return layoutFields
}

func (m Completion) String() string {
	fields, _ := parseFields(m.Data, 0)
	switch m.layout() {
	case layoutStatus:
		status, _ := m.Status()
		return describe(m.Control(), status.String())
	case layoutUnread:
		return describe(m.Control(), fmt.Sprintf("%d bytes not read", len(m.Data)))
	}
	return describe(m.Control(), fields.String())
}

// Abort is 06 1E (3.5): the command failed, the ECR has the word again. The abort
// by the ECR is [AbortCommand].
type Abort struct {
	Code     Code
	NoCode   bool      // 06 1E 00, which should not occur
	Currency *Currency // the terminal's, only with CodeWrongCurrency
	Fields             // BMP 87 receipt of a pre-authorisation, BMP 06: 1F16, 1F17
	wire
}

func parseAbort(r Raw) (Message, error) {
	if err := atLeast(r, 1, "result code"); err != nil {
		return Abort{NoCode: true, wire: r.wire}, err
	}
	m := Abort{Code: Code(r.Data[0]), wire: r.wire}
	at := 1
	if m.Code == CodeWrongCurrency && beginsWithCurrency(r.Data[1:]) {
		currency := Currency(binary.BigEndian.Uint16(r.Data[1:]))
		m.Currency = &currency
		at = 3
	}
	var err error
	m.Fields, err = parseFields(r.Data[at:], at)
	return m, err
}

// beginsWithCurrency reports whether b begins with a currency, which has no id
// here: three digits of ISO 4217. 06 also begins such a number, so a BMP 06 that
// is the whole rest is none.
func beginsWithCurrency(b []byte) bool {
	if len(b) < 2 || b[0]&0xF0 != 0 {
		return false
	}
	return len(b) == 2 || !isContainer(b)
}

func (m Abort) Control() Control { return ControlAbort }

func (m Abort) Marshal() []byte {
	if m.NoCode {
		return m.join(m.Control())
	}
	b := []byte{byte(m.Code)}
	if m.Currency != nil {
		b = append(b, m.Currency.bytes()...)
	}
	return m.join(m.Control(), b, m.Fields.Marshal())
}

func (m Abort) String() string {
	if m.NoCode {
		return describe(m.Control(), "no code")
	}
	currency := ""
	if m.Currency != nil {
		currency = "currency " + m.Currency.String()
	}
	return describe(m.Control(), m.Code.Error(), currency, m.Fields.String())
}

// SetClock is 04 01: BMP AA and BMP 0C set the ECR's clock.
type SetClock struct {
	Fields
	wire
}

func (m SetClock) Control() Control { return ControlSetClock }
func (m SetClock) Marshal() []byte  { return m.join(m.Control(), m.Fields.Marshal()) }
func (m SetClock) String() string   { return describe(m.Control(), m.Fields.String()) }
