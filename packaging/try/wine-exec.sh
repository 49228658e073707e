#!/usr/bin/env bash
# Runs one Windows program on a fresh Windows machine (see wine.sh), in the
# directory it is called from. For tests:
#
#	GOOS=windows CGO_ENABLED=0 go test -exec "$PWD/packaging/try/wine-exec.sh" ./...
#
# The program does not see the caller's environment. What the machine has not
# (Mosquitto, go) the tests name when they skip.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=packaging/try/wine.sh
. "$here/wine.sh"

need_wine
exe=$(realpath "$1")
shift
mkdir -p "$TRY_CACHE/machines"
machine=$(mktemp -d "$TRY_CACHE/machines/exec.XXXXXX")
trap 'rm -rf --one-file-system "$machine"' EXIT
repository=$(cd "$here/../.." && pwd)
in_machine "$machine" "$(dirname "$exe"):$repository" -- wine "$exe" "$@"
