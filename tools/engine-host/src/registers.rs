// SPDX-License-Identifier: GPL-2.0

//! The register table, and the lookup of a declaration by index.

use crate::engine::registers::*;

fn declared() -> impl Iterator<Item = &'static Register> {
    REGISTERS
        .iter()
        .filter(|register| !register.name.is_empty())
}

/// The lookup finds the first declaration that has the index.
#[test]
fn lookup_finds_the_first_declaration() {
    for index in (0..0x2000)
        .chain(0x4000_0000..0x4000_1100)
        .chain(0x4b56_4d00..0x4b56_4e00)
        .chain(0xc000_0000..0xc000_2000)
        .chain(0xc001_0000..0xc001_2000)
        .chain([0x2000, 0x3fff_ffff, 0x8000_0000, 0xbfff_ffff, u32::MAX])
    {
        let expected =
            declared().find(|register| (register.first..=register.last).contains(&index));

        assert_eq!(
            lookup(index).name,
            expected.map_or("", |register| register.name),
            "{index:#x}"
        );
    }
}

#[test]
fn every_index_of_a_declaration_is_found() {
    for register in declared() {
        for index in register.first..=register.last {
            assert!(!lookup(index).name.is_empty(), "{index:#x}");
        }
    }
}

#[test]
fn names_are_of_one_declaration() {
    let mut names: Vec<_> = declared().map(|register| register.name).collect();
    let count = names.len();

    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count > 190);
}

/// No MSR is in two lists.
#[test]
fn positions_in_the_list_are_unique() {
    let mut places = 0;

    for register in declared() {
        if let Some(position) = register.list_position {
            assert_eq!(usize::from(position), places, "{}", register.name);
            places += (register.first..=register.last).count();
        }
    }
    assert_eq!(places, NR_LISTED);
}
