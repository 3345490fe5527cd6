#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make check.

# For the tests of the immediate forms.
[ ! -e /check/kvm_immediate.ko ] || insmod /check/kvm_immediate.ko || exit

# Here, threads race: have KCSAN watch one of 500 accesses, not one of 4000.
skip=/sys/module/kcsan/parameters/skip_watch
[ ! -e $skip ] || echo 500 >$skip

# shellcheck disable=SC2046
kvm-msr-check --test "$(cat /check/test)" $(cat /check/options)
code=$?
leaks
exit $code
