package apdu

import (
	"encoding/binary"
	"fmt"
)

// This file has what the ECR sends. Commands that are no more than a password
// and BMPs, or BMPs alone, look alike; the comments say which BMPs they take.

// Registration is 06 00 (2.1): it tells the terminal who prints what and whether
// the ECR wants to see what goes on. It is answered with a [Completion].
//
//	06 00 06 00 00 00 8C 09 78      password, config byte, currency
type Registration struct {
	Password Password
	Config   Config
	Currency *Currency // nil: left out, and with it all Fields
	Fields             // BMP 03 service byte (see Service...), BMP 06
	wire
}

// Config is the config byte of a registration (2.1). It replaces the one before
// it, also the till's.
type Config byte

// The bits of the config byte; 01 and 40 are reserved.
const (
	ConfigPaymentReceipts         Config = 0x02 // the ECR prints payment receipts, 06 20 among them
	ConfigAdministrationReceipts  Config = 0x04 // the ECR prints administration receipts, 06 50 among them
	ConfigIntermediateStatus      Config = 0x08 // the ECR wants 04 FF
	ConfigPaymentByECROnly        Config = 0x10 // nobody can pay at the terminal itself
	ConfigAdministrationByECROnly Config = 0x20 // nobody can close it there either
	ConfigPrintLines              Config = 0x80 // receipts come as lines (06 D1, 06 D3), not only as 04 0F

	// ConfigLoggedOff is the state after a log-off, or without any registration.
	ConfigLoggedOff = ConfigPrintLines | ConfigAdministrationReceipts | ConfigPaymentReceipts
)

const registrationMin = passwordLen + 1

func parseRegistration(r Raw) (Message, error) {
	if err := atLeast(r, registrationMin, "password and config byte"); err != nil {
		return r, err
	}
	m := Registration{Password: Password(r.Data), Config: Config(r.Data[passwordLen]), wire: r.wire}
	rest := r.Data[registrationMin:]
	if len(rest) == 1 {
		m.Fields = Fields{{ID: rest[0], Unread: true, Data: rest[1:]}}
		return m, fmt.Errorf("currency at offset %d: 2 bytes wanted, 1 left", registrationMin)
	}
	if len(rest) == 0 {
		return m, nil
	}
	currency := Currency(binary.BigEndian.Uint16(rest))
	m.Currency = &currency
	var err error
	m.Fields, err = parseFields(rest[2:], registrationMin+2)
	return m, err
}

func (m Registration) Control() Control { return ControlRegistration }

func (m Registration) Marshal() []byte {
	b := append(m.Password[:], byte(m.Config))
	if m.Currency != nil {
		b = append(b, m.Currency.bytes()...)
	}
	return m.join(m.Control(), b, m.Fields.Marshal())
}

func (m Registration) String() string {
	currency := "no currency"
	if m.Currency != nil {
		currency = "currency " + m.Currency.String()
	}
	return describe(m.Control(), m.Password.describe(), fmt.Sprintf("config %02X", byte(m.Config)), currency, m.Fields.String())
}

// Commands returns what the ECR says it can process (TLV 26), nil without a list.
func (m Registration) Commands() []Control { return m.TLV().Commands() }

// Commands returns the list in TLV 26, nil without one.
func (t TLV) Commands() []Control {
	list, _ := t.Find(TagCommands)
	var commands []Control
	for _, o := range list.Children().All(TagCommand) {
		if len(o.Value) == 2 {
			commands = append(commands, Control(binary.BigEndian.Uint16(o.Value)))
		}
	}
	return commands
}

// Commands makes the list of commands one can process (TLV 26).
func Commands(list ...Control) Object {
	var objects TLV
	for _, c := range list {
		objects = append(objects, Object{TagCommand, binary.BigEndian.AppendUint16(nil, uint16(c))})
	}
	return Group(TagCommands, objects...)
}

// LogOff is 06 02 (2.2). It is answered 80 00 00, without a completion.
type LogOff struct {
	Fields
	wire
}

func (m LogOff) Control() Control { return ControlLogOff }
func (m LogOff) Marshal() []byte  { return m.join(m.Control(), m.Fields.Marshal()) }
func (m LogOff) String() string   { return describe(m.Control(), m.Fields.String()) }

