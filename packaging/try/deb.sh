#!/usr/bin/env bash
# The Debian package, tried on a booted Debian 12: installed, configured,
# started, killed, hung, misconfigured, upgraded, stopped, removed, purged. The
# Debian is a container with an init of its own; the cloud and the terminal are
# outside of it. See lib.sh for how to run it.
#
#	outside                          systemd-nspawn: Debian 12 with systemd
#	terminal-dispatcher  --------->  terminal-agent.service
#	terminal-simulator   --------->  /dev/terminal-ID, a pseudo terminal of the
#	                                 container, root:dialout 0660
#
# A port as a USB driver makes it: root's, and the group's. So it shows that the
# service reaches a port by its group, through all of its hardening; what a real
# serial driver does shows vm.sh.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

terminal=$account-T0001
config=/etc/terminal-agent/terminal-agent.toml
root= # of the container, as seen from here
leader= # its init

# --- the container ---

boot() {
	chapter "A Debian boots"
	root=$work/root
	over_debian "$root"
	mkdir -p "$work/terminals" "$root/packages"
	cp "$(the_deb)" "$root/packages/this.deb"
	# Without these capabilities and this filter, rules about devices and
	# system calls would be ignored silently.
	SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --directory="$root" --boot --register=no --keep-unit \
		--capability=all --system-call-filter=bpf --console=read-only \
		--bind="$work/terminals" --bind-ro="$checkout/bin" >"$work/console" 2>&1 </dev/null &
	container=$!
	await 180 "it is up" is_up
	guest mount -o "remount,gid=$(guest getent group dialout | cut -d: -f3),mode=0660" /dev/pts
	beside=(nsenter -t "$leader" -m --)
	ttys=/dev
}

is_up() {
	leader=$(pgrep -P "$container") && [[ $(guest systemctl is-system-running) =~ ^(running|degraded)$ ]]
}

guest() { nsenter -t "$leader" -a -- "$@"; }

# property NAME: of the unit.
property() { guest systemctl show --property="$1" --value terminal-agent; }

is() { [ "$(property "$1")" = "$2" ]; }

main_pid() { property MainPID; }

# installed prints the version.
installed() { guest dpkg-query -W terminal-agent | cut -f2; }

# log: of the unit, since mark.
log() { guest journalctl --sync && guest journalctl --quiet --no-pager --unit=terminal-agent --output=cat --after-cursor="$cursor"; }

mark() { cursor=$(guest journalctl --quiet --no-pager --lines=0 --show-cursor | sed -n 's/^-- cursor: //p'); }

on_failure() {
	[ -n "$leader" ] || return 0
	say "the end of the unit's log:"
	guest journalctl --quiet --no-pager --unit=terminal-agent --lines=30 | quote
	say "what the terminal said last:"
	tail -n 5 "$work/terminals/$terminal/says" | quote
}

# --- the story ---

install_unconfigured() {
	local said
	chapter "dpkg -i, without a configuration"
	said=$(guest dpkg -i /packages/this.deb 2>&1) || fail "dpkg -i: $said"
	quote <<<"$said"
	expect_match "it says what to type" "terminal-agent config init .*--terminal-id" "$said"
	expect "the package" "Status: install ok installed" "$(guest dpkg -s terminal-agent | grep ^Status)"
	expect "the unit" enabled "$(guest systemctl is-enabled terminal-agent)"
	guest systemctl start terminal-agent || fail "systemctl start fails"
	expect "started without a configuration, its condition holds" no "$(property ConditionResult)"
	expect "it is" inactive "$(property ActiveState)"
}

configure() {
	chapter "A configuration, and the service"
	guest terminal-agent config init --terminal-id "$terminal" --broker-url "$broker" --link "serial:$(port_of "$terminal")" | quote
	guest terminal-agent config check >"$work/said" 2>&1 || fail "config check: $(cat "$work/said")"
	quote <"$work/said"
	expect "the configuration's owner and mode" "root:terminal-agent 640" "$(guest stat -c '%U:%G %a' "$config")"
	expect "its directory's" "root:terminal-agent 750" "$(guest stat -c '%U:%G %a' "$(dirname "$config")")"
	await 180 "systemctl start, active, which is ready" guest systemctl start terminal-agent
	expect "it is" "notify active running success" "$(property Type) $(property ActiveState) $(property SubState) $(property Result)"
	expect "its user and groups" "terminal-agent dialout,terminal-agent" "$(guest ps -o user:20=,supgrp= -p "$(main_pid)" | awk '{print $1, $2}')"
	expect "its state directory's owner and mode" "terminal-agent:terminal-agent 700" "$(guest stat -c '%U:%G %a' /var/lib/terminal-agent)"
	say "$(guest systemctl show --property=WatchdogUSec,Restart,RestartPreventExitStatus,TimeoutStopUSec terminal-agent | paste -sd' ')"
}

