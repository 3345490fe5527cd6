# SPDX-License-Identifier: GPL-2.0
"""Compares a source tree with the reviewed one."""

import difflib
import re
from collections import Counter
from dataclasses import dataclass, field

from drift import definitions, record

SAME = "same"
MOVED = "moved"
CHANGED = "changed"
RENAMED = "renamed"
GONE = "gone"
NEW = "new"
# How alike two definitions are at least if one is taken for the other under a new name.
_ALIKE = 0.6
_ALIKE_IN_WORDS = 0.8
# Shorter lines are in many functions.
_TELLING = 16


@dataclass
class Finding:
    """What became of a definition. `here` is the reviewed one, if its text is at hand, and `there` the
    other tree's, if there is one."""
    key: str
    role: str
    status: str
    ours: list
    here: definitions.Definition = None
    there: definitions.Definition = None
    # For a new definition: the changed definitions that use it.
    users: list = field(default_factory=list)
    # The other tree also defines it there.
    also: list = field(default_factory=list)
    # For one that is gone: the definition that has most of its lines.
    inside: definitions.Definition = None

    @property
    def moved(self):
        """Whether it is now in another file."""
        return bool(self.here and self.there and self.here.file != self.there.file)

    @property
    def matters(self):
        """Whether the engine may have to change."""
        return self.role in record.WATCHED and self.status not in (SAME, MOVED)

    def diff(self):
        """The changed lines, as a unified diff."""
        old, new = (one.text.splitlines() if one else [] for one in (self.here, self.there))
        return list(difflib.unified_diff(old, new, self.here.place if self.here else "/dev/null",
                                         self.there.place if self.there else "/dev/null",
                                         lineterm=""))

    def lines(self):
        """How many lines of code were removed, and how many added."""
        old, new = (_code_lines(one.text) if one else [] for one in (self.here, self.there))
        diff = list(difflib.unified_diff(old, new, n=0, lineterm=""))[2:]
        return (sum(line.startswith("-") for line in diff),
                sum(line.startswith("+") for line in diff))


def _code_lines(text):
    """The lines of a text without white space and comments."""
    text = definitions.without_comments(text)
    return [line for line in (" ".join(line.split()) for line in text.splitlines()) if line]


def _alike(one, other):
    """How alike two definitions are, from 0 to 1, but for their own names: by lines, and by words if
    nearly all of these are the same."""
    ratio = 0
    for split, least in ((_code_lines, _ALIKE), (re.compile(r"\w+|[^\w\s]").findall, _ALIKE_IN_WORDS)):
        parts = (split(definitions.without_comments(each.text).replace(each.key, ""))
                 for each in (one, other))
        matcher = difflib.SequenceMatcher(None, *parts, autojunk=False)
        if matcher.real_quick_ratio() >= least and matcher.quick_ratio() >= least:
            found = matcher.ratio()
            ratio = max(ratio, found if found >= least else 0)
    return ratio


def _pick(found, file, wanted, here):
    """Of several definitions with one key, the one that is meant."""
    for one in found:
        if one.file == file:
            return one
    for one in found:
        if one.hash == wanted:
            return one
    if here and len(found) > 1:
        return max(found, key=lambda one: _alike(here, one))
    return found[0] if found else None


def _owner(gone, owners):
    """The definition that has most of a definition's lines, or None."""
    lines = [line for line in _code_lines(gone.text)[1:] if len(line) >= _TELLING]
    counts = Counter(one for line in set(lines) for one in owners.get(line, []))
    best = max(counts, key=lambda one: (counts[one], -len(one.text)), default=None)
    return best if best and counts[best] > len(set(lines)) / 2 else None


def search_farther(tree, entries, hooked):
    """Has a tree search for the definitions that are not where KVM is."""
    tree.far([entry.key for entry in entries if entry.hash(hooked) and not tree.all(entry.key)])


