#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make check.

# For the tests of the immediate forms.
[ ! -e /check/kvm_immediate.ko ] || insmod /check/kvm_immediate.ko || exit

# shellcheck disable=SC2046
kvm-msr-check --test "$(cat /check/test)" $(cat /check/options)
code=$?
leaks
exit $code
