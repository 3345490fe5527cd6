// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Filters for `KVM_X86_SET_MSR_FILTER`.

use std::os::fd::AsRawFd;

use kvm_bindings::KVM_MSR_FILTER_DEFAULT_DENY;
use kvm_bindings::KVM_MSR_FILTER_MAX_BITMAP_SIZE;
use kvm_bindings::KVM_MSR_FILTER_MAX_RANGES;
use kvm_bindings::KVM_MSR_FILTER_READ;
use kvm_bindings::KVM_MSR_FILTER_WRITE;

use crate::ioctl;
use crate::ioctl::Abi;
use crate::memory::Mapping;
use crate::outcome::Access;

/// Ranges that fit in one filter.
pub const MAX_RANGES: usize = KVM_MSR_FILTER_MAX_RANGES as usize;

/// Largest number of MSRs in one range.
pub const MAX_MSRS: u32 = KVM_MSR_FILTER_MAX_BITMAP_SIZE * 8;

/// `KVM_MSR_FILTER_READ`.
pub const READ: u32 = KVM_MSR_FILTER_READ;

/// `KVM_MSR_FILTER_WRITE`.
pub const WRITE: u32 = KVM_MSR_FILTER_WRITE;

/// One range of a [`RawFilter`], in the ioctl's layout.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RawRange {
    /// `KVM_MSR_FILTER_READ`, `KVM_MSR_FILTER_WRITE`, or an invalid value.
    pub flags: u32,
    /// Number of MSRs, i.e. of bits in the bitmap.
    pub nmsrs: u32,
    /// MSR index of the bitmap's first bit.
    pub base: u32,
    /// User address of the bitmap.
    pub bitmap: u64,
}

/// `struct kvm_msr_filter`, unchecked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RawFilter {
    /// `KVM_MSR_FILTER_DEFAULT_ALLOW`, `..._DENY`, or an invalid value.
    pub flags: u32,
    /// The ranges.
    pub ranges: [RawRange; MAX_RANGES],
}

impl RawFilter {
    /// The structure's bytes in the layout of `abi`.
    ///
    /// The compat layout has 32-bit pointers, so it truncates `bitmap`.
    pub fn to_bytes(&self, abi: Abi) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Padding of the C structure.
        let gap = |bytes: &mut Vec<u8>| {
            if abi == Abi::Native {
                bytes.extend([0xa5; 4]);
            }
        };

        bytes.extend(self.flags.to_le_bytes());
        gap(&mut bytes);
        for range in &self.ranges {
            bytes.extend(range.flags.to_le_bytes());
            bytes.extend(range.nmsrs.to_le_bytes());
            bytes.extend(range.base.to_le_bytes());
            gap(&mut bytes);
            match abi {
                Abi::Native => bytes.extend(range.bitmap.to_le_bytes()),
                Abi::Compat => bytes.extend((range.bitmap as u32).to_le_bytes()),
            }
        }
        bytes
    }

    /// Calls the ioctl with a copy of this structure.
    pub fn set(&self, abi: Abi, vm: &impl AsRawFd) -> ioctl::Result {
        let bytes = self.to_bytes(abi);
        let mut mapping = Mapping::low(bytes.len())?;

        mapping.write(0, &bytes);
        ioctl::set_msr_filter(abi, vm, mapping.at(0))
    }
}

/// A range of MSR indices with a bitmap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Range {
    flags: u32,
    base: u32,
    nmsrs: u32,
    bitmap: Vec<u8>,
}

impl Range {
    /// Allows the accesses in `flags` ([`READ`], [`WRITE`]) to `nmsrs` MSRs.
    pub fn allow(flags: u32, base: u32, nmsrs: u32) -> Self {
        Self::filled(flags, base, nmsrs, 0xff)
    }

    /// Denies the accesses in `flags` ([`READ`], [`WRITE`]) to `nmsrs` MSRs.
    pub fn deny(flags: u32, base: u32, nmsrs: u32) -> Self {
        Self::filled(flags, base, nmsrs, 0)
    }

    /// Bit `i` of `bitmap` allows or denies MSR `base + i`. Missing bits are 0.
    pub fn from_bitmap(flags: u32, base: u32, nmsrs: u32, bitmap: &[u8]) -> Self {
        let mut range = Self::filled(flags, base, nmsrs, 0);
        let length = bitmap.len().min(range.bitmap.len());

        range.bitmap[..length].copy_from_slice(&bitmap[..length]);
        range
    }

