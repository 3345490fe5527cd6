#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make fuzz.

# Otherwise the kernel would spend its time on log messages.
echo N >/sys/module/kvm/parameters/report_ignored_msrs
# shellcheck disable=SC2046 # Several words.
exec kvm-msr-fuzz --corpus /fuzz/corpus $(cat /fuzz/arguments)
