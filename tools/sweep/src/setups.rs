// SPDX-License-Identifier: Apache-2.0 OR MIT

//! MSRs of VMs and vCPUs with settings that their MSRs depend on: machine check banks, enforced
//! paravirtual features, KVM's quirks, Xen's hypercall page, read-only memory, a second vCPU.

use std::ops::Range;

use anyhow::Context;
use anyhow::Result;
use kvm_bindings::KVM_CAP_DISABLE_QUIRKS2;
use kvm_bindings::KVM_CAP_ENFORCE_PV_FEATURE_CPUID;
use kvm_bindings::KVM_CAP_MSR_PLATFORM_INFO;
use kvm_bindings::KVM_GUESTDBG_ENABLE;
use kvm_bindings::KVM_GUESTDBG_SINGLESTEP;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_bindings::KVM_MEM_READONLY;
use kvm_bindings::kvm_guest_debug;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_bindings::kvm_xen_hvm_config;
use kvm_msr_guest::Cpuid;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Mapping;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::memory::PAGE;
use kvm_msr_guest::msrs;

use crate::cases::Pair;
use crate::cases::Sweep;

const QUIRK_MISC_ENABLE_NO_MWAIT: u64 = 1 << 4;
const MISC_ENABLE_MWAIT: u64 = 1 << 18;
/// The leaf of KVM's paravirtual features, and the leaf of XSAVES.
const PV_FEATURES: u32 = 0x4000_0001;
const XSAVE: u32 = 0xd;
/// KVM_FEATURE_ASYNC_PF, KVM_FEATURE_ASYNC_PF_VMEXIT, KVM_FEATURE_ASYNC_PF_INT.
const ASYNC_PF: u32 = 1 << 4;
const ASYNC_PF_VMEXIT: u32 = 1 << 10;
const ASYNC_PF_INT: u32 = 1 << 14;
const HWCR: u32 = 0xc001_0015;
const MC_STATUS_WRITE_ENABLE: u64 = 1 << 18;
const APIC_BASE: u32 = 0x1b;
/// At its usual address, enabled, on the first vCPU, in x2APIC mode.
const X2APIC: u64 = 0xfee0_0d00;
const EFER: u32 = 0xc000_0080;
const XEN_MSR: u32 = 0x4000_0200;
/// A page that no other memory slot has, and where no memory is.
const READ_ONLY: u64 = 0x1000_0000;
const NOWHERE: u64 = 0x2000_0000;

/// A setting, and the accesses that depend on it.
struct Setup {
    name: &'static str,
    cpuid: Cpuid,
    irqchip: bool,
    /// Sets a guest up before its vCPU has run.
    set: fn(&Guest) -> Result<()>,
    indices: &'static [Range<u32>],
    values: &'static [u64],
}

const MACHINE_CHECKS: &[Range<u32>] = &[
    0x179..0x17c,
    0x280..0x284,
    0x29f..0x2a0,
    0x400..0x40c,
    0x47c..0x480,
];
const MACHINE_CHECK_VALUES: &[u64] = &[0, 1, u64::MAX, !0x400, !0x401, !1, 1 << 30, 0x7fff, 0x8000];
/// SCE, LME, NXE, SVME, FFXSR, AIBRSE.
const EFER_VALUES: &[u64] = &[1, 1 << 8, 1 << 11, 1 << 12, 1 << 14, 1 << 21, 0];
const SHADOW_STACKS: &[Range<u32>] = &[0x6a0..0x6a1, 0x6a2..0x6a3, 0x6a4..0x6a9];
const SHADOW_STACK_VALUES: &[u64] = &[0, 1, 4, 0x1000, 1 << 63, u64::MAX];
const TSC_AUX: &[Range<u32>] = &[0x10..0x11, 0xc000_0103..0xc000_0104];
/// IA32_SPEC_CTRL, IA32_PRED_CMD, IA32_FLUSH_CMD.
const SPECULATION: &[Range<u32>] = &[0x48..0x4a, 0x10b..0x10c];
const SPECULATION_VALUES: &[u64] = &[0, 1, 2, 0x80, 0x81, 4];
const PARAVIRTUAL: &[Range<u32>] = &[0x11..0x13, 0x4b56_4d00..0x4b56_4d0a];
const PARAVIRTUAL_VALUES: &[u64] = &[
    0,
    1,
    // The address of a page with the bits: enabled, as #PF VM-exit, as an interrupt.
    0x2001,
    0x2005,
    0x2009,
    0x200d,
    0x2010,
    READ_ONLY | 1,
    READ_ONLY | 9,
    NOWHERE | 9,
    u64::MAX,
];

