#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make check.  On the debug kernel, the leak detector has the last word.

kvm-msr-check --test "$(cat /check/test)"
code=$?
if [ -e /sys/kernel/debug/kmemleak ]; then
	# It does not count what is younger than five seconds, or was just moved.
	sleep 6
	echo scan >/sys/kernel/debug/kmemleak
	sleep 6
	echo scan >/sys/kernel/debug/kmemleak
	cat /sys/kernel/debug/kmemleak
fi
exit $code
