package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"terminalops/device/link"
)

// ports is `terminal-agent ports`.
func (p program) ports(ctx context.Context, args []string) error {
	flags, a := p.askingFlags("ports", "Lists the serial ports of this machine, and which terminal each is for: as the agent\nthat runs has it, or else as the configuration says.")
	if err := parse(flags, args); err != nil {
		return err
	}
	ports, err := link.List()
	if err != nil {
		return fmt.Errorf("ports: %w", err)
	}
	links, err := a.links(ctx)
	if err != nil {
		fmt.Fprintf(p.stderr, "terminal-agent: which terminal has which port is not known: %v\n", err)
	}
	list := assign(ports, links)
	if a.json {
		return writeJSON(p.stdout, list)
	}
	return list.print(p.stdout)
}

// usedLink is the link of a terminal.
type usedLink struct {
	Terminal string `json:"terminal"`
	Link     string `json:"link"`
}

// links are those of the agent that runs, or else of the configuration.
func (a *asking) links(ctx context.Context) (links []usedLink, err error) {
	if c, err := a.client(); err == nil {
		if s, err := c.Status(ctx); err == nil {
			for _, l := range s.Lanes {
				links = append(links, usedLink{l.ID, l.Device.Link})
			}
			return links, nil
		}
	}
	c, err := a.load()
	if err != nil {
		return nil, err
	}
	for _, t := range c.Terminals {
		links = append(links, usedLink{t.ID, t.address.String()})
	}
	return links, nil
}

// portList is what there is, and which links lead to none of it.
type portList struct {
	Ports  []portLine `json:"ports"`
	Absent []usedLink `json:"absent"`
}

// portLine is one port.
type portLine struct {
	Port         string   `json:"port"`
	Aliases      []string `json:"aliases,omitempty"`
	VendorID     string   `json:"vendor_id,omitempty"`
	ProductID    string   `json:"product_id,omitempty"`
	SerialNumber string   `json:"serial_number,omitempty"`
	Product      string   `json:"product,omitempty"`
	Terminals    []string `json:"terminals"`
}

// assign finds the port of each link. Of TCP links there is none.
func assign(ports []link.Port, links []usedLink) portList {
	list := portList{Ports: []portLine{}, Absent: []usedLink{}}
	for _, p := range ports {
		list.Ports = append(list.Ports, portLine{p.Name, p.Aliases, p.VendorID, p.ProductID, p.SerialNumber, p.Product, []string{}})
	}
	for _, l := range links {
		address, err := link.Parse(l.Link)
		if err != nil || address.Kind() == link.TCP {
			continue
		}
		found := false
		for i, p := range ports {
			if address.Matches(p) {
				list.Ports[i].Terminals = append(list.Ports[i].Terminals, l.Terminal)
				found = true
			}
		}
		if !found {
			list.Absent = append(list.Absent, l)
		}
	}
	return list
}

func (l portList) print(w io.Writer) error {
	if len(l.Ports) == 0 {
		fmt.Fprintln(w, "no serial ports: nothing is plugged in, or its driver is missing")
	} else {
		t := table(w)
		fmt.Fprintln(t, "PORT\tUSB\tSERIAL NUMBER\tPRODUCT\tTERMINAL")
		for _, p := range l.Ports {
			usb := ""
			if p.VendorID != "" {
				usb = p.VendorID + ":" + p.ProductID
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", p.Port, orDash(usb), orDash(p.SerialNumber), orDash(p.Product), orDash(strings.Join(p.Terminals, ", ")))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, absent := range l.Absent {
		fmt.Fprintf(w, "%s has %s, which is not in this list\n", absent.Terminal, absent.Link)
	}
	return nil
}
