#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make bench; or make bench-hooks, which does not load the engine.

if [ -d /sys/module/kvm_msr ]; then
	exec kvm-msr-bench
else
	exec kvm-msr-bench --only c
fi
