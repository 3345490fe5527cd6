#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# deny.sh: builds cargo-deny unless the cache has it, and prints its path.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

deny_version=0.20.2
deny=$cache/cargo-deny-$deny_version
if [[ ! -x $deny/bin/cargo-deny ]]; then
	toolchain
	lock deny
	# Building cargo-deny takes longer than running it, so optimise it little.
	CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
		CARGO_TARGET_DIR=$cache/cargo-deny-build \
		run_logged "$logs/cargo-deny.log" "building cargo-deny $deny_version" 0 \
		debian_cargo install cargo-deny --version "$deny_version" --locked \
		--no-default-features --root "$deny"
	rm -rf "$cache/cargo-deny-build"
fi
printf '%s\n' "$deny/bin/cargo-deny"
