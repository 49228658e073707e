package apdu

import "fmt"

// Code is a result code (chapter 10): BMP 27, the first byte of 06 1E, the xx of
// 84 xx. It is an error that errors.Is finds:
//
//	errors.Is(err, apdu.CodeEndOfDayNotPossible)
//
// CodeOK is no failure; it is for the caller not to use it as an error.
type Code byte

// The codes that code asks for. Others are in the table below.
const (
	CodeOK                  Code = 0x00
	CodeWrongPassword       Code = 0x37 // [CC]; as a host code: PIN wrong
	CodeTurnoverFull        Code = 0x6A
	CodeNotRegistered       Code = 0x6B
	CodeAborted             Code = 0x6C // by timeout or by a key
	CodeWrongCurrency       Code = 0x6F
	CodeEndOfDayNotPossible Code = 0x77
	CodeCommunication       Code = 0x7D // no communication module
	CodeNotPossible         Code = 0x83 // in 84 83: command not supported
	CodeProtocol            Code = 0x9A
	CodeDialUp              Code = 0x9B
	CodePleaseWait          Code = 0x9C // busy
	CodeReceiverNotReady    Code = 0xA0
	CodeNoResponse          Code = 0xA1
	CodeNoConnection        Code = 0xA3
	CodePreAuthorisation    Code = 0xB8 // open pre-authorisations
	CodeDiagnosisRequired   Code = 0xC2
	CodePrinterNotReady     Code = 0xCC
	CodeCardInserted        Code = 0xDC
	CodeRemoteMaintenance   Code = 0xE0 // in a completion: an update follows
	CodeEndOfDayOpen        Code = 0xF0
	CodeDeviceMissing       Code = 0xFC // in the completion of an end of day: a reboot follows
	CodeSystemError         Code = 0xFF
)

// lastHostCode is the highest code that the host of the network operator gave,
// 99 decimal.
const lastHostCode = 0x63

var codeTexts = map[Code]string{
	0x00: "no error",
	0x37: "wrong password, or code 55 of the authorisation host",
	0x64: "card not readable",
	0x65: "card data not present",
	0x66: "processing error",
	0x67: "function not permitted for ec and Maestro cards",
	0x68: "function not permitted for credit and tank cards",
	0x6A: "turnover file full",
	0x6B: "function deactivated, terminal not registered",
	0x6C: "abort by timeout or abort key",
	0x6E: "card in blocked list",
	0x6F: "wrong currency",
	0x71: "credit not sufficient",
	0x72: "chip error",
	0x73: "card data incorrect",
	0x74: "DUKPT engine exhausted",
	0x75: "text not authentic",
	0x76: "PAN not in white list",
	0x77: "end-of-day batch not possible",
	0x78: "card expired",
	0x79: "card not yet valid",
	0x7A: "card unknown",
	0x7B: "fallback to magnetic stripe not possible for girocard",
	0x7C: "fallback to magnetic stripe not possible",
	0x7D: "communication error, no communication module",
	0x7E: "fallback to magnetic stripe not possible, debit advice possible for girocard",
	0x83: "function not possible",
	0x85: "key missing",
	0x89: "PIN-pad defective",
	0x9A: "ZVT protocol error",
	0x9B: "error from dial-up or communication fault",
	0x9C: "please wait",
	0xA0: "receiver not ready",
	0xA1: "remote station does not respond",
	0xA3: "no connection",
	0xA4: "submission of Geldkarte not possible",
	0xA5: "function not allowed by PCI-DSS or P2PE rules",
	0xB1: "memory full",
	0xB2: "merchant journal full",
	0xB4: "already reversed",
	0xB5: "reversal not possible",
	0xB7: "pre-authorisation incorrect or amount wrong",
	0xB8: "error pre-authorisation",
	0xBF: "supply voltage too low",
	0xC0: "card locking mechanism defective",
	0xC1: "merchant card locked",
	0xC2: "diagnosis required",
	0xC3: "maximum amount exceeded",
	0xC4: "card profile invalid, new profiles must be loaded",
	0xC5: "payment method not supported",
	0xC6: "currency not applicable",
	0xC8: "amount too small",
	0xC9: "maximum transaction amount too small",
	0xCB: "function only in EURO",
	0xCC: "printer not ready",
	0xCD: "cashback not possible",
	0xD2: "function not permitted for service and bank customer cards",
	0xDC: "card inserted",
	0xDD: "error at card eject",
	0xDE: "error at card insertion",
	0xE0: "remote maintenance activated",
	0xE2: "card reader does not answer or is defective",
	0xE3: "shutter closed",
	0xE4: "terminal activation required",
	0xE7: "goods group not found",
	0xE8: "no goods group table loaded",
	0xE9: "restriction code not permitted",
	0xEA: "card code not permitted",
	0xEB: "function not executable, PIN algorithm unknown",
	0xEC: "PIN processing not possible",
	0xED: "PIN-pad defective",
	0xF0: "open end-of-day batch present",
	0xF1: "ec-cash or Maestro offline error",
	0xF5: "OPT error",
	0xF6: "OPT data not available",
	0xFA: "error transmitting offline transactions",
	0xFB: "turnover data set defective",
	0xFC: "necessary device not present or defective",
	0xFD: "baud rate not supported",
	0xFE: "register unknown",
	0xFF: "system error",
}

