package texttest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // for berlin, on any machine

	"terminalops/device/zvt/apdu"
)

const root = "../../.."

// berlin is the time zone of the store in the documents.
func berlin(t *testing.T) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// days returns moments that print differently: days below 13 and above, the end of
// a year, a leap day, both offsets of Berlin and the changes between them.
func days(zone *time.Location) []time.Time {
	var all []time.Time
	for _, d := range []time.Time{
		time.Date(2026, 6, 29, 9, 0, 0, 123456789, zone),
		time.Date(2026, 11, 26, 16, 25, 44, 1e6, zone),
		time.Date(2026, 12, 1, 0, 0, 0, 7e6, zone),
		time.Date(2026, 12, 31, 23, 59, 59, 999e6, zone),
		time.Date(2027, 3, 28, 1, 59, 59, 5e8, zone),
		time.Date(2027, 10, 31, 2, 30, 0, 5e8, zone),
		time.Date(2028, 2, 29, 12, 34, 56, 1e8, zone),
	} {
		all = append(all, d, d.AddDate(0, 0, 1))
	}
	return all
}

// layouts returns the layouts of all calls of time.Time's Format and AppendFormat in
// the sources of the programs, and where each stands.
func layouts(t *testing.T) map[string]token.Position {
	t.Helper()
	found := map[string]token.Position{}
	packages := map[string][]*ast.File{}
	files := token.NewFileSet()
	if err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		packages[filepath.Dir(path)] = append(packages[filepath.Dir(path)], f)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		constants := stringConstants(p)
		for _, f := range p {
			ast.Inspect(f, func(n ast.Node) bool {
				call, isCall := n.(*ast.CallExpr)
				if !isCall || len(call.Args) == 0 {
					return true
				}
				method, isMethod := call.Fun.(*ast.SelectorExpr)
				if !isMethod || method.Sel.Name != "Format" && method.Sel.Name != "AppendFormat" {
					return true
				}
				layout, known := constantText(call.Args[len(call.Args)-1], constants)
				if !known {
					t.Errorf("%v: the layout is no constant that this test can read", files.Position(call.Pos()))
				}
				found[layout] = files.Position(call.Pos())
				return true
			})
		}
	}
	return found
}

// stringConstants returns the string constants of a package by their names.
func stringConstants(files []*ast.File) map[string]string {
	constants := map[string]string{}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, isSpec := n.(*ast.ValueSpec); isSpec && len(spec.Names) == len(spec.Values) {
				for i, name := range spec.Names {
					if text, known := constantText(spec.Values[i], nil); known {
						constants[name.Name] = text
					}
				}
			}
			return true
		})
	}
	return constants
}

// timeLayouts are the layouts that package time names.
var timeLayouts = map[string]string{
	"RFC3339": time.RFC3339, "RFC3339Nano": time.RFC3339Nano, "DateTime": time.DateTime, "DateOnly": time.DateOnly, "TimeOnly": time.TimeOnly,
}

// constantText returns the value of a string literal or of a named constant.
func constantText(e ast.Expr, constants map[string]string) (text string, known bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil && e.Kind == token.STRING
	case *ast.Ident:
		text, known = constants[e.Name]
	case *ast.SelectorExpr:
		text, known = timeLayouts[e.Sel.Name]
	}
	return text, known
}

// A comparison with a document takes the texts of two days as equal, for each layout in
// the sources.
func TestEveryLayoutIsTheSameOnAnyDay(t *testing.T) {
	zone := berlin(t)
	all := layouts(t)
	if len(all) < 10 {
		t.Errorf("only %d layouts found: %q", len(all), slices.Sorted(maps.Keys(all)))
	}
	for layout, position := range all {
		prints := map[string]func(time.Time) string{
			"in the text":   func(d time.Time) string { return "at " + d.Format(layout) + ", so" },
			"alone":         func(d time.Time) string { return d.Format(layout) },
			"in quotes":     func(d time.Time) string { return `"` + d.Format(layout) + `"` },
			"in a name":     func(d time.Time) string { return "terminal-agent-" + d.Format(layout) + ".capture" },
			"on a line end": func(d time.Time) string { return "last\t" + d.Format(layout) + "\n" },
		}
		for where, print := range prints {
			for _, in := range []*time.Location{zone, time.UTC} {
				compareDays(t, position.String()+", "+where, in, print)
			}
		}
	}
}

