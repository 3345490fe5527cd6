#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Boots the project's kernel in QEMU or Bochs, runs a job in it and collects what it says.

The job is a shell script of the checkout.  It finds the modules in /lib/modules, the user-space
programs in /programs (and in PATH), $VENDOR (amd or intel), and KVM and kvm-msr loaded.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import console
import machine
import products
from initramfs import Initramfs

# On a busy host, the kernel may find the timer of an emulator too slow, and panic.
_CMDLINE = "console=ttyS0,115200 panic=-1 oops=panic no_timer_check"


class RunError(Exception):
    """The run came to no proper end; the text says how."""


class Hung(RunError):
    """The machine stopped answering."""


def handle_signals():
    """To be called by every program that boots machines."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)


def interrupt(signum, _frame):
    """Turns the first SIGTERM or SIGINT into an exception, so that the machines are ended."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt(f"signal {signum}")


class Vm:
    """What to boot: collects the initramfs, then runs a job or a shell."""

    def __init__(self, kernel, *, kind="qemu", engine="plain", load_engine=True, load_kvm=True,
                 programs=None):
        self.kernel = kernel
        self.kind = kind
        self.initramfs = Initramfs()
        self.settings = {"ENGINE": "y" if engine and load_engine else "n",
                      "KVM": "y" if load_kvm else "n"}
        here = os.path.dirname(os.path.abspath(__file__))
        self.initramfs.add_file("init", os.path.join(here, "init"))
        self.initramfs.add_file("bin/busybox", products.busybox())
        # The init's own shell; it installs the rest.
        self.initramfs.add_file("bin/sh", products.busybox())
        for module in kernel.modules():
            self.initramfs.add_file(f"lib/modules/{os.path.basename(module)}", module)
        if engine:
            self.initramfs.add_file("lib/modules/kvm-msr.ko", kernel.engine(engine))
        if programs:
            self.initramfs.add_tree("programs", programs)

    def _machine(self, directory, cmdline, options):
        conf = "".join(f"{name}={value}\n" for name, value in self.settings.items())
        self.initramfs.add("etc/vm.conf", conf, 0o644)
        initrd = os.path.join(directory, "initrd")
        self.initramfs.write(initrd, compress=self.kind == "bochs")
        kind = {"qemu": machine.Qemu, "bochs": machine.Bochs}[self.kind]
        return kind(directory, self.kernel.image, initrd, cmdline, **options)

    @staticmethod
    def _directory():
        parent = os.path.join(products.CACHE, "run")
        os.makedirs(parent, exist_ok=True)
        return tempfile.mkdtemp(prefix=time.strftime("%m%d-%H%M%S-"), dir=parent)

    def shell(self, **options):
        """An interactive shell on the terminal."""
        self.settings["JOB"] = "shell"
        directory = self._directory()
        try:
            self.initramfs.add("etc/motd", _MOTD, 0o644)
            qemu = self._machine(directory, _CMDLINE + " quiet", options)
            return qemu.interact()
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def run(self, job, *, timeout=300, silence=None, show=None, on_frame=None, **options):
        """Runs a job and returns its (JobLog, KernelLog).

        show is called with each line for people, on_frame with each frame's word and text.
        Raises RunError when the machine dies, panics, or takes more than timeout seconds,
        and Hung when the job has begun to say something and then does not while the emulator
        works for silence seconds.
        """
        self.settings["JOB"] = "run"
        self.initramfs.add_file("job.sh", job)
        directory = self._directory()
        vm = None
        keep = True
        try:
            vm = self._machine(directory, _CMDLINE + " ignore_loglevel", options)
            vm.start()
            logs = self._follow(vm, timeout, silence, show, on_frame)
            keep = bool(logs[1].splats)
            return logs
        except RunError as error:
            raise type(error)(f"{error}\n(the console is in {vm.console})") from error
        finally:
            if vm:
                vm.stop()
            if keep:
                for name in ("initrd", "boot.iso"):
                    if os.path.exists(os.path.join(directory, name)):
                        os.unlink(os.path.join(directory, name))
            else:
                shutil.rmtree(directory, ignore_errors=True)

    @staticmethod
    def _follow(vm, timeout, silence, show, on_frame):
        job, kernel = console.JobLog(), console.KernelLog()
        output, log = console.LineReader(vm.output), console.LineReader(vm.console)

        last = None

        def feed():
            nonlocal last
            for line in log.lines():
                kernel.feed(line)
            for line in output.lines():
                last = vm.work()
                frames = len(job.frames)
                if job.feed(line) is not None and show:
                    show(line)
                if on_frame and len(job.frames) > frames:
                    on_frame(*job.frames[-1])

        deadline = time.monotonic() + timeout
        try:
            while True:
                gone = vm.ended()
                feed()
                if job.exit_code is not None:
                    # What the kernel says last is still on its way.
                    time.sleep(0.3)
                    feed()
                    return job, kernel
                if kernel.panicked:
                    time.sleep(0.5)
                    feed()
                    raise RunError("the kernel panicked:\n" + "\n".join(kernel.splats[-1]))
                if gone:
                    tail = "\n".join(kernel.lines[-15:])
                    with open(vm.log, "rb") as file:
                        tail += file.read()[-1000:].decode(errors="replace")
                    raise RunError("the machine ended before its job did:\n" + tail)
                if silence and last is not None and vm.work() > last + silence:
                    raise Hung(f"the machine worked for {silence} s and said nothing")
                if time.monotonic() > deadline:
                    raise RunError(f"the job took more than {timeout} s; its last lines:\n" +
                                   "\n".join((kernel.lines[-8:] + job.lines[-8:])))
                time.sleep(0.05)
        finally:
            output.close()
            log.close()


