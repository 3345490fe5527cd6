# SPDX-License-Identifier: GPL-2.0
"""The makefile's targets that run something and judge it, a module each with a main()."""

import os


def job(name):
    """The path of a job, a script that runs in the machine."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "jobs", name)