// Text is the meaning of the code, without the code.
func (c Code) Text() string {
	if text, ok := codeTexts[c]; ok {
		return text
	}
	if c <= lastHostCode {
		return fmt.Sprintf("code %d of the authorisation host", byte(c))
	}
	return "unknown"
}

// Hex is the code as the specification writes it: "77".
func (c Code) Hex() string { return fmt.Sprintf("%02X", byte(c)) }

// Error is the meaning and the code: "end-of-day batch not possible (77)".
func (c Code) Error() string {
	if text := c.Text(); text != "unknown" {
		return fmt.Sprintf("%s (%s)", text, c.Hex())
	}
	return fmt.Sprintf("unknown (0x%s)", c.Hex())
}

// StatusCode is the state of a terminal in the completion of a [StatusEnquiry]
// (2.56, 11.1). Its values are near those of Code, but not the same.
type StatusCode byte

// The states that code asks for.
const (
	StatusReady             StatusCode = 0x00
	StatusInitialisation    StatusCode = 0x51 // required
	StatusDateTime          StatusCode = 0x62 // incorrect
	StatusPleaseWait        StatusCode = 0x9C // an update or another job runs
	StatusMemoryFull        StatusCode = 0xB1 // an end of day may help
	StatusJournalFull       StatusCode = 0xB2
	StatusDiagnosis         StatusCode = 0xC2 // required
	StatusCardProfile       StatusCode = 0xC4 // invalid: an update is needed
	StatusCardInserted      StatusCode = 0xDC
	StatusOutOfOrder        StatusCode = 0xDF
	StatusRemoteMaintenance StatusCode = 0xE0 // an update runs
	StatusCardNotRemoved    StatusCode = 0xE1
	StatusReconciliation    StatusCode = 0xF0 // an end of day is required
)

var statusTexts = map[StatusCode]string{
	0x00: "ready",
	0x51: "initialisation required",
	0x62: "date or time incorrect",
	0x64: "insert card again",
	0x65: "OPT action to be started",
	0x9C: "please wait",
	0x9D: "partial issue of goods",
	0xB1: "memory full",
	0xB2: "merchant journal full",
	0xBF: "supply voltage too low",
	0xC0: "card locking mechanism defective",
	0xC1: "merchant card locked",
	0xC2: "diagnosis required",
	0xC4: "card profile invalid",
	0xCC: "printer not ready",
	0xDC: "card inserted",
	0xDF: "out of order",
	0xE0: "remote maintenance active",
	0xE1: "card not fully removed",
	0xE2: "card reader defective",
	0xE3: "shutter closed",
	0xE4: "terminal activation required",
	0xF0: "reconciliation required",
	0xF6: "OPT data missing",
}

