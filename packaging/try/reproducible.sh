#!/usr/bin/env bash
# Builds the packages of the current commit twice, in two directories, at two
# times, in two time zones and with two umasks, and compares them byte by byte.
# Needs what `make packages` needs, no root; see lib.sh. WITHOUT_MSI=1 leaves the
# MSI out.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# build DIRECTORY
build() {
	git clone --quiet "$checkout" "$1"
	(cd "$1" && make --silent packages >"$work/log" 2>&1) || {
		quote <"$work/log"
		fail "make packages"
	}
	checks=$((checks + 1))
}

git -C "$checkout" rev-parse HEAD >/dev/null 2>&1 || cannot "not a git checkout"
work=$(mktemp -d "${TRY_DIR:-/var/tmp}/terminalops-try.XXXXXX")
trap 'rm -rf "$work"' EXIT

chapter "The first build"
TZ=Pacific/Auckland build "$work/one"
sed 's/^\(.\{12\}\)[^ ]*/\1.../' "$work/one/dist/SHA256SUMS" | quote

chapter "The second, elsewhere"
(umask 077 && TZ=America/Lima build "$work/a/longer/name")

chapter "The same bytes?"
diff "$work/one/dist/SHA256SUMS" "$work/a/longer/name/dist/SHA256SUMS" | quote || fail "they differ"
(cd "$work/a/longer/name/dist" && sha256sum --quiet --check "$work/one/dist/SHA256SUMS") || fail "they differ from their sums"
expect "files that are the same" "$(wc -l <"$work/one/dist/SHA256SUMS")" "$(find "$work/a/longer/name/dist" -name 'terminal-agent*' | wc -l)"
summary
