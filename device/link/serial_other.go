//go:build !linux && !windows

package link

import (
	"errors"
	"fmt"
)

var errUnsupported = fmt.Errorf("serial ports are not supported on this system (%w)", errors.ErrUnsupported)

func openSerial(string, Options) (Stream, error) { return nil, errUnsupported }

func listPorts() ([]Port, error) { return nil, errUnsupported }
