#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make run: the sample.

exec msr_filter
