# SPDX-License-Identifier: GPL-2.0
"""make test-fuzz: builds the engine with each of the wrong rules of tools/fuzz/wrong/, and tests that
make fuzz finds them. Each takes a history to be seen, as its file says."""

import argparse
import os
import shutil
import subprocess
import tempfile

import products
import results
from suites import fuzz, job, variant

_WRONG = os.path.join(products.REPO, "tools", "fuzz", "wrong")
# How long it may take to find one, in seconds.
_LIMIT = 300
# What the module is built from, and what builds it.
_NEEDED = ("Kbuild", "Kconfig", "Makefile", "rust", "tools/kernel", "tools/vm")


def _options():
    parser = argparse.ArgumentParser(prog="fuzz-wrong")
    parser.add_argument("--only", default=os.environ.get("ONLY") or "",
                        help="try those whose names contain this")
    return parser.parse_args()


def _build(directory, patch):
    """Builds kvm-msr.ko with a patch, and returns its path in this directory."""
    tree = os.path.join(directory, "tree")
    for name in _NEEDED:
        source, copy = os.path.join(products.REPO, name), os.path.join(tree, name)
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        if os.path.isdir(source):
            shutil.copytree(source, copy)
        else:
            shutil.copyfile(source, copy)
    with open(patch, "rb") as file:
        subprocess.run(["patch", "-p1", "-F0", "--quiet", "-d", tree], stdin=file, check=True)
    run = subprocess.run([os.path.join(tree, "tools/kernel/module.sh")], check=False, text=True,
                         stdout=subprocess.PIPE, env={**os.environ, "KERNEL": variant()})
    if run.returncode:
        raise products.BuildError(f"the module with {os.path.basename(patch)} can't be built")
    built = run.stdout.strip().splitlines()[-1]
    module = os.path.join(directory, "kvm-msr.ko")
    shutil.move(built, module)
    # The rest of the products, which nobody needs again.
    shutil.rmtree(os.path.dirname(os.path.dirname(built)))
    return module


def _find(patch):
    """The test that one wrong rule is found."""
    name = os.path.basename(patch).removesuffix(".patch")
    parent = os.path.join(products.CACHE, "run")
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as directory:
        vm = fuzz.start("amd", engine=_build(directory, patch),
                        arguments=["--seconds", str(_LIMIT)])
        print(f"\n{name}", flush=True)
        log, _ = vm.run(job("fuzz.sh"), timeout=_LIMIT + 600, show=print)
    reports = log.json()
    if not reports:
        return results.test(name, False, f"kvm-msr-fuzz: exit code {log.exit_code}")
    report = reports[-1]
    found = log.frames_of("difference")
    return results.test(name, bool(found), f"{report['steps']} steps, {report['found']} s",
                        seconds=report["found"], steps=report["steps"], history="".join(found[:1]))


def main():
    """Tries all of them."""
    options = _options()
    patches = [os.path.join(_WRONG, name) for name in sorted(os.listdir(_WRONG))
               if options.only in name]
    tests = [_find(patch) for patch in patches]
    if not tests:
        raise ValueError(f"no file in tools/fuzz/wrong has '{options.only}' in its name")
    for entry in tests:
        print(f"  {entry['name']:34} {entry['result']:6} {entry.get('message', '')}")
    return results.conclude("fuzz-wrong", tests)
