package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dump.txt")
	dump := "TX 10 02 06 50 03 12 34 56 10 03 C4 AF\nRX 06 10 02 84 9C 00 10 03 00 00\n"
	if err := os.WriteFile(file, []byte(dump), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := output("decode", file)
	for _, want := range []string{"ECR → PT    06 50 end-of-day: password ••••••; CRC right", "|•• •• ••|", "wrong CRC", "84 9C"} {
		if !strings.Contains(out, want) {
			t.Errorf("decode does not say %q:\n%s", want, out)
		}
	}
	if code != exitOK || strings.Contains(out, "12 34 56") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

func TestDecodeSaysWhatIsWrong(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.txt")
	if err := os.WriteFile(empty, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"decode", empty}, exitFailed, "neither a capture nor bytes"},
		{[]string{"decode", empty + ".missing"}, exitFailed, "empty.txt.missing"},
		{[]string{"decode", empty, empty}, exitConfig, "want one file"},
		{[]string{"decode", "--unknown"}, exitConfig, "--unknown"},
	} {
		if code, out := output(test.args...); code != test.code || !strings.Contains(out, test.want) {
			t.Errorf("%q: exit code %d, %s, want %d, %s", test.args, code, out, test.code, test.want)
		}
	}
}
