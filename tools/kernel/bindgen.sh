#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# bindgen.sh: builds bindgen unless there is one, and prints its path.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

toolchain
lock bindgen
ensure_bindgen
printf '%s\n' "$bindgen"
