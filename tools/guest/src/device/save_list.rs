// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `KMSR_SAVE_LIST`

use super::Array;
use super::uapi::Members;
use super::uapi::Structure;
use super::uapi::TYPE;

/// `KMSR_FEATURE_SAVE_LIST`
pub const FEATURE_SAVE_LIST: u64 = 1 << 4;

/// `KMSR_OWNER_MSRS`
pub const OWNER_MSRS: u16 = 0;
/// `KMSR_OWNER_SREGS`
pub const OWNER_SREGS: u16 = 1;
/// `KMSR_OWNER_LAPIC`
pub const OWNER_LAPIC: u16 = 2;

/// `KMSR_SAVE_VOLATILE`
pub const SAVE_VOLATILE: u32 = 1 << 0;
/// `KMSR_SAVE_WRITE_ONLY`
pub const SAVE_WRITE_ONLY: u32 = 1 << 1;
/// `KMSR_SAVE_LISTED`
pub const SAVE_LISTED: u32 = 1 << 5;

/// `struct kmsr_save_entry`
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[allow(missing_docs)]
pub struct SaveEntry {
    pub index: u32,
    pub owner: u16,
    pub order: u16,
    pub attributes: u32,
    pub reserved: u32,
}

impl Members for SaveEntry {
    const SIZE: usize = 16;

    fn to_bytes(&self) -> Vec<u8> {
        [
            self.index,
            u32::from(self.order) << 16 | u32::from(self.owner),
            self.attributes,
            self.reserved,
        ]
        .map(u32::to_le_bytes)
        .concat()
    }

    fn update(&mut self, bytes: &[u8]) {
        let owner_and_order = word(bytes, 1);

        *self = SaveEntry {
            index: word(bytes, 0),
            owner: owner_and_order as u16,
            order: (owner_and_order >> 16) as u16,
            attributes: word(bytes, 2),
            reserved: word(bytes, 3),
        };
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[4 * at..][..4].try_into().expect("4 bytes"))
}

/// `struct kmsr_save_list`
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct SaveList<'a> {
    pub size: u32,
    pub vcpu_id: u32,
    pub nr_entries: u32,
    pub timeout_ms: u32,
    pub entries: &'a Array<SaveEntry>,
}

impl<'a> SaveList<'a> {
    /// The argument for vCPU 0, with an array of this length, and a timeout of 0.
    pub fn new(entries: &'a Array<SaveEntry>, nr_entries: usize) -> Self {
        SaveList {
            size: Self::SIZE as u32,
            vcpu_id: 0,
            nr_entries: nr_entries as u32,
            timeout_ms: 0,
            entries,
        }
    }
}

impl Members for SaveList<'_> {
    const SIZE: usize = 24;

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = [self.size, self.vcpu_id, self.nr_entries, self.timeout_ms]
            .map(u32::to_le_bytes)
            .concat();

        bytes.extend(self.entries.at().address().to_le_bytes());
        bytes
    }

    fn update(&mut self, bytes: &[u8]) {
        self.nr_entries = word(bytes, 2);
    }
}

impl Structure for SaveList<'_> {
    const REQUEST: u32 = TYPE << 8 | 7;
}
