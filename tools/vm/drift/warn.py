# SPDX-License-Identifier: GPL-2.0
"""python3 -m drift.warn SOURCE: prints the names of what differs in a source tree from the reviewed C, one
on each line. It needs no other source, and takes about a second. tools/kernel/build.sh calls it."""

import sys

from drift import compare, record, trees
from drift.definitions import Tree


def main():
    """Prints the names."""
    source = sys.argv[1]
    for name in compare.differing(record.read(), Tree(source), trees.has_hooks(source)):
        print(name)


if __name__ == "__main__":
    main()
