# A Windows machine for the scripts beside this file, to be sourced: Wine 10 of
# Debian trixie in a root of its own. (Wine 8 of bookworm lacks a library that
# Go needs, and os.RemoveAll fails on it.)
#
#	$TRY_CACHE/wine        the root with a fresh C: in it; made once, never written to again
#	MACHINE/upper          what one machine has changed: its disk
#	MACHINE/root           both, as the machine sees them; mounted in its own namespace only
#
# A machine shares the network, /dev and the directories it is given with the
# host, and nothing else. When its first process ends all its processes do.

TRY_CACHE=${TRY_CACHE:-/var/tmp/terminalops-try}
WINE_ROOT=$TRY_CACHE/wine

# missing says by name why the script cannot run here: exit code 77.
missing() {
	echo "cannot run here: $*" >&2
	exit 77
}

need_wine() {
	[ "$(id -u)" = 0 ] || missing "not root (a root of its own has to be mounted)"
	local tool
	for tool in unshare nsenter chroot flock "$@"; do
		command -v "$tool" >/dev/null || missing "$tool is not installed"
	done
	[ -d "$WINE_ROOT" ] || make_wine_root
}

# make_wine_root takes a minute and 1.5 GB. Under a lock: several may want it.
make_wine_root() {
	command -v mmdebstrap >/dev/null || missing "mmdebstrap is not installed"
	mkdir -p "$TRY_CACHE"
	exec 8>"$TRY_CACHE/wine.lock"
	flock 8
	if [ ! -d "$WINE_ROOT" ]; then
		rm -rf "$WINE_ROOT.new"
		mmdebstrap --quiet --variant=minbase --include=wine64,wine,ca-certificates trixie "$WINE_ROOT.new" >&2 ||
			missing "no root of Debian trixie with Wine could be made"
		# In this order, and never through a pipe: the services that stay behind
		# would keep it open.
		in_root "$WINE_ROOT.new" sh -c 'wineboot -i && wineserver -w' >"$TRY_CACHE/wineboot.log" 2>&1 ||
			missing "wineboot failed, see $TRY_CACHE/wineboot.log"
		mv "$WINE_ROOT.new" "$WINE_ROOT"
	fi
	exec 8>&-
}

# The environment of everything in a machine.
wine_env=(HOME=/root USER=root PATH=/usr/sbin:/usr/bin:/sbin:/bin WINEPREFIX=/root/.wine WINEDEBUG="${WINEDEBUG:--all}" DISPLAY= XDG_RUNTIME_DIR=/tmp LANG=C.UTF-8)

# in_root ROOT COMMAND...: in its own mount and process namespace.
in_root() {
	unshare --mount --pid --fork --kill-child --propagation private bash -c '
		set -e
		root=$1; shift
		mount -t proc proc "$root/proc"
		mount --rbind /dev "$root/dev"
		exec chroot "$root" env -i "$@"' bash "$1" "${wine_env[@]}" "${@:2}"
}

# in_machine MACHINE SHARED -- COMMAND...: the same, in the root of a machine,
# with the directories SHARED (separated by colons) at their own place. The
# working directory stays what it is.
in_machine() {
	local machine=$1 shared=$2
	shift 3
	mkdir -p "$machine/upper" "$machine/work" "$machine/root"
	unshare --mount --pid --fork --kill-child --propagation private bash -c '
		set -e
		lower=$1 machine=$2 shared=$3 dir=$PWD; shift 3
		root=$machine/root
		mount -t overlay overlay -o "lowerdir=$lower,upperdir=$machine/upper,workdir=$machine/work" "$root"
		mount -t proc proc "$root/proc"
		mount --rbind /dev "$root/dev"
		IFS=:
		for share in $shared; do
			mkdir -p "$root$share"
			mount --rbind "$share" "$root$share"
		done
		cp /etc/resolv.conf /etc/hosts "$root/etc/"
		exec chroot "$root" env -i --chdir="$dir" "$@"' bash "$WINE_ROOT" "$machine" "$shared" "${wine_env[@]}" "$@"
}
