// SPDX-License-Identifier: GPL-2.0

//! The header of `KVM_SET_NESTED_STATE`.
//!
//! Each test starts with a valid state, and makes one part of it invalid.

use crate::bindings;
use crate::engine::nested::{
    self,
    svm,
    vmx,
    Format,
    Header,
    AREA_SIZE,
    EVMCS,
    GIF_SET,
    GUEST_MODE,
    HEADER_SIZE,
    MTF_PENDING,
    RUN_PENDING, //
};
use kernel::prelude::kunit_tests;

/// Guest physical addresses have 40 bits here.
const RESERVED: u64 = !0 << 40;
const VMCS12_SIZE: u32 = 1000;
/// The size of vmcs12, and of its shadow VMCS.
const VMX_SIZE: u32 = HEADER_SIZE + 2 * AREA_SIZE;
const SVM_SIZE: u32 = HEADER_SIZE + AREA_SIZE;

const NOT_PAGES: [u64; 4] = [0x1001, 0x1800, 1 << 40, 1 << 63];

fn header(flags: u16, format: u64, size: u32, words: [u64; 3]) -> Header {
    let mut header = Header::default();
    let head = u64::from(flags) | format << 16 | u64::from(size) << 32;

    for (to, from) in header.0.iter_mut().zip([head].into_iter().chain(words)) {
        *to = from;
    }
    header
}

/// A VMX state. The third word of its body has the SMM flags and the VMX flags.
fn vmx_header(flags: u16, size: u32, vmxon: u64, vmcs12: u64, third: u64) -> Header {
    header(flags, 0, size, [vmxon, vmcs12, third])
}

fn vmx_cpu() -> vmx::Cpu {
    vmx::Cpu {
        vmx: true,
        evmcs: true,
        smm: false,
        reserved_address: RESERVED,
        vmcs12_size: VMCS12_SIZE,
    }
}

fn vmx_takes(header: Header, cpu: vmx::Cpu) -> bool {
    vmx::check(&header, &cpu).is_ok()
}

fn svm_header(flags: u16, size: u32, vmcb: u64) -> Header {
    header(flags, 1, size, [vmcb, 0, 0])
}

fn svm_cpu() -> svm::Cpu {
    svm::Cpu {
        svme: true,
        reserved_address: RESERVED,
        ..svm::Cpu::default()
    }
}

fn svm_takes(header: Header, cpu: svm::Cpu) -> bool {
    svm::check(&header, &cpu).is_ok()
}

fn put(area: &mut [u8], offset: usize, value: u64) {
    for (to, from) in area.iter_mut().skip(offset).zip(value.to_le_bytes()) {
        *to = from;
    }
}

/// A vmcb12 with L1 in 64-bit mode, and the state of L2 that is checked with it.
struct Vmcb12 {
    l2_cr0: u64,
    separate_pat: bool,
    cr0: u64,
    rflags: u64,
    efer: u64,
    misc_ctl: u64,
    gpat: u64,
}

impl Vmcb12 {
    fn new() -> Self {
        Self {
            l2_cr0: 0,
            separate_pat: true,
            cr0: 1 << 31 | 1,
            rflags: 2,
            efer: 0x1500,
            misc_ctl: 1,
            gpat: 0x0007_0406_0007_0406,
        }
    }

    fn is_taken(&self) -> bool {
        let mut control = [0; 0xa0];
        let mut save = [0; 0x180];
        let header = header(GUEST_MODE, 1, SVM_SIZE, [0x1000, self.gpat, 0]);

        put(&mut control, svm::MISC_CTL, self.misc_ctl);
        put(&mut save, svm::SAVE_EFER, self.efer);
        put(&mut save, svm::SAVE_CR0, self.cr0);
        put(&mut save, svm::SAVE_RFLAGS, self.rflags);
        svm::check_vmcb12(&header, self.l2_cr0, || self.separate_pat, &control, &save).is_ok()
    }
}

