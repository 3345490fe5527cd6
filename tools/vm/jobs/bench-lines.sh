#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make bench, the part that counts cache lines.  Says first where the modules were loaded.

cd /sys/module || exit
for section in kvm*/sections/.[a-z]*; do
	echo "@@section $section $(cat "$section")"
done
exec kvm-msr-bench --lines
