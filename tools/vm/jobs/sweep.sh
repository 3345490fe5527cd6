#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make sweep: runs kvm-msr-sweep once per line of /sweep/arguments. If there is /sweep/sample, also
# saves a VM while L2 runs, and restores it, with C and the engine on either side.

while read -r arguments; do
	# shellcheck disable=SC2086 # Several words, or none.
	kvm-msr-sweep $arguments || exit
done </sweep/arguments

# served ENGINE ARGUMENTS...: runs the sample with this engine, and checks that it serves the VM.
served() {
	engine=$1
	shift
	case $engine in
	c) enable=N name='C' ;;
	rust) enable=Y name='kvm-msr.*' ;;
	esac
	echo "$enable" >/sys/module/kvm_msr/parameters/enable
	nested_save_restore "$@" >/tmp/sample || return
	cat /tmp/sample
	grep -Eq "served by $name(,|\$)" /tmp/sample
}

[ -e /sweep/sample ] || exit 0
for first in c rust; do
	for second in c rust; do
		served $first save /tmp/nested.json || exit
		served $second restore /tmp/nested.json || exit
		echo "@@json {\"sample\": \"$first, then $second\"}"
	done
done
