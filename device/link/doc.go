// Package link opens the byte stream to a payment terminal: a serial line, a
// USB device that is one, or TCP.
//
//	serial:/dev/ttyACM0   serial:COM3      a port by its name
//	usb:0b00:0080[:serial-number]          the port of a USB device, whatever its name is today
//	tcp:192.0.2.10:20007                   a terminal on the network
//
//	          Parse            Open                    Read, Write with deadlines
//	"usb:..." -----> Address --------> Stream <------------------------------> terminal
//	                            |  ^                     |
//	                            |  +--- open again <-----+  any error but a deadline: the stream
//	                            v                           is over (unplugged, closed, reset)
//	                     BusyError, os.ErrNotExist, os.ErrPermission, ...
//
// A Stream is opened when it is needed and closed afterwards, so that the till
// can have the terminal in between. It never repairs itself: after an error the
// caller closes it and opens the Address again, which looks the port up anew,
// for a device that was plugged in again often has another name. Serial ports
// are 8 data bits, no parity, no flow control, and are opened exclusively.
//
// Watch tells when a port comes and goes, and opens nothing: the cable's state.
//
// Deadlines bound reading and writing everywhere. Once one has passed, the
// error is os.ErrDeadlineExceeded; a peer that hung up is io.EOF or another
// error.
//
// On Linux a port is a file with termios, without a library: the usual one
// panics beyond 1024 descriptors, hands its port to child processes, cannot
// end a blocked write, and resets open ports when it lists them. On Windows
// that library, go.bug.st/serial, is sound; its blocking calls are given
// deadlines by a pump.
package link
