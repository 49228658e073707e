package apdu

import (
	"bytes"
	"testing"
)

// The commands of the four operations as their author writes them, and the
// bytes of testdata/operations.hex.
func TestOperations(t *testing.T) {
	const ours = ConfigPrintLines | ConfigIntermediateStatus | ConfigAdministrationReceipts
	for want, m := range map[string]Message{
		"06 00 15 00 00 00 8C 09 78 06 0D 26 04 0A 02 06 D3 12 01 40 1A 02 04 00": Registration{
			Config: ours, Currency: new(EUR), Fields: Fields{Container(
				Commands(ControlPrintTextBlock),
				Object{TagPrinterWidth, []byte{0x40}},
				Object{TagMaxAPDU, []byte{0x04, 0x00}},
			)}},
		"06 00 08 00 00 00 8E 09 78 03 00": Registration{
			Config: ours | ConfigPaymentReceipts, Currency: new(EUR), Fields: Fields{ServiceByte(0)}},
		"06 00 06 00 00 00 BE 09 78": Registration{
			Config:   ours | ConfigPaymentReceipts | ConfigPaymentByECROnly | ConfigAdministrationByECROnly,
			Currency: new(EUR)},
		"05 01 03 00 00 00":                   StatusEnquiry{},
		"05 01 05 00 00 00 03 04":             StatusEnquiry{Fields: Fields{ServiceByte(ServiceTLVDetails)}},
		"05 01 05 00 00 00 03 02":             StatusEnquiry{Fields: Fields{ServiceByte(ServiceNoVersion)}},
		"06 50 03 12 34 56":                   EndOfDay{Password: Password{0x12, 0x34, 0x56}},
		"06 50 09 00 00 00 06 04 DF 01 01 01": EndOfDay{Fields: Fields{Container(NoDownload())}},
		"06 20 0B 00 00 00 03 01 06 04 1F 01 01 04": RepeatReceipt{
			Fields: Fields{ServiceByte(RepeatStatusInformation), Container(ReceiptID(ReceiptEndOfDay))}},
		"06 20 05 00 00 00 03 03": RepeatReceipt{
			Fields: Fields{ServiceByte(RepeatStatusInformation | RepeatNoPrint)}},
		"08 11 0C 06 0A 2D 03 1D 01 02 2D 03 1D 01 03": NewReadFile(File{ID: FileApplicationLog}, File{ID: FileECRProtocolLog}),
		"08 11 0A 06 08 2D 06 1D 01 02 1E 01 40":       NewReadFile(File{ID: FileApplicationLog, Offset: new(uint64(0x40))}),
		"06 1A 00":                                     SystemConfiguration{},
		"06 79 00":                                     SelfTest{},
		"0F 11 03 00 00 00":                            SystemInfo{},
		"0F 12 03 00 00 00":                            EMVStatus{},
		"08 10 00":                                     SoftwareUpdate{},
		"08 01 03 00 00 00":                            ServiceMode{},
		"08 01 05 00 00 00 03 01":                      ServiceMode{Fields: Fields{ServiceByte(ServiceNoMenuKey)}},
		"06 02 00":                                     LogOff{},
		"80 00 00":                                     Ack{},
		// The terminal's side.
		"06 0F 00":       Completion{},
		"06 0F 02 27 E0": NewCompletion(Result(CodeRemoteMaintenance)),
		"06 0F 0A 27 00 0C 23 59 58 AA 26 11 22": NewCompletion(
			Result(CodeOK), ClockTime(Time{23, 59, 58}), FullDate(Date{2026, 11, 22})),
		"06 0F 08 29 65 02 91 58 49 09 78":       NewCompletion(TID(65029158), CurrencyCode(EUR)),
		"06 1E 01 77":                            Abort{Code: CodeEndOfDayNotPossible},
		"06 1E 03 6F 09 78":                      Abort{Code: CodeWrongCurrency, Currency: new(EUR)},
		"84 83 00":                               Nack{Code: CodeNotPossible},
		"04 FF 02 17 03":                         IntermediateStatus{Status: IntermediatePleaseWait, Timeout: Minutes(3)},
		"04 01 08 AA 26 11 22 0C 10 10 10":       SetClock{Fields: Fields{FullDate(Date{2026, 11, 22}), ClockTime(Time{10, 10, 10})}},
		"04 0F 0A 04 00 00 00 00 26 00 0D 03 31": StatusInformation{Fields: Fields{Amount(2600), MonthDay(Date{Month: 3, Day: 31})}},
		"04 0F 11 06 0F 2E 0D 1F 0E 04 20 26 11 22 1F 0F 03 23 59 58": StatusInformation{
			Fields: Fields{Container(Timestamp(TagTimestamp, Date{2026, 11, 22}, Time{23, 59, 58}))}},
		"06 D1 01 81": PrintLine{Attribute: AttributeEnd},
	} {
		if got := m.Marshal(); !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("%v: % X, want %s", m, got, want)
		}
	}
}