#[kunit_tests(kvm_msr_nested)]
mod cases {
    use super::*;

    #[test]
    fn constants_are_those_of_the_uapi() {
        assert_eq!(
            HEADER_SIZE as usize,
            size_of::<bindings::kvm_nested_state>()
        );
        for (flag, value) in [
            (GUEST_MODE, bindings::KVM_STATE_NESTED_GUEST_MODE),
            (RUN_PENDING, bindings::KVM_STATE_NESTED_RUN_PENDING),
            (EVMCS, bindings::KVM_STATE_NESTED_EVMCS),
            (MTF_PENDING, bindings::KVM_STATE_NESTED_MTF_PENDING),
            (GIF_SET, bindings::KVM_STATE_NESTED_GIF_SET),
            (
                vmx::SMM_GUEST_MODE,
                bindings::KVM_STATE_NESTED_SMM_GUEST_MODE,
            ),
            (vmx::SMM_VMXON, bindings::KVM_STATE_NESTED_SMM_VMXON),
        ] {
            assert_eq!(u32::from(flag), value);
        }
    }

    #[test]
    fn flags_are_five() {
        for bit in 0..16 {
            let flags = 1 << bit | GUEST_MODE;
            let known = GUEST_MODE | RUN_PENDING | EVMCS | MTF_PENDING | GIF_SET;

            assert_eq!(
                nested::check(&svm_header(flags, HEADER_SIZE, 0)).is_ok(),
                known & flags == flags
            );
        }
        assert!(nested::check(&svm_header(RUN_PENDING, HEADER_SIZE, 0)).is_err());
        assert!(nested::check(&svm_header(0, HEADER_SIZE - 1, 0)).is_err());
        assert!(nested::check(&svm_header(0, HEADER_SIZE, 0)).is_ok());
    }

    #[test]
    fn rooms_decide_what_is_copied() {
        for format in [Format::Vmx, Format::Svm] {
            let size = SVM_SIZE;

            assert_eq!(nested::reported_size(format, size, size), size);
            assert!(nested::is_copied(format, size, size));
            assert!(!nested::is_copied(format, HEADER_SIZE - 1, size));
        }
        // SVM copies a state that does not fit, and reports only the header's size if the header
        // does not fit.
        assert!(nested::is_copied(Format::Svm, SVM_SIZE - 1, SVM_SIZE));
        assert!(!nested::is_copied(Format::Vmx, SVM_SIZE - 1, SVM_SIZE));
        assert_eq!(
            nested::reported_size(Format::Svm, 127, SVM_SIZE),
            HEADER_SIZE
        );
        assert_eq!(nested::reported_size(Format::Vmx, 127, SVM_SIZE), SVM_SIZE);
    }

    #[test]
    fn vmx_states_that_are_good() {
        let none = vmx::NO_ADDRESS;

        for (flags, vmxon, vmcs12, third) in [
            (0, none, none, 0),
            (EVMCS, none, none, 0),
            (0, 0x1000, none, 0),
            (0, 0x1000, 0x2000, 0),
            (EVMCS, 0x1000, none, 0),
            (GUEST_MODE, 0x1000, 0x2000, 0),
            (GUEST_MODE | RUN_PENDING | MTF_PENDING, 0x1000, 0x2000, 0),
            // The deadline of the preemption timer.
            (GUEST_MODE, 0x1000, 0x2000, 1 << 32),
        ] {
            assert!(vmx_takes(
                vmx_header(flags, VMX_SIZE, vmxon, vmcs12, third),
                vmx_cpu()
            ));
        }
    }

