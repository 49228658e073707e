package main

import (
	"os"
	"time"

	"golang.org/x/sys/windows"
)

// obeySequences has a console obey control functions until undo is called. Windows
// can do this since version 10.1607.
func obeySequences(f *os.File) (undo func(), err error) {
	console := windows.Handle(f.Fd())
	var before uint32
	if err := windows.GetConsoleMode(console, &before); err != nil {
		return nil, err
	}
	if err := windows.SetConsoleMode(console, before|windows.ENABLE_PROCESSED_OUTPUT|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING); err != nil {
		return nil, err
	}
	return func() { windows.SetConsoleMode(console, before) }, nil
}

// awaitInput waits until there is an input event, at most so long. Not every event
// is a key: the Read that follows may still have to wait for one.
func awaitInput(f *os.File, most time.Duration) (there bool, err error) {
	event, err := windows.WaitForSingleObject(windows.Handle(f.Fd()), uint32(most.Milliseconds()))
	return event == windows.WAIT_OBJECT_0, err
}

// notifyResized: Windows has no such signal; the size is looked at each second.
func notifyResized(chan<- os.Signal) {}
