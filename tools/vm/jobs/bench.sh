#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make bench, and make bench-hooks where the engine is not loaded.

if [ -d /sys/module/kvm_msr ]; then
	exec kvm-msr-bench
else
	exec kvm-msr-bench --only c
fi
