// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A filter as Rust, for `VmFd::set_msr_filter()` of kvm-ioctls.

use std::fmt::Write;

use crate::filter::Filter;
use crate::filter::Flags;
use crate::filter::Verdict;
use crate::filter::msrs;

/// Rust source with a constant of this name, in capitals, and one for the default. It needs
/// kvm-ioctls 0.25 or later.
pub fn rust_source(filter: &Filter, name: &str) -> String {
    let name = name.to_uppercase();
    let mut source = format!(
        "// Made by 'kvmsr filter compile'. Set it by\n\
         // vm.set_msr_filter({name}_DEFAULT, &{name})?;\n\
         use kvm_ioctls::MsrFilterDefaultAction;\n\
         use kvm_ioctls::MsrFilterRange;\n"
    );

    // Writing to a string can't fail.
    let _ = write_source(&mut source, filter, &name);
    source
}

fn write_source(to: &mut String, filter: &Filter, name: &str) -> std::fmt::Result {
    if !filter.ranges.is_empty() {
        writeln!(to, "use kvm_ioctls::MsrFilterRangeFlags;")?;
    }
    let default = match filter.default {
        Verdict::Allow => "ALLOW",
        Verdict::Deny => "DENY",
    };

    writeln!(to, "\n/// What becomes of accesses that no range matches.")?;
    writeln!(
        to,
        "pub const {name}_DEFAULT: MsrFilterDefaultAction = MsrFilterDefaultAction::{default};"
    )?;
    writeln!(to, "\n/// The first range that matches an access decides.")?;
    writeln!(to, "#[rustfmt::skip]")?;
    write!(
        to,
        "pub const {name}: [MsrFilterRange<'static>; {}] = [",
        filter.ranges.len()
    )?;
    for range in &filter.ranges {
        let flags = match range.flags {
            Flags::READ => "MsrFilterRangeFlags::READ",
            Flags::WRITE => "MsrFilterRangeFlags::WRITE",
            _ => "MsrFilterRangeFlags::READ.union(MsrFilterRangeFlags::WRITE)",
        };

        writeln!(to, "\n    // {range}")?;
        if let Some(names) = msrs::names(filter.unlike_default(range).iter()) {
            writeln!(to, "    // {}: {names}", filter.default.opposite())?;
        }
        writeln!(to, "    MsrFilterRange {{")?;
        writeln!(to, "        flags: {flags},")?;
        writeln!(to, "        base: {},", range.base)?;
        writeln!(to, "        msr_count: {},", range.nmsrs)?;
        writeln!(to, "        bitmap: &[")?;
        for line in range.bitmap.0.chunks(14) {
            let digits: Vec<String> = line.iter().map(|byte| format!("{byte:#04x}")).collect();

            writeln!(to, "            {},", digits.join(", "))?;
        }
        writeln!(to, "        ],")?;
        write!(to, "    }},")?;
    }
    if !filter.ranges.is_empty() {
        writeln!(to)?;
    }
    writeln!(to, "];")
}