const SETUPS: &[Setup] = &[
    Setup {
        name: "2 machine check banks",
        cpuid: Cpuid::Full,
        irqchip: false,
        set: |guest| banks(guest, 2),
        indices: MACHINE_CHECKS,
        values: MACHINE_CHECK_VALUES,
    },
    Setup {
        name: "3 machine check banks, MCG_CTL",
        cpuid: Cpuid::OtherVendor,
        irqchip: false,
        set: |guest| banks(guest, 3 | 1 << 8),
        indices: MACHINE_CHECKS,
        values: MACHINE_CHECK_VALUES,
    },
    Setup {
        name: "32 machine check banks, MCG_CTL, CMCI",
        cpuid: Cpuid::Full,
        irqchip: true,
        set: |guest| banks(guest, 32 | 1 << 8 | 1 << 10),
        indices: MACHINE_CHECKS,
        values: MACHINE_CHECK_VALUES,
    },
    Setup {
        name: "HWCR[McStatusWrEn]",
        cpuid: Cpuid::Full,
        irqchip: false,
        set: |guest| {
            msrs::set(guest.vcpu(), HWCR, MC_STATUS_WRITE_ENABLE)?;
            Ok(())
        },
        indices: &[0x400..0x404, 0x414..0x418],
        values: MACHINE_CHECK_VALUES,
    },
    Setup {
        name: "no features of EFER",
        cpuid: Cpuid::Empty,
        irqchip: false,
        set: |_| Ok(()),
        indices: &[EFER..EFER + 1, 0xc000_0103..0xc000_0104],
        values: EFER_VALUES,
    },
    Setup {
        name: "paging",
        cpuid: Cpuid::Full,
        irqchip: false,
        set: Guest::enable_paging,
        indices: &[EFER..EFER + 1, 0x277..0x278],
        values: EFER_VALUES,
    },
    Setup {
        name: "RDPID without RDTSCP",
        cpuid: Cpuid::Full,
        irqchip: false,
        set: |guest| {
            change_cpuid(guest, |entry| match (entry.function, entry.index) {
                (7, 0) => entry.ecx |= 1 << 22,
                (0x8000_0001, _) => entry.edx &= !(1 << 27),
                _ => {}
            })
        },
        indices: TSC_AUX,
        values: &[0, 1, 1 << 32, u64::MAX],
    },
    Setup {
        name: "indirect branch tracking without shadow stacks",
        cpuid: Cpuid::Full,
        irqchip: false,
        set: |guest| {
            change_cpuid(guest, |entry| {
                if (entry.function, entry.index) == (7, 0) {
                    entry.ecx &= !(1 << 7);
                }
            })
        },
        indices: SHADOW_STACKS,
        values: SHADOW_STACK_VALUES,
    },
    Setup {
        name: "shadow stacks without long mode",
        cpuid: Cpuid::Full,
        irqchip: false,
        set: |guest| {
            change_cpuid(guest, |entry| {
                if entry.function == 0x8000_0001 {
                    entry.edx &= !(1 << 29);
                }
            })
        },
        indices: SHADOW_STACKS,
        values: SHADOW_STACK_VALUES,
    },
    Setup {
        name: "AMD's IBPB without SPEC_CTRL",
        cpuid: Cpuid::Full,
        irqchip: false,
        set: |guest| speculation(guest, false),
        indices: SPECULATION,
        values: SPECULATION_VALUES,
    },
    Setup {
        name: "SBPB without IBPB, and CPUID for user space",
        cpuid: Cpuid::Full,
        irqchip: false,
        set: |guest| speculation(guest, true),
        indices: &[0x48..0x4a, HWCR..HWCR + 1, EFER..EFER + 1],
        values: &[0, 1, 0x80, 0x81, 1 << 21, 1 << 35],
    },
    Setup {
        name: "x2APIC",
        cpuid: Cpuid::Full,
        irqchip: true,
        set: |guest| {
            msrs::set(guest.vcpu(), APIC_BASE, X2APIC)?;
            Ok(())
        },
        // IA32_TSC_DEADLINE; the interrupt command: to nobody, to itself, of a reserved kind.
        indices: &[0x6e0..0x6e1, 0x830..0x831],
        values: &[0, 0x77 << 32 | 0x31, 0x4_0031, 0x331, 1 << 20, u64::MAX],
    },
    Setup {
        name: "single steps",
        cpuid: Cpuid::Full,
        irqchip: true,
        set: |guest| {
            let debug = kvm_guest_debug {
                control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP,
                ..Default::default()
            };
            guest
                .vcpu()
                .set_guest_debug(&debug)
                .context("KVM_SET_GUEST_DEBUG")
        },
        indices: &[0x6e0..0x6e1, 0x277..0x278],
        values: &[0, 1],
    },
    Setup {
        name: "no irqchip",
        cpuid: Cpuid::Full,
        irqchip: false,
        set: |_| Ok(()),
        indices: &[0x6e0..0x6e1, 0x830..0x831],
        values: &[0, 0x77 << 32 | 0x31, 0x4_0031],
    },
    Setup {
        name: "no paravirtual features",
        cpuid: Cpuid::Full,
        irqchip: true,
        set: |guest| paravirtual(guest, 0),
        indices: PARAVIRTUAL,
        values: PARAVIRTUAL_VALUES,
    },
    Setup {
        name: "asynchronous page faults only",
        cpuid: Cpuid::Full,
        irqchip: true,
        set: |guest| paravirtual(guest, ASYNC_PF),
        indices: PARAVIRTUAL,
        values: PARAVIRTUAL_VALUES,
    },
    Setup {
        name: "all of asynchronous page faults",
        cpuid: Cpuid::Full,
        irqchip: true,
        set: |guest| paravirtual(guest, ASYNC_PF | ASYNC_PF_VMEXIT | ASYNC_PF_INT),
        indices: PARAVIRTUAL,
        values: PARAVIRTUAL_VALUES,
    },
    Setup {
        name: "no irqchip, all paravirtual features",
        cpuid: Cpuid::Full,
        irqchip: false,
        set: |guest| paravirtual(guest, u32::MAX),
        indices: PARAVIRTUAL,
        values: PARAVIRTUAL_VALUES,
    },
    Setup {
        name: "MWAIT by MISC_ENABLE",
        cpuid: Cpuid::Full,
        irqchip: false,
        set: mwait,
        indices: &[0x1a0..0x1a1, 0x140..0x141],
        values: &[0, MISC_ENABLE_MWAIT, MISC_ENABLE_MWAIT | 1, u64::MAX, 1],
    },
    Setup {
        name: "MWAIT by MISC_ENABLE without SSE3",
        cpuid: Cpuid::Empty,
        irqchip: false,
        set: mwait,
        indices: &[0x1a0..0x1a1, 0x140..0x141],
        values: &[0, MISC_ENABLE_MWAIT, MISC_ENABLE_MWAIT | 1, u64::MAX, 1],
    },
    Setup {
        name: "PLATFORM_INFO is hidden",
        cpuid: Cpuid::Full,
        irqchip: false,
        set: |guest| {
            ioctl::enable_cap(guest.vm(), KVM_CAP_MSR_PLATFORM_INFO, 0, 0)
                .map(|_| ())
                .context("KVM_CAP_MSR_PLATFORM_INFO")
        },
        indices: &[0xce..0xcf, 0x140..0x141],
        values: &[0, 1, 1 << 31],
    },
    Setup {
        name: "Xen's hypercall page",
        cpuid: Cpuid::Full,
        irqchip: false,
        set: xen,
        indices: &[XEN_MSR..XEN_MSR + 1, XEN_MSR + 1..XEN_MSR + 2],
        values: &[0, 1, 0x3000, NOWHERE, u64::MAX],
    },
    Setup {
        name: "XSAVES",
        cpuid: Cpuid::Full,
        irqchip: false,
        set: xsaves,
        indices: &[0xda0..0xda1, 0x6a0..0x6a9],
        values: &[0, 1, 1 << 8, 1 << 11, 3 << 11, 0],
    },
];

