# SPDX-License-Identifier: GPL-2.0
"""make registers: writes the reference of registers, which derives from their table."""

import os
import subprocess

import products
from suites import cargo_environment

REFERENCE = "Documentation/register-reference.rst"
_PATH = os.path.join(products.REPO, REFERENCE)


def _generate():
    """The reference as the table has it."""
    command = ["/usr/bin/cargo", "run", "--quiet", "--locked", "--manifest-path",
               os.path.join(products.REPO, "tools", "Cargo.toml"),
               "--package", "engine-host", "--example", "register_reference"]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False,
                         env={**os.environ, **cargo_environment()})
    if run.returncode:
        raise products.BuildError(f"{REFERENCE} could not be generated")
    return run.stdout


def _present():
    try:
        with open(_PATH, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def is_current():
    """Whether the file is what would be written."""
    return _present() == _generate()


def main():
    """Writes the file, unless it is current."""
    text = _generate()
    if text == _present():
        print(f"{REFERENCE} is current")
        return 0
    with open(_PATH, "w", encoding="utf-8") as file:
        file.write(text)
    print(f"{REFERENCE} is written")
    return 0
