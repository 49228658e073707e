package main

import (
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf16"
	"unsafe"

	"github.com/kardianos/service"
	"github.com/spf13/pflag"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"
)

const (
	needsElevation = "only an administrator may do that; open the command prompt with \"Run as administrator\""
	whereTheLogIs  = "its log is in the Event Viewer: Windows Logs, Application, source terminal-agent"

	// serviceAccount has as few rights as an account of Windows can have. What
	// is ours is opened to the SID of the service alone, not to the account,
	// which other services have too.
	serviceAccount = `NT AUTHORITY\LocalService`
)

func defaultConfig() string   { return filepath.Join(programData(), serviceName, "terminal-agent.toml") }
func defaultStateDir() string { return filepath.Join(programData(), serviceName, "state") }

// programData is C:\ProgramData, usually.
func programData() string {
	dir, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, 0)
	if err != nil {
		return `C:\ProgramData`
	}
	return dir
}

func addPlatformFlags(flags *pflag.FlagSet, o *installOptions) {
	o.delayedStart = flags.Bool("delayed-start", false, "start some two minutes after Windows, not with it")
}

func elevated() bool { return windows.GetCurrentProcessToken().IsElevated() }

func controllable() error { return nil }

// openService opens the service with the given rights; errNotInstalled if there
// is none.
func openService(rights uint32) (*mgr.Service, func(), error) {
	scm, err := windows.OpenSCManager(nil, nil, windows.SC_MANAGER_CONNECT)
	if err != nil {
		return nil, nil, fmt.Errorf("service manager: %w", err)
	}
	name, err := windows.UTF16PtrFromString(serviceName)
	if err != nil {
		return nil, nil, err
	}
	h, err := windows.OpenService(scm, name, rights)
	if err != nil {
		windows.CloseServiceHandle(scm)
		if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
			return nil, nil, errNotInstalled
		}
		return nil, nil, fmt.Errorf("service %s: %w", serviceName, err)
	}
	s := &mgr.Service{Name: serviceName, Handle: h}
	return s, func() { s.Close(); windows.CloseServiceHandle(scm) }, nil
}

var errNotInstalled = errors.New("not installed")

func queryService(context.Context) (serviceState, error) {
	s, closeService, err := openService(windows.SERVICE_QUERY_STATUS)
	if errors.Is(err, errNotInstalled) {
		return serviceState{words: "not installed"}, nil
	}
	if err != nil {
		return serviceState{}, err
	}
	defer closeService()
	status, err := s.Query()
	if err != nil {
		return serviceState{}, err
	}
	return describeStatus(status), nil
}

// describeStatus says what a status of the service manager means.
func describeStatus(status svc.Status) serviceState {
	state := serviceState{installed: true, running: true}
	switch status.State {
	case svc.Running:
		state.words = "running"
	case svc.StartPending:
		state.words = "starting"
	case svc.StopPending:
		state.words = "stopping"
	default:
		state.running = false
		switch {
		case status.Win32ExitCode == uint32(windows.ERROR_SERVICE_SPECIFIC_ERROR) && status.ServiceSpecificExitCode == exitConfig:
			state.words = "stopped: the configuration is wrong"
		case status.Win32ExitCode != 0 && status.Win32ExitCode != uint32(windows.ERROR_SERVICE_NEVER_STARTED):
			state.words = "stopped: " + windows.Errno(status.Win32ExitCode).Error()
		default:
			state.words = "stopped"
		}
	}
	return state
}

// awaitService waits until the service is neither starting nor stopping.
func awaitService(ctx context.Context) (serviceState, error) {
	s, closeService, err := openService(windows.SERVICE_QUERY_STATUS)
	if err != nil {
		return serviceState{}, err
	}
	defer closeService()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		status, err := s.Query()
		if err != nil {
			return serviceState{}, err
		}
		if status.State == svc.Running || status.State == svc.Stopped {
			return describeStatus(status), nil
		}
		select {
		case <-ctx.Done():
			return describeStatus(status), nil
		case <-again.C:
		}
	}
}

// prepareService makes the directories, and lets nobody but the service, the
// administrators and the system see what is in them.
func prepareService(_ context.Context, exe string, c *config, o installOptions) (*service.Config, error) {
	file, err := filepath.Abs(o.from.file)
	if err != nil {
		return nil, err
	}
	if strings.EqualFold(filepath.Dir(file), filepath.Dir(defaultConfig())) {
		if err := protect(filepath.Dir(file), "FRFX"); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return nil, err
	}
	if err := protect(c.StateDir, "FA"); err != nil {
		return nil, err
	}
	return &service.Config{
		Name:        serviceName,
		DisplayName: serviceDisplayName,
		Description: serviceDescription,
		UserName:    serviceAccount,
		Executable:  exe,
		Arguments:   []string{"run", "--service", "--config", file},
		Option:      service.KeyValue{"DelayedAutoStart": o.delayedStart != nil && *o.delayedStart},
	}, nil
}

