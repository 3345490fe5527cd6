# SPDX-License-Identifier: GPL-2.0
"""make registers: generates the register reference, assertions on the kernel's headers and kvmsr's
rules from the register table."""

import os
import subprocess

import products
from suites import cargo_environment

# The generated files, and the generator's arguments for each.
FILES = {
    "Documentation/register-reference.rst": [],
    "rust/kvm/msr_index.rs": ["assertions"],
    "tools/kvmsr/data/registers.json": ["json"],
}


def _path(name):
    return os.path.join(products.REPO, name)


def _generate(name):
    """The current content of a file of FILES."""
    command = ["/usr/bin/cargo", "run", "--quiet", "--locked", "--manifest-path",
               os.path.join(products.REPO, "tools", "Cargo.toml"),
               "--package", "engine-host", "--example", "register_reference", "--", *FILES[name]]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False,
                         env={**os.environ, **cargo_environment()})
    if run.returncode:
        raise products.BuildError(f"{name} could not be generated")
    return run.stdout


def _present(name):
    try:
        with open(_path(name), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def is_current(name):
    """Whether a file of FILES is current."""
    return _present(name) == _generate(name)


def main():
    """Writes the files that are not current."""
    for name in FILES:
        text = _generate(name)
        if text == _present(name):
            print(f"{name} is current")
            continue
        with open(_path(name), "w", encoding="utf-8") as file:
            file.write(text)
        print(f"{name} is written")
    return 0