// StatusEnquiry is 05 01 (2.56). It is not free of side effects: the terminal
// may start pending jobs on it, an end of day among them. Its completion has a
// layout of its own, see [Completion.Status].
type StatusEnquiry struct {
	Password   Password
	NoPassword bool // the short form, 05 01 00; Fields need the password
	Fields          // BMP 03 (see Service...), BMP 06
	wire
}

// Bits of the service byte (BMP 03) of 05 01; 01 holds for 06 00 and 08 01 too.
const (
	ServiceNoMenuKey  = 0x01 // the function key does not open the service menu
	ServiceNoVersion  = 0x02 // no software version in the completion
	ServiceTLVDetails = 0x04 // TLV in the completion
)

func parseStatusEnquiry(r Raw) (Message, error) {
	if len(r.Data) == 0 {
		return StatusEnquiry{NoPassword: true, wire: r.wire}, nil
	}
	return guarded(func(c passwordAndFields) Message {
		return StatusEnquiry{Password: c.Password, Fields: c.Fields, wire: c.wire}
	})(r)
}

func (m StatusEnquiry) Control() Control { return ControlStatusEnquiry }
func (m StatusEnquiry) Marshal() []byte {
	return m.join(m.Control(), m.Password.unless(m.NoPassword), m.Fields.Marshal())
}
func (m StatusEnquiry) String() string {
	return describe(m.Control(), m.Password.describeUnless(m.NoPassword), m.Fields.String())
}

// EndOfDay is 06 50 (2.16): the terminal closes its batch and sends the totals.
type EndOfDay struct {
	Password   Password
	NoPassword bool // 06 50 00, enough for some [ING]
	Fields          // BMP 06: 1F26 mode, DF01 no download [CC]
	wire
}

func parseEndOfDay(r Raw) (Message, error) {
	if len(r.Data) == 0 {
		return EndOfDay{NoPassword: true, wire: r.wire}, nil
	}
	return guarded(func(c passwordAndFields) Message {
		return EndOfDay{Password: c.Password, Fields: c.Fields, wire: c.wire}
	})(r)
}

func (m EndOfDay) Control() Control { return ControlEndOfDay }
func (m EndOfDay) Marshal() []byte {
	return m.join(m.Control(), m.Password.unless(m.NoPassword), m.Fields.Marshal())
}
func (m EndOfDay) String() string {
	return describe(m.Control(), m.Password.describeUnless(m.NoPassword), m.Fields.String())
}

// NoDownload is the object that asks a terminal of card complete to close
// without the download that would follow (DF01 in 06 50, [CC]).
func NoDownload() Object { return Object{TagNoDownload, []byte{1}} }

// SendTurnoverTotals is 06 10: the totals of the open batch, which stays open.
type SendTurnoverTotals struct {
	Password Password
	Fields
	wire
}

func (m SendTurnoverTotals) Control() Control { return ControlSendTurnoverTotals }
func (m SendTurnoverTotals) Marshal() []byte {
	return m.join(m.Control(), m.Password[:], m.Fields.Marshal())
}
func (m SendTurnoverTotals) String() string {
	return describe(m.Control(), m.Password.describe(), m.Fields.String())
}

// RepeatReceipt is 06 20: the terminal repeats a receipt, and its last status
// information if BMP 03 asks for it. That one is of the last transaction,
// whatever the receipt.
type RepeatReceipt struct {
	Password Password
	Fields   // BMP 03 (see Repeat...), BMP 06: 1F01 (see Receipt...)
	wire
}

// Bits of the service byte (BMP 03) of 06 20.
const (
	RepeatStatusInformation = 0x01 // send the last 04 0F again
	RepeatNoPrint           = 0x02 // do not print
)

// Values of 1F01, the receipt to repeat.
const (
	ReceiptLast            = 0x01
	ReceiptMerchantPayment = 0x02
	ReceiptCustomerPayment = 0x03
	ReceiptEndOfDay        = 0x04
	ReceiptJournal         = 0x05
	ReceiptReconciliation  = 0x06
)

// ReceiptID makes the object 1F01.
func ReceiptID(id byte) Object { return Object{TagReceiptID, []byte{id}} }

func (m RepeatReceipt) Control() Control { return ControlRepeatReceipt }
func (m RepeatReceipt) Marshal() []byte {
	return m.join(m.Control(), m.Password[:], m.Fields.Marshal())
}
func (m RepeatReceipt) String() string {
	return describe(m.Control(), m.Password.describe(), m.Fields.String())
}

