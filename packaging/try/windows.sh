#!/usr/bin/env bash
# The MSI and the service commands, tried on Windows as far as Wine is Windows:
# silent installation, an operation over a COM port, the service commands, stop,
# upgrade and power cut in mid-closing, signature, removal. What Wine cannot show
# is in packaging/windows-checklist.md.
#
#	outside                          Wine 10 in a root of its own (wine.sh)
#	terminal-dispatcher  --------->  terminal-agent, a service
#	terminal-simulator   --------->  COM12, a pseudo terminal
#
#	packaging/try/windows.sh                  # after make build packages: 3 minutes, 5 the first time
#	packaging/try/windows.sh tests [PACKAGE]  # go test of every package, on Windows
#
# TRY_MSI is the package to try; default the one in dist/.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/wine.sh"

terminal=$account-T0001
windows=         # the root of the machine, as seen from here
program_files='C:\Program Files\terminal-agent'
exe="$program_files\\terminal-agent.exe"
program_data= # C:\ProgramData\terminal-agent, as seen from here
later=99.0.0 # the version of the upgrade

# --- the machine ---

power_on() {
	chapter "A Windows PC with a terminal at COM12"
	mkdir -p "$work/terminals"
	mount_machine "$work/pc"
	windows=$work/pc/root
	ttys=$windows/ports
	mkdir -p "$ttys" "$windows/packages"
	local c=$windows/root/.wine/drive_c
	program_data=$c/ProgramData/terminal-agent
	installed=$c/"Program Files/terminal-agent"
	cp "$msi" "$windows/packages/this.msi"
	cp "$work/later.msi" "$windows/packages/later.msi"
	build_elevated
	cp "$work/elevated"/elevated.exe* "$windows/packages"
	mkfifo "$work/keyboard"
	exec 9<>"$work/keyboard" # somebody holds it open
	boot
	pc reg add 'HKLM\Software\Wine\Ports' /v COM12 /t REG_SZ /d "/ports/terminal-$terminal" /f
	shut_down
	boot
	expect "wine --version" "wine-10" "$(in_machine "$work/pc" wine --version 2>/dev/null | cut -d. -f1)"
}

# boot: somebody is logged on from now on. Wine shuts down when nobody is.
boot() {
	in_machine "$work/pc" wine cmd <"$work/keyboard" >"$work/screen" 2>&1 &
	user=$!
}

log_off() {
	echo exit >"$work/keyboard"
	wait "$user" || true
}

# shut_down: the services are told that Windows shuts down, and then all ends.
shut_down() {
	log_off
	timeout 60 chroot "$windows" env -i "${wine_env[@]}" wineserver -w || fail "Windows does not shut down"
}

# power_cut ends every program at once.
power_cut() {
	in_machine "$work/pc" wineserver -k || true
	wait "$user" || true
}

# windows COMMAND...: sets $said and $rc. Its output goes to a file: what it
# starts would keep a pipe open.
windows() {
	rc=0
	timeout 180 chroot "$windows" env -i "${wine_env[@]}" wine "$@" >"$work/said" 2>&1 </dev/null || rc=$?
	said=$(tr -d '\r' <"$work/said")
}

# as_admin COMMAND...: the same, as from a prompt that was opened with "Run as
# administrator". Wine gives a program more rights if its manifest asks for them;
# a small one does and hands them on.
as_admin() { windows 'Z:\packages\elevated.exe' "$@"; }

build_elevated() {
	local dir=$work/elevated
	mkdir "$dir"
	cat >"$dir/main.go" <<-'EOF'
		package main

		import (
			"os"
			"os/exec"
		)

		func main() {
			c := exec.Command(os.Args[1], os.Args[2:]...)
			c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
			if c.Run() != nil && c.ProcessState == nil {
				os.Exit(126)
			}
			os.Exit(c.ProcessState.ExitCode())
		}
	EOF
	cat >"$dir/elevated.exe.manifest" <<-'EOF'
		<assembly xmlns="urn:schemas-microsoft-com:asm.v1" manifestVersion="1.0">
		<trustInfo xmlns="urn:schemas-microsoft-com:asm.v3"><security><requestedPrivileges>
		<requestedExecutionLevel level="requireAdministrator" uiAccess="false"/>
		</requestedPrivileges></security></trustInfo></assembly>
	EOF
	(cd "$dir" && GOOS=windows GOARCH=amd64 CGO_ENABLED=0 go build -o elevated.exe main.go)
}