// String is the meaning of the state.
func (c StatusCode) String() string {
	if text, ok := statusTexts[c]; ok {
		return text
	}
	return fmt.Sprintf("unknown (0x%02X)", byte(c))
}

// IntermediateCode says in 04 FF what the terminal is doing (3.7).
type IntermediateCode byte

// The codes that code asks for.
const (
	IntermediateWaitingForHost    IntermediateCode = 0x04
	IntermediateProcessing        IntermediateCode = 0x0E
	IntermediateAutomaticEndOfDay IntermediateCode = 0x0F
	IntermediatePleaseWait        IntermediateCode = 0x17
	IntermediateServiceMode       IntermediateCode = 0x1A
	IntermediateSeeTexts          IntermediateCode = 0xFF // no code fits
)

var intermediateTexts = map[IntermediateCode]string{
	0x00: "waiting for the amount to be confirmed",
	0x01: "please follow the PIN-pad",
	0x02: "please follow the PIN-pad",
	0x03: "not accepted",
	0x04: "waiting for the host",
	0x05: "automatic reversal",
	0x06: "post-bookings",
	0x07: "card not admitted",
	0x08: "card unknown",
	0x09: "card expired",
	0x0A: "insert card",
	0x0B: "remove card",
	0x0C: "card not readable",
	0x0D: "processing error",
	0x0E: "please wait, processing",
	0x0F: "automatic end-of-day starts",
	0x10: "invalid card",
	0x11: "balance",
	0x12: "system malfunction",
	0x13: "payment not possible",
	0x14: "credit not sufficient",
	0x15: "wrong PIN",
	0x16: "limit not sufficient",
	0x17: "please wait",
	0x18: "PIN tries exceeded",
	0x19: "card data incorrect",
	0x1A: "service mode",
	0x1B: "approved, fill up",
	0x1C: "approved, take goods",
	0x1D: "declined",
	0x26: "mobile number to be entered",
	0x27: "mobile number to be repeated",
	0x28: "currency selection",
	0x29: "language selection",
	0x2A: "insert card for loading",
	0x2B: "offline emergency operation",
	0x2C: "application selection",
	0x4B: "remove card",
	0x68: "card insertion detected",
	0x69: "select DCC",
	0xA0: "payment done", // A0 to A5: [ING]
	0xA1: "payment done, please remove card",
	0xA2: "reversal done",
	0xA3: "reversal done, please remove card",
	0xA4: "reversal failed",
	0xA5: "reversal failed, please remove card",
	0xC7: "mileage to be entered",
	0xC8: "waiting for the cashier",
	0xC9: "automatic diagnosis",
	0xCA: "automatic initialisation",
	0xCB: "merchant journal full",
	0xCC: "debit advice not possible, PIN needed",
	0xD2: "dialling",
	0xD3: "connected",
	0xE0: "waiting for application selection",
	0xE1: "waiting for language selection",
	0xE2: "cleaning card to be used",
	0xF1: "offline",
	0xF2: "online",
	0xF3: "offline transaction",
	0xFF: "no matching code",
}

// String is the meaning of the code. 41 to 5D and 66, 67 are 01 to 1D and 26, 27
// with a request to remove the card.
func (c IntermediateCode) String() string {
	if text, ok := intermediateTexts[c]; ok {
		return text
	}
	const removeCard = 0x40
	if c >= 0x41 && c <= 0x5D && c != 0x4A || c == 0x66 || c == 0x67 {
		return intermediateTexts[c-removeCard] + ", please remove card"
	}
	return fmt.Sprintf("unknown (0x%02X)", byte(c))
}
