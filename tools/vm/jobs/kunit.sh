#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make kunit: the suites run during insmod, and print to the kernel's log.

insmod "$MODULES/kvm-msr.ko" && rmmod kvm_msr
