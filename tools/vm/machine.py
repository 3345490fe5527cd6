# SPDX-License-Identifier: GPL-2.0
"""The two emulators: QEMU, whose TCG emulates SVM, and Bochs, which emulates VMX.

Neither needs hardware virtualisation.  A machine has two serial ports that write to files: the
kernel's console and the job's output.
"""

import ctypes
import functools
import mmap
import os
import platform
import pty
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import tty


class MachineError(Exception):
    """The machine could not be started. The text says what to do."""


def _need(program, package):
    if not shutil.which(program):
        raise MachineError(f"{program} is missing: install the package {package}")


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _die_with_parent():
    """Ends the emulator when this program ends, even if it is killed."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Machine:
    """An emulator that boots a kernel once.  console and output are its ports' files."""

    def __init__(self, directory, kernel, initrd, cmdline):
        self.directory = directory
        self.kernel = kernel
        self.initrd = initrd
        self.cmdline = cmdline
        self.console = os.path.join(directory, "console.log")
        self.output = os.path.join(directory, "output.log")
        self.log = os.path.join(directory, "emulator.log")
        self.process = None
        for path in (self.console, self.output):
            open(path, "wb").close()

    def ended(self):
        """Whether the emulator has ended."""
        return self.process.poll() is not None

    def _spawn(self, command, **options):
        self.process = subprocess.Popen(command, start_new_session=True,
                                        preexec_fn=_die_with_parent, **options)

    def work(self):
        """The CPU time that it has used, in seconds."""
        try:
            with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
                # After the name, which is in parentheses: utime and stime are 14th and 15th.
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        """Kills the emulator, which has nothing to save."""
        if self.process is None:
            return
        try:
            # It is the leader of its own process group.
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


# rdtsc; shl rdx, 32; or rax, rdx; ret
_RDTSC = b"\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\xc3"


@functools.cache
def _host_tsc():
    """A kernel parameter with the TSC's frequency. In QEMU, the TSC is the host's.

    Linux would measure it with timers, which are late on a busy host. Then all its clocks are wrong.
    """
    if platform.machine() != "x86_64":
        return ""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(_RDTSC)
    rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(
        ctypes.addressof(ctypes.c_char.from_buffer(code)))

    def now():
        # Take the fastest of several, as the process may be interrupted between the two clocks.
        return min(((time.perf_counter_ns(), rdtsc(), time.perf_counter_ns())
                    for _ in range(50)), key=lambda read: read[2] - read[0])

    start = now()
    time.sleep(0.1)
    end = now()
    return f" tsc_early_khz={(end[1] - start[1]) * 1_000_000 // (end[0] - start[0])}"


