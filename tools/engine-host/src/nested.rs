// SPDX-License-Identifier: GPL-2.0

//! `KVM_SET_NESTED_STATE`: compares the header's rules with models of C's (`x86.c`,
//! `vmx_set_nested_state` and `svm_set_nested_state`), for all combinations of special values.

use crate::engine::nested::{self, svm, vmx, Format, Header};
use proptest::prelude::*;

const GUEST_MODE: u16 = 1;
const RUN_PENDING: u16 = 2;
const EVMCS: u16 = 4;
const GIF_SET: u16 = 0x100;

/// The fields of `struct kvm_nested_state` that have rules.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    flags: u16,
    format: u16,
    size: u32,
    /// `vmxon_pa` or `vmcb_pa`
    first_pa: u64,
    /// `vmcs12_pa` or `gpat`
    second: u64,
    smm_flags: u16,
    vmx_flags: u32,
}

impl State {
    /// The header in user memory. Bytes without rules are all ones.
    fn header(&self) -> Header {
        let mut bytes = [0xff; 128];

        bytes[0..2].copy_from_slice(&self.flags.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.format.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.first_pa.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.second.to_le_bytes());
        bytes[24..26].copy_from_slice(&self.smm_flags.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.vmx_flags.to_le_bytes());

        let mut words = [0; 16];

        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap());
        }
        Header(words)
    }
}

/// Runs a body with each combination of the values that are given for each name.
macro_rules! for_all {
    (($($name:ident in $values:expr),* $(,)?) $body:block) => {
        for_all!(@ $body $($name in $values,)*)
    };
    (@ $body:block) => { $body };
    (@ $body:block $name:ident in $values:expr, $($rest:tt)*) => {
        for $name in $values {
            for_all!(@ $body $($rest)*)
        }
    };
}

/// All flags that are defined, and three others.
fn all_flags() -> impl Iterator<Item = u16> {
    (0..0x20u16)
        .map(|set| set & 0xf | (set & 0x10) << 4)
        .flat_map(|flags| [0, 1 << 4, 1 << 9, 1 << 15].map(|other| flags | other))
}

/// `KVM_SET_NESTED_STATE` of `kvm_arch_vcpu_ioctl`
fn c_ioctl(state: &State) -> bool {
    if state.size < 128 {
        return false;
    }
    if state.flags & !(1 | 2 | 4 | 8 | 0x100) != 0 {
        return false;
    }
    !(state.flags & RUN_PENDING != 0 && state.flags & GUEST_MODE == 0)
}

/// Guest physical addresses have 40 bits here.
const RESERVED: u64 = !0 << 40;

/// `page_address_valid`
fn page_address_valid(address: u64) -> bool {
    address & 0xfff == 0 && address < 1 << 40
}

const PAGES: [u64; 8] = [
    0,
    0x1000,
    0x1800,
    0x1001,
    (1 << 40) - 0x1000,
    1 << 40,
    !0xfff,
    u64::MAX,
];

/// The result of `vmx_set_nested_state`.
#[derive(Debug, PartialEq, Eq)]
enum Vmx {
    /// It fails without effects.
    Refused,
    /// It succeeds, without a VMXON region.
    Left,
    /// It fails in VMX operation.
    NoVmcs12,
    /// It succeeds in VMX operation, without a current VMCS.
    Entered,
    /// It continues with vmcs12.
    Vmcs12,
}

