# SPDX-License-Identifier: GPL-2.0
"""The record of the C that was reviewed: tools/kernel/reviewed.json.

It has the version of the reviewed source, and for each file of it an object with the definitions that
matter, by their keys (see definitions.py):

  role    what the definition is to the engine, one of ROLES
  code    the hash of the definition; none if only the hook series adds it
  hooked  its hash in a source with the hook series, if that changes it
  ours    our files that have to be read again if it changes

Roles and files are written by hand. `make drift RECORD=1` computes the rest, finds the files for CALLED,
and proposes files for a new VALUE.
"""

import json
import os
import re

import products
from drift import definitions

PATH = os.path.join(products.REPO, "tools/kernel/reviewed.json")

REPLACED = "replaced"
VENDOR = "vendor"
VALUE = "value"
CALLED = "called"
STAYS = "stays"
ROLES = {
    REPLACED: "the engine does this in place of C",
    VENDOR: "the vendor module does this, and the register table says for which MSRs",
    VALUE: "a number or layout that the replaced functions use",
    CALLED: "stays in C, and the engine calls it",
    STAYS: "stays in C, and the engine does not use it",
}
# A change of these means that the engine may have to change.
WATCHED = (REPLACED, VENDOR, VALUE)

# Every definition of these files has to be in the record.
FILES = ("arch/x86/kvm/msrs.c", "arch/x86/kvm/msrs.h")
# Where the values come from that the engine repeats. MSR indices are not among them, as the compiler
# compares rust/kvm/msr_index.rs with the kernel's headers.
_VALUES = (*FILES, "arch/x86/include/uapi/asm/kvm.h", "arch/x86/include/uapi/asm/kvm_para.h",
           "include/uapi/linux/kvm.h", "arch/x86/include/asm/pvclock-abi.h")
_KVM = ("arch/x86/kvm/", "virt/kvm/")
_GLUE = "rust/bindings/glue.c"
_WORD = re.compile(r"\b[A-Za-z_]\w+\b")
_BINDING = re.compile(r"\bbindings::(\w+)")
_GUARD = re.compile(r"#define (ARCH_X86|_+[A-Z])\w*_H_*$")


class Entry:
    """What the record says of one definition."""

    def __init__(self, key, file, data):
        self.key = key
        self.file = file
        self.role = data["role"]
        self.code = data.get("code")
        self.hooked = data.get("hooked")
        self.ours = data["ours"]

    def hash(self, hooked):
        """The reviewed hash, in a source with the hook series or without, where it may be None."""
        return self.hooked if hooked and self.hooked else self.code


class Record:
    """The record, or a new one for the same definitions."""

    def __init__(self, version, entries):
        self.version = version
        self.entries = entries

    def keys(self):
        """The keys of all entries."""
        return {entry.key for entry in self.entries}

    def text(self):
        """The file's content: one line for each definition, so that changes are easy to read."""
        files = {}
        for entry in sorted(self.entries, key=lambda entry: (entry.file, entry.key)):
            data = {"role": entry.role, "code": entry.code, "hooked": entry.hooked,
                    "ours": entry.ours}
            data = {name: value for name, value in data.items() if value is not None}
            files.setdefault(entry.file, []).append(
                f"   {json.dumps(entry.key)}: {json.dumps(data)}")
        body = ",\n".join(f"  {json.dumps(file)}: {{\n" + ",\n".join(lines) + "\n  }"
                          for file, lines in files.items())
        return f'{{\n "version": {json.dumps(self.version)},\n "files": {{\n{body}\n }}\n}}\n'


def read(path=PATH):
    """Reads the record."""
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    return Record(data["version"], [Entry(key, name, entry)
                                    for name, entries in data["files"].items()
                                    for key, entry in entries.items()])


def renew(record, version, plain, hooked):
    """The record for a reviewed source: a Tree of it without the hook series, and one with it.

    Definitions that are gone are left out. New ones of FILES, and new ones that the hook series adds,
    have no files of ours yet.
    """
    kept = [entry for entry in record.entries if entry.role != CALLED]
    known = {entry.key for entry in kept}
    kept += _called(known, plain)
    known = {entry.key for entry in kept}
    added = [(file, key) for file in FILES for key in plain.files.get(file, {})]
    added += [(file, key) for file in plain.files if file.startswith(_KVM)
              for key in hooked.files.get(file, {}).keys() - plain.files[file].keys()]
    kept += [Entry(key, file, {"role": REPLACED, "ours": []}) for file, key in added
             if key not in known and not key.startswith("#define")]
    kept += _values(kept, plain)
    entries = []
    for entry in kept:
        there, with_hooks = (tree.best(entry.key, entry.file) for tree in (plain, hooked))
        if there is None and with_hooks is None:
            continue
        data = {"role": entry.role, "ours": entry.ours, "code": there.hash if there else None}
        if with_hooks and with_hooks.hash != data["code"]:
            data["hooked"] = with_hooks.hash
        entries.append(Entry(entry.key, (there or with_hooks).file, data))
    return Record(version, entries)


def _values(entries, plain):
    """The macros and types that the replaced functions use, also by way of each other, and that are not
    among the entries."""
    places = {key: file for file in reversed(_VALUES) for key in plain.files.get(file, {})
              if " " in key and not _GUARD.match(key)}
    by_name = {}
    for key in places:
        by_name.setdefault(key.split()[1], []).append(key)
    users = [(plain.best(entry.key, entry.file), entry.ours)
             for entry in entries if entry.role == REPLACED and entry.ours]
    found = {}
    while users:
        used, ours = users.pop()
        if used is None:
            continue
        for key in {key for word in definitions.words(used.text) for key in by_name.get(word, [])}:
            # The user for which the fewest files answer tells best where the value is.
            if key not in found or (len(found[key]), found[key]) > (len(ours), ours):
                found[key] = ours
                users.append((plain.best(key, places[key]), ours))
    known = {entry.key for entry in entries}
    mentions = _mentions(_WORD)
    for key, ours in found.items():
        if key not in known:
            named = [file for file in mentions.get(key.split()[1], ()) if "/tests/" not in file]
            yield Entry(key, places[key], {"role": VALUE, "ours": sorted(named or ours)})


def _mentions(pattern):
    """Which of the module's Rust files mention what a pattern finds."""
    found = {}
    for directory, _, names in os.walk(os.path.join(products.REPO, "rust")):
        for path in (os.path.join(directory, name) for name in names if name.endswith(".rs")):
            with open(path, encoding="utf-8") as file:
                for word in pattern.findall(file.read()):
                    found.setdefault(word, set()).add(os.path.relpath(path, products.REPO))
    return found


def _called(known, plain):
    """KVM's functions that the module calls: Rust by its bindings, and the glue in C."""
    users = _mentions(_BINDING)
    with open(os.path.join(products.REPO, _GLUE), encoding="utf-8") as file:
        for name in definitions.calls(file.read()):
            users.setdefault(name, set()).add(_GLUE)
    for key in sorted(users.keys() - known):
        there = next((one for one in plain.all(key) if one.file.startswith(_KVM)), None)
        if there:
            yield Entry(key, there.file, {"role": CALLED, "ours": sorted(users[key])})
