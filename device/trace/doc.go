// Package trace is where the bytes of a terminal become readable, and where
// card data ends: whatever a person or a file may see passes through here.
//
//	line -> adapter -> Event (masked) -> Tap --> subscriber: a screen, a file
//	                                      \----> the last events of each terminal
//
// An adapter makes an [Event] of everything it sees or does on the line, and masks
// it itself: it alone knows where card data is. From there on nobody has to. A nil
// [*Tap] takes nothing and costs nothing: who has none makes no events.
//
// Mask and its kin find card numbers in whatever a terminal says. A capture
// ([Writer], [Read]) is a file of events that a person can read.
package trace
