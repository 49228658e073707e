package link

import (
	"os"
	"testing"
)

// What is there instead depends on the computer; that it is said does not.
func TestNoSuchPort(t *testing.T) {
	for _, address := range []string{"serial:COM98", "serial:COM250"} {
		s, err := Open(t.Context(), must(t, address), Options{Baud: 9600, StopBits: 2})
		if s != nil {
			t.Error("a stream beside the error")
		}
		says(t, err, os.ErrNotExist, "open "+address+": no such port; is the terminal plugged in and switched on? there is ")
	}
}
