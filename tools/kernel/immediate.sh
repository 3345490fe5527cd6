#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# immediate.sh: builds tools/check/immediate/kvm_immediate.ko, and prints where it is.
#
# KERNEL=VARIANT selects the project's kernel to build against, see build.sh.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

kdir=$("$repo/tools/kernel/build.sh" "${KERNEL:-base}")
toolchain
check_kdir "$kdir"
grep -q '^CONFIG_KPROBES=y' "$kdir/.config" ||
	die "kvm_immediate.ko needs a kernel with CONFIG_KPROBES=y: use KERNEL=hardened"
out=$cache/module/$(kernel_key "$kdir")-$checkout/immediate
lock module-immediate
mkdir -p "$out"
run_logged "$logs/module-immediate.log" "building kvm_immediate.ko" 0 \
	make -C "$kdir" M="$repo/tools/check/immediate" MO="$out" "${kbuild[@]}" \
	KCFLAGS="-I$(source_of "$kdir")/arch/x86/kvm" modules
printf '%s\n' "$out/kvm_immediate.ko"
