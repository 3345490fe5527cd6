# SPDX-License-Identifier: GPL-2.0
"""Why branches are not reached: reasons.toml, whose head says how it is written."""

import os
import tomllib
from collections import defaultdict

_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "reasons.toml")
KINDS = {
    "compile-time": "the compiler decides; not counted",
    "hardware": "no emulator's CPU has it",
    "allocation": "an allocation fails; make test-debug makes it fail",
    "bug": "reached only if the kernel has a bug",
    "impossible": "no caller or value leads there",
    "configuration": "this kernel is configured or loaded in another way",
    "concurrency": "another CPU has to interfere at this moment",
}


def read():
    """The entries of the file. Raises ValueError if one is incomplete."""
    with open(_FILE, "rb") as file:
        entries = tomllib.load(file).get("branch", [])
    for entry in entries:
        if not {"file", "function", "kind", "reason", "branches"} <= entry.keys() or \
                entry["kind"] not in KINDS:
            raise ValueError(f"reasons.toml: {entry}")
    return entries


def apply(functions, entries):
    """Gives each branch that is not reached its reason. Returns what is wrong with the entries, as texts.

    An entry for a line comes before one for the whole function.
    """
    by_function = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: ("to" not in entry, "line" not in entry)):
        by_function[entry["file"], entry["function"]].append(entry)
    used = defaultdict(int)
    for function in functions:
        for branch in function.branches:
            if branch.count:
                continue
            for number, entry in enumerate(by_function[function.file, function.name]):
                if entry.get("line", branch.text) == branch.text and entry.get("to", branch.to) == branch.to:
                    branch.reason = entry
                    used[function.file, function.name, number] += 1
                    break
    wrong = []
    for (file, name), listed in by_function.items():
        for number, entry in enumerate(listed):
            count = used[file, name, number]
            if count != entry["branches"]:
                wrong.append(f"{file}, {name}, {entry.get('line', 'all')!r}: {entry['branches']} branches, "
                             f"of which {count} are not reached")
    return wrong


def propose(functions):
    """Entries for the branches that have no reason, to be completed by hand."""
    for function in functions:
        missing = defaultdict(int)
        for branch in function.branches:
            if not branch.count and not branch.reason:
                missing[branch.text, branch.to] += 1
        for (text, to), count in missing.items():
            yield (f'[[branch]]\nfile = "{function.file}"\nfunction = "{function.name}"\n'
                   f"line = {_quoted(text)}\nto = {_quoted(to)}\nbranches = {count}\n"
                   'kind = ""\nreason = ""\n')


def _quoted(text):
    return f"'{text}'" if "'" not in text else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
