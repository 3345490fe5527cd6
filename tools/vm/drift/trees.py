# SPDX-License-Identifier: GPL-2.0
"""The two sources that are compared: the reviewed one, and another."""

import contextlib
import glob
import os
import re
import shutil
import subprocess
import tempfile

import products
from drift.definitions import Tree

# A file that only the hook series adds.
HOOKED = "arch/x86/kvm/msr_engine.h"
PATCHES = os.path.join(products.REPO, "tools/kernel/patches")


def patches():
    """The paths of the hook series' patches, in order."""
    return sorted(glob.glob(os.path.join(PATCHES, "*.patch")))


def touched():
    """The files that the hook series changes or adds."""
    names = set()
    for patch in patches():
        with open(patch, encoding="utf-8") as file:
            names |= set(re.findall(r"^\+\+\+ b/(\S+)$", file.read(), re.MULTILINE))
    return sorted(names)


def has_hooks(source):
    """Whether a source tree has the hook series."""
    return os.path.exists(os.path.join(source, HOOKED))


def version(source):
    """The version that a source tree's Makefile states, e.g. 7.3.4."""
    with open(os.path.join(source, "Makefile"), encoding="utf-8") as file:
        numbers = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL) *= *(\d+)$", file.read(),
                                  re.MULTILINE))
    return ".".join(numbers.get(name, "0") for name in ("VERSION", "PATCHLEVEL", "SUBLEVEL"))


def copy(source, target):
    """Copies the part of a source tree that matters here."""
    for name in ("Makefile", "Kbuild", *Tree.PLACES, *touched()):
        there, here = os.path.join(source, name), os.path.join(target, name)
        if os.path.isdir(there):
            shutil.copytree(there, here, dirs_exist_ok=True)
        elif os.path.exists(there):
            os.makedirs(os.path.dirname(here), exist_ok=True)
            shutil.copyfile(there, here)


def _patch(directory, patch, *options):
    """Applies a patch to a tree. Returns whether all of it applied, and what `patch` said."""
    run = subprocess.run(["patch", "-p1", "-F0", "-f", "-s", "--no-backup-if-mismatch",
                          "--reject-file=-", "-d", directory, "-i", patch, *options],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return run.returncode == 0, run.stdout.strip()


def _with_series(plain, directory):
    """Copies a source tree, and applies the hook series as far as it applies."""
    copy(plain, directory)
    for patch in patches():
        _patch(directory, patch)


@contextlib.contextmanager
def present():
    """The source that `make` builds, unpacked if it is not yet: yields the directories (without the hook
    series, with it). Neither must be changed."""
    with tempfile.TemporaryDirectory(prefix="kvm-msr-drift-") as other:
        try:
            hooked = products.script("build.sh", "--source", KSRC="", KDIR="")
        except products.BuildError:
            # The package is newer than the series. It still is what others are compared with.
            plain = products.script("build.sh", "--source", "unpatched", KSRC="", KDIR="")
            _with_series(plain, other)
            yield plain, other
            return
        copy(hooked, other)
        for patch in reversed(patches()):
            applied, said = _patch(other, patch, "-R")
            if not applied:
                raise products.BuildError(f"{os.path.basename(patch)} can't be taken off {hooked}: {said}")
        yield other, hooked


@contextlib.contextmanager
def reviewed(wanted):
    """The source of the version `wanted`, as present() yields it. After `make update`, the cache still has
    the package of the version before. Without that, yields what present() does."""
    with present() as found:
        packages = [] if version(found[0]) == wanted else \
            sorted(glob.glob(os.path.join(products.CACHE, "download", f"linux-source-*_{wanted}-*.deb")))
        if not packages:
            yield found
            return
        with tempfile.TemporaryDirectory(prefix="kvm-msr-drift-") as plain, \
                tempfile.TemporaryDirectory(prefix="kvm-msr-drift-") as hooked:
            _unpack(packages[-1], plain)
            _with_series(plain, hooked)
            yield plain, hooked


@contextlib.contextmanager
def opened(path):
    """A source tree by its directory, or by Debian's source package or a tar file, of which the part
    that matters is unpacked. Yields the directory."""
    if os.path.isdir(path):
        yield _checked(path, path)
        return
    if not os.path.isfile(path) or not re.search(r"\.(deb|tar(\.\w+)?|tgz)$", path):
        raise ValueError(f"KSRC={path} is no Linux source tree, linux-source package or tar file")
    with tempfile.TemporaryDirectory(prefix="kvm-msr-drift-") as directory:
        _unpack(path, directory)
        yield _checked(directory, path)


def _unpack(path, directory):
    """Unpacks what matters of a .deb or tar file."""
    print(f"unpacking {os.path.basename(path)}", flush=True)
    wanted = ["*/" + name for name in ("Makefile", "Kbuild", *Tree.PLACES, *touched())]
    archive = "cat"
    if path.endswith(".deb"):
        archive = "f() { dpkg-deb --fsys-tarfile \"$1\" | tar -xO --wildcards " \
                  "'./usr/src/linux-source-*.tar.xz'; }; f"
    kind = "-J" if path.endswith((".deb", ".xz")) else "-z" if path.endswith("gz") else ""
    # tar complains of names that the archive does not have, e.g. those of the hook series.
    subprocess.run(["bash", "-c", f'{archive} "$1" | tar -x {kind} -C "$2" --strip-components=1 '
                    '--wildcards --no-wildcards-match-slash "${@:3}"', "bash", path, directory,
                    *wanted], check=False, stderr=subprocess.DEVNULL)


def _checked(directory, path):
    missing = [name for name in ("Makefile", "arch/x86/kvm")
               if not os.path.exists(os.path.join(directory, name))]
    if missing:
        raise ValueError(f"KSRC={path} is no Linux source tree: it has no {' and no '.join(missing)}")
    return directory
