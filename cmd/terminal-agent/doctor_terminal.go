package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"terminalops/agent"
	"terminalops/device/link"
	"terminalops/device/trace"
	"terminalops/device/zvt"
	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
)

// otherRates are the speeds at which terminals are found, the likely ones first.
var otherRates = []int{115200, 9600, 19200, 57600, 38400}

// terminalPatience is how long one terminal may take. It leaves time for the rest
// of the report.
const terminalPatience = 45 * time.Second

// sightings are what was seen of each terminal, for the bundle.
type sightings struct {
	mu  sync.Mutex
	all map[string]zvt.Sighting
}

func (s *sightings) add(id string, seen zvt.Sighting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[string]zvt.Sighting)
	}
	s.all[id] = seen
}

// terminals looks at every terminal, side by side: each has a link of its own.
// After it an agent may start.
func (d *doctor) terminals(ctx context.Context) (found []finding) {
	defer d.service.release()
	perTerminal := make([][]finding, len(d.c.Terminals))
	var all sync.WaitGroup
	for i, t := range d.c.Terminals {
		all.Go(func() { perTerminal[i] = d.terminal(ctx, t) })
	}
	all.Wait()
	for _, f := range perTerminal {
		found = append(found, f...)
	}
	return found
}

// terminal looks at one. While the service runs, the port is the service's: it
// may start an operation at any moment.
func (d *doctor) terminal(ctx context.Context, t terminalConfig) []finding {
	if d.service.blind != nil {
		return []finding{skipped("terminal", t.ID, "it cannot be known whether the service is at it")}
	}
	if d.service.runs {
		found := portWithoutOpening(t)
		if device, _ := deviceOf(t); device == "" && t.address.Kind() != link.TCP {
			return append(found, skipped("terminal", t.ID, "there is no port to ask it at"))
		}
		return append(found, d.laneFinding(t))
	}
	ctx, cancel := context.WithTimeout(ctx, terminalPatience)
	defer cancel()
	seen, err := zvt.Probe(ctx, d.zvtOptions(t), zvt.Line{
		Open: func(ctx context.Context, baud int) (frame.Stream, error) {
			return link.Open(ctx, t.address, link.Options{Baud: baud, StopBits: t.StopBits})
		},
		Others: otherRates,
		Keep:   func(text string) { d.keep(t.ID, text) },
	})
	if err != nil {
		says, advice := advisePort(t, err)
		return []finding{failure(portCheck(t), t.ID, says, advice)}
	}
	d.sightings.add(t.ID, seen)
	found := []finding{good(portCheck(t), t.ID, "%s can be opened", t.address)}
	if why, advice := d.portHidden(t); why != "" {
		found[0] = failure(portCheck(t), t.ID, why, advice)
	}
	f := terminalFinding(t, seen)
	if len(seen.Heard) > 0 {
		f.Says += fmt.Sprintf("; when it was asked it told of something that it did on its own account, an end of day for one: %s", strings.Join(seen.Heard, " "))
		f.Advice = strings.TrimSpace(f.Advice + " Tell the office: no report has this")
		f.Verdict = worst(f.Verdict, verdictWarning)
	}
	return append(found, f)
}

// zvtOptions are those of newLane, without its link.
func (d *doctor) zvtOptions(t terminalConfig) zvt.Options {
	return zvt.Options{
		Serial: t.address.Kind() != link.TCP, Baud: t.Baud,
		T1: time.Duration(t.ZVT.T1), T3: time.Duration(t.ZVT.T3),
		Password: t.ZVT.Password, Currency: t.ZVT.Currency, ConfigByte: byte(*t.ZVT.ConfigByte), Receipt: t.ZVT.Receipt,
		Location: t.location, Tap: d.tap, Lane: t.ID,
	}
}

// saidFile is where in the state directory stands what a terminal says only once,
// and said to the doctor.
const saidFile = "said-to-doctor.txt"

