#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# programs.sh: builds the user-space programs of tools/ and samples/ and prints their directory.
# They are static, so that they run in the initramfs.  kvmsr.sh builds kvmsr.  kvm-msr-speculation
# examines the module from outside.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[[ -e $repo/tools/Cargo.toml ]] || die "$repo/tools/Cargo.toml is missing: is the checkout complete?"
toolchain
lock programs
triple=x86_64-unknown-linux-gnu
out=$cache/programs/$checkout
messages=$logs/programs.json
# Cargo takes the packages of another checkout for these, so each checkout has its own directory.
export CARGO_TARGET_DIR=$cache/cargo-target/$checkout
export RUSTFLAGS=-Ctarget-feature=+crt-static

build() {
	debian_cargo build --release --locked --manifest-path "$repo/tools/Cargo.toml" \
		--workspace --exclude kvmsr --exclude kvm-msr-speculation --bins --target "$triple" \
		--message-format=json-render-diagnostics >"$messages"
}
run_logged "$logs/programs.log" "building the user-space programs" 0 build

mkdir -p "$out"
python3 - "$messages" <<'PYTHON' | while read -r program; do
import json
import sys

for line in open(sys.argv[1], encoding="utf-8"):
    program = json.loads(line).get("executable")
    if program:
        print(program)
PYTHON
	cmp -s "$program" "$out/$(basename "$program")" || cp "$program" "$out/"
done
run_logged "$logs/samples.log" "building the C samples" 0 \
	make -s -C "$repo/samples" O="$out" CFLAGS='-O2 -Werror'
printf '%s\n' "$out"
