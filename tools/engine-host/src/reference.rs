// SPDX-License-Identifier: GPL-2.0

//! Generates `Documentation/register-reference.rst` from the register table.
//!
//! This file knows no single register. [`words`] describes what the declarations mean, in matches
//! that the compiler checks for completeness.

pub mod assertions;
pub mod data;
mod words;

use crate::engine::registers::{lookup, Register, REGISTERS};

/// The text before the first register.
const HEAD: &str = "\
.. SPDX-License-Identifier: GPL-2.0

.. Generated from rust/engine/registers/table.rs by ``make registers``. Do not edit.

==================
Register reference
==================

All MSRs that the engine knows, by index. ``make registers`` generates this file from
``rust/engine/registers/table.rs``, and ``make lint`` checks that it is current. :doc:`registers`
explains the order of the steps of an access.

The columns:

Index
	The index, or the first and last index of several similar MSRs.

Name
	The name in ``asm/msr-index.h``. For several MSRs, the name of the first.

Served by
	The engine, or the vendor's KVM module, which may call the engine. Then the other columns
	apply, too.

Checked
	Conditions of an access, and its result if they are not met. *First*: checked before the
	vendor's module is called. All other conditions are checked by the engine. Features are those
	of the vCPU's CPUID: KVM_FEATURE_*, or X86_FEATURE_* without this prefix.

Read, Write
	What the engine does, for guest and host unless one of them is named. Empty if the engine is
	never called.

Lists
	*saved*: in KVM_GET_MSR_INDEX_LIST, if the host's CPU has the MSR. *emulated*: in the same list,
	if the vendor's module emulates the MSR. *feature MSR*: in KVM_GET_MSR_FEATURE_INDEX_LIST, if
	KVM knows the MSR on this host. *fixed*: KVM_SET_MSRS accepts only the current value.

Terms:

host
	User space, by KVM_GET_MSRS, KVM_SET_MSRS, KVM_GET_ONE_REG or KVM_SET_ONE_REG; or KVM itself.

invalid
	The access fails: the guest gets #GP, or user space an exit with KVM_MSR_EXIT_REASON_INVAL.

unknown
	The access fails as if the MSR did not exist: the guest gets #GP, or user space an exit with
	KVM_MSR_EXIT_REASON_UNKNOWN. With kvm's parameter ``ignore_msrs``, it succeeds. If the MSR is in
	KVM_GET_MSR_INDEX_LIST, the host reads 0 from it, and can write 0 to it.

dropped
	The write succeeds without effect.
";

/// The parts of the index space: the first index of each, and its title.
const PARTS: [(u32, &str); 4] = [
    (0, "Architectural, and Intel's"),
    (0x4000_0000, "Hyper-V's"),
    (0x4b56_4d00, "KVM's"),
    (0xc000_0000, "AMD's"),
];

const COLUMNS: [(&str, u32); 7] = [
    ("Index", 10),
    ("Name", 18),
    ("Served by", 11),
    ("Checked", 17),
    ("Read", 15),
    ("Write", 19),
    ("Lists", 10),
];

const LINE: usize = 100;

/// The content of the file.
pub fn text() -> String {
    let mut declared: Vec<&Register> = REGISTERS
        .iter()
        .filter(|register| !register.name.is_empty())
        .collect();
    let mut text = String::from(HEAD);

    // An exception within a range follows the range.
    declared.sort_by_key(|register| (register.first, u32::MAX - register.last));
    for (at, &(base, title)) in PARTS.iter().enumerate() {
        let end = PARTS.get(at + 1).map_or(u32::MAX, |&(next, _)| next - 1);

        heading(&mut text, title);
        table(
            &mut text,
            declared
                .iter()
                .filter(|register| (base..=end).contains(&register.first))
                .map(|&register| entry(index(register), register)),
        );
    }

    // This index is not declared.
    let rest = entry("any other".to_owned(), lookup(u32::MAX));

    heading(&mut text, "The rest");
    table(&mut text, std::iter::once(rest));
    text
}

fn heading(text: &mut String, title: &str) {
    *text += &format!("\n{title}\n{}\n", "=".repeat(title.len()));
}

fn table(text: &mut String, entries: impl Iterator<Item = [String; COLUMNS.len()]>) {
    let widths = COLUMNS.map(|(_, width)| width.to_string()).join(" ");

    *text += &format!("\n.. list-table::\n   :header-rows: 1\n   :widths: {widths}\n\n");
    for cells in std::iter::once(COLUMNS.map(|(name, _)| name.to_owned())).chain(entries) {
        for (at, cell) in cells.iter().enumerate() {
            let mut line = String::from(if at == 0 { "   * -" } else { "     -" });

            for word in cell.split_whitespace() {
                if line.len() + 1 + word.len() > LINE {
                    *text += &line;
                    text.push('\n');
                    line = " ".repeat(6);
                }
                line.push(' ');
                line += word;
            }
            *text += &line;
            text.push('\n');
        }
    }
}

/// The cells of a register's row.
fn entry(index: String, register: &Register) -> [String; COLUMNS.len()] {
    [
        index,
        register.name.to_owned(),
        words::served_by(register.vendor),
        words::checked(register),
        words::read(register),
        words::write(register),
        words::lists(register),
    ]
}

fn index(register: &Register) -> String {
    let &Register { first, last, .. } = register;
    let shared = (first..=last).any(|index| lookup(index).name != register.name);

    match (first == last, shared) {
        (true, _) => format!("``{first:#x}``"),
        (false, false) => format!("``{first:#x}`` to ``{last:#x}``"),
        (false, true) => {
            format!("``{first:#x}`` to ``{last:#x}``, except those with an entry")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_every_register_once() {
        let text = text();

        for register in REGISTERS
            .iter()
            .filter(|register| !register.name.is_empty())
        {
            let name = format!("\n     - {}\n", register.name);

            assert_eq!(text.matches(&name).count(), 1, "{}", register.name);
        }
    }

    #[test]
    fn has_entries_of_all_cells() {
        let text = text();
        let rows = text.matches("\n   * -").count();

        assert_eq!(text.matches("\n     -").count(), rows * (COLUMNS.len() - 1));
    }

    #[test]
    fn has_no_long_line() {
        for line in text().lines() {
            assert!(line.chars().count() <= LINE, "{line}");
            assert_eq!(line, line.trim_end());
        }
    }
}
