// SPDX-License-Identifier: GPL-2.0

//! Whether the declared permissions and checks deny what they have to.

use crate::{
    engine::{
        access::{
            self,
            read_existing,
            write_existing,
            Initiator, //
        },
        exit::{
            self,
            INVALID,
            UNSUPPORTED, //
        },
        registers::{
            Permission,
            PreCheck,
            Register,
            Vendor, //
        },
    },
    tests::{
        model::{
            Effect,
            Features,
            Owner,
            Vcpu,
            NOTHING, //
        },
        BOTH,
    },
};

/// An address that is not canonical, with 48 or 57 bits, and the same address sign-extended.
const NOT_CANONICAL: [(u32, u64, u64); 2] = [(48, 1 << 47, !0 << 47), (57, 1 << 56, !0 << 56)];

/// Whether a permission allows and denies as declared, with an access that can't fail for another
/// reason.
pub(super) fn guards(
    permission: Permission,
    access: impl Fn(&Vcpu, Initiator) -> access::Result,
) -> bool {
    const UNSUPPORTED: access::Result = Err(exit::UNSUPPORTED);
    const INVALID: access::Result = Err(exit::INVALID);

    let all = Vcpu::new(Vendor::Intel);
    let lacking = match permission {
        Permission::Everybody | Permission::Host => all.clone(),
        Permission::Feature(feature)
        | Permission::FeatureElseInvalid(feature)
        | Permission::GuestFeature(feature)
        | Permission::HostFeature(feature) => all.clone().without(feature),
        Permission::Pv(feature) => all.clone().without_pv(feature),
        Permission::Smm => Vcpu {
            has_smm: false,
            ..all.clone()
        },
    };
    // Guest and user space, on a vCPU with the feature, and on one without it.
    let [guest, host, guest_lacking, host_lacking] = match permission {
        Permission::Everybody => return true,
        Permission::Feature(_) | Permission::Pv(_) => [Ok(()), Ok(()), UNSUPPORTED, UNSUPPORTED],
        Permission::FeatureElseInvalid(_) => [Ok(()), Ok(()), INVALID, INVALID],
        Permission::GuestFeature(_) => [Ok(()), Ok(()), INVALID, Ok(())],
        Permission::HostFeature(_) => [UNSUPPORTED, Ok(()), UNSUPPORTED, UNSUPPORTED],
        Permission::Host => [INVALID, Ok(()), INVALID, Ok(())],
        Permission::Smm => [INVALID, Ok(()), INVALID, INVALID],
    };
    let check = |vcpu: &Vcpu, initiator, expected| {
        let result = access(vcpu, initiator);
        let effects = vcpu.effects();

        result == expected && (result.is_ok() || effects == NOTHING)
    };

    check(&all, Initiator::Guest, guest)
        && check(&all, Initiator::Host, host)
        && check(&lacking, Initiator::Guest, guest_lacking)
        && check(&lacking, Initiator::Host, host_lacking)
}

/// Whether a check handles addresses that are not canonical.
pub(super) fn gates_addresses(register: &Register, index: u32, initiator: Initiator) -> bool {
    NOT_CANONICAL.into_iter().all(|(bits, address, canonical)| {
        let vcpu = Vcpu {
            address_bits: bits,
            ..Vcpu::new(Vendor::Intel)
        };
        let takes = |data, stored| {
            write_existing(&vcpu, index, data, initiator) == Ok(())
                && vcpu.effects() == [Effect::Write(Owner::Vendor(initiator), index, stored)]
        };
        let refuses = |data| {
            write_existing(&vcpu, index, data, initiator) == Err(INVALID)
                && vcpu.effects() == NOTHING
        };

        match register.pre_check {
            PreCheck::None | PreCheck::TscAux | PreCheck::Cet => true,
            PreCheck::MakeCanonical => takes(address, canonical),
            PreCheck::Canonical => takes(canonical, canonical) && refuses(address),
            PreCheck::ShadowStackPointer
            | PreCheck::ShadowStackTable
            | PreCheck::GuestShadowStackPointer => refuses(address),
        }
    })
}

/// Whether a check denies vCPUs without the features, even if the vendor module serves the MSR.
pub(super) fn gates_features(register: &Register, index: u32) -> bool {
    let vcpu = Vcpu {
        features: Features(0),
        is_protected: true,
        ..Vcpu::new(Vendor::Intel)
    };
    let refuses = |initiator, denial| {
        read_existing(&vcpu, index, initiator) == Err(denial)
            && write_existing(&vcpu, index, 0, initiator) == Err(denial)
            && vcpu.effects() == NOTHING
    };

    match register.pre_check {
        PreCheck::None | PreCheck::Canonical | PreCheck::MakeCanonical => true,
        PreCheck::TscAux => refuses(Initiator::Guest, INVALID),
        PreCheck::Cet | PreCheck::ShadowStackPointer | PreCheck::ShadowStackTable => BOTH
            .into_iter()
            .all(|initiator| refuses(initiator, UNSUPPORTED)),
        PreCheck::GuestShadowStackPointer => {
            refuses(Initiator::Guest, INVALID) && refuses(Initiator::Host, UNSUPPORTED)
        }
    }
}
