// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The effect of a filter on the guest, see KVM_X86_SET_MSR_FILTER in api.rst.

use anyhow::Result;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_bindings::KVM_MSR_EXIT_REASON_UNKNOWN;
use kvm_msr_guest::Abi;
use kvm_msr_guest::Access;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::Range;
use kvm_msr_guest::filter::MAX_MSRS;
use kvm_msr_guest::filter::MAX_RANGES;
use kvm_msr_guest::filter::READ;
use kvm_msr_guest::filter::WRITE;

use super::Named;
use crate::side::Side;

/// From here on, MSRs are unknown. An allowed access exits with reason UNKNOWN, a denied one with
/// reason FILTER.
pub const NOBODY: u32 = 0x5000_0000;

/// The tests of this file.
pub const SCENARIOS: &[Named] = &[
    ("16 full-size ranges", full_size),
    ("wrap-around", wrap_around),
    ("x2APIC MSRs are exempt", x2apic),
    ("first matching range wins", first_match),
    ("read-only, write-only, both", kinds),
    ("default allow and deny", defaults),
    ("passed-through MSRs", passed_through),
    ("the emulator checks the filter, too", emulator),
    ("denied without exits is #GP", denied_gp),
    ("filter before the vCPU", before_vcpu),
];

/// A guest whose denied and unknown accesses all exit to user space.
pub fn deflecting_guest(side: &Side) -> Result<Guest> {
    let guest = side.guest()?;

    guest.deflect(KVM_MSR_EXIT_REASON_FILTER | KVM_MSR_EXIT_REASON_UNKNOWN)?;
    Ok(guest)
}

/// Notes whether the filter allows an access, which has to be `allowed`.
fn judge(
    side: &mut Side,
    guest: &mut Guest,
    access: Access,
    index: u32,
    allowed: bool,
) -> Result<()> {
    let outcome = guest.access(access, false, index, 0x1234)?;
    let denied = outcome
        .user_space()
        .is_some_and(|exit| exit.reason == KVM_MSR_EXIT_REASON_FILTER);

    side.note(format!("{access} {index:#x}"), outcome);
    side.expect(format!("{access} {index:#x} allowed"), !denied, allowed)
}

/// [`judge`] for RDMSR and WRMSR.
pub fn judge_both(side: &mut Side, guest: &mut Guest, index: u32, allowed: bool) -> Result<()> {
    judge(side, guest, Access::Read, index, allowed)?;
    judge(side, guest, Access::Write, index, allowed)
}

fn full_size(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side)?;
    let mut filter = Filter::deny_by_default();

    // The ranges are adjacent, with one exception in each.
    for i in 0..MAX_RANGES as u32 {
        let range = Range::allow(READ | WRITE, NOBODY + i * MAX_MSRS, MAX_MSRS);
        filter = filter.with(range.with_flipped(i * 100));
    }
    for abi in Abi::ALL {
        filter.set_with(abi, guest.vm())?;
        for i in 0..MAX_RANGES as u32 {
            let base = NOBODY + i * MAX_MSRS;

            judge_both(side, &mut guest, base + i * 100, false)?;
            judge_both(side, &mut guest, base + i * 100 + 1, true)?;
            judge_both(side, &mut guest, base + MAX_MSRS - 1, true)?;
        }
        judge_both(side, &mut guest, NOBODY - 1, false)?;
        judge_both(side, &mut guest, NOBODY + 16 * MAX_MSRS, false)?;
    }
    Ok(())
}

