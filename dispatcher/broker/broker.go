// Package broker is an MQTT broker inside the dispatcher's process, so that a
// newcomer needs none: a NATS server with its MQTT side open and nothing else.
//
//	agents --- MQTT (TLS) ---> listener ---+
//	                                       +--- NATS server, JetStream in StoreDir
//	dispatcher --- MQTT, loopback ---------+
//
// Every message that it has acknowledged is on disk, synced. The same engine
// runs as a cluster, where one machine is not enough.
//
// Topics become subjects: a slash is a dot there.
package broker

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// startWait is how long the server may take to read what it has stored.
	startWait = time.Minute
	// cloudUser is whom the dispatcher logs in as where there are users.
	cloudUser = "dispatcher"
	loopback  = "127.0.0.1"
)

// Options of a Server.
type Options struct {
	StoreDir string      // made if it does not exist
	Listen   string      // host:port for agents; port 0: any
	TLS      *tls.Config // nil: plain
	Prefix   string      // of all topics; what users may do depends on it
	Users    []User      // none: everybody may do everything, on loopback only
	Log      *slog.Logger
}

// User is an agent's name and password. It may act for its terminals only.
type User struct {
	Name      string
	Password  string
	Terminals []string
}

// Server is a running broker.
type Server struct {
	server   *server.Server
	addr     string
	url      string
	password string
}

// Start starts a broker and returns when it takes connections.
func Start(o Options) (*Server, error) {
	s, err := start(o)
	if err != nil {
		return nil, fmt.Errorf("start embedded broker: %w", err)
	}
	return s, nil
}

func start(o Options) (*Server, error) {
	host, port, err := o.listen()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.StoreDir, 0o700); err != nil {
		return nil, err
	}
	s := &Server{password: rand.Text()}
	options := &server.Options{
		ServerName: "terminal-dispatcher",
		DontListen: true, // no NATS clients
		NoSigs:     true, // signals are the program's
		JetStream:  true,
		StoreDir:   o.StoreDir,
		SyncAlways: true, // what is acknowledged survives the power
		Users:      o.users(s.password),
		MQTT:       server.MQTTOpts{Host: host, Port: port, TLSConfig: o.TLS},
		// Each subscription at QoS 1 is a consumer of one stream; the default of
		// 1000 would leave the agents beyond it deaf.
		JetStreamLimits: server.JSLimitOpts{DefaultMaxConsumers: -1},
	}
	if o.TLS != nil {
		// The agents' listener has a name in its certificate that is not
		// loopback's: the dispatcher comes in by a plain one.
		options.Websocket = server.WebsocketOpts{Host: loopback, Port: -1, NoTLS: true}
	}
	if s.server, err = server.NewServer(options); err != nil {
		return nil, err
	}
	log := &logger{log: o.Log, fatal: make(chan string, 1)}
	s.server.SetLoggerV2(log, false, false, false)
	s.server.Start()
	if err := s.ready(log.fatal); err != nil {
		s.Close()
		return nil, err
	}
	s.addr = net.JoinHostPort(host, strconv.Itoa(options.MQTT.Port))
	s.url = "tcp://" + s.addr
	if o.TLS != nil {
		s.url = fmt.Sprintf("ws://%s:%d/mqtt", loopback, options.Websocket.Port)
	}
	return s, nil
}

// Check returns an error if the options can never work: then Start returns the same.
func (o Options) Check() error {
	_, _, err := o.listen()
	return err
}

func (o Options) listen() (host string, port int, err error) {
	host, service, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return "", 0, fmt.Errorf("listen address %q: want host:port", o.Listen)
	}
	if port, err = strconv.Atoi(service); err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("listen address %q: port is %q, want 0 to 65535", o.Listen, service)
	}
	if ip := net.ParseIP(host); len(o.Users) == 0 && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", 0, fmt.Errorf("listen address %q: without users it has to be a loopback address, such as 127.0.0.1:1883", o.Listen)
	}
	if port == 0 {
		port = -1 // the server's word for any; 0 is no listener
	}
	return host, port, o.checkUsers()
}

