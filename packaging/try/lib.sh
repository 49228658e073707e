# shellcheck shell=bash
# shellcheck disable=SC2034 # some of it only one script uses
# What the scripts in this directory share. Each of them tries a package for
# real, on any Linux machine, as root, from a checkout:
#
#	make build packages
#	packaging/try/deb.sh        # a booted Debian: 2 minutes, 3 the first time
#	packaging/try/vm.sh         # three power cuts: 3 to 4 minutes; CUTS=6 for each moment
#
# A script tells what it does and sees, ends with 1 at the first thing that is
# not as it should be, and with 77 where it cannot run: it names what is
# missing. It leaves nothing behind but $TRY_CACHE, the Debian that the next run
# takes again.
#
#	TRY_CACHE   default /var/tmp/terminalops-try
#	TRY_DIR     for what is gone afterwards; default /var/tmp
#	TRY_DEB     the package to try; default the one in dist/ for amd64
#
# A script that calls try_in_own_world runs twice: outside it prepares, inside
# it has a network, processes and mounts of its own. No port of the machine is
# taken, and whatever was started or mounted is gone when it ends.

set -Eeuo pipefail
trap 'printf "   FAIL %s, line %s: %s\n" "${BASH_SOURCE[0]}" "$LINENO" "$BASH_COMMAND" >&2' ERR
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$here/../.." && pwd)
export PATH="$PATH:/usr/sbin:/sbin"
export TRY_CACHE=${TRY_CACHE:-/var/tmp/terminalops-try}

# --- the story ---

began=$SECONDS
checks=0

chapter() { printf '\n== %s\n' "$*"; }
say() { printf '   %s\n' "$*"; }
quote() { sed 's/^/   | /'; }

fail() {
	printf '   FAIL %s\n' "$*"
	if declare -F on_failure >/dev/null; then on_failure; fi
	exit 1
} >&2

cannot() {
	printf 'cannot run here: %s\n' "$*" >&2
	exit 77
}

