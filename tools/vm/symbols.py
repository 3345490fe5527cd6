# SPDX-License-Identifier: GPL-2.0
"""Names for the addresses of a booted kernel: its own, and those of the modules of KVM."""

import bisect
import os
import re
import subprocess

# objdump -t: address, flags, section, size, name.
_SYMBOL = re.compile(r"^([0-9a-f]+) .{7} (\S+)\t([0-9a-f]+) +(?:\.hidden )?(.+)$")
# Where the kernel's image is mapped; below are offsets in per-CPU memory, which also have names.
_KERNEL = 0xffff_ffff_8000_0000


class Symbols:
    """The kernel's System.map, and the symbols of its modules.

    sections has lines as "kvm/sections/.text 0xffffffffa0000000".
    """

    def __init__(self, kernel, sections):
        self._found = [(1 << 64, 0, "")]
        self._read_map(os.path.join(kernel.directory, "System.map"))
        modules = {os.path.basename(path)[:-3].replace("-", "_"): path
                   for path in [*kernel.modules(), kernel.engine()]}
        where = {}
        for line in sections:
            path, address = line.split()
            module, _, section = path.split("/")
            # Memory that a module frees once it is loaded; another may be there by now.
            if section.startswith(".init"):
                continue
            where.setdefault(module, {})[section] = int(address, 16)
        for module, loaded in where.items():
            if module in modules:
                self._read_module(module, modules[module], loaded)
        self._found.sort()
        self._starts = [start for start, _, _ in self._found]

    def _read_map(self, path):
        """The kernel's own symbols, which have no sizes: each ends where the next begins."""
        with open(path, encoding="utf-8") as file:
            symbols = [line.split(maxsplit=2) for line in file]
        starts = sorted((int(address, 16), name.strip()) for address, _, name in symbols
                        if int(address, 16) >= _KERNEL)
        for (start, name), (end, _) in zip(starts, starts[1:]):
            self._found.append((start, end - start, name))

    def _read_module(self, module, path, loaded):
        listing = subprocess.run(["objdump", "-t", "-C", path], capture_output=True, check=True,
                                 text=True).stdout
        for line in listing.splitlines():
            match = _SYMBOL.match(line)
            if match and match.group(2) in loaded and int(match.group(3), 16):
                self._found.append((loaded[match.group(2)] + int(match.group(1), 16),
                                    int(match.group(3), 16), match.group(4)))

    def name(self, address):
        """A symbol and the offset from it, or None."""
        start, size, name = self._found[bisect.bisect_right(self._starts, address) - 1]
        if not 0 <= address - start < size:
            return None
        offset = address - start
        return f"{name}+{offset:#x}" if offset else name
