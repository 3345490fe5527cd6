// SPDX-License-Identifier: GPL-2.0

//! The rules for reads and writes of MSRs. [`crate::engine::access`] applies them.

use super::{
    Feature,
    Field,
    Pv, //
};

/// The check before the vendor module gets an access, for MSRs that need the same check on both
/// vendors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PreCheck {
    /// Nothing.
    None,
    /// A written value must be a canonical address.
    Canonical,
    /// A written value is sign-extended to a canonical address.
    MakeCanonical,
    /// `IA32_TSC_AUX`: KVM must be able to switch it, the guest must have an instruction that reads
    /// it, and Intel reserves the upper half.
    TscAux,
    /// `IA32_U_CET` and `IA32_S_CET`.
    Cet,
    /// A shadow stack pointer.
    ShadowStackPointer,
    /// The address of the shadow stack pointer table, which only 64-bit vCPUs have.
    ShadowStackTable,
    /// The guest's current shadow stack pointer, which only KVM itself accesses as an MSR.
    GuestShadowStackPointer,
}

impl PreCheck {
    /// Whether reads are checked.
    pub(super) const fn concerns_reads(self) -> bool {
        !matches!(self, Self::None | Self::Canonical | Self::MakeCanonical)
    }
}

/// Who may access an MSR, and how a denied access fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    /// Everybody.
    Everybody,
    /// vCPUs with the feature; for others the MSR does not exist.
    Feature(Feature),
    /// vCPUs with the feature; for others the access is invalid.
    FeatureElseInvalid(Feature),
    /// User space, and guests with the feature; for others the access is invalid.
    GuestFeature(Feature),
    /// User space, if the vCPU has the feature; for others the MSR does not exist.
    HostFeature(Feature),
    /// vCPUs with the paravirtual feature; for others the MSR does not exist.
    Pv(Pv),
    /// User space; for guests the access is invalid.
    Host,
    /// User space, if KVM emulates SMM; for others the access is invalid.
    Smm,
}

/// How an MSR is read if the vendor module does not serve the access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// The MSR does not exist, unless the PMU has it.
    Unsupported,
    /// The MSR always has this value.
    Constant(u64),
    /// The MSR has the stored value.
    Field(Field),
    /// The address of the wall clock, which belongs to the VM.
    WallClock,
    /// `IA32_TSC`
    Tsc,
    /// `PLATFORM_INFO`, which user space can hide from guests.
    PlatformInfo,
    /// `IA32_XSS`
    Xss,
    /// `IA32_MCG_CTL`
    MachineCheckCtl,
    /// `IA32_MCi_CTL`, `_STATUS`, `_ADDR` and `_MISC`.
    MachineCheckBank,
    /// `IA32_MCi_CTL2`
    MachineCheckCtl2,
    /// Counters that CPUs had before CPUID described the PMU. Guests access them without checks, so
    /// they read as 0 unless the PMU has them.
    LegacyPmu,
    /// Memory type range registers.
    Mtrr,
    /// The local APIC in x2APIC mode.
    X2apic,
    /// `IA32_TSC_DEADLINE`
    TscDeadline,
    /// Hyper-V's enlightenments.
    HyperV,
    /// The guest's FPU state.
    Xstate,
    /// `IA32_XFD`
    Xfd,
}

/// How an MSR is written if the vendor module does not serve the access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// The MSR does not exist, unless the PMU has it.
    Unsupported,
    /// The value is dropped.
    Ignore,
    /// The value is dropped and logged.
    Drop,
    /// The value must be 0, and is dropped.
    Zero,
    /// The value is stored.
    Field(Field),
    /// The value is stored for user space, and dropped for the guest.
    HostField(Field),
    /// The value is stored. These bits are reserved: setting one is invalid.
    Reserved(Field, u64),
    /// `EFER`
    Efer,
    /// `IA32_CR_PAT`
    Pat,
    /// `IA32_APICBASE`
    ApicBase,
    /// `IA32_TSC`
    Tsc,
    /// `IA32_TSC_ADJUST`
    TscAdjust,
    /// `IA32_MISC_ENABLE`
    MiscEnable,
    /// `IA32_PERF_CAPABILITIES`
    PerfCapabilities,
    /// `IA32_PRED_CMD`
    PredCmd,
    /// `IA32_FLUSH_CMD`
    FlushCmd,
    /// `IA32_XSS`
    Xss,
    /// `IA32_XFD`
    Xfd,
    /// `IA32_XFD_ERR`
    XfdErr,
    /// `K7_HWCR`
    Hwcr,
    /// `MISC_FEATURES_ENABLES`
    MiscFeaturesEnables,
    /// `IA32_MCG_CTL`
    MachineCheckCtl,
    /// `IA32_MCi_CTL`, `_STATUS`, `_ADDR` and `_MISC`.
    MachineCheckBank,
    /// `IA32_MCi_CTL2`
    MachineCheckCtl2,
    /// Counters that CPUs had before CPUID described the PMU. Guests access them without checks, so
    /// the value is dropped unless the PMU has them.
    LegacyPmu,
    /// `KVM_WALL_CLOCK` and `KVM_WALL_CLOCK_NEW`.
    WallClock,
    /// `KVM_SYSTEM_TIME` or `KVM_SYSTEM_TIME_NEW`.
    SystemTime {
        /// Whether this is `KVM_SYSTEM_TIME`, whose index is not in KVM's own range.
        old: bool,
    },
    /// `KVM_ASYNC_PF_EN`
    AsyncPfEn,
    /// `KVM_ASYNC_PF_INT`
    AsyncPfInt,
    /// `KVM_ASYNC_PF_ACK`
    AsyncPfAck,
    /// `KVM_STEAL_TIME`
    StealTime,
    /// `KVM_PV_EOI_EN`
    PvEoi,
    /// Memory type range registers.
    Mtrr,
    /// The local APIC in x2APIC mode.
    X2apic,
    /// `IA32_TSC_DEADLINE`
    TscDeadline,
    /// Hyper-V's enlightenments.
    HyperV,
    /// The guest's FPU state.
    Xstate,
}

impl Write {
    /// Whether the write accesses guest memory, or maps or unmaps a part of it.
    pub(crate) const fn accesses_guest_memory(self) -> bool {
        matches!(
            self,
            Self::ApicBase
                | Self::WallClock
                | Self::SystemTime { .. }
                | Self::AsyncPfEn
                | Self::AsyncPfInt
                | Self::AsyncPfAck
                | Self::StealTime
                | Self::PvEoi
                | Self::HyperV
        )
    }
}