// Dates and times that are printed without a layout.
func TestFieldsOfATerminalAreTheSameOnAnyDay(t *testing.T) {
	zone := berlin(t)
	for name, print := range map[string]func(time.Time) string{
		"date":           func(d time.Time) string { return "date " + date(d).String() + ", currency EUR" },
		"date of a year": func(d time.Time) string { y := date(d); y.Year = d.Year(); return y.String() },
		"time": func(d time.Time) string {
			return apdu.Time{Hour: d.Hour(), Minute: d.Minute(), Second: d.Second()}.String()
		},
		"zone":             func(d time.Time) string { return "time zone: " + d.Format("MST") + " here" },
		"receipt":          func(d time.Time) string { return d.Format("02.01.2006") + " Uhr " + d.Format(time.TimeOnly) },
		"line of debug":    func(d time.Time) string { return d.Format("15:04:05.000") + "   +0.000  ECR → PT" },
		"attribute of log": func(d time.Time) string { return "time=" + d.Format("2006-01-02T15:04:05.000Z07:00") + " level=INFO" },
	} {
		compareDays(t, name, zone, print)
	}
}

func date(d time.Time) apdu.Date { return apdu.Date{Month: int(d.Month()), Day: d.Day()} }

// compareDays compares what is printed on all days.
func compareDays(t *testing.T, what string, in *time.Location, print func(time.Time) string) {
	t.Helper()
	all := days(in)
	want := FixTimes(print(all[0]))
	for _, d := range all[1:] {
		if have := FixTimes(print(d)); have != want {
			t.Errorf("%s: %q is compared as %q, and %q as %q", what, print(all[0]), want, print(d), have)
			return
		}
	}
	if print(all[0]) == print(all[1]) && print(all[0]) == print(all[2]) {
		t.Errorf("%s: prints %q on each day", what, print(all[0]))
	}
}

// A document whose every date is moved to another day stays the same to a comparison.
// The dates are found by the programs' layouts, not by FixTimes.
func TestDocumentsAreTheSameTomorrow(t *testing.T) {
	zone := berlin(t)
	known := slices.Collect(maps.Keys(layouts(t)))
	files, err := filepath.Glob(root + "/cmd/*/testdata/screen/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, root+"/README.md", root+"/docs/install.md", root+"/docs/field-guide.md")
	moved := map[string]int{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want := FixTimes(string(content))
		for _, by := range []time.Duration{24 * time.Hour, -20 * 24 * time.Hour, 200 * 24 * time.Hour} {
			text, n := move(string(content), known, zone, by)
			moved[file] += n
			if have := FixTimes(text); have != want {
				t.Errorf("%s, moved by %v: %s", file, by, firstDifference(want, have))
			}
		}
	}
	if guide := root + "/docs/field-guide.md"; moved[guide] < 3*30 {
		t.Errorf("%d times of the field guide were moved", moved[guide])
	}
}

// move returns text with each word that one of the layouts prints moved by a time,
// and the number of these words.
func move(text string, layouts []string, zone *time.Location, by time.Duration) (moved string, n int) {
	var b strings.Builder
	for len(text) > 0 {
		end := strings.IndexAny(text, " \n\"(),;")
		word := text
		if end >= 0 {
			word = text[:end]
		}
		for _, layout := range layouts {
			if at, err := time.ParseInLocation(layout, word, zone); err == nil && at.Format(layout) == word {
				b.WriteString(at.Add(by).Format(layout))
				text, word, n = text[len(word):], "", n+1
				break
			}
		}
		b.WriteString(word)
		text = text[len(word):]
		if len(text) > 0 {
			b.WriteByte(text[0])
			text = text[1:]
		}
	}
	return b.String(), n
}

// firstDifference shows the first line that differs.
func firstDifference(want, have string) string {
	w, h := strings.Split(want, "\n"), strings.Split(have, "\n")
	for i := range min(len(w), len(h)) {
		if w[i] != h[i] {
			return strconv.Quote(w[i]) + " and " + strconv.Quote(h[i])
		}
	}
	return "one is longer"
}

// Numbers that are no dates stay: a comparison must still see them.
func TestFixTimesLeavesNumbersAlone(t *testing.T) {
	for _, text := range []string{
		"06 D3 FF 54 00|1F 07 01|03|25 49|07 0D|4B", "203.0.113.80:8883", "2.14.15", "1,234.50", "0068-0109", "P11223351-T0013",
		"--link --06", "4111 11** **** 1111", "usb:0403:6001", "0403:6001:A50285BI", "3f1a9c2e-8b7d-4f6a-9c1e-2d5b8a0f4e6c", "0x8C",
	} {
		if have := FixTimes(text); have != text {
			t.Errorf("%q becomes %q", text, have)
		}
	}
}
