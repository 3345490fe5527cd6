# SPDX-License-Identifier: GPL-2.0
"""The report: a table for the terminal, and the lines and branches that are not reached as a text file."""

import os
from collections import defaultdict

import products
from coverage import functions as counted
from coverage import reasons

FILE = os.path.join(products.RESULTS, "coverage.txt")


def table(functions):
    """The lines of the table: each function's and each file's reached lines and branches."""
    yield f"{'':54}{'lines':>15}{'branches':>16}"
    for file, found in by_file(functions).items():
        for function in found:
            yield _row("  " + function.name, counted.total([function]))
        yield _row(file, counted.total(found))
        yield ""


def _row(name, totals):
    cells = [f"{totals[f'{kind}_reached']:5} of {totals[kind]:4}" for kind in ("lines", "branches")]
    return f"{name[:58]:58}{cells[0]}   {cells[1]} {counted.share(totals):6.1f} %"


def by_file(functions):
    """The functions of each file."""
    files = defaultdict(list)
    for function in functions:
        files[function.file].append(function)
    return files


def write(parts):
    """Writes the file. parts has a title and functions."""
    with open(FILE, "w", encoding="utf-8") as file:
        for title, functions in parts:
            totals = counted.total(functions)
            print(f"{title}\n{'=' * len(title)}\n\n{counted.share(totals):.1f} % of {totals['branches']} "
                  f"branches, {counted.share(totals, 'lines'):.1f} % of {totals['lines']} lines. "
                  f"The compiler decides {totals['compile_time']} more branches.\n", file=file)
            kinds = defaultdict(int)
            for function in functions:
                for branch in function.branches:
                    if not branch.count:
                        kinds[branch.reason["kind"] if branch.reason else ""] += 1
            for kind, count in sorted(kinds.items()):
                print(f"{count:5}  {kind or 'no reason'}: {reasons.KINDS.get(kind, '')}", file=file)
            print("", *table(functions), sep="\n", file=file)
            for function in functions:
                _write_function(function, file)


def _write_function(function, file):
    missing = [branch for branch in function.branches if not branch.count]
    lines = [number for number, count in function.lines.items() if not count]
    if not missing and not lines:
        return
    print(f"\n{function.file}: {function.name}", file=file)
    if lines:
        print("  lines not reached: " + ", ".join(map(str, sorted(lines))), file=file)
    for branch in missing:
        print(f"  {branch.line}: {branch.text}\n      to {branch.to}", file=file)
        if branch.reason:
            print(f"      {branch.reason['kind']}: {branch.reason['reason']}", file=file)
