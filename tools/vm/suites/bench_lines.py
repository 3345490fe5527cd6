# SPDX-License-Identifier: GPL-2.0
"""target.py bench-lines: the cache lines that C and the engine touch, and the misses they have.

It is a part of make bench, and runs alone where only these figures are wanted.
"""

import collections
import os
import tempfile

import boot
import cache_lines
import products
import results
from suites import job
from symbols import Symbols

# Lists of KVM_GET_MSRS: what the longer costs more is the cost of so many entries.
_SHORT, _LONG = 64, 128
# Ranges in the filter.
_RANGES = (0, 1, 16)
# More than struct vcpu_svm and struct vcpu_vmx are.
_VCPU_SIZE = 16384
# At most so much of the kernel's stack is below the return address of the function.
_STACK_SIZE = 8192

_HEADER = """\
The cache lines that one call touches, in the order of the first access: C and E say whether C or
the engine touches it; then come the number of accesses (C's, if both do) and the first address.
For data, the instruction that accesses it first comes last.
"""

# What a row of the table, and a group of metrics, consists of: title, end of the metric's name,
# unit, what a call has of it.
_FIGURES = (
    ("code", "code_lines", "lines", lambda call: len(call.code)),
    ("data", "data_lines", "lines", lambda call: len(call.data)),
    ("lines", "lines", "lines", lambda call: call.lines),
    ("cold", "misses_cold", "misses", lambda call: sum(call.cold)),
    ("warm", "misses_warm", "misses", lambda call: sum(call.warm)),
)


class Measurement:
    """One boot with the plugin, and what its trace says."""

    def __init__(self, kernel):
        self._kernel = kernel
        vm = boot.Vm(kernel, programs=products.programs())
        with tempfile.TemporaryDirectory(dir=products.CACHE) as directory:
            trace = os.path.join(directory, "trace")
            log, self._messages = vm.run(job("bench-lines.sh"), timeout=600, icount=True,
                                        plugin=f"{products.plugin()},out={trace}")
            if log.exit_code or not log.json():
                raise boot.RunError("kvm-msr-bench --lines failed:\n" + "\n".join(log.lines[-10:]))
            series = cache_lines.read(trace, log.json()[-1]["series"])
        self._series = {(one.name, one.size, one.engine): one for one in series}
        self._modules = log.frames_of("section")

    def _rows(self):
        """Name, ranges, and a function from an engine and a figure to the number."""
        def median(name, size):
            return lambda engine, figure: self._series[name, size, engine].median(figure)

        for ranges in _RANGES:
            yield "guest_rdmsr", ranges, median("guest_rdmsr", ranges)
        short, long = median("get_msrs", _SHORT), median("get_msrs", _LONG)
        yield "get_msrs_entry", 0, lambda engine, figure: round(
            (long(engine, figure) - short(engine, figure)) / (_LONG - _SHORT), 2)
        yield "get_msrs_index_list", 0, median("get_msrs_index_list", 0)

    def metrics(self):
        """The figures as bench.json has them."""
        return [{"name": f"{name}_{end}", "ranges": ranges, "unit": unit,
                 "c": number("c", figure), "engine": number("engine", figure)}
                for name, ranges, number in self._rows() for _, end, unit, figure in _FIGURES]

    def print_table(self):
        """The figures, a line for each operation."""
        print(f"\n{'cache lines touched and missed':32}" + "".join(
            f"{title:>8}" for title in ["C: code", *(title for title, *_ in _FIGURES[1:])]) +
            "  engine: code" + "".join(f"{title:>8}" for title, *_ in _FIGURES[1:]))
        for name, ranges, number in self._rows():
            line = f"{f'{name}, {ranges} ranges' if ranges else name:32}"
            for engine, width in (("c", 8), ("engine", 14)):
                for _, _, _, figure in _FIGURES:
                    line += f"{number(engine, figure):{width}g}"
                    width = 8
            print(line)

    def tests(self):
        """The tests that every run of it has to pass."""
        log = {**results.kernel_log(self._messages), "name": "kernel log, with the plugin"}
        return [*self._checks(), log]

    def _checks(self):
        """That the plugin and the model count what they are to count."""
        few, many = (self._series["touch", lines, "none"] for lines in (0, cache_lines.LINE))
        more = [many.median(figure) - few.median(figure) for *_, figure in _FIGURES]
        yield results.test("64 lines of data more are 64 lines and cold misses more",
                           more == [0, 64, 64, 64, 0], f"{more}")

        # A line of each 4 KiB falls into the same set, which has room for eight.
        def misses(lines):
            cache = cache_lines.Cache()
            return [sum(cache.touch(line * 64) for line in range(lines)) for _ in range(3)]

        yield results.test("a ninth line of a set makes all nine miss",
                           misses(8) == [8, 0, 0] and misses(9) == [9, 9, 9],
                           f"{misses(8)}, {misses(9)}")

    def write_detail(self):
        """Writes which lines were touched, in order, to build/results/bench-lines.txt."""
        symbols = Symbols(self._kernel, self._modules)
        os.makedirs(products.RESULTS, exist_ok=True)
        with open(os.path.join(products.RESULTS, "bench-lines.txt"), "w", encoding="utf-8") as file:
            file.write(_HEADER)
            for name, size, engine in self._series:
                if engine == "c":
                    calls = [self._series[name, size, which].typical() for which in ("c", "engine")]
                    file.write(f"\n{name}, size {size}\n")
                    for line in _detail(symbols, *calls):
                        file.write(line + "\n")


