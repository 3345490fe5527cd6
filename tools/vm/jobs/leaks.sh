#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The command `leaks`, for the end of a job: on the debug kernel, kmemleak scans and prints what it
# found.

leaks=/sys/kernel/debug/kmemleak
[ -e $leaks ] || exit 0
# It ignores objects that are younger than five seconds, and needs two scans to be sure.
for _ in 1 2; do
	sleep 6
	echo scan >$leaks
done
cat $leaks
