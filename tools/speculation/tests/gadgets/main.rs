// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Objects written by hand, with gadgets and with what is none.

mod bounds;
mod ways;

use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use kvm_msr_speculation::gadget;
use kvm_msr_speculation::gadget::Gadget;
use kvm_msr_speculation::image::Image;

/// What all objects have: tables of constants, of which `bytes` has bytes below 4 and `behind` has
/// others, and one that is written.
const TABLES: &str = r#"
    .section .rodata
    .type bytes, @object
    .size bytes, 4096
bytes:
    .fill 4096, 1, 3
    .type four, @object
    .size four, 32
four:
    .quad 1, 2, 3, 4
    .type behind, @object
    .size behind, 4096
behind:
    .byte 0
    .fill 4095, 1, 0xff
    .bss
    .type written, @object
    .size written, 32
written:
    .skip 32
"#;

/// Assembles a function `f`, and finds its gadgets.
fn gadgets_of(code: &str) -> Vec<Gadget> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);

    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let stem = format!("kvm-msr-gadget-{}-{number}", std::process::id());
    let source = std::env::temp_dir().join(format!("{stem}.s"));
    let object = source.with_extension("o");
    let text = format!(
        ".intel_syntax noprefix\n.text\n.globl f\n.type f, @function\nf:\n{code}\n.size f, . - f\n\
         {TABLES}"
    );
    std::fs::write(&source, text).unwrap();
    let status = Command::new("cc")
        .arg("-c")
        .arg("-o")
        .args([&object, &source])
        .status()
        .expect("cc can be run");
    assert!(status.success(), "cc does not take the code:\n{code}");
    let data = std::fs::read(&object).unwrap();

    for path in [source, object] {
        std::fs::remove_file(path).unwrap();
    }
    let image = Image::read(&data).unwrap();
    let function = image
        .functions
        .iter()
        .find(|function| function.name == "f")
        .expect("there is a function f");

    gadget::find(&image, function).gadgets
}

#[track_caller]
fn assert_clean(code: &str) {
    let gadgets = gadgets_of(code);
    assert!(gadgets.is_empty(), "{gadgets:#?}");
}

#[track_caller]
fn assert_gadgets(number: usize, code: &str) {
    let gadgets = gadgets_of(code);
    assert_eq!(gadgets.len(), number, "{gadgets:#?}");
}