def _names(symbols, call):
    """The lines of a call: kind and name to the number of accesses."""
    # The hooks look first whether vcpu->kvm has an engine, and kvm is the vCPU's first member.
    stack = range(call.slot - _STACK_SIZE, call.slot + cache_lines.LINE)
    vcpu = next((line for line in call.data if line not in stack), 0)
    names = {}
    for line, (address, _, count) in call.code.items():
        names["code", line] = symbols.name(address) or "?", count
    heap = collections.Counter()
    for line, (address, instruction, count) in call.data.items():
        by = symbols.name(instruction) or "?"
        if line in stack:
            key = f"stack-{call.slot // cache_lines.LINE * cache_lines.LINE - line:#x}"
        elif 0 <= line - vcpu < _VCPU_SIZE:
            key = f"vcpu+{line - vcpu:#x}"
        elif symbols.name(address):
            key = line
        else:
            # The heap addresses of C's VM and the engine's differ, but what KVM does with both
            # in the same way it does by the same instruction.
            heap[by] += 1
            key = f"heap, line {heap[by]} by {by}"
        what = symbols.name(address) if key == line else key.split(",")[0]
        names["data", key] = f"{what}  <- {by}", count
    return names


def _detail(symbols, c, engine):
    """What the file has of two calls that do the same."""
    sides = {"C": _names(symbols, c), "E": _names(symbols, engine)}
    touched = {key: "".join(side if key in names else " " for side, names in sides.items())
               for key in {**sides["C"], **sides["E"]}}
    for key, who in touched.items():
        name, count = sides["C"].get(key) or sides["E"][key]
        yield f"{who} {key[0]} {count:5}  {name}"
    for title, which in (("C alone", "C "), ("the engine alone", " E"), ("both", "CE")):
        kinds = [kind for (kind, _), who in touched.items() if who == which]
        yield f"touched by {title}: {kinds.count('code')} of code, {kinds.count('data')} of data"


def main():
    """Measures, prints, and writes the lines."""
    kernel = products.Kernel()
    measurement = Measurement(kernel)
    measurement.print_table()
    measurement.write_detail()
    return results.conclude("bench-lines", measurement.tests(),
                            kernel=kernel.version, metrics=measurement.metrics())