/// Compares the MSRs under each of the settings.
pub fn sweep(sweep: &mut Sweep<'_>) -> Result<()> {
    for setup in SETUPS {
        sweep.set_context(format!("{}, ", setup.name));
        for ran in [false, true] {
            let mut pair = sweep.pair(setup.cpuid, setup.irqchip, false)?;

            pair.both(|guest| {
                read_only_page(guest)?;
                (setup.set)(guest)
            })
            .into_iter()
            .collect::<Result<()>>()
            .context(setup.name)?;
            if ran {
                // Single-stepping, it exits after the first instruction, with an outcome of its own.
                pair.run()?;
            }
            for index in setup.indices.iter().cloned().flatten() {
                sweep.host(&mut pair, index, setup.values)?;
                if ran {
                    sweep.guest(&mut pair, index, setup.values)?;
                }
            }
        }
    }
    second_vcpu(sweep)?;
    println!(
        "settings: {} cases, {} differences",
        sweep.cases, sweep.differences
    );
    Ok(())
}

/// The clocks of a second vCPU: the first one decides about the VM's.
fn second_vcpu(sweep: &mut Sweep<'_>) -> Result<()> {
    let pair = sweep.pair(Cpuid::Full, false, true)?;
    let kvm = sweep.kvm();
    let mut second = Pair(
        pair.0
            .each_ref()
            .map(|guest| guest.another_vcpu(kvm, 1))
            .into_iter()
            .collect::<Result<Vec<Guest>>>()?
            .try_into()
            .ok()
            .context("two guests")?,
    );

    sweep.set_context("second vCPU, ".to_owned());
    for index in PARAVIRTUAL.iter().cloned().flatten() {
        sweep.host(&mut second, index, PARAVIRTUAL_VALUES)?;
        sweep.guest(&mut second, index, PARAVIRTUAL_VALUES)?;
    }
    Ok(())
}

