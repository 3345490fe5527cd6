# SPDX-License-Identifier: GPL-2.0
"""Copies of the reviewed source in which something was changed on purpose, for the tests."""

import os
import re

from drift import definitions, trees

MSRS = "arch/x86/kvm/msrs.c"
X86 = "arch/x86/kvm/x86.c"


class Copy:
    """A copy of the part of a source tree that matters here, in an empty directory."""

    def __init__(self, source, directory):
        self.directory = directory
        trees.copy(source, directory)

    def _path(self, file):
        return os.path.join(self.directory, file)

    def read(self, file):
        """The text of a file."""
        with open(self._path(file), encoding="utf-8") as stream:
            return stream.read()

    def write(self, file, text):
        """Replaces the text of a file."""
        with open(self._path(file), "w", encoding="utf-8") as stream:
            stream.write(text)

    def replace(self, file, key, old, new):
        """Replaces a text that a definition has once."""
        whole = self.read(file)
        part = definitions.of_text(file, whole)[key].text
        if part.count(old) != 1:
            raise ValueError(f"{key} has {old!r} {part.count(old)} times")
        self.write(file, whole.replace(part, part.replace(old, new)))

    def rename(self, file, old, new):
        """Renames what a file defines, also where the file uses it."""
        text, count = re.subn(rf"\b{old}\b", new, self.read(file))
        if not count:
            raise ValueError(f"{file} has no {old}")
        self.write(file, text)

    def move(self, key, source, target):
        """Moves a function to the end of another file, where others can call it."""
        whole = self.read(source)
        text = definitions.of_text(source, whole)[key].text
        self.write(source, whole.replace(text + "\n", ""))
        self.write(target, self.read(target) + "\n" + text.removeprefix("static ") + "\n")


def five_things(source, directory):
    """Changes a constant in a table, a condition in a replaced function, a function's name, a function's
    file, and the context of a hook."""
    copy = Copy(source, directory)
    copy.replace(MSRS, "emulated_msrs_all", "MSR_SMI_COUNT", "MSR_IA32_MPERF")
    copy.replace(MSRS, "__kvm_valid_efer", "efer & EFER_NX && !guest", "efer & EFER_NX && guest")
    copy.rename(MSRS, "kvm_translate_kvm_reg", "kvm_msr_of_reg")
    copy.move("kvm_write_wall_clock", MSRS, X86)
    copy.replace(X86, "kvm_arch_destroy_vm", "kvm_destroy_vcpus(kvm);",
                 "kvm_destroy_all_vcpus(kvm);")
    return copy
