// SPDX-License-Identifier: GPL-2.0

//! The order in which to restore MSRs.

use crate::engine::registers::{
    FeatureMsr,
    Register,
    Write, //
};

/// When to restore an MSR: MSRs of one stage don't depend on each other, and a stage depends only
/// on earlier ones.
///
/// KVM applies fewer checks to writes of user space than to the guest's, and it could restore some
/// MSRs in any order. The stages hold what is required by KVM, and also what is required by the
/// hardware that the MSRs are modeled on, so that later versions of KVM may check it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub(crate) enum Stage {
    /// MSRs that describe the CPU, as CPUID does. They decide which MSRs there are, and which values
    /// are valid: `IA32_PERF_CAPABILITIES` decides which MSRs the PMU has, `PLATFORM_INFO` which
    /// bits `MISC_FEATURES_ENABLES` has. Writing 0 to `IA32_FEAT_CTL` leaves VMX operation.
    Model,
    /// MSRs whose value changes the guest's CPUID: `IA32_MISC_ENABLE` and `IA32_XSS`.
    Cpuid,
    /// The mode of operation: `EFER`, `IA32_APICBASE` and segment bases. The mode of the local APIC
    /// decides whether it has MSRs.
    Mode,
    /// The registers of the local APIC. `KVM_SET_LAPIC` stops its timer, so `IA32_TSC_DEADLINE`
    /// follows.
    LocalApic,
    /// Values on which nothing depends, or only the stages below: Hyper-V has a hypercall page only
    /// after `HV_X64_GUEST_OS_ID` was set.
    Value,
    /// The TSC. Clocks are computed from it, and deadlines are compared with it.
    Tsc,
    /// Interfaces of KVM and Hyper-V. KVM computes the clocks among them from the TSC, writes to
    /// guest memory, and needs the local APIC.
    Paravirtual,
    /// MSRs that enable what the others have set up: `MTRRdefType` the MTRRs, `IA32_RTIT_CTL` Intel
    /// PT, whose other MSRs can't be written while it traces, `IA32_DEBUGCTLMSR` branch records,
    /// and the configuration of Hyper-V's timers, whose count must be known before.
    Enable,
    /// `IA32_TSC_DEADLINE`, which arms a timer if the local APIC is in that mode.
    Deadline,
    /// The global control of the PMU, which starts all counters at once.
    PmuControl,
}

impl Stage {
    /// All stages, in order.
    pub(super) const ALL: [Self; 10] = [
        Self::Model,
        Self::Cpuid,
        Self::Mode,
        Self::LocalApic,
        Self::Value,
        Self::Tsc,
        Self::Paravirtual,
        Self::Enable,
        Self::Deadline,
        Self::PmuControl,
    ];

    /// The stage that derives from how an MSR is written.
    pub(super) fn of(register: &Register) -> Self {
        if register.feature != FeatureMsr::No {
            return Self::Model;
        }
        match register.write {
            Write::MiscEnable | Write::Xss => Self::Cpuid,
            Write::Efer | Write::ApicBase => Self::Mode,
            Write::X2apic => Self::LocalApic,
            Write::Tsc | Write::TscAdjust => Self::Tsc,
            // A page that becomes ready is reported with the vector of `KVM_ASYNC_PF_INT`.
            Write::AsyncPfEn => Self::Enable,
            Write::TscDeadline => Self::Deadline,
            write if write.accesses_guest_memory() => Self::Paravirtual,
            _ => Self::Value,
        }
    }
}
