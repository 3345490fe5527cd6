// SPDX-License-Identifier: GPL-2.0

//! KVM's paravirtual features.
//!
//! Source: `Documentation/virt/kvm/x86/msr.rst`.

use super::Vcpu;
use crate::{
    bindings,
    engine::{
        access::Result,
        cpu::Paravirtual,
        exit::INVALID, //
    },
    kvm::{
        exit::to_result,
        Section, //
    },
};

const NANOSECONDS: u64 = 1_000_000_000;
const CLOCK_SIZE: usize = size_of::<bindings::pvclock_vcpu_time_info>();
/// The size of the data with which the guest and KVM tell each other about a page fault.
const TOKEN_SIZE: usize = size_of::<u64>();

/// Writes the wall clock time at which the guest's clock was 0 to the guest's memory, as a `struct
/// pvclock_wall_clock`. The version is odd during the update, so that the guest retries.
///
/// If the guest has no memory there, nothing is written, and the guest's WRMSR succeeds
/// nevertheless.
fn write_wall_clock(section: &Section<'_>, address: u64) {
    let Some(old) = section.read_guest(address) else {
        return;
    };
    // The old version may be odd already, as the guest need not initialize its memory.
    let odd = u32::from_ne_bytes(old).wrapping_add(1) | 1;

    if !section.write_guest(address, &odd.to_ne_bytes()) {
        return;
    }
    // SAFETY: The section's VM is valid.
    let epoch = unsafe { bindings::kvm_get_wall_clock_epoch(section.vm().as_raw()) };
    // The ABI has 32 bits for the seconds, which overflow in 2106.
    let (seconds, nanoseconds) = ((epoch / NANOSECONDS) as u32, (epoch % NANOSECONDS) as u32);
    let mut clock = [0; 12];

    for (bytes, value) in clock.chunks_exact_mut(4).zip([odd, seconds, nanoseconds]) {
        bytes.copy_from_slice(&value.to_ne_bytes());
    }
    section.write_guest(address, &clock);
    section.write_guest(address, &odd.wrapping_add(1).to_ne_bytes());
}

impl Vcpu {
    /// The state that all vCPUs of the VM share. Other vCPUs may use it concurrently.
    fn vm_arch(&self) -> *mut bindings::kvm_arch {
        // SAFETY: `self` is a valid vCPU of a valid VM.
        unsafe { &raw mut (*(*self.as_raw()).kvm).arch }
    }
}

// Functions that enter a section are not inlined: otherwise all writes of MSRs would save registers
// for it.
impl Paravirtual for Vcpu {
    fn wall_clock(&self) -> u64 {
        // SAFETY: The VM's state is valid. As in C, another vCPU may write concurrently.
        unsafe { (&raw const (*self.vm_arch()).wall_clock).read_volatile() }
    }

    #[inline(never)]
    fn set_wall_clock(&self, address: u64) {
        // SAFETY: The VM's state is valid. As in C, another vCPU may read or write concurrently.
        unsafe { (&raw mut (*self.vm_arch()).wall_clock).write_volatile(address) };

        if address != 0 {
            write_wall_clock(&self.vm().read_section(), address);
        }
    }

    fn boot_clock_is_old(&self) -> bool {
        // SAFETY: The VM's state is valid. Only the boot vCPU writes this.
        unsafe { (&raw const (*self.vm_arch()).boot_vcpu_runs_old_kvmclock).read_volatile() }
    }

    fn set_boot_clock_is_old(&self, old: bool) {
        // SAFETY: The VM's state is valid. As in C, other vCPUs may read concurrently.
        unsafe { (&raw mut (*self.vm_arch()).boot_vcpu_runs_old_kvmclock).write_volatile(old) }
    }

    #[inline(never)]
    fn set_clock_address(&self, address: Option<u64>) {
        // SAFETY: `self` is a valid vCPU.
        let clock = unsafe { &raw mut (*self.as_raw()).arch.pv_time };

        let Some(address) = address else {
            // SAFETY: This task has the vCPU loaded, so nobody else uses its clock.
            return unsafe { bindings::kvm_gpc_deactivate(clock) };
        };
        // The function looks up the guest's memory, which requires a section.
        let _section = self.vm().read_section();

        // If this fails, the guest's WRMSR succeeds nevertheless, as in C.
        // SAFETY: This task has the vCPU loaded, so nobody else uses its clock, and is in a section
        // of its VM's `kvm->srcu`.
        unsafe { bindings::kvm_gpc_activate(clock, address, CLOCK_SIZE) };
    }

    #[inline(never)]
    fn set_async_pf_address(&self, address: u64) -> Result {
        // The function looks up the guest's memory, which requires a section.
        let _section = self.vm().read_section();

        // SAFETY: `self` is a valid vCPU that this task has loaded, in a section of its VM's
        // `kvm->srcu`.
        let ret = unsafe {
            let cache = &raw mut (*self.as_raw()).arch.apf.data;

            bindings::kvm_gfn_to_hva_cache_init(self.vm().as_raw(), cache, address, TOKEN_SIZE)
        };

        to_result(ret)
            // For an invalid address it returns an errno, which would fail KVM_RUN instead of
            // injecting #GP.
            .map_err(|_| INVALID)
    }

    fn wake_async_pf(&self) {
        // Without memory this fails, which C ignores, too: KVM reports each page separately then.
        // SAFETY: `self` is a valid vCPU that this task has loaded, so nobody else uses its queue.
        unsafe { bindings::kvm_async_pf_wakeup_all(self.as_raw()) };
    }

    fn clear_async_pf(&self) {
        // SAFETY: `self` is a valid vCPU that this task has loaded, so nobody else uses its queue.
        unsafe { bindings::kvm_msr_glue_clear_async_pf(self.as_raw()) }
    }

    fn set_async_pf_vector(&self, vector: u8) {
        // SAFETY: `self` is a valid vCPU that this task has loaded, and only this task uses the
        // vector.
        unsafe { (*self.as_raw()).arch.apf.vec = vector.into() }
    }

    fn acknowledge_async_pf(&self) {
        // SAFETY: `self` is a valid vCPU that this task has loaded, so nobody else uses its queue.
        unsafe { bindings::kvm_msr_glue_acknowledge_async_pf(self.as_raw()) }
    }
}
