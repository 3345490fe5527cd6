# SPDX-License-Identifier: GPL-2.0
"""The makefile's targets that run tests. Each is a module with a main()."""

import hashlib
import os

import products


def job(name):
    """The path of a job, a script that runs in the machine."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "jobs", name)


def variant():
    """Which of the project's kernels the suites run on."""
    return os.environ.get("KERNEL") or "base"


def on_variant(name):
    """The name of a suite's results on this kernel."""
    return name if variant() == "base" else f"{name}-{variant()}"


def cargo_environment():
    """The environment variables for Debian's cargo; another cargo may be first in PATH."""
    # A directory for each checkout: cargo takes the packages of another checkout for these, and
    # would not rebuild them.
    checkout = hashlib.sha256(products.REPO.encode()).hexdigest()[:12]
    environment = {"RUSTC": "/usr/bin/rustc", "PATH": "/usr/bin:" + os.environ["PATH"],
                   "CARGO_TARGET_DIR": os.path.join(products.CACHE, "cargo-target", checkout)}
    if "RUSTUP_TOOLCHAIN" in os.environ:
        environment["RUSTUP_TOOLCHAIN"] = ""
    return environment
