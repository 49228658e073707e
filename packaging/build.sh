#!/usr/bin/env bash
# Builds everything that is delivered, into dist/ (or $OUT), without root:
#
#   deb, rpm          linux amd64, arm64, arm (v7)
#   tar.gz            the same, for systems without either
#   zip, msi          windows amd64
#   cdx.json          what is inside each program (CycloneDX)
#   SHA256SUMS
#
# Two builds of a commit give the same bytes. It needs git, Go, zip, jq, and
# wixl (Debian: wixl, msitools) for the MSI, which WITHOUT_MSI=1 leaves out.
# SIGN_CERT and SIGN_KEY sign what is for Windows; see sign.sh.
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC
cd "$(dirname "$0")/.."
# shellcheck source=packaging/sign.sh
. packaging/sign.sh

OUT=$(realpath -m "${OUT:-dist}")
VERSION=${VERSION:-$(packaging/version.sh)}
# Without git, as in an archive of the sources, the changelog's time is as good.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export OUT VERSION SOURCE_DATE_EPOCH

GO=${GO:-go}
NFPM=${NFPM:-$GO run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2}
CYCLONEDX=${CYCLONEDX:-$GO run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0}

# What Go itself would take from the environment is fixed.
export CGO_ENABLED=0 GOAMD64=v1 GOARM64=v8.0 GOARM=7

main() {
	check_tools
	mkdir -p "$OUT"
	rm -f "$OUT"/terminal-agent[_-]* "$OUT"/SHA256SUMS
	stage=$(mktemp -d)
	trap 'rm -rf "$stage"' EXIT

	third_party_licenses >"$stage/THIRD-PARTY-LICENSES"
	for arch in amd64 arm64 arm; do
		linux "$arch"
	done
	windows
	(cd "$OUT" && sha256sum terminal-agent* >SHA256SUMS)
	(cd "$OUT" && ls -l terminal-agent* SHA256SUMS)
}

check_tools() {
	local tools=(git "$GO" zip jq) missing=() tool
	[ -n "${WITHOUT_MSI:-}" ] || tools+=(wixl)
	[ -z "${SIGN_CERT:-}${SIGN_KEY:-}" ] || tools+=(osslsigncode)
	for tool in "${tools[@]}"; do
		command -v "$tool" >/dev/null || missing+=("$tool")
	done
	[ ${#missing[@]} -eq 0 ] && return
	echo "make packages: missing: ${missing[*]}" >&2
	[[ " ${missing[*]} " != *" wixl "* ]] || echo "WITHOUT_MSI=1 builds everything but the MSI" >&2
	exit 1
}

linux() {
	local arch=$1 name=terminal-agent_${VERSION}_linux_$1
	local dir=$stage/$name
	program linux "$arch" "$dir/terminal-agent"
	common_files "$dir"
	cp -r packaging/terminal-agent.service packaging/70-terminal-agent.rules packaging/terminal-agent.sysusers \
		packaging/man packaging/completions "$dir"
	bill_of_materials "$dir/terminal-agent" "$name"
	archive "$name"
	system_packages "$arch" "$dir"
}

windows() {
	local name=terminal-agent_${VERSION}_windows_amd64
	local dir=$stage/$name
	program windows amd64 "$stage/terminal-agent.exe"
	packaging/msi/resource.sh "$stage/terminal-agent.exe"
	mkdir -p "$dir"
	sign "$stage/terminal-agent.exe" "$dir/terminal-agent.exe"
	bill_of_materials "$dir/terminal-agent.exe" "$name"
	common_files "$dir"
	same_times "$dir"
	(cd "$stage" && find "$name" | sort | zip -q -X -@ "$OUT/$name.zip")
	[ -n "${WITHOUT_MSI:-}" ] || EXE="$dir/terminal-agent.exe" packaging/msi/build.sh
}

# As small as the Makefile makes it.
program() { # GOOS GOARCH FILE
	GOOS=$1 GOARCH=$2 $GO build -trimpath -buildvcs=false -gcflags=all=-l -tags=nethttpomithttp2 -ldflags "-s -w -buildid= -X main.version=$VERSION" -o "$3" ./cmd/terminal-agent
}

common_files() { # DIRECTORY
	cp packaging/terminal-agent.toml README.md CHANGELOG.md LICENSE "$stage/THIRD-PARTY-LICENSES" "$1"
	cp docs/install.md docs/field-guide.md "$1"
}

same_times() { # DIRECTORY
	chmod -R u=rwX,go=rX "$1"
	find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

archive() { # NAME
	same_times "$stage/$1"
	tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --format=gnu -c "$1" |
		gzip -n -9 >"$OUT/$1.tar.gz"
}

# deb and rpm take what the archive holds, and the documents in their form.
system_packages() { # GOARCH DIRECTORY
	local dir=$2 page
	cp -r packaging/deb packaging/rpm "$dir"
	mkdir "$dir/doc"
	cp packaging/deb/copyright packaging/deb/lintian-overrides "$dir/doc"
	for page in terminal-agent.1 terminal-agent.toml.5; do
		gzip -n -9 <"packaging/man/$page" >"$dir/doc/$page.gz"
	done
	debian_changelog | gzip -n -9 >"$dir/doc/changelog.gz"
	same_times "$dir"
	for format in deb rpm; do
		(cd "$dir" && PACKAGE_ARCH=${1/%arm/arm7} $NFPM package -p "$format" -f "$OLDPWD/packaging/nfpm.yaml" -t "$OUT" >/dev/null)
	done
}

debian_changelog() {
	cat <<-END
		terminal-agent ($VERSION) stable; urgency=medium

		  * What is new is in CHANGELOG.md.

		 -- $(sed -n 's/^maintainer: //p' packaging/nfpm.yaml)  $(date -R -d "@$SOURCE_DATE_EPOCH")
	END
}

# The tool's own name stays out of it: its hash is that of the machine it was
# built on.
bill_of_materials() { # PROGRAM NAME
	$CYCLONEDX bin -json -std -noserial -notimestamp -version "$VERSION" "$1" | jq 'del(.metadata.tools)' >"$OUT/$2.cdx.json"
}

# The licences of every module that is linked into the agent on some system.
third_party_licenses() {
	local module dir file
	echo "terminal-agent contains the following modules."
	{
		echo "Go $(realpath "$($GO env GOROOT)")"
		for system in linux windows; do
			GOOS=$system $GO list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/terminal-agent
		done
	} | sort -u | while read -r module dir; do
		[ -n "$module" ] || continue
		for file in "$dir"/LICENSE* "$dir"/NOTICE* "$dir"/COPYING*; do
			[ -f "$file" ] || continue
			printf '\n===== %s: %s =====\n\n' "$module" "$(basename "$file")"
			cat "$file"
		done
	done
}

main
