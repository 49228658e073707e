package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"terminalops/dispatcher"
	"terminalops/transport"
)

// token prints a token for development, and nothing else, on stdout.
func (p program) token(args []string) error {
	flags := p.flags("token", `terminal-dispatcher token --config FILE --account ID

Prints a bearer token for development, signed with the HMAC secret of the
configuration. In production tokens come from your identity provider.`)
	var s settings
	s.define(p, flags)
	var d dispatcher.Development
	flags.StringVar(&d.Account, "account", "", "account that the token is for, such as T11223351")
	flags.StringSliceVar(&d.Scopes, "scope", []string{"admin:checkout"}, "scope; may be repeated")
	flags.StringVar(&d.Subject, "subject", "developer", "who asks")
	flags.StringVar(&d.Email, "email", "", "e-mail address of who asks; then it is what created_by shows")
	flags.DurationVar(&d.For, "ttl", time.Hour, "how long the token is good")
	if err := parse(flags, args, 0); err != nil {
		return err
	}
	switch {
	case !dispatcher.ValidAccountID(d.Account):
		return wrong("--account %q: want P or T and 8 digits, such as T11223351", d.Account)
	case d.For <= 0:
		return wrong("--ttl %v: want more than 0", d.For)
	}
	c, err := s.load()
	if err != nil {
		return err
	}
	o, err := c.tokenOptions()
	if err != nil {
		return err
	}
	token, err := o.Sign(d)
	if errors.Is(err, dispatcher.ErrNoSecret) {
		return wrong("auth.jwks_file is configured: %w; ask whoever holds the private key, or use a configuration with auth.hmac_secret_file", err)
	}
	if err != nil {
		return wrong("auth: %w", err)
	}
	fmt.Fprintln(p.stdout, token)
	return nil
}

// terminals makes terminals known, and lists them; also while serve runs.
func (p program) terminals(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return wrong("terminals: want add or list")
	}
	switch args[0] {
	case "add":
		return p.addTerminals(ctx, args[1:])
	case "list":
		return p.listTerminals(ctx, args[1:])
	case "--help", "-h":
		fmt.Fprint(p.stdout, usage)
		return nil
	default:
		return wrong("terminals %q: want add or list", args[0])
	}
}

func (p program) addTerminals(ctx context.Context, args []string) error {
	flags := p.flags("add", `terminal-dispatcher terminals add --config FILE --account ID TERMINAL...

Makes terminals known. A terminal that is known already stays as it is.`)
	var s settings
	s.define(p, flags)
	account := flags.String("account", "", "account that the terminals belong to, such as T11223351")
	if err := parse(flags, args, -1); err != nil {
		return err
	}
	switch {
	case !dispatcher.ValidAccountID(*account):
		return wrong("--account %q: want P or T and 8 digits, such as T11223351", *account)
	case flags.NArg() == 0:
		return wrong("no terminal: want ids such as %s-T0001", *account)
	}
	for _, id := range flags.Args() {
		if !transport.ValidTerminalID(id) || !strings.HasPrefix(id, *account+"-") {
			return wrong("terminal %q: want an id such as %s-T0001", id, *account)
		}
	}
	c, err := s.load()
	if err != nil {
		return err
	}
	db, err := openStore(ctx, c)
	if err != nil {
		return err
	}
	return errors.Join(db.AddTerminals(ctx, *account, flags.Args()...), db.Close())
}

func (p program) listTerminals(ctx context.Context, args []string) error {
	flags := p.flags("list", "terminal-dispatcher terminals list --config FILE\n\nLists the terminals that are known.")
	var s settings
	s.define(p, flags)
	account := flags.String("account", "", "only this account's")
	if err := parse(flags, args, 0); err != nil {
		return err
	}
	c, err := s.load()
	if err != nil {
		return err
	}
	db, err := openStore(ctx, c)
	if err != nil {
		return err
	}
	all, err := db.Terminals(ctx, *account)
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TERMINAL\tACCOUNT\tSTATE\tLAST SEEN\tDEVICE")
	for _, t := range all {
		state, seen := t.State, "-"
		if state == "" {
			state = "unknown"
		}
		if !t.SeenAt.IsZero() {
			seen = t.SeenAt.Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", t.ID, t.AccountID, state, seen, device(t.Message))
	}
	return w.Flush()
}

// device is one word or two about what a terminal is.
func device(presence json.RawMessage) string {
	var p transport.PresenceMessage
	if json.Unmarshal(presence, &p) != nil || p.Device == nil {
		return "-"
	}
	return strings.TrimSpace(p.Device.Protocol + " " + p.Device.Model)
}
