#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make check.

# shellcheck disable=SC2046
kvm-msr-check --test "$(cat /check/test)" $(cat /check/options)
code=$?
leaks
exit $code
