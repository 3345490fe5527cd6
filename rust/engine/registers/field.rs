// SPDX-License-Identifier: GPL-2.0

//! The values that KVM keeps for a vCPU's MSRs.

enum_of_c! {
    /// A value of 64 bits that KVM keeps for each vCPU, by its place in `struct kvm_vcpu`.
    Field, with_fields:
    ApicBase = arch.apic_base,
    ArchCapabilities = arch.arch_capabilities,
    AsyncPfEn = arch.apf.msr_en_val,
    AsyncPfInt = arch.apf.msr_int_val,
    Efer = arch.efer,
    Hwcr = arch.msr_hwcr,
    McgCap = arch.mcg_cap,
    McgCtl = arch.mcg_ctl,
    McgStatus = arch.mcg_status,
    MicrocodeVersion = arch.microcode_version,
    MiscEnable = arch.ia32_misc_enable_msr,
    MiscFeaturesEnables = arch.msr_misc_features_enables,
    OsvwLength = arch.osvw.length,
    OsvwStatus = arch.osvw.status,
    Pat = arch.pat,
    PerfCapabilities = arch.perf_capabilities,
    PlatformInfo = arch.msr_platform_info,
    PollControl = arch.msr_kvm_poll_control,
    PowerCtl = arch.msr_ia32_power_ctl,
    PvEoi = arch.pv_eoi.msr_val,
    Smbase = arch.smbase,
    SmiCount = arch.smi_count,
    StealTime = arch.st.msr_val,
    SystemTime = arch.time,
    TscAdjust = arch.ia32_tsc_adjust_msr,
    XfdErr = arch.guest_fpu.xfd_err,
    Xss = arch.ia32_xss,
}