fn banks(guest: &Guest, mcg_cap: u64) -> Result<()> {
    match ioctl::setup_mce(guest.vcpu(), mcg_cap) {
        // This KVM does not offer the capabilities.
        Ok(_) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno).context("KVM_X86_SETUP_MCE"),
    }
}

/// Offers only these paravirtual features, and enforces that.
fn paravirtual(guest: &Guest, features: u32) -> Result<()> {
    ioctl::enable_cap(guest.vcpu(), KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 0, 1)
        .context("KVM_CAP_ENFORCE_PV_FEATURE_CPUID")?;
    change_cpuid(guest, |entry| {
        if entry.function == PV_FEATURES {
            entry.eax &= features;
        }
    })
}

fn mwait(guest: &Guest) -> Result<()> {
    ioctl::enable_cap(
        guest.vm(),
        KVM_CAP_DISABLE_QUIRKS2,
        0,
        QUIRK_MISC_ENABLE_NO_MWAIT,
    )
    .map(|_| ())
    .context("KVM_CAP_DISABLE_QUIRKS2")
}

fn xen(guest: &Guest) -> Result<()> {
    let config = kvm_xen_hvm_config {
        // The hypercall page is KVM's.
        flags: kvm_bindings::KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
        msr: XEN_MSR,
        ..Default::default()
    };

    ioctl::xen_hvm_config(guest.vm(), &config)
        .map(|_| ())
        .context("KVM_XEN_HVM_CONFIG")
}

/// XSAVES and all supervisor states in CPUID, whether or not KVM offers them.
fn xsaves(guest: &Guest) -> Result<()> {
    change_cpuid(guest, |entry| {
        if (entry.function, entry.index) == (XSAVE, 1) {
            entry.eax |= 1 << 3;
            entry.ecx = u32::MAX;
        }
    })
}

/// Without IA32_SPEC_CTRL; with `barriers`, without AMD's IBPB, too, and with features of a leaf that
/// the CPU may not have: Automatic IBRS, CPUID faulting, and SBPB.
fn speculation(guest: &Guest, barriers: bool) -> Result<()> {
    const MORE_FEATURES: u32 = 0x8000_0021;
    let mut cpuid = guest
        .vcpu()
        .get_cpuid2(KVM_MAX_CPUID_ENTRIES)
        .context("KVM_GET_CPUID2")?;

    for entry in cpuid.as_mut_slice() {
        match (entry.function, entry.index) {
            (7, 0) => entry.edx &= !(1 << 26),
            (0x8000_0008, _) if barriers => entry.ebx &= !(1 << 12),
            _ => {}
        }
    }
    if barriers {
        cpuid.retain(|entry| entry.function != MORE_FEATURES);
        cpuid.push(kvm_bindings::kvm_cpuid_entry2 {
            function: MORE_FEATURES,
            eax: 1 << 8 | 1 << 17 | 1 << 27,
            ..Default::default()
        })?;
    }
    guest.vcpu().set_cpuid2(&cpuid).context("KVM_SET_CPUID2")
}

fn change_cpuid(
    guest: &Guest,
    mut change: impl FnMut(&mut kvm_bindings::kvm_cpuid_entry2),
) -> Result<()> {
    let mut cpuid = guest
        .vcpu()
        .get_cpuid2(KVM_MAX_CPUID_ENTRIES)
        .context("KVM_GET_CPUID2")?;

    cpuid.as_mut_slice().iter_mut().for_each(&mut change);
    guest.vcpu().set_cpuid2(&cpuid).context("KVM_SET_CPUID2")
}

/// Adds a page that the guest can't write, and in which the device can't either.
fn read_only_page(guest: &Guest) -> Result<()> {
    // It stays mapped as long as the process runs: the VM may be closed later than this returns.
    let page = Box::leak(Box::new(Mapping::new(PAGE)?));
    let region = kvm_userspace_memory_region {
        slot: 7,
        flags: KVM_MEM_READONLY,
        guest_phys_addr: READ_ONLY,
        memory_size: PAGE as u64,
        userspace_addr: page.at(0).address(),
    };

    // SAFETY: The memory is never unmapped, and no Rust code has a reference into it.
    unsafe { guest.vm().set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")
}
