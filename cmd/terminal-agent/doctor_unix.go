//go:build !windows

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	needsRights = "try it as root: sudo terminal-agent doctor"
	setTheClock = "set the clock, and have it kept right: timedatectl set-ntp true"
	// portGroup is the group that the unit gives the service.
	portGroup = "dialout"

	connectionRefused = unix.ECONNREFUSED
	connectionReset   = unix.ECONNRESET
)

func isDiskFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }

// freeSpace is what the service may still write, in bytes: some is for root only.
func freeSpace(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// isOpen reports whether everybody may read a file.
func isOpen(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Perm()&0o004 != 0
}

// hiddenFromService says why the service could not read a file, or write into a
// directory, that we can; empty if it can, or if that is not to be known.
func hiddenFromService(path string, write bool) (why, advice string) {
	credential, err := serviceCredential()
	if err != nil || !elevated() {
		return "", "" // no such user: somebody else runs the agent
	}
	groups := []uint32{credential.Gid}
	want := fs.FileMode(0o4)
	if write {
		want = 0o7
	}
	for at, need := path, want; ; at, need = filepath.Dir(at), 0o1 {
		info, err := os.Stat(at)
		if err != nil {
			return "", ""
		}
		if !permits(info, credential.Uid, groups, need) {
			switch {
			case at != path:
				advice = "what the service needs belongs in /etc/terminal-agent and " + defaultStateDir()
			case write:
				advice = fmt.Sprintf("chown -R %s: %s", serviceUser, at)
			default:
				advice = fmt.Sprintf("chgrp %s %s; chmod g+r %s", serviceUser, at, at)
			}
			return fmt.Sprintf("the service, which runs as %s, has no right to %s", serviceUser, at), advice
		}
		if at == filepath.Dir(at) {
			return "", ""
		}
	}
}

// permits reports whether the mode of a file lets a user do what is needed, a
// sum of 4 (read), 2 (write) and 1 (search).
func permits(info fs.FileInfo, uid uint32, groups []uint32, need fs.FileMode) bool {
	stat := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	switch {
	case uid == 0:
		return true
	case stat.Uid == uid:
		mode >>= 6
	case slices.Contains(groups, stat.Gid):
		mode >>= 3
	}
	return mode&need == need
}

// portHiddenFromService says why the service may not use a port that we may use.
func portHiddenFromService(device string) (why, advice string) {
	credential, err := serviceCredential()
	if err != nil || !elevated() {
		return "", ""
	}
	info, err := os.Stat(device)
	if err != nil {
		return "", ""
	}
	groups := []uint32{credential.Gid}
	if g, err := user.LookupGroup(portGroup); err == nil {
		if gid, err := strconv.ParseUint(g.Gid, 10, 32); err == nil {
			groups = append(groups, uint32(gid))
		}
	}
	if permits(info, credential.Uid, groups, 0o6) {
		return "", ""
	}
	group := strconv.FormatUint(uint64(info.Sys().(*syscall.Stat_t).Gid), 10)
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return fmt.Sprintf("%s belongs to the group %s, which the service is not in", device, group),
		fmt.Sprintf("systemctl edit terminal-agent, write [Service] and SupplementaryGroups=%s, then restart it", group)
}

// serviceLog is the service's log. The note says how to get it where we cannot.
func serviceLog(ctx context.Context) (log []byte, note string) {
	out, err := exec.CommandContext(ctx, "journalctl", "--unit="+unitName, "--lines=5000", "--no-pager", "--output=short-iso").Output()
	if err != nil || strings.TrimSpace(string(out)) == "" {
		return nil, "the log could not be read here; add the output of: sudo journalctl -u terminal-agent -n 5000"
	}
	return out, ""
}
