// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A filter as C, for `ioctl(vm, KVM_X86_SET_MSR_FILTER, &filter)`.

use std::fmt::Write;

use crate::filter::Filter;
use crate::filter::Flags;
use crate::filter::Verdict;
use crate::filter::msrs;

/// C source with a `struct kvm_msr_filter` of this name. It needs `linux/kvm.h` of Linux 5.10 or
/// later.
pub fn c_source(filter: &Filter, name: &str) -> String {
    let mut source = format!(
        "/* Made by 'kvmsr filter compile'. Set it by\n \
          * ioctl(vm, KVM_X86_SET_MSR_FILTER, &{name}). */\n\
         #include <linux/kvm.h>\n"
    );

    // Writing to a string can't fail.
    let _ = write_source(&mut source, filter, name);
    source
}

fn write_source(to: &mut String, filter: &Filter, name: &str) -> std::fmt::Result {
    for (number, range) in filter.ranges.iter().enumerate() {
        let bytes = &range.bitmap.0;

        writeln!(to, "\n/* {range} */")?;
        writeln!(
            to,
            "static __u8 {name}_bitmap_{number}[{}] = {{",
            bytes.len()
        )?;
        for line in bytes.chunks(12) {
            let digits: Vec<String> = line.iter().map(|byte| format!("{byte:#04x}")).collect();

            writeln!(to, "\t{},", digits.join(", "))?;
        }
        writeln!(to, "}};")?;
    }
    let default = match filter.default {
        Verdict::Allow => "KVM_MSR_FILTER_DEFAULT_ALLOW",
        Verdict::Deny => "KVM_MSR_FILTER_DEFAULT_DENY",
    };

    writeln!(to, "\nstruct kvm_msr_filter {name} = {{")?;
    writeln!(to, "\t.flags = {default},")?;
    if !filter.ranges.is_empty() {
        writeln!(to, "\t.ranges = {{")?;
        for (number, range) in filter.ranges.iter().enumerate() {
            let flags = match range.flags {
                Flags::READ => "KVM_MSR_FILTER_READ",
                Flags::WRITE => "KVM_MSR_FILTER_WRITE",
                _ => "KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE",
            };

            writeln!(to, "\t\t{{")?;
            if let Some(names) = msrs::names(filter.unlike_default(range).iter()) {
                writeln!(to, "\t\t\t/* {}: {names} */", filter.default.opposite())?;
            }
            writeln!(to, "\t\t\t.flags = {flags},")?;
            writeln!(to, "\t\t\t.nmsrs = {},", range.nmsrs)?;
            writeln!(to, "\t\t\t.base = {},", range.base)?;
            writeln!(to, "\t\t\t.bitmap = {name}_bitmap_{number},")?;
            writeln!(to, "\t\t}},")?;
        }
        writeln!(to, "\t}},")?;
    }
    writeln!(to, "}};")
}
