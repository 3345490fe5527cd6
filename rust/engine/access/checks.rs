// SPDX-License-Identifier: GPL-2.0

//! The checks that precede an access: who may access the MSR, and the values that it takes.

use super::{
    cet,
    Cpu,
    Denial,
    Feature,
    Initiator,
    Permission,
    PreCheck,
    Result,
    INVALID,
    UNSUPPORTED, //
};

#[inline(always)]
pub(super) fn check_permission<C: Cpu>(
    cpu: &C,
    permission: &Permission,
    initiator: Initiator,
) -> Result {
    let host = initiator == Initiator::Host;
    let (allowed, denial) = match *permission {
        Permission::Everybody => (true, INVALID),
        Permission::Feature(feature) => (cpu.has(feature), UNSUPPORTED),
        Permission::FeatureElseInvalid(feature) => (cpu.has(feature), INVALID),
        Permission::GuestFeature(feature) => (host || cpu.has(feature), INVALID),
        Permission::HostFeature(feature) => (host && cpu.has(feature), UNSUPPORTED),
        Permission::Pv(feature) => (cpu.has_pv(feature), UNSUPPORTED),
        Permission::Host => (host, INVALID),
        Permission::Smm => (host && cpu.has_smm(), INVALID),
    };

    require(allowed, denial)
}

#[inline(always)]
pub(super) fn require(ok: bool, denial: Denial) -> Result {
    if ok {
        Ok(())
    } else {
        Err(denial)
    }
}

#[inline(never)]
pub(super) fn pre_check_read<C: Cpu>(cpu: &C, pre_check: PreCheck, initiator: Initiator) -> Result {
    match pre_check {
        PreCheck::None | PreCheck::Canonical | PreCheck::MakeCanonical => Ok(()),
        PreCheck::TscAux => check_tsc_aux(cpu, initiator),
        PreCheck::Cet => cet::check(cpu),
        PreCheck::ShadowStackPointer | PreCheck::ShadowStackTable => cet::check_shadow_stack(cpu),
        PreCheck::GuestShadowStackPointer if initiator == Initiator::Guest => Err(INVALID),
        PreCheck::GuestShadowStackPointer => cet::check_shadow_stack(cpu),
    }
}

/// Returns the value to write, which the check may have changed.
#[inline(never)]
pub(super) fn pre_check_write<C: Cpu>(
    cpu: &C,
    pre_check: PreCheck,
    data: u64,
    initiator: Initiator,
) -> Result<u64> {
    match pre_check {
        PreCheck::None => (),
        PreCheck::Canonical => check_canonical(cpu, data)?,
        // An AMD CPU accepts any address here, as it has no SYSENTER in 64-bit mode. On Intel, a
        // non-canonical address would make VM-entry fail.
        PreCheck::MakeCanonical => return Ok(canonical(cpu, data)),
        PreCheck::TscAux => {
            check_tsc_aux(cpu, initiator)?;
            require(cpu.is_amd_compatible() || data >> 32 == 0, INVALID)?;
            // On AMD, writes ignore the upper half, which reads as 0.
            return Ok(data & u64::from(u32::MAX));
        }
        PreCheck::Cet => cet::check_settings(cpu, data)?,
        PreCheck::GuestShadowStackPointer if initiator == Initiator::Guest => return Err(INVALID),
        PreCheck::GuestShadowStackPointer | PreCheck::ShadowStackPointer => {
            cet::check_pointer(cpu, data)?
        }
        PreCheck::ShadowStackTable => cet::check_table(cpu, data)?,
    }
    Ok(data)
}

fn check_tsc_aux<C: Cpu>(cpu: &C, initiator: Initiator) -> Result {
    let readable =
        initiator == Initiator::Host || cpu.has(Feature::Rdtscp) || cpu.has(Feature::Rdpid);

    require(cpu.can_switch_tsc_aux() && readable, INVALID)
}

/// Sign-extends an address from the highest bit that the CPU implements.
fn canonical<C: Cpu>(cpu: &C, address: u64) -> u64 {
    let unused = u64::BITS.saturating_sub(cpu.address_bits());

    (address.wrapping_shl(unused) as i64).wrapping_shr(unused) as u64
}

pub(super) fn check_canonical<C: Cpu>(cpu: &C, address: u64) -> Result {
    require(canonical(cpu, address) == address, INVALID)
}
