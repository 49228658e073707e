// Package zvttest plays a payment terminal that speaks ZVT, on any stream of
// bytes, with the troubles that real ones have.
//
//	ECR                                        Terminal
//	06 50 03 00 00 00  ------------------->    carryOut: the scenario's dialogue
//	                   <-------------------    accept       80 00 00
//	                   <-------------------    display      04 FF ..
//	80 00 00           ------------------->
//	                                           work         (hears what must not come)
//	                                           closeBatch   the log, then the batch
//	                   <-------------------    totals       04 0F ..
//	80 00 00           ------------------->
//	                   <-------------------    receipt      06 D1 .. or 06 D3 ..
//	80 00 00           ------------------->
//	                   <-------------------    complete     06 0F 00
//	80 00 00           ------------------->
//
// A scenario has a name, and replaces such dialogues or adds noise to the line;
// see [Groups]. A trouble is what a person does to a terminal that is switched
// on; see [Troubles] and [Terminal.Play]. Nothing in here starts a goroutine or
// leaves a timer, so all of it works in testing/synctest.
//
// The terminal keeps a log of what it really did, one JSON object per line,
// written and synced at the moment it does it and before anybody is told. The
// log survives the terminal; tests take it for the truth. It also holds what
// the terminal was sent that no ECR may send ([Violation]).
//
// The terminal is made of frame and apdu, and therefore cannot find what is
// wrong in them: it is never the only witness of a test.
//
// Chapters are those of zvt.md, the project's fact sheet on the protocol, or of
// the specification where it says [S15] or [S16].
package zvttest