// keep puts on disk what a terminal said on its own account. If it cannot be
// written it still stands in the report.
func (d *doctor) keep(id, text string) {
	f, err := os.OpenFile(d.inStateDir(saidFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintf(d.p.stderr, "%s %s says: %s\n", time.Now().Format(time.RFC3339), id, text)
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "%s %s %s\n", time.Now().UTC().Format(time.RFC3339), id, text)
	f.Sync()
}

func (d *doctor) inStateDir(name string) string { return filepath.Join(d.c.StateDir, name) }

// portCheck names the check of a link.
func portCheck(t terminalConfig) string {
	if t.address.Kind() == link.TCP {
		return "network"
	}
	return "port"
}

// device is the device file or name behind a serial or USB link, if it is there.
func deviceOf(t terminalConfig) (name string, all []link.Port) {
	all, err := link.List()
	if err != nil {
		return "", nil
	}
	for _, p := range all {
		if t.address.Matches(p) {
			return p.Name, all
		}
	}
	if path, isSerial := strings.CutPrefix(t.address.String(), string(link.Serial)+":"); isSerial {
		if _, err := os.Stat(path); err == nil {
			return path, all
		}
	}
	return "", all
}

func (d *doctor) portHidden(t terminalConfig) (why, advice string) {
	if t.address.Kind() == link.TCP {
		return "", ""
	}
	device, _ := deviceOf(t)
	if device == "" {
		return "", ""
	}
	return portHiddenFromService(device)
}

// portWithoutOpening says whether the port is there, which needs no opening.
func portWithoutOpening(t terminalConfig) []finding {
	if t.address.Kind() == link.TCP {
		return nil
	}
	device, all := deviceOf(t)
	if device == "" {
		return []finding{failure("port", t.ID, "is not there: "+t.address.String(), adviseAbsent(all))}
	}
	if why, advice := portHiddenFromService(device); why != "" {
		return []finding{failure("port", t.ID, why, advice)}
	}
	return []finding{good("port", t.ID, "%s is there", device)}
}

func adviseAbsent(all []link.Port) string {
	if len(all) == 0 {
		return "this PC has no serial port at all now: is the terminal switched on, and its cable plugged in at both ends?"
	}
	var names []string
	for _, p := range all {
		names = append(names, p.String())
	}
	return "is the terminal switched on, and its cable plugged in? There are: " + strings.Join(names, ", ") + ". If one of these is the terminal, write it as link"
}

// advisePort says why a link could not be opened.
func advisePort(t terminalConfig, err error) (says, advice string) {
	var busy *link.BusyError
	host := strings.TrimPrefix(t.address.String(), "tcp:")
	_, all := deviceOf(t)
	isTCP := t.address.Kind() == link.TCP
	switch {
	case errors.As(err, &busy):
		advice = "that is most likely the till. During a payment this is as it should be: try again. A till that never lets go needs the terminal's second interface"
		if busy.Holder == "" {
			advice = "close whatever uses it; as root more can be seen. " + advice
		}
		return busy.Error(), advice
	case errors.Is(err, fs.ErrNotExist) && !isTCP:
		return "is not there: " + t.address.String(), adviseAbsent(all)
	case errors.Is(err, fs.ErrPermission):
		return err.Error(), needsRights + ". For the service: it has to be in that group"
	case !isTCP:
		return err.Error(), "is this the right port? There are: " + describePorts(all)
	case errors.Is(err, connectionRefused):
		return host + " refuses the connection: a device is there, and does not listen on this port",
			"at the terminal, switch on the ECR interface (Kasse, ZVT over TCP) and compare its port; only one program may be connected at a time: is the till?"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return host + " does not answer", "is the terminal switched on, in this network, and is this its address? Its menu shows it. A terminal should have a fixed one"
	default:
		return err.Error(), "is the address in link right, and is this PC on the same network as the terminal?"
	}
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

func describePorts(all []link.Port) string {
	var names []string
	for _, p := range all {
		names = append(names, p.String())
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// laneFinding is what the service says of a terminal.
func (d *doctor) laneFinding(t terminalConfig) finding {
	const check = "terminal"
	const deeper = "for a closer look: terminal-agent service stop, then doctor again, then terminal-agent service start"
	lane := d.service.lane(t.ID)
	switch {
	case lane == nil && d.service.status != nil:
		return warning(check, t.ID, "the service does not serve this terminal", "it was started with another configuration: terminal-agent service restart")
	case lane == nil:
		return skipped(check, t.ID, "the port is the service's while it runs; "+deeper)
	case lane.Working != nil:
		return good(check, t.ID, "the service is at work: %s, %s", lane.Working.Operation, orElse(lane.Working.Message, "no news yet"))
	}
	return laneState(check, t.ID, lane, deeper)
}

func laneState(check, id string, lane *agent.LaneStatus, deeper string) finding {
	says := "the service has not asked it yet"
	if lane.Device.State != "" {
		about := strings.TrimSpace(lane.Device.Model + " " + lane.Device.SoftwareVersion)
		says = strings.TrimSuffix("the service says: "+lane.Device.State+", "+about, ", ")
		if detail := plainDetail(lane.Device); detail != "" {
			says += ": " + detail
		}
	}
	switch lane.Device.State {
	case "ready":
		return good(check, id, "%s", says)
	case "unreachable":
		return failure(check, id, says, "look at cable and power; "+deeper)
	case "busy":
		return warning(check, id, says, "wait until the terminal is free, then look again")
	default:
		f := skipped(check, id, says)
		f.Advice = deeper
		return f
	}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// terminalFinding puts a sighting into words.
func terminalFinding(t terminalConfig, s zvt.Sighting) finding {
	const check = "terminal"
	if s.Speech != zvt.SpeechZVT {
		says, advice := adviseSpeech(t, s)
		return failure(check, t.ID, says, advice)
	}
	if s.Baud != 0 && s.Baud != t.Baud {
		return failure(check, t.ID, fmt.Sprintf("answers at %d baud, not at the configured %d", s.Baud, t.Baud), fmt.Sprintf("write baud = %d for this terminal", s.Baud))
	}
	if s.Refused != nil {
		says, advice := adviseRefusal(*s.Refused)
		return failure(check, t.ID, says, advice)
	}
	if s.Busy || !s.Asked && s.Doing != "" {
		says := "is busy: it answers, and does not say how it is"
		if s.Doing != "" {
			says += fmt.Sprintf("; it shows %q", s.Doing)
		}
		return warning(check, t.ID, says, "wait until nobody uses it, no menu is open and no update runs; then try again. If it stays so, switch it off and on")
	}
	about := trace.Mask(strings.TrimSpace(strings.Join([]string{s.Device.Model, s.Device.SoftwareVersion}, " ")))
	about = strings.TrimSuffix("ZVT "+about, " ")
	if s.Status != apdu.StatusReady {
		verdict, advice := adviseStatus(s.Status)
		return finding{Check: check, Subject: t.ID, Verdict: verdict, Says: fmt.Sprintf("%v (%02X), %s", s.Status, byte(s.Status), about), Advice: advice}
	}
	if advice := adviseRegistered(s.Registered); advice != "" {
		return warning(check, t.ID, fmt.Sprintf("is registered, and says that something is needed (%02X), %s", s.Registered, about), advice)
	}
	return good(check, t.ID, "ready, %s", about)
}

// adviseSpeech says what else is at the end of the link.
func adviseSpeech(t terminalConfig, s zvt.Sighting) (says, advice string) {
	const onTerminal = "in the terminal's menu, set the ECR interface (Kasse) to ZVT"
	wrong := func(what string) (string, string) {
		return fmt.Sprintf("the device speaks %s, not ZVT", what), onTerminal + ", or call its provider: the protocol is often set from there"
	}
	serial := t.address.Kind() != link.TCP
	switch s.Speech {
	case zvt.SpeechSilence:
		if serial {
			return fmt.Sprintf("nobody answers on this port, at %d baud or any other speed", t.Baud),
				"is the terminal on, and the cable in the right socket of it, and no extension or null modem cable where none belongs? Then: " + onTerminal + " over this cable. Is it the right port?"
		}
		return "the connection stands, but nobody answers on it", onTerminal + "; is it the terminal that has this address, or the till's own connection in the way?"
	case zvt.SpeechEcho:
		return "our own bytes come back", "nothing is at the other end but a plug or a device that repeats: is this the terminal's cable?"
	case zvt.SpeechUnheard:
		return "the terminal acknowledges what it hears, and does not answer", "it is starting, updating or hanging: wait five minutes, then switch it off and on"
	case zvt.SpeechRejected:
		return "the terminal hears us damaged", fmt.Sprintf("compare speed, parity (none) and stop bits (%d) with the terminal's menu; try another cable, shorter, away from power lines", t.StopBits)
	case zvt.SpeechDamaged:
		return fmt.Sprintf("ZVT arrives damaged (%s)", s.Bytes), fmt.Sprintf("compare parity (none) and stop bits (%d) with the terminal's menu; try another cable or USB adapter", t.StopBits)
	case zvt.SpeechUnreadable:
		if serial {
			return fmt.Sprintf("what arrives makes no sense at %d baud or any other speed (%s)", t.Baud, s.Bytes), "look up the speed in the terminal's menu and write it as baud; parity has to be none. If these are right: another cable, and is it the terminal at this port?"
		}
		return fmt.Sprintf("what answers is no terminal that we know (%s)", s.Bytes), "is this the terminal's address and port? If so: " + onTerminal
	case zvt.SpeechUnframed:
		return "the terminal speaks ZVT without frames, as over a network (" + s.Bytes + ")", "in the terminal's menu, set the ECR interface to serial (RS232, USB), not to TCP/IP"
	case zvt.SpeechFramed:
		return "the terminal speaks ZVT in frames, as over a serial line (" + s.Bytes + ")", "in the terminal's menu, set the ECR interface to TCP/IP; behind a serial-to-network converter give the agent the serial line itself"
	case zvt.SpeechPrefixed:
		return "the device puts a length before each message, which is not ZVT (" + s.Bytes + ")", "it is a program that imitates a terminal, or set to a maker's own protocol: " + onTerminal
	case zvt.SpeechKIT:
		return wrong("PayTec KIT (JSON)")
	case zvt.SpeechECR17:
		return wrong("ECR17, the Italian protocol")
	case zvt.SpeechYomani:
		return wrong("the Swiss protocol of Yomani")
	case zvt.SpeechTLS:
		return "TLS is spoken on this port", "the terminal has another port for plain ZVT, often 20007 or 22000: " + onTerminal + " without encryption"
	case zvt.SpeechHTTP:
		return "a web server is on this port", "that is not the terminal's ECR port: compare it with the terminal's menu, often 20007"
	case zvt.SpeechSSH:
		return "a computer answers here (SSH), not a terminal", "correct host and port in link"
	case zvt.SpeechText:
		return fmt.Sprintf("a device answers in text (%s): a modem, a scanner, a computer's console", s.Bytes), "the terminal is at another port: compare link with the ports of this PC"
	default:
		return fmt.Sprintf("%s (%s)", s.Speech, s.Bytes), onTerminal
	}
}

// adviseRefusal says why a registration or status enquiry was refused.
func adviseRefusal(c apdu.Code) (says, advice string) {
	says = "refuses to talk: " + c.Error()
	switch c {
	case apdu.CodeWrongPassword:
		return says, "set password under [terminal.zvt] to the terminal's own (often 000000); ask its provider. It was not tried twice"
	case apdu.CodeWrongCurrency:
		return says, "set currency under [terminal.zvt] to the terminal's: 978 is EUR, 756 is CHF"
	case apdu.CodeReceiverNotReady:
		return says, "the terminal is not set up yet: have its provider put it into service"
	default:
		return says, "what it says stands on its display, too; its provider knows the code"
	}
}

// adviseStatus is what to do about a status that is not ready (zvt.md 4.3).
func adviseStatus(c apdu.StatusCode) (verdict, string) {
	switch c {
	case apdu.StatusPleaseWait:
		return verdictWarning, "it is at something: a payment, its menu, an update. Wait, then try again"
	case apdu.StatusRemoteMaintenance:
		return verdictWarning, "an update runs: leave it on, and try again in half an hour"
	case apdu.StatusCardInserted, apdu.StatusCardNotRemoved:
		return verdictWarning, "pull the card out, then try again"
	case apdu.StatusInitialisation:
		return verdictFailed, "in the terminal's menu, start Initialisation; it needs its network for that"
	case apdu.StatusReconciliation:
		return verdictFailed, "an end of day is due before anything else: at the terminal, or from the office"
	case apdu.StatusMemoryFull, apdu.StatusJournalFull:
		return verdictFailed, "do an end of day; if it is still full then, call its provider"
	case apdu.StatusDiagnosis:
		return verdictFailed, "in the terminal's menu, start the network diagnosis (Netzdiagnose)"
	case apdu.StatusDateTime:
		return verdictFailed, "in the terminal's menu, start the network diagnosis, which sets its clock"
	case apdu.StatusCardProfile:
		return verdictFailed, "the terminal needs new card profiles: start its update, or call its provider"
	case 0xC1:
		return verdictFailed, "the terminal is locked: start the network diagnosis in its menu; if it stays locked, its provider has to unlock it"
	case apdu.StatusOutOfOrder, 0xBF, 0xC0, 0xE2:
		return verdictFailed, "switch it off and on; if it says so again, it is defective: call its provider"
	case 0xCC:
		return verdictFailed, "put paper in and close the lid"
	case 0xE4, 0xF6:
		return verdictFailed, "the terminal has to be activated by its provider"
	default:
		return verdictFailed, "what it wants stands on its display; its provider knows the code"
	}
}

// adviseRegistered is what to do about the status byte of a registration ([S15]
// 2.1).
func adviseRegistered(b byte) string {
	const initialisation, diagnosis, opt = 0x01, 0x02, 0x04
	switch {
	case b&initialisation != 0:
		return "in the terminal's menu, start Initialisation"
	case b&diagnosis != 0:
		return "in the terminal's menu, start the network diagnosis (Netzdiagnose)"
	case b&opt != 0:
		return "its provider has to load what it lacks (OPT)"
	default:
		return ""
	}
}
