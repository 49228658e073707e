package main

import (
	"context"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"terminalops/device/zvt/apdu"
	"terminalops/device/zvt/frame"
	"terminalops/device/zvt/zvttest"
)

// On TCP the connection breaks and new ones are refused, until the cable is
// plugged in again: at the same address.
func TestPullTCP(t *testing.T) {
	s := begin(t, "--link", "tcp:127.0.0.1:0", "--fast", "--interactive")
	_, address, _ := strings.Cut(s.says("ready on tcp:"), "tcp:")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s.says("connected by")
	s.after("pull", "the cable is pulled")
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("the connection lives: %d bytes, %v", n, err)
	}
	s.after("pull", "? the cable is out already")
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("connected without a cable")
	}
	s.after("show", "cable out")
	s.after("plug", "plugged in again on tcp:"+address)
	s.after("plug", "? the cable is in already")
	conn, err = net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if m := closeDay(t, frame.TCP(conn, frame.TCPOptions{})); m.Control() != apdu.ControlCompletion {
		t.Errorf("ended with %v", m)
	}
}

// What the terminal has begun it ends without a cable, and who connects
// meanwhile waits for it.
func TestPullInMidClosing(t *testing.T) {
	s := begin(t, "--link", "tcp:127.0.0.1:0", "--interactive")
	_, address, _ := strings.Cut(s.says("ready on tcp:"), "tcp:")
	dial := func() frame.Conn {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		return frame.TCP(conn, frame.TCPOptions{})
	}
	first := dial()
	defer first.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := first.WriteOnce(ctx, apdu.EndOfDay{}.Marshal()); err != nil {
		t.Fatal(err)
	}
	s.says("-> ") // accepted; it takes seconds from here
	s.after("pull", "the cable is pulled")
	s.after("plug", "plugged in again")
	second := dial()
	defer second.Close()
	if err := second.WriteOnce(ctx, apdu.StatusEnquiry{}.Marshal()); err != nil {
		t.Fatal(err)
	}
	s.find(closed42, func(line string) bool {
		if strings.Contains(line, "<- ") {
			t.Errorf("two at a time: %s", line)
		}
		return strings.Contains(line, closed42)
	})
	if b, err := second.ReadAPDU(ctx); err != nil || b[0] != 0x80 {
		t.Errorf("% X, %v", b, err)
	}
}

// Each trouble can be typed and ended, and the terminal says how it is then.
func TestTroubles(t *testing.T) {
	s := begin(t, "--link", "tcp:127.0.0.1:0", "--interactive")
	s.says("ready")
	status := map[string]string{
		"payment": "please wait", "menu": "please wait", "card": "card inserted", "lock": "merchant card locked",
		"silent": "nobody answers", "initialisation": "initialisation", "end-of-day": "reconciliation",
	}
	for _, trouble := range zvttest.Troubles() {
		text := trouble.Name
		if text == refusing {
			text += " 77"
		}
		if got := s.after(text, "troubles: "+text+";"); !strings.Contains(got, status[trouble.Name]) {
			t.Errorf("%s: %s", text, got)
		}
		s.after(trouble.Name+" off", "troubles: none; status: ready")
		s.after(trouble.Name+" off", "? "+trouble.Name+": not so now")
	}
	s.after("card", "troubles: card;")
	s.after("refuse 6c", "troubles: card, refuse 6c;")
	s.after("refuse a0", "troubles: card, refuse a0;")
	s.after("refuse", `? refuse "": a code of two`)
	s.after("show", "troubles: card, refuse a0;")
	s.after("scenario drop-update+print-lines", "scenario drop-update+print-lines; troubles: card, refuse a0; status: card inserted")
	s.after("scenario nonsense", `? scenario "nonsense": one of these wanted`)
	s.after("well", "scenario drop-update+print-lines; troubles: none")
}

// A terminal that is driven by a script, over a pipe.
func TestTraining(t *testing.T) {
	s := begin(t, "--link", "tcp:127.0.0.1:0", "--fast", "--interactive")
	_, address, _ := strings.Cut(s.says("ready on tcp:"), "tcp:")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ecr := frame.TCP(conn, frame.TCPOptions{})
	defer ecr.Close()
	if err := ecr.WriteOnce(t.Context(), apdu.Registration{Config: 0x8C}.Marshal()); err != nil {
		t.Fatal(err)
	}
	s.says("<- ")
	s.after("no-paper", "troubles: no-paper")
	s.after("  no-paper   off ", "troubles: none")
	s.after("sell 19.90", "took a payment: girocard, 19.90 EUR")
	for _, wrong := range []string{"sell", "sell much", "sell -1", "restart never", "restart 0", "pull it", "dance", "card in"} {
		s.after(wrong, "? ")
	}
	s.after("log", "log: 1 entries")
	s.after("restart 60", "restarts, back at")
	s.after("log", "restarts, back at")
	s.after("scenarios", "drop-before-completion")
	s.after("help", "pull the cable")
	if stamped := regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d\d\d  cable in`); !stamped.MatchString(s.after("show", "cable in")) {
		t.Error("a line without the time")
	}
	s.types("quit")
	if code := <-s.code; code != exitOK {
		t.Errorf("exit code %d", code)
	}
	s.code <- exitOK
}

// The end of the input ends it, too.
func TestTrainingEnds(t *testing.T) {
	s := begin(t, "--link", "tcp:127.0.0.1:0", "--interactive")
	s.says("ready")
	s.keys.Close()
	if code := <-s.code; code != exitOK {
		t.Errorf("exit code %d", code)
	}
	s.code <- exitOK
}

// Whoever does not ask for the training ground keeps the input: a simulator that
// runs beside a script must not read the script's.
func TestInputIsLeftAlone(t *testing.T) {
	s := begin(t, "--link", "tcp:127.0.0.1:0")
	s.line("ready")
	typed := make(chan error, 1)
	go func() {
		_, err := s.keys.Write([]byte("quit\n"))
		typed <- err
	}()
	s.end()
	if err := <-typed; err == nil {
		t.Error("somebody has read the input")
	}
}

// No trouble is called like a command.
func TestNames(t *testing.T) {
	for _, trouble := range zvttest.Troubles() {
		if slices.ContainsFunc(commands(), func(c command) bool { return c.name == trouble.Name }) {
			t.Errorf("%s is both", trouble.Name)
		}
	}
}
