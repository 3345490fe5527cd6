// SPDX-License-Identifier: GPL-2.0

//! The declarations.
//!
//! Source: the vendors' manuals, `Documentation/virt/kvm/x86/msr.rst` and `api.rst`, and the
//! behavior of KVM in Linux 7.3 where these leave it open.

use super::{
    Condition,
    Feature,
    FeatureMsr,
    Field,
    Permission,
    PreCheck,
    Pv,
    Read,
    Register,
    Trace,
    VendorSet,
    Write, //
};

const AMD: VendorSet = VendorSet::AMD;
const INTEL: VendorSet = VendorSet::INTEL;
const BOTH: VendorSet = VendorSet::BOTH;
const ZERO: Read = Read::Constant(0);

const fn counter(fixed: bool, number: u32) -> Condition {
    Condition::Counter { fixed, number }
}

/// The feature MSRs, in the order of `KVM_GET_MSR_FEATURE_INDEX_LIST`.
#[rustfmt::skip]
pub(crate) const FEATURE_MSRS: &[u32] = &[
    0x480, 0x481, 0x482, 0x483, 0x484, 0x485, 0x486, 0x487, 0x488, 0x489, 0x48a, 0x48b, 0x48c,
    0x48d, 0x48e, 0x48f, 0x490, 0x491, 0xc001_1029, 0x8b, 0x10a, 0x345, 0xce,
];

