package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// configShow is `terminal-agent config show`.
func (p program) configShow(args []string) error {
	flags := p.flags("config show", "Shows the configuration as the agent would use it, with defaults and with what the\nenvironment and flags override, and where that comes from. Secrets are not shown.")
	from := newSource(flags, p.getenv)
	asJSON := flags.Bool("json", false, "for scripts")
	if err := parse(flags, args); err != nil {
		return err
	}
	used, err := from.load()
	if err != nil {
		return err
	}
	content, err := os.ReadFile(from.file)
	if err != nil {
		return fmt.Errorf("config show: %w", err)
	}
	written, err := parseConfig(content)
	if err != nil {
		return configError{fmt.Errorf("config show: %w", err)}
	}
	shown := showConfig(used, written, overrides(flags))
	if *asJSON {
		return writeJSON(p.stdout, shown.object(from.file))
	}
	fmt.Fprintf(p.stdout, "# %s, as the agent uses it\n", from.file)
	return shown.print(p.stdout)
}

// shownConfig is a configuration without its secrets, table by table.
type shownConfig []shownTable

type shownTable struct {
	name string // "" at the top; "broker", "terminal", "terminal.zvt"
	keys []shownKey
}

type shownKey struct {
	key   string
	value any    // string, int, []string or byteValue
	from  string // "default", the name of a flag or variable; empty: the file
}

// byteValue is a number that people write in hexadecimal digits.
type byteValue int

// add adds a key of which the file says written. Without a value it is left out:
// there is no default, or the agent knows it only when it runs.
func (t *shownTable) add(key string, value, written any, override string) {
	if v := reflect.ValueOf(value); !v.IsValid() || v.IsZero() {
		return
	}
	from := override
	if w := reflect.ValueOf(written); from == "" && (!w.IsValid() || w.IsZero()) {
		from = "default"
	}
	t.keys = append(t.keys, shownKey{key, value, from})
}

// showConfig takes the secrets out. overridden says what has given a key its value
// instead of the file.
func showConfig(used, written *config, overridden map[string]string) shownConfig {
	top := shownTable{}
	top.add("state_dir", used.StateDir, written.StateDir, overridden["state_dir"])
	top.add("log_level", used.LogLevel, written.LogLevel, overridden["log_level"])
	if used.LogFile != nil {
		top.keys = append(top.keys, shownKey{key: "log_file", value: *used.LogFile})
	}
	top.add("resolve_for", used.ResolveFor.String(), written.ResolveFor, "")

	broker, b, w := shownTable{name: "broker"}, used.Broker, written.Broker
	var urls []string
	for _, u := range b.URLs {
		urls = append(urls, withoutUser(u))
	}
	broker.add("urls", urls, w.URLs, overridden["broker.urls"])
	broker.add("prefix", b.Prefix, w.Prefix, "")
	broker.add("ca_file", b.CAFile, w.CAFile, "")
	broker.add("proxy", withoutUser(b.Proxy), w.Proxy, "")
	broker.add("cert_file", b.CertFile, w.CertFile, "")
	broker.add("key_file", b.KeyFile, w.KeyFile, "")
	broker.add("username", b.Username, w.Username, overridden["broker.username"])
	broker.add("password_file", b.PasswordFile, w.PasswordFile, overridden["broker.password_file"])
	if b.password != "" {
		broker.keys = append(broker.keys, shownKey{"password", notShown, brokerPasswordVariable})
	}

	shown := shownConfig{top, broker}
	for i, t := range used.Terminals {
		shown = append(shown, showTerminal(t, written.Terminals[i])...)
	}
	return shown
}

func showTerminal(t, w terminalConfig) []shownTable {
	terminal := shownTable{name: "terminal"}
	terminal.add("id", t.ID, w.ID, "")
	terminal.add("protocol", t.Protocol, w.Protocol, "")
	terminal.add("link", t.Link, w.Link, "")
	terminal.add("baud", t.Baud, w.Baud, "")
	terminal.add("stop_bits", t.StopBits, w.StopBits, "")
	terminal.add("timezone", t.location.String(), w.Timezone, "")
	terminal.add("username", t.Username, w.Username, "")
	terminal.add("password_file", t.PasswordFile, w.PasswordFile, "")
	terminal.add("cert_file", t.CertFile, w.CertFile, "")
	terminal.add("key_file", t.KeyFile, w.KeyFile, "")
	z, zw := shownTable{name: "terminal.zvt"}, w.ZVT
	z.add("password", notShown, zw.Password, "")
	z.add("currency", t.ZVT.Currency, zw.Currency, "")
	z.add("config_byte", byteValue(*t.ZVT.ConfigByte), zw.ConfigByte, "")
	z.add("receipt", t.ZVT.Receipt, zw.Receipt, "")
	z.add("t1", t.ZVT.T1.String(), zw.T1, "")
	z.add("t3", t.ZVT.T3.String(), zw.T3, "")
	z.add("t4", t.ZVT.T4.String(), zw.T4, "")
	return []shownTable{terminal, z}
}