end_of_day() {
	chapter "An end of day, from the API to the terminal and back"
	switch_on "$terminal" --fast
	ask_end_of_day "$terminal"
	expect_closed "$terminal" 180 1
	expect "lines that the journal finds by TERMINAL=, OPERATION= and KIND=, first and last" "accepted, finished" \
		"$(journal_of "$operation" | jq -rs '[.[] | select(.KIND == "end_of_day") | .MESSAGE | split(" ")[0]] | "\(first), \(last)"')"
	journal_of "$operation" | jq -r '"PRIORITY=\(.PRIORITY) MESSAGE=\(.MESSAGE)"' | quote
}

journal_of() { guest journalctl --sync && guest journalctl --quiet --no-pager --unit=terminal-agent --output=json "TERMINAL=$terminal" "OPERATION=$1"; }

hardening() {
	local figure
	chapter "How hard it is"
	# Debian 12 has systemd 252; what that does not know yet is said in the unit.
	expect "systemd-analyze verify says" "" "$(guest systemd-analyze verify --man=no /usr/lib/systemd/system/terminal-agent.service 2>&1 |
		sed -E "/Unknown key '(RestartSteps|RestartMaxDelaySec)'/d")"
	figure=$(guest systemd-analyze security --no-pager terminal-agent | tail -n 1)
	expect_match "systemd-analyze security: ${figure#* }" 'terminal-agent.service: ([01]\.[0-9]|2\.0) ' "$figure"
	grep -E '^(CapEff|NoNewPrivs|Seccomp):' "/proc/$(outside_pid)/status" | quote
}

# outside_pid is the service's process as seen from here.
outside_pid() { pgrep -x terminal-agent; }

killed() {
	local before
	chapter "SIGKILL, at rest"
	before=$(main_pid)
	guest kill -KILL "$before"
	await 180 "it is back" is_another "$before"
	expect "restarts" 1 "$(property NRestarts)"
	switch_on "$terminal" --fast
	ask_end_of_day "$terminal"
	expect_closed "$terminal" 180 1

	chapter "SIGKILL, while the terminal closes its day"
	switch_on "$terminal"
	ask_end_of_day "$terminal"
	await_terminal "$terminal" "waiting for the host"
	before=$(main_pid)
	guest kill -KILL "$before"
	say "closed by then: $(closings "$work/terminals/$terminal/log")"
	await 180 "it is back" is_another "$before"
	expect_closed "$terminal" 240 1
}

# is_another PID: the service is ready, with another process than PID. That one
# has to be seen gone first: it is active until then.
is_another() { [ "$(main_pid)" != "$1" ] && is ActiveState active; }

hung() {
	local before
	chapter "It hangs (SIGSTOP), with a watchdog of 5 s"
	drop_in "WatchdogSec=5"
	guest systemctl restart terminal-agent
	before=$(main_pid)
	mark
	guest kill -STOP "$before"
	await 180 "it is back" is_another "$before"
	expect "restarts" 1 "$(property NRestarts)"
	expect_match "systemd says why" "Watchdog timeout" "$(log)"
	rm -r "$root/etc/systemd/system/terminal-agent.service.d"
	guest systemctl daemon-reload
	guest systemctl restart terminal-agent
}

drop_in() {
	mkdir -p "$root/etc/systemd/system/terminal-agent.service.d"
	printf '[Service]\n%s\n' "$1" >"$root/etc/systemd/system/terminal-agent.service.d/try.conf"
	guest systemctl daemon-reload
}

reloaded() {
	local before
	chapter "systemctl reload, with another log_level"
	before=$(main_pid)
	cp "$root$config" "$work/right"
	printf 'log_level = "debug"\n%s\n' "$(grep -v '^log_level' "$work/right")" >"$root$config"
	mark
	guest systemctl reload terminal-agent
	await 180 "its log says so" logs_level DEBUG
	cat "$work/right" >"$root$config"
	guest systemctl reload terminal-agent
	await 180 "and when it is as it was" logs_level INFO
	log | grep -F "log level is" | quote
	expect "the process is the same" "$before" "$(main_pid)"
}

