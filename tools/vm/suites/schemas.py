# SPDX-License-Identifier: GPL-2.0
"""make schemas: generates the JSON schemas of kvmsr's output from its types."""

import filecmp
import os
import shutil
import subprocess
import tempfile

import products
from suites import cargo_environment

DIRECTORY = "Documentation/kvmsr/schema"


def _generate(directory):
    """Writes the schemas to a directory."""
    run = subprocess.run(
        ["/usr/bin/cargo", "run", "--quiet", "--locked", "--manifest-path",
         os.path.join(products.REPO, "tools", "Cargo.toml"), "--package", "kvmsr",
         "--features", "schema", "--example", "schemas", "--", directory],
        check=False, env={**os.environ, **cargo_environment()})
    if run.returncode:
        raise products.BuildError("the schemas could not be generated")


def stale():
    """The names of the schemas that are not current."""
    present = os.path.join(products.REPO, DIRECTORY)
    with tempfile.TemporaryDirectory() as current:
        _generate(current)
        names = set(os.listdir(current)) | set(os.listdir(present))
        same, _, _ = filecmp.cmpfiles(current, present, names, shallow=False)
    return sorted(names - set(same))


def main():
    """Writes all schemas, and removes those of documents that no longer exist."""
    directory = os.path.join(products.REPO, DIRECTORY)
    shutil.rmtree(directory, ignore_errors=True)
    _generate(directory)
    print(f"{DIRECTORY} is written")
    return 0
