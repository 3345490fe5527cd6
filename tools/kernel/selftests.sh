#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# selftests.sh: builds the kernel tree's KVM selftests and prints their directory: bin/ has the
# tests, lib/ the libraries that they need, with their paths, and the file `list` the sorted names of
# the tests that the tree's Makefile builds for x86.
#
# They are linked dynamically: Bochs would take minutes to unpack the hundred megabytes of static
# programs.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

kdir=$("$repo/tools/kernel/build.sh" "${KERNEL:-base}")
source=$(source_of "$kdir")
toolchain
out=$cache/selftests/$(kernel_key "$kdir")-$(hash_of <"${BASH_SOURCE[0]}")
if [[ -e $out/list ]]; then
	printf '%s\n' "$out"
	exit 0
fi

lock selftests
kvm=(make -C "$source/tools/testing/selftests/kvm" ARCH=x86 CC=gcc OUTPUT="$out/build"
	KHDR_INCLUDES="-isystem $out/headers/usr/include")

build() {
	# In an output directory of their own: KDIR may not be ours to write to.
	make -C "$source" O="$out/headers" ARCH=x86 headers
	"${kvm[@]}" -j"$jobs" all
}

install_tests() {
	local test library
	# shellcheck disable=SC2016 # make expands it.
	"${kvm[@]}" -s --no-print-directory \
		--eval='list-tests: ; @printf "%s\n" $(TEST_GEN_PROGS)' list-tests |
		sed -n "s|^$out/build/||p" | LC_ALL=C sort >"$out/list.new"
	[[ -s $out/list.new ]]
	while read -r test; do
		mkdir -p "$out/bin/$(dirname "$test")"
		strip -o "$out/bin/$test" "$out/build/$test"
	done <"$out/list.new"
	while read -r library; do
		mkdir -p "$out/lib$(dirname "$library")"
		cp -L "$library" "$out/lib$library"
	done < <(find "$out/bin" -type f -exec ldd {} + |
		sed -n 's|^[^/]*\(/[^ :]*\) (0x.*|\1|p' | sort -u)
	# ldd does not list it: glibc's pthread_cancel() loads it at run time.
	library=$(gcc -print-file-name=libgcc_s.so.1)
	cp -L "$library" "$out/lib/$(dirname "$(find "$out/lib" -name libc.so.6 -printf '%P')")/"
	mv "$out/list.new" "$out/list"
}

mkdir -p "$out/build" "$out/headers"
run_logged "$logs/selftests.log" "building the KVM selftests" 0 build
run_logged "$logs/selftests-install.log" "collecting the KVM selftests" 0 install_tests
printf '%s\n' "$out"
