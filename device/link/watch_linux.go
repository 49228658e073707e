package link

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

func listIn(root string) ([]Port, error) { return listPortsIn(root) }

// exists reports whether there is a device file. The kernel has it in /dev for
// exactly as long as the device is there.
func exists(root, name string) bool {
	_, err := os.Stat(filepath.Join(root, name))
	return err == nil
}

// inotify is the notifier: it hears of names that come and go in folders. (The
// kernel's own messages about devices come by AF_NETLINK, which the unit of the
// service forbids.)
type inotify struct {
	folders func() []string
	fd      int // of file
	file    *os.File
	news    chan struct{} // capacity 1
	ended   chan struct{}
}

func newNotifier(root string, a Address) notifier {
	n := &inotify{news: make(chan struct{}, 1), ended: make(chan struct{})}
	n.folders = func() []string { return foldersOf(filepath.Join(root, a.port)) }
	if a.kind == USB {
		n.folders = func() []string { return []string{filepath.Join(root, "dev")} }
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil { // there are 128 for each user, as a rule
		close(n.ended)
		return n
	}
	n.fd, n.file = fd, os.NewFile(uintptr(fd), "inotify")
	go n.hear()
	return n
}

// foldersOf are the folders in which something has to come or go for a file to
// come or go: those above it, and above what it links to. The upper ones are
// first: who listens there already hears of the lower ones.
func foldersOf(name string) []string {
	const maxLinks = 8
	var all []string
	for range maxLinks {
		var above []string
		for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
			above = append(above, dir)
			if dir == filepath.Dir(dir) {
				break
			}
		}
		slices.Reverse(above)
		all = append(all, above...)
		target, err := os.Readlink(name)
		if err != nil {
			break // no link, or nothing there
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(name), target)
		}
		name = target
	}
	return all
}

// listen implements notifier. A folder that is not there is no trouble: one
// above it is.
func (n *inotify) listen() bool {
	if n.file == nil {
		return false
	}
	for _, folder := range n.folders() {
		_, err := unix.InotifyAddWatch(n.fd, folder, unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO|unix.IN_ONLYDIR)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return false
		}
	}
	return true
}

// hear waits for changes until close. What they are does not matter.
func (n *inotify) hear() {
	defer close(n.ended)
	events := make([]byte, 4096)
	for {
		if _, err := n.file.Read(events); err != nil {
			return
		}
		select {
		case n.news <- struct{}{}:
		default:
		}
	}
}

func (n *inotify) changed() <-chan struct{} { return n.news }

func (n *inotify) close() {
	if n.file != nil {
		n.file.Close()
	}
	<-n.ended
}
