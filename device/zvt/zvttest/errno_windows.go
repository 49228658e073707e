package zvttest

import "golang.org/x/sys/windows"

// connectionReset is not syscall.ECONNRESET here, a number that Go made up.
const connectionReset = windows.WSAECONNRESET
