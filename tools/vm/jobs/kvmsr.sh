#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make test-kvmsr: kvmsr-check with the arguments of the run.

# shellcheck disable=SC2046 # Several words, or none.
kvmsr-check $(cat /kvmsr/arguments)
