#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make test-trace: counts calls of the functions in /trace/functions while the engine serves all VMs,
# and then while C serves them, to show that the profiler works.

tracing=/sys/kernel/tracing
[ -e $tracing/set_ftrace_filter ] || mount -t tracefs nodev $tracing || exit
while read -r function; do
	# Some functions can't be traced.
	echo "$function" >>$tracing/set_ftrace_filter 2>/dev/null
done </trace/functions

for side in engine c; do
	echo 1 >$tracing/function_profile_enabled || exit
	kvm-msr-sweep --quick --models 1 --only $side || exit
	echo 0 >$tracing/function_profile_enabled
	for cpu in "$tracing"/trace_stat/function*; do
		while read -r function hits _; do
			echo "hits $side $function $hits"
		done <"$cpu"
	done
done