// Diagnosis is 06 70, without a password; BMP 06 holds 1B, its type.
type Diagnosis struct {
	Fields
	wire
}

func (m Diagnosis) Control() Control { return ControlDiagnosis }
func (m Diagnosis) Marshal() []byte  { return m.join(m.Control(), m.Fields.Marshal()) }
func (m Diagnosis) String() string   { return describe(m.Control(), m.Fields.String()) }

// Initialisation is 06 93.
type Initialisation struct {
	Password Password
	Fields
	wire
}

func (m Initialisation) Control() Control { return ControlInitialisation }
func (m Initialisation) Marshal() []byte {
	return m.join(m.Control(), m.Password[:], m.Fields.Marshal())
}
func (m Initialisation) String() string {
	return describe(m.Control(), m.Password.describe(), m.Fields.String())
}

// SetDateTime is 06 91: BMP AA and BMP 0C set the terminal's clock.
type SetDateTime struct {
	Password Password
	Fields
	wire
}

func (m SetDateTime) Control() Control { return ControlSetDateTime }
func (m SetDateTime) Marshal() []byte {
	return m.join(m.Control(), m.Password[:], m.Fields.Marshal())
}
func (m SetDateTime) String() string {
	return describe(m.Control(), m.Password.describe(), m.Fields.String())
}

// SystemConfiguration is 06 1A: the terminal prints its configuration.
type SystemConfiguration struct {
	Fields
	wire
}

func (m SystemConfiguration) Control() Control { return ControlSystemConfiguration }
func (m SystemConfiguration) Marshal() []byte {
	return m.join(m.Control(), m.Fields.Marshal())
}
func (m SystemConfiguration) String() string { return describe(m.Control(), m.Fields.String()) }

// SelfTest is 06 79 (2.48): the terminal tests itself and prints.
type SelfTest struct {
	Fields
	wire
}

func (m SelfTest) Control() Control { return ControlSelfTest }
func (m SelfTest) Marshal() []byte  { return m.join(m.Control(), m.Fields.Marshal()) }
func (m SelfTest) String() string   { return describe(m.Control(), m.Fields.String()) }

// SystemInfo is 0F 11, private to Ingenico [ING]: a receipt on the system.
type SystemInfo struct {
	Password Password
	Fields
	wire
}

func (m SystemInfo) Control() Control { return ControlSystemInfo }
func (m SystemInfo) Marshal() []byte {
	return m.join(m.Control(), m.Password[:], m.Fields.Marshal())
}
func (m SystemInfo) String() string {
	return describe(m.Control(), m.Password.describe(), m.Fields.String())
}

// EMVStatus is 0F 12, private to Ingenico [ING]: a receipt on the state of EMV.
type EMVStatus struct {
	Password Password
	Fields
	wire
}

func (m EMVStatus) Control() Control { return ControlEMVStatus }
func (m EMVStatus) Marshal() []byte {
	return m.join(m.Control(), m.Password[:], m.Fields.Marshal())
}
func (m EMVStatus) String() string {
	return describe(m.Control(), m.Password.describe(), m.Fields.String())
}

// AbortCommand is 06 B0, the abort by the ECR; it may carry BMP D2 and BMP FA. The
// abort by the terminal is [Abort].
type AbortCommand struct {
	Fields
	wire
}

func (m AbortCommand) Control() Control { return ControlAbortCommand }
func (m AbortCommand) Marshal() []byte  { return m.join(m.Control(), m.Fields.Marshal()) }
func (m AbortCommand) String() string   { return describe(m.Control(), m.Fields.String()) }

// ServiceMode is 08 01 (2.55): the terminal opens its service menu. BMP 03 with
// ServiceNoMenuKey keeps its key from opening it again.
type ServiceMode struct {
	Password Password
	Fields
	wire
}

func (m ServiceMode) Control() Control { return ControlServiceMode }
func (m ServiceMode) Marshal() []byte {
	return m.join(m.Control(), m.Password[:], m.Fields.Marshal())
}
func (m ServiceMode) String() string {
	return describe(m.Control(), m.Password.describe(), m.Fields.String())
}

// SoftwareUpdate is 08 10 (2.37): the terminal looks for an update and installs
// it. There is no way to only look.
type SoftwareUpdate struct {
	Fields // BMP 06: 0F assignment number
	wire
}

