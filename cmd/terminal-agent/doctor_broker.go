package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"time"

	"terminalops/transport"
	"terminalops/transport/mqtt"
)

// visitors is how many terminals are asked for at the broker at a time.
const visitors = 8

// brokers goes to every broker, and speaks for every terminal with the first that
// can be reached, as the agent would.
func (d *doctor) brokers(ctx context.Context) (found []finding) {
	routes := make([]mqtt.Route, len(d.c.Broker.URLs))
	options, err := brokerOptions(d.c.Broker, terminalConfig{}, slog.New(slog.DiscardHandler))
	if err != nil {
		return []finding{skipped("broker", "", "its password cannot be read")}
	}
	var all sync.WaitGroup
	for i, u := range d.c.Broker.URLs {
		all.Go(func() { routes[i] = options.Survey(ctx, u) })
	}
	all.Wait()
	reached := ""
	for i, r := range routes {
		if r.Ended == "" && reached == "" {
			reached = d.c.Broker.URLs[i]
		}
	}
	for _, r := range routes {
		found = append(found, routeFindings(r, options, reached != "")...)
	}
	return append(found, d.visits(ctx, reached)...)
}

// visits speaks for every terminal, some at a time.
func (d *doctor) visits(ctx context.Context, broker string) (found []finding) {
	perTerminal := make([][]finding, len(d.c.Terminals))
	turn := make(chan struct{}, visitors)
	var all sync.WaitGroup
	for i, t := range d.c.Terminals {
		all.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			perTerminal[i] = d.visit(ctx, broker, t)
		})
	}
	all.Wait()
	for _, f := range perTerminal {
		found = append(found, f...)
	}
	return found
}

// legChecks names the checks of a route.
var legChecks = map[mqtt.Leg]string{
	mqtt.LegName: "name", mqtt.LegTCP: "connection", mqtt.LegProxy: "proxy", mqtt.LegTLS: "TLS", mqtt.LegWebSocket: "WebSocket",
}

// routeFindings says what was seen on the way to a broker. Where another one can
// be reached, one that cannot is a warning.
func routeFindings(r mqtt.Route, o mqtt.Options, another bool) (found []finding) {
	for _, leg := range r.Passed {
		says := "right"
		switch leg {
		case mqtt.LegName:
			says = strings.Join(r.Addresses, ", ")
		case mqtt.LegTCP:
			says = "to " + r.Host
			if r.Proxy != "" {
				says += ", the proxy"
			}
		case mqtt.LegTLS:
			says = "the certificate is valid until " + day(r.Certificates[0].NotAfter)
		}
		f := good(legChecks[leg], r.Broker, "%s", says)
		if leg == mqtt.LegTLS && time.Now().Add(soon/2).After(r.Certificates[0].NotAfter) {
			f = warning(f.Check, f.Subject, says, "tell the office: it ends soon")
		}
		found = append(found, f)
	}
	if r.Ended == "" {
		return found
	}
	says, advice := adviseRoute(r, o, time.Now())
	f := failure(legChecks[r.Ended], r.Broker, says, advice)
	if another {
		f.Verdict = verdictWarning
		f.Advice = "another broker can be reached. " + f.Advice
	}
	return append(found, f)
}

