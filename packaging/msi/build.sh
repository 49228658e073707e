#!/usr/bin/env bash
# Builds the MSI: $OUT/terminal-agent_${VERSION}_windows_amd64.msi, with wixl
# and msibuild of Debian's wixl and msitools. Two builds give the same bytes.
#
#	EXE                  the program; its folder holds LICENSE, THIRD-PARTY-LICENSES and terminal-agent.toml, too
#	VERSION              MSI itself takes the first three numbers of it
#	OUT, SOURCE_DATE_EPOCH
#	SIGN_CERT, SIGN_KEY  see ../sign.sh
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC
: "${EXE:?}" "${VERSION:?}" "${OUT:?}" "${SOURCE_DATE_EPOCH:?}"
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=packaging/sign.sh
. "$here/../sign.sh"

files=(terminal-agent.exe terminal-agent.toml LICENSE THIRD-PARTY-LICENSES)

main() {
	stage=$(mktemp -d)
	trap 'rm -rf "$stage"' EXIT
	collect
	unsigned=$stage/unsigned.msi
	compile
	complete
	summarize
	mkdir -p "$OUT"
	sign "$unsigned" "$OUT/terminal-agent_${VERSION}_windows_amd64.msi"
}

# The cabinet records times and order.
collect() {
	local file from
	from=$(dirname "$EXE")
	cp "$EXE" "$stage/terminal-agent.exe"
	for file in "${files[@]:1}"; do
		cp "$from/$file" "$stage/$file"
	done
	touch -d "@$SOURCE_DATE_EPOCH" "${files[@]/#/$stage/}"
	content=$(cd "$stage" && sha256sum "${files[@]}" - <"$here/terminal-agent.wxs")
}

# wixl takes the files from the folder it is called in.
compile() {
	local version code
	version=$(msi_version)
	code=$(uuid "product $VERSION $content")
	(cd "$stage" && wixl --arch x64 -D Version="$VERSION" -D MsiVersion="$version" -D ProductCode="$code" -o "$unsigned" "$here/terminal-agent.wxs")
}

# complete adds what wixl 0.101 has no words for.
complete() {
	table Signature 's72 s255 S20 S20 I4 I4 I4 I4 S255' 'Signature FileName MinVersion MaxVersion MinSize MaxSize MinDate MaxDate Languages' 1 \
		'configuration|terminal-agent.toml|||||||'
	table DrLocator 's72 S72 S255 I2' 'Signature_ Parent Path Depth' 3 \
		'configuration||[CommonAppDataFolder]terminal-agent|0'
	table RegLocator 's72 i2 s255 S255 I2' 'Signature_ Root Key Name Type' 1 \
		"service|$local_machine|SYSTEM\\CurrentControlSet\\Services\\terminal-agent|ImagePath|$raw_value"
	table AppSearch 's72 s72' 'Property Signature_' 2 \
		'CONFIGURED|configuration' 'SERVICE_FOUND|service'
	msibuild "$unsigned" -q \
		"INSERT INTO \`InstallExecuteSequence\` (\`Action\`, \`Sequence\`) VALUES ('AppSearch', 50)" \
		"UPDATE \`Property\` SET \`Value\` = 'REPLACED;BROKER_URL;TERMINAL_ID;TERMINAL_LINK;BROKER_USERNAME;BROKER_PASSWORD_FILE;CA_FILE;PURGE' WHERE \`Property\` = 'SecureCustomProperties'"
	# A configuration that came with an installation that failed would stand in the
	# way of the next attempt, which overwrites none.
	cmd_action UndoConfig "$rollback" 4009 'BROKER_URL AND NOT CONFIGURED AND NOT Installed' \
		'del /q "[CommonAppDataFolder]terminal-agent\terminal-agent.toml" & rd "[CommonAppDataFolder]terminal-agent\state" & rd "[CommonAppDataFolder]terminal-agent"'
	cmd_action Purge "$commit" 6550 'REMOVE="ALL" AND PURGE AND NOT UPGRADINGPRODUCTCODE' \
		'rd /s /q "[CommonAppDataFolder]terminal-agent"'
}

# Of the table RegLocator.
local_machine=2
raw_value=2

# Types of custom actions that are command lines (34): in the script that the
# system carries out (1024 + 2048), whatever they return (64).
rollback=$((34 + 1024 + 2048 + 64 + 256))
commit=$((34 + 1024 + 2048 + 64 + 512))

# cmd_action NAME TYPE SEQUENCE CONDITION COMMAND: for cmd.exe.
cmd_action() {
	msibuild "$unsigned" -q \
		"INSERT INTO \`CustomAction\` (\`Action\`, \`Type\`, \`Source\`, \`Target\`) VALUES ('$1', $2, 'TARGETDIR', '\"[System64Folder]cmd.exe\" /d /c $5')" \
		"INSERT INTO \`InstallExecuteSequence\` (\`Action\`, \`Condition\`, \`Sequence\`) VALUES ('$1', '$4', $3)"
}

# summarize gives the file the time of the commit, and a package code of its own
# content: two files with one code must be the same file.
summarize() {
	local time
	time=$(date -d "@$SOURCE_DATE_EPOCH" '+%Y/%m/%d %H:%M:%S')
	table _SummaryInformation 'i2 l255' 'PropertyId Value' 1 \
		'1|1252' '2|Installation Database' "3|Terminal Agent $VERSION" '4|terminalops' '5|Installer' \
		"6|Remote administrative operations on payment terminals" '7|x64;1033' "9|{$(uuid "package $VERSION $content")}" \
		"12|$time" "13|$time" '14|500' '15|2' '18|msitools' '19|2'
}

# table NAME TYPES COLUMNS KEYS ROW...: puts rows, with | between their values,
# into a table. The first KEYS columns are its key.
table() {
	local idt=$stage/$1.idt row
	read -ra columns <<<"$3"
	{
		printf '%s\r\n' "${3// /$'\t'}" "${2// /$'\t'}" "$1"$'\t'"$(IFS=$'\t' && echo "${columns[*]:0:$4}")"
		for row in "${@:5}"; do
			printf '%s\r\n' "${row//|/$'\t'}"
		done
	} >"$idt"
	msibuild "$unsigned" -i "$idt"
}

# msi_version: three numbers, without what git and a preview add.
msi_version() {
	[[ $VERSION =~ ^([0-9]+)\.([0-9]+)\.([0-9]+) ]] || { echo "VERSION $VERSION: want three numbers at its beginning" >&2; exit 1; }
	(( BASH_REMATCH[1] < 256 && BASH_REMATCH[2] < 256 && BASH_REMATCH[3] < 65536 )) ||
		{ echo "VERSION $VERSION: MSI wants numbers below 256, 256 and 65536" >&2; exit 1; }
	echo "${BASH_REMATCH[0]}"
}

# uuid NAME: version 5 of RFC 9562, in a name space of this file's own.
uuid() {
	local sum
	sum=$({ printf '\x2a\x91\x0c\x57\xe4\x3b\x4d\x06\x8f\x12\x6b\xd9\x7e\x30\xa5\xc8'; printf '%s' "$1"; } | sha1sum)
	sum=${sum:0:12}5${sum:13:3}$(printf '%x' $((0x${sum:16:1} & 3 | 8)))${sum:17:15}
	sum=${sum^^}
	echo "${sum:0:8}-${sum:8:4}-${sum:12:4}-${sum:16:4}-${sum:20:12}"
}

main