_MOTD = """
KVM and kvm-msr are loaded.  /lib/modules has the modules, /programs the programs (they are in PATH).
/sys/module/kvm_msr/parameters/enable decides for VMs that are created from now on;
/sys/kernel/debug/kvm has a directory for each VM.
`exit` or Ctrl-A X ends the machine.

"""


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", choices=("qemu", "bochs"), default="qemu",
                        help="qemu has SVM, bochs has VMX (default: qemu)")
    parser.add_argument("--kernel", default="base",
                        choices=("base", "unpatched", "tracing", "lean", "debug"))
    parser.add_argument("--module", choices=("plain", "kunit", "none"), default="plain",
                        help="which kvm-msr.ko to bring (default: plain)")
    parser.add_argument("--no-engine", action="store_true", help="do not load kvm-msr.ko")
    parser.add_argument("--no-programs", action="store_true",
                        help="leave out the user-space programs")
    parser.add_argument("--selftests", action="store_true",
                        help="bring the KVM selftests, in /selftests")
    parser.add_argument("--add", action="append", default=[], metavar="FILE",
                        help="bring another program, in /programs")
    parser.add_argument("--memory", type=int, help="in MiB (default: qemu 3072, bochs 1024)")
    parser.add_argument("--smp", type=int, help="CPUs, of qemu (default: 2)")
    parser.add_argument("--icount", action="store_true",
                        help="qemu on one CPU whose clock counts instructions")
    parser.add_argument("--timeout", type=int, default=600, help="in seconds (default: 600)")
    parser.add_argument("--console", action="store_true", help="print the kernel's log at the end")
    parser.add_argument("--interactive", action="store_true", help="a shell in place of a job")
    parser.add_argument("--job", help="the shell script to run")
    parsed = parser.parse_args()
    if bool(parsed.job) == parsed.interactive:
        parser.error("give either --job or --interactive")
    if parsed.machine == "bochs" and (parsed.interactive or parsed.icount or parsed.smp):
        parser.error("--interactive, --icount and --smp are qemu's")
    return parsed


def main():
    """Runs what the command line says; returns the job's exit code."""
    options = arguments()
    module = None if options.module == "none" else options.module
    vm = Vm(products.Kernel(options.kernel), kind=options.machine, engine=module,
            load_engine=not options.no_engine,
            programs=None if options.no_programs else products.programs())
    for path in options.add:
        vm.initramfs.add_file(f"programs/{os.path.basename(path)}", path)
    if options.selftests:
        directory = vm.kernel.selftests()
        vm.initramfs.add_tree("selftests", os.path.join(directory, "bin"))
        vm.initramfs.add_tree("", os.path.join(directory, "lib"))
    hardware = {name: value for name, value in (
        ("memory", options.memory), ("smp", options.smp), ("icount", options.icount)) if value}
    if options.interactive:
        return vm.shell(**hardware)
    job, kernel = vm.run(options.job, timeout=options.timeout, show=print, **hardware)
    for word, text in job.frames:
        print(f"@@{word} {text}")
    if options.console:
        print("\n".join(kernel.lines))
    for splat in kernel.splats:
        print("the kernel complained:\n" + "\n".join(splat), file=sys.stderr)
    return 1 if kernel.splats else job.exit_code


if __name__ == "__main__":
    handle_signals()
    try:
        sys.exit(main())
    except (RunError, products.BuildError, machine.MachineError) as failure:
        print(f"kvm-msr: error: {failure}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