// word is what may stand in a user's topics: nothing that means something in a subject.
var word = regexp.MustCompile(`^[A-Za-z0-9_/-]+$`)

func (o Options) checkUsers() error {
	if !word.MatchString(o.Prefix) {
		return fmt.Errorf("prefix %q: want letters, digits, _, - and /", o.Prefix)
	}
	seen := map[string]bool{cloudUser: true}
	for _, u := range o.Users {
		switch {
		case u.Name == "" || u.Password == "":
			return fmt.Errorf("user %q: want a name and a password", u.Name)
		case seen[u.Name]:
			return fmt.Errorf("user %q: the name is taken", u.Name)
		case len(u.Terminals) == 0:
			return fmt.Errorf("user %q: has no terminals", u.Name)
		}
		seen[u.Name] = true
		for _, id := range u.Terminals {
			if !word.MatchString(id) || strings.Contains(id, "/") {
				return fmt.Errorf("user %q: %q is not a terminal id", u.Name, id)
			}
		}
	}
	return nil
}

// users returns nil where everybody is let in.
func (o Options) users(password string) []*server.User {
	if len(o.Users) == 0 {
		return nil
	}
	prefix := strings.ReplaceAll(o.Prefix, "/", ".")
	users := []*server.User{{Username: cloudUser, Password: password, Permissions: &server.Permissions{
		Publish:   allow(prefix+".*.commands", prefix+".*.welcome"),
		Subscribe: allow(prefix+".*.reports", prefix+".*.presence", prefix+".*.hello"),
	}}}
	for _, u := range o.Users {
		var publish, subscribe []string
		for _, id := range u.Terminals {
			topic := prefix + "." + id
			publish = append(publish, topic+".reports", topic+".presence", topic+".hello")
			subscribe = append(subscribe, topic+".commands", topic+".welcome")
		}
		users = append(users, &server.User{Username: u.Name, Password: u.Password, Permissions: &server.Permissions{
			Publish: allow(publish...), Subscribe: allow(subscribe...),
		}})
	}
	return users
}

func allow(subjects ...string) *server.SubjectPermission {
	return &server.SubjectPermission{Allow: subjects}
}

// ready waits until connections are taken. The server does not return what goes
// wrong while it starts: it logs it.
func (s *Server) ready(fatal <-chan string) error {
	for deadline := time.Now().Add(startWait); time.Now().Before(deadline); {
		select {
		case why := <-fatal:
			return errors.New(why)
		default:
		}
		if s.server.ReadyForConnections(250 * time.Millisecond) {
			return nil
		}
	}
	return fmt.Errorf("not ready within %v", startWait)
}

// Addr is where agents connect, host:port.
func (s *Server) Addr() string { return s.addr }

// URL is where the dispatcher of this process connects.
func (s *Server) URL() string { return s.url }

// Credentials are what the dispatcher of this process logs in with. They are
// new at every start, and not asked for where there are no users.
func (s *Server) Credentials() (username, password string) { return cloudUser, s.password }

// Close ends all connections and returns when everything is on disk.
func (s *Server) Close() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}

// logger passes on what the server logs. It never ends the program.
type logger struct {
	log   *slog.Logger
	once  sync.Once
	fatal chan string // the first fatal message
}

func (l *logger) Fatalf(format string, v ...any) {
	l.once.Do(func() { l.fatal <- fmt.Sprintf(format, v...) })
}
func (l *logger) Errorf(format string, v ...any) { l.log.Error("broker: " + fmt.Sprintf(format, v...)) }
func (l *logger) Warnf(format string, v ...any)  { l.log.Warn("broker: " + fmt.Sprintf(format, v...)) }
func (l *logger) Noticef(format string, v ...any) {
	l.log.Debug("broker: " + fmt.Sprintf(format, v...))
}
func (l *logger) Debugf(string, ...any) {} // not asked for: see SetLoggerV2
func (l *logger) Tracef(string, ...any) {}
