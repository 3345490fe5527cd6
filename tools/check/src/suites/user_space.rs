// SPDX-License-Identifier: Apache-2.0 OR MIT

//! KVM_CAP_X86_USER_SPACE_MSR in api.rst: which accesses exit to user space, and the fields of the
//! exits.

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_bindings::KVM_CAP_X86_USER_SPACE_MSR;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_bindings::KVM_MSR_EXIT_REASON_INVAL;
use kvm_bindings::KVM_MSR_EXIT_REASON_UNKNOWN;
use kvm_bindings::KVM_MSR_EXIT_REASON_VALID_MASK;
use kvm_msr_guest::Access;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::MsrExit;
use kvm_msr_guest::Range;
use kvm_msr_guest::code::Stub;
use kvm_msr_guest::filter::READ;
use kvm_msr_guest::filter::WRITE;
use kvm_msr_guest::ioctl;

use super::Named;
use super::filter_guest::NOBODY;
use crate::side::Side;

/// IA32_CR_PAT. It refuses reserved memory types.
pub const PAT: u32 = 0x277;

/// A value that PAT refuses.
const BAD_PAT: u64 = 0x0202_0202_0202_0202;

/// EFER. It refuses reserved bits.
const EFER: u32 = 0xc000_0080;

/// An MSR that only the host can read: a guest's IA32_SMBASE can be read in SMM only.
const SMBASE: u32 = 0x9e;

/// Denied by [`deflecting_guest`]'s filter.
pub const DENIED: u32 = NOBODY + 0x100;

/// The tests of this file.
pub const SCENARIOS: &[Named] = &[
    ("enabling the capability", enable),
    ("reason of each exit", reasons),
    ("fields of the exit", fields),
];

/// The four kinds of access: RDMSR or WRMSR, executed or emulated.
pub const WAYS: [(Access, bool); 4] = [
    (Access::Read, false),
    (Access::Write, false),
    (Access::Read, true),
    (Access::Write, true),
];

fn way(access: Access, emulated: bool) -> String {
    format!("{}{access}", if emulated { "emulated " } else { "" })
}

/// A guest whose filter denies [`DENIED`], and whose accesses exit to user space for some reasons.
pub fn deflecting_guest(side: &Side, reasons: u32) -> Result<Guest> {
    let guest = side.guest()?;

    guest.deflect(reasons)?;
    Filter::allow_by_default()
        .with(Range::deny(READ | WRITE, DENIED, 1))
        .set(guest.vm())?;
    Ok(guest)
}

/// Makes an access that has to exit to user space.
pub fn exit(
    side: &mut Side,
    guest: &mut Guest,
    (access, emulated): (Access, bool),
    index: u32,
    value: u64,
) -> Result<MsrExit> {
    let outcome = guest.access(access, emulated, index, value)?;
    let step = format!("{} {index:#x}", way(access, emulated));

    side.note(&step, outcome);
    outcome
        .user_space()
        .copied()
        .with_context(|| format!("{step}: {outcome} instead of an exit to user space"))
}

/// Notes the general-purpose registers and the guest's progress.
pub fn registers(side: &mut Side, guest: &Guest) -> Result<i64> {
    let regs = guest.regs()?;
    let progress = guest.progress()?;

    side.note(
        "registers",
        format!(
            "RAX {:#x} RDX {:#x} RCX {:#x} RFLAGS {:#x} RIP +{progress}",
            regs.rax, regs.rdx, regs.rcx, regs.rflags
        ),
    );
    Ok(progress)
}

