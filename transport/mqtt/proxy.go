package mqtt

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/proxy"
)

// dialTCP connects to the host of a broker, through a proxy where there is one.
func (o Options) dialTCP(ctx context.Context, broker *url.URL) (net.Conn, error) {
	p, err := o.proxyFor(broker)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", broker.Host)
	}
	conn, err := dialThrough(ctx, p, broker.Host)
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", p.Host, err)
	}
	return conn, nil
}

// parseProxy reads a proxy's URL, nil for none.
func parseProxy(raw Secret) (*url.URL, error) {
	if raw == "" {
		return nil, nil
	}
	p, err := url.Parse(string(raw))
	if err != nil {
		return nil, fmt.Errorf("not a URL: %w", withoutURL(err))
	}
	switch p.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return nil, fmt.Errorf("scheme %q, expected http://, https:// or socks5://", p.Scheme)
	}
	if p.Hostname() == "" {
		return nil, errors.New("no host")
	}
	return p, nil
}

// proxyFor returns the proxy on the way to a broker, nil for none.
func (o Options) proxyFor(broker *url.URL) (*url.URL, error) {
	if o.Proxy != "" {
		return parseProxy(o.Proxy)
	}
	// The rules are known for two schemes.
	like := &http.Request{URL: &url.URL{Scheme: "http", Host: broker.Host}}
	if broker.Scheme == "tls" || broker.Scheme == "wss" {
		like.URL.Scheme = "https"
	}
	return http.ProxyFromEnvironment(like)
}

var proxyPorts = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}

// proxyHost is the host:port of a proxy.
func proxyHost(p *url.URL) string {
	if p.Port() != "" {
		return p.Host
	}
	return net.JoinHostPort(p.Hostname(), proxyPorts[p.Scheme])
}

// dialThrough asks the proxy p for a connection to address.
func dialThrough(ctx context.Context, p *url.URL, address string) (net.Conn, error) {
	host := proxyHost(p)
	switch p.Scheme {
	case "http", "https":
		return dialConnect(ctx, p, host, address)
	case "socks5", "socks5h":
		return dialSOCKS5(ctx, p, host, address)
	default:
		return nil, fmt.Errorf("scheme %q is not supported", p.Scheme)
	}
}

func dialSOCKS5(ctx context.Context, p *url.URL, host, address string) (net.Conn, error) {
	var auth *proxy.Auth
	if p.User != nil {
		password, _ := p.User.Password()
		auth = &proxy.Auth{User: p.User.Username(), Password: password}
	}
	d, err := proxy.SOCKS5("tcp", host, auth, new(net.Dialer))
	if err != nil {
		return nil, err
	}
	return d.(proxy.ContextDialer).DialContext(ctx, "tcp", address)
}

// dialConnect does HTTP CONNECT (RFC 9110, 9.3.6).
func dialConnect(ctx context.Context, p *url.URL, host, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	if p.Scheme == "https" {
		conn, err = handshake(ctx, conn, &tls.Config{ServerName: p.Hostname(), MinVersion: tls.VersionTLS12})
		if err != nil {
			return nil, err
		}
	}
	// What ends ctx also ends the waiting for an answer.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := askConnect(conn, p.User, address); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func askConnect(conn net.Conn, user *url.Userinfo, address string) error {
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if user != nil {
		password, _ := user.Password()
		credentials := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		request.Header.Set("Proxy-Authorization", "Basic "+credentials)
	}
	if err := request.Write(conn); err != nil {
		return err
	}
	// Byte by byte: what follows the answer belongs to whoever reads next.
	response, err := http.ReadResponse(bufio.NewReader(oneByteReader{conn}), request)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("CONNECT %s refused: HTTP %s", address, response.Status)
	}
	return nil
}

// oneByteReader keeps a bufio.Reader from reading ahead.
type oneByteReader struct{ io.Reader }

func (r oneByteReader) Read(b []byte) (int, error) { return r.Reader.Read(b[:min(len(b), 1)]) }
