// SPDX-License-Identifier: GPL-2.0

//! What MSRs are made of: KVM's state of a vCPU, and those parts of KVM that have MSRs of their
//! own.

use super::{
    Denial,
    Vcpu, //
};
use crate::bindings;
use core::mem::offset_of;

/// The keys of the static calls that are made here. objtool ties each call to the key that it finds
/// in the same object, and without one the module could not be loaded.
#[used]
static STATIC_CALL_KEYS: StaticCallKeys = StaticCallKeys([
    &raw const bindings::__SCK__kvm_x86_get_msr,
    &raw const bindings::__SCK__kvm_x86_set_msr,
]);

#[expect(dead_code, reason = "only objtool looks at them")]
struct StaticCallKeys([*const bindings::static_call_key; 2]);

// SAFETY: Nobody follows the pointers.
unsafe impl Sync for StaticCallKeys {}

/// The place of a value of 64 bits in `struct kvm_vcpu`.
///
/// # Invariants
///
/// It is the offset of a [`Word`].
#[derive(Clone, Copy)]
pub(crate) struct Place(u16);

/// An integer of 64 bits.
trait Word {}

impl Word for u64 {}
impl Word for i64 {}

const fn check_type<T: Word>(_: fn(&bindings::kvm_vcpu) -> &T) {}

macro_rules! places {
    ($($name:ident = $($field:ident).+,)*) => {
        /// Each is named like the MSR.
        impl Place {
            $(pub(crate) const $name: Self = {
                const OFFSET: usize = offset_of!(bindings::kvm_vcpu, $($field).+);

                check_type(|vcpu| &vcpu.$($field).+);
                assert!(OFFSET <= u16::MAX as usize);
                // INVARIANT: The type was checked.
                Self(OFFSET as u16)
            };)*
        }
    };
}

places! {
    APIC_BASE = arch.apic_base,
    ARCH_CAPABILITIES = arch.arch_capabilities,
    ASYNC_PF_EN = arch.apf.msr_en_val,
    ASYNC_PF_INT = arch.apf.msr_int_val,
    EFER = arch.efer,
    HWCR = arch.msr_hwcr,
    MCG_CAP = arch.mcg_cap,
    MCG_CTL = arch.mcg_ctl,
    MCG_STATUS = arch.mcg_status,
    MICROCODE_VERSION = arch.microcode_version,
    MISC_ENABLE = arch.ia32_misc_enable_msr,
    MISC_FEATURES_ENABLES = arch.msr_misc_features_enables,
    OSVW_LENGTH = arch.osvw.length,
    OSVW_STATUS = arch.osvw.status,
    PAT = arch.pat,
    PERF_CAPABILITIES = arch.perf_capabilities,
    PLATFORM_INFO = arch.msr_platform_info,
    POLL_CONTROL = arch.msr_kvm_poll_control,
    POWER_CTL = arch.msr_ia32_power_ctl,
    PV_EOI = arch.pv_eoi.msr_val,
    SMBASE = arch.smbase,
    SMI_COUNT = arch.smi_count,
    STEAL_TIME = arch.st.msr_val,
    SYSTEM_TIME = arch.time,
    TSC_ADJUST = arch.ia32_tsc_adjust_msr,
    XFD_ERR = arch.guest_fpu.xfd_err,
    XSS = arch.ia32_xss,
}

/// A CPUID feature, by the leaf and bit that KVM keeps it at.
#[derive(Clone, Copy)]
pub(crate) struct CpuidBit(u32);

macro_rules! cpuid_bits {
    ($($name:ident = $constant:ident,)*) => {
        /// Each is named like its `X86_FEATURE_*`.
        impl CpuidBit {
            $(pub(crate) const $name: Self = Self(bindings::$constant as u32);)*
        }
    };
}

