// SPDX-License-Identifier: GPL-2.0

//! What an access does to a vCPU.

use crate::engine::{
    access::Initiator,
    cpu::{
        Report,
        Request, //
    },
    registers::Field,
};

/// The owner of an MSR that the engine does not serve itself, and the initiator that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Vendor(Initiator),
    Pmu(Initiator),
    HyperV(Initiator),
    Mtrr,
    X2apic,
    Xstate,
    XenHypercallPage,
}

/// A change of a vCPU's state, or a call on its behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Read(Owner, u32),
    Write(Owner, u32, u64),
    Field(Field, u64),
    MceBank(usize, u64),
    MceCtl2(usize, u64),
    VendorEfer(u64),
    /// The old value and the new one.
    EferChanged(u64, u64),
    InvalidateCpuid,
    RefreshPmu,
    Request(Request),
    Predict(u64),
    FlushL1d,
    Report(Report, u32, u64),
    Unimplemented(u32, u64),
    ApicBase(u64, Initiator),
    TscDeadline(u64),
    PvEoi(u64),
    SynchronizeTsc(u64),
    AdjustTscOffset(u64),
    WallClock(u64),
    BootClockIsOld(bool),
    ClockAddress(Option<u64>),
    AsyncPfAddress(u64),
    AsyncPfVector(u8),
    WakeAsyncPf,
    ClearAsyncPf,
    AcknowledgeAsyncPf,
    Xfd(u64),
}

/// No effects.
pub(crate) const NOTHING: [Effect; 0] = [];

/// The effects of an access, in order. No access has more effects than fit here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effects {
    all: [Effect; 8],
    count: usize,
}

impl Effects {
    /// Returns these effects, followed by another one.
    pub(crate) fn and(mut self, effect: Effect) -> Self {
        if let Some(slot) = self.all.get_mut(self.count) {
            *slot = effect;
            self.count += 1;
        }
        self
    }
}

impl Default for Effects {
    fn default() -> Self {
        Self {
            // The value does not matter.
            all: [Effect::InvalidateCpuid; 8],
            count: 0,
        }
    }
}

impl AsRef<[Effect]> for Effects {
    fn as_ref(&self) -> &[Effect] {
        self.all.get(..self.count).unwrap_or(&self.all)
    }
}

impl<T: AsRef<[Effect]>> PartialEq<T> for Effects {
    fn eq(&self, other: &T) -> bool {
        self.as_ref() == other.as_ref()
    }
}