fn c_vmx(state: &State, cpu: &vmx::Cpu) -> Vmx {
    let no_vmxon = state.first_pa == u64::MAX;
    let no_vmcs12 = state.second == u64::MAX;

    if state.format != 0 {
        return Vmx::Refused;
    }
    if no_vmxon {
        if state.smm_flags != 0 || !no_vmcs12 || state.flags & !EVMCS != 0 {
            return Vmx::Refused;
        }
    } else if !cpu.vmx || !page_address_valid(state.first_pa) {
        return Vmx::Refused;
    }
    if state.smm_flags & 1 != 0 && state.flags & GUEST_MODE != 0 {
        return Vmx::Refused;
    }
    if state.smm_flags & !3 != 0 || state.vmx_flags & !1 != 0 {
        return Vmx::Refused;
    }
    if cpu.smm && state.flags & (GUEST_MODE | RUN_PENDING) != 0 {
        return Vmx::Refused;
    }
    if !cpu.smm && state.smm_flags != 0 {
        return Vmx::Refused;
    }
    if state.smm_flags & 1 != 0 && state.smm_flags & 2 == 0 {
        return Vmx::Refused;
    }
    if state.flags & EVMCS != 0 && (!cpu.vmx || !cpu.evmcs) {
        return Vmx::Refused;
    }
    if no_vmxon {
        return Vmx::Left;
    }
    if state.size < 128 + cpu.vmcs12_size {
        if state.flags & (GUEST_MODE | EVMCS) != 0 || !no_vmcs12 {
            return Vmx::NoVmcs12;
        }
        return Vmx::Entered;
    }
    if !no_vmcs12 {
        if state.second == state.first_pa || !page_address_valid(state.second) {
            return Vmx::NoVmcs12;
        }
    } else if state.flags & EVMCS == 0 {
        return Vmx::NoVmcs12;
    }
    Vmx::Vmcs12
}

fn engine_vmx(state: &State, cpu: &vmx::Cpu) -> Vmx {
    let header = state.header();

    if vmx::check(&header, cpu).is_err() {
        return Vmx::Refused;
    }
    if header.vmxon_pa() == vmx::NO_ADDRESS {
        return Vmx::Left;
    }
    match vmx::has_vmcs12(&header, cpu) {
        Err(_) => Vmx::NoVmcs12,
        Ok(false) => Vmx::Entered,
        Ok(true) => Vmx::Vmcs12,
    }
}

/// Not 4096, so that a rule that confuses the two is found.
const VMCS12_SIZE: u32 = 1000;

fn vmx_cpus() -> impl Iterator<Item = vmx::Cpu> {
    (0..8u8).map(|set| vmx::Cpu {
        vmx: set & 1 != 0,
        evmcs: set & 2 != 0,
        smm: set & 4 != 0,
        reserved_address: RESERVED,
        vmcs12_size: VMCS12_SIZE,
    })
}

#[test]
fn vmx_headers_are_judged_as_in_c() {
    for_all! {
        (
            cpu in vmx_cpus(),
            flags in all_flags(),
            format in [0, 1, 2],
            size in [128, 128 + VMCS12_SIZE - 1, 128 + VMCS12_SIZE, u32::MAX],
            first_pa in PAGES,
            second in PAGES,
            smm_flags in [0, 1, 2, 3, 4, 7, 0x8002],
            vmx_flags in [0, 1, 2, 0x8000_0001],
        ) {
            let state = State { flags, format, size, first_pa, second, smm_flags, vmx_flags };

            assert_eq!(engine_vmx(&state, &cpu), c_vmx(&state, &cpu), "{state:x?} of {cpu:x?}");
        }
    }
}

#[test]
fn shadows_need_room_behind_vmcs12s_area() {
    for cpu in vmx_cpus() {
        for size in [0, 128, 4096, 128 + 4096, 5223, 5224, 128 + 8192, u32::MAX] {
            let state = State {
                size,
                ..State::default()
            };

            assert_eq!(
                vmx::check_shadow_size(&state.header(), &cpu).is_ok(),
                size >= 128 + 4096 + VMCS12_SIZE,
                "{size}"
            );
        }
    }
}