cpuid_bits! {
    AMD_IBPB = kvm_msr_feature_KVM_MSR_FEATURE_AMD_IBPB,
    ARCH_CAPABILITIES = kvm_msr_feature_KVM_MSR_FEATURE_ARCH_CAPABILITIES,
    AUTOIBRS = kvm_msr_feature_KVM_MSR_FEATURE_AUTOIBRS,
    FLUSH_L1D = kvm_msr_feature_KVM_MSR_FEATURE_FLUSH_L1D,
    FXSR_OPT = kvm_msr_feature_KVM_MSR_FEATURE_FXSR_OPT,
    GP_ON_USER_CPUID = kvm_msr_feature_KVM_MSR_FEATURE_GP_ON_USER_CPUID,
    IBT = kvm_msr_feature_KVM_MSR_FEATURE_IBT,
    INTEL_PT = kvm_msr_feature_KVM_MSR_FEATURE_INTEL_PT,
    LA57 = kvm_msr_feature_KVM_MSR_FEATURE_LA57,
    LM = kvm_msr_feature_KVM_MSR_FEATURE_LM,
    NX = kvm_msr_feature_KVM_MSR_FEATURE_NX,
    OSVW = kvm_msr_feature_KVM_MSR_FEATURE_OSVW,
    PDCM = kvm_msr_feature_KVM_MSR_FEATURE_PDCM,
    PERFMON_V2 = kvm_msr_feature_KVM_MSR_FEATURE_PERFMON_V2,
    RDPID = kvm_msr_feature_KVM_MSR_FEATURE_RDPID,
    RDTSCP = kvm_msr_feature_KVM_MSR_FEATURE_RDTSCP,
    SBPB = kvm_msr_feature_KVM_MSR_FEATURE_SBPB,
    SHSTK = kvm_msr_feature_KVM_MSR_FEATURE_SHSTK,
    SPEC_CTRL = kvm_msr_feature_KVM_MSR_FEATURE_SPEC_CTRL,
    SVM = kvm_msr_feature_KVM_MSR_FEATURE_SVM,
    TSC_ADJUST = kvm_msr_feature_KVM_MSR_FEATURE_TSC_ADJUST,
    VMX = kvm_msr_feature_KVM_MSR_FEATURE_VMX,
    WAITPKG = kvm_msr_feature_KVM_MSR_FEATURE_WAITPKG,
    XFD = kvm_msr_feature_KVM_MSR_FEATURE_XFD,
    XMM3 = kvm_msr_feature_KVM_MSR_FEATURE_XMM3,
}

impl CpuidBit {
    /// The bit in the leaves of a guest, or of what KVM offers.
    #[inline]
    pub(super) fn is_set(self, leaves: &[u32]) -> bool {
        leaves
            .get((self.0 / u32::BITS) as usize)
            .is_some_and(|leaf| leaf >> (self.0 % u32::BITS) & 1 != 0)
    }

    pub(super) fn number(self) -> u32 {
        self.0
    }
}

/// What KVM can be asked to do before the vCPU runs again.
#[derive(Clone, Copy)]
pub(crate) enum KvmRequest {
    Clock,
    GlobalClock,
    MasterClock,
    Intercepts,
    StealTime,
}

/// The banks of machine checks, whose number is a power of two: an index that is cut to it can't
/// be past the end, speculatively or not.
const MCE_BANKS: usize = bindings::KVM_MSR_MCE_BANKS as usize;
const MCE_VALUES: usize = MCE_BANKS * 4;
const _: () = assert!(MCE_BANKS.is_power_of_two());

pub(super) fn to_result(ret: i32) -> Result<(), Denial> {
    Denial::new(ret).map_or(Ok(()), Err)
}

fn msr_data(index: u32, data: u64, host: bool) -> bindings::msr_data {
    bindings::msr_data {
        host_initiated: host,
        index,
        data,
    }
}

/// Calls with a place for the value.
fn read_with(read: impl FnOnce(*mut u64) -> i32) -> Result<u64, Denial> {
    let mut data = 0;

    to_result(read(&mut data))?;
    Ok(data)
}

impl<P: Send + Sync> Vcpu<P> {
    /// Reads a value that KVM keeps for the vCPU.
    #[inline]
    pub(crate) fn value(&self, place: Place) -> u64 {
        // SAFETY: By the type invariants of both, and nobody else writes it.
        unsafe {
            self.as_raw()
                .cast::<u64>()
                .byte_add(usize::from(place.0))
                .read()
        }
    }

    /// Stores a value that KVM keeps for the vCPU.
    #[inline]
    pub(crate) fn set_value(&self, place: Place, value: u64) {
        // SAFETY: By the type invariants of both, and nobody else uses it.
        unsafe {
            self.as_raw()
                .cast::<u64>()
                .byte_add(usize::from(place.0))
                .write(value)
        }
    }

