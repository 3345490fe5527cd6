# SPDX-License-Identifier: GPL-2.0
"""make speculation: that no branch alone keeps an index in bounds which a guest or a user chooses, in
the object code of kvm-msr.ko; and that what looks for it finds it."""

import json
import os
import subprocess

import products
import results
from suites import cargo_environment, host_test

_CARGO = ["/usr/bin/cargo"]
_PACKAGE = ["--release", "--locked", "--manifest-path",
            os.path.join(products.REPO, "tools", "Cargo.toml"), "--package", "kvm-msr-speculation"]
_ALLOWED = os.path.join(products.REPO, "tools", "speculation", "allowed.json")
# Every read and write of an MSR goes by this table: if it is not seen, nothing was looked at.
_TABLE = "::REGISTERS"


def _verdict(found):
    """A function's test."""
    gadgets, allowed = found["gadgets"], found["allowed"]
    if len(gadgets) == allowed:
        return results.test(found["function"], True,
                            f"{allowed} gadgets are allowed" if allowed else "")
    for gadget in gadgets:
        print(f"  {gadget['instruction']}\n    {gadget['reason']}")
        for instruction in gadget["history"]:
            print(f"      {instruction}")
    return results.test(found["function"], False, f"{len(gadgets)} gadgets, {allowed} allowed" +
                        (f", the first: {gadgets[0]['instruction']}: {gadgets[0]['reason']}"
                         if gadgets else ""))


def _module(module, environment):
    """The tests of the module's functions that have an index."""
    run = subprocess.run([*_CARGO, "run", "--quiet", *_PACKAGE, "--", "--json", "--allowed", _ALLOWED, module],
                         stdout=subprocess.PIPE, check=False, text=True, env=environment)
    try:
        found = json.loads(run.stdout)
    except ValueError:
        yield results.test("kvm-msr-speculation", False, f"exit code {run.returncode}")
        return
    for function in found["functions"]:
        yield _verdict(function)
    yield results.test("allowed.json has no entry too many", not found["unused"],
                       ", ".join(found["unused"]))
    seen = sum(count for table, count in found["tables"].items() if table.endswith(_TABLE))
    yield results.test("the lookup of MSRs is seen", seen > 0, f"in {seen} functions")


def main():
    """Tries the program on objects written by hand, then looks at the module."""
    environment = {**os.environ, **cargo_environment()}
    module = products.Kernel().engine()
    tests = host_test.run_tests([*_CARGO, "test", *_PACKAGE], environment)
    for test in _module(module, environment):
        print(f"{'ok  ' if test['result'] == 'pass' else 'FAIL'} {test['name']:72} "
              f"{test.get('message', '')}".rstrip(), flush=True)
        tests.append(test)
    return results.conclude("speculation", tests)
