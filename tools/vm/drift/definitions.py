# SPDX-License-Identifier: GPL-2.0
"""Finds what the kernel's C files define: functions, tables, macros and types, by name.

The kernel's coding style is enough for that: a definition begins in the first column, and ends with a
brace there. So trees can be read for which no compiler is at hand, and which have no configuration.

The key of a function or table is its name; of a macro `#define NAME`; of a type `struct NAME`, `enum
NAME` or `union NAME`; and of a case of a function's switch `FUNCTION/LABEL`.
"""

import hashlib
import os
import re
from dataclasses import dataclass

# Before a parenthesis, but no name of a function.
_ATTRIBUTES = {"__attribute__", "__printf", "__aligned", "__section", "__acquires", "__releases",
               "__must_hold", "__no_sanitize", "__alloc_size", "__bpf_kfunc"}
_CALL = re.compile(r"\b(\w+)\s*\(")
_TABLE = re.compile(r"\b(\w+)\s*(?:\[[^\]]*\]\s*)*(?:__\w+\s*)*=\s*\{")
_TYPE = re.compile(r"(struct|union|enum) (\w+)(?: __\w+)* \{$")
_MACRO = re.compile(r"#\s*define\s+(\w+)")
_ONE_LINE = re.compile(r"\S.*\)\s*\{.*\}$")
_TOKEN = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|/\*.*?\*/|//[^\n]*', re.DOTALL)
# They don't say what a function does. A function that moves to a file of its own loses or gets them.
_LINKAGE = re.compile(r"^(?:(?:static|extern|inline|__always_inline|noinline|__init)\s+)+")


@dataclass(frozen=True)
class Definition:
    """Where something is defined: the first line's number, and the lines' text."""
    key: str
    file: str
    line: int
    text: str

    @property
    def code(self):
        """The text without comments, linkage, and white space that does not matter."""
        return code_of(self.text)

    @property
    def hash(self):
        """A name for what the definition does."""
        return hashlib.sha256(self.code.encode()).hexdigest()[:12]

    @property
    def place(self):
        """FILE:LINE"""
        return f"{self.file}:{self.line}"


def without_comments(text):
    """A text of C without comments."""
    return _TOKEN.sub(lambda token: " " if token.group().startswith("/") else token.group(), text)


def code_of(text):
    """A text of C without comments, linkage, and white space that does not matter."""
    return _LINKAGE.sub("", " ".join(without_comments(text).split()))


def calls(text):
    """The names in a text that a parenthesis follows: functions and macros that it calls."""
    return set(_CALL.findall(code_of(text)))


def words(text):
    """All names in a text."""
    return set(re.findall(r"\b[A-Za-z_]\w*\b", code_of(text)))


def _head(lines, end):
    """The first line of the definition whose body begins at line `end`."""
    first = end
    if lines[first] == "{" and first > 1 and not lines[first - 1]:
        first -= 1
    while first and lines[first - 1].strip() and not lines[first - 1].startswith(("}", "#", "/*")) \
            and not lines[first - 1].rstrip().endswith((";", "*/", "\\")):
        first -= 1
    return first


def _function(head):
    """The name of the function that a head declares, or None."""
    return next((name for name in _CALL.findall(head) if name not in _ATTRIBUTES), None)


def _end(lines, start):
    """The line with the brace that ends what begins at `start`, or None."""
    return next((at for at in range(start, len(lines)) if lines[at].startswith("}")), None)


def _parts(lines):
    """The (key, first line, last line) of each definition."""
    for number, line in enumerate(lines):
        if not line or line[0].isspace():
            continue
        if match := _MACRO.match(line):
            last = number
            while lines[last].endswith("\\") and last + 1 < len(lines):
                last += 1
            yield f"#define {match.group(1)}", number, last
        elif match := _TYPE.match(line):
            if (last := _end(lines, number + 1)) is not None:
                yield f"{match.group(1)} {match.group(2)}", number, last
        elif line == "{" or line.endswith(") {") or _ONE_LINE.match(line):
            first = _head(lines, number)
            last = number if _ONE_LINE.match(line) else _end(lines, number + 1)
            name = _function(" ".join(lines[first:number + 1]))
            if name and last is not None:
                yield name, first, last
        elif line.endswith("= {") or "= {" in line and line.endswith("};"):
            first = _head(lines, number)
            match = _TABLE.search(" ".join(lines[first:number + 1]))
            last = number if line.endswith("};") else _end(lines, number + 1)
            if match and last is not None:
                yield match.group(1), first, last