fn wrap_around(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side)?;
    let probes = [
        0xffff_ff00,
        0xffff_ffef,
        0xffff_fff0,
        0xffff_fff7,
        0xffff_fffe,
        0xffff_ffff,
        0,
        0x7,
        0x17,
    ];

    // KVM computes the end in 32 bits: a range that reaches 2^32 matches nothing.
    for (base, nmsrs) in [
        (0xffff_fff0, 0xf),
        (0xffff_fff0, 0x10),
        (0xffff_fff0, 0x11),
        (0xffff_fff0, 0x40),
        (0xffff_ffff, 1),
        (0xffff_ffff, 0x100),
        (0xffff_d000, MAX_MSRS),
        (0xffff_cfff, MAX_MSRS),
    ] {
        let filter = Filter::allow_by_default().with(Range::deny(READ | WRITE, base, nmsrs));

        filter.set(guest.vm())?;
        side.note("range", format!("{base:#x} + {nmsrs:#x}"));
        for index in probes {
            let outcome = guest.rdmsr(index)?;
            let denied = outcome
                .user_space()
                .is_some_and(|exit| exit.reason == KVM_MSR_EXIT_REASON_FILTER);

            side.note(format!("RDMSR {index:#x}"), outcome);
            side.expect("allowed", !denied, filter.allows(Access::Read, index))?;
        }
    }
    Ok(())
}

fn x2apic(side: &mut Side) -> Result<()> {
    for irqchip in [false, true] {
        let mut guest = side.guest_with(|options| options.irqchip = irqchip)?;

        guest.deflect(KVM_MSR_EXIT_REASON_FILTER | KVM_MSR_EXIT_REASON_UNKNOWN)?;
        Filter::deny_by_default()
            .with(Range::deny(READ | WRITE, 0x700, 0x300))
            .set(guest.vm())?;
        for (index, allowed) in [
            (0x7ff, false),
            (0x800, true),
            (0x802, true),
            (0x808, true),
            (0x8ff, true),
            (0x900, false),
        ] {
            judge(side, &mut guest, Access::Read, index, allowed)?;
        }
        judge(side, &mut guest, Access::Write, 0x8ff, true)?;
        judge(side, &mut guest, Access::Write, 0x900, false)?;
    }
    Ok(())
}

fn first_match(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side)?;

    // The first range denies the middle, the second allows all, the third denies all.
    Filter::deny_by_default()
        .with(Range::deny(READ | WRITE, NOBODY + 16, 16))
        .with(Range::allow(READ | WRITE, NOBODY, 64))
        .with(Range::deny(READ | WRITE, NOBODY, 128).with_flipped(100))
        .set(guest.vm())?;
    for (offset, allowed) in [
        (0, true),
        (15, true),
        (16, false),
        (31, false),
        (32, true),
        (63, true),
        (64, false),
        (100, true),
        (127, false),
        (128, false),
    ] {
        judge_both(side, &mut guest, NOBODY + offset, allowed)?;
    }
    // Of identical ranges, the first decides.
    Filter::allow_by_default()
        .with(Range::allow(READ | WRITE, NOBODY, 8).with_flipped(3))
        .with(Range::deny(READ | WRITE, NOBODY, 8).with_flipped(3))
        .set(guest.vm())?;
    judge_both(side, &mut guest, NOBODY + 3, false)?;
    judge_both(side, &mut guest, NOBODY + 4, true)
}

fn kinds(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side)?;

    // A range for the other kind of access does not match.
    Filter::allow_by_default()
        .with(Range::deny(READ, NOBODY, 8))
        .with(Range::deny(WRITE, NOBODY + 8, 8))
        .with(Range::deny(READ | WRITE, NOBODY + 16, 8))
        .with(Range::allow(READ, NOBODY + 24, 8))
        .with(Range::deny(READ | WRITE, NOBODY + 24, 8))
        .set(guest.vm())?;
    for (offset, read, write) in [
        (0, false, true),
        (7, false, true),
        (8, true, false),
        (15, true, false),
        (16, false, false),
        (23, false, false),
        (24, true, false),
        (31, true, false),
        (32, true, true),
    ] {
        judge(side, &mut guest, Access::Read, NOBODY + offset, read)?;
        judge(side, &mut guest, Access::Write, NOBODY + offset, write)?;
    }
    Ok(())
}

