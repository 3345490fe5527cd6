#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# plugin.sh: builds the plugin of QEMU in tools/bench/plugin, and prints where it is.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

source=$repo/tools/bench/plugin
# QEMU loads plugins of its own version of the interface, and of some earlier ones.
version=$(qemu-system-x86_64 --version | sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p')
if version_at_least 9.0 "$version"; then
	api=3
else
	api=1
fi
plugin=$cache/plugin/$checkout/trace-$api.so

lock plugin
mkdir -p "$(dirname "$plugin")"
if [[ ! -e $plugin || $source/trace.c -nt $plugin || $source/qemu_plugin.h -nt $plugin ]]; then
	run_logged "$logs/plugin.log" "building the plugin of QEMU" 0 \
		gcc -O2 -Wall -Wextra -Werror -fPIC -shared -fvisibility=hidden -DPLUGIN_API=$api \
		-o "$plugin" "$source/trace.c"
fi
printf '%s\n' "$plugin"