# logs_level LEVEL: the log says since mark that it is this.
logs_level() { log | grep -F "log level is $1;"; }

misconfigured() {
	local line
	chapter "A wrong configuration"
	cp "$root$config" "$work/right"
	sed 's/^link *=/lnik =/' "$work/right" >"$root$config"
	line=$(grep -n '^lnik' "$root$config" | cut -d: -f1)
	mark
	! guest systemctl restart terminal-agent 2>/dev/null || fail "systemctl restart succeeds"
	# One that waited for its restart would be activating (auto-restart).
	expect "it is" "failed failed exit-code, exit code $(property RestartPreventExitStatus), 0 restarts" \
		"$(property ActiveState) $(property SubState) $(property Result), exit code $(property ExecMainStatus), $(property NRestarts) restarts"
	expect_match "its log names the line, $line" "terminal-agent.toml.*\b$line\b" "$(log)"
	log | grep -F "$config" | quote
	guest dpkg -i /packages/this.deb >"$work/said" 2>&1 || fail "dpkg -i over it fails: $(cat "$work/said")"
	say "installed over it: dpkg does not fail"
	cat "$work/right" >"$root$config"
	await 180 "repaired, systemctl start" guest systemctl start terminal-agent
	expect "it is" active "$(property ActiveState)"
}

upgraded() {
	local here there before
	here=$(installed)
	there=$here.9
	chapter "An upgrade to $there, while the terminal closes its day"
	repack "$there"
	before=$(sha256sum <"$root$config")
	switch_on "$terminal"
	ask_end_of_day "$terminal"
	await_terminal "$terminal" "waiting for the host"
	guest dpkg -i /packages/other.deb >"$work/said" 2>&1 || fail "dpkg -i: $(cat "$work/said")"
	expect "installed" "$there" "$(installed)"
	expect "it is" active "$(property ActiveState)"
	expect_closed "$terminal" 240 1
	expect "the configuration's SHA-256" "$before" "$(sha256sum <"$root$config")"

	chapter "The downgrade"
	guest dpkg -i /packages/this.deb >"$work/said" 2>&1 || fail "dpkg -i: $(cat "$work/said")"
	expect "installed" "$here" "$(installed)"
	expect "the configuration's SHA-256" "$before" "$(sha256sum <"$root$config")"
	switch_on "$terminal" --fast
	ask_end_of_day "$terminal"
	expect_closed "$terminal" 180 1
}

# repack VERSION: the same package as other.deb, with another version.
repack() {
	dpkg-deb -R "$root/packages/this.deb" "$work/other"
	sed -i "s/^Version: .*/Version: $1/" "$work/other/DEBIAN/control"
	dpkg-deb -Zgzip -z1 -b "$work/other" "$root/packages/other.deb" >/dev/null
}

stopped() {
	local from
	chapter "systemctl stop, while the terminal closes its day and is silent for half a minute"
	switch_on "$terminal" --scenario half-frame
	ask_end_of_day "$terminal"
	await_terminal "$terminal" "waiting for the host"
	from=$SECONDS
	guest systemctl stop terminal-agent
	say "stopped after $((SECONDS - from)) s"
	[ $((SECONDS - from)) -le 30 ] || fail "more than 30 s"
	# Killed by systemd, its result would be timeout.
	expect "it ended" "inactive, success" "$(property ActiveState), $(property Result)"
	expect "the cloud says" PENDING "$(call "/$operation" | jq -r .status)"
	guest systemctl start terminal-agent
	expect_closed "$terminal" 240 1
}

removed() {
	local connection
	chapter "apt-get remove"
	mark
	guest systemctl restart terminal-agent
	await 180 "it is connected" logs_connection
	connection=$(log | last_connection)
	apt_get remove
	expect "the unit" not-found "$(property LoadState)"
	expect "processes" "" "$(outside_pid || true)"
	expect "the configuration is there" "$config" "$(guest ls "$config")"
	say "the state: $(guest find /var/lib/terminal-agent -type f -printf '%f %s  ')"

	chapter "Installed again"
	mark
	guest dpkg -i /packages/this.deb >"$work/said" 2>&1 || fail "dpkg -i: $(cat "$work/said")"
	expect "it is" active "$(property ActiveState)"
	await 180 "it is connected" logs_connection
	# They are counted in the journal, from one.
	expect "its journal goes on with connection" $((connection + 1)) "$(log | last_connection)"
	switch_on "$terminal" --fast
	ask_end_of_day "$terminal"
	expect_closed "$terminal" 180 1
}

