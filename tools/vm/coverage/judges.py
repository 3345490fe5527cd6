# SPDX-License-Identifier: GPL-2.0
"""The judges: test programs that run in the machine on the coverage kernel. Each has a boot of its own, so
that one that fails takes no other's counters with it."""

import base64
import gzip
import os
import shutil
import time

import boot
import products
import results
from suites import job, kunit

_KIND = {"amd": "qemu", "intel": "bochs"}
_TIMEOUT = {"amd": 3600, "intel": 10800}
# KVM's selftests of MSRs and nested state; the others use no more of them.
_SELFTESTS = {
    "amd": ("feature_msrs_test", "hwcr_msr_test", "hyperv_clock", "hyperv_features", "kvm_clock_test",
            "kvm_pv_test", "monitor_mwait_test", "msrs_test", "nested_set_state_test",
            "platform_info_test", "pmu_counters_test", "set_boot_cpu_id", "smm_test", "state_test",
            "svm_lbr_nested_state", "svm_nested_clear_efer_svme", "svm_nested_pat_test",
            "svm_nested_vmcb12_gpa", "sync_regs_test", "tsc_msrs_test", "ucna_injection_test",
            "userspace_msr_exit_test", "xapic_state_test", "xen_shinfo_test",
            "xen_vmcall_test", "xss_msr_test"),
    "intel": ("feature_msrs_test", "hyperv_evmcs", "monitor_mwait_test", "msrs_test", "nested_set_state_test",
              "platform_info_test", "smm_test", "state_test", "vmx_msrs_test", "vmx_pmu_caps_test",
              "vmx_invalid_nested_guest_state", "xss_msr_test"),
}


# Of those, the ones whose guests use the features that are added.
_FEATURE_SELFTESTS = ("cpuid_test", "hwcr_msr_test", "msrs_test", "smm_test", "state_test", "xss_msr_test")
# A CPU goes away and comes back while vCPUs run.
_HOTPLUG = """#!/bin/sh
cpu=/sys/devices/system/cpu/cpu1/online
kvm-msr-check --suite user-space &
while kill -0 $! 2>/dev/null; do
	for online in 0 1; do
		echo $online >$cpu || exit
		sleep 0.2
	done
done
wait $!
"""


class Judge:
    """A test program, or a part of one."""

    def __init__(self, name, script, files=None, *, engine="coverage", counts_c=True, modules=(),
                 warnings=""):
        """script is the job that runs it, or its text; files are what the job reads.

        engine is the variant of the engine's module, or None. counts_c is false if VMs of the engine do
        what none of C does. modules are those of tools/check/ that are loaded. warnings is the function
        whose warnings in the kernel's log are expected.
        """
        self.name = name
        self.script = script
        self.files = files or {}
        self.engine = engine
        self.counts_c = counts_c
        self.modules = modules
        self.warnings = warnings


def _sweep(name, *arguments, **more):
    return Judge(name, "sweep.sh", {"sweep/arguments": "".join(f"{line}\n" for line in arguments)}, **more)


def _check(name, options, **more):
    return Judge(name, "check.sh", {"check/test": "", "check/options": options}, **more)


def _selftests(name, tests, sides, **more):
    listed = "".join(f"x86/{test} {sides}\n" for test in tests)
    return Judge(name, "selftests.sh", {
        "selftests/list": listed, "selftests/again": "", "selftests/limit": "60\n"}, **more)


_COMPARED = "--suite filter --suite user-space --suite msrs --suite visible"