// adviseRoute says why a way ended, and what to do.
func adviseRoute(r mqtt.Route, o mqtt.Options, now time.Time) (says, advice string) {
	host, port, _ := net.SplitHostPort(r.Host)
	key := "broker.urls"
	if r.Proxy != "" && r.Ended != mqtt.LegTLS && r.Ended != mqtt.LegWebSocket {
		key = "proxy"
	}
	silent := errors.Is(r.Err, context.DeadlineExceeded)
	switch r.Ended {
	case mqtt.LegName:
		var dns *net.DNSError
		if errors.As(r.Err, &dns) && dns.IsNotFound {
			return "there is no " + host, "is it spelt right in " + key + "? If it is, this network's DNS does not know it: ask who looks after the network"
		}
		return fmt.Sprintf("the address of %s cannot be looked up (%v)", host, plainError(r.Err)), "is this PC on the network? Look at cable, Wi-Fi and router, and at the DNS server in its network settings"
	case mqtt.LegTCP:
		switch {
		case silent:
			return fmt.Sprintf("%s does not answer", r.Host), fmt.Sprintf("a firewall most likely swallows this: have outgoing TCP to port %s allowed, or set proxy under [broker]", port)
		case errors.Is(r.Err, connectionRefused):
			return fmt.Sprintf("%s refuses the connection: nothing listens on this port", r.Host), fmt.Sprintf("is port %s right in %s? If it is, the broker is down, or a firewall refuses: ask the office", port, key)
		}
		return plainError(r.Err), "is this PC on the network? Look at cable, Wi-Fi and router"
	case mqtt.LegProxy:
		if silent {
			return fmt.Sprintf("proxy %s is there and says nothing", r.Proxy), "is it a proxy, and of the kind that the setting proxy says?"
		}
		advice = "have it let this PC connect to " + r.Broker
		if strings.Contains(r.Err.Error(), "407") || strings.Contains(r.Err.Error(), "authentication") {
			advice = "it wants a name and a password, or other ones: in proxy under [broker], http://name:password@host:port"
		}
		return fmt.Sprintf("%v", r.Err), advice
	case mqtt.LegTLS:
		return adviseTLS(r, o, now)
	default:
		return fmt.Sprintf("%v", r.Err), "the path in broker.urls is not where the broker speaks WebSocket, or something on the way cuts it: ask the office"
	}
}

func adviseTLS(r mqtt.Route, o mqtt.Options, now time.Time) (says, advice string) {
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var notTLS tls.RecordHeaderError
	switch {
	case errors.As(r.Err, &invalid) && invalid.Reason == x509.Expired:
		cert := invalid.Cert
		if now.Before(cert.NotBefore) {
			return fmt.Sprintf("the clock of this PC says %s, but the broker's certificate is valid from %s on", now.Format(time.DateTime), day(cert.NotBefore)), setTheClock
		}
		return fmt.Sprintf("the broker's certificate has expired on %s; this PC's clock says %s", day(cert.NotAfter), now.Format(time.DateTime)),
			"if the clock is right, tell the office; if not: " + setTheClock
	case errors.As(r.Err, &name):
		return fmt.Sprintf("the certificate there is for %s, not for %s", strings.Join(namesOf(name.Certificate), ", "), name.Host),
			"write the name that the office has given into broker.urls, not an address; or it is another server"
	case errors.As(r.Err, new(x509.UnknownAuthorityError)):
		issuer := "somebody"
		if len(r.Certificates) > 0 {
			issuer = r.Certificates[len(r.Certificates)-1].Issuer.String()
		}
		advice = "if that is the office's own authority, ask for its file and name it as ca_file under [broker]; "
		if o.CAFile != "" {
			advice = "ca_file is not the authority of this broker: ask the office for the right file; "
		}
		return "the certificate there is signed by " + issuer + ", whom nobody here trusts",
			advice + "if you know the name as a firewall or virus scanner, that reads the traffic: have the broker excepted"
	case errors.As(r.Err, &notTLS):
		return "there is no TLS on this port", "is the port right? For a broker without TLS broker.urls has tcp:// or ws://"
	case strings.Contains(r.Err.Error(), "remote error: tls"):
		return fmt.Sprintf("the broker ends the handshake: %v", r.Err), "it may want a certificate of this PC: cert_file and key_file under [broker]; ask the office"
	case errors.Is(r.Err, context.DeadlineExceeded):
		return "the connection stands, but nobody answers in TLS", "is the port right? If it is, something on the way swallows TLS: ask who looks after the network"
	case errors.Is(r.Err, io.EOF), errors.Is(r.Err, connectionReset):
		return "the connection is cut as soon as TLS begins", "is the port right, and one with TLS? If it is, a firewall does not let TLS to this host pass: ask who looks after the network"
	default:
		return fmt.Sprintf("%v", r.Err), "tell the office this message"
	}
}

func namesOf(cert *x509.Certificate) (names []string) {
	names = append(names, cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		names = append(names, "no name")
	}
	return names
}

// plainError leaves out of a network error what the rest of the line says.
func plainError(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}

