package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"terminalops/device/zvt"
)

// decode is `terminal-agent decode`: it explains what was recorded of a line. It
// needs no configuration.
func (p program) decode(args []string) error {
	flags := p.flags("decode [FILE]", "Explains what was recorded of a terminal's line: a capture of debug, or bytes in\n"+
		"hexadecimal digits, as a dump or in the lines of a log. Without FILE, or with -,\n"+
		"it reads the standard input. Passwords and card data are masked.")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return err
		}
		return configError{err}
	}
	if flags.NArg() > 1 {
		return configError{fmt.Errorf("decode: want one file, have %q", flags.Args())}
	}
	var recording io.Reader = os.Stdin
	if name := flags.Arg(0); name != "" && name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		recording = file
	}
	return zvt.Decode(p.stdout, recording)
}
