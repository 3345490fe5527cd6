# SPDX-License-Identifier: GPL-2.0
"""The paths of what a machine runs. The scripts of tools/kernel build them and print the paths."""

import os
import re
import subprocess

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RESULTS = os.path.join(REPO, "build", "results")
CACHE = os.environ.get("KVM_MSR_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "kvm-msr")


class BuildError(Exception):
    """A product could not be built. The script has printed the reason."""


def script(name, *arguments, **environment):
    """Runs a script of tools/kernel and returns the path it prints."""
    path = os.path.join(REPO, "tools", "kernel", name)
    run = subprocess.run([path, *arguments], stdout=subprocess.PIPE, check=False, text=True,
                         env={**os.environ, **environment})
    if run.returncode:
        raise BuildError(f"{name} {' '.join(arguments)}".strip() + " failed")
    return run.stdout.strip().splitlines()[-1]


class Kernel:
    """A built kernel: a variant of the project's own, or the kernel of KDIR."""

    def __init__(self, variant="base"):
        self.variant = variant
        self.directory = script("build.sh", variant)

    @property
    def image(self):
        """The bzImage."""
        image = os.path.join(self.directory, "arch/x86/boot/bzImage")
        if not os.path.exists(image):
            raise BuildError(f"{self.directory} has no bzImage to boot: leave KDIR out, "
                             "or give the build directory of a complete kernel")
        return image

    @property
    def source(self):
        """The source tree."""
        link = os.path.join(self.directory, "source")
        return os.path.realpath(link if os.path.exists(link) else self.directory)

    @property
    def version(self):
        """Its version, e.g. 7.3.4."""
        release = os.path.join(self.directory, "include/config/kernel.release")
        with open(release, encoding="utf-8") as file:
            return re.match(r"[\d.]+", file.read()).group()

    def modules(self):
        """Its KVM modules, in the order in which they are loaded."""
        found = {}
        for directory in ("virt/lib", "arch/x86/kvm"):
            full = os.path.join(self.directory, directory)
            for name in os.listdir(full):
                if name.endswith(".ko"):
                    found[name] = os.path.join(full, name)
        return [found[name] for name in ("irqbypass.ko", "kvm.ko", "kvm-amd.ko", "kvm-intel.ko")
                if name in found]

    def engine(self, variant="plain"):
        """The path of kvm-msr.ko for this kernel."""
        return script("module.sh", variant, KERNEL=self.variant)

    def check_module(self, name):
        """The path of a module for tests, one of tools/check/, for this kernel."""
        return script("check_module.sh", name, KERNEL=self.variant)

    def selftests(self):
        """The directory of the KVM selftests."""
        return script("selftests.sh", KERNEL=self.variant)


def programs():
    """The directory of the static user-space programs."""
    return script("programs.sh")


def plugin():
    """The plugin of QEMU that records what its CPU accesses."""
    return script("plugin.sh")


def kvmsr():
    """The program kvmsr, as it is installed."""
    return script("kvmsr.sh")


def busybox():
    """A static busybox."""
    for path in ("/bin/busybox", "/usr/bin/busybox"):
        if os.path.exists(path):
            return path
    raise BuildError("busybox is missing: install the package busybox-static")