class Comparison:
    """The findings on a tree. `reviewed` is the reviewed tree in the same form as `tree`: both with the
    hook series or both without it."""

    def __init__(self, reviewed_record, reviewed, tree, hooked):
        self._reviewed = reviewed
        self._tree = tree
        entries = reviewed_record.entries
        search_farther(tree, entries, hooked)
        self.findings = [self._finding(entry, entry.hash(hooked)) for entry in entries
                         if entry.hash(hooked)]
        self._find_renamed()
        known = reviewed_record.keys()
        known |= {finding.there.key for finding in self.findings if finding.there}
        self.findings += self._new_in_files(known)
        self.findings += self._newly_used(known | {finding.key for finding in self.findings})
        self.findings.sort(key=lambda finding: (
            list(record.ROLES).index(finding.role), finding.here is None,
            (finding.here or finding.there).file if finding.here or finding.there else "",
            (finding.here or finding.there).line if finding.here or finding.there else 0))

    def _finding(self, entry, wanted):
        here = self._reviewed.best(entry.key, entry.file)
        if here and here.hash != wanted:
            # The source at hand is not the one that was reviewed.
            here = None
        found = self._tree.all(entry.key)
        there = _pick(found, entry.file, wanted, here)
        if there is None:
            status = GONE
        elif there.hash != wanted:
            status = CHANGED
        else:
            # The hook series itself moves a function to a header.
            status = SAME if there.file == (here or entry).file else MOVED
        return Finding(entry.key, entry.role, status, entry.ours, here, there,
                       also=[one.place for one in found if one is not there and
                             one.file.endswith(".c")])

    def _find_renamed(self):
        """Finds definitions under a new name: one that the reviewed tree does not have like that, and
        whose text is alike; or else one that has their lines."""
        new = [one for key in self._tree.keys() if " " not in key for one in self._tree.all(key)
               if one.file.endswith(".c") and all(one.code != here.code
                                                  for here in self._reviewed.all(key))]
        taken = {finding.key for finding in self.findings}
        gone = [finding for finding in self.findings
                if finding.status == GONE and finding.here and " " not in finding.key]
        for finding in gone:
            length = len(finding.here.text)
            ranked = sorted(((_alike(finding.here, one), one.place, one) for one in new
                             if one.key not in taken and length / 3 <= len(one.text) <= length * 3),
                            key=lambda rank: rank[:2])
            if ranked and ranked[-1][0] >= _ALIKE:
                finding.status, finding.there = RENAMED, ranked[-1][2]
                taken.add(finding.there.key)
        owners = {}
        for one in new if gone else []:
            for line in set(_code_lines(one.text)):
                owners.setdefault(line, []).append(one)
        for finding in gone:
            if finding.status == GONE:
                finding.inside = _owner(finding.here, owners)

    def _new_in_files(self, known):
        """The functions, tables and types in the files that the engine replaces which are not in the
        record."""
        for file in record.FILES:
            for key, there in self._tree.files.get(file, {}).items():
                if key not in known and key not in self._reviewed.files.get(file, {}) and \
                        not key.startswith("#define"):
                    yield Finding(key, record.REPLACED, NEW, [], there=there)

    def _newly_used(self, known):
        """The functions and macros of KVM that the changed definitions use, and their reviewed forms did
        not."""
        users = {}
        for finding in self.findings:
            if finding.matters and finding.here and finding.there:
                before = definitions.words(finding.here.text)
                for name in definitions.words(finding.there.text) - before:
                    users.setdefault(f"#define {name}", []).append(finding)
                for name in definitions.calls(finding.there.text) - before:
                    users.setdefault(name, []).append(finding)
        for key in sorted(users.keys() - known):
            there = self._tree.best(key, users[key][0].there.file)
            if there and there.file.startswith(("arch/x86/kvm/", "virt/kvm/")) and \
                    not self._is_same(key, there):
                yield Finding(key, users[key][0].role, NEW,
                              sorted({file for user in users[key] for file in user.ours}),
                              there=there, users=[user.key for user in users[key]])

    def _is_same(self, key, there):
        here = self._reviewed.best(key, there.file)
        return here is not None and here.hash == there.hash

    def changed(self):
        """The findings for which the engine may have to change."""
        return [finding for finding in self.findings if finding.matters]


def differing(reviewed_record, tree, hooked):
    """The keys of watched definitions whose hashes differ from the record, and of new ones in the files
    that the engine replaces. Needs no reviewed source."""
    keys = []
    watched = [entry for entry in reviewed_record.entries if entry.role in record.WATCHED]
    search_farther(tree, watched, hooked)
    for entry in watched:
        wanted = entry.hash(hooked)
        if wanted and \
                all(there.hash != wanted for there in tree.all(entry.key)):
            keys.append(entry.key)
    known = reviewed_record.keys()
    for file in record.FILES:
        keys += [key for key in tree.files.get(file, {})
                 if key not in known and not key.startswith("#define")]
    return keys
