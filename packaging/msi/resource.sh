#!/usr/bin/env bash
# resource.sh EXE: gives a Windows program its version, as the Explorer and
# software inventories show it, and a manifest: it runs with the rights of who
# starts it (without one, Windows guesses from words in the file's name), and
# takes paths of any length.
#
# To be called before the program is signed. VERSION is the version.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${VERSION:?}"
WINRES=${WINRES:-${GO:-go} run github.com/tc-hib/go-winres@v0.3.3}

[[ $VERSION =~ ^([0-9]+)\.([0-9]+)\.([0-9]+) ]] || { echo "VERSION $VERSION: want three numbers at its beginning" >&2; exit 1; }
numbers=${BASH_REMATCH[0]}.0
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
jq --arg version "$VERSION" --arg numbers "$numbers" '
	.RT_VERSION."#1"."0000" |= (.fixed = {file_version: $numbers, product_version: $numbers}
		| .info."0409".FileVersion = $version | .info."0409".ProductVersion = $version)' "$here/resource.json" >"$stage/resource.json"
# The target's GOOS is not the tool's.
# shellcheck disable=SC2086 # WINRES is a command with its arguments
env -u GOOS -u GOARCH -u GOARM CGO_ENABLED=0 $WINRES patch --no-backup --in "$stage/resource.json" "$1"
