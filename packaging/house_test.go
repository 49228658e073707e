package packaging

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "terminalops/"

// mayImport is the architecture: which package may import which of ours. A name
// that ends in "/..." stands for everything below it, too. What is not listed
// may import nothing of ours.
var mayImport = map[string][]string{
	"device":                          {},
	"device/trace":                    {},
	"transport":                       {},
	"device/link":                     {"device/trace"},
	"device/zvt/frame":                {"device/trace"},
	"device/zvt/apdu":                 {"device/trace"},
	"device/zvt":                      {"device", "device/trace", "device/zvt/..."},
	"device/kit":                      {"device", "device/trace", "device/kit/..."},
	"device/helper":                   {"device", "device/trace", "device/helper/..."},
	"transport/mqtt":                  {"transport"},
	"agent":                           {"device", "transport"},
	"agent/control":                   {"agent"},
	"dispatcher":                      {"transport", "dispatcher/..."},
	"dispatcher/store":                {},
	"dispatcher/broker":               {},
	"device/devicetest":               {"device"},
	"device/zvt/zvttest":              {"device/trace", "device/zvt/frame", "device/zvt/apdu"},
	"device/zvt/zvttest/cards":        {"device/zvt/frame", "device/zvt/apdu"},
	"cmd/internal/texttest":           {},
	"cmd/terminal-agent":              {"agent/...", "device/...", "packaging", "transport/..."},
	"cmd/terminal-dispatcher":         {"dispatcher/...", "transport/..."},
	"cmd/terminal-simulator":          {"device/..."},
	"cmd/demo":                        {},
	"packaging":                       {},
	"transport/transporttest":         {"transport"},
	"transport/transporttest/brokers": {"transport", "transport/mqtt", "dispatcher/broker"},
}

// onlyIn names the one place where a third party may be imported.
var onlyIn = map[string][]string{
	"github.com/eclipse/paho.mqtt.golang": {"transport/mqtt"},
	"go.bug.st/serial":                    {"device/link"},
	"github.com/kardianos/service":        {"cmd/terminal-agent"},
	"github.com/coreos/go-systemd":        {"cmd/terminal-agent"},
	"go.etcd.io/bbolt":                    {"agent"},
	"github.com/nats-io/nats-server":      {"dispatcher/broker"},
	"modernc.org/sqlite":                  {"dispatcher/store"},
	"github.com/pelletier/go-toml":        {"cmd/terminal-agent", "cmd/terminal-dispatcher"},
	"github.com/creack/pty":               {"cmd/terminal-simulator", "cmd/demo"},
}

// notInTheAgent must not be linked into the agent's binary.
var notInTheAgent = []string{"modernc.org/", "github.com/nats-io/", "database/sql", module + "dispatcher", "net/http/httptest", "net/http/pprof", "expvar", "net/rpc", "testing"}

type listed struct {
	ImportPath string
	Name       string
	Doc        string
	Imports    []string
	Deps       []string
}

// list is `go list` for every system that we ship.
func list(t *testing.T, goos string) []listed {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil && os.Getenv("TERMINALOPS_TEST_ALL") != "1" {
		t.Skip("go is not installed")
	}
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Doc,Imports,Deps", "./...")
	cmd.Dir = ".."
	cmd.Env = append(cmd.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var one listed
		if err := d.Decode(&one); err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

func TestHouse(t *testing.T) {
	// go list reads the sources, not this process: name them to the test cache.
	if err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".go") {
			_, err = os.Stat(path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, goos := range []string{"linux", "windows"} {
		for _, p := range list(t, goos) {
			name := strings.TrimPrefix(p.ImportPath, module)
			allowed, known := mayImport[name]
			if !known {
				t.Errorf("%s: %s has no place in the table of imports", goos, name)
			}
			if p.Doc == "" && len(p.Imports) > 0 {
				t.Errorf("%s has no package comment", name)
			}
			for _, i := range p.Imports {
				if ours, isOurs := strings.CutPrefix(i, module); isOurs && !slices.ContainsFunc(allowed, func(a string) bool { return covers(a, ours) }) {
					t.Errorf("%s: %s must not import %s", goos, name, ours)
				}
				for third, homes := range onlyIn {
					if strings.HasPrefix(i, third) && !slices.Contains(homes, name) && !strings.Contains(name, "test") {
						t.Errorf("%s: %s must not import %s: its place is %v", goos, name, i, homes)
					}
				}
			}
			if strings.HasPrefix(name, "cmd/") && name != "cmd/terminal-simulator" {
				noTestPackages(t, p)
			}
			if name == "cmd/terminal-agent" {
				for _, d := range p.Deps {
					if slices.ContainsFunc(notInTheAgent, func(n string) bool { return strings.HasPrefix(d, n) && (n != "testing" || d == n) }) {
						t.Errorf("%s: the agent's binary contains %s", goos, d)
					}
				}
			}
		}
	}
}

func noTestPackages(t *testing.T, p listed) {
	for _, d := range p.Deps {
		if strings.HasPrefix(d, module) && strings.Contains(d, "test") {
			t.Errorf("%s contains %s", p.ImportPath, d)
		}
	}
}

// covers reports whether the pattern of the table allows the package.
func covers(pattern, name string) bool {
	base, below := strings.CutSuffix(pattern, "/...")
	return name == base || below && strings.HasPrefix(name, base+"/")
}
