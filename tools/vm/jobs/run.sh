#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make run: runs a sample.

exec msr_filter
