# SPDX-License-Identifier: GPL-2.0
"""make shell: an interactive shell in the booted machine, with KVM and the engine loaded."""

import boot
import products


def main():
    """Runs until the shell ends."""
    vm = boot.Vm(products.Kernel(), programs=products.programs())
    vm.initramfs.add_file("programs/kvmsr", products.kvmsr())
    return vm.shell()
