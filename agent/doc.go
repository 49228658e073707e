// Package agent is the engine: the life of one operation on a payment terminal,
// from the command that arrives to the report that is delivered.
//
//	          transport.End                          device.Terminal
//	cloud <==================> lane: accept, queue <==================> terminal
//	                             |   perform (operation.go)
//	                             v
//	                          journal (bbolt, synced)
//
// Read operation.go first: it is the story. Around it:
//
//	agent.go    options; all lanes side by side
//	lane.go     one terminal: its queue, its worker, what is known of it
//	receive.go  what arrives: commands, welcome, repair
//	report.go   what is sent: hello, presence, final reports, progress
//	clock.go    the cloud's time, which decides about deadlines
//	journal.go  what is on disk, and how long
//	commit.go   many lanes write to it at the same time
//	local.go    operations that begin at the store
//	status.go   what people at the store may ask
//	alive.go    what a watchdog may ask
//	disk.go     the state directory: one agent's alone, names that stay
//	logs.go     the way of a send_logs from the terminal to the cloud
//
// What it promises: one command makes a terminal act at most once, whatever is
// delivered twice and whatever crashes when; one operation at a time; nothing
// starts after its deadline by the cloud's clock; nothing that was acknowledged
// is lost; and what nobody saw end is asked for, not guessed.
//
// The package knows no MQTT, no serial port and no device protocol: package
// transport and package device are all it sees of them, and it is the only one
// that sees both.
package agent
