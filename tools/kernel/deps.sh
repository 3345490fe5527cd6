#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# deps.sh GROUP...: installs the missing Debian packages of these groups.  It runs apt only if some
# are missing.  Groups: kernel, vm, selftests, intel, lint, kvmsr, kvmsr-test, hardened.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# In Debian 12, the packages with a Rust that is new enough for the kernel have other names.
debian=$(. /etc/os-release && printf '%s' "${VERSION_ID:-}")
if [[ $debian == 12 ]]; then
	rust=(rustc-web rust-web-src cargo-web rustfmt-web)
	rust_lint=(rust-web-clippy)
	llvm=(clang-19 lld-19 llvm-19 libclang-19-dev)
else
	rust=(rustc rust-src cargo rustfmt bindgen)
	rust_lint=(rust-clippy)
	llvm=(clang lld llvm libclang-dev)
fi

packages=()
for group in "$@"; do
	case $group in
	kernel)
		packages+=("${rust[@]}" "${llvm[@]}" python3 git make gcc libc6-dev
			flex bison bc cpio rsync libelf-dev libssl-dev xz-utils perl patch kmod
			ca-certificates pkg-config)
		;;
	vm)
		packages+=(qemu-system-x86 busybox-static)
		;;
	selftests)
		# One of KVM's selftests links the VFIO selftests' library, which needs it.
		packages+=(uuid-dev)
		;;
	intel)
		packages+=(bochs bochsbios vgabios bochs-term grub-pc-bin grub-common xorriso mtools)
		;;
	kvmsr)
		packages+=("${rust[@]}" gcc libc6-dev ca-certificates)
		;;
	kvmsr-test)
		packages+=(mandoc python3-jsonschema)
		;;
	hardened)
		packages+=(pahole)
		;;
	lint)
		packages+=("${rust_lint[@]}" shellcheck)
		;;
	*)
		die "deps.sh: unknown group '$group'"
		;;
	esac
done

if ! command -v dpkg-query >/dev/null; then
	say "this is no Debian system; make sure that these are installed: ${packages[*]}"
	exit 0
fi

declare -A installed=()
while read -r status name; do
	[[ $status != installed ]] || installed[$name]=1
done < <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null || true)
missing=()
for name in "${packages[@]}"; do
	[[ -n ${installed[$name]:-} ]] || missing+=("$name")
done
((${#missing[@]})) || exit 0

root=()
if ((EUID != 0)); then
	command -v sudo >/dev/null ||
		die "packages are missing and you are neither root nor have sudo;" \
			"as root, run: apt-get install ${missing[*]}"
	root=(sudo)
	# Ask for the password now, not in the middle of a progress line.
	sudo -v || die "sudo refused; as root, run: apt-get install ${missing[*]}"
fi

lock packages
say "installing ${#missing[@]} missing packages: ${missing[*]}"
apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120)
# An error in one source is not fatal: the packages may come from others.
"${apt[@]}" update >"$logs/apt-update.log" 2>&1 ||
	say "apt-get update had errors (log: $logs/apt-update.log); continuing"
run_logged "$logs/apt-install.log" "installing packages" 0 \
	"${apt[@]}" install -y --no-install-recommends "${missing[@]}"
