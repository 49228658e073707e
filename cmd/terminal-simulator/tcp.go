package main

import (
	"context"
	"fmt"
	"net"

	"terminalops/device/zvt/zvttest"
)

// serveTCP listens at an address. Like a real terminal it has one connection at
// a time; others wait.
func serveTCP(address string) server {
	return func(ctx context.Context, t *zvttest.Terminal, say func(string)) error {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			return err // it says listen, and where
		}
		defer context.AfterFunc(ctx, func() { l.Close() })()
		defer l.Close()
		say(fmt.Sprintf("ready on tcp:%s", l.Addr()))
		for {
			conn, err := l.Accept()
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err // it says accept, and where
			}
			say("connected by " + conn.RemoteAddr().String())
			if err := t.ServeTCP(ctx, conn); err != nil {
				say("connection: " + err.Error())
			}
			say("disconnected")
		}
	}
}
