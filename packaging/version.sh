#!/usr/bin/env bash
# Prints the version that git knows:
#
#   tag v1.2.3              1.2.3
#   tag v1.3.0-rc.1         1.3.0~rc.1        (before 1.3.0, for dpkg and rpm)
#   5 commits after v1.2.3  1.2.3+5.gHASH
#   no tag yet              0.0.0+77.gHASH
#   something not committed ... and .dirty
#   no git checkout         0.0.0
set -euo pipefail
cd "$(dirname "$0")"

if ! git rev-parse HEAD >/dev/null 2>&1; then
	echo 0.0.0
	exit
fi

if tag=$(git describe --tags --match 'v[0-9]*' --abbrev=0 2>/dev/null); then
	version=${tag#v}
	commits=$(git rev-list --count "$tag..HEAD")
else
	version=0.0.0
	commits=$(git rev-list --count HEAD)
fi
version=${version//-/\~}
separator=+
if [ "$commits" -gt 0 ]; then
	version+="+$commits.g$(git rev-parse --short=10 HEAD)"
	separator=.
fi
if [ -n "$(git status --porcelain)" ]; then
	version+="${separator}dirty"
fi
echo "$version"
