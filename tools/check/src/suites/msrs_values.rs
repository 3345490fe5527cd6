// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The values of KVM_GET_MSRS and KVM_SET_MSRS: every listed MSR, and when feature MSRs become
//! immutable.

use anyhow::Result;
use anyhow::ensure;
use kvm_ioctls::VcpuFd;
use kvm_msr_guest::Cpuid;
use kvm_msr_guest::msrs;

use super::Named;
use crate::side::Side;

/// MSRs that advance by themselves, so that two reads differ. They must not go backwards.
const ADVANCING: &[(u32, &str)] = &[
    (0x10, "TSC"),
    (0xe7, "MPERF"),
    (0xe8, "APERF"),
    (0x4000_0010, "Hyper-V VP runtime"),
    (0x4000_0020, "Hyper-V time reference count"),
];

/// Index ranges in which some vendor has MSRs.
const INHABITED: &[(u32, u32)] = &[
    (0, 0x2000),
    (0x4000_0000, 0x200),
    (0x4b56_4d00, 0x10),
    (0x8000_0000, 0x10),
    (0xc000_0000, 0x400),
    (0xc001_0000, 0x400),
    (0xc001_1000, 0x100),
];

/// The tests of this file.
pub const SCENARIOS: &[Named] = &[
    ("index lists", lists),
    ("get, set, get of the index list", round_trip),
    ("special values", awkward_values),
    ("all indices in these ranges", scan),
    ("feature MSRs after the vCPU has run", immutable),
    ("MSRs that advance", advancing),
];

/// Whether an MSR changes without a write.
pub fn changes_by_itself(index: u32) -> bool {
    ADVANCING.iter().any(|&(advancing, _)| advancing == index)
}

fn note_value(side: &mut Side, vcpu: &VcpuFd, index: u32, step: &str) -> Result<Option<u64>> {
    let value = msrs::get(vcpu, index)?;

    if changes_by_itself(index) {
        side.note(format!("{step} {index:#x}"), value.is_some());
    } else {
        side.note(format!("{step} {index:#x}"), format!("{value:x?}"));
    }
    Ok(value)
}

fn lists(side: &mut Side) -> Result<()> {
    let list = side.kvm().get_msr_index_list()?;
    let features = side.kvm().get_msr_feature_index_list()?;

    side.note("index list", format!("{:x?}", list.as_slice()));
    side.note("feature index list", format!("{:x?}", features.as_slice()));
    Ok(())
}

fn round_trip(side: &mut Side) -> Result<()> {
    let list = side.kvm().get_msr_index_list()?;

    for cpuid in [Cpuid::Full, Cpuid::Empty] {
        for irqchip in [false, true] {
            let guest = side.guest_with(|options| {
                options.cpuid = cpuid;
                options.irqchip = irqchip;
            })?;

            side.note("vCPU", format!("CPUID {cpuid:?}, irqchip {irqchip}"));
            for &index in list.as_slice() {
                let Some(value) = note_value(side, guest.vcpu(), index, "get")? else {
                    continue;
                };
                let done = msrs::set(guest.vcpu(), index, value)?;
                side.note(format!("set {index:#x}"), done);
                let again = note_value(side, guest.vcpu(), index, "get")?;
                ensure!(
                    !done || changes_by_itself(index) || again == Some(value),
                    "{index:#x} was {value:#x}, set to the same became {again:x?}"
                );
            }
        }
    }
    Ok(())
}

fn awkward_values(side: &mut Side) -> Result<()> {
    const VALUES: [u64; 9] = [
        0,
        1,
        2,
        0xffff_ffff,
        0x1_0000_0000,
        0x7fff_ffff_ffff,
        0x8000_0000_0000,
        0xffff_8000_0000_0000,
        u64::MAX,
    ];
    let list = side.kvm().get_msr_index_list()?;
    let guest = side.guest()?;

    for &index in list.as_slice() {
        let before = msrs::get(guest.vcpu(), index)?;

        for value in VALUES {
            let done = msrs::set(guest.vcpu(), index, value)?;
            side.note(format!("set {index:#x} to {value:#x}"), done);
            note_value(side, guest.vcpu(), index, "get")?;
        }
        if let Some(before) = before {
            msrs::set(guest.vcpu(), index, before)?;
        }
    }
    Ok(())
}

