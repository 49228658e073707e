//go:build !windows

package zvttest

import "syscall"

const connectionReset = syscall.ECONNRESET
