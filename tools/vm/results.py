# SPDX-License-Identifier: GPL-2.0
"""The results of a target: build/results/<target>.json and a summary.

Every file has a list `tests` of {"name": ..., "result": "pass" | "fail" | "skip", ...}. A target may
add other members.
"""

import json
import os
import sys

import products


def path_of(target):
    """The target's file."""
    return os.path.join(products.RESULTS, f"{target}.json")


def test(name, passed, message="", **more):
    """One test's entry."""
    entry = {"name": name, "result": "pass" if passed else "fail", **more}
    if message:
        entry["message"] = message
    return entry


def count(tests):
    """(passed, failed, skipped) of a list of tests."""
    verdicts = [entry["result"] for entry in tests]
    return tuple(verdicts.count(verdict) for verdict in ("pass", "fail", "skip"))


def write(target, tests, **more):
    """Writes the target's file and returns its exit code."""
    os.makedirs(products.RESULTS, exist_ok=True)
    with open(path_of(target), "w", encoding="utf-8") as file:
        json.dump({**more, "tests": tests}, file, indent=1)
        file.write("\n")
    return 1 if count(tests)[1] else 0


def read(target):
    """The target's file, or None if it can't be read."""
    try:
        with open(path_of(target), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def forget(target):
    """Removes the file of an earlier run."""
    if os.path.exists(path_of(target)):
        os.unlink(path_of(target))


def summarise(target, tests):
    """Prints the failed tests, and the counts."""
    for entry in tests:
        if entry["result"] == "fail":
            print(f"  FAILED {entry['name']}: {entry.get('message', '')}")
    passed, failed, skipped = count(tests)
    line = f"{target}: {passed} passed, {failed} failed"
    if skipped:
        line += f", {skipped} skipped"
    print(line + f" ({os.path.relpath(path_of(target))})")
    sys.stdout.flush()


def conclude(target, tests, **more):
    """Writes, summarises, and returns the exit code."""
    code = write(target, tests, **more)
    summarise(target, tests)
    return code


def kernel_log(log):
    """A test that fails if the kernel's log has warnings, errors, or data races that count; prints them.
    Other data races are listed in the test's entry."""
    races = [race for race in log.races if race.counts()]
    bad = log.splats + [race.lines for race in races]
    for lines in bad:
        print("the kernel's log has:")
        print("\n".join("  " + line for line in lines))
    more = {}
    if elsewhere := sorted({race.title for race in log.races} - {race.title for race in races}):
        more["races_elsewhere"] = elsewhere
        print(f"the kernel's log has {len(elsewhere)} data races elsewhere")
    return test("kernel log", not bad,
                f"{len(bad)} warnings or errors, the first: {bad[0][0]}" if bad else "", **more)
