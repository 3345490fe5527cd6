#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make sweep: every MSR of C and of the engine, value by value.

# shellcheck disable=SC2046 # Several words, or none.
exec kvm-msr-sweep $(cat /sweep/arguments)
