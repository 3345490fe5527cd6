# SPDX-License-Identifier: GPL-2.0
"""What `make drift` prints, and writes for machines."""

from drift import compare, hunks, record



def status_of(finding):
    """A finding's status in words, with the number of lines that were removed and added."""
    if finding.status in (compare.SAME, compare.MOVED, compare.GONE):
        return finding.status
    removed, added = finding.lines()
    if finding.status == compare.NEW:
        return f"new, {added} lines"
    words = "moved, changed" if finding.status == compare.CHANGED and finding.moved else finding.status
    return f"{words} -{removed} +{added}" if finding.here and (removed or added) else words


def _where(finding):
    if finding.inside:
        return f"its lines: {finding.inside.place} {finding.inside.key}"
    if finding.there is None:
        return f"was {finding.here.place}" if finding.here else "-"
    name = f" {finding.there.key}" if finding.status == compare.RENAMED else ""
    return finding.there.place + name


def _table(rows):
    """Prints rows in columns, the last one as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        print("  " + "  ".join([cell.ljust(width) for cell, width in zip(row, widths)] +
                               [row[-1]]).rstrip())


def table(findings, show_all):
    """Prints what became of each definition, by its role. Those that are the same are only counted,
    unless `show_all`."""
    for role, meaning in record.ROLES.items():
        of_role = [finding for finding in findings if finding.role == role]
        shown = [finding for finding in of_role if show_all or finding.status != compare.SAME]
        same = sum(finding.status == compare.SAME for finding in of_role)
        print(f"\n{role}: {meaning}. {same} of {len(of_role)} are the same"
              + (":" if shown else "."))
        if shown:
            _table([("NAME", "STATUS", "WHERE", "OUR FILES")] +
                   [(finding.key, status_of(finding), _where(finding),
                     " ".join(finding.ours) or "none yet") for finding in shown])


def diffs(findings):
    """Prints the changed lines of what the engine answers for."""
    for finding in findings:
        if not finding.matters:
            continue
        print(f"\n{finding.key}: {status_of(finding)}; ours: {' '.join(finding.ours) or 'none yet'}")
        if finding.users:
            print(f"used by {', '.join(finding.users)}")
        if finding.also:
            print(f"also defined in {', '.join(finding.also)}")
        if finding.here is None and finding.status != compare.NEW:
            # All of the other tree's lines would look new.
            print("The reviewed text is not at hand: the source that `make` has is a later one.")
            continue
        if finding.status == compare.GONE:
            print(f"Most of its lines are in {finding.inside.key}, {finding.inside.place}."
                  if finding.inside else "It is not in the tree, and nothing there is like it.")
        if finding.here or finding.there:
            print("\n".join(finding.diff()))


def hook_table(tried):
    """Prints which hunks of the hook series do not apply. None: the tree has the series."""
    if tried is None:
        print("\nhook series: the tree has it")
        return
    bad = [hunk for hunk in tried if hunk.verdict != hunks.APPLIES]
    print(f"\nhook series: {len(tried) - len(bad)} of {len(tried)} hunks apply"
          + (". A hunk can also fail because an earlier one did:" if bad else "."))
    if bad:
        _table([("PATCH", "FILE", "HUNK", "FUNCTION", "VERDICT")] +
               [(hunk.patch[:4], hunk.file, f"#{hunk.number}", hunk.function or "-",
                 hunk.verdict + (f": {hunk.there or 'outside of functions'}"
                                 if hunk.verdict == hunks.MISPLACED else "")) for hunk in bad])


def what_to_do(findings, tried):
    """Prints the steps that follow from the findings."""
    changed = [finding for finding in findings if finding.matters]
    bad = [hunk for hunk in tried or [] if hunk.verdict != hunks.APPLIES]
    steps = []
    if changed:
        files = sorted({file for finding in changed for file in finding.ours})
        steps.append("Read the changed lines above beside our files, and change these where C now "
                     "behaves differently:\n     " + "\n     ".join(files))
    if any(finding.status == compare.NEW for finding in changed):
        steps.append("Decide for each new definition whether the engine replaces it.")
    if bad:
        steps.append("Rebase tools/kernel/patches on the tree: the functions above are where to look.")
    if steps:
        steps.append("Run make host-test kunit check sweep on a kernel of the new source.")
        steps.append("When that is the project's source, run `make drift RECORD=1`, fill in files and "
                     "roles,\n     and commit tools/kernel/reviewed.json. See Documentation/drift.rst.")
    if not steps:
        print("\nWhat to do: nothing. The engine does what the C of this tree does.")
        return
    print("\nWhat to do:")
    for number, step in enumerate(steps, start=1):
        print(f"  {number}. {step}")


def of_finding(finding):
    """A finding as an object of the results file."""
    data = {"name": finding.key, "role": finding.role, "status": finding.status,
            "ours": finding.ours}
    for name, definition in (("reviewed", finding.here), ("there", finding.there),
                             ("inside", finding.inside)):
        if definition:
            data[name] = {"name": definition.key, "file": definition.file, "line": definition.line}
    if finding.status not in (compare.SAME, compare.MOVED):
        data["removed"], data["added"] = finding.lines()
        data["diff"] = finding.diff()
    for name in ("users", "also"):
        if getattr(finding, name):
            data[name] = getattr(finding, name)
    return data


def of_hunk(hunk):
    """A hunk as an object of the results file."""
    return {"patch": hunk.patch, "file": hunk.file, "hunk": hunk.number, "function": hunk.function,
            "verdict": hunk.verdict, "there": hunk.there}
