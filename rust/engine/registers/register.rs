// SPDX-License-Identifier: GPL-2.0

//! The declaration of an MSR.

use super::{
    Condition,
    FeatureMsr,
    Field,
    Listed,
    Permission,
    PreCheck,
    Read,
    VendorSet,
    Write, //
};
use crate::engine::access::XEN;

/// What is known of an MSR, or of adjacent MSRs with the same rules.
///
/// What an access needs comes first, so that it is in one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Register {
    /// The accesses that the vendor module serves.
    pub(crate) vendor: VendorSet,
    /// What is checked before the vendor module gets the access.
    pub(crate) pre_check: PreCheck,
    /// Whether [`Self::pre_check`] concerns reads.
    pub(crate) pre_checks_reads: bool,
    /// Whether the MSR is in the guest's FPU state, which must be loaded to access it.
    pub(crate) is_xstate: bool,
    /// Whether the MSR describes features.
    pub(crate) feature: FeatureMsr,
    /// Whether no rule but [`Self::read`] applies to a read, which is one of the frequent kinds, as
    /// long as the vCPU does not run L2 and its state is not encrypted.
    pub(crate) is_simple_read: bool,
    /// Whether no rule but [`Self::write`] applies to a write that the vendor module does not serve,
    /// and that only stores or drops the value.
    pub(crate) is_stored: bool,
    /// Whether [`Self::is_stored`], and no vendor module serves writes.
    pub(crate) is_simple_write: bool,
    /// Who may read.
    pub(crate) read_permission: Permission,
    /// Who may write.
    pub(crate) write_permission: Permission,
    /// How it is read.
    pub(crate) read: Read,
    /// How it is written.
    pub(crate) write: Write,
    /// The first index.
    pub(crate) first: u32,
    /// The last index.
    pub(crate) last: u32,
    /// Whether `KVM_GET_MSR_INDEX_LIST` has it.
    pub(crate) listed: Listed,
    /// How many MSRs of that list are declared before this one, if the list has it.
    pub(crate) list_position: Option<u16>,
    /// The name in `asm/msr-index.h`, without `MSR_`. For people.
    #[allow(dead_code)]
    pub(crate) name: &'static str,
}

impl Register {
    /// MSRs without rules.
    pub(super) const fn range(first: u32, last: u32, name: &'static str) -> Self {
        Self {
            vendor: VendorSet::NONE,
            pre_check: PreCheck::None,
            pre_checks_reads: false,
            is_xstate: false,
            feature: FeatureMsr::No,
            is_simple_read: false,
            is_stored: false,
            is_simple_write: false,
            read_permission: Permission::Everybody,
            write_permission: Permission::Everybody,
            read: Read::Unsupported,
            write: Write::Unsupported,
            first,
            last,
            listed: Listed::No,
            list_position: None,
            name,
        }
    }

    /// An MSR without rules.
    pub(super) const fn msr(index: u32, name: &'static str) -> Self {
        Self::range(index, index, name)
    }

    /// How many MSRs of the declaration `KVM_GET_MSR_INDEX_LIST` may have.
    pub(super) const fn nr_listed(&self) -> u16 {
        match self.listed {
            Listed::No => 0,
            _ => (self.last - self.first) as u16 + 1,
        }
    }

    /// Fills in what follows from the rules, and from the number of listed MSRs before this one.
    pub(super) const fn finished(mut self, listed_before: u16) -> Self {
        self.pre_checks_reads = self.pre_check.concerns_reads();
        self.is_xstate = matches!(self.read, Read::Xstate);
        self.is_simple_read =
            matches!(self.read, Read::Field(_) | Read::Constant(_) | Read::HyperV)
                && matches!(self.read_permission, Permission::Everybody)
                && !self.pre_checks_reads
                && !self.vendor.has_reads();
        self.is_stored = matches!(
            self.write,
            Write::Field(_) | Write::HostField(_) | Write::Ignore | Write::Pat
        ) && matches!(self.write_permission, Permission::Everybody)
            // The guest's write may be for Xen's hypercall page.
            && !(self.first <= *XEN.end() && *XEN.start() <= self.last);
        self.is_simple_write =
            self.is_stored && matches!(self.pre_check, PreCheck::None) && !self.vendor.has_writes();
        if self.nr_listed() != 0 {
            self.list_position = Some(listed_before);
        }
        self
    }

    /// The vendor modules serve these accesses.
    pub(super) const fn vendor(mut self, set: VendorSet) -> Self {
        self.vendor = set;
        self
    }

    pub(super) const fn pre_check(mut self, pre_check: PreCheck) -> Self {
        self.pre_check = pre_check;
        self
    }

    /// Who may read and write.
    pub(super) const fn permission(mut self, permission: Permission) -> Self {
        self.read_permission = permission;
        self.write_permission = permission;
        self
    }

    pub(super) const fn write_permission(mut self, permission: Permission) -> Self {
        self.write_permission = permission;
        self
    }

    pub(super) const fn read(mut self, read: Read) -> Self {
        self.read = read;
        self
    }

    pub(super) const fn write(mut self, write: Write) -> Self {
        self.write = write;
        self
    }

    /// A value that is stored as it is written.
    pub(super) const fn field(self, field: Field) -> Self {
        self.read(Read::Field(field)).write(Write::Field(field))
    }

    /// How it is read and written.
    pub(super) const fn both(self, read: Read, write: Write) -> Self {
        self.read(read).write(write)
    }

    const fn listed(mut self, listed: Listed) -> Self {
        self.listed = listed;
        self
    }

    pub(super) const fn saved(self) -> Self {
        self.listed(Listed::Saved(Condition::Always))
    }

    pub(super) const fn saved_if(self, condition: Condition) -> Self {
        self.listed(Listed::Saved(condition))
    }

    pub(super) const fn saved_pmu(self) -> Self {
        self.listed(Listed::SavedPmu(Condition::Always))
    }

    pub(super) const fn saved_pmu_if(self, condition: Condition) -> Self {
        self.listed(Listed::SavedPmu(condition))
    }

    pub(super) const fn emulated(self) -> Self {
        self.listed(Listed::Emulated)
    }

    pub(super) const fn feature(mut self, feature: FeatureMsr) -> Self {
        self.feature = feature;
        self
    }

    /// An MSR of Hyper-V that is in the list.
    pub(super) const fn hyperv(index: u32, name: &'static str) -> Self {
        Self::msr(index, name)
            .both(Read::HyperV, Write::HyperV)
            .listed(Listed::EmulatedHyperV)
    }

    /// Whether the MSR describes features, and can't change once the vCPU has run.
    #[inline]
    pub(crate) fn is_immutable(&self) -> bool {
        self.feature == FeatureMsr::Immutable
    }
}
