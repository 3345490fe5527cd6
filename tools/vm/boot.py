#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Boots the project's kernel in QEMU or Bochs, runs a job in it and collects its output.

The job is a shell script.  In the machine, KVM and kvm-msr are loaded, the modules are in
/lib/modules, the user-space programs in /programs (and in PATH), and $VENDOR is amd or intel.
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

# no_timer_check: on a busy host, the kernel may find the emulator's timer too slow, and panic.
_CMDLINE = "console=ttyS0,115200 panic=-1 oops=panic no_timer_check"


class RunError(Exception):
    """The run failed. The text says why."""


class Hung(RunError):
    """The machine produced no output for too long."""


def handle_signals():
    """Must be called by every program that boots machines."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)


def interrupt(signum, _frame):
    """Turns the first SIGTERM or SIGINT into an exception, so that the machines are ended."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt(f"signal {signum}")


class Vm:
    """A machine: collects its initramfs, then boots it and runs a job or a shell."""

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
        # The shell that runs init, which installs busybox's other commands.
        self.initramfs.add_file("bin/sh", products.busybox())
        self.initramfs.add_file("bin/leaks", os.path.join(here, "jobs", "leaks.sh"))
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
        """Runs an interactive shell on the terminal."""
        self.settings["JOB"] = "shell"
        directory = self._directory()
        try:
            self.initramfs.add("etc/motd", _MOTD, 0o644)
            qemu = self._machine(directory, _CMDLINE + " quiet", options)
            return qemu.interact()
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def run(self, job, *, timeout=300, silence=None, show=None, on_frame=None, **options):
        """Runs a job and returns (JobLog, KernelLog).

        Calls show with each line for people, and on_frame with each frame's word and text.
        Raises RunError if the machine ends early, panics, or takes more than timeout seconds, and
        Hung if the emulator uses silence seconds of CPU time after the job's last output.
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
            keep = bool(logs[1].splats or logs[1].races)
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
                    # The kernel's last lines may still be on their way.
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
                    raise Hung(f"no output during {silence} s of CPU time")
                if time.monotonic() > deadline:
                    raise RunError(f"the job took more than {timeout} s; its last lines:\n" +
                                   "\n".join((kernel.lines[-8:] + job.lines[-8:])))
                time.sleep(0.05)
        finally:
            output.close()
            log.close()


_MOTD = """
KVM and kvm-msr are loaded.  The modules are in /lib/modules, the programs in /programs and in PATH.
/sys/module/kvm_msr/parameters/enable decides whether the engine serves new VMs.
/sys/kernel/debug/kvm has a directory for each VM.
`exit` or Ctrl-A X ends the machine.

"""


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", choices=("qemu", "bochs"), default="qemu",
                        help="qemu emulates SVM, bochs emulates VMX (default: qemu)")
    parser.add_argument("--kernel", default="base",
                        choices=("base", "unpatched", "tracing", "lean", "debug", "kasan", "kcsan"))
    parser.add_argument("--module", choices=("plain", "kunit", "none"), default="plain",
                        help="the variant of kvm-msr.ko (default: plain)")
    parser.add_argument("--no-engine", action="store_true", help="do not load kvm-msr.ko")
    parser.add_argument("--no-programs", action="store_true",
                        help="leave out the user-space programs")
    parser.add_argument("--selftests", action="store_true",
                        help="add the KVM selftests, in /selftests")
    parser.add_argument("--add", action="append", default=[], metavar="FILE",
                        help="add another program, in /programs")
    parser.add_argument("--memory", type=int, help="in MiB (default: qemu 3072, bochs 1024)")
    parser.add_argument("--smp", type=int, help="number of CPUs, qemu only (default: 2)")
    parser.add_argument("--icount", action="store_true",
                        help="qemu with one CPU, and a clock that counts instructions")
    parser.add_argument("--timeout", type=int, default=600, help="in seconds (default: 600)")
    parser.add_argument("--console", action="store_true", help="print the kernel's log at the end")
    parser.add_argument("--interactive", action="store_true", help="run a shell instead of a job")
    parser.add_argument("--job", help="the shell script to run")
    parsed = parser.parse_args()
    if bool(parsed.job) == parsed.interactive:
        parser.error("give either --job or --interactive")
    if parsed.machine == "bochs" and (parsed.interactive or parsed.icount or parsed.smp):
        parser.error("--interactive, --icount and --smp work with qemu only")
    return parsed


def main():
    """Runs the machine; returns the job's exit code, or 1 if the kernel's log has errors."""
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
    bad = kernel.splats + [race.lines for race in kernel.races if race.counts()]
    for lines in bad:
        print("the kernel's log has:\n" + "\n".join(lines), file=sys.stderr)
    return 1 if bad else job.exit_code


if __name__ == "__main__":
    handle_signals()
    try:
        sys.exit(main())
    except (RunError, products.BuildError, machine.MachineError) as failure:
        print(f"kvm-msr: error: {failure}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