// overrides says which flag or variable has given a key its value.
func overrides(flags *pflag.FlagSet) map[string]string {
	by := make(map[string]string)
	for key, o := range map[string]struct{ flag, variable string }{
		"state_dir":            {"state-dir", "TERMINAL_AGENT_STATE_DIR"},
		"log_level":            {"log-level", "TERMINAL_AGENT_LOG_LEVEL"},
		"broker.urls":          {"broker-url", "TERMINAL_AGENT_BROKER_URLS"},
		"broker.username":      {"broker-username", "TERMINAL_AGENT_BROKER_USERNAME"},
		"broker.password_file": {"broker-password-file", "TERMINAL_AGENT_BROKER_PASSWORD_FILE"},
	} {
		switch f := flags.Lookup(o.flag); {
		case f.Value.String() == "" || f.Value.String() == "[]": // nothing, which counts as not said
		case f.Changed:
			by[key] = "--" + o.flag
		default: // the variable is the flag's default
			by[key] = o.variable
		}
	}
	return by
}

// withoutUser takes name and password out of a URL, also out of one that is not
// quite right. What is no URL at all is not shown.
func withoutUser(raw string) string {
	if _, err := url.Parse(raw); err != nil {
		return notShown
	}
	at := strings.LastIndex(raw, "@")
	if at < 0 {
		return raw
	}
	scheme, _, found := strings.Cut(raw[:at], "://")
	if !found {
		return notShown + raw[at:]
	}
	return scheme + "://" + notShown + raw[at:]
}

// print writes it as in the file, with a word about where a value comes from if
// it does not stand there.
func (c shownConfig) print(w io.Writer) error {
	for _, t := range c {
		switch t.name {
		case "":
		case "terminal":
			fmt.Fprint(w, "\n[[terminal]]\n")
		default:
			fmt.Fprintf(w, "\n[%s]\n", t.name)
		}
		rows := table(w)
		for _, k := range t.keys {
			line := k.key + " = " + inFile(k.value)
			if k.from == brokerPasswordVariable { // no key of the file
				line = "# " + line
			}
			if k.from != "" {
				line += "\t# " + k.from
			}
			fmt.Fprintln(rows, line)
		}
		if err := rows.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// inFile is a value as it is written in the file.
func inFile(value any) string {
	switch v := value.(type) {
	case string:
		if q, err := quote(v); err == nil {
			return q
		}
		return strconv.QuoteToASCII(v) // of which nobody makes a file
	case []string:
		var all []string
		for _, s := range v {
			all = append(all, inFile(s))
		}
		return "[" + strings.Join(all, ", ") + "]"
	case byteValue:
		return fmt.Sprintf("0x%02X", int(v))
	default:
		return fmt.Sprint(v)
	}
}

// object is the same for scripts: the tables of the file, and in "from" the keys
// whose values do not stand there.
func (c shownConfig) object(file string) map[string]any {
	from := make(map[string]string)
	object := map[string]any{"file": file, "from": from}
	var terminals []map[string]any
	for _, t := range c {
		to, path := object, ""
		switch t.name {
		case "":
		case "terminal":
			to, path = make(map[string]any), fmt.Sprintf("terminal[%d].", len(terminals))
			terminals = append(terminals, to)
		case "terminal.zvt":
			to, path = make(map[string]any), fmt.Sprintf("terminal[%d].zvt.", len(terminals)-1)
			terminals[len(terminals)-1]["zvt"] = to
		default:
			to, path = make(map[string]any), t.name+"."
			object[t.name] = to
		}
		for _, k := range t.keys {
			to[k.key] = k.value
			if k.from != "" {
				from[path+k.key] = k.from
			}
		}
	}
	object["terminal"] = terminals
	return object
}
