package link

import "golang.org/x/sys/windows"

// connectionRefused is not syscall.ECONNREFUSED here, a number that Go made up.
const connectionRefused = windows.WSAECONNREFUSED
