# SPDX-License-Identifier: GPL-2.0
"""The makefile's targets that run something and judge it, a module each with a main()."""

import hashlib
import os

import products


def job(name):
    """The path of a job, a script that runs in the machine."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "jobs", name)


def cargo_environment():
    """What differs in the environment of Debian's cargo, which may not be the only one."""
    # A directory for each checkout: to cargo the package of another one is the same, and up to
    # date as long as that one's rust/ does not change.
    checkout = hashlib.sha256(products.REPO.encode()).hexdigest()[:12]
    environment = {"RUSTC": "/usr/bin/rustc", "PATH": "/usr/bin:" + os.environ["PATH"],
                   "CARGO_TARGET_DIR": os.path.join(products.CACHE, "cargo-target", checkout)}
    if "RUSTUP_TOOLCHAIN" in os.environ:
        environment["RUSTUP_TOOLCHAIN"] = ""
    return environment
