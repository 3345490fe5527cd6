#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# kvmsr.sh [install]: builds the static program kvmsr and prints its path, or installs it below
# $DESTDIR$PREFIX (/usr/local) with man pages and completions.  It needs no kernel build.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

target=${1:-}
case $target in
'' | install) ;;
*) die "kvmsr.sh: unknown argument '$target' (use install, or none)" ;;
esac
[[ -e $repo/tools/kvmsr/Cargo.toml ]] ||
	die "$repo/tools/kvmsr/Cargo.toml is missing: is the checkout complete?"
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repo/tools/kvmsr/Cargo.toml")

# Any cargo that is new enough will do.  If there is none, install the distribution's.
cargo=(cargo)
if ! command -v cargo >/dev/null || ! version=$(rustc --version 2>/dev/null) ||
	! version_at_least "$wanted" "$(awk '{ print $2 }' <<<"$version")"; then
	"$(dirname "${BASH_SOURCE[0]}")/deps.sh" kvmsr
	toolchain
	cargo=(debian_cargo)
fi
command -v cc >/dev/null || "$(dirname "${BASH_SOURCE[0]}")/deps.sh" kvmsr

lock kvmsr
triple=x86_64-unknown-linux-gnu
export CARGO_TARGET_DIR=$cache/cargo-target/$checkout
export RUSTFLAGS="-Ctarget-feature=+crt-static -Crelocation-model=static"
run_logged "$logs/kvmsr.log" "building kvmsr" 0 \
	"${cargo[@]}" build --profile kvmsr --locked --manifest-path "$repo/tools/Cargo.toml" \
	--package kvmsr --bin kvmsr --target "$triple"
program=$CARGO_TARGET_DIR/$triple/kvmsr/kvmsr

if [[ $target == install ]]; then
	[[ ${PREFIX:-} != '~'* ]] || die "PREFIX=$PREFIX: the shell did not expand ~; use \$HOME"
	prefix=${DESTDIR:-}${PREFIX:-/usr/local}
	share=$prefix/share
	pages=$(mktemp -d)
	trap 'rm -rf "$pages"' EXIT
	"$program" generate man "$pages"
	for page in "$pages"/*.1; do
		gzip -9n "$page"
	done
	install -d "$prefix/bin" 2>/dev/null ||
		die "cannot write to $prefix: run as root, or give PREFIX= a directory you can write to"
	install -D -m 755 "$program" "$prefix/bin/kvmsr"
	install -D -m 644 -t "$share/man/man1" "$pages"/*.1.gz
	# The licences of the data's sources require these notices.
	install -D -m 644 -t "$share/doc/kvmsr" "$repo"/tools/kvmsr/LICENSE-* \
		"$repo/tools/kvmsr/data/NOTICE"
	while read -r shell path; do
		"$program" generate "$shell" >"$pages/completion"
		install -D -m 644 "$pages/completion" "$share/$path"
	done <<-'END'
		bash bash-completion/completions/kvmsr
		zsh zsh/site-functions/_kvmsr
		fish fish/vendor_completions.d/kvmsr.fish
	END
	program=$prefix/bin/kvmsr
fi
printf '%s\n' "$program"
