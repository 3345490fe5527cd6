#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# module.sh [VARIANT] [install]: builds kvm-msr.ko and prints its path.  `install` also
# installs it for modprobe, with sudo if necessary.
#
#   plain    for use
#   kunit    with the KUnit suites, which run when the module is loaded
#   clippy   from scratch, with Clippy, and with warnings as errors
#   coverage, kunit-coverage
#            plain and kunit with counters of the regions and branches that run
#
# INSTALL_MOD_PATH=/path installs it below another root.
# KERNEL=VARIANT selects the project's kernel to build against, see build.sh; KDIR=/path another one.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

variant=${1:-plain}
install=${2:-}
kdir=$("$repo/tools/kernel/build.sh" "${KERNEL:-base}")
toolchain
check_kdir "$kdir"
[[ ! -s $kdir/kvm-msr-drift ]] || warn_of_drift "$kdir/kvm-msr-drift" "$(source_of "$kdir")"
config=(CONFIG_KVM_MSR=m)
case $variant in
plain) ;;
kunit) config+=(CONFIG_KVM_MSR_KUNIT_TEST=y) ;;
clippy) config+=(CONFIG_KVM_MSR_KUNIT_TEST=y CLIPPY=1 W=e) ;;
coverage) ;;
kunit-coverage) config+=(CONFIG_KVM_MSR_KUNIT_TEST=y) ;;
*) die "module.sh: unknown variant '$variant': see the start of $0" ;;
esac
if [[ $variant == *coverage ]]; then
	# Without LLVM's runtime library: kvm-msr-profile reads the counters.
	config+=(KRUSTFLAGS="-Cinstrument-coverage -Zcoverage-options=branch -Zno-profiler-runtime")
fi

# As for KVM's own code in this kernel, see build.sh.
[[ ${KERNEL:-} != coverage ]] || config+=(KCOV_INSTRUMENT=y)

key=$(kernel_key "$kdir")
[[ -e $repo/Kbuild ]] || die "$repo/Kbuild is missing: is the checkout complete?"
out=$cache/module/$key-$checkout/$variant
lock "module-$variant"
[[ $variant != clippy ]] || rm -rf "$out"
mkdir -p "$out"
kmake=(make -C "$kdir" M="$repo" MO="$out" "${kbuild[@]}" "${config[@]}")
run_logged "$logs/module-$variant.log" "building kvm-msr.ko ($variant)" 0 \
	"${kmake[@]}" -j"$jobs" modules
[[ -e $out/kvm-msr.ko ]] || die "the build made no kvm-msr.ko (log: $logs/module-$variant.log)"
if [[ $install == install ]]; then
	root=()
	if ((EUID != 0)) && [[ -z ${INSTALL_MOD_PATH:-} ]]; then
		sudo -v || die "installing the module needs root, and sudo refused"
		root=(sudo)
	fi
	run_logged "$logs/modules_install.log" "installing kvm-msr.ko" 0 \
		"${root[@]}" "${kmake[@]}" modules_install
fi
printf '%s\n' "$out/kvm-msr.ko"
