// SPDX-License-Identifier: GPL-2.0

//! Models of a vCPU and a host, for tests of the rules.
//!
//! A [`Vcpu`] records each change that a rule makes as an [`Effect`]. The vendor module, the PMU
//! and all other owners of MSRs return the same [`Vcpu::answer`].

mod effect;
mod host;
mod vcpu;

pub(crate) use self::{
    effect::{
        Effect,
        Effects,
        Owner,
        NOTHING, //
    },
    host::Host,
    vcpu::Vcpu, //
};

use crate::engine::registers::Feature;

/// The values of state other than fields. All are different, and writes don't change them.
pub(crate) const ANSWER: u64 = 0xa5_0000_0001;
pub(crate) const WALL_CLOCK: u64 = 0xa5_0000_0002;
pub(crate) const TSC_DEADLINE: u64 = 0xa5_0000_0003;
pub(crate) const XFD: u64 = 0xa5_0000_0004;
/// The TSC as L1 reads it, and as the running guest does.
pub(crate) const L1_TSC: u64 = 0xa5_0000_0005;
pub(crate) const TSC: u64 = 0xa5_0000_0006;
/// The first value of the machine check banks. Each following value is larger by 1.
pub(crate) const MCE_BANKS: u64 = 0xa5_0001_0000;
pub(crate) const MCE_CTL2: u64 = 0xa5_0002_0000;

/// A set of features.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features(pub(crate) u32);

impl Features {
    pub(crate) const ALL: Self = Self(u32::MAX);

    pub(crate) fn has(self, feature: Feature) -> bool {
        self.0 & 1 << feature as u32 != 0
    }

    pub(crate) fn without(self, feature: Feature) -> Self {
        Self(self.0 & !(1 << feature as u32))
    }
}

const _: () = assert!(Feature::ALL.len() <= u32::BITS as usize);
