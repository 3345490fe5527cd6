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
    Vendor,
    VendorSet,
    Write, //
};
use crate::engine::access::XEN;

/// The name, rules and lists of an MSR, or of adjacent MSRs with the same rules.
///
/// The members that an access needs come first, so that they share a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Register {
    /// The accesses that the vendor module serves.
    pub(crate) vendor: VendorSet,
    /// The check before the vendor module gets the access.
    pub(crate) pre_check: PreCheck,
    /// Whether [`Self::pre_check`] applies to reads.
    pub(crate) pre_checks_reads: bool,
    /// Whether the MSR is part of the guest's FPU state, which must be loaded for an access.
    pub(crate) is_xstate: bool,
    /// Whether the MSR is a feature MSR.
    pub(crate) feature: FeatureMsr,
    /// Whether [`Self::read`] is one of the frequent kinds and the only rule for reads. It does not
    /// hold for a vCPU that runs L2 or whose state is encrypted.
    pub(crate) is_simple_read: bool,
    /// Whether [`Self::write`] only stores or drops the value, whoever writes it, and is the only
    /// rule for writes that the vendor module does not serve.
    pub(crate) is_stored: bool,
    /// Whether [`Self::write`] only stores or drops the value, nothing is checked before, and no
    /// vendor module serves writes.
    pub(crate) is_simple_write: bool,
    /// Who may read.
    pub(crate) read_permission: Permission,
    /// Who may write.
    pub(crate) write_permission: Permission,
    /// How the MSR is read.
    pub(crate) read: Read,
    /// How the MSR is written.
    pub(crate) write: Write,
    /// The first index.
    pub(crate) first: u32,
    /// The last index.
    pub(crate) last: u32,
    /// Whether `KVM_GET_MSR_INDEX_LIST` has the MSR.
    pub(crate) listed: Listed,
    /// How many MSRs of that list are declared before this one, or [`None`] if the list does not
    /// have it.
    pub(crate) list_position: Option<u16>,
    /// The name in `asm/msr-index.h`, without `MSR_`. Used by the generated reference only.
    #[allow(dead_code)]
    pub(crate) name: &'static str,
}

impl Register {
    /// Declares a range of MSRs without rules.
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

    /// Declares an MSR without rules.
    pub(super) const fn msr(index: u32, name: &'static str) -> Self {
        Self::range(index, index, name)
    }

    /// The maximum number of this declaration's MSRs in `KVM_GET_MSR_INDEX_LIST`.
    pub(super) const fn nr_listed(&self) -> u16 {
        match self.listed {
            Listed::No => 0,
            _ => (self.last - self.first) as u16 + 1,
        }
    }

    /// Computes the members that derive from the rules, and from the number of listed MSRs before
    /// this one.
    pub(super) const fn finished(mut self, listed_before: u16) -> Self {
        self.pre_checks_reads = self.pre_check.concerns_reads();
        self.is_xstate = matches!(self.read, Read::Xstate);
        assert!(self.pre_checks_reads || !self.is_xstate);
        self.is_simple_read =
            matches!(self.read, Read::Field(_) | Read::Constant(_) | Read::HyperV)
                && matches!(self.read_permission, Permission::Everybody)
                && !self.pre_checks_reads
                && !self.vendor.reads(Vendor::Amd)
                && !self.vendor.reads(Vendor::Intel);
        let is_unconditional = matches!(self.write_permission, Permission::Everybody)
            // A guest write may set up Xen's hypercall page.
            && !(self.first <= *XEN.end() && *XEN.start() <= self.last);
        self.is_stored =
            is_unconditional && matches!(self.write, Write::Field(_) | Write::Ignore | Write::Pat);
        if matches!(self.pre_check, PreCheck::None)
            && !matches!(self.feature, FeatureMsr::Immutable)
            && !self.is_xstate
        {
            self.is_simple_write = is_unconditional
                && (self.is_stored || matches!(self.write, Write::HostField(_)))
                && !self.vendor.writes(Vendor::Amd)
                && !self.vendor.writes(Vendor::Intel);
            self.vendor = self.vendor.unchecked();
        }
        if self.nr_listed() != 0 {
            self.list_position = Some(listed_before);
        }
        self
    }

    /// Sets the accesses that the vendor modules serve.
    pub(super) const fn vendor(mut self, set: VendorSet) -> Self {
        self.vendor = set;
        self
    }

    pub(super) const fn pre_check(mut self, pre_check: PreCheck) -> Self {
        self.pre_check = pre_check;
        self
    }

    /// Sets who may read and write.
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

    /// Makes the MSR a stored value without any checks.
    pub(super) const fn field(self, field: Field) -> Self {
        self.read(Read::Field(field)).write(Write::Field(field))
    }

    /// Sets how the MSR is read and written.
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

    /// Declares an MSR of Hyper-V that `KVM_GET_MSR_INDEX_LIST` has.
    pub(super) const fn hyperv(index: u32, name: &'static str) -> Self {
        Self::msr(index, name)
            .both(Read::HyperV, Write::HyperV)
            .listed(Listed::EmulatedHyperV)
    }

    /// Whether this is not a declaration, but the rules for all indices without one.
    pub(crate) const fn is_undeclared(&self) -> bool {
        self.last == u32::MAX
    }

    /// Whether the MSR is a feature MSR whose value can't change once the vCPU has run.
    #[inline]
    pub(crate) fn is_immutable(&self) -> bool {
        self.feature == FeatureMsr::Immutable
    }
}