    /// Whether the guest has a feature, as far as KVM supports that.
    #[inline]
    pub(crate) fn has_cpuid(&self, bit: CpuidBit) -> bool {
        // SAFETY: By the type invariants.
        bit.is_set(unsafe { &(*self.as_raw()).arch.cpu_caps })
    }

    /// Whether the guest has a paravirtual feature. Unless user space wants them enforced, guests
    /// may have them all.
    #[inline]
    pub(crate) fn has_pv_feature(&self, bit: u32) -> bool {
        // SAFETY: By the type invariants.
        let cpuid = unsafe { &(*self.as_raw()).arch.pv_cpuid };

        !cpuid.enforce || cpuid.features >> (bit % u32::BITS) & 1 != 0
    }

    /// Whether CPUID has XSAVES.
    pub(crate) fn cpuid_has_xsaves(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_has_xsaves(self.as_raw()) }
    }

    /// Whether the vCPU is, to its guest, from Intel or somebody compatible.
    pub(crate) fn cpuid_is_intel_compatible(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_is_intel_compatible(self.as_raw()) }
    }

    /// Whether the vCPU is, to its guest, from AMD or somebody compatible.
    pub(crate) fn cpuid_is_amd_compatible(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_is_amd_compatible(self.as_raw()) }
    }

    /// Whether paging is on.
    pub(crate) fn has_paging(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_is_paging(self.as_raw()) }
    }

    /// The vCPU's ID.
    pub(crate) fn id(&self) -> i32 {
        // SAFETY: By the type invariants.
        unsafe { (*self.as_raw()).vcpu_id }
    }

    /// Whether the local APIC is in the kernel.
    pub(crate) fn has_lapic_in_kernel(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_has_lapic(self.as_raw()) }
    }

    /// Whether the guest's own guest, L2, runs.
    #[inline]
    pub(crate) fn is_in_guest_mode(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { (*self.as_raw()).arch.hflags & bindings::HF_GUEST_MASK != 0 }
    }

    /// Whether the guest's state is encrypted.
    #[inline]
    pub(crate) fn has_protected_state(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { (*self.as_raw()).arch.guest_state_protected }
    }

    /// Whether the guest's TSC can't be changed.
    pub(crate) fn has_protected_tsc(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { (*self.as_raw()).arch.guest_tsc_protected }
    }

    /// The bits of `IA32_XSS` that the guest supports.
    pub(crate) fn xss_mask(&self) -> u64 {
        // SAFETY: By the type invariants.
        unsafe { (*self.as_raw()).arch.guest_supported_xss }
    }

    /// The bits of XCR0 that the guest supports.
    pub(crate) fn xcr0_mask(&self) -> u64 {
        // SAFETY: By the type invariants.
        unsafe { (*self.as_raw()).arch.guest_supported_xcr0 }
    }

    /// Whether MONITOR in CPUID is independent of `IA32_MISC_ENABLE`, as it always was.
    pub(crate) fn has_misc_enable_quirk(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_misc_enable_is_quirky(self.as_raw()) }
    }

    /// Has the bits of CPUID that follow the vCPU's state be worked out anew.
    pub(crate) fn mark_cpuid_dirty(&self) {
        // SAFETY: By the type invariants.
        unsafe { (*self.as_raw()).arch.cpuid_dynamic_bits_dirty = true }
    }

    /// Has the vendor module read an MSR.
    #[inline]
    pub(crate) fn vendor_get(&self, index: u32, host: bool) -> Result<u64, Denial> {
        let mut msr = msr_data(index, 0, host);

        // SAFETY: By the type invariants.
        to_result(unsafe { bindings::__SCT__kvm_x86_get_msr(self.as_raw(), &mut msr) })?;
        Ok(msr.data)
    }

    /// Has the vendor module write an MSR.
    #[inline]
    pub(crate) fn vendor_set(&self, index: u32, data: u64, host: bool) -> Result<(), Denial> {
        let mut msr = msr_data(index, data, host);

        // SAFETY: By the type invariants.
        to_result(unsafe { bindings::__SCT__kvm_x86_set_msr(self.as_raw(), &mut msr) })
    }

    /// Has the vendor module set EFER.
    pub(crate) fn set_vendor_efer(&self, efer: u64) -> Result<(), Denial> {
        // SAFETY: By the type invariants.
        to_result(unsafe { bindings::kvm_msr_glue_vendor_set_efer(self.as_raw(), efer) })
    }

    /// Has the MMU, and Hyper-V, see to a change of EFER.
    pub(crate) fn note_efer(&self, old: u64, new: u64) {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_efer_changed(self.as_raw(), old, new) }
    }

    /// Whether the PMU has an MSR.
    pub(crate) fn pmu_knows(&self, index: u32) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_pmu_is_valid_msr(self.as_raw(), index) }
    }

    /// Reads an MSR of the PMU.
    pub(crate) fn pmu_get(&self, index: u32, host: bool) -> Result<u64, Denial> {
        let mut msr = msr_data(index, 0, host);

        // SAFETY: By the type invariants.
        to_result(unsafe { bindings::kvm_pmu_get_msr(self.as_raw(), &mut msr) })?;
        Ok(msr.data)
    }

    /// Writes an MSR of the PMU.
    pub(crate) fn pmu_set(&self, index: u32, data: u64, host: bool) -> Result<(), Denial> {
        let mut msr = msr_data(index, data, host);

        // SAFETY: By the type invariants.
        to_result(unsafe { bindings::kvm_pmu_set_msr(self.as_raw(), &mut msr) })
    }

    /// Has the PMU take the vCPU's model anew.
    pub(crate) fn pmu_refresh(&self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_pmu_refresh(self.as_raw()) }
    }

    /// Whether the PMU has no interest in instructions that the fast path handles.
    pub(crate) fn pmu_allows_fastpath(&self) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_pmu_allows_fastpath(self.as_raw()) }
    }

    /// Sends what was written to the x2APIC's ICR, if that needs no more than a register of
    /// another vCPU's local APIC. Returns whether it did.
    pub(crate) fn send_ipi_fast(&self, data: u64) -> bool {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_send_ipi_fast(self.as_raw(), data) }
    }

    /// Reads a memory type range register.
    pub(crate) fn mtrr(&self, index: u32) -> Result<u64, Denial> {
        // SAFETY: By the type invariants.
        read_with(|data| unsafe { bindings::kvm_mtrr_get_msr(self.as_raw(), index, data) })
    }

    /// Writes a memory type range register.
    pub(crate) fn set_mtrr(&self, index: u32, data: u64) -> Result<(), Denial> {
        // SAFETY: By the type invariants.
        to_result(unsafe { bindings::kvm_mtrr_set_msr(self.as_raw(), index, data) })
    }

    /// Reads an MSR of the local APIC.
    pub(crate) fn x2apic(&self, index: u32) -> Result<u64, Denial> {
        // SAFETY: By the type invariants.
        read_with(|data| unsafe { bindings::kvm_x2apic_msr_read(self.as_raw(), index, data) })
    }

    /// Writes an MSR of the local APIC.
    pub(crate) fn set_x2apic(&self, index: u32, data: u64) -> Result<(), Denial> {
        // SAFETY: By the type invariants.
        to_result(unsafe { bindings::kvm_x2apic_msr_write(self.as_raw(), index, data) })
    }

    /// Sets the local APIC's address and mode.
    pub(crate) fn set_lapic_base(&self, data: u64, host: bool) -> Result<(), Denial> {
        // SAFETY: By the type invariants.
        to_result(unsafe { bindings::kvm_apic_set_base(self.as_raw(), data, host) })
    }

    /// When the local APIC's timer expires, by the TSC.
    pub(crate) fn lapic_tsc_deadline(&self) -> u64 {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_get_lapic_tscdeadline_msr(self.as_raw()) }
    }

    /// Sets when the local APIC's timer expires.
    pub(crate) fn set_lapic_tsc_deadline(&self, data: u64) {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_set_lapic_tscdeadline_msr(self.as_raw(), data) }
    }

    /// Sets where the guest is told that an interrupt needs no EOI.
    pub(crate) fn set_lapic_pv_eoi(&self, data: u64) -> Result<(), Denial> {
        // SAFETY: By the type invariants.
        to_result(unsafe { bindings::kvm_lapic_set_pv_eoi(self.as_raw(), data, 1) })
    }

    /// Reads an MSR of Hyper-V.
    pub(crate) fn hyperv(&self, index: u32, host: bool) -> Result<u64, Denial> {
        #[cfg(CONFIG_KVM_HYPERV)]
        return read_with(|data| {
            // SAFETY: By the type invariants.
            unsafe { bindings::kvm_hv_get_msr_common(self.as_raw(), index, data, host) }
        });
        #[cfg(not(CONFIG_KVM_HYPERV))]
        {
            let _ = (index, host);
            to_result(bindings::KVM_MSR_RET_UNSUPPORTED as i32).map(|()| 0)
        }
    }

    /// Writes an MSR of Hyper-V.
    pub(crate) fn set_hyperv(&self, index: u32, data: u64, host: bool) -> Result<(), Denial> {
        #[cfg(CONFIG_KVM_HYPERV)]
        // SAFETY: By the type invariants.
        return to_result(unsafe {
            bindings::kvm_hv_set_msr_common(self.as_raw(), index, data, host)
        });
        #[cfg(not(CONFIG_KVM_HYPERV))]
        {
            let _ = (index, data, host);
            to_result(bindings::KVM_MSR_RET_UNSUPPORTED as i32)
        }
    }

    /// Writes a Xen guest's page of hypercalls, if the MSR is the one for that.
    pub(crate) fn xen_hypercall_page(&self, index: u32, data: u64) -> Option<Result<(), Denial>> {
        #[cfg(CONFIG_KVM_XEN)]
        {
            // SAFETY: By the type invariants. An ioctl may write concurrently, as in C.
            let msr = unsafe {
                (&raw const (*(*self.as_raw()).kvm).arch.xen.hvm_config.msr).read_volatile()
            };

            // 0 says that there is none.
            if msr == 0 || msr != index {
                return None;
            }
            // SAFETY: By the type invariants.
            Some(to_result(unsafe {
                bindings::kvm_xen_write_hypercall_page(self.as_raw(), data)
            }))
        }
        #[cfg(not(CONFIG_KVM_XEN))]
        {
            let _ = (index, data);
            None
        }
    }

    /// Reads an MSR from the guest's FPU state, which must be loaded.
    pub(crate) fn xstate(&self, index: u32) -> u64 {
        // SAFETY: By the type invariants. KVM kills the VM if the state is not loaded.
        unsafe { bindings::kvm_msr_glue_xstate_read(self.as_raw(), index) }
    }

    /// Writes an MSR to the guest's FPU state, which must be loaded.
    pub(crate) fn set_xstate(&self, index: u32, data: u64) {
        // SAFETY: By the type invariants. KVM kills the VM if the state is not loaded.
        unsafe { bindings::kvm_msr_glue_xstate_write(self.as_raw(), index, data) }
    }

    /// The guest's features of the FPU that fault.
    pub(crate) fn xfd_mask(&self) -> u64 {
        // SAFETY: By the type invariants a vCPU has FPU state.
        unsafe { (*(*self.as_raw()).arch.guest_fpu.fpstate).xfd }
    }

    /// Sets the guest's features of the FPU that fault.
    pub(crate) fn set_xfd_mask(&self, xfd: u64) {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_set_xfd(self.as_raw(), xfd) }
    }

    /// Asks KVM for something.
    pub(crate) fn make_request(&self, request: KvmRequest) {
        let vcpu = self.as_raw();

        // SAFETY: By the type invariants.
        unsafe {
            match request {
                KvmRequest::Clock => bindings::kvm_msr_glue_request_clock(vcpu),
                KvmRequest::GlobalClock => bindings::kvm_msr_glue_request_global_clock(vcpu),
                KvmRequest::MasterClock => bindings::kvm_msr_glue_request_master_clock(vcpu),
                KvmRequest::Intercepts => bindings::kvm_msr_glue_request_intercepts(vcpu),
                KvmRequest::StealTime => bindings::kvm_msr_glue_request_steal(vcpu),
            }
        }
    }

    /// Where a value of the banks of machine checks is.
    fn mce_value(&self, offset: usize) -> *mut u64 {
        // SAFETY: By the type invariants, a vCPU has as many.
        unsafe { (*self.as_raw()).arch.mce_banks.add(offset % MCE_VALUES) }
    }

    /// Reads a value of the banks of machine checks; of offsets past the end, the remainder
    /// counts.
    pub(crate) fn mce(&self, offset: usize) -> u64 {
        // SAFETY: The place is valid, and by the type invariants nobody else writes it.
        unsafe { self.mce_value(offset).read() }
    }

    /// Stores a value of the banks of machine checks.
    pub(crate) fn set_mce(&self, offset: usize, value: u64) {
        // SAFETY: The place is valid, and by the type invariants nobody else uses it.
        unsafe { self.mce_value(offset).write(value) }
    }

    fn mce_ctl2_value(&self, bank: usize) -> *mut u64 {
        // SAFETY: By the type invariants, a vCPU has as many.
        unsafe { (*self.as_raw()).arch.mci_ctl2_banks.add(bank % MCE_BANKS) }
    }

    /// Reads the second control register of a bank; of banks past the last, the remainder counts.
    pub(crate) fn mce_ctl2_of(&self, bank: usize) -> u64 {
        // SAFETY: The place is valid, and by the type invariants nobody else writes it.
        unsafe { self.mce_ctl2_value(bank).read() }
    }

    /// Stores the second control register of a bank.
    pub(crate) fn set_mce_ctl2_of(&self, bank: usize, value: u64) {
        // SAFETY: The place is valid, and by the type invariants nobody else uses it.
        unsafe { self.mce_ctl2_value(bank).write(value) }
    }

    /// The TSC, as L1 or as whatever runs sees it.
    pub(crate) fn guest_tsc(&self, l1: bool) -> u64 {
        // SAFETY: By the type invariants.
        let arch = unsafe { &(*self.as_raw()).arch };
        let (offset, ratio) = if l1 {
            (arch.l1_tsc_offset, arch.l1_tsc_scaling_ratio)
        } else {
            (arch.tsc_offset, arch.tsc_scaling_ratio)
        };

        // SAFETY: It has no preconditions.
        unsafe { bindings::kvm_msr_glue_scaled_tsc(ratio) }.wrapping_add(offset)
    }

    /// Makes the TSC this, unless that is near what other vCPUs have: then it becomes the same.
    pub(crate) fn synchronise_guest_tsc(&self, mut tsc: u64) {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_synchronize_tsc(self.as_raw(), &mut tsc) }
    }

    /// The TSC's offset to the host's, scaled.
    pub(crate) fn l1_tsc_offset(&self) -> u64 {
        // SAFETY: By the type invariants.
        unsafe { (*self.as_raw()).arch.l1_tsc_offset }
    }

    /// The offset with which the TSC would be this.
    pub(crate) fn l1_tsc_offset_for(&self, tsc: u64) -> u64 {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_compute_l1_tsc_offset(self.as_raw(), tsc) }
    }

    /// Sets the TSC's offset.
    pub(crate) fn set_l1_tsc_offset(&self, offset: u64) {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_vcpu_write_tsc_offset(self.as_raw(), offset) }
    }

    /// Has the vCPU's clock be at the guest's address.
    pub(crate) fn set_clock(&self, address: Option<u64>) {
        // SAFETY: By the type invariants.
        unsafe {
            match address {
                Some(address) => bindings::kvm_msr_glue_set_clock(self.as_raw(), address),
                None => bindings::kvm_msr_glue_clear_clock(self.as_raw()),
            }
        }
    }

    /// Has the guest be told of page faults at its address.
    pub(crate) fn set_async_pf(&self, address: u64) -> Result<(), Denial> {
        // SAFETY: By the type invariants.
        to_result(unsafe { bindings::kvm_msr_glue_set_async_pf(self.as_raw(), address) })
    }

    /// Wakes all who wait for pages.
    pub(crate) fn wake_all_async_pf(&self) {
        // SAFETY: By the type invariants. It fails if there is no memory, and C ignores that too.
        unsafe { bindings::kvm_async_pf_wakeup_all(self.as_raw()) };
    }

    /// Forgets all pages that are waited for.
    pub(crate) fn forget_async_pf(&self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_clear_async_pf(self.as_raw()) }
    }

    /// Sets the vector by which the guest is told that pages are there.
    pub(crate) fn set_async_pf_vec(&self, vector: u8) {
        // SAFETY: By the type invariants.
        unsafe { (*self.as_raw()).arch.apf.vec = vector.into() }
    }

    /// Tells the guest of the next page that is there, if there is any.
    pub(crate) fn next_async_pf(&self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_acknowledge_async_pf(self.as_raw()) }
    }

    /// Says in the log that a write is not implemented.
    pub(crate) fn log_unimplemented(&self, index: u32, data: u64) {
        // SAFETY: By the type invariants.
        unsafe { bindings::kvm_msr_glue_report_unimplemented(self.as_raw(), index, data) }
    }
}
