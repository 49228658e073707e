package apdu

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// Message is one APDU. Values, not pointers, implement it: a type switch has
// cases like apdu.Completion.
type Message interface {
	// Control is the message's class and instruction.
	Control() Control
	// Marshal gives the bytes: class, instruction, length, data. It panics if a
	// value does not fit its format, which no parsed message can contain.
	Marshal() []byte
	// String describes the message for people. It shows no card data and no
	// secret.
	String() string
}

// Control is the control field of an APDU: the class in the high byte, the
// instruction in the low one.
type Control uint16

// The control fields this package has words for.
const (
	ControlSetClock            Control = 0x0401 // PT to ECR
	ControlStatusInformation   Control = 0x040F // PT to ECR
	ControlIntermediateStatus  Control = 0x04FF // PT to ECR
	ControlStatusEnquiry       Control = 0x0501
	ControlRegistration        Control = 0x0600
	ControlLogOff              Control = 0x0602
	ControlCompletion          Control = 0x060F // PT to ECR
	ControlSendTurnoverTotals  Control = 0x0610
	ControlSystemConfiguration Control = 0x061A
	ControlAbort               Control = 0x061E // PT to ECR
	ControlRepeatReceipt       Control = 0x0620
	ControlEndOfDay            Control = 0x0650
	ControlDiagnosis           Control = 0x0670
	ControlSelfTest            Control = 0x0679
	ControlSetDateTime         Control = 0x0691
	ControlInitialisation      Control = 0x0693
	ControlAbortCommand        Control = 0x06B0
	ControlPrintLine           Control = 0x06D1 // PT to ECR
	ControlPrintTextBlock      Control = 0x06D3 // PT to ECR
	ControlServiceMode         Control = 0x0801
	ControlSoftwareUpdate      Control = 0x0810
	ControlReadFile            Control = 0x0811
	ControlDeleteFile          Control = 0x0812
	ControlChangeConfiguration Control = 0x0813
	ControlWriteFile           Control = 0x0814
	ControlSystemInfo          Control = 0x0F11 // [ING], private
	ControlEMVStatus           Control = 0x0F12 // [ING], private
	ControlAck                 Control = 0x8000 // both directions
	ControlAck84               Control = 0x8400 // the same, rarely seen
)

// classNack is the class of a refusal; the instruction is the reason.
const classNack = 0x84

var controlNames = map[Control]string{
	ControlSetClock:            "set clock",
	ControlStatusInformation:   "status information",
	ControlIntermediateStatus:  "intermediate status",
	ControlStatusEnquiry:       "status enquiry",
	ControlRegistration:        "registration",
	ControlLogOff:              "log-off",
	ControlCompletion:          "completion",
	ControlSendTurnoverTotals:  "send turnover totals",
	ControlSystemConfiguration: "print system configuration",
	ControlAbort:               "abort",
	ControlRepeatReceipt:       "repeat receipt",
	ControlEndOfDay:            "end-of-day",
	ControlDiagnosis:           "diagnosis",
	ControlSelfTest:            "selftest",
	ControlSetDateTime:         "set date/time",
	ControlInitialisation:      "initialisation",
	ControlAbortCommand:        "abort by the ECR",
	ControlPrintLine:           "print line",
	ControlPrintTextBlock:      "print text-block",
	ControlServiceMode:         "activate service-mode",
	ControlSoftwareUpdate:      "software-update",
	ControlReadFile:            "read file",
	ControlDeleteFile:          "delete file",
	ControlChangeConfiguration: "change configuration",
	ControlWriteFile:           "write file",
	ControlSystemInfo:          "system info",
	ControlEMVStatus:           "EMV status",
	ControlAck:                 "positive acknowledgement",
	ControlAck84:               "positive acknowledgement",
}

// Hex is the control field as the specification writes it: "06 50".
func (c Control) Hex() string { return fmt.Sprintf("%02X %02X", byte(c>>8), byte(c)) }

// String is the name of the command or answer, or its bytes if it has none here.
func (c Control) String() string {
	if name, ok := controlNames[c]; ok {
		return name
	}
	if byte(c>>8) == classNack {
		return "negative acknowledgement"
	}
	return c.Hex()
}

