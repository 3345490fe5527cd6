// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Memory for `struct kvm_msrs`, which shows every byte that a call writes.

use std::fmt::Write;

use anyhow::Result;
use anyhow::ensure;
use kvm_msr_guest::Abi;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Mapping;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::memory::PAGE;
use kvm_msr_guest::msrs;
use kvm_msr_guest::msrs::ENTRY;
use kvm_msr_guest::msrs::Entry;
use kvm_msr_guest::msrs::HEADER;

use crate::side::Side;

/// The content of the memory around the structures.
const CANARY: u8 = 0xc5;

/// One of the two ioctls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Call {
    /// KVM_GET_MSRS
    Get,
    /// KVM_SET_MSRS
    Set,
}

/// Two pages below 4 GiB for the structure of a call.
pub struct Arena {
    /// The memory. Bytes outside the structure are [`CANARY`].
    pub memory: Mapping,
    abi: Abi,
}

impl Arena {
    /// Maps the memory.
    pub fn new(abi: Abi) -> Result<Self> {
        let mut memory = Mapping::low(2 * PAGE)?;

        memory.write(0, &[CANARY; 2 * PAGE]);
        Ok(Arena { memory, abi })
    }

    /// Writes `struct kvm_msrs` to `offset`, up to the end of memory.
    pub fn put(&mut self, offset: usize, nmsrs: u32, entries: &[Entry]) {
        let bytes = msrs::to_bytes(nmsrs, entries);
        let length = bytes.len().min(self.memory.length() - offset);

        self.memory.write(0, &vec![CANARY; self.memory.length()]);
        self.memory.write(offset, &bytes[..length]);
    }

    /// Makes the call, and notes its result and all changes in memory.
    pub fn call(
        &self,
        side: &mut Side,
        guest: &Guest,
        call: Call,
        offset: usize,
        step: &str,
        expected: ioctl::Result,
    ) -> Result<()> {
        let before = self.memory.read(0, self.memory.length());
        let pointer = self.memory.at(offset);
        let result = match call {
            Call::Get => ioctl::get_msrs(self.abi, guest.vcpu(), pointer),
            Call::Set => ioctl::set_msrs(self.abi, guest.vcpu(), pointer),
        };
        let after = self.memory.read(0, self.memory.length());
        let step = format!("{} {call:?} {step}", self.abi);

        side.note(format!("{step}, written"), changes(&before, &after));
        ensure!(
            call == Call::Get || before == after,
            "{step} changed user memory"
        );
        side.ioctl(step, result, expected)
    }

    /// The data of entry `i` of the structure at `offset`.
    pub fn entry(&self, offset: usize, i: usize) -> u64 {
        let data = self.memory.read(offset + HEADER + i * ENTRY + 8, 8);

        u64::from_le_bytes(data.try_into().expect("8 bytes"))
    }
}

/// Offsets and new values of the bytes that differ.
pub fn changes(before: &[u8], after: &[u8]) -> String {
    let mut text = String::new();
    let mut last = None;

    for (i, (old, new)) in before.iter().zip(after).enumerate() {
        if old != new {
            if last != Some(i.wrapping_sub(1)) {
                let _ = write!(text, " {i:#x}:");
            }
            let _ = write!(text, "{new:02x}");
            last = Some(i);
        }
    }
    if text.is_empty() {
        "nothing".to_owned()
    } else {
        text
    }
}