def of(vendor, full=False):
    """The judges of this vendor's KVM; with full, those that `make sweep` runs for long."""
    quick = "" if full else " --quick"
    models = "" if full else " --models 1"
    judges = [
        _check("check", _COMPARED),
        _check("check-device", "--suite device", counts_c=False),
        _sweep("sweep", quick + models),
        _sweep("sweep-nested", "--nested" + quick),
        _selftests("selftests", _SELFTESTS[vendor], "c engine"),
        # The engine's module is not loaded, and the hooks are off.
        _check("check-unloaded", f"{_COMPARED} --pair c,c --filters 10", engine=None),
        _sweep("sweep-unloaded", "--quick --models 0 --only c", engine=None),
        _selftests("selftests-unloaded", _SELFTESTS[vendor], "c", engine=None),
    ]
    if vendor == "amd":
        judges = [
            # Its tests run while the module is loaded. They need neither KVM's C code nor a vendor.
            Judge("kunit", "#!/bin/sh\n", engine="kunit-coverage", counts_c=False),
            *judges,
            Judge("hotplug", _HOTPLUG),
            # KVM warns that the CPU does not have the added states of XSAVE.
            _check("check-features", "--suite msrs", modules=("features",), warnings="do_cpuid_func"),
            _sweep("sweep-features", "--quick --models 2", modules=("features",), warnings="do_cpuid_func"),
            _selftests("selftests-features", _FEATURE_SELFTESTS, "c engine", modules=("features",),
                       warnings="do_cpuid_func"),
            _sweep("sweep-immediate", "--quick --models 1", modules=("immediate",)),
        ]
    return judges


def directory(vendor, judge=""):
    """Where the counters of a judge are, or those of all."""
    return os.path.join(products.RESULTS, "coverage", vendor, judge)


def run(kernel, vendor, judge):
    """Runs a judge and stores the counters. Returns its tests."""
    started = time.monotonic()
    vm = boot.Vm(kernel, kind=_KIND[vendor], engine=judge.engine, programs=products.programs())
    _add_modules(vm, judge)
    for name, text in judge.files.items():
        vm.initramfs.add(name, text, 0o644)
    if judge.script.endswith(".sh"):
        vm.initramfs.add_file("coverage/judge.sh", job(judge.script))
    else:
        vm.initramfs.add("coverage/judge.sh", judge.script)
    to = directory(vendor, judge.name)
    shutil.rmtree(to, ignore_errors=True)
    print(f"\n--- {judge.name}, {vendor}", flush=True)
    try:
        log, messages = vm.run(job("coverage.sh"), timeout=_TIMEOUT[vendor], show=_show)
    except boot.RunError as error:
        print(error)
        return [results.test(f"{vendor}: {judge.name}", False, str(error).splitlines()[0])]
    _store(to, log)
    failed = [entry["name"] for report in log.json() for entry in report.get("tests", [])
              if entry["result"] == "fail"]
    if (judge.engine or "").startswith("kunit"):
        cases = kunit.cases(kunit.module_ktap(messages.plain()))
        failed += [entry["name"] for entry in cases if entry["result"] == "fail"]
        if not cases:
            failed.append("it ran no test")
    if log.exit_code and not failed:
        failed.append(f"exit code {log.exit_code}")
    if judge.warnings:
        messages.splats = [splat for splat in messages.splats if judge.warnings not in splat[0]]
    minutes = (time.monotonic() - started) / 60
    return [results.test(f"{vendor}: {judge.name}", not failed, ", ".join(failed), minutes=round(minutes, 1)),
            {**results.kernel_log(messages), "name": f"{vendor}: {judge.name}: kernel log"}]


def _add_modules(vm, judge):
    for name, path in (("features", "lib/modules"), ("immediate", "coverage")):
        if name in judge.modules:
            vm.initramfs.add_file(f"{path}/kvm_{name}.ko", vm.kernel.check_module(name))
    if "selftests/list" in judge.files:
        tests = vm.kernel.selftests()
        for line in judge.files["selftests/list"].splitlines():
            test = line.split()[0]
            vm.initramfs.add_file(f"selftests/{test}", os.path.join(tests, "bin", test))
        vm.initramfs.add_tree("", os.path.join(tests, "lib"))


def _show(line):
    print(line, flush=True)


def _store(to, log):
    os.makedirs(to)
    contents = [(f"{text.split()[0].replace('/', '-')}.gcda", text.split()[1])
                for text in log.frames_of("gcov")]
    contents += [("engine.profraw", text) for text in log.frames_of("profile")]
    for name, encoded in contents:
        with open(os.path.join(to, name), "wb") as file:
            file.write(gzip.decompress(base64.b64decode(encoded)))
