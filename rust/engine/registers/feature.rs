// SPDX-License-Identifier: GPL-2.0

//! The CPUID features that the rules of MSRs depend on.

enum_of_c! {
    /// A CPUID feature, by its name in `asm/cpufeatures.h`.
    Feature, with_features:
    Xmm3 = X86_FEATURE_XMM3,
    Pdcm = X86_FEATURE_PDCM,
    Nx = X86_FEATURE_NX,
    FxsrOpt = X86_FEATURE_FXSR_OPT,
    Rdtscp = X86_FEATURE_RDTSCP,
    Lm = X86_FEATURE_LM,
    Vmx = X86_FEATURE_VMX,
    Svm = X86_FEATURE_SVM,
    Npt = X86_FEATURE_NPT,
    Osvw = X86_FEATURE_OSVW,
    TscAdjust = X86_FEATURE_TSC_ADJUST,
    IntelPt = X86_FEATURE_INTEL_PT,
    Xfd = X86_FEATURE_XFD,
    AmdIbpb = X86_FEATURE_AMD_IBPB,
    ShadowStack = X86_FEATURE_SHSTK,
    Waitpkg = X86_FEATURE_WAITPKG,
    La57 = X86_FEATURE_LA57,
    Rdpid = X86_FEATURE_RDPID,
    BranchTracking = X86_FEATURE_IBT,
    SpecCtrl = X86_FEATURE_SPEC_CTRL,
    FlushL1d = X86_FEATURE_FLUSH_L1D,
    ArchCapabilities = X86_FEATURE_ARCH_CAPABILITIES,
    AutoIbrs = X86_FEATURE_AUTOIBRS,
    Sbpb = X86_FEATURE_SBPB,
    CpuidUserDis = X86_FEATURE_GP_ON_USER_CPUID,
    PerfmonV2 = X86_FEATURE_PERFMON_V2,
}

macro_rules! names {
    ($($feature:ident = $constant:ident,)*) => {
        &[$(stringify!($constant),)*]
    };
}

impl Feature {
    /// The feature's name in `asm/cpufeatures.h`, without `X86_FEATURE_`. Used by the generated
    /// reference only.
    #[allow(dead_code)]
    pub(crate) fn name(self) -> &'static str {
        const NAMES: &[&str] = with_features!(names);
        let name = NAMES[self as usize];

        name.strip_prefix("X86_FEATURE_").unwrap_or(name)
    }
}

/// A paravirtual feature: the number of its bit in EAX of `KVM_CPUID_FEATURES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pv(pub(crate) u32);

impl Pv {
    /// `KVM_FEATURE_CLOCKSOURCE`
    pub(crate) const CLOCKSOURCE: Self = Self(0);
    /// `KVM_FEATURE_CLOCKSOURCE2`
    pub(crate) const CLOCKSOURCE2: Self = Self(3);
    /// `KVM_FEATURE_ASYNC_PF`
    pub(crate) const ASYNC_PF: Self = Self(4);
    /// `KVM_FEATURE_STEAL_TIME`
    pub(crate) const STEAL_TIME: Self = Self(5);
    /// `KVM_FEATURE_PV_EOI`
    pub(crate) const EOI: Self = Self(6);
    /// `KVM_FEATURE_ASYNC_PF_VMEXIT`
    pub(crate) const ASYNC_PF_VMEXIT: Self = Self(10);
    /// `KVM_FEATURE_POLL_CONTROL`
    pub(crate) const POLL_CONTROL: Self = Self(12);
    /// `KVM_FEATURE_ASYNC_PF_INT`
    pub(crate) const ASYNC_PF_INT: Self = Self(14);
}
