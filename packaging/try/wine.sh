# shellcheck shell=bash
# A Windows machine for the scripts beside this file, to be sourced after
# lib.sh: Wine 10 of Debian trixie in a root of its own. (Wine 8 of bookworm
# lacks a library that Go needs, and os.RemoveAll fails on it.)
#
#	$TRY_CACHE/wine    the root with a fresh C: in it; made once, never written to again
#	MACHINE/upper      what one machine has changed: its disk
#	MACHINE/root       both, as the machine sees them
#
# A machine shares /dev, the network and the processes with whoever made it.

wine_root=$TRY_CACHE/wine

# The environment of everything in a machine.
wine_env=(HOME=/root USER=root PATH=/usr/sbin:/usr/bin:/sbin:/bin WINEPREFIX=/root/.wine WINEDEBUG="${WINEDEBUG:--all}" DISPLAY= XDG_RUNTIME_DIR=/tmp LANG=C.UTF-8)

# make_wine_root takes a minute and 2 GB. Under a lock: several may want it.
make_wine_root() {
	need_root
	[ ! -d "$wine_root" ] || return 0
	need mmdebstrap mmdebstrap
	mkdir -p "$TRY_CACHE"
	exec 8>"$TRY_CACHE/wine.lock"
	flock 8
	if [ ! -d "$wine_root" ]; then
		say "making a Windows in $wine_root, once" >&2
		rm -rf "$wine_root.half"
		mmdebstrap --quiet --variant=minbase --include=wine64,wine,ca-certificates trixie "$wine_root.half" </dev/null >&2 ||
			cannot "mmdebstrap has not made a Debian trixie with Wine"
		# Not through a pipe: the services that stay behind would keep it open.
		# shellcheck disable=SC2016 # the inner shell's
		unshare --mount --pid --fork --kill-child --propagation private bash -c '
			mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && exec chroot "$1" env -i "${@:2}"' bash "$wine_root.half" \
			"${wine_env[@]}" sh -c 'wineboot -i && wineserver -w' >"$TRY_CACHE/wineboot.log" 2>&1 </dev/null ||
			cannot "wineboot has failed, see $TRY_CACHE/wineboot.log"
		mv -T "$wine_root.half" "$wine_root"
	fi
	exec 8>&-
}

# mount_machine MACHINE: in a mount namespace that is gone afterwards.
mount_machine() {
	local root=$1/root
	mkdir -p "$1/upper" "$1/work" "$root"
	mount -t overlay overlay -o "lowerdir=$wine_root,upperdir=$1/upper,workdir=$1/work" "$root"
	mount -t proc proc "$root/proc"
	mount --rbind /dev "$root/dev"
	cp /etc/resolv.conf /etc/hosts "$root/etc/"
}

# share_with MACHINE DIRECTORY: it has the directory at its own place.
share_with() {
	mkdir -p "$1/root$2"
	mount --rbind "$2" "$1/root$2"
}

# in_machine MACHINE COMMAND...: in the current directory, if it is shared.
in_machine() {
	chroot "$1/root" env -i "${wine_env[@]}" "${@:2}"
}
