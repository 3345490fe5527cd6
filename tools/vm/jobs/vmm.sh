#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make test-vmm: kvmsr-check's tests with QEMU.

# shellcheck disable=SC2046 # Several words, or none.
kvmsr-check --vmm $(cat /kvmsr/arguments)
code=$?
leaks
exit $code
