// SPDX-License-Identifier: GPL-2.0

//! Which accesses the vendor module serves.

/// The host's kind of hardware virtualization, which decides on the vendor module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Vendor {
    /// VMX, by kvm-intel: Intel, Centaur and Zhaoxin.
    Intel = 0,
    /// SVM, by kvm-amd: AMD and Hygon.
    Amd = 1,
}

/// The accesses to an MSR that go to the vendor module, for each [`Vendor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VendorSet([u8; 2]);

impl VendorSet {
    const READ: u8 = 1 << 0;
    const WRITE: u8 = 1 << 1;
    const NESTED_READ: u8 = 1 << 2;
    /// Set with [`Self::WRITE`] only.
    const UNCHECKED_WRITE: u8 = 1 << 3;

    pub(super) const NONE: Self = Self([0, 0]);
    pub(super) const AMD: Self = Self([0, Self::READ | Self::WRITE]);
    pub(super) const AMD_READ: Self = Self([0, Self::READ]);
    pub(super) const AMD_WRITE: Self = Self([0, Self::WRITE]);
    pub(super) const AMD_NESTED_READ: Self = Self([0, Self::NESTED_READ]);
    pub(super) const INTEL: Self = Self([Self::READ | Self::WRITE, 0]);
    pub(super) const INTEL_WRITE: Self = Self([Self::WRITE, 0]);
    pub(super) const BOTH: Self = Self::AMD.and(Self::INTEL);

    /// The union of two sets.
    pub(super) const fn and(self, other: Self) -> Self {
        let Self([intel, amd]) = self;
        let Self([other_intel, other_amd]) = other;

        Self([intel | other_intel, amd | other_amd])
    }

    /// The same set, given that the engine checks nothing before the vendor module gets a write.
    pub(super) const fn unchecked(self) -> Self {
        let Self([mut intel, mut amd]) = self;

        if intel & Self::WRITE != 0 {
            intel |= Self::UNCHECKED_WRITE;
        }
        if amd & Self::WRITE != 0 {
            amd |= Self::UNCHECKED_WRITE;
        }
        Self([intel, amd])
    }

    /// Whether the vendor module serves reads while the vCPU runs L1.
    #[inline]
    pub(crate) const fn reads(self, vendor: Vendor) -> bool {
        self.0[vendor as usize] & Self::READ != 0
    }

    /// Whether the vendor module serves reads while L2 runs.
    #[inline]
    pub(crate) fn reads_nested(self, vendor: Vendor) -> bool {
        self.0[vendor as usize] & Self::NESTED_READ != 0
    }

    /// Whether the vendor module serves writes.
    #[inline]
    pub(crate) const fn writes(self, vendor: Vendor) -> bool {
        self.0[vendor as usize] & Self::WRITE != 0
    }

    /// Whether the vendor module serves writes, and the engine checks nothing before.
    #[inline]
    pub(crate) fn writes_unchecked(self, vendor: Vendor) -> bool {
        self.0[vendor as usize] & Self::UNCHECKED_WRITE != 0
    }
}
