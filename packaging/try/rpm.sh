#!/usr/bin/env bash
# The RPM package, tried as far as a machine without an RPM distribution can:
# what is in it, whose it is, what its scripts say; then installed, upgraded and
# erased by rpm in a Debian root, with the scripts run there. See lib.sh for how
# to run it.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

wants=/etc/systemd/system/multi-user.target.wants/terminal-agent.service
config=/etc/terminal-agent/terminal-agent.toml
state=/var/lib/terminal-agent

the_rpm() { # ARCHITECTURE
	local found
	found=$(find "$checkout/dist" -name "terminal-agent-*.$1.rpm" 2>/dev/null | head -n 1)
	[ -f "$found" ] || cannot "missing: dist/terminal-agent-*.$1.rpm (make packages)"
	echo "$found"
}

# query PACKAGE OPTION...: of a file, which needs no database.
query() { rpm --dbpath "$work/db" -qp "${@:2}" "$1"; }

contents() {
	local arch file listing
	for arch in x86_64 aarch64 armv7hl; do
		chapter "What is in the package for $arch"
		file=$(the_rpm "$arch")
		rpm --dbpath "$work/db" -K --nosignature "$file" >/dev/null || fail "its digests are wrong"
		expect "architecture" "$arch" "$(query "$file" --qf '%{ARCH}')"
		listing=$(query "$file" --qf '[%{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES}\n]')
		expect_match "the program is root's" '^-rwxr-xr-x root:root /usr/bin/terminal-agent$' "$listing"
		expect_match "the unit" '^-rw-r--r-- root:root /usr/lib/systemd/system/terminal-agent.service$' "$listing"
		expect_match "the udev rule" '^-rw-r--r-- root:root /usr/lib/udev/rules.d/70-terminal-agent.rules$' "$listing"
		expect_match "the directory of the configuration is for root and the service" '^drwxr-x--- root:terminal-agent /etc/terminal-agent$' "$listing"
		expect "what is of others, or writable for others" "" "$(grep -vE '^.{5}-.{2}-. root:(root|terminal-agent) ' <<<"$listing" || true)"
		expect "an active configuration" "" "$(grep -F "$config" <<<"$listing" || true)"
		expect "scripts" "preinstall postinstall preuninstall postuninstall" \
			"$(query "$file" --scripts | sed -n 's/ scriptlet (using \/bin\/sh):$//p' | paste -sd ' ')"
		expect "needs, beside rpm itself" "/usr/sbin/useradd tzdata" "$(query "$file" --requires | grep -v '^rpmlib' | sort | paste -sd ' ')"
	done
}

# in_root ARGUMENT...: rpm, in the root, where Debian's packages are none of its
# own. Prints what it and the scripts say, but not Debian's advice against rpm.
in_root() {
	local said code=0
	said=$(rpm --root "$root" --nodeps "$@" 2>&1) || code=$?
	[ -z "$said" ] || grep -v '^rpm: ' <<<"$said" || true
	return "$code"
}

# in_chroot COMMAND...
in_chroot() { chroot "$root" "$@"; }

enabled() { [ -L "$root$wants" ] && echo enabled || echo disabled; }

lifecycle() {
	local file said
	file=$(the_rpm x86_64)
	root=$work/root
	over_debian "$root"
	mount -t proc proc "$root/proc"

	chapter "rpm -i"
	said=$(in_root -i --ignoreos "$file") || fail "rpm -i: $said"
	quote <<<"$said"
	expect_match "it says what to type" "terminal-agent config init .*--terminal-id" "$said"
	expect "the user's groups" "terminal-agent dialout" "$(in_chroot id -Gn terminal-agent)"
	expect "its shell" /sbin/nologin "$(in_chroot getent passwd terminal-agent | cut -d: -f7)"
	expect "the directory of the configuration" "root:terminal-agent 750" "$(in_chroot stat -c '%U:%G %a' /etc/terminal-agent)"
	expect "the service at the next boot" enabled "$(enabled)"
	expect "rpm -V" "" "$(in_root -V terminal-agent)"
	expect_match "the program runs" "^terminal-agent $(query "$file" --qf '%{VERSION}' | sed 's/[.+]/\\&/g') " "$(in_chroot terminal-agent version)"

	chapter "rpm -U over it, with a configuration and a journal there"
	in_chroot install -o root -g terminal-agent -m 0640 /dev/null "$config"
	in_chroot install -d -o terminal-agent -g terminal-agent -m 0700 "$state"
	in_chroot touch "$state/journal"
	said=$(in_root -U --force --ignoreos "$file") || fail "rpm -U: $said"
	expect "it says" "" "$said"
	expect "the configuration" "root:terminal-agent 640" "$(in_chroot stat -c '%U:%G %a' "$config")"
	expect "the service at the next boot" enabled "$(enabled)"

	chapter "rpm -U after systemctl disable"
	rm "$root$wants"
	said=$(in_root -U --force --ignoreos "$file") || fail "rpm -U: $said"
	expect "the service at the next boot" disabled "$(enabled)"

	chapter "rpm -e"
	ln -s /usr/lib/systemd/system/terminal-agent.service "$root$wants"
	said=$(in_root -e terminal-agent) || fail "rpm -e: $said"
	expect "it says" "" "$said"
	expect "the service" disabled "$(enabled)"
	expect "configuration and journal" "yes" "$([ -e "$root$config" ] && [ -e "$root$state/journal" ] && echo yes)"
	expect "what else is left" "" "$(find "$root/usr" -xdev -name '*terminal-agent*')"

	chapter "rpm -i again"
	said=$(in_root -i --ignoreos "$file") || fail "rpm -i: $said"
	expect "it says" "" "$said"
	expect "the service at the next boot" enabled "$(enabled)"
}

inside() {
	contents
	lifecycle
	summary
}

outside() {
	need_root
	need rpm rpm mmdebstrap mmdebstrap unshare util-linux
	the_rpm x86_64 >/dev/null
	debian >/dev/null
	try_in_own_world "${BASH_SOURCE[0]}" inside
}

"${1:-outside}"
