// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The MSRs that are a vCPU's state.

use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuFd;

use crate::error::Error;
use crate::error::Result;
use crate::state::order::rank;
use crate::state::transfer::read;

const MTRR_CAP: u32 = 0xfe;
const MCG_CAP: u32 = 0x179;

/// MSRs that a guest or a VMM can change, but that KVM does not list.
const UNLISTED: &[(u32, u32)] = &[
    // IA32_SGXLEPUBKEYHASHn
    (0x8c, 0x8f),
    // Fixed-range MTRRs and the default type. MTRRcap has the number of variable ones.
    (0x250, 0x250),
    (0x258, 0x259),
    (0x268, 0x26f),
    (0x2ff, 0x2ff),
    // HV_X64_SVERSION, SIEFP and SIMP, the SINTn, and the timers that KVM_GET_MSR_INDEX_LIST
    // lacks.
    (0x4000_0081, 0x4000_0083),
    (0x4000_0090, 0x4000_009f),
    (0x4000_00b0, 0x4000_00b7),
    // VM_CR
    (0xc001_0114, 0xc001_0114),
    // OSVW_ID_LENGTH and OSVW_STATUS
    (0xc001_0140, 0xc001_0141),
];

/// MSRs that `KVM_SET_SREGS` also restores: IA32_APIC_BASE, EFER, FS_BASE and GS_BASE.
const SREGS: &[u32] = &[0x1b, 0xc000_0080, 0xc000_0100, 0xc000_0101];

/// VMX capabilities that KVM derives from others and from CPUID: PINBASED, PROCBASED, EXIT and
/// ENTRY_CTLS from the TRUE ones, and CR0 and CR4_FIXED1. They can't be written.
const DERIVED: &[u32] = &[0x481, 0x482, 0x483, 0x484, 0x487, 0x489];

/// The MSRs to save.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct List {
    indices: Vec<u32>,
}

impl List {
    /// All MSRs that are state of this vCPU, except those that other ioctls restore: MSRs that KVM
    /// lists, feature MSRs, and MSRs that KVM does not list. They are in an order in which they
    /// can be restored.
    ///
    /// The vCPU has the number of machine-check banks and of MTRRs, so create the list after
    /// `KVM_X86_SETUP_MCE`.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`] if an ioctl fails.
    pub fn new(kvm: &Kvm, vcpu: &VcpuFd) -> Result<Self> {
        let saved = kvm
            .get_msr_index_list()
            .map_err(Error::kvm("KVM_GET_MSR_INDEX_LIST"))?;
        let features = feature_list(kvm)?;
        let mut indices = saved.as_slice().to_vec();

        indices.extend(features.iter().filter(|&index| !DERIVED.contains(index)));
        indices.extend(UNLISTED.iter().flat_map(|&(first, last)| first..=last));
        if let [mtrr_cap, mcg_cap] = read(vcpu, &[MTRR_CAP, MCG_CAP])?[..] {
            let ranges = mtrr_cap.unwrap_or(0) as u32 & 0xff;
            let banks = mcg_cap.unwrap_or(0) as u32 & 0xff;

            // A base and a mask each.
            indices.extend((0x200..).take(2 * ranges as usize));
            // IA32_MCn_CTL2, and CTL, STATUS, ADDR and MISC.
            indices.extend((0x280..).take(banks as usize));
            indices.extend((0x400..).take(4 * banks as usize));
        }
        Ok(Self::from_indices(indices))
    }

    /// Adds EFER, IA32_APIC_BASE, FS_BASE and GS_BASE, for callers that do not use
    /// `KVM_SET_SREGS`, or that compare.
    #[must_use]
    pub fn with_sregs(self) -> Self {
        let mut indices = self.indices;

        indices.extend(SREGS);
        Self::from_indices(indices)
    }

    /// Removes some.
    #[must_use]
    pub fn without(mut self, indices: &[u32]) -> Self {
        self.indices.retain(|index| !indices.contains(index));
        self
    }

    /// Their indices, in the order in which they can be restored.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    fn from_indices(mut indices: Vec<u32>) -> Self {
        indices.sort_by_key(|&index| (rank(index), index));
        indices.dedup();
        List { indices }
    }
}

/// `KVM_GET_MSR_FEATURE_INDEX_LIST`
pub(crate) fn feature_list(kvm: &Kvm) -> Result<Vec<u32>> {
    Ok(kvm
        .get_msr_feature_index_list()
        .map_err(Error::kvm("KVM_GET_MSR_FEATURE_INDEX_LIST"))?
        .as_slice()
        .to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_each_msr_once_and_in_order() {
        let list = List::from_indices(vec![0x6e0, 0x10, 0x140, 0xce, 0x10]).with_sregs();

        assert_eq!(
            list.indices(),
            [
                0xce,
                0x10,
                0x1b,
                0xc000_0080,
                0x140,
                0xc000_0100,
                0xc000_0101,
                0x6e0
            ]
        );
        assert_eq!(list.without(SREGS).indices(), [0xce, 0x10, 0x140, 0x6e0]);
    }
}