# need PROGRAM PACKAGE...: for each pair.
need() {
	local missing=()
	while [ $# -gt 0 ]; do
		command -v "$1" >/dev/null || missing+=("$1 (package $2)")
		shift 2
	done
	[ ${#missing[@]} -eq 0 ] || cannot "missing: $(printf '%s, ' "${missing[@]}" | sed 's/, $//')"
}

need_root() { [ "$(id -u)" = 0 ] || cannot "not root"; }

# expect WHAT WANTED GOT
expect() {
	[ "$2" = "$3" ] || fail "$1: ${3:-nothing}, ${2:-nothing} wanted"
	checks=$((checks + 1))
	say "$1: ${3:-nothing}"
}

# expect_match WHAT PATTERN GOT: PATTERN is an extended regular expression.
expect_match() {
	grep -qE -- "$2" <<<"$3" || fail "$1: does not match $2:
$3"
	checks=$((checks + 1))
	say "$1"
}

# await SECONDS WHAT COMMAND...: until the command succeeds. What it takes is
# found out by asking, 20 times a second.
await() {
	local seconds=$1 what=$2 from=${EPOCHREALTIME/./} now
	shift 2
	until "$@" >/dev/null 2>&1; do
		now=${EPOCHREALTIME/./}
		[ $((now - from)) -lt $((seconds * 1000000)) ] || fail "$what: not within $seconds s"
		sleep 0.05
	done
	now=${EPOCHREALTIME/./}
	checks=$((checks + 1))
	say "$(printf '%s: after %d.%d s' "$what" $(((now - from) / 1000000)) $(((now - from) / 100000 % 10)))"
}

summary() { printf '\n%s: all well: %d things seen in %d s\n' "$(basename "$0")" "$checks" $((SECONDS - began)); }

# --- the world ---

# try_in_own_world COMMAND...: the command, in namespaces and with a directory
# $work of its own that are gone afterwards.
try_in_own_world() {
	local code=0
	unshare --net --pid --mount --fork --kill-child --mount-proc -- true 2>/dev/null || cannot "namespaces of our own are not allowed"
	work=$(mktemp -d "${TRY_DIR:-/var/tmp}/terminalops-try.XXXXXX")
	export work
	world=
	trap end_world EXIT
	trap 'exit 130' INT TERM
	unshare --net --pid --mount --fork --kill-child --mount-proc -- "$@" &
	world=$!
	wait "$world" || code=$?
	world=
	[ "$code" = 0 ] || exit "$code"
}

# end_world: unshare takes no other signal, and takes everything along.
end_world() {
	if [ -n "$world" ]; then
		kill -KILL "$world"
		wait "$world" 2>/dev/null || true
	fi
	rm -rf --one-file-system "$work"
}

# debian prints the directory of a Debian 12 with systemd and a kernel. It is
# never written to.
debian() {
	local root=$TRY_CACHE/bookworm half
	if [ ! -d "$root" ]; then
		say "making a Debian in $root, once" >&2
		mkdir -p "$TRY_CACHE"
		half=$(mktemp -d "$TRY_CACHE/half.XXXXXX")
		# The initial RAM disk gets the drivers of an emulated disk and no others: it is loaded at each boot.
		printf 'MODULES=list\n' >"$half.conf"
		printf '%s\n' virtio_pci virtio_blk ext4 >"$half.modules"
		mmdebstrap --quiet --variant=minbase --include=systemd-sysv,dbus,udev,adduser,procps,kmod,iproute2,initramfs-tools,linux-image-amd64 \
			--essential-hook="mkdir -p \"\$1/etc/initramfs-tools/conf.d\"" \
			--essential-hook="copy-in $half.conf /etc/initramfs-tools/conf.d" \
			--essential-hook="upload $half.modules /etc/initramfs-tools/modules" \
			bookworm "$half" </dev/null >&2 || cannot "mmdebstrap has not made a Debian"
		rm "$half.conf" "$half.modules"
		mv -T "$half" "$root"
	fi
	echo "$root"
}

# the_deb prints the package's file.
the_deb() {
	local found
	[ "$(uname -m)" = x86_64 ] || cannot "not an x86_64 machine"
	found=${TRY_DEB:-$(find "$checkout/dist" -name 'terminal-agent_*_amd64.deb' 2>/dev/null | head -n 1)}
	[ -f "$found" ] || cannot "missing: dist/terminal-agent_*_amd64.deb (make packages)"
	echo "$found"
}

need_programs() {
	local p
	for p in terminal-dispatcher terminal-simulator; do
		[ -x "$checkout/bin/$p" ] || cannot "missing: bin/$p (make build)"
	done
}

# over_debian DIRECTORY: what is written there stays in memory, above the cached
# Debian.
over_debian() {
	mkdir -p "$1" "$work/above"
	mount -t tmpfs -o size=1g above "$work/above"
	mkdir "$work/above/upper" "$work/above/work"
	mount -t overlay overlay -o "lowerdir=$(debian),upperdir=$work/above/upper,workdir=$work/above/work" "$1"
}

# --- the cloud, and its API ---

account=T11223351
api=http://127.0.0.1:8080
broker=tcp://127.0.0.1:1883

# start_cloud TERMINAL...: the dispatcher with the broker inside it. Its windows
# are longer than what a PC needs to boot, even one that is only emulated.
start_cloud() {
	ip link set lo up
	cat >"$work/dispatcher.toml" <<-EOF
		state_dir = "$work/dispatcher"
		[times]
		start_deadline = "8m"
		silence_window = "8m"
	EOF
	"$checkout/bin/terminal-dispatcher" serve --config "$work/dispatcher.toml" >"$work/dispatcher.log" 2>&1 &
	cloud=$!
	await 120 "the cloud serves" curl -s "$api"
	"$checkout/bin/terminal-dispatcher" terminals add --config "$work/dispatcher.toml" --account "$account" "$@"
	token=$("$checkout/bin/terminal-dispatcher" token --config "$work/dispatcher.toml" --account "$account" --ttl 24h)
}

# call PATH [CURL ARGUMENT...]
call() {
	local path=$1
	shift
	curl -sS --fail-with-body --max-time 20 -H "Authorization: Bearer $token" "$@" "$api/v1/admin/terminals/operations$path"
}

# ask_end_of_day TERMINAL: sets $operation, its id.
ask_end_of_day() {
	local answer
	answer=$(call "" --json "{\"terminal_id\":\"$1\",\"operation\":\"end_of_day\"}") || fail "POST: $answer"
	operation=$(jq -r .id <<<"$answer")
	expect "POST end_of_day for $1" PENDING "$(jq -r .status <<<"$answer")"
}

ended() {
	local status
	status=$(call "/$operation" | jq -r .status) && [ -n "$status" ] && [ "$status" != PENDING ]
}

# expect_closed TERMINAL SECONDS CLOSINGS: the operation ends COMPLETED, with the
# totals that are the last in the terminal's own log, which tells of so many
# ends of day in all, and of nothing that must never be sent.
expect_closed() {
	local log=$work/terminals/$1/log result
	await "$2" "the operation has ended" ended
	result=$(call "/$operation")
	[ "$(jq -r .status <<<"$result")" = COMPLETED ] || fail "not COMPLETED: $result"
	expect "it says" "$(truth "$log")" "$(jq -r '"\(.result.purchases_count) payments, \(.result.purchases_amount) cents"' <<<"$result")"
	expect "ends of day in the terminal's own log" "$3" "$(closings "$log")"
	expect "violations there" 0 "$(violations "$log")"
}

# violations LOG: but for what is pardoned, a regular expression.
violations() { grep '"what":"violation"' "$1" | grep -Evc "${pardoned:-^$}" || true; }

truth() {
	jq -rs '[.[] | select(.what == "end_of_day")] | last | .totals.schemes // []
		| "\([.[].count] | add // 0) payments, \([.[].amount] | add // 0) cents"' "$1"
}

closings() { grep -c '"what":"end_of_day"' "$1" || true; }

# --- the terminal ---

declare -A terminals=() # the simulators' processes
beside=()               # what is put before the simulator's command
ttys=                   # where the terminals' ports are; default: $work/terminals

# switch_on TERMINAL [FLAG...]: a terminal that was never used before.
switch_on() {
	local id=$1 dir=$work/terminals/$1
	shift
	switch_off "$id"
	rm -rf "${dir:?}"
	mkdir -p "$dir"
	"${beside[@]}" "$checkout/bin/terminal-simulator" --link "pty:$(port_of "$id")" --log "$dir/log" "$@" >"$dir/says" 2>&1 &
	terminals[$id]=$!
	await 60 "$id is switched on" grep -q ^ready "$dir/says"
}

switch_off() {
	[ -n "${terminals[$1]:-}" ] || return 0
	kill "${terminals[$1]}"
	wait "${terminals[$1]}" || true
	unset "terminals[$1]"
}

port_of() { echo "${ttys:-$work/terminals}/terminal-$1"; }

# await_terminal TERMINAL PATTERN: until the terminal says so.
await_terminal() { await 180 "$1: \"$2\"" grep -qE -- "$2" "$work/terminals/$1/says"; }
