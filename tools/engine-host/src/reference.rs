// SPDX-License-Identifier: GPL-2.0

//! `Documentation/register-reference.rst`, from the table of registers.
//!
//! Nothing here knows any one register. What the declarations mean is in [`words`], in matches
//! that the compiler wants to be complete.

pub mod data;
mod words;

use crate::engine::registers::{lookup, Register, REGISTERS};

/// The head, up to the first register.
const HEAD: &str = "\
.. SPDX-License-Identifier: GPL-2.0

.. Generated from rust/engine/registers/table.rs by ``make registers``. Do not edit.

==================
Register reference
==================

Every MSR that the engine knows, by index, as ``rust/engine/registers/table.rs`` declares it. This
file is generated from there: ``make registers`` writes it, and ``make lint`` finds out if it is not
current. How an access goes through what is here is in :doc:`registers`.

Each entry has, in this order:

Index
	or the first and the last of several that are alike.

Name
	as in ``asm/msr-index.h``, of several that of the first.

Served by
	the engine, or KVM's module for the host's vendor. Such a module may pass an access on to the
	engine, to which then applies what is said of the engine.

Checked
	what an access needs, and what becomes of it otherwise. *First* is before anything else, also if
	a vendor's module serves the MSR; the rest is the engine's. Features are those of the vCPU's
	CPUID, named as X86_FEATURE_* or KVM_FEATURE_*.

Read, Write
	what the engine does; nothing if it is never asked. What is not said of the guest or of the host
	only is the same for both.

Lists
	*saved*: in KVM_GET_MSR_INDEX_LIST, if the host's CPU has it. *Emulated*: in the same list, if
	the vendor's module emulates it. *Feature MSR*: in KVM_GET_MSR_FEATURE_INDEX_LIST, if KVM knows
	it on this host. Once *fixed*, KVM_SET_MSRS takes no value but the present one.

And these words:

host
	user space, by KVM_GET_MSRS, KVM_SET_MSRS, KVM_GET_ONE_REG or KVM_SET_ONE_REG; or KVM itself.

invalid
	the access fails: the guest gets #GP, or user space an exit with KVM_MSR_EXIT_REASON_INVAL.

unknown
	as if the MSR did not exist: the guest gets #GP, or user space an exit with
	KVM_MSR_EXIT_REASON_UNKNOWN. The parameter ``ignore_msrs`` of kvm makes it harmless. The host
	reads 0 from an MSR of KVM_GET_MSR_INDEX_LIST, and may write 0 to it.

dropped
	the write succeeds, to no effect.
";

/// The parts that the space of indices is shown in: where each begins, and its title.
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

/// The whole file.
pub fn text() -> String {
    let mut declared: Vec<&Register> = REGISTERS
        .iter()
        .filter(|register| !register.name.is_empty())
        .collect();
    let mut text = String::from(HEAD);

    // What stands out from a range comes after it.
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

    // That one is not declared.
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
            format!("``{first:#x}`` to ``{last:#x}``, without those that have an entry")
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