def of_text(file, text):
    """The definitions of a file. Several with one key, e.g. for several configurations, are one."""
    lines = text.splitlines()
    found = {}
    for key, first, last in _parts(lines):
        text = "\n".join(lines[first:last + 1])
        if key in found:
            found[key] = Definition(key, file, found[key].line, found[key].text + "\n" + text)
        else:
            found[key] = Definition(key, file, first + 1, text)
    return found


def enclosing(text, line):
    """The key of the definition that has a line of a file, or None. Lines count from 1."""
    for key, first, last in _parts(text.splitlines()):
        if first < line <= last + 1:
            return key
    return None


def case_of(function, label):
    """The part of a function that a label of its outermost switch begins, or None."""
    lines = function.text.splitlines()
    begin = re.compile(rf"\tcase {label}:")
    first = next((at for at, line in enumerate(lines) if begin.match(line)), None)
    if first is None:
        return None
    last = first
    # Labels that follow directly have the same code.
    body = False
    for at in range(first + 1, len(lines)):
        label_again = lines[at].startswith(("\tcase ", "\tdefault:"))
        if lines[at].startswith(("#", "}")) or lines[at] == "\t}" and _closes(lines[first:at]) \
                or label_again and body:
            break
        body = body or not label_again
        last = at
    return Definition(f"{function.key}/{label}", function.file, function.line + first,
                      "\n".join(lines[first:last + 1]))


def _closes(lines):
    """Whether a closing brace after these lines would close more than they open."""
    code = "\n".join(code_of(line) for line in lines)
    return code.count("{") <= code.count("}")


class Tree:
    """The definitions of a kernel's source tree."""

    # What KVM x86 consists of, and the headers with its interface.
    PLACES = ("arch/x86/kvm", "virt/kvm", "arch/x86/include/uapi/asm/kvm.h",
              "arch/x86/include/uapi/asm/kvm_para.h", "include/uapi/linux/kvm.h",
              "arch/x86/include/asm/kvm_host.h", "arch/x86/include/asm/pvclock-abi.h",
              "include/linux/kvm_host.h", "arch/x86/include/asm/page.h")
    # Where else a function may have gone.
    FARTHER = ("arch/x86", "include/linux", "include/asm-generic", "kernel", "lib")

    def __init__(self, path):
        self.path = path
        # The definitions with a key, those in .c files first, as headers have stubs.
        self._found = {}
        self.files = {}
        for place in self.PLACES:
            for file in sorted(self._files(place), key=lambda name: (name.endswith(".h"), name)):
                self._add(file)
        self._searched = False

    def _files(self, place):
        full = os.path.join(self.path, place)
        if os.path.isfile(full):
            yield place
        for directory, folders, names in os.walk(full):
            folders.sort()
            for name in names:
                if name.endswith((".c", ".h")):
                    yield os.path.relpath(os.path.join(directory, name), self.path)

    def read(self, file):
        """The text of a file."""
        with open(os.path.join(self.path, file), encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def _add(self, file):
        if file in self.files:
            return
        self.files[file] = of_text(file, self.read(file))
        for key, definition in self.files[file].items():
            self._found.setdefault(key, []).append(definition)

    def all(self, key):
        """All definitions with a key, in all files."""
        function, _, label = key.partition("/")
        if not label:
            return self._found.get(key, [])
        cases = [case_of(definition, label) for definition in self._found.get(function, [])]
        return [case for case in cases if case]

    def far(self, keys):
        """Searches the rest of the tree for keys, and adds the files that define them."""
        names = {key.split("/")[0].rpartition(" ")[2] for key in keys}
        if not names:
            return
        pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, sorted(names))) + r")\b")
        for place in self.FARTHER:
            for file in sorted(self._files(place)):
                if file not in self.files and pattern.search(text := self.read(file)) and \
                        any(key.split("/")[0] in of_text(file, text) for key in keys):
                    self._add(file)

    def keys(self):
        """The keys of all definitions."""
        return self._found.keys()

    def best(self, key, file):
        """The definition with a key that is meant if `file` has defined it: there, or the first."""
        found = self.all(key)
        return next((one for one in found if one.file == file), found[0] if found else None)
