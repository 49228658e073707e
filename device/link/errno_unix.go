//go:build unix

package link

import "syscall"

const connectionRefused = syscall.ECONNREFUSED