// protect gives a directory and what is in it to the system and the
// administrators, and to the service the rights named (SDDL, "ACE Strings").
func protect(dir, serviceRights string) error {
	sd, err := windows.SecurityDescriptorFromString(
		"D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;" + serviceRights + ";;;" + serviceSID(serviceName) + ")")
	if err != nil {
		return fmt.Errorf("protect %s: %w", dir, err)
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return fmt.Errorf("protect %s: %w", dir, err)
	}
	err = windows.SetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
	if err != nil {
		return fmt.Errorf("protect %s: %w", dir, err)
	}
	return nil
}

// serviceSID is the SID of NT SERVICE\name, which there is whether or not the
// service is installed: S-1-5-80 and the five words of SHA-1 over the name in
// upper case, UTF-16 little endian ([MS-DTYP] 2.4.2.4 gives the authority;
// `sc showsid` computes the rest).
func serviceSID(name string) string {
	var text []byte
	for _, u := range utf16.Encode([]rune(strings.ToUpper(name))) {
		text = binary.LittleEndian.AppendUint16(text, u)
	}
	sum := sha1.Sum(text)
	sid := "S-1-5-80"
	for i := 0; i < len(sum); i += 4 {
		sid += fmt.Sprintf("-%d", binary.LittleEndian.Uint32(sum[i:]))
	}
	return sid
}

// updateService: what is installed has to run this program with this configuration.
func updateService(_ context.Context, definition *service.Config) error {
	s, closeService, err := openService(windows.SERVICE_QUERY_CONFIG)
	if err != nil {
		return err
	}
	defer closeService()
	have, err := commandLine(s)
	if err != nil {
		return err
	}
	want := windows.ComposeCommandLine(append([]string{definition.Executable}, definition.Arguments...))
	if !sameCommandLine(have, want) {
		return fmt.Errorf("a service %s is installed with another command line: %s; `terminal-agent service uninstall` removes it", serviceName, have)
	}
	return nil
}

// commandLine is what the service manager runs. (mgr.Service.Config asks for
// more, and Wine does not know all of it.)
func commandLine(s *mgr.Service) (string, error) {
	var buffer struct { // 8 KB are the most that it can be
		windows.QUERY_SERVICE_CONFIG
		_ [8 << 10]byte
	}
	var needed uint32
	if err := windows.QueryServiceConfig(s.Handle, &buffer.QUERY_SERVICE_CONFIG, uint32(unsafe.Sizeof(buffer)), &needed); err != nil {
		return "", fmt.Errorf("configuration of the service: %w", err)
	}
	return windows.UTF16PtrToString(buffer.BinaryPathName), nil
}

// sameCommandLine compares two command lines, whatever quotes they have.
func sameCommandLine(a, b string) bool {
	as, errA := windows.DecomposeCommandLine(a)
	bs, errB := windows.DecomposeCommandLine(b)
	return errA == nil && errB == nil && strings.EqualFold(strings.Join(as, "\x00"), strings.Join(bs, "\x00"))
}

// recoveryReset is how long the service has to run before its next crash counts
// as the first, in seconds.
const recoveryReset = 24 * 60 * 60

// recovery is what Windows does when the service crashes: it starts it again,
// the first time soon. The last action holds for all later crashes.
var recovery = []mgr.RecoveryAction{
	{Type: mgr.ServiceRestart, Delay: 5 * time.Second},
	{Type: mgr.ServiceRestart, Delay: 30 * time.Second},
	{Type: mgr.ServiceRestart, Delay: time.Minute},
}

// completeService sets what the service library cannot: recovery actions that
// grow, and a SID of its own.
func completeService(o installOptions) error {
	s, closeService, err := openService(windows.SERVICE_ALL_ACCESS)
	if err != nil {
		return err
	}
	defer closeService()
	if err := s.SetRecoveryActions(recovery, recoveryReset); err != nil {
		return fmt.Errorf("recovery actions: %w", err)
	}
	if err := changeConfig2(s, windows.SERVICE_CONFIG_SERVICE_SID_INFO, windows.SERVICE_SID_TYPE_UNRESTRICTED); err != nil {
		return fmt.Errorf("SID of the service: %w", err)
	}
	if o.delayedStart == nil {
		return nil
	}
	var delayed uint32
	if *o.delayedStart {
		delayed = 1
	}
	if err := changeConfig2(s, windows.SERVICE_CONFIG_DELAYED_AUTO_START_INFO, delayed); err != nil {
		return fmt.Errorf("delayed start: %w", err)
	}
	return nil
}

// changeConfig2 sets a setting that is one DWORD or BOOL.
//
// Every Windows that Go runs on knows those that are used here; Wine does not,
// and has no need of them.
func changeConfig2(s *mgr.Service, setting, value uint32) error {
	err := windows.ChangeServiceConfig2(s.Handle, setting, (*byte)(unsafe.Pointer(&value)))
	if errors.Is(err, windows.ERROR_INVALID_LEVEL) {
		return nil
	}
	return err
}

// makeConfigDir makes the directory of the configuration. Before there is a
// service it is protected already.
func makeConfigDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return protect(dir, "FRFX")
}

// shareWithService does nothing: the directory's access list is inherited.
func shareWithService(*os.File) error { return nil }
