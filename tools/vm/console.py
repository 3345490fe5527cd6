# SPDX-License-Identifier: GPL-2.0
"""Reads what a machine wrote: the job's frames and the kernel's complaints.

A line of the job's that starts with `@@` is a frame, for programs:

    @@json <one line of JSON>    a result
    @@exit <code>                the job's end; the init writes it
    @@<word> <text>              whatever the job and its reader agreed on
"""

import json
import re

# What makes a run fail, wherever it comes from.
_SPLAT = re.compile(
    r"WARNING: |BUG: |\bOops\b|kernel BUG at|general protection fault|KASAN: |UBSAN: |"
    r"possible (circular|recursive|irq lock)|INFO: (possible|task .* blocked|suspicious)|"
    r"suspicious RCU usage|Kernel panic|unable to handle|rust_kernel: panicked|panicked at |"
    r"sleeping function called|held lock freed|bad unlock balance|inconsistent lock state|"
    r"kmemleak: \d+ new suspected|refcount_t: |list_(add|del) corruption|ODEBUG: ")
# What looks like it and is none: the boot's own notes.
_HARMLESS = re.compile(r"WARNING: Spectre")
# Before that, the kernel takes stock of the emulator's CPU, and Bochs's topology makes it WARN.
_STARTED = re.compile(r"Run /init as init process")
_PANIC = re.compile(r"Kernel panic")
_STAMP = re.compile(r"^(<\d+>)?\[\s*\d+\.\d+\](\[\s*[TC]\d+\])? ?")
_SPLAT_LINES = 40


class LineReader:
    """Follows a file that grows, line by line."""

    def __init__(self, path):
        self._file = open(path, "rb")
        self._rest = b""

    def lines(self):
        """The complete lines that have come since the last call."""
        data = self._rest + self._file.read()
        *complete, self._rest = data.split(b"\n")
        return [line.decode(errors="replace").rstrip("\r") for line in complete]

    def close(self):
        """Closes the file."""
        self._file.close()


class KernelLog:
    """The kernel's console."""

    def __init__(self):
        self.lines = []
        self.splats = []
        self.panicked = False
        self._started = False
        self._left = 0

    def feed(self, line):
        """Takes one more line."""
        self.lines.append(line)
        self._started = self._started or bool(_STARTED.search(line))
        self.panicked = self.panicked or bool(_PANIC.search(line))
        if _SPLAT.search(line) and not _HARMLESS.search(line) and (
                self._started or self.panicked):
            if self._left <= 0:
                self.splats.append([])
            self._left = _SPLAT_LINES
        if self._left > 0:
            self.splats[-1].append(line)
            self._left -= 1
            if "end trace" in line:
                self._left = 0

    def plain(self):
        """The lines without their time stamps."""
        return [_STAMP.sub("", line) for line in self.lines]


class JobLog:
    """The job's output: frames apart from lines for people."""

    def __init__(self):
        self.lines = []
        self.frames = []
        self.exit_code = None

    def feed(self, line):
        """Takes one more line; returns it if it is for people, else None."""
        if not line.startswith("@@"):
            self.lines.append(line)
            return line
        word, _, text = line[2:].partition(" ")
        if word == "exit":
            self.exit_code = int(text)
        else:
            self.frames.append((word, text))
        return None

    def frames_of(self, word):
        """The texts of all frames with this word."""
        return [text for name, text in self.frames if name == word]

    def json(self):
        """The results, parsed; raises ValueError where one is cut off."""
        return [json.loads(text) for text in self.frames_of("json")]
