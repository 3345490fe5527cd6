#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# build.sh [--prepare | --source] [VARIANT]: builds this kernel unless the cache has it, and prints its
# build directory.  The variants:
#
#   base       the hook series and configs/kvm-msr.config; most targets use this kernel
#   unpatched  base without the hook series, to measure what the hooks cost
#   tracing    base with configs/tracing.config: KVM's tracepoints, as in distributions
#   lean       base with configs/lean.config: KVM without Hyper-V, Xen and SMM
#   debug      base with configs/debug.config: lockdep, leak detection
#   hardened   base with configs/hardened.config: mitigations, kCFI, and checks as in distributions
#   kasan      base with configs/kasan.config: KASAN, UBSAN, and Rust's checks for debugging
#   coverage   base with configs/coverage.config: gcov and kcov in the code that the engine replaces
#   kcsan      base with configs/kcsan.config: KCSAN
#
# debug, kasan and kcsan also have configs/faults.config, fault injection, and patches-debug.
#
# KDIR=/path     use this built kernel instead of base
# KSRC=/path     build a copy of this linux-7.3.y tree instead of Debian's package
# --prepare      stop before compiling: unpack, patch and configure the source
# --source       stop before configuring: unpack and patch the source, and print its directory
#
# The name of a build directory derives from everything that it is built from.  An interrupted
# build continues in the next run.  The file kvm-msr-drift there lists what differs in its source
# from the C that the engine was written against: make drift says more.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

here=$repo/tools/kernel
# The number of kbuild's lines for base, roughly, to show progress.
steps=2150

prepare_only=
source_only=
case ${1:-} in
--prepare)
	prepare_only=1
	shift
	;;
--source)
	source_only=1
	shift
	;;
