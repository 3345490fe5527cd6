// SPDX-License-Identifier: Apache-2.0 OR MIT

//! MSR accesses of a Linux guest, at boot and later, that it expects to succeed. Accesses that it
//! expects to fail (`rdmsrq_safe()` etc.) are not listed.
//!
//! The facts are from 64-bit Linux 7.3; each entry names the file.

use crate::filter::Flags;
use crate::filter::Run;
use crate::filter::Severity;

/// The guest's operating system.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Guest {
    /// Linux.
    #[default]
    Linux,
    /// Another one, about which nothing is known.
    Other,
}

/// Accesses that Linux relies on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// The MSRs.
    pub(super) msrs: Run,
    /// The accesses.
    pub(super) flags: Flags,
    /// The severity if they fail.
    pub(super) severity: Severity,
    /// When Linux makes them, e.g. "on Intel".
    pub(super) when: &'static str,
    /// What happens to the guest if they fail.
    pub(super) then: &'static str,
    /// The file in Linux.
    pub(super) source: &'static str,
}

const fn need(
    first: u32,
    last: u32,
    flags: Flags,
    severity: Severity,
    when: &'static str,
    then: &'static str,
    source: &'static str,
) -> Need {
    Need {
        msrs: Run { first, last },
        flags,
        severity,
        when,
        then,
        source,
    }
}

const R: Flags = Flags::READ;
const W: Flags = Flags::WRITE;
const RW: Flags = Flags::BOTH;
/// It does not boot.
const DIES: Severity = Severity::Error;
/// It prints a warning, and continues with a wrong value.
const ERRS: Severity = Severity::Warning;

