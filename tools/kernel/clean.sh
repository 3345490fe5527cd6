#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# clean.sh [--all]: removes results, modules, programs and selftests; or the whole cache.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

rm -rf "$repo/build"
# Only a directory that make_cache has marked.
[[ -e $cache/CACHEDIR.TAG ]] || exit 0
if [[ ${1:-} == --all ]]; then
	rm -rf "${cache:?}"
else
	rm -rf "$cache"/{module,programs,plugin,selftests,cargo-target,drift,run,log,pycache}
fi
