// Package apdu knows the messages of ZVT: the bytes between the electronic cash
// register (ECR, that is us) and the payment terminal (PT), and what they mean.
//
//	06 50 03 00 00 00                 an APDU: a command ...
//	|  |  |  +------- data
//	|  |  +---------- length of the data; FF lo hi when it is more than 254 bytes
//	|  +------------- instruction
//	+---------------- class
//	80 00 00                          ... and the answer to it: taken (84 xx: refused)
//
//	data:   [positional bytes] BMP BMP ...
//	BMP:    04 00 00 00 00 26 00      id, then as many bytes as the id demands
//	        8B F0 F4 56 49 53 41      id, length in digits (LLVAR, LLLVAR), data
//	        06 03 27 01 00            id 06: a TLV container
//	TLV:    24 0E 07 0C 42 69 ...     tag, length, value; the value of a known
//	                                  container is again TLV
//
// [Parse] makes a struct of an APDU, Marshal makes the APDU of the struct. Each
// command and answer has a struct of its own, usable as a literal. There is one
// truth: a message holds the positional bytes and the list of its BMPs as they
// came, a BMP and a TLV object hold bytes, and methods read them. So what was
// parsed marshals to the same bytes, always, and what nobody here knows
// survives.
//
// Where a message cannot be read to its end, Parse returns what it could read,
// the rest raw, and an error: a terminal's totals are not lost over a stray
// byte behind them. Offsets in errors count from the first data byte.
//
// String is for people and logs. It shows passwords as dots, card numbers as
// their first six and last four digits, and of data it does not know only the
// length.
//
// The package has no clock and does no I/O; the line below it is package frame,
// the dialogue above it package zvt. Chapter numbers, where nothing else is
// said, are those of the ZVT specification PA00P015 revision 13.08 ([S15]);
// [S16] is its transport part PA00P016, [ING] Ingenico's and [CC] card
// complete's document on their deviations.
//
// Where the specification is silent these are our decisions:
//   - A short block in the extended length form is accepted and kept as such.
//   - The digits of LLVAR and LLLVAR are the low halves of their bytes; a half
//     above 9 is an error.
//   - A TLV tag has at most four bytes. Bit 20 alone makes no container: only
//     tags known as containers are opened, eight in each other.
//   - A T4 of zero minutes in 04 FF counts as not given.
//   - Text: control characters and no-break spaces become spaces, so that
//     nothing hides a card number from the mask; [Auto] says how a text in an
//     unknown character set is read.
package apdu
