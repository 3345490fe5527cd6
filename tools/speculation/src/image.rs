// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A relocatable object: its functions, its symbols and what its relocations lead to.

use std::collections::BTreeMap;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use object::Architecture;
use object::Object;
use object::ObjectSection;
use object::ObjectSymbol;
use object::RelocationFlags;
use object::RelocationTarget;
use object::SectionFlags;
use object::SectionKind;
use object::SymbolKind;
use object::elf;
use object::read::elf::ElfFile64;

use crate::value::Place;

/// The size of an entry of `__jump_table`: code and target, 4 bytes each, and the key.
const JUMP_ENTRY: u64 = 16;

/// A function's code.
pub struct Function {
    /// Its name, as its author knows it.
    pub name: String,
    /// Its section.
    pub section: usize,
    /// Where it begins in its section.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
}

/// What the linker puts in.
#[derive(Clone, Copy)]
pub struct Relocation {
    /// Where what it stands for begins.
    pub place: Place,
    /// The distance from there.
    pub addend: i128,
    /// It is relative to where it is put.
    pub relative: bool,
    /// It names the section and not the symbol.
    of_section: bool,
}

struct Symbol {
    end: u64,
    name: String,
}

struct Section {
    name: String,
    data: Vec<u8>,
    size: u64,
    constant: bool,
    relocations: BTreeMap<u64, Relocation>,
    /// By where they begin. Those that have no size are left out.
    symbols: BTreeMap<u64, Symbol>,
}

/// A relocatable object.
pub struct Image {
    /// The functions, in the order of their sections and places.
    pub functions: Vec<Function>,
    sections: BTreeMap<usize, Section>,
    undefined: BTreeMap<usize, String>,
    /// For each place of code that is patched to jump, where it may go.
    jumps: BTreeMap<Place, u64>,
}

impl Image {
    /// Reads an object of x86-64.
    pub fn read(data: &[u8]) -> Result<Self> {
        let file = ElfFile64::<object::Endianness>::parse(data).context("it is no ELF object")?;

        ensure!(
            file.architecture() == Architecture::X86_64,
            "it is for another architecture"
        );
        let mut image = Self {
            functions: Vec::new(),
            sections: BTreeMap::new(),
            undefined: BTreeMap::new(),
            jumps: BTreeMap::new(),
        };
        for section in file.sections() {
            image
                .sections
                .insert(section.index().0, read_section(&file, &section)?);
        }
        image.read_symbols(&file)?;
        image.read_jumps();
        Ok(image)
    }

    fn read_symbols(&mut self, file: &ElfFile64<'_>) -> Result<()> {
        for symbol in file.symbols() {
            let mangled = symbol.name().context("a symbol's name is not UTF-8")?;
            let name = without_arguments(&format!("{:#}", rustc_demangle::demangle(mangled)));
            let Some(section) = symbol.section_index() else {
                self.undefined
                    .insert(Place::UNDEFINED + symbol.index().0, name);
                continue;
            };
            let start = symbol.address();
            let end = start + symbol.size();

            if symbol.size() == 0 {
                continue;
            }
            if symbol.kind() == SymbolKind::Text {
                self.functions.push(Function {
                    name: name.clone(),
                    section: section.0,
                    start,
                    end,
                });
            }
            if let Some(section) = self.sections.get_mut(&section.0) {
                section.symbols.insert(start, Symbol { end, name });
            }
        }
        self.functions
            .sort_by_key(|function| (function.section, function.start));
        // Aliases are one function.
        self.functions
            .dedup_by_key(|function| (function.section, function.start));
        Ok(())
    }

    /// Static keys: what is a NOP in the object may be a jump when it runs.
    fn read_jumps(&mut self) {
        let tables = self
            .sections
            .values()
            .filter(|section| section.name == "__jump_table");
        let mut jumps = BTreeMap::new();

        for table in tables {
            for entry in (0..table.size).step_by(JUMP_ENTRY as usize) {
                let at = |offset| table.relocations.get(&(entry + offset)).copied();

                if let (Some(code), Some(target)) = (at(0), at(4)) {
                    let offset = |to: Relocation| to.place.offset.wrapping_add(to.addend as u64);
                    let code = Place {
                        section: code.place.section,
                        offset: offset(code),
                    };
                    jumps.insert(code, offset(target));
                }
            }
        }
        self.jumps = jumps;
    }

    /// A function's code.
    pub fn code(&self, function: &Function) -> &[u8] {
        self.sections
            .get(&function.section)
            .and_then(|section| {
                section
                    .data
                    .get(function.start as usize..function.end as usize)
            })
            .unwrap_or_default()
    }

    /// Where the code at a place may go if a static key is turned.
    pub fn patched_jump(&self, place: Place) -> Option<u64> {
        self.jumps.get(&place).copied()
    }

    /// The relocation at a place.
    pub fn relocation(&self, section: usize, offset: u64) -> Option<Relocation> {
        self.sections
            .get(&section)?
            .relocations
            .get(&offset)
            .copied()
    }

