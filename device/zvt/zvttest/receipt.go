package zvttest

import (
	"context"
	"fmt"
	"strings"

	"terminalops/device/zvt/apdu"
)

// This file has what a terminal tells of an end of day: totals and a receipt.

// cardNumber is a test number of VISA. It stands in receipts and logs, as real
// ones have it, for the ECR to mask.
const cardNumber = "4111 1111 1111 1111"

// terminalID is that of the recorded Lane/5000 (zvt.md 6, vector 15).
const terminalID = 65029158

// timeOf and dateOf are what the terminal's clock showed at a record.
func timeOf(r Record) apdu.Time {
	return apdu.Time{Hour: r.At.Hour(), Minute: r.At.Minute(), Second: r.At.Second()}
}

func dateOf(r Record) apdu.Date {
	return apdu.Date{Year: r.At.Year(), Month: int(r.At.Month()), Day: r.At.Day()}
}

// totals is the 04 0F of the last end of day, with or without BMP 60 and with
// whatever else.
func totals(with60 bool, more ...apdu.BMP) step {
	return func(ctx context.Context, s *session) {
		if closed := s.t.at().closed; closed != nil {
			s.tell(ctx, s.statusInformation(*closed, with60, more...))
		}
	}
}

// statusInformation has its fields in the order of a recorded one (vector 25),
// and the currency if the registration had one (zvt.md 3.2).
func (s *session) statusInformation(r Record, with60 bool, more ...apdu.BMP) apdu.StatusInformation {
	_, amount := r.Totals.Sum()
	fields := apdu.Fields{
		apdu.Result(apdu.CodeOK),
		apdu.Amount(amount),
		apdu.ClockTime(timeOf(r)),
		apdu.MonthDay(dateOf(r)),
	}
	if s.t.at().registered.currency {
		fields = append(fields, apdu.CurrencyCode(apdu.EUR))
	}
	if with60 {
		fields = append(fields, r.Totals.field())
	}
	return apdu.StatusInformation{Fields: append(fields, more...)}
}

// receipt prints the receipt of the last end of day, on whatever printer the
// registration says.
func receipt(ctx context.Context, s *session) {
	if closed := s.t.at().closed; closed != nil {
		s.print(ctx, apdu.ConfigAdministrationReceipts, s.t.receiptLines(*closed))
	}
}

// receiptLines is a receipt as text. A first ^ centres.
func (t *Terminal) receiptLines(r Record) []string {
	count, amount := r.Totals.Sum()
	lines := []string{
		"^Kassenschnitt",
		"Händlerbeleg",
		fmt.Sprintf("Terminal-ID %d", terminalID),
		fmt.Sprintf("%s Uhr %s", r.At.Format("02.01.2006"), clock(r.At)),
		fmt.Sprintf("Belege %04d-%04d", r.Totals.FirstReceipt, r.Totals.LastReceipt),
		"",
	}
	for _, s := range r.Totals.Schemes {
		lines = append(lines, fmt.Sprintf("%-18s%4d %12s", s.Name, s.Count, money(s.Amount)))
	}
	lines = append(lines,
		fmt.Sprintf("%-18s%4d %12s", "Summe EUR", count, money(amount)),
		"Letzte Karte "+cardNumber,
	)
	for n := range t.script().longReceipt {
		lines = append(lines, fmt.Sprintf("%04d %28s", r.Totals.FirstReceipt+n, "genehmigt"))
	}
	return append(lines, "^Kassenschnitt erfolgreich", "^durchgeführt")
}

// print sends lines to the ECR, if the registration claims receipts of that
// kind and wants lines (zvt.md 4.1): as 06 D3 if the ECR can process it.
func (s *session) print(ctx context.Context, kind apdu.Config, texts []string) {
	r := s.t.at().registered
	switch {
	case r.config&kind == 0:
		s.t.o.Tell("prints on its own printer")
	case r.config&apdu.ConfigPrintLines == 0: // the ECR builds its receipts from 04 0F
	case r.blocks && !s.t.script().singleLines:
		s.printBlocks(ctx, s.t.encode(texts), r.size)
	default:
		s.printLines(ctx, s.t.encode(texts))
	}
}

func (t *Terminal) encode(texts []string) []apdu.Line {
	var lines []apdu.Line
	for _, text := range texts {
		text, centred := strings.CutPrefix(text, "^")
		line := apdu.Line{Bytes: t.script().charset.Encode(text)}
		if centred {
			line.Attribute = apdu.AttributeCentred
		}
		lines = append(lines, line)
	}
	return lines
}

// printLines is 06 D1 for each line, and one for the end.
func (s *session) printLines(ctx context.Context, lines []apdu.Line) {
	for _, l := range append(lines, apdu.Line{Attribute: apdu.AttributeEnd}) {
		m := apdu.PrintLine{Attribute: l.Attribute, Text: l.Bytes}
		if s.t.script().lineTail && !m.EndOfReceipt() {
			m.Fields = apdu.Fields{apdu.Container(apdu.Object{Tag: apdu.TagReceiptType, Value: []byte{byte(apdu.ReceiptMerchant)}})}
		}
		s.tell(ctx, m)
	}
}

// printBlocks is 06 D3, as many as it takes.
func (s *session) printBlocks(ctx context.Context, lines []apdu.Line, size int) {
	const perLine, around = 5, 20 // bytes of tags and lengths
	room := size - around
	from := 0
	for i, l := range lines {
		if room -= len(l.Bytes) + perLine; room < 0 {
			s.tell(ctx, apdu.NewPrintTextBlock(apdu.ReceiptAdministration, lines[from:i], false))
			from, room = i, size-around-len(l.Bytes)-perLine
		}
	}
	s.tell(ctx, apdu.NewPrintTextBlock(apdu.ReceiptAdministration, lines[from:], true))
}