fn scan(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;
    let mut known = 0;

    for &(base, count) in INHABITED {
        for index in base..base + count {
            if note_value(side, guest.vcpu(), index, "get")?.is_some() {
                known += 1;
            }
        }
    }
    ensure!(known > 50, "KVM knows {known} MSRs only");
    Ok(())
}

fn immutable(side: &mut Side) -> Result<()> {
    // All except this are feature MSRs: it depends on the microcode, and stays writable.
    const DE_CFG: u32 = 0xc001_1029;
    const ARCH_CAPABILITIES: u32 = 0x10a;
    const PERF_CAPABILITIES: u32 = 0x345;
    const PLATFORM_INFO: u32 = 0xce;
    const VMX_BASIC: u32 = 0x480;
    const VMX_LAST: u32 = 0x491;
    const UCODE_REV: u32 = 0x8b;

    let mut guest = side.guest()?;
    let indices: Vec<u32> = [DE_CFG, ARCH_CAPABILITIES, PERF_CAPABILITIES, PLATFORM_INFO]
        .into_iter()
        .chain(VMX_BASIC..=VMX_LAST)
        .chain([UCODE_REV])
        .collect();

    // Before the first run, a feature MSR accepts its own value. Some VMX capability MSRs derive
    // from others, and can't be written.
    let mut accepted = Vec::new();
    for &index in &indices {
        let before = note_value(side, guest.vcpu(), index, "before the run,")?;
        let done = msrs::set(guest.vcpu(), index, before.unwrap_or(0))?;
        side.note(format!("before the run, set {index:#x} to the same"), done);
        if done {
            accepted.push(index);
        }
        let done = msrs::set(guest.vcpu(), index, 0)?;
        side.note(format!("before the run, set {index:#x} to 0"), done);
        if let Some(before) = before {
            msrs::set(guest.vcpu(), index, before)?;
        }
    }

    guest.rdmsr(0x277)?;
    let mut immutable = 0;
    for &index in &indices {
        let before = note_value(side, guest.vcpu(), index, "after the run,")?;
        let Some(value) = before else {
            for value in [0, 1] {
                let done = msrs::set(guest.vcpu(), index, value)?;
                side.note(format!("after the run, set {index:#x} to {value}"), done);
            }
            continue;
        };
        let same = msrs::set(guest.vcpu(), index, value)?;
        side.note(format!("after the run, set {index:#x} to the same"), same);
        for other in [value ^ 1, value ^ 1 << 31, !value, 0] {
            if other == value {
                continue;
            }
            let done = msrs::set(guest.vcpu(), index, other)?;
            side.note(format!("after the run, set {index:#x} to {other:#x}"), done);
            note_value(side, guest.vcpu(), index, "after the run,")?;
            ensure!(
                index == UCODE_REV || !done,
                "{index:#x} changed from {value:#x} to {other:#x} after the vCPU had run"
            );
        }
        if index != UCODE_REV {
            ensure!(
                same || !accepted.contains(&index),
                "{index:#x} refuses the value it has"
            );
            immutable += 1;
        }
    }
    ensure!(immutable > 0, "there is no feature MSR to try");
    Ok(())
}

fn advancing(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;

    for &(index, name) in ADVANCING {
        let first = msrs::get(guest.vcpu(), index)?;
        let second = msrs::get(guest.vcpu(), index)?;

        side.note(format!("{name} is there"), first.is_some());
        ensure!(
            second >= first,
            "{name} ran backwards, from {first:x?} to {second:x?}"
        );
    }
    Ok(())
}
