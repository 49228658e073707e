package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"

	"terminalops/agent"
)

// stopGrace is how long an operation at work may take once the agent is to
// stop: at shutdown Windows grants services few seconds (the design counts on
// 3), and the last word needs some of them.
const stopGrace = time.Second

const (
	// pendingStep is how often a pending state counts on, pendingHint how long
	// the service manager is to wait for the next count.
	pendingStep = time.Second
	pendingHint = 10 * time.Second

	// resumeAutomatic is PBT_APMRESUMEAUTOMATIC (winuser.h): the PC was asleep.
	resumeAutomatic = 0x12

	// hangPatience is how long the agent may hang, as WatchdogSec on Linux.
	hangPatience = 3 * time.Minute
)

// supervise serves under the service control manager.
//
// The service library is not used here: its Run guesses whether it was started
// by the service manager, and knows neither pending states that count on nor
// preshutdown, nor the end of sleep.
func supervise(ctx context.Context, from *source) error {
	events, err := eventlog.Open(serviceName)
	if err != nil {
		return fmt.Errorf("event log: %w", err)
	}
	defer events.Close()
	m := &manager{ctx: ctx, from: from, events: events, started: make(chan *agent.Agent, 1), changed: make(chan os.Signal, 1)}
	err = svc.Run(serviceName, m)
	if errors.Is(err, windows.ERROR_FAILED_SERVICE_CONTROLLER_CONNECT) {
		return configError{errors.New("run --service: the service manager has not started this; a person leaves out --service")}
	}
	if err == nil {
		err = m.err
	}
	if err != nil {
		return logged{err}
	}
	return nil
}

// manager is the service control manager, as supervisor and as the one who is
// answered.
type manager struct {
	ctx     context.Context
	from    *source
	events  *eventlog.Log
	started chan *agent.Agent
	changed chan os.Signal // a parameter has
	err     error          // of serve, once svc.Run has returned
}

// Execute implements svc.Handler.
//
//	StartPending --ready--> Running --Stop, Shutdown, PreShutdown--> StopPending --> Stopped
//
// A wrong configuration ends in Stopped with the service-specific exit code
// exitConfig, and nothing starts it again. Any other error ends the process
// without Stopped: for Windows that is a crash, which the recovery actions
// answer with a new start.
func (m *manager) Execute(_ []string, requests <-chan svc.ChangeRequest, changes chan<- svc.Status) (specific bool, code uint32) {
	ctx, stop := context.WithCancel(m.ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, m.from, m) }()

	hint := uint32(pendingHint.Milliseconds())
	status := svc.Status{State: svc.StartPending, WaitHint: hint}
	changes <- status
	count := time.NewTicker(pendingStep)
	defer count.Stop()
	var running *agent.Agent
	for {
		select {
		case m.err = <-ended:
			return exitCode(m.err)
		case running = <-m.started:
			if status.State == svc.StartPending {
				status = svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown | svc.AcceptPreShutdown | svc.AcceptPowerEvent | svc.AcceptParamChange}
				changes <- status
			}
		case <-count.C:
			if status.State != svc.Running {
				status.CheckPoint++
				changes <- status
			}
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				changes <- status
			case svc.Stop, svc.Shutdown, svc.PreShutdown:
				status = svc.Status{State: svc.StopPending, WaitHint: hint}
				changes <- status
				stop()
			case svc.ParamChange: // sc control terminal-agent paramchange
				select {
				case m.changed <- syscall.SIGHUP:
				default:
				}
			case svc.PowerEvent:
				if r.EventType == resumeAutomatic && running != nil {
					running.Wake()
				}
			}
		}
	}
}

// exitCode is how the service ends; it does not return if Windows is to start
// it again.
func exitCode(err error) (specific bool, code uint32) {
	var wrong configError
	switch {
	case err == nil:
		return false, 0
	case errors.As(err, &wrong):
		return true, exitConfig
	default:
		os.Exit(exitFailed)
		panic("unreachable")
	}
}

// Ids of the events, as EventCreate.exe, whose message texts the source has,
// takes them (1 to 1000).
const (
	eventInfo    = 1
	eventWarning = 2
	eventError   = 3
)

func (m *manager) logHandler(copy io.Writer, level slog.Leveler) slog.Handler {
	return slog.NewMultiHandler(
		slog.NewTextHandler(copy, &slog.HandlerOptions{Level: level}),
		&lineHandler{level: level, write: m.toEvents})
}

// logFile: the event log of Windows is small, and shared.
func (m *manager) logFile(stateDir string) string { return filepath.Join(stateDir, serviceName+".log") }

func (m *manager) reload() <-chan os.Signal { return m.changed }

func (m *manager) toEvents(level slog.Level, line string, _ []slog.Attr) error {
	switch {
	case level >= slog.LevelError:
		return m.events.Error(eventError, line)
	case level >= slog.LevelWarn:
		return m.events.Warning(eventWarning, line)
	default:
		return m.events.Info(eventInfo, line)
	}
}

// ready also has the runtime write what it says last into a file: a service has
// no stderr. What a run before has left there goes into the event log.
func (m *manager) ready(a *agent.Agent, c *config) {
	m.keepLastWords(filepath.Join(c.StateDir, "crash.txt"))
	m.started <- a
}

// lastWords is how much of a crash goes into the event log, in bytes.
const lastWords = 8 << 10

func (m *manager) keepLastWords(path string) {
	if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
		_ = m.toEvents(slog.LevelError, fmt.Sprintf("the last run crashed; %s.old has all of it:\r\n%s", path, text[:min(len(text), lastWords)]), nil)
		_ = os.Rename(path, path+".old")
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return // the journal has told already what is wrong with the directory
	}
	_ = debug.SetCrashOutput(f, debug.CrashOptions{})
	f.Close() // SetCrashOutput has a copy
}

func (*manager) stopping()               {}
func (*manager) patience() time.Duration { return hangPatience }
func (*manager) alive()                  {}

// dead ends the process, with all stacks, for Windows to start a new one.
func (*manager) dead() {
	debug.SetTraceback("all")
	panic("the agent hangs")
}
