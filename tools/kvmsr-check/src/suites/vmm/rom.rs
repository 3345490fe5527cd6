// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A guest without an operating system: QEMU's firmware is a program that reads an MSR again and
//! again, and writes to port 0xe9 what it got, whenever that changes.

/// The MSR, which no CPU has.
pub const UNKNOWN: u32 = 0xc000_1fff;
/// What the guest writes if a read raises #GP. If not, it writes the value's lowest byte.
pub const GP: u8 = 0x80;

/// The ROM has to end at 4 GiB, and QEMU wants multiples of 64 KiB. It is at 0xf0000, too.
const SIZE: usize = 0x10000;
/// Where the CPU starts.
const RESET: usize = 0xfff0;

/// 16-bit code for 0xf000:0.
#[rustfmt::skip]
const CODE: [u8; 49] = [
    0xfa,                               // 00: cli
    0x31, 0xc0,                         // 01: xor ax, ax
    0x8e, 0xd8,                         // 03: mov ds, ax
    0x8e, 0xd0,                         // 05: mov ss, ax
    0xbc, 0x00, 0x7c,                   // 07: mov sp, 0x7c00
    // The handler of #GP, vector 13.
    0xc7, 0x06, 0x34, 0x00, 0x2a, 0x00, // 0a: mov word [0x34], 0x2a
    0xc7, 0x06, 0x36, 0x00, 0x00, 0xf0, // 10: mov word [0x36], 0xf000
    0x66, 0xb9, 0xff, 0x1f, 0x00, 0xc0, // 16: mov ecx, UNKNOWN
    0xb3, 0xff,                         // 1c: mov bl, 0xff
    // The loop. bl has what was written last.
    0x0f, 0x32,                         // 1e: rdmsr
    0x38, 0xd8,                         // 20: cmp al, bl
    0x74, 0xfa,                         // 22: je 1e
    0x88, 0xc3,                         // 24: mov bl, al
    0xe6, 0xe9,                         // 26: out 0xe9, al
    0xeb, 0xf4,                         // 28: jmp 1e
    // The handler. It drops the flags and the address of the read.
    0x83, 0xc4, 0x06,                   // 2a: add sp, 6
    0xb0, GP,                           // 2d: mov al, GP
    0xeb, 0xef,                         // 2f: jmp 20
];

/// The image for QEMU's option -bios.
pub fn image() -> Vec<u8> {
    let mut image = vec![0; SIZE];

    image[..CODE.len()].copy_from_slice(&CODE);
    // jmp 0xf000:0
    image[RESET..RESET + 5].copy_from_slice(&[0xea, 0x00, 0x00, 0x00, 0xf0]);
    image
}
