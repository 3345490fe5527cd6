# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034 # The scripts that source this file use the variables.
#
# What the scripts of this directory share: paths, messages, the toolchain.  It is sourced, not run.
# Scripts print the path of their product on stdout, and messages on stderr.

set -euo pipefail
# The kernel's make must not inherit the jobserver and variables of the make that runs this script.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cache=${KVM_MSR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvm-msr}
logs=$cache/log
# The series that tools/kernel/patches applies to.
series=7.3
bindgen_version=0.72.1
bindgen_minimum=0.71.1

say() {
	printf '%s\n' "kvm-msr: $*" >&2
}

die() {
	printf '%s\n' "kvm-msr: error: $*" >&2
	exit 1
}

# Makes the cache and marks it as a cache, for backup programs and `make distclean`.
make_cache() {
	mkdir -p "$cache" "$logs" "$cache/lock" 2>/dev/null ||
		die "cannot write to the cache $cache; set KVM_MSR_CACHE to a directory you can write to"
	[[ -e $cache/CACHEDIR.TAG ]] ||
		printf 'Signature: 8a477f597d28d172789f06886806bc55\n# The build cache of kvm-msr.\n' \
			>"$cache/CACHEDIR.TAG"
}

# lock NAME: waits for the lock, and holds it until this process ends.
lock() {
	make_cache
	exec {lock_fd}>"$cache/lock/$1"
	if ! flock -n "$lock_fd"; then
		say "waiting for another make, which holds the lock '$1'"
		flock "$lock_fd"
	fi
}

# need_space MIB WHY: fails if the cache's file system has less free space.
need_space() {
	local free
	free=$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')
	((free >= $1)) ||
		die "$2 needs $1 MiB in $cache, where $free MiB are free;" \
			"make room (old builds are in $cache/kernel and $cache/source) or set KVM_MSR_CACHE"
}

# Elapsed seconds as m:ss.
clock() {
	printf '%d:%02d' $(($1 / 60)) $(($1 % 60))
}

# run_logged LOG TITLE STEPS COMMAND...: runs a long command with its output in LOG, and shows
# its progress: the time, and the number of kbuild's lines of STEPS (0: unknown).
run_logged() {
	local log=$1 title=$2 steps=$3 pid start=$SECONDS every=30 next status=0 done_steps width
	shift 3
	mkdir -p "$(dirname "$log")"
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	# A shell without job control starts background jobs with SIGINT ignored: pass ^C on.
	trap 'kill -TERM "$pid" 2>/dev/null; wait "$pid" || true; printf "\n" >&2; exit 130' INT TERM
	[[ -t 2 ]] && every=1
	next=$((start + every))
	width=${COLUMNS:-79}
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.2
		((SECONDS >= next)) || continue
		next=$((SECONDS + every))
		local line
		line="kvm-msr: $title, $(clock $((SECONDS - start)))"
		if ((steps)); then
			done_steps=$(grep -cE '^  [A-Z]' "$log" || true)
			line+=", $done_steps of about $steps steps"
		fi
		if [[ -t 2 ]]; then
			printf '\r%-*.*s' "$width" "$width" "$line" >&2
		else
			printf '%s\n' "$line" >&2
		fi
	done
	wait "$pid" || status=$?
	trap - INT TERM
	[[ -t 2 ]] && ((SECONDS - start >= 1)) && printf '\r%*s\r' "$width" '' >&2
	if ((status)); then
		tail -n 25 "$log" >&2
		die "$title failed (exit code $status); the whole log is $log"
	fi
	((SECONDS - start < 2)) || say "$title: done in $(clock $((SECONDS - start)))"
}

# hash_of: the first 12 hexadecimal digits of stdin's SHA-256.
hash_of() {
	sha256sum | cut -c1-12
}

# The name of the directories with this checkout's products: two checkouts must not share one.
checkout=$(printf '%s' "$repo" | hash_of)

