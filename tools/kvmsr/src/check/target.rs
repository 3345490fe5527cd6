// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The scratch vCPUs of a check.

use kvm_bindings::KVM_CAP_HYPERV_SYNIC2;
use kvm_bindings::kvm_enable_cap;
use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::Kvm;

use crate::cpuid::Cpuid;
use crate::error::Error;
use crate::error::Result;
use crate::ioctl;
use crate::scratch::Scratch;
use crate::scratch::Setup;
use crate::state;

/// How to make vCPUs on which a list of MSRs can be restored, like a VMM.
pub(super) struct Target<'a> {
    pub(super) kvm: &'a Kvm,
    pub(super) cpuid: Cpuid,
    pub(super) mcg_cap: Option<u64>,
    /// Whether the list has state of Hyper-V's synthetic interrupt controller, which KVM otherwise
    /// refuses.
    pub(super) synic: bool,
    /// Addresses in guest memory that the list has.
    pub(super) pages: Vec<u64>,
    pub(super) after_run: bool,
}

impl<'a> Target<'a> {
    /// What the list needs.
    pub(super) fn new(
        kvm: &'a Kvm,
        entries: &[kvm_msr_entry],
        cpuid: Cpuid,
        mcg_cap: Option<u64>,
        after_run: bool,
    ) -> Self {
        let mut pages: Vec<_> = entries.iter().filter_map(page).collect();

        pages.sort_unstable();
        pages.dedup();
        Target {
            kvm,
            cpuid,
            mcg_cap,
            synic: entries
                .iter()
                .any(|entry| state::is_synic(entry.index) && entry.data != 0),
            pages,
            after_run,
        }
    }

    /// A vCPU that has run, if the list is for one that has.
    pub(super) fn vcpu(&self) -> Result<Scratch> {
        let mut vcpu = self.fresh()?;

        if self.after_run {
            vcpu.run_once()?;
        }
        Ok(vcpu)
    }

    /// A vCPU that has not run.
    pub(super) fn fresh(&self) -> Result<Scratch> {
        let mut scratch = Scratch::new(
            self.kvm,
            &Setup {
                cpuid: self.cpuid.clone(),
                irqchip: true,
                ..Setup::default()
            },
        )?;

        for &page in &self.pages {
            // If KVM can't add memory there, or has some, the list is tried without.
            let _ = scratch.add_page(page);
        }
        if let Some(cap) = self.mcg_cap {
            let supported = ioctl::mce_cap_supported(self.kvm)
                .map_err(Error::kvm("KVM_X86_GET_MCE_CAP_SUPPORTED"))?;

            // If KVM refuses the number of banks, it also refuses the entries of the banks.
            let _ = ioctl::setup_mce(scratch.vcpu(), cap & (supported | 0xff));
        }
        if self.synic {
            let cap = kvm_enable_cap {
                cap: KVM_CAP_HYPERV_SYNIC2,
                ..Default::default()
            };

            // A kernel without the capability refuses the entries.
            let _ = scratch.vcpu().enable_cap(&cap);
        }
        Ok(scratch)
    }
}

/// The page of guest memory that KVM needs to accept the entry.
fn page(entry: &kvm_msr_entry) -> Option<u64> {
    let is_enabled = entry.data & 1 != 0;
    let needs_memory = matches!(
        entry.index,
        // KVM_ASYNC_PF_EN, KVM_PV_EOI_EN, HV_X64_HYPERCALL, HV_X64_VP_ASSIST_PAGE
        0x4b56_4d02 | 0x4b56_4d04 | 0x4000_0001 | 0x4000_0073
    );

    (is_enabled && needs_memory).then_some(entry.data & !0xfff)
}
