#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make sweep: kvm-msr-sweep once per line of arguments, and with sample the nested one on both
# engines and from each to the other.

while read -r arguments; do
	# shellcheck disable=SC2086 # Several words, or none.
	kvm-msr-sweep $arguments || exit
done </sweep/arguments

[ -e /sweep/sample ] || exit 0
for engine in c rust; do
	for then in c rust; do
		nested_save_restore --engine $engine --then $then || exit
		echo "@@json {\"sample\": \"$engine, then $then\"}"
	done
done
