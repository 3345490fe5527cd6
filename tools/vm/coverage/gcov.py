# SPDX-License-Identifier: GPL-2.0
"""Reads gcov's files as clang writes them: the flow graphs of an object's functions (.gcno), and the
counters of a run (.gcda).

llvm-cov gcov prints the same counts, but does not say where a branch goes to, so that the cases of a
switch could not be told apart. The format is GCC 4.8's: records of 32-bit words, each with a tag and a
length. Functions are recorded before any of them is inlined, with the file that defines them.
"""

import struct
from dataclasses import dataclass, field

_VERSION = b"*804"
_FUNCTION, _BLOCKS, _ARCS, _LINES, _COUNTERS = 0x01000000, 0x01410000, 0x01430000, 0x01450000, 0x01a10000
# An arc of the spanning tree: it has no counter, as the others' counts give its own.
_ON_TREE = 1


class FormatError(ValueError):
    """The file is not as expected, or does not belong to the other one."""


@dataclass
class Arc:
    """A way from one block to another. counter is None if it is on the spanning tree."""
    source: int
    target: int
    counter: int | None
    count: int = 0


@dataclass
class Function:
    """A function's flow graph. Each block has the lines of its file that it executes."""
    name: str
    file: str
    start: int
    checksums: tuple
    lines: list = field(default_factory=list)
    arcs: list = field(default_factory=list)

    def add(self, counters):
        """Adds a run to the arcs' counts. It has a counter for each arc that is not on the tree."""
        incoming, outgoing = self._by_block()
        run = {id(arc): counters[arc.counter] for arc in self.arcs if arc.counter is not None}
        # As much flows into a block as out of it, so one unknown arc of a block follows from the others.
        # The tree has no cycles, so this ends. The first two blocks are the entry and the exit.
        changed = True
        while changed and len(run) < len(self.arcs):
            changed = False
            for block in range(2, len(self.lines)):
                left = [arc for arc in incoming[block] + outgoing[block] if id(arc) not in run]
                if len(left) == 1:
                    flow = sum(run.get(id(arc), 0) for arc in incoming[block]) - sum(
                        run.get(id(arc), 0) for arc in outgoing[block])
                    run[id(left[0])] = flow if left[0].source == block else -flow
                    changed = True
        if len(run) < len(self.arcs):
            raise FormatError(f"{self.name}: the counters do not give all counts")
        for arc in self.arcs:
            # Where clang folds __builtin_constant_p(), as in boot_cpu_has(), the counter of the way that is
            # dropped counts the other way. The flow that follows is too small by that count.
            arc.count += max(run[id(arc)], 0)

    def executions(self):
        """The number of executions of each block."""
        return [max(sum(arc.count for arc in arcs) for arcs in both) for both in zip(*self._by_block())]

    def _by_block(self):
        incoming = [[] for _ in self.lines]
        outgoing = [[] for _ in self.lines]
        for arc in self.arcs:
            outgoing[arc.source].append(arc)
            incoming[arc.target].append(arc)
        return incoming, outgoing


class _Words:
    """A file's words."""

    def __init__(self, data, magic):
        if data[:4] != magic or data[4:8] != _VERSION:
            raise FormatError(f"magic {data[:4]!r}, version {data[4:8]!r}")
        self._data = data
        self._at = 12
        self.stamp = self.word_at(8)

    def word_at(self, offset):
        """The word at this offset."""
        return struct.unpack_from("<I", self._data, offset)[0]

    def records(self):
        """The tag and the words of each record."""
        while self._at + 8 <= len(self._data):
            tag, length = struct.unpack_from("<2I", self._data, self._at)
            if not tag:
                return
            self._at += 8
            yield tag, list(struct.unpack_from(f"<{length}I", self._data, self._at))
            self._at += 4 * length


def _string(words, at):
    """The string at this word, and the word after it."""
    length = words[at]
    text = struct.pack(f"<{length}I", *words[at + 1:at + 1 + length]).rstrip(b"\0").decode()
    return text, at + 1 + length


def read_graphs(data):
    """The functions of a .gcno, in its order, by their identifiers."""
    functions = {}
    current = None
    for tag, words in _Words(data, b"oncg").records():
        if tag == _FUNCTION:
            name, at = _string(words, 3)
            file, at = _string(words, at)
            current = Function(name, file, words[at], tuple(words[1:3]))
            functions[words[0]] = current
        elif tag == _BLOCKS:
            current.lines = [[] for _ in words]
        elif tag == _ARCS:
            for target, flags in zip(words[1::2], words[2::2]):
                counter = None
                if not flags & _ON_TREE:
                    counter = sum(arc.counter is not None for arc in current.arcs)
                current.arcs.append(Arc(words[0], target, counter))
        elif tag == _LINES:
            _read_lines(current, words)
    return functions


def _read_lines(function, words):
    """The lines of a block. Those that another file's macros or asm brought in are left out."""
    at, file = 1, None
    while at < len(words):
        if words[at]:
            if file == function.file:
                function.lines[words[0]].append(words[at])
            at += 1
        elif at + 1 < len(words) and words[at + 1]:
            file, at = _string(words, at + 1)
        else:
            return


def add_counters(functions, data):
    """Adds the counters of a .gcda to the counts of its object's functions."""
    current = None
    for tag, words in _Words(data, b"adcg").records():
        if tag == _FUNCTION and words:
            current = functions.get(words[0])
            if current is None or current.checksums != tuple(words[1:3]):
                raise FormatError("the counters are of another build of the object")
        elif tag == _COUNTERS and current:
            counters = [low | high << 32 for low, high in zip(words[::2], words[1::2])]
            if len(counters) != sum(arc.counter is not None for arc in current.arcs):
                raise FormatError(f"{current.name}: {len(counters)} counters")
            current.add(counters)
