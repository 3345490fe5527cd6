# SPDX-License-Identifier: GPL-2.0
"""make drift KSRC=/path: what changed in another kernel's C since the engine was written against it.

With --record (make drift RECORD=1), renews the record of what was reviewed. With --all, also lists what
is the same.
"""

import os
import sys

import results
from drift import compare, hunks, record, report, trees
from drift.definitions import Tree

_NO_SOURCE = """KSRC is not set: give KSRC=/path/to/a/linux/tree, or the path of Debian's package
linux-source-X.Y or of a kernel's tar file, e.g. make drift KSRC=~/src/linux"""


def compared(reviewed_record, plain, hooked, source):
    """Compares a tree with the reviewed sources, one without the hook series and one with it. Returns
    (findings, hunks); the latter are None if the tree has the series."""
    has_hooks = trees.has_hooks(source)
    comparison = compare.Comparison(reviewed_record, Tree(hooked if has_hooks else plain),
                                    Tree(source), has_hooks)
    return comparison.findings, None if has_hooks else hunks.tried(plain, source)


def tests_of(findings, tried):
    """The findings as tests: one for each role that is watched, and one for the hook series."""
    tests = []
    for role in record.WATCHED:
        changed = [finding.key for finding in findings if finding.matters and finding.role == role]
        tests.append(results.test(f"{role}: as reviewed", not changed,
                                  f"{len(changed)} differ: {', '.join(changed[:5])}"
                                  + ", ..." * (len(changed) > 5) if changed else ""))
    if tried is not None:
        bad = [hunk for hunk in tried if hunk.verdict != hunks.APPLIES]
        tests.append(results.test("hook series applies", not bad,
                                  f"{len(bad)} of {len(tried)} hunks do not" if bad else ""))
    return tests


def renew():
    """Renews the record, and says what changed in it."""
    old = record.read()
    with trees.present() as (plain, hooked):
        new = record.renew(old, trees.version(plain), Tree(plain), Tree(hooked))
    with open(record.PATH, "w", encoding="utf-8") as file:
        file.write(new.text())
    before, after = ({entry.key: (entry.code, entry.hooked) for entry in one.entries}
                     for one in (old, new))
    for word, keys in (("left out", before.keys() - after.keys()),
                       ("added", after.keys() - before.keys()),
                       ("reviewed again", {key for key in before.keys() & after.keys()
                                           if before[key] != after[key]})):
        if keys:
            print(f"{word}: {', '.join(sorted(keys))}")
    print(f"{os.path.relpath(record.PATH)} has {len(new.entries)} definitions of Linux {new.version}")
    if without := [entry.key for entry in new.entries if not entry.ours]:
        print(f"Fill in `ours`, and check the role, of: {', '.join(without)}")
        return 1
    return 0


def main():
    """Compares, or renews the record."""
    if "--record" in sys.argv[1:]:
        return renew()
    if not os.environ.get("KSRC"):
        raise ValueError(_NO_SOURCE)
    reviewed_record = record.read()
    with trees.reviewed(reviewed_record.version) as (plain, hooked), \
            trees.opened(os.environ["KSRC"]) as source:
        version, at_hand = trees.version(source), trees.version(plain)
        findings, tried = compared(reviewed_record, plain, hooked, source)
        print(f"Linux {version} of {os.environ['KSRC']}, compared with the reviewed "
              f"{reviewed_record.version}")
        report.diffs(findings)
        report.table(findings, "--all" in sys.argv[1:])
        report.hook_table(tried)
        if at_hand != reviewed_record.version:
            print(f"\nThe source that `make` has is {at_hand}: where that differs from "
                  f"{reviewed_record.version}, the reviewed text is not at hand.")
        report.what_to_do(findings, tried)
        print()
    return results.conclude("drift", tests_of(findings, tried), version=version,
                            reviewed=reviewed_record.version,
                            findings=[report.of_finding(finding) for finding in findings],
                            hunks=None if tried is None else [report.of_hunk(one) for one in tried])