# pc COMMAND...: as anybody, and it has to end well.
pc() {
	windows "$@"
	[ "$rc" = 0 ] || fail "$*: exit code $rc: $said"
}

# agent ARGUMENT...: the installed program, as a person calls it.
agent() { as_admin "$exe" "$@"; }

# expect_agent RC WORDS ARGUMENT...
expect_agent() {
	agent "${@:3}"
	[[ $rc = "$1" && $said = *"$2"* ]] || fail "terminal-agent ${*:3}: exit code $rc: $said
wanted: $1 and $2"
	checks=$((checks + 1))
	say "terminal-agent ${*:3}: exit code $rc: ${said//$'\n'/ / }"
}

# msiexec ARGUMENT...: sets $rc. Its log is in $work/msi.log.
msiexec() {
	rm -f "$windows/msi.log"
	as_admin msiexec "$@" /qn '/l*v' 'Z:\msi.log'
	cp "$windows/msi.log" "$work/msi.log" 2>/dev/null || : >"$work/msi.log"
}

expect_msiexec() {
	msiexec "${@:2}"
	expect "msiexec ${*:2}: exit code" "$1" "$rc"
}

service_is() { agent service status; [[ $said = *"$1"* ]]; }

on_failure() {
	say "the machine said last:"
	[ ! -f "$work/said" ] || tail -n 20 "$work/said" | quote
	[ ! -f "$work/msi.log" ] || tail -n 20 "$work/msi.log" | tr -d '\0\r' | quote
	[ ! -f "$work/terminals/$terminal/says" ] || tail -n 5 "$work/terminals/$terminal/says" | quote
}

# --- the packages ---

the_msi() {
	local found
	found=${TRY_MSI:-$(find "$checkout/dist" -name 'terminal-agent_*_windows_amd64.msi' 2>/dev/null | head -n 1)}
	[ -f "$found" ] || cannot "missing: dist/terminal-agent_*_windows_amd64.msi (make packages)"
	echo "$found"
}