version_at_least() {
	[[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]
}

# toolchain: sets PATH and the variables for the kernel's make.
#
# A rustup toolchain may be first in PATH, but it lacks the library source that the kernel needs.
# So the distribution's toolchain is named by its path.
toolchain() {
	PATH=/usr/bin:$PATH
	[[ ! -d /usr/lib/llvm-19/bin ]] || PATH=/usr/lib/llvm-19/bin:$PATH
	export PATH
	rustc=${RUSTC:-/usr/bin/rustc}
	bindgen=${BINDGEN:-}
	if [[ -z $bindgen ]]; then
		bindgen=$cache/bindgen-$bindgen_version/bin/bindgen
		if [[ -x /usr/bin/bindgen ]] && version_at_least "$bindgen_minimum" \
			"$(/usr/bin/bindgen --version | awk '{ print $2 }')"; then
			bindgen=/usr/bin/bindgen
		fi
	fi
	unset RUSTC BINDGEN
	kbuild=(RUSTC="$rustc" HOSTRUSTC="$rustc" RUSTFMT=/usr/bin/rustfmt
		CLIPPY_DRIVER=/usr/bin/clippy-driver BINDGEN="$bindgen")
	jobs=$(($(nproc) + 1))
}

# Runs the distribution's cargo, whatever is first in PATH.
debian_cargo() {
	env -u RUSTUP_TOOLCHAIN RUSTC="$rustc" /usr/bin/cargo "$@"
}

ensure_bindgen() {
	[[ ! -x $bindgen ]] || return 0
	[[ $bindgen == "$cache"/* ]] || die "BINDGEN=$bindgen cannot be run"
	# Building bindgen takes longer than running it, so optimise it little.
	CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_TARGET_DIR=$cache/bindgen-build \
		run_logged "$logs/bindgen.log" \
		"building bindgen $bindgen_version" 0 \
		debian_cargo install bindgen-cli --version "$bindgen_version" --locked \
		--root "$cache/bindgen-$bindgen_version"
	rm -rf "$cache/bindgen-build"
}

# source_of KDIR: the source tree that a build directory was built from.
source_of() {
	if [[ -e $1/source ]]; then
		readlink -f "$1/source"
	else
		readlink -f "$1"
	fi
}

# drift_of SOURCE NAME: prints the path of a list of the C functions in a source tree that differ from
# those which the engine was written against.  NAME stands for the tree's content: the list is made
# once for each, and for each state of the record.
drift_of() {
	local source=$1 file
	file=$cache/drift/$2-$(cat "$repo/tools/kernel/reviewed.json" "$repo"/tools/vm/drift/*.py | hash_of)
	if [[ ! -e $file ]]; then
		mkdir -p "$cache/drift"
		# A build does not depend on this.
		PYTHONPATH=$repo/tools/vm PYTHONDONTWRITEBYTECODE=1 python3 -m drift.warn "$source" \
			>"$file.$$" || say "could not compare $source with what was reviewed"
		mv "$file.$$" "$file"
	fi
	printf '%s\n' "$file"
}

# warn_of_drift LIST WHERE: says what a list of drift_of has, if anything.
warn_of_drift() {
	local count
	count=$(wc -l <"$1")
	((count)) || return 0
	say "warning: in $2, these differ from what the engine was written against:" \
		"$(head -n 5 "$1" | paste -sd ' ')$( ((count <= 5)) || printf ' and %d more' $((count - 5)))"
	say "make drift KSRC=$2 shows how, and which files of ours to read again"
}

# kernel_key KDIR: a name for the kernel built there, for directories of products that depend on it.
kernel_key() {
	local kdir
	kdir=$(readlink -f "$1")
	if [[ $kdir == "$(readlink -f "$cache")"/kernel/* ]]; then
		basename "$kdir"
	else
		{
			printf '%s\n' "$kdir"
			cat "$kdir/.config" "$kdir/Module.symvers"
		} | hash_of | sed 's/^/kdir-/'
	fi
}

# check_kdir KDIR: dies unless kvm-msr.ko can be built against this directory.
check_kdir() {
	local kdir=$1 built_with ours
	[[ -e $kdir/Makefile && -e $kdir/.config && -e $kdir/Module.symvers ]] ||
		die "KDIR=$kdir is not the build directory of a built kernel" \
			"(it has no Makefile, .config or Module.symvers)"
	[[ -e $(source_of "$kdir")/arch/x86/kvm/msr_engine.h ]] ||
		die "the kernel of KDIR=$kdir lacks the hook series: apply tools/kernel/patches to it" \
			"and build it, or leave KDIR out to use the project's own kernel"
	grep -q '^CONFIG_RUST=y' "$kdir/.config" ||
		die "the kernel of KDIR=$kdir was built without CONFIG_RUST=y:" \
			"tools/kernel/configs/kvm-msr.config has what is needed"
	built_with=$(sed -n 's/^CONFIG_RUSTC_VERSION_TEXT="\(.*\)"$/\1/p' "$kdir/.config")
	ours=$("$rustc" --version)
	[[ $built_with == "$ours" ]] ||
		die "the kernel of KDIR=$kdir was built with '$built_with' and $rustc is '$ours':" \
			"set RUSTC to the compiler that built the kernel"
	if grep -q '^CONFIG_CC_IS_CLANG=y' "$kdir/.config"; then
		kbuild+=(LLVM=1)
	fi
}
