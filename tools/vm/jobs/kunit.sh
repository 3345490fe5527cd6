#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make kunit: the suites run in insmod; what they say goes to the kernel's log.

insmod "$MODULES/kvm-msr.ko" && rmmod kvm_msr