esac
variant=${1:-base}
fragments=("$here/configs/kvm-msr.config")
patches=("$here"/patches/*.patch)
debug_patches=()
# More variables for the kernel's make.
settings=()
case $variant in
base) ;;
unpatched) patches=() ;;
tracing | lean | hardened | coverage) fragments+=("$here/configs/$variant.config") ;;
debug | kasan | kcsan)
	fragments+=("$here/configs/faults.config" "$here/configs/$variant.config")
	debug_patches=("$here"/patches-debug/*.patch)
	;;
*) die "build.sh: unknown variant '$variant': see the start of $0" ;;
esac

if [[ $variant == coverage ]]; then
	for object in msrs svm/svm svm/nested vmx/vmx vmx/nested; do
		settings+=("GCOV_PROFILE_$object.o=y")
	done
	for object in msrs svm/svm svm/nested vmx/vmx vmx/nested pmu hyperv xen lapic mtrr; do
		settings+=("KCOV_INSTRUMENT_$object.o=y")
	done
fi

make_cache
toolchain

if [[ -n ${KDIR:-} && $variant == base ]]; then
	[[ -d $KDIR ]] || die "KDIR=$KDIR is not a directory"
	check_kdir "$KDIR"
	ensure_bindgen
	ksource=$(source_of "$KDIR")
	drift=$(drift_of "$ksource" "$(cd "$ksource" &&
		find "$PWD/arch/x86/kvm" -name '*.[ch]' -printf '%p %s %T@\n' | LC_ALL=C sort | hash_of)")
	warn_of_drift "$drift" "$ksource"
	readlink -f "$KDIR"
	exit 0
fi

# tree_version DIR: the version that a source tree's Makefile states.
tree_version() {
	awk -F' *= *' '$1 == "VERSION" { v = $2 } $1 == "PATCHLEVEL" { p = $2 }
		       $1 == "SUBLEVEL" { print v "." p "." $2; exit }' "$1/Makefile"
}

# The origin of the source, as a name for its content.
if [[ -n ${KSRC:-} ]]; then
	[[ -e $KSRC/Kbuild && -e $KSRC/Makefile ]] || die "KSRC=$KSRC is not a Linux source tree"
	version=$(tree_version "$KSRC")
	origin=$(cd "$KSRC" && find . -name .git -prune -o -type f -printf '%P %s %T@\n' |
		LC_ALL=C sort | hash_of)
	if [[ -e $KSRC/arch/x86/kvm/msr_engine.h ]]; then
		[[ $variant != unpatched ]] ||
			die "KSRC=$KSRC has the hook series: an unpatched kernel needs a tree without it"
		patches=()
		say "KSRC=$KSRC already has the hook series"
	fi
else
	deb=$("$here/fetch.sh")
	version=$(basename "$deb")
	version=${version#*_}
	version=${version%%-*}
	origin=$(basename "$deb")
fi
[[ $version == "$series".* ]] ||
	die "this is Linux $version and the hook series is for $series.y:" \
		"give KSRC=/path/to/a/linux-$series.y/tree"

patches+=("${debug_patches[@]}")
source_key=$version-$(printf '%s\n' "$origin" | cat - "${patches[@]}" | hash_of)
source=$cache/source/$source_key

unpack() {
	local to=$1
	if [[ -n ${KSRC:-} ]]; then
		rsync -a --exclude=/.git "$KSRC/" "$to/"
		# A tree that was built in place can't be built in another directory.
		if [[ -e $to/.config || -d $to/include/config ]]; then
			make -C "$to" mrproper
		fi
	else
		dpkg-deb --fsys-tarfile "$deb" | tar -xO "./usr/src/linux-source-$series.tar.xz" |
			tar -xJ -C "$to" --strip-components=1
	fi
}

make_source() {
	local new=$source.new patch log=$logs/patch.log
	need_space 12000 "building a kernel"
	rm -rf "$new"
	mkdir -p "$new"
	run_logged "$logs/unpack.log" "unpacking Linux $version" 0 unpack "$new"
	[[ $(tree_version "$new") == "$version" ]] ||
		die "the source of $origin is Linux $(tree_version "$new"), not $version"
	for patch in "${patches[@]}"; do
		# No fuzz: with it, patch can put a guard into the wrong function.
		patch -p1 -F0 --no-backup-if-mismatch -d "$new" <"$patch" >"$log" 2>&1 || {
			cat "$log" >&2
			rm -rf "$new"
			die "$(basename "$patch") does not apply to Linux $version: rebase" \
				"tools/kernel/patches (make drift KSRC=${KSRC:-$deb} shows where)," \
				"or give KSRC= a tree that it applies to"
		}
	done
	mv "$new" "$source"
}

ensure_source() {
	[[ ! -d $source ]] || return 0
	lock source
	[[ -d $source ]] || make_source
}

# A kernel with other C than the engine was written against says so, in a file beside it.  The record
# of what was reviewed can change after the kernel was built.
state_drift() {
	local drift
	drift=$(drift_of "$source" "$source_key")
	cmp -s "$drift" "$kdir/kvm-msr-drift" || cp "$drift" "$kdir/kvm-msr-drift"
}

# wanted: the options that the fragments request; the last request for an option counts.
wanted() {
	cat "${fragments[@]}" | awk '
		match($0, /^CONFIG_[A-Za-z0-9_]+=/) { name = substr($0, 1, RLENGTH - 1) }
		/^# CONFIG_[A-Za-z0-9_]+ is not set$/ { name = $2 }
		name { if (!(name in line)) order[n++] = name; line[name] = $0; name = "" }
		END { for (i = 0; i < n; i++) print line[order[i]] }'
}

configure() {
	local kdir=$1
	cat "${fragments[@]}" >"$kdir/requested.config"
	"${kmake[@]}" allnoconfig
	ARCH=x86 "$source/scripts/kconfig/merge_config.sh" -m -O "$kdir" "$kdir/.config" \
		"$kdir/requested.config"
	"${kmake[@]}" olddefconfig
}

# The requested options that .config lacks.  Options that are requested as "not set" may be absent.
refused() {
	local option
	while read -r option; do
		case $option in
		'#'*) ! grep -q "^$(awk '{ print $2 }' <<<"$option")=" "$1/.config" || echo "$option" ;;
		*) grep -qxF "$option" "$1/.config" || echo "$option" ;;
		esac
	done < <(wanted)
}

mkdir -p "$cache/source" "$cache/kernel"
if [[ -n $source_only ]]; then
	ensure_source
	printf '%s\n' "$source"
	exit 0
fi
key=$version-$variant-$({
	printf '%s\n' "$source_key" "$("$rustc" --version)" "$(clang --version | head -n 1)"
	printf '%s\n' "bindgen $bindgen_version" "${settings[@]}"
	wanted
} | hash_of)
kdir=$cache/kernel/$key
done_stamp=$kdir/.kvm-msr-built
if [[ -e $done_stamp && -d $source ]]; then
	state_drift
	printf '%s\n' "$kdir"
	exit 0
fi

lock "kernel-$variant"
ensure_bindgen
ensure_source

kmake=(make -C "$source" O="$kdir" ARCH=x86 LLVM=1 "${kbuild[@]}" "${settings[@]}")
if [[ ! -e $kdir/.kvm-msr-configured ]]; then
	mkdir -p "$kdir"
	run_logged "$logs/configure-$variant.log" "configuring Linux $version ($variant)" 0 \
		configure "$kdir"
	missing=$(refused "$kdir")
	if [[ -n $missing ]]; then
		grep -q '^CONFIG_RUST=y' "$kdir/.config" || "${kmake[@]}" rustavailable >&2 || true
		die "Linux $version does not take these options of tools/kernel/configs:" \
			"$(tr '\n' ' ' <<<"$missing")"
	fi
	touch "$kdir/.kvm-msr-configured"
fi
state_drift
warn_of_drift "$kdir/kvm-msr-drift" "${KSRC:-$deb}"
if [[ -n $prepare_only ]]; then
	printf '%s\n' "$kdir"
	exit 0
fi

say "building Linux $version ($variant): about 9 minutes on two cores, once"
[[ $variant != debug ]] || steps=2400
run_logged "$logs/kernel-$variant.log" "building Linux $version ($variant)" "$steps" \
	"${kmake[@]}" -j"$jobs" bzImage modules
touch "$done_stamp"
printf '%s\n' "$kdir"
