# SPDX-License-Identifier: GPL-2.0
"""Tries the hook series on another tree, hunk by hunk.

`patch -F0` takes a hunk only where its context matches, wherever in the file that is. A context can also
match in another function than the hunk is for, so the functions are compared.
"""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass

from drift import definitions, trees

APPLIES = "applies"
FAILS = "does not apply"
MISPLACED = "applies in another place"
NO_FILE = "file is missing"

_FILE = re.compile(r"^\+\+\+ b/(\S+)$")
_HUNK = re.compile(r"^@@ -\d+(?:,\d+)? \+(\d+)(?:,\d+)? @@")
_PATCHING = re.compile(r"^(?:checking|patching) file '?(.+?)'?(?: \(.*)?$")
_VERDICT = re.compile(r"^Hunk #(\d+) (succeeded|FAILED) at (\d+)")


@dataclass
class Hunk:
    """A hunk: where it is in the patch, and what became of it in a tree."""
    patch: str
    number: int
    file: str
    # Its first changed line in the file that it makes, and the lines.
    line: int
    before: int
    lines: list
    # What it changes in the reviewed tree, or None at the file's level.
    function: str = None
    verdict: str = APPLIES
    # What it would change in the other tree.
    there: str = None


def _of_patch(patch):
    """The hunks of a patch that change files, in order. New files always apply."""
    hunks, file, new = [], None, False
    with open(patch, encoding="utf-8") as stream:
        for line in stream.read().splitlines():
            if line.startswith("--- "):
                new = line == "--- /dev/null"
            elif match := _FILE.match(line):
                file, number = match.group(1), 0
            elif file and (match := _HUNK.match(line)):
                number += 1
                hunks.append(Hunk(os.path.basename(patch), number, file, int(match.group(1)), 0, []))
            elif line == "-- ":
                file = None
            elif file and hunks and line[:1] in " +-" and line:
                hunks[-1].lines.append(line)
            if new and hunks and hunks[-1].file == file:
                hunks.pop()
    for hunk in hunks:
        hunk.before = next(at for at, line in enumerate(hunk.lines) if line[0] != " ")
    return hunks


def _apply(patch, directory):
    """Applies a patch to a tree, as far as possible. Returns the lines where hunks were put, by file and
    number."""
    run = subprocess.run(["patch", "-p1", "-F0", "-f", "--verbose", "--no-backup-if-mismatch",
                          "--reject-file=-", "-d", directory, "-i", patch],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    file, put = None, {}
    for line in run.stdout.splitlines():
        if match := _PATCHING.match(line):
            file = match.group(1)
        elif match := _VERDICT.match(line):
            put[file, int(match.group(1))] = int(match.group(3)) \
                if match.group(2) == "succeeded" else None
    return put


def _function(directory, hunk, line):
    """What a hunk changes that was put at a line: the definition around its first changed line."""
    with open(os.path.join(directory, hunk.file), encoding="utf-8", errors="replace") as stream:
        text = stream.read()
    changed = line + hunk.before
    # A removed line is not there: what follows it is.
    return definitions.enclosing(text, min(changed, len(text.splitlines())))


def tried(reviewed, source):
    """The hunks of the series, each tried on the tree `source`. `reviewed` is the reviewed source. Both
    are without the series; neither is changed."""
    hunks = []
    with tempfile.TemporaryDirectory(prefix="kvm-msr-drift-") as scratch:
        here, there = (os.path.join(scratch, name) for name in ("here", "there"))
        trees.copy(reviewed, here)
        trees.copy(source, there)
        for patch in trees.patches():
            put = [_apply(patch, directory) for directory in (here, there)]
            for hunk in _of_patch(patch):
                place = hunk.file, hunk.number
                # The series may have been rebased since the review.
                at_home = put[0].get(place)
                hunk.function = _function(here, hunk, at_home) if at_home else None
                if not os.path.exists(os.path.join(there, hunk.file)):
                    hunk.verdict = NO_FILE
                elif put[1].get(place) is None:
                    hunk.verdict = FAILS
                else:
                    hunk.there = _function(there, hunk, put[1][place])
                    if at_home and hunk.there != hunk.function:
                        hunk.verdict = MISPLACED
                hunks.append(hunk)
    return hunks