/// `struct vmcs12` begins with the revision, of 31 bits, and the shadow indicator.
#[test]
fn vmcs12s_have_kvms_revision() {
    for bit in 0..32 {
        let revision: u32 = 0x11e5_7ed0 ^ 1 << bit;

        assert_eq!(
            vmx::check_vmcs12(&revision.to_le_bytes()).is_ok(),
            bit == 31
        );
    }
    assert!(vmx::check_vmcs12(&0x11e5_7ed0u32.to_le_bytes()).is_ok());
    assert!(vmx::check_vmcs12(&0x11e5_7ed0u32.to_be_bytes()).is_err());
    // Bytes that can't be read are 0.
    assert!(vmx::check_vmcs12(&[0xd0, 0x7e, 0xe5]).is_err());
}

/// `nested_cpu_has_shadow_vmcs`, and whether vmcs12 links to a shadow.
#[test]
fn shadows_are_enabled_by_two_controls_and_linked() {
    for_all! {
        (
            primary in [0, 1 << 31, !0, !(1 << 31)],
            secondary in [0u32, 1 << 14, !0, !(1 << 14)],
            link in [0, 0x1000, u64::MAX, u64::MAX - 1],
        ) {
            let primary: u32 = primary;
            let mut vmcs12 = [0; 1000];

            vmcs12[176..184].copy_from_slice(&link.to_le_bytes());
            vmcs12[748..752].copy_from_slice(&primary.to_le_bytes());
            vmcs12[804..808].copy_from_slice(&secondary.to_le_bytes());
            assert_eq!(
                vmx::has_shadow(&vmcs12),
                primary >> 31 == 1 && secondary >> 14 & 1 == 1 && link != u64::MAX
            );
        }
    }
}

/// The part of `svm_set_nested_state` before vmcb12.
fn c_svm(state: &State, cpu: &svm::Cpu) -> bool {
    if state.format != 1 {
        return false;
    }
    if state.flags & !(GUEST_MODE | RUN_PENDING | GIF_SET) != 0 {
        return false;
    }
    if !cpu.svme && state.flags != 0 && state.flags != GIF_SET {
        return false;
    }
    if cpu.smm && state.flags & GUEST_MODE != 0 {
        return false;
    }
    if state.flags & GUEST_MODE == 0 {
        return true;
    }
    page_address_valid(state.first_pa) && state.size >= 128 + 4096
}

#[test]
fn svm_headers_are_judged_as_in_c() {
    for_all! {
        (
            cpu in 0..4,
            flags in all_flags(),
            format in [0, 1, 2, 0x101],
            size in [128, 128 + 4095, 128 + 4096, u32::MAX],
            first_pa in PAGES,
        ) {
            let cpu = svm::Cpu {
                svme: cpu & 1 != 0,
                smm: cpu & 2 != 0,
                reserved_address: RESERVED,
            };
            let state = State { flags, format, size, first_pa, ..State::default() };

            assert_eq!(
                svm::check(&state.header(), &cpu).is_ok(),
                c_svm(&state, &cpu),
                "{state:x?} of {cpu:x?}"
            );
        }
    }
}