// visit speaks with the broker, and with the dispatcher behind it, as the
// terminal would: what the credentials are worth.
func (d *doctor) visit(ctx context.Context, broker string, t terminalConfig) []finding {
	if broker == "" {
		return []finding{skipped("credentials", t.ID, "no broker can be reached")}
	}
	options, err := brokerOptions(d.c.Broker, t, slog.New(slog.DiscardHandler))
	if err != nil {
		return []finding{skipped("credentials", t.ID, "the password cannot be read")}
	}
	call := mqtt.Call{
		ClientID:   doctorClientID(t.ID),
		TerminalID: t.ID,
		Hello: transport.HelloMessage{
			Nonce: "doctor-" + rand.Text(), JournalID: d.service.journalID(),
			Agent: transport.Program{Version: programVersion(), OS: runtime.GOOS, Arch: runtime.GOARCH},
		},
	}
	v := options.Visit(ctx, broker, call)
	if v.Ended == mqtt.LegConnect {
		says, advice := adviseConnect(v, options, call.ClientID)
		f := failure("credentials", t.ID, says, advice)
		if v.Code == codeClientID {
			f.Verdict = verdictWarning // of the terminal's own id this says nothing
		}
		if lane := d.service.lane(t.ID); lane != nil && lane.Connected {
			f = warning("credentials", t.ID, says, "the service is connected: the broker may know no other client than it, and then nothing is wrong")
		}
		return []finding{f}
	}
	found := []finding{good("credentials", t.ID, "the broker takes %s", credentialsOf(options))}
	if v.Ended != "" {
		return append(found, failure("topics", t.ID, fmt.Sprintf("%v", v.Err), "the broker may cut who subscribes to what is not permitted: ask the office to permit this terminal its topics"))
	}
	prefix := d.c.Broker.Prefix
	topics, deaf := topicFinding(v, prefix, t.ID)
	found = append(found, topics)
	if deaf {
		found = append(found, skipped("cloud", t.ID, "its answer could not be heard"))
	} else {
		found = append(found, cloudFinding(v, prefix, t.ID))
	}
	if v.Welcome != nil {
		found = append(found, clockFinding(v, t.ID))
	}
	return append(found, d.rivalFinding(v, t.ID, time.Now()))
}

// doctorClientID is one that nobody else has: two clients with one id would end
// each other's session. Letters, digits and '-' are what every broker takes.
func doctorClientID(terminalID string) string {
	return terminalID + "-doctor-" + strings.ToLower(rand.Text()[:8])
}

func credentialsOf(o mqtt.Options) string {
	var what []string
	if o.CertFile != "" {
		what = append(what, "the certificate")
	}
	if o.Username != "" {
		what = append(what, "the name "+o.Username+" and its password")
	}
	if len(what) == 0 {
		return "everybody: none are configured"
	}
	return strings.Join(what, ", ")
}

// codeClientID: the broker does not take the client id.
const codeClientID = 2

// adviseConnect says why a broker did not take us ([MQTT-3.1.1] 3.2.2.3).
func adviseConnect(v mqtt.Visit, o mqtt.Options, clientID string) (says, advice string) {
	wrong := "name or password is not this store's: look at username and password_file, and ask the office"
	if o.Username == "" && o.CertFile == "" {
		wrong = "the broker wants credentials: set username and password_file, or cert_file and key_file"
	} else if o.Username == "" {
		wrong = "the broker does not know this certificate: ask the office whether cert_file is this store's"
	}
	text := v.Err.Error()
	switch {
	case v.Code == 1:
		return "the broker does not speak MQTT 3.1.1", "ask the office"
	case v.Code == codeClientID:
		return "the broker does not take the client id " + clientID, "it may know terminal ids only; then this check cannot be made, and the service's log tells more"
	case v.Code == 3:
		return "the broker is there, but out of service", "try again later, or ask the office"
	case v.Code == 4, v.Code == 5:
		return fmt.Sprintf("the broker refuses %s (code %d: not authorised)", credentialsOf(o), v.Code), wrong
	case strings.Contains(text, "certificate required"):
		return "the broker wants a certificate of this PC", "set cert_file and key_file under [broker]; ask the office for them"
	case strings.Contains(text, "remote error: tls"):
		return "the broker does not take the certificate of this PC: " + text, "ask the office whether cert_file is this store's, and not withdrawn"
	case errors.Is(v.Err, context.DeadlineExceeded):
		return "the connection stands, but nobody answers in MQTT", "is the port right? If it is, the broker hangs: ask the office"
	case errors.Is(v.Err, io.EOF), strings.Contains(text, "EOF"), errors.Is(v.Err, connectionReset):
		return "the broker hangs up when it is given the credentials", wrong + ". Or this port is not MQTT"
	default:
		return text, "tell the office this message"
	}
}

