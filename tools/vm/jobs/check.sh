#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make check.  On the debug kernel, kmemleak scans at the end.

# shellcheck disable=SC2046
kvm-msr-check --test "$(cat /check/test)" $(cat /check/options)
code=$?
if [ -e /sys/kernel/debug/kmemleak ]; then
	# It ignores objects that are younger than five seconds, and needs two scans to be sure.
	sleep 6
	echo scan >/sys/kernel/debug/kmemleak
	sleep 6
	echo scan >/sys/kernel/debug/kmemleak
	cat /sys/kernel/debug/kmemleak
fi
exit $code