func (m SoftwareUpdate) Control() Control { return ControlSoftwareUpdate }
func (m SoftwareUpdate) Marshal() []byte  { return m.join(m.Control(), m.Fields.Marshal()) }
func (m SoftwareUpdate) String() string   { return describe(m.Control(), m.Fields.String()) }

// ReadFile is 08 11: BMP 06 lists the files wanted, see [NewReadFile] and
// Fields.Files.
type ReadFile struct {
	Fields
	wire
}

// NewReadFile asks for files by their ID, each from its Offset if it has one.
func NewReadFile(files ...File) ReadFile { return ReadFile{Fields: Fields{Files(files...)}} }

func (m ReadFile) Control() Control { return ControlReadFile }
func (m ReadFile) Marshal() []byte  { return m.join(m.Control(), m.Fields.Marshal()) }
func (m ReadFile) String() string   { return describe(m.Control(), m.Fields.String()) }

// WriteFile is 08 14: BMP 06 lists the files the ECR has for the terminal. It is
// here to be seen, not to be sent.
type WriteFile struct {
	Password Password
	Fields
	wire
}

func (m WriteFile) Control() Control { return ControlWriteFile }
func (m WriteFile) Marshal() []byte {
	return m.join(m.Control(), m.Password[:], m.Fields.Marshal())
}
func (m WriteFile) String() string {
	return describe(m.Control(), m.Password.describe(), m.Fields.String())
}

// ChangeConfiguration is 08 13, what is in its BMP 06 is the maker's. It is here
// to be seen, not to be sent.
type ChangeConfiguration struct {
	Fields
	wire
}

func (m ChangeConfiguration) Control() Control { return ControlChangeConfiguration }
func (m ChangeConfiguration) Marshal() []byte {
	return m.join(m.Control(), m.Fields.Marshal())
}
func (m ChangeConfiguration) String() string { return describe(m.Control(), m.Fields.String()) }

// File is a file container, TLV 2D of 08 11, 08 14 and their answers.
type File struct {
	ID     uint64  // 1D, see File...; 0: not told
	Name   string  // 1F 80 00; empty: not told
	Offset *uint64 // 1E; nil: not told
	Size   *uint64 // 1F00, of the whole file; nil: not told
	Block  []byte  // 1C; nil: none
}

// Files a terminal may have (1D). The merchant journal and the reconciliation
// data can hold card data.
const (
	FileMerchantJournal    = 0x01
	FileApplicationLog     = 0x02
	FileECRProtocolLog     = 0x03
	FileCommunicationLog   = 0x04
	FilePINPadLog          = 0x05
	FileReconciliationData = 0x06
)

// Files returns the file containers of the list.
func (t TLV) Files() []File {
	var files []File
	for _, o := range t.All(TagFile) {
		files = append(files, readFile(o.Children()))
	}
	return files
}

func readFile(t TLV) File {
	var f File
	for _, o := range t {
		n, isNumber := o.Uint()
		switch {
		case o.Tag == TagFileBlock:
			f.Block = o.Value
		case o.Tag == TagFileName || o.Tag == TagFileName>>8:
			f.Name = o.Text(Auto)
		case !isNumber:
		case o.Tag == TagFileID:
			f.ID = n
		case o.Tag == TagFileOffset:
			f.Offset = &n
		case o.Tag == TagFileSize:
			f.Size = &n
		}
	}
	return f
}

// Files makes BMP 06 with a container for each file, in which the block comes
// first.
func Files(files ...File) BMP {
	var list TLV
	for _, f := range files {
		list = append(list, f.object())
	}
	return Container(list...)
}

func (f File) object() Object {
	var t TLV
	if f.Block != nil {
		t = append(t, Object{TagFileBlock, f.Block})
	}
	if f.ID != 0 {
		t = append(t, Object{TagFileID, minimalUint(f.ID)})
	}
	if f.Name != "" {
		t = append(t, Object{TagFileName, []byte(f.Name)})
	}
	if f.Offset != nil {
		t = append(t, Object{TagFileOffset, minimalUint(*f.Offset)})
	}
	if f.Size != nil {
		t = append(t, Object{TagFileSize, minimalUint(*f.Size)})
	}
	return Group(TagFile, t...)
}

// unless returns the password's bytes, or none.
func (p Password) unless(omitted bool) []byte {
	if omitted {
		return nil
	}
	return p[:]
}

func (p Password) describeUnless(omitted bool) string {
	if omitted {
		return ""
	}
	return p.describe()
}
