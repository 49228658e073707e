package main

import (
	"context"
	"fmt"
	"net"
)

// serveTCP listens at an address. Like a real terminal it has one connection at
// a time; others wait.
func serveTCP(address string) server {
	return func(ctx context.Context, c *cable) error {
		defer c.wait()
		for state := "ready"; ; state = "plugged in again" {
			plugged := c.awaitPlugged(ctx)
			if ctx.Err() != nil {
				return nil
			}
			l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
			if err != nil {
				return err // it says listen, and where
			}
			address = l.Addr().String() // the same one after a pull
			c.say(fmt.Sprintf("%s on tcp:%s", state, address))
			if err := servePluggedTCP(ctx, plugged, c, l); err != nil || ctx.Err() != nil {
				return err
			}
		}
	}
}

// servePluggedTCP serves one connection after the other until the cable is
// pulled, when connections break and new ones are refused.
func servePluggedTCP(ctx, plugged context.Context, c *cable, l net.Listener) error {
	defer context.AfterFunc(plugged, func() { l.Close() })()
	defer l.Close()
	for {
		conn, err := l.Accept()
		if err != nil {
			if plugged.Err() != nil {
				return nil
			}
			return err // it says accept, and where
		}
		if plugged.Err() != nil {
			conn.Close()
			return nil
		}
		c.say("connected by " + conn.RemoteAddr().String())
		ended := c.serve(ctx, func() error { return c.terminal.ServeTCP(ctx, conn) })
		select {
		case err = <-ended:
		case <-plugged.Done():
			l.Close()    // before anybody notices and comes again
			conn.Close() // which the terminal notices
			return nil
		}
		if err != nil {
			c.say("connection: " + err.Error())
		}
		c.say("disconnected")
	}
}