# build_later makes an MSI of a later version from the same sources, signed with
# a certificate made for it, twice.
build_later() {
	chapter "A later version, signed"
	local dir=$work/stage
	mkdir "$dir"
	cp "$checkout/LICENSE" "$checkout/packaging/terminal-agent.toml" "$dir"
	echo "a later version" >"$dir/THIRD-PARTY-LICENSES"
	(cd "$checkout" && GOOS=windows GOARCH=amd64 CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$later" -o "$dir/terminal-agent.exe" ./cmd/terminal-agent)
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=terminalops try" -addext extendedKeyUsage=codeSigning \
		-keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
	local build time
	time=$(date +%s)
	for build in one two; do
		env EXE="$dir/terminal-agent.exe" VERSION="$later" OUT="$work/$build" SOURCE_DATE_EPOCH="$time" \
			SIGN_CERT="$work/cert.pem" SIGN_KEY="$work/key.pem" "$checkout/packaging/msi/build.sh"
	done
	cmp "$work/one"/*.msi "$work/two"/*.msi || fail "two builds differ"
	mv "$work/one"/*.msi "$work/later.msi"
	say "two builds are the same, $(stat -c %s "$work/later.msi") bytes"
	osslsigncode verify -CAfile "$work/cert.pem" -in "$work/later.msi" >"$work/said" 2>&1 || fail "osslsigncode verify: $(cat "$work/said")"
	expect_match "osslsigncode verify: ok" "^Signature verification: ok" "$(cat "$work/said")"
}

# --- the story ---

install_unconfigured() {
	chapter "msiexec without properties"
	expect_msiexec 0 /i 'Z:\packages\this.msi'
	expect "the files" "LICENSE.txt THIRD-PARTY-LICENSES.txt reference.toml terminal-agent.exe" "$(find "$installed" -type f -printf '%f\n' | sort | paste -sd' ')"
	[ ! -e "$program_data" ] || fail "there is a $program_data"
	expect_agent 1 "not installed" service status
	expect_agent 78 "config init" service install
	windows "$exe" service stop
	expect_match "not as an administrator: $said" 'only an administrator' "$said"
	expect_msiexec 0 /x 'Z:\packages\this.msi'
	[ ! -e "$installed" ] || fail "left behind: $(ls "$installed")"
	say "removed again, nothing is left"
}

# refuse: 67 is what Wine makes of a launch condition (1603), 91 of an action
# that failed (1627), 103 of a command line that msiexec does not take (1639).
refuse() {
	chapter "Properties that cannot be right"
	local id=TERMINAL_ID=$terminal url=BROKER_URL=$broker link=TERMINAL_LINK=serial:COM12
	expect_refused 67 "$url"
	expect_refused 67 BROKER_USERNAME=till
	expect_refused 67 "$url" "$id" "$link\\"
	expect_refused 103 "$url" 'TERMINAL_ID=T"1' "$link"
	expect_refused 91 "$url" "$id" TERMINAL_LINK=modem:7
	expect_refused 91 "$url" "$id" "$link" 'CA_FILE=C:\nowhere.pem'
}

# foreign: somebody has unpacked the zip, and has a service that way.
foreign() {
	chapter "The package, where there is a service already that is not its own"
	local zip=$windows/root/.wine/drive_c/zip
	mkdir "$zip"
	cp "$work/stage/terminal-agent.exe" "$zip"
	exe='C:\zip\terminal-agent.exe'
	expect_agent 0 "is written" config init --config 'C:\zip\agent.toml' --state-dir 'C:\zip\state' --broker-url "$broker" --terminal-id "$terminal" --link serial:COM12
	expect_agent 0 "installed" service install --config 'C:\zip\agent.toml'
	expect_agent 0 "running" service start
	expect_refused 91 "BROKER_URL=$broker" "TERMINAL_ID=$terminal" TERMINAL_LINK=serial:COM12
	expect_agent 0 "" service start # the package has stopped it
	expect_agent 0 "running" service status
	expect_agent 0 "uninstalled" service uninstall
	exe="$program_files\\terminal-agent.exe"
	rm -r "$zip"
}

# expect_refused RC PROPERTY...
expect_refused() {
	expect_msiexec "$1" /i 'Z:\packages\this.msi' "${@:2}"
	[ ! -e "$installed" ] || fail "left behind: $(find "$installed")"
	[ ! -e "$program_data" ] || fail "left behind: $(find "$program_data")"
}

install() {
	chapter "A silent roll-out"
	local start=$SECONDS
	expect_msiexec 0 /i 'Z:\packages\this.msi' "BROKER_URL=$broker" "TERMINAL_ID=$terminal" TERMINAL_LINK=serial:COM12
	say "it took $((SECONDS - start)) s"
	expect "the configuration" "state_dir = \"C:\\\\ProgramData\\\\terminal-agent\\\\state\" urls = [\"$broker\"] id = \"$terminal\" link = \"serial:COM12\"" \
		"$(grep -E '^(state_dir|urls|id|link) ' "$program_data/terminal-agent.toml" | paste -sd' ')"
	await 120 "the service runs" service_is running
	sum=$(configuration_sum)
	windows reg query 'HKLM\System\CurrentControlSet\Services\terminal-agent' /v ImagePath
	quote <<<"$said"
	windows reg query 'HKLM\System\CurrentControlSet\Services\EventLog\Application\terminal-agent'
	expect "the event source is there: exit code" 0 "$rc"
}

configuration_sum() { sha256sum <"$program_data/terminal-agent.toml" | cut -c1-16; }

end_of_day() {
	chapter "An end of day, from the API over COM12 and back"
	switch_on "$terminal" --fast
	ask_end_of_day "$terminal"
	expect_closed "$terminal" 180 1
}

service_commands() {
	chapter "The service commands, each twice"
	expect_agent 0 "running" service status
	expect_agent 0 "running already" service start
	expect_agent 0 "running" service restart
	expect_agent 0 "running" service restart
	expect_agent 0 "stopped" service stop
	expect_agent 0 "stopped already" service stop
	expect_agent 1 "stopped" service status
	expect_agent 1 "stopped" service status
	expect_agent 0 "uninstalled" service uninstall
	expect_agent 0 "not installed" service uninstall
	expect_agent 1 "not installed" service stop
	expect_agent 1 "not installed" service start
	expect_agent 0 "installed" service install
	expect_agent 0 "installed already" service install
	expect_agent 0 "running" service start
	expect_agent 0 "running already" service start
}

stop_in_mid_closing() {
	chapter "A stop while the terminal closes its day"
	begin_closing
	local start=${EPOCHREALTIME/./}
	expect_agent 0 "stopped" service stop
	say "the stop took $(((${EPOCHREALTIME/./} - start) / 1000)) ms"
	expect_agent 0 "running" service start
	expect_closed "$terminal" 240 1
}

# begin_closing returns when the terminal is at work, and has not closed yet.
begin_closing() {
	switch_on "$terminal"
	ask_end_of_day "$terminal"
	await_terminal "$terminal" "waiting for the host"
	say "closed by then: $(closings "$work/terminals/$terminal/log")"
}

upgrade_in_mid_closing() {
	chapter "An upgrade to $later while the terminal closes its day"
	begin_closing
	expect_msiexec 0 /i 'Z:\packages\later.msi'
	expect_agent 0 "$later" version
	await 120 "the service runs" service_is running
	expect "the configuration is what it was" "$sum" "$(configuration_sum)"
	expect_closed "$terminal" 240 1
}

cut_in_mid_closing() {
	chapter "A power cut while the terminal closes its day"
	begin_closing
	power_cut
	say "closed when it is off: $(closings "$work/terminals/$terminal/log")"
	boot
	await 180 "Windows boots, and the service runs" service_is running
	expect_closed "$terminal" 240 1
}

shutdown_in_mid_closing() {
	chapter "Windows shuts down while the terminal closes its day"
	begin_closing
	shut_down
	boot
	await 180 "Windows boots, and the service runs" service_is running
	expect_closed "$terminal" 240 1
}

# downgrade does by hand what Windows does in every upgrade and Wine does not: it
# tells the package that goes of the one that comes.
downgrade() {
	chapter "Back to the version before"
	local service='HKLM\System\CurrentControlSet\Services\terminal-agent'
	pc reg add "$service" /v SetBy /d administrator /f # would go with the service
	expect_msiexec 0 /x 'Z:\packages\later.msi' 'UPGRADINGPRODUCTCODE={00000000-0000-0000-0000-000000000001}' PURGE=1
	[ ! -e "$installed" ] || fail "left behind: $(ls "$installed")"
	expect_msiexec 0 /i 'Z:\packages\this.msi'
	windows reg query "$service" /v SetBy
	expect "what the administrator has set at the service is there: exit code" 0 "$rc"
	agent version
	[[ $said != *"$later"* ]] || fail "it is still $said"
	await 120 "the service runs: $said" service_is running
	expect "the configuration is what it was" "$sum" "$(configuration_sum)"
	switch_on "$terminal" --fast
	ask_end_of_day "$terminal"
	expect_closed "$terminal" 180 1
}

uninstall() {
	chapter "Removal, and installation over what it has left"
	expect_msiexec 0 /x 'Z:\packages\this.msi'
	[ ! -e "$installed" ] || fail "left behind: $(ls "$installed")"
	no_service
	expect "the configuration is what it was" "$sum" "$(configuration_sum)"
	expect "the journal is" there "$([ -s "$program_data/state/journal.db" ] && echo there)"
	expect_msiexec 0 /i 'Z:\packages\this.msi'
	await 120 "with the configuration of before, the service runs" service_is running

	chapter "Removal with PURGE=1"
	expect_msiexec 0 /x 'Z:\packages\this.msi' PURGE=1
	[ ! -e "$installed" ] || fail "left behind: $(ls "$installed")"
	[ ! -e "$program_data" ] || fail "left behind: $(find "$program_data")"
	no_service
}

no_service() {
	local key
	for key in terminal-agent 'EventLog\Application\terminal-agent'; do
		windows reg query "HKLM\System\CurrentControlSet\Services\$key"
		expect "reg query Services\\$key: exit code" 1 "$rc"
	done
}

story() {
	start_cloud "$terminal"
	build_later
	power_on
	install_unconfigured
	refuse
	foreign
	install
	end_of_day
	service_commands
	stop_in_mid_closing
	upgrade_in_mid_closing
	shutdown_in_mid_closing
	cut_in_mid_closing
	downgrade
	uninstall
	summary
}

# --- the tests ---

tests() {
	make_wine_root
	cd "$checkout"
	[ $# -gt 0 ] || set -- ./...
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 go test -timeout 20m -exec "$here/wine-exec.sh" "$@" || exit $?
}

case ${1:-} in
tests)
	need go golang
	tests "${@:2}"
	;;
story)
	msi=$(the_msi)
	story
	;;
"")
	need_root
	need curl curl jq jq go golang wixl wixl msibuild msitools openssl openssl osslsigncode osslsigncode
	need_programs
	the_msi >/dev/null
	make_wine_root
	try_in_own_world "$0" story
	;;
*)
	echo "usage: windows.sh [tests [PACKAGE...]]" >&2
	exit 2
	;;
esac
