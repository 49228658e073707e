package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// stage holds the three programs.
type stage struct {
	out io.Writer
	dir string // configurations, state, logs
	bin string

	api      string // base URL
	token    string
	programs []*program
	heard    terminalLines // what the simulated terminal says
}

// program is one that runs.
type program struct {
	name string
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{} // closed when it has ended, with err
	err  error
}

// build starts everything and waits until it can be used.
func (s *stage) build(ctx context.Context) error {
	if s.bin == "" {
		own, err := os.Executable()
		if err != nil {
			return err
		}
		s.bin = filepath.Dir(own)
	}
	if _, err := exec.LookPath(s.path("terminal-agent")); err != nil {
		return fmt.Errorf("the programs are not in %s: `make build` puts them beside the demo: %w", s.bin, err)
	}
	link, err := s.startSimulator(ctx)
	if err != nil {
		return err
	}
	broker, err := s.startDispatcher(ctx)
	if err != nil {
		return err
	}
	if err := s.startAgent(broker, link); err != nil {
		return err
	}
	fmt.Fprintf(s.out, `terminalops: three programs on this machine, talking to each other as they would over the world

  HTTP API   %s   terminal-dispatcher
  MQTT       %s   the broker inside it
  terminal   %s   terminal-simulator, which speaks ZVT; terminal-agent drives it
`, s.api, broker, link)
	return nil
}

// startSimulator returns the link to the terminal as the agent has it.
func (s *stage) startSimulator(ctx context.Context) (link string, err error) {
	out, in := io.Pipe()
	go s.heard.read(out)
	args := append(simulatorLink(s.dir), "--fast", "--log", filepath.Join(s.dir, "terminal.log"))
	p, err := s.start("terminal-simulator", in, args...)
	if err != nil {
		return "", err
	}
	ready, err := s.heard.await(ctx, p, "ready on ")
	if err != nil {
		return "", err
	}
	return agentLink(ready), nil
}

// startDispatcher returns the address of the broker inside it.
func (s *stage) startDispatcher(ctx context.Context) (broker string, err error) {
	addresses, err := freeAddresses("127.0.0.1:8080", "127.0.0.1:1883")
	if err != nil {
		return "", err
	}
	listen, broker := addresses[0], addresses[1]
	config := filepath.Join(s.dir, "dispatcher.toml")
	if err := write(config, `state_dir = %q
listen = %q
public_url = "http://%[2]s"
[broker.embedded]
listen = %[3]q
`, filepath.Join(s.dir, "dispatcher"), listen, broker); err != nil {
		return "", err
	}
	p, err := s.start("terminal-dispatcher", nil, "serve", "--config", config)
	if err != nil {
		return "", err
	}
	s.api = "http://" + listen
	if err := s.awaitHTTP(ctx, p); err != nil {
		return "", err
	}
	if _, err := s.output(ctx, "terminal-dispatcher", "terminals", "add", "--config", config, "--account", account, terminal); err != nil {
		return "", err
	}
	s.token, err = s.output(ctx, "terminal-dispatcher", "token", "--config", config, "--account", account, "--ttl", "24h")
	return broker, err
}

func (s *stage) startAgent(broker, link string) error {
	config := filepath.Join(s.dir, "agent.toml")
	if err := write(config, `state_dir = %q
[broker]
urls = ["tcp://%s"]
[[terminal]]
id       = %q
protocol = "zvt"
link     = %q
`, filepath.Join(s.dir, "agent"), broker, terminal, link); err != nil {
		return err
	}
	_, err := s.start("terminal-agent", nil, "run", "--config", config)
	return err
}

func write(path, format string, args ...any) error {
	return os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600)
}

// freeAddresses returns the wanted loopback addresses, with another port where
// somebody listens already.
func freeAddresses(wanted ...string) ([]string, error) {
	for i, address := range wanted {
		l, err := net.Listen("tcp", address)
		if err != nil {
			if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
				return nil, err
			}
		}
		defer l.Close() // held until all are chosen, so that they differ
		wanted[i] = l.Addr().String()
	}
	return wanted, nil
}

func (s *stage) path(name string) string { return filepath.Join(s.bin, name) }

// start starts a program, with its log in a file of its own. stdout may be nil.
func (s *stage) start(name string, stdout io.Writer, args ...string) (*program, error) {
	log, err := os.Create(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	p := &program{name: name, cmd: exec.Command(s.path(name), args...), log: log, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if stdout != nil {
		p.cmd.Stdout = io.MultiWriter(log, stdout)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	s.programs = append(s.programs, p)
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// output runs a program to its end and returns what it printed.
func (s *stage) output(ctx context.Context, name string, args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, s.path(name), args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}

// patience is how long a program may take to be there.
const patience = 30 * time.Second

// awaitHTTP waits until the API answers, whatever it says.
func (s *stage) awaitHTTP(ctx context.Context, p *program) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		response, err := http.Get(s.api + operationsPath)
		if err == nil {
			return response.Body.Close()
		}
		select {
		case <-p.done:
			return p.failure()
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", p.name, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// failure says that a program has ended, with the end of its log.
func (p *program) failure() error {
	content, _ := os.ReadFile(p.log.Name())
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return fmt.Errorf("%s has ended (%v): %s", p.name, p.err, lines[len(lines)-1])
}

// wait returns when ctx has ended, or one of the programs, which is an error.
func (s *stage) wait(ctx context.Context) error {
	ended := make(chan *program, len(s.programs))
	for _, p := range s.programs {
		go func() {
			<-p.done
			ended <- p
		}()
	}
	select {
	case <-ctx.Done():
		return nil
	case p := <-ended:
		return p.failure()
	}
}

// end ends the programs, in the opposite order.
func (s *stage) end() {
	for i := len(s.programs) - 1; i >= 0; i-- {
		p := s.programs[i]
		if interrupt(p.cmd.Process) != nil {
			p.cmd.Process.Kill()
		}
		select {
		case <-p.done:
		case <-time.After(patience):
			p.cmd.Process.Kill()
			<-p.done
		}
		p.log.Close()
	}
}

// terminalLines are the lines that the simulated terminal says.
type terminalLines struct {
	mu    sync.Mutex
	lines []string
}

func (t *terminalLines) read(from io.Reader) {
	for scanner := bufio.NewScanner(from); scanner.Scan(); {
		t.mu.Lock()
		t.lines = append(t.lines, scanner.Text())
		t.mu.Unlock()
	}
}

// since returns the lines from the n-th on that tell of something the terminal
// did, not of a message, and the number of all lines.
func (t *terminalLines) since(n int) (did []string, all int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, line := range t.lines[n:] {
		if !strings.HasPrefix(line, "<-") && !strings.HasPrefix(line, "->") {
			did = append(did, line)
		}
	}
	return did, len(t.lines)
}

// await waits for a line with a prefix and returns what follows it.
func (t *terminalLines) await(ctx context.Context, p *program, prefix string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		did, _ := t.since(0)
		for _, line := range did {
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return rest, nil
			}
		}
		select {
		case <-p.done:
			return "", p.failure()
		case <-ctx.Done():
			return "", errors.New(p.name + " does not get ready")
		case <-time.After(20 * time.Millisecond):
		}
	}
}