fn defaults(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side)?;

    for (filter, outside) in [
        (Filter::allow_by_default(), true),
        (Filter::deny_by_default(), false),
    ] {
        filter
            .with(Range::allow(READ | WRITE, NOBODY, 8).with_flipped(1))
            .set(guest.vm())?;
        judge_both(side, &mut guest, NOBODY, true)?;
        judge_both(side, &mut guest, NOBODY + 1, false)?;
        judge_both(side, &mut guest, NOBODY - 1, outside)?;
        judge_both(side, &mut guest, NOBODY + 8, outside)?;
        judge_both(side, &mut guest, 0, outside)?;
        judge_both(side, &mut guest, u32::MAX, outside)?;
    }
    Ok(())
}

fn passed_through(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side)?;
    // STAR, FS base, SYSENTER CS: both vendors intercept them only if a filter denies them.
    let indices = [0xc000_0081, 0xc000_0100, 0x174];

    for round in 0..2 {
        for index in indices {
            judge_both(side, &mut guest, index, true)?;
        }
        for index in indices {
            let deny = Range::deny(READ | WRITE, index, 1);

            Filter::allow_by_default().with(deny).set(guest.vm())?;
            side.note("round", round);
            judge_both(side, &mut guest, index, false)?;
            judge_both(side, &mut guest, index + 0x100, true)?;
        }
        Filter::allow_by_default().set(guest.vm())?;
    }
    Ok(())
}

fn emulator(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side)?;

    Filter::allow_by_default()
        .with(Range::deny(READ, NOBODY, 1))
        .with(Range::deny(WRITE, NOBODY + 1, 1))
        .set(guest.vm())?;
    for (access, index, reason) in [
        (Access::Read, NOBODY, KVM_MSR_EXIT_REASON_FILTER),
        (Access::Write, NOBODY, KVM_MSR_EXIT_REASON_UNKNOWN),
        (Access::Read, NOBODY + 1, KVM_MSR_EXIT_REASON_UNKNOWN),
        (Access::Write, NOBODY + 1, KVM_MSR_EXIT_REASON_FILTER),
    ] {
        let outcome = guest.access(access, true, index, 5)?;
        let step = format!("emulated {access} {index:#x}");
        let observed = outcome.user_space().map_or(0, |exit| exit.reason);

        side.note(&step, outcome);
        side.expect(format!("{step}, reason"), observed, reason)?;
    }
    Ok(())
}

fn denied_gp(side: &mut Side) -> Result<()> {
    let mut guest = side.guest()?;

    // KVM knows IA32_CR_PAT, so that the access succeeds unless the filter denies it.
    for emulated in [false, true] {
        Filter::allow_by_default()
            .with(Range::deny(READ | WRITE, 0x277, 1))
            .set(guest.vm())?;
        for access in [Access::Read, Access::Write] {
            let outcome = guest.access(access, emulated, 0x277, 0)?;
            side.expect("#GP", outcome.is_gp(), true)?;
            side.note(format!("{access} of PAT, emulated {emulated}"), outcome);
            let regs = guest.regs()?;
            side.note("EAX, EDX", format!("{:#x} {:#x}", regs.rax, regs.rdx));
        }
        Filter::allow_by_default().set(guest.vm())?;
        let outcome = guest.access(Access::Read, emulated, 0x277, 0)?;
        side.expect("#GP", outcome.is_gp(), false)?;
        side.note("RDMSR of PAT", outcome);
    }
    Ok(())
}

fn before_vcpu(side: &mut Side) -> Result<()> {
    const STAR: u32 = 0xc000_0081;
    let options = Options::new(side.engine);
    let (vm, folder) = side.engine.create_vm(side.kvm())?;

    // KVM computes the intercepts when the vCPU is created, and again in KVM_SET_CPUID2. The
    // filter is set before both.
    Filter::allow_by_default()
        .with(Range::deny(READ | WRITE, STAR, 1))
        .set(&vm)?;
    let mut guest = Guest::in_vm(side.kvm(), vm, folder, options)?;
    guest.deflect(KVM_MSR_EXIT_REASON_FILTER)?;
    judge_both(side, &mut guest, STAR, false)?;
    judge_both(side, &mut guest, STAR + 1, true)
}