// topicFinding says whether the terminal's commands can be heard. deaf: the
// welcome cannot.
func topicFinding(v mqtt.Visit, prefix, id string) (f finding, deaf bool) {
	const check = "topics"
	deaf = v.Granted[transport.Welcome] > 1
	for _, k := range []transport.Kind{transport.Commands, transport.Welcome} {
		topic := prefix + "/" + id + "/" + string(k)
		switch code := v.Granted[k]; {
		case code > 2:
			return failure(check, id, fmt.Sprintf("the broker does not let us read %s", topic),
				"is the terminal's id right, and prefix under [broker]? If they are, ask the office to permit this topic to these credentials"), deaf
		case code == 0:
			return failure(check, id, fmt.Sprintf("the broker grants %s without acknowledgement (QoS 0)", topic), "ask the office to allow QoS 1: the agent does not work without it"), deaf
		}
	}
	return good(check, id, "the broker grants commands and welcomes"), deaf
}

// cloudFinding says whether the dispatcher has answered a hello. Some brokers grant
// everything, and withhold in silence what is not permitted: Mosquitto with an
// acl_file is one.
func cloudFinding(v mqtt.Visit, prefix, id string) finding {
	const check = "cloud"
	topics := prefix + "/" + id + "/"
	topic := topics + string(transport.Hello)
	switch {
	case !v.Greeted:
		return failure(check, id, "the broker does not take a message on "+topic, "ask the office to permit these credentials to write to this terminal's topics")
	case v.Welcome == nil:
		return failure(check, id, "the broker is there, but nobody behind it answers a hello on "+topic,
			"is prefix under [broker] right? If it is, ask the office: whether the dispatcher runs, and whether these credentials may write to that topic and read "+topics+string(transport.Welcome))
	case len(v.Welcome.Pending) > 0:
		return good(check, id, "answers in %v; %s for this terminal", v.RoundTrip.Round(time.Millisecond), plural(len(v.Welcome.Pending), "pending operation"))
	default:
		return good(check, id, "answers in %v", v.RoundTrip.Round(time.Millisecond))
	}
}

// maxOffset is how wrong a PC's clock may be before it is worth a word. The agent
// reckons with the cloud's time; logs and certificates have the PC's.
const maxOffset = time.Minute

// clockFinding compares the PC's clock with the cloud's.
func clockFinding(v mqtt.Visit, id string) finding {
	ahead := v.WelcomeAt.Sub(v.Welcome.ServerTime.Time) - v.RoundTrip/2
	way, by := "ahead of", ahead
	if ahead < 0 {
		way, by = "behind", -ahead
	}
	if by <= maxOffset {
		return good("clock", id, "as the cloud's")
	}
	return warning("clock", id, fmt.Sprintf("this PC's clock is %v %s the cloud's", by.Round(time.Second), way), setTheClock)
}

// rivalFinding says whether another agent has the same terminal, by the presence
// that the broker keeps.
func (d *doctor) rivalFinding(v mqtt.Visit, id string, now time.Time) finding {
	const check = "another agent"
	p, ours := v.Presence, d.service.journalID()
	switch {
	case v.Granted[transport.Presence] > 1:
		return skipped(check, id, "the presence of this terminal may not be read with these credentials")
	case p == nil:
		return good(check, id, "none is known")
	case ours != "" && p.JournalID == ours:
		return good(check, id, "none but this one")
	case d.service.runs && ours == "", d.service.blind != nil:
		return skipped(check, id, "the service does not say which journal is its own")
	}
	who := "journal " + p.JournalID
	if p.Agent != nil {
		who = strings.TrimSpace(fmt.Sprintf("version %s on %s, %s", p.Agent.Version, p.Agent.OS, who))
	}
	if p.State == transport.Online {
		return failure(check, id, fmt.Sprintf("is online for this terminal: %s, at %s", who, when(p.At.Time)),
			"two agents with one terminal id take each other's connection: find the other PC and stop its service, or correct the id in one configuration")
	}
	return warning(check, id, "had this terminal before: "+who, "right if this PC or its journal was replaced; what the other had begun, the office has to clear up")
}