/// All MSRs. `KVM_GET_MSR_INDEX_LIST` has the order of this table. If an index has two
/// declarations, the first applies.
#[rustfmt::skip]
pub(crate) const REGISTERS: &[Register] = &[
    // Saved, in the order of the list.
    Register::msr(0x174, "IA32_SYSENTER_CS").vendor(BOTH).saved(),
    Register::msr(0x175, "IA32_SYSENTER_ESP").vendor(BOTH).pre_check(PreCheck::MakeCanonical).saved(),
    Register::msr(0x176, "IA32_SYSENTER_EIP").vendor(BOTH).pre_check(PreCheck::MakeCanonical).saved(),
    Register::msr(0xc000_0081, "STAR").vendor(BOTH).saved(),
    Register::msr(0xc000_0083, "CSTAR").vendor(BOTH).pre_check(PreCheck::Canonical).saved(),
    Register::msr(0xc000_0102, "KERNEL_GS_BASE").vendor(BOTH).pre_check(PreCheck::Canonical).saved(),
    Register::msr(0xc000_0084, "SYSCALL_MASK").vendor(BOTH).saved(),
    Register::msr(0xc000_0082, "LSTAR").vendor(BOTH).pre_check(PreCheck::Canonical).saved(),
    Register::msr(0x10, "IA32_TSC").read(Read::Tsc).write(Write::Tsc).saved(),
    Register::msr(0x277, "IA32_CR_PAT")
        .vendor(VendorSet::AMD_NESTED_READ.and(VendorSet::AMD_WRITE).and(VendorSet::INTEL_WRITE))
        .read(Read::Field(Field::Pat)).write(Write::Pat).saved(),
    Register::msr(0xc001_0117, "VM_HSAVE_PA").vendor(AMD).read(ZERO).write(Write::Ignore).saved(),
    Register::msr(0x3a, "IA32_FEAT_CTL").vendor(INTEL).saved(),
    Register::msr(0xd90, "IA32_BNDCFGS").vendor(INTEL).saved_if(Condition::Mpx),
    Register::msr(0xc000_0103, "TSC_AUX").vendor(BOTH).pre_check(PreCheck::TscAux)
        .saved_if(Condition::Either(Feature::Rdtscp, Feature::Rdpid)),
    Register::msr(0x48, "IA32_SPEC_CTRL").vendor(BOTH).saved(),
    Register::msr(0x122, "IA32_TSX_CTRL").vendor(INTEL).saved_if(Condition::TsxCtrl),
    Register::msr(0x570, "IA32_RTIT_CTL").vendor(INTEL)
        .saved_if(Condition::ProcessorTrace(Trace::Any)),
    Register::msr(0x571, "IA32_RTIT_STATUS").vendor(INTEL)
        .saved_if(Condition::ProcessorTrace(Trace::Any)),
    Register::msr(0x572, "IA32_RTIT_CR3_MATCH").vendor(INTEL)
        .saved_if(Condition::ProcessorTrace(Trace::Cr3Filtering)),
    Register::msr(0x560, "IA32_RTIT_OUTPUT_BASE").vendor(INTEL)
        .saved_if(Condition::ProcessorTrace(Trace::Output)),
    Register::msr(0x561, "IA32_RTIT_OUTPUT_MASK").vendor(INTEL)
        .saved_if(Condition::ProcessorTrace(Trace::Output)),
    Register::msr(0x580, "IA32_RTIT_ADDR0_A").vendor(INTEL)
        .saved_if(Condition::ProcessorTrace(Trace::Ranges(0))),
    Register::msr(0x581, "IA32_RTIT_ADDR0_B").vendor(INTEL)
        .saved_if(Condition::ProcessorTrace(Trace::Ranges(0))),
    Register::msr(0x582, "IA32_RTIT_ADDR1_A").vendor(INTEL)
        .saved_if(Condition::ProcessorTrace(Trace::Ranges(1))),
    Register::msr(0x583, "IA32_RTIT_ADDR1_B").vendor(INTEL)
        .saved_if(Condition::ProcessorTrace(Trace::Ranges(1))),
    Register::msr(0x584, "IA32_RTIT_ADDR2_A").vendor(INTEL)
        .saved_if(Condition::ProcessorTrace(Trace::Ranges(2))),
    Register::msr(0x585, "IA32_RTIT_ADDR2_B").vendor(INTEL)
        .saved_if(Condition::ProcessorTrace(Trace::Ranges(2))),
    Register::msr(0x586, "IA32_RTIT_ADDR3_A").vendor(INTEL)
        .saved_if(Condition::ProcessorTrace(Trace::Ranges(3))),
    Register::msr(0x587, "IA32_RTIT_ADDR3_B").vendor(INTEL)
        .saved_if(Condition::ProcessorTrace(Trace::Ranges(3))),
    Register::msr(0xe1, "IA32_UMWAIT_CONTROL").vendor(INTEL)
        .saved_if(Condition::Offers(Feature::Waitpkg)),
    Register::msr(0x1c4, "IA32_XFD").vendor(VendorSet::INTEL_WRITE)
        .permission(Permission::GuestFeature(Feature::Xfd)).read(Read::Xfd).write(Write::Xfd)
        .saved_if(Condition::Offers(Feature::Xfd)),
    Register::msr(0x1c5, "IA32_XFD_ERR").permission(Permission::GuestFeature(Feature::Xfd))
        .read(Read::Field(Field::XfdErr)).write(Write::XfdErr)
        .saved_if(Condition::Offers(Feature::Xfd)),
    Register::msr(0xda0, "IA32_XSS").read(Read::Xss).write(Write::Xss).saved_if(Condition::Xss),
    Register::msr(0x6a0, "IA32_U_CET").pre_check(PreCheck::Cet).both(Read::Xstate, Write::Xstate)
        .saved_if(Condition::Either(Feature::ShadowStack, Feature::BranchTracking)),
    Register::msr(0x6a2, "IA32_S_CET").vendor(BOTH).pre_check(PreCheck::Cet)
        .saved_if(Condition::Either(Feature::ShadowStack, Feature::BranchTracking)),
    Register::msr(0x6a4, "IA32_PL0_SSP").pre_check(PreCheck::ShadowStackPointer)
        .both(Read::Xstate, Write::Xstate).saved_if(Condition::Offers(Feature::ShadowStack)),
    Register::msr(0x6a5, "IA32_PL1_SSP").pre_check(PreCheck::ShadowStackPointer)
        .both(Read::Xstate, Write::Xstate).saved_if(Condition::Offers(Feature::ShadowStack)),
    Register::msr(0x6a6, "IA32_PL2_SSP").pre_check(PreCheck::ShadowStackPointer)
        .both(Read::Xstate, Write::Xstate).saved_if(Condition::Offers(Feature::ShadowStack)),
    Register::msr(0x6a7, "IA32_PL3_SSP").pre_check(PreCheck::ShadowStackPointer)
        .both(Read::Xstate, Write::Xstate).saved_if(Condition::Offers(Feature::ShadowStack)),
    Register::msr(0x6a8, "IA32_INT_SSP_TAB").vendor(BOTH).pre_check(PreCheck::ShadowStackTable)
        .saved_if(Condition::Both(Feature::Lm, Feature::ShadowStack)),
    Register::msr(0x1d9, "IA32_DEBUGCTLMSR").vendor(BOTH).saved(),
    Register::msr(0x1db, "IA32_LASTBRANCHFROMIP").vendor(AMD).read(ZERO).saved(),
    Register::msr(0x1dc, "IA32_LASTBRANCHTOIP").vendor(AMD).read(ZERO).saved(),
    Register::msr(0x1dd, "IA32_LASTINTFROMIP").vendor(AMD).read(ZERO).saved(),
    Register::msr(0x1de, "IA32_LASTINTTOIP").vendor(AMD).read(ZERO).saved(),
    // Saved if KVM has a virtual PMU, which serves most of them.
    Register::range(0x309, 0x30b, "ARCH_PERFMON_FIXED_CTR0").saved_pmu_if(counter(true, 0)),
    Register::msr(0x38d, "CORE_PERF_FIXED_CTR_CTRL").saved_pmu(),
    Register::msr(0x38e, "CORE_PERF_GLOBAL_STATUS").saved_pmu(),
    Register::msr(0x38f, "CORE_PERF_GLOBAL_CTRL").saved_pmu(),
    Register::msr(0x3f1, "IA32_PEBS_ENABLE").saved_pmu(),
    Register::msr(0x600, "IA32_DS_AREA").saved_pmu(),
    Register::msr(0x3f2, "PEBS_DATA_CFG").saved_pmu(),
    Register::range(0xc1, 0xc2, "ARCH_PERFMON_PERFCTR0").read(Read::LegacyPmu)
        .write(Write::LegacyPmu).saved_pmu_if(counter(false, 0)),
    Register::range(0xc3, 0xc8, "ARCH_PERFMON_PERFCTR2").saved_pmu_if(counter(false, 2)),
    Register::range(0x186, 0x187, "ARCH_PERFMON_EVENTSEL0").read(Read::LegacyPmu)
        .write(Write::LegacyPmu).saved_pmu_if(counter(false, 0)),
    Register::range(0x188, 0x18d, "ARCH_PERFMON_EVENTSEL2").saved_pmu_if(counter(false, 2)),
    Register::range(0xc001_0000, 0xc001_0003, "K7_EVNTSEL0").read(Read::LegacyPmu)
        .write(Write::LegacyPmu).saved_pmu(),
    Register::range(0xc001_0004, 0xc001_0007, "K7_PERFCTR0").read(Read::LegacyPmu)
        .write(Write::LegacyPmu).saved_pmu(),
    Register::msr(0xc001_0200, "F15H_PERF_CTL0").saved_pmu(),
    Register::msr(0xc001_0202, "F15H_PERF_CTL1").saved_pmu(),
    Register::msr(0xc001_0204, "F15H_PERF_CTL2").saved_pmu(),
    Register::msr(0xc001_0206, "F15H_PERF_CTL3").saved_pmu(),
    Register::msr(0xc001_0208, "F15H_PERF_CTL4").saved_pmu(),
    Register::msr(0xc001_020a, "F15H_PERF_CTL5").saved_pmu(),
    Register::msr(0xc001_0201, "F15H_PERF_CTR0").saved_pmu(),
    Register::msr(0xc001_0203, "F15H_PERF_CTR1").saved_pmu(),
    Register::msr(0xc001_0205, "F15H_PERF_CTR2").saved_pmu(),
    Register::msr(0xc001_0207, "F15H_PERF_CTR3").saved_pmu(),
    Register::msr(0xc001_0209, "F15H_PERF_CTR4").saved_pmu(),
    Register::msr(0xc001_020b, "F15H_PERF_CTR5").saved_pmu(),
    Register::msr(0xc000_0301, "AMD64_PERF_CNTR_GLOBAL_CTL")
        .saved_pmu_if(Condition::Offers(Feature::PerfmonV2)),
    Register::msr(0xc000_0300, "AMD64_PERF_CNTR_GLOBAL_STATUS")
        .saved_pmu_if(Condition::Offers(Feature::PerfmonV2)),
    Register::msr(0xc000_0302, "AMD64_PERF_CNTR_GLOBAL_STATUS_CLR")
        .saved_pmu_if(Condition::Offers(Feature::PerfmonV2)),
    Register::msr(0xc000_0303, "AMD64_PERF_CNTR_GLOBAL_STATUS_SET")
        .saved_pmu_if(Condition::Offers(Feature::PerfmonV2)),
    // Emulated.
    Register::msr(0x12, "KVM_SYSTEM_TIME").permission(Permission::Pv(Pv::CLOCKSOURCE))
        .read(Read::Field(Field::SystemTime)).write(Write::SystemTime { old: true }).emulated(),
    Register::msr(0x11, "KVM_WALL_CLOCK").permission(Permission::Pv(Pv::CLOCKSOURCE)).read(Read::WallClock)
        .write(Write::WallClock).emulated(),
    Register::msr(0x4b56_4d01, "KVM_SYSTEM_TIME_NEW").permission(Permission::Pv(Pv::CLOCKSOURCE2))
        .read(Read::Field(Field::SystemTime)).write(Write::SystemTime { old: false }).emulated(),
    Register::msr(0x4b56_4d00, "KVM_WALL_CLOCK_NEW").permission(Permission::Pv(Pv::CLOCKSOURCE2))
        .read(Read::WallClock).write(Write::WallClock).emulated(),
    Register::hyperv(0x4000_0000, "HV_X64_GUEST_OS_ID"),
    Register::hyperv(0x4000_0001, "HV_X64_HYPERCALL"),
    Register::hyperv(0x4000_0020, "HV_X64_TIME_REF_COUNT"),
    Register::hyperv(0x4000_0021, "HV_X64_REFERENCE_TSC"),
    Register::hyperv(0x4000_0022, "HV_X64_TSC_FREQUENCY"),
    Register::hyperv(0x4000_0023, "HV_X64_APIC_FREQUENCY"),
    Register::hyperv(0x4000_0100, "HV_X64_CRASH_P0"),
    Register::hyperv(0x4000_0101, "HV_X64_CRASH_P1"),
    Register::hyperv(0x4000_0102, "HV_X64_CRASH_P2"),
    Register::hyperv(0x4000_0103, "HV_X64_CRASH_P3"),
    Register::hyperv(0x4000_0104, "HV_X64_CRASH_P4"),
    Register::hyperv(0x4000_0105, "HV_X64_CRASH_CTL"),
    Register::hyperv(0x4000_0003, "HV_X64_RESET"),
    Register::hyperv(0x4000_0002, "HV_X64_VP_INDEX"),
    Register::hyperv(0x4000_0010, "HV_X64_VP_RUNTIME"),
    Register::hyperv(0x4000_0080, "HV_X64_SCONTROL"),
    Register::hyperv(0x4000_00b0, "HV_X64_STIMER0_CONFIG"),
    Register::hyperv(0x4000_0073, "HV_X64_VP_ASSIST_PAGE"),
    Register::hyperv(0x4000_0106, "HV_X64_REENLIGHTENMENT_CONTROL"),
    Register::hyperv(0x4000_0107, "HV_X64_TSC_EMULATION_CONTROL"),
    Register::hyperv(0x4000_0108, "HV_X64_TSC_EMULATION_STATUS"),
    Register::hyperv(0x4000_0118, "HV_X64_TSC_INVARIANT_CONTROL"),
    Register::hyperv(0x4000_00ff, "HV_X64_SYNDBG_OPTIONS"),
    Register::hyperv(0x4000_00f1, "HV_X64_SYNDBG_CONTROL"),
    Register::hyperv(0x4000_00f2, "HV_X64_SYNDBG_STATUS"),
    Register::hyperv(0x4000_00f3, "HV_X64_SYNDBG_SEND_BUFFER"),
    Register::hyperv(0x4000_00f4, "HV_X64_SYNDBG_RECV_BUFFER"),
    Register::hyperv(0x4000_00f5, "HV_X64_SYNDBG_PENDING_BUFFER"),
    Register::msr(0x4b56_4d02, "KVM_ASYNC_PF_EN").permission(Permission::Pv(Pv::ASYNC_PF))
        .read(Read::Field(Field::AsyncPfEn)).write(Write::AsyncPfEn).emulated(),
    Register::msr(0x4b56_4d03, "KVM_STEAL_TIME").permission(Permission::Pv(Pv::STEAL_TIME))
        .read(Read::Field(Field::StealTime)).write(Write::StealTime).emulated(),
    Register::msr(0x4b56_4d04, "KVM_PV_EOI_EN").permission(Permission::Pv(Pv::EOI))
        .read(Read::Field(Field::PvEoi)).write(Write::PvEoi).emulated(),
    Register::msr(0x4b56_4d06, "KVM_ASYNC_PF_INT").permission(Permission::Pv(Pv::ASYNC_PF_INT))
        .read(Read::Field(Field::AsyncPfInt)).write(Write::AsyncPfInt).emulated(),
    Register::msr(0x4b56_4d07, "KVM_ASYNC_PF_ACK").permission(Permission::Pv(Pv::ASYNC_PF_INT)).read(ZERO)
        .write(Write::AsyncPfAck).emulated(),
    Register::msr(0x3b, "IA32_TSC_ADJUST").read(Read::Field(Field::TscAdjust))
        .write(Write::TscAdjust).emulated(),
    Register::msr(0x6e0, "IA32_TSC_DEADLINE").both(Read::TscDeadline, Write::TscDeadline)
        .emulated(),
    Register::msr(0x10a, "IA32_ARCH_CAPABILITIES").vendor(VendorSet::INTEL_WRITE)
        .permission(Permission::Feature(Feature::ArchCapabilities))
        .write_permission(Permission::HostFeature(Feature::ArchCapabilities)).field(Field::ArchCapabilities)
        .emulated().feature(FeatureMsr::Immutable),
    Register::msr(0x345, "IA32_PERF_CAPABILITIES").vendor(VendorSet::INTEL_WRITE)
        .permission(Permission::Feature(Feature::Pdcm)).write_permission(Permission::HostFeature(Feature::Pdcm))
        .read(Read::Field(Field::PerfCapabilities)).write(Write::PerfCapabilities).emulated()
        .feature(FeatureMsr::Immutable),
    Register::msr(0x1a0, "IA32_MISC_ENABLE").read(Read::Field(Field::MiscEnable))
        .write(Write::MiscEnable).emulated(),
    Register::msr(0x17a, "IA32_MCG_STATUS").field(Field::McgStatus).emulated(),
    Register::msr(0x17b, "IA32_MCG_CTL").read(Read::MachineCheckCtl).write(Write::MachineCheckCtl)
        .emulated(),
    Register::msr(0x4d0, "IA32_MCG_EXT_CTL").vendor(INTEL).emulated(),
    Register::msr(0x9e, "IA32_SMBASE").permission(Permission::Smm).field(Field::Smbase).emulated(),
    Register::msr(0x34, "SMI_COUNT").write_permission(Permission::Host).field(Field::SmiCount).emulated(),
    Register::msr(0xce, "PLATFORM_INFO").write_permission(Permission::Host).read(Read::PlatformInfo)
        .write(Write::Field(Field::PlatformInfo)).emulated().feature(FeatureMsr::Immutable),
    Register::msr(0x140, "MISC_FEATURES_ENABLES").read(Read::Field(Field::MiscFeaturesEnables))
        .write(Write::MiscFeaturesEnables).emulated(),
    Register::msr(0xc001_011f, "AMD64_VIRT_SPEC_CTRL").vendor(AMD).emulated(),
    Register::msr(0xc000_0104, "AMD64_TSC_RATIO").vendor(AMD).emulated(),
    Register::msr(0x1fc, "IA32_POWER_CTL").field(Field::PowerCtl).emulated(),
    Register::msr(0x8b, "IA32_UCODE_REV").read(Read::Field(Field::MicrocodeVersion))
        .write(Write::HostField(Field::MicrocodeVersion)).emulated().feature(FeatureMsr::Mutable),
    Register::msr(0x480, "IA32_VMX_BASIC").vendor(INTEL).emulated().feature(FeatureMsr::Immutable),
    Register::msr(0x48d, "IA32_VMX_TRUE_PINBASED_CTLS").vendor(INTEL).emulated()
        .feature(FeatureMsr::Immutable),
    Register::msr(0x48e, "IA32_VMX_TRUE_PROCBASED_CTLS").vendor(INTEL).emulated()
        .feature(FeatureMsr::Immutable),
    Register::msr(0x48f, "IA32_VMX_TRUE_EXIT_CTLS").vendor(INTEL).emulated()
        .feature(FeatureMsr::Immutable),
    Register::msr(0x490, "IA32_VMX_TRUE_ENTRY_CTLS").vendor(INTEL).emulated()
        .feature(FeatureMsr::Immutable),
    Register::msr(0x485, "IA32_VMX_MISC").vendor(INTEL).emulated().feature(FeatureMsr::Immutable),
    Register::msr(0x486, "IA32_VMX_CR0_FIXED0").vendor(INTEL).emulated().feature(FeatureMsr::Immutable),
    Register::msr(0x488, "IA32_VMX_CR4_FIXED0").vendor(INTEL).emulated().feature(FeatureMsr::Immutable),
    Register::msr(0x48a, "IA32_VMX_VMCS_ENUM").vendor(INTEL).emulated().feature(FeatureMsr::Immutable),
    Register::msr(0x48b, "IA32_VMX_PROCBASED_CTLS2").vendor(INTEL).emulated()
        .feature(FeatureMsr::Immutable),
    Register::msr(0x48c, "IA32_VMX_EPT_VPID_CAP").vendor(INTEL).emulated().feature(FeatureMsr::Immutable),
    Register::msr(0x491, "IA32_VMX_VMFUNC").vendor(INTEL).emulated().feature(FeatureMsr::Immutable),
    Register::msr(0xc001_0015, "K7_HWCR").read(Read::Field(Field::Hwcr)).write(Write::Hwcr)
        .emulated(),
    Register::msr(0x4b56_4d05, "KVM_POLL_CONTROL").permission(Permission::Pv(Pv::POLL_CONTROL))
        .read(Read::Field(Field::PollControl)).write(Write::Reserved(Field::PollControl, !1))
        .emulated(),
    // Only in the list of feature MSRs.
    Register::msr(0x481, "IA32_VMX_PINBASED_CTLS").vendor(INTEL).feature(FeatureMsr::Immutable),
    Register::msr(0x482, "IA32_VMX_PROCBASED_CTLS").vendor(INTEL).feature(FeatureMsr::Immutable),
    Register::msr(0x483, "IA32_VMX_EXIT_CTLS").vendor(INTEL).feature(FeatureMsr::Immutable),
    Register::msr(0x484, "IA32_VMX_ENTRY_CTLS").vendor(INTEL).feature(FeatureMsr::Immutable),
    Register::msr(0x487, "IA32_VMX_CR0_FIXED1").vendor(INTEL).feature(FeatureMsr::Immutable),
    Register::msr(0x489, "IA32_VMX_CR4_FIXED1").vendor(INTEL).feature(FeatureMsr::Immutable),
    Register::msr(0xc001_1029, "AMD64_DE_CFG").vendor(AMD).feature(FeatureMsr::Immutable),
    // In no list. Most have a constant value: old guests, and guests for one CPU model, access them
    // without checking CPUID, and would not survive #GP.
    Register::msr(0x0, "IA32_P5_MC_ADDR").read(ZERO),
    Register::msr(0x1, "IA32_P5_MC_TYPE").read(ZERO),
    Register::msr(0x17, "IA32_PLATFORM_ID").read(ZERO),
    Register::msr(0x1b, "IA32_APICBASE").read(Read::Field(Field::ApicBase)).write(Write::ApicBase),
    Register::msr(0x2a, "IA32_EBL_CR_POWERON").read(ZERO),
    // Bits 31:24, the ratio of core clock to bus clock, are 1: guests may divide by it.
    Register::msr(0x2c, "EBC_FREQUENCY_ID").read(Read::Constant(1 << 24)),
    Register::msr(0x49, "IA32_PRED_CMD").write(Write::PredCmd),
    Register::msr(0x79, "IA32_UCODE_WRITE").write(Write::Ignore),
    Register::range(0x8c, 0x8f, "IA32_SGXLEPUBKEYHASH0").vendor(INTEL),
    // Scalable bus speed 011B, which the SDM defines as 167 MHz for Core CPUs.
    Register::msr(0xcd, "FSB_FREQ").read(Read::Constant(3)),
    Register::msr(0xfe, "MTRRcap").read(Read::Mtrr),
    Register::msr(0x10b, "IA32_FLUSH_CMD").write(Write::FlushCmd),
    // Windows XP accesses it. The value reports an L2 cache that is configured (bit 0) and enabled
    // (bit 8).
    Register::msr(0x11e, "IA32_BBL_CR_CTL3").read(Read::Constant(0xbe70_2111)).write(Write::Drop),
    Register::msr(0x179, "IA32_MCG_CAP").read(Read::Field(Field::McgCap)),
    // Bits 44:40, the maximum bus ratio, are 4, and the current state is 1000: guests divide by
    // them.
    Register::msr(0x198, "IA32_PERF_STATUS").read(Read::Constant(4 << 40 | 1000)),
    Register::msr(0x199, "IA32_PERF_CTL").read(ZERO),
    // All indices in which MTRRs lie. KVM's MTRR code denies those that are not an MTRR.
    Register::range(0x200, 0x26f, "MTRRphysBase0").both(Read::Mtrr, Write::Mtrr),
    Register::range(0x280, 0x29f, "IA32_MC0_CTL2").read(Read::MachineCheckCtl2)
        .write(Write::MachineCheckCtl2),
    Register::msr(0x2ff, "MTRRdefType").both(Read::Mtrr, Write::Mtrr),
    Register::range(0x400, 0x47f, "IA32_MC0_CTL").read(Read::MachineCheckBank)
        .write(Write::MachineCheckBank),
    Register::msr(0x606, "RAPL_POWER_UNIT").read(ZERO),
    Register::msr(0x611, "PKG_ENERGY_STATUS").read(ZERO),
    Register::msr(0x619, "DRAM_ENERGY_STATUS").read(ZERO),
    Register::msr(0x639, "PP0_ENERGY_STATUS").read(ZERO),
    Register::msr(0x641, "PP1_ENERGY_STATUS").read(ZERO),
    // All indices that the x2APIC reserves. The local APIC denies those without a register.
    Register::range(0x800, 0x8ff, "APIC_BASE_MSR").both(Read::X2apic, Write::X2apic),
    Register::range(0x4000_0000, 0x4000_009f, "HV_X64").both(Read::HyperV, Write::HyperV),
    Register::range(0x4000_00b1, 0x4000_00b7, "HV_X64_STIMER0_COUNT")
        .both(Read::HyperV, Write::HyperV),
    Register::msr(0x4b56_4dff, "KVM_INTERNAL_GUEST_SSP").vendor(BOTH)
        .pre_check(PreCheck::GuestShadowStackPointer),
    Register::msr(0xc000_0080, "EFER").read(Read::Field(Field::Efer)).write(Write::Efer),
    Register::msr(0xc000_0100, "FS_BASE").vendor(BOTH).pre_check(PreCheck::Canonical),
    Register::msr(0xc000_0101, "GS_BASE").vendor(BOTH).pre_check(PreCheck::Canonical),
    Register::msr(0xc001_0010, "AMD64_SYSCFG").read(ZERO),
    // The clock ramp for a K7. Linux guests reprogram any other value: see init_amd_k7().
    Register::msr(0xc001_001b, "K7_CLK_CTL").read(Read::Constant(0x2000_0000)).write(Write::Ignore),
    Register::msr(0xc001_001f, "AMD64_NB_CFG").read(ZERO).write(Write::Ignore),
    Register::msr(0xc001_0020, "AMD64_PATCH_LOADER").write(Write::Ignore),
    Register::msr(0xc001_0055, "K8_INT_PENDING_MSG").read(ZERO),
    Register::msr(0xc001_0058, "FAM10H_MMIO_CONF_BASE").read(ZERO).write(Write::Zero),
    Register::msr(0xc001_0112, "K8_TSEG_ADDR").read(ZERO),
    Register::msr(0xc001_0113, "K8_TSEG_MASK").read(ZERO),
    Register::msr(0xc001_0114, "VM_CR").vendor(AMD),
    Register::msr(0xc001_0115, "VM_IGNNE").vendor(VendorSet::AMD_WRITE),
    Register::msr(0xc001_0140, "AMD64_OSVW_ID_LENGTH")
        .permission(Permission::FeatureElseInvalid(Feature::Osvw)).field(Field::OsvwLength),
    Register::msr(0xc001_0141, "AMD64_OSVW_STATUS").permission(Permission::FeatureElseInvalid(Feature::Osvw))
        .field(Field::OsvwStatus),
    Register::msr(0xc001_1021, "F15H_IC_CFG").vendor(VendorSet::AMD_READ),
    Register::msr(0xc001_1022, "AMD64_DC_CFG").read(ZERO).write(Write::Ignore),
    Register::msr(0xc001_1023, "AMD64_TW_CFG").read(ZERO).write(Write::Ignore),
    Register::msr(0xc001_102a, "AMD64_BU_CFG2").read(ZERO).write(Write::Ignore),
    Register::msr(0xc001_102c, "F15H_EX_CFG").read(ZERO).write(Write::Ignore),
];
