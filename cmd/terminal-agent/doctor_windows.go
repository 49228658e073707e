package main

import (
	"context"
	"errors"

	"golang.org/x/sys/windows"
)

const (
	needsRights = `try it in a command prompt that was opened with "Run as administrator"`
	setTheClock = "set the clock, and have it kept right: Settings, Time, Set time automatically"

	connectionRefused = windows.WSAECONNREFUSED
	connectionReset   = windows.WSAECONNRESET
)

func isDiskFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}
func isReadOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }

// freeSpace is what the service may still write, in bytes.
func freeSpace(dir string) (free uint64, err error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	err = windows.GetDiskFreeSpaceEx(path, &free, nil, nil)
	return free, err
}

// isOpen: rights are inherited here, and the installer has set them.
func isOpen(string) bool { return false }

// hiddenFromService: files have the rights of their directory here, which the
// installer has set for the service; what somebody has changed is not looked at.
func hiddenFromService(string, bool) (why, advice string) { return "", "" }
func portHiddenFromService(string) (why, advice string)   { return "", "" }

// serviceLog: the note says how to get what the event log has.
func serviceLog(context.Context) (log []byte, note string) {
	return nil, "the log is in the Event Viewer: Windows Logs, Application, source terminal-agent; save it there as a file and add it"
}
