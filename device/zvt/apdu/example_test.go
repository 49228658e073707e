package apdu_test

import (
	"fmt"

	"terminalops/device/zvt/apdu"
)

// A command is a literal, an answer is told apart by its type.
func Example() {
	command := apdu.RepeatReceipt{Fields: apdu.Fields{
		apdu.ServiceByte(apdu.RepeatStatusInformation),
		apdu.Container(apdu.ReceiptID(apdu.ReceiptEndOfDay)),
	}}
	fmt.Printf("% X\n%v\n", command.Marshal(), command)

	answer, err := apdu.Parse([]byte{0x04, 0x0F, 0x09, 0x27, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x26, 0x00})
	switch m := answer.(type) {
	case apdu.StatusInformation:
		amount, ok := m.Amount()
		fmt.Println("amount", amount, ok, err)
	case apdu.Abort:
		fmt.Println("failed:", m.Code)
	}
	// Output:
	// 06 20 0B 00 00 00 03 01 06 04 1F 01 01 04
	// repeat receipt: password ••••••, service byte 01, TLV {receipt id 04}
	// amount 2600 true <nil>
}