/// L2's CR0, L1's state in the save area, and L2's PAT. The offsets are in the APM, appendix
/// "Layout of VMCB".
#[test]
fn vmcb12s_are_judged_as_in_c() {
    for_all! {
        (
            l2_cr0 in (0..4u64).map(|set| set << 29),
            cr0 in [0, 1, 1 << 31, 1 << 31 | 1, !0u64, !1, !(1 << 31)],
            rflags in [0, 1 << 17, !(1u64 << 17), !0],
            efer in (0..4u64).map(|set| (set & 1) << 8 | (set & 2) << 9),
            misc_ctl in [0, 1, !1u64],
            separate_pat in [false, true],
            gpat in [0, 0x0007_0406_0007_0406, 2, 8, 1 << 57, !0],
        ) {
            let state = State { second: gpat, ..State::default() };
            let mut control = [0; 0x400];
            let mut save = [0; 0x298];
            let mut valid = l2_cr0 >> 30 & 1 == 1 || l2_cr0 >> 29 & 1 == 0;

            control[0x90..0x98].copy_from_slice(&misc_ctl.to_le_bytes());
            save[0xd0..0xd8].copy_from_slice(&efer.to_le_bytes());
            save[0x158..0x160].copy_from_slice(&cr0.to_le_bytes());
            save[0x170..0x178].copy_from_slice(&rflags.to_le_bytes());
            valid &= cr0 & 1 != 0 && cr0 >> 31 & 1 != 0;
            valid &= rflags >> 17 & 1 == 0;
            valid &= efer != 1 << 10;
            if separate_pat && misc_ctl & 1 != 0 {
                valid &= gpat.to_le_bytes().iter().all(|kind| [0, 1, 4, 5, 6, 7].contains(kind));
            }

            let header = state.header();
            let judged = svm::check_vmcb12(&header, l2_cr0, || separate_pat, &control, &save);

            assert_eq!(
                judged.is_ok(),
                valid,
                "{state:x?}, CR0 {l2_cr0:#x}, misc_ctl {misc_ctl:#x}, save {save:x?}"
            );
        }
    }
}

#[test]
fn formats_have_two_numbers() {
    for number in 0..=u16::MAX {
        let state = State {
            format: number,
            ..State::default()
        };

        assert_eq!(
            state.header().format(),
            match number {
                0 => Some(Format::Vmx),
                1 => Some(Format::Svm),
                _ => None,
            }
        );
    }
}

#[test]
fn all_flags_and_sizes_of_both_formats() {
    for flags in 0..=u16::MAX {
        for size in [0, 127, 128, 129, u32::MAX] {
            let state = State {
                flags,
                size,
                ..State::default()
            };

            assert_eq!(
                nested::check(&state.header()).is_ok(),
                c_ioctl(&state),
                "{state:x?}"
            );
        }
    }
}

/// `KVM_GET_NESTED_STATE`: the results of `vmx_get_nested_state` and `svm_get_nested_state`, and
/// whether they reach the copying.
#[test]
fn rooms() {
    const SIZES: [u32; 3] = [128, 128 + 4096, 128 + 8192];
    const ROOMS: [u32; 8] = [0, 127, 128, 129, 4223, 4224, 8320, u32::MAX];

    for_all! {
        (size in SIZES, room in ROOMS) {
            assert_eq!(nested::reported_size(Format::Vmx, room, size), size);
            assert_eq!(nested::is_copied(Format::Vmx, room, size), room >= size);

            let size = if room < 128 { 128 } else { size };

            assert_eq!(nested::reported_size(Format::Svm, room, size), size);
            assert_eq!(nested::is_copied(Format::Svm, room, size), room >= 128);
        }
    }
}

proptest! {
    /// For any content of user memory.
    #[test]
    fn any_header_is_judged_as_in_c(
        head in any::<(u16, u16, u32)>(),
        body in any::<(u64, u64, u16, u32)>(),
        kind in 0u16..3,
        set in 0u8..8,
    ) {
        let (flags, any_format, size) = head;
        let (first_pa, second, smm_flags, vmx_flags) = body;
        let format = if kind == 2 { any_format } else { kind };
        let state = State { flags, format, size, first_pa, second, smm_flags, vmx_flags };
        let header = state.header();
        let vmx = vmx_cpus().nth(set.into()).unwrap();
        let svm = svm::Cpu {
            svme: set & 1 != 0,
            smm: set & 2 != 0,
            reserved_address: RESERVED,
        };

        prop_assert_eq!(header.flags(), flags);
        prop_assert_eq!(header.size(), size);
        prop_assert_eq!(header.vmxon_pa(), first_pa);
        prop_assert_eq!(nested::check(&header).is_ok(), c_ioctl(&state));
        prop_assert_eq!(engine_vmx(&state, &vmx), c_vmx(&state, &vmx));
        prop_assert_eq!(svm::check(&header, &svm).is_ok(), c_svm(&state, &svm));
    }
}