    /// What an instruction refers to by a relocation, and the distance from where that begins.
    /// `after` is the distance from the relocation to the end of the instruction, from where the
    /// CPU counts.
    pub fn target(&self, relocation: Relocation, after: u64) -> (Place, i128) {
        let Relocation {
            mut place, addend, ..
        } = relocation;
        let mut distance = addend;

        if relocation.relative {
            distance += i128::from(after);
        }
        if relocation.of_section
            && let Some(section) = self.sections.get(&place.section)
            && let Ok(offset) = u64::try_from(distance)
        {
            let start = section.symbol_at(offset).map_or(offset, |(start, _)| start);

            place.offset = start;
            distance -= i128::from(start);
        }
        (place, distance)
    }

    /// The names of what an instruction's relocations refer to.
    pub fn names_in(&self, section: usize, start: u64, end: u64) -> Vec<&str> {
        let Some(code) = self.sections.get(&section) else {
            return Vec::new();
        };
        code.relocations
            .range(start..end)
            .map(|(&at, &relocation)| self.name_of(self.target(relocation, end - at).0))
            .collect()
    }

    /// The name of what is at a place.
    pub fn name_of(&self, place: Place) -> &str {
        if let Some(name) = self.undefined.get(&place.section) {
            return name;
        }
        let Some(section) = self.sections.get(&place.section) else {
            return "?";
        };
        section
            .symbol_at(place.offset)
            .map_or(&section.name, |(_, symbol)| &symbol.name)
    }

    /// Where the object that begins at a place ends, by its distance from there. What has no symbol
    /// ends with the next one that has; nothing is known of what other modules define.
    pub fn size_of(&self, place: Place) -> Option<u64> {
        let section = self.sections.get(&place.section)?;
        let end = match section.symbol_at(place.offset) {
            Some((_, symbol)) => symbol.end,
            None => section
                .symbols
                .range(place.offset..)
                .next()
                .map_or(section.size, |(&start, _)| start),
        };
        Some(end.saturating_sub(place.offset))
    }

    /// The integer at an offset from a place, if it is constant and the linker leaves it alone.
    pub fn constant(&self, place: Place, offset: i128, bytes: usize) -> Option<i128> {
        let section = self.sections.get(&place.section)?;
        let start = usize::try_from(i128::from(place.offset) + offset).ok()?;
        let data = section.data.get(start..start.checked_add(bytes)?)?;
        let (first, last) = (start as u64, (start + bytes) as u64);

        if !section.constant
            || section
                .relocations
                .range(first.saturating_sub(7)..last)
                .next()
                .is_some()
        {
            return None;
        }
        Some(
            data.iter()
                .rev()
                .fold(0, |number, &byte| number << 8 | i128::from(byte)),
        )
    }
}

impl Section {
    fn symbol_at(&self, offset: u64) -> Option<(u64, &Symbol)> {
        let (&start, symbol) = self.symbols.range(..=offset).next_back()?;
        (offset < symbol.end).then_some((start, symbol))
    }
}

/// A path without the arguments of generics, which are long and change often.
fn without_arguments(path: &str) -> String {
    let mut short = String::new();
    let mut depth = 0;
    let mut before = ' ';

    for letter in path.chars() {
        let closes = letter == '>' && before != '-';

        if letter == '<' && (depth > 0 || before == ':' || before.is_alphanumeric()) {
            if depth == 0 {
                short.truncate(short.trim_end_matches("::").len());
            }
            depth += 1;
        } else if closes && depth > 0 {
            depth -= 1;
        } else if depth == 0 {
            short.push(letter);
        }
        before = letter;
    }
    short
}

fn read_section<'data>(
    file: &ElfFile64<'data>,
    section: &object::read::elf::ElfSection64<'data, '_>,
) -> Result<Section> {
    let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
        unreachable!("the file is ELF");
    };
    let mut relocations = BTreeMap::new();

    for (offset, relocation) in section.relocations() {
        let RelocationTarget::Symbol(index) = relocation.target() else {
            continue;
        };
        let RelocationFlags::Elf { r_type } = relocation.flags() else {
            continue;
        };
        let symbol = file.symbol_by_index(index)?;
        let place = match symbol.section_index() {
            Some(section) => Place {
                section: section.0,
                offset: symbol.address(),
            },
            None => Place {
                section: Place::UNDEFINED + index.0,
                offset: 0,
            },
        };
        relocations.insert(
            offset,
            Relocation {
                place,
                addend: relocation.addend().into(),
                relative: matches!(r_type, elf::R_X86_64_PC32 | elf::R_X86_64_PLT32),
                of_section: symbol.kind() == SymbolKind::Section,
            },
        );
    }
    Ok(Section {
        name: section.name()?.to_owned(),
        data: if section.kind() == SectionKind::UninitializedData {
            Vec::new()
        } else {
            section.data()?.to_vec()
        },
        size: section.size(),
        constant: !sh_flags.contains(elf::SHF_WRITE),
        relocations,
        symbols: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::without_arguments;

    #[test]
    fn paths_lose_the_arguments_of_generics_only() {
        for (path, short) in [
            ("a::f", "a::f"),
            ("a::f::<b::C<D>, 3>", "a::f"),
            ("<a::B<c::D<E>>>::f", "<a::B>::f"),
            ("<a::B<C> as d::E<F>>::f::<G>", "<a::B as d::E>::f"),
            (
                "a::f::<b::g::{closure#0}>::{closure#1}",
                "a::f::{closure#1}",
            ),
            ("a::f::<fn() -> B>", "a::f"),
        ] {
            assert_eq!(without_arguments(path), short);
        }
    }
}
