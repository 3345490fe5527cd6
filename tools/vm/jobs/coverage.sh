#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make coverage: runs the job of a judge, /coverage/judge.sh, and prints the counters of the code that
# ran. If there is /coverage/kvm_immediate.ko, guests use the immediate forms of RDMSR
# and WRMSR.  The frames:
#
#   @@gcov <object> <gcda>     C's: the object file below arch/x86/kvm, without .o
#   @@profile <profile>        the engine's: a raw profile of LLVM
#
# The contents of the files are compressed by gzip, and in base64.

encode() {
	gzip | base64 | tr -d '\n'
}

[ ! -e /coverage/kvm_immediate.ko ] || insmod /coverage/kvm_immediate.ko || exit
sh /coverage/judge.sh
code=$?

# The engine's counters go with the module. C's stay, also those of the vendor module, so that the
# functions that run when it is unloaded count.
if [ -e /sys/module/kvm_msr ]; then
	kvm-msr-profile >/tmp/profile || exit
	echo "@@profile $(encode </tmp/profile)"
fi
rmmod "kvm-$VENDOR" || code=1
counters=/sys/kernel/debug/gcov

find $counters -name '*.gcda' | grep /arch/x86/kvm/ | while read -r file; do
	object=${file##*/arch/x86/kvm/}
	echo "@@gcov ${object%.gcda} $(encode <"$file")"
done
exit $code