class Qemu(Machine):
    """QEMU without KVM.  With icount, the machine's clock counts instructions, 1 ns each.


    plugin is what its option -plugin takes: a TCG plugin and its arguments.
    """

    def __init__(self, directory, kernel, initrd, cmdline, *, memory=3072, smp=2, icount=False,
                 plugin=None):
        super().__init__(directory, kernel, initrd, cmdline)
        _need("qemu-system-x86_64", "qemu-system-x86")
        self.arguments = ["qemu-system-x86_64", "-machine", "q35", "-cpu", "max",
                          "-m", str(memory), "-nodefaults", "-no-reboot",
                          "-kernel", kernel, "-initrd", initrd]
        self.cmdline += " tsc=reliable"
        if icount:
            self.arguments += ["-accel", "tcg", "-icount", "shift=0,sleep=off", "-smp", "1"]
        else:
            # One host thread for all CPUs: with one thread each, a CPU may run a stale translation
            # of code that another CPU has just patched.  Creating the first VM patches static
            # keys; a stale int3 then panics the kernel.
            self.arguments += ["-accel", "tcg,thread=single", "-smp", str(smp)]
            self.cmdline += _host_tsc()
        if plugin:
            self.arguments += ["-plugin", plugin]

    def start(self):
        """Starts it, with both ports writing to files."""
        command = [*self.arguments, "-append", self.cmdline, "-display", "none",
                   "-serial", f"file:{self.console}", "-serial", f"file:{self.output}"]
        with open(self.log, "wb") as log:
            self._spawn(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def interact(self):
        """Runs it with its console on the terminal, until it ends."""
        # -nographic puts the monitor on the same terminal: Ctrl-A X ends the machine.
        command = [*self.arguments, "-append", self.cmdline, "-nographic", "-serial", "mon:stdio"]
        return subprocess.run(command, check=False).returncode


_BOCHSRC = """\
cpu: model=corei7_haswell_4770, count=1, ips=100000000, reset_on_triple_fault=0
megs: {memory}
clock: sync=none
romimage: file={share}/BIOS-bochs-latest
vgaromimage: file={share}/VGABIOS-lgpl-latest
boot: cdrom
ata0-master: type=cdrom, path="{iso}", status=inserted
com1: enabled=1, mode=file, dev="{console}"
com2: enabled=1, mode=file, dev="{output}"
display_library: term
sound: driver=dummy
speaker: enabled=0
log: {log}
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"""


class Bochs(Machine):
    """Bochs with one CPU.  Its clock counts instructions, a hundred million per second."""

    def __init__(self, directory, kernel, initrd, cmdline, *, memory=1024):
        super().__init__(directory, kernel, initrd, cmdline)
        for program, package in (("bochs", "bochs"), ("grub-mkrescue", "grub-common"),
                                 ("xorriso", "xorriso"), ("mformat", "mtools")):
            _need(program, package)
        self.memory = memory
        self._terminal = None

    def _write_iso(self):
        iso = os.path.join(self.directory, "boot.iso")
        with tempfile.TemporaryDirectory(dir=self.directory) as tree:
            boot = os.path.join(tree, "boot", "grub")
            os.makedirs(boot)
            for source, name in ((self.kernel, "bzImage"), (self.initrd, "initrd")):
                shutil.copyfile(source, os.path.join(tree, "boot", name))
            with open(os.path.join(boot, "grub.cfg"), "w", encoding="utf-8") as file:
                file.write("set timeout=0\nmenuentry kvm-msr {\n"
                           f"  linux /boot/bzImage {self.cmdline}\n  initrd /boot/initrd\n}}\n")
            made = subprocess.run(["grub-mkrescue", "-d", "/usr/lib/grub/i386-pc", "-o", iso, tree],
                                  stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if made.returncode:
            raise MachineError("grub-mkrescue failed: " + made.stderr.decode().strip()[-300:])
        return iso

    def start(self):
        """Makes the boot medium and starts it, with both ports writing to files."""
        share = "/usr/share/bochs"
        bochsrc = os.path.join(self.directory, "bochsrc")
        commands = os.path.join(self.directory, "debugger")
        with open(bochsrc, "w", encoding="utf-8") as file:
            file.write(_BOCHSRC.format(memory=self.memory, share=share,
                                       iso=self._write_iso(), console=self.console,
                                       output=self.output, log=self.log))
        # Debian's Bochs has the debugger built in, which waits for the command to continue.
        with open(commands, "w", encoding="utf-8") as file:
            file.write("c\n")
        # The debugger needs a terminal.
        self._terminal, terminal = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "LINES": "30", "COLUMNS": "100"}
        self._spawn(["bochs", "-q", "-f", bochsrc, "-rc", commands], stdin=terminal,
                    stdout=terminal, stderr=terminal, env=environment)
        os.close(terminal)
        threading.Thread(target=self._drain_terminal, daemon=True).start()

    def _drain_terminal(self):
        """Reads the debugger's output, and finds the name of the screen's terminal in it."""
        said = b""
        for data in _reads(self._terminal):
            if said is None:
                continue
            said += data
            if match := _SCREEN.search(said):
                said = None
                screen = os.open(match.group(1), os.O_RDWR | os.O_NOCTTY)
                # No echo, and no waiting for the end of a line.
                tty.setraw(screen)
                threading.Thread(target=lambda: [None for _ in _reads(screen)],
                                 daemon=True).start()


# Bochs draws the machine's screen on a terminal that it opens itself.  It stops if nobody reads from
# that terminal.
_SCREEN = re.compile(rb'connected to screen "([^"]+)"')


def _reads(descriptor):
    """Yields what can be read from a terminal, until the other side closes it."""
    try:
        while data := os.read(descriptor, 65536):
            yield data
    except OSError:
        pass
    finally:
        os.close(descriptor)