    #[test]
    fn vmx_without_a_vmxon_region_is_nothing() {
        let none = vmx::NO_ADDRESS;
        let with = |flags, vmcs12, third| {
            vmx_takes(vmx_header(flags, VMX_SIZE, none, vmcs12, third), vmx_cpu())
        };

        assert!(with(0, none, 0));
        assert!(!with(0, 0x2000, 0));
        for flag in [GUEST_MODE, MTF_PENDING, GIF_SET] {
            assert!(!with(flag, none, 0));
        }
        assert!(!with(0, none, vmx::SMM_VMXON.into()));
        // This state is valid without VMX, but not with an enlightened VMCS.
        let lacking = vmx::Cpu {
            vmx: false,
            ..vmx_cpu()
        };
        assert!(vmx_takes(vmx_header(0, VMX_SIZE, none, none, 0), lacking));
        assert!(!vmx_takes(
            vmx_header(EVMCS, VMX_SIZE, none, none, 0),
            lacking
        ));
        assert!(!vmx_takes(
            vmx_header(0, VMX_SIZE, 0x1000, none, 0),
            lacking
        ));
    }

    #[test]
    fn vmx_needs_pages() {
        for address in NOT_PAGES {
            assert!(!vmx_takes(
                vmx_header(0, VMX_SIZE, address, 0x2000, 0),
                vmx_cpu()
            ));
            assert!(
                vmx::has_vmcs12(&vmx_header(0, VMX_SIZE, 0x1000, address, 0), &vmx_cpu()).is_err()
            );
        }
    }

    #[test]
    fn vmx_and_svm_are_not_mixed() {
        for format in 0..4 {
            let header = header(0, format, VMX_SIZE, [0x1000, 0x2000, 0]);

            assert_eq!(vmx_takes(header, vmx_cpu()), format == 0);
            assert_eq!(svm_takes(header, svm_cpu()), format == 1);
        }
    }

    #[test]
    fn vmx_is_suspended_in_smm() {
        let smm = vmx::Cpu {
            smm: true,
            ..vmx_cpu()
        };
        let with = |flags, suspended, cpu| {
            vmx_takes(vmx_header(flags, VMX_SIZE, 0x1000, 0x2000, suspended), cpu)
        };

        for suspended in 0..8 {
            // An SMI suspended nothing, VMX operation, or L2.
            assert_eq!(with(0, suspended, smm), matches!(suspended, 0 | 2 | 3));
            assert_eq!(with(0, suspended, vmx_cpu()), suspended == 0);
            assert!(!with(GUEST_MODE, suspended, smm));
        }
        assert!(!with(RUN_PENDING, 0, smm));
        assert!(!with(0, 0b10 << 32, vmx_cpu()));
    }

    #[test]
    fn vmx_needs_enlightened_vmcss_enabled() {
        let lacking = vmx::Cpu {
            evmcs: false,
            ..vmx_cpu()
        };
        let header = vmx_header(EVMCS, VMX_SIZE, 0x1000, vmx::NO_ADDRESS, 0);

        assert!(vmx_takes(header, vmx_cpu()));
        assert!(!vmx_takes(header, lacking));
    }

    #[test]
    fn vmx_may_have_no_current_vmcs() {
        let none = vmx::NO_ADDRESS;
        let small = HEADER_SIZE + VMCS12_SIZE - 1;
        let has = |flags, size, vmcs12| {
            vmx::has_vmcs12(&vmx_header(flags, size, 0x1000, vmcs12, 0), &vmx_cpu()).ok()
        };

        assert_eq!(has(0, small, none), Some(false));
        assert_eq!(has(0, small, 0x2000), None);
        assert_eq!(has(GUEST_MODE, small, none), None);
        assert_eq!(has(EVMCS, small, none), None);
        assert_eq!(has(0, small + 1, none), None);
        assert_eq!(has(EVMCS, small + 1, none), Some(true));
        assert_eq!(has(0, small + 1, 0x2000), Some(true));
        // This is the address of the VMXON region.
        assert_eq!(has(0, small + 1, 0x1000), None);
    }

    #[test]
    fn vmx_shadows_need_room() {
        let needed = HEADER_SIZE + AREA_SIZE + VMCS12_SIZE;

        for (size, enough) in [(needed - 1, false), (needed, true), (u32::MAX, true)] {
            let header = vmx_header(GUEST_MODE, size, 0x1000, 0x2000, 0);

            assert_eq!(vmx::check_shadow_size(&header, &vmx_cpu()).is_ok(), enough);
        }
    }