    /// Inverts the bit of MSR `base + offset`.
    pub fn with_flipped(mut self, offset: u32) -> Self {
        self.bitmap[offset as usize / 8] ^= 1 << (offset % 8);
        self
    }

    fn filled(flags: u32, base: u32, nmsrs: u32, byte: u8) -> Self {
        Range {
            flags,
            base,
            nmsrs,
            // KVM copies bitmaps in units of 64 bits.
            bitmap: vec![byte; (nmsrs as usize).div_ceil(64) * 8],
        }
    }

    /// MSR index of the first bit.
    pub fn base(&self) -> u32 {
        self.base
    }

    /// Number of MSRs.
    pub fn nmsrs(&self) -> u32 {
        self.nmsrs
    }

    /// Whether the range allows an access; none if it does not match.
    ///
    /// KVM computes the end in 32 bits, so a range that reaches 2^32 matches nothing.
    pub fn verdict(&self, access: Access, index: u32) -> Option<bool> {
        let end = self.base.wrapping_add(self.nmsrs);

        (index >= self.base && index < end && self.flags & access.flag() != 0).then(|| {
            let bit = index - self.base;

            self.bitmap[bit as usize / 8] >> (bit % 8) & 1 != 0
        })
    }
}

/// A filter, with a model of its decisions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    deny_by_default: bool,
    ranges: Vec<Range>,
}

impl Filter {
    /// A filter without ranges that allows everything. Setting it ends filtering.
    pub fn allow_by_default() -> Self {
        Filter::default()
    }

    /// A filter that denies what no range matches. It needs a range.
    pub fn deny_by_default() -> Self {
        Filter {
            deny_by_default: true,
            ranges: Vec::new(),
        }
    }

    /// Adds a range. The first matching range decides. There can be 16 ranges.
    pub fn with(mut self, range: Range) -> Self {
        assert!(self.ranges.len() < MAX_RANGES);
        self.ranges.push(range);
        self
    }

    /// The ranges, in the order in which they are matched.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// Whether the access is allowed, by a plain reading of api.rst.
    pub fn allows(&self, access: Access, index: u32) -> bool {
        // x2APIC MSRs can't be filtered.
        if (0x800..=0x8ff).contains(&index) {
            return true;
        }
        self.ranges
            .iter()
            .find_map(|range| range.verdict(access, index))
            .unwrap_or(!self.deny_by_default)
    }

    /// Puts the filter where the ioctl can read it.
    pub fn prepare(&self, abi: Abi) -> rustix::io::Result<PreparedFilter> {
        const BITMAPS: usize = 1024;
        const BITMAP: usize = KVM_MSR_FILTER_MAX_BITMAP_SIZE as usize;

        let mut memory = Mapping::low(BITMAPS + MAX_RANGES * BITMAP)?;
        let mut raw = RawFilter::default();

        if self.deny_by_default {
            raw.flags = KVM_MSR_FILTER_DEFAULT_DENY;
        }
        for (i, range) in self.ranges.iter().enumerate() {
            let offset = BITMAPS + i * BITMAP;

            memory.write(offset, &range.bitmap);
            raw.ranges[i] = RawRange {
                flags: range.flags,
                nmsrs: range.nmsrs,
                base: range.base,
                bitmap: memory.at(offset).address(),
            };
        }
        memory.write(0, &raw.to_bytes(abi));
        Ok(PreparedFilter { abi, memory })
    }

    /// Makes this the VM's filter.
    ///
    /// # Errors
    ///
    /// `EINVAL` for deny by default without a range, for a range of more than
    /// [`MAX_MSRS`] MSRs, and for one with no or undefined flags. The VM's
    /// filter then stays as it was.
    pub fn set(&self, vm: &impl AsRawFd) -> ioctl::Result<()> {
        self.set_with(Abi::Native, vm)
    }

    /// [`Filter::set`] through the ioctl of `abi`.
    pub fn set_with(&self, abi: Abi, vm: &impl AsRawFd) -> ioctl::Result<()> {
        self.prepare(abi)?.set(vm)
    }
}

/// A filter in memory, to be set any number of times.
#[derive(Debug)]
pub struct PreparedFilter {
    abi: Abi,
    memory: Mapping,
}

impl PreparedFilter {
    /// Makes this the VM's filter, see [`Filter::set`].
    pub fn set(&self, vm: &impl AsRawFd) -> ioctl::Result<()> {
        ioctl::set_msr_filter(self.abi, vm, self.memory.at(0)).map(|_| ())
    }
}