logs_connection() { [ -n "$(log | last_connection)" ]; }

# last_connection reads a log and prints the number of the last connection.
last_connection() { grep -oE 'connection=[0-9]+' | tail -n 1 | cut -d= -f2; }

purged() {
	chapter "apt-get purge"
	apt_get purge
	expect "the user" "" "$(guest getent passwd terminal-agent || true)"
	expect "processes" "" "$(outside_pid || true)"
	expect "files with its name" "" "$(guest find / -xdev -name '*terminal-agent*' -not -path '/proc/*')"
	expect "units with its name" "" "$(guest systemctl list-units --all --plain --no-legend 'terminal-agent*')"
}

apt_get() {
	guest env DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes "$1" terminal-agent >"$work/said" 2>&1 || fail "apt-get $1: $(cat "$work/said")"
}

from_archive() {
	local archive=$work/archive
	chapter "Without a package: the tar.gz, and service install"
	mkdir "$archive"
	tar -C "$archive" --strip-components=1 -xzf "$(the_archive)"
	install -m 0755 "$archive/terminal-agent" "$root/usr/local/bin/terminal-agent"
	service 78 "config init. writes one" install
	guest terminal-agent config init --terminal-id "$terminal" --broker-url "$broker" --link "serial:$(port_of "$terminal")" | quote
	service 1 "not installed" status
	service 1 "not installed" start
	service 0 "^installed: /usr/local/bin/terminal-agent" install
	service 0 "^installed already" install
	expect "the configuration's owner and mode" "root:terminal-agent 640" "$(guest stat -c '%U:%G %a' "$config")"
	service 1 "stopped" status
	service 0 "^running" start
	service 0 "^running already" start
	service 0 "^running" status
	expect_match "only root may" "only root" "$(guest setpriv --reuid=65534 --clear-groups terminal-agent service stop 2>&1 || true)"
	switch_on "$terminal" --fast
	ask_end_of_day "$terminal"
	expect_closed "$terminal" 180 1
	service 0 "^running" restart
	service 0 "^stopped" stop
	service 0 "^stopped already" stop
	service 0 "^uninstalled" uninstall
	service 0 "^not installed" uninstall
	expect "the unit" not-found "$(property LoadState)"
	expect "the journal is there" /var/lib/terminal-agent/journal.db "$(guest ls /var/lib/terminal-agent/journal.db)"
}

# service EXIT-CODE PATTERN COMMAND: terminal-agent service, what it says and how
# it ends.
service() {
	local code=0
	guest terminal-agent service "$3" >"$work/said" 2>&1 || code=$?
	expect "service $3 ends with" "$1" "$code"
	expect_match "and says: $(head -n 1 "$work/said")" "$2" "$(cat "$work/said")"
}

the_archive() {
	local found
	found=$(find "$checkout/dist" -name 'terminal-agent_*_linux_amd64.tar.gz' 2>/dev/null | head -n 1)
	[ -f "$found" ] || cannot "missing: dist/terminal-agent_*_linux_amd64.tar.gz (make packages)"
	echo "$found"
}

checked() {
	local said
	chapter "lintian"
	said=$(lintian --fail-on error --tag-display-limit 0 "$(the_deb)" 2>&1) || fail "it finds errors:
$said"
	quote <<<"${said:-nothing}"
	expect "errors" 0 "$(grep -c '^E:' <<<"$said" || true)"
}

inside() {
	start_cloud "$terminal"
	boot
	install_unconfigured
	configure
	end_of_day
	hardening
	killed
	hung
	reloaded
	misconfigured
	upgraded
	stopped
	removed
	purged
	from_archive
	checked
	summary
}

outside() {
	need_root
	need systemd-nspawn systemd-container mmdebstrap mmdebstrap unshare util-linux ip iproute2 \
		curl curl jq jq pgrep procps dpkg-deb dpkg lintian lintian
	need_programs
	the_deb >/dev/null
	the_archive >/dev/null
	debian >/dev/null
	try_in_own_world "${BASH_SOURCE[0]}" inside
}

"${1:-outside}"
