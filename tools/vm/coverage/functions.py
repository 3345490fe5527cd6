# SPDX-License-Identifier: GPL-2.0
"""What is counted: functions with lines and branches, in C and in Rust."""

from dataclasses import dataclass, field


@dataclass
class Branch:
    """One way out of a line that has several."""
    line: int
    # The text of that line, and where the branch goes to, for people and for the reasons.
    text: str
    to: str
    count: int
    # Why it is not reached: an entry of the reasons.
    reason: dict | None = None


@dataclass
class Function:
    """A function's counts."""
    name: str
    # The name of its file, e.g. svm/nested.c or access/efer.rs.
    file: str
    start: int
    # The count of each line that has code.
    lines: dict
    branches: list = field(default_factory=list)

    def real(self):
        """The branches without those that the compiler decides."""
        return [branch for branch in self.branches
                if not branch.reason or branch.reason["kind"] != "compile-time"]

    def summary(self):
        """The entry for the results."""
        return {"function": self.name, "file": self.file, "line": self.start,
                "lines": len(self.lines),
                "lines_reached": sum(count > 0 for count in self.lines.values()),
                "branches": len(self.real()),
                "branches_reached": sum(branch.count > 0 for branch in self.branches),
                "compile_time": len(self.branches) - len(self.real())}


def total(functions):
    """The sums of the functions' summaries: lines, lines_reached, branches, branches_reached."""
    summaries = [function.summary() for function in functions]
    return {key: sum(summary[key] for summary in summaries)
            for key in ("lines", "lines_reached", "branches", "branches_reached", "compile_time")}


def share(totals, kind="branches"):
    """The reached part of the branches or lines, in percent."""
    return 100 * totals[f"{kind}_reached"] / totals[kind] if totals[kind] else 100.0
