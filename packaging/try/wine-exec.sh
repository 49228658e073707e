#!/usr/bin/env bash
# Runs one Windows program on a fresh Windows machine (see wine.sh), in the
# directory it is called from. For tests:
#
#	GOOS=windows CGO_ENABLED=0 go test -exec "$PWD/packaging/try/wine-exec.sh" ./...
#
# The program does not see the caller's environment. What the machine has not
# (Mosquitto, go) the tests name when they skip.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/wine.sh"

if [ "${1:-}" != --inside ]; then
	make_wine_root
	machine=$(mktemp -d "$TRY_CACHE/machine.XXXXXX")
	trap 'rm -rf --one-file-system "$machine"' EXIT
	unshare --mount --pid --fork --kill-child --mount-proc -- "$0" --inside "$machine" "$(realpath "$1")" "${@:2}" || exit $?
	exit
fi

machine=$2 program=$3
mount_machine "$machine"
share_with "$machine" "$(dirname "$program")"
share_with "$machine" "$checkout"
exec chroot "$machine/root" env -i --chdir="$PWD" "${wine_env[@]}" wine "$program" "${@:4}"
