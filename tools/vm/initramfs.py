# SPDX-License-Identifier: GPL-2.0
"""Writes initramfs archives in cpio's newc format. This needs neither root nor cpio."""

import gzip
import os
import stat


class Initramfs:
    """A tree of files, which add() collects and write() writes."""

    def __init__(self):
        self._entries = {}
        for directory in ("bin", "dev", "etc", "lib", "programs", "proc", "sys", "tmp"):
            self._directory(directory)
        # The kernel opens it for init before devtmpfs is mounted.
        self._entries["dev/console"] = (stat.S_IFCHR | 0o600, b"", (5, 1))

    def _directory(self, path):
        if path and path not in self._entries:
            self._directory(os.path.dirname(path))
            self._entries[path] = (stat.S_IFDIR | 0o755, b"", (0, 0))

    def add(self, path, content, mode=0o755):
        """Adds a file; content is bytes or str."""
        if isinstance(content, str):
            content = content.encode()
        path = path.strip("/")
        self._directory(os.path.dirname(path))
        self._entries[path] = (stat.S_IFREG | mode, content, (0, 0))

    def add_file(self, path, source):
        """Adds a copy of a file of the host."""
        with open(source, "rb") as file:
            self.add(path, file.read(), 0o755 if os.access(source, os.X_OK) else 0o644)

    def add_tree(self, path, source):
        """Adds a directory of the host, recursively."""
        for directory, _, names in os.walk(source):
            for name in names:
                full = os.path.join(directory, name)
                self.add_file(os.path.join(path, os.path.relpath(full, source)), full)

    def write(self, path, compress=False):
        """Writes the archive."""
        opener = (lambda: gzip.open(path, "wb", compresslevel=1)) if compress else (
            lambda: open(path, "wb"))
        with opener() as file:
            for inode, (name, entry) in enumerate(self._entries.items(), start=1):
                self._write_entry(file, inode, name, *entry)
            self._write_entry(file, 0, "TRAILER!!!", 0, b"", (0, 0))

    @staticmethod
    def _write_entry(file, inode, name, mode, content, device):
        encoded = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        file.write(header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4))