// wire is what a message has to remember of its bytes to write them again.
type wire struct {
	extended bool // the length was FF lo hi although one byte would have done
}

// Lengths of the data block (chapter 1).
const (
	maxShort    = 0xFE
	maxExtended = 0xFFFF
	extendedTag = 0xFF
)

// join puts an APDU together.
func (w wire) join(c Control, parts ...[]byte) []byte {
	data := bytes.Join(parts, nil)
	if len(data) > maxExtended {
		panic(fmt.Sprintf("apdu: %v with %d data bytes, at most %d fit", c, len(data), maxExtended))
	}
	b := binary.BigEndian.AppendUint16(make([]byte, 0, len(data)+5), uint16(c))
	if w.extended || len(data) > maxShort {
		b = append(b, extendedTag)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(data)))
	} else {
		b = append(b, byte(len(data)))
	}
	return append(b, data...)
}

// Raw is an APDU by its parts: what [Split] returns, and what [Parse] returns
// for a command it has no struct for.
type Raw struct {
	Class, Instr byte
	Data         []byte
	wire
}

func (r Raw) Control() Control { return Control(r.Class)<<8 | Control(r.Instr) }
func (r Raw) Marshal() []byte  { return r.join(r.Control(), r.Data) }

func (r Raw) String() string {
	name := r.Control().String()
	if name != r.Control().Hex() {
		name += " " + r.Control().Hex()
	}
	return fmt.Sprintf("%s, %d data bytes", name, len(r.Data))
}

// Split takes an APDU apart. The length field must fit the bytes exactly.
func Split(b []byte) (Raw, error) {
	if len(b) < 3 {
		return Raw{}, fmt.Errorf("APDU: class, instruction and length wanted, %d bytes left", len(b))
	}
	r := Raw{Class: b[0], Instr: b[1]}
	length, data := int(b[2]), b[3:]
	if b[2] == extendedTag {
		if len(data) < 2 {
			return Raw{}, fmt.Errorf("APDU %s: extended length at offset 3: 2 bytes wanted, %d left", r.Control().Hex(), len(data))
		}
		length, data = int(binary.LittleEndian.Uint16(data)), data[2:]
		r.extended = length <= maxShort
	}
	if len(data) != length {
		return Raw{}, fmt.Errorf("APDU %s: length field says %d data bytes, %d follow", r.Control().Hex(), length, len(data))
	}
	r.Data = bytes.Clone(data)
	return r, nil
}

// Parse reads one APDU of either direction; no control field means something
// else in the other one.
//
// The message is nil only if b is not one whole APDU. With a message, an error
// says that something in it could not be read and stays raw: an unknown BMP and
// what follows it, a broken TLV container. A message without its mandatory
// first bytes is returned as [Raw]. The message shares no memory with b.
func Parse(b []byte) (Message, error) {
	r, err := Split(b)
	if err != nil {
		return nil, err
	}
	m, err := parse(r)
	if err != nil {
		return m, fmt.Errorf("%v: %w", r.Control(), err)
	}
	return m, nil
}

func parse(r Raw) (Message, error) {
	if read, ok := parsers[r.Control()]; ok {
		return read(r)
	}
	if r.Class == classNack {
		return Nack{Code: Code(r.Instr), Data: r.Data, wire: r.wire}, nil
	}
	return r, nil
}