/// All accesses, sorted by index.
pub(super) const NEEDS: &[Need] = &[
    need(
        0x17,
        0x17,
        R,
        ERRS,
        "on Intel",
        "it warns of an unchecked access, and assumes platform 0",
        "arch/x86/kernel/cpu/intel.c",
    ),
    need(
        0x1b,
        0x1b,
        R,
        ERRS,
        "if CPUID has APIC",
        "it warns of an unchecked access; it finds no boot CPU, and assumes that the x2APIC \
         is disabled",
        "arch/x86/kernel/cpu/topology.c, arch/x86/kernel/apic/apic.c",
    ),
    need(
        0x1b,
        0x1b,
        W,
        ERRS,
        "to enable an x2APIC",
        "the x2APIC stays disabled",
        "arch/x86/kernel/apic/apic.c",
    ),
    need(
        0x3b,
        0x3b,
        RW,
        ERRS,
        "if CPUID has TSC_ADJUST",
        "it warns of an unchecked access when it checks its clock",
        "arch/x86/kernel/tsc_sync.c",
    ),
    need(
        0x48,
        0x48,
        RW,
        ERRS,
        "if CPUID has SPEC_CTRL, AMD_IBRS or similar",
        "it warns of an unchecked access, and is not protected from speculation",
        "arch/x86/kernel/cpu/bugs.c",
    ),
    need(
        0x49,
        0x49,
        W,
        ERRS,
        "if CPUID has IBPB",
        "it warns of an unchecked access, and is not protected from speculation",
        "arch/x86/entry/entry.S",
    ),
    need(
        0x8b,
        0x8b,
        RW,
        ERRS,
        "on Intel",
        "it warns of an unchecked access, and assumes microcode revision 0",
        "arch/x86/include/asm/microcode.h",
    ),
    need(
        0xfe,
        0xfe,
        R,
        ERRS,
        "if CPUID has MTRR",
        "it warns of an unchecked access, and has no MTRRs",
        "arch/x86/kernel/cpu/mtrr/generic.c",
    ),
    need(
        0x10a,
        0x10a,
        R,
        ERRS,
        "if CPUID has ARCH_CAPABILITIES",
        "it warns of an unchecked access, and assumes that the CPU is vulnerable",
        "arch/x86/kernel/cpu/common.c",
    ),
    need(
        0x179,
        0x179,
        R,
        ERRS,
        "if CPUID has MCA",
        "it warns of an unchecked access, and has no machine-check banks",
        "arch/x86/kernel/cpu/mce/core.c",
    ),
    need(
        0x1a0,
        0x1a0,
        R,
        DIES,
        "on Intel",
        "it crashes: it reads this before it can handle #GP",
        "arch/x86/kernel/verify_cpu.S",
    ),
    need(
        0x200,
        0x20f,
        R,
        ERRS,
        "if MTRRcap says that they are there",
        "it warns of an unchecked access, and assumes wrong memory types",
        "arch/x86/kernel/cpu/mtrr/generic.c",
    ),
    need(
        0x250,
        0x250,
        R,
        ERRS,
        "if MTRRcap says that they are there",
        "it warns of an unchecked access, and assumes wrong memory types",
        "arch/x86/kernel/cpu/mtrr/generic.c",
    ),
    need(
        0x258,
        0x259,
        R,
        ERRS,
        "if MTRRcap says that they are there",
        "it warns of an unchecked access, and assumes wrong memory types",
        "arch/x86/kernel/cpu/mtrr/generic.c",
    ),
    need(
        0x268,
        0x26f,
        R,
        ERRS,
        "if MTRRcap says that they are there",
        "it warns of an unchecked access, and assumes wrong memory types",
        "arch/x86/kernel/cpu/mtrr/generic.c",
    ),
    need(
        0x277,
        0x277,
        RW,
        ERRS,
        "always",
        "it warns of an unchecked access, and does not use PAT",
        "arch/x86/mm/pat/memtype.c",
    ),
    need(
        0x2ff,
        0x2ff,
        R,
        ERRS,
        "if CPUID has MTRR",
        "it warns of an unchecked access, and assumes that its MTRRs are disabled",
        "arch/x86/kernel/cpu/mtrr/generic.c",
    ),
    need(
        0xda0,
        0xda0,
        W,
        ERRS,
        "if CPUID has XSAVES",
        "it warns of an unchecked access, and saves no supervisor states",
        "arch/x86/kernel/fpu/xstate.c",
    ),
    need(
        0x4b56_4d00,
        0x4b56_4d01,
        W,
        ERRS,
        "if CPUID has KVM_FEATURE_CLOCKSOURCE2",
        "it warns of an unchecked access, and its clock does not advance",
        "arch/x86/kernel/kvmclock.c",
    ),
    need(
        0x4b56_4d02,
        0x4b56_4d02,
        W,
        ERRS,
        "if CPUID has KVM_FEATURE_ASYNC_PF_INT",
        "it warns of an unchecked access, and does not use asynchronous page faults",
        "arch/x86/kernel/kvm.c",
    ),
    need(
        0x4b56_4d03,
        0x4b56_4d03,
        W,
        ERRS,
        "if CPUID has KVM_FEATURE_STEAL_TIME",
        "it warns of an unchecked access, and does not account stolen time",
        "arch/x86/kernel/kvm.c",
    ),
    need(
        0x4b56_4d04,
        0x4b56_4d04,
        W,
        ERRS,
        "if CPUID has KVM_FEATURE_PV_EOI",
        "it warns of an unchecked access, and writes to its APIC more often",
        "arch/x86/kernel/kvm.c",
    ),
    need(
        0x4b56_4d06,
        0x4b56_4d07,
        W,
        ERRS,
        "if CPUID has KVM_FEATURE_ASYNC_PF_INT",
        "it warns of an unchecked access, and does not use asynchronous page faults",
        "arch/x86/kernel/kvm.c",
    ),
    need(
        0xc000_0080,
        0xc000_0080,
        RW,
        DIES,
        "when it starts a CPU",
        "it crashes: it needs this before it can handle #GP",
        "arch/x86/kernel/head_64.S, arch/x86/realmode/rm/trampoline_64.S",
    ),
    need(
        0xc000_0081,
        0xc000_0082,
        W,
        DIES,
        "always",
        "it crashes with its first program: SYSCALL has no target",
        "arch/x86/kernel/cpu/common.c",
    ),
    need(
        0xc000_0083,
        0xc000_0083,
        W,
        ERRS,
        "on AMD",
        "it warns of an unchecked access, and SYSCALL of a 32-bit program has no target",
        "arch/x86/kernel/cpu/common.c",
    ),
    need(
        0xc000_0084,
        0xc000_0084,
        W,
        DIES,
        "always",
        "a program's flags stay set in the kernel, including interrupts",
        "arch/x86/kernel/cpu/common.c",
    ),
    need(
        0xc000_0100,
        0xc000_0100,
        RW,
        ERRS,
        "always, and in each switch of tasks if CPUID lacks FSGSBASE",
        "it warns of an unchecked access, and threads share one FS base",
        "arch/x86/kernel/cpu/common.c, arch/x86/kernel/process_64.c",
    ),
    need(
        0xc000_0101,
        0xc000_0101,
        W,
        DIES,
        "when it starts a CPU",
        "it crashes: it needs this before it can handle #GP",
        "arch/x86/kernel/head_64.S",
    ),
    need(
        0xc000_0101,
        0xc000_0101,
        R,
        DIES,
        "in each NMI if CPUID lacks FSGSBASE",
        "it crashes with the first NMI",
        "arch/x86/entry/entry_64.S",
    ),
    need(
        0xc000_0102,
        0xc000_0102,
        RW,
        ERRS,
        "always, and in each switch of tasks if CPUID lacks FSGSBASE",
        "it warns of an unchecked access, and threads share one GS base",
        "arch/x86/kernel/cpu/common.c, arch/x86/kernel/process_64.c",
    ),
    need(
        0xc000_0103,
        0xc000_0103,
        W,
        ERRS,
        "if CPUID has RDTSCP or RDPID",
        "it warns of an unchecked access, and programs assume that every CPU is CPU 0",
        "arch/x86/kernel/cpu/common.c",
    ),
    need(
        0xc001_0010,
        0xc001_0010,
        R,
        ERRS,
        "on AMD, if MTRRcap says that there are fixed MTRRs",
        "it warns of an unchecked access",
        "arch/x86/kernel/cpu/mtrr/generic.c",
    ),
    need(
        0xc001_0015,
        0xc001_0015,
        R,
        ERRS,
        "on AMD, if CPUID has CONSTANT_TSC",
        "it warns of an unchecked access, and wrongly of a firmware bug",
        "arch/x86/kernel/cpu/amd.c",
    ),
    need(
        0xc001_0114,
        0xc001_0114,
        R,
        ERRS,
        "on AMD, if CPUID has SVM",
        "it warns of an unchecked access",
        "arch/x86/kernel/cpu/amd.c",
    ),
];
