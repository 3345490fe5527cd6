// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The VMCS fields that L1 writes. L1 is the host, L2 is the guest.
//!
//! The encodings are in the Intel SDM, appendix "Field Encoding in VMCS".

use anyhow::Context;
use anyhow::Result;
use kvm_ioctls::VcpuFd;

use super::MsrLists;
use super::code::Entry;
use super::layout::*;
use crate::msrs;

const IA32_FEATURE_CONTROL: u32 = 0x3a;
/// Locked, and VMX outside SMX enabled.
const FEATURE_CONTROL: u64 = 1 << 0 | 1 << 2;

const IA32_VMX_BASIC: u32 = 0x480;
const IA32_VMX_PINBASED_CTLS: u32 = 0x481;
const IA32_VMX_PROCBASED_CTLS: u32 = 0x482;
const IA32_VMX_EXIT_CTLS: u32 = 0x483;
const IA32_VMX_ENTRY_CTLS: u32 = 0x484;

const ACTIVATE_SECONDARY: u64 = 1 << 31;
const SHADOW_VMCS: u64 = 1 << 14;
const HOST_64: u64 = 1 << 9;
const GUEST_64: u64 = 1 << 9;
const SHADOW_INDICATOR: u32 = 1 << 31;

/// The exit reason of VMCALL.
pub const EXIT_VMCALL: u64 = 18;
/// The exit reason of a VM-entry that failed because an MSR of its list could not be loaded.
pub const EXIT_MSR_LOAD_FAILED: u64 = 1 << 31 | 34;

/// The offset of the value in an entry of a list of MSRs.
pub const VALUE_OFFSET: u64 = 8;

/// A list of MSRs as in memory. Entries have 16 bytes: the index, 0, and the value.
pub fn list_bytes(list: &[(u32, u64)]) -> Vec<u8> {
    list.iter()
        .flat_map(|(index, value)| [u64::from(*index), *value])
        .flat_map(u64::to_le_bytes)
        .collect()
}

fn msr(vcpu: &VcpuFd, index: u32) -> Result<u64> {
    msrs::get(vcpu, index)?.with_context(|| format!("KVM has no MSR {index:#x}"))
}

/// Enables VMX for the guest, and returns the revision for its VMX regions.
pub fn enable(vcpu: &VcpuFd) -> Result<u32> {
    msrs::set(vcpu, IA32_FEATURE_CONTROL, FEATURE_CONTROL)?;
    Ok(msr(vcpu, IA32_VMX_BASIC)? as u32 & !SHADOW_INDICATOR)
}

/// The first word of the shadow VMCS.
pub fn shadow_revision(revision: u32) -> u32 {
    revision | SHADOW_INDICATOR
}

/// L1's parameters, see [`code`](super::code).
pub fn parameters(vcpu: &VcpuFd, cr4: u64, shadow: bool, lists: &MsrLists) -> Result<Vec<u64>> {
    // The lower half of these MSRs has the controls that must be 1.
    let required = |index| -> Result<u64> { Ok(msr(vcpu, index)? & 0xffff_ffff) };
    let entry = |entry: Entry| CODE + entry.offset() as u64;
    let mut primary = required(IA32_VMX_PROCBASED_CTLS)?;
    let mut link = u64::MAX;
    let mut words = vec![HOST_AREA, CONTROL];
    let mut field = |field: u64, value| words.extend([field, value]);

    if shadow {
        primary |= ACTIVATE_SECONDARY;
        link = SHADOW;
        field(0x401e, SHADOW_VMCS);
        field(0x2026, ZEROES); // VMREAD bitmap
        field(0x2028, ZEROES); // VMWRITE bitmap
    }
    field(0x4000, required(IA32_VMX_PINBASED_CTLS)?);
    field(0x4002, primary);
    field(0x400c, required(IA32_VMX_EXIT_CTLS)? | HOST_64);
    field(0x4012, required(IA32_VMX_ENTRY_CTLS)? | GUEST_64);
    for zero in [
        0x4004, // exception bitmap
        0x4006, 0x4008, // page-fault error codes
        0x400a, // number of CR3 targets
        0x4016, // event to inject
        0x6000, 0x6002, // CR0 and CR4 masks
    ] {
        field(zero, 0);
    }
    field(0x2800, link);
    for (count, address, list, at) in [
        (0x400e, 0x2006, &lists.exit_store, EXIT_STORE_LIST),
        (0x4010, 0x2008, &lists.exit_load, EXIT_LOAD_LIST),
        (0x4014, 0x200a, &lists.entry_load, ENTRY_LOAD_LIST),
    ] {
        field(count, list.len() as u64);
        field(address, at);
    }

    // The guest's ES, CS, SS, DS, FS, GS, LDTR, TR.
    for i in 0..8 {
        let (selector, base, limit, rights) = match i {
            1 => (CODE_SELECTOR, 0, 0xffff_ffff, 0xa09b),
            6 => (0, 0, 0, 0x1_0000),
            7 => (TSS_SELECTOR, tss(), 0x67, 0x8b),
            _ => (DATA_SELECTOR, 0, 0xffff_ffff, 0xc093),
        };
        field(0x800 + 2 * i, selector.into());
        field(0x6806 + 2 * i, base);
        field(0x4800 + 2 * i, limit);
        field(0x4814 + 2 * i, rights);
    }
    field(0x6816, gdt());
    field(0x4810, 5 * 8 - 1);
    field(0x6818, idt());
    field(0x4812, IDT_LIMIT.into());
    field(0x6800, CR0);
    field(0x6802, CR3);
    field(0x6804, cr4);
    field(0x681a, 0x400); // DR7
    field(0x681c, L2_STACK);
    field(0x681e, entry(Entry::L2Vmx));
    field(0x6820, 2); // RFLAGS
    for zero in [0x2802, 0x4824, 0x4826, 0x482a, 0x6822, 0x6824, 0x6826] {
        field(zero, 0);
    }

    // The host's ES, CS, SS, DS, FS, GS, TR.
    for i in 0..7 {
        let selector = match i {
            1 => CODE_SELECTOR,
            6 => TSS_SELECTOR,
            _ => DATA_SELECTOR,
        };
        field(0xc00 + 2 * i, selector.into());
    }
    for zero in [0x6c06, 0x6c08, 0x4c00, 0x6c10, 0x6c12] {
        field(zero, 0);
    }
    field(0x6c00, CR0);
    field(0x6c02, CR3);
    field(0x6c04, cr4);
    field(0x6c0a, tss());
    field(0x6c0c, gdt());
    field(0x6c0e, idt());
    field(0x6c14, L1_STACK);
    field(0x6c16, entry(Entry::VmxExit));
    words.push(u64::MAX);
    Ok(words)
}
