# SPDX-License-Identifier: GPL-2.0
"""What the judges reached of rust/engine/: in the kernel, and by cargo's tests on the host. llvm-cov reads
the counters; each build of the files has its own."""

import json
import os
import re
import subprocess
from collections import defaultdict

import products
from coverage.functions import Branch, Function
from suites import cargo_environment

_ENGINE = os.path.join(products.REPO, "rust", "engine") + os.sep
_FLAGS = "-Cinstrument-coverage -Zcoverage-options=branch -Csymbol-mangling-version=v0"
_TOOLS = "/usr/lib/llvm-19/bin"
# A region of code in llvm-cov's JSON; others are for macros and gaps.
_CODE = 0


def _tool(name, *arguments):
    path = os.path.join(_TOOLS, name)
    run = subprocess.run([path if os.path.exists(path) else name, *arguments], check=False,
                         capture_output=True, text=True)
    if run.returncode:
        raise products.BuildError(f"{name} failed: {run.stderr.strip()[-500:]}")
    return run.stdout


def run_host(to):
    """Runs the tests of engine-host with counters, which are put into the directory. Returns the test
    program, and whether the tests passed."""
    environment = {**os.environ, **cargo_environment(), "RUSTFLAGS": _FLAGS, "RUSTC_BOOTSTRAP": "1"}
    environment["CARGO_TARGET_DIR"] += "-coverage"
    # What runs while building has counters, too.
    environment["LLVM_PROFILE_FILE"] = os.path.join(environment["CARGO_TARGET_DIR"], "build.profraw")
    command = ["/usr/bin/cargo", "test", "--release", "--locked", "--package", "engine-host", "--lib",
               "--manifest-path", os.path.join(products.REPO, "tools", "Cargo.toml")]
    built = subprocess.run([*command, "--no-run", "--message-format=json-render-diagnostics"], check=False,
                           stdout=subprocess.PIPE, text=True, env=environment)
    programs = [message["executable"] for message in map(json.loads, built.stdout.splitlines())
                if message.get("executable") and message["profile"]["test"]]
    if built.returncode or len(programs) != 1:
        raise products.BuildError("the tests of engine-host could not be built")
    os.makedirs(to, exist_ok=True)
    environment["LLVM_PROFILE_FILE"] = os.path.join(to, "engine.profraw")
    tests = subprocess.run(programs, check=False, env=environment)
    return programs[0], tests.returncode == 0


class Counts:
    """The counts of all builds of the engine's files."""

    def __init__(self):
        # By file: the ranges of functions with their names, the lines, and the branches by place.
        self._functions = defaultdict(dict)
        self._lines = defaultdict(lambda: defaultdict(int))
        self._branches = defaultdict(lambda: defaultdict(lambda: [0, 0]))

    def add(self, program, profiles, scratch):
        """Adds the counters of a build; scratch is the path of a file that it may write."""
        if not profiles:
            return
        _tool("llvm-profdata", "merge", "-sparse", *profiles, "-o", scratch)
        exported = json.loads(_tool("llvm-cov", "export", "-instr-profile", scratch, program))
        for function in exported["data"][0]["functions"]:
            self._add_function(function)
        self._add_lines(_tool("llvm-cov", "export", "-format=lcov", "-instr-profile", scratch, program))

    def _add_function(self, function):
        files = [_relative(name) for name in function["filenames"]]
        regions = [region for region in function["regions"] if files[region[5]] and region[7] == _CODE]
        if not regions:
            return
        start = min(region[:2] for region in regions)
        end = max(region[2:4] for region in regions)
        self._functions[files[regions[0][5]]][(*start, *end)] = function["name"]
        for *place, true, false, file, _, _ in function["branches"]:
            if files[file]:
                counts = self._branches[files[file]][tuple(place)]
                counts[0] += true
                counts[1] += false

    def _add_lines(self, lcov):
        file = None
        for line in lcov.splitlines():
            word, _, rest = line.partition(":")
            if word == "SF":
                file = _relative(rest)
            elif word == "DA" and file:
                number, count = rest.split(",")[:2]
                self._lines[file][int(number)] += int(count)

    def functions(self):
        """The functions, in the order of their files. Closures are a part of the function around them."""
        names = _demangled([name for found in self._functions.values() for name in found.values()])
        for file in sorted(self._functions):
            with open(_ENGINE + file, encoding="utf-8") as source:
                text = source.read().splitlines()
            found = self._functions[file]
            outer = [place for place in sorted(found)
                     if not any(_contains(other, place) for other in found if other != place)]
            for place in outer:
                yield self._function(file, place, _name(names[found[place]]), text)

    def _function(self, file, place, name, text):
        first, last = place[0], place[2]
        lines = {number: count for number, count in sorted(self._lines[file].items())
                 if first <= number <= last}
        function = Function(name, file, first, lines)
        for at, counts in sorted(self._branches[file].items()):
            if _contains(place, at):
                condition = " ".join(_between(text, at).split())
                function.branches += [Branch(at[0], condition, to, count)
                                      for to, count in zip(("true", "false"), counts)]
        return function


def _relative(path):
    """The path below rust/engine/, or None."""
    path = os.path.normpath(path if os.path.isabs(path) else os.path.join(products.REPO, "tools", path))
    return path.removeprefix(_ENGINE) if path.startswith(_ENGINE) else None


def _contains(outer, inner):
    return outer[:2] <= inner[:2] and inner[2:4] <= outer[2:4]


def _between(text, place):
    """The source between two positions of line and column, which count from 1."""
    line, column, end, end_column = place
    if line == end:
        return text[line - 1][column - 1:end_column - 1]
    return "\n".join([text[line - 1][column - 1:], *text[line:end - 1], text[end - 1][:end_column - 1]])


def _demangled(names):
    run = subprocess.run([os.path.join(_TOOLS, "llvm-cxxfilt")
                          if os.path.exists(_TOOLS) else "llvm-cxxfilt"],
                         input="\n".join(names), check=True, capture_output=True, text=True)
    return dict(zip(names, run.stdout.splitlines()))


def _name(demangled):
    """The name without the crate, the module and generic arguments, e.g. <Filter>::allows."""
    name = demangled.rpartition(":")[2] if ".rs:" in demangled else demangled
    before = None
    while before != name:
        before, name = name, re.sub(r"::<[^<>]*>|(?<=\w)<[^<>]*>", "", name)
    return re.sub(r"\b\w+(?:\[\w+\])?::engine::(?:[a-z_0-9]+::)*", "", name)