// parsers has a function for every control field with a struct. It returns a
// message in any case.
var parsers = map[Control]func(Raw) (Message, error){
	ControlAck:                 plain(func(c fieldsOnly) Message { return Ack{Fields: c.Fields, wire: c.wire} }),
	ControlAck84:               plain(func(c fieldsOnly) Message { return Ack{As84: true, Fields: c.Fields, wire: c.wire} }),
	ControlSetClock:            plain(func(c fieldsOnly) Message { return SetClock(c) }),
	ControlStatusInformation:   plain(func(c fieldsOnly) Message { return StatusInformation(c) }),
	ControlPrintTextBlock:      plain(func(c fieldsOnly) Message { return PrintTextBlock(c) }),
	ControlLogOff:              plain(func(c fieldsOnly) Message { return LogOff(c) }),
	ControlSystemConfiguration: plain(func(c fieldsOnly) Message { return SystemConfiguration(c) }),
	ControlDiagnosis:           plain(func(c fieldsOnly) Message { return Diagnosis(c) }),
	ControlSelfTest:            plain(func(c fieldsOnly) Message { return SelfTest(c) }),
	ControlAbortCommand:        plain(func(c fieldsOnly) Message { return AbortCommand(c) }),
	ControlSoftwareUpdate:      plain(func(c fieldsOnly) Message { return SoftwareUpdate(c) }),
	ControlReadFile:            plain(func(c fieldsOnly) Message { return ReadFile(c) }),
	ControlChangeConfiguration: plain(func(c fieldsOnly) Message { return ChangeConfiguration(c) }),

	ControlSendTurnoverTotals: guarded(func(c passwordAndFields) Message { return SendTurnoverTotals(c) }),
	ControlRepeatReceipt:      guarded(func(c passwordAndFields) Message { return RepeatReceipt(c) }),
	ControlInitialisation:     guarded(func(c passwordAndFields) Message { return Initialisation(c) }),
	ControlSetDateTime:        guarded(func(c passwordAndFields) Message { return SetDateTime(c) }),
	ControlServiceMode:        guarded(func(c passwordAndFields) Message { return ServiceMode(c) }),
	ControlWriteFile:          guarded(func(c passwordAndFields) Message { return WriteFile(c) }),
	ControlSystemInfo:         guarded(func(c passwordAndFields) Message { return SystemInfo(c) }),
	ControlEMVStatus:          guarded(func(c passwordAndFields) Message { return EMVStatus(c) }),

	ControlRegistration:       parseRegistration,
	ControlStatusEnquiry:      parseStatusEnquiry,
	ControlEndOfDay:           parseEndOfDay,
	ControlIntermediateStatus: parseIntermediateStatus,
	ControlCompletion:         parseCompletion,
	ControlAbort:              parseAbort,
	ControlPrintLine:          parsePrintLine,
}

// The two common layouts. The messages that have them are converted from these,
// so they have the same fields in the same order.
type (
	fieldsOnly struct {
		Fields
		wire
	}
	passwordAndFields struct {
		Password Password
		Fields
		wire
	}
)

func plain(message func(fieldsOnly) Message) func(Raw) (Message, error) {
	return func(r Raw) (Message, error) {
		fields, err := parseFields(r.Data, 0)
		return message(fieldsOnly{fields, r.wire}), err
	}
}

func guarded(message func(passwordAndFields) Message) func(Raw) (Message, error) {
	return func(r Raw) (Message, error) {
		if err := atLeast(r, passwordLen, "password"); err != nil {
			return r, err
		}
		fields, err := parseFields(r.Data[passwordLen:], passwordLen)
		return message(passwordAndFields{Password(r.Data[:passwordLen]), fields, r.wire}), err
	}
}

// atLeast checks that the positional bytes what of a message are there.
func atLeast(r Raw, n int, what string) error {
	if len(r.Data) < n {
		return fmt.Errorf("%s at offset 0: %d bytes wanted, %d left", what, n, len(r.Data))
	}
	return nil
}

// describe is the String of most messages: the name, and what is in it.
func describe(c Control, parts ...string) string {
	var said []string
	for _, p := range parts {
		if p != "" {
			said = append(said, p)
		}
	}
	if len(said) == 0 {
		return c.String()
	}
	return c.String() + ": " + strings.Join(said, ", ")
}

// Size is the size of the APDU that b begins with, as its length field tells it. It
// is 0 while b is too short to know.
func Size(b []byte) int {
	switch {
	case len(b) < 3:
		return 0
	case b[2] != extendedTag:
		return 3 + int(b[2])
	case len(b) < 5:
		return 0
	}
	return 5 + int(binary.LittleEndian.Uint16(b[3:]))
}
