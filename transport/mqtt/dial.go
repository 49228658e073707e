package mqtt

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// dial opens the byte stream to a broker: TCP or a proxy, then TLS and
// WebSocket as the URL says. ctx has a deadline.
func (o Options) dial(ctx context.Context, u *url.URL) (net.Conn, error) {
	config, err := o.tlsConfig(u.Hostname())
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "ws", "wss":
		return o.dialWebSocket(ctx, u, config)
	}
	conn, err := o.dialTCP(ctx, u)
	if err != nil || u.Scheme == "tcp" {
		return conn, err
	}
	return handshake(ctx, conn, config)
}

// handshake makes a TLS client of conn, which it closes if that fails.
func handshake(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

func (o Options) dialWebSocket(ctx context.Context, u *url.URL, config *tls.Config) (net.Conn, error) {
	d := websocket.Dialer{
		NetDialContext:  func(ctx context.Context, _, _ string) (net.Conn, error) { return o.dialTCP(ctx, u) },
		TLSClientConfig: config,
		Subprotocols:    []string{"mqtt"}, // [MQTT-3.1.1] 6.0
		ReadBufferSize:  1 << 10,
		WriteBufferSize: 1 << 10,
	}
	conn, response, err := d.DialContext(ctx, u.String(), nil)
	if err != nil {
		if response != nil {
			err = &webSocketRefused{response.Status}
		}
		return nil, err
	}
	return &webSocketConn{Conn: conn, reader: websocket.JoinMessages(conn, "")}, nil
}

// webSocketRefused is an HTTP answer that is not the hoped-for 101.
type webSocketRefused struct{ status string }

func (e *webSocketRefused) Error() string { return "WebSocket refused: HTTP " + e.status }

// webSocketConn is a WebSocket as a byte stream: MQTT packets and messages need
// not have the same borders [MQTT-6.0.0-1].
type webSocketConn struct {
	*websocket.Conn
	reader io.Reader
	mu     sync.Mutex // held to write, and to say until when: pings are written beside everything else
}

func (c *webSocketConn) Read(b []byte) (int, error) { return c.reader.Read(b) }

func (c *webSocketConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.WriteMessage(websocket.BinaryMessage, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (c *webSocketConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn.SetWriteDeadline(t)
}

func (c *webSocketConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// guarded is a connection with a deadline on every write and a limit on what is
// read. The library sets write deadlines for some packets only, and clears them
// for all: what it says about them is ignored.
type guarded struct {
	net.Conn
	reader       io.Reader
	writeTimeout time.Duration
}

func guard(conn net.Conn, subscriptions int, writeTimeout time.Duration) *guarded {
	return &guarded{conn, newPacketReader(conn, subscriptions), writeTimeout}
}

func (g *guarded) Read(b []byte) (int, error) { return g.reader.Read(b) }

func (g *guarded) Write(b []byte) (int, error) {
	if err := g.Conn.SetWriteDeadline(time.Now().Add(g.writeTimeout)); err != nil {
		return 0, err
	}
	return g.Conn.Write(b)
}

func (g *guarded) SetDeadline(t time.Time) error    { return g.Conn.SetReadDeadline(t) }
func (g *guarded) SetWriteDeadline(time.Time) error { return nil }
