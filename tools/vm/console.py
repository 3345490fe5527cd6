# SPDX-License-Identifier: GPL-2.0
"""Reads a machine's output: the job's frames, and warnings and errors in the kernel's log.

A line of the job that starts with `@@` is a frame, for programs:

    @@json <one line of JSON>    a result
    @@exit <code>                the job's exit code; the init prints it
    @@<word> <text>              defined by the job and its reader
"""

import json
import re

from races import Race

# Lines in the kernel's log that make a run fail.
_SPLAT = re.compile(
    r"WARNING: |BUG: |\bOops\b|kernel BUG at|general protection fault|KASAN: |UBSAN: |"
    r"possible (circular|recursive|irq lock)|INFO: (possible|task .* blocked|suspicious)|"
    r"suspicious RCU usage|Kernel panic|unable to handle|rust_kernel: panicked|panicked at |"
    r"sleeping function called|held lock freed|bad unlock balance|inconsistent lock state|"
    r"kmemleak: \d+ new suspected|refcount_t: |list_(add|del) corruption|ODEBUG: ")
# Boot messages that match _SPLAT, but are no error.
_HARMLESS = re.compile(r"WARNING: Spectre")
# Warnings before this line are ignored: Bochs's CPU topology causes some during boot.
_STARTED = re.compile(r"Run /init as init process")
_PANIC = re.compile(r"Kernel panic")
_STAMP = re.compile(r"^(<\d+>)?\[\s*\d+\.\d+\](\[\s*[TC]\d+\])? ?")
_SPLAT_LINES = 40


class LineReader:
    """Reads the lines of a file that another process appends to."""

    def __init__(self, path):
        self._file = open(path, "rb")
        self._rest = b""

    def lines(self):
        """The complete lines since the last call."""
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
        # KCSAN's reports.
        self.races = []
        self.panicked = False
        self._started = False
        self._left = 0

    def feed(self, line):
        """Adds a line."""
        self.lines.append(line)
        self._started = self._started or bool(_STARTED.search(line))
        self.panicked = self.panicked or bool(_PANIC.search(line))
        if self._race(_STAMP.sub("", line)):
            return
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

    def _race(self, line):
        """Whether the line is part of a report of KCSAN."""
        if self.races and not self.races[-1].ended:
            self.races[-1].feed(line)
            return True
        if self._started and Race.begins(line):
            self.races.append(Race(line))
            return True
        return False

    def plain(self):
        """The lines without their time stamps."""
        return [_STAMP.sub("", line) for line in self.lines]


class JobLog:
    """The job's output: frames, and lines for people."""

    def __init__(self):
        self.lines = []
        self.frames = []
        self.exit_code = None

    def feed(self, line):
        """Adds a line. Returns it if it is for people, else None."""
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
        """The parsed results. Raises ValueError if one is incomplete."""
        return [json.loads(text) for text in self.frames_of("json")]
