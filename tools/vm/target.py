#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""target.py NAME [OPTION...]: runs a target of the makefile, which is a module of suites/."""

import importlib
import sys

import boot
import machine
import products
import results


def main():
    """Runs the target. Writes its results file even if it fails with an exception."""
    name = sys.argv[1]
    suite = importlib.import_module("suites." + name.replace("-", "_"))
    del sys.argv[1]
    boot.handle_signals()
    if hasattr(suite, "name"):
        name = suite.name()
    results.forget(name)
    try:
        return suite.main()
    except (boot.RunError, products.BuildError, machine.MachineError, ValueError) as error:
        print(f"kvm-msr: error: {error}", file=sys.stderr)
        return results.conclude(name, [results.test(name, False, str(error).splitlines()[0])])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
