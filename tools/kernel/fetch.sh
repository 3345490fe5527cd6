#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# fetch.sh [--update]: downloads the kernel's source package unless the cache has it, and prints its
# path.  A cached package is kept, so that builds are reproducible and work offline; --update looks
# for a newer one of the same series.  apt checks the archive's signature.  It uses sources and
# state of its own, and does not change the system's apt configuration.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

package=linux-source-$series
# The suite that has the package.  Debian 12 can download from it without installing from it.
suite=trixie-backports
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
dir=$cache/download

newest() {
	[[ -d $dir ]] || return 0
	find "$dir" -maxdepth 1 -name "${package}_*.deb" 2>/dev/null | sort -V | tail -n 1
}

# The Debian mirrors of this machine, best first.
mirrors() {
	# shellcheck disable=SC2016 # apt expands these.
	apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' |
		awk '/security/ { next }
		     $1 == "Debian" { print $2; next }
		     NF == 1 && /\/debian\/?$/ { print $1 }' | awk '!seen[$0]++'
}

download() {
	local mirror apt log=$logs/fetch.log
	[[ -e $keyring ]] || die "$keyring is missing: install the package debian-archive-keyring"
	mkdir -p "$dir/lists/partial" "$dir/archives/partial" "$dir/new"
	apt=(apt-get -q
		-oDir::Etc::sourcelist="$dir/sources.list" -oDir::Etc::sourceparts=-
		-oDir::State::Lists="$dir/lists" -oDir::Cache="$dir"
		-oAPT::Sandbox::User=root -oAcquire::Languages=none -oAcquire::Retries=2)
	: >"$log"
	while read -r mirror; do
		printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$mirror" "$suite" \
			>"$dir/sources.list"
		rm -rf "$dir/new"
		mkdir "$dir/new"
		say "fetching $package from this machine's Debian mirror"
		if "${apt[@]}" update --error-on=any >>"$log" 2>&1 &&
			(cd "$dir/new" && "${apt[@]}" download "$package" >>"$log" 2>&1); then
			mv "$dir"/new/*.deb "$dir/"
			rmdir "$dir/new"
			return 0
		fi
	done < <(mirrors)
	return 1
}

lock fetch
deb=$(newest)
if [[ -z $deb || ${1:-} == --update ]]; then
	if download; then
		deb=$(newest)
	elif [[ -n $deb ]]; then
		say "could not look for a newer kernel source (log: $logs/fetch.log);" \
			"using $(basename "$deb")"
	else
		die "could not download $package from $suite (log: $logs/fetch.log):" \
			"check the network, or give KSRC=/path/to/a/linux-$series.y/tree"
	fi
fi
printf '%s\n' "$deb"
