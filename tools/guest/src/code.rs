// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The guest's code: one stub per kind of MSR access.
//!
//! It is 32-bit and position independent. It is assembled into this crate's read-only data and
//! copied to guest memory. A stub ends with an OUT to [`PORT_DONE`]. The handler of exception
//! vector `v` makes an OUT to [`PORT_EXCEPTION`]` + v`, and changes only RIP and RSP. (HLT would
//! not exit to user space with an in-kernel irqchip.)

use std::arch::global_asm;

/// A stub writes to this port when its accesses are done.
pub const PORT_DONE: u16 = 0xb0;

/// Port of exception vector 0. The 31 ports above are for the other vectors.
pub const PORT_EXCEPTION: u16 = 0xc0;

/// Bytes of code per exception vector, see [`exceptions`].
pub const EXCEPTION_STUB_SIZE: usize = 4;

/// Number of exception vectors with a stub.
pub const EXCEPTIONS: usize = 32;

global_asm!(
    ".pushsection .rodata.kvm_msr_guest, \"a\"",
    // Visible in this crate only.
    ".globl kvm_msr_guest_start, kvm_msr_guest_rdmsr",
    ".hidden kvm_msr_guest_start, kvm_msr_guest_rdmsr",
    ".globl kvm_msr_guest_wrmsr, kvm_msr_guest_rdmsr_emulated",
    ".hidden kvm_msr_guest_wrmsr, kvm_msr_guest_rdmsr_emulated",
    ".globl kvm_msr_guest_wrmsr_emulated, kvm_msr_guest_rdmsr_loop",
    ".hidden kvm_msr_guest_wrmsr_emulated, kvm_msr_guest_rdmsr_loop",
    ".globl kvm_msr_guest_wrmsr_loop, kvm_msr_guest_nop",
    ".hidden kvm_msr_guest_wrmsr_loop, kvm_msr_guest_nop",
    ".globl kvm_msr_guest_exceptions, kvm_msr_guest_end",
    ".hidden kvm_msr_guest_exceptions, kvm_msr_guest_end",
    ".code32",
    "kvm_msr_guest_start:",
    "kvm_msr_guest_rdmsr:",
    "rdmsr",
    "out 0xb0, al",
    "kvm_msr_guest_wrmsr:",
    "wrmsr",
    "out 0xb0, al",
    // KVM's forced-emulation prefix: see handle_ud() in arch/x86/kvm/x86.c.
    "kvm_msr_guest_rdmsr_emulated:",
    "ud2",
    ".ascii \"kvm\"",
    "rdmsr",
    "out 0xb0, al",
    "kvm_msr_guest_wrmsr_emulated:",
    "ud2",
    ".ascii \"kvm\"",
    "wrmsr",
    "out 0xb0, al",
    // ESI accesses.
    "kvm_msr_guest_rdmsr_loop:",
    "rdmsr",
    "dec esi",
    "jnz kvm_msr_guest_rdmsr_loop",
    "out 0xb0, al",
    "kvm_msr_guest_wrmsr_loop:",
    "wrmsr",
    "dec esi",
    "jnz kvm_msr_guest_wrmsr_loop",
    "out 0xb0, al",
    "kvm_msr_guest_nop:",
    "out 0xb0, al",
    // For each vector: OUT imm8, AL; then a jump back to it, in case the guest is resumed.
    "kvm_msr_guest_exceptions:",
    ".set kvm_msr_guest_port, 0xc0",
    ".rept 32",
    ".byte 0xe6, kvm_msr_guest_port, 0xeb, 0xfc",
    ".set kvm_msr_guest_port, kvm_msr_guest_port + 1",
    ".endr",
    "kvm_msr_guest_end:",
    ".code64",
    ".popsection",
);

unsafe extern "C" {
    static kvm_msr_guest_start: u8;
    static kvm_msr_guest_rdmsr: u8;
    static kvm_msr_guest_wrmsr: u8;
    static kvm_msr_guest_rdmsr_emulated: u8;
    static kvm_msr_guest_wrmsr_emulated: u8;
    static kvm_msr_guest_rdmsr_loop: u8;
    static kvm_msr_guest_wrmsr_loop: u8;
    static kvm_msr_guest_nop: u8;
    static kvm_msr_guest_exceptions: u8;
    static kvm_msr_guest_end: u8;
}

/// A stub to start at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stub {
    /// One RDMSR.
    Rdmsr,
    /// One WRMSR.
    Wrmsr,
    /// One RDMSR behind KVM's forced-emulation prefix.
    RdmsrEmulated,
    /// One WRMSR behind KVM's forced-emulation prefix.
    WrmsrEmulated,
    /// RDMSR, ESI times (0 means 2^32).
    RdmsrLoop,
    /// WRMSR, ESI times (0 means 2^32).
    WrmsrLoop,
    /// No access.
    Nop,
}

impl Stub {
    /// Offset of the stub in [`bytes`].
    pub fn offset(self) -> usize {
        let address = match self {
            Stub::Rdmsr => &raw const kvm_msr_guest_rdmsr,
            Stub::Wrmsr => &raw const kvm_msr_guest_wrmsr,
            Stub::RdmsrEmulated => &raw const kvm_msr_guest_rdmsr_emulated,
            Stub::WrmsrEmulated => &raw const kvm_msr_guest_wrmsr_emulated,
            Stub::RdmsrLoop => &raw const kvm_msr_guest_rdmsr_loop,
            Stub::WrmsrLoop => &raw const kvm_msr_guest_wrmsr_loop,
            Stub::Nop => &raw const kvm_msr_guest_nop,
        };

        address.addr() - (&raw const kvm_msr_guest_start).addr()
    }

    /// Bytes from the stub's first byte to the end of its RDMSR or WRMSR.
    pub fn access_length(self) -> usize {
        match self {
            Stub::RdmsrEmulated | Stub::WrmsrEmulated => 7,
            Stub::Nop => 0,
            _ => 2,
        }
    }
}

/// Offset in [`bytes`] of the stub of exception vector 0.
pub fn exceptions() -> usize {
    (&raw const kvm_msr_guest_exceptions).addr() - (&raw const kvm_msr_guest_start).addr()
}

/// The code, which can be copied anywhere into the guest's memory.
pub fn bytes() -> &'static [u8] {
    let start = &raw const kvm_msr_guest_start;
    let length = (&raw const kvm_msr_guest_end).addr() - start.addr();

    // SAFETY: Both symbols are in one section of read-only data, the end after
    // the start, and all bytes between them are initialised above.
    unsafe { std::slice::from_raw_parts(start, length) }
}