    #[test]
    fn vmcs12_is_kvms() {
        for (revision, ours) in [
            (bindings::VMCS12_REVISION, true),
            (bindings::VMCS12_REVISION | 1 << 31, true),
            (bindings::VMCS12_REVISION ^ 1, false),
            (0, false),
        ] {
            assert_eq!(vmx::check_vmcs12(&revision.to_le_bytes()).is_ok(), ours);
        }
        assert!(vmx::check_vmcs12(&[]).is_err());
        assert!(!vmx::has_shadow(&[]));
    }

    #[test]
    fn svm_states() {
        assert!(svm_takes(svm_header(0, HEADER_SIZE, !0), svm_cpu()));
        assert!(svm_takes(svm_header(GIF_SET, HEADER_SIZE, !0), svm_cpu()));
        for flags in [GUEST_MODE, GUEST_MODE | RUN_PENDING | GIF_SET] {
            assert!(svm_takes(svm_header(flags, SVM_SIZE, 0x1000), svm_cpu()));
            assert!(!svm_takes(
                svm_header(flags, SVM_SIZE - 1, 0x1000),
                svm_cpu()
            ));
            for address in NOT_PAGES {
                assert!(!svm_takes(svm_header(flags, SVM_SIZE, address), svm_cpu()));
            }
        }
        for flag in [EVMCS, MTF_PENDING] {
            assert!(!svm_takes(svm_header(flag, SVM_SIZE, 0x1000), svm_cpu()));
        }
    }

    #[test]
    fn svm_needs_to_be_enabled_and_out_of_smm() {
        let disabled = svm::Cpu {
            svme: false,
            ..svm_cpu()
        };
        let smm = svm::Cpu {
            smm: true,
            ..svm_cpu()
        };

        for flags in [0, GIF_SET] {
            assert!(svm_takes(svm_header(flags, SVM_SIZE, 0x1000), disabled));
            assert!(svm_takes(svm_header(flags, SVM_SIZE, 0x1000), smm));
        }
        assert!(!svm_takes(
            svm_header(GUEST_MODE, SVM_SIZE, 0x1000),
            disabled
        ));
        assert!(!svm_takes(svm_header(GUEST_MODE, SVM_SIZE, 0x1000), smm));
    }

    #[test]
    fn vmcb12_is_one_that_vmrun_accepts() {
        let taken = |change: fn(&mut Vmcb12)| {
            let mut vmcb12 = Vmcb12::new();

            change(&mut vmcb12);
            vmcb12.is_taken()
        };

        assert!(taken(|_| ()));
        // L1 without protected mode, without paging, in virtual-8086 mode, and with LMA but not
        // LME.
        assert!(!taken(|vmcb12| vmcb12.cr0 = 1 << 31));
        assert!(!taken(|vmcb12| vmcb12.cr0 = 1));
        assert!(!taken(|vmcb12| vmcb12.rflags = 1 << 17));
        assert!(!taken(|vmcb12| vmcb12.efer = 1 << 10));
        assert!(taken(|vmcb12| vmcb12.efer = 1 << 8));
    }

    #[test]
    fn l2_has_a_cr0_and_a_pat() {
        for (l2_cr0, valid) in [
            (0, true),
            (1 << 29, false),
            (1 << 30, true),
            (0b11 << 29, true),
        ] {
            let vmcb12 = Vmcb12 {
                l2_cr0,
                ..Vmcb12::new()
            };

            assert_eq!(vmcb12.is_taken(), valid);
        }
        for (separate_pat, misc_ctl) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
            let vmcb12 = Vmcb12 {
                separate_pat,
                misc_ctl,
                gpat: 2,
                ..Vmcb12::new()
            };

            assert_eq!(vmcb12.is_taken(), !separate_pat || misc_ctl == 0);
        }
    }
}
