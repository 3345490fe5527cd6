# SPDX-License-Identifier: GPL-2.0
"""Tests of the record, for make lint."""

import os
import re
import subprocess

import products
import results
from drift import record, trees
from drift.definitions import Tree

# Functions of these files are not the results of macros.
_COMPILED = ("msrs", "cpuid", "regs", "svm/nested", "vmx/nested", "vmx/vmx", "svm/svm")
_GENERATED = re.compile(r"init_module|cleanup_module|force_reload_TR|rcu_virt_note_context_switch|__pfx_")


def judged(source, objects):
    """Tests of the record, for make lint: that it is complete and current, that our files exist, and that
    the finder sees each function that the compiler saw. `objects` is the build directory of `source`."""
    with trees.present() as (plain, hooked):
        old, version = record.read(), trees.version(plain)
        new = record.renew(old, old.version, Tree(plain), Tree(hooked))
    name = os.path.basename(record.PATH)
    before, after = ({entry.key: (entry.file, entry.code, entry.hooked) for entry in one.entries}
                     for one in (old, new))
    differ = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    if differ:
        say = f"{len(differ)} definitions of Linux {version} differ from {name}: {', '.join(differ[:5])}"
        say += "; review them, see Documentation/drift.rst"
    else:
        say = f"run `make drift RECORD=1`: {name} is not current" if old.text() != new.text() else ""
    yield results.test(f"{name} is current", not say, say)
    lost = sorted(f"{entry.key}: {file}" for entry in old.entries for file in entry.ours
                  if not os.path.isfile(os.path.join(products.REPO, file)))
    lost += [f"{entry.key}: none" for entry in old.entries if not entry.ours]
    lost += [f"{entry.key}: role {entry.role}" for entry in old.entries
             if entry.role not in record.ROLES]
    yield results.test(f"{name} names our files", not lost, "; ".join(lost[:5]))
    unseen = _unseen(Tree(source), objects)
    yield results.test("make drift finds what the compiler compiled", not unseen,
                       ", ".join(unseen[:5]))


def _unseen(tree, objects):
    """The functions in the object code of a tree which the finder does not find in it."""
    for name in _COMPILED:
        path = os.path.join(objects, "arch/x86/kvm", name + ".o")
        symbols = subprocess.run(["nm", "--defined-only", path], check=True, capture_output=True,
                                 text=True).stdout
        # The compiler's variants of a function have a suffix.
        found = {symbol.split(".")[0] for symbol in re.findall(r" [tT] ([\w.]+)$", symbols, re.MULTILINE)}
        if not found:
            return [f"{name}.o has no functions"]
        unseen = [symbol for symbol in sorted(found)
                  if not tree.all(symbol) and not _GENERATED.match(symbol)]
        if unseen:
            return unseen
    return []