fn enable(side: &mut Side) -> Result<()> {
    const CAP: u32 = KVM_CAP_X86_USER_SPACE_MSR;
    let guest = side.guest()?;
    let einval = Err(Errno::EINVAL);

    for bit in 0..64 {
        let mask = 1u64 << bit;
        let valid = mask & u64::from(KVM_MSR_EXIT_REASON_VALID_MASK) != 0;
        let result = ioctl::enable_cap(guest.vm(), CAP, 0, mask);
        let expected = if valid { Ok(0) } else { einval };
        side.ioctl(format!("enable {mask:#x}"), result, expected)?;
    }
    for mask in [0, 1, 2, 3, 4, 5, 6, 7] {
        let result = ioctl::enable_cap(guest.vm(), CAP, 0, mask);
        side.ioctl(format!("enable {mask:#x}"), result, Ok(0))?;
    }
    for mask in [8, 15, u64::from(u32::MAX), u64::MAX, 1 << 32 | 1] {
        let result = ioctl::enable_cap(guest.vm(), CAP, 0, mask);
        side.ioctl(format!("enable {mask:#x}"), result, einval)?;
    }
    for flags in [1, 2, u32::MAX] {
        let result = ioctl::enable_cap(guest.vm(), CAP, flags, 1);
        side.ioctl(format!("enable 1 with flags {flags:#x}"), result, einval)?;
    }
    for cap in [
        KVM_CAP_X86_USER_SPACE_MSR,
        kvm_bindings::KVM_CAP_X86_MSR_FILTER,
    ] {
        let value = guest.vm().check_extension_raw(cap.into());
        side.note(format!("check extension {cap}"), value);
    }

    // If a mask is refused, the previous one stays in force.
    let mut guest = side.guest()?;
    guest.deflect(KVM_MSR_EXIT_REASON_UNKNOWN)?;
    let result = ioctl::enable_cap(guest.vm(), CAP, 0, 8);
    side.ioctl("enable 8", result, einval)?;
    exit(side, &mut guest, WAYS[0], NOBODY, 0)?;
    guest.answer(1, 0);
    guest.deflect(0)?;
    let outcome = guest.rdmsr(NOBODY)?;
    side.note("RDMSR, disabled", outcome);
    ensure!(outcome.is_gp(), "{outcome} instead of #GP");
    Ok(())
}

fn reasons(side: &mut Side) -> Result<()> {
    for mask in 0..=KVM_MSR_EXIT_REASON_VALID_MASK {
        let mut guest = deflecting_guest(side, mask)?;

        side.note("reasons enabled", mask);
        for (access, emulated) in WAYS {
            let refused = match access {
                Access::Read => SMBASE,
                Access::Write => PAT,
            };
            for (index, value, reason) in [
                (refused, BAD_PAT, KVM_MSR_EXIT_REASON_INVAL),
                (NOBODY, 1, KVM_MSR_EXIT_REASON_UNKNOWN),
                (DENIED, 1, KVM_MSR_EXIT_REASON_FILTER),
            ] {
                let outcome = guest.access(access, emulated, index, value)?;
                let step = format!("{} {index:#x}", way(access, emulated));

                side.note(&step, outcome);
                if mask & reason != 0 {
                    let observed = outcome.user_space().map(|exit| exit.reason);
                    ensure!(
                        observed == Some(reason),
                        "{step} with reasons {mask}: {outcome} instead of an exit with {reason}"
                    );
                } else {
                    ensure!(
                        outcome.is_gp(),
                        "{step} with reasons {mask}: {outcome} instead of #GP"
                    );
                    registers(side, &guest)?;
                }
            }
        }
        // An allowed access never exits.
        for (access, emulated) in WAYS {
            let outcome = guest.access(access, emulated, PAT, 0)?;
            side.note(format!("{} of PAT", way(access, emulated)), outcome);
            ensure!(outcome.user_space().is_none(), "legal, but {outcome}");
        }
    }
    Ok(())
}

fn fields(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side, KVM_MSR_EXIT_REASON_VALID_MASK)?;
    const VALUE: u64 = 0xfedc_ba98_7654_3210;

    for (index, value) in [
        (NOBODY, VALUE),
        (DENIED, VALUE),
        (u32::MAX, u64::MAX),
        (EFER, u64::MAX),
        (0xc001_1fff, 0),
    ] {
        for (access, emulated) in WAYS {
            if (access, index) == (Access::Read, EFER) {
                continue;
            }
            guest.start(Stub::Nop, 0, 0, 0)?;
            guest.fill_msr(0xa5);
            let seen = exit(side, &mut guest, (access, emulated), index, value)?;
            let data = if access == Access::Read { 0 } else { value };

            ensure!(
                seen == MsrExit {
                    access,
                    reason: seen.reason,
                    index,
                    data,
                    error: 0,
                    pad: [0; 7],
                },
                "{seen} for {} {index:#x} of {value:#x}",
                way(access, emulated)
            );
            // RIP stays at the access until user space has answered.
            let progress = registers(side, &guest)?;
            ensure!(
                progress == 0 || emulated && progress == 5,
                "RIP is at +{progress} before the exit is completed"
            );
            guest.answer(0, 0);
        }
    }
    Ok(())
}
