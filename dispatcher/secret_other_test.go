//go:build !windows

package dispatcher_test

import (
	"os"
	"path/filepath"
	"testing"

	"terminalops/dispatcher"
)

func TestSecretsAreTheOwners(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if _, err := dispatcher.MakeSecret(file); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode is %v: others may read it", info.Mode())
	}
}
