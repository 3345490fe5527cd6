# SPDX-License-Identifier: GPL-2.0
"""make test-vmm: kvmsr and /dev/kvm-msr with a VMM that knows nothing of them: the host's QEMU runs
in the machine, and kvmsr attaches to it by its process while its guest runs."""

import argparse
import os
import re
import subprocess
import tempfile

import boot
import products
import results
from initramfs import Initramfs
from suites import job, on_variant, variant

_QEMU = "/usr/bin/qemu-system-x86_64"
# What QEMU needs to boot a Linux kernel with -machine pc,accel=kvm.
_FIRMWARE = ("bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin")
# The first process of QEMU's guest. The kernel puts unknown parameters of its command line into the
# environment, so `probe=INDEX` there is a variable here. INDEX has to be a multiple of 8.
_GUEST_INIT = """\
#!/bin/sh
/bin/busybox --install -s /bin
mount -t devtmpfs devtmpfs /dev
echo "guest: in user space"
if [ -n "$probe" ]; then
	if dd if=/dev/cpu/0/msr of=/dev/null bs=8 count=1 skip=$((probe / 8)); then
		echo "guest: read $probe"
	else
		echo "guest: can't read $probe"
	fi
fi
poweroff -f
"""


def _host_qemu():
    """The paths of QEMU, its libraries and its firmware."""
    if not os.path.exists(_QEMU):
        raise products.BuildError(f"{_QEMU} is missing: install the package qemu-system-x86")
    libraries = subprocess.run(["ldd", _QEMU], check=True, capture_output=True, text=True).stdout
    # With an absolute path: "name => path (address)", and the loader's "path (address)".
    paths = [_QEMU, *re.findall(r"(?:=> |^\s+)(/\S+)", libraries, re.MULTILINE)]
    searched = subprocess.run([_QEMU, "-L", "help"], check=True, capture_output=True,
                              text=True).stdout.split()
    for name in _FIRMWARE:
        found = [os.path.normpath(os.path.join(directory, name)) for directory in searched
                 if os.path.exists(os.path.join(directory, name))]
        if not found:
            raise products.BuildError(f"QEMU has no {name}: install the package seabios, "
                                      "and qemu-system-data")
        paths.append(found[0])
    return paths


def _add_guest(to, kernel):
    """Adds the Linux that QEMU boots, to the machine's initramfs."""
    guest = Initramfs()
    guest.add_file("bin/busybox", products.busybox())
    guest.add_file("bin/sh", products.busybox())
    guest.add("init", _GUEST_INIT)
    with tempfile.NamedTemporaryFile() as file:
        guest.write(file.name)
        to.add_file("kvmsr/initrd", file.name)
    to.add_file("kvmsr/bzImage", kernel.image)


def name():
    """The name of the results file."""
    return on_variant("vmm")


def main():
    """Runs kvmsr-check in the machine."""
    parser = argparse.ArgumentParser(prog="vmm")
    parser.add_argument("--suite", choices=("attach", "boot"), help="run only these tests")
    options = parser.parse_args()
    vm = boot.Vm(products.Kernel(variant()), programs=products.programs())
    vm.initramfs.add_file("programs/kvmsr", products.kvmsr())
    for path in _host_qemu():
        vm.initramfs.add_file(path, path)
    # The guest is the fast kernel, also if the machine's is not.
    _add_guest(vm.initramfs, vm.kernel if variant() == "base" else products.Kernel())
    vm.initramfs.add("kvmsr/arguments", f"--suite {options.suite}" if options.suite else "", 0o644)
    # One CPU: with two, which QEMU emulates in turns, a nested guest that spins stops the other.
    log, kernel = vm.run(job("vmm.sh"), timeout=600 if variant() == "base" else 2400, show=print,
                         smp=1)
    tests = [entry for report in log.json() for entry in report["tests"]]
    if not tests or log.exit_code and not results.count(tests)[1]:
        tests.append(results.test("kvmsr-check", False, f"exit code {log.exit_code}"))
    tests.append(results.kernel_log(kernel))
    return results.conclude(name(), tests, kernel=vm.kernel.version)
