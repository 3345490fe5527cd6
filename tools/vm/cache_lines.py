# SPDX-License-Identifier: GPL-2.0
"""Counts the cache lines that a function touches, and its misses, in a trace of bench/plugin/trace.c.

The model is the first-level cache of many x86 CPUs: 32 KiB for code and 32 KiB for data, 8 ways, lines
of 64 bytes, with replacement of the least recently used line.  Lines are identified by their virtual
addresses.  There is no prefetching and no speculation, and the trace lacks the CPU's own accesses
(page tables, VMCB).
"""

import collections
import itertools
import statistics
import struct

LINE = 64
_SETS = 32 * 1024 // LINE // 8
_WAYS = 8

# struct record: address, kind, size.
_RECORD = struct.Struct("<QBB6x")
_FETCH, _LOAD, _STORE, _START, _STOP = range(5)


class Cache:
    """A cache of the first level, empty."""

    def __init__(self):
        self._sets = [collections.OrderedDict() for _ in range(_SETS)]

    def touch(self, line):
        """Accesses a line, given as address / 64; returns whether it was a miss."""
        ways = self._sets[line % _SETS]
        if line in ways:
            ways.move_to_end(line)
            return False
        if len(ways) == _WAYS:
            ways.popitem(last=False)
        ways[line] = None
        return True


class Call:
    """One call of the function, from its first instruction to its return.

    code and data are the lines touched, in order: they map the line's address to the first address
    that was accessed in it, the address of that instruction, and the number of accesses.
    cold and warm are pairs, misses of code and misses of data: with caches that are empty at the
    call, and with caches that the calls before have filled.
    """

    def __init__(self, slot):
        # Where on the stack the return address is.
        self.slot = slot
        self.instructions = 0
        self.code = {}
        self.data = {}
        self.cold = [0, 0]
        self.warm = [0, 0]
        self._empty = (Cache(), Cache())

    @property
    def lines(self):
        """How many lines were touched."""
        return len(self.code) + len(self.data)

    def touch(self, data, line, address, instruction, missed):
        """Takes one access to one line; missed says whether it missed in the warm cache."""
        touched = self.data if data else self.code
        touched.setdefault(line * LINE, [address, instruction, 0])[2] += 1
        self.cold[data] += self._empty[data].touch(line)
        self.warm[data] += missed


def _calls(records, function):
    """The calls of a function within the records between two marks."""
    warm = (Cache(), Cache())
    calls = []
    current = None
    # Where the return addresses are of the functions that are being executed.
    slots = []
    # The end of the last instruction, and where it stored and loaded, if it did.
    end = stored = loaded = None
    instruction = 0
    for address, kind, size in records:
        if kind == _FETCH:
            if address != end:
                if stored is not None:
                    # A call.  Functions whose return address is below it on the stack have been
                    # left in some other way.
                    while slots and slots[-1] <= stored:
                        slots.pop()
                    slots.append(stored)
                elif slots and loaded == slots[-1]:
                    slots.pop()
            if current and loaded == current.slot:
                calls.append(current)
                current = None
            if address == function and current is None and slots:
                current = Call(slots[-1])
            if current:
                current.instructions += 1
            instruction, end = address, address + size
            stored = loaded = None
        elif kind == _STORE:
            stored = address
        else:
            loaded = address
        data = kind != _FETCH
        for line in range(address // LINE, (address + size - 1) // LINE + 1):
            missed = warm[data].touch(line)
            if current:
                current.touch(data, line, max(address, line * LINE), instruction, missed)
    return calls


def _recorded(path):
    """The records between each pair of marks."""
    with open(path, "rb") as file:
        data = file.read()
    records = _RECORD.iter_unpack(data[:len(data) // _RECORD.size * _RECORD.size])
    for _, kind, _ in records:
        if kind == _START:
            yield itertools.takewhile(lambda record: record[1] != _STOP, records)


class Series:
    """The calls of one function under the same circumstances, of which the median counts.

    Interrupts only ever add, and hit few calls.  The first half warms the caches up.
    """

    def __init__(self, report, calls):
        self.name, self.size, self.engine = (report[key] for key in ("name", "size", "engine"))
        if len(calls) != report["calls"]:
            raise ValueError(f"{self.name} of {self.engine}: the trace has {len(calls)} calls of "
                             f"{report['calls']}")
        self.calls = calls[len(calls) // 2:]

    def median(self, figure):
        """The median over the calls of what figure, a function, returns."""
        return statistics.median_low(figure(call) for call in self.calls)

    def typical(self):
        """A call that touched as many lines as the median."""
        lines = self.median(lambda call: call.lines)
        return next(call for call in self.calls if call.lines == lines)


def read(path, reports):
    """The series of a trace; reports is what kvm-msr-bench --lines printed."""
    found = []
    for report, records in itertools.zip_longest(reports, _recorded(path)):
        if report is None or records is None:
            raise ValueError("the trace has other series than kvm-msr-bench ran")
        found.append(Series(report, _calls(records, report["function"])))
    return found
