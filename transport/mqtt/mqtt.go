// Package mqtt is the transport over MQTT 3.1.1: the agent's end, one per
// terminal, and the dispatcher's.
//
//	Run --+-- connect: URL, proxy, TLS, WebSocket    dial.go, proxy.go
//	      |   CONNECT (last will), SUBSCRIBE         link.go
//	      |      |
//	      |   serve: Connected, Receive, Send        link.go
//	      |      |
//	      +-- pause: 1 s growing to 30 s, jittered   session.go
//
// The MQTT client library is used for the codec of one connection only. All
// that keeps a promise is here and in the packages above: connecting again,
// subscribing again, what may be acknowledged, what counts as sent. So nothing
// of the library outlives its connection, and nothing is resent behind the back
// of whoever called Send.
//
//	broker --> packetReader --> library --> inbox --> Receive --> PUBACK
//	           cuts what is                 keeps     one at
//	           too large                    order     a time
//
// Every connection asks for the stored session of its client id (clean session
// off) and subscribes again. A subscription that is refused, or granted at less
// than QoS 1, is an error and the connection is given up: an end is never
// connected and deaf.
//
// After Receive has failed the connection goes on for [Options].RedeliverAfter,
// so that presence can still say what is wrong; then it is closed in good order
// and made again, which makes the broker deliver again what was not
// acknowledged.
//
// When the context of Run ends, that of Connected does too, but the connection
// stands until Connected has returned and what is being sent is acknowledged,
// for two seconds at most: a last word can still be said. It is then closed
// with DISCONNECT, so the last will is not published.
package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"terminalops/transport"
)

// Options say which broker, and how to get there. Zero timings are defaults.
type Options struct {
	URLs     []string // tried in turn: tcp, tls, ws, wss; mqtt and mqtts are tcp and tls
	Prefix   string   // of all topics
	CAFile   string   // PEM; empty: the system's
	CertFile string   // PEM, with KeyFile: mutual TLS
	KeyFile  string
	Username string
	Password Secret
	// Proxy is the URL of an HTTP CONNECT (http, https) or SOCKS5 (socks5)
	// proxy, with name and password if it wants any. Empty: what HTTPS_PROXY
	// (for tls and wss), HTTP_PROXY and NO_PROXY say.
	Proxy  Secret
	Logger *slog.Logger // nil: slog.Default()

	KeepAlive      time.Duration // 30 s, whole seconds; see PingTimeout
	PingTimeout    time.Duration // 10 s; a silent broker is noticed after KeepAlive + PingTimeout + 5 s
	ConnectTimeout time.Duration // 10 s, from dialling to the granted subscription
	WriteTimeout   time.Duration // 10 s, for each write
	FirstPause     time.Duration // 1 s: longest pause before the second attempt
	LongestPause   time.Duration // 30 s: what the longest pause grows to
	RedeliverAfter time.Duration // 30 s
}

// Secret is a text that is not printed.
type Secret string

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "(secret)"
}

// GoString hides the secret.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the secret, from structured logs too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Agent returns the end of a terminal: its session has the terminal's id.
func Agent(o Options, terminalID string) transport.End {
	return newEnd(o, terminalID, terminalID, transport.Commands, transport.Welcome)
}

// cloudKeepAlive: an agent speaks every 20 s, and 60 s of silence are TIMEOUT.
// A dead line has to be noticed within the difference, or our own deafness is
// taken for the terminals' silence: 15 + PingTimeout + 5 s.
const cloudKeepAlive = 15 * time.Second

// Cloud returns the dispatcher's end. Two dispatchers at one broker need two
// client ids.
func Cloud(o Options, clientID string) transport.End {
	if o.KeepAlive == 0 {
		o.KeepAlive = cloudKeepAlive
	}
	return newEnd(o, clientID, "+", transport.Reports, transport.Presence, transport.Hello)
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	for _, d := range []struct {
		have *time.Duration
		want time.Duration
	}{
		{&o.KeepAlive, 30 * time.Second},
		{&o.PingTimeout, 10 * time.Second},
		{&o.ConnectTimeout, 10 * time.Second},
		{&o.WriteTimeout, 10 * time.Second},
		{&o.FirstPause, time.Second},
		{&o.LongestPause, 30 * time.Second},
		{&o.RedeliverAfter, 30 * time.Second},
	} {
		if *d.have == 0 {
			*d.have = d.want
		}
	}
	return o
}

// Check returns an error, which names the key of the configuration, if the
// options can never work: then Run returns the same.
func (o Options) Check() error {
	if len(o.URLs) == 0 {
		return errors.New(`broker.urls: no URL; expected one such as "tls://broker.example.com:8883"`)
	}
	for i, raw := range o.URLs {
		if _, err := parseBroker(raw); err != nil {
			return fmt.Errorf("broker.urls[%d]: %w", i, err)
		}
	}
	if err := checkPrefix(o.Prefix); err != nil {
		return fmt.Errorf("broker.prefix: %w", err)
	}
	if o.Username == "" && o.Password != "" {
		return errors.New("broker.username: empty, but there is a password")
	}
	if _, err := parseProxy(o.Proxy); err != nil {
		return fmt.Errorf("broker.proxy: %w", err)
	}
	if o.KeepAlive != 0 && o.KeepAlive < time.Second {
		return fmt.Errorf("broker.keep_alive: %v, expected at least 1s", o.KeepAlive)
	}
	_, err := o.tlsConfig("")
	return err
}

// checkPrefix accepts what may stand before "/id/kind" in a topic.
func checkPrefix(prefix string) error {
	for level := range strings.SplitSeq(prefix, "/") {
		if level == "" || strings.ContainsAny(level, "+#\x00") {
			return fmt.Errorf("%q, expected words with / between, without + and #", prefix)
		}
	}
	return nil
}

// defaultPorts are also the schemes there are.
var defaultPorts = map[string]string{"tcp": "1883", "tls": "8883", "ws": "80", "wss": "443"}

// parseBroker reads a broker's URL; the result has a port and no alias.
func parseBroker(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("not a URL: %w", withoutURL(err))
	}
	switch u.Scheme {
	case "mqtt":
		u.Scheme = "tcp"
	case "mqtts":
		u.Scheme = "tls"
	}
	port, known := defaultPorts[u.Scheme]
	switch {
	case u.User != nil: // first: everything below prints the URL
		return nil, errors.New("name and password do not belong in the URL: use username and password_file")
	case !known:
		return nil, fmt.Errorf("%q: expected tcp://, tls://, ws:// or wss://", raw)
	case u.Hostname() == "":
		return nil, fmt.Errorf("%q: no host", raw)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, nil
}

// withoutURL takes the URL, which may hold a password, out of a url.Error.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// tlsConfig reads the certificates. It is asked for every connection, so that
// renewed ones need no restart.
func (o Options) tlsConfig(serverName string) (*tls.Config, error) {
	c := &tls.Config{ServerName: serverName, MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("broker.ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("broker.ca_file: %s: no certificate in PEM form", o.CAFile)
		}
	}
	switch {
	case o.CertFile == "" && o.KeyFile == "":
		return c, nil
	case o.CertFile == "":
		return nil, errors.New("broker.cert_file: empty, but there is a key_file")
	case o.KeyFile == "":
		return nil, errors.New("broker.key_file: empty, but there is a cert_file")
	}
	pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("broker.cert_file, broker.key_file: %w", err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}
