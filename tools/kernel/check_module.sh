#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# check_module.sh NAME: builds kvm_NAME.ko of tools/check/NAME, a module for tests, and prints where
# it is.
#
# KERNEL=VARIANT selects the project's kernel to build against, see build.sh.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name=${1:-}
[[ -e $repo/tools/check/$name/kvm_$name.c ]] || die "check_module.sh: there is no module '$name'"
kdir=$("$repo/tools/kernel/build.sh" "${KERNEL:-base}")
toolchain
check_kdir "$kdir"
! grep -q linux/kprobes.h "$repo/tools/check/$name/kvm_$name.c" ||
	grep -q '^CONFIG_KPROBES=y' "$kdir/.config" ||
	die "kvm_$name.ko needs a kernel with CONFIG_KPROBES=y: use KERNEL=hardened or KERNEL=coverage"
out=$cache/module/$(kernel_key "$kdir")-$checkout/$name
lock "module-$name"
mkdir -p "$out"
run_logged "$logs/module-$name.log" "building kvm_$name.ko" 0 \
	make -C "$kdir" M="$repo/tools/check/$name" MO="$out" "${kbuild[@]}" \
	KCFLAGS="-I$(source_of "$kdir")/arch/x86/kvm" modules
printf '%s\n' "$out/kvm_$name.ko"
