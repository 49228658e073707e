package apdu

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// vector is one entry of testdata/*.hex.
type vector struct {
	name string // file:line
	apdu []byte
	want string // what String says; empty: no message
	err  string // what Parse says
}

func vectors(t testing.TB) []vector {
	t.Helper()
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata/*.hex: %v, %d files", err, len(files))
	}
	var all []vector
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			mark, rest, _ := strings.Cut(line, " ")
			switch mark {
			case ">":
				all = append(all, vector{name: fmt.Sprintf("%s:%d", filepath.Base(file), i+1), apdu: unhex(t, rest)})
			case "=":
				all[len(all)-1].want = rest
			case "!":
				all[len(all)-1].err = rest
			}
		}
	}
	return all
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mustParse parses an APDU that has to be read to its end.
func mustParse[M Message](t testing.TB, s string) M {
	t.Helper()
	m, err := Parse(unhex(t, s))
	if err != nil {
		t.Fatal(err)
	}
	got, ok := m.(M)
	if !ok {
		t.Fatalf("Parse(%s) is a %T", s, m)
	}
	return got
}

// Every recorded message means what is written beside it, and is written again
// as it was.
func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.name, func(t *testing.T) {
			m, err := Parse(v.apdu)
			if got := errorText(err); got != v.err {
				t.Errorf("error:\ngot  %s\nwant %s", got, v.err)
			}
			if m == nil {
				if v.want != "" {
					t.Errorf("no message, want %s", v.want)
				}
				return
			}
			if got := m.String(); got != v.want {
				t.Errorf("meaning:\ngot  %s\nwant %s", got, v.want)
			}
			if got := m.Marshal(); !bytes.Equal(got, v.apdu) {
				t.Errorf("marshals to % X, want % X", got, v.apdu)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
