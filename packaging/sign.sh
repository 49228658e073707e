# shellcheck shell=bash
# Authenticode signatures for the Windows files, to be sourced:
#
#   sign IN OUT
#
# SIGN_CERT and SIGN_KEY are PEM files; without them OUT is a copy of IN. With
# SIGN_TIMESTAMP_URL an authority confirms the time, so that the signature
# outlives the certificate. Without it the signature claims SOURCE_DATE_EPOCH,
# and two builds sign the same bytes.

sign() {
	if [ -z "${SIGN_CERT:-}" ] && [ -z "${SIGN_KEY:-}" ]; then
		cp "$1" "$2"
		return
	fi
	local options=(-certs "${SIGN_CERT:?is missing, but SIGN_KEY is there}" -key "${SIGN_KEY:?is missing, but SIGN_CERT is there}"
		-h sha256 -n "Terminal Agent" -time "${SOURCE_DATE_EPOCH:?}")
	[ -z "${SIGN_URL:-}" ] || options+=(-i "$SIGN_URL")
	[ -z "${SIGN_TIMESTAMP_URL:-}" ] || options+=(-ts "$SIGN_TIMESTAMP_URL")
	rm -f "$2" # osslsigncode overwrites nothing
	osslsigncode sign "${options[@]}" -in "$1" -out "$2" >/dev/null
}
